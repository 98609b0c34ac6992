//! What must hold of refusals that are shown, and of decisions that peers have not been told.
#![forbid(unsafe_code)]

use super::law::{Seen, answers_newest, is_contradicted, is_vouched_for};
use crate::machine::input::Input;
use crate::peer::NodeId;
use crate::tables::{Outgoing, Owed};
use crate::testing::model::PlainView;
use crate::wire::message::Kind;

/// The request to this peer that waits for an answer. One that the peer refused only shows that.
pub(super) fn asked(tables: &PlainView, peer: NodeId) -> Option<&Outgoing> {
    let is_open = |entry: &&Outgoing| entry.refused.as_ref().is_none_or(|refusal| !refusal.authentic);
    tables.outgoing.get(&peer).filter(is_open)
}

impl Seen<'_> {
    /// whether all that changed is that a refusal which answers the request is shown.
    pub(super) fn is_refused(&self, peer: NodeId, was: &Outgoing, is: &Outgoing) -> bool {
        let Some(it) = self.received().filter(|it| it.message.sender() == peer) else { return false };
        let authentic = is_vouched_for(self.before, it);
        let shown = is.refused.as_ref().is_some_and(|refusal| {
            (refusal.key, refusal.authentic, refusal.tick) == (*it.message.key(), authentic, self.now.tick)
        });
        let a_moment_ago =
            was.refused.as_ref().is_some_and(|before| self.now.tick.millis_since(before.tick) < 3_600_000);
        let may = it.message.kind() == Kind::Reject
            && answers_newest(self.before, it)
            && self.before.revoked.get(&peer).is_none_or(|mark| was.lift == Some(mark.id))
            && (authentic || !(it.message.is_version_1() || a_moment_ago || is_contradicted(it)));
        may && shown && Outgoing { refused: None, ..was.clone() } == Outgoing { refused: None, ..is.clone() }
    }

    /// whether all that changed is which request of the peer its refusal answers: it asks again under the key that was
    /// refused, and nobody has asked it.
    fn is_told_of_its_refusal(&self, peer: NodeId, was: &Owed, is: &Owed) -> bool {
        let Some(it) = self.received().filter(|it| it.message.sender() == peer) else { return false };
        let message = &it.message;
        let refused = self.before.refused.get(&peer).map_or(&[][..], |refused| &refused[..]);
        let newest = refused.iter().map(|it| it.at).max();
        let first = refused.iter().find(|it| Some(it.at) == newest).map(|it| it.key);
        message.kind() == Kind::Request
            && was.kind == Kind::Reject
            && first == Some(*message.key())
            && asked(self.before, peer).is_none()
            && message.nonce().is_some()
            && *is == Owed { answers: message.nonce(), ..was.clone() }
    }

    /// what is owed is what could not be sent and is still so.
    pub(super) fn what_is_owed_is_so(&self) -> Result<(), String> {
        for (peer, is) in &self.after.owed {
            let was = self.before.owed.get(peer);
            let failed = matches!(self.input, Input::Undelivered { draft }
                if draft.to == *peer && (draft.kind, draft.nonce) == (is.kind, is.nonce));
            if was != Some(is) && !failed && !was.is_some_and(|was| self.is_told_of_its_refusal(*peer, was, is)) {
                return Err(format!("{peer} is owed what was not tried"));
            }
            if was == Some(is) && !self.touches(*peer) {
                continue;
            }
            let stands = match is.kind {
                Kind::Request => false,
                //
                Kind::Accept => self.after.trusted.get(peer).is_some_and(|it| it.public_key == is.for_key),
                Kind::Reject => {
                    let under = self.after.trusted.get(peer).map(|it| it.public_key);
                    under != Some(is.for_key) && !self.after.revoked.contains_key(peer)
                }
                Kind::Revoke => self.after.revoked.contains_key(peer) && asked(self.after, *peer).is_none(),
            };
            //
            let is_heard = self.after.trusted.contains_key(peer) || !self.after.ignored.contains_key(peer);
            if !(stands && is_heard) {
                return Err(format!("{peer} is owed {:?}, which is no longer so", is.kind));
            }
        }
        for (peer, was) in self.before.owed.iter().filter(|(peer, _)| !self.after.owed.contains_key(peer)) {
            let told = matches!(self.input, Input::Delivered { peer: of, kind, .. } if of == peer && *kind == was.kind);
            let full = self.before.owed.len() >= self.rules.limits.owed_max;
            let made_room = full && matches!(self.input, Input::Undelivered { .. });
            let expired = matches!(self.input, Input::Housekeeping);
            if !(told || made_room || expired || self.touches(*peer)) {
                return Err(format!("{peer} is owed nothing any more, and nobody told it"));
            }
        }
        Ok(())
    }

    /// Whether trust in this peer, its mark, our request to it, or that it is ignored changed.
    fn touches(&self, peer: NodeId) -> bool {
        let (before, after) = (self.before, self.after);
        before.trusted.get(&peer) != after.trusted.get(&peer)
            || before.revoked.get(&peer) != after.revoked.get(&peer)
            || before.outgoing.get(&peer) != after.outgoing.get(&peer)
            || before.ignored.contains_key(&peer) != after.ignored.contains_key(&peer)
    }
}
