//! The passing of time: rules. Ages are measured by the tick, so a wall clock that jumps expires nothing.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::arrival::millis;
use super::outcome::{Outcome, Rules, Step};
use super::view::{TableChange, View};
use crate::peer::NodeId;
use crate::time::{Now, Tick};

pub(super) fn sweep(rules: &Rules, view: &dyn View, now: Now) -> Step {
    let lifetime = millis(rules.config.entry_lifetime);
    let expired = |since: Tick| now.tick.millis_since(since) > lifetime;
    let pending: BTreeSet<NodeId> =
        view.pending_iter().filter(|(_, entry)| expired(entry.received_tick)).map(|(peer, _)| peer).collect();
    let outgoing: BTreeSet<NodeId> =
        view.outgoing_iter().filter(|(_, entry)| expired(entry.sent_tick)).map(|(peer, _)| peer).collect();
    let floors = floors_to_forget(rules, view);

    let outcome = Outcome::Kept {
        pending_expired: pending.len(),
        outgoing_expired: outgoing.len(),
        floors_forgotten: floors.len(),
    };
    let mut changes = Vec::with_capacity(pending.len() + outgoing.len() + floors.len());
    changes.extend(pending.into_iter().map(|peer| TableChange::Pending(peer, None)));
    changes.extend(outgoing.into_iter().map(|peer| TableChange::Outgoing(peer, None)));
    changes.extend(floors.into_iter().map(|peer| TableChange::Floor(peer, None)));
    Step { changes, effects: Vec::new(), events: Vec::new(), outcome, clamped: false }
}

/// When the floors are at their limit: those of peers in no other table, the longest silent first, until an eighth of
/// the table is free (so that the next scan is a while away).
fn floors_to_forget(rules: &Rules, view: &dyn View) -> Vec<NodeId> {
    let max = rules.limits.floors_max;
    if view.floor_len() < max {
        return Vec::new();
    }
    let too_many = view.floor_len().saturating_sub(max - max / 8);
    let in_no_table = |peer: NodeId| {
        view.trusted(peer).is_none()
            && view.pending(peer).is_none()
            && view.outgoing(peer).is_none()
            && view.revoked(peer).is_none()
    };
    let mut by_age: Vec<_> = view
        .floor_iter()
        .filter(|(peer, _)| in_no_table(*peer))
        .map(|(peer, floor)| (floor.seen.max(floor.sent), peer))
        .collect();
    by_age.sort_unstable();
    by_age.into_iter().take(too_many).map(|(_, peer)| peer).collect()
}
