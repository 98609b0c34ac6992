//! Revoking and forgetting over the control socket: what is answered says what else there was.
#![forbid(unsafe_code)]

use super::Reply;
use super::perform::{decided, durable};
use crate::machine::input::PeerOrKey;
use crate::node::{CommandError, HandshakeManager};
use crate::peer::NodeId;
use crate::store::{KeyRevoked, Revoked};

pub(super) fn revoke(manager: &HandshakeManager, of: PeerOrKey) -> Result<Reply, String> {
    match of {
        PeerOrKey::Peer(peer) => {
            let revoked = manager.revoke(peer).map_err(|error| refused(of, &error))?;
            let found = format!("peer {peer}: {}", found(&revoked));
            with(decided(manager, peer, revoked.receipt), found)
        }
        PeerOrKey::Key(key) => {
            let KeyRevoked { receipt, ended, named, marked } =
                manager.revoke_key(&key).map_err(|error| refused(of, &error))?;
            let what = match (ended.len(), marked) {
                (0, None) => "nobody was trusted under it".to_owned(),
                (0, Some(_)) => "it was revoked already, and nobody was trusted under it".to_owned(),
                (1, _) => "1 peer was trusted under it".to_owned(),
                (peers, _) => format!("{peers} peers were trusted under it"),
            };
            let still = still_trusted(&named);
            with(durable(receipt), format!("key {}: {what}{still}", key.fingerprint()))
        }
    }
}

/// who is trusted by the word of a key that is revoked.
fn still_trusted(named: &[NodeId]) -> String {
    let (first, more) = named.split_at(named.len().min(NAMED_MAX));
    let mut ids = first.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
    if !more.is_empty() {
        ids.push_str(&format!(" and {} more (see `trustkeep list`)", more.len()));
    }
    match named.len() {
        0 => String::new(),
        1 => format!(
            "; peer {ids} is still trusted, under a key that this one had named: if this one was stolen, that key may be the \
             thief's, so revoke the peer unless its operator confirms the fingerprint"
        ),
        _ => format!(
            "; peers {ids} are still trusted, under keys that this one had named: if this one was stolen, those may be the \
             thief's, so revoke the peers unless their operators confirm the fingerprints"
        ),
    }
}

/// So many peers are named in an answer.
const NAMED_MAX: usize = 32;

pub(super) fn forget(manager: &HandshakeManager, of: PeerOrKey) -> Result<Reply, String> {
    let receipt = match of {
        PeerOrKey::Peer(peer) => manager.forget_revocation(peer),
        PeerOrKey::Key(key) => manager.forget_key_revocation(&key),
    };
    durable(receipt.map_err(|error| refused(of, &error))?)
}

/// Whom it was about, and why it was not done.
pub(super) fn refused(of: PeerOrKey, error: &CommandError) -> String {
    match of {
        PeerOrKey::Peer(peer) => format!("peer {peer}: {error}"),
        PeerOrKey::Key(key) => format!("key {}: {error}", key.fingerprint()),
    }
}

fn found(revoked: &Revoked) -> String {
    let words = [
        (revoked.was.is_some(), "was trusted"),
        (revoked.waited, "was waiting for an operator"),
        (revoked.asked, "had been asked"),
        (revoked.marked.is_some(), "was revoked already"),
    ];
    let words: Vec<&str> = words.iter().filter(|(is_so, _)| *is_so).map(|(_, word)| *word).collect();
    if words.is_empty() { "nothing else was there".to_owned() } else { words.join(", ") }
}

pub(super) fn with(reply: Result<Reply, String>, found: String) -> Result<Reply, String> {
    match reply? {
        Reply::Done { generation, warning, .. } => Ok(Reply::Done { generation, found: Some(found), warning }),
        Reply::Decided { generation, not_told, given_up, warning, .. } => {
            Ok(Reply::Decided { generation, found: Some(found), not_told, given_up, warning })
        }
        other => Ok(other),
    }
}
