//! Keys that signatures can be checked under at once.
//!
//! A key on the wire names a point of the curve by one coordinate; computing the other costs a tenth of a verification.
//! What was computed once is kept, for the keys that [`OpenKeys`] is given: whoever calls it gives it keys of peers that it
//! knows, so that strangers have no way to push those out. All of it is public; nothing secret is kept.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::{HashMap, VecDeque};

use ed25519_dalek::{Signature, VerifyingKey};

use crate::peer::{InvalidKey, PublicKey};

/// A public key with its point.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OpenKey {
    key: PublicKey,
    point: VerifyingKey,
}

impl OpenKey {
    /// The key with these bytes, checked.
    ///
    /// # Errors
    /// As [`PublicKey::from_bytes`], and [`InvalidKey::Malformed`] if they name no point of the curve.
    ///
    /// # Complexity
    /// One point decompression, some microseconds.
    pub fn new(bytes: [u8; 32]) -> Result<Self, InvalidKey> {
        let key = PublicKey::from_bytes(bytes)?;
        let point = VerifyingKey::from_bytes(&bytes).map_err(|_| InvalidKey::Malformed)?;
        Ok(Self { key, point })
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether this key signed these bytes. Strictly: no R of small order, no malleable S.
    #[must_use]
    pub fn signed(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.point.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Debug for OpenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

impl PublicKey {
    /// Whether it names a point of the curve: if not, no signature verifies under it.
    ///
    /// # Complexity
    /// One point decompression, some microseconds.
    #[must_use]
    pub fn is_on_curve(&self) -> bool {
        OpenKey::new(*self.as_bytes()).is_ok()
    }
}

/// The key that a text names, as [`PublicKey`] reads it, on the curve: where people name keys, a typing error is told at once.
///
/// # Errors
/// As [`OpenKey::new`].
pub fn parse_key(text: &str) -> Result<PublicKey, InvalidKey> {
    let key = text.parse::<PublicKey>()?;
    if key.is_on_curve() { Ok(key) } else { Err(InvalidKey::Malformed) }
}

/// Open keys of known peers, at most so many; who was noted first is forgotten first.
pub struct OpenKeys {
    by_bytes: HashMap<[u8; 32], OpenKey>,
    order: VecDeque<[u8; 32]>,
    most: usize,
}

impl OpenKeys {
    /// With room for so many, each of which takes about 300 bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { by_bytes: HashMap::new(), order: VecDeque::new(), most }
    }

    /// The key with these bytes, if it is here.
    #[must_use]
    pub fn get(&self, bytes: &[u8; 32]) -> Option<OpenKey> {
        self.by_bytes.get(bytes).copied()
    }

    /// Keeps a key. The caller has reason to know it.
    pub fn note(&mut self, key: &OpenKey) {
        let bytes = *key.key().as_bytes();
        if self.most == 0 || self.by_bytes.contains_key(&bytes) {
            return;
        }
        if self.order.len() >= self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_bytes.remove(&oldest);
        }
        self.order.push_back(bytes);
        self.by_bytes.insert(bytes, *key);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_bytes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_bytes.is_empty()
    }
}

impl fmt::Debug for OpenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenKeys").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::SMALL_ORDER;

    fn key(seed: u8) -> OpenKey {
        OpenKey::new(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes()).unwrap()
    }

    #[test]
    fn there_are_never_more_than_so_many_and_the_oldest_goes_first() {
        let mut keys = OpenKeys::new(2);
        for seed in [1, 2, 1, 3] {
            keys.note(&key(seed));
            assert!(keys.len() <= 2);
        }
        let is_there = |seed: u8| keys.get(key(seed).key().as_bytes());
        assert_eq!([1, 2, 3].map(is_there), [None, Some(key(2)), Some(key(3))]);
        assert_eq!(keys.order.len(), 2);
        let mut none = OpenKeys::new(0);
        none.note(&key(1));
        assert!(none.is_empty() && none.order.is_empty());
    }

    #[test]
    fn a_key_is_opened_only_if_it_is_good_for_something() {
        let mut small = [0; 32];
        small[0] = 1;
        assert_eq!(OpenKey::new(small).map(drop), Err(InvalidKey::Weak));
        assert_eq!(*key(1).key(), PublicKey::from_bytes(*key(1).key().as_bytes()).unwrap());
        // Off the curve: the store takes it for a key, and those who sign and check, or read what people type, do not.
        let off = (2..=255_u8).map(|b| [b; 32]).find(|bytes| VerifyingKey::from_bytes(bytes).is_err()).unwrap();
        let off_key = PublicKey::from_bytes(off).unwrap();
        assert_eq!(OpenKey::new(off).map(drop), Err(InvalidKey::Malformed));
        assert_eq!((off_key.is_on_curve(), key(1).key().is_on_curve()), (false, true));
        assert_eq!(parse_key(&off_key.to_base64()), Err(InvalidKey::Malformed));
        assert_eq!(parse_key(&key(1).key().to_base64()), Ok(*key(1).key()));
        assert_eq!(parse_key("x"), Err(InvalidKey::Encoding));
    }

    /// Around the prime, below and above, and wherever else; each small order, in each encoding.
    fn keys_at_the_edges() -> impl Iterator<Item = [u8; 32]> {
        let with_ends = |first: u8, middle: u8, last: u8| {
            let mut bytes = [middle; 32];
            (bytes[0], bytes[31]) = (first, last);
            bytes
        };
        let near = (0..=255).flat_map(move |first| [0x7f, 0xff].map(|last| with_ends(first, 0xff, last)));
        let far = (0..=255).flat_map(move |middle| [0x00, 0x7e, 0xfe].map(|last| with_ends(0xed, middle, last)));
        let small = SMALL_ORDER.into_iter().flat_map(|y| [y, negated(y)]);
        near.chain(far).chain(small)
    }

    /// The same y with the sign of the other x.
    fn negated(mut y: [u8; 32]) -> [u8; 32] {
        y[31] |= 0x80;
        y
    }

    /// What the store refuses by a table is what the curve refuses.
    #[test]
    fn a_key_is_good_exactly_if_its_point_is_written_as_these_bytes_and_not_of_small_order() {
        let (mut good, mut weak) = (0, 0);
        for bytes in keys_at_the_edges() {
            let Ok(point) = VerifyingKey::from_bytes(&bytes) else {
                assert_eq!(OpenKey::new(bytes).map(drop), Err(InvalidKey::Malformed));
                continue;
            };
            let is_good = point.to_edwards().compress().to_bytes() == bytes && !point.is_weak();
            (good, weak) = (good + u32::from(is_good), weak + u32::from(point.is_weak()));
            assert_eq!(PublicKey::from_bytes(bytes).is_ok(), is_good, "{bytes:02x?}");
            assert_eq!(OpenKey::new(bytes).is_ok(), is_good, "{bytes:02x?}");
            if point.is_weak() {
                assert_eq!(PublicKey::from_checksummed(bytes), Err(InvalidKey::Weak), "{bytes:02x?}");
            }
        }
        assert!(good > 100 && weak >= 8, "{good} {weak}");
    }

    #[test]
    fn a_signature_with_an_r_of_small_order_is_refused_though_it_adds_up() {
        // By the holder of the key: R is the neutral element, and S is the hash of R, key and message times the secret. So
        // S B = R + k A, which is all that a looser check asks for. Whoever can write it under a good key can write it for
        // any message, and a signature that says less than another is not one of ours.
        let signer = ed25519_dalek::SigningKey::from_bytes(&[0x11; 32]);
        let s = [
            0x23, 0xb5, 0xf7, 0x8b, 0x53, 0xbe, 0xc1, 0x69, 0x61, 0xec, 0x7f, 0x69, 0x3e, 0xc2, 0xf5, 0xf9, 0x5d, 0xcd,
            0x61, 0xf3, 0xc0, 0x16, 0x7f, 0xf5, 0xe1, 0xcb, 0x41, 0xfc, 0xb1, 0xa5, 0x96, 0x06,
        ];
        let mut signature = [0; 64];
        signature[0] = 1;
        signature[32..].copy_from_slice(&s);
        let (key, dalek) = (key(0x11), signer.verifying_key());
        let loosely = ed25519_dalek::Verifier::verify(&dalek, b"anything", &Signature::from_bytes(&signature));
        assert!(loosely.is_ok() && !key.signed(b"anything", &signature));
        // Its twin.
        let good = ed25519_dalek::Signer::sign(&signer, b"anything").to_bytes();
        assert!(key.signed(b"anything", &good) && !key.signed(b"anythinG", &good));
    }
}
