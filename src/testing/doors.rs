//! Narrow doors to internals, for fuzz targets and benches that live outside this crate.
//!
//! What must hold: nothing here does anything that the crate itself does not; each door only makes it reachable.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::map::mix::Mix;
use crate::map::{TrustMap, Usage};
use crate::peer::PublicKey;
use crate::peer::{NodeId, TrustRecord};
use crate::persist::format::{self, FileError, How, StoreId};
use crate::persist::recover;
use crate::store::{Receipt, TransactError, Transaction, TrustStore};
use crate::tables::table::Table as _;
use crate::tables::{
    Floor, Nonce, OtherKey, Outgoing, Owed, Pending, PendingKind, Refusal, RefusedRequest, Revocation, RevocationId,
    Source, TableChange, side_tables,
};
use crate::time::{Now, Tick, WallMillis};
use crate::wire::message::Kind;

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
    let mut nonce = || Nonce([7; 16]);
    let into = Into { before: &before, now: NOW, own_id: Some(own_id), limits, nonce: &mut nonce };
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
    trust_json::write(&mut out, generation, &taken.after, &mut || ()).map_err(|error| error.to_string())?;
    Ok((out, taken.counts.iter().map(|count| count.skipped).sum()))
}

const NOW: Now = Now { wall: WallMillis::new(1_800_000_000_000), tick: Tick::new(0) };

fn plain(error: FileError) -> (Option<u64>, String) {
    match error {
        FileError::Damaged(damage) => (Some(damage.offset), damage.reason),
        FileError::Newer(version) => (None, format!("version {version}")),
    }
}

/// Puts one entry into every table, all derived from `number`, and takes those of `number - 1` away again.
pub fn set_every_table(store: &TrustStore, number: u8) -> Option<Receipt> {
    let mut changes = entries(number)?;
    if let Some(gone) = number.checked_sub(1).and_then(entries) {
        changes.extend(gone.into_iter().map(removed));
    }
    let changed: Result<_, TransactError<()>> =
        store.transact(|_| Ok(Transaction { changes, events: Vec::new(), value: () }));
    changed.ok().map(|((), receipt)| receipt)
}

/// One entry of every table, with every field set.
fn entries(number: u8) -> Option<Vec<TableChange>> {
    let peer = |table: u32| NodeId::new(table * 1000 + u32::from(number));
    let key = |seed: u8| {
        let signing = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        PublicKey::from_bytes(signing.verifying_key().to_bytes()).ok()
    };
    let (other, key, at) = (key(number ^ 0x80)?, key(number)?, WallMillis::new(1_700_000_000_000 + i64::from(number)));
    let (nonce, id) = (Nonce([number; 16]), RevocationId::new(u64::from(number)));
    let (source, wide) = (Source::from_address([10, 0, 0, number].into()), Source::Relay(peer(2)?));
    let pending = Pending {
        key,
        nonce: Some(nonce),
        stamp: at,
        justification: format!("request {number}"),
        received_at: at,
        received_tick: Tick::new(0),
        source,
        authentic: true,
        conflicts: u32::from(number),
        kind: PendingKind::Request,
        others: vec![OtherKey { key: other, nonce: Some(nonce), stamp: at, source: wide, first_seen: at }],
        proven_by: Some(other),
    };
    let reason = format!("no {number}");
    let outgoing = Outgoing {
        sent_at: at,
        sent_tick: Tick::new(0),
        nonce,
        expected_key: Some(key),
        justification: format!("answer {number}"),
        lift: Some(id),
        relayed: number.is_multiple_of(2),
        refused: Some(Refusal { at, tick: Tick::new(0), reason: reason.clone(), key: other, authentic: true }),
    };
    let floor = Floor { key: Some(key), seen: at, before: at, sent: at, reserved: at, spoke_v2: true };
    let owed = Owed { kind: Kind::Reject, nonce, answers: Some(nonce), reason, since: at };
    let record = TrustRecord::new(peer(1)?, key).approved_at(at).mutual(true).network(u16::from(number));
    Some(vec![
        TableChange::Trusted(peer(1)?, Some(record)),
        TableChange::Pending(peer(2)?, Some(Arc::new(pending))),
        TableChange::Outgoing(peer(3)?, Some(Arc::new(outgoing))),
        TableChange::Revoked(peer(4)?, Some(Revocation::new(at, id))),
        TableChange::Floor(peer(5)?, Some(floor)),
        TableChange::RevokedKey(key, Some(Revocation::new(at, id))),
        TableChange::Ignored(peer(7)?, Some(at)),
        TableChange::IgnoredKey(other, Some(at)),
        TableChange::Refused(peer(9)?, Some(RefusedRequest { key, stamp: at, at })),
        TableChange::Owed(peer(10)?, Some(Arc::new(owed))),
        TableChange::Successor(key, Some(other)),
        TableChange::Revision(peer(12)?, Some(u64::from(number))),
    ])
}

/// The removal of what this change sets.
fn removed(change: TableChange) -> TableChange {
    macro_rules! removed {
        ($($(#[$doc:meta])* $number:literal $field:ident $variant:ident $key:ty, $entry:ty => $table:ty;)*) => {
            match change {
                TableChange::Trusted(key, _) => TableChange::Trusted(key, None),
                $(TableChange::$variant(key, _) => TableChange::$variant(key, None),)*
            }
        };
    }
    side_tables!(removed)
}

/// Every entry of every table in a line or two each, in the order of tables and keys. What format version 1 does not hold
/// stands on lines of its own, and only where it is other than a file of version 1 leaves it.
#[must_use]
pub fn describe_tables(store: &TrustStore) -> Vec<String> {
    let Some(tables) = store.tables() else { return Vec::new() };
    let mut lines = Vec::new();
    let key = |key: Option<PublicKey>| key.map_or_else(|| "-".to_owned(), |key| key.fingerprint().to_string());
    let sides = &tables.sides;
    for it in tables.trusted.iter() {
        let (at, mutual, network) = (it.approved_at.as_millis(), it.mutual, it.network);
        lines.push((1, it.node_id.to_string(), format!("{} {at} {mutual} {network}", key(it.public_key))));
    }
    for (id, it) in sides.pending.iter() {
        let (of, nonce, source) = (key(Some(it.key)), it.nonce.map(|nonce| nonce.0), it.source);
        let times = (it.stamp.as_millis(), it.received_at.as_millis());
        let rest = (it.authentic, it.conflicts, it.kind, &it.justification);
        lines.push((2, id.to_string(), format!("{of} {nonce:?} {times:?} {source:?} {rest:?}")));
        for other in &it.others {
            let (of, nonce, source) = (key(Some(other.key)), other.nonce.map(|nonce| nonce.0), other.source);
            let times = (other.stamp.as_millis(), other.first_seen.as_millis());
            lines.push((2, id.to_string(), format!("also {of} {nonce:?} {times:?} {source:?}")));
        }
        if it.proven_by.is_some() {
            lines.push((2, id.to_string(), format!("proven by {}", key(it.proven_by))));
        }
    }
    for (id, it) in sides.outgoing.iter() {
        let (at, nonce, of) = (it.sent_at.as_millis(), it.nonce.0, key(it.expected_key));
        lines.push((3, id.to_string(), format!("{at} {nonce:?} {of} {:?}", it.justification)));
        if it.lift.is_some() || !it.relayed {
            lines.push((3, id.to_string(), format!("lifts {:?}, relayed {}", it.lift, it.relayed)));
        }
        if let Some(refused) = &it.refused {
            let (at, of) = (refused.at.as_millis(), key(Some(refused.key)));
            let text = format!("refused {at} {of} {:?} {}", refused.reason, refused.authentic);
            lines.push((3, id.to_string(), text));
        }
    }
    for (id, mark) in sides.revoked.iter() {
        let at = mark.at.as_millis();
        lines.push((4, id.to_string(), at.to_string()));
        if mark.id != RevocationId::mixed(u64::from(id.get()), at.cast_unsigned()) {
            lines.push((4, id.to_string(), format!("named {}", mark.id)));
        }
    }
    for (id, it) in sides.floors.iter() {
        let (seen, reserved) = (it.seen.as_millis(), it.reserved.as_millis());
        lines.push((5, id.to_string(), format!("{} {seen} {reserved} {}", key(it.key), it.spoke_v2)));
        if it.before != WallMillis::new(0) {
            lines.push((5, id.to_string(), format!("before {}", it.before.as_millis())));
        }
    }
    for (of, mark) in sides.revoked_keys.iter() {
        lines.push((6, key(Some(of)), format!("{} {}", mark.at.as_millis(), mark.id)));
    }
    for (id, at) in sides.ignored.iter() {
        lines.push((7, id.to_string(), at.as_millis().to_string()));
    }
    for (of, at) in sides.ignored_keys.iter() {
        lines.push((8, key(Some(of)), at.as_millis().to_string()));
    }
    for (id, it) in sides.refused.iter() {
        let times = (it.stamp.as_millis(), it.at.as_millis());
        lines.push((9, id.to_string(), format!("{} {times:?}", key(Some(it.key)))));
    }
    for (id, it) in sides.owed.iter() {
        let nonces = (it.nonce.0, it.answers.map(|nonce| nonce.0));
        lines.push((10, id.to_string(), format!("{:?} {nonces:?} {:?} {}", it.kind, it.reason, it.since.as_millis())));
    }
    for (of, next) in sides.successors.iter() {
        lines.push((11, key(Some(of)), key(Some(*next))));
    }
    for (id, revision) in sides.revisions.iter() {
        lines.push((12, id.to_string(), revision.to_string()));
    }
    lines.sort();
    const TABLES: [&str; 13] = [
        "",
        "trusted",
        "pending",
        "outgoing",
        "revoked",
        "floor",
        "revoked key",
        "ignored",
        "ignored key",
        "refused",
        "owed",
        "successor",
        "revision",
    ];
    lines.into_iter().map(|(table, of, text)| format!("{} {of}: {text}", TABLES.get(table).unwrap_or(&""))).collect()
}

/// Encodes all tables as a snapshot, piece by piece into `sink`; the number of bytes. `None` as of [`describe_tables`].
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

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use crate::machine::view::View as _;

    /// What a release before could keep.
    const OLD: &str = "  wea\u{3164}ther \u{2800} feed\u{fe0f}  \u{301}";

    fn texts(store: &TrustStore) -> Option<[String; 2]> {
        let tables = store.tables()?;
        let (pending, outgoing) = (tables.pending_iter().next()?.1, tables.outgoing_iter().next()?.1);
        Some([pending.justification.clone(), outgoing.justification.clone()])
    }

    #[test]
    fn texts_that_an_older_release_kept_are_filtered_when_they_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = TrustStore::open(dir.path().join("store")).unwrap();
        assert!(set_every_table(&store, 1).is_some());
        let tables = store.tables().unwrap();
        let (peer, pending) = tables.pending_iter().next().map(|(peer, it)| (peer, it.clone())).unwrap();
        let (asked, outgoing) = tables.outgoing_iter().next().map(|(peer, it)| (peer, it.clone())).unwrap();
        let justification = || OLD.to_owned();
        let changes = vec![
            TableChange::Pending(peer, Some(Arc::new(Pending { justification: justification(), ..pending }))),
            TableChange::Outgoing(asked, Some(Arc::new(Outgoing { justification: justification(), ..outgoing }))),
        ];
        let changed: Result<_, TransactError<()>> =
            store.transact(|_| Ok(Transaction { changes, events: Vec::new(), value: () }));
        assert!(changed.is_ok() && texts(&store) == Some([OLD, OLD].map(str::to_owned)));
        store.close().unwrap();
        drop(store);
        let store = TrustStore::open(dir.path().join("store")).unwrap();
        assert_eq!(texts(&store), Some(["weather feed", "weather feed"].map(str::to_owned)));
    }
}
