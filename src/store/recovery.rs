//! What opening a store found, for the program that opened it.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::path::PathBuf;

use super::TrustStore;
use super::receipt::Generation;
use crate::persist::report::{Report, SetAside, TornTail};

/// What opening a store found and did, and what of it did not become part of the state; by
/// [`TrustStore::recovery`](crate::TrustStore::recovery).
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = trustkeep::TrustStore::open(dir.path().join("store"))?;
/// let recovery = store.recovery();
/// assert!(recovery.created && recovery.is_clean());
/// if !recovery.is_clean() {
///     eprintln!("{recovery:?}"); // revoke anew what was revoked since `recovery.reached`
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// There was no store, or only the beginning of one, and this made it.
    pub created: bool,
    /// The files that were looked into, in the order in which they were first read. A journal that no part of the state is
    /// in is among them, too.
    pub files: Vec<PathBuf>,
    /// The generation of the state that was read; `None` if there was no state.
    pub reached: Option<Generation>,
    /// The generation under which the store went on. If something was lost, it lies beyond all that may have been
    /// acknowledged.
    pub generation: Generation,
    /// Part of a change that was being saved when the process ended. In good order nobody was told that it was durable; but
    /// damage to the last change before a kill looks the same (`docs/durability.md`).
    pub torn: Option<TornTail>,
    /// Damaged files that the [`RecoverPolicy`](crate::RecoverPolicy) gave up. Without such a policy there are none, for a
    /// damaged file is an [`OpenError`](crate::OpenError).
    pub set_aside: Vec<SetAside>,
    /// Files that a crash or a save that failed had left, and that are removed now. They held nothing of the state.
    pub removed: Vec<PathBuf>,
    /// Changes after [`reached`](Self::reached) were acknowledged, or may have been, and are lost: grants since then are gone,
    /// and a peer that was revoked since then is trusted again. Without a `RecoverPolicy` that allows it, never.
    pub is_lossy: bool,
    /// How long it took, from the locked directory to the durable state, by the store's clock.
    pub took: Duration,
}

impl RecoveryReport {
    pub(super) fn new(report: Report, generation: u64, took: Duration) -> Self {
        let Report { store: _, created, files, reached, torn, set_aside, removed, lossy } = report;
        Self {
            created,
            files,
            reached: reached.map(Generation::new),
            generation: Generation::new(generation),
            torn,
            set_aside,
            removed,
            is_lossy: lossy,
            took,
        }
    }

    /// Whether everything that was found became part of the state, or never was a part of it: nothing was cut off, set
    /// aside or lost. Files that a crash left half-written do not count.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.torn.is_none() && self.set_aside.is_empty() && !self.is_lossy
    }
}

impl TrustStore {
    /// What opening this store found, and what of that did not become part of its state. Of a store in memory it is empty.
    ///
    /// # Ordering
    /// Wait-free; the same for as long as the store is open.
    #[must_use]
    pub const fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// The random number in the store's files, chosen when it was created.
    #[cfg(feature = "cli")]
    pub(crate) const fn id(&self) -> Option<[u8; 16]> {
        self.id
    }
}
