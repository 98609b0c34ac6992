//! One version of the map by places and values: a tree, and what keeps its nodes.
#![allow(unsafe_code, reason = "looks into the tree that it keeps alive")]

use super::change::{Becomes, Bounds, Change, Set, Tree};
use super::history::Pin;
use super::node::{Inner, Leaf, Node, value_at};
use super::pack::Filling;
use super::probe;
use super::value::Value;
use super::walk;
use super::word::{LEAF_MAX, WIDE_MAX};
use crate::sync::Arc;
use core::convert::Infallible;

/// Immutable; cloning it takes one step and holds the version for as long as the clone lives.
#[derive(Clone, Debug)]
pub(super) struct Version {
    tree: Tree,
    pin: Arc<Pin>,
}

impl Version {
    /// The first version of a new history, of what `put_all` puts in; its error if it has one.
    pub(super) fn first<E>(
        bounds: Bounds,
        expected: usize,
        put_all: impl FnOnce(&mut Filling<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let (tree, pin) = Pin::first(bounds, expected, put_all)?;
        Ok(Self { tree, pin })
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.tree.len
    }

    #[inline(always)]
    pub(super) fn contains(&self, place: u32) -> bool {
        self.pin.reads();
        // SAFETY: the root is that of our tree, whose nodes live as long as our pin.
        unsafe {
            let leaf = probe::leaf_of(self.tree.root, self.tree.levels, place);
            if self.expects_plain() && leaf.is_plain() {
                return probe::is_in_plain(leaf, place);
            }
            probe::record_at(leaf, place).0 != 0
        }
    }

    /// Whether nearly all leaves are plain, since there are so many records: then a look-up may as well branch on that.
    #[inline(always)]
    fn expects_plain(&self) -> bool {
        // Tests go both ways at every size: either answers rightly, whatever the leaf.
        if cfg!(any(test, fuzzing)) { self.tree.len.is_multiple_of(2) } else { self.tree.len >= EXPECTS_PLAIN }
    }

    /// Answers for as many places as there are answers; the other places may be any.
    #[inline]
    pub(super) fn contains_each<const N: usize>(&self, places: &[u32; N], answers: &mut [bool]) {
        self.pin.reads();
        let mut leaves = [self.tree.root; N];
        for (leaf, place) in leaves.iter_mut().zip(places) {
            // SAFETY: as in `contains`.
            *leaf = unsafe { probe::leaf_of(self.tree.root, self.tree.levels, *place) };
        }
        leaves.iter().for_each(|leaf| probe::fetch(*leaf));
        for ((leaf, place), answer) in leaves.iter().zip(places).zip(answers) {
            // SAFETY: as in `contains`.
            *answer = unsafe {
                if self.expects_plain() && leaf.is_plain() {
                    probe::is_in_plain(*leaf, *place)
                } else {
                    probe::record_at(*leaf, *place).0 != 0
                }
            };
        }
    }

    #[inline]
    pub(super) fn get(&self, place: u32) -> Option<&Value> {
        self.pin.reads();
        // SAFETY: as in `contains`; if there is a record at this place, this is its number.
        unsafe {
            let leaf = probe::leaf_of(self.tree.root, self.tree.levels, place);
            if self.expects_plain() && leaf.is_plain() {
                let number = probe::number_in_plain(leaf, place) as usize;
                return if number < LEAF_MAX { Some(value_at(leaf, number)) } else { None };
            }
            let (is_there, found) = probe::record_at(leaf, place);
            if is_there == 0 { None } else { Some(value_at(leaf, found.trailing_zeros() as usize)) }
        }
    }

    /// Has the leaf that a place falls into fetched.
    pub(super) fn fetch(&self, place: u32) {
        self.pin.reads();
        // SAFETY: as in `get`.
        unsafe { Leaf::at(probe::leaf_of(self.tree.root, self.tree.levels, place), 0) }.fetch();
    }

    /// The next version, in a history of its own if this is not the newest of its history.
    ///
    /// Changes come in ascending order of place, without repeats.
    pub(super) fn change(&self, changes: &[Change]) -> Self {
        match self.pin.next(self.tree, changes) {
            Some((tree, pin)) => Self { tree, pin },
            None => self.branch(self.len(), changes.iter().copied()),
        }
    }

    /// The next version, in which one record becomes this value; as fast as that can be.
    pub(super) fn set(&self, place: u32, value: &Value) -> Set<Self> {
        match self.pin.set(self.tree, place, value) {
            Some(Set::Done { becomes: (tree, pin), was_there }) => Set::Done { becomes: Self { tree, pin }, was_there },
            Some(Set::Same) => Set::Same,
            // Something is to be split, or this is not the newest version.
            Some(Set::Full) | None => match self.get(place) {
                Some(before) if before == value => Set::Same,
                before => {
                    let change = Change { place, becomes: Becomes::Value(*value) };
                    Set::Done { becomes: self.change(&[change]), was_there: before.is_some() }
                }
            },
        }
    }

    /// The next version, with the same entries, in which the nodes on the way to these places, ascending, lie elsewhere if
    /// their memory is being left; none if this is not the newest version.
    pub(super) fn moved(&self, places: &[u32]) -> Option<Self> {
        let changes: Vec<Change> =
            places.iter().map(|place| Change { place: *place, becomes: Becomes::Same }).collect();
        self.pin.next(self.tree, &changes).map(|(tree, pin)| Self { tree, pin })
    }

    /// A place, in ascending order, below each node whose memory should be left; none if memory is well used, or if only
    /// versions that are held use it so badly. Where there is one, to be followed by [`Self::end_move`].
    pub(super) fn begin_move(&self, worth: usize) -> Option<Vec<u32>> {
        let leaves = self.pin.begin_move(worth)?;
        let mut places = Vec::new();
        to_move(&self.root(), &leaves, &mut places);
        if places.is_empty() {
            self.pin.end_move_in_vain();
            return None;
        }
        Some(places)
    }

    pub(super) fn end_move(&self) {
        self.pin.end_move();
    }

    /// A copy of everything, with these changes, in a history of its own. They come in ascending order of place, without
    /// repeats. `expected`: about how many records there will be.
    #[cold]
    pub(super) fn branch(&self, expected: usize, changes: impl Iterator<Item = Change>) -> Self {
        let put_all = |into: &mut Filling<'_>| -> Result<(), Infallible> {
            let mut old = self.all().peekable();
            for change in changes {
                while let Some((place, value)) = old.next_if(|(place, _)| *place < change.place) {
                    into.push(place, *value);
                }
                let before = old.next_if(|(place, _)| *place == change.place).map(|(_, value)| *value);
                let after = match change.becomes {
                    Becomes::Value(value) => Some(value),
                    Becomes::Same => before,
                    Becomes::Nothing => None,
                };
                if let Some(value) = after {
                    into.push(change.place, value);
                }
            }
            old.for_each(|(place, value)| into.push(place, *value));
            Ok(())
        };
        let Ok(version) = Self::first(self.pin.bounds(), expected, put_all);
        version
    }

    /// All entries in ascending order of place.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Value)> {
        walk::all(self.root())
    }

    /// Calls `found(place, old, new)` for every place whose value differs between `older` and this version.
    pub(super) fn diff<'a>(
        &'a self,
        older: &'a Self,
        found: &mut dyn FnMut(u32, Option<&'a Value>, Option<&'a Value>),
    ) {
        walk::diff(older.root(), self.root(), found);
    }

    /// Gives back what no version holds any more.
    pub(super) fn sweep(&self) {
        self.pin.sweep();
    }

    /// Whether memory should be made ready for the next changes.
    pub(super) fn is_short(&self) -> bool {
        self.pin.is_short()
    }

    /// Takes memory from the system, if the next changes may need some, so that they find it there.
    pub(super) fn make_ready(&self) {
        self.pin.make_ready();
    }

    /// Gives memory that was not needed since the last trim to the system; true if there may be more next time.
    pub(super) fn trim(&self) -> bool {
        self.pin.trim()
    }

    #[cfg(any(test, feature = "__testing"))]
    pub(super) fn usage(&self) -> super::Usage {
        self.pin.usage()
    }

    /// The whole tree.
    pub(super) fn root(&self) -> Inner<'_> {
        self.pin.reads();
        // SAFETY: as in `contains`.
        unsafe { Inner::at(self.tree.root, self.tree.levels, 0) }
    }
}

/// Gathers places below the nodes that lie in slabs which are to be left.
fn to_move(node: &Inner<'_>, leaves: &[bool], places: &mut Vec<u32>) {
    let add = |slab: u32, place: u32, places: &mut Vec<u32>| {
        if leaves.get(slab as usize) == Some(&true) && places.last() != Some(&place) {
            places.push(place);
        }
    };
    add(node.slab(), node.start, places);
    let mut slot = 0;
    while let Some(child) = node.child(slot) {
        match node.open(&child) {
            Node::Leaf(leaf) => add(leaf.slab(), leaf.start, places),
            Node::Inner(inner) => to_move(&inner, leaves, places),
        }
        slot = child.slots.1;
    }
}

/// With so many records a leaf of depth 15, the least that is wide, would have half as many again as it has room for.
const EXPECTS_PLAIN: usize = (WIDE_MAX + WIDE_MAX / 2) << 15;
