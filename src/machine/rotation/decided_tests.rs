//! Statements that are decided, in the corners of the rules: beside a registry that names
//! another key, of keys that were named more than once, and before a node that refuses new keys. Each with its twin.
#![forbid(unsafe_code)]

use super::super::known::set_aside;
use super::*;
use crate::machine::input::{Command, PeerOrKey};
use crate::machine::rejection::FingerprintNeed;
use crate::machine::view::{KeyFault, Void};
use crate::peer::TrustRecord;
use crate::testing::actor::{Actor, Way, at, dropped, loud, node, sent};

fn successor(old: &Actor, seed: u8) -> Actor {
    let mut new = Actor::new(old.id().get(), seed);
    new.rotation = Some(old.signs_over_to(&new, at(0)));
    new
}

/// 9, which trusts 7 under its key; 7; and what that key has named.
fn three(policy: OnRotation) -> (Actor, Actor, Actor) {
    let (mut us, old) = (Actor::new(9, 0x11), Actor::new(7, 0xAA));
    us.trusts(old.id(), Some(old.public_key()));
    us.rules.policy.on_rotation = policy;
    let new = successor(&old, 0xBB);
    (us, old, new)
}

fn ask(us: &mut Actor, ms: i64, from: &mut Actor, way: Way) -> Result<Step, Rejection> {
    let draft = from.draft(at(ms), us.id(), Kind::Request, None);
    us.hear_from(at(ms), from, &draft, way)
}

fn key_of(us: &Actor) -> Option<PublicKey> {
    us.tables.trusted.get(&node(7)).and_then(|record| record.public_key)
}

fn proven(us: &Actor) -> Option<(PublicKey, Option<PublicKey>)> {
    us.tables.pending.get(&node(7)).map(|entry| (entry.key, entry.proven_by))
}

fn grant(us: &mut Actor, ms: i64, key: PublicKey) {
    us.command(at(ms), Command::Grant { record: TrustRecord::new(node(7), key), lift: None }).unwrap();
}

fn tells_of_two(step: &Step) -> bool {
    step.events
        .iter()
        .any(|event| matches!(event, Event::RotationRefused { fault: RotationFault::SecondSuccessor, .. }))
}

#[test]
fn a_second_successor_is_one_though_the_registry_still_names_the_old_key() {
    for carries in [true, false] {
        let (mut us, old, mut first) = three(OnRotation::Ask);
        let lagging = || Way::registered(old.public_key());
        ask(&mut us, 10, &mut first, lagging()).unwrap();
        let by_old = (first.public_key(), Some(old.public_key()));
        assert_eq!(proven(&us), Some(by_old));
        let mut second = successor(&old, 0xCC);
        // Its twin says nothing of itself, and is a key that the registry contradicts and no more.
        second.rotation = second.rotation.filter(|_| carries);
        let step = ask(&mut us, 20, &mut second, lagging()).unwrap();
        assert_eq!(step.outcome, Outcome::Dropped(Rejection::KeyMismatch));
        assert_eq!((tells_of_two(&step), loud(&step).is_some()), (carries, true));
        assert_eq!(proven(&us), Some((first.public_key(), by_old.1.filter(|_| !carries))));
        // Told once.
        assert!(!tells_of_two(&ask(&mut us, 30, &mut second, lagging()).unwrap()));
    }
}

#[test]
fn a_replaced_key_is_a_second_successor_like_any_other() {
    // 7 had the key of 0xCC before that of 0xAA, which names 0xBB, and then 0xCC again.
    let (mut us, older) = (Actor::new(9, 0x11), Actor::new(7, 0xCC));
    us.trusts(node(7), Some(older.public_key()));
    us.rules.policy.on_rotation = OnRotation::Take;
    let mut old = successor(&older, 0xAA);
    ask(&mut us, 10, &mut old, Way::open()).unwrap();
    us.rules.policy.on_rotation = OnRotation::Ask;
    let mut new = successor(&old, 0xBB);
    ask(&mut us, 20, &mut new, Way::open()).unwrap();
    assert_eq!(proven(&us), Some((new.public_key(), Some(old.public_key()))));
    let step = ask(&mut us, 30, &mut successor(&old, 0xCC), Way::open()).unwrap();
    assert_eq!(step.outcome, Outcome::Dropped(Rejection::KeyReplaced));
    assert!(tells_of_two(&step));
    assert_eq!(proven(&us), Some((new.public_key(), None)));
}

#[test]
fn a_key_that_a_void_statement_names_is_kept_out_though_it_was_replaced_and_our_caller_names_it() {
    for is_named_in_vain in [true, false] {
        let (mut us, mut old, mut second) = three(OnRotation::Take);
        ask(&mut us, 10, &mut second, Way::open()).unwrap();
        ask(&mut us, 20, &mut successor(&second, 0xCC), Way::open()).unwrap();
        us.revoke(at(30), node(7)).unwrap();
        us.command(at(31), Command::ForgetRevocation { of: PeerOrKey::Peer(node(7)) }).unwrap();
        // Both were replaced; what named the second one is void besides.
        let key = if is_named_in_vain { &mut second } else { &mut old };
        assert!(matches!(set_aside(&us.tables, node(7), &key.public_key()), Some(KeyFault::Replaced(_))));
        let asked = us.request(at(40), node(7), Some(key.public_key())).unwrap();
        let accept = key.draft(at(50), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce));
        us.hear_from(at(50), key, &accept, Way::registered(key.public_key())).unwrap();
        assert_eq!(key_of(&us), (!is_named_in_vain).then_some(key.public_key()));
        assert_eq!(us.tables.pending.contains_key(&node(7)), is_named_in_vain, "it waits for the operator");
    }
}

#[test]
fn a_key_that_was_refused_is_not_taken_because_another_key_names_it_as_well() {
    for was_refused in [true, false] {
        let (mut us, _, mut new) = three(OnRotation::Ask);
        ask(&mut us, 10, &mut new, Way::open()).unwrap();
        if was_refused {
            us.refuse(at(20), node(7), "").unwrap();
        }
        let other = Actor::new(7, 0xCC);
        grant(&mut us, 30, other.public_key());
        us.rules.policy.on_rotation = OnRotation::Take;
        new.rotation = Some(other.signs_over_to(&new, at(35)));
        ask(&mut us, 40, &mut new, Way::open()).unwrap();
        let expected = if was_refused { other.public_key() } else { new.public_key() };
        assert_eq!(key_of(&us), Some(expected));
        let why = set_aside(&us.tables, node(7), &new.public_key());
        assert_eq!(why, was_refused.then_some(KeyFault::Void(Void::Refused)));
    }
}

#[test]
fn of_several_keys_that_came_after_one_each_has_replaced_it() {
    for granted in [true, false] {
        let (mut us, old, mut refused) = three(OnRotation::Ask);
        ask(&mut us, 10, &mut refused, Way::open()).unwrap();
        us.refuse(at(20), node(7), "").unwrap();
        let mut next = successor(&old, 0xCC);
        ask(&mut us, 30, &mut next, Way::open()).unwrap();
        us.approve(at(40), node(7), Some(next.public_key().fingerprint())).unwrap();
        // An operator who thought better of it; or one who trusts a key that was never named.
        let now = if granted { refused.public_key() } else { Actor::new(7, 0xDD).public_key() };
        grant(&mut us, 50, now);
        let report = us.command(at(60), Command::ReportKeyChange { peer: node(7), key: old.public_key() });
        assert_eq!(report.err(), granted.then_some(Rejection::KeyReplaced));
        assert_eq!(key_of(&us), granted.then_some(now));
        if granted {
            let spoke = ask(&mut us, 70, &mut Actor::new(7, 0xAA), Way::open());
            assert_eq!(dropped(&spoke), Some(Rejection::KeyReplaced));
        }
    }
}

#[test]
fn a_node_that_refuses_new_keys_lets_wait_what_proves_nothing() {
    for (what, room, was_refused) in [("void", 100, true), ("not remembered", 0, false), ("proven", 100, false)] {
        let (mut us, old, mut new) = three(OnRotation::Ask);
        us.rules.limits.successors_max = room;
        if was_refused {
            ask(&mut us, 10, &mut new, Way::open()).unwrap();
            us.refuse(at(20), node(7), "").unwrap();
        }
        us.rules.policy.on_rotation = OnRotation::Refuse;
        let answer = ask(&mut us, 30, &mut new, Way::open());
        let is_proven = what == "proven";
        assert_eq!(dropped(&answer), is_proven.then_some(Rejection::RotationRefused), "{what}");
        assert_eq!(proven(&us), (!is_proven).then_some((new.public_key(), None)), "{what}");
        assert_eq!(key_of(&us), Some(old.public_key()), "{what}");
    }
}

#[test]
fn a_registry_that_names_a_replaced_key_vetoes_a_stranger_whatever_the_operator_names() {
    let (mut us, old, mut new) = three(OnRotation::Take);
    ask(&mut us, 10, &mut new, Way::open()).unwrap();
    us.command(at(20), Command::Remove { peer: node(7) }).unwrap();
    let lagging = || Way::registered(old.public_key()).lookup;
    let mut stranger = Actor::new(7, 0xEE);
    ask(&mut us, 30, &mut stranger, Way::open()).unwrap();
    let current = stranger.public_key().fingerprint();
    let vetoed = Rejection::RegistryContradicts { current, registered: old.public_key().fingerprint() };
    assert_eq!(us.approve_as(at(40), node(7), Some(current), lagging()), Err(vetoed));
    assert_eq!(key_of(&us), None);
    // Its twin: the key to which the one that the registry names has led.
    us.refuse(at(50), node(7), "").unwrap();
    new.rotation = None;
    ask(&mut us, 60, &mut new, Way::open()).unwrap();
    let current = new.public_key().fingerprint();
    let unnamed = us.approve_as(at(70), node(7), None, lagging());
    assert_eq!(
        unnamed,
        Err(Rejection::FingerprintRequired { why: FingerprintNeed::RegistryBehind, current, others: [None; 4] })
    );
    us.approve_as(at(80), node(7), Some(current), lagging()).unwrap();
    assert_eq!(key_of(&us), Some(new.public_key()));
}

#[test]
fn a_key_that_only_waited_when_it_was_revoked_is_not_taken_afterwards() {
    for (what, of_whom) in [("its key", Some(0xBB)), ("another key", Some(0xCC)), ("no key", None)] {
        let (mut us, old, mut new) = three(OnRotation::Ask);
        ask(&mut us, 10, &mut new, Way::open()).unwrap();
        // Under another id the same key was named, too, and nothing waits there any more.
        let (other, mut there) = (Actor::new(8, 0xDD), Actor::new(8, 0xBB));
        us.trusts(other.id(), Some(other.public_key()));
        there.rotation = Some(other.signs_over_to(&there, at(0)));
        ask(&mut us, 11, &mut there, Way::from_host(2)).unwrap();
        us.tables.pending.remove(&other.id());
        if let Some(seed) = of_whom {
            let key = Actor::new(7, seed).public_key();
            us.revoke_key(at(20), key).unwrap();
            us.command(at(30), Command::ForgetRevocation { of: PeerOrKey::Key(key) }).unwrap();
        }
        us.rules.policy.on_rotation = OnRotation::Take;
        ask(&mut us, 40, &mut new, Way::open()).unwrap();
        ask(&mut us, 41, &mut there, Way::from_host(2)).unwrap();
        let was_revoked = what == "its key";
        let expected = if was_revoked { [&old, &other] } else { [&new, &there] }.map(|it| Some(it.public_key()));
        let key_of = |id| us.tables.trusted.get(&id).and_then(|record| record.public_key);
        assert_eq!([key_of(node(7)), key_of(node(8))], expected, "{what}");
        let why = set_aside(&us.tables, node(7), &new.public_key());
        assert_eq!(why, was_revoked.then_some(KeyFault::Void(Void::Revoked)), "{what}");
    }
}

#[test]
fn a_statement_that_names_a_revoked_key_is_refused_though_the_record_is_gone() {
    for is_marked in [true, false] {
        let (mut us, _, mut new) = three(OnRotation::Ask);
        ask(&mut us, 10, &mut new, Way::open()).unwrap();
        us.revoke(at(20), node(7)).unwrap();
        if is_marked {
            us.revoke_key(at(30), new.public_key()).unwrap();
        }
        // Void it is either way; void alone it waits.
        let answer = ask(&mut us, 40, &mut new, Way::open());
        assert_eq!(dropped(&answer), is_marked.then_some(Rejection::RotationRevokedKey));
        assert_eq!(us.tables.pending.contains_key(&node(7)), !is_marked);
    }
}
