//! What must hold of keys that name their successor, said as in `law`.
#![forbid(unsafe_code)]

use super::law::Seen;
use crate::config::OnRotation;
use crate::machine::input::{Lookup, Received};
use crate::peer::PublicKey;

impl Seen<'_> {
    /// the record's key, if it named the key of this message as its successor.
    fn named_by(&self, it: &Received) -> Option<PublicKey> {
        let record = self.before.trusted.get(&it.message.sender()).and_then(|record| record.public_key);
        it.message.rotation().map(|rotation| *rotation.old_key()).filter(|old| Some(*old) == record)
    }

    ///
    pub(super) fn takes(&self, it: &Received) -> bool {
        let unopposed = matches!(it.lookup, Lookup::NotAsked | Lookup::Unknown);
        let only = |old: PublicKey| {
            let known = self.before.successors.get(old.as_bytes());
            known.is_none_or(|known| known == it.message.key())
        };
        self.rules.policy.on_rotation == OnRotation::Take && unopposed && self.named_by(it).is_some_and(only)
    }

    /// nothing of it is forgotten, and nothing comes of it without a statement.
    pub(super) fn successors_are_named_by_the_key_before_them(&self) -> Result<(), String> {
        let said = self.received().and_then(|it| it.message.rotation());
        for (old, is) in &self.after.successors {
            let was = self.before.successors.get(old);
            let told = said.is_some_and(|said| said.old_key().as_bytes() == old);
            let contested = is.as_bytes() == old;
            let first = was.is_none() && said.is_some_and(|said| said.new_key() == is);
            if was != Some(is) && !(told && (contested || first)) {
                return Err("a key has a successor that it did not name".to_owned());
            }
        }
        if self.before.successors.keys().any(|old| !self.after.successors.contains_key(old)) {
            return Err("a successor was forgotten".to_owned());
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
