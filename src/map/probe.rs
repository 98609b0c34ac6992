//! Membership: from a root to a leaf, and from its tags to a record, without a branch on data.
//!
//! One load for each level, one or two lines of 32 tags compared at once, and a mask for the tags behind the last record.
//! With SSE2, which every x86-64 has; elsewhere with plain code that does the same, and is tested beside it.
#![allow(unsafe_code, reason = "unchecked loads through packed words are what makes a look-up fast")]

use super::node::{STAMP_BYTES, slots_of};
use super::word::{LEAF_MAX, Word};

/// The leaf that a place falls into.
///
/// # Safety
/// `root` names a live inner node with this many levels of inner nodes, and stays live during the call (I-M1).
#[inline(always)]
pub(super) unsafe fn leaf_of(root: Word, levels: u32, place: u32) -> Word {
    // SAFETY: as long as a level is left, the word names a live inner node, by I-M1.
    unsafe {
        match levels {
            1 => child_of(root, place),
            2 => child_of(child_of(root, place), place),
            _ => (0..levels).fold(root, |word, _| child_of(word, place)),
        }
    }
}

/// # Safety
/// `word` names a live inner node.
#[inline(always)]
unsafe fn child_of(word: Word, place: u32) -> Word {
    // SAFETY: the slot is masked to the node's width.
    unsafe { *slots_of(word).add(word.slot(place)) }
}

/// Of a leaf: not 0 if it has a record at this place; then the trailing zeros of the second are the record's number.
///
/// # Safety
/// `leaf` names a live leaf that stays live during the call, into which the place falls.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "tags are halves of a place")]
pub(super) unsafe fn record_at(leaf: Word, place: u32) -> (u32, u32) {
    let wide = leaf.wide();
    let low = core::ptr::with_exposed_provenance::<Line>(leaf.address());
    // SAFETY: a wide leaf has two lines of tags (and `wide` is 16), a narrow one has one (and `wide` is 0): then both are
    // the same line and the same tag. Lines are aligned, written as a whole when the leaf is made, and never changed.
    let (low, high) = unsafe { (&*low, &*low.byte_add(4 * wide as usize)) };
    let found = equal(low, place as u16, high, (place >> wide) as u16);
    (leaf.only_records(found), found)
}

/// Has the tags of a leaf fetched, to be looked at soon.
#[inline(always)]
pub(super) fn fetch(leaf: Word) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let low = core::ptr::with_exposed_provenance::<i8>(leaf.address());
        // SAFETY: every x86-64 has this hint, which does nothing that can be seen, whatever the address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(low);
            _mm_prefetch::<_MM_HINT_T0>(low.wrapping_byte_add(4 * leaf.wide() as usize));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = leaf;
}

/// A line of tags.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u16; LEAF_MAX]);

const _: () = assert!(size_of::<Line>() == LINE_BYTES && STAMP_BYTES == 16);

/// A bit for each position at which these lines have these tags.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn equal(low: &Line, low_tag: u16, high: &Line, high_tag: u16) -> u32 {
    use core::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi16, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
    };
    // SAFETY: every x86-64 has SSE2. A line is four times 16 bytes and aligned to 64; `index` is 0 to 3.
    unsafe {
        let (lows, highs) = (core::ptr::from_ref(low).cast::<__m128i>(), core::ptr::from_ref(high).cast::<__m128i>());
        let (low_tag, high_tag) = (_mm_set1_epi16(low_tag.cast_signed()), _mm_set1_epi16(high_tag.cast_signed()));
        let quarter = |index| {
            let low = _mm_cmpeq_epi16(_mm_load_si128(lows.add(index)), low_tag);
            _mm_and_si128(low, _mm_cmpeq_epi16(_mm_load_si128(highs.add(index)), high_tag))
        };
        let half = |first| _mm_movemask_epi8(_mm_packs_epi16(quarter(first), quarter(first + 1))).cast_unsigned();
        half(0) | half(2) << 16
    }
}

#[cfg(not(target_arch = "x86_64"))]
use equal_portable as equal;

/// The same in plain code.
#[cfg(any(all(test, not(trustkeep_loom)), not(target_arch = "x86_64")))]
#[inline(always)]
fn equal_portable(low: &Line, low_tag: u16, high: &Line, high_tag: u16) -> u32 {
    let pairs = low.0.iter().zip(&high.0).enumerate();
    pairs.fold(0, |found, (index, (low, high))| found | u32::from(*low == low_tag && *high == high_tag) << index)
}

/// A cache line.
pub(super) const LINE_BYTES: usize = 64;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_comparisons_find_exactly_the_equal_pairs(
            low: [u16; LEAF_MAX], high in proptest::array::uniform32(0..4u16), near in 0..LEAF_MAX, other: u16,
        ) {
            let (lows, highs) = (Line(low), Line(high));
            for tag in [low[near], low[near] ^ 1, low[near] ^ 0x8000, other] {
                for half in 0..4 {
                    let is_equal = |index: &usize| low[*index] == tag && high[*index] == half;
                    let expected = (0..LEAF_MAX).filter(is_equal).fold(0u32, |bits, i| bits | 1 << i);
                    prop_assert_eq!(equal(&lows, tag, &highs, half), expected);
                    prop_assert_eq!(equal_portable(&lows, tag, &highs, half), expected);
                    // Of a narrow leaf both are the same.
                    let expected = (0..LEAF_MAX).filter(|i| low[*i] == tag).fold(0u32, |bits, i| bits | 1 << i);
                    prop_assert_eq!(equal(&lows, tag, &lows, tag), expected);
                    prop_assert_eq!(equal_portable(&lows, tag, &lows, tag), expected);
                }
            }
        }
    }
}
