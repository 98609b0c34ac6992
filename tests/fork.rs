//! A process that forks after it opened a store:
//!
//! - in the child every change and every wait fails at once with an error of its own, reads go on, and nothing is done when
//!   the store is dropped there, whatever other threads of the parent were doing when it forked;
//! - the parent keeps its lock and goes on; the child may open stores of its own;
//! - who finds a store in use is told truthfully by whom, also after that process has ended.
#![allow(
    unsafe_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of forking has to fork, and says what must hold by panicking"
)]

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

mod common;

use common::{alone, arrived, identity, message_from};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use trustkeep::node::{CommandError, RequestOptions};
use trustkeep::testing::doors;
use trustkeep::testing::sim_disk::SimDisk;
use trustkeep::wire::message::Kind;
use trustkeep::{Holder, KeeperState, NodeId, OpenError, PersistError, Receipt, TrustRecord, TrustStore, WriteError};

/// Only a hang takes so long.
const SOON: Duration = Duration::from_secs(60);

fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn record(number: u32) -> TrustRecord {
    TrustRecord::new(id(number), None)
}

/// A forked process; it is killed when this goes.
struct Child(Option<Pid>);

impl Child {
    /// Forks, and runs this in the child, which then ends: with 0 if it does not panic. What `body` owns is dropped in both.
    fn runs(body: impl FnOnce()) -> Self {
        // SAFETY: the child runs `body` on this thread's copy and ends without returning. What it needs of the C library
        // (memory, files) is usable in a forked process there.
        match unsafe { libc::fork() } {
            0 => {
                let outcome = std::panic::catch_unwind(AssertUnwindSafe(body));
                if let Err(panic) = &outcome {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                    let _ = std::io::stderr().write_all(text.unwrap_or_default().as_bytes());
                }
                // SAFETY: ends the process without running anything that is the parent's.
                unsafe { libc::_exit(i32::from(outcome.is_err())) }
            }
            pid => Self(Some(Pid::from_raw(pid).expect("fork works"))),
        }
    }

    /// Waits until it has ended, and says how; a hang is a failure.
    #[track_caller]
    fn ends(mut self) {
        let begun = Instant::now();
        let pid = self.0.expect("it was not waited for");
        loop {
            if let Some((_, status)) = waitpid(Some(pid), WaitOptions::NOHANG).unwrap() {
                self.0 = None;
                assert_eq!(status.exit_status(), Some(0), "the child failed, see its words above");
                return;
            }
            assert!(begun.elapsed() < SOON, "the child hangs");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[track_caller]
fn is_in_use_by(dir: &Path, expected: Holder) {
    match TrustStore::open(dir) {
        Err(OpenError::InUse { holder, .. }) => assert_eq!(holder, expected),
        other => panic!("{other:?}"),
    }
}

fn everything_fails_in_a_child_of(store: TrustStore) {
    let durable = store.grant(record(1)).unwrap();
    durable.wait_durable().unwrap();
    let key = trustkeep::testing::actor::Actor::new(1, 0x77).public_key();
    drop(store.revoke(id(4)).unwrap());
    store.revoke_key(&key).unwrap().receipt.wait_durable().unwrap();
    let mark = store.revocation(id(4)).unwrap();
    let (mut waits, subscription) = (store.trust_future(id(9)), store.subscribe());
    assert!(poll(&mut waits).is_pending());
    let future = durable.durable_future();
    let store = Arc::new(store);
    // A thread of the parent is in the writer's critical section when the process forks.
    let (tell_inside, inside) = std::sync::mpsc::channel();
    let (tell_go_on, go_on) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn({
        let store = Arc::clone(&store);
        move || {
            store
                .update(|batch| {
                    batch.grant(record(2)).unwrap();
                    tell_inside.send(()).unwrap();
                    let _ = go_on.recv_timeout(SOON);
                })
                .unwrap()
                .1
        }
    });
    inside.recv_timeout(SOON).unwrap();
    let mut all = Some((store, waits, future, subscription));
    let child = Child::runs(|| {
        let (store, mut waits, mut future, subscription) = all.take().unwrap();
        assert_eq!(store.grant(record(3)).unwrap_err(), WriteError::Forked(record(3)));
        assert_eq!(store.revoke(id(1)).unwrap_err(), WriteError::Forked(id(1)));
        assert_eq!(store.update(|_| ()).unwrap_err(), WriteError::Forked(()));
        assert!(matches!(store.flush(), Err(PersistError::Forked)));
        assert!(matches!(store.close(), Err(PersistError::Forked)));
        assert!(matches!(durable.wait_durable(), Err(PersistError::Forked)));
        assert!(matches!(durable.wait_durable_timeout(SOON), Err(PersistError::Forked)));
        assert!(matches!(poll(&mut future), Poll::Ready(Err(PersistError::Forked))));
        assert!(!store.wait_for_trust(id(9), 10 * SOON));
        assert_eq!(poll(&mut waits), Poll::Ready(false));
        assert_eq!(poll(&mut store.trust_future(id(1))), Poll::Ready(true));
        assert_eq!((subscription.recv(), store.subscribe().recv()), (None, None));
        let health = store.health();
        assert_eq!((health.keeper, health.is_ok(), health.changes_at_risk), (KeeperState::Forked, false, 0));
        // What the parent had published is read as ever.
        assert!(store.is_trusted(id(1)) && store.reader().is_trusted(id(1)) && !store.is_trusted(id(2)));
        assert!(durable.is_durable() && store.snapshot().len() == 1 && store.get(id(1)) == Some(record(1)));
        assert_eq!((store.revoked(), store.revocation(id(4))), (vec![(id(4), mark)], Some(mark)));
        assert!(store.is_revoked(id(4)) && !store.is_revoked(id(1)) && store.key_revocation(&key).is_some());
        assert_eq!((store.revoked_keys().len(), store.health().revoked), (1, 1));
        // A store of its own, whose threads may get what belonged to the parent's.
        let own = TrustStore::in_memory();
        own.grant(record(5)).unwrap().wait_durable().unwrap();
        drop((waits, future, subscription));
        assert_eq!(Arc::strong_count(&store), 2, "as in the parent: its other thread has one");
        // SAFETY: the count is that of this and of a thread that does not exist here; so this is the last.
        unsafe { Arc::decrement_strong_count(Arc::as_ptr(&store)) };
        drop(store);
        own.grant(record(6)).unwrap().wait_durable().unwrap();
        own.close().unwrap();
        drop(own);
    });
    child.ends();
    tell_go_on.send(()).unwrap();
    writer.join().unwrap().wait_durable().unwrap();
}

#[test]
fn in_a_child_every_change_and_wait_fails_at_once_and_the_parent_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    everything_fails_in_a_child_of(TrustStore::open(&dir).unwrap());
    everything_fails_in_a_child_of(TrustStore::in_memory());
    let store = TrustStore::open(&dir).unwrap();
    assert!(store.is_trusted(id(2)) && !store.is_trusted(id(3)));
}

#[test]
fn the_parent_keeps_its_lock_when_a_child_drops_the_store_and_ends() {
    let home = tempfile::tempdir().unwrap();
    let (dir, other) = (home.path().join("store"), home.path().join("other"));
    let store = TrustStore::open(&dir).unwrap();
    store.grant(record(1)).unwrap().wait_durable().unwrap();
    let parent = std::process::id();
    let store = Child::runs_beside(store, |store| {
        drop(store);
        is_in_use_by(&dir, Holder::Process { pid: parent });
        let own = TrustStore::open(&other).unwrap();
        own.grant(record(7)).unwrap().wait_durable().unwrap();
        // A child of the child is none of either's process.
        Child::runs(|| assert!(matches!(own.grant(record(8)), Err(WriteError::Forked(_))))).ends();
        own.close().unwrap();
    });
    is_in_use_by(&dir, Holder::ThisProcess);
    Child::runs(|| is_in_use_by(&dir, Holder::Process { pid: parent })).ends();
    store.grant(record(2)).unwrap().wait_durable().unwrap();
    assert!(store.health().is_ok());
    store.close().unwrap();
    // And the twin: it is free once the parent gives it up.
    Child::runs(|| drop(TrustStore::open(&dir).unwrap())).ends();
    assert!(TrustStore::open(&other).unwrap().is_trusted(id(7)));
}

impl Child {
    /// The same with a value of which parent and child have one each.
    fn runs_beside<T>(value: T, body: impl FnOnce(T)) -> T {
        let mut value = Some(value);
        let child = Self::runs(|| body(value.take().unwrap()));
        child.ends();
        value.unwrap()
    }
}

#[test]
fn a_child_that_drops_a_directory_leaves_it_locked() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let directory = Child::runs_beside(doors::own_directory(&dir).unwrap(), drop);
    is_in_use_by(&dir, Holder::ThisProcess);
    drop(directory);
    drop(TrustStore::open(&dir).unwrap());
}

#[test]
fn a_fork_inside_a_change_is_a_fork() {
    let store = TrustStore::in_memory();
    store
        .update(|batch| {
            batch.grant(record(1)).unwrap();
            Child::runs(|| {
                assert_eq!(store.grant(record(2)).unwrap_err(), WriteError::Forked(record(2)));
                assert!(matches!(store.flush(), Err(PersistError::Forked)));
            })
            .ends();
        })
        .unwrap()
        .1
        .wait_durable()
        .unwrap();
    assert!(store.is_trusted(id(1)) && !store.is_trusted(id(2)));
}

/// Other threads of the parent take and give up the store's locks all the time: a child gets copies of locks that nobody there
/// gives up.
#[test]
fn who_waits_is_dropped_in_a_child_whatever_is_locked_when_it_forks() {
    let (disk, hangs) = (SimDisk::new(), Arc::new((Mutex::new(false), Condvar::new())));
    let of_disk = Arc::clone(&hangs);
    disk.on_sync(move || drop(of_disk.1.wait_while(of_disk.0.lock().unwrap(), |hangs| *hangs).unwrap()));
    let store = TrustStore::options().open_storage(Arc::new(disk)).unwrap();
    let hangs = Hangs::begin(hangs);
    let receipt = store.grant(record(1)).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    receipt.wait_durable_timeout(Duration::ZERO).unwrap_err();
                    assert!(poll(&mut store.trust_future(id(8))).is_pending());
                }
            });
        }
        let _over = Sets(&is_over);
        for _ in 0..300 {
            let (mut durable, mut trusted) = (receipt.durable_future(), store.trust_future(id(9)));
            assert!(poll(&mut durable).is_pending() && poll(&mut trusted).is_pending());
            let _ = Child::runs_beside((durable, trusted, store.subscribe()), drop);
        }
    });
    // And the twin: in the parent they are forgotten.
    let health = store.health();
    assert_eq!((health.waiting_for_disk, health.waiting_for_trust), (0, 0));
    drop(hangs);
    receipt.wait_durable().unwrap();
}

/// A disk hangs until this goes, by a panic too.
struct Hangs(Arc<(Mutex<bool>, Condvar)>);

impl Hangs {
    fn begin(disk: Arc<(Mutex<bool>, Condvar)>) -> Self {
        *disk.0.lock().unwrap() = true;
        Self(disk)
    }
}

impl Drop for Hangs {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap() = false;
        self.0.1.notify_all();
    }
}

/// Sets this when it goes, by a panic too.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_node_in_a_child_refuses_every_call_and_goes_without_a_word() {
    let (manager, wire, ends) = alone(|builder| builder);
    let request = message_from(&identity(2), Kind::Request, |_| ());
    let mut all = Some(manager);
    let child = Child::runs(|| {
        let manager = all.take().unwrap();
        let forked = |outcome: Result<Receipt, CommandError>| {
            assert!(matches!(outcome, Err(CommandError::Store(WriteError::Forked(())))), "{outcome:?}");
        };
        forked(manager.grant(record(2)));
        forked(manager.approve(id(2), None));
        forked(manager.revoke(id(2)).map(|revoked| revoked.receipt));
        forked(manager.request(id(2), "", RequestOptions::default()));
        manager.receive(arrived(request.clone(), 2));
        assert!(manager.pending().is_empty() && !manager.wait_for_trust(id(2), 10 * SOON));
        assert!(matches!(manager.shutdown(), Err(PersistError::Forked)));
        drop(manager);
    });
    child.ends();
    assert!(!*wire.stopped.lock().unwrap() && ends.sent.try_recv().is_err());
    let manager = all.unwrap();
    manager.receive(arrived(request, 2));
    assert_eq!(manager.pending().len(), 1, "in the parent everything is as it was");
    manager.shutdown().unwrap();
}

#[test]
fn a_relative_path_means_the_directory_that_it_named_when_the_store_was_opened() {
    let home = tempfile::tempdir().unwrap();
    let (here, there) = (home.path().join("here"), home.path().join("there"));
    for dir in [&here, &there] {
        std::fs::create_dir(dir).unwrap();
    }
    // In a process of its own, for the working directory is the process's.
    Child::runs(|| {
        std::env::set_current_dir(&here).unwrap();
        let store = TrustStore::open("store").unwrap();
        store.grant(record(1)).unwrap().wait_durable().unwrap();
        std::env::set_current_dir(&there).unwrap();
        store.grant(record(2)).unwrap().wait_durable().unwrap();
        std::fs::rename(&here, home.path().join("away")).unwrap();
        let refused = store.grant(record(3)).unwrap().wait_durable();
        assert!(matches!(refused, Err(PersistError::Displaced { .. })), "{refused:?}");
    })
    .ends();
}

#[test]
fn a_holder_that_has_ended_is_not_named_as_one_that_runs() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let (mut reading, mut writing) = std::io::pipe().unwrap();
    let opener = Child::runs(|| {
        let store = TrustStore::open(&dir).unwrap();
        store.grant(record(1)).unwrap().wait_durable().unwrap();
        // A helper that does not exec keeps the lock's descriptor.
        let mut helper = Child::runs(|| std::thread::sleep(10 * SOON));
        let pid = helper.0.take().unwrap().as_raw_nonzero().get();
        writing.write_all(&pid.to_le_bytes()).unwrap();
        // As a kill would: nothing is given up.
        let _kept = std::mem::ManuallyDrop::new(store);
    });
    let of = u32::try_from(opener.0.unwrap().as_raw_nonzero().get()).unwrap();
    let mut pid = [0; 4];
    reading.read_exact(&mut pid).unwrap();
    let helper = Child(Pid::from_raw(i32::from_le_bytes(pid)));
    opener.ends();
    is_in_use_by(&dir, Holder::Survivor { of });
    drop(helper);
    // It is not our child, so that its end is seen by its lock alone.
    let begun = Instant::now();
    while let Err(error) = TrustStore::open(&dir) {
        assert!(matches!(error, OpenError::InUse { .. }) && begun.elapsed() < SOON, "{error}");
        std::thread::yield_now();
    }
    assert!(TrustStore::open(&dir).unwrap().is_trusted(id(1)));
}
