//! Packed words that name a node: what an inner node holds for each of its slots, and a version for its root.
//!
//! | bits | of an inner node | of a leaf |
//! |---|---|---|
//! | 63-48 | mask: 2^b - 1 for a node of 2^b slots, b at most [`BITS_MAX`] | 32 - number of records, 0 to 32 |
//! | 47-6 | address | address |
//! | 5-0 | shift: 32 - depth - b, 0 to 32 | 31 - depth, 0 to 31; 32 more if it is empty |
//!
//! The *depth* of a node is the number of top bits in which all places below it agree. A place's slot in a node is
//! `(place >> shift) & mask`: nodes of one level may have different widths and are still looked up without a branch. A
//! leaf of depth 16 or more is *narrow*: the low 16 bits of a place tell its records apart, of which it has up to 32. One
//! of less depth is *wide*, needs all 32 bits, and has up to 16 records. What a leaf's word holds are the shift that drops
//! the bits of records which are not there, and, in bit 4, whether it is wide.
//!
//! Patterns that never occur: an address of 0, a mask that is not 2^b - 1, more than [`leaf_max`] records. That addresses fit into 48 bits is checked where memory is taken, in `pool`.
#![forbid(unsafe_code)]

/// A node's address, kind of width, and for a leaf its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Word(u64);

impl Word {
    pub(super) fn of_leaf(address: usize, depth: u32, len: usize) -> Self {
        debug_assert!(depth < 32 && len <= leaf_max(depth) && is_address(address));
        let empty = if len == 0 { EMPTY } else { 0 };
        Self(address as u64 | u64::from(31 - depth) | empty | ((LEAF_MAX - len) as u64) << TOP)
    }

    pub(super) fn of_inner(address: usize, depth: u32, bits: u32) -> Self {
        debug_assert!(depth + bits <= 32 && bits <= BITS_MAX && is_address(address));
        Self(address as u64 | u64::from(32 - depth - bits) | ((1 << bits) - 1) << TOP)
    }

    #[inline(always)]
    pub(super) const fn address(self) -> usize {
        (self.0 & ADDRESS) as usize
    }

    /// Of an inner node: the slot of a place.
    #[inline(always)]
    pub(super) const fn slot(self, place: u32) -> usize {
        ((place as u64 >> (self.0 & LOW)) & (self.0 >> TOP)) as usize
    }

    /// Of a root, which has all places below it: the slot of a place.
    #[inline(always)]
    pub(super) const fn slot_in_root(self, place: u32) -> usize {
        (place as u64 >> (self.0 & LOW)) as usize
    }

    /// Of an inner node.
    pub(super) const fn bits(self) -> u32 {
        // As many as there are ones in the mask; plain x86-64 has no instruction to count them.
        u64::BITS - (self.0 >> TOP).leading_zeros()
    }

    /// Of a leaf: how many records it has.
    pub(super) const fn len(self) -> usize {
        LEAF_MAX - (self.0 >> TOP) as usize
    }

    /// Of a leaf: what is left of a bit for each of 32 tags without those behind the last record, shifted up.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the bits above are dropped")]
    pub(super) const fn only_records(self, tags: u32) -> u32 {
        ((tags as u64) << ((self.0 >> TOP) & LOW)) as u32
    }

    /// Of a leaf: 16 if it is wide, so that both halves of places have tags; else 0.
    #[inline(always)]
    pub(super) const fn wide(self) -> u32 {
        self.low() & 16
    }

    /// Of a leaf: whether it is narrow and has a record.
    #[inline(always)]
    pub(super) const fn is_plain(self) -> bool {
        self.0 & (EMPTY | 16) == 0
    }

    /// Of a node at this level: in how many top bits all places below it agree.
    pub(super) const fn depth(self, level: u32) -> u32 {
        if level == 0 { 31 - self.low() % 32 } else { 32 - self.low() - self.bits() }
    }

    const fn low(self) -> u32 {
        (self.0 & LOW) as u32
    }
}

/// Whether a node may live at this address.
pub(super) const fn is_address(address: usize) -> bool {
    address != 0 && address as u64 & !ADDRESS == 0
}

/// How many records fit into a leaf of this depth: as many as there are tags for on its line.
pub(super) const fn leaf_max(depth: u32) -> usize {
    if depth < 16 { WIDE_MAX } else { LEAF_MAX }
}

/// Tags on a line, and records in a narrow leaf.
pub(super) const LEAF_MAX: usize = 32;
/// Records in a wide leaf, each of which takes two tags.
pub(super) const WIDE_MAX: usize = LEAF_MAX / 2;
/// Slots of an inner node, as a power of two.
pub(super) const BITS_MAX: u32 = 10;

const TOP: u32 = 48;
const LOW: u64 = 0x3f;
const EMPTY: u64 = 32;
const ADDRESS: u64 = (1 << TOP) - 1 - LOW;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_word_gives_back_what_went_in() {
        let address = 0x7fff_dead_be40;
        for depth in 0..32 {
            for len in 0..=leaf_max(depth) {
                let word = Word::of_leaf(address, depth, len);
                assert_eq!((word.address(), word.depth(0), word.len()), (address, depth, len));
                for tag in 0..LEAF_MAX {
                    assert_eq!(word.only_records(1 << tag) != 0, tag < len);
                }
                assert_eq!(word.wide() == 16, depth < 16);
                assert_eq!(word.wide() == 0, depth >= 16);
                assert_eq!(word.is_plain(), depth >= 16 && len > 0);
            }
        }
        for depth in 0..=32 {
            for bits in 0..=BITS_MAX.min(32 - depth) {
                let word = Word::of_inner(address, depth, bits);
                assert_eq!((word.address(), word.depth(1), word.bits()), (address, depth, bits));
                let place = 0xa5c3_96f0u32;
                let below = u64::from(place) & ((1 << (32 - depth)) - 1);
                assert_eq!(word.slot(place) as u64, below >> (32 - depth - bits));
                if depth == 0 {
                    assert_eq!(word.slot_in_root(place), word.slot(place));
                }
            }
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert!(is_address(64) && is_address(0xffff_ffff_ffc0));
        for bad in [0, 1, 32, 96, 1 << 48, usize::MAX] {
            assert!(!is_address(bad), "{bad:x}");
        }
    }
}
