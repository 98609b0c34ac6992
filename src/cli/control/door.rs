//! The thread that hears requests: it accepts connections, reads from all of them at once, and sees to it that the socket
//! stays where commands look for it.
//!
//! What must hold: nobody who says nothing, or says it slowly, keeps another from being heard; nothing here waits for a
//! disk or a peer.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::server::{Shared, refuse};
use super::socket::{Listening, Standing, user_of};
use super::{Ask, REQUEST_BYTES_MAX};
use crate::sync::{Arc, Deadline};

/// The thread at the door.
#[derive(Debug)]
pub(super) struct Door {
    shared: Arc<Shared>,
    socket: Listening,
    /// In the order in which they came.
    callers: VecDeque<Caller>,
    /// No connection is accepted before.
    accept_again: Option<Deadline>,
    look_again: Deadline,
    /// Not told again before.
    tell_again: Option<Deadline>,
}

/// A connection whose request has not been heard to its end.
#[derive(Debug)]
struct Caller {
    stream: UnixStream,
    line: Vec<u8>,
    until: Deadline,
    /// Why it is refused, whatever it asks.
    refused: Option<String>,
}

/// What was heard of a request.
#[derive(Debug)]
enum Heard {
    Part,
    Whole(Result<Ask, String>),
    Gone,
}

impl Door {
    pub(super) fn new(shared: Arc<Shared>, socket: Listening) -> Self {
        let (callers, look_again) = (VecDeque::new(), Deadline::after(LOOK_AGAIN));
        Self { shared, socket, callers, accept_again: None, look_again, tell_again: None }
    }

    /// Serves until the node stops.
    pub(super) fn serve(mut self) {
        loop {
            let ready = self.wait();
            if self.shared.is_closing() {
                break;
            }
            if self.look_again.remaining().is_zero() {
                self.look();
            }
            self.hear(&ready);
            self.accept();
        }
        if let Err(error) = self.shared.place.remove(&self.socket) {
            tracing::warn!(path = %self.shared.place.path.display(), %error, "the control socket could not be removed");
        }
        self.shared.close_door();
    }

    /// Waits until somebody connects, says something or has taken too long; which of the callers have something to say.
    fn wait(&mut self) -> Vec<bool> {
        self.accept_again = self.accept_again.filter(|again| !again.remaining().is_zero());
        let deadlines = self.callers.iter().map(|caller| caller.until).chain(self.accept_again);
        let left = deadlines.map(Deadline::remaining).chain([self.look_again.remaining()]).min();
        let timeout = Timespec::try_from(left.unwrap_or(LOOK_AGAIN)).unwrap_or_default();
        let of_callers = self.callers.iter().map(|caller| PollFd::new(&caller.stream, PollFlags::IN));
        let mut of_all: Vec<PollFd<'_>> = of_callers.collect();
        if self.accept_again.is_none() {
            of_all.push(PollFd::new(&self.socket.listener, PollFlags::IN));
        }
        match poll(&mut of_all, Some(&timeout)) {
            Ok(_) => of_all.iter().take(self.callers.len()).map(|fd| !fd.revents().is_empty()).collect(),
            // Interrupted, say.
            Err(_) => Vec::new(),
        }
    }

    /// Makes the socket anew if somebody has removed it; has the log told of a save that hangs, though nobody waits for it.
    fn look(&mut self) {
        self.look_again = Deadline::after(LOOK_AGAIN);
        self.shared.look_at_health();
        let path = self.shared.place.path.clone();
        let path = path.display();
        match self.shared.place.standing(&self.socket) {
            Standing::Ours => {}
            Standing::Nothing => match self.shared.place.make() {
                Ok(socket) => {
                    self.socket = socket;
                    tracing::warn!(%path, "the control socket was removed, and is there again");
                }
                Err(error) if self.may_tell() => {
                    tracing::warn!(%path, %error, "the control socket was removed, and cannot be made again");
                }
                Err(_) => {}
            },
            Standing::Other if self.may_tell() => {
                tracing::warn!(%path, "something else stands where the control socket was; move it away");
            }
            Standing::Other => {}
        }
    }

    fn may_tell(&mut self) -> bool {
        let may = self.tell_again.is_none_or(|again| again.remaining().is_zero());
        if may {
            self.tell_again = Some(Deadline::after(TELL_AGAIN));
        }
        may
    }

    /// Reads what there is, and has those answered who have said all.
    fn hear(&mut self, ready: &[bool]) {
        let mut rest = VecDeque::with_capacity(self.callers.len());
        let mut ready = ready.iter();
        for mut caller in core::mem::take(&mut self.callers) {
            let heard = if ready.next().copied().unwrap_or_default() { caller.read() } else { Heard::Part };
            match heard {
                Heard::Part if caller.until.remaining().is_zero() => {
                    refuse(&caller.stream, "the request took too long to arrive".to_owned());
                }
                Heard::Part => rest.push_back(caller),
                Heard::Whole(ask) => match caller.refused.map_or(ask, Err) {
                    Ok(ask) => self.shared.begin(caller.stream, ask),
                    Err(message) => refuse(&caller.stream, message),
                },
                Heard::Gone => {}
            }
        }
        self.callers = rest;
    }

    /// Takes everybody who has connected. Where there is no room for more, those who came first and have not said what they
    /// want have to go.
    fn accept(&mut self) {
        if self.accept_again.is_some() {
            return;
        }
        for _ in 0..CALLERS_MAX {
            match self.socket.listener.accept() {
                Ok((stream, _)) => {
                    let user = stream.set_nonblocking(true).and_then(|()| user_of(&stream));
                    let refused =
                        user.map_err(|error| error.to_string()).and_then(|user| self.shared.lets_in(user)).err();
                    let until = Deadline::after(REQUEST_WITHIN);
                    self.callers.push_back(Caller { stream, line: Vec::new(), until, refused });
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock) => break,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(error) => {
                    // Out of descriptors, say.
                    if self.may_tell() {
                        tracing::warn!(%error, "the control socket cannot accept");
                    }
                    self.accept_again = Some(Deadline::after(ACCEPT_AGAIN));
                    if let Some(caller) = self.callers.pop_front() {
                        refuse(&caller.stream, "the node has no descriptors left".to_owned());
                    }
                    break;
                }
            }
            while self.callers.len() > CALLERS_MAX {
                if let Some(caller) = self.callers.pop_front() {
                    refuse(&caller.stream, "too many connections that ask for nothing".to_owned());
                }
            }
        }
    }
}

impl Caller {
    /// Reads what there is.
    fn read(&mut self) -> Heard {
        let mut part = [0; 4096];
        loop {
            let read = match self.stream.read(&mut part) {
                Ok(0) => return Heard::Whole(Err("the request ends before its newline".to_owned())),
                Ok(read) => part.get(..read).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Part,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Heard::Gone,
            };
            let end = read.iter().position(|byte| *byte == b'\n');
            self.line.extend_from_slice(read.get(..end.unwrap_or(read.len())).unwrap_or_default());
            if self.line.len() >= REQUEST_BYTES_MAX {
                return Heard::Whole(Err(format!("a request may have {REQUEST_BYTES_MAX} bytes")));
            }
            if end.is_some() {
                return Heard::Whole(
                    serde_json::from_slice(&self.line).map_err(|error| format!("not a request: {error}")),
                );
            }
        }
    }
}

/// Connections that have not said what they want.
const CALLERS_MAX: usize = 64;
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How often the thread looks whether the socket is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// What cannot be helped is told once in a while.
const TELL_AGAIN: Duration = Duration::from_secs(60);
