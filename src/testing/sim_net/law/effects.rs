//! What is asked of the shell: restrictions at once, news of grants once durable, each message to whom it is due.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::operator::refused_by;
use super::owed::stands;
use super::verdict::Verdict;
use super::words::{is_contradicted, key_is_marked, record_key, request_lifts};
use super::{Law, Seen};
use crate::config::Durability;
use crate::machine::effect::{Action, Draft, Effect, When};
use crate::machine::input::{Command, Input, Received};
use crate::machine::outcome::Outcome;
use crate::peer::NodeId;
use crate::tables::{Nonce, PendingKind};
use crate::time::WallMillis;
use crate::wire::message::Kind;

///
const CUT_WITHIN: Duration = Duration::from_millis(500);
const MINUTE_MS: i64 = 60_000;

impl Seen<'_> {
    fn effects(&self) -> &[Effect] {
        self.step().map(|step| step.effects.as_slice()).unwrap_or_default()
    }

    fn messages(&self) -> impl Iterator<Item = (usize, &Effect, &Draft)> {
        self.effects().iter().enumerate().filter_map(|(at, effect)| match &effect.action {
            Action::Send(draft) | Action::SendVersion1(draft) => Some((at, effect, draft)),
            _ => None,
        })
    }

    fn sends(&self, kind: Kind, to: NodeId, answers: Option<Nonce>) -> bool {
        self.messages().any(|(_, _, draft)| draft.kind == kind && draft.to == to && draft.answers == answers)
    }

    fn cuts(&self, peer: NodeId) -> Option<usize> {
        self.effects()
            .iter()
            .position(|effect| matches!(&effect.action, Action::Disconnect { peer: of, .. } if *of == peer))
    }

    fn reports_end(&self, peer: NodeId) -> bool {
        self.effects().iter().any(|effect| matches!(&effect.action, Action::ReportRevoke { peer: of } if *of == peer))
    }

    pub(super) fn what_must_be_done_is_asked_for(&self) -> Law {
        self.news_of_grants_waits_and_restrictions_do_not()?;
        self.ends_are_enforced()?;
        self.grants_are_reported()?;
        self.nothing_is_sent_without_cause()?;
        self.answers_are_sent()?;
        self.farewells_are_repeated()
    }

    ///
    fn news_of_grants_waits_and_restrictions_do_not(&self) -> Law {
        for effect in self.effects() {
            let of_grant = match &effect.action {
                Action::Send(draft) | Action::SendVersion1(draft) => (draft.kind == Kind::Accept).then_some(draft.to),
                Action::ReportGrant { record } => Some(record.node_id),
                _ => None,
            };
            let waits = matches!(effect.when, When::OnceDurable { .. });
            let Some(peer) = of_grant else {
                self.must("R-188", !waits, "a restriction, or a request, waits for the disk")?;
                continue;
            };
            let at_once = self.rules.config.durability == Durability::Eventually;
            self.must(
                "R-37",
                waits != at_once,
                "news of a grant does not wait for the disk, or waits against the configuration",
            )?;
            if let When::OnceDurable { still } = effect.when {
                let is_so = self.after.trusted.get(&peer) == Some(&still);
                self.must("R-37", is_so, "news is told of another grant than there is")?;
            }
        }
        Ok(())
    }

    ///
    fn ends_are_enforced(&self) -> Law {
        for (peer, _, _) in self.moved(|tables| &tables.trusted).filter(|(peer, _, _)| self.lost(*peer).is_some()) {
            let cut = self.cuts(peer);
            self.must(
                "R-188",
                cut.is_some() && self.reports_end(peer),
                "trust that ended is not cut, or not reported",
            )?;
            let early =
                self.messages().any(|(at, _, draft)| draft.kind == Kind::Accept && draft.to == peer && Some(at) < cut);
            self.must("R-188", !early, "an accept leaves before the cut of its receiver")?;
        }
        for effect in self.effects() {
            let (Action::Disconnect { peer, .. } | Action::ReportRevoke { peer }) = &effect.action else { continue };
            let by_revoke = match self.input {
                Input::Operator(Command::Revoke { peer: of, .. } | Command::EndUnderKey { peer: of, .. }) => of == peer,
                Input::Message(it) => it.message.sender() == *peer && it.message.kind() == Kind::Revoke,
                _ => false,
            };
            self.must("R-188", by_revoke || self.lost(*peer).is_some(), "a tunnel is cut though no trust ended")?;
        }
        if let Some(it) = self.received().filter(|it| it.message.kind() == Kind::Revoke) {
            let ruling = self.ruling(it);
            let counts = ruling.rule == "R-35" && self.decides(it);
            self.must(
                "R-35",
                !counts || self.cuts(it.message.sender()).is_some(),
                "a peer's own revocation does not cut its tunnel",
            )?;
        }
        let Some(Command::Revoke { peer, .. }) = self.command().filter(|_| self.answer.is_ok()) else { return Ok(()) };
        let in_time = self
            .effects()
            .iter()
            .all(|effect| !matches!(&effect.action, Action::Disconnect { within, .. } if *within > CUT_WITHIN));
        self.must("R-45", in_time, "a revoked peer may stay connected for longer than 500 ms")?;
        let farewell =
            self.messages().find(|(_, _, draft)| draft.to == *peer && draft.kind == Kind::Revoke).map(|(at, ..)| at);
        let cut = self.cuts(*peer);
        self.must("R-45", farewell.is_some() && farewell < cut, "a revoked peer is cut off without a farewell before")?;
        let report = self.effects().iter().position(|effect| matches!(effect.action, Action::ReportRevoke { .. }));
        self.must(
            "R-45",
            report.is_none() || cut < report,
            "the registry hears of a revocation before the tunnel is cut",
        )
    }

    ///
    fn grants_are_reported(&self) -> Law {
        for effect in self.effects() {
            match &effect.action {
                Action::ReportGrant { record } => {
                    let is_so = self.after.trusted.get(&record.node_id) == Some(record);
                    self.must("R-37", is_so, "a grant is reported that there is not")?;
                }
                Action::LookUp { peer } => {
                    let unbound = matches!(self.command(), Some(Command::Grant { record, .. })
                        if record.node_id == *peer && record.public_key.is_none());
                    self.must("R-46", unbound, "the registry is asked without cause")?;
                }
                _ => {}
            }
        }
        let granted = match self.input {
            Input::Message(it) if self.ruling(it).verdict == Verdict::Trusts => it.message.sender(),
            Input::Operator(Command::Approve { peer, .. }) if self.answer.is_ok() => *peer,
            Input::Operator(Command::Grant { record, .. }) if self.granted(record.node_id).is_some() => record.node_id,
            _ => return Ok(()),
        };
        let reported = self
            .effects()
            .iter()
            .any(|effect| matches!(&effect.action, Action::ReportGrant { record } if record.node_id == granted));
        self.must("R-37", reported, "a grant is not reported")?;
        let unbound = matches!(self.command(), Some(Command::Grant { record, .. }) if record.public_key.is_none());
        let looks_up = self.effects().iter().any(|effect| matches!(effect.action, Action::LookUp { .. }));
        self.must("R-46", !unbound || looks_up, "the registry is not asked for a missing key")
    }

    fn nothing_is_sent_without_cause(&self) -> Law {
        for (_, effect, draft) in self.messages() {
            let to = draft.to;
            let cause = match (self.input, draft.kind) {
                (Input::Retry { peer, .. }, _) => *peer == to,
                (Input::Operator(Command::Request { peer, nonce, .. }), Kind::Request) => {
                    *peer == to && draft.nonce == *nonce && draft.answers.is_none()
                }
                (Input::Operator(Command::Approve { peer, .. }), Kind::Accept)
                | (Input::Operator(Command::Reject { peer, .. }), Kind::Reject)
                | (Input::Operator(Command::Revoke { peer, .. } | Command::EndUnderKey { peer, .. }), Kind::Revoke) => {
                    *peer == to
                }
                (Input::Message(it), Kind::Accept) => {
                    let answers = matches!(self.ruling(it).verdict, Verdict::Confirms | Verdict::Trusts);
                    it.message.sender() == to && it.message.kind() == Kind::Request && answers
                }
                (Input::Message(it), Kind::Reject) => self.tells_refusal_as_owed(it, effect, draft),
                (Input::Announce { peer, nonce, .. }, Kind::Request) => {
                    *peer == to && draft.nonce == *nonce && draft.answers.is_none()
                }
                (Input::Message(it), Kind::Revoke) => it.message.sender() == to,
                _ => false,
            };
            self.must("R-37", cause, "a message is sent that nothing calls for")?;
            if draft.kind == Kind::Accept {
                self.must("R-37", self.after.trusted.contains_key(&to), "an accept is sent to who is not trusted")?;
                let key = self.after.trusted.get(&to).and_then(|record| record.public_key);
                self.must(
                    "R-212",
                    effect.answers.is_none() || effect.answers == key,
                    "an accept is for another key than the record's",
                )?;
            }
            // nothing but an answer to version 1 goes in version 1.
            if matches!(effect.action, Action::SendVersion1(_)) {
                let spoke = self.received().is_some_and(|it| it.message.is_version_1())
                    || self.before.pending.get(&to).is_some_and(|entry| entry.keys().any(|it| it.nonce.is_none()));
                self.must("R-64", spoke, "something goes in version 1 to who has not spoken it")?;
            }
        }
        Ok(())
    }

    ///
    fn tells_refusal_as_owed(&self, it: &Received, effect: &Effect, draft: &Draft) -> bool {
        let owed = self.before.owed.get(&draft.to);
        it.message.sender() == draft.to
            && self.ruling(it).verdict == Verdict::TellsRefusal
            && owed.is_some_and(|owed| draft.nonce == owed.nonce && draft.reason == owed.reason)
            && draft.answers == it.message.nonce()
            && effect.answers == Some(*it.message.key())
            && effect.when == When::Now
    }

    /// each request that is decided gets its answer, and nothing else does.
    fn answers_are_sent(&self) -> Law {
        match self.input {
            Input::Message(it) => {
                let verdict = self.ruling(it).verdict;
                let is_due =
                    matches!(verdict, Verdict::Confirms | Verdict::Trusts) && it.message.kind() == Kind::Request;
                let sends = self.sends(Kind::Accept, it.message.sender(), it.message.nonce());
                let refuses = self.sends(Kind::Reject, it.message.sender(), it.message.nonce());
                let is_owed = verdict == Verdict::TellsRefusal;
                self.must("R-230", is_owed == refuses, "a refusal that is owed is not told, or another one is")?;
                self.must("R-21", is_due == sends, "a request that is trusted is not answered, or something else is")
            }
            Input::Operator(Command::Approve { peer, .. }) => {
                let Some((_, chosen)) = self.approved() else { return Ok(()) };
                let is_due = chosen.kind == PendingKind::Request;
                let sends = self.sends(Kind::Accept, *peer, chosen.nonce);
                self.must("R-42", is_due == sends, "what was approved is not answered, or an answer is")
            }
            Input::Operator(Command::Reject { peer, named, .. }) if self.answer.is_ok() => {
                let refused = refused_by(self.before, *peer, *named);
                let Some(first) = refused.first() else { return Ok(()) };
                let is_due = first.kind == PendingKind::Request;
                let sends = self.sends(Kind::Reject, *peer, first.nonce);
                self.must("R-43", is_due == sends, "what was refused is not answered, or an answer is")
            }
            Input::Operator(Command::Request { peer, .. }) if self.answer.is_ok() => {
                self.must("R-40", self.sends(Kind::Request, *peer, None), "a request is not sent")
            }
            Input::Announce { peer, .. } if self.answer.is_ok() => {
                self.must("R-232", self.sends(Kind::Request, *peer, None), "an announcement is not sent")
            }
            Input::Operator(Command::EndUnderKey { peer, key, .. }) if self.answer.is_ok() => self.must(
                "R-180",
                self.sends(Kind::Revoke, *peer, None) == (record_key(self.before, *peer) == Some(*key)),
                "a peer under a revoked key hears no farewell, or another one does",
            ),
            _ => Ok(()),
        }
    }

    ///
    fn farewells_are_repeated(&self) -> Law {
        let Some(it) = self.received() else { return Ok(()) };
        let ruling = self.ruling(it);
        let peer = it.message.sender();
        let farewell = self.messages().any(|(_, _, draft)| draft.kind == Kind::Revoke);
        if !farewell
            && matches!(
                ruling.rule,
                "R-60"
                    | "R-72"
                    | "R-11"
                    | "R-12"
                    | "R-13"
                    | "R-184"
                    | "R-61"
                    | "R-68"
                    | "R-53"
                    | "R-15"
                    | "R-17"
                    | "R-193"
                    | "R-194"
                    | "R-219"
            )
        {
            return Ok(());
        }
        let is_due = self.farewell_is_due(it);
        let sent = self.before.floor.get(&peer).map_or(WallMillis::new(0), |floor| floor.sent);
        let since = self.now.wall.millis_since(sent);
        let is_owed = self.before.owed.get(&peer).is_some_and(|owed| owed.kind == Kind::Revoke)
            && stands(self.before, peer, Kind::Revoke, None)
            && it.message.kind() == Kind::Request
            && ruling.verdict != Verdict::Drops;
        if is_owed && is_due && !it.path.is_relayed() && !it.message.is_version_1() {
            let is_taken = !matches!(self.outcome(), None | Some(Outcome::Dropped(_)));
            self.must("R-231", farewell || !is_taken, "a farewell that is owed does not go with a request")?;
        }
        if farewell {
            self.must("R-36", is_due, "a farewell goes to whom it is not due")?;
            let is_again = (0..MINUTE_MS).contains(&since);
            self.must("R-36", is_owed || !is_again, "a farewell is repeated within a minute")?;
            return self.must(
                "R-36",
                !is_contradicted(self.before, it),
                "a farewell goes to a key that the registry contradicts",
            );
        }
        self.must("R-36", !is_due || since <= MINUTE_MS, "a side that missed the farewell does not hear it again")
    }

    fn farewell_is_due(&self, it: &Received) -> bool {
        let (peer, key) = (it.message.sender(), it.message.key());
        let tables = self.before;
        let marked = tables.revoked.contains_key(&peer) || key_is_marked(tables, key);
        let remembered = !it.path.is_relayed()
            && !it.message.is_version_1()
            && tables.floor.get(&peer).is_some_and(|floor| floor.key == Some(*key) && it.message.stamp() > floor.seen);
        // what is doubtful is vouched for by nobody.
        let speaks = self.decides(it) || remembered;
        marked && speaks && !self.after.trusted.contains_key(&peer) && !request_lifts(tables, peer, key)
    }
}
