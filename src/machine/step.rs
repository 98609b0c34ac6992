//! The only place where the rules are asked: one input, one consistent view, one answer.
//!
//! `step` runs in the critical section that publishes what it asks for, so of two threads with the same message exactly
//! one moves the floor, and the other finds the message stale.
#![forbid(unsafe_code)]

use super::arrival::{check_age, check_form, check_ignored, check_sender, check_stamp, check_trust_age, trusted_since};
use super::contradiction::{is_contradicted, notice_other_key};
use super::event::ChangeReason;
use super::input::{Input, Lookup, Received};
use super::outcome::{Rules, Step};
use super::plan::Plan;
use super::rejection::Rejection;
use super::view::View;
use super::{
    accept, announce, deliver, housekeeping, key, operator, own_entries, reject, request, revoke, rotation, version_1,
};
use crate::time::Now;
use crate::wire::message::Kind;

/// What the rules say about one input.
///
/// Pure: reads `view`, changes nothing; the same arguments give the same answer.
///
/// # Errors
/// [`Rejection`]: nothing is to be changed, done or told; count it, or hand it to the operator who asked.
///
/// # Complexity
/// A message or command costs a few look-ups; a full pending or outgoing table is scanned once to make room.
/// Housekeeping scans pending and outgoing, and the floors when they are at their limit.
///
/// # Panics
/// Never.
///
/// # Source
/// `docs/protocol.md`.
pub fn step(rules: &Rules, view: &dyn View, now: Now, input: Input) -> Result<Step, Rejection> {
    match input {
        Input::Message(received) => receive(rules, view, now, &received),
        Input::Operator(command) => operator::decide(rules, view, now, command),
        Input::LookedUp { peer, lookup } => key::back_fill(rules, view, now, peer, &lookup),
        Input::OwnEntries => own_entries::forget(rules, view, now),
        Input::Compared { peer, was, found } => key::compared(rules, view, now, peer, was, found),
        Input::Disagreement { compared, contradicted } => Ok(key::disagreement(compared, contradicted)),
        Input::Relaying { peer, nonce } => operator::relaying(Plan::new(rules, view, now, peer), nonce),
        Input::Stopping => Ok(housekeeping::settle_reserves(view)),
        Input::Retry { peer, what, nonce } => deliver::retry(Plan::new(rules, view, now, peer), what, nonce),
        Input::Announce { peer, since, nonce } => announce::announce(Plan::new(rules, view, now, peer), since, nonce),
        Input::Delivered { peer, kind, stamp } => deliver::delivered(Plan::new(rules, view, now, peer), kind, stamp),
        Input::Undelivered { draft } => deliver::undelivered(Plan::new(rules, view, now, draft.to), draft),
        Input::Housekeeping => Ok(housekeeping::sweep(rules, view, now)),
    }
}

/// Who, besides the sender itself, says that the key in a message is the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody.
    Unvouched,
    /// The transport, the trusted record, or the caller who made our request.
    Authentic,
    /// The registry.
    Bound,
}

impl Standing {
    pub(super) const fn is_authentic(self) -> bool {
        matches!(self, Self::Authentic | Self::Bound)
    }
}

fn receive(rules: &Rules, view: &dyn View, now: Now, received: &Received) -> Result<Step, Rejection> {
    let message = &received.message;
    if message.receiver() != rules.own_id {
        return Err(Rejection::WrongReceiver);
    }
    let relayed = received.path.is_relayed();
    check_age(rules, now, message.stamp(), relayed)?;
    check_sender(rules, message.sender())?;
    check_form(rules, message.kind(), message.is_version_1(), relayed)?;
    check_ignored(view, message.sender(), message.key())?;
    let plan = Plan::new(rules, view, now, message.sender());
    match message.replay_key() {
        None => receive_version_2(plan, received),
        Some(key) => version_1::receive(plan, received, key),
    }
}

fn receive_version_2(mut plan: Plan<'_>, received: &Received) -> Result<Step, Rejection> {
    let (message, rules, now) = (&received.message, plan.rules, plan.now);
    if plan.floor.key == Some(*message.key()) && plan.clamp_seen() {
        return plan.drop_message(Rejection::FloorClamped);
    }
    check_stamp(rules, now, plan.floor, message.key(), message.stamp())?;
    check_trust_age(rules, now, plan.trusted.as_ref(), plan.floor, message)?;
    // whatever else is wrong with the message.
    rotation::look(&mut plan, received);
    //
    if plan.has_replaced(message.key()) {
        notice_other_key(&mut plan, received);
        return plan.drop_message(Rejection::KeyReplaced);
    }
    if is_contradicted(&mut plan, received) {
        return plan.drop_message(Rejection::KeyMismatch);
    }
    let standing = standing(&plan, received);
    let (key, mut stamp) = (*message.key(), message.stamp());
    plan.is_doubtful = plan.is_below_former_floor(key, stamp);
    if standing.is_authentic() {
        // What a record's age keeps out stays out when the record gets a floor of its own.
        if let Some(record) = plan.trusted.filter(|it| it.public_key == Some(key) && plan.floor.key != Some(key)) {
            stamp = stamp.max(trusted_since(rules, now, &record));
        }
        plan.raise_floor(key, stamp);
    }
    if let Some(rejection) = rotation::heed(&mut plan, received, standing) {
        return plan.drop_message(rejection);
    }
    // whoever vouches for its key, nobody vouches for its time.
    let standing = if plan.is_doubtful { Standing::Unvouched } else { standing };
    dispatch(plan, received, standing)
}

/// What is left when nothing more can be wrong with a message.
pub(super) fn dispatch(mut plan: Plan<'_>, received: &Received, standing: Standing) -> Result<Step, Rejection> {
    // a record that the search for those under a revoked key has not come to yet.
    let key = received.message.key();
    let is_under_it = plan.trusted.is_some_and(|record| record.public_key == Some(*key));
    if is_under_it && plan.view.revoked_key(key).is_some() {
        plan.lose_trust(ChangeReason::KeyRevoked);
    }
    notice_other_key(&mut plan, received);
    revoke::farewell_again(&mut plan, received, standing);
    //
    if plan.is_doubtful && matches!(received.message.kind(), Kind::Reject | Kind::Revoke) {
        return plan.drop_message(Rejection::BelowFormerFloor);
    }
    match received.message.kind() {
        Kind::Request => request::decide(plan, received, standing),
        Kind::Accept => accept::decide(plan, received, standing),
        Kind::Reject => reject::decide(plan, received, standing),
        Kind::Revoke => revoke::decide(plan, standing),
    }
}

/// Rule R-18. The registry does not contradict the message.
pub(super) fn standing(plan: &Plan<'_>, received: &Received) -> Standing {
    let (message, key) = (&received.message, received.message.key());
    let by_transport = received.path.authenticates(message.sender());
    // what is not signed is vouched for by nobody but who saw it come from the sender.
    if message.is_version_1() && !by_transport {
        return Standing::Unvouched;
    }
    //
    if plan.is_kept_out(key) {
        return Standing::Unvouched;
    }
    if matches!(&received.lookup, Lookup::Found { key: known, .. } if known == key) {
        return Standing::Bound;
    }
    // the old key's word weighs no more than the registry's. The operator decides, whatever the transport says.
    if !plan.is_of_record(key) && is_registry_behind(plan, received) {
        return Standing::Unvouched;
    }
    let by_record = plan.is_of_record(key) && plan.view.revoked_key(key).is_none();
    // a registry that could not be asked might contradict our caller. A reject trusts nobody.
    let caller_suffices = match message.kind() {
        Kind::Accept => received.lookup != Lookup::Failed,
        Kind::Reject => true,
        Kind::Request | Kind::Revoke => false,
    };
    let by_caller = caller_suffices
        && plan
            .asked()
            .is_some_and(|outgoing| outgoing.expected_key == Some(*key) && message.answers() == Some(outgoing.nonce))
        && !plan.is_barred(key);
    if by_transport || by_record || by_caller { Standing::Authentic } else { Standing::Unvouched }
}

/// whether the registry names a key that was replaced, or named a successor that the message is from.
pub(super) fn is_registry_behind(plan: &Plan<'_>, received: &Received) -> bool {
    matches!(&received.lookup, Lookup::Found { key: known, .. } if plan.is_behind(known, received.message.key()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::input::{Command, Path};
    use crate::machine::outcome::Outcome;
    use crate::machine::replay::Seen;
    use crate::peer::PublicKey;
    use crate::testing::actor::{Actor, Way, at, dropped, node, sent};
    use crate::wire::message::Message;
    use crate::wire::open_key::OpenKey;
    use crate::wire::text::LOOKED_AT_BYTES_MAX;
    use crate::wire::text::tests::looked_at;
    use crate::wire::verify::{Verified, verify};

    fn two() -> (Actor, Actor) {
        (Actor::new(7, 0xAA), Actor::new(9, 0x11))
    }

    #[test]
    fn of_two_threads_with_the_same_message_exactly_one_wins() {
        let (mut us, mut peer) = two();
        us.trusts(peer.id(), Some(peer.public_key()));
        let revoke = peer.draft(at(0), us.id(), Kind::Revoke, None);
        let bytes = peer.sign(&revoke).to_json();
        // Both have passed every check before either has stepped.
        let received = || {
            let decoded =
                crate::machine::arrival::decode(&us.rules, at(0), Message::parse(&bytes).unwrap(), false).unwrap();
            let Way { path, lookup } = Way::open();
            let nonce = crate::machine::view::Nonce([1; 16]);
            Received { message: verify(decoded, node(7)).unwrap(), path, lookup, nonce, seen: Seen::Never }
        };
        let (one, two) = (received(), received());
        assert!(us.step(at(0), Input::Message(one)).is_ok());
        assert_eq!(us.step(at(0), Input::Message(two)), Err(Rejection::Stale));
    }

    #[test]
    fn a_key_that_the_registry_contradicts_is_refused_whoever_else_vouches() {
        let (mut us, mut peer) = two();
        us.trusts(peer.id(), Some(peer.public_key()));
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        let way = Way { path: Way::tunnel(peer.id()).path, ..Way::registered(Actor::new(1, 0x22).public_key()) };
        assert_eq!(dropped(&us.hear_from(at(0), &peer, &request, way)), Some(Rejection::KeyMismatch));
        us.trusts(peer.id(), Some(peer.public_key()));
        assert!(us.hear_from(at(0), &peer, &request, Way::registered(peer.public_key())).is_ok());
    }

    #[test]
    fn a_registry_that_does_not_answer_vouches_for_nobody_and_stops_nobody() {
        for lookup in [Lookup::Unknown, Lookup::Failed, Lookup::NotAsked] {
            let (mut us, mut peer) = two();
            let request = peer.draft(at(0), us.id(), Kind::Request, None);
            us.hear_from(at(0), &peer, &request, Way { lookup, ..Way::open() }).unwrap();
            assert!(!us.tables.pending[&peer.id()].authentic);
        }
        let (mut us, mut peer) = two();
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &peer, &request, Way::registered(peer.public_key())).unwrap();
        assert!(us.tables.pending[&peer.id()].authentic);
    }

    #[test]
    fn the_key_of_a_pending_entry_vouches_for_nothing() {
        let (mut us, mut peer) = two();
        for ms in [0, 1] {
            let request = peer.draft(at(ms), us.id(), Kind::Request, None);
            us.hear_from(at(ms), &peer, &request, Way::open()).unwrap();
        }
        assert!(!us.tables.pending[&peer.id()].authentic);
        let revoke = peer.draft(at(2), us.id(), Kind::Revoke, None);
        assert_eq!(us.hear_from(at(2), &peer, &revoke, Way::open()), Err(Rejection::NotAuthentic));
    }

    #[test]
    fn a_tunnel_vouches_for_the_node_at_its_end_only() {
        let (mut us, mut peer) = two();
        us.trusts(peer.id(), Some(Actor::new(1, 0x22).public_key()));
        let revoke = peer.draft(at(0), us.id(), Kind::Revoke, None);
        let answer = us.hear_from(at(0), &peer, &revoke, Way::tunnel(node(8)));
        assert_eq!(dropped(&answer), Some(Rejection::NotAuthentic));
        assert!(us.hear_from(at(0), &peer, &revoke, Way::tunnel(peer.id())).is_ok());
    }

    #[test]
    fn only_messages_that_somebody_vouches_for_move_the_floor() {
        let (mut us, mut peer) = two();
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &peer, &request, Way::open()).unwrap();
        assert!(us.tables.floor.is_empty());
        let request = peer.draft(at(1), us.id(), Kind::Request, None);
        us.hear_from(at(1), &peer, &request, Way::registered(peer.public_key())).unwrap();
        let floor = us.tables.floor[&peer.id()];
        assert_eq!((floor.key, floor.seen, floor.spoke_v2), (Some(peer.public_key()), at(1).wall, true));
    }

    #[test]
    fn a_dropped_message_that_somebody_vouches_for_still_moves_the_floor() {
        let (mut us, mut peer) = two();
        let accept = peer.draft(at(5), us.id(), Kind::Accept, Some(crate::machine::view::Nonce([3; 16])));
        let way = Way::registered(peer.public_key());
        let step = us.hear_from(at(5), &peer, &accept, way.clone()).unwrap();
        assert_eq!(step.outcome, crate::machine::outcome::Outcome::Dropped(Rejection::NotAsked));
        assert_eq!(us.hear_from(at(6), &peer, &accept, way), Err(Rejection::Stale));
    }

    #[test]
    fn what_was_verified_for_another_receiver_is_not_ours() {
        let (us, mut peer) = two();
        let mut other = Actor::new(8, 0x33);
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        let decoded = crate::wire::decode::decode(peer.sign(&request)).unwrap();
        let message = verify(decoded, us.id()).unwrap();
        // The same for what a relay brings, though `verify` would have refused it there.
        for Way { path, lookup } in [Way::open(), Way::relayed(node(3)), Way::tunnel(peer.id())] {
            let (message, nonce) = (message.clone(), other.nonce());
            let received = Received { message, path, lookup, nonce, seen: Seen::Never };
            assert_eq!(other.step(at(0), Input::Message(received)), Err(Rejection::WrongReceiver));
        }
    }

    /// Keys that differ from this one in a single byte, one for each place.
    fn twins(key: &PublicKey) -> Vec<PublicKey> {
        let twin = |place: usize| {
            let others = (1..=255_u8).map(|by| {
                let mut bytes = *key.as_bytes();
                bytes[place] ^= by;
                bytes
            });
            others.into_iter().find_map(|bytes| OpenKey::new(bytes).ok()).map(|twin| *twin.key()).unwrap()
        };
        (0..32).map(twin).collect()
    }

    #[test]
    fn a_key_that_differs_in_one_byte_is_another_key() {
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        let (_, mut peer) = two();
        let key = peer.public_key();
        // What `kind` under `shown` comes to, if everything that is known of the peer names `key`.
        let mut comes = |kind, shown: &PublicKey, path: Path, lookup: Lookup, known: fn(&mut Actor, PublicKey)| {
            let (mut us, _) = two();
            known(&mut us, key);
            let answers = us.tables.outgoing.get(&peer.id()).map(|outgoing| outgoing.nonce);
            let draft = peer.draft(at(10), us.id(), kind, answers);
            let mut message = peer.sign(&draft);
            message.public_key = BASE64_STANDARD.encode(shown.as_bytes());
            let message = Verified::believed(crate::wire::decode::decode(message).unwrap(), us.id());
            let nonce = us.nonce();
            us.step(at(20), Input::Message(Received { message, path, lookup, nonce, seen: Seen::Never }))
        };
        let open = Way::open().path;
        let trusted: fn(&mut Actor, PublicKey) = |us, key| {
            us.trusts(node(9), Some(key));
        };
        let expected: fn(&mut Actor, PublicKey) = |us, key| drop(us.request(at(0), node(9), Some(key)).unwrap());
        let registered = || Lookup::Found { key, networks: Vec::new() };
        for twin in twins(&key) {
            let revoked = comes(Kind::Revoke, &twin, open, Lookup::NotAsked, trusted);
            assert_eq!(dropped(&revoked), Some(Rejection::NotAuthentic), "{twin:?}");
            let rejected = comes(Kind::Reject, &twin, open, Lookup::NotAsked, expected);
            assert_eq!(dropped(&rejected), Some(Rejection::NotAuthentic));
            let asked = comes(Kind::Request, &twin, open, registered(), trusted);
            assert_eq!(dropped(&asked), Some(Rejection::KeyMismatch));
            let queued = comes(Kind::Accept, &twin, open, Lookup::NotAsked, expected).unwrap();
            assert_eq!(queued.outcome, Outcome::Queued);
        }
        assert!(comes(Kind::Revoke, &key, open, Lookup::NotAsked, trusted).is_ok());
        assert!(comes(Kind::Reject, &key, open, Lookup::NotAsked, expected).is_ok());
        let accepted = comes(Kind::Accept, &key, open, Lookup::NotAsked, expected).unwrap();
        assert!(matches!(accepted.outcome, Outcome::Trusted(_)));
        let confirmed = comes(Kind::Request, &key, open, registered(), trusted).unwrap();
        assert!(matches!(confirmed.outcome, Outcome::Confirmed(_)));
    }

    #[test]
    fn a_step_looks_at_no_text_however_long_it_was() {
        // 60 KB that a filter drops, and as much that it keeps.
        for text in ["\u{378}".repeat(30_000), "\u{200b}".repeat(20_000), "x".repeat(60_000)] {
            for kind in [Kind::Request, Kind::Accept, Kind::Reject, Kind::Revoke] {
                let (mut us, mut peer) = two();
                let ask = Command::Request {
                    peer: peer.id(),
                    justification: text.as_str().into(),
                    expected_key: None,
                    registered: None,
                    nonce: us.nonce(),
                    force: false,
                    automatic: false,
                    lift: None,
                };
                let before = looked_at();
                let asked = step(&us.rules, &us.tables, at(0), Input::Operator(ask)).unwrap();
                us.tables.apply(&asked.changes);
                let mut draft = peer.draft(at(0), us.id(), kind, Some(sent(&asked).unwrap().nonce));
                (draft.justification, draft.reason) = (text.clone(), text.clone());
                let decoded = crate::wire::decode::decode(peer.sign(&draft)).unwrap();
                assert_eq!(looked_at(), before, "{kind:?}: the operator's text was filtered before");

                let message = verify(decoded, us.id()).unwrap();
                assert!(message.justification().len() <= 1024 && message.reason().len() <= 1024);
                let filtered = looked_at() - before;
                assert!(filtered > 0 && filtered <= 2 * LOOKED_AT_BYTES_MAX, "{kind:?}: {filtered} bytes");
                let (Way { path, lookup }, nonce) = (Way::registered(peer.public_key()), us.nonce());
                let input = Input::Message(Received { message, path, lookup, nonce, seen: Seen::Never });
                step(&us.rules, &us.tables, at(0), input).unwrap();
                assert_eq!(looked_at() - before, filtered, "{kind:?}: filtered under the lock");
            }
        }
    }

    #[test]
    fn a_message_that_grew_too_old_during_the_look_up_is_dropped() {
        let (mut us, mut peer) = two();
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        let decoded = crate::wire::decode::decode(peer.sign(&request)).unwrap();
        let Way { path, lookup } = Way::open();
        let (message, nonce) = (verify(decoded, us.id()).unwrap(), us.nonce());
        let input = Input::Message(Received { message, path, lookup, nonce, seen: Seen::Never });
        assert_eq!(us.step(at(300_001), input.clone()), Err(Rejection::TooOld));
        assert!(us.step(at(300_000), input).is_ok());
    }

    #[test]
    fn a_relayed_message_that_grew_too_old_during_the_look_up_is_dropped() {
        let (mut us, mut peer) = two();
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        let decoded = crate::wire::decode::decode(peer.sign(&request)).unwrap();
        let Way { path, lookup } = Way::relayed(node(3));
        let (message, nonce) = (verify(decoded, us.id()).unwrap(), us.nonce());
        let input = Input::Message(Received { message, path, lookup, nonce, seen: Seen::Never });
        let lifetime = 30 * 24 * 60 * 60 * 1000;
        assert_eq!(us.step(at(lifetime + 1), input.clone()), Err(Rejection::TooOld));
        assert_eq!(us.step(at(-30_001), input.clone()), Err(Rejection::FromFuture));
        assert!(us.step(at(lifetime), input).is_ok());
    }
}
