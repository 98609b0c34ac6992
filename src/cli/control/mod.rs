//! How the program talks to a running node: over a Unix socket in the node's home, one line of JSON each way.
//!
//! What must hold: only the node's own user, root and a group that was named are served; nothing that comes in
//! allocates beyond [`REQUEST_BYTES_MAX`] or holds a place longer than it says; a change is answered with [`Reply::Done`] only once it is durable.
#![forbid(unsafe_code)]

pub(super) mod client;
mod door;
mod known;
mod marks;
pub(super) mod perform;
pub(super) mod server;
pub(super) mod socket;
#[cfg(all(test, not(trustkeep_loom)))]
mod tests;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::events::EventRow;
use super::peers::RefusedChange;
use super::rows::{
    ContradictedRow, IgnoredKeyRow, IgnoredRow, OutgoingRow, OwedRow, PeerShown, PendingRow, RevokedKeyRow, RevokedRow,
    TrustedRow,
};
use super::store_seen::Older;

/// What is asked of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Ask {
    Request {
        peer: u32,
        justification: String,
        expected_key: Option<String>,
        force: bool,
        #[serde(default)]
        lift: Option<String>,
    },
    Approve {
        peer: u32,
        fingerprint: Option<String>,
        entry: Option<String>,
        #[serde(default)]
        lift: Option<String>,
    },
    Grant {
        peer: u32,
        key: String,
        #[serde(default)]
        lift: Option<String>,
    },
    Reject {
        peer: u32,
        reason: String,
        #[serde(default)]
        fingerprint: Option<String>,
        #[serde(default)]
        entry: Option<String>,
    },
    Cancel {
        peer: u32,
    },
    Revoke {
        #[serde(default)]
        peer: Option<u32>,
        #[serde(default)]
        key: Option<String>,
    },
    ForgetRevocation {
        #[serde(default)]
        peer: Option<u32>,
        #[serde(default)]
        key: Option<String>,
    },
    Ignore {
        #[serde(default)]
        peer: Option<u32>,
        #[serde(default)]
        key: Option<String>,
    },
    Unignore {
        #[serde(default)]
        peer: Option<u32>,
        #[serde(default)]
        key: Option<String>,
    },
    RevokedKeys,
    Ignored,
    /// The trusted peers by id, those behind `after`, no more than `limit` and than a page.
    List {
        #[serde(default)]
        after: Option<u32>,
        #[serde(default)]
        limit: Option<u64>,
    },
    Pending,
    Outgoing,
    /// The revoked peers, as of `List`.
    Revoked {
        #[serde(default)]
        after: Option<u32>,
        #[serde(default)]
        limit: Option<u64>,
    },
    /// Everything that is known of a peer.
    Show {
        peer: u32,
    },
    /// Whether a peer is trusted, under this key if there is one.
    Check {
        peer: u32,
        #[serde(default)]
        key: Option<String>,
    },
    Wait {
        peer: u32,
        until: Until,
        timeout_ms: u64,
        /// It was asked for trust: once that request is gone without trust, there is nothing to wait for.
        #[serde(default)]
        asked: bool,
    },
    /// Whether a peer was told of the newest decision about it: waits a moment for the first try. No decision waits for that.
    Told {
        peer: u32,
    },
    /// Reads the peers file again.
    ReloadPeers,
    Status,
    /// Whom the registry contradicts, if an operator has to decide that.
    RegistryList,
    /// The registry is right.
    RegistryConfirm,
    /// The registry was put back on purpose.
    RegistryReset,
    /// Events from now on, until either end has enough; each is a reply of its own.
    Watch,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Until {
    /// The peer is trusted
    Trusted,
    /// The peer waits for an operator
    Pending,
    /// The peer is not trusted
    Untrusted,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(super) enum Reply {
    /// It is done, and durable as of this generation.
    Done {
        generation: u64,
        /// What there was, in words for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<String>,
        /// Something that the operator should know besides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warning: Option<String>,
    },
    /// It is done, and durable as of this generation.
    Decided {
        generation: u64,
        /// What there was, in words for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<String>,
        /// Why the peer could not be told of it yet. `null` if the peer was told.
        not_told: Option<String>,
        /// Whether the node tries that no more.
        #[serde(default)]
        given_up: bool,
        /// Something that the operator should know besides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warning: Option<String>,
    },
    /// What was waited for did not happen in time, or cannot happen.
    No {
        message: String,
    },
    /// A request was entered, durably, but did not leave; the node tries again.
    NotSent {
        message: String,
    },
    /// What was waited for will not happen: the peer refused.
    Refused {
        message: String,
        /// A text of the peer's, filtered.
        reason: String,
    },
    /// It was not done, or not all of it, for this reason.
    Failed {
        message: String,
    },
    Trusted {
        trusted: Vec<TrustedRow>,
        /// Whether there are further ones behind these.
        more: bool,
        /// How many there are in all.
        total: u64,
    },
    Shown(Box<PeerShown>),
    /// What became of telling a peer.
    Told {
        not_told: Option<String>,
        given_up: bool,
    },
    Checked {
        node_id: u32,
        trusted: bool,
        public_key: Option<String>,
        fingerprint: Option<String>,
    },
    /// The peers file was read, and counts; of so many peers.
    Peers {
        peers: usize,
    },
    Pending {
        pending: Vec<PendingRow>,
    },
    Outgoing {
        outgoing: Vec<OutgoingRow>,
        owed: Vec<OwedRow>,
    },
    Revoked {
        revoked: Vec<RevokedRow>,
        more: bool,
        total: u64,
    },
    Registry {
        compared: u64,
        contradicted: Vec<ContradictedRow>,
    },
    RevokedKeys {
        revoked_keys: Vec<RevokedKeyRow>,
    },
    Ignored {
        ignored: Vec<IgnoredRow>,
        ignored_keys: Vec<IgnoredKeyRow>,
    },
    Status(Box<Status>),
    /// One of those that [`Ask::Watch`] asks for.
    Event(EventRow),
}

/// Snapshots that fail; no change is at risk by that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FailingSnapshots {
    /// Milliseconds since 1970.
    pub(super) since: i64,
    pub(super) attempts: u64,
    pub(super) error: String,
    pub(super) journal_bytes: u64,
}

/// The registry contradicts many trusted records, and an operator has to decide.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RegistryDisagreement {
    pub(super) compared: u64,
    pub(super) contradicted: usize,
}

/// The store is older than the one that ran in the home before, or another, and no operator has accepted that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OlderStore {
    pub(super) seen_generation: u64,
    pub(super) found_generation: u64,
    pub(super) another_store: bool,
}

impl From<Older> for OlderStore {
    fn from(Older { seen, found, is_another }: Older) -> Self {
        Self { seen_generation: seen, found_generation: found, another_store: is_another }
    }
}

/// A change of the peers file by hand that was not taken up: what was read before counts on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PeersFileRefused {
    pub(super) path: String,
    /// When it was noticed, in milliseconds since 1970.
    pub(super) at: i64,
    pub(super) error: String,
}

impl From<RefusedChange> for PeersFileRefused {
    fn from(RefusedChange { path, at, error }: RefusedChange) -> Self {
        Self { path: path.display().to_string(), at: at.as_millis(), error }
    }
}

/// A save that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saving {
    /// When it began, in milliseconds since 1970.
    pub(super) since: i64,
    /// Whether it has run for too long: the disk hangs.
    pub(super) overdue: bool,
}

/// How a node is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Status {
    pub(super) node_id: u32,
    pub(super) public_key: String,
    pub(super) fingerprint: String,
    pub(super) listen: String,
    /// By its number where this is read: whoever reads it asks the system and believes no other number.
    pub(super) pid: Option<u32>,
    pub(super) generation: u64,
    pub(super) durable_generation: u64,
    /// Whether saving works and does not hang, the registry does not contradict many trusted records, the store is none that
    /// is older than it was, and the peers file counts as it stands.
    pub(super) healthy: bool,
    /// Why it does not.
    pub(super) failing: Option<String>,
    /// The save that runs, if one does.
    #[serde(default)]
    pub(super) saving: Option<Saving>,
    /// Why snapshots cannot be written, if they cannot.
    pub(super) failing_snapshots: Option<FailingSnapshots>,
    /// How many trusted records the registry contradicts, if that is for an operator to decide.
    pub(super) registry_disagreement: Option<RegistryDisagreement>,
    pub(super) trusted: usize,
    pub(super) pending: usize,
    pub(super) outgoing: usize,
    pub(super) revoked: usize,
    pub(super) revoked_keys: usize,
    pub(super) ignored: usize,
    /// Limits that a table is near to, or at: name, entries, limit.
    #[serde(default)]
    pub(super) near_limits: Vec<(String, usize, usize)>,
    /// How often each thing went wrong since the start.
    pub(super) counters: Vec<(String, u64)>,
    /// How many newcomers found no room among the pending, by their source, the most first.
    pub(super) refused_newcomers: Vec<(String, u64)>,
    /// By how many milliseconds the newest stamp was ahead of our clock, by why that mattered.
    #[serde(default)]
    pub(super) skews: Vec<(String, i64)>,
    /// Who the message with each of these stamps said it was from.
    #[serde(default)]
    pub(super) skewed_peers: Vec<(String, u32)>,
    /// How far the node has come with telling its peers of its new key.
    #[serde(default)]
    pub(super) announcement: Option<Announcement>,
    /// The store is older than it was, and that was not accepted yet.
    #[serde(default)]
    pub(super) older_store: Option<OlderStore>,
    /// The newest false or changed key since the start.
    #[serde(default)]
    pub(super) false_key: Option<FalseKeyShown>,
    /// What was changed in the peers file by hand and not taken up.
    #[serde(default)]
    pub(super) peers_file_refused: Option<PeersFileRefused>,
}

/// A false or changed key, as `watch` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FalseKeyShown {
    /// When, in milliseconds since 1970.
    pub(super) at: i64,
    pub(super) node_id: u32,
    /// Where the message came from that showed it, if one did.
    pub(super) source: Option<String>,
    pub(super) expected: String,
    pub(super) shown: String,
    /// Whether trust ended by it.
    pub(super) ended: bool,
    /// How many there were since the start, with this one.
    pub(super) count: u64,
}

/// To how many peers a message under a new key has left, and to how many not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Announcement {
    pub(super) told: u64,
    pub(super) owed: u64,
}

/// Rows in one answer; a listing is as many answers as it takes.
pub(super) const PAGE_MAX: usize = 16 * 1024;
/// The longest request, its newline included.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
