//! `wait_for_trust` misses no grant, and the end wakes those for whom none came (P14).
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Disk, open, outcomes, peer, record};
use crate::sync::{Arc, spawn};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_grant_that_races_the_wait_is_not_missed() {
    let seen = outcomes(|| {
        let store = Arc::new(open(&Disk::default()));
        let waiter = {
            let store = Arc::clone(&store);
            spawn("waiter", move || {
                let trusted_before = store.is_trusted(peer(1));
                assert!(store.wait_for_trust(peer(1), LONG));
                assert!(store.is_trusted(peer(1)));
                trusted_before
            })
            .unwrap()
        };
        drop(store.grant(record(1)).unwrap());
        waiter.join().unwrap()
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [false, true]);
}

#[test]
fn the_end_wakes_a_waiter_for_whom_nothing_came() {
    let seen = outcomes(|| {
        let store = Arc::new(open(&Disk::default()));
        let waiter = {
            let store = Arc::clone(&store);
            spawn("waiter", move || store.wait_for_trust(peer(1), LONG)).unwrap()
        };
        let granted = store.grant(record(2)).is_ok();
        store.close().unwrap();
        (granted, waiter.join().unwrap())
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(true, false)]);
}

#[test]
fn a_waiter_between_grant_and_end_gets_the_one_that_came_first() {
    let seen = outcomes(|| {
        let store = Arc::new(open(&Disk::default()));
        let closer = {
            let store = Arc::clone(&store);
            spawn("closer", move || store.grant(record(1)).is_ok()).unwrap()
        };
        store.close().unwrap();
        let granted = closer.join().unwrap();
        (granted, store.wait_for_trust(peer(1), LONG))
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(false, false), (true, true)]);
}
