//! A seeded bijection on `u32` that spreads ids over the whole range.
//!
//! Each store has its own random seed, so that nobody can choose ids which crowd one corner of the map. Since it is a
//! bijection there are no collisions, and an id need not be stored beside its place.
#![forbid(unsafe_code)]

/// The seed, split into the constants of the bijection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    add: u32,
    multiply: u32,
    inverse: u32,
}

impl Mix {
    pub(crate) const fn new(seed: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the seed")]
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let multiply = high | 1;
        Self { add: low, multiply, inverse: inverse_of(multiply) }
    }

    /// The place of an id.
    #[inline(always)]
    pub(crate) const fn mix(self, id: u32) -> u32 {
        let mut h = id ^ self.add;
        h = (h ^ (h >> 16)).wrapping_mul(SPREAD);
        h = (h ^ (h >> 15)).wrapping_mul(self.multiply);
        h = (h ^ (h >> 16)).wrapping_mul(SPREAD);
        h ^ (h >> 16)
    }

    /// The id at a place.
    #[inline]
    pub(crate) const fn unmix(self, place: u32) -> u32 {
        let mut h = place ^ (place >> 16);
        h = h.wrapping_mul(SPREAD_INVERSE);
        h ^= h >> 16;
        h = h.wrapping_mul(self.inverse);
        h ^= (h >> 15) ^ (h >> 30);
        h = h.wrapping_mul(SPREAD_INVERSE);
        h ^= h >> 16;
        h ^ self.add
    }
}

/// The multiplicative inverse of an odd number modulo 2^32, by Newton's iteration (each round doubles the right bits).
const fn inverse_of(odd: u32) -> u32 {
    let mut inverse = odd;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

/// An odd multiplier that carries low bits far up: 2^32 divided by the golden ratio.
const SPREAD: u32 = 0x9e37_79b1;
const SPREAD_INVERSE: u32 = inverse_of(SPREAD);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_place_leads_back_to_its_id(seed: u64, id: u32) {
            let mix = Mix::new(seed);
            prop_assert_eq!(mix.unmix(mix.mix(id)), id);
            prop_assert_eq!(mix.mix(mix.unmix(id)), id);
        }
    }

    #[test]
    fn neighbours_spread_over_the_top_bits() {
        for seed in [0, 1, 0xdead_beef_0bad_cafe, u64::MAX] {
            let mix = Mix::new(seed);
            let mut counts = [0u32; 256];
            for id in 0..65_536 {
                counts[(mix.mix(id) >> 24) as usize] += 1;
            }
            // 256 expected; a uniform spread stays within six standard deviations (96).
            assert!(counts.iter().all(|&n| (160..=352).contains(&n)), "seed {seed:x}: {counts:?}");
        }
    }
}
