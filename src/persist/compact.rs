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

#[cfg(all(test, not(trustkeep_loom)))]
#[allow(clippy::unwrap_used, reason = "tests say what must hold by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::peer::{NodeId, TrustRecord};
    use crate::tables::TableChange;
    use crate::testing::sim_disk::SimDisk;

    /// What a recovery would fall back to is gone for good once the command is done.
    #[test]
    fn what_compacting_has_removed_no_crash_brings_back() {
        let disk = SimDisk::new();
        let fresh = || Ok(StoreId { id: [7; 16], seed: 9 });
        for number in 1..=3 {
            let opening = Opening { create: true, policy: RecoverPolicy::Fail, sizes: Sizes::default() };
            let Loaded { tables, generation, mut saver, .. } =
                load(Arc::new(disk.clone()), opening, Now::default(), fresh).unwrap();
            let peer = NodeId::new(number).unwrap();
            let change = TableChange::Trusted(peer, Some(TrustRecord::new(peer, None)));
            saver.save(generation + 1, &tables.apply(&[change]).0).unwrap();
            saver.close().unwrap();
        }
        let names = |disk: &SimDisk| {
            let mut found = BTreeSet::new();
            disk.crash_point().images(1000, 1, &mut |image| {
                found.insert(image.keys().cloned().collect::<Vec<_>>());
            });
            found
        };
        // A snapshot and three journals, of which none is lost.
        assert!(names(&disk).iter().all(|names| names.len() == 5), "{:?}", names(&disk));
        let compacted = compact(Arc::new(disk.clone()), Now::default(), fresh).unwrap();
        assert_eq!(compacted.generation, 3);
        let left = vec!["GENESIS".to_owned(), "snapshot-0000000000000003.tks".to_owned()];
        assert_eq!(names(&disk), BTreeSet::from([left]));
    }
}
