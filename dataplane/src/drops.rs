//! Every reason for which a frame is dropped, with its stable name and its meaning.
//!
//! A reason is a small number that indexes a counter; on the packet path it is never text.

macro_rules! reasons {
    ($($(#[doc = $meaning:literal])+ $variant:ident = $name:literal),+ $(,)?) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $meaning])+ $variant),+ }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Stable name in snake case, as in `trutina_dropped_packets_total{reason="no_service"}`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What it means, in one line.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),+).trim_ascii_start()),+ }
            }
        }
    };
}

reasons! {
    /// the frame ends before its headers do, or before the length that its IP header claims
    Truncated = "truncated",
    /// the destination MAC is not the address of the port it came in by
    NotOurMac = "not_our_mac",
    /// more than two VLAN tags, or tags of a VLAN that the port has no interface for
    BadVlan = "bad_vlan",
    /// neither IPv4, IPv6 nor ARP
    UnknownEthertype = "unknown_ethertype",
    /// an IP version other than the Ethertype's, a header length under 20 bytes (RFC 1812, 5.2.2), or a
    /// malformed option
    BadIpHeader = "bad_ip_header",
    /// the IPv4 header checksum is wrong (RFC 1812, 5.2.2)
    BadIpChecksum = "bad_ip_checksum",
    /// the IPv4 total length is shorter than the IPv4 header, or the IPv6 payload length is 0
    BadIpLength = "bad_ip_length",
    /// a source or destination address that no packet on a wire may have (RFC 1812, 5.3.7), or a client with
    /// an address of ours
    MartianAddress = "martian_address",
    /// an IPv4 option asks for a route of the sender's choice (RFC 7126, 4.3 and 4.4)
    SourceRoute = "source_route",
    /// more than eight IPv6 extension headers, one that runs past the packet, or a hop-by-hop header that is
    /// not the first (RFC 8200, 4.1)
    BadExtensionHeader = "bad_extension_header",
    /// an IPv6 routing header of type 0 (RFC 5095), or one that makes us a waypoint
    RoutingHeader = "routing_header",
    /// an IPv6 packet with nothing in it (RFC 8200, 4.7)
    NoNextHeader = "no_next_header",
    /// a piece of a fragmented packet that is neither TCP nor UDP
    Fragment = "fragment",
    /// a piece of a fragmented packet that lies: its length is no multiple of 8, or it ends beyond 65,535
    BadFragment = "bad_fragment",
    /// a first piece without a whole transport header, or one inside a TCP header (RFC 1858, 3128, 7112)
    FragmentTiny = "fragment_tiny",
    /// pieces of a fragmented packet overlap or came twice; in IPv6 all of them die (RFC 5722)
    FragmentOverlap = "fragment_overlap",
    /// too many pieces wait for their first ones: in all, from one sender, of one packet, or with too many gaps
    FragmentTableFull = "fragment_table_full",
    /// a piece of a fragmented packet waited for the first one in vain
    FragmentTimeout = "fragment_timeout",
    /// an IP protocol other than TCP, UDP and ICMP
    UnknownProtocol = "unknown_protocol",
    /// TCP data offset under 20 bytes or past the end of the packet
    BadTcpHeader = "bad_tcp_header",
    /// TCP flags that no sender sets: none at all, or SYN with FIN or RST
    BadTcpFlags = "bad_tcp_flags",
    /// UDP length under 8 bytes or past the end of the packet
    BadUdpLength = "bad_udp_length",
    /// an ICMP packet without a whole header, or an error that quotes too little of a packet or whose wrong
    /// checksum would become right
    BadIcmp = "bad_icmp",
    /// an ICMP type that is neither an echo request for us nor an error
    UnknownIcmp = "unknown_icmp",
    /// a ping to a VIP that is configured not to answer it
    EchoRefused = "echo_refused",
    /// more ICMP packets to be answered in a second than a worker answers
    IcmpRate = "icmp_rate",
    /// the TTL would become 0 (RFC 1812, 5.3.1), and the sender was not told so
    TtlExceeded = "ttl_exceeded",
    /// no service has this address, port and protocol
    NoService = "no_service",
    /// no backend of the service takes new flows
    NoBackend = "no_backend",
    /// a new flow of a service that has as many as it may have
    ServiceFull = "service_full",
    /// a new flow of a service, or of a source, to which new ones come too fast
    NewFlowRate = "new_flow_rate",
    /// a client's packet of a service to which too many packets or bits come
    TrafficRate = "traffic_rate",
    /// a TCP packet that opens no connection and belongs to none
    NoFlowNotSyn = "no_flow_not_syn",
    /// the backend of its flow is out of use, and its flows are reset
    FlowReset = "flow_reset",
    /// a backend's reply, or an ICMP error, that belongs to no flow
    NoFlow = "no_flow",
    /// the reply of this flow could not be told from that of another service's flow
    ReplyAmbiguous = "reply_ambiguous",
    /// no place for another flow, and none to be evicted
    FlowTableFull = "flow_table_full",
    /// no local address and port is free for a flow of full NAT
    LocalPortsExhausted = "local_ports_exhausted",
    /// no route to the destination
    NoRoute = "no_route",
    /// longer than the MTU of the port it leaves by, and the sender was not told so
    TooBig = "too_big",
    /// no headroom in the buffer for an outer header
    NoHeadroom = "no_headroom",
    /// its new checksum covers bytes behind the first segment of its buffer
    Scattered = "scattered",
    /// a packet in pieces whose backend would have to be told its client's address
    AddressInPieces = "address_in_pieces",
    /// an address of the other IP version was to be put into it
    WrongFamily = "wrong_family",
    /// the device's transmit queue is full
    TxFull = "tx_full",
    /// the queue to the control thread is full
    PuntFull = "punt_full",
    /// the queue to the worker that owns the flow is full
    HandOverFull = "hand_over_full",
    /// the port that the control thread or a route named for it does not exist
    BadPort = "bad_port",
    /// the next hop did not answer ARP requests in time
    NeighbourUnresolved = "neighbour_unresolved",
    /// too many frames wait for an ARP answer of their next hop, or of all next hops together
    NeighbourQueueFull = "neighbour_queue_full",
    /// too many stations are known or asked for
    NeighbourTableFull = "neighbour_table_full",
    /// the queue from the control thread to the worker is full
    InjectFull = "inject_full",
    /// the kernel does not take it by the tap device of its interface
    HostFull = "host_full",
    /// the kernel sent it by a tap device to the own MAC address, where it reaches nobody
    HostLoop = "host_loop",
    /// no packet memory is free for a frame of the kernel, or it is too long for it
    NoBuffer = "no_buffer",
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_index_and_names_are_unique() {
        let mut names = HashSet::new();
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert!(names.insert(reason.name()));
            assert!(reason.name().chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            assert!(!reason.meaning().is_empty() && !reason.meaning().starts_with(' '));
        }
    }
}
