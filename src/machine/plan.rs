//! One peer's entries while a step decides about them: the decisions write down how the entries are to be, and
//! [`Plan::finish`] derives the changes by comparing.
//!
//! So a decision that comes to what is already there changes nothing, publishes nothing and writes nothing, and no
//! peer occurs twice in one table's changes.
#![forbid(unsafe_code)]

use super::arrival::latest_credible;
use super::effect::{Action, Draft, Effect, When};
use super::event::{ChangeReason, Event, TrustState};
use super::outcome::{Outcome, Rules, Step};
use super::rejection::Rejection;
use super::view::{Floor, Nonce, Outgoing, Pending, TableChange, View};
use crate::config::Durability;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::time::{Now, WallMillis};
use crate::wire::message::Kind;

pub(super) struct Plan<'a> {
    pub(super) rules: &'a Rules,
    pub(super) view: &'a dyn View,
    pub(super) now: Now,
    pub(super) peer: NodeId,
    pub(super) trusted: Option<TrustRecord>,
    pub(super) pending: Option<Pending>,
    pub(super) outgoing: Option<Outgoing>,
    pub(super) revoked: Option<WallMillis>,
    pub(super) floor: Floor,
    /// Changes of other peers' entries: those that make room.
    pub(super) others: Vec<TableChange>,
    pub(super) effects: Vec<Effect>,
    pub(super) events: Vec<Event>,
    clamped: bool,
}

impl<'a> Plan<'a> {
    pub(super) fn new(rules: &'a Rules, view: &'a dyn View, now: Now, peer: NodeId) -> Self {
        Self {
            rules,
            view,
            now,
            peer,
            trusted: view.trusted(peer),
            pending: view.pending(peer).cloned(),
            outgoing: view.outgoing(peer).cloned(),
            revoked: view.revoked(peer),
            floor: view.floor(peer).unwrap_or(Floor::EMPTY),
            others: Vec::new(),
            effects: Vec::new(),
            events: Vec::new(),
            clamped: false,
        }
    }

    pub(super) fn act(&mut self, when: When, action: Action) {
        self.effects.push(Effect { when, action });
    }

    /// Every path to trust ends here. INVARIANT I-2.
    pub(super) fn grant(&mut self, record: TrustRecord, reason: ChangeReason) -> Result<(), Rejection> {
        let is_new = self.view.trusted(self.peer).is_none();
        if is_new && self.view.trusted_len() >= self.rules.limits.trusted_max {
            return Err(Rejection::StoreFull);
        }
        self.trusted = Some(record);
        self.pending = None;
        self.outgoing = None;
        self.revoked = None;
        self.events.push(Event::TrustChanged { peer: self.peer, state: TrustState::Granted, reason });
        self.act(self.when_durable(record), Action::ReportGrant { record });
        Ok(())
    }

    /// Trust is lost for a reason other than our own will. Says whether there was any.
    pub(super) fn lose_trust(&mut self, reason: ChangeReason) -> Option<TrustRecord> {
        let was = self.trusted.take()?;
        self.events.push(Event::TrustChanged { peer: self.peer, state: TrustState::Revoked, reason });
        Some(was)
    }

    /// Binds an unbound record to a key that somebody vouches for.
    pub(super) fn adopt_key(&mut self, record: TrustRecord, key: PublicKey) -> TrustRecord {
        let bound = record.key(key);
        self.trusted = Some(bound);
        // INVARIANT I-4: nothing is left to decide about the key that the record has now.
        if self.pending.as_ref().is_some_and(|pending| pending.key == key) {
            self.pending = None;
        }
        let reason = ChangeReason::KeyAdopted;
        self.events.push(Event::TrustChanged { peer: self.peer, state: TrustState::Granted, reason });
        bound
    }

    /// An accept that answers the request with nonce `answers`.
    pub(super) fn send_accept(&mut self, record: TrustRecord, nonce: Nonce, answers: Nonce) {
        let draft = self.draft(Kind::Accept, nonce);
        self.act(self.when_durable(record), Action::Send(Draft { answers: Some(answers), ..draft }));
    }

    fn when_durable(&self, still: TrustRecord) -> When {
        match self.rules.config.durability {
            Durability::BeforeAnswer => When::OnceDurable { still },
            Durability::Eventually => When::Now,
        }
    }

    /// A draft to this peer without texts, stamped later than anything sent to it before.
    pub(super) fn draft(&mut self, kind: Kind, nonce: Nonce) -> Draft {
        let (now, latest) = (self.now.wall, latest_credible(self.rules, self.now));
        if self.floor.sent > latest {
            self.clamped = true;
            self.floor.sent = latest;
            self.floor.reserved = latest;
        }
        let stamp = now.max(self.floor.sent.saturating_add(1));
        self.floor.sent = stamp;
        if stamp > self.floor.reserved {
            self.floor.reserved = stamp.saturating_add(STAMP_RESERVE_MS);
        }
        let (justification, reason) = (String::new(), String::new());
        Draft { to: self.peer, kind, justification, reason, nonce, answers: None, stamp }
    }

    /// Moves a floor back that some wrong clock has left in the future. Says whether it did.
    pub(super) fn clamp_seen(&mut self) -> bool {
        let latest = latest_credible(self.rules, self.now);
        let too_far = self.floor.seen > latest;
        if too_far {
            self.clamped = true;
            self.floor.seen = latest;
        }
        too_far
    }

    /// Nothing as old as `stamp` is believed under `key` from now on. The key must be vouched for.
    pub(super) fn raise_floor(&mut self, key: PublicKey, stamp: WallMillis) {
        let seen = if self.floor.key == Some(key) { self.floor.seen.max(stamp) } else { stamp };
        self.floor = Floor { key: Some(key), seen, spoke_v2: true, ..self.floor };
    }

    /// Drops the message that led here. What was recorded on the way, such as a floor, stays recorded.
    pub(super) fn drop_message(self, rejection: Rejection) -> Result<Step, Rejection> {
        let step = self.finish(Outcome::Dropped(rejection));
        if step.changes.is_empty() && step.effects.is_empty() { Err(rejection) } else { Ok(step) }
    }

    pub(super) fn finish(self, outcome: Outcome) -> Step {
        let Self { view, peer, .. } = self;
        let in_a_table =
            self.trusted.is_some() || self.pending.is_some() || self.outgoing.is_some() || self.revoked.is_some();
        let floor_before = view.floor(peer);
        // A full table of floors takes no newcomer that nothing else is known about; one that enters a table brings
        // its floor with it.
        let floor_fits = floor_before.is_some() || in_a_table || view.floor_len() < self.rules.limits.floors_max;
        let floor_changed = self.floor != floor_before.unwrap_or(Floor::EMPTY) && floor_fits;

        let mut changes = self.others;
        if self.trusted != view.trusted(peer) {
            changes.push(TableChange::Trusted(peer, self.trusted));
        }
        if self.pending.as_ref() != view.pending(peer) {
            changes.push(TableChange::Pending(peer, self.pending));
        }
        if self.outgoing.as_ref() != view.outgoing(peer) {
            changes.push(TableChange::Outgoing(peer, self.outgoing));
        }
        if self.revoked != view.revoked(peer) {
            changes.push(TableChange::Revoked(peer, self.revoked));
        }
        if floor_changed {
            changes.push(TableChange::Floor(peer, Some(self.floor)));
        }
        Step { changes, effects: self.effects, events: self.events, outcome, clamped: self.clamped }
    }
}

/// How far ahead a sent stamp is reserved. After a crash the next message carries a stamp up to this far ahead of the
/// clock, so it must stay well below the skew that receivers allow.
const STAMP_RESERVE_MS: i64 = 10_000;
