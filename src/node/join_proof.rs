//! The proof that a node which joins an in-process registry holds the secret half of the key that it names.
//!
//! INVARIANT: no two joins share the bytes to sign, and no message of the protocol has them. The first line names the
//! purpose; the rest names the registry, the node, its key, and bytes that were drawn for this one join.
#![forbid(unsafe_code)]

use core::fmt::Write as _;
use std::io;

use super::random::Random;
use crate::peer::{NodeId, PublicKey};
use crate::wire::open_key::OpenKey;

/// Random bytes that name one registry for as long as the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegistryName([u8; 32]);

impl RegistryName {
    pub(crate) fn draw(random: &dyn Random) -> io::Result<Self> {
        let mut name = [0; 32];
        random.fill(&mut name)?;
        Ok(Self(name))
    }
}

/// What one node must sign to join once.
#[derive(Clone, Debug)]
pub(crate) struct Challenge {
    registry: RegistryName,
    node: NodeId,
    key: PublicKey,
    once: [u8; 32],
}

impl Challenge {
    /// A challenge that nobody has seen before.
    pub(crate) fn draw(registry: RegistryName, node: NodeId, key: PublicKey, random: &dyn Random) -> io::Result<Self> {
        let mut once = [0; 32];
        random.fill(&mut once)?;
        Ok(Self { registry, node, key, once })
    }

    /// The bytes to sign: five lines, each ended by one newline.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut lines = format!("{PURPOSE}\n{}\n", self.node);
        for part in [self.key.as_bytes(), &self.registry.0, &self.once] {
            for byte in part {
                // Writing to a text in memory has no way to fail.
                let _ = write!(lines, "{byte:02x}");
            }
            lines.push('\n');
        }
        lines.into_bytes()
    }

    /// Whether this is the signature of these bytes under the key.
    pub(crate) fn is_answered_by(&self, signature: &[u8; 64]) -> bool {
        OpenKey::new(*self.key.as_bytes()).is_ok_and(|key| key.signed(&self.bytes(), signature))
    }
}

const PURPOSE: &str = "trustkeep join 1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{FileIdentity, Identity as _, SystemRandom};
    use crate::wire::message::Kind;
    use crate::wire::sign::{Signed, signing_bytes_v1, signing_bytes_v2};

    fn node(id: u32, seed: u8) -> FileIdentity {
        FileIdentity::from_seed(NodeId::new(id).unwrap(), &[seed; 32]).unwrap()
    }

    fn challenge(us: &FileIdentity, registry: u8, once: u8) -> Challenge {
        let registry = RegistryName([registry; 32]);
        Challenge { registry, node: us.node_id(), key: us.public_key(), once: [once; 32] }
    }

    #[test]
    fn a_proof_of_joining_is_good_for_one_challenge_one_registry_one_id_and_one_key() {
        let us = node(7, 0xAA);
        let this = challenge(&us, 1, 1);
        let proof = us.sign(&this.bytes());
        assert!(this.is_answered_by(&proof));
        let others = [
            challenge(&us, 1, 2),
            challenge(&us, 2, 1),
            challenge(&node(9, 0xAA), 1, 1),
            challenge(&node(7, 0xAB), 1, 1),
        ];
        for other in &others {
            assert!(!other.is_answered_by(&proof), "{other:?}");
        }
        for forged in [[0; 64], [0xff; 64], node(7, 0xAB).sign(&this.bytes())] {
            assert!(!this.is_answered_by(&forged));
        }
        // Drawn ones differ, and so do registries.
        let name = || RegistryName::draw(&SystemRandom).unwrap();
        let drawn = || Challenge::draw(RegistryName([1; 32]), us.node_id(), us.public_key(), &SystemRandom).unwrap();
        assert_ne!(name(), name());
        assert_ne!(drawn().bytes(), drawn().bytes());
    }

    #[test]
    fn a_proof_of_joining_is_no_message_and_no_message_is_one() {
        let us = node(7, 0xAA);
        let this = challenge(&us, 1, 1);
        let message = signing_bytes_v2(&Signed {
            kind: Kind::Request,
            sender: us.node_id(),
            receiver: NodeId::new(9).unwrap(),
            stamp: crate::time::WallMillis::new(1),
            nonce: "",
            answers: "",
            key: &us.public_key(),
            justification: "",
            reason: "",
        });
        let old = signing_bytes_v1(us.node_id(), NodeId::new(9).unwrap());
        let own = this.bytes();
        // None begins as another does, so no field of one can be read as the other.
        for other in [&message[..], &old] {
            assert!(!own.starts_with(&other[..12]) && !other.starts_with(PURPOSE.as_bytes()));
            assert!(!this.is_answered_by(&us.sign(other)));
        }
    }
}
