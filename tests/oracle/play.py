"""The same scenarios on both sides."""

import ours
from scenario import Made, chosen


class Play:
    """Scenarios that both sides play, phase by phase, each with a service of its own.

    Services are numbered from `first` on: the judge forgets no connection when its service goes.
    """

    def __init__(self, scenarios, judge, directory, first=0, more=""):
        self.made = [Made(scenario, number, more) for number, scenario in enumerate(scenarios, first)]
        self.judge, self.directory = judge, directory
        # By scenario, what both sides did in each phase.
        self.seen = {scenario: [] for scenario in scenarios}

    def play(self, pause_secs=0):
        """Plays all, and waits between phases."""
        for vip in {each.vip for each in self.made}:
            self.judge.add(vip, [])
        with ours.Running(self._toml(0), self.directory) as running:
            for phase in range(max(len(each.scenario.phases) for each in self.made)):
                if phase > 0:
                    running.wait(pause_secs)
                    running.change(self._toml(phase))
                self._phase(running, phase)
        self.judge.change([rule for each in self.made for rule in each.gone()])
        return self.seen

    def _toml(self, phase):
        return "".join(line for each in self.made for line in each.toml(phase))

    def _phase(self, running, phase):
        present = [each for each in self.made if phase < len(each.scenario.phases)]
        self.judge.change([rule for each in present for rule in each.rules(phase)])
        steps = [step for each in present for step in each.steps[phase]]
        choices = [map(chosen, side.outcome(steps)) for side in (running, self.judge)]
        counts = [side.counts() for side in (running, self.judge)]
        for each in present:
            letters = ["".join(next(side) for _ in each.steps[phase]) for side in choices]
            counted = [{letter: side.get(key) for letter, key in each.servers(phase)} for side in counts]
            self.seen[each.scenario].append(list(zip(letters, counted, strict=True)))
