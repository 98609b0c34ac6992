//! What the rules say where two of them meet: each test is of one sentence of `docs/protocol.md` that the tests beside the
//! rules pass by, with its twin.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::sync::Arc;

use super::arrival::is_held;
use super::effect::Action;
use super::event::Event;
use super::input::{Command, Input, LookedAt, Lookup, PeerOrKey};
use super::outcome::{Outcome, Step};
use super::rejection::{FingerprintNeed, Rejection};
use super::view::{Floor, OtherKey, PendingKind, Source, Succession};
use crate::config::Policy;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::testing::actor::{Actor, Way, at, dropped, node, sent};
use crate::wire::message::Kind;

const HOUR: i64 = 60 * 60 * 1000;
const LIFETIME: i64 = 30 * 24 * HOUR;

fn us() -> Actor {
    Actor::new(7, 0xAA)
}

fn peer() -> Actor {
    Actor::new(9, 0x11)
}

fn key(seed: u8) -> PublicKey {
    Actor::new(9, seed).public_key()
}

/// By this way, and the registry names this key for the sender.
fn vouched(key: PublicKey, way: Way) -> Way {
    Way { lookup: Way::registered(key).lookup, ..way }
}

/// How long a step lets the farewell hold back the cut of 9's tunnel.
fn cut_within(step: &Step) -> Option<Duration> {
    step.effects.iter().find_map(|effect| match effect.action {
        Action::Disconnect { peer, within } if peer == node(9) => Some(within),
        _ => None,
    })
}

fn request(us: &mut Actor, ms: i64, expected_key: Option<PublicKey>) -> Step {
    let (peer, justification, nonce) = (node(9), "".into(), us.nonce());
    let (registered, force, automatic, lift) = (None, true, false, None);
    us.command(
        at(ms),
        Command::Request { peer, justification, expected_key, registered, nonce, force, automatic, lift },
    )
    .unwrap()
}

#[test]
fn a_grant_under_another_key_takes_over_no_former_floor() {
    for granted in [true, false] {
        let (mut us, mut renewed) = (us(), Actor::new(9, 0x22));
        let of = if granted { key(0x11) } else { renewed.public_key() };
        let floor = Floor { key: Some(of), seen: at(0).wall, before: at(HOUR).wall, ..Floor::EMPTY };
        us.tables.floor.insert(renewed.id(), floor);
        // As an import brings it: it is trusted for an hour.
        let record = TrustRecord::new(renewed.id(), renewed.public_key()).approved_at(at(-HOUR).wall);
        if granted {
            us.command(at(10), Command::Grant { record, lift: None }).unwrap();
            assert_eq!(us.tables.floor[&renewed.id()].before, Floor::EMPTY.before);
        } else {
            us.tables.trusted.insert(renewed.id(), record);
        }
        let revoke = renewed.draft(at(20), us.id(), Kind::Revoke, None);
        let step = us.hear_from(at(20), &renewed, &revoke, Way::open());
        // The twin: a former floor of its own key, which no operator has ended.
        let below = dropped(&step) == Some(Rejection::BelowFormerFloor);
        assert_eq!((below, us.tables.trusted.is_empty()), (!granted, granted), "{step:?}");
    }
}

#[test]
fn the_tunnel_outlives_the_farewell_whichever_revocation_says_it() {
    let trusting = || {
        let mut us = us();
        us.trusts(node(9), Some(key(0x11)));
        us
    };
    let farewell_max = us().rules.config.farewell_max;
    assert!(farewell_max > Duration::ZERO);
    let mut one = trusting();
    assert_eq!(cut_within(&one.revoke(at(0), node(9)).unwrap()), Some(farewell_max));
    let mut one = trusting();
    let nonce = one.nonce();
    one.command(at(0), Command::RevokeKey { key: key(0x11), nonce }).unwrap();
    let ended = one.command(at(0), Command::EndUnderKey { peer: node(9), key: key(0x11), nonce }).unwrap();
    assert_eq!(sent(&ended).map(|draft| draft.kind), Some(Kind::Revoke));
    assert_eq!(cut_within(&ended), Some(farewell_max));
    // Where nothing is to be said first, it goes at once.
    let changed = trusting().command(at(0), Command::ReportKeyChange { peer: node(9), key: key(0x22) }).unwrap();
    assert_eq!((sent(&changed), cut_within(&changed)), (None, Some(Duration::ZERO)));
}

#[test]
fn a_key_that_is_adopted_has_replaced_the_one_that_named_it() {
    for named in [true, false] {
        let (mut us, old, mut new) = (us(), peer(), Actor::new(9, 0x22));
        us.trusts(old.id(), Some(old.public_key()));
        new.rotation = Some(old.signs_over_to(&new, at(0)));
        if named {
            let draft = new.draft(at(10), us.id(), Kind::Request, None);
            us.hear_from(at(10), &new, &draft, Way::open()).unwrap();
        }
        us.trusts(old.id(), None);
        us.command(at(20), Command::AdoptKey { peer: node(9), key: new.public_key() }).unwrap();
        let mut old = peer();
        let draft = old.draft(at(30), us.id(), Kind::Request, None);
        let step = us.hear_from(at(30), &old, &draft, Way::tunnel(node(9)));
        // Whoever vouches for it. The twin: a key of which nothing is known ends the trust in another.
        assert_eq!(dropped(&step) == Some(Rejection::KeyReplaced), named, "{step:?}");
        assert_eq!(us.tables.trusted.contains_key(&node(9)), named);
    }
}

#[test]
fn a_farewell_that_is_owed_goes_with_no_request_that_a_relay_brings() {
    for (relayed, said) in [(true, None), (false, Some(Kind::Revoke))] {
        let (mut us, mut peer) = (us(), peer());
        us.trusts(peer.id(), Some(peer.public_key()));
        let revoked = us.revoke(at(0), peer.id()).unwrap();
        us.step(at(10), Input::Undelivered { draft: sent(&revoked).unwrap().clone() }).unwrap();
        assert_eq!(us.tables.owed[&peer.id()].kind, Kind::Revoke);
        let way = if relayed { Way::relayed(node(3)) } else { Way::open() };
        let draft = peer.draft(at(100), us.id(), Kind::Request, None);
        let step = us.hear_from(at(100), &peer, &draft, vouched(peer.public_key(), way)).unwrap();
        assert_eq!((step.outcome, sent(&step).map(|draft| draft.kind)), (Outcome::Queued, said));
    }
}

#[test]
fn a_farewell_is_repeated_though_our_clock_was_ahead_when_it_was_said() {
    // Within what a reserve explains, the stamp says when that was.
    for (ahead, repeated) in [(365 * 24 * HOUR, true), (20_001, true), (20_000, false), (0, false)] {
        let (mut us, mut peer) = (us(), peer());
        us.trusts(peer.id(), Some(peer.public_key()));
        us.revoke(at(ahead), peer.id()).unwrap();
        let mut farewell = |ms: i64| {
            let draft = peer.draft(at(ms), us.id(), Kind::Request, None);
            let step = us.hear_from(at(ms), &peer, &draft, Way::registered(peer.public_key())).unwrap();
            sent(&step).is_some()
        };
        // As ever once a minute, whatever was said before.
        assert_eq!([0, 10_000, 20_000].map(&mut farewell), [repeated, false, false], "{ahead}");
        assert!(farewell(80_000) && !farewell(90_000), "{ahead}");
    }
}

#[test]
fn under_an_ignored_key_a_peer_whose_record_has_none_is_not_heard() {
    let (mut us, mut peer, mut other) = (us(), peer(), Actor::new(9, 0x22));
    us.trusts(peer.id(), None);
    us.command(at(0), Command::Ignore { of: PeerOrKey::Key(peer.public_key()) }).unwrap();
    let draft = peer.draft(at(10), us.id(), Kind::Request, None);
    let way = Way::registered(peer.public_key());
    assert_eq!(us.hear_from(at(10), &peer, &draft, way), Err(Rejection::Ignored));
    assert!(us.tables.pending.is_empty() && us.tables.trusted[&peer.id()].public_key.is_none());
    // The twin: under another key it is.
    let draft = other.draft(at(20), us.id(), Kind::Request, None);
    let heard = us.hear_from(at(20), &other, &draft, Way::registered(other.public_key())).unwrap();
    assert!(matches!(heard.outcome, Outcome::Confirmed(_)));
}

#[test]
fn an_entry_that_moves_to_its_true_source_displaces_what_nobody_vouches_for_there() {
    for (is_backed, moves) in [(false, true), (true, false)] {
        let (mut us, mut peer) = (us(), peer());
        us.rules.limits.pending_per_source_max = 1;
        // Over the peer's own tunnel came a request in another's name.
        let mut way = Way::tunnel(peer.id());
        if is_backed {
            way = vouched(Actor::new(8, 0x33).public_key(), way);
        }
        us.is_asked(5, 8, 0x33, "", way).unwrap();
        let draft = peer.draft(at(10), us.id(), Kind::Request, None);
        us.hear_from(at(10), &peer, &draft, Way::from_host(6)).unwrap();
        us.hear_from(at(11), &peer, &draft, Way::tunnel(peer.id())).unwrap();
        let entry = &us.tables.pending[&peer.id()];
        assert_eq!((entry.authentic, entry.source == Source::Node(peer.id())), (true, moves));
        assert_eq!(us.tables.pending.contains_key(&node(8)), !moves);
    }
}

#[test]
fn another_key_that_waits_in_version_2_is_not_made_one_of_version_1() {
    let (mut us, mut second) = (us(), Actor::new(9, 0x22));
    us.rules.policy = Policy::default().accept_v1(true);
    us.is_asked(10, 9, 0x11, "", Way::from_host(1)).unwrap();
    let draft = second.draft(at(20), us.id(), Kind::Request, None);
    us.hear_from(at(20), &second, &draft, Way::from_host(2)).unwrap();
    let kept: Vec<OtherKey> = us.tables.pending[&node(9)].others.clone();
    let old = second.draft(at(3000), us.id(), Kind::Request, None);
    us.hear_v1(at(3000), &second, &old, Way::from_host(2)).unwrap();
    assert_eq!(us.tables.pending[&node(9)].others, kept);
    assert_eq!(kept[0].nonce, Some(draft.nonce));
    // The twin: the other way round it is renewed.
    let mut third = Actor::new(9, 0x33);
    let old = third.draft(at(4000), us.id(), Kind::Request, None);
    us.hear_v1(at(4000), &third, &old, Way::from_host(3)).unwrap();
    assert_eq!(us.tables.pending[&node(9)].others[1].nonce, None);
    let new = third.draft(at(5000), us.id(), Kind::Request, None);
    us.hear_from(at(5000), &third, &new, Way::from_host(3)).unwrap();
    assert_eq!(us.tables.pending[&node(9)].others[1].nonce, Some(new.nonce));
}

#[test]
fn an_answer_among_the_other_keys_goes_with_its_request_and_the_requests_stay() {
    type End = fn(&mut Actor);
    let ends: [(&str, End); 4] = [
        ("asked again", |us| drop(us.request(at(50), node(9), None).unwrap())),
        ("cancelled", |us| drop(us.command(at(50), Command::Cancel { peer: node(9) }).unwrap())),
        ("pushed out", |us| {
            us.rules.limits.outgoing_max = 1;
            us.request(at(50), node(8), None).unwrap();
        }),
        ("expired", |us| {
            us.tables.pending.get_mut(&node(9)).unwrap().received_tick = at(LIFETIME).tick;
            us.step(at(LIFETIME + 1), Input::Housekeeping).unwrap();
        }),
    ];
    for (how, end) in ends {
        let (mut us, mut answering) = (us(), Actor::new(9, 0x22));
        let asked = us.request(at(0), node(9), None).unwrap();
        us.is_asked(10, 9, 0x11, "", Way::from_host(1)).unwrap();
        let accept = answering.draft(at(20), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce));
        us.hear_from(at(20), &answering, &accept, Way::from_host(2)).unwrap();
        us.is_asked(30, 9, 0x33, "", Way::from_host(3)).unwrap();
        let keys = |us: &Actor| us.tables.pending[&node(9)].keys().map(|it| (it.key, it.kind)).collect::<Vec<_>>();
        let (first, third) = ((key(0x11), PendingKind::Request), (key(0x33), PendingKind::Request));
        assert_eq!(keys(&us), [first, (key(0x22), PendingKind::AnsweredUnvouched), third]);
        end(&mut us);
        assert_eq!(keys(&us), [first, third], "{how}");
    }
}

#[test]
fn what_a_registry_said_once_is_no_word_of_the_transport_that_brought_it() {
    for (tunnel, vouches) in [(8, false), (9, true)] {
        let (mut us, mut peer) = (us(), peer());
        let draft = peer.draft(at(10), us.id(), Kind::Request, None);
        let way = vouched(peer.public_key(), Way::tunnel(node(tunnel)));
        us.hear_from(at(10), &peer, &draft, way).unwrap();
        assert!(us.tables.pending[&peer.id()].authentic);
        // The registry does not know the peer any more.
        match us.approve_as(at(20), peer.id(), None, Lookup::Unknown) {
            Ok(_) => assert!(vouches, "node {tunnel} vouches for nobody but itself"),
            Err(Rejection::FingerprintRequired { why, .. }) => {
                assert!(!vouches && why == FingerprintNeed::Unvouched);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_stranger_whose_floor_our_clock_moved_back_was_not_silent_for_longer() {
    let mut us = us();
    us.rules.limits.floors_max = 16;
    for id in 101..=116 {
        let floor = Floor { key: Some(key(0x22)), seen: at(i64::from(id)).wall, ..Floor::EMPTY };
        us.tables.floor.insert(node(id), floor);
    }
    us.tables.floor.get_mut(&node(101)).unwrap().before = at(HOUR).wall;
    us.step(at(1), Input::Housekeeping).unwrap();
    let left: Vec<u32> = us.tables.floor.keys().map(|peer| peer.get()).collect();
    assert_eq!(left, [101].into_iter().chain(104..=116).collect::<Vec<_>>());
}

#[test]
fn who_was_refused_again_lately_is_not_forgotten_for_an_old_refusal() {
    let mut us = us();
    us.rules.limits.pending_max = 1;
    let mut refuse = |ms: i64, id: u32, seed: u8| {
        us.is_asked(ms, id, seed, "", Way::open()).unwrap();
        us.refuse(at(ms), node(id), "").unwrap();
        us.tables.refused.keys().map(|id| id.get()).collect::<Vec<_>>()
    };
    for (ms, id) in (0..16).zip(100..116) {
        refuse(ms, id, 0x11);
    }
    // The first of all, under another key.
    assert_eq!(refuse(16, 100, 0x22), (100..116).collect::<Vec<_>>());
    assert_eq!(refuse(17, 200, 0x11), [100].into_iter().chain(102..116).chain([200]).collect::<Vec<_>>());
}

#[test]
fn a_request_behind_an_answer_of_its_key_is_no_repeat_and_is_told() {
    let (mut us, mut peer) = (us(), peer());
    let asked = us.request(at(0), peer.id(), None).unwrap();
    let accept = peer.draft(at(10), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce));
    us.hear_from(at(10), &peer, &accept, Way::open()).unwrap();
    assert_eq!(us.tables.pending[&peer.id()].kind, PendingKind::AnsweredUnvouched);
    let told = |step: Step| step.events.iter().any(|event| matches!(event, Event::Received { .. }));
    for (ms, is_told) in [(20, true), (30, false)] {
        let draft = peer.draft(at(ms), us.id(), Kind::Request, None);
        assert_eq!(told(us.hear_from(at(ms), &peer, &draft, Way::open()).unwrap()), is_told, "{ms}");
    }
}

#[test]
fn a_key_that_our_caller_named_is_one_that_we_hold_for_that_peer() {
    let mut us = us();
    us.request(at(0), node(9), Some(key(0x11))).unwrap();
    let held = |us: &Actor, peer: NodeId, seed: u8| is_held(&us.tables, peer, &key(seed));
    assert!(held(&us, node(9), 0x11));
    assert!(!held(&us, node(8), 0x11) && !held(&us, node(9), 0x22));
    us.command(at(10), Command::Cancel { peer: node(9) }).unwrap();
    assert!(!held(&us, node(9), 0x11));
}

#[test]
fn where_the_first_key_goes_the_next_is_one_whose_source_has_room() {
    for (limit, next) in [(1, Some(0x33)), (2, Some(0x22))] {
        let mut us = us();
        us.rules.limits.pending_per_source_max = limit;
        for (ms, seed, host) in [(10, 0x11, 1), (11, 0x22, 2), (12, 0x33, 3)] {
            us.is_asked(ms, 9, seed, "", Way::from_host(host)).unwrap();
        }
        us.is_asked(13, 8, 0x44, "", Way::from_host(2)).unwrap();
        let named = LookedAt { fingerprint: Some(key(0x11).fingerprint()), entry: None };
        let nonce = us.nonce();
        us.command(at(20), Command::Reject { peer: node(9), reason: "".into(), nonce, named }).unwrap();
        let entry = us.tables.pending.get(&node(9));
        assert_eq!(entry.map(|entry| entry.key), next.map(key));
        assert!(us.tables.pending.contains_key(&node(8)), "nobody gives way to it");
    }
}

#[test]
fn a_request_gives_a_record_no_key_but_the_one_that_our_caller_named() {
    for (seed, adopts) in [(0x22, false), (0x11, true)] {
        let (mut us, mut peer) = (us(), peer());
        us.trusts(peer.id(), None);
        request(&mut us, 0, Some(key(seed)));
        let draft = peer.draft(at(10), us.id(), Kind::Request, None);
        let step = us.hear_from(at(10), &peer, &draft, Way::registered(peer.public_key())).unwrap();
        assert_eq!(step.outcome == Outcome::Queued, !adopts, "{:?}", step.outcome);
        assert_eq!(us.tables.trusted[&peer.id()].public_key, adopts.then_some(peer.public_key()));
    }
}

#[test]
fn a_request_gives_a_record_no_replaced_key_though_our_caller_names_it() {
    for (replaced, adopts) in [(true, false), (false, true)] {
        let (mut us, mut peer) = (us(), peer());
        us.trusts(peer.id(), None);
        let named = Succession { replaced, ..Succession::new(peer.public_key(), key(0x22)) };
        us.tables.successors.insert(peer.id(), Arc::new([named]));
        request(&mut us, 0, Some(peer.public_key()));
        let draft = peer.draft(at(10), us.id(), Kind::Request, None);
        let step = us.hear_from(at(10), &peer, &draft, Way::tunnel(peer.id())).unwrap();
        assert_eq!(step.outcome == Outcome::Queued, !adopts, "{:?}", step.outcome);
        assert_eq!(us.tables.trusted[&peer.id()].public_key, adopts.then_some(peer.public_key()));
    }
}

#[test]
fn an_answer_under_the_key_of_the_record_is_heard_whichever_key_our_caller_named() {
    for (of_record, heard) in [(0x11, true), (0x22, false)] {
        let (mut us, mut peer) = (us(), peer());
        us.trusts(peer.id(), Some(key(of_record)));
        let asked = request(&mut us, 0, Some(key(0x33)));
        let accept = peer.draft(at(10), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce));
        let step = us.hear_from(at(10), &peer, &accept, Way::open()).unwrap();
        assert_eq!(matches!(step.outcome, Outcome::Trusted(_)), heard, "{:?}", step.outcome);
        assert_eq!(us.tables.outgoing.contains_key(&peer.id()), !heard);
    }
}
