//! What several measurements need and what takes long to make: made once in a run, when it is first asked for.
//!
//! What must hold: whoever uses these leaves the same peers in them, whatever their terms are then.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a peer is a lock; a measurement copies files, and stops when something does not hold"
)]

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use trustkeep::{Batch, TrustStore};

use crate::changes::settle;
use crate::directory::StoreFiles;
use crate::peers::maps::{Bare, Handle, ImblHash, Map as _, Swapped};
use crate::workload::record;

/// The size of all of them.
pub(super) const MILLION: u32 = 1_000_000;

/// Maps and stores of a million records.
#[derive(Debug, Default)]
pub(super) struct Fixtures {
    store: OnceCell<TrustStore>,
    locked: OnceCell<parking_lot::RwLock<Bare>>,
    imbl: OnceCell<Swapped<ImblHash>>,
    files: OnceCell<PathBuf>,
}

impl Fixtures {
    pub(super) fn store(&self) -> &TrustStore {
        self.store.get_or_init(|| Handle::filled(MILLION).0)
    }

    /// Bare, too, for whoever holds the lock for reading.
    pub(super) fn locked(&self) -> &parking_lot::RwLock<Bare> {
        self.locked.get_or_init(|| parking_lot::RwLock::filled(MILLION))
    }

    pub(super) fn imbl(&self) -> &Swapped<ImblHash> {
        self.imbl.get_or_init(|| Swapped::filled(MILLION))
    }

    /// A closed store's directory under this name, which is the caller's own: a snapshot, and a journal with one change.
    pub(super) fn files(&self, home: &Path, name: &str) -> PathBuf {
        let original = self.files.get_or_init(|| {
            let dir = home.join("million");
            let store = TrustStore::open(&dir).unwrap();
            // All in one group of the journal, which the next change finds long enough for a snapshot.
            let key = crate::key();
            let all = |batch: &mut Batch<'_>| (0..MILLION).all(|number| batch.grant(record(number, key, 1)).is_ok());
            let (fits, receipt) = store.update(all).unwrap();
            assert!(fits);
            receipt.wait_durable().unwrap();
            store.grant(record(0, key, 2)).unwrap().wait_durable().unwrap();
            settle(&dir).unwrap();
            assert!(StoreFiles::read(&dir).unwrap().snapshot.is_some_and(|(_, bytes)| bytes > u64::from(MILLION) * 40));
            store.close().unwrap();
            dir
        });
        let copy = home.join(name);
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(original).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::fill;

    #[test]
    fn copies_of_files_are_stores_of_their_own() {
        let home = crate::directory::temporary(None).unwrap();
        let fixtures = Fixtures::default();
        let dir = home.path().join("million");
        let store = TrustStore::open(&dir).unwrap();
        fill(&store, 100);
        store.close().unwrap();
        fixtures.files.set(dir).unwrap();
        let (one, other) = (fixtures.files(home.path(), "one"), fixtures.files(home.path(), "other"));
        let open = |dir| TrustStore::options().create(false).open(dir).unwrap();
        let (one, other) = (open(one), open(other));
        one.revoke(crate::workload::id(7)).unwrap().receipt.wait_durable().unwrap();
        assert_eq!((one.snapshot().len(), other.snapshot().len()), (99, 100));
    }
}
