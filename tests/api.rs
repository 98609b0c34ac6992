//! The public contract of the store, black box:
//!
//! - a change is visible to every reader when its call returns, and durable when its receipt says so;
//! - what was durable is there after reopening: grants and revocations alike;
//! - a batch is one generation, and a panic in it changes nothing;
//! - calling the store from inside a batch is an error, never a deadlock;
//! - close refuses changes, saves what is left, frees the directory, and may be called again;
//! - no change, no write: bytes and times of the data files stay.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use trustkeep::{
    Change, Event, Holder, KeeperState, NodeId, OpenError, PersistError, TrustRecord, TrustStore, UpdateError,
    WallMillis, WriteError,
};

fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn record(number: u32) -> TrustRecord {
    TrustRecord::new(id(number), None).approved_at(WallMillis::new(i64::from(number) * 1000)).network(7)
}

fn data_files(dir: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != "LOCK")
        .map(|entry| {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            (entry.file_name().into_string().unwrap(), (std::fs::read(path).unwrap(), meta.modified().unwrap()))
        })
        .collect()
}

#[test]
fn what_is_durable_is_there_after_reopening() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let store = TrustStore::open(&dir).unwrap();
    for number in 1..=1000 {
        let receipt = store.grant(record(number)).unwrap();
        assert_eq!(receipt.generation().get(), u64::from(number));
    }
    let revoked = store.revoke(id(500)).unwrap();
    assert_eq!(revoked.was, Some(record(500)));
    revoked.receipt.wait_durable().unwrap();
    assert!(revoked.receipt.is_durable());
    let generation = store.close().unwrap();
    assert_eq!(generation.get(), 1001);
    drop(store);

    let store = TrustStore::open(&dir).unwrap();
    assert_eq!(store.generation(), generation);
    assert_eq!(store.durable_generation(), generation);
    assert_eq!(store.snapshot().len(), 999);
    assert!(!store.is_trusted(id(500)));
    assert_eq!(store.get(id(7)), Some(record(7)));
    let ids: Vec<u32> = store.snapshot().iter().map(|record| record.node_id.get()).collect();
    assert_eq!(ids, (1..=1000).filter(|&number| number != 500).collect::<Vec<_>>());
}

#[test]
fn no_change_means_no_write() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let store = TrustStore::open(&dir).unwrap();
    store.grant(record(1)).unwrap().wait_durable().unwrap();
    store.revoke(id(2)).unwrap().receipt.wait_durable().unwrap();
    drop(store);
    let before = data_files(&dir);
    let store = TrustStore::open(&dir).unwrap();
    // None of these changes anything.
    store.grant(record(1)).unwrap().wait_durable().unwrap();
    store.revoke(id(2)).unwrap().receipt.wait_durable().unwrap();
    store.flush().unwrap();
    store.close().unwrap();
    drop(store);
    assert_eq!(data_files(&dir), before);
    // And the twin: one change does write.
    let store = TrustStore::open(&dir).unwrap();
    store.grant(record(3)).unwrap().wait_durable().unwrap();
    drop(store);
    assert_ne!(data_files(&dir), before);
}

#[test]
fn a_batch_is_one_generation_and_sees_itself() {
    let store = TrustStore::in_memory();
    let _ = store.grant(record(1)).unwrap();
    let mut reader = store.reader();
    let (seen, receipt) = store
        .update(|batch| {
            assert_eq!(batch.revoke(id(1)), Some(record(1)));
            assert!(!batch.is_trusted(id(1)));
            for number in 2..=10 {
                batch.grant(record(number)).unwrap();
            }
            // Readers still see the state before, from inside as well.
            assert!(reader.is_trusted(id(1)) && !reader.is_trusted(id(2)) && store.is_trusted(id(1)));
            batch.len()
        })
        .unwrap();
    assert_eq!((seen, receipt.generation().get()), (9, 2));
    assert!(!reader.is_trusted(id(1)) && reader.is_trusted(id(10)));
    assert_eq!(reader.generation(), store.generation());
}

#[test]
fn a_panic_in_a_batch_changes_nothing_and_every_lock_stays_usable() {
    let store = TrustStore::in_memory();
    let _ = store.grant(record(1)).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _ = store.update(|batch| {
            batch.revoke(id(1));
            panic!("in the middle");
        });
    }));
    assert!(panicked.is_err());
    assert!(store.is_trusted(id(1)));
    assert_eq!(store.generation().get(), 1);
    // And the twin: the same without the panic.
    store.update(|batch| batch.revoke(id(1))).unwrap().1.wait_durable().unwrap();
    assert!(!store.is_trusted(id(1)));
}

#[test]
fn calling_the_store_from_a_batch_is_an_error_and_no_deadlock() {
    let store = TrustStore::in_memory();
    let receipt = store.grant(record(1)).unwrap();
    store
        .update(|batch| {
            assert!(matches!(store.grant(record(2)), Err(WriteError::Reentrant(same)) if same == record(2)));
            assert!(matches!(store.revoke(id(1)), Err(WriteError::Reentrant(same)) if same == id(1)));
            assert!(matches!(store.update(|_| ()), Err(WriteError::Reentrant(()))));
            assert!(matches!(store.flush(), Err(PersistError::Reentrant)));
            assert!(matches!(store.close(), Err(PersistError::Reentrant)));
            assert!(!store.wait_for_trust(id(2), Duration::from_secs(60)));
            assert!(store.wait_for_trust(id(1), Duration::ZERO));
            assert_eq!(store.subscribe().try_recv(), None);
            let _ = (receipt.is_durable(), store.health(), store.snapshot(), store.reader());
            batch.grant(record(3)).unwrap();
        })
        .unwrap()
        .1
        .wait_durable()
        .unwrap();
    assert!(store.is_trusted(id(3)) && !store.is_trusted(id(2)));
    // From another thread, meanwhile, the same calls only wait.
    std::thread::scope(|scope| {
        scope.spawn(|| store.grant(record(4)).unwrap().wait_durable().unwrap());
    });
    assert!(store.is_trusted(id(4)));
}

#[test]
fn close_refuses_changes_frees_the_directory_and_may_be_called_again() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let store = Arc::new(TrustStore::open(&dir).unwrap());
    let _ = store.grant(record(1)).unwrap();
    let closers: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || store.close().unwrap().get())
        })
        .collect();
    for closer in closers {
        assert_eq!(closer.join().unwrap(), 1);
    }
    assert_eq!(store.close().unwrap().get(), 1);
    assert!(matches!(store.grant(record(2)), Err(WriteError::Closed(same)) if same == record(2)));
    assert!(matches!(store.revoke(id(1)), Err(WriteError::Closed(_))));
    assert!(store.is_trusted(id(1)), "reading goes on");
    assert_eq!(store.flush().unwrap().get(), 1);
    assert_eq!(store.health().keeper, KeeperState::Left);
    let again = TrustStore::open(&dir).unwrap();
    assert!(again.is_trusted(id(1)));
}

#[test]
fn one_owner_at_a_time_and_the_error_names_it() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let store = TrustStore::open(&dir).unwrap();
    match TrustStore::open(&dir) {
        Err(error) => {
            assert_eq!(error.to_string(), format!("{}: the store is in use by this process itself", dir.display()));
            let OpenError::InUse { holder, path } = error else { panic!("{error:?}") };
            assert_eq!((path, holder), (dir.clone(), Holder::ThisProcess));
            assert_eq!(holder.pid(), Some(std::process::id()));
        }
        other => panic!("{other:?}"),
    }
    drop(store);
    drop(TrustStore::open(&dir).unwrap());
}

#[test]
fn wait_for_trust_is_woken_by_the_grant_and_times_out_without_one() {
    let store = Arc::new(TrustStore::in_memory());
    let waiters: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || store.wait_for_trust(id(1), Duration::from_secs(60)))
        })
        .collect();
    assert!(!store.wait_for_trust(id(2), Duration::from_millis(20)));
    let _ = store.grant(record(1)).unwrap();
    assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
    // The end wakes those for whom nothing came.
    let waiter = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || store.wait_for_trust(id(3), Duration::from_secs(60)))
    };
    store.close().unwrap();
    assert!(!waiter.join().unwrap());
}

/// A store whose subscribers keep this many events.
fn keeping(events: usize) -> TrustStore {
    let mut limits = trustkeep::config::Limits::default();
    limits.subscription_events_max = events;
    TrustStore::options().limits(limits).in_memory().unwrap()
}

fn grant(store: &TrustStore, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        let _ = store.grant(record(number)).unwrap();
    }
}

/// Peers, and losses as negative numbers.
fn told(event: Event) -> i64 {
    match event {
        Event::TrustChanged { peer, .. } => peer.get().into(),
        Event::Lagged { lost } => -i64::try_from(lost).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_come_in_order_and_a_slow_subscriber_learns_what_it_missed() {
    let store = keeping(4);
    let events = store.subscribe();
    let next = || events.try_recv().map(told);
    grant(&store, 1..=4);
    assert_eq!([next(), next(), next(), next(), next()], [Some(1), Some(2), Some(3), Some(4), None], "all fit");
    grant(&store, 5..=14);
    assert_eq!([next(), next(), next(), next()], [Some(5), Some(6), Some(7), Some(8)]);
    // The loss is told though nothing else happens, once.
    assert_eq!([next(), next()], [Some(-6), None]);
    grant(&store, [15]);
    assert_eq!([next(), next()], [Some(15), None]);
    store.close().unwrap();
    assert_eq!(events.recv(), None);
}

#[test]
fn every_loss_is_told_between_what_came_before_and_what_came_after() {
    let store = keeping(2);
    let events = store.subscribe();
    let next = || events.try_recv().map(told);
    grant(&store, 1..=4);
    assert_eq!(next(), Some(1));
    // There is room for one event behind the loss, although the loss has not been told yet.
    grant(&store, 5..=8);
    assert_eq!(next(), Some(2));
    grant(&store, 9..=10);
    assert_eq!([next(), next(), next(), next()], [Some(-2), Some(5), Some(-3), Some(9)]);
    // Told a number once, a subscriber is told of later losses alone.
    assert_eq!(next(), Some(-1));
    assert_eq!(next(), None);
    grant(&store, 11..=13);
    assert_eq!([next(), next(), next(), next()], [Some(11), Some(12), Some(-1), None]);
}

#[test]
fn every_way_to_receive_tells_of_a_loss() {
    let long = Duration::from_secs(60);
    let ways: [fn(&mut trustkeep::Subscription, Duration) -> Option<Event>; 4] = [
        |events, _| events.try_recv(),
        |events, _| events.recv(),
        |events, long| events.recv_timeout(long),
        |events, _| events.next(),
    ];
    for way in ways {
        let store = keeping(1);
        let mut events = store.subscribe();
        grant(&store, 1..=3);
        assert_eq!([way(&mut events, long).map(told), way(&mut events, long).map(told)], [Some(1), Some(-2)]);
    }
}

#[test]
fn a_loss_is_told_before_the_end() {
    let end: [fn(TrustStore); 2] = [|store| drop(store.close()), drop];
    for end in end {
        let store = keeping(2);
        let (behind, up_to_date) = (store.subscribe(), store.subscribe());
        grant(&store, 1..=2);
        assert_eq!([up_to_date.recv().map(told), up_to_date.recv().map(told)], [Some(1), Some(2)]);
        grant(&store, [3]);
        assert_eq!(up_to_date.recv().map(told), Some(3));
        end(store);
        assert_eq!(behind.map(told).collect::<Vec<_>>(), [1, 2, -1]);
        assert_eq!(up_to_date.map(told).count(), 0, "it lost nothing");
    }
}

#[test]
fn threads_that_share_a_subscription_miss_nothing_and_all_hear_of_its_end() {
    let store = keeping(1024);
    let events = store.subscribe();
    let heard = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| std::iter::from_fn(|| events.recv()).count())).collect();
        grant(&store, 1..=1000);
        store.close().unwrap();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(heard, 1000);
}

#[test]
fn a_batch_tells_of_peers_in_the_order_in_which_it_named_them() {
    let store = TrustStore::in_memory();
    let events = store.subscribe();
    let _ = store
        .update(|batch| {
            // More than are looked through one by one; the last one is named again, and stays where it was.
            for number in (1..=20).rev().chain([20]) {
                batch.grant(record(number)).unwrap();
            }
        })
        .unwrap();
    let told = core::iter::from_fn(|| events.try_recv()).map(|event| match event {
        Event::TrustChanged { peer, .. } => peer.get(),
        other => panic!("{other:?}"),
    });
    assert_eq!(told.collect::<Vec<_>>(), (1..=20).rev().collect::<Vec<_>>());
}

#[test]
fn limits_refuse_growth_and_nothing_else() {
    let mut limits = trustkeep::config::Limits::default();
    limits.trusted_max = 2;
    let home = tempfile::tempdir().unwrap();
    let store = TrustStore::options().limits(limits).open(home.path().join("store")).unwrap();
    let _ = store.grant(record(1)).unwrap();
    let _ = store.grant(record(2)).unwrap();
    assert!(matches!(store.grant(record(3)), Err(WriteError::Full(same)) if same == record(3)));
    let _ = store.grant(record(2).mutual(true)).unwrap();
    let _ = store.revoke(id(1)).unwrap();
    let _ = store.grant(record(3)).unwrap();
    assert_eq!(store.snapshot().len(), 2);
}

#[test]
fn snapshots_stay_as_they_are_and_tell_their_differences() {
    let store = TrustStore::in_memory();
    for number in 1..=100 {
        let _ = store.grant(record(number)).unwrap();
    }
    let old = store.snapshot();
    let _ = store.revoke(id(5)).unwrap();
    let _ = store.grant(record(6).mutual(true)).unwrap();
    let _ = store.grant(record(101)).unwrap();
    let new = store.snapshot();
    let mut changes: Vec<Change> = new.diff(&old).collect();
    changes.sort_by_key(Change::peer);
    assert_eq!(
        changes,
        [
            Change::Removed(record(5)),
            Change::Updated { old: record(6), new: record(6).mutual(true) },
            Change::Granted(record(101)),
        ]
    );
    drop(store);
    assert_eq!((old.len(), new.len()), (100, 100));
    assert!(old.contains(id(5)) && !new.contains(id(5)));
    // Of another store, with another seed: compared one by one.
    let other = TrustStore::in_memory();
    let _ = other.grant(record(1)).unwrap();
    assert_eq!(old.diff(&other.snapshot()).count(), 99);
}

#[test]
fn a_missing_store_is_created_only_when_asked_and_a_foreign_directory_never() {
    let home = tempfile::tempdir().unwrap();
    let open = |dir: &Path, create| TrustStore::options().create(create).open(dir).err();
    let missing = home.path().join("missing");
    assert!(matches!(open(&missing, false), Some(OpenError::Missing { .. })));
    assert!(!missing.exists());
    // What is missing is the directory around it, and is named.
    let error = open(&home.path().join("a/b/store"), true).unwrap();
    assert!(matches!(&error, OpenError::Missing { path, is_parent: true } if *path == home.path().join("a/b")));
    let text = error.to_string();
    assert!(text.contains("a/b: no such directory") && !text.contains("no such store"), "{text}");
    assert!(open(&missing, false).unwrap().to_string().ends_with("missing: no such store"));
    let foreign = home.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.txt"), "years of work").unwrap();
    assert!(matches!(open(&foreign, true), Some(OpenError::Foreign { found, .. }) if found.contains("thesis.txt")));
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1, "nothing was put there");
    let link = home.path().join("link");
    std::os::unix::fs::symlink(home.path(), &link).unwrap();
    assert!(matches!(open(&link, true), Some(OpenError::Foreign { .. })));
    let file = home.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(open(&file, true), Some(OpenError::Foreign { .. })));
    // And the twins: missing with create, and an empty directory.
    assert!(open(&missing, true).is_none());
    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(matches!(open(&empty, false), Some(OpenError::Missing { .. })));
    assert!(open(&empty, true).is_none());
}

#[test]
fn files_and_directory_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let store = TrustStore::open(&dir).unwrap();
    store.grant(record(1)).unwrap().wait_durable().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
}

#[test]
fn a_snapshot_is_iterated_by_reference_and_knows_how_many_are_left() {
    let store = TrustStore::in_memory();
    let ids = [9, 7, 8].map(|id| NodeId::new(id).unwrap());
    drop(store.update(|batch| ids.map(|id| batch.grant(TrustRecord::new(id, None)).unwrap())).unwrap());
    let snapshot = store.snapshot();
    let mut records = snapshot.iter();
    assert_eq!((records.len(), records.next().map(|record| record.node_id.get()), records.len()), (3, Some(7), 2));
    let mut seen = Vec::new();
    for record in &snapshot {
        seen.push(record.node_id.get());
    }
    assert_eq!((seen, u64::from(snapshot.generation())), (vec![7, 8, 9], snapshot.generation().get()));
}

#[test]
fn a_receipt_is_awaited_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = TrustStore::open(dir.path().join("store")).unwrap();
    let receipt = store.grant(TrustRecord::new(NodeId::new(9).unwrap(), None)).unwrap();
    receipt.wait_durable().unwrap();
    let mut future = receipt.into_future();
    let mut context = core::task::Context::from_waker(core::task::Waker::noop());
    assert!(matches!(core::pin::Pin::new(&mut future).poll(&mut context), core::task::Poll::Ready(Ok(()))));
}

#[test]
fn what_a_handle_says_of_itself_is_short_whatever_it_holds() {
    let store = TrustStore::in_memory();
    let (reader, mut of_batch) = (store.reader(), String::new());
    let update = store.update(|batch| {
        for number in 1..3000 {
            batch.grant(TrustRecord::new(NodeId::new(number).unwrap(), None)).unwrap();
        }
        of_batch = format!("{batch:?}");
    });
    let receipt = update.unwrap().1;
    assert_eq!(of_batch, "Batch { peers: 2999, .. }");
    assert_eq!(format!("{receipt:?}"), "Receipt { generation: 1, is_durable: true, .. }");
    assert_eq!(format!("{reader:?}"), "TrustReader { .. }");
}

#[test]
fn an_update_that_is_given_up_changes_nothing_and_tells_nobody() {
    let store = TrustStore::in_memory();
    let (seven, eight) = (NodeId::new(7).unwrap(), NodeId::new(8).unwrap());
    drop(store.grant(TrustRecord::new(seven, None)).unwrap());
    let (generation, events) = (store.generation(), store.subscribe());
    let given_up = store.try_update(|batch| {
        batch.grant(TrustRecord::new(eight, None)).unwrap();
        batch.revoke(seven);
        assert!(!batch.is_trusted(seven) && batch.is_trusted(eight), "within it, all of it shows");
        Err::<(), _>("better not")
    });
    assert!(matches!(given_up, Err(UpdateError::Refused("better not"))));
    assert!(store.is_trusted(seven) && !store.is_trusted(eight) && !store.is_revoked(seven));
    assert_eq!((store.generation(), events.try_recv()), (generation, None));
    // The twin: the same that is not given up.
    let done = store.try_update(|batch| {
        batch.grant(TrustRecord::new(eight, None)).unwrap();
        batch.revoke(seven);
        Ok::<_, ()>(5)
    });
    assert_eq!(done.unwrap().0, 5);
    assert!(!store.is_trusted(seven) && store.is_trusted(eight) && store.is_revoked(seven));
    assert!(events.try_recv().is_some() && events.try_recv().is_some());
    // And what the store refuses.
    store.close().unwrap();
    let closed = store.try_update(|_| Ok::<_, ()>(()));
    assert!(matches!(closed, Err(UpdateError::Write(WriteError::Closed(())))));
}
