//! How often each thing went wrong, for operators: counted always, logged at most once a second each.
//!
//! A flood of bad messages must not become a flood of log lines, and yet no kind of failure may pass without a trace.
//!
//! The line is logged on the thread that counts, which is often the one that handles a message, with no lock held. Which
//! subscriber `tracing` has is the embedder's choice: one that blocks holds up that thread, so it must not. The program's
//! own never does.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::BTreeMap;

use crate::foreign;
use crate::peer::NodeId;
use crate::sync::Mutex;
use crate::time::Tick;

/// Counts by name. There are as many as there are names in the code: no name comes from outside.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    counts: Mutex<BTreeMap<&'static str, Count>>,
    /// By how much the newest stamp was off, by what came of it.
    skews: Mutex<BTreeMap<&'static str, Skew>>,
}

/// How far a stamp was off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skew {
    /// Ahead of our clock, or, below 0, behind it.
    pub(crate) millis: i64,
    /// Who the message said it was from. What is dropped for its time is not verified, so this may be anybody's word.
    pub(crate) says_from: Option<NodeId>,
}

#[derive(Debug, Default)]
struct Count {
    total: u64,
    logged_total: u64,
    logged_at: Option<Tick>,
}

impl Counters {
    /// Counts one, and logs it unless the same was logged less than a second ago.
    pub(crate) fn add(&self, name: &'static str, at: Tick, what: &dyn fmt::Display) {
        let mut counts = self.counts.lock();
        let count = counts.entry(name).or_default();
        count.total = count.total.saturating_add(1);
        if count.logged_at.is_some_and(|last| at.millis_since(last) < LOG_EVERY_MS) {
            return;
        }
        let since = count.total.saturating_sub(count.logged_total);
        (count.logged_at, count.logged_total) = (Some(at), count.total);
        drop(counts);
        // Both run somebody else's code: what went wrong may be theirs, and so is whoever takes the log.
        let what = foreign::shown(what);
        let _ = foreign::run(|| tracing::info!(name, since, "{what}"));
    }

    /// Counts one that is told of in another way.
    pub(crate) fn count(&self, name: &'static str) {
        let mut counts = self.counts.lock();
        let count = counts.entry(name).or_default();
        count.total = count.total.saturating_add(1);
    }

    /// Keeps by how much a stamp was off, and whose it was.
    pub(crate) fn note_skew(&self, name: &'static str, skew: Skew) {
        self.skews.lock().insert(name, skew);
    }

    /// The newest was right.
    pub(crate) fn forget_skew(&self, name: &'static str) {
        self.skews.lock().remove(name);
    }

    /// The newest of each name, in the order of the alphabet.
    pub(crate) fn skews(&self) -> Vec<(&'static str, Skew)> {
        self.skews.lock().iter().map(|(name, skew)| (*name, *skew)).collect()
    }

    /// Every name that was counted, in the order of the alphabet.
    pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
        self.counts.lock().iter().map(|(name, count)| (*name, count.total)).collect()
    }
}

const LOG_EVERY_MS: i64 = 1000;
