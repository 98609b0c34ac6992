//! Model B of the designs that this project replaces: a lock for many readers or one writer, a signal that something
//! changed, and a thread that saves. That thread holds the lock for reading while it encodes and until fsync and rename
//! returned. So a writer waits for the disk, and readers wait behind that writer. When `grant` returns, nothing is durable.
//!
//! Faithful in what costs time and in what is promised; kinder than the original in its hasher alone.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a model of what this project replaces")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use trustkeep::{NodeId, TrustRecord};

use super::old_json::{OldMap, OldRecord, filled, save};

/// The model.
#[derive(Debug)]
pub struct ModelB {
    state: Arc<State>,
    dirty: Option<SyncSender<()>>,
    saver: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug)]
struct State {
    map: RwLock<OldMap>,
    path: PathBuf,
    // ORDERING: SeqCst throughout; for the end of a measurement alone. No partner in docs/concurrency.md.
    granted: AtomicU64,
    saved: AtomicU64,
}

impl ModelB {
    /// With the records of this size, saved in this directory.
    ///
    /// # Errors
    /// As of the files.
    pub fn filled(size: u32, dir: &Path) -> io::Result<Self> {
        let (path, map) = (dir.join("model_b.json"), filled(size));
        save(&map, &path)?;
        let (granted, saved) = (AtomicU64::new(0), AtomicU64::new(0));
        let state = Arc::new(State { map: RwLock::new(map), path, granted, saved });
        // One signal is enough, however many changes there are.
        let (dirty, signals) = sync_channel(1);
        let saver = std::thread::spawn({
            let state = Arc::clone(&state);
            move || state.save_on(&signals)
        });
        Ok(Self { state, dirty: Some(dirty), saver: Some(saver) })
    }

    /// Grants; saved some time later.
    ///
    /// # Panics
    /// If saving failed: the figures would be of something else.
    pub fn grant(&self, record: &TrustRecord) {
        let mut map = self.state.map.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(record.node_id, OldRecord::of(record));
        self.state.granted.fetch_add(1, Ordering::SeqCst);
        drop(map);
        let signalled = self.dirty.as_ref().map(|dirty| dirty.try_send(()));
        let is_gone = matches!(signalled, Some(Err(TrySendError::Disconnected(()))));
        assert!(!is_gone, "the thread that saves failed");
    }

    /// Whether the peer is trusted.
    #[must_use]
    pub fn is_trusted(&self, peer: NodeId) -> bool {
        self.state.map.read().unwrap_or_else(PoisonError::into_inner).contains_key(&peer)
    }

    /// Whether everything granted so far was saved.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.state.saved.load(Ordering::SeqCst) == self.state.granted.load(Ordering::SeqCst)
    }

    /// Waits until everything granted so far is saved. The model itself has no such call; a measurement needs one.
    pub fn settle(&self) {
        while !self.is_saved() {
            std::thread::sleep(core::time::Duration::from_micros(100));
        }
    }
}

impl State {
    fn save_on(&self, signals: &Receiver<()>) -> io::Result<()> {
        while signals.recv().is_ok() {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            let granted = self.granted.load(Ordering::SeqCst);
            save(&map, &self.path)?;
            self.saved.store(granted, Ordering::SeqCst);
            drop(map);
        }
        Ok(())
    }
}

impl Drop for ModelB {
    fn drop(&mut self) {
        // The thread leaves when nobody can signal any more.
        self.dirty = None;
        if let Some(saver) = self.saver.take() {
            let _ = saver.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{id, record};

    #[test]
    fn a_grant_is_seen_at_once_and_in_the_file_some_time_later() {
        let dir = crate::directory::temporary(None).unwrap();
        let model = ModelB::filled(10, dir.path()).unwrap();
        assert!(!model.is_trusted(id(10)));
        for number in 10..20 {
            model.grant(&record(number, crate::key(), 7));
            assert!(model.is_trusted(id(number)));
        }
        model.settle();
        assert!(model.is_saved());
        let read: Vec<OldRecord> = serde_json::from_slice(&std::fs::read(&model.state.path).unwrap()).unwrap();
        assert_eq!((read.len(), read.iter().filter(|record| record.network == 7).count()), (20, 10));
    }

    #[test]
    fn a_save_keeps_writers_out_until_it_is_over_but_not_readers() {
        let dir = crate::directory::temporary(None).unwrap();
        let model = ModelB::filled(10, dir.path()).unwrap();
        let pipe = super::super::old_json::hanging_file(&model.state.path);
        model.grant(&record(10, crate::key(), 7));
        // Until the thread that saves has come that far.
        std::thread::sleep(core::time::Duration::from_millis(100));
        assert!(model.is_trusted(id(10)));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| model.grant(&record(11, crate::key(), 7)));
            std::thread::sleep(core::time::Duration::from_millis(100));
            assert!(!writer.is_finished(), "the lock was not held during the save");
            assert!(std::fs::read(pipe).unwrap().len() > 1000);
            // A pipe cannot be synced: the thread that saves fails in the end, which a grant may find out.
            let _ = writer.join();
        });
        assert!(model.is_trusted(id(11)));
    }
}
