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

/// Changes that change something, table by table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    trusted: Vec<(NodeId, Option<TrustRecord>)>,
    pending: Vec<(u32, Option<Arc<Pending>>)>,
    outgoing: Vec<(u32, Option<Arc<Outgoing>>)>,
    revoked: Vec<(u32, Option<WallMillis>)>,
    floors: Vec<(u32, Option<Floor>)>,
    trusted_len: usize,
}

/// What makes one table into a later one, each in ascending order of place.
#[derive(Debug)]
pub(crate) struct TableDiff<V> {
    /// Entries that are new or other than before.
    pub(crate) set: Vec<(u32, V)>,
    /// Ids of entries that are no longer there.
    pub(crate) gone: Vec<u32>,
}

/// What makes one state into a later one.
#[derive(Debug)]
pub(crate) struct Difference<'a> {
    pub(crate) trusted: TableDiff<TrustRecord>,
    pub(crate) pending: TableDiff<&'a Arc<Pending>>,
    pub(crate) outgoing: TableDiff<&'a Arc<Outgoing>>,
    pub(crate) revoked: TableDiff<&'a WallMillis>,
    pub(crate) floors: TableDiff<&'a Floor>,
}

impl<V> TableDiff<V> {
    fn new() -> Self {
        Self { set: Vec::new(), gone: Vec::new() }
    }

    fn note(&mut self, id: u32, new: Option<V>) {
        match new {
            Some(value) => self.set.push((id, value)),
            None => self.gone.push(id),
        }
    }
}

impl<'a, V: Clone + PartialEq> TableDiff<&'a V> {
    fn of(newer: &'a Trie<V>, older: &'a Trie<V>) -> Self {
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

    /// What of these changes differs from what is there. Nothing is derived yet.
    pub(crate) fn draft(&self, changes: &[TableChange]) -> Draft {
        let mut draft = Draft { trusted_len: self.trusted.len(), ..Draft::default() };
        for change in changes {
            match change {
                TableChange::Trusted(peer, record) => draft.note_trusted(*peer, self.trusted.get(*peer), *record),
                TableChange::Pending(peer, entry) => {
                    if self.pending.get(peer.get()).map(Arc::as_ref) != entry.as_ref() {
                        draft.pending.push((peer.get(), entry.clone().map(Arc::new)));
                    }
                }
                TableChange::Outgoing(peer, entry) => {
                    if self.outgoing.get(peer.get()).map(Arc::as_ref) != entry.as_ref() {
                        draft.outgoing.push((peer.get(), entry.clone().map(Arc::new)));
                    }
                }
                TableChange::Revoked(peer, at) => {
                    if self.revoked.get(peer.get()) != at.as_ref() {
                        draft.revoked.push((peer.get(), *at));
                    }
                }
                TableChange::Floor(peer, floor) => {
                    if self.floors.get(peer.get()) != floor.as_ref() {
                        draft.floors.push((peer.get(), *floor));
                    }
                }
            }
        }
        draft
    }

    /// The next state. It should be made only if it will be published: going on from this one again afterwards copies all
    /// trusted records.
    pub(crate) fn next(&self, draft: Draft) -> Self {
        Self {
            trusted: self.trusted.apply(draft.trusted),
            pending: self.pending.apply(draft.pending),
            outgoing: self.outgoing.apply(draft.outgoing),
            revoked: self.revoked.apply(draft.revoked),
            floors: self.floors.apply(draft.floors),
        }
    }

    /// Both steps at once.
    #[cfg(all(test, not(trustkeep_loom)))]
    pub(crate) fn apply(&self, changes: &[TableChange]) -> (Self, Touched) {
        let draft = self.draft(changes);
        let touched = draft.touched();
        (self.next(draft), touched)
    }
}

impl Draft {
    fn note_trusted(&mut self, peer: NodeId, before: Option<TrustRecord>, after: Option<TrustRecord>) {
        if before != after {
            self.trusted_len = self.trusted_len + usize::from(after.is_some()) - usize::from(before.is_some());
            self.trusted.push((peer, after));
        }
    }

    /// How many peers will be trusted.
    pub(crate) fn trusted_len(&self) -> usize {
        self.trusted_len
    }

    pub(crate) fn touched(&self) -> Touched {
        let trusted = !self.trusted.is_empty();
        let urgent = trusted || !(self.pending.is_empty() && self.outgoing.is_empty() && self.revoked.is_empty());
        Touched { trusted, urgent, any: urgent || !self.floors.is_empty() }
    }
}

fn peer_of(id: u32) -> Option<NodeId> {
    NodeId::new(id)
}

impl View for Tables {
    fn trusted(&self, peer: NodeId) -> Option<TrustRecord> {
        self.trusted.get(peer)
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
        let draft = empty.draft(&[TableChange::Trusted(peer, Some(record))]);
        assert_eq!(draft.touched(), Touched { trusted: true, urgent: true, any: true });
        assert_eq!(draft.trusted_len(), 1);
        let granted = empty.next(draft);
        assert_eq!(granted.trusted.get(peer), Some(record));
        let touched = |changes: &[TableChange]| granted.draft(changes).touched();
        let nothing = touched(&[TableChange::Trusted(peer, Some(record)), TableChange::Revoked(peer, None)]);
        assert_eq!(nothing, Touched::default());
        let floor = touched(&[TableChange::Floor(peer, Some(Floor::EMPTY))]);
        assert_eq!(floor, Touched { trusted: false, urgent: false, any: true });
        let revoked = touched(&[TableChange::Revoked(peer, Some(WallMillis::new(1)))]);
        assert_eq!(revoked, Touched { trusted: false, urgent: true, any: true });
        assert_eq!(granted.draft(&[TableChange::Trusted(peer, None)]).trusted_len(), 0);
    }
}
