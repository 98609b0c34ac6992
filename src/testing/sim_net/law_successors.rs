//! What must hold of keys that name their successor, said as in `law`.
#![forbid(unsafe_code)]

use super::law::Seen;
use crate::config::OnRotation;
use crate::machine::input::{Lookup, Received};
use crate::peer::PublicKey;
use crate::tables::Succession;
use crate::wire::rotation::Rotation;

impl Seen<'_> {
    /// the record's key, if it named the key of this message as its successor.
    fn named_by(&self, it: &Received) -> Option<PublicKey> {
        let record = self.before.trusted.get(&it.message.sender()).and_then(|record| record.public_key);
        it.message.rotation().map(|rotation| *rotation.old_key()).filter(|old| Some(*old) == record)
    }

    ///
    pub(super) fn takes(&self, it: &Received) -> bool {
        let unopposed = matches!(it.lookup, Lookup::NotAsked | Lookup::Unknown);
        // of a key with a void statement none is taken.
        let only = |old: PublicKey| {
            let said = self.before.successors.get(&it.message.sender()).map_or(&[][..], |said| said);
            said.iter().filter(|it| it.old == old).all(|known| known.void.is_none() && known.new == *it.message.key())
        };
        self.rules.policy.on_rotation == OnRotation::Take && unopposed && self.named_by(it).is_some_and(only)
    }

    /// nothing of it is forgotten, and nothing comes of it without a statement.
    pub(super) fn successors_are_named_by_the_key_before_them(&self) -> Result<(), String> {
        let said = self.received().and_then(|it| it.message.rotation());
        for (peer, is) in &self.after.successors {
            let was = self.before.successors.get(peer).map_or(&[][..], |was| was);
            let is_from = self.received().is_some_and(|it| it.message.sender() == *peer);
            let named = |it: &Succession| {
                let is_said =
                    |said: &Rotation| *said.old_key() == it.old && (*said.new_key() == it.new || it.new == it.old);
                is_from && said.is_some_and(is_said)
            };
            if !is.iter().skip(was.len()).all(named) {
                return Err("a key has a successor that it did not name".to_owned());
            }
            let kept = |(was, is): (&Succession, &Succession)| {
                (was.old, was.new) == (is.old, is.new) && (was.void.is_none() || was.void == is.void)
            };
            if is.len() < was.len() || !was.iter().zip(is.iter()).all(kept) {
                return Err("a successor was forgotten, or a void statement counts again".to_owned());
            }
        }
        if self.before.successors.keys().any(|peer| !self.after.successors.contains_key(peer)) {
            return Err("what keys had named was forgotten".to_owned());
        }
        for (peer, is) in &self.after.pending {
            let was = self.before.pending.get(peer).and_then(|was| was.proven_by);
            let now = |by: PublicKey| {
                self.received().is_some_and(|it| {
                    it.message.sender() == *peer && *it.message.key() == is.key && self.named_by(it) == Some(by)
                })
            };
            if is.proven_by.is_some_and(|by| was != Some(by) && !now(by)) {
                return Err(format!("what {peer} waits with counts as proven, and nobody has proven it"));
            }
            let record = self.after.trusted.get(peer).and_then(|record| record.public_key);
            if is.proven_by.is_some() && is.proven_by != record {
                return Err(format!("what {peer} waits with is proven by a key that is not trusted"));
            }
        }
        Ok(())
    }
}
