//! How a store is opened.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::path::Path;

use super::progress::SAVE_LIMIT;
use super::{RecoveryReport, TrustStore};
use crate::clock::{Clock, SystemClock};
use crate::config::Limits;
use crate::error::OpenError;
use crate::map::mix::Mix;
use crate::persist::Storage;
use crate::persist::file::{Directory, LoadMode};
use crate::persist::format::StoreId;
use crate::persist::load::{Loaded, Opening, load_as};
use crate::persist::log::Sizes;
use crate::persist::recover::RecoverPolicy;
use crate::store::keeper::{InMemory, Saver};
use crate::tables::Tables;

/// How to open a store; made by `TrustStore::options`.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// use std::time::Duration;
/// let store = trustkeep::TrustStore::options()
///     .create(true)
///     .close_deadline(Duration::from_secs(5))
///     .open(dir.path().join("store"))?;
/// assert_eq!(store.snapshot().len(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options open nothing by themselves"]
pub struct Options {
    create: bool,
    recover: RecoverPolicy,
    load_mode: LoadMode,
    limits: Limits,
    sizes: Sizes,
    pub(super) close_deadline: Duration,
    save_limit: Duration,
    clock: std::sync::Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            recover: RecoverPolicy::Fail,
            load_mode: LoadMode::Map,
            limits: Limits::default(),
            sizes: Sizes::default(),
            close_deadline: Duration::from_secs(10),
            save_limit: SAVE_LIMIT,
            clock: std::sync::Arc::new(SystemClock),
        }
    }
}

impl Options {
    /// Whether to create the store if it is missing. Yes, unless told otherwise.
    pub const fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// What to do when the newest state is damaged. Refuse, unless told otherwise.
    pub const fn recover(mut self, policy: RecoverPolicy) -> Self {
        self.recover = policy;
        self
    }

    /// How files are read. Mapped, unless told otherwise.
    pub const fn load_mode(mut self, mode: LoadMode) -> Self {
        self.load_mode = mode;
        self
    }

    /// How much each table may hold.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long `close` goes on trying to save. 10 seconds, unless told otherwise.
    pub const fn close_deadline(mut self, deadline: Duration) -> Self {
        self.close_deadline = deadline;
        self
    }

    /// How long one save may run before the disk counts as one that hangs: then [`Health`](crate::Health) is not well, and
    /// the log says so once. Nothing is given up. 5 seconds, unless told otherwise.
    pub const fn save_limit(mut self, limit: Duration) -> Self {
        self.save_limit = limit;
        self
    }

    #[cfg(all(test, feature = "cli", not(trustkeep_loom)))]
    pub(crate) const fn save_limit_now(&self) -> Duration {
        self.save_limit
    }

    /// For tests: small journals, so that few changes show what many do. `ahead_bytes`: how much room a journal has behind its first group;
    /// `journal_bytes_min`: how much journals hold before a snapshot is written.
    #[cfg(feature = "__testing")]
    #[doc(hidden)]
    pub const fn journal_sizes(mut self, ahead_bytes: u64, journal_bytes_min: u64) -> Self {
        let (ahead_bytes_min, ahead_bytes_max) = (ahead_bytes, ahead_bytes);
        self.sizes = Sizes { ahead_bytes_min, ahead_bytes_max, journal_bytes_min, settle_after: None };
        self
    }

    /// For tests: how long after the last save a journal gets its watermark, never without a time. As long as nobody asks for
    /// [`Options::journal_sizes`] it is half a second, behind it never, so that a test's calls do not depend on its pace.
    #[cfg(feature = "__testing")]
    #[doc(hidden)]
    pub const fn settle_after(mut self, after: Option<Duration>) -> Self {
        self.sizes.settle_after = after;
        self
    }

    /// Where the store reads the time.
    pub fn clock(mut self, clock: std::sync::Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the store in this directory, creating it if it is missing and that is allowed (the parent must exist).
    ///
    /// The directory is the store's alone. A directory that is there must be empty or have a store in it: the root of a fresh
    /// volume, with its `lost+found`, is foreign, as is one with a `.gitkeep`; give the store a directory below. It is made
    /// readable by its owner alone (mode 0700), also one that was there and empty.
    ///
    /// # Ordering
    /// Blocking: reads and checks every byte of the newest state, and writes the first one of a new store.
    ///
    /// # Durability
    /// What the store holds when this returns is durable.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was changed, except that a recovery the policy allows may have set files aside.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<TrustStore, OpenError> {
        self.check_limits()?;
        let directory = Directory::own(dir.as_ref(), self.create, self.load_mode)?;
        self.open_storage(std::sync::Arc::new(directory))
    }

    /// Opens the store in this storage, of which the caller is the only owner.
    ///
    /// # Errors
    /// As [`Options::open`].
    #[doc(hidden)]
    pub fn open_storage(self, storage: std::sync::Arc<dyn Storage>) -> Result<TrustStore, OpenError> {
        self.open_storage_as(storage, None)
    }

    /// The same; where the policy gives something up, the state is `instead` of what could be followed.
    pub(crate) fn open_storage_as(
        self,
        storage: std::sync::Arc<dyn Storage>,
        instead: Option<Tables>,
    ) -> Result<TrustStore, OpenError> {
        self.check_limits()?;
        let opening = Opening { create: self.create, policy: self.recover, sizes: self.sizes };
        let begun = self.clock.now();
        let Loaded { tables, generation, saver, report } = load_as(storage, opening, begun, fresh_identity, instead)?;
        let took = self.clock.now().tick.millis_since(begun.tick);
        let took = Duration::from_millis(u64::try_from(took).unwrap_or(0));
        let mut store = self.start(tables, generation, Box::new(saver))?;
        store.id = report.store.map(|store| store.id);
        store.recovery = RecoveryReport::new(report, generation, took);
        Ok(store)
    }

    /// A store with these options and without a directory: what is in memory is as durable as it will ever be.
    ///
    /// # Errors
    /// [`OpenError::Io`]: the operating system gives neither random bytes nor a thread.
    pub fn in_memory(self) -> Result<TrustStore, OpenError> {
        self.check_limits()?;
        self.start(Tables::new(Mix::new(fresh_identity()?.seed)), 0, Box::new(InMemory))
    }

    /// Before anything is touched.
    fn check_limits(&self) -> Result<(), OpenError> {
        self.limits.check().map_err(|(name, value, allowed)| OpenError::Limit { name, value, allowed })
    }

    fn start(self, tables: Tables, generation: u64, saver: Box<dyn Saver>) -> Result<TrustStore, OpenError> {
        let store = TrustStore::start(tables, generation, saver, self.limits, self.clock, self.close_deadline)
            .map_err(|error| OpenError::io("start the keeper thread of", "", error))?;
        store.shared.progress.limit_saves(self.save_limit);
        store.end_trust_under_revoked_keys();
        Ok(store)
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell's source of randomness for a new store")]
pub(crate) fn fresh_identity() -> Result<StoreId, OpenError> {
    let (mut id, mut seed) = ([0; 16], [0; 8]);
    getrandom::fill(&mut id)
        .and_then(|()| getrandom::fill(&mut seed))
        .map_err(|error| OpenError::io("get random bytes for", "", std::io::Error::from(error)))?;
    Ok(StoreId { id, seed: u64::from_le_bytes(seed) })
}
