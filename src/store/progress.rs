//! How far the disk is: the durable generation, a failure that stands, and who waits for either.
//!
//! Each waiter has a slot of its own and is woken by itself when the news concerns it, never with the herd.
#![forbid(unsafe_code)]

use crate::error::PersistError;
use crate::sync::{Arc, AtomicU64, Deadline, Mutex, OneShot, Ordering};
use crate::time::WallMillis;

/// Shared between the keeper, which reports, and everybody else, who asks or waits.
#[derive(Debug)]
pub(crate) struct Progress {
    durable: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    failing: Option<Failing>,
    snapshots: Option<FailingSnapshots>,
    stopped: Option<Stopped>,
    waiters: Vec<Waiter>,
    /// Those who wait for the keeper to have left.
    farewell: Vec<Arc<OneShot<()>>>,
}

/// A failure that stands since some time.
#[derive(Clone, Debug)]
pub(crate) struct Failing {
    pub(crate) since: WallMillis,
    pub(crate) attempts: u64,
    pub(crate) error: PersistError,
}

/// Snapshots that fail since some time, which puts no change at risk.
#[derive(Clone, Debug)]
pub(crate) struct FailingSnapshots {
    pub(crate) failing: Failing,
    pub(crate) journal_bytes: u64,
}

/// Why the keeper is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It was told to leave, and did.
    Left,
    Panicked,
}

impl Stopped {
    fn error(self) -> PersistError {
        match self {
            Self::Left => PersistError::Abandoned,
            Self::Panicked => PersistError::KeeperPanicked,
        }
    }
}

/// What a waiter makes of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// The one that stands, or else the next one.
    Report,
    /// The next one: somebody has just asked for another attempt.
    ReportNext,
    /// None: go on waiting until the deadline.
    RideOut,
}

#[derive(Clone, Debug)]
struct Waiter {
    generation: u64,
    on_failure: OnFailure,
    slot: Slot,
}

/// Where one waiter's answer is put.
pub(super) type Slot = Arc<OneShot<Result<(), PersistError>>>;

/// A registered interest in a generation becoming durable.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    progress: &'a Progress,
    state: TicketState,
}

#[derive(Debug)]
pub(super) enum TicketState {
    Answered(Result<(), PersistError>),
    Waiting(Slot),
}

impl Progress {
    pub(crate) fn new(durable: u64) -> Self {
        Self {
            durable: AtomicU64::new(durable),
            inner: Mutex::new(Inner {
                failing: None,
                snapshots: None,
                stopped: None,
                waiters: Vec::new(),
                farewell: Vec::new(),
            }),
        }
    }

    pub(crate) fn durable(&self) -> u64 {
        // ORDERING: Acquire, pairs with the Release store in `saved` (C-6): who sees a generation here may rely on
        // everything that made it durable having been done.
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn failing(&self) -> Option<Failing> {
        self.inner.lock().failing.clone()
    }

    pub(crate) fn failing_snapshots(&self) -> Option<FailingSnapshots> {
        self.inner.lock().snapshots.clone()
    }

    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.inner.lock().stopped
    }

    /// Registers; nothing reported after this call is missed.
    pub(crate) fn ticket(&self, generation: u64, on_failure: OnFailure) -> Ticket<'_> {
        let mut inner = self.inner.lock();
        let answer = if self.durable() >= generation {
            Some(Ok(()))
        } else if let Some(stopped) = inner.stopped {
            Some(Err(stopped.error()))
        } else if on_failure == OnFailure::Report
            && let Some(failing) = &inner.failing
        {
            Some(Err(failing.error.clone()))
        } else {
            None
        };
        let state = match answer {
            Some(answer) => TicketState::Answered(answer),
            None => {
                let slot = Arc::new(OneShot::new());
                inner.waiters.push(Waiter { generation, on_failure, slot: Arc::clone(&slot) });
                TicketState::Waiting(slot)
            }
        };
        Ticket { progress: self, state }
    }

    /// Takes out a waiter who waits no longer; says what stands in its way, and whether it was answered meanwhile.
    pub(super) fn forget(&self, slot: &Slot) -> (Option<PersistError>, bool) {
        let mut inner = self.inner.lock();
        let before = inner.waiters.len();
        inner.waiters.retain(|waiter| !Arc::ptr_eq(&waiter.slot, slot));
        (inner.failing.as_ref().map(|failing| failing.error.clone()), inner.waiters.len() == before)
    }

    /// How many wait for a generation to become durable.
    pub(crate) fn waiters_len(&self) -> usize {
        self.inner.lock().waiters.len()
    }

    /// For the keeper: everything up to this generation is durable. Returns how many waited for that.
    pub(crate) fn saved(&self, generation: u64) -> usize {
        let answered = {
            let mut inner = self.inner.lock();
            // ORDERING: Release, pairs with the Acquire load in `durable` (C-6).
            self.durable.store(generation, Ordering::Release);
            inner.failing = None;
            inner.take(|waiter| waiter.generation <= generation)
        };
        let count = answered.len();
        for waiter in answered {
            waiter.slot.put(Ok(()));
        }
        count
    }

    /// For writers of a store that saves nothing, before anybody hears of this generation: so nobody waits for it.
    pub(crate) fn is_as_durable_as_ever(&self, generation: u64) {
        // ORDERING: Release, as in `saved` (C-6).
        self.durable.store(generation, Ordering::Release);
    }

    /// For the keeper: an attempt to save failed.
    pub(crate) fn failed(&self, error: &PersistError, now: WallMillis) {
        let answered = {
            let mut inner = self.inner.lock();
            let (since, attempts) = inner.failing.as_ref().map_or((now, 0), |old| (old.since, old.attempts));
            inner.failing = Some(Failing { since, attempts: attempts.saturating_add(1), error: error.clone() });
            inner.take(|waiter| waiter.on_failure != OnFailure::RideOut)
        };
        for waiter in answered {
            waiter.slot.put(Err(error.clone()));
        }
    }

    /// For the keeper: how many snapshots failed since the last that did not, and why; how large the journals are.
    pub(crate) fn snapshots(&self, failed: Option<(u64, PersistError)>, journal_bytes: u64, now: WallMillis) {
        let mut inner = self.inner.lock();
        let since = inner.snapshots.as_ref().map_or(now, |old| old.failing.since);
        inner.snapshots = failed
            .map(|(attempts, error)| FailingSnapshots { failing: Failing { since, attempts, error }, journal_bytes });
    }

    /// For the keeper, as the last thing it does.
    pub(crate) fn stop(&self, stopped: Stopped) {
        let (waiters, farewell) = {
            let mut inner = self.inner.lock();
            inner.stopped = Some(stopped);
            (core::mem::take(&mut inner.waiters), core::mem::take(&mut inner.farewell))
        };
        for waiter in waiters {
            waiter.slot.put(Err(stopped.error()));
        }
        for slot in farewell {
            slot.put(());
        }
    }

    /// Blocks until the keeper has left or the deadline passes.
    pub(crate) fn wait_stopped(&self, deadline: Deadline) -> Option<Stopped> {
        let slot = Arc::new(OneShot::new());
        {
            let mut inner = self.inner.lock();
            if inner.stopped.is_some() {
                return inner.stopped;
            }
            inner.farewell.push(Arc::clone(&slot));
        }
        let woken = slot.wait(deadline);
        let mut inner = self.inner.lock();
        if woken.is_none() {
            inner.farewell.retain(|other| !Arc::ptr_eq(other, &slot));
        }
        inner.stopped
    }
}

impl Inner {
    fn take(&mut self, concerned: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let (taken, kept) = core::mem::take(&mut self.waiters).into_iter().partition(concerned);
        self.waiters = kept;
        taken
    }
}

impl Ticket<'_> {
    /// Whether `wait` will return at once.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.state, TicketState::Answered(_))
    }

    /// What it is without somebody who blocks; a slot is the caller's to have forgotten.
    pub(super) fn into_state(self) -> TicketState {
        self.state
    }

    /// Blocks until answered or until the deadline, whose passing is an error that names the failure behind it.
    pub(crate) fn wait(self, deadline: Deadline) -> Result<(), PersistError> {
        let slot = match self.state {
            TicketState::Answered(answer) => return answer,
            TicketState::Waiting(slot) => slot,
        };
        if let Some(answer) = slot.wait(deadline) {
            return answer;
        }
        let (cause, answered_meanwhile) = self.progress.forget(&slot);
        if answered_meanwhile && let Some(answer) = slot.wait(Deadline::NEVER) {
            return answer;
        }
        Err(PersistError::TimedOut { cause: cause.map(Box::new) })
    }
}
