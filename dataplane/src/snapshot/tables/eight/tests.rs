use super::*;
use crate::eight::{Avx512, words};
use crate::parse::plain::eight::{FrontV6, glance_eight_v4, glance_eight_v6};
use crate::parse::plain::{Front, L3, Plain, Station, glance_v4, glance_v6};
use crate::samples::{Sample, datagram, endpoint, syn};
use crate::snapshot::tables::{FullNatFlow, WideFlow};
use crate::snapshot::{Listener, Parts, Rows, ServiceSlot, Snapshot};
use crate::testing::{self, mac};
use config::words::Mode;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::LazyLock;

/// A client's address and port, the service, and whether the packet is for the client.
type Known = ((u32, u16), u16, bool);

/// A flow of full NAT, and the service's or the local port.
type Local = (FullNatFlow, u16);

fn is(bits: Bits, row: usize) -> bool {
    bits >> row & 1 != 0
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn narrow<const REPLIES: bool>(snapshot: &Snapshot, fronts: &[&Front; 8]) -> [Option<Known>; 8] {
    let packets = glance_eight_v4(Station::new(mac(254)), fronts, [1514; 8]);
    let flows = snapshot.narrow_flows::<REPLIES>(&packets);
    let (clients, services) = (words(flows.clients), words(flows.services));
    std::array::from_fn(|row| {
        let client = (((clients[row] >> 32) as u32).swap_bytes(), ((clients[row] >> 16) as u16).swap_bytes());
        is(flows.known, row).then_some((client, services[row] as u16, is(flows.replies, row)))
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn wide<const REPLIES: bool>(snapshot: &Snapshot, fronts: &[&FrontV6; 8]) -> [Option<WideFlow<u128>>; 8] {
    let packets = glance_eight_v6(Station::new(mac(254)), fronts, [1514; 8]);
    let flows = snapshot.wide_flows::<REPLIES>(&packets);
    let [upper, lower] = flows.clients.address.map(|word| words(word));
    let (ports, targets) = (words(flows.clients.port), words(flows.targets));
    std::array::from_fn(|row| {
        let flow = WideFlow {
            client: (u128::from(upper[row]) << 64 | u128::from(lower[row]), ports[row] as u16),
            service: ServiceSlot((targets[row] >> 16) as u16),
            service_port: targets[row] as u16,
            is_reply: is(flows.replies, row),
        };
        is(flows.known, row).then_some(flow)
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn full_nat(snapshot: &Snapshot, fronts: &[&Front; 8]) -> [Option<Local>; 8] {
    let packets = glance_eight_v4(Station::new(mac(254)), fronts, [1514; 8]);
    locals(&snapshot.full_nat_flows(&packets))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn full_nat_v6(snapshot: &Snapshot, fronts: &[&FrontV6; 8]) -> [Option<Local>; 8] {
    let packets = glance_eight_v6(Station::new(mac(254)), fronts, [1514; 8]);
    locals(&snapshot.full_nat_flows_v6(&packets))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn locals(flows: &FullNatFlows) -> [Option<Local>; 8] {
    let targets = words(flows.targets);
    std::array::from_fn(|row| {
        let (service, local) = (ServiceSlot((targets[row] >> 16) as u16), flows.locals[row]);
        let flow = FullNatFlow { service, local, is_reply: is(flows.replies, row) };
        is(flows.known, row).then_some((flow, targets[row] as u16))
    })
}

/// The same, as far as it has a meaning.
fn of_meaning((flow, port): Local) -> Local {
    let flow = match flow.is_reply {
        true => FullNatFlow { service: ServiceSlot::default(), ..flow },
        false => FullNatFlow { local: LocalSlot::default(), ..flow },
    };
    (flow, port)
}

const SERVICES: u16 = 60;

/// An end of either IP version: clients are of network 0, backends of 1, VIPs and local addresses of 2.
fn end(is_v6: bool, network: usize, host: u16, port: u16) -> String {
    match is_v6 {
        true => format!("[2001:db8:{network}::{host:x}]:{port}"),
        false => format!("{}.{host}:{port}", ["203.0.113", "198.51.100", "192.0.2"][network]),
    }
}

/// Services on a VIP of each IP version, some with backends that reply for two of them, and some of full NAT;
/// and so many others.
fn world(locals: Vec<IpAddr>, others: u16) -> Snapshot {
    let mode = |slot: u16| if slot % 10 == 3 { Mode::FullNat } else { Mode::Nat };
    let service = |slot: u16| {
        let vip = end(slot >= SERVICES, 2, 100, 8000 + slot % SERVICES);
        Some(testing::service(&format!("tcp:{vip}"), &[(slot.into(), 1)]).into())
    };
    let other = |number: u16| {
        let vip = end(number.is_multiple_of(2), 2, 100, 20_000 + number * 2);
        Some(testing::service(&format!("tcp:{vip}"), &[]).into())
    };
    let backend = |slot: u16| {
        let address = end(slot >= SERVICES, 1, slot % SERVICES % 50, 9000);
        Some(testing::backend(slot, &address, mode(slot)))
    };
    Snapshot::new(Parts {
        services: (0..2 * SERVICES).map(service).chain((0..others).map(other)).collect(),
        backends: (0..2 * SERVICES).map(backend).collect(),
        locals,
        ..testing::parts()
    })
}

static BOTH_WAYS: LazyLock<Snapshot> = LazyLock::new(|| world(Vec::new(), 0));
/// With a hundred local addresses of each IP version, of which the first is a VIP, too, and so many other services that not
/// all are where they are looked for first.
static FULL_NAT: LazyLock<Snapshot> = LazyLock::new(|| {
    let local = |is_v6: bool, host: u16| endpoint(&end(is_v6, 2, host, 0)).ip();
    let locals = [false, true].into_iter().flat_map(|is_v6| (100..200).map(move |host| local(is_v6, host)));
    world(locals.collect(), 10_000)
});

/// A number of a service or backend, a port, and whether it is a reply, for somebody near, and of UDP.
type Drawn = (u16, u16, [bool; 3]);

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    prop::collection::vec((0u16..80, any::<u16>(), any::<[bool; 3]>()), 8)
}

/// A packet to or from a service.
fn frame(is_v6: bool, (number, port, [is_reply, near, udp]): Drawn) -> Vec<u8> {
    let client = end(is_v6, 0, 7, port);
    let packet = if udp { datagram } else { syn };
    let sample = if is_reply {
        packet(&end(is_v6, 1, number, if near { 9000 } else { port }), &client)
    } else {
        packet(&client, &end(is_v6, 2, if near { 100 } else { 101 }, 8000 + number))
    };
    padded(&sample)
}

/// A packet of a backend to an address that may be local.
fn local_frame(is_v6: bool, (host, port): (u8, u16)) -> Vec<u8> {
    padded(&syn(&end(is_v6, 1, 3, 9000), &end(is_v6, 2, host.into(), port)))
}

/// At least as long as the headers that are read.
fn padded(sample: &Sample) -> Vec<u8> {
    let mut bytes = sample.bytes();
    bytes.resize(LEN, 0);
    bytes
}

const LEN: usize = 80;

fn fronts<const LEN: usize>(frames: &[Vec<u8>]) -> [&[u8; LEN]; 8] {
    std::array::from_fn(|row| frames[row].first_chunk().unwrap())
}

fn plain_v4(front: &Front) -> Plain<u32> {
    glance_v4(front, LEN).unwrap()
}

fn plain_v6(front: &FrontV6) -> Plain<u128> {
    glance_v6(&front[L3..], LEN).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    // Miri knows few of the instructions.
    #[test]
    #[cfg_attr(miri, ignore)]
    fn eight_packets_are_of_the_narrow_flows_of_each(drawn in drawn()) {
        let Some(Avx512 { .. }) = Avx512::detect() else { return Ok(()) };
        let snapshot = &*BOTH_WAYS;
        prop_assert_eq!(snapshot.rows::<u32>(), Rows::BothWays);
        let frames: Vec<_> = drawn.into_iter().map(|drawn| frame(false, drawn)).collect();
        let fronts = fronts(&frames);
        // SAFETY: `Avx512` is a proof that the processor can.
        let both_ways = unsafe { narrow::<true>(snapshot, &fronts) };
        // SAFETY: as above.
        let requests = unsafe { narrow::<false>(snapshot, &fronts) };
        for (row, plain) in fronts.into_iter().map(plain_v4).enumerate() {
            let flow = snapshot.narrow_flow(&plain);
            prop_assert_eq!(both_ways[row], flow.map(|(client, service, reply)| (client, service.0, reply)));
            let service = snapshot.listener(&plain).and_then(Listener::sole);
            let request = service.map(|service| ((plain.src, plain.src_port), service.0, false));
            prop_assert_eq!(requests[row], request);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn eight_packets_are_of_the_wide_flows_of_each(drawn in drawn()) {
        let Some(Avx512 { .. }) = Avx512::detect() else { return Ok(()) };
        let snapshot = &*BOTH_WAYS;
        prop_assert_eq!(snapshot.rows::<u128>(), Rows::BothWays);
        let frames: Vec<_> = drawn.into_iter().map(|drawn| frame(true, drawn)).collect();
        let fronts = fronts(&frames);
        // SAFETY: `Avx512` is a proof that the processor can.
        let both_ways = unsafe { wide::<true>(snapshot, &fronts) };
        // SAFETY: as above.
        let requests = unsafe { wide::<false>(snapshot, &fronts) };
        for (row, plain) in fronts.into_iter().map(plain_v6).enumerate() {
            prop_assert_eq!(both_ways[row], snapshot.wide_flow::<_, true>(&plain));
            prop_assert_eq!(requests[row], snapshot.wide_flow::<_, false>(&plain));
        }
    }

    /// Replies are to any address of a network of which a hundred are local, half of them to that which is a VIP, too.
    #[test]
    #[cfg_attr(miri, ignore)]
    fn eight_packets_are_of_the_flows_of_full_nat_of_each(
        drawn in drawn(),
        replies in prop::array::uniform8(prop::option::of((prop_oneof![Just(100), any::<u8>()], any::<u16>()))),
    ) {
        let Some(Avx512 { .. }) = Avx512::detect() else { return Ok(()) };
        let snapshot = &*FULL_NAT;
        prop_assert_eq!((snapshot.rows::<u32>(), snapshot.rows::<u128>()), (Rows::FullNat, Rows::FullNat));
        let frames = |is_v6: bool| -> Vec<_> {
            let of = |(drawn, reply): (&Drawn, Option<_>)| {
                reply.map_or_else(|| frame(is_v6, *drawn), |reply| local_frame(is_v6, reply))
            };
            drawn.iter().zip(replies).map(of).collect()
        };
        let (v4, v6) = (frames(false), frames(true));
        let (v4, v6) = (fronts(&v4), fronts(&v6));
        // SAFETY: `Avx512` is a proof that the processor can.
        let together = unsafe { full_nat(snapshot, &v4) };
        for (row, plain) in v4.into_iter().map(plain_v4).enumerate() {
            let flow = snapshot.full_nat_flow(&plain).map(|flow| of_meaning((flow, plain.dst_port)));
            prop_assert_eq!(together[row].map(of_meaning), flow);
        }
        // SAFETY: as above.
        let together = unsafe { full_nat_v6(snapshot, &v6) };
        for (row, plain) in v6.into_iter().map(plain_v6).enumerate() {
            let flow = snapshot.full_nat_flow(&plain).map(|flow| of_meaning((flow, plain.dst_port)));
            prop_assert_eq!(together[row].map(of_meaning), flow);
        }
    }
}
