//! Who else may change what a node believes: each directory on the way to its home, its peers file, its store and its
//! socket, and those files themselves.
//!
//! What must hold: whoever may rename or write anything on the way decides whom the node trusts; so it starts only if that is
//! its own user and root, and a group that its operator named.
#![forbid(unsafe_code)]

use core::fmt;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Somebody else may change this.
#[derive(Debug)]
pub(super) struct Finding {
    path: PathBuf,
    why: Why,
}

#[derive(Debug, PartialEq, Eq)]
enum Why {
    /// It belongs to this user.
    Owner(u32),
    /// This group may write to it; it has this mode.
    Group(u32, u32),
    /// Everybody may write to it.
    Others(u32),
    Unknown(String),
}

impl Finding {
    /// Whether it is this directory or lies in it.
    pub(super) fn is_within(&self, directory: &Path) -> bool {
        std::fs::canonicalize(directory).is_ok_and(|directory| self.path.starts_with(directory))
    }

    /// Whether the mode is all that is wrong, which the owner can mend.
    pub(super) fn is_of_mode(&self) -> bool {
        matches!(self.why, Why::Group(..) | Why::Others(_))
    }

    /// What to do about it.
    pub(super) fn remedy(&self) -> String {
        let is_usual = std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_file() || found.is_dir());
        let path = super::print::shell(&self.path);
        if !is_usual && !matches!(self.why, Why::Unknown(_)) {
            return format!("put a regular file in the place of {path}");
        }
        match &self.why {
            Why::Owner(_) => {
                format!("give it to us or to root: chown {} {path}", rustix::process::geteuid().as_raw())
            }
            Why::Group(group, _) => format!("chmod g-w {path}, or if that group is trusted, --trusted-group {group}"),
            Why::Others(mode) if mode & 0o020 != 0 => format!("chmod go-w {path}"),
            Why::Others(_) => format!("chmod o-w {path}"),
            Why::Unknown(_) => "see to that".to_owned(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.why {
            Why::Owner(user) => write!(f, "{path}: belongs to user {user}, who can change it"),
            Why::Group(group, mode) => write!(f, "{path}: mode {mode:04o} lets group {group} change it"),
            Why::Others(mode) => write!(f, "{path}: mode {mode:04o} lets everybody change it"),
            Why::Unknown(error) => write!(f, "{path}: {error}"),
        }
    }
}

/// The first place on the way to this file, and it itself, that somebody else may change; links are followed, and what they
/// lead through counts, too. What does not exist can be changed by nobody but those who may write to where it would be.
pub(super) fn find(path: &Path, trusted_group: Option<u32>) -> Result<(), Finding> {
    let unknown =
        |path: &Path, error: &io::Error| Finding { path: path.to_owned(), why: Why::Unknown(error.to_string()) };
    let whole = std::path::absolute(path).map_err(|error| unknown(path, &error))?;
    let mut todo: Vec<OsString> = Vec::new();
    push(&mut todo, &whole);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    let root = std::fs::symlink_metadata(&at).map_err(|error| unknown(&at, &error))?;
    look(&at, &root, trusted_group)?;
    while let Some(part) = todo.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let found = match std::fs::symlink_metadata(&next) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unknown(&next, &error)),
        };
        if found.is_symlink() {
            links += 1;
            let led = std::fs::read_link(&next).map_err(|error| unknown(&next, &error))?;
            if links > LINKS_MAX {
                return Err(unknown(&next, &io::Error::other("too many symbolic links")));
            }
            if !is_ours(&found) {
                return Err(Finding { path: next, why: Why::Owner(found.uid()) });
            }
            if led.is_absolute() {
                at = PathBuf::from("/");
            }
            push(&mut todo, &led);
            continue;
        }
        look(&next, &found, trusted_group)?;
        at = next;
    }
    Ok(())
}

/// The parts of a path, the first one last.
fn push(todo: &mut Vec<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(part) => todo.push(part.to_owned()),
            Component::ParentDir => todo.push("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn is_ours(found: &Metadata) -> bool {
    found.uid() == 0 || found.uid() == rustix::process::geteuid().as_raw()
}

fn look(path: &Path, found: &Metadata, trusted_group: Option<u32>) -> Result<(), Finding> {
    let mode = found.mode() & 0o7777;
    let finding = |why| Err(Finding { path: path.to_owned(), why });
    if !is_ours(found) {
        return finding(Why::Owner(found.uid()));
    }
    // In such a directory nobody may rename or remove what is another's.
    if found.is_dir() && mode & 0o1000 != 0 && found.uid() == 0 {
        return Ok(());
    }
    if mode & 0o002 != 0 {
        return finding(Why::Others(mode));
    }
    if mode & 0o020 != 0 && trusted_group != Some(found.gid()) {
        return finding(Why::Group(found.gid(), mode));
    }
    Ok(())
}

/// As many as the system itself follows.
const LINKS_MAX: usize = 40;

#[cfg(all(test, not(trustkeep_loom)))]
#[expect(clippy::unwrap_used, reason = "tests say what must hold by panicking")]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn set(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn whoever_may_write_on_the_way_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (above, home) = (root.join("above"), root.join("above/home"));
        std::fs::create_dir_all(&home).unwrap();
        let file = home.join("peers.toml");
        std::fs::File::create_new(&file).unwrap();
        let found = |group| find(&file, group).err().map(|finding| (finding.path, finding.why));
        for path in [&above, &home] {
            set(path, 0o700);
        }
        set(&file, 0o600);
        assert!(found(None).is_none(), "{:?}", found(None));
        let group = std::fs::metadata(&file).unwrap().gid();
        for (path, good) in [(&above, 0o755), (&home, 0o700), (&file, 0o644)] {
            set(path, good);
            assert!(found(None).is_none());
            set(path, good | 0o020);
            assert_eq!(found(None), Some((path.clone(), Why::Group(group, good | 0o020))));
            assert_eq!(found(Some(group + 1)), found(None));
            assert!(found(Some(group)).is_none());
            set(path, good | 0o002);
            assert_eq!(found(Some(group)), Some((path.clone(), Why::Others(good | 0o002))));
            set(path, good);
        }
        // Sticky: of root's that is enough, of another's it is not.
        set(&above, 0o1777);
        let is_root = std::fs::metadata(&above).unwrap().uid() == 0;
        assert_eq!(found(None).is_none(), is_root);
        set(&above, 0o755);
        // What is not there is nobody's.
        assert!(find(&home.join("no/such"), None).is_ok());
    }

    #[test]
    fn links_are_followed_and_what_they_lead_through_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (there, open) = (root.join("there"), root.join("open"));
        for path in [&there, &open] {
            std::fs::create_dir(path).unwrap();
            set(path, 0o700);
        }
        symlink("../there", open.join("link")).unwrap();
        symlink(open.join("link"), root.join("first")).unwrap();
        assert!(find(&root.join("first/store"), None).is_ok());
        set(&open, 0o777);
        assert_eq!(find(&root.join("first/store"), None).unwrap_err().path, open);
        set(&open, 0o700);
        set(&there, 0o777);
        assert_eq!(find(&root.join("first/store"), None).unwrap_err().path, there);
        symlink(root.join("round"), root.join("round")).unwrap();
        assert!(matches!(find(&root.join("round"), None).unwrap_err().why, Why::Unknown(_)));
        if rustix::process::geteuid().is_root() {
            set(&there, 0o700);
            std::os::unix::fs::chown(&there, Some(12_345), None).unwrap();
            assert_eq!(find(&there, None).unwrap_err().why, Why::Owner(12_345));
            std::os::unix::fs::lchown(open.join("link"), Some(12_345), None).unwrap();
            assert_eq!(find(&open.join("link"), None).unwrap_err().path, open.join("link"));
        }
    }
}
