//! Statements that are decided, in the corners of the rule R-218: beside a registry that names another key, and of keys that
//! were replaced. Each with its twin.
#![forbid(unsafe_code)]

use super::*;
use crate::testing::actor::{Actor, Way, at, loud, node};

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

fn proven(us: &Actor) -> Option<(PublicKey, Option<PublicKey>)> {
    us.tables.pending.get(&node(7)).map(|entry| (entry.key, entry.proven_by))
}

fn tells_of_two(step: &Step) -> bool {
    step.events.iter().any(|event| matches!(event, Event::RotationRefused { fault: RotationFault::SecondSuccessor, .. }))
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
