//! Which message of a peer is answered by the refusal that it is owed: a try of what was refused, and no other.
#![forbid(unsafe_code)]

use super::effect::Draft;
use super::input::Input;
use super::outcome::{Outcome, Step};
use super::rejection::Rejection;
use super::view::{Floor, Nonce};
use crate::config::{Allowed, Policy};
use crate::map::mix::Mix;
use crate::tables::{TableChange, Tables};
use crate::testing::actor::{Actor, Way, asked_by, at, dropped, sent};
use crate::wire::message::Kind;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// 7, which owes 9 the refusal of this request.
fn owing(peer: &mut Actor) -> (Actor, Draft) {
    let (mut us, request) = asked_by(peer);
    let refused = us.refuse(at(20), peer.id(), "no").unwrap();
    let draft = sent(&refused).unwrap().clone();
    us.step(at(30), Input::Undelivered { draft }).unwrap();
    assert_eq!(us.tables.owed[&peer.id()].kind, Kind::Reject);
    (us, request)
}

/// The peer asks at `ms`, with this nonce.
fn asks(us: &mut Actor, peer: &mut Actor, ms: i64, nonce: Nonce, way: Way) -> Result<Step, Rejection> {
    let draft = Draft { nonce, ..peer.draft(at(ms), us.id(), Kind::Request, None) };
    us.hear_from(at(ms), peer, &draft, way)
}

#[test]
fn a_refusal_that_is_owed_answers_the_tries_of_what_was_refused_and_nothing_else() {
    let mut peer = Actor::new(9, 0x11);
    let (mut us, request) = owing(&mut peer);
    // A copy is nothing, a try is told each time, for as long as the refusal is owed, and none of them waits.
    assert_eq!(us.hear_from(at(40), &peer, &request, Way::open()), Err(Rejection::AlreadyRefused));
    for ms in [MINUTE, 10 * MINUTE, 29 * DAY] {
        let step = asks(&mut us, &mut peer, ms, request.nonce, Way::open()).unwrap();
        let told = sent(&step).unwrap();
        assert_eq!((told.kind, told.answers, told.reason.as_str()), (Kind::Reject, Some(request.nonce), "no"));
        assert_eq!(step.outcome, Outcome::Retried { kind: Kind::Reject });
        assert!(us.tables.pending.is_empty() && step.events.is_empty());
    }
    // A peer that reads no answers and asks anew is heard.
    let anew = asks(&mut us, &mut peer, 29 * DAY + 1, Nonce([7; 16]), Way::open()).unwrap();
    assert_eq!((anew.outcome, sent(&anew)), (Outcome::Queued, None));
    let waits = &us.tables.pending[&peer.id()];
    assert_eq!((waits.key, waits.nonce), (peer.public_key(), Some(Nonce([7; 16]))));
    assert_eq!(us.tables.owed[&peer.id()].answers, Some(request.nonce), "what was decided about the other one stands");
    // What came before it, and comes late, is a copy of something older.
    let old = Draft { nonce: request.nonce, ..peer.draft(at(28 * DAY), us.id(), Kind::Request, None) };
    let late = us.hear_from(at(29 * DAY + 2), &peer, &old, Way::relayed(crate::testing::actor::node(3)));
    assert_eq!(dropped(&late), Some(Rejection::AlreadyRefused));
}

#[test]
fn a_new_request_is_trusted_by_the_rules_that_trust_it_and_a_try_of_what_was_refused_by_none() {
    for (anew, trusts) in [(false, false), (true, true)] {
        let mut peer = Actor::new(9, 0x11);
        let (mut us, request) = owing(&mut peer);
        us.rules.policy = Policy::default().allow(Allowed::new(peer.id(), peer.public_key()));
        let nonce = if anew { Nonce([7; 16]) } else { request.nonce };
        let step = asks(&mut us, &mut peer, MINUTE, nonce, Way::open()).unwrap();
        assert_eq!(us.tables.trusted.contains_key(&peer.id()), trusts, "{:?}", step.outcome);
        assert_eq!(sent(&step).unwrap().kind, if trusts { Kind::Accept } else { Kind::Reject });
        assert_eq!(us.tables.owed.is_empty(), trusts, "trust cancels what is owed");
    }
}

#[test]
fn a_doubtful_try_of_what_was_refused_is_not_told_and_waits() {
    for (before, told) in [(at(60 * MINUTE).wall, false), (Floor::EMPTY.before, true)] {
        let mut peer = Actor::new(9, 0x11);
        let (mut us, request) = owing(&mut peer);
        let floor = Floor { key: Some(peer.public_key()), seen: at(40).wall, before, ..Floor::EMPTY };
        us.tables.floor.insert(peer.id(), floor);
        let step = asks(&mut us, &mut peer, MINUTE, request.nonce, Way::open()).unwrap();
        assert_eq!(sent(&step).map(|draft| draft.kind), told.then_some(Kind::Reject));
        assert_eq!(us.tables.pending.contains_key(&peer.id()), !told);
        assert!(us.tables.owed.contains_key(&peer.id()), "it is owed all the same");
    }
}

#[test]
fn what_a_trusted_peer_is_told_again_is_no_urgent_change_and_a_refusal_or_farewell_is() {
    let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
    let record = us.trusts(peer.id(), Some(peer.public_key()));
    let mut tables = Tables::new(Mix::new(1)).apply(&[TableChange::Trusted(peer.id(), Some(record))]).0;
    let mut done = |changes: &[TableChange]| {
        let (next, touched) = tables.apply(changes);
        tables = next;
        (touched.any, touched.urgent)
    };
    for ms in 1..20 {
        let request = peer.draft(at(ms), us.id(), Kind::Request, None);
        let step = us.hear_from(at(ms), &peer, &request, Way::open()).unwrap();
        assert_eq!(done(&step.changes), (true, false), "it asks again");
        let draft = sent(&step).unwrap().clone();
        let stamp = draft.stamp;
        let step = us.step(at(ms), Input::Undelivered { draft }).unwrap();
        assert_eq!(done(&step.changes), (true, false), "its answer did not leave");
        if ms % 2 == 0 {
            let step = us.step(at(ms), Input::Delivered { peer: peer.id(), kind: Kind::Accept, stamp }).unwrap();
            assert_eq!(done(&step.changes), (true, false), "or did");
        }
    }
    let revoked = us.revoke(at(50), peer.id()).unwrap();
    assert_eq!(done(&revoked.changes), (true, true));
    let draft = sent(&revoked).unwrap().clone();
    let step = us.step(at(60), Input::Undelivered { draft }).unwrap();
    assert_eq!(done(&step.changes), (true, true), "a farewell is owed");
}
