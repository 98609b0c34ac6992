//! The immutable, persistent map of trusted records.
//!
//! Laws, checked against `BTreeMap` in `tests` below: a version never changes once made, whatever is derived from it;
//! `apply` sees the version it is called on and nothing newer; iteration and `diff` are functions of the contents;
//! `diff` takes time in proportion to what changed. History is linear: only the store's writer derives versions, each
//! from the newest. Whoever puts a faster map here keeps this interface and these laws.
#![forbid(unsafe_code)]

pub(crate) mod mix;
pub(crate) mod trie;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests;

use crate::peer::{NodeId, TrustRecord};
use mix::Mix;
use trie::Trie;

/// One version of the set of trusted records.
#[derive(Clone, Debug)]
pub(crate) struct TrustMap(Trie<TrustRecord>);

impl TrustMap {
    pub(crate) fn new(mix: Mix) -> Self {
        Self(Trie::new(mix))
    }

    /// The map of these records, which come in ascending order of place without repeats.
    pub(crate) fn from_sorted(mix: Mix, records: impl Iterator<Item = TrustRecord>) -> Self {
        Self(Trie::from_sorted(mix, records.map(|record| (record.node_id.get(), record))))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bijection that orders this map.
    pub(crate) fn mix(&self) -> Mix {
        self.0.mix()
    }

    pub(crate) fn contains(&self, peer: NodeId) -> bool {
        self.0.get(peer.get()).is_some()
    }

    pub(crate) fn get(&self, peer: NodeId) -> Option<&TrustRecord> {
        self.0.get(peer.get())
    }

    /// The next version. A peer occurs at most once among the changes.
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = (NodeId, Option<TrustRecord>)>) -> Self {
        Self(self.0.apply(changes.into_iter().map(|(peer, record)| (peer.get(), record))))
    }

    /// All records in ascending order of place.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TrustRecord> {
        self.0.iter().map(|(_, record)| record)
    }

    /// Calls `found(old, new)` for every peer whose record differs.
    pub(crate) fn diff<'a>(
        &'a self,
        older: &'a Self,
        found: &mut dyn FnMut(Option<&'a TrustRecord>, Option<&'a TrustRecord>),
    ) {
        self.0.diff(&older.0, &mut |_, old, new| found(old, new));
    }
}
