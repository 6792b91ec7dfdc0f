//! TCP sequence numbers of a connection into which bytes were put that its client did not send.
//!
//! The bytes stand before the client's first one. Everything that the client sends later has higher numbers for the
//! backend, and everything that the backend acknowledges has lower ones for the client. What is done to a segment
//! depends on its numbers alone, so that retransmissions, in whatever pieces and order, come out alike.

use super::quote::Quoted;
use super::tcp_header;
use crate::csum::{self, Delta};
use crate::packet::{Addresses, Headers, Packet};
use crate::wire::{icmp4, icmp6, read_u16, read_u32, tcp, write_u16, write_u32};

/// How far a client's introduction to its backend is: the bytes before its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Sequence number of the client's first byte, as it counts.
    first: u32,
    /// How many bytes stand before it.
    len: u8,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The flow did not begin here, or not yet. Nothing is known of its numbers, and nothing is put into it.
    #[default]
    Unbegun,
    /// The backend has not all of the bytes, as far as is known.
    Begun,
    /// It has them.
    Over,
}

/// What a client's segment needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// Numbers of the backend.
    Shift,
    /// The bytes, before its payload.
    Bytes,
}

impl Introduction {
    /// Notes a client's opening: its sequence number, and how many bytes are to stand before the client's. One that
    /// comes again says the same; another one, before the backend had anything, begins anew. Without bytes it is over
    /// when the backend has some of the client's.
    pub fn begin(&mut self, sequence: u32, len: u8) {
        if self.stage != Stage::Over {
            *self = Self { first: sequence.wrapping_add(1), len, stage: Stage::Begun };
        }
    }

    /// Notes that the bytes are with the backend; of a flow of UDP, when that answers.
    pub fn end(&mut self) {
        self.stage = Stage::Over;
    }

    /// Whether they are.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// How many bytes stand before the client's.
    pub fn count(&self) -> u8 {
        self.len
    }

    /// What a client's segment needs. An opening with a payload (RFC 7413) needs the bytes before that.
    pub fn need(&self, sequence: u32, flags: u8, has_payload: bool) -> Need {
        let begins = self.stage == Stage::Begun && sequence == self.first;
        match (self.stage, flags & (tcp::SYN | tcp::RST)) {
            (Stage::Unbegun, _) => Need::Nothing,
            (Stage::Begun, tcp::SYN) if has_payload => Need::Bytes,
            (_, tcp::SYN) => Need::Nothing,
            // Until the backend has the bytes, it awaits what comes first.
            (_, tcp::RST) if begins => Need::Nothing,
            _ if begins => Need::Bytes,
            _ => Need::Shift,
        }
    }

    /// What a backend acknowledges, as its client counts; notes whether it has all of the bytes.
    fn acknowledged(&mut self, acknowledgment: u32, flags: u8) -> u32 {
        let count = acknowledgment.wrapping_sub(self.first);
        if self.stage == Stage::Begun && (u32::from(self.len).max(1)..1 << 31).contains(&count) {
            self.stage = Stage::Over;
        }
        // What comes late, or again, may say less than was known; it never says less than that the opening came.
        // Behind 4 GiB the same number is a new one.
        let early = self.stage == Stage::Begun || flags & tcp::SYN != 0;
        match early {
            // Not even the opening is acknowledged.
            true if count >= 1 << 31 => acknowledgment,
            true => self.lowered(acknowledgment),
            false => acknowledgment.wrapping_sub(self.len.into()),
        }
    }

    /// A number of the backend's as the client counts, none of whose bytes the first ones are.
    fn lowered(&self, sequence: u32) -> u32 {
        let count = sequence.wrapping_sub(self.first);
        sequence.wrapping_sub(count.min(self.len.into()))
    }
}

/// The sequence number of a segment, and whether it has a payload; `None` if its header is not all there.
pub fn of_segment(head: &mut [u8], headers: &Headers) -> Option<(u32, bool)> {
    let end = headers.ip.l4.wrapping_sub(headers.ip.l3);
    let header = tcp_header(head, headers)?;
    let has_payload = usize::from(headers.ip.len.saturating_sub(end)) > header.len();
    Some((read_u32(header, tcp::SEQUENCE)?, has_payload))
}

/// Gives a client's segment the sequence number that it has for the backend.
pub fn shift(head: &mut [u8], headers: &Headers, introduction: &Introduction) {
    change(head, headers, |header| {
        let sequence = read_u32(header, tcp::SEQUENCE).unwrap_or_default();
        write_u32(header, tcp::SEQUENCE, sequence.wrapping_add(introduction.len.into()));
    });
}

/// Gives a backend's segment the acknowledgments that it has for the client, and learns from them.
pub fn shift_back(head: &mut [u8], headers: &Headers, introduction: &mut Introduction) {
    if introduction.stage == Stage::Unbegun || headers.tcp_flags & tcp::ACK == 0 {
        return;
    }
    change(head, headers, |header| {
        let acknowledgment = read_u32(header, tcp::ACKNOWLEDGMENT).unwrap_or_default();
        let acknowledgment = introduction.acknowledged(acknowledgment, headers.tcp_flags);
        write_u32(header, tcp::ACKNOWLEDGMENT, acknowledgment);
        if let Some(blocks) = tcp::option(header, tcp::OPTION_SACK) {
            shift_blocks(header.get_mut(blocks).unwrap_or_default(), introduction);
        }
    });
}

/// Gives the segment that an ICMP error quotes the sequence number that it has for its client. Where it is about the
/// first one, which was longer by `more` bytes than the client knows, so is the MTU that is told; but never below
/// `least`.
pub fn shift_quoted(
    head: &mut [u8],
    packet: &Packet,
    quoted: &Quoted,
    introduction: &Introduction,
    (more, least): (u8, u16),
) -> Option<()> {
    let message = head.get_mut(..quoted.end)?;
    let sequence = read_u32(message, quoted.l4 + tcp::SEQUENCE)?;
    let l4 = usize::from(packet.l4);
    let is_first = introduction.need(sequence, tcp::ACK, true) == Need::Bytes;
    let opens = sequence.wrapping_add(1) == introduction.first;
    if is_first && tells_mtu(message, packet) {
        return shorten_mtu(head, packet, quoted, (more, least));
    }
    let mut changes = Delta::default();
    if introduction.stage != Stage::Unbegun && !opens {
        let new = introduction.lowered(sequence);
        write_u32(message, quoted.l4 + tcp::SEQUENCE, new);
        changes = changes.long(sequence, new);
    }
    // ICMPv6 has its checksum there too. The segment's own is over more than is quoted, and stays as it is.
    let checksum = read_u16(message, l4 + icmp4::CHECKSUM)?;
    write_u16(message, l4 + icmp4::CHECKSUM, changes.apply(checksum));
    Some(())
}

/// Makes the MTU that an ICMP error tells, if it tells one, less by `more` bytes, by which the quoted packet was longer
/// than its client knows; but never less than `least`.
pub fn shorten_mtu(
    head: &mut [u8],
    packet: &Packet,
    quoted: &Quoted,
    (more, least): (u8, u16),
) -> Option<()> {
    let message = head.get_mut(..quoted.end)?;
    let l4 = usize::from(packet.l4);
    if !tells_mtu(message, packet) {
        return None;
    }
    // Of ICMPv6 it is the lower half of the field, whose upper half no link needs.
    let at = l4 + icmp4::REST + 2;
    let old = read_u16(message, at)?;
    let new = old.saturating_sub(more.into()).max(least.min(old));
    write_u16(message, at, new);
    let checksum = read_u16(message, l4 + icmp4::CHECKSUM)?;
    write_u16(message, l4 + icmp4::CHECKSUM, Delta::default().word(old, new).apply(checksum));
    Some(())
}

/// Whether an ICMP error tells an MTU.
fn tells_mtu(message: &[u8], packet: &Packet) -> bool {
    match (packet.addresses, message.get(usize::from(packet.l4)..).and_then(|icmp| icmp.first_chunk())) {
        (Addresses::V4 { .. }, Some([kind, code])) => {
            (*kind, *code) == (icmp4::UNREACHABLE, icmp4::FRAGMENTATION_NEEDED)
        }
        (Addresses::V6 { .. }, Some([kind, _])) => *kind == icmp6::PACKET_TOO_BIG,
        (_, None) => false,
    }
}

/// Gives selective acknowledgments (RFC 2018, 3), an option with kind and length, the numbers that they have for the
/// client. Blocks of none of its bytes, such as of our own ones that came twice (RFC 2883), are taken out.
fn shift_blocks(option: &mut [u8], introduction: &Introduction) {
    const BLOCK: usize = 8;
    let count = (option.len() - 2) / BLOCK;
    if option.len() != 2 + count * BLOCK {
        return;
    }
    let mut end = 2;
    for block in 0..count {
        let at = 2 + block * BLOCK;
        let (left, right) = (read_u32(option, at), read_u32(option, at + 4));
        let lowered = |edge: Option<u32>| introduction.lowered(edge.unwrap_or_default());
        let (left, right) = (lowered(left), lowered(right));
        if left != right {
            write_u32(option, end, left);
            write_u32(option, end + 4, right);
            end += BLOCK;
        }
    }
    if let Some(len) = option.get_mut(1) {
        *len = end as u8;
    }
    // Without a block there is no option.
    let rest = if end == 2 { 0 } else { end };
    option.get_mut(rest..).unwrap_or_default().fill(tcp::OPTION_NOP);
}

/// Changes a TCP header, but for its checksum, which is then repaired. One that is not all there stays as it is.
fn change(head: &mut [u8], headers: &Headers, change: impl FnOnce(&mut [u8])) {
    let Some(header) = tcp_header(head, headers) else { return };
    let before = csum::sum(header);
    change(header);
    let checksum = read_u16(header, tcp::CHECKSUM).unwrap_or_default();
    let changes = Delta::default().word(before, csum::sum(header));
    write_u16(header, tcp::CHECKSUM, changes.apply(checksum));
}

#[cfg(test)]
mod tests;
