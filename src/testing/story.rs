//! Stories of two nodes, played by hand.
#![forbid(unsafe_code)]

use super::actor::{Actor, Way, at, node, sent};
use crate::machine::effect::{Action, Effect, When};
use crate::machine::event::{ChangeReason, Event, TrustState};
use crate::machine::outcome::Outcome;
use crate::machine::rejection::Rejection;
use crate::peer::TrustRecord;
use crate::tables::Marks;

fn two() -> (Actor, Actor) {
    (Actor::new(7, 0xAA), Actor::new(9, 0x11))
}

/// 7 asks 9, whose operator approves; both trust each other afterwards.
fn befriended() -> (Actor, Actor) {
    let (mut a, mut b) = two();
    let asked = a.request(at(0), b.id(), Some(b.public_key())).unwrap();
    b.hear_from(at(10), &a, sent(&asked).unwrap(), Way::open()).unwrap();
    let approved = b.approve(at(1000), a.id(), Some(a.public_key().fingerprint())).unwrap();
    a.hear_from(at(1010), &b, sent(&approved).unwrap(), Way::open()).unwrap();
    assert!(a.tables.trusted.contains_key(&b.id()) && b.tables.trusted.contains_key(&a.id()));
    (a, b)
}

#[test]
fn request_pending_approve_accept_trusted_on_both_sides() {
    let (mut a, mut b) = two();
    let asked = a.request(at(0), b.id(), Some(b.public_key())).unwrap();
    assert!(matches!(asked.effects[..], [Effect { when: When::Now, action: Action::Send(_), .. }]));
    let request = sent(&asked).unwrap();

    let heard = b.hear_from(at(10), &a, request, Way::open()).unwrap();
    assert_eq!(heard.outcome, Outcome::Queued);
    assert_eq!(heard.effects, [], "a queued request is not answered");
    let (justification, fingerprint) = ("weather feed".to_owned(), a.public_key().fingerprint());
    let received = Event::Received { peer: a.id(), justification: justification.clone() };
    let marks = Marks::default();
    let pending = Event::Pending {
        peer: a.id(),
        justification,
        fingerprint,
        replaces: None,
        proven_by: None,
        set_aside: None,
        marks,
    };
    assert_eq!(heard.events, [received, pending]);
    assert!(b.tables.trusted.is_empty(), "nobody is trusted for asking");

    let approved = b.approve(at(1000), a.id(), Some(fingerprint)).unwrap();
    let record = TrustRecord::new(a.id(), a.public_key()).approved_at(at(1000).wall);
    assert_eq!(approved.outcome, Outcome::Approved(record));
    assert_eq!(b.tables.trusted[&a.id()], record);
    assert!(b.tables.pending.is_empty());
    let (state, reason) = (TrustState::Granted, ChangeReason::Approved);
    let changed = Event::TrustChanged { peer: a.id(), state, reason };
    assert_eq!(approved.events, [Event::Approved { peer: a.id() }, changed]);
    // Whatever tells of the grant waits for the disk.
    assert!(approved.effects.iter().all(|effect| effect.when == When::OnceDurable { still: record }));
    let accept = sent(&approved).unwrap();
    assert_eq!(accept.answers, Some(request.nonce));

    let answered = a.hear_from(at(1010), &b, accept, Way::open()).unwrap();
    let record = TrustRecord::new(b.id(), b.public_key()).approved_at(at(1010).wall).mutual(true);
    assert_eq!(answered.outcome, Outcome::Trusted(record));
    assert_eq!(a.tables.trusted[&b.id()], record);
    assert!(a.tables.outgoing.is_empty(), "the request is consumed once");
    assert_eq!(sent(&answered), None);

    // The same accept again: the floor has moved.
    assert_eq!(a.hear_from(at(1020), &b, accept, Way::open()), Err(Rejection::Stale));
}

#[test]
fn after_our_revoke_both_sides_lose_trust_and_a_new_request_only_becomes_pending() {
    let (mut a, mut b) = befriended();
    let revoked = b.revoke(at(5000), a.id()).unwrap();
    assert!(revoked.effects.iter().all(|effect| effect.when == When::Now), "a restriction waits for no disk");
    assert!(b.tables.trusted.is_empty());
    assert_eq!(b.tables.revoked[&a.id()].at, at(5000).wall);

    let farewell = a.hear_from(at(5010), &b, sent(&revoked).unwrap(), Way::open()).unwrap();
    assert!(matches!(farewell.outcome, Outcome::RevokedByPeer { was: Some(_) }));
    let actions: Vec<_> = farewell.effects.iter().map(|effect| (effect.when, &effect.action)).collect();
    assert!(matches!(actions[..], [(When::Now, Action::Disconnect { .. }), (When::Now, Action::ReportRevoke { .. })]));
    assert!(a.tables.trusted.is_empty());
    assert!(a.tables.revoked.is_empty(), "the peer's revoke leaves no mark");

    // However it asks, and whoever vouches for it: the operator decides.
    let asked = a.request(at(100_000), b.id(), Some(b.public_key())).unwrap();
    let heard = b.hear_from(at(100_010), &a, sent(&asked).unwrap(), Way::registered(a.public_key())).unwrap();
    assert_eq!(heard.outcome, Outcome::Queued);
    assert!(b.tables.trusted.is_empty() && b.tables.pending.contains_key(&a.id()));
    assert!(b.tables.revoked.contains_key(&a.id()));

    let current = b.tables.revoked[&a.id()].id;
    assert_eq!(b.approve_shown(at(100_020), a.id()), Err(Rejection::RevokedNeedsLift { current }));
    b.approve_lifting(at(100_020), a.id(), current).unwrap();
    assert!(b.tables.trusted.contains_key(&a.id()) && b.tables.revoked.is_empty());
}

#[test]
fn both_ask_and_both_trust_without_an_operator() {
    let (mut a, mut b) = two();
    let from_a = a.request(at(0), b.id(), Some(b.public_key())).unwrap();
    let from_b = b.request(at(1), a.id(), Some(a.public_key())).unwrap();
    let at_b = b.hear_from(at(10), &a, sent(&from_a).unwrap(), Way::open()).unwrap();
    assert!(matches!(at_b.outcome, Outcome::Trusted(record) if record.mutual));
    let at_a = a.hear_from(at(11), &b, sent(&from_b).unwrap(), Way::open()).unwrap();
    assert!(matches!(at_a.outcome, Outcome::Trusted(record) if record.mutual));
    // The accepts that cross find nothing left to do, and say so without harm.
    let late = b.hear_from(at(20), &a, sent(&at_a).unwrap(), Way::open()).unwrap();
    assert_eq!(late.outcome, Outcome::Dropped(Rejection::NotAsked));
    assert!(b.tables.trusted.contains_key(&a.id()));
}

#[test]
fn a_lost_accept_is_cured_by_asking_again() {
    let (mut a, mut b) = two();
    let asked = a.request(at(0), b.id(), Some(b.public_key())).unwrap();
    b.hear_from(at(10), &a, sent(&asked).unwrap(), Way::open()).unwrap();
    let approved = b.approve_shown(at(20), a.id()).unwrap();
    let lost = sent(&approved).unwrap();

    let again = a.request(at(60_000), b.id(), None).unwrap();
    let heard = b.hear_from(at(60_010), &a, sent(&again).unwrap(), Way::open()).unwrap();
    assert!(matches!(heard.outcome, Outcome::Confirmed(record) if record.approved_at == at(20).wall));
    assert!(heard.events.iter().all(|event| matches!(event, Event::Received { .. })), "nothing was granted anew");
    // The first accept answers a request that is no longer the newest.
    let late = a.hear_from(at(60_020), &b, lost, Way::registered(b.public_key())).unwrap();
    assert_eq!(late.outcome, Outcome::Dropped(Rejection::WrongAnswer));
    a.hear_from(at(60_030), &b, sent(&heard).unwrap(), Way::open()).unwrap();
    assert!(a.tables.trusted.contains_key(&node(9)));
}

#[test]
fn a_side_that_missed_the_farewell_hears_it_again_but_once_a_minute() {
    let (mut a, mut b) = befriended();
    b.revoke(at(5000), a.id()).unwrap();
    // 7 never heard it, and asks again because its operator insists.
    let mut ask = |b: &mut Actor, ms: i64| {
        let nonce = a.nonce();
        let command = crate::machine::input::Command::Request {
            peer: b.id(),
            justification: crate::wire::text::Text::default(),
            expected_key: None,
            registered: None,
            nonce,
            force: true,
            automatic: false,
            lift: None,
        };
        let asked = a.command(at(ms), command).unwrap();
        let heard = b.hear_from(at(ms + 10), &a, sent(&asked).unwrap(), Way::registered(a.public_key())).unwrap();
        sent(&heard).map(|draft| draft.kind)
    };
    assert_eq!(ask(&mut b, 30_000), None, "the farewell left less than a minute ago");
    assert_eq!(ask(&mut b, 66_000), Some(crate::wire::message::Kind::Revoke));
    assert_eq!(ask(&mut b, 90_000), None);
    assert_eq!(ask(&mut b, 130_000), Some(crate::wire::message::Kind::Revoke));
}

/// Found by a simulated network: without a registry or a tunnel nobody vouches for the key any more, for trust ended with
/// the record that did. That it was vouched for suffices for the farewell.
#[test]
fn a_lost_farewell_is_repeated_to_a_key_that_nobody_vouches_for_any_more() {
    let (mut a, mut b) = befriended();
    b.revoke(at(5000), a.id()).unwrap();
    let asked = {
        let nonce = a.nonce();
        let (peer, justification) = (b.id(), crate::wire::text::Text::default());
        let (expected_key, force, automatic) = (None, true, false);
        let command = crate::machine::input::Command::Request {
            peer,
            justification,
            expected_key,
            registered: None,
            nonce,
            force,
            automatic,
            lift: None,
        };
        a.command(at(70_000), command).unwrap()
    };
    let heard = b.hear_from(at(70_010), &a, sent(&asked).unwrap(), Way::open()).unwrap();
    assert_eq!(heard.outcome, Outcome::Queued, "shown to the operator all the same");
    assert!(b.tables.pending.contains_key(&a.id()) && !b.tables.pending[&a.id()].authentic);
    a.hear_from(at(70_020), &b, sent(&heard).unwrap(), Way::open()).unwrap();
    assert!(a.tables.trusted.is_empty() && b.tables.trusted.is_empty());
    assert!(a.tables.outgoing.is_empty() && b.tables.revoked.contains_key(&a.id()));
}
