//! Records that are moved while others read and write (C-10): no change is lost, no generation goes back, and nobody reads
//! in memory that was left and used again.
#![forbid(unsafe_code)]

use core::convert::Infallible;
use std::sync::atomic::AtomicI64;

use super::{Stepping, outcomes};
use crate::config::Limits;
use crate::machine::view::TableChange;
use crate::map::TrustMap;
use crate::map::mix::Mix;
use crate::peer::{NodeId, TrustRecord};
use crate::store::shared::{Shared, Transaction, Version};
use crate::sync::{Arc, Mutex, spawn};
use crate::tables::Tables;

const MIX: Mix = Mix::new(1);
/// Leaves of so many records each: more of them than one piece of the pool has room for.
const LEAVES: u32 = 32;
const EACH: u32 = 10;

/// The peer of this number in this leaf.
fn peer(leaf: u32, number: u32) -> NodeId {
    NodeId::new(MIX.unmix(leaf << 27 | number << 20)).unwrap()
}

fn of(peer: NodeId, network: u16) -> TrustRecord {
    TrustRecord::new(peer, None).network(network)
}

/// A map whose last leaves lie alone, in a piece of memory that the others have room for by now.
fn sparse() -> TrustMap {
    let all = (0..LEAVES).flat_map(|leaf| (0..EACH).map(move |number| of(peer(leaf, number), 0)));
    let all: Vec<_> = all.collect();
    let map = TrustMap::from_sorted(MIX, all.into_iter());
    // One record less, and a leaf needs less memory, elsewhere.
    let next = map.apply((0..EACH).map(|leaf| (peer(leaf, 0), None)));
    drop(map);
    next.sweep();
    next
}

/// Looks at leaves that are moved and at one that is not. All that changes is whether there is this peer.
fn has(map: &TrustMap, changing: NodeId) -> bool {
    for leaf in [LEAVES - 4, LEAVES - 2, 15] {
        assert_eq!(map.get(peer(leaf, 5)), Some(of(peer(leaf, 5), 0)));
    }
    let (is_there, found) = (map.contains(changing), map.get(changing));
    assert_eq!(found, is_there.then(|| of(changing, 0)));
    is_there
}

/// The memory of what was moved is used again only when nobody reads there any more.
#[test]
fn who_reads_what_is_moved_reads_on() {
    let seen = outcomes(|| {
        let (map, changing) = (sparse(), peer(LEAVES - 1, 0));
        let published = Arc::new(Mutex::new(map.clone()));
        let reader = {
            let published = Arc::clone(&published);
            spawn("reader", move || {
                let held = published.lock().clone();
                let before = has(&held, changing);
                let twin = held.clone();
                drop(held);
                assert_eq!(has(&twin, changing), before);
                before
            })
            .unwrap()
        };
        let keeper = {
            let published = Arc::clone(&published);
            spawn("keeper", move || {
                let places = map.begin_move(0).unwrap();
                assert!(places.len() >= 3, "{places:?}");
                let mut moved = false;
                {
                    let mut newest = published.lock();
                    if let Some(next) = newest.moved(&places) {
                        *newest = next;
                        moved = true;
                    }
                }
                map.end_move();
                drop(map);
                let newest = published.lock().clone();
                newest.sweep();
                moved
            })
            .unwrap()
        };
        // The second takes memory that was left by then, if nobody reads there any more.
        for gone in [changing, peer(LEAVES - 1, 1)] {
            let mut newest = published.lock();
            let next = newest.apply([(gone, None)]);
            let old = core::mem::replace(&mut *newest, next);
            drop(newest);
            drop(old);
        }
        let (read, moved) = (reader.join().unwrap(), keeper.join().unwrap());
        let newest = published.lock().clone();
        assert!(!has(&newest, changing), "the change was lost");
        newest.sweep();
        let usage = newest.usage();
        assert_eq!((usage.versions, usage.retired, usage.nodes, usage.leaving), (1, 0, LEAVES as usize + 1, 0));
        assert!(newest.begin_move(0).is_none_or(|places| places.is_empty()), "nothing is left to move");
        (read, moved)
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(false, true), (true, true)]);
}

/// The store's own keeper moves while a writer takes trust from one peer and gives it to another.
#[test]
fn a_change_beside_a_move_is_there_afterwards_and_no_reader_goes_back() {
    let seen = outcomes(|| {
        let (gone, new) = (peer(LEAVES - 1, 0), peer(LEAVES - 3, EACH));
        let tables = Tables { trusted: sparse(), ..Tables::new(MIX) };
        let clock = std::sync::Arc::new(Stepping { tick: AtomicI64::new(0), step: 0 });
        let shared = Arc::new(Shared::new(tables, 0, true, Limits::default(), clock));
        let is_changed = move |map: &TrustMap| {
            let is_changed = !has(map, gone);
            assert_eq!(has(map, new), is_changed, "half a change");
            is_changed
        };
        let look = move |version: &Version| {
            assert_eq!(is_changed(&version.trusted), version.generation == 1, "another generation's records");
            version.generation
        };
        let keeper = {
            let shared = Arc::clone(&shared);
            spawn("keeper", move || {
                let mut moves = 0;
                let began = shared.gather(|generation, tables| {
                    assert_eq!(is_changed(&tables.trusted), generation == 1, "told of another generation's records");
                    moves += 1;
                });
                assert!(began);
                moves
            })
            .unwrap()
        };
        let reader = {
            let mut handle = shared.cell().reader();
            spawn("reader", move || {
                let first = look(handle.load());
                assert!(look(handle.load()) >= first, "a reader went back");
                first
            })
            .unwrap()
        };
        let changes = vec![TableChange::Trusted(gone, None), TableChange::Trusted(new, Some(of(new, 0)))];
        let done = Shared::transact(&shared, None, |_| {
            Ok::<_, Infallible>(Transaction { changes, events: Vec::new(), value: () })
        });
        drop(done.unwrap());
        let outcome = (keeper.join().unwrap(), reader.join().unwrap());
        shared.cell().with(|version| assert_eq!(look(version), 1, "the change was lost"));
        let tables = shared.tables().unwrap();
        assert!(is_changed(&tables.trusted) && shared.generation() == 1);
        assert!(!shared.is_trusted(gone) && shared.is_trusted(new));
        assert_eq!(tables.trusted.usage().leaving, 0, "the move did not end");
        // All else is as it was.
        assert_eq!(tables.trusted.len(), (LEAVES * EACH - EACH) as usize);
        outcome
    });
    // The change comes before the move, between its parts, or after it.
    let all = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}
