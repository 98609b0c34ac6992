//! What operators' calls answer: typed outcomes, and typed reasons why not.
#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;
use std::io;

use super::registry::RegistryError;
use super::transport::SendError;
use crate::error::WriteError;
use crate::foreign;
use crate::machine::rejection::Rejection;
use crate::peer::{PublicKey, RevocationId};
use crate::store::Receipt;

/// How to ask a peer for trust, besides whom and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestOptions {
    /// The key that the peer must answer with; if none is given, the one that an open request to the peer has, else the one
    /// that the registry knows.
    pub expected_key: Option<PublicKey>,
    /// Ask although the peer is trusted already: it may have lost its side of the trust.
    pub force: bool,
    /// The program asks on its own account, not for an operator: refused for a revoked peer.
    pub automatic: bool,
    /// The revocation that the answer lifts, of the peer or of the key: as the operator was shown it.
    pub lift: Option<RevocationId>,
}

impl RequestOptions {
    /// The same, and only this key will do.
    #[must_use]
    pub const fn expected_key(mut self, key: PublicKey) -> Self {
        self.expected_key = Some(key);
        self
    }

    /// The same, also if the peer is trusted already.
    #[must_use]
    pub const fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// The same, on the program's own account.
    #[must_use]
    pub const fn automatic(mut self, automatic: bool) -> Self {
        self.automatic = automatic;
        self
    }

    /// The same, lifting this revocation once the peer has answered.
    #[must_use]
    pub const fn lift(mut self, lift: RevocationId) -> Self {
        self.lift = Some(lift);
        self
    }
}

/// Why an operator's call did not do what it was to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommandError {
    /// The rules refuse; nothing changed. The rule says what to do instead.
    Refused(Rejection),
    /// A request to this peer is being sent by another call; nothing changed. Wait for that one.
    AlreadyInFlight,
    /// The program asked this peer on its own account a moment ago; nothing changed. Operators are never held up.
    CoolingDown {
        /// How long it has to wait.
        left: Duration,
    },
    /// The request was entered, and will be answered if it ever arrives, but it could be neither sent nor relayed. The
    /// node tries again by itself.
    NotSent {
        /// When the entry is durable.
        receipt: Receipt,
        /// Why it was not sent directly.
        source: SendError,
        /// Why it was not relayed either; `None` if there is nobody to relay it, or it was called off.
        relay: Option<RegistryError>,
    },
    /// The store takes no changes; nothing changed.
    Store(WriteError<()>),
    /// The operating system has no random bytes to give; nothing changed.
    Random(io::Error),
    /// The node is shutting down; nothing changed.
    Stopped,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(rejection) => rejection.fmt(f),
            Self::AlreadyInFlight => f.write_str("a request to this peer is being sent already"),
            Self::CoolingDown { left } => {
                write!(f, "this peer was asked a moment ago; ask again in {} s", left.as_secs_f64().ceil())
            }
            Self::NotSent { source, relay: None, .. } => {
                write!(f, "the request is kept and tried again, but could not be sent: {source}")
            }
            Self::NotSent { source, relay: Some(relay), .. } => {
                write!(f, "the request is kept and tried again, but could not be sent: {source}; nor relayed: {relay}")
            }
            Self::Store(error) => error.fmt(f),
            Self::Random(error) => write!(f, "no random bytes: {}", foreign::shown(error)),
            Self::Stopped => f.write_str("the node is shutting down"),
        }
    }
}

impl core::error::Error for CommandError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Refused(rejection) => Some(rejection),
            Self::NotSent { source, .. } => Some(source),
            Self::Store(error) => Some(error),
            Self::Random(error) => Some(error),
            Self::AlreadyInFlight | Self::CoolingDown { .. } | Self::Stopped => None,
        }
    }
}

/// Why a node did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The operating system refuses a thread.
    Thread(io::Error),
    /// The transport cannot begin to receive.
    Transport(io::Error),
    /// An interval of [`HandshakeConfig`](crate::config::HandshakeConfig), by the name of its field, is below its least: what
    /// is done so often would keep a processor busy.
    Interval {
        /// The field.
        name: &'static str,
        /// The least that it may be.
        min: Duration,
    },
    /// The identity, or the transport when it was to begin, panicked.
    Panicked,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(error) => write!(f, "no thread to run on: {error}"),
            Self::Transport(error) => write!(f, "the transport does not receive: {}", foreign::shown(error)),
            Self::Interval { name, min } => write!(f, "{name} must be {min:?} or more"),
            Self::Panicked => f.write_str("the identity or the transport panicked"),
        }
    }
}

impl core::error::Error for StartError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Thread(error) | Self::Transport(error) => Some(error),
            Self::Interval { .. } | Self::Panicked => None,
        }
    }
}
