//! The node's end of the control socket: who is served, and how many at a time.
//!
//! What must hold: however many wait or watch, or say nothing, a command is heard and done. A request is read whole before
//! anybody is refused, so that the refusal is read. Each connection has one request.
#![forbid(unsafe_code)]

use std::io::{self, BufWriter, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::RecvFlags;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::door::Door;
use super::perform::{Served, perform, watch};
use super::socket::{self, Listening, Place};
use super::{Ask, Reply};
use crate::cli::Failure;
use crate::sync::{Arc, Condvar, Deadline, Mutex, spawn};

/// A control socket that is bound but does not serve yet.
#[derive(Debug)]
pub(crate) struct Bound {
    place: Place,
    socket: Listening,
}

/// A control socket that serves.
#[derive(Debug)]
pub(crate) struct Server(Arc<Shared>);

/// What the thread at the door shares with those that answer.
#[derive(Debug)]
pub(super) struct Shared {
    node: Served,
    pub(super) place: Place,
    waits_max: usize,
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    commands: usize,
    requests: usize,
    waits: usize,
    closing: bool,
    /// The thread at the door is gone, and with it the socket.
    closed: bool,
}

impl Bound {
    /// Makes the socket.
    pub(crate) fn new(place: Place) -> Result<Self, Failure> {
        let socket = place.bind()?;
        Ok(Self { place, socket })
    }

    /// Begins to serve.
    pub(crate) fn serve(self, node: Served) -> io::Result<Server> {
        let Self { place, socket } = self;
        // Whoever waits holds a descriptor; the other half is for everything else.
        let descriptors = descriptors();
        let waits_max = descriptors.map_or(WAITS_MAX, |limit| (limit / 2).min(WAITS_MAX));
        let shared = Shared { node, place, waits_max, state: Mutex::new(State::default()), left: Condvar::new() };
        let shared = Arc::new(shared);
        let of_thread = Arc::clone(&shared);
        spawn("trustkeep-control", move || Door::new(of_thread, socket).serve())?;
        Ok(Server(shared))
    }
}

/// How many descriptors this process may have: as many as it is allowed to ask for, within reason.
fn descriptors() -> Option<usize> {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS_WANTED, |most| most.min(DESCRIPTORS_WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        // Where that is refused, it stays as it was.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok())
}

impl Server {
    /// Takes no more requests, and waits a moment for those that are being answered.
    pub(crate) fn close(&self, wait: Duration) {
        let deadline = Deadline::after(wait);
        self.0.state.lock().closing = true;
        // Wakes the thread at the door; where the socket is gone it wakes by itself before long.
        drop(socket::connect(&self.0.place.path, wait));
        let mut state = self.0.state.lock();
        while !state.closed || state.commands + state.requests + state.waits > 0 {
            let (guard, late) = self.0.left.wait_until(state, deadline);
            state = guard;
            if late {
                return;
            }
        }
    }
}

impl Shared {
    pub(super) fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    /// Whoever asks for the health of a store makes it tell its log of a save that hangs.
    pub(super) fn look_at_health(&self) {
        let _ = self.node.manager.store().health();
    }

    /// The thread at the door says that it leaves.
    pub(super) fn close_door(&self) {
        self.state.lock().closed = true;
        self.left.notify_one();
    }

    /// Whether this user may ask. Members of the group pass by the mode of the socket.
    pub(super) fn lets_in(&self, user: u32) -> Result<(), String> {
        let us = rustix::process::geteuid().as_raw();
        if user == us || user == 0 || self.place.group.is_some() {
            return Ok(());
        }
        Err(format!(
            "this node serves its own user, uid {us}, and root alone; see `--control-group` of `trustkeep node`"
        ))
    }

    /// Has a request answered, on a thread of its own if there is one.
    pub(super) fn begin(self: &Arc<Self>, stream: UnixStream, ask: Ask) {
        let kind = Kind::of(&ask);
        let slot = match Slot::take(self, kind) {
            Ok(slot) => slot,
            Err(message) => return refuse(&stream, message),
        };
        // Where there is no thread, this one finds the work again.
        let work = Arc::new(Mutex::new(Some((stream, ask, slot))));
        let of_thread = Arc::clone(&work);
        let do_it = move || {
            let work = of_thread.lock().take();
            if let Some((stream, ask, slot)) = work {
                slot.shared.answer(&stream, ask);
            }
        };
        if let Err(error) = spawn("trustkeep-control", do_it) {
            let work = work.lock().take();
            match work {
                Some((stream, _, _)) if kind != Kind::Command => {
                    refuse(&stream, format!("no thread to wait on: {error}"))
                }
                // A command is done all the same; who comes next waits for it.
                Some((stream, ask, slot)) => slot.shared.answer(&stream, ask),
                None => {}
            }
        }
    }

    fn answer(&self, stream: &UnixStream, ask: Ask) {
        if stream.set_nonblocking(false).is_err() {
            return;
        }
        let waits = self.state.lock().waits;
        let slice = if waits <= FEW { SLICE } else { SLICE_OF_MANY };
        let go_on = || !self.is_closing() && is_there(stream);
        let reply = if ask == Ask::Watch {
            let tell = |event| answer(stream, &Reply::Event(event), READ_WITHIN);
            watch(&self.node, &tell, &go_on, slice).err().map_or_else(
                || Reply::Failed { message: "the node is stopping".to_owned() },
                |error| Reply::Failed { message: error.to_string() },
            )
        } else {
            perform(&self.node, ask, &go_on, slice)
        };
        if let Err(error) = answer(stream, &reply, ANSWER_WITHIN) {
            tracing::debug!(%error, "a control connection went away before its answer");
        }
    }
}

/// One of the requests that are being answered; given back when its thread ends, even by a panic.
#[derive(Debug)]
struct Slot {
    shared: Arc<Shared>,
    kind: Kind,
}

/// What a request may wait for. Each kind has slots of its own, so that none keeps another from being heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// For the disk at most.
    Command,
    /// For the network.
    Request,
    /// For what may never come.
    Wait,
}

impl Kind {
    fn of(ask: &Ask) -> Self {
        match ask {
            Ask::Wait { .. } | Ask::Watch | Ask::Told { .. } => Self::Wait,
            Ask::Request { .. } => Self::Request,
            _ => Self::Command,
        }
    }
}

impl Slot {
    fn take(shared: &Arc<Shared>, kind: Kind) -> Result<Self, String> {
        let mut state = shared.state.lock();
        let (max, what) = match kind {
            Kind::Command => (COMMANDS_MAX, "commands are being done"),
            Kind::Request => (REQUESTS_MAX, "requests are being sent"),
            Kind::Wait => (shared.waits_max, "commands wait or watch"),
        };
        let taken = state.of(kind);
        if *taken >= max {
            return Err(format!("{max} {what} already; nothing was done, try again later"));
        }
        *taken += 1;
        drop(state);
        Ok(Self { shared: Arc::clone(shared), kind })
    }
}

impl State {
    const fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Command => &mut self.commands,
            Kind::Request => &mut self.requests,
            Kind::Wait => &mut self.waits,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        *state.of(self.kind) -= 1;
        drop(state);
        self.shared.left.notify_one();
    }
}

/// Whether the other end is still connected: it says nothing more, so anything to read is the end.
fn is_there(stream: &UnixStream) -> bool {
    let mut byte = [0];
    let peek = rustix::net::recv(stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(peek, Err(rustix::io::Errno::AGAIN))
}

/// Says why not, to whom it can be said at once.
pub(super) fn refuse(stream: &UnixStream, message: String) {
    let refused = stream.set_nonblocking(true).and_then(|()| {
        let mut line = serde_json::to_vec(&Reply::Failed { message })?;
        line.push(b'\n');
        (&mut &*stream).write_all(&line)
    });
    if let Err(error) = refused {
        tracing::debug!(%error, "a control connection went away before it was refused");
    }
}

fn answer(stream: &UnixStream, reply: &Reply, within: Duration) -> io::Result<()> {
    stream.set_write_timeout(Some(within))?;
    let mut out = BufWriter::new(stream);
    serde_json::to_writer(&mut out, reply)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Commands at a time that do not wait for anything but the disk; each costs a thread.
const COMMANDS_MAX: usize = 64;
/// Requests at a time that are being sent to peers, beside the commands; each costs a thread and two descriptors.
const REQUESTS_MAX: usize = 64;
/// Those that wait or watch, beside the commands; each costs a thread and a descriptor.
const WAITS_MAX: usize = 4096;
/// Nothing here looks through all that there may be, as old programs do.
const DESCRIPTORS_WANTED: u64 = 16 * 1024;
/// For each write: whoever reads nothing for so long is gone.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The same for whoever watches, perhaps through a pager that is paused.
const READ_WITHIN: Duration = Duration::from_secs(120);
/// How often a thread that waits looks whether the other end is still there.
const SLICE: Duration = Duration::from_millis(100);
/// The same where many wait; less than a node that stops waits for its last answers.
const SLICE_OF_MANY: Duration = Duration::from_millis(500);
const FEW: usize = 16;
