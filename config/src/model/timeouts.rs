//! How long flows may be idle.

use serde::{Deserialize, Serialize};

use crate::words::Preset;

/// `[timeouts]`, and `timeouts = { ... }` of a service: seconds a flow may be idle, by its state (RFC 9293
/// and IPVS). The default is that of IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// TCP, of which nothing is known.
    pub none_secs: u32,
    /// TCP, open in both directions.
    pub established_secs: u32,
    /// TCP, of which the server's side was seen first.
    pub syn_sent_secs: u32,
    /// TCP, after the client's SYN.
    pub syn_recv_secs: u32,
    /// TCP, closed by the server; where replies are not seen, by the client.
    pub fin_wait_secs: u32,
    /// TCP, closed by both.
    pub time_wait_secs: u32,
    /// TCP, after a reset.
    pub close_secs: u32,
    /// TCP, closed by the client.
    pub close_wait_secs: u32,
    /// TCP, closed by the client and then by the server, which waits for the last acknowledgement.
    pub last_ack_secs: u32,
    /// TCP, of which the server listens.
    pub listen_secs: u32,
    /// TCP, after a SYN that was answered in the server's name.
    pub synack_secs: u32,
    /// UDP.
    pub udp_secs: u32,
}

impl Timeouts {
    /// Those of the Linux kernel (`net/netfilter/ipvs/ip_vs_proto_tcp.c` and `ip_vs_proto_udp.c`).
    pub const IPVS: Self = Self {
        none_secs: 2,
        established_secs: 900,
        syn_sent_secs: 120,
        syn_recv_secs: 60,
        fin_wait_secs: 120,
        time_wait_secs: 120,
        close_secs: 10,
        close_wait_secs: 60,
        last_ack_secs: 30,
        listen_secs: 120,
        synack_secs: 120,
        udp_secs: 300,
    };

    /// Those of DPVS (`src/ipvs/ip_vs_proto_tcp.c` and `ip_vs_proto_udp.c`).
    pub const DPVS: Self = Self {
        none_secs: 2,
        established_secs: 90,
        syn_sent_secs: 3,
        syn_recv_secs: 30,
        fin_wait_secs: 7,
        time_wait_secs: 7,
        close_secs: 3,
        close_wait_secs: 7,
        last_ack_secs: 7,
        listen_secs: 120,
        synack_secs: 30,
        udp_secs: 300,
    };

    /// Those of a preset.
    pub const fn preset(preset: Preset) -> Self {
        match preset {
            Preset::Ipvs => Self::IPVS,
            Preset::Dpvs => Self::DPVS,
        }
    }

    /// All of them with the names of their keys, to be read or set.
    pub fn each(&mut self) -> [(&'static str, &mut u32); 12] {
        [
            ("none_secs", &mut self.none_secs),
            ("established_secs", &mut self.established_secs),
            ("syn_sent_secs", &mut self.syn_sent_secs),
            ("syn_recv_secs", &mut self.syn_recv_secs),
            ("fin_wait_secs", &mut self.fin_wait_secs),
            ("time_wait_secs", &mut self.time_wait_secs),
            ("close_secs", &mut self.close_secs),
            ("close_wait_secs", &mut self.close_wait_secs),
            ("last_ack_secs", &mut self.last_ack_secs),
            ("listen_secs", &mut self.listen_secs),
            ("synack_secs", &mut self.synack_secs),
            ("udp_secs", &mut self.udp_secs),
        ]
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::IPVS
    }
}
