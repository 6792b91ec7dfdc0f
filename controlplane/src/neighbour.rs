//! Neighbour table: which station on a link has which Ethernet address (ARP, RFC 826; ND, RFC 4861).
//!
//! One state machine for both: all stations are asked once a second for an address that is not known; one
//! that is known is confirmed every 30 seconds by asking its station itself, and forgotten after three
//! questions without an answer. Pure: told what arrived and what time it is, it says what to ask and which waiting frames to send. Every
//! queue and table has a bound. `F` is a frame that waits.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use config::words::MacAddr;
use dataplane::drops::DropReason;
use dataplane::route::NextHop;
use dataplane::snapshot::NeighbourTable;

/// Stations known or asked for at most, besides those that are wanted or fixed.
const MAX_STATIONS: usize = 16_384;
/// Frames that wait for one station at most.
const MAX_WAITING_FOR_ONE: usize = 32;
/// Frames that wait for all stations together at most.
pub const MAX_WAITING: usize = 1024;

/// Time between requests for the same station (RFC 1122, 2.3.2.1: at most one a second).
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Requests after which a station counts as not there.
const MAX_ASKED: u32 = 3;
/// Time between requests for a wanted station that is not there.
const WANTED_INTERVAL: Duration = Duration::from_secs(5);
/// Age at which an address is confirmed by asking its station again.
const CONFIRM_AFTER: Duration = Duration::from_secs(30);

/// Time since the appliance's start.
pub type Time = Duration;

/// A request to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The station asked for.
    pub station: NextHop,
    /// Where the request goes: to the station itself to confirm its address, or to all.
    pub to: Option<MacAddr>,
}

/// One station.
#[derive(Debug)]
struct Station<F> {
    mac: Option<MacAddr>,
    /// From the configuration; never asked for and never changed by what arrives.
    fixed: bool,
    /// A backend or gateway: known at all times, if it can be.
    wanted: bool,
    /// When its address was last heard from it.
    heard: Time,
    /// When the next request for it is due.
    due: Time,
    /// Requests since it was last heard.
    asked: u32,
    waiting: VecDeque<F>,
}

/// How much a packet counts that says which Ethernet address a station has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It asks for us or answers us: the station is noted even if nobody asked for it.
    ForUs,
    /// It speaks to others: what is known of the station is brought up to date.
    Overheard,
    /// An advertisement that does not override (RFC 4861, 7.2.5): it fills a gap, but of two addresses the
    /// one that is known stays, and its station is asked at once.
    Hint,
}

/// What became of a frame that should wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Held<F> {
    /// It waits.
    Waiting,
    /// The address became known meanwhile: it can be sent.
    Known(F, MacAddr),
    /// It is dropped.
    Dropped(DropReason),
}

/// All stations of all ports.
#[derive(Debug)]
pub struct Neighbours<F> {
    stations: HashMap<NextHop, Station<F>>,
    /// Stations that were wanted or fixed when that was last set.
    required: usize,
    waiting: usize,
    changed: bool,
}

impl<F> Default for Neighbours<F> {
    fn default() -> Self {
        Self { stations: HashMap::new(), required: 0, waiting: 0, changed: false }
    }
}

impl<F> Neighbours<F> {
    /// Frames that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether addresses changed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The known addresses, for a snapshot.
    pub fn table(&self) -> NeighbourTable {
        NeighbourTable::new(self.stations.iter().filter_map(|(station, entry)| Some((*station, entry.mac?))))
    }

    /// Every station with its address, if that is known.
    pub fn list(&self) -> impl Iterator<Item = (NextHop, Option<MacAddr>)> + '_ {
        self.stations.iter().map(|(station, entry)| (*station, entry.mac))
    }

    /// Sets the stations that the configuration fixes, and those that are wanted at all times. Returns the
    /// frames that can now be sent.
    pub fn configure(
        &mut self,
        fixed: impl IntoIterator<Item = (NextHop, MacAddr)>,
        wanted: impl IntoIterator<Item = NextHop>,
        now: Time,
    ) -> Vec<(NextHop, F, MacAddr)> {
        for entry in self.stations.values_mut() {
            // What was fixed is asked for from now on.
            entry.due = if std::mem::take(&mut entry.fixed) { now } else { entry.due };
            entry.wanted = false;
        }
        let mut released = Vec::new();
        for (station, mac) in fixed {
            released.extend(self.set_mac(station, mac, now));
            self.entry(station, now).fixed = true;
        }
        for station in wanted {
            self.entry(station, now).wanted = true;
        }
        self.required = self.stations.values().filter(|entry| entry.fixed || entry.wanted).count();
        released
    }

    /// Adds to the stations that are wanted at all times.
    pub fn want(&mut self, stations: impl IntoIterator<Item = NextHop>, now: Time) {
        for station in stations {
            let entry = self.entry(station, now);
            let new = !entry.wanted && !entry.fixed;
            entry.wanted = true;
            self.required += usize::from(new);
        }
    }

    fn is_full(&self) -> bool {
        self.stations.len() >= self.required + MAX_STATIONS
    }

    fn entry(&mut self, station: NextHop, now: Time) -> &mut Station<F> {
        self.stations.entry(station).or_insert_with(|| Station {
            mac: None,
            fixed: false,
            wanted: false,
            heard: now,
            due: now,
            asked: 0,
            waiting: VecDeque::new(),
        })
    }

    /// Lets a frame wait until its next hop's address is known.
    pub fn hold(&mut self, station: NextHop, frame: F, now: Time) -> Held<F> {
        if !self.stations.contains_key(&station) && self.is_full() {
            return Held::Dropped(DropReason::NeighbourTableFull);
        }
        let full = self.waiting >= MAX_WAITING;
        let entry = self.entry(station, now);
        if let Some(mac) = entry.mac {
            return Held::Known(frame, mac);
        }
        if full || entry.waiting.len() >= MAX_WAITING_FOR_ONE {
            return Held::Dropped(DropReason::NeighbourQueueFull);
        }
        if entry.asked >= MAX_ASKED {
            // A wanted station that is not there is asked for slowly; a frame for it makes that faster.
            (entry.asked, entry.due) = (0, entry.due.min(now + ASK_INTERVAL));
        }
        entry.waiting.push_back(frame);
        self.waiting += 1;
        Held::Waiting
    }

    /// Notes an address that a station says it has. Returns the frames that can now be sent.
    pub fn hear(
        &mut self,
        station: NextHop,
        mac: MacAddr,
        weight: Weight,
        now: Time,
    ) -> Vec<(NextHop, F, MacAddr)> {
        let full = self.is_full();
        match self.stations.get_mut(&station) {
            Some(entry) if entry.fixed => Vec::new(),
            Some(entry) if weight == Weight::Hint && entry.mac.is_some_and(|known| known != mac) => {
                // Once: hints that go on must not use up the questions after which the station counts as gone.
                entry.due = if entry.asked == 0 { entry.due.min(now) } else { entry.due };
                Vec::new()
            }
            Some(_) => self.set_mac(station, mac, now),
            None if weight == Weight::ForUs && !full => self.set_mac(station, mac, now),
            None => Vec::new(),
        }
    }

    fn set_mac(&mut self, station: NextHop, mac: MacAddr, now: Time) -> Vec<(NextHop, F, MacAddr)> {
        let entry = self.entry(station, now);
        let changed = entry.mac.replace(mac) != Some(mac);
        (entry.heard, entry.due, entry.asked) = (now, now + CONFIRM_AFTER, 0);
        let released: Vec<_> = entry.waiting.drain(..).map(|frame| (station, frame, mac)).collect();
        self.waiting -= released.len();
        self.changed |= changed;
        released
    }

    /// What is due now: requests to be sent, and frames that waited in vain.
    pub fn poll(&mut self, now: Time) -> (Vec<Ask>, Vec<F>) {
        let (mut asks, mut expired) = (Vec::new(), Vec::new());
        let mut lost = false;
        self.stations.retain(|station, entry| {
            if entry.fixed || now < entry.due {
                return true;
            }
            if entry.asked >= MAX_ASKED {
                lost |= entry.mac.take().is_some();
                expired.extend(entry.waiting.drain(..));
                if !entry.wanted {
                    return false;
                }
            }
            // A known station is asked itself first, and all stations only before it is given up.
            let to = entry.mac.filter(|_| entry.asked + 1 < MAX_ASKED);
            asks.push(Ask { station: *station, to });
            entry.asked += 1;
            entry.due = now + if entry.asked > MAX_ASKED { WANTED_INTERVAL } else { ASK_INTERVAL };
            true
        });
        self.waiting -= expired.len();
        self.changed |= lost;
        (asks, expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::route::InterfaceId;
    use std::net::Ipv6Addr;

    const MAC: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 2]);

    fn station(last: u32) -> NextHop {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, (last >> 16) as u16, last as u16).into();
        NextHop { interface: InterfaceId(0), address }
    }

    fn secs(count: u64) -> Time {
        Duration::from_secs(count)
    }

    #[test]
    fn a_frame_waits_for_the_answer_and_is_released_once() {
        let mut table = Neighbours::default();
        assert_eq!(table.hold(station(1), 'a', secs(0)), Held::Waiting);
        assert_eq!(table.hold(station(1), 'b', secs(0)), Held::Waiting);
        assert_eq!(table.poll(secs(0)).0, [Ask { station: station(1), to: None }]);
        assert!(table.poll(secs(0)).0.is_empty(), "asked once a second");
        assert!(!table.take_changed());
        let released = table.hear(station(1), MAC, Weight::ForUs, secs(0));
        assert_eq!(released, [(station(1), 'a', MAC), (station(1), 'b', MAC)]);
        assert!(table.take_changed() && !table.take_changed());
        assert_eq!(table.waiting(), 0);
        assert_eq!(table.hold(station(1), 'c', secs(1)), Held::Known('c', MAC));
        assert_eq!(table.table().get(station(1)), Some(MAC));
    }

    #[test]
    fn frames_for_a_station_that_is_not_there_expire() {
        let mut table = Neighbours::default();
        table.hold(station(1), 'a', secs(0));
        for second in 0..3 {
            assert_eq!(table.poll(secs(second)), (vec![Ask { station: station(1), to: None }], vec![]));
        }
        assert_eq!(table.poll(secs(3)), (vec![], vec!['a']));
        assert_eq!((table.waiting(), table.list().count()), (0, 0));
    }

    #[test]
    fn a_wanted_station_is_asked_for_ever_but_slower() {
        let mut table = Neighbours::<char>::default();
        table.configure([], [station(1)], secs(0));
        let asked: Vec<u64> = (0..30).filter(|&second| !table.poll(secs(second)).0.is_empty()).collect();
        assert_eq!(asked, [0, 1, 2, 3, 8, 13, 18, 23, 28]);
        assert_eq!(table.hold(station(1), 'a', secs(30)), Held::Waiting);
        assert!(!table.poll(secs(31)).0.is_empty(), "a frame makes it faster");
    }

    #[test]
    fn stations_wanted_later_are_asked_for_too_and_take_no_room() {
        let mut table = Neighbours::<char>::default();
        table.configure([], [station(1)], secs(0));
        table.want([station(1), station(2), station(2)], secs(0));
        assert_eq!(table.required, 2);
        for second in 0..10 {
            table.poll(secs(second));
        }
        assert_eq!(table.list().count(), 2, "never given up");
    }

    #[test]
    fn a_known_station_is_confirmed_and_lost_when_silent() {
        let mut table = Neighbours::<char>::default();
        table.hear(station(1), MAC, Weight::ForUs, secs(0));
        assert!(table.take_changed());
        let to: Vec<_> = (0..34).flat_map(|second| table.poll(secs(second)).0).map(|ask| ask.to).collect();
        assert_eq!(to, [Some(MAC), Some(MAC), None]);
        assert!(table.take_changed());
        assert_eq!(table.table().get(station(1)), None);
    }

    #[test]
    fn a_move_is_noted_and_an_unasked_stranger_is_not() {
        let mut table = Neighbours::<char>::default();
        table.hear(station(1), MAC, Weight::Overheard, secs(0));
        assert_eq!(table.list().count(), 0);
        table.hear(station(1), MAC, Weight::ForUs, secs(0));
        table.take_changed();
        table.hear(station(1), MAC, Weight::Overheard, secs(1));
        assert!(!table.take_changed());
        table.hear(station(1), OTHER, Weight::Overheard, secs(2));
        assert!(table.take_changed());
        assert_eq!(table.table().get(station(1)), Some(OTHER));
    }

    #[test]
    fn a_hint_fills_a_gap_but_makes_a_known_station_be_asked_instead() {
        let mut table = Neighbours::default();
        assert!(table.hear(station(1), MAC, Weight::Hint, secs(0)).is_empty());
        assert_eq!(table.list().count(), 0, "a stranger is not noted");
        table.hold(station(1), 'a', secs(0));
        assert_eq!(table.hear(station(1), MAC, Weight::Hint, secs(0)), [(station(1), 'a', MAC)]);
        assert!(table.poll(secs(1)).0.is_empty());
        table.hear(station(1), OTHER, Weight::Hint, secs(1));
        assert_eq!(table.table().get(station(1)), Some(MAC));
        assert_eq!(table.poll(secs(1)).0, [Ask { station: station(1), to: Some(MAC) }]);
        table.hear(station(1), OTHER, Weight::Hint, secs(1));
        assert!(table.poll(secs(1)).0.is_empty(), "not again for every hint");
        table.hear(station(1), MAC, Weight::Hint, secs(2));
        assert!(table.poll(secs(2)).0.is_empty(), "it has confirmed itself");
    }

    #[test]
    fn a_fixed_station_is_neither_asked_for_nor_changed() {
        let mut table = Neighbours::<char>::default();
        table.configure([(station(1), MAC)], [station(1)], secs(0));
        assert!(table.poll(secs(100)).0.is_empty());
        table.hear(station(1), OTHER, Weight::ForUs, secs(100));
        assert_eq!(table.table().get(station(1)), Some(MAC));
        table.configure([], [station(1)], secs(101));
        assert_eq!(table.poll(secs(101)).0, [Ask { station: station(1), to: Some(MAC) }]);
    }

    #[test]
    fn queues_and_table_are_bounded() {
        let mut table = Neighbours::default();
        for number in 0..MAX_WAITING_FOR_ONE {
            assert_eq!(table.hold(station(0), number, secs(0)), Held::Waiting);
        }
        assert_eq!(table.hold(station(0), 0, secs(0)), Held::Dropped(DropReason::NeighbourQueueFull));
        for last in 1..MAX_STATIONS as u32 {
            table.hold(station(last), 0, secs(0));
        }
        assert_eq!(table.waiting(), MAX_WAITING);
        assert_eq!(table.hold(station(99_999), 0, secs(0)), Held::Dropped(DropReason::NeighbourTableFull));
        assert!(table.hear(station(99_999), MAC, Weight::ForUs, secs(0)).is_empty());
        assert_eq!(table.list().count(), MAX_STATIONS);
    }
}
