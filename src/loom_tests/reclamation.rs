//! Memory of old versions of the map is used again when, and not before, nobody can read it (C-8).
//!
//! What is given back is overwritten, so that a reader which comes too late finds nonsense; and the checker sees every
//! read of a version and every reuse of its memory, so that it finds two which nothing orders even if they went well. The
//! versions are handed over under a lock, as the store's own cell keeps all of them in its twin; what a reader does after
//! it has let go of that lock, the lock does not order.
#![forbid(unsafe_code)]

use super::{outcomes, peer, record};
use crate::map::TrustMap;
use crate::map::mix::Mix;
use crate::sync::{Arc, Mutex, spawn};

type Published = Arc<Mutex<TrustMap>>;

fn first() -> TrustMap {
    TrustMap::new(Mix::new(1)).apply([(peer(1), Some(record(1).network(1)))])
}

/// The next version: peer 1 under the terms of this number.
fn next(map: &TrustMap, number: u16) -> TrustMap {
    map.apply([(peer(1), Some(record(1).network(number)))])
}

/// Which version this is, as its contents tell in three ways.
fn number(map: &TrustMap) -> u16 {
    assert!(map.contains(peer(1)) && !map.contains(peer(2)));
    let number = map.get(peer(1)).unwrap().network;
    assert!(map.iter().eq([record(1).network(number)]));
    number
}

#[test]
fn a_version_is_whole_for_as_long_as_a_reader_holds_it() {
    let seen = outcomes(|| {
        let map = first();
        let published: Published = Arc::new(Mutex::new(map.clone()));
        let reader = {
            let published = Arc::clone(&published);
            spawn("reader", move || {
                let held = published.lock().clone();
                let before = number(&held);
                let twin = held.clone();
                drop(held);
                assert_eq!(number(&twin), before);
                before
            })
            .unwrap()
        };
        let second = next(&map, 2);
        drop(map);
        *published.lock() = second.clone();
        // From here on the first version may be gone, and its memory used for the third.
        let third = next(&second, 3);
        drop(second);
        *published.lock() = third.clone();
        third.sweep();
        let kept = third.usage().versions;
        let read = reader.join().unwrap();
        third.sweep();
        // The root, the leaf, and nothing else once the reader is gone.
        let usage = third.usage();
        assert_eq!((usage.versions, usage.retired, usage.nodes), (1, 0, 2));
        assert_eq!(number(&third), 3);
        (read, kept)
    });
    // The reader got any of the three, and an old one may or may not have been let go of in time.
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]);
}

/// The one who lets go last is not the one who read last: the count in between must order them.
#[test]
fn two_readers_let_go_of_one_version_in_either_order() {
    let seen = outcomes(|| {
        let map = first();
        let readers = [map.clone(), map.clone()].map(|held| spawn("reader", move || number(&held)).unwrap());
        let second = next(&map, 2);
        drop(map);
        let third = next(&second, 3);
        drop(second);
        third.sweep();
        let kept = third.usage().versions;
        assert_eq!(number(&third), 3);
        assert_eq!(readers.map(|reader| reader.join().unwrap()), [1, 1]);
        kept
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2]);
}

/// The keeper sweeps while a writer publishes and a reader lets go.
#[test]
fn a_sweep_beside_a_writer_frees_what_is_free_and_nothing_else() {
    let seen = outcomes(|| {
        let map = first();
        let published: Published = Arc::new(Mutex::new(map.clone()));
        let keeper = {
            let published = Arc::clone(&published);
            spawn("keeper", move || {
                let newest = published.lock().clone();
                newest.sweep();
                number(&newest)
            })
            .unwrap()
        };
        let held = map.clone();
        let reader = spawn("reader", move || number(&held)).unwrap();
        let second = next(&map, 2);
        drop(map);
        *published.lock() = second.clone();
        assert_eq!(number(&second), 2);
        let swept = keeper.join().unwrap();
        assert_eq!(reader.join().unwrap(), 1);
        assert_eq!(number(&second), 2);
        second.sweep();
        assert_eq!(second.usage().nodes, 2);
        swept
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2]);
}

/// Nobody but a reader is left: it frees everything, and has read everything before.
#[test]
fn the_last_of_all_may_be_any_thread() {
    let seen = outcomes(|| {
        let map = first();
        let held = map.clone();
        let reader = spawn("reader", move || number(&held)).unwrap();
        let second = next(&map, 2);
        drop(map);
        let last = number(&second);
        drop(second);
        (reader.join().unwrap(), last)
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(1, 2)]);
}
