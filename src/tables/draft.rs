//! A change of several tables before it is published: what of it differs from what is there.
#![forbid(unsafe_code)]

use super::patch::{SideValues, Values};
use super::table::Table;
use super::{Owed, RefusedRequest, Revocation, Sides, Succession, TableChange, Tables, side_tables};
use crate::map::{Change, TrustMap, Value};
use crate::peer::Kind;
use crate::peer::{NodeId, PublicKey};

use std::collections::BTreeSet;
use std::sync::Arc;

/// What a set of changes touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Touched {
    /// The trusted table: readers need a new version.
    pub(crate) trusted: bool,
    /// Anything but floors, revisions and repeats of peers that wait: the keeper must be rung.
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
    /// Most changes are of trusted records alone.
    sides: Option<Box<SideValues>>,
    membership: Vec<(NodeId, bool)>,
    /// Who is trusted under another key than before, or under none. Of those who are trusted no longer see `membership`.
    replaced: Vec<NodeId>,
    trusted_len: usize,
    /// How many pending entries change in nothing that an operator decides on.
    repeats: usize,
}

impl Tables {
    /// What of these changes differs from what is there. Nothing is derived yet.
    pub(crate) fn draft(&self, changes: &[TableChange]) -> Draft {
        let records = changes.iter().filter(|change| matches!(change, TableChange::Trusted(..))).count();
        let mut draft = self.empty_draft(records);
        for change in changes {
            if let TableChange::Trusted(peer, record) = change {
                let (before, change) = (self.trusted.value(*peer), self.trusted.change(*peer, record.as_ref()));
                if before != change.value() {
                    draft.set_trusted(*peer, before, change);
                }
            } else {
                note(&self.sides, change, &mut draft);
                draft.repeats += usize::from(self.is_repeat(change));
            }
        }
        draft
    }

    /// whether a peer that waits has only said once more what it said before.
    fn is_repeat(&self, change: &TableChange) -> bool {
        match change {
            TableChange::Pending(peer, Some(after)) => {
                let before = self.sides.pending.get(*peer);
                before.is_some_and(|before| before != after && before.reads_like(after))
            }
            // only the stamps differ, of a peer that asks again and is answered.
            TableChange::Refused(peer, Some(after)) => self.sides.refused.get(*peer).is_some_and(|before| {
                let mut keys = after.iter().map(|it| it.key);
                before != after && before.len() == after.len() && keys.all(|key| before.iter().any(|it| it.key == key))
            }),
            // What a trusted peer is told again says nothing that its record does not; R-21 cures what a crash forgets.
            TableChange::Owed(peer, after) => {
                let before = self.sides.owed.get(*peer);
                let is_accept = |owed: Option<&Arc<Owed>>| owed.is_none_or(|it| it.kind == Kind::Accept);
                before != after.as_ref() && is_accept(before) && is_accept(after.as_ref())
            }
            _ => false,
        }
    }

    /// A draft that so many trusted records are about to be put into.
    pub(crate) fn empty_draft(&self, records: usize) -> Draft {
        Draft { trusted: Vec::with_capacity(records), trusted_len: self.trusted.len(), ..Draft::default() }
    }

    /// a saved revision goes with the last entry of its peer, by whatever door that goes. Costs nothing where no
    /// revision is saved, and else time in proportion to the entries that the draft takes out.
    pub(crate) fn let_revisions_go(&self, draft: &mut Draft) {
        let revisions = &self.sides.revisions;
        if revisions.len() == 0 {
            return;
        }
        let sides = draft.sides.as_deref();
        let out = draft.membership.iter().filter(|(_, is_trusted)| !is_trusted).map(|(peer, _)| *peer);
        let out = out.chain(sides.into_iter().flat_map(SideValues::peers_taken_out));
        let candidates: BTreeSet<NodeId> = out.filter(|peer| revisions.get(*peer).is_some()).collect();
        if candidates.is_empty() {
            return;
        }
        let mut left: BTreeSet<NodeId> =
            candidates.iter().copied().filter(|peer| self.trusted.contains(*peer)).collect();
        for (peer, is_trusted) in draft.membership.iter().filter(|(peer, _)| candidates.contains(peer)) {
            if *is_trusted {
                left.insert(*peer)
            } else {
                left.remove(peer)
            };
        }
        self.sides.holds_after(sides, &candidates, &mut left);
        let gone: BTreeSet<NodeId> = candidates.difference(&left).copied().collect();
        if !gone.is_empty() {
            let sides = draft.sides();
            sides.revisions.retain(|(peer, _)| !gone.contains(peer));
            sides.revisions.extend(gone.into_iter().map(|peer| (peer, None)));
        }
    }

    /// The next state. It should be made only if it will be published: going on from this one again afterwards copies all
    /// trusted records.
    pub(crate) fn next(&self, draft: &mut Draft) -> Self {
        Self {
            trusted: draft.trusted_next.take().unwrap_or_else(|| self.trusted.changed(&mut draft.trusted)),
            sides: match &draft.sides {
                None => Arc::clone(&self.sides),
                Some(values) => Arc::new(self.sides.apply(values)),
            },
        }
    }

    /// Both steps at once.
    #[cfg(any(test, feature = "__testing", feature = "cli"))]
    pub(crate) fn apply(&self, changes: &[TableChange]) -> (Self, Touched) {
        let mut draft = self.draft(changes);
        let touched = draft.touched();
        (self.next(&mut draft), touched)
    }
}

impl Draft {
    /// The record of a peer, which was trusted or was not, becomes another.
    pub(crate) fn set_trusted(&mut self, peer: NodeId, before: Option<&Value>, change: Change) {
        let (was_trusted, is_trusted) = (before.is_some(), change.value().is_some());
        if let (Some(before), Some(after)) = (before, change.value())
            && before.is_lost_to(after)
        {
            self.replaced.push(peer);
        }
        self.trusted_len = self.trusted_len + usize::from(is_trusted) - usize::from(was_trusted);
        if is_trusted != was_trusted {
            self.membership.push((peer, is_trusted));
        }
        self.trusted.push(change);
    }

    /// One more peer is trusted, or on other terms: the trusted records become these, which were derived from those of the
    /// state, and nothing else of them changes. `is_lost`: it is trusted under another key than before, or under none.
    pub(crate) fn set_trusted_next(&mut self, peer: NodeId, was_trusted: bool, is_lost: bool, next: TrustMap) {
        debug_assert!(self.trusted.is_empty(), "two changes of one table");
        self.trusted_len = next.len();
        if !was_trusted {
            self.membership.push((peer, true));
        }
        if is_lost {
            self.replaced.push(peer);
        }
        self.trusted_next = Some(next);
    }

    /// The mark of a peer becomes another, or goes.
    pub(crate) fn set_revoked(&mut self, peer: NodeId, mark: Option<Revocation>) {
        self.sides().revoked.push((peer, mark));
    }

    /// The mark of a key goes.
    pub(crate) fn forget_key_mark(&mut self, key: PublicKey) {
        let sides = self.sides();
        if !sides.revoked_keys.iter().any(|(of, _)| *of == key) {
            sides.revoked_keys.push((key, None));
        }
    }

    /// What is remembered of a peer's keys that named another one becomes this.
    pub(crate) fn set_successors(&mut self, peer: NodeId, all: Arc<[Succession]>) {
        self.sides().successors.push((peer, Some(all)));
    }

    /// A peer is ignored no longer.
    pub(crate) fn hear(&mut self, peer: NodeId) {
        self.sides().ignored.push((peer, None));
    }

    /// What waits of a peer, waits no longer.
    pub(crate) fn forget_pending(&mut self, peer: NodeId) {
        self.sides().pending.push((peer, None));
    }

    /// What an operator has refused of a peer.
    pub(crate) fn set_refused(&mut self, peer: NodeId, refused: Option<Arc<[RefusedRequest]>>) {
        self.sides().refused.push((peer, refused));
    }

    /// What was asked of a peer, was not.
    pub(crate) fn forget_outgoing(&mut self, peer: NodeId) {
        self.sides().outgoing.push((peer, None));
    }

    fn sides(&mut self) -> &mut SideValues {
        self.sides.get_or_insert_default()
    }

    /// How many entries change.
    pub(crate) fn len(&self) -> usize {
        self.trusted.len()
            + usize::from(self.trusted_next.is_some())
            + self.sides.as_ref().map_or(0, |sides| sides.len())
    }

    /// Who comes to be trusted, and who is no longer.
    pub(crate) fn membership(&self) -> &[(NodeId, bool)] {
        &self.membership
    }

    /// How many peers will be trusted.
    pub(crate) fn trusted_len(&self) -> usize {
        self.trusted_len
    }

    /// Whether marks of peers or keys change: readers need a new version then, too.
    pub(crate) fn touches_marks(&self) -> bool {
        self.sides.as_deref().is_some_and(|sides| !(sides.revoked.is_empty() && sides.revoked_keys.is_empty()))
    }

    /// Whose trust ends: who is trusted no longer, or under another key.
    pub(crate) fn ended(&self) -> impl Iterator<Item = NodeId> {
        let gone = self.membership.iter().filter(|(_, is_trusted)| !is_trusted).map(|(peer, _)| *peer);
        gone.chain(self.replaced.iter().copied())
    }

    pub(crate) fn ended_len(&self) -> usize {
        self.membership.iter().filter(|(_, is_trusted)| !is_trusted).count() + self.replaced.len()
    }

    pub(crate) fn touched(&self) -> Touched {
        let trusted = !self.trusted.is_empty() || self.trusted_next.is_some();
        let count = |sides: &SideValues| (sides.len(), sides.floors.len() + sides.revisions.len());
        let (sides, calm) = self.sides.as_deref().map_or((0, 0), count);
        let urgent = trusted || sides > calm + self.repeats;
        Touched { trusted, urgent, any: urgent || sides > 0 }
    }
}

impl SideValues {
    /// Peers of which an entry goes that keeps a revision.
    fn peers_taken_out(&self) -> impl Iterator<Item = NodeId> {
        taken_out(&self.pending)
            .chain(taken_out(&self.outgoing))
            .chain(taken_out(&self.revoked))
            .chain(taken_out(&self.floors))
            .chain(taken_out(&self.owed))
    }
}

impl Sides {
    /// Adds those of the candidates that these tables still have an entry of once the values are applied.
    fn holds_after(&self, values: Option<&SideValues>, candidates: &BTreeSet<NodeId>, left: &mut BTreeSet<NodeId>) {
        holds(&self.pending, values.map(|values| &values.pending), candidates, left);
        holds(&self.outgoing, values.map(|values| &values.outgoing), candidates, left);
        holds(&self.revoked, values.map(|values| &values.revoked), candidates, left);
        holds(&self.floors, values.map(|values| &values.floors), candidates, left);
        holds(&self.owed, values.map(|values| &values.owed), candidates, left);
    }
}

fn taken_out<V>(values: &[(NodeId, Option<V>)]) -> impl Iterator<Item = NodeId> {
    values.iter().filter(|(_, entry)| entry.is_none()).map(|(peer, _)| *peer)
}

fn holds<T: Table<Key = NodeId>>(
    table: &T,
    values: Option<&Values<T>>,
    candidates: &BTreeSet<NodeId>,
    left: &mut BTreeSet<NodeId>,
) {
    let mut held: BTreeSet<NodeId> = candidates.iter().copied().filter(|peer| table.get(*peer).is_some()).collect();
    for (peer, entry) in values.into_iter().flatten().filter(|(peer, _)| candidates.contains(peer)) {
        if entry.is_some() {
            held.insert(*peer)
        } else {
            held.remove(peer)
        };
    }
    left.append(&mut held);
}

macro_rules! note {
    ($($(#[$doc:meta])* $number:literal $field:ident $variant:ident $key:ty, $entry:ty => $table:ty;)*) => {
        /// Adds the change to the draft if it changes something.
        fn note(before: &Sides, change: &TableChange, draft: &mut Draft) {
            match change {
                TableChange::Trusted(..) => {}
                $(TableChange::$variant(key, entry) => {
                    if before.$field.get(*key) != entry.as_ref() {
                        draft.sides().$field.push((*key, entry.clone()));
                    }
                })*
            }
        }

        impl Sides {
            fn apply(&self, values: &SideValues) -> Self {
                Self { $($field: self.$field.apply(&values.$field),)* }
            }
        }
    };
}
side_tables!(note);
