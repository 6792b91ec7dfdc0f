//! Pings, and errors that others send about packets of flows.

use std::net::SocketAddr;

use super::*;
use crate::local::{LocalAddresses, LocalSlot};
use crate::samples::{Sample, icmp, is_valid, syn};
use crate::snapshot::{Parts, Pool, PoolSlot};

const CLIENTS: [&str; 2] = ["203.0.113.7:40000", "[2001:db8:c::7]:40000"];
const VIPS: [&str; 2] = ["192.0.2.100:80", "[2001:db8::100]:80"];
const BACKENDS: [&str; 2] = ["198.51.100.11:8000", "[2001:db8:b::11]:8000"];
const ROUTERS: [&str; 2] = ["203.0.113.99:0", "[2001:db8:c::99]:0"];
const OWNS: [&str; 2] = ["198.51.100.254:0", "[2001:db8:b::254]:0"];
/// Time exceeded, of either version.
const EXPIRED: [[u8; 2]; 2] = [[11, 0], [3, 0]];
/// Echo request and reply.
const ECHO: [([u8; 2], [u8; 2]); 2] = [([8, 0], [0, 0]), ([128, 0], [129, 0])];

/// An error of a router about a packet, of which it quotes the headers.
fn error(version: usize, from: &str, to: SocketAddr, about: &Sample) -> Sample {
    let kept = [28, 48][version];
    icmp(from, &to.to_string(), EXPIRED[version], [0; 4], &about.ip()[..kept])
}

fn path(version: usize, mode: Mode) -> Path {
    let backend = match mode {
        Mode::Nat | Mode::FullNat => BACKENDS[version].to_owned(),
        _ => BACKENDS[version].replace(":8000", ":80"),
    };
    let mut parts = modes::world(VIPS[version], &backend, mode);
    with_pool(&mut parts, "198.51.100.200");
    let mut path = Path::new(Snapshot::new(parts));
    let local = LocalAddresses::new(&["198.51.100.200".parse().unwrap()], &Owners::new(1), 0);
    path.forwarder.install(LocalSlot(0), local);
    path
}

fn with_pool(parts: &mut Parts, address: &str) {
    for service in parts.services.iter_mut().flatten() {
        Arc::make_mut(service).pool = Some(PoolSlot(0));
    }
    parts.locals = vec![address.parse().unwrap()];
    parts.pools = vec![Pool { v4: vec![LocalSlot(0)], v6: Vec::new() }];
}

/// What is left of a packet one hop further on.
fn older(sample: &Sample) -> Sample {
    Sample { ttl: sample.ttl - 1, ..sample.clone() }
}

#[test]
fn pings_are_answered_by_vips_that_may_and_own_addresses() {
    for version in [0, 1] {
        let mut parts = modes::world(VIPS[version], BACKENDS[version], Mode::Nat);
        let (request, reply) = ECHO[version];
        for local in [VIPS[version], OWNS[version]] {
            let mut path = Path::new(Snapshot::new(parts.clone()));
            let ping = icmp(CLIENTS[version], local, request, [0, 7, 0, 1], b"hello");
            let pong = Sample {
                src: ping.dst,
                dst: ping.src,
                ..icmp(CLIENTS[version], local, reply, [0, 7, 0, 1], b"hello")
            };
            assert_eq!(path.pass(ping.frame()), End::Sent(pong.sent(1, 254)));
        }
        Arc::make_mut(parts.services[1].as_mut().unwrap()).echo = false;
        let mut path = Path::new(Snapshot::new(parts));
        let ping = icmp(CLIENTS[version], VIPS[version], request, [0; 4], b"");
        assert_eq!(path.pass(ping.frame()), End::Dropped(DropReason::EchoRefused));
        let elsewhere = Sample { dst: ROUTERS[version].parse().unwrap(), ..ping };
        assert_eq!(path.pass(elsewhere.frame()), End::Dropped(DropReason::UnknownIcmp));
    }
}

#[test]
fn errors_about_replies_reach_the_backend_in_every_mode() {
    for version in [0, 1] {
        for mode in [Mode::Nat, Mode::Dr, Mode::Tunnel] {
            let mut path = path(version, mode);
            let request = syn(CLIENTS[version], VIPS[version]);
            assert!(matches!(path.pass(request.frame()), End::Sent(_)));
            let reply = Sample { src: request.dst, dst: request.src, ttl: 1, ..request.clone() };
            let told = error(version, ROUTERS[version], request.dst, &reply);
            let End::Sent(frame) = path.pass(told.frame()) else { panic!("{mode}") };
            match mode {
                Mode::Nat => {
                    let backend: SocketAddr = BACKENDS[version].parse().unwrap();
                    let quoted = Sample { src: backend, ..reply };
                    // A checksum that is quoted without what it covers cannot be judged; all others can.
                    let expected = error(version, ROUTERS[version], backend, &quoted);
                    assert!(is_valid(&frame[14..]));
                    let carried = older(&expected).sent(11, 254);
                    assert_eq!(frame[14..22], carried[14..22]);
                    assert_eq!(frame.len(), carried.len());
                    assert_eq!(frame[..14], carried[..14]);
                    assert_eq!(frame[frame.len() - 8..], carried[carried.len() - 8..]);
                }
                Mode::Dr => assert_eq!(frame, older(&told).sent(11, 254)),
                _ => assert_eq!(frame[frame.len() - told.ip().len()..], older(&told).ip()),
            }
        }
    }
}

#[test]
fn errors_about_requests_reach_the_client() {
    for version in [0, 1] {
        let mut path = path(version, Mode::Nat);
        let request = syn(CLIENTS[version], VIPS[version]);
        assert!(matches!(path.pass(request.frame()), End::Sent(_)));
        let forwarded = Sample { dst: BACKENDS[version].parse().unwrap(), ttl: 1, ..request.clone() };
        let told = error(version, ROUTERS[version], request.src, &forwarded);
        let End::Sent(frame) = path.pass(told.frame()) else { panic!() };
        assert!(is_valid(&frame[14..]));
        let seen = Sample { ttl: 1, ..request.clone() };
        let expected = older(&error(version, ROUTERS[version], request.src, &seen)).sent(1, 254);
        assert_eq!((frame.len(), &frame[..14]), (expected.len(), &expected[..14]));
        assert_eq!(frame[frame.len() - 8..], expected[expected.len() - 8..]);
        let strange = Sample { dst: VIPS[version].parse().unwrap(), ..told };
        assert_eq!(path.pass(strange.frame()), End::Dropped(DropReason::BadIcmp));
    }
}

#[test]
fn errors_of_full_nat_find_both_ends() {
    let mut path = path(0, Mode::FullNat);
    let request = syn(CLIENTS[0], VIPS[0]);
    let End::Sent(frame) = path.pass(request.frame()) else { panic!() };
    let local = SocketAddr::new([198, 51, 100, 200].into(), u16::from_be_bytes([frame[34], frame[35]]));
    let backend = BACKENDS[0].parse().unwrap();
    let forwarded = Sample { src: local, dst: backend, ttl: 1, ..request.clone() };
    let told = error(0, ROUTERS[0], local, &forwarded);
    let End::Sent(frame) = path.pass(told.frame()) else { panic!() };
    assert!(is_valid(&frame[14..]));
    // Destination of the error, then source and destination of the quoted packet.
    assert_eq!(
        (&frame[30..34], &frame[54..58], &frame[58..62]),
        (&[203, 0, 113, 7][..], &[203, 0, 113, 7][..], &VIP[..])
    );
    let reply = Sample { src: request.dst, dst: request.src, ttl: 1, ..request };
    let told = error(0, ROUTERS[0], reply.src, &reply);
    let End::Sent(frame) = path.pass(told.frame()) else { panic!() };
    assert!(is_valid(&frame[14..]));
    assert_eq!(
        (&frame[30..34], &frame[54..58], &frame[58..62]),
        (&BACKEND[..], &BACKEND[..], &[198, 51, 100, 200][..])
    );
    assert_eq!(u16::from_be_bytes([frame[64], frame[65]]), local.port());
}

#[test]
fn errors_about_a_tunnel_become_errors_about_what_is_in_it() {
    for version in [0, 1] {
        let mut path = path(version, Mode::Tunnel);
        let request = syn(CLIENTS[version], VIPS[version]);
        let End::Sent(wrapped) = path.pass(request.frame()) else { panic!() };
        let kind = [[3, 4], [2, 0]][version];
        let told = icmp(ROUTERS[version], OWNS[version], kind, 1400u32.to_be_bytes(), &wrapped[14..]);
        let End::Sent(frame) = path.pass(told.frame()) else { panic!() };
        assert!(is_valid(&frame[14..]));
        let at = [34, 54][version];
        assert_eq!(frame[at..at + 2], kind);
        let mtu = u32::from_be_bytes(frame[at + 4..at + 8].try_into().unwrap());
        assert_eq!(mtu, [1380, 1360][version]);
        assert_eq!(frame[at + 8..], older(&request).ip());
        let unknown = Sample { src: "203.0.113.8:1".parse().unwrap(), ..syn(CLIENTS[0], VIPS[0]) };
        if version == 0 {
            let mut other = wrapped[14..34].to_vec();
            other.extend(unknown.ip());
            let told = icmp(ROUTERS[0], OWNS[0], kind, 1400u32.to_be_bytes(), &other);
            assert_eq!(path.pass(told.frame()), End::Dropped(DropReason::NoFlow));
        }
    }
}

#[test]
fn an_error_in_the_burst_of_its_packet_finds_the_flow() {
    let mut path = path(0, Mode::Dr);
    let request = syn(CLIENTS[0], VIPS[0]);
    let reply = Sample { src: request.dst, dst: request.src, ttl: 1, ..request.clone() };
    let told = error(0, ROUTERS[0], request.dst, &reply);
    let mut burst = Burst::default();
    burst.push(told.frame()).unwrap();
    burst.push(request.frame()).unwrap();
    let ends = path.forward(&mut burst);
    assert_eq!(ends, [End::Sent(older(&request).sent(11, 254)), End::Sent(older(&told).sent(11, 254))]);
}
