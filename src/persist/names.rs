//! Giving files their names and taking them away, so that a new name never replaces a file (I-O1) and an interrupted call
//! that was carried out counts as done; and that names survive a crash.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::file::{patiently, sync_directory};
use super::owner::{find, id};
use crate::error::OpenError;

/// Gives a file another name, which must be free. After [`Errno::INTR`] it may have it.
pub(super) fn rename_new(directory: &OwnedFd, from: &str, to: &str) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    match named_once(directory, from, to, || {
        rustix::fs::renameat_with(directory, from, directory, to, rustix::fs::RenameFlags::NOREPLACE)
    }) {
        Err(error) if is_unsupported(error) => {}
        done => return Ok(done?),
    }
    link_new(directory, from, to)
}

/// The same by a second name for the file, and then the removal of the first.
fn link_new(directory: &OwnedFd, from: &str, to: &str) -> io::Result<()> {
    match named_once(directory, from, to, || rustix::fs::linkat(directory, from, directory, to, AtFlags::empty())) {
        Ok(()) => Ok(removed_once(|| rustix::fs::unlinkat(directory, from, AtFlags::empty()))?),
        Err(error) if is_unsupported(error) || error == Errno::PERM => rename_if_free(directory, from, to),
        Err(error) => Err(error.into()),
    }
}

/// The same on a file system with neither: the locks keep other owners away, and others are looked for.
fn rename_if_free(directory: &OwnedFd, from: &str, to: &str) -> io::Result<()> {
    match find(directory, to) {
        Err(Errno::NOENT) => {
            Ok(named_once(directory, from, to, || rustix::fs::renameat(directory, from, directory, to))?)
        }
        Ok(_) => Err(Errno::EXIST.into()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a call that gives a file another name, also again if it was interrupted. It may have been carried out all the
/// same: then the next one finds the name taken, or the old one gone, and the name leads to the file that had the old one.
fn named_once(
    directory: &OwnedFd,
    from: &str,
    to: &str,
    call: impl FnMut() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let file = id(&find(directory, from)?);
    once(call, |error| {
        matches!(error, Errno::EXIST | Errno::NOENT) && find(directory, to).is_ok_and(|found| id(&found) == file)
    })
}

/// Makes a call that removes a name, also again if it was interrupted.
fn removed_once(call: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    once(call, |error| error == Errno::NOENT)
}

/// `is_done`: whether an error says that an interrupted call was carried out.
fn once(mut call: impl FnMut() -> rustix::io::Result<()>, is_done: impl Fn(Errno) -> bool) -> rustix::io::Result<()> {
    let mut is_interrupted = false;
    patiently(|| match call() {
        Err(error) if is_interrupted && is_done(error) => Ok(()),
        outcome => {
            is_interrupted |= outcome == Err(Errno::INTR);
            outcome
        }
    })
}

fn is_unsupported(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::NOTSUP)
}

/// Makes the name of this directory survive a crash, whoever made it.
pub(super) fn sync_parent(path: &Path, directory: &OwnedFd) -> Result<(), OpenError> {
    let fail = |error: Errno| OpenError::io("fsync", path.join(".."), error.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match patiently(|| rustix::fs::openat(directory, "..", flags, Mode::empty())) {
        Ok(parent) => patiently(|| sync_directory(&parent)).map_err(fail),
        // It may be read by others alone: then the whole file system is synced instead.
        #[cfg(target_os = "linux")]
        Err(Errno::ACCESS | Errno::PERM) => patiently(|| rustix::fs::syncfs(directory)).map_err(fail),
        Err(error) => Err(fail(error)),
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
#[expect(clippy::disallowed_methods, reason = "files of a test, of which nothing need survive")]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_never_replaces_a_file_however_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        for give in [rename_new, link_new, rename_if_free] {
            std::fs::write(dir.path().join("from"), "ours").unwrap();
            std::fs::write(dir.path().join("taken"), "theirs").unwrap();
            assert_eq!(give(&directory, "from", "taken").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            let text = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
            assert_eq!((text("from"), text("taken")), ("ours".to_owned(), "theirs".to_owned()));
            give(&directory, "from", "free").unwrap();
            assert_eq!(text("free"), "ours");
            assert!(!dir.path().join("from").exists());
            std::fs::remove_file(dir.path().join("free")).unwrap();
            assert_eq!(give(&directory, "from", "free").unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn an_interrupted_call_that_gave_a_name_is_done_and_a_name_that_another_took_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        let write = |name, text| std::fs::write(dir.path().join(name), text).unwrap();
        let text = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let rename =
            || rustix::fs::renameat_with(&directory, "from", &directory, "to", rustix::fs::RenameFlags::NOREPLACE);
        let link = || rustix::fs::linkat(&directory, "from", &directory, "to", AtFlags::empty());
        for (give, told) in [(&rename as &dyn Fn() -> rustix::io::Result<()>, Errno::NOENT), (&link, Errno::EXIST)] {
            write("from", "ours");
            let mut calls = 0;
            let done = named_once(&directory, "from", "to", || {
                calls += 1;
                let outcome = give();
                assert_eq!(outcome, if calls == 1 { Ok(()) } else { Err(told) });
                if calls == 1 { Err(Errno::INTR) } else { outcome }
            });
            assert_eq!(done, Ok(()));
            assert_eq!((calls, text("to")), (2, "ours".to_owned()));
            // And the twins: another file has the name, or nothing was interrupted.
            let _ = std::fs::remove_file(dir.path().join("from"));
            write("from", "ours");
            let mut calls = 0;
            let refused = named_once(&directory, "from", "to", || {
                calls += 1;
                if calls == 1 { Err(Errno::INTR) } else { give() }
            });
            assert_eq!((refused, calls, text("to")), (Err(Errno::EXIST), 2, "ours".to_owned()));
            std::fs::remove_file(dir.path().join("to")).unwrap();
            link().unwrap();
            assert_eq!(named_once(&directory, "from", "to", give), Err(Errno::EXIST), "nothing was interrupted");
            std::fs::remove_file(dir.path().join("to")).unwrap();
            std::fs::remove_file(dir.path().join("from")).unwrap();
        }
        write("from", "ours");
        let mut calls = 0;
        let outcome = removed_once(|| {
            calls += 1;
            let outcome = rustix::fs::unlinkat(&directory, "from", AtFlags::empty());
            if calls == 1 { Err(Errno::INTR) } else { outcome }
        });
        assert_eq!((outcome, calls), (Ok(()), 2));
        assert_eq!(removed_once(|| rustix::fs::unlinkat(&directory, "from", AtFlags::empty())), Err(Errno::NOENT));
    }
}
