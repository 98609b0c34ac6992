//! What opening a store found, and what of it did not become part of the state.
//!
//! What must hold: everything that an opening left out, moved or removed is in it; where nothing was, it says so.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::format::StoreId;

/// Part of a change at the end of a journal: it was being saved when the process ended, and is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTail {
    /// The journal.
    pub file: PathBuf,
    /// Where its newest whole change ends. What stands behind that does not count.
    pub offset: u64,
    /// How many bytes that is, to the last one that is not zero.
    pub bytes: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// A damaged file that a [`RecoverPolicy`](crate::RecoverPolicy) gave up. It is kept, and never read again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetAside {
    /// What it was called.
    pub file: PathBuf,
    /// What it is called now.
    pub now: PathBuf,
    /// The first byte that could not be trusted, counted from the start of the file.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
}

/// What an opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Which store it is; none only in memory.
    pub(crate) store: Option<StoreId>,
    pub(crate) created: bool,
    /// In the order in which they were first read.
    pub(crate) files: Vec<PathBuf>,
    /// The generation of the state that was read; none if there was no state.
    pub(crate) reached: Option<u64>,
    pub(crate) torn: Option<TornTail>,
    pub(crate) set_aside: Vec<SetAside>,
    pub(crate) removed: Vec<PathBuf>,
    /// Something newer was there, and is given up.
    pub(crate) lossy: bool,
}
