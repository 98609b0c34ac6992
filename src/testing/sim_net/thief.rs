//! A thief of a trusted peer's key, who has it name a key of the attacker's, and comes back when the operator has decided about
//! that.
#![forbid(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "indices are drawn below the length")]

use super::node::Knows;
use super::people::{NODES_MAX, attackers, pair_of};
use super::world::World;
use crate::config::OnRotation;
use crate::machine::input::{Command, Input, Lookup, PeerOrKey};
use crate::machine::view::Nonce;
use crate::peer::{NodeId, TrustRecord};
use crate::wire::message::Kind;

impl World {
    /// The whole visit: to this node, or to one that takes new keys.
    pub(super) fn thief_visits(&mut self, node: usize) -> Result<(), String> {
        let takes = |it: &usize| {
            let node = &self.nodes[*it];
            node.is_up && node.rules.policy.on_rotation == OnRotation::Take && !node.plain.trusted.is_empty()
        };
        let takers: Vec<usize> = (0..self.nodes.len()).filter(takes).collect();
        let node = self.chance.pick(&takers).filter(|_| self.chance.one_in(2)).unwrap_or(node);
        let to = self.nodes[node].id;
        let own_key = |it: &&TrustRecord| it.public_key == Some(pair_of(it.node_id).public);
        let trusted = self.nodes[node].plain.trusted.values().filter(own_key).map(|it| it.node_id);
        let trusted: Vec<NodeId> = trusted.filter(|peer| peer.get() <= NODES_MAX).collect();
        let Some(of) = self.chance.pick(&trusted) else { return Ok(()) };
        self.happened.note("a thief visits");
        let which = self.chance.below(attackers().len());
        self.inject_named("named a successor with a stolen key", to, of, which);
        self.pass(100)?;
        self.operator_decides(node, of, which)?;
        for _ in 0..3 {
            let pause = self.chance.between(50, 5000);
            self.pass(pause)?;
            self.comes_back(node, of, which);
        }
        self.pass(100)
    }

    /// What came of the first message is refused, taken back or trusted, or left as it is.
    fn operator_decides(&mut self, node: usize, of: NodeId, which: usize) -> Result<(), String> {
        let (right, key) = (pair_of(of).public, attackers()[which].public);
        let nonce = Nonce(self.chance.bytes());
        match self.chance.below(6) {
            0 => self.refuse(node, of)?,
            1 | 2 => {
                self.revoke(node, of)?;
                let at = self.nodes[node].now(self.time).wall;
                let (record, lift) = (TrustRecord::new(of, right).approved_at(at), self.shown(node, of, Some(right)));
                self.operate(node, Command::Grant { record, lift })?;
            }
            3 => {
                self.operate(node, Command::RevokeKey { key, nonce })?;
                for peer in self.nodes[node].plain.concerned_by(&key) {
                    self.operate(node, Command::EndUnderKey { peer, key, nonce })?;
                }
                self.operate(node, Command::ForgetRevocation { of: PeerOrKey::Key(key) })?;
            }
            4 | 5 if !self.honest => {
                let (fingerprint, lookup) = (Some(key.fingerprint()), Lookup::NotAsked);
                let approve = Command::Approve { peer: of, fingerprint, entry: None, nonce, lookup, lift: None };
                self.step(node, Input::Operator(approve), Some(key)).map(drop)?;
                if self.chance.one_in(2) {
                    self.operate(node, Command::Remove { peer: of })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn operate(&mut self, node: usize, command: Command) -> Result<(), String> {
        self.step(node, Input::Operator(command), None).map(drop)
    }

    /// With the old statement again, with another one of the stolen key, with the new key or the stolen one alone
    /// or while the registry names the stolen one.
    fn comes_back(&mut self, node: usize, of: NodeId, which: usize) {
        let (to, any) = (self.nodes[node].id, self.chance.below(attackers().len()));
        if self.chance.one_in(2)
            && let Some(registry) = &mut self.nodes[node].registry
        {
            registry.insert(of, Knows::Right);
        }
        match self.chance.below(4) {
            0 => self.inject_named("named a successor again", to, of, which),
            1 => self.inject_named("named another successor", to, of, any),
            alone => {
                let pair = if alone == 2 { &attackers()[which] } else { pair_of(of) };
                let draft = self.draft(to, Kind::Request, None);
                self.inject("came back with a key", to, pair.sign(of, &draft).to_json());
            }
        }
    }
}
