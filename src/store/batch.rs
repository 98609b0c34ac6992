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
    /// With what is known so far.
    trusted_len: usize,
    /// One for each peer, in the order in which they were first named.
    steps: Vec<Step>,
    /// How many of them were looked up: where `before` is known. The others are grants, a few at most: what they look at is
    /// being fetched meanwhile.
    known: usize,
    /// Which of them is whose, once they are more than a few.
    by_peer: BTreeMap<NodeId, usize>,
}

/// The last word on one peer.
#[derive(Clone, Copy, Debug)]
struct Step {
    peer: NodeId,
    before: Option<TrustRecord>,
    /// Of a revocation: nothing.
    after: Option<TrustRecord>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(tables: &'a Tables, trusted_max: usize) -> Self {
        let (steps, by_peer) = (Vec::new(), BTreeMap::new());
        Self { tables, trusted_max, trusted_len: tables.trusted_len(), steps, known: 0, by_peer }
    }

    fn number_of(&self, peer: NodeId) -> Option<usize> {
        if self.steps.len() > FEW {
            self.by_peer.get(&peer).copied()
        } else {
            self.steps.iter().position(|step| step.peer == peer)
        }
    }

    fn step(&self, peer: NodeId) -> Option<&Step> {
        self.steps.get(self.number_of(peer)?)
    }

    /// The number of the step about this peer, which is made if there is none.
    fn make_step(&mut self, peer: NodeId) -> usize {
        if let Some(number) = self.number_of(peer) {
            return number;
        }
        self.tables.trusted.fetch(peer);
        self.steps.push(Step { peer, before: None, after: None });
        let number = self.steps.len() - 1;
        if number == FEW {
            self.by_peer.extend(self.steps.iter().enumerate().map(|(number, step)| (step.peer, number)));
        } else if number > FEW {
            self.by_peer.insert(peer, number);
        }
        number
    }

    /// Looks up what was before all steps but the last few.
    fn look_up(&mut self, but: usize) {
        let to = self.steps.len().saturating_sub(but);
        for step in self.steps.get_mut(self.known..to).unwrap_or_default() {
            step.before = self.tables.trusted(step.peer);
            self.trusted_len += usize::from(step.before.is_none() && step.after.is_some());
        }
        self.known = self.known.max(to);
    }

    /// Trusts the peer; lifts a revocation and settles what was pending or outgoing.
    ///
    /// # Errors
    /// [`WriteError::Full`] if the store would hold more than its limit; the batch goes on without this record.
    pub fn grant(&mut self, record: TrustRecord) -> Result<(), WriteError<TrustRecord>> {
        if self.trusted_len + (self.steps.len() - self.known) >= self.trusted_max {
            self.look_up(0);
            if self.trusted_len >= self.trusted_max && !self.is_trusted(record.node_id) {
                return Err(WriteError::Full(record));
            }
        }
        let number = self.make_step(record.node_id);
        let is_known = number < self.known;
        if let Some(step) = self.steps.get_mut(number) {
            let is_new = step.after.replace(record).is_none();
            self.trusted_len += usize::from(is_known && is_new);
        }
        self.look_up(FETCHED_AHEAD);
        Ok(())
    }

    /// Revokes the peer and sets the lasting mark; returns its record if it was trusted.
    pub fn revoke(&mut self, peer: NodeId) -> Option<TrustRecord> {
        let was = self.get(peer);
        self.look_up(0);
        let number = self.make_step(peer);
        if let Some(step) = self.steps.get_mut(number) {
            if number >= self.known {
                (step.before, self.known) = (was, number + 1);
            }
            step.after = None;
        }
        self.trusted_len -= usize::from(was.is_some());
        was
    }

    /// Whether the peer is trusted, with what this batch did so far.
    #[must_use]
    pub fn is_trusted(&self, peer: NodeId) -> bool {
        match self.step(peer) {
            Some(step) => step.after.is_some(),
            None => self.tables.trusted.contains(peer),
        }
    }

    /// The peer's record, with what this batch did so far.
    #[must_use]
    pub fn get(&self, peer: NodeId) -> Option<TrustRecord> {
        match self.step(peer) {
            Some(step) => step.after,
            None => self.tables.trusted(peer),
        }
    }

    /// How many peers are trusted, with what this batch did so far.
    #[must_use]
    pub fn len(&self) -> usize {
        let unknown = self.steps.get(self.known..).unwrap_or_default();
        self.trusted_len + unknown.iter().filter(|step| !self.tables.trusted.contains(step.peer)).count()
    }

    /// Whether no peer is trusted, with what this batch did so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The changes of tables and the events that the batch comes to, in order of ids.
    pub(super) fn finish(mut self, now: WallMillis) -> (Vec<TableChange>, Vec<Event>) {
        self.look_up(0);
        if self.steps.len() > 1 {
            self.steps.sort_unstable_by_key(|step| step.peer);
        }
        let (mut changes, mut events) = (Vec::with_capacity(self.steps.len()), Vec::with_capacity(self.steps.len()));
        for Step { peer, before, after } in self.steps {
            let event = |state, reason| Event::TrustChanged { peer, state, reason };
            // The first revocation's time stays: it is what the mark remembers.
            let first = self.tables.revoked(peer);
            let revoked = if after.is_some() { None } else { Some(first.unwrap_or(now)) };
            if before != after {
                changes.push(TableChange::Trusted(peer, after));
                events.push(match after {
                    Some(_) => event(TrustState::Granted, ChangeReason::Direct),
                    None => event(TrustState::Revoked, ChangeReason::Revoked),
                });
            }
            if first != revoked {
                changes.push(TableChange::Revoked(peer, revoked));
                if first.is_none() {
                    events.push(Event::Revoked { peer });
                }
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

/// As many steps are looked through one by one.
const FEW: usize = 8;
/// How many look-ups are under way at the same time.
const FETCHED_AHEAD: usize = 8;
