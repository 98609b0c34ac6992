//! The only door to concurrency: locks, atomics, the published cell, the doorbell, threads.
//!
//! Every type here has a twin of the same methods for the model checker, chosen by `cfg(all(test, trustkeep_loom))`, so
//! that the protocols built on them are run under every interleaving. Files that use this module carry no inline tests
//! (those could not run outside a model); their models are in `loom_tests`. What must hold between the two sides of each
//! protocol is written down in `docs/concurrency.md`.

#[cfg(not(all(test, trustkeep_loom)))]
#[path = "sync/native.rs"]
mod imp;
#[cfg(all(test, trustkeep_loom))]
#[path = "sync/model.rs"]
mod imp;

use crate::foreign;
use std::task::Waker;
use std::time::{Duration, Instant};

pub(crate) use imp::{
    Arc, AtomicU64, CellReader, Condvar, Doorbell, JoinHandle, Line, Lines, Mutex, MutexGuard, OnceLock, Ordering,
    Process, SnapshotCell, Witness, Word, is_current, spawn, thread_token,
};
#[cfg(feature = "cli")]
pub(crate) use imp::{QueueReceiver, QueueSender, queue};

/// A cache line is 64 bytes.
pub(crate) const WORDS_PER_LINE: usize = 8;

/// A moment until which a thread is willing to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Wait for ever.
    pub(crate) const NEVER: Self = Self(None);

    /// This long from now; for ever if that moment cannot be expressed.
    #[expect(clippy::disallowed_methods, reason = "a deadline of a blocking wait is real time by definition")]
    pub(crate) fn after(wait: Duration) -> Self {
        Self(Instant::now().checked_add(wait))
    }

    pub(crate) fn instant(self) -> Option<Instant> {
        self.0
    }

    /// The one of the two that passes first.
    pub(crate) fn or_earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(other)) => Self(Some(one.min(other))),
            (one, other) => Self(one.or(other)),
        }
    }

    /// Whether it is over. In a model, where no time passes, it never is.
    #[expect(clippy::disallowed_methods, reason = "a deadline of a blocking wait is real time by definition")]
    pub(crate) fn has_passed(self) -> bool {
        !cfg!(all(test, trustkeep_loom)) && self.0.is_some_and(|until| Instant::now() >= until)
    }

    /// How long it is until then.
    #[cfg(feature = "cli")]
    #[expect(clippy::disallowed_methods, reason = "a deadline of a blocking wait is real time by definition")]
    pub(crate) fn remaining(self) -> Duration {
        self.0.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
    }
}

/// Fills many slots. All are filled, and all threads woken, before the first task's waker is called, which may take its time.
pub(crate) fn wake_all<T>(answers: impl Iterator<Item = (Arc<OneShot<T>>, T)>) {
    let tasks: Vec<Waker> = answers.filter_map(|(slot, value)| slot.fill(value)).collect();
    tasks.into_iter().for_each(|task| wake_task(Some(task)));
}

/// A waker is somebody else's code: it is called with no lock held, and a panic in it ends here.
fn wake_task(task: Option<Waker>) {
    if let Some(task) = task
        && foreign::run(|| task.wake()).is_err()
    {
        tracing::error!("the waker of a task panicked");
    }
}

/// A slot that one thread (or one task) waits on and another fills, once.
///
/// Each waiter has its own, so that a hundred of them are woken one by one and never as a herd.
#[derive(Debug)]
pub(crate) struct OneShot<T> {
    slot: Mutex<Slot<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Slot<T> {
    value: Option<T>,
    /// Of the task that looked last and found nothing.
    waker: Option<Waker>,
}

impl<T> OneShot<T> {
    pub(crate) fn new() -> Self {
        Self { slot: Mutex::new(Slot { value: None, waker: None }), filled: Condvar::new() }
    }

    /// Fills the slot and wakes its waiter; a slot that is full already keeps what it has.
    ///
    /// A waker is somebody else's code: it runs with no lock held, and a panic in it ends here.
    pub(crate) fn put(&self, value: T) {
        wake_task(self.fill(value));
    }

    /// The same, but that a task is left to be woken by [`wake_task`].
    fn fill(&self, value: T) -> Option<Waker> {
        let mut slot = self.slot.lock();
        if slot.value.is_some() {
            return None;
        }
        slot.value = Some(value);
        let waker = slot.waker.take();
        drop(slot);
        self.filled.notify_one();
        waker
    }

    /// Fills the slot though nobody waits here any more, and wakes nobody; a slot that is full already keeps what it has.
    pub(crate) fn abandon(&self, value: T) {
        let mut slot = self.slot.lock();
        slot.value.get_or_insert(value);
        let unused = slot.waker.take();
        drop(slot);
        drop(unused);
    }

    /// What is in it by now.
    pub(crate) fn take(&self) -> Option<T> {
        self.slot.lock().value.take()
    }

    /// Blocks until the slot is filled or the deadline passes; `None` means the latter.
    pub(crate) fn wait(&self, deadline: Deadline) -> Option<T> {
        let mut slot = self.slot.lock();
        loop {
            if let Some(value) = slot.value.take() {
                return Some(value);
            }
            let (guard, timed_out) = self.filled.wait_until(slot, deadline);
            slot = guard;
            if timed_out {
                return slot.value.take();
            }
        }
    }

    /// What the slot was filled with; if nothing yet, this task is the one that is woken when it is.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<T> {
        // Cloning and dropping a waker is somebody else's code, too: both happen outside the lock.
        let waker = waker.clone();
        let mut slot = self.slot.lock();
        let value = slot.value.take();
        let unused = if value.is_some() { Some(waker) } else { slot.waker.replace(waker) };
        drop(slot);
        drop(unused);
        value
    }

    /// Whether it is filled, and nobody has taken what it was filled with.
    pub(crate) fn is_full(&self) -> bool {
        self.slot.lock().value.is_some()
    }
}
