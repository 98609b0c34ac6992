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
    /// Many ids in a row, so that nodes split and merge.
    Fill {
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
    Sweep,
    /// A version with the same records elsewhere in memory, by so many nodes at a time.
    Gather(u8),
    Trim,
}

/// Few ids, so that they are hit again, and now and then any id.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Id {
    Near(u8),
    Far(u32),
}

impl Id {
    fn node(self) -> Option<NodeId> {
        NodeId::new(match self {
            Self::Near(id) => id.into(),
            Self::Far(id) => id,
        })
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

fn check(map: &Map, model: &Model) {
    assert_eq!(map.len(), model.len());
    assert_eq!(&map.iter().map(|record| (record.node_id, record)).collect::<Model>(), model);
    for (node, record) in model {
        assert_eq!(map.get(*node), Some(*record));
    }
    for id in 1..=255 {
        let node = NodeId::new(id).unwrap();
        assert_eq!(map.contains(node), model.contains_key(&node));
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
    let model: Model = input
        .start
        .into_iter()
        .filter_map(|(id, value)| id.node().map(|node| (node, TrustRecord::new(node, None).network(value))))
        .collect();
    let mut newest = (Map::bulk(input.seed, model.values().copied().collect()), model);
    let mut held: Vec<(Map, Model)> = Vec::new();
    for act in input.acts.into_iter().take(64) {
        match act {
            Act::Change(changes) => newest = apply(&newest, changes.into_iter().map(|(id, value)| (id.node(), value))),
            Act::Fill { from, len, value } => {
                let ids = (0..u32::from(len % 2000)).map(|n| NodeId::new(u32::from(from) + n));
                newest = apply(&newest, ids.map(|id| (id, value)));
            }
            // Without a change it would be the old version itself, behind which a newer one of its history stands.
            Act::Branch { from, changes } if !held.is_empty() && changes.iter().any(|(id, _)| id.node().is_some()) => {
                let old = &held[usize::from(from) % held.len()];
                newest = apply(old, changes.into_iter().map(|(id, value)| (id.node(), value)));
            }
            Act::Hold if held.len() < 16 => held.push(newest.clone()),
            Act::Drop(which) if !held.is_empty() => {
                let (map, model) = held.swap_remove(usize::from(which) % held.len());
                check(&map, &model);
            }
            Act::Sweep => newest.0.sweep(),
            Act::Gather(at_once) => newest.0 = newest.0.gathered(at_once.into()),
            Act::Trim => _ = newest.0.trim(),
            _ => {}
        }
    }
    for version in &held {
        check(&version.0, &version.1);
        check_diff(version, &newest);
        check_diff(&newest, version);
    }
    check(&newest.0, &newest.1);
    // When the others are gone, nothing waits.
    drop(held);
    newest.0.sweep();
    let usage = newest.0.usage();
    assert_eq!((usage.versions, usage.retired), (1, 0));
});
