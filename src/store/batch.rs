//! Several changes that are published as one.
#![forbid(unsafe_code)]

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;

use crate::error::WriteError;
use crate::event::{ChangeReason, Event, TrustState};
use crate::map::{Change, Value};
use crate::peer::{NodeId, RevocationId, TrustRecord};
use crate::tables::draft::Draft;
use crate::tables::table::Table as _;
use crate::tables::{Revocation, Tables};
use crate::time::WallMillis;

/// Changes being gathered inside `TrustStore::update`; later ones see earlier ones.
#[derive(Debug)]
pub struct Batch<'a> {
    tables: &'a Tables,
    trusted_max: usize,
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
    /// Of a revocation: to nothing.
    change: Change,
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

impl<'a> Batch<'a> {
    pub(super) fn new(tables: &'a Tables, trusted_max: usize) -> Self {
        let (steps, by_place) = (Vec::new(), HashMap::default());
        Self { tables, trusted_max, trusted_len: tables.trusted.len(), steps, known: 0, by_place }
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
    fn put(&mut self, peer: NodeId, change: Change) -> (usize, bool) {
        if let Some(number) = self.number_of(peer)
            && let Some(step) = self.steps.get_mut(number)
        {
            let was = core::mem::replace(&mut step.change, change);
            return (number, was.value().is_some());
        }
        self.tables.trusted.fetch(peer);
        let number = self.steps.len();
        if number == FEW {
            let before = self.steps.iter().zip(0..).map(|(step, number)| (step.change.place(), number));
            self.by_place.extend(before);
        }
        if number >= FEW {
            self.by_place.insert(change.place(), number);
        }
        self.steps.push(Step { peer, change, before: None });
        (number, false)
    }

    /// Looks up what was before all steps but the last few.
    fn look_up(&mut self, but: usize) {
        let to = self.steps.len().saturating_sub(but);
        for step in self.steps.get_mut(self.known..to).unwrap_or_default() {
            step.before = self.tables.trusted.value(step.peer);
            self.trusted_len += usize::from(step.before.is_none() && step.change.value().is_some());
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
        let (number, was) = self.put(record.node_id, self.tables.trusted.change(record.node_id, Some(&record)));
        self.trusted_len += usize::from(number < self.known && !was);
        self.look_up(FETCHED_AHEAD);
        Ok(())
    }

    /// Revokes the peer and sets the lasting mark; returns its record if it was trusted.
    pub fn revoke(&mut self, peer: NodeId) -> Option<TrustRecord> {
        let was = self.get(peer);
        self.look_up(0);
        let (number, _) = self.put(peer, self.tables.trusted.change(peer, None));
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
            Some(step) => step.change.value().is_some(),
            None => self.tables.trusted.contains(peer),
        }
    }

    /// The peer's record, with what this batch did so far.
    #[must_use]
    pub fn get(&self, peer: NodeId) -> Option<TrustRecord> {
        match self.step(peer) {
            Some(step) => step.change.value().map(|value| value.record(peer)),
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
    pub(super) fn finish(mut self, marks: Marks, is_heard: bool) -> (Draft, Vec<Event>) {
        self.look_up(0);
        let mut result = Outcome::new(self.tables, self.steps.len(), is_heard);
        for Step { peer, change, before } in self.steps {
            result.add(peer, before, change, marks);
        }
        (result.draft, result.events)
    }
}

/// What a grant of one record comes to, as by a batch of its own.
pub(super) fn grant_one(
    tables: &Tables,
    record: &TrustRecord,
    trusted_max: usize,
    is_heard: bool,
) -> (Draft, Vec<Event>) {
    let (trusted, peer) = (&tables.trusted, record.node_id);
    trusted.fetch(peer);
    // A grant marks nobody.
    let marks = Marks { at: WallMillis::new(0), salt: 0 };
    if tables.trusted.len() >= trusted_max {
        let mut result = Outcome::new(tables, 1, is_heard);
        result.add(peer, trusted.value(peer), trusted.change(peer, Some(record)), marks);
        return (result.draft, result.events);
    }
    // There is room for it, so that it will not be refused: the next version may be derived at once.
    let mut result = Outcome::new(tables, 0, is_heard);
    if let Some((next, was_trusted)) = trusted.with(record) {
        result.draft.set_trusted_next(peer, was_trusted, next);
        result.tell_of(peer, true);
    }
    result.settle(peer, true, marks);
    (result.draft, result.events)
}

/// What the marks of one change are made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    pub(super) at: WallMillis,
    /// Another number for every change.
    pub(super) salt: u64,
}

impl Marks {
    fn of(self, peer: NodeId) -> Revocation {
        Revocation::new(self.at, RevocationId::mixed(self.salt, u64::from(peer.get())))
    }
}

/// What changes, table by table, and what is to be told of it.
#[derive(Debug)]
struct Outcome<'a> {
    tables: &'a Tables,
    draft: Draft,
    is_heard: bool,
    events: Vec<Event>,
}

impl<'a> Outcome<'a> {
    fn new(tables: &'a Tables, records: usize, is_heard: bool) -> Self {
        Self { tables, draft: tables.empty_draft(records), is_heard, events: Vec::new() }
    }

    /// A peer's record becomes another, or is revoked.
    #[inline]
    fn add(&mut self, peer: NodeId, before: Option<&Value>, change: Change, marks: Marks) {
        let is_granted = change.value().is_some();
        if before != change.value() {
            self.draft.set_trusted(peer, before.is_some(), change);
            self.tell_of(peer, is_granted);
        }
        self.settle(peer, is_granted, marks);
    }

    /// Its record is another than before.
    fn tell_of(&mut self, peer: NodeId, is_granted: bool) {
        let (state, reason) = if is_granted {
            (TrustState::Granted, ChangeReason::Direct)
        } else {
            (TrustState::Revoked, ChangeReason::Revoked)
        };
        self.tell(Event::TrustChanged { peer, state, reason });
    }

    /// What else becomes of it, whether its record changed or not.
    #[inline]
    fn settle(&mut self, peer: NodeId, is_granted: bool, marks: Marks) {
        let sides = &self.tables.sides;
        // The first revocation stays: it is what the mark remembers.
        let first = sides.revoked.get(peer).copied();
        let revoked = if is_granted { None } else { Some(first.unwrap_or_else(|| marks.of(peer))) };
        if first != revoked {
            self.draft.set_revoked(peer, revoked);
            if first.is_none() {
                self.tell(Event::Revoked { peer });
            }
        }
        if sides.pending.get(peer).is_some() {
            self.draft.forget_pending(peer);
        }
        if sides.outgoing.get(peer).is_some() {
            self.draft.forget_outgoing(peer);
        }
    }

    fn tell(&mut self, event: Event) {
        if self.is_heard {
            self.events.push(event);
        }
    }
}

/// As many steps are looked through one by one.
const FEW: usize = 8;
/// How many look-ups are under way at the same time.
const FETCHED_AHEAD: usize = 8;
