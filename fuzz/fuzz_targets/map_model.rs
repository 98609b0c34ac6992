//! The persistent map agrees with `BTreeMap`, and a version never changes once made, whatever is derived from it.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trustkeep::testing::doors::Map;
use trustkeep::{NodeId, TrustRecord};

#[derive(Arbitrary, Debug)]
struct Input {
    seed: u64,
    start: Vec<(Id, u16)>,
    acts: Vec<Act>,
}

#[derive(Arbitrary, Debug)]
enum Act {
    /// The next version.
    Change(Vec<(Id, Option<u16>)>),
    /// The next version, of one record.
    With(Id, u16),
    /// Many ids in a row, so that nodes split and merge; or many places in a row, so that leaves are narrow.
    Fill {
        places: bool,
        from: u16,
        len: u16,
        value: Option<u16>,
    },
    /// A version from an older one, in a history of its own.
    Branch {
        from: u8,
        changes: Vec<(Id, Option<u16>)>,
    },
    Hold,
    Drop(u8),
    /// On another thread.
    DropElsewhere(u8),
    Sweep,
    Ready,
    /// A version with the same records elsewhere in memory, by so many nodes at a time.
    Gather(u8),
    Trim,
}

/// Few ids, so that they are hit again, ids whose places are neighbours, and now and then any id.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Id {
    Near(u8),
    Far(u32),
    Place { high: bool, low: u8 },
}

impl Id {
    fn node(self, seed: u64) -> Option<NodeId> {
        match self {
            Self::Near(id) => NodeId::new(id.into()),
            Self::Far(id) => NodeId::new(id),
            Self::Place { high, low } => Map::peer_at(seed, u32::from(high) << 31 | u32::from(low)),
        }
    }
}

type Model = BTreeMap<NodeId, TrustRecord>;

fn apply((map, model): &(Map, Model), changes: impl Iterator<Item = (Option<NodeId>, Option<u16>)>) -> (Map, Model) {
    let changes: BTreeMap<NodeId, Option<TrustRecord>> = changes
        .filter_map(|(node, value)| {
            let node = node?;
            Some((node, value.map(|network| TrustRecord::new(node, None).network(network))))
        })
        .collect();
    let mut next = model.clone();
    for (node, record) in &changes {
        match record {
            Some(record) => drop(next.insert(*node, *record)),
            None => drop(next.remove(node)),
        }
    }
    (map.apply(changes), next)
}

fn check(map: &Map, model: &Model, seed: u64) {
    assert_eq!(map.len(), model.len());
    assert_eq!(&map.iter().map(|record| (record.node_id, record)).collect::<Model>(), model);
    for (node, record) in model {
        assert_eq!(map.get(*node), Some(*record));
    }
    let few = (0..=255).flat_map(|low| {
        [Id::Near(low), Id::Place { high: false, low }, Id::Place { high: true, low }].map(|id| id.node(seed))
    });
    // Beside records: neighbours in places, and what stands in memory that was given back.
    let beside = model.keys().take(64).flat_map(|node| {
        let place = Map::place_of(seed, *node);
        [place ^ 1, place ^ 0x8000, place ^ 0x1_0000, place & !0xffff, place & !0xffff | 0xdbdb]
            .map(|place| Map::peer_at(seed, place))
    });
    for node in few.chain(beside).flatten() {
        assert_eq!(map.contains(node), model.contains_key(&node));
        assert_eq!(map.get(node), model.get(&node).copied());
    }
}

fn check_diff((old, old_model): &(Map, Model), (new, new_model): &(Map, Model)) {
    let found: BTreeMap<NodeId, _> = new
        .diff(old)
        .into_iter()
        .map(|(old, new)| (old.or(new).expect("a difference has a side").node_id, (old, new)))
        .collect();
    let all = old_model.keys().chain(new_model.keys());
    let expected: BTreeMap<NodeId, _> = all
        .map(|node| (*node, (old_model.get(node).copied(), new_model.get(node).copied())))
        .filter(|(_, (old, new))| old != new)
        .collect();
    assert_eq!(found, expected);
}

fuzz_target!(|input: Input| {
    let seed = input.seed;
    let named = |changes: Vec<(Id, Option<u16>)>| changes.into_iter().map(move |(id, value)| (id.node(seed), value));
    let model: Model = input
        .start
        .into_iter()
        .filter_map(|(id, value)| id.node(seed).map(|node| (node, TrustRecord::new(node, None).network(value))))
        .collect();
    let mut newest = (Map::bulk(seed, model.values().copied().collect()), model);
    let mut held: Vec<(Map, Model)> = Vec::new();
    for act in input.acts.into_iter().take(64) {
        match act {
            Act::Change(changes) => newest = apply(&newest, named(changes)),
            Act::With(id, value) => {
                if let Some(node) = id.node(seed) {
                    let record = TrustRecord::new(node, None).network(value);
                    let before = newest.1.insert(node, record);
                    match newest.0.with(&record) {
                        Some((next, was_there)) => {
                            assert!(before != Some(record) && was_there == before.is_some());
                            newest.0 = next;
                        }
                        None => assert_eq!(before, Some(record)),
                    }
                }
            }
            Act::Fill { places, from, len, value } => {
                let node = |n| match places {
                    true => Map::peer_at(seed, (u32::from(from) << 16).wrapping_add(n)),
                    false => NodeId::new(u32::from(from) + n),
                };
                newest = apply(&newest, (0..u32::from(len % 2000)).map(|n| (node(n), value)));
            }
            // Without a change it would be the old version itself, behind which a newer one of its history stands.
            Act::Branch { from, changes }
                if !held.is_empty() && changes.iter().any(|(id, _)| id.node(seed).is_some()) =>
            {
                newest = apply(&held[usize::from(from) % held.len()], named(changes));
            }
            Act::Hold if held.len() < 16 => held.push(newest.clone()),
            Act::Drop(which) if !held.is_empty() => {
                let (map, model) = held.swap_remove(usize::from(which) % held.len());
                check(&map, &model, seed);
            }
            Act::DropElsewhere(which) if !held.is_empty() => {
                let (map, model) = held.swap_remove(usize::from(which) % held.len());
                let elsewhere = std::thread::spawn(move || check(&map, &model, seed));
                // Beside it: the next version may take the memory that the old one lets go of.
                newest.0.sweep();
                newest = apply(&newest, [(Id::Near(which).node(seed), Some(which.into()))].into_iter());
                elsewhere.join().unwrap();
            }
            Act::Sweep => newest.0.sweep(),
            Act::Ready => newest.0.make_ready(),
            Act::Gather(at_once) => newest.0 = newest.0.gathered(at_once.into()),
            Act::Trim => _ = newest.0.trim(),
            _ => {}
        }
    }
    for version in &held {
        check(&version.0, &version.1, seed);
        check_diff(version, &newest);
        check_diff(&newest, version);
    }
    check(&newest.0, &newest.1, seed);
    // When the others are gone, nothing waits.
    drop(held);
    newest.0.sweep();
    let usage = newest.0.usage();
    assert_eq!((usage.versions, usage.retired), (1, 0));
});
