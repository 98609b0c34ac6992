//! The cheap checks of a message, before its signature is verified; [`step`](super::step::step) makes those that
//! depend on time and tables once more, since both may have moved on by then.
//!
//! Order, as in `docs/protocol.md`: [`decode()`], then [`check_floor`], then
//! [`verify`](crate::wire::verify::verify), then the registry, then `step`.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::outcome::Rules;
use super::rejection::Rejection;
use super::view::{Floor, View};
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::time::{Now, WallMillis};
use crate::wire::decode::{self, Decoded};
use crate::wire::message::{Kind, Message};
use crate::wire::open_key::OpenKey;
use crate::wire::verify::Verified;

/// Rules: type, age, sender, and every field decoded. `relayed` says that it came by a relay.
///
/// # Errors
/// [`Rejection`]: drop the message, answer nothing.
pub fn decode(rules: &Rules, now: Now, message: Message, relayed: bool) -> Result<Decoded, Rejection> {
    decode_with(rules, now, message, relayed, |_| None)
}

/// The same; `known` has the open keys that need not be opened again.
///
/// # Errors
/// As [`decode()`].
pub fn decode_with(
    rules: &Rules,
    now: Now,
    message: Message,
    relayed: bool,
    known: impl FnOnce(&[u8; 32]) -> Option<OpenKey>,
) -> Result<Decoded, Rejection> {
    let kind = message.kind().ok_or(Rejection::UnknownType)?;
    check_age(rules, now, message.stamp(), relayed)?;
    let sender = message.sender().ok_or(Rejection::SenderZero)?;
    check_sender(rules, sender)?;
    check_form(rules, kind, message.is_version_1(), relayed)?;
    Ok(decode::decode_with(message, known)?)
}

/// Rule R-15: newer than what was seen from this peer under this key.
///
/// `floor` is the sender's, read just now; no lock need be held. Only an optimisation: `step` decides.
///
/// # Errors
/// [`Rejection::Stale`], or [`Rejection::Downgrade`]: drop the message, answer nothing.
pub fn check_floor(rules: &Rules, now: Now, floor: Option<Floor>, message: &Decoded) -> Result<(), Rejection> {
    let floor = floor.unwrap_or(Floor::EMPTY);
    if message.is_version_1() {
        check_downgrade(floor)
    } else {
        check_stamp(rules, now, floor, message.key(), message.stamp())
    }
}

/// Whether we hold this key for this peer, because somebody has vouched for it or our caller named it: it is worth keeping
/// open, and who shows it has a share of look-ups that strangers do not have.
#[must_use]
pub fn is_held(view: &dyn View, peer: NodeId, key: &PublicKey) -> bool {
    view.trusted(peer).is_some_and(|record| record.public_key == Some(*key))
        || view.floor(peer).is_some_and(|floor| floor.key == Some(*key))
        || view.outgoing(peer).is_some_and(|outgoing| outgoing.expected_key == Some(*key))
}

/// whether an operator ignores the sender or its key. Trust stands above that: a trusted peer is heard under its key.
///
/// # Errors
/// [`Rejection::Ignored`]: drop the message, answer nothing.
pub fn check_ignored(view: &dyn View, peer: NodeId, key: &PublicKey) -> Result<(), Rejection> {
    let (ignores_peer, ignores_key) = (view.ignored(peer).is_some(), view.ignored_key(key).is_some());
    if !ignores_peer && !ignores_key {
        return Ok(());
    }
    let is_heard = view.trusted(peer).is_some_and(|record| match record.public_key {
        Some(bound) => bound == *key,
        None => !ignores_key,
    });
    if is_heard { Ok(()) } else { Err(Rejection::Ignored) }
}

///
pub(super) fn check_downgrade(floor: Floor) -> Result<(), Rejection> {
    if floor.spoke_v2 { Err(Rejection::Downgrade) } else { Ok(()) }
}

/// whether a message of this version may come at all, and this way.
pub(super) fn check_form(rules: &Rules, kind: Kind, is_version_1: bool, relayed: bool) -> Result<(), Rejection> {
    if is_version_1 && !rules.policy.accept_v1 {
        return Err(Rejection::Version1);
    }
    let may_be_relayed = if is_version_1 { kind == Kind::Request } else { kind.may_be_relayed() };
    if relayed && !may_be_relayed { Err(Rejection::NotRelayable) } else { Ok(()) }
}

pub(super) fn check_sender(rules: &Rules, sender: NodeId) -> Result<(), Rejection> {
    if sender == rules.own_id { Err(Rejection::SenderIsUs) } else { Ok(()) }
}

pub(super) fn check_age(rules: &Rules, now: Now, stamp: WallMillis, relayed: bool) -> Result<(), Rejection> {
    let age = now.wall.millis_since(stamp);
    let age_max = if relayed { rules.config.entry_lifetime } else { rules.config.message_age_max };
    if age > millis(age_max) {
        Err(Rejection::TooOld)
    } else if age < -millis(rules.config.future_skew_max) {
        Err(Rejection::FromFuture)
    } else {
        Ok(())
    }
}

pub(super) fn check_stamp(
    rules: &Rules,
    now: Now,
    floor: Floor,
    key: &PublicKey,
    stamp: WallMillis,
) -> Result<(), Rejection> {
    // A floor too far ahead says that some clock was wrong once; `step` moves it back when it sees it.
    let credible = floor.seen <= latest_credible(rules, now);
    if floor.key.as_ref() == Some(key) && credible && stamp <= floor.seen { Err(Rejection::Stale) } else { Ok(()) }
}

/// a message under the key of a trusted record that is as old as the trust, or older.
///
/// A stored floor under that key is newer knowledge, but for a revocation: nothing that was said before trust was given
/// takes it back.
pub(super) fn check_trust_age(
    rules: &Rules,
    now: Now,
    trusted: Option<&TrustRecord>,
    floor: Floor,
    message: &Verified,
) -> Result<(), Rejection> {
    let key = Some(*message.key());
    let Some(record) = trusted.filter(|record| record.public_key == key) else { return Ok(()) };
    let (has_floor, is_revoke) = (floor.key == key, message.kind() == Kind::Revoke);
    let counts = match (age_is_known(record), has_floor) {
        (true, false) => true,
        (true, true) => is_revoke,
        (false, has_floor) => is_revoke && !has_floor,
    };
    let is_older = message.stamp() <= trusted_since(rules, now, record);
    if counts && is_older { Err(Rejection::Stale) } else { Ok(()) }
}

/// a revocation from before this life of the node. Trust that was imported, or given by a program, while the node was
/// down is younger than that.
///
/// # Errors
/// [`Rejection::Stale`]: drop the message, answer nothing.
pub fn check_life(rules: &Rules, now: Now, began: WallMillis, message: &Decoded) -> Result<(), Rejection> {
    let too_old = began.min(now.wall).saturating_add(-millis(rules.config.future_skew_max));
    let counts = message.kind() == Kind::Revoke && !message.is_version_1();
    if counts && message.stamp() <= too_old { Err(Rejection::Stale) } else { Ok(()) }
}

/// The newest stamp that is too old to count under the key of this record: when it was granted, less the skew of clocks. A
/// time from the future counts as now, and so does one that is not known.
pub(super) fn trusted_since(rules: &Rules, now: Now, record: &TrustRecord) -> WallMillis {
    let since = if age_is_known(record) { record.approved_at.min(now.wall) } else { now.wall };
    since.saturating_add(-millis(rules.config.future_skew_max))
}

fn age_is_known(record: &TrustRecord) -> bool {
    record.approved_at != WallMillis::default()
}

/// No honest clock is further ahead than this.
pub(super) fn latest_credible(rules: &Rules, now: Now) -> WallMillis {
    now.wall.saturating_add(millis(rules.config.future_skew_max))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::actor::{Actor, Way, at, node};
    use crate::wire::message::Kind;

    #[test]
    fn a_message_may_be_five_minutes_old_and_thirty_seconds_early() {
        let mut sender = Actor::new(7, 0xAA);
        let receiver = Actor::new(9, 0x11).rules;
        let draft = sender.draft(at(0), node(9), Kind::Request, None);
        let heard = |ms| decode(&receiver, at(ms), sender.sign(&draft), false).map(|_| ());
        assert_eq!(heard(300_000), Ok(()));
        assert_eq!(heard(300_001), Err(Rejection::TooOld));
        assert_eq!(heard(-30_000), Ok(()));
        assert_eq!(heard(-30_001), Err(Rejection::FromFuture));
    }

    #[test]
    fn a_key_is_held_for_the_peer_that_it_was_vouched_for_and_for_no_other() {
        let (mut us, mut peer, other) = (Actor::new(9, 0x11), Actor::new(7, 0xAA), Actor::new(8, 0x22));
        let held = |us: &Actor, peer: &Actor, key: &Actor| is_held(&us.tables, peer.id(), &key.public_key());
        // A request that nobody vouches for waits, and gives its key no place.
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &peer, &request, Way::open()).unwrap();
        assert!(!us.tables.pending.is_empty() && !held(&us, &peer, &peer));
        us.approve_shown(at(0), peer.id()).unwrap();
        assert!(held(&us, &peer, &peer) && !held(&us, &other, &peer) && !held(&us, &peer, &other));
        // The floor remembers a key longer than the record.
        let request = peer.draft(at(1), us.id(), Kind::Request, None);
        us.hear_from(at(1), &peer, &request, Way::open()).unwrap();
        us.revoke(at(2), peer.id()).unwrap();
        assert!(us.tables.trusted.is_empty() && held(&us, &peer, &peer) && !held(&us, &peer, &other));
    }

    #[test]
    fn stamps_at_the_ends_of_time_are_refused_without_overflow() {
        let mut sender = Actor::new(7, 0xAA);
        let receiver = Actor::new(9, 0x11).rules;
        for (stamp, wall, why) in [
            (i64::MIN, i64::MAX, Rejection::TooOld),
            (i64::MIN, 0, Rejection::TooOld),
            (i64::MAX, 0, Rejection::FromFuture),
            (i64::MAX, i64::MIN, Rejection::FromFuture),
        ] {
            let mut draft = sender.draft(at(0), node(9), Kind::Request, None);
            draft.stamp = WallMillis::new(stamp);
            let now = Now { wall: WallMillis::new(wall), ..at(0) };
            assert_eq!(decode(&receiver, now, sender.sign(&draft), false), Err(why), "{stamp} at {wall}");
        }
    }

    #[test]
    fn the_first_reason_in_the_order_of_the_checks_is_the_one_that_counts() {
        let mut sender = Actor::new(7, 0xAA);
        let draft = sender.draft(at(0), node(9), Kind::Request, None);
        let mut message = sender.sign(&draft);
        message.kind = "hello".into();
        message.node_id = 0;
        message.public_key = String::new();
        let rules = Actor::new(9, 0x11).rules;
        let late = at(400_000);
        assert_eq!(decode(&rules, late, message.clone(), false), Err(Rejection::UnknownType));
        message.kind = Kind::Request.as_wire().into();
        assert_eq!(decode(&rules, late, message.clone(), false), Err(Rejection::TooOld));
        assert_eq!(decode(&rules, at(0), message.clone(), false), Err(Rejection::SenderZero));
        message.node_id = 9;
        assert_eq!(decode(&rules, at(0), message.clone(), false), Err(Rejection::SenderIsUs));
        message.node_id = 7;
        assert_eq!(
            decode(&rules, at(0), message, false).map(|_| ()).map_err(|rejection| rejection.name()),
            Err("bad_key")
        );
    }

    #[test]
    fn a_revocation_from_before_this_life_is_stale_and_a_younger_one_is_not() {
        let (us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let mut life = |kind, stamp: i64| {
            let draft = peer.draft(at(stamp), us.id(), kind, None);
            let decoded = decode(&us.rules, at(60_000), peer.sign(&draft), false).unwrap();
            check_life(&us.rules, at(60_000), at(50_000).wall, &decoded)
        };
        assert_eq!(life(Kind::Revoke, 20_000), Err(Rejection::Stale));
        assert_eq!(life(Kind::Revoke, 20_001), Ok(()));
        // Nothing else ends trust.
        assert_eq!(life(Kind::Request, 20_000), Ok(()));
    }
}
