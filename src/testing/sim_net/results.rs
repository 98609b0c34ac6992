//! What a step must have come to, if it was taken: the "must" beside the "must not" of `law`.
#![forbid(unsafe_code)]

use super::law::Seen;
use super::told::asked;
use crate::machine::input::{Command, Input};
use crate::machine::outcome::Outcome;
use crate::machine::rejection::Rejection;
use crate::peer::{NodeId, TrustRecord};
use crate::tables::{Outgoing, Pending, PendingKind};
use crate::time::Tick;

impl Seen<'_> {
    /// whether the record had another key, which named this one as its successor, and was mutual.
    fn is_mutual_still(&self, record: &TrustRecord) -> bool {
        let peer = record.node_id;
        let named_by = match self.input {
            Input::Message(it) => it.message.rotation().map(|rotation| *rotation.old_key()),
            Input::Operator(Command::Approve { .. }) => self.before.pending.get(&peer).and_then(|it| it.proven_by),
            _ => None,
        };
        let was = self.before.trusted.get(&peer).filter(|was| was.public_key != record.public_key);
        was.is_some_and(|was| was.mutual && named_by.is_some() && was.public_key == named_by)
    }

    /// The first thing that was left undone.
    pub(super) fn is_done(&self) -> Result<(), String> {
        let Ok(step) = self.answer else {
            return if self.before == self.after { Ok(()) } else { Err("refused, and something changed".to_owned()) };
        };
        let outcome = (step.outcome, self.input);
        match outcome {
            (Outcome::Trusted(record) | Outcome::Approved(record) | Outcome::Granted(record), _) => {
                let peer = record.node_id;
                self.is_known(peer, [true, false, false, false])?;
                let asked = asked(self.before, peer).is_some();
                let mutual = asked || self.is_mutual_still(&record);
                let mutual_if_asked = !matches!(outcome.0, Outcome::Granted(_)) && record.mutual != mutual;
                if self.after.trusted.get(&peer) != Some(&record) || mutual_if_asked {
                    return Err(format!("{peer} is trusted otherwise than was said"));
                }
                Ok(())
            }
            (Outcome::Revoked { .. }, Input::Operator(Command::Revoke { peer, .. })) => {
                self.is_known(*peer, [false, false, false, true])
            }
            (Outcome::KeyRevoked { .. }, Input::Operator(Command::RevokeKey { key, .. })) => {
                let waits = self.after.pending.values().any(|entry| entry.key == *key);
                let asked = self.after.outgoing.values().any(|entry| entry.expected_key == Some(*key));
                let is_marked = self.after.revoked_keys.contains_key(key.as_bytes());
                if waits || asked || !is_marked { Err("a key was revoked by half".to_owned()) } else { Ok(()) }
            }
            (Outcome::RevokedByPeer { .. }, Input::Message(it)) => {
                let peer = it.message.sender();
                self.is_known(peer, [false, false, false, self.before.revoked.contains_key(&peer)])
            }
            //
            (Outcome::Dropped(Rejection::KeyMismatch), Input::Message(it)) => {
                let (peer, shown) = (it.message.sender(), *it.message.key());
                let still = self.after.trusted.get(&peer).is_some_and(|record| record.public_key == Some(shown));
                if still { Err(format!("{peer} is trusted under a key that the registry contradicts")) } else { Ok(()) }
            }
            (Outcome::Kept { .. }, _) => self.is_kept(),
            _ => Ok(()),
        }
    }

    /// Whether the peer is in exactly these tables: trusted, pending, outgoing, revoked.
    fn is_known(&self, peer: NodeId, expected: [bool; 4]) -> Result<(), String> {
        let after = self.after;
        let is = [
            after.trusted.contains_key(&peer),
            after.pending.contains_key(&peer),
            after.outgoing.contains_key(&peer),
            after.revoked.contains_key(&peer),
        ];
        if is == expected { Ok(()) } else { Err(format!("{peer} is in tables {is:?} instead of {expected:?}")) }
    }

    /// what is too old is gone, and nothing else.
    fn is_kept(&self) -> Result<(), String> {
        let lifetime = i64::try_from(self.rules.config.entry_lifetime.as_millis()).unwrap_or(i64::MAX);
        let is_old = |since: Tick| self.now.tick.millis_since(since) > lifetime;
        let (before, after) = (self.before, self.after);
        // an answer goes with the request that it answers.
        let answers_nothing = |peer: &NodeId, it: &Pending| {
            let asked = before.outgoing.get(peer);
            it.kind == PendingKind::AnsweredUnvouched && asked.is_none_or(|asked| is_old(asked.sent_tick))
        };
        let is_gone = |peer: &NodeId, it: &Pending| is_old(it.received_tick) || answers_nothing(peer, it);
        let pending = before.pending.iter().all(|(peer, it)| is_gone(peer, it) != after.pending.contains_key(peer));
        // a refusal is shown for a day.
        let is_shown = |it: &Outgoing| {
            let day = 24 * 60 * 60 * 1000;
            it.refused.as_ref().is_none_or(|it| !it.authentic || self.now.tick.millis_since(it.tick) <= day)
        };
        let outgoing = before.outgoing.iter().all(|(peer, it)| {
            let stays = !is_old(it.sent_tick) && is_shown(it);
            stays == after.outgoing.contains_key(peer)
        });
        let owed = before.owed.iter().all(|(peer, it)| is_old(it.since_tick) != after.owed.contains_key(peer));
        if pending && outgoing && owed {
            Ok(())
        } else {
            Err("an entry is kept too long, or not long enough".to_owned())
        }
    }
}
