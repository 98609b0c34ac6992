//! What lives came to, counted: rules, outcomes, rejections, and reasons of grants and losses.
//!
//! What must hold: a rule of docs/protocol.md is either counted here by what can be seen of it from outside (the tables
//! before and after, the input and the answer), or it stands in `BEYOND` with the reason why no step can reach it.
//!
//! More than 450 lines because what shows that a rule was reached stands in one place for all of them.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use super::names::{
    BEYOND, OUTCOMES, REASONS, REJECTIONS, RULES, outcome, reason as reason_name, rejection as rejection_name,
};
use crate::config::OnRotation;
use crate::event::{AutoReason, ChangeReason, Event, TrustState};
use crate::machine::effect::{Action, When};
use crate::machine::input::{Command, Input, LookedAt, Lookup, Path, Received};
use crate::machine::outcome::{Outcome, Step};
use crate::machine::rejection::Rejection;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::tables::{Floor, Pending, PendingKind, Succession};
use crate::testing::actor::Actor;
use crate::testing::model::PlainView;
use crate::time::Now;
use crate::wire::message::Kind;

/// How often each was reached.
#[derive(Clone, Debug, Default)]
pub struct Reached(BTreeMap<String, u64>);

/// One input and its answer.
pub(super) struct Moment<'a> {
    /// Its tables are those after the step.
    pub(super) us: &'a Actor,
    pub(super) now: Now,
    pub(super) before: &'a PlainView,
    pub(super) input: &'a Input,
    pub(super) answer: &'a Result<Step, Rejection>,
}

impl Reached {
    /// Everything that a life can come to, and why the rest cannot be: what no step decides.
    #[must_use]
    pub fn names() -> (BTreeSet<String>, BTreeMap<String, &'static str>) {
        let beyond: BTreeMap<_, _> =
            BEYOND.iter().flat_map(|(names, why)| names.split(' ').map(|name| (name.to_owned(), *why))).collect();
        let of = |kind: &'static str, names: &'static [&str]| names.iter().map(move |name| format!("{kind}:{name}"));
        let all = of("outcome", OUTCOMES).chain(of("rejection", REJECTIONS)).chain(of("reason", REASONS));
        let all = all.chain(RULES.iter().map(|rule| format!("R-{rule}")));
        (all.filter(|name| !beyond.contains_key(name)).collect(), beyond)
    }

    /// How often this was reached.
    #[must_use]
    pub fn times(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Adds what another life came to.
    pub fn add_all(&mut self, other: &Self) {
        for (name, times) in &other.0 {
            *self.0.entry(name.clone()).or_default() += times;
        }
    }

    pub(super) fn rule(&mut self, number: u16) {
        assert!(RULES.contains(&number), "R-{number} is not in the list");
        self.count(format!("R-{number}"));
    }

    fn count(&mut self, name: String) {
        *self.0.entry(name).or_default() += 1;
    }

    pub(super) fn add(&mut self, moment: &Moment<'_>) {
        let rejection = match moment.answer {
            Err(rejection) => Some(*rejection),
            Ok(step) => {
                self.count(format!("outcome:{}", outcome(&step.outcome)));
                for event in &step.events {
                    if let Event::TrustChanged { reason, .. } = event {
                        self.count(format!("reason:{}", reason_name(reason)));
                    }
                }
                if let Outcome::Dropped(rejection) = step.outcome { Some(rejection) } else { None }
            }
        };
        if let Some(rejection) = rejection {
            assert_eq!(rejection_name(&rejection), rejection.name());
            self.count(format!("rejection:{}", rejection.name()));
        }
        let seen = See { moment, rejection, step: moment.answer.as_ref().ok() };
        let mut rules = seen.of_every_input();
        match moment.input {
            Input::Message(received) => rules.extend(seen.of_message(received)),
            Input::Operator(command) => rules.extend(seen.of_command(command)),
            Input::LookedUp { .. } => rules.push((49, seen.changes_trust())),
            Input::Compared { .. } => rules.push((158, seen.changes_trust())),
            Input::Disagreement { .. } => rules.push((159, true)),
            Input::Relaying { .. } => rules.push((197, seen.step.is_some())),
            Input::Announce { .. } => rules.push((232, seen.step.is_some())),
            Input::Stopping => rules.push((196, seen.step.is_some_and(|step| !step.changes.is_empty()))),
            Input::OwnEntries => rules.push((148, seen.step.is_some())),
            Input::Retry { .. } => {
                rules.push((200, seen.is_outcome("retried")));
                rules.push((202, seen.is_outcome("nothing_owed")));
            }
            Input::Delivered { .. } => rules.push((201, seen.step.is_some())),
            Input::Undelivered { .. } => {
                rules.push((201, seen.is_outcome("owed")));
                rules.push((205, seen.is("owed_full") || seen.gave_way(|tables| tables.owed.keys())));
            }
            Input::Housekeeping => rules.extend(seen.of_housekeeping()),
        }
        for (rule, _) in rules.into_iter().filter(|(_, reached)| *reached) {
            self.rule(rule);
        }
    }
}

/// What can be seen of one step.
struct See<'a> {
    moment: &'a Moment<'a>,
    rejection: Option<Rejection>,
    step: Option<&'a Step>,
}

type Seen = Vec<(u16, bool)>;

impl See<'_> {
    fn after(&self) -> &PlainView {
        &self.moment.us.tables
    }

    fn is(&self, name: &str) -> bool {
        self.rejection.is_some_and(|rejection| rejection.name() == name)
    }

    fn is_outcome(&self, name: &str) -> bool {
        self.step.is_some_and(|step| outcome(&step.outcome) == name)
    }

    /// What was remembered of this peer's keys.
    fn said(&self, peer: NodeId) -> &[Succession] {
        self.moment.before.successors.get(&peer).map_or(&[], |all| all)
    }

    /// Whether this key of the peer was replaced by another one.
    fn was_replaced(&self, peer: NodeId, key: &PublicKey) -> bool {
        self.said(peer).iter().any(|it| it.replaced && it.old == *key)
    }

    fn has_event(&self, is: impl Fn(&Event) -> bool) -> bool {
        self.step.is_some_and(|step| step.events.iter().any(is))
    }

    fn has_action(&self, is: impl Fn(&Action) -> bool) -> bool {
        self.step.is_some_and(|step| step.effects.iter().any(|effect| is(&effect.action)))
    }

    fn changes_trust(&self) -> bool {
        self.moment.before.trusted != self.after().trusted
    }

    fn is_trust(&self, state: TrustState, reason: ChangeReason) -> bool {
        self.has_event(
            |it| matches!(it, Event::TrustChanged { state: is, reason: of, .. } if (*is, *of) == (state, reason)),
        )
    }

    /// Whether somebody left a table whom the input is not about.
    fn gave_way<'t, K: Iterator<Item = &'t NodeId>>(&'t self, keys: impl Fn(&'t PlainView) -> K) -> bool {
        let about = self.about();
        let after: BTreeSet<_> = keys(self.after()).collect();
        keys(self.moment.before).any(|peer| Some(*peer) != about && !after.contains(peer))
    }

    fn about(&self) -> Option<NodeId> {
        match self.moment.input {
            Input::Message(received) => Some(received.message.sender()),
            Input::Operator(Command::Request { peer, .. }) => Some(*peer),
            Input::Undelivered { draft } => Some(draft.to),
            Input::Announce { peer, .. } => Some(*peer),
            _ => None,
        }
    }

    fn of_every_input(&self) -> Seen {
        let (before, after, now) = (self.moment.before, self.after(), self.moment.now.wall);
        let floors = |is: fn(&Floor, &Floor) -> bool| {
            after.floor.iter().any(|(peer, new)| before.floor.get(peer).is_some_and(|old| is(old, new)))
        };
        let is_full = |tables: &PlainView| tables.floor.len() >= self.moment.us.rules.limits.floors_max;
        let sent_to = |draft: &crate::wire::sign::Draft| before.floor.get(&draft.to).copied().unwrap_or(Floor::EMPTY);
        let sends = |is: &dyn Fn(&crate::wire::sign::Draft) -> bool| {
            self.has_action(|action| matches!(action, Action::Send(draft) | Action::SendVersion1(draft) if is(draft)))
        };
        let events = self.step.map_or(0, |step| step.events.len());
        vec![
            (
                37,
                self.step.is_some_and(|step| step.effects.iter().any(|it| matches!(it.when, When::OnceDurable { .. }))),
            ),
            (50, sends(&|draft| draft.stamp > now && sent_to(draft).sent.saturating_add(1) == draft.stamp)),
            (51, sends(&|draft| after.floor.get(&draft.to).is_some_and(|floor| floor.reserved > draft.stamp))),
            (52, floors(|old, new| old.key.is_some() && old.key != new.key)),
            (53, self.step.is_some_and(|step| step.clamped)),
            (54, is_full(before) && after.floor.len() > before.floor.len()),
            (163, self.has_event(|it| matches!(it, Event::KeyMismatch { .. }))),
            (174, events > 1),
            (
                270,
                after.successors.iter().any(|(peer, all)| {
                    let was = before.successors.get(peer).map_or(&[][..], |was| was);
                    all.iter()
                        .enumerate()
                        .any(|(at, it)| it.void.is_some() && was.get(at).is_some_and(|was| was.void.is_none()))
                }),
            ),
            (
                274,
                before.owed.iter().any(|(peer, it)| {
                    let other_key = |record: &TrustRecord| record.public_key != it.for_key;
                    it.for_key.is_some()
                        && it.kind == Kind::Accept
                        && !after.owed.contains_key(peer)
                        && after.trusted.get(peer).is_some_and(other_key)
                }),
            ),
            (185, self.is("revoked_keys_full") || self.is("ignored_full")),
            (186, self.has_event(|it| matches!(it, Event::Pending { marks, .. } if marks.is_any()))),
            (
                188,
                self.has_event(|it| matches!(it, Event::TrustChanged { state: TrustState::Revoked, .. }))
                    && self.has_action(|it| matches!(it, Action::Disconnect { .. }))
                    && self.has_action(|it| matches!(it, Action::ReportRevoke { .. })),
            ),
            (191, floors(|old, new| old.before != Floor::EMPTY.before && new.before == Floor::EMPTY.before)),
            (
                195,
                sends(&|draft| {
                    let floor = sent_to(draft);
                    floor.sent == floor.reserved && floor.sent > now && draft.stamp > floor.sent.saturating_add(1)
                }),
            ),
            (
                202,
                before.owed.iter().any(|(peer, owed)| {
                    let opposite = after.owed.get(peer).is_none_or(|now| now.kind != owed.kind);
                    self.about() == Some(*peer) && opposite
                }),
            ),
        ]
    }

    fn of_housekeeping(&self) -> Seen {
        let kept = self.step.map(|step| step.outcome);
        let Some(Outcome::Kept { pending_expired, outgoing_expired, owed_expired, floors_forgotten }) = kept else {
            return Seen::new();
        };
        let (before, after) = (self.moment.before, self.after());
        let refusal_over = before.outgoing.iter().any(|(peer, it)| {
            it.refused.as_ref().is_some_and(|refusal| refusal.authentic) && !after.outgoing.contains_key(peer)
        });
        vec![
            (55, pending_expired > 0 && before.pending.len() > after.pending.len()),
            (55, outgoing_expired > 0 || owed_expired > 0),
            (56, floors_forgotten > 0),
            (170, outgoing_expired > 0 && pending_expired == 0 && before.pending != after.pending),
            (171, before.refused != after.refused),
            (203, refusal_over),
        ]
    }

    fn of_message(&self, received: &Received) -> Seen {
        let (message, before, after, now) = (&received.message, self.moment.before, self.after(), self.moment.now.wall);
        let (peer, key, policy) = (message.sender(), *message.key(), &self.moment.us.rules.policy);
        let (kind, v1, relayed) = (message.kind(), message.is_version_1(), received.path.is_relayed());
        let (old, new) = (before.trusted.get(&peer).copied(), after.trusted.get(&peer).copied());
        let (was_pending, is_pending) = (before.pending.get(&peer), after.pending.get(&peer));
        let (was_floor, is_floor) = (before.floor.get(&peer).copied(), after.floor.get(&peer).copied());
        let outgoing = before.outgoing.get(&peer);
        let asked = outgoing.filter(|entry| entry.refused.as_ref().is_none_or(|refusal| !refusal.authentic));
        let named = asked.and_then(|entry| entry.expected_key);
        let (queued, request, accept) = (self.is_outcome("queued"), kind == Kind::Request, kind == Kind::Accept);
        let trusted = self.is_outcome("trusted");
        let is_marked = before.revoked.contains_key(&peer) || before.revoked_keys.contains_key(key.as_bytes());
        let other_record = old.is_some_and(|record| record.public_key.is_some_and(|bound| bound != key));
        let raised = is_floor.is_some_and(|new| was_floor.is_none_or(|old| new.seen > old.seen || new.key != old.key));
        let registered = matches!(&received.lookup, Lookup::Found { key: known, .. } if *known == key);
        let contradicted = matches!(&received.lookup, Lookup::Found { key: known, .. } if *known != key);
        let by_tunnel = matches!(received.path, Path::Direct { authenticated: Some(other), .. } if other == peer);
        let granted = |reason| self.is_trust(TrustState::Granted, reason);
        let by_rule = |reason| granted(ChangeReason::Auto(reason));
        let lost = |reason| self.is_trust(TrustState::Revoked, reason);
        let waits = |is: &dyn Fn(&Pending, &Pending) -> bool| {
            was_pending.zip(is_pending).is_some_and(|(old, new)| is(old, new))
        };
        let is_new_entry = was_pending.is_none() && is_pending.is_some();
        let farewell = self.has_action(|it| matches!(it, Action::Send(draft) if draft.kind == Kind::Revoke));
        let stale = self.is("stale");
        let former = was_floor.is_some_and(|floor| floor.key == Some(key) && message.stamp() <= floor.before);
        let cut = |step: &&Step| {
            let mut actions = step.effects.iter().map(|effect| &effect.action);
            actions.any(|it| matches!(it, Action::Disconnect { .. }))
                && actions.any(|it| matches!(it, Action::Send(draft) if draft.kind == Kind::Accept))
        };
        let gave_way = self.gave_way(|tables| tables.pending.keys());
        let named_by = message.rotation().map(|rotation| *rotation.old_key());
        let takes = policy.on_rotation == OnRotation::Take;
        let is_void = |old: PublicKey| self.said(peer).iter().any(|it| it.old == old && it.void.is_some());
        let conflicts = |it: &Pending| it.conflicts > was_pending.map_or(0, |it| it.conflicts);
        let of_registry = match &received.lookup {
            Lookup::Found { key: known, .. } => Some(*known),
            _ => None,
        };
        // Of the record, and of a key that was replaced by it.
        let is_behind = of_registry.is_some_and(|known| known != key && self.was_replaced(peer, &known));
        vec![
            (
                271,
                takes
                    && queued
                    && named_by.is_some_and(is_void)
                    && is_pending.is_some_and(|it| it.proven_by == named_by),
            ),
            (272, queued && old.is_none() && self.was_replaced(peer, &key) && is_pending.is_some_and(conflicts)),
            (273, is_behind && self.is_outcome("confirmed") && old.is_some_and(|it| it.public_key == Some(key))),
            (11, self.is("too_old")),
            (12, self.is("from_future")),
            (13, self.is("sender_is_us")),
            (15, stale && was_floor.is_some_and(|floor| floor.key == Some(key) && message.stamp() <= floor.seen)),
            (17, self.is("key_mismatch")),
            (18, !v1 && raised && !registered && (by_tunnel || named == Some(key))),
            (155, received.lookup == Lookup::Failed && queued && (policy.auto_approve || named == Some(key))),
            (156, contradicted && lost(ChangeReason::KeyChanged) && self.is("key_mismatch")),
            (
                157,
                contradicted
                    && was_pending.is_some_and(|it| it.authentic)
                    && is_pending.is_some_and(|it| !it.authentic),
            ),
            (19, raised && matches!(self.step, Some(Step { outcome: Outcome::Dropped(_), .. }))),
            (20, self.has_event(|it| matches!(it, Event::Received { .. }))),
            (21, self.is_outcome("confirmed")),
            (22, request && other_record && (queued && new == old || lost(ChangeReason::KeyChanged))),
            (23, request && queued && is_marked),
            (24, by_rule(AutoReason::Mutual)),
            (65, by_rule(AutoReason::SameNetwork)),
            (66, by_rule(AutoReason::AllowListed)),
            (66, by_rule(AutoReason::AutoApprove)),
            (74, request && queued && named.is_some_and(|named| named != key) && registered),
            (25, request && queued),
            (26, self.is("pending_full") || self.is("pending_source_full")),
            (27, is_new_entry && gave_way && is_pending.is_some_and(Pending::is_backed)),
            (169, is_new_entry && gave_way && !is_pending.is_some_and(Pending::is_backed)),
            (28, waits(&|old, new| old.key == new.key && new.key == key && new.stamp > old.stamp)),
            (29, waits(&|old, new| new.conflicts > old.conflicts)),
            (166, is_new_entry && is_pending.is_some_and(|it| it.conflicts == 1)),
            (168, waits(&|old, new| old.key == new.key && new.others.len() > old.others.len())),
            (170, kind == Kind::Reject && self.is_outcome("refused") && was_pending != is_pending),
            (171, self.is("already_refused")),
            (
                284,
                queued
                    && (policy.auto_approve || policy.trust_on_first_use)
                    && before.refused.get(&peer).is_some_and(|them| them.iter().any(|it| it.key == key)),
            ),
            (172, waits(&|old, new| old.key == new.key && new.authentic && !old.authentic)),
            (30, self.is("not_asked") || self.is("wrong_answer") || self.is("peer_revoked")),
            (31, self.is("key_changed")),
            (32, granted(ChangeReason::Accepted)),
            (33, accept && queued),
            (67, granted(ChangeReason::FirstUse)),
            (
                197,
                accept && queued && policy.trust_on_first_use && !relayed && asked.is_some_and(|entry| entry.relayed),
            ),
            (34, self.is_outcome("refused")),
            (35, self.is_outcome("revoked_by_peer")),
            (36, farewell && is_marked),
            (188, self.step.as_ref().is_some_and(cut)),
            (230, request && self.is_outcome("retried")),
            (231, farewell && before.owed.get(&peer).is_some_and(|owed| owed.kind == Kind::Revoke)),
            (179, trusted && is_marked),
            (181, self.is("key_revoked") || lost(ChangeReason::KeyRevoked)),
            (184, self.is("ignored")),
            (190, self.is("below_former_floor") || (former && queued)),
            (
                193,
                stale
                    && was_floor.is_none_or(|floor| floor.key != Some(key))
                    && old.is_some_and(|it| it.public_key == Some(key)),
            ),
            (203, self.is("not_asked") && outgoing.is_some() && asked.is_none()),
            (204, self.is_outcome("refused_unvouched")),
            (60, self.is("version_1")),
            (61, self.is("downgrade")),
            (62, v1 && queued && !is_pending.is_some_and(|it| it.authentic)),
            (63, v1 && trusted),
            (64, self.has_action(|it| matches!(it, Action::SendVersion1(_)))),
            (68, self.is("replayed")),
            (70, relayed && self.step.is_some() && now.millis_since(message.stamp()) > 300_000),
            (71, relayed && queued && is_new_entry && received.path == Path::Relayed { handed_in_by: peer }),
            (72, self.is("not_relayable")),
            (73, relayed && is_new_entry),
            (
                217,
                waits(&|old, new| new.proven_by.is_some() && old.proven_by.is_none())
                    || is_new_entry && is_pending.is_some_and(|it| it.proven_by.is_some()),
            ),
            (218, self.is("second_successor") || self.is("rotation_revoked_key")),
            (219, self.is("key_replaced")),
            (220, granted(ChangeReason::KeyRotated)),
            (220, self.is("rotation_refused")),
            (221, after.successors.len() > before.successors.len()),
            (224, waits(&|old, new| old.key != new.key && new.proven_by.is_some() && !old.is_backed())),
        ]
    }

    fn of_command(&self, command: &Command) -> Seen {
        let (before, after) = (self.moment.before, self.after());
        let done = self.step.is_some();
        let needs_lift = self.is("revoked_needs_lift") || self.is("key_revoked_needs_lift");
        let mut seen = vec![
            (177, needs_lift),
            (
                167,
                self.is_trust(TrustState::Granted, ChangeReason::Approved)
                    && self.is_trust(TrustState::Revoked, ChangeReason::KeyChanged),
            ),
        ];
        seen.extend(match command {
            Command::Request { peer, .. } => {
                let was = before.outgoing.get(peer);
                let is_answer = |it: &Pending| it.kind == PendingKind::AnsweredUnvouched;
                vec![
                    (40, self.is("already_trusted") || self.is("revoked_needs_operator")),
                    (41, done && (was.is_some() || self.gave_way(|tables| tables.outgoing.keys()))),
                    (
                        285,
                        self.step
                            .is_some_and(|step| matches!(step.outcome, Outcome::Requested { differs: Some(_), .. })),
                    ),
                    (170, done && before.pending.get(peer).is_some_and(is_answer)),
                    (178, done && after.outgoing.get(peer).is_some_and(|entry| entry.lift.is_some())),
                    (184, self.is("ignored_not_asked")),
                ]
            }
            Command::Approve { lookup, peer, .. } => {
                let proven_by = before.pending.get(peer).and_then(|entry| entry.proven_by);
                let old = before.trusted.get(peer).and_then(|record| record.public_key);
                vec![
                    (42, done),
                    (160, self.is("registry_contradicts") || done && matches!(lookup, Lookup::Found { .. })),
                    (165, self.is("fingerprint_required")),
                    (173, self.is("other_entry")),
                    (219, done && proven_by.is_some() && proven_by == old),
                ]
            }
            Command::Reject { named, .. } => vec![(43, done), (283, *named != LookedAt::default())],
            Command::Cancel { .. } => vec![(44, done)],
            Command::Revoke { .. } => {
                let step = self.step.map(|step| step.outcome);
                let Some(Outcome::Revoked { was, waited, asked, marked }) = step else { return seen };
                vec![
                    (45, was.is_some()),
                    (175, was.is_none() && !waited && !asked && marked.is_none()),
                    (176, marked.is_some()),
                ]
            }
            Command::Grant { record, .. } => {
                let ignores = |tables: &PlainView| tables.ignored.contains_key(&record.node_id);
                let floor = |tables: &PlainView| tables.floor.get(&record.node_id).map(|floor| floor.key);
                vec![
                    (46, done),
                    (194, done && floor(before) != floor(after)),
                    (282, ignores(before) && !ignores(after)),
                ]
            }
            Command::AdoptKey { .. } => vec![
                (47, done || self.is("other_key_bound") || self.is("other_key_expected")),
                (272, self.is("key_replaced")),
            ],
            Command::ReportKeyChange { .. } => vec![(48, done)],
            Command::RevokeKey { .. } | Command::EndUnderKey { .. } => vec![(180, done)],
            Command::ForgetRevocation { .. } => vec![(182, done)],
            Command::Remove { .. } => vec![(183, done)],
            Command::Ignore { .. } | Command::Unignore { .. } => vec![(184, done)],
        });
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::life::Life;
    use std::path::Path;

    /// What the corpus of the fuzz target `step_sequence` comes to.
    fn by_corpus() -> (usize, Reached) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/step_sequence");
        let (mut lives, mut reached) = (0, Reached::default());
        for entry in std::fs::read_dir(corpus).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let Some(life) = Life::of_bytes(&bytes) else { continue };
            lives += 1;
            reached.add_all(life.reached());
        }
        (lives, reached)
    }

    #[test]
    fn the_corpus_of_lives_reaches_every_rule() {
        let (lives, reached) = by_corpus();
        let (names, beyond) = Reached::names();
        let mut never = Vec::new();
        for name in &names {
            let times = reached.times(name);
            println!("{times:>8}  {name}");
            if times == 0 {
                never.push(name);
            }
        }
        for (name, why) in &beyond {
            println!("  beyond  {name}: {why}");
            assert_eq!(reached.times(name), 0, "{name} was reached");
        }
        println!("{lives} lives reached {} of {}", names.len() - never.len(), names.len());
        assert!(never.is_empty(), "{lives} lives never reached {never:?}");
    }

    #[test]
    fn every_rule_of_the_protocol_is_counted_or_no_matter_of_a_step() {
        let stated: BTreeSet<_> = include_str!("../../../docs/protocol.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| R-")?.split(' ').next())
            .map(|number| format!("R-{number}"))
            .collect();
        let (names, beyond) = Reached::names();
        let known: BTreeSet<_> =
            names.iter().chain(beyond.keys()).filter(|name| name.starts_with("R-")).cloned().collect();
        assert_eq!(known, stated);
        let unknown: Vec<_> = beyond
            .keys()
            .filter(|name| name.starts_with("rejection:"))
            .filter(|name| !REJECTIONS.iter().any(|rejection| name.strip_prefix("rejection:") == Some(rejection)))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
