//! All tables of one moment, as persistent maps: what a writer derives the next state from and the keeper saves.
//!
//! Cloning is constant in the number of entries, so that the keeper takes a consistent state out of the writer's
//! critical section without holding it up.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use super::view::{Floor, Outgoing, Pending, TableChange, View};
use crate::map::TrustMap;
use crate::map::mix::Mix;
use crate::map::trie::Trie;
use crate::peer::{NodeId, TrustRecord};
use crate::time::WallMillis;

/// One consistent state of every table.
#[derive(Clone, Debug)]
pub struct Tables {
    pub(crate) trusted: TrustMap,
    pub(crate) pending: Trie<Arc<Pending>>,
    pub(crate) outgoing: Trie<Arc<Outgoing>>,
    pub(crate) revoked: Trie<WallMillis>,
    pub(crate) floors: Trie<Floor>,
}

/// What a set of changes touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Touched {
    /// The trusted table: readers need a new version.
    pub(crate) trusted: bool,
    /// Any table but the floors: the keeper must be rung.
    pub(crate) urgent: bool,
    /// Anything at all.
    pub(crate) any: bool,
}

/// What makes one table into a later one, each in ascending order of place.
#[derive(Debug)]
pub(crate) struct TableDiff<'a, V> {
    /// Entries that are new or other than before.
    pub(crate) set: Vec<(u32, &'a V)>,
    /// Ids of entries that are no longer there.
    pub(crate) gone: Vec<u32>,
}

/// What makes one state into a later one.
#[derive(Debug)]
pub(crate) struct Difference<'a> {
    pub(crate) trusted: TableDiff<'a, TrustRecord>,
    pub(crate) pending: TableDiff<'a, Arc<Pending>>,
    pub(crate) outgoing: TableDiff<'a, Arc<Outgoing>>,
    pub(crate) revoked: TableDiff<'a, WallMillis>,
    pub(crate) floors: TableDiff<'a, Floor>,
}

#[cfg(feature = "cli")]
impl Difference<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { trusted, pending, outgoing, revoked, floors } = self;
        trusted.is_empty() && pending.is_empty() && outgoing.is_empty() && revoked.is_empty() && floors.is_empty()
    }
}

impl<'a, V> TableDiff<'a, V> {
    #[cfg(feature = "cli")]
    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.gone.is_empty()
    }

    fn new() -> Self {
        Self { set: Vec::new(), gone: Vec::new() }
    }

    fn note(&mut self, id: u32, new: Option<&'a V>) {
        match new {
            Some(value) => self.set.push((id, value)),
            None => self.gone.push(id),
        }
    }

    fn of(newer: &'a Trie<V>, older: &'a Trie<V>) -> Self
    where
        V: Clone + PartialEq,
    {
        let mut diff = Self::new();
        newer.diff(older, &mut |id, _, new| diff.note(id, new));
        diff
    }
}

/// Values that replace those of a state, by id; `None` removes. What a journal's groups come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patch {
    pub(crate) trusted: HashMap<u32, Option<TrustRecord>>,
    pub(crate) pending: HashMap<u32, Option<Pending>>,
    pub(crate) outgoing: HashMap<u32, Option<Outgoing>>,
    pub(crate) revoked: HashMap<u32, Option<WallMillis>>,
    pub(crate) floors: HashMap<u32, Option<Floor>>,
}

impl Patch {
    /// This patch, and then the other.
    pub(crate) fn extend(&mut self, later: Self) {
        self.trusted.extend(later.trusted);
        self.pending.extend(later.pending);
        self.outgoing.extend(later.outgoing);
        self.revoked.extend(later.revoked);
        self.floors.extend(later.floors);
    }
}

impl Tables {
    /// The state that the patch makes of this one; `None` if a peer were trusted and revoked at once.
    pub(crate) fn patched(&self, patch: Patch) -> Option<Self> {
        let peers: Vec<NodeId> =
            patch.trusted.keys().chain(patch.revoked.keys()).filter_map(|id| NodeId::new(*id)).collect();
        let in_arc = |(id, value): (u32, Option<_>)| (id, value.map(Arc::new));
        let next = Self {
            trusted: self
                .trusted
                .apply(patch.trusted.into_iter().filter_map(|(id, new)| Some((NodeId::new(id)?, new)))),
            pending: self.pending.apply(patch.pending.into_iter().map(in_arc)),
            outgoing: self.outgoing.apply(patch.outgoing.into_iter().map(|(id, value)| (id, value.map(Arc::new)))),
            revoked: self.revoked.apply(patch.revoked),
            floors: self.floors.apply(patch.floors),
        };
        let both = |peer: &NodeId| next.trusted.contains(*peer) && next.revoked.get(peer.get()).is_some();
        if peers.iter().any(both) { None } else { Some(next) }
    }

    /// What makes `older` into this state. Takes time in proportion to what changed.
    pub(crate) fn diff<'a>(&'a self, older: &'a Self) -> Difference<'a> {
        let mut trusted = TableDiff::new();
        self.trusted.diff(&older.trusted, &mut |old, new| {
            if let Some(record) = new.or(old) {
                trusted.note(record.node_id.get(), new);
            }
        });
        Difference {
            trusted,
            pending: TableDiff::of(&self.pending, &older.pending),
            outgoing: TableDiff::of(&self.outgoing, &older.outgoing),
            revoked: TableDiff::of(&self.revoked, &older.revoked),
            floors: TableDiff::of(&self.floors, &older.floors),
        }
    }

    pub(crate) fn new(mix: Mix) -> Self {
        Self {
            trusted: TrustMap::new(mix),
            pending: Trie::new(mix),
            outgoing: Trie::new(mix),
            revoked: Trie::new(mix),
            floors: Trie::new(mix),
        }
    }

    /// The next state, and what differs. Changes that change nothing are left out.
    pub(crate) fn apply(&self, changes: &[TableChange]) -> (Self, Touched) {
        let (mut trusted, mut pending, mut outgoing) = (Vec::new(), Vec::new(), Vec::new());
        let (mut revoked, mut floors) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                TableChange::Trusted(peer, record) => {
                    if self.trusted.get(*peer) != record.as_ref() {
                        trusted.push((*peer, *record));
                    }
                }
                TableChange::Pending(peer, entry) => {
                    if self.pending.get(peer.get()).map(Arc::as_ref) != entry.as_ref() {
                        pending.push((peer.get(), entry.clone().map(Arc::new)));
                    }
                }
                TableChange::Outgoing(peer, entry) => {
                    if self.outgoing.get(peer.get()).map(Arc::as_ref) != entry.as_ref() {
                        outgoing.push((peer.get(), entry.clone().map(Arc::new)));
                    }
                }
                TableChange::Revoked(peer, at) => {
                    if self.revoked.get(peer.get()) != at.as_ref() {
                        revoked.push((peer.get(), *at));
                    }
                }
                TableChange::Floor(peer, floor) => {
                    if self.floors.get(peer.get()) != floor.as_ref() {
                        floors.push((peer.get(), *floor));
                    }
                }
            }
        }
        let trusted_touched = !trusted.is_empty();
        let urgent = trusted_touched || !(pending.is_empty() && outgoing.is_empty() && revoked.is_empty());
        let touched = Touched { trusted: trusted_touched, urgent, any: urgent || !floors.is_empty() };
        let next = Self {
            trusted: self.trusted.apply(trusted),
            pending: self.pending.apply(pending),
            outgoing: self.outgoing.apply(outgoing),
            revoked: self.revoked.apply(revoked),
            floors: self.floors.apply(floors),
        };
        (next, touched)
    }
}

fn peer_of(id: u32) -> Option<NodeId> {
    NodeId::new(id)
}

impl View for Tables {
    fn trusted(&self, peer: NodeId) -> Option<TrustRecord> {
        self.trusted.get(peer).copied()
    }

    fn trusted_len(&self) -> usize {
        self.trusted.len()
    }

    fn pending(&self, peer: NodeId) -> Option<&Pending> {
        self.pending.get(peer.get()).map(Arc::as_ref)
    }

    fn pending_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Pending)> + '_> {
        Box::new(self.pending.iter().filter_map(|(id, entry)| Some((peer_of(id)?, entry.as_ref()))))
    }

    fn pending_len(&self) -> usize {
        self.pending.len()
    }

    fn outgoing(&self, peer: NodeId) -> Option<&Outgoing> {
        self.outgoing.get(peer.get()).map(Arc::as_ref)
    }

    fn outgoing_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Outgoing)> + '_> {
        Box::new(self.outgoing.iter().filter_map(|(id, entry)| Some((peer_of(id)?, entry.as_ref()))))
    }

    fn outgoing_len(&self) -> usize {
        self.outgoing.len()
    }

    fn revoked(&self, peer: NodeId) -> Option<WallMillis> {
        self.revoked.get(peer.get()).copied()
    }

    fn floor(&self, peer: NodeId) -> Option<Floor> {
        self.floors.get(peer.get()).copied()
    }

    fn floor_iter(&self) -> Box<dyn Iterator<Item = (NodeId, Floor)> + '_> {
        Box::new(self.floors.iter().filter_map(|(id, floor)| Some((peer_of(id)?, *floor))))
    }

    fn floor_len(&self) -> usize {
        self.floors.len()
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_counts_as_touched() {
        let peer = NodeId::new(7).unwrap();
        let record = TrustRecord::new(peer, None);
        let empty = Tables::new(Mix::new(1));
        let (granted, touched) = empty.apply(&[TableChange::Trusted(peer, Some(record))]);
        assert_eq!(touched, Touched { trusted: true, urgent: true, any: true });
        let (_, touched) = granted.apply(&[TableChange::Trusted(peer, Some(record)), TableChange::Revoked(peer, None)]);
        assert_eq!(touched, Touched::default());
        let (_, touched) = granted.apply(&[TableChange::Floor(peer, Some(Floor::EMPTY))]);
        assert_eq!(touched, Touched { trusted: false, urgent: false, any: true });
        let (_, touched) = granted.apply(&[TableChange::Revoked(peer, Some(WallMillis::new(1)))]);
        assert_eq!(touched, Touched { trusted: false, urgent: true, any: true });
    }
}
