//! What only the crate itself can ask of a store: changes of the tables that the handshake keeps.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests, of how long a save takes among others")]

use core::convert::Infallible;
use core::time::Duration;
use std::sync::Arc;

use super::{Receipt, Transaction, TrustStore};
use crate::clock::Clock;
use crate::machine::view::{Floor, TableChange, View as _};
use crate::peer::NodeId;
use crate::time::{Now, WallMillis};

fn raise_floor(store: &TrustStore, stamp: i64) -> Receipt {
    let peer = NodeId::new(7).unwrap();
    let outcome = store.transact(|tables| {
        let floor = Floor { seen: WallMillis::new(stamp), ..tables.floor(peer).unwrap_or(Floor::EMPTY) };
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
    let floor = store.tables().unwrap().floor(NodeId::new(7).unwrap()).unwrap();
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
