//! What a signature covers, and how a draft of ours becomes a signed message.
//!
//! A version-2 signature covers everything that a receiver acts upon: type, both ids, stamp, nonces, key and texts.
//! The ten lines are fixed by `docs/protocol.md`; no field can contain a newline when they are built, so no two
//! messages share them.
#![forbid(unsafe_code)]

use core::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::message::{Kind, Message, Nonce};
use crate::peer::{NodeId, PublicKey};
use crate::time::WallMillis;

/// A message of ours that is not signed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Whom it is for.
    pub to: NodeId,
    /// What it says.
    pub kind: Kind,
    /// Why we ask; empty except in a request.
    pub justification: String,
    /// Why we refuse; empty except in a reject.
    pub reason: String,
    /// Its own nonce.
    pub nonce: Nonce,
    /// The nonce of the request that it answers.
    pub answers: Option<Nonce>,
    /// When it was drawn up, by our clock; greater than any stamp sent to this peer before.
    pub stamp: WallMillis,
    /// The peer's key that it was decided for, which is not sent: an accept tells of trust under it, a reject refuses a
    /// request under it. None: it is for the peer, whatever its key.
    pub for_key: Option<PublicKey>,
}

/// The fields that a version-2 signature covers, as they stand in the message.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// What it says.
    pub kind: Kind,
    /// Who signs.
    pub sender: NodeId,
    /// Whom it is for.
    pub receiver: NodeId,
    /// `stamp_ms`.
    pub stamp: WallMillis,
    /// `nonce`, in base64.
    pub nonce: &'a str,
    /// `answers`, in base64, or empty.
    pub answers: &'a str,
    /// The sender's key.
    pub key: &'a PublicKey,
    /// `justification`, unfiltered.
    pub justification: &'a str,
    /// `reason`, unfiltered.
    pub reason: &'a str,
}

/// The bytes that `signature2` signs: ten lines, each ended by one newline.
#[must_use]
pub fn signing_bytes_v2(signed: &Signed<'_>) -> Vec<u8> {
    let mut lines = String::with_capacity(LINES_BYTES);
    // Writing to a text in memory has no way to fail.
    let _ = write!(
        lines,
        "trustkeep handshake 2\n{}\n{}\n{}\n{}\n{}\n{}\n",
        signed.kind.as_wire(),
        signed.sender,
        signed.receiver,
        signed.stamp.as_millis(),
        signed.nonce,
        signed.answers,
    );
    let mut lines = lines.into_bytes();
    for text in [signed.key.as_bytes().as_slice(), signed.justification.as_bytes(), signed.reason.as_bytes()] {
        push_hex(&mut lines, &Sha256::digest(text));
        lines.push(b'\n');
    }
    lines
}

/// The bytes that `signature` signs in version 1: neither type nor time, which is why version 1 proves so little.
#[must_use]
pub fn signing_bytes_v1(sender: NodeId, receiver: NodeId) -> Vec<u8> {
    format!("handshake:{sender}:{receiver}").into_bytes()
}

/// Signs a draft: the message as it is to be sent.
///
/// `sign` is given the bytes to sign and answers with the Ed25519 signature under `own_key`.
#[must_use]
pub fn sign_draft(own_id: NodeId, own_key: &PublicKey, draft: &Draft, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Message {
    let nonce = STANDARD.encode(draft.nonce.0);
    let answers = draft.answers.map(|nonce| STANDARD.encode(nonce.0)).unwrap_or_default();
    let signature = sign(&signing_bytes_v2(&Signed {
        kind: draft.kind,
        sender: own_id,
        receiver: draft.to,
        stamp: draft.stamp,
        nonce: &nonce,
        answers: &answers,
        key: own_key,
        justification: &draft.justification,
        reason: &draft.reason,
    }));
    Message {
        kind: draft.kind.as_wire().to_owned(),
        node_id: own_id.get(),
        public_key: own_key.to_base64(),
        justification: draft.justification.clone(),
        // Nothing that a receiver of version 1 would take.
        signature: String::new(),
        reason: draft.reason.clone(),
        timestamp: draft.stamp.as_secs(),
        v: Some(2),
        nonce: Some(nonce),
        answers: Some(answers),
        stamp_ms: Some(draft.stamp.as_millis()),
        signature2: Some(STANDARD.encode(signature)),
        rotation: None,
    }
}

/// Signs a draft in version 1: neither what it says nor when it was sent is signed, so it means something only over a
/// connection that both ends authenticated. Nonces are left out.
#[must_use]
pub fn sign_draft_v1(
    own_id: NodeId,
    own_key: &PublicKey,
    draft: &Draft,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Message {
    Message {
        kind: draft.kind.as_wire().to_owned(),
        node_id: own_id.get(),
        public_key: own_key.to_base64(),
        justification: draft.justification.clone(),
        signature: STANDARD.encode(sign(&signing_bytes_v1(own_id, draft.to))),
        reason: draft.reason.clone(),
        timestamp: draft.stamp.as_secs(),
        v: None,
        nonce: None,
        answers: None,
        stamp_ms: None,
        signature2: None,
        rotation: None,
    }
}

fn push_hex(into: &mut Vec<u8>, bytes: &[u8]) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
    into.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

/// Enough for any ten lines whose nonces are of the right length.
const LINES_BYTES: usize = 384;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::actor::{Actor, BEGIN_MS, node};
    use crate::wire::decode::{Undecodable, decode};
    use crate::wire::verify::{BadSignature, verify, verify_v1};
    use ed25519_dalek::{Signer as _, SigningKey};

    fn nonce_from(first: u8) -> Nonce {
        Nonce(core::array::from_fn(|index| first + u8::try_from(index).unwrap()))
    }

    /// Request 7 -> 9 and accept 9 -> 7 of docs/protocol.md.
    fn known_answers() -> [(Actor, Draft, usize, &'static str, &'static str); 2] {
        let request = Draft {
            to: node(9),
            kind: Kind::Request,
            justification: "weather feed".into(),
            reason: String::new(),
            nonce: nonce_from(0x00),
            answers: None,
            stamp: WallMillis::new(BEGIN_MS),
            for_key: None,
        };
        let accept = Draft {
            to: node(7),
            kind: Kind::Accept,
            justification: String::new(),
            reason: String::new(),
            nonce: nonce_from(0x10),
            answers: Some(nonce_from(0x00)),
            stamp: WallMillis::new(BEGIN_MS + 333),
            for_key: None,
        };
        [
            (
                Actor::new(7, 0xAA),
                request,
                279,
                "13df59bdd252e857a2bbb3f3b35efaa035552093799a86554e3720f02f37d8ef",
                "f7NfSkG4tnXXD59HjdfF/lZMR1WpSdCeFLxObrfXusge9mHvSv2N/g7s3m9aJqbTHRvyX0j3IYIDhZ/u3d5HAg==",
            ),
            (
                Actor::new(9, 0x11),
                accept,
                302,
                "5ce21fbe4e85e61d1fab6a0ba76e17b56c6854c3c86ff51484ea2056485a44d8",
                "5uB6nX+WWFbsjxci6sWc+e6EwRysT63ooyQz+edUE4WmXLm5DLPLmAN2Gtc9DkyHM+q0HC/EYL6rYJ0kOG91CQ==",
            ),
        ]
    }

    #[test]
    fn version_2_gives_the_known_answers() {
        for (actor, draft, len, digest, signature) in known_answers() {
            let mut signed = Vec::new();
            let message = sign_draft(actor.id(), &actor.public_key(), &draft, |bytes| {
                signed = bytes.to_vec();
                STANDARD.decode(signature).unwrap().try_into().unwrap()
            });
            let mut hex = Vec::new();
            push_hex(&mut hex, &Sha256::digest(&signed));
            assert_eq!((signed.len(), hex.as_slice()), (len, digest.as_bytes()));
            assert_eq!(actor.sign(&draft), message, "our own key makes the known signature");
            assert_eq!(message.signature, "", "nothing for a receiver of version 1");
            assert_eq!(message.timestamp, 1_772_532_000);

            let read = Message::parse(&message.to_json()).unwrap();
            let verified = verify(decode(read).unwrap(), draft.to).unwrap();
            assert_eq!(
                (verified.sender(), verified.kind(), verified.key()),
                (actor.id(), draft.kind, &actor.public_key())
            );
            assert_eq!(
                (verified.nonce(), verified.answers(), verified.stamp()),
                (Some(draft.nonce), draft.answers, draft.stamp)
            );
            assert_eq!(verified.justification().as_str(), draft.justification);
        }
    }

    #[test]
    fn every_signed_field_is_covered() {
        let (actor, draft, ..) = known_answers().into_iter().next().unwrap();
        let good = actor.sign(&draft);
        let to = draft.to;
        assert!(verify(decode(good.clone()).unwrap(), to).is_ok());
        assert_eq!(verify(decode(good.clone()).unwrap(), node(8)), Err(BadSignature), "receiver");
        type Change = fn(&mut Message);
        let changes: [(&str, Change); 8] = [
            ("type", |m| m.kind = "handshake_revoke".into()),
            ("node_id", |m| m.node_id = 6),
            ("public_key", |m| m.public_key = Actor::new(1, 0x11).public_key().to_base64()),
            ("justification", |m| m.justification.push(' ')),
            ("reason", |m| m.reason.push(' ')),
            ("nonce", |m| m.nonce = Some(STANDARD.encode([1; 16]))),
            ("answers", |m| m.answers = Some(STANDARD.encode([1; 16]))),
            ("stamp_ms", |m| m.stamp_ms = m.stamp_ms.map(|stamp| stamp + 1)),
        ];
        for (name, change) in changes {
            let mut changed = good.clone();
            change(&mut changed);
            assert_eq!(verify(decode(changed).unwrap(), to), Err(BadSignature), "{name}");
        }
    }

    #[test]
    fn version_1_gives_the_known_answers() {
        for (seed, key, signature) in [
            (
                0x11,
                "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=",
                "9auPC5QxyqzgMxDRNOobKtP68YdfUXwITa4UQm353nLt1aOYZMcDJ660SRvJmuyAXAWd0EcV3KZkZQcAbfe1BQ==",
            ),
            (
                0xAA,
                "5zTqbCtiV95yNV5HKqBaTEh+a0Y8Ap7TBt8vAbVja1g=",
                "v6TQVobLGauMUF7RJu5vxbJA9aWMSQQhZea5bdsQIOkMOya2zGHmlgAoFmDbxGeXEoqQQVc3puv5KWpUzbOHCg==",
            ),
        ] {
            let (sender, receiver) = (node(7), node(9));
            let made = SigningKey::from_bytes(&[seed; 32]).sign(&signing_bytes_v1(sender, receiver)).to_bytes();
            assert_eq!(STANDARD.encode(made), signature);
            let key = key.parse().unwrap();
            assert_eq!(Actor::new(7, seed).public_key(), key);
            assert_eq!(verify_v1(&key, sender, receiver, &made), Ok(()));
            assert_eq!(verify_v1(&key, receiver, sender, &made), Err(BadSignature));
        }
    }

    #[test]
    fn a_message_of_version_1_is_written_read_and_told_from_others() {
        let (actor, mut draft, ..) = known_answers().into_iter().next().unwrap();
        let message = actor.sign_v1(&draft);
        let json = String::from_utf8(message.to_json()).unwrap();
        assert!(
            ["\"v\"", "nonce", "answers", "stamp_ms", "signature2"].iter().all(|field| !json.contains(field)),
            "{json}"
        );
        assert_eq!(
            message.signature,
            "v6TQVobLGauMUF7RJu5vxbJA9aWMSQQhZea5bdsQIOkMOya2zGHmlgAoFmDbxGeXEoqQQVc3puv5KWpUzbOHCg=="
        );
        let read = |message: Message, to| verify(decode(Message::parse(&message.to_json()).unwrap()).unwrap(), to);
        let verified = read(message.clone(), node(9)).unwrap();
        assert!(verified.is_version_1());
        assert_eq!(
            (verified.nonce(), verified.answers(), verified.justification().as_str()),
            (None, None, "weather feed")
        );
        assert_eq!(read(message.clone(), node(8)), Err(BadSignature));
        assert_eq!(read(Message { node_id: 6, ..message.clone() }, node(9)), Err(BadSignature));
        // Only the type and the signature tell messages apart, for nothing else cannot be changed by anybody.
        let mut bytes = b"handshake_request\0handshake:7:9\0".to_vec();
        bytes.extend(STANDARD.decode(&message.signature).unwrap());
        assert_eq!(verified.replay_key().unwrap().0[..], Sha256::digest(&bytes)[..]);
        let again = read(Message { timestamp: 1, justification: "other".into(), ..message.clone() }, node(9)).unwrap();
        assert_eq!(again.replay_key(), verified.replay_key());
        draft.kind = Kind::Revoke;
        let other = read(actor.sign_v1(&draft), node(9)).unwrap();
        assert_ne!(other.replay_key(), verified.replay_key());
        assert_eq!(read(actor.sign(&draft), node(9)).unwrap().replay_key(), None, "version 2 has stamps");
    }

    #[test]
    fn a_weak_key_that_verifies_anything_loosely_is_refused() {
        let weak = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let bytes: [u8; 32] = STANDARD.decode(weak).unwrap().try_into().unwrap();
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&bytes);
        let (actor, draft, ..) = known_answers().into_iter().next().unwrap();
        let mut message = actor.sign(&draft);
        message.public_key = weak.into();
        message.signature2 = Some(STANDARD.encode(signature));
        assert_eq!(decode(message), Err(Undecodable::Key(crate::peer::InvalidKey::Weak)));
        // Its twin: the same key is also refused by verification itself, which a looser one would not do.
        let dalek = ed25519_dalek::VerifyingKey::from_bytes(&bytes).unwrap();
        let signature = ed25519_dalek::Signature::from_bytes(&signature);
        assert!(ed25519_dalek::Verifier::verify(&dalek, b"anything", &signature).is_ok());
        assert!(dalek.verify_strict(b"anything", &signature).is_err());
    }
}
