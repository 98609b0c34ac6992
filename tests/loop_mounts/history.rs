//! Changes that are made one after the other, of which it is known which were acknowledged, and what a store must hold after
//! them: of three changes in a row two grant and the third revokes the first.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use trustkeep::{NodeId, TrustRecord, TrustStore};

#[derive(Default)]
pub(super) struct History {
    /// How many changes were begun, and how many acknowledged.
    pub(super) begun: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) stop: AtomicBool,
}

fn peer(change: u64) -> NodeId {
    NodeId::new(u32::try_from(change + 1).unwrap()).unwrap()
}

/// The peers that are trusted, and those that are revoked, after so many changes.
fn after(changes: u64) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    let (mut trusted, mut revoked) = (BTreeSet::new(), BTreeSet::new());
    for change in 0..changes {
        if change % 3 == 2 {
            trusted.remove(&peer(change - 2));
            revoked.insert(peer(change - 2));
        } else {
            trusted.insert(peer(change));
        }
    }
    (trusted, revoked)
}

/// Ends the changes, whatever ends the test.
pub(super) struct Stop<'a>(pub(super) &'a History);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

impl History {
    /// Makes changes, each after the one before was acknowledged, until one fails or it is to stop.
    pub(super) fn make(&self, store: &TrustStore) {
        while !self.stop.load(Ordering::SeqCst) {
            let change = self.begun.fetch_add(1, Ordering::SeqCst);
            let receipt = if change % 3 == 2 {
                store.revoke(peer(change - 2)).map(|revoked| revoked.receipt).ok()
            } else {
                store.grant(TrustRecord::new(peer(change), None)).ok()
            };
            if receipt.is_none_or(|receipt| receipt.wait_durable().is_err()) {
                return;
            }
            self.acknowledged.store(change + 1, Ordering::SeqCst);
            // So that a disk which takes no time makes no store of millions.
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }

    /// What is in a directory must be what there was after some number of changes from the first of these on, and no later
    /// than the second. Says after how many.
    pub(super) fn check(&self, dir: &Path, least: u64, most: u64) -> u64 {
        let store = TrustStore::open(dir).unwrap_or_else(|error| panic!("after {least} to {most} changes: {error}"));
        let snapshot = store.snapshot();
        let trusted: BTreeSet<NodeId> = snapshot.iter().map(|record| record.node_id).collect();
        let revoked: BTreeSet<NodeId> = snapshot.revoked().map(|(peer, _)| peer).collect();
        drop(snapshot);
        store.close().unwrap();
        // A grant adds one trusted peer, and a revocation makes one of these a revoked one.
        let changes = trusted.len() as u64 + 2 * revoked.len() as u64;
        let what = format!("{} trusted and {} revoked, after {least} to {most} changes", trusted.len(), revoked.len());
        assert!((least..=most).contains(&changes), "{what}");
        assert!(after(changes) == (trusted, revoked), "others than those of {changes} changes: {what}");
        changes
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }
}
