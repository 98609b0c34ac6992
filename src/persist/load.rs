//! Opens what is in a directory: finds the one state, cleans up after a crash, creates a store where there is none.
//!
//! Order of creation: lock, first snapshot durable, mark durable. A crash in between leaves a directory that opens.
//!
//! More than 450 lines because the steps of an opening, each of which a crash may end, stand in one place and in their order.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use super::format::{
    self, Ending, FileError, GROUPS_AT, Header, How, JournalHead, Kind, Previous, Rebuilt, Replay, StoreId,
};
use super::log::{JournalFile, Log, Resumed, Sizes};
use super::reading::Unreadable;
use super::recover::{
    self, Choice, Contents, GENERATION_MAX, GENESIS, Link, Listing, RecoverPolicy, Recovered, Refusal,
};
use super::report::{Report, SetAside, TornTail};
use super::{FileEntry, Storage, write};
use crate::error::{OpenError, PersistError};
use crate::map::mix::Mix;
use crate::tables::Tables;
use crate::time::Now;

/// A store's state, durable, and what saves the next.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) tables: Tables,
    pub(crate) generation: u64,
    pub(crate) saver: Log,
    /// How this came to be the state.
    pub(crate) report: Report,
}

/// How to open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) create: bool,
    pub(crate) policy: RecoverPolicy,
    pub(crate) sizes: Sizes,
}

/// Opens the storage, which this process has locked. `fresh` makes the identity of a new store.
#[cfg(any(test, feature = "cli", feature = "__testing"))]
pub(crate) fn load(
    storage: Arc<dyn Storage>,
    opening: Opening,
    now: Now,
    fresh: impl Fn() -> Result<StoreId, OpenError>,
) -> Result<Loaded, OpenError> {
    load_as(storage, opening, now, fresh, None)
}

/// The same; the state is `instead` of what could be followed, which was read of these files, too. Something is lost then.
pub(crate) fn load_as(
    storage: Arc<dyn Storage>,
    opening: Opening,
    now: Now,
    fresh: impl Fn() -> Result<StoreId, OpenError>,
    instead: Option<Tables>,
) -> Result<Loaded, OpenError> {
    let entries = list(storage.as_ref())?;
    let listing = Listing::new(&entries);
    let mut state = State::new(storage.as_ref(), now);
    let choice = decide(storage.as_ref(), &listing, opening.policy, &mut state)?;
    match choice {
        Choice::Create if !opening.create => Err(OpenError::Missing { path: storage.path(""), is_parent: false }),
        Choice::Create => {
            let removed = clean(storage.as_ref(), &listing);
            let report = Report { created: true, files: state.files(), removed, ..Report::default() };
            let store = fresh()?;
            let tables = Tables::new(Mix::new(store.seed));
            let bytes = write::snapshot(storage.as_ref(), store, 0, &tables)
                .map_err(|failed| OpenError::Persist(failed.error))?;
            let state = (0, tables, bytes);
            begin(storage, opening.sizes, (store, false), state, next_seq(&listing), fresh()?.seed, report)
        }
        Choice::Empty { set_aside, store } => {
            let named = named_by_journals(storage.as_ref(), &listing, store)?;
            let is_marked = store.is_some();
            let store = store.or(named).map_or_else(&fresh, Ok)?;
            // Beyond every generation that may have been acknowledged here.
            let newest = listing.snapshots.first().map_or(0, |(newest, _)| *newest);
            let generation = newest.saturating_add(LEAP).min(GENERATION_MAX);
            // What was read belongs to the store that the mark names.
            let tables = instead.filter(|_| is_marked).unwrap_or_else(|| Tables::new(Mix::new(store.seed)));
            // The last generation of all has no other behind it: its name must be free.
            let (first, then): (Vec<_>, Vec<_>) =
                set_aside.into_iter().partition(|(name, _)| *name == recover::snapshot_name(generation));
            let mut set_aside = move_aside(storage.as_ref(), &entries, &first, true)?;
            // Before anything else is set aside: a disk that has no room for it changes nothing, and from here on a crash leaves
            // a state from which an opening, or another repair, goes on.
            let bytes = write::snapshot(storage.as_ref(), store, generation, &tables)
                .map_err(|failed| OpenError::Persist(failed.error))?;
            set_aside.extend(move_aside(storage.as_ref(), &entries, &then, true)?);
            let removed = clean(storage.as_ref(), &listing);
            let report = Report { files: state.files(), set_aside, removed, lossy: true, ..Report::default() };
            let state = (generation, tables, bytes);
            begin(storage, opening.sizes, (store, is_marked), state, next_seq(&listing), fresh()?.seed, report)
        }
        Choice::State(mut recovered) => {
            let (store, mut rebuilt) = state.finish(&recovered)?;
            recovered.lossy |= instead.is_some();
            let reached = Some(rebuilt.generation);
            let mut leapt = None;
            if recovered.lossy {
                rebuilt.tables = instead.unwrap_or(rebuilt.tables);
                rebuilt.generation = rebuilt.generation.saturating_add(LEAP).min(GENERATION_MAX);
                // Before anything is set aside: until then a crash leaves a store that still refuses to open.
                let is_there = listing.snapshots.iter().any(|(of, _)| *of == rebuilt.generation);
                if !is_there {
                    let bytes = write::snapshot(storage.as_ref(), store, rebuilt.generation, &rebuilt.tables)
                        .map_err(|failed| OpenError::Persist(failed.error))?;
                    leapt = Some((rebuilt.generation, bytes));
                }
            }
            let set_aside = move_aside(storage.as_ref(), &entries, &recovered.set_aside, recovered.lossy)?;
            let removed = clean(storage.as_ref(), &listing);
            let (looked_at, lossy) = (state.files(), recovered.lossy);
            let report = Report { files: looked_at, reached, set_aside, removed, lossy, ..Report::default() };
            // A crash may have come between a rename and the directory's fsync: what is used must be durable.
            sync_dir(storage.as_ref())?;
            let mut files = files(&recovered, &listing, &entries, fresh()?.seed);
            files.snapshots.extend(leapt);
            resume(Arc::clone(&storage), opening.sizes, store, &recovered, rebuilt, (files, report))
        }
    }
}

/// Goes on from what was found. What a kill may have left unsynced is made durable first, and a state that takes the
/// place of a lost newer one gets a generation beyond all that may have been acknowledged.
fn resume(
    storage: Arc<dyn Storage>,
    sizes: Sizes,
    store: StoreId,
    recovered: &Recovered,
    rebuilt: Rebuilt,
    (mut files, mut report): (Resumed, Report),
) -> Result<Loaded, OpenError> {
    let Rebuilt { tables, generation, before } = rebuilt;
    let mut stale = recovered.stale.clone();
    let mut rewrite = false;
    if recovered.lossy {
        files.journal_bytes = 0;
    } else if let (Some(ending), Some(Link { seq, head, .. })) = (&recovered.ending, recovered.journals.last()) {
        files.previous = Some(Previous { seq: *seq, bytes: ending.bytes });
        let file = storage.path(&recover::journal_name(*seq));
        if let How::Torn(damage) = &ending.how {
            report.torn = Some(torn(storage.as_ref(), &recover::journal_name(*seq), ending, damage));
            tracing::warn!(
                file = %file.display(), offset = damage.offset, reason = %damage.reason, generation,
                "what stands behind the newest whole change is cut off: a change that was being saved when the process ended, \
                 of which nobody was told that it was durable, or one saved less than a second before and damaged since"
            );
        }
        if let Some(offset) = ending.spoilt {
            tracing::warn!(
                file = %file.display(), offset,
                "a byte that holds nothing is damaged; nothing is lost by that, but the disk may be failing"
            );
        }
        // The snapshot holds what it holds durably; the newest group beyond it may never have been synced, unless a watermark
        // says that it was acknowledged.
        let is_marked = ending.newest_at != GROUPS_AT && ending.settled >= ending.bytes;
        let is_open = matches!(ending.how, How::Open | How::Torn(_)) && !is_marked;
        if is_open && ending.generation > recovered.snapshot.0 {
            rewrite = true;
            files.previous = Some(Previous { seq: *seq, bytes: ending.newest_at });
            if ending.newest_at == GROUPS_AT {
                // Nothing of it counts any more.
                files.previous = head.previous;
                files.journals.retain(|journal| journal.seq != *seq);
                stale.push(*seq);
            }
        }
    }
    let saved = if rewrite { before } else { (generation, tables.clone()) };
    let mut saver = Log::new(Arc::clone(&storage), store, sizes, saved, files);
    if rewrite {
        saver.save(generation, &tables).map_err(OpenError::Persist)?;
    }
    if recovered.write_mark {
        write::mark(storage.as_ref(), store).map_err(OpenError::Persist)?;
    }
    saver.is_marked();
    saver.confirm().map_err(OpenError::Persist)?;
    // Not being able to is no reason not to open.
    for seq in stale {
        let name = recover::journal_name(seq);
        match storage.remove(&name) {
            Ok(()) => report.removed.push(storage.path(&name)),
            Err(error) => {
                tracing::warn!(file = %storage.path(&name).display(), %error, "a superseded journal could not be removed");
            }
        }
    }
    report.store = Some(store);
    Ok(Loaded { tables, generation, saver, report })
}

/// What is cut off at the end of a journal.
fn torn(storage: &dyn Storage, name: &str, ending: &Ending, damage: &format::Damage) -> TornTail {
    let from = usize::try_from(ending.bytes).unwrap_or(usize::MAX);
    let tail = read(storage, name, |file| {
        let tail = file.get(from..).unwrap_or_default();
        Ok(tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1))
    });
    // It could be read a moment ago. If not now, that is for the next opening to tell.
    let bytes = tail.ok().and_then(Result::ok).unwrap_or(0);
    TornTail { file: storage.path(name), offset: ending.bytes, bytes, reason: damage.reason.clone() }
}

/// What is in the directory, but for what was set aside.
fn files(recovered: &Recovered, listing: &Listing, entries: &[FileEntry], seed: u64) -> Resumed {
    let is_aside = |name: &String| recovered.set_aside.iter().any(|(aside, _)| aside == name);
    let bytes_of = |name: &String| entries.iter().find(|entry| entry.name == *name).map_or(0, |entry| entry.bytes);
    let snapshots = listing.snapshots.iter().rev().filter(|(_, name)| !is_aside(name));
    let counted = recovered.journals.iter().filter_map(|link| link.counted);
    let newest = recovered.ending.as_ref().map(|ending| ending.bytes);
    Resumed {
        snapshots: snapshots.map(|(generation, name)| (*generation, bytes_of(name))).collect(),
        journals: recovered.kept.iter().map(|(seq, base)| JournalFile { seq: *seq, base: *base }).collect(),
        superseded: recovered.superseded.iter().map(|seq| recover::journal_name(*seq)).collect(),
        previous: None,
        next_seq: next_seq(listing),
        journal_bytes: counted.chain(newest).map(|bytes| bytes.saturating_sub(GROUPS_AT)).sum(),
        seed,
    }
}

fn next_seq(listing: &Listing) -> u64 {
    listing.journals.first().map_or(1, |(newest, _)| newest.saturating_add(1))
}

/// Which store the journals belong to; none if no headers can be read. An empty store that takes their place is the same one, so
/// that none of them is another's whatever a crash leaves of this. `marked`: the one that the mark names.
fn named_by_journals(
    storage: &dyn Storage,
    listing: &Listing,
    marked: Option<StoreId>,
) -> Result<Option<StoreId>, OpenError> {
    let mut named = marked;
    for (_, name) in &listing.journals {
        match read(storage, name, |bytes| decode_head(name, bytes))? {
            Ok(head) if *named.get_or_insert(head.store) != head.store => {
                return Err(OpenError::OtherStore { path: storage.path(name) });
            }
            Err(error @ FileError::Newer(_)) => return Err(unusable(storage, name, error)),
            _ => {}
        }
    }
    Ok(named)
}

/// Begins a store with these tables at this generation, of which the snapshot, of so many bytes, is durable; then its mark is
/// made so, unless that is there.
fn begin(
    storage: Arc<dyn Storage>,
    sizes: Sizes,
    (store, is_marked): (StoreId, bool),
    (generation, tables, bytes): (u64, Tables, u64),
    next_seq: u64,
    seed: u64,
    mut report: Report,
) -> Result<Loaded, OpenError> {
    if !is_marked {
        write::mark(storage.as_ref(), store).map_err(OpenError::Persist)?;
    }
    let snapshots = vec![(generation, bytes)];
    let (journals, superseded) = (Vec::new(), Vec::new());
    let files = Resumed { snapshots, journals, superseded, previous: None, next_seq, journal_bytes: 0, seed };
    let mut saver = Log::new(storage, store, sizes, (generation, tables.clone()), files);
    saver.is_marked();
    saver.confirm().map_err(OpenError::Persist)?;
    report.store = Some(store);
    Ok(Loaded { tables, generation, saver, report })
}

/// What has been read while deciding.
pub(crate) struct State<'a> {
    storage: &'a dyn Storage,
    now: Now,
    replay: Option<(StoreId, Replay)>,
    io_error: Option<OpenError>,
    /// In the order in which they were first read.
    looked_at: Vec<String>,
}

impl<'a> State<'a> {
    pub(crate) fn new(storage: &'a dyn Storage, now: Now) -> Self {
        Self { storage, now, replay: None, io_error: None, looked_at: Vec::new() }
    }

    /// What was looked into.
    fn files(&self) -> Vec<PathBuf> {
        self.looked_at.iter().map(|name| self.storage.path(name)).collect()
    }

    fn looks_at(&mut self, name: &str) {
        if !self.looked_at.iter().any(|known| known == name) {
            self.looked_at.push(name.to_owned());
        }
    }

    /// The state that was decided for.
    ///
    /// # Errors
    /// A peer that is trusted and revoked at once, though every file is whole.
    pub(crate) fn finish(&mut self, recovered: &Recovered) -> Result<(StoreId, Rebuilt), OpenError> {
        let Some((store, replay)) = self.replay.take() else {
            return Err(OpenError::DataMissing { path: self.storage.path("") });
        };
        let newest = recovered.journals.last().map(|link| recover::journal_name(link.seq)).unwrap_or_default();
        replay.finish().map(|rebuilt| (store, rebuilt)).map_err(|error| unusable(self.storage, &newest, error))
    }

    /// Not being able to read says nothing about a file: no fallback, whatever the policy.
    fn read<T>(&mut self, name: &str, look: impl FnOnce(&[u8]) -> Result<T, FileError>) -> Result<T, FileError> {
        self.looks_at(name);
        read(self.storage, name, look).unwrap_or_else(|error| {
            self.io_error = Some(error);
            Err(FileError::Newer(0))
        })
    }
}

impl Contents for State<'_> {
    fn snapshot(&mut self, name: &str) -> Result<StoreId, FileError> {
        let now = self.now;
        let snapshot = self.read(name, |bytes| decode_named(name, bytes, now))?;
        let store = snapshot.header.store;
        self.replay = Some((store, Replay::new(snapshot, now)));
        Ok(store)
    }

    fn head(&mut self, name: &str) -> Result<JournalHead, FileError> {
        self.read(name, |bytes| decode_head(name, bytes))
    }

    fn journal(&mut self, name: &str, counted: Option<u64>) -> Result<Ending, FileError> {
        let Some((store, mut replay)) = self.replay.take() else { return Err(FileError::Newer(0)) };
        let ending = self.read(name, |bytes| replay.journal(bytes, counted));
        self.replay = Some((store, replay));
        ending
    }

    fn generation(&self) -> u64 {
        self.replay.as_ref().map_or(0, |(_, replay)| replay.generation())
    }
}

/// Runs the pure decision, reading files as it asks for them; what was read is left in `state`.
pub(crate) fn decide(
    storage: &dyn Storage,
    listing: &Listing,
    policy: RecoverPolicy,
    state: &mut State<'_>,
) -> Result<Choice, OpenError> {
    let mark = if listing.genesis {
        state.looks_at(GENESIS);
        Some(read(storage, GENESIS, |bytes| Header::decode(bytes, Kind::Genesis).map(|header| header.store))?)
    } else {
        None
    };
    let decision = recover::decide(listing, mark, policy, state);
    if let Some(error) = state.io_error.take() {
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
pub(crate) fn decode_named(name: &str, bytes: &[u8], now: Now) -> Result<format::Snapshot, FileError> {
    let snapshot = format::decode_snapshot(bytes, now)?;
    if recover::snapshot_name(snapshot.header.generation) == name {
        return Ok(snapshot);
    }
    let reason = format!("generation {} under this name", snapshot.header.generation);
    Err(FileError::Damaged(format::Damage { offset: 40, reason }))
}

/// The headers of a journal whose number is the one that its name tells.
pub(crate) fn decode_head(name: &str, bytes: &[u8]) -> Result<JournalHead, FileError> {
    let head = JournalHead::decode(bytes)?;
    if recover::journal_name(head.seq) == name {
        return Ok(head);
    }
    let reason = format!("journal {} under this name", head.seq);
    Err(FileError::Damaged(format::Damage { offset: format::HEADER_BYTES as u64, reason }))
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
    storage.read(name, &mut |bytes| outcome = look.take().map(|look| look(bytes))).map_err(|error| match error
        .downcast::<Unreadable>(
    ) {
        Ok(Unreadable { offset, source }) => OpenError::Unreadable { path: storage.path(name), offset, source },
        Err(error) => OpenError::io("read", storage.path(name), error),
    })?;
    outcome.ok_or_else(|| OpenError::io("read", storage.path(name), std::io::ErrorKind::UnexpectedEof.into()))
}

pub(crate) fn move_aside(
    storage: &dyn Storage,
    entries: &[FileEntry],
    files: &[(String, format::Damage)],
    lossy: bool,
) -> Result<Vec<SetAside>, OpenError> {
    let mut moved = Vec::new();
    for (name, damage) in files {
        let aside = recover::aside_name(name, entries);
        let (file, offset, reason) = (storage.path(name), damage.offset, &damage.reason);
        let file = file.display();
        if lossy {
            tracing::error!(
                %file, set_aside = %aside, offset, reason,
                "a damaged file was set aside: revocations made after the state that is used instead are lost"
            );
        } else {
            tracing::warn!(
                %file, set_aside = %aside, offset, reason,
                "a damaged file was set aside: an older snapshot and the journals since hold all that it held"
            );
        }
        storage.rename(name, &aside).map_err(|error| OpenError::io("rename", storage.path(name), error))?;
        moved.push(SetAside {
            file: storage.path(name),
            now: storage.path(&aside),
            offset,
            reason: damage.reason.clone(),
        });
    }
    if !moved.is_empty() {
        sync_dir(storage)?;
    }
    Ok(moved)
}

fn sync_dir(storage: &dyn Storage) -> Result<(), OpenError> {
    storage
        .sync_dir()
        .map_err(|error| OpenError::Persist(PersistError::io("fsync of the directory", storage.path(""), error)))
}

/// Removes what a crash left half-written. Not being able to is no reason not to open.
fn clean(storage: &dyn Storage, listing: &Listing) -> Vec<PathBuf> {
    let mut removed = Vec::new();
    for name in &listing.leftovers {
        match storage.remove(name) {
            Ok(()) => removed.push(storage.path(name)),
            Err(error) => {
                tracing::warn!(file = %storage.path(name).display(), %error, "a leftover of a crash could not be removed");
            }
        }
    }
    removed
}

/// After a loss: more than the lost files can have held.
pub(crate) const LEAP: u64 = 1 << 32;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use crate::peer::{NodeId, TrustRecord};
    use crate::tables::TableChange;
    use crate::testing::sim_disk::SimDisk;

    fn loaded(disk: &SimDisk) -> Result<Loaded, OpenError> {
        let sizes = Sizes { ahead_bytes_min: 0, ahead_bytes_max: 0, journal_bytes_min: u64::MAX, settle_after: None };
        let opening = Opening { create: true, policy: RecoverPolicy::Fail, sizes };
        load(Arc::new(disk.clone()), opening, Now::default(), || Ok(StoreId { id: [7; 16], seed: 9 }))
    }

    fn with(tables: &Tables, peer: NodeId) -> Tables {
        tables.apply(&[TableChange::Trusted(peer, Some(TrustRecord::new(peer, None)))]).0
    }

    #[test]
    fn a_state_in_other_memory_is_taken_for_the_saved_one_only_if_it_is_of_that_generation() {
        let disk = SimDisk::new();
        let Loaded { tables, mut saver, .. } = loaded(&disk).unwrap();
        let peer = |number| NodeId::new(number).unwrap();
        let one = with(&tables, peer(1));
        saver.save(1, &one).unwrap();
        let two = with(&one, peer(2));
        saver.moved(2, &two);
        saver.save(2, &two).unwrap();
        saver.moved(2, &two.clone());
        saver.save(3, &with(&two, peer(3))).unwrap();
        drop(saver);
        let again = loaded(&disk).unwrap();
        assert_eq!((again.generation, again.tables.trusted.len()), (3, 3));
    }

    #[test]
    fn behind_the_last_number_of_a_journal_nothing_is_said_to_be_durable() {
        let disk = SimDisk::new();
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let (sizes, store) = (Sizes::default(), StoreId { id: [7; 16], seed: 9 });
        let tables = Tables::new(Mix::new(store.seed));
        let bytes = write::snapshot(storage.as_ref(), store, 0, &tables).unwrap();
        let state = (0, tables, bytes);
        let Loaded { tables, mut saver, .. } =
            begin(storage, sizes, (store, false), state, GENERATION_MAX, 1, Report::default()).unwrap();
        let one = with(&tables, NodeId::new(1).unwrap());
        saver.save(1, &one).unwrap();
        saver.close().unwrap();
        drop(saver);
        let Loaded { generation, mut saver, .. } = loaded(&disk).unwrap();
        assert_eq!(generation, 1, "the last one is read");
        assert!(saver.save(2, &with(&one, NodeId::new(2).unwrap())).is_err(), "no opening would find it");
        drop(saver);
        assert_eq!(loaded(&disk).unwrap().generation, 1);
    }
}
