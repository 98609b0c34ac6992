//! What becomes of a reject: our request is forgotten, if it is that peer who refuses that request.
#![forbid(unsafe_code)]

use super::accept::answers_us;
use super::answer::forget_answer;
use super::approval::contradicts_caller;
use super::deliver::UNVOUCHED_PAUSE_MS;
use super::event::Event;
use super::input::Received;
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::rejection::Rejection;
use super::step::Standing;
use super::view::Refusal;
use crate::peer::PublicKey;

/// Rules.
pub(super) fn decide(mut plan: Plan<'_>, received: &Received, standing: Standing) -> Result<Step, Rejection> {
    let (message, authentic) = (&received.message, standing.is_authentic());
    let answers = answers_us(&plan, received);
    if !authentic && (answers.is_err() || message.is_version_1() || !is_news(&plan, *message.key())) {
        return plan.drop_message(Rejection::NotAuthentic);
    }
    if let Err(rejection) = answers {
        return plan.drop_message(rejection);
    }
    let (key, reason) = (*message.key(), message.reason().to_string());
    let refusal = Refusal { at: plan.now.wall, tick: plan.now.tick, reason: reason.clone(), key, authentic };
    if let Some(outgoing) = &mut plan.outgoing {
        outgoing.refused = Some(refusal);
    }
    plan.events.push(Event::Rejected { peer: plan.peer, reason, fingerprint: key.fingerprint(), authentic });
    if !authentic {
        return Ok(plan.finish(Outcome::RefusedUnvouched));
    }
    forget_answer(&mut plan);
    Ok(plan.finish(Outcome::Refused))
}

/// Whether a refusal under a key that nobody vouches for is worth showing: not against the key that our caller named, and
/// not beside one that already stops the tries. So whoever saw the nonce causes one write an hour, whatever it sends.
fn is_news(plan: &Plan<'_>, key: PublicKey) -> bool {
    let refused = plan.outgoing.as_ref().and_then(|outgoing| outgoing.refused.as_ref());
    !contradicts_caller(plan, key)
        && refused.is_none_or(|refusal| plan.now.tick.millis_since(refusal.tick) >= UNVOUCHED_PAUSE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::input::Input;
    use crate::testing::actor::{Actor, Way, at, dropped, sent};
    use crate::wire::message::Kind;
    use crate::wire::sign::Draft;

    #[test]
    fn a_vouched_for_refusal_of_our_newest_request_ends_it_and_no_other_does() {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let request = us.request(at(0), peer.id(), Some(peer.public_key())).unwrap();
        let mut reject = peer.draft(at(20), us.id(), Kind::Reject, Some(sent(&request).unwrap().nonce));
        reject.reason = "no\u{202e}t you".into();

        let forger = Actor::new(9, 0xBB);
        let answer = us.hear_from(at(30), &forger, &reject, Way::open());
        assert_eq!(dropped(&answer), Some(Rejection::NotAuthentic));
        let mut other = reject.clone();
        other.answers = Some(us.nonce());
        assert_eq!(us.hear_from(at(30), &peer, &other, Way::open()), Err(Rejection::NotAuthentic));
        assert_eq!(us.tables.outgoing[&peer.id()].refused, None);

        let step = us.hear_from(at(30), &peer, &reject, Way::open()).unwrap();
        assert_eq!(step.outcome, Outcome::Refused);
        let (reason, fingerprint) = ("not you".to_owned(), peer.public_key().fingerprint());
        assert_eq!(step.events, [Event::Rejected { peer: peer.id(), reason, fingerprint, authentic: true }]);
        // It waits for no answer any more, and shows the refusal.
        let refused = us.tables.outgoing[&peer.id()].refused.clone().unwrap();
        assert_eq!((refused.reason.as_str(), refused.key, refused.authentic), ("not you", peer.public_key(), true));
        let accept = peer.draft(at(40), us.id(), Kind::Accept, reject.answers);
        let late = us.hear_from(at(50), &peer, &accept, Way::registered(peer.public_key())).unwrap();
        assert_eq!(late.outcome, Outcome::Dropped(Rejection::NotAsked));
    }

    /// 7 has asked 9 at 0, and 9 refuses at 20.
    fn refused(expected: bool) -> (Actor, Actor, Draft) {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let request = us.request(at(0), peer.id(), expected.then(|| peer.public_key())).unwrap();
        let mut reject = peer.draft(at(20), us.id(), Kind::Reject, Some(sent(&request).unwrap().nonce));
        reject.reason = "no".into();
        (us, peer, reject)
    }

    #[test]
    fn a_request_that_was_refused_counts_for_nothing_and_stands_in_no_way() {
        let (mut us, mut peer, reject) = refused(true);
        us.hear_from(at(30), &peer, &reject, Way::open()).unwrap();
        // its request is not one that we both made, and the key that was named vouches no longer.
        let request = peer.draft(at(40), us.id(), Kind::Request, None);
        let step = us.hear_from(at(50), &peer, &request, Way::open()).unwrap();
        assert_eq!((step.outcome, us.tables.pending[&peer.id()].authentic), (Outcome::Queued, false));
        us.approve(at(60), peer.id(), Some(peer.public_key().fingerprint())).unwrap();
        assert!(!us.tables.trusted[&peer.id()].mutual && us.tables.outgoing.is_empty());

        // A new request begins anew; its twin is one that nobody refused.
        let (mut us, mut peer, reject) = refused(true);
        us.hear_from(at(30), &peer, &reject, Way::open()).unwrap();
        let again = us.request(at(40), peer.id(), None).unwrap();
        let entry = us.tables.outgoing[&peer.id()].clone();
        assert_eq!((entry.expected_key, entry.refused), (None, None));
        let accept = peer.draft(at(50), us.id(), Kind::Accept, Some(sent(&again).unwrap().nonce));
        us.hear_from(at(60), &peer, &accept, Way::registered(peer.public_key())).unwrap();
        assert!(us.tables.trusted[&peer.id()].mutual);
    }

    #[test]
    fn a_refusal_is_shown_for_a_day_and_then_forgotten() {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        let (mut us, peer, reject) = refused(true);
        us.hear_from(at(30), &peer, &reject, Way::open()).unwrap();
        us.step(at(30 + DAY_MS), Input::Housekeeping).unwrap();
        assert!(us.tables.outgoing.contains_key(&peer.id()));
        us.step(at(31 + DAY_MS), Input::Housekeeping).unwrap();
        assert!(us.tables.outgoing.is_empty());
        // One that nobody vouches for ends nothing, and is kept with its request.
        let (mut us, peer, reject) = refused(false);
        us.hear_from(at(30), &peer, &reject, Way::open()).unwrap();
        us.step(at(31 + DAY_MS), Input::Housekeeping).unwrap();
        assert!(us.tables.outgoing[&peer.id()].refused.is_some());
    }

    #[test]
    fn a_refusal_that_nobody_vouches_for_is_shown_and_ends_nothing() {
        let (mut us, mut peer, reject) = refused(false);
        let forger = Actor::new(9, 0xBB);
        let step = us.hear_from(at(30), &forger, &reject, Way::open()).unwrap();
        let (reason, fingerprint) = ("no".to_owned(), forger.public_key().fingerprint());
        assert_eq!(step.outcome, Outcome::RefusedUnvouched);
        assert_eq!(step.events, [Event::Rejected { peer: peer.id(), reason, fingerprint, authentic: false }]);
        let shown = us.tables.outgoing[&peer.id()].refused.clone().unwrap();
        assert_eq!((shown.key, shown.authentic, shown.reason.as_str()), (forger.public_key(), false, "no"));
        // A second one within the hour changes nothing, whatever it says and under whatever key.
        let second = us.hear_from(at(60 * 60 * 1000 + 29), &Actor::new(9, 0xCC), &reject, Way::relayed(peer.id()));
        assert_eq!(second, Err(Rejection::NotAuthentic));
        let later = us.hear_from(at(60 * 60 * 1000 + 30), &Actor::new(9, 0xCC), &reject, Way::relayed(peer.id()));
        assert_eq!(later.unwrap().outcome, Outcome::RefusedUnvouched);
        // The genuine answer counts.
        let accept = peer.draft(at(4_000_000), us.id(), Kind::Accept, reject.answers);
        us.hear_from(at(4_000_000), &peer, &accept, Way::registered(peer.public_key())).unwrap();
        assert!(us.tables.trusted.contains_key(&peer.id()) && us.tables.outgoing.is_empty());
    }

    #[test]
    fn a_refusal_that_does_not_answer_us_is_not_even_shown() {
        let (mut us, peer, mut reject) = refused(false);
        reject.answers = Some(us.nonce());
        assert_eq!(us.hear_from(at(30), &peer, &reject, Way::open()), Err(Rejection::NotAuthentic));
        // Nor is one under another key than our caller named, which is nobody's that we asked.
        let (mut named, _, reject) = refused(true);
        let forger = Actor::new(9, 0xBB);
        let answer = named.hear_from(at(30), &forger, &reject, Way::open());
        assert_eq!(dropped(&answer), Some(Rejection::NotAuthentic));
        for us in [us, named] {
            assert_eq!(us.tables.outgoing[&peer.id()].refused, None);
        }
    }

    #[test]
    fn a_refusal_takes_an_unvouched_answer_with_it_and_leaves_a_request() {
        for (kind, stays) in [(Kind::Accept, false), (Kind::Request, true)] {
            let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
            let request = us.request(at(0), peer.id(), None).unwrap();
            let answers = Some(sent(&request).unwrap().nonce);
            let shown = peer.draft(at(10), us.id(), kind, answers);
            us.hear_from(at(15), &peer, &shown, Way::open()).unwrap();
            let reject = peer.draft(at(20), us.id(), Kind::Reject, answers);
            us.hear_from(at(30), &peer, &reject, Way::registered(peer.public_key())).unwrap();
            assert_eq!(us.tables.pending.contains_key(&peer.id()), stays, "{kind:?}");
        }
    }
}
