//! What must hold after each step, whatever has happened before: said in the words of `docs/protocol.md`, not by the
//! code that is under test.
//!
//! Each law looks at one step of one node: what it knew, what came, what it knew afterwards, what it sent. By induction
//! they give the promises over whole lives; the state that comes back after a crash is compared by the node itself.
//!
//! 510 lines because the laws are judged over one view of one step, and read as one list.
#![forbid(unsafe_code)]

mod marks;

use core::time::Duration;
use std::collections::BTreeSet;

use super::told::asked;
use crate::config::Durability;
use crate::machine::effect::{Action, When};
use crate::machine::event::Event;
use crate::machine::input::{Command, Input, Lookup, Path, PeerOrKey, Received};
use crate::machine::known::set_aside;
use crate::machine::outcome::{Rules, Step};
use crate::machine::rejection::Rejection;
use crate::machine::view::Outgoing;
use crate::peer::{KeyFault, NodeId, PublicKey};
use crate::tables::PendingKind;
use crate::testing::model::PlainView;
use crate::time::{Now, WallMillis};
use crate::wire::message::Kind;

/// One step, as somebody sees it who stands beside the node.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) rules: &'a Rules,
    pub(super) now: Now,
    pub(super) before: &'a PlainView,
    pub(super) input: &'a Input,
    /// The key that the operator means, if this is an approval.
    pub(super) meant: Option<PublicKey>,
    pub(super) answer: &'a Result<Step, Rejection>,
    pub(super) after: &'a PlainView,
    /// If it is a message: the newest stamp that its key was ever vouched for with, whatever our clock did since.
    pub(super) newest: Option<WallMillis>,
    /// The nonces of all requests that a relay has had.
    pub(super) given: &'a BTreeSet<[u8; 16]>,
}

/// Whether the message answers the newest request to its sender.
pub(super) fn answers_newest(before: &PlainView, received: &Received) -> bool {
    let (message, outgoing) = (&received.message, asked(before, received.message.sender()));
    // in version 1 that we have asked must do.
    outgoing.is_some_and(|outgoing| message.is_version_1() || message.answers() == Some(outgoing.nonce))
}

/// Whether anybody besides the sender says that the key is the sender's.
pub(super) fn is_vouched_for(before: &PlainView, received: &Received) -> bool {
    let (message, peer) = (&received.message, received.message.sender());
    let by_transport = matches!(received.path, Path::Direct { authenticated, .. } if authenticated == Some(peer));
    match &received.lookup {
        Lookup::Found { key, .. } if key != message.key() => return false,
        //
        _ if message.is_version_1() => return by_transport,
        Lookup::Found { .. } => return true,
        Lookup::NotAsked | Lookup::Unknown | Lookup::Failed => {}
    }
    let by_record = before.trusted.get(&peer).is_some_and(|record| record.public_key == Some(*message.key()));
    let named = asked(before, peer).and_then(|outgoing| outgoing.expected_key);
    // a registry that was not heard might contradict our caller; a reject trusts nobody.
    let caller_counts = match message.kind() {
        Kind::Accept => received.lookup != Lookup::Failed,
        kind => kind == Kind::Reject,
    };
    let is_answer = caller_counts && answers_newest(before, received);
    by_transport || by_record || (is_answer && named == Some(*message.key()))
}

/// Whether the registry contradicts the message.
pub(super) fn is_contradicted(received: &Received) -> bool {
    matches!(&received.lookup, Lookup::Found { key, .. } if key != received.message.key())
}

impl Seen<'_> {
    /// The first law that does not hold.
    pub(super) fn judge(&self) -> Result<(), String> {
        self.forms_are_kept()?;
        self.nothing_old_decides()?;
        self.the_ignored_are_not_heard()?;
        self.losses_are_enforced()?;
        self.trust_moves_for_a_reason()?;
        self.marks_move_for_a_reason()?;
        self.requests_move_for_a_reason()?;
        self.floors_move_for_a_reason()?;
        self.successors_are_named_by_the_key_before_them()?;
        self.what_waits_stays_what_it_is()?;
        self.who_waits_is_looked_at()?;
        self.what_is_owed_is_so()?;
        self.news_of_grants_waits_and_restrictions_do_not()
    }

    pub(super) fn received(&self) -> Option<&Received> {
        match self.input {
            Input::Message(received) => Some(received),
            _ => None,
        }
    }

    /// The command of this step and the peer that it is about, if it is about one.
    pub(super) fn command(&self) -> Option<(&Command, NodeId)> {
        match self.input {
            Input::Operator(command) => Some((
                command,
                match command {
                    Command::RevokeKey { .. } => return None,
                    Command::ForgetRevocation { of } | Command::Ignore { of } | Command::Unignore { of } => match of {
                        PeerOrKey::Peer(peer) => *peer,
                        PeerOrKey::Key(_) => return None,
                    },
                    Command::Request { peer, .. }
                    | Command::Approve { peer, .. }
                    | Command::Reject { peer, .. }
                    | Command::Cancel { peer }
                    | Command::AdoptKey { peer, .. }
                    | Command::ReportKeyChange { peer, .. }
                    | Command::Remove { peer }
                    | Command::EndUnderKey { peer, .. }
                    | Command::Revoke { peer, .. } => *peer,
                    Command::Grant { record, .. } => record.node_id,
                },
            )),
            _ => None,
        }
    }

    fn is_command(&self, of: NodeId, which: fn(&Command) -> bool) -> bool {
        self.command().is_some_and(|(command, peer)| peer == of && which(command))
    }

    /// A message of this peer that somebody vouches for.
    fn vouched_from(&self, peer: NodeId) -> Option<&Received> {
        self.received().filter(|it| it.message.sender() == peer && is_vouched_for(self.before, it))
    }

    fn trust_moves_for_a_reason(&self) -> Result<(), String> {
        let peers: BTreeSet<NodeId> = self.before.trusted.keys().chain(self.after.trusted.keys()).copied().collect();
        for peer in peers {
            let (was, is) = (self.before.trusted.get(&peer), self.after.trusted.get(&peer));
            if was == is {
                continue;
            }
            let told = |event: &Event| matches!(event, Event::TrustChanged { peer: of, .. } if *of == peer);
            let is_told = self.answer.as_ref().is_ok_and(|step| step.events.iter().any(told));
            if !is_told {
                return Err(format!("trust of {peer} changed and nobody was told"));
            }
            self.an_end_is_no_secret(peer, was.and_then(|record| record.public_key))?;
            match is {
                Some(record) => {
                    let granted =
                        matches!(self.command(), Some((Command::Grant { record: of, .. }, _)) if of == record);
                    let because = granted || record.public_key.is_some_and(|key| self.may_trust(peer, key));
                    if !because {
                        return Err(format!("{peer} is trusted under a key that nobody approved, bound or expected"));
                    }
                }
                None if self.is_command(peer, |it| matches!(it, Command::Revoke { .. } | Command::Remove { .. })) => {}
                // our operator has revoked the key.
                None if was.and_then(|it| it.public_key).is_some_and(|key| self.is_key_marked(key)) => {}
                None if self.other_key_is_known(peer, was.and_then(|record| record.public_key)) => {}
                None => {
                    let by_message = self.vouched_from(peer).is_some_and(|it| {
                        let other_key = was.and_then(|record| record.public_key) != Some(*it.message.key());
                        it.message.kind() == Kind::Revoke || other_key
                    });
                    //
                    let contradicted = self.received().is_some_and(|it| {
                        let of_record = was.and_then(|record| record.public_key) == Some(*it.message.key());
                        it.message.sender() == peer && of_record && is_contradicted(it)
                    });
                    if !(by_message || contradicted) {
                        return Err(format!("{peer} lost trust, and neither we nor anybody vouched for took it back"));
                    }
                }
            }
        }
        Ok(())
    }

    /// what ends trust without our operator cuts the tunnel and is reported at once.
    fn an_end_is_no_secret(&self, peer: NodeId, was: Option<PublicKey>) -> Result<(), String> {
        let is = self.after.trusted.get(&peer).map(|record| record.public_key);
        if self.command().is_some() || (is.is_some() && (was.is_none() || is == Some(was))) {
            return Ok(());
        }
        let effects = self.answer.as_ref().map_or(&[][..], |step| &step.effects[..]);
        let any = |which: fn(&Action, NodeId) -> bool| effects.iter().any(|effect| which(&effect.action, peer));
        let cut = any(|action, peer| matches!(action, Action::Disconnect { peer: of, .. } if *of == peer));
        let reported = any(|action, peer| matches!(action, Action::ReportRevoke { peer: of } if *of == peer));
        if self.before.trusted.contains_key(&peer) && !(cut && reported) {
            return Err(format!("trust of {peer} ended, and neither tunnel nor registry noticed"));
        }
        Ok(())
    }

    /// Whether the registry or the transport says of its own accord that the peer has another key than this.
    fn other_key_is_known(&self, peer: NodeId, was: Option<PublicKey>) -> bool {
        match self.input {
            Input::LookedUp { peer: of, lookup: Lookup::Found { key, .. } } => *of == peer && Some(*key) != was,
            Input::Compared { peer: of, was: compared, found } => {
                *of == peer && Some(*compared) == was && found != compared
            }
            Input::Operator(Command::ReportKeyChange { peer: of, key }) => *of == peer && Some(*key) != was,
            _ => false,
        }
    }

    /// Whether this step may trust this key: our operator approved it, or our registry bound it, or the transport did,
    /// or our caller expected it; never after a revocation without our operator.
    fn may_trust(&self, peer: NodeId, key: PublicKey) -> bool {
        if let Some((Command::Approve { lookup, fingerprint, .. }, of)) = self.command()
            && of == peer
        {
            //
            let proven_by = self.before.pending.get(&peer).and_then(|it| it.proven_by);
            let may = match lookup {
                //
                Lookup::Found { key: known, .. } if proven_by == Some(*known) || self.was_replaced(peer, known) => true,
                Lookup::Found { key: known, .. } => *known == key,
                Lookup::Failed => fingerprint.is_some(),
                _ => true,
            };
            //
            let may = may && (proven_by.is_none() || fingerprint.is_some());
            return may && self.meant == Some(key);
        }
        let named = asked(self.before, peer).map(|outgoing| outgoing.expected_key);
        let against_caller = named.flatten().is_some_and(|expected| expected != key);
        let was = self.before.trusted.get(&peer).map(|record| record.public_key);
        // a record without a key gets one.
        let adopted = match self.input {
            Input::Operator(Command::AdoptKey { peer: of, key: known }) => *of == peer && *known == key,
            Input::LookedUp { peer: of, lookup: Lookup::Found { key: known, .. } } => *of == peer && *known == key,
            _ => false,
        };
        //
        let is_set_aside = set_aside(self.before, peer, &key);
        if adopted {
            return was == Some(None) && !against_caller && is_set_aside.is_none();
        }
        let Some(it) = self.received().filter(|it| it.message.sender() == peer && *it.message.key() == key) else {
            return false;
        };
        if self.is_marked(peer, key) && !self.request_lifts(peer, key) || is_contradicted(it) {
            return false;
        }
        let is_marked = self.is_marked(peer, key);
        let by_caller = named == Some(Some(key));
        let authentic = is_vouched_for(self.before, it);
        if against_caller && was != Some(Some(key)) {
            return false;
        }
        if matches!(is_set_aside, Some(KeyFault::Void(_))) || (is_set_aside.is_some() && !by_caller) {
            return false;
        }
        match it.message.kind() {
            //
            _ if it.message.is_version_1() && !authentic => false,
            // Both asked, or a record without a key gets one, or the node was told to.
            Kind::Request => {
                let bound = matches!(it.lookup, Lookup::Found { .. });
                let both = named.is_some() && (by_caller || bound);
                // where the request lifts a mark, nothing but that both asked counts.
                let by_policy = !is_marked && self.policy_trusts(peer, key, bound.then_some(&it.lookup));
                //
                let by_rule = (both || by_policy) && it.lookup != Lookup::Failed;
                by_rule || (!is_marked && was == Some(None) && authentic) || self.takes(it)
            }
            Kind::Accept => {
                let by_first_use = || !is_marked && self.is_first_use(peer, key, it);
                answers_newest(self.before, it) && (authentic || by_first_use() || self.takes(it))
            }
            Kind::Reject | Kind::Revoke => false,
        }
    }

    fn was_replaced(&self, peer: NodeId, key: &PublicKey) -> bool {
        matches!(set_aside(self.before, peer, key), Some(KeyFault::Replaced(_)))
    }

    /// `bound` is what the registry said, if it vouches for the key.
    fn policy_trusts(&self, peer: NodeId, key: PublicKey, bound: Option<&Lookup>) -> bool {
        let policy = &self.rules.policy;
        let network = self.after.trusted.get(&peer).map_or(0, |record| record.network);
        let shares = match bound {
            Some(Lookup::Found { networks, .. }) => {
                let shared: Vec<u16> = policy.own_networks.iter().copied().filter(|it| networks.contains(it)).collect();
                shared.into_iter().find(|it| *it != 0) == Some(network)
            }
            _ => false,
        };
        let entries = policy.allow_list.of(peer);
        let allowed = entries.iter().any(|entry| entry.key.map_or(bound.is_some(), |allowed| allowed == key));
        shares || allowed || policy.auto_approve
    }

    /// Whatever way the answer came: of a request that a relay has had, anybody may have read the nonce.
    fn is_first_use(&self, peer: NodeId, key: PublicKey, it: &Received) -> bool {
        if self.before.outgoing.get(&peer).is_some_and(|outgoing| self.given.contains(&outgoing.nonce.0)) {
            return false;
        }
        let named = asked(self.before, peer).and_then(|outgoing| outgoing.expected_key);
        let other_waits = self.before.pending.get(&peer).is_some_and(|entry| entry.key != key);
        self.rules.policy.trust_on_first_use
            && it.lookup != Lookup::Failed
            && matches!(it.path, Path::Direct { .. })
            && !self.before.trusted.contains_key(&peer)
            && named.is_none()
            && !other_waits
    }

    /// Nothing decides that is no newer than what its key was vouched for with before, however our clock stepped since
    /// . It may wait for the operator.
    fn nothing_old_decides(&self) -> Result<(), String> {
        let Some(it) = self.received().filter(|it| !it.message.is_version_1()) else { return Ok(()) };
        let (peer, stamp) = (it.message.sender(), it.message.stamp());
        // Where the registry contradicts it, it is the registry that decides, and that is news.
        if self.newest.is_none_or(|newest| stamp > newest) || is_contradicted(it) {
            return Ok(());
        }
        let decided = self.before.trusted.get(&peer) != self.after.trusted.get(&peer)
            || self.before.revoked.get(&peer) != self.after.revoked.get(&peer)
            || self.before.outgoing.get(&peer) != self.after.outgoing.get(&peer);
        if decided {
            return Err(format!("{:?} of {peer} decided something, and newer was heard before", it.message.kind()));
        }
        Ok(())
    }

    /// What came in a form that nobody may use has no effect.
    fn forms_are_kept(&self) -> Result<(), String> {
        let Some(it) = self.received() else { return Ok(()) };
        let (message, floor) = (&it.message, self.before.floor.get(&it.message.sender()));
        let is_downgrade = message.is_version_1() && floor.is_some_and(|floor| floor.spoke_v2);
        let is_forbidden = message.is_version_1() && !self.rules.policy.accept_v1;
        let by_relay = matches!(it.path, Path::Relayed { .. });
        let not_by_relay =
            message.kind() == Kind::Revoke || (message.is_version_1() && message.kind() != Kind::Request);
        if self.answer.is_ok() && (is_downgrade || is_forbidden || (by_relay && not_by_relay)) {
            return Err(format!("{:?} from {} was heard in a form that is not", message.kind(), message.sender()));
        }
        Ok(())
    }

    fn requests_move_for_a_reason(&self) -> Result<(), String> {
        for (peer, is) in &self.after.outgoing {
            let was = self.before.outgoing.get(peer);
            if was == Some(is) {
                continue;
            }
            let named = asked(self.before, *peer).and_then(|was| was.expected_key);
            let by_refusal = was.is_some_and(|was| self.is_refused(*peer, was, is));
            let asked = by_refusal
                || match self.command() {
                    Some((Command::Request { expected_key, automatic, lift, .. }, of)) if of == *peer => {
                        // a revoked peer is asked by an operator who was shown the mark, and by nobody else.
                        let mark = self.before.revoked.get(peer);
                        let may_ask = mark.is_none_or(|mark| !automatic && *lift == Some(mark.id) && is.lift == *lift);
                        may_ask && is.expected_key == expected_key.or(named)
                    }
                    _ => false,
                };
            //
            let relaying = matches!(self.input, Input::Relaying { peer: of, nonce } if of == peer && *nonce == is.nonce)
                && was.is_some_and(|was| Outgoing { relayed: true, ..was.clone() } == *is);
            if !(asked || relaying) {
                return Err(format!("a request to {peer} appeared or changed, but nobody asked for it"));
            }
        }
        for peer in self.before.outgoing.keys().filter(|peer| !self.after.outgoing.contains_key(peer)) {
            let full = self.before.outgoing.len() >= self.rules.limits.outgoing_max;
            let made_room = full && matches!(self.command(), Some((Command::Request { .. }, _)));
            let expired = matches!(self.input, Input::Housekeeping);
            // the refusal is shown for a day.
            let refused = self.received().is_some_and(|it| it.message.kind() == Kind::Reject);
            if refused && self.vouched_from(*peer).is_some() {
                return Err(format!("the refusal of {peer} is not shown"));
            }
            let by_command = self.command().is_some_and(|(_, of)| of == *peer);
            let answered = self.vouched_from(*peer).is_some() || self.after.trusted.contains_key(peer);
            let named = self.before.outgoing.get(peer).and_then(|outgoing| outgoing.expected_key);
            let by_command = by_command
                || match self.input {
                    Input::Operator(Command::RevokeKey { key, .. } | Command::Ignore { of: PeerOrKey::Key(key) }) => {
                        named == Some(*key)
                    }
                    _ => false,
                };
            if !(made_room || expired || by_command || answered) {
                return Err(format!("the request to {peer} was forgotten because of somebody who proved nothing"));
            }
        }
        Ok(())
    }

    fn floors_move_for_a_reason(&self) -> Result<(), String> {
        let clamped = self.answer.as_ref().is_ok_and(|step| step.clamped);
        for (peer, was) in &self.before.floor {
            let Some(is) = self.after.floor.get(peer) else {
                let full = self.before.floor.len() >= self.rules.limits.floors_max;
                if full && matches!(self.input, Input::Housekeeping) {
                    continue;
                }
                return Err(format!("the floor of {peer} was forgotten"));
            };
            let steps_back = (is.key == was.key && is.seen < was.seen) || is.sent < was.sent;
            if steps_back && !clamped {
                return Err(format!("the floor of {peer} stepped back, and no clock was wrong"));
            }
            if steps_back && is.seen.max(is.sent) < self.now.wall {
                return Err(format!("the floor of {peer} was moved back further than a clock can have been wrong"));
            }
        }
        for (peer, is) in &self.after.floor {
            let was = self.before.floor.get(peer);
            let raised = was.map_or((is.key.is_some()).then_some(is), |was| {
                (is.key != was.key || is.seen > was.seen).then_some(is)
            });
            if raised.is_none() {
                continue;
            }
            let of_message = |it: &Received| {
                // whoever let the message be trusted vouches for it.
                let trusted = self.after.trusted.get(peer);
                let both = trusted != self.before.trusted.get(peer)
                    && trusted.is_some_and(|record| record.public_key == Some(*it.message.key()));
                it.message.sender() == *peer
                    && !it.message.is_version_1()
                    && Some(*it.message.key()) == is.key
                    && it.message.stamp() == is.seen
                    && (is_vouched_for(self.before, it) || both)
            };
            let approved = self.is_command(*peer, |it| matches!(it, Command::Approve { .. }))
                && self.before.pending.get(peer).is_some_and(|entry| {
                    entry
                        .keys()
                        .any(|it| is.key == Some(it.key) && it.nonce.is_some() && (it.stamp <= is.seen || clamped))
                });
            // trust that no message brought begins now, and what is older than clocks may differ is too old.
            let record = self.after.trusted.get(peer);
            let changed = record != self.before.trusted.get(peer) && record.is_some_and(|it| it.public_key == is.key);
            let begun = self.received().is_none()
                && changed
                && self.now.wall.millis_since(is.seen)
                    == i64::try_from(self.rules.config.future_skew_max.as_millis()).unwrap_or(0);
            if !(self.received().is_some_and(of_message) || approved || begun) {
                return Err(format!("the floor of {peer} was raised by somebody who proved nothing"));
            }
        }
        Ok(())
    }

    fn what_waits_stays_what_it_is(&self) -> Result<(), String> {
        for (peer, was) in &self.before.pending {
            let Some(is) = self.after.pending.get(peer) else { continue };
            // what the registry contradicts does not count as vouched for any more.
            let taken_back = self.received().is_some_and(
                |it| matches!(&it.lookup, Lookup::Found { key, .. } if it.message.sender() == *peer && *key != was.key),
            );
            let replaced_by_right =
                self.vouched_from(*peer).is_some() && (!was.authentic || taken_back) && is.authentic;
            // an answer to a request that is no more, or refused, goes, and a request behind it comes forward.
            let open = |tables: &PlainView| asked(tables, *peer).map(|outgoing| outgoing.nonce);
            let came_forward = was.kind == PendingKind::AnsweredUnvouched
                && open(self.before) != open(self.after)
                && is.kind == PendingKind::Request
                && was.others.iter().any(|other| other.key == is.key && other.kind == PendingKind::Request);
            //
            let proven = (!was.authentic || taken_back) && was.proven_by.is_none() && is.proven_by.is_some();
            if is.key != was.key && !replaced_by_right && !came_forward && !proven {
                return Err(format!("the key that {peer} waits with was replaced"));
            }
            if is.key != was.key && is.number == was.number {
                return Err(format!("the key that {peer} waits with was replaced, and the entry counts as the same"));
            }
            if is.conflicts < was.conflicts {
                return Err(format!("a conflict about the key of {peer} was forgotten"));
            }
            if is.authentic && !was.authentic && self.vouched_from(*peer).is_none() {
                return Err(format!("what {peer} waits with counts as vouched for, and nobody vouches"));
            }
        }
        Ok(())
    }

    fn news_of_grants_waits_and_restrictions_do_not(&self) -> Result<(), String> {
        let Ok(step) = self.answer else { return Ok(()) };
        for effect in &step.effects {
            let (peer, is_grant) = match &effect.action {
                Action::Send(draft) | Action::SendVersion1(draft) => (draft.to, draft.kind == Kind::Accept),
                Action::LookUp { peer } => (*peer, false),
                Action::ReportGrant { record } => (record.node_id, true),
                Action::Disconnect { peer, .. } | Action::ReportRevoke { peer } => (*peer, false),
            };
            let holds = match (effect.when, is_grant, self.rules.config.durability) {
                (When::OnceDurable { still }, true, Durability::BeforeAnswer) => {
                    self.after.trusted.get(&peer) == Some(&still)
                }
                (When::Now, true, Durability::Eventually) => self.after.trusted.contains_key(&peer),
                (When::Now, false, _) => true,
                _ => false,
            };
            if !holds {
                return Err(format!("{:?} goes to {peer} {:?}", effect.action, effect.when));
            }
        }
        if self.command().is_some_and(|(command, _)| matches!(command, Command::Revoke { .. })) {
            let farewell = |action: &Action| matches!(action, Action::Send(draft) if draft.kind == Kind::Revoke);
            let cut = |action: &Action| matches!(action, Action::Disconnect { within, .. } if *within <= CUT_WITHIN);
            let any = |which: &dyn Fn(&Action) -> bool| step.effects.iter().any(|effect| which(&effect.action));
            if !(any(&farewell) && any(&cut)) {
                return Err("a revocation without a farewell or a cut".to_owned());
            }
        }
        Ok(())
    }
}

const CUT_WITHIN: Duration = Duration::from_millis(500);
