//! Where randomness comes in: the only call of a node for bytes that nobody can predict.
//!
//! They are the operating system's or an error, never a weaker substitute.
#![forbid(unsafe_code)]

use std::io;

/// A source of bytes that nobody can predict: nonces and keys are made of them.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// The operating system has none to give; whatever needed them must not happen.
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()>;
}

/// The operating system's random bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "this is where randomness comes in")]
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_differ() {
        let (mut one, mut two) = ([0; 16], [0; 16]);
        SystemRandom.fill(&mut one).unwrap();
        SystemRandom.fill(&mut two).unwrap();
        assert_ne!(one, two);
        assert_ne!(one, [0; 16]);
    }
}
