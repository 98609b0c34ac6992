//! Generations, and receipts that say when one is durable.
#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;

use super::durable_future::DurableFuture;
use super::progress::{OnFailure, Progress, Slot, Ticket};
use crate::error::PersistError;
use crate::peer::{NodeId, TrustRecord};
use crate::sync::{Arc, Deadline};
use crate::tables::Revocation;

/// A number that every saved change of any table raises by one. Readers, which see trusted records only, may skip some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(u64);

impl Generation {
    #[inline]
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<Generation> for u64 {
    fn from(generation: Generation) -> Self {
        generation.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A change that is visible to every reader, and the means to learn when it survives a crash.
///
/// Dropping it is fine: the change becomes durable all the same. Keeping it keeps nothing of the store's state.
#[derive(Clone)]
#[must_use = "the change is visible but perhaps not durable yet; drop the receipt to say that this does not matter"]
pub struct Receipt {
    progress: Arc<Progress>,
    generation: u64,
    /// Whether the keeper saves it at once; a change of floors alone may take its time, unless somebody waits.
    urgent: bool,
    /// The newest generation up to this one that changed anything but floors and repeats (R-198). One that is put off
    /// (R-294) is among them: who waits for it alone waits until it is saved.
    news: u64,
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (generation, is_durable) = (self.generation, self.is_durable());
        f.debug_struct("Receipt")
            .field("generation", &generation)
            .field("is_durable", &is_durable)
            .finish_non_exhaustive()
    }
}

/// As [`Receipt::durable_future`]: `store.grant(record)?.await?`.
impl IntoFuture for Receipt {
    type Output = Result<(), PersistError>;
    type IntoFuture = DurableFuture;

    fn into_future(self) -> DurableFuture {
        DurableFuture::new(self)
    }
}

impl Receipt {
    pub(super) fn new(progress: Arc<Progress>, generation: u64, urgent: bool, news: u64) -> Self {
        Self { progress, generation, urgent, news: news.min(generation) }
    }

    /// Of all that anybody decided up to here: not of the floors and repeats that came after it, for which nobody need wait.
    pub(crate) fn of_news(&self) -> Self {
        Self { generation: self.news, urgent: true, ..self.clone() }
    }

    /// The generation that contains the change. A call that changed nothing gives the newest one.
    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    /// Whether the change survives kill and power loss by now.
    ///
    /// # Ordering
    /// Wait-free.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.progress.durable() >= self.generation
    }

    /// Blocks until the change is durable, or until saving fails.
    ///
    /// # Durability
    /// After `Ok` this change and all before it survive kill and power loss, on a disk that honours fsync.
    ///
    /// # Errors
    /// The failure that stands, else the first that occurs; the store goes on trying all the same. From inside `update`:
    /// [`PersistError::Reentrant`].
    pub fn wait_durable(&self) -> Result<(), PersistError> {
        self.wait(OnFailure::Report, Deadline::NEVER)
    }

    /// Blocks until the change is durable, at most this long; failures on the way are waited out.
    ///
    /// # Durability
    /// As [`Receipt::wait_durable`].
    ///
    /// # Errors
    /// [`PersistError::TimedOut`] with the failure that stood in the way, if any; the store goes on trying.
    pub fn wait_durable_timeout(&self, timeout: Duration) -> Result<(), PersistError> {
        self.wait(OnFailure::RideOut, Deadline::after(timeout))
    }

    /// The same as [`Receipt::wait_durable`] as a future, for programs whose tasks are not threads.
    ///
    /// # Examples
    /// ```
    /// use std::future::Future as _;
    /// use std::task::{Context, Poll, Waker};
    /// use trustkeep::{NodeId, TrustRecord, TrustStore};
    ///
    /// let store = TrustStore::in_memory();
    /// let receipt = store.grant(TrustRecord::new(NodeId::new(7).ok_or("no id")?, None))?;
    /// let mut durable = Box::pin(receipt.durable_future()); // in an async function: `.await`
    /// while durable.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
    ///     std::thread::yield_now();
    /// }
    /// assert!(receipt.is_durable());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn durable_future(&self) -> DurableFuture {
        DurableFuture::new(self.clone())
    }

    fn wait(&self, on_failure: OnFailure, deadline: Deadline) -> Result<(), PersistError> {
        if self.progress.is_forked() {
            return Err(PersistError::Forked);
        }
        if self.is_durable() {
            return Ok(());
        }
        if self.is_inside() {
            return Err(PersistError::Reentrant);
        }
        self.ticket(on_failure).wait(deadline)
    }

    /// Whether this process was forked from the store's, where nothing becomes durable.
    pub(super) fn is_forked(&self) -> bool {
        self.progress.is_forked()
    }

    /// Whether this thread is inside the closure of `update`, where nobody may wait.
    pub(super) fn is_inside(&self) -> bool {
        self.progress.is_inside()
    }

    /// Registers, and has the keeper hurry if it would take its time.
    pub(super) fn ticket(&self, on_failure: OnFailure) -> Ticket<'_> {
        let ticket = self.progress.ticket(self.generation, on_failure);
        if !self.urgent && !ticket.is_answered() {
            self.progress.hurry(self.generation, false);
        }
        ticket
    }

    /// Takes out a task that waits no longer.
    pub(super) fn forget(&self, slot: &Slot) {
        let _ = self.progress.forget(slot);
    }
}

/// The outcome of a revocation.
#[derive(Clone, Debug)]
#[must_use = "the revocation is enforced but perhaps not durable yet"]
#[non_exhaustive]
pub struct Revoked {
    /// When the revocation is durable.
    pub receipt: Receipt,
    /// What the peer's record was, if it was trusted.
    pub was: Option<TrustRecord>,
    /// Whether the peer waited for an operator.
    pub waited: bool,
    /// Whether we had asked it.
    pub asked: bool,
    /// The mark that it had already.
    pub marked: Option<Revocation>,
}

/// The outcome of the revocation of a key.
#[derive(Clone, Debug)]
#[must_use = "the revocation is enforced but perhaps not durable yet"]
#[non_exhaustive]
pub struct KeyRevoked {
    /// When the mark, and the end of all trust under the key, are durable.
    pub receipt: Receipt,
    /// The peers that were trusted under it, by id.
    pub ended: Vec<NodeId>,
    /// The peers that are trusted still, by id, under a key that this one had named as its successor. If this key was stolen
    /// before, that key may be the thief's: revoke the peer, unless its operator has told its fingerprint.
    pub named: Vec<NodeId>,
    /// The mark that the key had already.
    pub marked: Option<Revocation>,
}

impl KeyRevoked {
    pub(crate) fn new(
        receipt: Receipt,
        mut ended: Vec<NodeId>,
        mut named: Vec<NodeId>,
        marked: Option<Revocation>,
    ) -> Self {
        ended.sort_unstable();
        named.sort_unstable();
        Self { receipt, ended, named, marked }
    }
}

impl Revoked {
    pub(crate) fn new(receipt: Receipt, was: Option<TrustRecord>) -> Self {
        Self { receipt, was, waited: false, asked: false, marked: None }
    }
}
