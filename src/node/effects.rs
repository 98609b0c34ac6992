//! Performing what the machine asks for: sending, cutting off, reporting.
//!
//! What tells of a grant goes through [`Durable`](super::durable::Durable) first and looks again whether the grant still
//! stands, in the moment before it leaves. What restricts goes at once. What cannot be sent directly is left to the
//! registry's relay, if it has one. Nothing here can fail in a way that a caller would have to hear of: a lost message is
//! made good by asking again, and is counted.
#![forbid(unsafe_code)]

use super::cutter::Cut;
use super::outbox::{Lane, Placed, Task};
use super::registry::{Registry, RegistryError, Relaying};
use super::replies::Sought;
use super::retry::Ended;
use super::shell::{Done, NotDone, Shell};
use super::transport::{Dispatch, Reply, SendError};
use crate::foreign;
use crate::machine::effect::{Action, Draft, When};
use crate::machine::input::Input;
use crate::machine::view::{Nonce, View as _};
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::sync::{Deadline, OneShot};
use crate::wire::message::Kind;
use crate::wire::sign::{sign_draft, sign_draft_v1};
use std::sync::Arc;
use std::time::Duration;

impl Shell {
    /// The deadline of a cut, if this is one. It runs from here, not from when the farewell is sent.
    pub(crate) fn schedule_cut(&self, action: &Action) -> Option<(NodeId, Option<Arc<Cut>>)> {
        match action {
            Action::Disconnect { peer, within } => Some((*peer, self.cutter.schedule(*peer, *within).map(Arc::new))),
            _ => None,
        }
    }

    /// Performs effects in their order; returns once each is queued somewhere.
    pub(crate) fn perform(self: &Arc<Self>, done: Done) {
        let Done { effects, cuts, receipt, .. } = done;
        // what a repeat moves is no grant.
        let receipt = receipt.of_news();
        for (peer, _) in cuts.iter().filter(|(_, cut)| cut.is_none()) {
            self.cutter.cut(*peer);
        }
        for effect in effects {
            let still = match effect.when {
                When::Now => None,
                When::OnceDurable { still } => Some(still),
            };
            let (peer, queue, lane, task) = match effect.action {
                Action::Send(draft) => {
                    // The letter holds the cut back until it left, or was dropped. An accept waits for it instead.
                    let cut = cuts
                        .iter()
                        .filter(|_| draft.kind != Kind::Accept)
                        .find(|(peer, _)| *peer == draft.to)
                        .and_then(|(_, cut)| cut.clone());
                    let (to, asked) = (draft.to, asked(effect.answers, &draft));
                    let mut letter = Letter::new(self, draft, false, still, cut);
                    letter.asked = asked;
                    (to, Queue::Messages, letter.lane(), sending(letter))
                }
                Action::SendVersion1(draft) => {
                    let (to, letter) = (draft.to, Letter::new(self, draft, true, still, None));
                    (to, Queue::Messages, letter.lane(), sending(letter))
                }
                Action::LookUp { peer } => (peer, Queue::Reports, Lane::Ordinary, self.looking_up(peer)),
                Action::ReportGrant { record } => {
                    let peer = record.node_id;
                    (peer, Queue::Reports, Lane::Ordinary, self.reporting(peer, Some(record)))
                }
                Action::ReportRevoke { peer } => (peer, Queue::Reports, Lane::First, self.reporting(peer, None)),
                Action::Disconnect { .. } => continue,
            };
            if still.is_some() {
                let shell = Arc::clone(self);
                let release = Box::new(move || shell.queue(peer, queue, lane, task));
                let placed = self.durable.put(Some(peer), receipt.clone(), release);
                self.note_lost(placed, &"too many answers wait for the disk; one was dropped");
            } else {
                self.queue(peer, queue, lane, task);
            }
        }
    }

    pub(super) fn queue(&self, peer: NodeId, queue: Queue, lane: Lane, task: Task) {
        let queue = match queue {
            Queue::Messages => &self.outbox,
            Queue::Reports => &self.reports,
        };
        let placed = queue.put(peer, lane, task);
        self.note_lost(placed, &"too many messages wait to be sent; one was dropped");
    }

    pub(super) fn note_lost(&self, placed: Placed, what: &dyn core::fmt::Display) {
        if placed != Placed::Queued {
            self.count("queue_full", what);
        }
    }

    /// Has the registry asked for the key of a record that has none.
    fn looking_up(self: &Arc<Self>, peer: NodeId) -> Task {
        let shell = Arc::clone(self);
        Box::new(move |_turn| match shell.back_fill(peer) {
            Ok(done) => shell.perform(done),
            Err(NotDone::Refused(_)) => {}
            Err(error) => {
                shell.count("not_filled", &format_args!("node {peer} got no key from the registry: {error}"));
            }
        })
    }

    /// Reports the state of a peer if it is still as it was when the report was asked for. Reports about one peer run
    /// one at a time, so the last one to run finds the state that lasts, in whatever order they were queued.
    pub(super) fn reporting(self: &Arc<Self>, peer: NodeId, granted: Option<TrustRecord>) -> Task {
        let shell = Arc::clone(self);
        Box::new(move |turn| {
            let Some(registry) = &shell.registry else { return };
            let reported = match (granted, shell.store.get(peer)) {
                (Some(record), Some(current)) if record == current => foreign::run(|| registry.report_grant(peer)),
                (None, None) => foreign::run(|| registry.report_revoke(peer)),
                _ => return,
            };
            if let Err(error) = reported.unwrap_or(Err(RegistryError::Panicked)) {
                shell
                    .count("not_reported", &format_args!("the registry did not take a report on node {peer}: {error}"));
            }
            turn.end(false);
        })
    }

    /// The message as it goes out.
    pub(crate) fn sign(&self, draft: &Draft) -> Result<Vec<u8>, SendError> {
        foreign::run(|| {
            let key = self.own_key;
            let message = sign_draft(self.rules.own_id, &key, draft, |bytes| self.identity.sign(bytes));
            // Of another key it would make the message one that is refused.
            let rotation = self.identity.rotation().filter(|it| *it.new_key() == key);
            message.carrying(rotation.as_ref()).to_json()
        })
        .map_err(|_| SendError::Panicked)
    }

    /// Sends a signed message, on this thread.
    pub(crate) fn send(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError> {
        foreign::run(|| self.transport.send(to, bytes)).unwrap_or(Err(SendError::Panicked))
    }

    /// Begins to send a signed message; `done` hears how it ended, on any thread.
    fn dispatch(
        &self,
        to: NodeId,
        bytes: Arc<[u8]>,
        restricts: bool,
        reply: Option<Reply>,
        done: impl FnOnce(Result<(), SendError>) + Send + 'static,
    ) {
        let message = Dispatch::new(to, bytes, restricts, done).over(reply);
        if foreign::run(|| self.transport.dispatch(message)).is_err() {
            tracing::error!(%to, "the transport panicked while sending");
        }
    }

    /// Whether there is anybody to relay what we cannot send.
    pub(crate) fn relays_messages(&self) -> bool {
        self.relaying != Relaying::No
    }

    /// Has the registry relay our request with this nonce, and waits for its word as long as a look-up may take. `None` if it
    /// was called off meanwhile.
    ///
    /// The relay reads the nonce, and could answer in the peer's place. So that it may have it is durable first;
    /// where no first use is trusted, a disk that does not take it holds the request up no longer than a look-up may.
    pub(crate) fn relay_request(&self, to: NodeId, nonce: Nonce, bytes: Vec<u8>) -> Result<(), Option<RegistryError>> {
        let marked = self.submit(Input::Relaying { peer: to, nonce }).map_err(|error| match error {
            NotDone::Refused(_) => None,
            NotDone::Store(_) | NotDone::Random(_) | NotDone::NotAsked => Some(RegistryError::NotSaved),
        })?;
        let saved = marked.receipt.wait_durable_timeout(self.registry_timeout);
        if saved.is_err() && self.rules.policy.trust_on_first_use {
            return Err(Some(RegistryError::NotSaved));
        }
        self.relay(to, Kind::Request, bytes).map_err(Some)
    }

    fn relay(&self, to: NodeId, kind: Kind, bytes: Vec<u8>) -> Result<(), RegistryError> {
        let Some(registry) = self.registry.clone() else { return Err(RegistryError::NoRelay) };
        let answer = Arc::new(OneShot::new());
        let of_task = Arc::clone(&answer);
        let task: Task = Box::new(move |turn| {
            of_task.put(hand_over(registry.as_ref(), to, kind, &bytes));
            turn.end(false);
        });
        match self.relays.put(to, Lane::Ordinary, task) {
            Placed::Refused => return Err(RegistryError::Busy),
            placed => self.note_lost(placed, &TOO_MANY_TO_RELAY),
        }
        answer.wait(Deadline::after(self.registry_timeout)).unwrap_or(Err(RegistryError::TimedOut))
    }

    /// The one place that hears what became of each message that the node sent by itself.
    ///
    /// Here belongs whatever is to be done about a message that did not leave.
    fn settled(&self, letter: &Letter) {
        let (draft, failed) = (&letter.draft, |why: &str, owed| Ended::Failed { why: why.to_owned(), owed });
        let ended = match &letter.outcome {
            Outcome::Left { relayed } => Ended::Left { relayed: *relayed },
            Outcome::CalledOff => failed("it was called off", false),
            Outcome::Dropped => failed("there was no room for it, or the node was stopping", true),
            Outcome::Failed { direct, relay } => {
                let why = not_sent(direct, relay.as_ref());
                self.count("not_sent", &format_args!("a message to node {} was not sent: {why}", draft.to));
                Ended::Failed { why, owed: !matches!(direct, SendError::TooLarge { .. }) }
            }
        };
        // version 1 is told to who asks in it, and to nobody else.
        let ended = match ended {
            Ended::Failed { why, .. } if letter.in_version_1 => Ended::Failed { why, owed: false },
            ended => ended,
        };
        self.note_ended(draft, ended);
    }

    /// Signs and sends a message of version 1, to a peer that the transport authenticates or not at all.
    fn send_v1(&self, draft: &Draft) -> Result<(), SendError> {
        foreign::run(|| {
            let key = self.own_key;
            let message = sign_draft_v1(self.rules.own_id, &key, draft, |bytes| self.identity.sign(bytes));
            self.transport.send_authenticated(draft.to, &message.to_json())
        })
        .unwrap_or(Err(SendError::Panicked))
    }

    pub(crate) fn count(&self, name: &'static str, what: &dyn core::fmt::Display) {
        // The clock is somebody else's, too, and no failure may pass uncounted for its sake.
        let at = foreign::run(|| self.clock.now().tick).unwrap_or_default();
        self.counters.add(name, at, what);
    }
}

/// Where a task waits.
#[derive(Clone, Copy)]
pub(super) enum Queue {
    Messages,
    Reports,
}

/// What became of a message.
enum Outcome {
    /// It left, directly or by the relay.
    Left { relayed: bool },
    /// What it tells of was no longer so when its turn came.
    CalledOff,
    /// There was no room for it, its grant never became durable, or the node stopped.
    Dropped,
    /// It left neither directly nor, if that was tried, by the relay.
    Failed { direct: SendError, relay: Option<RegistryError> },
}

/// A message that the node sends by itself, from its decision to its outcome. Its end is told once, to
/// [`Shell::settled`]; a letter that is dropped tells it too.
struct Letter {
    shell: Arc<Shell>,
    draft: Draft,
    in_version_1: bool,
    /// The grant that it tells of.
    still: Option<TrustRecord>,
    /// The request that it answers.
    asked: Option<Sought>,
    outcome: Outcome,
    /// Dropped last: the peer is cut off when its farewell has left, and not before.
    _cut: Option<Arc<Cut>>,
}

impl Letter {
    fn new(
        shell: &Arc<Shell>,
        draft: Draft,
        in_version_1: bool,
        still: Option<TrustRecord>,
        cut: Option<Arc<Cut>>,
    ) -> Self {
        shell.retries.telling(&draft);
        Self { shell: Arc::clone(shell), draft, in_version_1, still, asked: None, outcome: Outcome::Dropped, _cut: cut }
    }

    fn lane(&self) -> Lane {
        if self.draft.kind == Kind::Revoke { Lane::First } else { Lane::Ordinary }
    }

    /// Whether what it tells is no longer so: the grant was taken back or changed, the request was cancelled or renewed,
    /// or the key that is refused is trusted by now.
    fn is_called_off(&self) -> bool {
        if let Some(still) = self.still {
            return self.shell.store.get(still.node_id) != Some(still);
        }
        let Draft { to, kind, nonce, .. } = self.draft;
        match kind {
            Kind::Request => {
                let tables = self.shell.store.tables();
                tables.is_some_and(|tables| tables.outgoing(to).is_none_or(|entry| entry.nonce != nonce))
            }
            //
            Kind::Accept => self.record_key() != Some(self.draft.for_key),
            Kind::Reject => self.record_key() == Some(self.draft.for_key),
            Kind::Revoke => self.shell.store.is_trusted(to),
        }
    }

    /// The key of the receiver's record, if it has one.
    fn record_key(&self) -> Option<Option<PublicKey>> {
        self.shell.store.get(self.draft.to).map(|record| record.public_key)
    }

    fn settle(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Goes on when the direct way has ended.
    fn sent(self, bytes: Option<Arc<[u8]>>, sent: Result<(), SendError>) {
        match (sent, bytes) {
            (Ok(()), _) => self.settle(Outcome::Left { relayed: false }),
            (Err(direct), Some(bytes)) if relayable(self.draft.kind, &direct) && self.shell.relays_messages() => {
                self.relay(bytes, direct);
            }
            (Err(direct), _) => self.settle(Outcome::Failed { direct, relay: None }),
        }
    }

    /// Has the registry relay it when it comes to it, if what it tells of is still so.
    ///
    /// A request is marked first, durably: the relay reads its nonce.
    fn relay(self, bytes: Arc<[u8]>, direct: SendError) {
        if self.draft.kind != Kind::Request {
            return self.hand_over(bytes, direct);
        }
        let (shell, to, nonce) = (Arc::clone(&self.shell), self.draft.to, self.draft.nonce);
        match shell.submit(Input::Relaying { peer: to, nonce }) {
            Ok(marked) => {
                let release = Box::new(move || self.hand_over(bytes, direct));
                let placed = shell.durable.put(Some(to), marked.receipt, release);
                shell.note_lost(placed, &"too many requests wait for the disk; one was dropped");
            }
            Err(NotDone::Refused(_)) => self.settle(Outcome::CalledOff),
            Err(_) => self.settle(Outcome::Failed { direct, relay: Some(RegistryError::NotSaved) }),
        }
    }

    fn hand_over(self, bytes: Arc<[u8]>, direct: SendError) {
        let (shell, to) = (Arc::clone(&self.shell), self.draft.to);
        let task: Task = Box::new(move |turn| {
            let Some(registry) = self.shell.registry.clone() else { return };
            if self.is_called_off() {
                return self.settle(Outcome::CalledOff);
            }
            let outcome = match hand_over(registry.as_ref(), self.draft.to, self.draft.kind, &bytes) {
                Ok(()) => Outcome::Left { relayed: true },
                Err(relay) => Outcome::Failed { direct, relay: Some(relay) },
            };
            self.settle(outcome);
            turn.end(false);
        });
        let placed = shell.relays.put(to, Lane::Ordinary, task);
        shell.note_lost(placed, &TOO_MANY_TO_RELAY);
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        // It may end by a panic of the task that holds it.
        if foreign::run(|| self.shell.settled(self)).is_err() {
            tracing::error!(to = %self.draft.to, "a panic while noting what became of a message");
        }
    }
}

/// The request over whose connection this draft may go, if there is one: the one that it answers; or, of a farewell, any
/// under the key that it is for.
fn asked(key: Option<PublicKey>, draft: &Draft) -> Option<Sought> {
    let nonce = if draft.kind == Kind::Revoke { None } else { Some(draft.answers?) };
    Some(Sought { peer: draft.to, key: key?, nonce })
}

/// Signs a letter and sends it, when its turn has come.
fn sending(letter: Letter) -> Task {
    Box::new(move |turn| {
        let (shell, draft, in_version_1) = (Arc::clone(&letter.shell), letter.draft.clone(), letter.in_version_1);
        if draft.kind == Kind::Accept {
            // Old trust ended and new trust began: what tells of that must not be cut off with the old.
            shell.enforce_losses();
            shell.cutter.wait(draft.to, Deadline::after(CUT_WAIT));
        }
        if letter.is_called_off() {
            return letter.settle(Outcome::CalledOff);
        }
        // A relay gets version 2 in any case.
        let signed: Result<Arc<[u8]>, _> = shell.sign(&draft).map(Arc::from);
        let bytes = signed.as_ref().ok().cloned();
        let reply = letter.asked.and_then(|asked| shell.replies.lock().take(&asked));
        let done = move |sent: Result<(), SendError>| {
            let gave_up = matches!(sent, Err(SendError::TimedOut { .. } | SendError::GaveWay | SendError::Cancelled));
            // The turn ends last: a node that stops waits for turns before it waits for the relay.
            letter.sent(bytes, sent);
            turn.end(gave_up);
        };
        match signed {
            _ if in_version_1 => done(shell.send_v1(&draft)),
            Ok(bytes) => shell.dispatch(draft.to, bytes, draft.kind == Kind::Revoke, reply, done),
            Err(error) => done(Err(error)),
        }
    })
}

/// Whether a message that could not be sent directly is one for a relay. A farewell is not: it is best effort, and what
/// was cut off on purpose stays so.
pub(crate) fn relayable(kind: Kind, direct: &SendError) -> bool {
    kind.may_be_relayed() && !matches!(direct, SendError::Cancelled | SendError::TooLarge { .. })
}

/// How long an accept waits for a cut of its receiver, which is due at once.
const CUT_WAIT: Duration = Duration::from_secs(1);
/// Why a message left neither way.
pub(crate) fn not_sent(direct: &SendError, relay: Option<&RegistryError>) -> String {
    match relay {
        None => direct.to_string(),
        Some(relay) => format!("{direct}; nor relayed: {relay}"),
    }
}

const TOO_MANY_TO_RELAY: &str = "too many messages wait to be relayed; one was dropped";

fn hand_over(registry: &dyn Registry, to: NodeId, kind: Kind, bytes: &[u8]) -> Result<(), RegistryError> {
    foreign::run(|| registry.relay(to, kind, bytes)).unwrap_or(Err(RegistryError::Panicked))
}
