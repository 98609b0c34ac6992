//! The index of keys: linearizable for each peer, never more trusting than the published version, complete while a larger
//! table takes over (C-9).
#![forbid(unsafe_code)]

use super::{Disk, open, outcomes, peer, record};
use crate::map::mix::Mix;
use crate::store::key_index::KeyIndex;
use crate::sync::{Arc, spawn};

#[test]
fn a_grant_that_was_seen_stays_seen_in_the_index_and_by_a_handle() {
    let seen = outcomes(|| {
        let store = Arc::new(open(&Disk::default()));
        let looker = {
            let (store, mut reader) = (Arc::clone(&store), store.reader());
            let looks = move || (store.is_trusted(peer(1)), store.is_trusted(peer(1)), reader.is_trusted(peer(1)));
            spawn("looker", looks).unwrap()
        };
        drop(store.grant(record(1)).unwrap());
        assert!(store.is_trusted(peer(1)) && store.reader().is_trusted(peer(1)));
        looker.join().unwrap()
    });
    let all = [(false, false, false), (false, false, true), (false, true, true), (true, true, true)];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn a_revocation_that_a_handle_saw_holds_in_the_index() {
    let seen = outcomes(|| {
        let store = Arc::new(open(&Disk::default()));
        drop(store.grant(record(1)).unwrap());
        let looker = {
            let (store, mut reader) = (Arc::clone(&store), store.reader());
            let looks = move || (reader.is_trusted(peer(1)), store.is_trusted(peer(1)), store.is_trusted(peer(1)));
            spawn("looker", looks).unwrap()
        };
        drop(store.revoke(peer(1)).unwrap());
        assert!(!store.is_trusted(peer(1)) && !store.reader().is_trusted(peer(1)));
        looker.join().unwrap()
    });
    let all = [(false, false, false), (true, false, false), (true, true, false), (true, true, true)];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

/// The eleventh id makes the index go on to its second table; the writer's lock is played by the one thread that writes.
#[test]
fn a_larger_table_takes_over_without_a_gap() {
    let seen = outcomes(|| {
        let mut peers: Vec<_> = (1..=10).map(|id| (Mix::new(1).mix(id), peer(id))).collect();
        peers.sort_unstable();
        let (index, mut upkeep) = KeyIndex::new(Mix::new(1), 0, peers.into_iter());
        let index = Arc::new(index);
        let looker = {
            let index = Arc::clone(&index);
            spawn("looker", move || {
                let contains = |id| index.contains(peer(id)).unwrap();
                let looks = (contains(2), contains(11), contains(2));
                assert!(contains(1), "it was there all the time");
                looks
            })
            .unwrap()
        };
        upkeep.insert(&index, peer(11));
        upkeep.remove(&index, peer(2));
        assert!(upkeep.tables() == 2);
        looker.join().unwrap()
    });
    let all =
        [(false, true, false), (true, false, false), (true, false, true), (true, true, false), (true, true, true)];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

/// Two lines of remainders, of which the first is full: 31 ids stand on it, and one among the others.
#[test]
fn an_id_for_which_its_line_has_no_room_is_found_and_forgotten() {
    let at = |place| peer(Mix::new(1).unmix(place));
    let seen = outcomes(move || {
        let places = (1..=31).chain([1 << 31]);
        let (index, mut upkeep) = KeyIndex::new(Mix::new(1), 640, places.map(|place| (place, at(place))));
        let index = Arc::new(index);
        let looker = {
            let index = Arc::clone(&index);
            spawn("looker", move || {
                let contains = |place| index.contains(at(place)).unwrap();
                let looks = (contains(32), contains(7), contains(32));
                assert!(contains(1) && contains(1 << 31), "they were there all the time");
                assert!(!contains(0) && !contains(33), "they were never there");
                looks
            })
            .unwrap()
        };
        upkeep.insert(&index, at(32));
        // In the place of 7 comes another, while 32 stays where it is.
        upkeep.remove(&index, at(7));
        upkeep.insert(&index, at(34));
        upkeep.remove(&index, at(32));
        assert!(upkeep.tables() == 1);
        looker.join().unwrap()
    });
    // Each of the three looks may fall before and after what it asks about.
    let both = [false, true];
    let all = both.into_iter().flat_map(|a| both.into_iter().flat_map(move |b| both.map(|c| (a, b, c))));
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all.collect::<Vec<_>>());
}
