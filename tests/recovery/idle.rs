//! Damage to the newest change that was acknowledged, before its owner has been idle for a moment and afterwards.
//!
//! What must hold: afterwards any damage to it is an error, never an older state; before, it looks like a write that a crash
//! tore. Damage where nothing stands loses nothing, at any time. Who is idle writes once, and then no more.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use trustkeep::testing::sim_disk::{Call, Image, SimDisk, Verdict};
use trustkeep::{FileEntry, FileId, Left, OpenError, Options, PersistError, Seen, Storage, StorageFile, TrustStore};

use super::{contents, grant, id, in_parallel, journal_name, open, records};

const LONG: Duration = Duration::from_secs(60);
/// Where a journal's watermark stands.
const WATERMARK: std::ops::Range<usize> = 576..640;

/// Where the groups of a journal begin and end.
fn groups(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut groups, mut at, mut begin) = (Vec::new(), 1024, 1024);
    while at + 9 < bytes.len() && bytes[at] != 0 {
        let kind = bytes[at + 8];
        at += 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if kind == 254 {
            groups.push((begin, at));
            begin = at;
        }
    }
    groups
}

/// Whether the newest journal tells that everything in it was acknowledged.
pub(super) fn is_settled(disk: &SimDisk) -> bool {
    let image = disk.live_image();
    let Some((_, bytes)) = image.iter().rfind(|(name, _)| name.ends_with(".tkj")) else { return false };
    let groups = groups(bytes);
    let named = u64::from_le_bytes(bytes[WATERMARK.start + 24..WATERMARK.start + 32].try_into().unwrap());
    groups.len() == 1 || groups.last().is_some_and(|(_, end)| *end as u64 == named)
}

fn await_settled(disk: &SimDisk) {
    let deadline = Instant::now() + LONG;
    while !is_settled(disk) {
        assert!(Instant::now() < deadline, "no watermark");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A running store that trusted peers 1 to 3 and has just revoked peer 2, on its disk.
fn running(options: Options, settles: bool) -> Image {
    let disk = SimDisk::new();
    let store = options.open_storage(Arc::new(disk.clone())).unwrap();
    (1..=3).for_each(|number| grant(&store, number));
    store.revoke(id(2)).unwrap().receipt.wait_durable().unwrap();
    if settles {
        await_settled(&disk);
    }
    let image = disk.live_image();
    assert_eq!(image[&journal_name(1)][WATERMARK].iter().any(|byte| *byte != 0), settles);
    image
}

fn small() -> Options {
    TrustStore::options().journal_sizes(2048, 1 << 20)
}

fn spoilt(image: &Image, spoil: impl Fn(&mut Vec<u8>)) -> SimDisk {
    let mut image = image.clone();
    spoil(image.get_mut(&journal_name(1)).unwrap());
    SimDisk::from_image(&image)
}

/// The bytes of the newest journal in which nothing stands.
fn free(image: &Image) -> Vec<usize> {
    let bytes = &image[&journal_name(1)];
    let (_, end) = *groups(bytes).last().unwrap();
    let free = (128..1024).chain(end..bytes.len()).filter(|at| bytes[*at] == 0);
    // What is zero in a mark belongs to it all the same.
    let is_of = |at: &usize, mark: std::ops::Range<usize>| bytes[mark.start] != 0 && mark.contains(at);
    free.filter(|at| !is_of(at, 512..576) && !is_of(at, WATERMARK)).collect()
}

#[test]
fn damage_to_the_newest_change_is_an_error_once_its_owner_has_been_idle() {
    let image = running(small().settle_after(Some(Duration::ZERO)), true);
    let (begin, end) = groups(&image[&journal_name(1)])[3];
    let bits: Vec<usize> = (begin * 8..end * 8).collect();
    in_parallel(&bits, 2, |bit| {
        let disk = spoilt(&image, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        match open(&disk) {
            Err(OpenError::Damaged { path, offset, reason }) => {
                assert!(path.ends_with(journal_name(1)) && offset <= *bit as u64 / 8, "bit {bit}: {offset}");
                assert!(reason.contains("was acknowledged"), "bit {bit}: {reason}");
            }
            other => panic!("bit {bit}: {other:?}"),
        }
    });
    // Nor may all of it go, or what stands there be something else.
    let bytes = &image[&journal_name(1)];
    for from in (begin..end).filter(|from| bytes[*from..end].iter().any(|byte| *byte != 0)) {
        assert!(open(&spoilt(&image, |bytes| bytes[from..].fill(0))).is_err(), "zeros from byte {from} on");
    }
    // And the twins: undamaged, and with the watermark itself damaged, nothing is missing.
    let whole = records([1, 3]);
    assert_eq!(contents(&open(&SimDisk::from_image(&image)).unwrap()), whole);
    for bit in WATERMARK.start * 8..WATERMARK.end * 8 {
        let store = open(&spoilt(&image, |bytes| bytes[bit / 8] ^= 1 << (bit % 8))).unwrap();
        assert_eq!((contents(&store), store.is_trusted(id(2))), (whole.clone(), false));
    }
}

/// The window that is left, as `docs/durability.md` names it.
#[test]
fn damage_to_the_newest_change_within_the_moment_looks_like_a_torn_write() {
    let image = running(small(), false);
    let (begin, end) = groups(&image[&journal_name(1)])[3];
    for at in begin..end {
        let store = open(&spoilt(&image, |bytes| bytes[at] ^= 0x40)).unwrap();
        assert_eq!((store.generation().get(), contents(&store)), (3, records(1..=3)), "byte {at}");
    }
}

#[test]
fn damage_where_nothing_stands_loses_nothing_and_refuses_nothing() {
    let closed = {
        let disk = SimDisk::new();
        let store = small().settle_after(Some(Duration::ZERO)).open_storage(Arc::new(disk.clone())).unwrap();
        (1..=3).for_each(|number| grant(&store, number));
        store.revoke(id(2)).unwrap().receipt.wait_durable().unwrap();
        await_settled(&disk);
        store.close().unwrap();
        disk.live_image()
    };
    let idle = running(small().settle_after(Some(Duration::ZERO)), true);
    let running = running(small(), false);
    for (what, image) in [("closed", &closed), ("idle", &idle), ("running", &running)] {
        let free = free(image);
        assert!(free.len() > 2500 && free.len() < image[&journal_name(1)].len() - 300, "{what}: {}", free.len());
        in_parallel(&free, 2, |at| {
            for bits in [1, 0x80, 0xff] {
                let store = open(&spoilt(image, |bytes| bytes[*at] ^= bits)).unwrap();
                assert_eq!((store.generation().get(), contents(&store)), (4, records([1, 3])), "{what}, byte {at}");
            }
        });
    }
}

#[test]
fn changes_that_follow_each_other_closely_do_not_put_a_watermark_off() {
    let disk = SimDisk::new();
    let options = TrustStore::options().settle_after(Some(Duration::from_millis(200)));
    let store = options.open_storage(Arc::new(disk.clone())).unwrap();
    // Never as long apart as that; a journal begins anew after some hundred of them.
    let begun = Instant::now();
    let settled = (1..3000).any(|number| {
        grant(&store, number);
        std::thread::sleep(Duration::from_millis(1));
        let image = disk.live_image();
        let mut journals = image.iter().filter(|(name, _)| name.ends_with(".tkj"));
        journals.any(|(_, bytes)| bytes[WATERMARK].iter().any(|byte| *byte != 0))
    });
    assert!(settled, "no watermark in {:?}", begun.elapsed());
    store.close().unwrap();
}

/// A directory that is not as it was left may be another owner's by now, and nothing is written to it.
#[test]
fn a_journal_gets_no_watermark_while_the_directory_is_not_confirmed() {
    let disk = SimDisk::new();
    let store = small().settle_after(Some(Duration::ZERO)).open_storage(Arc::new(disk.clone())).unwrap();
    grant(&store, 1);
    // The look before the acknowledgement finds all well, and those after it do not.
    let looks = Arc::new(AtomicUsize::new(0));
    let looking = Arc::clone(&looks);
    disk.judge(move |call| match call {
        Call::Confirm if looking.fetch_add(1, Ordering::SeqCst) > 0 => Verdict::Fails(5),
        _ => Verdict::Done,
    });
    grant(&store, 2);
    let has_watermark = || disk.live_image()[&journal_name(1)][WATERMARK].iter().any(|byte| *byte != 0);
    let deadline = Instant::now() + LONG;
    while looks.load(Ordering::SeqCst) < 2 && !has_watermark() {
        assert!(Instant::now() < deadline, "it is not settled");
        std::thread::sleep(Duration::from_millis(2));
    }
    while store.health().saving.is_some() {
        std::thread::yield_now();
    }
    assert!(!has_watermark(), "{:?}", disk.log());
    // And the twin: it gets one once all is as it was.
    disk.judge(|_| Verdict::Done);
    grant(&store, 3);
    await_settled(&disk);
    assert!(has_watermark());
}

#[test]
fn an_idle_owner_writes_one_watermark_and_then_no_more() {
    // As every store is opened that nobody says anything else of.
    let disk = SimDisk::new();
    let store = TrustStore::options().open_storage(Arc::new(disk.clone())).unwrap();
    (1..=3).for_each(|number| grant(&store, number));
    await_settled(&disk);
    while store.health().saving.is_some() {
        std::thread::yield_now();
    }
    let calls = disk.calls();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(disk.calls(), calls, "{:?}", &disk.log()[calls..]);
    // The next moment of idleness has one of its own.
    grant(&store, 4);
    await_settled(&disk);
    // What was found settled is written again by no opening.
    let disk = SimDisk::from_image(&disk.live_image());
    let calls = disk.calls();
    assert_eq!(contents(&open(&disk).unwrap()), records(1..=4));
    assert!(disk.live_image().keys().all(|name| *name != journal_name(2)), "{:?}", &disk.log()[calls..]);
}

/// A disk on which watermarks fail: to be written, or to be synced.
#[derive(Debug)]
struct Picky {
    disk: SimDisk,
    /// How many failed.
    failed: Arc<AtomicUsize>,
    in_sync: bool,
}

struct PickyFile {
    file: Box<dyn StorageFile>,
    failed: Arc<AtomicUsize>,
    in_sync: bool,
    fails_next: bool,
}

impl PickyFile {
    fn fail<T>(&self) -> std::io::Result<T> {
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(std::io::Error::from_raw_os_error(5))
    }
}

impl StorageFile for PickyFile {
    fn id(&self) -> Option<FileId> {
        self.file.id()
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<usize> {
        if offset == WATERMARK.start as u64 {
            if !self.in_sync {
                return self.fail();
            }
            self.fails_next = true;
        }
        self.file.write_at(offset, bytes)
    }
    fn sync(&mut self) -> std::io::Result<()> {
        self.file.sync()
    }
    fn sync_data(&mut self) -> std::io::Result<()> {
        if std::mem::take(&mut self.fails_next) { self.fail() } else { self.file.sync_data() }
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
        let (failed, in_sync) = (Arc::clone(&self.failed), self.in_sync);
        Ok(Box::new(PickyFile { file: self.disk.create(name)?, failed, in_sync, fails_next: false }))
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
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

#[test]
fn a_watermark_that_fails_loses_nothing_and_ends_its_journal() {
    for in_sync in [false, true] {
        let (disk, failed) = (SimDisk::new(), Arc::new(AtomicUsize::new(0)));
        let picky = Picky { disk: disk.clone(), failed: Arc::clone(&failed), in_sync };
        let store = small().settle_after(Some(Duration::ZERO)).open_storage(Arc::new(picky)).unwrap();
        grant(&store, 1);
        grant(&store, 2);
        let deadline = Instant::now() + LONG;
        while failed.load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < deadline, "no watermark was tried");
            std::thread::sleep(Duration::from_millis(2));
        }
        while store.health().saving.is_some() {
            std::thread::yield_now();
        }
        assert!(store.health().is_ok(), "nobody waits for it");
        let (calls, files) = (disk.calls(), disk.live_image().len());
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(disk.calls(), calls, "nor is it tried again before the next change");
        // The system may have dropped what it did not write, and would not say so a second time.
        grant(&store, 3);
        assert_eq!(disk.live_image().len(), files + 1, "{:?}", disk.live_image().keys());
        assert_eq!(contents(&open(&SimDisk::from_image(&disk.live_image())).unwrap()), records(1..=3));
        store.close().unwrap();
        drop(store);
        assert_eq!(contents(&open(&disk).unwrap()), records(1..=3));
    }
}
