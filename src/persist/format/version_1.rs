//! Entries whose form has changed since format version 1: read for ever, written by tests alone.
#![forbid(unsafe_code)]

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::stored::{SourceV2, read_key, read_optional_key, read_text, read_time};
use crate::peer::{Nonce, RevocationId};
use crate::tables::{Floor, Outgoing, Pending, PendingKind, Revocation, Source};
use crate::time::{Now, WallMillis};

/// An entry of version 1, which becomes one of today.
pub(super) trait Old {
    type Today;

    fn read(self, now: Now) -> Result<Self::Today, &'static str>;
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct PendingV1 {
    pub(super) id: u32,
    key: [u8; 32],
    nonce: Option<[u8; 16]>,
    stamp: i64,
    received_at: i64,
    source: SourceV2,
    authentic: bool,
    conflicts: u32,
    unvouched_answer: bool,
    justification: String,
}

impl Old for PendingV1 {
    type Today = Arc<Pending>;

    fn read(self, now: Now) -> Result<Arc<Pending>, &'static str> {
        let (received_at, received_tick) = read_time(self.received_at, now);
        let source = self.source.read()?;
        if matches!(source, Source::Relay(_)) {
            return Err("a source that version 1 does not know");
        }
        Ok(Arc::new(Pending {
            key: read_key(self.key)?,
            nonce: self.nonce.map(Nonce),
            stamp: WallMillis::new(self.stamp),
            justification: read_text(self.justification)?,
            received_at,
            received_tick,
            source,
            authentic: self.authentic,
            conflicts: self.conflicts,
            kind: if self.unvouched_answer { PendingKind::AnsweredUnvouched } else { PendingKind::Request },
            others: Vec::new(),
            proven_by: None,
            number: 0,
        }))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct OutgoingV1 {
    pub(super) id: u32,
    sent_at: i64,
    nonce: [u8; 16],
    expected_key: Option<[u8; 32]>,
    justification: String,
}

impl Old for OutgoingV1 {
    type Today = Arc<Outgoing>;

    fn read(self, now: Now) -> Result<Arc<Outgoing>, &'static str> {
        let (sent_at, sent_tick) = read_time(self.sent_at, now);
        Ok(Arc::new(Outgoing {
            sent_at,
            sent_tick,
            nonce: Nonce(self.nonce),
            expected_key: read_optional_key(self.expected_key)?,
            justification: read_text(self.justification)?,
            lift: None,
            // Version 1 does not say whether a relay had the request: it may have had it.
            relayed: true,
            refused: None,
        }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct RevokedV1 {
    pub(super) id: u32,
    at: i64,
}

impl Old for RevokedV1 {
    type Today = Revocation;

    fn read(self, _now: Now) -> Result<Revocation, &'static str> {
        // Version 1 has no ids: this one is the same at every load.
        let id = RevocationId::mixed(u64::from(self.id), self.at.cast_unsigned());
        Ok(Revocation::new(WallMillis::new(self.at), id))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct FloorV1 {
    pub(super) id: u32,
    key: Option<[u8; 32]>,
    seen: i64,
    reserved: i64,
    spoke_v2: bool,
}

impl Old for FloorV1 {
    type Today = Floor;

    fn read(self, _now: Now) -> Result<Floor, &'static str> {
        let reserved = WallMillis::new(self.reserved);
        Ok(Floor {
            key: read_optional_key(self.key)?,
            seen: WallMillis::new(self.seen),
            before: WallMillis::new(0),
            sent: reserved,
            reserved,
            spoke_v2: self.spoke_v2,
        })
    }
}
