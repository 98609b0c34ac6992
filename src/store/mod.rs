//! The store: one owner, any number of readers, one writer at a time, and a keeper that saves.
//!
//! The way of a change: under the writer lock the next state is derived from the newest and published through one atomic
//! swap; then the keeper's doorbell is rung; the keeper takes the newest state and makes it durable. Readers and writers
//! never wait for it. `docs/design.md` draws this; `docs/concurrency.md` argues every ordering.
#![forbid(unsafe_code)]

mod batch;
pub(crate) mod deferral;
mod durable_future;
mod events;
mod health;
mod inside;
pub(crate) mod keeper;
pub(crate) mod key_index;
mod losses;
mod marks;
mod options;
pub(crate) mod progress;
mod reader;
mod receipt;
mod recovery;
pub(crate) mod shared;
mod snapshot;
mod superseded;
#[cfg(all(test, feature = "handshake", not(trustkeep_loom)))]
mod tests;
mod trust_future;
mod update;
mod waiters;

use core::fmt;
use core::mem::ManuallyDrop;
use core::time::Duration;
use std::io;
use std::path::Path;

pub use batch::Batch;
use batch::{grant_one, refused};
pub use durable_future::DurableFuture;
#[cfg(all(test, trustkeep_loom))]
pub(crate) use events::Hub;
pub use events::Subscription;
pub use health::{FailingDisk, FailingSnapshots, Health, KeeperState, NearLimit, RunningSave};
pub(crate) use losses::{Enforcer, Losses};
pub use options::Options;
#[cfg(feature = "cli")]
pub(crate) use options::fresh_identity;
pub use reader::TrustReader;
pub use receipt::{Generation, KeyRevoked, Receipt, Revoked};
pub use recovery::RecoveryReport;
pub use snapshot::{Change, Snapshot, SnapshotIter};
pub use trust_future::TrustFuture;

use crate::clock::Clock;
use crate::config::Limits;
use crate::error::{OpenError, PersistError, WriteError};
use crate::peer::{NodeId, PublicKey, RevocationId, TrustRecord};
use crate::sync::{Arc, Deadline, JoinHandle, Mutex, is_current, spawn};
use crate::tables::Tables;
use crate::tables::table::Table as _;
use keeper::Saver;
use progress::{OnFailure, Stopped};
use shared::Shared;
pub(crate) use shared::{TransactError, Transaction};

/// The owner of a trust store; share it in an `Arc`. Dropping it tries once to save what is left and joins the keeper.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// use trustkeep::{NodeId, TrustRecord, TrustStore};
/// let store = TrustStore::open(dir.path().join("store"))?;
/// let peer = NodeId::new(7).ok_or("not an id")?;
///
/// let receipt = store.grant(TrustRecord::new(peer, None))?; // visible to every reader now
/// assert!(store.is_trusted(peer));
/// receipt.wait_durable()?; // survives kill -9 and power loss from here on
///
/// let revoked = store.revoke(peer)?;
/// assert!(!store.is_trusted(peer));
/// assert!(revoked.was.is_some());
/// store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TrustStore {
    shared: Arc<Shared>,
    /// Empty before it goes. In a forked process it is kept: there the thread's handle may by now name another thread.
    keeper: ManuallyDrop<Mutex<Option<JoinHandle<()>>>>,
    close_deadline: Duration,
    /// Which store it is, as its files say; none in memory.
    id: Option<[u8; 16]>,
    recovery: RecoveryReport,
}

impl TrustStore {
    /// Opens the store in this directory with the default [`Options`]; creates it if it is missing (the parent must
    /// exist). Blocks until the first state is durable.
    ///
    /// # Errors
    /// See [`OpenError`]. A damaged store is an error, never an empty store.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::options().open(dir)
    }

    /// Options for opening a store.
    pub fn options() -> Options {
        Options::default()
    }

    /// A store without a directory, for tests and for trust that need not outlive the process.
    ///
    /// # Panics
    /// If the operating system gives neither random bytes nor a thread.
    #[must_use]
    pub fn in_memory() -> Self {
        match Self::options().in_memory() {
            Ok(store) => store,
            #[expect(clippy::panic, reason = "documented; a system without threads or randomness cannot run this")]
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn start(
        tables: Tables,
        generation: u64,
        saver: Box<dyn Saver>,
        limits: Limits,
        clock: std::sync::Arc<dyn Clock>,
        close_deadline: Duration,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(tables, generation, !saver.is_durable(), limits, clock));
        let thread = spawn("trustkeep-keeper", {
            let shared = Arc::clone(&shared);
            move || keeper::run(shared, saver)
        })?;
        let keeper = ManuallyDrop::new(Mutex::new(Some(thread)));
        Ok(Self { shared, keeper, close_deadline, id: None, recovery: RecoveryReport::default() })
    }

    /// A reading handle; each hot thread should have its own.
    #[must_use]
    pub fn reader(&self) -> TrustReader {
        TrustReader::new(self.shared.cell().reader())
    }

    /// The trusted records of this moment.
    ///
    /// # Ordering
    /// Lock-free, constant time.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.shared.cell().load_full())
    }

    /// Whether the peer is trusted, at the cost of one cache line as a rule. A [`TrustReader`] answers from one whole
    /// generation; this answers for one peer at a time.
    ///
    /// # Ordering
    /// Lock-free and linearizable for each peer: sees every change whose call returned before this one began. While an
    /// [`update`](Self::update) of several peers runs, some may be seen changed and others not yet; while a grant runs, a
    /// reader may say yes a moment before this does. Takes no lock, waits for nothing, allocates and frees nothing.
    ///
    /// # Complexity
    /// Constant.
    ///
    /// # Source
    /// C-9 in `docs/concurrency.md`.
    #[must_use]
    #[inline]
    pub fn is_trusted(&self, peer: NodeId) -> bool {
        self.shared.is_trusted(peer)
    }

    /// Whether the peer is trusted under this key; of a record without a key, no.
    ///
    /// # Ordering
    /// As [`TrustStore::get`].
    #[must_use]
    #[inline]
    pub fn is_trusted_with_key(&self, peer: NodeId, key: &PublicKey) -> bool {
        self.get(peer).is_some_and(|record| record.public_key.as_ref() == Some(key))
    }

    /// The peer's record, if it is trusted. A [`TrustReader`] answers faster.
    ///
    /// # Ordering
    /// Lock-free and linearizable: sees every change whose call returned before this one began. Takes no lock, waits for
    /// nothing and frees no old version. A thread's first call may allocate.
    #[must_use]
    #[inline]
    pub fn get(&self, peer: NodeId) -> Option<TrustRecord> {
        self.shared.cell().with(|version| version.trusted.get(peer))
    }

    /// Trusts a peer, or changes the terms on which it is trusted, and settles what was pending.
    ///
    /// # Ordering
    /// When this returns, every read that begins sees it. Waits only for other writers' publishes, never for the disk.
    ///
    /// # Durability
    /// As the receipt says. Granting what is there already changes and writes nothing.
    ///
    /// # Complexity
    /// Copies some nodes of at most 8 KiB on one path of a tree whose height grows with the logarithm of the number of
    /// records (1 level of nodes up to some ten thousand, 2 up to some million).
    ///
    /// # Errors
    /// [`WriteError`] with the record; nothing changed. [`WriteError::Revoked`] if the peer or the key is revoked.
    pub fn grant(&self, record: TrustRecord) -> Result<Receipt, WriteError<TrustRecord>> {
        self.grant_with(record, None)
    }

    fn grant_with(&self, record: TrustRecord, lift: Option<RevocationId>) -> Result<Receipt, WriteError<TrustRecord>> {
        let outcome = Shared::publish(&self.shared, None, |tables, is_heard| {
            let (draft, events) = grant_one(tables, &record, lift, self.shared.limits.trusted_max, is_heard)?;
            Ok((draft, events, ()))
        });
        outcome.map(|((), receipt)| receipt).map_err(|error| match error {
            TransactError::Refused(marked) => refused(record, marked),
            TransactError::Write(error) => error.map(|()| record),
        })
    }

    /// Revokes a peer, whatever is known of it, and marks it as revoked until an operator lifts that. Revoking it again keeps
    /// the time of the mark; the outcome says what else there was.
    ///
    /// A node that runs over this store cuts the peer off a moment later and reports that. It sends no farewell:
    /// [`HandshakeManager::revoke`](crate::HandshakeManager::revoke) does.
    ///
    /// # Ordering
    /// As [`TrustStore::grant`].
    ///
    /// # Durability
    /// Enforced at once, durable as the receipt says: a revocation is kept as firmly as a grant.
    ///
    /// # Errors
    /// [`WriteError`] with the id; nothing changed.
    pub fn revoke(&self, peer: NodeId) -> Result<Revoked, WriteError<NodeId>> {
        let revoke = |batch: &mut Batch<'_>| (batch.found(peer), batch.revoke(peer));
        let outcome = self.write(self.shared.now().wall, revoke).map_err(|error| error.map(|()| peer));
        outcome.map(|(((waited, asked, marked), was), receipt)| Revoked {
            waited,
            asked,
            marked,
            ..Revoked::new(receipt, was)
        })
    }

    /// Blocks until everything published before this call is durable; asks for an attempt now, even if the disk failed
    /// a moment ago.
    ///
    /// # Durability
    /// As [`Receipt::wait_durable`], for the generation that is returned and all before it.
    ///
    /// # Errors
    /// The first failure of an attempt that begins from now on; the store goes on trying.
    pub fn flush(&self) -> Result<Generation, PersistError> {
        if self.shared.is_forked() {
            return Err(PersistError::Forked);
        }
        if self.shared.is_inside() {
            return Err(PersistError::Reentrant);
        }
        let generation = self.shared.generation();
        let ticket = self.shared.progress.ticket(generation, OnFailure::ReportNext);
        if !ticket.is_answered() {
            self.shared.progress.hurry(generation, true);
        }
        ticket.wait(Deadline::NEVER).map(|()| Generation::new(generation))
    }

    /// The newest published generation.
    ///
    /// # Ordering
    /// Wait-free.
    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation::new(self.shared.generation())
    }

    /// The newest generation that survives kill and power loss.
    ///
    /// # Ordering
    /// Wait-free.
    #[must_use]
    pub fn durable_generation(&self) -> Generation {
        Generation::new(self.shared.progress.durable())
    }

    /// Blocks until the peer is trusted, at most this long; true if it is. False also when the store closes.
    ///
    /// # Ordering
    /// No grant is missed, whenever it happens; each waiter is woken once; a timeout leaves nothing behind.
    #[must_use]
    pub fn wait_for_trust(&self, peer: NodeId, timeout: Duration) -> bool {
        self.is_trusted(peer) || self.shared.wait_for_trust(peer, Deadline::after(timeout))
    }

    /// The same as a future, for programs whose tasks are not threads.
    ///
    /// # Ordering
    /// As [`TrustStore::wait_for_trust`]; see [`TrustFuture`].
    pub fn trust_future(&self, peer: NodeId) -> TrustFuture {
        TrustFuture::new(Arc::clone(&self.shared), peer)
    }

    /// Events from now on, in the order of publication. Of a closed store, in a forked process, and inside the closure of
    /// [`update`](Self::update) it is a subscription that has ended.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.shared.subscribe(self.limits().subscription_events_max)
    }

    /// A subscription for a caller that looks again whatever happened, and needs no more than one event for that.
    #[cfg(feature = "cli")]
    pub(crate) fn subscribe_to_any(&self) -> Subscription {
        self.shared.subscribe(1)
    }

    /// How durability is doing. In a forked process it says that, and how many peers are revoked; inside the closure of
    /// [`update`](Self::update) it counts no waiters, retained versions and tables that are near their limits.
    #[must_use]
    pub fn health(&self) -> Health {
        let shared = &self.shared;
        let revoked = shared.cell().with(|version| version.revoked.len());
        if shared.is_forked() {
            return Health { revoked, ..Health::forked(shared.generation(), shared.progress.durable()) };
        }
        let tables = shared.tables();
        let near_limits = tables.as_ref().map_or_else(Vec::new, |tables| NearLimit::of(tables, &shared.limits));
        let waiters = shared.waiters_len();
        let health = Health::new(&shared.progress, shared.generation(), shared.superseded_len(), waiters);
        Health { revoked, revoked_max: shared.limits.revoked_max, near_limits, ..health }
    }

    /// Refuses further changes, saves what is not durable yet (if anything), and gives the directory free.
    ///
    /// Goes on trying through failures until the deadline (`Options::close_deadline`). Calling it again tries again;
    /// concurrent calls are fine. Reading goes on working, here and by [`TrustReader`]s, and answers from then on by the last
    /// state: nobody's trust ends any more. What decides by it must stop with the store.
    ///
    /// # Durability
    /// After `Ok` everything ever published is durable. If nothing changed, nothing is written.
    ///
    /// # Errors
    /// [`PersistError::TimedOut`] with the failure behind it: the changes are still in memory, and the store goes on
    /// trying until it is dropped. [`PersistError::Displaced`]: everything was saved, but the directory, its lock or a file in
    /// it is not as it was left.
    pub fn close(&self) -> Result<Generation, PersistError> {
        if self.shared.is_forked() {
            return Err(PersistError::Forked);
        }
        if self.shared.is_inside() {
            return Err(PersistError::Reentrant);
        }
        let deadline = Deadline::after(self.close_deadline);
        let generation = self.shared.close(false);
        let stopped = self.shared.progress.wait_stopped(deadline);
        if stopped.is_some() {
            self.join();
        }
        if self.shared.progress.durable() >= generation {
            return match stopped {
                // The directory is free, or there is nobody left to free it later.
                Some(_) => match self.shared.progress.failing() {
                    // Everything was saved, and then it was displaced.
                    Some(failing) => Err(failing.error),
                    None => Ok(Generation::new(generation)),
                },
                None => Err(PersistError::TimedOut { cause: None }),
            };
        }
        Err(match stopped {
            Some(Stopped::Panicked) => PersistError::KeeperPanicked,
            Some(Stopped::Left) => PersistError::Abandoned,
            None => {
                PersistError::TimedOut { cause: self.shared.progress.failing().map(|failing| Box::new(failing.error)) }
            }
        })
    }

    /// False if it cannot wait: on the keeper's own thread, which a waker may run on. The keeper leaves by itself then.
    fn join(&self) -> bool {
        let Some(thread) = self.keeper.lock().take() else { return true };
        if is_current(&thread) {
            return false;
        }
        // A panic in there was reported through `progress`.
        let _ = thread.join();
        true
    }
}

impl Drop for TrustStore {
    /// Tries once to save what is not durable and joins the keeper; may wait for the disk. Never panics; what could not
    /// be saved is logged. By a waker on the keeper's thread: has the keeper do so afterwards, and waits for nothing. In a
    /// process that was forked from the store's: does nothing.
    fn drop(&mut self) {
        if self.shared.is_forked() {
            return;
        }
        let generation = self.shared.close(true);
        if !self.join() {
            return;
        }
        let durable = self.shared.progress.durable();
        if durable < generation {
            tracing::error!(generation, durable, "a store was dropped with changes that could not be saved");
        }
    }
}

impl fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustStore").field("shared", &self.shared).finish_non_exhaustive()
    }
}
