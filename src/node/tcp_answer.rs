//! Answers over the connection of the message that they answer: connections that a receiver holds open, and connections over
//! which a sender waits for one.
//!
//! What must hold: held connections are bounded in all and of each source, and each is open for a bounded time. None has a
//! thread, a slot of a connection that is received, or the right to handle a message. When there are too many the oldest is
//! closed. What comes back is one message of bounded size. It proves nothing about who sent it.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use super::tcp::TcpConfig;
use super::transport::Reply;
use crate::config::MESSAGE_BYTES_MAX;
use crate::machine::view::Source;
use crate::peer::NodeId;
use crate::sync::Deadline;

/// Connections that are held open for an answer, the oldest first.
pub(crate) struct Held {
    entries: VecDeque<Entry>,
    next: u64,
    held_max: usize,
    per_source_max: usize,
}

/// A connection that was received whole, and whose sender may still read.
pub(crate) struct Caller {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
}

struct Entry {
    number: u64,
    source: Source,
    caller: Caller,
    until: Deadline,
    /// A [`Reply`] is open as long as this is there.
    open: Arc<()>,
}

impl Held {
    pub(crate) fn new(config: &TcpConfig) -> Self {
        let (held_max, per_source_max) = (config.held_max, config.held_per_source_max);
        Self { entries: VecDeque::new(), next: 0, held_max, per_source_max }
    }

    /// The number of connections that are held.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Holds a connection. What had to give way is closed when the second part of the answer is dropped.
    pub(crate) fn keep(&mut self, caller: Caller, until: Deadline) -> (Option<Reply>, Option<Caller>) {
        if self.held_max == 0 || self.per_source_max == 0 {
            return (None, Some(caller));
        }
        let source = Source::from_address(caller.address.ip());
        let same = self.entries.iter().filter(|entry| entry.source == source).count();
        let gives_way = if same >= self.per_source_max {
            self.entries.iter().position(|entry| entry.source == source)
        } else if self.entries.len() >= self.held_max {
            Some(0)
        } else {
            None
        };
        let victim = gives_way.and_then(|at| self.entries.remove(at)).map(|entry| entry.caller);
        let (number, open) = (self.next, Arc::new(()));
        self.next += 1;
        let reply = Reply::new(number, &open);
        self.entries.push_back(Entry { number, source, caller, until, open });
        (Some(reply), victim)
    }

    /// The connection that this reply stands for, if it is still held.
    pub(crate) fn take(&mut self, reply: &Reply) -> Option<Caller> {
        let is_it = |entry: &Entry| *reply == Reply::new(entry.number, &entry.open) && !entry.until.has_passed();
        let at = self.entries.iter().position(is_it)?;
        self.entries.remove(at).map(|entry| entry.caller)
    }

    /// When the next connection has been held for long enough.
    pub(crate) fn next_end(&self) -> Option<Deadline> {
        // Each is held for the same time, so the oldest is the first.
        self.entries.front().map(|entry| entry.until)
    }

    /// Those that were held for long enough. They are closed when the answer is dropped.
    pub(crate) fn take_late(&mut self) -> Vec<Caller> {
        let late = self.entries.iter().take_while(|entry| entry.until.has_passed()).count();
        self.entries.drain(..late).map(|entry| entry.caller).collect()
    }

    pub(crate) fn take_all(&mut self) -> Vec<Caller> {
        self.entries.drain(..).map(|entry| entry.caller).collect()
    }
}

/// A connection of ours whose message counts as sent, and over which one answer may still come.
pub(crate) struct Listening {
    /// Who was dialled. That says nothing about who answers.
    pub(crate) peer: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) stream: TcpStream,
    pub(crate) until: Deadline,
    bytes: Vec<u8>,
}

/// What became of an answer.
pub(crate) enum Heard {
    /// Not all of it came yet.
    Waiting,
    /// The other side closed behind these bytes.
    Whole(Vec<u8>),
    /// Nothing more can come, or too much came.
    Nothing,
}

impl Listening {
    pub(crate) fn new(peer: NodeId, address: SocketAddr, stream: TcpStream, until: Deadline, first: &[u8]) -> Self {
        Self { peer, address, stream, until, bytes: first.to_vec() }
    }

    /// Reads what is there, a bounded part of it before the other connections have their turn.
    pub(crate) fn advance(&mut self) -> Heard {
        let mut chunk = [0; 4096];
        for _ in 0..READS_MAX {
            match (&self.stream).read(&mut chunk) {
                Ok(0) => return self.whole(),
                Ok(count) if self.bytes.len() + count > ANSWER_BYTES_MAX => return Heard::Nothing,
                Ok(count) => self.bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Waiting,
                Err(_) => return Heard::Nothing,
            }
        }
        Heard::Waiting
    }

    fn whole(&mut self) -> Heard {
        let bytes = std::mem::take(&mut self.bytes);
        let bytes = bytes.strip_prefix(TAKEN).map(<[u8]>::to_vec).unwrap_or(bytes);
        if bytes.is_empty() { Heard::Nothing } else { Heard::Whole(bytes) }
    }
}

/// What a receiver that holds a connection writes at once: the message was taken whole. It is whitespace before an answer.
pub(crate) const TAKEN: &[u8] = b"\n";
const ANSWER_BYTES_MAX: usize = MESSAGE_BYTES_MAX + TAKEN.len();
const READS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
    use std::time::Duration;

    fn caller(ip: impl Into<std::net::IpAddr>) -> Caller {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Caller { stream, address: SocketAddr::new(ip.into(), 1) }
    }

    fn held(held_max: usize, per_source_max: usize) -> Held {
        let config = TcpConfig { held_max, held_per_source_max: per_source_max, ..TcpConfig::default() };
        Held::new(&config)
    }

    fn four(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, host)
    }

    #[test]
    fn sixty_four_connections_are_held_and_two_of_a_source_and_the_oldest_gives_way() {
        let mut held = Held::new(&TcpConfig::default());
        let mut keep = |host: u8, gives_way: bool| {
            let (reply, victim) = held.keep(caller(four(host)), Deadline::NEVER);
            assert_eq!(victim.is_some(), gives_way, "{host}");
            reply.unwrap()
        };
        let replies: Vec<_> = (0..64).map(|at| keep(at / 2, false)).collect();
        assert!(replies.iter().all(Reply::is_open));
        let third = keep(5, true);
        assert!(!replies[10].is_open() && replies[11].is_open() && third.is_open(), "the oldest of its source");
        let another = keep(100, true);
        assert!(!replies[0].is_open() && replies[1].is_open() && another.is_open(), "the oldest of all");
        assert_eq!(held.len(), 64);
        assert!(held.take(&replies[0]).is_none() && held.take(&another).is_some());
        assert!(held.take(&another).is_none() && !another.is_open(), "each is good for one answer");
    }

    #[test]
    fn of_ipv6_the_network_half_is_the_source() {
        let (mut held, six) = (held(8, 2), |net, host| Ipv6Addr::new(0x2001, 0xdb8, 0, net, 0, 0, 0, host));
        let replies =
            [six(1, 1), six(1, 2), six(2, 1), six(1, 3)].map(|ip| held.keep(caller(ip), Deadline::NEVER).0.unwrap());
        assert_eq!(replies.each_ref().map(Reply::is_open), [false, true, true, true]);
    }

    #[test]
    fn a_held_connection_ends_with_its_time_and_none_is_held_where_none_may_be() {
        let mut late = held(8, 2);
        let (reply, _) = late.keep(caller(four(1)), Deadline::after(Duration::ZERO));
        let (kept, _) = late.keep(caller(four(2)), Deadline::NEVER);
        assert!(late.take(&reply.clone().unwrap()).is_none(), "late, though nobody has looked yet");
        assert_eq!((late.take_late().len(), late.len()), (1, 1));
        assert!(!reply.unwrap().is_open() && kept.clone().unwrap().is_open());
        assert!(late.take(&kept.unwrap()).is_some());
        for (held_max, per_source_max) in [(0, 2), (8, 0)] {
            let (reply, closed) = held(held_max, per_source_max).keep(caller(four(1)), Deadline::NEVER);
            assert!(reply.is_none() && closed.is_some());
        }
    }
}
