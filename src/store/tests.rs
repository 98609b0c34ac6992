//! What only the crate itself can ask of a store: changes of the tables that the handshake keeps.
//!
//! More than 450 lines because what is saved at once, and what a moment later, is tried beside each other.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests, of how long a save takes among others")]

use core::convert::Infallible;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Receipt, Transaction, TrustStore};
use crate::clock::Clock;
use crate::config::Limits;
use crate::error::WriteError;
use crate::map::mix::Mix;
use crate::peer::Kind;
use crate::peer::{NodeId, TrustRecord};
use crate::persist::recover::GENERATION_MAX;
use crate::store::keeper::InMemory;
use crate::tables::Tables;
use crate::tables::table::Table as _;
use crate::tables::{Floor, TableChange};
use crate::testing::actor::{Actor, Way, at};
use crate::time::{Now, WallMillis};

fn raise_floor(store: &TrustStore, stamp: i64) -> Receipt {
    let peer = NodeId::new(7).unwrap();
    let outcome = store.transact(|tables| {
        let floor =
            Floor { seen: WallMillis::new(stamp), ..tables.sides.floors.get(peer).copied().unwrap_or(Floor::EMPTY) };
        let changes = vec![TableChange::Floor(peer, Some(floor))];
        Ok::<_, Infallible>(Transaction { changes, events: Vec::new(), value: () })
    });
    outcome.unwrap().1
}

/// A clock that stands still: what waits for the keeper's alarm waits for ever.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        Now::default()
    }
}

/// A clock that counts how often this thread asks, and says so.
#[derive(Debug)]
struct Counting(AtomicI64, std::thread::ThreadId);

impl Clock for Counting {
    fn now(&self) -> Now {
        // The keeper may ask whenever it likes.
        let asked = i64::from(std::thread::current().id() == self.1);
        Now { wall: WallMillis::new(1 + self.0.fetch_add(asked, Ordering::Relaxed)), ..Now::default() }
    }
}

#[test]
fn a_grant_asks_no_clock_and_what_revokes_does() {
    let clock = Arc::new(Counting(AtomicI64::new(0), std::thread::current().id()));
    let store = TrustStore::options().clock(Arc::clone(&clock) as _).in_memory().unwrap();
    let [one, other] = [7, 8].map(|number| NodeId::new(number).unwrap());
    let opened = clock.0.load(Ordering::Relaxed);
    for peer in [one, other] {
        let _ = store.grant(TrustRecord::new(peer, None)).unwrap();
    }
    assert_eq!(clock.0.load(Ordering::Relaxed), opened);
    let _ = store.revoke(one).unwrap();
    let _ = store.update(|batch| batch.revoke(other)).unwrap();
    let tables = store.tables().unwrap();
    let at = [one, other].map(|peer| tables.sides.revoked.get(peer).unwrap().at.as_millis());
    assert_eq!(at, [opened + 1, opened + 2]);
}

#[test]
fn floors_alone_wait_for_the_alarm_unless_somebody_waits_for_them() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let store = TrustStore::options().clock(Arc::new(Still)).open(&dir).unwrap();
    let lazy = raise_floor(&store, 1);
    // Long enough for a keeper that saves at once, and no matter how much longer it takes.
    std::thread::sleep(Duration::from_millis(200));
    assert!(!lazy.is_durable(), "saved at once, as if it were urgent");
    let waited_for = raise_floor(&store, 2);
    waited_for.wait_durable_timeout(Duration::from_secs(60)).unwrap();
    assert!(lazy.is_durable());
    let flushed = raise_floor(&store, 3);
    store.flush().unwrap();
    assert!(flushed.is_durable());
}

#[test]
fn a_flood_of_repeats_is_saved_as_seldom_as_floors_alone() {
    let home = tempfile::tempdir().unwrap();
    let store = TrustStore::options().clock(Arc::new(Still)).open(home.path().join("store")).unwrap();
    let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
    let mut hear = |peer: &mut Actor, ms| {
        let request = peer.draft(at(ms), us.id(), Kind::Request, None);
        let changes = us.hear_from(at(ms), peer, &request, Way::open()).unwrap().changes;
        let publish = |_: &Tables| Ok::<_, Infallible>(Transaction { changes, events: Vec::new(), value: () });
        store.transact(publish).unwrap().1
    };
    let saved_at_once = |receipt: &Receipt| {
        (0..6000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            receipt.is_durable()
        })
    };
    assert!(saved_at_once(&hear(&mut peer, 0)), "a new entry");
    let before = store.durable_generation();
    let newest = (1..500).map(|ms| hear(&mut peer, ms)).last().unwrap();
    // Long enough for a keeper that saves at once, and no matter how much longer it takes.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(store.durable_generation(), before, "not one save");
    assert!(newest.generation().get() >= before.get() + 499);
    // The next change that matters takes them along.
    assert!(saved_at_once(&hear(&mut Actor::new(8, 0x22), 500)));
    assert!(newest.is_durable());
}

#[test]
fn an_answer_waits_for_what_was_decided_and_for_no_floor_that_moved_since() {
    let home = tempfile::tempdir().unwrap();
    let store = TrustStore::options().clock(Arc::new(Still)).open(home.path().join("store")).unwrap();
    let granted = store.grant(crate::peer::TrustRecord::new(NodeId::new(8).unwrap(), None)).unwrap();
    assert_eq!(granted.of_news().generation(), granted.generation());
    granted.wait_durable().unwrap();
    let floor = raise_floor(&store, 1);
    assert_eq!((floor.of_news().generation(), floor.of_news().is_durable()), (granted.generation(), true));
    assert!(floor.generation() > granted.generation() && !floor.is_durable());
    let revoked = store.revoke(NodeId::new(8).unwrap()).unwrap().receipt;
    assert_eq!(revoked.of_news().generation(), revoked.generation());
}

#[test]
fn floors_alone_are_saved_by_the_alarm_though_nobody_waits() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let store = TrustStore::open(&dir).unwrap();
    let lazy = raise_floor(&store, 3);
    let saved = (0..6000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        lazy.is_durable()
    });
    assert!(saved);
    drop(store);
    let store = TrustStore::open(&dir).unwrap();
    let floor = *store.tables().unwrap().sides.floors.get(NodeId::new(7).unwrap()).unwrap();
    assert_eq!(floor.seen, WallMillis::new(3));
}

#[test]
fn readers_do_not_notice_changes_that_are_not_about_trust() {
    let store = TrustStore::in_memory();
    let mut reader = store.reader();
    let before = reader.generation();
    let receipt = raise_floor(&store, 1);
    assert_eq!(receipt.generation().get(), 1);
    assert_eq!((reader.generation(), store.snapshot().generation()), (before, before));
    let record = crate::peer::TrustRecord::new(NodeId::new(8).unwrap(), None);
    let granted = store.grant(record).unwrap();
    assert_eq!((reader.generation(), granted.generation().get()), (granted.generation(), 2));
}

fn record(id: u32, network: u16) -> TrustRecord {
    TrustRecord::new(NodeId::new(id).unwrap(), None).network(network)
}

fn map_bytes(store: &TrustStore) -> usize {
    store.tables().unwrap().trusted.usage().bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A batch looks up what was before some steps later; nobody can tell.
    #[test]
    fn a_batch_is_a_map_with_a_limit(
        before in proptest::collection::btree_set(1..60u32, 0..30),
        steps in proptest::collection::vec((1..60u32, proptest::option::weighted(0.8, 1..4u16)), 0..80),
        room in 0..40usize,
    ) {
        let max = before.len() + room;
        let store = TrustStore::options().limits(Limits { trusted_max: max, ..Limits::default() }).in_memory().unwrap();
        let mut model: BTreeMap<u32, TrustRecord> = before.iter().map(|id| (*id, record(*id, 0))).collect();
        let (filled, _) = store.update(|batch| model.values().all(|record| batch.grant(*record).is_ok())).unwrap();
        assert!(filled);
        let mut reader = store.reader();
        store.update(|batch| {
            for (id, network) in &steps {
                let peer = NodeId::new(*id).unwrap();
                match network {
                    Some(network) => {
                        batch.forget_revocation(peer);
                        let fits = model.contains_key(id) || model.len() < max;
                        assert_eq!(batch.grant(record(*id, *network)).is_ok(), fits);
                        if fits {
                            model.insert(*id, record(*id, *network));
                        }
                    }
                    None => assert_eq!(batch.revoke(peer), model.remove(id)),
                }
                assert_eq!((batch.len(), batch.is_empty()), (model.len(), model.is_empty()));
                assert_eq!((batch.get(peer), batch.is_trusted(peer)), (model.get(id).copied(), model.contains_key(id)));
            }
            // Nothing is to be seen of it yet.
            assert!((1..60).all(|id| reader.is_trusted(NodeId::new(id).unwrap()) == before.contains(&id)));
        }).unwrap().1.wait_durable().unwrap();
        for id in 1..60 {
            let peer = NodeId::new(id).unwrap();
            prop_assert_eq!(store.get(peer), model.get(&id).copied());
            prop_assert_eq!(store.is_trusted(peer), model.contains_key(&id));
        }
        prop_assert_eq!(store.snapshot().len(), model.len());
    }
}

/// What an old version held apart comes together again, and then back to the system, although nobody asks for it.
#[test]
fn memory_comes_back_though_it_is_used_here_and_there() {
    const LEN: u32 = 150_000;
    let home = tempfile::tempdir().unwrap();
    for dir in [None, Some(home.path().join("store"))] {
        let store = dir.map_or_else(TrustStore::in_memory, |dir| TrustStore::open(dir).unwrap());
        let grant = |step: usize, network: u16| {
            let granted = (1..=LEN).step_by(step).map(|id| record(id, network));
            let (fits, receipt) =
                store.update(|batch| granted.into_iter().all(|new| batch.grant(new).is_ok())).unwrap();
            assert!(fits);
            receipt.wait_durable().unwrap();
        };
        grant(1, 0);
        let dense = map_bytes(&store);
        // Memory that was made ready may be in it or not.
        let limit = dense + dense / 8 + (4 << 20);
        let first = store.snapshot();
        grant(1, 1);
        let second = store.snapshot();
        grant(10, 2);
        let apart = map_bytes(&store);
        assert!(apart > limit, "{dense} bytes, then {apart}");
        drop((first, second));
        let came_back = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(300));
            let tables = store.tables().unwrap();
            let lies_apart = tables.trusted.begin_move(1 << 20).is_some();
            tables.trusted.end_move();
            !lies_apart && map_bytes(&store) < limit
        });
        assert!(came_back, "{dense} bytes, then {apart}, then {}", map_bytes(&store));
        let now = |id| record(id, if id % 10 == 1 { 2 } else { 1 });
        assert!((1..=LEN).all(|id| store.get(NodeId::new(id).unwrap()) == Some(now(id))));
    }
}

/// Asks the store for something when it goes.
struct Asks(Arc<TrustStore>);

impl Drop for Asks {
    fn drop(&mut self) {
        let _ = self.0.health();
    }
}

#[test]
fn what_a_refused_update_made_is_dropped_without_the_lock() {
    let limits = Limits::default();
    let tables = Tables::new(Mix::new(7));
    let (clock, deadline) = (Arc::new(Still), Duration::ZERO);
    let store = TrustStore::start(tables, GENERATION_MAX, Box::new(InMemory), limits, clock, deadline).unwrap();
    let store = Arc::new(store);
    let (tell, told) = std::sync::mpsc::channel();
    let update = {
        let store = Arc::clone(&store);
        move || {
            let outcome = store.update(|batch| (batch.grant(record(1, 0)), Asks(Arc::clone(&store))));
            let _ = tell.send(matches!(outcome, Err(WriteError::Full(()))));
        }
    };
    let _ = std::thread::spawn(update);
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(true), "the last generation has no next one");
    assert!(!store.is_trusted(NodeId::new(1).unwrap()));
}

#[test]
fn every_door_takes_the_revision_with_the_last_entry_of_a_peer() {
    let store = TrustStore::in_memory();
    let nine = NodeId::new(9).unwrap();
    let trusted = || {
        drop(store.grant(TrustRecord::new(nine, None)).unwrap());
        let changes = vec![TableChange::Revision(nine, Some(5))];
        drop(store.transact(|_| Ok::<_, Infallible>(Transaction { changes, events: Vec::new(), value: () })).unwrap());
    };
    let is_saved = || store.tables().unwrap().sides.revisions.get(nine).is_some();
    trusted();
    assert!(is_saved());
    drop(store.update(|batch| batch.remove(nine)).unwrap());
    assert!(!is_saved(), "nothing else is known of the peer");
    trusted();
    drop(store.revoke(nine).unwrap());
    assert!(is_saved(), "the mark keeps it");
    drop(store.forget_revocation(nine).unwrap());
    assert!(!is_saved());
}

#[test]
fn a_snapshot_has_the_marks_of_its_moment() {
    let store = TrustStore::in_memory();
    let (nine, ten) = (NodeId::new(9).unwrap(), NodeId::new(10).unwrap());
    let key = Actor::new(9, 0x11).public_key();
    drop(store.grant(TrustRecord::new(nine, key)).unwrap());
    let before = store.snapshot();
    // A peer that nobody has heard of: no record changes, and the mark shows all the same.
    drop(store.revoke(ten).unwrap());
    let one = store.snapshot();
    assert!(one.generation() > before.generation());
    assert_eq!((before.revoked_len(), before.is_revoked(ten)), (0, false), "no later change shows");
    assert_eq!((one.revoked_len(), one.revocation(ten)), (1, store.revocation(ten)));
    assert!(one.is_revoked(ten) && !one.is_revoked(nine) && one.contains(nine));
    drop(store.revoke_key(&key).unwrap());
    drop(store.revoke(nine).unwrap());
    let all = store.snapshot();
    assert_eq!((all.len(), all.revoked_len(), all.revoked_keys_len()), (0, 2, 1));
    let by_id: BTreeMap<NodeId, _> = all.revoked().collect();
    assert_eq!(by_id.into_iter().collect::<Vec<_>>(), store.revoked());
    assert_eq!(all.revoked_keys().collect::<Vec<_>>(), store.revoked_keys());
    assert_eq!(all.key_revocation(&key), store.key_revocation(&key));
    assert!(all.is_key_revoked(&key) && !one.is_key_revoked(&key));
    assert!(!all.is_key_revoked(&Actor::new(9, 0x22).public_key()));
    drop(store.forget_revocation(ten).unwrap());
    drop(store.forget_key_revocation(&key).unwrap());
    let less = store.snapshot();
    assert_eq!((less.revoked_len(), less.revoked_keys_len(), all.revoked_len()), (1, 0, 2));
    // A change of something else keeps them.
    drop(store.grant(TrustRecord::new(ten, None)).unwrap());
    assert_eq!(store.snapshot().revoked().collect::<Vec<_>>(), less.revoked().collect::<Vec<_>>());
}

#[test]
fn a_snapshot_of_a_store_that_was_opened_has_its_marks() {
    let dir = tempfile::tempdir().unwrap();
    let (nine, key) = (NodeId::new(9).unwrap(), Actor::new(9, 0x11).public_key());
    let store = TrustStore::open(dir.path().join("store")).unwrap();
    drop(store.revoke(nine).unwrap());
    drop(store.revoke_key(&key).unwrap());
    let (peers, keys) = (store.revoked(), store.revoked_keys());
    store.close().unwrap();
    let snapshot = TrustStore::open(dir.path().join("store")).unwrap().snapshot();
    assert_eq!((snapshot.revoked().collect::<Vec<_>>(), snapshot.revoked_keys().collect::<Vec<_>>()), (peers, keys));
}

#[test]
fn health_names_the_tables_that_are_near_their_limits_and_no_others() {
    let limits = Limits { trusted_max: 20, revoked_max: Some(3), ignored_max: 0, ..Limits::default() };
    let store = TrustStore::options().limits(limits).in_memory().unwrap();
    let peer = |number| NodeId::new(number).unwrap();
    let near = || -> Vec<_> {
        let health = store.health();
        health.near_limits.iter().map(|near| (near.limit, near.entries, near.max)).collect()
    };
    for number in 1..=17 {
        drop(store.grant(TrustRecord::new(peer(number), None)).unwrap());
    }
    assert_eq!(near(), []);
    drop(store.grant(TrustRecord::new(peer(18), None)).unwrap());
    assert_eq!(near(), [("trusted_max", 18, 20)], "nine tenths");
    for number in 101..=102 {
        drop(store.revoke(peer(number)).unwrap());
    }
    assert_eq!(near().len(), 1, "of three, two are not near");
    drop(store.revoke(peer(103)).unwrap());
    assert_eq!(near(), [("trusted_max", 18, 20), ("revoked_max", 3, 3)]);
    drop(store.update(|batch| batch.remove(peer(18))).unwrap());
    assert_eq!(near(), [("revoked_max", 3, 3)], "it goes away by itself");
    assert!(store.health().is_ok(), "a warning and no more");
}

/// Counts how often the keeper looks, which asks the time once each.
#[derive(Debug)]
struct KeeperLooks(AtomicI64);

impl Clock for KeeperLooks {
    fn now(&self) -> Now {
        self.0.fetch_add(i64::from(std::thread::current().name() == Some("trustkeep-keeper")), Ordering::Relaxed);
        Now::default()
    }
}

#[test]
fn a_flood_of_floors_wakes_the_keeper_seldom() {
    let home = tempfile::tempdir().unwrap();
    let clock = Arc::new(KeeperLooks(AtomicI64::new(0)));
    let store = TrustStore::options().clock(Arc::clone(&clock) as _).open(home.path().join("store")).unwrap();
    let looks = |count: i64| {
        (0..6000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            clock.0.load(Ordering::Relaxed) >= count
        })
    };
    let before = clock.0.load(Ordering::Relaxed);
    let _ = raise_floor(&store, 1);
    assert!(looks(before + 1));
    let begun = std::time::Instant::now();
    for stamp in 2..52 {
        let _ = raise_floor(&store, stamp);
        std::thread::sleep(Duration::from_millis(30));
    }
    let looked = clock.0.load(Ordering::Relaxed) - before;
    // It comes by itself once a second, to look after memory; this clock stands still, so its alarm never rings.
    let by_itself = 2 * i64::try_from(begun.elapsed().as_secs()).unwrap() + 6;
    assert!(looked <= by_itself, "the keeper looked {looked} times for 51 changes of floors");
    // And the twin: what is urgent wakes it.
    store.grant(record(9, 1)).unwrap().wait_durable().unwrap();
    let before = clock.0.load(Ordering::Relaxed);
    let _ = raise_floor(&store, 600);
    assert!(looks(before + 1), "nothing was left to save, so the keeper has no alarm");
}

/// A receipt, a future of one and an answered future of trust keep nothing of the state.
#[test]
fn what_outlives_the_store_does_not_keep_its_state() {
    use std::future::Future as _;
    use std::task::{Context, Waker};
    let store = TrustStore::in_memory();
    let receipt = store.grant(record(1, 0)).unwrap();
    let durable = receipt.durable_future();
    let mut trust = Box::pin(store.trust_future(NodeId::new(1).unwrap()));
    assert!(trust.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    let shared = Arc::downgrade(&store.shared);
    drop(store);
    assert!(shared.upgrade().is_none(), "something keeps the store's state");
    assert!(receipt.is_durable());
    drop((durable, trust));
}

#[test]
fn a_limit_that_cannot_be_kept_is_an_error_before_anything_is_touched() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    for events in [0, Limits::SUBSCRIPTION_EVENTS_MOST + 1, 1 << 40, usize::MAX] {
        let options = TrustStore::options().limits(Limits { subscription_events_max: events, ..Limits::default() });
        let disk = crate::testing::sim_disk::SimDisk::new();
        let refused = [
            options.clone().open(&dir).err().unwrap(),
            options.clone().in_memory().err().unwrap(),
            options.open_storage(Arc::new(disk.clone())).err().unwrap(),
        ];
        for error in refused {
            let text = format!("the limit subscription_events_max is {events}; it must be from 1 to 16777216");
            assert_eq!(error.to_string(), text);
        }
        assert!(!dir.exists() && disk.calls() == 0);
    }
    for events in [1, Limits::SUBSCRIPTION_EVENTS_MOST] {
        let options = TrustStore::options().limits(Limits { subscription_events_max: events, ..Limits::default() });
        let store = options.in_memory().unwrap();
        let subscription = store.subscribe();
        let _ = store.grant(record(1, 0)).unwrap();
        assert!(subscription.try_recv().is_some());
    }
}
