//! The command line, as types.
//!
//! More than 450 lines because clap reads one tree of types, and its words are the help.
#![forbid(unsafe_code)]

mod operation;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::home::Home;
use super::limits::LimitArguments;
use super::listen::Listen;
use super::policy::PolicyArguments;
use super::print;
use crate::peer::{NodeId, PublicKey, RevocationId};

pub(super) use operation::{Operation, Peer, Question, Questions};

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
        #[arg(long, value_name = "HOME", value_hint = ValueHint::DirPath)]
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
        #[arg(long, value_name = "HOME", value_hint = ValueHint::DirPath)]
        home: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the node that lives in a home, until SIGINT, SIGTERM or SIGHUP
    Node {
        /// The home
        #[arg(long, value_name = "HOME", value_hint = ValueHint::DirPath)]
        home: PathBuf,
        /// Where to listen for other nodes: an address or a host name, and a port; a port alone (`:4440`) is every address,
        /// port 0 takes a free one
        #[arg(long, value_name = "ADDRESS", default_value_t)]
        listen: Listen,
        #[command(flatten)]
        local: LocalArguments,
        /// Do not tell the peers by itself that the key of this node was replaced (`rekey`)
        #[arg(long)]
        no_announce: bool,
        /// Take the store as it is, though it is older than the one that ran here last, or another: give this once, at the
        /// first start after an older copy was put back on purpose
        #[arg(long)]
        accept_older_store: bool,
        /// Print the line that says the node is ready as JSON
        #[arg(long)]
        json: bool,
        /// Stop at the end of standard input, too: a node then never outlives the program that started it
        #[arg(long)]
        stop_at_eof: bool,
        #[command(flatten)]
        limits: LimitArguments,
        // Last: what follows it would be listed under its heading.
        #[command(flatten)]
        policy: PolicyArguments,
    },
    #[command(flatten)]
    Operation(Operation),
    /// List the trusted peers of a running node
    ///
    /// BOTH ASKED is yes if this node had asked the peer, too, and the two agreed: then the peer trusts this node as far as
    /// this node knows. It is no if only the peer asked, or an operator granted it.
    List {
        #[command(flatten)]
        of: Listing,
        #[command(flatten)]
        part: Part,
    },
    /// Show everything that a running node knows of a peer; exits with 1 if that is nothing
    Show(Peer),
    /// Say whether a peer is trusted: exits with 0 if it is, and with 1 if it is not
    Check {
        #[command(flatten)]
        of: Peer,
        /// Under this key, in base64
        #[arg(long, value_name = "KEY")]
        key: Option<PublicKey>,
    },
    /// Show the id and the key of the node that lives in a home, whether it runs or not
    Id {
        /// The home
        #[arg(long, value_name = "HOME", value_hint = ValueHint::DirPath)]
        home: PathBuf,
        /// Print what to paste into the peers files of other nodes
        #[arg(long, conflicts_with = "json")]
        stanza: bool,
        /// Where others reach the node: an address or a host name, and a port; with --stanza
        #[arg(long, value_name = "HOST:PORT", requires = "stanza", value_parser = super::peers::address)]
        address: Option<String>,
        /// A group that may read identity.key, as of a mounted secret
        #[arg(long, value_name = "G", value_parser = super::group::parse)]
        key_group: Option<u32>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change the peers file of a home, or list what is in it; a node that runs there takes a change up at once
    #[command(disable_help_subcommand = true)]
    Peer {
        #[command(subcommand)]
        action: PeerAction,
    },
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
        #[command(flatten)]
        part: Part,
        /// The keys instead of the peers
        #[arg(long, conflicts_with_all = ["limit", "after", "count"])]
        keys: bool,
    },
    /// List the peers and keys that the node ignores
    Ignored(Listing),
    /// Show how a running node is doing
    Status {
        #[command(flatten)]
        of: Listing,
        /// Exit with 1 if the node is not healthy
        #[arg(long)]
        check: bool,
    },
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
        #[command(flatten)]
        at: At,
        /// Only events about this peer; as often as needed
        #[arg(long = "peer", value_name = "ID")]
        peers: Vec<NodeId>,
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
        #[command(flatten)]
        place: Place,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every byte of every file of a store directory; works beside a running node, and changes nothing
    Verify {
        #[command(flatten)]
        place: Place,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write everything that a store directory holds as JSON (trust.json); works beside a running node
    Export {
        #[command(flatten)]
        place: Place,
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
        /// A group that may read identity.key, as of a mounted secret
        #[arg(long, value_name = "G", value_parser = super::group::parse, requires = "home")]
        key_group: Option<u32>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the state of a store that nobody has open as one snapshot, and remove what that supersedes
    Compact {
        #[command(flatten)]
        place: Place,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a damaged store that nobody has open usable again, at the price of what it tells; deletes nothing
    ///
    /// Damaged files are set aside under another name, and what can be read of them, on the newest state that is whole or can be
    /// mended, takes their place. A peer whose revocation cannot be read is trusted again; whoever that may be is told. Exits
    /// with 0 if nothing had to be done, or all of it was done.
    Repair {
        #[command(flatten)]
        place: Place,
        /// If no state is whole, or can be mended, begin an empty store, which forgets every grant and every revocation that
        /// cannot be read
        #[arg(long)]
        empty: bool,
        /// Trust no peer any longer that may have been revoked by a change that cannot be read
        #[arg(long)]
        untrust_uncertain: bool,
        /// Do it; without this, only tell what would be done, and exit with 1
        #[arg(long)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Grant and revoke on many threads, and write down what was acknowledged as durable
    Stress(Stress),
    /// Print this help, or that of a command
    Help {
        /// The command
        command: Vec<String>,
    },
    /// Print what makes a shell complete this program's commands
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for the program and each of its commands
    Man {
        /// Where to write them: a directory, which must exist
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        out: Option<PathBuf>,
    },
    /// Show the whole thing: two nodes, trust, kill -9, and revocation, in temporary homes
    Demo,
}

/// A running node: by its home, or by its control socket where that is elsewhere.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct At {
    /// The home of the running node
    #[arg(long, value_name = "HOME", value_hint = ValueHint::DirPath)]
    home: Option<PathBuf>,
    /// The control socket of the running node, if it was started with --control
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

impl At {
    pub(super) fn home(&self) -> Home {
        print::told_place(&[("--home", self.home.as_deref()), ("--control", self.control.as_deref())]);
        let around = || self.control.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        Home::with_control(self.home.as_deref().unwrap_or_else(around), self.control.as_deref())
    }
}

/// Where a node makes its control socket, and for whom.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ControlArguments {
    /// Where to make the control socket; commands need the same option then [default: control.sock in the home]
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
    /// A group, by name or number, whose members may use the control socket, too; only outside the home
    #[arg(long, value_name = "G", requires = "control", value_parser = super::group::parse)]
    pub(super) control_group: Option<u32>,
}

/// What users of the same machine may do to a node.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct LocalArguments {
    #[command(flatten)]
    pub(super) control: ControlArguments,
    #[command(flatten)]
    pub(super) access: AccessArguments,
}

/// Who else may change, or read, what the node believes.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct AccessArguments {
    /// A group, by name or number, whose members may write to the home, its files, and the directories above them
    #[arg(long, value_name = "G", value_parser = super::group::parse)]
    pub(super) trusted_group: Option<u32>,
    /// Start although others may write there, and say so in the log
    #[arg(long)]
    pub(super) insecure_permissions: bool,
    /// A group that may read identity.key, as of a mounted secret
    #[arg(long, value_name = "G", value_parser = super::group::parse)]
    pub(super) key_group: Option<u32>,
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
    /// The store directory (of a node: `store` in its home)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,
    /// The home of the node whose store it is
    #[arg(long, value_name = "HOME", value_hint = ValueHint::DirPath)]
    pub(super) home: Option<PathBuf>,
}

impl Place {
    /// The directory; the command line has one of the two.
    pub(super) fn dir(&self) -> PathBuf {
        let of_home = || self.home.as_ref().map(|home| home.join("store"));
        self.dir.clone().or_else(of_home).unwrap_or_default()
    }
}

#[derive(Debug, Args)]
pub(super) struct Listing {
    #[command(flatten)]
    pub(super) at: At,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Which part of a listing.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Part {
    /// No more than this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// Those with higher ids than this one
    #[arg(long, value_name = "ID")]
    pub(super) after: Option<NodeId>,
    /// Only how many there are
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    pub(super) count: bool,
}

/// What is done about a peers file.
#[derive(Debug, Subcommand)]
pub(super) enum PeerAction {
    /// Add a peer, or with --replace change what the file says of it
    Add {
        #[command(flatten)]
        of: PeersFilePlace,
        /// The peer's node id
        peer: NodeId,
        /// Where it listens: an address or a host name, and a port; once for each, in the order in which they are tried
        #[arg(long = "address", value_name = "HOST:PORT", value_parser = super::peers::address)]
        addresses: Vec<String>,
        /// Its key, in base64; without one, nothing vouches for the peer's key
        #[arg(long, value_name = "KEY")]
        key: Option<PublicKey>,
        /// A network that it is in, 1 to 65535; once for each
        #[arg(long = "network", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        networks: Vec<u16>,
        /// Change a peer that is in the file; what is not given stays as it is
        #[arg(long)]
        replace: bool,
    },
    /// List the peers of the file
    List(PeersFilePlace),
    /// Remove a peer; it stays trusted if it is
    Remove {
        #[command(flatten)]
        of: PeersFilePlace,
        /// The peer's node id
        peer: NodeId,
    },
}

/// A home, and where the control socket of its node is.
#[derive(Debug, Args)]
pub(super) struct PeersFilePlace {
    /// The home
    #[arg(long, value_name = "HOME", value_hint = ValueHint::DirPath)]
    pub(super) home: PathBuf,
    /// The control socket of its node, if that was started with --control
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
    /// A group that may read identity.key, as of a mounted secret
    #[arg(long, value_name = "G", value_parser = super::group::parse)]
    pub(super) key_group: Option<u32>,
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
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
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

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
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
