//! The command line, as types.
//!
//! 490 lines because clap reads one tree of types, and its words are the help.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::control::{Ask, Until};
use super::limits::LimitArguments;
use super::policy::PolicyArguments;
use crate::peer::{NodeId, RevocationId};

/// A trust store and handshake manager: who may talk to this node, and since when.
#[derive(Debug, Parser)]
#[command(name = "trustkeep", version, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 yes or done, 1 no or failed, 2 wrong usage.\n\
    In JSON, times are milliseconds since 1970-01-01 00:00 UTC; keys are base64.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a node's home, with a new identity and an empty list of peers
    Init {
        /// The home; its parent must exist
        #[arg(long, value_name = "HOME")]
        home: PathBuf,
        /// The node's id, 1 to 4294967295; a random one if not given
        #[arg(long)]
        id: Option<NodeId>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give the node that lives in a home a new key; the node must not run
    ///
    /// The old key signs that the new one is its successor, and is destroyed. The node shows that statement in every message
    /// from then on. Peers hear of the new key when the node asks them: `request PEER --force`.
    Rekey {
        /// The home
        #[arg(long, value_name = "HOME")]
        home: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the node that lives in a home, until SIGINT, SIGTERM or SIGHUP
    Node {
        /// The home
        #[arg(long, value_name = "HOME")]
        home: PathBuf,
        /// Where to listen for other nodes; port 0 takes a free one [default: 127.0.0.1:4440]
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
        #[command(flatten)]
        policy: PolicyArguments,
        #[command(flatten)]
        limits: LimitArguments,
        /// Do not tell the peers by itself that the key of this node was replaced (`rekey`)
        #[arg(long)]
        no_announce: bool,
        /// Print the line that says the node is ready as JSON
        #[arg(long)]
        json: bool,
        /// Stop at the end of standard input, too: a node then never outlives the program that started it
        #[arg(long)]
        stop_at_eof: bool,
    },
    #[command(flatten)]
    Operation(Operation),
    /// List the trusted peers of a running node
    List(Listing),
    /// List the peers that wait for an operator, with every key that they showed
    Pending {
        #[command(flatten)]
        listing: Listing,
        /// Only this peer
        peer: Option<NodeId>,
    },
    /// List the requests of the node itself that were not answered yet
    Outgoing(Listing),
    /// List the peers, or the keys, that the node has revoked
    Revoked {
        #[command(flatten)]
        listing: Listing,
        /// The keys instead of the peers
        #[arg(long)]
        keys: bool,
    },
    /// List the peers and keys that the node ignores
    Ignored(Listing),
    /// Show how a running node is doing
    Status(Listing),
    /// Decide about a registry (the peers file) that contradicts so many trusted peers that none was ended, or was put back
    Registry {
        /// What to do
        action: RegistryAction,
        #[command(flatten)]
        of: Listing,
    },
    /// Tell what happens at a running node, one line for each event, until Ctrl-C
    ///
    /// The first line says that it begins; nothing that happens after it is missed unless a line says so (`lagged`).
    /// Exits with 1 if the node stops, or the time runs out before so many events came.
    Watch {
        /// The home of the running node
        #[arg(long, value_name = "HOME")]
        home: PathBuf,
        /// Stop after this many events
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// Stop after this many seconds
        #[arg(long, value_name = "S", value_parser = seconds)]
        timeout: Option<Duration>,
        /// Print JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Show what a store directory holds; works beside a running node, and changes nothing
    Inspect {
        /// The store directory (of a node: `store` in its home)
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every byte of every file of a store directory; works beside a running node, and changes nothing
    Verify {
        /// The store directory (of a node: `store` in its home)
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write everything that a store directory holds as JSON (trust.json); works beside a running node
    Export {
        /// The store directory (of a node: `store` in its home)
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Where to write it, in one piece and durably; standard output if not given
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Replace the file if there is one
        #[arg(long, requires = "out")]
        force: bool,
        /// Write the nonces of open requests, too, so that answers under way count where the document is imported. Keep
        /// such a document secret: a node that trusts first uses believes any answer that has the nonce
        #[arg(long)]
        with_nonces: bool,
        /// With --out, print what was written as JSON; without, nothing changes
        #[arg(long)]
        json: bool,
    },
    /// Read a trust.json into a store that nobody has open, creating the store if it is missing
    ///
    /// Every entry that cannot be taken is told by list, place (from 0) and peer, and left out; the others are taken, all at
    /// once. Exits with 1 if any was left out. What is not JSON, or has none of the lists, changes nothing. Names that are
    /// not known are told, each once. Where the store lies in a home, entries about the node that lives there are left out.
    Import {
        #[command(flatten)]
        place: Place,
        /// The document; `-` for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// A revocation of the store's that trusted entries of the document may lift; as often as needed
        #[arg(long, value_name = "ID")]
        lift: Vec<RevocationId>,
        /// Take nothing if any entry cannot be taken, or any name is not known
        #[arg(long)]
        strict: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the state of a store that nobody has open as one snapshot, and remove what that supersedes
    Compact {
        /// The store directory (of a node: `store` in its home)
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a damaged store that nobody has open usable again, at the price of what it tells; deletes nothing
    ///
    /// Damaged files are set aside under another name, and the newest older state that is whole takes their place. That
    /// can bring back peers which were revoked. Exits with 0 if nothing had to be done, or all of it was done.
    Repair {
        /// The store directory (of a node: `store` in its home)
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// If no state is whole, begin an empty store, which forgets every grant and every revocation
        #[arg(long)]
        empty: bool,
        /// Do it; without this, only tell what would be done, and exit with 1
        #[arg(long)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Grant and revoke on many threads, and write down what was acknowledged as durable
    Stress(Stress),
    /// Print what makes a shell complete this program's commands
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for the program and each of its commands
    Man {
        /// Where to write them: a directory, which must exist
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Show the whole thing: two nodes, trust, kill -9, and revocation, in temporary homes
    Demo,
}

/// What a running node is asked to do. Done means that it is durable.
#[derive(Debug, Subcommand)]
pub(super) enum Operation {
    /// Ask a peer for trust
    Request {
        #[command(flatten)]
        to: Peer,
        /// Why; its operator will read it
        #[arg(default_value = "")]
        justification: String,
        /// The key that the peer must answer with, in base64; the peers file's key if not given
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Ask although the peer is trusted already: it may have lost its side of the trust
        #[arg(long)]
        force: bool,
        /// Wait so many seconds until the peer is trusted; ends with 1 at once if it refuses
        #[arg(long, value_name = "S", value_parser = seconds)]
        wait: Option<Duration>,
        /// The revocation that the peer's answer lifts, as `revoked` shows it
        #[arg(long, value_name = "ID")]
        lift: Option<String>,
    },
    /// Trust a pending peer, under one of the keys that `pending` shows
    ///
    /// Without a fingerprint, on a terminal, shows the keys and asks; elsewhere exits with 1, unless the registry or the
    /// transport vouches for the key and no other is known or was seen.
    Approve {
        #[command(flatten)]
        to: Peer,
        /// The revocation to lift, as `pending` and `revoked` show it
        #[arg(long, value_name = "ID")]
        lift: Option<String>,
        /// Of the key to approve
        fingerprint: Option<String>,
        /// The entry that you looked at, as `pending --json` names it: no other is approved
        #[arg(long, value_name = "N")]
        entry: Option<String>,
    },
    /// Trust a peer outright, under this key, whether it waits or not
    Grant {
        #[command(flatten)]
        to: Peer,
        /// Its key, in base64
        key: String,
        /// The revocation to lift, as `pending` and `revoked` show it
        #[arg(long, value_name = "ID")]
        lift: Option<String>,
    },
    /// Refuse a pending peer
    Reject {
        #[command(flatten)]
        to: Peer,
        /// Why; the peer will be told
        #[arg(default_value = "")]
        reason: String,
    },
    /// Forget a request of the node itself
    Cancel {
        #[command(flatten)]
        to: Peer,
    },
    /// Trust a peer, or anybody under a key, no longer; marks it whatever is known of it, until that is lifted
    Revoke {
        #[command(flatten)]
        of: PeerOrKey,
    },
    /// Take the mark of a revoked peer or key away; trusts nobody by that
    #[command(name = "unrevoke", alias = "forget-revocation")]
    ForgetRevocation {
        #[command(flatten)]
        of: PeerOrKey,
    },
    /// Hear nothing more of a peer, or under a key: its messages are counted, and neither shown nor answered
    Ignore {
        #[command(flatten)]
        of: PeerOrKey,
    },
    /// Hear an ignored peer or key again
    Unignore {
        #[command(flatten)]
        of: PeerOrKey,
    },
    /// Wait until a peer is trusted (or something else); exits with 1 if that does not happen in time
    Wait {
        #[command(flatten)]
        to: Peer,
        /// What to wait for
        #[arg(long, value_enum, default_value = "trusted")]
        until: Until,
        /// How many seconds to wait
        #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
        timeout: Duration,
    },
}

/// A running node, and the peer that it is asked about.
#[derive(Debug, Args)]
pub(super) struct Peer {
    /// The home of the running node
    #[arg(long, value_name = "HOME")]
    pub(super) home: PathBuf,
    /// The peer's node id
    pub(super) peer: NodeId,
}

/// A running node, and the peer or the key that it is asked about.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("of").required(true).args(["peer", "key"])))]
pub(super) struct PeerOrKey {
    /// The home of the running node
    #[arg(long, value_name = "HOME")]
    home: PathBuf,
    /// The peer's node id
    peer: Option<NodeId>,
    /// A key in base64, whatever its id, instead of a peer
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl PeerOrKey {
    fn into_request(self, ask: impl Fn(Option<u32>, Option<String>) -> Ask) -> (PathBuf, Ask) {
        (self.home, ask(self.peer.map(NodeId::get), self.key))
    }
}

impl Operation {
    /// The home of the node to ask, what to ask of it, and what then.
    pub(super) fn into_requests(self) -> (PathBuf, Ask, Option<Ask>) {
        let wait = match &self {
            Self::Request { to, wait: Some(timeout), .. } => {
                let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                Some(Ask::Wait { peer: to.peer.get(), until: Until::Trusted, timeout_ms })
            }
            _ => None,
        };
        let (home, request) = self.into_request();
        (home, request, wait)
    }

    fn into_request(self) -> (PathBuf, Ask) {
        let request = |to: Peer, request: &dyn Fn(u32) -> Ask| (to.home, request(to.peer.get()));
        match self {
            Self::Request { to, justification, key, force, lift, wait: _ } => request(to, &|peer| Ask::Request {
                peer,
                justification: justification.clone(),
                expected_key: key.clone(),
                force,
                lift: lift.clone(),
            }),
            Self::Approve { to, lift, fingerprint, entry } => request(to, &|peer| Ask::Approve {
                peer,
                fingerprint: fingerprint.clone(),
                entry: entry.clone(),
                lift: lift.clone(),
            }),
            Self::Grant { to, key, lift } => {
                request(to, &|peer| Ask::Grant { peer, key: key.clone(), lift: lift.clone() })
            }
            Self::Reject { to, reason } => request(to, &|peer| Ask::Reject { peer, reason: reason.clone() }),
            Self::Cancel { to } => request(to, &|peer| Ask::Cancel { peer }),
            Self::Revoke { of } => of.into_request(|peer, key| Ask::Revoke { peer, key }),
            Self::ForgetRevocation { of } => of.into_request(|peer, key| Ask::ForgetRevocation { peer, key }),
            Self::Ignore { of } => of.into_request(|peer, key| Ask::Ignore { peer, key }),
            Self::Unignore { of } => of.into_request(|peer, key| Ask::Unignore { peer, key }),
            Self::Wait { to, until, timeout } => {
                let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                request(to, &|peer| Ask::Wait { peer, until, timeout_ms })
            }
        }
    }
}

/// What an operator does about the registry of a running node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RegistryAction {
    /// List the trusted peers that the registry knows under another key
    List,
    /// The registry is right: end the trust in each of them
    Confirm,
    /// The registry was put back on purpose, or is another one: forget how new its answers were, so that the next ones count
    Reset,
}

/// A store: its directory, or the home that it is in.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Place {
    /// The store directory
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// The home of the node whose store it is
    #[arg(long, value_name = "HOME")]
    pub(super) home: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Listing {
    /// The home of the running node
    #[arg(long, value_name = "HOME")]
    pub(super) home: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Grants and revokes on N threads. Each thread owns its own peers and makes its next change only when its last one is
/// durable, so that at most N changes are unacknowledged at any moment.
///
/// Change n of thread t (both from 0) concerns peer 1 + 1000 t + m(m(m(X) + t) + n) mod 1000, where m is the output
/// function of splitmix64 and sums wrap; it revokes the peer if it is trusted, and else grants it.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Stress {
    /// The store directory; created if it is missing
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// How many threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) threads: u32,
    /// For how long; fractions are fine
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(super) seconds: Duration,
    /// Where to append a line `<generation> grant|revoke <node id>` for each change that is durable
    #[arg(long, value_name = "FILE")]
    pub(super) acks: Option<PathBuf>,
    /// Fill the store up to this many trusted peers first
    #[arg(long, value_name = "R", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    pub(super) records: u32,
    /// What decides which peers are changed in which order
    #[arg(long, value_name = "X", default_value_t = 1)]
    pub(super) seed: u64,
    /// Do not wait until a change is durable; then nothing is acknowledged, and no line is appended
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // A moment that far ahead can still be expressed.
    seconds.filter(|seconds| seconds.as_secs() < 1 << 32).ok_or_else(|| "not a number of seconds".to_owned())
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn seconds_are_finite_and_not_negative() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        for bad in ["", "-1", "inf", "NaN", "1e300", "5s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
