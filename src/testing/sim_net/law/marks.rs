//! What must hold of marks, of the ignored, and of whatever ends trust.
#![forbid(unsafe_code)]

use super::super::told::asked;
use super::Seen;
use crate::machine::effect::{Action, When};
use crate::machine::event::{Event, TrustState};
use crate::machine::input::{Command, Input, PeerOrKey};
use crate::peer::{NodeId, PublicKey};

impl Seen<'_> {
    /// what an ignored peer says, or is said under an ignored key, has no effect, unless the peer is trusted.
    pub(super) fn the_ignored_are_not_heard(&self) -> Result<(), String> {
        let Some(it) = self.received() else { return Ok(()) };
        let (peer, key) = (it.message.sender(), *it.message.key());
        let is_ignored =
            self.before.ignored.contains_key(&peer) || self.before.ignored_keys.contains_key(key.as_bytes());
        if is_ignored && !self.before.trusted.contains_key(&peer) && self.answer.is_ok() {
            return Err(format!("{peer} is ignored, and was heard"));
        }
        Ok(())
    }

    /// trust that ends, for whatever reason, is told, cuts the tunnel, and is reported, all of it at once.
    pub(super) fn losses_are_enforced(&self) -> Result<(), String> {
        let Ok(step) = self.answer else { return Ok(()) };
        for (peer, was) in &self.before.trusted {
            let is = self.after.trusted.get(peer);
            let other_key = is.is_some_and(|is| was.public_key.is_some() && is.public_key != was.public_key);
            if is.is_some() && !other_key {
                continue;
            }
            let any = |which: &dyn Fn(&Action) -> bool| {
                step.effects.iter().any(|effect| effect.when == When::Now && which(&effect.action))
            };
            let cut = any(&|action| matches!(action, Action::Disconnect { peer: of, .. } if of == peer));
            let reported = any(&|action| matches!(action, Action::ReportRevoke { peer: of } if of == peer));
            let lost = |event: &Event| matches!(event, Event::TrustChanged { peer: of, state: TrustState::Revoked, .. } if of == peer);
            if !(cut && reported && step.events.iter().any(lost)) {
                return Err(format!("{peer} lost trust, and was not cut off, or nobody was told"));
            }
        }
        Ok(())
    }

    pub(super) fn marks_move_for_a_reason(&self) -> Result<(), String> {
        for (peer, at) in &self.after.revoked {
            let was = self.before.revoked.get(peer);
            if was != Some(at) && !self.is_command(*peer, |it| matches!(it, Command::Revoke { .. })) {
                return Err(format!("{peer} is marked as revoked, but nobody revoked it"));
            }
            if was.is_some_and(|was| was.at != at.at) {
                return Err(format!("{peer} was revoked before, and the mark has forgotten since when"));
            }
        }
        let was_trusted = |peer: &NodeId| self.after.trusted.contains_key(peer);
        for (peer, mark) in self.before.revoked.iter().filter(|(peer, _)| !self.after.revoked.contains_key(peer)) {
            let asked = asked(self.before, *peer).and_then(|outgoing| outgoing.lift) == Some(mark.id);
            let lifted = match self.command() {
                Some((Command::ForgetRevocation { .. }, of)) => of == *peer,
                Some((Command::Approve { lift, .. } | Command::Grant { lift, .. }, of)) => {
                    of == *peer && *lift == Some(mark.id) && was_trusted(peer)
                }
                Some(_) => false,
                None => asked && was_trusted(peer) && self.received().is_some(),
            };
            if !lifted {
                return Err(format!("the mark of {peer} was lifted, but not by an operator who was shown it"));
            }
        }
        for (key, mark) in &self.after.revoked_keys {
            let by_operator =
                matches!(self.input, Input::Operator(Command::RevokeKey { key: of, .. }) if of.as_bytes() == key);
            if self.before.revoked_keys.get(key) != Some(mark) && !by_operator {
                return Err("a key is marked as revoked, but nobody revoked it".to_owned());
            }
        }
        let gone = self.before.revoked_keys.iter().filter(|(key, _)| !self.after.revoked_keys.contains_key(*key));
        for (key, mark) in gone {
            let is_under_it = |peer: &NodeId| {
                self.after.trusted.get(peer).is_some_and(|it| it.public_key.is_some_and(|of| of.as_bytes() == key))
            };
            let lifted = match self.input {
                Input::Operator(Command::ForgetRevocation { of: PeerOrKey::Key(of) }) => of.as_bytes() == key,
                Input::Operator(Command::Approve { lift, peer, .. }) => *lift == Some(mark.id) && is_under_it(peer),
                Input::Operator(Command::Grant { lift, record }) => {
                    *lift == Some(mark.id) && is_under_it(&record.node_id)
                }
                Input::Message(it) => {
                    let peer = it.message.sender();
                    let lift = asked(self.before, peer).and_then(|outgoing| outgoing.lift);
                    lift == Some(mark.id) && is_under_it(&peer)
                }
                _ => false,
            };
            if !lifted {
                return Err("the mark of a key was lifted, but not by an operator who was shown it".to_owned());
            }
        }
        // nobody comes to be trusted under a key that is marked.
        for (peer, record) in &self.after.trusted {
            let is_new = self.before.trusted.get(peer).is_none_or(|was| was.public_key != record.public_key);
            if is_new && record.public_key.is_some_and(|key| self.after.revoked_keys.contains_key(key.as_bytes())) {
                return Err(format!("{peer} is trusted under a key that is marked as revoked"));
            }
        }
        Ok(())
    }

    /// Whether our operator has revoked this key.
    pub(super) fn is_key_marked(&self, key: PublicKey) -> bool {
        self.before.revoked_keys.contains_key(key.as_bytes())
    }

    /// Whether our operator has revoked the peer, or the key.
    pub(super) fn is_marked(&self, peer: NodeId, key: PublicKey) -> bool {
        self.before.revoked.contains_key(&peer) || self.is_key_marked(key)
    }

    /// Whether our open request names every mark that there is on the peer and the key.
    pub(super) fn request_lifts(&self, peer: NodeId, key: PublicKey) -> bool {
        let lift = asked(self.before, peer).and_then(|outgoing| outgoing.lift);
        let marks = self.before.revoked.get(&peer).into_iter().chain(self.before.revoked_keys.get(key.as_bytes()));
        lift.is_some() && marks.into_iter().all(|mark| Some(mark.id) == lift)
    }
}
