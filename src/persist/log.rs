//! Makes states durable: appends differences to a journal, begins a new journal when that is due, and has snapshots written
//! beside it.
//!
//! INVARIANT I-L1: nothing is appended to a journal after an append or a sync of it failed, nor after another journal that
//! goes on from it may have got its name, nor after a restart. The next journal says how many bytes of it count.
//! INVARIANT I-L4: a journal has the same length from the moment it gets its name. It is marked as continued only when the
//! one that goes on from it is durable, and before anybody hears that what is in that one is.
//! INVARIANT I-L2: a journal's first group is durable before the file gets its name: no file is ever there without one.
//! INVARIANT I-L5: see `confirm`.
//! INVARIANT I-L6: a watermark tells of groups only that were acknowledged. A sync of one that failed ends the journal (I-L1).
//! INVARIANT I-L3: a file goes only when a durable snapshot and the journals that go on from it hold what it holds.
//!
//! More than 450 lines because each step of a save and what undoes it stand together.
#![forbid(unsafe_code)]

mod confirm;

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use super::background::{Job, Outcome, Running};
use super::bulk::{Bulk, wants_snapshot};
use super::format::{
    self, GROUPS_AT, JournalHead, MARK_AT, Mark, PAGE_BYTES, Previous, StoreId, VERSION, WATERMARK_AT, Watermark,
};
use super::recover::{GENERATION_MAX, journal_name, snapshot_name};
use super::write::{self, Buffered, fill, is_full, is_removed, write_all_at};
use super::{FileId, Seen, Storage, StorageFile};
use crate::error::PersistError;
use crate::tables::Tables;
use crate::tables::difference::Difference;
use confirm::HeldJournal;

/// How much space is taken, and when a snapshot is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Behind its first group a journal has room for four times what was saved since the opening, but for no less than
    /// this.
    pub(crate) ahead_bytes_min: u64,
    /// Nor for more than this.
    pub(crate) ahead_bytes_max: u64,
    /// A snapshot is not due before journals have this many bytes.
    pub(crate) journal_bytes_min: u64,
    /// So long after a save that no other follows the journal gets a watermark; none if never.
    pub(crate) settle_after: Option<Duration>,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            ahead_bytes_min: 64 << 10,
            ahead_bytes_max: 1 << 20,
            journal_bytes_min: 1 << 20,
            settle_after: Some(SETTLE_AFTER),
        }
    }
}

/// What an opened directory holds, for the log that goes on from it.
#[derive(Debug)]
pub(super) struct Resumed {
    /// Generations and lengths of the snapshots, ascending.
    pub(super) snapshots: Vec<(u64, u64)>,
    /// The journals that lead on from the oldest of them, ascending.
    pub(super) journals: Vec<JournalFile>,
    /// Journals that nothing needs once there is a newer snapshot.
    pub(super) superseded: Vec<String>,
    /// What the next journal goes on from.
    pub(super) previous: Option<Previous>,
    pub(super) next_seq: u64,
    /// Bytes of groups since the newest snapshot.
    pub(super) journal_bytes: u64,
    /// Random.
    pub(super) seed: u64,
}

/// A journal that is there.
#[derive(Clone, Debug)]
pub(super) struct JournalFile {
    pub(super) seq: u64,
    pub(super) base: u64,
}

/// Saves states to a storage. Used by one thread at a time.
pub(crate) struct Log {
    storage: Arc<dyn Storage>,
    store: StoreId,
    sizes: Sizes,
    /// The newest durable state.
    saved: (u64, Tables),
    open: Option<Open>,
    /// A journal that is full, or was ended for a snapshot, and gets its mark when the next one is durable.
    retired: Option<Open>,
    /// Bytes of groups saved since the opening.
    appended_bytes: u64,
    files: Resumed,
    /// To be removed: what nothing leads to any more.
    doomed: Vec<String>,
    /// To be removed before another journal is begun: what the last attempt to begin one left.
    left: Vec<String>,
    /// A journal that was begun and not confirmed. The one before it may be marked as continued, so it goes when another
    /// one that goes on from there is durable, and confirmed.
    unconfirmed: Option<String>,
    /// To be removed when the next snapshot is durable.
    later: Vec<String>,
    snapshot: Option<(Running, u64)>,
    /// After a snapshot failed: none before the journals have grown to this.
    snapshot_from_bytes: u64,
    /// How many snapshots failed since the last that did not, and why the latest did.
    failed: Option<(u64, PersistError)>,
    seeds: u64,
    /// The newest journal of this life that holds what was acknowledged.
    held: Option<HeldJournal>,
    seen: Seen,
    /// The storage did not confirm what was left, when it was asked last.
    displaced: bool,
    /// Whether the mark of a store is there.
    marked: bool,
}

/// How snapshots are doing.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    /// Whether one is being written.
    pub(crate) running: bool,
    /// How many failed since the last that did not, and why the latest did.
    pub(crate) failed: Option<(u64, PersistError)>,
    /// Bytes of changes since the newest snapshot.
    pub(crate) journal_bytes: u64,
}

/// The journal that is being appended to.
struct Open {
    file: Box<dyn StorageFile>,
    id: Option<FileId>,
    seq: u64,
    tag: u32,
    /// Where the last durable group ends.
    used: u64,
    /// Up to here it is known without a look at the groups that everything was acknowledged: a file has no name without its
    /// first group, and a watermark tells of the others.
    settled: u64,
    file_bytes: u64,
}

/// What one save writes.
struct Group<'a> {
    from: u64,
    to: u64,
    difference: &'a Difference<'a>,
    bytes: u64,
}

impl Resumed {
    /// How many journals only lead to the snapshot of this generation: the one behind them begins no later than it.
    fn journals_before(&self, generation: u64) -> usize {
        self.journals.iter().skip(1).take_while(|journal| journal.base <= generation).count()
    }
}

impl Log {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        store: StoreId,
        sizes: Sizes,
        saved: (u64, Tables),
        mut files: Resumed,
    ) -> Self {
        let seeds = files.seed;
        let later = core::mem::take(&mut files.superseded);
        Self {
            storage,
            store,
            sizes,
            saved,
            open: None,
            retired: None,
            appended_bytes: 0,
            files,
            doomed: Vec::new(),
            left: Vec::new(),
            unconfirmed: None,
            later,
            snapshot: None,
            snapshot_from_bytes: 0,
            failed: None,
            seeds,
            held: None,
            seen: Seen::default(),
            displaced: false,
            marked: false,
        }
    }

    /// Makes this state durable. After an error the state is as if the call had not been made, or as if it had
    /// succeeded; the next call starts from a fresh file.
    pub(crate) fn save(&mut self, generation: u64, tables: &Tables) -> Result<(), PersistError> {
        let saved = self.try_save(generation, tables);
        saved.map_err(|error| self.explained(error))
    }

    fn try_save(&mut self, generation: u64, tables: &Tables) -> Result<(), PersistError> {
        self.look_at_snapshot();
        if self.displaced {
            self.confirm()?;
            self.remove_doomed();
        }
        let (base, before) = self.saved.clone();
        let due = self.snapshot.is_none() && self.is_snapshot_due() && !self.files.has_snapshot(base);
        let bytes_before = self.files.journal_bytes;
        let difference = tables.diff(&before);
        let bytes = format::group_bytes(&difference);
        let group = Group { from: base, to: generation, difference: &difference, bytes };
        if due || self.open.as_ref().is_some_and(|open| open.used + bytes > open.file_bytes) {
            self.retire();
        }
        if let Some(open) = &mut self.open {
            if let Err((operation, error)) = open.append(&group) {
                let path = self.storage.path(&journal_name(open.seq));
                // I-L1: the system may have dropped what it did not write, and would not say so a second time.
                self.retire();
                self.retired = None;
                return Err(PersistError::io(operation, path, error));
            }
            let acknowledged = Previous { seq: open.seq, bytes: open.used - bytes };
            self.confirm_save(Some(acknowledged))?;
        } else {
            let (previous, room) = (self.files.previous, self.room_ahead());
            match self.begin_journal(&group, room) {
                // Without room ahead the next group begins a journal of its own, but this one may fit. What the attempt
                // wrote had no name yet, and the next one has another.
                Err(error) if room > 0 && is_full(&error) => self.begin_journal(&group, 0)?,
                begun => begun?,
            }
            self.mark_retired();
            self.confirm_save(previous)?;
        }
        self.files.journal_bytes += bytes;
        self.appended_bytes += bytes;
        self.saved = (generation, tables.clone());
        if due {
            self.start_snapshot(base, before, bytes_before);
        }
        self.doomed.extend(self.unconfirmed.take());
        self.remove_doomed();
        Ok(())
    }

    fn remove_doomed(&mut self) {
        self.doomed.retain(|name| !is_removed(self.storage.as_ref(), name));
    }

    /// The state of this generation in other memory: if it is the one that was saved last, where it was is not needed any
    /// longer.
    pub(crate) fn moved(&mut self, generation: u64, tables: &Tables) {
        if self.saved.0 == generation {
            self.saved.1 = tables.clone();
        }
    }

    /// How long after a save that no other follows [`Log::settle`] is due; none if it would say nothing new.
    pub(crate) fn settles_after(&self) -> Option<Duration> {
        self.open.as_ref().filter(|open| open.used > open.settled).and(self.sizes.settle_after)
    }

    /// Writes into the journal how much of it was acknowledged, so that from then on damage to it is told from a group that a
    /// crash tore. Everything was acknowledged, and if this fails, everything stays so.
    pub(crate) fn settle(&mut self) {
        // What is not as it was left is told by the next save, or at the end; until then nothing is written.
        if self.displaced || self.confirm().is_err() {
            return;
        }
        let generation = self.saved.0;
        if let Some(open) = &mut self.open
            && let Err(error) = open.settle(generation)
        {
            tracing::warn!(
                %error, generation,
                "the journal got no watermark; nothing is lost by that, but damage to the newest change would not be noticed"
            );
            // I-L1
            self.retire();
            self.retired = None;
        }
    }

    /// Looks, without waiting, what has become of a snapshot.
    pub(crate) fn snapshots(&mut self) -> Snapshots {
        self.look_at_snapshot();
        let (running, journal_bytes) = (self.snapshot.is_some(), self.files.journal_bytes);
        Snapshots { running, failed: self.failed.clone(), journal_bytes }
    }

    /// Waits for a snapshot that is being written, and ends the journal with a closing mark, so that from then on every
    /// lost byte is noticed. Writes nothing if nothing was saved since the last time.
    ///
    /// # Errors
    /// Everything was saved, but the storage does not confirm any more that it is as it was left.
    pub(crate) fn close(&mut self) -> Result<(), PersistError> {
        self.await_snapshot();
        let open = self.open.take();
        if let Some(open) = &open {
            self.files.previous = Some(Previous { seq: open.seq, bytes: open.used });
        }
        match self.confirm() {
            Err(displaced @ PersistError::Displaced { .. }) => return Err(displaced),
            // What was acknowledged was confirmed then.
            Err(error) => tracing::warn!(%error, "whether a store that is closed is where it was is not known"),
            Ok(()) => {}
        }
        if let Some(mut open) = open
            && let Err(error) = open.mark(self.saved.0, false)
        {
            // All changes are durable: the next opening takes it for a kill.
            tracing::warn!(%error, "the journal got no closing mark; nothing is lost by that");
        }
        Ok(())
    }

    /// Writes the newest durable state as a snapshot, and removes all that it makes superfluous.
    #[cfg(feature = "cli")]
    pub(crate) fn compact(&mut self) -> Result<(), PersistError> {
        self.close()?;
        let newest = self.saved.0;
        if !self.files.has_snapshot(newest) {
            let bytes = write::snapshot(self.storage.as_ref(), self.store, newest, &self.saved.1)?;
            self.files.snapshots.push((newest, bytes));
            self.confirm()?;
        }
        let mut superfluous = self.superfluous(newest, newest);
        superfluous.extend(self.files.journals.drain(..).map(|journal| journal_name(journal.seq)));
        (self.files.previous, self.files.journal_bytes, self.held) = (None, 0, None);
        for name in &superfluous {
            self.storage.remove(name).map_err(|error| PersistError::io("remove", self.storage.path(name), error))?;
        }
        self.storage
            .sync_dir()
            .map_err(|error| PersistError::io("fsync of the directory", self.storage.path(""), error))?;
        self.confirm()
    }

    fn is_snapshot_due(&self) -> bool {
        let (newest, snapshot_bytes) = self.files.snapshots.last().copied().unwrap_or((0, 0));
        // Journals that lead from the older snapshot to the newest are there for a fallback: another snapshot would not
        // make them fewer.
        let journals = self.files.journals.len() - self.files.journals_before(newest);
        let bulk = Bulk { journals, journal_bytes: self.files.journal_bytes, snapshot_bytes };
        self.saved.0 > newest
            && self.files.journal_bytes >= self.snapshot_from_bytes
            && wants_snapshot(bulk, self.sizes.journal_bytes_min)
    }

    /// Nothing will be appended to the open journal any more.
    fn retire(&mut self) {
        if let Some(open) = self.open.take() {
            self.files.previous = Some(Previous { seq: open.seq, bytes: open.used });
            self.retired = Some(open);
        }
    }

    /// Another journal goes on from the one that was retired, and is durable: from now on it would be missed.
    fn mark_retired(&mut self) {
        if let Some(mut retired) = self.retired.take()
            && let Err(error) = retired.mark(self.saved.0, true)
        {
            // It is read as well without: the one that goes on from it says how much of it counts.
            tracing::warn!(%error, "a journal that is full got no closing mark; nothing is lost by that");
        }
    }

    /// Removes what an attempt left that failed, and has that removal made durable, before another one is made: so however
    /// many fail, one journal at most is there because of them. While the directory cannot be synced, or is not confirmed to
    /// be ours, none is begun.
    fn clear_up_after_failure(&mut self) -> Result<(), PersistError> {
        if self.left.is_empty() {
            return Ok(());
        }
        self.confirm()?;
        let still_there = self.left.iter().filter(|name| !is_removed(self.storage.as_ref(), name)).cloned();
        let still_there: Vec<String> = still_there.collect();
        self.storage
            .sync_dir()
            .map_err(|error| PersistError::io("fsync of the directory", self.storage.path(""), error))?;
        self.left.clear();
        // What cannot be removed is tried again behind each save.
        self.doomed.extend(still_there);
        Ok(())
    }

    /// How many zeros the next journal has behind its first group.
    fn room_ahead(&self) -> u64 {
        self.appended_bytes.saturating_mul(4).clamp(self.sizes.ahead_bytes_min, self.sizes.ahead_bytes_max)
    }

    /// `room`: for how many bytes of further groups.
    fn begin_journal(&mut self, group: &Group<'_>, room: u64) -> Result<(), PersistError> {
        let seq = self.files.next_seq;
        if seq > GENERATION_MAX {
            // Such a name is nobody's: no opening would find the file.
            let error = std::io::Error::other("there is no number left for another journal");
            return Err(PersistError::io("create", self.storage.path(&journal_name(seq)), error));
        }
        self.clear_up_after_failure()?;
        // Whatever becomes of it, no other file gets this number.
        self.files.next_seq += 1;
        self.seeds = self.seeds.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let used = GROUPS_AT + group.bytes;
        let file_bytes = (used + room).next_multiple_of(PAGE_BYTES);
        let (store, base, file_seed, previous) = (self.store, group.from, self.seeds, self.files.previous);
        let head = JournalHead { version: VERSION, store, base, seq, file_seed, previous, file_bytes };
        let (tag, name) = (head.file_tag(), journal_name(seq));
        let written = write::place(self.storage.as_ref(), &name, |file| {
            let mut buffered = Buffered::new(file, false);
            buffered.put(0, &head.encode())?;
            fill(&mut buffered, JournalHead::BYTES as u64, GROUPS_AT)?;
            group.write(&mut buffered, tag, GROUPS_AT)?;
            fill(&mut buffered, used, file_bytes)?;
            buffered.flush()
        });
        let file = match written {
            Ok(file) => file,
            Err(write::Failed { error, left }) => {
                if let PersistError::Displaced { path, found } = &error {
                    // Another process uses our names: whatever it is, this one is the owner no longer.
                    self.seen.lost = Some((path.clone(), *found));
                    self.displaced = true;
                }
                // It may have got its name. Nothing will lead to it; until it is gone it is a state that was published.
                self.left.extend(left);
                return Err(error);
            }
        };
        self.files.journals.push(JournalFile { seq, base });
        self.open = Some(Open { id: file.id(), file, seq, tag, used, settled: used, file_bytes });
        Ok(())
    }

    /// `bytes_before`: what the journals had up to this generation.
    fn start_snapshot(&mut self, generation: u64, tables: Tables, bytes_before: u64) {
        let kept = self.files.snapshots.last().map_or(generation, |(kept, _)| *kept);
        let job = Job {
            storage: Arc::clone(&self.storage),
            store: self.store,
            generation,
            tables,
            superfluous: self.superfluous(kept, generation),
        };
        self.snapshot = Some((job.start(), bytes_before));
    }

    /// What can go when the snapshots of these two generations are durable: older ones, and the journals that lead to
    /// the older of the two.
    fn superfluous(&mut self, kept: u64, newest: u64) -> Vec<String> {
        let older = |generation: &u64| *generation != kept && *generation != newest;
        let mut names = core::mem::take(&mut self.later);
        names.extend(self.files.snapshots.iter().map(|(generation, _)| *generation).filter(older).map(snapshot_name));
        self.files.snapshots.retain(|(generation, _)| !older(generation));
        // A journal is needed as long as the one behind it begins later than the snapshot does.
        let needless = self.files.journals_before(kept);
        names.extend(self.files.journals.drain(..needless).map(|journal| journal_name(journal.seq)));
        names
    }

    fn look_at_snapshot(&mut self) {
        let outcome = self.snapshot.as_mut().and_then(|(running, _)| running.look());
        self.note_snapshot(outcome);
    }

    fn await_snapshot(&mut self) {
        let outcome = self.snapshot.as_mut().and_then(|(running, _)| running.wait());
        self.note_snapshot(outcome);
    }

    /// Takes note of a snapshot that has been written, or has failed to be.
    fn note_snapshot(&mut self, outcome: Option<Outcome>) {
        let Some(Outcome { written, kept, left }) = outcome else { return };
        let Some((running, bytes_before)) = self.snapshot.take() else { return };
        let generation = running.generation;
        match written {
            Ok(bytes) => {
                self.doomed.extend(kept);
                self.files.snapshots.push((generation, bytes));
                self.files.journal_bytes = self.files.journal_bytes.saturating_sub(bytes_before);
                self.snapshot_from_bytes = 0;
                if let Some((attempts, _)) = self.failed.take() {
                    tracing::info!(generation, attempts, "writing snapshots works again");
                }
            }
            Err(error) => {
                let (attempts, journal_bytes) =
                    (self.failed.as_ref().map_or(0, |(attempts, _)| *attempts) + 1, self.files.journal_bytes);
                tracing::warn!(
                    %error, generation, attempts, journal_bytes,
                    "a snapshot could not be written; the journals hold everything, and grow"
                );
                self.later.extend(kept);
                self.doomed.extend(left);
                if matches!(error, PersistError::SnapshotPanicked) {
                    // It may have got its name before.
                    self.later.push(snapshot_name(generation));
                }
                self.failed = Some((attempts, error));
                self.snapshot_from_bytes = 2 * self.files.journal_bytes;
            }
        }
    }
}

impl Open {
    /// Ends it with a mark. Not after a failed append: only zeros may stand behind what is marked as the end.
    fn mark(&mut self, generation: u64, continued: bool) -> std::io::Result<()> {
        let mark = Mark { continued, generation, used_bytes: self.used, file_bytes: self.file_bytes };
        write_all_at(self.file.as_mut(), MARK_AT, &mark.encode(self.tag))?;
        self.file.sync_data()
    }

    /// Says in the file that everything up to here was acknowledged.
    fn settle(&mut self, generation: u64) -> std::io::Result<()> {
        let mark = Watermark { generation, used_bytes: self.used };
        write_all_at(self.file.as_mut(), WATERMARK_AT, &mark.encode(self.tag))?;
        self.file.sync_data()?;
        self.settled = self.used;
        Ok(())
    }

    /// Appends a group, for which there is room, and makes it durable.
    fn append(&mut self, group: &Group<'_>) -> Result<(), (&'static str, std::io::Error)> {
        let mut buffered = Buffered::new(self.file.as_mut(), false);
        let written = group.write(&mut buffered, self.tag, self.used).and_then(|()| buffered.flush());
        written.map_err(|error| ("write", error))?;
        self.file.sync_data().map_err(|error| ("fsync", error))?;
        self.used += group.bytes;
        Ok(())
    }
}

impl Group<'_> {
    fn write(&self, buffered: &mut Buffered<'_>, tag: u32, at: u64) -> std::io::Result<()> {
        let mut sink = |at, bytes: &[u8]| buffered.put(at, bytes);
        format::encode_group(tag, at, (self.from, self.to), self.difference, &mut sink).map(drop)
    }
}

impl Drop for Log {
    /// The directory's lock goes when the last thread that uses it is done.
    fn drop(&mut self) {
        self.await_snapshot();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("saved", &self.saved.0).field("files", &self.files).finish_non_exhaustive()
    }
}

/// Half of the second within which damage to what was acknowledged last is told from a torn write: the other half is for the
/// disk.
const SETTLE_AFTER: Duration = Duration::from_millis(500);
