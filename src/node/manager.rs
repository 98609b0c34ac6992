//! A running node: the machine, a store, and the outside world, behind the calls of an operator.
//!
//! Every call either leads to nothing and says why, or is published before it returns; none waits for a disk or (but
//! for `request`, which sends) for a peer. A restriction holds for every reader when its call returns.
//!
//! More than 450 lines because starting, stopping and what every call goes through stand together.
#![forbid(unsafe_code)]

use core::fmt;
use core::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use super::builder::Builder;
use super::calls::{CommandError, RequestOptions};
use super::comparison::{Comparison, RegistryDisagreement, end};
use super::effects::relayable;
use super::housekeeper::Housekeeper;
use super::identity::Identity;
use super::in_flight::Pass;
use super::look_up::Whom;
use super::poller::Poller;
use super::shell::{NotDone, Shell};
use super::sinks::Delivery;
use super::tcp::remaining;
use super::transport::{Received, Transport};
use crate::error::{PersistError, WriteError};
use crate::foreign;
use crate::machine::effect::{Action, Effect};
use crate::machine::input::{Command, Input, Lookup};
use crate::machine::outcome::Outcome;
use crate::machine::rejection::Rejection;
use crate::machine::view::View as _;
use crate::peer::{Fingerprint, NodeId, PublicKey, TrustRecord};
use crate::store::{Generation, Receipt, Revoked, Subscription, TrustFuture, TrustStore};
use crate::sync::{Deadline, OneShot, spawn};
use crate::tables::{Outgoing, Revocation};

/// A node that takes part in the handshake: it receives, decides by the rules, answers, and does as operators say.
///
/// Its clock and limits are those of its store. Share it in an [`Arc`]. Dropping it stops its threads; the store stays open
/// for whoever holds it, unless [`shutdown`](Self::shutdown) closed it. Its threads may hold the store some moments after the
/// drop: call `shutdown` before the directory is opened again. One manager serves one store: a second one would act on the
/// same trust under another name, and shutting down either closes the store for both.
///
/// It logs through `tracing`, on the thread at hand: often the one that handles a message. What messages cause is logged
/// once a second for each name at most. The subscriber is the embedder's, and must not block: one that writes to a pipe
/// which is not read would stop the node, thread by thread.
pub struct HandshakeManager {
    pub(super) shell: Arc<Shell>,
    pub(super) housekeeper: Housekeeper,
    pub(super) comparison: Option<Comparison>,
    pub(super) poller: Option<Poller>,
    pub(super) deliveries: Vec<Delivery>,
}

impl HandshakeManager {
    /// What is needed at least: where trust is kept, who we are, and how peers are reached.
    #[must_use]
    pub fn builder(store: Arc<TrustStore>, identity: Arc<dyn Identity>, transport: Arc<dyn Transport>) -> Builder {
        Builder::new(store, identity, transport)
    }

    /// Our own id.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.shell.rules.own_id
    }

    /// Our own key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.shell.own_key
    }

    /// The store, for readers, snapshots and its health.
    #[must_use]
    pub fn store(&self) -> &Arc<TrustStore> {
        &self.shell.store
    }

    /// Asks a peer to trust us, and sends the request before it returns: directly if that can be done, else through the
    /// registry if that relays.
    ///
    /// Asking again later is always allowed, and makes a new request of the old one, with the key that was named for it, also
    /// if the registry names another: a warning in the log says so. What comes of it is told by
    /// [`wait_for_trust`](Self::wait_for_trust) and by events.
    ///
    /// # Ordering
    /// Blocks while it looks the peer up, sends and relays, within the bounds of the registry's timeout and the
    /// transport; and until a peer that was just revoked is cut off, at most
    /// [`farewell_max`](crate::config::HandshakeConfig::farewell_max) and a second.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `AlreadyTrusted` (unless forced), with `RevokedNeedsOperator` (if automatic),
    /// with `RevokedNeedsLift` or `KeyRevokedNeedsLift`, with `IgnoredNotAsked`;
    /// [`CommandError::AlreadyInFlight`]; [`CommandError::CoolingDown`] (if automatic); [`CommandError::NotSent`], after
    /// which the entry stays and the node tries again by itself.
    pub fn request(&self, peer: NodeId, justification: &str, options: RequestOptions) -> Result<Receipt, CommandError> {
        self.request_telling(peer, justification, options, &mut None)
    }

    /// The same, and what R-285 has the caller told, also where the request was not sent.
    pub(crate) fn request_telling(
        &self,
        peer: NodeId,
        justification: &str,
        options: RequestOptions,
        told: &mut Option<[Fingerprint; 2]>,
    ) -> Result<Receipt, CommandError> {
        let shell = &self.shell;
        let _inside = shell.enter()?;
        let _asking = Asking::begin(shell, peer).ok_or(CommandError::AlreadyInFlight)?;
        let pause = shell.rules.config.automatic_cool_down;
        if options.automatic
            && let Some(left) = shell.cool_down.lock().left(peer, shell.clock.now().tick, pause)
        {
            return Err(CommandError::CoolingDown { left });
        }
        let asked = (peer != shell.rules.own_id).then(|| shell.ask_registry(peer, Whom::Known, Duration::MAX));
        let registered = match asked {
            // a registry that lags names a replaced key; our caller has not.
            Some(Lookup::Found { key, .. }) if shell.set_aside(peer, &key).is_none() => Some(key),
            _ => None,
        };
        let command = Command::Request {
            peer,
            justification: justification.into(),
            expected_key: options.expected_key,
            registered,
            nonce: shell.nonce()?,
            force: options.force,
            automatic: options.automatic,
            lift: options.lift,
        };
        let mut done = shell.submit(Input::Operator(command))?;
        let now = shell.clock.now().tick;
        shell.cool_down.lock().note(peer, now, pause);
        let receipt = done.receipt.clone();
        if let Outcome::Requested { differs: Some([named, registered]), .. } = done.outcome {
            tracing::warn!(%peer, %named, %registered, "a request stays with the key that was named for it; the registry names another");
            *told = Some([named, registered]);
        }
        let ours = |effect: &Effect| matches!(&effect.action, Action::Send(draft) if draft.to == peer);
        let at = done.effects.iter().position(ours);
        let draft = at.map(|at| done.effects.remove(at).action);
        if let Some(Action::Send(draft)) = &draft {
            shell.retries.asking(peer, draft.nonce, now);
        }
        shell.perform(done);
        // A peer that was just revoked, by either side, is about to be cut off: that must not hit this request.
        shell.enforce_losses();
        let patience = shell.rules.config.farewell_max.saturating_add(CUT_GRACE);
        shell.cutter.wait(peer, Deadline::after(patience));
        let Some(Action::Send(draft)) = draft else { return Ok(receipt) };
        let sent = shell.sign(&draft).and_then(|bytes| match shell.send(peer, &bytes) {
            Err(direct) if relayable(draft.kind, &direct) && shell.relays_messages() => {
                Ok(shell.relay_request(peer, draft.nonce, bytes).map(|()| true).map_err(|relay| (direct, relay)))
            }
            direct => direct.map(|()| Ok(false)),
        });
        // Whichever way it went, its answer may come through the relay: the peer need not be able to dial us.
        if let Some(poller) = &self.poller {
            poller.hurry();
        }
        shell.note_asked(&draft, &sent);
        match sent {
            Ok(Ok(_)) => Ok(receipt),
            Ok(Err((source, relay))) => Err(CommandError::NotSent { receipt, source, relay }),
            Err(source) => Err(CommandError::NotSent { receipt, source, relay: None }),
        }
    }

    /// Forgets a request of ours: an answer to it will mean nothing.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if there is none.
    pub fn cancel(&self, peer: NodeId) -> Result<Receipt, CommandError> {
        self.command(Command::Cancel { peer }).map(|(_, receipt)| receipt)
    }

    /// Trusts a peer no longer, until an operator lifts that: marks it as revoked, whatever is known of it.
    ///
    /// # Ordering
    /// Every read that begins after this returned sees it. The peer is told, and cut off within
    /// [`farewell_max`](crate::config::HandshakeConfig::farewell_max), whatever it or the disk does; this call waits for neither.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `PeerIsUs`.
    pub fn revoke(&self, peer: NodeId) -> Result<Revoked, CommandError> {
        let nonce = self.shell.nonce()?;
        let (outcome, receipt) = self.command(Command::Revoke { peer, nonce })?;
        Ok(super::marks::revoked(receipt, &outcome))
    }

    /// What the comparison of trusted records with the registry, which every start begins, left for an operator to decide:
    /// it contradicts too many of them. `None` if there is nothing to decide.
    ///
    /// Either correct the registry and start the node again, or [`confirm_registry`](Self::confirm_registry).
    #[must_use]
    pub fn registry_disagreement(&self) -> Option<RegistryDisagreement> {
        self.comparison.as_ref()?.disagreement(&self.shell)
    }

    /// The registry is right: ends trust under every key of
    /// [`registry_disagreement`](Self::registry_disagreement), and says in how many peers. The receipt is for all of it.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if there is nothing to decide.
    pub fn confirm_registry(&self) -> Result<(usize, Receipt), CommandError> {
        let _inside = self.shell.enter()?;
        let nothing = || CommandError::Refused(Rejection::NothingToDo);
        let comparison = self.comparison.as_ref().ok_or_else(nothing)?;
        let held = comparison.disagreement(&self.shell).ok_or_else(nothing)?;
        let ended = held.contradicted.into_iter().filter(|it| end(&self.shell, *it)).count();
        if self.registry_disagreement().is_none() {
            comparison.settle();
        }
        let receipt = self.shell.store.newest().ok_or(CommandError::Store(WriteError::Closed(())))?;
        Ok((ended, receipt))
    }

    /// The registry was put back on purpose, or is another one: forgets every revision of its entries that was seen, so that
    /// its next answers count. Says of how many peers one was saved or remembered; trust stays as it is, until an
    /// answer contradicts it.
    ///
    /// A [`TcpTransport`](crate::node::TcpTransport) that finds addresses through the same registry remembers revisions of its
    /// own, for as long as it lives.
    ///
    /// # Durability
    /// Once the receipt is durable, a crash brings no revision back.
    ///
    /// # Complexity
    /// Linear in the saved revisions; the writer lock is taken for 1024 of them at a time.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if no revision is known, and where there is no registry.
    pub fn forget_revisions(&self) -> Result<(usize, Receipt), CommandError> {
        let _inside = self.shell.enter()?;
        let nothing = || CommandError::Refused(Rejection::NothingToDo);
        let look_ups = self.shell.look_ups.as_ref().ok_or_else(nothing)?;
        let (saved, remembered) = look_ups.forget_revisions().map_err(CommandError::Store)?;
        if saved + remembered == 0 {
            return Err(nothing());
        }
        let receipt = self.shell.store.newest().ok_or(CommandError::Store(WriteError::Closed(())))?;
        Ok((saved.max(remembered), receipt))
    }

    /// Hands in a message that a transport of your own received. Nothing is answered, whatever is wrong with it.
    ///
    /// # Ordering
    /// Blocks while the registry is asked, within its timeout. A panic of the registry or transport does not get out.
    pub fn receive(&self, message: Received) {
        self.shell.receive(message);
    }

    /// Whether a peer is trusted now.
    #[must_use]
    pub fn is_trusted(&self, peer: NodeId) -> bool {
        self.shell.store.is_trusted(peer)
    }

    /// Whether a peer is trusted now under this key; an unbound record is not.
    #[must_use]
    pub fn is_trusted_with_key(&self, peer: NodeId, key: &PublicKey) -> bool {
        self.shell.store.is_trusted_with_key(peer, key)
    }

    /// Waits until a peer is trusted; true at once for ourselves. False means that the time ran out.
    #[must_use]
    pub fn wait_for_trust(&self, peer: NodeId, timeout: Duration) -> bool {
        peer == self.shell.rules.own_id || self.shell.store.wait_for_trust(peer, timeout)
    }

    /// The same as a future, for programs whose tasks are not threads.
    pub fn trust_future(&self, peer: NodeId) -> TrustFuture {
        if peer == self.shell.rules.own_id {
            return TrustFuture::ready(peer, true);
        }
        self.shell.store.trust_future(peer)
    }

    /// Every trusted peer at one moment, by id.
    #[must_use]
    pub fn trusted(&self) -> Vec<TrustRecord> {
        self.shell.store.snapshot().iter().collect()
    }

    /// Every request of ours that was not answered yet, and for a day those that were refused, at one moment, by id.
    #[must_use]
    pub fn outgoing(&self) -> Vec<(NodeId, Outgoing)> {
        let tables = self.shell.store.tables();
        sorted(tables.iter().flat_map(|tables| tables.outgoing_iter()).map(|(peer, entry)| (peer, entry.clone())))
    }

    /// Every peer that we revoked, with its mark, at one moment, by id.
    #[must_use]
    pub fn revoked(&self) -> Vec<(NodeId, Revocation)> {
        self.shell.store.revoked()
    }

    /// Everything that happens from now on, in order; what a slow subscriber misses is reported to it as a number.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.shell.store.subscribe()
    }

    /// How often each thing went wrong since the start, by name: the names of
    /// [`Rejection`](crate::machine::rejection::Rejection) for messages that were dropped, and a few of the shell's own.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.shell.counters.list()
    }

    /// By how many milliseconds the newest stamp was ahead of our clock (below 0: behind it), by why that mattered: `too_old`
    /// and `from_future` of messages that were dropped for it, `answer` of the newest answer to a request of ours.
    #[must_use]
    pub fn skews(&self) -> Vec<(&'static str, i64)> {
        self.shell.counters.skews().into_iter().map(|(name, skew)| (name, skew.millis)).collect()
    }

    /// Who the message with each of these stamps said it was from.
    #[cfg(feature = "cli")]
    pub(crate) fn skewed_peers(&self) -> Vec<(&'static str, NodeId)> {
        let skews = self.shell.counters.skews();
        skews.into_iter().filter_map(|(name, skew)| Some((name, skew.says_from?))).collect()
    }

    /// Stops: takes nothing new, finishes or cancels what is being received, waits for what runs in the background, and
    /// saves if anything changed.
    ///
    /// All waiting together takes [`shutdown_wait`](crate::config::HandshakeConfig::shutdown_wait) at most, counted from the
    /// first call. A transport that hangs while it is to cut peers off or to stop is waited for a second more each time, and
    /// then left behind. Saving takes until [`Options::close_deadline`](crate::Options::close_deadline) at most, after that.
    /// Calling it again does not wait again, but tries again to save what could not be saved. Operators' calls answer
    /// [`CommandError::Stopped`] from now on, reading goes on working. It may be called from anywhere, an event sink
    /// included.
    ///
    /// # Durability
    /// `Ok` means that everything up to this generation is durable.
    ///
    /// # Errors
    /// Why the last state could not be saved; it stays in memory, and another call tries again.
    pub fn shutdown(&self) -> Result<Generation, PersistError> {
        if self.shell.in_flight.is_forked() {
            return Err(PersistError::Forked);
        }
        self.stop(self.shell.rules.config.shutdown_wait);
        self.shell.store.close()
    }

    fn stop(&self, wait: Duration) {
        let shell = &self.shell;
        let mut stopping = shell.stopping.lock();
        let is_first = stopping.is_none();
        let until = *stopping.get_or_insert_with(|| Deadline::after(wait));
        drop(stopping);
        // What does not hang is waited for in any case.
        let at_least = || Deadline::after(remaining(until).max(if is_first { STOP_MIN } else { Duration::ZERO }));
        // No new work.
        shell.in_flight.close();
        self.housekeeper.stop();
        if let Some(comparison) = &self.comparison {
            comparison.stop();
        }
        shell.retries.stop();
        shell.announcer.stop();
        if let Some(poller) = &self.poller {
            poller.stop();
        }
        // Those who deliver messages, and those who handle them.
        let wait = remaining(until);
        let received = self.ask_transport(at_least(), move |transport| transport.stop_receiving(wait));
        let fetched = self.poller.as_ref().is_none_or(|poller| poller.wait(until));
        let compared = self.comparison.as_ref().is_none_or(|comparison| comparison.wait(until));
        let handled = shell.in_flight.wait(until);
        // What they began. Released answers go to the outbox, and what it cannot send to the relays: in this order.
        let enforced = shell.enforcement.close(shell, until);
        shell.durable.close(until);
        let sent = shell.outbox.close(until) & shell.relays.close(until) & shell.reports.close(until);
        let cut = shell.cutter.close(at_least());
        // Refused if the store was closed before: then this was done before, too.
        drop(shell.submit(Input::Stopping));
        let left = self.ask_transport(at_least(), |transport| transport.stop_sending());
        // Nothing happens any more that sinks would hear of.
        for delivery in &self.deliveries {
            shell.store.end_subscription(delivery.subscription());
        }
        let told = self.deliveries.iter().map(|delivery| delivery.close(until)).fold(true, |all, one| all & one);
        if !(received && fetched && compared && handled && enforced && sent && cut && left && told) {
            tracing::warn!(
                received,
                fetched,
                compared,
                handled,
                enforced,
                sent,
                cut,
                left,
                told,
                "something still ran when the time to stop was over"
            );
        }
    }

    /// Has the transport stop something, on a thread that is left behind if that hangs. Says whether it came back.
    fn ask_transport(&self, until: Deadline, stop: impl FnOnce(&dyn Transport) + Send + 'static) -> bool {
        let (transport, done) = (Arc::clone(&self.shell.transport), Arc::new(OneShot::new()));
        let of_thread = Arc::clone(&done);
        let stop = move || {
            if foreign::run(|| stop(&*transport)).is_err() {
                tracing::error!("the transport panicked while stopping");
            }
            foreign::let_go(transport);
            of_thread.put(());
        };
        spawn("trustkeep-stop", stop).is_ok() && done.wait(until).is_some()
    }

    pub(super) fn command(&self, command: Command) -> Result<(Outcome, Receipt), CommandError> {
        let _inside = self.shell.enter()?;
        if self.names_own_key(&command) {
            return Err(CommandError::Refused(Rejection::KeyIsOurs));
        }
        let decided = match &command {
            Command::Approve { peer, .. } | Command::Reject { peer, .. } | Command::Revoke { peer, .. } => Some(*peer),
            _ => None,
        };
        let done = self.shell.submit(Input::Operator(command))?;
        if let Some(peer) = decided {
            self.shell.retries.decided(peer);
        }
        let answer = (done.outcome, done.receipt.clone());
        self.shell.perform(done);
        Ok(answer)
    }
}

impl HandshakeManager {
    /// Whether a command would take this node's own key for a peer's.
    fn names_own_key(&self, command: &Command) -> bool {
        let own = self.public_key();
        match command {
            Command::Grant { record, .. } => record.public_key == Some(own),
            Command::AdoptKey { key, .. } => *key == own,
            Command::Approve { peer, fingerprint, .. } => {
                let tables = self.shell.store.tables();
                // A fingerprint of ours that no key has which waits is a mistake of another kind.
                tables.as_ref().and_then(|tables| tables.pending(*peer)).is_some_and(|entry| match fingerprint {
                    None => entry.key == own,
                    Some(named) => {
                        let waits = entry.key == own || entry.others.iter().any(|other| other.key == own);
                        waits && *named == own.fingerprint()
                    }
                })
            }
            _ => false,
        }
    }
}

impl Shell {
    /// Lets an operator's call in.
    ///
    /// # Errors
    /// The node stops, or this process was forked from its own.
    pub(super) fn enter(&self) -> Result<Pass<'_>, CommandError> {
        let refused = || match self.in_flight.is_forked() {
            true => CommandError::Store(WriteError::Forked(())),
            false => CommandError::Stopped,
        };
        self.in_flight.enter().ok_or_else(refused)
    }
}

/// How long a stop waits at least for what the transport does to stop, which should be done at once.
const STOP_MIN: Duration = Duration::from_secs(1);

impl Drop for HandshakeManager {
    fn drop(&mut self) {
        if self.shell.in_flight.is_forked() {
            // What would end its threads waits for threads that do not exist here: it is kept.
            let rest = (self.comparison.take(), self.poller.take(), core::mem::take(&mut self.deliveries));
            let _kept = ManuallyDrop::new((Arc::clone(&self.shell), rest));
            return;
        }
        self.stop(Duration::ZERO);
    }
}

impl fmt::Debug for HandshakeManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeManager").field("node_id", &self.node_id()).finish_non_exhaustive()
    }
}

impl From<NotDone> for CommandError {
    fn from(error: NotDone) -> Self {
        match error {
            NotDone::Refused(rejection) => Self::Refused(rejection),
            // Of relayed messages alone.
            NotDone::NotAsked => Self::Stopped,
            NotDone::Store(error) => Self::Store(error),
            NotDone::Random(error) => Self::Random(error),
        }
    }
}

/// One running call of `request` for a peer; ends with the call, even by a panic.
struct Asking<'a> {
    shell: &'a Shell,
    peer: NodeId,
}

impl<'a> Asking<'a> {
    fn begin(shell: &'a Shell, peer: NodeId) -> Option<Self> {
        // Made only if it is ours: dropping one ends a call, and takes the lock.
        let ours = shell.asking.lock().insert(peer);
        ours.then(|| Self { shell, peer })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.shell.asking.lock().remove(&self.peer);
    }
}

pub(super) fn sorted<T>(entries: impl Iterator<Item = (NodeId, T)>) -> Vec<(NodeId, T)> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|(peer, _)| *peer);
    entries
}

/// How long after its time the cutting off of a peer is still waited for: threads may be late on a busy machine.
const CUT_GRACE: Duration = Duration::from_secs(1);
