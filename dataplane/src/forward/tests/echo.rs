//! Pings of stations inside a NAT gateway.

use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::local::{LocalAddresses, LocalSlot};
use crate::samples::{Sample, datagram, icmp, is_valid};
use crate::snapshot::{Gateway, Parts, Pool, PoolSlot};

const STATIONS: [&str; 2] = ["198.51.100.12:0", "[2001:db8:b::12]:0"];
const WORLD: [&str; 2] = ["203.0.113.9:0", "[2001:db8:c::9]:0"];
const ROUTERS: [&str; 2] = ["203.0.113.99:0", "[2001:db8:c::99]:0"];
const LOCALS: [&str; 2] = ["198.51.100.200", "2001:db8:b::200"];
const REQUEST: [[u8; 2]; 2] = [[8, 0], [128, 0]];
const REPLY: [[u8; 2]; 2] = [[0, 0], [129, 0]];
const IDENTIFIER: u16 = 777;
/// Where the source address is, and the identifier.
const AT: [(usize, usize); 2] = [(26, 38), (22, 58)];

fn echo(kind: [u8; 2], src: &str, dst: &str, identifier: u16) -> Sample {
    let [high, low] = identifier.to_be_bytes();
    icmp(src, dst, kind, [high, low, 0, 1], b"hello")
}

/// A world whose only link is inside, behind one local address of each version.
fn parts() -> Parts {
    let mut parts = testing::parts();
    parts.interfaces[0].gateway = Some(Gateway { pool: Some(PoolSlot(0)) });
    parts.locals = LOCALS.map(|local| local.parse().unwrap()).to_vec();
    parts.pools = vec![Pool { v4: vec![LocalSlot(0)], v6: vec![LocalSlot(1)] }];
    parts
}

fn path(number: usize, workers: usize) -> Path {
    let mut path = Path::of(Snapshot::new(parts()), number, workers, 100);
    for (slot, local) in LOCALS.iter().enumerate() {
        let address = LocalAddresses::new(&[local.parse().unwrap()], &Owners::new(workers), number);
        path.forwarder.install(LocalSlot(slot as u8), address);
    }
    path
}

/// Sends a request out; its local address with the identifier that it got there as port.
fn sent_from(path: &mut Path, version: usize, request: &Sample) -> SocketAddr {
    let End::Sent(frame) = path.pass(request.frame()) else { panic!("not sent") };
    let (_, at) = AT[version];
    let identifier = u16::from_be_bytes([frame[at], frame[at + 1]]);
    let sent = Sample { ttl: 63, ..echo(REQUEST[version], &own(version), WORLD[version], identifier) };
    assert_eq!(frame, sent.sent(1, 254));
    SocketAddr::new(LOCALS[version].parse().unwrap(), identifier)
}

/// The local address as an end.
fn own(version: usize) -> String {
    SocketAddr::new(LOCALS[version].parse().unwrap(), 0).to_string()
}

fn pass_home(path: &mut Path, version: usize, identifier: u16) -> End {
    path.pass(echo(REPLY[version], WORLD[version], &own(version), identifier).frame())
}

#[test]
fn a_ping_goes_out_from_a_local_address_and_its_reply_comes_home() {
    for version in [0, 1] {
        let mut path = path(0, 1);
        let request = echo(REQUEST[version], STATIONS[version], WORLD[version], IDENTIFIER);
        let local = sent_from(&mut path, version, &request);
        assert!(local.port() >= 1024);
        assert_eq!(sent_from(&mut path, version, &request), local, "a ping keeps its identifier");
        let home = echo(REPLY[version], WORLD[version], STATIONS[version], IDENTIFIER);
        let home = Sample { ttl: 63, ..home }.sent(12, 254);
        assert_eq!(pass_home(&mut path, version, local.port()), End::Sent(home));
        assert_eq!(pass_home(&mut path, version, local.port() ^ 1), End::Dropped(DropReason::NoFlow));
        let other = echo(REQUEST[version], STATIONS[version], WORLD[version], IDENTIFIER + 1);
        assert_ne!(sent_from(&mut path, version, &other), local);
        assert_eq!(path.stats.routed.get(), 4);
    }
}

#[test]
fn identifiers_end_as_flows_do() {
    let mut path = path(0, 1);
    let request = echo(REQUEST[0], STATIONS[0], WORLD[0], IDENTIFIER);
    let local = sent_from(&mut path, 0, &request);
    assert_eq!(path.stats.local_ports(LocalSlot(0)).get(), 1);
    path.now += 1000;
    assert_eq!(pass_home(&mut path, 0, local.port()), End::Dropped(DropReason::NoFlow));
    (0..20).for_each(|_| path.housekeeping());
    assert_eq!(path.stats.local_ports(LocalSlot(0)).get(), 0);
    let mut without = parts();
    without.pools[0].v4.clear();
    path.snapshot = Snapshot::new(without);
    assert_eq!(path.pass(request.frame()), End::Dropped(DropReason::LocalPortsExhausted));
}

#[test]
fn an_identifier_is_no_port_and_a_port_no_identifier() {
    for version in [0, 1] {
        let mut path = path(0, 1);
        let world = WORLD[version].replace(":0", ":53");
        let request = echo(REQUEST[version], STATIONS[version], WORLD[version], IDENTIFIER);
        let local = sent_from(&mut path, version, &request);
        let answer = datagram(&world, &local.to_string());
        assert_eq!(path.pass(answer.frame()), End::Dropped(DropReason::NoFlow));

        let question = datagram(&STATIONS[version].replace(":0", ":777"), &world);
        let End::Sent(frame) = path.pass(question.frame()) else { panic!("not sent") };
        let at = [34, 54][version];
        let port = u16::from_be_bytes([frame[at], frame[at + 1]]);
        assert_eq!(pass_home(&mut path, version, port), End::Dropped(DropReason::NoFlow));
        let answer = datagram(&world, &SocketAddr::new(local.ip(), port).to_string());
        assert!(matches!(path.pass(answer.frame()), End::Sent(_)));
    }
}

#[test]
fn a_ping_belongs_to_the_worker_of_its_sender_and_so_does_the_reply() {
    let workers = 4;
    let mut team: Vec<Path> = (0..workers).map(|number| path(number, workers)).collect();
    for version in [0, 1] {
        for identifier in 0..32 {
            let request = echo(REQUEST[version], STATIONS[version], WORLD[version], identifier);
            let owner = Owners::new(workers).of(request.src.ip(), identifier);
            let local = sent_from(&mut team[owner], version, &request);
            for (number, path) in team.iter_mut().enumerate().filter(|(number, _)| *number != owner) {
                assert_eq!(path.pass(request.frame()), End::HandedOver(owner), "{number}");
                assert_eq!(pass_home(path, version, local.port()), End::HandedOver(owner));
            }
            assert!(matches!(pass_home(&mut team[owner], version, local.port()), End::Sent(_)));
        }
    }
}

#[test]
fn errors_about_a_ping_reach_its_sender() {
    for version in [0, 1] {
        let mut path = path(0, 1);
        let request = echo(REQUEST[version], STATIONS[version], WORLD[version], IDENTIFIER);
        let local = sent_from(&mut path, version, &request);
        let forwarded = echo(REQUEST[version], &own(version), WORLD[version], local.port());
        let expired = [[11, 0], [3, 0]][version];
        let told = |about: &Sample| icmp(ROUTERS[version], &own(version), expired, [0; 4], &about.ip());
        let about = Sample { ttl: 1, ..forwarded };
        let End::Sent(frame) = path.pass(told(&about).frame()) else { panic!("not sent") };
        assert!(is_valid(&frame[14..]));
        let quoted = Sample { ttl: 1, ..request };
        let home = icmp(ROUTERS[version], STATIONS[version], expired, [0; 4], &quoted.ip());
        assert_eq!(frame, Sample { ttl: 63, ..home }.sent(12, 254));

        let of_nobody = echo(REQUEST[version], &own(version), WORLD[version], local.port() ^ 1);
        let no_ping = datagram(&local.to_string(), &WORLD[version].replace(":0", ":53"));
        for about in [of_nobody, no_ping] {
            assert_eq!(path.pass(told(&about).frame()), End::Dropped(DropReason::NoFlow));
        }
    }
}

#[test]
fn a_sender_is_told_why_its_ping_goes_no_further() {
    let mut path = path(0, 1);
    let own = IpAddr::from(testing::OWN);
    let request = echo(REQUEST[0], STATIONS[0], WORLD[0], IDENTIFIER);
    for (ping, kind) in [
        (Sample { ttl: 1, ..request.clone() }, [11, 0]),
        (Sample { payload: vec![7; 1480], ..request }, [3, 4]),
    ] {
        let End::Sent(frame) = path.pass(ping.frame()) else { panic!("not told") };
        assert_eq!((&frame[26..30], &frame[34..36]), (&testing::OWN[..], &kind[..]), "{own}");
    }
}
