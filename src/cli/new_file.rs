//! Writes a file that is there as a whole or not at all.
//!
//! What must hold: under its name the file is complete and durable from the first moment on; nothing is replaced unasked,
//! however late it appeared, and nothing but a regular file ever. A crash or kill before the end can leave a temporary
//! `.trustkeep-*.tmp` beside it.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Failure;
use crate::node::{Random as _, SystemRandom};
use crate::persist::file::sync_directory;

/// Writes what `fill` writes, with mode 0600, and says how many bytes that is. `replace`: there may be a file already.
pub(super) fn write(
    path: &Path,
    replace: bool,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<u64, Failure> {
    let fail =
        |error: io::Error| Failure::hint(format_args!("{}: {error}", path.display()), "choose another --out file");
    let Some(name) = path.file_name() else {
        return Err(Failure::hint(
            format_args!("{}: not the name of a file", path.display()),
            "choose another --out file",
        ));
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| fail(error.into()))?;
    // Told before the work; that it holds at the end, too, is seen to by the renaming.
    match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Err(error) => return Err(fail(error.into())),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
            return Err(fail(io::Error::other("there is something that is no regular file")));
        }
        Ok(_) if !replace => return Err(exists(path)),
        Ok(_) => {}
    }
    let (temporary, file) = create(&directory).map_err(fail)?;
    let finish = || {
        let mut out = BufWriter::new(&file);
        fill(&mut out)?;
        out.flush()?;
        drop(out);
        file.sync_all()?;
        give_name(&directory, &temporary, name, replace)?;
        sync_directory(&directory)?;
        Ok(file.metadata()?.len())
    };
    finish().map_err(|error: io::Error| {
        // Best effort; gone already if only what followed the renaming failed.
        let _ = rustix::fs::unlinkat(&directory, temporary.as_str(), AtFlags::empty());
        if !replace && error.kind() == io::ErrorKind::AlreadyExists { exists(path) } else { fail(error) }
    })
}

fn exists(path: &Path) -> Failure {
    Failure::hint(format_args!("{}: the file exists", path.display()), "--force replaces it")
}

fn create(directory: &OwnedFd) -> io::Result<(String, File)> {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes)?;
    let name = format!(".trustkeep-{:016x}.tmp", u64::from_le_bytes(bytes));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
    Ok((name, File::from(file)))
}

fn give_name(directory: &OwnedFd, temporary: &str, name: &OsStr, replace: bool) -> io::Result<()> {
    if replace {
        return Ok(rustix::fs::renameat(directory, temporary, directory, name)?);
    }
    match rustix::fs::renameat_with(directory, temporary, directory, name, RenameFlags::NOREPLACE) {
        // File systems that cannot do that in one step (NFS) can link, which does not replace either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(directory, temporary, directory, name, AtFlags::empty())?;
            Ok(rustix::fs::unlinkat(directory, temporary, AtFlags::empty())?)
        }
        done => Ok(done?),
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests say what must hold by panicking")]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_not_replaced_and_no_temporary_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let outcome = write(&path, false, |out| {
            // The file is not there yet; then somebody makes one.
            assert!(!path.exists());
            tempfile::Builder::new().prefix("out").rand_bytes(0).tempfile_in(dir.path()).unwrap().keep().unwrap();
            out.write_all(b"ours")
        });
        assert!(outcome.unwrap_err().to_string().contains("the file exists; --force"));
        assert_eq!((names(dir.path()), std::fs::read(&path).unwrap().len()), (vec!["out".to_owned()], 0));
        assert_eq!(write(&path, true, |out| out.write_all(b"ours")).unwrap(), 4);
        assert_eq!((names(dir.path()), std::fs::read(&path).unwrap()), (vec!["out".to_owned()], b"ours".to_vec()));
    }

    #[test]
    fn what_fails_leaves_everything_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        assert_eq!(write(&path, false, |out| out.write_all(b"first")).unwrap(), 5);
        let half = |out: &mut dyn Write| {
            out.write_all(&[7; 100_000])?;
            Err(io::ErrorKind::StorageFull.into())
        };
        assert!(write(&path, true, half).is_err());
        assert!(write(&dir.path().join("other"), false, half).is_err());
        assert_eq!((names(dir.path()), std::fs::read(&path).unwrap()), (vec!["out".to_owned()], b"first".to_vec()));
        std::os::unix::fs::symlink("elsewhere", dir.path().join("link")).unwrap();
        for odd in [dir.path().join("link"), dir.path().to_owned()] {
            assert!(
                write(&odd, true, |_| panic!("nothing to fill")).unwrap_err().to_string().contains("no regular file")
            );
        }
        assert!(write(Path::new("/"), true, |_| panic!("nothing to fill")).is_err());
    }
}
