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
    batches: Vec<Vec<(Id, Option<u16>)>>,
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

fuzz_target!(|input: Input| {
    let mut model = BTreeMap::new();
    let mut map = Map::new(input.seed);
    let mut held = vec![(map.clone(), model.clone())];
    for batch in input.batches.into_iter().take(64) {
        let changes: BTreeMap<NodeId, Option<TrustRecord>> = batch
            .into_iter()
            .filter_map(|(id, value)| {
                let node = id.node()?;
                Some((node, value.map(|network| TrustRecord::new(node, None).network(network))))
            })
            .collect();
        map = map.apply(changes.clone());
        for (node, record) in changes {
            match record {
                Some(record) => drop(model.insert(node, record)),
                None => drop(model.remove(&node)),
            }
        }
        held.push((map.clone(), model.clone()));
    }
    for (map, model) in &held {
        assert_eq!(map.len(), model.len());
        assert_eq!(&map.iter().map(|record| (record.node_id, record)).collect::<BTreeMap<_, _>>(), model);
        for (node, record) in model {
            assert_eq!(map.get(*node), Some(*record));
        }
        for id in 1..=255 {
            let node = NodeId::new(id).unwrap();
            assert_eq!(map.contains(node), model.contains_key(&node));
        }
    }
    for pair in held.windows(2) {
        let [(old, old_model), (new, new_model)] = pair else { unreachable!() };
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
});
