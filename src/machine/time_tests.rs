//! What a clock that steps, a record without a floor and full floors let in again: nothing.
#![forbid(unsafe_code)]

use super::effect::Draft;
use super::input::{Command, Input, Lookup};
use super::outcome::{Outcome, Step};
use super::rejection::Rejection;
use super::view::{Floor, PendingKind, View as _};
use crate::config::{Allowed, Policy};
use crate::peer::{PublicKey, TrustRecord};
use crate::testing::actor::{Actor, Way, at, sent};
use crate::time::WallMillis;
use crate::wire::message::Kind;
use proptest::prelude::*;

const HOUR: i64 = 3_600_000;

fn peer() -> Actor {
    Actor::new(9, 0x11)
}

fn key() -> PublicKey {
    peer().public_key()
}

fn registered() -> Way {
    Way::in_networks(key(), &[2])
}

/// 7, with this policy. At an hour it hears a revocation of 9 that the registry vouches for, so that nothing older is
/// believed; then its clock is set back by an hour, and it hears anything of 9 at all, so that it notices.
fn stepped_back(policy: Policy) -> (Actor, Actor) {
    let (mut us, mut peer) = (Actor::new(7, 0xAA), peer());
    us.rules.policy = policy;
    us.request(at(HOUR), peer.id(), None).unwrap();
    let revoke = peer.draft(at(HOUR), us.id(), Kind::Revoke, None);
    us.hear_from(at(HOUR), &peer, &revoke, registered()).unwrap();
    let any = peer.draft(at(-100_000), us.id(), Kind::Revoke, None);
    let step = us.hear_from(at(-100_000), &peer, &any, registered()).unwrap();
    assert!(step.clamped);
    assert_eq!(us.tables.floor[&peer.id()].before, at(HOUR).wall);
    (us, peer)
}

fn policies() -> [Policy; 4] {
    let networks = Policy { own_networks: vec![2], ..Policy::default() };
    let all = Policy { auto_approve: true, ..Policy::default() };
    let listed = |key: Option<PublicKey>| Policy {
        allow_list: [Allowed::new(peer().id(), key)].into_iter().collect(),
        ..Policy::default()
    };
    [networks, all, listed(Some(key())), listed(None)]
}

fn hear(us: &mut Actor, ms: i64, peer: &Actor, draft: &Draft, way: Way) -> Result<Step, Rejection> {
    us.hear_from(at(ms), peer, draft, way)
}

#[test]
fn a_request_from_before_our_clock_stepped_back_waits_whatever_the_policy() {
    for policy in policies() {
        for way in [registered(), Way { lookup: registered().lookup, ..Way::relayed(peer().id()) }] {
            let (mut us, mut peer) = stepped_back(policy.clone());
            for ms in [0, 1, HOUR - 40_000, HOUR] {
                let request = peer.draft(at(ms), us.id(), Kind::Request, None);
                assert_eq!(hear(&mut us, ms, &peer, &request, way.clone()).unwrap().outcome, Outcome::Queued, "{ms}");
                assert!(us.tables.trusted.is_empty() && !us.tables.pending[&peer.id()].authentic);
                assert_eq!(hear(&mut us, ms, &peer, &request, way.clone()), Err(Rejection::Stale), "a copy");
            }
            // Its twin: what is newer than all that was ever seen.
            let request = peer.draft(at(HOUR + 1), us.id(), Kind::Request, None);
            let step = hear(&mut us, HOUR + 1, &peer, &request, way.clone()).unwrap();
            assert!(matches!(step.outcome, Outcome::Trusted(_)), "{:?}", step.outcome);
            assert_eq!(us.tables.floor[&peer.id()].before, Floor::EMPTY.before, "R-191: the step is over");
        }
    }
}

#[test]
fn both_asking_is_no_reason_below_a_former_floor() {
    for expected in [None, Some(key())] {
        let (mut us, mut peer) = stepped_back(Policy::default());
        us.request(at(0), peer.id(), expected).unwrap();
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        assert_eq!(hear(&mut us, 0, &peer, &request, registered()).unwrap().outcome, Outcome::Queued);
        let request = peer.draft(at(HOUR + 1), us.id(), Kind::Request, None);
        let step = hear(&mut us, HOUR + 1, &peer, &request, registered()).unwrap();
        assert!(matches!(step.outcome, Outcome::Trusted(record) if record.mutual));
    }
}

#[test]
fn an_answer_below_a_former_floor_waits_and_is_no_first_use() {
    for (expected, way) in [(None, registered()), (Some(key()), Way::open()), (None, Way::open())] {
        let (mut us, mut peer) = stepped_back(Policy { trust_on_first_use: true, ..Policy::default() });
        let request = us.request(at(0), peer.id(), expected).unwrap();
        let nonce = sent(&request).unwrap().nonce;
        let accept = peer.draft(at(0), us.id(), Kind::Accept, Some(nonce));
        assert_eq!(hear(&mut us, 0, &peer, &accept, way.clone()).unwrap().outcome, Outcome::Queued);
        assert_eq!(us.tables.pending[&peer.id()].kind, PendingKind::AnsweredUnvouched);
        assert!(us.tables.trusted.is_empty() && us.tables.outgoing.contains_key(&peer.id()));
        let accept = peer.draft(at(HOUR + 1), us.id(), Kind::Accept, Some(nonce));
        let step = hear(&mut us, HOUR + 1, &peer, &accept, way).unwrap();
        assert!(matches!(step.outcome, Outcome::Trusted(_)));
    }
}

#[test]
fn nothing_below_a_former_floor_ends_anything() {
    let (mut us, mut peer) = stepped_back(Policy::default());
    // A program trusts it all the same, through the store.
    let record = us.trusts(peer.id(), Some(key()));
    let request = us.command(at(0), ask(&mut peer, true)).unwrap();
    let nonce = sent(&request).unwrap().nonce;
    for (ms, kind) in [(10, Kind::Revoke), (20, Kind::Reject), (30, Kind::Accept)] {
        let draft = peer.draft(at(ms), us.id(), kind, Some(nonce).filter(|_| kind != Kind::Revoke));
        let step = hear(&mut us, ms, &peer, &draft, registered()).unwrap();
        assert_eq!(step.outcome, Outcome::Dropped(Rejection::BelowFormerFloor), "{kind:?}");
        assert!(step.effects.is_empty() && step.events.is_empty());
        assert_eq!(us.tables.trusted[&peer.id()], record);
        assert!(us.tables.outgoing.contains_key(&peer.id()));
    }
    // A peer that has lost its side of the trust is told again: that decides nothing.
    let request = peer.draft(at(40), us.id(), Kind::Request, None);
    assert_eq!(hear(&mut us, 40, &peer, &request, Way::open()).unwrap().outcome, Outcome::Confirmed(record));
    // Another key than the record's is no reason either.
    let other = us.trusts(peer.id(), Some(Actor::new(1, 0x22).public_key()));
    let request = peer.draft(at(50), us.id(), Kind::Request, None);
    assert_eq!(hear(&mut us, 50, &peer, &request, registered()).unwrap().outcome, Outcome::Queued);
    assert_eq!(us.tables.trusted[&peer.id()], other);
    // Nor is a record without a key bound.
    us.tables.pending.clear();
    let unbound = us.trusts(peer.id(), None);
    let request = peer.draft(at(60), us.id(), Kind::Request, None);
    assert_eq!(hear(&mut us, 60, &peer, &request, registered()).unwrap().outcome, Outcome::Queued);
    assert_eq!(us.tables.trusted[&peer.id()], unbound);
    // The twin: newer than all that was seen.
    us.tables.pending.clear();
    us.trusts(peer.id(), Some(key()));
    let revoke = peer.draft(at(HOUR + 1), us.id(), Kind::Revoke, None);
    assert!(matches!(
        hear(&mut us, HOUR + 1, &peer, &revoke, Way::open()).unwrap().outcome,
        Outcome::RevokedByPeer { was: Some(_) }
    ));
}

fn ask(peer: &mut Actor, force: bool) -> Command {
    let nonce = peer.nonce();
    Command::Request {
        peer: peer.id(),
        justification: "".into(),
        expected_key: None,
        registered: None,
        nonce,
        force,
        automatic: false,
        lift: None,
    }
}

#[test]
fn the_former_floor_is_the_highest_and_outlives_further_steps() {
    let (mut us, mut peer) = stepped_back(Policy::default());
    // Another hour back, and another.
    for hours in [1, 2] {
        let ms = -hours * HOUR - 200_000;
        let any = peer.draft(at(ms), us.id(), Kind::Request, None);
        assert!(hear(&mut us, ms, &peer, &any, registered()).unwrap().clamped);
        assert_eq!(us.tables.floor[&peer.id()].before, at(HOUR).wall);
    }
}

#[test]
fn an_operator_starts_the_floor_anew_and_so_does_a_new_key() {
    // Approved: from there on the peer counts again, though its stamps are below what they were.
    let (mut us, mut peer) = stepped_back(Policy::default());
    let request = peer.draft(at(0), us.id(), Kind::Request, None);
    hear(&mut us, 0, &peer, &request, registered()).unwrap();
    us.approve(at(10), peer.id(), Some(key().fingerprint())).unwrap();
    let floor = us.tables.floor[&peer.id()];
    assert_eq!((floor.seen, floor.before), (at(0).wall, Floor::EMPTY.before));
    let revoke = peer.draft(at(20), us.id(), Kind::Revoke, None);
    assert!(matches!(
        hear(&mut us, 20, &peer, &revoke, Way::open()).unwrap().outcome,
        Outcome::RevokedByPeer { was: Some(_) }
    ));

    // Granted outright.
    let (mut us, mut peer) = stepped_back(Policy::default());
    let record = TrustRecord::new(peer.id(), key()).approved_at(at(0).wall);
    us.command(at(0), Command::Grant { record, lift: None }).unwrap();
    let revoke = peer.draft(at(20), us.id(), Kind::Revoke, None);
    assert!(matches!(
        hear(&mut us, 20, &peer, &revoke, Way::open()).unwrap().outcome,
        Outcome::RevokedByPeer { was: Some(_) }
    ));

    // Under another key, which the registry names.
    let (mut us, _) = stepped_back(Policy { own_networks: vec![2], ..Policy::default() });
    let mut renewed = Actor::new(9, 0x22);
    let request = renewed.draft(at(0), us.id(), Kind::Request, None);
    let step = hear(&mut us, 0, &renewed, &request, Way::in_networks(renewed.public_key(), &[2])).unwrap();
    assert!(matches!(step.outcome, Outcome::Trusted(_)));
    assert_eq!(us.tables.floor[&renewed.id()].before, Floor::EMPTY.before);
}

#[test]
fn what_waited_when_our_clock_stepped_back_is_approved_with_its_own_floor() {
    let (mut us, mut peer) = (Actor::new(7, 0xAA), peer());
    let request = peer.draft(at(HOUR), us.id(), Kind::Request, None);
    hear(&mut us, HOUR, &peer, &request, Way::open()).unwrap();
    // The operator approves after the step.
    us.approve(at(0), peer.id(), Some(key().fingerprint())).unwrap();
    let floor = us.tables.floor[&peer.id()];
    assert_eq!((floor.seen, floor.before), (at(30_000).wall, at(HOUR).wall));
    let revoke = peer.draft(at(40_000), us.id(), Kind::Revoke, None);
    let step = hear(&mut us, 40_000, &peer, &revoke, Way::open()).unwrap();
    assert_eq!(step.outcome, Outcome::Dropped(Rejection::BelowFormerFloor));
}

/// A way to trust that brings no message.
type Trusting = Box<dyn Fn(&mut Actor)>;

/// 7 trusts 9 in this way at 0; what a revocation of 9 that is stamped `ms` comes to at 1000.
fn revoked_after(ms: i64, trust: impl FnOnce(&mut Actor)) -> bool {
    let (mut us, mut peer) = (Actor::new(7, 0xAA), peer());
    trust(&mut us);
    assert_eq!(us.tables.trusted[&peer.id()].public_key, Some(key()));
    let revoke = peer.draft(at(ms), us.id(), Kind::Revoke, None);
    let heard = hear(&mut us, 1000, &peer, &revoke, Way::open());
    let is_revoked = us.tables.trusted.is_empty();
    assert_eq!(heard.is_ok(), is_revoked, "{heard:?}");
    is_revoked
}

#[test]
fn what_was_said_before_trust_was_given_takes_none_back() {
    let record = |at: WallMillis| TrustRecord::new(peer().id(), key()).approved_at(at);
    let granted = |record: TrustRecord| {
        move |us: &mut Actor| drop(us.command(at(0), Command::Grant { record, lift: None }).unwrap())
    };
    let stored = |record: TrustRecord| {
        move |us: &mut Actor| {
            us.tables.trusted.insert(record.node_id, record);
        }
    };
    let unbound = |us: &mut Actor| {
        us.trusts(peer().id(), None);
    };
    // Each way to trust that brings no message, with the newest stamp that is too old.
    let ways: [(&str, i64, Trusting); 9] = [
        ("granted outright", -30_000, Box::new(granted(record(at(0).wall)))),
        ("granted outright, with an age", -30_000, Box::new(granted(record(at(-HOUR).wall)))),
        ("granted outright, of an unknown age", -29_000, Box::new(granted(record(WallMillis::default())))),
        ("through the store", -30_000, Box::new(stored(record(at(0).wall)))),
        ("through the store, of an unknown age", -29_000, Box::new(stored(record(WallMillis::default())))),
        ("through the store, from the future", -29_000, Box::new(stored(record(at(HOUR).wall)))),
        ("through the store, from the end of time", -29_000, Box::new(stored(record(WallMillis::new(i64::MAX))))),
        (
            "a key adopted",
            -30_000,
            Box::new(move |us| {
                unbound(us);
                us.command(at(0), Command::AdoptKey { peer: peer().id(), key: key() }).unwrap();
            }),
        ),
        (
            "a key looked up",
            -30_000,
            Box::new(move |us| {
                unbound(us);
                let lookup = Lookup::Found { key: key(), networks: Vec::new() };
                us.step(at(0), Input::LookedUp { peer: peer().id(), lookup }).unwrap();
            }),
        ),
    ];
    for (name, too_old, trust) in ways {
        assert!(!revoked_after(too_old, &trust), "{name}");
        assert!(!revoked_after(too_old - 200_000, &trust), "{name}");
        assert!(revoked_after(too_old + 1, &trust), "{name}: the twin");
        // Also where an older message has left a floor before.
        let with_floor = |us: &mut Actor| {
            let floor = Floor { key: Some(key()), seen: at(-250_000).wall, spoke_v2: true, ..Floor::EMPTY };
            us.tables.floor.insert(peer().id(), floor);
            trust(us);
        };
        if !name.contains("unknown age") {
            assert!(!revoked_after(too_old, with_floor), "{name}, with a floor");
        }
        assert!(revoked_after(too_old + 1, with_floor), "{name}, with a floor: the twin");
    }
}

#[test]
fn no_floor_is_written_for_a_record_whose_age_says_it() {
    let (mut us, peer) = (Actor::new(7, 0xAA), peer());
    let record = TrustRecord::new(peer.id(), key()).approved_at(at(0).wall);
    us.command(at(0), Command::Grant { record, lift: None }).unwrap();
    assert!(us.tables.floor.is_empty());
    // The peer may still speak version 1, whatever was written.
    us.tables.trusted.clear();
    us.command(at(0), Command::Grant { record: record.approved_at(at(-HOUR).wall), lift: None }).unwrap();
    assert!(!us.tables.floor[&peer.id()].spoke_v2);
}

#[test]
fn a_request_older_than_the_record_opens_the_way_for_nothing() {
    let (mut us, mut peer) = (Actor::new(7, 0xAA), peer());
    let record = TrustRecord::new(peer.id(), key());
    us.tables.trusted.insert(peer.id(), record);
    // A peer whose clock is slow, or a copy: it is told that it is trusted.
    let request = peer.draft(at(-200_000), us.id(), Kind::Request, None);
    assert_eq!(hear(&mut us, 0, &peer, &request, Way::open()).unwrap().outcome, Outcome::Confirmed(record));
    let revoke = peer.draft(at(-100_000), us.id(), Kind::Revoke, None);
    assert_eq!(hear(&mut us, 1, &peer, &revoke, Way::open()), Err(Rejection::Stale));
    // Of a record whose age is known it is as old as the rest.
    let (mut us, mut peer) = (Actor::new(7, 0xAA), self::peer());
    us.tables.trusted.insert(peer.id(), record.approved_at(at(0).wall));
    let request = peer.draft(at(-200_000), us.id(), Kind::Request, None);
    assert_eq!(hear(&mut us, 0, &peer, &request, Way::open()), Err(Rejection::Stale));
    let request = peer.draft(at(-29_000), us.id(), Kind::Request, None);
    assert!(hear(&mut us, 0, &peer, &request, Way::open()).is_ok());
}

/// What a load does.
fn starts_again(us: &mut Actor) {
    us.tables.floor.values_mut().for_each(|floor| floor.sent = floor.reserved);
}

/// A request of `us` to 9 at `ms`, as 9 hears it whose clock is `behind`.
fn asks(us: &mut Actor, peer: &mut Actor, ms: i64, behind: i64) -> (WallMillis, Result<Step, Rejection>) {
    let step = us.request(at(ms), peer.id(), None).unwrap();
    let draft = sent(&step).unwrap().clone();
    (draft.stamp, peer.hear_from(at(ms - behind), us, &draft, Way::registered(us.public_key())))
}

#[test]
fn eight_lives_within_ten_seconds_lose_no_message() {
    let (mut us, mut peer) = (Actor::new(7, 0xAA), peer());
    for life in 0..8 {
        let ms = life * 1200;
        let (stamp, heard) = asks(&mut us, &mut peer, ms, 200);
        assert_eq!((stamp, heard.is_ok()), (at(ms).wall, true), "life {life}: {heard:?}");
        us.step(at(ms + 1), Input::Stopping).unwrap();
        let again = us.step(at(ms + 1), Input::Stopping).unwrap();
        assert!(again.changes.is_empty(), "what is saved already is not saved again");
        starts_again(&mut us);
    }
    // The twin: a node that stopped without that.
    let (_, heard) = asks(&mut us, &mut peer, 12_000, 200);
    assert!(heard.is_ok());
    starts_again(&mut us);
    assert!(us.tables.floor[&peer.id()].sent > at(12_000).wall);
}

proptest! {
    /// Lives that end in good order, or by a crash before or after the last of it was saved.
    #[test]
    fn no_stamp_is_used_twice_and_none_is_from_the_future_however_lives_end(
        behind in -10_000i64..=10_000,
        lives in proptest::collection::vec((1i64..3000, 1usize..4, 0u8..3), 1..40),
    ) {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), peer());
        let (mut ms, mut newest) = (0, WallMillis::new(0));
        for (lasts, messages, ends) in lives {
            let saved = us.tables.clone();
            for _ in 0..messages {
                let (stamp, heard) = asks(&mut us, &mut peer, ms, behind);
                prop_assert!(stamp > newest, "{stamp:?} after {newest:?}");
                prop_assert!(heard.is_ok(), "{heard:?}");
                prop_assert!(us.tables.floor[&peer.id()].reserved <= stamp.max(at(ms + 10_000).wall));
                newest = stamp;
                ms += lasts;
            }
            // Nothing of this life was saved. The reserve of an earlier one protects it for as long as it lasts.
            let is_protected = saved.floor.get(&peer.id()).is_none_or(|floor| floor.reserved > at(ms).wall);
            match ends {
                0 => drop(us.step(at(ms), Input::Stopping)),
                2 if is_protected => us.tables = saved,
                _ => {}
            }
            starts_again(&mut us);
        }
    }
}

#[test]
fn a_stamp_of_a_clock_that_was_ahead_is_moved_to_where_receivers_hear_it() {
    for ahead in [20_001, 25_000, 30_000, 30_001, HOUR] {
        for behind in [0, 200, 10_000] {
            let (mut us, mut peer) = (Actor::new(7, 0xAA), peer());
            us.request(at(ahead), peer.id(), None).unwrap();
            let (stamp, heard) = asks(&mut us, &mut peer, 0, behind);
            assert!(heard.is_ok(), "{ahead} {behind}: {heard:?}");
            assert!(stamp <= at(20_000).wall);
            let floor = us.tables.floor[&peer.id()];
            assert_eq!((floor.sent, floor.reserved), (stamp, stamp), "and nothing is reserved beyond it (R-51)");
        }
    }
}

#[test]
fn a_peer_that_leaves_a_table_leaves_its_floor_though_floors_are_full() {
    let network = || Policy { own_networks: vec![2], ..Policy::default() };
    // Trusted, waiting, asked: a revocation takes it out of the last table.
    for prepare in [
        (|us: &mut Actor| {
            us.trusts(peer().id(), Some(key()));
        }) as fn(&mut Actor),
        |us| drop(us.request(at(0), peer().id(), None).unwrap()),
        |us| {
            let mut peer = peer();
            let request = peer.draft(at(0), us.id(), Kind::Request, None);
            us.hear_from(at(0), &peer, &request, Way::open()).unwrap();
        },
    ] {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), peer());
        prepare(&mut us);
        us.tables.floor.clear();
        us.rules.policy = network();
        us.rules.limits.floors_max = 0;
        let old = peer.draft(at(10), us.id(), Kind::Request, None);
        let revoke = peer.draft(at(20), us.id(), Kind::Revoke, None);
        hear(&mut us, 20, &peer, &revoke, registered()).unwrap();
        assert_eq!(us.tables.floor[&peer.id()].seen, at(20).wall);
        assert_eq!(hear(&mut us, 30, &peer, &old, registered()), Err(Rejection::Stale));
        assert!(us.tables.trusted.is_empty());
        // The twin: what is newer.
        let new = peer.draft(at(40), us.id(), Kind::Request, None);
        hear(&mut us, 40, &peer, &new, registered()).unwrap();
        assert!(us.tables.trusted(peer.id()).is_some());
    }
}
