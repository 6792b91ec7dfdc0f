//! Laws of the packet path, as properties.

use super::*;

/// What random traffic is made of: clients, ports, directions and flags that meet often.
fn traffic() -> impl Strategy<Value = Vec<(bool, u8, u16, u8)>> {
    let flags = prop_oneof![Just(SYN), Just(ACK), Just(SYN | ACK), Just(FIN | ACK), Just(RST), Just(ACK | 8)];
    prop::collection::vec((any::<bool>(), 0u8..3, 0u16..6, flags), 0..if cfg!(miri) { 20 } else { 120 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    #[test]
    fn any_bytes_end_in_one_place(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(any::<u8>(), 200..if cfg!(miri) { 300 } else { 9000 }),
        ],
        to_us: bool,
        ethertype in prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8]),
        head_len in 0usize..9000,
    ) {
        let mut bytes = bytes;
        // What is for others, or of no known type, ends soon.
        if let (true, Some(link)) = (to_us, bytes.get_mut(..14)) {
            link[..6].copy_from_slice(&mac(254).0);
            link[12..].copy_from_slice(&ethertype.to_be_bytes());
        }
        let mut path = Path::nat();
        path.pass(HeapFrame::segmented(&bytes, head_len));
    }

    #[test]
    fn any_damage_to_a_good_frame_ends_in_one_place(
        port: u16,
        cut in 0usize..80,
        damage in prop::collection::vec((0usize..70, any::<u8>()), 0..6),
    ) {
        for mode in [Mode::Nat, Mode::Dr, Mode::Tunnel] {
            let mut path = Path::new(testing::snapshot(mode));
            let mut bytes = request(port, SYN).bytes();
            bytes.truncate(bytes.len().saturating_sub(cut));
            for (offset, byte) in &damage {
                if let Some(place) = bytes.get_mut(*offset) {
                    *place = *byte;
                }
            }
            path.pass(HeapFrame::new(&bytes));
        }
    }

    #[test]
    fn the_reply_of_a_rewritten_request_is_the_request_turned_round(
        port in 1u16..,
        payload in prop::collection::vec(any::<u8>(), 0..64),
        udp: bool,
    ) {
        let mut path = Path::nat();
        let shape = |packet: Packet| if udp { packet.udp() } else { packet };
        let sent = Packet { payload: payload.clone(), ..shape(request(port, SYN)) };
        let End::Sent(frame) = path.send(&sent) else { return Err(TestCaseError::fail("not sent")) };
        let server = [198, 51, 100, frame[5]];
        let reply = Packet { payload, ..shape(packet((server, 8000), (CLIENT, port)).flags(SYN | ACK)) };
        let right = Packet { src: VIP, ports: (80, port), ..reply.clone() };
        prop_assert_eq!(path.send(&reply), End::Sent(arrived(right, 1)));
    }

    #[test]
    fn a_live_flow_keeps_its_backend(steps in traffic()) {
        let mut path = Path::nat();
        let mut backends: HashMap<(u8, u16), u8> = HashMap::new();
        for (from_client, client, port, flags) in steps {
            let client_address = [203, 0, 113, client];
            if !from_client {
                for server in 11..14 {
                    path.send(&packet(([198, 51, 100, server], 8000), (client_address, port)).flags(flags));
                }
                continue;
            }
            let scheduled = conns(&path);
            let end = path.send(&packet((client_address, port), (VIP, 80)).flags(flags));
            let (End::Sent(frame), false) = (end, conns(&path) > scheduled) else {
                backends.remove(&(client, port));
                continue;
            };
            let first = *backends.entry((client, port)).or_insert(frame[5]);
            prop_assert_eq!(frame[5], first);
        }
        let (active, inactive) = gauges(&path);
        prop_assert_eq!(active + inactive, path.forwarder.flows().len() as u64);
    }
}

/// Flows scheduled so far.
fn conns(path: &Path) -> u64 {
    (0..16).map(|slot| path.stats.backend(BackendSlot(slot)).conns.get()).sum()
}
