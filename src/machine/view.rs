//! What [`step`](super::step::step) may read of the tables: one consistent moment of them.
//!
//! INVARIANT I-3: a revoked peer has no outgoing entry but one whose lift names the mark in force.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::tables::Tables;
use crate::tables::crowds::Crowds;
use crate::tables::table::Table as _;
pub use crate::tables::{
    Floor, KeyFault, Marks, Nonce, OTHER_KEYS_MAX, OtherKey, Outgoing, Owed, Pending, PendingKind,
    REFUSED_PER_PEER_MAX, Refusal, RefusedRequest, Revocation, RevocationId, SUCCESSIONS_PER_PEER_MAX, Source,
    Succession, TableChange, Void,
};
use crate::time::WallMillis;

/// What [`step`](super::step::step) may read of the state: one consistent moment of all tables.
pub trait View {
    /// The trusted record of a peer.
    fn trusted(&self, peer: NodeId) -> Option<TrustRecord>;
    /// How many peers are trusted.
    fn trusted_len(&self) -> usize;
    /// The pending entry of a peer.
    fn pending(&self, peer: NodeId) -> Option<&Pending>;
    /// Every pending entry, in no particular but repeatable order.
    fn pending_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Pending)> + '_>;
    /// How many entries are pending.
    fn pending_len(&self) -> usize;
    /// Looks at the crowds of all pending entries but this peer's.
    fn crowds_but(&self, peer: NodeId, look: &mut dyn FnMut(&Crowds));
    /// The outgoing entry of a peer.
    fn outgoing(&self, peer: NodeId) -> Option<&Outgoing>;
    /// Every outgoing entry, in no particular but repeatable order.
    fn outgoing_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Outgoing)> + '_>;
    /// How many entries are outgoing.
    fn outgoing_len(&self) -> usize;
    /// The mark of a peer that we revoked, if an operator has not lifted it since.
    fn revoked(&self, peer: NodeId) -> Option<Revocation>;
    /// The floor of a peer.
    fn floor(&self, peer: NodeId) -> Option<Floor>;
    /// Every floor, in no particular but repeatable order.
    fn floor_iter(&self) -> Box<dyn Iterator<Item = (NodeId, Floor)> + '_>;
    /// How many floors there are.
    fn floor_len(&self) -> usize;
    /// The mark of a key that we revoked.
    fn revoked_key(&self, key: &PublicKey) -> Option<Revocation>;
    /// How many keys are marked.
    fn revoked_keys_len(&self) -> usize;
    /// When an operator ignored a peer.
    fn ignored(&self, peer: NodeId) -> Option<WallMillis>;
    /// How many peers are ignored.
    fn ignored_len(&self) -> usize;
    /// When an operator ignored a key.
    fn ignored_key(&self, key: &PublicKey) -> Option<WallMillis>;
    /// How many keys are ignored.
    fn ignored_keys_len(&self) -> usize;
    /// The requests of a peer that an operator refused, oldest refusal first, each key once.
    fn refused(&self, peer: NodeId) -> &[RefusedRequest];
    /// The refused requests of every peer, in no particular but repeatable order.
    fn refused_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &[RefusedRequest])> + '_>;
    /// Of how many peers refused requests are remembered.
    fn refused_len(&self) -> usize;
    /// The decision that a peer has not been told yet.
    fn owed(&self, peer: NodeId) -> Option<&Owed>;
    /// Every decision that a peer has not been told yet, in no particular but repeatable order.
    fn owed_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Owed)> + '_>;
    /// How many decisions peers have not been told yet.
    fn owed_len(&self) -> usize;
    /// What is remembered of the keys of this peer that named another one, the oldest first.
    fn successors(&self, peer: NodeId) -> &[Succession];
    /// Of how many peers that is remembered.
    fn successors_len(&self) -> usize;
    /// The newest revision under which the registry told of a peer.
    fn revision(&self, peer: NodeId) -> Option<u64>;
}

impl View for Tables {
    fn trusted(&self, peer: NodeId) -> Option<TrustRecord> {
        self.trusted.get(peer)
    }

    fn trusted_len(&self) -> usize {
        self.trusted.len()
    }

    fn pending(&self, peer: NodeId) -> Option<&Pending> {
        self.sides.pending.get(peer).map(Arc::as_ref)
    }

    fn pending_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Pending)> + '_> {
        Box::new(self.sides.pending.iter().map(|(peer, entry)| (peer, entry.as_ref())))
    }

    fn pending_len(&self) -> usize {
        self.sides.pending.len()
    }

    fn crowds_but(&self, peer: NodeId, look: &mut dyn FnMut(&Crowds)) {
        self.sides.pending.crowds_but(peer, look);
    }

    fn outgoing(&self, peer: NodeId) -> Option<&Outgoing> {
        self.sides.outgoing.get(peer).map(Arc::as_ref)
    }

    fn outgoing_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Outgoing)> + '_> {
        Box::new(self.sides.outgoing.iter().map(|(peer, entry)| (peer, entry.as_ref())))
    }

    fn outgoing_len(&self) -> usize {
        self.sides.outgoing.len()
    }

    fn revoked(&self, peer: NodeId) -> Option<Revocation> {
        self.sides.revoked.get(peer).copied()
    }

    fn floor(&self, peer: NodeId) -> Option<Floor> {
        self.sides.floors.get(peer).copied()
    }

    fn floor_iter(&self) -> Box<dyn Iterator<Item = (NodeId, Floor)> + '_> {
        Box::new(self.sides.floors.iter().map(|(peer, floor)| (peer, *floor)))
    }

    fn floor_len(&self) -> usize {
        self.sides.floors.len()
    }

    fn revoked_key(&self, key: &PublicKey) -> Option<Revocation> {
        self.sides.revoked_keys.get(*key).copied()
    }

    fn revoked_keys_len(&self) -> usize {
        self.sides.revoked_keys.len()
    }

    fn ignored(&self, peer: NodeId) -> Option<WallMillis> {
        self.sides.ignored.get(peer).copied()
    }

    fn ignored_len(&self) -> usize {
        self.sides.ignored.len()
    }

    fn ignored_key(&self, key: &PublicKey) -> Option<WallMillis> {
        self.sides.ignored_keys.get(*key).copied()
    }

    fn ignored_keys_len(&self) -> usize {
        self.sides.ignored_keys.len()
    }

    fn refused(&self, peer: NodeId) -> &[RefusedRequest] {
        self.sides.refused.get(peer).map_or(&[], |refused| refused)
    }

    fn refused_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &[RefusedRequest])> + '_> {
        Box::new(self.sides.refused.iter().map(|(peer, refused)| (peer, refused.as_ref())))
    }

    fn refused_len(&self) -> usize {
        self.sides.refused.len()
    }

    fn owed(&self, peer: NodeId) -> Option<&Owed> {
        self.sides.owed.get(peer).map(Arc::as_ref)
    }

    fn owed_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Owed)> + '_> {
        Box::new(self.sides.owed.iter().map(|(peer, entry)| (peer, entry.as_ref())))
    }

    fn owed_len(&self) -> usize {
        self.sides.owed.len()
    }

    fn successors(&self, peer: NodeId) -> &[Succession] {
        self.sides.successors.get(peer).map_or(&[], |all| all)
    }

    fn successors_len(&self) -> usize {
        self.sides.successors.len()
    }

    fn revision(&self, peer: NodeId) -> Option<u64> {
        self.sides.revisions.get(peer).copied()
    }
}
