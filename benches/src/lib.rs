//! Measurements of trustkeep against its peers.
//!
//! What must hold: whatever is compared is measured in one run on the same data, and every figure printed comes with its
//! spread. A maximum is named a maximum, and a percentile is a percentile.
//!
//! Each measurement is a program of its own, run with `cargo run --release -p trustkeep-benches --bin NAME`:
//!
//! | name | question |
//! |---|---|
//! | `ratios` | whether each goal of the project is met: ours, the peer's, their ratio, the target |
//! | `series` | what the plots of `docs/benchmarks.md` show: reads, latencies, saves and grants, over sizes and peers |
//! | `report` | measures nothing: writes `docs/benchmarks.md` and its plots from what the first two measured |
//! | `durable` | how fast a change becomes durable, with 1, 8 and 64 threads, against a bare append with fdatasync |
//! | `flush_during_snapshot` | what a change waits for while a whole snapshot is being written |
//! | `proportion` | whether what may be many costs no more than its share: snapshots, failed saves, waiters, receipts, threads |
//! | `scale` | what a store takes by how many records it holds: memory, reads, changes, saves, opening |
//! | `stall` | whether readers and writers feel a save that hangs |
//!
//! `cargo bench -p trustkeep-benches` compares reads with those of other maps.

pub mod arguments;
pub mod at_scale;
pub mod changes;
pub mod directory;
pub mod figure;
pub mod goals;
pub mod one_core;
pub mod peers;
pub mod raw;
pub mod report;
pub mod resident;
pub mod results;
pub mod rounds;
pub mod rows;
pub mod series;
pub mod svg;
pub mod workload;

use trustkeep::{NodeId, PublicKey, TrustRecord, TrustStore};

/// The peers that are granted in a store of this size: the odd ids, so that the even ones are misses near by.
pub fn peers(size: u32) -> impl Iterator<Item = NodeId> + Clone {
    (0..size).filter_map(|number| NodeId::new(number.saturating_mul(2).saturating_add(1)))
}

/// A store in memory that trusts so many peers.
///
/// # Panics
/// If the store refuses, which would make every figure meaningless.
#[must_use]
pub fn filled_store(size: u32) -> TrustStore {
    let store = TrustStore::in_memory();
    fill(&store, size);
    store
}

/// Grants so many peers, in batches.
///
/// # Panics
/// As [`filled_store`].
#[expect(clippy::panic, reason = "a bench that cannot fill its store has nothing to measure")]
pub fn fill(store: &TrustStore, size: u32) {
    let peers: Vec<NodeId> = peers(size).collect();
    let key = key();
    for some in peers.chunks(10_000) {
        let granted =
            store.update(|batch| some.iter().all(|peer| batch.grant(TrustRecord::new(*peer, key).network(1)).is_ok()));
        match granted {
            Ok((true, _receipt)) => {}
            other => panic!("the store refused: {other:?}"),
        }
    }
}

/// The key of every peer: a record takes the same room under any key, and checking a million of them would only take time.
///
/// # Panics
/// Never; the text is a key.
#[must_use]
#[expect(clippy::expect_used, reason = "a constant")]
pub fn key() -> PublicKey {
    "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=".parse().expect("a key")
}

/// The ids from 1 to `limit` in an order that is random and always the same.
#[must_use]
pub fn shuffled(limit: u32) -> Vec<NodeId> {
    let mut ids: Vec<NodeId> = (1..=limit).filter_map(NodeId::new).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for upper in (1..ids.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = usize::try_from(state % (upper as u64 + 1)).unwrap_or(0);
        ids.swap(upper, other);
    }
    ids
}

/// Nanoseconds of many like events.
#[derive(Clone, Debug)]
pub struct Samples(Vec<u64>);

impl Samples {
    /// From the raw figures.
    #[must_use]
    pub fn new(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        Self(nanos)
    }

    /// The smallest figure that so many of a thousand do not exceed; 1000 gives the maximum.
    #[must_use]
    pub fn per_mille(&self, of_thousand: usize) -> u64 {
        let rank = (self.0.len() * of_thousand).div_ceil(1000).max(1);
        self.0.get(rank - 1).copied().unwrap_or(0)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none: every percentile is 0 then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A figure over several rounds: median, smallest, largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The median.
    pub median: u64,
    /// The smallest.
    pub min: u64,
    /// The largest.
    pub max: u64,
}

impl Spread {
    /// Of these rounds.
    #[must_use]
    pub fn of(mut rounds: Vec<u64>) -> Self {
        rounds.sort_unstable();
        let at = |index: usize| rounds.get(index).copied().unwrap_or(0);
        Self { median: at(rounds.len() / 2), min: at(0), max: at(rounds.len().saturating_sub(1)) }
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "median": self.median, "min": self.min, "max": self.max })
    }

    /// For people: `median [min, max]`, each as `unit` shows it.
    #[must_use]
    pub fn show(&self, unit: impl Fn(u64) -> String) -> String {
        format!("{} [{}, {}]", unit(self.median), unit(self.min), unit(self.max))
    }
}

/// How many thousandths of `to` this is, rounded to the nearest; the greatest number if `to` is 0.
#[must_use]
pub fn thousandths(of: u64, to: u64) -> u64 {
    let (of, to) = (u128::from(of) * 1000, u128::from(to));
    (of + to / 2).checked_div(to).and_then(|ratio| u64::try_from(ratio).ok()).unwrap_or(u64::MAX)
}

/// A figure in thousandths of the unit as a decimal fraction: of a ratio, of nanoseconds shown as microseconds.
#[must_use]
pub fn decimal(thousandths: u64) -> String {
    let hundredths = thousandths / 10 + u64::from(thousandths % 10 >= 5);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Whole nanoseconds of a time.
#[must_use]
pub fn nanos(time: core::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_spreads_are_what_their_names_say() {
        let samples = Samples::new((1..=1000).rev().collect());
        assert_eq!([1, 500, 999, 1000].map(|rank| samples.per_mille(rank)), [1, 500, 999, 1000]);
        assert_eq!(Samples::new(vec![7]).per_mille(999), 7);
        assert_eq!(Spread::of(vec![3, 9, 1]), Spread { median: 3, min: 1, max: 9 });
        assert_eq!(Spread::of(vec![3, 9, 1]).show(|figure| format!("{figure}x")), "3x [1x, 9x]");
        assert_eq!((samples.len(), samples.is_empty()), (1000, false));
        assert!(Samples::new(Vec::new()).is_empty());
    }

    #[test]
    fn ratios_are_rounded_and_never_divide_by_nothing() {
        assert_eq!([thousandths(1, 3), thousandths(2, 3), thousandths(7, 2)], [333, 667, 3500]);
        assert_eq!([thousandths(u64::MAX, 1), thousandths(5, 0), thousandths(0, 5)], [u64::MAX, u64::MAX, 0]);
        assert_eq!(
            [0, 4, 5, 994, 995, 1300, 12_345].map(decimal),
            ["0.00", "0.00", "0.01", "0.99", "1.00", "1.30", "12.35"]
        );
    }

    #[test]
    fn a_filled_store_hits_half_of_the_shuffled_questions() {
        let store = filled_store(1000);
        let questions = shuffled(2000);
        assert_eq!(questions.iter().filter(|peer| store.is_trusted(**peer)).count(), 1000);
        assert!(!questions.is_sorted());
    }
}
