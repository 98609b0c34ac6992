//! Several changes that are published as one.
#![forbid(unsafe_code)]

mod outcome;

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;

use crate::config::Limits;
use crate::error::WriteError;
use crate::event::{ChangeReason, Event};
use crate::map::Value;
use crate::peer::{NodeId, PublicKey, RevocationId, TrustRecord};
use crate::tables::draft::Draft;
use crate::tables::table::Table as _;
use crate::tables::{Marks, Revocation, Tables};
pub(super) use outcome::{FreshMarks, grant_one, refused};
use outcome::{MarkBecomes, Outcome, Says};

/// Changes being gathered inside `TrustStore::update`; later ones see earlier ones.
pub struct Batch<'a> {
    tables: &'a Tables,
    fresh: FreshMarks,
    /// Whether any peer or key is marked, with what is known so far. Mostly not, and then no grant looks for a mark.
    is_any_marked: bool,
    /// Keys whose marks were lifted or forgotten.
    lifted_keys: Vec<PublicKey>,
    /// Peers of which a key has named one that is revoked.
    named_in_vain: Vec<(NodeId, PublicKey)>,
    trusted_max: usize,
    pending_max: usize,
    /// With what is known so far.
    trusted_len: usize,
    /// One for each peer, in the order in which they were first named.
    steps: Vec<Step<'a>>,
    /// How many of them were looked up: where `before` is known. The others are grants, a few at most: what they look at is
    /// being fetched meanwhile.
    known: usize,
    /// Which of them is whose, once they are more than a few.
    by_place: HashMap<u32, usize, BuildHasherDefault<PlaceHasher>>,
}

/// The last word on one peer. What is long about it is in the form of the map, and written once.
#[derive(Debug)]
struct Step<'a> {
    peer: NodeId,
    place: u32,
    says: Says,
    before: Option<&'a Value>,
}

const _: () = assert!(size_of::<Step<'_>>() <= 64);

/// A place is spread already, by a seed that nobody knows; it is brought to where the table looks.
#[derive(Clone, Copy, Debug, Default)]
struct PlaceHasher(u64);

impl Hasher for PlaceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, place: u32) {
        self.0 = self.0.rotate_left(32) ^ (u64::from(place) << 32 | u64::from(place));
    }
}

impl core::fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Batch").field("peers", &self.steps.len()).finish_non_exhaustive()
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(tables: &'a Tables, fresh: FreshMarks, limits: &Limits) -> Self {
        let is_any_marked = tables.sides.revoked.len() > 0 || tables.sides.revoked_keys.len() > 0;
        Self {
            tables,
            fresh,
            is_any_marked,
            lifted_keys: Vec::new(),
            named_in_vain: Vec::new(),
            trusted_max: limits.trusted_max,
            pending_max: limits.pending_max,
            trusted_len: tables.trusted.len(),
            steps: Vec::new(),
            known: 0,
            by_place: HashMap::default(),
        }
    }

    fn number_of(&self, peer: NodeId) -> Option<usize> {
        if self.steps.len() > FEW {
            self.by_place.get(&self.tables.trusted.place(peer)).copied()
        } else {
            self.steps.iter().position(|step| step.peer == peer)
        }
    }

    fn step(&self, peer: NodeId) -> Option<&Step<'a>> {
        self.steps.get(self.number_of(peer)?)
    }

    /// Has the last word on this peer be this; returns the number of its step, and whether it had one that trusted it.
    fn put(&mut self, peer: NodeId, says: Says) -> (usize, bool) {
        if let Some(number) = self.number_of(peer)
            && let Some(step) = self.steps.get_mut(number)
        {
            let was = step.says;
            step.says = says.after(was.mark());
            return (number, was.value().is_some());
        }
        let place = self.tables.trusted.place(peer);
        self.tables.trusted.fetch(peer);
        let number = self.steps.len();
        if number == FEW {
            let before = self.steps.iter().zip(0..).map(|(step, number)| (step.place, number));
            self.by_place.extend(before);
        }
        if number >= FEW {
            self.by_place.insert(place, number);
        }
        self.steps.push(Step { peer, place, says, before: None });
        (number, false)
    }

    /// Looks up what was before all steps but the last few.
    fn look_up(&mut self, but: usize) {
        let to = self.steps.len().saturating_sub(but);
        for step in self.steps.get_mut(self.known..to).unwrap_or_default() {
            step.before = self.tables.trusted.value(step.peer);
            self.trusted_len += usize::from(step.before.is_none() && step.says.value().is_some());
        }
        self.known = self.known.max(to);
    }

    /// Trusts the peer, and settles what was pending or outgoing.
    ///
    /// # Errors
    /// [`WriteError::Full`] if the store would hold more than its limit. [`WriteError::Revoked`] if the peer or the key is
    /// marked as revoked, with what this batch did so far. The batch goes on without this record.
    pub fn grant(&mut self, record: TrustRecord) -> Result<(), WriteError<TrustRecord>> {
        self.grant_with(record, None)
    }

    /// The same, lifting the revocation that was shown: its mark goes together with this grant.
    ///
    /// # Errors
    /// As [`Batch::grant`]; [`WriteError::Revoked`] if another revocation is in force.
    pub fn grant_lifting(&mut self, record: TrustRecord, lift: RevocationId) -> Result<(), WriteError<TrustRecord>> {
        self.grant_with(record, Some(lift))
    }

    fn grant_with(&mut self, record: TrustRecord, lift: Option<RevocationId>) -> Result<(), WriteError<TrustRecord>> {
        let mut mark = MarkBecomes::Same;
        if self.is_any_marked {
            let marks = self.marks(record.node_id, record.public_key.as_ref());
            if let Some(marked) = marks.not_lifted_by(lift) {
                return Err(refused(record, marked));
            }
            if marks.peer.is_some() {
                mark = MarkBecomes::Gone;
            }
            self.lifted_keys.extend(record.public_key.filter(|_| marks.key.is_some()));
        }
        if self.trusted_len + (self.steps.len() - self.known) >= self.trusted_max {
            self.look_up(0);
            if self.trusted_len >= self.trusted_max && !self.is_trusted(record.node_id) {
                return Err(WriteError::Full(record));
            }
        }
        let value = Value::of(&record);
        let says = if mark == MarkBecomes::Gone { Says::Lifted(value) } else { Says::Trusted(value) };
        let (number, was) = self.put(record.node_id, says);
        self.trusted_len += usize::from(number < self.known && !was);
        self.look_up(FETCHED_AHEAD);
        Ok(())
    }

    /// The marks that a grant would have to lift, with what this batch did so far.
    #[must_use]
    pub fn marks(&self, peer: NodeId, key: Option<&PublicKey>) -> Marks {
        let mut marks = self.tables.marks(peer, key.filter(|key| !self.lifted_keys.contains(key)));
        match self.step(peer).map(|step| step.says.mark()) {
            Some(MarkBecomes::Set) => marks.peer = Some(self.fresh.after(self.tables, peer)),
            Some(MarkBecomes::Gone | MarkBecomes::Undone) => marks.peer = None,
            Some(MarkBecomes::Same) | None => {}
        }
        marks
    }

    /// Revokes the peer and sets the lasting mark, whatever is known of it; returns its record if it was trusted.
    ///
    /// There is no such call for a key: the records under it are searched outside the writer lock, so
    /// [`TrustStore::revoke_key`](super::TrustStore::revoke_key) is several changes.
    pub fn revoke(&mut self, peer: NodeId) -> Option<TrustRecord> {
        self.is_any_marked = true;
        self.end(peer, ChangeReason::Revoked, MarkBecomes::Set)
    }

    /// Ends trust in the peer without a mark; returns its record if it was trusted.
    pub fn remove(&mut self, peer: NodeId) -> Option<TrustRecord> {
        if self.is_trusted(peer) { self.end(peer, ChangeReason::Removed, MarkBecomes::Same) } else { None }
    }

    /// Takes the mark of a revoked peer away, and trusts nobody by that; returns the mark.
    pub fn forget_revocation(&mut self, peer: NodeId) -> Option<Revocation> {
        let mark = self.marks(peer, None).peer?;
        self.end(peer, ChangeReason::Removed, MarkBecomes::Gone);
        Some(mark)
    }

    /// Whether the peer waits, whether we asked it, and its mark: before this batch.
    pub(super) fn found(&self, peer: NodeId) -> (bool, bool, Option<Revocation>) {
        let sides = &self.tables.sides;
        (sides.pending.get(peer).is_some(), sides.outgoing.get(peer).is_some(), sides.revoked.get(peer).copied())
    }

    /// Ends trust in the peer if its record is under this key, which is revoked; what its keys have said of that is void.
    pub(super) fn end_under(&mut self, peer: NodeId, key: &PublicKey) -> bool {
        self.named_in_vain.push((peer, *key));
        let is_under_it = self.get(peer).is_some_and(|record| record.public_key.as_ref() == Some(key));
        is_under_it && self.end(peer, ChangeReason::KeyRevoked, MarkBecomes::Same).is_some()
    }

    fn end(&mut self, peer: NodeId, reason: ChangeReason, mark: MarkBecomes) -> Option<TrustRecord> {
        let was = self.get(peer);
        self.look_up(0);
        let (number, _) = self.put(peer, Says::Ended(reason, mark));
        if number >= self.known
            && let Some(step) = self.steps.get_mut(number)
        {
            (step.before, self.known) = (self.tables.trusted.value(peer), number + 1);
        }
        self.trusted_len -= usize::from(was.is_some());
        was
    }

    /// Whether the peer is trusted, with what this batch did so far.
    #[must_use]
    pub fn is_trusted(&self, peer: NodeId) -> bool {
        match self.step(peer) {
            Some(step) => step.says.value().is_some(),
            None => self.tables.trusted.contains(peer),
        }
    }

    /// The peer's record, with what this batch did so far.
    #[must_use]
    pub fn get(&self, peer: NodeId) -> Option<TrustRecord> {
        match self.step(peer) {
            Some(step) => step.says.value().map(|value| value.record(peer)),
            None => self.tables.trusted.get(peer),
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

    /// What changes, table by table, and the events that the batch comes to if anybody hears them, in the order in which
    /// peers were first named.
    pub(super) fn finish(mut self, is_heard: bool) -> (Draft, Vec<Event>) {
        self.look_up(0);
        let mut result = Outcome::new(self.tables, self.fresh, self.steps.len(), is_heard);
        for Step { peer, place, says, before } in &self.steps {
            result.add(*peer, *before, *place, says);
        }
        for key in self.lifted_keys {
            result.draft.forget_key_mark(key);
        }
        result.make_void(&self.named_in_vain);
        result.remember_refused(self.pending_max);
        (result.draft, result.events)
    }
}

/// As many steps are looked through one by one.
const FEW: usize = 8;
/// How many look-ups are under way at the same time.
const FETCHED_AHEAD: usize = 8;
