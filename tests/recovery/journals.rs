//! When journals are begun and removed, and what happens to a store when the thread that writes snapshots is in trouble:
//! it holds up nobody, loses nothing, and is not needed for an answer.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use trustkeep::testing::sim_disk::{Call, SimDisk, Verdict};
use trustkeep::{
    FailingSnapshots, FileEntry, FileId, Left, PersistError, Receipt, Seen, Storage, StorageFile, TrustStore,
};

use super::{contents, grant, open, open_small, record, records, small, wall};

/// A disk that is in trouble with snapshots alone.
struct Picky {
    disk: SimDisk,
    /// Called before each operation on a snapshot's file.
    trouble: Arc<dyn Fn(Call) -> std::io::Result<()> + Send + Sync>,
}

struct PickyFile(Box<dyn StorageFile>, Option<Arc<dyn Fn(Call) -> std::io::Result<()> + Send + Sync>>);

impl std::fmt::Debug for Picky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Picky")
    }
}

impl Picky {
    fn open(disk: &SimDisk, trouble: impl Fn(Call) -> std::io::Result<()> + Send + Sync + 'static) -> TrustStore {
        small().open_storage(Arc::new(Self { disk: disk.clone(), trouble: Arc::new(trouble) })).unwrap()
    }

    fn before(&self, call: Call, name: &str) -> std::io::Result<()> {
        if name.starts_with("snapshot-") { (self.trouble)(call) } else { Ok(()) }
    }
}

impl Storage for Picky {
    fn list(&self) -> std::io::Result<Vec<FileEntry>> {
        self.disk.list()
    }
    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
        self.disk.read(name, look)
    }
    fn create(&self, name: &str) -> std::io::Result<Box<dyn StorageFile>> {
        self.before(Call::Create, name)?;
        let trouble = name.starts_with("snapshot-").then(|| Arc::clone(&self.trouble));
        Ok(Box::new(PickyFile(self.disk.create(name)?, trouble)))
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.before(Call::Rename, from)?;
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.before(Call::Remove, name)?;
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.disk.sync_dir()
    }
    fn confirm(&self, left: &Left<'_>, seen: &mut Seen) -> Result<(), PersistError> {
        self.disk.confirm(left, seen)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

impl PickyFile {
    fn before(&self, call: Call) -> std::io::Result<()> {
        self.1.as_ref().map_or(Ok(()), |trouble| trouble(call))
    }
}

impl StorageFile for PickyFile {
    fn id(&self) -> Option<FileId> {
        self.0.id()
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<usize> {
        self.before(Call::Write)?;
        self.0.write_at(offset, bytes)
    }
    fn sync(&mut self) -> std::io::Result<()> {
        self.before(Call::Sync)?;
        self.0.sync()
    }
    fn sync_data(&mut self) -> std::io::Result<()> {
        self.before(Call::SyncData)?;
        self.0.sync_data()
    }
}

/// A closed store with nothing in it.
fn empty() -> SimDisk {
    let disk = SimDisk::new();
    open_small(&disk).close().unwrap();
    disk
}

/// What `health` says of snapshots, as soon as it says something.
fn failing_snapshots(store: &TrustStore) -> FailingSnapshots {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(failing) = store.health().failing_snapshots {
            return failing;
        }
        assert!(Instant::now() < deadline, "a snapshot failed, and health does not tell");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn count(disk: &SimDisk, prefix: &str) -> usize {
    disk.live_image().keys().filter(|name| name.starts_with(prefix) && !name.contains(".tmp")).count()
}

#[test]
fn opening_and_closing_without_a_change_writes_nothing() {
    let disk = empty();
    let store = open_small(&disk);
    (1..=3).for_each(|number| grant(&store, number));
    store.close().unwrap();
    let (image, calls) = (disk.live_image(), disk.calls());
    for _ in 0..3 {
        open_small(&disk).close().unwrap();
    }
    let reads = |call: &Call| matches!(call, Call::List | Call::Read | Call::SyncDir | Call::Confirm);
    assert!(disk.log()[calls..].iter().all(reads), "{:?}", &disk.log()[calls..]);
    assert_eq!(disk.live_image(), image);
    // And the twin: a change begins a new journal, which goes on from the last.
    let store = open_small(&disk);
    grant(&store, 4);
    assert_eq!(count(&disk, "journal-"), 3);
}

#[test]
fn a_snapshot_that_fails_fails_no_save_loses_nothing_and_comes_later() {
    for call in [Call::Create, Call::Write, Call::Sync, Call::Rename, Call::Remove] {
        for errno in [4, 5, 28, 30, 122] {
            let disk = empty();
            let (ails, begun) = (Arc::new(AtomicBool::new(true)), wall());
            let ailing = Arc::clone(&ails);
            let store = Picky::open(&disk, move |it| {
                let fails = it == call && ailing.load(Ordering::SeqCst);
                if fails { Err(std::io::Error::from_raw_os_error(errno)) } else { Ok(()) }
            });
            for number in 1..=12 {
                grant(&store, number);
            }
            let health = store.health();
            assert!(health.is_ok() && health.changes_at_risk == 0, "{call:?} {errno}");
            // A file that could not be removed is no snapshot that failed.
            if call == Call::Remove {
                assert!(health.failing_snapshots.is_none(), "{errno}");
            } else {
                let failing = failing_snapshots(&store);
                let PersistError::Io { source, .. } = &failing.error else { panic!("{:?}", failing.error) };
                assert_eq!(source.raw_os_error(), Some(errno), "{call:?}");
                assert!((begun..=wall()).contains(&failing.since.as_millis()), "{failing:?}");
                // Each change makes the journals longer; since when does not change.
                grant(&store, 100);
                grant(&store, 100 + u32::try_from(failing.attempts).unwrap());
                let later = failing_snapshots(&store);
                assert!(later.journal_bytes > failing.journal_bytes && failing.journal_bytes > 0, "{later:?}");
                assert!(later.since == failing.since && later.attempts >= failing.attempts, "{later:?}");
            }
            ails.store(false, Ordering::SeqCst);
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut number = 12;
            while count(&disk, "snapshot-") != 2 || disk.live_image().contains_key("snapshot-0000000000000000.tks") {
                number += 1;
                grant(&store, number);
                assert!(Instant::now() < deadline, "{call:?} {errno}: {:?}", disk.live_image().keys());
            }
            let expected = contents(&store);
            assert!(records(1..=number).iter().all(|(number, record)| expected.get(number) == Some(record)));
            store.close().unwrap();
            // One has been written.
            assert!(store.health().failing_snapshots.is_none(), "{call:?} {errno}");
            drop(store);
            assert_eq!(contents(&open_small(&disk)), expected, "{call:?} {errno}");
        }
    }
}

#[test]
fn a_snapshot_that_fails_is_tried_again_when_the_journals_have_doubled() {
    let disk = empty();
    let tried = Arc::new(Mutex::new(0));
    let trying = Arc::clone(&tried);
    let store = Picky::open(&disk, move |call| {
        *trying.lock().unwrap() += usize::from(call == Call::Create);
        if call == Call::Rename { Err(std::io::Error::from_raw_os_error(28)) } else { Ok(()) }
    });
    let (mut tried_at, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(60));
    // However long the thread that writes snapshots takes to begin, each try comes sooner or later.
    for number in 1.. {
        assert!(Instant::now() < deadline, "it is tried again: {tried_at:?} of {number}");
        if tried_at.len() == 5 {
            break;
        }
        grant(&store, number);
        // One that has begun has failed before the next change.
        while disk.live_image().keys().any(|name| name.starts_with("snapshot-") && name.contains(".tmp")) {
            std::thread::yield_now();
        }
        let tried = *tried.lock().unwrap();
        if tried > tried_at.len() {
            tried_at.push(number);
        }
    }
    // Each change is as long as another; one more may be saved before the failure of a snapshot is seen.
    let doubles = tried_at.windows(2).all(|pair| pair[1] + 2 >= 2 * pair[0]);
    assert!(doubles, "{tried_at:?}");
}

/// What a snapshot makes superfluous goes when it is durable, not before: with two snapshots there, a third that fails leaves
/// both, and the journals from the older on.
#[test]
fn a_snapshot_that_fails_costs_no_file() {
    let disk = empty();
    let (mut number, deadline) = (0, Instant::now() + Duration::from_secs(60));
    let mut grant_next = |store: &TrustStore| {
        number += 1;
        grant(store, number);
        assert!(Instant::now() < deadline, "{:?}", disk.live_image().keys());
    };
    let store = open_small(&disk);
    while count(&disk, "snapshot-") != 2 || disk.live_image().contains_key("snapshot-0000000000000000.tks") {
        grant_next(&store);
    }
    store.close().unwrap();
    drop(store);
    let before: Vec<String> = disk.live_image().into_keys().collect();
    let all_there = || before.iter().all(|name| disk.live_image().contains_key(name));
    let ails = Arc::new(AtomicBool::new(true));
    let ailing = Arc::clone(&ails);
    let store = Picky::open(&disk, move |call| {
        let fails = call == Call::Rename && ailing.load(Ordering::SeqCst);
        if fails { Err(std::io::Error::from_raw_os_error(28)) } else { Ok(()) }
    });
    while store.health().failing_snapshots.is_none() {
        grant_next(&store);
    }
    assert!(all_there(), "{before:?}, and now {:?}", disk.live_image().keys());
    // And the twin: when it works again, what it makes superfluous goes.
    ails.store(false, Ordering::SeqCst);
    while all_there() {
        grant_next(&store);
    }
}

#[test]
fn a_snapshot_that_fails_and_one_that_does_not_are_told_though_no_change_follows() {
    for fails in [true, false] {
        let disk = empty();
        let (entered, hanging) = channel();
        let (release, released) = channel::<()>();
        let released = Mutex::new(released);
        let store = Picky::open(&disk, move |call| {
            if call == Call::Sync {
                let _ = entered.send(());
                let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(120));
            }
            if call == Call::Rename && fails { Err(std::io::Error::from_raw_os_error(28)) } else { Ok(()) }
        });
        (1..=3).for_each(|number| grant(&store, number));
        hanging.recv().unwrap();
        // It hangs while the last change is saved, and only then fails or works.
        grant(&store, 4);
        assert!(store.health().failing_snapshots.is_none());
        release.send(()).unwrap();
        if fails {
            assert_eq!(failing_snapshots(&store).attempts, 1);
        } else {
            std::thread::sleep(Duration::from_millis(1500));
            assert!(store.health().failing_snapshots.is_none());
        }
    }
}

#[test]
fn a_save_writes_in_proportion_to_what_changed() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    let fill = |numbers: std::ops::Range<u32>| {
        let (fits, receipt) =
            store.update(|batch| numbers.clone().all(|number| batch.grant(record(number)).is_ok())).unwrap();
        assert!(fits);
        receipt.wait_durable().unwrap();
    };
    fill(1..20_001);
    let quiet = disk.bytes_written();
    grant(&store, 20_001);
    let one = disk.bytes_written() - quiet;
    fill(20_002..20_102);
    let hundred = disk.bytes_written() - quiet - one;
    // A record takes about 50 bytes, a group about as many again; the whole is a thousand kilobytes.
    assert!((50..200).contains(&one), "{one} bytes for one change");
    assert!((50 * one / 4..100 * one).contains(&hundred), "{hundred} bytes for a hundred changes, {one} for one");
}

#[test]
fn a_snapshot_thread_that_hangs_holds_up_neither_changes_nor_readers_and_close_waits_for_it() {
    let disk = empty();
    let (entered, hanging) = channel();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let store = Picky::open(&disk, move |call| {
        if call == Call::Sync {
            let _ = entered.send(());
            let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(120));
        }
        Ok(())
    });
    (1..=3).for_each(|number| grant(&store, number));
    hanging.recv().unwrap();
    let mut reader = store.reader();
    for number in 4..=500 {
        // Durable, all of them.
        grant(&store, number);
        assert!(reader.is_trusted(super::id(number)));
    }
    assert_eq!(count(&disk, "snapshot-"), 1);
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| store.close());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!closing.is_finished(), "the directory is not free while a thread writes to it");
        release.send(()).unwrap();
        closing.join().unwrap().unwrap();
    });
    assert_eq!(count(&disk, "snapshot-"), 2);
    assert_eq!(contents(&open_small(&disk)), records(1..=500));
}

#[test]
fn a_panic_in_the_snapshot_thread_loses_nothing_and_close_returns() {
    let disk = empty();
    let store = Picky::open(&disk, |call| {
        assert_ne!(call, Call::Write, "as the test wants it");
        Ok(())
    });
    (1..=20).for_each(|number| grant(&store, number));
    let failing = failing_snapshots(&store);
    assert!(matches!(failing.error, PersistError::SnapshotPanicked) && store.health().is_ok(), "{failing:?}");
    store.close().unwrap();
    assert_eq!(count(&disk, "snapshot-"), 1);
    assert!(store.health().failing_snapshots.is_some(), "it was not written in the end either");
    drop(store);
    assert_eq!(contents(&open_small(&disk)), records(1..=20));
}

#[test]
fn many_restarts_lead_to_a_snapshot_and_leave_few_journals() {
    let disk = empty();
    let (mut most, mut snapshots) = (0, BTreeSet::new());
    for number in 1..=200 {
        let store = TrustStore::options().open_storage(Arc::new(disk.clone())).unwrap();
        store.grant(record(number)).unwrap().wait_durable().unwrap();
        store.close().unwrap();
        most = most.max(count(&disk, "journal-"));
        snapshots.extend(disk.live_image().into_keys().filter(|name| name.starts_with("snapshot-")));
    }
    // The 64 that lead to the newer of the two snapshots, and as many from there on. The next begins another snapshot.
    assert_eq!(most, 128);
    assert_eq!(count(&disk, "snapshot-"), 2);
    // The first of all, and one each 64 restarts.
    assert_eq!(snapshots.len(), 4, "{snapshots:?}");
    assert_eq!(contents(&open_small(&disk)), records(1..=200));
}

/// A change that is larger than what a page has room for behind others: the next journal begins with it.
fn grant_many(store: &TrustStore, number: u32) -> Receipt {
    let many = number * 300..number * 300 + 300;
    let (fits, receipt) = store.update(|batch| many.clone().all(|number| batch.grant(record(number)).is_ok())).unwrap();
    assert!(fits);
    receipt
}

/// Journals before the newest snapshot stay for the older one, however many. They are no reason for another snapshot.
#[test]
fn many_journals_lead_to_one_snapshot_and_not_to_another_at_once() {
    let disk = empty();
    // Each save begins a journal, and their bytes are never a reason.
    let store = TrustStore::options().journal_sizes(0, u64::MAX).open_storage(Arc::new(disk.clone())).unwrap();
    let mut snapshots = BTreeSet::new();
    for number in 1..=250 {
        grant_many(&store, number).wait_durable().unwrap();
        while disk.live_image().keys().any(|name| name.starts_with("snapshot-") && name.contains(".tmp")) {
            std::thread::yield_now();
        }
        // Another may begin at any moment.
        let is_whole = |name: &String| name.starts_with("snapshot-") && !name.contains(".tmp");
        snapshots.extend(disk.live_image().into_keys().filter(is_whole));
    }
    store.close().unwrap();
    // The first of all, and one each 64 journals, or a few more if the thread that writes it is slow to begin.
    assert!((3..=4).contains(&snapshots.len()), "{snapshots:?}");
}

/// While only the directory cannot be synced, each attempt could leave a whole journal.
#[test]
fn saves_that_fail_leave_at_most_one_journal_however_many_there_are() {
    let disk = empty();
    let store = open_small(&disk);
    grant(&store, 1);
    let before = disk.live_image().len();
    disk.judge(|call| if call == Call::SyncDir { Verdict::Fails(24) } else { Verdict::Done });
    let receipt = grant_many(&store, 2);
    let mut most = 0;
    for _ in 0..200 {
        store.flush().unwrap_err();
        most = most.max(disk.live_image().len());
    }
    assert!(most <= before + 1, "{most} files, {before} before: {:?}", disk.live_image().keys());
    // And the twin: it heals, with nothing lost and nothing left.
    disk.judge(|_| Verdict::Done);
    store.flush().unwrap();
    assert!(receipt.is_durable());
    store.close().unwrap();
    assert_eq!(count(&disk, "journal-") + count(&disk, "snapshot-"), disk.live_image().len() - 1);
    drop(store);
    assert_eq!(contents(&open_small(&disk)), records((1..=1).chain(600..900)));
}

/// Else a crash could leave one of each attempt: what is removed is gone for sure only once the directory was synced.
#[test]
fn while_the_directory_cannot_be_synced_no_attempt_begins_another_file() {
    let disk = empty();
    let store = open_small(&disk);
    grant(&store, 1);
    disk.judge(|call| if call == Call::SyncDir { Verdict::Fails(24) } else { Verdict::Done });
    let receipt = grant_many(&store, 2);
    // The first attempt begins one, which gets its name.
    store.flush().unwrap_err();
    let calls = disk.calls();
    for _ in 0..20 {
        store.flush().unwrap_err();
    }
    let begins = |calls: usize| disk.log()[calls..].contains(&Call::Create);
    assert!(!begins(calls), "{:?}", &disk.log()[calls..]);
    // And the twin: once it can, one is begun.
    disk.judge(|_| Verdict::Done);
    store.flush().unwrap();
    assert!(receipt.is_durable() && begins(calls));
}

/// What a failed attempt left may by then be another process's file of the same name. It goes once the directory is
/// confirmed to be ours: see the twin above.
#[test]
fn what_failed_saves_left_stays_while_the_directory_is_not_confirmed() {
    for ailing in [Call::SyncDir, Call::Write] {
        let disk = empty();
        let store = open_small(&disk);
        grant(&store, 1);
        let before: BTreeSet<_> = disk.live_image().into_keys().collect();
        // The failed attempt alone is not confirmed either, so that it cannot remove what it had begun.
        disk.judge(move |call| if [ailing, Call::Confirm].contains(&call) { Verdict::Fails(5) } else { Verdict::Done });
        let receipt = grant_many(&store, 2);
        assert!(receipt.wait_durable().is_err());
        let left: BTreeSet<_> = disk.live_image().into_keys().filter(|name| !before.contains(name)).collect();
        assert_eq!(left.len(), 1, "{left:?}");
        disk.judge(|call| if call == Call::Confirm { Verdict::Fails(5) } else { Verdict::Done });
        for _ in 0..3 {
            store.flush().unwrap_err();
            let there: BTreeSet<_> = disk.live_image().into_keys().collect();
            assert_eq!(there, before.union(&left).cloned().collect(), "nothing is removed, and nothing written");
        }
        disk.judge(|_| Verdict::Done);
        store.flush().unwrap();
        assert!(receipt.is_durable() && left.is_disjoint(&disk.live_image().into_keys().collect()));
        store.close().unwrap();
        drop(store);
        assert_eq!(contents(&open_small(&disk)), records((1..=1).chain(600..900)));
    }
}

/// A journal that is whole and was not confirmed is what the one before it is continued by, until there is another.
#[test]
fn saves_that_are_not_confirmed_leave_few_journals_and_a_crash_among_them_loses_nothing() {
    let disk = empty();
    let store = open_small(&disk);
    grant(&store, 1);
    let before = disk.live_image().len();
    disk.record();
    // The look before a save finds all well, and the look after it does not.
    let begun = AtomicBool::new(false);
    disk.judge(move |call| match call {
        Call::Rename => {
            begun.store(true, Ordering::SeqCst);
            Verdict::Done
        }
        Call::Confirm if begun.swap(false, Ordering::SeqCst) => Verdict::Fails(5),
        _ => Verdict::Done,
    });
    let receipt = grant_many(&store, 2);
    let mut most = 0;
    for _ in 0..20 {
        store.flush().unwrap_err();
        most = most.max(disk.live_image().len());
    }
    assert!(most <= before + 2, "{most} files, {before} before: {:?}", disk.live_image().keys());
    let allowed = [records(1..=1), records((1..=1).chain(600..900))];
    for crash in disk.take_trail().into_iter().take(60) {
        crash.images(20, 1, &mut |image| {
            let found = contents(&open_small(&SimDisk::from_image(image)));
            assert!(allowed.contains(&found), "{found:?}");
        });
    }
    // And the twin: it heals, with nothing lost and nothing left.
    disk.judge(|_| Verdict::Done);
    store.flush().unwrap();
    assert!(receipt.is_durable() && disk.live_image().len() <= before + 1, "{:?}", disk.live_image().keys());
    store.close().unwrap();
    drop(store);
    assert_eq!(contents(&open_small(&disk)), allowed[1]);
}

/// One that got its name before it failed is removed at once, and not when the store is opened next; one that was not
/// confirmed is removed when the directory is.
#[test]
fn snapshots_that_fail_leave_no_file() {
    snapshots_that_fail_leave_no_file_where(&[Call::SyncDir], 2);
    // And the one before, which is removed by the next save.
    snapshots_that_fail_leave_no_file_where(&[Call::Confirm], 3);
    snapshots_that_fail_leave_no_file_where(&[Call::SyncDir, Call::Confirm], 3);
}

fn snapshots_that_fail_leave_no_file_where(failing: &'static [Call], bound: usize) {
    let disk = empty();
    let (ails, removed) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (ailing, removing) = (Arc::clone(&ails), Arc::clone(&removed));
    disk.judge(move |call| {
        let is_ailing = std::thread::current().name() == Some("trustkeep-snapshot") && ailing.load(Ordering::SeqCst);
        removing.fetch_or(is_ailing && call == Call::Remove, Ordering::SeqCst);
        if is_ailing && failing.contains(&call) { Verdict::Fails(5) } else { Verdict::Done }
    });
    let store = open_small(&disk);
    let (mut number, mut most) = (0, 0);
    while store.health().failing_snapshots.is_none_or(|failing| failing.attempts < 3) {
        number += 1;
        grant(&store, number);
        most = most.max(count(&disk, "snapshot-"));
        assert!(number < 100_000, "no three snapshots failed");
    }
    // The first, and for a moment the one that is being written.
    assert!(most <= bound, "{most} snapshots");
    // It is for the thread that wrote it to remove it, unless the directory is not confirmed to be ours.
    assert_eq!(removed.load(Ordering::SeqCst), !failing.contains(&Call::Confirm), "{failing:?}");
    ails.store(false, Ordering::SeqCst);
    while store.health().failing_snapshots.is_some() {
        number += 1;
        grant(&store, number);
    }
    store.close().unwrap();
    assert_eq!(count(&disk, "snapshot-"), 2);
    drop(store);
    assert_eq!(contents(&open_small(&disk)), records(1..=number));
}

#[test]
fn where_there_is_no_room_ahead_a_change_that_fits_is_saved_all_the_same() {
    // Some file systems take the bytes, and find no place for them only when they are synced.
    for (errno, when) in [28, 122, 27].into_iter().flat_map(|errno| [Call::Write, Call::Sync].map(|when| (errno, when)))
    {
        let disk = SimDisk::new();
        let store = TrustStore::options().open_storage(Arc::new(Tight(disk.clone(), errno, when))).unwrap();
        for number in 1..=3 {
            let receipt = store.grant(record(number)).unwrap();
            receipt.wait_durable().unwrap();
        }
        // And the twin: what does not fit is refused.
        let (fits, receipt) =
            store.update(|batch| (4..5000).all(|number| batch.grant(record(number)).is_ok())).unwrap();
        assert!(fits);
        let error = receipt.wait_durable().unwrap_err();
        let is_so = matches!(&error, PersistError::Io { source, .. } if source.raw_os_error() == Some(errno));
        assert!(is_so, "{when:?}: {error}");
        drop(store);
        assert_eq!(contents(&open(&disk).unwrap()), records(1..=3));
    }
}

/// A disk on which no file may have more than 20 KiB: the error, and the call that tells it.
#[derive(Debug)]
struct Tight(SimDisk, i32, Call);

struct TightFile {
    file: Box<dyn StorageFile>,
    errno: i32,
    when: Call,
    is_too_long: bool,
}

impl TightFile {
    fn fail<T>(&self) -> std::io::Result<T> {
        Err(std::io::Error::from_raw_os_error(self.errno))
    }
}

impl Storage for Tight {
    fn list(&self) -> std::io::Result<Vec<FileEntry>> {
        self.0.list()
    }
    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
        self.0.read(name, look)
    }
    fn create(&self, name: &str) -> std::io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(TightFile { file: self.0.create(name)?, errno: self.1, when: self.2, is_too_long: false }))
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.0.sync_dir()
    }
    fn confirm(&self, left: &Left<'_>, seen: &mut Seen) -> Result<(), PersistError> {
        self.0.confirm(left, seen)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
}

impl StorageFile for TightFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<usize> {
        let room = (20_u64 << 10).saturating_sub(offset);
        let some = bytes.len().min(usize::try_from(room).unwrap());
        if self.when == Call::Sync {
            self.is_too_long |= some < bytes.len();
            return self.file.write_at(offset, bytes);
        }
        if some == 0 && !bytes.is_empty() {
            return self.fail();
        }
        self.file.write_at(offset, &bytes[..some])
    }
    fn sync(&mut self) -> std::io::Result<()> {
        if self.is_too_long { self.fail() } else { self.file.sync() }
    }
    fn sync_data(&mut self) -> std::io::Result<()> {
        if self.is_too_long { self.fail() } else { self.file.sync_data() }
    }
}

/// A durable snapshot holds what the journals held until then: their bytes are a reason for another one no longer.
#[test]
fn a_snapshot_is_due_for_as_many_bytes_of_journal_and_not_with_every_save() {
    let disk = empty();
    let begun = Arc::new(AtomicUsize::new(0));
    let beginning = Arc::clone(&begun);
    let store = Picky::open(&disk, move |call| {
        beginning.fetch_add(usize::from(call == Call::Create), Ordering::SeqCst);
        Ok(())
    });
    for number in 1..=100 {
        grant_many(&store, number).wait_durable().unwrap();
        while disk.live_image().keys().any(|name| name.starts_with("snapshot-") && name.contains(".tmp")) {
            std::thread::yield_now();
        }
    }
    store.close().unwrap();
    // Each is at least twice as long as the one before.
    let begun = begun.load(Ordering::SeqCst);
    assert!((2..=10).contains(&begun), "{begun} snapshots with 100 saves of the same size");
}

/// A process that was killed may have renamed a file and not synced the directory. What an opening finds is trusted, and
/// told as durable, once that was made good; a directory that cannot be synced is not opened.
#[test]
fn an_opening_syncs_the_directory_before_it_trusts_what_it_found() {
    let disk = empty();
    let store = open_small(&disk);
    grant(&store, 1);
    store.close().unwrap();
    drop(store);
    let is_sync = |call: &Call| *call == Call::SyncDir;
    let calls = disk.calls();
    disk.judge(|call| if call == Call::SyncDir { Verdict::Fails(5) } else { Verdict::Done });
    let refused = small().open_storage(Arc::new(disk.clone())).err().map(|error| error.to_string());
    assert!(refused.as_ref().is_some_and(|text| text.contains("fsync of the directory")), "{refused:?}");
    assert_eq!(disk.log()[calls..].iter().filter(|call| is_sync(call)).count(), 1);
    // And the twin.
    disk.judge(|_| Verdict::Done);
    let calls = disk.calls();
    assert_eq!(contents(&open_small(&disk)), records(1..=1));
    assert!(disk.log()[calls..].iter().any(is_sync));
}
