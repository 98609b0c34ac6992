//! From texts to values: a [`Decoded`] message has a known type, a sender, a key that signatures can be checked under,
//! a nonce and a stamp. Whether the key signed it is not known yet.
//!
//! Decoding is cheap beside verification and refuses most garbage, so it comes first.
#![forbid(unsafe_code)]

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::message::{Kind, Message, Nonce};
use super::open_key::OpenKey;
use super::rotation::{RawStatement, RotationField};
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
            Self::Version => f.write_str("not a version that this release speaks"),
            Self::Key(error) => write!(f, "public_key: {error}"),
            Self::Field(name) => write!(f, "field `{name}` is missing, malformed or contradicts another"),
        }
    }
}

impl core::error::Error for Undecodable {}

/// A message whose every field means something. Its signature has not been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    pub(super) is_version_1: bool,
    pub(super) kind: Kind,
    pub(super) sender: NodeId,
    pub(super) key: OpenKey,
    pub(super) stamp: WallMillis,
    /// Always there in version 2, never in version 1.
    pub(super) nonce: Option<Nonce>,
    pub(super) answers: Option<Nonce>,
    pub(super) justification: String,
    pub(super) reason: String,
    /// The two nonces as sent, since that is what was signed.
    pub(super) nonce_text: String,
    pub(super) answers_text: String,
    pub(super) signature: [u8; 64],
    pub(super) statement: Option<RawStatement>,
}

impl Decoded {
    /// Whether it is of version 1, whose signature covers neither what it says nor when. If not, it is of version 2.
    #[must_use]
    pub const fn is_version_1(&self) -> bool {
        self.is_version_1
    }

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
        self.key.key()
    }

    /// The key in it, with its point.
    #[must_use]
    pub const fn open_key(&self) -> &OpenKey {
        &self.key
    }

    /// When it says it was sent, by the sender's clock.
    #[must_use]
    pub const fn stamp(&self) -> WallMillis {
        self.stamp
    }

    /// What it says of the key before the one in it.
    #[must_use]
    pub const fn statement(&self) -> Option<&RawStatement> {
        self.statement.as_ref()
    }

    /// The same message as if it carried no statement: for a receiver to whom that says nothing.
    #[must_use]
    pub fn without_statement(self) -> Self {
        Self { statement: None, ..self }
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
    decode_with(message, |_| None)
}

/// The same; `known` has the open keys that need not be opened again.
///
/// # Errors
/// As [`decode`].
///
/// # Complexity
/// As [`decode`]; under a known key there is no decompression.
pub fn decode_with(message: Message, known: impl FnOnce(&[u8; 32]) -> Option<OpenKey>) -> Result<Decoded, Undecodable> {
    let kind = message.kind().ok_or(Undecodable::Kind)?;
    let sender = message.sender().ok_or(Undecodable::Sender)?;
    let is_version_1 = message.is_version_1();
    if !is_version_1 && message.v != Some(2) {
        return Err(Undecodable::Version);
    }
    let key = exactly(&message.public_key).ok_or(Undecodable::Key(InvalidKey::Encoding))?;
    let key = known(&key).map_or_else(|| OpenKey::new(key), Ok).map_err(Undecodable::Key)?;
    if is_version_1 {
        let signature = exactly(&message.signature).ok_or(Undecodable::Field("signature"))?;
        let (stamp, nonce_text, answers_text) = (message.stamp(), String::new(), String::new());
        let Message { justification, reason, .. } = message;
        let (nonce, answers) = (None, None);
        return Ok(Decoded {
            is_version_1,
            kind,
            sender,
            key,
            stamp,
            nonce,
            answers,
            justification,
            reason,
            nonce_text,
            answers_text,
            signature,
            statement: None,
        });
    }
    let stamp = WallMillis::new(message.stamp_ms.ok_or(Undecodable::Field("stamp_ms"))?);
    if message.timestamp != stamp.as_secs() {
        return Err(Undecodable::Field("timestamp"));
    }
    // A sender of version 2 leaves nothing that a receiver of version 1 would take; one that does is not one of ours.
    if !message.signature.is_empty() {
        return Err(Undecodable::Field("signature"));
    }
    let nonce_text = message.nonce.unwrap_or_default();
    let nonce = Some(Nonce(exactly(&nonce_text).ok_or(Undecodable::Field("nonce"))?));
    let answers_text = message.answers.unwrap_or_default();
    let answers = match answers_text.as_str() {
        "" => None,
        text => Some(Nonce(exactly(text).ok_or(Undecodable::Field("answers"))?)),
    };
    let signature = exactly(&message.signature2.unwrap_or_default()).ok_or(Undecodable::Field("signature2"))?;
    let statement = message.rotation.as_ref().map(|field| statement(field).ok_or(Undecodable::Field("rotation")));
    let statement = statement.transpose()?;
    let Message { justification, reason, .. } = Message { nonce: None, answers: None, signature2: None, ..message };
    Ok(Decoded {
        is_version_1,
        kind,
        sender,
        key,
        stamp,
        nonce,
        answers,
        justification,
        reason,
        nonce_text,
        answers_text,
        signature,
        statement,
    })
}

fn statement(field: &RotationField) -> Option<RawStatement> {
    let (old_key, signature) = (exactly(&field.old_key)?, exactly(&field.signature)?);
    Some(RawStatement { old_key, at: WallMillis::new(field.stamp_ms?), signature })
}

/// Strict standard base64 (padded, no whitespace, no stray bits) of exactly `N` bytes.
fn exactly<const N: usize>(text: &str) -> Option<[u8; N]> {
    // The codec asks for room for whole groups of three, and so for up to two bytes more than there may be.
    let mut room = [0; DECODED_BYTES_MAX + 2];
    let bytes = STANDARD.decode_slice(text, &mut room).ok()?;
    room.get(..bytes)?.try_into().ok()
}

/// A signature is the longest of what is decoded.
const DECODED_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::actor::{Actor, at, node};

    fn good() -> Message {
        let mut actor = Actor::new(7, 0xAA);
        let draft = actor.draft(at(0), node(9), Kind::Request, Some(Nonce([5; 16])));
        actor.sign(&draft)
    }

    fn refuses(change: impl FnOnce(&mut Message)) -> Undecodable {
        let mut message = good();
        change(&mut message);
        decode(message).unwrap_err()
    }

    #[test]
    fn each_field_must_be_there_and_mean_something() {
        assert!(decode(good()).is_ok());
        assert_eq!(refuses(|m| m.kind = "handshake_hello".into()), Undecodable::Kind);
        assert_eq!(refuses(|m| m.node_id = 0), Undecodable::Sender);
        assert_eq!(refuses(|m| m.v = None), Undecodable::Version);
        assert_eq!(refuses(|m| m.v = Some(3)), Undecodable::Version);
        assert_eq!(refuses(|m| m.public_key.clear()), Undecodable::Key(InvalidKey::Encoding));
        assert_eq!(refuses(|m| m.stamp_ms = None), Undecodable::Field("stamp_ms"));
        assert_eq!(refuses(|m| m.nonce = None), Undecodable::Field("nonce"));
        assert_eq!(refuses(|m| m.signature2 = None), Undecodable::Field("signature2"));
        assert!(decode(Message { answers: None, ..good() }).unwrap().answers.is_none());
    }

    #[test]
    fn a_key_that_is_open_already_is_taken_and_asked_for_by_its_bytes() {
        let ours = OpenKey::new(*Actor::new(1, 0x33).public_key().as_bytes()).unwrap();
        let sent = Actor::new(7, 0xAA).public_key();
        let decoded = decode_with(good(), |bytes| (bytes == sent.as_bytes()).then_some(ours)).unwrap();
        assert_eq!(decoded.open_key(), &ours, "it was opened once more");
        assert_eq!(decode_with(good(), |_| None).unwrap().key(), &sent);
        let weak = Message { public_key: STANDARD.encode([0; 32]), ..good() };
        assert_eq!(decode_with(weak, |_| None), Err(Undecodable::Key(InvalidKey::Weak)));
    }

    #[test]
    fn the_seconds_must_agree_with_the_stamp() {
        assert_eq!(refuses(|m| m.timestamp += 1), Undecodable::Field("timestamp"));
        assert_eq!(refuses(|m| m.timestamp -= 1), Undecodable::Field("timestamp"));
        // 0 is a time like any other, not "not said".
        assert_eq!(refuses(|m| m.timestamp = 0), Undecodable::Field("timestamp"));
    }

    #[test]
    fn a_message_of_version_2_carries_no_signature_of_version_1() {
        assert_eq!(refuses(|m| m.signature = STANDARD.encode([7; 64])), Undecodable::Field("signature"));
    }

    #[test]
    fn half_of_version_2_is_no_version_1() {
        let bare = |m: &mut Message| {
            (m.v, m.nonce, m.answers, m.stamp_ms, m.signature2) = (None, None, None, None, None);
            m.signature = STANDARD.encode([7; 64]);
        };
        let mut whole = good();
        bare(&mut whole);
        let whole = decode(whole).unwrap();
        assert!(
            whole.is_version_1() && whole.nonce.is_none() && whole.stamp().as_millis() == at(0).wall.as_secs() * 1000
        );
        assert_eq!(
            refuses(|m| {
                bare(m);
                m.signature = STANDARD.encode([7; 63]);
            }),
            Undecodable::Field("signature")
        );
        let half = |m: &mut Message| {
            bare(m);
            m.nonce = Some(STANDARD.encode([1; 16]));
        };
        assert_eq!(refuses(half), Undecodable::Version);
    }

    #[test]
    fn base64_is_strict_and_lengths_are_exact() {
        let nonce = STANDARD.encode([0xFF; 16]);
        for bad in [
            nonce.trim_end_matches('=').to_owned(),
            format!("{nonce}\n"),
            format!(" {nonce}"),
            nonce.replace('/', "_"),
            nonce.replace("w==", "x=="), // the same bytes with stray bits
            STANDARD.encode([0xFF; 15]),
            STANDARD.encode([0xFF; 17]),
        ] {
            assert_ne!(bad, nonce);
            assert_eq!(refuses(|m| m.nonce = Some(bad.clone())), Undecodable::Field("nonce"), "{bad:?}");
            assert_eq!(refuses(|m| m.answers = Some(bad.clone())), Undecodable::Field("answers"), "{bad:?}");
        }
        assert!(decode(Message { nonce: Some(nonce), ..good() }).is_ok());
        for bytes in [63, 65, 66, 67, 100] {
            let other = Some(STANDARD.encode(vec![7; bytes]));
            assert_eq!(refuses(|m| m.signature2 = other), Undecodable::Field("signature2"), "{bytes}");
        }
    }
}
