//! `trust.json`: a whole state as JSON; `docs/trust_json.md` describes it and is normative.
//!
//! What must hold: everything that a snapshot holds but its id and seed can be made again from the document, and equal
//! contents give equal documents, whatever the history. A document has the nonces of open requests only if that is asked
//! for. Reading (`read`, `fields`, `values`, `take`) is for documents of other
//! systems, too, and believes nothing of them.
#![forbid(unsafe_code)]

mod changes;
mod fields;
mod finding;
mod parse_time;
mod read;
mod remarks;
mod remembered;
mod take;
mod take_marks;
mod take_remembered;
mod take_trusted;
mod take_waiting;
mod values;

use std::io::{self, Read, Write};

use base64::Engine as _;
use serde::Serialize;

use super::now;
use super::print::rfc_3339;
pub(crate) use finding::{Count, Finding, Unknown};
pub(crate) use read::List;
pub(super) use remarks::{FirstPeers, SharedKey};
pub(super) use remembered::kind_name;
use remembered::{OwedEntry, RefusedEntry, RevisionEntry, SuccessorEntry};
use take::Taking;
pub(crate) use take::{Into, Taken};

use crate::config::HandshakeConfig;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::tables::Tables;
use crate::tables::table::Table as _;
use crate::tables::{Floor, Nonce, Outgoing, Pending, PendingKind, Revocation};
use crate::time::WallMillis;

/// Whether a document has the nonces of requests that are open. Who knows one can answer in a peer's name where first uses
/// are trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nonces {
    Written,
    LeftOut,
}

/// Writes the document, one entry a line. `told` hears of every entry.
pub(crate) fn write(
    out: &mut dyn Write,
    generation: u64,
    tables: &Tables,
    nonces: Nonces,
    told: &mut dyn FnMut(),
) -> io::Result<()> {
    let mut lists = Lists { out, told };
    write!(lists.out, "{{\n\"version\": {VERSION},\n\"generation\": {generation}")?;
    let trusted = tables.trusted.iter().map(|record| (record.node_id.get(), record));
    lists.list(List::Trusted, trusted, |id, record| TrustedEntry::new(id, &record))?;
    lists
        .list(List::Pending, numbered(tables.sides.pending.iter()), |id, entry| PendingEntry::new(id, entry, nonces))?;
    lists.list(List::Outgoing, numbered(open_requests(tables)), |id, entry| OutgoingEntry::new(id, entry, nonces))?;
    lists.list(List::Revoked, numbered(tables.sides.revoked.iter()), |id, at| RevokedEntry::new(id, *at))?;
    let latest = latest_stamp(now().wall);
    lists.list(List::Floors, numbered(tables.sides.floors.iter()), |id, floor| FloorEntry::new(id, floor, latest))?;
    lists.list(List::RevokedKeys, tables.sides.revoked_keys.iter(), |key, mark| RevokedKeyEntry::new(key, *mark))?;
    lists.list(List::Ignored, numbered(tables.sides.ignored.iter()), |node_id, at| IgnoredEntry {
        node_id,
        ignored_at: time(*at),
    })?;
    lists.list(List::IgnoredKeys, tables.sides.ignored_keys.iter(), |key, at| IgnoredKeyEntry {
        public_key: key.to_base64(),
        ignored_at: time(*at),
    })?;
    lists.list(List::Successors, remembered::statements(tables), SuccessorEntry::new)?;
    lists.list(List::Refused, remembered::refused(tables), RefusedEntry::new)?;
    lists.list(List::Owed, remembered::owed(tables), |id, entry| OwedEntry::new(id, entry, nonces))?;
    let revisions = numbered(tables.sides.revisions.iter());
    lists.list(List::Revisions, revisions, |node_id, revision| RevisionEntry { node_id, revision: *revision })?;
    lists.out.write_all(b"\n}\n")
}

/// Reads a document into what a store holds; returns what becomes of that, and the document's generation.
///
/// # Errors
/// It is no document: nothing counts that was read of it.
pub(crate) fn read(from: impl Read, into: Into<'_>) -> Result<(Taken, u64), serde_json::Error> {
    let mut taking = Taking::new(into);
    let generation = read::read(from, &mut taking)?;
    Ok((taking.finish(), generation))
}

/// The latest stamp that an import takes as it is: clocks may differ by so much.
fn latest_stamp(now: WallMillis) -> WallMillis {
    let skew = HandshakeConfig::default().future_skew_max.as_millis();
    now.saturating_add(i64::try_from(skew).unwrap_or(0))
}

/// Requests that wait for an answer. One that was refused is kept to show that, and a document would make it wait again.
pub(super) fn open_requests(tables: &Tables) -> impl Iterator<Item = (NodeId, &std::sync::Arc<Outgoing>)> {
    let is_open = |entry: &Outgoing| entry.refused.as_ref().is_none_or(|refusal| !refusal.authentic);
    tables.sides.outgoing.iter().filter(move |(_, entry)| is_open(entry))
}

/// With the numbers of peers.
fn numbered<V>(entries: impl Iterator<Item = (NodeId, V)>) -> impl Iterator<Item = (u32, V)> {
    entries.map(|(peer, value)| (peer.get(), value))
}

/// How many entries [`write`] will tell of.
pub(crate) fn entries(tables: &Tables) -> usize {
    let sides = &tables.sides;
    let waiting = sides.pending.len() + open_requests(tables).count();
    let marks = sides.revoked.len() + sides.revoked_keys.len() + sides.ignored.len() + sides.ignored_keys.len();
    tables.trusted.len() + waiting + marks + sides.floors.len() + remembered::len(tables)
}

struct Lists<'a> {
    out: &'a mut dyn Write,
    told: &'a mut dyn FnMut(),
}

impl Lists<'_> {
    /// One list, in the order of ids or of the bytes of keys.
    fn list<K: Ord + Copy, V, E: Serialize>(
        &mut self,
        list: List,
        entries: impl Iterator<Item = (K, V)>,
        entry: impl Fn(K, V) -> E,
    ) -> io::Result<()> {
        let mut entries: Vec<(K, V)> = entries.collect();
        if entries.is_empty() && list.is_left_out_if_empty() {
            return Ok(());
        }
        entries.sort_unstable_by_key(|(id, _)| *id);
        write!(self.out, ",\n\"{}\": [", list.name())?;
        for (number, (id, value)) in entries.into_iter().enumerate() {
            self.out.write_all(if number == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut *self.out, &entry(id, value))?;
            (self.told)();
        }
        self.out.write_all(b"]")
    }
}

#[derive(Serialize)]
struct TrustedEntry {
    node_id: u32,
    public_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approved_at: Option<String>,
    mutual: bool,
    #[serde(skip_serializing_if = "is_no_network")]
    network: u16,
}

impl TrustedEntry {
    fn new(node_id: u32, record: &TrustRecord) -> Self {
        Self {
            node_id,
            public_key: record.public_key.as_ref().map(PublicKey::to_base64),
            approved_at: known_time(record.approved_at),
            mutual: record.mutual,
            network: record.network,
        }
    }
}

#[derive(Serialize)]
struct PendingEntry<'a> {
    node_id: u32,
    public_key: String,
    justification: &'a str,
    received_at: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    stamp: String,
    authentic: bool,
    conflicts: u32,
    kind: &'static str,
    /// That there was a nonce, which is left out.
    #[serde(skip_serializing_if = "is_false")]
    spoke_v2: bool,
}

impl<'a> PendingEntry<'a> {
    fn new(node_id: u32, entry: &'a Pending, nonces: Nonces) -> Self {
        Self {
            node_id,
            public_key: entry.key.to_base64(),
            justification: &entry.justification,
            received_at: time(entry.received_at),
            source: entry.source.to_string(),
            nonce: entry.nonce.as_ref().filter(|_| nonces == Nonces::Written).map(nonce),
            stamp: time(entry.stamp),
            authentic: entry.authentic,
            conflicts: entry.conflicts,
            kind: match entry.kind {
                PendingKind::Request => "request",
                PendingKind::AnsweredUnvouched => "answered_unvouched",
            },
            spoke_v2: nonces == Nonces::LeftOut && entry.nonce.is_some(),
        }
    }
}

#[derive(Serialize)]
struct OutgoingEntry<'a> {
    node_id: u32,
    sent_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_key: Option<String>,
    justification: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lift: Option<String>,
}

impl<'a> OutgoingEntry<'a> {
    fn new(node_id: u32, entry: &'a Outgoing, nonces: Nonces) -> Self {
        Self {
            node_id,
            sent_at: time(entry.sent_at),
            nonce: (nonces == Nonces::Written).then(|| nonce(&entry.nonce)),
            expected_key: entry.expected_key.as_ref().map(PublicKey::to_base64),
            justification: &entry.justification,
            lift: entry.lift.map(|id| id.to_string()),
        }
    }
}

#[derive(Serialize)]
struct RevokedEntry {
    node_id: u32,
    /// For readers whose revocations end by themselves; ours do not.
    until: &'static str,
    revoked_at: String,
    id: String,
}

#[derive(Serialize)]
struct RevokedKeyEntry {
    public_key: String,
    revoked_at: String,
    id: String,
}

impl RevokedKeyEntry {
    fn new(key: PublicKey, mark: Revocation) -> Self {
        Self { public_key: key.to_base64(), revoked_at: time(mark.at), id: mark.id.to_string() }
    }
}

#[derive(Serialize)]
struct IgnoredEntry {
    node_id: u32,
    ignored_at: String,
}

#[derive(Serialize)]
struct IgnoredKeyEntry {
    public_key: String,
    ignored_at: String,
}

impl RevokedEntry {
    fn new(node_id: u32, mark: Revocation) -> Self {
        Self { node_id, until: "9999-12-31T23:59:59.999Z", revoked_at: time(mark.at), id: mark.id.to_string() }
    }
}

#[derive(Serialize)]
struct FloorEntry {
    node_id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved: Option<String>,
    spoke_v2: bool,
}

impl FloorEntry {
    /// A stamp later than `latest` is one that the next message moves back, and an import does: it says itself what it
    /// was before.
    fn new(node_id: u32, floor: &Floor, latest: WallMillis) -> Self {
        let before = if floor.seen > latest { floor.before.max(floor.seen) } else { floor.before };
        Self {
            node_id,
            public_key: floor.key.as_ref().map(PublicKey::to_base64),
            seen: known_time(floor.seen),
            before: known_time(before),
            reserved: known_time(floor.reserved),
            spoke_v2: floor.spoke_v2,
        }
    }
}

fn nonce(nonce: &Nonce) -> String {
    base64::engine::general_purpose::STANDARD.encode(nonce.0)
}

fn time(at: WallMillis) -> String {
    rfc_3339(at.as_millis().clamp(FIRST_MILLIS, LAST_MILLIS))
}

/// 0 stands for "none" or "not known": then there is no field.
fn known_time(at: WallMillis) -> Option<String> {
    if at == WallMillis::default() { None } else { Some(time(at)) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_no_network(network: &u16) -> bool {
    *network == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Of the document; a reader need not know it as long as it ignores fields that it does not know.
const VERSION: u32 = 1;
/// The first and the last moment that RFC 3339 can express.
const FIRST_MILLIS: i64 = -62_167_219_200_000;
const LAST_MILLIS: i64 = 253_402_300_799_999;

#[cfg(all(test, feature = "__testing", not(trustkeep_loom)))]
mod refused_tests;
#[cfg(all(test, feature = "__testing", not(trustkeep_loom)))]
mod remembered_tests;
#[cfg(all(test, not(trustkeep_loom)))]
mod tests;
#[cfg(all(test, feature = "__testing", not(trustkeep_loom)))]
mod twice_tests;
