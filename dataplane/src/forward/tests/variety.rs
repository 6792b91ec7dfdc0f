//! Whether packets go to many backends.

use super::*;
use crate::snapshot::{Candidate, Service};

#[test]
fn little_is_asked_for_early_if_packets_go_to_one_of_many_backends() {
    let mut parts = testing::parts();
    let count = 3000;
    let all = (0..count).map(|slot| Candidate::new(BackendSlot(slot), 1));
    let services = ["tcp:192.0.2.100:80", "tcp:192.0.2.100:81"].map(|key| testing::service(key, &[(0, 1)]));
    let [one, many] = services;
    parts.services = vec![Some(one.into()), Some(Service { candidates: all.collect(), ..many }.into())];
    parts.backends = vec![Some(testing::backend(0, "198.51.100.11:80", Mode::Dr)); count as usize];
    let mut path = Path::of(Snapshot::new(parts), 0, 1, 10_000);
    let mut send = |port: u16, to: u16| {
        path.send(&packet((CLIENT, port), (VIP, to)).flags(SYN));
        path.forwarder.variety.is_great()
    };
    assert!(send(1, 80));
    assert!(!(0..3000).map(|_| send(1, 80)).last().unwrap());
    // One opening of 31 is a sample, and so is each packet of a flow that is known.
    assert!((1..6000).flat_map(|port| [send(port, 81), send(port, 81)]).last().unwrap());
}
