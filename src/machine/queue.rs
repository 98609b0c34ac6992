//! The queue before the operator: who gets in, what a second message changes, and who makes room.
//!
//! The limits hold here and nowhere else, so a full queue never stands in the way of a grant. The first key stays: a
//! forger who comes later can only be seen, not win.
#![forbid(unsafe_code)]

use super::event::Event;
use super::input::Received;
use super::plan::Plan;
use super::rejection::Rejection;
use super::step::Standing;
use super::view::{Pending, PendingKind, Source, TableChange};
use crate::peer::NodeId;

/// Rules.
pub(super) fn enqueue(
    plan: &mut Plan<'_>,
    received: &Received,
    standing: Standing,
    kind: PendingKind,
) -> Result<(), Rejection> {
    let message = &received.message;
    let fresh = Pending {
        key: *message.key(),
        nonce: message.nonce(),
        stamp: message.stamp(),
        justification: message.justification().to_string(),
        received_at: plan.now.wall,
        received_tick: plan.now.tick,
        source: received.path.source(),
        authentic: standing.is_authentic(),
        conflicts: 0,
        kind,
        others: Vec::new(),
        proven_by: None,
    };
    let entry = match plan.pending.take() {
        None => {
            make_room(plan, fresh.source, fresh.authentic)?;
            show(plan, &fresh);
            fresh
        }
        Some(old) if old.key == fresh.key => {
            // whoever holds this key speaks version 2. And what version 1 says of its time keeps nothing out.
            let (speaks_v2, spoke_v2) = (fresh.nonce.is_some(), old.nonce.is_some());
            let refused = if spoke_v2 && !speaks_v2 {
                Some(Rejection::Downgrade)
            } else if speaks_v2 == spoke_v2 && fresh.stamp <= old.stamp {
                Some(Rejection::Stale)
            } else {
                None
            };
            if let Some(refused) = refused {
                plan.pending = Some(old);
                return Err(refused);
            }
            again(plan, old, fresh)
        }
        Some(old) => {
            let conflicts = old.conflicts.saturating_add(1);
            if fresh.authentic && !old.authentic {
                show(plan, &fresh);
                Pending { conflicts, source: old.source, ..fresh }
            } else {
                Pending { conflicts, ..old }
            }
        }
    };
    plan.pending = Some(entry);
    Ok(())
}

/// The same key once more: what ties an answer to it is renewed, what the operator reads stays.
fn again(plan: &mut Plan<'_>, old: Pending, fresh: Pending) -> Pending {
    let authentic = old.authentic || fresh.authentic;
    match (old.kind, fresh.kind) {
        // It has asked, and approving answers that; its answer to us adds nothing to what the operator must decide.
        (PendingKind::Request, PendingKind::AnsweredUnvouched) => Pending { authentic, ..old },
        // So far it had only answered. Now it asks, and has a text of its own.
        (PendingKind::AnsweredUnvouched, PendingKind::Request) => {
            show(plan, &fresh);
            Pending { authentic, conflicts: old.conflicts, source: old.source, ..fresh }
        }
        _ => Pending {
            nonce: fresh.nonce,
            stamp: fresh.stamp,
            received_at: fresh.received_at,
            received_tick: fresh.received_tick,
            authentic,
            ..old
        },
    }
}

fn show(plan: &mut Plan<'_>, entry: &Pending) {
    let (justification, fingerprint) = (entry.justification.clone(), entry.key.fingerprint());
    plan.events.push(Event::Pending { peer: plan.peer, justification, fingerprint });
}

/// Finds room for a peer that is not pending yet: a vouched-for one takes the place of the oldest unvouched one.
fn make_room(plan: &mut Plan<'_>, source: Source, authentic: bool) -> Result<(), Rejection> {
    let (view, limits) = (plan.view, &plan.rules.limits);
    let of_source = view.pending_iter().filter(|(_, entry)| entry.source == source).count();
    let (full, of) = if of_source >= limits.pending_per_source_max {
        (Rejection::PendingSourceFull, Some(source))
    } else if view.pending_len() >= limits.pending_max {
        (Rejection::PendingFull, None)
    } else {
        return Ok(());
    };
    if !authentic {
        return Err(full);
    }
    let oldest = oldest_unvouched(plan, of).ok_or(full)?;
    plan.others.push(TableChange::Pending(oldest, None));
    Ok(())
}

fn oldest_unvouched(plan: &Plan<'_>, of: Option<Source>) -> Option<NodeId> {
    plan.view
        .pending_iter()
        .filter(|(_, entry)| !entry.authentic && of.is_none_or(|source| entry.source == source))
        .min_by_key(|(peer, entry)| (entry.received_tick, *peer))
        .map(|(peer, _)| peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::outcome::{Outcome, Step};
    use crate::peer::PublicKey;
    use crate::testing::actor::{Actor, Way, at, node};
    use crate::wire::message::Kind;

    fn us() -> Actor {
        Actor::new(9, 0x11)
    }

    /// `us` hears, at `ms`, a request of node `id` under the key of `seed`.
    fn ask(us: &mut Actor, ms: i64, id: u32, seed: u8, text: &str, way: Way) -> Result<Step, Rejection> {
        let mut asker = Actor::new(id, seed);
        let mut draft = asker.draft(at(ms), us.id(), Kind::Request, None);
        draft.justification = text.into();
        draft.nonce.0[15] = u8::try_from(ms % 251).unwrap();
        us.hear_from(at(ms), &asker, &draft, way)
    }

    fn key(seed: u8) -> PublicKey {
        Actor::new(1, seed).public_key()
    }

    #[test]
    fn a_repeat_renews_what_an_answer_needs_and_keeps_what_the_operator_read() {
        let mut us = us();
        ask(&mut us, 10, 7, 0xAA, "first", Way::from_host(1)).unwrap();
        let first = us.tables.pending[&node(7)].clone();
        ask(&mut us, 20, 7, 0xAA, "second", Way::from_host(2)).unwrap();
        let second = &us.tables.pending[&node(7)];
        assert_eq!((second.justification.as_str(), second.source, second.conflicts), ("first", first.source, 0));
        assert_eq!((second.stamp, second.received_at, second.received_tick), (at(20).wall, at(20).wall, at(20).tick));
        assert_ne!(second.nonce, first.nonce);
    }

    #[test]
    fn a_repeat_that_is_not_newer_is_stale() {
        let mut us = us();
        ask(&mut us, 20, 7, 0xAA, "", Way::open()).unwrap();
        for ms in [20, 19] {
            assert_eq!(ask(&mut us, ms, 7, 0xAA, "", Way::open()), Err(Rejection::Stale));
        }
        assert_eq!(us.tables.pending.len(), 1);
        assert!(ask(&mut us, 21, 7, 0xAA, "", Way::open()).is_ok());
    }

    #[test]
    fn another_key_is_counted_and_does_not_replace_the_first() {
        let mut us = us();
        ask(&mut us, 10, 7, 0xAA, "first", Way::open()).unwrap();
        let step = ask(&mut us, 20, 7, 0xBB, "forged", Way::open()).unwrap();
        assert_eq!(step.outcome, Outcome::Queued);
        let entry = &us.tables.pending[&node(7)];
        assert_eq!((entry.key, entry.conflicts, entry.justification.as_str()), (key(0xAA), 1, "first"));
        assert_eq!(entry.stamp, at(10).wall, "the first key's own stamp");
    }

    #[test]
    fn a_vouched_for_key_replaces_an_unvouched_first_and_no_vouched_one() {
        let mut us = us();
        ask(&mut us, 10, 7, 0xBB, "forged", Way::from_host(2)).unwrap();
        let charged_to = us.tables.pending[&node(7)].source;
        ask(&mut us, 20, 7, 0xAA, "true", Way::registered(key(0xAA))).unwrap();
        let entry = us.tables.pending[&node(7)].clone();
        assert_eq!((entry.key, entry.authentic, entry.conflicts), (key(0xAA), true, 1));
        assert_eq!((entry.justification.as_str(), entry.source), ("true", charged_to));

        ask(&mut us, 30, 7, 0xCC, "rival", Way::tunnel(node(7))).unwrap();
        let entry = &us.tables.pending[&node(7)];
        assert_eq!((entry.key, entry.conflicts), (key(0xAA), 2));
    }

    #[test]
    fn one_source_fills_its_share_and_another_still_gets_in() {
        let mut us = us();
        us.rules.limits.pending_per_source_max = 2;
        for id in [101, 102] {
            ask(&mut us, 10, id, 0xAA, "", Way::from_host(1)).unwrap();
        }
        assert_eq!(ask(&mut us, 10, 103, 0xAA, "", Way::from_host(1)), Err(Rejection::PendingSourceFull));
        assert!(ask(&mut us, 10, 103, 0xAA, "", Way::from_host(2)).is_ok());
        // Moving its entries elsewhere does not give it room either.
        ask(&mut us, 20, 101, 0xAA, "", Way::from_host(2)).unwrap();
        assert_eq!(ask(&mut us, 20, 104, 0xAA, "", Way::from_host(1)), Err(Rejection::PendingSourceFull));
    }

    #[test]
    fn a_full_queue_lets_known_peers_repeat_and_nobody_new_in() {
        let mut us = us();
        us.rules.limits.pending_max = 2;
        for (id, host) in [(101, 1), (102, 2)] {
            ask(&mut us, 10, id, 0xAA, "", Way::from_host(host)).unwrap();
        }
        assert_eq!(ask(&mut us, 20, 103, 0xAA, "", Way::from_host(3)), Err(Rejection::PendingFull));
        assert!(ask(&mut us, 20, 101, 0xAA, "", Way::from_host(1)).is_ok());
    }

    #[test]
    fn a_vouched_for_request_takes_the_place_of_the_oldest_unvouched() {
        let mut us = us();
        us.rules.limits.pending_max = 2;
        ask(&mut us, 10, 102, 0xAA, "", Way::from_host(1)).unwrap();
        ask(&mut us, 11, 101, 0xAA, "", Way::from_host(2)).unwrap();
        ask(&mut us, 20, 103, 0xAA, "", Way::registered(key(0xAA))).unwrap();
        assert_eq!(us.tables.pending.keys().copied().collect::<Vec<_>>(), [node(101), node(103)]);
        ask(&mut us, 30, 104, 0xAA, "", Way::registered(key(0xAA))).unwrap();
        // Now everyone in it is vouched for: nobody gives way.
        let full = ask(&mut us, 40, 105, 0xAA, "", Way::registered(key(0xAA))).unwrap();
        assert_eq!(full.outcome, Outcome::Dropped(Rejection::PendingFull));
        assert_eq!(us.tables.pending.keys().copied().collect::<Vec<_>>(), [node(103), node(104)]);
    }

    #[test]
    fn within_a_full_source_the_vouched_for_displaces_its_own_source_only() {
        let mut us = us();
        us.rules.limits.pending_per_source_max = 1;
        ask(&mut us, 10, 101, 0xAA, "", Way::from_host(2)).unwrap();
        ask(&mut us, 20, 102, 0xAA, "", Way::from_host(1)).unwrap();
        ask(&mut us, 30, 103, 0xAA, "", Way::registered(key(0xAA))).unwrap();
        assert_eq!(us.tables.pending.keys().copied().collect::<Vec<_>>(), [node(101), node(103)]);
    }

    #[test]
    fn a_full_queue_stands_in_the_way_of_no_grant() {
        let mut us = us();
        us.rules.limits.pending_max = 0;
        us.request(at(0), node(7), Some(key(0xAA))).unwrap();
        let step = ask(&mut us, 10, 7, 0xAA, "", Way::open()).unwrap();
        assert!(matches!(step.outcome, Outcome::Trusted(_)));
    }
}
