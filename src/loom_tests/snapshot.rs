//! The hand-over to the thread that writes a snapshot: the journal goes on beside it, it answers in any case, and a close
//! that waits for it ends (C-7). With the real log and the real thread, on files in memory.
//!
//! A panic would end the model; what it does is drop the answer that is owed, and so does the thread here. One that keeps
//! it is the mistake that the checker must find, or its other verdicts would mean nothing.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{outcomes, peer, record, verdict, wrong};
use crate::error::PersistError;
use crate::machine::view::TableChange;
use crate::persist::background::{Answer, Outcome, Running};
use crate::persist::format::StoreId;
use crate::persist::load::{Loaded, Opening, load};
use crate::persist::log::Sizes;
use crate::persist::recover::{RecoverPolicy, snapshot_name};
use crate::persist::{FileEntry, Storage, StorageFile};
use crate::sync::{AtomicU64, Ordering, thread_token};
use crate::tables::Tables;
use crate::time::Now;

/// Files in memory, which note who touches them. What lies in them is invisible to the checker; each call is a moment at
/// which it may change over to the other thread.
#[derive(Clone, Debug)]
struct Files {
    bytes: Arc<Mutex<BTreeMap<String, Arc<Mutex<Vec<u8>>>>>>,
    touched: Arc<Mutex<Vec<(u64, String)>>>,
    moment: Arc<AtomicU64>,
    /// No snapshot but the first can be created.
    fails: bool,
}

impl Files {
    fn new(fails: bool) -> Self {
        let (bytes, touched, moment) = (Arc::default(), Arc::default(), Arc::new(AtomicU64::new(0)));
        Self { bytes, touched, moment, fails }
    }

    fn touch(&self, name: &str) {
        // ORDERING: Relaxed; only a moment to change threads at, which orders nothing. Loads alone would be none: the
        // checker knows that their order does not matter.
        self.moment.store(0, Ordering::Relaxed);
        self.touched.lock().unwrap().push((thread_token(), name.split(".tmp").next().unwrap().to_owned()));
    }

    /// Names of files touched since that many calls, by this thread or by others.
    fn touched_since(&self, calls: usize, by_me: bool) -> BTreeSet<String> {
        let me = thread_token();
        let touched = self.touched.lock().unwrap();
        touched[calls..].iter().filter(|(who, _)| (*who == me) == by_me).map(|(_, name)| name.clone()).collect()
    }
}

impl Storage for Files {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let bytes = self.bytes.lock().unwrap();
        Ok(bytes
            .iter()
            .map(|(name, of)| FileEntry { name: name.clone(), bytes: of.lock().unwrap().len() as u64 })
            .collect())
    }

    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        look(&self.bytes.lock().unwrap()[name].lock().unwrap());
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.touch(name);
        if self.fails && name.starts_with("snapshot-") && !name.starts_with(&snapshot_name(0)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        self.bytes.lock().unwrap().insert(name.to_owned(), Arc::clone(&bytes));
        let name = name.split(".tmp").next().unwrap().to_owned();
        Ok(Box::new(File { files: self.clone(), name, bytes }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.touch(to);
        let mut files = self.bytes.lock().unwrap();
        assert!(!files.contains_key(to), "a name that is taken");
        let file = files.remove(from).unwrap();
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.touch(name);
        self.bytes.lock().unwrap().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

struct File {
    files: Files,
    name: String,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl StorageFile for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.bytes.lock().unwrap();
        let (at, end) = (offset as usize, offset as usize + bytes.len());
        if file.len() < end {
            file.resize(end, 0);
        }
        file[at..end].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.files.touch(&self.name);
        Ok(())
    }
}

fn open(files: &Files) -> Loaded {
    let sizes = Sizes { ahead_bytes_min: 0, ahead_bytes_max: 0, journal_bytes_min: 1, settle_after: None };
    let opening = Opening { create: true, policy: RecoverPolicy::Fail, sizes };
    let fresh = || Ok(StoreId { id: [1; 16], seed: 1 });
    load(Arc::new(files.clone()), opening, Now::default(), fresh).unwrap()
}

fn with(tables: &Tables, peers: std::ops::RangeInclusive<u32>) -> Tables {
    let changes: Vec<_> = peers.map(|id| TableChange::Trusted(peer(id), Some(record(id)))).collect();
    tables.apply(&changes).0
}

/// Saves until a snapshot is handed over, goes on saving beside it, and closes. Whether the outcome was there before.
fn life(fails: bool) -> bool {
    let files = Files::new(fails);
    let Loaded { tables, saver: mut log, .. } = open(&files);
    let first = with(&tables, 1..=20);
    let (second, third) = (with(&first, 21..=21), with(&first, 21..=22));
    log.save(1, &first).unwrap();
    log.save(2, &second).unwrap();
    // Handed over; the other thread may have begun.
    let handed_over = files.touched.lock().unwrap().len();
    log.save(3, &third).unwrap();
    let noted = !log.snapshots().running;
    log.close().unwrap();
    let state = log.snapshots();
    assert!(!state.running && state.failed.is_some() == fails);
    // What the keeper touched since is none of what the thread ever touched.
    let (mine, others) = (files.touched_since(handed_over, true), files.touched_since(0, false));
    assert!(!mine.is_empty() && !others.is_empty() && mine.is_disjoint(&others), "{mine:?} {others:?}");
    assert_eq!(files.bytes.lock().unwrap().contains_key(&snapshot_name(1)), !fails);
    drop(log);
    let Loaded { generation, tables, .. } = open(&files);
    assert_eq!((generation, tables.trusted.len()), (3, 22));
    noted
}

#[test]
fn the_journal_goes_on_beside_a_snapshot_and_close_waits_for_it() {
    let seen = outcomes(|| life(false));
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_snapshot_that_fails_is_answered_as_well() {
    let seen = outcomes(|| life(true));
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [false, true]);
}

/// A thread that ends in this way is looked at, then waited for.
fn answered(ends: fn(Answer)) {
    let seen = outcomes(move || {
        let mut running = Running::start(1, vec!["old".to_owned()], PathBuf::new(), ends);
        let at_once = running.look();
        let noted = at_once.is_some();
        let Outcome { written, kept, .. } = at_once.or_else(|| running.wait()).unwrap();
        assert!(matches!(written, Err(PersistError::SnapshotPanicked)) && kept == ["old"]);
        noted
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_thread_that_panics_is_answered_for() {
    answered(drop);
}

/// As in `order`: in a process of its own, which a deadlock ends.
#[test]
fn wrong_answer_in_a_process_of_its_own() {
    if wrong().as_deref() == Some("no answer") {
        answered(|answer| {
            let _kept = ManuallyDrop::new(answer);
        });
    }
}

#[test]
fn a_thread_that_ends_without_an_answer_is_found() {
    let test = "loom_tests::snapshot::wrong_answer_in_a_process_of_its_own";
    assert!(verdict(test, "no answer").unwrap().contains("deadlock"));
    assert_eq!(verdict(test, "none"), None);
}
