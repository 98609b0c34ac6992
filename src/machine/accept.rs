//! What becomes of an accept: trust if it answers our newest request and somebody vouches for the key; the operator's
//! decision if nobody does.
#![forbid(unsafe_code)]

use super::answer::forget_answer;
use super::approval::contradicts_caller;
use super::event::ChangeReason;
use super::input::{Lookup, Received};
use super::known::replaced_key;
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::queue::enqueue;
use super::refused::{is_refused, is_refused_key};
use super::rejection::Rejection;
use super::rotation;
use super::step::{Standing, is_registry_behind};
use super::view::PendingKind;
use crate::peer::TrustRecord;

pub(super) fn decide(mut plan: Plan<'_>, received: &Received, standing: Standing) -> Result<Step, Rejection> {
    let key = *received.message.key();
    //
    if let Err(rejection) = answers_us(&plan, received) {
        return plan.drop_message(rejection);
    }
    // before R-31, for the holder of a revoked key ends no trust in another.
    if plan.is_barred(&key) {
        return plan.drop_message(Rejection::KeyRevoked);
    }
    if is_refused(&plan, received) {
        return plan.drop_message(Rejection::AlreadyRefused);
    }
    // the peer is under a new key, vouched for. The old trust ends and so does our request; no new trust comes of
    // this message.
    let record = plan.trusted;
    let same_key = record.is_some_and(|record| record.public_key == Some(key));
    let other_key = record.is_some_and(|record| record.public_key.is_some_and(|old| old != key));
    if other_key && standing.is_authentic() {
        plan.lose_trust(ChangeReason::KeyChanged);
        plan.outgoing = None;
        forget_answer(&mut plan);
        return plan.drop_message(Rejection::KeyChanged);
    }
    // there is nothing to decide about the key of a trusted record, and this may decide nothing.
    if plan.is_doubtful && same_key {
        return plan.drop_message(Rejection::BelowFormerFloor);
    }
    //
    if !standing.is_authentic() && rotation::is_taken(&plan, received) {
        return rotation::take(plan, received, true);
    }
    // the first key that answers will do, if the node is so trusting.
    if !standing.is_authentic() && trusts_first_use(&plan, received) {
        let record = TrustRecord::new(plan.peer, key).approved_at(plan.now.wall).mutual(true);
        if let Err(full) = plan.grant(record, ChangeReason::FirstUse, None) {
            return plan.drop_message(full);
        }
        plan.raise_floor(key, received.message.stamp());
        return Ok(plan.finish(Outcome::Trusted(record)));
    }
    // first contact, or a key other than our caller named. The request stays open, so that a forger who saw its
    // nonce cannot keep the genuine answer out.
    if !standing.is_authentic() || (contradicts_caller(&plan, key) && !same_key) {
        return match enqueue(&mut plan, received, standing, PendingKind::AnsweredUnvouched) {
            Ok(()) => Ok(plan.finish(Outcome::Queued)),
            Err(rejection) => plan.drop_message(rejection),
        };
    }
    // A record that was there stays as old as it is: trust has not lapsed.
    let record = record.unwrap_or_else(|| TrustRecord::new(plan.peer, None).approved_at(plan.now.wall));
    let record = record.key(key).mutual(true);
    let lift = plan.lift();
    match plan.grant(record, ChangeReason::Accepted, lift) {
        Ok(()) => Ok(plan.finish(Outcome::Trusted(record))),
        Err(full) => plan.drop_message(full),
    }
}

/// Nothing is known of this peer that the key could be at odds with: no record, no key that was vouched for or that our
/// caller named, no other key that waits. No relay is trusted with first contacts: it could answer every request that it
/// had, by any way.
fn trusts_first_use(plan: &Plan<'_>, received: &Received) -> bool {
    let key = *received.message.key();
    plan.rules.policy.trust_on_first_use
        //
        && received.lookup != Lookup::Failed
        && !plan.is_doubtful
        && !received.path.is_relayed()
        && plan.trusted.is_none()
        && !plan.marks(Some(&key)).is_any()
        && replaced_key(plan.view, plan.peer, &key).is_none()
        && plan.set_aside(&key).is_none()
        //
        && !is_refused_key(plan, &key)
        && !is_registry_behind(plan, received)
        && plan.asked().is_some_and(|outgoing| outgoing.expected_key.is_none() && !outgoing.relayed)
        && plan.pending.as_ref().is_none_or(|pending| pending.key == key && pending.conflicts == 0)
}

/// Whether an accept or reject answers our newest request to this peer.
pub(super) fn answers_us(plan: &Plan<'_>, received: &Received) -> Result<(), Rejection> {
    //
    if plan.revoked.is_some_and(|mark| plan.lift() != Some(mark.id)) {
        return Err(Rejection::PeerRevoked);
    }
    let outgoing = plan.asked().ok_or(Rejection::NotAsked)?;
    // version 1 has nothing better than that we have asked.
    let answers_it = received.message.is_version_1() || received.message.answers() == Some(outgoing.nonce);
    if answers_it { Ok(()) } else { Err(Rejection::WrongAnswer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::event::{Event, TrustState};
    use crate::machine::view::Floor;
    use crate::peer::PublicKey;
    use crate::testing::actor::{Actor, Way, at, dropped, sent};
    use crate::wire::message::Kind;
    use crate::wire::sign::Draft;

    /// 7 has asked 9, expecting `expected`; the accept that 9 would give.
    fn asked(expected: Option<PublicKey>) -> (Actor, Actor, Draft) {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let step = us.request(at(0), peer.id(), expected).unwrap();
        let accept = peer.draft(at(50), us.id(), Kind::Accept, Some(sent(&step).unwrap().nonce));
        (us, peer, accept)
    }

    fn peer_key() -> PublicKey {
        Actor::new(9, 0x11).public_key()
    }

    #[test]
    fn an_answer_under_a_vouched_for_key_is_trusted() {
        let ways = [
            (Some(peer_key()), Way::open()),
            (None, Way::registered(peer_key())),
            (None, Way::tunnel(Actor::new(9, 0x11).id())),
        ];
        for (expected, way) in ways {
            let (mut us, peer, accept) = asked(expected);
            let step = us.hear_from(at(60), &peer, &accept, way).unwrap();
            assert!(matches!(step.outcome, Outcome::Trusted(record) if record.mutual));
            assert!(us.tables.outgoing.is_empty());
        }
    }

    #[test]
    fn an_answer_under_an_unvouched_key_waits_for_the_operator_and_the_request_stays_open() {
        let (mut us, peer, accept) = asked(None);
        let step = us.hear_from(at(60), &peer, &accept, Way::open()).unwrap();
        assert_eq!(step.outcome, Outcome::Queued);
        assert!(us.tables.trusted.is_empty() && us.tables.outgoing.contains_key(&peer.id()));
        let entry = us.tables.pending[&peer.id()].clone();
        assert_eq!((entry.kind, entry.key), (PendingKind::AnsweredUnvouched, peer_key()));

        let approved = us.approve(at(70), peer.id(), Some(peer_key().fingerprint())).unwrap();
        assert_eq!(sent(&approved), None, "an answer is not answered");
        assert!(us.tables.trusted[&peer.id()].mutual && us.tables.outgoing.is_empty());
    }

    #[test]
    fn a_forger_who_saw_the_nonce_does_not_keep_the_genuine_answer_out() {
        let (mut us, peer, accept) = asked(Some(peer_key()));
        let forger = Actor::new(9, 0xBB);
        let step = us.hear_from(at(55), &forger, &accept, Way::open()).unwrap();
        assert_eq!(step.outcome, Outcome::Queued);
        assert!(us.tables.trusted.is_empty());
        let step = us.hear_from(at(60), &peer, &accept, Way::open()).unwrap();
        assert!(matches!(step.outcome, Outcome::Trusted(_)));
        assert_eq!(us.tables.trusted[&peer.id()].public_key, Some(peer_key()));
    }

    #[test]
    fn an_answer_to_nothing_or_to_another_request_is_dropped() {
        let wrong = |change: fn(&mut Actor, &mut Draft)| {
            let (mut us, peer, mut accept) = asked(Some(peer_key()));
            change(&mut us, &mut accept);
            let step = us.hear_from(at(60), &peer, &accept, Way::registered(peer_key())).unwrap();
            assert!(us.tables.trusted.is_empty() && us.tables.pending.is_empty());
            step.outcome
        };
        assert_eq!(wrong(|_, accept| accept.answers = None), Outcome::Dropped(Rejection::WrongAnswer));
        assert_eq!(wrong(|us, accept| accept.answers = Some(us.nonce())), Outcome::Dropped(Rejection::WrongAnswer));
        assert_eq!(wrong(|us, _| us.tables.outgoing.clear()), Outcome::Dropped(Rejection::NotAsked));
    }

    #[test]
    fn the_expected_key_vouches_only_together_with_the_nonce() {
        let (mut us, peer, mut accept) = asked(Some(peer_key()));
        accept.answers = Some(us.nonce());
        assert_eq!(us.hear_from(at(60), &peer, &accept, Way::open()), Err(Rejection::WrongAnswer));
        assert!(us.tables.floor[&peer.id()].key.is_none(), "not authentic: the floor does not move");
    }

    #[test]
    fn an_answer_under_a_new_key_ends_the_old_trust_and_begins_none() {
        let (mut us, peer, accept) = asked(None);
        us.trusts(peer.id(), Some(Actor::new(1, 0x22).public_key()));
        let step = us.hear_from(at(60), &peer, &accept, Way::registered(peer_key())).unwrap();
        assert_eq!(step.outcome, Outcome::Dropped(Rejection::KeyChanged));
        assert!(us.tables.trusted.is_empty() && us.tables.pending.is_empty());
        assert!(us.tables.outgoing.is_empty(), "and so does our request");

        // With it goes what answered it under a key that nobody vouches for.
        let (mut us, peer, accept) = asked(None);
        us.trusts(peer.id(), Some(Actor::new(1, 0x22).public_key()));
        us.hear_from(at(55), &Actor::new(9, 0xCC), &accept, Way::from_host(2)).unwrap();
        assert_eq!(us.tables.pending.len(), 1);
        us.hear_from(at(60), &peer, &accept, Way::registered(peer_key())).unwrap();
        assert!(us.tables.outgoing.is_empty() && us.tables.pending.is_empty());

        // Its twin: nobody vouches, nothing is lost.
        let (mut us, peer, accept) = asked(None);
        let record = us.trusts(peer.id(), Some(Actor::new(1, 0x22).public_key()));
        us.hear_from(at(60), &peer, &accept, Way::open()).unwrap();
        assert_eq!(us.tables.trusted[&peer.id()], record);
        assert!(us.tables.outgoing.contains_key(&peer.id()));
    }

    #[test]
    fn an_answer_under_a_revoked_key_ends_no_trust_though_the_registry_names_it() {
        let (mut us, peer, accept) = asked(None);
        us.revoke_key(at(1), peer_key()).unwrap();
        let record = us.trusts(peer.id(), Some(Actor::new(1, 0x22).public_key()));
        let step = us.hear_from(at(60), &peer, &accept, Way::registered(peer_key()));
        assert_eq!(dropped(&step), Some(Rejection::KeyRevoked));
        assert_eq!(us.tables.trusted.get(&peer.id()), Some(&record));
        assert!(us.tables.outgoing.contains_key(&peer.id()), "our request waits for another key's answer");
    }

    #[test]
    fn a_key_that_our_caller_did_not_name_needs_the_operator_though_the_registry_vouches() {
        let (mut us, peer, accept) = asked(Some(Actor::new(1, 0x22).public_key()));
        let step = us.hear_from(at(60), &peer, &accept, Way::registered(peer_key())).unwrap();
        assert_eq!(step.outcome, Outcome::Queued);
        assert!(us.tables.trusted.is_empty());
    }

    #[test]
    fn the_answer_to_a_forced_request_keeps_the_age_of_the_trust() {
        let (mut us, peer, accept) = asked(None);
        let before = us.trusts(peer.id(), Some(peer_key()));
        us.hear_from(at(60), &peer, &accept, Way::open()).unwrap();
        assert_eq!(us.tables.trusted[&peer.id()], before.mutual(true));
        assert!(us.tables.outgoing.is_empty());
    }

    #[test]
    fn an_answer_from_a_revoked_peer_gives_no_trust() {
        let (mut us, peer, accept) = asked(Some(peer_key()));
        us.revoke(at(10), peer.id()).unwrap();
        let step = us.hear_from(at(60), &peer, &accept, Way::registered(peer_key())).unwrap();
        assert_eq!(step.outcome, Outcome::Dropped(Rejection::PeerRevoked));
        assert!(us.tables.trusted.is_empty() && us.tables.revoked.contains_key(&peer.id()));
    }

    #[test]
    fn a_request_that_waits_keeps_its_answer_though_the_peer_also_answers() {
        let (mut us, mut peer, mut accept) = asked(None);
        let request = peer.draft(at(20), us.id(), Kind::Request, None);
        us.hear_from(at(30), &peer, &request, Way::open()).unwrap();
        us.hear_from(at(60), &peer, &accept, Way::open()).unwrap();
        let approved = us.approve_shown(at(70), peer.id()).unwrap();
        assert_eq!(sent(&approved).unwrap().answers, Some(request.nonce));

        // The other way round: it answered first, and asks now.
        let (mut us, mut peer, again) = asked(None);
        accept = again;
        us.hear_from(at(60), &peer, &accept, Way::open()).unwrap();
        let mut request = peer.draft(at(65), us.id(), Kind::Request, None);
        request.justification = "me too".into();
        let charged_to = us.tables.pending[&peer.id()].source;
        us.hear_from(at(66), &peer, &request, Way::from_host(2)).unwrap();
        let entry = &us.tables.pending[&peer.id()];
        assert_eq!((entry.justification.as_str(), entry.source), ("me too", charged_to));
        let approved = us.approve_shown(at(70), peer.id()).unwrap();
        assert_eq!(sent(&approved).unwrap().answers, Some(request.nonce));
    }

    #[test]
    fn the_first_key_that_answers_is_trusted_only_by_a_node_that_was_told_to() {
        for on in [true, false] {
            let (mut us, mut peer, accept) = asked(None);
            us.rules.policy.trust_on_first_use = on;
            let earlier = peer.draft(at(40), us.id(), Kind::Revoke, None);
            let step = us.hear_from(at(60), &peer, &accept, Way::open()).unwrap();
            assert_eq!(us.tables.trusted.contains_key(&peer.id()), on);
            assert_eq!((us.tables.pending.len(), us.tables.outgoing.len()), if on { (0, 0) } else { (1, 1) });
            let (state, reason) = (TrustState::Granted, ChangeReason::FirstUse);
            assert_eq!(step.events.contains(&Event::TrustChanged { peer: peer.id(), state, reason }), on);
            let after = us.hear_from(at(70), &peer, &earlier, Way::open());
            assert_eq!(after, Err(if on { Rejection::Stale } else { Rejection::NotAuthentic }));
        }
    }

    #[test]
    fn a_first_use_is_none_where_another_key_is_known_or_named() {
        type Prepare = fn(&mut Actor);
        let other = || Actor::new(1, 0x22).public_key();
        let cases: [(&str, Option<PublicKey>, Prepare); 6] = [
            ("waiting beside another", None, |us| {
                for (seed, host) in [(0x11, 1), (0x22, 2)] {
                    us.is_asked(10, 9, seed, "", Way::from_host(host)).unwrap();
                }
            }),
            ("vouched for once", None, |us| {
                let key = Some(Actor::new(9, 0x22).public_key());
                us.tables.floor.insert(Actor::new(9, 0x22).id(), Floor { key, ..Floor::EMPTY });
            }),
            ("named", Some(other()), |_| {}),
            ("trusted", None, |us| {
                us.trusts(Actor::new(9, 0x11).id(), Some(Actor::new(1, 0x22).public_key()));
            }),
            ("trusted without a key", None, |us| {
                us.trusts(Actor::new(9, 0x11).id(), None);
            }),
            ("waiting", None, |us| {
                let mut rival = Actor::new(9, 0x22);
                let request = rival.draft(at(10), us.id(), Kind::Request, None);
                us.hear_from(at(10), &rival, &request, Way::open()).unwrap();
            }),
        ];
        for (name, expected, prepare) in cases {
            let (mut us, peer, accept) = asked(expected);
            us.rules.policy.trust_on_first_use = true;
            prepare(&mut us);
            let before = us.tables.trusted.clone();
            assert_eq!(us.hear_from(at(60), &peer, &accept, Way::open()).unwrap().outcome, Outcome::Queued, "{name}");
            assert_eq!(us.tables.trusted, before, "{name}");
        }
        let (mut us, peer, mut accept) = asked(None);
        us.rules.policy.trust_on_first_use = true;
        accept.answers = Some(us.nonce());
        assert_eq!(us.hear_from(at(60), &peer, &accept, Way::open()), Err(Rejection::WrongAnswer), "not our nonce");
    }
}
