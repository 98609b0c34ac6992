//! A trusted record as it lies in a leaf: 44 bytes, without its id, which its place gives back.
#![forbid(unsafe_code)]

use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::time::WallMillis;

/// Every pattern of bytes is a value, and equal records are equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Value {
    /// Zeros without [`HAS_KEY`].
    key: [u8; 32],
    approved_at: [u8; 8],
    network: u16,
    flags: u8,
    spare: u8,
}

const _: () = assert!(size_of::<Value>() == 44 && align_of::<Value>() == 2);

impl Value {
    pub(crate) fn of(record: &TrustRecord) -> Self {
        let key = record.public_key.as_ref().map(PublicKey::as_bytes);
        Self::restored(key, record.approved_at, record.mutual, record.network)
    }

    /// The value of these fields, of which the key, if there is one, has been checked.
    #[inline]
    pub(crate) fn restored(key: Option<&[u8; 32]>, approved_at: WallMillis, mutual: bool, network: u16) -> Self {
        let flags = u8::from(key.is_some()) * HAS_KEY + u8::from(mutual) * MUTUAL;
        let approved_at = approved_at.as_millis().to_le_bytes();
        Self { key: *key.unwrap_or(&[0; 32]), approved_at, network, flags, spare: 0 }
    }

    #[inline]
    pub(crate) fn key(&self) -> Option<&[u8; 32]> {
        (self.flags & HAS_KEY != 0).then_some(&self.key)
    }

    /// Whether trust under this record's key has ended where the peer has that record instead: it has another key, or none.
    #[inline]
    pub(crate) fn is_lost_to(&self, next: &Self) -> bool {
        self.key().is_some() && self.key() != next.key()
    }

    #[inline]
    pub(crate) fn approved_at(&self) -> WallMillis {
        WallMillis::new(i64::from_le_bytes(self.approved_at))
    }

    #[inline]
    pub(crate) fn mutual(&self) -> bool {
        self.flags & MUTUAL != 0
    }

    #[inline]
    pub(crate) fn network(&self) -> u16 {
        self.network
    }

    #[inline]
    pub(crate) fn record(&self, peer: NodeId) -> TrustRecord {
        TrustRecord::new(peer, self.key().copied().map(PublicKey::restored))
            .approved_at(self.approved_at())
            .mutual(self.mutual())
            .network(self.network())
    }
}

const HAS_KEY: u8 = 1;
const MUTUAL: u8 = 2;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_went_in() {
        let peer = NodeId::new(7).unwrap();
        let key = PublicKey::from_bytes(ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes());
        for record in [
            TrustRecord::new(peer, None),
            TrustRecord::new(peer, key.unwrap()).mutual(true).network(u16::MAX),
            TrustRecord::new(peer, key.unwrap()).approved_at(WallMillis::new(i64::MIN)),
            TrustRecord::new(peer, None).mutual(true).network(1).approved_at(WallMillis::new(i64::MAX)),
        ] {
            assert_eq!(Value::of(&record).record(peer), record);
        }
    }
}
