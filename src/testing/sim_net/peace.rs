//! The twin of the laws: when the faults stop, what both operators want comes about, within a bounded time.
//!
//! Trust lands on both sides, also when an accept is lost on the way; after a revocation both sides lose it, also when
//! the farewell is lost; and the one who was revoked stays outside.
#![forbid(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "nodes are numbered from 0 and none is ever taken away")]

use super::node::Knows;
use super::people::{attackers, pair_of};
use super::world::World;
use crate::config::Limits;
use crate::machine::input::{Command, Input, Lookup};
use crate::machine::view::Nonce;
use crate::peer::NodeId;
use crate::tables::succession::leads_to;
use crate::wire::message::Kind;

impl World {
    pub(super) fn make_peace(&mut self) -> Result<(), String> {
        self.calm = true;
        self.tell("the faults stop".to_owned());
        for node in 0..self.nodes.len() {
            self.start(node)?;
            let it = &mut self.nodes[node];
            it.offset = self.chance.between(-3000, 3000);
            it.rules.limits.trusted_max = Limits::default().trusted_max;
            if let Some(registry) = &mut it.registry {
                registry.values_mut().for_each(|knows| {
                    if *knows != Knows::Right {
                        *knows = Knows::Nothing;
                    }
                });
            }
        }
        // What is still on its way arrives, and is too old.
        self.pass(700_000)?;
        self.become_friends(0, 1)?;
        self.grant_anew(1, 0)?;
        self.part(0, 1)
    }

    fn id(&self, node: usize) -> NodeId {
        self.nodes[node].id
    }

    fn trusts(&self, node: usize, peer: usize) -> bool {
        let key = pair_of(self.id(peer)).public;
        self.nodes[node].plain.trusted.get(&self.id(peer)).is_some_and(|record| record.public_key == Some(key))
    }

    /// `one` asks `other`, whose operator wants that too, until both trust.
    fn become_friends(&mut self, one: usize, other: usize) -> Result<(), String> {
        let lossy = self.chance.one_in(2);
        if lossy {
            self.lose = Some((self.id(other), Kind::Accept));
        }
        let named = self.chance.one_in(2).then(|| pair_of(self.id(other)).public);
        // One who named a wrong key names the right one now.
        let wrong = |key| attackers().iter().any(|pair| Some(pair.public) == key);
        let before = self.nodes[one].plain.outgoing.get(&self.id(other)).and_then(|it| it.expected_key);
        let named = named.or_else(|| wrong(before).then(|| pair_of(self.id(other)).public));
        for round in 0..ROUNDS {
            self.tidy(other, one)?;
            self.tidy(one, other)?;
            let peer = self.id(other);
            self.ask(one, peer, named, true, false)?;
            self.pass(2000)?;
            self.approve_right(other, one)?;
            self.pass(2000)?;
            self.approve_right(one, other)?;
            self.pass(70_000)?;
            let lost = lossy && self.lose.is_none();
            if self.trusts(one, other) && self.trusts(other, one) && (lost || !lossy || round > 0) {
                self.lose = None;
                self.happened.note(if lost { "peace: trust though an accept was lost" } else { "peace: trust" });
                return Ok(());
            }
        }
        Err(format!(
            "{} and {} want to trust each other, and do not after {ROUNDS} rounds",
            self.id(one),
            self.id(other)
        ))
    }

    /// both clocks were ahead once. Until the peer's passes what it was, an operator has to say that it counts again.
    fn grant_anew(&mut self, node: usize, peer: usize) -> Result<(), String> {
        let (peer, now) = (self.id(peer), self.nodes[node].now(self.time).wall);
        let it = &self.nodes[node].plain;
        let (Some(record), Some(floor)) = (it.trusted.get(&peer).copied(), it.floor.get(&peer)) else { return Ok(()) };
        if floor.seen.max(floor.before) <= now {
            return Ok(());
        }
        self.happened.note("peace: an operator granted anew after a clock was wrong");
        let record = record.approved_at(now);
        self.step(node, Input::Operator(Command::Grant { record, lift: None }), None).map(drop)?;
        // What the floor was moved back to.
        self.pass(31_000)
    }

    /// The operator clears the queue of everybody but the peer that it waits for under the right key.
    fn tidy(&mut self, node: usize, expected: usize) -> Result<(), String> {
        let (peer, key) = (self.id(expected), pair_of(self.id(expected)).public);
        let plain = &self.nodes[node].plain;
        let taken = plain.trusted.get(&peer).and_then(|it| it.public_key).filter(|taken| *taken != key);
        let said = plain.successors.get(&peer).map_or(&[][..], |said| said);
        if taken.is_some_and(|taken| leads_to(said, &key, &taken)) {
            // the thief's key has replaced the owner's, which is not heard before the operator has ended that.
            self.happened.note("peace: a thief's successor was taken back");
            self.step(node, Input::Operator(Command::Remove { peer }), None).map(drop)?;
        }
        let others: Vec<NodeId> = self.nodes[node]
            .plain
            .pending
            .iter()
            .filter(|(of, entry)| **of != peer || entry.key != key)
            .map(|(of, _)| *of)
            .collect();
        others.into_iter().try_for_each(|of| self.refuse(node, of))
    }

    fn approve_right(&mut self, node: usize, other: usize) -> Result<(), String> {
        let (peer, key) = (self.id(other), pair_of(self.id(other)).public);
        if self.nodes[node].plain.pending.contains_key(&peer) {
            let (fingerprint, nonce) = (Some(key.fingerprint()), Nonce(self.chance.bytes()));
            let (lookup, lift) = (Lookup::NotAsked, self.shown(node, peer, Some(key)));
            let command = Command::Approve { peer, fingerprint, entry: None, nonce, lookup, lift };
            self.step(node, Input::Operator(command), Some(key)).map(drop)?;
        }
        Ok(())
    }

    /// `one` revokes `other`.
    fn part(&mut self, one: usize, other: usize) -> Result<(), String> {
        let (from, peer) = (self.id(one), self.id(other));
        let lossy = self.chance.one_in(2);
        if lossy {
            self.lose = Some((from, Kind::Revoke));
        }
        let nonce = Nonce(self.chance.bytes());
        self.step(one, Input::Operator(Command::Revoke { peer, nonce }), None).map(drop)?;
        if self.nodes[one].plain.trusted.contains_key(&peer) {
            return Err(format!("{from} revoked {peer} and still trusts it"));
        }
        self.pass(70_000)?;
        if lossy && !self.trusts(other, one) {
            return Err(format!("{peer} lost trust without having heard of it"));
        }
        // Whoever goes on talking hears it again; one who has heard it is only put before the operator.
        for round in 0..ROUNDS {
            if round > 0 && !self.trusts(other, one) {
                break;
            }
            self.ask(other, from, Some(pair_of(from).public), true, false)?;
            self.pass(70_000)?;
            let known = self.nodes[one].registry.as_ref().is_some_and(|it| it.get(&peer) == Some(&Knows::Right));
            let is_waiting = self.nodes[one].plain.pending.contains_key(&peer);
            let key = pair_of(peer).public;
            let remembered = self.nodes[one].plain.floor.get(&peer).is_some_and(|floor| floor.key == Some(key));
            let vouched_for = known || remembered || self.tunnels.contains(&(peer, from));
            if self.trusts(other, one) && is_waiting && !vouched_for {
                // Nobody ever vouched for the peer's key, so it is not answered, but put before the operator, who insists.
                let nonce = Nonce(self.chance.bytes());
                self.step(one, Input::Operator(Command::Revoke { peer, nonce }), None).map(drop)?;
                self.happened.note("peace: the operator had to revoke again");
                self.pass(2000)?;
            }
        }
        if self.trusts(other, one) {
            return Err(format!("{from} revoked {peer}, which has not come to know it"));
        }
        if self.nodes[one].plain.trusted.contains_key(&peer) {
            return Err(format!("{from} revoked {peer} and trusts it again, because it asked"));
        }
        self.happened.note(if lossy { "peace: parted though the farewell was lost" } else { "peace: parted" });
        Ok(())
    }
}

/// A clock that was wrong costs half a minute, a lost message one round.
const ROUNDS: usize = 5;
