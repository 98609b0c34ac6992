//! The rules: what an operator took back or refused, and which keys were replaced, is remembered beyond the
//! trust that came of it. Each with its twin.
#![forbid(unsafe_code)]

use super::super::known::{set_aside, shown};
use super::*;
use crate::config::{Allowed, Policy};
use crate::machine::input::{Command, Input, LookedAt, PeerOrKey};
use crate::machine::view::{KeyFault, Pending, Void};
use crate::peer::{NodeId, TrustRecord};
use crate::testing::actor::{Actor, Way, at, dropped, node, sent};
use crate::time::Now;
use crate::wire::sign::Draft;

fn successor(old: &Actor, seed: u8) -> Actor {
    let mut new = Actor::new(old.id().get(), seed);
    new.rotation = Some(old.signs_over_to(&new, at(0)));
    new
}

/// 9, which takes new keys and trusts 7 under its key; 7; and a thief of that key, whose messages carry its statement.
fn stolen() -> (Actor, Actor, Actor) {
    let (mut us, owner) = (Actor::new(9, 0x11), Actor::new(7, 0xAA));
    us.trusts(owner.id(), Some(owner.public_key()));
    us.rules.policy.on_rotation = OnRotation::Take;
    let thief = successor(&owner, 0xBB);
    (us, owner, thief)
}

fn ask(us: &mut Actor, now: Now, from: &mut Actor, way: Way) -> Result<Step, Rejection> {
    let draft = from.draft(now, us.id(), Kind::Request, None);
    us.hear_from(now, from, &draft, way)
}

fn waiting(us: &Actor) -> Option<&Pending> {
    us.tables.pending.get(&node(7))
}

fn key_of(us: &Actor) -> Option<PublicKey> {
    us.tables.trusted.get(&node(7)).and_then(|record| record.public_key)
}

fn refuse(us: &mut Actor, now: Now, peer: NodeId) {
    let nonce = us.nonce();
    us.command(now, Command::Reject { peer, reason: "".into(), nonce, named: LookedAt::default() }).unwrap();
}

fn why_not(us: &Actor, key: &Actor) -> Option<KeyFault> {
    set_aside(&us.tables, node(7), &key.public_key())
}

/// Waits, shown as what it is: proven by nothing, a conflict, and void.
fn assert_waits_void(us: &Actor, key: &Actor, why: Void, what: &str) {
    let entry = waiting(us).unwrap_or_else(|| panic!("{what}: nothing waits"));
    assert_eq!((entry.key, entry.proven_by, entry.authentic), (key.public_key(), None, false), "{what}");
    assert!(shown(&us.tables, node(7), entry).conflicts > 0, "{what}");
    assert_eq!(why_not(us, key), Some(KeyFault::Void(why)), "{what}");
}

type Back = fn(&mut Actor, &mut Actor);

/// How an operator gives trust back to the owner after a revocation.
const WAYS_BACK: [(&str, Back); 3] = [
    ("the owner asks and is approved", |us, owner| {
        ask(us, at(40), owner, Way::open()).unwrap();
        let mark = us.tables.revoked[&node(7)].id;
        us.approve_lifting(at(50), node(7), mark).unwrap();
    }),
    ("granted with the lift", |us, owner| {
        let lift = us.tables.revoked.get(&node(7)).map(|mark| mark.id);
        us.command(at(50), Command::Grant { record: TrustRecord::new(node(7), owner.public_key()), lift }).unwrap();
    }),
    ("forgotten and granted", |us, owner| {
        us.command(at(45), Command::ForgetRevocation { of: PeerOrKey::Peer(node(7)) }).unwrap();
        let record = TrustRecord::new(node(7), owner.public_key());
        us.command(at(50), Command::Grant { record, lift: None }).unwrap();
    }),
];

#[test]
fn what_a_thief_had_signed_before_a_revocation_is_never_taken_again() {
    for (what, back) in WAYS_BACK {
        for waits_only in [false, true] {
            let (mut us, mut owner, mut thief) = stolen();
            if waits_only {
                us.rules.policy.on_rotation = OnRotation::Ask;
            }
            let first = thief.draft(at(10), us.id(), Kind::Request, None);
            us.hear_from(at(10), &thief, &first, Way::open()).unwrap();
            us.rules.policy.on_rotation = OnRotation::Take;
            assert_eq!(key_of(&us) == Some(thief.public_key()), !waits_only);
            us.revoke(at(30), node(7)).unwrap();
            back(&mut us, &mut owner);
            assert_eq!(key_of(&us), Some(owner.public_key()), "{what}");
            // The same bytes, and the same statement on a new message, however often.
            let again = us.hear_from(at(60), &thief, &first, Way::open());
            // what waited when the peer was revoked counts as refused.
            let is_refused = matches!(&again, Ok(step) if step.outcome == Outcome::Dropped(Rejection::AlreadyRefused));
            assert!(is_refused || (!waits_only && (again.is_err() || again.unwrap().outcome == Outcome::Queued)));
            ask(&mut us, at(70), &mut thief, Way::open()).unwrap();
            assert_eq!(key_of(&us), Some(owner.public_key()), "{what}");
            assert_waits_void(&us, &thief, Void::Revoked, what);
            // Another statement of the stolen key is asked about at most.
            let mut second = successor(&owner, 0xCC);
            refuse(&mut us, at(80), node(7));
            ask(&mut us, at(90), &mut second, Way::open()).unwrap();
            assert_eq!(key_of(&us), Some(owner.public_key()), "{what}");
            assert_eq!(waiting(&us).unwrap().proven_by, Some(owner.public_key()), "{what}");
        }
    }
    // The twin: what nobody took back is taken, however often trust was given meanwhile.
    let (mut us, owner, mut thief) = stolen();
    us.command(at(20), Command::Remove { peer: node(7) }).unwrap();
    us.command(at(30), Command::Grant { record: TrustRecord::new(node(7), owner.public_key()), lift: None }).unwrap();
    ask(&mut us, at(40), &mut thief, Way::open()).unwrap();
    assert_eq!(key_of(&us), Some(thief.public_key()));
}

#[test]
fn an_operator_who_grants_the_replaced_key_again_refuses_what_took_its_place() {
    let (mut us, owner, mut thief) = stolen();
    ask(&mut us, at(10), &mut thief, Way::open()).unwrap();
    assert_eq!(key_of(&us), Some(thief.public_key()));
    us.command(at(20), Command::Grant { record: TrustRecord::new(node(7), owner.public_key()), lift: None }).unwrap();
    ask(&mut us, at(60), &mut thief, Way::open()).unwrap();
    assert_eq!(key_of(&us), Some(owner.public_key()));
    assert_waits_void(&us, &thief, Void::Refused, "granted again");
}

#[test]
fn no_policy_trusts_a_key_whose_statement_is_void() {
    let networks = |thief: &Actor| Way::in_networks(thief.public_key(), &[5]);
    type Case = (&'static str, Policy, fn(&Actor) -> Way);
    let cases: [Case; 4] = [
        ("approves everybody", Policy::default().auto_approve(true), |_| Way::open()),
        ("allowed by id", Policy::default().allow(Allowed::new(node(7), None)), |it| Way::registered(it.public_key())),
        ("own networks", Policy::default().own_networks([5]), networks),
        ("the transport", Policy::default().auto_approve(true), |_| Way::tunnel(node(7))),
    ];
    for (what, policy, way) in cases {
        for is_void in [true, false] {
            let (mut us, _, mut thief) = stolen();
            if is_void {
                ask(&mut us, at(10), &mut thief, Way::open()).unwrap();
                us.revoke(at(20), node(7)).unwrap();
                us.command(at(30), Command::ForgetRevocation { of: PeerOrKey::Peer(node(7)) }).unwrap();
            } else {
                us.command(at(30), Command::Remove { peer: node(7) }).unwrap();
            }
            us.rules.policy = policy.clone();
            let by = way(&thief);
            ask(&mut us, at(70_000), &mut thief, by).unwrap();
            assert_eq!(key_of(&us), (!is_void).then_some(thief.public_key()), "{what}");
            if is_void {
                assert_waits_void(&us, &thief, Void::Revoked, what);
                let bare = us.approve_as(at(70_010), node(7), None, way(&thief).lookup);
                assert!(matches!(bare, Err(Rejection::FingerprintRequired { .. })), "{what}: {bare:?}");
                us.approve(at(70_020), node(7), Some(thief.public_key().fingerprint())).unwrap();
                assert_eq!(key_of(&us), Some(thief.public_key()), "an operator may");
            }
        }
    }
}

#[test]
fn an_answer_under_a_void_key_is_no_first_use_and_none_that_our_caller_named() {
    for is_void in [true, false] {
        for named in [false, true] {
            let (mut us, _, mut thief) = stolen();
            if is_void {
                ask(&mut us, at(10), &mut thief, Way::open()).unwrap();
                us.revoke(at(20), node(7)).unwrap();
                us.command(at(30), Command::ForgetRevocation { of: PeerOrKey::Peer(node(7)) }).unwrap();
                us.tables.floor.clear();
            } else {
                us.command(at(30), Command::Remove { peer: node(7) }).unwrap();
            }
            us.rules.policy = Policy::default().trust_on_first_use(true);
            let asked = us.request(at(40), node(7), named.then_some(thief.public_key())).unwrap();
            let accept = thief.draft(at(50), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce));
            us.hear_from(at(50), &thief, &accept, Way::open()).unwrap();
            assert_eq!(key_of(&us).is_some(), !is_void, "named {named}");
            assert_eq!(waiting(&us).is_some(), is_void, "named {named}");
        }
    }
}

#[test]
fn after_a_revocation_the_owners_new_key_is_asked_about_and_no_second_successor() {
    for policy in [OnRotation::Ask, OnRotation::Take] {
        let (mut us, mut owner, mut thief) = stolen();
        let mut right = successor(&owner, 0xCC);
        ask(&mut us, at(10), &mut thief, Way::open()).unwrap();
        us.rules.policy.on_rotation = policy;
        let refused = ask(&mut us, at(20), &mut right, Way::open());
        assert_eq!(dropped(&refused), Some(Rejection::SecondSuccessor));
        us.revoke(at(30), node(7)).unwrap();
        // Nothing is trusted that could prove it, so it waits like a stranger; but it waits.
        assert_eq!(ask(&mut us, at(40), &mut right, Way::open()).unwrap().outcome, Outcome::Queued);
        refuse(&mut us, at(41), node(7));
        ask(&mut us, at(42), &mut owner, Way::open()).unwrap();
        let mark = us.tables.revoked[&node(7)].id;
        us.approve_lifting(at(50), node(7), mark).unwrap();
        ask(&mut us, at(60), &mut right, Way::open()).unwrap();
        assert_eq!(key_of(&us), Some(owner.public_key()));
        assert_eq!(waiting(&us).map(|it| (it.key, it.proven_by)), Some((right.public_key(), Some(owner.public_key()))));
        // R-218 stays for what is not void.
        let mut third = successor(&owner, 0xDD);
        assert_eq!(dropped(&ask(&mut us, at(70), &mut third, Way::open())), Some(Rejection::SecondSuccessor));
    }
}

#[test]
fn after_a_thiefs_key_was_revoked_its_statement_does_not_shut_the_owners_new_key_out() {
    let (mut us, mut owner, mut thief) = stolen();
    ask(&mut us, at(10), &mut thief, Way::open()).unwrap();
    us.revoke_key(at(20), thief.public_key()).unwrap();
    ask(&mut us, at(30), &mut owner, Way::open()).unwrap();
    us.approve(at(40), node(7), Some(owner.public_key().fingerprint())).unwrap();
    let again = ask(&mut us, at(50), &mut thief, Way::open());
    assert_eq!(dropped(&again), Some(Rejection::RotationRevokedKey));
    let mut right = successor(&owner, 0xCC);
    ask(&mut us, at(60), &mut right, Way::open()).unwrap();
    assert_eq!(waiting(&us).map(|it| (it.key, it.proven_by)), Some((right.public_key(), Some(owner.public_key()))));
    // Its mark may go: the statement stays void.
    us.command(at(70), Command::ForgetRevocation { of: PeerOrKey::Key(thief.public_key()) }).unwrap();
    refuse(&mut us, at(80), node(7));
    ask(&mut us, at(90), &mut thief, Way::open()).unwrap();
    assert_waits_void(&us, &thief, Void::Revoked, "unmarked");
}

#[test]
fn what_an_operator_refused_is_taken_by_no_copy_and_by_nothing_newer() {
    for answers in [false, true] {
        let (mut us, owner, mut new) = stolen();
        us.rules.policy.on_rotation = OnRotation::Ask;
        let asks = |us: &mut Actor, ms: i64| -> Option<crate::machine::view::Nonce> {
            let (nonce, peer, justification) = (us.nonce(), node(7), "".into());
            let (expected_key, force, automatic, lift) = (None, true, false, None);
            let ask =
                Command::Request { peer, justification, expected_key, registered: None, nonce, force, automatic, lift };
            us.command(at(ms), ask).unwrap();
            Some(nonce)
        };
        let (kind, nonce) = if answers { (Kind::Accept, asks(&mut us, 5)) } else { (Kind::Request, None) };
        let first: Draft = new.draft(at(10), us.id(), kind, nonce);
        us.hear_from(at(10), &new, &first, Way::open()).unwrap();
        assert_eq!(waiting(&us).unwrap().proven_by, Some(owner.public_key()));
        refuse(&mut us, at(20), node(7));
        us.rules.policy.on_rotation = OnRotation::Take;
        let copy = us.hear_from(at(30), &new, &first, Way::open());
        assert_eq!(dropped(&copy), Some(Rejection::AlreadyRefused), "{kind:?}");
        let newer = new.draft(at(40), us.id(), kind, nonce);
        us.hear_from(at(40), &new, &newer, Way::open()).unwrap();
        assert_eq!(key_of(&us), Some(owner.public_key()), "{kind:?}");
        assert_waits_void(&us, &new, Void::Refused, "refused");
    }
}

#[test]
fn a_refused_message_is_not_taken_because_a_statement_is_put_on_it() {
    for is_refused in [true, false] {
        let (mut us, owner, new) = stolen();
        let mut bare = Actor::new(7, 0xBB);
        let draft = bare.draft(at(10), us.id(), Kind::Request, None);
        us.hear_from(at(10), &bare, &draft, Way::open()).unwrap();
        if is_refused {
            refuse(&mut us, at(20), node(7));
        }
        let carrying = us.hear_from(at(30), &new, &draft, Way::open());
        assert_eq!(dropped(&carrying), is_refused.then_some(Rejection::AlreadyRefused));
        let expected = if is_refused { owner.public_key() } else { new.public_key() };
        assert_eq!(key_of(&us), Some(expected));
    }
}

type End = fn(&mut Actor, &mut Actor, &mut Actor);

/// How the record of a key goes that had replaced another.
const ENDS: [(&str, End); 4] = [
    ("its own farewell", |us, _, new| {
        let revoke = new.draft(at(30), us.id(), Kind::Revoke, None);
        us.hear_from(at(30), new, &revoke, Way::open()).unwrap();
    }),
    ("revoked and forgotten", |us, _, _| {
        us.revoke(at(30), node(7)).unwrap();
        us.command(at(31), Command::ForgetRevocation { of: PeerOrKey::Peer(node(7)) }).unwrap();
    }),
    ("removed", |us, _, _| drop(us.command(at(30), Command::Remove { peer: node(7) }).unwrap())),
    ("another key granted", |us, _, _| {
        let record = TrustRecord::new(node(7), Actor::new(7, 0xCC).public_key());
        us.command(at(30), Command::Grant { record, lift: None }).unwrap();
    }),
];

/// 9, which shares network 5 with 7, and under whom 7's key was replaced; nothing is left of that but the memory.
fn replaced(end: End, taken: bool) -> (Actor, Actor, Actor) {
    let (mut us, mut old, mut new) = stolen();
    if !taken {
        us.rules.policy.on_rotation = OnRotation::Ask;
    }
    ask(&mut us, at(10), &mut new, Way::open()).unwrap();
    if !taken {
        us.approve(at(20), node(7), Some(new.public_key().fingerprint())).unwrap();
    }
    assert_eq!(key_of(&us), Some(new.public_key()));
    us.rules.policy =
        Policy::default().own_networks([5]).allow(Allowed::new(node(7), None)).on_rotation(OnRotation::Take);
    end(&mut us, &mut old, &mut new);
    (us, old, new)
}

#[test]
fn a_replaced_key_is_trusted_by_no_rule_though_its_successor_is_gone() {
    for (what, end) in ENDS {
        for taken in [true, false] {
            let (mut us, mut old, new) = replaced(end, taken);
            let (before, floor) = (key_of(&us), us.tables.floor.get(&node(7)).copied());
            let way = || Way::in_networks(old.public_key(), &[5]);
            let mut speaker = Actor::new(7, 0xAA);
            let step = ask(&mut us, at(70_000), &mut speaker, way()).unwrap();
            assert_eq!((step.outcome, key_of(&us)), (Outcome::Queued, before), "{what}");
            let told = |event: &Event| matches!(event, Event::Pending { set_aside: Some(KeyFault::Replaced(by)), .. } if *by == new.public_key());
            assert!(step.events.iter().any(told), "{what}: shown as replaced");
            let entry = waiting(&us).unwrap().clone();
            assert!(!entry.authentic && shown(&us.tables, node(7), &entry).conflicts > 0, "{what}");
            let seen = |floor: Option<crate::machine::view::Floor>| floor.map(|floor| (floor.key, floor.seen));
            assert_eq!(seen(us.tables.floor.get(&node(7)).copied()), seen(floor), "{what}: it moves no floor");
            // Nor does it end anything, or give a record without a key one.
            let revoke = speaker.draft(at(70_001), us.id(), Kind::Revoke, None);
            assert_eq!(dropped(&us.hear_from(at(70_001), &speaker, &revoke, way())), Some(Rejection::NotAuthentic));
            assert_eq!(key_of(&us), before, "{what}");
            // An operator may, by the fingerprint; then it is a key like any other.
            let bare = us.approve_as(at(70_010), node(7), None, way().lookup);
            assert!(matches!(bare, Err(Rejection::FingerprintRequired { .. })), "{what}: {bare:?}");
            let shown = Some(old.public_key().fingerprint());
            us.approve_as(at(70_020), node(7), shown, way().lookup).unwrap();
            assert_eq!((key_of(&us), why_not(&us, &old)), (Some(old.public_key()), None), "{what}");
            us.command(at(70_030), Command::Remove { peer: node(7) }).unwrap();
            assert!(
                matches!(ask(&mut us, at(70_040), &mut old, Way::in_networks(speaker.public_key(), &[5])), Ok(step) if matches!(step.outcome, Outcome::Trusted(_))),
                "{what}"
            );
        }
    }
    // The twin: a key that nothing replaced is trusted by the same rule.
    let (mut us, mut old, _) = stolen();
    us.rules.policy = Policy::default().own_networks([5]);
    us.command(at(30), Command::Remove { peer: node(7) }).unwrap();
    let way = Way::in_networks(old.public_key(), &[5]);
    assert!(matches!(ask(&mut us, at(40), &mut old, way).unwrap().outcome, Outcome::Trusted(_)));
}

#[test]
fn a_record_without_a_key_gets_no_replaced_one() {
    let (mut us, mut old, _) = replaced(ENDS[2].1, true);
    us.trusts(node(7), None);
    let lookup = Lookup::Found { key: old.public_key(), networks: vec![5] };
    assert_eq!(us.step(at(50), Input::LookedUp { peer: node(7), lookup }), Err(Rejection::KeyReplaced));
    let adopt = Command::AdoptKey { peer: node(7), key: old.public_key() };
    assert_eq!(us.command(at(50), adopt), Err(Rejection::KeyReplaced));
    let way = Way::registered(old.public_key());
    assert_eq!(ask(&mut us, at(60), &mut old, way).unwrap().outcome, Outcome::Queued);
    // Nor one whose statement is void.
    let (mut us, _, new) = replaced(ENDS[1].1, true);
    us.trusts(node(7), None);
    let adopt = |key| Command::AdoptKey { peer: node(7), key };
    assert_eq!(us.command(at(50), adopt(new.public_key())), Err(Rejection::KeySetAside));
    assert!(us.command(at(50), adopt(Actor::new(7, 0xEE).public_key())).is_ok());
}

#[test]
fn our_own_request_that_names_a_replaced_key_trusts_it() {
    for named in [true, false] {
        let (mut us, mut old, _) = replaced(ENDS[2].1, true);
        us.request(at(40), node(7), named.then_some(old.public_key())).unwrap();
        let way = Way::registered(old.public_key());
        ask(&mut us, at(50), &mut old, way).unwrap();
        assert_eq!(key_of(&us), named.then_some(old.public_key()));
    }
}

#[test]
fn a_registry_that_names_any_replaced_key_contradicts_nothing_and_forces_to_ask() {
    let behind = || Way::in_networks(Actor::new(7, 0xAA).public_key(), &[5]);
    // Two keys behind: what the newest one names waits, and is neither dropped nor taken.
    let (mut us, _, new) = replaced(|_, _, _| (), true);
    let mut newest = successor(&new, 0xDD);
    let step = ask(&mut us, at(40), &mut newest, behind()).unwrap();
    assert_eq!((step.outcome, key_of(&us)), (Outcome::Queued, Some(new.public_key())));
    assert_eq!(waiting(&us).unwrap().proven_by, Some(new.public_key()));
    let shown = Some(newest.public_key().fingerprint());
    us.approve_as(at(50), node(7), shown, behind().lookup).unwrap();
    assert_eq!(key_of(&us), Some(newest.public_key()));
    // The record that came of it stands, whoever compares; so does one that was granted outright.
    let granted = TrustRecord::new(node(7), Actor::new(7, 0xCC).public_key());
    for seed in [0xDD, 0xCC] {
        let mut speaker = Actor::new(7, seed);
        let (peer, was, found) = (node(7), speaker.public_key(), Actor::new(7, 0xAA).public_key());
        assert_eq!(us.step(at(60), Input::Compared { peer, was, found }), Err(Rejection::NothingToDo));
        let heard = ask(&mut us, at(70_000), &mut speaker, behind()).unwrap();
        assert!(matches!(heard.outcome, Outcome::Confirmed(_)), "{seed}: {:?}", heard.outcome);
        us.command(at(70_010), Command::Grant { record: granted, lift: None }).ok();
    }
    // A stranger is contradicted as ever, and by no rule trusted is who is not.
    let mut stranger = Actor::new(7, 0xEE);
    assert_eq!(dropped(&ask(&mut us, at(70_020), &mut stranger, behind())), Some(Rejection::KeyMismatch));
    let (mut us, _, mut new) = replaced(ENDS[0].1, true);
    us.rules.policy = us.rules.policy.clone().auto_approve(true);
    assert_eq!(ask(&mut us, at(70_000), &mut new, behind()).unwrap().outcome, Outcome::Queued);
    let unasked = ask(&mut us, at(70_010), &mut new, Way::open()).unwrap();
    assert!(matches!(unasked.outcome, Outcome::Trusted(_)), "its twin, without such a registry");
}

#[test]
fn what_is_remembered_of_keys_is_bounded_and_beyond_that_nothing_is_proven_or_taken() {
    let (mut us, owner, _) = stolen();
    us.rules.policy.on_rotation = OnRotation::Ask;
    for nth in 0..20_u8 {
        let ms = 100 + i64::from(nth) * 10;
        let mut thief = successor(&owner, 0x40 + nth);
        ask(&mut us, at(ms), &mut thief, Way::open()).unwrap();
        assert_eq!(waiting(&us).unwrap().proven_by.is_some(), nth < 16, "{nth}");
        refuse(&mut us, at(ms + 1), node(7));
    }
    assert_eq!(us.tables.successors[&node(7)].len(), 16);
    us.rules.policy.on_rotation = OnRotation::Take;
    for seed in [0x40, 0x4F, 0x70] {
        ask(&mut us, at(1000 + i64::from(seed)), &mut successor(&owner, seed), Way::open()).unwrap();
        assert_eq!(key_of(&us), Some(owner.public_key()));
    }
}
