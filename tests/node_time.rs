//! A node and time: what was said before it started, and what it knows of its own stamps when it stops.
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

use common::*;
use trustkeep::node::{Identity as _, Received, RequestOptions};
use trustkeep::wire::message::{Kind, Message};
use trustkeep::{TrustRecord, TrustStore, WallMillis};

#[test]
fn a_revocation_from_before_the_node_started_takes_no_imported_trust_back() {
    let two = identity(2);
    let revoke = |late: i64| message_from(&two, Kind::Revoke, |draft| draft.stamp = now().saturating_add(-late));
    // As an import leaves it: the record is as old as the document says.
    let store = || {
        let store = TrustStore::in_memory();
        let record = TrustRecord::new(id(2), two.public_key()).approved_at(now().saturating_add(-86_400_000));
        drop(store.grant(record).unwrap());
        Arc::new(store)
    };
    let (manager, ..) = alone_with(store(), |builder| builder);
    manager.receive(arrived(revoke(200_000), 1));
    assert!(manager.is_trusted(id(2)));
    assert_eq!(count(&manager, "stale"), 1);
    // Nor does a request of before open a way for it.
    manager.receive(arrived(message_from(&two, Kind::Request, |d| d.stamp = now().saturating_add(-250_000)), 1));
    manager.receive(arrived(revoke(190_000), 1));
    assert!(manager.is_trusted(id(2)));
    // The twin.
    manager.receive(arrived(revoke(0), 1));
    assert!(!manager.is_trusted(id(2)));
}

#[test]
fn a_node_that_stops_in_good_order_goes_on_at_its_clock() {
    let disk = Arc::new(Disk::default());
    let open = || Arc::new(TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap());
    let mut newest = WallMillis::new(0);
    for life in 0..8 {
        let (manager, _wire, ends) = alone_with(open(), |builder| builder);
        let before = now();
        drop(manager.request(id(2), "", RequestOptions::default()).unwrap());
        let (_, bytes) = ends.sent.recv_timeout(SOON).unwrap();
        let stamp = Message::parse(&bytes).unwrap().stamp();
        // Lives within one millisecond count on; a reserve would lie seconds ahead. The system may have set its
        // clock back by a little.
        let is_at_the_clock = before.millis_since(stamp) <= 8 && stamp.millis_since(now()) <= 8;
        assert!(stamp > newest && is_at_the_clock, "life {life}: {stamp:?} at {before:?}");
        newest = stamp;
        manager.shutdown().unwrap();
        let bytes = disk.bytes();
        manager.shutdown().unwrap();
        assert_eq!(disk.bytes(), bytes);
    }
    // The twin: a life that ends by a crash.
    let (manager, _wire, _ends) = alone_with(open(), |builder| builder);
    manager.request(id(2), "", RequestOptions::default()).unwrap().wait_durable().unwrap();
    let store = Arc::new(disk.crashed_store().unwrap());
    let (again, _wire, ends) = alone_with(store, |builder| builder);
    drop(again.request(id(2), "", RequestOptions::default()).unwrap());
    let (_, bytes) = ends.sent.recv_timeout(SOON).unwrap();
    let ahead = Message::parse(&bytes).unwrap().stamp().millis_since(now());
    // Lives within one millisecond count on here, too.
    assert!(ahead <= 10_000 + 8, "{ahead}");
}

#[test]
fn an_answer_tells_by_how_much_clocks_differ() {
    let two = identity(2);
    let (manager, ..) = alone_with(Arc::new(TrustStore::in_memory()), |builder| builder);
    let answered = |millis: i64| {
        let asked = RequestOptions::default().expected_key(two.public_key()).force(true);
        drop(manager.request(id(2), "", asked).unwrap());
        let nonce = manager.outgoing()[0].1.nonce;
        let accept = message_from(&two, Kind::Accept, |draft| {
            (draft.answers, draft.stamp) = (Some(nonce), now().saturating_add(millis));
        });
        manager.receive(arrived(accept, 1));
        assert!(manager.is_trusted(id(2)));
        manager.skews()
    };
    let skews = answered(-60_000);
    assert!(matches!(skews[..], [("answer", by)] if by <= -60_000), "{skews:?}");
    // The twin.
    assert_eq!(answered(0), []);
    assert!(matches!(answered(20_000)[..], [("answer", by)] if by > 10_000));
    assert_eq!(count(&manager, "answer_skew"), 2);
}

#[test]
fn what_is_dropped_for_its_time_says_by_how_much() {
    let two = identity(2);
    let (manager, ..) = alone_with(Arc::new(TrustStore::in_memory()), |builder| builder);
    let hear = |millis: i64| {
        manager
            .receive(arrived(message_from(&two, Kind::Request, |draft| draft.stamp = now().saturating_add(millis)), 1));
    };
    for millis in [-400_000, -500_000, 60_000] {
        hear(millis);
    }
    let skews = manager.skews();
    let [("from_future", ahead), ("too_old", behind)] = skews[..] else { panic!("{skews:?}") };
    assert!(ahead <= 60_000 && ahead > 30_000 && behind <= -500_000, "{skews:?}");
    // The twin: what is taken says nothing.
    hear(0);
    assert_eq!(manager.skews(), skews);
}

#[test]
fn an_answer_that_a_relay_kept_says_nothing_of_clocks() {
    let two = identity(2);
    let (manager, ..) = alone_with(Arc::new(TrustStore::in_memory()), |builder| builder);
    for (relayed, told) in [(true, 0), (false, 1)] {
        let asked = RequestOptions::default().expected_key(two.public_key()).force(true);
        drop(manager.request(id(2), "", asked).unwrap());
        let nonce = manager.outgoing()[0].1.nonce;
        let accept = message_from(&two, Kind::Accept, |draft| {
            (draft.answers, draft.stamp) = (Some(nonce), now().saturating_add(if relayed { -60_000 } else { -50_000 }));
        });
        manager.receive(if relayed { Received::relayed(accept, id(3)) } else { arrived(accept, 1) });
        assert!(manager.is_trusted(id(2)) && manager.outgoing().is_empty(), "it is an answer either way");
        assert_eq!((manager.skews().len(), count(&manager, "answer_skew")), (told, told as u64), "{relayed}");
    }
}
