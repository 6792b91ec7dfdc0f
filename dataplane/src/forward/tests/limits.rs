//! Limits of services on the packet path.

use config::model;
use config::words::AtLimit;

use super::*;
use crate::limit::Limits;
use crate::snapshot::{Candidate, Service};

fn path(limits: model::Limits) -> Path {
    let mut parts = testing::world(Mode::Dr);
    for service in parts.services.iter_mut().flatten() {
        let made = (**service).clone().limited(Some(Arc::new(Limits::new(&limits))));
        let counted = made.candidates.iter().map(|candidate| candidate.backend).collect();
        // Backend C of the other service is the one for what is too much.
        let sorry = vec![Candidate::new(BackendSlot(5), 1)];
        *service = Arc::new(Service { counted, sorry, ..made });
    }
    Path::new(Snapshot::new(parts))
}

/// The letters of the backends of new connections from these ports, `!` for none.
fn opened(path: &mut Path, ports: std::ops::Range<u16>) -> String {
    let letter = |end| match end {
        End::Sent(frame) if frame[5] > 10 => char::from(b'A' + frame[5] - 11),
        End::Sent(_) => '?',
        _ => '!',
    };
    ports.map(|port| letter(path.send(&request(port, SYN)))).collect()
}

#[test]
fn a_service_has_no_more_flows_than_it_may() {
    let limits = model::Limits { connections: Some(4), ..model::Limits::default() };
    let mut limited = path(limits);
    assert_eq!(opened(&mut limited, 1000..1006), "ABCA!!");
    assert_eq!(limited.stats.drops.get(DropReason::ServiceFull), 2);
    assert!(matches!(limited.send(&request(1000, ACK)), End::Sent(_)), "those that it has go on");
    let mut telling = path(model::Limits { answer: AtLimit::Rst, ..limits });
    assert_eq!(opened(&mut telling, 1000..1006), "ABCA??");
    assert_eq!(telling.stats.answered_for.get(DropReason::ServiceFull), 2);
}

#[test]
fn new_flows_come_no_faster_than_they_may() {
    // A tenth of a second's flows may come at once.
    let mut limited = path(model::Limits { new_per_sec: Some(40), ..model::Limits::default() });
    assert_eq!(&opened(&mut limited, 1000..1006)[..4], "ABCA");
    // Some more only as time passes, which a busy machine may take.
    let mut limited = path(model::Limits { new_per_sec: Some(1), ..model::Limits::default() });
    let refused = opened(&mut limited, 1000..1050).matches('!').count() as u64;
    assert!(refused > 0);
    assert_eq!(limited.stats.drops.get(DropReason::NewFlowRate), refused);
    let mut by_source = path(model::Limits { new_per_sec_per_source: Some(1), ..model::Limits::default() });
    assert!(opened(&mut by_source, 1000..1050).contains('!'));
    let other = packet(([203, 0, 113, 8], 1000), (VIP, 80));
    assert!(matches!(by_source.send(&other), End::Sent(_)));
}

#[test]
fn a_backend_that_has_enough_leaves_new_flows_to_others() {
    let mut limited = path(model::Limits { new_per_sec_per_backend: Some(1), ..model::Limits::default() });
    // Nobody is left then, and the client is told so.
    let letters = opened(&mut limited, 1000..1050);
    assert!(letters.starts_with("ABC") && letters.contains('?'), "{letters}");
}

#[test]
fn what_is_too_much_may_go_to_the_sorry_backends() {
    let limits = model::Limits { answer: AtLimit::Sorry, ..model::Limits::default() };
    let mut full = path(model::Limits { connections: Some(2), ..limits });
    assert_eq!(opened(&mut full, 1000..1005), "ABCCC");
    assert_eq!(full.stats.loads.get(BackendSlot(5)).flows(), 3);
    assert!(matches!(full.send(&request(1003, ACK)), End::Sent(frame) if frame[5] == 13), "it stays there");
    let mut hasty = path(model::Limits { new_per_sec_per_backend: Some(1), ..limits });
    assert!(opened(&mut hasty, 1000..1050).ends_with('C'));
    assert!(hasty.stats.loads.get(BackendSlot(5)).flows() > 0);
}

#[test]
fn packets_and_bits_are_limited() {
    for limits in [
        model::Limits { packets_per_sec: Some(1), ..model::Limits::default() },
        model::Limits { bits_per_sec: Some(100_000), ..model::Limits::default() },
    ] {
        let mut limited = path(limits);
        let sent = (0..1000).filter(|_| matches!(limited.send(&request(1000, SYN)), End::Sent(_))).count();
        let passed = limits.packets_per_sec.unwrap_or(10_000 / (8 * 45)) as usize;
        // More only as time passes, which a busy machine may take.
        assert!((passed..1000).contains(&sent), "{sent} of {passed}");
        assert_eq!(limited.stats.drops.get(DropReason::TrafficRate), 1000 - sent as u64);
    }
}
