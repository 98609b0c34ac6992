//! Telling trusted peers of our own new key: a request under the new key carries the old key's statement.
//!
//! Nothing is remembered for it: who was told shows in the stamps that a floor keeps. A request that tells carries a stamp
//! that no message before the new key can have had, the reserve of a crash included.
#![forbid(unsafe_code)]

use super::arrival::millis;
use super::operator;
use super::outcome::{Rules, Step};
use super::plan::{Plan, STAMP_RESERVE_MS};
use super::rejection::Rejection;
use super::view::{Nonce, Outgoing, View};
use crate::peer::NodeId;
use crate::time::{Now, WallMillis};
use crate::wire::text::Text;

/// What a peer knows of our new key, as far as we can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It was asked under the new key.
    Yes,
    /// A request to it is open: each try of that carries the statement.
    Asked,
    /// Not yet.
    No,
    /// It is nobody whom we have to tell.
    Stranger,
}

/// Whether the peer was told of the key that the old one named at `since`.
pub(crate) fn told(rules: &Rules, view: &dyn View, now: Now, since: WallMillis, peer: NodeId) -> Told {
    let is_open = |entry: &Outgoing| entry.refused.as_ref().is_none_or(|refusal| !refusal.authentic);
    if view.outgoing(peer).is_some_and(is_open) {
        return Told::Asked;
    }
    if peer == rules.own_id || view.trusted(peer).is_none() {
        return Told::Stranger;
    }
    let sent = view.floor(peer).map_or(WallMillis::new(0), |floor| floor.sent);
    // what lies further ahead was sent by a clock that was wrong.
    let is_credible = sent.millis_since(now.wall) <= millis(rules.config.future_skew_max) / 3 * 2;
    if sent > behind(since) && is_credible { Told::Yes } else { Told::No }
}

/// Asks a trusted peer, unless it was told or a request to it is open.
pub(super) fn announce(mut plan: Plan<'_>, since: WallMillis, nonce: Nonce) -> Result<Step, Rejection> {
    if told(plan.rules, plan.view, plan.now, since, plan.peer) != Told::No {
        return Err(Rejection::NothingToDo);
    }
    // No further ahead of our clock than a reserve reaches, which receivers accept.
    let latest = plan.now.wall.saturating_add(STAMP_RESERVE_MS.min(millis(plan.rules.config.future_skew_max) / 3));
    plan.floor.sent = plan.floor.sent.max(behind(since).min(latest));
    operator::request(plan, Text::from(WHY), (None, None), nonce, (true, None))
}

/// No message before the new key has a later stamp than this.
fn behind(since: WallMillis) -> WallMillis {
    since.saturating_add(STAMP_RESERVE_MS)
}

/// What the peer's operator reads.
const WHY: &str = "this node has a new key, which its old key has named";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::input::Input;
    use crate::machine::outcome::Outcome;
    use crate::testing::actor::{Actor, Way, at, node, sent};
    use crate::wire::message::Kind;

    fn us() -> Actor {
        asked_at(None)
    }

    /// 7, which trusts 9 and has sent it something at this time.
    fn asked_at(ms: Option<i64>) -> Actor {
        let mut us = Actor::new(7, 0xAA);
        if let Some(ms) = ms {
            us.request(at(ms), node(9), None).unwrap();
            us.tables.outgoing.clear();
        }
        us.trusts(node(9), Some(Actor::new(9, 0x11).public_key()));
        us
    }

    fn announces(us: &mut Actor, ms: i64, since: i64) -> Result<Step, Rejection> {
        let nonce = us.nonce();
        us.step(at(ms), Input::Announce { peer: node(9), since: at(since).wall, nonce })
    }

    fn is_told(us: &Actor, ms: i64, since: i64) -> Told {
        told(&us.rules, &us.tables, at(ms), at(since).wall, node(9))
    }

    /// What stopping in good order, and a load, make of the floors.
    fn restart(us: &mut Actor, in_good_order: bool) {
        if in_good_order {
            us.step(at(0), Input::Stopping).unwrap();
        }
        us.tables.floor.values_mut().for_each(|floor| floor.sent = floor.reserved);
    }

    #[test]
    fn a_trusted_peer_is_asked_once_under_the_new_key_and_a_restart_forgets_it_not() {
        // 1000: the newest stamp that a message before the new key can have left, by a crash.
        for (in_good_order, before) in [(true, None), (false, None), (true, Some(1000)), (false, Some(1000))] {
            let (mut us, mut peer) = (asked_at(before), Actor::new(9, 0x11));
            restart(&mut us, false);
            assert_eq!(is_told(&us, 1001, 1000), Told::No);
            let step = announces(&mut us, 1001, 1000).unwrap();
            let draft = sent(&step).unwrap().clone();
            assert_eq!((draft.kind, matches!(step.outcome, Outcome::Requested { .. })), (Kind::Request, true));
            // Receivers take the stamp: it is no further ahead than a reserve.
            assert!(draft.stamp > at(11_000).wall && draft.stamp <= at(11_002).wall, "{:?}", draft.stamp);
            assert!(peer.hear_from(at(1001), &us, &draft, Way::open()).is_ok());
            assert_eq!(is_told(&us, 1002, 1000), Told::Asked);
            assert_eq!(announces(&mut us, 1002, 1000), Err(Rejection::NothingToDo), "a request is open");
            us.tables.outgoing.clear();
            restart(&mut us, in_good_order);
            assert_eq!(is_told(&us, 1003, 1000), Told::Yes);
            assert_eq!(announces(&mut us, 1003, 1000), Err(Rejection::NothingToDo));
            // And the next new key is told anew.
            assert_eq!(is_told(&us, 40_000, 30_000), Told::No);
            assert!(announces(&mut us, 40_000, 30_000).is_ok());
        }
    }

    #[test]
    fn nobody_else_is_told_and_a_wrong_clock_hides_nobody() {
        let mut us = us();
        us.tables.trusted.clear();
        assert_eq!((is_told(&us, 10, 0), announces(&mut us, 10, 0)), (Told::Stranger, Err(Rejection::NothingToDo)));
        us.trusts(us.id(), None);
        assert_eq!(told(&us.rules, &us.tables, at(10), at(0).wall, us.id()), Told::Stranger, "ourselves");
        // A clock that was a year ahead before the key was replaced.
        let mut us = asked_at(Some(365 * 24 * 60 * 60 * 1000));
        assert_eq!(is_told(&us, 10, 0), Told::No);
        assert!(announces(&mut us, 10, 0).is_ok());
    }
}
