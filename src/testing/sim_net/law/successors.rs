//! Section 11: what keys named as their successors is remembered by peer, when a proven message comes first and for good;
//! it may become void, and a key may be replaced.
#![forbid(unsafe_code)]

use super::operator::refused_by;
use super::words::{
    is_vouched_for, key_is_marked, named_by, record_key, said_of, statement_counts, statement_is_void,
    statement_says_something,
};
use super::{Law, Seen};
use crate::event::Event;
use crate::machine::input::{Command, Input, Received};
use crate::machine::outcome::Outcome;
use crate::peer::{NodeId, PublicKey, Void};
use crate::tables::SUCCESSIONS_PER_PEER_MAX;
use crate::tables::Succession;

impl Seen<'_> {
    pub(super) fn successors_are_named_by_the_key_before_them(&self) -> Law {
        let (before, after) = (&self.before.successors, &self.after.successors);
        self.proofs_hold()?;
        let most = self.rules.limits.successors_max.max(before.len());
        self.must("R-221", after.len() <= most, "of more peers successors are remembered than may be")?;
        for (peer, was, is) in self.moved(|tables| &tables.successors) {
            let Some(is) = is else {
                let is_own = matches!(self.input, Input::OwnEntries) && peer == self.rules.own_id;
                return self.must("R-221", is_own, "what keys had named was forgotten");
            };
            self.only_grows(peer, was.map_or(&[], |was| was), is)?;
        }
        self.what_was_decided_is_void()?;
        self.trust_replaces()?;
        self.proven_keys_are_remembered()
    }

    fn only_grows(&self, peer: NodeId, was: &[Succession], is: &[Succession]) -> Law {
        let most = SUCCESSIONS_PER_PEER_MAX.max(was.len());
        self.must("R-221", is.len() <= most, "more is remembered of a peer's keys than may be")?;
        let same = |(was, is): (&Succession, &Succession)| (was.old, was.new) == (is.old, is.new);
        let is_kept = is.len() >= was.len() && was.iter().zip(is).all(same);
        self.must("R-221", is_kept, "a statement was forgotten, or has changed")?;
        for (was, is) in was.iter().zip(is) {
            let may = was.void == is.void || (was.void.is_none() && self.may_be_void(peer, was, is.void));
            self.must("R-270", may, "a statement counts again that was void, or is void for no reason")?;
            let is_given = self.gives_trust_in(peer, if is.replaced { &is.new } else { &is.old });
            let may = was.replaced == is.replaced || is_given;
            self.must("R-272", may, "a key is replaced that was not, or is not that was")?;
        }
        is.iter().skip(was.len()).try_for_each(|is| self.is_named(peer, is))
    }

    /// what makes this statement void.
    fn may_be_void(&self, peer: NodeId, it: &Succession, why: Option<Void>) -> bool {
        let must = self.must_be_void(peer, it);
        must.is_some() && must == why
    }

    /// whether this step makes a statement void, and why.
    fn must_be_void(&self, peer: NodeId, it: &Succession) -> Option<Void> {
        let names = |key: &PublicKey| it.new == *key && it.old != *key;
        let waits =
            |key: &PublicKey| self.before.pending.get(&peer).is_some_and(|was| was.keys().any(|it| it.key == *key));
        if it.replaced && self.gives_trust_in(peer, &it.old) {
            return Some(Void::Refused);
        }
        match self.command().filter(|_| self.answer.is_ok())? {
            Command::Revoke { peer: of, .. } if *of == peer => Some(Void::Revoked),
            Command::EndUnderKey { peer: of, key, .. } if *of == peer && names(key) => Some(Void::Revoked),
            Command::Reject { peer: of, named, .. } if *of == peer && it.old != it.new => {
                let refused = refused_by(self.before, peer, *named);
                refused.iter().any(|refused| refused.key == it.new).then_some(Void::Refused)
            }
            Command::Approve { peer: of, .. } if *of == peer && it.old != it.new && waits(&it.new) => {
                (record_key(self.after, peer) != Some(it.new)).then_some(Void::Refused)
            }
            _ => None,
        }
    }

    /// Whether trust in the peer under this key begins with this step.
    fn gives_trust_in(&self, peer: NodeId, key: &PublicKey) -> bool {
        record_key(self.after, peer) == Some(*key) && self.granted(peer).is_some()
    }

    ///
    fn what_was_decided_is_void(&self) -> Law {
        for (peer, was) in &self.before.successors {
            let is = said_of(self.after, *peer);
            for (was, is) in was.iter().zip(is).filter(|(was, _)| was.void.is_none()) {
                let must = self.must_be_void(*peer, was).is_some();
                self.must(
                    "R-270",
                    !must || is.void.is_some(),
                    "a statement counts though its key was refused or revoked",
                )?;
            }
        }
        Ok(())
    }

    /// trust in a key replaces those that named it, and ends the memory that it was replaced.
    fn trust_replaces(&self) -> Law {
        for (peer, is) in self.after.trusted.iter().filter(|(peer, is)| self.before.trusted.get(*peer) != Some(is)) {
            let Some(key) = is.public_key else { continue };
            for it in said_of(self.after, *peer).iter().filter(|it| it.old != it.new) {
                let is_so = (it.new != key || it.replaced) && (it.old != key || !it.replaced);
                self.must(
                    "R-272",
                    is_so,
                    "trust was given to a key, and what replaced it or what it replaced is not so",
                )?;
            }
        }
        Ok(())
    }

    /// a new one.
    fn is_named(&self, peer: NodeId, is: &Succession) -> Law {
        let it = self.received().filter(|it| it.message.sender() == peer && named_by(it) == Some(is.old));
        let Some(it) = it else { return Err("R-221: a successor was remembered that no message named".to_owned()) };
        let matters = record_key(self.before, peer) == Some(is.old)
            || self.before.floor.get(&peer).is_some_and(|floor| floor.key == Some(is.old))
            || said_of(self.before, peer).iter().any(|it| it.old == is.old);
        self.must("R-221", matters, "a successor was remembered of a key that the peer never had")?;
        // A key of which no statement counts any more is kept as that.
        let is_so = if statement_counts(self.before, it) { is.new == *it.message.key() } else { is.new == is.old };
        self.must("R-218", is_so, "a key has another successor than it named first")?;
        self.must("R-270", is.void.is_none(), "a statement is void when it comes")
    }

    /// what was proven is remembered.
    fn proven_keys_are_remembered(&self) -> Law {
        let Some(it) = self.received().filter(|_| self.answer.is_ok()) else { return Ok(()) };
        let Some(old) = named_by(it).filter(|_| self.is_proven(it)) else { return Ok(()) };
        let came_to_something = !matches!(self.outcome(), Some(Outcome::Dropped(_)));
        let said = said_of(self.after, it.message.sender());
        let is_kept = said.iter().any(|said| said.old == old && said.new == *it.message.key());
        self.must("R-221", !came_to_something || is_kept, "a proven key was not remembered")
    }

    /// what waits as proven is proven by the key of the record, and names the one successor of that key; a
    /// statement that is refused is told, once for each key, and proves nothing from then on.
    fn proofs_hold(&self) -> Law {
        let after = self.after;
        for (peer, entry) in &after.pending {
            let Some(old) = entry.proven_by else { continue };
            let is_same =
                self.before.pending.get(peer).is_some_and(|was| was.key == entry.key && was.proven_by == Some(old));
            let counts = said_of(after, *peer)
                .iter()
                .filter(|it| it.old == old)
                .all(|it| (it.new == entry.key) == it.void.is_none());
            let is_so = record_key(after, *peer) == Some(old)
                && counts
                // what was proven by a key that is revoked goes with the record, which the search ends.
                && (is_same || !key_is_marked(after, &old));
            self.must("R-217", is_so, "a key waits as proven, and is not")?;
            let it = self.received().filter(|it| it.message.sender() == *peer && named_by(it) == Some(old));
            self.must("R-217", is_same || it.is_some(), "a key waits as proven without a message that says so")?;
        }
        let told =
            self.step().is_some_and(|step| step.events.iter().any(|it| matches!(it, Event::RotationRefused { .. })));
        let refused = self.received().filter(|it| {
            statement_says_something(self.before, it)
                && !statement_counts(self.before, it)
                && !statement_is_void(self.before, it)
        });
        if told {
            self.must("R-218", refused.is_some(), "a statement was told as refused that was not")?;
        }
        if let Some(it) = refused.filter(|it| self.is_to_be_told(it)) {
            let rule = self.ruling(it).rule;
            self.must("R-218", told, &format!("a statement that is refused is not told, of a message of {rule}"))?;
        }
        if let Some(it) = refused.filter(|it| !is_vouched_for(self.before, it)) {
            let nothing =
                self.after.pending.get(&it.message.sender()).is_none_or(|entry| entry.proven_by != named_by(it));
            self.must("R-218", nothing || self.answer.is_err(), "a statement that is refused left something proven")?;
        }
        Ok(())
    }

    /// a statement that is refused, whatever else is wrong with its message: of a key that belonged to the peer, unless
    /// it was told before, or cannot be remembered.
    fn is_to_be_told(&self, it: &Received) -> bool {
        let (peer, Some(old)) = (it.message.sender(), named_by(it)) else { return false };
        let said = said_of(self.before, peer);
        let belonged = record_key(self.before, peer) == Some(old)
            || self.before.floor.get(&peer).is_some_and(|floor| floor.key == Some(old))
            || said.iter().any(|it| it.old == old);
        let was_told = said.iter().any(|it| it.old == old && it.new == old && it.void.is_none());
        let has_room = match said.len() {
            0 => self.before.successors.len() < self.rules.limits.successors_max,
            len => len < SUCCESSIONS_PER_PEER_MAX,
        };
        belonged && !was_told && has_room && self.may_not_come(it).is_none()
    }
}
