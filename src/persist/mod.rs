//! From a state to bytes that survive, and back.
//!
//! `format` and `recover` are pure; [`Storage`] is the only way to files, and each of its methods states what a crash may
//! do to it. `docs/format.md` fixes the bytes, `docs/durability.md` walks through each partial write. Today a save writes
//! a whole snapshot; a journal of differences will stand beside `snapshots` and share its `format` and `Storage`.

#[cfg(feature = "cli")]
pub(crate) mod compact;
#[cfg(feature = "cli")]
pub(crate) mod examine;
pub(crate) mod format;
pub(crate) mod recover;
pub(crate) mod snapshots;
// The directory and the mapping are not reachable under the model checker, which has no disk.
pub(crate) mod file;
pub(crate) mod load;
pub(crate) mod mapping;

use std::io;
use std::path::PathBuf;

/// A directory of small flat names, owned by one store.
///
/// What the real one promises is what POSIX and a disk that honours fsync promise, and no more; a simulated one may take
/// away everything that is not promised. No method is called while the writer lock is held.
pub trait Storage: Send + Sync + core::fmt::Debug {
    /// Names and sizes of all files. Crash: no effect.
    ///
    /// # Errors
    /// The operating system's.
    fn list(&self) -> io::Result<Vec<FileEntry>>;

    /// Lends the whole content of a file to `look`, once. Crash: no effect.
    ///
    /// # Errors
    /// The operating system's; also when the file changed its size meanwhile.
    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> io::Result<()>;

    /// Creates a file that did not exist. Crash: until `sync_dir` it may be missing, whatever was written and synced.
    ///
    /// # Errors
    /// `AlreadyExists`, or the operating system's.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;

    /// Gives a file another name, replacing what had it. Crash: until `sync_dir` either name may lead to either file,
    /// never to a mixture.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Crash: until `sync_dir` it may still be there.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every create, rename and remove so far survive. After an error nothing is known of them.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_dir(&self) -> io::Result<()>;

    /// How the file is called in messages to people.
    fn path(&self, name: &str) -> PathBuf;
}

/// A file being written.
pub trait StorageFile: Send {
    /// Writes some of the bytes at this offset and says how many. Crash: any subset of the sectors not yet synced may
    /// have arrived, in any order.
    ///
    /// # Errors
    /// The operating system's.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Makes everything written so far survive. After an error the file must be thrown away: the system may have
    /// dropped what it could not write, and a second call would succeed without it.
    ///
    /// # Errors
    /// The operating system's.
    fn sync(&mut self) -> io::Result<()>;
}

/// One file of a [`Storage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name, without directory.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Writes all of `bytes`, however short the single writes are. Interruptions are ridden out, but not for ever: who waits
/// for the save must hear of a file system that does nothing else.
pub(crate) fn write_all_at(file: &mut dyn StorageFile, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
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

/// In one call; a signal storm stays far below.
const INTERRUPTIONS_MAX: u32 = 1000;
