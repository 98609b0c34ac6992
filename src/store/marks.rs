//! Revocations besides those of one peer: lifting and forgetting them, keys, and what is revoked or ignored now.
//!
//! INVARIANT I-S4: a key is marked before the records under it are searched, and no grant under a marked key is let in. So
//! nobody is trusted under the key once `revoke_key` has returned, or the store was opened again.
#![forbid(unsafe_code)]

use super::batch::{Batch, FreshMarks};
use super::receipt::{KeyRevoked, Receipt};
use super::shared::{TransactError, Transaction};
use super::{Generation, TrustStore};
use crate::error::WriteError;
use crate::event::Event;
use crate::peer::{NodeId, PublicKey, RevocationId, TrustRecord};
use crate::tables::forget::forgotten;
use crate::tables::refuse::spoken_of;
use crate::tables::table::Table as _;
use crate::tables::{Marks, Revocation, TableChange, Tables};
use crate::time::WallMillis;

impl TrustStore {
    /// Trusts a peer, and lifts the revocation that was shown, of the peer or of the key, in the same change.
    ///
    /// # Ordering
    /// As [`TrustStore::grant`].
    ///
    /// # Errors
    /// As [`TrustStore::grant`]. [`WriteError::Revoked`] has the revocation in force if that is another one.
    ///
    /// # Examples
    /// ```
    /// use trustkeep::{NodeId, TrustRecord, TrustStore, WriteError};
    /// let store = TrustStore::in_memory();
    /// let peer = NodeId::new(7).ok_or("no id")?;
    /// drop(store.revoke(peer)?);
    /// let Err(WriteError::Revoked { value, mark }) = store.grant(TrustRecord::new(peer, None)) else {
    ///     return Err("a revoked peer is not trusted unasked".into());
    /// };
    /// drop(store.grant_lifting(value, mark.id)?);
    /// assert!(store.is_trusted(peer) && !store.is_revoked(peer));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn grant_lifting(&self, record: TrustRecord, lift: RevocationId) -> Result<Receipt, WriteError<TrustRecord>> {
        self.grant_with(record, Some(lift))
    }

    /// Ends trust in a peer without a mark; the record, if it was trusted.
    ///
    /// # Errors
    /// [`WriteError`] with the id; nothing changed.
    pub fn remove(&self, peer: NodeId) -> Result<(Option<TrustRecord>, Receipt), WriteError<NodeId>> {
        self.update(|batch| batch.remove(peer)).map_err(|error| error.map(|()| peer))
    }

    /// Takes the mark of a revoked peer away, and trusts nobody by that; the mark, if there was one.
    ///
    /// # Errors
    /// [`WriteError`] with the id; nothing changed.
    pub fn forget_revocation(&self, peer: NodeId) -> Result<(Option<Revocation>, Receipt), WriteError<NodeId>> {
        self.update(|batch| batch.forget_revocation(peer)).map_err(|error| error.map(|()| peer))
    }

    /// Revokes a key: nobody is trusted under it any more, whatever its id, until an operator lifts that.
    ///
    /// # Ordering
    /// The mark is in force first, and holds off every grant. Then the records are searched without the writer lock, and ended
    /// 256 at a time. Every read that begins after this returned finds nobody trusted under the key.
    ///
    /// # Durability
    /// As the receipt says. If the process ends before, the records end when the store is opened again with the mark.
    ///
    /// # Complexity
    /// Proportional to the trusted peers, and to those whose keys have named another.
    ///
    /// # Errors
    /// [`WriteError::Full`] if as many keys are revoked as [`Limits::revoked_keys_max`](crate::config::Limits::revoked_keys_max)
    /// allows: nothing changed. [`WriteError::Closed`] if the store was closed, perhaps meanwhile.
    pub fn revoke_key(&self, key: &PublicKey) -> Result<KeyRevoked, WriteError<PublicKey>> {
        let fresh = |salt| FreshMarks { at: self.shared.now().wall, salt };
        let limit = self.shared.limits.revoked_keys_max;
        let marked = self.transact(|tables| {
            let first = tables.sides.revoked_keys.get(*key).copied();
            if first.is_none() && tables.sides.revoked_keys.len() >= limit {
                return Err(WriteError::Full(()));
            }
            let (mut changes, mut events) = (under_key(tables, key), Vec::new());
            let fresh = fresh(self.shared.salt());
            let mark = fresh.after_key(first, key, !changes.is_empty());
            // R-171
            let pending = tables.sides.pending.iter().map(|(peer, entry)| (peer, &**entry));
            let refused = spoken_of(pending, |_, shown| shown.as_ref() == Some(key));
            changes.extend(tables.remembered(&refused, fresh.at, self.shared.limits.pending_max));
            if first != Some(mark) {
                changes.push(TableChange::RevokedKey(*key, Some(mark)));
                events.push(Event::KeyRevoked { fingerprint: key.fingerprint() });
            }
            Ok(Transaction { changes, events, value: first })
        });
        let (marked, mut receipt) = marked.map_err(|error| match error {
            TransactError::Refused(error) | TransactError::Write(error) => error.map(|()| *key),
        })?;
        let tables = self.tables().ok_or(WriteError::Reentrant(*key))?;
        let under = tables.trusted.iter().filter(|record| record.public_key.as_ref() == Some(key));
        let under: Vec<NodeId> = under.map(|record| record.node_id).chain(tables.whose_keys_named(key)).collect();
        drop(tables);
        let mut ended = Vec::new();
        for peers in under.chunks(ENDED_AT_ONCE) {
            let end = |batch: &mut Batch<'_>| {
                peers.iter().copied().filter(|peer| batch.end_under(*peer, key)).collect::<Vec<_>>()
            };
            let (of_these, newest) = self.update(end).map_err(|error| error.map(|()| *key))?;
            ended.extend(of_these);
            receipt = newest;
        }
        let named = self.tables().map(|tables| tables.trusted_by_word_of(key, self.shared.now().wall));
        Ok(KeyRevoked::new(receipt, ended, named.unwrap_or_default(), marked))
    }

    /// Takes the mark of a revoked key away; the mark, if there was one.
    ///
    /// # Errors
    /// [`WriteError`] with the key; nothing changed.
    pub fn forget_key_revocation(
        &self,
        key: &PublicKey,
    ) -> Result<(Option<Revocation>, Receipt), WriteError<PublicKey>> {
        let forgotten = self.transact(|tables| {
            let value = tables.sides.revoked_keys.get(*key).copied();
            let events = value.map(|_| Event::KeyRevocationForgotten { fingerprint: key.fingerprint() });
            let changes = vec![TableChange::RevokedKey(*key, None)];
            Ok::<_, core::convert::Infallible>(Transaction { changes, events: events.into_iter().collect(), value })
        });
        forgotten.map_err(|error| match error {
            TransactError::Refused(never) => match never {},
            TransactError::Write(error) => error.map(|()| *key),
        })
    }

    /// Every revoked peer with its mark, of one moment, by id.
    ///
    /// # Ordering
    /// Wait-free but for the vector; what is published, in a forked process what was published when it forked, and inside the
    /// closure of `update` the state before it: there ask [`Batch::marks`].
    ///
    /// # Complexity
    /// Linear in the revoked peers.
    #[must_use]
    pub fn revoked(&self) -> Vec<(NodeId, Revocation)> {
        let marks = self.shared.cell().with(|version| version.revoked.clone());
        let mut marks: Vec<_> = marks.iter().map(|(peer, mark)| (peer, *mark)).collect();
        marks.sort_unstable_by_key(|(peer, _)| *peer);
        marks
    }

    /// The mark of a peer, if it is revoked.
    ///
    /// # Ordering
    /// Wait-free; otherwise as [`TrustStore::revoked`].
    ///
    /// # Complexity
    /// Logarithmic in the revoked peers, and no allocation.
    #[must_use]
    pub fn revocation(&self, peer: NodeId) -> Option<Revocation> {
        self.shared.cell().with(|version| version.revoked.get(peer).copied())
    }

    /// Whether a peer is revoked.
    ///
    /// # Ordering
    /// As [`TrustStore::revocation`].
    #[must_use]
    pub fn is_revoked(&self, peer: NodeId) -> bool {
        self.revocation(peer).is_some()
    }

    /// Every revoked key with its mark, of one moment, by key.
    ///
    /// # Ordering
    /// As [`TrustStore::revoked`].
    #[must_use]
    pub fn revoked_keys(&self) -> Vec<(PublicKey, Revocation)> {
        let marks = self.shared.cell().with(|version| version.revoked_keys.clone());
        by_key(marks.iter().map(|(key, mark)| (key, *mark)))
    }

    /// The mark of a key, if it is revoked.
    ///
    /// # Ordering
    /// As [`TrustStore::revocation`].
    #[must_use]
    pub fn key_revocation(&self, key: &PublicKey) -> Option<Revocation> {
        self.shared.cell().with(|version| version.revoked_keys.get(*key).copied())
    }

    /// The marks of a peer and a key, of one moment. Wait-free.
    pub(crate) fn marks(&self, peer: NodeId, key: &PublicKey) -> Marks {
        let cell = self.shared.cell();
        cell.with(|version| Marks::new(version.revoked.get(peer).copied(), version.revoked_keys.get(*key).copied()))
    }

    /// Every ignored peer with since when, of one moment, by id.
    pub(crate) fn ignored(&self) -> Vec<(NodeId, WallMillis)> {
        let tables = self.tables();
        let mut ignored: Vec<_> =
            tables.iter().flat_map(|tables| tables.sides.ignored.iter()).map(|(peer, at)| (peer, *at)).collect();
        ignored.sort_unstable_by_key(|(peer, _)| *peer);
        ignored
    }

    /// Every ignored key with since when, of one moment, by key.
    pub(crate) fn ignored_keys(&self) -> Vec<(PublicKey, WallMillis)> {
        let tables = self.tables();
        by_key(tables.iter().flat_map(|tables| tables.sides.ignored_keys.iter()).map(|(key, at)| (key, *at)))
    }

    /// Ends what a search that was cut short left behind. I-S4.
    pub(super) fn end_trust_under_revoked_keys(&self) -> Option<Generation> {
        let tables = self.tables()?;
        let keys = &tables.sides.revoked_keys;
        if keys.len() == 0 {
            return None;
        }
        let under = tables.trusted.iter().filter_map(|record| Some((record.node_id, record.public_key?)));
        let mut under: Vec<_> = under.filter(|(_, key)| keys.get(*key).is_some()).collect();
        if !under.is_empty() {
            tracing::warn!(records = under.len(), "trust under revoked keys ends");
        }
        // R-270
        let named = tables.sides.successors.iter().flat_map(|(peer, all)| all.iter().map(move |it| (peer, it)));
        let named = named.filter(|(_, it)| it.void.is_none() && it.old != it.new && keys.get(it.new).is_some());
        under.extend(named.map(|(peer, it)| (peer, it.new)));
        if under.is_empty() {
            return None;
        }
        let mut newest = None;
        for peers in under.chunks(ENDED_AT_ONCE) {
            let ended = self.update(|batch| peers.iter().filter(|(peer, key)| batch.end_under(*peer, key)).count());
            newest = ended.ok().map(|(_, receipt)| receipt.generation());
        }
        newest
    }
}

/// What waits under a key, or asks for it, goes with the mark.
fn under_key(tables: &Tables, key: &PublicKey) -> Vec<TableChange> {
    let pending = tables.sides.pending.iter().map(|(peer, entry)| (peer, &**entry));
    let outgoing = tables.sides.outgoing.iter().map(|(peer, entry)| (peer, &**entry));
    forgotten(pending, outgoing, |_, shown| shown.as_ref() == Some(key))
}

fn by_key<V>(entries: impl Iterator<Item = (PublicKey, V)>) -> Vec<(PublicKey, V)> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    entries
}

/// How many records end in one critical section of the writer lock.
const ENDED_AT_ONCE: usize = 256;

#[cfg(all(test, feature = "handshake", not(trustkeep_loom)))]
mod named_tests;
#[cfg(all(test, feature = "handshake", not(trustkeep_loom)))]
mod tests;
