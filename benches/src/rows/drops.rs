//! What a reader pays for letting go of an old version that nobody else holds.
//!
//! What must hold: the version that is dropped is superseded, and 10 000 records differ from the newest. What the store
//! defers to its writer and keeper is no part of this figure; it is part of those of `updates`.
#![allow(clippy::unwrap_used, reason = "a measurement stops when something does not hold")]

use super::fixtures::MILLION;
use super::{Kind, Plan, Wanted, goal, nanos};
use crate::goals::Line;
use crate::peers::maps::{ImblHash, Map as _, Swapped};
use crate::rounds::{alternate, mean};
use crate::workload::{Random, Terms, record};

pub(super) const DROPS: Kind = Kind { goals: &["last_drop_10k"], measure: drops };

fn drops(plan: &Plan, _: &Wanted<'_>) -> Vec<Line> {
    const SIZE: u32 = MILLION;
    const CHANGED: u32 = 10_000;
    let (store, imbl) = (plan.fixtures.store(), plan.fixtures.imbl());
    let (key, mut network) = (crate::key(), 1u16);
    let mut changed = |first: u64| {
        network += 1;
        let network = network;
        let mut random = Random::new(first);
        (0..CHANGED).map(move |_| record(random.below(SIZE), key, network)).collect::<Vec<_>>()
    };
    let mut seed = 0;
    let mut next = || {
        seed += 1;
        changed(seed)
    };
    let next = core::cell::RefCell::new(&mut next);
    let [ours, peer] = alternate(
        plan.rounds(),
        [
            &mut || {
                let old = store.snapshot();
                let changes = (next.borrow_mut())();
                let (fits, _) =
                    store.update(|batch| changes.iter().all(|record| batch.grant(*record).is_ok())).unwrap();
                assert!(fits && store.snapshot().generation() > old.generation());
                mean(1, || drop(old))
            },
            &mut || {
                let old = imbl.load();
                imbl.put_all((next.borrow_mut())().iter().map(|record| (record.node_id, Terms::of(record))));
                assert_eq!(std::sync::Arc::strong_count(&old), 1, "somebody else holds it");
                mean(1, || drop(old))
            },
        ],
    );
    let line = goal("last_drop_10k")
        .measured(nanos("trustkeep, snapshot", ours), Some(nanos(Swapped::<ImblHash>::NAME, peer)));
    vec![line.note("ours holds the clock's own cost, which is most of it")]
}
