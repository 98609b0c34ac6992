//! `wait_durable` and `flush` return when, and not before, the generation is on disk (C-1, C-2).
#![forbid(unsafe_code)]

use super::{Disk, open, outcomes, record};
use crate::sync::{Arc, spawn};

#[test]
fn a_receipt_waits_for_its_generation() {
    let seen = outcomes(|| {
        let disk = Disk::default();
        let store = open(&disk);
        let receipt = store.grant(record(1)).unwrap();
        let early = receipt.is_durable();
        receipt.wait_durable().unwrap();
        assert_eq!(disk.newest(), 1);
        assert!(receipt.is_durable());
        early
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [false, true]);
}

/// The keeper stays awake for a moment when somebody came again at once, and then takes the ring without having slept: none is
/// lost between its look and its going to sleep.
#[test]
fn who_comes_again_at_once_is_heard() {
    let seen = outcomes(|| {
        let disk = Disk::default();
        let store = open(&disk);
        for id in 1..=3 {
            store.grant(record(id)).unwrap().wait_durable().unwrap();
            assert!(disk.newest() >= id.into());
        }
        disk.saves()
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [vec![(1, 1), (2, 2), (3, 3)]]);
}

/// Two writers: each is answered for its own generation, and one save may do for both (P6).
#[test]
fn two_writers_are_answered_each_and_one_save_may_do_for_both() {
    let seen = outcomes(|| {
        let disk = Disk::default();
        let store = Arc::new(open(&disk));
        let other = {
            let (store, disk) = (Arc::clone(&store), disk.clone());
            spawn("writer", move || {
                let receipt = store.grant(record(1)).unwrap();
                receipt.wait_durable().unwrap();
                assert!(disk.newest() >= receipt.generation().get());
            })
            .unwrap()
        };
        let receipt = store.grant(record(2)).unwrap();
        receipt.wait_durable().unwrap();
        assert!(disk.newest() >= receipt.generation().get());
        other.join().unwrap();
        disk.saves()
    });
    // Never a generation without its record; both ways of saving occur.
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [vec![(1, 1), (2, 2)], vec![(2, 2)]]);
}

/// A reader goes forward only, and a read after `grant` returned sees it (P1, P3).
#[test]
fn a_reader_never_goes_back() {
    let seen = outcomes(|| {
        let disk = Disk::default();
        let store = Arc::new(open(&disk));
        let mut reader = store.reader();
        let writer = {
            let store = Arc::clone(&store);
            spawn("writer", move || {
                let _ = store.grant(record(1)).unwrap();
                assert!(store.is_trusted(super::peer(1)));
                let _ = store.revoke(super::peer(1)).unwrap();
                assert!(!store.is_trusted(super::peer(1)));
            })
            .unwrap()
        };
        let first = (reader.generation().get(), reader.is_trusted(super::peer(1)));
        let second = reader.generation().get();
        assert!(second >= first.0);
        writer.join().unwrap();
        assert!(!reader.is_trusted(super::peer(1)));
        (first.0, second)
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]);
}

#[test]
fn flush_covers_what_was_published_before_it() {
    let seen = outcomes(|| {
        let disk = Disk::default();
        let store = Arc::new(open(&disk));
        let writer = {
            let store = Arc::clone(&store);
            spawn("writer", move || drop(store.grant(record(1)).unwrap())).unwrap()
        };
        let flushed = store.flush().unwrap().get();
        assert!(disk.newest() >= flushed);
        writer.join().unwrap();
        flushed
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1]);
}

/// Who has read a generation finds it (or a newer one) in the published version (C-4).
#[test]
fn a_generation_that_was_read_is_published() {
    let seen = outcomes(|| {
        let store = Arc::new(open(&Disk::default()));
        let writer = {
            let store = Arc::clone(&store);
            spawn("writer", move || drop(store.grant(record(1)).unwrap())).unwrap()
        };
        let read = store.generation().get();
        let published = store.snapshot().generation().get();
        assert!(published >= read);
        writer.join().unwrap();
        (read, published)
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(0, 0), (0, 1), (1, 1)]);
}
