//! Which keys we know a peer by, and so what a peer that waits under another one would replace.
//!
//! Read anew from the tables whenever it matters: a record, a floor or a request of ours can come to name another key
//! while the peer waits.
#![forbid(unsafe_code)]

use super::view::{Pending, View};
use crate::peer::{NodeId, PublicKey};

/// The key that trust in `key` would replace: the trusted record's, the floor's (the last one that was vouched for), or
/// the one that our own request expects, in this order.
#[must_use]
pub fn replaced_key(view: &dyn View, peer: NodeId, key: &PublicKey) -> Option<PublicKey> {
    let of_record = view.trusted(peer).and_then(|record| record.public_key);
    let of_floor = view.floor(peer).and_then(|floor| floor.key);
    let asked = view.outgoing(peer).filter(|asked| asked.refused.as_ref().is_none_or(|refusal| !refusal.authentic));
    let of_caller = asked.and_then(|outgoing| outgoing.expected_key);
    [of_record, of_floor, of_caller].into_iter().flatten().find(|known| known != key)
}

/// The entry as it is to be shown: a key that is known by now and is another counts as a conflict.
#[must_use]
pub fn shown(view: &dyn View, peer: NodeId, entry: &Pending) -> Pending {
    let known = u32::from(replaced_key(view, peer, &entry.key).is_some());
    Pending { conflicts: entry.conflicts.max(known), ..entry.clone() }
}
