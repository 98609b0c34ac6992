//! Narrow doors to internals, for fuzz targets and benches that live outside this crate.
//!
//! What must hold: nothing here does anything that the crate itself does not; each door only makes it reachable.
#![forbid(unsafe_code)]

use crate::map::TrustMap;
use crate::map::mix::Mix;
use crate::peer::{NodeId, TrustRecord};
use crate::persist::format::{self, FileError};
use crate::persist::recover;
use crate::time::{Now, Tick, WallMillis};

/// Runs bytes through the snapshot decoder; the number of trusted records, or what is wrong.
///
/// # Errors
/// The decoder's, as text; in place of the byte offset of damage, `None` for a newer release's file.
pub fn decode_snapshot(bytes: &[u8]) -> Result<usize, (Option<u64>, String)> {
    let now = Now { wall: WallMillis::new(1_800_000_000_000), tick: Tick::new(0) };
    match format::decode_snapshot(bytes, now) {
        Ok(snapshot) => Ok(snapshot.tables.trusted.len()),
        Err(FileError::Damaged(damage)) => Err((Some(damage.offset), damage.reason)),
        Err(FileError::Newer(version)) => Err((None, format!("version {version}"))),
    }
}

/// Makes the checksums of a file that was tampered with right again, as far as its blocks can be followed: what is left
/// to notice then is the decoder's own work.
pub fn fix_checksums(file: &mut [u8]) {
    format::tamper::fix_checksums(file);
}

/// The name of the snapshot of this generation.
#[must_use]
pub fn snapshot_name(generation: u64) -> String {
    recover::snapshot_name(generation)
}

/// One version of the internal map.
#[derive(Clone, Debug)]
pub struct Map(TrustMap);

impl Map {
    /// An empty map.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(TrustMap::new(Mix::new(seed)))
    }

    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The peer's record.
    #[must_use]
    pub fn get(&self, peer: NodeId) -> Option<TrustRecord> {
        self.0.get(peer).copied()
    }

    /// Whether there is one.
    #[must_use]
    pub fn contains(&self, peer: NodeId) -> bool {
        self.0.contains(peer)
    }

    /// The next version; a peer occurs at most once.
    #[must_use]
    pub fn apply(&self, changes: impl IntoIterator<Item = (NodeId, Option<TrustRecord>)>) -> Self {
        Self(self.0.apply(changes))
    }

    /// All records in the map's own order.
    pub fn iter(&self) -> impl Iterator<Item = TrustRecord> {
        self.0.iter().copied()
    }

    /// The records that differ, as (old, new).
    #[must_use]
    pub fn diff(&self, older: &Self) -> Vec<(Option<TrustRecord>, Option<TrustRecord>)> {
        let mut found = Vec::new();
        self.0.diff(&older.0, &mut |old, new| found.push((old.copied(), new.copied())));
        found
    }
}
