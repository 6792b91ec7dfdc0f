//! Receive-side scaling: which queue a device puts a frame in.
//!
//! Where a device can hash the fields of one end only, it brings frames straight to the owners of their flows
//! (see [`crate::toeplitz`]). Where it cannot, it spreads them as it likes, and workers hand them over.

use std::fmt;

use dpdk_sys::{rte_eth_rss_conf, rte_eth_rss_reta_entry64};

use crate::toeplitz::{self, Owners};

/// Entries in a group of the redirection table.
const GROUP: usize = dpdk_sys::RTE_ETH_RETA_GROUP_SIZE as usize;

/// Hash types that choose one end's address and port.
const SOURCE: u64 = dpdk_sys::TRUTINA_RSS_SOURCE_HIGH << 32;
const DESTINATION: u64 = dpdk_sys::TRUTINA_RSS_DESTINATION_HIGH << 32;

/// The longest key that fits DPDK's 8-bit length. Devices may read it for as long as they run.
static KEY: [u8; 255] = toeplitz::key();

/// Where the clients are, seen from a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// They send the frames that come in, or nearly all: requests, with no replies to speak of.
    Clients,
    /// The frames that come in are replies to them.
    Servers,
    /// Requests and replies come in alike.
    Both,
}

/// What a device hashes to choose a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fields {
    /// Nothing: there is one queue, or the device has a way of its own.
    Unknown,
    /// All that it can.
    All,
    /// Source addresses and ports.
    Source,
    /// Destination addresses and ports.
    Destination,
}

/// How a device chooses queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rss {
    fields: Fields,
    /// DPDK's hash types.
    types: u64,
    /// Length of its key.
    key_len: u8,
    /// Whether its redirection table names the owners.
    redirected: bool,
}

impl Rss {
    /// The best that a device can do that offers these hash types.
    pub(super) fn choose(offered: u64, key_len: u8, side: Side, queues: u16) -> Self {
        let flows = offered & dpdk_sys::TRUTINA_RSS_FLOWS;
        let unknown = Self { fields: Fields::Unknown, types: 0, key_len, redirected: false };
        if queues < 2 || flows == 0 {
            return unknown;
        }
        let (fields, ends) = match side {
            Side::Clients => (Fields::Source, SOURCE),
            Side::Servers => (Fields::Destination, DESTINATION),
            Side::Both => return Self { fields: Fields::All, types: flows, ..unknown },
        };
        if offered & ends == ends {
            Self { fields, types: flows | ends, ..unknown }
        } else {
            Self { fields: Fields::All, types: flows, ..unknown }
        }
    }

    /// The same in DPDK's words; `None` if the device is to be left alone.
    pub(super) fn settings(&self) -> Option<rte_eth_rss_conf> {
        let ours = match self.fields {
            Fields::Unknown => return None,
            // The device's own key spreads better than ours, which has to be the same for both ends.
            Fields::All => false,
            Fields::Source | Fields::Destination => true,
        };
        let rss_key = if ours { KEY.as_ptr().cast_mut() } else { std::ptr::null_mut() };
        // 40 bytes are the least that devices have, of those that do not say how many.
        let len = if self.key_len == 0 { 40 } else { self.key_len };
        Some(rte_eth_rss_conf { rss_key, rss_key_len: if ours { len } else { 0 }, rss_hf: self.types })
    }

    /// Writes the owners into the redirection table of a port that runs, if it chooses queues by owner.
    pub(super) fn redirect(mut self, port: u16, table_size: u16, owners: &Owners) -> Self {
        if !matches!(self.fields, Fields::Source | Fields::Destination) || table_size == 0 {
            return self;
        }
        let size = usize::from(table_size);
        let mut groups = vec![rte_eth_rss_reta_entry64::default(); size.div_ceil(GROUP)];
        for (entry, queue) in owners.redirection(size).enumerate() {
            let group = &mut groups[entry / GROUP];
            group.mask |= 1 << (entry % GROUP);
            group.reta[entry % GROUP] = queue;
        }
        // SAFETY: the port exists, and the groups hold as many entries as the call is told.
        let answer = unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(port, groups.as_mut_ptr(), table_size) };
        self.redirected = answer == 0 && owners.fit(size);
        self
    }
}

impl fmt::Display for Rss {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match (self.fields, self.redirected) {
            (Fields::Unknown, _) => out.write_str("none"),
            (Fields::All, _) => out.write_str("all fields"),
            (Fields::Source, true) => out.write_str("source fields, to the owners"),
            (Fields::Destination, true) => out.write_str("destination fields, to the owners"),
            (Fields::Source, false) => out.write_str("source fields"),
            (Fields::Destination, false) => out.write_str("destination fields"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = u64::MAX;
    const NO_ENDS: u64 = dpdk_sys::TRUTINA_RSS_FLOWS | 1 << 20;

    fn chosen(offered: u64, side: Side, queues: u16) -> (Fields, u64) {
        let rss = Rss::choose(offered, 52, side, queues);
        (rss.fields, rss.types)
    }

    #[test]
    fn each_side_hashes_the_clients_fields_where_it_can() {
        let flows = dpdk_sys::TRUTINA_RSS_FLOWS;
        let source = (Fields::Source, flows | SOURCE);
        let destination = (Fields::Destination, flows | DESTINATION);
        assert_eq!(chosen(ALL, Side::Clients, 4), source);
        assert_eq!(chosen(ALL, Side::Servers, 4), destination);
        assert_eq!(chosen(ALL, Side::Both, 4), (Fields::All, flows));
        for side in [Side::Clients, Side::Servers, Side::Both] {
            assert_eq!(chosen(NO_ENDS, side, 4), (Fields::All, flows));
            assert_eq!(chosen(ALL, side, 1), (Fields::Unknown, 0));
            assert_eq!(chosen(0, side, 4), (Fields::Unknown, 0));
        }
        // One without the other would hash the servers' ports.
        assert_eq!(chosen(ALL & !(1 << 61), Side::Clients, 4).0, Fields::All);
    }

    #[test]
    fn only_the_clients_fields_need_our_key() {
        let settings = Rss::choose(ALL, 52, Side::Clients, 4).settings().unwrap();
        assert!(settings.rss_key_len == 52 && !settings.rss_key.is_null());
        let settings = Rss::choose(ALL, 0, Side::Servers, 4).settings().unwrap();
        assert_eq!(settings.rss_key_len, 40);
        let settings = Rss::choose(ALL, 52, Side::Both, 4).settings().unwrap();
        assert!(settings.rss_key_len == 0 && settings.rss_key.is_null());
        assert!(Rss::choose(ALL, 52, Side::Clients, 1).settings().is_none());
    }
}
