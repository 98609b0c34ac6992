//! How keys and values of each table stand in a file, as from format version 2: their own types, so that no change of a
//! type in memory changes a byte on disk.
//!
//! More than 450 lines because each table has its type here, and reading it back beside it.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::config::TEXT_BYTES_MAX;
use crate::peer::Kind as MessageKind;
use crate::peer::{NodeId, Nonce, PublicKey, RevocationId};
use crate::tables::{
    Floor, OTHER_KEYS_MAX, OtherKey, Outgoing, Owed, Pending, PendingKind, REFUSED_PER_PEER_MAX, Refusal,
    RefusedRequest, Revocation, SUCCESSIONS_PER_PEER_MAX, Source, Succession, Void,
};
use crate::text::Text;
use crate::time::{Now, Tick, WallMillis};

/// What an entry belongs to.
pub(super) trait StoredKey: Copy {
    type Stored: Encode + Decode<()> + Copy + Eq + core::fmt::Debug;

    fn stored(self) -> Self::Stored;

    fn read(stored: &Self::Stored) -> Result<Self, &'static str>;
}

/// What a key has.
pub(super) trait StoredValue: Sized {
    type Stored: Encode + Decode<()>;

    fn stored(&self) -> Self::Stored;

    /// `now` turns times of the wall clock into ticks.
    fn read(stored: Self::Stored, now: Now) -> Result<Self, &'static str>;
}

impl StoredKey for NodeId {
    type Stored = u32;

    fn stored(self) -> u32 {
        self.get()
    }

    fn read(stored: &u32) -> Result<Self, &'static str> {
        Self::new(*stored).ok_or("an entry with node id 0")
    }
}

/// The id of a trusted record, which stays a number on its way.
impl StoredKey for u32 {
    type Stored = Self;

    fn stored(self) -> Self {
        self
    }

    fn read(stored: &Self) -> Result<Self, &'static str> {
        NodeId::read(stored).map(NodeId::get)
    }
}

impl StoredKey for PublicKey {
    type Stored = [u8; 32];

    fn stored(self) -> [u8; 32] {
        *self.as_bytes()
    }

    fn read(stored: &[u8; 32]) -> Result<Self, &'static str> {
        read_key(*stored)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct PendingV2 {
    key: [u8; 32],
    nonce: Option<[u8; 16]>,
    stamp: i64,
    received_at: i64,
    source: SourceV2,
    authentic: bool,
    conflicts: u32,
    unvouched_answer: bool,
    justification: String,
    others: Vec<OtherKeyV2>,
    proven_by: Option<[u8; 32]>,
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct OtherKeyV2 {
    key: [u8; 32],
    nonce: Option<[u8; 16]>,
    stamp: i64,
    source: SourceV2,
    first_seen: i64,
    unvouched_answer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum SourceV2 {
    Node(u32),
    V4([u8; 4]),
    V6([u8; 16]),
    Relay(u32),
}

impl SourceV2 {
    fn new(source: Source) -> Self {
        match source {
            Source::Node(node) => Self::Node(node.get()),
            Source::Address(IpAddr::V4(v4)) => Self::V4(v4.octets()),
            Source::Address(IpAddr::V6(v6)) => Self::V6(v6.octets()),
            Source::Relay(node) => Self::Relay(node.get()),
        }
    }

    pub(super) fn read(self) -> Result<Source, &'static str> {
        let node = |id| NodeId::new(id).ok_or("a source with node id 0");
        Ok(match self {
            Self::Node(id) => Source::Node(node(id)?),
            Self::V4(octets) => Source::Address(octets.into()),
            Self::V6(octets) => Source::Address(octets.into()),
            Self::Relay(id) => Source::Relay(node(id)?),
        })
    }
}

impl StoredValue for Arc<Pending> {
    type Stored = PendingV2;

    fn stored(&self) -> PendingV2 {
        PendingV2 {
            key: *self.key.as_bytes(),
            nonce: self.nonce.map(|nonce| nonce.0),
            stamp: self.stamp.as_millis(),
            received_at: self.received_at.as_millis(),
            source: SourceV2::new(self.source),
            authentic: self.authentic,
            conflicts: self.conflicts,
            unvouched_answer: self.kind == PendingKind::AnsweredUnvouched,
            justification: self.justification.clone(),
            others: self
                .others
                .iter()
                .map(|other| OtherKeyV2 {
                    key: *other.key.as_bytes(),
                    nonce: other.nonce.map(|nonce| nonce.0),
                    stamp: other.stamp.as_millis(),
                    source: SourceV2::new(other.source),
                    first_seen: other.first_seen.as_millis(),
                    unvouched_answer: other.kind == PendingKind::AnsweredUnvouched,
                })
                .collect(),
            proven_by: self.proven_by.map(StoredKey::stored),
            number: self.number,
        }
    }

    fn read(stored: PendingV2, now: Now) -> Result<Self, &'static str> {
        let (received_at, received_tick) = read_time(stored.received_at, now);
        if stored.others.len() > OTHER_KEYS_MAX {
            return Err("more keys than a pending entry has");
        }
        let others = stored.others.into_iter().map(|other| {
            Ok(OtherKey {
                key: read_key(other.key)?,
                nonce: other.nonce.map(Nonce),
                stamp: WallMillis::new(other.stamp),
                source: other.source.read()?,
                first_seen: WallMillis::new(other.first_seen),
                kind: read_kind(other.unvouched_answer),
            })
        });
        Ok(Self::new(Pending {
            key: read_key(stored.key)?,
            nonce: stored.nonce.map(Nonce),
            stamp: WallMillis::new(stored.stamp),
            justification: read_text(stored.justification)?,
            received_at,
            received_tick,
            source: stored.source.read()?,
            authentic: stored.authentic,
            conflicts: stored.conflicts,
            kind: read_kind(stored.unvouched_answer),
            others: others.collect::<Result<_, &'static str>>()?,
            proven_by: read_optional_key(stored.proven_by)?,
            number: stored.number,
        }))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct OutgoingV2 {
    sent_at: i64,
    nonce: [u8; 16],
    expected_key: Option<[u8; 32]>,
    justification: String,
    lift: Option<u64>,
    relayed: bool,
    refused: Option<RefusalV2>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct RefusalV2 {
    at: i64,
    reason: String,
    key: [u8; 32],
    authentic: bool,
}

impl StoredValue for Arc<Outgoing> {
    type Stored = OutgoingV2;

    fn stored(&self) -> OutgoingV2 {
        OutgoingV2 {
            sent_at: self.sent_at.as_millis(),
            nonce: self.nonce.0,
            expected_key: self.expected_key.map(StoredKey::stored),
            justification: self.justification.clone(),
            lift: self.lift.map(RevocationId::get),
            relayed: self.relayed,
            refused: self.refused.as_ref().map(|refused| RefusalV2 {
                at: refused.at.as_millis(),
                reason: refused.reason.clone(),
                key: *refused.key.as_bytes(),
                authentic: refused.authentic,
            }),
        }
    }

    fn read(stored: OutgoingV2, now: Now) -> Result<Self, &'static str> {
        let (sent_at, sent_tick) = read_time(stored.sent_at, now);
        let refused = stored.refused.map(|refused| -> Result<_, &'static str> {
            let (at, tick) = read_time(refused.at, now);
            let (reason, key) = (read_text(refused.reason)?, read_key(refused.key)?);
            Ok(Refusal { at, tick, reason, key, authentic: refused.authentic })
        });
        Ok(Self::new(Outgoing {
            sent_at,
            sent_tick,
            nonce: Nonce(stored.nonce),
            expected_key: read_optional_key(stored.expected_key)?,
            justification: read_text(stored.justification)?,
            lift: stored.lift.map(RevocationId::new),
            relayed: stored.relayed,
            refused: refused.transpose()?,
        }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct RevocationV2 {
    at: i64,
    id: u64,
}

impl StoredValue for Revocation {
    type Stored = RevocationV2;

    fn stored(&self) -> RevocationV2 {
        RevocationV2 { at: self.at.as_millis(), id: self.id.get() }
    }

    fn read(stored: RevocationV2, _now: Now) -> Result<Self, &'static str> {
        Ok(Self::new(WallMillis::new(stored.at), RevocationId::new(stored.id)))
    }
}

/// A floor. The last stamp sent is not saved: after a load it is taken to be all that was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct FloorV2 {
    key: Option<[u8; 32]>,
    seen: i64,
    before: i64,
    reserved: i64,
    spoke_v2: bool,
}

impl StoredValue for Floor {
    type Stored = FloorV2;

    fn stored(&self) -> FloorV2 {
        FloorV2 {
            key: self.key.map(StoredKey::stored),
            seen: self.seen.as_millis(),
            before: self.before.as_millis(),
            reserved: self.reserved.as_millis(),
            spoke_v2: self.spoke_v2,
        }
    }

    fn read(stored: FloorV2, _now: Now) -> Result<Self, &'static str> {
        let reserved = WallMillis::new(stored.reserved);
        Ok(Self {
            key: read_optional_key(stored.key)?,
            seen: WallMillis::new(stored.seen),
            before: WallMillis::new(stored.before),
            sent: reserved,
            reserved,
            spoke_v2: stored.spoke_v2,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct RefusedV2 {
    key: [u8; 32],
    stamp: i64,
    at: i64,
}

impl StoredValue for Arc<[RefusedRequest]> {
    type Stored = Vec<RefusedV2>;

    fn stored(&self) -> Vec<RefusedV2> {
        let one = |it: &RefusedRequest| RefusedV2 {
            key: *it.key.as_bytes(),
            stamp: it.stamp.as_millis(),
            at: it.at.as_millis(),
        };
        self.iter().map(one).collect()
    }

    fn read(stored: Vec<RefusedV2>, _now: Now) -> Result<Self, &'static str> {
        if stored.is_empty() || stored.len() > REFUSED_PER_PEER_MAX {
            return Err("no refused request, or more than a peer has");
        }
        let one = |it: RefusedV2| {
            let (stamp, at) = (WallMillis::new(it.stamp), WallMillis::new(it.at));
            Ok(RefusedRequest { key: read_key(it.key)?, stamp, at })
        };
        stored.into_iter().map(one).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct OwedV2 {
    kind: u8,
    nonce: [u8; 16],
    answers: Option<[u8; 16]>,
    reason: String,
    since: i64,
    for_key: Option<[u8; 32]>,
}

impl StoredValue for Arc<Owed> {
    type Stored = OwedV2;

    fn stored(&self) -> OwedV2 {
        OwedV2 {
            kind: match self.kind {
                MessageKind::Request => 0,
                MessageKind::Accept => 1,
                MessageKind::Reject => 2,
                MessageKind::Revoke => 3,
            },
            nonce: self.nonce.0,
            answers: self.answers.map(|nonce| nonce.0),
            reason: self.reason.clone(),
            since: self.since.as_millis(),
            for_key: self.for_key.map(StoredKey::stored),
        }
    }

    fn read(stored: OwedV2, now: Now) -> Result<Self, &'static str> {
        let kind = match stored.kind {
            1 => MessageKind::Accept,
            2 => MessageKind::Reject,
            3 => MessageKind::Revoke,
            _ => return Err("a decision of an unknown kind"),
        };
        let (since, since_tick) = read_time(stored.since, now);
        Ok(Self::new(Owed {
            kind,
            nonce: Nonce(stored.nonce),
            answers: stored.answers.map(Nonce),
            reason: read_text(stored.reason)?,
            since,
            since_tick,
            for_key: read_optional_key(stored.for_key)?,
        }))
    }
}

impl StoredValue for WallMillis {
    type Stored = i64;

    fn stored(&self) -> i64 {
        self.as_millis()
    }

    fn read(stored: i64, _now: Now) -> Result<Self, &'static str> {
        Ok(Self::new(stored))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct SuccessionV2 {
    old: [u8; 32],
    new: [u8; 32],
    replaced: bool,
    void: u8,
}

impl StoredValue for Arc<[Succession]> {
    type Stored = Vec<SuccessionV2>;

    fn stored(&self) -> Vec<SuccessionV2> {
        let one = |it: &Succession| SuccessionV2 {
            old: *it.old.as_bytes(),
            new: *it.new.as_bytes(),
            replaced: it.replaced,
            void: match it.void {
                None => 0,
                Some(Void::Revoked) => 1,
                Some(Void::Refused) => 2,
            },
        };
        self.iter().map(one).collect()
    }

    fn read(stored: Vec<SuccessionV2>, _now: Now) -> Result<Self, &'static str> {
        if stored.is_empty() || stored.len() > SUCCESSIONS_PER_PEER_MAX {
            return Err("no successor of a key, or more than a peer has");
        }
        let one = |it: SuccessionV2| {
            let void = match it.void {
                0 => None,
                1 => Some(Void::Revoked),
                2 => Some(Void::Refused),
                _ => return Err("a statement that is void for an unknown reason"),
            };
            let (old, new) = (read_key(it.old)?, read_key(it.new)?);
            Ok(Succession { replaced: it.replaced, void, ..Succession::new(old, new) })
        };
        stored.into_iter().map(one).collect()
    }
}

impl StoredValue for u64 {
    type Stored = Self;

    fn stored(&self) -> Self {
        *self
    }

    fn read(stored: Self, _now: Now) -> Result<Self, &'static str> {
        Ok(stored)
    }
}

fn read_kind(unvouched_answer: bool) -> PendingKind {
    if unvouched_answer { PendingKind::AnsweredUnvouched } else { PendingKind::Request }
}

pub(super) fn read_key(bytes: [u8; 32]) -> Result<PublicKey, &'static str> {
    PublicKey::from_checksummed(bytes).map_err(|_| "a key of small order")
}

pub(super) fn read_optional_key(bytes: Option<[u8; 32]>) -> Result<Option<PublicKey>, &'static str> {
    bytes.map(read_key).transpose()
}

/// Filtered again: an older release kept characters that this one drops.
pub(super) fn read_text(text: String) -> Result<String, &'static str> {
    if text.len() > TEXT_BYTES_MAX {
        return Err("a text longer than any release writes");
    }
    Ok(Text::filtered(&text).into_string())
}

/// A time from the file as wall clock and tick. The age is what the wall clock says, but not below zero: an entry from
/// the future counts as new, so that none outlives its lifetime from this load.
pub(super) fn read_time(saved: i64, now: Now) -> (WallMillis, Tick) {
    let at = WallMillis::new(saved).min(now.wall);
    (at, now.tick.saturating_add(now.wall.millis_since(at).saturating_neg()))
}
