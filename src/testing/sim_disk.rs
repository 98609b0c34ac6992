//! A disk in memory that promises what [`Storage`] promises and takes away everything else.
//!
//! What must hold: after `sync` the bytes of a file survive, after `sync_dir` the names do, and nothing survives before.
//! A sync that fails may have written some of what it should have and drops the rest, so that a second one on the same
//! file succeeds without it, as real systems do. It exists because on a real disk one power cut shows one outcome; here every call is a
//! [`CrashPoint`], and each of those gives every state that a crash there may leave behind.
//!
//! More than 450 lines because a disk answers every call of a storage.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Displacement, PersistError};
use crate::persist::{FileEntry, FileId, Left, Seen, Storage, StorageFile};
use crate::sync::{Arc, Mutex};

mod images;
mod inode;
use images::DirOp;
pub use images::{CrashPoint, Image, Outcome};
use inode::{Content, Inode};

/// A disk; clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

/// One call of [`Storage`] or [`StorageFile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `Storage::list`
    List,
    /// `Storage::read`
    Read,
    /// `Storage::create`
    Create,
    /// `StorageFile::write_at`
    Write,
    /// `StorageFile::sync`
    Sync,
    /// `StorageFile::sync_data`
    SyncData,
    /// `Storage::rename`
    Rename,
    /// `Storage::remove`
    Remove,
    /// `Storage::sync_dir`
    SyncDir,
    /// `Storage::confirm`
    Confirm,
}

/// A call that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number, counted from the disk's first call, which is 0.
    pub call: usize,
    /// Whether all calls after it fail as well.
    pub sticky: bool,
    /// The operating system's error number.
    pub errno: i32,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It fails with this error number of the operating system.
    Fails(i32),
    /// A write takes no more bytes than this; any other call is done.
    Takes(usize),
}

/// A promise that this disk breaks, to see that a test notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// `StorageFile::sync` does nothing.
    FileSync,
    /// `StorageFile::sync_data` does nothing.
    DataSync,
    /// `Storage::sync_dir` does nothing.
    DirSync,
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<u64, std::sync::Arc<Inode>>,
    next_inode: u64,
    /// What processes see.
    live: BTreeMap<String, u64>,
    /// What survives for sure.
    durable: BTreeMap<String, u64>,
    unsynced: Vec<DirOp>,
    /// How often a name has changed.
    changes: i64,
    gone: Option<std::sync::Arc<Content>>,
    log: Vec<Call>,
    bytes_written: u64,
    fault: Option<Fault>,
    lie: Option<Lie>,
    write_bytes_max: Option<usize>,
    judge: Option<Judge>,
    misuse: Option<Call>,
    on_sync: Option<Hook>,
    acknowledged: Option<u64>,
    trail: Option<Vec<CrashPoint>>,
}

type Hook = std::sync::Arc<dyn Fn() + Send + Sync>;
type Judge = std::sync::Arc<dyn Fn(Call) -> Verdict + Send + Sync>;

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("live", &self.live)
            .field("unsynced", &self.unsynced.len())
            .field("calls", &self.log.len())
            .field("fault", &self.fault)
            .field("lie", &self.lie)
            .finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that holds these files, all of them durable.
    #[must_use]
    pub fn from_image(image: &Image) -> Self {
        let disk = Self::new();
        for (name, bytes) in image {
            disk.put(name, bytes);
        }
        disk
    }

    /// The files as processes see them.
    #[must_use]
    pub fn live_image(&self) -> Image {
        let inner = self.inner.lock();
        let bytes = |inode| inner.files.get(inode).map(|file| file.live.bytes().to_vec()).unwrap_or_default();
        inner.live.iter().map(|(name, inode)| (name.clone(), bytes(inode))).collect()
    }

    /// Puts a file there, durable, replacing what had its name; counts as no call.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.inner.lock().put(name, Content::new(bytes.to_vec()));
    }

    /// Takes a file away, durably; counts as no call.
    pub fn take(&self, name: &str) {
        let mut inner = self.inner.lock();
        inner.changes += 1;
        inner.live.remove(name);
        inner.durable.remove(name);
    }

    /// How many calls were made.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.inner.lock().log.len()
    }

    /// All calls, in order; the number of a [`Fault`] is an index into this.
    #[must_use]
    pub fn log(&self) -> Vec<Call> {
        self.inner.lock().log.clone()
    }

    /// How many bytes writes have taken.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.inner.lock().bytes_written
    }

    /// Has a call fail; `None` ends a fault.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.inner.lock().fault = fault;
    }

    /// Breaks a promise from now on.
    pub fn set_lie(&self, lie: Option<Lie>) {
        self.inner.lock().lie = lie;
    }

    /// No write takes more bytes than this; `None` lifts it, 0 has every write take nothing.
    pub fn set_write_bytes_max(&self, bytes: Option<usize>) {
        self.inner.lock().write_bytes_max = bytes;
    }

    /// Has every call judged, in the thread that makes it and while the disk is locked; the last judge given is asked.
    pub fn judge(&self, judge: impl Fn(Call) -> Verdict + Send + Sync + 'static) {
        self.inner.lock().judge = Some(std::sync::Arc::new(judge));
    }

    /// The first call on an open file of which a write or a sync had failed before; nobody may make one.
    #[must_use]
    pub fn misuse(&self) -> Option<Call> {
        self.inner.lock().misuse
    }

    /// Runs this at every sync of a file, before it has an effect and while no lock is held: a slow disk.
    pub fn on_sync(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.inner.lock().on_sync = Some(std::sync::Arc::new(hook));
    }

    /// From now on every call leaves a crash point.
    pub fn record(&self) {
        self.inner.lock().trail.get_or_insert_default();
    }

    /// The crash points so far.
    #[must_use]
    pub fn take_trail(&self) -> Vec<CrashPoint> {
        self.inner.lock().trail.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// How many crash points there are so far.
    #[must_use]
    pub fn crash_points(&self) -> usize {
        self.inner.lock().trail.as_ref().map_or(0, Vec::len)
    }

    /// Notes what the owner was promised: crash points from now on carry this number. Leaves a crash point.
    pub fn acknowledge(&self, generation: u64) {
        let mut inner = self.inner.lock();
        inner.acknowledged = Some(generation);
        inner.note_crash_point();
    }

    /// What a crash at this moment may leave behind.
    #[must_use]
    pub fn crash_point(&self) -> CrashPoint {
        self.inner.lock().crash_point()
    }
}

impl Inner {
    /// Counts a call; how many bytes it may take if it is a write, or an error if it is to fail.
    fn call(&mut self, call: Call) -> io::Result<usize> {
        let number = self.log.len();
        self.log.push(call);
        let verdict = self.judge.as_ref().map_or(Verdict::Done, |judge| judge(call));
        match (self.fault, verdict) {
            (Some(Fault { call, sticky, errno }), _) if number == call || (sticky && number > call) => {
                Err(io::Error::from_raw_os_error(errno))
            }
            (_, Verdict::Fails(errno)) => Err(io::Error::from_raw_os_error(errno)),
            (_, Verdict::Takes(bytes)) => Ok(bytes),
            (_, Verdict::Done) => Ok(self.write_bytes_max.unwrap_or(usize::MAX)),
        }
    }

    /// A call on an open file; `spoiled`: a write or a sync of it failed. Interrupted writes are none that failed.
    fn call_on(&mut self, spoiled: &mut bool, call: Call) -> io::Result<usize> {
        if *spoiled {
            self.misuse.get_or_insert(call);
        }
        let outcome = self.call(call);
        let interrupted = |error: &io::Error| call == Call::Write && error.kind() == io::ErrorKind::Interrupted;
        *spoiled |= outcome.as_ref().is_err_and(|error| !interrupted(error));
        outcome
    }

    fn put(&mut self, name: &str, content: std::sync::Arc<Content>) {
        let inode = self.add(Inode::new(content));
        self.changes += 1;
        self.live.insert(name.to_owned(), inode);
        self.durable.insert(name.to_owned(), inode);
    }

    fn add(&mut self, file: Inode) -> u64 {
        self.next_inode += 1;
        self.files.insert(self.next_inode, std::sync::Arc::new(file));
        self.next_inode
    }

    fn change_dir(&mut self, op: DirOp) {
        op.apply(&mut self.live, false);
        self.changes += 1;
        self.unsynced.push(op);
        self.note_crash_point();
    }

    fn lookup(&self, name: &str) -> io::Result<u64> {
        self.live.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn crash_point(&self) -> CrashPoint {
        CrashPoint {
            files: self.files.clone(),
            durable: self.durable.clone(),
            unsynced: self.unsynced.clone(),
            gone: self.gone.clone(),
            acknowledged: self.acknowledged,
            call: self.log.len(),
        }
    }

    fn note_crash_point(&mut self) {
        if self.trail.is_some() {
            let point = self.crash_point();
            self.trail.get_or_insert_default().push(point);
        }
    }

    /// Forgets files that have no name any more, on either side of a crash.
    fn forget_nameless(&mut self) {
        let named = |inode: &u64| {
            self.live.values().chain(self.durable.values()).any(|other| other == inode)
                || self.unsynced.iter().any(|op| op.inode() == Some(*inode))
        };
        let nameless: Vec<u64> = self.files.keys().copied().filter(|inode| !named(inode)).collect();
        for inode in nameless {
            self.gone = self.files.remove(&inode).map(|file| std::sync::Arc::clone(&file.durable));
        }
    }
}

impl Storage for SimDisk {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let mut inner = self.inner.lock();
        inner.call(Call::List)?;
        let bytes = |inode| inner.files.get(inode).map_or(0, |file| file.live.bytes().len() as u64);
        Ok(inner.live.iter().map(|(name, inode)| FileEntry { name: name.clone(), bytes: bytes(inode) }).collect())
    }

    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let file = {
            let mut inner = self.inner.lock();
            inner.call(Call::Read)?;
            let inode = inner.lookup(name)?;
            inner.files.get(&inode).cloned()
        };
        look(file.as_ref().map_or(&[], |file| file.live.bytes()));
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut inner = self.inner.lock();
        inner.call(Call::Create)?;
        if inner.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = inner.add(Inode::default());
        inner.change_dir(DirOp::Link { name: name.to_owned(), inode });
        Ok(Box::new(SimFile { disk: self.clone(), inode, spoiled: false }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.call(Call::Rename)?;
        let inode = inner.lookup(from)?;
        if inner.live.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.change_dir(DirOp::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.call(Call::Remove)?;
        let _exists = inner.lookup(name)?;
        inner.change_dir(DirOp::Unlink { name: name.to_owned() });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.call(Call::SyncDir)?;
        if inner.lie != Some(Lie::DirSync) {
            for op in core::mem::take(&mut inner.unsynced) {
                op.apply(&mut inner.durable, false);
            }
            inner.forget_nameless();
        }
        inner.note_crash_point();
        Ok(())
    }

    fn confirm(&self, left: &Left<'_>, seen: &mut Seen) -> Result<(), PersistError> {
        let mut inner = self.inner.lock();
        inner.call(Call::Confirm).map_err(|error| PersistError::io("examine", self.path(""), error))?;
        let displaced = |name: &str, found| Err(PersistError::Displaced { path: self.path(name), found });
        if let Some(open) = left.open {
            let Some(inode) = inner.live.get(open.name) else { return displaced(open.name, Displacement::Gone) };
            let bytes = inner.files.get(inode).map_or(0, |file| file.live.bytes().len() as u64);
            if open.id.is_some_and(|id| id.number != *inode) {
                return displaced(open.name, Displacement::Replaced);
            }
            if open.bytes != bytes {
                return displaced(open.name, Displacement::Resized);
            }
        }
        let changed = Some([inner.changes, 0, 0, 0]);
        if seen.changed != changed {
            if let Some(gone) = (left.others)().into_iter().find(|name| !inner.live.contains_key(name)) {
                return displaced(&gone, Displacement::Gone);
            }
            seen.changed = changed;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new("sim").join(name)
    }
}

/// An open file.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: u64,
    spoiled: bool,
}

impl StorageFile for SimFile {
    fn id(&self) -> Option<FileId> {
        Some(FileId { device: 0, number: self.inode })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.disk.inner.lock();
        let taken = inner.call_on(&mut self.spoiled, Call::Write)?.min(bytes.len());
        let bytes = bytes.get(..taken).unwrap_or_default();
        inner.bytes_written += bytes.len() as u64;
        let offset = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if let Some(file) = inner.files.get_mut(&self.inode) {
            std::sync::Arc::make_mut(file).write(offset, bytes);
        }
        inner.note_crash_point();
        Ok(taken)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_as(Call::Sync)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.sync_as(Call::SyncData)
    }
}

impl SimFile {
    fn sync_as(&mut self, call: Call) -> io::Result<()> {
        let hook = self.disk.inner.lock().on_sync.clone();
        if let Some(hook) = hook {
            hook();
        }
        let mut inner = self.disk.inner.lock();
        let outcome = inner.call_on(&mut self.spoiled, call).map(drop);
        let lie = if call == Call::SyncData { Lie::DataSync } else { Lie::FileSync };
        if inner.lie != Some(lie)
            && let Some(file) = inner.files.get_mut(&self.inode)
        {
            let file = std::sync::Arc::make_mut(file);
            match outcome {
                Ok(()) => file.sync(),
                Err(_) => file.lose_unsynced(),
            }
        }
        inner.note_crash_point();
        outcome
    }
}
