//! What was accepted before the end is on disk; what was refused is not; everybody who closes is answered (P10).
#![forbid(unsafe_code)]

use super::{Disk, open, outcomes, record};
use crate::sync::{Arc, spawn};

#[test]
fn a_write_that_races_close_is_refused_or_on_disk() {
    let seen = outcomes(|| {
        let disk = Disk::default();
        let store = Arc::new(open(&disk));
        let writer = {
            let store = Arc::clone(&store);
            spawn("writer", move || store.grant(record(1)).map(|receipt| receipt.generation().get()).ok()).unwrap()
        };
        let closed = store.close().unwrap().get();
        let written = writer.join().unwrap();
        assert_eq!(disk.newest(), written.unwrap_or(0));
        assert_eq!(closed, written.unwrap_or(0));
        written
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [None, Some(1)]);
}

#[test]
fn concurrent_closes_are_all_answered() {
    let seen = outcomes(|| {
        let disk = Disk::default();
        let store = Arc::new(open(&disk));
        let _ = store.grant(record(1)).unwrap();
        let other = {
            let store = Arc::clone(&store);
            spawn("closer", move || store.close().unwrap().get()).unwrap()
        };
        let saved_before = disk.newest();
        assert_eq!(store.close().unwrap().get(), 1);
        assert_eq!(other.join().unwrap(), 1);
        assert_eq!(disk.saves(), [(1, 1)]);
        saved_before
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1]);
}

/// Dropping the store saves what is left, once, whether or not the keeper was already at it.
#[test]
fn drop_saves_what_is_left() {
    let seen = outcomes(|| {
        let disk = Disk::default();
        let store = open(&disk);
        let receipt = store.grant(record(1)).unwrap();
        let durable_before = receipt.is_durable();
        drop(store);
        assert_eq!(disk.saves(), [(1, 1)]);
        assert!(receipt.is_durable());
        durable_before
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [false, true]);
}
