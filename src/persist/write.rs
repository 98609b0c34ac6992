//! Writing files so that each is there whole or not at all: exclusive temporary file, all bytes, fsync, rename, fsync of
//! the directory.
#![forbid(unsafe_code)]

use std::io;

use super::format::{self, HEADER_BYTES, Header, Kind, StoreId, VERSION};
use super::recover::{GENESIS, snapshot_name, temporary_name};
use super::{Storage, StorageFile};
use crate::error::PersistError;
use crate::tables::Tables;

/// Makes a file durable under its name, replacing what had it, and returns it still open.
///
/// After an error the name leads to the old file, or to the new one, which was whole by then.
pub(super) fn replace(
    storage: &dyn Storage,
    name: &str,
    write: impl FnOnce(&mut dyn StorageFile) -> io::Result<()>,
) -> Result<Box<dyn StorageFile>, PersistError> {
    let (temporary, mut file) = create(storage, name)?;
    let fail = |operation, of: &str, error| {
        // Best effort: what stays is a leftover, which the next opening removes.
        let _ = storage.remove(&temporary);
        PersistError::io(operation, storage.path(of), error)
    };
    write(file.as_mut()).map_err(|error| fail("write", &temporary, error))?;
    file.sync().map_err(|error| fail("fsync", &temporary, error))?;
    storage.rename(&temporary, name).map_err(|error| fail("rename", &temporary, error))?;
    storage.sync_dir().map_err(|error| fail("fsync of the directory", "", error))?;
    Ok(file)
}

fn create(storage: &dyn Storage, name: &str) -> Result<(String, Box<dyn StorageFile>), PersistError> {
    let mut attempt = 0;
    loop {
        let temporary = temporary_name(name, attempt);
        match storage.create(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            // A leftover that could not be removed; it is in nobody's way.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS_MAX => {
                attempt += 1;
            }
            Err(error) => return Err(PersistError::io("create", storage.path(&temporary), error)),
        }
    }
}

/// Makes a snapshot durable; returns its length.
pub(super) fn snapshot(
    storage: &dyn Storage,
    store: StoreId,
    generation: u64,
    tables: &Tables,
) -> Result<u64, PersistError> {
    let mut file_bytes = 0;
    replace(storage, &snapshot_name(generation), |file| {
        let mut buffered = Buffered::new(file, true);
        file_bytes = format::encode_snapshot(store, generation, tables, &mut |at, bytes| buffered.put(at, bytes))?;
        buffered.flush()
    })?;
    Ok(file_bytes)
}

/// Makes the mark durable that this directory holds a store.
pub(super) fn mark(storage: &dyn Storage, store: StoreId) -> Result<(), PersistError> {
    let header =
        Header { version: VERSION, kind: Kind::Genesis, store, generation: 0, file_bytes: HEADER_BYTES as u64 };
    replace(storage, GENESIS, |file| write_all_at(file, 0, &header.encode())).map(drop)
}

/// Collects the small writes of one block each into large ones.
pub(super) struct Buffered<'a> {
    file: &'a mut dyn StorageFile,
    start: u64,
    bytes: Vec<u8>,
    /// Sync after each large write: a file of many megabytes then reaches the disk in small steps, between which others'
    /// syncs get their turn.
    gently: bool,
}

impl<'a> Buffered<'a> {
    pub(super) fn new(file: &'a mut dyn StorageFile, gently: bool) -> Self {
        Self { file, start: 0, bytes: Vec::new(), gently }
    }

    pub(super) fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let follows = offset == self.start + self.bytes.len() as u64;
        let most = if self.gently { STEP_BYTES } else { BUFFER_BYTES };
        if !follows || self.bytes.len() + bytes.len() > most {
            let full = self.bytes.len() >= most / 2;
            self.flush()?;
            if full && self.gently {
                self.file.sync_data()?;
            }
            self.start = offset;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        write_all_at(self.file, self.start, &self.bytes)?;
        self.start += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

/// Writes all of `bytes`, however short the single writes are. Interruptions are ridden out, but not for ever: who waits
/// for the save must hear of a file system that does nothing else.
pub(super) fn write_all_at(file: &mut dyn StorageFile, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    let mut interruptions = 0;
    while !bytes.is_empty() {
        match file.write_at(offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted && interruptions < INTERRUPTIONS_MAX => {
                interruptions += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// More leftovers than this under consecutive names mean that something else is wrong.
const ATTEMPTS_MAX: u64 = 1 << 20;
const BUFFER_BYTES: usize = 1 << 20;
/// A step of a file that is written gently: one full block. A journal's sync waits for the step before it, so a step of
/// 1 MiB made the slowest hundredth of them six times slower.
const STEP_BYTES: usize = 72 << 10;
/// In one call; a signal storm stays far below.
const INTERRUPTIONS_MAX: u32 = 1000;
