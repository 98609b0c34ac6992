//! The pending table, which knows who takes how much room in it.
#![forbid(unsafe_code)]

use core::mem;

use super::Pending;
use super::crowds::Crowds;
use super::table::{ById, Table};
use crate::map::mix::Mix;
use crate::peer::NodeId;
use crate::sync::Mutex;

use std::sync::Arc;

/// One version of the pending table.
///
/// All versions share the [`Crowds`] of the one that was asked last. They follow from the entries: nothing keeps them up to
/// date but the next question, which makes the difference good.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    entries: Entries,
    counted: Arc<Mutex<Option<Counted>>>,
}

type Entries = ById<Arc<Pending>>;

#[derive(Debug)]
struct Counted {
    entries: Entries,
    crowds: Crowds,
}

impl Queue {
    fn of(entries: Entries) -> Self {
        Self { entries, counted: Arc::new(Mutex::new(None)) }
    }

    /// Looks at the crowds of all entries but this peer's.
    pub(crate) fn crowds_but<T>(&self, peer: NodeId, look: impl FnOnce(&Crowds) -> T) -> T {
        let mut counted = self.counted.lock();
        // Should `look` panic, they are counted anew.
        let (before, mut crowds) = match counted.take() {
            Some(Counted { entries, crowds }) => (entries, crowds),
            None => (self.entries.emptied(), Crowds::default()),
        };
        self.entries.changes(&before, &mut |peer, old, new| {
            old.into_iter().for_each(|old| crowds.remove(peer, old));
            new.into_iter().for_each(|new| crowds.add(peer, new));
        });
        let own = self.entries.get(peer);
        own.into_iter().for_each(|own| crowds.remove(peer, own));
        let seen = look(&crowds);
        own.into_iter().for_each(|own| crowds.add(peer, own));
        *counted = Some(Counted { entries: self.entries.clone(), crowds });
        seen
    }
}

impl Table for Queue {
    type Key = NodeId;
    type Entry = Arc<Pending>;
    type Order = u32;

    fn new(mix: Mix) -> Self {
        Self::of(Table::new(mix))
    }

    fn from_sorted(mix: Mix, entries: Vec<(NodeId, Arc<Pending>)>) -> Self {
        Self::of(Table::from_sorted(mix, entries))
    }

    fn order(mix: Mix, key: NodeId) -> u32 {
        Entries::order(mix, key)
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn get(&self, key: NodeId) -> Option<&Arc<Pending>> {
        self.entries.get(key)
    }

    fn iter(&self) -> impl Iterator<Item = (NodeId, &Arc<Pending>)> {
        self.entries.iter()
    }

    fn apply(&self, changes: &[(NodeId, Option<Arc<Pending>>)]) -> Self {
        let next = Self { entries: self.entries.apply(changes), counted: Arc::clone(&self.counted) };
        // Nobody may ask for a long time; what was counted holds the entries of then.
        if !changes.is_empty() && next.len() == 0 {
            drop(mem::take(&mut *self.counted.lock()));
        }
        next
    }

    fn diff<'a>(&'a self, older: &'a Self, found: &mut dyn FnMut(NodeId, Option<&'a Arc<Pending>>)) {
        self.entries.diff(&older.entries, found);
    }
}

#[cfg(all(test, feature = "handshake", not(trustkeep_loom)))]
mod tests {
    use super::*;
    use crate::tables::Source;
    use crate::tables::crowds::{BLOCK_BITS, Class, Crowd};
    use crate::testing::actor::{Actor, Way, node};
    use crate::time::Tick;
    use proptest::prelude::*;

    #[allow(clippy::unwrap_used, reason = "a helper of tests")]
    fn entry() -> Pending {
        let mut us = Actor::new(9, 0x11);
        us.is_asked(10, 999, 0xAA, "", Way::from_host(1)).unwrap();
        us.tables.pending.remove(&node(999)).unwrap()
    }

    /// Everything that may be asked of them, as text.
    fn answers(crowds: &Crowds, sources: &[Source]) -> String {
        let sites = sources.iter().map(|source| Crowd::site(*source));
        let blocks = sources.iter().flat_map(|source| BLOCK_BITS.map(|bits| Crowd::block(*source, bits)));
        let all = sites.chain(blocks.flatten()).chain(sources.iter().map(|source| Crowd::Source(*source)));
        let of_all = all.chain([Crowd::All]).map(|it| (it, crowds.count(it), crowds.oldest_unvouched(it)));
        let classes = sources.iter().filter_map(|source| Class::sources_of(Crowd::site(*source)));
        let classes = classes.chain([Class::Sites]).chain(BLOCK_BITS.map(Class::Blocks));
        let largest = classes.map(|class| (class, crowds.largest(class).collect::<Vec<_>>()));
        format!("{:?} {:?}", of_all.collect::<Vec<_>>(), largest.collect::<Vec<_>>())
    }

    fn counted_anew(queue: &Queue, but: NodeId) -> Crowds {
        let mut crowds = Crowds::default();
        queue.iter().filter(|(peer, _)| *peer != but).for_each(|(peer, entry)| crowds.add(peer, entry));
        crowds
    }

    proptest! {
        /// Whatever was asked of which version before: what is told of one is what its entries come to.
        #[test]
        fn what_is_told_of_the_crowds_follows_from_the_entries_alone(
            steps in prop::collection::vec(
                (prop::collection::btree_map(1_u32..12, prop::option::of((0..4_u8, 0..3_i64, any::<bool>())), 0..5),
                    prop::option::of((any::<prop::sample::Index>(), 1_u32..12))),
                1..24),
        ) {
            let texts = ["192.0.2.1", "2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:2:1::1"];
            let sources = texts.map(|text| Source::from_address(text.parse().unwrap()));
            let sample = entry();
            let mut versions = vec![Queue::new(Mix::new(7))];
            for (changes, asked) in steps {
                let changed = |(source, tick, authentic): (u8, i64, bool)| {
                    let mut entry = sample.clone();
                    entry.source = sources[usize::from(source)];
                    (entry.received_tick, entry.authentic) = (Tick::new(tick), authentic);
                    Arc::new(entry)
                };
                let changes: Vec<_> = changes.into_iter().map(|(id, to)| (node(id), to.map(changed))).collect();
                let next = versions.last().unwrap().apply(&changes);
                versions.push(next);
                if let Some((which, but)) = asked {
                    let version = which.get(&versions);
                    let told = version.crowds_but(node(but), |crowds| answers(crowds, &sources));
                    prop_assert_eq!(told, answers(&counted_anew(version, node(but)), &sources));
                }
            }
        }
    }

    #[test]
    fn what_was_counted_is_no_more_once_nobody_waits() {
        let (full, weak) = {
            let waits = Arc::new(entry());
            let weak = Arc::downgrade(&waits);
            (Queue::new(Mix::new(7)).apply(&[(node(1), Some(waits))]), weak)
        };
        assert_eq!(full.crowds_but(node(2), |crowds| crowds.count(Crowd::All)), 1);
        let empty = full.apply(&[(node(1), None)]);
        drop(full);
        assert!(weak.upgrade().is_none(), "{empty:?}");
        assert_eq!(empty.crowds_but(node(2), |crowds| crowds.count(Crowd::All)), 0);
    }
}
