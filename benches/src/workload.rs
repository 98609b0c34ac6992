//! Ids, records and questions: random, always the same, and the same for every contestant.
//!
//! What must hold: no id occurs twice, none that is asked as a miss is ever granted, and the questions of a size fill the
//! same array for every contestant, so that walking it costs all of them the same.

use trustkeep::{NodeId, PublicKey, TrustRecord, TrustStore};

/// What a record says beside the id: what the value of every peer's map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    key: Option<PublicKey>,
    approved_at: i64,
    mutual: bool,
    /// The field that changes when a record is granted again.
    pub network: u16,
}

impl Terms {
    /// Those of this record.
    #[must_use]
    pub const fn of(record: &TrustRecord) -> Self {
        let approved_at = record.approved_at.as_millis();
        Self { key: record.public_key, approved_at, mutual: record.mutual, network: record.network }
    }

    /// The bytes that a store of bytes keeps for them.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let key = self.key.map_or([0; 32], |key| *key.as_bytes());
        let flags = [u8::from(self.key.is_some()), u8::from(self.mutual)];
        let parts =
            key.into_iter().chain(self.approved_at.to_le_bytes()).chain(flags).chain(self.network.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = from;
        }
        bytes
    }

    /// How many those are.
    pub const BYTES: usize = 44;
}

/// The id with this number, counted from 0: each number has another id, and they lie scattered over all of them.
#[must_use]
pub fn id(number: u32) -> NodeId {
    // One of the 2^32 numbers leads to 0, which is no node. It is not among those that are used.
    let mut mixed = number.wrapping_add(0x9e37_79b9);
    mixed = (mixed ^ (mixed >> 16)).wrapping_mul(0x21f0_aaad);
    mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x735a_2d97);
    NodeId::new(mixed ^ (mixed >> 15)).unwrap_or(LAST)
}

/// The record with this number, of this network.
#[must_use]
pub fn record(number: u32, key: PublicKey, network: u16) -> TrustRecord {
    TrustRecord::new(id(number), key).network(network)
}

/// The records of a store of this size: those with the numbers from 0.
pub fn records(size: u32, key: PublicKey) -> impl Iterator<Item = TrustRecord> {
    (0..size).map(move |number| record(number, key, 1))
}

/// Grants so many records, in batches.
///
/// # Panics
/// If the store refuses, which would make every figure meaningless.
#[expect(clippy::panic, reason = "a measurement that cannot fill its store has nothing to measure")]
pub fn fill(store: &TrustStore, size: u32) {
    let key = crate::key();
    for first in (0..size).step_by(BATCH as usize) {
        let last = size.min(first.saturating_add(BATCH));
        let granted = store.update(|batch| (first..last).all(|number| batch.grant(record(number, key, 1)).is_ok()));
        match granted {
            Ok((true, _receipt)) => {}
            other => panic!("the store refused: {other:?}"),
        }
    }
}

/// Which share of the questions is about a record that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// One half.
    Half,
    /// All of them.
    Hits,
}

/// So many questions to a store of this size, in random order: each draws anew whether it hits, and whom.
#[must_use]
pub fn questions(size: u32, mix: Mix, count: usize, seed: u64) -> Vec<NodeId> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|_| {
            let number = random.below(size);
            id(if mix == Mix::Half && random.below(2) == 0 { size.saturating_add(number) } else { number })
        })
        .collect()
}

/// How many questions keep the processor from learning their answers by heart, and its caches from holding more of a large
/// map than those of a long run would.
#[must_use]
pub fn questions_for(size: u32, quick: bool) -> usize {
    let least = if quick { 1 << 17 } else { 1 << 20 };
    let most = if quick { 1 << 18 } else { 1 << 22 };
    (2 * size as usize).clamp(least, most)
}

/// Numbers that look random and are always the same.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below this; 0 if that is 0.
    pub fn below(&mut self, limit: u32) -> u32 {
        u32::try_from((self.bits() >> 32).wrapping_mul(u64::from(limit)) >> 32).unwrap_or(0)
    }
}

const BATCH: u32 = 10_000;
const LAST: NodeId = match NodeId::new(u32::MAX) {
    Some(id) => id,
    None => unreachable!(),
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_number_has_an_id_of_its_own() {
        let ids: HashSet<NodeId> = (0..300_000).map(id).collect();
        assert_eq!(ids.len(), 300_000);
        // Scattered: the upper half of the ids gets about half of them.
        let upper = ids.iter().filter(|id| id.get() >= 1 << 31).count();
        assert!((145_000..155_000).contains(&upper), "{upper}");
        // 0 is no node; the number that would lead there is not among those that are used.
        assert!((0..40_000_000).step_by(1009).all(|number| id(number) != LAST));
    }

    #[test]
    fn questions_hit_as_often_as_they_should_and_reach_every_record() {
        let granted: HashSet<NodeId> = (0..1000).map(id).collect();
        let hits = |mix| questions(1000, mix, 100_000, 1).iter().filter(|id| granted.contains(id)).count();
        assert!((49_000..51_000).contains(&hits(Mix::Half)), "{}", hits(Mix::Half));
        assert_eq!(hits(Mix::Hits), 100_000);
        let asked: HashSet<NodeId> = questions(1000, Mix::Half, 100_000, 1).into_iter().collect();
        assert_eq!(asked.len(), 2000);
        assert_eq!(questions(1000, Mix::Half, 10, 1), questions(1000, Mix::Half, 10, 1));
        assert_ne!(questions(1000, Mix::Half, 10, 1), questions(1000, Mix::Half, 10, 2));
    }

    #[test]
    fn a_filled_store_holds_these_records_and_no_other() {
        let store = TrustStore::in_memory();
        fill(&store, 12_345);
        assert_eq!(store.snapshot().len(), 12_345);
        assert!((0..12_345).all(|number| store.is_trusted(id(number))));
        assert!((12_345..24_690).all(|number| !store.is_trusted(id(number))));
        let record = record(7, crate::key(), 1);
        assert_eq!(store.get(id(7)), Some(record));
        assert_eq!(records(12_345, crate::key()).nth(7), Some(record));
    }

    #[test]
    fn terms_are_small_and_every_field_reaches_the_bytes() {
        assert_eq!(size_of::<Terms>(), 48);
        let record = record(1, crate::key(), 1);
        let bytes = Terms::of(&record).bytes();
        assert_eq!((bytes[32..40].to_vec(), bytes[40..].to_vec()), (vec![0; 8], vec![1, 0, 1, 0]));
        let others = [
            record.network(2),
            record.mutual(true),
            record.approved_at(trustkeep::WallMillis::new(1)),
            record.key(None),
        ];
        for other in others {
            assert_ne!(Terms::of(&other).bytes(), bytes, "{other:?}");
        }
    }
}
