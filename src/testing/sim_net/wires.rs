//! The wires between the nodes, which lose, double and delay what is sent; and one line about each step, for the story.
#![forbid(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "the number of copies is drawn below the length")]

use std::net::{IpAddr, Ipv4Addr};

use super::attacker::Captured;
use super::people::{attacker, pair_of};
use super::world::{Event, World};
use crate::machine::event::{Event as Told, TrustState};
use crate::machine::input::{Input, Path};
use crate::machine::outcome::{Outcome, Step};
use crate::machine::rejection::Rejection;
use crate::machine::view::{Nonce, Source};
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
                if kind == Kind::Request
                    && let Some(node) = self.nodes.iter().position(|it| it.id == from)
                    && let Some(nonce) = self.nodes[node].plain.outgoing.get(&to).map(|outgoing| outgoing.nonce)
                {
                    let life = self.nodes[node].life;
                    let handing = Handing { to, nonce, bytes: bytes.clone(), path, delay };
                    self.at(self.time, Event::MeansToRelay { node, life, handing });
                    continue;
                }
            }
            self.at(self.time + delay, Event::Deliver { to, bytes: bytes.clone(), path });
        }
    }
}

/// A request on its way to a relay.
#[derive(Clone, Debug)]
pub(super) struct Handing {
    pub(super) to: NodeId,
    pub(super) nonce: Nonce,
    pub(super) bytes: Vec<u8>,
    pub(super) path: Path,
    pub(super) delay: i64,
}

impl World {
    /// that the relay may know the request is published first, and durable before the relay has it.
    pub(super) fn means_to_relay(&mut self, node: usize, handing: Handing) -> Result<(), String> {
        if self.step(node, Input::Relaying { peer: handing.to, nonce: handing.nonce }, None)?.is_ok() {
            let (life, generation) = (self.nodes[node].life, self.nodes[node].generation);
            self.at(self.time + 900, Event::Relays { node, life, generation, handing });
        }
        Ok(())
    }

    /// The relay has the request, if it is durable that it may. It may be one that answers itself, by another way.
    pub(super) fn relays(&mut self, node: usize, generation: u64, handing: Handing) {
        if self.nodes[node].durable < generation {
            return self.happened.note("relay: a request was not saved in time");
        }
        let Handing { to, nonce, bytes, path, delay } = handing;
        self.given.insert(nonce.0);
        if self.chance.one_in(2) {
            self.happened.note("relay: answers itself");
            self.answer_as(to, self.nodes[node].id, nonce);
        }
        self.at(self.time + delay, Event::Deliver { to, bytes, path });
    }

    /// Counts what a step came to.
    pub(super) fn note(&mut self, input: &Input, answer: &Result<Step, Rejection>) {
        let kind = if matches!(input, Input::Message(_)) { "rejected" } else { "refused" };
        let step = match answer {
            Err(rejection) => return self.happened.note(format!("{kind}: {}", rejection.name())),
            Ok(step) => step,
        };
        if let Outcome::Dropped(rejection) = step.outcome {
            self.happened.note(format!("{kind}: {}", rejection.name()));
        }
        if let Outcome::Kept { pending_expired, outgoing_expired, .. } = step.outcome {
            (0..pending_expired + outgoing_expired).for_each(|_| self.happened.note("an entry was too old"));
        }
        match step.outcome {
            Outcome::Owed { kind } => self.happened.note(format!("owed: {kind:?}")),
            Outcome::Retried { .. } if matches!(input, Input::Message(_)) => {
                self.happened.note("a refusal that was owed is told");
            }
            Outcome::Retried { kind } => self.happened.note(format!("tried again: {kind:?}")),
            Outcome::NothingOwed => self.happened.note("owed no longer"),
            Outcome::Refused => self.happened.note("a refusal"),
            Outcome::RefusedUnvouched => self.happened.note("a refusal that nobody vouches for"),
            _ => {}
        }
        if step.clamped {
            self.happened.note("a stamp moved back");
        }
        for event in &step.events {
            if matches!(event, Told::Pending { proven_by: Some(_), .. }) {
                self.happened.note("a new key waits, proven");
            }
            if let Told::TrustChanged { state, reason, .. } = event {
                let what = if *state == TrustState::Granted { "grant" } else { "loss" };
                self.happened.note(format!("{what}: {reason:?}"));
            }
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
        Input::Relaying { peer, .. } => format!("gives its request to {peer} to a relay"),
        Input::Stopping => "stops".to_owned(),
        Input::Retry { peer, what, .. } => format!("tries its {what:?} to {peer} again"),
        Input::Announce { peer, .. } => format!("tells {peer} of its new key"),
        Input::Delivered { peer, kind, .. } => format!("has told {peer} {kind:?}"),
        Input::Undelivered { draft } => format!("could not send {:?} to {}", draft.kind, draft.to),
        Input::Housekeeping => "keeps house".to_owned(),
        Input::OwnEntries => "looks for itself".to_owned(),
    }
}

pub(super) fn came_to(answer: &Result<Step, Rejection>) -> String {
    answer.as_ref().map_or_else(|rejection| rejection.name().to_owned(), |step| format!("{:?}", step.outcome))
}
