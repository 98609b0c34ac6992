//! The operator's end of the control socket.
//!
//! What must hold: nothing is asked of a process of another user's; a refusal is told as the node said it; *may have been
//! done* is said only of what the node has heard to its end.
#![forbid(unsafe_code)]

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Ask, Reply, socket};
use crate::cli::holder::{self, Holder};
use crate::cli::home::Home;
use crate::cli::{Failure, print};
use crate::sync::Deadline;

/// Asks the node that runs in this home.
pub(crate) fn ask(home: &Home, request: &Ask) -> Result<Reply, Failure> {
    match ask_for_any(home, request)? {
        Reply::Failed { message } => Err(Failure::new(message)),
        reply => Ok(reply),
    }
}

/// The same; that it was not done is an answer, too.
pub(crate) fn ask_for_any(home: &Home, request: &Ask) -> Result<Reply, Failure> {
    let stream = connect(home)?;
    let waits = match request {
        Ask::Wait { timeout_ms, .. } => Duration::from_millis(*timeout_ms),
        _ => Duration::ZERO,
    };
    let sent = send(&stream, request);
    // A node that refuses may close before it has heard all: what it says is read all the same.
    match (receive(&stream, waits.saturating_add(ANSWER_WITHIN)), sent) {
        (Ok(mut reply), _) => {
            match &mut reply {
                // The node knows only its number in its own PID namespace.
                Reply::Status(status) => status.pid = socket::process_of(&stream),
                Reply::Failed { message } => *message = print::with_place(message),
                _ => {}
            }
            Ok(reply)
        }
        (Err(_), Err(error)) => Err(unheard(home, &error)),
        (Err(error), Ok(())) => {
            let what = match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it did not answer in time".to_owned(),
                io::ErrorKind::UnexpectedEof => "it went away without an answer".to_owned(),
                _ => error.to_string(),
            };
            Err(Failure::hint(
                format_args!("the node at {}: {what}", home.control().display()),
                "what was asked may have been done; ask `status` and `list`",
            ))
        }
    }
}

/// Asks for something that is answered more than once; the answers can be read from what is returned.
pub(crate) fn begin(home: &Home, request: &Ask) -> Result<UnixStream, Failure> {
    let stream = connect(home)?;
    match send(&stream, request) {
        Ok(()) => Ok(stream),
        Err(error) => match receive(&stream, ANSWER_WITHIN) {
            Ok(Reply::Failed { message }) => Err(Failure::new(print::with_place(&message))),
            _ => Err(unheard(home, &error)),
        },
    }
}

fn unheard(home: &Home, error: &io::Error) -> Failure {
    Failure::hint(
        format_args!("the node at {} did not hear it: {error}", home.control().display()),
        "nothing was done; try again",
    )
}

/// Connects. A node whose socket was removed makes it again, so for as long as a process holds the store this waits a while.
fn connect(home: &Home) -> Result<UnixStream, Failure> {
    let path = home.control();
    let comes_back = Deadline::after(COMES_BACK_WITHIN);
    loop {
        let error = match socket::connect(&path, CONNECT_WITHIN) {
            Ok(stream) => return is_believed(&stream, home).map(|()| stream),
            Err(error) => error,
        };
        let is_missing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
        let holder = if is_missing { holder::of(&home.store()) } else { None };
        if holder.is_none() || comes_back.has_passed() {
            return Err(not_there(home, &path, &error, holder));
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "a socket that is made tells nobody")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// Why there is no connection, and what to do.
fn not_there(home: &Home, socket: &Path, error: &io::Error, holder: Option<Holder>) -> Failure {
    let (path, socket) = (home.path().display(), socket.display());
    let started_elsewhere = "if it is a node that was started with `--control PATH`, give this command the same";
    match (error.kind(), holder) {
        (_, Some(Holder::Process(pid))) => Failure::hint(
            format_args!("process {pid} holds the store of {path}, and does not serve {socket}"),
            started_elsewhere,
        ),
        (_, Some(Holder::Unnamed)) => Failure::hint(
            format_args!("a process elsewhere holds the store of {path}, and does not serve {socket}"),
            started_elsewhere,
        ),
        (io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, None) if home.is_elsewhere() => {
            let place = print::place_options();
            let home = if place.contains("--home ") { "" } else { "--home HOME " };
            let how = format!("start it with `trustkeep node {home}{place}`");
            Failure::hint(format_args!("no node serves {socket}"), how)
        }
        (io::ErrorKind::NotFound, None) if !home.path().exists() => {
            let shell = print::shell(home.path());
            Failure::hint(
                format_args!("{path}: no such home"),
                format_args!("make one with `trustkeep init --home {shell}`"),
            )
        }
        (io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory, None) => {
            home.not_running()
        }
        (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, None) => Failure::hint(
            format_args!("{socket}: the node accepts nobody"),
            "was it stopped by a signal or a debugger?",
        ),
        (io::ErrorKind::PermissionDenied, None) => Failure::hint(
            format_args!("{socket}: {error}"),
            "be the node's user or root, or start the node with `--control PATH --control-group GROUP`",
        ),
        _ => Failure::new(format_args!("{socket}: {error}")),
    }
}

/// Whether the process behind the socket is one that this user may believe: its own, root's, or of whom the directory is
/// that the operator named with `--control` or that root looks into.
fn is_believed(stream: &UnixStream, home: &Home) -> Result<(), Failure> {
    let path = home.control();
    let user = socket::user_of(stream).map_err(|error| Failure::new(format_args!("{}: {error}", path.display())))?;
    let us = rustix::process::geteuid().as_raw();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_owner = || std::fs::metadata(parent).is_ok_and(|found| found.uid() == user);
    if user == us || user == 0 || ((us == 0 || home.is_elsewhere()) && is_owner()) {
        return Ok(());
    }
    Err(Failure::hint(
        format_args!("{}: the process behind it is user {user}'s, neither ours nor root's", path.display()),
        "nothing was asked of it; find out who put it there",
    ))
}

fn send(mut stream: &UnixStream, request: &Ask) -> io::Result<()> {
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn receive(stream: &UnixStream, within: Duration) -> io::Result<Reply> {
    let until = Deadline::after(within);
    let (mut lines, mut answer, mut was_stopped) = (BufReader::new(stream), Vec::new(), None);
    loop {
        stream.set_read_timeout(Some(until.remaining().clamp(Duration::from_millis(1), LOOK_AGAIN)))?;
        // What was read of a line so far stays in `answer`.
        match lines.read_until(b'\n', &mut answer) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                let is_stopped = socket::stopped_process(stream);
                if let (Some(pid), true) = (is_stopped, is_stopped == was_stopped) {
                    return Err(io::Error::other(format!(
                        "process {pid} is stopped, by a signal or a debugger, and answers nobody until it goes on \
                         (`kill -CONT {pid}`)"
                    )));
                }
                was_stopped = is_stopped;
                if until.has_passed() {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    if answer.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// Longer than a node takes for anything: sending, and waiting for a disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether the node is stopped, while it does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// A node accepts at once.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Longer than a node takes to make its socket again.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(4);
