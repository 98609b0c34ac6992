//! What a signature covers, and how a draft of ours becomes a signed message.
//!
//! A version-2 signature covers everything that a receiver acts upon: type, both ids, stamp, nonces, key and texts.
//! The ten lines are fixed by `docs/protocol.md`; no field can contain a newline when they are built, so no two
//! messages share them.
#![forbid(unsafe_code)]

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
    let digest = |bytes: &[u8]| hex(&Sha256::digest(bytes));
    format!(
        "trustkeep handshake 2\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n",
        signed.kind.as_wire(),
        signed.sender,
        signed.receiver,
        signed.stamp.as_millis(),
        signed.nonce,
        signed.answers,
        digest(signed.key.as_bytes()),
        digest(signed.justification.as_bytes()),
        digest(signed.reason.as_bytes()),
    )
    .into_bytes()
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
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
