//! Nodes as they lie in memory, and safe views of them.
//!
//! ```text
//! leaf:   line of tags: 32 low, or 16 low and 16 high if wide | stamp | values in order of place
//!         (behind the last tag stands the first again, up to the end of the line, in a narrow leaf that is not empty)
//! inner:  stamp | 2^b words; a child that covers several slots stands in each of them
//! ```
//!
//! INVARIANT I-M1: every word in a node that a live version reaches names a live node: an inner one if the node's level is
//! above 1, else a leaf. A node is written once, before anybody else can see it, and never changed while it is live.
#![allow(unsafe_code, reason = "nodes are found through packed words; the views made here are safe to use")]

use core::ops::Range;

use super::pool::{Block, Pool};
use super::probe::{self, LINE_BYTES, Line};
use super::value::Value;
use super::word::{WIDE_MAX, Word, leaf_max};

/// What a node knows of itself besides its word.
#[derive(Debug)]
#[repr(C)]
struct Stamp {
    /// The first version that reaches it.
    birth: u64,
    /// Where in the pool it is.
    slab: u32,
    spare: u32,
}

/// All that is needed to give a node's memory back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retired {
    pub(super) birth: u64,
    pub(super) block: Block,
}

/// A live leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf<'a> {
    pub(super) word: Word,
    pub(super) start: u32,
    tags: &'a Line,
    stamp: &'a Stamp,
    values: &'a [Value],
}

impl<'a> Leaf<'a> {
    /// # Safety
    /// The word names a leaf that stays live during `'a`.
    #[inline]
    pub(super) unsafe fn at(word: Word, start: u32) -> Self {
        let tags = core::ptr::with_exposed_provenance::<Line>(word.address());
        // SAFETY: the leaf has this layout, was written as a whole when it was made, and is not changed while it lives.
        unsafe {
            let stamp = tags.add(1).cast::<Stamp>();
            let values = core::slice::from_raw_parts(stamp.add(1).cast::<Value>(), word.len());
            Self { word, start, tags: &*tags, stamp: &*stamp, values }
        }
    }

    pub(super) fn depth(&self) -> u32 {
        self.word.depth(0)
    }

    /// Has all of it fetched, for it will soon be copied.
    pub(super) fn fetch(&self) {
        fetch(self.word, leaf_lines(self.word.len()));
    }

    pub(super) fn values(&self) -> &'a [Value] {
        self.values
    }

    /// The places of its records, ascending.
    #[inline]
    pub(super) fn places(&self) -> impl Iterator<Item = u32> + use<'a> {
        let (common, wide) = (self.start & 0xffff_0000, self.word.wide());
        // In a narrow leaf both are the same.
        let highs = self.tags.0.get(wide as usize..).unwrap_or_default();
        self.tags.0.iter().zip(highs).take(self.values.len()).map(move |(low, high)| {
            let high = if wide == 0 { common } else { u32::from(*high) << 16 };
            high | u32::from(*low)
        })
    }

    /// Where a place, which falls into this leaf, is or would be.
    pub(super) fn position(&self, place: u32) -> Result<usize, usize> {
        let (is_there, found) = probe::record_in(self.tags, self.word, place);
        if is_there != 0 {
            return Ok(found.trailing_zeros() as usize);
        }
        Err(self.places().take_while(|other| *other < place).count())
    }

    /// Which of the pool's slabs it lies in.
    pub(super) fn slab(&self) -> u32 {
        self.stamp.slab
    }

    pub(super) fn retired(&self) -> Retired {
        let lines = leaf_lines(self.values.len());
        Retired { birth: self.stamp.birth, block: Block::new(self.word.address(), self.stamp.slab, lines) }
    }
}

/// A live inner node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner<'a> {
    pub(super) word: Word,
    /// How many levels are below it; 1 if its children are leaves.
    pub(super) level: u32,
    pub(super) start: u32,
    stamp: &'a Stamp,
    pub(super) words: &'a [Word],
}

/// A child, and the slots and places that it covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    pub(super) word: Word,
    pub(super) start: u32,
    pub(super) depth: u32,
    pub(super) slots: (usize, usize),
}

impl Child {
    /// The first place behind it.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.start) + (1 << (32 - self.depth))
    }
}

/// What a child is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node<'a> {
    Leaf(Leaf<'a>),
    Inner(Inner<'a>),
}

impl<'a> Inner<'a> {
    /// # Safety
    /// The word names an inner node of this level that stays live during `'a`, and so does all below it.
    #[inline]
    pub(super) unsafe fn at(word: Word, level: u32, start: u32) -> Self {
        let stamp = core::ptr::with_exposed_provenance::<Stamp>(word.address());
        // SAFETY: the node has this layout, was written as a whole when it was made, and is not changed while it lives.
        unsafe {
            let words = core::slice::from_raw_parts(slots_of(word), 1 << word.bits());
            Self { word, level, start, stamp: &*stamp, words }
        }
    }

    pub(super) fn depth(&self) -> u32 {
        self.word.depth(1)
    }

    /// The child at a slot; none behind the last.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a place has 32 bits, and no slot lies behind the last place")]
    pub(super) fn child(&self, slot: usize) -> Option<Child> {
        let word = *self.words.get(slot)?;
        let depth = word.depth(self.level - 1);
        let run = self.run_of(depth);
        let first = slot & !(run - 1);
        let start = self.start + ((first as u64) << (32 - self.depth() - self.word.bits())) as u32;
        Some(Child { word, start, depth, slots: (first, first + run) })
    }

    /// Has the leaf that a place falls into fetched, if this stands right above it.
    pub(super) fn fetch(&self, place: u32) {
        if self.level == 1
            && let Some(leaf) = self.words.get(self.word.slot(place))
        {
            fetch(*leaf, leaf_lines(leaf.len()));
        }
    }

    /// How many slots a child of this depth covers.
    pub(super) fn run_of(&self, depth: u32) -> usize {
        1 << (self.word.bits() + self.depth()).saturating_sub(depth)
    }

    /// The child at this slot, to be looked into.
    #[inline]
    pub(super) fn open(&self, child: &Child) -> Node<'a> {
        let word = self.words.get(child.slots.0).copied().unwrap_or(child.word);
        debug_assert_eq!(word, child.word, "a child of another node");
        // SAFETY: by I-M1 the word, which is one of this node's, names a live node of the next level; what a node of a
        // version reaches stays live as long as the version, so at least during 'a.
        unsafe {
            match self.level {
                1 => Node::Leaf(Leaf::at(word, child.start)),
                level => Node::Inner(Inner::at(word, level - 1, child.start)),
            }
        }
    }

    /// Which of the pool's slabs it lies in.
    pub(super) fn slab(&self) -> u32 {
        self.stamp.slab
    }

    pub(super) fn retired(&self) -> Retired {
        let lines = inner_lines(self.word.bits());
        Retired { birth: self.stamp.birth, block: Block::new(self.word.address(), self.stamp.slab, lines) }
    }
}

/// A leaf being written.
#[derive(Debug)]
pub(super) struct NewLeaf<'a> {
    low: &'a mut [u16],
    /// Of a wide leaf.
    high: Option<&'a mut [u16]>,
    values: &'a mut [Value],
    at: usize,
}

impl NewLeaf<'_> {
    /// The next record; its place is above those before. Records beyond the leaf's length are left out.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "tags are halves of a place")]
    pub(super) fn push(&mut self, place: u32, value: &Value) {
        self.begin(place as u16, (place >> 16) as u16);
        if let (Some(to), Some(low)) = (self.values.get_mut(self.at), self.low.get_mut(self.at)) {
            (*to, *low) = (*value, place as u16);
            if let Some(high) = self.high.as_mut().and_then(|tags| tags.get_mut(self.at)) {
                *high = (place >> 16) as u16;
            }
            self.at += 1;
        }
    }

    /// Before the first record: has its tags stand behind the last one's too, so that none stands there which is not a
    /// record's.
    #[inline(always)]
    fn begin(&mut self, low: u16, high: u16) {
        if self.at == 0 {
            self.low.fill(low);
            if let Some(tags) = &mut self.high {
                tags.fill(high);
            }
        }
    }

    /// All records of a leaf of the same range and length.
    pub(super) fn copy(&mut self, leaf: &Leaf<'_>) {
        let (low, high) = leaf.tags.0.split_at(self.low.len());
        self.low.copy_from_slice(low);
        if let Some(tags) = &mut self.high {
            tags.copy_from_slice(high);
        }
        self.values.copy_from_slice(leaf.values);
        self.at = self.values.len();
    }

    /// Another value for a record that it has already.
    pub(super) fn replace(&mut self, number: usize, value: &Value) {
        if let Some(to) = self.values.get_mut(number) {
            *to = *value;
        }
    }

    /// Some records of a leaf whose range contains this one's, or the other way round.
    pub(super) fn extend(&mut self, leaf: &Leaf<'_>, range: Range<usize>) {
        let to = self.at..self.at + range.len();
        if let Some(low) = leaf.tags.0.get(range.start)
            && !range.is_empty()
        {
            self.begin(*low, 0);
        }
        if let (Some(to), Some(from)) = (self.values.get_mut(to.clone()), leaf.values.get(range.clone())) {
            to.copy_from_slice(from);
        }
        if let (Some(to), Some(from)) = (self.low.get_mut(to.clone()), leaf.tags.0.get(range.clone())) {
            to.copy_from_slice(from);
        }
        if let Some(high) = self.high.as_mut().and_then(|tags| tags.get_mut(to.clone())) {
            if leaf.word.wide() == 0 {
                high.fill((leaf.start >> 16) as u16);
            } else if let Some(from) = leaf.tags.0.get(WIDE_MAX..).and_then(|tags| tags.get(range)) {
                high.copy_from_slice(from);
            }
        }
        self.at = to.end;
    }
}

/// Memory for a leaf, to be filled with exactly `len` records before the next node is made.
pub(super) fn new_leaf(pool: &mut Pool, birth: u64, depth: u32, len: usize) -> (Word, NewLeaf<'_>) {
    let block = pool.take(leaf_lines(len));
    let word = Word::of_leaf(block.address(), depth, len);
    let tags = core::ptr::with_exposed_provenance_mut::<Line>(block.address());
    // SAFETY: the block is ours alone until its word is published, has room for this layout (see `leaf_lines`), and its
    // bytes are initialized; every pattern of bytes is valid for these types.
    let (tags, values) = unsafe {
        let stamp = tags.add(1).cast::<Stamp>();
        stamp.write(Stamp { birth, slab: block.slab(), spare: 0 });
        (&mut *tags, core::slice::from_raw_parts_mut(stamp.add(1).cast::<Value>(), len))
    };
    let (low, high) = tags.0.split_at_mut(leaf_max(depth));
    let high = if word.wide() == 0 { None } else { Some(high) };
    (word, NewLeaf { low, high, values, at: 0 })
}

/// Memory for an inner node, every word of which must be set before the node is published.
pub(super) fn new_inner(pool: &mut Pool, birth: u64, depth: u32, bits: u32) -> (Word, &mut [Word]) {
    let block = pool.take(inner_lines(bits));
    let word = Word::of_inner(block.address(), depth, bits);
    let stamp = core::ptr::with_exposed_provenance_mut::<Stamp>(block.address());
    // SAFETY: as in `new_leaf`, with the layout of an inner node.
    let words = unsafe {
        stamp.write(Stamp { birth, slab: block.slab(), spare: 0 });
        core::slice::from_raw_parts_mut(stamp.add(1).cast::<Word>(), 1 << bits)
    };
    (word, words)
}

/// The words of an inner node that is being made, once more.
///
/// # Safety
/// `new_inner` made it, nobody else can see it yet, and nothing else refers to its words during `'a`.
pub(super) unsafe fn words_of_new<'a>(word: Word) -> &'a mut [Word] {
    // SAFETY: as in `new_inner`.
    unsafe { core::slice::from_raw_parts_mut(slots_of(word).cast_mut(), 1 << word.bits()) }
}

/// The slots of an inner node.
#[inline(always)]
pub(super) fn slots_of(word: Word) -> *const Word {
    core::ptr::with_exposed_provenance::<u8>(word.address()).wrapping_add(STAMP_BYTES).cast()
}

/// Where a leaf has a record's value.
///
/// # Safety
/// The word names a live leaf that has a record of this number.
#[inline(always)]
pub(super) unsafe fn value_at<'a>(word: Word, number: usize) -> &'a Value {
    let values = core::ptr::with_exposed_provenance::<Value>(word.address() + LINE_BYTES + STAMP_BYTES);
    // SAFETY: as in `Leaf::at`.
    unsafe { &*values.add(number) }
}

/// Has the first lines of a node fetched.
fn fetch(node: Word, lines: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..lines {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = core::ptr::without_provenance::<i8>(node.address() + line * LINE_BYTES);
        // SAFETY: every x86-64 has this hint, which does nothing that can be seen, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (node, lines);
}

fn leaf_lines(len: usize) -> usize {
    1 + (STAMP_BYTES + size_of::<Value>() * len).div_ceil(LINE_BYTES)
}

fn inner_lines(bits: u32) -> usize {
    (STAMP_BYTES + (size_of::<Word>() << bits)).div_ceil(LINE_BYTES)
}

/// Behind the tags of a leaf, in front of the words of an inner node.
pub(super) const STAMP_BYTES: usize = size_of::<Stamp>();
/// The largest node.
pub(super) const LINES_MAX: usize = {
    let inner = (STAMP_BYTES + (size_of::<Word>() << super::word::BITS_MAX)).div_ceil(LINE_BYTES);
    let leaf = 1 + (STAMP_BYTES + size_of::<Value>() * super::word::LEAF_MAX).div_ceil(LINE_BYTES);
    if inner > leaf { inner } else { leaf }
};
