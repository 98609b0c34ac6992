//! What a store's handles and its keeper share, and the one place where state is published.
//!
//! INVARIANT I-S1: under the writer lock, `cell` holds `core.version`, and `core.version` holds the trusted records and the
//! marks of `core.tables`.
//! INVARIANT I-S2: publish first, then ring. The keeper is rung, then takes state and closed flag in one critical section
//! of the writer lock (C-1 in `docs/concurrency.md`).
//! INVARIANT I-S3: a superseded version is dropped by a writer or by the keeper only, and only when nobody else holds it;
//! so no reader frees memory as long as the store lives.
//!
//! More than 450 lines because all that the writer lock guards is changed in this one place.
#![forbid(unsafe_code)]

#[cfg(all(test, not(trustkeep_loom)))]
mod tests;
mod told;
mod upkeep;
mod version;

pub(crate) use version::Version;

use core::fmt;
use core::hash::{BuildHasher as _, Hasher as _};
use std::hash::RandomState;

use super::deferral::Deferral;
use super::events::Hub;
use super::keeper::plan::Situation;
use super::key_index::{KeyIndex, Upkeep};
use super::losses::{Enforcer, Watchers};
use super::progress::Progress;
use super::receipt::Receipt;
use super::superseded::SupersededStates;
use super::waiters::{TrustWaiters, Waiting};
use crate::clock::Clock;
use crate::config::Limits;
use crate::error::WriteError;
use crate::event::Event;
use crate::peer::NodeId;
use crate::persist::recover::GENERATION_MAX;
use crate::sync::{Arc, AtomicU64, Deadline, Mutex, MutexGuard, Ordering, SnapshotCell, thread_token};
use crate::tables::draft::Draft;
use crate::tables::{TableChange, Tables};
use crate::time::Now;

/// A change of state that a closure asks for inside the writer's critical section.
#[derive(Debug)]
pub(crate) struct Transaction<T> {
    /// Published together under one generation; none if empty or without effect.
    pub(crate) changes: Vec<TableChange>,
    /// Queued for subscribers in the same critical section.
    pub(crate) events: Vec<Event>,
    /// Handed to the caller.
    pub(crate) value: T,
}

/// Why a transaction changed nothing.
#[derive(Debug)]
pub(crate) enum TransactError<E> {
    /// The closure refused.
    Refused(E),
    /// The store did.
    Write(WriteError<()>),
}

/// State that handles, receipts and the keeper share.
pub(crate) struct Shared {
    cell: SnapshotCell<Version>,
    keys: KeyIndex,
    /// The newest published generation, for those who must not take the lock.
    generation: AtomicU64,
    /// Not 0 if a waiter was dropped inside a closure, where it could not take itself out.
    abandoned: AtomicU64,
    core: Mutex<Core>,
    /// Nothing is saved: what is published is as durable as it will ever be.
    volatile: bool,
    /// Random: with a generation it makes the ids of that generation's revocations.
    salt: u64,
    pub(crate) progress: Arc<Progress>,
    pub(crate) clock: std::sync::Arc<dyn Clock>,
    pub(crate) limits: Limits,
}

/// What the writer lock guards.
struct Core {
    tables: Arc<Tables>,
    version: Arc<Version>,
    keys: Upkeep,
    generation: u64,
    /// The newest generation that changed anything but floors, revisions and repeats.
    news: u64,
    /// The newest of those that is not put off: the keeper saves it at once.
    urgent: u64,
    /// The newest generation that was put off.
    deferred: u64,
    /// The newest generation that the keeper has taken to save, of those with something that was put off in them.
    taken: u64,
    /// The newest generation that the keeper has seen.
    picked_up: u64,
    /// The keeper waits without an alarm, although nothing is saved here that it would have to be rung for.
    asleep: bool,
    closed: bool,
    abandon: bool,
    retry_now: bool,
    superseded: SupersededStates,
    waiters: TrustWaiters,
    hub: Hub,
    losses: Watchers,
}

/// What somebody who wants to wait for trust finds.
pub(super) enum Looked {
    /// There is nothing to wait for.
    Known(bool),
    /// He is registered.
    Registered(Waiting),
}

/// What is left to do once the lock is released.
struct Afterwards {
    generation: u64,
    urgent: bool,
    news: u64,
    ring: bool,
    granted: Vec<Waiting>,
}

impl Shared {
    pub(crate) fn new(
        tables: Tables,
        generation: u64,
        volatile: bool,
        limits: Limits,
        clock: std::sync::Arc<dyn Clock>,
    ) -> Self {
        let version = Arc::new(Version::of(generation, &tables));
        let (keys, upkeep) = KeyIndex::new(tables.trusted.mix(), tables.trusted.len(), tables.trusted.peers());
        Self {
            cell: SnapshotCell::new(Arc::clone(&version)),
            keys,
            generation: AtomicU64::new(generation),
            abandoned: AtomicU64::new(0),
            core: Mutex::new(Core {
                tables: Arc::new(tables),
                version,
                keys: upkeep,
                generation,
                news: generation,
                urgent: generation,
                deferred: generation,
                taken: generation,
                picked_up: generation,
                asleep: false,
                closed: false,
                abandon: false,
                retry_now: false,
                superseded: SupersededStates::default(),
                waiters: TrustWaiters::default(),
                hub: Hub::default(),
                losses: Watchers::default(),
            }),
            volatile,
            salt: RandomState::new().build_hasher().finish(),
            progress: Arc::new(Progress::new(generation)),
            clock,
            limits,
        }
    }

    #[inline]
    pub(crate) fn cell(&self) -> &SnapshotCell<Version> {
        &self.cell
    }

    /// Whether the peer is trusted, without a handle.
    #[inline]
    pub(crate) fn is_trusted(&self, peer: NodeId) -> bool {
        self.keys.contains(peer).unwrap_or_else(|| self.is_trusted_by_version(peer))
    }

    #[cold]
    #[inline(never)]
    fn is_trusted_by_version(&self, peer: NodeId) -> bool {
        self.cell.with(|version| version.trusted.contains(peer))
    }

    /// A number that no other change of this store has. Under the writer lock only.
    pub(crate) fn salt(&self) -> u64 {
        self.salt ^ self.generation().wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// The newest published generation.
    pub(crate) fn generation(&self) -> u64 {
        // ORDERING: Acquire, pairs with the Release store in `commit` (C-4): who reads a generation here and then loads
        // the cell finds that generation's records or newer ones.
        self.generation.load(Ordering::Acquire)
    }

    /// Whether this thread is inside a closure that runs under the lock, where taking it would never end.
    pub(crate) fn is_inside(&self) -> bool {
        self.progress.is_inside()
    }

    /// See [`Progress::is_forked`].
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.progress.is_forked()
    }

    fn enter(&self) -> Result<MutexGuard<'_, Core>, WriteError<()>> {
        if self.is_forked() {
            return Err(WriteError::Forked(()));
        }
        if self.is_inside() {
            return Err(WriteError::Reentrant(()));
        }
        let core = self.core.lock();
        if core.closed { Err(WriteError::Closed(())) } else { Ok(core) }
    }

    /// Runs `decide` on the newest state and publishes what it asks for, in one critical section of the writer lock.
    ///
    /// If `decide` refuses or panics, nothing has changed. `by`: who enforces whatever trust this ends.
    pub(crate) fn transact<T, E>(
        this: &Arc<Self>,
        by: Option<Enforcer>,
        decide: impl FnOnce(&Tables) -> Result<Transaction<T>, E>,
    ) -> Result<(T, Receipt), TransactError<E>> {
        Self::publish(this, by, |tables, _| {
            let Transaction { changes, events, value } = decide(tables)?;
            Ok((tables.draft(&changes), events, value))
        })
    }

    /// The same where what is to change is known table by table. `decide` is told, too, whether anybody hears of events.
    pub(crate) fn publish<T, E>(
        this: &Arc<Self>,
        by: Option<Enforcer>,
        decide: impl FnOnce(&Tables, bool) -> Result<(Draft, Vec<Event>, T), E>,
    ) -> Result<(T, Receipt), TransactError<E>> {
        Self::publish_deferring(this, by, decide, |_| None)
    }

    /// The same where the change may be saved a moment later.
    pub(crate) fn publish_deferring<T, E>(
        this: &Arc<Self>,
        by: Option<Enforcer>,
        decide: impl FnOnce(&Tables, bool) -> Result<(Draft, Vec<Event>, T), E>,
        deferral: impl FnOnce(&T) -> Option<Deferral>,
    ) -> Result<(T, Receipt), TransactError<E>> {
        let mut core = this.enter().map_err(TransactError::Write)?;
        let (mut draft, events, value) = {
            let _inside = Inside::mark(&this.progress.inside);
            decide(&core.tables, core.hub.is_heard()).map_err(TransactError::Refused)?
        };
        let deferral = deferral(&value);
        core.tables.let_revisions_go(&mut draft);
        let done = this.commit(&mut core, draft, events, by, deferral);
        drop(core);
        // If it was refused the value goes here, which is the caller's code: without the lock.
        let done = done.map_err(TransactError::Write)?;
        // First the keeper, for a task's waker is somebody else's code.
        if done.ring {
            this.progress.doorbell.ring();
        }
        Waiting::wake_all(done.granted, true);
        Ok((value, Receipt::new(Arc::clone(&this.progress), done.generation, done.urgent, done.news)))
    }

    fn commit(
        &self,
        core: &mut Core,
        mut draft: Draft,
        events: Vec<Event>,
        by: Option<Enforcer>,
        deferral: Option<Deferral>,
    ) -> Result<Afterwards, WriteError<()>> {
        let touched = draft.touched();
        let is_urgent = touched.urgent && !deferral.is_some_and(|it| it.holds(core.taken));
        let mut done =
            Afterwards { generation: core.generation, urgent: false, news: 0, ring: false, granted: Vec::new() };
        if touched.any {
            // All refusals come before the next version is derived: history is linear, see `map`. A single grant derives its
            // own before, where the first of these cannot be; after the second nothing is derived any more.
            let (len, before) = (draft.trusted_len(), core.tables.trusted.len());
            if len > self.limits.trusted_max && len > before {
                return Err(WriteError::Full(()));
            }
            if core.generation >= GENERATION_MAX {
                return Err(WriteError::Full(()));
            }
            // Floors alone ring only if all before them is durable: then the keeper has no alarm. If it is not, the keeper has
            // one, or is about to look.
            done.ring = if self.volatile {
                core::mem::take(&mut core.asleep) || core.tables.trusted.is_short()
            } else {
                is_urgent || core.generation == self.progress.durable()
            };
            core.generation += 1;
            done.generation = core.generation;
            if touched.urgent {
                core.news = core.generation;
            }
            if is_urgent {
                core.urgent = core.generation;
            } else if touched.urgent {
                core.deferred = core.generation;
            }
            // I-X1: out before the version is published, in afterwards.
            for (peer, _) in draft.membership().iter().filter(|(_, is_trusted)| !is_trusted) {
                core.keys.remove(&self.keys, *peer);
            }
            let next = core.tables.next(&mut draft);
            let version = (touched.trusted || draft.touches_marks()).then(|| {
                let next = Arc::new(Version::of(core.generation, &next));
                self.cell.store(Arc::clone(&next));
                core::mem::replace(&mut core.version, next)
            });
            for (peer, _) in draft.membership().iter().filter(|(_, is_trusted)| *is_trusted) {
                core.keys.insert(&self.keys, *peer);
                // Nobody waits for a peer that was trusted before.
                core.waiters.take(*peer, &mut done.granted);
            }
            let tables = core::mem::replace(&mut core.tables, Arc::new(next));
            if self.volatile {
                self.progress.is_as_durable_as_ever(core.generation);
            }
            // ORDERING: Release, pairs with the Acquire load in `generation` (C-4); after the cell's store.
            self.generation.store(core.generation, Ordering::Release);
            if let Some(before) = &version {
                core.losses.tell(&draft, by, before, &core.version);
            }
            core.superseded.push(version, tables, draft.len());
        }
        core.hub.send(events);
        done.urgent = core.urgent == core.generation;
        done.news = core.news;
        Ok(done)
    }

    /// The newest state of all tables, one consistent moment.
    pub(crate) fn tables(&self) -> Option<Arc<Tables>> {
        if self.is_forked() || self.is_inside() {
            return None;
        }
        Some(Arc::clone(&self.core.lock().tables))
    }

    /// Blocks until the peer is trusted, the deadline passes or the store closes; true if it is trusted.
    pub(crate) fn wait_for_trust(&self, peer: NodeId, deadline: Deadline) -> bool {
        let waiting = match self.look_or_register(peer) {
            Looked::Known(is_trusted) => return is_trusted,
            Looked::Registered(waiting) => waiting,
        };
        match waiting.wait(deadline) {
            Some(granted) => granted,
            None if self.core.lock().waiters.forget(peer, &waiting) => false,
            // A grant or the end took it between the deadline and here, and its answer is on the way.
            None => waiting.wait(Deadline::NEVER).unwrap_or(false),
        }
    }

    /// Looks, and registers if the peer is not trusted, in one critical section: no grant falls between the two.
    pub(super) fn look_or_register(&self, peer: NodeId) -> Looked {
        let is_trusted = || self.cell.with(|version| version.trusted.contains(peer));
        let Ok(mut core) = self.enter() else { return Looked::Known(is_trusted()) };
        if core.tables.trusted.contains(peer) {
            return Looked::Known(true);
        }
        // ORDERING: Relaxed (C-3); only the thread that ran a closure can have set it meanwhile, and the lock orders the
        // rest.
        if self.abandoned.load(Ordering::Relaxed) > 0 {
            self.abandoned.store(0, Ordering::Relaxed); // ORDERING: Relaxed (C-3); as above.
            core.waiters.purge();
        }
        Looked::Registered(core.waiters.register(peer))
    }

    /// Takes out a waiter who waits no longer, and who may be on a thread that is inside a closure.
    pub(super) fn forget(&self, peer: NodeId, waiting: &Waiting) {
        if self.is_forked() {
            return;
        }
        if self.is_inside() {
            waiting.abandon();
            self.abandoned.store(1, Ordering::Relaxed); // ORDERING: Relaxed (C-3); under the lock, held by this thread.
        } else {
            self.core.lock().waiters.forget(peer, waiting);
        }
    }

    /// How many threads and tasks wait for trust.
    pub(crate) fn waiters_len(&self) -> usize {
        if self.is_forked() || self.is_inside() { 0 } else { self.core.lock().waiters.len() }
    }

    /// Lets no further change in. `abandon`: the keeper leaves after one more attempt even if that fails.
    pub(crate) fn close(&self, abandon: bool) -> u64 {
        let (generation, waiting) = {
            let mut core = self.core.lock();
            core.closed = true;
            core.abandon |= abandon;
            core.retry_now = true;
            core.hub.end();
            (core.generation, core.waiters.take_all())
        };
        self.progress.doorbell.ring();
        Waiting::wake_all(waiting, false);
        generation
    }

    /// For the keeper: the newest state and everything that decides what to do with it, in one critical section.
    pub(crate) fn pick_up(&self) -> (Arc<Tables>, Situation) {
        // First what is wished for: what somebody waits for is published already.
        let wishes = self.progress.take_wishes();
        let mut core = self.core.lock();
        core.picked_up = core.generation;
        let situation = Situation {
            newest: core.generation,
            urgent: core.urgent.max(wishes.wanted),
            durable: self.progress.durable(),
            deferred: core.deferred > core.taken,
            closed: core.closed,
            abandon: core.abandon,
            retry_now: core::mem::take(&mut core.retry_now) || wishes.retry_now,
        };
        (Arc::clone(&core.tables), situation)
    }

    /// For the keeper, which saves what it has seen, or what this gives it: where something was put off it is noted in
    /// one critical section that the newest state is about to be saved, so that no end of what is in it is put off.
    pub(crate) fn take_to_save(&self, tables: Arc<Tables>, seen: &Situation) -> (Arc<Tables>, u64) {
        if !seen.deferred {
            return (tables, seen.newest);
        }
        let mut core = self.core.lock();
        core.taken = core.generation;
        (Arc::clone(&core.tables), core.generation)
    }

    /// For the keeper: blocks until rung or until the deadline.
    pub(crate) fn wait_for_ring(&self, deadline: Deadline) {
        self.progress.doorbell.wait(deadline);
    }

    /// For the keeper: listens until the deadline without going to sleep; true if it was rung.
    pub(crate) fn listen(&self, until: Deadline) -> bool {
        self.progress.doorbell.listen(until)
    }

    /// How many old versions are kept because somebody holds them or nobody has looked yet.
    pub(crate) fn superseded_len(&self) -> usize {
        if self.is_forked() || self.is_inside() { 0 } else { self.core.lock().superseded.len() }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("generation", &self.generation())
            .field("durable", &self.progress.durable())
            .finish_non_exhaustive()
    }
}

/// Marks this thread as being inside a caller's closure, until dropped (by a panic too).
struct Inside<'a>(&'a AtomicU64);

impl<'a> Inside<'a> {
    fn mark(inside: &'a AtomicU64) -> Self {
        // ORDERING: Relaxed (C-5); only this thread looks for its own token.
        inside.store(thread_token(), Ordering::Relaxed);
        Self(inside)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // ORDERING: Relaxed (C-5); as above.
        self.0.store(0, Ordering::Relaxed);
    }
}
