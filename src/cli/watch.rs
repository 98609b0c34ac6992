//! `watch`: tells what happens at a running node, for as long as somebody wants to know.
#![forbid(unsafe_code)]

use std::io::{self, BufRead as _, BufReader};
use std::net::Shutdown;
use std::time::Duration;

use super::control::client::begin;
use super::control::{Ask, Reply};
use super::home::Home;
use super::signals::{ending, unwatched};
use super::{Answer, Failure, print};
use crate::peer::NodeId;
use crate::sync::{Arc, Deadline, Mutex, spawn};

/// Prints each event as it comes; `No` if fewer came than were wanted. Where a number was wanted that is the answer, and
/// events count though nobody reads of them any more; else there is nothing to go on for then.
pub(super) fn watch(
    home: &Home,
    peers: &[NodeId],
    count: Option<u64>,
    timeout: Option<Duration>,
    json: bool,
) -> Result<Answer, Failure> {
    let deadline = timeout.map_or(Deadline::NEVER, Deadline::after);
    let stream = begin(home, &Ask::Watch)?;
    let told_to_stop = Arc::new(Mutex::new(false));
    stop_on_signal(stream.try_clone().map_err(Failure::new)?, Arc::clone(&told_to_stop))?;
    let enough = if count.is_none() { Answer::Printed } else { Answer::Yes };
    let went_away = || Failure::hint(format_args!("the node in {} went away", home.path().display()), "see its log");
    let (mut lines, mut seen) = (BufReader::new(&stream), 0);
    let mut line = Vec::new();
    while count.is_none_or(|count| seen < count) {
        let left = deadline.remaining();
        let read = if left.is_zero() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            // What was read of a line so far stays in `line`.
            let within = if timeout.is_some() { Some(left) } else { None };
            stream.set_read_timeout(within).and_then(|()| lines.read_until(b'\n', &mut line))
        };
        if *told_to_stop.lock() {
            return Ok(enough);
        }
        match read {
            Ok(_) if line.ends_with(b"\n") => {}
            Ok(_) => return Err(went_away()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if deadline.remaining().is_zero() {
                    // Without a number, watching for so long was all that was asked.
                    return Ok(if count.is_none() { enough } else { Answer::No });
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::new(error)),
        }
        match serde_json::from_slice(&line) {
            Ok(Reply::Event(event)) if !event.is_about_any(peers) => {}
            Ok(Reply::Event(event)) => {
                seen += u64::from(event.is_event());
                if json {
                    print::json(&event)?;
                } else {
                    print::to_stdout(|out| writeln!(out, "{event}"))?;
                }
                if count.is_none() && print::broken().is_some() {
                    return Ok(enough);
                }
            }
            Ok(Reply::Failed { message }) => return Err(Failure::new(print::printable(&message))),
            _ => {
                return Err(Failure::hint(
                    "the node told something else than an event",
                    "does it run the same release?",
                ));
            }
        }
        line.clear();
    }
    Ok(enough)
}

/// Ends the reading when somebody has seen enough; and the process, if the printing is stuck.
#[expect(clippy::disallowed_methods, reason = "nothing is there to be woken by: the process ends first")]
fn stop_on_signal(stream: std::os::unix::net::UnixStream, told: Arc<Mutex<bool>>) -> Result<(), Failure> {
    let mut signals = ending()?;
    let watching = spawn("trustkeep-signals", move || {
        if signals.forever().next().is_some() {
            *told.lock() = true;
            // Not connected any more: then the reading has ended already.
            let _ = stream.shutdown(Shutdown::Both);
            std::thread::sleep(PRINT_WAIT);
            std::process::exit(0);
        }
    });
    watching.map(drop).map_err(unwatched)
}

/// For the line that is being printed when the watch is told to stop.
const PRINT_WAIT: Duration = Duration::from_secs(1);
