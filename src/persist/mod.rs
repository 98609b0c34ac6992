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
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod mapping;
pub(crate) mod reading;
mod write;

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
