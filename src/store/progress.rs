//! How far the disk is: the durable generation, a save that runs, a failure that stands, and who waits for any of them. With
//! it all that a receipt needs, so that a receipt keeps no state of the store.
//!
//! Each waiter has a slot of its own and is woken by itself when the news concerns it, never with the herd. Of those who are
//! answered together all slots are filled, and all threads woken, before the first task's waker is called.
//!
//! More than 450 lines because the disk's state and those who wait for it change together, under one lock.
#![forbid(unsafe_code)]

#[cfg(all(test, not(trustkeep_loom)))]
mod tests;

use core::time::Duration;
use std::collections::BTreeMap;

use crate::error::PersistError;
use crate::sync::{Arc, AtomicU64, Deadline, Doorbell, Mutex, OneShot, Ordering, Process, thread_token, wake_all};
use crate::time::WallMillis;

/// Shared between the keeper, which reports, and everybody else, who asks or waits.
#[derive(Debug)]
pub(crate) struct Progress {
    durable: AtomicU64,
    inner: Mutex<Inner>,
    pub(super) doorbell: Doorbell,
    /// The thread that runs a caller's closure inside the writer lock; 0 for none.
    pub(super) inside: AtomicU64,
    /// That of the keeper.
    process: Process,
}

#[derive(Debug)]
struct Inner {
    /// How many attempts to save were begun.
    attempts: u64,
    /// The one that runs.
    saving: Option<Running>,
    /// How long one may run before that is told.
    limit: Duration,
    failing: Option<Failing>,
    snapshots: Option<FailingSnapshots>,
    stopped: Option<Stopped>,
    wishes: Wishes,
    /// By generation, and then in the order in which they came: one that gives up is found without a look at the others.
    waiters: BTreeMap<Key, Waiter>,
    /// How many waiters there have been.
    registered: u64,
    /// Those who wait for the keeper to have left.
    farewell: Vec<Arc<OneShot<()>>>,
}

/// Of those who wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    /// The newest generation that somebody waits for.
    pub(crate) wanted: u64,
    /// Somebody asked for an attempt now, whatever the pause after a failure says.
    pub(crate) retry_now: bool,
}

/// A save that runs.
#[derive(Clone, Copy, Debug)]
struct Running {
    generation: u64,
    since: WallMillis,
    overdue: Deadline,
    /// It was told that it is overdue.
    is_told: bool,
}

/// What is to be known of a save that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Saving {
    pub(crate) since: WallMillis,
    pub(crate) generation: u64,
    pub(crate) is_overdue: bool,
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
    /// That of an attempt that begins from now on: somebody has just asked for one.
    ReportNext,
    /// None: go on waiting until the deadline.
    RideOut,
}

#[derive(Debug)]
struct Waiter {
    on_failure: OnFailure,
    /// How many attempts were begun before it came.
    attempts_before: u64,
    answer: Answer,
}

/// A waiter's generation and number.
type Key = (u64, u64);

type Answer = Arc<OneShot<Result<(), PersistError>>>;

/// Where one waiter's answer is put.
#[derive(Debug)]
pub(super) struct Slot {
    key: Key,
    pub(super) answer: Answer,
}

/// A registered interest in a generation becoming durable.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    progress: &'a Progress,
    state: TicketState,
    /// How long a save may run.
    limit: Duration,
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
                attempts: 0,
                saving: None,
                limit: SAVE_LIMIT,
                failing: None,
                snapshots: None,
                stopped: None,
                wishes: Wishes::default(),
                waiters: BTreeMap::new(),
                registered: 0,
                farewell: Vec::new(),
            }),
            doorbell: Doorbell::new(),
            inside: AtomicU64::new(0),
            process: Process::this(),
        }
    }

    /// How long a save may run before it counts as one that hangs.
    pub(crate) fn limit_saves(&self, limit: Duration) {
        self.inner.lock().limit = limit;
    }

    /// Whether this process was forked from that of the keeper. Here a lock may be held by a thread that does not exist, so
    /// this is asked before any lock is taken.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        !self.process.is_this()
    }

    /// Whether this thread is inside a closure that runs under the writer lock, where waiting would never end.
    pub(crate) fn is_inside(&self) -> bool {
        // ORDERING: Relaxed (C-5); a thread can find its own token only if it wrote it itself, in program order.
        self.inside.load(Ordering::Relaxed) == thread_token()
    }

    /// Has the keeper save this generation without the pause that it leaves a change of floors alone; with `retry_now`
    /// also without the pause after a failure.
    pub(crate) fn hurry(&self, generation: u64, retry_now: bool) {
        {
            let wishes = &mut self.inner.lock().wishes;
            if wishes.wanted >= generation && !retry_now {
                return;
            }
            wishes.wanted = wishes.wanted.max(generation);
            wishes.retry_now |= retry_now;
        }
        self.doorbell.ring();
    }

    /// For the keeper, before it takes the state: so that the state holds what is wished for.
    pub(crate) fn take_wishes(&self) -> Wishes {
        let wishes = &mut self.inner.lock().wishes;
        let taken = *wishes;
        wishes.retry_now = false;
        taken
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

    /// The save that runs; tells the log of one that has run for too long, once.
    pub(crate) fn saving(&self) -> Option<Saving> {
        let (running, limit, tell) = {
            let mut inner = self.inner.lock();
            let limit = inner.limit;
            let running = inner.saving.as_mut()?;
            let tell =
                running.overdue.has_passed() && !core::mem::replace(&mut running.is_told, running.overdue.has_passed());
            (*running, limit, tell)
        };
        if tell {
            running.tell(limit);
        }
        Some(Saving { since: running.since, generation: running.generation, is_overdue: running.overdue.has_passed() })
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
                let (key, answer) = ((generation, inner.registered), Arc::new(OneShot::new()));
                inner.registered += 1;
                let (attempts_before, slot) = (inner.attempts, Slot { key, answer: Arc::clone(&answer) });
                inner.waiters.insert(key, Waiter { on_failure, attempts_before, answer });
                TicketState::Waiting(slot)
            }
        };
        Ticket { progress: self, state, limit: inner.limit }
    }

    /// Takes out a waiter who waits no longer; says what stands in its way, and whether it was answered meanwhile.
    pub(super) fn forget(&self, slot: &Slot) -> (Option<PersistError>, bool) {
        let mut inner = self.inner.lock();
        let was_there = inner.waiters.remove(&slot.key).is_some();
        (inner.failing.as_ref().map(|failing| failing.error.clone()), !was_there)
    }

    /// How many wait for a generation to become durable.
    pub(crate) fn waiters_len(&self) -> usize {
        self.inner.lock().waiters.len()
    }

    /// For the keeper: an attempt to save this generation begins.
    pub(crate) fn begins(&self, generation: u64, now: WallMillis) {
        let mut inner = self.inner.lock();
        inner.attempts += 1;
        let overdue = Deadline::after(inner.limit);
        inner.saving = Some(Running { generation, since: now, overdue, is_told: false });
    }

    /// For the keeper: it writes something that nobody waits for.
    pub(crate) fn settles(&self, generation: u64, now: WallMillis) {
        let mut inner = self.inner.lock();
        let overdue = Deadline::after(inner.limit);
        inner.saving = Some(Running { generation, since: now, overdue, is_told: false });
    }

    /// For the keeper: that has ended.
    pub(crate) fn settled(&self) {
        let (ended, limit) = {
            let mut inner = self.inner.lock();
            (inner.saving.take(), inner.limit)
        };
        Running::tell_end(ended, limit);
    }

    /// For the keeper: everything up to this generation is durable. Returns how many waited for that.
    pub(crate) fn saved(&self, generation: u64) -> usize {
        let (answered, ended, limit) = {
            let mut inner = self.inner.lock();
            // ORDERING: Release, pairs with the Acquire load in `durable` (C-6).
            self.durable.store(generation, Ordering::Release);
            inner.failing = None;
            let later = inner.waiters.split_off(&(generation.saturating_add(1), 0));
            (core::mem::replace(&mut inner.waiters, later), inner.saving.take(), inner.limit)
        };
        Running::tell_end(ended, limit);
        let count = answered.len();
        wake_all(answered.into_values().map(|waiter| (waiter.answer, Ok(()))));
        count
    }

    /// For writers of a store that saves nothing, before anybody hears of this generation: so nobody waits for it.
    pub(crate) fn is_as_durable_as_ever(&self, generation: u64) {
        // ORDERING: Release, as in `saved` (C-6).
        self.durable.store(generation, Ordering::Release);
    }

    /// For the keeper: the attempt to save that it began failed. Who waits for something else than that attempt contained is
    /// not concerned.
    pub(crate) fn failed(&self, error: &PersistError, now: WallMillis) {
        let mut answered = Vec::new();
        let (ended, limit) = {
            let mut inner = self.inner.lock();
            let (since, attempts) = inner.failing.as_ref().map_or((now, 0), |old| (old.since, old.attempts));
            inner.failing = Some(Failing { since, attempts: attempts.saturating_add(1), error: error.clone() });
            let ended = inner.saving.take();
            let (attempt, contained) = (inner.attempts, ended.map_or(u64::MAX, |ended| ended.generation));
            inner.waiters.retain(|(generation, _), waiter| {
                let is_concerned = *generation <= contained
                    && match waiter.on_failure {
                        OnFailure::Report => true,
                        OnFailure::ReportNext => waiter.attempts_before < attempt,
                        OnFailure::RideOut => false,
                    };
                if is_concerned {
                    answered.push(Arc::clone(&waiter.answer));
                }
                !is_concerned
            });
            (ended, inner.limit)
        };
        Running::tell_end(ended, limit);
        wake_all(answered.into_iter().map(|answer| (answer, Err(error.clone()))));
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
            inner.saving = None;
            (core::mem::take(&mut inner.waiters), core::mem::take(&mut inner.farewell))
        };
        // Nobody but threads waits for the farewell.
        for slot in farewell {
            slot.put(());
        }
        wake_all(waiters.into_values().map(|waiter| (waiter.answer, Err(stopped.error()))));
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

impl Running {
    fn tell(&self, limit: Duration) {
        let (since, generation, limit_ms) = (self.since.as_millis(), self.generation, limit.as_millis());
        tracing::warn!(
            since,
            generation,
            limit_ms,
            "a save has been running for longer than it should: the disk hangs, and changes are not durable meanwhile"
        );
    }

    /// Tells of a save that has ended and was overdue.
    fn tell_end(ended: Option<Self>, limit: Duration) {
        if let Some(ended) = ended.filter(|ended| ended.overdue.has_passed()) {
            if !ended.is_told {
                ended.tell(limit);
            }
            tracing::info!(generation = ended.generation, "the save that was running for so long has ended");
        }
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
        // A thread that waits is who notices that a save hangs: the keeper's own is the one that hangs.
        loop {
            let look = Deadline::after(self.limit).or_earlier(deadline);
            if let Some(answer) = slot.answer.wait(look) {
                return answer;
            }
            let _ = self.progress.saving();
            if deadline.has_passed() {
                break;
            }
        }
        let (cause, answered_meanwhile) = self.progress.forget(&slot);
        if answered_meanwhile && let Some(answer) = slot.answer.wait(Deadline::NEVER) {
            return answer;
        }
        Err(PersistError::TimedOut { cause: cause.map(Box::new) })
    }
}

/// Unless the options say otherwise.
pub(super) const SAVE_LIMIT: Duration = Duration::from_secs(5);
