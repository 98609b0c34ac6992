//! The rules, bent on purpose: each way must be found out by a simulation, or the simulation is worth nothing.
//!
//! The rules themselves carry no hooks. Most ways show them something that is not so, or change what they answer; the
//! laws go on judging by what is so. The others bend what a node does around the rules.
#![forbid(unsafe_code)]

use super::law::words::{answers_newest, is_vouched_for};
use crate::config::OnRotation;
use crate::event::Event;
use crate::machine::effect::{Action, Effect, When};
use crate::machine::input::{Command, Input, Lookup, Path, Received};
use crate::machine::outcome::{Outcome, Rules, Step};
use crate::machine::rejection::Rejection;
use crate::machine::replay::Seen as Heard;
use crate::machine::step::step;
use crate::machine::view::{Floor, TableChange};
use crate::peer::{Source, TrustRecord};
use crate::tables::Succession;
use crate::testing::model::PlainView;
use crate::time::Now;
use crate::wire::message::Kind;

/// One way of being wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is explained where it is done")]
pub enum Bend {
    PendingKeyIsAuthentic,
    AnswersNotCompared,
    UnvouchedMovesFloor,
    AcceptBeforeDurable,
    AcceptThoughTakenBack,
    RevokedMarkForgotten,
    ApprovesWhateverIsPending,
    UnvouchedRevokes,
    UnvouchedTearsDown,
    FirstAnswerIsBelieved,
    RegistryContradictionIgnored,
    CallersKeyIgnored,
    OldStampsBelieved,
    SentStampForgotten,
    LaterKeyReplacesFirst,
    FarewellWaitsForDisk,
    LiftsMarkAutomatically,
    GrantIsNotTold,
    LostAcceptStaysLost,
    LostFarewellStaysLost,
    FloorNeverMovedBack,
    DurableBeforeSaved,
    DiskLies,
    RestartForgetsRevoked,
    RelayBelieved,
    Version1ByRegistry,
    NetworkWithoutBinding,
    FirstUseUnasked,
    EverybodyApproved,
    SuccessorsTaken,
    BackFillCreates,
    DowngradeAllowed,
    CopiesCount,
    SilenceIsConsent,
    ApprovesWithoutAnswer,
    ApprovesContradicted,
    EndIsSecret,
    FormerFloorForgotten,
    ReserveStaysAtTheEnd,
    RelayedRequestForgotten,
    EntryNotCompared,
    DoubtsForgotten,
    RefusedForgotten,
    LossNotToldFirst,
    AnyLiftWillDo,
    KeyMarkForgotten,
    LossIsNotCut,
    IgnoredAreHeard,
    GrantNotReported,
    RepeatRenewsNothing,
    AnswerOutlivesRequest,
    NothingGrowsOld,
    ConflictNotCounted,
    MarkKeepsItsId,
    MutualForgotten,
    AnotherNetwork,
    FarewellWithoutPause,
    AcceptBeforeCut,
    RefusalHidden,
    NothingIsOwed,
    MismatchNotTold,
    IgnoredStillWait,
    OwedRefusalWaits,
    OwedFarewellStays,
    NewKeyIsToldAgain,
    VoidForgotten,
}

impl Bend {
    /// All of them.
    pub const ALL: [Self; 66] = [
        Self::PendingKeyIsAuthentic,
        Self::AnswersNotCompared,
        Self::UnvouchedMovesFloor,
        Self::AcceptBeforeDurable,
        Self::AcceptThoughTakenBack,
        Self::RevokedMarkForgotten,
        Self::ApprovesWhateverIsPending,
        Self::UnvouchedRevokes,
        Self::UnvouchedTearsDown,
        Self::FirstAnswerIsBelieved,
        Self::RegistryContradictionIgnored,
        Self::CallersKeyIgnored,
        Self::OldStampsBelieved,
        Self::SentStampForgotten,
        Self::LaterKeyReplacesFirst,
        Self::FarewellWaitsForDisk,
        Self::LiftsMarkAutomatically,
        Self::GrantIsNotTold,
        Self::LostAcceptStaysLost,
        Self::LostFarewellStaysLost,
        Self::FloorNeverMovedBack,
        Self::DurableBeforeSaved,
        Self::DiskLies,
        Self::RestartForgetsRevoked,
        Self::RelayBelieved,
        Self::Version1ByRegistry,
        Self::NetworkWithoutBinding,
        Self::FirstUseUnasked,
        Self::EverybodyApproved,
        Self::SuccessorsTaken,
        Self::BackFillCreates,
        Self::DowngradeAllowed,
        Self::CopiesCount,
        Self::SilenceIsConsent,
        Self::ApprovesWithoutAnswer,
        Self::ApprovesContradicted,
        Self::EndIsSecret,
        Self::FormerFloorForgotten,
        Self::ReserveStaysAtTheEnd,
        Self::RelayedRequestForgotten,
        Self::EntryNotCompared,
        Self::DoubtsForgotten,
        Self::RefusedForgotten,
        Self::LossNotToldFirst,
        Self::AnyLiftWillDo,
        Self::KeyMarkForgotten,
        Self::LossIsNotCut,
        Self::IgnoredAreHeard,
        Self::GrantNotReported,
        Self::RepeatRenewsNothing,
        Self::AnswerOutlivesRequest,
        Self::NothingGrowsOld,
        Self::ConflictNotCounted,
        Self::MarkKeepsItsId,
        Self::MutualForgotten,
        Self::AnotherNetwork,
        Self::FarewellWithoutPause,
        Self::AcceptBeforeCut,
        Self::RefusalHidden,
        Self::NothingIsOwed,
        Self::MismatchNotTold,
        Self::IgnoredStillWait,
        Self::OwedRefusalWaits,
        Self::OwedFarewellStays,
        Self::NewKeyIsToldAgain,
        Self::VoidForgotten,
    ];

    /// What the bent rules say.
    pub(super) fn step(self, rules: &Rules, view: &PlainView, now: Now, input: Input) -> Result<Step, Rejection> {
        let (so, it_is, mut rules) = (view, input.clone(), rules.clone());
        let (mut view, mut input) = (view.clone(), input);
        self.show(&mut view, &mut input);
        rules.policy.trust_on_first_use |= self == Self::FirstUseUnasked;
        rules.policy.auto_approve |= self == Self::EverybodyApproved;
        if self == Self::SuccessorsTaken {
            rules.policy.on_rotation = OnRotation::Take;
        }
        let answer = step(&rules, &view, now, input);
        self.change(so, &it_is, answer)
    }

    /// Changes what the rules see.
    fn show(self, view: &mut PlainView, input: &mut Input) {
        match input {
            Input::Message(received) => self.show_message(view, received),
            Input::Operator(Command::Approve { peer, fingerprint, .. }) if self == Self::ApprovesWhateverIsPending => {
                *fingerprint = view.pending.get(peer).map(|entry| entry.key.fingerprint());
            }
            Input::Operator(Command::Approve { lookup, .. })
                if (self == Self::ApprovesWithoutAnswer && *lookup == Lookup::Failed)
                    || (self == Self::ApprovesContradicted && matches!(lookup, Lookup::Found { .. })) =>
            {
                *lookup = Lookup::Unknown;
            }
            Input::Operator(Command::Approve { entry, .. }) if self == Self::EntryNotCompared => *entry = None,
            Input::Operator(Command::Approve { peer, .. }) if self == Self::DoubtsForgotten => {
                if let Some(entry) = view.pending.get_mut(peer) {
                    (entry.authentic, entry.conflicts, entry.source) = (true, 0, Source::Node(*peer));
                }
            }
            Input::Operator(Command::Request { peer, automatic, lift, .. }) if self == Self::LiftsMarkAutomatically => {
                *automatic = false;
                *lift = view.revoked.get(peer).map(|mark| mark.id).or(*lift);
            }
            Input::Operator(Command::Approve { peer, lift, .. }) if self == Self::AnyLiftWillDo => {
                *lift = view.revoked.get(peer).map(|mark| mark.id).or(*lift);
            }
            //
            Input::Announce { peer, .. } if self == Self::NewKeyIsToldAgain => {
                if let Some(floor) = view.floor.get_mut(peer) {
                    floor.sent = Floor::EMPTY.sent;
                }
            }
            Input::LookedUp { peer, .. } if self == Self::BackFillCreates => {
                view.trusted.entry(*peer).or_insert(TrustRecord::new(*peer, None));
            }
            _ => {}
        }
    }

    fn show_message(self, view: &mut PlainView, received: &mut Received) {
        let (peer, key, kind) = (received.message.sender(), *received.message.key(), received.message.kind());
        let vouch = |received: &mut Received| {
            if !matches!(received.lookup, Lookup::Found { .. }) {
                received.lookup = Lookup::Found { key, networks: Vec::new() };
            }
        };
        let is_vouched_for = is_vouched_for(view, received);
        match self {
            Self::PendingKeyIsAuthentic if view.pending.get(&peer).is_some_and(|entry| entry.key == key) => {
                vouch(received);
            }
            Self::AnswersNotCompared => {
                if let (Some(outgoing), Some(answers)) = (view.outgoing.get_mut(&peer), received.message.answers()) {
                    outgoing.nonce = answers;
                }
            }
            Self::RelayBelieved => {
                if let Path::Relayed { handed_in_by } = received.path {
                    let source = received.path.source();
                    received.path = Path::Direct { authenticated: Some(handed_in_by), source };
                }
            }
            Self::Version1ByRegistry if matches!(received.lookup, Lookup::Found { .. }) => {
                let source = received.path.source();
                received.path = Path::Direct { authenticated: Some(peer), source };
            }
            Self::NetworkWithoutBinding
                if kind == Kind::Request && !matches!(received.lookup, Lookup::Found { .. }) =>
            {
                received.lookup = Lookup::Found { key, networks: vec![1, 2] };
            }
            Self::DowngradeAllowed => {
                if let Some(floor) = view.floor.get_mut(&peer) {
                    floor.spoke_v2 = false;
                }
            }
            Self::SilenceIsConsent if received.lookup == Lookup::Failed => received.lookup = Lookup::Unknown,
            Self::FormerFloorForgotten => {
                if let Some(floor) = view.floor.get_mut(&peer) {
                    floor.before = Floor::EMPTY.before;
                }
            }
            Self::RelayedRequestForgotten => {
                if let Some(outgoing) = view.outgoing.get_mut(&peer) {
                    outgoing.relayed = false;
                }
            }
            // the last minute is forgotten.
            Self::FarewellWithoutPause if view.revoked.contains_key(&peer) => {
                if let Some(floor) = view.floor.get_mut(&peer) {
                    floor.sent = floor.sent.saturating_add(-120_000);
                }
            }
            // of a try of what was refused alone, so that nothing else shows.
            Self::OwedRefusalWaits if kind == Kind::Request => {
                let nonce = received.message.nonce();
                view.owed.retain(|of, owed| *of != peer || owed.kind != Kind::Reject || owed.answers != nonce);
            }
            //
            Self::OwedFarewellStays => view.owed.retain(|of, owed| *of != peer || owed.kind != Kind::Revoke),
            Self::RefusedForgotten => drop(view.refused.remove(&peer)),
            // what was decided counts as what is not.
            Self::VoidForgotten => {
                if let Some(all) = view.successors.get_mut(&peer) {
                    *all = all.iter().map(|it| Succession { void: None, ..*it }).collect();
                }
            }
            Self::CopiesCount => received.seen = Heard::Never,
            Self::RevokedMarkForgotten => drop(view.revoked.remove(&peer)),
            Self::KeyMarkForgotten => view.revoked_keys.clear(),
            Self::IgnoredAreHeard => {
                view.ignored.clear();
                view.ignored_keys.clear();
            }
            Self::UnvouchedRevokes if kind == Kind::Revoke => vouch(received),
            Self::UnvouchedTearsDown if kind == Kind::Request && view.trusted.contains_key(&peer) => vouch(received),
            Self::FirstAnswerIsBelieved if kind == Kind::Accept && answers_newest(view, received) => vouch(received),
            Self::RegistryContradictionIgnored => {
                if let Lookup::Found { key: known, .. } = &mut received.lookup {
                    *known = key;
                }
            }
            Self::CallersKeyIgnored => {
                if let Some(outgoing) = view.outgoing.get_mut(&peer) {
                    outgoing.expected_key = Some(key);
                }
            }
            Self::OldStampsBelieved => {
                if let Some(floor) = view.floor.get_mut(&peer) {
                    floor.key = None;
                    floor.seen = Floor::EMPTY.seen;
                }
            }
            Self::LaterKeyReplacesFirst
                if !is_vouched_for && view.pending.get(&peer).is_some_and(|entry| entry.key != key) =>
            {
                view.pending.remove(&peer);
            }
            _ => {}
        }
    }

    /// Changes what the rules answer.
    fn change(self, view: &PlainView, input: &Input, answer: Result<Step, Rejection>) -> Result<Step, Rejection> {
        let mut step = answer?;
        match self {
            Self::UnvouchedMovesFloor => {
                if let Input::Message(received) = input
                    && !is_vouched_for(view, received)
                {
                    let (peer, key) = (received.message.sender(), *received.message.key());
                    let old = view.floor.get(&peer).copied().unwrap_or(Floor::EMPTY);
                    step.changes.retain(|change| !matches!(change, TableChange::Floor(of, _) if *of == peer));
                    let floor = Floor { key: Some(key), seen: received.message.stamp(), ..old };
                    step.changes.push(TableChange::Floor(peer, Some(floor)));
                }
            }
            Self::SentStampForgotten => step.changes.retain_mut(|change| match change {
                TableChange::Floor(peer, Some(floor)) => {
                    let old = view.floor.get(peer).copied().unwrap_or(Floor::EMPTY);
                    (floor.sent, floor.reserved) = (old.sent, old.reserved);
                    true
                }
                _ => true,
            }),
            Self::FarewellWaitsForDisk => {
                for Effect { action, when, .. } in &mut step.effects {
                    if let Action::Disconnect { peer, .. } = action
                        && let Some(still) = view.trusted.get(peer)
                    {
                        *when = When::OnceDurable { still: *still };
                    }
                }
            }
            Self::LossIsNotCut if matches!(input, Input::Message(_)) => {
                step.effects.retain(|effect| !matches!(effect.action, Action::Disconnect { .. }));
            }
            Self::GrantIsNotTold => step.events.clear(),
            Self::LossNotToldFirst => step.events.reverse(),
            Self::LostAcceptStaysLost if matches!(step.outcome, Outcome::Confirmed(_)) => step.effects.clear(),
            Self::LostFarewellStaysLost if matches!(input, Input::Message(_)) => {
                step.effects
                    .retain(|effect| !matches!(&effect.action, Action::Send(draft) if draft.kind == Kind::Revoke));
            }
            Self::EndIsSecret if !matches!(input, Input::Operator(_)) => {
                step.effects.retain(|effect| !matches!(effect.action, Action::ReportRevoke { .. }));
            }
            Self::GrantNotReported => {
                step.effects.retain(|effect| !matches!(effect.action, Action::ReportGrant { .. }));
            }
            Self::AcceptBeforeCut if matches!(input, Input::Message(_)) => step.effects.reverse(),
            Self::MismatchNotTold => step.events.retain(|event| !matches!(event, Event::KeyMismatch { .. })),
            _ => self.change_tables(view, input, &mut step),
        }
        match self {
            Self::FloorNeverMovedBack if step.clamped => return Err(Rejection::Stale),
            _ => {}
        }
        Ok(step)
    }

    /// Changes what the rules make of the tables.
    fn change_tables(self, view: &PlainView, input: &Input, step: &mut Step) {
        let changes = &mut step.changes;
        match (self, input) {
            // the first nonce and stamp stay.
            (Self::RepeatRenewsNothing, Input::Message(_)) => changes.retain(|change| {
                !matches!(change, TableChange::Pending(peer, Some(is))
                    if view.pending.get(peer).is_some_and(|was| was.number == is.number && was.conflicts == is.conflicts))
            }),
            //
            (Self::ConflictNotCounted, Input::Message(_)) => changes.retain(|change| {
                !matches!(change, TableChange::Pending(peer, Some(is))
                    if view.pending.get(peer).is_some_and(|was| was.conflicts < is.conflicts))
            }),
            //
            (Self::AnswerOutlivesRequest, Input::Operator(Command::Cancel { .. })) => {
                changes.retain(|change| !matches!(change, TableChange::Pending(..)));
            }
            //
            (Self::NothingGrowsOld, Input::Housekeeping) => changes.retain(|change| {
                !matches!(change, TableChange::Pending(_, None) | TableChange::Outgoing(_, None))
            }),
            //
            (Self::IgnoredStillWait, Input::Operator(Command::Ignore { .. })) => {
                changes.retain(|change| !matches!(change, TableChange::Pending(..) | TableChange::Outgoing(..)));
            }
            //
            (Self::NothingIsOwed, Input::Undelivered { .. }) => {
                changes.retain(|change| !matches!(change, TableChange::Owed(..)));
            }
            //
            (Self::MarkKeepsItsId, Input::Operator(Command::Revoke { peer, .. })) => {
                let was = view.revoked.get(peer).copied();
                changes.retain(|change| was.is_none() || !matches!(change, TableChange::Revoked(..)));
            }
            // the entry goes, and with it what was said.
            (Self::RefusalHidden, Input::Message(_)) => {
                for change in changes {
                    if let TableChange::Outgoing(_, is) = change
                        && is.as_ref().is_some_and(|is| is.refused.is_some())
                    {
                        *is = None;
                    }
                }
            }
            (Self::MutualForgotten | Self::AnotherNetwork, Input::Message(_)) => {
                for change in changes {
                    if let TableChange::Trusted(_, Some(record)) = change {
                        *record = match self {
                            Self::MutualForgotten => record.mutual(false),
                            _ => record.network(if record.network == 0 { 0 } else { 1 }),
                        };
                    }
                }
            }
            _ => {}
        }
    }
}
