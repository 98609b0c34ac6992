//! A set of small numbers that finds its least in two steps: one bit for each number, one for each word of those.
#![forbid(unsafe_code)]

/// Numbers from 0 on.
#[derive(Debug, Default)]
pub(super) struct Slots {
    words: Vec<u64>,
    /// A bit for each word that is not 0.
    summary: Vec<u64>,
}

impl Slots {
    /// The least number in it.
    #[inline]
    pub(super) fn first(&self) -> Option<usize> {
        let (high, bits) = self.summary.iter().enumerate().find(|(_, bits)| **bits != 0)?;
        let word = high * 64 + bits.trailing_zeros() as usize;
        let bits = self.words.get(word)?;
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    pub(super) fn insert(&mut self, number: usize) {
        let word = number / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
            self.summary.resize(word / 64 + 1, 0);
        }
        if let (Some(bits), Some(summary)) = (self.words.get_mut(word), self.summary.get_mut(word / 64)) {
            *bits |= 1 << (number % 64);
            *summary |= 1 << (word % 64);
        }
    }

    pub(super) fn remove(&mut self, number: usize) {
        let word = number / 64;
        if let (Some(bits), Some(summary)) = (self.words.get_mut(word), self.summary.get_mut(word / 64)) {
            *bits &= !(1 << (number % 64));
            if *bits == 0 {
                *summary &= !(1 << (word % 64));
            }
        }
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set_and_knows_its_least(steps in proptest::collection::vec((any::<bool>(), 0..10_000usize), 0..200)) {
            let (mut slots, mut model) = (Slots::default(), BTreeSet::new());
            for (insert, number) in steps {
                if insert {
                    slots.insert(number);
                    model.insert(number);
                } else {
                    slots.remove(number);
                    model.remove(&number);
                }
                prop_assert_eq!(slots.first(), model.first().copied());
            }
            while let Some(first) = slots.first() {
                prop_assert_eq!(model.pop_first(), Some(first));
                slots.remove(first);
            }
            prop_assert!(model.is_empty());
        }
    }
}
