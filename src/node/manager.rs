//! A running node: the machine, a store, and the outside world, behind the calls of an operator.
//!
//! Every call either leads to nothing and says why, or is published before it returns; none waits for a disk or (but
//! for `request`, which sends) for a peer. A restriction holds for every reader when its call returns.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::calls::{CommandError, RequestOptions, StartError};
use super::counters::Counters;
use super::cutter::Cutter;
use super::durable::Durable;
use super::housekeeper::Housekeeper;
use super::identity::Identity;
use super::look_up::LookUps;
use super::outbox::Outbox;
use super::random::{Random, SystemRandom};
use super::registry::Registry;
use super::shell::{Door, NotDone, Shell};
use super::tcp::remaining;
use super::transport::{Received, Transport};
use crate::config::{HandshakeConfig, Policy};
use crate::error::PersistError;
use crate::machine::effect::{Action, Effect};
use crate::machine::input::{Command, Input};
use crate::machine::outcome::{Outcome, Rules};
use crate::machine::replay::ReplayTable;
use crate::machine::view::{Outgoing, Pending, View as _};
use crate::peer::{Fingerprint, NodeId, PublicKey, TrustRecord};
use crate::store::{Generation, Receipt, Revoked, Subscription, TrustStore};
use crate::sync::{Deadline, Mutex};
use crate::time::WallMillis;

/// A node that takes part in the handshake: it receives, decides by the rules, answers, and does as operators say.
///
/// Its clock and limits are those of its store. Share it in an [`Arc`]. Dropping it stops its threads; the store stays open for whoever holds it, unless
/// [`shutdown`](Self::shutdown) closed it.
pub struct HandshakeManager {
    pub(super) shell: Arc<Shell>,
    housekeeper: Housekeeper,
}

/// What a [`HandshakeManager`] is made of; [`start`](Self::start) makes it.
pub struct Builder {
    store: Arc<TrustStore>,
    identity: Arc<dyn Identity>,
    transport: Arc<dyn Transport>,
    registry: Option<Arc<dyn Registry>>,
    look_up_timeout: Duration,
    random: Arc<dyn Random>,
    config: HandshakeConfig,
    policy: Policy,
}

impl Builder {
    /// With a registry that vouches for keys. Without one, keys are vouched for by operators alone.
    #[must_use]
    pub fn registry(mut self, registry: Arc<dyn Registry>) -> Self {
        self.registry = Some(registry);
        self
    }

    /// How long the registry may take over a message; then it goes on as if nobody vouched for its key. 2 seconds.
    #[must_use]
    pub fn look_up_timeout(mut self, timeout: Duration) -> Self {
        self.look_up_timeout = timeout;
        self
    }

    /// With other random bytes than the operating system's.
    #[must_use]
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// With other times than the defaults.
    #[must_use]
    pub fn config(mut self, config: HandshakeConfig) -> Self {
        self.config = config;
        self
    }

    /// Trusting more than the default, which is to trust nobody whom no operator approved.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Begins to receive.
    ///
    /// # Errors
    /// [`StartError`]: no threads, or the transport does not start. Nothing runs then.
    pub fn start(self) -> Result<HandshakeManager, StartError> {
        let own_id = self.identity.node_id();
        let rules = Rules { own_id, config: self.config, policy: self.policy, limits: self.store.limits() };
        let shell = Arc::new(Shell {
            replay: Mutex::new(ReplayTable::new(&rules)),
            rules,
            // One clock for both: a loaded entry's age is a difference of the store's ticks.
            clock: self.store.clock(),
            store: self.store,
            identity: self.identity,
            cutter: Cutter::start(Arc::clone(&self.transport)).map_err(StartError::Thread)?,
            transport: self.transport,
            look_ups: self.registry.clone().map(|registry| LookUps::new(registry, self.look_up_timeout)),
            registry: self.registry,
            random: self.random,
            outbox: Outbox::new(),
            reports: Outbox::new(),
            durable: Durable::start().map_err(StartError::Thread)?,
            counters: Counters::default(),
            asking: Mutex::new(HashSet::new()),
            stopping: Mutex::new(None),
        });
        let housekeeper = Housekeeper::start(&shell).map_err(StartError::Thread)?;
        let manager = HandshakeManager { shell, housekeeper };
        let door = Arc::new(Door(Arc::downgrade(&manager.shell)));
        manager.shell.transport.start(door).map_err(StartError::Transport)?;
        Ok(manager)
    }
}

impl HandshakeManager {
    /// What is needed at least: where trust is kept, who we are, and how peers are reached.
    #[must_use]
    pub fn builder(store: Arc<TrustStore>, identity: Arc<dyn Identity>, transport: Arc<dyn Transport>) -> Builder {
        Builder {
            store,
            identity,
            transport,
            registry: None,
            look_up_timeout: Duration::from_secs(2),
            random: Arc::new(SystemRandom),
            config: HandshakeConfig::default(),
            policy: Policy::default(),
        }
    }

    /// Our own id.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.shell.rules.own_id
    }

    /// Our own key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.shell.identity.public_key()
    }

    /// The store, for readers, snapshots and its health.
    #[must_use]
    pub fn store(&self) -> &Arc<TrustStore> {
        &self.shell.store
    }

    /// Asks a peer to trust us, and sends the request before it returns.
    ///
    /// Asking again later is always allowed, and makes a new request of the old one. What comes of it is told by
    /// [`wait_for_trust`](Self::wait_for_trust) and by events.
    ///
    /// # Ordering
    /// Blocks while it looks the peer up and sends, within the bounds of the registry's timeout and the transport; and
    /// until a peer that was just revoked is cut off, at most [`farewell_max`](HandshakeConfig::farewell_max) and a
    /// second.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `AlreadyTrusted` (unless forced), with `RevokedNeedsOperator` (if automatic);
    /// [`CommandError::AlreadyInFlight`]; [`CommandError::NotSent`], after which the entry stays.
    pub fn request(&self, peer: NodeId, justification: &str, options: RequestOptions) -> Result<Receipt, CommandError> {
        let shell = &self.shell;
        if shell.stopping.lock().is_some() {
            return Err(CommandError::Stopped);
        }
        let _asking = Asking::begin(shell, peer).ok_or(CommandError::AlreadyInFlight)?;
        let expected_key = match options.expected_key {
            Some(key) => Some(key),
            None if peer == shell.rules.own_id => None,
            None => shell.look_up(peer, true).and_then(|entry| entry.key),
        };
        let command = Command::Request {
            peer,
            justification: justification.to_owned(),
            expected_key,
            nonce: shell.nonce()?,
            force: options.force,
            automatic: options.automatic,
        };
        let mut done = shell.submit(Input::Operator(command))?;
        let receipt = done.receipt.clone();
        let ours = |effect: &Effect| matches!(&effect.action, Action::Send(draft) if draft.to == peer);
        let at = done.effects.iter().position(ours);
        let draft = at.map(|at| done.effects.remove(at).action);
        shell.perform(done);
        // A peer that was just revoked, by either side, is about to be cut off: that must not hit this request.
        let patience = shell.rules.config.farewell_max.saturating_add(CUT_GRACE);
        shell.cutter.wait(peer, Deadline::after(patience));
        let Some(Action::Send(draft)) = draft else { return Ok(receipt) };
        match shell.send(&draft) {
            Err(source) => Err(CommandError::NotSent { receipt, source }),
            Ok(()) => Ok(receipt),
        }
    }

    /// Trusts a pending peer under the key it is pending with, and answers it once that is durable.
    ///
    /// `fingerprint` is that of the key which the operator was shown; it may be left out only while no other key was
    /// seen for this peer.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo`, `WrongFingerprint`, `FingerprintRequired` or `StoreFull`.
    pub fn approve(&self, peer: NodeId, fingerprint: Option<Fingerprint>) -> Result<Receipt, CommandError> {
        let nonce = self.shell.nonce()?;
        self.command(Command::Approve { peer, fingerprint, nonce }).map(|(_, receipt)| receipt)
    }

    /// Refuses a pending peer, and tells it so.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if the peer is not pending.
    pub fn reject(&self, peer: NodeId, reason: &str) -> Result<Receipt, CommandError> {
        let nonce = self.shell.nonce()?;
        self.command(Command::Reject { peer, reason: reason.to_owned(), nonce }).map(|(_, receipt)| receipt)
    }

    /// Forgets a request of ours: an answer to it will mean nothing.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if there is none.
    pub fn cancel(&self, peer: NodeId) -> Result<Receipt, CommandError> {
        self.command(Command::Cancel { peer }).map(|(_, receipt)| receipt)
    }

    /// Trusts a peer no longer, until an operator says so again.
    ///
    /// # Ordering
    /// Every read that begins after this returned sees it. The peer is told, and cut off within
    /// [`farewell_max`](HandshakeConfig::farewell_max), whatever it or the disk does; this call waits for neither.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if the peer is neither trusted, pending nor asked.
    pub fn revoke(&self, peer: NodeId) -> Result<Revoked, CommandError> {
        let nonce = self.shell.nonce()?;
        let (outcome, receipt) = self.command(Command::Revoke { peer, nonce })?;
        let was = if let Outcome::Revoked { was } = outcome { was } else { None };
        Ok(Revoked { receipt, was })
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

    /// Every trusted peer at one moment, by id.
    #[must_use]
    pub fn trusted(&self) -> Vec<TrustRecord> {
        self.shell.store.snapshot().iter().collect()
    }

    /// Every peer that waits for an operator at one moment, by id.
    #[must_use]
    pub fn pending(&self) -> Vec<(NodeId, Pending)> {
        let tables = self.shell.store.tables();
        sorted(tables.iter().flat_map(|tables| tables.pending_iter()).map(|(peer, entry)| (peer, entry.clone())))
    }

    /// Every request of ours that was not answered yet, at one moment, by id.
    #[must_use]
    pub fn outgoing(&self) -> Vec<(NodeId, Outgoing)> {
        let tables = self.shell.store.tables();
        sorted(tables.iter().flat_map(|tables| tables.outgoing_iter()).map(|(peer, entry)| (peer, entry.clone())))
    }

    /// Every peer that we revoked, and when, at one moment, by id.
    #[must_use]
    pub fn revoked(&self) -> Vec<(NodeId, WallMillis)> {
        let tables = self.shell.store.tables();
        let entries = tables.iter().flat_map(|tables| tables.revoked.iter());
        sorted(entries.filter_map(|(peer, at)| Some((NodeId::new(peer)?, *at))))
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

    /// Stops: takes nothing new, finishes what is under way, and saves.
    ///
    /// What runs in the background has [`shutdown_wait`](HandshakeConfig::shutdown_wait) altogether, counted from the
    /// first call. Calling it again does not wait again, but tries again to save what could not be saved.
    ///
    /// # Durability
    /// `Ok` means that everything up to this generation is durable.
    ///
    /// # Errors
    /// Why the last state could not be saved; it stays in memory, and another call tries again.
    pub fn shutdown(&self) -> Result<Generation, PersistError> {
        self.stop(self.shell.rules.config.shutdown_wait);
        self.shell.store.close()
    }

    fn stop(&self, wait: Duration) {
        let shell = &self.shell;
        let until = *shell.stopping.lock().get_or_insert_with(|| Deadline::after(wait));
        let guarded = |what: &dyn Fn()| {
            if catch_unwind(AssertUnwindSafe(what)).is_err() {
                tracing::error!("the transport panicked while stopping");
            }
        };
        guarded(&|| shell.transport.stop_receiving(remaining(until)));
        self.housekeeper.stop();
        // Released answers go to the outbox, so it closes after.
        shell.durable.close(until);
        let (sent, reported) = (shell.outbox.close(until), shell.reports.close(until));
        if !(sent && reported) {
            tracing::warn!(sent, reported, "background work was still running when the time to stop was over");
        }
        shell.cutter.close();
        guarded(&|| shell.transport.stop_sending());
    }

    pub(super) fn command(&self, command: Command) -> Result<(Outcome, Receipt), CommandError> {
        let done = self.shell.submit(Input::Operator(command))?;
        let answer = (done.outcome, done.receipt.clone());
        self.shell.perform(done);
        Ok(answer)
    }
}

impl Drop for HandshakeManager {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

impl fmt::Debug for HandshakeManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeManager").field("node_id", &self.node_id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("node_id", &self.identity.node_id()).finish_non_exhaustive()
    }
}

impl From<NotDone> for CommandError {
    fn from(error: NotDone) -> Self {
        match error {
            NotDone::Refused(rejection) => Self::Refused(rejection),
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

fn sorted<T>(entries: impl Iterator<Item = (NodeId, T)>) -> Vec<(NodeId, T)> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|(peer, _)| *peer);
    entries
}

/// How long after its time the cutting off of a peer is still waited for: threads may be late on a busy machine.
const CUT_GRACE: Duration = Duration::from_secs(1);
