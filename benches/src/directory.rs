//! Where a measurement puts its files, and what a store has written there.
//!
//! What must hold: a name is taken for what it is in any version of the store, with and without a journal.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The files of a store, as far as a measurement cares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFiles {
    /// Name and bytes of the newest complete snapshot.
    pub snapshot: Option<(String, u64)>,
    /// Whether a snapshot is being written.
    pub writing: bool,
    /// Bytes of all journals, those that only an older snapshot needs included, and with the space taken ahead.
    pub journal_bytes: u64,
}

impl StoreFiles {
    /// From names and lengths.
    #[must_use]
    pub fn of(entries: impl IntoIterator<Item = (String, u64)>) -> Self {
        let mut files = Self::default();
        for (name, bytes) in entries {
            if name.starts_with("snapshot-") && name.contains(".tks.tmp") {
                files.writing = true;
            } else if name.starts_with("snapshot-") && name.ends_with(".tks") {
                // The generation has a fixed width: the greatest name is the newest.
                if files.snapshot.as_ref().is_none_or(|(newest, _)| *newest < name) {
                    files.snapshot = Some((name, bytes));
                }
            } else if name.starts_with("journal-") && name.ends_with(".tkj") {
                files.journal_bytes += bytes;
            }
        }
        files
    }

    /// Of this directory, now. What is removed meanwhile is left out.
    ///
    /// # Errors
    /// As of the directory.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) => entries.push((entry.file_name().to_string_lossy().into_owned(), metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self::of(entries))
    }

    /// Bytes of the newest complete snapshot.
    #[must_use]
    pub fn snapshot_bytes(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |(_, bytes)| *bytes)
    }
}

/// Whether a snapshot is being written in this directory. Looks at names alone, since it is asked before each sample.
///
/// # Errors
/// As of the directory.
pub fn is_snapshot_being_written(dir: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if StoreFiles::of([(name.to_string_lossy().into_owned(), 0)]).writing {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An empty directory beneath this one, or beside this program: that is under the target directory, which is rarely held in
/// memory, while the system's temporary directory often is.
///
/// # Errors
/// As of the directory.
pub fn temporary(beneath: Option<PathBuf>) -> io::Result<TempDir> {
    let beneath = match beneath {
        Some(dir) => dir,
        None => {
            let program = std::env::current_exe()?;
            program.parent().ok_or(io::ErrorKind::NotFound)?.to_owned()
        }
    };
    tempfile::tempdir_in(beneath)
}

/// The kind of file system that holds this directory, as the figures mean little without it.
#[must_use]
pub fn file_system(dir: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    file_system_in(&mounts, &dir).unwrap_or("an unknown file system").to_owned()
}

/// The kind of the last mount with the longest mount point above the directory.
fn file_system_in<'a>(mounts: &'a str, dir: &Path) -> Option<&'a str> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut columns = line.split(' ').skip(1);
            Some((Path::new(columns.next()?), columns.next()?))
        })
        .filter(|(point, _)| dir.starts_with(point))
        .max_by_key(|(point, _)| point.components().count())
        .map(|(_, kind)| kind)
}

/// Bytes that this process has written since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Handed to `write` and its relatives, by every thread (`wchar`).
    pub handed: u64,
    /// Sent on towards the disk, in whole pages (`write_bytes`).
    pub sent: u64,
}

impl Written {
    /// Until now.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn now() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/io")?;
        Self::parse(&text).ok_or_else(|| io::Error::other(format!("/proc/self/io says {text:?}")))
    }

    fn parse(text: &str) -> Option<Self> {
        let figure = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Some(Self { handed: figure("wchar:")?, sent: figure("write_bytes:")? })
    }

    /// What came in between.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self { handed: self.handed.saturating_sub(before.handed), sent: self.sent.saturating_sub(before.sent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_taken_for_what_they_are() {
        let of = |names: &[(&str, u64)]| StoreFiles::of(names.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)));
        let quiet = [
            ("LOCK", 1),
            ("GENESIS", 2),
            ("GENESIS.tmp0", 4),
            ("journal-0000000000000001.tkj", 8),
            ("journal-0000000000000002.tkj", 16),
            ("journal-0000000000000003.tkj.tmp1", 32),
            ("snapshot-000000000000000a.tks", 64),
            ("snapshot-0000000000000009.tks", 128),
            ("damaged-0-snapshot-0000000000000001.tks", 256),
        ];
        let newest = Some(("snapshot-000000000000000a.tks".to_owned(), 64));
        let files = of(&quiet);
        assert_eq!(files, StoreFiles { snapshot: newest, writing: false, journal_bytes: 24 });
        assert_eq!(files.snapshot_bytes(), 64);
        let busy = of(&[("snapshot-000000000000000b.tks.tmp0", 512)]);
        assert_eq!(busy, StoreFiles { snapshot: None, writing: true, journal_bytes: 0 });
        assert_eq!(busy.snapshot_bytes(), 0);
    }

    #[test]
    fn a_directory_is_read_as_it_is() {
        let dir = temporary(None).unwrap();
        assert_eq!(StoreFiles::read(dir.path()).unwrap(), StoreFiles::default());
        assert!(!is_snapshot_being_written(dir.path()).unwrap());
        std::fs::write(dir.path().join("journal-1.tkj"), [0; 7]).unwrap();
        assert!(!is_snapshot_being_written(dir.path()).unwrap());
        std::fs::write(dir.path().join("snapshot-1.tks.tmp12"), [0; 7]).unwrap();
        assert!(is_snapshot_being_written(dir.path()).unwrap());
        let expected = StoreFiles { snapshot: None, writing: true, journal_bytes: 7 };
        assert_eq!(StoreFiles::read(dir.path()).unwrap(), expected);
        assert!(is_snapshot_being_written(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn the_closest_mount_tells_the_file_system() {
        let mounts = "disk / ext4 rw 0 0\nmemory /tmp tmpfs rw 0 0\nother /tmp/real xfs rw 0 0\n";
        let kind = |dir| file_system_in(mounts, Path::new(dir));
        assert_eq!(kind("/var/x"), Some("ext4"));
        assert_eq!(kind("/tmp/x"), Some("tmpfs"));
        assert_eq!(kind("/tmpx"), Some("ext4"));
        assert_eq!(kind("/tmp/real/x"), Some("xfs"));
        assert_eq!(file_system_in("", Path::new("/")), None);
    }

    #[test]
    fn written_bytes_are_counted_as_the_system_does() {
        let text =
            "rchar: 1\nwchar: 22\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 666\ncancelled_write_bytes: 7\n";
        let all = Written::parse(text).unwrap();
        assert_eq!(all, Written { handed: 22, sent: 666 });
        assert_eq!(all.since(Written { handed: 2, sent: 600 }), Written { handed: 20, sent: 66 });
        assert_eq!(Written::parse("wchar: 22\n"), None);
        let before = Written::now().unwrap();
        let dir = temporary(None).unwrap();
        std::fs::write(dir.path().join("x"), [7; 10_000]).unwrap();
        assert!(Written::now().unwrap().since(before).handed >= 10_000);
    }
}
