//! Somebody who hears everything that is not in a tunnel and says what they like, under keys of their own.
#![forbid(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "indices are drawn below the length")]

use super::people::{ATTACKER, GHOSTS, attacker, attackers, pair_of};
use super::wires::{from_host, tunnel};
use super::world::{Event, World};
use crate::machine::input::Path;
use crate::machine::view::{Nonce, PendingKind};
use crate::peer::NodeId;
use crate::testing::actor::{BEGIN_MS, node as id};
use crate::time::WallMillis;
use crate::wire::message::{Kind, Message};
use crate::wire::sign::Draft;

/// A message that somebody else sent.
#[derive(Clone, Debug)]
pub(super) struct Captured {
    pub(super) to: NodeId,
    pub(super) message: Message,
}

impl World {
    /// The attacker does one of the things that attackers do.
    pub(super) fn attack(&mut self) {
        let captured = if self.captured.is_empty() { None } else { Some(self.chance.below(self.captured.len())) };
        let captured = captured.map(|index| self.captured[index].clone());
        match (self.chance.below(13), captured) {
            (0 | 1, Some(it)) => self.inject("replayed", it.to, it.message.to_json()),
            (2, Some(it)) => {
                // For somebody else than it was meant for.
                let to = self.victim();
                self.inject("misdirected", to, it.message.to_json());
            }
            (3, Some(mut it)) => {
                let kinds = [Kind::Request, Kind::Accept, Kind::Reject, Kind::Revoke];
                it.message.kind = self.chance.pick(&kinds).map(|kind| kind.as_wire().to_owned()).unwrap_or_default();
                self.inject("re-typed", it.to, it.message.to_json());
            }
            (4, Some(mut it)) => {
                let stamp = BEGIN_MS + self.time + self.chance.between(-1000, 1000);
                it.message.stamp_ms = Some(stamp);
                it.message.timestamp = WallMillis::new(stamp).as_secs();
                self.inject("re-dated", it.to, it.message.to_json());
            }
            (5, Some(it)) => self.damage(it),
            (6, _) => self.flood(),
            (7, _) => self.forge_own(),
            (8, _) => self.name_successor(),
            _ => self.forge_captured(),
        }
    }

    fn victim(&mut self) -> NodeId {
        let index = self.chance.below(self.nodes.len());
        self.nodes[index].id
    }

    pub(super) fn inject(&mut self, how: &str, to: NodeId, bytes: Vec<u8>) {
        self.happened.note(format!("attacker: {how}"));
        // Own hosts mostly; now and then the address that a good node has, too.
        let host = if self.chance.one_in(8) { self.chance.between(1, 7) } else { self.chance.between(100, 103) };
        let path = match self.chance.below(6) {
            0 => tunnel(attacker()),
            // The attacker's own relay, which names whoever is useful.
            1 => Path::Relayed { handed_in_by: self.victim() },
            _ => from_host(u8::try_from(host).unwrap_or(0)),
        };
        let delay = self.chance.between(0, 50);
        self.at(self.time + delay, Event::Deliver { to, bytes, path });
    }

    /// Makes something of a message that no node would send.
    fn damage(&mut self, it: Captured) {
        let Captured { to, mut message } = it;
        match self.chance.below(9) {
            0 => message.public_key = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned(),
            1 => message.node_id = 0,
            2 => message.node_id = to.get(),
            3 => message.v = Some(3),
            4 => message.nonce = None,
            5 => "handshake_hello".clone_into(&mut message.kind),
            6 => message.justification.push('!'),
            7 => {
                // What is left looks like version 1, signed for version 2.
                let signature2 = message.signature2.take().unwrap_or_default();
                (message.v, message.nonce, message.answers, message.stamp_ms) = (None, None, None, None);
                message.signature = signature2;
            }
            _ => {
                let mut bytes = message.to_json();
                bytes.truncate(self.chance.below(bytes.len()));
                return self.inject("damaged", to, bytes);
            }
        }
        self.inject("damaged", to, message.to_json());
    }

    /// Requests of nodes that nobody has heard of.
    fn flood(&mut self) {
        let to = self.victim();
        for _ in 0..4 {
            let ghost = id(self.chance.pick(&GHOSTS).unwrap_or(101));
            let draft = self.draft(to, Kind::Request, None);
            let message = attackers()[0].sign(ghost, &draft);
            self.inject("flooded", to, message.to_json());
        }
    }

    /// Under the id and key that are the attacker's own.
    fn forge_own(&mut self) {
        let to = self.victim();
        let kind = self.chance.pick(&[Kind::Request, Kind::Request, Kind::Accept, Kind::Revoke]);
        let draft = self.draft(to, kind.unwrap_or(Kind::Request), None);
        self.inject("spoke for itself", to, pair_of(attacker()).sign(attacker(), &draft).to_json());
    }

    /// Answers the request with this nonce in somebody's place, straight from a host of its own.
    pub(super) fn answer_as(&mut self, of: NodeId, to: NodeId, nonce: Nonce) {
        let draft = self.draft(to, Kind::Accept, Some(nonce));
        let bytes = attackers()[0].sign(of, &draft).to_json();
        let delay = self.chance.between(10, 2000);
        self.at(self.time + delay, Event::Deliver { to, bytes, path: from_host(101) });
    }

    /// Under the id of a node and a key of the attacker's, with a nonce that it may have overheard.
    fn forge_captured(&mut self) {
        let (to, of) = (self.victim(), self.victim());
        let kinds = [Kind::Request, Kind::Accept, Kind::Accept, Kind::Reject, Kind::Revoke];
        let kind = self.chance.pick(&kinds).unwrap_or(Kind::Request);
        let node = self.nodes.iter().find(|node| node.id == to);
        let heard = node.and_then(|node| node.plain.outgoing.get(&of)).map(|outgoing| outgoing.nonce);
        let random = Nonce(self.chance.bytes());
        let answers = match kind {
            Kind::Accept | Kind::Reject => Some(if self.chance.one_in(4) { random } else { heard.unwrap_or(random) }),
            Kind::Request | Kind::Revoke => None,
        };
        let draft = self.draft(to, kind, answers);
        let which = self.chance.below(attackers().len());
        if self.chance.one_in(6) {
            return self.inject("forged in version 1", to, attackers()[which].sign_v1(of, &draft).to_json());
        }
        self.inject("forged", to, attackers()[which].sign(of, &draft).to_json());
    }

    /// With a stolen key, which its owner still uses: it names a key of the attacker's as its successor, to who trusts it.
    fn name_successor(&mut self) {
        let to = self.victim();
        let trusted = self.nodes.iter().find(|node| node.id == to).map(|node| node.plain.trusted.keys().copied());
        let trusted: Vec<NodeId> = trusted.into_iter().flatten().filter(|peer| peer.get() != ATTACKER).collect();
        let of = self.chance.pick(&trusted).unwrap_or(to);
        let which = self.chance.below(attackers().len());
        self.inject_named("named a successor with a stolen key", to, of, which);
    }

    /// The stolen key of a node names this key of the attacker's.
    pub(super) fn inject_named(&mut self, how: &str, to: NodeId, of: NodeId, which: usize) {
        let rotation = pair_of(of).signs_over_to(of, &attackers()[which]);
        let draft = self.draft(to, Kind::Request, None);
        let message = attackers()[which].sign(of, &draft).carrying(rotation.as_ref());
        self.inject(how, to, message.to_json());
    }

    pub(super) fn draft(&mut self, to: NodeId, kind: Kind, answers: Option<Nonce>) -> Draft {
        let skew = match self.chance.below(12) {
            0 => -400_000,
            1 => 60_000,
            2 => i64::MAX / 2,
            _ => self.chance.between(-1000, 1000),
        };
        let offset = self.nodes.iter().find(|node| node.id == to).map_or(0, |node| node.offset);
        let stamp = WallMillis::new(BEGIN_MS + self.time).saturating_add(offset).saturating_add(skew);
        let (justification, reason) = ("let me in\u{202e}\n".to_owned(), String::new());
        Draft { to, kind, justification, reason, nonce: Nonce(self.chance.bytes()), answers, stamp, for_key: None }
    }

    /// How many answers wait under a key that nobody vouches for: what forgers hope for.
    pub(super) fn unvouched_answers(&self) -> usize {
        let waiting = self.nodes.iter().flat_map(|node| node.plain.pending.values());
        waiting.filter(|entry| entry.kind == PendingKind::AnsweredUnvouched).count()
    }
}
