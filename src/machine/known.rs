//! Which keys we know a peer by, and so what a peer that waits under another one would replace.
//!
//! Read anew from the tables whenever it matters: a record, a floor or a request of ours can come to name another key
//! while the peer waits.
#![forbid(unsafe_code)]

use super::view::{KeyFault, Pending, View};
use crate::peer::{NodeId, PublicKey};
use crate::tables::succession;

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

/// Why no rule trusts this key of the peer, if none does.
#[must_use]
pub fn set_aside(view: &dyn View, peer: NodeId, key: &PublicKey) -> Option<KeyFault> {
    let is_of_record = view.trusted(peer).is_some_and(|record| record.public_key == Some(*key));
    if is_of_record { None } else { succession::set_aside(view.successors(peer), key) }
}

/// The entry as it is to be shown: a key that is known by now and is another counts as a conflict.
#[must_use]
pub fn shown(view: &dyn View, peer: NodeId, entry: &Pending) -> Pending {
    let is_known = replaced_key(view, peer, &entry.key).is_some() || set_aside(view, peer, &entry.key).is_some();
    let known = u32::from(is_known);
    Pending { conflicts: entry.conflicts.max(known), ..entry.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::actor::{Actor, Way, at, sent};
    use crate::wire::message::Kind;

    #[test]
    fn a_key_that_our_caller_named_is_known_until_the_peer_refuses() {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let (key, other) = (peer.public_key(), Actor::new(1, 0x22).public_key());
        let asked = us.request(at(0), peer.id(), Some(key)).unwrap();
        assert_eq!(replaced_key(&us.tables, peer.id(), &other), Some(key));
        assert_eq!(replaced_key(&us.tables, peer.id(), &key), None);
        // a refused request vouches for no key. What is known then is the floor's, which the refusal left.
        let reject = peer.draft(at(1), us.id(), Kind::Reject, Some(sent(&asked).unwrap().nonce));
        us.hear_from(at(2), &peer, &reject, Way::open()).unwrap();
        us.tables.floor.clear();
        assert!(us.tables.outgoing[&peer.id()].refused.is_some());
        assert_eq!(replaced_key(&us.tables, peer.id(), &other), None);
    }
}
