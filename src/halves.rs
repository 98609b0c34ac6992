//! Whether a number is among the halves of a line of words.
//!
//! With SSE2, which every x86-64 has, in a third of the steps of plain code; elsewhere with plain code, which is tested
//! beside it.
#![allow(unsafe_code, reason = "the compiler wants to be told that the processor has these instructions")]

/// Whether one of these words has this half. No branch.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn has_half(&[a, b, c, d, e, f, g, h]: &[u64; 8], half: u32) -> bool {
    use core::arch::x86_64::{_mm_cmpeq_epi32, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi32};
    // SAFETY: every x86-64 has SSE2.
    unsafe {
        let wanted = _mm_set1_epi32(half.cast_signed());
        let equal =
            |low: u64, high: u64| _mm_cmpeq_epi32(_mm_set_epi64x(high.cast_signed(), low.cast_signed()), wanted);
        let any = _mm_or_si128(_mm_or_si128(equal(a, b), equal(c, d)), _mm_or_si128(equal(e, f), equal(g, h)));
        _mm_movemask_epi8(any) != 0
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use has_half_portable as has_half;

/// The same in plain code.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
pub(crate) fn has_half_portable(words: &[u64; 8], half: u32) -> bool {
    let (low, high) = (u64::from(half), u64::from(half) << u32::BITS);
    words.iter().fold(false, |is, word| is | (word << u32::BITS == high) | (word >> u32::BITS == low))
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
}
