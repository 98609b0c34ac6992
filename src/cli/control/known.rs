//! What is known of a peer when an operator decides about it: what a grant replaces, and which marks stand in its way.
#![forbid(unsafe_code)]

use super::Reply;
use crate::machine::rejection::Rejection;
use crate::node::{CommandError, HandshakeManager};
use crate::peer::{Fingerprint, NodeId, PublicKey};
use crate::tables::table::Table as _;

/// The answer, which tells this, too.
pub(super) fn also(mut reply: Reply, what: &str) -> Reply {
    if let Reply::Done { found, .. } | Reply::Decided { found, .. } = &mut reply {
        *found = Some(found.take().map_or_else(|| what.to_owned(), |found| format!("{what}; {found}")));
    }
    reply
}

/// What a grant replaces: trust under another key, keys that wait, a request of ours.
pub(super) fn was(manager: &HandshakeManager, peer: NodeId, key: &PublicKey) -> Option<String> {
    let tables = manager.store().tables()?;
    let mut was = Vec::new();
    if let Some(record) = manager.store().snapshot().get(peer) {
        was.push(match record.public_key {
            Some(known) if known == *key => "was trusted under this key".to_owned(),
            Some(known) => format!("was trusted under the key {}", known.fingerprint()),
            None => "was trusted without a key".to_owned(),
        });
    }
    for waiting in tables.sides.pending.get(peer).into_iter().flat_map(|entry| entry.keys()) {
        was.push(match waiting.key == *key {
            true => "was waiting for an operator under this key".to_owned(),
            false => format!("was waiting for an operator under the key {}", waiting.key.fingerprint()),
        });
    }
    if tables.sides.outgoing.get(peer).is_some_and(|entry| entry.refused.is_none()) {
        was.push("had been asked".to_owned());
    }
    (!was.is_empty()).then(|| was.join(", "))
}

/// The key that an approval means.
pub(super) fn waiting_key(
    manager: &HandshakeManager,
    peer: NodeId,
    fingerprint: Option<Fingerprint>,
) -> Option<PublicKey> {
    let tables = manager.store().tables()?;
    let mut keys = tables.sides.pending.get(peer)?.keys().map(|it| it.key);
    keys.find(|key| fingerprint.is_none_or(|named| key.fingerprint() == named))
}

/// The refusal of a grant or approval; a lift names one mark, so where there are two it says the way.
pub(super) fn with_both_revoked(
    text: String,
    manager: &HandshakeManager,
    peer: NodeId,
    error: &CommandError,
    key: Option<PublicKey>,
) -> String {
    let needs_lift = matches!(
        error,
        CommandError::Refused(Rejection::RevokedNeedsLift { .. } | Rejection::KeyRevokedNeedsLift { .. })
    );
    let marks = key.map(|key| manager.marks(peer, &key)).unwrap_or_default();
    if needs_lift && marks.peer.is_some() && marks.key.is_some() {
        format!(
            "{text}; the peer and the key are both revoked, and one lift names one of them: take the other back first, with \
             `trustkeep unrevoke {peer}` or `trustkeep unrevoke --key KEY`"
        )
    } else {
        text
    }
}
