//! Storages between a store and its disk that get the protocol wrong.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use trustkeep::testing::sim_disk::SimDisk;
use trustkeep::{FileEntry, Storage, StorageFile};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bug {
    /// New files are synced after the directory only.
    SyncAfterRename,
    /// What is appended is synced when the next group has been appended.
    SyncWithTheNext,
    /// Old snapshots go before the new one is written.
    OldSnapshotsFirst,
    /// The newest journal but the one in use goes before the new snapshot is written.
    OldJournalsFirst,
    /// Files are written under their final names.
    InPlace,
    /// The headers of a file that others rely on are written again with every group.
    HeadersAgain,
    /// What a short write left over is forgotten.
    ShortWritesPass,
}

impl Bug {
    pub(super) const ALL: [Self; 7] = [
        Self::SyncAfterRename,
        Self::SyncWithTheNext,
        Self::OldSnapshotsFirst,
        Self::OldJournalsFirst,
        Self::InPlace,
        Self::HeadersAgain,
        Self::ShortWritesPass,
    ];
}

#[derive(Debug)]
pub(super) struct Broken {
    disk: SimDisk,
    how: Bug,
    late: Late,
}

/// Files whose sync is put off.
#[derive(Clone, Default)]
struct Late(Arc<Mutex<Vec<Shared>>>);

type Shared = Arc<Mutex<Box<dyn StorageFile>>>;

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Late").finish_non_exhaustive()
    }
}

impl Late {
    fn sync(&self) -> io::Result<()> {
        let files = std::mem::take(&mut *self.0.lock().unwrap());
        files.iter().try_for_each(|file| file.lock().unwrap().sync())
    }
}

struct BrokenFile {
    file: Shared,
    how: Bug,
    late: Late,
    headers: Vec<u8>,
    owed: bool,
}

impl StorageFile for BrokenFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        if offset == 0 {
            self.headers = bytes[..bytes.len().min(128)].to_vec();
        }
        let mut file = self.file.lock().unwrap();
        if self.how == Bug::SyncWithTheNext && self.owed {
            self.owed = false;
            file.sync_data()?;
        }
        let taken = file.write_at(offset, bytes)?;
        Ok(if self.how == Bug::ShortWritesPass { bytes.len() } else { taken })
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.how == Bug::SyncAfterRename {
            self.late.0.lock().unwrap().push(Arc::clone(&self.file));
            return Ok(());
        }
        self.file.lock().unwrap().sync()
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut file = self.file.lock().unwrap();
        match self.how {
            Bug::SyncWithTheNext => self.owed = true,
            Bug::HeadersAgain => {
                file.sync_data()?;
                file.write_at(0, &vec![0; self.headers.len()])?;
                file.write_at(0, &self.headers)?;
                file.sync_data()?;
            }
            _ => file.sync_data()?,
        }
        Ok(())
    }
}

impl Broken {
    pub(super) fn new(disk: &SimDisk, how: Bug) -> Self {
        Self { disk: disk.clone(), how, late: Late::default() }
    }

    fn remove_all(&self, names: impl IntoIterator<Item = String>) -> io::Result<()> {
        names.into_iter().try_for_each(|name| self.disk.remove(&name))
    }
}

fn final_name(name: &str) -> &str {
    name.rsplit_once(".tmp").map_or(name, |(of, _)| of)
}

impl Storage for Broken {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.disk.list()
    }

    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.disk.read(name, look)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let is_snapshot = final_name(name).ends_with(".tks");
        let names: Vec<String> = self.disk.list()?.into_iter().map(|entry| entry.name).collect();
        let of = |kind: &'static str| names.iter().filter(move |name| name.ends_with(kind)).cloned();
        match self.how {
            Bug::OldSnapshotsFirst if is_snapshot => self.remove_all(of(".tks"))?,
            Bug::OldJournalsFirst if is_snapshot => {
                self.remove_all(of(".tkj").rev().skip(1).take(1))?;
            }
            _ => {}
        }
        let file = self.disk.create(if self.how == Bug::InPlace { final_name(name) } else { name })?;
        let file = Arc::new(Mutex::new(file));
        Ok(Box::new(BrokenFile { file, how: self.how, late: self.late.clone(), headers: Vec::new(), owed: false }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if self.how == Bug::InPlace && final_name(from) == to {
            return Ok(());
        }
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()?;
        self.late.sync()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}
