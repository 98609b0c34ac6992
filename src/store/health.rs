//! What an operator's dashboard asks.
#![forbid(unsafe_code)]

use super::progress::{Progress, Stopped};
use super::receipt::Generation;
use crate::error::PersistError;
use crate::time::WallMillis;

/// Whether the thread that saves is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeeperState {
    /// It is.
    Running,
    /// The store was closed or dropped and it left.
    Left,
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

/// The state of a store's durability at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Whether the thread that saves is there.
    pub keeper: KeeperState,
    /// The failure that stands, if one does. It is retried, and goes away by itself when the disk works again.
    pub failing: Option<FailingDisk>,
    /// The newest generation.
    pub generation: Generation,
    /// The newest durable generation.
    pub durable_generation: Generation,
    /// How many changes a crash now would lose.
    pub changes_at_risk: u64,
    /// How many superseded versions are kept because a reader or a snapshot still holds them (or nobody looked yet).
    pub versions_retained: usize,
    /// How many threads and tasks wait for a peer to become trusted.
    pub waiting_for_trust: usize,
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
            generation: Generation::new(generation),
            durable_generation: Generation::new(durable),
            changes_at_risk: generation.saturating_sub(durable),
            versions_retained,
            waiting_for_trust,
        }
    }

    /// Whether the keeper runs and no failure stands.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.keeper == KeeperState::Running && self.failing.is_none()
    }
}
