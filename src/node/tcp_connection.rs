//! One connection over which a message is sent: what it waits for, and what it does without waiting.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

use super::tcp::remaining;
use super::transport::{Dispatch, Reply, SendError};
use crate::sync::Deadline;

/// A message with the addresses that were not tried yet.
pub(crate) struct Message {
    pub(crate) dispatch: Dispatch,
    pub(crate) addresses: VecDeque<SocketAddr>,
    pub(crate) until: Deadline,
    pub(crate) last: SendError,
    /// A connection that the receiver holds open for it, if no address takes it.
    pub(crate) reply: Option<Reply>,
}

/// A message with the connection over which it is being sent.
pub(crate) struct Connection {
    pub(crate) message: Message,
    pub(crate) address: SocketAddr,
    pub(crate) stream: TcpStream,
    pub(crate) step: Step,
    /// It is not ours: the receiver dialled it.
    pub(crate) is_held: bool,
    /// When this step has lasted long enough.
    pub(crate) until: Deadline,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Connecting,
    /// So many bytes were written.
    Writing(usize),
    /// Everything was written, and a receiver that refuses may still say so.
    Closing,
    /// Everything was written over a held connection, and the other side did not acknowledge all of it yet.
    Settling,
}

/// How a connection goes on.
pub(crate) enum Next {
    Stay,
    Sent,
    /// The receiver has taken the message, and these bytes came from it.
    Taken(Vec<u8>),
    Failed(SendError),
}

/// Does what can be done without waiting.
pub(crate) fn advance(close_wait: Duration, connection: &mut Connection) -> Next {
    let (address, mut stream) = (connection.address, &connection.stream);
    let failed = |source| Next::Failed(failure(address, source));
    if connection.step == Step::Connecting {
        match stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return failed(error),
        }
        (connection.step, connection.until) = (Step::Writing(0), connection.message.until);
    }
    while let Step::Writing(at) = connection.step {
        let rest = connection.message.dispatch.bytes().get(at..).unwrap_or_default();
        if rest.is_empty() {
            if let Err(error) = stream.shutdown(Shutdown::Write) {
                return failed(error);
            }
            if connection.is_held {
                connection.step = Step::Settling;
            } else {
                let patience = remaining(connection.message.until).min(close_wait);
                (connection.step, connection.until) = (Step::Closing, Deadline::after(patience));
            }
            break;
        }
        match stream.write(rest) {
            Ok(0) => return failed(io::ErrorKind::WriteZero.into()),
            Ok(count) => connection.step = Step::Writing(at + count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Next::Stay,
            Err(error) => return failed(error),
        }
    }
    if connection.step == Step::Settling {
        // The other side has closed its sending side before. So once it acknowledged everything the socket is unconnected; and if
        // nobody reads there any more, it has an error.
        let is_over = stream.peer_addr().is_err();
        return match stream.take_error() {
            Ok(None) if is_over => Next::Sent,
            Ok(None) => Next::Stay,
            Ok(Some(error)) | Err(error) => failed(error),
        };
    }
    let mut first = [0; 64];
    loop {
        return match stream.read(&mut first) {
            Ok(0) => Next::Sent,
            Ok(count) => Next::Taken(first.get(..count).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Next::Stay,
            Err(error) => failed(error),
        };
    }
}

/// A socket that is connecting.
pub(crate) fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    match rustix::net::connect(&socket, &address) {
        // An interrupted connection goes on by itself as well.
        Ok(()) | Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::INTR) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn failure(address: SocketAddr, source: io::Error) -> SendError {
    match source.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => SendError::TimedOut { address },
        _ => SendError::Unreachable { address, source },
    }
}
