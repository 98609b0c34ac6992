//! What reads and changes take in a store that is there already, however many records it holds.
//!
//! What must hold: questions and changes are drawn at random from all records, so that a large store is met beyond the
//! processor's caches; every question finds what it should, and every change publishes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement stops when something does not hold")]

use core::hint::black_box;

use trustkeep::{TrustRecord, TrustStore};

use crate::figure::{Side, Unit};
use crate::peers::maps::Shared;
use crate::rounds::{Tail, alternate, mean};
use crate::rows::reads::{reading, reading_many};
use crate::workload::{Mix, Random, questions, questions_for, record};

/// Nanoseconds of each kind of read, of a store that [`crate::workload::fill`] filled.
#[must_use]
pub fn reads(store: &TrustStore, records: u32, rounds: usize) -> Vec<Side> {
    let count = questions_for(records, false);
    let [half, all] = [Mix::Half, Mix::Hits].map(|mix| questions(records, mix, count, 1));
    let mut reader = store.reader();
    let hits = half.iter().filter(|peer| reader.is_trusted(**peer)).count();
    // Half of them, up to chance: a store that knows everybody, or nobody, is not what is to be measured.
    assert!(hits.abs_diff(count / 2) < count / 100, "{hits} of {count} hit");
    let shared = Shared(store);
    let figures = alternate(
        rounds,
        [
            &mut || reading(1, &half, hits, || store.reader()),
            &mut || reading(1, &all, count, || store.reader()),
            &mut || reading_many(1, &half, hits, store),
            &mut || reading(1, &half, hits, || shared.reader()),
            &mut || {
                mean(count, || {
                    for peer in &all {
                        assert!(black_box(reader.get(black_box(*peer))).is_some());
                    }
                })
            },
        ],
    );
    let labels = [
        "handle `is_trusted`, half hit",
        "handle `is_trusted`, all hit",
        "handle `are_trusted`, 1000 at once, half hit, each",
        "store `is_trusted`, half hit",
        "handle `get`, all hit",
    ];
    labels.into_iter().zip(figures).map(|(label, rounds)| Side::new(label, Unit::Nanos, rounds)).collect()
}

/// Nanoseconds that calls to change records take until they return, of which nobody waits for the disk: of single grants
/// the median and what 99.9 % do not exceed, with the clock's own cost; of a batch of a thousand the mean. If the same store is
/// measured again, then with another `turn`, so that each is a change.
#[must_use]
pub fn changes(store: &TrustStore, records: u32, rounds: usize, turn: u16) -> Vec<Side> {
    let (key, mut random, mut network) = (crate::key(), Random::new(turn.into()), turn * TURN);
    // One network for a round, and no peer twice in it, so that each is a change.
    let mut round = |count: usize| -> Vec<TrustRecord> {
        network += 1;
        let (count, first) = (count.min(records as usize), random.below(records) as usize);
        let step = records as usize / count;
        let numbers = (0..count).map(|at| ((first + at * step) % records as usize) as u32);
        numbers.map(|number| record(number, key, network).mutual(true)).collect()
    };
    let mut contents = (0..2 * (rounds + 1)).map(|_| round(COUNT)).collect::<Vec<_>>().into_iter();
    let mut other = contents.by_ref().take(rounds + 1).collect::<Vec<_>>().into_iter();
    let [single, together] = alternate(
        rounds,
        [
            &mut || {
                let changes = contents.next().unwrap();
                let before = store.generation().get();
                let tail = Tail::of(changes.len(), |at| _ = store.grant(changes[at]).unwrap());
                assert_eq!(store.generation().get() - before, changes.len() as u64, "not each of them was a change");
                [tail.quantile(0.5), tail.quantile(0.999)]
            },
            &mut || {
                let changes = other.next().unwrap();
                let figure = mean(changes.len().div_ceil(AT_ONCE), || {
                    for some in changes.chunks(AT_ONCE) {
                        let granted = store.update(|batch| some.iter().all(|change| batch.grant(*change).is_ok()));
                        assert!(granted.unwrap().0);
                    }
                });
                [figure, figure]
            },
        ],
    );
    let of = |figures: &[[f64; 2]], which: usize| figures.iter().map(|figure| figure[which]).collect();
    vec![
        Side::new("`grant`, median", Unit::Nanos, of(&single, 0)),
        Side::new("`grant`, p99.9", Unit::Nanos, of(&single, 1)),
        Side::new("`update` of 1000 grants", Unit::Nanos, of(&together, 0)),
    ]
}

const COUNT: usize = 20_000;
const AT_ONCE: usize = 1000;
/// More networks than one turn needs.
const TURN: u16 = 5000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::fill;

    #[test]
    fn every_read_and_every_change_has_its_figures() {
        let store = TrustStore::in_memory();
        fill(&store, 3000);
        let sides: Vec<Side> = reads(&store, 3000, 2).into_iter().chain(changes(&store, 3000, 2, 0)).collect();
        assert_eq!(sides.len(), 8);
        for side in &sides {
            assert!(side.rounds.len() == 2 && side.rounds.iter().all(|nanos| *nanos > 0.0), "{side:?}");
        }
        // 99.9 % of the grants take at least what half of them do.
        assert!(sides[5].rounds.iter().zip(&sides[6].rounds).all(|(half, most)| half <= most), "{sides:?}");
        assert_eq!(store.snapshot().len(), 3000);
        assert_eq!(changes(&store, 3000, 2, 1).len(), 3);
    }
}
