//! What an owner asks its storage before it acknowledges anything.
//!
//! INVARIANT I-L5: nothing is acknowledged, and no file removed, before the storage has confirmed after the last sync that
//! everything is as it was left. After it has not, nothing is written until it does again.
#![forbid(unsafe_code)]

use std::io;

use super::{Log, Open, Resumed};
use crate::error::PersistError;
use crate::persist::format::Previous;
use crate::persist::recover::{GENESIS, journal_name, snapshot_name};
use crate::persist::{FileId, Left, OpenFile};

/// A journal that must be there, under its name and with its length.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldJournal {
    seq: u64,
    id: Option<FileId>,
    file_bytes: u64,
}

impl Log {
    /// The mark of a store is durable: from now on it would be missed.
    pub(in crate::persist) fn is_marked(&mut self) {
        self.marked = true;
    }

    /// Has the storage confirm that everything is as it was left.
    pub(in crate::persist) fn confirm(&mut self) -> Result<(), PersistError> {
        self.confirm_with(self.held)
    }

    fn confirm_with(&mut self, held: Option<HeldJournal>) -> Result<(), PersistError> {
        let name = held.map(|held| journal_name(held.seq)).unwrap_or_default();
        let now = |held: HeldJournal| self.open.as_ref().filter(|open| open.seq == held.seq)?.file.bytes();
        let open = held.map(|held| OpenFile { name: &name, id: held.id, bytes: held.file_bytes, now: now(held) });
        let others = || self.files.names(held.map(|held| held.seq), self.marked);
        let confirmed = self.storage.confirm(&Left { open, others: &others }, &mut self.seen);
        let confirmed = match &self.seen.lost {
            Some((path, found)) if confirmed.is_ok() => {
                Err(PersistError::Displaced { path: path.clone(), found: *found })
            }
            _ => confirmed,
        };
        self.displaced = confirmed.is_err();
        confirmed
    }

    /// The same for what was just saved. If it is not confirmed, the journal that holds it is given up: as after a failed
    /// sync, the next one goes on from `previous`, which is as much as was acknowledged.
    pub(super) fn confirm_save(&mut self, previous: Option<Previous>) -> Result<(), PersistError> {
        let held = self.open.as_ref().map(Open::held);
        let confirmed = self.confirm_with(held);
        if confirmed.is_ok() {
            self.held = held;
        } else {
            let begun = self.open.take().is_some_and(|open| previous.is_none_or(|previous| previous.seq != open.seq));
            if begun {
                // Nothing will lead to it.
                let begun = self.files.journals.pop().map(|journal| journal_name(journal.seq));
                // A displaced one is not removed either: its name may lead to another process's file.
                if !matches!(confirmed, Err(PersistError::Displaced { .. })) {
                    let before = core::mem::replace(&mut self.unconfirmed, begun);
                    self.doomed.extend(before);
                }
            }
            self.retired = None;
            self.files.previous = previous;
        }
        confirmed
    }

    /// Why a save failed. A file that is not found is no trouble of the disk's: the directory may be gone.
    pub(super) fn explained(&mut self, error: PersistError) -> PersistError {
        match &error {
            PersistError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => match self.confirm() {
                Err(displaced @ PersistError::Displaced { .. }) => displaced,
                _ => error,
            },
            _ => error,
        }
    }
}

impl Resumed {
    /// The files that the state needs, but for this journal.
    fn names(&self, but: Option<u64>, marked: bool) -> Vec<String> {
        let journals = self.journals.iter().filter(|journal| Some(journal.seq) != but);
        let snapshots = self.snapshots.iter().map(|(generation, _)| snapshot_name(*generation));
        let names = journals.map(|journal| journal_name(journal.seq)).chain(snapshots);
        names.chain(marked.then(|| GENESIS.to_owned())).collect()
    }

    /// Whether there is a snapshot of this generation. It would be the same again, and its name is taken.
    pub(in crate::persist) fn has_snapshot(&self, generation: u64) -> bool {
        self.snapshots.iter().any(|(of, _)| *of == generation)
    }
}

impl Open {
    pub(super) fn held(&self) -> HeldJournal {
        HeldJournal { seq: self.seq, id: self.id, file_bytes: self.file_bytes }
    }
}
