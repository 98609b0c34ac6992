//! What disks do to a store, on a simulated one (public API, storage injected):
//!
//! - `crash`: after a crash at any call, in every state the disk may be in, the store opens with exactly one published
//!   generation, never older than acknowledged; and protocols broken on purpose are found out;
//! - `faults`: a disk that refuses loses nothing, is reported, and heals;
//! - `every_fault`: every call of a store's life with every error, once and lasting, does the same;
//! - `damage`: every flipped bit and every cut is an error that names file and offset, never another state;
//! - `idle`: what damage to the newest change is, once its owner has been idle for a while, and before;
//! - `journals`: when files are begun and removed, and what a thread that writes snapshots may do wrong;
//! - `report`: what an opening left out is told to who opened the store;
//! - `stall`: a save that hangs stops neither readers nor writers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use trustkeep::testing::sim_disk::SimDisk;
use trustkeep::{NodeId, OpenError, Options, RecoverPolicy, TrustRecord, TrustStore, WallMillis};

mod crash;
mod damage;
#[cfg(feature = "cli")]
mod every_fault;
mod faults;
mod idle;
mod journals;
mod report;
mod stall;

/// What a store holds.
type Contents = BTreeMap<u32, TrustRecord>;

fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn record(number: u32) -> TrustRecord {
    TrustRecord::new(id(number), None).approved_at(WallMillis::new(i64::from(number) * 1000)).network(7)
}

fn records(numbers: impl IntoIterator<Item = u32>) -> Contents {
    numbers.into_iter().map(|number| (number, record(number))).collect()
}

fn contents(store: &TrustStore) -> Contents {
    store.snapshot().iter().map(|record| (record.node_id.get(), record)).collect()
}

fn open(disk: &SimDisk) -> Result<TrustStore, OpenError> {
    open_with(disk, RecoverPolicy::Fail)
}

fn open_with(disk: &SimDisk, policy: RecoverPolicy) -> Result<TrustStore, OpenError> {
    TrustStore::options().settle_after(None).recover(policy).open_storage(Arc::new(disk.clone()))
}

/// Small files: a journal is one page, and a snapshot is due as soon as the journals are as long as the newest one.
fn small() -> Options {
    TrustStore::options().journal_sizes(0, 1)
}

fn open_small(disk: &SimDisk) -> TrustStore {
    small().open_storage(Arc::new(disk.clone())).unwrap()
}

fn grant(store: &TrustStore, number: u32) {
    store.grant(record(number)).unwrap().wait_durable().unwrap();
}

/// The wall clock, in milliseconds.
fn wall() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn journal_name(seq: u64) -> String {
    format!("journal-{seq:016x}.tkj")
}

/// Runs `work` for every item, on a few threads.
fn in_parallel<T: Sync>(items: &[T], threads: usize, work: impl Fn(&T) + Sync) {
    let chunk = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for items in items.chunks(chunk) {
            scope.spawn(|| items.iter().for_each(&work));
        }
    });
}
