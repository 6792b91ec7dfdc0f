//! Neighbour discovery for IPv6 over Ethernet (RFC 4861, RFC 2464): solicitations and advertisements, those of
//! duplicate address detection among them (RFC 4862, 5.4). The control thread reads and makes them.

use std::net::Ipv6Addr;

use config::words::MacAddr;

use super::eth::{self, LinkHeader};
use super::{icmp6, ipv6, read_u16, read_u128};
use crate::csum;
use crate::packet::Addresses;

/// Hop limit of every packet of this protocol: so none was forwarded by a router (RFC 4861, 3.1).
const HOP_LIMIT: u8 = 255;
/// Length of the ICMPv6 header, flags and target, in bytes.
const BODY_LEN: usize = 24;
/// Length of an option with an Ethernet address, in bytes.
const OPTION_LEN: usize = 8;
/// Type of the option with the sender's Ethernet address.
const SOURCE_MAC: u8 = 1;
/// Type of the option with the target's Ethernet address.
const TARGET_MAC: u8 = 2;
/// Flags of an advertisement, in its fifth byte.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Every station on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group of the stations whose addresses end as this one does (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).to_bits();
    Ipv6Addr::from_bits(group | address.to_bits() & 0xff_ffff)
}

/// The Ethernet address of a group (RFC 2464, 7).
pub fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// What a packet wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has the target address? With an unspecified source: nobody, is it (RFC 4862, 5.4.2)?
    Solicitation,
    /// The target address is at this Ethernet address.
    Advertisement {
        /// The sender is a router.
        router: bool,
        /// It answers a solicitation.
        solicited: bool,
        /// It replaces what was known before.
        overrides: bool,
    },
}

/// A neighbour solicitation or advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nd {
    /// Question or answer.
    pub message: Message,
    /// Source of the packet; unspecified in a probe for duplicate addresses.
    pub src: Ipv6Addr,
    /// Destination of the packet: one station or a group.
    pub dst: Ipv6Addr,
    /// Address that is asked for or answered.
    pub target: Ipv6Addr,
    /// Ethernet address of the sender of a solicitation, or of an advertisement's target, if it is told.
    pub mac: Option<MacAddr>,
}

impl Nd {
    /// Asks all who may have `target` for it.
    pub fn solicitation(src: Ipv6Addr, mac: MacAddr, target: Ipv6Addr) -> Self {
        // A probe has no sender to be answered (RFC 4861, 4.3).
        let mac = (!src.is_unspecified()).then_some(mac);
        Self { message: Message::Solicitation, src, dst: solicited_node(target), target, mac }
    }

    /// Answers this solicitation: `target` is at `mac`. A probe is answered to all (RFC 4861, 7.2.4).
    pub fn answer(&self, mac: MacAddr, router: bool) -> Self {
        let solicited = !self.src.is_unspecified();
        Self {
            message: Message::Advertisement { router, solicited, overrides: true },
            src: self.target,
            dst: if solicited { self.src } else { ALL_NODES },
            target: self.target,
            mac: Some(mac),
        }
    }

    /// Tells all that `target` is at `mac` (RFC 4861, 7.2.6).
    pub fn announcement(target: Ipv6Addr, mac: MacAddr, router: bool) -> Self {
        Self {
            message: Message::Advertisement { router, solicited: false, overrides: true },
            src: target,
            dst: ALL_NODES,
            target,
            mac: Some(mac),
        }
    }

    /// Reads the IPv6 packet that begins at `l3`; `None` if it is no such packet, or one that must not be
    /// believed (RFC 4861, 7.1; RFC 6980: neither fragmented nor behind another header).
    pub fn parse(head: &[u8], l3: u16) -> Option<Self> {
        let packet = head.get(usize::from(l3)..)?;
        let header = packet.first_chunk::<{ ipv6::HEADER_LEN }>()?;
        let is_nd = header[0] >> 4 == 6
            && header[ipv6::NEXT] == ipv6::NEXT_ICMP
            && header[ipv6::HOP_LIMIT] == HOP_LIMIT;
        let len = usize::from(read_u16(header, ipv6::PAYLOAD_LEN)?);
        let body = packet.get(ipv6::HEADER_LEN..)?.get(..len)?;
        let (fixed, options) = body.split_first_chunk::<BODY_LEN>()?;
        let (src, dst) = (read_u128(header, ipv6::SRC)?, read_u128(header, ipv6::DST)?);
        let sum = csum::transport(Addresses::V6 { src, dst }, ipv6::NEXT_ICMP, body);
        // The code is 0.
        if !is_nd || sum != 0 || fixed[1] != 0 {
            return None;
        }
        let flag = |bit: u8| fixed[icmp6::REST] & bit != 0;
        let (message, option) = match fixed[icmp6::TYPE] {
            icmp6::NEIGHBOUR_SOLICITATION => (Message::Solicitation, SOURCE_MAC),
            icmp6::NEIGHBOUR_ADVERTISEMENT => {
                let (router, solicited, overrides) = (flag(ROUTER), flag(SOLICITED), flag(OVERRIDE));
                (Message::Advertisement { router, solicited, overrides }, TARGET_MAC)
            }
            _ => return None,
        };
        let (src, dst) = (Ipv6Addr::from_bits(src), Ipv6Addr::from_bits(dst));
        let target = Ipv6Addr::from_bits(read_u128(fixed, 8)?);
        let nd = Self { message, src, dst, target, mac: mac_option(options, option)? };
        nd.makes_sense().then_some(nd)
    }

    /// What RFC 4861, 7.1.1 and 7.1.2 ask of addresses.
    fn makes_sense(&self) -> bool {
        let no_sender = self.src.is_unspecified();
        let ends_fit = match self.message {
            Message::Solicitation => {
                !no_sender || self.dst == solicited_node(self.target) && self.mac.is_none()
            }
            Message::Advertisement { solicited, .. } => {
                !no_sender && (!solicited || !self.dst.is_multicast())
            }
        };
        let is_station = |mac: MacAddr| mac.is_unicast() && mac != MacAddr::default();
        ends_fit
            && !self.src.is_multicast()
            && !self.target.is_multicast()
            && !self.target.is_unspecified()
            && self.mac.is_none_or(is_station)
    }

    /// The frame that carries this packet behind an Ethernet header.
    pub fn frame(&self, link: &LinkHeader) -> Vec<u8> {
        let (kind, flags, option) = match self.message {
            Message::Solicitation => (icmp6::NEIGHBOUR_SOLICITATION, 0, SOURCE_MAC),
            Message::Advertisement { router, solicited, overrides } => {
                let flag = |set: bool, bit: u8| if set { bit } else { 0 };
                let flags = flag(router, ROUTER) | flag(solicited, SOLICITED) | flag(overrides, OVERRIDE);
                (icmp6::NEIGHBOUR_ADVERTISEMENT, flags, TARGET_MAC)
            }
        };
        let mut body = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        body.extend(self.target.octets());
        if let Some(MacAddr(mac)) = self.mac {
            body.extend([option, (OPTION_LEN / 8) as u8]);
            body.extend(mac);
        }
        let (src, dst) = (self.src.to_bits(), self.dst.to_bits());
        let checksum = csum::transport(Addresses::V6 { src, dst }, ipv6::NEXT_ICMP, &body);
        body[icmp6::CHECKSUM..][..2].copy_from_slice(&checksum.to_be_bytes());
        let header = ipv6::NewHeader {
            traffic_class: 0,
            flow_label: 0,
            payload_len: body.len() as u16,
            next: ipv6::NEXT_ICMP,
            hop_limit: HOP_LIMIT,
            src,
            dst,
        };
        [link.with_type(eth::TYPE_IPV6).bytes(), &header.bytes(), &body].concat()
    }
}

/// The Ethernet address in the option of this type; `None` if options are broken.
fn mac_option(mut options: &[u8], wanted: u8) -> Option<Option<MacAddr>> {
    let mut mac = None;
    while let [kind, words, ..] = *options {
        let (option, rest) = options.split_at_checked(8 * usize::from(words))?;
        // An empty one would never end (RFC 4861, 4.6).
        let value = option.get(2..)?;
        if kind == wanted {
            mac = Some(MacAddr(*value.first_chunk()?));
        }
        options = rest;
    }
    options.is_empty().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{cases, hex};
    use crate::testing::mac;
    use crate::wire::eth::Tags;
    use proptest::prelude::*;

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn link(dst: MacAddr, tags: Tags) -> LinkHeader {
        LinkHeader::new(dst, mac(1), tags, eth::TYPE_IPV6)
    }

    fn question() -> Nd {
        Nd::solicitation(ip("2001:db8::1"), mac(1), ip("2001:db8::9"))
    }

    fn probe() -> Nd {
        Nd::solicitation(Ipv6Addr::UNSPECIFIED, mac(1), ip("2001:db8::9"))
    }

    fn answer() -> Nd {
        Nd::solicitation(ip("2001:db8::9"), mac(9), ip("2001:db8::1")).answer(mac(1), false)
    }

    fn announcement() -> Nd {
        Nd::announcement(ip("2001:db8::1"), mac(1), false)
    }

    /// The frames are scapy's.
    #[test]
    fn frames_are_as_another_encoder_makes_them_and_read_back() {
        let untagged = Tags::default();
        let tagged = Tags { outer: 0, inner: 100 };
        let twice = Tags { outer: 2000, inner: 100 };
        let to_group = |nd: &Nd, tags| link(group_mac(nd.dst), tags);
        for (nd, link, frame) in [
            (
                question(),
                to_group(&question(), untagged),
                "3333ff00000902005e00530186dd6000000000203aff20010db8000000000000000000000001\
                 ff0200000000000000000001ff00000987006b180000000020010db8000000000000000000000009\
                 010102005e005301",
            ),
            (
                probe(),
                to_group(&probe(), tagged),
                "3333ff00000902005e0053018100006486dd6000000000183aff\
                 00000000000000000000000000000000ff0200000000000000000001ff000009\
                 87004cdd0000000020010db8000000000000000000000009",
            ),
            (
                answer(),
                link(mac(9), untagged),
                "02005e00530902005e00530186dd6000000000203aff20010db8000000000000000000000001\
                 20010db80000000000000000000000098800d96b6000000020010db8000000000000000000000001\
                 020102005e005301",
            ),
            (
                announcement(),
                to_group(&announcement(), twice),
                "33330000000102005e00530188a807d08100006486dd6000000000203aff\
                 20010db8000000000000000000000001ff0200000000000000000000000000018800482a20000000\
                 20010db8000000000000000000000001020102005e005301",
            ),
        ] {
            let l3 = link.bytes().len() as u16;
            assert_eq!(nd.frame(&link), hex(frame));
            assert_eq!(Nd::parse(&hex(frame), l3), Some(nd));
            assert_eq!(Nd::parse(&[hex(frame), vec![0xff; 9]].concat(), l3), Some(nd), "padded");
        }
    }

    #[test]
    fn a_probe_is_answered_to_all() {
        let told = probe().answer(mac(9), true);
        assert_eq!(told.dst, ALL_NODES);
        assert_eq!(told.message, Message::Advertisement { router: true, solicited: false, overrides: true });
    }

    #[test]
    fn what_must_not_be_believed_is_not_read() {
        let read = |nd: Nd| Nd::parse(&nd.frame(&link(mac(9), Tags::default())), 14);
        for nd in [question(), probe(), answer(), announcement()] {
            assert_eq!(read(nd), Some(nd));
            for change in [
                Nd { target: ALL_NODES, ..nd },
                Nd { target: Ipv6Addr::UNSPECIFIED, ..nd },
                Nd { src: ALL_NODES, ..nd },
                Nd { mac: Some(MacAddr::BROADCAST), ..nd },
                Nd { mac: Some(MacAddr::default()), ..nd },
            ] {
                assert_eq!(read(change), None, "{change:?}");
            }
        }
        assert_eq!(read(Nd { dst: ip("2001:db8::9"), ..probe() }), None, "a probe to one station");
        assert_eq!(read(Nd { mac: Some(mac(1)), ..probe() }), None, "a probe that wants an answer");
        assert_eq!(read(Nd { src: Ipv6Addr::UNSPECIFIED, ..answer() }), None);
        assert_eq!(read(Nd { dst: ALL_NODES, ..answer() }), None, "solicited by all");
    }

    #[test]
    fn broken_packets_are_not_read() {
        let frame = question().frame(&link(mac(9), Tags::default()));
        for len in 0..frame.len() {
            assert_eq!(Nd::parse(&frame[..len], 14), None, "{len} bytes");
        }
        let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = frame.clone();
            change(&mut frame);
            // The checksum is made right again, so that it is not the reason.
            let addresses = Addresses::V6 {
                src: read_u128(&frame, 14 + ipv6::SRC).unwrap(),
                dst: read_u128(&frame, 14 + ipv6::DST).unwrap(),
            };
            frame[56..58].fill(0);
            let checksum = csum::transport(addresses, ipv6::NEXT_ICMP, &frame[54..]);
            frame[56..58].copy_from_slice(&checksum.to_be_bytes());
            Nd::parse(&frame, 14)
        };
        assert_eq!(damaged(&|_| ()), Some(question()));
        for (offset, byte) in
            [(14, 0x40), (20, 17), (21, 254), (54, 133), (55, 1), (79, 0), (79, 2), (79, 0xff)]
        {
            assert_eq!(damaged(&|frame| frame[offset] = byte), None, "byte {offset}");
        }
        assert_eq!(damaged(&|frame| frame[78] = 14), Some(Nd { mac: None, ..question() }), "another option");
        let mut wrong = frame.clone();
        wrong[57] ^= 1;
        assert_eq!(Nd::parse(&wrong, 14), None, "checksum");
    }

    proptest! {
        #![proptest_config(cases())]
        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..100), l3: u16) {
            Nd::parse(&bytes, l3);
            Nd::parse(&bytes, 0);
        }

        #[test]
        fn any_options_do_no_harm(options in prop::collection::vec(0u8..4, 0..100)) {
            mac_option(&options, SOURCE_MAC);
        }
    }
}
