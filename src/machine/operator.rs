//! What an operator's commands come to: rules. A command that finds nothing to do says so and changes
//! nothing.
#![forbid(unsafe_code)]

use super::answer::{forget_answer, without_answer};
use super::approve;
use super::effect::{Action, Draft, When};
use super::event::{ChangeReason, Event};
use super::input::Command;
use super::outcome::{Outcome, Rules, Step};
use super::plan::Plan;
use super::refused;
use super::rejection::Rejection;
use super::view::{Nonce, Outgoing, Pending, Revocation, RevocationId, TableChange, View, Void};
use super::{key, marks};
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::tables::succession;
use crate::time::Now;
use crate::wire::message::Kind;
use crate::wire::text::Text;

pub(super) fn decide(rules: &Rules, view: &dyn View, now: Now, command: Command) -> Result<Step, Rejection> {
    let plan = |peer: NodeId| {
        if peer == rules.own_id { Err(Rejection::PeerIsUs) } else { Ok(Plan::new(rules, view, now, peer)) }
    };
    match command {
        Command::Request { peer, justification, expected_key, registered, nonce, force, automatic, lift } => {
            let plan = plan(peer)?;
            if plan.trusted.is_some() && !force {
                return Err(Rejection::AlreadyTrusted);
            }
            if plan.revoked.is_some() && automatic {
                return Err(Rejection::RevokedNeedsOperator);
            }
            request(plan, justification, (expected_key, registered), nonce, (automatic, lift))
        }
        Command::Approve { peer, fingerprint, entry, nonce, lookup, lift } => {
            approve::approve(plan(peer)?, fingerprint, entry, nonce, &lookup, lift)
        }
        Command::Reject { peer, reason, nonce, named } => refused::reject(plan(peer)?, reason, nonce, named),
        Command::Cancel { peer } => cancel(plan(peer)?),
        Command::Revoke { peer, nonce } => Ok(revoke(plan(peer)?, nonce)),
        Command::Remove { peer } => marks::remove(plan(peer)?),
        Command::Grant { record, lift } => grant(plan(record.node_id)?, record, lift),
        Command::AdoptKey { peer, key } => key::adopt(plan(peer)?, key),
        Command::ReportKeyChange { peer, key } => key::change(plan(peer)?, key),
        Command::EndUnderKey { peer, key, nonce } => marks::end_under_key(plan(peer)?, key, nonce),
        Command::RevokeKey { key, nonce } => marks::revoke_key(rules, view, now, key, nonce),
        Command::ForgetRevocation { of } => marks::forget(view, of),
        Command::Ignore { of } => marks::ignore(rules, view, now, of),
        Command::Unignore { of } => marks::unignore(view, of),
    }
}

///
pub(super) fn request(
    mut plan: Plan<'_>,
    justification: Text,
    (named, registered): (Option<PublicKey>, Option<PublicKey>),
    nonce: Nonce,
    (automatic, lift): (bool, Option<RevocationId>),
) -> Result<Step, Rejection> {
    // A key that was named once stays named until the request is cancelled or another key is named.
    let named = named.or(plan.asked().and_then(|outgoing| outgoing.expected_key));
    // the registry is asked where nobody has named one.
    let expected_key = named.or(registered);
    let differs = named.zip(registered).filter(|(named, registered)| named != registered);
    let marks = plan.marks(expected_key.as_ref());
    if let Some(marked) = marks.not_lifted_by(lift) {
        return Err(marked.into());
    }
    // Nothing automatic lifts the mark of a key either.
    if automatic && marks.is_any() {
        return Err(Rejection::RevokedNeedsOperator);
    }
    // under that key nothing is heard, but of a peer that is trusted under it.
    let ignores_key = expected_key.is_some_and(|key| plan.view.ignored_key(&key).is_some() && !plan.is_of_record(&key));
    let ignores_peer = plan.trusted.is_none() && plan.view.ignored(plan.peer).is_some();
    if ignores_key || ignores_peer {
        return Err(Rejection::IgnoredNotAsked);
    }
    if plan.outgoing.is_none() {
        forget_oldest(&mut plan);
    }
    // an answer to the old nonce answers nothing any more.
    forget_answer(&mut plan);
    let justification = justification.into_string();
    plan.outgoing = Some(Outgoing {
        sent_at: plan.now.wall,
        sent_tick: plan.now.tick,
        nonce,
        expected_key,
        justification: justification.clone(),
        // The mark stands until trust is really given. INVARIANT I-3.
        lift: lift.filter(|_| marks.is_any()),
        relayed: false,
        refused: None,
    });
    let draft = plan.draft(Kind::Request, nonce);
    let stamp = draft.stamp;
    plan.act(When::Now, Action::Send(Draft { justification, ..draft }));
    Ok(plan.finish(Outcome::Requested {
        nonce,
        stamp,
        differs: differs.map(|(named, it)| [named.fingerprint(), it.fingerprint()]),
    }))
}

/// Refused if it is no longer our newest request, or if the peer has refused it: then it is given to no relay.
pub(super) fn relaying(mut plan: Plan<'_>, nonce: Nonce) -> Result<Step, Rejection> {
    if plan.asked().is_none() {
        return Err(Rejection::NothingToDo);
    }
    let outgoing = plan.outgoing.as_mut().filter(|outgoing| outgoing.nonce == nonce).ok_or(Rejection::NothingToDo)?;
    outgoing.relayed = true;
    Ok(plan.finish(Outcome::Relaying))
}

/// Our own requests never fail for want of room: those that were refused go, then the oldest.
fn forget_oldest(plan: &mut Plan<'_>) {
    let too_many = (plan.view.outgoing_len() + 1).saturating_sub(plan.rules.limits.outgoing_max);
    if too_many > 0 {
        let mut by_age: Vec<_> =
            plan.view.outgoing_iter().map(|(peer, entry)| (is_open(entry), entry.sent_tick, peer)).collect();
        by_age.sort_unstable();
        for (.., peer) in by_age.into_iter().take(too_many) {
            plan.others.push(TableChange::Outgoing(peer, None));
            plan.others.extend(without_answer(plan.view, peer));
        }
    }
}

fn is_open(entry: &Outgoing) -> bool {
    entry.refused.as_ref().is_none_or(|refusal| !refusal.authentic)
}

///
fn grant(mut plan: Plan<'_>, record: TrustRecord, lift: Option<RevocationId>) -> Result<Step, Rejection> {
    if plan.trusted == Some(record) {
        return Err(Rejection::AlreadyTrusted);
    }
    plan.grant(record, ChangeReason::Direct, lift)?;
    plan.restart_floor(record.public_key);
    plan.begin_trust(record);
    Ok(plan.finish(Outcome::Granted(record)))
}

///
fn cancel(mut plan: Plan<'_>) -> Result<Step, Rejection> {
    plan.outgoing.take().ok_or(Rejection::NothingToDo)?;
    forget_answer(&mut plan);
    Ok(plan.finish(Outcome::Cancelled))
}

/// INVARIANT I-3.
fn revoke(mut plan: Plan<'_>, nonce: Nonce) -> Step {
    let (waiting, asked) = (plan.pending.take(), plan.outgoing.take().is_some());
    let waited = waiting.is_some();
    //
    refused::remember(&mut plan, waiting.iter().flat_map(Pending::keys));
    let (marked, peer) = (plan.revoked, plan.peer);
    //
    succession::make_void(&mut plan.successors, Void::Revoked, |_| true);
    let fresh = Revocation::new(plan.now.wall, RevocationId::drawn_from(nonce));
    plan.revoked = Some(Revocation::after(marked, fresh, waited || asked));
    plan.say_farewell(nonce);
    let was = plan.lose_trust(ChangeReason::Revoked);
    if was.is_none() {
        plan.part(plan.rules.config.farewell_max);
    }
    if plan.revoked != marked {
        plan.events.push(Event::Revoked { peer });
    }
    plan.finish(Outcome::Revoked { was, waited, asked, marked })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::event::TrustState;
    use crate::machine::input::Input;
    use crate::testing::actor::{Actor, Way, asked_by, at, mark, node, sent, us};

    fn ask(us: &mut Actor, peer: NodeId, force: bool, automatic: bool) -> Result<Step, Rejection> {
        let (justification, nonce) = (Text::default(), us.nonce());
        let (expected_key, lift) = (None, None);
        us.command(
            at(50),
            Command::Request { peer, justification, expected_key, registered: None, nonce, force, automatic, lift },
        )
    }

    #[test]
    fn a_command_about_a_peer_in_no_table_concerned_has_nothing_to_do() {
        let mut us = us();
        us.trusts(node(5), None);
        us.tables.revoked.insert(node(6), mark(0));
        let before = us.tables.clone();
        assert_eq!(us.approve_shown(at(50), node(5)), Err(Rejection::NothingToDo));
        assert_eq!(us.refuse(at(50), node(5), ""), Err(Rejection::NothingToDo));
        assert_eq!(us.command(at(50), Command::Cancel { peer: node(5) }), Err(Rejection::NothingToDo));
        let gone = Command::Remove { peer: node(6) };
        assert_eq!(us.command(at(50), gone), Err(Rejection::NothingToDo));
        assert_eq!(us.tables, before);
    }

    #[test]
    fn we_are_no_peer_of_ours() {
        let mut us = us();
        let own = us.id();
        assert_eq!(ask(&mut us, own, true, false), Err(Rejection::PeerIsUs));
        assert_eq!(us.approve(at(50), own, None), Err(Rejection::PeerIsUs));
        assert_eq!(us.revoke(at(50), own), Err(Rejection::PeerIsUs));
    }

    #[test]
    fn a_trusted_peer_is_asked_again_only_by_force() {
        let mut us = us();
        let record = us.trusts(node(9), None);
        assert_eq!(ask(&mut us, node(9), false, false), Err(Rejection::AlreadyTrusted));
        assert!(ask(&mut us, node(9), true, false).is_ok());
        assert_eq!(us.tables.trusted[&node(9)], record);
    }

    #[test]
    fn a_revoked_peer_is_asked_again_by_an_operator_and_by_nothing_automatic() {
        let mut us = us();
        us.tables.revoked.insert(node(9), mark(0));
        assert_eq!(ask(&mut us, node(9), true, true), Err(Rejection::RevokedNeedsOperator));
        let needs_lift = Rejection::RevokedNeedsLift { current: mark(0).id };
        assert_eq!(ask(&mut us, node(9), false, false), Err(needs_lift));
        assert!(us.request_lifting(at(50), node(9), None, mark(0).id).is_ok());
        assert_eq!(us.tables.revoked[&node(9)], mark(0), "a request lifts nothing yet");
        assert!(ask(&mut us, node(8), false, true).is_ok(), "of anybody else it may be automatic");
    }

    #[test]
    fn nothing_automatic_lifts_the_mark_of_a_key() {
        let mut us = us();
        let key = Actor::new(9, 0x11).public_key();
        us.revoke_key(at(0), key).unwrap();
        let mark = us.tables.revoked_keys[key.as_bytes()];
        let mut ask = |automatic, lift| {
            let (nonce, justification) = (us.nonce(), "weather feed".into());
            let (peer, expected_key) = (node(9), Some(key));
            us.command(
                at(50),
                Command::Request {
                    peer,
                    justification,
                    expected_key,
                    registered: None,
                    nonce,
                    force: false,
                    automatic,
                    lift,
                },
            )
        };
        assert_eq!(ask(true, Some(mark.id)), Err(Rejection::RevokedNeedsOperator));
        assert_eq!(ask(true, None), Err(Rejection::KeyRevokedNeedsLift { current: mark.id }));
        assert!(ask(false, Some(mark.id)).is_ok());
    }

    #[test]
    fn a_request_that_was_refused_goes_to_no_relay() {
        let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
        us.request(at(0), peer.id(), Some(peer.public_key())).unwrap();
        let nonce = us.tables.outgoing[&peer.id()].nonce;
        us.step(at(1), Input::Relaying { peer: peer.id(), nonce }).unwrap();
        let reject = peer.draft(at(20), us.id(), Kind::Reject, Some(nonce));
        assert_eq!(us.hear_from(at(30), &peer, &reject, Way::open()).unwrap().outcome, Outcome::Refused);
        let gives = Input::Relaying { peer: peer.id(), nonce };
        assert_eq!(us.step(at(40), gives), Err(Rejection::NothingToDo));
    }

    #[test]
    fn asking_again_renews_the_request_and_remembers_the_key_that_was_named() {
        let mut us = us();
        let key = Actor::new(9, 0x11).public_key();
        us.request(at(0), node(9), Some(key)).unwrap();
        let first = us.tables.outgoing[&node(9)].clone();
        us.request(at(10), node(9), None).unwrap();
        let second = us.tables.outgoing[&node(9)].clone();
        assert_ne!(first.nonce, second.nonce);
        assert_eq!((second.expected_key, second.sent_tick), (Some(key), at(10).tick));
    }

    #[test]
    fn a_key_that_was_named_stays_whatever_the_registry_names_and_the_caller_is_told() {
        let (first, second) = (Actor::new(9, 0x11).public_key(), Actor::new(9, 0x22).public_key());
        let differs = Some([first.fingerprint(), second.fingerprint()]);
        for (before, named, registered, expected, told) in [
            (None, Some(first), Some(second), Some(first), differs),
            (Some(first), None, Some(second), Some(first), differs),
            (Some(second), Some(first), Some(second), Some(first), differs),
            (Some(first), None, Some(first), Some(first), None),
            (Some(first), None, None, Some(first), None),
            (Some(first), Some(second), Some(second), Some(second), None),
            (None, None, Some(second), Some(second), None),
            (None, None, None, None, None),
        ] {
            let mut us = us();
            if before.is_some() {
                us.request(at(0), node(9), before).unwrap();
            }
            let (justification, nonce) = (Text::default(), us.nonce());
            let (force, automatic, lift) = (false, false, None);
            let ask = Command::Request {
                peer: node(9),
                justification,
                expected_key: named,
                registered,
                nonce,
                force,
                automatic,
                lift,
            };
            let Outcome::Requested { differs, .. } = us.command(at(10), ask).unwrap().outcome else { panic!() };
            let case = (before, named, registered);
            assert_eq!((us.tables.outgoing[&node(9)].expected_key, differs), (expected, told), "{case:?}");
            // The registry vouches for its key, and no rule trusts that one all the same.
            let mut peer = Actor::new(9, 0x22);
            let accept = peer.draft(at(20), us.id(), Kind::Accept, Some(us.tables.outgoing[&node(9)].nonce));
            us.hear_from(at(30), &peer, &accept, Way::registered(second)).unwrap();
            assert_eq!(us.tables.trusted.contains_key(&node(9)), expected != Some(first), "{case:?}");
        }
    }

    #[test]
    fn one_request_too_many_forgets_the_oldest() {
        let mut us = us();
        us.rules.limits.outgoing_max = 2;
        for (ms, id) in [(0, 103), (1, 101), (2, 103), (3, 102)] {
            us.request(at(ms), node(id), None).unwrap();
        }
        assert_eq!(us.tables.outgoing.keys().copied().collect::<Vec<_>>(), [node(102), node(103)]);
    }

    #[test]
    fn what_we_ask_with_is_filtered() {
        let mut us = us();
        let nonce = us.nonce();
        let (peer, justification) = (node(9), "a\nb".into());
        let command = Command::Request {
            peer,
            justification,
            expected_key: None,
            registered: None,
            nonce,
            force: false,
            automatic: false,
            lift: None,
        };
        let step = us.command(at(0), command).unwrap();
        assert_eq!(sent(&step).unwrap().justification, "ab");
        assert_eq!(us.tables.outgoing[&peer].justification, "ab");
    }

    #[test]
    fn a_refusal_answers_the_request_at_once() {
        let mut peer = Actor::new(9, 0x11);
        let (mut us, request) = asked_by(&mut peer);
        let step = us.refuse(at(50), peer.id(), "no\n").unwrap();
        let draft = sent(&step).unwrap();
        assert_eq!((draft.kind, draft.reason.as_str(), draft.answers), (Kind::Reject, "no", Some(request.nonce)));
        assert!(step.effects.iter().all(|effect| effect.when == When::Now));
        assert!(us.tables.pending.is_empty() && us.tables.revoked.is_empty());
    }

    #[test]
    fn a_cancelled_request_can_no_longer_be_answered() {
        let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
        let request = us.request(at(0), peer.id(), Some(peer.public_key())).unwrap();
        let accept = peer.draft(at(20), us.id(), Kind::Accept, Some(sent(&request).unwrap().nonce));
        assert_eq!(us.command(at(10), Command::Cancel { peer: peer.id() }).unwrap().outcome, Outcome::Cancelled);
        assert_eq!(us.hear_from(at(30), &peer, &accept, Way::open()), Err(Rejection::NotAsked));
        assert!(us.tables.trusted.is_empty());
    }

    #[test]
    fn revoking_clears_every_table_marks_the_peer_and_waits_for_nothing() {
        let mut peer = Actor::new(9, 0x11);
        let (mut us, _) = asked_by(&mut peer);
        us.request(at(20), peer.id(), None).unwrap();
        let record = us.trusts(peer.id(), None);
        let step = us.revoke(at(50), peer.id()).unwrap();
        let (waited, asked, marked) = (true, true, None);
        assert_eq!(step.outcome, Outcome::Revoked { was: Some(record), waited, asked, marked });
        assert!(us.tables.trusted.is_empty() && us.tables.pending.is_empty() && us.tables.outgoing.is_empty());
        assert_eq!(us.tables.revoked[&peer.id()].at, at(50).wall);
        let [farewell, disconnect, report] = &step.effects[..] else { panic!("three effects: {:?}", step.effects) };
        assert!(matches!(&farewell.action, Action::Send(draft) if draft.kind == Kind::Revoke));
        let within = us.rules.config.farewell_max;
        assert_eq!(disconnect.action, Action::Disconnect { peer: peer.id(), within });
        assert_eq!(report.action, Action::ReportRevoke { peer: peer.id() });
        assert!(step.effects.iter().all(|effect| effect.when == When::Now));
        let lost = Event::TrustChanged { peer: peer.id(), state: TrustState::Revoked, reason: ChangeReason::Revoked };
        assert_eq!(step.events, [Event::Revoked { peer: peer.id() }, lost]);
    }

    #[test]
    fn a_request_that_was_refused_makes_room_before_one_that_is_open() {
        let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
        us.rules.limits.outgoing_max = 2;
        us.request(at(0), node(8), None).unwrap();
        let asked = us.request(at(1), peer.id(), Some(peer.public_key())).unwrap();
        let reject = peer.draft(at(2), us.id(), Kind::Reject, Some(sent(&asked).unwrap().nonce));
        us.hear_from(at(3), &peer, &reject, Way::open()).unwrap();
        us.request(at(4), node(10), None).unwrap();
        assert_eq!(us.tables.outgoing.keys().copied().collect::<Vec<_>>(), [node(8), node(10)]);
        us.request(at(5), node(11), None).unwrap();
        assert_eq!(us.tables.outgoing.keys().copied().collect::<Vec<_>>(), [node(10), node(11)], "then the oldest");
    }

    #[test]
    fn asking_again_is_a_request_that_no_relay_has() {
        let mut us = us();
        let asked = us.request(at(0), node(9), None).unwrap();
        let nonce = sent(&asked).unwrap().nonce;
        us.step(at(1), Input::Relaying { peer: node(9), nonce }).unwrap();
        assert!(us.tables.outgoing[&node(9)].relayed);
        us.request(at(2), node(9), None).unwrap();
        assert!(!us.tables.outgoing[&node(9)].relayed);
        assert_eq!(
            us.step(at(3), Input::Relaying { peer: node(9), nonce }),
            Err(Rejection::NothingToDo),
            "the old nonce"
        );
    }
}
