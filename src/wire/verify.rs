//! The only place where a [`Verified`] message is made: holding one proves that the key in it signed it, for the
//! receiver named in it (but for what this crate's own tests believe), and that its texts are filtered.
//!
//! It does not prove whose key that is. That is decided by the rules of the machine, with what the registry, the
//! transport and the tables know.
#![forbid(unsafe_code)]

use core::fmt;

use sha2::{Digest as _, Sha256};

use super::decode::Decoded;
use super::message::{Kind, Nonce};
use super::open_key::OpenKey;
use super::rotation::Rotation;
use super::sign::{Signed, signing_bytes_v1, signing_bytes_v2};
use super::text::Text;
use crate::peer::{NodeId, PublicKey};
use crate::time::WallMillis;

/// The key in the message did not sign this message for this receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSignature;

impl fmt::Display for BadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature does not verify under the key in the message")
    }
}

impl core::error::Error for BadSignature {}

/// What tells a message of version 1 from others: SHA-256 of its type, a zero, what was signed, a zero, and the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayKey(pub [u8; 32]);

/// A message that the key in it signed for `receiver`.
///
/// It takes at most some 2.5 KiB, however large the message was: the texts as sent are dropped when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Without its texts.
    message: Decoded,
    justification: Text,
    reason: Text,
    receiver: NodeId,
    rotation: Option<Rotation>,
}

impl Verified {
    /// A message that counts as signed though nobody has looked: for tests of what comes after.
    #[cfg(any(test, feature = "__testing"))]
    pub(crate) fn believed(message: Decoded, receiver: NodeId) -> Self {
        let rotation = message.statement.and_then(|raw| Rotation::believed(message.sender, &raw, *message.key.key()));
        Self::new(message, receiver, rotation)
    }

    /// The only way to a value, so that no text as sent goes any further.
    fn new(message: Decoded, receiver: NodeId, rotation: Option<Rotation>) -> Self {
        let (justification, reason) = (Text::filtered(&message.justification), Text::filtered(&message.reason));
        let message = Decoded { justification: String::new(), reason: String::new(), ..message };
        Self { message, justification, reason, receiver, rotation }
    }

    /// Whether it is of version 1: then the key signed neither what it says nor when, only that something goes from the
    /// sender to the receiver.
    #[must_use]
    pub const fn is_version_1(&self) -> bool {
        self.message.is_version_1
    }

    /// What tells it from other messages of version 1; `None` for version 2, which has stamps for that.
    #[must_use]
    pub fn replay_key(&self) -> Option<ReplayKey> {
        let Decoded { is_version_1, kind, sender, ref signature, .. } = self.message;
        is_version_1.then(|| {
            let digest = Sha256::new()
                .chain_update(kind.as_wire())
                .chain_update([0])
                .chain_update(signing_bytes_v1(sender, self.receiver))
                .chain_update([0])
                .chain_update(signature);
            ReplayKey(digest.finalize().into())
        })
    }

    /// What it says.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.message.kind
    }

    /// Who it says it is from.
    #[must_use]
    pub const fn sender(&self) -> NodeId {
        self.message.sender
    }

    /// Whom it was signed for.
    #[must_use]
    pub const fn receiver(&self) -> NodeId {
        self.receiver
    }

    /// The key that signed it.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        self.message.key.key()
    }

    /// When it was sent, by the sender's clock.
    #[must_use]
    pub const fn stamp(&self) -> WallMillis {
        self.message.stamp
    }

    /// Its nonce; every message of version 2 has one, none of version 1.
    #[must_use]
    pub const fn nonce(&self) -> Option<Nonce> {
        self.message.nonce
    }

    /// The nonce of the message that it answers.
    #[must_use]
    pub const fn answers(&self) -> Option<Nonce> {
        self.message.answers
    }

    /// Why it asks.
    #[must_use]
    pub const fn justification(&self) -> &Text {
        &self.justification
    }

    /// Why it refuses.
    #[must_use]
    pub const fn reason(&self) -> &Text {
        &self.reason
    }

    /// The statement that it carries, by which another key named this one as its successor.
    #[must_use]
    pub const fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }
}

/// Verifies a message under the key in it, and the statement that it carries under the key in that.
///
/// # Errors
/// [`BadSignature`]: drop the message.
///
/// # Complexity
/// One strict Ed25519 verification for each, some tens of microseconds: do the cheap checks first, and hold no lock.
pub fn verify(message: Decoded, receiver: NodeId) -> Result<Verified, BadSignature> {
    if message.is_version_1 {
        check(message.key.signed(&signing_bytes_v1(message.sender, receiver), &message.signature))?;
        return Ok(Verified::new(message, receiver, None));
    }
    let bytes = signing_bytes_v2(&Signed {
        kind: message.kind,
        sender: message.sender,
        receiver,
        stamp: message.stamp,
        nonce: &message.nonce_text,
        answers: &message.answers_text,
        key: message.key.key(),
        justification: &message.justification,
        reason: &message.reason,
    });
    check(message.key.signed(&bytes, &message.signature))?;
    let statement = message.statement.map(|raw| raw.check(message.sender, message.key.key()));
    let rotation = statement.transpose().map_err(|_| BadSignature)?;
    Ok(Verified::new(message, receiver, rotation))
}

/// Checks a version-1 signature. It proves only that the key once signed something from `sender` to `receiver`.
///
/// # Errors
/// [`BadSignature`].
pub fn verify_v1(key: &PublicKey, sender: NodeId, receiver: NodeId, signature: &[u8; 64]) -> Result<(), BadSignature> {
    let key = OpenKey::new(*key.as_bytes()).map_err(|_| BadSignature)?;
    check(key.signed(&signing_bytes_v1(sender, receiver), signature))
}

fn check(signed: bool) -> Result<(), BadSignature> {
    if signed { Ok(()) } else { Err(BadSignature) }
}
