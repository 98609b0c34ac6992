//! The passing of time: rules. Ages are measured by the tick, so a wall clock that jumps expires nothing.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::answer::without_answer;
use super::arrival::millis;
use super::deliver;
use super::outcome::{Outcome, Rules, Step};
use super::refused;
use super::view::{Floor, Outgoing, TableChange, View};
use crate::peer::NodeId;
use crate::time::{Now, Tick};

pub(super) fn sweep(rules: &Rules, view: &dyn View, now: Now) -> Step {
    let lifetime = millis(rules.config.entry_lifetime);
    let expired = |since: Tick| now.tick.millis_since(since) > lifetime;
    let pending: BTreeSet<NodeId> =
        view.pending_iter().filter(|(_, entry)| expired(entry.received_tick)).map(|(peer, _)| peer).collect();
    let is_over = |entry: &Outgoing| expired(entry.sent_tick) || deliver::is_refusal_over(entry, now);
    let outgoing: BTreeSet<NodeId> =
        view.outgoing_iter().filter(|(_, entry)| is_over(entry)).map(|(peer, _)| peer).collect();
    let owed: BTreeSet<NodeId> =
        view.owed_iter().filter(|(_, entry)| expired(entry.since_tick)).map(|(peer, _)| peer).collect();
    let floors = floors_to_forget(rules, view);

    let outcome = Outcome::Kept {
        pending_expired: pending.len(),
        outgoing_expired: outgoing.len(),
        owed_expired: owed.len(),
        floors_forgotten: floors.len(),
    };
    let mut changes = Vec::with_capacity(pending.len() + outgoing.len() + owed.len() + floors.len());
    changes.extend(pending.iter().map(|peer| TableChange::Pending(*peer, None)));
    // an answer goes with the request that it answers.
    let left = outgoing.iter().filter(|peer| !pending.contains(peer));
    changes.extend(left.filter_map(|peer| without_answer(view, *peer)));
    changes.extend(outgoing.into_iter().map(|peer| TableChange::Outgoing(peer, None)));
    changes.extend(owed.into_iter().map(|peer| TableChange::Owed(peer, None)));
    changes.extend(floors.into_iter().map(|peer| TableChange::Floor(peer, None)));
    changes.extend(refused::forget(rules, view, now));
    Step { changes, effects: Vec::new(), events: Vec::new(), outcome, clamped: false, noted: None }
}

/// what is saved as sent is what was sent, so that the next life need not skip what this one had reserved.
pub(super) fn settle_reserves(view: &dyn View) -> Step {
    let is_reserved = |(_, floor): &(NodeId, Floor)| floor.reserved > floor.sent;
    let settled =
        |(peer, floor): (NodeId, Floor)| TableChange::Floor(peer, Some(Floor { reserved: floor.sent, ..floor }));
    let changes = view.floor_iter().filter(is_reserved).map(settled).collect();
    let outcome = Outcome::Stopped;
    Step { changes, effects: Vec::new(), events: Vec::new(), outcome, clamped: false, noted: None }
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
            && view.owed(peer).is_none()
    };
    let mut by_age: Vec<_> = view
        .floor_iter()
        .filter(|(peer, _)| in_no_table(*peer))
        .map(|(peer, floor)| (floor.seen.max(floor.before).max(floor.sent), peer))
        .collect();
    by_age.sort_unstable();
    by_age.into_iter().take(too_many).map(|(_, peer)| peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::input::Input;
    use crate::machine::view::Owed;
    use crate::testing::actor::{Actor, Way, at, mark, node};
    use crate::time::WallMillis;
    use crate::wire::message::Kind;

    const LIFETIME_MS: i64 = 30 * 24 * 60 * 60 * 1000;

    /// Node 7, to which 9 is pending and which has asked 8, both at 0.
    fn waiting() -> Actor {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &peer, &request, Way::open()).unwrap();
        us.request(at(0), node(8), None).unwrap();
        us
    }

    #[test]
    fn entries_live_thirty_days_and_not_a_millisecond_more() {
        let mut us = waiting();
        assert_eq!(us.step(at(LIFETIME_MS), Input::Housekeeping).unwrap().changes, []);
        let step = us.step(at(LIFETIME_MS + 1), Input::Housekeeping).unwrap();
        assert_eq!(
            step.outcome,
            Outcome::Kept { pending_expired: 1, outgoing_expired: 1, owed_expired: 0, floors_forgotten: 0 }
        );
        assert!(us.tables.pending.is_empty() && us.tables.outgoing.is_empty());
    }

    #[test]
    fn a_wall_clock_that_jumps_expires_nothing() {
        let mut us = waiting();
        for wall in [i64::MIN, 0, i64::MAX] {
            let now = Now { wall: WallMillis::new(wall), ..at(1) };
            assert_eq!(us.step(now, Input::Housekeeping).unwrap().changes, []);
        }
    }

    #[test]
    fn full_floors_lose_the_longest_silent_strangers_and_no_peer_of_a_table() {
        let mut us = waiting();
        us.rules.limits.floors_max = 16;
        us.trusts(node(101), None);
        us.tables.revoked.insert(node(102), mark(0));
        // The peers of a table are the longest silent of all; one floor is there already, for the request to 8.
        for id in 101..116 {
            let seen = WallMillis::new(i64::from(id));
            let floor = Floor { key: Some(Actor::new(1, 0x22).public_key()), seen, ..Floor::EMPTY };
            us.tables.floor.insert(node(id), floor);
        }
        us.step(at(1), Input::Housekeeping).unwrap();
        let left: Vec<u32> = us.tables.floor.keys().map(|peer| peer.get()).collect();
        let kept: Vec<u32> = [8, 101, 102].into_iter().chain(105..116).collect();
        assert_eq!(left, kept);
        assert_eq!(us.step(at(2), Input::Housekeeping).unwrap().changes, [], "below the limit nothing is forgotten");
    }

    #[test]
    fn full_floors_keep_who_was_spoken_to_lately_and_who_is_owed_something() {
        let mut us = Actor::new(7, 0xAA);
        us.rules.limits.floors_max = 16;
        for id in 101..=116 {
            let (key, seen) = (Some(Actor::new(1, 0x22).public_key()), WallMillis::new(i64::from(id)));
            us.tables.floor.insert(node(id), Floor { key, seen, ..Floor::EMPTY });
        }
        // 101 to 103 were heard longest ago. We spoke to 101 just now, and owe 102 something.
        let spoken_to = us.tables.floor.get_mut(&node(101)).unwrap();
        (spoken_to.sent, spoken_to.reserved) = (at(0).wall, at(0).wall);
        let owed = Owed {
            kind: Kind::Reject,
            nonce: us.nonce(),
            answers: None,
            reason: String::new(),
            since: at(0).wall,
            since_tick: at(0).tick,
            for_key: None,
        };
        us.tables.owed.insert(node(102), owed);
        us.step(at(1), Input::Housekeeping).unwrap();
        let left: Vec<u32> = us.tables.floor.keys().map(|peer| peer.get()).collect();
        assert_eq!(left, [101, 102].into_iter().chain(105..=116).collect::<Vec<u32>>());
    }
}
