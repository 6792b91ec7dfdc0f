//! Frames between the kernel and the workers.

use config::words::MacAddr;
use dataplane::buf::Frame as _;
use dataplane::drops::DropReason;
use dataplane::wire::eth::{self, LinkHeader, Tags};
use dataplane::wire::read_u16;

use super::frames::l3_of;
use super::{Devices, Engine};
use crate::host::Sent;

/// Frames of the kernel that are taken in one turn.
const FRAMES_PER_TURN: usize = 64;

impl<D: Devices> Engine<D> {
    /// Gives a worker's frame for an own address to the kernel.
    pub(super) fn give_to_kernel(&mut self, interface: usize, frame: &D::Frame) {
        if self.copy_to_kernel(interface, frame) {
            self.control.to_host += 1;
        } else {
            self.drops.count(DropReason::HostFull);
        }
    }

    /// Writes a frame to an interface's tap, without its VLAN tags; false if the kernel does not take it.
    pub(super) fn copy_to_kernel(&mut self, interface: usize, frame: &D::Frame) -> bool {
        self.scratch.clear();
        frame.copy_to(&mut self.scratch);
        untag(&mut self.scratch);
        let mac = self.frame.mac(interface);
        // It may have come in by another interface than the one whose address it is for.
        match self.scratch.first_chunk_mut::<6>() {
            Some(dst) if dst[0] & 1 == 0 => *dst = mac.0,
            _ => {}
        }
        self.host.give(interface, &self.scratch)
    }

    /// Whether every worker takes a frame. While one does not, frames of the kernel wait in its own queues.
    pub(super) fn has_room_for_kernel(&self) -> bool {
        self.workers.iter().all(|worker| !worker.inject.is_full())
    }

    /// Takes what the kernel sends, a bounded number of frames of which the first is here.
    pub(super) fn take_from_kernel(&mut self, first: Sent) {
        let mut next = Some(first);
        for _ in 0..FRAMES_PER_TURN {
            let Some(sent) = next else { return };
            self.control.from_host += 1;
            match self.send_for_kernel(&sent) {
                Ok(()) => self.control.host_sent += 1,
                Err(why) => self.drops.count(why),
            }
            if !self.has_room_for_kernel() {
                return;
            }
            next = self.host.try_next();
        }
    }

    fn send_for_kernel(&mut self, sent: &Sent) -> Result<(), DropReason> {
        let Sent { interface, bytes } = sent;
        let dst = bytes.first_chunk::<6>().ok_or(DropReason::Truncated)?;
        if *dst == self.frame.mac(*interface).0 {
            return Err(DropReason::HostLoop);
        }
        let (_, tags) = self.frame.link(*interface);
        self.scratch.clear();
        tag(bytes, tags, &mut self.scratch).ok_or(DropReason::Truncated)?;
        let frame = self.devices.frame(&self.scratch).ok_or(DropReason::NoBuffer)?;
        // Always by the same worker, so that they arrive in their order.
        let worker = interface % self.workers.len().max(1);
        if self.inject_by(worker, *interface, frame) { Ok(()) } else { Err(DropReason::InjectFull) }
    }
}

/// Takes the VLAN tags out of a frame.
fn untag(frame: &mut Vec<u8>) {
    let l3 = usize::from(l3_of(frame));
    if l3 <= frame.len() {
        frame.drain(eth::TYPE..l3 - 2);
    }
}

/// Writes an untagged frame with the tags of a VLAN; `None` if it has no whole header.
fn tag(frame: &[u8], tags: Tags, to: &mut Vec<u8>) -> Option<()> {
    let mac = |at: usize| Some(MacAddr(*frame.get(at..)?.first_chunk()?));
    let ethertype = read_u16(frame, eth::TYPE)?;
    to.extend_from_slice(LinkHeader::new(mac(eth::DST)?, mac(eth::SRC)?, tags, ethertype).bytes());
    to.extend_from_slice(&frame[eth::HEADER_LEN..]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_put_in_and_taken_out() {
        let frame: Vec<u8> = (0..60)
            .map(|at| {
                if at == 12 {
                    8
                } else if at == 13 {
                    0
                } else {
                    at
                }
            })
            .collect();
        for (tags, longer) in [((0, 0), 0), ((0, 100), 4), ((7, 100), 8)] {
            let tags = Tags { outer: tags.0, inner: tags.1 };
            let mut tagged = Vec::new();
            tag(&frame, tags, &mut tagged).unwrap();
            assert_eq!(tagged.len(), frame.len() + longer);
            assert_eq!(tagged[..12], frame[..12]);
            untag(&mut tagged);
            assert_eq!(tagged, frame);
        }
        for len in 0..14 {
            assert_eq!(tag(&frame[..len], Tags::default(), &mut Vec::new()), None);
        }
    }

    #[test]
    fn broken_tags_stay() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0, 1, 0x81]);
        for len in 0..frame.len() {
            let mut cut = frame[..len].to_vec();
            untag(&mut cut);
            assert_eq!(cut, frame[..len]);
        }
    }
}
