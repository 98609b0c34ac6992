//! A disk that refuses: every call of a save and of an opening, with every error, once and from then on.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use trustkeep::clock::Clock;
use trustkeep::testing::sim_disk::{Call, Fault, SimDisk, Verdict};
use trustkeep::{KeeperState, Now, OpenError, PersistError, Tick, TrustStore, WallMillis};

use super::{Contents, contents, grant, id, in_parallel, open, record, records};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;
const LONG: Duration = Duration::from_secs(60);

/// What a save does: append to the journal, or begin one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Save {
    Append,
    Begin,
}

/// A store in which peers 1 and 2 are durable.
fn begun(save: Save) -> (SimDisk, TrustStore) {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    grant(&store, 1);
    grant(&store, 2);
    match save {
        Save::Append => (disk, store),
        Save::Begin => {
            drop(store);
            let store = open(&disk).unwrap();
            (disk, store)
        }
    }
}

/// The calls of one save.
fn calls_of_a_save(save: Save) -> Vec<Call> {
    let (disk, store) = begun(save);
    let before = disk.calls();
    grant(&store, 3);
    let calls = disk.log().split_off(before);
    drop(store);
    calls
}

/// Every call of a save with every error, once and from then on.
fn faults_of_a_save() -> Vec<(Save, Call, Fault)> {
    assert_eq!(calls_of_a_save(Save::Append), [Call::Write, Call::SyncData, Call::Confirm]);
    let begin = calls_of_a_save(Save::Begin);
    assert_eq!(begin, [Call::Create, Call::Write, Call::Sync, Call::Rename, Call::SyncDir, Call::Confirm]);
    let mut faults = Vec::new();
    for save in [Save::Append, Save::Begin] {
        let start = begun(save).0.calls();
        for (index, call) in calls_of_a_save(save).into_iter().enumerate() {
            for errno in [EINTR, EIO, ENOSPC, EROFS, EDQUOT] {
                for sticky in [false, true] {
                    faults.push((save, call, Fault { call: start + index, sticky, errno }));
                }
            }
        }
    }
    faults
}

/// Whether a save survives this fault without failing.
fn is_harmless(save: Save, call: Call, fault: Fault) -> bool {
    let repeated = call == Call::Write && fault.errno == EINTR;
    // A journal is begun again, without room ahead, where there is none.
    let shorter =
        save == Save::Begin && matches!(call, Call::Write | Call::Sync) && matches!(fault.errno, ENOSPC | EDQUOT);
    !fault.sticky && (repeated || shorter)
}

/// What is on the disk, whatever a crash does to it.
fn survives(disk: &SimDisk, allowed: &[Contents]) {
    disk.crash_point().images(40, 1, &mut |image| {
        let found = contents(&open(&SimDisk::from_image(image)).unwrap());
        assert!(allowed.contains(&found), "{found:?}");
    });
}

fn errno_of(error: &PersistError) -> Option<i32> {
    match error {
        PersistError::Io { source, .. } => source.raw_os_error(),
        PersistError::TimedOut { cause: Some(cause) } => errno_of(cause),
        _ => None,
    }
}

#[test]
fn a_refused_save_loses_nothing_is_reported_and_heals() {
    in_parallel(&faults_of_a_save(), 20, |&(save, call, fault)| {
        let (disk, store) = begun(save);
        disk.set_fault(Some(fault));
        let receipt = store.grant(record(3)).unwrap();
        let outcome = receipt.wait_durable();
        assert_eq!(outcome.is_ok(), is_harmless(save, call, fault), "{call:?} {fault:?}: {outcome:?}");
        // Memory has everything, and goes on.
        assert_eq!(contents(&store), records([1, 2, 3]));
        let _ = store.grant(record(4)).unwrap();
        assert!(store.is_trusted(id(4)));
        if let Err(error) = outcome {
            assert_eq!(errno_of(&error), Some(fault.errno), "{call:?} {fault:?}: {error}");
            survives(&disk, &[records([1, 2]), records([1, 2, 3]), records([1, 2, 3, 4])]);
        } else {
            survives(&disk, &[records([1, 2, 3]), records([1, 2, 3, 4])]);
        }
        if fault.sticky && !is_harmless(save, call, fault) {
            let health = store.health();
            let failing = health.failing.clone().expect("a failure stands");
            assert!(!health.is_ok() && health.keeper == KeeperState::Running);
            assert_eq!((errno_of(&failing.error), health.changes_at_risk), (Some(fault.errno), 2));
            assert!(failing.attempts >= 1);
            assert_eq!(errno_of(&store.flush().unwrap_err()), Some(fault.errno));
            assert_eq!(errno_of(&receipt.wait_durable().unwrap_err()), Some(fault.errno));
            let timed_out = receipt.wait_durable_timeout(Duration::from_millis(1)).unwrap_err();
            assert!(matches!(&timed_out, PersistError::TimedOut { cause: Some(_) }), "{timed_out}");
            assert!(store.health().failing.unwrap().attempts > failing.attempts, "it is tried again");
        }
        // The fault ends while somebody waits: he is told of nothing but the success.
        std::thread::scope(|scope| {
            let patient = scope.spawn(|| receipt.wait_durable_timeout(LONG));
            disk.set_fault(None);
            patient.join().unwrap().unwrap();
        });
        // An attempt that was made before the fault ended may still be reported, once.
        if store.flush().is_err() {
            store.flush().unwrap();
        }
        let health = store.health();
        assert!(health.is_ok() && health.changes_at_risk == 0, "{health:?}");
        survives(&disk, &[records([1, 2, 3, 4])]);
        store.close().unwrap();
        drop(store);
        assert_eq!(contents(&open(&disk).unwrap()), records([1, 2, 3, 4]));
    });
}

#[test]
fn a_close_after_a_transient_error_claims_only_what_is_saved() {
    in_parallel(&faults_of_a_save(), 20, |&(save, call, fault)| {
        if fault.sticky {
            return;
        }
        let (disk, store) = begun(save);
        disk.set_fault(Some(fault));
        let _ = store.grant(record(3)).unwrap();
        let closed = store.close();
        assert_eq!(closed.expect("close rides a transient error out").get(), 3, "{call:?} {fault:?}");
        survives(&disk, &[records([1, 2, 3])]);
    });
}

#[test]
fn a_close_that_cannot_save_says_so_and_may_be_called_again() {
    in_parallel(&faults_of_a_save(), 20, |&(save, call, fault)| {
        if !fault.sticky || is_harmless(save, call, fault) || matches!(save, Save::Append) {
            return;
        }
        let disk = begun(save).0;
        // The store that was begun is gone; this one is opened as that was.
        let store = TrustStore::options()
            .close_deadline(Duration::from_millis(30))
            .open_storage(Arc::new(disk.clone()))
            .unwrap();
        let index = calls_of_a_save(save).iter().position(|it| *it == call).unwrap();
        disk.set_fault(Some(Fault { call: disk.calls() + index, ..fault }));
        store.grant(record(3)).unwrap().wait_durable().unwrap_err();
        let error = store.close().unwrap_err();
        assert!(matches!(error, PersistError::TimedOut { .. }), "{call:?} {fault:?}: {error}");
        assert_eq!(errno_of(&error), Some(fault.errno), "{call:?} {fault:?}: {error}");
        assert!(store.is_trusted(id(3)) && store.health().changes_at_risk == 1);
        survives(&disk, &[records([1, 2]), records([1, 2, 3])]);
        disk.set_fault(None);
        // A longer pause may be running; each call asks for an attempt now.
        while store.close().is_err() {}
        survives(&disk, &[records([1, 2, 3])]);
        drop(store);
        assert_eq!(contents(&open(&disk).unwrap()), records([1, 2, 3]));
    });
}

#[test]
fn a_store_dropped_on_a_dead_disk_ends_and_leaves_the_last_durable_state() {
    let (disk, store) = begun(Save::Append);
    disk.set_fault(Some(Fault { call: disk.calls(), sticky: true, errno: EIO }));
    let receipt = store.grant(record(3)).unwrap();
    drop(store);
    assert!(matches!(receipt.wait_durable(), Err(PersistError::Abandoned | PersistError::Io { .. })));
    assert!(!receipt.is_durable());
    disk.set_fault(None);
    assert_eq!(contents(&open(&disk).unwrap()), records([1, 2]));
}

#[test]
fn a_state_found_after_a_kill_is_made_durable_before_anybody_relies_on_it() {
    let (disk, store) = begun(Save::Begin);
    let sync_dir = calls_of_a_save(Save::Begin).iter().position(|call| *call == Call::SyncDir).unwrap();
    disk.set_fault(Some(Fault { call: disk.calls() + sync_dir, sticky: true, errno: EIO }));
    let _ = store.grant(record(3)).unwrap();
    drop(store);
    // The new name is there for processes, and would be gone after a power loss.
    survives(&disk, &[records([1, 2]), records([1, 2, 3])]);
    disk.set_fault(None);
    let store = open(&disk).unwrap();
    assert_eq!((contents(&store), store.durable_generation().get()), (records([1, 2, 3]), 3));
    survives(&disk, &[records([1, 2, 3])]);
}

#[test]
fn short_writes_are_continued_and_writes_of_nothing_are_an_error() {
    for bytes in [1, 7, 511, 513] {
        let (disk, store) = begun(Save::Append);
        disk.set_write_bytes_max(Some(bytes));
        store.grant(record(3)).unwrap().wait_durable().unwrap();
        survives(&disk, &[records([1, 2, 3])]);
    }
    let (disk, store) = begun(Save::Append);
    disk.set_write_bytes_max(Some(0));
    let receipt = store.grant(record(3)).unwrap();
    let error = receipt.wait_durable().unwrap_err();
    assert!(matches!(&error, PersistError::Io { source, .. } if source.kind() == std::io::ErrorKind::WriteZero));
    disk.set_write_bytes_max(None);
    receipt.wait_durable_timeout(LONG).unwrap();
    survives(&disk, &[records([1, 2, 3])]);
}

/// Has the next write take only so many bytes, and the one after it fail, once `when` was called.
fn cut_short_after(disk: &SimDisk, when: Option<Call>, bytes: usize) {
    let writes = std::sync::atomic::AtomicUsize::new(if when.is_some() { usize::MAX } else { 0 });
    disk.judge(move |call| {
        let begins = when == Some(call) && writes.load(SeqCst) == usize::MAX;
        if begins {
            writes.store(0, SeqCst);
        }
        match (call, writes.load(SeqCst)) {
            (Call::Write, written @ (0 | 1)) => {
                writes.store(written + 1, SeqCst);
                if written == 0 { Verdict::Takes(bytes) } else { Verdict::Fails(ENOSPC) }
            }
            _ => Verdict::Done,
        }
    });
}

#[test]
fn a_closing_mark_that_is_cut_short_loses_nothing() {
    in_parallel(&(1..64).collect::<Vec<_>>(), 1, |&bytes| {
        // When the store is closed.
        let (disk, store) = begun(Save::Append);
        cut_short_after(&disk, None, bytes);
        store.close().unwrap();
        let journal = &disk.live_image()["journal-0000000000000001.tkj"];
        assert!(journal[512..576].iter().any(|byte| *byte != 0) && journal[512 + bytes..576] == [0; 64][bytes..]);
        survives(&disk, &[records([1, 2])]);
        let disk = SimDisk::from_image(&disk.live_image());
        let store = open(&disk).unwrap();
        grant(&store, 3);
        drop(store);
        assert_eq!(contents(&open(&disk).unwrap()), records([1, 2, 3]));
        // When another journal goes on from a full one.
        let disk = SimDisk::new();
        let options = TrustStore::options().journal_sizes(0, 1 << 20);
        let store = options.open_storage(Arc::new(disk.clone())).unwrap();
        grant(&store, 1);
        cut_short_after(&disk, Some(Call::SyncDir), bytes);
        (2..=60).for_each(|number| grant(&store, number));
        let mut image = disk.live_image();
        let journal = &image["journal-0000000000000001.tkj"];
        assert!(journal[512..576].iter().any(|byte| *byte != 0) && journal[512 + bytes..576] == [0; 64][bytes..]);
        assert_eq!(contents(&open(&SimDisk::from_image(&image)).unwrap()), records(1..=60));
        // As soon as it says that there is another, that one is missed.
        image.remove("journal-0000000000000002.tkj").unwrap();
        assert_eq!(open(&SimDisk::from_image(&image)).is_err(), bytes > 8, "{bytes}");
    });
}

#[test]
fn an_opening_that_fails_anywhere_spoils_nothing() {
    let (disk, store) = begun(Save::Append);
    drop(store);
    let whole = disk.live_image();
    // An existing store, and the creation of one.
    for (image, expected) in [(whole, records([1, 2])), (std::collections::BTreeMap::new(), records([]))] {
        let disk = SimDisk::from_image(&image);
        drop(open(&disk).unwrap());
        let calls = disk.log();
        for (index, errno, sticky) in (0..calls.len())
            .flat_map(|index| [EINTR, EIO, ENOSPC, EROFS].map(|errno| (index, errno)))
            .flat_map(|(index, errno)| [(index, errno, false), (index, errno, true)])
        {
            let disk = SimDisk::from_image(&image);
            disk.set_fault(Some(Fault { call: index, sticky, errno }));
            match open(&disk) {
                Ok(store) => assert_eq!(contents(&store), expected, "{:?} {errno}", calls[index]),
                Err(OpenError::Io { source, .. }) => assert_eq!(source.raw_os_error(), Some(errno)),
                Err(OpenError::Persist(error)) => assert_eq!(errno_of(&error), Some(errno)),
                Err(other) => panic!("{:?} {errno}: {other:?}", calls[index]),
            }
            disk.set_fault(None);
            survives(&disk, std::slice::from_ref(&expected));
            assert_eq!(contents(&open(&disk).unwrap()), expected);
        }
    }
}

#[test]
fn a_journal_of_which_a_write_or_a_sync_failed_is_never_touched_again() {
    for index in [0, 1] {
        let (disk, store) = begun(Save::Append);
        let call = disk.calls() + index;
        disk.set_fault(Some(Fault { call, sticky: false, errno: EIO }));
        store.grant(record(3)).unwrap().wait_durable().unwrap_err();
        while store.flush().is_err() {}
        let begin = [Call::Create, Call::Write, Call::Sync, Call::Rename, Call::SyncDir, Call::Confirm];
        assert_eq!(disk.log()[call + 1..], begin, "the next save begins another file");
    }
}

/// A clock that stands still: a pause after a failure never ends by itself.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        Now { wall: WallMillis::new(1_700_000_000_000), tick: Tick::new(0) }
    }
}

#[test]
fn a_flush_or_a_close_asks_for_an_attempt_and_tells_no_old_failure_while_waiting_asks_for_none() {
    for closes in [false, true] {
        let disk = begun(Save::Append).0;
        let options = TrustStore::options().settle_after(None).clock(Arc::new(Still)).close_deadline(LONG);
        let store = options.open_storage(Arc::new(disk.clone())).unwrap();
        disk.set_fault(Some(Fault { call: disk.calls(), sticky: true, errno: EIO }));
        let receipt = store.grant(record(3)).unwrap();
        assert_eq!(errno_of(&receipt.wait_durable().unwrap_err()), Some(EIO));
        let failing = store.health().failing.unwrap();
        assert_eq!((failing.attempts, failing.since.as_millis()), (1, 1_700_000_000_000));
        disk.set_fault(None);
        // The disk works again, but nobody has tried: the failure stands, and whoever only waits is told of it.
        let calls = disk.calls();
        assert_eq!(errno_of(&receipt.wait_durable().unwrap_err()), Some(EIO));
        let timed_out = receipt.wait_durable_timeout(Duration::from_millis(200)).unwrap_err();
        assert!(matches!(timed_out, PersistError::TimedOut { cause: Some(_) }), "{timed_out}");
        assert_eq!(disk.calls(), calls);
        let done = if closes { store.close() } else { store.flush() };
        assert_eq!(done.unwrap().get(), 3, "the old failure is none of this attempt");
        assert!(receipt.is_durable() && store.health().failing.is_none());
    }
}
