//! One frame in DPDK's memory.

use std::ptr::NonNull;
use std::slice;

use dpdk_sys::{rte_mbuf, rte_mempool};

use crate::buf::Frame;
use crate::prefetch::prefetch;

/// An owned mbuf with all its segments. Dropping it gives it back to its mempool.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// Drivers read and write arrays of `Option<Mbuf>` as arrays of pointers.
const _: () = assert!(size_of::<Option<Mbuf>>() == size_of::<*mut rte_mbuf>());
const _: () = assert!(align_of::<Option<Mbuf>>() == align_of::<*mut rte_mbuf>());

// SAFETY: an mbuf has one owner, whatever its thread; mempools take mbufs back from any thread, since
// `Mempool` makes them with the multi-producer ring.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes over an mbuf.
    ///
    /// # Safety
    /// `raw` is a live mbuf with its segments, with a reference count of 1, that nobody else owns.
    pub(super) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        Self(raw)
    }

    /// A new mbuf of these bytes; `None` if none is free or they do not fit into its first segment.
    ///
    /// # Safety
    /// `pool` is a live mempool of mbufs.
    pub(super) unsafe fn alloc(pool: *mut rte_mempool, bytes: &[u8]) -> Option<Self> {
        // SAFETY: the caller says that the mempool is one.
        let raw = NonNull::new(unsafe { dpdk_sys::trutina_pktmbuf_alloc(pool) })?;
        // SAFETY: the mbuf was allocated just now, with one segment and a reference count of 1, for us alone.
        let mut frame = unsafe { Self::from_raw(raw) };
        frame.fill(bytes).then_some(frame)
    }

    fn raw(&self) -> &rte_mbuf {
        // SAFETY: an `Mbuf` owns a live mbuf, and `&self` keeps everybody from changing it.
        unsafe { self.0.as_ref() }
    }

    fn raw_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: an `Mbuf` owns a live mbuf, and `&mut self` makes this the only reference to it.
        unsafe { self.0.as_mut() }
    }

    fn data(&self) -> *mut u8 {
        let raw = self.raw();
        raw.buf_addr.cast::<u8>().wrapping_add(usize::from(raw.data_off))
    }

    /// Puts bytes into an empty mbuf; false if they do not fit into its first segment.
    fn fill(&mut self, bytes: &[u8]) -> bool {
        let raw = self.raw_mut();
        let (room, Ok(len)) = (raw.buf_len.saturating_sub(raw.data_off), u16::try_from(bytes.len())) else {
            return false;
        };
        if len > room {
            return false;
        }
        raw.data_len = len;
        raw.pkt_len = u32::from(len);
        self.head_mut().copy_from_slice(bytes);
        true
    }

    /// Cuts a frame of several segments: whole segments behind the cut are given back.
    #[cold]
    fn truncate_segments(&mut self, len: usize) {
        let mut left = len;
        let mut kept = 0u16;
        let mut segment = self.0;
        loop {
            // SAFETY: `segment` is the frame's first mbuf or was reached from it by `next`, and all of these
            // are live and belong to this `Mbuf`; no other reference to one of them exists here.
            let raw = unsafe { segment.as_mut() };
            kept += 1;
            let data_len = usize::from(raw.data_len).min(left);
            // At most `data_len`, which was 16 bits.
            raw.data_len = data_len as u16;
            left -= data_len;
            let Some(next) = NonNull::new(raw.next) else { break };
            if left == 0 {
                raw.next = std::ptr::null_mut();
                // The rest of the chain is a frame of its own now; freeing it walks by `next`.
                // SAFETY: nothing refers to the rest any more, so it has this one owner.
                drop(unsafe { Self::from_raw(next) });
                break;
            }
            segment = next;
        }
        let first = self.raw_mut();
        first.nb_segs = kept;
        // A frame is shorter than 2^32 bytes: `len` is less than its `pkt_len`.
        first.pkt_len = len as u32;
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        let mut raw = self.0.as_ptr();
        // SAFETY: this owner has a live mbuf and gives it up here; the array of one pointer is read only
        // during the call, which frees all segments.
        unsafe { dpdk_sys::rte_pktmbuf_free_bulk(&mut raw, 1) };
    }
}

impl Frame for Mbuf {
    #[inline]
    fn head(&self) -> &[u8] {
        let len = usize::from(self.raw().data_len);
        // SAFETY: `data_len` bytes from `data_off` on lie in the mbuf's buffer and were written by the driver
        // or by us; `&self` keeps them from changing.
        unsafe { slice::from_raw_parts(self.data(), len) }
    }

    #[inline]
    fn head_mut(&mut self) -> &mut [u8] {
        let len = usize::from(self.raw().data_len);
        // SAFETY: as in `head`; `&mut self` makes this the only reference to the bytes, and an mbuf with a
        // reference count of 1 does not share its buffer.
        unsafe { slice::from_raw_parts_mut(self.data(), len) }
    }

    #[inline]
    fn len(&self) -> usize {
        self.raw().pkt_len as usize
    }

    #[inline]
    fn trim_front(&mut self, count: usize) -> bool {
        let raw = self.raw_mut();
        if count >= usize::from(raw.data_len) {
            return false;
        }
        // Less than `data_len`, which is 16 bits.
        raw.data_off += count as u16;
        raw.data_len -= count as u16;
        raw.pkt_len -= count as u32;
        true
    }

    #[inline]
    fn grow_front(&mut self, count: usize) -> bool {
        let raw = self.raw_mut();
        let Ok(grown) = u16::try_from(count) else { return false };
        let (Some(offset), Some(data_len)) =
            (raw.data_off.checked_sub(grown), raw.data_len.checked_add(grown))
        else {
            return false;
        };
        raw.data_off = offset;
        raw.data_len = data_len;
        raw.pkt_len += u32::from(grown);
        true
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        if self.raw().nb_segs != 1 {
            return self.truncate_segments(len);
        }
        let raw = self.raw_mut();
        // `len` is less than `pkt_len`, which is `data_len` for a frame of one segment.
        raw.data_len = len as u16;
        raw.pkt_len = len as u32;
    }

    #[inline]
    fn prefetch(&self) {
        prefetch(self.data());
    }

    #[cold]
    fn another(&self, bytes: &[u8]) -> Option<Self> {
        // SAFETY: an mbuf's mempool is not freed while any of its mbufs is in use, as this one is (`Mempool::drop`).
        unsafe { Self::alloc(self.raw().pool, bytes) }
    }

    #[cold]
    fn copy_to(&self, bytes: &mut Vec<u8>) {
        let mut next = Some(self.0);
        while let Some(segment) = next {
            // SAFETY: `segment` is the frame's first mbuf or was reached from it by `next`, and all of these
            // are live and belong to this `Mbuf`, which `&self` keeps from changing.
            let raw = unsafe { segment.as_ref() };
            let data = raw.buf_addr.cast::<u8>().wrapping_add(usize::from(raw.data_off));
            // SAFETY: `data_len` bytes from `data_off` on lie in the segment's buffer and were written by the
            // driver or by us.
            bytes.extend_from_slice(unsafe { slice::from_raw_parts(data, usize::from(raw.data_len)) });
            next = NonNull::new(raw.next);
        }
    }
}
