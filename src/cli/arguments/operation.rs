//! What a running node is asked to do, as words of the command line, and as questions to the node.
#![forbid(unsafe_code)]

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{At, seconds};
use crate::cli::control::{Ask, Until};
use crate::cli::home::Home;
use crate::peer::{Fingerprint, NodeId, PublicKey, RevocationId};

/// What a running node is asked to do. Done means that it is durable.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Operation {
    /// Ask a peer for trust
    Request {
        #[command(flatten)]
        to: Peer,
        /// Why; its operator will read it
        #[arg(default_value = "")]
        justification: String,
        /// The key that the peer must answer with, in base64; if not given, that of an open request, else the peers file's
        #[arg(long, value_name = "KEY")]
        key: Option<PublicKey>,
        /// Ask although the peer is trusted already: it may have lost its side of the trust
        #[arg(long)]
        force: bool,
        /// Wait so many seconds until the peer is trusted; ends with 1 at once if it refuses
        #[arg(long, value_name = "S", value_parser = seconds)]
        wait: Option<Duration>,
        /// The revocation that the peer's answer lifts, as `revoked` shows it
        #[arg(long, value_name = "ID")]
        lift: Option<RevocationId>,
    },
    /// Trust pending peers, each under one of the keys that `pending` shows
    ///
    /// Without a fingerprint, on a terminal, shows the keys and asks; elsewhere exits with 1, unless the registry or the
    /// transport vouches for the key and no other is known or was seen.
    Approve {
        #[command(flatten)]
        at: At,
        /// The peers, each with the fingerprint of the key to approve behind it, or without one
        #[arg(required = true, value_name = "PEER [FINGERPRINT]")]
        whom: Vec<IdOrFingerprint>,
        /// The revocation to lift, as `pending` and `revoked` show it
        #[arg(long, value_name = "ID")]
        lift: Option<RevocationId>,
        /// The entry that you looked at, as `pending --json` names it: no other is approved
        #[arg(long, value_name = "N", value_parser = entry_number)]
        entry: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Trust a peer outright, under this key, whether it waits or not
    Grant {
        #[command(flatten)]
        to: Peer,
        /// Its key, in base64
        key: PublicKey,
        /// The revocation to lift, as `pending` and `revoked` show it
        #[arg(long, value_name = "ID")]
        lift: Option<RevocationId>,
    },
    /// Refuse pending peers
    Reject {
        #[command(flatten)]
        at: At,
        /// The peers; behind one of them the fingerprint of the only key that is refused; behind all of them why, if it is
        /// neither: the peers will be told
        #[arg(required = true, value_name = "PEER [FINGERPRINT] [REASON]")]
        whom: Vec<String>,
        /// Why; the peers will be told
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// The entry that was looked at, from `pending --json`: no other is refused. For one peer
        #[arg(long, value_name = "NUMBER", value_parser = entry_number)]
        entry: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget requests of the node itself
    Cancel {
        #[command(flatten)]
        at: At,
        /// The peers that were asked
        #[arg(required = true, value_name = "PEER")]
        peers: Vec<NodeId>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Trust peers, or anybody under a key, no longer; marks them whatever is known of them, until that is lifted
    Revoke {
        #[command(flatten)]
        of: PeersOrKey,
    },
    /// Take the mark of revoked peers or of a key away; trusts nobody by that
    #[command(name = "unrevoke", alias = "forget-revocation")]
    ForgetRevocation {
        #[command(flatten)]
        of: PeersOrKey,
    },
    /// Hear nothing more of peers, or under a key: their messages are counted, and neither shown nor answered
    Ignore {
        #[command(flatten)]
        of: PeersOrKey,
    },
    /// Hear ignored peers or a key again
    Unignore {
        #[command(flatten)]
        of: PeersOrKey,
    },
    /// Wait until a peer is trusted (or something else); exits with 1 if that does not happen in time, or cannot
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
pub(in crate::cli) struct Peer {
    #[command(flatten)]
    pub(in crate::cli) at: At,
    /// The peer's node id
    pub(in crate::cli) peer: NodeId,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// A running node, and the peers or the key that it is asked about.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("of").required(true).args(["peers", "key"])))]
pub(in crate::cli) struct PeersOrKey {
    #[command(flatten)]
    at: At,
    /// The peers' node ids
    #[arg(value_name = "PEER")]
    peers: Vec<NodeId>,
    /// A key in base64, whatever its id, instead of peers
    #[arg(long, value_name = "KEY")]
    key: Option<PublicKey>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A peer, or the fingerprint of a key of the peer before it.
#[derive(Clone, Debug)]
pub(in crate::cli) enum IdOrFingerprint {
    Id(NodeId),
    Fingerprint(String),
}

impl core::str::FromStr for IdOrFingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let fingerprint = text.parse::<Fingerprint>();
        fingerprint
            .map(|it| Self::Fingerprint(it.to_string()))
            .map_err(|error| format!("neither a node id nor a fingerprint: {error}"))
    }
}

/// What a node is asked, and about whom.
#[derive(Debug)]
pub(in crate::cli) struct Question {
    pub(in crate::cli) peer: Option<u32>,
    pub(in crate::cli) key: Option<PublicKey>,
    pub(in crate::cli) ask: Ask,
}

/// What an operation comes to.
#[derive(Debug)]
pub(in crate::cli) struct Questions {
    pub(in crate::cli) home: Home,
    pub(in crate::cli) json: bool,
    pub(in crate::cli) all: Vec<Question>,
    /// What is asked once the rest is done.
    pub(in crate::cli) then: Option<Ask>,
}

impl Questions {
    fn about(at: &At, json: bool, peers: impl IntoIterator<Item = NodeId>, ask: impl Fn(u32) -> Ask) -> Self {
        let question = |peer: NodeId| Question { peer: Some(peer.get()), key: None, ask: ask(peer.get()) };
        Self { home: at.home(), json, all: peers.into_iter().map(question).collect(), then: None }
    }

    fn about_any(of: PeersOrKey, ask: impl Fn(Option<u32>, Option<String>) -> Ask) -> Self {
        let PeersOrKey { at, peers, key, json } = of;
        let mut this = Self::about(&at, json, peers, |peer| ask(Some(peer), None));
        let of_key = |key: PublicKey| Question { peer: None, key: Some(key), ask: ask(None, Some(key.to_base64())) };
        this.all.extend(key.map(of_key));
        this
    }
}

/// Peers, and the fingerprints that stand behind them.
type Approvals = Vec<(NodeId, Option<String>)>;

/// Each peer, and the fingerprint that stands behind it.
pub(in crate::cli) fn approvals(whom: &[IdOrFingerprint]) -> Result<Approvals, String> {
    let mut approvals = Approvals::new();
    for word in whom {
        match (word, approvals.last_mut()) {
            (IdOrFingerprint::Id(peer), _) => approvals.push((*peer, None)),
            (IdOrFingerprint::Fingerprint(text), Some((_, fingerprint @ None))) => *fingerprint = Some(text.clone()),
            (IdOrFingerprint::Fingerprint(text), Some((peer, Some(_)))) => {
                return Err(format!("{text}: a second fingerprint for peer {peer}"));
            }
            (IdOrFingerprint::Fingerprint(text), None) => return Err(format!("{text}: no peer stands before it")),
        }
    }
    Ok(approvals)
}

/// The peers, each with the fingerprint behind it, and why they are refused.
fn rejections(whom: Vec<String>, reason: Option<String>) -> Result<(Approvals, String), String> {
    let (mut words, mut last) = (Vec::new(), None);
    for word in whom {
        match (word.parse::<IdOrFingerprint>(), &last) {
            (_, Some(reason)) => return Err(format!("{reason:?} is no node id, and a reason stands behind all peers")),
            (Ok(it), None) => words.push(it),
            (Err(error), None) if words.is_empty() => return Err(format!("{word:?}: {error}")),
            (Err(_), None) => last = Some(word),
        }
    }
    let peers = approvals(&words)?;
    match (reason, last) {
        (Some(_), Some(last)) => Err(format!("{last:?} is no node id, and the reason is given already")),
        (reason, last) => Ok((peers, reason.or(last).unwrap_or_default())),
    }
}

fn fingerprint_of(peers: &Approvals, peer: u32) -> Option<String> {
    peers.iter().find(|(id, _)| id.get() == peer).and_then(|(_, fingerprint)| fingerprint.clone())
}

impl Operation {
    /// What to ask of which node.
    ///
    /// # Errors
    /// The words make no sense together.
    pub(in crate::cli) fn into_questions(self) -> Result<Questions, String> {
        let id = |lift: Option<RevocationId>| lift.map(|lift| lift.to_string());
        Ok(match self {
            Self::Request { to, justification, key, force, lift, wait } => {
                let mut all = Questions::about(&to.at, to.json, [to.peer], |peer| Ask::Request {
                    peer,
                    justification: justification.clone(),
                    expected_key: key.map(|key| key.to_base64()),
                    force,
                    lift: id(lift),
                });
                all.then = wait.map(|timeout| wait_for(to.peer, Until::Trusted, timeout, true));
                all
            }
            Self::Approve { at, whom, lift, entry, json } => {
                let approvals = approvals(&whom)?;
                Questions::about(&at, json, approvals.iter().map(|(peer, _)| *peer), |peer| Ask::Approve {
                    peer,
                    fingerprint: fingerprint_of(&approvals, peer),
                    entry: entry.clone(),
                    lift: id(lift),
                })
            }
            Self::Grant { to, key, lift } => Questions::about(&to.at, to.json, [to.peer], |peer| Ask::Grant {
                peer,
                key: key.to_base64(),
                lift: id(lift),
            }),
            Self::Reject { at, whom, reason, entry, json } => {
                let (peers, reason) = rejections(whom, reason)?;
                if entry.is_some() && peers.len() > 1 {
                    return Err("--entry names an entry of one peer".to_owned());
                }
                Questions::about(&at, json, peers.iter().map(|(peer, _)| *peer), |peer| Ask::Reject {
                    peer,
                    reason: reason.clone(),
                    fingerprint: fingerprint_of(&peers, peer),
                    entry: entry.clone(),
                })
            }
            Self::Cancel { at, peers, json } => Questions::about(&at, json, peers, |peer| Ask::Cancel { peer }),
            Self::Revoke { of } => Questions::about_any(of, |peer, key| Ask::Revoke { peer, key }),
            Self::ForgetRevocation { of } => Questions::about_any(of, |peer, key| Ask::ForgetRevocation { peer, key }),
            Self::Ignore { of } => Questions::about_any(of, |peer, key| Ask::Ignore { peer, key }),
            Self::Unignore { of } => Questions::about_any(of, |peer, key| Ask::Unignore { peer, key }),
            Self::Wait { to, until, timeout } => {
                Questions::about(&to.at, to.json, [to.peer], |_| wait_for(to.peer, until, timeout, false))
            }
        })
    }
}

fn wait_for(peer: NodeId, until: Until, timeout: Duration, asked: bool) -> Ask {
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    Ask::Wait { peer: peer.get(), until, timeout_ms, asked }
}

/// Names an entry, as `pending --json` does.
fn entry_number(text: &str) -> Result<String, String> {
    let is_number = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_number {
        Ok(text.to_owned())
    } else {
        Err("an entry is named by 16 lower-case hexadecimal digits".to_owned())
    }
}
