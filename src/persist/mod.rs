//! From a state to bytes that survive, and back.
//!
//! `format` and `recover` are pure; [`Storage`] is the only way to files, and each of its methods states what a crash may
//! do to it. `docs/format.md` fixes the bytes, `docs/durability.md` walks through each partial write. A save appends the
//! difference to a journal (`log`); now and then a thread of its own writes a whole snapshot (`background`).

#[cfg(feature = "cli")]
pub(crate) mod compact;
#[cfg(feature = "cli")]
pub(crate) mod examine;
pub(crate) mod format;
pub(crate) mod recover;
// The directory and the mapping are not reachable under the model checker, which has no disk.
pub(crate) mod background;
mod bulk;
pub(crate) mod file;
mod holder;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod mapping;
mod names;
mod owner;
pub(crate) mod reading;
pub(crate) mod report;
#[cfg(feature = "cli")]
pub(crate) mod salvage;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use crate::error::{Displacement, PersistError};

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

    /// Gives a file another name, which must be free: a new name never replaces a file. Crash: until `sync_dir` either
    /// name may lead to the file, or both.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken, or the operating system's.
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

    /// Confirms that the directory, its lock and its files are still as their owner left them. The owner calls this after
    /// each sync and before it acknowledges anything. The owner passes the same `seen` each time.
    ///
    /// A storage that no other process can reach has nothing to confirm. Crash: no effect.
    ///
    /// # Errors
    /// [`PersistError::Displaced`], or the operating system's error if it does not tell.
    fn confirm(&self, left: &Left<'_>, seen: &mut Seen) -> Result<(), PersistError> {
        let _ = (left, seen);
        Ok(())
    }

    /// How the file is called in messages to people.
    fn path(&self, name: &str) -> PathBuf;
}

/// The files that an owner left in its directory.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    /// The file that the owner writes to. Each call looks at it.
    pub open: Option<OpenFile<'a>>,
    /// The names of all other files that the state needs. A call looks at them if a name in the directory may have changed
    /// since the call before, and if they were not looked at for a second: no name changes when a file is cut short.
    pub others: &'a dyn Fn() -> Vec<String>,
}

impl core::fmt::Debug for Left<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Left").field("open", &self.open).finish_non_exhaustive()
    }
}

/// A file that its owner holds open.
#[derive(Clone, Copy, Debug)]
pub struct OpenFile<'a> {
    /// The name that must lead to it.
    pub name: &'a str,
    /// Which file it is, if the storage tells files apart.
    pub id: Option<FileId>,
    /// Its length in bytes, which never changes.
    pub bytes: u64,
    /// The length that it has now by [`StorageFile::bytes`], if it is open and the storage tells.
    pub now: Option<u64>,
}

/// Two equal ones are the same file, whatever its name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The file system.
    pub device: u64,
    /// The file in it.
    pub number: u64,
}

/// What an owner remembers from one [`Storage::confirm`] to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When a name in the directory last changed, as the storage tells time.
    pub changed: Option<[i64; 4]>,
    /// The same, if every name was found in its place so long after that another change would have given another time.
    pub settled: Option<[i64; 4]>,
    /// Which file each other name led to, and how long it was, when the name was first looked at.
    pub others: BTreeMap<String, (FileId, u64)>,
    /// When these were looked at last, in milliseconds of a clock that never steps.
    pub others_at: Option<i64>,
    /// The lock was found lost: from then on another process may have owned the directory, whatever is there now.
    pub lost: Option<(PathBuf, Displacement)>,
}

/// A file being written.
pub trait StorageFile: Send {
    /// Which file this is; `None` if the storage does not tell files apart.
    fn id(&self) -> Option<FileId> {
        None
    }

    /// How long the file is now; `None` if the storage does not tell.
    fn bytes(&self) -> Option<u64> {
        None
    }

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

    /// The same for the bytes and the length alone, without times and modes: cheaper where both lie within what earlier
    /// syncs made durable. After an error as after [`StorageFile::sync`], which it is unless there is something better.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_data(&mut self) -> io::Result<()> {
        self.sync()
    }
}

/// One file of a [`Storage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name, without directory.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}
