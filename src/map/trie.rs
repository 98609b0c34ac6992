//! A persistent map from ids to values: 16-way tree over the mixed id, leaves of up to 32 sorted entries.
//!
//! A version never changes once made; the next one shares every node that the changes do not touch. Its shape depends
//! on history, but the order of iteration (by place, see [`Mix`]) depends on the contents alone. It is safe code
//! throughout, serves the small tables of a node, and is the reference model for any faster map of trusted records.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::mix::Mix;

/// One version of the map.
#[derive(Clone, Debug)]
pub(crate) struct Trie<V> {
    root: Node<V>,
    len: usize,
    mix: Mix,
}

#[derive(Debug)]
enum Node<V> {
    Empty,
    /// Sorted by place; at most [`LEAF_MAX`] entries, at least one.
    Leaf(Arc<[Entry<V>]>),
    Branch(Arc<[Node<V>; FAN_OUT]>),
}

#[derive(Clone, Debug)]
struct Entry<V> {
    place: u32,
    value: V,
}

impl<V> Clone for Node<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::Leaf(leaf) => Self::Leaf(Arc::clone(leaf)),
            Self::Branch(branch) => Self::Branch(Arc::clone(branch)),
        }
    }
}

impl<V: Clone> Trie<V> {
    pub(crate) fn new(mix: Mix) -> Self {
        Self { root: Node::Empty, len: 0, mix }
    }

    /// The map of these values, which come in ascending order of place without repeats (as [`Trie::iter`] gives them).
    pub(crate) fn from_sorted(mix: Mix, values: impl Iterator<Item = (u32, V)>) -> Self {
        let entries: Vec<Entry<V>> = values.map(|(id, value)| Entry { place: mix.mix(id), value }).collect();
        debug_assert!(entries.is_sorted_by(|a, b| a.place < b.place), "unsorted bulk build");
        Self { len: entries.len(), root: build(&entries, TOP_SHIFT), mix }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn mix(&self) -> Mix {
        self.mix
    }

    pub(crate) fn get(&self, id: u32) -> Option<&V> {
        if self.len == 0 {
            return None;
        }
        let place = self.mix.mix(id);
        let mut node = &self.root;
        let mut shift = TOP_SHIFT;
        loop {
            match node {
                Node::Empty => return None,
                Node::Leaf(leaf) => {
                    let index = leaf.binary_search_by_key(&place, |entry| entry.place).ok()?;
                    return leaf.get(index).map(|entry| &entry.value);
                }
                Node::Branch(children) => {
                    node = children.get(nibble(place, shift))?;
                    shift = shift.saturating_sub(BITS);
                }
            }
        }
    }

    /// The next version: each id set to its value, or removed. An id occurs at most once.
    ///
    /// Copies the nodes on the way to each change once, whatever the number of changes below them.
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = (u32, Option<V>)>) -> Self {
        let mut changes: Vec<(u32, Option<V>)> =
            changes.into_iter().map(|(id, value)| (self.mix.mix(id), value)).collect();
        if changes.is_empty() {
            return self.clone();
        }
        changes.sort_unstable_by_key(|&(place, _)| place);
        debug_assert!(changes.is_sorted_by(|a, b| a.0 < b.0), "an id occurs twice in one change");
        let mut len = self.len;
        let root = change(&self.root, &changes, TOP_SHIFT, &mut len);
        Self { root, len, mix: self.mix }
    }

    /// All values with their ids, in ascending order of place.
    pub(crate) fn iter(&self) -> Iter<'_, V> {
        let mut iter = Iter { mix: self.mix, nodes: Vec::new(), leaf: [].iter() };
        iter.enter(&self.root);
        iter
    }

    /// Calls `found(id, old, new)` for every id whose value differs between `older` and this version.
    ///
    /// Subtrees that both share are skipped by their address, so the work is proportional to what changed.
    pub(crate) fn diff<'a>(&'a self, older: &'a Self, found: &mut dyn FnMut(u32, Option<&'a V>, Option<&'a V>))
    where
        V: PartialEq,
    {
        debug_assert_eq!(self.mix, older.mix, "maps of different stores");
        diff(&older.root, &self.root, self.mix, found);
    }
}

fn nibble(place: u32, shift: u32) -> usize {
    ((place >> shift) & (FAN_OUT as u32 - 1)) as usize
}

/// The subtree of these entries, sorted by place, whose places agree above `shift`.
fn build<V: Clone>(entries: &[Entry<V>], shift: u32) -> Node<V> {
    if entries.is_empty() {
        return Node::Empty;
    }
    if entries.len() <= LEAF_MAX {
        return Node::Leaf(entries.into());
    }
    let mut rest = entries;
    Node::Branch(Arc::new(core::array::from_fn(|child| {
        let (mine, others) = rest.split_at(rest.partition_point(|entry| nibble(entry.place, shift) <= child));
        rest = others;
        build(mine, shift.saturating_sub(BITS))
    })))
}

fn change<V: Clone>(node: &Node<V>, changes: &[(u32, Option<V>)], shift: u32, len: &mut usize) -> Node<V> {
    match node {
        Node::Empty => {
            let entries: Vec<Entry<V>> = changes
                .iter()
                .filter_map(|(place, value)| Some(Entry { place: *place, value: value.clone()? }))
                .collect();
            *len += entries.len();
            build(&entries, shift)
        }
        Node::Leaf(leaf) => {
            let entries = merge(leaf, changes);
            *len = *len + entries.len() - leaf.len();
            build(&entries, shift)
        }
        Node::Branch(children) => {
            let before = *len;
            let mut rest = changes;
            let next: [Node<V>; FAN_OUT] = core::array::from_fn(|index| {
                let (mine, others) = rest.split_at(rest.partition_point(|(place, _)| nibble(*place, shift) <= index));
                rest = others;
                match children.get(index) {
                    Some(child) if mine.is_empty() => child.clone(),
                    Some(child) => change(child, mine, shift.saturating_sub(BITS), len),
                    None => Node::Empty,
                }
            });
            if *len < before { collapse(next) } else { Node::Branch(Arc::new(next)) }
        }
    }
}

/// Two sorted runs into one; where both have a place, the change wins.
fn merge<V: Clone>(leaf: &[Entry<V>], changes: &[(u32, Option<V>)]) -> Vec<Entry<V>> {
    let mut merged = Vec::with_capacity(leaf.len() + changes.len());
    let mut old = leaf.iter().peekable();
    for (place, value) in changes {
        while let Some(entry) = old.next_if(|entry| entry.place < *place) {
            merged.push(entry.clone());
        }
        old.next_if(|entry| entry.place == *place);
        if let Some(value) = value {
            merged.push(Entry { place: *place, value: value.clone() });
        }
    }
    merged.extend(old.cloned());
    merged
}

/// A branch that has become small enough is a leaf again. The threshold is half of the one for splitting, so that a
/// peer granted and revoked in turn does not make and unmake a branch each time.
fn collapse<V: Clone>(children: [Node<V>; FAN_OUT]) -> Node<V> {
    let mut total = 0;
    for child in &children {
        match child {
            Node::Empty => {}
            Node::Leaf(leaf) => total += leaf.len(),
            Node::Branch(_) => return Node::Branch(Arc::new(children)),
        }
    }
    if total > LEAF_MAX / 2 {
        return Node::Branch(Arc::new(children));
    }
    let mut entries = Vec::with_capacity(total);
    for child in children {
        if let Node::Leaf(leaf) = child {
            entries.extend_from_slice(&leaf);
        }
    }
    if entries.is_empty() { Node::Empty } else { Node::Leaf(entries.into()) }
}

/// Iterates in ascending order of place.
#[derive(Debug)]
pub(crate) struct Iter<'a, V> {
    mix: Mix,
    nodes: Vec<core::slice::Iter<'a, Node<V>>>,
    leaf: core::slice::Iter<'a, Entry<V>>,
}

impl<'a, V> Iter<'a, V> {
    fn enter(&mut self, node: &'a Node<V>) {
        match node {
            Node::Empty => {}
            Node::Leaf(leaf) => self.leaf = leaf.iter(),
            Node::Branch(children) => self.nodes.push(children.iter()),
        }
    }

    fn next_entry(&mut self) -> Option<&'a Entry<V>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(entry);
            }
            match self.nodes.last_mut()?.next() {
                Some(node) => self.enter(node),
                None => drop(self.nodes.pop()),
            }
        }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (u32, &'a V);

    fn next(&mut self) -> Option<(u32, &'a V)> {
        let mix = self.mix;
        self.next_entry().map(|entry| (mix.unmix(entry.place), &entry.value))
    }
}

fn same<V>(a: &Node<V>, b: &Node<V>) -> bool {
    match (a, b) {
        (Node::Empty, Node::Empty) => true,
        (Node::Leaf(a), Node::Leaf(b)) => Arc::ptr_eq(a, b),
        (Node::Branch(a), Node::Branch(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

fn diff<'a, V: PartialEq>(
    old: &'a Node<V>,
    new: &'a Node<V>,
    mix: Mix,
    found: &mut dyn FnMut(u32, Option<&'a V>, Option<&'a V>),
) {
    if same(old, new) {
        return;
    }
    if let (Node::Branch(olds), Node::Branch(news)) = (old, new) {
        for (old, new) in olds.iter().zip(news.iter()) {
            diff(old, new, mix, found);
        }
        return;
    }
    // At least one side is a leaf or empty, so this walks at most one small subtree per side.
    let entries = |node: &'a Node<V>| {
        let mut iter = Iter { mix, nodes: Vec::new(), leaf: [].iter() };
        iter.enter(node);
        core::iter::from_fn(move || iter.next_entry()).peekable()
    };
    let (mut olds, mut news) = (entries(old), entries(new));
    loop {
        let (old_place, new_place) = match (olds.peek(), news.peek()) {
            (None, None) => return,
            (old, new) => (old.map(|entry| entry.place), new.map(|entry| entry.place)),
        };
        let take_old = old_place.is_some_and(|old| new_place.is_none_or(|new| old <= new));
        let take_new = new_place.is_some_and(|new| old_place.is_none_or(|old| new <= old));
        let old = if take_old { olds.next() } else { None };
        let new = if take_new { news.next() } else { None };
        let Some(place) = old.or(new).map(|entry| entry.place) else { return };
        let (old, new) = (old.map(|entry| &entry.value), new.map(|entry| &entry.value));
        if old != new {
            found(mix.unmix(place), old, new);
        }
    }
}

const BITS: u32 = 4;
const FAN_OUT: usize = 1 << BITS;
const TOP_SHIFT: u32 = u32::BITS - BITS;

/// Eight levels of four bits tell all places apart, and a leaf of the last level but one has at most 16 places: a leaf
/// never needs splitting where no bits are left.
const LEAF_MAX: usize = 32;
const _: () = assert!(LEAF_MAX >= FAN_OUT && u32::BITS.is_multiple_of(BITS));
