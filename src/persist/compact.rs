//! Makes a closed store as small as it gets: one snapshot of the newest state, and nothing that it supersedes.
//!
//! INVARIANT I-C1: what is superseded goes only when the new snapshot and its name are durable, so that a crash at any
//! moment leaves the same state.
//! INVARIANT I-C2: where nothing can be gained, nothing is written.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::Storage;
use super::load::{Loaded, Opening, list, load};
use super::log::Sizes;
use super::recover::{Listing, RecoverPolicy};
use crate::error::OpenError;
use crate::persist::format::StoreId;
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

/// Writes the newest state as one snapshot and removes journals and older snapshots, among them what a recovery would fall
/// back to. The caller owns the storage; `fresh` makes random numbers, as for [`load`].
///
/// # Errors
/// As opening the store under [`RecoverPolicy::Fail`].
pub(crate) fn compact(
    storage: Arc<dyn Storage>,
    now: Now,
    fresh: impl Fn() -> Result<StoreId, OpenError>,
) -> Result<Compacted, OpenError> {
    let (files, bytes_before) = files(storage.as_ref())?;
    let opening = Opening { create: false, policy: RecoverPolicy::Fail, sizes: Sizes::default() };
    let Loaded { generation, mut saver, .. } = load(Arc::clone(&storage), opening, now, fresh)?;
    if files > 1 {
        saver.compact().map_err(OpenError::Persist)?;
    }
    Ok(Compacted { generation, bytes_before, bytes_after: self::files(storage.as_ref())?.1 })
}

/// How many files hold states, and how many bytes they have together.
fn files(storage: &dyn Storage) -> Result<(usize, u64), OpenError> {
    let entries = list(storage)?;
    let Listing { snapshots, journals, .. } = Listing::new(&entries);
    let holds = |name: &str| snapshots.iter().chain(&journals).any(|(_, of)| of == name);
    let bytes = entries.iter().filter(|entry| holds(&entry.name)).map(|entry| entry.bytes).sum();
    Ok((snapshots.len() + journals.len(), bytes))
}
