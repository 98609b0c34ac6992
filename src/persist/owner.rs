//! What makes one process the owner of a directory, and how the owner notices that it is not any more.
//!
//! The directory itself is locked, which nobody can remove, and besides it `LOCK`, which earlier releases lock and people
//! read. Locks bind only those who ask for them: so the owner looks, before it acknowledges anything, whether everything
//! is still as it left it.
//!
//! INVARIANT I-O1: nothing of another program is written to, renamed or removed: `LOCK` is written only if it is ours, and
//! a new name never replaces a file.
//! INVARIANT I-O2: locks are given up by the process that took them, never by one that was forked from it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::file::patiently;
use super::holder::{LockText, Record};
use super::recover::LOCK;
use super::write::write_all_at;
use super::{FileId, Left, OpenFile, Seen};
use crate::clock::{Clock as _, SystemClock};
use crate::error::{Displacement, Holder, OpenError, PersistError};

/// The ownership of a directory.
#[derive(Debug)]
pub(super) struct Owner {
    /// The path by which the directory was opened, so that a change of the working directory does not matter.
    path: PathBuf,
    directory: FileId,
    lock: File,
    lock_id: FileId,
    /// Tells whether anything was mounted, where the system does.
    mounts: Option<OwnedFd>,
    /// The process that took the locks.
    record: Record,
}

impl Owner {
    /// Takes both locks of a directory, or says who has them.
    pub(super) fn take(path: &Path, directory: &OwnedFd) -> Result<Self, OpenError> {
        refuse_foreign_lock(path, directory)?;
        match patiently(|| rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(OpenError::InUse { path: path.to_owned(), holder: holder(directory) });
            }
            Err(error) if locks_no_directories(error) => {}
            Err(error) => return Err(OpenError::io("lock", path, error.into())),
        }
        let taken = Self::take_file(path, directory);
        if taken.is_err() {
            // As in `release`: not left to whoever has the descriptor too.
            let _ = unlock(directory);
        }
        taken
    }

    /// Takes the second lock, in a directory that is locked.
    fn take_file(path: &Path, directory: &OwnedFd) -> Result<Self, OpenError> {
        let lock_path = path.join(LOCK);
        let fail = |operation, error: Errno| OpenError::io(operation, &lock_path, error.into());
        let in_use = |holder| OpenError::InUse { path: path.to_owned(), holder };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut lock = patiently(|| rustix::fs::openat(directory, LOCK, flags, Mode::RUSR | Mode::WUSR))
            .map(File::from)
            .map_err(|error| fail("open", error))?;
        match patiently(|| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(in_use(holder(directory))),
            Err(error) => return Err(fail("lock", error)),
        }
        // It may have become another since it was looked at.
        refuse_foreign_lock(path, directory)?;
        let held = id(&patiently(|| rustix::fs::fstat(&lock)).map_err(|error| fail("examine", error))?);
        let named = find(directory, LOCK).map(|stat| id(&stat));
        if named != Ok(held) {
            return Err(in_use(Holder::Unknown));
        }
        let owned = id(&patiently(|| rustix::fs::fstat(directory))
            .map_err(|error| OpenError::io("examine", path, error.into()))?);
        let path = lasting(path, owned).map_err(OpenError::Persist)?;
        let record = Record::of_this_process();
        write_text(&mut lock, &record.to_string()).map_err(|error| OpenError::io("write", &lock_path, error))?;
        Ok(Self { path, directory: owned, lock, lock_id: held, mounts: mounts(), record })
    }

    #[cfg(all(test, not(trustkeep_loom)))]
    #[expect(clippy::unwrap_used, reason = "for tests alone")]
    pub(super) fn lock_copy(&self) -> File {
        self.lock.try_clone().unwrap()
    }

    /// Gives both locks up, if this is the process that took them.
    pub(super) fn release(&self, directory: &OwnedFd) -> io::Result<()> {
        if !self.record.is_of_this_process() {
            return Ok(());
        }
        // From now on it would name a process that has nothing to do with it.
        let emptied = self.lock.set_len(0);
        // Said outright: a process that another thread is just starting has the descriptors too until it execs, and
        // closing ours alone would leave the directory locked for that moment.
        let unlocked = patiently(|| rustix::fs::flock(&self.lock, FlockOperation::Unlock));
        unlock(directory)?;
        emptied.and(unlocked.map_err(io::Error::from))
    }

    /// See [`Storage::confirm`](super::Storage::confirm).
    pub(super) fn confirm(&self, directory: &OwnedFd, left: &Left<'_>, seen: &mut Seen) -> Result<(), PersistError> {
        let root = same(patiently(|| rustix::fs::lstat(&self.path)), self.directory);
        let now = SystemClock.now().tick.as_millis();
        let is_due = seen.others_at.is_none_or(|at| now.saturating_sub(at) >= OTHERS_EVERY_MS);
        if let Ok(root) = &root
            && seen.lost.is_none()
            && !is_due
            && seen.settled == Some(times(root))
            && left.open.is_none_or(|open| open.now == Some(open.bytes))
            && self.mounts.as_ref().is_some_and(|mounts| !was_mounted(mounts))
        {
            return Ok(());
        }
        // Before the names: what is mounted from here on is noticed the next time.
        let hears_of_mounts = self.mounts.as_ref().is_some_and(|mounts| !was_mounted(mounts));
        seen.settled = None;
        let find = |name: &str| find(directory, name);
        let lock = same(find(LOCK), self.lock_id);
        if let Err(Trouble::Displaced(found)) = &lock
            && seen.lost.is_none()
        {
            seen.lost = Some((self.path.join(LOCK), *found));
        }
        // The directory comes first, for who removes one removes its lock file, too.
        let root = root.map_err(|trouble| trouble.at(self.path.clone()))?;
        if let Some((path, found)) = &seen.lost {
            return Err(PersistError::Displaced { path: path.clone(), found: *found });
        }
        lock.map_err(|trouble| trouble.at(self.path.join(LOCK)))?;
        if let Some(OpenFile { name, id, bytes, .. }) = left.open {
            let at = |trouble: Trouble| trouble.at(self.path.join(name));
            let stat = match id {
                Some(id) => same(find(name), id),
                None => find(name).map_err(Trouble::from),
            }
            .map_err(at)?;
            if u64::try_from(stat.st_size) != Ok(bytes) {
                return Err(at(Trouble::Displaced(Displacement::Resized)));
            }
        }
        let changed = Some(times(&root));
        if seen.changed != changed || is_due {
            let mut others = BTreeMap::new();
            for name in (left.others)() {
                let at = |trouble: Trouble| trouble.at(self.path.join(&name));
                let stat = find(&name).map_err(|error| at(error.into()))?;
                let file = (id(&stat), u64::try_from(stat.st_size).unwrap_or_default());
                let known = *seen.others.get(&name).unwrap_or(&file);
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || file.0 != known.0 {
                    return Err(at(Trouble::Displaced(Displacement::Replaced)));
                }
                if file.1 != known.1 {
                    return Err(at(Trouble::Displaced(Displacement::Resized)));
                }
                others.insert(name, file);
            }
            (seen.changed, seen.others, seen.others_at) = (changed, others, Some(now));
        }
        let now = SystemClock.now().wall.as_millis();
        seen.settled = changed.filter(|times| hears_of_mounts && is_past(times, now));
        Ok(())
    }
}

/// What tells whether anything was mounted or unmounted.
fn mounts() -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let found = patiently(|| rustix::fs::open("/proc/self/mountinfo", flags, Mode::empty())).ok()?;
    // Anything before now is looked at now.
    was_mounted(&found);
    Some(found)
}

/// Whether anything was mounted or unmounted since this was last asked, as far as the system tells.
fn was_mounted(mounts: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(mounts, PollFlags::PRI)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let [polled] = match patiently(|| poll(&mut polled, Some(&at_once))) {
        Ok(_) => polled,
        Err(_) => return true,
    };
    polled.revents().intersects(PollFlags::PRI | PollFlags::ERR | PollFlags::NVAL | PollFlags::HUP)
}

/// Whether a directory changed last so long ago that another change would have given it other times. Most systems tell times
/// in ticks of up to 10 ms, some file systems in seconds.
fn is_past(times: &[i64; 4], now_ms: i64) -> bool {
    let [modified_s, modified_ns, changed_s, changed_ns] = *times;
    let tick = if modified_ns == 0 && changed_ns == 0 { 3000 } else { 100 };
    let ago = |s: i64, ns: i64| now_ms.saturating_sub(s.saturating_mul(1000) + ns / 1_000_000);
    ago(modified_s, modified_ns) > tick && ago(changed_s, changed_ns) > tick
}

/// Some network file systems lock no directories: there `LOCK` alone protects, as in earlier releases.
fn locks_no_directories(error: Errno) -> bool {
    matches!(error, Errno::BADF | Errno::INVAL | Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS | Errno::ISDIR)
}

fn unlock(directory: &OwnedFd) -> io::Result<()> {
    match patiently(|| rustix::fs::flock(directory, FlockOperation::Unlock)) {
        Err(error) if !locks_no_directories(error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Why something is not confirmed.
enum Trouble {
    Displaced(Displacement),
    Unknown(Errno),
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Self::Displaced(Displacement::Gone),
            error => Self::Unknown(error),
        }
    }
}

impl Trouble {
    fn at(self, path: PathBuf) -> PersistError {
        match self {
            Self::Displaced(found) => PersistError::Displaced { path, found },
            Self::Unknown(error) => PersistError::io("examine", path, error.into()),
        }
    }
}

fn same(found: Result<Stat, Errno>, held: FileId) -> Result<Stat, Trouble> {
    let found = found?;
    if id(&found) == held { Ok(found) } else { Err(Trouble::Displaced(Displacement::Replaced)) }
}

#[allow(
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    clippy::cast_lossless,
    reason = "the types differ from system to system; equal numbers stay equal"
)]
pub(super) fn id(stat: &Stat) -> FileId {
    FileId { device: stat.st_dev as u64, number: stat.st_ino as u64 }
}

/// When a name in this directory last changed, and more.
#[allow(
    clippy::cast_possible_wrap,
    clippy::unnecessary_cast,
    clippy::cast_lossless,
    reason = "the types differ from system to system; equal numbers stay equal"
)]
fn times(stat: &Stat) -> [i64; 4] {
    [stat.st_mtime as i64, stat.st_mtime_nsec as i64, stat.st_ctime as i64, stat.st_ctime_nsec as i64]
}

/// The path to this directory that does not depend on the working directory, if there is one.
fn lasting(path: &Path, directory: FileId) -> Result<PathBuf, PersistError> {
    let leads_here = |path: &Path| same(patiently(|| rustix::fs::lstat(path)), directory).map(drop);
    if let Ok(absolute) = std::path::absolute(path)
        && leads_here(&absolute).is_ok()
    {
        return Ok(absolute);
    }
    leads_here(path).map(|()| path.to_owned()).map_err(|trouble| trouble.at(path.to_owned()))
}

/// Refuses a directory whose `LOCK` another program made, and leaves it as it is.
fn refuse_foreign_lock(path: &Path, directory: &OwnedFd) -> Result<(), OpenError> {
    let fail = |operation, error| OpenError::io(operation, path.join(LOCK), error);
    let foreign = |what: &str| {
        let found = format!(
            "its LOCK {what}, so another program uses this directory; choose another one, or remove LOCK if none does"
        );
        Err(OpenError::Foreign { path: path.to_owned(), found })
    };
    match find(directory, LOCK) {
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(fail("examine", error.into())),
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return foreign("is a directory"),
            FileType::Symlink => return foreign("is a symbolic link"),
            _ => return foreign("is no regular file"),
        },
    }
    match read_text(directory) {
        Ok(LockText::Foreign) => foreign("holds what this program never writes"),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fail("read", error)),
    }
}

/// Who holds the locks, by the lock file.
fn holder(directory: &OwnedFd) -> Holder {
    match read_text(directory) {
        Ok(LockText::Ours(record)) => record.holder(),
        _ => Holder::Unknown,
    }
}

fn read_text(directory: &OwnedFd) -> io::Result<LockText> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(patiently(|| rustix::fs::openat(directory, LOCK, flags, Mode::empty()))?);
    let mut bytes = [0; TEXT_BYTES_MAX];
    let mut len = 0;
    while let Some(rest) = bytes.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, len as u64) {
            Ok(0) => return Ok(LockText::parse(bytes.get(..len).unwrap_or_default())),
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // No owner of ours writes so much.
    Ok(LockText::Foreign)
}

/// Over what is there, so that a full disk is in nobody's way.
fn write_text(lock: &mut File, text: &str) -> io::Result<()> {
    write_all_at(lock, 0, text.as_bytes())?;
    lock.set_len(text.len() as u64)
}

pub(super) fn find(directory: &OwnedFd, name: &str) -> rustix::io::Result<Stat> {
    patiently(|| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW))
}

/// How long a store that is written to goes without a look at the files that it does not write to.
const OTHERS_EVERY_MS: i64 = 1000;

/// Much more than what an owner writes.
const TEXT_BYTES_MAX: usize = 1024;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_directory_are_past_after_a_tenth_of_a_second_and_whole_seconds_after_three() {
        let (s, ns) = (1_772_532_000, 123_000_000);
        let is_past = |times: [i64; 4], after_ms: i64| is_past(&times, s * 1000 + after_ms);
        // A file system that tells parts of seconds, be it of one of the two times alone.
        for times in [[s, ns, s, ns], [s, 0, s, ns], [s, ns, s, 0]] {
            assert_eq!([223, 224].map(|after| is_past(times, after)), [false, true], "{times:?}");
        }
        // One that tells whole seconds: within the same second another change has the same time.
        assert_eq!([101, 1000, 3000, 3001].map(|after| is_past([s, 0, s, 0], after)), [false, false, false, true]);
        // The younger of the two counts, and a clock that was set back makes nothing past.
        for times in [[s - 60, ns, s, ns], [s, ns, s - 60, ns]] {
            assert_eq!([223, 224].map(|after| is_past(times, after)), [false, true], "{times:?}");
        }
        assert!(!is_past([s, ns, s, ns], -60_000));
    }
}
