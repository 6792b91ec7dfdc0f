//! Pieces of fragmented packets: each is told the ports of its datagram's first piece.
//!
//! Belongs to the worker that owns the datagram ([`Datagram::owner`]), where all its pieces meet. Nothing is
//! put together: a piece is passed on as it is as soon as the first piece has come, and waits until then.
//! Memory is reserved at the start and never grows; what is given up for lack of it, or after too long a wait,
//! has a reason. Overlapping and tiny pieces die here (RFC 1858, 3128, 5722, 7112, 8200).

mod spans;
mod store;

use std::hash::{BuildHasher, RandomState};

use config::words::Protocol;

use crate::clock::Seconds;
use crate::drops::DropReason;
use crate::packet::{Addresses, Headers};
use crate::wire::ipv4;
use spans::Misfit;
use store::{Datagrams, Index, Kind, Pieces, State};

/// Pieces of one datagram that wait at most. Enough for the longest one over a path of 1,280 bytes; fewer
/// than a whole table, so that giving one up is little work.
const MAX_WAITING_FOR_ONE: u32 = 64;

/// Sources whose pieces are counted apart; more than that share counters.
const SHARES: usize = 1024;

/// What all pieces of a datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Datagram {
    addresses: Addresses,
    id: u32,
    /// 0 in IPv6, where only the first piece tells it (RFC 8200, 4.5).
    protocol: u8,
}

impl Datagram {
    /// The datagram that a piece with this identification and protocol number belongs to.
    pub fn new(addresses: Addresses, id: u32, protocol: u8) -> Self {
        let protocol = if matches!(addresses, Addresses::V4 { .. }) { protocol } else { 0 };
        Self { addresses, id, protocol }
    }

    /// Which of `workers` owns it. All of them have the same secret.
    pub fn owner(&self, secret: &RandomState, workers: usize) -> usize {
        // The high bits choose the owner, the low ones the place in its table.
        ((secret.hash_one(self) >> 48) as usize * workers) >> 16
    }

    fn is_ipv6(&self) -> bool {
        matches!(self.addresses, Addresses::V6 { .. })
    }

    /// Who sent it, as far as one sender cannot pose as many: in IPv6 the network of the source.
    fn sender(&self) -> u64 {
        match self.addresses {
            Addresses::V4 { src, .. } => u64::from(src),
            Addresses::V6 { src, .. } => (src >> 64) as u64,
        }
    }
}

/// What the first piece tells about all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

impl Transport {
    /// The transport of a packet, or of a piece that is known to belong to it.
    pub fn of(headers: &Headers) -> Self {
        Self { protocol: headers.protocol, src_port: headers.src_port, dst_port: headers.dst_port }
    }
}

/// Which part of its datagram a piece is.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Where its bytes belong; a multiple of 8.
    pub offset: u16,
    /// Number of its bytes: what follows the IPv4 header or the IPv6 fragment header.
    pub len: u16,
    /// Whether more pieces follow behind it.
    pub more: bool,
    /// From the transport header, if that is whole. Of meaning at offset 0 only.
    pub transport: Option<Transport>,
}

impl Piece {
    fn end(&self) -> u32 {
        u32::from(self.offset) + u32::from(self.len)
    }

    /// Whether the piece can be one at all, whatever else came of its datagram.
    fn check(&self, datagram: &Datagram) -> Result<(), DropReason> {
        let cut = self.more && !self.len.is_multiple_of(8);
        if cut || self.len == 0 || self.end() > u32::from(u16::MAX) {
            return Err(DropReason::BadFragment);
        }
        // The first piece holds the whole transport header (RFC 1858, 3.1; RFC 7112, 5), so one that begins
        // within TCP's would only change it (RFC 3128).
        let inside_tcp = self.offset == 8 && datagram.protocol == ipv4::PROTOCOL_TCP;
        if inside_tcp || self.offset == 0 && self.transport.is_none() {
            return Err(DropReason::FragmentTiny);
        }
        Ok(())
    }
}

/// What becomes of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Offered<F> {
    /// It goes on; its datagram's ports are known.
    Pass(F, Transport),
    /// It goes on, and behind it those that waited for it: [`FragmentTable::release`].
    First(F, Transport),
    /// It waits for the first piece.
    Held,
    /// It was dropped.
    Dropped,
}

/// What is to become of a piece.
enum Verdict {
    Pass(Transport),
    First(Transport),
    /// It waits in this datagram, which has room for it.
    Hold(Index),
}

/// How much a table holds, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Pieces that wait for their first one.
    pub pieces: usize,
    /// Datagrams whose first piece has come and others have not.
    pub datagrams: usize,
    /// Seconds a piece waits.
    pub timeout: Seconds,
    /// Seconds for which the ports of a datagram are remembered.
    pub remember: Seconds,
}

/// The fragmented datagrams of one worker. `F` is a frame, with what its receiver wants to remember of it.
///
/// Each frame that is dropped is given to `gone` with the reason; frames that waited and those that are
/// offered alike.
pub struct FragmentTable<F> {
    limits: Limits,
    secret: RandomState,
    datagrams: Datagrams,
    pieces: Pieces<F>,
    /// Waiting pieces by sender, so that one cannot fill the table. Senders are hashed with the secret; who
    /// shares a counter with a flood is not for the flood to choose.
    shares: Box<[u32]>,
    forgotten: u64,
}

impl<F> FragmentTable<F> {
    /// A table with room for what the limits say: about 160 bytes a datagram, waiting or known.
    pub fn new(limits: Limits, secret: RandomState) -> Self {
        let limits = Limits { datagrams: limits.datagrams.max(1), ..limits };
        Self {
            limits,
            secret,
            // Each waiting datagram has a waiting piece.
            datagrams: Datagrams::new(limits.pieces + limits.datagrams),
            pieces: Pieces::new(limits.pieces),
            shares: vec![0; SHARES].into(),
            forgotten: 0,
        }
    }

    /// Pieces that wait.
    pub fn held(&self) -> usize {
        self.pieces.len()
    }

    /// Datagrams of which pieces may yet come.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether no datagram is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Datagrams whose ports were forgotten too early, to make room for newer ones. Pieces that come for
    /// them wait in vain.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Takes a piece.
    pub fn offer(
        &mut self,
        datagram: &Datagram,
        piece: Piece,
        frame: F,
        now: Seconds,
        gone: &mut impl FnMut(F, DropReason),
    ) -> Offered<F> {
        match self.judge(datagram, piece, now, gone) {
            Ok(Verdict::Pass(transport)) => return Offered::Pass(frame, transport),
            Ok(Verdict::First(transport)) => return Offered::First(frame, transport),
            Ok(Verdict::Hold(index)) => {
                let entry = self.datagrams.at(index);
                match self.pieces.push(&mut entry.waiting, frame) {
                    Ok(()) => {
                        self.shares[usize::from(entry.share)] += 1;
                        return Offered::Held;
                    }
                    Err(frame) => gone(frame, DropReason::FragmentTableFull),
                }
            }
            Err(why) => gone(frame, why),
        }
        Offered::Dropped
    }

    /// Decides about a piece, and makes room for it where it needs some.
    fn judge(
        &mut self,
        datagram: &Datagram,
        piece: Piece,
        now: Seconds,
        gone: &mut impl FnMut(F, DropReason),
    ) -> Result<Verdict, DropReason> {
        piece.check(datagram)?;
        let first = piece.transport.filter(|_| piece.offset == 0);
        let hash = self.secret.hash_one(datagram);
        let found = self.datagrams.find(hash, datagram).map(|index| (index, self.datagrams.at(index).state));
        match (found, first) {
            (Some((_, State::Dead)), _) => Err(DropReason::FragmentOverlap),
            (Some((index, State::Known(transport))), _) => {
                self.fit(index, piece, now, gone)?;
                self.forget_if_over(index);
                Ok(Verdict::Pass(transport))
            }
            (Some((index, State::Waiting)), Some(transport)) => {
                self.fit(index, piece, now, gone)?;
                self.settle(index, State::Known(transport), now, gone);
                Ok(Verdict::First(transport))
            }
            (None, Some(transport)) => {
                self.make_room_to_settle(gone);
                let index = self.add(hash, datagram, State::Known(transport), now)?;
                self.fit(index, piece, now, gone)?;
                self.forget_if_over(index);
                Ok(Verdict::Pass(transport))
            }
            (_, None) => self.hold(hash, datagram, piece, now, gone),
        }
    }

    /// Lets a piece wait, if its sender has not too many that do. If too many wait in all, the datagram that
    /// waits longest is given up: pieces of one datagram come close together, so that under a flood an old
    /// one is the least likely to be completed.
    fn hold(
        &mut self,
        hash: u64,
        datagram: &Datagram,
        piece: Piece,
        now: Seconds,
        gone: &mut impl FnMut(F, DropReason),
    ) -> Result<Verdict, DropReason> {
        if self.shares[self.share(datagram)] as usize >= (self.limits.pieces / 4).max(1) {
            return Err(DropReason::FragmentTableFull);
        }
        if self.pieces.is_full() {
            let oldest = self.datagrams.oldest(Kind::Waiting).ok_or(DropReason::FragmentTableFull)?;
            self.remove(oldest, DropReason::FragmentTableFull, gone);
        }
        // Looked up once more: it may have been the oldest itself.
        let index = match self.datagrams.find(hash, datagram) {
            Some(index) => index,
            None => self.add(hash, datagram, State::Waiting, now)?,
        };
        if self.datagrams.at(index).waiting.len() >= MAX_WAITING_FOR_ONE {
            return Err(DropReason::FragmentTableFull);
        }
        self.fit(index, piece, now, gone)?;
        Ok(Verdict::Hold(index))
    }

    /// Counts a piece's bytes as received, if it fits those that came before.
    fn fit(
        &mut self,
        index: Index,
        piece: Piece,
        now: Seconds,
        gone: &mut impl FnMut(F, DropReason),
    ) -> Result<(), DropReason> {
        let entry = self.datagrams.at(index);
        // Checked to be in 16 bits.
        match entry.spans.insert(piece.offset, piece.end() as u16, piece.more) {
            Ok(()) => Ok(()),
            Err(Misfit::Scattered) => Err(DropReason::FragmentTableFull),
            // The network may have doubled it, which RFC 8200, 4.5 allows to forgive.
            Err(Misfit::Duplicate) => Err(DropReason::FragmentOverlap),
            Err(Misfit::Overlap) => {
                // In IPv6 the whole datagram dies (RFC 5722, 4), in IPv4 the piece that came later.
                if entry.datagram.is_ipv6() {
                    while let Some(frame) = self.pop(index) {
                        gone(frame, DropReason::FragmentOverlap);
                    }
                    self.settle(index, State::Dead, now, gone);
                }
                Err(DropReason::FragmentOverlap)
            }
        }
    }

    /// The next of the pieces that waited for a datagram's first one, in the order in which they came. To be
    /// asked for after [`Offered::First`] until there is none.
    pub fn release(&mut self, datagram: &Datagram) -> Option<F> {
        let index = self.datagrams.find(self.secret.hash_one(datagram), datagram)?;
        if self.datagrams.at(index).state == State::Waiting {
            return None;
        }
        let frame = self.pop(index)?;
        self.forget_if_over(index);
        Some(frame)
    }

    /// Gives up what waited too long, and forgets what was remembered long enough: at most `budget` pieces
    /// and datagrams.
    pub fn expire(&mut self, now: Seconds, budget: usize, gone: &mut impl FnMut(F, DropReason)) {
        for _ in 0..budget {
            let Some(index) = self.expired(now) else { break };
            match self.pop(index) {
                Some(frame) => gone(frame, DropReason::FragmentTimeout),
                None => self.datagrams.remove(index),
            }
        }
    }

    fn expired(&mut self, now: Seconds) -> Option<Index> {
        let kinds = [(Kind::Waiting, self.limits.timeout), (Kind::Settled, self.limits.remember)];
        kinds.into_iter().find_map(|(kind, limit)| {
            let oldest = self.datagrams.oldest(kind)?;
            (now.saturating_sub(self.datagrams.at(oldest).since) > limit).then_some(oldest)
        })
    }

    fn share(&self, datagram: &Datagram) -> usize {
        self.secret.hash_one(datagram.sender()) as usize % SHARES
    }

    fn add(
        &mut self,
        hash: u64,
        datagram: &Datagram,
        state: State,
        now: Seconds,
    ) -> Result<Index, DropReason> {
        let share = self.share(datagram) as u16;
        self.datagrams.insert(hash, datagram, state, now, share).ok_or(DropReason::FragmentTableFull)
    }

    /// Marks a datagram as one that waits for its first piece no longer.
    fn settle(&mut self, index: Index, state: State, now: Seconds, gone: &mut impl FnMut(F, DropReason)) {
        if self.datagrams.at(index).state == State::Waiting {
            self.make_room_to_settle(gone);
        }
        self.datagrams.set_state(index, state, now);
    }

    /// Forgets the datagram that has been known longest, if as many are known as may be.
    fn make_room_to_settle(&mut self, gone: &mut impl FnMut(F, DropReason)) {
        if self.datagrams.count(Kind::Settled) >= self.limits.datagrams
            && let Some(oldest) = self.datagrams.oldest(Kind::Settled)
        {
            self.forgotten += 1;
            self.remove(oldest, DropReason::FragmentTableFull, gone);
        }
    }

    /// Forgets a datagram of which nothing more can come. Its identification may be used again soon.
    fn forget_if_over(&mut self, index: Index) {
        let entry = self.datagrams.at(index);
        if entry.spans.complete() && entry.waiting.len() == 0 {
            self.datagrams.remove(index);
        }
    }

    /// Takes a datagram out with all its pieces.
    fn remove(&mut self, index: Index, why: DropReason, gone: &mut impl FnMut(F, DropReason)) {
        while let Some(frame) = self.pop(index) {
            gone(frame, why);
        }
        self.datagrams.remove(index);
    }

    /// Takes the first of a datagram's waiting pieces.
    fn pop(&mut self, index: Index) -> Option<F> {
        let entry = self.datagrams.at(index);
        let frame = self.pieces.pop(&mut entry.waiting)?;
        self.shares[usize::from(entry.share)] -= 1;
        Some(frame)
    }
}

#[cfg(test)]
mod tests;
