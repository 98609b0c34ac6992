//! Who takes part: nodes with keys of their own, and an attacker with two keys and no claim to anybody's id.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, reason = "a test double: its own mistakes end the test")]

use std::sync::OnceLock;

use ed25519_dalek::{Signer as _, SigningKey};

use super::chance::Chance;
use crate::config::{Allowed, OnRotation, Policy};
use crate::peer::{NodeId, PublicKey};
use crate::testing::actor::node;
use crate::time::WallMillis;
use crate::wire::message::Message;
use crate::wire::rotation::Rotation;
use crate::wire::sign::{Draft, sign_draft, sign_draft_v1};

/// A key pair.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    secret: SigningKey,
    pub(super) public: PublicKey,
}

impl Pair {
    fn new(seed: u8) -> Self {
        let secret = SigningKey::from_bytes(&[seed; 32]);
        let public = PublicKey::from_bytes(secret.verifying_key().to_bytes()).expect("made from a seed");
        Self { secret, public }
    }

    /// A message of this draft that claims to come from `sender`.
    pub(super) fn sign(&self, sender: NodeId, draft: &Draft) -> Message {
        sign_draft(sender, &self.public, draft, |bytes| self.secret.sign(bytes).to_bytes())
    }

    /// The word of this pair's key, stolen or not, that the other's is its successor.
    pub(super) fn signs_over_to(&self, sender: NodeId, new: &Self) -> Option<Rotation> {
        let sign = |bytes: &[u8]| self.secret.sign(bytes).to_bytes();
        Rotation::sign(sender, self.public, new.public, WallMillis::new(1), sign).ok()
    }

    /// A message of version 1.
    pub(super) fn sign_v1(&self, sender: NodeId, draft: &Draft) -> Message {
        sign_draft_v1(sender, &self.public, draft, |bytes| self.secret.sign(bytes).to_bytes())
    }
}

/// At most so many nodes; their ids count from 1.
pub(super) const NODES_MAX: u32 = 6;
/// The id that is the attacker's own.
pub(super) const ATTACKER: u32 = 66;
/// Ids that nobody has; the attacker makes up requests of theirs.
pub(super) const GHOSTS: [u32; 8] = [101, 102, 103, 104, 105, 106, 107, 108];

fn pairs() -> &'static [Pair] {
    static PAIRS: OnceLock<Vec<Pair>> = OnceLock::new();
    PAIRS.get_or_init(|| (1..=9).map(Pair::new).collect())
}

/// The pair that is really this node's; everybody without one of their own gets the attacker's first.
pub(super) fn pair_of(id: NodeId) -> &'static Pair {
    let index = if id.get() <= NODES_MAX { id.get() as usize - 1 } else { NODES_MAX as usize };
    pairs().get(index).expect("as many pairs as people")
}

/// The attacker's pairs.
pub(super) fn attackers() -> &'static [Pair] {
    pairs().get(NODES_MAX as usize..).unwrap_or_default()
}

pub(super) fn attacker() -> NodeId {
    node(ATTACKER)
}

/// Whom a node trusts of its own accord. With careful people these are nobody, or right keys.
pub(super) fn policy(chance: &mut Chance, ids: &[NodeId], honest: bool) -> Policy {
    let mut policy = Policy::default();
    if chance.one_in(4) {
        policy = policy.own_networks([0, 1, 2]);
    }
    for peer in ids {
        if chance.one_in(8) {
            let key = match chance.below(3) {
                0 => None,
                1 if !honest => attackers().first().map(|pair| pair.public),
                _ => Some(pair_of(*peer).public),
            };
            policy = policy.allow(Allowed::new(*peer, key).label("a friend"));
        }
    }
    policy = policy.auto_approve(!honest && chance.one_in(12));
    policy = policy.trust_on_first_use(!honest && chance.one_in(6));
    let on_rotation = match chance.below(4) {
        0 => OnRotation::Refuse,
        1 if !honest => OnRotation::Take,
        _ => OnRotation::Ask,
    };
    policy.accept_v1(chance.one_in(2)).on_rotation(on_rotation)
}
