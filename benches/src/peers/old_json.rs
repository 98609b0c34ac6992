//! The JSON file of the designs that this project replaces: every trusted peer in one array, pretty, written whole.
//!
//! What must hold: a file is either the old one or the new one, as far as a rename gives that; the directory is not synced,
//! as those designs do not either.
#![allow(clippy::disallowed_methods, reason = "a model of what this project replaces")]

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use trustkeep::{NodeId, TrustRecord};

/// A record as such a program keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldRecord {
    node_id: u32,
    public_key: String,
    approved_at: String,
    mutual: bool,
    /// The field that changes when a record is granted again.
    pub network: u16,
}

impl OldRecord {
    /// The same as ours.
    #[must_use]
    pub fn of(record: &TrustRecord) -> Self {
        Self {
            node_id: record.node_id.get(),
            public_key: record.public_key.map(|key| key.to_base64()).unwrap_or_default(),
            approved_at: "2026-03-03T10:00:00.123Z".to_owned(),
            mutual: record.mutual,
            network: record.network,
        }
    }
}

/// What such a program holds in memory; with a faster hasher than it would have.
pub type OldMap = hashbrown::HashMap<NodeId, OldRecord, RandomState>;

/// The records of a size.
#[must_use]
pub fn filled(size: u32) -> OldMap {
    crate::workload::records(size, crate::key()).map(|record| (record.node_id, OldRecord::of(&record))).collect()
}

/// The bytes of the file.
///
/// # Errors
/// As of the codec.
pub fn encode(map: &OldMap) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(&map.values().collect::<Vec<_>>())
}

/// Writes the file: a temporary, fsync, rename.
///
/// # Errors
/// As of the files.
pub fn save(map: &OldMap, path: &Path) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&encode(map)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// Makes the next save to this path hang until somebody reads the pipe that is returned.
#[cfg(test)]
pub(super) fn hanging_file(path: &Path) -> std::path::PathBuf {
    let pipe = path.with_extension("tmp");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    pipe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_file_holds_every_record() {
        let dir = crate::directory::temporary(None).unwrap();
        let path = dir.path().join("trust.json");
        let map = filled(100);
        save(&map, &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let read: Vec<OldRecord> = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read.len(), 100);
        assert!(read.iter().all(|record| map.values().any(|held| held == record)));
        // What was measured of such programs: about 178 bytes for each record.
        assert!((170..200).contains(&(bytes.len() / 100)), "{}", bytes.len());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
