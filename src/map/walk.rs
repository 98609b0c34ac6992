//! Going through a version in order of place, and through two at once, past what they share.
#![forbid(unsafe_code)]

use super::node::{Child, Inner, Leaf, Node};
use super::probe;
use super::value::Value;

/// Stands at a child of some node, or at the end.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    /// From the root down: each node and the slot of the child that is next in it.
    path: Vec<(Inner<'a>, usize)>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(root: Inner<'a>) -> Self {
        Self { path: vec![(root, 0)] }
    }

    /// The node above the child that this stands at.
    fn parent(&self) -> Option<(Inner<'a>, Child)> {
        let (node, slot) = self.path.last()?;
        node.child(*slot).map(|child| (*node, child))
    }

    /// The first place that was not passed yet; 2^32 at the end.
    fn place(&self) -> u64 {
        self.parent().map_or(1 << 32, |(_, child)| child.start.into())
    }

    /// Goes past the slots before this one, and out of nodes that have no more.
    fn go_on(&mut self, slot: usize) {
        let mut to = Some(slot);
        while let Some((node, at)) = self.path.last_mut() {
            *at = match to.take() {
                Some(slot) => slot,
                None => node.child(*at).map_or(*at, |child| child.slots.1),
            };
            if *at < node.words.len() {
                break;
            }
            self.path.pop();
        }
    }

    /// Goes past the child that this stands at; if it is an inner node, into it.
    fn step(&mut self) -> Option<Leaf<'a>> {
        let (node, child) = self.parent()?;
        match node.open(&child) {
            Node::Inner(inner) => {
                self.path.push((inner, 0));
                None
            }
            Node::Leaf(leaf) => {
                // Leaves lie anywhere: without this, each of them is waited for.
                if let Some(soon) = node.words.get(child.slots.1 + FETCH_AHEAD) {
                    probe::fetch(*soon);
                }
                self.go_on(child.slots.1);
                Some(leaf)
            }
        }
    }

    /// The next leaf.
    pub(super) fn leaf(&mut self) -> Option<Leaf<'a>> {
        loop {
            self.path.last()?;
            if let Some(leaf) = self.step() {
                return Some(leaf);
            }
        }
    }
}

/// A place and the value at it.
pub(super) type Entry<'a> = (u32, &'a Value);

fn entries<'a>(leaf: Leaf<'a>) -> impl Iterator<Item = Entry<'a>> {
    leaf.places().zip(leaf.values())
}

/// All records in ascending order of place.
pub(super) fn all<'a>(root: Inner<'a>) -> impl Iterator<Item = Entry<'a>> {
    let mut cursor = Cursor::new(root);
    core::iter::from_fn(move || cursor.leaf()).flat_map(entries)
}

/// Calls `found(place, old, new)` for every place whose value differs, in ascending order.
///
/// Nodes that both share are passed over by their words, so the work is in proportion to what changed. The two may differ
/// in shape and in height.
pub(super) fn diff<'a>(
    old: Inner<'a>,
    new: Inner<'a>,
    found: &mut dyn FnMut(u32, Option<&'a Value>, Option<&'a Value>),
) {
    if old.word == new.word && old.level == new.level {
        return;
    }
    let (mut olds, mut news) = (Cursor::new(old), Cursor::new(new));
    // INVARIANT: both stand at the same place.
    while let (Some((old, old_child)), Some((new, new_child))) = (olds.parent(), news.parent()) {
        debug_assert_eq!(old_child.start, new_child.start);
        if old.level != new.level {
            // Into the higher one alone.
            if old.level > new.level {
                olds.step()
            } else {
                news.step()
            };
        } else if old_child.word == new_child.word {
            let equal = equal_slots(&old, &new, old_child.slots.0, new_child.slots.0);
            olds.go_on(if equal == 0 { old_child.slots.1 } else { equal });
            news.go_on(if equal == 0 { new_child.slots.1 } else { equal });
        } else if old.level > 1 {
            olds.step();
            news.step();
        } else {
            let end = old_child.end().max(new_child.end());
            compare(&entries_until(&mut olds, end), &entries_until(&mut news, end), found);
        }
    }
}

/// Up to which slot two nodes of the same range and width have the same children; 0 if they are not that alike.
fn equal_slots(old: &Inner<'_>, new: &Inner<'_>, at: usize, new_at: usize) -> usize {
    let alike = old.start == new.start && old.depth() == new.depth() && old.words.len() == new.words.len();
    if !alike || at != new_at {
        return 0;
    }
    let rest = old.words.iter().zip(new.words).skip(at);
    at + rest.take_while(|(old, new)| old == new).count()
}

/// The records of all leaves before this place.
fn entries_until<'a>(cursor: &mut Cursor<'a>, end: u64) -> Vec<Entry<'a>> {
    let mut found = Vec::new();
    while cursor.place() < end {
        if let Some(leaf) = cursor.step() {
            found.extend(entries(leaf));
        }
    }
    found
}

fn compare<'a>(old: &[Entry<'a>], new: &[Entry<'a>], found: &mut dyn FnMut(u32, Option<&'a Value>, Option<&'a Value>)) {
    let (mut olds, mut news) = (old.iter().peekable(), new.iter().peekable());
    while let Some(place) = olds.peek().into_iter().chain(news.peek()).map(|(place, _)| *place).min() {
        let old = olds.next_if(|(other, _)| *other == place).map(|(_, value)| *value);
        let new = news.next_if(|(other, _)| *other == place).map(|(_, value)| *value);
        if old != new {
            found(place, old, new);
        }
    }
}

/// How many leaves ahead of the one that is looked at.
const FETCH_AHEAD: usize = 4;
