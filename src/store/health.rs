//! What an operator's dashboard asks.
#![forbid(unsafe_code)]

use super::progress::{Progress, Stopped};
use super::receipt::Generation;
use crate::config::Limits;
use crate::error::PersistError;
use crate::tables::Tables;
use crate::tables::table::Table as _;
use crate::time::WallMillis;

/// Whether the thread that saves is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeeperState {
    /// It is.
    Running,
    /// The store was closed or dropped and it left.
    Left,
    /// It is in the process that this one was forked from. This process changes and saves nothing.
    Forked,
    /// It panicked: nothing is saved any more. Reads and writes go on in memory.
    Panicked,
}

/// A disk that refuses, since when and with what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailingDisk {
    /// When the first attempt of this run of failures failed, by the wall clock.
    pub since: WallMillis,
    /// How many attempts have failed since.
    pub attempts: u64,
    /// Why the latest failed.
    pub error: PersistError,
}

/// A save that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningSave {
    /// When it began, by the wall clock.
    pub since: WallMillis,
    /// The generation that it makes durable.
    pub generation: Generation,
    /// Whether it has run for longer than [`Options::save_limit`](crate::Options::save_limit): the disk hangs.
    pub is_overdue: bool,
}

/// Snapshots that cannot be written, since when and with what. No change is at risk by that: the journals hold everything.
/// But they grow, and the next opening reads them all.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailingSnapshots {
    /// When the keeper first saw one of this run of failures fail, by the wall clock; within a second of it.
    pub since: WallMillis,
    /// How many have failed since. The next is tried when the journals have doubled.
    pub attempts: u64,
    /// Why the latest failed.
    pub error: PersistError,
    /// How many bytes of changes the journals hold that the newest snapshot does not.
    pub journal_bytes: u64,
}

/// A table that holds nine tenths of what it may, or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearLimit {
    /// Its limit, by the name of the field of [`Limits`](crate::config::Limits): `pending_max`, `outgoing_max`, and so on.
    pub limit: &'static str,
    /// How many entries it has.
    pub entries: usize,
    /// How many it may have. Where that is 0, it is never near its limit.
    pub max: usize,
}

impl NearLimit {
    /// Of these tables, in the order of the fields of [`Limits`](crate::config::Limits).
    pub(super) fn of(tables: &Tables, limits: &Limits) -> Vec<Self> {
        let sides = &tables.sides;
        let all = [
            ("trusted_max", tables.trusted.len(), limits.trusted_max),
            ("pending_max", sides.pending.len(), limits.pending_max),
            ("outgoing_max", sides.outgoing.len(), limits.outgoing_max),
            ("owed_max", sides.owed.len(), limits.owed_max),
            ("floors_max", sides.floors.len(), limits.floors_max),
            ("successors_max", sides.successors.len(), limits.successors_max),
            ("revoked_max", sides.revoked.len(), limits.revoked_max.unwrap_or(0)),
            ("revoked_keys_max", sides.revoked_keys.len(), limits.revoked_keys_max),
            ("ignored_max", sides.ignored.len(), limits.ignored_max),
            ("ignored_keys_max", sides.ignored_keys.len(), limits.ignored_keys_max),
        ];
        let near = all.into_iter().filter(|(_, entries, max)| *max > 0 && *entries >= max - max / 10);
        near.map(|(limit, entries, max)| Self { limit, entries, max }).collect()
    }
}

/// The state of a store's durability at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Whether the thread that saves is there.
    pub keeper: KeeperState,
    /// The failure that stands, if one does. It is retried, and goes away by itself when the disk works again.
    pub failing: Option<FailingDisk>,
    /// The save that runs at this moment, if one does. A disk that hangs fails nothing, but has one run on and on.
    pub saving: Option<RunningSave>,
    /// The failure of snapshots that stands, if one does. It goes away by itself when one has been written.
    pub failing_snapshots: Option<FailingSnapshots>,
    /// The newest generation.
    pub generation: Generation,
    /// The newest durable generation.
    pub durable_generation: Generation,
    /// How many changes a crash now would lose; what was changed at once, as by one `update`, counts as one.
    pub changes_at_risk: u64,
    /// How many superseded versions are kept because a reader or a snapshot still holds them (or nobody looked yet).
    pub versions_retained: usize,
    /// How many threads and tasks wait for a peer to become trusted.
    pub waiting_for_trust: usize,
    /// How many threads and tasks wait for a change to become durable.
    pub waiting_for_disk: usize,
    /// How many peers are revoked.
    pub revoked: usize,
    /// From how many on that is worth a warning; [`Limits::revoked_max`](crate::config::Limits::revoked_max).
    pub revoked_max: Option<usize>,
    /// The tables that are near their limits, or at them, in the order of [`Limits`](crate::config::Limits). Readers and saving
    /// are none the worse for it; the field of the limit says what a full table means.
    pub near_limits: Vec<NearLimit>,
}

impl Health {
    pub(super) fn new(
        progress: &Progress,
        generation: u64,
        versions_retained: usize,
        waiting_for_trust: usize,
    ) -> Self {
        let durable = progress.durable();
        Self {
            keeper: match progress.stopped() {
                None => KeeperState::Running,
                Some(Stopped::Left) => KeeperState::Left,
                Some(Stopped::Panicked) => KeeperState::Panicked,
            },
            failing: progress.failing().map(|failing| FailingDisk {
                since: failing.since,
                attempts: failing.attempts,
                error: failing.error,
            }),
            saving: progress.saving().map(|saving| RunningSave {
                since: saving.since,
                generation: Generation::new(saving.generation),
                is_overdue: saving.is_overdue,
            }),
            failing_snapshots: progress.failing_snapshots().map(|snapshots| FailingSnapshots {
                since: snapshots.failing.since,
                attempts: snapshots.failing.attempts,
                error: snapshots.failing.error,
                journal_bytes: snapshots.journal_bytes,
            }),
            generation: Generation::new(generation),
            durable_generation: Generation::new(durable),
            changes_at_risk: generation.saturating_sub(durable),
            versions_retained,
            waiting_for_trust,
            waiting_for_disk: progress.waiters_len(),
            revoked: 0,
            revoked_max: None,
            near_limits: Vec::new(),
        }
    }

    /// In a forked process, where no lock may be taken.
    pub(super) fn forked(generation: u64, durable: u64) -> Self {
        Self {
            keeper: KeeperState::Forked,
            failing: None,
            saving: None,
            failing_snapshots: None,
            generation: Generation::new(generation),
            durable_generation: Generation::new(durable),
            changes_at_risk: generation.saturating_sub(durable),
            versions_retained: 0,
            waiting_for_trust: 0,
            waiting_for_disk: 0,
            revoked: 0,
            revoked_max: None,
            near_limits: Vec::new(),
        }
    }

    /// Whether more peers are revoked than was thought of. Nothing is refused and nothing is lost by that: forget
    /// revocations, or end trust by `remove` where no mark is wanted.
    #[must_use]
    pub fn has_too_many_revoked(&self) -> bool {
        self.revoked_max.is_some_and(|max| self.revoked > max)
    }

    /// Whether the keeper runs, and saving works and does not hang. Failing snapshots put no change at risk, and do not count.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        let hangs = self.saving.is_some_and(|saving| saving.is_overdue);
        self.keeper == KeeperState::Running && self.failing.is_none() && !hangs
    }
}
