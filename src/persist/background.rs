//! The thread that writes whole snapshots while changes go on being appended, so that no change waits for one.
//!
//! What must hold: whoever started it is answered, also after a panic; it touches no file that the journal's writer still
//! uses; files are removed only when the snapshot that makes them superfluous is durable, and the directory confirmed to be
//! ours since.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

use super::Storage;
use super::format::StoreId;
use super::recover::snapshot_name;
use super::write::{self, is_removed};
use crate::error::PersistError;
use crate::sync::{Arc, Deadline, JoinHandle, OneShot, spawn};
use crate::tables::Tables;

/// What to write, and what may go afterwards.
pub(super) struct Job {
    pub(super) storage: std::sync::Arc<dyn Storage>,
    pub(super) store: StoreId,
    pub(super) generation: u64,
    pub(super) tables: Tables,
    pub(super) superfluous: Vec<String>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Length of the snapshot.
    pub(crate) written: Result<u64, PersistError>,
    /// Files that are still there though they could go.
    pub(crate) kept: Vec<String>,
    /// What a snapshot that failed left, and nothing leads to.
    pub(crate) left: Vec<String>,
}

/// A job under way.
#[derive(Debug)]
pub(crate) struct Running {
    pub(super) generation: u64,
    outcome: Arc<OneShot<Outcome>>,
    thread: Option<JoinHandle<()>>,
}

/// Answers in any case: with `SnapshotPanicked`, if nothing better came before.
#[derive(Debug)]
pub(crate) struct Answer(Arc<OneShot<Outcome>>, Vec<String>);

impl Drop for Answer {
    fn drop(&mut self) {
        let (written, kept) = (Err(PersistError::SnapshotPanicked), core::mem::take(&mut self.1));
        self.0.put(Outcome { written, kept, left: Vec::new() });
    }
}

impl Job {
    /// Starts the thread.
    pub(super) fn start(self) -> Running {
        let (generation, superfluous, path) = (self.generation, self.superfluous.clone(), self.storage.path(""));
        Running::start(generation, superfluous, path, move |answer| {
            let outcome = self.run();
            answer.0.put(outcome);
        })
    }

    fn run(mut self) -> Outcome {
        let storage = self.storage.as_ref();
        // Where the directory is not ours any more, nothing in it is superfluous.
        let written = write::snapshot(storage, self.store, self.generation, &self.tables).and_then(|bytes| {
            write::confirm(storage).map(|()| bytes).map_err(|error| {
                let is_displaced = matches!(error, PersistError::Displaced { .. });
                let left = if is_displaced { Vec::new() } else { vec![snapshot_name(self.generation)] };
                write::Failed { error, left }
            })
        });
        let (written, left) = match written {
            Ok(bytes) => {
                self.superfluous.retain(|name| !is_removed(storage, name));
                (Ok(bytes), Vec::new())
            }
            Err(write::Failed { error, mut left }) => {
                // The journals hold all that it holds, and the next one has another name.
                if !left.is_empty() && write::confirm(storage).is_ok() {
                    left.retain(|name| !is_removed(storage, name));
                }
                (Err(error), left)
            }
        };
        Outcome { written, kept: self.superfluous, left }
    }
}

impl Running {
    /// Starts a thread that owes an answer. If that is refused, the answer is that error.
    pub(crate) fn start(
        generation: u64,
        superfluous: Vec<String>,
        path: PathBuf,
        body: impl FnOnce(Answer) + Send + 'static,
    ) -> Self {
        Self::start_by(|run| spawn("trustkeep-snapshot", run), generation, superfluous, path, body)
    }

    /// `spawn`: starts the thread, or drops what it should have run.
    fn start_by(
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
        generation: u64,
        superfluous: Vec<String>,
        path: PathBuf,
        body: impl FnOnce(Answer) + Send + 'static,
    ) -> Self {
        let outcome = Arc::new(OneShot::new());
        let answer = Answer(Arc::clone(&outcome), superfluous.clone());
        let thread = match spawn(Box::new(move || body(answer))) {
            Ok(thread) => Some(thread),
            Err(error) => {
                // What it would have run is dropped, and has answered; the reason is better than that.
                let _ = outcome.take();
                let written = Err(PersistError::io("start the snapshot thread of", path, error));
                outcome.put(Outcome { written, kept: superfluous, left: Vec::new() });
                None
            }
        };
        Running { generation, outcome, thread }
    }

    /// What became of it, if it is over.
    pub(crate) fn look(&mut self) -> Option<Outcome> {
        let outcome = self.outcome.take()?;
        self.end();
        Some(outcome)
    }

    /// What became of it; waits until it is over.
    pub(crate) fn wait(&mut self) -> Option<Outcome> {
        let outcome = self.outcome.wait(Deadline::NEVER)?;
        self.end();
        Some(outcome)
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It has answered, and ends; a panic was answered with an error.
            let _ = thread.join();
        }
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
#[allow(clippy::unwrap_used, reason = "tests say what must hold by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_could_not_be_started_is_told_as_that_and_a_panic_as_a_panic() {
        let files = vec!["journal-1".to_owned()];
        let refuse = |run| {
            drop(run);
            Err(io::ErrorKind::WouldBlock.into())
        };
        let mut refused = Running::start_by(refuse, 3, files.clone(), "store".into(), drop);
        let Outcome { written, kept, left } = refused.look().unwrap();
        let text = written.unwrap_err().to_string();
        assert!(text.contains("start the snapshot thread of") && text.contains("store"), "{text}");
        assert_eq!((kept, left.len()), (files.clone(), 0));
        assert!(refused.look().is_none(), "it is told once");
        // And the twin: a thread that began, and ended without an answer.
        let mut panicked = Running::start(4, files.clone(), "store".into(), drop);
        let Outcome { written, kept, .. } = panicked.wait().unwrap();
        assert!(matches!(written, Err(PersistError::SnapshotPanicked)), "{written:?}");
        assert_eq!(kept, files);
    }
}
