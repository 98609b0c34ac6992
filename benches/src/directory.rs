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

/// Bytes written since some moment in the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Handed to `write` and its relatives by every thread of this process (`wchar` in `/proc/self/io`). Its neighbour
    /// `write_bytes` would be of no use: it was seen to count half a mebibyte for a change of 98 bytes.
    pub handed: u64,
    /// Received by the disk that holds the directory, from every process, the file system's own records included
    /// (`/proc/diskstats`); `None` where there is no such disk.
    pub received: Option<u64>,
}

impl Written {
    /// Until now; `disk` as [`device`] gives it.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn now(disk: Device) -> io::Result<Self> {
        let io = std::fs::read_to_string("/proc/self/io")?;
        let disks = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
        Self::parse(&io, &disks, disk).ok_or_else(|| io::Error::other(format!("/proc/self/io says {io:?}")))
    }

    fn parse(io: &str, disks: &str, (major, minor): Device) -> Option<Self> {
        let handed = io.lines().find_map(|line| line.strip_prefix("wchar:")?.trim().parse().ok())?;
        let received = disks.lines().find_map(|line| {
            let mut columns = line.split_whitespace();
            let mut number = |at| columns.nth(at)?.parse::<u64>().ok();
            let ours = number(0)? == major && number(0)? == minor;
            // Behind the name: reads of four kinds, writes, merged writes, sectors written.
            let sectors = number(7)?;
            ours.then_some(sectors * SECTOR_BYTES)
        });
        Some(Self { handed, received })
    }

    /// What came in between.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let received = self.received.zip(before.received).map(|(now, then)| now.saturating_sub(then));
        Self { handed: self.handed.saturating_sub(before.handed), received }
    }
}

/// Major and minor number.
pub type Device = (u64, u64);

/// What holds this directory.
///
/// # Errors
/// As of the directory.
pub fn device(dir: &Path) -> io::Result<Device> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(split(dir.metadata()?.dev()))
}

/// The C library packs both numbers into one, in pieces.
const fn split(device: u64) -> Device {
    (((device >> 8) & 0xfff) | ((device >> 32) & 0xffff_f000), (device & 0xff) | ((device >> 12) & 0xffff_ff00))
}

/// Of `/proc/diskstats`, whatever the disk.
const SECTOR_BYTES: u64 = 512;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test, of which nothing need survive")]
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
        let io = "rchar: 1\nwchar: 22\nsyscr: 3\nwrite_bytes: 666\n";
        let disks = " 253  0 vda 1 2 3 4 5 6 70 8 9\n 253  1 vda1 1 2 3 4 5 6 71 8 9\n 1 253 ram 1 2 3 4 5 6 72 8 9\n";
        let all = Written::parse(io, disks, (253, 1)).unwrap();
        assert_eq!(all, Written { handed: 22, received: Some(71 * 512) });
        let later = Written { handed: 25, received: Some(72 * 512) };
        assert_eq!(later.since(all), Written { handed: 3, received: Some(512) });
        assert_eq!(later.since(Written { handed: 2, received: None }).received, None);
        assert_eq!(Written::parse(io, disks, (0, 1)), Some(Written { handed: 22, received: None }));
        assert_eq!(Written::parse("rchar: 22\n", disks, (253, 1)), None);

        let dir = temporary(None).unwrap();
        let disk = device(dir.path()).unwrap();
        let before = Written::now(disk).unwrap();
        std::fs::write(dir.path().join("x"), [7; 10_000]).unwrap();
        assert!(Written::now(disk).unwrap().since(before).handed >= 10_000);
    }

    #[test]
    fn the_numbers_of_a_device_are_put_together_again() {
        assert_eq!(split(0xfd01), (253, 1));
        // As glibc packs 0x12345678 and 0x9abcdef0.
        assert_eq!(split(0x1234_59ab_cde6_78f0), (0x1234_5678, 0x9abc_def0));
    }
}
