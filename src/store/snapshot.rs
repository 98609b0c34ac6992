//! One moment of the trusted records, for as long as somebody wants to look at it.
#![forbid(unsafe_code)]

use super::receipt::Generation;
use super::shared::Version;
use crate::peer::{NodeId, TrustRecord};
use crate::sync::Arc;

/// The trusted records of one generation. Never changes; may outlive the store; keeps its memory while it lives.
#[derive(Clone)]
pub struct Snapshot(Arc<Version>);

/// One difference between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The peer was not trusted and now is.
    Granted(TrustRecord),
    /// The peer was trusted and still is, under other terms.
    Updated {
        /// The record before.
        old: TrustRecord,
        /// The record now.
        new: TrustRecord,
    },
    /// The peer was trusted and no longer is.
    Removed(TrustRecord),
}

impl Change {
    /// The peer concerned.
    #[must_use]
    pub const fn peer(&self) -> NodeId {
        match self {
            Self::Granted(record) | Self::Removed(record) | Self::Updated { new: record, .. } => record.node_id,
        }
    }
}

impl Snapshot {
    pub(super) fn new(version: Arc<Version>) -> Self {
        Self(version)
    }

    /// How many peers are trusted.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.0.trusted.len()
    }

    /// Whether no peer is trusted.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The peer's record, if it is trusted.
    #[must_use]
    #[inline]
    pub fn get(&self, peer: NodeId) -> Option<TrustRecord> {
        self.0.trusted.get(peer)
    }

    /// Whether the peer is trusted.
    #[must_use]
    #[inline]
    pub fn contains(&self, peer: NodeId) -> bool {
        self.0.trusted.contains(peer)
    }

    /// All records, by id.
    ///
    /// # Complexity
    /// Sorts the ids first: n log n time and four bytes for each record.
    pub fn iter(&self) -> impl Iterator<Item = TrustRecord> {
        let mut peers: Vec<NodeId> = self.0.trusted.iter().map(|record| record.node_id).collect();
        peers.sort_unstable();
        peers.into_iter().filter_map(|peer| self.get(peer))
    }

    /// The generation that this is.
    #[must_use]
    #[inline]
    pub fn generation(&self) -> Generation {
        Generation::new(self.0.generation)
    }

    /// What differs from an older snapshot of the same store, in no particular order.
    ///
    /// # Complexity
    /// Proportional to what changed. Between snapshots of different stores, proportional to both.
    pub fn diff(&self, older: &Self) -> impl Iterator<Item = Change> {
        let mut changes = Vec::new();
        let mut found = |old: Option<TrustRecord>, new: Option<TrustRecord>| match (old, new) {
            (None, Some(new)) => changes.push(Change::Granted(new)),
            (Some(old), None) => changes.push(Change::Removed(old)),
            (Some(old), Some(new)) => changes.push(Change::Updated { old, new }),
            (None, None) => {}
        };
        let (new, old) = (&self.0.trusted, &older.0.trusted);
        if new.mix() == old.mix() {
            new.diff(old, &mut found);
        } else {
            for record in new.iter() {
                let before = old.get(record.node_id);
                if before != Some(record) {
                    found(before, Some(record));
                }
            }
            for record in old.iter().filter(|record| !new.contains(record.node_id)) {
                found(Some(record), None);
            }
        }
        changes.into_iter()
    }
}

impl core::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Snapshot").field("generation", &self.0.generation).field("len", &self.len()).finish()
    }
}
