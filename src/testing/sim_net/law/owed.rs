//! what a peer is owed is one decision, the newest, that still stands; and what is tried again.
#![forbid(unsafe_code)]

use super::words::{asked, is_doubtful};
use super::{Law, Seen};
use crate::machine::deliver::Retried;
use crate::machine::effect::{Action, Draft};
use crate::machine::input::{Input, Received};
use crate::peer::{NodeId, PublicKey};
use crate::tables::Owed;
use crate::testing::model::PlainView;
use crate::wire::message::Kind;

/// whether a decision stands, as far as the tables say.
pub(super) fn stands(tables: &PlainView, peer: NodeId, kind: Kind, for_key: Option<PublicKey>) -> bool {
    let record = tables.trusted.get(&peer);
    let trusted = record.is_some();
    //
    let is_for_it = record.is_some_and(|record| record.public_key == for_key);
    (trusted || !tables.ignored.contains_key(&peer))
        && match kind {
            Kind::Accept => is_for_it,
            Kind::Reject => !is_for_it && !tables.revoked.contains_key(&peer),
            Kind::Revoke => tables.revoked.contains_key(&peer) && asked(tables, peer).is_none(),
            Kind::Request => false,
        }
}

impl Seen<'_> {
    pub(super) fn what_is_owed_is_so(&self) -> Law {
        for (peer, it) in &self.after.owed {
            self.must(
                "R-202",
                stands(self.after, *peer, it.kind, it.for_key),
                "a peer is owed what does not stand any more",
            )?;
        }
        for (peer, was, is) in self.moved(|tables| &tables.owed) {
            match is {
                Some(is) => self.is_owed_anew(peer, was, is)?,
                None => self.is_owed_no_more(peer, was)?,
            }
        }
        self.must("R-205", self.after.owed.len() <= self.rules.limits.owed_max, "more is owed than may be")?;
        match self.input {
            Input::Undelivered { draft } => self.what_did_not_leave_is_owed(draft),
            Input::Delivered { peer, kind, stamp } => {
                let was = self.before.owed.get(peer).filter(|was| was.kind == *kind && was.since <= *stamp);
                self.must("R-201", was.is_none() || !self.after.owed.contains_key(peer), "what has left is still owed")
            }
            Input::Retry { peer, what, nonce } => match what {
                Retried::Request => self.request_is_tried(*peer, *nonce),
                Retried::Answer => self.answer_is_tried(*peer, *nonce),
            },
            Input::Housekeeping => {
                let is_old = self.after.owed.values().any(|it| self.is_older(it.since_tick));
                self.must("R-55", !is_old, "something is owed for too long")
            }
            _ => Ok(()),
        }
    }

    fn is_owed_anew(&self, peer: NodeId, was: Option<&Owed>, is: &Owed) -> Law {
        let Input::Undelivered { draft } = self.input else {
            return Err("R-201: something is owed that was not tried".to_owned());
        };
        let is_it = draft.to == peer && (draft.kind, draft.nonce, draft.answers) == (is.kind, is.nonce, is.answers);
        self.must("R-274", is.for_key == draft.for_key, "a decision is owed for another key than it was made for")?;
        self.must("R-201", is_it && is.reason == draft.reason, "something else is owed than did not leave")?;
        self.must(
            "R-202",
            was.is_none_or(|was| was.since <= is.since),
            "an older decision took the place of a newer one",
        )
    }

    /// the request has the nonce that was refused, under the key that was, and that refusal is still owed.
    pub(super) fn is_owed_refusal(&self, it: &Received) -> bool {
        let (peer, tables) = (it.message.sender(), self.before);
        let (key, nonce) = (Some(*it.message.key()), it.message.nonce());
        let is_it = |owed: &Owed| owed.kind == Kind::Reject && owed.for_key == key && owed.answers == nonce;
        it.message.kind() == Kind::Request
            && nonce.is_some()
            && tables.owed.get(&peer).is_some_and(is_it)
            && stands(tables, peer, Kind::Reject, key)
            && asked(tables, peer).is_none()
            && !is_doubtful(tables, it)
    }

    fn is_owed_no_more(&self, peer: NodeId, was: Option<&Owed>) -> Law {
        let Some(was) = was else { return Ok(()) };
        let is_for_a_reason = match self.input {
            Input::Delivered { peer: of, kind, .. } => *of == peer && *kind == was.kind,
            Input::Housekeeping => self.is_older(was.since_tick) || !stands(self.after, peer, was.kind, was.for_key),
            Input::Undelivered { .. } => self.before.owed.len() >= self.rules.limits.owed_max,
            Input::OwnEntries => peer == self.rules.own_id,
            // the opposite was decided, or the same anew, which is on its way by itself.
            Input::Operator(_) | Input::Message(_) => {
                let sends = self.step().is_some_and(|step| {
                    step.effects.iter().any(|it| matches!(&it.action, Action::Send(draft) | Action::SendVersion1(draft) if draft.to == peer && draft.kind != Kind::Request))
                });
                !stands(self.after, peer, was.kind, was.for_key)
                    || sends
                    || self.before.trusted.get(&peer) != self.after.trusted.get(&peer)
            }
            // the registry has bound the record, or ended it.
            _ => [self.before, self.after].iter().any(|tables| !stands(tables, peer, was.kind, was.for_key)),
        };
        self.must("R-202", is_for_a_reason, "a decision is owed no more though it was not told and stands")
    }

    ///
    fn what_did_not_leave_is_owed(&self, draft: &Draft) -> Law {
        let peer = draft.to;
        let newer = self.before.owed.get(&peer).is_some_and(|was| was.since > draft.stamp);
        let is_full = self.before.owed.len() >= self.rules.limits.owed_max;
        let must = stands(self.before, peer, draft.kind, draft.for_key) && !newer && !is_full;
        let is = self.after.owed.get(&peer).is_some_and(|is| is.kind == draft.kind && is.nonce == draft.nonce);
        let is_same = self.before.owed.get(&peer).is_some_and(|was| was.kind == draft.kind && was.nonce == draft.nonce);
        self.must("R-201", !must || is || is_same, "a decision that did not leave is not owed")
    }

    fn request_is_tried(&self, peer: NodeId, nonce: crate::tables::Nonce) -> Law {
        let open = asked(self.before, peer).filter(|asked| asked.nonce == nonce);
        let paused = open.is_some_and(|asked| asked.refused.is_some());
        let sends: Vec<&Draft> = self.sent_to(peer).collect();
        let is_it = matches!(sends.as_slice(), [draft] if draft.kind == Kind::Request && draft.nonce == nonce);
        let is_so = if open.is_some() { is_it || (paused && sends.is_empty()) } else { sends.is_empty() };
        self.must("R-200", is_so, "an open request is not tried again, or another one is")
    }

    fn answer_is_tried(&self, peer: NodeId, nonce: crate::tables::Nonce) -> Law {
        let owed = self.before.owed.get(&peer).filter(|owed| owed.nonce == nonce);
        let sends: Vec<&Draft> = self.sent_to(peer).collect();
        let is_so = match owed {
            Some(owed) => matches!(sends.as_slice(), [draft]
                if (draft.kind, draft.nonce, draft.answers, draft.for_key) == (owed.kind, nonce, owed.answers, owed.for_key)),
            None => sends.is_empty(),
        };
        self.must("R-201", is_so, "what is owed is not tried again, or something else is")
    }

    fn sent_to(&self, peer: NodeId) -> impl Iterator<Item = &Draft> {
        let effects = self.step().map(|step| step.effects.as_slice()).unwrap_or_default();
        effects.iter().filter_map(move |effect| match &effect.action {
            Action::Send(draft) | Action::SendVersion1(draft) if draft.to == peer => Some(draft),
            _ => None,
        })
    }
}
