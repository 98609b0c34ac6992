//! Section 5, marks: they are set by an operator, and go only with one who names them, or with an answer to a request that
//! does. And who is ignored.
#![forbid(unsafe_code)]

use super::words::asked;
use super::{Law, Seen};
use crate::machine::input::{Command, Input, PeerOrKey};
use crate::peer::{NodeId, PublicKey, Revocation, RevocationId};

/// Whose mark.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Peer(NodeId),
    Key([u8; 32]),
}

impl Seen<'_> {
    pub(super) fn marks_move_for_a_reason(&self) -> Law {
        let (before, after) = (self.before, self.after);
        for (peer, was, is) in self.moved(|tables| &tables.revoked) {
            self.mark_moves(Whose::Peer(peer), was, is)?;
        }
        if before.revoked_keys != after.revoked_keys {
            for key in before.revoked_keys.keys().chain(after.revoked_keys.keys()) {
                let (was, is) = (before.revoked_keys.get(key), after.revoked_keys.get(key));
                if was != is {
                    self.mark_moves(Whose::Key(*key), was, is)?;
                }
            }
        }
        self.a_second_revocation_is_another()?;
        self.lifts_name_the_mark_in_force()?;
        self.the_ignored_move_by_operators_alone()
    }

    fn mark_moves(&self, whose: Whose, was: Option<&Revocation>, is: Option<&Revocation>) -> Law {
        let is_new_mark = match (self.command(), whose) {
            (Some(Command::Revoke { peer, .. }), Whose::Peer(of)) => *peer == of,
            (Some(Command::RevokeKey { key, .. }), Whose::Key(of)) => *key.as_bytes() == of,
            _ => false,
        };
        match (was, is) {
            (None, Some(is)) => {
                self.must("R-175", is_new_mark, "a mark was set, and nobody revoked")?;
                self.must("R-175", is.at == self.now.wall, "a mark has another time than now")
            }
            (Some(was), Some(is)) => {
                self.must("R-176", is_new_mark, "a mark changed, and nobody revoked")?;
                self.must("R-176", was.at == is.at, "a mark that was there has another time")
            }
            (Some(was), None) => self.mark_goes(whose, was.id),
            (None, None) => Ok(()),
        }
    }

    fn mark_goes(&self, whose: Whose, id: RevocationId) -> Law {
        let is_of = |peer: NodeId, key: Option<&PublicKey>| match whose {
            Whose::Peer(of) => of == peer,
            Whose::Key(of) => key.is_some_and(|key| *key.as_bytes() == of),
        };
        let is_named = match self.input {
            Input::Operator(Command::ForgetRevocation { of: PeerOrKey::Peer(peer) }) => whose == Whose::Peer(*peer),
            Input::Operator(Command::ForgetRevocation { of: PeerOrKey::Key(key) }) => {
                whose == Whose::Key(*key.as_bytes())
            }
            Input::Operator(Command::Grant { record, lift }) => {
                is_of(record.node_id, record.public_key.as_ref()) && *lift == Some(id)
            }
            Input::Operator(Command::Approve { lift, .. }) => {
                self.approved().is_some_and(|(peer, chosen)| is_of(peer, Some(&chosen.key))) && *lift == Some(id)
            }
            // with trust that is really given, to who was asked with this lift.
            Input::Message(it) => {
                let peer = it.message.sender();
                let lift = asked(self.before, peer).and_then(|asked| asked.lift);
                is_of(peer, Some(it.message.key())) && lift == Some(id) && self.granted(peer).is_some()
            }
            _ => false,
        };
        self.must("R-177", is_named, "a mark went, and nobody who may has named it")
    }

    /// what an operator saw before a revocation that took something away lifts nothing after it.
    fn a_second_revocation_is_another(&self) -> Law {
        let (before, after) = (self.before, self.after);
        let (was, is, took) = match self.command() {
            Some(Command::Revoke { peer, .. }) => {
                let took = before.pending.contains_key(peer) || before.outgoing.contains_key(peer);
                (before.revoked.get(peer), after.revoked.get(peer), took)
            }
            Some(Command::RevokeKey { key, .. }) => {
                let took = before.pending.values().any(|it| it.keys().any(|it| it.key == *key))
                    || before.outgoing.values().any(|it| it.expected_key == Some(*key));
                (before.revoked_keys.get(key.as_bytes()), after.revoked_keys.get(key.as_bytes()), took)
            }
            _ => return Ok(()),
        };
        let (Some(was), Some(is)) = (was, is) else { return Ok(()) };
        self.must(
            "R-176",
            took != (was.id == is.id),
            "a mark has a new id without cause, or its old one in spite of one",
        )
    }

    /// I-3, R-178
    fn lifts_name_the_mark_in_force(&self) -> Law {
        for (peer, mark) in &self.after.revoked {
            if let Some(outgoing) = self.after.outgoing.get(peer) {
                self.must(
                    "R-178",
                    outgoing.lift == Some(mark.id),
                    "a revoked peer is asked without its mark being named",
                )?;
            }
            self.must("R-175", !self.after.trusted.contains_key(peer), "a peer is trusted and revoked")?;
        }
        Ok(())
    }

    ///
    fn the_ignored_move_by_operators_alone(&self) -> Law {
        let (before, after) = (self.before, self.after);
        // trust ends the ignoring of its peer, and no other.
        let is_granted = |peer: &NodeId| after.trusted.get(peer) != before.trusted.get(peer);
        let mut expected = before.ignored.clone();
        expected.retain(|peer, _| !(after.trusted.contains_key(peer) && is_granted(peer)));
        let is_both = |peer: &NodeId| after.ignored.contains_key(peer) && is_granted(peer);
        self.must("R-282", !after.trusted.keys().any(is_both), "a peer is trusted anew and ignored")?;
        let changed = expected != after.ignored || before.ignored_keys != after.ignored_keys;
        let is_asked = matches!(self.command(), Some(Command::Ignore { .. } | Command::Unignore { .. }));
        self.must("R-184", !changed || is_asked, "who is ignored changed without an operator")?;
        let Some(it) = self.received() else { return Ok(()) };
        if !self.is_ignored(it.message.sender(), it.message.key()) {
            return Ok(());
        }
        let is_silent = self.step().is_none_or(|step| step.effects.is_empty() && step.events.is_empty());
        self.must("R-184", is_silent && before == after, "who is ignored was heard")
    }
}
