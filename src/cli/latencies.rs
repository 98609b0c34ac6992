//! How long things took, counted in buckets: constant memory for any number of measurements, at most 1.6 % too high.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Measurements of durations.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    /// Bucket b < 64 holds b nanoseconds; from there on every doubling has 64 buckets of equal width.
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, max: 0 }
    }

    pub(super) fn add(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket_of(nanos)) {
            *bucket += 1;
        }
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (to, from) in self.buckets.iter_mut().zip(&other.buckets) {
            *to += from;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The time that this many of a thousand measurements did not exceed; `None` if nothing was measured.
    pub(super) fn per_mille(&self, share: u64) -> Option<Duration> {
        let rank = self.count.checked_mul(share)?.div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_nanos(top_of(bucket).min(self.max)));
            }
        }
        None
    }

    /// The longest, exactly.
    pub(super) fn max(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.max))
    }
}

fn bucket_of(nanos: u64) -> usize {
    let Some(doublings) = nanos.checked_ilog2().and_then(|log| log.checked_sub(6)) else {
        return usize::try_from(nanos).unwrap_or(0);
    };
    let within = (nanos >> doublings) & 63;
    usize::try_from((u64::from(doublings) + 1) * 64 + within).unwrap_or(usize::MAX)
}

/// The longest time that falls into this bucket.
fn top_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 64 {
        return bucket;
    }
    let (doublings, within) = (bucket / 64 - 1, bucket % 64);
    // The last bucket of all ends where the integers do.
    ((64 + within + 1).checked_mul(1 << doublings)).map_or(u64::MAX, |end| end - 1)
}

const BUCKETS: usize = 64 * (64 - 6 + 1);

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_time_falls_into_a_bucket_that_is_hardly_wider() {
        for nanos in (0..100_000).chain((17..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1])) {
            let bucket = bucket_of(nanos);
            assert!(bucket < BUCKETS, "{nanos}");
            let top = top_of(bucket);
            assert!(top >= nanos && top - nanos <= nanos / 64, "{nanos}: {top}");
            assert_eq!(bucket_of(top), bucket);
        }
        assert_eq!((bucket_of(u64::MAX), top_of(BUCKETS - 1)), (BUCKETS - 1, u64::MAX));
    }

    #[test]
    fn percentiles_are_ranks_and_the_maximum_is_exact() {
        let mut latencies = Latencies::new();
        assert_eq!((latencies.per_mille(500), latencies.max()), (None, None));
        let mut other = latencies.clone();
        for micros in 1..=1000 {
            if micros % 2 == 0 { &mut latencies } else { &mut other }.add(Duration::from_micros(micros));
        }
        latencies.merge(&other);
        assert_eq!(latencies.count, 1000);
        for (share, micros) in [(500, 500), (990, 990), (999, 999)] {
            let found = latencies.per_mille(share).unwrap().as_micros();
            assert!((micros..=micros * 66 / 64).contains(&found), "{share}: {found}");
        }
        assert_eq!(latencies.max(), Some(Duration::from_micros(1000)));
        assert_eq!(latencies.per_mille(1000), latencies.max());
    }
}
