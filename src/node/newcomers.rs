//! Whose requests found no room among those that wait, by source: what an operator needs to tell a flood from a small limit.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::sync::Mutex;
use crate::tables::Source;

/// Counts of at most [`SOURCES_MAX`] sources; the one that was refused least gives way.
#[derive(Debug, Default)]
pub(crate) struct RefusedNewcomers {
    counts: Mutex<BTreeMap<Source, u64>>,
}

impl RefusedNewcomers {
    /// Counts one; how many there were of this source.
    pub(crate) fn add(&self, source: Source) -> u64 {
        let mut counts = self.counts.lock();
        if counts.len() >= SOURCES_MAX && !counts.contains_key(&source) {
            let least = counts.iter().min_by_key(|(_, count)| **count).map(|(source, _)| *source);
            least.and_then(|least| counts.remove(&least));
        }
        let count = counts.entry(source).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// Every source that is counted, the most refused first.
    pub(crate) fn list(&self) -> Vec<(Source, u64)> {
        let mut counts: Vec<_> = self.counts.lock().iter().map(|(source, count)| (*source, *count)).collect();
        counts.sort_by_key(|(source, count)| (core::cmp::Reverse(*count), *source));
        counts
    }
}

/// How many sources are counted.
const SOURCES_MAX: usize = 1024;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn refused_newcomers_are_counted_by_source_and_the_least_give_way() {
        let newcomers = RefusedNewcomers::default();
        let source = |number: u32| Source::Address(std::net::Ipv4Addr::from(number).into());
        assert_eq!([2, 1, 2].map(|number| newcomers.add(source(number))), [1, 1, 2]);
        assert_eq!(newcomers.list(), [(source(2), 2), (source(1), 1)], "the most first");
        (3..5000).for_each(|number| assert_eq!(newcomers.add(source(number)), 1));
        let list = newcomers.list();
        assert!(list.len() == 1024 && list[0] == (source(2), 2) && list.contains(&(source(4999), 1)));
    }
}
