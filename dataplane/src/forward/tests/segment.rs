//! Segments of TCP, and what frames have of them.

use std::net::SocketAddr;

use super::*;
use crate::csum;
use crate::packet::Headers;
use crate::parse::parse;
use crate::samples::{Body, CLIENT4, Sample, VIP4, is_valid, syn};

/// A segment, or what a frame has of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) ends: (SocketAddr, SocketAddr),
    pub(super) numbers: (u32, u32),
    pub(super) flags: u8,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Segment {
    pub(super) fn frame(&self) -> HeapFrame {
        let sample = Sample {
            src: self.ends.0,
            dst: self.ends.1,
            body: Body::Tcp { flags: self.flags, options: self.options.clone() },
            payload: self.payload.clone(),
            ..syn(CLIENT4, VIP4)
        };
        let mut bytes = sample.bytes();
        let l4 = usize::from(sample.packet().l4);
        bytes[l4 + 4..l4 + 8].copy_from_slice(&self.numbers.0.to_be_bytes());
        bytes[l4 + 8..l4 + 12].copy_from_slice(&self.numbers.1.to_be_bytes());
        bytes[l4 + 16..l4 + 18].fill(0);
        let checksum = csum::transport(sample.packet().addresses, 6, &bytes[l4..]);
        bytes[l4 + 16..l4 + 18].copy_from_slice(&checksum.to_be_bytes());
        // Only headers must be in the first segment of the buffer.
        HeapFrame::segmented(&bytes, bytes.len() - self.payload.len() / 2)
    }

    pub(super) fn of(frame: &[u8]) -> Self {
        assert!(is_valid(&frame[14..]), "{frame:?}");
        let headers = headers_of(frame);
        let segment = &frame[usize::from(headers.ip.l4)..];
        let header_len = usize::from(segment[12] >> 4) * 4;
        let long = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
        Self {
            ends: ends_of(&headers),
            numbers: (long(4), long(8)),
            flags: segment[13],
            options: segment[20..header_len].to_vec(),
            payload: segment[header_len..].to_vec(),
        }
    }
}

pub(super) fn headers_of(frame: &[u8]) -> Headers {
    let to = config::words::MacAddr(frame[..6].try_into().unwrap());
    parse(frame, frame.len(), to).unwrap().0
}

pub(super) fn ends_of(headers: &Headers) -> (SocketAddr, SocketAddr) {
    let src = SocketAddr::new(headers.ip.addresses.src(), headers.src_port);
    (src, SocketAddr::new(headers.ip.addresses.dst(), headers.dst_port))
}
