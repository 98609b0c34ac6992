//! What a node is made of, and how it starts: nothing runs before everything that it needs is there.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::announcer::Announcer;
use super::calls::StartError;
use super::comparison::Comparison;
use super::cool_down::CoolDown;
use super::counters::Counters;
use super::cutter::Cutter;
use super::durable::Durable;
use super::enforcement::Enforcement;
use super::housekeeper::Housekeeper;
use super::identity::Identity;
use super::in_flight::InFlight;
use super::look_up::{LOOK_UPS_MAX, LookUps};
use super::loud::Loud;
use super::manager::HandshakeManager;
use super::newcomers::RefusedNewcomers;
use super::outbox::{CALLERS_MAX, Outbox, SENDERS_MAX};
use super::poller::Poller;
use super::random::{Random, SystemRandom};
use super::registry::{Registry, Relaying};
use super::replies::Replies;
use super::retry::Retries;
use super::shell::{Door, Shell};
use super::sinks::{Delivery, EventSink};
use super::taken_back::TakenBack;
use super::transport::Transport;
use crate::config::{HandshakeConfig, Policy};
use crate::foreign;
use crate::machine::outcome::Rules;
use crate::machine::replay::ReplayTable;
use crate::store::TrustStore;
use crate::sync::Mutex;
use crate::wire::open_key::OpenKeys;

/// What a [`HandshakeManager`] is made of; [`start`](Self::start) makes it.
pub struct Builder {
    store: Arc<TrustStore>,
    identity: Arc<dyn Identity>,
    transport: Arc<dyn Transport>,
    registry: Option<Arc<dyn Registry>>,
    look_up_timeout: Duration,
    random: Arc<dyn Random>,
    sinks: Vec<Arc<dyn EventSink>>,
    config: HandshakeConfig,
    policy: Policy,
}

impl Builder {
    pub(super) fn new(store: Arc<TrustStore>, identity: Arc<dyn Identity>, transport: Arc<dyn Transport>) -> Self {
        Self {
            store,
            identity,
            transport,
            registry: None,
            look_up_timeout: Duration::from_secs(2),
            random: Arc::new(SystemRandom),
            sinks: Vec::new(),
            config: HandshakeConfig::default(),
            policy: Policy::default(),
        }
    }

    /// With a registry that vouches for keys. Without one, keys are vouched for by operators alone.
    #[must_use]
    pub fn registry(mut self, registry: Arc<dyn Registry>) -> Self {
        self.registry = Some(registry);
        self
    }

    /// How long the registry may take over a message; over a request of ours that it is to relay; and over a peer that an
    /// operator approves (2 seconds at most). If it takes longer it could not be asked, and nobody new is trusted unless
    /// somebody else vouches for the key. Default: 2 seconds.
    #[must_use]
    pub fn look_up_timeout(mut self, timeout: Duration) -> Self {
        self.look_up_timeout = timeout;
        self
    }

    /// With somebody who is called when something happens, from the start on. May be given several times.
    #[must_use]
    pub fn event_sink(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.sinks.push(sink);
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
    /// [`StartError`]: no threads, the transport does not start, or an interval is too short. Nothing runs then.
    pub fn start(self) -> Result<HandshakeManager, StartError> {
        let intervals = [
            ("housekeeping_every", self.config.housekeeping_every),
            ("relay_poll_min", self.config.relay_poll_min),
            ("relay_poll_max", self.config.relay_poll_max),
        ];
        if let Some((name, _)) = intervals.into_iter().find(|(_, interval)| *interval < INTERVAL_MIN) {
            return Err(StartError::Interval { name, min: INTERVAL_MIN });
        }
        let own = foreign::run(|| (self.identity.node_id(), self.identity.public_key()));
        let (own_id, own_key) = own.map_err(|_| StartError::Panicked)?;
        let asked = |registry: &Arc<dyn Registry>| foreign::run(|| registry.relaying());
        let relaying = self.registry.as_ref().and_then(|registry| asked(registry).ok());
        let rules = Rules { own_id, config: self.config, policy: self.policy, limits: self.store.limits() };
        let look_up =
            |registry| LookUps::new(registry, self.look_up_timeout, LOOK_UPS_MAX, Arc::downgrade(&self.store));
        let look_ups = self.registry.clone().map(look_up);
        let (began, losses) = (self.store.clock().now().wall, self.store.watch_losses());
        let shell = Arc::new(Shell {
            began,
            replay: Mutex::new(ReplayTable::new(&rules)),
            rules,
            // One clock for both: a loaded entry's age is a difference of the store's ticks.
            clock: self.store.clock(),
            store: self.store,
            identity: self.identity,
            own_key,
            cutter: Cutter::start(Arc::clone(&self.transport)).map_err(StartError::Thread)?,
            enforcement: Enforcement::new(losses),
            transport: self.transport,
            look_ups,
            registry_timeout: self.look_up_timeout,
            relaying: relaying.unwrap_or(Relaying::No),
            registry: self.registry,
            random: self.random,
            outbox: Outbox::new(SENDERS_MAX),
            reports: Outbox::new(CALLERS_MAX),
            relays: Outbox::new(CALLERS_MAX),
            replies: Mutex::new(Replies::default()),
            retries: Retries::new(),
            announcer: Announcer::new(),
            durable: Durable::start().map_err(StartError::Thread)?,
            counters: Counters::default(),
            loud: Mutex::new(Loud::default()),
            taken_back: Mutex::new(TakenBack::default()),
            newest_false_key: Mutex::new(None),
            newcomers: RefusedNewcomers::default(),
            open_keys: Mutex::new(OpenKeys::new(OPEN_KEYS_MAX)),
            asking: Mutex::new(HashSet::new()),
            cool_down: Mutex::new(CoolDown::default()),
            in_flight: InFlight::new(),
            stopping: Mutex::new(None),
        });
        let housekeeper = Housekeeper::start(&shell).map_err(StartError::Thread)?;
        // From here on a failure drops the manager, which ends what was begun.
        let mut manager =
            HandshakeManager { shell, housekeeper, comparison: None, poller: None, deliveries: Vec::new() };
        manager.shell.enforcement.start(&manager.shell).map_err(StartError::Thread)?;
        for sink in self.sinks {
            manager.deliveries.push(Delivery::start(&manager.shell, sink).map_err(StartError::Thread)?);
        }
        // Whoever subscribed, and every sink, hears of it; nothing is received yet.
        manager.shell.forget_ourselves();
        manager.comparison = Comparison::start(&manager.shell).map_err(StartError::Thread)?;
        manager.poller = Poller::start(&manager.shell).map_err(StartError::Thread)?;
        let door = Arc::new(Door(Arc::downgrade(&manager.shell)));
        let started = foreign::run(|| manager.shell.transport.start(door));
        started.map_err(|_| StartError::Panicked)?.map_err(StartError::Transport)?;
        manager.shell.retries.start(&manager.shell).map_err(StartError::Thread)?;
        manager.shell.announcer.start(&manager.shell).map_err(StartError::Thread)?;
        Ok(manager)
    }
}

/// The least that an interval may be.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// Keys of known peers that are kept ready, about 300 bytes each.
const OPEN_KEYS_MAX: usize = 4096;

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("node_id", &self.identity.node_id()).finish_non_exhaustive()
    }
}
