//! The laws of the safe map, against `BTreeMap`, with old versions held while new ones are made.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::map::mix::Mix;
use crate::map::trie::Trie;

fn contents(trie: &Trie<u64>) -> BTreeMap<u32, u64> {
    trie.iter().map(|(id, value)| (id, *value)).collect()
}

fn batches() -> impl Strategy<Value = Vec<BTreeMap<u32, Option<u64>>>> {
    // Few ids, so that they are hit again; removals a little less likely than values; batches from one to hundreds.
    let id = prop_oneof![0..40u32, 0..600u32, any::<u32>()];
    let batch = proptest::collection::btree_map(id, proptest::option::weighted(0.6, any::<u64>()), 1..200);
    proptest::collection::vec(batch, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn versions_agree_with_the_model_and_never_change(seed: u64, batches in batches()) {
        let mut model = BTreeMap::new();
        let mut trie = Trie::new(Mix::new(seed));
        let mut held = vec![(trie.clone(), model.clone())];
        for batch in batches {
            trie = trie.apply(batch.clone());
            for (id, value) in batch {
                match value {
                    Some(value) => drop(model.insert(id, value)),
                    None => drop(model.remove(&id)),
                }
            }
            held.push((trie.clone(), model.clone()));
        }
        for (trie, model) in &held {
            prop_assert_eq!(trie.len(), model.len());
            prop_assert_eq!(&contents(trie), model);
            for id in (0..600).chain(model.keys().copied()) {
                prop_assert_eq!(trie.get(id), model.get(&id));
            }
            let places: Vec<u32> = trie.iter().map(|(id, _)| trie.mix().mix(id)).collect();
            prop_assert!(places.is_sorted_by(|a, b| a < b), "iteration out of order");
        }
        for window in held.windows(2) {
            let [(old, old_model), (new, new_model)] = window else { unreachable!() };
            let mut found = BTreeMap::new();
            new.diff(old, &mut |id, old, new| {
                found.insert(id, (old.copied(), new.copied()));
            });
            let mut expected = BTreeMap::new();
            for id in old_model.keys().chain(new_model.keys()) {
                let pair = (old_model.get(id).copied(), new_model.get(id).copied());
                if pair.0 != pair.1 {
                    expected.insert(*id, pair);
                }
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_bulk_build_equals_the_same_made_one_by_one(seed: u64, model: BTreeMap<u32, u64>) {
        let mix = Mix::new(seed);
        let mut sorted: Vec<(u32, u64)> = model.clone().into_iter().collect();
        sorted.sort_by_key(|(id, _)| mix.mix(*id));
        let bulk = Trie::from_sorted(mix, sorted.into_iter());
        prop_assert_eq!(contents(&bulk), model);
    }
}

#[test]
fn a_large_map_splits_grows_and_shrinks_to_nothing() {
    let mut trie = Trie::new(Mix::new(7));
    for chunk in 0..100u32 {
        trie = trie.apply((chunk * 1000..(chunk + 1) * 1000).map(|id| (id, Some(u64::from(id)))));
    }
    let full = trie.clone();
    assert_eq!(trie.len(), 100_000);
    for id in 0..100_000 {
        trie = trie.apply([(id, None)]);
        assert_eq!(trie.get(id), None);
    }
    assert_eq!(trie.len(), 0);
    assert_eq!(trie.iter().next(), None);
    assert!((0..100_000).all(|id| full.get(id) == Some(&u64::from(id))), "the held version changed");
}

/// Fails when shared subtrees are not skipped: a walk of the whole map would visit 100 000 entries for each single one.
#[test]
fn diff_visits_what_changed_and_not_the_rest() {
    use core::cell::Cell;
    thread_local!(static COMPARED: Cell<u64> = const { Cell::new(0) });
    #[derive(Clone, Debug)]
    struct Counted(#[expect(dead_code, reason = "only its comparisons matter")] u64);
    impl PartialEq for Counted {
        fn eq(&self, _: &Self) -> bool {
            COMPARED.set(COMPARED.get() + 1);
            true
        }
    }
    let old = Trie::new(Mix::new(1)).apply((0..100_000).map(|id| (id, Some(Counted(0)))));
    let new = old.apply([(4711, Some(Counted(1)))]);
    new.diff(&old, &mut |_, _, _| {});
    assert!((1..=64).contains(&COMPARED.get()), "{} comparisons for one change", COMPARED.get());
}
