//! One moment of the trusted records and the marks, for as long as somebody wants to look at it.
#![forbid(unsafe_code)]

use super::TrustStore;
use super::receipt::Generation;
use super::shared::Version;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::sync::Arc;
use crate::tables::Revocation;
use crate::tables::table::Table as _;

/// The trusted records, and the revoked peers and keys, of one generation. Never changes; may outlive the store; keeps its memory while it lives.
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

impl TrustStore {
    /// The peers that are trusted under this key, by id; as [`Snapshot::find_by_key`] of a snapshot taken now.
    ///
    /// # Ordering
    /// Lock-free: takes one snapshot.
    ///
    /// # Complexity
    /// O(n): there is no index by key, so each record is looked at.
    #[must_use]
    pub fn find_by_key(&self, key: &PublicKey) -> Vec<NodeId> {
        self.snapshot().find_by_key(key)
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

    /// The peers that are trusted under this key, by id: none, one, or several that share it.
    ///
    /// # Complexity
    /// O(n): there is no index by key, so each record is looked at. Where every connection needs this, keep a map of your
    /// own and follow it with [`diff`](Self::diff) or with events.
    ///
    /// # Examples
    /// ```
    /// use trustkeep::{NodeId, PublicKey, TrustRecord, TrustStore};
    ///
    /// let key: PublicKey = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=".parse()?;
    /// let peer = NodeId::new(9).ok_or("0 is no id")?;
    /// let store = TrustStore::in_memory();
    /// store.grant(TrustRecord::new(peer, key))?;
    /// assert_eq!(store.find_by_key(&key), [peer]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn find_by_key(&self, key: &PublicKey) -> Vec<NodeId> {
        let under = self.0.trusted.iter().filter(|record| record.public_key.as_ref() == Some(key));
        let mut peers: Vec<NodeId> = under.map(|record| record.node_id).collect();
        peers.sort_unstable();
        peers
    }

    /// All records, by id.
    ///
    /// # Complexity
    /// Sorts the ids first: n log n time and four bytes for each record.
    pub fn iter(&self) -> SnapshotIter<'_> {
        let mut peers: Vec<NodeId> = self.0.trusted.iter().map(|record| record.node_id).collect();
        peers.sort_unstable();
        SnapshotIter { snapshot: self, peers: peers.into_iter() }
    }

    /// All records, in no order.
    #[cfg(feature = "cli")]
    pub(crate) fn iter_unsorted(&self) -> impl Iterator<Item = TrustRecord> {
        self.0.trusted.iter()
    }

    /// Every revoked peer with its mark: since when it is revoked, and the id of that revocation. In no particular order, which
    /// is the same each time.
    ///
    /// The records of this snapshot and the marks are of one moment: no peer is in both.
    ///
    /// # Ordering
    /// Wait-free; no later change shows.
    ///
    /// # Complexity
    /// Constant for each item, and no allocation: a million marks are listed in the memory of one.
    ///
    /// # Examples
    /// ```
    /// use trustkeep::{NodeId, TrustStore};
    ///
    /// let store = TrustStore::in_memory();
    /// let nine = NodeId::new(9).unwrap();
    /// let before = store.snapshot();
    /// let _receipt = store.revoke(nine)?;
    /// let after = store.snapshot();
    /// assert_eq!((before.revoked().count(), after.revoked().count()), (0, 1));
    /// assert_eq!(after.revocation(nine), store.revocation(nine));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn revoked(&self) -> impl Iterator<Item = (NodeId, Revocation)> {
        self.0.revoked.iter().map(|(peer, mark)| (peer, *mark))
    }

    /// How many peers are revoked.
    ///
    /// # Ordering
    /// Wait-free.
    #[must_use]
    #[inline]
    pub fn revoked_len(&self) -> usize {
        self.0.revoked.len()
    }

    /// The mark of a peer, if it is revoked: since when, and the id of that revocation.
    ///
    /// # Ordering
    /// Wait-free.
    ///
    /// # Complexity
    /// Logarithmic in the revoked peers, and no allocation.
    #[must_use]
    pub fn revocation(&self, peer: NodeId) -> Option<Revocation> {
        self.0.revoked.get(peer).copied()
    }

    /// Whether a peer is revoked.
    ///
    /// # Ordering
    /// Wait-free.
    ///
    /// # Complexity
    /// As [`revocation`](Self::revocation).
    #[must_use]
    pub fn is_revoked(&self, peer: NodeId) -> bool {
        self.revocation(peer).is_some()
    }

    /// Every revoked key with its mark, in no particular order, which is the same each time.
    ///
    /// # Ordering
    /// Wait-free; no later change shows.
    ///
    /// # Complexity
    /// As [`revoked`](Self::revoked).
    pub fn revoked_keys(&self) -> impl Iterator<Item = (PublicKey, Revocation)> {
        self.0.revoked_keys.iter().map(|(key, mark)| (key, *mark))
    }

    /// How many keys are revoked.
    ///
    /// # Ordering
    /// Wait-free.
    #[must_use]
    #[inline]
    pub fn revoked_keys_len(&self) -> usize {
        self.0.revoked_keys.len()
    }

    /// The mark of a key, if it is revoked: since when, and the id of that revocation.
    ///
    /// A revoked key says nothing of an id: ask [`revocation`](Self::revocation) as well.
    ///
    /// # Ordering
    /// Wait-free.
    ///
    /// # Complexity
    /// Logarithmic in the revoked keys, and no allocation.
    #[must_use]
    pub fn key_revocation(&self, key: &PublicKey) -> Option<Revocation> {
        self.0.revoked_keys.get(*key).copied()
    }

    /// Whether a key is revoked.
    ///
    /// # Ordering
    /// Wait-free.
    ///
    /// # Complexity
    /// As [`key_revocation`](Self::key_revocation).
    #[must_use]
    pub fn is_key_revoked(&self, key: &PublicKey) -> bool {
        self.key_revocation(key).is_some()
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

/// The records of a [`Snapshot`], by id.
#[derive(Clone, Debug)]
pub struct SnapshotIter<'a> {
    snapshot: &'a Snapshot,
    peers: std::vec::IntoIter<NodeId>,
}

impl Iterator for SnapshotIter<'_> {
    type Item = TrustRecord;

    fn next(&mut self) -> Option<TrustRecord> {
        self.peers.next().and_then(|peer| self.snapshot.get(peer))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.peers.size_hint()
    }
}

impl ExactSizeIterator for SnapshotIter<'_> {}
impl core::iter::FusedIterator for SnapshotIter<'_> {}

impl<'a> IntoIterator for &'a Snapshot {
    type Item = TrustRecord;
    type IntoIter = SnapshotIter<'a>;

    fn into_iter(self) -> SnapshotIter<'a> {
        self.iter()
    }
}

impl core::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Snapshot").field("generation", &self.0.generation).field("len", &self.len()).finish()
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
#[allow(clippy::unwrap_used, reason = "tests say what must hold by panicking")]
mod tests {
    use super::*;
    use crate::store::TrustStore;

    fn record(number: u32, network: u16) -> TrustRecord {
        TrustRecord::new(NodeId::new(number).unwrap(), None).network(network)
    }

    fn snapshot(records: &[TrustRecord]) -> Snapshot {
        let store = TrustStore::in_memory();
        records.iter().for_each(|record| drop(store.grant(*record).unwrap()));
        store.snapshot()
    }

    #[test]
    fn two_stores_differ_by_what_was_granted_updated_and_removed() {
        let old = snapshot(&[record(1, 0), record(2, 0), record(3, 0)]);
        let new = snapshot(&[record(2, 0), record(3, 5), record(4, 0)]);
        let sorted = |changes: &mut dyn Iterator<Item = Change>| {
            let mut changes: Vec<Change> = changes.collect();
            changes.sort_by_key(Change::peer);
            changes
        };
        let forth = [
            Change::Removed(record(1, 0)),
            Change::Updated { old: record(3, 0), new: record(3, 5) },
            Change::Granted(record(4, 0)),
        ];
        let back = [
            Change::Granted(record(1, 0)),
            Change::Updated { old: record(3, 5), new: record(3, 0) },
            Change::Removed(record(4, 0)),
        ];
        assert_eq!(sorted(&mut new.diff(&old)), forth);
        assert_eq!(sorted(&mut old.diff(&new)), back);
        assert_eq!(new.diff(&snapshot(&[record(4, 0), record(3, 5), record(2, 0)])).count(), 0, "the same records");
    }
}
