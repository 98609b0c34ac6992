//! Opens what is in a directory: finds the one state, cleans up after a crash, creates a store where there is none.
//!
//! Order of creation: lock, first snapshot durable, mark durable. A crash in between leaves a directory that opens.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::Arc;

use super::format::{self, FileError, Header, Kind, Snapshot, StoreId};
use super::recover::{self, Choice, GENERATION_MAX, GENESIS, Listing, RecoverPolicy, Refusal};
use super::snapshots::SnapshotSaver;
use super::{FileEntry, Storage};
use crate::error::{OpenError, PersistError};
use crate::machine::tables::Tables;
use crate::map::mix::Mix;
use crate::time::Now;

/// A store's state, durable, and what saves the next.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) tables: Tables,
    pub(crate) generation: u64,
    pub(crate) saver: SnapshotSaver,
}

/// Opens the storage, which this process has locked. `fresh` makes the identity of a new store.
pub(crate) fn load(
    storage: Arc<dyn Storage>,
    create: bool,
    policy: RecoverPolicy,
    now: Now,
    fresh: impl FnOnce() -> Result<StoreId, OpenError>,
) -> Result<Loaded, OpenError> {
    let entries = list(storage.as_ref())?;
    let listing = Listing::new(&entries);
    let mut found = None;
    let choice = decide(storage.as_ref(), &listing, policy, now, &mut found)?;
    match choice {
        Choice::Create if !create => Err(OpenError::Missing { path: storage.path("") }),
        Choice::Create => {
            clean(storage.as_ref(), &listing);
            begin(storage, fresh()?, 0, VecDeque::new())
        }
        Choice::Empty { set_aside, store } => {
            let store = store.map_or_else(fresh, Ok)?;
            move_aside(storage.as_ref(), &entries, &set_aside)?;
            clean(storage.as_ref(), &listing);
            // Beyond every generation that may have been acknowledged here.
            let generation = listing.snapshots.first().map_or(0, |(newest, _)| after(*newest));
            begin(storage, store, generation, VecDeque::new())
        }
        Choice::Snapshot { name, set_aside, write_mark } => {
            let Some(Snapshot { header, tables }) = found else {
                return Err(OpenError::DataMissing { path: storage.path("") });
            };
            move_aside(storage.as_ref(), &entries, &set_aside)?;
            clean(storage.as_ref(), &listing);
            // A crash may have come between the rename and the directory's fsync: what is used must be durable.
            sync_dir(storage.as_ref())?;
            let lost = |name: &String| set_aside.iter().any(|(aside, _)| aside == name);
            let kept = listing.snapshots.iter().rev().map(|(_, name)| name.clone()).filter(|name| !lost(name));
            let mut saver = SnapshotSaver::new(Arc::clone(&storage), header.store, kept.collect());
            let mut generation = header.generation;
            if listing.snapshots.first().is_some_and(|(_, newest)| *newest != name) {
                // An older state takes the place of a lost newer one: give it a number beyond all that were
                // acknowledged, so that no generation ever means two things.
                generation = listing.snapshots.first().map_or(generation, |(newest, _)| after(*newest));
                saver.save(generation, &tables).map_err(OpenError::Persist)?;
            }
            if write_mark {
                saver.write_mark().map_err(OpenError::Persist)?;
            }
            Ok(Loaded { tables, generation, saver })
        }
    }
}

fn after(generation: u64) -> u64 {
    generation.saturating_add(1).min(GENERATION_MAX)
}

/// Makes an empty store at this generation durable, then its mark.
fn begin(
    storage: Arc<dyn Storage>,
    store: StoreId,
    generation: u64,
    kept: VecDeque<String>,
) -> Result<Loaded, OpenError> {
    let tables = Tables::new(Mix::new(store.seed));
    let mut saver = SnapshotSaver::new(storage, store, kept);
    saver.save(generation, &tables).map_err(OpenError::Persist)?;
    saver.write_mark().map_err(OpenError::Persist)?;
    Ok(Loaded { tables, generation, saver })
}

/// Runs the pure decision, reading files as it asks for them; the chosen snapshot is left in `found`.
pub(crate) fn decide(
    storage: &dyn Storage,
    listing: &Listing,
    policy: RecoverPolicy,
    now: Now,
    found: &mut Option<Snapshot>,
) -> Result<Choice, OpenError> {
    let mut io_error = None;
    let mark = if listing.genesis {
        Some(read(storage, GENESIS, |bytes| Header::decode(bytes, Kind::Genesis).map(|header| header.store))?)
    } else {
        None
    };
    let decision = recover::decide(listing, mark, policy, &mut |name| {
        match read(storage, name, |bytes| decode_named(name, bytes, now)) {
            Ok(Ok(snapshot)) => {
                let store = snapshot.header.store;
                *found = Some(snapshot);
                Ok(store)
            }
            Ok(Err(error)) => Err(error),
            Err(error) => {
                // Not being able to read says nothing about the file: no fallback, whatever the policy.
                io_error = Some(error);
                Err(FileError::Newer(0))
            }
        }
    });
    if let Some(error) = io_error {
        return Err(error);
    }
    decision.map_err(|refusal| match refusal {
        Refusal::Damaged { name, damage } => unusable(storage, &name, FileError::Damaged(damage)),
        Refusal::Newer { name, version } => unusable(storage, &name, FileError::Newer(version)),
        Refusal::OtherStore { name } => OpenError::OtherStore { path: storage.path(&name) },
        Refusal::DataMissing => OpenError::DataMissing { path: storage.path("") },
    })
}

/// What to tell an operator about a file that cannot be used.
pub(crate) fn unusable(storage: &dyn Storage, name: &str, error: FileError) -> OpenError {
    let path = storage.path(name);
    match error {
        FileError::Damaged(format::Damage { offset, reason }) => OpenError::Damaged { path, offset, reason },
        FileError::Newer(found) => OpenError::NewerFormat { path, found, supported: format::VERSION },
    }
}

/// A snapshot whose generation is the one that its name tells.
pub(crate) fn decode_named(name: &str, bytes: &[u8], now: Now) -> Result<Snapshot, FileError> {
    let snapshot = format::decode_snapshot(bytes, now)?;
    if recover::snapshot_name(snapshot.header.generation) == name {
        return Ok(snapshot);
    }
    let reason = format!("generation {} under this name", snapshot.header.generation);
    Err(FileError::Damaged(format::Damage { offset: 40, reason }))
}

pub(crate) fn list(storage: &dyn Storage) -> Result<Vec<FileEntry>, OpenError> {
    storage.list().map_err(|error| OpenError::io("list", storage.path(""), error))
}

/// Lends the file's bytes to `look` and returns what it made of them.
pub(crate) fn read<T>(
    storage: &dyn Storage,
    name: &str,
    look: impl FnOnce(&[u8]) -> Result<T, FileError>,
) -> Result<Result<T, FileError>, OpenError> {
    let (mut look, mut outcome) = (Some(look), None);
    storage
        .read(name, &mut |bytes| outcome = look.take().map(|look| look(bytes)))
        .map_err(|error| OpenError::io("read", storage.path(name), error))?;
    outcome.ok_or_else(|| OpenError::io("read", storage.path(name), std::io::ErrorKind::UnexpectedEof.into()))
}

fn move_aside(
    storage: &dyn Storage,
    entries: &[FileEntry],
    files: &[(String, format::Damage)],
) -> Result<(), OpenError> {
    for (name, damage) in files {
        let aside = recover::aside_name(name, entries);
        tracing::error!(
            file = %storage.path(name).display(), set_aside = %aside, offset = damage.offset, reason = %damage.reason,
            "a damaged file was set aside: revocations made after the state that is used instead are lost"
        );
        storage.rename(name, &aside).map_err(|error| OpenError::io("rename", storage.path(name), error))?;
    }
    if files.is_empty() {
        return Ok(());
    }
    sync_dir(storage)
}

fn sync_dir(storage: &dyn Storage) -> Result<(), OpenError> {
    storage
        .sync_dir()
        .map_err(|error| OpenError::Persist(PersistError::io("fsync of the directory", storage.path(""), error)))
}

/// Removes what a crash left half-written. Not being able to is no reason not to open.
fn clean(storage: &dyn Storage, listing: &Listing) {
    for name in &listing.leftovers {
        if let Err(error) = storage.remove(name) {
            tracing::warn!(file = %storage.path(name).display(), %error, "a leftover of a crash could not be removed");
        }
    }
}
