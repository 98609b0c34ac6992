//! The cheap checks of a message, before its signature is verified; [`step`](super::step::step) makes those that
//! depend on time and tables once more, since both may have moved on by then.
//!
//! Order, as in `docs/protocol.md`: [`decode`], then [`check_floor`], then
//! [`verify`](crate::wire::verify::verify), then the registry, then `step`.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::outcome::Rules;
use super::rejection::Rejection;
use super::view::Floor;
use crate::peer::{NodeId, PublicKey};
use crate::time::{Now, WallMillis};
use crate::wire::decode::{self, Decoded};
use crate::wire::message::Message;

/// Rules: type, age, sender, and every field decoded.
///
/// # Errors
/// [`Rejection`]: drop the message, answer nothing.
pub fn decode(rules: &Rules, now: Now, message: Message) -> Result<Decoded, Rejection> {
    if message.kind().is_none() {
        return Err(Rejection::UnknownType);
    }
    check_age(rules, now, message.stamp())?;
    let sender = message.sender().ok_or(Rejection::SenderZero)?;
    check_sender(rules, sender)?;
    Ok(decode::decode(message)?)
}

/// Rule R-15: newer than what was seen from this peer under this key.
///
/// `floor` is the sender's, read just now; no lock need be held. Only an optimisation: `step` decides.
///
/// # Errors
/// [`Rejection::Stale`]: drop the message, answer nothing.
pub fn check_floor(rules: &Rules, now: Now, floor: Option<Floor>, message: &Decoded) -> Result<(), Rejection> {
    check_stamp(rules, now, floor.unwrap_or(Floor::EMPTY), message.key(), message.stamp())
}

pub(super) fn check_sender(rules: &Rules, sender: NodeId) -> Result<(), Rejection> {
    if sender == rules.own_id { Err(Rejection::SenderIsUs) } else { Ok(()) }
}

pub(super) fn check_age(rules: &Rules, now: Now, stamp: WallMillis) -> Result<(), Rejection> {
    let age = now.wall.millis_since(stamp);
    if age > millis(rules.config.message_age_max) {
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

/// No honest clock is further ahead than this.
pub(super) fn latest_credible(rules: &Rules, now: Now) -> WallMillis {
    now.wall.saturating_add(millis(rules.config.future_skew_max))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
