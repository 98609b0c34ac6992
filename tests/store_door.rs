//! Trust that a program ends through the store itself, beside a running node: it is cut off and reported like what the node
//! ends, once, in whatever number. Whatever must not be cut has its twin that must.
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

use std::collections::BTreeSet;
use std::sync::Arc;

use common::*;
use trustkeep::node::{HandshakeManager, Identity as _, RequestOptions};
use trustkeep::{NodeId, PublicKey, TrustRecord, TrustStore};

fn key(number: u32) -> PublicKey {
    identity(number).public_key()
}

fn record(number: u32) -> TrustRecord {
    TrustRecord::new(id(number), key(number))
}

/// Node 1 with a registry, which trusts 2 to 9.
fn node() -> (HandshakeManager, Arc<Wire>, WireEnds, Arc<Book>) {
    let book = Arc::new(Book::default());
    let (manager, wire, ends) = alone(|builder| builder.registry(Arc::clone(&book) as _));
    drop(manager.store().update(|batch| (2..=9).for_each(|number| batch.grant(record(number)).unwrap())).unwrap());
    (manager, wire, ends, book)
}

fn reports(book: &Book) -> Vec<(NodeId, bool)> {
    let mut reports = book.reports.lock().unwrap().clone();
    reports.sort_unstable();
    reports
}

#[test]
fn trust_that_ends_through_the_store_cuts_the_tunnel_and_is_reported() {
    let (manager, _wire, ends, book) = node();
    let store = manager.store();
    let cut = || ends.cut.recv_timeout(SOON).expect("nobody was cut off").get();
    let reported = |peer: u32, granted: bool| {
        eventually("it is reported", || reports(&book).contains(&(id(peer), granted)));
    };
    drop(store.revoke(id(2)).unwrap());
    assert_eq!(cut(), 2);
    reported(2, false);
    drop(store.remove(id(3)).unwrap());
    assert_eq!(cut(), 3);
    reported(3, false);
    // Under another key, or under none, the old trust has ended and the new one is what the registry hears of.
    drop(store.grant(TrustRecord::new(id(4), key(40))).unwrap());
    assert_eq!(cut(), 4);
    reported(4, true);
    drop(store.grant(TrustRecord::new(id(4), None)).unwrap());
    assert_eq!(cut(), 4);
    let batch = store.update(|batch| {
        batch.grant(TrustRecord::new(id(5), key(50))).unwrap();
        batch.revoke(id(6));
        batch.remove(id(7));
    });
    drop(batch.unwrap());
    assert_eq!(BTreeSet::from([cut(), cut(), cut()]), BTreeSet::from([5, 6, 7]));
    reported(5, true);
    reported(6, false);
    reported(7, false);
    assert_eq!(store.revoke_key(&key(8)).unwrap().ended, [id(8)]);
    assert_eq!(cut(), 8);
    reported(8, false);

    // No trust ends: another peer, other terms, a key for a record that had none, a mark that goes, a batch that comes to
    // nothing.
    drop(store.grant(record(10)).unwrap());
    drop(store.grant(record(9).network(7).mutual(true)).unwrap());
    drop(store.grant(record(4)).unwrap());
    drop(store.forget_revocation(id(2)).unwrap());
    let nothing = store.update(|batch| {
        let before = batch.remove(id(9)).unwrap();
        batch.grant(before).unwrap();
    });
    drop(nothing.unwrap());
    assert!(ends.cut.recv_timeout(A_WHILE).is_err(), "somebody was cut off");
    manager.shutdown().unwrap();
}

#[test]
fn what_the_node_ends_itself_is_cut_and_reported_once() {
    let (manager, _wire, ends, book) = node();
    drop(manager.revoke(id(2)).unwrap());
    drop(manager.remove(id(3)).unwrap());
    drop(manager.grant(TrustRecord::new(id(4), key(40))).unwrap());
    drop(manager.store().revoke(id(5)).unwrap());
    eventually("all is reported", || {
        let reported = reports(&book);
        [(2, false), (3, false), (4, true), (5, false)].iter().all(|(peer, it)| reported.contains(&(id(*peer), *it)))
    });
    manager.shutdown().unwrap();
    let mut cut: Vec<u32> = ends.cut.try_iter().map(NodeId::get).collect();
    cut.sort_unstable();
    assert_eq!(cut, [2, 3, 4, 5]);
    let ended = |peer: u32| reports(&book).iter().filter(|it| **it == (id(peer), false)).count();
    assert_eq!([ended(2), ended(3), ended(5)], [1, 1, 1]);
}

#[test]
fn of_a_hundred_thousand_who_lose_trust_at_once_each_is_cut_off_though_the_registry_hangs() {
    const PEERS: u32 = 100_000;
    let (manager, wire, ends, book) = node();
    let store = manager.store();
    let (old, new) = (key(1), key(2));
    let all = |number: u32| TrustRecord::new(id(number), old);
    drop(store.update(|batch| (10..10 + PEERS).for_each(|number| batch.grant(all(number)).unwrap())).unwrap());
    let (cutting, reporting) = (wire.cutting.close(), book.reporting.close());
    // Some by themselves, so that the node falls behind, and the others in batches; some of them are replaced.
    for number in 10..10_010 {
        drop(store.revoke(id(number)).unwrap());
    }
    for first in (10_010..10 + PEERS).step_by(1000) {
        let batch = store.update(|batch| {
            for number in first..(first + 1000).min(10 + PEERS) {
                if number % 2 == 0 {
                    batch.remove(id(number));
                } else {
                    batch.grant(TrustRecord::new(id(number), new)).unwrap();
                }
            }
        });
        drop(batch.unwrap());
    }
    drop(cutting);
    let mut cut = BTreeSet::new();
    while cut.len() < PEERS as usize {
        cut.insert(ends.cut.recv_timeout(SOON).expect("some were not cut off").get());
    }
    assert_eq!((cut.first(), cut.last()), (Some(&10), Some(&(9 + PEERS))));
    assert_eq!(reports(&book), [], "no cut has waited for it");
    drop(reporting);
    eventually("each is reported", || {
        let reports = book.reports.lock().unwrap();
        reports.len() >= PEERS as usize && reports.iter().collect::<BTreeSet<_>>().len() == PEERS as usize
    });
    assert!(reports(&book).iter().all(|(peer, granted)| *granted == manager.is_trusted(*peer)));
    assert_eq!((count(&manager, "queue_full"), count(&manager, "not_reported")), (0, 0));
}

#[test]
fn a_request_is_sent_behind_the_cut_of_what_the_store_ended_before() {
    let (manager, wire, ends, _book) = node();
    let cutting = wire.cutting.close();
    drop(manager.store().remove(id(2)).unwrap());
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| manager.request(id(2), "", RequestOptions::default()).map(drop));
        assert!(ends.sent.recv_timeout(A_WHILE).is_err(), "it is sent before the cut, which would hit it");
        drop(cutting);
        asking.join().unwrap().unwrap();
    });
    assert_eq!(ends.cut.try_recv(), Ok(id(2)));
    assert_eq!(ends.next().0, id(2));
}

#[test]
fn a_node_that_stops_enforces_what_was_changed_before() {
    for dropped in [false, true] {
        let (manager, _wire, ends, book) = node();
        drop(manager.store().revoke(id(2)).unwrap());
        if dropped {
            drop(manager);
        } else {
            manager.shutdown().unwrap();
            assert!(reports(&book).contains(&(id(2), false)));
        }
        assert_eq!(ends.cut.recv_timeout(SOON), Ok(id(2)));
    }
}

#[test]
fn a_store_outlives_its_nodes_and_each_enforces_what_the_other_ends() {
    let store = Arc::new(TrustStore::in_memory());
    drop(store.grant(record(2)).unwrap());
    let (one, _, cuts_of_one) = alone_with(Arc::clone(&store), |builder| builder);
    let (two, _, cuts_of_two) = alone_with(Arc::clone(&store), |builder| builder);
    drop(one.revoke(id(2)).unwrap());
    assert_eq!(cuts_of_one.cut.recv_timeout(SOON), Ok(id(2)));
    assert_eq!(cuts_of_two.cut.recv_timeout(SOON), Ok(id(2)));
    drop((one, two));
    drop(store.grant(record(3)).unwrap());
    drop(store.revoke(id(3)).unwrap());
    assert!(cuts_of_one.cut.recv_timeout(A_WHILE).is_err(), "by a node that is gone");
}
