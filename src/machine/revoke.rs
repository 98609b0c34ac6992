//! The end of trust: what becomes of a peer's revocation, and how a peer that we revoked hears of it again.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::arrival::millis;
use super::effect::{Action, Effect, When};
use super::event::{ChangeReason, Event};
use super::input::Received;
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::rejection::Rejection;
use super::step::Standing;
use crate::wire::message::Kind;

/// Rule R-35. The peer's own will leaves no mark: it may ask again.
pub(super) fn decide(mut plan: Plan<'_>, standing: Standing) -> Result<Step, Rejection> {
    if !standing.is_authentic() {
        return plan.drop_message(Rejection::NotAuthentic);
    }
    if plan.trusted.is_none() && plan.pending.is_none() && plan.asked().is_none() {
        // Who takes trust back is not to keep a tunnel that came of it, though we hold nothing any more.
        plan.act(When::Now, Action::Disconnect { peer: plan.peer, within: Duration::ZERO });
        return plan.drop_message(Rejection::NothingToRevoke);
    }
    let was = plan.lose_trust(ChangeReason::RevokedByPeer);
    if was.is_none() {
        plan.part(Duration::ZERO);
    }
    plan.pending = None;
    plan.outgoing = None;
    plan.events.push(Event::RevokedByPeer { peer: plan.peer });
    Ok(plan.finish(Outcome::RevokedByPeer { was }))
}

/// Rule R-36: whoever is revoked and still talks to us has perhaps missed the farewell.
///
/// The last stamp sent to the peer is the memory of when we last did: nothing but farewells and refusals goes to a
/// revoked peer. Two nodes that revoked each other therefore fall silent after one exchange.
pub(super) fn farewell_again(plan: &mut Plan<'_>, received: &Received, standing: Standing) {
    if !standing.is_authentic() && !is_under_its_last_key(plan, received) {
        return;
    }
    // a stamp further ahead of our clock was sent by one that was wrong, and does not say when that was.
    let (since, ahead_max) =
        (plan.now.wall.millis_since(plan.floor.sent), millis(plan.rules.config.future_skew_max) / 3 * 2);
    // silent while our own request to the peer lifts the mark. To a peer that is trusted, under another key than this
    // revoked one, there is no farewell to say.
    if plan.trusted.is_none()
        && plan.is_barred(received.message.key())
        && (since >= FAREWELL_EVERY_MS || since < -ahead_max)
    {
        if received.message.is_version_1() {
            let draft = plan.draft(Kind::Revoke, received.nonce);
            plan.act(When::Now, Action::SendVersion1(draft));
        } else {
            plan.say_farewell(received.nonce);
        }
    }
}

/// a farewell that the peer has not been told goes with its next request that is taken, however soon that comes: a
/// peer without an address can be reached in no other way. A copy is not taken.
pub(super) fn farewell_as_owed(plan: &mut Plan<'_>, received: &Received, standing: Standing) {
    let Some(owed) = plan.owed.clone().filter(|owed| owed.kind == Kind::Revoke) else { return };
    let is_known = standing.is_authentic() || is_under_its_last_key(plan, received);
    let is_sent = |effect: &Effect| matches!(&effect.action, Action::Send(draft) if draft.kind == Kind::Revoke);
    if is_known
        && !received.path.is_relayed()
        && !received.message.is_version_1()
        && plan.still_owes(&owed)
        && plan.trusted.is_none()
        && !plan.effects.iter().any(is_sent)
    {
        plan.say_farewell(owed.nonce);
    }
}

/// Whether the message is newer than all that was seen, and under the key that was vouched for last: with trust the record
/// went that vouched for it, so that nobody may be left who does. It suffices for a farewell, which tells the holder of
/// that key nothing but what it was told before, and for nothing else: it moves no floor.
///
/// Not where a relay brings it, for what a relay has kept can be up to 30 days old, and would be good for a farewell a
/// minute as long.
fn is_under_its_last_key(plan: &Plan<'_>, received: &Received) -> bool {
    let message = &received.message;
    plan.floor.key == Some(*message.key()) && !message.is_version_1() && !received.path.is_relayed()
}

/// At most one farewell a minute to a peer that goes on talking.
const FAREWELL_EVERY_MS: i64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::actor::{Actor, Way, at, dropped, sent};

    #[test]
    fn a_peer_that_is_vouched_for_takes_its_trust_back_and_a_forger_does_not() {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let record = us.trusts(peer.id(), Some(peer.public_key()));
        let revoke = peer.draft(at(10), us.id(), Kind::Revoke, None);
        let forger = Actor::new(9, 0xBB);
        let answer = us.hear_from(at(20), &forger, &revoke, Way::open());
        assert_eq!(dropped(&answer), Some(Rejection::NotAuthentic));
        assert_eq!(us.tables.trusted[&peer.id()], record);

        let step = us.hear_from(at(20), &peer, &revoke, Way::open()).unwrap();
        assert_eq!(step.outcome, Outcome::RevokedByPeer { was: Some(record) });
        assert!(us.tables.trusted.is_empty() && us.tables.revoked.is_empty());
        assert_eq!(step.events.len(), 2);
    }

    #[test]
    fn a_revocation_of_nothing_tells_nobody() {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let revoke = peer.draft(at(10), us.id(), Kind::Revoke, None);
        let step = us.hear_from(at(20), &peer, &revoke, Way::registered(peer.public_key())).unwrap();
        assert_eq!(step.outcome, Outcome::Dropped(Rejection::NothingToRevoke));
        assert!(step.events.is_empty() && us.tables.trusted.is_empty());
    }

    #[test]
    fn a_peers_own_revocation_is_reported_and_cuts_its_tunnel_whatever_we_hold() {
        let actions = |step: &Step| step.effects.iter().map(|effect| effect.action.clone()).collect::<Vec<_>>();
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let id = peer.id();
        let cut = Action::Disconnect { peer: id, within: Duration::ZERO };
        let revoke = peer.draft(at(10), us.id(), Kind::Revoke, None);
        let step = us.hear_from(at(20), &peer, &revoke, Way::tunnel(id)).unwrap();
        assert_eq!(actions(&step), std::slice::from_ref(&cut), "nothing was held");

        us.trusts(id, Some(peer.public_key()));
        let revoke = peer.draft(at(30), us.id(), Kind::Revoke, None);
        let step = us.hear_from(at(40), &peer, &revoke, Way::open()).unwrap();
        assert_eq!(actions(&step), [cut.clone(), Action::ReportRevoke { peer: id }]);
        // Where it only waited, or we had only asked, the registry hears of it as well.
        for asked in [false, true] {
            let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
            if asked {
                us.request(at(0), id, None).unwrap();
            } else {
                us.is_asked(0, 9, 0x11, "", Way::open()).unwrap();
            }
            let revoke = peer.draft(at(30), us.id(), Kind::Revoke, None);
            let step = us.hear_from(at(40), &peer, &revoke, Way::tunnel(id)).unwrap();
            assert_eq!(actions(&step), [cut.clone(), Action::ReportRevoke { peer: id }], "{asked}");
        }
        // A forger's does neither.
        us.trusts(id, Some(peer.public_key()));
        let forger = Actor::new(9, 0xBB);
        let forged = peer.draft(at(50), us.id(), Kind::Revoke, None);
        let answer = us.hear_from(at(60), &forger, &forged, Way::open());
        assert_eq!(dropped(&answer), Some(Rejection::NotAuthentic));
        assert_eq!(actions(&answer.unwrap()), []);
    }

    #[test]
    fn a_revocation_ends_requests_in_both_directions() {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        us.request(at(0), peer.id(), None).unwrap();
        let request = peer.draft(at(5), us.id(), Kind::Request, None);
        us.hear_from(at(6), &peer, &request, Way::tunnel(peer.id())).unwrap();
        assert!(us.tables.pending.len() == 1 && us.tables.outgoing.len() == 1);
        let revoke = peer.draft(at(10), us.id(), Kind::Revoke, None);
        let step = us.hear_from(at(20), &peer, &revoke, Way::tunnel(peer.id())).unwrap();
        assert!(us.tables.pending.is_empty() && us.tables.outgoing.is_empty());
        assert_eq!(step.events, [Event::RevokedByPeer { peer: peer.id() }], "no trust was lost, as there was none");
    }

    #[test]
    fn two_nodes_that_revoked_each_other_fall_silent() {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        us.trusts(peer.id(), Some(peer.public_key()));
        peer.trusts(us.id(), Some(us.public_key()));
        us.revoke(at(0), peer.id()).unwrap();
        let farewell = peer.revoke(at(100_000), us.id()).unwrap();
        let registered = |of: &Actor| Way::registered(of.public_key());
        let way = registered(&peer);
        let answer = us.hear_from(at(100_010), &peer, sent(&farewell).unwrap(), way).unwrap();
        let way = registered(&us);
        let last = peer.hear_from(at(100_020), &us, sent(&answer).unwrap(), way).unwrap();
        assert_eq!(sent(&last), None);
    }

    #[test]
    fn the_key_vouched_for_last_is_good_for_a_farewell_and_for_nothing_else() {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        us.trusts(peer.id(), Some(peer.public_key()));
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &peer, &request, Way::open()).unwrap();
        us.revoke(at(10), peer.id()).unwrap();
        let (id, floor) = (peer.id(), us.tables.floor[&peer.id()]);
        let mut hear = |ms: i64, stamp: i64, kind, way| {
            let draft = peer.draft(at(stamp), us.id(), kind, None);
            let step = us.hear_from(at(ms), &peer, &draft, way);
            let after = us.tables.floor[&peer.id()];
            assert_eq!((after.key, after.seen, after.spoke_v2), (floor.key, floor.seen, true), "the floor moved");
            step.map(|step| (step.outcome, sent(&step).map(|draft| draft.kind)))
        };
        let farewell = Some(Kind::Revoke);
        let not_authentic = Outcome::Dropped(Rejection::NotAuthentic);
        assert_eq!(hear(100_000, 100_000, Kind::Revoke, Way::open()), Ok((not_authentic, farewell)));
        assert_eq!(hear(130_000, 130_000, Kind::Request, Way::open()), Ok((Outcome::Queued, None)), "once a minute");
        // The same message again: as often, for as long as it is young.
        assert_eq!(hear(170_000, 100_000, Kind::Revoke, Way::open()), Ok((not_authentic, farewell)));
        assert_eq!(hear(400_001, 100_000, Kind::Revoke, Way::open()), Err(Rejection::TooOld));
        // What is not newer than what somebody vouched for, and what a relay has kept.
        assert_eq!(hear(240_000, 0, Kind::Revoke, Way::open()), Err(Rejection::Stale));
        let relayed = hear(440_000, 140_000, Kind::Request, Way::relayed(id));
        assert_eq!(relayed, Ok((Outcome::Queued, None)));
        let now = hear(440_000, 440_000, Kind::Request, Way::open());
        assert_eq!(now, Ok((Outcome::Queued, farewell)));
    }

    #[test]
    fn a_forger_of_a_revoked_peer_gets_no_farewell() {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        us.trusts(peer.id(), Some(peer.public_key()));
        us.revoke(at(0), peer.id()).unwrap();
        let request = peer.draft(at(100_000), us.id(), Kind::Request, None);
        let step = us.hear_from(at(100_000), &Actor::new(9, 0xBB), &request, Way::open()).unwrap();
        assert_eq!(sent(&step), None);
    }

    #[test]
    fn a_farewell_is_repeated_when_a_minute_has_passed_and_no_sooner() {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        us.trusts(peer.id(), Some(peer.public_key()));
        us.revoke(at(0), peer.id()).unwrap();
        for (ms, farewell) in [(59_999, false), (60_000, true), (60_001, false), (120_000, true)] {
            let request = peer.draft(at(ms), us.id(), Kind::Request, None);
            let step = us.hear_from(at(ms), &peer, &request, Way::registered(peer.public_key())).unwrap();
            assert_eq!(sent(&step).is_some(), farewell, "{ms}");
        }
    }
}
