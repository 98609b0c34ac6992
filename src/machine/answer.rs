//! Answers to our requests that wait for the operator, and what becomes of them when the request is no more.
#![forbid(unsafe_code)]

use super::plan::Plan;
use super::queue::show;
use super::room::find_room;
use super::view::{OtherKey, Pending, PendingKind, RevocationId, TableChange, View};
use crate::peer::NodeId;

/// An answer that waits for the operator means nothing once the request that it answers is gone. A request that
/// waits behind it takes its place.
pub(super) fn forget_answer(plan: &mut Plan<'_>) {
    let Some(mut entry) = plan.pending.take() else { return };
    let is_request = |other: &OtherKey| other.kind == PendingKind::Request;
    entry.others.retain(is_request);
    if entry.kind == PendingKind::Request {
        plan.pending = Some(entry);
        return;
    }
    next_in_line(plan, entry);
}

/// The first key of an entry goes; one of the others takes its place, the oldest for whose source there is room, and is an
/// entry that nobody has looked at. With none of them the entry goes.
pub(super) fn next_in_line(plan: &mut Plan<'_>, mut entry: Pending) {
    let place = entry.others.iter().position(|other| find_room(plan, other.source, false) == Ok(None));
    let Some(place) = place else { return };
    let OtherKey { key, nonce, stamp, source, kind, .. } = entry.others.remove(place);
    let number = if entry.number == 0 { 0 } else { RevocationId::mixed(entry.number, 1).get().max(1) };
    let (justification, authentic, proven_by) = (String::new(), false, None);
    let entry = Pending { key, nonce, stamp, source, kind, number, justification, authentic, proven_by, ..entry };
    show(plan, &entry);
    plan.pending = Some(entry);
}

/// The same where many requests go at once: an entry that began as an answer goes as a whole.
pub(super) fn without_answer(view: &dyn View, peer: NodeId) -> Option<TableChange> {
    let entry = view.pending(peer)?;
    if entry.kind == PendingKind::AnsweredUnvouched {
        return Some(TableChange::Pending(peer, None));
    }
    let mut left = entry.clone();
    left.others.retain(|other| other.kind == PendingKind::Request);
    (left != *entry).then(|| TableChange::Pending(peer, Some(left.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::effect::Draft;
    use crate::machine::event::Event;
    use crate::machine::input::Command;
    use crate::machine::rejection::Rejection;
    use crate::testing::actor::{Actor, Way, at, node, sent};
    use crate::wire::message::Kind;

    fn us() -> Actor {
        Actor::new(7, 0xAA)
    }

    /// 9 has answered `us`, under a key that nobody vouches for; its answer waits.
    fn answered() -> (Actor, Actor, Draft) {
        let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
        let asked = us.request(at(0), peer.id(), None).unwrap();
        let accept = peer.draft(at(10), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce));
        us.hear_from(at(20), &peer, &accept, Way::open()).unwrap();
        assert!(us.tables.pending.contains_key(&peer.id()));
        (us, peer, accept)
    }

    #[test]
    fn an_answer_goes_with_the_request_that_it_answers() {
        type End = fn(&mut Actor);
        let ends: [(&str, End); 4] = [
            ("asked again", |us| drop(us.request(at(50), node(9), None).unwrap())),
            ("cancelled", |us| drop(us.command(at(50), Command::Cancel { peer: node(9) }).unwrap())),
            ("pushed out", |us| {
                us.rules.limits.outgoing_max = 1;
                us.request(at(50), node(8), None).unwrap();
            }),
            ("expired", |us| {
                const LIFETIME: i64 = 30 * 24 * 60 * 60 * 1000;
                us.tables.pending.get_mut(&node(9)).unwrap().received_tick = at(LIFETIME).tick;
                us.step(at(LIFETIME + 1), crate::machine::input::Input::Housekeeping).unwrap();
            }),
        ];
        for (how, end) in ends {
            let (mut us, ..) = answered();
            end(&mut us);
            assert!(us.tables.pending.is_empty(), "{how}");
            assert_eq!(us.approve(at(60), node(9), None), Err(Rejection::NothingToDo), "{how}");
            // A request of its own stays.
            let (mut us, mut peer) = (self::us(), Actor::new(9, 0x11));
            let request = peer.draft(at(10), us.id(), Kind::Request, None);
            us.hear_from(at(10), &peer, &request, Way::open()).unwrap();
            us.request(at(11), peer.id(), None).unwrap();
            end(&mut us);
            assert!(us.tables.pending.contains_key(&peer.id()), "{how}");
        }
    }

    #[test]
    fn a_request_that_waits_behind_a_forgotten_answer_takes_its_place() {
        let (mut us, _, _) = answered();
        let number = us.tables.pending[&node(9)].number;
        let mut genuine = Actor::new(9, 0x22);
        let request = genuine.draft(at(30), us.id(), Kind::Request, None);
        us.hear_from(at(30), &genuine, &request, Way::from_host(2)).unwrap();
        let step = us.command(at(50), Command::Cancel { peer: node(9) }).unwrap();
        let entry = us.tables.pending[&node(9)].clone();
        assert_eq!((entry.key, entry.kind), (genuine.public_key(), PendingKind::Request));
        assert!(entry.number != number && entry.others.is_empty() && !entry.authentic);
        assert!(matches!(step.events[..], [Event::Pending { .. }]));
        let approved = us.approve_shown(at(60), node(9)).unwrap();
        assert_eq!(sent(&approved).unwrap().answers, Some(request.nonce));
    }
}
