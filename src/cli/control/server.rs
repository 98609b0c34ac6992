//! The node's end of the control socket: bounded connections, one thread for each, one request for each.
#![forbid(unsafe_code)]

use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::RecvFlags;

use super::perform::{Served, perform, watch};
use super::{Ask, REQUEST_BYTES_MAX, Reply};
use crate::cli::Failure;
use crate::sync::{Arc, Condvar, Deadline, Mutex, spawn};

/// A control socket that is bound but does not serve yet.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: UnixListener,
    path: PathBuf,
}

/// A control socket that serves.
#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    path: PathBuf,
}

#[derive(Debug)]
struct Shared {
    listener: UnixListener,
    node: Served,
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    closing: bool,
}

impl Bound {
    /// Takes the socket of a home. The caller owns the home's store, so a socket that is there already has nobody
    /// behind it any more.
    pub(crate) fn new(path: &Path) -> Result<Self, Failure> {
        let fail = |error: io::Error| Failure::new(format_args!("{}: {error}", path.display()));
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => remove(path).map_err(fail)?,
            Ok(_) => {
                return Err(Failure::hint(
                    format_args!("{}: not a socket", path.display()),
                    "move it away; the node makes its control socket there",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        // There is no moment at which somebody else could connect: the mask applies as the socket is made. Whatever
        // other threads create meanwhile has no more than these rights anyway.
        let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        match bound {
            Ok(listener) => Ok(Self { listener, path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(Failure::hint(fail(error), "choose a home with a shorter path"))
            }
            Err(error) => Err(fail(error)),
        }
    }

    /// Begins to serve.
    pub(crate) fn serve(self, node: Served) -> io::Result<Server> {
        let Self { listener, path } = self;
        let shared = Shared { listener, node, state: Mutex::new(State::default()), left: Condvar::new() };
        let shared = Arc::new(shared);
        let of_thread = Arc::clone(&shared);
        spawn("trustkeep-control", move || accept(&of_thread))?;
        Ok(Server { shared, path })
    }
}

impl Server {
    /// Takes no more requests, and waits a moment for those that are being answered.
    pub(crate) fn close(&self, wait: Duration) {
        let deadline = Deadline::after(wait);
        let mut state = self.shared.state.lock();
        state.closing = true;
        drop(state);
        // On Linux this ends a blocked accept; elsewhere a connection of our own does.
        let _ = rustix::net::shutdown(&self.shared.listener, rustix::net::Shutdown::Both);
        drop(UnixStream::connect(&self.path));
        if let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control socket could not be removed");
        }
        let mut state = self.shared.state.lock();
        while state.open > 0 {
            let (guard, late) = self.shared.left.wait_until(state, deadline);
            state = guard;
            if late {
                return;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a socket is no file of a store")]
fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

fn accept(shared: &Arc<Shared>) {
    loop {
        let accepted = shared.listener.accept();
        let mut state = shared.state.lock();
        if state.closing {
            return;
        }
        match accepted {
            Ok((stream, _)) if state.open < CONNECTIONS_MAX => {
                state.open += 1;
                drop(state);
                let slot = Slot(Arc::clone(shared));
                // A thread that cannot be had gives its slot back, and the connection up.
                let _ = spawn("trustkeep-control", move || serve(&slot.0, &stream));
            }
            Ok((stream, _)) => {
                drop(state);
                let message = "too many control connections at a time; try again later".to_owned();
                let _ = answer(&stream, &Reply::Failed { message }, ANSWER_WITHIN);
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept");
                // Out of descriptors, say: there is nothing to be woken by.
                drop(shared.left.wait_until(state, Deadline::after(ACCEPT_AGAIN)));
            }
        }
    }
}

/// One of the connections that are served; given back when its thread ends, even by a panic.
struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.state.lock().open -= 1;
        self.0.left.notify_one();
    }
}

fn serve(shared: &Shared, stream: &UnixStream) {
    let go_on = || !shared.state.lock().closing && is_there(stream);
    let reply = match receive(stream) {
        Ok(Ask::Watch) => {
            let tell = |event| answer(stream, &Reply::Event(event), READ_WITHIN);
            watch(&shared.node, &tell, &go_on).err().map_or_else(
                || Reply::Failed { message: "the node is stopping".to_owned() },
                |error| Reply::Failed { message: error.to_string() },
            )
        }
        Ok(request) => perform(&shared.node, request, &go_on),
        Err(message) => Reply::Failed { message },
    };
    if let Err(error) = answer(stream, &reply, ANSWER_WITHIN) {
        tracing::debug!(%error, "a control connection went away before its answer");
    }
}

/// Whether the other end is still connected: it says nothing more, so anything to read is the end.
fn is_there(stream: &UnixStream) -> bool {
    let mut byte = [0];
    let peek = rustix::net::recv(stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(peek, Err(rustix::io::Errno::AGAIN))
}

fn receive(mut stream: &UnixStream) -> Result<Ask, String> {
    // The mode of the socket says the same, but not every system heeds it.
    let them = rustix::net::sockopt::socket_peercred(stream).map_err(|error| error.to_string())?.uid;
    let us = rustix::process::geteuid();
    if them != us {
        return Err(format!("this node serves its own user alone, uid {}", us.as_raw()));
    }
    let deadline = Deadline::after(REQUEST_WITHIN);
    let (mut line, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.remaining();
        if left.is_zero() {
            return Err("the request took too long to arrive".to_owned());
        }
        stream.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        let read = match stream.read(&mut part) {
            Ok(0) => return Err("the request ends before its newline".to_owned()),
            Ok(read) => part.get(..read).unwrap_or_default(),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => continue,
            Err(error) => return Err(error.to_string()),
        };
        let end = read.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(read.get(..end.unwrap_or(read.len())).unwrap_or_default());
        if line.len() >= REQUEST_BYTES_MAX {
            return Err(format!("a request may have {REQUEST_BYTES_MAX} bytes"));
        }
        if end.is_some() {
            return serde_json::from_slice(&line).map_err(|error| format!("not a request: {error}"));
        }
    }
}

fn answer(stream: &UnixStream, reply: &Reply, within: Duration) -> io::Result<()> {
    stream.set_write_timeout(Some(within))?;
    let mut out = BufWriter::new(stream);
    serde_json::to_writer(&mut out, reply)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Mostly those who wait; each costs a thread.
const CONNECTIONS_MAX: usize = 64;
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// For each write: whoever reads nothing for so long is gone.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The same for whoever watches, perhaps through a pager that is paused.
const READ_WITHIN: Duration = Duration::from_secs(120);
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
