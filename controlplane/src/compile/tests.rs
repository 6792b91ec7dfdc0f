//! A whole configuration and what workers see of it.

use std::time::Duration;

use config::words::NoFlow;

use super::*;
use crate::neighbour::Neighbours;
use crate::pools::Locals;
use crate::state::Limits;

const CONFIG: &str = r#"
[cores]
workers = [1]
[timeouts]
udp_secs = 100
[icmp]
rate = 50
no_service = "rst"
[[port]]
name = "lan"
device = "net_null0"
mtu = 9000
addresses = ["192.0.2.254/24", "192.0.2.253/24", "2001:db8:1::fe/64"]
host = "tap-lan"
[[port]]
name = "wan"
device = "net_null1"
[[port.vlan]]
id = 100
outer = 7
mtu = 1400
addresses = ["198.51.100.254/24"]
gateway = { snat_pool = "six" }
[[route]]
to = "0.0.0.0/0"
via = "198.51.100.1"
[[route]]
to = "2001:db8:2::/64"
via = "2001:db8:1::1"
[[snat_pool]]
name = "six"
addresses = ["2001:db8:5::1", "198.51.100.200", "2001:db8:5::2"]
[[class]]
name = "gold"
source = ["203.0.113.0/24"]
vlan = 100
[[service]]
vip = "192.0.2.100:8000-8099"
protocol = "tcp"
class = "gold"
no_backend = "drop"
no_flow = "rst"
mss = 1400
mode = "tunnel"
tunnel = { type = "gue", port = 6081, checksum = true }
check = { kind = "tcp", port = 80 }
[[service.backend]]
address = "203.0.113.9:0"
[[service.backend]]
address = "[2001:db8:2::9]:0"
tunnel = { type = "gre" }
[[service]]
vip = "192.0.2.100:53"
protocol = "udp"
echo = false
one_packet = true
timeouts = { udp_secs = 5 }
[[service.backend]]
address = "192.0.2.11:5300"
[[service]]
vip = "[2001:db8:1::100]:8000-8099"
protocol = "udp"
mode = "full-nat"
snat_pool = "six"
timeouts = { udp_secs = 5 }
[[service.backend]]
address = "192.0.2.11:9000"
"#;

const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0x5e, 0, 0x53, 1]), MacAddr([2, 0, 0x5e, 0, 0x53, 2])];

fn state() -> (State, Config) {
    let config = config::parse("test.toml", CONFIG).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())
    });
    let ground = Ground::new(&config, &Locals::default()).unwrap();
    let mut state = State::new(Ground::default(), Limits::for_config(&config));
    state.replace(ground, &config.services, Duration::ZERO).unwrap();
    (state, config)
}

fn snapshot() -> Snapshot {
    let (state, config) = state();
    compile(&state, &Frame::new(&config, &MACS), &Arc::new(Neighbours::<()>::default().table()))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn interfaces_have_the_mac_of_their_port_and_the_tags_of_their_vlan() {
    let Snapshot { parts, .. } = snapshot();
    let [lan, wan, vlan] = parts.interfaces[..] else { panic!("{:?}", parts.interfaces) };
    assert_eq!((lan.port, lan.tags, lan.mac, lan.mtu), (PortId(0), Tags::default(), MACS[0], 9000));
    assert_eq!(lan.v4.map(|own| own.to_be_bytes()), Some([192, 0, 2, 254]), "the first of its family");
    assert_eq!(lan.v6.map(|own| IpAddr::from(own.to_be_bytes())), Some(ip("2001:db8:1::fe")));
    assert!(lan.host && lan.gateway.is_none() && wan.v4.is_none());
    let tags = Tags { outer: 7, inner: 100 };
    assert_eq!((vlan.port, vlan.tags, vlan.mac, vlan.mtu), (PortId(1), tags, MACS[1], 1400));
    assert_eq!(vlan.gateway.map(|gateway| gateway.pool.is_some()), Some(true));
    let own: Vec<_> =
        parts.own.iter().map(|(address, interface)| (address.to_string(), interface.0)).collect();
    let link_local = "fe80::5eff:fe00:5301";
    let first = ["192.0.2.254", "192.0.2.253", "2001:db8:1::fe", link_local].map(|own| (own.to_owned(), 0));
    assert_eq!(own[..4], first, "IPv6 comes with a link-local address");
    assert_eq!(own[4..], [("198.51.100.254".to_owned(), 2)]);
}

#[test]
fn routes_lead_through_interfaces() {
    let snapshot = snapshot();
    for (to, interface, via) in [
        ("192.0.2.7", 0, "192.0.2.7"),
        ("203.0.113.7", 2, "198.51.100.1"),
        ("2001:db8:1::7", 0, "2001:db8:1::7"),
        ("2001:db8:2::7", 0, "2001:db8:1::1"),
    ] {
        let next_hop = NextHop { interface: InterfaceId(interface), address: ip(via) };
        assert_eq!(snapshot.egress_to(ip(to)).map(|egress| egress.next_hop), Some(next_hop), "{to}");
    }
    assert_eq!(snapshot.egress_to(ip("2001:db8:9::9")), None);
}

#[test]
fn services_keep_their_options() {
    let Snapshot { parts, .. } = snapshot();
    let service = |number: usize| parts.services[number].as_ref().unwrap();
    let gold = service(0);
    assert_eq!(
        (gold.class, gold.no_backend, gold.no_flow, gold.mss, gold.echo),
        (Some(0), NoBackend::Drop, NoFlow::Rst, Some(1400), true)
    );
    assert_eq!(parts.classes[0].sources, ["203.0.113.0/24".parse().unwrap()]);
    assert_eq!((parts.classes[0].vlan, parts.classes[0].dscp), (Some(100), None));
    assert!(service(1).one_packet && !service(1).echo && service(1).class.is_none());
    assert_eq!((parts.no_service, parts.icmp_rate), (NoBackend::Rst, 50));
}

#[test]
fn tunnels_begin_at_the_address_of_the_interface_they_leave_by() {
    let Snapshot { parts, .. } = snapshot();
    let tunnel = |number: usize| parts.backends[number].unwrap().tunnel.unwrap();
    let gue = tunnel::Encapsulation::Gue { port: 6081, checksum: true };
    assert_eq!((tunnel(0).src, tunnel(0).encapsulation), (ip("198.51.100.254"), gue));
    let gre = tunnel::Encapsulation::Gre { checksum: false };
    assert_eq!((tunnel(1).src, tunnel(1).encapsulation), (ip("2001:db8:1::fe"), gre));
    assert_eq!(parts.backends[2].unwrap().tunnel, None);
}

#[test]
fn ports_and_timeouts_are_those_of_the_service() {
    let Snapshot { parts, .. } = snapshot();
    let backend = |number: usize| parts.backends[number].unwrap();
    assert_eq!([0, 2, 3].map(|number| backend(number).port_shift), [0, 5300 - 53, 1000]);
    assert_eq!([0, 1, 2, 3].map(|number| backend(number).timeouts), [0, 0, 1, 1], "equal ones once");
    let udp = |number: usize| parts.timeouts[number].of(dataplane::flow::state::State::Udp);
    assert_eq!((parts.timeouts.len(), udp(0), udp(1)), (2, 100, 5));
}

#[test]
fn pools_are_told_by_family_in_the_order_of_the_file() {
    let snapshot = snapshot();
    let pool = snapshot.service(dataplane::snapshot::ServiceSlot(2)).unwrap().pool.unwrap();
    let slots = |toward| snapshot.pool(pool, ip(toward)).unwrap().to_vec();
    assert_eq!(slots("192.0.2.11"), [LocalSlot(1)]);
    assert_eq!(slots("2001:db8::1"), [LocalSlot(0), LocalSlot(2)]);
    assert_eq!(snapshot.local_address(LocalSlot(2)), Some(ip("2001:db8:5::2")));
}

#[test]
fn next_hops_of_backends_and_routers_are_wanted() {
    let (state, config) = state();
    let mut wanted: Vec<_> = wanted_stations(&state, &config)
        .iter()
        .map(|station| format!("{} on {}", station.address, station.interface.0))
        .collect();
    wanted.sort();
    wanted.dedup();
    assert_eq!(wanted, ["192.0.2.11 on 0", "198.51.100.1 on 2", "2001:db8:1::1 on 0"]);
}

#[test]
fn link_local_addresses_follow_from_macs() {
    // The example of RFC 2464, 4.
    assert_eq!(
        link_local("34:56:78:9a:bc:de".parse().unwrap()),
        "fe80::3656:78ff:fe9a:bcde".parse::<Ipv6Addr>().unwrap()
    );
}
