//! What the packet path needs of a frame's buffer, whoever owns its memory.
//!
//! With DPDK it is an mbuf; tests and benchmarks use [`HeapFrame`]. A frame may consist of several
//! segments (jumbo frames, captures): headers must lie in the first, the rest is carried along untouched.

/// A frame that is owned: dropping it frees its memory, sending moves it.
pub trait Frame: Sized {
    /// Bytes of the first segment, beginning with the Ethernet header.
    fn head(&self) -> &[u8];

    /// The same, to be changed.
    fn head_mut(&mut self) -> &mut [u8];

    /// Bytes of all segments.
    fn len(&self) -> usize;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds `count` bytes of any value before the first; false if the headroom is too small for them.
    #[must_use]
    fn grow_front(&mut self, count: usize) -> bool;

    /// Takes the first `count` bytes off; false, and nothing happens, if the first segment is not longer.
    #[must_use]
    fn trim_front(&mut self, count: usize) -> bool;

    /// Cuts the end off, so that `len` bytes remain; nothing happens to a frame that is not longer.
    fn truncate(&mut self, len: usize);

    /// Asks for the first bytes to come into the cache.
    fn prefetch(&self);

    /// A new frame of these bytes, from where this one's memory is; `None` if none is free there.
    fn another(&self, bytes: &[u8]) -> Option<Self>;

    /// Appends the bytes of all segments to `bytes`. For the control thread: it may allocate.
    fn copy_to(&self, bytes: &mut Vec<u8>);
}

/// Bytes before the first one of a new [`HeapFrame`], as many as DPDK leaves.
const HEADROOM: usize = 128;

/// A frame on the heap, for tests and benchmarks. Its first segment may be shorter than the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeapFrame {
    bytes: Vec<u8>,
    start: usize,
    head_len: usize,
}

impl HeapFrame {
    /// A frame of these bytes, in one segment.
    pub fn new(bytes: &[u8]) -> Self {
        Self::segmented(bytes, bytes.len())
    }

    /// A frame of these bytes, whose first segment holds `head_len` of them.
    pub fn segmented(bytes: &[u8], head_len: usize) -> Self {
        let mut memory = vec![0; HEADROOM];
        memory.extend_from_slice(bytes);
        Self { bytes: memory, start: HEADROOM, head_len: head_len.min(bytes.len()) }
    }

    /// Bytes of all segments, joined.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl Frame for HeapFrame {
    fn head(&self) -> &[u8] {
        &self.bytes()[..self.head_len]
    }

    fn head_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.head_len]
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn grow_front(&mut self, count: usize) -> bool {
        let Some(start) = self.start.checked_sub(count) else { return false };
        self.start = start;
        self.head_len += count;
        true
    }

    fn trim_front(&mut self, count: usize) -> bool {
        if count >= self.head_len {
            return false;
        }
        self.start += count;
        self.head_len -= count;
        true
    }

    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start + len);
        self.head_len = self.head_len.min(self.len());
    }

    fn prefetch(&self) {
        crate::prefetch::prefetch(self.bytes.as_ptr().wrapping_add(self.start));
    }

    fn another(&self, bytes: &[u8]) -> Option<Self> {
        Some(Self::new(bytes))
    }

    fn copy_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.bytes());
    }
}
