//! A storage that is a directory, with or without its ownership (`owner`).
//!
//! Everything is reached relative to the open directory, never through a symbolic link; files are created exclusively
//! with mode 0600, the directory with 0700. The lock file is never removed or renamed.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::names;
use super::owner::{self, Owner};
use super::recover::Listing;
use super::write::INTERRUPTIONS_MAX;
use super::{FileEntry, FileId, Left, Seen, Storage, StorageFile, mapping, reading};
use crate::error::{OpenError, PersistError};

/// How files are read when a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LoadMode {
    /// Mapped into memory, except on network and FUSE file systems, where `Read` is used by itself.
    #[default]
    Map,
    /// Read into memory.
    Read,
}

/// A directory, opened.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    directory: OwnedFd,
    mode: LoadMode,
    /// Held for as long as this lives; `None` for one that only looks.
    owner: Option<Owner>,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.owner.as_ref().map(|owner| owner.release(&self.directory)) {
            tracing::warn!(path = %self.path.display(), %error, "a store's lock could not be given up; closing it will");
        }
    }
}

impl Directory {
    /// Opens and locks a store's directory; makes it if it is missing and `create` says so.
    pub(crate) fn own(path: &Path, create: bool, mode: LoadMode) -> Result<Self, OpenError> {
        let made = match open_directory(path) {
            Err(OpenError::Missing { .. }) if create => make_directory(path)?,
            Err(error) => return Err(error),
            Ok(_) => false,
        };
        let mut this = Self::look(path, mode)?;
        let listing = Listing::new(&super::load::list(&this)?);
        if let Some(found) = listing.foreign_directory() {
            return Err(OpenError::Foreign { path: path.to_owned(), found: format!("{found} is in it") });
        }
        let empty = listing == Listing::default();
        if empty && !create {
            return Err(OpenError::Missing { path: path.to_owned(), is_parent: false });
        }
        if empty && !made {
            // Ours from now on, and nobody else's business.
            rustix::fs::fchmod(&this.directory, Mode::RWXU)
                .map_err(|error| OpenError::io("change the mode of", path, error.into()))?;
        }
        this.owner = Some(Owner::take(path, &this.directory)?);
        if !listing.genesis {
            // A crash may have come between its making, by whomever, and the sync that makes its name durable.
            names::sync_parent(path, &this.directory)?;
        }
        Ok(this)
    }

    /// Opens a store's directory without locking it, to look and not to touch.
    pub(crate) fn look(path: &Path, mode: LoadMode) -> Result<Self, OpenError> {
        let directory = open_directory(path)?;
        let mode = if mode == LoadMode::Map && mapping_is_unsafe(&directory) { LoadMode::Read } else { mode };
        Ok(Self { path: path.to_owned(), directory, mode, owner: None })
    }

    fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(patiently(|| rustix::fs::openat(&self.directory, name, flags, Mode::empty()))?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
    }
}

impl Storage for Directory {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let mut entries = Vec::new();
        for entry in patiently(|| rustix::fs::Dir::read_from(&self.directory))? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_bytes() == b"." || name.to_bytes() == b".." {
                continue;
            }
            let stat = match patiently(|| rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)) {
                Ok(stat) => stat,
                // Removed since it was listed: a live store rotates its files.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let bytes = u64::try_from(stat.st_size).unwrap_or(0);
            entries.push(FileEntry { name: name.to_string_lossy().into_owned(), bytes });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let file = self.open_file(name)?;
        match self.mode {
            LoadMode::Map => mapping::with_mapped(&file, look),
            LoadMode::Read => {
                look(&reading::whole(&file, file.metadata()?.len())?);
                Ok(())
            }
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = patiently(|| rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR))?;
        Ok(Box::new(File::from(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        names::rename_new(&self.directory, from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(patiently(|| rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()))?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        // Through a descriptor of its own, so that none is used again after its fsync failed.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = patiently(|| rustix::fs::openat(&self.directory, ".", flags, Mode::empty()))?;
        Ok(patiently(|| sync_directory(&directory))?)
    }

    fn confirm(&self, left: &Left<'_>, seen: &mut Seen) -> Result<(), PersistError> {
        self.owner.as_ref().map_or(Ok(()), |owner| owner.confirm(&self.directory, left, seen))
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.path.clone() } else { self.path.join(name) }
    }
}

impl StorageFile for File {
    fn id(&self) -> Option<FileId> {
        patiently(|| rustix::fs::fstat(self)).ok().map(|stat| owner::id(&stat))
    }

    fn bytes(&self) -> Option<u64> {
        // Not by `fstat`: where a file's times were asked for, newer systems write them anew with the next write, and the sync
        // behind that takes half as long again. Nothing else goes by the offset.
        patiently(|| rustix::fs::seek(self, rustix::fs::SeekFrom::End(0))).ok()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        // The system ends a process with SIGXFSZ if it writes there, unless the process has seen to that, which is not ours
        // to decide. A write that begins below the limit is cut short and ends nobody.
        if !bytes.is_empty() && is_beyond_limit(offset) {
            return Err(rustix::io::Errno::FBIG.into());
        }
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn sync_data(&mut self) -> io::Result<()> {
        File::sync_data(self)
    }
}

/// Whether this process may not have files that reach beyond this offset (`RLIMIT_FSIZE`, `ulimit -f`).
fn is_beyond_limit(offset: u64) -> bool {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current.is_some_and(|limit| offset >= limit)
}

/// Makes a call again that a signal interrupted, as the standard library does with its own: network and FUSE file systems
/// let any call be interrupted. Not for ever: who waits for a save must hear of a file system that does nothing else.
pub(super) fn patiently<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let mut interruptions = 0;
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) if interruptions < INTERRUPTIONS_MAX => interruptions += 1,
            outcome => return outcome,
        }
    }
}

/// Makes what was done to the names in a directory survive power loss. On macOS a plain `fsync` ends when the disk has the
/// bytes, and not when it keeps them; for files the standard library sees to that.
pub(crate) fn sync_directory(directory: impl AsFd) -> rustix::io::Result<()> {
    #[cfg(target_vendor = "apple")]
    match rustix::fs::fcntl_fullfsync(&directory) {
        // A file system that does not know it, as of a network.
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOTTY | rustix::io::Errno::INVAL) => {}
        synced => return synced,
    }
    rustix::fs::fsync(directory)
}

fn open_directory(path: &Path) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    patiently(|| rustix::fs::open(path, flags, Mode::empty())).map_err(|error| match error {
        rustix::io::Errno::NOENT => OpenError::Missing { path: path.to_owned(), is_parent: false },
        rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP => {
            OpenError::Foreign { path: path.to_owned(), found: "it is no directory, or a symbolic link".to_owned() }
        }
        error => OpenError::io("open", path, error.into()),
    })
}

/// False if somebody else has made it meanwhile: then the lock decides whose it is.
fn make_directory(path: &Path) -> Result<bool, OpenError> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str() == OsStr::new("") => Path::new("."),
        Some(parent) => parent,
        None => return Err(OpenError::Missing { path: path.to_owned(), is_parent: false }),
    };
    let made = match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::Missing { path: parent.to_owned(), is_parent: true });
        }
        Err(error) => return Err(OpenError::io("create the directory", path, error)),
    };
    Ok(made)
}

/// On network and FUSE file systems another machine or process may cut a mapped file under us.
fn mapping_is_unsafe(directory: &OwnedFd) -> bool {
    match rustix::fs::fstatfs(directory) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "magic numbers have 32 bits")]
        Ok(statfs) => is_elsewhere(statfs.f_type as u32),
        Err(_) => true,
    }
}

/// Whether files of a file system with this magic number are another machine's or process's to change.
fn is_elsewhere(file_system: u32) -> bool {
    const NFS: u32 = 0x6969;
    const SMB: u32 = 0x517b;
    const SMB2: u32 = 0xfe53_4d42;
    const CIFS: u32 = 0xff53_4d42;
    const FUSE: u32 = 0x6573_5546;
    const NINE_P: u32 = 0x0102_1997;
    const CEPH: u32 = 0x00c3_6400;
    const AFS: u32 = 0x5346_414f;
    [NFS, SMB, SMB2, CIFS, FUSE, NINE_P, CEPH, AFS].contains(&file_system)
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use crate::error::Holder;

    /// By the numbers of `statfs(2)`.
    #[test]
    fn files_of_network_and_fuse_file_systems_are_not_mapped_and_those_of_disks_are() {
        let elsewhere = [0x6969, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0x6573_5546, 0x0102_1997, 0x00c3_6400, 0x5346_414f];
        assert!(elsewhere.into_iter().all(is_elsewhere), "{elsewhere:x?}");
        // ext4, XFS, Btrfs, tmpfs, ZFS, overlayfs.
        for here in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x2fc1_2fc1, 0x794c_7630] {
            assert!(!is_elsewhere(here), "{here:x}");
        }
    }

    #[test]
    fn interrupted_calls_are_made_again_but_not_for_ever() {
        let mut calls = 0;
        let mut after = |interruptions: u32| {
            calls = 0;
            patiently(|| {
                calls += 1;
                if calls <= interruptions { Err(rustix::io::Errno::INTR) } else { Ok(calls) }
            })
        };
        assert_eq!((after(0), after(3)), (Ok(1), Ok(4)));
        assert_eq!(after(u32::MAX), Err(rustix::io::Errno::INTR));
        let refused: rustix::io::Result<()> = patiently(|| Err(rustix::io::Errno::NOSPC));
        assert_eq!(refused, Err(rustix::io::Errno::NOSPC));
    }

    #[test]
    fn a_directory_given_up_is_free_though_a_process_being_started_holds_its_descriptors() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("store");
        let owner = Directory::own(&dir, true, LoadMode::Map).unwrap();
        // What a fork copies until it execs.
        let copies = (owner.directory.try_clone().unwrap(), owner.owner.as_ref().unwrap().lock_copy());
        let refused = Directory::own(&dir, false, LoadMode::Map);
        assert!(matches!(refused, Err(OpenError::InUse { holder: Holder::ThisProcess, .. })), "{refused:?}");
        drop(owner);
        Directory::own(&dir, false, LoadMode::Map).unwrap();
        drop(copies);
    }

    #[test]
    fn of_two_who_create_a_directory_at_once_one_has_it_and_the_other_hears_so() {
        let temporary = tempfile::tempdir().unwrap();
        for round in 0..300 {
            let dir = temporary.path().join(format!("store-{round}"));
            let begin = std::sync::Barrier::new(2);
            let both = std::thread::scope(|scope| {
                let own = || {
                    begin.wait();
                    Directory::own(&dir, true, LoadMode::Map)
                };
                let other = scope.spawn(own);
                [own(), other.join().unwrap()]
            });
            assert_eq!(both.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{both:?}");
            assert!(both.iter().any(|outcome| matches!(outcome, Err(OpenError::InUse { .. }))), "{both:?}");
        }
    }
}
