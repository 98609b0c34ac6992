//! The invariants of the tables, as a checker for tests, simulation and fuzzing.
//!
//! - I-1: no table has an entry of our own id (0 is no `NodeId`), and a trusted record names the peer it stands under.
//! - I-2: no peer is both trusted and revoked.
//! - I-3: a revoked peer, or key that a request names, has no outgoing entry but one whose lift names the mark in force.
//! - I-4: no trusted peer is pending under the key that it is trusted with.
//! - I-5: pending, pending per source, outgoing and successors are within their limits.
//! - I-6: every kept text is filtered and bounded.
//! - I-7: of a floor, `sent` is at most `reserved`; nothing was seen, and nobody spoke version 2, without a key.
//! - I-8: an answer to a request of ours waits only while we ask; of the keys that wait for a peer each occurs once, and of
//!   the others no two came from one source.
//! - I-9: no peer is owed a request, and as many peers are owed something as may be.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::BTreeMap;

use super::outcome::Rules;
use super::view::{Marks, OTHER_KEYS_MAX, OtherKey, Pending, PendingKind, Source, View};
use crate::peer::NodeId;
use crate::time::WallMillis;
use crate::wire::message::Kind;
use crate::wire::text::Text;

/// An invariant that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its number in this module's documentation.
    pub invariant: &'static str,
    /// The peer that shows it, if it is about one.
    pub peer: Option<NodeId>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "invariant {} does not hold for peer {peer}", self.invariant),
            None => write!(f, "invariant {} does not hold", self.invariant),
        }
    }
}

impl core::error::Error for Broken {}

/// Checks every table as a whole, and every peer that is pending or outgoing or has a floor.
///
/// # Errors
/// The first [`Broken`] invariant: a mistake of ours.
pub fn check(rules: &Rules, view: &dyn View) -> Result<(), Broken> {
    let limits = &rules.limits;
    ensure(view.pending_len() <= limits.pending_max, "I-5", None)?;
    ensure(view.outgoing_len() <= limits.outgoing_max, "I-5", None)?;
    ensure(view.owed_len() <= limits.owed_max, "I-9", None)?;
    ensure(view.successors_len() <= limits.successors_max, "I-5", None)?;
    let mut of_source = BTreeMap::<Source, usize>::new();
    for (_, entry) in view.pending_iter() {
        *of_source.entry(entry.source).or_default() += 1;
    }
    ensure(of_source.values().all(|&count| count <= limits.pending_per_source_max), "I-5", None)?;

    check_peer(rules, view, rules.own_id)?;
    let pending = view.pending_iter().map(|(peer, _)| peer);
    let outgoing = view.outgoing_iter().map(|(peer, _)| peer);
    let floors = view.floor_iter().map(|(peer, _)| peer);
    let owed = view.owed_iter().map(|(peer, _)| peer);
    for peer in pending.chain(outgoing).chain(owed).chain(floors) {
        check_peer(rules, view, peer)?;
    }
    Ok(())
}

/// Checks everything that is known about one peer.
///
/// # Errors
/// The first [`Broken`] invariant: a mistake of ours.
pub fn check_peer(rules: &Rules, view: &dyn View, peer: NodeId) -> Result<(), Broken> {
    let (trusted, pending, outgoing) = (view.trusted(peer), view.pending(peer), view.outgoing(peer));
    let (revoked, owed, floor) = (view.revoked(peer), view.owed(peer), view.floor(peer));
    let known = trusted.is_some() || pending.is_some() || outgoing.is_some() || revoked.is_some();
    let known = known || owed.is_some() || floor.is_some();
    let ensure = |holds, invariant| ensure(holds, invariant, Some(peer));

    ensure(!known || peer != rules.own_id, "I-1")?;
    ensure(trusted.is_none_or(|record| record.node_id == peer), "I-1")?;
    ensure(trusted.is_none() || revoked.is_none(), "I-2")?;
    let expected = outgoing.and_then(|entry| entry.expected_key);
    let marks = Marks::new(revoked, expected.and_then(|key| view.revoked_key(&key)));
    ensure(outgoing.is_none_or(|entry| marks.not_lifted_by(entry.lift).is_none()), "I-3")?;
    if let (Some(record), Some(entry)) = (trusted, pending) {
        ensure(record.public_key != Some(entry.key), "I-4")?;
    }
    ensure(pending.is_none_or(|entry| *Text::filtered(&entry.justification) == *entry.justification), "I-6")?;
    ensure(outgoing.is_none_or(|entry| *Text::filtered(&entry.justification) == *entry.justification), "I-6")?;
    let answers = |entry: &Pending| entry.keys().any(|it| it.kind == PendingKind::AnsweredUnvouched);
    ensure(pending.is_none_or(|entry| outgoing.is_some() || !answers(entry)), "I-8")?;
    ensure(pending.is_none_or(keys_are_apart), "I-8")?;
    ensure(owed.is_none_or(|entry| *Text::filtered(&entry.reason) == *entry.reason), "I-6")?;
    ensure(owed.is_none_or(|entry| entry.kind != Kind::Request), "I-9")?;
    let refused = outgoing.and_then(|entry| entry.refused.as_ref());
    ensure(refused.is_none_or(|refusal| *Text::filtered(&refusal.reason) == *refusal.reason), "I-6")?;
    if let Some(floor) = floor {
        ensure(floor.sent <= floor.reserved, "I-7")?;
        ensure(floor.key.is_some() || (floor.seen == WallMillis::new(0) && !floor.spoke_v2), "I-7")?;
    }
    Ok(())
}

fn keys_are_apart(entry: &Pending) -> bool {
    let others = entry.others.iter().enumerate();
    let apart = |(at, it): (usize, &OtherKey)| {
        let later = entry.others.iter().skip(at + 1);
        it.key != entry.key && later.into_iter().all(|other| other.key != it.key && other.source != it.source)
    };
    entry.others.len() <= OTHER_KEYS_MAX && others.into_iter().all(apart)
}

fn ensure(holds: bool, invariant: &'static str, peer: Option<NodeId>) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { invariant, peer }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::view::{Floor, Nonce, Owed};
    use crate::peer::TrustRecord;
    use crate::testing::actor::{Actor, Way, at, mark, node};

    /// A node with one peer of each table, all in order; the damage is what the test does to it.
    fn damaged(damage: impl FnOnce(&mut Actor)) -> Option<&'static str> {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &peer, &request, Way::open()).unwrap();
        us.request(at(0), node(8), None).unwrap();
        us.trusts(node(6), None);
        us.tables.revoked.insert(node(5), mark(0));
        damage(&mut us);
        let peers = us.tables.trusted.keys().copied().collect::<Vec<_>>();
        let each = peers.into_iter().try_for_each(|peer| check_peer(&us.rules, &us.tables, peer));
        check(&us.rules, &us.tables).and(each).err().map(|broken| broken.invariant)
    }

    #[test]
    fn each_invariant_is_seen_to_break() {
        assert_eq!(damaged(|_| {}), None);
        assert_eq!(
            damaged(|us| {
                us.tables.revoked.insert(node(7), mark(0));
            }),
            Some("I-1")
        );
        assert_eq!(
            damaged(|us| {
                us.tables.trusted.insert(node(6), TrustRecord::new(node(4), None));
            }),
            Some("I-1")
        );
        assert_eq!(
            damaged(|us| {
                us.tables.revoked.insert(node(6), mark(0));
            }),
            Some("I-2")
        );
        assert_eq!(
            damaged(|us| {
                us.tables.revoked.insert(node(8), mark(0));
            }),
            Some("I-3")
        );
        let key = Actor::new(9, 0x11).public_key();
        assert_eq!(
            damaged(|us| {
                us.trusts(node(9), Some(key));
            }),
            Some("I-4")
        );
        assert_eq!(
            damaged(|us| {
                us.trusts(node(9), None);
            }),
            None
        );
        let owes = |kind, reason: &str| Owed {
            kind,
            nonce: Nonce([1; 16]),
            answers: None,
            reason: reason.to_owned(),
            since: at(0).wall,
            since_tick: at(0).tick,
            for_key: None,
        };
        for (owed, broken) in [
            (owes(Kind::Accept, ""), None),
            (owes(Kind::Request, ""), Some("I-9")),
            (owes(Kind::Reject, "\n"), Some("I-6")),
        ] {
            assert_eq!(damaged(|us| drop(us.tables.owed.insert(node(6), owed))), broken);
        }
        let too_many = |us: &mut Actor| {
            us.rules.limits.owed_max = 0;
            us.tables.owed.insert(node(6), owes(Kind::Accept, ""));
        };
        assert_eq!(damaged(too_many), Some("I-9"));
        assert_eq!(damaged(|us| us.rules.limits.pending_max = 0), Some("I-5"));
        assert_eq!(damaged(|us| us.rules.limits.pending_per_source_max = 0), Some("I-5"));
        assert_eq!(damaged(|us| us.rules.limits.outgoing_max = 0), Some("I-5"));
        assert_eq!(damaged(|us| us.tables.pending.get_mut(&node(9)).unwrap().justification.push('\n')), Some("I-6"));
        assert_eq!(
            damaged(|us| {
                us.tables.floor.insert(node(8), Floor { spoke_v2: true, ..Floor::EMPTY });
            }),
            Some("I-7")
        );
        let sent = at(1).wall;
        assert_eq!(
            damaged(|us| {
                us.tables.floor.insert(node(8), Floor { sent, ..Floor::EMPTY });
            }),
            Some("I-7")
        );
    }
}
