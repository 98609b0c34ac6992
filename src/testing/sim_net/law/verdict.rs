//! Sections 2, 3, 4 and 7: what a message comes to, said beforehand from the tables and the message alone.
//!
//! More than 450 lines because a message has one verdict, and each rule that comes before another is part of it.
#![forbid(unsafe_code)]

use super::words::{
    answers_newest, asked, is_bound, is_contradicted, is_doubtful, is_kept_out, is_named_in_vain, is_set_aside,
    is_vouched_for, key_is_marked, key_was_refused, leads_to, lifts, marks, millis, named_by, record_key,
    registry_is_behind, request_lifts, said_of, statement_counts, statement_is_void, statement_proves,
    statement_says_something,
};
use super::{Law, Seen};
use crate::config::OnRotation;
use crate::machine::input::{Lookup, Path, Received};
use crate::machine::outcome::Outcome;
use crate::machine::replay::Seen as Heard;
use crate::peer::{NodeId, PublicKey};
use crate::tables::{PendingKind, SUCCESSIONS_PER_PEER_MAX};
use crate::time::WallMillis;
use crate::wire::message::Kind;

/// so long a refusal that nobody vouches for is shown before another is.
const HOUR_MS: i64 = 60 * 60 * 1000;

/// What a message comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Drops,
    Confirms,
    Trusts,
    Waits,
    Refuses,
    RefusesUnvouched,
    Revokes,
    /// It is refused at once, as its sender was owed.
    TellsRefusal,
    /// The document leaves it open whether it waits or is dropped.
    WaitsOrDrops,
}

/// A verdict, the rule that says so, and whether the trust that there was ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Ruling {
    pub(super) verdict: Verdict,
    pub(super) rule: &'static str,
    pub(super) ends: bool,
}

const fn rules(verdict: Verdict, rule: &'static str) -> Ruling {
    Ruling { verdict, rule, ends: false }
}

impl Ruling {
    const fn ending(self, ends: bool) -> Self {
        Self { ends: self.ends || ends, ..self }
    }
}

use Verdict::{Confirms, Drops, Refuses, RefusesUnvouched, Revokes, TellsRefusal, Trusts, Waits, WaitsOrDrops};

impl Seen<'_> {
    /// Whether a message came to what the document says.
    pub(super) fn messages_come_to_what_they_must(&self) -> Law {
        let Some(it) = self.received() else { return Ok(()) };
        let ruling = self.ruling(it);
        let came_to = match self.outcome() {
            None | Some(Outcome::Dropped(_)) => Drops,
            Some(Outcome::Confirmed(_) | Outcome::KeyAdopted(_)) => Confirms,
            Some(Outcome::Trusted(_)) => Trusts,
            Some(Outcome::Queued) => Waits,
            Some(Outcome::Refused) => Refuses,
            Some(Outcome::RefusedUnvouched) => RefusesUnvouched,
            Some(Outcome::RevokedByPeer { .. }) => Revokes,
            Some(Outcome::Retried { kind: Kind::Reject }) => TellsRefusal,
            Some(other) => return Err(format!("a message came to {other:?}")),
        };
        let is_so = came_to == ruling.verdict || (ruling.verdict == WaitsOrDrops && matches!(came_to, Waits | Drops));
        self.must(
            ruling.rule,
            is_so,
            &format!("a message must come to {:?}, and came to {came_to:?}", ruling.verdict),
        )?;
        let peer = it.message.sender();
        let ends = ruling.ends || ruling.verdict == Revokes;
        let takes_over = matches!(ruling.rule, "R-220");
        match self.lost(peer) {
            Some(_) if !ends && !takes_over => {
                Err(format!("{}: a message must end no trust in {peer}, and did", ruling.rule))
            }
            None if ends && self.before.trusted.contains_key(&peer) => {
                Err(format!("{}: a message must end trust in {peer}, and did not", ruling.rule))
            }
            _ => Ok(()),
        }
    }

    /// What the document says of the message.
    pub(super) fn ruling(&self, it: &Received) -> Ruling {
        *self.ruled.get_or_init(|| self.rule_on(it))
    }

    fn rule_on(&self, it: &Received) -> Ruling {
        if let Some(rule) = self.may_not_come(it) {
            return rules(Drops, rule);
        }
        let (peer, key) = (it.message.sender(), it.message.key());
        let record = record_key(self.before, peer);
        if is_contradicted(self.before, it) {
            return rules(Drops, "R-17").ending(record == Some(*key));
        }
        if record.is_some_and(|record| leads_to(self.before, peer, key, &record)) {
            return rules(Drops, "R-219");
        }
        // a record under a marked key ends with the next message under it.
        let ends = record == Some(*key) && key_is_marked(self.before, key);
        let ruling = match it.message.kind() {
            Kind::Request => self.request(it),
            Kind::Accept => self.accept(it),
            Kind::Reject => self.reject(it),
            Kind::Revoke => self.revoke(it),
        };
        ruling.ending(ends)
    }

    /// The checks before anybody is asked, once more.
    pub(super) fn may_not_come(&self, it: &Received) -> Option<&'static str> {
        let (message, peer, key) = (&it.message, it.message.sender(), it.message.key());
        let (v1, kind, relayed) = (message.is_version_1(), message.kind(), it.path.is_relayed());
        let config = &self.rules.config;
        let age_max = millis(if relayed { config.entry_lifetime } else { config.message_age_max });
        let floor = self.before.floor.get(&peer);
        let trusted = self.before.trusted.get(&peer);
        let checks = [
            ("R-60", v1 && !self.rules.policy.accept_v1),
            ("R-72", relayed && (kind == Kind::Revoke || (v1 && kind != Kind::Request))),
            ("R-11", self.now.wall.millis_since(message.stamp()) > age_max),
            ("R-12", message.stamp() > self.latest()),
            ("R-13", peer == self.rules.own_id),
            ("R-184", self.is_ignored(peer, key)),
            ("R-61", v1 && floor.is_some_and(|floor| floor.spoke_v2)),
            (
                "R-68",
                // what the registry contradicts ends the trust, a copy or not.
                v1 && !is_contradicted(self.before, it)
                    && (it.seen == Heard::Authentic || (it.seen == Heard::Unvouched && !it.path.authenticates(peer))),
            ),
            ("R-53", !v1 && floor.is_some_and(|floor| floor.key == Some(*key) && floor.seen > self.latest())),
            ("R-15", !v1 && floor.is_some_and(|floor| floor.key == Some(*key) && message.stamp() <= floor.seen)),
        ];
        let fails = checks.iter().find(|(_, fails)| *fails).map(|(rule, _)| *rule);
        fails.or_else(|| {
            if v1 {
                return None;
            }
            let has_floor = floor.is_some_and(|floor| floor.key == Some(*key));
            let age = trusted.filter(|it| it.public_key == Some(*key)).filter(|_| !has_floor || kind == Kind::Revoke);
            let age = age.map(|record| match record.approved_at == WallMillis::new(0) {
                true if kind == Kind::Revoke && !has_floor => self.now.wall.saturating_add(-30_000),
                true => WallMillis::new(i64::MIN),
                false => self.floor_by_age(record),
            });
            let began = self.began.min(self.now.wall).saturating_add(-30_000);
            let is_before_us = kind == Kind::Revoke && message.stamp() <= began;
            if age.is_some_and(|age| message.stamp() <= age) { Some("R-193") } else { is_before_us.then_some("R-194") }
        })
    }

    /// an ignored peer, or an ignored key; but a trusted peer is heard under the key of its record.
    pub(super) fn is_ignored(&self, peer: NodeId, key: &PublicKey) -> bool {
        let before = self.before;
        let is_ignored = before.ignored.contains_key(&peer) || before.ignored_keys.contains_key(key.as_bytes());
        is_ignored && record_key(before, peer) != Some(*key)
    }

    /// vouched for, and not by what a floor that was moved back would let pass.
    pub(super) fn decides(&self, it: &Received) -> bool {
        is_vouched_for(self.before, it) && !is_doubtful(self.before, it)
    }

    /// Whether our caller named another key for this peer.
    pub(super) fn names_another(&self, it: &Received) -> bool {
        let named = asked(self.before, it.message.sender()).and_then(|it| it.expected_key);
        named.is_some_and(|named| named != *it.message.key())
    }

    /// whether one more may be trusted.
    pub(super) fn has_room_for(&self, peer: NodeId) -> bool {
        self.before.trusted.contains_key(&peer) || self.before.trusted.len() < self.rules.limits.trusted_max
    }

    fn is_refused_copy(&self, it: &Received) -> bool {
        !it.message.is_version_1() && self.was_refused(it.message.sender(), it.message.key(), it.message.stamp())
    }

    /// what the word of the record's key makes of a message that nobody vouches for.
    fn successor(&self, it: &Received) -> Option<Ruling> {
        let tables = self.before;
        if !statement_says_something(tables, it) {
            return None;
        }
        if self.is_refused_statement(it) {
            return (!is_vouched_for(tables, it)).then_some(rules(Drops, "R-218"));
        }
        if !self.is_proven(it) {
            return None;
        }
        Some(match self.rules.policy.on_rotation {
            OnRotation::Refuse => rules(Drops, "R-220"),
            _ if self.is_refused_copy(it) => rules(Drops, "R-171"),
            OnRotation::Take if self.takes(it) => rules(Trusts, "R-220"),
            OnRotation::Take if self.would_take(it) => {
                let is_set_aside = is_set_aside(tables, it.message.sender(), it.message.key());
                self.waits(it, PendingKind::Request, if is_set_aside { "R-270" } else { "R-271" })
            }
            OnRotation::Take | OnRotation::Ask => self.waits(it, PendingKind::Request, "R-217"),
        })
    }

    /// a request, or an accept that answers us, that carries the word of the record's key and that nobody vouches for.
    pub(super) fn is_proven(&self, it: &Received) -> bool {
        let tables = self.before;
        let kind = it.message.kind();
        let comes_to_something = kind == Kind::Request || (kind == Kind::Accept && answers_newest(tables, it));
        let old = named_by(it);
        comes_to_something
            && old.is_some()
            && record_key(tables, it.message.sender()) == old
            && statement_proves(tables, it)
            && self.can_remember(it)
            && !is_vouched_for(tables, it)
    }

    /// nothing speaks against taking a proven key.
    fn takes(&self, it: &Received) -> bool {
        let (peer, old) = (it.message.sender(), named_by(it));
        //
        let has_void = said_of(self.before, peer).iter().any(|it| Some(it.old) == old && it.void.is_some());
        self.would_take(it) && !has_void && !is_set_aside(self.before, peer, it.message.key())
    }

    /// The same, but for what was decided about keys before.
    fn would_take(&self, it: &Received) -> bool {
        let registry_differs = match &it.lookup {
            Lookup::Found { .. } => true,
            Lookup::Failed => true,
            Lookup::NotAsked | Lookup::Unknown => false,
        };
        //
        let was_refused = key_was_refused(self.before, it.message.sender(), it.message.key());
        !registry_differs && !self.names_another(it) && !is_doubtful(self.before, it) && !was_refused
    }

    /// whether there is room to remember what a key named, if it is not remembered yet.
    fn can_remember(&self, it: &Received) -> bool {
        let said = said_of(self.before, it.message.sender());
        let is_kept = said.iter().any(|said| Some(said.old) == named_by(it) && said.new == *it.message.key());
        let has_room = match said.len() {
            0 => self.before.successors.len() < self.rules.limits.successors_max,
            len => len < SUCCESSIONS_PER_PEER_MAX,
        };
        is_kept || has_room
    }

    /// what is void is decided, and refuses nothing; but a revoked key does.
    fn is_refused_statement(&self, it: &Received) -> bool {
        let is_marked = |key: PublicKey| key_is_marked(self.before, &key);
        let names_marked = is_marked(*it.message.key()) || named_by(it).is_some_and(is_marked);
        !statement_counts(self.before, it) && (names_marked || !statement_is_void(self.before, it))
    }

    fn request(&self, it: &Received) -> Ruling {
        let (peer, key) = (it.message.sender(), it.message.key());
        let tables = self.before;
        let decides = self.decides(it);
        if let Some(ruling) = self.successor(it) {
            return ruling;
        }
        let [of_peer, of_key] = marks(tables, peer, Some(key));
        let mut ends = false;
        if let Some(record) = tables.trusted.get(&peer) {
            match record.public_key {
                // an old signature under a trusted key is worth neither an answer nor the operator's time.
                Some(known) if known == *key && of_key.is_none() => {
                    let is_heard = !it.message.is_version_1() || decides;
                    return if is_heard { rules(Confirms, "R-21") } else { rules(Drops, "R-62") };
                }
                None if decides && of_key.is_none() && !self.names_another(it) && !is_set_aside(tables, peer, key) => {
                    return rules(Confirms, "R-21");
                }
                None => return self.request_waits(it, "R-21"),
                Some(known) if known != *key && !decides => return self.request_waits(it, "R-22"),
                // under a revoked key it waits and ends nothing.
                Some(known) => ends = known != *key && (of_key.is_none() || request_lifts(tables, peer, key)),
            }
        }
        if self.is_refused_copy(it) {
            return rules(Drops, "R-171").ending(ends);
        }
        if self.is_owed_refusal(it) {
            return rules(TellsRefusal, "R-230").ending(ends);
        }
        let is_marked = of_peer.is_some() || of_key.is_some();
        if is_marked && !request_lifts(tables, peer, key) {
            return self.waits(it, PendingKind::Request, "R-23").ending(ends);
        }
        let rule = if is_doubtful(tables, it) { None } else { self.rule_that_trusts(it, is_marked) };
        match rule {
            Some(_) if !self.has_room_for(peer) => rules(Drops, "R-37").ending(ends),
            Some(rule) => rules(Trusts, rule).ending(ends),
            None => self.request_waits(it, self.why_not_trusted(it)).ending(ends),
        }
    }

    /// What keeps a request from the rules that trust, if that was decided about keys; none of it where no rule would.
    fn why_not_trusted(&self, it: &Received) -> &'static str {
        let (peer, key) = (it.message.sender(), it.message.key());
        match is_set_aside(self.before, peer, key) {
            true if is_named_in_vain(self.before, peer, key) => "R-270",
            true => "R-272",
            // Of all rules, this one alone is kept from trusting.
            false if self.rules.policy.auto_approve && key_was_refused(self.before, peer, key) => "R-284",
            false if registry_is_behind(self.before, it) => "R-273",
            false => "R-25",
        }
    }

    fn request_waits(&self, it: &Received, rule: &'static str) -> Ruling {
        if self.is_refused_copy(it) { rules(Drops, "R-171") } else { self.waits(it, PendingKind::Request, rule) }
    }

    ///
    fn rule_that_trusts(&self, it: &Received, is_marked: bool) -> Option<&'static str> {
        let (peer, key) = (it.message.sender(), it.message.key());
        if (it.message.is_version_1() && !is_vouched_for(self.before, it)) || self.names_another(it) {
            return None;
        }
        //
        if is_kept_out(self.before, peer, key) || registry_is_behind(self.before, it) {
            return None;
        }
        let is_bound = is_bound(it);
        let ask = asked(self.before, peer);
        let is_expected = ask.is_some_and(|asked| asked.expected_key == Some(*key));
        if ask.is_some() && (is_bound || (is_expected && it.lookup != Lookup::Failed)) {
            return Some("R-24");
        }
        if is_marked || is_set_aside(self.before, peer, key) {
            return None;
        }
        if self.shared_network(it).is_some() {
            return Some("R-65");
        }
        let listed = self.rules.policy.allow_list.of(peer).iter();
        let mut listed = listed.filter(|entry| entry.key.map_or(is_bound, |named| named == *key));
        //
        let is_welcome = is_vouched_for(self.before, it) || !key_was_refused(self.before, peer, key);
        let is_listed = listed.next().is_some() || (self.rules.policy.auto_approve && is_welcome);
        (is_listed && it.lookup != Lookup::Failed).then_some("R-66")
    }

    /// the first of our networks that a bound peer is in too.
    pub(super) fn shared_network(&self, it: &Received) -> Option<u16> {
        let Lookup::Found { networks, .. } = &it.lookup else { return None };
        let ours = self.rules.policy.own_networks.iter().copied();
        ours.filter(|_| is_bound(it)).find(|network| *network != 0 && networks.contains(network))
    }

    fn accept(&self, it: &Received) -> Ruling {
        let (peer, key) = (it.message.sender(), it.message.key());
        let tables = self.before;
        if it.message.is_version_1() && !is_vouched_for(tables, it) {
            return rules(Drops, "R-62");
        }
        if let Some(ruling) = self.answer_is_out_of_place(it) {
            return ruling;
        }
        if let Some(ruling) = self.successor(it) {
            return ruling;
        }
        let record = record_key(tables, peer);
        if is_doubtful(tables, it) {
            return if record == Some(*key) { rules(Drops, "R-190") } else { self.answer_waits(it, "R-190") };
        }
        if self.decides(it) && record.is_some_and(|record| record != *key) {
            return rules(Drops, "R-31").ending(true);
        }
        if self.is_refused_copy(it) {
            return rules(Drops, "R-171");
        }
        let rule = if self.decides(it) {
            // A key that is the record's already is trusted by no rule anew.
            (!self.names_another(it) || record == Some(*key)).then_some("R-32")
        } else {
            self.is_first_use(it).then_some("R-67")
        };
        match rule {
            Some(_) if !self.has_room_for(peer) => rules(Drops, "R-37"),
            Some(rule) => rules(Trusts, rule),
            None => self.answer_waits(it, "R-33"),
        }
    }

    fn answer_waits(&self, it: &Received, rule: &'static str) -> Ruling {
        if self.is_refused_copy(it) {
            rules(Drops, "R-171")
        } else {
            self.waits(it, PendingKind::AnsweredUnvouched, rule)
        }
    }

    /// under a marked key an accept gives nothing; that a reject ends a request is no trust in it.
    fn answer_is_out_of_place(&self, it: &Received) -> Option<Ruling> {
        let peer = it.message.sender();
        let key = Some(it.message.key()).filter(|_| it.message.kind() == Kind::Accept);
        let lift = asked(self.before, peer).and_then(|asked| asked.lift);
        let is_in_place = answers_newest(self.before, it) && lifts(marks(self.before, peer, key), lift);
        (!is_in_place).then_some(rules(Drops, "R-30"))
    }

    ///
    fn is_first_use(&self, it: &Received) -> bool {
        let (peer, key) = (it.message.sender(), it.message.key());
        let tables = self.before;
        let is_marked = marks(tables, peer, Some(key)).iter().any(Option::is_some);
        let other_waits =
            tables.pending.get(&peer).is_some_and(|entry| entry.conflicts > 0 || entry.keys().any(|it| it.key != *key));
        let other_was_vouched = tables.floor.get(&peer).and_then(|floor| floor.key).is_some_and(|it| it != *key);
        let nonce = asked(tables, peer).map(|asked| asked.nonce);
        let relay_had_it = nonce.is_some_and(|nonce| self.given.contains(&nonce.0))
            || asked(tables, peer).is_some_and(|asked| asked.relayed);
        self.rules.policy.trust_on_first_use
            && !tables.trusted.contains_key(&peer)
            && !(is_marked || other_waits || other_was_vouched || self.names_another(it) || relay_had_it)
            && matches!(it.path, Path::Direct { .. })
            && it.lookup != Lookup::Failed
            && !is_set_aside(tables, peer, key)
            && !key_was_refused(tables, peer, key)
            && !registry_is_behind(tables, it)
            && !it.message.is_version_1()
    }

    fn reject(&self, it: &Received) -> Ruling {
        if it.message.is_version_1() && !is_vouched_for(self.before, it) {
            return rules(Drops, "R-62");
        }
        if let Some(ruling) = self.answer_is_out_of_place(it) {
            return ruling;
        }
        if statement_says_something(self.before, it) && self.is_refused_statement(it) && !self.decides(it) {
            return rules(Drops, "R-218");
        }
        if is_doubtful(self.before, it) {
            return rules(Drops, "R-190");
        }
        if self.decides(it) {
            return rules(Refuses, "R-34");
        }
        if self.names_another(it) {
            return rules(Drops, "R-204");
        }
        // Told once an hour: what is shown already is no news.
        let shown = asked(self.before, it.message.sender()).and_then(|asked| asked.refused.as_ref());
        let is_news = shown.is_none_or(|shown| self.now.tick.millis_since(shown.tick) >= HOUR_MS);
        rules(if is_news { RefusesUnvouched } else { Drops }, "R-204")
    }

    fn revoke(&self, it: &Received) -> Ruling {
        let peer = it.message.sender();
        let tables = self.before;
        if !self.decides(it) {
            return rules(Drops, if is_doubtful(tables, it) { "R-190" } else { "R-35" });
        }
        let has_something =
            tables.trusted.contains_key(&peer) || tables.pending.contains_key(&peer) || asked(tables, peer).is_some();
        if has_something { rules(Revokes, "R-35") } else { rules(Drops, "R-35") }
    }

    /// what waits, if there is room for it and it is news.
    fn waits(&self, it: &Received, kind: PendingKind, rule: &'static str) -> Ruling {
        let (peer, key) = (it.message.sender(), it.message.key());
        let decides = self.decides(it);
        let v1 = it.message.is_version_1();
        let Some(entry) = self.before.pending.get(&peer) else {
            let backed = decides || self.is_proven(it);
            return match self.room(peer, it.path.source(), backed) {
                super::waiting::Room::None => rules(Drops, "R-26"),
                _ => rules(Waits, rule),
            };
        };
        if entry.key != *key {
            return rules(Waits, "R-29");
        }
        if entry.kind != kind {
            return rules(WaitsOrDrops, rule);
        }
        match (v1, entry.nonce.is_none()) {
            (true, false) => rules(Drops, "R-61"),
            (true, true) => rules(WaitsOrDrops, rule),
            (false, _) if it.message.stamp() > entry.stamp => rules(Waits, "R-28"),
            (false, _) if decides && !entry.authentic => rules(Waits, "R-172"),
            (false, true) => rules(WaitsOrDrops, rule),
            (false, false) => rules(Drops, "R-28"),
        }
    }
}
