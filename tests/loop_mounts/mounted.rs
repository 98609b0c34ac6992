//! A file system of our own, mounted from a file.

use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Whether these tests are wanted; says so where they are not.
pub(super) fn are_wanted() -> bool {
    let wanted = std::env::var_os("TRUSTKEEP_LOOP").is_some();
    if !wanted {
        eprintln!("skipped: TRUSTKEEP_LOOP is not set");
    }
    wanted
}

/// How often something is tried: `TRUSTKEEP_CUTS`, or this.
pub(super) fn times(usual: u64) -> u64 {
    std::env::var("TRUSTKEEP_CUTS").map_or(usual, |text| text.parse().unwrap())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The least that each can be made with, or a little more.
    const fn megabytes(self) -> u64 {
        match self {
            Self::Ext4 => 64,
            Self::Xfs => 320,
            Self::Btrfs => 128,
        }
    }
}

#[derive(Debug)]
pub(super) struct Mounted {
    kind: Kind,
    image: PathBuf,
    at: PathBuf,
    _home: Option<tempfile::TempDir>,
}

impl Mounted {
    /// A new one, in a directory of its own.
    pub(super) fn new(kind: Kind) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut mounted = Self::new_at(kind, &home.path().join("image"), kind.megabytes());
        mounted._home = Some(home);
        mounted
    }

    /// A new one in this file.
    pub(super) fn new_at(kind: Kind, image: &Path, megabytes: u64) -> Self {
        std::fs::File::create(image).unwrap().set_len(megabytes << 20).unwrap();
        run(&format!("mkfs.{}", kind.name()), &["-q", text(image)]);
        Self::of(kind, image)
    }

    /// What is in this file.
    pub(super) fn of(kind: Kind, image: &Path) -> Self {
        let at = image.with_extension("mounted");
        std::fs::create_dir_all(&at).unwrap();
        let this = Self { kind, image: image.to_owned(), at, _home: None };
        this.mount();
        this
    }

    pub(super) fn mount(&self) {
        // A copy has the identity of what it was copied from, which xfs minds.
        let options = if self.kind == Kind::Xfs { "loop,nouuid" } else { "loop" };
        run("mount", &["-t", self.kind.name(), "-o", options, text(&self.image), text(&self.at)]);
    }

    pub(super) fn unmount(&self) {
        run("umount", &[text(&self.at)]);
    }

    /// As a power cut: from now on nothing reaches the disk, not even what the file system's journal holds in memory.
    pub(super) fn cut(&self) {
        run("xfs_io", &["-x", "-c", "shutdown", text(&self.at)]);
    }

    pub(super) fn freeze(&self, how: &str) {
        run("fsfreeze", &[how, text(&self.at)]);
    }

    pub(super) fn image(&self) -> &Path {
        &self.image
    }

    pub(super) fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // It may be neither frozen nor mounted any more.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.at).output();
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}
