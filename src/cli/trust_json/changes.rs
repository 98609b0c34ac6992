//! Changes that a document asks for and that are in no version of the tables yet, by peer, so that each can be looked up.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::map::Value;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::tables::patch::{Patch, SideValues};
use crate::tables::table::Table as _;
use crate::tables::{
    Floor, Outgoing, Owed, Pending, RefusedRequest, Revocation, RevocationId, Succession, Tables, Void, succession,
};
use crate::time::WallMillis;

/// Of each table, what replaces an entry; `None` removes it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) trusted: HashMap<u32, Option<TrustRecord>>,
    pub(super) pending: HashMap<u32, Option<Pending>>,
    pub(super) outgoing: HashMap<u32, Option<Outgoing>>,
    pub(super) revoked: HashMap<u32, Option<Revocation>>,
    pub(super) floors: HashMap<u32, Option<Floor>>,
    pub(super) revoked_keys: HashMap<PublicKey, Option<Revocation>>,
    pub(super) ignored: HashMap<u32, Option<WallMillis>>,
    pub(super) ignored_keys: HashMap<PublicKey, Option<WallMillis>>,
    /// What becomes of what the keys of a peer named, by what the document says of the peer.
    pub(super) successors: HashMap<u32, Option<Arc<[Succession]>>>,
    pub(super) refused: HashMap<u32, Option<Arc<[RefusedRequest]>>>,
    pub(super) owed: HashMap<u32, Option<Owed>>,
    pub(super) revisions: HashMap<u32, Option<u64>>,
}

/// An entry that is judged once all lists are read.
pub(super) struct Later<V> {
    pub(super) index: u64,
    pub(super) entry: V,
    /// Its nonce was not in the document.
    pub(super) is_fresh: bool,
    /// Whether its stamp was in the document, and stayed as it was.
    pub(super) is_stamped: bool,
    /// Whether it says what the store's entry says; none where the store has none.
    pub(super) is_same: Option<bool>,
}

impl Changes {
    pub(super) fn len(&self) -> usize {
        let marks = self.revoked.len() + self.revoked_keys.len() + self.ignored.len() + self.ignored_keys.len();
        let remembered = self.successors.len() + self.refused.len() + self.owed.len() + self.revisions.len();
        self.trusted.len() + self.pending.len() + self.outgoing.len() + self.floors.len() + marks + remembered
    }

    /// by an import, too, a revocation makes void what was seen before it, and trust decides what was said of a
    /// key.
    pub(super) fn settle_successors(&mut self, before: &Tables) {
        let all = &before.sides.successors;
        if all.len() == 0 {
            return;
        }
        let keys = &self.revoked_keys;
        let names_in_vain = |it: &Succession| it.old != it.new && keys.get(&it.new).is_some_and(Option::is_some);
        let named = all.iter().filter(|(_, all)| all.iter().any(|it| it.void.is_none() && names_in_vain(it)));
        let concerned = self.revoked.keys().chain(self.trusted.keys()).copied();
        let concerned: BTreeSet<u32> = concerned.chain(named.map(|(peer, _)| peer.get())).collect();
        for id in concerned {
            let is_revoked = self.revoked.get(&id).is_some_and(|mark| mark.is_some());
            let key = self.trusted.get(&id).copied().flatten().and_then(|record| record.public_key);
            let before = NodeId::new(id).and_then(|peer| all.get(peer));
            let changed = succession::changed(before, |all| {
                if is_revoked {
                    succession::make_void(all, Void::Revoked, |_| true);
                }
                succession::make_void(all, Void::Revoked, names_in_vain);
                if let Some(key) = &key {
                    succession::granted(all, key);
                }
            });
            if let Some(changed) = changed {
                self.successors.insert(id, Some(changed));
            }
        }
    }

    pub(super) fn into_patch(self) -> Patch {
        fn by_peer<V, W>(values: HashMap<u32, Option<V>>, into: impl Fn(V) -> W) -> Vec<(NodeId, Option<W>)> {
            values.into_iter().filter_map(|(id, value)| Some((NodeId::new(id)?, value.map(&into)))).collect()
        }
        Patch {
            trusted: self.trusted.into_iter().map(|(id, record)| (id, record.as_ref().map(Value::of))).collect(),
            sides: SideValues {
                pending: by_peer(self.pending, Arc::new),
                outgoing: by_peer(self.outgoing, Arc::new),
                revoked: by_peer(self.revoked, |mark| mark),
                floors: by_peer(self.floors, |floor| floor),
                revoked_keys: self.revoked_keys.into_iter().collect(),
                ignored: by_peer(self.ignored, |at| at),
                ignored_keys: self.ignored_keys.into_iter().collect(),
                refused: by_peer(self.refused, |all| all),
                owed: by_peer(self.owed, Arc::new),
                successors: by_peer(self.successors, |all| all),
                revisions: by_peer(self.revisions, |revision| revision),
            },
        }
    }
}

/// The mark of a revocation in a document, which names none: the same one at every import.
pub(super) fn mark(peer: NodeId, at: WallMillis) -> Revocation {
    Revocation::new(at, RevocationId::mixed(u64::from(peer.get()), at.as_millis().cast_unsigned()))
}

/// The same of a key.
pub(super) fn key_mark(key: &PublicKey, at: WallMillis) -> Revocation {
    let number = |half: Option<&[u8; 8]>| half.map_or(0, |half| u64::from_le_bytes(*half));
    let (one, other) = (number(key.as_bytes().first_chunk()), number(key.as_bytes().last_chunk()));
    Revocation::new(at, RevocationId::mixed(one ^ at.as_millis().cast_unsigned(), other))
}

/// What both together forbid.
pub(super) fn higher(old: Floor, said: Floor) -> Floor {
    let is_same = old.key == said.key || old.key.is_none();
    let (key, seen, before) = if is_same {
        (said.key, old.seen.max(said.seen), old.before.max(said.before))
    } else {
        (old.key, old.seen, old.before)
    };
    let (sent, reserved) = (old.sent.max(said.sent), old.reserved.max(said.reserved));
    settled(Floor { key, seen, before, sent, reserved, spoke_v2: old.spoke_v2 || said.spoke_v2 })
}

/// What a floor was before it moved counts while that is higher than the floor.
pub(super) fn settled(floor: Floor) -> Floor {
    Floor { before: if floor.before > floor.seen { floor.before } else { Floor::EMPTY.before }, ..floor }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::mix::Mix;
    use crate::tables::TableChange;
    use crate::testing::actor::{Actor, mark, node};

    #[test]
    fn an_import_that_revokes_a_key_makes_void_what_named_it() {
        let key = |seed| Actor::new(1, seed).public_key();
        let named = [Succession::new(key(1), key(2)), Succession::new(key(2), key(3))];
        let known: Vec<_> = [8, 9].map(|id| TableChange::Successors(node(id), Some(named.into()))).into();
        let tables = Tables::new(Mix::new(0)).apply(&known).0;
        for (revoked, void) in [(Some(mark(1)), Some(Void::Revoked)), (None, None)] {
            let mut changes = Changes::default();
            changes.revoked_keys.insert(key(2), revoked);
            changes.settle_successors(&tables);
            let settled =
                |id: u32| changes.successors.get(&id).cloned().flatten().map(|all| [all[0].void, all[1].void]);
            // A mark that goes makes nothing void, and what the revoked key itself named stands.
            assert_eq!([settled(8), settled(9)], [void.map(|void| [Some(void), None]); 2]);
        }
    }
}
