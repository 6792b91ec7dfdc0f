//! Fills shared memory with the frames of a capture, and sees whether the device under test ever waits for any.
//!
//! A testpmd on the other core. It copies nothing, since its end of the memory is where its own mbufs are: whoever is
//! tested copies each frame in and out, so this end is the faster one.

use std::path::Path;
use std::time::Duration;

use super::capture::Capture;
use super::machine::Machine;
use super::testpmd::Testpmd;
use super::{UnderTest as _, memif};

/// Numbers of its devices: the capture, and the memory.
const CAPTURE: u16 = 0;
const MEMORY: u16 = 1;
/// Share of its frames for which the ring has no room, at least. A ring that was never full may have been empty.
const SURPLUS: f64 = 0.02;
/// The same where whoever is tested certainly was the slower one, at all moments.
pub const PLENTY: f64 = 0.2;
/// Share of the time for which it has its core, at least. Whoever asks for counters takes some of the rest; while it
/// lasts the device under test may wait, whichever it is, so shares of each other feel less of it than times do.
const PRESENCE: f64 = 0.9;

/// A running generator.
pub struct Generator(Testpmd);

/// What it did until now.
#[derive(Clone, Copy)]
pub struct Work {
    /// Frames for the ring.
    offered: u64,
    /// Frames for which the ring had room.
    taken: u64,
    /// Time for which it had its core.
    time: Duration,
}

/// What it did in a while.
#[derive(Clone, Copy, Debug)]
pub struct Pressure {
    /// Share of its frames for which the ring had no room.
    pub surplus: f64,
    /// Share of the time for which it had its core.
    pub presence: f64,
}

impl Generator {
    /// Starts one against a device that listens at a socket.
    ///
    /// # Errors
    /// A sentence and the end of its log.
    pub fn start(
        machine: &Machine,
        directory: &Path,
        socket: &Path,
        capture: &Capture,
    ) -> Result<Self, String> {
        let memory = format!("{},zero-copy=yes", memif("client", socket));
        let (devices, forward) = ([capture.device(), memory], ["--forward-mode=io"]);
        Testpmd::start(machine, machine.control, directory, "generator", &devices, &forward, capture)
            .map(Self)
    }

    /// What it did until now.
    ///
    /// # Errors
    /// A sentence, if it does not answer.
    pub fn work(&mut self) -> Result<Work, String> {
        let time = self.0.process().worker_time()?;
        Ok(Work { offered: self.0.stats(CAPTURE)?.received, taken: self.0.stats(MEMORY)?.sent, time })
    }
}

impl Work {
    /// What was done since `before`, in a time.
    pub fn since(self, before: Self, time: Duration) -> Pressure {
        let (offered, taken) = (self.offered - before.offered, self.taken - before.taken);
        // Both are counted at different moments, so none may seem to be left over though some were.
        let surplus = offered.saturating_sub(taken) as f64 / offered.max(1) as f64;
        let presence = (self.time - before.time).as_secs_f64() / time.as_secs_f64();
        Pressure { surplus, presence }
    }
}

impl Pressure {
    /// Whether the device under test always had frames to receive.
    pub fn is_enough(self) -> bool {
        self.surplus >= SURPLUS && self.presence >= PRESENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_needs_frames_that_found_no_room_and_the_core() {
        let before = Work { offered: 1000, taken: 900, time: Duration::from_millis(50) };
        let enough = |offered, taken, millis| {
            let after = Work { offered, taken, time: Duration::from_millis(millis) };
            after.since(before, Duration::from_millis(100)).is_enough()
        };
        assert!(enough(2000, 1880, 141));
        assert!(!enough(2000, 1881, 141), "the ring was nearly always empty");
        assert!(!enough(2000, 1880, 139), "another process had the core");
        assert!(!enough(1000, 900, 141), "nothing was sent");
        assert!(!enough(2000, 1950, 141), "counters were read one after the other");
    }
}
