//! Every call of a node from many threads at once: nothing hangs, nothing panics, no state contradicts another, and of two
//! callers who want the same thing once, one gets it.
//!
//! `TRUSTKEEP_LOAD_MS=60000` makes the load last a minute.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod common;

use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use trustkeep::machine::event::Event;
use trustkeep::node::{CommandError, RequestOptions};
use trustkeep::wire::message::Kind;
use trustkeep::{TrustRecord, TrustStore, WriteError};

#[test]
fn sixty_four_threads_on_every_call_leave_a_state_that_holds() {
    let home = tempfile::tempdir().unwrap();
    let store = Arc::new(TrustStore::open(home.path().join("store")).unwrap());
    let heard = Arc::new(AtomicU64::new(0));
    let hears = Arc::clone(&heard);
    let sink = move |_: Event| {
        hears.fetch_add(1, Ordering::SeqCst);
    };
    let (manager, _wire, _ends) = alone_with(Arc::clone(&store), |builder| builder.event_sink(Arc::new(sink)));
    // Made beforehand: signing takes longer than all the rest.
    let messages: Vec<_> = (2..10)
        .flat_map(|number| {
            (0..40_i64).map(move |nth| {
                message_from(&identity(number), Kind::Request, |draft| draft.stamp = draft.stamp.saturating_add(nth))
            })
        })
        .collect();
    let until = Instant::now() + load();
    let calls: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..64_usize {
            let (manager, store, messages, calls) = (&manager, &store, &messages, &calls);
            scope.spawn(move || {
                let mut reader = store.reader();
                let mut last = reader.generation();
                let mut nth = thread;
                // Until each was called, however few calls a busy machine makes in that time.
                while Instant::now() < until || calls.iter().any(|calls| calls.load(Ordering::Relaxed) == 0) {
                    nth += 1;
                    let peer = id(2 + u32::try_from(nth * 7 % 8).unwrap());
                    let call = (nth + thread) % 16;
                    match call {
                        0 => match store.revocation(peer) {
                            Some(mark) => drop(manager.request(peer, "x", RequestOptions::default().lift(mark.id))),
                            None => drop(manager.request(peer, "x", RequestOptions::default())),
                        },
                        1 => drop(manager.request(peer, "x", RequestOptions::default().automatic(true).force(true))),
                        2 => match store.revocation(peer) {
                            Some(mark) => drop(manager.approve_lifting(peer, shown(manager, peer), mark.id)),
                            None => drop(manager.approve(peer, shown(manager, peer))),
                        },
                        3 => drop(manager.reject(peer, "no")),
                        4 => drop(manager.cancel(peer)),
                        5 => drop(manager.revoke(peer)),
                        6 => manager.receive(arrived(messages[nth % messages.len()].clone(), (nth % 9) as u8)),
                        7 => match store.grant(TrustRecord::new(peer, None)) {
                            // Whoever revokes it again in between wins.
                            Err(WriteError::Revoked { value, mark }) => drop(store.grant_lifting(value, mark.id)),
                            granted => drop(granted.unwrap()),
                        },
                        8 => drop(manager.wait_for_trust(peer, Duration::from_millis(1))),
                        9 => drop(manager.trust_future(peer)),
                        10 => drop((manager.trusted(), manager.pending(), manager.outgoing(), manager.revoked())),
                        11 => drop(manager.subscribe().try_recv()),
                        12 => drop((store.health(), manager.counters(), store.snapshot().len())),
                        13 => drop(store.update(|batch| batch.revoke(peer).is_some()).unwrap()),
                        14 => drop(store.revoke(peer).unwrap()),
                        _ => {
                            let generation = reader.generation();
                            assert!(generation >= last, "a reader went back");
                            last = generation;
                        }
                    }
                    calls[call].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    eventually("the sink hears", || heard.load(Ordering::SeqCst) > 0);
    assert_eq!(store.health().waiting_for_trust, 0, "nobody waits any more");
    assert_eq!((count(&manager, "panicked"), count(&manager, "sink_panicked")), (0, 0), "{:?}", manager.counters());
    let (trusted, revoked, outgoing) = (manager.trusted(), manager.revoked(), manager.outgoing());
    for (peer, mark) in &revoked {
        assert!(trusted.iter().all(|record| record.node_id != *peer), "{peer} is trusted and revoked");
        let lifts = |entry: &trustkeep::tables::Outgoing| entry.lift == Some(mark.id);
        let held = outgoing.iter().all(|(other, entry)| other != peer || lifts(entry));
        assert!(held, "{peer} is asked with no lift of its mark, and revoked");
    }
    let generation = manager.shutdown().unwrap();
    assert_eq!(generation, store.generation());
    drop((manager, store));
    let again = TrustStore::open(home.path().join("store")).unwrap();
    assert_eq!(again.snapshot().iter().collect::<Vec<_>>(), trusted, "what was shown is what was saved");
}

#[test]
fn of_two_operators_who_approve_one_does() {
    let (manager, _wire, ends) = alone(|builder| builder);
    for round in 0..15_i64 {
        let stamp = now().saturating_add(round * 20);
        manager.receive(arrived(message_from(&identity(2), Kind::Request, |draft| draft.stamp = stamp), 1));
        let start = Barrier::new(4);
        let won: usize = std::thread::scope(|scope| {
            let both: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        match manager.approve(id(2), shown(&manager, id(2))) {
                            Ok(_) => 1,
                            Err(CommandError::Refused(_)) => 0,
                            Err(other) => panic!("{other:?}"),
                        }
                    })
                })
                .collect();
            both.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(won, 1);
        assert_eq!(ends.next(), (id(2), "handshake_accept".to_owned()));
        drop(manager.revoke(id(2)).unwrap());
        assert_eq!(ends.next(), (id(2), "handshake_revoke".to_owned()));
        drop(manager.forget_revocation(id(2)).unwrap());
    }
    assert!(ends.sent.try_recv().is_err(), "one answer each");
}

#[test]
fn a_revocation_that_races_an_answer_wins_if_it_comes_last_and_is_never_forgotten() {
    let (manager, _wire, ends) = alone(|builder| builder);
    let key = trustkeep::node::Identity::public_key(&identity(2));
    let (mut accepted, mut in_vain) = (0, 0);
    for round in 0..60_i64 {
        drop(manager.request(id(2), "", RequestOptions::default().expected_key(key).force(true)).unwrap());
        let nonce = manager.outgoing()[0].1.nonce;
        let accept = message_from(&identity(2), Kind::Accept, |draft| {
            (draft.answers, draft.stamp) = (Some(nonce), draft.stamp.saturating_add(round));
        });
        let (start, done) = (Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                manager.receive(arrived(accept, 1));
            });
            start.wait();
            let revoked = manager.revoke(id(2)).unwrap();
            done.store(true, Ordering::SeqCst);
            assert!(!manager.is_trusted(id(2)), "trusted again after the revocation");
            if revoked.was.is_some() { accepted += 1 } else { in_vain += 1 }
        });
        // Whichever came first: the peer is revoked, and nothing of it is left.
        assert!(done.load(Ordering::SeqCst) && !manager.is_trusted(id(2)) && manager.outgoing().is_empty());
        assert_eq!(manager.revoked().len(), 1);
        drop(manager.forget_revocation(id(2)).unwrap());
    }
    assert_eq!(accepted + in_vain, 60);
    drop(ends);
}
