//! The laws of the map with versions, against `BTreeMap`: every held version is checked after every step, whatever was
//! derived, dropped and swept meanwhile, with nodes so small that they split and merge all the time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::map::TrustMap;
use crate::map::change::Bounds;
use crate::map::mix::Mix;
use crate::map::node::{Inner, Node};
use crate::map::value::Value;
use crate::map::word::BITS_MAX;
use crate::peer::{NodeId, TrustRecord};

pub(super) type Model = BTreeMap<NodeId, TrustRecord>;

pub(super) fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

pub(super) fn record(id: u32, network: u16) -> TrustRecord {
    TrustRecord::new(node(id), None).network(network)
}

/// Small nodes of several proportions, and those that are in use.
pub(super) const BOUNDS: [Bounds; 5] = [
    Bounds { leaf_max: 2, merge_max: 1, bits_max: 1, merge_bits_max: 1 },
    Bounds { leaf_max: 3, merge_max: 2, bits_max: 2, merge_bits_max: 1 },
    Bounds { leaf_max: 5, merge_max: 2, bits_max: 3, merge_bits_max: 2 },
    Bounds { leaf_max: 32, merge_max: 12, bits_max: 2, merge_bits_max: 1 },
    Bounds::FAST,
];

/// Everything that must be true of a tree beyond its contents. Returns how many nodes it has.
pub(super) fn check_shape(map: &TrustMap, bounds: Bounds) -> usize {
    fn walk(node: &Inner<'_>, bounds: Bounds) -> usize {
        assert!(node.word.bits() <= bounds.bits_max);
        assert_eq!(node.words.len(), 1 << node.word.bits());
        let (mut slot, mut end, mut nodes) = (0, u64::from(node.start), 1);
        while let Some(child) = node.child(slot) {
            assert_eq!(child.slots.0, slot, "a child begins in the middle");
            assert!(child.depth >= node.depth() && child.depth <= node.depth() + node.word.bits());
            assert!(node.words[child.slots.0..child.slots.1].iter().all(|word| *word == child.word));
            assert_eq!(u64::from(child.start), end);
            end = child.end();
            slot = child.slots.1;
            nodes += match node.open(&child) {
                Node::Inner(inner) => walk(&inner, bounds),
                Node::Leaf(leaf) => {
                    assert!(leaf.values().len() <= bounds.leaf_max(child.depth));
                    let places: Vec<u32> = leaf.places().collect();
                    assert!(places.is_sorted_by(|a, b| a < b));
                    assert!(places.iter().all(|place| (u64::from(leaf.start)..end).contains(&u64::from(*place))));
                    1
                }
            };
        }
        assert_eq!(end, u64::from(node.start) + (1 << (32 - node.depth())));
        let narrowest = (0..node.words.len()).filter_map(|slot| node.child(slot)).map(|child| child.depth).max();
        assert_eq!(narrowest, Some(node.depth() + node.word.bits()), "wider than its children need");
        nodes
    }
    let root = map.version.root();
    assert!(root.depth() == 0 && (root.level == 1 || root.word.bits() > 0));
    walk(&root, bounds)
}

fn check_contents(map: &TrustMap, model: &Model) {
    assert_eq!(map.len(), model.len());
    let records: Vec<TrustRecord> = map.iter().collect();
    assert!(records.is_sorted_by_key(|record| map.mix().mix(record.node_id.get())), "iteration out of order");
    assert_eq!(&records.into_iter().map(|record| (record.node_id, record)).collect::<Model>(), model);
    for (peer, record) in model {
        assert_eq!(map.get(*peer), Some(*record));
        assert!(map.contains(*peer));
    }
    for id in 1..200 {
        assert_eq!(map.contains(node(id)), model.contains_key(&node(id)));
        assert_eq!(map.get(node(id)), model.get(&node(id)).copied());
    }
    // Neighbours in places differ from a record in one bit alone: the upper tag, the lower, or the slot.
    for peer in model.keys() {
        for bit in 0..32 {
            let Some(near) = NodeId::new(map.mix().unmix(map.mix().mix(peer.get()) ^ 1 << bit)) else { continue };
            assert_eq!(map.contains(near), model.contains_key(&near));
        }
    }
}

/// Asking for many at once gives the same answers, whatever the numbers of questions and of room for answers.
fn check_many(map: &TrustMap, model: &Model) {
    let peers: Vec<NodeId> = (1..100).map(node).chain(model.keys().copied()).collect();
    for (asked, room) in [(0, 5), (1, 1), (15, 20), (16, 16), (17, 17), (40, 33), (peers.len(), peers.len())] {
        let asked = &peers[..asked];
        let mut answers = vec![true; room];
        map.contains_each(asked, &mut answers);
        for (index, answer) in answers.into_iter().enumerate() {
            // Where nothing was asked nothing is answered.
            assert_eq!(answer, asked.get(index).is_none_or(|peer| model.contains_key(peer)), "{index}");
        }
    }
}

fn check_diff(new: &(TrustMap, Model), old: &(TrustMap, Model)) {
    let mut found = BTreeMap::new();
    new.0.diff(&old.0, &mut |old, new| {
        found.insert(old.or(new).unwrap().node_id, (old, new));
    });
    let all = old.1.keys().chain(new.1.keys());
    let expected: BTreeMap<_, _> = all
        .map(|peer| (*peer, (old.1.get(peer).copied(), new.1.get(peer).copied())))
        .filter(|(_, (old, new))| old != new)
        .collect();
    assert_eq!(found, expected);
}

/// The same records closer together, by so many nodes at a time.
pub(super) fn gathered(map: &TrustMap, at_once: usize) -> TrustMap {
    let mut map = map.clone();
    if let Some(places) = map.begin_move(0) {
        assert!(places.is_sorted_by(|a, b| a < b));
        for some in places.chunks(at_once) {
            map = map.moved(some).unwrap();
        }
        map.end_move();
    }
    map
}

#[derive(Clone, Debug)]
enum Act {
    Change(BTreeMap<u32, Option<u16>>),
    /// One record, and then the same again.
    With(u32, u16),
    /// From an old version, into a history of its own.
    Branch(usize, BTreeMap<u32, Option<u16>>),
    Hold,
    Drop(usize),
    Sweep,
    /// So many nodes at a time.
    Gather(usize),
    Trim,
}

fn batch() -> impl Strategy<Value = BTreeMap<u32, Option<u16>>> {
    // Few ids, so that they are hit again; batches of one as well as of hundreds, of grants as well as of removals.
    let id = prop_oneof![1..40u32, 1..600u32, 1..=u32::MAX];
    (0.0..1.0f64, 1..150usize).prop_flat_map(move |(grants, len)| {
        proptest::collection::btree_map(id.clone(), proptest::option::weighted(grants, any::<u16>()), 1..=len)
    })
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => batch().prop_map(Act::Change),
        8 => (prop_oneof![1..40u32, 1..600u32, 1..=u32::MAX], 0..3u16).prop_map(|(id, net)| Act::With(id, net)),
        1 => (any::<usize>(), batch()).prop_map(|(of, batch)| Act::Branch(of, batch)),
        4 => Just(Act::Hold),
        4 => any::<usize>().prop_map(Act::Drop),
        1 => Just(Act::Sweep),
        2 => (1..20usize).prop_map(Act::Gather),
        1 => Just(Act::Trim),
    ];
    proptest::collection::vec(act, 1..40)
}

fn apply((map, model): &(TrustMap, Model), batch: BTreeMap<u32, Option<u16>>) -> (TrustMap, Model) {
    let changes: Vec<_> = batch.into_iter().map(|(id, net)| (node(id), net.map(|net| record(id, net)))).collect();
    let mut next = model.clone();
    for (peer, record) in &changes {
        match record {
            Some(record) => drop(next.insert(*peer, *record)),
            None => drop(next.remove(peer)),
        }
    }
    (map.apply(changes), next)
}

/// The same, of one record; what is there already makes no version and takes no memory.
fn with((map, model): &(TrustMap, Model), record: TrustRecord) -> (TrustMap, Model) {
    let mut after = model.clone();
    let before = after.insert(record.node_id, record);
    let nodes = map.usage().nodes;
    let next = match map.with(&record) {
        Some((next, was_there)) => {
            assert_eq!((was_there, before == Some(record)), (before.is_some(), false));
            next
        }
        None => {
            assert_eq!(before, Some(record));
            assert!(map.usage().nodes <= nodes, "it took memory");
            map.clone()
        }
    };
    (next, after)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn held_versions_agree_with_the_model_whatever_goes_on(
        seed: u64, bounds in 0..BOUNDS.len(), start in batch(), acts in acts(),
    ) {
        let bounds = BOUNDS[bounds];
        let mix = Mix::new(seed);
        let mut records: Vec<TrustRecord> =
            start.iter().filter_map(|(id, net)| net.map(|net| record(*id, net))).collect();
        records.sort_by_key(|record| mix.mix(record.node_id.get()));
        let model = records.iter().map(|record| (record.node_id, *record)).collect();
        let mut newest = (TrustMap::with_bounds(bounds, mix, records.into_iter()), model);
        let mut held: Vec<(TrustMap, Model)> = Vec::new();
        for act in acts {
            match act {
                Act::Change(batch) => newest = apply(&newest, batch),
                Act::With(id, net) => {
                    newest = with(&newest, record(id, net));
                    newest = with(&newest, record(id, net));
                }
                Act::Branch(of, batch) if !held.is_empty() => newest = apply(&held[of % held.len()], batch),
                Act::Hold => held.push(newest.clone()),
                Act::Drop(which) if !held.is_empty() => drop(held.remove(which % held.len())),
                Act::Sweep => newest.0.sweep(),
                Act::Gather(at_once) => newest.0 = gathered(&newest.0, at_once),
                Act::Trim => _ = newest.0.trim(),
                Act::Branch(..) | Act::Drop(_) => {}
            }
            for version in held.iter().chain([&newest]) {
                check_shape(&version.0, bounds);
                prop_assert_eq!(version.0.len(), version.1.len());
                prop_assert!(version.0.iter().all(|record| version.1.get(&record.node_id) == Some(&record)));
            }
        }
        held.push(newest.clone());
        for version in &held {
            check_contents(&version.0, &version.1);
            check_many(&version.0, &version.1);
            check_diff(&newest, version);
            check_diff(version, &newest);
        }
        // What is left is exactly what the newest version reaches.
        drop(held);
        newest.0.sweep();
        let usage = newest.0.usage();
        prop_assert_eq!((usage.versions, usage.retired), (1, 0));
        prop_assert_eq!(usage.nodes, check_shape(&newest.0, bounds));
    }

    #[test]
    fn a_record_set_in_an_old_version_is_set_in_a_history_of_its_own(
        seed: u64, bounds in 0..BOUNDS.len(), start in batch(), id in 1..600u32, net: u16,
    ) {
        let bounds = BOUNDS[bounds];
        let empty = (TrustMap::with_bounds(bounds, Mix::new(seed), core::iter::empty()), Model::new());
        let old = apply(&empty, start);
        let newer = with(&old, record(700, 1));
        let beside = with(&old, record(id, net));
        for version in [&old, &newer, &beside] {
            check_shape(&version.0, bounds);
            check_contents(&version.0, &version.1);
        }
        check_diff(&newer, &beside);
    }

    #[test]
    fn a_bulk_build_equals_the_same_made_one_by_one(seed: u64, bounds in 0..BOUNDS.len(), batch in batch()) {
        let bounds = BOUNDS[bounds];
        let mix = Mix::new(seed);
        let mut records: Vec<TrustRecord> = batch.into_keys().map(|id| record(id, 1)).collect();
        let mut single = TrustMap::with_bounds(bounds, mix, core::iter::empty());
        for record in &records {
            single = single.apply([(record.node_id, Some(*record))]);
        }
        records.sort_by_key(|record| mix.mix(record.node_id.get()));
        let bulk = TrustMap::with_bounds(bounds, mix, records.iter().copied());
        prop_assert!(bulk.iter().eq(records.iter().copied()) && single.iter().eq(records));
        single.diff(&bulk, &mut |old, new| panic!("{old:?} became {new:?}"));
    }
}

/// Places that agree in as many bits as they can: leaves at the greatest depth, levels as many as there are.
#[test]
fn records_crowded_into_one_corner_find_room() {
    for bounds in BOUNDS {
        let mix = Mix::new(3);
        let crowd: Vec<TrustRecord> = (0xffff_ffc0..=u32::MAX)
            .chain(0..64)
            .filter_map(|place| NodeId::new(mix.unmix(place)))
            .map(|peer| TrustRecord::new(peer, None))
            .collect();
        let mut now = (TrustMap::with_bounds(bounds, mix, core::iter::empty()), Model::new());
        for grow in [true, false] {
            for record in &crowd {
                let peer = record.node_id;
                now.0 = now.0.apply([(peer, grow.then_some(*record))]);
                match grow {
                    true => drop(now.1.insert(peer, *record)),
                    false => drop(now.1.remove(&peer)),
                }
                check_shape(&now.0, bounds);
                check_contents(&now.0, &now.1);
            }
        }
        assert_eq!(now.0.len(), 0);
    }
}

/// A publish copies one node of each level: hardly more than if the map had been built at once, and less of what is not in
/// the caches.
#[test]
fn levels_of_a_map_that_grew_are_of_about_the_same_width_the_root_the_widest() {
    let grow = |map: &mut TrustMap, to: u32, at_once: u32| {
        while map.len() < to as usize {
            let from = map.len() as u32 + 1;
            *map = map.apply((from..=to.min(from + at_once - 1)).map(|id| (node(id), Some(record(id, 0)))));
        }
        check_shape(map, Bounds::FAST);
        let root = map.version.root();
        let below = (0..root.words.len()).map(|slot| match root.open(&root.child(slot).unwrap()) {
            Node::Inner(inner) => inner.word.bits(),
            Node::Leaf(_) => 0,
        });
        (root.level, root.word.bits(), below.max().unwrap())
    };
    for at_once in [100, 10_000] {
        let mut map = TrustMap::new(Mix::new(5));
        // One level is enough, so a reader takes no further step.
        assert!(matches!(grow(&mut map, 2000, at_once), (1, 7..=BITS_MAX, 0)));
        for len in [12_000, 32_000, 102_000] {
            let (levels, root, below) = grow(&mut map, len, at_once);
            let is_even = below <= (root - 1).max(6) && root <= below + 3;
            assert!(levels == 2 && is_even, "{at_once}, {len}: {levels} {root} {below}");
        }
    }
}

#[test]
fn a_peer_that_comes_and_goes_neither_grows_nor_shrinks_the_tree_each_time() {
    let mix = Mix::new(1);
    let mut map = TrustMap::new(mix);
    for id in 1..=1000 {
        map = map.apply([(node(id), Some(record(id, 0)))]);
    }
    let nodes = check_shape(&map, Bounds::FAST);
    for round in 0..200 {
        map = map.apply([(node(5000), (round % 2 == 0).then(|| record(5000, 0)))]);
        assert!(check_shape(&map, Bounds::FAST).abs_diff(nodes) <= 1);
    }
}

#[test]
fn a_removal_of_nobody_changes_nothing() {
    let map = TrustMap::new(Mix::new(1)).apply([(node(1), Some(record(1, 7)))]);
    let next = map.apply([(node(2), None), (node(3), None)]);
    assert!(next.iter().eq(map.iter()));
    check_shape(&next, Bounds::FAST);
}

/// The work of `diff` shows in how many values are compared: none of a leaf that is shared.
#[test]
fn diff_passes_over_what_is_shared() {
    let mix = Mix::new(1);
    let mut records: Vec<TrustRecord> = (1..=100_000).map(|id| record(id, 0)).collect();
    records.sort_by_key(|record| mix.mix(record.node_id.get()));
    let old = TrustMap::from_sorted(mix, records.into_iter());
    let new = old.apply([(node(4711), Some(record(4711, 1)))]);
    let shared = |map: &TrustMap| map.version.all().map(|(_, value)| core::ptr::from_ref::<Value>(value)).collect();
    let (olds, news): (std::collections::BTreeSet<_>, std::collections::BTreeSet<_>) = (shared(&old), shared(&new));
    assert!((1..=32).contains(&olds.difference(&news).count()), "more than a leaf was copied");
    let mut found = Vec::new();
    new.diff(&old, &mut |old, new| found.push((old, new)));
    assert_eq!(found, [(Some(record(4711, 0)), Some(record(4711, 1)))]);
}
