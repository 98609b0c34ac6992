//! The built-in transport: TCP, one message per connection, the sender half-closes, the receiver reads to the end.
//!
//! Every step of sending has a deadline, and one deadline holds for all of them. TCP proves nothing about who is at the
//! other end, so nothing received here is ever marked as authenticated.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::look_up::LookUps;
use super::outbox::SENDERS_MAX;
use super::registry::Registry;
use super::tcp_receive::Receiver;
use super::transport::{Inbox, SendError, Transport};
use crate::config::{DEFAULT_PORT, MESSAGE_BYTES_MAX};
use crate::peer::NodeId;
use crate::sync::{Deadline, Mutex};
use std::sync::Arc;

/// Addresses, limits and times of a [`TcpTransport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpConfig {
    /// Where to listen; port 0 takes a free one. 127.0.0.1:4440: whoever wants to be reached from elsewhere says so.
    pub listen: SocketAddr,
    /// How long one connection may take to deliver its message, from its first moment to its last byte. 10 seconds.
    pub receive_timeout: Duration,
    /// How long sending one message may take, look-up and all addresses included. 5 seconds.
    pub send_timeout: Duration,
    /// How long one address may take to answer a connection. 2 seconds.
    pub connect_timeout: Duration,
    /// How long a sender that has sent everything waits for the receiver to close, to learn that it was not refused;
    /// a receiver that takes longer counts as having taken the message. 500 milliseconds.
    pub close_wait: Duration,
    /// How long the registry may take to tell an address. 2 seconds.
    pub look_up_timeout: Duration,
    /// Connections that are being received at a time; one more cuts off the oldest. 256.
    pub connections_max: usize,
    /// Of these, from one address (IPv6: one /64); one more cuts off the oldest from there. 16.
    pub connections_per_source_max: usize,
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
            connections_max: 256,
            connections_per_source_max: 16,
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
    sending: Mutex<Sending>,
}

/// The connections through which something is being sent, so that they can be cut.
#[derive(Default)]
struct Sending {
    next: u64,
    open: HashMap<u64, (NodeId, Arc<TcpStream>)>,
    stopped: bool,
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
        let receiver = Receiver::new(listener, &config).map_err(|source| ListenError::Io { address, source })?;
        let look_ups = LookUps::new(registry, config.look_up_timeout, ADDRESSES_MAX);
        Ok(Self { config, receiver, look_ups, sending: Mutex::new(Sending::default()) })
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

    fn send_to(&self, peer: NodeId, address: SocketAddr, bytes: &[u8], until: Deadline) -> Result<(), SendError> {
        let limit = remaining(until).min(self.config.connect_timeout);
        if limit.is_zero() {
            return Err(SendError::TimedOut { address });
        }
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => SendError::TimedOut { address },
            _ => SendError::Unreachable { address, source },
        };
        let stream = Arc::new(TcpStream::connect_timeout(&address, limit).map_err(failed)?);
        let open = self.open(peer, &stream)?;
        let sent = deliver(&stream, bytes, until, self.config.close_wait);
        if self.sending.lock().open.remove(&open).is_none() {
            return Err(SendError::Cancelled);
        }
        sent.map_err(failed)
    }

    fn open(&self, peer: NodeId, stream: &Arc<TcpStream>) -> Result<u64, SendError> {
        let mut sending = self.sending.lock();
        if sending.stopped {
            return Err(SendError::Cancelled);
        }
        let id = sending.next;
        sending.next += 1;
        sending.open.insert(id, (peer, Arc::clone(stream)));
        Ok(id)
    }

    fn cut(&self, which: impl Fn(NodeId) -> bool, stop: bool) {
        let mut sending = self.sending.lock();
        sending.stopped |= stop;
        sending.open.retain(|_, (peer, stream)| {
            let cut = which(*peer);
            if cut {
                // It may be closed already; the thread that sends sees either way that its entry is gone.
                drop(stream.shutdown(Shutdown::Both));
            }
            !cut
        });
    }
}

impl Transport for TcpTransport {
    fn start(&self, inbox: Arc<dyn Inbox>) -> io::Result<()> {
        self.receiver.start(inbox)
    }

    fn send(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(SendError::TooLarge { bytes: bytes.len() });
        }
        let until = Deadline::after(self.config.send_timeout);
        let entry = self.look_ups.look_up(to, true).map_err(SendError::LookUp)?.unwrap_or_default();
        let mut last = SendError::NoAddress { peer: to };
        for address in entry.addresses {
            match self.send_to(to, address, bytes, until) {
                Ok(()) => return Ok(()),
                Err(SendError::Cancelled) => return Err(SendError::Cancelled),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn disconnect(&self, peer: NodeId) {
        self.cut(|other| other == peer, false);
    }

    fn stop_receiving(&self, wait: Duration) {
        self.receiver.stop(wait);
    }

    fn stop_sending(&self) {
        self.cut(|_| true, true);
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

/// Writes the message, half-closes, and waits for the receiver to close: a reset instead says that it was not taken.
fn deliver(stream: &TcpStream, bytes: &[u8], until: Deadline, close_wait: Duration) -> io::Result<()> {
    let mut stream = stream;
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.set_write_timeout(Some(positive(until)?))?;
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.shutdown(Shutdown::Write)?;
    let patience = Deadline::after(remaining(until).min(close_wait));
    let mut answer = [0; 64];
    while let Ok(wait) = positive(patience) {
        stream.set_read_timeout(Some(wait))?;
        match stream.read(&mut answer) {
            Ok(0) => break,
            // Nothing is answered on this connection; whatever comes is not ours to read, and not for ever either.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The message left in time. That the receiver takes its time to close says nothing against it.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
