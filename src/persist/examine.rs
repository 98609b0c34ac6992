//! Looking at a store's files without owning them: what an operator is told about a directory.
//!
//! INVARIANT I-E1: nothing is written, created, locked or removed.
//! INVARIANT I-E2: the directory may belong to a running store, which replaces its files meanwhile. A file that goes away
//! between being listed and being read is no fault; the directory is then read again, so that what is reported is a
//! state which was once the newest.
//!
//! More than 450 lines because what is said of each kind of file stands beside how it is checked.
#![forbid(unsafe_code)]

mod ending;
#[cfg(all(test, not(trustkeep_loom)))]
mod tests;

use std::io;
use std::path::PathBuf;

use super::format::{self, Damage, FileError, HEADER_BYTES, Header, Kind, Previous, STATE_VERSION, Snapshot, StoreId};
use super::holder::LockText;
use super::load::{self, State, decode_head, decode_named, unusable};
use super::recover::{Choice, GENESIS, LOCK, Listing, RecoverPolicy, Recovered, journal_name};
use super::{FileEntry, Storage};
use crate::error::OpenError;
use crate::map::Value;
use crate::map::mix::Mix;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::tables::Tables;
use crate::tables::patch::Patch;
use crate::time::Now;
use crate::wire::open_key::OpenKey;
use ending::{finding, written};

/// What a file in a store's directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Snapshot,
    Journal,
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
            Self::Journal => "journal",
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
    /// The number of a journal.
    pub(crate) seq: Option<u64>,
}

/// What checking a file came to.
#[derive(Debug)]
pub(crate) enum Finding {
    /// Every byte is accounted for, and nothing can have followed.
    Whole,
    /// Nothing is lost, but somebody may want to know.
    Note(String),
    /// Nothing is known to be lost, but it is not known of every byte that it is what it should be.
    Unsure(String),
    Fault(OpenError),
}

/// Every file and what became of checking it, and what is wrong with the directory as a whole.
#[derive(Debug)]
pub(crate) struct Report {
    /// The generation that opening would find; of the newest whole snapshot, if it would refuse.
    pub(crate) generation: Option<u64>,
    pub(crate) files: Vec<(FileInfo, Finding)>,
    pub(crate) directory: Finding,
    /// The files that are the state; none if opening would refuse.
    needed: Vec<String>,
}

impl Report {
    /// Of each file, and of the directory.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.files.iter().map(|(_, finding)| finding).chain([&self.directory])
    }

    /// What is damaged, and is no part of the state: it opens all the same. Empty if opening would refuse.
    pub(crate) fn unneeded(&self) -> Vec<(String, Damage)> {
        let damaged = self.files.iter().filter_map(|(file, finding)| match finding {
            Finding::Fault(OpenError::Damaged { offset, reason, .. }) => {
                Some((file.name.clone(), Damage { offset: *offset, reason: reason.clone() }))
            }
            _ => None,
        });
        let is_free = |name: &String| !self.needed.is_empty() && !self.needed.contains(name) && name != GENESIS;
        damaged.filter(|(name, _)| is_free(name)).collect()
    }

    /// Whether each byte is what it should be.
    pub(crate) fn is_accounted_for(&self) -> bool {
        self.findings().all(|finding| matches!(finding, Finding::Whole | Finding::Note(_)))
    }
}

/// How far [`verify`] is, for somebody who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It begins, or begins again because files went away meanwhile; this many bytes are to be checked.
    Begin { bytes: u64 },
    /// So many more of them are.
    Done { bytes: u64 },
}

/// What [`inspect`] finds.
#[derive(Debug)]
pub(crate) struct Inspection {
    /// The state that opening the directory would find.
    pub(crate) snapshot: Snapshot,
    pub(crate) files: Vec<FileInfo>,
    /// The newest journal that is part of it, and what checking that came to.
    pub(crate) newest: Option<(String, Finding)>,
}

/// The state that opening the directory would find, its files, and what is to be said of the newest journal.
///
/// # Errors
/// What opening would answer, under [`RecoverPolicy::Fail`].
pub(crate) fn inspect(storage: &dyn Storage, now: Now) -> Result<Inspection, OpenError> {
    steadily(storage, |entries, listing| {
        let (snapshot, recovered) = state(storage, listing, now)?;
        let newest = recovered.journals.last().zip(recovered.ending.as_ref());
        let newest = newest.map(|(link, ending)| {
            let name = journal_name(link.seq);
            let written = load::read(storage, &name, |bytes| Ok(written(bytes)))?.unwrap_or(ending.bytes);
            Ok((name, finding(&link.head, ending, written, true)))
        });
        Ok(Inspection { snapshot, files: describe(entries, listing), newest: newest.transpose()? })
    })
}

/// The state as one snapshot, and the files that it consists of.
fn state(storage: &dyn Storage, listing: &Listing, now: Now) -> Result<(Snapshot, Box<Recovered>), OpenError> {
    let mut state = State::new(storage, now);
    let Choice::State(recovered) = load::decide(storage, listing, RecoverPolicy::Fail, &mut state)? else {
        return Err(OpenError::Missing { path: storage.path(""), is_parent: false });
    };
    let (store, rebuilt) = state.finish(&recovered)?;
    let header = Header {
        version: STATE_VERSION,
        kind: Kind::Snapshot,
        store,
        generation: rebuilt.generation,
        file_bytes: HEADER_BYTES as u64,
    };
    Ok((Snapshot { header, tables: rebuilt.tables }, recovered))
}

/// Which generation a recovery under this policy would reach, with which tables, and whether something newer would be lost;
/// `None` if it would begin an empty store.
///
/// # Errors
/// What opening would answer.
pub(crate) fn would_reach(
    storage: &dyn Storage,
    policy: RecoverPolicy,
    now: Now,
) -> Result<Option<(u64, Tables, bool)>, OpenError> {
    let listing = Listing::new(&load::list(storage)?);
    let mut state = State::new(storage, now);
    match load::decide(storage, &listing, policy, &mut state)? {
        Choice::State(recovered) => {
            let (_, rebuilt) = state.finish(&recovered)?;
            Ok(Some((rebuilt.generation, rebuilt.tables, recovered.lossy)))
        }
        _ => Ok(None),
    }
}

/// Reads every byte of every file that is part of the state or of an older one, and tells `progress` how far it is.
///
/// # Errors
/// There is no store, or its files cannot be read at all. What is wrong with a file is in the report.
pub(crate) fn verify(storage: &dyn Storage, now: Now, progress: &mut dyn FnMut(Progress)) -> Result<Report, OpenError> {
    let mut last_faults = None;
    loop {
        let report = verify_once(storage, now, progress)?;
        let told = |finding: &Finding| if let Finding::Fault(error) = finding { Some(error.to_string()) } else { None };
        let faults: Vec<String> = report.findings().filter_map(told).collect();
        if faults.is_empty() || last_faults.as_ref() == Some(&faults) {
            return Ok(report);
        }
        last_faults = Some(faults);
    }
}

fn verify_once(storage: &dyn Storage, now: Now, progress: &mut dyn FnMut(Progress)) -> Result<Report, OpenError> {
    steadily(storage, |entries, listing| {
        if !listing.genesis && !listing.has_data() {
            return Err(OpenError::Missing { path: storage.path(""), is_parent: false });
        }
        let whole = state(storage, listing, now);
        if let Err(error) = &whole
            && is_gone(error)
        {
            return Err(OpenError::io("read", storage.path(""), io::ErrorKind::NotFound.into()));
        }
        let chain = whole.as_ref().map(|(_, recovered)| recovered.journals.clone()).unwrap_or_default();
        let mut files = describe(entries, listing);
        progress(Progress::Begin { bytes: files.iter().map(|file| file.bytes).sum() });
        let meter = Meter { progress: &mut *progress, reached: 0 };
        let mut check = Check { storage, now, store: None, newest: None, previous: None, meter };
        // The mark first, for it says which store the others belong to; then the newest snapshot, so that a running
        // store which removes older ones meanwhile does not take away what matters. A journal says what counts of the one before it.
        files.sort_by_key(|file| (file.kind != FileKind::Genesis, core::cmp::Reverse((file.generation, file.seq))));
        let mut checked = Vec::with_capacity(files.len());
        for file in files {
            let counted = chain.iter().find(|link| Some(link.seq) == file.seq).and_then(|link| link.counted);
            let counted = counted.or(check.previous.filter(|of| Some(of.seq) == file.seq).map(|of| of.bytes));
            // Only where the state ends it is not known how much of a journal counts; one that nothing leads to holds nothing.
            let is_newest = counted.is_none() && chain.last().is_none_or(|link| Some(link.seq) == file.seq);
            let finding = check.file(&file, counted, is_newest);
            check.meter.end(file.bytes);
            match finding {
                Ok(finding) => checked.push((file, finding)),
                // Superseded and removed meanwhile: no part of the store any more.
                Err(error) if is_gone(&error) && check.newest.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        checked.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let generation = match &whole {
            Ok((snapshot, _)) => Some(snapshot.header.generation),
            Err(_) => check.newest.map(|newest| newest.header.generation),
        };
        let needed = whole.as_ref().map_or_else(
            |_| Vec::new(),
            |(_, recovered)| {
                let journals = recovered.journals.iter().map(|link| journal_name(link.seq));
                core::iter::once(recovered.snapshot.1.clone()).chain(journals).collect()
            },
        );
        let named = checked.iter().any(|(_, finding)| matches!(finding, Finding::Fault(_)));
        let directory = match whole {
            Err(error) if !named => Finding::Fault(error),
            _ if !listing.genesis => {
                Finding::Note("the mark of a finished creation is missing; the next opening writes it".to_owned())
            }
            _ => Finding::Whole,
        };
        Ok(Report { generation, files: checked, directory, needed })
    })
}

/// Lists and looks, again when files went away between the one and the other.
fn steadily<T>(
    storage: &dyn Storage,
    mut look: impl FnMut(&[FileEntry], &Listing) -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    let mut entries = load::list(storage)?;
    let (mut attempts, mut seen) = (1, Vec::new());
    loop {
        let listing = Listing::new(&entries);
        if let Some(found) = listing.foreign_directory() {
            return Err(OpenError::Foreign { path: storage.path(""), found: format!("{found} is in it") });
        }
        let error = match look(&entries, &listing) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let again = load::list(storage)?;
        let text = error.to_string();
        // A running store replaces its files, and appends to its journal while that is read.
        let moves = again != entries || !seen.contains(&text);
        let passing = is_gone(&error)
            || has_moved(&error)
            || matches!(error, OpenError::DataMissing { .. } | OpenError::Missing { .. } | OpenError::Damaged { .. });
        if !passing || !moves || attempts >= ATTEMPTS_MAX {
            return Err(error);
        }
        seen.push(text);
        (entries, attempts) = (again, attempts + 1);
    }
}

fn is_gone(error: &OpenError) -> bool {
    matches!(error, OpenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// The file's length changed while it was read: an owner that has just come writes its process id.
fn has_moved(error: &OpenError) -> bool {
    matches!(error, OpenError::Io { operation: "read", source, .. } if source.kind() == io::ErrorKind::Other)
}

fn describe(entries: &[FileEntry], listing: &Listing) -> Vec<FileInfo> {
    let of = |entry: &FileEntry| {
        let name = &entry.name;
        let snapshot = listing.snapshots.iter().find(|(_, of)| of == name);
        let journal = listing.journals.iter().find(|(_, of)| of == name);
        let kind = match name.as_str() {
            _ if snapshot.is_some() => FileKind::Snapshot,
            _ if journal.is_some() => FileKind::Journal,
            GENESIS => FileKind::Genesis,
            LOCK => FileKind::Lock,
            _ if listing.leftovers.contains(name) => FileKind::Leftover,
            _ if listing.set_aside.contains(name) => FileKind::SetAside,
            _ => FileKind::Foreign,
        };
        let (generation, seq) = (snapshot.map(|(generation, _)| *generation), journal.map(|(seq, _)| *seq));
        FileInfo { name: name.clone(), bytes: entry.bytes, kind, generation, seq }
    };
    entries.iter().map(of).collect()
}

/// Checks files, the mark first and snapshots from the newest on.
struct Check<'a> {
    storage: &'a dyn Storage,
    now: Now,
    store: Option<StoreId>,
    newest: Option<Snapshot>,
    /// What the journal that was checked last goes on from.
    previous: Option<Previous>,
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
    fn file(&mut self, file: &FileInfo, counted: Option<u64>, is_newest: bool) -> Result<Finding, OpenError> {
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
            FileKind::Journal => self.journal(name, counted, is_newest)?,
            FileKind::Lock => {
                let is_foreign =
                    load::read(self.storage, name, |bytes| Ok(LockText::parse(bytes) == LockText::Foreign))?;
                match is_foreign {
                    Ok(false) => Finding::Whole,
                    _ => Finding::Fault(foreign_lock(self.storage.path(""))),
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
            let known = newest.as_ref().map(|newest| &newest.tables);
            check_keys(bytes, snapshot.tables.trusted.len(), keys(&snapshot.tables, known), meter)?;
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

    fn journal(&mut self, name: &str, counted: Option<u64>, is_newest: bool) -> Result<Finding, OpenError> {
        let (now, newest, meter) = (self.now, &self.newest, &mut self.meter);
        let outcome = load::read(self.storage, name, |bytes| {
            let head = decode_head(name, bytes)?;
            let (ending, patch) = format::check_journal(bytes, counted, now)?;
            let count = patch.trusted.len();
            let record = |(id, value): (u32, Option<Value>)| Some(value?.record(NodeId::new(id)?));
            let trusted = patch.trusted.into_iter().filter_map(record);
            let known = newest.as_ref().map(|newest| &newest.tables);
            let unknown = trusted.filter(|record| !known.is_some_and(|known| is_known(known, record)));
            let keys = unknown.filter_map(|record| record.public_key);
            // The other tables as they would be: what they hold is little beside the records.
            let sides = Tables::new(Mix::new(0)).patched(Patch { trusted: Vec::new(), sides: patch.sides });
            let keys = keys.chain(sides.iter().flat_map(|tables| tables.sides.keys()));
            check_keys(bytes, count, keys, meter)?;
            Ok((head, ending, written(bytes)))
        })?;
        let (head, ending, written) = match outcome {
            Ok(found) => found,
            Err(error) => return Ok(Finding::Fault(unusable(self.storage, name, error))),
        };
        self.previous = head.previous;
        if *self.store.get_or_insert(head.store) != head.store {
            return Ok(Finding::Fault(OpenError::OtherStore { path: self.storage.path(name) }));
        }
        Ok(finding(&head, &ending, written, is_newest))
    }
}

fn foreign_lock(path: PathBuf) -> OpenError {
    let found = "its LOCK holds what this program never writes, so no store opens here while it is there; remove LOCK if no other \
                 program uses this directory";
    OpenError::Foreign { path, found: found.to_owned() }
}

fn is_known(known: &Tables, record: &TrustRecord) -> bool {
    known.trusted.get(record.node_id).is_some_and(|other| other.public_key == record.public_key)
}

/// Whether every key is a point of the curve: opening trusts the checksum for that, see
/// [`PublicKey::from_checksummed`].
///
/// This takes nearly all of the time (some microseconds a key), so that the file counts as checked as far as its keys, of
/// which there are about `count`, are.
fn check_keys(
    bytes: &[u8],
    count: usize,
    keys: impl Iterator<Item = PublicKey>,
    meter: &mut Meter<'_>,
) -> Result<(), FileError> {
    let (file_bytes, count) = (bytes.len() as u64, count.max(1) as u64);
    for (number, key) in (0u64..).zip(keys) {
        if number % TELL_EVERY == 0 {
            meter.reach((file_bytes.saturating_mul(number) / count).min(file_bytes));
        }
        if let Err(reason) = OpenKey::new(*key.as_bytes()) {
            let place = bytes.windows(32).position(|window| window == key.as_bytes());
            return Err(FileError::Damaged(Damage { offset: place.unwrap_or(0) as u64, reason: reason.to_string() }));
        }
    }
    Ok(())
}

/// Every key of a state; those of trusted peers that `known` holds too were checked with it.
fn keys<'a>(tables: &'a Tables, known: Option<&'a Tables>) -> impl Iterator<Item = PublicKey> {
    let trusted = tables.trusted.iter().filter(move |record| !known.is_some_and(|known| is_known(known, record)));
    trusted.filter_map(|record| record.public_key).chain(tables.sides.keys())
}

/// Keys between two words on the progress: tens of milliseconds.
const TELL_EVERY: u64 = 4096;
/// A running store would have to save this often while one listing is being read.
const ATTEMPTS_MAX: usize = 100;
