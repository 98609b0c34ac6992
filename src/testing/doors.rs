//! Narrow doors to internals, for fuzz targets and benches that live outside this crate.
//!
//! What must hold: nothing here does anything that the crate itself does not; each door only makes it reachable.
#![forbid(unsafe_code)]

use crate::map::mix::Mix;
use crate::map::{TrustMap, Usage};
use crate::peer::{NodeId, TrustRecord};
use crate::persist::format::{self, FileError, How, StoreId};
use crate::persist::recover;
use crate::store::TrustStore;
use crate::time::{Now, Tick, WallMillis};

/// Runs bytes through the snapshot decoder; the number of trusted records, or what is wrong.
///
/// # Errors
/// The decoder's, as text; in place of the byte offset of damage, `None` for a newer release's file.
pub fn decode_snapshot(bytes: &[u8]) -> Result<usize, (Option<u64>, String)> {
    format::decode_snapshot(bytes, NOW).map(|snapshot| snapshot.tables.trusted.len()).map_err(plain)
}

/// How a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalEnd {
    /// The generation that its newest whole group leads to.
    pub generation: u64,
    /// Where that group ends.
    pub bytes: u64,
    /// Whether it has a closing mark.
    pub closed: bool,
    /// Whether half a group follows.
    pub torn: bool,
}

/// Runs bytes through the journal decoder, every group of it; `counted` limits how many bytes count.
///
/// # Errors
/// As [`decode_snapshot`].
pub fn decode_journal(bytes: &[u8], counted: Option<u64>) -> Result<JournalEnd, (Option<u64>, String)> {
    let (ending, _) = format::check_journal(bytes, counted, NOW).map_err(plain)?;
    let (generation, bytes) = (ending.generation, ending.bytes);
    let closed = matches!(ending.how, How::Closed | How::Continued);
    Ok(JournalEnd { generation, bytes, closed, torn: matches!(ending.how, How::Torn(_)) })
}

/// What importing a document into an empty store and exporting that comes to, and how many entries were skipped; in the
/// middle of it the invariants of the tables are checked.
///
/// # Errors
/// Why it is no document.
#[cfg(feature = "cli")]
pub fn import_and_export(document: &[u8]) -> Result<(Vec<u8>, u64), String> {
    use crate::cli::trust_json::{self, Into};
    use crate::config::Limits;
    use crate::machine::check::check;
    use crate::machine::outcome::Rules;
    use crate::tables::Tables;

    let (before, own_id) = (Tables::new(Mix::new(1)), NodeId::new(u32::MAX).ok_or("no id")?);
    let limits = Limits::default();
    let mut nonce = || crate::peer::Nonce([7; 16]);
    let into =
        Into { before: &before, now: NOW, own_id: Some(own_id), own_key: None, limits, lifts: &[], nonce: &mut nonce };
    let (taken, said) = trust_json::read(document, into).map_err(|error| error.to_string())?;
    let rules = Rules { own_id, config: Default::default(), policy: Default::default(), limits };
    if let Err(broken) = check(&rules, &taken.after) {
        #[expect(clippy::panic, reason = "a finding of a fuzz target")]
        {
            panic!("{broken}");
        }
    }
    let generation = said.max(u64::from(trust_json::entries(&taken.after) > 0));
    let mut out = Vec::new();
    trust_json::write(&mut out, generation, &taken.after, trust_json::Nonces::Written, &mut || ())
        .map_err(|error| error.to_string())?;
    Ok((out, taken.counts.iter().map(|count| count.skipped).sum()))
}

const NOW: Now = Now { wall: WallMillis::new(1_800_000_000_000), tick: Tick::new(0) };

fn plain(error: FileError) -> (Option<u64>, String) {
    match error {
        FileError::Damaged(damage) => (Some(damage.offset), damage.reason),
        FileError::Newer(version) => (None, format!("version {version}")),
    }
}

/// Encodes all tables as a snapshot, piece by piece into `sink`; the number of bytes. `None` from inside a closure of the store.
pub fn encode_snapshot(store: &TrustStore, mut sink: impl FnMut(&[u8])) -> Option<u64> {
    let (tables, id) = (store.tables()?, StoreId { id: [0; 16], seed: 0 });
    let encoded = format::encode_snapshot(id, store.generation().get(), &tables, &mut |_, bytes| {
        sink(bytes);
        Ok::<(), core::convert::Infallible>(())
    });
    let Ok(bytes) = encoded;
    Some(bytes)
}

/// Makes the checksums of a file that was tampered with right again, as far as its blocks can be followed: what is left
/// to notice then is the decoder's own work.
pub fn fix_checksums(file: &mut [u8]) {
    format::tamper::fix_checksums(file);
}

/// Raises what is remembered of a peer's stamps to this one, as a message from a known peer does.
///
/// # Errors
/// The store is closed, full, or was asked from inside its own closure.
pub fn raise_floor(store: &TrustStore, peer: NodeId, stamp: i64) -> Result<crate::Receipt, crate::WriteError<()>> {
    use crate::store::{TransactError, Transaction};
    use crate::tables::table::Table as _;
    use crate::tables::{Floor, TableChange};
    let raise = |tables: &crate::tables::Tables| {
        let before = tables.sides.floors.get(peer).copied().unwrap_or(Floor::EMPTY);
        let changes = vec![TableChange::Floor(peer, Some(Floor { seen: WallMillis::new(stamp), ..before }))];
        Ok::<_, core::convert::Infallible>(Transaction { changes, events: Vec::new(), value: () })
    };
    store.transact(raise).map(|((), receipt)| receipt).map_err(|error| match error {
        TransactError::Refused(never) => match never {},
        TransactError::Write(error) => error,
    })
}

/// The name of the snapshot of this generation.
#[must_use]
pub fn snapshot_name(generation: u64) -> String {
    recover::snapshot_name(generation)
}

/// The name of the journal with this number.
#[must_use]
pub fn journal_name(seq: u64) -> String {
    recover::journal_name(seq)
}

/// One version of the internal map.
#[derive(Clone, Debug)]
pub struct Map(TrustMap);

/// What a [`Map`] and the versions related to it use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUsage {
    /// From the allocator.
    pub bytes: usize,
    /// Versions that somebody holds, or that were not looked at since.
    pub versions: usize,
    /// Nodes of these.
    pub nodes: usize,
    /// Of these, nodes that wait for a version to go.
    pub retired: usize,
}

impl Map {
    /// An empty map.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(TrustMap::new(Mix::new(seed)))
    }

    /// The map of these records, in any order, without repeats.
    #[must_use]
    pub fn bulk(seed: u64, mut records: Vec<TrustRecord>) -> Self {
        let mix = Mix::new(seed);
        records.sort_unstable_by_key(|record| mix.mix(record.node_id.get()));
        Self(TrustMap::from_sorted(mix, records.into_iter()))
    }

    /// The peer whose record a map of this seed has at this place; none at the place of id 0.
    #[must_use]
    pub fn peer_at(seed: u64, place: u32) -> Option<NodeId> {
        NodeId::new(Mix::new(seed).unmix(place))
    }

    /// The place at which a map of this seed has the peer's record.
    #[must_use]
    pub fn place_of(seed: u64, peer: NodeId) -> u32 {
        Mix::new(seed).mix(peer.get())
    }

    /// Takes memory from the system, if the next changes may need some.
    pub fn make_ready(&self) {
        self.0.make_ready();
    }

    /// Gives back what no version holds any more.
    pub fn sweep(&self) {
        self.0.sweep();
    }

    /// The next version, with the same records closer together, if there is anything to gain by that; so many nodes at a
    /// time.
    #[must_use]
    pub fn gathered(&self, at_once: usize) -> Self {
        let mut map = self.0.clone();
        if let Some(places) = map.begin_move(0) {
            for some in places.chunks(at_once.max(1)) {
                if let Some(next) = map.moved(some) {
                    map = next;
                }
            }
            map.end_move();
        }
        Self(map)
    }

    /// Gives memory back that was not needed since the last time; true if there may be more.
    pub fn trim(&self) -> bool {
        self.0.trim()
    }

    /// What its memory is used for.
    #[must_use]
    pub fn usage(&self) -> MapUsage {
        let Usage { bytes, versions, nodes, retired, .. } = self.0.usage();
        MapUsage { bytes, versions, nodes, retired }
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
        self.0.get(peer)
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

    /// The next version, in which one peer has this record, and whether it had one; none if it has just this one.
    #[must_use]
    pub fn with(&self, record: &TrustRecord) -> Option<(Self, bool)> {
        self.0.with(record).map(|(next, was_there)| (Self(next), was_there))
    }

    /// All records in the map's own order.
    pub fn iter(&self) -> impl Iterator<Item = TrustRecord> {
        self.0.iter()
    }

    /// The records that differ, as (old, new).
    #[must_use]
    pub fn diff(&self, older: &Self) -> Vec<(Option<TrustRecord>, Option<TrustRecord>)> {
        let mut found = Vec::new();
        self.0.diff(&older.0, &mut |old, new| found.push((old, new)));
        found
    }
}

/// Compacts what is in this storage, of which the caller is the only owner; the generation of its state.
///
/// # Errors
/// As opening the store.
#[cfg(feature = "cli")]
pub fn compact(storage: std::sync::Arc<dyn crate::persist::Storage>) -> Result<u64, crate::OpenError> {
    use crate::persist::compact::compact;
    compact(storage, NOW, crate::store::fresh_identity).map(|compacted| compacted.generation)
}

/// The directory of a store as a storage, made if it is missing, locked as long as this lives.
///
/// # Errors
/// As opening the store.
pub fn own_directory(path: &std::path::Path) -> Result<std::sync::Arc<dyn crate::persist::Storage>, crate::OpenError> {
    use crate::persist::file::{Directory, LoadMode};
    Ok(std::sync::Arc::new(Directory::own(path, true, LoadMode::Map)?))
}
