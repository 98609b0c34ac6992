//! A key that an operator refused: which rules trust it all the same, and by which commands what waits is refused.
#![forbid(unsafe_code)]

use crate::config::{Allowed, OnRotation, Policy};
use crate::machine::input::{Command, PeerOrKey};
use crate::machine::outcome::Outcome;
use crate::machine::rejection::Rejection;
use crate::peer::PublicKey;
use crate::testing::actor::{Actor, Way, at, dropped, node, sent, us};
use crate::wire::message::Kind;

fn theirs() -> Actor {
    Actor::new(9, 0x11)
}

fn key_of(us: &Actor) -> Option<PublicKey> {
    us.tables.trusted.get(&node(9)).and_then(|record| record.public_key)
}

/// 9 answers the request that we make now.
fn answers(us: &mut Actor, ms: i64, named: Option<PublicKey>, way: Way) -> Outcome {
    let mut peer = theirs();
    let asked = us.request(at(ms), node(9), named).unwrap();
    let accept = peer.draft(at(ms + 1), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce));
    us.hear_from(at(ms + 2), &peer, &accept, way).unwrap().outcome
}

fn asks(us: &mut Actor, ms: i64, way: Way) -> Outcome {
    let mut peer = theirs();
    let request = peer.draft(at(ms), us.id(), Kind::Request, None);
    us.hear_from(at(ms), &peer, &request, way).unwrap().outcome
}

/// What 9 sent under its key waits, a request or an answer, and is refused if so; or another key of 9 is.
fn decided(refused: Option<u8>, is_answer: bool) -> Actor {
    let mut us = us();
    if let Some(seed) = refused {
        let mut peer = Actor::new(9, seed);
        let asked = is_answer.then(|| sent(&us.request(at(0), node(9), None).unwrap()).unwrap().nonce);
        let kind = if is_answer { Kind::Accept } else { Kind::Request };
        let draft = peer.draft(at(10), us.id(), kind, asked);
        us.hear_from(at(10), &peer, &draft, Way::open()).unwrap();
        us.refuse(at(20), node(9), "").unwrap();
    }
    us
}

#[test]
fn a_key_that_an_operator_refused_is_trusted_by_no_rule_that_its_sender_alone_vouches_for() {
    for is_answer in [false, true] {
        for (refused, trusts) in [(Some(0x11), false), (Some(0x22), true), (None, true)] {
            let mut us = decided(refused, is_answer);
            us.rules.policy.trust_on_first_use = true;
            let came_to = answers(&mut us, 100, None, Way::open());
            assert_eq!(key_of(&us), trusts.then(|| theirs().public_key()), "an answer: {refused:?} {came_to:?}");
            assert!(trusts || came_to == Outcome::Queued, "the operator sees it");

            let mut us = decided(refused, is_answer);
            us.rules.policy = Policy::default().auto_approve(true);
            let came_to = asks(&mut us, 100, Way::open());
            assert_eq!(key_of(&us), trusts.then(|| theirs().public_key()), "a request: {refused:?} {came_to:?}");
            assert!(trusts || came_to == Outcome::Queued, "the operator sees it");
        }
    }
}

#[test]
fn a_refused_key_is_trusted_where_an_operator_names_it_or_somebody_else_vouches_for_it() {
    let key = theirs().public_key();
    let is_trusted = |us: &Actor, how: &str| assert_eq!(key_of(us), Some(key), "{how}");
    let refused = || decided(Some(0x11), false);

    let mut us = refused();
    asks(&mut us, 100, Way::open());
    us.approve(at(110), node(9), Some(key.fingerprint())).unwrap();
    is_trusted(&us, "approved");

    let mut us = refused();
    answers(&mut us, 100, Some(key), Way::open());
    is_trusted(&us, "named in our request");

    let mut us = refused();
    us.rules.policy = Policy::default().allow(Allowed::new(node(9), key));
    asks(&mut us, 100, Way::open());
    is_trusted(&us, "named in the allow-list");

    for (how, policy) in
        [("network", Policy::default().own_networks([5])), ("everybody", Policy::default().auto_approve(true))]
    {
        let mut us = refused();
        us.rules.policy = policy;
        asks(&mut us, 100, Way::in_networks(key, &[5]));
        is_trusted(&us, how);
    }

    let mut us = refused();
    answers(&mut us, 100, None, Way::registered(key));
    is_trusted(&us, "answered, and registered");
}

#[test]
fn a_refused_key_is_not_taken_for_the_new_one_of_a_trusted_peer() {
    for was_refused in [true, false] {
        let (mut us, old) = (us(), Actor::new(9, 0xAA));
        us.trusts(node(9), Some(old.public_key()));
        us.rules.policy.on_rotation = OnRotation::Take;
        let mut new = theirs();
        if was_refused {
            // It says nothing of the old key yet.
            asks(&mut us, 10, Way::open());
            us.refuse(at(20), node(9), "").unwrap();
        }
        new.rotation = Some(old.signs_over_to(&new, at(0)));
        let request = new.draft(at(30), us.id(), Kind::Request, None);
        us.hear_from(at(30), &new, &request, Way::open()).unwrap();
        assert_eq!(key_of(&us), Some(if was_refused { old.public_key() } else { new.public_key() }));
        let waits = us.tables.pending.get(&node(9)).map(|entry| (entry.key, entry.proven_by));
        assert_eq!(waits, was_refused.then(|| (new.public_key(), Some(old.public_key()))));
    }
}

#[test]
fn what_waits_and_is_revoked_or_ignored_away_does_not_come_back_by_a_copy() {
    let key = theirs().public_key();
    let (peer, of_key) = (PeerOrKey::Peer(node(9)), PeerOrKey::Key(key));
    type Ends = Box<dyn Fn(&mut Actor)>;
    let by = |command: Command| -> Ends { Box::new(move |us| drop(us.command(at(30), command.clone()).unwrap())) };
    let ends: [(&str, Ends, Command); 4] = [
        ("revoked", Box::new(|us| drop(us.revoke(at(30), node(9)).unwrap())), Command::ForgetRevocation { of: peer }),
        (
            "the key revoked",
            Box::new(move |us| drop(us.revoke_key(at(30), key).unwrap())),
            Command::ForgetRevocation { of: of_key },
        ),
        ("ignored", by(Command::Ignore { of: peer }), Command::Unignore { of: peer }),
        ("the key ignored", by(Command::Ignore { of: of_key }), Command::Unignore { of: of_key }),
    ];
    for (how, end, undo) in ends {
        for is_first in [true, false] {
            let (mut us, mut peer, mut rival) = (us(), theirs(), Actor::new(9, 0x22));
            let request = peer.draft(at(10), us.id(), Kind::Request, None);
            let theirs = rival.draft(at(11), us.id(), Kind::Request, None);
            let mut both = [(&peer, &request, 1), (&rival, &theirs, 2)];
            if !is_first {
                both.reverse();
            }
            for (who, draft, host) in both {
                us.hear_from(at(20), who, draft, Way::from_host(host)).unwrap();
            }
            end(&mut us);
            us.command(at(40), undo.clone()).unwrap();
            us.rules.policy = Policy::default().auto_approve(true);
            let copy = us.hear_from(at(50), &peer, &request, Way::open());
            assert_eq!(dropped(&copy), Some(Rejection::AlreadyRefused), "{how}, {is_first}");
            assert!(!us.tables.trusted.contains_key(&node(9)), "{how}");
            // News waits for the operator.
            assert_eq!(asks(&mut us, 100, Way::open()), Outcome::Queued, "{how}");
        }
        // Who waited under another number is none of them.
        let mut us = us();
        us.is_asked(10, 8, 0x44, "", Way::open()).unwrap();
        us.is_asked(20, 9, 0x11, "", Way::open()).unwrap();
        end(&mut us);
        assert!(us.tables.refused.keys().copied().eq([node(9)]), "{how}");
    }
}
