//! The queue before the operator: who gets in, what a second message changes, and who makes room.
//!
//! The limits hold here and nowhere else, so a full queue never stands in the way of a grant. The first key stays: a
//! forger who comes later can only be seen, not win.
#![forbid(unsafe_code)]

use super::event::Event;
use super::input::Received;
use super::known::replaced_key;
use super::plan::Plan;
use super::refused::is_refused;
use super::rejection::Rejection;
use super::room::{make_room, moved};
use super::step::Standing;
use super::view::{OTHER_KEYS_MAX, OtherKey, Pending, PendingKind, RevocationId};

/// Rules.
pub(super) fn enqueue(
    plan: &mut Plan<'_>,
    received: &Received,
    standing: Standing,
    kind: PendingKind,
) -> Result<(), Rejection> {
    if is_refused(plan, received) {
        return Err(Rejection::AlreadyRefused);
    }
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
        // A key that is known already and is another was seen first.
        conflicts: u32::from(
            replaced_key(plan.view, plan.peer, message.key()).is_some() || plan.set_aside(message.key()).is_some(),
        ),
        kind,
        others: Vec::new(),
        proven_by: plan.proven,
        number: RevocationId::drawn_from(received.nonce).get().max(1),
    };
    let entry = match plan.pending.take() {
        None => {
            make_room(plan, fresh.source, fresh.is_backed())?;
            show(plan, &fresh);
            fresh
        }
        Some(old) if old.key == fresh.key => {
            // whoever holds this key speaks version 2. And what version 1 says of its time keeps nothing out.
            let refused = if is_downgrade(old.nonce.is_some(), &fresh) {
                Some(Rejection::Downgrade)
            } else if !renews(&old, &fresh) && !proves(&old, &fresh) {
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
        Some(old) if proves(&old, &fresh) || fresh.is_backed() && !old.is_backed() => {
            replaced_by_right(plan, old, fresh)
        }
        Some(mut old) => {
            old.conflicts = old.conflicts.saturating_add(1);
            keep_other(&mut old.others, &fresh);
            old
        }
    };
    plan.pending = Some(entry);
    Ok(())
}

const fn is_downgrade(spoke_v2: bool, fresh: &Pending) -> bool {
    spoke_v2 && fresh.nonce.is_none()
}

/// Whether the message is newer than what waits, under the same key.
fn renews(old: &Pending, fresh: &Pending) -> bool {
    old.nonce.is_some() != fresh.nonce.is_some() || fresh.stamp > old.stamp
}

/// Whether somebody vouches now where nobody did.
const fn proves(old: &Pending, fresh: &Pending) -> bool {
    fresh.authentic && !old.authentic
}

/// The same key once more: what ties an answer to it is renewed, what the operator reads stays.
fn again(plan: &mut Plan<'_>, old: Pending, fresh: Pending) -> Pending {
    // what somebody vouches for comes from its true place, whoever delivered a copy of it before.
    let source = if proves(&old, &fresh) { moved(plan, old.source, fresh.source) } else { old.source };
    let authentic = old.authentic || fresh.authentic;
    let renews = renews(&old, &fresh);
    if fresh.proven_by.is_some() && old.proven_by.is_none() {
        show(plan, &Pending { justification: old.justification.clone(), ..fresh.clone() });
    }
    let old = Pending { proven_by: old.proven_by.or(fresh.proven_by), ..old };
    match (old.kind, fresh.kind) {
        // It has asked, and approving answers that; its answer to us adds nothing to what the operator must decide.
        (PendingKind::Request, PendingKind::AnsweredUnvouched) => Pending { authentic, source, ..old },
        // So far it had only answered. Now it asks, and has a text of its own.
        (PendingKind::AnsweredUnvouched, PendingKind::Request) if renews => {
            show(plan, &fresh);
            let Pending { conflicts, others, number, proven_by, .. } = old;
            Pending { authentic, conflicts, source, others, number, proven_by, ..fresh }
        }
        _ if renews => Pending {
            nonce: fresh.nonce,
            stamp: fresh.stamp,
            received_at: fresh.received_at,
            received_tick: fresh.received_tick,
            authentic,
            source,
            ..old
        },
        _ => Pending { authentic, source, ..old },
    }
}

/// a key that somebody vouches for takes the place of one that nobody does, which stays to be seen.
fn replaced_by_right(plan: &mut Plan<'_>, old: Pending, fresh: Pending) -> Pending {
    show(plan, &fresh);
    let conflicts = old.conflicts.saturating_add(1);
    let source = moved(plan, old.source, fresh.source);
    let first = old.keys().next();
    let is_own = |other: &OtherKey| other.key == fresh.key;
    // A copy of its newest request may have been here before it.
    let newer = old.others.iter().copied().find(|it| is_own(it) && it.kind == fresh.kind && it.stamp > fresh.stamp);
    let newer = newer.filter(|it| it.nonce.is_some());
    let (nonce, stamp) = newer.map_or((fresh.nonce, fresh.stamp), |it| (it.nonce, it.stamp));
    let others = old.others.iter().filter(|it| !is_own(it) && it.source != old.source).copied();
    let others = first.into_iter().chain(others).take(OTHER_KEYS_MAX).collect();
    Pending { conflicts, source, nonce, stamp, others, ..fresh }
}

/// keeps another key, if there is room and its source has none here yet; or renews it.
fn keep_other(others: &mut Vec<OtherKey>, fresh: &Pending) {
    let &Pending { key, nonce, stamp, source, kind, received_at: first_seen, .. } = fresh;
    if let Some(known) = others.iter_mut().find(|other| other.key == key) {
        let is_newer = known.nonce.is_some() != nonce.is_some() || stamp > known.stamp;
        let only_answers = known.kind == PendingKind::Request && kind == PendingKind::AnsweredUnvouched;
        if is_newer && !only_answers && !is_downgrade(known.nonce.is_some(), fresh) {
            (known.nonce, known.stamp, known.kind) = (nonce, stamp, kind);
        }
    } else if others.len() < OTHER_KEYS_MAX && others.iter().all(|other| other.source != source) {
        others.push(OtherKey { key, nonce, stamp, source, first_seen, kind });
    }
}

pub(super) fn show(plan: &mut Plan<'_>, entry: &Pending) {
    let (peer, justification, fingerprint) = (plan.peer, entry.justification.clone(), entry.key.fingerprint());
    let replaces = replaced_key(plan.view, peer, &entry.key).map(|key| key.fingerprint());
    let (proven_by, marks) = (entry.proven_by.map(|key| key.fingerprint()), plan.marks(Some(&entry.key)));
    let set_aside = plan.set_aside(&entry.key);
    plan.events.push(Event::Pending { peer, justification, fingerprint, replaces, proven_by, set_aside, marks });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::input::Lookup;
    use crate::machine::outcome::Outcome;
    use crate::machine::view::Source;
    use crate::peer::PublicKey;
    use crate::testing::actor::{Actor, Way, at, node, sent};
    use crate::wire::message::Kind;

    fn us() -> Actor {
        Actor::new(9, 0x11)
    }

    fn key(seed: u8) -> PublicKey {
        Actor::new(1, seed).public_key()
    }

    #[test]
    fn a_repeat_renews_what_an_answer_needs_and_keeps_what_the_operator_read() {
        let mut us = us();
        us.is_asked(10, 7, 0xAA, "first", Way::from_host(1)).unwrap();
        let first = us.tables.pending[&node(7)].clone();
        us.is_asked(20, 7, 0xAA, "second", Way::from_host(2)).unwrap();
        let second = &us.tables.pending[&node(7)];
        assert_eq!((second.justification.as_str(), second.source, second.conflicts), ("first", first.source, 0));
        assert_eq!((second.stamp, second.received_at, second.received_tick), (at(20).wall, at(20).wall, at(20).tick));
        assert_ne!(second.nonce, first.nonce);
    }

    #[test]
    fn a_repeat_that_is_not_newer_is_stale() {
        let mut us = us();
        us.is_asked(20, 7, 0xAA, "", Way::open()).unwrap();
        for ms in [20, 19] {
            assert_eq!(us.is_asked(ms, 7, 0xAA, "", Way::open()), Err(Rejection::Stale));
        }
        assert_eq!(us.tables.pending.len(), 1);
        assert!(us.is_asked(21, 7, 0xAA, "", Way::open()).is_ok());
    }

    #[test]
    fn another_key_is_counted_and_does_not_replace_the_first() {
        let mut us = us();
        us.is_asked(10, 7, 0xAA, "first", Way::open()).unwrap();
        let step = us.is_asked(20, 7, 0xBB, "forged", Way::open()).unwrap();
        assert_eq!(step.outcome, Outcome::Queued);
        let entry = &us.tables.pending[&node(7)];
        assert_eq!((entry.key, entry.conflicts, entry.justification.as_str()), (key(0xAA), 1, "first"));
        assert_eq!(entry.stamp, at(10).wall, "the first key's own stamp");
    }

    #[test]
    fn a_vouched_for_key_replaces_an_unvouched_first_and_no_vouched_one() {
        let mut us = us();
        us.is_asked(10, 7, 0xBB, "forged", Way::from_host(2)).unwrap();
        let forged = us.tables.pending[&node(7)].clone();
        // The true key was here before, through a copy that somebody sent.
        us.is_asked(15, 7, 0xAA, "copied", Way::from_host(3)).unwrap();
        us.is_asked(20, 7, 0xAA, "true", Way::registered(key(0xAA))).unwrap();
        let entry = us.tables.pending[&node(7)].clone();
        assert_eq!((entry.key, entry.authentic, entry.conflicts), (key(0xAA), true, 2));
        assert_eq!((entry.justification.as_str(), entry.stamp), ("true", at(20).wall));
        let registered = Way::registered(key(0xAA)).path.source();
        assert!(entry.source == registered && entry.number != forged.number);
        let others: Vec<_> = entry.others.iter().map(|it| (it.key, it.nonce, it.source)).collect();
        assert_eq!(others, [(key(0xBB), forged.nonce, forged.source)], "what waited is shown still");

        us.is_asked(30, 7, 0xCC, "rival", Way::tunnel(node(7))).unwrap();
        let entry = &us.tables.pending[&node(7)];
        assert_eq!((entry.key, entry.conflicts), (key(0xAA), 3));
    }

    #[test]
    fn up_to_four_other_keys_are_kept_one_of_each_source_and_renewed() {
        let mut us = us();
        us.is_asked(10, 7, 0xA0, "first", Way::from_host(1)).unwrap();
        // A second key of the same source as the first may be the true one behind the same address.
        for (ms, seed, host) in
            [(11, 0xA1, 1), (12, 0xA2, 1), (13, 0xA3, 3), (14, 0xA4, 4), (15, 0xA5, 5), (16, 0xA6, 6)]
        {
            us.is_asked(ms, 7, seed, "", Way::from_host(host)).unwrap();
        }
        let kept = |us: &Actor| us.tables.pending[&node(7)].others.iter().map(|it| it.key).collect::<Vec<_>>();
        assert_eq!(kept(&us), [0xA1, 0xA3, 0xA4, 0xA5].map(key));
        assert_eq!(us.tables.pending[&node(7)].conflicts, 6, "those that are not kept count, too");
        // Renewed by news alone, from wherever; when it was first seen and where stays.
        let before = us.tables.pending[&node(7)].others[1];
        us.is_asked(30, 7, 0xA3, "", Way::from_host(9)).unwrap();
        let renewed = us.tables.pending[&node(7)].others[1];
        assert_eq!((renewed.stamp, renewed.source, renewed.first_seen), (at(30).wall, before.source, at(13).wall));
        assert_ne!(renewed.nonce, before.nonce);
        us.is_asked(20, 7, 0xA3, "", Way::from_host(9)).unwrap();
        assert_eq!(us.tables.pending[&node(7)].others[1], renewed);
        assert_eq!((kept(&us).len(), us.tables.pending[&node(7)].conflicts), (4, 8));
    }

    #[test]
    fn an_authentic_copy_makes_the_entry_authentic_and_moves_it_to_its_true_source() {
        let (us, mut peer) = (us(), Actor::new(7, 0xAA));
        let request = peer.draft(at(10), us.id(), Kind::Request, None);
        let older = peer.draft(at(9), us.id(), Kind::Request, None);
        for again in [&request, &older] {
            let mut us = self::us();
            us.hear_from(at(20), &peer, &request, Way::from_host(6)).unwrap();
            let before = us.tables.pending[&node(7)].clone();
            us.hear_from(at(21), &peer, again, Way::tunnel(node(7))).unwrap();
            let after = us.tables.pending[&node(7)].clone();
            assert_eq!((after.authentic, after.source, after.number), (true, Source::Node(node(7)), before.number));
            assert_eq!((after.nonce, after.stamp), (Some(request.nonce), request.stamp), "the newest request");
            // And not back again.
            assert_eq!(us.hear_from(at(22), &peer, &request, Way::from_host(6)), Err(Rejection::Stale));
            assert_eq!(us.tables.pending[&node(7)], after);
        }
        // Where its source has no room left, it stays where it is.
        let mut us = self::us();
        us.rules.limits.pending_per_source_max = 1;
        us.is_asked(
            5,
            8,
            0xAB,
            "",
            Way { lookup: Lookup::Found { key: key(0xAB), networks: vec![] }, ..Way::tunnel(node(7)) },
        )
        .unwrap();
        us.hear_from(at(20), &peer, &request, Way::from_host(6)).unwrap();
        us.hear_from(at(21), &peer, &request, Way::tunnel(node(7))).unwrap();
        let after = &us.tables.pending[&node(7)];
        assert!(after.authentic && after.source != Source::Node(node(7)));
    }

    #[test]
    fn a_full_queue_stands_in_the_way_of_no_grant() {
        let mut us = us();
        us.rules.limits.pending_max = 0;
        us.request(at(0), node(7), Some(key(0xAA))).unwrap();
        let step = us.is_asked(10, 7, 0xAA, "", Way::open()).unwrap();
        assert!(matches!(step.outcome, Outcome::Trusted(_)));
    }

    #[test]
    fn a_key_that_takes_the_place_brings_the_newest_of_its_own_requests() {
        let (mut us, mut peer) = (us(), Actor::new(7, 0xAA));
        us.is_asked(10, 7, 0xBB, "forged", Way::from_host(2)).unwrap();
        let older = peer.draft(at(20), us.id(), Kind::Request, None);
        let newer = peer.draft(at(30), us.id(), Kind::Request, None);
        // Nobody vouched for the newer one when it came; then somebody vouches for the older.
        us.hear_from(at(31), &peer, &newer, Way::from_host(3)).unwrap();
        us.hear_from(at(32), &peer, &older, Way::registered(peer.public_key())).unwrap();
        let entry = &us.tables.pending[&node(7)];
        assert_eq!((entry.key, entry.authentic), (peer.public_key(), true));
        assert_eq!((entry.nonce, entry.stamp), (Some(newer.nonce), newer.stamp));
    }

    #[test]
    fn an_answer_takes_nothing_from_another_keys_request() {
        let (mut us, mut peer) = (us(), Actor::new(7, 0xAA));
        let asked = us.request(at(0), peer.id(), None).unwrap();
        us.is_asked(10, 7, 0xBB, "first", Way::from_host(2)).unwrap();
        let request = peer.draft(at(20), us.id(), Kind::Request, None);
        us.hear_from(at(20), &peer, &request, Way::from_host(3)).unwrap();
        let accept = peer.draft(at(30), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce));
        us.hear_from(at(30), &peer, &accept, Way::from_host(3)).unwrap();
        let other = us.tables.pending[&node(7)].others[0];
        assert_eq!(
            (other.key, other.kind, other.nonce),
            (peer.public_key(), PendingKind::Request, Some(request.nonce))
        );
    }
}
