//! What becomes of a reject: our request is forgotten, if it is that peer who refuses that request.
#![forbid(unsafe_code)]

use super::accept::answers_us;
use super::answer::forget_answer;
use super::event::Event;
use super::input::Received;
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::rejection::Rejection;
use super::step::Standing;

/// Rule R-34.
pub(super) fn decide(mut plan: Plan<'_>, received: &Received, standing: Standing) -> Result<Step, Rejection> {
    if !standing.is_authentic() {
        return plan.drop_message(Rejection::NotAuthentic);
    }
    if let Err(rejection) = answers_us(&plan, received) {
        return plan.drop_message(rejection);
    }
    plan.outgoing = None;
    forget_answer(&mut plan);
    let reason = received.message.reason().to_string();
    plan.events.push(Event::Rejected { peer: plan.peer, reason });
    Ok(plan.finish(Outcome::Refused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::actor::{Actor, Way, at, dropped, sent};
    use crate::wire::message::Kind;

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
        assert_eq!(us.tables.outgoing.len(), 1);

        let step = us.hear_from(at(30), &peer, &reject, Way::open()).unwrap();
        assert_eq!(step.outcome, Outcome::Refused);
        assert_eq!(step.events, [Event::Rejected { peer: peer.id(), reason: "not you".into() }]);
        assert!(us.tables.outgoing.is_empty());
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
