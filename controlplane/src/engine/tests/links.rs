//! ARP, neighbour discovery and the host port, on an untagged interface and a VLAN.

use dataplane::port::PortId;
use dataplane::route::{InterfaceId, NextHop};
use dataplane::wire::arp::{Arp, Operation};
use dataplane::wire::eth::{self, LinkHeader, Tags};
use dataplane::wire::nd::{ALL_NODES, Message, Nd, group_mac, solicited_node};
use dataplane::wire::{ipv6, read_u16};
use std::net::Ipv6Addr;

use super::super::frames::l3_of;
use super::*;
use crate::host::Sent;

const DUAL: &str = r#"
[cores]
workers = [1]
[[port]]
name = "lan"
device = "net_null0"
addresses = ["192.0.2.254/24", "2001:db8:1::fe/64"]
host = "tap-lan"
[[port.vlan]]
id = 100
addresses = ["198.51.100.254/24", "2001:db8:2::fe/64"]
gateway = true
[[snat_pool]]
name = "out"
addresses = ["198.51.100.200"]
[[service]]
vip = "192.0.2.100:80"
protocol = "tcp"
[[service.backend]]
address = "198.51.100.11:8000"
[[service]]
vip = "[2001:db8:1::100]:53"
protocol = "udp"
[[service.backend]]
address = "[2001:db8:2::11]:53"
"#;

const VLAN: Tags = Tags { outer: 0, inner: 100 };
const LINK_LOCAL: &str = "fe80::5eff:fe00:53fe";

fn dual() -> Lab {
    lab_of(DUAL, Host::none())
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A frame that the control thread sent: its tags, where it goes, and what it says.
#[derive(Debug, PartialEq)]
enum Said {
    Arp(Tags, Arp),
    Nd(Tags, MacAddr, Nd),
    Other(Tags, Vec<u8>),
}

impl Said {
    fn of(injection: &Injection<HeapFrame>) -> Self {
        assert_eq!(injection.port, PortId(0), "both interfaces are on one port");
        let bytes = injection.frame.bytes();
        let l3 = l3_of(bytes);
        let inner = if l3 == 18 { read_u16(bytes, 14).unwrap() } else { 0 };
        let tags = Tags { outer: 0, inner };
        if let Some(nd) = Nd::parse(bytes, l3) {
            return Self::Nd(tags, MacAddr(*bytes.first_chunk().unwrap()), nd);
        }
        match read_u16(bytes, usize::from(l3) - 2) {
            Some(eth::TYPE_ARP) => Self::Arp(tags, Arp::parse_at(bytes, l3).unwrap()),
            _ => Self::Other(tags, bytes.to_vec()),
        }
    }

    /// The address that it announces, or asks about whether somebody has it.
    fn notice(&self) -> Option<String> {
        match self {
            Self::Arp(tags, arp) if arp.sender == arp.target => {
                Some(format!("{} on {}", arp.target, tags.inner))
            }
            Self::Nd(tags, to, nd) if nd.message == Message::Solicitation && nd.src.is_unspecified() => {
                assert_eq!(*to, group_mac(solicited_node(nd.target)));
                Some(format!("{}? on {}", nd.target, tags.inner))
            }
            Self::Nd(tags, to, nd) if nd.dst == ALL_NODES => {
                assert_eq!((*to, nd.mac), (group_mac(ALL_NODES), Some(OWN)));
                Some(format!("{} on {}", nd.target, tags.inner))
            }
            _ => None,
        }
    }
}

impl Lab {
    fn said(&mut self) -> Vec<Said> {
        self.sent().iter().map(Said::of).collect()
    }

    /// The notices of one turn.
    fn notices(&mut self) -> Vec<String> {
        self.engine.send_notices();
        self.said().iter().filter_map(Said::notice).collect()
    }

    fn hear_arp(&mut self, interface: u16, arp: &Arp) {
        let tags = if interface == 0 { Tags::default() } else { VLAN };
        let link = LinkHeader::new(MacAddr::BROADCAST, arp.sender_mac, tags, eth::TYPE_ARP);
        self.arrive(&arp.frame_by(&link), PuntReason::Arp(InterfaceId(interface)));
    }

    fn hear_nd(&mut self, interface: u16, nd: &Nd) {
        let tags = if interface == 0 { Tags::default() } else { VLAN };
        let link = LinkHeader::new(group_mac(nd.dst), STATION, tags, eth::TYPE_IPV6);
        self.arrive(&nd.frame(&link), PuntReason::Nd(InterfaceId(interface)));
    }

    /// Sends whatever is due at the start.
    fn settle(&mut self) {
        self.engine.send_notices();
        self.engine.ask_neighbours();
        self.sent();
    }
}

fn arp(operation: Operation, sender: &str, target: &str) -> Arp {
    Arp {
        operation,
        sender_mac: STATION,
        sender: sender.parse().unwrap(),
        target_mac: MacAddr::default(),
        target: target.parse().unwrap(),
    }
}

fn question(src: &str, target: &str) -> Nd {
    Nd::solicitation(v6(src), STATION, v6(target))
}

fn advertisement(target: &str, overrides: bool) -> Nd {
    let message = Message::Advertisement { router: false, solicited: false, overrides };
    Nd { message, ..Nd::announcement(v6(target), STATION, false) }
}

/// Whose Ethernet address, and so the link-local one, is that of an interface with IPv6.
#[tokio::test]
async fn an_interface_without_ipv6_has_no_link_local_address() {
    let mut lab = lab_of(&DUAL.replacen(", \"2001:db8:1::fe/64\"]", "]", 1), Host::none());
    let link_local = format!("{LINK_LOCAL}? on ");
    let asked: Vec<_> = lab.notices().into_iter().filter(|notice| notice.starts_with(&link_local)).collect();
    assert_eq!(asked, [format!("{link_local}100")]);
}

#[tokio::test]
async fn own_addresses_and_vips_are_announced_when_new_and_when_a_link_comes_up() {
    let mut lab = dual();
    let v4 = ["192.0.2.254 on 0", "198.51.100.254 on 100", "192.0.2.100 on 0", "198.51.100.200 on 100"];
    let link_local = [0, 100].map(|vlan| format!("{LINK_LOCAL} on {vlan}"));
    let v6 = [
        &["2001:db8:1::fe on 0"][..],
        &link_local.each_ref().map(String::as_str),
        &["2001:db8:2::fe on 100", "2001:db8:1::100 on 0"],
    ]
    .concat();
    let probes = |notices: Vec<String>| -> (Vec<String>, Vec<String>) {
        notices.into_iter().partition(|notice| notice.contains('?'))
    };
    let (asked, told) = probes(lab.notices());
    assert_eq!(told, v4);
    assert_eq!(asked, v6.iter().map(|notice| notice.replace(" on", "? on")).collect::<Vec<_>>());
    lab.engine.adopt_configuration();
    assert!(lab.notices().is_empty());
    lab.engine.started -= Duration::from_secs(1);
    assert_eq!(lab.notices(), v6);
    lab.engine.started -= Duration::from_secs(2);
    assert_eq!(lab.notices(), [&v4[..], &v6].concat(), "once more after two seconds");
    lab.engine.links = vec![false];
    lab.engine.look_at_links();
    assert_eq!(probes(lab.notices()).1, v4);
    lab.engine.look_at_links();
    assert!(lab.notices().is_empty());
}

#[tokio::test]
async fn many_announcements_leave_room_for_other_frames() {
    let mut lab = lab();
    lab.notices();
    let like = lab.engine.config.services[0].clone();
    for last in 1..=90 {
        let key = format!("tcp:198.51.100.{last}:80").parse().unwrap();
        let service = config::model::Service { key, backends: Vec::new(), ..like.clone() };
        drop(lab.call(Request::ServiceAdd(Box::new(service))));
    }
    let turns: Vec<usize> = (0..4).map(|_| lab.notices().len()).collect();
    assert_eq!(turns, [32, 32, 26, 0]);
}

#[tokio::test]
async fn a_removed_vip_is_answered_for_until_another_station_claims_it() {
    let mut lab = lab();
    let service = "tcp:192.0.2.100:80".parse().unwrap();
    drop(lab.call(Request::ServiceRemove { service }));
    lab.sent();
    let question = arp(Operation::Request, "192.0.2.7", "192.0.2.100");
    lab.hear_arp(0, &question);
    assert_eq!(lab.said().len(), 1, "flows may be left");
    lab.hear_arp(0, &arp(Operation::Request, "192.0.2.100", "192.0.2.100"));
    lab.hear_arp(0, &question);
    assert!(lab.said().is_empty());
    let service = lab.engine.config.services[0].clone();
    drop(lab.call(Request::ServiceAdd(Box::new(service))));
    lab.sent();
    lab.hear_arp(0, &question);
    assert_eq!(lab.said().len(), 1, "configured again");
}

#[tokio::test]
async fn arp_questions_for_what_is_ours_are_answered_and_no_others() {
    let mut lab = dual();
    lab.settle();
    for (interface, target, answered) in [
        (0, "192.0.2.254", true),
        (0, "192.0.2.100", true),
        (0, "192.0.2.11", false),
        (0, "198.51.100.254", false),
        (1, "198.51.100.254", true),
        (1, "198.51.100.200", true),
        (1, "192.0.2.100", false),
    ] {
        let from = if interface == 0 { "192.0.2.7" } else { "198.51.100.7" };
        lab.hear_arp(interface, &arp(Operation::Request, from, target));
        let tags = if interface == 0 { Tags::default() } else { VLAN };
        let reply = Arp {
            operation: Operation::Reply,
            sender_mac: OWN,
            sender: target.parse().unwrap(),
            target_mac: STATION,
            target: from.parse().unwrap(),
        };
        let expected: Vec<Said> = answered.then_some(Said::Arp(tags, reply)).into_iter().collect();
        assert_eq!(lab.said(), expected, "{target} on interface {interface}");
    }
    lab.hear_arp(0, &arp(Operation::Request, "0.0.0.0", "192.0.2.100"));
    assert_eq!(lab.said().len(), 1, "a probe is answered");
    lab.hear_arp(0, &arp(Operation::Request, "192.0.2.100", "192.0.2.7"));
    assert!(lab.said().is_empty(), "a station with our address is no neighbour");
}

#[tokio::test]
async fn nd_questions_for_what_is_ours_are_answered_and_no_others() {
    let mut lab = dual();
    lab.settle();
    for (interface, target, answered) in [
        (0, "2001:db8:1::fe", true),
        (0, "2001:db8:1::100", true),
        (0, LINK_LOCAL, true),
        (0, "2001:db8:1::11", false),
        (0, "2001:db8:2::fe", false),
        (1, "2001:db8:2::fe", true),
        (1, LINK_LOCAL, true),
        (1, "2001:db8:1::100", false),
    ] {
        let from = if interface == 0 { "2001:db8:1::7" } else { "2001:db8:2::7" };
        lab.hear_nd(interface, &question(from, target));
        let (tags, router) = if interface == 0 { (Tags::default(), false) } else { (VLAN, true) };
        let answer = Nd {
            message: Message::Advertisement { router, solicited: true, overrides: true },
            src: v6(target),
            dst: v6(from),
            target: v6(target),
            mac: Some(OWN),
        };
        let expected: Vec<Said> = answered.then_some(Said::Nd(tags, STATION, answer)).into_iter().collect();
        assert_eq!(lab.said(), expected, "{target} on interface {interface}");
    }
    lab.hear_nd(0, &question("2001:db8:1::100", "2001:db8:1::7"));
    assert!(lab.said().is_empty(), "a station with our address is no neighbour");
}

#[tokio::test]
async fn a_station_that_is_about_to_take_what_is_ours_is_told_so() {
    let mut lab = dual();
    lab.settle();
    lab.hear_nd(0, &question("::", "2001:db8:1::100"));
    let [Said::Nd(_, to, answer)] = &lab.said()[..] else { panic!() };
    assert_eq!((*to, answer.dst), (group_mac(ALL_NODES), ALL_NODES));
    assert!(matches!(answer.message, Message::Advertisement { solicited: false, overrides: true, .. }));
    let service = "udp:[2001:db8:1::100]:53".parse().unwrap();
    drop(lab.call(Request::ServiceRemove { service }));
    lab.sent();
    lab.hear_nd(0, &question("2001:db8:1::7", "2001:db8:1::100"));
    assert_eq!(lab.said().len(), 1, "flows may be left");
    lab.hear_nd(0, &question("::", "2001:db8:1::100"));
    assert!(lab.said().is_empty(), "a removed VIP is let go");
}

#[tokio::test]
async fn what_is_not_true_neighbour_discovery_is_neither_answered_nor_believed() {
    let mut lab = dual();
    lab.settle();
    let link = LinkHeader::new(OWN, STATION, Tags::default(), eth::TYPE_IPV6);
    let whole = question("2001:db8:1::7", "2001:db8:1::fe").frame(&link);
    for len in 0..whole.len() {
        lab.arrive(&whole[..len], PuntReason::Nd(InterfaceId(0)));
    }
    let mut forwarded = whole.clone();
    forwarded[eth::HEADER_LEN + ipv6::HOP_LIMIT] = 254;
    lab.arrive(&forwarded, PuntReason::Nd(InterfaceId(0)));
    let from_us = LinkHeader::new(OWN, OWN, Tags::default(), eth::TYPE_IPV6);
    lab.arrive(&question("2001:db8:1::7", "2001:db8:1::fe").frame(&from_us), PuntReason::Nd(InterfaceId(0)));
    assert!(lab.said().is_empty());
    assert!(lab.engine.neighbour_status().iter().all(|neighbour| neighbour.mac.is_none()));
    lab.arrive(&whole, PuntReason::Nd(InterfaceId(0)));
    assert_eq!(lab.said().len(), 1);
}

#[tokio::test]
async fn backends_and_gateways_are_asked_for_on_their_interfaces() {
    let mut lab = dual();
    lab.engine.ask_neighbours();
    let said = lab.said();
    let arp = Arp { sender_mac: OWN, ..arp(Operation::Request, "198.51.100.254", "198.51.100.11") };
    assert!(said.contains(&Said::Arp(VLAN, arp)), "{said:?}");
    let backend = v6("2001:db8:2::11");
    let nd = Nd::solicitation(v6("2001:db8:2::fe"), OWN, backend);
    assert!(said.contains(&Said::Nd(VLAN, group_mac(solicited_node(backend)), nd)), "{said:?}");
}

#[tokio::test]
async fn a_known_station_is_asked_itself_and_a_stranger_by_the_link_local_address_where_there_is_no_other() {
    let mut lab = lab();
    lab.settle();
    lab.engine.ask_by_nd(0, v6("2001:db8:9::9"), Some(STATION));
    let question =
        Nd { dst: v6("2001:db8:9::9"), ..Nd::solicitation(v6(LINK_LOCAL), OWN, v6("2001:db8:9::9")) };
    assert_eq!(lab.said(), [Said::Nd(Tags::default(), STATION, question)]);
}

/// Whether the newest snapshot knows the Ethernet address of a station.
fn resolved(lab: &mut Lab, address: &str) -> bool {
    lab.engine.publish();
    lab.reader.refresh();
    lab.reader.current().egress_to(address.parse().unwrap()).unwrap().resolved
}

#[tokio::test]
async fn a_waiting_frame_is_sent_when_its_next_hop_answers() {
    for backend in ["198.51.100.11", "2001:db8:2::11"] {
        let mut lab = dual();
        lab.settle();
        let station = NextHop { interface: InterfaceId(1), address: backend.parse().unwrap() };
        let waits: Vec<u8> = (0..60).collect();
        lab.arrive(&waits, PuntReason::Resolve(station));
        assert_eq!(lab.engine.control_stats().waiting, 1);
        lab.sent();
        match station.address {
            std::net::IpAddr::V4(_) => lab.hear_arp(1, &arp(Operation::Reply, backend, "198.51.100.254")),
            std::net::IpAddr::V6(_) => lab.hear_nd(1, &advertisement(backend, true)),
        }
        let sent = lab.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!((&sent[0].frame.bytes()[..6], &sent[0].frame.bytes()[6..]), (&STATION.0[..], &waits[6..]));
        assert!(resolved(&mut lab, backend));
        let control = lab.engine.control_stats();
        assert_eq!(control.punted, control.answered + control.resolved + control.waiting + control.dropped);
    }
}

#[tokio::test]
async fn stations_are_noted_only_on_the_link_that_is_theirs() {
    let mut lab = dual();
    lab.settle();
    lab.hear_nd(0, &question("2001:db8:2::11", "2001:db8:1::fe"));
    lab.hear_arp(0, &arp(Operation::Request, "198.51.100.11", "192.0.2.254"));
    assert!(!resolved(&mut lab, "2001:db8:2::11") && !resolved(&mut lab, "198.51.100.11"));
    lab.hear_nd(1, &question("2001:db8:2::11", "2001:db8:2::fe"));
    assert!(resolved(&mut lab, "2001:db8:2::11"));
}

/// A lab whose untagged interface has a tap, and the kernel's end of that.
fn with_host() -> (Lab, tokio::net::UnixDatagram) {
    let (host, kernel) = Host::with_one(0);
    let mut lab = lab_of(DUAL, host);
    lab.settle();
    (lab, kernel)
}

/// What the kernel was given, once the socket has noticed that it can be written.
async fn given(lab: &mut Lab, kernel: &tokio::net::UnixDatagram, act: impl Fn(&mut Lab)) -> Vec<Vec<u8>> {
    tokio::task::yield_now().await;
    time::sleep(Duration::from_millis(5)).await;
    act(lab);
    time::sleep(Duration::from_millis(5)).await;
    let mut frames = Vec::new();
    let mut bytes = [0; 2048];
    while let Ok(len) = kernel.try_recv(&mut bytes) {
        frames.push(bytes[..len].to_vec());
    }
    frames
}

#[tokio::test]
async fn the_kernel_gets_what_is_its_own_and_what_answers_it_but_no_questions() {
    let (mut lab, kernel) = with_host();
    let mut frame =
        LinkHeader::new(STATION, STATION, Tags { outer: 7, inner: 9 }, eth::TYPE_IPV4).bytes().to_vec();
    frame.extend(b"packet");
    let got = given(&mut lab, &kernel, |lab| lab.arrive(&frame, PuntReason::Host(InterfaceId(0)))).await;
    let own = LinkHeader::new(OWN, STATION, Tags::default(), eth::TYPE_IPV4);
    assert_eq!(got, [[own.bytes(), b"packet"].concat()], "untagged, to the tap's own address");
    let got = given(&mut lab, &kernel, |lab| {
        lab.hear_arp(0, &arp(Operation::Request, "192.0.2.7", "192.0.2.254"));
        lab.hear_arp(0, &arp(Operation::Request, "192.0.2.7", "192.0.2.8"));
        lab.hear_nd(0, &question("2001:db8:1::7", "2001:db8:1::fe"));
        lab.hear_arp(1, &arp(Operation::Reply, "198.51.100.7", "198.51.100.254"));
    });
    assert!(got.await.is_empty());
    let got = given(&mut lab, &kernel, |lab| {
        lab.hear_arp(0, &arp(Operation::Reply, "192.0.2.7", "192.0.2.254"));
        lab.hear_nd(0, &advertisement("2001:db8:1::7", true));
    });
    assert_eq!(got.await.len(), 2);
    lab.arrive(&frame, PuntReason::Host(InterfaceId(1)));
    let control = lab.engine.control_stats();
    assert_eq!((control.to_host, control.dropped), (1, 1), "the other interface has no tap");
    assert_eq!(control.punted, control.answered + control.to_host + control.dropped);
}

#[tokio::test]
async fn what_the_kernel_sends_leaves_by_its_interface() {
    let (host, _kernel) = Host::with_one(1);
    let mut lab = lab_of(DUAL, host);
    lab.settle();
    let frame = |dst: MacAddr| {
        let link = LinkHeader::new(dst, OWN, Tags::default(), eth::TYPE_IPV4);
        Sent { interface: 1, bytes: [link.bytes(), b"packet"].concat() }
    };
    lab.engine.take_from_kernel(frame(STATION));
    let tagged = LinkHeader::new(STATION, OWN, VLAN, eth::TYPE_IPV4);
    assert_eq!(lab.said(), [Said::Other(VLAN, [tagged.bytes(), b"packet"].concat())]);
    lab.engine.take_from_kernel(frame(OWN));
    lab.engine.take_from_kernel(Sent { interface: 1, bytes: vec![0; 13] });
    assert!(lab.said().is_empty());
    for _ in 0..64 {
        assert!(lab.engine.has_room_for_kernel());
        lab.engine.take_from_kernel(frame(STATION));
    }
    assert!(!lab.engine.has_room_for_kernel());
    let control = lab.engine.control_stats();
    let drops: Vec<_> =
        control.drops.iter().filter(|drop| drop.packets > 0).map(|drop| &drop.reason).collect();
    assert_eq!(drops, ["truncated", "host_loop"]);
    assert_eq!((control.from_host, control.host_sent, control.dropped), (67, 65, 2));
}
