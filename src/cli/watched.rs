//! A storage seen from outside: how many bytes went through it, and what was done to its files.
//!
//! What must hold: every call is passed on as it is, and answered as the storage behind answers.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

use super::progress::Bar;
use crate::error::PersistError;
use crate::persist::{FileEntry, FileId, Left, Seen, Storage, StorageFile};
use crate::sync::{Arc, Mutex};

/// Passes everything on to the storage behind it.
#[derive(Debug)]
pub(super) struct Watched {
    behind: Arc<dyn Storage>,
    bar: Arc<Bar>,
    log: Mutex<Log>,
}

/// What was done.
#[derive(Debug, Default)]
struct Log {
    /// From and to, in order.
    renames: Vec<(String, String)>,
    wrote: bool,
}

impl Watched {
    /// Watches `behind` do what is called `what`, and shows how much was read and written.
    pub(super) fn new(behind: Arc<dyn Storage>, what: &'static str) -> io::Result<Self> {
        let bytes: u64 = behind.list()?.iter().map(|file| file.bytes).sum();
        let bar = Arc::new(Bar::new(what));
        bar.begin_without_end(bytes);
        Ok(Self { behind, bar, log: Mutex::new(Log::default()) })
    }

    /// Which files got which other names.
    pub(super) fn renames(&self) -> Vec<(String, String)> {
        self.log.lock().renames.clone()
    }

    /// Whether any file was created, renamed or removed.
    pub(super) fn has_changed(&self) -> bool {
        self.log.lock().wrote
    }

    fn note<T>(&self, done: io::Result<T>) -> io::Result<T> {
        self.log.lock().wrote |= done.is_ok();
        done
    }
}

impl Storage for Watched {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.behind.list()
    }

    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.behind.read(name, &mut |bytes| {
            look(bytes);
            self.bar.advance(bytes.len() as u64);
        })
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.note(self.behind.create(name))?;
        Ok(Box::new(WatchedFile { file, bar: Arc::clone(&self.bar) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.note(self.behind.rename(from, to))?;
        self.log.lock().renames.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.note(self.behind.remove(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.behind.sync_dir()
    }

    fn confirm(&self, left: &Left<'_>, seen: &mut Seen) -> Result<(), PersistError> {
        self.behind.confirm(left, seen)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.behind.path(name)
    }
}

struct WatchedFile {
    file: Box<dyn StorageFile>,
    bar: Arc<Bar>,
}

impl StorageFile for WatchedFile {
    fn id(&self) -> Option<FileId> {
        self.file.id()
    }

    fn bytes(&self) -> Option<u64> {
        self.file.bytes()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(offset, bytes)?;
        self.bar.advance(written as u64);
        Ok(written)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}
