//! The sending half of the TCP transport: one thread for all connections, none of which it waits for alone.
//!
//! The same thread closes the connections that are held open for an answer, and reads the answers to messages of ours
//! ([`tcp_answer`](super::tcp_answer)).
//!
//! What must hold: a peer that does not answer, does not read or does not close costs one of a bounded number of
//! connections, for a bounded time, and delays no message to another peer. When all connections are taken, a new message
//! ends the one that can be spared best. A farewell gives way to farewells only. Every message ends with one word.
#![forbid(unsafe_code)]

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::tcp::{TcpConfig, remaining};
use super::tcp_answer::{Caller, Heard, Held, Listening, TAKEN};
use super::tcp_connection::{Connection, Message, Next, Step, advance, dial, failure};
use super::transport::{Dispatch, Reply, SendError};
use crate::foreign;
use crate::peer::NodeId;
use crate::sync::{Deadline, Mutex, spawn};
use std::sync::Arc;

/// Sends over connections of its own. Its thread comes with the first message and goes with [`stop`](Self::stop).
#[derive(Clone)]
pub(crate) struct Sender {
    shared: Arc<Shared>,
}

struct Shared {
    connect_timeout: Duration,
    close_wait: Duration,
    answer_wait: Duration,
    connections_max: usize,
    state: Mutex<State>,
}

/// Takes a connection of ours, whom it leads to, and the answer that came over it. Must not block.
pub(crate) type Answers = Arc<dyn Fn(TcpStream, SocketAddr, Vec<u8>) + Send + Sync>;

struct State {
    held: Held,
    answers: Option<Answers>,
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

impl Sender {
    pub(crate) fn new(config: &TcpConfig) -> Self {
        let shared = Shared {
            connect_timeout: config.connect_timeout,
            close_wait: config.close_wait,
            answer_wait: config.answer_wait,
            connections_max: config.sends_max.max(1),
            state: Mutex::new(State {
                held: Held::new(config),
                answers: None,
                commands: VecDeque::new(),
                wake: None,
                stopped: false,
            }),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Begins to send to the first of these addresses that takes the message until the deadline; if none does, over the
    /// connection that is held open for it. `last` is why there is no address.
    ///
    /// # Ordering
    /// Waits for nothing.
    pub(crate) fn send(&self, dispatch: Dispatch, addresses: Vec<SocketAddr>, last: SendError, until: Deadline) {
        let reply = dispatch.reply().cloned();
        let message = Message { dispatch, addresses: addresses.into(), until, last, reply };
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

    /// Holds a connection open for an answer; `None` if it was closed instead.
    pub(crate) fn hold(&self, caller: Caller) -> Option<Reply> {
        if self.shared.answer_wait.is_zero() {
            return None;
        }
        caller.stream.set_nonblocking(true).ok()?;
        // At once, so that the sender need not wait to learn that its message was taken.
        (&caller.stream).write_all(TAKEN).ok()?;
        let until = Deadline::after(self.shared.answer_wait);
        let mut state = self.shared.state.lock();
        if state.stopped || (state.wake.is_none() && begin(&self.shared, &mut state).is_err()) {
            return None;
        }
        let (reply, gave_way) = state.held.keep(caller, until);
        state.ring();
        drop(state);
        drop(gave_way);
        reply
    }

    /// The number of connections that are held open.
    pub(crate) fn held(&self) -> usize {
        self.shared.state.lock().held.len()
    }

    /// Says who takes the answers that come to messages of ours; nobody does until then.
    pub(crate) fn answers_go_to(&self, answers: Option<Answers>) {
        let before = std::mem::replace(&mut self.shared.state.lock().answers, answers);
        drop(before);
    }

    /// Cancels what is being sent, closes what is held, and takes nothing more.
    pub(crate) fn stop(&self) {
        let mut state = self.shared.state.lock();
        state.stopped = true;
        let held = state.held.take_all();
        state.ring();
        drop(state);
        drop(held);
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
        let left = (std::mem::take(&mut state.commands), state.held.take_all());
        drop(state);
        drop(left);
    })?;
    state.wake = Some(ours);
    Ok(())
}

fn run(shared: &Shared, bell: &UnixStream) {
    let mut open: Vec<Connection> = Vec::new();
    let mut listening: Vec<Listening> = Vec::new();
    loop {
        let held_until = shared.state.lock().held.next_end();
        let (ready, heard) = wait(&open, &listening, held_until, bell);
        listening = listening.into_iter().zip(heard).filter_map(|(one, ready)| listen(shared, one, ready)).collect();
        let mut still = Vec::with_capacity(open.len());
        for (connection, ready) in open.into_iter().zip(ready) {
            still.extend(turn(shared, connection, ready, &mut listening));
        }
        open = still;
        let mut state = shared.state.lock();
        let (stopped, commands) = (state.stopped, std::mem::take(&mut state.commands));
        let late = state.held.take_late();
        drop(state);
        drop(late);
        if stopped {
            // Every dispatch tells so itself when it is dropped.
            return;
        }
        for command in restrictions_first(commands) {
            match command {
                Command::Send(message) => {
                    if let Some(message) = make_room(shared, &mut open, &mut listening, message) {
                        open.extend(connect(shared, message));
                    }
                }
                Command::Cut(peer) => {
                    open.retain(|connection| connection.message.dispatch.to() != peer);
                    listening.retain(|connection| connection.peer != peer);
                }
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
fn wait(
    open: &[Connection],
    listening: &[Listening],
    held_until: Option<Deadline>,
    bell: &UnixStream,
) -> (Vec<bool>, Vec<bool>) {
    let untils = open.iter().map(|connection| connection.until).chain(listening.iter().map(|one| one.until));
    let settling = open.iter().any(|connection| connection.step == Step::Settling).then_some(SETTLING);
    let left = untils.chain(held_until).map(remaining).chain(settling).min();
    // Rounded up, or the last part of a millisecond would be spent in a loop.
    let patience = left.and_then(|left| Timespec::try_from(left.saturating_add(Duration::from_millis(1))).ok());
    let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
    fds.extend(open.iter().map(|connection| match connection.step {
        // It is closed in both directions and would be ready at once, again and again.
        Step::Settling => PollFd::new(bell, PollFlags::empty()),
        Step::Closing => PollFd::new(&connection.stream, PollFlags::IN),
        Step::Connecting | Step::Writing(_) => PollFd::new(&connection.stream, PollFlags::OUT),
    }));
    fds.extend(listening.iter().map(|one| PollFd::new(&one.stream, PollFlags::IN)));
    if poll(&mut fds, patience.as_ref()).is_err() {
        // Interrupted, or out of memory: a connection whose time is up still ends.
        return (vec![false; open.len()], vec![false; listening.len()]);
    }
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
    if ready.next() == Some(true) {
        let mut bell = bell;
        while matches!(bell.read(&mut [0; 64]), Ok(64)) {}
    }
    (ready.by_ref().take(open.len()).collect(), ready.collect())
}

/// Reads an answer on; `None` if nothing more is to come.
fn listen(shared: &Shared, mut connection: Listening, ready: bool) -> Option<Listening> {
    match if ready { connection.advance() } else { Heard::Waiting } {
        Heard::Waiting => (!connection.until.has_passed()).then_some(connection),
        Heard::Nothing => None,
        Heard::Whole(bytes) => {
            let answers = shared.state.lock().answers.clone();
            if let Some(answers) = answers {
                let Listening { stream, address, .. } = connection;
                answers(stream, address, bytes);
            }
            None
        }
    }
}

/// Lets a connection go on; `None` if its message has ended. An answer may still come then.
fn turn(
    shared: &Shared,
    mut connection: Connection,
    ready: bool,
    listening: &mut Vec<Listening>,
) -> Option<Connection> {
    let goes_on = ready || connection.step == Step::Settling;
    let next = if goes_on { advance(shared.close_wait, &mut connection) } else { Next::Stay };
    let next = match next {
        Next::Stay if connection.until.has_passed() => match connection.step {
            // The message left in time. That the receiver takes its time to close says nothing against it.
            Step::Closing => Next::Taken(Vec::new()),
            _ => Next::Failed(SendError::TimedOut { address: connection.address }),
        },
        next => next,
    };
    match next {
        Next::Stay => Some(connection),
        Next::Sent => {
            answered_elsewhere(shared, &connection.message);
            connection.message.dispatch.end(Ok(()));
            None
        }
        Next::Taken(first) => {
            let Connection { message, address, stream, .. } = connection;
            answered_elsewhere(shared, &message);
            let (peer, restricts) = (message.dispatch.to(), message.dispatch.restricts());
            message.dispatch.end(Ok(()));
            // Nobody answers a farewell. Only the newest of our messages to a peer can still be answered.
            if !restricts && !shared.answer_wait.is_zero() {
                listening.retain(|other| other.peer != peer);
                let until = Deadline::after(shared.answer_wait);
                listening.push(Listening::new(peer, address, stream, until, &first));
            }
            None
        }
        Next::Failed(error) => {
            let Connection { mut message, stream, is_held, .. } = connection;
            drop(stream);
            // That a connection which was held is gone says less than why there was no other way.
            if !is_held {
                message.last = error;
            }
            connect(shared, message)
        }
    }
}

/// Closes the connection that was held for a message, if the message left by another.
fn answered_elsewhere(shared: &Shared, message: &Message) {
    let held = message.reply.as_ref().and_then(|reply| shared.state.lock().held.take(reply));
    drop(held);
}

/// Begins a connection to the next address, or takes the one that is held; `None` if the message has ended, because there is none.
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
                return Some(Connection { message, address, stream, step, is_held: false, until });
            }
            Err(source) => message.last = failure(address, source),
        }
    }
    // Addresses come first: they are the registry's or the peers file's word, and the other end of a held connection is
    // somebody who had the request.
    let held = message.reply.take().and_then(|reply| shared.state.lock().held.take(&reply));
    if let Some(Caller { stream, address }) = held {
        message.until = Deadline::after(shared.connect_timeout);
        let until = message.until;
        return Some(Connection { message, address, stream, step: Step::Writing(0), is_held: true, until });
    }
    let Message { dispatch, last, .. } = message;
    dispatch.end(Err(last));
    None
}

/// Ends a connection if all are taken; `None` if the new message had to end instead.
///
/// A message that was written whole is spared best: it counts as sent. Then the oldest goes, for a good peer is done within
/// milliseconds.
fn make_room(
    shared: &Shared,
    open: &mut Vec<Connection>,
    listening: &mut Vec<Listening>,
    message: Message,
) -> Option<Message> {
    if open.len() + listening.len() < shared.connections_max {
        return Some(message);
    }
    // Their messages have left.
    if !listening.is_empty() {
        listening.remove(0);
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

/// How often is looked whether an answer over a held connection was acknowledged.
const SETTLING: Duration = Duration::from_millis(10);
