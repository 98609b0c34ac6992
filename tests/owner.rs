//! One process owns a directory, whatever others do to it:
//!
//! - a second opener is refused, by whatever path it comes and whatever became of `LOCK`;
//! - an owner whose directory, lock or files are not as it left them acknowledges nothing, says so, and touches nothing;
//! - it goes on once everything is as it was, but for a lost lock;
//! - another program's directory is refused and left as it is.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use trustkeep::{Displacement, Holder, NodeId, OpenError, PersistError, TrustRecord, TrustStore, WriteError};

/// Only a hang takes so long.
const SOON: Duration = Duration::from_secs(60);

fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn record(number: u32) -> TrustRecord {
    TrustRecord::new(id(number), None)
}

/// A directory in which a store has acknowledged peers 1 to 3 and has a journal open.
struct Home {
    home: tempfile::TempDir,
    dir: PathBuf,
    store: TrustStore,
    next: Cell<u32>,
}

impl Home {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("store");
        let store = TrustStore::options().close_deadline(Duration::from_millis(300)).open(&dir).unwrap();
        for number in 1..=3 {
            store.grant(record(number)).unwrap().wait_durable().unwrap();
        }
        let this = Self { home, dir, store, next: Cell::new(100) };
        this.settles();
        this
    }

    /// The owner has looked at every name so long after the directory changed last that it looks at it alone from then on.
    fn settles(&self) {
        std::thread::sleep(Duration::from_millis(150));
        self.next.set(self.next.get() + 1);
        self.store.grant(record(self.next.get())).unwrap().wait_durable().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn file(&self, part: &str) -> PathBuf {
        let mut names: Vec<_> = std::fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.into_iter().rfind(|path| path.to_str().unwrap().contains(part)).unwrap()
    }

    /// A change is visible, never acknowledged, and `health` says why; so does closing.
    #[track_caller]
    fn is_displaced(&self, of: &Path, how: Displacement) {
        let at_risk = self.store.health().changes_at_risk;
        let durable = self.store.durable_generation();
        self.next.set(self.next.get() + 1);
        let _ = self.store.grant(record(self.next.get())).unwrap();
        let revoked = self.store.revoke(id(1)).unwrap().receipt;
        // An attempt that began before the directory was changed once more may still fail for what was there then.
        let begun = Instant::now();
        while let Err(PersistError::Displaced { found, .. }) = self.store.flush()
            && found != how
        {
            assert!(begun.elapsed() < SOON, "{found:?}, not {how:?}");
        }
        assert_displaced(self.store.flush().map(drop), of, how);
        assert_displaced(revoked.wait_durable(), of, how);
        let health = self.store.health();
        assert!(!health.is_ok() && health.changes_at_risk > at_risk, "{health:?}");
        assert_displaced(health.failing.map_or(Ok(()), |failing| Err(failing.error)), of, how);
        assert!(!revoked.is_durable() && self.store.durable_generation() == durable);
        assert!(!self.store.is_trusted(id(1)), "a restriction is enforced at once");
    }

    #[track_caller]
    fn is_well_again(&self) {
        let receipt = self.store.grant(record(4)).unwrap();
        // As above.
        let begun = Instant::now();
        while let Err(error) = self.store.flush() {
            assert!(begun.elapsed() < SOON, "{error}");
        }
        assert!(self.store.health().is_ok() && receipt.is_durable());
        self.settles();
    }
}

#[track_caller]
fn assert_displaced(outcome: Result<(), PersistError>, of: &Path, how: Displacement) {
    match outcome {
        Err(PersistError::Displaced { path, found }) => {
            assert_eq!((path.canonicalize().unwrap_or(path), found), (of.canonicalize().unwrap_or(of.into()), how));
        }
        other => panic!("{other:?}"),
    }
}

/// Names, kinds and contents.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let kind = entry.file_type().unwrap();
            let bytes = if kind.is_file() { std::fs::read(entry.path()).unwrap() } else { Vec::new() };
            (format!("{} {kind:?}", entry.file_name().to_str().unwrap()), bytes)
        })
        .collect()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn trusts(dir: &Path, number: u32) -> bool {
    TrustStore::open(dir).unwrap().is_trusted(id(number))
}

#[test]
fn a_lock_file_that_was_removed_lets_nobody_in_and_ends_the_owners_acknowledgements() {
    let it = Home::new();
    let lock = it.dir.join("LOCK");
    std::fs::remove_file(&lock).unwrap();
    let second = TrustStore::open(&it.dir);
    assert!(matches!(second, Err(OpenError::InUse { holder: Holder::Unknown, .. })), "{second:?}");
    assert!(!lock.exists(), "who is refused leaves nothing");
    it.is_displaced(&lock, Displacement::Gone);
    // A lock that was away protected nothing meanwhile.
    std::fs::write(&lock, "").unwrap();
    assert_displaced(it.store.flush().map(drop), &lock, Displacement::Gone);
    let closed = it.store.close();
    assert!(
        matches!(&closed, Err(PersistError::TimedOut { cause: Some(cause) }) if matches!(**cause, PersistError::Displaced { .. })),
        "{closed:?}"
    );
    drop(it.store);
    assert!(trusts(&it.dir, 2), "what was acknowledged before is there");
}

#[test]
fn a_lock_file_that_was_replaced_is_noticed_even_if_it_says_the_same() {
    for again in [|from: &Path, to: &Path| copy(from, to), |_: &Path, to: &Path| std::fs::write(to, "").unwrap()] {
        let it = Home::new();
        let (lock, other) = (it.dir.join("LOCK"), it.path("other"));
        again(&lock, &other);
        std::fs::rename(&other, &lock).unwrap();
        it.is_displaced(&lock, Displacement::Replaced);
        assert!(matches!(TrustStore::open(&it.dir), Err(OpenError::InUse { .. })));
    }
}

#[test]
fn a_directory_that_was_renamed_is_noticed_and_taken_up_again_when_it_is_back() {
    let it = Home::new();
    let away = it.path("away");
    std::fs::rename(&it.dir, &away).unwrap();
    it.is_displaced(&it.dir, Displacement::Gone);
    // Another store in its place is another store: it works, and stays as it is.
    let other = TrustStore::open(&it.dir).unwrap();
    other.grant(record(9)).unwrap().wait_durable().unwrap();
    it.is_displaced(&it.dir, Displacement::Replaced);
    other.grant(record(10)).unwrap().wait_durable().unwrap();
    other.close().unwrap();
    let before = files(&it.dir);
    let held = files(&away);
    it.is_displaced(&it.dir, Displacement::Replaced);
    assert_eq!(files(&it.dir), before);
    assert_eq!(files(&away), held, "nothing is written as long as it lasts");
    std::fs::rename(&it.dir, it.path("other")).unwrap();
    std::fs::rename(&away, &it.dir).unwrap();
    it.is_well_again();
    it.store.close().unwrap();
    assert!(trusts(&it.dir, 4) && !trusts(&it.dir, 1));
}

/// It leads to the same directory; but no opening takes a link for one.
#[test]
fn a_link_in_the_place_of_a_directory_that_was_moved_is_noticed() {
    let it = Home::new();
    let away = it.path("away");
    std::fs::rename(&it.dir, &away).unwrap();
    std::os::unix::fs::symlink(&away, &it.dir).unwrap();
    it.is_displaced(&it.dir, Displacement::Replaced);
    std::fs::remove_file(&it.dir).unwrap();
    std::fs::rename(&away, &it.dir).unwrap();
    it.is_well_again();
    it.store.close().unwrap();
}

#[test]
fn a_directory_that_was_replaced_by_its_copy_is_not_taken_for_it() {
    let it = Home::new();
    let copied = it.path("copied");
    copy(&it.dir, &copied);
    std::fs::rename(&it.dir, it.path("away")).unwrap();
    std::fs::rename(&copied, &it.dir).unwrap();
    let before = files(&it.dir);
    it.is_displaced(&it.dir, Displacement::Replaced);
    assert_eq!(files(&it.dir), before);
    // The copy is free, for whoever opens it.
    let copied = TrustStore::open(&it.dir).unwrap();
    assert!(copied.is_trusted(id(1)));
}

#[test]
fn a_directory_that_was_removed_is_noticed_also_when_a_backup_stands_in_its_place() {
    let it = Home::new();
    let backup = it.path("backup");
    copy(&it.dir, &backup);
    std::fs::remove_dir_all(&it.dir).unwrap();
    it.is_displaced(&it.dir, Displacement::Gone);
    copy(&backup, &it.dir);
    it.is_displaced(&it.dir, Displacement::Replaced);
    assert!(matches!(it.store.close(), Err(PersistError::TimedOut { cause: Some(_) })));
}

#[test]
fn a_directory_that_was_removed_before_anything_was_written_is_noticed_as_that() {
    let it = Home::new();
    it.store.close().unwrap();
    drop(it.store);
    let store = TrustStore::open(&it.dir).unwrap();
    std::fs::remove_dir_all(&it.dir).unwrap();
    // The file of a new journal cannot be made: not for want of a disk.
    assert_displaced(store.grant(record(4)).unwrap().wait_durable(), &it.dir, Displacement::Gone);
}

#[test]
fn a_store_that_is_closed_says_that_it_is_gone_though_everything_was_saved() {
    let it = Home::new();
    std::fs::rename(&it.dir, it.path("away")).unwrap();
    for _ in 0..2 {
        assert_displaced(it.store.close().map(drop), &it.dir, Displacement::Gone);
    }
    assert!(!it.store.health().is_ok());
    // And the twin: where it was left, closing is fine.
    let it = Home::new();
    it.store.close().unwrap();
}

#[test]
fn a_directory_above_that_was_renamed_is_noticed() {
    let home = tempfile::tempdir().unwrap();
    let above = home.path().join("above");
    std::fs::create_dir(&above).unwrap();
    let dir = above.join("store");
    let store = TrustStore::open(&dir).unwrap();
    std::fs::rename(&above, home.path().join("away")).unwrap();
    assert_displaced(store.grant(record(1)).unwrap().wait_durable(), &dir, Displacement::Gone);
    std::fs::rename(home.path().join("away"), &above).unwrap();
    let begun = Instant::now();
    while let Err(error) = store.flush() {
        assert!(begun.elapsed() < SOON, "{error}");
    }
}

#[test]
fn something_mounted_over_the_directory_is_noticed_and_gone_when_it_is_unmounted() {
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            assert!(Command::new("umount").arg(self.0).status().unwrap().success());
        }
    }
    let mount = |kind: &[&str], on: &Path| {
        let done = Command::new("mount").args(kind).arg(on).output();
        match done {
            Ok(output) if output.status.success() => true,
            other => {
                eprintln!("skipped: nothing can be mounted here: {other:?}");
                false
            }
        }
    };
    let it = Home::new();
    let other = it.path("other");
    std::fs::create_dir(&other).unwrap();
    if !mount(&["--bind", other.to_str().unwrap()], &it.dir) {
        return;
    }
    let mounted = Mounted(&it.dir);
    it.is_displaced(&it.dir, Displacement::Replaced);
    assert_eq!(files(&it.dir), BTreeMap::new());
    drop(mounted);
    it.is_well_again();
    // Over a file.
    let journal = it.file(".tkj");
    let file = it.path("file");
    copy(&journal, &file);
    assert!(mount(&["--bind", file.to_str().unwrap()], &journal));
    let mounted = Mounted(&journal);
    it.is_displaced(&journal, Displacement::Replaced);
    drop(mounted);
    it.is_well_again();
    assert!(mount(&["--bind", file.to_str().unwrap()], &it.dir.join("LOCK")));
    let mounted = Mounted(&it.dir.join("LOCK").clone());
    let _ = it.store.revoke(id(2)).unwrap();
    assert_displaced(it.store.flush().map(drop), &it.dir.join("LOCK"), Displacement::Replaced);
    drop(mounted);
}

#[test]
fn a_journal_that_is_not_the_one_that_was_left_is_noticed() {
    // Removed, and back.
    let it = Home::new();
    let (journal, away) = (it.file(".tkj"), it.path("away"));
    std::fs::rename(&journal, &away).unwrap();
    it.is_displaced(&journal, Displacement::Gone);
    std::fs::rename(&away, &journal).unwrap();
    it.is_well_again();
    it.store.close().unwrap();
    assert!(trusts(&it.dir, 4) && !trusts(&it.dir, 1));
    // Replaced by its copy.
    let it = Home::new();
    let (journal, other) = (it.file(".tkj"), it.path("other"));
    copy(&journal, &other);
    std::fs::rename(&other, &journal).unwrap();
    let before = files(&it.dir);
    it.is_displaced(&journal, Displacement::Replaced);
    assert_eq!(files(&it.dir), before);
    // Cut.
    let it = Home::new();
    let journal = it.file(".tkj");
    std::fs::File::options().write(true).open(&journal).unwrap().set_len(0).unwrap();
    it.is_displaced(&journal, Displacement::Resized);
}

#[test]
fn a_file_that_nothing_is_written_to_is_missed_too() {
    for part in [".tks", "GENESIS"] {
        let it = Home::new();
        let (file, away) = (it.file(part), it.path("away"));
        // Older systems tell the times of a directory in ticks of some milliseconds.
        std::thread::sleep(Duration::from_millis(50));
        std::fs::rename(&file, &away).unwrap();
        it.is_displaced(&file, Displacement::Gone);
        std::fs::rename(&away, &file).unwrap();
        it.is_well_again();
        it.store.close().unwrap();
        assert!(trusts(&it.dir, 4) && !trusts(&it.dir, 1));
    }
}

#[test]
fn a_file_that_nothing_is_written_to_is_known_again_by_what_it_was() {
    for part in [".tks", "GENESIS"] {
        for cut in [false, true] {
            let it = Home::new();
            let (file, other) = (it.file(part), it.path("other"));
            std::thread::sleep(Duration::from_millis(50));
            let how = if cut {
                // No name changes: it is noticed by the first change that comes a second after the look before.
                std::fs::File::options().write(true).open(&file).unwrap().set_len(1).unwrap();
                std::thread::sleep(Duration::from_secs(1));
                Displacement::Resized
            } else {
                copy(&file, &other);
                std::fs::rename(&other, &file).unwrap();
                Displacement::Replaced
            };
            it.is_displaced(&file, how);
        }
    }
}

#[test]
fn a_new_name_that_is_taken_is_left_to_whom_it_belongs() {
    let it = Home::new();
    it.store.close().unwrap();
    drop(it.store);
    let store = TrustStore::open(&it.dir).unwrap();
    let taken = it.dir.join("journal-0000000000000002.tkj");
    std::fs::write(&taken, "another owner's").unwrap();
    assert_displaced(store.grant(record(5)).unwrap().wait_durable(), &taken, Displacement::Taken);
    assert_displaced(store.flush().map(drop), &taken, Displacement::Taken);
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "another owner's");
    drop(store);
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "another owner's");
}

#[test]
fn every_path_to_a_directory_leads_to_the_same_lock() {
    let it = Home::new();
    symlink(it.home.path(), it.path("link")).unwrap();
    symlink(&it.dir, it.path("straight")).unwrap();
    let paths = [it.path("link/store"), it.path("straight/"), it.path("link/link/straight/"), it.dir.join("../store")];
    for path in &paths {
        let second = TrustStore::open(path);
        assert!(matches!(second, Err(OpenError::InUse { holder: Holder::ThisProcess, .. })), "{path:?}: {second:?}");
    }
    it.store.close().unwrap();
    for path in &paths {
        let through = TrustStore::open(path).unwrap();
        through.grant(record(7)).unwrap().wait_durable().unwrap();
        assert!(matches!(TrustStore::open(&it.dir), Err(OpenError::InUse { .. })));
        through.close().unwrap();
    }
    // A link that leads elsewhere is a path that leads elsewhere.
    let through = TrustStore::open(it.path("link/store")).unwrap();
    std::fs::remove_file(it.path("link")).unwrap();
    assert_displaced(through.grant(record(8)).unwrap().wait_durable(), &it.path("link/store"), Displacement::Gone);
}

#[test]
fn a_lock_file_of_another_program_makes_the_directory_foreign_and_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    type Make = fn(&Path);
    let makes: [(&str, Make); 6] = [
        ("content", |dir| std::fs::write(dir.join("LOCK"), "host.example:4711").unwrap()),
        ("bytes", |dir| std::fs::write(dir.join("LOCK"), [0xff; 9]).unwrap()),
        ("long", |dir| std::fs::write(dir.join("LOCK"), [b'1'; 5000]).unwrap()),
        ("directory", |dir| std::fs::create_dir(dir.join("LOCK")).unwrap()),
        ("link", |dir| symlink("nowhere:4711", dir.join("LOCK")).unwrap()),
        ("pipe", |dir| {
            assert!(Command::new("mkfifo").arg(dir.join("LOCK")).status().unwrap().success());
            assert!(dir.join("LOCK").symlink_metadata().unwrap().file_type().is_fifo());
        }),
    ];
    for (name, make) in makes {
        // In a directory of its own, and in one that is a store otherwise.
        for store in [false, true] {
            let dir = home.path().join(format!("{name}-{store}"));
            std::fs::create_dir(&dir).unwrap();
            if store {
                drop(TrustStore::open(&dir).unwrap());
                std::fs::remove_file(dir.join("LOCK")).unwrap();
            }
            make(&dir);
            let before = files(&dir);
            let error = TrustStore::open(&dir).unwrap_err();
            assert!(matches!(error, OpenError::Foreign { .. }), "{name}: {error:?}");
            assert!(error.to_string().contains("choose another one, or remove LOCK if none does"), "{error}");
            assert_eq!(files(&dir), before, "{name}");
        }
    }
    // LevelDB and its relatives: the lock is empty, what lies beside it is not ours.
    let dir = home.path().join("database");
    std::fs::create_dir(&dir).unwrap();
    for file in ["LOCK", "CURRENT", "MANIFEST-000001"] {
        std::fs::write(dir.join(file), "").unwrap();
    }
    let before = files(&dir);
    assert!(matches!(TrustStore::open(&dir), Err(OpenError::Foreign { found, .. }) if found.contains("CURRENT")));
    assert_eq!(files(&dir), before);
}

#[test]
fn what_our_own_releases_and_crashes_leave_in_a_lock_file_is_no_obstacle() {
    let home = tempfile::tempdir().unwrap();
    let texts: [&[u8]; 5] = [b"", b"4711\n", &[0; 100], b"4711\nstart 12\nboot a0b1\npid-names", b"47\0\0\0\0"];
    for (number, text) in texts.iter().enumerate() {
        let dir = home.path().join(number.to_string());
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("LOCK"), text).unwrap();
        let store = TrustStore::open(&dir).unwrap();
        assert_ne!(std::fs::read(dir.join("LOCK")).unwrap(), *text);
        store.close().unwrap();
        assert_eq!(std::fs::read(dir.join("LOCK")).unwrap(), b"", "it names nobody who has left");
    }
}

#[test]
fn errors_say_what_to_do() {
    let path = PathBuf::from("dir");
    let displaced = PersistError::Displaced { path: path.clone(), found: Displacement::Replaced }.to_string();
    assert!(displaced.contains("dir is not the one that this store opened; nothing is saved"), "{displaced}");
    for error in [PersistError::Forked.to_string(), WriteError::Forked(()).to_string()] {
        assert!(error.contains("open stores after forking"), "{error}");
    }
    let in_use = |holder| OpenError::InUse { path: path.clone(), holder }.to_string();
    assert_eq!(in_use(Holder::Process { pid: 7 }), "dir: the store is in use by process 7");
    assert!(in_use(Holder::Elsewhere { pid: 1 }).contains("process 1 of another PID namespace"));
    assert!(in_use(Holder::Survivor { of: 7 }).contains("7 itself has ended"));
}
