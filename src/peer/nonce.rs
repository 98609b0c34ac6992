//! Random numbers that name one message or one decision.
#![forbid(unsafe_code)]

use core::fmt;
use core::str::FromStr;

/// 16 random bytes that tie an answer to the message it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub [u8; 16]);

/// 64 bits that name one revocation.
///
/// Meaning: an operator who lifts a revocation names the one that was shown. If another revocation is in force by then,
/// the lift fails. The text form is 16 lower-case hexadecimal digits.
///
/// # Examples
/// ```
/// use trustkeep::RevocationId;
/// let id: RevocationId = "00000000000000ff".parse()?;
/// assert_eq!(id.to_string(), "00000000000000ff");
/// # Ok::<(), trustkeep::InvalidRevocationId>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevocationId(u64);

impl RevocationId {
    /// The revocation with this number.
    #[must_use]
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// An id drawn from the random bytes of `nonce`.
    #[must_use]
    pub(crate) const fn drawn_from(nonce: Nonce) -> Self {
        Self::mixed(u128::from_le_bytes(nonce.0) as u64, (u128::from_le_bytes(nonce.0) >> 64) as u64)
    }

    /// An id that depends on every bit of both numbers.
    #[must_use]
    pub(crate) const fn mixed(one: u64, other: u64) -> Self {
        // The finalizer of SplitMix64, twice.
        const fn finish(mut bits: u64) -> u64 {
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bits ^ (bits >> 31)
        }
        Self(finish(finish(one.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ other))
    }
}

impl fmt::Display for RevocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text that is not 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRevocationId;

impl fmt::Display for InvalidRevocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a revocation is named by 16 lower-case hexadecimal digits")
    }
}

impl core::error::Error for InvalidRevocationId {}

impl FromStr for RevocationId {
    type Err = InvalidRevocationId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(digit) {
            return Err(InvalidRevocationId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| InvalidRevocationId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_named_by_sixteen_digits_and_nothing_else() {
        for id in [0, 1, 0xdead_beef, u64::MAX] {
            let id = RevocationId::new(id);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "ff", "00000000000000FF", "+0000000000000ff", "00000000000000fg", "00000000000000000"] {
            assert_eq!(text.parse::<RevocationId>(), Err(InvalidRevocationId), "{text}");
        }
    }

    #[test]
    fn an_id_depends_on_every_byte_that_it_is_drawn_from() {
        let ids: std::collections::BTreeSet<_> = (0..=16)
            .map(|at| {
                let mut bytes = [0; 16];
                if at < 16 {
                    bytes[at] = 1;
                }
                RevocationId::drawn_from(Nonce(bytes))
            })
            .collect();
        assert_eq!(ids.len(), 17);
    }
}
