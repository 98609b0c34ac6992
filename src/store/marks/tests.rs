//! What a store holds to where a peer or a key is marked.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_types, reason = "tests")]

use core::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::config::Limits;
use crate::event::{ChangeReason, TrustState};
use crate::testing::actor::{Actor, at, mark, node};

fn key(seed: u8) -> PublicKey {
    Actor::new(1, seed).public_key()
}

fn record(id: u32, seed: u8) -> TrustRecord {
    TrustRecord::new(node(id), key(seed))
}

/// Puts changes into the tables as no call of a store does.
fn put(store: &TrustStore, changes: Vec<TableChange>) {
    let outcome = store.transact(|_| Ok::<_, Infallible>(Transaction { changes, events: Vec::new(), value: () }));
    outcome.unwrap().1.wait_durable().unwrap();
}

fn outgoing(lift: Option<RevocationId>) -> TableChange {
    let mut us = Actor::new(7, 0xAA);
    us.request(at(0), node(9), None).unwrap();
    let mut entry = us.tables.outgoing[&node(9)].clone();
    entry.lift = lift;
    TableChange::Outgoing(node(9), Some(std::sync::Arc::new(entry)))
}

#[test]
fn the_store_marks_whatever_it_knows_and_says_what_there_was() {
    let store = TrustStore::in_memory();
    let revoked = store.revoke(node(9)).unwrap();
    assert_eq!((revoked.was, revoked.waited, revoked.asked, revoked.marked), (None, false, false, None));
    let first = store.revocation(node(9)).unwrap();
    let before = store.generation();
    let again = store.revoke(node(9)).unwrap();
    assert_eq!((again.marked, store.revocation(node(9)), store.generation()), (Some(first), Some(first), before));
    // One that takes a request away is a new revocation, and keeps the time of the first.
    put(&store, vec![outgoing(Some(first.id))]);
    let third = store.revoke(node(9)).unwrap();
    let mark = store.revocation(node(9)).unwrap();
    assert!(third.asked && mark.at == first.at && mark.id != first.id);

    drop(store.grant(record(8, 1)).unwrap());
    assert_eq!(store.revoke(node(8)).unwrap().was, Some(record(8, 1)));
    drop(store.update(|batch| assert_eq!(batch.revoke(node(6)), None)).unwrap());
    let marked: Vec<_> = store.revoked().into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(marked, [node(6), node(8), node(9)]);
    assert!(store.is_revoked(node(6)) && !store.is_revoked(node(5)));
}

#[test]
fn inside_a_change_the_marks_are_those_before_it_and_a_subscription_has_ended() {
    let store = TrustStore::in_memory();
    drop((store.revoke(node(9)).unwrap(), store.revoke_key(&key(2)).unwrap()));
    let marks = || (store.revoked(), store.revocation(node(9)), store.revoked_keys(), store.key_revocation(&key(2)));
    let before = marks();
    assert_eq!((before.0.len(), before.2.len()), (1, 1));
    let update = store.update(|batch| {
        batch.revoke(node(8));
        assert_eq!((marks(), store.is_revoked(node(8)), store.health().revoked), (before.clone(), false, 1));
        assert_eq!(store.subscribe().recv(), None);
    });
    drop(update.unwrap());
    assert!(store.is_revoked(node(8)) && store.is_revoked(node(9)) && store.health().revoked == 2);
}

#[test]
fn a_grant_by_the_store_ends_the_ignoring_of_its_peer() {
    let store = TrustStore::in_memory();
    let ignored = [8, 9, 10].map(|id| TableChange::Ignored(node(id), Some(at(1).wall)));
    put(&store, ignored.into_iter().chain([TableChange::IgnoredKey(key(1), Some(at(1).wall))]).collect());
    drop(store.grant(record(9, 1)).unwrap());
    // Of a batch, what it comes to counts.
    let both = store.update(|batch| {
        batch.grant(record(8, 1)).unwrap();
        batch.grant(record(10, 1)).unwrap();
        batch.remove(node(10));
    });
    drop(both.unwrap());
    let left: Vec<_> = store.ignored().into_iter().map(|(peer, _)| peer).collect();
    assert_eq!((left, store.ignored_keys().len()), (vec![node(10)], 1));
    drop(store.remove(node(9)).unwrap());
    assert_eq!(store.ignored().len(), 1, "it stays so when the trust ends");
}

#[test]
fn the_store_grants_a_revoked_peer_only_with_the_lift_in_force() {
    let store = TrustStore::in_memory();
    drop(store.revoke(node(9)).unwrap());
    let mark = store.revocation(node(9)).unwrap();
    let refused = |answer: Result<Receipt, WriteError<TrustRecord>>| match answer {
        Err(WriteError::Revoked { value, mark }) => (value, mark),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(store.grant(record(9, 1))), (record(9, 1), mark));
    assert_eq!(refused(store.grant_lifting(record(9, 1), RevocationId::new(1))), (record(9, 1), mark));
    let in_batch = |batch: &mut Batch<'_>| {
        let of_batch = batch.marks(node(9), None).peer;
        (batch.grant(record(9, 1)), batch.grant(record(10, 1)), of_batch)
    };
    let ((ninth, tenth, of_batch), _) = store.update(in_batch).unwrap();
    assert_eq!(ninth, Err(WriteError::Revoked { value: record(9, 1), mark }));
    assert_eq!((tenth, of_batch), (Ok(()), Some(mark)));
    assert!(!store.is_trusted(node(9)) && store.is_trusted(node(10)));
    // A mark of the same batch counts as well, and its id is the one that will be in force.
    let revoke_and_grant = |batch: &mut Batch<'_>| {
        batch.revoke(node(10));
        let Err(WriteError::Revoked { mark, .. }) = batch.grant(record(10, 1)) else { panic!("granted") };
        mark
    };
    let (promised, _) = store.update(revoke_and_grant).unwrap();
    assert_eq!(store.revocation(node(10)), Some(promised));
    let lift_both = |batch: &mut Batch<'_>| {
        batch.grant_lifting(record(9, 1), mark.id).unwrap();
        batch.grant_lifting(record(10, 1), promised.id).unwrap();
        batch.grant(record(9, 2)).unwrap();
    };
    drop(store.update(lift_both).unwrap());
    assert_eq!((store.get(node(9)), store.revoked().len()), (Some(record(9, 2)), 0));
    // Of an unmarked peer a lift says nothing.
    drop(store.grant_lifting(record(11, 1), mark.id).unwrap());
}

#[test]
fn what_is_forgotten_or_removed_leaves_the_store_as_if_it_had_never_been() {
    let store = TrustStore::in_memory();
    let events = store.subscribe();
    drop(store.grant(record(9, 1)).unwrap());
    assert_eq!(store.remove(node(9)).unwrap().0, Some(record(9, 1)));
    assert_eq!(store.remove(node(9)).unwrap().0, None);
    assert!(!store.is_trusted(node(9)) && !store.is_revoked(node(9)));
    drop(store.grant(record(9, 1)).unwrap());
    drop(store.revoke(node(9)).unwrap());
    assert!(store.forget_revocation(node(9)).unwrap().0.is_some());
    assert_eq!(store.forget_revocation(node(9)).unwrap().0, None);
    assert!(!store.is_trusted(node(9)), "nobody is trusted by that");
    drop(store.grant(record(9, 1)).unwrap());
    let changed = |state, reason| Event::TrustChanged { peer: node(9), state, reason };
    let granted = changed(TrustState::Granted, ChangeReason::Direct);
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv()).collect();
    assert_eq!(
        told,
        [
            granted.clone(),
            changed(TrustState::Revoked, ChangeReason::Removed),
            granted.clone(),
            changed(TrustState::Revoked, ChangeReason::Revoked),
            Event::Revoked { peer: node(9) },
            Event::RevocationForgotten { peer: node(9) },
            granted,
        ]
    );
}

#[test]
fn a_grant_under_another_key_tells_the_loss_first() {
    let store = TrustStore::in_memory();
    drop(store.grant(record(9, 1)).unwrap());
    for batched in [false, true] {
        let events = store.subscribe();
        let seed = 2 + u8::from(batched);
        if batched {
            drop(store.update(|batch| batch.grant(record(9, seed)).unwrap()).unwrap());
        } else {
            drop(store.grant(record(9, seed)).unwrap());
        }
        let states = std::iter::from_fn(|| events.try_recv()).map(|event| match event {
            Event::TrustChanged { state, reason, .. } => (state, reason),
            other => panic!("{other:?}"),
        });
        let lost = (TrustState::Revoked, ChangeReason::KeyChanged);
        assert_eq!(states.collect::<Vec<_>>(), [lost, (TrustState::Granted, ChangeReason::Direct)]);
    }
    // On other terms under the same key nothing is lost.
    let events = store.subscribe();
    drop(store.grant(record(9, 3).network(5)).unwrap());
    assert_eq!(std::iter::from_fn(|| events.try_recv()).count(), 1);
}

#[test]
fn the_store_ends_trust_under_a_revoked_key_before_it_returns() {
    let store = TrustStore::in_memory();
    let all = |batch: &mut Batch<'_>| {
        (1..2000).for_each(|id| batch.grant(record(id, if id % 3 == 0 { 2 } else { 1 })).unwrap());
    };
    drop(store.update(all).unwrap());
    let revoked = store.revoke_key(&key(1)).unwrap();
    assert_eq!((revoked.ended.len(), revoked.marked), (1333, None));
    assert!(revoked.ended.is_sorted() && store.snapshot().iter().all(|it| it.public_key == Some(key(2))));
    assert_eq!((store.snapshot().len(), store.revoked().len()), (666, 0), "no peer is marked");
    let mark = store.key_revocation(&key(1)).unwrap();
    let refused = store.grant(record(1, 1));
    assert!(matches!(refused, Err(WriteError::Revoked { value, mark: of }) if (value, of) == (record(1, 1), mark)));
    let refused = store.update(|batch| batch.grant(record(1, 1))).unwrap().0;
    assert_eq!(refused, Err(WriteError::Revoked { value: record(1, 1), mark }));
    drop(store.grant(record(1, 3)).unwrap());
    // Lifted by who was shown it, or forgotten.
    drop(store.grant_lifting(record(2, 1), mark.id).unwrap());
    assert_eq!(store.revoked_keys(), []);
    drop(store.grant(record(4, 1)).unwrap());
    assert_eq!(store.revoke_key(&key(1)).unwrap().ended, [node(2), node(4)]);
    assert!(store.forget_key_revocation(&key(1)).unwrap().0.is_some());
    assert!(store.forget_key_revocation(&key(1)).unwrap().0.is_none());
    drop(store.grant(record(4, 1)).unwrap());
}

/// Each critical section of the writer lock that changes something makes a generation.
#[test]
fn a_key_of_many_records_is_revoked_in_batches_and_a_writer_gets_in_between() {
    let store = TrustStore::in_memory();
    let grant = |to| drop(store.update(|batch| (1..=to).for_each(|id| batch.grant(record(id, 1)).unwrap())).unwrap());
    grant(100_000);
    let before = store.generation().get();
    let revoked = store.revoke_key(&key(1)).unwrap();
    assert_eq!(revoked.ended.len(), 100_000);
    let batches = 100_000_u64.div_ceil(256);
    assert_eq!(revoked.receipt.generation().get() - before, 1 + batches, "the mark, and 256 at a time");

    // A writer that never stops sees some of them ended, makes a change of its own, and sees some that are not.
    let came_between = (0..20).any(|round| {
        drop(store.forget_key_revocation(&key(1)).unwrap());
        let (is_done, others) = (AtomicBool::new(false), store.snapshot().len());
        grant(20_000);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let (mut own, mut came_between) = (0, false);
                while !is_done.load(Ordering::SeqCst) {
                    let has_begun = store.snapshot().len() < others + own + 20_000;
                    drop(store.grant(record(200_000 + round * 10_000_000 + own as u32, 2)).unwrap());
                    own += 1;
                    came_between |= has_begun && store.snapshot().len() > others + own;
                    std::thread::yield_now();
                }
                came_between
            });
            drop(store.revoke_key(&key(1)).unwrap());
            is_done.store(true, Ordering::SeqCst);
            writer.join().unwrap()
        })
    });
    assert!(came_between, "the search kept the writer lock");
    assert!(store.snapshot().iter().all(|it| it.public_key == Some(key(2))));
}

#[test]
fn revoked_keys_have_a_limit() {
    let limits = Limits { revoked_keys_max: 1, ..Limits::default() };
    let store = TrustStore::options().limits(limits).in_memory().unwrap();
    drop(store.revoke_key(&key(1)).unwrap());
    assert_eq!(store.revoke_key(&key(2)).unwrap_err(), WriteError::Full(key(2)));
    drop(store.revoke_key(&key(1)).unwrap());
}

#[test]
fn many_revocations_are_a_warning_and_never_refused() {
    let limits = Limits { revoked_max: Some(3), ..Limits::default() };
    let store = TrustStore::options().limits(limits).in_memory().unwrap();
    for id in 1..=3 {
        drop(store.revoke(node(id)).unwrap());
    }
    assert!(!store.health().has_too_many_revoked());
    for id in 4..=100 {
        drop(store.revoke(node(id)).unwrap());
    }
    let health = store.health();
    assert!(health.has_too_many_revoked() && health.is_ok());
    assert_eq!((health.revoked, store.revoked().len()), (100, 100));
    let unlimited = TrustStore::in_memory();
    drop(unlimited.revoke(node(1)).unwrap());
    assert!(!unlimited.health().has_too_many_revoked());
}

/// Writers grant under the key all the time, each for the ids of its own; whatever was let in before the mark is found.
#[test]
fn no_grant_under_a_revoked_key_survives_the_search() {
    let store = TrustStore::in_memory();
    drop(store.update(|batch| (1..20_000).for_each(|id| batch.grant(record(id, 2)).unwrap())).unwrap());
    let begun = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        let (store, begun) = (&store, &begun);
        for writer in 0..3u32 {
            scope.spawn(move || {
                begun.wait();
                // Each goes on until it is refused.
                for id in (100_000 + writer..).step_by(3) {
                    let granted = if id % 2 == 0 {
                        store.grant(record(id, 1)).map(drop)
                    } else {
                        store.update(|batch| batch.grant(record(id, 1))).unwrap().0
                    };
                    if granted.is_err() {
                        return;
                    }
                }
            });
        }
        begun.wait();
        while !store.is_trusted(node(100_300)) {
            std::thread::yield_now();
        }
        let ended = store.revoke_key(&key(1)).unwrap().ended;
        assert!(ended.len() > 50, "{}", ended.len());
        assert!(store.snapshot().iter().all(|it| it.public_key == Some(key(2))), "a grant survived");
    });
    assert_eq!(store.snapshot().len(), 19_999);
}

#[test]
fn a_search_that_was_cut_short_is_finished_when_the_store_is_opened() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let store = TrustStore::open(&dir).unwrap();
    drop(store.update(|batch| (1..1000).for_each(|id| batch.grant(record(id, 1 + (id % 2) as u8)).unwrap())).unwrap());
    // As a process leaves it that ends between the mark and the search.
    put(&store, vec![TableChange::RevokedKey(key(1), Some(mark(0)))]);
    store.close().unwrap();
    drop(store);
    let store = TrustStore::open(&dir).unwrap();
    assert_eq!((store.snapshot().len(), store.revoked_keys()), (500, vec![(key(1), mark(0))]));
    assert!(store.snapshot().iter().all(|it| it.public_key == Some(key(2))));
    store.close().unwrap();
    let generation = store.generation();
    drop(store);
    // What was finished is not done again.
    assert_eq!(TrustStore::open(&dir).unwrap().generation(), generation);
}

#[test]
fn a_revocation_by_the_store_makes_void_what_keys_had_named() {
    use crate::tables::{Succession, Void};
    let dir = tempfile::tempdir().unwrap();
    let store = TrustStore::open(dir.path().join("store")).unwrap();
    let named = [Succession { replaced: true, ..Succession::new(key(2), key(1)) }, Succession::new(key(1), key(3))];
    let set = |id| TableChange::Successors(node(id), Some(named.into()));
    put(&store, vec![TableChange::Trusted(node(9), Some(record(9, 1))), set(9), set(8)]);
    let all = |store: &TrustStore, id| store.tables().unwrap().sides.successors.get(node(id)).unwrap().to_vec();
    drop(store.revoke(node(9)).unwrap());
    let void = named.map(|it| Succession { void: Some(Void::Revoked), ..it });
    assert_eq!((all(&store, 9), all(&store, 8)), (void.to_vec(), named.to_vec()), "of that peer alone");
    // It stays void when the mark goes, and over a restart; trust in the replaced key ends that it was replaced.
    drop(store.update(|batch| batch.forget_revocation(node(9))).unwrap());
    store.close().unwrap();
    drop(store);
    let store = TrustStore::open(dir.path().join("store")).unwrap();
    assert_eq!(all(&store, 9), void);
    drop(store.grant(record(9, 2)).unwrap());
    drop(store.grant(record(8, 2)).unwrap());
    assert_eq!(all(&store, 9), [Succession { replaced: false, ..void[0] }, void[1]]);
    let refused = Succession { replaced: false, void: Some(Void::Refused), ..named[0] };
    assert_eq!(all(&store, 8), [refused, named[1]]);
    // So does the revocation of the key that the peer was trusted under.
    put(&store, vec![TableChange::Trusted(node(7), Some(record(7, 1))), set(7)]);
    drop(store.revoke_key(&key(1)).unwrap());
    assert_eq!(all(&store, 7), [void[0], named[1]]);
    store.close().unwrap();
}
