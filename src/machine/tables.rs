//! All tables of one moment, as persistent maps: what a writer derives the next state from and the keeper saves.
//!
//! Cloning is constant in the number of entries, so that the keeper takes a consistent state out of the writer's
//! critical section without holding it up.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::view::{Floor, Outgoing, Pending, TableChange, View};
use crate::map::mix::Mix;
use crate::map::trie::Trie;
use crate::map::{Change, Latest, TrustMap, Value};
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
    trusted: Vec<Change>,
    /// What the trusted records become, if that is known already; instead of `trusted`.
    trusted_next: Option<TrustMap>,
    pending: Vec<(u32, Option<Arc<Pending>>)>,
    outgoing: Vec<(u32, Option<Arc<Outgoing>>)>,
    revoked: Vec<(u32, Option<WallMillis>)>,
    floors: Vec<(u32, Option<Floor>)>,
    membership: Vec<(NodeId, bool)>,
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
    pub(crate) trusted: TableDiff<&'a Value>,
    pub(crate) pending: TableDiff<&'a Arc<Pending>>,
    pub(crate) outgoing: TableDiff<&'a Arc<Outgoing>>,
    pub(crate) revoked: TableDiff<&'a WallMillis>,
    pub(crate) floors: TableDiff<&'a Floor>,
}

#[cfg(feature = "cli")]
impl Difference<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { trusted, pending, outgoing, revoked, floors } = self;
        trusted.is_empty() && pending.is_empty() && outgoing.is_empty() && revoked.is_empty() && floors.is_empty()
    }
}

impl<V> TableDiff<V> {
    #[cfg(feature = "cli")]
    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.gone.is_empty()
    }

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

/// Values that replace those of a state, each with its id; `None` removes. What a journal's groups come to: where an id
/// occurs several times, the last one counts.
///
/// They are put in order once, at the end. A map by id, looked into for every entry of a long journal, took most of the
/// time of an opening.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patch {
    pub(crate) trusted: Values<Value>,
    pub(crate) pending: Values<Arc<Pending>>,
    pub(crate) outgoing: Values<Arc<Outgoing>>,
    pub(crate) revoked: Values<WallMillis>,
    pub(crate) floors: Values<Floor>,
}

/// One table's part of a [`Patch`].
pub(crate) type Values<V> = Vec<(u32, Option<V>)>;

impl Patch {
    /// This patch, and then the other.
    pub(crate) fn extend(&mut self, mut later: Self) {
        self.trusted.append(&mut later.trusted);
        self.pending.append(&mut later.pending);
        self.outgoing.append(&mut later.outgoing);
        self.revoked.append(&mut later.revoked);
        self.floors.append(&mut later.floors);
    }

    /// Whether an id occurs twice in a table.
    pub(crate) fn repeats_itself(&self, mix: Mix) -> bool {
        repeats(&self.trusted, mix)
            || repeats(&self.pending, mix)
            || repeats(&self.outgoing, mix)
            || repeats(&self.revoked, mix)
            || repeats(&self.floors, mix)
    }

    /// The same without what is replaced within it.
    #[cfg(any(feature = "cli", feature = "__testing"))]
    pub(crate) fn settled(self) -> Self {
        let mix = Mix::new(0);
        Self {
            trusted: newest(&self.trusted, mix),
            pending: newest(&self.pending, mix),
            outgoing: newest(&self.outgoing, mix),
            revoked: newest(&self.revoked, mix),
            floors: newest(&self.floors, mix),
        }
    }
}

fn repeats<V>(values: &Values<V>, mix: Mix) -> bool {
    // A group has its new entries in order of place, and most have nothing else.
    if values.is_sorted_by(|(a, _), (b, _)| mix.mix(*a) < mix.mix(*b)) {
        return false;
    }
    let mut ids: Vec<u32> = values.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    !ids.is_sorted_by(|a, b| a < b)
}

/// The last value of each id, in ascending order of place.
fn newest<V: Clone>(values: &Values<V>, mix: Mix) -> Values<V> {
    // Places and positions are moved about in sorting, not the far longer values.
    let mut order: Vec<(u32, usize)> =
        values.iter().enumerate().map(|(position, (id, _))| (mix.mix(*id), position)).collect();
    order.sort_unstable();
    let last = order.chunk_by(|a, b| a.0 == b.0).filter_map(<[_]>::last);
    last.filter_map(|(_, position)| values.get(*position).cloned()).collect()
}

impl Tables {
    /// The state that the patch makes of this one; `None` if a peer were trusted and revoked at once.
    pub(crate) fn patched(&self, patch: Patch) -> Option<Self> {
        let mut trusted = Latest::new(self.trusted.mix());
        patch.trusted.iter().for_each(|(id, value)| trusted.push(*id, *value));
        self.patched_at_once(trusted, &patch)
    }

    /// The same with the trusted ones by themselves, which may be very many; those of the patch do not count.
    pub(crate) fn patched_at_once(&self, latest: Latest, patch: &Patch) -> Option<Self> {
        let mix = self.trusted.mix();
        let revoked = self.revoked.apply(newest(&patch.revoked, mix));
        // The table of revocations is the one that is usually small, or empty.
        let (is_empty, mut both) = (revoked.len() == 0, false);
        let trusted = self.trusted.patched(latest, |place| {
            both |= !is_empty && revoked.get(mix.unmix(place)).is_some();
        });
        both |= patch
            .revoked
            .iter()
            .any(|(id, _)| revoked.get(*id).is_some() && NodeId::new(*id).is_some_and(|peer| trusted.contains(peer)));
        let next = Self {
            trusted,
            pending: self.pending.apply(newest(&patch.pending, mix)),
            outgoing: self.outgoing.apply(newest(&patch.outgoing, mix)),
            revoked,
            floors: self.floors.apply(newest(&patch.floors, mix)),
        };
        if both { None } else { Some(next) }
    }

    /// What makes `older` into this state. Takes time in proportion to what changed.
    pub(crate) fn diff<'a>(&'a self, older: &'a Self) -> Difference<'a> {
        let mut trusted = TableDiff::new();
        self.trusted.diff_values(&older.trusted, &mut |id, _, new| trusted.note(id, new));
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
        let records = changes.iter().filter(|change| matches!(change, TableChange::Trusted(..))).count();
        let mut draft = self.empty_draft(records);
        for change in changes {
            match change {
                TableChange::Trusted(peer, record) => {
                    let (before, change) = (self.trusted.value(*peer), self.trusted.change(*peer, record.as_ref()));
                    if before != change.value() {
                        draft.set_trusted(*peer, before.is_some(), change);
                    }
                }
                TableChange::Pending(peer, entry) => {
                    if self.pending.get(peer.get()) != entry.as_ref() {
                        draft.pending.push((peer.get(), entry.clone()));
                    }
                }
                TableChange::Outgoing(peer, entry) => {
                    if self.outgoing.get(peer.get()) != entry.as_ref() {
                        draft.outgoing.push((peer.get(), entry.clone()));
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

    /// A draft that so many trusted records are about to be put into.
    pub(crate) fn empty_draft(&self, records: usize) -> Draft {
        Draft { trusted: Vec::with_capacity(records), trusted_len: self.trusted.len(), ..Draft::default() }
    }

    /// The next state. It should be made only if it will be published: going on from this one again afterwards copies all
    /// trusted records.
    pub(crate) fn next(&self, draft: &mut Draft) -> Self {
        Self {
            trusted: draft.trusted_next.take().unwrap_or_else(|| self.trusted.changed(&mut draft.trusted)),
            pending: self.pending.apply(draft.pending.iter().cloned()),
            outgoing: self.outgoing.apply(draft.outgoing.iter().cloned()),
            revoked: self.revoked.apply(draft.revoked.iter().copied()),
            floors: self.floors.apply(draft.floors.iter().copied()),
        }
    }

    /// Both steps at once.
    #[cfg(any(test, feature = "__testing"))]
    pub(crate) fn apply(&self, changes: &[TableChange]) -> (Self, Touched) {
        let mut draft = self.draft(changes);
        let touched = draft.touched();
        (self.next(&mut draft), touched)
    }
}

impl Draft {
    /// The record of a peer, which was trusted or was not, becomes another.
    pub(crate) fn set_trusted(&mut self, peer: NodeId, was_trusted: bool, change: Change) {
        let is_trusted = change.value().is_some();
        self.trusted_len = self.trusted_len + usize::from(is_trusted) - usize::from(was_trusted);
        if is_trusted != was_trusted {
            self.membership.push((peer, is_trusted));
        }
        self.trusted.push(change);
    }

    /// One more peer is trusted, or on other terms: the trusted records become these, which were derived from those of the
    /// state, and nothing else of them changes.
    pub(crate) fn set_trusted_next(&mut self, peer: NodeId, was_trusted: bool, next: TrustMap) {
        debug_assert!(self.trusted.is_empty(), "two changes of one table");
        self.trusted_len = next.len();
        if !was_trusted {
            self.membership.push((peer, true));
        }
        self.trusted_next = Some(next);
    }

    /// The mark of a peer becomes another, or goes.
    pub(crate) fn set_revoked(&mut self, peer: NodeId, at: Option<WallMillis>) {
        self.revoked.push((peer.get(), at));
    }

    /// What waits of a peer, waits no longer.
    pub(crate) fn forget_pending(&mut self, peer: NodeId) {
        self.pending.push((peer.get(), None));
    }

    /// What was asked of a peer, was not.
    pub(crate) fn forget_outgoing(&mut self, peer: NodeId) {
        self.outgoing.push((peer.get(), None));
    }

    /// How many entries change.
    pub(crate) fn len(&self) -> usize {
        let trusted = self.trusted.len() + usize::from(self.trusted_next.is_some());
        trusted + self.pending.len() + self.outgoing.len() + self.revoked.len() + self.floors.len()
    }

    /// Who comes to be trusted, and who is no longer.
    pub(crate) fn membership(&self) -> &[(NodeId, bool)] {
        &self.membership
    }

    /// How many peers will be trusted.
    pub(crate) fn trusted_len(&self) -> usize {
        self.trusted_len
    }

    pub(crate) fn touched(&self) -> Touched {
        let trusted = !self.trusted.is_empty() || self.trusted_next.is_some();
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
mod tests;
