//! Buffers for frames, sized and spaced as the mbufs of a DPDK mempool.
//!
//! A frame is a pointer to its buffer, which begins with what is known of it: moving the frame moves a
//! pointer, and dropping it gives the buffer back, as with an mbuf. Buffers live as long as the program. Where a frame
//! lies in its buffer is not checked again at every look, as it is not in an mbuf.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ptr;

use dataplane::buf::Frame;
use dataplane::prefetch::{prefetch, table};

/// Buffers of a pool: about as many as one queue has descriptors.
pub const FRAMES: usize = 4096;

/// Bytes before the first one of a new frame, as many as DPDK leaves.
const HEADROOM: u16 = 128;
/// Bytes for a frame: a headroom, 2 KiB, and as many more as keep buffers apart by an odd number of cache
/// lines, so that they use all sets of a cache; mempools are spaced so too.
const ROOM: usize = 128 + 2048 + 128;

/// A buffer, in which a frame has a cache line for what is known of it.
#[derive(Clone)]
#[repr(C)]
struct Buffer {
    known: Known,
    room: [u8; ROOM],
}

#[derive(Clone)]
#[repr(align(64))]
struct Known {
    /// Offset of the frame's first byte in its room.
    start: u16,
    /// Bytes of the frame.
    len: u16,
}

const _: () = assert!(size_of::<Buffer>() / 64 % 2 == 1);

thread_local! {
    /// This thread's free buffers.
    static FREE: RefCell<Vec<&'static mut Buffer>> = const { RefCell::new(Vec::new()) };
}

/// The buffers of this thread, all in one piece of memory, on huge pages as mbufs are.
pub struct Pool {
    frames: usize,
}

impl Pool {
    /// A pool of free buffers. A thread makes only one.
    pub fn new(frames: usize) -> Self {
        let frames = frames.min(FRAMES);
        let empty = Buffer { known: Known { start: HEADROOM, len: 0 }, room: [0; ROOM] };
        FREE.set(Box::leak(Box::new(table(empty, frames))).iter_mut().collect());
        Self { frames }
    }

    /// Number of buffers.
    pub fn len(&self) -> usize {
        self.frames
    }

    /// Number of buffers that are not free.
    pub fn in_use(&self) -> usize {
        self.frames - FREE.with_borrow(Vec::len)
    }

    /// A frame that `write` puts into a free buffer, behind the headroom; it returns the frame's length.
    /// `None` if no buffer is free.
    pub fn frame(&self, write: impl FnOnce(&mut [u8]) -> usize) -> Option<PoolFrame> {
        filled(write)
    }
}

/// The same, of this thread's pool.
fn filled(write: impl FnOnce(&mut [u8]) -> usize) -> Option<PoolFrame> {
    let buffer = FREE.with_borrow_mut(Vec::pop)?;
    let len = write(&mut buffer.room[usize::from(HEADROOM)..]).min(ROOM - usize::from(HEADROOM)) as u16;
    buffer.known = Known { start: HEADROOM, len };
    Some(PoolFrame(buffer))
}

/// A frame in a pool's buffer; dropping it makes the buffer free.
pub struct PoolFrame(&'static mut Buffer);

const _: () = assert!(size_of::<Option<PoolFrame>>() == size_of::<*mut u8>());

impl Drop for PoolFrame {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this was the only reference to the buffer, which lives as long as the program, and it is not used again.
        let buffer = unsafe { &mut *ptr::from_mut(self.0) };
        FREE.with_borrow_mut(|free| free.push(buffer));
    }
}

impl Frame for PoolFrame {
    #[inline(always)]
    fn head(&self) -> &[u8] {
        let Buffer { known: Known { start, len }, room } = &*self.0;
        let start = usize::from(*start);
        // SAFETY: the frame is in its buffer: it begins so, and grows only by what is before it.
        unsafe { room.get_unchecked(start..start + usize::from(*len)) }
    }

    #[inline(always)]
    fn head_mut(&mut self) -> &mut [u8] {
        let Buffer { known: Known { start, len }, room } = &mut *self.0;
        let start = usize::from(*start);
        // SAFETY: as in `head`.
        unsafe { room.get_unchecked_mut(start..start + usize::from(*len)) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        usize::from(self.0.known.len)
    }

    #[inline(always)]
    fn grow_front(&mut self, count: usize) -> bool {
        let Ok(grown) = u16::try_from(count) else { return false };
        let Some(start) = self.0.known.start.checked_sub(grown) else { return false };
        self.0.known.start = start;
        self.0.known.len += grown;
        true
    }

    #[inline(always)]
    fn trim_front(&mut self, count: usize) -> bool {
        if count >= self.len() {
            return false;
        }
        // Less than the length, which is 16 bits.
        self.0.known.start += count as u16;
        self.0.known.len -= count as u16;
        true
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) {
        if len < self.len() {
            // Less than a number of 16 bits.
            self.0.known.len = len as u16;
        }
    }

    fn another(&self, bytes: &[u8]) -> Option<Self> {
        let write = |room: &mut [u8]| {
            room.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
            bytes.len().min(room.len())
        };
        filled(write)
    }

    fn copy_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.head());
    }

    #[inline(always)]
    fn prefetch(&self) {
        prefetch(self.0.room.as_ptr().wrapping_add(usize::from(self.0.known.start)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(pool: &Pool, byte: u8) -> Option<PoolFrame> {
        pool.frame(|bytes| {
            bytes[..60].fill(byte);
            60
        })
    }

    #[test]
    fn a_pool_is_bounded_and_dropping_frees() {
        let pool = Pool::new(2);
        let frames = [1, 2].map(|byte| frame(&pool, byte).unwrap());
        assert!(frame(&pool, 3).is_none());
        assert_eq!((frames[0].head(), frames[1].head(), pool.in_use()), (&[1; 60][..], &[2; 60][..], 2));
        drop(frames);
        assert_eq!((pool.in_use(), pool.len()), (0, 2));
        assert_eq!(Pool::new(FRAMES + 1).len(), FRAMES);
    }

    #[test]
    fn a_frame_grows_into_its_headroom_and_no_further() {
        let mut frame = frame(&Pool::new(1), 1).unwrap();
        assert!(frame.grow_front(128) && !frame.grow_front(1) && !frame.grow_front(1 << 16));
        assert_eq!((frame.len(), frame.head().len(), frame.head()[128]), (188, 188, 1));
        frame.head_mut()[0] = 9;
        assert_eq!(frame.head()[0], 9);
        assert!(frame.trim_front(128) && !frame.trim_front(60));
        assert_eq!(frame.head(), [1; 60]);
    }

    #[test]
    fn a_frame_only_shrinks_by_truncation() {
        let mut frame = frame(&Pool::new(1), 1).unwrap();
        frame.truncate(61);
        assert_eq!(frame.len(), 60);
        frame.truncate(54);
        assert_eq!((frame.len(), frame.head().len()), (54, 54));
    }

    #[test]
    fn a_buffer_is_as_new_when_used_again() {
        let pool = Pool::new(1);
        let mut used = frame(&pool, 1).unwrap();
        assert!(used.grow_front(20));
        used.truncate(30);
        drop(used);
        assert_eq!(frame(&pool, 7).unwrap().head(), [7; 60]);
    }
}
