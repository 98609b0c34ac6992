//! One peer's entries while a step decides about them: the decisions write down how the entries are to be, and
//! [`Plan::finish`] derives the changes by comparing.
//!
//! So a decision that comes to what is already there changes nothing, publishes nothing and writes nothing, and no
//! peer occurs twice in one table's changes.
//!
//! More than 450 lines because every change of one peer's entries is written down here, and tried where it is written.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::sync::Arc;

use super::arrival::{latest_credible, millis, trusted_since};
use super::effect::{Action, Draft, Effect, When};
use super::event::{ChangeReason, Event, RotationFault, TrustState};
use super::outcome::{Outcome, Rules, Step};
use super::rejection::Rejection;
use super::replay::Noted;
use super::view::{
    Floor, KeyFault, Marks, Nonce, Outgoing, Owed, Pending, Revocation, RevocationId, SUCCESSIONS_PER_PEER_MAX, Source,
    Succession, TableChange, View, Void,
};
use crate::config::Durability;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::tables::succession;
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
    pub(super) revoked: Option<Revocation>,
    /// What the peer has not been told yet; forgotten at the end if it is no longer so.
    pub(super) owed: Option<Owed>,
    pub(super) floor: Floor,
    /// Changes of other peers' entries: those that make room.
    pub(super) others: Vec<TableChange>,
    pub(super) effects: Vec<Effect>,
    pub(super) events: Vec<Event>,
    pub(super) noted: Option<Noted>,
    /// What is told of another key than the known one.
    mismatch: Option<Event>,
    lost: bool,
    /// the message is no newer than what its key had sent before our clock stepped back.
    pub(super) is_doubtful: bool,
    /// The key of the record, if it named the key in the message as its successor.
    pub(super) proven: Option<PublicKey>,
    pub(super) rotation_fault: Option<RotationFault>,
    /// What is remembered of the peer's keys that named another one.
    pub(super) successors: Vec<Succession>,
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
            owed: view.owed(peer).cloned(),
            floor: view.floor(peer).unwrap_or(Floor::EMPTY),
            others: Vec::new(),
            effects: Vec::new(),
            events: Vec::new(),
            noted: None,
            mismatch: None,
            lost: false,
            is_doubtful: false,
            proven: None,
            rotation_fault: None,
            successors: view.successors(peer).to_vec(),
            clamped: false,
        }
    }

    pub(super) fn act(&mut self, when: When, action: Action) {
        self.effects.push(Effect { when, action, answers: None });
    }

    /// The marks that stand in the way of trust under this key.
    pub(super) fn marks(&self, key: Option<&PublicKey>) -> Marks {
        Marks::new(self.revoked, key.and_then(|key| self.view.revoked_key(key)))
    }

    /// The revocation that an answer to our open request lifts.
    pub(super) fn lift(&self) -> Option<RevocationId> {
        self.asked().and_then(|outgoing| outgoing.lift)
    }

    /// Whether a mark stands in the way of trust under this key that our open request does not lift.
    pub(super) fn is_barred(&self, key: &PublicKey) -> bool {
        self.marks(Some(key)).not_lifted_by(self.lift()).is_some()
    }

    /// Every path to trust ends here. INVARIANT I-2. R-177: `lift` must name the mark in force.
    pub(super) fn grant(
        &mut self,
        record: TrustRecord,
        reason: ChangeReason,
        lift: Option<RevocationId>,
    ) -> Result<(), Rejection> {
        let marks = self.marks(record.public_key.as_ref());
        if let Some(marked) = marks.not_lifted_by(lift) {
            return Err(marked.into());
        }
        let is_new = self.view.trusted(self.peer).is_none();
        if is_new && self.view.trusted_len() >= self.rules.limits.trusted_max {
            return Err(Rejection::StoreFull);
        }
        // whoever trusted the peer under its old key hears of that loss first.
        if self.trusted.is_some_and(|old| old.public_key.is_some() && old.public_key != record.public_key) {
            self.lose_trust(ChangeReason::KeyChanged);
        }
        if let (Some(key), Some(_)) = (record.public_key, marks.key) {
            self.others.push(TableChange::RevokedKey(key, None));
        }
        //
        if self.view.ignored(self.peer).is_some() {
            self.others.push(TableChange::Ignored(self.peer, None));
        }
        self.trusted = Some(record);
        if let Some(key) = &record.public_key {
            succession::granted(&mut self.successors, key);
        }
        self.pending = None;
        self.outgoing = None;
        self.revoked = None;
        self.events.push(Event::TrustChanged { peer: self.peer, state: TrustState::Granted, reason });
        self.act(self.when_durable(record), Action::ReportGrant { record });
        if record.public_key.is_none() {
            self.act(When::Now, Action::LookUp { peer: self.peer });
        }
        Ok(())
    }

    /// Every end of trust passes through here, whatever the reason: the record goes, the loss is told, the tunnel is
    /// cut and the registry hears of it. Says whether there was any trust.
    ///
    /// A farewell that is to leave before the cut is put into the plan before. Of the store's own changes the same place is
    /// `Outcome::end_trust` in `store/batch.rs`.
    pub(super) fn lose_trust(&mut self, reason: ChangeReason) -> Option<TrustRecord> {
        let was = self.trusted.take()?;
        self.lost = true;
        self.events.push(Event::TrustChanged { peer: self.peer, state: TrustState::Revoked, reason });
        let within = match reason {
            ChangeReason::Revoked | ChangeReason::KeyRevoked | ChangeReason::Removed => self.rules.config.farewell_max,
            _ => Duration::ZERO,
        };
        // An entry about ourselves has no tunnel, and is not the registry's business.
        if self.peer != self.rules.own_id {
            self.part(within);
        }
        Some(was)
    }

    /// Cuts the peer off and reports that, whether there was trust or not.
    pub(super) fn part(&mut self, within: Duration) {
        self.act(When::Now, Action::Disconnect { peer: self.peer, within });
        self.act(When::Now, Action::ReportRevoke { peer: self.peer });
    }

    /// the peer has, or shows, another key than the one that is known for it.
    pub(super) fn notice_key(&mut self, source: Option<Source>, expected: PublicKey, shown: PublicKey) {
        let (peer, expected, shown) = (self.peer, expected.fingerprint(), shown.fingerprint());
        self.mismatch = Some(Event::KeyMismatch { peer, source, expected, shown, ended: false });
    }

    /// Binds an unbound record to a key that somebody vouches for.
    pub(super) fn adopt_key(&mut self, record: TrustRecord, key: PublicKey) -> TrustRecord {
        let bound = record.key(key);
        self.trusted = Some(bound);
        succession::granted(&mut self.successors, &key);
        // INVARIANT I-4: nothing is left to decide about the key that the record has now.
        if self.pending.as_ref().is_some_and(|pending| pending.key == key) {
            self.pending = None;
        }
        if let Some(pending) = &mut self.pending {
            pending.others.retain(|other| other.key != key);
        }
        let reason = ChangeReason::KeyAdopted;
        self.events.push(Event::TrustChanged { peer: self.peer, state: TrustState::Granted, reason });
        bound
    }

    /// An accept that answers the request with nonce `answers`, or that without one.
    pub(super) fn send_accept(&mut self, record: TrustRecord, nonce: Nonce, answers: Option<Nonce>) {
        let draft = self.draft(Kind::Accept, nonce);
        self.answer(self.when_durable(record), draft, record.public_key, answers);
    }

    /// An answer to the request with nonce `answers` and under the key `asked_by`. R-64: a request without a nonce was of
    /// version 1.
    pub(super) fn answer(&mut self, when: When, draft: Draft, asked_by: Option<PublicKey>, answers: Option<Nonce>) {
        let draft = Draft { answers, for_key: asked_by, ..draft };
        if answers.is_some() {
            self.effects.push(Effect { when, action: Action::Send(draft), answers: asked_by });
        } else if self.rules.policy.accept_v1 {
            self.act(when, Action::SendVersion1(draft));
        }
    }

    pub(super) fn when_durable(&self, still: TrustRecord) -> When {
        match self.rules.config.durability {
            Durability::BeforeAnswer => When::OnceDurable { still },
            Durability::Eventually => When::Now,
        }
    }

    /// A draft to this peer without texts, stamped later than anything sent to it before.
    pub(super) fn draft(&mut self, kind: Kind, nonce: Nonce) -> Draft {
        let now = self.now.wall;
        let third = millis(self.rules.config.future_skew_max) / 3;
        let reserve = now.saturating_add(third.min(STAMP_RESERVE_MS));
        // beyond two thirds of the skew, receivers whose clocks are behind would not hear us.
        if self.floor.sent > now.saturating_add(third.saturating_mul(2)) {
            self.clamped = true;
            self.floor.sent = now.saturating_add(third);
            self.floor.reserved = self.floor.sent;
        }
        // a stamp from the reserve of an earlier life follows the clock, so that the next life, which may know
        // nothing of this one, does not use it again.
        let from_reserve = self.floor.sent == self.floor.reserved && self.floor.sent > now;
        let earliest = if from_reserve { reserve } else { now };
        let stamp = earliest.max(self.floor.sent.saturating_add(1));
        self.floor.sent = stamp;
        if stamp > self.floor.reserved {
            self.floor.reserved = stamp.max(reserve);
        }
        let (justification, reason) = (String::new(), String::new());
        Draft { to: self.peer, kind, justification, reason, nonce, answers: None, stamp, for_key: None }
    }

    /// Moves a floor back that some wrong clock has left in the future. Says whether it did.
    pub(super) fn clamp_seen(&mut self) -> bool {
        let latest = latest_credible(self.rules, self.now);
        let too_far = self.floor.seen > latest;
        if too_far {
            self.clamped = true;
            //
            self.floor.before = self.floor.before.max(self.floor.seen);
            self.floor.seen = latest;
        }
        too_far
    }

    /// whether a message under this key with this stamp may be a copy that only a step of our clock lets in again.
    pub(super) fn is_below_former_floor(&self, key: PublicKey, stamp: WallMillis) -> bool {
        self.floor.key == Some(key) && stamp <= self.floor.before
    }

    /// Nothing as old as `stamp` is believed under `key` from now on. The key must be vouched for.
    pub(super) fn raise_floor(&mut self, key: PublicKey, stamp: WallMillis) {
        let is_same = self.floor.key == Some(key);
        let seen = if is_same { self.floor.seen.max(stamp) } else { stamp };
        //
        let before = if is_same && self.floor.before > seen { self.floor.before } else { Floor::EMPTY.before };
        self.floor = Floor { key: Some(key), seen, before, spoke_v2: true, ..self.floor };
    }

    /// an operator believes this key from here on, whatever stamps our clock let it show before a step back.
    pub(super) fn restart_floor(&mut self, key: Option<PublicKey>) {
        if key.is_some() && self.floor.key == key {
            self.clamp_seen();
            self.floor.before = Floor::EMPTY.before;
        }
    }

    /// trust under this key begins now, whatever the record says of its age. Nothing is written where the record's
    /// age says the same.
    pub(super) fn begin_trust(&mut self, record: TrustRecord) {
        let Some(key) = record.public_key else { return };
        let from = trusted_since(self.rules, self.now, &record.approved_at(self.now.wall));
        if self.floor.key == Some(key) {
            self.floor.seen = self.floor.seen.max(from);
        } else if trusted_since(self.rules, self.now, &record) < from {
            self.floor = Floor { key: Some(key), seen: from, before: Floor::EMPTY.before, ..self.floor };
        }
    }

    /// Whether there is room to remember that one key named another as its successor, if it is not remembered yet.
    pub(super) fn can_remember(&self, old: &PublicKey, new: &PublicKey) -> bool {
        let room = match self.successors.len() {
            0 => self.view.successors_len() < self.rules.limits.successors_max,
            len => len < SUCCESSIONS_PER_PEER_MAX,
        };
        room || succession::stands(&self.successors, old, new)
    }

    /// Remembers which key another one named as its successor. False if there is no room.
    pub(super) fn remember_successor(&mut self, old: PublicKey, new: PublicKey) -> bool {
        let can = self.can_remember(&old, &new);
        if can && !succession::stands(&self.successors, &old, &new) {
            self.successors.push(Succession::new(old, new));
        }
        can
    }

    /// statements that name one of these keys are void.
    pub(super) fn refuse_successors(&mut self, keys: &[PublicKey]) {
        let is_concerned = |it: &Succession| it.old != it.new && keys.contains(&it.new);
        succession::make_void(&mut self.successors, Void::Refused, is_concerned);
    }

    /// Why no rule trusts this key, if none does. The key of the trusted record is none of those.
    pub(super) fn set_aside(&self, key: &PublicKey) -> Option<KeyFault> {
        if self.is_of_record(key) { None } else { succession::set_aside(&self.successors, key) }
    }

    /// The same, but for a replaced key that our own caller names, and that no void statement names.
    pub(super) fn is_kept_out(&self, key: &PublicKey) -> bool {
        let is_named = || self.asked().and_then(|outgoing| outgoing.expected_key) == Some(*key);
        let is_in_vain = || succession::named_in_vain(&self.successors, key).is_some();
        self.set_aside(key).is_some() && (!is_named() || is_in_vain())
    }

    /// Whether this is the key of the record.
    pub(super) fn is_of_record(&self, key: &PublicKey) -> bool {
        self.trusted.is_some_and(|record| record.public_key == Some(*key))
    }

    /// Whether the record has a key by which this one was replaced, in one step or in several.
    pub(super) fn has_replaced(&self, old: &PublicKey) -> bool {
        let current = self.trusted.and_then(|record| record.public_key);
        current.is_some_and(|current| succession::leads_to(&self.successors, old, &current))
    }

    /// whether a registry that names `known` has not heard of what came after it, so that it neither vouches for a
    /// message under `key` nor contradicts it.
    pub(super) fn is_behind(&self, known: &PublicKey, key: &PublicKey) -> bool {
        let leads_to = |to: &PublicKey| succession::leads_to(&self.successors, known, to);
        let is_replaced = || succession::replacement(&self.successors, known).is_some();
        known != key
            && (self.proven.is_some_and(|by| by == *known || leads_to(&by))
                || leads_to(key)
                || (self.is_of_record(key) && is_replaced()))
    }

    /// Drops the message that led here. What was recorded on the way, such as a floor, stays recorded.
    pub(super) fn drop_message(mut self, rejection: Rejection) -> Result<Step, Rejection> {
        // what was dropped did not come.
        self.events.retain(|event| !matches!(event, Event::Received { .. }));
        let is_loud = self.mismatch.is_some();
        let step = self.finish(Outcome::Dropped(rejection));
        // A copy of a dropped message is worth remembering only where it would count for something the next time.
        let noted = step.noted.is_some_and(|noted| noted.authentic);
        let nothing = step.changes.is_empty() && step.effects.is_empty() && !noted && !is_loud;
        if nothing { Err(rejection) } else { Ok(step) }
    }

    pub(super) fn finish(mut self, outcome: Outcome) -> Step {
        let (view, peer) = (self.view, self.peer);
        self.owed = self.owed.take().filter(|owed| self.still_owes(owed));
        // What the old key has proven is of no interest once that is not the record's key any more.
        let of_record = self.trusted.and_then(|record| record.public_key);
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.proven_by != of_record) {
            pending.proven_by = None;
        }
        let is_in_a_table = self.trusted.is_some()
            || self.pending.is_some()
            || self.outgoing.is_some()
            || self.revoked.is_some()
            || self.owed.is_some();
        let in_a_table = is_in_a_table || was_in_a_table(view, peer);
        let floor_before = view.floor(peer);
        // A full table of floors takes no newcomer that nothing else is known about; one that enters or leaves a table
        // brings its floor with it.
        let floor_fits = floor_before.is_some() || in_a_table || view.floor_len() < self.rules.limits.floors_max;
        let floor_changed = self.floor != floor_before.unwrap_or(Floor::EMPTY) && floor_fits;

        let mut changes = self.others;
        if self.successors != view.successors(peer) {
            changes.push(TableChange::Successors(peer, Some(self.successors.into())));
        }
        if self.trusted != view.trusted(peer) {
            changes.push(TableChange::Trusted(peer, self.trusted));
        }
        if self.pending.as_ref() != view.pending(peer) {
            changes.push(TableChange::Pending(peer, self.pending.map(Arc::new)));
        }
        if self.outgoing.as_ref() != view.outgoing(peer) {
            changes.push(TableChange::Outgoing(peer, self.outgoing.map(Arc::new)));
        }
        if self.revoked != view.revoked(peer) {
            changes.push(TableChange::Revoked(peer, self.revoked));
        }
        if self.owed.as_ref() != view.owed(peer) {
            changes.push(TableChange::Owed(peer, self.owed.map(Arc::new)));
        }
        if floor_changed {
            changes.push(TableChange::Floor(peer, Some(self.floor)));
        }
        let Self { effects, mut events, clamped, noted, mismatch, lost, .. } = self;
        if let Some(Event::KeyMismatch { peer, source, expected, shown, .. }) = mismatch {
            // Behind the message that showed the key, before what came of it.
            let at = events.iter().take_while(|event| matches!(event, Event::Received { .. })).count();
            events.insert(at, Event::KeyMismatch { peer, source, expected, shown, ended: lost });
        }
        // what came, what a rule made of it, what became of trust.
        events.sort_by_key(|event| match event {
            Event::Received { .. } => 0,
            Event::TrustChanged { .. } => 2,
            _ => 1,
        });
        Step { changes, effects, events, outcome, clamped, noted }
    }
}

fn was_in_a_table(view: &dyn View, peer: NodeId) -> bool {
    view.trusted(peer).is_some()
        || view.pending(peer).is_some()
        || view.outgoing(peer).is_some()
        || view.revoked(peer).is_some()
        || view.owed(peer).is_some()
}

/// How far ahead of the clock a sent stamp is reserved at most. After a crash the next message carries a stamp up to this far ahead of the
/// clock, so it must stay well below the skew that receivers allow.
pub(super) const STAMP_RESERVE_MS: i64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::input::Command;
    use crate::testing::actor::{Actor, Way, at, node, sent};

    fn us() -> Actor {
        Actor::new(7, 0xAA)
    }

    /// The stamp of a request to 9 made at `ms`.
    fn stamp(us: &mut Actor, ms: i64) -> WallMillis {
        let step = us.request(at(ms), node(9), None).unwrap();
        sent(&step).unwrap().stamp
    }

    #[test]
    fn stamps_rise_strictly_though_the_clock_stands_still_or_steps_back() {
        let mut us = us();
        assert_eq!(stamp(&mut us, 0), at(0).wall);
        assert_eq!(stamp(&mut us, 0), at(1).wall);
        assert_eq!(stamp(&mut us, -5000), at(2).wall);
        assert_eq!(stamp(&mut us, 9000), at(9000).wall);
    }

    #[test]
    fn stamps_of_one_peer_do_not_hold_up_another() {
        let mut us = us();
        stamp(&mut us, 5000);
        let step = us.request(at(0), node(8), None).unwrap();
        assert_eq!(sent(&step).unwrap().stamp, at(0).wall);
    }

    #[test]
    fn the_reserve_is_renewed_only_when_it_is_used_up() {
        let mut us = us();
        let mut reserved = |ms| {
            stamp(&mut us, ms);
            us.tables.floor[&node(9)].reserved
        };
        assert_eq!(reserved(0), at(10_000).wall);
        assert_eq!(reserved(10_000), at(10_000).wall);
        assert_eq!(reserved(10_001), at(20_001).wall);
    }

    #[test]
    fn after_a_crash_no_stamp_is_used_twice_and_none_is_from_the_future() {
        let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
        let before = stamp(&mut us, 0);
        // What a load does.
        let floor = us.tables.floor.get_mut(&node(9)).unwrap();
        floor.sent = floor.reserved;
        let step = us.request(at(-1000), node(9), None).unwrap();
        assert!(sent(&step).unwrap().stamp > before);
        assert!(peer.hear_from(at(-1000), &us, sent(&step).unwrap(), Way::open()).is_ok());
    }

    #[test]
    fn a_sent_stamp_from_a_clock_that_was_a_year_ahead_is_moved_back_and_reported() {
        let mut us = us();
        let year = 365 * 24 * 60 * 60 * 1000;
        stamp(&mut us, year);
        let step = us.request(at(0), node(9), None).unwrap();
        assert!(step.clamped);
        // What receivers take whose clocks are 10 s behind, and no less than a reserve.
        assert_eq!(sent(&step).unwrap().stamp, at(10_001).wall);
        assert!(!us.request(at(40_000), node(9), None).unwrap().clamped);
    }

    #[test]
    fn a_seen_stamp_from_a_clock_that_was_a_year_ahead_is_moved_back_and_does_not_shut_the_peer_out() {
        let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
        us.trusts(peer.id(), Some(peer.public_key()));
        let (key, seen) = (Some(peer.public_key()), at(1 << 40).wall);
        us.tables.floor.insert(peer.id(), Floor { key, seen, ..Floor::EMPTY });
        let first = peer.draft(at(0), us.id(), Kind::Request, None);
        let step = us.hear_from(at(10), &peer, &first, Way::open()).unwrap();
        assert!(step.clamped);
        assert_eq!(step.outcome, Outcome::Dropped(Rejection::FloorClamped));
        assert_eq!(us.hear_from(at(10), &peer, &first, Way::open()), Err(Rejection::Stale));
        let later = peer.draft(at(30_011), us.id(), Kind::Request, None);
        assert!(us.hear_from(at(30_020), &peer, &later, Way::open()).is_ok());
    }

    #[test]
    fn a_new_key_that_is_vouched_for_takes_over_the_floor() {
        let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
        us.trusts(peer.id(), Some(peer.public_key()));
        let request = peer.draft(at(20_000), us.id(), Kind::Request, None);
        us.hear_from(at(20_000), &peer, &request, Way::open()).unwrap();
        let mut renewed = Actor::new(9, 0x22);
        let earlier = renewed.draft(at(10_000), us.id(), Kind::Request, None);
        us.hear_from(at(20_010), &renewed, &earlier, Way::registered(renewed.public_key())).unwrap();
        let floor = us.tables.floor[&peer.id()];
        assert_eq!((floor.key, floor.seen), (Some(renewed.public_key()), at(10_000).wall));
    }

    #[test]
    fn full_floors_take_no_newcomer_unless_it_enters_a_table() {
        let mut us = us();
        us.rules.limits.floors_max = 0;
        let mut peer = Actor::new(9, 0x11);
        let revoke = peer.draft(at(0), us.id(), Kind::Revoke, None);
        let way = Way::registered(peer.public_key());
        let dropped = us.hear_from(at(0), &peer, &revoke, way.clone()).unwrap();
        assert_eq!((dropped.outcome, &dropped.changes[..]), (Outcome::Dropped(Rejection::NothingToRevoke), &[][..]));
        assert!(us.tables.floor.is_empty());
        let request = peer.draft(at(1), us.id(), Kind::Request, None);
        us.hear_from(at(1), &peer, &request, way).unwrap();
        assert_eq!(us.tables.floor[&peer.id()].seen, at(1).wall);
    }

    #[test]
    fn what_comes_to_nothing_new_changes_nothing() {
        let mut us = us();
        us.request(at(0), node(9), None).unwrap();
        let plan = Plan::new(&us.rules, &us.tables, at(5), node(9));
        assert_eq!(plan.finish(Outcome::Queued).changes, []);
        let mut us = us;
        let changes = us.command(at(6), Command::Cancel { peer: node(9) }).unwrap().changes;
        assert_eq!(changes, [TableChange::Outgoing(node(9), None)]);
    }
}
