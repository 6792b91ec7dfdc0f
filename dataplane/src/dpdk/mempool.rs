//! Memory for frames, taken once at start.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::rte_mempool;

use super::eal::Eal;
use super::mbuf::Mbuf;
use super::{DpdkError, last_error};

/// Mbufs that each thread keeps for itself.
const CACHE: u32 = 256;
/// Bytes of one mbuf's buffer: DPDK's default of 2 KiB for the device and 128 bytes of headroom.
const BUFFER_LEN: u16 = 2048 + 128;

/// A pool of mbufs on one NUMA node. Every mbuf should be back before it is dropped; memory of which some is
/// still in use is never given back.
pub struct Mempool {
    raw: NonNull<rte_mempool>,
    frames: u32,
    /// DPDK must outlive its memory.
    eal: Arc<Eal>,
}

// SAFETY: a mempool is made for use by many threads at once; `raw` is never changed after its creation.
unsafe impl Send for Mempool {}
// SAFETY: as above; all methods only call functions of DPDK that any thread may call.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Reserves memory for `frames` frames on a NUMA node; -1 is any.
    ///
    /// # Errors
    /// [`DpdkError::NoMemory`] if there is not enough.
    pub fn new(eal: &Arc<Eal>, node: i32, frames: u32) -> Result<Self, DpdkError> {
        // One less than a power of two uses a mempool's ring best.
        let frames = (frames + 1).next_power_of_two() - 1;
        let name = CString::new(format!("frames_{}", node + 1)).expect("the name has no zero byte");
        // SAFETY: EAL runs, as `eal` shows; the name is a C string that DPDK copies.
        let raw =
            unsafe { dpdk_sys::rte_pktmbuf_pool_create(name.as_ptr(), frames, CACHE, 0, BUFFER_LEN, node) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, frames, eal: Arc::clone(eal) }),
            None => Err(DpdkError::NoMemory { frames, node, because: last_error() }),
        }
    }

    /// A frame of these bytes; `None` if no mbuf is free or they do not fit into one.
    pub fn frame(&self, bytes: &[u8]) -> Option<Mbuf> {
        // SAFETY: the mempool lives as long as `self`.
        unsafe { Mbuf::alloc(self.raw.as_ptr(), bytes) }
    }

    /// Frames that are in use somewhere.
    pub fn in_use(&self) -> u32 {
        // SAFETY: the mempool lives as long as `self`.
        self.frames - unsafe { dpdk_sys::rte_mempool_avail_count(self.raw.as_ptr()) }
    }

    /// Bytes that a frame may have in its first segment when it comes from a device.
    pub(super) fn data_room(&self) -> u32 {
        u32::from(BUFFER_LEN) - dpdk_sys::RTE_PKTMBUF_HEADROOM
    }

    pub(super) fn raw(&self) -> *mut rte_mempool {
        self.raw.as_ptr()
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        if self.in_use() > 0 {
            // Somebody still owns a frame: its memory, and DPDK under it, must stay.
            std::mem::forget(Arc::clone(&self.eal));
            return;
        }
        // SAFETY: the pool was created by `new` and is freed once; no mbuf of it is owned by anybody, and
        // ports that would take some hold an `Arc` of it.
        unsafe { dpdk_sys::rte_mempool_free(self.raw.as_ptr()) };
    }
}
