//! What the keeper thread owes to those who wait for it, with a storage that misbehaves on command:
//!
//! - a keeper that panics is seen by `health`, `flush`, `close` and every receipt; reads and writes go on in memory;
//! - a disk that hangs holds up neither readers nor writers, and is not hidden from those who wait;
//! - `flush`, and who waits for a change, hear of the attempts that concern them;
//! - a save that hangs is told by `health`, with the time since when;
//! - old versions are freed while the keeper hangs, by writers, and afterwards by the keeper; never by a reader.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod common;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::eventually;
use trustkeep::{
    FileEntry, KeeperState, NodeId, PersistError, Receipt, Storage, StorageFile, TrustRecord, TrustStore, WriteError,
};

fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn record(number: u32) -> TrustRecord {
    TrustRecord::new(id(number), None)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    Panic,
    Hang,
    /// Fails the next sync, and is well again.
    FailOnce,
    Fail,
}

/// A disk in a mood. Keeps no bytes: nothing is read back here.
#[derive(Clone, Debug)]
struct Moody(Arc<(Mutex<Mood>, Condvar)>);

impl Moody {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(Mood::Well), Condvar::new())))
    }

    fn be(&self, mood: Mood) {
        *self.0.0.lock().unwrap() = mood;
        self.0.1.notify_all();
    }

    fn sync(&self) -> io::Result<()> {
        let mut mood = self.0.0.lock().unwrap();
        while *mood == Mood::Hang {
            mood = self.0.1.wait(mood).unwrap();
        }
        let (panics, fails) = (*mood == Mood::Panic, matches!(*mood, Mood::Fail | Mood::FailOnce));
        if *mood == Mood::FailOnce {
            *mood = Mood::Well;
        }
        drop(mood);
        assert!(!panics, "this disk panics");
        if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

impl Storage for Moody {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        Ok(Vec::new())
    }

    fn read(&self, _: &str, _: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(self.clone()))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

impl StorageFile for Moody {
    fn write_at(&mut self, _: u64, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn sync(&mut self) -> io::Result<()> {
        Moody::sync(self)
    }
}

fn open(disk: &Moody) -> TrustStore {
    open_with(disk, LONG)
}

fn open_with(disk: &Moody, close_deadline: Duration) -> TrustStore {
    TrustStore::options().close_deadline(close_deadline).open_storage(Arc::new(disk.clone())).unwrap()
}

#[test]
fn a_keeper_that_panics_is_seen_by_everybody_and_stops_nobody() {
    let disk = Moody::new();
    let store = open(&disk);
    store.grant(record(1)).unwrap().wait_durable().unwrap();
    assert!(store.health().is_ok());
    disk.be(Mood::Panic);
    let receipt = store.grant(record(2)).unwrap();
    assert!(matches!(receipt.wait_durable(), Err(PersistError::KeeperPanicked)));
    assert!(matches!(receipt.wait_durable_timeout(Duration::from_secs(60)), Err(PersistError::KeeperPanicked)));
    assert!(matches!(store.flush(), Err(PersistError::KeeperPanicked)));
    let health = store.health();
    assert_eq!((health.keeper, health.changes_at_risk, health.is_ok()), (KeeperState::Panicked, 1, false));
    // Memory goes on.
    let _ = store.grant(record(3)).unwrap();
    let _ = store.revoke(id(1)).unwrap();
    assert!(store.is_trusted(id(3)) && !store.is_trusted(id(1)));
    assert!(matches!(store.close(), Err(PersistError::KeeperPanicked)));
    assert!(matches!(store.grant(record(4)), Err(WriteError::Closed(_))));
}

#[test]
fn a_disk_that_hangs_holds_nobody_up_but_those_who_wait_for_it() {
    let disk = Moody::new();
    let store = open_with(&disk, Duration::from_millis(200));
    disk.be(Mood::Hang);
    let hanging = store.grant(record(1)).unwrap();
    let mut reader = store.reader();
    for number in 2..=10_000 {
        let receipt = store.grant(record(number)).unwrap();
        assert!(reader.is_trusted(id(number)) && store.is_trusted(id(number)));
        assert!(!receipt.is_durable());
    }
    // Nor does a revocation or a batch wait. In a thread of its own, so that one that does is a failure and no hang.
    let (done, finished) = std::sync::mpsc::channel();
    let on_time = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = store.revoke(id(2)).unwrap();
            let _ = store.update(|batch| batch.revoke(id(3))).unwrap();
            done.send(()).unwrap();
        });
        let on_time = finished.recv_timeout(LONG).is_ok();
        if !on_time {
            disk.be(Mood::Well);
        }
        on_time
    });
    assert!(on_time, "a restriction waited for the disk");
    assert!(!reader.is_trusted(id(2)) && !store.is_trusted(id(3)));
    assert_eq!(store.durable_generation().get(), 0);
    let waited = hanging.wait_durable_timeout(Duration::from_millis(20));
    assert!(matches!(waited, Err(PersistError::TimedOut { cause: None })), "{waited:?}");
    // Only the version that the keeper is saving, the one the reader saw last, and those since the last look are kept.
    let retained = store.health().versions_retained;
    assert!(retained < 200, "{retained} old versions retained while the disk hangs");
    assert!(matches!(store.close(), Err(PersistError::TimedOut { .. })), "the deadline passes");
    disk.be(Mood::Well);
    // Each call waits for 200 ms at most, and the keeper may need longer now.
    let mut closed = None;
    eventually("it closes", || {
        closed = store.close().ok();
        closed.is_some()
    });
    assert_eq!(closed.unwrap().get(), 10_002, "and calling it again works");
    assert!(hanging.is_durable());
}

/// A store whose first change hangs in a sync, and who waits for what meanwhile.
fn while_a_save_hangs<T: Send>(
    mood: Mood,
    waiters: usize,
    wait: impl Fn(&TrustStore, &Receipt) -> T + Send + Sync,
) -> (T, TrustStore) {
    let disk = Moody::new();
    let store = open(&disk);
    disk.be(Mood::Hang);
    let first = store.grant(record(1)).unwrap();
    eventually("it is saved", || store.health().saving.is_some_and(|saving| saving.generation == first.generation()));
    let answer = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&store, &first));
        eventually("all wait", || store.health().waiting_for_disk == waiters);
        disk.be(mood);
        waiting.join().unwrap()
    });
    (answer, store)
}

#[test]
fn a_flush_tells_of_the_attempt_that_it_asked_for_and_of_none_before() {
    let flush = |store: &TrustStore, _: &Receipt| store.flush();
    let (answer, store) = while_a_save_hangs(Mood::FailOnce, 1, flush);
    assert_eq!(answer.unwrap(), store.generation(), "the one that hung failed, the one asked for did not");
    // And the twin: if that fails, too, it says so.
    let (answer, _store) = while_a_save_hangs(Mood::Fail, 1, flush);
    assert!(matches!(answer, Err(PersistError::Io { .. })), "{answer:?}");
}

#[test]
fn who_waits_for_a_change_does_not_hear_that_a_save_without_it_failed() {
    let (answers, _store) = while_a_save_hangs(Mood::FailOnce, 2, |store, first| {
        let second = store.grant(record(2)).unwrap();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| first.wait_durable());
            (second.wait_durable(), first.join().unwrap())
        })
    });
    assert!(answers.0.is_ok(), "{answers:?}");
    assert!(matches!(answers.1, Err(PersistError::Io { .. })), "its own save failed: {answers:?}");
}

#[test]
fn a_save_that_runs_for_too_long_is_no_health_until_it_ends() {
    let disk = Moody::new();
    let limit = Duration::from_millis(50);
    let store = TrustStore::options().save_limit(limit).open_storage(Arc::new(disk.clone())).unwrap();
    let begun = wall();
    disk.be(Mood::Hang);
    let receipt = store.grant(record(1)).unwrap();
    let overdue = || store.health().saving.is_some_and(|saving| saving.is_overdue);
    eventually("it is overdue", overdue);
    let health = store.health();
    let saving = health.saving.unwrap();
    assert!(!health.is_ok() && health.failing.is_none(), "{health:?}");
    assert_eq!(saving.generation, receipt.generation());
    assert!((begun..=wall()).contains(&saving.since.as_millis()), "{saving:?}");
    disk.be(Mood::Well);
    receipt.wait_durable().unwrap();
    eventually("nothing is being saved", || store.health().saving.is_none());
    assert!(store.health().is_ok());
    // And the twin: within the limit, which is 5 s unless told otherwise, a save that runs is none of anybody's business.
    let (is_ok, _store) = while_a_save_hangs(Mood::Well, 1, |store, first| {
        let is_ok = store.health().is_ok();
        first.wait_durable().unwrap();
        is_ok
    });
    assert!(is_ok);
}

/// The wall clock, in milliseconds.
fn wall() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

#[test]
fn the_keeper_frees_what_readers_let_go_of_without_another_write() {
    let store = open(&Moody::new());
    let old = store.snapshot();
    store.grant(record(1)).unwrap().wait_durable().unwrap();
    store.grant(record(2)).unwrap().wait_durable().unwrap();
    // The keeper has looked and found one version held.
    eventually("one version is held", || store.health().versions_retained == 1);
    drop(old);
    eventually("none is held", || store.health().versions_retained == 0);
}

#[test]
fn everybody_who_waits_while_the_keeper_panics_is_answered() {
    let disk = Moody::new();
    let store = TrustStore::options().close_deadline(LONG).open_storage(Arc::new(disk.clone())).unwrap();
    let store = Arc::new(store);
    disk.be(Mood::Hang);
    let receipt = store.grant(record(1)).unwrap();
    let (done, answers) = std::sync::mpsc::channel();
    let waits: [fn(&TrustStore, &Receipt) -> Option<PersistError>; 4] = [
        |_, receipt| receipt.wait_durable().err(),
        |_, receipt| receipt.wait_durable_timeout(LONG).err(),
        |store, _| store.flush().err(),
        |store, _| store.close().err(),
    ];
    // Nobody joins them: one that is never answered is a failure and no hang.
    for wait in waits {
        let (store, receipt, done) = (Arc::clone(&store), receipt.clone(), done.clone());
        std::thread::spawn(move || done.send(wait(&store, &receipt)));
    }
    // They wait by now, or come to do so; none has an answer.
    std::thread::sleep(Duration::from_millis(100));
    assert!(answers.try_recv().is_err());
    disk.be(Mood::Panic);
    for _ in 0..4 {
        let answer = answers.recv_timeout(LONG / 2).unwrap();
        assert!(matches!(answer, Some(PersistError::KeeperPanicked)), "{answer:?}");
    }
    assert_eq!(store.health().keeper, KeeperState::Panicked);
}

const LONG: Duration = Duration::from_secs(60);
