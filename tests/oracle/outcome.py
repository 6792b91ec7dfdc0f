"""What came of every step of every case, on both sides."""

from dataclasses import dataclass
from functools import cached_property

from cases import CASES, Case
from packets import Ether, Flow
from services import VIP_PORTS, Service


@dataclass(frozen=True)
class Topic:
    """A case for one protocol of one service."""

    service: Service
    protocol: str
    case: Case

    def __str__(self):
        return f"{self.service.name}-{self.protocol}-{self.case.name}"


@dataclass(frozen=True)
class Step:
    """What was fed, and the frames that came of it: ours and the judge's."""

    flow: Flow
    fed: tuple[bytes, ...]
    ours: tuple[bytes, ...]
    theirs: tuple[bytes, ...]

    @cached_property
    def packet(self):
        """What was fed first, dissected."""
        return Ether(self.fed[0]).payload


def topics(services):
    """All that there is to compare for some services."""
    every = (
        Topic(service, protocol, case) for service in services for protocol in VIP_PORTS for case in CASES
    )
    return [topic for topic in every if topic.case.fits(topic.service, topic.protocol)]


def steps(topics, our_side, their_side):
    """Feeds both sides with all steps of the topics, and gives them by topic."""
    flows = [Flow(number, topic.service, topic.protocol) for number, topic in enumerate(topics)]
    fed = [
        (number, tuple(step) if isinstance(step, list) else (step,))
        for number, topic in enumerate(topics)
        for step in topic.case.steps(flows[number])
    ]
    frames = [each for _, each in fed]
    by_topic = {topic: [] for topic in topics}
    for (number, each), ours, theirs in zip(fed, our_side(frames), their_side(frames), strict=True):
        by_topic[topics[number]].append(Step(flows[number], each, tuple(ours), tuple(theirs)))
    return by_topic
