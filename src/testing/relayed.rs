//! Messages that a relay brings, at the rules of one node: the same signed message, judged as if the relay were nobody
//!
#![forbid(unsafe_code)]

use super::actor::{Actor, Way, at, node, sent};
use crate::machine::outcome::Outcome;
use crate::machine::rejection::Rejection;
use crate::machine::view::Source;
use crate::wire::message::Kind;

const DAY_MS: i64 = 24 * 3_600_000;

fn two() -> (Actor, Actor) {
    (Actor::new(9, 0x11), Actor::new(7, 0xAA))
}

/// The relay says that the sender handed it in itself.
fn relayed() -> Way {
    Way::relayed(node(7))
}

#[test]
fn a_relayed_message_may_be_as_old_as_an_entry_may_live_and_a_direct_one_not() {
    for (age, by_relay, heard) in [
        (300_001, true, Ok(())),
        (300_001, false, Err(Rejection::TooOld)),
        (30 * DAY_MS, true, Ok(())),
        (30 * DAY_MS + 1, true, Err(Rejection::TooOld)),
        (-30_000, true, Ok(())),
        (-30_001, true, Err(Rejection::FromFuture)),
        (-30_001, false, Err(Rejection::FromFuture)),
    ] {
        let (mut us, mut peer) = two();
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        let way = if by_relay { relayed() } else { Way::open() };
        assert_eq!(us.hear_from(at(age), &peer, &request, way).map(|_| ()), heard, "{age} {by_relay}");
    }
}

#[test]
fn a_relay_vouches_for_nobody() {
    let (mut us, mut peer) = two();
    us.trusts(peer.id(), Some(Actor::new(1, 0x22).public_key()));
    let request = peer.draft(at(0), us.id(), Kind::Request, None);
    us.hear_from(at(0), &peer, &request, relayed()).unwrap();
    assert!(!us.tables.pending[&peer.id()].authentic);
    assert_eq!(us.tables.trusted[&peer.id()].public_key, Some(Actor::new(1, 0x22).public_key()));
    assert!(us.tables.floor.is_empty());
    // Its twin: the same message over a connection of the peer's own, and the same by a relay with a registry behind us.
    for lookup in [Way::open().lookup, Way::registered(peer.public_key()).lookup] {
        let path = if lookup == Way::open().lookup { Way::tunnel(peer.id()).path } else { relayed().path };
        let (mut us, mut peer) = two();
        us.trusts(peer.id(), Some(Actor::new(1, 0x22).public_key()));
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &peer, &request, Way { path, lookup }).unwrap();
        assert!(us.tables.trusted.is_empty());
    }
}

#[test]
fn a_relayed_message_is_verified_like_any_other() {
    let (mut us, mut peer) = two();
    let request = peer.draft(at(0), us.id(), Kind::Request, None);
    let mut message = peer.sign(&request);
    message.justification.push('!');
    assert_eq!(us.hear(at(0), &message.to_json(), relayed()), Err(Rejection::BadSignature));
    assert!(us.hear_from(at(0), &peer, &request, relayed()).is_ok());
}

#[test]
fn a_relayed_request_is_charged_to_whoever_handed_it_in() {
    let mut us = Actor::new(9, 0x11);
    us.rules.limits.pending_per_source_max = 1;
    for (id, by, heard) in [(101, 50, Ok(())), (102, 50, Err(Rejection::PendingSourceFull)), (102, 51, Ok(()))] {
        let mut peer = Actor::new(id, 0xAA);
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        let step = us.hear_from(at(0), &peer, &request, Way::relayed(node(by)));
        assert_eq!(step.map(|_| ()), heard, "{id} by {by}");
        if heard.is_ok() {
            assert_eq!(us.tables.pending[&peer.id()].source, Source::Relay(node(by)));
        }
    }
}

#[test]
fn a_relayed_copy_of_what_was_seen_is_stale() {
    let (mut us, mut peer) = two();
    us.trusts(peer.id(), Some(peer.public_key()));
    let (old, new) =
        (peer.draft(at(0), us.id(), Kind::Request, None), peer.draft(at(10), us.id(), Kind::Request, None));
    us.hear_from(at(20), &peer, &new, relayed()).unwrap();
    assert_eq!(us.hear_from(at(DAY_MS), &peer, &new, relayed()), Err(Rejection::Stale));
    assert_eq!(us.hear_from(at(DAY_MS), &peer, &old, relayed()), Err(Rejection::Stale));
}

#[test]
fn a_relayed_answer_counts_by_its_nonce_and_its_key_however_late() {
    let (mut us, mut peer) = two();
    let request = us.request(at(0), peer.id(), Some(peer.public_key())).unwrap();
    let nonce = sent(&request).unwrap().nonce;
    let wrong = peer.draft(at(5), us.id(), Kind::Accept, Some(us.nonce()));
    assert_eq!(us.hear_from(at(DAY_MS), &peer, &wrong, relayed()), Err(Rejection::WrongAnswer));
    let accept = peer.draft(at(10), us.id(), Kind::Accept, Some(nonce));
    let forger = Actor::new(7, 0xBB);
    assert_eq!(us.hear_from(at(DAY_MS), &forger, &accept, relayed()).unwrap().outcome, Outcome::Queued);
    let step = us.hear_from(at(DAY_MS), &peer, &accept, relayed()).unwrap();
    assert!(matches!(step.outcome, Outcome::Trusted(record) if record.public_key == Some(peer.public_key())));
}

#[test]
fn a_relay_brings_no_revocation_and_no_answer_of_version_1() {
    let (mut us, mut peer) = two();
    us.rules.policy.accept_v1 = true;
    us.trusts(peer.id(), Some(peer.public_key()));
    us.request(at(0), node(8), None).unwrap();
    let revoke = peer.draft(at(10), us.id(), Kind::Revoke, None);
    assert_eq!(us.hear_from(at(10), &peer, &revoke, relayed()), Err(Rejection::NotRelayable));
    for kind in [Kind::Accept, Kind::Reject, Kind::Revoke] {
        let message = peer.draft(at(10), us.id(), kind, None);
        assert_eq!(us.hear_v1(at(10), &peer, &message, relayed()), Err(Rejection::NotRelayable), "{kind:?}");
    }
    assert!(us.tables.trusted.contains_key(&peer.id()));
    // Directly it may come; and a request of version 1 may, to wait.
    assert!(us.hear_from(at(20), &peer, &revoke, Way::open()).is_ok());
    let mut stranger = Actor::new(6, 0x33);
    let request = stranger.draft(at(10), us.id(), Kind::Request, None);
    assert_eq!(us.hear_v1(at(10), &stranger, &request, relayed()).unwrap().outcome, Outcome::Queued);
}

#[test]
fn a_relay_is_not_trusted_with_the_first_use_of_a_key() {
    for (way, trusted) in [(relayed(), false), (Way::open(), true)] {
        let (mut us, mut peer) = two();
        us.rules.policy.trust_on_first_use = true;
        let request = us.request(at(0), peer.id(), None).unwrap();
        let accept = peer.draft(at(10), us.id(), Kind::Accept, Some(sent(&request).unwrap().nonce));
        us.hear_from(at(20), &peer, &accept, way).unwrap();
        assert_eq!(us.tables.trusted.contains_key(&peer.id()), trusted);
        assert_eq!(us.tables.pending.contains_key(&peer.id()), !trusted);
    }
}
