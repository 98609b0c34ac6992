//! Writing files so that each is there whole or not at all: exclusive temporary file, all bytes, fsync, rename, fsync of
//! the directory.
#![forbid(unsafe_code)]

use std::io;

use super::format::{self, HEADER_BYTES, Header, Kind, PAGE_BYTES, STATE_VERSION, StoreId};
use super::recover::{GENESIS, snapshot_name, temporary_name};
use super::{Left, Seen, Storage, StorageFile};
use crate::error::{Displacement, PersistError};
use crate::tables::Tables;

/// A file that was not made durable.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: PersistError,
    /// Files that may be there because of it: nothing leads to them, and they are whole if they have their name. They are
    /// removed only once the storage has confirmed that it is ours. After [`PersistError::Displaced`] there are none.
    pub(super) left: Vec<String>,
}

impl From<Failed> for PersistError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// Makes a file durable under its name, which must be free, and returns it still open.
///
/// After an error the name leads nowhere, or to the file, which was whole by then; or it was taken
/// ([`PersistError::Displaced`]).
pub(super) fn place(
    storage: &dyn Storage,
    name: &str,
    write: impl FnOnce(&mut dyn StorageFile) -> io::Result<()>,
) -> Result<Box<dyn StorageFile>, Failed> {
    let (temporary, mut file) = create(storage, name).map_err(|error| Failed { error, left: Vec::new() })?;
    let fail = |operation, of: &str, error, may_be_named: bool| {
        let mut left = Vec::new();
        // What cannot be removed now is removed before the next attempt, or by the next opening.
        if confirm(storage).is_err() || !is_removed(storage, &temporary) {
            left.push(temporary.clone());
        }
        if may_be_named {
            left.push(name.to_owned());
        }
        Failed { error: PersistError::io(operation, storage.path(of), error), left }
    };
    write(file.as_mut()).map_err(|error| fail("write", &temporary, error, false))?;
    file.sync().map_err(|error| fail("fsync", &temporary, error, false))?;
    storage.rename(&temporary, name).map_err(|error| match error.kind() {
        // Another process gives names of ours to its files. Nothing here is touched any more.
        io::ErrorKind::AlreadyExists => {
            let error = PersistError::Displaced { path: storage.path(name), found: Displacement::Taken };
            Failed { error, left: Vec::new() }
        }
        _ => fail("rename", &temporary, error, true),
    })?;
    storage.sync_dir().map_err(|error| fail("fsync of the directory", "", error, true))?;
    Ok(file)
}

/// Has the storage confirm that its directory is still ours, so that something in it may be removed.
pub(super) fn confirm(storage: &dyn Storage) -> Result<(), PersistError> {
    storage.confirm(&Left { open: None, others: &Vec::new }, &mut Seen::default())
}

/// Removes a file; false if it is still there.
pub(super) fn is_removed(storage: &dyn Storage, name: &str) -> bool {
    match storage.remove(name) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
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
pub(super) fn snapshot(storage: &dyn Storage, store: StoreId, generation: u64, tables: &Tables) -> Result<u64, Failed> {
    let mut file_bytes = 0;
    place(storage, &snapshot_name(generation), |file| {
        let mut buffered = Buffered::new(file, true);
        file_bytes = format::encode_snapshot(store, generation, tables, &mut |at, bytes| buffered.put(at, bytes))?;
        buffered.flush()
    })?;
    Ok(file_bytes)
}

/// Makes the mark durable that this directory holds a store.
pub(super) fn mark(storage: &dyn Storage, store: StoreId) -> Result<(), PersistError> {
    let header =
        Header { version: STATE_VERSION, kind: Kind::Genesis, store, generation: 0, file_bytes: HEADER_BYTES as u64 };
    Ok(place(storage, GENESIS, |file| write_all_at(file, 0, &header.encode())).map(drop)?)
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

/// Whether a file may fit if it is shorter: its bytes found no room, not its name.
pub(super) fn is_full(error: &PersistError) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let PersistError::Io { operation: "write" | "fsync", source, .. } = error else { return false };
    matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Writes zeros from here to there.
pub(super) fn fill(buffered: &mut Buffered<'_>, mut at: u64, end: u64) -> std::io::Result<()> {
    while at < end {
        let bytes = (end - at).min(PAGE_BYTES);
        buffered.put(at, ZEROS.get(..usize::try_from(bytes).unwrap_or(0)).unwrap_or_default())?;
        at += bytes;
    }
    Ok(())
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
pub(super) const INTERRUPTIONS_MAX: u32 = 1000;
const ZEROS: &[u8; PAGE_BYTES as usize] = &[0; PAGE_BYTES as usize];
