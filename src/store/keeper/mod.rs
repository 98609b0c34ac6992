//! The thread that makes published states durable and frees the versions that nobody holds any more.
//!
//! INVARIANT I-K1: it takes state and closed flag in one critical section of the writer lock, after it was rung; it never
//! encodes, writes or syncs while holding that lock.
//! INVARIANT I-K2: whatever happens to it, a panic included, everybody who waits on it is answered.
#![forbid(unsafe_code)]

pub(crate) mod plan;
#[cfg(all(test, not(trustkeep_loom)))]
mod tests;

use core::fmt;
use core::time::Duration;

use super::progress::Stopped;
use super::shared::Shared;
use crate::error::PersistError;
use crate::persist::log::{Log, Snapshots};
use crate::sync::{Arc, Deadline};
use crate::tables::Tables;
use crate::time::WallMillis;
use plan::{FlushPlan, Next};

/// Makes one state durable.
pub(crate) trait Saver: Send {
    /// After `Ok` the state survives kill and power loss. After an error the next call starts afresh.
    fn save(&mut self, generation: u64, tables: &Tables) -> Result<(), PersistError>;

    /// Whether states are made durable at all.
    fn is_durable(&self) -> bool {
        true
    }

    /// The state of this generation in other memory: if it was saved, it need not be kept where it was.
    fn moved(&mut self, _generation: u64, _tables: &Tables) {}

    /// How long after a save that no other follows [`Saver::settle`] is due; none if there is nothing to settle.
    fn settles_after(&self) -> Option<Duration> {
        None
    }

    /// Makes it known on the disk that everything saved so far was acknowledged. If that fails nothing is lost.
    fn settle(&mut self) {}

    /// Looks, without waiting, how whole snapshots are doing; `None` if there are none.
    fn snapshots(&mut self) -> Option<Snapshots> {
        None
    }

    /// Ends in good order; nothing will be saved any more. An error says that what was saved is not where it was.
    fn close(&mut self) -> Result<(), PersistError> {
        Ok(())
    }
}

impl Saver for Log {
    fn save(&mut self, generation: u64, tables: &Tables) -> Result<(), PersistError> {
        Log::save(self, generation, tables)
    }

    fn moved(&mut self, generation: u64, tables: &Tables) {
        Log::moved(self, generation, tables);
    }

    fn settles_after(&self) -> Option<Duration> {
        Log::settles_after(self)
    }

    fn settle(&mut self) {
        Log::settle(self);
    }

    fn snapshots(&mut self) -> Option<Snapshots> {
        Some(Log::snapshots(self))
    }

    fn close(&mut self) -> Result<(), PersistError> {
        Log::close(self)
    }
}

/// Of a store without a directory: what is in memory is as durable as it will ever be. Its writers say so themselves, and
/// its keeper is there to free old versions.
#[derive(Debug)]
pub(crate) struct InMemory;

impl Saver for InMemory {
    fn save(&mut self, _generation: u64, _tables: &Tables) -> Result<(), PersistError> {
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }
}

/// The body of the thread.
pub(crate) fn run(shared: Arc<Shared>, saver: Box<dyn Saver>) {
    let mut keeper = Keeper {
        shared,
        saver: Some(saver),
        plan: FlushPlan::default(),
        snapshots_fail: false,
        trim_at: None,
        settle_at: None,
        settle_by: None,
        again_until: None,
        came_again: false,
        upkeep_by: Deadline::after(SWEEP_EVERY),
        left: false,
    };
    keeper.run();
    keeper.left = true;
}

struct Keeper {
    shared: Arc<Shared>,
    /// Gone once this is dropped: the directory's lock goes with it, before anybody hears that the keeper has left.
    saver: Option<Box<dyn Saver>>,
    plan: FlushPlan,
    /// Whether `progress` says that snapshots fail.
    snapshots_fail: bool,
    /// When to give memory back next; none if nothing happened since there was none to give.
    trim_at: Option<Deadline>,
    /// When to settle what was saved, unless something else is saved before; none if it is settled.
    settle_at: Option<Deadline>,
    /// When the first save that is not settled has to be, whatever else is saved; none if there is none.
    settle_by: Option<Deadline>,
    /// Until then whoever was answered by the last save may be expected to come again; none if it answered nobody.
    again_until: Option<Deadline>,
    /// Whether somebody came so soon the last time that the keeper was rung after such a save.
    came_again: bool,
    /// What is done before it sleeps is put off until then at most.
    upkeep_by: Deadline,
    left: bool,
}

impl Keeper {
    fn run(&mut self) {
        loop {
            let (tables, seen) = self.shared.pick_up();
            tables.trusted.make_ready();
            let now = self.shared.now();
            match self.plan.next(now.tick, seen) {
                Next::Save => {
                    let (tables, generation) = self.shared.take_to_save(tables, &seen);
                    self.save(generation, &tables, now.wall);
                }
                Next::Leave => {
                    if let Some(Err(error)) = self.saver.as_mut().map(|saver| saver.close()) {
                        tracing::error!(%error, "a store that was closed is not where it was");
                        self.shared.progress.failed(&error, now.wall);
                    }
                    self.look_at_snapshots();
                    return;
                }
                Next::Sleep(until) => {
                    drop(tables);
                    if until.is_none() && self.listen() {
                        continue;
                    }
                    if until.is_none() && self.settle_at.take_if(|at| at.has_passed()).is_some() {
                        self.settle(seen.durable, now.wall);
                    }
                    self.upkeep_by = Deadline::after(SWEEP_EVERY);
                    // Nobody rings when a snapshot has ended.
                    let look_again = self.look_at_snapshots().then_some(LOOK_EVERY);
                    let sweep_again = (self.shared.sweep() | self.trim(until.is_none())).then_some(SWEEP_EVERY);
                    let wake = until
                        .map(|until| Duration::from_millis(u64::try_from(until.millis_since(now.tick)).unwrap_or(0)))
                        .into_iter()
                        .chain(sweep_again)
                        .chain(look_again)
                        .min();
                    // What is still to be saved settles what was saved before.
                    let settle = self.settle_at.filter(|_| until.is_none()).unwrap_or(Deadline::NEVER);
                    self.shared.wait_for_ring(wake.map_or(Deadline::NEVER, Deadline::after).or_earlier(settle));
                    self.came_again = self.again_until.is_some_and(|until| !until.has_passed());
                }
            }
        }
    }

    /// Stays awake for a moment if somebody is expected to come again at once; true if it was rung. To wake a processor that
    /// has gone to sleep takes longer than the next change of a thread that makes one durable change after the other.
    /// If nobody comes, the next moment of this kind is slept through.
    fn listen(&self) -> bool {
        self.came_again
            && !self.upkeep_by.has_passed()
            && self.again_until.is_some_and(|until| self.shared.listen(until))
    }

    /// Gives memory back, now and then; true if that is to be tried again. `is_saved`: nothing is left to save.
    fn trim(&mut self, is_saved: bool) -> bool {
        if self.trim_at.is_some_and(|at| !at.has_passed()) {
            return true;
        }
        // After the first look at a change it is too early.
        let again = self.trim_at.is_none() || self.gather(is_saved) | self.shared.trim();
        self.trim_at = again.then(|| Deadline::after(SWEEP_EVERY));
        again
    }

    /// Moves records closer together while nothing else is to be done; true if it was to be done.
    fn gather(&mut self, is_saved: bool) -> bool {
        let saver = &mut self.saver;
        is_saved
            && self.shared.gather(|generation, tables| {
                if let Some(saver) = saver {
                    saver.moved(generation, tables);
                }
            })
    }

    /// Tells `progress` how snapshots are doing; true if one is being written.
    fn look_at_snapshots(&mut self) -> bool {
        let Some(Snapshots { running, failed, journal_bytes }) =
            self.saver.as_mut().and_then(|saver| saver.snapshots())
        else {
            return false;
        };
        if failed.is_some() || self.snapshots_fail {
            self.snapshots_fail = failed.is_some();
            self.shared.progress.snapshots(failed, journal_bytes, self.shared.now().wall);
        }
        running
    }

    /// Everything up to this generation was acknowledged. Who asks sees this as a save that runs, for the disk may hang in it.
    fn settle(&mut self, generation: u64, begun: WallMillis) {
        self.settle_by = None;
        if let Some(saver) = &mut self.saver {
            self.shared.progress.settles(generation, begun);
            saver.settle();
            self.shared.progress.settled();
        }
    }

    fn save(&mut self, generation: u64, tables: &Tables, begun: WallMillis) {
        // Saves that follow each other closely would put it off for ever.
        if self.settle_by.take_if(|by| by.has_passed()).is_some() {
            self.settle(self.shared.progress.durable(), begun);
        }
        let Some(saver) = &mut self.saver else { return };
        let progress = &self.shared.progress;
        progress.begins(generation, begun);
        let outcome = saver.save(generation, tables);
        match outcome {
            Ok(()) => {
                if let Some(failing) = progress.failing() {
                    tracing::info!(generation, attempts = failing.attempts, "saving works again");
                }
                self.plan.saved();
                let answered = progress.saved(generation);
                let settles_after = saver.settles_after();
                self.settle_at = settles_after.map(Deadline::after);
                self.settle_by = settles_after.map(|after| self.settle_by.unwrap_or_else(|| Deadline::after(after)));
                self.again_until = (answered > 0).then(|| Deadline::after(AGAIN_WITHIN));
                self.look_at_snapshots();
            }
            Err(error) => {
                let now = self.shared.now();
                let at_risk = self.shared.generation().saturating_sub(progress.durable());
                tracing::error!(%error, generation, at_risk, "a save failed; it will be retried");
                // Nothing more is written to that journal.
                (self.settle_at, self.settle_by) = (None, None);
                self.plan.failed(now.tick);
                progress.failed(&error, now.wall);
            }
        }
    }
}

impl Drop for Keeper {
    /// Runs when the thread leaves and when it panics.
    fn drop(&mut self) {
        self.shared.sweep();
        self.saver = None;
        self.shared.progress.stop(if self.left { Stopped::Left } else { Stopped::Panicked });
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// How often to look again while a snapshot is being written.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often to look again while somebody holds old versions.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How soon somebody whose change has become durable is expected to come again with the next: that takes two threads' waking
/// up, of some 20 us each where processors sleep deeply.
const AGAIN_WITHIN: Duration = Duration::from_micros(60);
