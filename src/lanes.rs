//! Whether a number is among the halves, or the quarters, of a line of words.
//!
//! With SSE2, which every x86-64 has, in a third of the steps of plain code; elsewhere with plain code, which is tested
//! beside it.
#![allow(unsafe_code, reason = "the compiler wants to be told that the processor has these instructions")]

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{
    __m128i, _mm_cmpeq_epi16, _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi16,
    _mm_set1_epi32,
};

/// Whether one of these words has this half. No branch.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn has_half(words: &[u64; 8], half: u32) -> bool {
    // SAFETY: every x86-64 has SSE2.
    unsafe {
        let wanted = _mm_set1_epi32(half.cast_signed());
        any(words, |pair| _mm_cmpeq_epi32(pair, wanted))
    }
}

/// Whether one of these words has this quarter. No branch.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn has_quarter(words: &[u64; 8], quarter: u16) -> bool {
    // SAFETY: every x86-64 has SSE2.
    unsafe {
        let wanted = _mm_set1_epi16(quarter.cast_signed());
        any(words, |pair| _mm_cmpeq_epi16(pair, wanted))
    }
}

/// Whether a comparison of any two of these words finds something.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn any(&[a, b, c, d, e, f, g, h]: &[u64; 8], compare: impl Fn(__m128i) -> __m128i) -> bool {
    // SAFETY: every x86-64 has SSE2.
    unsafe {
        let compare = |low: u64, high: u64| compare(_mm_set_epi64x(high.cast_signed(), low.cast_signed()));
        let found =
            _mm_or_si128(_mm_or_si128(compare(a, b), compare(c, d)), _mm_or_si128(compare(e, f), compare(g, h)));
        _mm_movemask_epi8(found) != 0
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use {has_half_portable as has_half, has_quarter_portable as has_quarter};

/// The same in plain code.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
pub(crate) fn has_half_portable(words: &[u64; 8], half: u32) -> bool {
    has_lane(words, u32::BITS, half.into())
}

/// The same in plain code.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
pub(crate) fn has_quarter_portable(words: &[u64; 8], quarter: u16) -> bool {
    has_lane(words, u16::BITS, quarter.into())
}

/// Whether one of the lanes of so many bits has this value. Where it has, the difference is 0, and of the differences that
/// are 0 the lowest at least borrows from a bit that it does not have.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
fn has_lane(words: &[u64; 8], bits: u32, value: u64) -> bool {
    let ones = u64::MAX / ((1 << bits) - 1);
    let tops = ones << (bits - 1);
    words.iter().fold(0, |found, word| {
        let difference = word ^ value.wrapping_mul(ones);
        found | (difference.wrapping_sub(ones) & !difference & tops)
    }) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_is_found_wherever_it_stands_and_no_other() {
        let words: [u64; 8] = core::array::from_fn(|at| (2 * at as u64 + 2) << u32::BITS | (2 * at as u64 + 1));
        for half in 1..=16 {
            assert!(has_half(&words, half) && has_half_portable(&words, half), "{half}");
        }
        // In no half, across two, and with the bytes of one in another order.
        for half in [0, 17, 1 << 8, 1 << 16, 3 << 16 | 2, 0x0100_0000, u32::MAX] {
            assert!(!has_half(&words, half) && !has_half_portable(&words, half), "{half}");
        }
        let ones = [u64::MAX; 8];
        assert!(has_half(&ones, u32::MAX) && has_half_portable(&ones, u32::MAX));
        assert!(!has_half(&ones, 0xffff) && !has_half_portable(&ones, 0xffff));
    }

    #[test]
    fn a_quarter_is_found_wherever_it_stands_and_no_other() {
        let quarter = |at: u64| (0x0100 + at) << (at % 4 * 16);
        let words: [u64; 8] = core::array::from_fn(|word| (0..4).map(|lane| quarter(4 * word as u64 + lane)).sum());
        for wanted in 0x0100..0x0120 {
            assert!(has_quarter(&words, wanted) && has_quarter_portable(&words, wanted), "{wanted:x}");
        }
        for other in [0, 1, 0xff, 0x0120, 0x0001, 0x0200, 0x1f01, u16::MAX] {
            assert!(!has_quarter(&words, other) && !has_quarter_portable(&words, other), "{other:x}");
        }
        // Each kind of neighbour of a lane that borrows or carries.
        for word in [0x0001_0000_ffff_0002_u64, 0x8000_7fff_0000_0001] {
            for at in 0..8 {
                let words = core::array::from_fn(|other| if other == at { word } else { 0x5555_5555_5555_5555 });
                for wanted in [0, 1, 2, 3, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff] {
                    let is_there = (0..4).any(|lane| (word >> (16 * lane)) & 0xffff == u64::from(wanted));
                    assert_eq!(has_quarter(&words, wanted), is_there, "{wanted:x} in {word:x}");
                    assert_eq!(has_quarter_portable(&words, wanted), is_there, "{wanted:x} in {word:x}");
                }
            }
        }
    }
}
