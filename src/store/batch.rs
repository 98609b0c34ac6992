//! Several changes that are published as one.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::error::WriteError;
use crate::machine::event::{ChangeReason, Event, TrustState};
use crate::machine::tables::Tables;
use crate::machine::view::{TableChange, View as _};
use crate::peer::{NodeId, TrustRecord};
use crate::time::WallMillis;

/// Changes being gathered inside `TrustStore::update`; later ones see earlier ones.
#[derive(Debug)]
pub struct Batch<'a> {
    tables: &'a Tables,
    trusted_max: usize,
    trusted_len: usize,
    steps: BTreeMap<NodeId, Step>,
}

/// The last word on one peer.
#[derive(Clone, Copy, Debug)]
enum Step {
    Grant(TrustRecord),
    Revoke,
}

impl<'a> Batch<'a> {
    pub(super) fn new(tables: &'a Tables, trusted_max: usize) -> Self {
        Self { tables, trusted_max, trusted_len: tables.trusted_len(), steps: BTreeMap::new() }
    }

    /// Trusts the peer; lifts a revocation and settles what was pending or outgoing.
    ///
    /// # Errors
    /// [`WriteError::Full`] if the store would hold more than its limit; the batch goes on without this record.
    pub fn grant(&mut self, record: TrustRecord) -> Result<(), WriteError<TrustRecord>> {
        if !self.is_trusted(record.node_id) {
            if self.trusted_len >= self.trusted_max {
                return Err(WriteError::Full(record));
            }
            self.trusted_len += 1;
        }
        self.steps.insert(record.node_id, Step::Grant(record));
        Ok(())
    }

    /// Revokes the peer and sets the lasting mark; returns its record if it was trusted.
    pub fn revoke(&mut self, peer: NodeId) -> Option<TrustRecord> {
        let was = self.get(peer);
        if was.is_some() {
            self.trusted_len -= 1;
        }
        self.steps.insert(peer, Step::Revoke);
        was
    }

    /// Whether the peer is trusted, with what this batch did so far.
    #[must_use]
    pub fn is_trusted(&self, peer: NodeId) -> bool {
        match self.steps.get(&peer) {
            Some(step) => matches!(step, Step::Grant(_)),
            None => self.tables.trusted.contains(peer),
        }
    }

    /// The peer's record, with what this batch did so far.
    #[must_use]
    pub fn get(&self, peer: NodeId) -> Option<TrustRecord> {
        match self.steps.get(&peer) {
            Some(Step::Grant(record)) => Some(*record),
            Some(Step::Revoke) => None,
            None => self.tables.trusted(peer),
        }
    }

    /// How many peers are trusted, with what this batch did so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.trusted_len
    }

    /// Whether no peer is trusted, with what this batch did so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trusted_len == 0
    }

    /// The changes of tables and the events that the batch comes to, in order of ids.
    pub(super) fn finish(self, now: WallMillis) -> (Vec<TableChange>, Vec<Event>) {
        let (mut changes, mut events) = (Vec::with_capacity(self.steps.len()), Vec::new());
        for (peer, step) in self.steps {
            let before = self.tables.trusted(peer);
            let event = |state, reason| Event::TrustChanged { peer, state, reason };
            let revoked = match step {
                Step::Grant(record) => {
                    changes.push(TableChange::Trusted(peer, Some(record)));
                    if before != Some(record) {
                        events.push(event(TrustState::Granted, ChangeReason::Direct));
                    }
                    None
                }
                Step::Revoke => {
                    if before.is_some() {
                        changes.push(TableChange::Trusted(peer, None));
                        events.push(event(TrustState::Revoked, ChangeReason::Revoked));
                    }
                    // The first revocation's time stays: it is what the mark remembers.
                    let first = self.tables.revoked(peer);
                    if first.is_none() {
                        events.push(Event::Revoked { peer });
                    }
                    Some(first.unwrap_or(now))
                }
            };
            if self.tables.revoked(peer) != revoked {
                changes.push(TableChange::Revoked(peer, revoked));
            }
            if self.tables.pending(peer).is_some() {
                changes.push(TableChange::Pending(peer, None));
            }
            if self.tables.outgoing(peer).is_some() {
                changes.push(TableChange::Outgoing(peer, None));
            }
        }
        (changes, events)
    }
}
