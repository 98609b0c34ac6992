//! What becomes of one peer by a change of the store's own: in the tables, and in what is told.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::error::WriteError;
use crate::event::{ChangeReason, Event, TrustState};
use crate::map::{Change, Value};
use crate::peer::{NodeId, PublicKey, RevocationId, TrustRecord};
use crate::tables::draft::Draft;
use crate::tables::succession;
use crate::tables::table::Table as _;
use crate::tables::{Marked, OtherKey, Revocation, TableChange, Tables, Void};
use crate::time::WallMillis;

/// What becomes of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Says {
    /// It is trusted.
    Trusted(Value),
    /// It is trusted, and its mark goes.
    Lifted(Value),
    /// The same, of a mark that this change has set.
    Undone(Value),
    /// It is not trusted; why, if it was.
    Ended(ChangeReason, MarkBecomes),
}

impl Says {
    pub(super) fn value(&self) -> Option<&Value> {
        match self {
            Self::Trusted(value) | Self::Lifted(value) | Self::Undone(value) => Some(value),
            Self::Ended(..) => None,
        }
    }

    pub(super) fn mark(&self) -> MarkBecomes {
        match self {
            Self::Trusted(_) => MarkBecomes::Same,
            Self::Lifted(_) => MarkBecomes::Gone,
            Self::Undone(_) => MarkBecomes::Undone,
            Self::Ended(_, mark) => *mark,
        }
    }

    /// The same after an earlier word, which what is said now leaves the mark of as it is.
    pub(super) fn after(self, mark: MarkBecomes) -> Self {
        match (self, mark) {
            // that it was revoked in between counts.
            (Self::Trusted(value) | Self::Lifted(value), MarkBecomes::Set | MarkBecomes::Undone) => Self::Undone(value),
            (Self::Ended(reason, MarkBecomes::Gone), MarkBecomes::Set | MarkBecomes::Undone) => {
                Self::Ended(reason, MarkBecomes::Undone)
            }
            (Self::Trusted(value), MarkBecomes::Gone) => Self::Lifted(value),
            (Self::Ended(reason, MarkBecomes::Same), mark) => Self::Ended(reason, mark),
            (says, _) => says,
        }
    }
}

/// What becomes of a peer's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkBecomes {
    Same,
    Set,
    Gone,
    /// Set, and gone again.
    Undone,
}

/// What a grant of one record comes to, as by a batch of its own.
///
/// # Errors
/// The mark that stands in its way.
pub(in crate::store) fn grant_one(
    tables: &Tables,
    record: &TrustRecord,
    lift: Option<RevocationId>,
    trusted_max: usize,
    is_heard: bool,
) -> Result<(Draft, Vec<Event>), Marked> {
    let (trusted, peer) = (&tables.trusted, record.node_id);
    trusted.fetch(peer);
    let marks = tables.marks(peer, record.public_key.as_ref());
    if let Some(marked) = marks.not_lifted_by(lift) {
        return Err(marked);
    }
    let mark = if marks.peer.is_some() { MarkBecomes::Gone } else { MarkBecomes::Same };
    // A grant marks nobody.
    let fresh = FreshMarks { at: WallMillis::new(0), salt: 0 };
    let mut result = Outcome::new(tables, fresh, usize::from(tables.trusted.len() >= trusted_max), is_heard);
    if marks.key.is_some()
        && let Some(key) = record.public_key
    {
        result.draft.forget_key_mark(key);
    }
    let value = Value::of(record);
    if tables.trusted.len() >= trusted_max {
        let says = Says::Trusted(value).after(mark);
        result.add(peer, trusted.value(peer), trusted.place(peer), &says);
        return Ok((result.draft, result.events));
    }
    // There is room for it, so that it will not be refused: the next version may be derived at once.
    if let Some((next, was_trusted)) = trusted.with(record) {
        let before = if was_trusted { trusted.value(peer) } else { None };
        let is_lost = before.is_some_and(|before| before.is_lost_to(&value));
        result.draft.set_trusted_next(peer, was_trusted, is_lost, next);
        result.tell_of_grant(peer, is_lost);
    }
    result.settle(peer, Some(&value), mark);
    Ok((result.draft, result.events))
}

pub(in crate::store) fn refused<T>(value: T, marked: Marked) -> WriteError<T> {
    match marked {
        Marked::Peer(mark) | Marked::Key(mark) => WriteError::Revoked { value, mark },
    }
}

/// What the marks of one change are made from.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct FreshMarks {
    pub(in crate::store) at: WallMillis,
    /// Another number for every change.
    pub(in crate::store) salt: u64,
}

impl FreshMarks {
    /// The mark of a peer that is revoked now.
    pub(super) fn after(self, tables: &Tables, peer: NodeId) -> Revocation {
        let sides = &tables.sides;
        let fresh = Revocation::new(self.at, RevocationId::mixed(self.salt, u64::from(peer.get())));
        let took_something = sides.pending.get(peer).is_some() || sides.outgoing.get(peer).is_some();
        Revocation::after(sides.revoked.get(peer).copied(), fresh, took_something)
    }

    /// The mark of a key that is revoked now, likewise.
    pub(in crate::store) fn after_key(
        self,
        first: Option<Revocation>,
        key: &PublicKey,
        took_something: bool,
    ) -> Revocation {
        let number = |half: Option<&[u8; 8]>| half.map_or(0, |half| u64::from_le_bytes(*half));
        let (one, other) = (number(key.as_bytes().first_chunk()), number(key.as_bytes().last_chunk()));
        let id = RevocationId::mixed(self.salt ^ one, other);
        Revocation::after(first, Revocation::new(self.at, id), took_something)
    }
}

impl MarkBecomes {
    /// Whether the peer was revoked by this change, though that may be lifted by now.
    const fn was_set(self) -> bool {
        matches!(self, Self::Set | Self::Undone)
    }
}

/// What changes, table by table, and what is to be told of it.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    tables: &'a Tables,
    fresh: FreshMarks,
    pub(super) draft: Draft,
    is_heard: bool,
    pub(super) events: Vec<Event>,
    /// What waited and does so no more.
    refused: Vec<(NodeId, Vec<OtherKey>)>,
}

impl<'a> Outcome<'a> {
    pub(super) fn new(tables: &'a Tables, fresh: FreshMarks, records: usize, is_heard: bool) -> Self {
        Self { tables, fresh, draft: tables.empty_draft(records), is_heard, events: Vec::new(), refused: Vec::new() }
    }

    /// A peer's record becomes another, or goes.
    #[inline]
    pub(super) fn add(&mut self, peer: NodeId, before: Option<&Value>, place: u32, says: &Says) {
        let value = says.value();
        if before != value {
            self.draft.set_trusted(peer, before, Change::new(place, value.copied()));
            if let Says::Ended(reason, _) = says {
                self.end_trust(peer, *reason);
            } else {
                self.tell_of_grant(peer, before.zip(value).is_some_and(|(before, value)| before.is_lost_to(value)));
            }
        }
        self.settle(peer, value, says.mark());
    }

    /// what the keys of these peers have said of these keys, which are revoked. Beside it nothing becomes of what the
    /// peers' keys have said.
    pub(super) fn make_void(&mut self, named: &[(NodeId, PublicKey)]) {
        let mut peers: BTreeMap<NodeId, Vec<PublicKey>> = BTreeMap::new();
        for (peer, key) in named {
            peers.entry(*peer).or_default().push(*key);
        }
        for (peer, keys) in peers {
            let changed = succession::changed(self.tables.sides.successors.get(peer), |all| {
                keys.iter().for_each(|key| succession::key_revoked(all, key));
            });
            if let Some(changed) = changed {
                self.draft.set_successors(peer, changed);
            }
        }
    }

    /// no copy of what waited comes back.
    pub(super) fn remember_refused(&mut self, pending_max: usize) {
        for change in self.tables.remembered(&self.refused, self.fresh.at, pending_max) {
            if let TableChange::Refused(peer, refused) = change {
                self.draft.set_refused(peer, refused);
            }
        }
    }

    /// A peer is trusted, or on other terms. Under another key than before, trust under the old one is lost first.
    fn tell_of_grant(&mut self, peer: NodeId, is_lost: bool) {
        if is_lost {
            self.end_trust(peer, ChangeReason::KeyChanged);
        }
        let (state, reason) = (TrustState::Granted, ChangeReason::Direct);
        self.tell(Event::TrustChanged { peer, state, reason });
    }

    /// Tells of an end of trust that a change of the store's own makes, as `Plan::lose_trust` does of those of the handshake. What
    /// has to be enforced is in the draft: a running node finds it through `Watchers::tell`.
    fn end_trust(&mut self, peer: NodeId, reason: ChangeReason) {
        self.tell(Event::TrustChanged { peer, state: TrustState::Revoked, reason });
    }

    /// What else becomes of it, whether its record changed or not.
    #[inline]
    fn settle(&mut self, peer: NodeId, granted: Option<&Value>, mark: MarkBecomes) {
        let (sides, is_granted) = (&self.tables.sides, granted.is_some());
        if sides.successors.len() > 0 {
            self.settle_successors(peer, granted.and_then(|value| value.record(peer).public_key), mark);
        }
        if mark != MarkBecomes::Same {
            let first = sides.revoked.get(peer).copied();
            let revoked = (mark == MarkBecomes::Set).then(|| self.fresh.after(self.tables, peer));
            if first != revoked {
                self.draft.set_revoked(peer, revoked);
                if revoked.is_some() {
                    self.tell(Event::Revoked { peer });
                } else if !is_granted {
                    self.tell(Event::RevocationForgotten { peer });
                }
            }
        }
        // What was removed without a mark, or forgotten, may go on waiting.
        if !is_granted && !mark.was_set() {
            return;
        }
        //
        if is_granted && sides.ignored.get(peer).is_some() {
            self.draft.hear(peer);
        }
        if let Some(entry) = sides.pending.get(peer) {
            //
            if mark.was_set() {
                self.refused.push((peer, entry.keys().collect()));
            }
            self.draft.forget_pending(peer);
        }
        if sides.outgoing.get(peer).is_some() {
            self.draft.forget_outgoing(peer);
        }
    }

    /// what the peer's keys said of others, by the store's own doors as by the handshake's.
    fn settle_successors(&mut self, peer: NodeId, granted: Option<PublicKey>, mark: MarkBecomes) {
        let changed = succession::changed(self.tables.sides.successors.get(peer), |all| {
            if mark.was_set() {
                succession::make_void(all, Void::Revoked, |_| true);
            }
            if let Some(key) = &granted {
                succession::granted(all, key);
            }
        });
        if let Some(changed) = changed {
            self.draft.set_successors(peer, changed);
        }
    }

    fn tell(&mut self, event: Event) {
        if self.is_heard {
            self.events.push(event);
        }
    }
}
