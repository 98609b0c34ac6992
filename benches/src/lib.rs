//! Measurements of trustkeep against its peers.
//!
//! What must hold: whatever is compared is measured in one run on the same data, and every figure printed comes with its
//! spread. A maximum is named a maximum, and a percentile is a percentile.
#![forbid(unsafe_code)]

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
}

/// The value behind a flag on the command line.
///
/// # Panics
/// If it is not a number.
#[must_use]
#[expect(clippy::panic, reason = "the user must hear that a flag was not understood")]
pub fn number_flag(name: &str, default: u32) -> u32 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    match arguments.next().map(|text| text.parse()) {
        None => default,
        Some(Ok(number)) => number,
        Some(Err(error)) => panic!("{name}: {error}"),
    }
}

/// Whether a flag is on the command line.
#[must_use]
pub fn has_flag(name: &str) -> bool {
    std::env::args().any(|argument| argument == name)
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
    }

    #[test]
    fn a_filled_store_hits_half_of_the_shuffled_questions() {
        let store = filled_store(1000);
        let questions = shuffled(2000);
        assert_eq!(questions.iter().filter(|peer| store.is_trusted(**peer)).count(), 1000);
        assert!(!questions.is_sorted());
    }
}
