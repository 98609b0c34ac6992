//! Makes a closed store as small as it gets: one snapshot of the newest state, and nothing that it supersedes.
//!
//! INVARIANT I-C1: what is superseded goes only when the new snapshot and its name are durable, so that a crash at any
//! moment leaves the same state.
//! INVARIANT I-C2: where nothing can be gained, nothing is written.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::Storage;
use super::load::{Loaded, list, load};
use super::recover::{Listing, RecoverPolicy, snapshot_name};
use crate::error::{OpenError, PersistError};
use crate::time::Now;

/// What compacting came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// Of the state, which is the same as before.
    pub(crate) generation: u64,
    /// Of all files that make up the state, or older ones.
    pub(crate) bytes_before: u64,
    pub(crate) bytes_after: u64,
}

/// Writes the newest state as one snapshot and removes older ones, among them the one that a recovery would fall back to.
/// The caller owns the storage.
///
/// # Errors
/// As opening the store under [`RecoverPolicy::Fail`].
pub(crate) fn compact(storage: Arc<dyn Storage>, now: Now) -> Result<Compacted, OpenError> {
    let (before, bytes_before) = snapshots(storage.as_ref())?;
    let none = || OpenError::Missing { path: storage.path("") };
    let Loaded { tables, generation, mut saver } =
        load(Arc::clone(&storage), false, RecoverPolicy::Fail, now, || Err(none()))?;
    if before.len() > 1 {
        saver.save(generation, &tables).map_err(OpenError::Persist)?;
        let fail =
            |operation, name: &str, error| OpenError::Persist(PersistError::io(operation, storage.path(name), error));
        for (_, name) in snapshots(storage.as_ref())?.0 {
            if name != snapshot_name(generation) {
                storage.remove(&name).map_err(|error| fail("remove", &name, error))?;
            }
        }
        storage.sync_dir().map_err(|error| fail("fsync of the directory", "", error))?;
    }
    Ok(Compacted { generation, bytes_before, bytes_after: snapshots(storage.as_ref())?.1 })
}

/// The snapshots that there are, and how many bytes they have together.
fn snapshots(storage: &dyn Storage) -> Result<(Vec<(u64, String)>, u64), OpenError> {
    let entries = list(storage)?;
    let snapshots = Listing::new(&entries).snapshots;
    let is_one = |name: &str| snapshots.iter().any(|(_, snapshot)| snapshot == name);
    let bytes = entries.iter().filter(|entry| is_one(&entry.name)).map(|entry| entry.bytes).sum();
    Ok((snapshots, bytes))
}
