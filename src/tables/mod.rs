//! All tables of one moment, as persistent maps: what a writer derives the next state from and the keeper saves.
//!
//! Cloning is constant in the number of entries, so that the keeper takes a consistent state out of the writer's
//! critical section without holding it up.
//!
//! The trusted records have a map of their own. Every other table stands once in the list of `side_tables`, from which its
//! field, its change, its difference and its blocks on disk follow. `docs/design.md` says what else a new table touches.
#![forbid(unsafe_code)]

pub(crate) mod crowds;
pub(crate) mod difference;
pub(crate) mod draft;
mod entry;
pub(crate) mod forget;
pub(crate) mod patch;
pub(crate) mod queue;
pub(crate) mod refuse;
pub(crate) mod succession;
pub(crate) mod table;

pub(crate) use entry::Marked;
pub use entry::{
    Floor, Marks, Nonce, OTHER_KEYS_MAX, OtherKey, Outgoing, Owed, Pending, PendingKind, REFUSED_PER_PEER_MAX, Refusal,
    RefusedRequest, Revocation, RevocationId, Source,
};

pub use succession::{KeyFault, SUCCESSIONS_PER_PEER_MAX, Succession, Void};

use std::sync::Arc;

use crate::map::TrustMap;
use crate::map::mix::Mix;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::time::WallMillis;
use table::Table;

/// Hands the list of tables besides the trusted records to a macro: number on disk, field, variant of [`TableChange`], key,
/// entry, and the table.
macro_rules! side_tables {
    ($with:ident) => {
        $with! {
            /// Of the pending table.
            2 pending Pending crate::peer::NodeId, std::sync::Arc<crate::tables::Pending>
                => crate::tables::queue::Queue;
            /// Of the outgoing table.
            3 outgoing Outgoing crate::peer::NodeId, std::sync::Arc<crate::tables::Outgoing>
                => crate::tables::table::ById<std::sync::Arc<crate::tables::Outgoing>>;
            /// Of the marks of revoked peers.
            4 revoked Revoked crate::peer::NodeId, crate::tables::Revocation
                => crate::tables::table::ById<crate::tables::Revocation>;
            /// Of the floors. A step that changes floors or revisions alone does not ring the keeper.
            5 floors Floor crate::peer::NodeId, crate::tables::Floor
                => crate::tables::table::ById<crate::tables::Floor>;
            /// Of the marks of revoked keys.
            6 revoked_keys RevokedKey crate::peer::PublicKey, crate::tables::Revocation
                => crate::tables::table::ByKey<crate::tables::Revocation>;
            /// Of the ignored peers, with when an operator ignored them.
            7 ignored Ignored crate::peer::NodeId, crate::time::WallMillis
                => crate::tables::table::ById<crate::time::WallMillis>;
            /// Of the ignored keys, likewise.
            8 ignored_keys IgnoredKey crate::peer::PublicKey, crate::time::WallMillis
                => crate::tables::table::ByKey<crate::time::WallMillis>;
            /// Of the requests that an operator refused.
            9 refused Refused crate::peer::NodeId, std::sync::Arc<[crate::tables::RefusedRequest]>
                => crate::tables::table::ById<std::sync::Arc<[crate::tables::RefusedRequest]>>;
            /// Of the decisions that a peer has not been told yet.
            10 owed Owed crate::peer::NodeId, std::sync::Arc<crate::tables::Owed>
                => crate::tables::table::ById<std::sync::Arc<crate::tables::Owed>>;
            /// Of the keys of a peer that named, or were replaced by, another one.
            11 successors Successors crate::peer::NodeId, std::sync::Arc<[crate::tables::Succession]>
                => crate::tables::table::ById<std::sync::Arc<[crate::tables::Succession]>>;
            /// Of the newest revisions under which the registry told of a peer that is trusted, or was and is in a table.
            12 revisions Revision crate::peer::NodeId, u64
                => crate::tables::table::ById<u64>;
        }
    };
}
pub(crate) use side_tables;

macro_rules! define {
    ($($(#[$doc:meta])* $number:literal $field:ident $variant:ident $key:ty, $entry:ty => $table:ty;)*) => {
        /// Every table but the trusted records.
        #[derive(Clone, Debug)]
        pub(crate) struct Sides {
            $(pub(crate) $field: $table,)*
        }

        impl Sides {
            fn new(mix: Mix) -> Self {
                Self { $($field: Table::new(mix),)* }
            }
        }

        /// One change of one entry of one table: `None` removes it.
        ///
        /// All changes of one step are published together, under one generation. A key occurs at most once per table.
        ///
        /// What is long and seldom lies behind a pointer: there are as many of these as a batch has records.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum TableChange {
            /// Of the trusted table.
            Trusted(NodeId, Option<TrustRecord>),
            $($(#[$doc])* $variant($key, Option<$entry>),)*
        }
    };
}
side_tables!(define);

const _: () = assert!(size_of::<TableChange>() <= 80);

/// One consistent state of every table.
#[derive(Clone, Debug)]
pub struct Tables {
    pub(crate) trusted: TrustMap,
    /// Shared by all states between two changes of any of them: a grant copies a pointer.
    pub(crate) sides: Arc<Sides>,
}

#[cfg(feature = "cli")]
impl Sides {
    /// Every key that an entry holds, some more than once.
    pub(crate) fn keys(&self) -> impl Iterator<Item = PublicKey> {
        let pending = self.pending.iter().flat_map(|(_, it)| {
            core::iter::once(it.key).chain(it.proven_by).chain(it.others.iter().map(|other| other.key))
        });
        let outgoing = self
            .outgoing
            .iter()
            .flat_map(|(_, it)| it.expected_key.into_iter().chain(it.refused.as_ref().map(|refused| refused.key)));
        let others = self.floors.iter().filter_map(|(_, floor)| floor.key);
        let others = others.chain(self.refused.iter().flat_map(|(_, it)| it.iter().map(|refused| refused.key)));
        let marked = self.revoked_keys.iter().map(|(key, _)| key).chain(self.ignored_keys.iter().map(|(key, _)| key));
        let others = others.chain(self.owed.iter().filter_map(|(_, it)| it.for_key));
        let successors = self.successors.iter().flat_map(|(_, all)| all.iter().flat_map(|it| [it.old, it.new]));
        pending.chain(outgoing).chain(others).chain(marked).chain(successors)
    }
}

impl Tables {
    pub(crate) fn new(mix: Mix) -> Self {
        Self { trusted: TrustMap::new(mix), sides: Arc::new(Sides::new(mix)) }
    }

    /// The peers of which another key has named this one as its successor, by a statement that is not void.
    pub(crate) fn whose_keys_named(&self, key: &PublicKey) -> impl Iterator<Item = NodeId> {
        let said = self.sides.successors.iter();
        said.filter(move |(_, all)| succession::is_named(all, key)).map(|(peer, _)| peer)
    }

    /// the revoked key whose word the key of this record has, in one step or in several, unless trust in it began after
    /// that key was revoked. What lies in the future says nothing of before and after.
    pub(crate) fn revoked_origin(&self, record: &TrustRecord, now: WallMillis) -> Option<PublicKey> {
        let marks = &self.sides.revoked_keys;
        if marks.len() == 0 {
            return None;
        }
        let (key, all) = (record.public_key?, self.sides.successors.get(record.node_id)?);
        let began = record.approved_at;
        let is_older = |mark: &Revocation| began <= mark.at || began > now;
        let is_origin = |old: &PublicKey| marks.get(*old).is_some_and(is_older) && succession::leads_to(all, old, &key);
        all.iter().map(|it| it.old).find(is_origin)
    }

    /// The peers whose record's key has the word of this revoked key, with that record.
    pub(crate) fn trusted_by_word_of(&self, key: &PublicKey, now: WallMillis) -> Vec<NodeId> {
        let said = self.sides.successors.iter().filter(|(_, all)| all.iter().any(|it| it.old == *key));
        let records = said.filter_map(|(peer, all)| Some((self.trusted.get(peer)?, all)));
        // Another revoked key may be nearer.
        let by_it = records.filter(|(record, all)| {
            record.public_key.is_some_and(|current| succession::leads_to(all, key, &current))
                && self.revoked_origin(record, now).is_some()
        });
        by_it.map(|(record, _)| record.node_id).collect()
    }

    /// The marks that trusting this peer under this key would have to lift. A look into tables that are mostly empty costs
    /// nothing.
    pub(crate) fn marks(&self, peer: NodeId, key: Option<&PublicKey>) -> Marks {
        let (peers, keys) = (&self.sides.revoked, &self.sides.revoked_keys);
        let of_peer = if peers.len() == 0 { None } else { peers.get(peer).copied() };
        let of_key = if keys.len() == 0 { None } else { key.and_then(|key| keys.get(*key).copied()) };
        Marks::new(of_peer, of_key)
    }

    /// A peer that is both trusted and revoked: no such state is valid (I-2).
    pub(crate) fn trusted_and_revoked(&self) -> Option<NodeId> {
        self.sides.revoked.iter().map(|(peer, _)| peer).find(|peer| self.trusted.contains(*peer))
    }
}

#[cfg(all(test, feature = "handshake", not(trustkeep_loom)))]
mod tests;
