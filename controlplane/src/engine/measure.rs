//! Measuring backends and hearing what their agents say, for schedulers that follow that.

use dataplane::measure::Traffic;
use dataplane::snapshot::BackendSlot;
use dataplane::worker::Handle;

use super::{Devices, Engine};
use crate::health::Target;
use crate::health::agent::Report;

impl<D: Devices> Engine<D> {
    /// Looks at all backends that are measured.
    pub(super) fn measure(&mut self) {
        self.follow_measured();
        let Some(Handle { team, .. }) = self.workers.first() else { return };
        self.windows.note(|slot| team.traffic(slot)).for_each(|(slot, mark)| team.marks.set(slot, mark));
        self.changed |= self.state.reweigh(|slot| team.load(slot), self.started.elapsed());
    }

    /// Notes what an agent said.
    pub(super) fn hear_agent(&mut self, target: Target, said: Result<Report, String>) {
        if self.state.hear_agent(target, said, self.started.elapsed()) {
            self.changed = true;
            let told = self.state.told(target).unwrap_or_default();
            tracing::info!("service {}: backend {}: its agent says {told}", target.service, target.backend);
        }
    }

    /// Begins with backends that are to be measured, before workers hear of them.
    pub(super) fn follow_measured(&mut self) {
        let Some(Handle { team, .. }) = self.workers.first() else { return };
        let counted = |slot: BackendSlot| -> Traffic { team.traffic(slot) };
        for (slot, mark) in self.windows.follow(self.state.measured(), counted) {
            team.marks.set(slot, mark);
            team.times.forget(slot);
        }
    }
}
