//! What an operator refused is remembered, by whatever command it waits no longer.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::table::Table as _;
use super::{OtherKey, Pending, REFUSED_PER_PEER_MAX, RefusedRequest, TableChange, Tables};
use crate::peer::{NodeId, PublicKey};
use crate::time::WallMillis;

/// When something is refused, and what is remembered of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) at: WallMillis,
    /// The latest stamp that clocks which are right could give.
    pub(crate) latest: WallMillis,
    /// Of so many peers it is remembered.
    pub(crate) peers_max: usize,
}

impl Terms {
    pub(crate) const fn new(at: WallMillis, latest: WallMillis, pending_max: usize) -> Self {
        Self { at, latest, peers_max: pending_max.saturating_mul(REFUSED_PER_PENDING) }
    }
}

/// Of how many peers refusals are remembered, for each place in the queue.
const REFUSED_PER_PENDING: usize = 16;

/// What peers wait with of which an operator speaks, by peer or by key; in the order of peers, whatever that of the table is.
pub(crate) fn spoken_of<'a>(
    pending: impl Iterator<Item = (NodeId, &'a Pending)>,
    is_of: impl Fn(NodeId, Option<PublicKey>) -> bool,
) -> Vec<(NodeId, Vec<OtherKey>)> {
    let keys = |peer, entry: &Pending| entry.keys().filter(|it| is_of(peer, Some(it.key))).collect::<Vec<_>>();
    let mut spoken: Vec<_> = pending.map(|(peer, entry)| (peer, keys(peer, entry))).collect();
    spoken.retain(|(_, keys)| !keys.is_empty());
    spoken.sort_unstable_by_key(|(peer, _)| *peer);
    spoken
}

/// Remembers that an operator refused what these peers waited with: each peer once. `of` is what is remembered already, of
/// one peer and of `len` of them, `all`.
pub(crate) fn remembered<'a, A: Iterator<Item = (NodeId, &'a [RefusedRequest])>>(
    of: impl Fn(NodeId) -> &'a [RefusedRequest],
    len: usize,
    all: impl FnOnce() -> A,
    refused: &[(NodeId, Vec<OtherKey>)],
    terms: Terms,
) -> Vec<TableChange> {
    if terms.peers_max == 0 {
        return Vec::new();
    }
    let (mut changes, mut changed, mut newcomers) = (Vec::new(), BTreeSet::new(), 0_usize);
    for (peer, keys) in refused {
        let before = of(*peer);
        let mut after = before.to_vec();
        for OtherKey { key, stamp, .. } in keys.iter().filter(|it| it.nonce.is_some()) {
            // A stamp too far ahead keeps nothing out, and is not to outlive one that does.
            let known = after.iter().find(|it| it.key == *key && it.stamp <= terms.latest).map(|it| it.stamp);
            after.retain(|it| it.key != *key);
            let stamp = known.map_or(*stamp, |known| known.max(*stamp));
            after.push(RefusedRequest { key: *key, stamp, at: terms.at });
        }
        if after == before {
            continue;
        }
        after.drain(..after.len().saturating_sub(REFUSED_PER_PEER_MAX));
        newcomers += usize::from(before.is_empty());
        changed.insert(*peer);
        changes.push(TableChange::Refused(*peer, Some(after.into())));
    }
    let too_many = len.saturating_add(newcomers).saturating_sub(terms.peers_max);
    if newcomers > 0 && too_many > 0 {
        let last = |refused: &[RefusedRequest]| refused.iter().map(|it| it.at).max();
        let mut by_age: Vec<_> =
            all().filter(|(peer, _)| !changed.contains(peer)).map(|(peer, refused)| (last(refused), peer)).collect();
        by_age.sort_unstable();
        changes.extend(by_age.into_iter().take(too_many).map(|(_, peer)| TableChange::Refused(peer, None)));
    }
    changes
}

impl Tables {
    /// The same by a call of the store, which knows nothing of how far clocks may differ: as far as they may by default.
    pub(crate) fn remembered(
        &self,
        refused: &[(NodeId, Vec<OtherKey>)],
        at: WallMillis,
        pending_max: usize,
    ) -> Vec<TableChange> {
        let table = &self.sides.refused;
        let of = |peer| table.get(peer).map_or(&[][..], |refused| refused);
        let all = || table.iter().map(|(peer, refused)| (peer, &refused[..]));
        remembered(of, table.len(), all, refused, Terms::new(at, at.saturating_add(SKEW_MS), pending_max))
    }
}

/// So far clocks may differ by default.
const SKEW_MS: i64 = 30_000;
