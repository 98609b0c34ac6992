//! What marks hold to, and what ends with them.
//!
//! More than 450 lines because every door to trust is tried with and without a mark.
#![forbid(unsafe_code)]

use super::*;
use crate::config::Policy;
use crate::machine::effect::{Action, When};
use crate::machine::event::TrustState;
use crate::machine::input::{Command, Lookup};
use crate::peer::TrustRecord;
use crate::testing::actor::{Actor, Way, at, mark, node, sent};

pub(super) fn two() -> (Actor, Actor) {
    (Actor::new(7, 0xAA), Actor::new(9, 0x11))
}

/// The registry vouches for the key of the second of `two`.
pub(super) fn vouched() -> Way {
    Way::registered(Actor::new(9, 0x11).public_key())
}

/// `peer` asks `us` at `ms`.
pub(super) fn ask(us: &mut Actor, peer: &mut Actor, ms: i64, way: Way) -> Result<Step, Rejection> {
    let request = peer.draft(at(ms), us.id(), Kind::Request, None);
    us.hear_from(at(ms), peer, &request, way)
}

fn command(us: &mut Actor, command: Command) -> Result<Step, Rejection> {
    us.command(at(500_000), command)
}

/// What a loss of trust does besides ending it: told, cut off, reported.
fn is_enforced(step: &Step, peer: NodeId, reason: ChangeReason) -> bool {
    let lost = Event::TrustChanged { peer, state: TrustState::Revoked, reason };
    let now = |which: &dyn Fn(&Action) -> bool| {
        step.effects.iter().any(|effect| effect.when == When::Now && which(&effect.action))
    };
    step.events.contains(&lost)
        && now(&|action| matches!(action, Action::Disconnect { peer: of, .. } if *of == peer))
        && now(&|action| *action == Action::ReportRevoke { peer })
}

#[test]
fn revoke_marks_whatever_the_tables_say() {
    let (mut us, mut peer) = two();
    us.rules.policy = Policy::default().auto_approve(true);
    // A peer in no table, which nobody has heard of.
    let step = us.revoke(at(0), node(55)).unwrap();
    let nothing = Outcome::Revoked { was: None, waited: false, asked: false, marked: None };
    assert_eq!((step.outcome, us.tables.revoked[&node(55)].at), (nothing, at(0).wall));
    // One that took its trust back itself, so that nothing is left of it.
    ask(&mut us, &mut peer, 10, Way::open()).unwrap();
    let by_itself = peer.draft(at(20), us.id(), Kind::Revoke, None);
    us.hear_from(at(20), &peer, &by_itself, Way::open()).unwrap();
    assert!(us.tables.trusted.is_empty());
    assert_eq!(us.revoke(at(30), peer.id()).unwrap().outcome, nothing);
    ask(&mut us, &mut peer, 40, vouched()).unwrap();
    assert!(us.tables.trusted.is_empty() && us.tables.pending.contains_key(&peer.id()));
    // Its twin: without the revocation it is trusted unasked.
    us.command(at(45), Command::ForgetRevocation { of: PeerOrKey::Peer(peer.id()) }).unwrap();
    ask(&mut us, &mut peer, 50, Way::open()).unwrap();
    assert!(us.tables.trusted.contains_key(&peer.id()));
}

#[test]
fn revoking_again_keeps_the_time_and_outdates_what_was_seen_before() {
    let (mut us, mut peer) = two();
    us.revoke(at(0), peer.id()).unwrap();
    let first = us.tables.revoked[&peer.id()];
    let again = us.revoke(at(10), peer.id()).unwrap();
    assert_eq!(again.outcome, Outcome::Revoked { was: None, waited: false, asked: false, marked: Some(first) });
    assert_eq!((us.tables.revoked[&peer.id()], again.events.len()), (first, 0), "there was nothing to take away");

    // It waits, an operator looks, another revokes it, it waits again: what the first one saw lifts nothing.
    ask(&mut us, &mut peer, 20, Way::open()).unwrap();
    us.revoke(at(30), peer.id()).unwrap();
    let second = us.tables.revoked[&peer.id()];
    assert!(second.at == first.at && second.id != first.id);
    ask(&mut us, &mut peer, 40, Way::open()).unwrap();
    let stale = us.approve_lifting(at(50), peer.id(), first.id);
    assert_eq!(stale, Err(Rejection::RevokedNeedsLift { current: second.id }));
    us.approve_lifting(at(50), peer.id(), second.id).unwrap();
    assert!(us.tables.revoked.is_empty());
}

#[test]
fn a_peer_that_waits_is_shown_with_its_marks() {
    let (mut us, mut peer) = two();
    us.revoke(at(0), peer.id()).unwrap();
    us.revoke_key(at(0), peer.public_key()).unwrap();
    let marks = [us.tables.revoked[&peer.id()], us.tables.revoked_keys[peer.public_key().as_bytes()]];
    let step = ask(&mut us, &mut peer, 10, Way::open()).unwrap();
    let shown = step.events.iter().find_map(|event| match event {
        Event::Pending { marks, .. } => Some(*marks),
        _ => None,
    });
    assert_eq!(shown.map(|it| (it.peer, it.key)), Some((Some(marks[0]), Some(marks[1]))));
    // Its twin has none.
    let mut other = Actor::new(8, 0x33);
    let step = ask(&mut us, &mut other, 10, Way::open()).unwrap();
    let unmarked = |event: &Event| matches!(event, Event::Pending { marks, .. } if !marks.is_any());
    assert!(step.events.iter().any(unmarked));
}

#[test]
fn every_door_to_trust_wants_the_revocation_in_force_named() {
    let (mut us, mut peer) = two();
    let (id, key) = (peer.id(), peer.public_key());
    let record = TrustRecord::new(id, key);
    us.revoke(at(0), id).unwrap();
    let current = us.tables.revoked[&id].id;
    let refused = Err(Rejection::RevokedNeedsLift { current });
    ask(&mut us, &mut peer, 10, Way::open()).unwrap();
    let fingerprint = Some(key.fingerprint());
    for lift in [None, Some(RevocationId::new(3))] {
        let nonce = us.nonce();
        assert_eq!(
            command(
                &mut us,
                Command::Approve { peer: id, fingerprint, entry: None, nonce, lookup: Lookup::NotAsked, lift }
            ),
            refused
        );
        assert_eq!(command(&mut us, Command::Grant { record, lift }), refused);
        let (justification, expected_key, force, automatic) = ("".into(), None, false, false);
        let again =
            Command::Request { peer: id, justification, expected_key, registered: None, nonce, force, automatic, lift };
        assert_eq!(command(&mut us, again), refused);
    }
    assert!(us.tables.trusted.is_empty() && us.tables.outgoing.is_empty());
    command(&mut us, Command::Grant { record, lift: Some(current) }).unwrap();
    assert!(us.tables.trusted.contains_key(&id) && us.tables.revoked.is_empty());
}

/// A request that lifts the mark; what 9 would answer.
fn lifting(us: &mut Actor, peer: &mut Actor, names_key: bool) -> crate::wire::sign::Draft {
    us.revoke(at(0), peer.id()).unwrap();
    let id = us.tables.revoked[&peer.id()].id;
    let expected = names_key.then(|| peer.public_key());
    let step = us.request_lifting(at(100_000), peer.id(), expected, id).unwrap();
    peer.draft(at(100_050), us.id(), Kind::Accept, Some(sent(&step).unwrap().nonce))
}

#[test]
fn the_mark_stands_until_trust_is_really_given() {
    let (mut us, mut peer) = two();
    let accept = lifting(&mut us, &mut peer, true);
    assert!(us.tables.revoked.contains_key(&peer.id()), "that it was asked lifts nothing");
    us.hear_from(at(100_060), &peer, &accept, Way::open()).unwrap();
    assert!(us.tables.trusted.contains_key(&peer.id()) && us.tables.revoked.is_empty());

    // Cancelled, refused or expired, it leaves the mark, and what comes then is held to it.
    type End = dyn Fn(&mut Actor, &mut Actor, &crate::wire::sign::Draft);
    let ends: [&End; 4] = [
        &|us, peer, _| drop(us.command(at(100_010), Command::Cancel { peer: peer.id() }).unwrap()),
        &|us, peer, accept| {
            let reject = crate::wire::sign::Draft { kind: Kind::Reject, ..accept.clone() };
            us.hear_from(at(100_060), peer, &reject, Way::open()).unwrap();
        },
        &|us, _, _| {
            let late = at(100_000 + 31 * 24 * 3_600_000);
            us.step(late, crate::machine::input::Input::Housekeeping).unwrap();
        },
        &|us, _, _| {
            us.rules.limits.outgoing_max = 1;
            us.request(at(100_020), node(33), None).unwrap();
        },
    ];
    for end in ends {
        let (mut us, mut peer) = two();
        let accept = lifting(&mut us, &mut peer, true);
        end(&mut us, &mut peer, &accept);
        // a refusal is shown for a day, and asks no more.
        let asked = us.tables.outgoing.get(&peer.id()).is_some_and(|entry| entry.refused.is_none());
        assert!(!asked && us.tables.revoked.contains_key(&peer.id()));
        let late = crate::wire::sign::Draft { stamp: at(100_070).wall, ..accept };
        let step = us.hear_from(at(100_080), &peer, &late, vouched()).unwrap();
        assert_eq!(step.outcome, Outcome::Dropped(Rejection::PeerRevoked));
        assert!(us.tables.trusted.is_empty());
    }
}

#[test]
fn while_a_request_lifts_the_mark_only_its_own_rules_count() {
    let all = || Policy::default().auto_approve(true).trust_on_first_use(true);
    // it asks as well, under the key that was named.
    let (mut us, mut peer) = two();
    us.rules.policy = all();
    lifting(&mut us, &mut peer, true);
    ask(&mut us, &mut peer, 100_010, Way::open()).unwrap();
    assert!(us.tables.trusted.contains_key(&peer.id()) && us.tables.revoked.is_empty());
    // count for nobody who is marked.
    let (mut us, mut peer) = two();
    us.rules.policy = all();
    let accept = lifting(&mut us, &mut peer, false);
    ask(&mut us, &mut peer, 100_010, Way::open()).unwrap();
    us.hear_from(at(100_060), &peer, &accept, Way::open()).unwrap();
    assert!(us.tables.trusted.is_empty() && us.tables.revoked.contains_key(&peer.id()));
    // with somebody who vouches for it, the answer counts.
    let accept = crate::wire::sign::Draft { stamp: at(100_070).wall, ..accept };
    us.hear_from(at(100_080), &peer, &accept, vouched()).unwrap();
    assert!(us.tables.trusted.contains_key(&peer.id()) && us.tables.revoked.is_empty());
}

#[test]
fn the_farewell_is_silent_while_a_request_would_lift_the_mark() {
    let farewell = |lifts: bool| {
        let (mut us, mut peer) = two();
        us.trusts(peer.id(), Some(peer.public_key()));
        us.revoke(at(0), peer.id()).unwrap();
        let id = us.tables.revoked[&peer.id()].id;
        if lifts {
            us.request_lifting(at(10), peer.id(), None, id).unwrap();
        }
        let step = ask(&mut us, &mut peer, 100_000, vouched()).unwrap();
        step.effects.iter().any(|it| matches!(&it.action, Action::Send(draft) if draft.kind == Kind::Revoke))
    };
    assert!(farewell(false) && !farewell(true));
}

#[test]
fn a_new_revocation_ends_a_request_that_would_lift_the_old_one() {
    let (mut us, mut peer) = two();
    let accept = lifting(&mut us, &mut peer, true);
    let first = us.tables.revoked[&peer.id()];
    us.revoke(at(100_010), peer.id()).unwrap();
    assert!(us.tables.outgoing.is_empty() && us.tables.revoked[&peer.id()].id != first.id);
    let late = us.hear_from(at(100_060), &peer, &accept, Way::open());
    assert!(late.is_err() && us.tables.trusted.is_empty());
}

#[test]
fn a_revoked_key_ends_trust_under_every_id_and_waits_for_no_search() {
    let (mut us, peer) = two();
    let key = peer.public_key();
    for id in [9, 10, 11] {
        us.trusts(node(id), Some(key));
    }
    let other = us.trusts(node(12), Some(Actor::new(1, 0x22).public_key()));
    let nonce = us.nonce();
    let step = us.command(at(0), Command::RevokeKey { key, nonce }).unwrap();
    assert_eq!(step.outcome, Outcome::KeyRevoked { marked: None });
    // The search has not come to it: its next message ends it all the same, and is answered with no accept.
    let mut tenth = Actor::new(10, 0x11);
    let step = ask(&mut us, &mut tenth, 70_000, Way::open()).unwrap();
    assert!(is_enforced(&step, node(10), ChangeReason::KeyRevoked), "{step:?}");
    let is_accept = |effect: &crate::machine::effect::Effect| matches!(&effect.action, Action::Send(draft) if draft.kind == Kind::Accept);
    assert!(!step.effects.iter().any(is_accept) && us.tables.pending.contains_key(&node(10)));
    for id in [9, 11] {
        let nonce = us.nonce();
        let step = us.command(at(70_010), Command::EndUnderKey { peer: node(id), key, nonce }).unwrap();
        assert!(is_enforced(&step, node(id), ChangeReason::KeyRevoked));
        assert_eq!(sent(&step).map(|draft| draft.kind), Some(Kind::Revoke));
    }
    assert_eq!(us.tables.trusted.values().copied().collect::<Vec<_>>(), [other]);
    let nonce = us.nonce();
    let under_another = Command::EndUnderKey { peer: node(12), key, nonce };
    assert_eq!(us.command(at(70_020), under_another), Err(Rejection::NothingToDo));
    assert!(us.tables.revoked.is_empty(), "the mark is the key's");
}

#[test]
fn no_rule_and_no_door_trusts_a_revoked_key() {
    let (mut us, mut peer) = two();
    let (id, key) = (peer.id(), peer.public_key());
    us.rules.policy = Policy::default().auto_approve(true).trust_on_first_use(true).own_networks([5]);
    us.revoke_key(at(0), key).unwrap();
    let current = us.tables.revoked_keys[key.as_bytes()].id;
    let refused = Err(Rejection::KeyRevokedNeedsLift { current });
    let ways = [Way::open(), vouched(), Way::tunnel(id), Way::in_networks(key, &[5])];
    for (ms, way) in (10..).zip(ways.clone()) {
        assert_eq!(ask(&mut us, &mut peer, ms, way).unwrap().outcome, Outcome::Queued);
    }
    assert_eq!(us.approve(at(20), id, Some(key.fingerprint())), refused);
    assert_eq!(us.command(at(20), Command::Grant { record: TrustRecord::new(id, key), lift: None }), refused);
    assert_eq!(us.request(at(20), id, Some(key)), refused);
    // A record without a key takes it from nobody.
    us.trusts(id, None);
    assert_eq!(us.command(at(20), Command::AdoptKey { peer: id, key }), refused);
    let lookup = vouched().lookup;
    assert_eq!(us.step(at(20), crate::machine::input::Input::LookedUp { peer: id, lookup }), refused);
    ask(&mut us, &mut peer, 21, Way::tunnel(id)).unwrap();
    assert_eq!(us.tables.trusted[&id].public_key, None);
    us.tables.trusted.clear();
    // Nor does an answer, whoever vouches for it.
    let asked = us.request(at(30), id, None).unwrap();
    for (ms, way) in (40..).zip(ways) {
        let accept = peer.draft(at(ms), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce));
        let outcome = us.hear_from(at(ms), &peer, &accept, way).map(|step| step.outcome);
        assert!(matches!(outcome, Err(Rejection::KeyRevoked) | Ok(Outcome::Dropped(Rejection::KeyRevoked))));
    }
    assert!(us.tables.trusted.is_empty());
    // Its twin: named, the mark goes with the trust that is given.
    us.approve_lifting(at(50), id, current).unwrap();
    assert!(us.tables.trusted.contains_key(&id) && us.tables.revoked_keys.is_empty());
}

#[test]
fn a_revoked_key_ends_what_waits_under_it_and_what_asks_for_it() {
    let (mut us, mut peer) = two();
    let key = peer.public_key();
    ask(&mut us, &mut peer, 0, Way::open()).unwrap();
    us.request(at(0), node(20), Some(key)).unwrap();
    us.request(at(0), node(21), None).unwrap();
    us.revoke_key(at(10), key).unwrap();
    assert!(us.tables.pending.is_empty());
    assert_eq!(us.tables.outgoing.keys().copied().collect::<Vec<_>>(), [node(21)]);
    // And a request that names it, with a lift, is answered under it.
    let id = us.tables.revoked_keys[key.as_bytes()].id;
    let asked = us.request_lifting(at(20), peer.id(), Some(key), id).unwrap();
    let accept = peer.draft(at(30), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce));
    us.hear_from(at(40), &peer, &accept, Way::open()).unwrap();
    assert!(us.tables.trusted.contains_key(&peer.id()) && us.tables.revoked_keys.is_empty());
}

#[test]
fn the_revocation_of_a_peer_marks_no_key_and_that_of_a_key_no_peer() {
    let (mut us, mut peer) = two();
    let renewed = Actor::new(9, 0x22);
    us.rules.policy = Policy::default().auto_approve(true);
    us.revoke(at(0), peer.id()).unwrap();
    let mut elsewhere = Actor::new(10, 0x11);
    ask(&mut us, &mut elsewhere, 10, Way::open()).unwrap();
    assert!(us.tables.trusted.contains_key(&node(10)), "the same key under another id");
    let (mut us, mut renewed) = (Actor::new(7, 0xAA), renewed);
    us.rules.policy = Policy::default().auto_approve(true);
    us.revoke_key(at(0), peer.public_key()).unwrap();
    ask(&mut us, &mut renewed, 10, Way::open()).unwrap();
    assert!(us.tables.trusted.contains_key(&node(9)), "the same peer under another key");
    ask(&mut us, &mut peer, 20, Way::open()).unwrap();
    assert_eq!(us.tables.trusted[&node(9)].public_key, Some(renewed.public_key()));
}

#[test]
fn a_holder_of_a_revoked_key_brings_no_farewell_upon_a_trusted_peer() {
    let (mut us, mut thief) = two();
    us.trusts(thief.id(), Some(thief.public_key()));
    ask(&mut us, &mut thief, 0, Way::open()).unwrap();
    us.revoke_key(at(10), thief.public_key()).unwrap();
    // The peer has a new key; the floor is still of the old one.
    let record = TrustRecord::new(thief.id(), Actor::new(9, 0x22).public_key());
    us.command(at(20), Command::Grant { record, lift: None }).unwrap();
    let step = ask(&mut us, &mut thief, 200_000, Way::open()).unwrap();
    assert_eq!((sent(&step), us.tables.trusted[&thief.id()]), (None, record));
}

#[test]
fn marks_of_keys_and_the_ignored_have_a_limit_and_marks_of_peers_have_none() {
    let mut us = Actor::new(7, 0xAA);
    let key = |seed: u8| Actor::new(1, seed).public_key();
    let limits = &mut us.rules.limits;
    (limits.revoked_keys_max, limits.ignored_max, limits.ignored_keys_max) = (1, 1, 1);
    limits.revoked_max = Some(1);
    us.revoke_key(at(0), key(1)).unwrap();
    assert_eq!(us.revoke_key(at(0), key(2)), Err(Rejection::RevokedKeysFull));
    assert!(us.revoke_key(at(0), key(1)).is_ok(), "it is marked already");
    for [first, second] in [1, 2].map(|of| [node(10 + of), node(20 + of)]).map(|it| it.map(PeerOrKey::Peer)) {
        let _ = us.command(at(0), Command::Ignore { of: first });
        assert_eq!(us.command(at(0), Command::Ignore { of: second }), Err(Rejection::IgnoredFull));
    }
    us.command(at(0), Command::Ignore { of: PeerOrKey::Key(key(1)) }).unwrap();
    assert_eq!(us.command(at(0), Command::Ignore { of: PeerOrKey::Key(key(2)) }), Err(Rejection::IgnoredFull));
    for id in 100..110 {
        us.revoke(at(0), node(id)).unwrap();
    }
    assert_eq!(us.tables.revoked.len(), 10);
    us.command(at(0), Command::ForgetRevocation { of: PeerOrKey::Key(key(1)) }).unwrap();
    assert!(us.revoke_key(at(0), key(2)).is_ok());
}

#[test]
fn trust_that_is_removed_leaves_no_mark() {
    let (mut us, mut peer) = two();
    us.rules.policy = Policy::default().auto_approve(true);
    let record = us.trusts(peer.id(), Some(peer.public_key()));
    let step = us.command(at(0), Command::Remove { peer: peer.id() }).unwrap();
    assert_eq!(step.outcome, Outcome::Removed { was: record });
    assert!(is_enforced(&step, peer.id(), ChangeReason::Removed) && us.tables.revoked.is_empty());
    ask(&mut us, &mut peer, 10, Way::open()).unwrap();
    assert!(us.tables.trusted.contains_key(&peer.id()));
}

#[test]
fn whatever_ends_trust_tells_cuts_and_reports() {
    let (mut us, mut peer) = two();
    let (id, key, other) = (peer.id(), peer.public_key(), Actor::new(1, 0x22).public_key());
    let mut ended = |prepare: Option<PublicKey>, reason, end: &mut dyn FnMut(&mut Actor) -> Step| {
        us.tables.revoked.clear();
        us.tables.floor.clear();
        us.trusts(id, prepare);
        let step = end(&mut us);
        assert!(is_enforced(&step, id, reason), "{reason:?}: {step:?}");
    };
    ended(Some(key), ChangeReason::Revoked, &mut |us| us.revoke(at(0), id).unwrap());
    ended(Some(key), ChangeReason::RevokedByPeer, &mut |us| {
        let revoke = peer.draft(at(10), us.id(), Kind::Revoke, None);
        us.hear_from(at(10), &peer, &revoke, Way::open()).unwrap()
    });
    ended(Some(other), ChangeReason::KeyChanged, &mut |us| ask(us, &mut peer, 20, Way::tunnel(id)).unwrap());
    ended(Some(other), ChangeReason::KeyChanged, &mut |us| {
        let asked = us.command(
            at(30),
            Command::Request {
                peer: id,
                justification: "".into(),
                expected_key: None,
                registered: None,
                nonce: Nonce([8; 16]),
                force: true,
                automatic: false,
                lift: None,
            },
        );
        let accept = peer.draft(at(40), us.id(), Kind::Accept, Some(sent(&asked.unwrap()).unwrap().nonce));
        us.hear_from(at(40), &peer, &accept, Way::tunnel(id)).unwrap()
    });
    ended(Some(other), ChangeReason::KeyChanged, &mut |us| {
        us.command(at(50), Command::ReportKeyChange { peer: id, key }).unwrap()
    });
    ended(Some(other), ChangeReason::KeyChanged, &mut |us| {
        let lookup = Way::registered(key).lookup;
        us.step(at(60), crate::machine::input::Input::LookedUp { peer: id, lookup }).unwrap()
    });
    // Replaced by an approval, and by a grant: the old trust is lost before the new one is given.
    for grants in [false, true] {
        ended(Some(other), ChangeReason::KeyChanged, &mut |us| {
            us.tables.pending.clear();
            let step = if grants {
                us.command(at(80), Command::Grant { record: TrustRecord::new(id, key), lift: None }).unwrap()
            } else {
                ask(us, &mut peer, 70, Way::open()).unwrap();
                us.approve(at(80), id, Some(key.fingerprint())).unwrap()
            };
            let states = step.events.iter().filter_map(|event| match event {
                Event::TrustChanged { state, .. } => Some(*state),
                _ => None,
            });
            assert_eq!(states.collect::<Vec<_>>(), [TrustState::Revoked, TrustState::Granted]);
            step
        });
    }
}

#[test]
fn what_is_forgotten_is_no_longer_marked_and_nobody_is_trusted_by_that() {
    let mut us = Actor::new(7, 0xAA);
    us.tables.revoked.insert(node(9), mark(0));
    let of = PeerOrKey::Peer(node(9));
    let step = us.command(at(10), Command::ForgetRevocation { of }).unwrap();
    assert_eq!(step.outcome, Outcome::RevocationForgotten(mark(0)));
    assert_eq!(step.events, [Event::RevocationForgotten { peer: node(9) }]);
    assert!(us.tables.revoked.is_empty() && us.tables.trusted.is_empty());
    assert_eq!(us.command(at(10), Command::ForgetRevocation { of }), Err(Rejection::NothingToDo));
    let of = PeerOrKey::Key(Actor::new(1, 0x22).public_key());
    assert_eq!(us.command(at(10), Command::ForgetRevocation { of }), Err(Rejection::NothingToDo));
}

#[test]
fn of_several_keys_that_wait_a_revoked_one_goes_and_answers_go_with_their_request() {
    let (mut us, mut peer) = two();
    let (key, other) = (peer.public_key(), Actor::new(9, 0xBB));
    // The revoked key waits beside another, and is the first of a third peer.
    let request = peer.draft(at(0), us.id(), Kind::Request, None);
    us.hear_from(at(0), &other, &request, Way::from_host(1)).unwrap();
    us.hear_from(at(0), &peer, &request, Way::from_host(2)).unwrap();
    assert_eq!(us.tables.pending[&peer.id()].others.len(), 1);
    // A request that names it has an answer, under a key that nobody vouches for.
    let asked = us.request(at(0), node(20), Some(key)).unwrap();
    let mut twenty = Actor::new(20, 0xCC);
    let accept = twenty.draft(at(1), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce));
    us.hear_from(at(1), &twenty, &accept, Way::from_host(3)).unwrap();
    assert!(us.tables.pending.contains_key(&node(20)));
    us.revoke_key(at(10), key).unwrap();
    let left = &us.tables.pending[&peer.id()];
    assert_eq!((left.key, left.others.len()), (other.public_key(), 0));
    assert!(us.tables.outgoing.is_empty() && !us.tables.pending.contains_key(&node(20)));
}
