//! What waits, and what was asked, of peers and keys of which nothing is heard any more.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Outgoing, Pending, PendingKind, TableChange};
use crate::peer::{NodeId, PublicKey};

/// What waits, and what was asked, of these peers and keys goes: in the order of peers, whatever that of the tables is. An
/// entry whose first key is concerned goes as a whole; of another's keys those go that are concerned. With a request its
/// answers go.
pub(crate) fn forgotten<'a>(
    pending: impl Iterator<Item = (NodeId, &'a Pending)>,
    outgoing: impl Iterator<Item = (NodeId, &'a Outgoing)>,
    is_of: impl Fn(NodeId, Option<PublicKey>) -> bool,
) -> Vec<TableChange> {
    let asked: BTreeSet<NodeId> =
        outgoing.filter(|(peer, entry)| is_of(*peer, entry.expected_key)).map(|(peer, _)| peer).collect();
    let left = |peer: NodeId, entry: &Pending| {
        let stays = |key, kind| !is_of(peer, Some(key)) && (kind == PendingKind::Request || !asked.contains(&peer));
        if !stays(entry.key, entry.kind) {
            return None;
        }
        let mut left = entry.clone();
        left.others.retain(|other| stays(other.key, other.kind));
        Some(left)
    };
    let waiting = pending.map(|(peer, entry)| (peer, entry, left(peer, entry)));
    let waiting = waiting.filter(|(_, entry, left)| left.as_ref() != Some(*entry));
    let waiting: BTreeMap<NodeId, _> = waiting.map(|(peer, _, left)| (peer, left.map(Arc::new))).collect();
    let waiting = waiting.into_iter().map(|(peer, left)| TableChange::Pending(peer, left));
    waiting.chain(asked.into_iter().map(|peer| TableChange::Outgoing(peer, None))).collect()
}
