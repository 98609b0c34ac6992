//! Looking at a store's files without owning them: what an operator is told about a directory.
//!
//! INVARIANT I-E1: nothing is written, created, locked or removed.
//! INVARIANT I-E2: the directory may belong to a running store, which replaces its files meanwhile. A file that goes away
//! between being listed and being read is no fault; the directory is then read again, so that what is reported is a
//! state which was once the newest.
#![forbid(unsafe_code)]

#[cfg(all(test, not(trustkeep_loom)))]
mod tests;

use std::io;

use super::format::{Damage, FileError, Header, Kind, Snapshot, StoreId};
use super::load::{self, decode_named, unusable};
use super::recover::{Choice, GENESIS, LOCK, Listing, RecoverPolicy};
use super::{FileEntry, Storage};
use crate::error::OpenError;
use crate::machine::tables::Tables;
use crate::peer::{NodeId, PublicKey};
use crate::time::Now;

/// What a file in a store's directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Snapshot,
    Genesis,
    Lock,
    /// Half-written: by a save that is under way, or that a crash cut short.
    Leftover,
    SetAside,
    Foreign,
}

impl FileKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Genesis => "genesis",
            Self::Lock => "lock",
            Self::Leftover => "leftover",
            Self::SetAside => "set-aside",
            Self::Foreign => "foreign",
        }
    }
}

/// One file of a store's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileInfo {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) kind: FileKind,
    /// Of a snapshot.
    pub(crate) generation: Option<u64>,
}

/// What checking a file came to.
#[derive(Debug)]
pub(crate) enum Finding {
    /// Every byte is accounted for.
    Whole,
    /// Nothing is lost, but somebody may want to know.
    Note(String),
    Fault(OpenError),
}

/// Every file and what became of checking it, and what is wrong with the directory as a whole.
#[derive(Debug)]
pub(crate) struct Report {
    /// The generation of the newest whole snapshot.
    pub(crate) generation: Option<u64>,
    pub(crate) files: Vec<(FileInfo, Finding)>,
    pub(crate) directory: Finding,
}

/// How far [`verify`] is, for somebody who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It begins, or begins again because files went away meanwhile; this many bytes are to be checked.
    Begin { bytes: u64 },
    /// So many more of them are.
    Done { bytes: u64 },
}

/// The state that opening the directory would find, and its files.
///
/// # Errors
/// What opening would answer, under [`RecoverPolicy::Fail`].
pub(crate) fn inspect(storage: &dyn Storage, now: Now) -> Result<(Snapshot, Vec<FileInfo>), OpenError> {
    steadily(storage, |entries, listing| {
        let mut found = None;
        let choice = load::decide(storage, listing, RecoverPolicy::Fail, now, &mut found)?;
        match (choice, found) {
            (Choice::Snapshot { .. }, Some(snapshot)) => Ok((snapshot, describe(entries, listing))),
            _ => Err(OpenError::Missing { path: storage.path("") }),
        }
    })
}

/// Reads every byte of every file that is part of the state or of an older one, and tells `progress` how far it is.
///
/// # Errors
/// There is no store, or its files cannot be read at all. What is wrong with a file is in the report.
pub(crate) fn verify(storage: &dyn Storage, now: Now, progress: &mut dyn FnMut(Progress)) -> Result<Report, OpenError> {
    steadily(storage, |entries, listing| {
        if !listing.genesis && listing.snapshots.is_empty() {
            return Err(OpenError::Missing { path: storage.path("") });
        }
        let mut files = describe(entries, listing);
        progress(Progress::Begin { bytes: files.iter().map(|file| file.bytes).sum() });
        let meter = Meter { progress: &mut *progress, reached: 0 };
        let mut check = Check { storage, now, store: None, newest: None, meter };
        // The mark first, for it says which store the others belong to; then the newest snapshot, so that a running
        // store which removes older ones meanwhile does not take away what matters.
        files.sort_by_key(|file| (file.kind != FileKind::Genesis, core::cmp::Reverse(file.generation)));
        let mut checked = Vec::with_capacity(files.len());
        for file in files {
            let finding = check.file(&file);
            check.meter.end(file.bytes);
            match finding {
                Ok(finding) => checked.push((file, finding)),
                // Superseded and removed meanwhile: no part of the store any more.
                Err(error) if is_gone(&error) && check.newest.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        checked.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let directory = if listing.snapshots.is_empty() {
            Finding::Fault(OpenError::DataMissing { path: storage.path("") })
        } else if !listing.genesis {
            Finding::Note("the mark of a finished creation is missing; the next opening writes it".to_owned())
        } else {
            Finding::Whole
        };
        let generation = check.newest.map(|newest| newest.header.generation);
        Ok(Report { generation, files: checked, directory })
    })
}

/// Lists and looks, again when files went away between the one and the other.
fn steadily<T>(
    storage: &dyn Storage,
    mut look: impl FnMut(&[FileEntry], &Listing) -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    let mut entries = load::list(storage)?;
    let mut attempts = 1;
    loop {
        let listing = Listing::new(&entries);
        if let Some(found) = listing.foreign_directory() {
            return Err(OpenError::Foreign { path: storage.path(""), found: format!("{found} is in it") });
        }
        let error = match look(&entries, &listing) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let rotated = is_gone(&error) || matches!(error, OpenError::DataMissing { .. } | OpenError::Missing { .. });
        let again = load::list(storage)?;
        if !rotated || attempts >= ATTEMPTS_MAX || again == entries {
            return Err(error);
        }
        (entries, attempts) = (again, attempts + 1);
    }
}

fn is_gone(error: &OpenError) -> bool {
    matches!(error, OpenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn describe(entries: &[FileEntry], listing: &Listing) -> Vec<FileInfo> {
    let of = |entry: &FileEntry| {
        let name = &entry.name;
        let snapshot = listing.snapshots.iter().find(|(_, of)| of == name);
        let kind = match name.as_str() {
            _ if snapshot.is_some() => FileKind::Snapshot,
            GENESIS => FileKind::Genesis,
            LOCK => FileKind::Lock,
            _ if listing.leftovers.contains(name) => FileKind::Leftover,
            _ if listing.set_aside.contains(name) => FileKind::SetAside,
            _ => FileKind::Foreign,
        };
        let generation = snapshot.map(|(generation, _)| *generation);
        FileInfo { name: name.clone(), bytes: entry.bytes, kind, generation }
    };
    entries.iter().map(of).collect()
}

/// Checks files, the mark first and snapshots from the newest on.
struct Check<'a> {
    storage: &'a dyn Storage,
    now: Now,
    store: Option<StoreId>,
    newest: Option<Snapshot>,
    meter: Meter<'a>,
}

/// Tells how far the check of one file is.
struct Meter<'a> {
    progress: &'a mut dyn FnMut(Progress),
    /// Bytes of this file that were told already.
    reached: u64,
}

impl Meter<'_> {
    fn reach(&mut self, bytes: u64) {
        (self.progress)(Progress::Done { bytes: bytes.saturating_sub(self.reached) });
        self.reached = self.reached.max(bytes);
    }

    fn end(&mut self, file_bytes: u64) {
        self.reach(file_bytes);
        self.reached = 0;
    }
}

impl Check<'_> {
    fn file(&mut self, file: &FileInfo) -> Result<Finding, OpenError> {
        let name = &file.name;
        Ok(match file.kind {
            FileKind::Genesis => match load::read(self.storage, name, |bytes| Header::decode(bytes, Kind::Genesis))? {
                Ok(header) => {
                    self.store = Some(header.store);
                    Finding::Whole
                }
                Err(error) => Finding::Fault(unusable(self.storage, name, error)),
            },
            FileKind::Snapshot => self.snapshot(name)?,
            FileKind::Lock => {
                let is_pid = load::read(self.storage, name, |bytes| Ok(holds_a_pid(bytes)))?;
                match is_pid {
                    Ok(true) => Finding::Whole,
                    _ => Finding::Note("holds no process id; its content matters to nobody".to_owned()),
                }
            }
            FileKind::Leftover => {
                Finding::Note("half-written, by a save under way or cut short; the next opening removes it".to_owned())
            }
            FileKind::SetAside => Finding::Note("damaged, and set aside by an earlier recovery; not used".to_owned()),
            FileKind::Foreign => Finding::Note("no file of this program; not used".to_owned()),
        })
    }

    fn snapshot(&mut self, name: &str) -> Result<Finding, OpenError> {
        let (now, newest, meter) = (self.now, &self.newest, &mut self.meter);
        let outcome = load::read(self.storage, name, |bytes| {
            let snapshot = decode_named(name, bytes, now)?;
            check_keys(bytes, &snapshot.tables, newest.as_ref().map(|newest| &newest.tables), meter)?;
            Ok(snapshot)
        })?;
        let snapshot = match outcome {
            Ok(snapshot) => snapshot,
            Err(error) => return Ok(Finding::Fault(unusable(self.storage, name, error))),
        };
        if *self.store.get_or_insert(snapshot.header.store) != snapshot.header.store {
            return Ok(Finding::Fault(OpenError::OtherStore { path: self.storage.path(name) }));
        }
        if self.newest.is_none() {
            self.newest = Some(snapshot);
        }
        Ok(Finding::Whole)
    }
}

/// Whether every key is a point of the curve: opening trusts the checksum for that, see
/// [`PublicKey::from_checksummed`]. Keys that `known` holds for the same peer were checked with it.
///
/// This takes nearly all of the time (some microseconds a key), so that the file counts as checked as far as its trusted
/// records are.
fn check_keys(bytes: &[u8], tables: &Tables, known: Option<&Tables>, meter: &mut Meter<'_>) -> Result<(), FileError> {
    let check = |key: &PublicKey| match PublicKey::from_bytes(*key.as_bytes()) {
        Ok(_) => Ok(()),
        Err(reason) => {
            let place = bytes.windows(32).position(|window| window == key.as_bytes());
            Err(FileError::Damaged(Damage { offset: place.unwrap_or(0) as u64, reason: reason.to_string() }))
        }
    };
    let is_known = |peer: NodeId, key: &PublicKey| {
        let record = known.and_then(|known| known.trusted.get(peer));
        record.is_some_and(|record| record.public_key.as_ref() == Some(key))
    };
    let (file_bytes, records) = (bytes.len() as u64, tables.trusted.len().max(1) as u64);
    for (number, record) in (0u64..).zip(tables.trusted.iter()) {
        if number % TELL_EVERY == 0 {
            meter.reach(file_bytes.saturating_mul(number) / records);
        }
        if let Some(key) = &record.public_key
            && !is_known(record.node_id, key)
        {
            check(key)?;
        }
    }
    tables.pending.iter().try_for_each(|(_, entry)| check(&entry.key))?;
    tables.outgoing.iter().filter_map(|(_, entry)| entry.expected_key).try_for_each(|key| check(&key))?;
    tables.floors.iter().filter_map(|(_, floor)| floor.key).try_for_each(|key| check(&key))
}

fn holds_a_pid(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok_and(|text| text.trim_end().parse::<u32>().is_ok())
}

/// Records between two words on the progress: tens of milliseconds.
const TELL_EVERY: u64 = 4096;
/// A running store would have to save this often while one listing is being read.
const ATTEMPTS_MAX: usize = 100;
