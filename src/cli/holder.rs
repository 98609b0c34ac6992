//! Which process holds a store, found without taking its lock: a look must never make a node that is just starting fail.
#![forbid(unsafe_code)]

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Who holds a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// This process.
    Process(u32),
    /// A process that has no number here, as in another PID namespace.
    Unnamed,
}

/// Who holds the store in this directory; `None` if nobody does, or the system does not tell.
pub(super) fn of(store: &Path) -> Option<Holder> {
    let found = std::fs::metadata(store.join(LOCK)).ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| holder_in(line, found.ino()))?;
    Some(u32::try_from(pid).ok().filter(|pid| *pid > 0).map_or(Holder::Unnamed, Holder::Process))
}

/// `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`. Some file systems tell another device here than elsewhere, so only the
/// inode is compared; that the file is a store's lock is known.
fn holder_in(line: &str, inode: u64) -> Option<i64> {
    let mut words = line.split_whitespace().skip(1);
    let kind = (words.next()?, words.next()?, words.next()?);
    let pid = words.next()?.parse().ok()?;
    let locked: u64 = words.next()?.rsplit(':').next()?.parse().ok()?;
    (kind.0 == "FLOCK" && kind.2 == "WRITE" && locked == inode).then_some(pid)
}

const LOCK: &str = "LOCK";

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_systems_list_of_locks_is_read() {
        assert_eq!(holder_in("1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF", 1234), Some(4711));
        assert_eq!(holder_in("1: FLOCK  ADVISORY  WRITE -1 00:3e:1234 0 EOF", 1234), Some(-1));
        for other in [
            "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1235 0 EOF",
            "1: FLOCK  ADVISORY  READ 4711 fe:00:1234 0 EOF",
            "1: POSIX  ADVISORY  WRITE 4711 fe:00:1234 0 EOF",
            "1: -> FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF",
            "1:",
            "",
        ] {
            assert_eq!(holder_in(other, 1234), None, "{other}");
        }
    }

    #[test]
    fn the_holder_of_a_store_is_found_and_nobody_once_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        assert_eq!(of(&path), None);
        let store = crate::store::TrustStore::options().open(&path).unwrap();
        assert_eq!(of(&path), Some(Holder::Process(std::process::id())));
        drop(store);
        assert_eq!(of(&path), None);
    }
}
