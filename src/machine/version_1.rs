//! Messages of version 1: what little may come of them.
//!
//! Their signature covers neither type nor time. So no floor protects them and they move none; a registry that knows the
//! key proves nothing about such a message; and what one says of its own time keeps no other message out.
#![forbid(unsafe_code)]

use super::arrival::check_downgrade;
use super::contradiction::is_contradicted;
use super::input::Received;
use super::outcome::Step;
use super::plan::Plan;
use super::rejection::Rejection;
use super::replay::{Noted, Seen};
use super::step::{dispatch, standing};
use crate::wire::message::Kind;
use crate::wire::verify::ReplayKey;

/// Rules.
pub(super) fn receive(mut plan: Plan<'_>, received: &Received, key: ReplayKey) -> Result<Step, Rejection> {
    check_downgrade(plan.floor)?;
    if is_contradicted(&mut plan, received) {
        return plan.drop_message(Rejection::KeyMismatch);
    }
    let standing = standing(&plan, received);
    let authentic = standing.is_authentic();
    match received.seen {
        Seen::Never => {}
        Seen::Unvouched if authentic => {}
        Seen::Unvouched | Seen::Authentic => return Err(Rejection::Replayed),
    }
    if !authentic && received.message.kind() != Kind::Request {
        return Err(Rejection::NotAuthentic);
    }
    plan.noted = Some(Noted { key, sender: plan.peer, authentic });
    dispatch(plan, received, standing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Allowed, Policy};
    use crate::machine::effect::Action;
    use crate::machine::outcome::Outcome;
    use crate::machine::view::Floor;
    use crate::testing::actor::{Actor, Way, at, dropped, mark, node, sent};

    /// 9, which takes version 1, and 7, which speaks it.
    fn two() -> (Actor, Actor) {
        let (mut us, peer) = (Actor::new(9, 0x11), Actor::new(7, 0xAA));
        us.rules.policy.accept_v1 = true;
        (us, peer)
    }

    fn tunnel() -> Way {
        Way::tunnel(node(7))
    }

    fn registered_tunnel(peer: &Actor) -> Way {
        Way { lookup: Way::registered(peer.public_key()).lookup, ..tunnel() }
    }

    #[test]
    fn version_1_is_taken_only_by_a_node_that_was_told_to() {
        let (mut us, mut peer) = two();
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.rules.policy.accept_v1 = false;
        assert_eq!(us.hear_v1(at(0), &peer, &request, tunnel()), Err(Rejection::Version1));
        assert!(!Policy::default().accept_v1);
        us.rules.policy.accept_v1 = true;
        assert_eq!(us.hear_v1(at(0), &peer, &request, tunnel()).unwrap().outcome, Outcome::Queued);
    }

    #[test]
    fn only_the_transport_vouches_for_a_message_of_version_1() {
        for (way, authentic) in [(Way::open(), false), (tunnel(), true), (Way::tunnel(node(8)), false)] {
            let (mut us, mut peer) = two();
            let request = peer.draft(at(0), us.id(), Kind::Request, None);
            us.hear_v1(at(0), &peer, &request, way).unwrap();
            assert_eq!(us.tables.pending[&peer.id()].authentic, authentic);
        }
        // A key that the registry knows: the signature may be years old, and of another message.
        let (mut us, mut peer) = two();
        us.trusts(peer.id(), Some(peer.public_key()));
        let revoke = peer.draft(at(0), us.id(), Kind::Revoke, None);
        let way = Way::registered(peer.public_key());
        assert_eq!(us.hear_v1(at(0), &peer, &revoke, way), Err(Rejection::NotAuthentic));
        assert_eq!(us.hear_v1(at(0), &peer, &revoke, Way::open()), Err(Rejection::NotAuthentic));
        assert!(us.tables.trusted.contains_key(&peer.id()));
        assert!(us.hear_v1(at(0), &peer, &revoke, tunnel()).is_ok());
        assert!(us.tables.trusted.is_empty());
    }

    #[test]
    fn a_request_of_version_1_that_nobody_vouches_for_waits_whatever_the_policy() {
        let (_, peer) = two();
        let policy = Policy::default().accept_v1(true).own_networks([5]).auto_approve(true);
        let policy = policy.allow(Allowed::new(peer.id(), peer.public_key())).trust_on_first_use(true);
        let way = || Way::in_networks(peer.public_key(), &[5]);
        for (way, trusted) in [(way(), false), (Way { path: tunnel().path, ..way() }, true), (tunnel(), true)] {
            let (mut us, mut peer) = two();
            us.rules.policy = policy.clone();
            us.request(at(0), peer.id(), Some(peer.public_key())).unwrap();
            let request = peer.draft(at(10), us.id(), Kind::Request, None);
            let step = us.hear_v1(at(10), &peer, &request, way).unwrap();
            assert_eq!((step.outcome == Outcome::Queued, us.tables.trusted.len()), (!trusted, usize::from(trusted)));
        }
    }

    #[test]
    fn a_trusted_peer_is_not_put_before_the_operator_for_an_old_signature() {
        let (mut us, mut peer) = two();
        us.trusts(peer.id(), Some(peer.public_key()));
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        assert_eq!(us.hear_v1(at(0), &peer, &request, Way::open()), Err(Rejection::NotAuthentic));
        assert!(us.tables.pending.is_empty());
        let step = us.hear_v1(at(0), &peer, &request, tunnel()).unwrap();
        assert!(matches!(step.outcome, Outcome::Confirmed(_)));
    }

    #[test]
    fn version_1_moves_no_floor_and_is_held_to_none() {
        let (mut us, mut peer) = two();
        us.rules.policy.auto_approve = true;
        let request = peer.draft(at(5000), us.id(), Kind::Request, None);
        let step = us.hear_v1(at(5000), &peer, &request, tunnel()).unwrap();
        assert!(matches!(step.outcome, Outcome::Trusted(_)));
        let floor = us.tables.floor[&peer.id()];
        assert_eq!((floor.key, floor.seen.as_millis(), floor.spoke_v2), (None, 0, false));
        // So an earlier message of version 2 is still news.
        let earlier = peer.draft(at(4000), us.id(), Kind::Revoke, None);
        assert!(us.hear_from(at(6000), &peer, &earlier, tunnel()).is_ok());
    }

    #[test]
    fn approving_a_request_of_version_1_moves_no_floor() {
        let (mut us, mut peer) = two();
        let request = peer.draft(at(5000), us.id(), Kind::Request, None);
        us.hear_v1(at(5000), &peer, &request, Way::open()).unwrap();
        us.approve_shown(at(5010), peer.id()).unwrap();
        let floor = us.tables.floor.get(&peer.id()).copied().unwrap_or(Floor::EMPTY);
        assert_eq!((floor.key, floor.spoke_v2), (None, false));
        assert!(us.tables.trusted.contains_key(&peer.id()));
    }

    #[test]
    fn who_has_spoken_version_2_is_never_heard_in_version_1_again() {
        let (mut us, mut peer) = two();
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &peer, &request, tunnel()).unwrap();
        for kind in [Kind::Request, Kind::Accept, Kind::Reject, Kind::Revoke] {
            let old = peer.draft(at(10_000), us.id(), kind, None);
            assert_eq!(us.hear_v1(at(10_000), &peer, &old, tunnel()), Err(Rejection::Downgrade), "{kind:?}");
        }
        // A forger cannot shut a peer of version 1 out by speaking version 2 in its name.
        let (mut us, mut peer) = two();
        let forger = Actor::new(7, 0xBB);
        let forged = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &forger, &forged, Way::open()).unwrap();
        assert!(us.hear_v1(at(10), &peer, &forged, tunnel()).is_ok());
    }

    #[test]
    fn a_waiting_request_of_version_2_is_not_made_one_of_version_1() {
        let (mut us, mut peer) = two();
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &peer, &request, Way::open()).unwrap();
        let old = peer.draft(at(10_000), us.id(), Kind::Request, None);
        assert_eq!(us.hear_v1(at(10_000), &peer, &old, Way::open()), Err(Rejection::Downgrade));
        assert_eq!(us.tables.pending[&peer.id()].nonce, Some(request.nonce));
        // The other way round it is: and the time that version 1 claimed keeps nobody out.
        let (mut us, mut peer) = two();
        let old = peer.draft(at(20_000), us.id(), Kind::Request, None);
        us.hear_v1(at(0), &peer, &old, Way::open()).unwrap();
        let request = peer.draft(at(10), us.id(), Kind::Request, None);
        us.hear_from(at(10), &peer, &request, Way::open()).unwrap();
        assert_eq!(us.tables.pending[&peer.id()].nonce, Some(request.nonce));
    }

    #[test]
    fn having_asked_stands_in_for_the_nonce_that_version_1_does_not_have() {
        for (asked, kind) in [(true, Kind::Accept), (true, Kind::Reject), (false, Kind::Accept), (false, Kind::Reject)]
        {
            let (mut us, mut peer) = two();
            if asked {
                us.request(at(0), peer.id(), None).unwrap();
            }
            let answer = peer.draft(at(10), us.id(), kind, None);
            let outcome = us.hear_v1(at(10), &peer, &answer, tunnel()).unwrap().outcome;
            match (asked, kind) {
                (true, Kind::Accept) => assert!(matches!(outcome, Outcome::Trusted(record) if record.mutual)),
                (true, _) => assert_eq!(outcome, Outcome::Refused),
                (false, _) => assert_eq!(outcome, Outcome::Dropped(Rejection::NotAsked)),
            }
        }
        // In version 2 it does not.
        let (mut us, mut peer) = two();
        us.request(at(0), peer.id(), None).unwrap();
        let answer = peer.draft(at(10), us.id(), Kind::Accept, None);
        let outcome = us.hear_from(at(10), &peer, &answer, tunnel()).unwrap().outcome;
        assert_eq!(outcome, Outcome::Dropped(Rejection::WrongAnswer));
    }

    #[test]
    fn no_first_use_is_trusted_in_version_1() {
        let (mut us, mut peer) = two();
        us.rules.policy.trust_on_first_use = true;
        us.request(at(0), peer.id(), None).unwrap();
        let accept = peer.draft(at(10), us.id(), Kind::Accept, None);
        assert_eq!(us.hear_v1(at(10), &peer, &accept, Way::open()), Err(Rejection::NotAuthentic));
        assert!(us.tables.trusted.is_empty() && us.tables.pending.is_empty());
    }

    #[test]
    fn who_asked_in_version_1_is_answered_so_and_who_did_not_is_not() {
        let answered = |in_version_1: bool, accept_v1: bool| {
            let (mut us, mut peer) = two();
            let request = peer.draft(at(0), us.id(), Kind::Request, None);
            if in_version_1 {
                us.hear_v1(at(0), &peer, &request, tunnel()).unwrap();
            } else {
                us.hear_from(at(0), &peer, &request, tunnel()).unwrap();
            }
            us.rules.policy.accept_v1 = accept_v1;
            let step = us.approve_shown(at(10), peer.id()).unwrap();
            step.effects.into_iter().find_map(|effect| match effect.action {
                Action::Send(draft) => Some((2, draft.answers == Some(request.nonce))),
                Action::SendVersion1(draft) => Some((1, draft.answers.is_none())),
                _ => None,
            })
        };
        assert_eq!(answered(true, true), Some((1, true)));
        assert_eq!(answered(true, false), None, "the node has been told otherwise since");
        assert_eq!(answered(false, true), Some((2, true)));
    }

    #[test]
    fn a_refusal_and_a_farewell_also_go_in_the_version_that_was_spoken() {
        let (mut us, mut peer) = two();
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_v1(at(0), &peer, &request, tunnel()).unwrap();
        let nonce = us.nonce();
        use crate::machine::input::{Command, LookedAt};
        let command = Command::Reject { peer: peer.id(), reason: "no".into(), nonce, named: LookedAt::default() };
        let step = us.command(at(10), command).unwrap();
        assert!(matches!(&step.effects[0].action, Action::SendVersion1(draft) if draft.reason == "no"));

        us.tables.revoked.insert(peer.id(), mark(20));
        let later = peer.draft(at(400_000), us.id(), Kind::Request, None);
        let step = us.hear_v1(at(400_000), &peer, &later, tunnel()).unwrap();
        assert!(matches!(&step.effects[0].action, Action::SendVersion1(draft) if draft.kind == Kind::Revoke));
        assert!(sent(&step).is_some());
    }

    #[test]
    fn a_copy_is_dropped_however_it_is_dated() {
        let (mut us, mut peer) = two();
        let mut request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_v1(at(0), &peer, &request, tunnel()).unwrap();
        request.stamp = at(200_000).wall;
        assert_eq!(us.hear_v1(at(200_000), &peer, &request, tunnel()), Err(Rejection::Replayed));
        assert_eq!(us.hear_v1(at(200_000), &peer, &request, Way::open()), Err(Rejection::Replayed));
        // What it says is part of what is remembered, and what is too old to come again is forgotten.
        let revoke = peer.draft(at(200_000), us.id(), Kind::Revoke, None);
        assert!(us.hear_v1(at(200_000), &peer, &revoke, tunnel()).is_ok());
        request.stamp = at(330_001).wall;
        assert!(us.hear_v1(at(330_001), &peer, &request, tunnel()).is_ok());
    }

    #[test]
    fn a_copy_that_nobody_vouches_for_does_not_use_the_genuine_message_up() {
        let (mut us, mut peer) = two();
        us.trusts(peer.id(), Some(Actor::new(1, 0x22).public_key()));
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_v1(at(0), &peer, &request, Way::open()).unwrap();
        assert_eq!(us.hear_v1(at(1), &peer, &request, Way::open()), Err(Rejection::Replayed));
        assert!(us.tables.trusted.contains_key(&peer.id()));
        let later = peer.draft(at(2000), us.id(), Kind::Request, None);
        us.hear_v1(at(2000), &peer, &later, tunnel()).unwrap();
        assert!(us.tables.trusted.is_empty());
        // What came of it: a message that was dropped although vouched for is remembered as well.
        let (mut us, mut peer) = two();
        let revoke = peer.draft(at(0), us.id(), Kind::Revoke, None);
        let step = us.hear_v1(at(0), &peer, &revoke, tunnel()).unwrap();
        assert_eq!(step.outcome, Outcome::Dropped(Rejection::NothingToRevoke));
        us.trusts(peer.id(), None);
        assert_eq!(us.hear_v1(at(10), &peer, &revoke, tunnel()), Err(Rejection::Replayed));
    }

    #[test]
    fn a_registry_that_knows_another_key_contradicts_version_1_too() {
        let (mut us, mut peer) = two();
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        let way = Way { lookup: Way::registered(us.public_key()).lookup, ..tunnel() };
        assert_eq!(dropped(&us.hear_v1(at(0), &peer, &request, way)), Some(Rejection::KeyMismatch));
        let way = registered_tunnel(&peer);
        assert!(us.hear_v1(at(0), &peer, &request, way).is_ok());
    }
}
