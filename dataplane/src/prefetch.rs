//! Hints to the cache and to the kernel, which change no state that a program can see.
#![allow(unsafe_code)]

use std::iter;

use aligned_vec::{AVec, RuntimeAlign};

/// Asks for the cache line of `*place` early; wrong addresses do no harm.
#[inline(always)]
pub fn prefetch<T>(place: *const T) {
    hint::<SOON, T>(place);
}

/// The same of what will be needed once: Intel's server processors bring it into the first-level cache alone (Intel 64 and
/// IA-32 Architectures Optimization Reference Manual, "Prefetch"), others may do as for [`prefetch`].
#[inline(always)]
pub fn prefetch_once<T>(place: *const T) {
    hint::<ONCE, T>(place);
}

/// The numbers of these hints, as `_MM_HINT_T0` and `_MM_HINT_NTA` of `core::arch::x86_64`.
const SOON: i32 = 3;
const ONCE: i32 = 0;

#[inline(always)]
fn hint<const HINT: i32, T>(place: *const T) {
    #[cfg(not(miri))]
    // SAFETY: PREFETCHh never faults and changes nothing but the cache, whatever the address (Intel SDM, volume 2).
    unsafe {
        core::arch::x86_64::_mm_prefetch::<HINT>(place.cast());
    }
    #[cfg(miri)]
    let _ = place;
}

/// Bytes of a huge page.
const HUGE_PAGE: usize = 1 << 21;
const HALF_PAGE: usize = HUGE_PAGE / 2;
const FEW_PAGES: usize = HUGE_PAGE * 8;

/// A table that is read at random places. One of more than half a huge page begins with such a page, where the kernel
/// gives any: tables that are read so miss the cache for the address of a page otherwise, before they miss it for the
/// value.
pub type Table<T> = AVec<T, RuntimeAlign>;

/// A table of `len` equal values.
pub fn table<T: Clone>(value: T, len: usize) -> Table<T> {
    gathered(iter::repeat_n(value, len))
}

/// A table of these values.
pub fn gathered<T>(values: impl ExactSizeIterator<Item = T>) -> Table<T> {
    let bytes = values.len() * size_of::<T>();
    let align = if bytes > HALF_PAGE { HUGE_PAGE } else { align_of::<T>() };
    // The rest of the last page is not worth as much as that page, unless these are few.
    let room = if bytes > HALF_PAGE && bytes < FEW_PAGES { bytes.next_multiple_of(HUGE_PAGE) } else { bytes };
    let mut table = Table::with_capacity(align, room.div_ceil(size_of::<T>().max(1)).max(values.len()));
    advise_huge_pages(&mut table);
    values.for_each(|value| table.push(value));
    table
}

/// Asks for huge pages before memory is touched for the first time: a page keeps the size that it began with.
fn advise_huge_pages<T>(table: &mut Table<T>) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if table.alignment() == HUGE_PAGE {
        let bytes = table.capacity() * size_of::<T>() / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: whole pages of the table's own memory, which begins with one; the advice changes neither their contents
        // nor who may use them (madvise(2), MADV_HUGEPAGE). That it may fail does no harm.
        unsafe { libc::madvise(table.as_mut_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = table;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_table_has_whole_huge_pages_and_a_small_one_no_more_than_it_needs() {
        let large = HALF_PAGE / size_of::<usize>() + 1;
        let table = gathered(0..large);
        assert_eq!(
            (table.as_ptr().addr() % HUGE_PAGE, table.capacity() * size_of::<usize>()),
            (0, HUGE_PAGE)
        );
        assert!(table.iter().copied().eq(0..large));
        assert_eq!(gathered(0..large - 1).capacity(), large - 1);
        let many = FEW_PAGES / size_of::<usize>() + 1;
        let table = gathered(0..many);
        assert_eq!((table.as_ptr().addr() % HUGE_PAGE, table.capacity()), (0, many));
        assert_eq!(*gathered([(); 3].into_iter()), [(); 3]);
    }
}
