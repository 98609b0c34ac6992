//! The entries of each table as they stand in a block: their own types, so that no change of a type in memory changes a
//! byte on disk.
#![forbid(unsafe_code)]

use bincode::{Decode, Encode};

use super::blocks::BLOCK_BYTES_MAX;
use super::stored::StoredKey;
use super::version_1::{FloorV1, OutgoingV1, PendingV1, RevokedV1};
use crate::map::Value;
use crate::peer::{NodeId, PublicKey};
use crate::time::WallMillis;

/// Fixed-width little-endian integers and, whatever a length field says, no allocation beyond one block.
const CODEC: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<BLOCK_BYTES_MAX>,
> = bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<BLOCK_BYTES_MAX>();

/// What can be written into a block of its kind.
pub(super) trait Put {
    const KIND: u8;

    /// Writes the entry at the start of `room` and returns how many bytes it has; `None` if it does not fit, and then
    /// anything may stand there.
    fn put(&self, room: &mut [u8]) -> Option<usize>;
}

/// An entry that is read from a block, too.
pub(super) trait Entry: Put + Sized {
    /// The entry at the start of these bytes, and how many it has; `None` if there is none.
    fn take(bytes: &[u8]) -> Option<(Self, usize)>;
}

/// Entries that the codec writes and reads.
macro_rules! by_codec {
    ($($entry:ty = $kind:expr),* $(,)?) => { $(
        impl Put for $entry {
            const KIND: u8 = $kind;

            fn put(&self, room: &mut [u8]) -> Option<usize> {
                bincode::encode_into_slice(self, room, CODEC).ok()
            }
        }

        impl Entry for $entry {
            fn take(bytes: &[u8]) -> Option<(Self, usize)> {
                bincode::decode_from_slice(bytes, CODEC).ok()
            }
        }
    )* };
}
by_codec!(PendingV1 = 2, OutgoingV1 = 3, RevokedV1 = 4, FloorV1 = 5);
// Those that end a group and a snapshot.
by_codec!(super::snapshot::EndV2 = 253, super::journal::CommitV1 = 254, super::snapshot::EndV1 = 255);

/// An entry of the table with this number: its key, and then what the key has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryV2<const TABLE: u8, K: StoredKey, S> {
    pub(super) key: K::Stored,
    pub(super) value: S,
}

impl<const TABLE: u8, K: StoredKey, S: Encode> Put for EntryV2<TABLE, K, S> {
    const KIND: u8 = 10 + TABLE;

    fn put(&self, room: &mut [u8]) -> Option<usize> {
        let used = bincode::encode_into_slice(self.key, room, CODEC).ok()?;
        let behind = room.get_mut(used..)?;
        Some(used + bincode::encode_into_slice(&self.value, behind, CODEC).ok()?)
    }
}

impl<const TABLE: u8, K: StoredKey, S: Encode + Decode<()>> Entry for EntryV2<TABLE, K, S> {
    fn take(bytes: &[u8]) -> Option<(Self, usize)> {
        let (key, used) = bincode::decode_from_slice(bytes, CODEC).ok()?;
        let (value, more) = bincode::decode_from_slice(bytes.get(used..)?, CODEC).ok()?;
        Some((Self { key, value }, used + more))
    }
}

impl<const TABLE: u8, K: StoredKey, S> KeyOf for EntryV2<TABLE, K, S> {
    type Key = K;

    fn key(&self) -> Result<K, &'static str> {
        K::read(&self.key)
    }
}

/// Writes these bytes at the start of `rest`, which then begins behind them; `None` if they do not fit.
#[inline]
fn put<const N: usize>(rest: &mut &mut [u8], bytes: &[u8; N]) -> Option<()> {
    let (to, behind) = core::mem::take(rest).split_first_chunk_mut::<N>()?;
    (*to, *rest) = (*bytes, behind);
    Some(())
}

/// The first bytes of `rest`, which then begins behind them; `None` if it is too short.
#[inline]
fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(head)
}

#[inline]
fn take_bool(rest: &mut &[u8]) -> Option<bool> {
    match take(rest)? {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

/// The key of an entry that has one.
pub(super) trait KeyOf {
    type Key;

    fn key(&self) -> Result<Self::Key, &'static str>;
}

macro_rules! ids {
    ($($entry:ty),*) => { $(
        impl KeyOf for $entry {
            type Key = NodeId;

            fn key(&self) -> Result<NodeId, &'static str> {
                NodeId::read(&self.id)
            }
        }
    )* };
}
ids!(TrustedV1<'_>, PendingV1, OutgoingV1, RevokedV1, FloorV1);

/// In a journal: an entry of table `TABLE` that is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoneV1<const TABLE: u8, K: StoredKey> {
    key: K::Stored,
}

impl<const TABLE: u8, K: StoredKey> GoneV1<TABLE, K> {
    pub(super) fn new(key: K) -> Self {
        Self { key: key.stored() }
    }
}

impl<const TABLE: u8, K: StoredKey> Put for GoneV1<TABLE, K> {
    const KIND: u8 = 100 + TABLE;

    fn put(&self, room: &mut [u8]) -> Option<usize> {
        bincode::encode_into_slice(self.key, room, CODEC).ok()
    }
}

impl<const TABLE: u8, K: StoredKey> Entry for GoneV1<TABLE, K> {
    fn take(bytes: &[u8]) -> Option<(Self, usize)> {
        let (key, used) = bincode::decode_from_slice(bytes, CODEC).ok()?;
        Some((Self { key }, used))
    }
}

impl<const TABLE: u8, K: StoredKey> KeyOf for GoneV1<TABLE, K> {
    type Key = K;

    fn key(&self) -> Result<K, &'static str> {
        K::read(&self.key)
    }
}

/// A trusted record, whose key stays where it is: written and read by hand, in a tenth of the codec's time, for there may
/// be millions of these. A test shows that the bytes are the codec's, and that what it refuses is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrustedV1<'a> {
    id: u32,
    key: Option<&'a [u8; 32]>,
    approved_at: i64,
    mutual: bool,
    network: u16,
}

impl Put for TrustedV1<'_> {
    const KIND: u8 = 1;

    #[inline]
    fn put(&self, room: &mut [u8]) -> Option<usize> {
        let bytes = if self.key.is_some() { TRUSTED_BYTES_MAX } else { TRUSTED_BYTES_MIN };
        let mut rest = room.get_mut(..bytes)?;
        put(&mut rest, &self.id.to_le_bytes())?;
        put(&mut rest, &[u8::from(self.key.is_some())])?;
        if let Some(key) = self.key {
            put(&mut rest, key)?;
        }
        put(&mut rest, &self.approved_at.to_le_bytes())?;
        put(&mut rest, &[u8::from(self.mutual)])?;
        put(&mut rest, &self.network.to_le_bytes())?;
        Some(bytes)
    }
}

impl<'a> TrustedV1<'a> {
    pub(super) fn new(id: u32, value: &'a Value) -> Self {
        let (approved_at, mutual, network) = (value.approved_at().as_millis(), value.mutual(), value.network());
        Self { id, key: value.key(), approved_at, mutual, network }
    }

    /// The entry at the start of these bytes, and how many it has; `None` if there is none.
    #[inline]
    pub(super) fn take(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let mut rest = bytes;
        let entry = Self {
            id: u32::from_le_bytes(*take(&mut rest)?),
            key: if take_bool(&mut rest)? { Some(take(&mut rest)?) } else { None },
            approved_at: i64::from_le_bytes(*take(&mut rest)?),
            mutual: take_bool(&mut rest)?,
            network: u16::from_le_bytes(*take(&mut rest)?),
        };
        Some((entry, bytes.len() - rest.len()))
    }

    /// The id as it stands there, which may be 0.
    #[inline]
    pub(super) fn number(&self) -> u32 {
        self.id
    }

    #[inline]
    pub(super) fn read(&self) -> Result<Value, &'static str> {
        if self.key.is_some_and(PublicKey::is_small_order) {
            return Err("a key of small order");
        }
        Ok(Value::restored(self.key, WallMillis::new(self.approved_at), self.mutual, self.network))
    }
}

/// Of a trusted entry without a key: id, whether there is one, approved at, mutual, network.
pub(super) const TRUSTED_BYTES_MIN: usize = 4 + 1 + 8 + 1 + 2;
const TRUSTED_BYTES_MAX: usize = TRUSTED_BYTES_MIN + 32;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the codec reads and writes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
    struct Owned {
        id: u32,
        key: Option<[u8; 32]>,
        approved_at: i64,
        mutual: bool,
        network: u16,
    }

    fn by_hand(bytes: &[u8]) -> Option<(Owned, usize)> {
        let (TrustedV1 { id, key, approved_at, mutual, network }, used) = TrustedV1::take(bytes)?;
        Some((Owned { id, key: key.copied(), approved_at, mutual, network }, used))
    }

    fn by_codec(bytes: &[u8]) -> Option<(Owned, usize)> {
        bincode::decode_from_slice(bytes, CODEC).ok()
    }

    fn entries() -> impl Strategy<Value = Owned> {
        let fields = (any::<u32>(), any::<Option<[u8; 32]>>(), any::<i64>(), any::<bool>(), any::<u16>());
        fields.prop_map(|(id, key, approved_at, mutual, network)| Owned { id, key, approved_at, mutual, network })
    }

    proptest! {
        #[test]
        fn a_trusted_entry_by_hand_is_the_codecs(
            entry in entries(), room in 0..80usize, cut in 0..60usize, flip in any::<(prop::sample::Index, u8)>(),
        ) {
            let Owned { id, ref key, approved_at, mutual, network } = entry;
            let written = TrustedV1 { id, key: key.as_ref(), approved_at, mutual, network };
            let (mut ours, mut codecs) = ([0xa5; 80], [0xa5; 80]);
            let fits = written.put(&mut ours[..room]);
            prop_assert_eq!(fits, bincode::encode_into_slice(entry, &mut codecs[..room], CODEC).ok());
            if let Some(bytes) = fits {
                prop_assert_eq!(ours, codecs);
                prop_assert_eq!(by_hand(&ours), Some((entry, bytes)));
            }
            let _ = written.put(&mut ours);
            // Whole, cut, and with one byte changed; flags are the ones that can be wrong.
            prop_assert_eq!(by_hand(&ours[..cut]), by_codec(&ours[..cut]));
            for at in [flip.0.index(48), 4, 13, 45] {
                let mut damaged = ours;
                damaged[at] = flip.1;
                prop_assert_eq!(by_hand(&damaged[..cut]), by_codec(&damaged[..cut]));
                prop_assert_eq!(by_hand(&damaged), by_codec(&damaged));
            }
        }

        #[test]
        fn of_any_bytes_the_hand_reads_what_the_codec_reads(bytes in prop::collection::vec(0..4u8, 0..60)) {
            prop_assert_eq!(by_hand(&bytes), by_codec(&bytes));
        }

        #[test]
        fn an_id_that_is_gone_by_hand_is_the_codecs(id in any::<u32>(), room in 0..8usize, bytes in any::<[u8; 8]>()) {
            let (mut ours, mut codecs) = ([0xa5; 8], [0xa5; 8]);
            let fits = GoneV1::<1, u32>::new(id).put(&mut ours[..room]);
            prop_assert_eq!(fits, bincode::encode_into_slice(id, &mut codecs[..room], CODEC).ok());
            prop_assert!(fits.is_none() || ours == codecs);
            let read = GoneV1::<1, u32>::take(&bytes[..room]).map(|(gone, used)| (gone.key, used));
            prop_assert_eq!(read, bincode::decode_from_slice(&bytes[..room], CODEC).ok());
        }
    }
}
