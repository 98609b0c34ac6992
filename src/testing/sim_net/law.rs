//! What must hold of one step, in the words of `docs/protocol.md`.
//!
//! INVARIANT: nothing in here was taken from the code of the rules; a law says what the document says, with its number.
//! Where both disagree, one of them is wrong, and the document decides which.
//!
//! A law is of one of two forms. *This changed, so one of these must have happened*: nothing more may happen than the
//! document allows. *This happened, so this must be so*: nothing less may. `verdict` and `operator` say beforehand what a
//! message and a command come to, from the tables before and the input alone.
#![forbid(unsafe_code)]

mod effects;
mod events;
mod floors;
mod marks;
mod operator;
mod owed;
mod requests;
mod successors;
mod trust;
mod verdict;
mod waiting;
pub(super) mod words;

use core::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;

use verdict::Ruling;

use crate::machine::input::{Command, Input, Received};
use crate::machine::outcome::{Outcome, Rules, Step};
use crate::machine::rejection::Rejection;
use crate::peer::{NodeId, PublicKey};
use crate::testing::model::PlainView;
use crate::time::{Now, WallMillis};

/// What a law comes to: nothing, or what does not hold.
pub(super) type Law = Result<(), String>;

/// One step: what there was, what came, what it was answered with, and what there is now.
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
    /// When the node began its life, by its wall clock.
    pub(super) began: WallMillis,
    /// The nonces of all requests that a relay has had.
    pub(super) given: &'a BTreeSet<[u8; 16]>,
    /// The rules of which there was an occasion.
    pub(super) applied: RefCell<BTreeSet<&'static str>>,
    /// What the document says of the message, once somebody has asked.
    pub(super) ruled: OnceCell<Ruling>,
}

impl Seen<'_> {
    /// The first law that does not hold.
    pub(super) fn judge(&self) -> Law {
        self.refusals_change_nothing()?;
        self.messages_come_to_what_they_must()?;
        self.commands_come_to_what_they_must()?;
        self.trust_moves_for_a_reason()?;
        self.requests_move_for_a_reason()?;
        self.who_waits_does_so_for_a_reason()?;
        self.marks_move_for_a_reason()?;
        self.floors_move_for_a_reason()?;
        self.successors_are_named_by_the_key_before_them()?;
        self.what_is_owed_is_so()?;
        self.what_happened_is_told()?;
        self.what_must_be_done_is_asked_for()
    }

    /// Notes an occasion of this rule, and says what is wrong if it was broken.
    pub(super) fn must(&self, rule: &'static str, holds: bool, what: &str) -> Law {
        self.applied.borrow_mut().insert(rule);
        if holds { Ok(()) } else { Err(format!("{rule}: {what}")) }
    }

    /// What was refused changes nothing.
    fn refusals_change_nothing(&self) -> Law {
        if self.answer.is_ok() || self.before == self.after {
            Ok(())
        } else {
            Err("refused, and something changed".to_owned())
        }
    }

    pub(super) fn step(&self) -> Option<&Step> {
        self.answer.as_ref().ok()
    }

    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.step().map(|step| step.outcome)
    }

    pub(super) const fn received(&self) -> Option<&Received> {
        if let Input::Message(it) = self.input { Some(it) } else { None }
    }

    pub(super) const fn command(&self) -> Option<&Command> {
        if let Input::Operator(command) = self.input { Some(command) } else { None }
    }

    /// Every peer about whom something changed in one table, with what was and what is.
    pub(super) fn moved<'t, T: PartialEq + 't>(
        &'t self,
        table: impl Fn(&'t PlainView) -> &'t std::collections::BTreeMap<NodeId, T>,
    ) -> impl Iterator<Item = (NodeId, Option<&'t T>, Option<&'t T>)> {
        let (before, after) = (table(self.before), table(self.after));
        let gone_or_changed = before.iter().filter_map(move |(peer, was)| {
            let is = after.get(peer);
            (is != Some(was)).then_some((*peer, Some(was), is))
        });
        let new =
            after.iter().filter(move |(peer, _)| !before.contains_key(peer)).map(|(peer, is)| (*peer, None, Some(is)));
        gone_or_changed.chain(new)
    }
}
