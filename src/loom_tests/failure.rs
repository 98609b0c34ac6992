//! A disk that fails: waiters hear of it, nothing is lost, and it heals by itself (P9).
//!
//! A keeper that panics cannot be modelled, for a panic ends the model: `tests/keeper.rs` has that.
#![forbid(unsafe_code)]

use super::{Disk, open, open_at_rest, outcomes, record};
use crate::error::PersistError;
use crate::sync::spawn;

#[test]
fn a_failure_is_reported_and_the_next_attempt_heals() {
    let seen = outcomes(|| {
        let disk = Disk::failing(1);
        let store = open(&disk);
        let receipt = store.grant(record(1)).unwrap();
        let first = match receipt.wait_durable() {
            // The keeper failed and healed before this thread began to wait.
            Ok(()) => true,
            Err(PersistError::Io { .. }) => false,
            Err(other) => panic!("{other:?}"),
        };
        store.close().unwrap();
        assert_eq!(disk.saves(), [(1, 1)]);
        assert!(store.health().failing.is_none());
        first
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_store_that_is_dropped_tries_once_and_lets_its_receipts_know() {
    let seen = outcomes(|| {
        let store = open_at_rest(&Disk::failing(usize::MAX));
        let receipt = store.grant(record(1)).unwrap();
        let waiter = {
            let receipt = receipt.clone();
            spawn("waiter", move || match receipt.wait_durable() {
                Err(PersistError::Io { .. }) => "failed",
                Err(PersistError::Abandoned) => "abandoned",
                other => panic!("{other:?}"),
            })
            .unwrap()
        };
        drop(store);
        assert!(!receipt.is_durable());
        assert!(matches!(receipt.wait_durable(), Err(PersistError::Abandoned)));
        waiter.join().unwrap()
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["abandoned", "failed"]);
}
