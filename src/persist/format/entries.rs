//! The entries of each table as they stand in a block: their own types, so that no change of a type in memory changes a
//! byte on disk.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use bincode::{Decode, Encode};

use crate::config::TEXT_BYTES_MAX;
use crate::machine::view::{Floor, Nonce, Outgoing, Pending, PendingKind, Source};
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::time::{Now, Tick, WallMillis};

/// An entry, and the kind of block it stands in.
pub(super) trait Entry: Encode + Decode<()> {
    const KIND: u8;
}

/// The id of an entry that has one.
pub(super) trait IdOf {
    fn id(&self) -> u32;
}

macro_rules! ids {
    ($($entry:ty),*) => { $(impl IdOf for $entry { fn id(&self) -> u32 { self.id } })* };
}
ids!(TrustedV1, PendingV1, OutgoingV1, RevokedV1, FloorV1);

/// In a journal: an entry of table `TABLE` that is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct GoneV1<const TABLE: u8> {
    id: u32,
}

impl<const TABLE: u8> GoneV1<TABLE> {
    pub(super) fn new(id: u32) -> Self {
        Self { id }
    }
}

impl<const TABLE: u8> Entry for GoneV1<TABLE> {
    const KIND: u8 = 100 + TABLE;
}

impl<const TABLE: u8> IdOf for GoneV1<TABLE> {
    fn id(&self) -> u32 {
        self.id
    }
}

/// A trusted record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct TrustedV1 {
    id: u32,
    key: Option<[u8; 32]>,
    approved_at: i64,
    mutual: bool,
    network: u16,
}

impl Entry for TrustedV1 {
    const KIND: u8 = 1;
}

impl From<&TrustRecord> for TrustedV1 {
    fn from(record: &TrustRecord) -> Self {
        Self {
            id: record.node_id.get(),
            key: record.public_key.map(|key| *key.as_bytes()),
            approved_at: record.approved_at.as_millis(),
            mutual: record.mutual,
            network: record.network,
        }
    }
}

impl TrustedV1 {
    pub(super) fn read(self) -> Result<TrustRecord, &'static str> {
        let id = NodeId::new(self.id).ok_or("an entry with node id 0")?;
        Ok(TrustRecord::new(id, read_optional_key(self.key)?)
            .approved_at(WallMillis::new(self.approved_at))
            .mutual(self.mutual)
            .network(self.network))
    }
}

/// A pending entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct PendingV1 {
    id: u32,
    key: [u8; 32],
    nonce: Option<[u8; 16]>,
    stamp: i64,
    received_at: i64,
    source: SourceV1,
    authentic: bool,
    conflicts: u32,
    unvouched_answer: bool,
    justification: String,
}

impl Entry for PendingV1 {
    const KIND: u8 = 2;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
enum SourceV1 {
    Node(u32),
    V4([u8; 4]),
    V6([u8; 16]),
}

impl PendingV1 {
    pub(super) fn new(id: u32, entry: &Pending) -> Self {
        Self {
            id,
            key: *entry.key.as_bytes(),
            nonce: entry.nonce.map(|nonce| nonce.0),
            stamp: entry.stamp.as_millis(),
            received_at: entry.received_at.as_millis(),
            source: match entry.source {
                Source::Node(node) => SourceV1::Node(node.get()),
                Source::Address(IpAddr::V4(v4)) => SourceV1::V4(v4.octets()),
                Source::Address(IpAddr::V6(v6)) => SourceV1::V6(v6.octets()),
            },
            authentic: entry.authentic,
            conflicts: entry.conflicts,
            unvouched_answer: entry.kind == PendingKind::AnsweredUnvouched,
            justification: entry.justification.clone(),
        }
    }

    pub(super) fn read(self, now: Now) -> Result<Pending, &'static str> {
        let (received_at, received_tick) = read_time(self.received_at, now);
        Ok(Pending {
            key: read_key(self.key)?,
            nonce: self.nonce.map(Nonce),
            stamp: WallMillis::new(self.stamp),
            justification: read_text(self.justification)?,
            received_at,
            received_tick,
            source: match self.source {
                SourceV1::Node(node) => Source::Node(NodeId::new(node).ok_or("a source with node id 0")?),
                SourceV1::V4(octets) => Source::Address(octets.into()),
                SourceV1::V6(octets) => Source::Address(octets.into()),
            },
            authentic: self.authentic,
            conflicts: self.conflicts,
            kind: if self.unvouched_answer { PendingKind::AnsweredUnvouched } else { PendingKind::Request },
        })
    }
}

/// An outgoing entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct OutgoingV1 {
    id: u32,
    sent_at: i64,
    nonce: [u8; 16],
    expected_key: Option<[u8; 32]>,
    justification: String,
}

impl Entry for OutgoingV1 {
    const KIND: u8 = 3;
}

impl OutgoingV1 {
    pub(super) fn new(id: u32, entry: &Outgoing) -> Self {
        Self {
            id,
            sent_at: entry.sent_at.as_millis(),
            nonce: entry.nonce.0,
            expected_key: entry.expected_key.map(|key| *key.as_bytes()),
            justification: entry.justification.clone(),
        }
    }

    pub(super) fn read(self, now: Now) -> Result<Outgoing, &'static str> {
        let (sent_at, sent_tick) = read_time(self.sent_at, now);
        Ok(Outgoing {
            sent_at,
            sent_tick,
            nonce: Nonce(self.nonce),
            expected_key: read_optional_key(self.expected_key)?,
            justification: read_text(self.justification)?,
        })
    }
}

/// A revoked mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct RevokedV1 {
    id: u32,
    at: i64,
}

impl Entry for RevokedV1 {
    const KIND: u8 = 4;
}

impl RevokedV1 {
    pub(super) fn new(id: u32, at: WallMillis) -> Self {
        Self { id, at: at.as_millis() }
    }

    pub(super) fn read(self) -> Result<WallMillis, &'static str> {
        Ok(WallMillis::new(self.at))
    }
}

/// A floor. The last stamp sent is not saved: after a load it is taken to be all that was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct FloorV1 {
    id: u32,
    key: Option<[u8; 32]>,
    seen: i64,
    reserved: i64,
    spoke_v2: bool,
}

impl Entry for FloorV1 {
    const KIND: u8 = 5;
}

impl FloorV1 {
    pub(super) fn new(id: u32, floor: &Floor) -> Self {
        Self {
            id,
            key: floor.key.map(|key| *key.as_bytes()),
            seen: floor.seen.as_millis(),
            reserved: floor.reserved.as_millis(),
            spoke_v2: floor.spoke_v2,
        }
    }

    pub(super) fn read(self) -> Result<Floor, &'static str> {
        let reserved = WallMillis::new(self.reserved);
        Ok(Floor {
            key: read_optional_key(self.key)?,
            seen: WallMillis::new(self.seen),
            sent: reserved,
            reserved,
            spoke_v2: self.spoke_v2,
        })
    }
}

fn read_key(bytes: [u8; 32]) -> Result<PublicKey, &'static str> {
    PublicKey::from_checksummed(bytes).map_err(|_| "a key of small order")
}

fn read_optional_key(bytes: Option<[u8; 32]>) -> Result<Option<PublicKey>, &'static str> {
    bytes.map(read_key).transpose()
}

fn read_text(text: String) -> Result<String, &'static str> {
    if text.len() <= TEXT_BYTES_MAX { Ok(text) } else { Err("a text longer than any release writes") }
}

/// A time from the file as wall clock and tick. The age is what the wall clock says, but not below zero: an entry from
/// the future counts as new, so that none outlives its lifetime from this load.
fn read_time(saved: i64, now: Now) -> (WallMillis, Tick) {
    let at = WallMillis::new(saved).min(now.wall);
    (at, now.tick.saturating_add(now.wall.millis_since(at).saturating_neg()))
}
