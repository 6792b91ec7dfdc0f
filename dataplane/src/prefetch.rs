//! Hints to the cache and to the kernel, which change no state that a program can see.
#![allow(unsafe_code)]

use std::iter;

/// Asks for the cache line of `*place` early; wrong addresses do no harm.
#[inline(always)]
pub fn prefetch<T>(place: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: PREFETCHT0 never faults and changes nothing but the cache, whatever the address
        // (Intel SDM, volume 2, PREFETCHh).
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}

/// Bytes of a huge page.
const HUGE_PAGE: usize = 1 << 21;

/// A vector of `len` equal values, on huge pages as [`gathered`] ones are.
pub fn table<T: Clone>(value: T, len: usize) -> Vec<T> {
    gathered(iter::repeat_n(value, len))
}

/// A vector of these values, on transparent huge pages where the kernel gives any: tables that are read at random
/// places miss the cache for the address of a page otherwise, before they miss it for the value.
pub fn gathered<T>(values: impl ExactSizeIterator<Item = T>) -> Vec<T> {
    let mut table = Vec::with_capacity(values.len());
    advise_huge_pages(table.spare_capacity_mut());
    table.extend(values);
    table
}

/// Asks for huge pages before memory is touched for the first time: a page keeps the size that it began with.
fn advise_huge_pages<T>(memory: &mut [T]) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        let range = memory.as_mut_ptr_range();
        let start = range.start.addr().next_multiple_of(HUGE_PAGE);
        let len = range.end.addr().saturating_sub(start) / HUGE_PAGE * HUGE_PAGE;
        if len > 0 {
            // SAFETY: whole pages within memory that is borrowed here; the advice changes neither their
            // contents nor who may use them (madvise(2), MADV_HUGEPAGE). That it may fail does no harm.
            unsafe { libc::madvise(range.start.with_addr(start).cast(), len, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = memory;
}
