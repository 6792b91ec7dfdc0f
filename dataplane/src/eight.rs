//! Eight numbers of 64 bits at a time, by AVX-512: packets of a burst are read, looked up and hashed so where the
//! processor gains by it. Whatever is done so has a twin that every processor can run.
//!
//! What each instruction does is told by its name in Intel's Intrinsics Guide.
#![allow(unsafe_code)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{
    __m128i, __m512i, _mm_cvtsi128_si64, _mm_loadu_si128, _mm256_set_epi32, _mm512_castsi128_si512,
    _mm512_cvtepi64_epi8, _mm512_cvtepi64_epi16, _mm512_cvtepi64_epi32, _mm512_cvtepu32_epi64,
    _mm512_inserti32x4, _mm512_mask_blend_epi64, _mm512_mask_permutexvar_epi64, _mm512_or_si512,
    _mm512_permutex2var_epi64, _mm512_set_epi64, _mm512_set1_epi64, _mm512_shuffle_epi8,
    _mm512_test_epi64_mask, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};
use std::mem;

/// A bit for each of eight, the first one lowest.
pub type Bits = u8;

/// A proof that the processor has AVX-512 F, BW, DQ and VL, which functions for eight packets need.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// That of this processor, if it has them.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        has.then_some(Self(()))
    }

    /// The same, if packets are cheaper by them: an AMD processor (family 26, model 2) took a quarter less time for one, but
    /// an Intel one (family 6, model 167) lowers the clock of its whole core for 512 bits and lost what it gained. Others
    /// were not measured. SSE4a tells them, which only AMD's have.
    pub fn worthwhile() -> Option<Self> {
        Self::detect().filter(|_| is_x86_feature_detected!("sse4a"))
    }
}

/// Eight times the same number.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn all(number: u64) -> __m512i {
    _mm512_set1_epi64(number as i64)
}

/// Eight numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn of(numbers: [u64; 8]) -> __m512i {
    let [a, b, c, d, e, f, g, h] = numbers.map(|number| number as i64);
    _mm512_set_epi64(h, g, f, e, d, c, b, a)
}

/// Eight numbers of 32 bits, which takes less to put together.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn of_32(numbers: [u32; 8]) -> __m512i {
    let [a, b, c, d, e, f, g, h] = numbers.map(|number| number as i32);
    _mm512_cvtepu32_epi64(_mm256_set_epi32(h, g, f, e, d, c, b, a))
}

/// The same, one by one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn words(numbers: __m512i) -> [u64; 8] {
    // SAFETY: both are 64 bytes, of which any are numbers.
    unsafe { mem::transmute(numbers) }
}

/// The lowest 32 bits of eight numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn lowest_32(numbers: __m512i) -> [u32; 8] {
    let lowest = _mm512_cvtepi64_epi32(numbers);
    // SAFETY: both are 32 bytes, of which any are numbers.
    unsafe { mem::transmute(lowest) }
}

/// The lowest 16 bits of eight numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn lowest_16(numbers: __m512i) -> [u16; 8] {
    let lowest = _mm512_cvtepi64_epi16(numbers);
    // SAFETY: both are 16 bytes, of which any are numbers.
    unsafe { mem::transmute(lowest) }
}

/// The lowest bytes of eight numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn lowest_8(numbers: __m512i) -> [u8; 8] {
    _mm_cvtsi128_si64(_mm512_cvtepi64_epi8(numbers)).to_le_bytes()
}

/// For [`ordered`]: no byte, so 0.
pub const NONE: u8 = 0xff;

/// Bytes of each number, counted from the lowest one, put together to another.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn ordered(numbers: __m512i, bytes: [u8; 8]) -> __m512i {
    // The instruction counts through 16 bytes, of two numbers.
    let second = bytes.map(|byte| if byte == NONE { NONE } else { byte + 8 });
    let (first, second) = (u64::from_le_bytes(bytes), u64::from_le_bytes(second));
    _mm512_shuffle_epi8(numbers, of([first, second, first, second, first, second, first, second]))
}

/// The two numbers that stand in each of eight rows from byte `AT` on, in the order of little-endian machines: all first
/// ones, and all second ones.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn columns<const AT: usize, const N: usize>(rows: &[&[u8; N]; 8]) -> (__m512i, __m512i) {
    let even = four::<AT, N>([rows[0], rows[2], rows[4], rows[6]]);
    let odd = four::<AT, N>([rows[1], rows[3], rows[5], rows[7]]);
    (_mm512_unpacklo_epi64(even, odd), _mm512_unpackhi_epi64(even, odd))
}

/// 16 bytes of each of four rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn four<const AT: usize, const N: usize>(rows: [&[u8; N]; 4]) -> __m512i {
    const { assert!(AT + size_of::<__m128i>() <= N) }
    let [a, b, c, d] = rows.map(|row| {
        let part: *const [u8; N] = row;
        let part = part.cast::<__m128i>().wrapping_byte_add(AT);
        // SAFETY: 16 bytes from `AT` on are within a row, and the instruction takes them from any address.
        unsafe { _mm_loadu_si128(part) }
    });
    let two = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
    _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(two, c), d)
}

/// Eight rows of three words each: all first ones, all second ones and all third ones.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn rows_of_three([first, second, third]: [__m512i; 3]) -> [[u64; 3]; 8] {
    let eight = |from: u64| {
        let (mut is_third, mut two, mut one) = (0, [0; 8], [0; 8]);
        for place in 0..8 {
            let (row, column) = ((from + place) / 3, (from + place) % 3);
            is_third |= u8::from(column == 2) << place;
            // The instruction counts through both.
            two[place as usize] = row + if column == 1 { 8 } else { 0 };
            one[place as usize] = row;
        }
        let others = _mm512_permutex2var_epi64(first, of(two), second);
        _mm512_mask_permutexvar_epi64(others, is_third, of(one), third)
    };
    let rows = [eight(0), eight(8), eight(16)];
    // SAFETY: both are 192 bytes, of which any are numbers.
    unsafe { mem::transmute(rows) }
}

/// Eight addresses of IPv6 with ports, numbers in host order.
#[derive(Clone, Copy)]
pub struct WideEnds {
    /// The upper halves of addresses and the lower ones.
    pub address: [__m512i; 2],
    /// Ports.
    pub port: __m512i,
}

impl WideEnds {
    /// Those of `some` from here, all others from there.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub fn or(&self, some: Bits, there: &Self) -> Self {
        let either = |here, there| _mm512_mask_blend_epi64(some, there, here);
        let ([upper, lower], [upper_there, lower_there]) = (self.address, there.address);
        let address = [either(upper, upper_there), either(lower, lower_there)];
        Self { address, port: either(self.port, there.port) }
    }
    /// Which addresses may be clients'.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub fn are_clients(&self) -> Bits {
        let [upper, lower] = self.address;
        _mm512_test_epi64_mask(_mm512_or_si512(upper, lower), all(u64::MAX))
    }
}
