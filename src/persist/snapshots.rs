//! Writes whole snapshots so that at every moment one of them is complete and durable.
//!
//! Order of a save: exclusive temporary file, all bytes, fsync, rename, fsync of the directory. Only then is the
//! generation durable, and only then do older snapshots go; the one before the newest stays, for `RecoverPolicy`.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::format::{self, Header, Kind, StoreId};
use super::recover::{GENESIS, snapshot_name, temporary_name};
use super::{Storage, StorageFile, write_all_at};
use crate::error::PersistError;
use crate::machine::tables::Tables;

/// Saves states to a storage. Used by one thread at a time.
#[derive(Debug)]
pub(crate) struct SnapshotSaver {
    storage: Arc<dyn Storage>,
    store: StoreId,
    /// Names of the snapshots that are there, oldest first.
    kept: VecDeque<String>,
    /// Removed from use, but not yet from the directory.
    doomed: Vec<String>,
    attempts: u64,
}

impl SnapshotSaver {
    /// `kept`: the snapshots in the directory, oldest first.
    pub(crate) fn new(storage: Arc<dyn Storage>, store: StoreId, kept: VecDeque<String>) -> Self {
        Self { storage, store, kept, doomed: Vec::new(), attempts: 0 }
    }

    /// Makes this state durable. After an error the state is as if the call had not been made, or as if it had
    /// succeeded; the next call starts from fresh files.
    pub(crate) fn save(&mut self, generation: u64, tables: &Tables) -> Result<(), PersistError> {
        let name = snapshot_name(generation);
        let store = self.store;
        self.replace(&name, |file| {
            let mut buffered = Buffered { file, start: 0, bytes: Vec::with_capacity(BUFFER_BYTES) };
            let encoded = format::encode_snapshot(store, generation, tables, &mut |at, bytes| buffered.put(at, bytes));
            encoded.and_then(|_| buffered.flush())
        })?;
        if self.kept.back() != Some(&name) {
            self.kept.push_back(name);
        }
        while self.kept.len() > SNAPSHOTS_KEPT {
            self.doomed.extend(self.kept.pop_front());
        }
        // What cannot be removed now is tried again after the next save, and at the next opening.
        self.doomed.retain(|name| match self.storage.remove(name) {
            Ok(()) => false,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        });
        Ok(())
    }

    /// Writes the mark that this directory holds a store.
    pub(crate) fn write_mark(&mut self) -> Result<(), PersistError> {
        let bytes = format::HEADER_BYTES as u64;
        let header = Header { kind: Kind::Genesis, store: self.store, generation: 0, file_bytes: bytes };
        self.replace(GENESIS, |file| write_all_at(file, 0, &header.encode()))
    }

    fn replace(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut dyn StorageFile) -> io::Result<()>,
    ) -> Result<(), PersistError> {
        let (temporary, mut file) = self.create(name)?;
        let fail = |operation, of: &str, error| {
            // Best effort: what stays is a leftover, which the next opening removes.
            let _ = self.storage.remove(&temporary);
            PersistError::io(operation, self.storage.path(of), error)
        };
        write(file.as_mut()).map_err(|error| fail("write", &temporary, error))?;
        file.sync().map_err(|error| fail("fsync", &temporary, error))?;
        drop(file);
        self.storage.rename(&temporary, name).map_err(|error| fail("rename", &temporary, error))?;
        self.storage.sync_dir().map_err(|error| fail("fsync of the directory", "", error))
    }

    fn create(&mut self, name: &str) -> Result<(String, Box<dyn StorageFile>), PersistError> {
        loop {
            let temporary = temporary_name(name, self.attempts);
            self.attempts += 1;
            match self.storage.create(&temporary) {
                Ok(file) => return Ok((temporary, file)),
                // A leftover that could not be removed; it is in nobody's way.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.attempts < ATTEMPTS_MAX => {}
                Err(error) => return Err(PersistError::io("create", self.storage.path(&temporary), error)),
            }
        }
    }
}

/// Collects the small writes of one block each into large ones.
struct Buffered<'a> {
    file: &'a mut dyn StorageFile,
    start: u64,
    bytes: Vec<u8>,
}

impl Buffered<'_> {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let follows = offset == self.start + self.bytes.len() as u64;
        if !follows || self.bytes.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
            self.start = offset;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_all_at(self.file, self.start, &self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

/// The newest, and the one before it.
const SNAPSHOTS_KEPT: usize = 2;
const BUFFER_BYTES: usize = 1 << 20;
/// More leftovers than this under consecutive names mean that something else is wrong.
const ATTEMPTS_MAX: u64 = 1 << 32;
