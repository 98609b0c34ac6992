//! The listening half of the TCP transport: bounded connections, each with one deadline for all of its bytes.
//!
//! A slot is held while bytes arrive and not a moment longer. When all are taken the oldest connection is cut off:
//! *oldest*, for idle time can be faked by dribbling bytes and age cannot, and a good peer is done within milliseconds.
//! What a message makes us do is bounded by a second limit, so that neither slow senders nor slow look-ups take what the
//! other needs. A panic anywhere in a connection ends that connection.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::seldom::Seldom;
use super::tcp::{TcpConfig, TcpCounts, positive};
use super::tcp_answer::Caller;
use super::tcp_send::Sender;
use super::transport::{Inbox, Received, Reply};
use crate::config::MESSAGE_BYTES_MAX;
use crate::foreign;
use crate::machine::view::Source;
use crate::sync::{Condvar, Deadline, Mutex, spawn};
use std::sync::Arc;

/// A listener and the connections it accepted.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    timeout: Duration,
    connections_max: usize,
    per_source_max: usize,
    /// Holds connections open for an answer, and hands on the answers that come to messages of ours.
    sender: Sender,
    state: Mutex<State>,
    // The acceptor waits here when it backs off.
    stopping: Condvar,
    // Handlers wait here for a permit; who leaves without one passes the word on.
    permits: Condvar,
    // Whoever stops waits here for threads to leave.
    left: Condvar,
}

#[derive(Default)]
struct State {
    listener: Option<Arc<TcpListener>>,
    inbox: Option<Arc<dyn Inbox>>,
    // Ids rise, so the smallest is the oldest.
    next: u64,
    open: HashMap<u64, (Source, Arc<TcpStream>)>,
    handling: usize,
    threads: usize,
    stopped: bool,
    counts: TcpCounts,
}

impl Receiver {
    pub(crate) fn new(listener: TcpListener, config: &TcpConfig, sender: Sender) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Shared {
            timeout: config.receive_timeout,
            connections_max: config.connections_max.max(1),
            per_source_max: config.connections_per_source_max.max(1),
            sender,
            state: Mutex::new(State { listener: Some(Arc::new(listener)), ..State::default() }),
            stopping: Condvar::new(),
            permits: Condvar::new(),
            left: Condvar::new(),
        };
        Ok(Self { address, shared: Arc::new(shared) })
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn counts(&self) -> TcpCounts {
        let state = self.shared.state.lock();
        TcpCounts { open: state.open.len(), held: self.shared.sender.held(), ..state.counts }
    }

    pub(crate) fn start(&self, inbox: Arc<dyn Inbox>) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        let (Some(listener), None) = (state.listener.clone(), &state.inbox) else {
            return Err(io::Error::other("started or stopped before"));
        };
        let shared = Arc::clone(&self.shared);
        spawn("trustkeep-accept", move || {
            let _leaving = Leaving(&shared);
            accept(&listener, &shared);
        })?;
        state.threads += 1;
        state.inbox = Some(inbox);
        let (shared, told) = (Arc::clone(&self.shared), Mutex::new(Seldom::new(TELL_EVERY)));
        self.shared.sender.answers_go_to(Some(Arc::new(move |stream, from, bytes| {
            if let Err(error) = take(&shared, stream, from, Some(bytes))
                && let Some(since) = told.lock().tell()
            {
                tracing::warn!(%error, since, "an answer was dropped");
            }
        })));
        Ok(())
    }

    /// Cuts every connection that is being received, and waits for the threads; messages received whole are handled.
    pub(crate) fn stop(&self, wait: Duration) {
        let until = Deadline::after(wait);
        let mut state = self.shared.state.lock();
        state.stopped = true;
        // It holds this receiver, which holds it.
        self.shared.sender.answers_go_to(None);
        for (_, (_, stream)) in state.open.drain() {
            drop(stream.shutdown(Shutdown::Both));
        }
        let listener = state.listener.take();
        drop(state);
        self.shared.stopping.notify_one();
        self.shared.permits.notify_one();
        if let Some(listener) = listener {
            // On Linux this ends a blocked accept; elsewhere a connection of our own does.
            let _ = rustix::net::shutdown(&*listener, rustix::net::Shutdown::Both);
            drop(TcpStream::connect_timeout(&self.address, WAKE_TIMEOUT));
        }
        let mut state = self.shared.state.lock();
        while state.threads > 0 {
            let (guard, late) = self.shared.left.wait_until(state, until);
            state = guard;
            if late {
                break;
            }
        }
        state.inbox = None;
    }
}

/// Counts a thread out, however it ends.
struct Leaving<'a>(&'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.state.lock().threads -= 1;
        self.0.left.notify_one();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let (mut pause, mut told) = (PAUSE_MIN, Seldom::new(TELL_EVERY));
    loop {
        let accepted = listener.accept();
        if shared.state.lock().stopped {
            return;
        }
        let taken = accepted.and_then(|(stream, from)| take(shared, stream, from, None));
        match taken {
            Ok(()) => pause = PAUSE_MIN,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
            Err(error) => {
                // Out of descriptors or threads, most likely: it may pass, and trying at once would only burn the CPU.
                if let Some(since) = told.tell() {
                    tracing::warn!(%error, since, "cannot accept connections; trying again");
                }
                let until = Deadline::after(pause);
                let mut state = shared.state.lock();
                while !state.stopped {
                    let (guard, late) = shared.stopping.wait_until(state, until);
                    state = guard;
                    if late {
                        break;
                    }
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Gives a new connection a slot and a thread; or one of ours, over which an answer came whole.
fn take(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr, answer: Option<Vec<u8>>) -> io::Result<()> {
    let (source, stream) = (Source::from_address(from.ip()), Arc::new(stream));
    let until = Deadline::after(shared.timeout);
    let mut state = shared.state.lock();
    if answer.is_none() {
        state.counts.accepted += 1;
    } else if state.stopped {
        return Ok(());
    }
    let same = state.open.iter().filter(|(_, (other, _))| *other == source);
    let oldest_here = same.clone().map(|(id, _)| *id).min();
    let oldest = state.open.keys().copied().min();
    let cut = if same.count() >= shared.per_source_max {
        oldest_here
    } else if state.open.len() >= shared.connections_max {
        oldest
    } else {
        None
    };
    if let Some((_, stream)) = cut.and_then(|id| state.open.remove(&id)) {
        // Its thread wakes, finds that it lost its slot, and leaves.
        state.counts.cut += 1;
        drop(stream.shutdown(Shutdown::Both));
    }
    if state.threads >= shared.connections_max.saturating_mul(2).saturating_add(HANDLERS_MAX) {
        return Err(io::Error::other("too many connections are still being closed"));
    }
    let id = state.next;
    state.next += 1;
    let (thread_shared, thread_stream) = (Arc::clone(shared), Arc::clone(&stream));
    spawn("trustkeep-receive", move || {
        let shared = &*thread_shared;
        let _leaving = Leaving(shared);
        let handled = foreign::run(|| handle(shared, id, from, thread_stream, answer, until));
        let mut state = shared.state.lock();
        state.open.remove(&id);
        match handled {
            Ok(true) => state.counts.received += 1,
            Ok(false) => state.counts.dropped += 1,
            Err(_) => {
                state.counts.panicked += 1;
                drop(state);
                tracing::error!("a panic while handling a connection");
            }
        }
    })?;
    state.threads += 1;
    state.open.insert(id, (source, stream));
    Ok(())
}

/// Reads one message, unless it is there already, and hands it on; false if there was none.
fn handle(
    shared: &Shared,
    id: u64,
    from: SocketAddr,
    stream: Arc<TcpStream>,
    answer: Option<Vec<u8>>,
    until: Deadline,
) -> bool {
    // An answer is not answered: that would go on for ever.
    let may_be_held = answer.is_none();
    let bytes = answer.or_else(|| read_message(&stream, until));
    // Whoever waits for a permit still holds the slot: this is what slows a flood down to what we can handle.
    let mut state = shared.state.lock();
    while state.handling >= HANDLERS_MAX && state.open.contains_key(&id) {
        let (guard, late) = shared.permits.wait_until(state, until);
        state = guard;
        if late {
            break;
        }
    }
    // A connection that was cut off reads like one that ended; only its slot tells the difference.
    let whole = state.open.remove(&id).is_some() && state.handling < HANDLERS_MAX;
    let (Some(bytes), true, Some(inbox)) = (bytes, whole, state.inbox.clone()) else {
        drop(state);
        shared.permits.notify_one();
        return false;
    };
    state.handling += 1;
    drop(state);
    let _permit = Permit(shared);
    // Closed or held before the message is handled, so that the sender learns nothing from how long that takes.
    let reply = if may_be_held { hold(shared, inbox.as_ref(), stream, from, &bytes) } else { None };
    let received = Received::new(bytes, Source::from_address(from.ip()));
    inbox.receive(Received { reply, ..received });
    true
}

/// Holds the connection open if its message is one that may be answered; else closes it.
fn hold(
    shared: &Shared,
    inbox: &dyn Inbox,
    stream: Arc<TcpStream>,
    address: SocketAddr,
    bytes: &[u8],
) -> Option<Reply> {
    if !inbox.may_answer(bytes) {
        return None;
    }
    // The slot is gone, so nobody else has the stream.
    let stream = Arc::into_inner(stream)?;
    shared.sender.hold(Caller { stream, address })
}

/// Gives the right to handle a message back, however that ends.
struct Permit<'a>(&'a Shared);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.state.lock().handling -= 1;
        self.0.permits.notify_one();
    }
}

/// The bytes up to the end of the stream; `None` if they are too many, too late, or the connection failed.
fn read_message(stream: &TcpStream, until: Deadline) -> Option<Vec<u8>> {
    let mut stream = stream;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        stream.set_read_timeout(Some(positive(until).ok()?)).ok()?;
        match stream.read(&mut chunk) {
            Ok(0) => return Some(bytes),
            Ok(count) if bytes.len() + count > MESSAGE_BYTES_MAX => return None,
            Ok(count) => bytes.extend_from_slice(chunk.get(..count)?),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Messages that are handled at a time, look-ups included.
const HANDLERS_MAX: usize = 128;
/// How often each of these warnings is told at most.
const TELL_EVERY: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
const WAKE_TIMEOUT: Duration = Duration::from_millis(200);

const _: () = assert!(super::look_up::LOOK_UPS_MAX * 2 <= HANDLERS_MAX);
