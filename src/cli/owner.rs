//! Root works on a directory as the user whom it belongs to: what it makes there is that user's, and its node starts.
#![forbid(unsafe_code)]

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, setegid, seteuid, setgroups};

use super::Failure;

/// If this is root and the directory (or, as long as it is missing, the one that it will be in) is another's, becomes that
/// user, for the rest of this process.
pub(super) fn work_as_owner_of(dir: &Path) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(found) = [dir, parent].iter().find_map(|path| std::fs::metadata(path).ok()) else { return Ok(()) };
    let (user, group) = (found.uid(), found.gid());
    if user == 0 {
        return Ok(());
    }
    let become_user = || {
        setgroups(&[Gid::from_raw(group)])?;
        setegid(Gid::from_raw(group))?;
        seteuid(Uid::from_raw(user))
    };
    become_user().map_err(|error| {
        Failure::hint(
            format_args!("{} belongs to user {user}, and we cannot work as that user: {error}", dir.display()),
            "run this as that user",
        )
    })
}

/// Where a store really is, after becoming the user whom it belongs to.
pub(super) fn work_on(store: &Path) -> Result<PathBuf, Failure> {
    let store = real(store);
    work_as_owner_of(&store).map(|()| store)
}

/// Where a store really is: a link in its place leads to it.
pub(super) fn real(store: &Path) -> PathBuf {
    let is_link = std::fs::symlink_metadata(store).is_ok_and(|found| found.is_symlink());
    let led = if is_link { store.canonicalize().ok() } else { None };
    led.unwrap_or_else(|| store.to_owned())
}
