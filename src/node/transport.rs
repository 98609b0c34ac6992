//! What a node needs of a network: bytes to a peer, bytes from somebody, and cutting a peer off.
//!
//! A transport carries messages and believes nothing in them. Only what it proved itself (the peer's id, by a tunnel's
//! own keys) may stand as authenticated in [`Received::path`]; an id that the peer merely claimed must not.
#![forbid(unsafe_code)]

use core::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::registry::RegistryError;
use crate::foreign;
use crate::machine::input::Path;
use crate::machine::view::Source;
use crate::peer::NodeId;

/// A way to reach peers and to be reached by them.
pub trait Transport: Send + Sync {
    /// Begins to hand every message that arrives to `inbox`. Called once, by the manager.
    ///
    /// The transport calls the inbox from threads of its own. A panic in it must cost that one message only.
    ///
    /// # Errors
    /// The operating system refuses (no threads left, say); nothing is received.
    fn start(&self, inbox: Arc<dyn Inbox>) -> io::Result<()>;

    /// Sends one message, as one connection or datagram of its own, and returns once it left or failed.
    ///
    /// # Ordering
    /// Blocks, but not for longer than a bound of the transport's own. Any thread may call it, several at once.
    ///
    /// # Errors
    /// Why the message did not leave. `Ok` says that it left, not that the peer believed it.
    fn send(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError>;

    /// Begins to send one message; [`Dispatch::end`] tells how that ended, from any thread.
    ///
    /// The default sends on this thread: the node then keeps one thread busy for each peer that does not take its
    /// message. The node calls this on at most 192 threads for restrictions and on as many for other messages. 32 of each
    /// are for peers that were slow last time, and no such peer takes one of the others. A transport that can send without blocking overrides it, and bounds what it has
    /// under way itself.
    ///
    /// # Ordering
    /// One message to a peer at a time: the next one comes when the one before it has ended. [`Dispatch::restricts`] says
    /// which messages must wait for no other.
    fn dispatch(&self, message: Dispatch) {
        let sent = self.send(message.to(), message.bytes());
        message.end(sent);
    }

    /// Sends one message over a connection at whose other end the transport itself proves this peer to be. A transport
    /// that proves nothing, as is the default, refuses.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`SendError::NotAuthenticated`].
    fn send_authenticated(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError> {
        let (_, _) = (to, bytes);
        Err(SendError::NotAuthenticated)
    }

    /// Cuts whatever is open between us and this peer, at once; later messages are not affected.
    ///
    /// # Ordering
    /// Must not wait for the peer.
    fn disconnect(&self, peer: NodeId);

    /// Stops receiving for good: cancels what was not received whole, and lets go of the inbox.
    ///
    /// # Ordering
    /// Waits at most `wait` for calls of the inbox to return. May be called again.
    fn stop_receiving(&self, wait: Duration);

    /// Cancels what is being sent, and refuses to send from now on.
    ///
    /// # Ordering
    /// Must not wait for a peer. May be called again.
    fn stop_sending(&self);
}

/// One message on its way to a peer, and the word that its sender waits for.
///
/// A dispatch that is dropped has ended with [`SendError::Cancelled`], or [`SendError::Panicked`] if a panic dropped it.
pub struct Dispatch {
    to: NodeId,
    bytes: Arc<[u8]>,
    restricts: bool,
    reply: Option<Reply>,
    done: Option<Done>,
}

type Done = Box<dyn FnOnce(Result<(), SendError>) + Send>;

impl Dispatch {
    /// A message; `done` is called once, and must not block.
    #[must_use]
    pub fn new(
        to: NodeId,
        bytes: Arc<[u8]>,
        restricts: bool,
        done: impl FnOnce(Result<(), SendError>) + Send + 'static,
    ) -> Self {
        Self { to, bytes, restricts, reply: None, done: Some(Box::new(done)) }
    }

    /// With a connection that is held open for this message, as the transport handed it in with [`Received::reply`]. The
    /// transport sends the message there if it knows no other way to the receiver, or if those fail.
    #[must_use]
    pub fn over(mut self, reply: Option<Reply>) -> Self {
        self.reply = reply;
        self
    }

    /// The connection that is held open for this message, if there is one.
    #[must_use]
    pub fn reply(&self) -> Option<&Reply> {
        self.reply.as_ref()
    }

    /// The receiver.
    #[must_use]
    pub fn to(&self) -> NodeId {
        self.to
    }

    /// The message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it is a farewell. It gives way to no other message.
    #[must_use]
    pub fn restricts(&self) -> bool {
        self.restricts
    }

    /// Tells how it ended: `Ok` says that it left, as for [`Transport::send`]. A panic of the receiver of this word ends here.
    pub fn end(mut self, sent: Result<(), SendError>) {
        self.tell(sent);
    }

    fn tell(&mut self, sent: Result<(), SendError>) {
        if let Some(done) = self.done.take()
            && foreign::run(|| done(sent)).is_err()
        {
            tracing::error!(to = %self.to, "a panic while hearing what became of a message");
        }
    }
}

impl Drop for Dispatch {
    fn drop(&mut self) {
        self.tell(Err(if std::thread::panicking() { SendError::Panicked } else { SendError::Cancelled }));
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, bytes, restricts, .. } = self;
        f.debug_struct("Dispatch")
            .field("to", to)
            .field("bytes", &bytes.len())
            .field("restricts", restricts)
            .finish_non_exhaustive()
    }
}

/// Whoever takes what a transport received.
pub trait Inbox: Send + Sync {
    /// Takes one message. What comes of it is the taker's business.
    fn receive(&self, message: Received);

    /// Whether the connection over which these bytes came may be held open for an answer. Default: no.
    ///
    /// The answer must depend on the bytes alone. The sender sees that its connection is held, and must not learn by that
    /// what became of its message.
    ///
    /// # Ordering
    /// Called before [`receive`](Self::receive), and must not block.
    fn may_answer(&self, bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }
}

/// A connection that a transport holds open, for one answer to the message that came over it.
///
/// It is closed when its time is up, when it gives way to another, and after the answer.
#[derive(Clone, Debug)]
pub struct Reply {
    number: u64,
    open: Weak<()>,
}

impl Reply {
    /// A connection with a number that the transport gives it; it counts as open until the transport drops `open`.
    #[must_use]
    pub fn new(number: u64, open: &Arc<()>) -> Self {
        Self { number, open: Arc::downgrade(open) }
    }

    /// The number that the transport gave it.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the transport still holds the connection.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.strong_count() > 0
    }
}

impl PartialEq for Reply {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number && self.open.ptr_eq(&other.open)
    }
}

impl Eq for Reply {}

/// One message as it arrived, with what the transport knows of its origin.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The bytes, at most [`MESSAGE_BYTES_MAX`](crate::config::MESSAGE_BYTES_MAX) of them.
    pub bytes: Vec<u8>,
    /// How it came.
    pub path: Path,
    /// The connection that is held open for an answer; `None` if there is none.
    pub reply: Option<Reply>,
}

impl Received {
    /// A message whose sender the transport does not know.
    #[must_use]
    pub fn new(bytes: Vec<u8>, source: Source) -> Self {
        Self { bytes, path: Path::Direct { authenticated: None, source }, reply: None }
    }

    /// A message over a connection at whose other end the transport proved `peer` to be.
    #[must_use]
    pub fn authenticated(bytes: Vec<u8>, peer: NodeId) -> Self {
        Self { bytes, path: Path::Direct { authenticated: Some(peer), source: Source::Node(peer) }, reply: None }
    }

    /// A message that a relay brought, which says that it authenticated `handed_in_by` when it was handed in.
    #[must_use]
    pub fn relayed(bytes: Vec<u8>, handed_in_by: NodeId) -> Self {
        Self { bytes, path: Path::Relayed { handed_in_by }, reply: None }
    }

    /// The same, with the connection that is held open for an answer.
    #[must_use]
    pub fn answerable(self, reply: Reply) -> Self {
        Self { reply: Some(reply), ..self }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("bytes", &self.bytes.len()).field("path", &self.path).finish()
    }
}

/// Why a message did not leave.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError {
    /// Nobody knows an address of the peer. Add one to the peers file or the registry.
    NoAddress {
        /// The peer.
        peer: NodeId,
    },
    /// The address could not be looked up.
    LookUp(RegistryError),
    /// The last address tried did not take the message: nobody listens, no route, or it closed the connection early.
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The time allowed ran out at this address.
    TimedOut {
        /// The address.
        address: SocketAddr,
    },
    /// The message may only go to a peer that the transport authenticates, and this transport does not.
    NotAuthenticated,
    /// The message is larger than the protocol allows.
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// The peer was disconnected, or the transport stopped, meanwhile.
    Cancelled,
    /// Too many messages were being sent at once, and this one gave way to a newer one. Send it again.
    GaveWay,
    /// The transport, or the identity that was to sign, panicked.
    Panicked,
    /// A transport of another kind failed.
    Other(Box<dyn core::error::Error + Send + Sync>),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress { peer } => write!(f, "no address of node {peer} is known"),
            Self::LookUp(error) => write!(f, "its address could not be looked up: {error}"),
            Self::Unreachable { address, source } => write!(f, "{address}: {}", foreign::shown(source)),
            Self::TimedOut { address } => write!(f, "{address}: no answer in the time allowed"),
            Self::NotAuthenticated => f.write_str("the transport does not authenticate the peer"),
            Self::TooLarge { bytes } => write!(f, "a message of {bytes} bytes is larger than the protocol allows"),
            Self::Cancelled => f.write_str("cancelled: the peer was disconnected or the node is stopping"),
            Self::GaveWay => f.write_str("too many messages were being sent at once, and this one gave way"),
            Self::Panicked => f.write_str("the transport panicked"),
            Self::Other(error) => f.write_str(&foreign::shown(error)),
        }
    }
}

impl core::error::Error for SendError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::LookUp(error) => Some(error),
            Self::Unreachable { source, .. } => Some(source),
            Self::Other(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}
