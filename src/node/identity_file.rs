//! How an identity file comes to be, and how what a crash left of one goes.
//!
//! INVARIANT: once a call here returns, `path` alone leads to the secret. Where the system can give a name to a file that
//! has none, this holds at every moment, so a crash leaves nothing. Elsewhere a crash can leave a temporary; the next call
//! that finds a good identity at `path` removes it.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::identity::IdentityError;
use super::random::Random;
use crate::persist::file::sync_directory;

/// Writes a new identity file, durably and exclusively, readable by its owner alone.
pub(super) fn write_new(path: &Path, bytes: &[u8], random: &dyn Random) -> Result<(), IdentityError> {
    if !write_unnamed(path, bytes)? {
        write_named(path, bytes, random)?;
    }
    sync_directory_of(path)
}

/// Writes a file that has no name, then links it to `path`. False if that cannot be done here.
#[cfg(target_os = "linux")]
fn write_unnamed(path: &Path, bytes: &[u8]) -> Result<bool, IdentityError> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{CWD, linkat};
    use rustix::io::Errno;

    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(parent_of(path), flags, Mode::RUSR | Mode::WUSR) else { return Ok(false) };
    let file = File::from(file);
    write_and_sync(&file, path, bytes)?;
    // A link, unlike a rename, refuses to replace what is there. It follows the descriptor's own link alone.
    match linkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), CWD, path, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Err(IdentityError::Exists { path: path.to_owned() }),
        // No /proc, for instance.
        Err(_) => Ok(false),
    }
}

#[cfg(not(target_os = "linux"))]
fn write_unnamed(_: &Path, _: &[u8]) -> Result<bool, IdentityError> {
    Ok(false)
}

/// Writes a file under a name of its own, links it to `path`, and removes the other name.
fn write_named(path: &Path, bytes: &[u8], random: &dyn Random) -> Result<(), IdentityError> {
    let mut suffix = [0; 8];
    random.fill(&mut suffix).map_err(|source| IdentityError::io("random bytes", path, source))?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}.tmp", u64::from_le_bytes(suffix)));
    let temporary = PathBuf::from(name);
    // Exclusive creation does not follow a symbolic link either.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
    let file = file.map_err(|source| IdentityError::io("create", &temporary, source))?;
    let made = write_and_sync(&file, &temporary, bytes).and_then(|()| {
        std::fs::hard_link(&temporary, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists { path: path.to_owned() },
            // Another call was faster, and took this for what a crash had left.
            io::ErrorKind::NotFound if path.symlink_metadata().is_ok() => {
                IdentityError::Exists { path: path.to_owned() }
            }
            _ => IdentityError::io("link", path, source),
        })
    });
    let removed = remove(&temporary);
    made?;
    removed
}

fn write_and_sync(mut file: &File, path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    file.write_all(bytes).map_err(|source| IdentityError::io("write", path, source))?;
    file.sync_all().map_err(|source| IdentityError::io("fsync", path, source))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the identity file is no part of the store, and this is its own temporary"
)]
fn remove(path: &Path) -> Result<(), IdentityError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(IdentityError::io("remove", path, source)),
        _ => Ok(()),
    }
}

/// Removes the temporaries that crashes left beside the identity file at `path`, which must be good: until then one of
/// them may be the only copy of the secret. What cannot be removed is told in the log.
pub(super) fn remove_leftovers(path: &Path) {
    if let Err(error) = try_remove_leftovers(path) {
        tracing::warn!(path = %path.display(), %error, "a temporary beside the identity file could not be removed");
    }
}

fn try_remove_leftovers(path: &Path) -> io::Result<()> {
    let Some(own) = path.file_name() else { return Ok(()) };
    let parent = parent_of(path);
    let mut names = Vec::new();
    for entry in parent.read_dir()? {
        let name = entry?.file_name();
        if is_leftover(own, &name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    for name in names {
        let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let ours = stat.st_uid == rustix::process::geteuid().as_raw();
        if ours && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            rustix::fs::unlinkat(&directory, &name, AtFlags::empty())?;
        }
    }
    Ok(sync_directory(&directory)?)
}

/// Whether this is the name of a temporary of the identity file `own`: with 16 small hexadecimal digits and `.tmp`.
fn is_leftover(own: &OsStr, name: &OsStr) -> bool {
    let digits = name
        .as_bytes()
        .strip_prefix(own.as_bytes())
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(b".tmp"));
    digits.is_some_and(are_digits)
}

/// Whether these are 16 small hexadecimal digits.
pub(super) fn are_digits(name: &[u8]) -> bool {
    name.len() == 16 && name.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes durable which names the directory of this file has.
pub(super) fn sync_directory_of(path: &Path) -> Result<(), IdentityError> {
    let directory = parent_of(path);
    let opened = OpenOptions::new().read(true).open(directory);
    opened.and_then(|opened: File| opened.sync_all()).map_err(|source| IdentityError::io("fsync", directory, source))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::node::{FileIdentity, Identity as _, SystemRandom};
    use crate::peer::NodeId;

    fn create(path: &Path) -> Result<FileIdentity, IdentityError> {
        FileIdentity::create(path, NodeId::new(7).unwrap(), &SystemRandom)
    }

    fn names(directory: &Path) -> BTreeSet<String> {
        directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn put(path: &Path, bytes: &[u8]) {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap().write_all(bytes).unwrap();
    }

    const LEFT: &str = "identity.key.0123456789abcdef.tmp";

    /// Every name that anything had in the directory meanwhile, as the system tells it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_secret_has_no_second_name_at_any_moment() {
        use rustix::fs::inotify;

        let dir = tempfile::tempdir().unwrap();
        let nameless = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        if rustix::fs::open(dir.path(), nameless, Mode::RUSR).is_err() {
            eprintln!("{}: no files without a name can be made here, and nothing is tested", dir.path().display());
            return;
        }
        let path = dir.path().join("identity.key");
        let watching = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        let about = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watching, dir.path(), about).unwrap();
        let told = || {
            let mut buf = [core::mem::MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(&watching, &mut buf);
            let mut told = Vec::new();
            while let Ok(event) = reader.next() {
                told.push(event.file_name().unwrap().to_str().unwrap().to_owned());
            }
            told
        };
        create(&path).unwrap();
        assert!(matches!(create(&path), Err(IdentityError::Exists { .. })));
        assert_eq!(told(), ["identity.key"]);
        // And the twin: the other way has two, and they are told.
        write_named(&dir.path().join("other.key"), b"secret", &SystemRandom).unwrap();
        let told = told();
        assert!(told.len() == 2 && told[0].ends_with(".tmp") && told[1] == "other.key", "{told:?}");
    }

    #[test]
    fn without_nameless_files_an_identity_is_made_by_a_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        write_named(&path, b"secret", &SystemRandom).unwrap();
        assert!(matches!(write_named(&path, b"other", &SystemRandom), Err(IdentityError::Exists { .. })));
        assert_eq!((std::fs::read(&path).unwrap(), names(dir.path()).len()), (b"secret".to_vec(), 1));
        let nowhere = dir.path().join("no").join("identity.key");
        assert!(matches!(create(&nowhere), Err(IdentityError::Io { operation: "create", .. })));
    }

    #[test]
    fn what_a_crash_left_of_an_identity_goes_with_the_next_load_or_init() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        // Before the link: half a file, or a whole one. The next `init` makes another identity.
        put(&dir.path().join(LEFT), b"");
        put(&dir.path().join(LEFT.replace('0', "f")), &[0x11; 52]);
        let made = create(&path).unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        // Behind the link: a second name of the same file. It goes when the node starts...
        std::fs::hard_link(&path, dir.path().join(LEFT)).unwrap();
        assert_eq!(FileIdentity::load(&path).unwrap().public_key(), made.public_key());
        assert_eq!(names(dir.path()).len(), 1);
        // ...or when `init` is tried again.
        std::fs::hard_link(&path, dir.path().join(LEFT)).unwrap();
        assert!(matches!(create(&path), Err(IdentityError::Exists { .. })));
        assert_eq!(names(dir.path()).len(), 1);
        assert_eq!(FileIdentity::load(&path).unwrap().public_key(), made.public_key());
    }

    #[test]
    fn nothing_but_a_leftover_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        create(&path).unwrap();
        for name in [
            "identity.key.0123456789abcde.tmp",
            "identity.key.0123456789abcdef0.tmp",
            "identity.key.0123456789ABCDEF.tmp",
            "identity.key.0123456789abcdeg.tmp",
            "identity.key.0123456789abcdef.tmp.bak",
            "identity.key0123456789abcdef.tmp",
            "identity.key.+123456789abcdef.tmp",
            "other.key.0123456789abcdef.tmp",
            ".0123456789abcdef.tmp",
            "identity.key.bak",
        ] {
            put(&dir.path().join(name), b"mine");
        }
        std::fs::create_dir(dir.path().join(LEFT.replace('0', "1"))).unwrap();
        std::os::unix::fs::symlink(&path, dir.path().join(LEFT.replace('0', "2"))).unwrap();
        if rustix::process::geteuid().is_root() {
            let theirs = dir.path().join(LEFT.replace('0', "3"));
            put(&theirs, b"theirs");
            std::os::unix::fs::chown(&theirs, Some(12_345), None).unwrap();
        } else {
            eprintln!("not root: that another owner's file stays is not tested");
        }
        let before = names(dir.path());
        put(&dir.path().join(LEFT), b"ours");
        FileIdentity::load(&path).unwrap();
        assert_eq!(names(dir.path()), before);

        // Beside a file that is no good identity a temporary may be all that is left of the secret.
        put(&dir.path().join(LEFT), b"ours");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        OpenOptions::new().write(true).open(&path).unwrap().write_all(&bytes).unwrap();
        assert!(FileIdentity::load(&path).is_err() && create(&path).is_err());
        assert!(names(dir.path()).contains(LEFT));
    }
}
