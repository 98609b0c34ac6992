//! Who a peer is: ids, keys, fingerprints, and the record that says a peer is trusted.
//!
//! A [`NodeId`] is never 0 and a [`PublicKey`] is never malformed or of small order, wherever it comes from; code that
//! holds one does not check again.
#![forbid(unsafe_code)]

use core::fmt;
use core::num::NonZeroU32;
use core::str::FromStr;

use base64::Engine as _;
use sha2::{Digest as _, Sha256};

use crate::time::WallMillis;

#[cfg(feature = "serde")]
mod json;
mod key_fault;
mod kind;
mod mark;
mod nonce;
mod small_order;
mod source;

pub use key_fault::{KeyFault, Void};
pub use kind::Kind;
pub(crate) use mark::Marked;
pub use mark::{Marks, Revocation};
pub use nonce::{InvalidRevocationId, Nonce, RevocationId};
#[cfg(test)]
pub(crate) use small_order::Y as SMALL_ORDER;
pub use source::Source;

/// A node of the network: any `u32` but 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU32);

impl NodeId {
    /// The node with this number; `None` for 0, which is no node.
    #[must_use]
    #[inline]
    pub const fn new(id: u32) -> Option<Self> {
        match NonZeroU32::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number, never 0.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// The number 0 (or a text that is no number from 1 to 4294967295) was offered as a node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidNodeId;

impl fmt::Display for InvalidNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node id is a number from 1 to 4294967295")
    }
}

impl core::error::Error for InvalidNodeId {}

impl TryFrom<u32> for NodeId {
    type Error = InvalidNodeId;

    fn try_from(id: u32) -> Result<Self, InvalidNodeId> {
        Self::new(id).ok_or(InvalidNodeId)
    }
}

impl TryFrom<u64> for NodeId {
    type Error = InvalidNodeId;

    fn try_from(id: u64) -> Result<Self, InvalidNodeId> {
        u32::try_from(id).ok().and_then(Self::new).ok_or(InvalidNodeId)
    }
}

impl From<NonZeroU32> for NodeId {
    fn from(id: NonZeroU32) -> Self {
        Self(id)
    }
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, InvalidNodeId> {
        // `u32::from_str` takes a leading plus sign; an id does not.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidNodeId);
        }
        text.parse::<u32>().ok().and_then(Self::new).ok_or(InvalidNodeId)
    }
}

impl From<NodeId> for u32 {
    fn from(id: NodeId) -> Self {
        id.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

/// An Ed25519 public key: 32 bytes that are canonical and not of small order.
///
/// Half of all such bytes name no point of the curve. Whether these do is found out where signatures are checked
/// (`is_on_curve`, feature `handshake`), for it takes the arithmetic of the curve. A key that names none fails closed: no
/// signature verifies under it, and it equals no key of a message.
///
/// `Debug` prints the fingerprint, not the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// Why 32 bytes (or a text) are not a [`PublicKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The text is not strict, padded standard base64 of exactly 32 bytes.
    Encoding,
    /// The bytes are no canonical encoding, or name no point of the curve where that was to be found out.
    Malformed,
    /// The point has small order: anybody can forge signatures that verify under it.
    Weak,
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoding => "a public key is 32 bytes in padded standard base64",
            Self::Malformed => "not a canonical Ed25519 public key",
            Self::Weak => "a public key of small order, under which anybody can forge signatures",
        })
    }
}

impl core::error::Error for InvalidKey {}

impl PublicKey {
    /// The key with these bytes, checked.
    ///
    /// # Errors
    /// [`InvalidKey::Malformed`] or [`InvalidKey::Weak`]: refuse whatever came with the key.
    ///
    /// # Complexity
    /// Some comparisons of bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, InvalidKey> {
        // A canonical y has two encodings, of x and of -x, which differ unless x is 0: then the one with the sign is not
        // canonical, but that x has small order, and so neither of the two passes.
        if !is_below_the_prime(&bytes) {
            return Err(InvalidKey::Malformed);
        }
        Self::from_checksummed(bytes)
    }

    /// The key with these bytes, which come from a file of ours whose checksum held.
    ///
    /// Keys of small order are refused here too (there are fourteen encodings, compared as bytes).
    pub(crate) fn from_checksummed(bytes: [u8; 32]) -> Result<Self, InvalidKey> {
        if Self::is_small_order(&bytes) { Err(InvalidKey::Weak) } else { Ok(Self(bytes)) }
    }

    /// Whether these bytes are a point of small order, in any encoding.
    #[inline]
    pub(crate) fn is_small_order(bytes: &[u8; 32]) -> bool {
        small_order::is_one(bytes)
    }

    /// The key with these bytes, which [`PublicKey::as_bytes`] gave.
    #[inline]
    pub(crate) const fn restored(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the key.
    #[must_use]
    #[inline]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key's fingerprint, to be compared by people.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = Sha256::digest(self.0);
        let mut first = [0; 16];
        for (to, from) in first.iter_mut().zip(digest.iter()) {
            *to = *from;
        }
        Fingerprint(first)
    }

    /// The key in padded standard base64, as it stands in messages and peers files.
    #[must_use]
    pub fn to_base64(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(self.0)
    }
}

/// In padded standard base64, as [`PublicKey::to_base64`].
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_base64())
    }
}

impl TryFrom<[u8; 32]> for PublicKey {
    type Error = InvalidKey;

    fn try_from(bytes: [u8; 32]) -> Result<Self, InvalidKey> {
        Self::from_bytes(bytes)
    }
}

impl AsRef<[u8]> for PublicKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| InvalidKey::Encoding)?;
        Self::from_bytes(bytes.try_into().map_err(|_| InvalidKey::Encoding)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

/// The first 16 bytes of the SHA-256 of a public key: what an operator compares and approves.
///
/// Written as eight groups of four hexadecimal digits, `1a2b:...`; read with or without the colons, in either case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 16]);

/// A text that is not 32 hexadecimal digits, with or without colons between groups of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidFingerprint;

impl fmt::Display for InvalidFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fingerprint is eight groups of four hexadecimal digits, such as 1a2b:3c4d:...")
    }
}

impl core::error::Error for InvalidFingerprint {}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let mut digits = text.chars().filter(|&c| c != ':').map(|c| c.to_digit(16));
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let (high, low) = (digits.next().flatten(), digits.next().flatten());
            let (Some(high), Some(low)) = (high, low) else { return Err(InvalidFingerprint) };
            *byte = u8::try_from(high * 16 + low).map_err(|_| InvalidFingerprint)?;
        }
        if digits.next().is_some() { Err(InvalidFingerprint) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if index > 0 && index % 2 == 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// That a peer is trusted, since when, and under which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TrustRecord {
    /// The peer.
    pub node_id: NodeId,
    /// The peer's key, or `None` while the record is *unbound*: no key has been vouched for yet.
    pub public_key: Option<PublicKey>,
    /// When trust was granted, by our own wall clock; 0 when not known.
    pub approved_at: WallMillis,
    /// Whether both sides asked for it.
    pub mutual: bool,
    /// The network whose shared membership granted it; 0 for none.
    pub network: u16,
}

impl TrustRecord {
    /// Trust in `node_id` under `key` (a [`PublicKey`], or an `Option` of one); not mutual, no network, time not known.
    ///
    /// # Examples
    /// ```
    /// use trustkeep::{NodeId, TrustRecord, WallMillis};
    /// let peer = NodeId::new(7).ok_or(trustkeep::InvalidNodeId)?;
    /// let record = TrustRecord::new(peer, None).mutual(true).approved_at(WallMillis::new(1_772_532_000_123));
    /// assert!(record.mutual && record.public_key.is_none());
    /// # Ok::<(), trustkeep::InvalidNodeId>(())
    /// ```
    #[must_use]
    pub fn new(node_id: NodeId, key: impl Into<Option<PublicKey>>) -> Self {
        Self { node_id, public_key: key.into(), approved_at: WallMillis::default(), mutual: false, network: 0 }
    }

    /// The same record, granted at this time.
    #[must_use]
    #[inline]
    pub const fn approved_at(mut self, at: WallMillis) -> Self {
        self.approved_at = at;
        self
    }

    /// The same record, with or without both sides having asked.
    #[must_use]
    #[inline]
    pub const fn mutual(mut self, mutual: bool) -> Self {
        self.mutual = mutual;
        self
    }

    /// The same record, granted through this network (0 for none).
    #[must_use]
    #[inline]
    pub const fn network(mut self, network: u16) -> Self {
        self.network = network;
        self
    }

    /// The same record under this key, or unbound.
    #[must_use]
    pub fn key(mut self, key: impl Into<Option<PublicKey>>) -> Self {
        self.public_key = key.into();
        self
    }
}

/// Whether the y coordinate, little-endian below the sign bit, is less than the prime 2^255 - 19.
fn is_below_the_prime(bytes: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = bytes;
    *first < 0xed || last & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_node_and_one_is() {
        assert_eq!(NodeId::new(0), None);
        assert_eq!(NodeId::try_from(0_u32), Err(InvalidNodeId));
        assert_eq!((NodeId::try_from(0_u64), NodeId::try_from(1_u64 << 32)), (Err(InvalidNodeId), Err(InvalidNodeId)));
        assert_eq!(NodeId::try_from(7_u64), Ok(NodeId::from(NonZeroU32::new(7).unwrap())));
        assert_eq!("1".parse::<NodeId>(), Ok(NodeId::new(1).unwrap()));
        for bad in ["", "0", "-1", "+1", "1 ", "4294967296", "x"] {
            assert_eq!(bad.parse::<NodeId>(), Err(InvalidNodeId), "{bad:?}");
        }
        assert_eq!("4294967295".parse::<NodeId>().unwrap().get(), u32::MAX);
    }

    #[test]
    fn every_small_order_key_is_refused_on_both_paths() {
        for y in small_order::Y {
            for sign in [0, 0x80] {
                let mut bytes = y;
                bytes[31] |= sign;
                // Some of these encodings are malformed as well; none may pass.
                assert!(PublicKey::from_bytes(bytes).is_err(), "{bytes:02x?}");
                assert_eq!(PublicKey::from_checksummed(bytes), Err(InvalidKey::Weak));
            }
        }
    }

    #[test]
    fn key_text_is_strict_base64() {
        let text = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";
        let key: PublicKey = text.parse().unwrap();
        assert_eq!((key.to_base64(), format!("{key:>45}")), (text.to_owned(), format!(" {text}")));
        assert_eq!((PublicKey::try_from(*key.as_bytes()), key.as_ref()), (Ok(key), &key.as_bytes()[..]));
        for bad in [&text[..43], "", &format!("{text}\n"), &text.replace("c=", "d="), &text.replace('0', "-")] {
            assert_eq!(bad.parse::<PublicKey>(), Err(InvalidKey::Encoding), "{bad:?}");
        }
        assert_eq!("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse::<PublicKey>(), Err(InvalidKey::Weak));
    }

    #[test]
    fn a_fingerprint_reads_back_and_refuses_other_text() {
        let key: PublicKey = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=".parse().unwrap();
        let text = key.fingerprint().to_string();
        assert_eq!(text.len(), 39);
        assert_eq!(text.parse(), Ok(key.fingerprint()));
        assert_eq!(text.replace(':', "").to_uppercase().parse(), Ok(key.fingerprint()));
        for bad in ["", "1a2b", &text[1..], &format!("{text}0"), &text.replace(':', " ")] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(InvalidFingerprint), "{bad:?}");
        }
    }
}
