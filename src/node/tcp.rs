//! The built-in transport: TCP, one message per connection, the sender half-closes, the receiver reads to the end. The
//! receiver of a request may answer over the same connection ([`tcp_answer`](super::tcp_answer)).
//!
//! Every step of sending has a deadline, and one deadline holds for all of them. Connecting and writing block no thread of
//! the node ([`tcp_send`](super::tcp_send)); only the look-up of an address may, if the registry blocks. TCP proves nothing about who is at the
//! other end, so nothing received here is ever marked as authenticated.
#![forbid(unsafe_code)]

use core::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::look_up::{LookUps, Whom};
use super::outbox::SENDERS_MAX;
use super::registry::Registry;
use super::tcp_receive::Receiver;
use super::tcp_send::Sender;
use super::transport::{Dispatch, Inbox, SendError, Transport};
use crate::config::{DEFAULT_PORT, MESSAGE_BYTES_MAX};
use crate::peer::NodeId;
use crate::sync::{Deadline, OneShot};
use std::sync::{Arc, Weak};

/// Addresses, limits and times of a [`TcpTransport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpConfig {
    /// Where to listen; port 0 takes a free one. 127.0.0.1:4440: whoever wants to be reached from elsewhere says so.
    pub listen: SocketAddr,
    /// How long one connection may take to deliver its message, from its first moment to its last byte. 10 seconds.
    pub receive_timeout: Duration,
    /// How long sending one message may take, look-up and all addresses included; an answer for which the connection of
    /// its request is held then has `connect_timeout` more. 5 seconds.
    pub send_timeout: Duration,
    /// How long one address may take to answer a connection. 2 seconds.
    pub connect_timeout: Duration,
    /// How long a sender that has sent everything waits for the receiver to close, to learn that it was not refused;
    /// a receiver that takes longer counts as having taken the message. 500 milliseconds.
    pub close_wait: Duration,
    /// How long the registry may take to tell an address. 2 seconds.
    pub look_up_timeout: Duration,
    /// Connections over which messages are sent, or an answer is awaited, at a time. One more ends one that awaits an
    /// answer, or else one that has written its message, or else the oldest; a farewell gives way to farewells only. Default: 256.
    pub sends_max: usize,
    /// Connections that are being received at a time; one more cuts off the oldest. 256.
    pub connections_max: usize,
    /// Of these, from one address (IPv6: one /64); one more cuts off the oldest from there. 16.
    pub connections_per_source_max: usize,
    /// How long a connection whose message was sent stays open for an answer, at either end. With 0 no answer is taken or
    /// given over the connection of a request. Default: 10 seconds.
    pub answer_wait: Duration,
    /// Connections that are held open for an answer of ours, beside those being received; one more closes the oldest.
    /// Default: 64.
    pub held_max: usize,
    /// Of these, from one address (IPv6: one /64); one more closes the oldest from there. Default: 2.
    pub held_per_source_max: usize,
}

impl TcpConfig {
    /// The defaults, listening at `address`.
    #[must_use]
    pub fn listen(address: SocketAddr) -> Self {
        Self { listen: address, ..Self::default() }
    }
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            receive_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            close_wait: Duration::from_millis(500),
            look_up_timeout: Duration::from_secs(2),
            sends_max: 256,
            connections_max: 256,
            connections_per_source_max: 16,
            answer_wait: Duration::from_secs(10),
            held_max: 64,
            held_per_source_max: 2,
        }
    }
}

/// What became of the connections that a [`TcpTransport`] accepted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpCounts {
    /// Accepted.
    pub accepted: u64,
    /// Being received now.
    pub open: usize,
    /// Held open for an answer now.
    pub held: usize,
    /// Received whole and handled.
    pub received: u64,
    /// Not received whole: too large, too late, cut off or broken.
    pub dropped: u64,
    /// Of these, cut off because a newer connection needed the slot.
    pub cut: u64,
    /// Lost to a panic of whoever handled the message.
    pub panicked: u64,
}

/// Messages over TCP, to the addresses that a registry knows.
pub struct TcpTransport {
    config: TcpConfig,
    receiver: Receiver,
    look_ups: LookUps,
    sender: Sender,
}

impl TcpTransport {
    /// Takes the port; connections queue in the operating system until [`start`](Transport::start).
    ///
    /// # Errors
    /// [`ListenError`]: the port is in use, or cannot be had for another reason.
    pub fn bind(config: TcpConfig, registry: Arc<dyn Registry>) -> Result<Self, ListenError> {
        let address = config.listen;
        let listener = TcpListener::bind(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address },
            _ => ListenError::Io { address, source },
        })?;
        let sender = Sender::new(&config);
        let receiver =
            Receiver::new(listener, &config, sender.clone()).map_err(|source| ListenError::Io { address, source })?;
        let look_ups = LookUps::new(registry, config.look_up_timeout, ADDRESSES_MAX, Weak::new());
        Ok(Self { config, receiver, look_ups, sender })
    }

    /// Where it listens, with the port that it was given if it asked for any.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.receiver.local_address()
    }

    /// What became of the connections that it accepted.
    #[must_use]
    pub fn counts(&self) -> TcpCounts {
        self.receiver.counts()
    }

    /// The addresses of a peer. Waits for the registry, as long as that may take.
    fn addresses(&self, peer: NodeId, bytes: &[u8]) -> Result<Vec<SocketAddr>, SendError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(SendError::TooLarge { bytes: bytes.len() });
        }
        let entry = self.look_ups.look_up(peer, Whom::Known, Duration::MAX).map_err(SendError::LookUp)?;
        Ok(entry.unwrap_or_default().addresses)
    }
}

impl Transport for TcpTransport {
    fn start(&self, inbox: Arc<dyn Inbox>) -> io::Result<()> {
        self.receiver.start(inbox)
    }

    fn send(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError> {
        let answer = Arc::new(OneShot::new());
        let of_message = Arc::clone(&answer);
        self.dispatch(Dispatch::new(to, bytes.into(), false, move |sent| of_message.put(sent)));
        // A word comes in any case: a dispatch that is dropped gives one, and each of its steps has a deadline.
        answer.wait(Deadline::NEVER).unwrap_or(Err(SendError::Cancelled))
    }

    fn dispatch(&self, message: Dispatch) {
        let until = Deadline::after(self.config.send_timeout);
        match self.addresses(message.to(), message.bytes()) {
            Ok(addresses) => {
                let last = SendError::NoAddress { peer: message.to() };
                self.sender.send(message, addresses, last, until);
            }
            Err(last @ SendError::LookUp(_)) => self.sender.send(message, Vec::new(), last, until),
            Err(error) => message.end(Err(error)),
        }
    }

    fn disconnect(&self, peer: NodeId) {
        self.sender.cut(peer);
    }

    fn stop_receiving(&self, wait: Duration) {
        self.receiver.stop(wait);
    }

    fn stop_sending(&self) {
        self.sender.stop();
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.stop_sending();
        self.receiver.stop(Duration::ZERO);
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpTransport").field("local_address", &self.local_address()).finish_non_exhaustive()
    }
}

/// Why nothing can be received.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenError {
    /// Another program (or another node) listens there already. Stop it, or choose another port.
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The operating system refuses for another reason.
    Io {
        /// The address.
        address: SocketAddr,
        /// Its answer.
        source: io::Error,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { address } => {
                write!(f, "{address}: the port is in use; stop whatever listens there, or choose another")
            }
            Self::Io { address, source } => write!(f, "{address}: cannot listen: {source}"),
        }
    }
}

impl core::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::InUse { .. } => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}

/// How long until the deadline; zero once it has passed.
pub(crate) fn remaining(until: Deadline) -> Duration {
    let now = Deadline::after(Duration::ZERO).instant();
    match (until.instant(), now) {
        (Some(until), Some(now)) => Instant::saturating_duration_since(&until, now),
        _ => Duration::MAX,
    }
}

/// The same, or an error once it has passed: sockets refuse a timeout of zero.
pub(crate) fn positive(until: Deadline) -> io::Result<Duration> {
    let left = remaining(until);
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Addresses that are looked up at a time: as many as threads may send, so that a registry that is slow turns no message
/// away, and some for callers who send by themselves.
const ADDRESSES_MAX: usize = 2 * SENDERS_MAX + 64;
