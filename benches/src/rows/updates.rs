//! What a change costs with its publish, without a disk, next to a persistent map behind an atomic pointer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement stops when something does not hold")]

use super::fixtures::MILLION;
use super::{Kind, Plan, Wanted, goal, nanos};
use crate::goals::Line;
use crate::peers::maps::{ImblHash, Map as _, Swapped, Writable as _};
use crate::rounds::{alternate, mean};
use crate::workload::{Terms, record};

pub(super) const UPDATES: Kind = Kind { goals: &["update_1m", "batch_1000_1m"], measure: updates };

/// Has no factor in common with the number of records, and so leads to all of them.
const STRIDE: u32 = 611_953;

fn updates(plan: &Plan, wanted: &Wanted<'_>) -> Vec<Line> {
    const SIZE: u32 = MILLION;
    let (store, imbl) = (plan.fixtures.store(), plan.fixtures.imbl());
    let key = crate::key();
    let (mut at, mut network) = (0, 1);
    // The same changes for both sides: other terms than before, and no record twice in a round.
    let mut changes = |count: usize| {
        network += 1;
        (0..count)
            .map(|_| {
                at = (at + STRIDE) % SIZE;
                // Mutual, as no other measurement grants.
                record(at, key, network).mutual(true)
            })
            .collect::<Vec<_>>()
    };
    let mut lines = Vec::new();
    for (name, batch, count) in
        [("update_1m", 1, plan.or(50_000, 200_000)), ("batch_1000_1m", 1000, plan.or(50_000, 200_000))]
    {
        if !wanted.any(&[name]) {
            continue;
        }
        let rounds: Vec<_> = (0..=plan.rounds()).map(|_| changes(count)).collect();
        let (mut ours_at, mut peer_at) = (0..rounds.len(), 0..rounds.len());
        let [ours, peer] = alternate(
            plan.rounds(),
            [
                &mut || {
                    let changes = &rounds[ours_at.next().unwrap()];
                    let before = store.generation();
                    let figure = mean(count / batch, || {
                        for some in changes.chunks(batch) {
                            let _ = match some {
                                [one] => store.grant(*one).unwrap(),
                                _ => {
                                    let (fits, receipt) = store
                                        .update(|batch| some.iter().all(|record| batch.grant(*record).is_ok()))
                                        .unwrap();
                                    assert!(fits);
                                    receipt
                                }
                            };
                        }
                    });
                    let published = usize::try_from(store.generation().get() - before.get()).unwrap();
                    assert_eq!(published, count / batch, "not each of them was a change");
                    figure
                },
                &mut || {
                    let changes = &rounds[peer_at.next().unwrap()];
                    mean(count / batch, || {
                        for some in changes.chunks(batch) {
                            match some {
                                [one] => imbl.put(one.node_id, Terms::of(one)),
                                _ => imbl.put_all(some.iter().map(|record| (record.node_id, Terms::of(record)))),
                            }
                        }
                    })
                },
            ],
        );
        let label = if batch == 1 { "trustkeep, grant" } else { "trustkeep, update" };
        lines.push(goal(name).measured(nanos(label, ours), Some(nanos(Swapped::<ImblHash>::NAME, peer))));
    }
    lines
}
