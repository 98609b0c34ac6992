//! Model A of the designs that this project replaces: one mutex over everything, and each change writes the whole file
//! while it holds that mutex: JSON, a temporary, fsync, rename. A reader takes the same mutex, and so waits for the disk
//! whenever somebody grants. When `grant` returns, the change is durable.
//!
//! Faithful in what costs time and in what is promised; kinder than the original in its hasher alone.
#![allow(clippy::disallowed_types, reason = "a model of what this project replaces")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use trustkeep::{NodeId, TrustRecord};

use super::old_json::{OldMap, OldRecord, filled, save};

/// The model.
#[derive(Debug)]
pub struct ModelA {
    map: Mutex<OldMap>,
    path: PathBuf,
}

impl ModelA {
    /// With the records of this size, saved in this directory.
    ///
    /// # Errors
    /// As of the files.
    pub fn filled(size: u32, dir: &Path) -> io::Result<Self> {
        let path = dir.join("model_a.json");
        let map = filled(size);
        save(&map, &path)?;
        Ok(Self { map: Mutex::new(map), path })
    }

    /// Grants and saves.
    ///
    /// # Errors
    /// As of the files.
    pub fn grant(&self, record: &TrustRecord) -> io::Result<()> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(record.node_id, OldRecord::of(record));
        save(&map, &self.path)
    }

    /// Whether the peer is trusted.
    #[must_use]
    pub fn is_trusted(&self, peer: NodeId) -> bool {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&peer)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test waits for threads that must not go on")]
mod tests {
    use super::*;
    use crate::workload::{id, record};

    #[test]
    fn a_save_keeps_readers_out_until_it_is_over() {
        let dir = crate::directory::temporary(None).unwrap();
        let model = ModelA::filled(10, dir.path()).unwrap();
        assert!(model.is_trusted(id(9)));
        let pipe = super::super::old_json::hanging_file(&model.path);
        std::thread::scope(|scope| {
            // A pipe cannot be synced: this save fails in the end.
            scope.spawn(|| assert!(model.grant(&record(10, crate::key(), 7)).is_err()));
            std::thread::sleep(core::time::Duration::from_millis(100));
            let reader = scope.spawn(|| model.is_trusted(id(9)));
            std::thread::sleep(core::time::Duration::from_millis(100));
            assert!(!reader.is_finished(), "the mutex was not held during the save");
            assert!(std::fs::read(pipe).unwrap().len() > 1000);
            assert!(reader.join().unwrap());
        });
    }

    #[test]
    fn a_grant_is_seen_and_in_the_file_when_it_returns() {
        let dir = crate::directory::temporary(None).unwrap();
        let model = ModelA::filled(10, dir.path()).unwrap();
        assert!(!model.is_trusted(id(10)));
        model.grant(&record(10, crate::key(), 7)).unwrap();
        assert!(model.is_trusted(id(10)) && model.is_trusted(id(9)));
        let read: Vec<OldRecord> = serde_json::from_slice(&std::fs::read(&model.path).unwrap()).unwrap();
        assert_eq!((read.len(), read.iter().filter(|record| record.network == 7).count()), (11, 1));
    }
}
