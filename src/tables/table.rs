//! What a table is: entries by key, persistent, with the difference of two versions in time proportional to it.
//!
//! There are two kinds: [`ById`] has an entry for a peer, [`ByKey`] one for a public key. The trusted records have a map of
//! their own.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::map::mix::Mix;
use crate::map::trie::Trie;
use crate::peer::{NodeId, PublicKey};

/// One version of a table.
pub(crate) trait Table: Clone {
    /// What an entry belongs to.
    type Key: Copy + Eq;
    /// What a key has.
    type Entry: Clone + PartialEq;
    /// The order of the entries on disk.
    type Order: Copy + Ord;

    fn new(mix: Mix) -> Self;

    /// The table of these entries, which come in their order without repeats.
    fn from_sorted(mix: Mix, entries: Vec<(Self::Key, Self::Entry)>) -> Self;

    fn order(mix: Mix, key: Self::Key) -> Self::Order;

    fn len(&self) -> usize;

    fn get(&self, key: Self::Key) -> Option<&Self::Entry>;

    /// All entries in their order.
    fn iter(&self) -> impl Iterator<Item = (Self::Key, &Self::Entry)>;

    /// The next version: each key set to its entry, or removed. A key occurs at most once.
    fn apply(&self, changes: &[(Self::Key, Option<Self::Entry>)]) -> Self;

    /// Calls `found` for every key whose entry is another than in `older`, in their order; with `None` if it is gone.
    fn diff<'a>(&'a self, older: &'a Self, found: &mut dyn FnMut(Self::Key, Option<&'a Self::Entry>));
}

/// Entries by peer.
#[derive(Clone, Debug)]
pub(crate) struct ById<V>(Trie<V>);

impl<V: Clone + PartialEq> ById<V> {
    /// A table of the same store without entries.
    pub(super) fn emptied(&self) -> Self {
        Self(Trie::new(self.0.mix()))
    }

    /// Calls `found` for every peer whose entry is another than in `older`, with the one there and the one here.
    pub(super) fn changes<'a>(&'a self, older: &'a Self, found: &mut dyn FnMut(NodeId, Option<&'a V>, Option<&'a V>)) {
        self.0.diff(&older.0, &mut |id, old, new| {
            if let Some(id) = NodeId::new(id) {
                found(id, old, new);
            }
        });
    }
}

impl<V: Clone + PartialEq> Table for ById<V> {
    type Key = NodeId;
    type Entry = V;
    type Order = u32;

    fn new(mix: Mix) -> Self {
        Self(Trie::new(mix))
    }

    fn from_sorted(mix: Mix, entries: Vec<(NodeId, V)>) -> Self {
        Self(Trie::from_sorted(mix, entries.into_iter().map(|(id, entry)| (id.get(), entry))))
    }

    fn order(mix: Mix, key: NodeId) -> u32 {
        mix.mix(key.get())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: NodeId) -> Option<&V> {
        self.0.get(key.get())
    }

    fn iter(&self) -> impl Iterator<Item = (NodeId, &V)> {
        self.0.iter().filter_map(|(id, entry)| Some((NodeId::new(id)?, entry)))
    }

    fn apply(&self, changes: &[(NodeId, Option<V>)]) -> Self {
        if changes.is_empty() {
            return self.clone();
        }
        Self(self.0.apply(changes.iter().map(|(id, entry)| (id.get(), entry.clone()))))
    }

    fn diff<'a>(&'a self, older: &'a Self, found: &mut dyn FnMut(NodeId, Option<&'a V>)) {
        self.changes(older, &mut |id, _, new| found(id, new));
    }
}

/// Entries by public key: those whose keys share their first four bytes lie together, in ascending order.
#[derive(Clone, Debug)]
pub(crate) struct ByKey<V> {
    buckets: Trie<Bucket<V>>,
    len: usize,
}

type Bucket<V> = Arc<[(PublicKey, V)]>;

impl<V: Clone + PartialEq> Table for ByKey<V> {
    type Key = PublicKey;
    type Entry = V;
    type Order = (u32, [u8; 32]);

    fn new(mix: Mix) -> Self {
        Self { buckets: Trie::new(mix), len: 0 }
    }

    fn from_sorted(mix: Mix, entries: Vec<(PublicKey, V)>) -> Self {
        let len = entries.len();
        let buckets: Vec<(u32, Bucket<V>)> = entries
            .chunk_by(|(a, _), (b, _)| bucket_of(*a) == bucket_of(*b))
            .filter_map(|chunk| Some((bucket_of(chunk.first()?.0), chunk.into())))
            .collect();
        Self { buckets: Trie::from_sorted(mix, buckets.into_iter()), len }
    }

    fn order(mix: Mix, key: PublicKey) -> (u32, [u8; 32]) {
        (mix.mix(bucket_of(key)), *key.as_bytes())
    }

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, key: PublicKey) -> Option<&V> {
        let bucket = self.buckets.get(bucket_of(key))?;
        let at = bucket.binary_search_by(|(other, _)| other.as_bytes().cmp(key.as_bytes())).ok()?;
        bucket.get(at).map(|(_, entry)| entry)
    }

    fn iter(&self) -> impl Iterator<Item = (PublicKey, &V)> {
        self.buckets.iter().flat_map(|(_, bucket)| bucket.iter().map(|(key, entry)| (*key, entry)))
    }

    fn apply(&self, changes: &[(PublicKey, Option<V>)]) -> Self {
        if changes.is_empty() {
            return self.clone();
        }
        let mut changed = BTreeMap::<u32, BTreeMap<[u8; 32], (PublicKey, V)>>::new();
        let mut len = self.len;
        for (key, entry) in changes {
            let id = bucket_of(*key);
            let bucket = changed.entry(id).or_insert_with(|| {
                let before = self.buckets.get(id).into_iter().flat_map(|bucket| bucket.iter());
                before.map(|(key, entry)| (*key.as_bytes(), (*key, entry.clone()))).collect()
            });
            len -= bucket.len();
            match entry {
                Some(entry) => drop(bucket.insert(*key.as_bytes(), (*key, entry.clone()))),
                None => drop(bucket.remove(key.as_bytes())),
            }
            len += bucket.len();
        }
        let buckets = changed
            .into_iter()
            .map(|(id, bucket)| (id, (!bucket.is_empty()).then(|| bucket.into_values().collect::<Bucket<V>>())));
        Self { buckets: self.buckets.apply(buckets), len }
    }

    fn diff<'a>(&'a self, older: &'a Self, found: &mut dyn FnMut(PublicKey, Option<&'a V>)) {
        self.buckets.diff(&older.buckets, &mut |_, old, new| {
            let (mut old, mut new) = (old.map_or(&[][..], |old| old), new.map_or(&[][..], |new| new));
            // Both are in ascending order of key.
            loop {
                match (old.split_first(), new.split_first()) {
                    (None, None) => return,
                    (Some(((gone, _), rest)), next)
                        if next.is_none_or(|((key, _), _)| gone.as_bytes() < key.as_bytes()) =>
                    {
                        found(*gone, None);
                        old = rest;
                    }
                    (before, Some(((key, entry), rest))) => {
                        let same_key = before.filter(|((other, _), _)| other == key);
                        if same_key.is_none_or(|((_, before), _)| before != entry) {
                            found(*key, Some(entry));
                        }
                        if let Some((_, behind)) = same_key {
                            old = behind;
                        }
                        new = rest;
                    }
                    (Some(_), None) => return,
                }
            }
        });
    }
}

fn bucket_of(key: PublicKey) -> u32 {
    key.as_bytes().first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Keys of three buckets, several in each; their points on the curve do not matter here.
    #[allow(clippy::unwrap_used, reason = "a helper of tests")]
    fn key(number: u8) -> PublicKey {
        let mut bytes = [9; 32];
        bytes[0] = number % 3;
        bytes[31] = number / 3;
        PublicKey::from_checksummed(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn a_table_by_key_is_a_map_and_a_difference_makes_the_older_the_newer(
            steps in prop::collection::vec(
                prop::collection::btree_map(0..12u8, any::<Option<u8>>(), 0..6), 1..12),
            seed: u64,
        ) {
            let mix = Mix::new(seed);
            let (mut table, mut model) = (ByKey::new(mix), BTreeMap::new());
            let mut versions = vec![(table.clone(), model.clone())];
            for step in steps {
                let changes: Vec<_> = step.iter().map(|(number, entry)| (key(*number), *entry)).collect();
                for (number, entry) in &step {
                    match entry {
                        Some(entry) => drop(model.insert(*number, *entry)),
                        None => drop(model.remove(number)),
                    }
                }
                table = table.apply(&changes);
                versions.push((table.clone(), model.clone()));
            }
            for (table, model) in &versions {
                prop_assert_eq!(table.len(), model.len());
                for number in 0..12 {
                    prop_assert_eq!(table.get(key(number)), model.get(&number));
                }
                let entries: Vec<_> = table.iter().map(|(key, entry)| (key, *entry)).collect();
                prop_assert!(entries.is_sorted_by_key(|(key, _)| ByKey::<u8>::order(mix, *key)));
                prop_assert_eq!(entries.len(), model.len());
                let again = ByKey::from_sorted(mix, entries.clone());
                prop_assert_eq!(again.iter().map(|(key, entry)| (key, *entry)).collect::<Vec<_>>(), entries);
            }
            for (older, before) in &versions {
                for (newer, after) in &versions {
                    let mut found = Vec::new();
                    newer.diff(older, &mut |key, entry| found.push((key, entry.copied())));
                    let differ = (0..12).filter(|number| before.get(number) != after.get(number)).count();
                    prop_assert_eq!(found.len(), differ);
                    let made = older.apply(&found);
                    prop_assert_eq!(made.iter().collect::<Vec<_>>(), newer.iter().collect::<Vec<_>>());
                }
            }
        }
    }
}
