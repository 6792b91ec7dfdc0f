//! Flows outlive a change of the mode in which their backends are reached. What becomes of them then, the stages decide.

use std::net::{IpAddr, SocketAddr};

use super::fast::{Asks, ENDS, counts, flows, locals_of, settled, wide_world};
use super::*;
use crate::local::{LocalAddresses, LocalSlot};
use crate::samples::{Body, Sample, endpoint, syn};

const MODES: [Mode; 4] = [Mode::Dr, Mode::Tunnel, Mode::Nat, Mode::FullNat];

/// As many as are taken together where that pays.
const CLIENTS: u16 = 8;

// Not under miri: a local address has 64,512 ports, which take it minutes.
#[cfg(not(miri))]
#[test]
fn both_paths_agree_when_backends_are_reached_otherwise() {
    for (ends, eights) in ENDS.into_iter().flat_map(|ends| [(ends, false), (ends, true)]) {
        let local = ends[3].parse().unwrap();
        let address = LocalAddresses::new(&[local], &Owners::new(1), 0);
        for (from, to) in MODES.into_iter().flat_map(|from| MODES.map(|to| (from, to))) {
            let world = |mode| wide_world(ends, (mode, true), Asks::Nothing, None);
            let mut paths = [0, 1].map(|_| Path::new(world(from)));
            for path in &mut paths {
                path.forwarder.install(LocalSlot(0), address.clone());
                path.take_eights(eights);
            }
            let of = |flags| -> Vec<_> { (0..CLIENTS).map(|port| request(ends, port, flags)).collect() };
            let (_, known) = both(&mut paths, &of(SYN), local);
            both(&mut paths, &of(ACK), local);
            paths.iter_mut().for_each(|path| path.snapshot = world(to));
            let reply = |(request, port): (Sample, usize)| {
                let dst = known.get(port).copied().unwrap_or(request.src);
                Sample { src: endpoint(ends[2]), dst, ..request }
            };
            let replies: Vec<_> = of(ACK).into_iter().zip(0..).map(reply).collect();
            let (requests, _) = both(&mut paths, &of(ACK), local);
            both(&mut paths, &replies, local);
            let (opened, _) = both(&mut paths, &of(SYN), local);
            assert!(from != to || requests > 0, "{from:?}");
            assert!(opened > 0, "{from:?} {to:?}");
        }
    }
}

fn request(ends: [&str; 4], port: u16, flags: u8) -> Sample {
    let sample = syn(ends[0], ends[1]);
    let mut src = sample.src;
    src.set_port(src.port() + port);
    Sample { src, body: Body::Tcp { flags, options: Vec::new() }, ..sample }
}

/// How many of these packets are sent, and from which local addresses and ports, by the fast path and by the stages.
fn both([fast, slow]: &mut [Path; 2], packets: &[Sample], local: IpAddr) -> (usize, Vec<SocketAddr>) {
    let [mut one, mut other] = [Burst::default(), Burst::default()];
    for packet in packets {
        one.push(packet.frame()).unwrap();
        other.push(packet.frame()).unwrap();
    }
    let ends = fast.forward(&mut one);
    let sent = ends.iter().filter(|end| matches!(end, End::Sent(_))).count();
    let known = locals_of(&ends, local);
    assert_eq!(settled(ends), settled(slow.forward_slowly(&mut other)));
    assert_eq!((flows(fast), counts(fast)), (flows(slow), counts(slow)));
    (sent, known)
}
