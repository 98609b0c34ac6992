//! Membership: from a root to a leaf, and from its tags to a record, without a branch on data.
//!
//! One load for each level, a line of 32 tags compared at once, and a mask for the tags behind the last record.
//! With SSE2, which every x86-64 has; elsewhere with plain code that does the same, and is tested beside it.
#![allow(unsafe_code, reason = "unchecked loads through packed words are what makes a look-up fast")]

use core::hint::select_unpredictable;

use super::node::{STAMP_BYTES, slots_of};
use super::word::{LEAF_MAX, WIDE_MAX, Word};

/// The leaf that a place falls into.
///
/// # Safety
/// `root` names a live root with this many levels of inner nodes, and stays live during the call (I-M1).
#[inline(always)]
pub(super) unsafe fn leaf_of(root: Word, levels: u32, place: u32) -> Word {
    // SAFETY: the root has a slot for every place. As long as a level is left, the word names a live inner node, by I-M1.
    unsafe {
        let first = *slots_of(root).add(root.slot_in_root(place));
        match levels {
            1 => first,
            2 => child_of(first, place),
            _ => (1..levels).fold(first, |word, _| child_of(word, place)),
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
pub(super) unsafe fn record_at(leaf: Word, place: u32) -> (u32, u32) {
    // SAFETY: a leaf begins with a line of tags, aligned, written as a whole when the leaf is made, and never changed.
    record_in(unsafe { &*core::ptr::with_exposed_provenance::<Line>(leaf.address()) }, leaf, place)
}

/// The same of a leaf's line of tags.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "tags are halves of a place")]
pub(super) fn record_in(line: &Line, leaf: Word, place: u32) -> (u32, u32) {
    let wide = leaf.wide();
    // In a narrow leaf the second half of the line has the low tags of more records, in a wide one the high tags of the
    // same.
    let (first, second) = equal(line, place as u16, (place >> wide) as u16);
    let found = select_unpredictable(wide == 0, first | second << WIDE_MAX, first & second);
    (leaf.only_records(found), found)
}

/// Whether a plain leaf has a record at this place: [`record_at`] in fewer steps.
///
/// # Safety
/// As there, and `leaf` is plain.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a tag is the lower half of a place")]
pub(super) unsafe fn is_in_plain(leaf: Word, place: u32) -> bool {
    // SAFETY: as in `record_at`. What stands behind the last tag is the first once more.
    any_equal(unsafe { &*core::ptr::with_exposed_provenance::<Line>(leaf.address()) }, place as u16)
}

/// The number of the record of a plain leaf at this place; 32 if there is none: [`record_at`] in fewer steps.
///
/// # Safety
/// As there, and `leaf` is plain.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a tag is the lower half of a place")]
pub(super) unsafe fn number_in_plain(leaf: Word, place: u32) -> u32 {
    // SAFETY: as in `is_in_plain`.
    let line = unsafe { &*core::ptr::with_exposed_provenance::<Line>(leaf.address()) };
    let (first, second) = equal(line, place as u16, place as u16);
    (first | second << WIDE_MAX).trailing_zeros()
}

/// Has the tags of a leaf fetched, to be looked at soon.
#[inline(always)]
pub(super) fn fetch(leaf: Word) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has this hint, which does nothing that can be seen, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(core::ptr::with_exposed_provenance::<i8>(leaf.address())) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = leaf;
}

/// A line of tags.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u16; LEAF_MAX]);

const _: () = assert!(size_of::<Line>() == LINE_BYTES && STAMP_BYTES == 16);

/// A bit for each tag of the first half of the line that equals the first of these tags; the same of the second.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn equal(line: &Line, first: u16, second: u16) -> (u32, u32) {
    use core::arch::x86_64::{
        __m128i, _mm_cmpeq_epi16, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
    };
    // SAFETY: every x86-64 has SSE2. A line is four times 16 bytes and aligned to 64; `index` is 0 to 3.
    unsafe {
        let tags = core::ptr::from_ref(line).cast::<__m128i>();
        let (first, second) = (_mm_set1_epi16(first.cast_signed()), _mm_set1_epi16(second.cast_signed()));
        let quarter = |index, tag| _mm_cmpeq_epi16(_mm_load_si128(tags.add(index)), tag);
        let half = |index, tag| _mm_movemask_epi8(_mm_packs_epi16(quarter(index, tag), quarter(index + 1, tag)));
        (half(0, first).cast_unsigned(), half(2, second).cast_unsigned())
    }
}

/// Whether any tag of the line equals this one.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn any_equal(line: &Line, tag: u16) -> bool {
    use core::arch::x86_64::{
        __m128i, _mm_cmpeq_epi16, _mm_load_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi16,
    };
    // SAFETY: as in `equal`.
    unsafe {
        let tags = core::ptr::from_ref(line).cast::<__m128i>();
        let tag = _mm_set1_epi16(tag.cast_signed());
        let quarter = |index| _mm_cmpeq_epi16(_mm_load_si128(tags.add(index)), tag);
        let any = _mm_or_si128(_mm_or_si128(quarter(0), quarter(1)), _mm_or_si128(quarter(2), quarter(3)));
        _mm_movemask_epi8(any) != 0
    }
}

#[cfg(not(target_arch = "x86_64"))]
use {any_equal_portable as any_equal, equal_portable as equal};

/// The same in plain code.
#[cfg(any(all(test, not(trustkeep_loom)), not(target_arch = "x86_64")))]
#[inline(always)]
fn equal_portable(line: &Line, first: u16, second: u16) -> (u32, u32) {
    let bits = |half: &[u16], tag| {
        half.iter().enumerate().fold(0, |bits, (index, other)| bits | u32::from(*other == tag) << index)
    };
    let (one, other) = line.0.split_at(WIDE_MAX);
    (bits(one, first), bits(other, second))
}

/// The same in plain code.
#[cfg(any(all(test, not(trustkeep_loom)), not(target_arch = "x86_64")))]
#[inline(always)]
fn any_equal_portable(line: &Line, tag: u16) -> bool {
    line.0.iter().fold(false, |any, other| any | (*other == tag))
}

/// A cache line.
pub(super) const LINE_BYTES: usize = 64;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_comparisons_find_exactly_the_equal_tags(
            tags: [u16; LEAF_MAX], few in proptest::array::uniform32(0..4u16), near in 0..LEAF_MAX, other: u16,
        ) {
            for line in [Line(tags), Line(few)] {
                let tag = line.0[near];
                for (first, second) in [(tag, tag), (tag ^ 1, tag), (tag, tag ^ 0x8000), (other, tag), (0, 3)] {
                    let bits = |at: usize, tag| (0..WIDE_MAX).fold(0, |bits, i| bits | u32::from(line.0[at + i] == tag) << i);
                    let expected = (bits(0, first), bits(WIDE_MAX, second));
                    prop_assert_eq!(equal(&line, first, second), expected);
                    prop_assert_eq!(equal_portable(&line, first, second), expected);
                    prop_assert_eq!(any_equal(&line, first), line.0.contains(&first));
                    prop_assert_eq!(any_equal_portable(&line, first), line.0.contains(&first));
                }
            }
        }
    }
}
