//! From texts to values: a [`Decoded`] message has a known type, a sender, a key that signatures can be checked under,
//! a nonce and a stamp. Whether the key signed it is not known yet.
//!
//! Decoding is cheap beside verification and refuses most garbage, so it comes first.
#![forbid(unsafe_code)]

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::message::{Kind, Message, Nonce};
use crate::peer::{InvalidKey, NodeId, PublicKey};
use crate::time::WallMillis;

/// Why a message of the right shape means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undecodable {
    /// A type that this release does not know.
    Kind,
    /// The sender is node 0.
    Sender,
    /// A message of version 1, which is not accepted.
    Version1,
    /// A version that this release does not speak, or fields of version 2 without `v`.
    Version,
    /// The public key is absent, malformed or weak.
    Key(InvalidKey),
    /// A field that is absent, not strict base64, of the wrong length, or at odds with another.
    Field(&'static str),
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => f.write_str("unknown type"),
            Self::Sender => f.write_str("node 0 is no sender"),
            Self::Version1 => f.write_str("messages of version 1 are not accepted"),
            Self::Version => f.write_str("not a version that this release speaks"),
            Self::Key(error) => write!(f, "public_key: {error}"),
            Self::Field(name) => write!(f, "field `{name}` is missing, malformed or contradicts another"),
        }
    }
}

impl core::error::Error for Undecodable {}

/// A version-2 message whose every field means something. Its signature has not been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    pub(super) kind: Kind,
    pub(super) sender: NodeId,
    pub(super) key: PublicKey,
    pub(super) stamp: WallMillis,
    pub(super) nonce: Nonce,
    pub(super) answers: Option<Nonce>,
    pub(super) justification: String,
    pub(super) reason: String,
    /// The two nonces as sent, since that is what was signed.
    pub(super) nonce_text: String,
    pub(super) answers_text: String,
    pub(super) signature: [u8; 64],
}

impl Decoded {
    /// What it says.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Who it says it is from.
    #[must_use]
    pub const fn sender(&self) -> NodeId {
        self.sender
    }

    /// The key in it.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// When it says it was sent, by the sender's clock.
    #[must_use]
    pub const fn stamp(&self) -> WallMillis {
        self.stamp
    }
}

/// Decodes every field of a message.
///
/// # Errors
/// [`Undecodable`]: drop the message.
///
/// # Complexity
/// One point decompression, some microseconds.
pub fn decode(message: Message) -> Result<Decoded, Undecodable> {
    let kind = message.kind().ok_or(Undecodable::Kind)?;
    let sender = message.sender().ok_or(Undecodable::Sender)?;
    if message.is_version_1() {
        return Err(Undecodable::Version1);
    }
    if message.v != Some(2) {
        return Err(Undecodable::Version);
    }
    let key = message.public_key.parse().map_err(Undecodable::Key)?;
    let stamp = WallMillis::new(message.stamp_ms.ok_or(Undecodable::Field("stamp_ms"))?);
    if message.timestamp != stamp.as_secs() {
        return Err(Undecodable::Field("timestamp"));
    }
    // A sender of version 2 leaves nothing that a receiver of version 1 would take; one that does is not one of ours.
    if !message.signature.is_empty() {
        return Err(Undecodable::Field("signature"));
    }
    let nonce_text = message.nonce.unwrap_or_default();
    let nonce = Nonce(exactly(&nonce_text).ok_or(Undecodable::Field("nonce"))?);
    let answers_text = message.answers.unwrap_or_default();
    let answers = match answers_text.as_str() {
        "" => None,
        text => Some(Nonce(exactly(text).ok_or(Undecodable::Field("answers"))?)),
    };
    let signature = exactly(&message.signature2.unwrap_or_default()).ok_or(Undecodable::Field("signature2"))?;
    let Message { justification, reason, .. } = Message { nonce: None, answers: None, signature2: None, ..message };
    Ok(Decoded { kind, sender, key, stamp, nonce, answers, justification, reason, nonce_text, answers_text, signature })
}

/// Strict standard base64 (padded, no whitespace, no stray bits) of exactly `N` bytes.
fn exactly<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
