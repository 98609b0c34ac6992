//! A storage in which everything happens as it would, and nothing does: what is created, renamed and removed is so in
//! memory alone.
//!
//! What must hold: of the storage behind it, files are listed once and read, and nothing else is called. So whatever runs
//! on a rehearsal tells exactly what the same code would do to the real files.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use crate::persist::{FileEntry, Storage, StorageFile};
use crate::sync::{Arc, Mutex};

/// A copy of a storage, made as far as it is changed.
#[derive(Debug)]
pub(super) struct Rehearsal {
    behind: Arc<dyn Storage>,
    files: Mutex<BTreeMap<String, Content>>,
}

#[derive(Clone)]
enum Content {
    /// A file of the storage behind, under the name it has there.
    Behind {
        name: String,
        bytes: u64,
    },
    Made(Made),
}

type Made = Arc<Mutex<Vec<u8>>>;

impl core::fmt::Debug for Content {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Behind { name, bytes } => write!(f, "{name} behind, {bytes} bytes"),
            Self::Made(content) => write!(f, "{} bytes made", content.lock().len()),
        }
    }
}

impl Rehearsal {
    pub(super) fn new(behind: Arc<dyn Storage>) -> io::Result<Self> {
        let file = |FileEntry { name, bytes }: FileEntry| (name.clone(), Content::Behind { name, bytes });
        let files = Mutex::new(behind.list()?.into_iter().map(file).collect());
        Ok(Self { behind, files })
    }
}

impl Storage for Rehearsal {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let entry = |(name, content): (&String, &Content)| FileEntry {
            name: name.clone(),
            bytes: match content {
                Content::Behind { bytes, .. } => *bytes,
                Content::Made(made) => made.lock().len() as u64,
            },
        };
        Ok(self.files.lock().iter().map(entry).collect())
    }

    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let content = self.files.lock().get(name).cloned();
        match content.ok_or(io::ErrorKind::NotFound)? {
            Content::Behind { name, .. } => self.behind.read(&name, look),
            Content::Made(made) => {
                let bytes = made.lock().clone();
                look(&bytes);
                Ok(())
            }
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut files = self.files.lock();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let made = Made::default();
        files.insert(name.to_owned(), Content::Made(Arc::clone(&made)));
        Ok(Box::new(MadeFile(made)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        if files.contains_key(from) && files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.behind.path(name)
    }
}

struct MadeFile(Made);

impl StorageFile for MadeFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut content = self.0.lock();
        if content.len() < end {
            content.resize(end, 0);
        }
        content.get_mut(start..end).ok_or(io::ErrorKind::FileTooLarge)?.copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use crate::persist::file::{Directory, LoadMode};

    fn content(storage: &dyn Storage, name: &str) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        storage.read(name, &mut |bytes| content = bytes.to_vec())?;
        Ok(content)
    }

    #[test]
    fn everything_happens_in_the_rehearsal_and_nothing_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let behind: Arc<dyn Storage> = Arc::new(Directory::look(dir.path(), LoadMode::Read).unwrap());
        for name in ["a", "b", "c"] {
            behind.create(name).unwrap().write_at(0, name.as_bytes()).unwrap();
        }
        let before = behind.list().unwrap();
        let rehearsal = Rehearsal::new(Arc::clone(&behind)).unwrap();
        assert_eq!(rehearsal.list().unwrap(), before);
        rehearsal.rename("a", "x").unwrap();
        rehearsal.remove("b").unwrap();
        let mut file = rehearsal.create("b").unwrap();
        file.write_at(2, b"new").unwrap();
        file.write_at(0, b">>>").unwrap();
        assert_eq!(rehearsal.rename("b", "c").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        rehearsal.remove("c").unwrap();
        rehearsal.rename("b", "c").unwrap();
        rehearsal.sync_dir().unwrap();
        let names: Vec<_> = rehearsal.list().unwrap().into_iter().map(|file| (file.name, file.bytes)).collect();
        assert_eq!(names, [("c".to_owned(), 5), ("x".to_owned(), 1)]);
        assert_eq!(
            (content(&rehearsal, "x").unwrap(), content(&rehearsal, "c").unwrap()),
            (b"a".to_vec(), b">>>ew".to_vec())
        );
        for gone in ["a", "b"] {
            assert_eq!(content(&rehearsal, gone).unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(rehearsal.remove(gone).unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(rehearsal.rename(gone, "y").unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(rehearsal.create("x").map(drop).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(behind.list().unwrap(), before);
        assert_eq!((content(&*behind, "a").unwrap(), content(&*behind, "c").unwrap()), (b"a".to_vec(), b"c".to_vec()));
    }
}
