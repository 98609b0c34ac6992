//! What an operator hears nothing of.
#![forbid(unsafe_code)]

use super::tests::{ask, two, vouched};
use super::*;
use crate::config::Policy;
use crate::machine::deliver::Retried;
use crate::machine::input::{Command, Input, LookedAt};
use crate::peer::TrustRecord;
use crate::testing::actor::{Actor, Way, at, node, sent};

#[test]
fn an_ignored_peer_or_key_has_no_row_no_event_and_no_answer() {
    for by_key in [false, true] {
        let (mut us, mut peer) = two();
        us.rules.policy = Policy::default().auto_approve(true);
        let of = if by_key { PeerOrKey::Key(peer.public_key()) } else { PeerOrKey::Peer(peer.id()) };
        us.request(at(0), peer.id(), Some(peer.public_key())).unwrap();
        us.command(at(0), Command::Ignore { of }).unwrap();
        assert!(us.tables.outgoing.is_empty());
        let before = us.tables.clone();
        for (ms, way) in (1..).zip([Way::open(), vouched(), Way::tunnel(peer.id())]) {
            for kind in [Kind::Request, Kind::Accept, Kind::Reject, Kind::Revoke] {
                let draft = peer.draft(at(ms), us.id(), kind, None);
                assert_eq!(us.hear_from(at(ms), &peer, &draft, way.clone()), Err(Rejection::Ignored));
            }
        }
        assert_eq!(us.tables, before);
        assert_eq!(us.request(at(5), peer.id(), Some(peer.public_key())), Err(Rejection::IgnoredNotAsked));
        // Another is heard, and so is this one once it is ignored no more.
        let mut other = Actor::new(8, 0x33);
        assert!(ask(&mut us, &mut other, 5, Way::open()).is_ok());
        us.command(at(6), Command::Unignore { of }).unwrap();
        assert_eq!(us.command(at(6), Command::Unignore { of }), Err(Rejection::NothingToDo));
        assert!(ask(&mut us, &mut peer, 7, Way::open()).is_ok());
        assert!(us.tables.trusted.contains_key(&peer.id()));
    }
}

#[test]
fn a_revoked_peer_that_is_ignored_gets_no_farewell() {
    let (mut us, mut peer) = two();
    us.trusts(peer.id(), Some(peer.public_key()));
    us.revoke(at(0), peer.id()).unwrap();
    us.command(at(0), Command::Ignore { of: PeerOrKey::Peer(peer.id()) }).unwrap();
    assert_eq!(ask(&mut us, &mut peer, 100_000, vouched()), Err(Rejection::Ignored));
}

#[test]
fn trust_stands_above_ignoring() {
    let (mut us, mut peer) = two();
    let key = peer.public_key();
    us.trusts(peer.id(), Some(key));
    assert_eq!(
        us.command(at(0), Command::Ignore { of: PeerOrKey::Peer(peer.id()) }),
        Err(Rejection::TrustedNotIgnored)
    );
    us.command(at(0), Command::Ignore { of: PeerOrKey::Key(key) }).unwrap();
    assert!(matches!(ask(&mut us, &mut peer, 10, Way::open()).unwrap().outcome, Outcome::Confirmed(_)));
    let mut elsewhere = Actor::new(10, 0x11);
    assert_eq!(ask(&mut us, &mut elsewhere, 10, Way::open()), Err(Rejection::Ignored));
    // An ignored peer that is granted outright is heard.
    us.command(at(20), Command::Ignore { of: PeerOrKey::Peer(node(8)) }).unwrap();
    let mut eighth = Actor::new(8, 0x33);
    let record = TrustRecord::new(node(8), eighth.public_key());
    us.command(at(20), Command::Grant { record, lift: None }).unwrap();
    assert!(ask(&mut us, &mut eighth, 30, Way::open()).is_ok());
    // Its own revocation is heard: trust does not outlive it.
    let revoke = eighth.draft(at(40), us.id(), Kind::Revoke, None);
    assert!(us.hear_from(at(40), &eighth, &revoke, Way::open()).is_ok());
    assert!(!us.tables.trusted.contains_key(&node(8)));
}

#[test]
fn trust_ends_the_ignoring_of_its_peer_and_of_nobody_else() {
    // A grant, and an approval of what waited in a store of an older release.
    for approves in [false, true] {
        let (mut us, mut peer) = two();
        let key = peer.public_key();
        ask(&mut us, &mut peer, 10, Way::open()).unwrap();
        for ignored in [peer.id(), node(8)] {
            us.tables.ignored.insert(ignored, at(0).wall);
        }
        us.command(at(10), Command::Ignore { of: PeerOrKey::Key(Actor::new(8, 0x44).public_key()) }).unwrap();
        if approves {
            us.approve(at(20), peer.id(), Some(key.fingerprint())).unwrap();
        } else {
            let record = TrustRecord::new(peer.id(), key);
            us.command(at(20), Command::Grant { record, lift: None }).unwrap();
        }
        assert!(us.tables.trusted.contains_key(&peer.id()));
        assert!(us.tables.ignored.keys().eq([&node(8)]) && us.tables.ignored_keys.len() == 1);
        // It stays so when the trust ends.
        us.command(at(30), Command::Remove { peer: peer.id() }).unwrap();
        assert!(ask(&mut us, &mut peer, 40, Way::open()).is_ok());
    }
}

#[test]
fn what_waits_or_is_asked_under_an_ignored_key_goes_though_the_peer_is_trusted_under_another() {
    for key_of_record in [None, Some(0x22), Some(0x11)] {
        let (mut us, peer) = two();
        let key = peer.public_key();
        us.trusts(peer.id(), key_of_record.map(|seed| Actor::new(9, seed).public_key()));
        let nonce = us.nonce();
        let ask = Command::Request {
            peer: peer.id(),
            justification: "".into(),
            expected_key: Some(key),
            registered: None,
            nonce,
            force: true,
            automatic: false,
            lift: None,
        };
        us.command(at(0), ask.clone()).unwrap();
        let mut asker = Actor::new(peer.id().get(), 0x11);
        super::tests::ask(&mut us, &mut asker, 1, Way::open()).unwrap();
        let waits = us.tables.pending.contains_key(&peer.id());
        us.command(at(2), Command::Ignore { of: PeerOrKey::Key(key) }).unwrap();
        // Trust stands above an ignored key under that key, and under no other.
        let is_its_own = key_of_record == Some(0x11);
        assert_eq!(waits, !is_its_own);
        assert!(!us.tables.pending.contains_key(&peer.id()));
        assert_eq!(us.tables.outgoing.contains_key(&peer.id()), is_its_own);
        assert_eq!(us.command(at(3), ask).is_ok(), is_its_own);
    }
}

#[test]
fn the_farewell_of_a_forgotten_revocation_is_owed_no_more() {
    let (mut us, peer) = two();
    us.trusts(peer.id(), Some(peer.public_key()));
    let revoked = us.revoke(at(0), peer.id()).unwrap();
    us.step(at(10), Input::Undelivered { draft: sent(&revoked).unwrap().clone() }).unwrap();
    assert!(us.tables.owed.contains_key(&peer.id()));
    us.command(at(20), Command::ForgetRevocation { of: PeerOrKey::Peer(peer.id()) }).unwrap();
    assert!(us.tables.owed.is_empty() && us.tables.revoked.is_empty());
}

#[test]
fn an_ignored_peer_is_owed_nothing() {
    for ignores in [true, false] {
        let (mut us, mut peer) = two();
        ask(&mut us, &mut peer, 0, Way::open()).unwrap();
        let nonce = us.nonce();
        let reject = Command::Reject { peer: peer.id(), reason: "no".into(), nonce, named: LookedAt::default() };
        let refused = us.command(at(10), reject).unwrap();
        let draft = sent(&refused).unwrap().clone();
        us.step(at(20), Input::Undelivered { draft: draft.clone() }).unwrap();
        if ignores {
            us.command(at(30), Command::Ignore { of: PeerOrKey::Peer(peer.id()) }).unwrap();
        }
        assert_eq!(us.tables.owed.is_empty(), ignores);
        let again = Input::Retry { peer: peer.id(), what: Retried::Answer, nonce: draft.nonce };
        let step = us.step(at(40), again);
        assert_eq!(step.is_ok_and(|step| sent(&step).is_some()), !ignores);
        // Nor what fails to leave after that.
        let late = us.step(at(50), Input::Undelivered { draft });
        assert!(late == Err(Rejection::NothingToDo) && us.tables.owed.is_empty() == ignores);
    }
}

#[test]
fn ignoring_again_is_no_newcomer_in_a_full_table() {
    let (mut us, peer) = two();
    (us.rules.limits.ignored_max, us.rules.limits.ignored_keys_max) = (1, 1);
    for of in [PeerOrKey::Peer(peer.id()), PeerOrKey::Key(peer.public_key())] {
        us.command(at(0), Command::Ignore { of }).unwrap();
        assert_eq!(us.command(at(1), Command::Ignore { of }), Err(Rejection::NothingToDo));
    }
    for of in [PeerOrKey::Peer(node(8)), PeerOrKey::Key(Actor::new(1, 0x33).public_key())] {
        assert_eq!(us.command(at(2), Command::Ignore { of }), Err(Rejection::IgnoredFull));
    }
}

#[test]
fn ignoring_a_key_leaves_our_request_to_a_trusted_peer_and_ends_one_to_a_stranger() {
    for trusted in [true, false] {
        let (mut us, peer) = two();
        let key = peer.public_key();
        us.request(at(0), peer.id(), Some(key)).unwrap();
        if trusted {
            us.trusts(peer.id(), Some(key));
        }
        us.command(at(1), Command::Ignore { of: PeerOrKey::Key(key) }).unwrap();
        assert_eq!(us.tables.outgoing.contains_key(&peer.id()), trusted);
    }
}
