//! Grants that always change something, and the batches that make a store write a snapshot.
//!
//! What must hold: no grant handed out is equal to what the store holds, since such a grant would write nothing and count
//! as durable at once.

use std::io;
use std::path::Path;
use std::time::Duration;

use trustkeep::{NodeId, PublicKey, TrustRecord, TrustStore};

use crate::directory::StoreFiles;
use crate::{key, peers};

/// Grants of the same peers again and again, each through another network than the one before.
#[derive(Clone, Debug)]
pub struct Changes {
    peers: Vec<NodeId>,
    key: PublicKey,
    first_network: u16,
    at: usize,
    pass: u16,
}

impl Changes {
    /// Of these peers. Two `Changes` of the same peer must differ in `lane`; lanes go from 0 to 5, and none of them uses
    /// the network of [`crate::fill`].
    #[must_use]
    pub fn new(peers: Vec<NodeId>, lane: u16) -> Self {
        debug_assert!(lane <= 5 && !peers.is_empty());
        Self { peers, key: key(), first_network: 2 + lane * PASSES, at: 0, pass: 0 }
    }

    /// The peers of a filled store, dealt out among so many threads.
    #[must_use]
    pub fn dealt(records: u32, threads: usize, lane: u16) -> Vec<Self> {
        (0..threads).map(|thread| Self::new(peers(records).skip(thread).step_by(threads).collect(), lane)).collect()
    }
}

impl Iterator for Changes {
    type Item = TrustRecord;

    /// Never `None`.
    fn next(&mut self) -> Option<TrustRecord> {
        if self.at == self.peers.len() {
            self.at = 0;
            self.pass = (self.pass + 1) % PASSES;
        }
        let peer = self.peers.get(self.at)?;
        self.at += 1;
        Some(TrustRecord::new(*peer, self.key).network(self.first_network + self.pass))
    }
}

/// Makes the store begin a snapshot, by batches until the journal has outgrown the latest one. When this returns, all the
/// batches are durable, and the snapshot is being written or was complete in no time; the answer is what the directory
/// held just before it began, or `None` if so many batches were not enough. A small change follows each batch, so that the
/// journal that goes on beside the snapshot begins small.
///
/// # Errors
/// As of the directory.
///
/// # Panics
/// If the store refuses or fails to save.
pub fn provoke_snapshot(
    store: &TrustStore,
    dir: &Path,
    changes: &mut Changes,
    batches: u32,
) -> io::Result<Option<StoreFiles>> {
    provoke_snapshot_by(store, dir, changes, batches, BATCH)
}

/// The same by batches of so many: a journal of gigabytes is sooner written in larger ones.
///
/// # Errors
/// As of the directory.
///
/// # Panics
/// As [`provoke_snapshot`].
#[expect(clippy::expect_used, reason = "a store that fails has nothing to measure")]
pub fn provoke_snapshot_by(
    store: &TrustStore,
    dir: &Path,
    changes: &mut Changes,
    batches: u32,
    at_once: usize,
) -> io::Result<Option<StoreFiles>> {
    let mut before = StoreFiles::read(dir)?;
    for _ in 0..batches {
        let records: Vec<TrustRecord> = changes.by_ref().take(at_once).collect();
        for some in [records.as_slice(), &changes.next().into_iter().collect::<Vec<_>>()] {
            let (fits, receipt) = store
                .update(|batch| some.iter().all(|record| batch.grant(*record).is_ok()))
                .expect("the store takes changes");
            assert!(fits, "the store is full");
            receipt.wait_durable().expect("the disk works");
        }
        // The thread that writes the snapshot needs a moment to create its file.
        pause(Duration::from_millis(3));
        let now = StoreFiles::read(dir)?;
        if now.writing || now.snapshot != before.snapshot {
            return Ok(Some(before));
        }
        before = now;
    }
    Ok(None)
}

/// Waits until no snapshot is being written, and half a second more: for the removal of what it made superfluous.
///
/// # Errors
/// As of the directory.
pub fn settle(dir: &Path) -> io::Result<()> {
    loop {
        if !StoreFiles::read(dir)?.writing {
            pause(Duration::from_millis(500));
            if !StoreFiles::read(dir)?.writing {
                return Ok(());
            }
        }
        pause(Duration::from_millis(1));
    }
}

#[expect(clippy::disallowed_methods, reason = "the directory gives no signal that would be part of the measurement")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

const PASSES: u16 = 10_000;
const BATCH: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filled_store;

    #[test]
    fn every_grant_changes_something() {
        let store = filled_store(10);
        let mut lanes: Vec<Changes> = (0..3).flat_map(|lane| Changes::dealt(10, usize::from(lane) + 1, lane)).collect();
        // More passes than there are networks: they come round again.
        for _ in 0..(usize::from(PASSES) * 5 / lanes.len()) {
            for lane in &mut lanes {
                let before = store.generation();
                let _ = store.grant(lane.next().unwrap()).unwrap();
                assert!(store.generation() > before);
            }
        }
        assert_eq!(store.snapshot().len(), 10);
    }

    #[test]
    fn networks_come_round_within_their_lane() {
        let mut one = Changes::new(vec![NodeId::new(7).unwrap()], 5);
        let networks: Vec<u16> = one.by_ref().take(usize::from(PASSES)).map(|record| record.network).collect();
        assert_eq!((networks[0], networks[9_999]), (50_002, 60_001));
        assert_eq!(one.next().map(|record| record.network), Some(50_002));
    }

    #[test]
    fn a_snapshot_is_provoked_and_settles() {
        let home = crate::directory::temporary(None).unwrap();
        let dir = home.path().join("store");
        let store = TrustStore::open(&dir).unwrap();
        crate::fill(&store, 1000);
        store.flush().unwrap();
        let older = StoreFiles::read(&dir).unwrap();
        let mut changes = Changes::dealt(1000, 1, 0).remove(0);
        assert!(provoke_snapshot(&store, &dir, &mut changes, 0).unwrap().is_none());
        let before = provoke_snapshot(&store, &dir, &mut changes, 1000).unwrap().unwrap();
        assert_eq!(store.durable_generation(), store.generation());
        assert!(before.snapshot >= older.snapshot && !before.writing);
        settle(&dir).unwrap();
        let after = StoreFiles::read(&dir).unwrap();
        assert!(!after.writing && after.snapshot > before.snapshot);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a file of a test, of which nothing need survive")]
    fn settling_waits_for_the_temporary_file_to_go() {
        let home = crate::directory::temporary(None).unwrap();
        let temporary = home.path().join("snapshot-1.tks.tmp0");
        std::fs::write(&temporary, []).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pause(Duration::from_millis(700));
                std::fs::remove_file(&temporary).unwrap();
            });
            settle(home.path()).unwrap();
            assert!(!temporary.exists());
        });
    }
}
