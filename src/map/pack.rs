//! Lays nodes out: splits what is too large, merges what is too small, and builds a whole map from records in order.
//!
//! Always true of what these make: pieces are in ascending order, tile their range without gap or overlap, and are the
//! binary subdivisions of it, so that any two are disjoint or nested.
#![allow(unsafe_code, reason = "looks into nodes that were just made, which no version reaches yet")]

use super::change::{Bounds, Draft, Piece, Tree};
use super::node::{Inner, Leaf, new_inner, new_leaf};
use super::value::Value;
use super::word::Word;

impl Draft<'_> {
    /// Answers with leaves for these records of a range, ascending.
    pub(super) fn split(&mut self, entries: &[(u32, Value)], start: u32, depth: u32) {
        if entries.len() <= self.bounds.leaf_max(depth) {
            let (word, mut leaf) = new_leaf(self.pool, self.birth, depth, entries.len());
            for (place, value) in entries {
                leaf.push(*place, value);
            }
            self.pieces.push(Piece { word, start, depth });
            return;
        }
        // A range of depth 31 has two places, and a leaf has room for two.
        debug_assert!(depth < 31, "places repeat");
        let middle = middle(start, depth);
        let (lower, upper) = entries.split_at(entries.partition_point(|(place, _)| *place < middle));
        self.split(lower, start, depth + 1);
        self.split(upper, middle, depth + 1);
    }

    /// Answers with inner nodes for these children of a node, each of at most `bits_max`; a root that is too large becomes
    /// two levels of about the same width.
    pub(super) fn pack_anew(&mut self, children: &[Piece], node: &Inner<'_>, bits_max: u32) {
        let deepest = children.iter().map(|child| child.depth).max().unwrap_or(0);
        let is_outgrown = node.depth() == 0 && deepest > bits_max;
        let bits_max = if is_outgrown { self.bounds.below(deepest / 2) } else { bits_max };
        self.pack(children, node.start, node.depth(), 0, bits_max);
    }

    /// Answers with inner nodes for these children of a range; none of less than this depth or of more bits.
    fn pack(&mut self, children: &[Piece], start: u32, depth: u32, depth_min: u32, bits_max: u32) {
        let deepest = children.iter().map(|child| child.depth).max().unwrap_or(depth);
        let bits = deepest - depth;
        if depth >= depth_min && bits <= bits_max {
            let (word, words) = new_inner(self.pool, self.birth, depth, bits);
            let mut slot = 0;
            for child in children {
                let run = 1 << (deepest - child.depth);
                words.get_mut(slot..slot + run).unwrap_or_default().fill(child.word);
                slot += run;
            }
            debug_assert_eq!(slot, words.len(), "a gap between children");
            self.pieces.push(Piece { word, start, depth });
            return;
        }
        let middle = middle(start, depth);
        let (lower, upper) = children.split_at(children.partition_point(|child| child.start < middle));
        self.pack(lower, start, depth + 1, depth_min, bits_max);
        self.pack(upper, middle, depth + 1, depth_min, bits_max);
    }

    /// A node's children with the pieces answered since `mark` in their places, small neighbours merged.
    pub(super) fn tiles(&mut self, node: &Inner<'_>, mark: usize) -> Vec<Piece> {
        let mut tiles = Vec::with_capacity(node.words.len() + 1);
        let answered = self.pieces.get(mark..).unwrap_or_default().to_vec();
        let mut answered = answered.into_iter().peekable();
        let mut slot = 0;
        while let Some(child) = node.child(slot) {
            slot = child.slots.1;
            let mut replaced = false;
            while let Some(piece) = answered.next_if(|piece| u64::from(piece.start) < child.end()) {
                replaced = true;
                self.tile(&mut tiles, node, piece);
            }
            if !replaced {
                self.tile(&mut tiles, node, Piece { word: child.word, start: child.start, depth: child.depth });
            }
        }
        tiles
    }

    fn tile(&mut self, tiles: &mut Vec<Piece>, node: &Inner<'_>, mut piece: Piece) {
        let level = node.level - 1;
        while let Some(last) = tiles.last().copied() {
            let halves = piece.depth > node.depth() && last.start == piece.start & !(1 << (32 - piece.depth));
            if !(halves && last.start != piece.start && self.bounds.may_merge(level, last.word, piece.word)) {
                break;
            }
            tiles.pop();
            piece = if level == 0 { self.merged_leaves(last, piece) } else { self.merged_inner(last, piece, level) };
        }
        tiles.push(piece);
    }

    fn merged_leaves(&mut self, lower: Piece, upper: Piece) -> Piece {
        // SAFETY: both are live: of the version that is being changed, or made for the next and not replaced yet.
        let (first, second) = unsafe { (Leaf::at(lower.word, lower.start), Leaf::at(upper.word, upper.start)) };
        let (lens, depth) = ((first.values().len(), second.values().len()), lower.depth - 1);
        let (word, mut leaf) = new_leaf(self.pool, self.birth, depth, lens.0 + lens.1);
        leaf.extend(&first, 0..lens.0);
        leaf.extend(&second, 0..lens.1);
        self.retire(first.retired());
        self.retire(second.retired());
        Piece { word, start: lower.start, depth }
    }

    fn merged_inner(&mut self, lower: Piece, upper: Piece, level: u32) -> Piece {
        // SAFETY: as in `merged_leaves`.
        let halves = unsafe { [Inner::at(lower.word, level, lower.start), Inner::at(upper.word, level, upper.start)] };
        let (depth, bits) = (lower.depth - 1, lower.word.bits().max(upper.word.bits()));
        let (word, words) = new_inner(self.pool, self.birth, depth, bits + 1);
        for (half, words) in halves.iter().zip(words.chunks_exact_mut(1 << bits)) {
            let run = words.len() / half.words.len();
            for (child, slots) in half.words.iter().zip(words.chunks_exact_mut(run)) {
                slots.fill(*child);
            }
        }
        for half in halves {
            self.retire(half.retired());
        }
        Piece { word, start: lower.start, depth }
    }

    /// A single root above these nodes of one level, which tile everything; a root with one slot is left out.
    pub(super) fn crown(mut self, mut pieces: Vec<Piece>, level: u32) -> Tree {
        let mut levels = level;
        while pieces.len() > 1 {
            self.pack(&pieces, 0, 0, 0, self.bounds.bits_max);
            pieces = core::mem::take(&mut self.pieces);
            levels += 1;
        }
        let mut root = pieces.first().map_or_else(|| self.empty_root(), |piece| piece.word);
        while levels > 1 && root.bits() == 0 {
            // SAFETY: it was made for this version and not replaced, or is of the version that is being changed.
            let superfluous = unsafe { Inner::at(root, levels, 0) };
            root = superfluous.words.first().copied().unwrap_or(root);
            self.retire(superfluous.retired());
            levels -= 1;
        }
        Tree { root, levels, len: self.len }
    }

    /// There are always pieces; this keeps the compiler content without a panic.
    fn empty_root(&mut self) -> Word {
        let (leaf, _) = new_leaf(self.pool, self.birth, 0, 0);
        let (word, words) = new_inner(self.pool, self.birth, 0, 0);
        words.fill(leaf);
        word
    }

    /// Levels of about the same width above leaves of about this depth.
    fn lay_out(mut self, depth: u32) -> Tree {
        let mut pieces = core::mem::take(&mut self.pieces);
        let (mut levels, mut left) = (0, depth);
        let wanted = depth.div_ceil((self.bounds.bits_max - 1).max(1)).max(1);
        while levels < wanted {
            left -= left.div_ceil(wanted - levels);
            self.pack(&pieces, 0, 0, left, self.bounds.bits_max);
            pieces = core::mem::take(&mut self.pieces);
            levels += 1;
        }
        self.crown(pieces, levels)
    }
}

/// The first version of a map, being built from records in ascending order of place.
#[derive(Debug)]
pub(crate) struct Filling<'p> {
    draft: Draft<'p>,
    /// Of each range that gets leaves of its own.
    depth: u32,
    /// Where the present range begins and ends, and its records so far.
    start: u64,
    end: u64,
    group: Vec<(u32, Value)>,
    /// The first place that the next record may have.
    least: u64,
}

impl<'p> Filling<'p> {
    /// `expected`: about how many records will come.
    pub(super) fn new(draft: Draft<'p>, expected: usize) -> Self {
        let depth = depth_for(expected, draft.bounds);
        let group = Vec::with_capacity(4 * draft.bounds.leaf_max);
        Self { draft, depth, start: 0, end: 1 << (32 - depth), group, least: 0 }
    }

    /// The next record; its place is above those before. One that is not is left out.
    #[inline]
    pub(crate) fn push(&mut self, place: u32, value: Value) {
        let at = u64::from(place);
        debug_assert!(at >= self.least, "records out of order");
        if at >= self.least {
            self.least = at + 1;
            if at >= self.end {
                self.leaves_until(at);
            }
            self.group.push((place, value));
        }
    }

    /// Makes the leaves of all ranges that end at this place or before it.
    #[inline(never)]
    fn leaves_until(&mut self, place: u64) {
        while self.end <= place {
            self.draft.len += self.group.len();
            #[expect(clippy::cast_possible_truncation, reason = "the start of a range of places")]
            self.draft.split(&self.group, self.start as u32, self.depth);
            self.group.clear();
            self.start = self.end;
            self.end += 1 << (32 - self.depth);
        }
    }

    pub(super) fn finish(mut self) -> Tree {
        self.leaves_until(1 << 32);
        self.draft.lay_out(self.depth)
    }
}

/// Where the upper half of a range begins.
fn middle(start: u32, depth: u32) -> u32 {
    start | 1 << (31 - depth)
}

/// The depth at which so many records make leaves that are well filled and seldom need splitting.
fn depth_for(len: usize, bounds: Bounds) -> u32 {
    let is_enough = |depth: &u32| len >> depth <= (bounds.leaf_max(*depth) * 5 / 8).max(1);
    (0..DEPTH_FOR_MAX).find(is_enough).unwrap_or(DEPTH_FOR_MAX)
}

/// Four thousand million peers would need no more.
const DEPTH_FOR_MAX: u32 = 28;
