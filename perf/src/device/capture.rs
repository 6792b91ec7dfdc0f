//! Captures of frames in random order, for DPDK's `net_pcap` to replay.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use config::words::MacAddr;
use dataplane::wire::tcp::ACK;

use crate::pipeline::family::{Family, Net};
use crate::pipeline::traffic::{Segment, client_of};
use crate::rng::Rng;

/// Ethernet address of the first device of `net_pcap`, whose driver knows no other.
pub const OWN_MAC: MacAddr = MacAddr([0x02, 0x70, 0x63, 0x61, 0x70, 0x00]);
/// Services, with one backend each: so every flow's backend is known when the capture is made.
pub const SERVICES: u32 = 64;
/// Port of all backends under NAT.
pub const BACKEND_PORT: u16 = 8000;

/// Packets at least: fewer would stay in the first-level cache.
const FEWEST: u64 = 1024;
/// The classic format (pcap-savefile(5)): version 2.4, frames of Ethernet.
const FILE_HEADER: [u32; 6] = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, 1];

/// A file of frames.
pub struct Capture {
    path: PathBuf,
    /// Frames in it.
    pub packets: u64,
}

/// Packets in a capture of one direction.
pub fn packets(flows: u32) -> u64 {
    u64::from(flows).max(FEWEST)
}

/// Where clients reach a service.
pub fn vip(service: u32) -> SocketAddr {
    SocketAddr::new(Family::Ipv4.address(Net::Vips, 1 + service), 80)
}

/// The address of a service's backend.
pub fn backend(service: u32, port: u16) -> SocketAddr {
    SocketAddr::new(Family::Ipv4.address(Net::Link, 1 + service), port)
}

impl Capture {
    /// Writes a segment of every flow, as often as makes up enough packets, in random order; with `replies`,
    /// one of its backend for each.
    ///
    /// # Errors
    /// A sentence, if the file cannot be written.
    pub fn write(path: &Path, flows: u32, replies: bool) -> Result<Self, String> {
        let failed = |why: std::io::Error| format!("{}: {why}", path.display());
        let mut file = BufWriter::new(File::create(path).map_err(failed)?);
        for word in FILE_HEADER {
            file.write_all(&word.to_le_bytes()).map_err(failed)?;
        }
        let order = order(flows, replies);
        let packets = order.len() as u64;
        for (flow, reply) in order {
            let mut frame = [0; 128];
            let len = segment(flow, reply).write(&mut frame);
            frame[..6].copy_from_slice(&OWN_MAC.0);
            // Seconds and microseconds, which nobody reads, and the length twice: nothing is cut off.
            for word in [0, 0, len as u32, len as u32] {
                file.write_all(&word.to_le_bytes()).map_err(failed)?;
            }
            file.write_all(&frame[..len]).map_err(failed)?;
        }
        file.flush().map_err(failed)?;
        Ok(Self { path: path.to_owned(), packets })
    }

    /// DPDK's name and arguments of the device that replays it.
    pub fn device(&self) -> String {
        format!("net_pcap0,rx_pcap={},infinite_rx=1", self.path.display())
    }
}

/// Flows, and whether the packet is a reply, in the order of the file.
fn order(flows: u32, replies: bool) -> Vec<(u32, bool)> {
    let requests = (0..packets(flows)).map(|number| ((number % u64::from(flows)) as u32, false));
    let mut order: Vec<_> = requests.collect();
    if replies {
        order.extend(order.clone().into_iter().map(|(flow, _)| (flow, true)));
    }
    // Fisher and Yates.
    let mut rng = Rng::new(3);
    for place in (1..order.len()).rev() {
        order.swap(place, rng.below(place as u32 + 1) as usize);
    }
    order
}

fn segment(flow: u32, reply: bool) -> Segment {
    let (client, service) = (client_of(Family::Ipv4, flow), flow % SERVICES);
    let (src, dst) = if reply { (backend(service, BACKEND_PORT), client) } else { (client, vip(service)) };
    Segment { src, dst, flags: ACK, frame: 64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_flow_is_there_each_way_and_in_no_order() {
        let order = order(5000, true);
        assert_eq!(order.len(), 10_000);
        assert_eq!(order.iter().collect::<HashSet<_>>().len(), 10_000);
        let neighbours = order.windows(2).filter(|pair| pair[0].0.abs_diff(pair[1].0) < 2).count();
        assert!(neighbours < 100, "{neighbours} flows follow each other");
    }

    #[test]
    fn a_capture_has_a_header_and_frames_to_our_address() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("some.pcap");
        let capture = Capture::write(&path, 1, false).unwrap();
        let bytes = std::fs::read(path).unwrap();
        assert_eq!((capture.packets, bytes.len()), (1024, 24 + 1024 * (16 + 60)));
        assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!(bytes[32..36], 60u32.to_le_bytes());
        assert_eq!(bytes[40..46], OWN_MAC.0);
    }
}
