//! The sending half of the TCP transport: one thread for all connections, none of which it waits for alone.
//!
//! What must hold: a peer that does not answer, does not read or does not close costs one of a bounded number of
//! connections, for a bounded time, and delays no message to another peer. When all connections are taken, a new message
//! ends the one that can be spared best. A farewell gives way to farewells only. Every message ends with one word.
#![forbid(unsafe_code)]

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType};

use super::tcp::{TcpConfig, remaining};
use super::transport::{Dispatch, SendError};
use crate::foreign;
use crate::peer::NodeId;
use crate::sync::{Deadline, Mutex, spawn};
use std::sync::Arc;

/// Sends over connections of its own. Its thread comes with the first message and goes with [`stop`](Self::stop).
pub(crate) struct Sender {
    shared: Arc<Shared>,
}

struct Shared {
    connect_timeout: Duration,
    close_wait: Duration,
    connections_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    commands: VecDeque<Command>,
    /// A byte into it wakes the thread; `None` if there is no thread.
    wake: Option<UnixStream>,
    stopped: bool,
}

enum Command {
    Send(Message),
    /// Cut what is open to this peer; messages behind this command are not affected.
    Cut(NodeId),
}

/// A message with the addresses that were not tried yet.
struct Message {
    dispatch: Dispatch,
    addresses: VecDeque<SocketAddr>,
    until: Deadline,
    last: SendError,
}

struct Connection {
    message: Message,
    address: SocketAddr,
    stream: TcpStream,
    step: Step,
    /// When this step has lasted long enough.
    until: Deadline,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Connecting,
    /// So many bytes were written.
    Writing(usize),
    /// Everything was written, and a receiver that refuses may still say so.
    Closing,
}

/// How a connection goes on.
enum Next {
    Stay,
    Sent,
    Failed(SendError),
}

impl Sender {
    pub(crate) fn new(config: &TcpConfig) -> Self {
        let shared = Shared {
            connect_timeout: config.connect_timeout,
            close_wait: config.close_wait,
            connections_max: config.sends_max.max(1),
            state: Mutex::new(State::default()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Begins to send to the first of these addresses that takes the message until the deadline.
    ///
    /// # Ordering
    /// Waits for nothing.
    pub(crate) fn send(&self, dispatch: Dispatch, addresses: Vec<SocketAddr>, until: Deadline) {
        let last = SendError::NoAddress { peer: dispatch.to() };
        let message = Message { dispatch, addresses: addresses.into(), until, last };
        let mut state = self.shared.state.lock();
        if state.stopped {
            drop(state);
            message.dispatch.end(Err(SendError::Cancelled));
            return;
        }
        if state.wake.is_none()
            && let Err(error) = begin(&self.shared, &mut state)
        {
            drop(state);
            message.dispatch.end(Err(SendError::Other(Box::new(error))));
            return;
        }
        state.commands.push_back(Command::Send(message));
        state.ring();
    }

    /// Cuts what is open to this peer. A message that is handed in after this returned is not affected.
    pub(crate) fn cut(&self, peer: NodeId) {
        let mut state = self.shared.state.lock();
        if state.wake.is_some() {
            state.commands.push_back(Command::Cut(peer));
            state.ring();
        }
    }

    /// Cancels what is being sent, and takes nothing more.
    pub(crate) fn stop(&self) {
        let mut state = self.shared.state.lock();
        state.stopped = true;
        state.ring();
    }
}

impl State {
    fn ring(&self) {
        if let Some(mut wake) = self.wake.as_ref() {
            // A pipe that is full has woken the thread already.
            let _ = wake.write(&[0]);
        }
    }
}

/// Starts the thread.
fn begin(shared: &Arc<Shared>, state: &mut State) -> io::Result<()> {
    let (ours, bell) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    bell.set_nonblocking(true)?;
    let of_thread = Arc::clone(shared);
    spawn("trustkeep-tcp", move || {
        if foreign::run(|| run(&of_thread, &bell)).is_err() {
            tracing::error!("a panic while sending");
        }
        // The next message starts another thread. What this one had is told that it did not leave.
        let mut state = of_thread.state.lock();
        state.wake = None;
        let left = std::mem::take(&mut state.commands);
        drop(state);
        drop(left);
    })?;
    state.wake = Some(ours);
    Ok(())
}

fn run(shared: &Shared, bell: &UnixStream) {
    let mut open: Vec<Connection> = Vec::new();
    loop {
        let ready = wait(&open, bell);
        let mut still = Vec::with_capacity(open.len());
        for (connection, ready) in open.into_iter().zip(ready) {
            still.extend(turn(shared, connection, ready));
        }
        open = still;
        let mut state = shared.state.lock();
        let (stopped, commands) = (state.stopped, std::mem::take(&mut state.commands));
        drop(state);
        if stopped {
            // Every dispatch tells so itself when it is dropped.
            return;
        }
        for command in restrictions_first(commands) {
            match command {
                Command::Send(message) => {
                    if let Some(message) = make_room(shared, &mut open, message) {
                        open.extend(connect(shared, message));
                    }
                }
                Command::Cut(peer) => open.retain(|connection| connection.message.dispatch.to() != peer),
            }
        }
    }
}

/// Puts farewells before other messages, but none before the cut of its peer that stands ahead of it.
fn restrictions_first(commands: VecDeque<Command>) -> impl Iterator<Item = Command> {
    let mut cut = HashSet::new();
    let (first, others): (Vec<_>, Vec<_>) = commands.into_iter().partition(|command| match command {
        Command::Send(message) => message.dispatch.restricts() && !cut.contains(&message.dispatch.to()),
        Command::Cut(peer) => {
            cut.insert(*peer);
            false
        }
    });
    first.into_iter().chain(others)
}

/// Waits for the first connection that can go on or whose time is up; the answer says which of them can.
fn wait(open: &[Connection], bell: &UnixStream) -> Vec<bool> {
    let left = open.iter().map(|connection| remaining(connection.until)).min();
    // Rounded up, or the last part of a millisecond would be spent in a loop.
    let patience = left.and_then(|left| Timespec::try_from(left.saturating_add(Duration::from_millis(1))).ok());
    let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
    fds.extend(open.iter().map(|connection| {
        let wanted = if connection.step == Step::Closing { PollFlags::IN } else { PollFlags::OUT };
        PollFd::new(&connection.stream, wanted)
    }));
    if poll(&mut fds, patience.as_ref()).is_err() {
        // Interrupted, or out of memory: a connection whose time is up still ends.
        return vec![false; open.len()];
    }
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
    if ready.next() == Some(true) {
        let mut bell = bell;
        while matches!(bell.read(&mut [0; 64]), Ok(64)) {}
    }
    ready.collect()
}

/// Lets a connection go on; `None` if it has ended.
fn turn(shared: &Shared, mut connection: Connection, ready: bool) -> Option<Connection> {
    let next = if ready { advance(shared, &mut connection) } else { Next::Stay };
    let next = match next {
        Next::Stay if connection.until.has_passed() => match connection.step {
            // The message left in time. That the receiver takes its time to close says nothing against it.
            Step::Closing => Next::Sent,
            _ => Next::Failed(SendError::TimedOut { address: connection.address }),
        },
        next => next,
    };
    match next {
        Next::Stay => Some(connection),
        Next::Sent => {
            connection.message.dispatch.end(Ok(()));
            None
        }
        Next::Failed(error) => {
            let Connection { mut message, stream, .. } = connection;
            drop(stream);
            message.last = error;
            connect(shared, message)
        }
    }
}

/// Does what can be done without waiting.
fn advance(shared: &Shared, connection: &mut Connection) -> Next {
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
            let patience = remaining(connection.message.until).min(shared.close_wait);
            (connection.step, connection.until) = (Step::Closing, Deadline::after(patience));
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
    // Nothing is answered on this connection; what comes all the same is read past, a bounded part of it at a time.
    for _ in 0..READS_MAX {
        match stream.read(&mut [0; 64]) {
            Ok(0) => return Next::Sent,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return failed(error),
        }
    }
    Next::Stay
}

/// Begins a connection to the next address; `None` if the message has ended, because there is none.
fn connect(shared: &Shared, mut message: Message) -> Option<Connection> {
    while let Some(address) = message.addresses.pop_front() {
        let limit = remaining(message.until).min(shared.connect_timeout);
        if limit.is_zero() {
            message.last = SendError::TimedOut { address };
            break;
        }
        match dial(address) {
            Ok(stream) => {
                let (step, until) = (Step::Connecting, Deadline::after(limit));
                return Some(Connection { message, address, stream, step, until });
            }
            Err(source) => message.last = failure(address, source),
        }
    }
    let Message { dispatch, last, .. } = message;
    dispatch.end(Err(last));
    None
}

/// A socket that is connecting.
fn dial(address: SocketAddr) -> io::Result<TcpStream> {
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

/// Ends a connection if all are taken; `None` if the new message had to end instead.
///
/// A message that was written whole is spared best: it counts as sent. Then the oldest goes, for a good peer is done within
/// milliseconds.
fn make_room(shared: &Shared, open: &mut Vec<Connection>, message: Message) -> Option<Message> {
    if open.len() < shared.connections_max {
        return Some(message);
    }
    let restricts = |connection: &Connection| connection.message.dispatch.restricts();
    let written = open.iter().position(|connection| connection.step == Step::Closing);
    let ordinary = || open.iter().position(|connection| !restricts(connection));
    let oldest = || message.dispatch.restricts().then_some(0);
    match written.or_else(ordinary).or_else(oldest) {
        Some(at) => {
            let Connection { message: victim, step, .. } = open.remove(at);
            let sent = if step == Step::Closing { Ok(()) } else { Err(SendError::GaveWay) };
            victim.dispatch.end(sent);
            Some(message)
        }
        None => {
            message.dispatch.end(Err(SendError::GaveWay));
            None
        }
    }
}

fn failure(address: SocketAddr, source: io::Error) -> SendError {
    match source.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => SendError::TimedOut { address },
        _ => SendError::Unreachable { address, source },
    }
}

/// Reads past an unasked-for answer, of 64 bytes each, before the other connections have their turn.
const READS_MAX: usize = 16;
