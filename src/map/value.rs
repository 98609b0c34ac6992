//! A trusted record as it lies in a leaf: 44 bytes, without its id, which its place gives back.
#![forbid(unsafe_code)]

use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::time::WallMillis;

/// Every pattern of bytes is a value, and equal records are equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Value {
    /// Zeros without [`HAS_KEY`].
    key: [u8; 32],
    approved_at: [u8; 8],
    network: u16,
    flags: u8,
    spare: u8,
}

const _: () = assert!(size_of::<Value>() == 44 && align_of::<Value>() == 2);

impl Value {
    pub(super) fn of(record: &TrustRecord) -> Self {
        let key = record.public_key.map_or([0; 32], |key| *key.as_bytes());
        let flags = u8::from(record.public_key.is_some()) * HAS_KEY + u8::from(record.mutual) * MUTUAL;
        let approved_at = record.approved_at.as_millis().to_le_bytes();
        Self { key, approved_at, network: record.network, flags, spare: 0 }
    }

    #[inline]
    pub(super) fn record(&self, peer: NodeId) -> TrustRecord {
        let key = (self.flags & HAS_KEY != 0).then(|| PublicKey::restored(self.key));
        TrustRecord::new(peer, key)
            .approved_at(WallMillis::new(i64::from_le_bytes(self.approved_at)))
            .mutual(self.flags & MUTUAL != 0)
            .network(self.network)
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
