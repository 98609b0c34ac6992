//! The wires between the nodes, which lose, double and delay what is sent; and one line about each step, for the story.
#![forbid(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "the number of copies is drawn below the length")]

use std::net::{IpAddr, Ipv4Addr};

use super::attacker::Captured;
use super::people::{attacker, pair_of};
use super::world::{Event, World};
use crate::machine::input::{Input, Path};
use crate::machine::outcome::Step;
use crate::machine::rejection::Rejection;
use crate::machine::view::Source;
use crate::peer::NodeId;
use crate::wire::message::{Kind, Message};

/// Straight from the host 10.0.0.`host`.
pub(super) fn from_host(host: u8) -> Path {
    let source = Source::from_address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)));
    Path::Direct { authenticated: None, source }
}

/// Straight from a node that the transport authenticates.
pub(super) fn tunnel(peer: NodeId) -> Path {
    Path::Direct { authenticated: Some(peer), source: Source::Node(peer) }
}

impl World {
    /// The network's part.
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: &Message, kind: Kind) {
        let bytes = message.to_json();
        let is_tunnel = self.tunnels.contains(&(from, to));
        if !is_tunnel {
            self.captured.push(Captured { to, message: message.clone() });
        }
        if self.lose == Some((from, kind)) {
            self.lose = None;
            return self.happened.note("message: lost on purpose");
        }
        let copies = match self.chance.below(12) {
            _ if self.calm => 1,
            0 | 1 => 0,
            2 => 2,
            _ => 1,
        };
        self.happened.note(["message: lost", "message: sent", "message: doubled"][copies]);
        for _ in 0..copies {
            let delay = match self.chance.below(16) {
                _ if self.calm => self.chance.between(1, 50),
                0 => self.chance.between(1000, 600_000),
                1..4 => self.chance.between(100, 10_000),
                _ => self.chance.between(1, 200),
            };
            let host = u8::try_from(from.get()).unwrap_or(200);
            let mut path = if is_tunnel { tunnel(from) } else { from_host(host) };
            let mut delay = delay;
            if !self.calm && kind.may_be_relayed() && self.chance.one_in(6) {
                // The peer was not reached. A relay has time, and says of whom it likes that they handed it in.
                path = Path::Relayed { handed_in_by: if self.chance.one_in(3) { attacker() } else { from } };
                delay = self.chance.between(1000, 1_200_000);
                self.happened.note("message: relayed");
            }
            self.at(self.time + delay, Event::Deliver { to, bytes: bytes.clone(), path });
        }
    }
}

pub(super) fn said(input: &Input) -> String {
    match input {
        Input::Message(it) => {
            let (message, of) = (&it.message, it.message.sender());
            let whose = if *message.key() == pair_of(of).public { "its" } else { "another" };
            let version = if message.is_version_1() { "in version 1" } else { "" };
            let (kind, stamp) = (message.kind(), message.stamp());
            format!("hears {of} under {whose} key {version} {kind:?} {stamp:?} {:?} {:?}", it.path, it.lookup)
        }
        Input::Operator(command) => format!("is told {command:?}"),
        Input::LookedUp { peer, lookup } => format!("looked up {peer}: {lookup:?}"),
        Input::Compared { peer, was, found } => {
            format!("compared {peer}: {} with {}", was.fingerprint(), found.fingerprint())
        }
        Input::Disagreement { compared, contradicted } => format!("of {compared} compared {contradicted} differ"),
        Input::Housekeeping => "keeps house".to_owned(),
        Input::OwnEntries => "looks for itself".to_owned(),
    }
}

pub(super) fn came_to(answer: &Result<Step, Rejection>) -> String {
    answer.as_ref().map_or_else(|rejection| rejection.name().to_owned(), |step| format!("{:?}", step.outcome))
}
