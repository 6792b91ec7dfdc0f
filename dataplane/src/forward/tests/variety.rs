//! Whether packets go to many backends.

use super::*;
use crate::snapshot::{Candidate, Service};

const COUNT: u32 = 3000;

/// A service with one of many backends, and one with all of them.
fn path() -> Path {
    let mut parts = testing::parts();
    let all = (0..COUNT).map(|slot| Candidate::new(BackendSlot(slot), 1));
    let services = ["tcp:192.0.2.100:80", "tcp:192.0.2.100:81"].map(|key| testing::service(key, &[(0, 1)]));
    let [one, many] = services;
    parts.services = vec![Some(one.into()), Some(Service { candidates: all.collect(), ..many }.into())];
    parts.backends = vec![Some(testing::backend(0, "198.51.100.11:80", Mode::Dr)); COUNT as usize];
    Path::of(Snapshot::new(parts), 0, 1, 10_000)
}

/// Opens from a client's port, or goes on, and says whether packets go to many.
fn send(path: &mut Path, from: u16, to: u16) -> bool {
    path.send(&packet((CLIENT, from), (VIP, to)).flags(SYN));
    path.forwarder.variety.is_great()
}

#[test]
fn packets_of_flows_are_samples() {
    let mut path = path();
    assert!(send(&mut path, 1, 80));
    assert!(!(0..3000).map(|_| send(&mut path, 1, 80)).last().unwrap());
    assert!((1..6000).flat_map(|port| [port; 2]).map(|port| send(&mut path, port, 81)).last().unwrap());
}

/// Of 31 of them one.
#[cfg(not(miri))]
#[test]
fn openings_are_samples() {
    let mut path = path();
    assert!(!(1..64_000).map(|port| send(&mut path, port, 80)).last().unwrap());
}
