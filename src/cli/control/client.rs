//! The operator's end of the control socket.
#![forbid(unsafe_code)]

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Ask, Reply};
use crate::cli::Failure;
use crate::cli::home::Home;

/// Asks the node that runs in this home.
pub(crate) fn ask(home: &Home, request: &Ask) -> Result<Reply, Failure> {
    let stream = connect(home)?;
    let reply = exchange(&stream, request).map_err(|error| {
        let what = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it did not answer in time".to_owned(),
            io::ErrorKind::UnexpectedEof => "it went away without an answer".to_owned(),
            _ => error.to_string(),
        };
        Failure::hint(
            format_args!("the node in {}: {what}", home.path().display()),
            "what was asked may have been done; ask `status` and `list`",
        )
    })?;
    match reply {
        Reply::Failed { message } => Err(Failure::new(message)),
        reply => Ok(reply),
    }
}

/// Asks for something that is answered more than once; the answers can be read from what is returned.
pub(crate) fn begin(home: &Home, request: &Ask) -> Result<UnixStream, Failure> {
    let stream = connect(home)?;
    send(&stream, request).map_err(|error| Failure::new(format_args!("{}: {error}", home.control().display())))?;
    Ok(stream)
}

fn connect(home: &Home) -> Result<UnixStream, Failure> {
    let path = home.control();
    UnixStream::connect(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if !home.path().exists() => {
            Failure::hint(format_args!("{}: no such home", home.path().display()), "make one with `trustkeep init`")
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::hint(
            format_args!("no node runs in {}", home.path().display()),
            format_args!("start it with `trustkeep node --home {}`", home.path().display()),
        ),
        _ => Failure::new(format_args!("{}: {error}", path.display())),
    })
}

fn send(mut stream: &UnixStream, request: &Ask) -> io::Result<()> {
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn exchange(stream: &UnixStream, request: &Ask) -> io::Result<Reply> {
    let waits = match request {
        Ask::Wait { timeout_ms, .. } => Duration::from_millis(*timeout_ms),
        _ => Duration::ZERO,
    };
    stream.set_read_timeout(Some(waits.saturating_add(ANSWER_WITHIN)))?;
    send(stream, request)?;
    let mut answer = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut answer)?;
    if answer.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// Longer than a node takes for anything: sending, and waiting for a disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
