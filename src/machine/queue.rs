//! The queue before the operator: who gets in, what a second message changes, and who makes room.
//!
//! The limits hold here and nowhere else, so a full queue never stands in the way of a grant. The first key stays: a
//! forger who comes later can only be seen, not win.
#![forbid(unsafe_code)]

use super::event::Event;
use super::filter::filter;
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
        nonce: Some(message.nonce()),
        stamp: message.stamp(),
        justification: filter(message.justification()),
        received_at: plan.now.wall,
        received_tick: plan.now.tick,
        source: received.source,
        authentic: standing.is_authentic(),
        conflicts: 0,
        kind,
    };
    let entry = match plan.pending.take() {
        None => {
            make_room(plan, fresh.source, fresh.authentic)?;
            show(plan, &fresh);
            fresh
        }
        Some(old) if old.key == fresh.key => {
            if fresh.stamp <= old.stamp {
                plan.pending = Some(old);
                return Err(Rejection::Stale);
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
