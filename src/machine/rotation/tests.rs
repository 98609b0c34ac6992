//! The rules, each with its twin.
//!
//! More than 450 lines because each rule of rotation is tried with the same three actors.
#![forbid(unsafe_code)]

use super::*;
use crate::config::Allowed;
use crate::machine::event::TrustState;
use crate::machine::input::{Command, Input, LookedAt};
use crate::machine::rejection::FingerprintNeed;
use crate::machine::view::{Floor, Pending, PendingKind, Succession};
use crate::peer::TrustRecord;
use crate::testing::actor::{Actor, Way, at, dropped, loud, mark, node, sent};
use crate::time::Now;

/// 9, which trusts 7 under its old key; 7 under that key; and 7 under its new key, whose messages carry the statement.
fn three() -> (Actor, Actor, Actor) {
    let (mut us, old) = (Actor::new(9, 0x11), Actor::new(7, 0xAA));
    us.trusts(old.id(), Some(old.public_key()));
    let new = successor(&old, 0xBB);
    (us, old, new)
}

fn successor(old: &Actor, seed: u8) -> Actor {
    let mut new = Actor::new(old.id().get(), seed);
    new.rotation = Some(old.signs_over_to(&new, at(0)));
    new
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

fn taking() -> (Actor, Actor, Actor) {
    let (mut us, old, new) = three();
    us.rules.policy.on_rotation = OnRotation::Take;
    (us, old, new)
}

fn changed(state: TrustState, reason: ChangeReason) -> Event {
    Event::TrustChanged { peer: node(7), state, reason }
}

#[test]
fn a_new_key_that_the_old_one_named_waits_and_the_old_one_counts_meanwhile() {
    let (mut us, mut old, mut new) = three();
    let record = us.tables.trusted[&node(7)];
    let step = ask(&mut us, at(10), &mut new, Way::open()).unwrap();
    assert_eq!(step.outcome, Outcome::Queued);
    let entry = waiting(&us).unwrap();
    assert_eq!((entry.key, entry.proven_by), (new.public_key(), Some(old.public_key())));
    assert!(!entry.authentic && entry.kind == PendingKind::Request);
    let proven_by = Some(old.public_key().fingerprint());
    let told = |event: &Event| matches!(event, Event::Pending { proven_by: it, .. } if *it == proven_by);
    assert!(step.events.iter().any(told));
    assert_eq!(us.tables.trusted[&node(7)], record);
    assert!(us.tables.floor.get(&node(7)).is_none_or(|floor| floor.key.is_none()), "it is not authentic");
    let again = ask(&mut us, at(20), &mut old, Way::open()).unwrap();
    assert_eq!(again.outcome, Outcome::Confirmed(record));

    // Approved, the new key takes the place of the old one, which counts no more, whoever vouches for it.
    us.tables.trusted.insert(node(7), record.mutual(true).network(5));
    let shown = new.public_key().fingerprint();
    let step = us.approve(at(30), node(7), Some(shown)).unwrap();
    let trusted = TrustRecord::new(node(7), new.public_key()).approved_at(at(30).wall).mutual(true).network(5);
    assert_eq!(us.tables.trusted[&node(7)], trusted);
    let events: Vec<_> = step.events.iter().filter(|event| event.topic() == "trust.changed").cloned().collect();
    let lost = changed(TrustState::Revoked, ChangeReason::KeyChanged);
    assert_eq!(events, [lost, changed(TrustState::Granted, ChangeReason::Approved)]);
    assert_eq!(sent(&step).unwrap().kind, Kind::Accept);
    let registered = Way::registered(old.public_key());
    for (ms, way) in [(40, Way::open()), (41, Way::tunnel(node(7))), (42, registered)] {
        let heard = ask(&mut us, at(ms), &mut old, way);
        assert_eq!(dropped(&heard), Some(Rejection::KeyReplaced));
        assert!(loud(&heard.unwrap()).is_some(), "and the operator hears of it");
    }
    assert_eq!((key_of(&us), waiting(&us)), (Some(new.public_key()), None));
    assert!(matches!(ask(&mut us, at(50), &mut new, Way::open()).unwrap().outcome, Outcome::Confirmed(_)));
}

#[test]
fn approving_a_key_that_nothing_proves_keeps_nothing_of_the_record() {
    let (mut us, _, _) = three();
    let mut stranger = Actor::new(7, 0xCC);
    us.tables.trusted.insert(node(7), us.tables.trusted[&node(7)].mutual(true).network(5));
    ask(&mut us, at(10), &mut stranger, Way::open()).unwrap();
    let step = us.approve(at(30), node(7), Some(stranger.public_key().fingerprint())).unwrap();
    let trusted = TrustRecord::new(node(7), stranger.public_key()).approved_at(at(30).wall);
    assert_eq!(us.tables.trusted[&node(7)], trusted);
    assert!(step.events.contains(&changed(TrustState::Revoked, ChangeReason::KeyChanged)));
}

#[test]
fn a_node_that_takes_new_keys_answers_at_once_and_one_that_refuses_them_drops_them() {
    let (mut us, old, mut new) = taking();
    us.tables.trusted.insert(node(7), us.tables.trusted[&node(7)].mutual(true).network(5));
    let step = ask(&mut us, at(10), &mut new, Way::open()).unwrap();
    let trusted = TrustRecord::new(node(7), new.public_key()).approved_at(at(10).wall).mutual(true).network(5);
    assert_eq!((step.outcome, us.tables.trusted[&node(7)]), (Outcome::Trusted(trusted), trusted));
    let lost = changed(TrustState::Revoked, ChangeReason::KeyChanged);
    assert!(matches!(step.events[1], Event::KeyMismatch { ended: true, .. }), "a changed key is loud");
    assert_eq!(step.events[2..], [lost, changed(TrustState::Granted, ChangeReason::KeyRotated)]);
    assert_eq!(sent(&step).unwrap().kind, Kind::Accept);
    let named = Succession { replaced: true, ..Succession::new(old.public_key(), new.public_key()) };
    assert_eq!(us.tables.successors[&node(7)][..], [named]);
    assert_eq!(us.tables.floor[&node(7)].key, Some(new.public_key()), "nothing older is believed");

    let (mut us, old, mut new) = three();
    us.rules.policy.on_rotation = OnRotation::Refuse;
    let before = us.tables.clone();
    assert_eq!(ask(&mut us, at(10), &mut new, Way::open()), Err(Rejection::RotationRefused));
    assert_eq!((us.tables == before, key_of(&us)), (true, Some(old.public_key())));
    // Without the statement it waits like anybody.
    new.rotation = None;
    assert_eq!(ask(&mut us, at(20), &mut new, Way::open()).unwrap().outcome, Outcome::Queued);
}

#[test]
fn what_speaks_against_a_new_key_has_the_operator_decide_where_the_node_would_take_it() {
    type Prepare = fn(&mut Actor, &Actor);
    type Ways = fn(&Actor) -> Way;
    let cases: [(&str, Prepare, Ways); 5] = [
        ("the registry names the old key", |_, _| {}, |old| Way::registered(old.public_key())),
        (
            "and the transport the sender",
            |_, _| {},
            |old| Way { lookup: Way::registered(old.public_key()).lookup, ..Way::tunnel(old.id()) },
        ),
        ("the registry could not be asked", |_, _| {}, |_| Way { lookup: Lookup::Failed, ..Way::open() }),
        (
            "our caller named the old key",
            |us, old| {
                let (peer, justification, nonce) = (old.id(), "".into(), us.nonce());
                let (expected_key, force, automatic) = (Some(old.public_key()), true, false);
                let ask = Command::Request {
                    peer,
                    justification,
                    expected_key,
                    registered: None,
                    nonce,
                    force,
                    automatic,
                    lift: None,
                };
                us.command(at(0), ask).unwrap();
            },
            |_| Way::open(),
        ),
        ("there is no room to remember it", |us, _| us.rules.limits.successors_max = 0, |_| Way::open()),
    ];
    for (what, prepare, way) in cases {
        let (mut us, old, mut new) = taking();
        prepare(&mut us, &old);
        let step = ask(&mut us, at(10), &mut new, way(&old)).unwrap();
        assert_eq!((step.outcome, key_of(&us)), (Outcome::Queued, Some(old.public_key())), "{what}");
        // What cannot be remembered proves nothing.
        let proven_by = (us.rules.limits.successors_max > 0).then_some(old.public_key());
        assert_eq!(waiting(&us).unwrap().proven_by, proven_by, "{what}");
    }
    for lookup in [Lookup::NotAsked, Lookup::Unknown] {
        let (mut us, _, mut new) = taking();
        ask(&mut us, at(10), &mut new, Way { lookup, ..Way::open() }).unwrap();
        assert_eq!(key_of(&us), Some(new.public_key()));
    }
}

#[test]
fn a_registry_that_names_the_replaced_key_contradicts_nothing_and_one_that_names_a_third_does() {
    let (mut us, old, mut new) = three();
    let lagging = || Way::registered(old.public_key());
    assert_eq!(ask(&mut us, at(10), &mut new, lagging()).unwrap().outcome, Outcome::Queued);
    // Without the statement the registry contradicts the key, as ever; and so does another key with it.
    let third = Way::registered(Actor::new(1, 0x22).public_key());
    assert_eq!(dropped(&ask(&mut us, at(20), &mut new, third)), Some(Rejection::KeyMismatch));
    let mut bare = Actor::new(7, 0xBB);
    assert_eq!(dropped(&ask(&mut us, at(30), &mut bare, lagging())), Some(Rejection::KeyMismatch));

    // So does the look that approving takes: the replaced key is no veto, and the fingerprint has to be named.
    let current = new.public_key().fingerprint();
    let approve = |us: &mut Actor, fingerprint, key| {
        us.approve_as(at(40), node(7), fingerprint, Lookup::Found { key, networks: Vec::new() })
    };
    let unnamed = approve(&mut us, None, old.public_key());
    assert_eq!(
        unnamed,
        Err(Rejection::FingerprintRequired { why: FingerprintNeed::Proven, current, others: [None; 4] })
    );
    let other = Actor::new(1, 0x22).public_key();
    let vetoed = Rejection::RegistryContradicts { current, registered: other.fingerprint() };
    assert_eq!(approve(&mut us, Some(current), other), Err(vetoed));
    approve(&mut us, Some(current), old.public_key()).unwrap();
    // It still has not heard of the new key: that neither drops messages nor ends trust.
    for message in [&mut new, &mut bare] {
        let step = ask(&mut us, at(50), message, lagging());
        assert!(matches!(step.map(|it| it.outcome), Ok(Outcome::Confirmed(_)) | Err(Rejection::Stale)));
    }
    let compared = |us: &mut Actor, found| {
        let (peer, was) = (node(7), key_of(us).unwrap());
        us.step(at(55), Input::Compared { peer, was, found })
    };
    assert_eq!(compared(&mut us, old.public_key()), Err(Rejection::NothingToDo));
    let looked_up = |us: &mut Actor, key| {
        let lookup = Lookup::Found { key, networks: Vec::new() };
        us.step(at(60), Input::LookedUp { peer: node(7), lookup })
    };
    assert_eq!(looked_up(&mut us, old.public_key()), Err(Rejection::NothingToDo));
    assert_eq!(key_of(&us), Some(new.public_key()));
    looked_up(&mut us, Actor::new(1, 0x22).public_key()).unwrap();
    assert_eq!(key_of(&us), None, "a third key ends trust as ever");
}

#[test]
fn a_registry_that_names_the_new_key_needs_no_statement() {
    for policy in [OnRotation::Ask, OnRotation::Take, OnRotation::Refuse] {
        let (mut us, _, mut new) = three();
        us.rules.policy = us.rules.policy.clone().allow(Allowed::new(node(7), None)).on_rotation(policy);
        let way = Way::registered(new.public_key());
        let step = ask(&mut us, at(10), &mut new, way).unwrap();
        assert!(matches!(step.outcome, Outcome::Trusted(_)) && key_of(&us) == Some(new.public_key()));
        assert!(step.events.contains(&changed(TrustState::Revoked, ChangeReason::KeyChanged)));
    }
}

#[test]
fn a_second_successor_is_refused_told_once_and_makes_the_first_one_unproven() {
    for policy in [OnRotation::Ask, OnRotation::Take] {
        let (mut us, old, mut first) = three();
        us.rules.policy.on_rotation = policy;
        let mut second = successor(&old, 0xCC);
        ask(&mut us, at(10), &mut first, Way::open()).unwrap();
        let taken = key_of(&us);
        let step = ask(&mut us, at(20), &mut second, Way::open()).unwrap();
        assert_eq!(step.outcome, Outcome::Dropped(Rejection::SecondSuccessor));
        let (was, new) = (old.public_key().fingerprint(), second.public_key().fingerprint());
        let fault = RotationFault::SecondSuccessor;
        assert_eq!(step.events, [Event::RotationRefused { peer: node(7), old: was, new, fault }]);
        assert_eq!(key_of(&us), taken, "which of the two is right is not for us to say");
        if policy == OnRotation::Ask {
            let entry = waiting(&us).unwrap();
            assert_eq!((entry.key, entry.proven_by, entry.conflicts), (first.public_key(), None, 2));
            let shown = first.public_key().fingerprint();
            let unnamed = us.approve(at(25), node(7), None);
            assert_eq!(
                unnamed,
                Err(Rejection::FingerprintRequired {
                    why: FingerprintNeed::OtherKeyKnown,
                    current: shown,
                    others: [None; 4]
                })
            );
        }
        // Nothing more is told or changed, by the first key's statement neither.
        for (ms, key) in [(30, &mut second), (31, &mut successor(&old, 0xDD))] {
            assert_eq!(ask(&mut us, at(ms), key, Way::open()), Err(Rejection::SecondSuccessor));
        }
        let again = ask(&mut us, at(40), &mut first, Way::open());
        match policy {
            OnRotation::Take => assert!(matches!(again.unwrap().outcome, Outcome::Confirmed(_))),
            _ => assert_eq!(again, Err(Rejection::SecondSuccessor)),
        }
    }
}

#[test]
fn a_second_successor_for_whom_the_registry_vouches_is_judged_as_ever_and_told_of() {
    let (mut us, old, mut thief) = taking();
    ask(&mut us, at(10), &mut thief, Way::open()).unwrap();
    assert_eq!(key_of(&us), Some(thief.public_key()), "who takes new keys takes a thief's");
    us.rules.policy = us.rules.policy.clone().allow(Allowed::new(node(7), None));
    let mut right = successor(&old, 0xCC);
    let way = Way::registered(right.public_key());
    let step = ask(&mut us, at(20), &mut right, way).unwrap();
    assert_eq!(key_of(&us), Some(right.public_key()));
    assert!(step.events.iter().any(|event| matches!(event, Event::RotationRefused { .. })));
}

#[test]
fn where_a_thiefs_key_was_taken_the_owner_asks_again_once_the_peer_is_revoked() {
    let (mut us, mut owner, mut thief) = taking();
    ask(&mut us, at(10), &mut thief, Way::open()).unwrap();
    assert_eq!(dropped(&ask(&mut us, at(20), &mut owner, Way::open())), Some(Rejection::KeyReplaced));
    us.revoke(at(30), node(7)).unwrap();
    assert_eq!(ask(&mut us, at(40), &mut owner, Way::open()).unwrap().outcome, Outcome::Queued);
    let mark = us.tables.revoked[&node(7)].id;
    us.approve_lifting(at(50), node(7), mark).unwrap();
    assert_eq!(key_of(&us), Some(owner.public_key()));
}

#[test]
fn a_revoked_key_on_either_side_is_refused_and_told_of() {
    for side in 0..3 {
        let (mut us, old, mut new) = taking();
        match side {
            0 => drop(us.tables.revoked_keys.insert(*old.public_key().as_bytes(), mark(0))),
            1 => drop(us.tables.revoked_keys.insert(*new.public_key().as_bytes(), mark(0))),
            _ => {
                // Revoking a key ended trust under it.
                us.tables.revoked_keys.insert(*old.public_key().as_bytes(), mark(0));
                us.tables.trusted.clear();
                let floor = Floor { key: Some(old.public_key()), ..Floor::EMPTY };
                us.tables.floor.insert(node(7), floor);
            }
        }
        let before = key_of(&us);
        let step = ask(&mut us, at(10), &mut new, Way::open()).unwrap();
        assert_eq!(step.outcome, Outcome::Dropped(Rejection::RotationRevokedKey));
        let fault = RotationFault::RevokedKey;
        let told = |event: &Event| matches!(event, Event::RotationRefused { fault: it, .. } if *it == fault);
        assert!(step.events.iter().any(told));
        assert_eq!((key_of(&us), waiting(&us)), (before, None));
        assert_eq!(ask(&mut us, at(20), &mut new, Way::open()), Err(Rejection::RotationRevokedKey), "told once");
    }
}

#[test]
fn a_statement_about_another_key_than_the_records_says_nothing() {
    // Of a stranger; of a peer under a key that came after; of a record without a key; of another node's record.
    let (old, mut new) = (Actor::new(7, 0xAA), successor(&Actor::new(7, 0xAA), 0xBB));
    let later = Actor::new(1, 0x22).public_key();
    for record in [None, Some(None), Some(Some(later))] {
        for policy in [OnRotation::Ask, OnRotation::Take, OnRotation::Refuse] {
            let mut us = Actor::new(9, 0x11);
            us.rules.policy.on_rotation = policy;
            us.trusts(node(8), Some(old.public_key()));
            if let Some(key) = record {
                us.trusts(node(7), key);
            }
            let step = ask(&mut us, at(10), &mut new, Way::open()).unwrap();
            assert_eq!((step.outcome, waiting(&us).unwrap().proven_by), (Outcome::Queued, None));
            assert_eq!(key_of(&us), record.flatten());
            assert!(us.tables.successors.is_empty());
        }
    }
}

#[test]
fn a_node_two_keys_behind_asks_by_fingerprint() {
    let (mut us, old, first) = taking();
    let mut second = successor(&first, 0xCC);
    ask(&mut us, at(10), &mut second, Way::open()).unwrap();
    assert_eq!((key_of(&us), waiting(&us).unwrap().proven_by), (Some(old.public_key()), None));
    // Its twin: one that has followed each.
    let (mut us, _, mut first) = taking();
    ask(&mut us, at(10), &mut first, Way::open()).unwrap();
    ask(&mut us, at(20), &mut second, Way::open()).unwrap();
    assert_eq!(key_of(&us), Some(second.public_key()));
    // A registry that lags by two keys, and one that lags by one.
    for (ms, key) in [(30, &mut Actor::new(7, 0xAA)), (50, &mut first)] {
        let way = Way::registered(key.public_key());
        assert_eq!(dropped(&ask(&mut us, at(ms), key, way.clone())), Some(Rejection::KeyReplaced));
        let again = ask(&mut us, at(ms + 10), &mut second, way);
        assert!(matches!(again.unwrap().outcome, Outcome::Confirmed(_)));
        // By what is remembered, and not by what the message carries.
        second.rotation = None;
    }
}

#[test]
fn an_answer_under_a_new_key_is_proven_like_a_request() {
    for (policy, taken) in [(OnRotation::Ask, false), (OnRotation::Take, true)] {
        let (mut us, old, mut new) = three();
        us.rules.policy.on_rotation = policy;
        let (peer, nonce) = (node(7), us.nonce());
        let asked = Command::Request {
            peer,
            justification: "".into(),
            expected_key: None,
            registered: None,
            nonce,
            force: true,
            automatic: false,
            lift: None,
        };
        us.command(at(0), asked).unwrap();
        let wrong = new.draft(at(5), us.id(), Kind::Accept, None);
        assert_eq!(
            us.hear_from(at(5), &new, &wrong, Way::open()).unwrap().outcome,
            Outcome::Dropped(Rejection::WrongAnswer)
        );
        let accept = new.draft(at(10), us.id(), Kind::Accept, Some(nonce));
        let step = us.hear_from(at(10), &new, &accept, Way::open()).unwrap();
        let key = if taken { new.public_key() } else { old.public_key() };
        assert_eq!((key_of(&us), waiting(&us).is_some()), (Some(key), !taken));
        if let Some(entry) = waiting(&us) {
            assert_eq!((entry.kind, entry.proven_by), (PendingKind::AnsweredUnvouched, Some(old.public_key())));
        }
        assert_eq!(sent(&step), None, "an answer is not answered");
    }
}

#[test]
fn a_revocation_under_a_new_key_that_is_not_trusted_yet_ends_nothing() {
    for policy in [OnRotation::Ask, OnRotation::Take] {
        let (mut us, old, mut new) = three();
        us.rules.policy.on_rotation = policy;
        let revoke = new.draft(at(10), us.id(), Kind::Revoke, None);
        let heard = us.hear_from(at(10), &new, &revoke, Way::open());
        assert_eq!(dropped(&heard), Some(Rejection::NotAuthentic));
        assert_eq!((key_of(&us), us.tables.successors.len()), (Some(old.public_key()), 0));
    }
}

#[test]
fn a_proven_key_takes_the_place_of_a_strangers_and_gives_way_to_none() {
    let (mut us, _, mut new) = three();
    let mut squatter = Actor::new(7, 0xEE);
    ask(&mut us, at(10), &mut squatter, Way::from_host(2)).unwrap();
    let step = ask(&mut us, at(20), &mut new, Way::from_host(3)).unwrap();
    assert!(matches!(step.events.first(), Some(Event::Received { .. })));
    let entry = waiting(&us).unwrap();
    assert_eq!((entry.key, entry.conflicts), (new.public_key(), 2));
    ask(&mut us, at(30), &mut squatter, Way::from_host(2)).unwrap();
    let entry = waiting(&us).unwrap();
    assert_eq!((entry.key, entry.conflicts, entry.proven_by.is_some()), (new.public_key(), 3, true));

    // In a full queue it makes room, and stays.
    let (mut us, _, mut new) = three();
    us.rules.limits.pending_max = 1;
    ask(&mut us, at(10), &mut Actor::new(101, 0x31), Way::from_host(1)).unwrap();
    ask(&mut us, at(20), &mut new, Way::from_host(1)).unwrap();
    assert!(waiting(&us).is_some());
    let mut known = Actor::new(102, 0x32);
    let way = Way::registered(known.public_key());
    assert_eq!(dropped(&ask(&mut us, at(30), &mut known, way)), Some(Rejection::PendingFull));
}

#[test]
fn a_statement_that_comes_later_proves_the_key_that_waits() {
    let (mut us, old, mut new) = three();
    ask(&mut us, at(10), &mut Actor::new(7, 0xBB), Way::open()).unwrap();
    assert_eq!(waiting(&us).unwrap().proven_by, None);
    let step = ask(&mut us, at(20), &mut new, Way::open()).unwrap();
    assert_eq!(waiting(&us).unwrap().proven_by, Some(old.public_key()));
    assert!(step.events.iter().any(|event| matches!(event, Event::Pending { proven_by: Some(_), .. })));
}

#[test]
fn what_a_key_has_proven_is_forgotten_with_the_trust_in_it() {
    let (mut us, mut old, mut new) = three();
    ask(&mut us, at(10), &mut new, Way::open()).unwrap();
    let key = Actor::new(1, 0x22).public_key();
    us.command(at(20), Command::ReportKeyChange { peer: node(7), key }).unwrap();
    assert_eq!((key_of(&us), waiting(&us).unwrap().proven_by), (None, None));
    // The new key was never trusted, so the old one is nobody's worse than before: a thief's word shuts no owner out.
    us.command(
        at(25),
        Command::Reject { peer: node(7), reason: "".into(), nonce: old.nonce(), named: LookedAt::default() },
    )
    .unwrap();
    assert_eq!(ask(&mut us, at(30), &mut old, Way::open()).unwrap().outcome, Outcome::Queued);
    assert_eq!(waiting(&us).unwrap().key, old.public_key());
}

#[test]
fn a_statement_that_says_nothing_to_us_is_not_checked() {
    let (us, old, new) = three();
    let decode = |actor: &Actor, change: &dyn Fn(&mut crate::wire::message::Message)| {
        let mut again = Actor::new(actor.id().get(), 0xBB);
        again.rotation = actor.rotation;
        let draft = again.draft(at(0), us.id(), Kind::Request, None);
        let mut message = again.sign(&draft);
        change(&mut message);
        crate::wire::decode::decode(message).unwrap()
    };
    assert!(is_of_use(&us.tables, &decode(&new, &|_| {})));
    let stranger = successor(&Actor::new(7, 0xDD), 0xBB);
    assert!(!is_of_use(&us.tables, &decode(&stranger, &|_| {})));
    assert!(!is_of_use(&us.tables, &decode(&new, &|message| message.node_id = 8)), "of its own record only");
    let mut knowing = Actor::new(9, 0x11);
    knowing.tables.successors.insert(node(7), [Succession::new(old.public_key(), new.public_key())].into());
    assert!(is_of_use(&knowing.tables, &decode(&new, &|_| {})));
    let mut marked = Actor::new(9, 0x11);
    marked.tables.revoked_keys.insert(*old.public_key().as_bytes(), mark(0));
    assert!(is_of_use(&marked.tables, &decode(&new, &|_| {})));
}

#[test]
fn no_successor_is_remembered_of_a_key_that_no_record_has_any_more() {
    for gone in [true, false] {
        let (mut us, _, mut new) = three();
        let draft = new.draft(at(10), us.id(), Kind::Request, None);
        // The statement was checked while the record stood; then, before the step, trust ended.
        let decoded = crate::wire::decode::decode(new.sign(&draft)).unwrap();
        assert!(is_of_use(&us.tables, &decoded));
        let message = crate::wire::verify::verify(decoded, us.id()).unwrap();
        if gone {
            us.command(at(10), Command::Remove { peer: node(7) }).unwrap();
        }
        let Way { path, lookup } = Way::open();
        let seen = crate::machine::replay::Seen::Never;
        us.step(at(10), Input::Message(Received { message, path, lookup, nonce: draft.nonce, seen })).unwrap();
        assert_eq!((waiting(&us).unwrap().proven_by.is_none(), us.tables.successors.is_empty()), (gone, gone));
    }
}
