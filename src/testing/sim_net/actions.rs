//! What happens while the faults last: operators, clocks, crashes and attackers, drawn by lot.
#![forbid(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "nodes are numbered from 0 and none is ever taken away")]

use super::node::Knows;
use super::people::{ATTACKER, GHOSTS, attackers, pair_of};
use super::wires::from_host;
use super::world::{Event, World};
use crate::machine::deliver::Retried;
use crate::machine::input::{Command, Input, LookedAt, Lookup, PeerOrKey};
use crate::machine::view::{Nonce, RevocationId, View as _};
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::testing::actor::{BEGIN_MS, node as id};
use crate::wire::message::Kind;
use crate::wire::sign::Draft;

impl World {
    /// The whole life of a network.
    pub(super) fn live(&mut self) -> Result<(), String> {
        self.happened.note("networks");
        for _ in 0..STEPS {
            let pause = match self.chance.below(20) {
                0 => self.chance.between(30_000, 600_000),
                1..5 => self.chance.between(1000, 30_000),
                5..9 => self.chance.between(100, 3000),
                _ => self.chance.between(0, 200),
            };
            self.pass(pause)?;
            self.something_happens()?;
        }
        let unvouched = self.unvouched_answers();
        (0..unvouched).for_each(|_| self.happened.note("an answer waits unvouched"));
        self.make_peace()
    }

    fn something_happens(&mut self) -> Result<(), String> {
        let node = self.chance.below(self.nodes.len());
        match self.chance.below(44) {
            0..9 if self.nodes[node].is_up => self.operator_asks(node),
            9..15 if self.nodes[node].is_up => self.operator_approves(node),
            15 | 16 if self.nodes[node].is_up => self.operator_refuses(node),
            17..20 if self.nodes[node].is_up => self.operator_revokes(node),
            20..24 => {
                self.clock_jumps(node);
                Ok(())
            }
            24 | 25 => self.node_stops(node),
            27 => self.operator_knows_better(node),
            40 | 41 if self.nodes[node].is_up => self.operator_marks(node),
            42 | 43 if self.nodes[node].is_up => self.thief_visits(node),
            28..31 => {
                self.old_release_speaks(node);
                Ok(())
            }
            31..34 => {
                let refused = self.chance.one_in(2).then(|| self.refused_in_vain()).flatten();
                self.node_tries_again(refused.unwrap_or(node), refused.is_some())
            }
            34 if self.nodes[node].is_up => self.node_announces(node),
            26 => {
                let peer = self.somebody(node);
                self.registry_learns(node, peer);
                Ok(())
            }
            _ => {
                self.attack();
                Ok(())
            }
        }
    }

    /// Something changes in what a node's registry knows of a peer, if it has one.
    pub(super) fn registry_learns(&mut self, node: usize, peer: NodeId) {
        let wrong = attackers()[0].public;
        let knows = match self.chance.below(8) {
            0..3 => Knows::Right,
            3..6 => Knows::Nothing,
            6 if !self.honest => Knows::Wrong(wrong),
            _ => Knows::Fails,
        };
        if let Some(registry) = &mut self.nodes[node].registry {
            registry.insert(peer, knows);
        }
    }

    /// Another node mostly; now and then somebody who is none, or the node itself.
    fn somebody(&mut self, node: usize) -> NodeId {
        let others: Vec<NodeId> = self.nodes.iter().map(|it| it.id).filter(|it| *it != self.nodes[node].id).collect();
        match self.chance.below(12) {
            0 => id(ATTACKER),
            1 => id(self.chance.pick(&GHOSTS).unwrap_or(ATTACKER)),
            2 if self.chance.one_in(3) => self.nodes[node].id,
            _ => self.chance.pick(&others).unwrap_or(id(ATTACKER)),
        }
    }

    fn operator_asks(&mut self, node: usize) -> Result<(), String> {
        let peer = self.somebody(node);
        let expected_key = match self.chance.below(6) {
            0 | 1 => Some(pair_of(peer).public),
            2 if !self.honest => Some(attackers()[0].public),
            _ => None,
        };
        let (force, automatic) = (self.chance.one_in(4), self.chance.one_in(4));
        let lift = self.perhaps_shown(node, peer, expected_key);
        self.ask_lifting(node, peer, expected_key, (force, automatic), lift)
    }

    /// Asks with a lift of whatever mark there is.
    pub(super) fn ask(
        &mut self,
        node: usize,
        peer: NodeId,
        expected_key: Option<PublicKey>,
        force: bool,
        automatic: bool,
    ) -> Result<(), String> {
        let lift = self.shown(node, peer, expected_key);
        self.ask_lifting(node, peer, expected_key, (force, automatic), lift)
    }

    fn ask_lifting(
        &mut self,
        node: usize,
        peer: NodeId,
        expected_key: Option<PublicKey>,
        (force, automatic): (bool, bool),
        lift: Option<RevocationId>,
    ) -> Result<(), String> {
        let nonce = Nonce(self.chance.bytes());
        let justification = "weather feed".into();
        // a registry that names the peer's own key, or another.
        let registered = match nonce.0[0] % 16 {
            0 | 1 => Some(pair_of(peer).public),
            2 if !self.honest => Some(attackers()[0].public),
            _ => None,
        };
        let command = Command::Request { peer, justification, expected_key, registered, nonce, force, automatic, lift };
        self.step(node, Input::Operator(command), None).map(drop)
    }

    /// The mark in force, as an operator is shown it.
    pub(super) fn shown(&self, node: usize, peer: NodeId, key: Option<PublicKey>) -> Option<RevocationId> {
        let plain = &self.nodes[node].plain;
        plain.revoked(peer).or_else(|| plain.revoked_key(&key?)).map(|mark| mark.id)
    }

    /// The same, unless the operator does not look, or remembers a revocation that is no more.
    fn perhaps_shown(&mut self, node: usize, peer: NodeId, key: Option<PublicKey>) -> Option<RevocationId> {
        match self.chance.below(6) {
            0 => None,
            1 => Some(RevocationId::new(7)),
            _ => self.shown(node, peer, key),
        }
    }

    /// Marks a key of an attacker's, or takes its mark away, or ignores a stranger: what no node needs for its peace.
    fn operator_marks(&mut self, node: usize) -> Result<(), String> {
        let pairs = attackers();
        let key = pairs[self.chance.below(pairs.len())].public;
        let stranger = id(self.chance.pick(&GHOSTS).unwrap_or(ATTACKER));
        let of = if self.chance.one_in(2) { PeerOrKey::Key(key) } else { PeerOrKey::Peer(stranger) };
        let nonce = Nonce(self.chance.bytes());
        let command = match self.chance.below(8) {
            0 => Command::ForgetRevocation { of },
            1 => Command::Ignore { of },
            2 | 3 => Command::Unignore { of },
            4 => Command::Remove { peer: self.somebody(node) },
            _ => Command::RevokeKey { key, nonce },
        };
        let marks = matches!(command, Command::RevokeKey { .. });
        self.step(node, Input::Operator(command), None).map(drop)?;
        let under = self.nodes[node].plain.concerned_by(&key);
        // Now and then a crash, or a message, comes before the search is over.
        for peer in under.into_iter().filter(|_| marks) {
            let nonce = Nonce(self.chance.bytes());
            self.step(node, Input::Operator(Command::EndUnderKey { peer, key, nonce }), None).map(drop)?;
        }
        Ok(())
    }

    /// Approves somebody who waits, by a fingerprint from elsewhere, by a wrong one, or by what is shown.
    fn operator_approves(&mut self, node: usize) -> Result<(), String> {
        let waiting: Vec<NodeId> = self.nodes[node].plain.pending.keys().copied().collect();
        let peer = match self.chance.pick(&waiting) {
            Some(peer) if !self.chance.one_in(6) => peer,
            _ => self.somebody(node),
        };
        let looked_at = self.nodes[node].plain.pending.get(&peer).cloned();
        let (shown, right) = (looked_at.as_ref().map(|it| it.key), pair_of(peer).public);
        let (meant, fingerprint) = match self.chance.below(12) {
            0..3 => (Some(right), Some(right.fingerprint())),
            // A fingerprint that was read somewhere else: of a key that is nobody's here.
            3 | 4 => (None, Some(pair_of(id(1)).public.fingerprint())),
            _ if self.honest && shown.is_some_and(|key| key != right) => (Some(right), Some(right.fingerprint())),
            5..10 => (shown, shown.map(|key| key.fingerprint())),
            10 if !self.honest => {
                let keys: Vec<_> = looked_at.iter().flat_map(|it| it.keys()).map(|it| it.key).collect();
                let any = self.chance.pick(&keys);
                (any, any.map(|key| key.fingerprint()))
            }
            // Without looking.
            _ => (shown, None),
        };
        let entry = match self.chance.below(12) {
            0..4 => looked_at.map(|it| it.number),
            4 => Some(u64::from_le_bytes([1; 8])),
            _ => None,
        };
        // Somebody's first fingerprint may be the right one after all.
        let meant = meant.or_else(|| (peer == id(1)).then_some(right));
        let (nonce, lift) = (Nonce(self.chance.bytes()), self.perhaps_shown(node, peer, shown));
        let (lookup, _) = self.look_up(node, peer);
        let command = Command::Approve { peer, fingerprint, entry, nonce, lookup, lift };
        self.step(node, Input::Operator(command), meant).map(drop)
    }

    /// Whether the node has asked this peer by a request whose refusal the peer still owes it.
    fn is_refused_in_vain(&self, node: usize, peer: NodeId, nonce: Nonce) -> bool {
        let refuses = |of: &crate::tables::Owed| of.kind == Kind::Reject && of.answers == Some(nonce);
        let them = self.nodes.iter().find(|it| it.id == peer);
        them.and_then(|it| it.plain.owed.get(&self.nodes[node].id)).is_some_and(refuses)
    }

    /// A node that has asked so: of what it will try again this comes to something.
    fn refused_in_vain(&mut self) -> Option<usize> {
        let has = |node: &usize| {
            let mut asked = self.nodes[*node].plain.outgoing.iter();
            asked.any(|(peer, it)| self.is_refused_in_vain(*node, *peer, it.nonce))
        };
        let them: Vec<usize> = (0..self.nodes.len()).filter(has).collect();
        self.chance.pick(&them)
    }

    /// The timer of what is tried again has run out for one message; perhaps for one that was refused in vain.
    fn node_tries_again(&mut self, node: usize, refused: bool) -> Result<(), String> {
        if !self.nodes[node].is_up {
            return Ok(());
        }
        let plain = &self.nodes[node].plain;
        let owed = plain.owed.iter().map(|(peer, it)| (*peer, Retried::Answer, it.nonce)).filter(|_| !refused);
        let asked = plain.outgoing.iter().map(|(peer, it)| (*peer, Retried::Request, it.nonce));
        let asked = asked.filter(|(peer, _, nonce)| !refused || self.is_refused_in_vain(node, *peer, *nonce));
        let due: Vec<_> = owed.chain(asked).collect();
        match self.chance.pick(&due) {
            None => Ok(()),
            Some((peer, what, nonce)) => self.step(node, Input::Retry { peer, what, nonce }, None).map(drop),
        }
    }

    /// The node tells a trusted peer of a new key, where the shell would find room for that.
    fn node_announces(&mut self, node: usize) -> Result<(), String> {
        let it = &self.nodes[node];
        let trusted: Vec<NodeId> = it.plain.trusted.keys().copied().collect();
        let has_room = it.plain.outgoing.len() < (it.rules.limits.outgoing_max / 2).max(1);
        let peer = match self.chance.pick(&trusted) {
            Some(peer) if !self.chance.one_in(12) => peer,
            _ => self.somebody(node),
        };
        if !has_room {
            return Ok(());
        }
        let ago = self.chance.between(0, 30_000);
        let since = self.nodes[node].now(self.time).wall.saturating_add(-ago);
        let nonce = Nonce(self.chance.bytes());
        if self.step(node, Input::Announce { peer, since, nonce }, None)?.is_ok() {
            self.happened.note("a new key is told");
        }
        Ok(())
    }

    fn operator_refuses(&mut self, node: usize) -> Result<(), String> {
        if self.chance.one_in(2) {
            let asked: Vec<NodeId> = self.nodes[node].plain.outgoing.keys().copied().collect();
            let peer = self.chance.pick(&asked).unwrap_or(id(ATTACKER));
            return self.step(node, Input::Operator(Command::Cancel { peer }), None).map(drop);
        }
        let waiting: Vec<NodeId> = self.nodes[node].plain.pending.keys().copied().collect();
        let peer = self.chance.pick(&waiting).unwrap_or(id(ATTACKER));
        self.refuse(node, peer)
    }

    pub(super) fn refuse(&mut self, node: usize, peer: NodeId) -> Result<(), String> {
        let (nonce, reason) = (Nonce(self.chance.bytes()), "not today".into());
        // some operators name what they looked at.
        let entry = self.nodes[node].plain.pending.get(&peer);
        let mut named = LookedAt::default();
        match self.chance.below(4) {
            0 => named.fingerprint = entry.map(|entry| entry.key.fingerprint()),
            1 => named.fingerprint = entry.and_then(|entry| entry.keys().last()).map(|it| it.key.fingerprint()),
            2 => named.entry = entry.map(|entry| entry.number),
            _ => {}
        }
        self.step(node, Input::Operator(Command::Reject { peer, reason, nonce, named }), None).map(drop)
    }

    pub(super) fn revoke(&mut self, node: usize, peer: NodeId) -> Result<(), String> {
        let nonce = Nonce(self.chance.bytes());
        self.step(node, Input::Operator(Command::Revoke { peer, nonce }), None).map(drop)
    }

    fn operator_revokes(&mut self, node: usize) -> Result<(), String> {
        let trusted: Vec<NodeId> = self.nodes[node].plain.trusted.keys().copied().collect();
        let peer = match self.chance.pick(&trusted) {
            Some(peer) if !self.chance.one_in(6) => peer,
            _ => self.somebody(node),
        };
        self.revoke(node, peer)
    }

    /// A program, or a transport, says outright whom to trust and under which key.
    fn operator_knows_better(&mut self, node: usize) -> Result<(), String> {
        if !self.nodes[node].is_up {
            return Ok(());
        }
        let peer = self.somebody(node);
        let careless = !self.honest && self.chance.one_in(4);
        let key = if careless { attackers()[0].public } else { pair_of(peer).public };
        let at = self.nodes[node].now(self.time).wall;
        if self.chance.one_in(3) {
            // The registry is asked about somebody who may or may not be trusted.
            let (lookup, _) = self.look_up(node, peer);
            let record = self.nodes[node].plain.trusted.get(&peer).and_then(|record| record.public_key);
            if let (Lookup::Found { key: found, .. }, Some(was)) = (&lookup, record)
                && self.chance.one_in(2)
            {
                // As when a node starts.
                return self.step(node, Input::Compared { peer, was, found: *found }, None).map(drop);
            }
            return self.step(node, Input::LookedUp { peer, lookup }, None).map(drop);
        }
        let lift = self.perhaps_shown(node, peer, Some(key));
        let command = match self.chance.below(4) {
            0 => Command::Grant { record: TrustRecord::new(peer, key).approved_at(at), lift },
            1 => Command::Grant { record: TrustRecord::new(peer, None).approved_at(at), lift },
            2 => Command::AdoptKey { peer, key },
            _ => Command::ReportKeyChange { peer, key },
        };
        self.step(node, Input::Operator(command), None).map(drop)
    }

    /// What a node of an older release would send in its place: a message of version 1, under its own key.
    fn old_release_speaks(&mut self, node: usize) {
        let (from, mut to) = (self.nodes[node].id, self.somebody(node));
        let ends: Vec<NodeId> = self.tunnels.iter().filter(|(one, _)| *one == from).map(|(_, other)| *other).collect();
        if let Some(end) = self.chance.pick(&ends) {
            to = end;
        }
        let kind = self.chance.pick(&[Kind::Request, Kind::Request, Kind::Accept, Kind::Reject, Kind::Revoke]);
        let kind = kind.unwrap_or(Kind::Request);
        let stamp = self.nodes[node].now(self.time).wall;
        let (justification, reason, nonce) = (String::new(), String::new(), Nonce(self.chance.bytes()));
        let draft = Draft { to, kind, justification, reason, nonce, answers: None, stamp, for_key: None };
        self.happened.note("an old release speaks");
        self.send(from, to, &pair_of(from).sign_v1(from, &draft), kind);
    }

    fn clock_jumps(&mut self, node: usize) {
        const MINUTE: i64 = 60_000;
        const YEAR: i64 = 365 * 24 * 60 * MINUTE;
        let offset = self.nodes[node].offset;
        if self.chance.one_in(8) {
            return self.time_is_stolen(node);
        }
        // Set right, mostly; a clock that is wrong hears nobody.
        let next = match self.chance.below(10) {
            0 => offset + self.chance.between(-40_000, 40_000),
            1 => offset + self.chance.between(-20 * MINUTE, 20 * MINUTE),
            2 => offset + YEAR,
            3 => offset - YEAR,
            _ => self.chance.between(-10_000, 10_000),
        };
        self.nodes[node].offset = next;
        let far = (next - offset).abs();
        let how = if far >= YEAR / 2 { "years" } else { "less" };
        let way = if next > offset { "forwards" } else { "back" };
        self.happened.note(format!("clock: {way} by {how}"));
        let id = self.nodes[node].id;
        self.tell(format!("the clock of {id} jumps by {} ms", next - offset));
    }

    /// Whoever feeds a node its time sets it back to when messages were sent that they have captured, and sends them again.
    fn time_is_stolen(&mut self, node: usize) {
        let id = self.nodes[node].id;
        let captured: Vec<_> = self.captured.iter().filter(|it| it.to == id).cloned().collect();
        let Some(first) = captured.first().filter(|it| !captured.is_empty() && it.message.stamp_ms.is_some()) else {
            return;
        };
        let begin = first.message.stamp_ms.unwrap_or(0);
        self.nodes[node].offset = begin - BEGIN_MS - self.time;
        self.happened.note("clock: stolen");
        self.tell(format!("the clock of {id} is set back by whoever feeds it"));
        // In the order in which they were sent, as fast as the clock that is set allows.
        for it in captured.into_iter().take(16) {
            let after = it.message.stamp_ms.map_or(0, |stamp| stamp - begin);
            if (0..600_000).contains(&after) {
                let (to, bytes) = (it.to, it.message.to_json());
                for delay in [after, after + 31_000] {
                    let (bytes, path) = (bytes.clone(), from_host(100));
                    self.at(self.time + delay, Event::Deliver { to, bytes, path });
                }
            }
        }
    }

    /// Kills a node mostly, at whatever it is doing.
    fn node_stops(&mut self, node: usize) -> Result<(), String> {
        if !self.nodes[node].is_up {
            return Ok(());
        }
        let id = self.nodes[node].id;
        if self.chance.one_in(5) {
            self.nodes[node].shut_down(self.time, self.bend)?;
            self.happened.note("shut down");
            self.tell(format!("{id} is shut down"));
        } else {
            let in_save = self.nodes[node].crash(&mut self.chance);
            self.happened.note(if in_save { "crash: during a save" } else { "crash: between saves" });
            self.tell(format!("{id} crashes"));
        }
        let back = match self.chance.below(12) {
            0 => 600_000,
            // A supervisor that starts it again at once.
            1..5 => self.chance.between(10, 1500),
            _ => self.chance.between(10, 60_000),
        };
        self.at(self.time + back, Event::Starts { node });
        Ok(())
    }
}

/// How much happens before the faults stop.
const STEPS: usize = 70;
