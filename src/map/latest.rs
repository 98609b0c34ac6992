//! Changes of many records, gathered in any order and gone through in order of place.
//!
//! They are dealt into parts by their places as they come, and each part is put in order by itself, within the processor's
//! caches. In one list the million of a long journal were fetched from memory one by one.
#![forbid(unsafe_code)]

use super::change::Change;
use super::mix::Mix;
use super::value::Value;

/// What peers' records become, a value or nothing; of each peer the change that came last counts.
#[derive(Clone, Debug)]
pub(crate) struct Latest {
    mix: Mix,
    /// None before the first change.
    parts: Vec<Vec<Change>>,
}

/// The changes that count, in ascending order of place.
#[derive(Debug)]
pub(super) struct InOrder {
    parts: Vec<Vec<Change>>,
}

impl Latest {
    pub(crate) fn new(mix: Mix) -> Self {
        Self { mix, parts: Vec::new() }
    }

    pub(crate) fn push(&mut self, id: u32, value: Option<Value>) {
        let place = self.mix.mix(id);
        if self.parts.is_empty() {
            self.parts.resize_with(1 << PART_BITS, Vec::new);
        }
        if let Some(part) = self.parts.get_mut((place >> (u32::BITS - PART_BITS)) as usize) {
            part.push(Change { place, becomes: value.into() });
        }
    }

    pub(super) fn in_order(self) -> InOrder {
        InOrder { parts: self.parts.into_iter().map(|part| in_order(&part)).collect() }
    }
}

/// The last change of each place, in ascending order.
pub(super) fn in_order(part: &[Change]) -> Vec<Change> {
    // Places, each with its number beneath, are moved about in sorting, not the far longer changes. No file that fits into
    // memory has more of them than 32 bits count.
    let places = part.iter().zip(0u64..);
    let mut order: Vec<u64> = places.map(|(change, number)| u64::from(change.place) << u32::BITS | number).collect();
    order.sort_unstable();
    let mut changes = Vec::with_capacity(part.len());
    for same in order.chunk_by(|a, b| a >> u32::BITS == b >> u32::BITS) {
        #[expect(clippy::cast_possible_truncation, reason = "the number is the lower half")]
        let last = same.last().and_then(|entry| part.get(*entry as u32 as usize));
        changes.extend(last.copied());
    }
    changes
}

impl InOrder {
    /// How many records change.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// Hands them out. What has been gone through is freed.
    pub(super) fn changes(self) -> impl Iterator<Item = Change> {
        self.parts.into_iter().flatten()
    }
}

/// As many parts as write-combining and the caches of addresses cope with; of a million changes each has some thousands.
const PART_BITS: u32 = 8;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use crate::map::TrustMap;
    use crate::peer::{NodeId, TrustRecord};
    use crate::time::WallMillis;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn value(network: u16) -> Value {
        Value::restored(None, WallMillis::new(0), false, network)
    }

    proptest! {
        #[test]
        fn the_last_change_of_each_peer_is_handed_out_in_order_of_place(
            seed in any::<u64>(),
            changes in prop::collection::vec((1..60u32, any::<Option<u16>>()), 0..200),
        ) {
            let mix = Mix::new(seed);
            let (mut latest, mut model) = (Latest::new(mix), BTreeMap::new());
            for (id, network) in changes {
                let value = network.map(value);
                latest.push(id, value);
                model.insert(mix.mix(id), value);
            }
            let in_order = latest.in_order();
            prop_assert_eq!(in_order.len(), model.len());
            let found: Vec<_> = in_order.changes().map(|change| (change.place, change.becomes)).collect();
            prop_assert_eq!(found, model.into_iter().map(|(place, value)| (place, value.into())).collect::<Vec<_>>());
        }

        /// Few changes of many records and many of few take different ways.
        #[test]
        fn what_they_make_of_a_map_is_what_one_change_with_the_last_of_each_makes(
            seed in any::<u64>(),
            base in 0..400u32,
            changes in prop::collection::vec((1..500u32, any::<Option<u16>>()), 0..120),
        ) {
            let mix = Mix::new(seed);
            let peers = (1..=base).filter_map(NodeId::new);
            let old = TrustMap::new(mix).apply(peers.map(|peer| (peer, Some(TrustRecord::new(peer, None)))));
            let (mut latest, mut model, mut granted) = (Latest::new(mix), BTreeMap::new(), Vec::new());
            for (id, network) in changes {
                latest.push(id, network.map(value));
                model.insert(id, network);
            }
            let patched = old.patched(latest, |place| granted.push(mix.unmix(place)));
            granted.sort_unstable();
            let with_record = model.iter().filter(|(_, network)| network.is_some());
            prop_assert_eq!(granted, with_record.map(|(id, _)| *id).collect::<Vec<_>>());
            let changes = model.into_iter().filter_map(|(id, network)| Some((NodeId::new(id)?, network)));
            let expected = old.apply(changes.map(|(peer, network)| {
                let record = |network| TrustRecord::new(peer, None).approved_at(WallMillis::new(0)).network(network);
                (peer, network.map(record))
            }));
            prop_assert_eq!(patched.len(), expected.len());
            prop_assert!(patched.iter().eq(expected.iter()));
            prop_assert!(old.len() == base as usize && old.iter().all(|record| record.network == 0));
        }
    }
}
