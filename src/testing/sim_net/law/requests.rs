//! Requests of ours: made by a command, ended by their answer, by an operator or by their age, and by nothing else.
#![forbid(unsafe_code)]

use super::verdict::Verdict;
use super::words::{asked, millis};
use super::{Law, Seen};
use crate::machine::input::{Command, Input, PeerOrKey};
use crate::machine::outcome::Outcome;
use crate::peer::NodeId;
use crate::tables::Outgoing;
use crate::time::Tick;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl Seen<'_> {
    pub(super) fn requests_move_for_a_reason(&self) -> Law {
        for (peer, was, is) in self.moved(|tables| &tables.outgoing) {
            match (was, is) {
                (_, Some(is)) if was.is_none_or(|was| was.nonce != is.nonce) => self.is_made(peer)?,
                (Some(was), Some(is)) => self.changes(peer, was, is)?,
                (Some(was), None) => self.ends_request(peer, was)?,
                (None, _) => {}
            }
        }
        self.refusals_end_requests()?;
        self.relays_are_remembered()?;
        self.new_keys_are_told()?;
        self.limits_of_requests()?;
        self.old_requests_are_gone()
    }

    fn is_made(&self, peer: NodeId) -> Law {
        let made = matches!(self.input,
            Input::Operator(Command::Request { peer: of, .. }) | Input::Announce { peer: of, .. } if *of == peer);
        self.must("R-41", made, "a request was entered that nobody made")
    }

    /// An entry keeps everything but what a refusal and a relay add.
    fn changes(&self, peer: NodeId, was: &Outgoing, is: &Outgoing) -> Law {
        let same = Outgoing { refused: was.refused.clone(), relayed: was.relayed, ..is.clone() };
        self.must("R-200", same == *was, "an open request has changed")?;
        if was.refused != is.refused {
            let refused = self.received().is_some_and(|it| {
                let verdict = self.ruling(it).verdict;
                it.message.sender() == peer && matches!(verdict, Verdict::Refuses | Verdict::RefusesUnvouched)
            });
            self.must("R-34", refused, "a request is shown as refused, and no refusal came")?;
        }
        if was.relayed != is.relayed {
            let given = matches!(self.input, Input::Relaying { peer: of, nonce } if *of == peer && *nonce == is.nonce);
            self.must("R-197", given && is.relayed, "a request was marked as relayed, or not so any more")?;
        }
        Ok(())
    }

    fn ends_request(&self, peer: NodeId, was: &Outgoing) -> Law {
        let is_for_a_reason = match self.input {
            Input::Message(it) if it.message.sender() == peer => {
                let ruling = self.ruling(it);
                matches!(ruling.verdict, Verdict::Trusts | Verdict::Revokes) || ruling.rule == "R-31"
            }
            Input::Operator(command) => match command {
                Command::Cancel { peer: of } | Command::Approve { peer: of, .. } | Command::Revoke { peer: of, .. } => {
                    *of == peer
                }
                Command::Grant { record, .. } => record.node_id == peer,
                Command::RevokeKey { key, .. } => was.expected_key == Some(*key),
                Command::Ignore { of: PeerOrKey::Peer(of) } => *of == peer,
                Command::Ignore { of: PeerOrKey::Key(key) } => was.expected_key == Some(*key),
                Command::Request { .. } => self.is_pushed_out(was),
                _ => false,
            },
            Input::Announce { .. } => self.is_pushed_out(was),
            Input::Housekeeping => self.is_too_old(was),
            Input::OwnEntries => peer == self.rules.own_id,
            _ => false,
        };
        self.must("R-200", is_for_a_reason, "a request ended without a rule that says so")
    }

    /// at the limit one that was refused is forgotten, else the oldest.
    fn is_pushed_out(&self, was: &Outgoing) -> bool {
        let is_refused = |it: &Outgoing| it.refused.as_ref().is_some_and(|refusal| refusal.authentic);
        let mut others = self.before.outgoing.values();
        let is_first = others.all(|other| match (is_refused(was), is_refused(other)) {
            (true, false) => true,
            (false, true) => false,
            _ => other.sent_tick >= was.sent_tick,
        });
        self.before.outgoing.len() >= self.rules.limits.outgoing_max && is_first
    }

    pub(super) fn is_older(&self, since: Tick) -> bool {
        self.now.tick.millis_since(since) > millis(self.rules.config.entry_lifetime)
    }

    ///
    fn is_too_old(&self, it: &Outgoing) -> bool {
        let refusal = it.refused.as_ref().filter(|refusal| refusal.authentic);
        self.is_older(it.sent_tick) || refusal.is_some_and(|refusal| self.now.tick.millis_since(refusal.tick) > DAY_MS)
    }

    fn old_requests_are_gone(&self) -> Law {
        if !matches!(self.input, Input::Housekeeping) {
            return Ok(());
        }
        let is_kept = self.after.outgoing.values().any(|it| self.is_too_old(it));
        self.must("R-55", !is_kept, "a request of ours is kept too long")
    }

    /// what a refusal must come to.
    fn refusals_end_requests(&self) -> Law {
        let Some(it) = self.received() else { return Ok(()) };
        let authentic = match self.outcome() {
            Some(Outcome::Refused) => true,
            Some(Outcome::RefusedUnvouched) => false,
            _ => return Ok(()),
        };
        let peer = it.message.sender();
        let shown = self.after.outgoing.get(&peer).and_then(|is| is.refused.as_ref());
        let is_so = shown.is_some_and(|shown| {
            shown.key == *it.message.key()
                && shown.authentic == authentic
                && shown.tick == self.now.tick
                && shown.reason == it.message.reason().as_str()
        });
        self.must(if authentic { "R-34" } else { "R-204" }, is_so, "a refusal is not shown as it came")?;
        self.must(
            "R-203",
            authentic != asked(self.after, peer).is_some(),
            "a refusal ended what it must not, or did not end what it must",
        )
    }

    ///
    fn relays_are_remembered(&self) -> Law {
        let Input::Relaying { peer, nonce } = self.input else { return Ok(()) };
        let is_newest = asked(self.before, *peer).is_some_and(|asked| asked.nonce == *nonce);
        self.must(
            "R-197",
            self.answer.is_ok() == is_newest,
            "a request that is not our newest went to a relay, or our newest did not",
        )?;
        let is_marked = self.after.outgoing.get(peer).is_some_and(|it| it.relayed);
        self.must("R-197", !is_newest || is_marked, "a request went to a relay and is not marked")
    }

    /// trusted peers that were not told, each once, with a stamp that says so afterwards.
    fn new_keys_are_told(&self) -> Law {
        let Input::Announce { peer, since, nonce } = self.input else { return Ok(()) };
        let sent = |tables: &crate::testing::model::PlainView| tables.floor.get(peer).map(|floor| floor.sent);
        let behind = since.saturating_add(self.reserve());
        // a stamp further ahead was of a clock that was wrong.
        let told = sent(self.before).filter(|sent| sent.millis_since(self.now.wall) <= self.skew() / 3 * 2);
        let is_told = told.is_some_and(|sent| sent > behind);
        let is_due = *peer != self.rules.own_id
            && self.before.trusted.contains_key(peer)
            && asked(self.before, *peer).is_none()
            && !is_told;
        let is_so = self.answer.is_ok() == is_due;
        self.must(
            "R-232",
            is_so,
            "a trusted peer is not told of our new key, or somebody is told to whom it is not due",
        )?;
        if !is_due {
            return Ok(());
        }
        let is = self.after.outgoing.get(peer);
        let is_bare = is.is_some_and(|is| {
            (is.nonce, is.expected_key, is.lift, is.relayed) == (*nonce, None, None, false) && is.refused.is_none()
        });
        self.must("R-232", is_bare, "an announcement is no plain request")?;
        self.must("R-232", sent(self.after) > Some(behind), "who was told would be told again")
    }

    fn limits_of_requests(&self) -> Law {
        let is_within = self.after.outgoing.len() <= self.rules.limits.outgoing_max.max(self.before.outgoing.len());
        self.must("R-41", is_within, "more requests are open than may be")
    }
}
