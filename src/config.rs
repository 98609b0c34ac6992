//! Limits and intervals, with their units; checked once when something is opened, then immutable.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::collections::BTreeMap;

use crate::peer::{NodeId, PublicKey};

/// How many entries each table may hold. Reaching a limit is a typed error or a counted rejection, never growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Trusted peers; a grant beyond it is refused as full. 10 million.
    pub trusted_max: usize,
    /// Requests waiting for an operator. 256.
    pub pending_max: usize,
    /// Of these, from one source (an authenticated node, else an address). 16.
    pub pending_per_source_max: usize,
    /// Our own unanswered requests; one more forgets the oldest. 4096.
    pub outgoing_max: usize,
    /// Decisions that peers have not been told yet; one more forgets the oldest, a farewell last. 4096.
    pub owed_max: usize,
    /// Peers whose newest stamps are remembered; peers in other tables are never forgotten. 1 million.
    pub floors_max: usize,
    /// Peers of which it is remembered which keys named, or were replaced by, another one: at most 16 for each. 1 million;
    /// beyond it a new key proves nothing and waits for the operator.
    pub successors_max: usize,
    /// Messages of version 1 that are remembered so that a copy is known for one. 8192.
    pub replay_max: usize,
    /// Of these, from one sender. 256.
    pub replay_per_node_max: usize,
    /// Revoked peers from which on [`Health`](crate::Health) warns; marks are never refused and never forgotten for room. None.
    pub revoked_max: Option<usize>,
    /// Revoked keys; one more is refused as full. 1 million.
    pub revoked_keys_max: usize,
    /// Ignored peers; one more is refused as full. 1 million.
    pub ignored_max: usize,
    /// Ignored keys; one more is refused as full. 1 million.
    pub ignored_keys_max: usize,
    /// Events kept for one slow subscriber, from 1 to [`Limits::SUBSCRIPTION_EVENTS_MOST`]; beyond it events are lost and their
    /// number is reported. 1024.
    pub subscription_events_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            trusted_max: 10_000_000,
            pending_max: 256,
            pending_per_source_max: 16,
            outgoing_max: 4096,
            owed_max: 4096,
            floors_max: 1_000_000,
            successors_max: 1_000_000,
            replay_max: 8192,
            replay_per_node_max: 256,
            revoked_max: None,
            revoked_keys_max: 1_000_000,
            ignored_max: 1_000_000,
            ignored_keys_max: 1_000_000,
            subscription_events_max: 1024,
        }
    }
}

impl Limits {
    /// The most that [`subscription_events_max`](Self::subscription_events_max) may be: 2^24, which for a subscriber that never
    /// reads is some gigabytes.
    pub const SUBSCRIPTION_EVENTS_MOST: usize = 1 << 24;

    /// Of how many peers refused requests are remembered.
    #[cfg(feature = "cli")]
    pub(crate) const fn refused_peers_max(&self) -> usize {
        self.pending_max.saturating_mul(16)
    }

    /// The first limit that cannot be kept: its name, its value, and what it may be.
    pub(crate) fn check(&self) -> Result<(), (&'static str, usize, core::ops::RangeInclusive<usize>)> {
        let allowed = 1..=Self::SUBSCRIPTION_EVENTS_MOST;
        if allowed.contains(&self.subscription_events_max) {
            Ok(())
        } else {
            Err(("subscription_events_max", self.subscription_events_max, allowed))
        }
    }
}

/// Whether an answer that tells a peer of a grant waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// A peer hears of a grant only once the grant survives power loss.
    #[default]
    BeforeAnswer,
    /// A peer hears of a grant at once; a crash within the next save may forget what the peer was told.
    Eventually,
}

/// Times of the handshake. Every duration is checked against the wall clock or the tick as its field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandshakeConfig {
    /// A direct message older than this, by its stamp and our wall clock, is dropped. 5 minutes.
    pub message_age_max: Duration,
    /// A message stamped further than this ahead of our wall clock is dropped. 30 seconds.
    pub future_skew_max: Duration,
    /// How often expired entries are looked for, by the tick. 5 minutes; at least 1 millisecond.
    pub housekeeping_every: Duration,
    /// How long an unanswered request, received or sent, is kept, by the tick; and the age at which a relayed message is
    /// dropped, by its stamp and our wall clock. 30 days.
    pub entry_lifetime: Duration,
    /// How long one connection may take to deliver its message, by the tick. 10 seconds.
    pub receive_timeout: Duration,
    /// How long a revoked peer's tunnel may stay open for the farewell message, by the tick. 500 milliseconds.
    pub farewell_max: Duration,
    /// How long shutting down waits for calls in the background, by the tick. 2 seconds.
    pub shutdown_wait: Duration,
    /// How long after a request to a peer the next automatic one to it is refused, by the tick; operators' requests
    /// never are. 30 seconds.
    pub automatic_cool_down: Duration,
    /// How soon a relay that must be polled is polled after a request of ours, by the tick. 250 milliseconds; at least 1.
    pub relay_poll_min: Duration,
    /// How seldom it is polled when nothing has been asked for a while, or when it fails, by the tick. 30 seconds; at least
    /// 1 millisecond.
    pub relay_poll_max: Duration,
    /// Whether a peer hears of a grant before it is durable.
    pub durability: Durability,
    /// Whether a node whose key was replaced tells its trusted peers by itself. Yes.
    pub announce_rotation: bool,
}

impl Default for HandshakeConfig {
    fn default() -> Self {
        Self {
            message_age_max: Duration::from_secs(5 * 60),
            future_skew_max: Duration::from_secs(30),
            housekeeping_every: Duration::from_secs(5 * 60),
            entry_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
            receive_timeout: Duration::from_secs(10),
            farewell_max: Duration::from_millis(500),
            shutdown_wait: Duration::from_secs(2),
            automatic_cool_down: Duration::from_secs(30),
            relay_poll_min: Duration::from_millis(250),
            relay_poll_max: Duration::from_secs(30),
            durability: Durability::BeforeAnswer,
            announce_rotation: true,
        }
    }
}

/// What a node does when a trusted peer comes with a new key that its old key has named as the successor.
///
/// Whoever has the old key can name one, the thief of it as well. So nothing but [`Ask`](Self::Ask) and
/// [`Refuse`](Self::Refuse) leaves the question to somebody who can find out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnRotation {
    /// The new key waits for the operator, shown as proven by the old key; trust under the old key stands meanwhile.
    #[default]
    Ask,
    /// The new key takes the place of the old one at once.
    Take,
    /// Messages under the new key are dropped.
    Refuse,
}

/// Whom a node trusts without asking its operator, and what else it takes that it need not. By default nobody, and
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The networks that this node belongs to, the one it prefers first. A peer that the registry vouches for, and that
    /// is in one of them too, is trusted when it asks. A 0 among them stands for no network.
    pub own_networks: Vec<u16>,
    /// Peers that are trusted when they ask.
    pub allow_list: AllowList,
    /// Trust every peer that asks, under whatever key it shows. Off.
    pub auto_approve: bool,
    /// Trust the key in the first answer to a request of ours although nobody vouches for it. Off.
    pub trust_on_first_use: bool,
    /// Take messages of version 1, from peers that the transport authenticated. Off.
    pub accept_v1: bool,
    /// What becomes of a trusted peer's new key that its old key has named. The operator is asked.
    pub on_rotation: OnRotation,
}

impl Policy {
    /// The same, for a node in these networks, the one it prefers first.
    #[must_use]
    pub fn own_networks(mut self, networks: impl IntoIterator<Item = u16>) -> Self {
        self.own_networks = networks.into_iter().collect();
        self
    }

    /// The same, with this peer on the allow-list too.
    #[must_use]
    pub fn allow(mut self, peer: Allowed) -> Self {
        self.allow_list.insert(peer);
        self
    }

    /// The same, trusting every peer that asks, or not.
    #[must_use]
    pub const fn auto_approve(mut self, on: bool) -> Self {
        self.auto_approve = on;
        self
    }

    /// The same, trusting the first key that answers a request, or not.
    #[must_use]
    pub const fn trust_on_first_use(mut self, on: bool) -> Self {
        self.trust_on_first_use = on;
        self
    }

    /// The same, taking messages of version 1, or not.
    #[must_use]
    pub const fn accept_v1(mut self, on: bool) -> Self {
        self.accept_v1 = on;
        self
    }

    /// The same, doing this when a trusted peer's old key names a new one.
    #[must_use]
    pub const fn on_rotation(mut self, on_rotation: OnRotation) -> Self {
        self.on_rotation = on_rotation;
        self
    }
}

/// A peer that is trusted when it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowed {
    /// The peer.
    pub node_id: NodeId,
    /// The key that it must show; without one, the registry must vouch for the key that it shows.
    pub key: Option<PublicKey>,
    /// What the operator calls it; told in the event when it is trusted.
    pub label: Option<String>,
}

impl Allowed {
    /// This peer under this key (a [`PublicKey`], or an `Option` of one), without a label.
    #[must_use]
    pub fn new(node_id: NodeId, key: impl Into<Option<PublicKey>>) -> Self {
        Self { node_id, key: key.into(), label: None }
    }

    /// The same, called so.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }
}

/// The peers that are trusted when they ask, by id; a peer may stand in it several times, with several keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    pub(crate) entries: BTreeMap<NodeId, Vec<Allowed>>,
}

impl AllowList {
    /// Adds an entry.
    pub fn insert(&mut self, entry: Allowed) {
        self.entries.entry(entry.node_id).or_default().push(entry);
    }

    /// The entries of one peer, in the order in which they were added.
    #[must_use]
    pub fn of(&self, peer: NodeId) -> &[Allowed] {
        self.entries.get(&peer).map_or(&[], Vec::as_slice)
    }
}

impl FromIterator<Allowed> for AllowList {
    fn from_iter<I: IntoIterator<Item = Allowed>>(entries: I) -> Self {
        let mut list = Self::default();
        entries.into_iter().for_each(|entry| list.insert(entry));
        list
    }
}

/// The largest message on the wire, in bytes. Fixed by the protocol.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The longest justification or reason that is kept, in bytes of UTF-8 after filtering. Fixed by the protocol.
pub const TEXT_BYTES_MAX: usize = 1024;

/// The TCP port on which a node listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 4440;
