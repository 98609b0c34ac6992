//! The tables as plain maps: what every cleverer representation is compared with.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::machine::view::View;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::tables::crowds::Crowds;
use crate::tables::table::Table as _;
use crate::tables::{Floor, Outgoing, Owed, Pending, RefusedRequest, Revocation, Succession, TableChange, Tables};
use crate::time::WallMillis;

/// All tables of one node, in memory, sorted by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the tables of docs/protocol.md")]
pub struct PlainView {
    pub trusted: BTreeMap<NodeId, TrustRecord>,
    pub pending: BTreeMap<NodeId, Pending>,
    pub outgoing: BTreeMap<NodeId, Outgoing>,
    pub revoked: BTreeMap<NodeId, Revocation>,
    pub floor: BTreeMap<NodeId, Floor>,
    pub revoked_keys: BTreeMap<[u8; 32], Revocation>,
    pub ignored: BTreeMap<NodeId, WallMillis>,
    pub ignored_keys: BTreeMap<[u8; 32], WallMillis>,
    pub refused: BTreeMap<NodeId, Arc<[RefusedRequest]>>,
    pub owed: BTreeMap<NodeId, Owed>,
    pub successors: BTreeMap<NodeId, Arc<[Succession]>>,
    pub revisions: BTreeMap<NodeId, u64>,
}

impl PlainView {
    /// The tables, entry by entry.
    #[must_use]
    pub fn of(tables: &Tables) -> Self {
        let sides = &tables.sides;
        Self {
            trusted: tables.trusted.iter().map(|record| (record.node_id, record)).collect(),
            pending: sides.pending.iter().map(|(peer, it)| (peer, it.as_ref().clone())).collect(),
            outgoing: sides.outgoing.iter().map(|(peer, it)| (peer, it.as_ref().clone())).collect(),
            revoked: sides.revoked.iter().map(|(peer, mark)| (peer, *mark)).collect(),
            floor: sides.floors.iter().map(|(peer, floor)| (peer, *floor)).collect(),
            revoked_keys: sides.revoked_keys.iter().map(|(key, mark)| (*key.as_bytes(), *mark)).collect(),
            ignored: sides.ignored.iter().map(|(peer, at)| (peer, *at)).collect(),
            ignored_keys: sides.ignored_keys.iter().map(|(key, at)| (*key.as_bytes(), *at)).collect(),
            refused: sides.refused.iter().map(|(peer, it)| (peer, Arc::clone(it))).collect(),
            owed: sides.owed.iter().map(|(peer, it)| (peer, it.as_ref().clone())).collect(),
            successors: sides.successors.iter().map(|(peer, it)| (peer, Arc::clone(it))).collect(),
            revisions: sides.revisions.iter().map(|(peer, revision)| (peer, *revision)).collect(),
        }
    }

    /// The peers that a revocation of this key concerns besides those that wait: trusted under it, or with a key that has
    /// named it.
    #[must_use]
    pub fn concerned_by(&self, key: &PublicKey) -> Vec<NodeId> {
        let under = self.trusted.values().filter(|it| it.public_key == Some(*key)).map(|it| it.node_id);
        let named = |all: &[Succession]| all.iter().any(|it| it.void.is_none() && it.old != *key && it.new == *key);
        let named = self.successors.iter().filter(|(_, all)| named(all)).map(|(peer, _)| *peer);
        under.chain(named).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Each table by its name, as text.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, String)> {
        vec![
            ("trusted", format!("{:?}", self.trusted)),
            ("pending", format!("{:?}", self.pending)),
            ("outgoing", format!("{:?}", self.outgoing)),
            ("revoked", format!("{:?}", self.revoked)),
            ("floor", format!("{:?}", self.floor)),
            ("revoked_keys", format!("{:?}", self.revoked_keys)),
            ("ignored", format!("{:?}", self.ignored)),
            ("ignored_keys", format!("{:?}", self.ignored_keys)),
            ("refused", format!("{:?}", self.refused)),
            ("owed", format!("{:?}", self.owed)),
            ("successors", format!("{:?}", self.successors)),
            ("revisions", format!("{:?}", self.revisions)),
        ]
    }

    /// Applies the changes of one step.
    pub fn apply(&mut self, changes: &[TableChange]) {
        for change in changes {
            match change {
                TableChange::Trusted(peer, value) => set(&mut self.trusted, *peer, value),
                TableChange::Pending(peer, value) => set(&mut self.pending, *peer, &value.as_deref().cloned()),
                TableChange::Outgoing(peer, value) => set(&mut self.outgoing, *peer, &value.as_deref().cloned()),
                TableChange::Revoked(peer, value) => set(&mut self.revoked, *peer, value),
                TableChange::Floor(peer, value) => set(&mut self.floor, *peer, value),
                TableChange::RevokedKey(key, value) => set(&mut self.revoked_keys, *key.as_bytes(), value),
                TableChange::Ignored(peer, value) => set(&mut self.ignored, *peer, value),
                TableChange::IgnoredKey(key, value) => set(&mut self.ignored_keys, *key.as_bytes(), value),
                TableChange::Refused(peer, value) => set(&mut self.refused, *peer, value),
                TableChange::Owed(peer, value) => set(&mut self.owed, *peer, &value.as_deref().cloned()),
                TableChange::Successors(peer, value) => set(&mut self.successors, *peer, value),
                TableChange::Revision(peer, value) => set(&mut self.revisions, *peer, value),
            }
        }
    }
}

fn set<K: Ord, T: Clone>(table: &mut BTreeMap<K, T>, key: K, value: &Option<T>) {
    match value {
        Some(value) => table.insert(key, value.clone()),
        None => table.remove(&key),
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
    fn crowds_but(&self, peer: NodeId, look: &mut dyn FnMut(&Crowds)) {
        let mut crowds = Crowds::default();
        let others = self.pending.iter().filter(|(other, _)| **other != peer);
        others.for_each(|(other, entry)| crowds.add(*other, entry));
        look(&crowds);
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
    fn revoked(&self, peer: NodeId) -> Option<Revocation> {
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
    fn revoked_key(&self, key: &PublicKey) -> Option<Revocation> {
        self.revoked_keys.get(key.as_bytes()).copied()
    }
    fn revoked_keys_len(&self) -> usize {
        self.revoked_keys.len()
    }
    fn ignored(&self, peer: NodeId) -> Option<WallMillis> {
        self.ignored.get(&peer).copied()
    }
    fn ignored_len(&self) -> usize {
        self.ignored.len()
    }
    fn ignored_key(&self, key: &PublicKey) -> Option<WallMillis> {
        self.ignored_keys.get(key.as_bytes()).copied()
    }
    fn ignored_keys_len(&self) -> usize {
        self.ignored_keys.len()
    }
    fn refused(&self, peer: NodeId) -> &[RefusedRequest] {
        self.refused.get(&peer).map_or(&[], |refused| refused)
    }
    fn refused_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &[RefusedRequest])> + '_> {
        Box::new(self.refused.iter().map(|(peer, refused)| (*peer, refused.as_ref())))
    }
    fn refused_len(&self) -> usize {
        self.refused.len()
    }
    fn owed(&self, peer: NodeId) -> Option<&Owed> {
        self.owed.get(&peer)
    }
    fn owed_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Owed)> + '_> {
        Box::new(self.owed.iter().map(|(peer, entry)| (*peer, entry)))
    }
    fn owed_len(&self) -> usize {
        self.owed.len()
    }
    fn successors(&self, peer: NodeId) -> &[Succession] {
        self.successors.get(&peer).map_or(&[], |all| all)
    }
    fn successors_len(&self) -> usize {
        self.successors.len()
    }
    fn revision(&self, peer: NodeId) -> Option<u64> {
        self.revisions.get(&peer).copied()
    }
}
