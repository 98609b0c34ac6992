//! Derives the next version: every touched node is written anew, once, from the old one and the changes below it.
//!
//! A subtree answers with *pieces*: nodes that together cover its places, more than one if it had to be split. Its parent
//! puts them where the old child stood if they fit; else it is laid out anew (`pack`). So growing and shrinking reach as
//! far as they must and no further, and no publish rebuilds more than the nodes on the way to its changes.
#![allow(unsafe_code, reason = "gives back nodes that it made itself, and looks into them")]

use super::node::{Inner, Leaf, Node, Retired, new_inner, new_leaf, words_of_new};
use super::pool::Pool;
use super::value::Value;
use super::word::{BITS_MAX, LEAF_MAX, Word, leaf_max};

/// What becomes of a peer's record, by its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(super) place: u32,
    pub(super) becomes: Becomes,
}

/// What a record becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Becomes {
    Value(Value),
    Nothing,
    /// What it is, elsewhere in memory if its leaf is to be moved.
    Same,
}

impl Change {
    /// The record at this place becomes this, or goes.
    #[inline]
    pub(crate) fn new(place: u32, value: Option<Value>) -> Self {
        Self { place, becomes: value.into() }
    }

    /// What there is afterwards.
    #[inline]
    pub(crate) fn value(&self) -> Option<&Value> {
        match &self.becomes {
            Becomes::Value(value) => Some(value),
            Becomes::Nothing | Becomes::Same => None,
        }
    }
}

impl From<Option<Value>> for Becomes {
    fn from(value: Option<Value>) -> Self {
        value.map_or(Self::Nothing, Self::Value)
    }
}

/// When nodes are split and merged. Tests have small nodes, so that this happens often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// A leaf with more records is split, and so is one with more than it has room for ([`leaf_max`]); at least 2.
    pub(super) leaf_max: usize,
    /// Two leaves with no more records than this are merged; well below `leaf_max`, so that a peer that comes and goes
    /// does not split and merge each time.
    pub(super) merge_max: usize,
    /// An inner node with more bits is split; from 1 to [`BITS_MAX`].
    pub(super) bits_max: u32,
    /// Two inner nodes are merged if that makes no more bits than this; below `bits_max`.
    pub(super) merge_bits_max: u32,
}

impl Bounds {
    /// What is fast.
    pub(super) const FAST: Self =
        Self { leaf_max: LEAF_MAX, merge_max: 12, bits_max: BITS_MAX, merge_bits_max: BITS_MAX - 4 };
}

/// A root and the levels of inner nodes from it on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree {
    pub(super) root: Word,
    pub(super) levels: u32,
    pub(super) len: usize,
}

/// A node and the places that it covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) word: Word,
    pub(super) start: u32,
    pub(super) depth: u32,
}

/// A version being made.
#[derive(Debug)]
pub(super) struct Draft<'p> {
    pub(super) pool: &'p mut Pool,
    pub(super) bounds: Bounds,
    /// The number of the version, which every node made here gets.
    pub(super) birth: u64,
    /// What subtrees answered and their parents have not used yet.
    pub(super) pieces: Vec<Piece>,
    /// Nodes of older versions that this one does without.
    pub(super) retired: &'p mut Vec<Retired>,
    pub(super) len: usize,
}

/// What setting one record came to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Set<T> {
    /// It has that value already.
    Same,
    /// Its leaf has no room for it. Nothing was done.
    Full,
    Done {
        becomes: T,
        was_there: bool,
    },
}

/// A step of putting a leaf and its changes together.
enum Step<'c> {
    /// These records stay.
    Keep(core::ops::Range<usize>),
    Set(u32, &'c Value),
}

impl<'p> Draft<'p> {
    pub(super) fn new(pool: &'p mut Pool, bounds: Bounds, birth: u64, retired: &'p mut Vec<Retired>) -> Self {
        Self { pool, bounds, birth, pieces: Vec::with_capacity(PIECES), retired, len: 0 }
    }

    /// The tree that these changes make of another, which must stay live meanwhile. They come in ascending order of
    /// place, without repeats.
    pub(super) fn change(mut self, root: Inner<'_>, len: usize, changes: &[Change]) -> Tree {
        self.len = len;
        self.inner(root, changes, self.bounds.bits_max);
        let pieces = core::mem::take(&mut self.pieces);
        self.crown(pieces, root.level)
    }

    /// The same for one record that becomes this value, as long as nothing must be split for it: a node is copied before it
    /// is known what is below it, while that is on its way from memory.
    pub(super) fn set(mut self, root: Inner<'_>, len: usize, place: u32, value: &Value) -> Set<Tree> {
        self.len = len;
        match self.set_in_inner(&root, place, value) {
            Set::Done { becomes, was_there } => {
                let len = len + usize::from(!was_there);
                Set::Done { becomes: Tree { root: becomes, levels: root.level, len }, was_there }
            }
            Set::Same => Set::Same,
            Set::Full => Set::Full,
        }
    }

    fn set_in_inner(&mut self, node: &Inner<'_>, place: u32, value: &Value) -> Set<Word> {
        let (copy, words) = new_inner(self.pool, self.birth, node.depth(), node.word.bits());
        words.copy_from_slice(node.words);
        let done = match node.child(node.word.slot(place)) {
            None => Set::Full,
            Some(child) => {
                let done = match node.open(&child) {
                    Node::Leaf(leaf) => self.set_in_leaf(&leaf, place, value),
                    Node::Inner(inner) => self.set_in_inner(&inner, place, value),
                };
                if let Set::Done { becomes, .. } = &done {
                    // SAFETY: it was made above, for this version, and nothing names it yet.
                    let words = unsafe { words_of_new(copy) };
                    words.get_mut(child.slots.0..child.slots.1).unwrap_or_default().fill(*becomes);
                }
                done
            }
        };
        match done {
            Set::Done { was_there, .. } => {
                self.retire(node.retired());
                Set::Done { becomes: copy, was_there }
            }
            Set::Same | Set::Full => {
                // SAFETY: as above.
                let copy = unsafe { Inner::at(copy, node.level, node.start) };
                self.retire(copy.retired());
                done
            }
        }
    }

    fn set_in_leaf(&mut self, leaf: &Leaf<'_>, place: u32, value: &Value) -> Set<Word> {
        let (position, len) = (leaf.position(place), leaf.values().len());
        let becomes = match position {
            Ok(number) if leaf.values().get(number) == Some(value) => return Set::Same,
            Ok(number) => {
                let (word, mut new) = new_leaf(self.pool, self.birth, leaf.depth(), len);
                new.copy(leaf);
                new.replace(number, value);
                word
            }
            Err(_) if len >= self.bounds.leaf_max(leaf.depth()) => return Set::Full,
            Err(gap) => {
                let (word, mut new) = new_leaf(self.pool, self.birth, leaf.depth(), len + 1);
                new.extend(leaf, 0..gap);
                new.push(place, value);
                new.extend(leaf, gap..len);
                word
            }
        };
        self.retire(leaf.retired());
        Set::Done { becomes, was_there: position.is_ok() }
    }

    /// Answers with what the changes make of an inner node; true if that fits where the old one stood. If it must be laid
    /// out anew it has at most `bits_max`.
    fn inner(&mut self, node: Inner<'_>, changes: &[Change], bits_max: u32) -> bool {
        let mark = self.pieces.len();
        let mut fits = true;
        let mut rest = changes;
        while let Some(first) = rest.first() {
            let Some(child) = node.child(node.word.slot(first.place)) else { break };
            let mine = rest.iter().take_while(|change| u64::from(change.place) < child.end()).count();
            let (mine, others) = rest.split_at(mine.max(1));
            rest = others;
            if let Some(next) = others.first() {
                node.fetch(next.place);
            }
            fits &= match node.open(&child) {
                Node::Leaf(leaf) => self.leaf(leaf, mine),
                Node::Inner(inner) => self.inner(inner, mine, self.bounds.below(node.word.bits())),
            };
        }
        let copied = if fits { self.copied(&node, mark) } else { None };
        match copied {
            Some(word) => {
                self.pieces.truncate(mark);
                self.pieces.push(Piece { word, start: node.start, depth: node.depth() });
            }
            None => {
                let tiles = self.tiles(&node, mark);
                self.pieces.truncate(mark);
                self.pack_anew(&tiles, &node, bits_max);
            }
        }
        self.retire(node.retired());
        copied.is_some() || self.is_one_of_depth(mark, node.depth())
    }

    /// Whether exactly one piece was answered since `mark`, and covers what a node of this depth covers.
    fn is_one_of_depth(&self, mark: usize, depth: u32) -> bool {
        matches!(self.pieces.get(mark..), Some([piece]) if piece.depth == depth)
    }

    /// A copy of a node with the answered pieces in their places; none if two of its children are to be merged.
    fn copied(&mut self, node: &Inner<'_>, mark: usize) -> Option<Word> {
        let (word, words) = new_inner(self.pool, self.birth, node.depth(), node.word.bits());
        words.copy_from_slice(node.words);
        let answered = self.pieces.get(mark..).unwrap_or_default();
        for piece in answered {
            let first = word.slot(piece.start);
            let run = node.run_of(piece.depth);
            words.get_mut(first..first + run).unwrap_or_default().fill(piece.word);
        }
        let bounds = self.bounds;
        let wants_merge = answered.iter().any(|piece| {
            let run = node.run_of(piece.depth);
            let buddy = words.get(word.slot(piece.start) ^ run);
            run < node.words.len() && buddy.is_some_and(|buddy| bounds.may_merge(node.level - 1, piece.word, *buddy))
        });
        if wants_merge {
            // SAFETY: it was made just now, and nothing names it.
            let copy = unsafe { Inner::at(word, node.level, node.start) };
            self.retire(copy.retired());
            return None;
        }
        Some(word)
    }

    /// Answers with what the changes make of a leaf; true if that fits where the old one stood.
    fn leaf(&mut self, leaf: Leaf<'_>, changes: &[Change]) -> bool {
        let mark = self.pieces.len();
        let (mut len, mut replaced, mut stays) = (leaf.values().len(), 0, true);
        for change in changes {
            match (&change.becomes, leaf.position(change.place)) {
                (Becomes::Same, _) | (Becomes::Nothing, Err(_)) => continue,
                (Becomes::Value(_), Ok(_)) => {
                    replaced += 1;
                    continue;
                }
                (Becomes::Value(_), Err(_)) => len += 1,
                (Becomes::Nothing, Ok(_)) => len -= 1,
            }
            stays = false;
        }
        if stays && replaced == 0 && !self.pool.leaves(leaf.slab()) {
            self.pieces.push(Piece { word: leaf.word, start: leaf.start, depth: leaf.depth() });
            return true;
        }
        self.len = self.len + len - leaf.values().len();
        if len <= self.bounds.leaf_max(leaf.depth()) {
            let (word, mut new) = new_leaf(self.pool, self.birth, leaf.depth(), len);
            if stays {
                // The same places, as of most grants that change terms: one copy, and the values over it.
                new.copy(&leaf);
                for change in changes {
                    if let (Becomes::Value(value), Ok(number)) = (&change.becomes, leaf.position(change.place)) {
                        new.replace(number, value);
                    }
                }
            } else {
                merge(&leaf, changes, |step| match step {
                    Step::Keep(range) => new.extend(&leaf, range),
                    Step::Set(place, value) => new.push(place, value),
                });
            }
            self.pieces.push(Piece { word, start: leaf.start, depth: leaf.depth() });
        } else {
            let mut entries = Vec::with_capacity(len);
            let old: Vec<(u32, Value)> = leaf.places().zip(leaf.values().iter().copied()).collect();
            merge(&leaf, changes, |step| match step {
                Step::Keep(range) => entries.extend_from_slice(old.get(range).unwrap_or_default()),
                Step::Set(place, value) => entries.push((place, *value)),
            });
            self.split(&entries, leaf.start, leaf.depth());
        }
        self.retire(leaf.retired());
        self.is_one_of_depth(mark, leaf.depth())
    }

    /// This version does without a node.
    pub(super) fn retire(&mut self, node: Retired) {
        if node.birth == self.birth {
            // SAFETY: it was made for this version, which nobody has seen, and its last use in it is over.
            unsafe { self.pool.give_back(node.block) };
        } else {
            self.retired.push(node);
        }
    }
}

impl Bounds {
    /// How many bits an inner node may have that is laid out below one of so many. A publish copies both: the root is in the
    /// caches, and one of the many below it is mostly not, so that these are to be the smaller ones.
    pub(super) fn below(self, bits: u32) -> u32 {
        bits.saturating_sub(1).clamp(self.merge_bits_max, self.bits_max)
    }

    /// How many records a leaf of this depth may have.
    pub(super) fn leaf_max(self, depth: u32) -> usize {
        self.leaf_max.min(leaf_max(depth))
    }

    /// Whether two neighbours that make up one range are small enough to be one node. `level` is theirs.
    pub(super) fn may_merge(self, level: u32, one: Word, other: Word) -> bool {
        one.depth(level) == other.depth(level)
            && if level == 0 {
                one.len() + other.len() <= self.merge_max
            } else {
                one.bits().max(other.bits()) < self.merge_bits_max
            }
    }
}

/// Puts a leaf and its changes together, in ascending order of place.
fn merge<'c>(leaf: &Leaf<'_>, changes: &'c [Change], mut step: impl FnMut(Step<'c>)) {
    let mut at = 0;
    for change in changes {
        if matches!(change.becomes, Becomes::Same) {
            continue;
        }
        let (before, after) = match leaf.position(change.place) {
            Ok(found) => (found, found + 1),
            Err(gap) => (gap, gap),
        };
        step(Step::Keep(at..before));
        at = after;
        if let Becomes::Value(value) = &change.becomes {
            step(Step::Set(change.place, value));
        }
    }
    step(Step::Keep(at..leaf.values().len()));
}

/// As many as a change of one record has waiting at once, unless something is split.
const PIECES: usize = 4;
