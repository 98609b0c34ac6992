//! The tables as plain maps: what every cleverer representation is compared with.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::machine::view::{Floor, Outgoing, Pending, TableChange, View};
use crate::peer::{NodeId, TrustRecord};
use crate::time::WallMillis;

/// All tables of one node, in memory, sorted by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the tables of docs/protocol.md")]
pub struct PlainView {
    pub trusted: BTreeMap<NodeId, TrustRecord>,
    pub pending: BTreeMap<NodeId, Pending>,
    pub outgoing: BTreeMap<NodeId, Outgoing>,
    pub revoked: BTreeMap<NodeId, WallMillis>,
    pub floor: BTreeMap<NodeId, Floor>,
}

impl PlainView {
    /// Applies the changes of one step.
    pub fn apply(&mut self, changes: &[TableChange]) {
        for change in changes {
            match change {
                TableChange::Trusted(peer, value) => set(&mut self.trusted, *peer, value),
                TableChange::Pending(peer, value) => set(&mut self.pending, *peer, &value.as_deref().cloned()),
                TableChange::Outgoing(peer, value) => set(&mut self.outgoing, *peer, &value.as_deref().cloned()),
                TableChange::Revoked(peer, value) => set(&mut self.revoked, *peer, value),
                TableChange::Floor(peer, value) => set(&mut self.floor, *peer, value),
            }
        }
    }
}

fn set<T: Clone>(table: &mut BTreeMap<NodeId, T>, peer: NodeId, value: &Option<T>) {
    match value {
        Some(value) => table.insert(peer, value.clone()),
        None => table.remove(&peer),
    };
}

impl View for PlainView {
    fn trusted(&self, peer: NodeId) -> Option<TrustRecord> {
        self.trusted.get(&peer).copied()
    }
    fn trusted_len(&self) -> usize {
        self.trusted.len()
    }
    fn pending(&self, peer: NodeId) -> Option<&Pending> {
        self.pending.get(&peer)
    }
    fn pending_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Pending)> + '_> {
        Box::new(self.pending.iter().map(|(peer, entry)| (*peer, entry)))
    }
    fn pending_len(&self) -> usize {
        self.pending.len()
    }
    fn outgoing(&self, peer: NodeId) -> Option<&Outgoing> {
        self.outgoing.get(&peer)
    }
    fn outgoing_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Outgoing)> + '_> {
        Box::new(self.outgoing.iter().map(|(peer, entry)| (*peer, entry)))
    }
    fn outgoing_len(&self) -> usize {
        self.outgoing.len()
    }
    fn revoked(&self, peer: NodeId) -> Option<WallMillis> {
        self.revoked.get(&peer).copied()
    }
    fn floor(&self, peer: NodeId) -> Option<Floor> {
        self.floor.get(&peer).copied()
    }
    fn floor_iter(&self) -> Box<dyn Iterator<Item = (NodeId, Floor)> + '_> {
        Box::new(self.floor.iter().map(|(peer, floor)| (*peer, *floor)))
    }
    fn floor_len(&self) -> usize {
        self.floor.len()
    }
}
