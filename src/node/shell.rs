//! What the manager's threads share, and the way of a message from bytes to the machine.
//!
//! Parsing, verification, filtering of texts and look-ups come before the store's writer lock, sending and saving after it;
//! under it there is `step` and nothing else, and nothing that grows with a message. A message that any check
//! refuses is counted and answered with silence.
#![forbid(unsafe_code)]

use core::fmt;
use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::time::Duration;

use super::announcer::Announcer;
use super::cool_down::CoolDown;
use super::counters::{Counters, Skew};
use super::cutter::{Cut, Cutter};
use super::durable::Durable;
use super::enforcement::Enforcement;
use super::identity::Identity;
use super::in_flight::InFlight;
use super::look_up::{LookUps, Whom};
use super::loud::{FalseKey, Loud, tell_in_log};
use super::newcomers::RefusedNewcomers;
use super::outbox::Outbox;
use super::random::Random;
use super::registry::{Registry, RegistryEntry, RegistryError, Relaying};
use super::replies::{Asked, Replies};
use super::retry::Retries;
use super::taken_back::TakenBack;
use super::transport::{Inbox, Received, Transport};
use crate::clock::Clock;
use crate::error::WriteError;
use crate::foreign;
use crate::machine::arrival;
use crate::machine::effect::Effect;
use crate::machine::event::Event;
use crate::machine::input::{self, Input, Lookup};
use crate::machine::known;
use crate::machine::outcome::{Outcome, Rules};
use crate::machine::rejection::Rejection;
use crate::machine::replay::{ReplayTable, Seen};
use crate::machine::rotation;
use crate::machine::step::step;
use crate::machine::view::{Nonce, View as _};
use crate::peer::{KeyFault, NodeId, PublicKey, Source};
use crate::store::deferral::Deferral;
use crate::store::{Receipt, TransactError, Transaction, TrustStore};
use crate::sync::{Deadline, Mutex};
use crate::time::WallMillis;
use crate::wire::message::{Kind, Message};
use crate::wire::open_key::OpenKeys;
use crate::wire::verify::verify;
use std::sync::{Arc, Weak};

/// Everything that a message, an operator's call or a timer needs.
pub(crate) struct Shell {
    pub(crate) rules: Rules,
    /// When this life of the node began.
    pub(crate) began: WallMillis,
    pub(crate) store: Arc<TrustStore>,
    pub(crate) identity: Arc<dyn Identity>,
    /// The identity's key, as it was when the node started.
    pub(crate) own_key: PublicKey,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) registry: Option<Arc<dyn Registry>>,
    /// Whether the registry relays messages, as it said when the node started.
    pub(crate) relaying: Relaying,
    pub(crate) look_ups: Option<LookUps>,
    /// How long a call waits for the registry.
    pub(crate) registry_timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    /// Messages to peers.
    pub(crate) outbox: Outbox,
    /// Reports to the registry, which may hang, and must not take the senders with it.
    pub(crate) reports: Outbox,
    /// Messages for the registry to relay; they hold up neither senders nor reports.
    pub(crate) relays: Outbox,
    /// Requests whose connection is held open for the answer.
    pub(crate) replies: Mutex<Replies>,
    /// What did not leave, or was not answered, and is tried again.
    pub(crate) retries: Retries,
    /// Who was told of our new key.
    pub(crate) announcer: Announcer,
    pub(crate) durable: Durable,
    pub(crate) cutter: Cutter,
    /// Ends of trust that the node did not bring about.
    pub(crate) enforcement: Enforcement,
    pub(crate) counters: Counters,
    pub(crate) newcomers: RefusedNewcomers,
    /// Which messages of version 1 were seen; taken inside the store's writer lock alone.
    pub(crate) replay: Mutex<ReplayTable>,
    /// When false and changed keys were told of; no other lock is taken inside it.
    pub(crate) loud: Mutex<Loud>,
    /// Who took their word back a moment ago; no other lock is taken inside it.
    pub(crate) taken_back: Mutex<TakenBack>,
    /// The newest false or changed key, for an operator who asks later.
    pub(crate) newest_false_key: Mutex<Option<FalseKey>>,
    /// The keys of peers that we know, ready for checking signatures.
    pub(crate) open_keys: Mutex<OpenKeys>,
    /// The peers to whom a call of `request` is running.
    pub(crate) asking: Mutex<HashSet<NodeId>>,
    /// When each peer was asked last.
    pub(crate) cool_down: Mutex<CoolDown>,
    /// Messages and operators' calls that are being handled.
    pub(crate) in_flight: InFlight,
    /// Set by the first shutdown: until when anybody waits.
    pub(crate) stopping: Mutex<Option<Deadline>>,
}

/// Why an input led to nothing.
#[derive(Debug)]
pub(crate) enum NotDone {
    Refused(Rejection),
    /// The registry could not be asked about the sender of a relayed message, which may come again.
    NotAsked,
    Store(WriteError<()>),
    Random(io::Error),
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(rejection) => rejection.fmt(f),
            Self::NotAsked => f.write_str("the registry could not be asked"),
            Self::Store(error) => error.fmt(f),
            Self::Random(error) => write!(f, "no random bytes: {}", foreign::shown(error)),
        }
    }
}

/// What became of a relayed message.
pub(crate) enum Handled {
    /// It was taken or dropped, for good.
    Done,
    /// The node could not look at it. It may be tried again.
    NotNow,
    /// The registry could not be asked about its sender. It may be tried again, a few times.
    NotAsked,
    /// There is no room for it, or our clock is behind: it may be taken later.
    Later,
}

/// What an input led to; its effects are the caller's to perform.
pub(crate) struct Done {
    pub(crate) outcome: Outcome,
    pub(crate) effects: Vec<Effect>,
    /// The peers to be cut off, scheduled in the critical section; `None` where that is left to the caller.
    pub(crate) cuts: Vec<(NodeId, Option<Arc<Cut>>)>,
    pub(crate) receipt: Receipt,
}

impl Shell {
    /// 16 bytes that nobody can predict.
    pub(crate) fn nonce(&self) -> Result<Nonce, NotDone> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).map_err(NotDone::Random)?;
        Ok(Nonce(bytes))
    }

    /// Asks the rules and publishes what they say, in one critical section of the store.
    pub(crate) fn submit(&self, mut input: Input) -> Result<Done, NotDone> {
        let now = self.clock.now();
        let answer_skew = match &input {
            Input::Message(received) if is_direct_answer(received) => {
                Some((received.message.sender(), received.message.stamp().millis_since(now.wall)))
            }
            _ => None,
        };
        let sender = if let Input::Message(received) = &input { Some(received.message.sender()) } else { None };
        let decided = self.store.transact_by(self.enforcement.by(), |tables| {
            if let Input::Message(received) = &mut input
                && let Some(key) = received.message.replay_key()
            {
                received.seen = self.replay.lock().seen(now.tick, &key);
            }
            let mut step = step(&self.rules, tables, now, input)?;
            let (mut false_keys, mut loud) = (Vec::new(), Vec::new());
            step.events.retain(|event| {
                let Event::KeyMismatch { peer, source, expected, shown, ended } = *event else { return true };
                false_keys.push(FalseKey { at: now.wall, peer, source, expected, shown, ended });
                let mut limits = self.loud.lock();
                let may_tell = limits.may_tell(peer, ended, now.tick);
                let line = limits.may_write(may_tell, ended, now.tick);
                loud.extend(line.map(|left_out| (event.clone(), left_out)));
                may_tell
            });
            // In here, so that whoever waits for the answer, and asks then how far the clocks are off, is told.
            if let Some((peer, skew)) = answer_skew.filter(|_| !matches!(step.outcome, Outcome::Dropped(_))) {
                self.note_answer(peer, skew);
            }
            if let Some(noted) = step.noted {
                self.replay.lock().note(now.tick, noted);
            }
            // Scheduled in here, so that whoever sees the change and then sends does not have that cut as well.
            let cuts: Vec<_> = step.effects.iter().filter_map(|effect| self.schedule_cut(&effect.action)).collect();
            let contested = step.events.iter().find(|event| matches!(event, Event::RotationRefused { .. })).cloned();
            loud.extend(contested.map(|event| (event, 0)));
            if let Some(look_ups) = &self.look_ups {
                look_ups.save_with_grants(tables, &mut step.changes);
            }
            let deferral = sender
                .and_then(|peer| self.taken_back.lock().judge(peer, &step.outcome, &step.changes, tables, now.tick));
            let value = (step.outcome, step.effects, cuts, step.clamped, false_keys, loud, deferral);
            Ok((Transaction { changes: step.changes, events: step.events, value }, deferral))
        });
        let ((outcome, effects, cuts, clamped, false_keys, loud, deferral), receipt) =
            decided.map_err(|error| match error {
                TransactError::Refused(rejection) => NotDone::Refused(rejection),
                TransactError::Write(error) => NotDone::Store(error),
            })?;
        //
        if let (Some(peer), Some(Deferral::Given)) = (sender, deferral) {
            self.taken_back.lock().note_given(peer, receipt.generation());
        }
        if clamped {
            let what = "a remembered stamp lay too far ahead of our clock and was moved back";
            self.counters.add("stamp_clamped", now.tick, &what);
        }
        for false_key in false_keys {
            // Whoever sees the count sees this one, or a newer one.
            *self.newest_false_key.lock() = Some(false_key);
            self.counters.count(Rejection::KeyMismatch.name());
        }
        loud.into_iter().for_each(|(event, left_out)| tell_in_log(event, left_out));
        Ok(Done { outcome, effects, cuts, receipt })
    }

    /// Why no rule trusts this key of the peer, if none does.
    pub(crate) fn set_aside(&self, peer: NodeId, key: &PublicKey) -> Option<KeyFault> {
        self.store.tables().and_then(|tables| known::set_aside(tables.as_ref(), peer, key))
    }

    /// What the registry says about a peer, within `limit` and its own. Never called with a lock held.
    pub(crate) fn ask_registry(&self, peer: NodeId, whom: Whom, limit: Duration) -> Lookup {
        let Some(look_ups) = &self.look_ups else { return Lookup::NotAsked };
        match look_ups.look_up(peer, whom, limit) {
            Ok(Some(RegistryEntry { key: Some(key), networks, .. })) => Lookup::Found { key, networks },
            Ok(_) => Lookup::Unknown,
            Err(error) => {
                self.count("look_up_failed", &error);
                self.note_outdated(&error);
                foreign::let_go(error);
                Lookup::Failed
            }
        }
    }

    /// Counts an answer that was older than one before: a replica lags, or the registry was put back.
    pub(crate) fn note_outdated(&self, error: &RegistryError) {
        if matches!(error, RegistryError::Outdated) {
            let what = "the registry gave an answer older than one before; if it was put back on purpose, have its revisions \
                        forgotten (`trustkeep registry reset`)";
            self.count("registry_outdated", &what);
        }
    }

    /// Gives a trusted record the key that the registry knows, or ends trust in one that has another.
    pub(crate) fn back_fill(self: &Arc<Self>, peer: NodeId) -> Result<Done, NotDone> {
        let lookup = self.ask_registry(peer, Whom::Known, Duration::MAX);
        self.submit(Input::LookedUp { peer, lookup })
    }

    /// Drops entries about ourselves, and says so loudly: somebody put them there.
    pub(crate) fn forget_ourselves(&self) {
        match self.submit(Input::OwnEntries) {
            Ok(done) => {
                let own_id = self.rules.own_id;
                let was_trusted = matches!(done.outcome, Outcome::OwnEntriesForgotten { was: Some(_) });
                tracing::warn!(%own_id, was_trusted, "the store had entries about this node itself; they were dropped");
                self.count("own_entry", &"an entry about this node itself was dropped");
            }
            Err(NotDone::Refused(_)) => {}
            Err(error) => self.count("own_entry", &format_args!("an entry about this node may be left: {error}")),
        }
    }

    /// `may_wait`: the message may come again.
    fn process(self: &Arc<Self>, received: Received, may_wait: bool, skew: &Cell<Skew>) -> Result<(), NotDone> {
        let now = self.clock.now();
        let message = Message::parse(&received.bytes).map_err(|error| NotDone::Refused(error.into()))?;
        skew.set(Skew { millis: message.stamp().millis_since(now.wall), says_from: message.sender() });
        let (relayed, mut was_open) = (received.path.is_relayed(), false);
        let open = |bytes: &[u8; 32]| self.open_keys.lock().get(bytes).inspect(|_| was_open = true);
        let decoded = arrival::decode_with(&self.rules, now, message, relayed, open).map_err(NotDone::Refused)?;
        arrival::check_life(&self.rules, now, self.began, &decoded).map_err(NotDone::Refused)?;
        let sender = decoded.sender();
        let (is_held, is_of_use) = {
            let tables = self.store.tables().ok_or(NotDone::Store(WriteError::Reentrant(())))?;
            // Before the signature is checked, so that copies of the only message of a peer are cheap too. A stranger can
            // name no key here but one that we hold already.
            let is_held = arrival::is_held(tables.as_ref(), sender, decoded.key());
            if !was_open && is_held {
                self.open_keys.lock().note(decoded.open_key());
            }
            arrival::check_ignored(tables.as_ref(), sender, decoded.key()).map_err(NotDone::Refused)?;
            arrival::check_floor(&self.rules, now, tables.floor(sender), &decoded).map_err(NotDone::Refused)?;
            (is_held, rotation::is_of_use(tables.as_ref(), &decoded))
        };
        let decoded = if is_of_use { decoded } else { decoded.without_statement() };
        let verified = verify(decoded, self.rules.own_id).map_err(|error| NotDone::Refused(Rejection::from(error)))?;
        // anybody can write an id; who has signed with a key that we hold is somebody we know.
        let whom = if is_held { Whom::Known } else { Whom::Stranger };
        let lookup = self.ask_registry(sender, whom, Duration::MAX);
        if lookup == Lookup::Failed && may_wait {
            return Err(NotDone::NotAsked);
        }
        let nonce = self.nonce()?;
        let asked = (verified.kind() == Kind::Request)
            .then(|| verified.nonce().map(|nonce| Asked { peer: sender, key: *verified.key(), nonce }))
            .flatten();
        let (message, path, seen) = (verified, received.path, Seen::Never);
        let input = input::Received { message, path, lookup, nonce, seen };
        let is_answer = is_direct_answer(&input);
        let done = self.submit(Input::Message(input))?;
        let outcome = done.outcome;
        // of a request that was taken, before anything can answer it. A copy of one that came before is stale.
        if let (Some(asked), Some(reply), false) = (asked, received.reply, matches!(outcome, Outcome::Dropped(_))) {
            self.replies.lock().note(asked, reply);
        }
        self.perform(done);
        match outcome {
            Outcome::Dropped(rejection) => Err(NotDone::Refused(rejection)),
            _ => {
                if is_answer {
                    self.tell_of_clocks(sender, skew.get().millis);
                }
                Ok(())
            }
        }
    }

    /// Takes one message. Whatever is wrong with it is counted, and costs this message only.
    pub(crate) fn receive(self: &Arc<Self>, received: Received) {
        self.handle(received, false);
    }

    /// Takes one message that a relay had for us; `from` is who gave it to the relay. `may_wait`: if the registry cannot be
    /// asked about its sender, it may be handed in again.
    pub(crate) fn receive_relayed(self: &Arc<Self>, from: NodeId, bytes: Vec<u8>, may_wait: bool) -> Handled {
        self.handle(Received::relayed(bytes, from), may_wait)
    }

    fn handle(self: &Arc<Self>, received: Received, may_wait: bool) -> Handled {
        let Some(_inside) = self.in_flight.enter() else {
            if self.in_flight.is_forked() {
                return Handled::NotNow;
            }
            self.count("stopping", &"a message came while the node was stopping");
            return Handled::NotNow;
        };
        let (relayed, source, skew) = (received.path.is_relayed(), received.path.source(), Cell::default());
        let result = foreign::run(|| self.process(received, may_wait, &skew));
        if let Ok(Err(NotDone::Refused(rejection @ (Rejection::TooOld | Rejection::FromFuture)))) = &result {
            return self.off_in_time(*rejection, skew.get(), source, relayed);
        }
        if let Ok(Err(NotDone::Refused(full @ (Rejection::PendingFull | Rejection::PendingSourceFull)))) = &result {
            //
            let so_far = self.newcomers.add(source);
            self.count(full.name(), &format_args!("{full}; from {source}, {so_far} refused so far"));
            // another time there may be room.
            return if relayed { Handled::Later } else { Handled::Done };
        }
        let (name, what, handled): (_, &dyn core::fmt::Display, _) = match &result {
            Ok(Ok(())) => return Handled::Done,
            // Counted and told where it was decided.
            Ok(Err(NotDone::Refused(Rejection::KeyMismatch))) => return Handled::Done,
            Ok(Err(NotDone::NotAsked)) => {
                ("relayed_not_now", &"the registry cannot be asked about a relayed message", Handled::NotAsked)
            }
            Ok(Err(NotDone::Refused(rejection))) => (rejection.name(), rejection, Handled::Done),
            Ok(Err(NotDone::Store(error))) => ("store", error, Handled::NotNow),
            Ok(Err(NotDone::Random(error))) => ("random", error, Handled::NotNow),
            Err(_) => ("panicked", &"a panic while handling a message", Handled::Done),
        };
        self.count(name, what);
        handled
    }

    /// what answers us was stamped a moment ago, so that a stamp further off says that one of the clocks is wrong.
    fn note_answer(&self, peer: NodeId, skew: i64) {
        if skew.unsigned_abs() <= SKEW_TOLD_MS {
            self.counters.forget_skew("answer");
        } else {
            self.counters.note_skew("answer", Skew { millis: skew, says_from: Some(peer) });
        }
    }

    /// The same, for the log and the counters.
    fn tell_of_clocks(&self, peer: NodeId, skew: i64) {
        if skew.unsigned_abs() > SKEW_TOLD_MS {
            let (by, side) = (Duration::from_millis(skew.unsigned_abs()), if skew < 0 { "behind" } else { "ahead of" });
            let what =
                format_args!("the clock of node {peer}, which answered us, is {:.1} s {side} ours", by.as_secs_f64());
            self.count("answer_skew", &what);
        }
    }

    /// a message dropped for its time says by how much, and from whom it says it is. Its signature was not looked at.
    fn off_in_time(&self, rejection: Rejection, skew: Skew, source: Source, relayed: bool) -> Handled {
        let Skew { millis, says_from } = skew;
        let (by, side) = (Duration::from_millis(millis.unsigned_abs()), if millis < 0 { "behind" } else { "ahead of" });
        self.counters.note_skew(rejection.name(), skew);
        let who = says_from.map_or_else(String::new, |peer| format!("; it says it is from node {peer}"));
        let by = by.as_secs_f64();
        self.count(
            rejection.name(),
            &format_args!("{rejection}: {by:.1} s {side} our clock{who}, and came from {source}"),
        );
        // it is our clock perhaps, and will be set right.
        let later = relayed && rejection == Rejection::FromFuture;
        if later { Handled::Later } else { Handled::Done }
    }
}

/// Whether it says that it answers a request of ours, and no relay had it meanwhile.
fn is_direct_answer(received: &input::Received) -> bool {
    matches!(received.message.kind(), Kind::Accept | Kind::Reject) && !received.path.is_relayed()
}

/// From here on a difference of clocks is worth a word: a peer whose clock is further off soon hears nobody.
const SKEW_TOLD_MS: u64 = 10_000;

/// What a transport holds of us: it must not keep a node alive that its owner dropped.
pub(crate) struct Door(pub(crate) Weak<Shell>);

impl Inbox for Door {
    fn receive(&self, message: Received) {
        if let Some(shell) = self.0.upgrade() {
            shell.receive(message);
        }
    }

    fn may_answer(&self, bytes: &[u8]) -> bool {
        // Requests are all that is answered. To find the word costs less than to read the message twice, and a message that has it
        // elsewhere is held in vain.
        let request = Kind::Request.as_wire().as_bytes();
        bytes.windows(request.len()).any(|part| part == request)
    }
}
