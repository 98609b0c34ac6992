//! What the protocol says about a message when it comes, in its own words and not by the code under test: who vouches for
//! its key, and whether anything allows trusting its sender for it.
#![forbid(unsafe_code)]

use crate::config::OnRotation;
use crate::machine::input::{Lookup, Path, Received};
use crate::machine::known::set_aside;
use crate::peer::KeyFault;
use crate::tables::{Outgoing, Succession};
use crate::testing::actor::Actor;
use crate::wire::message::Kind;

/// A message and what is known when it comes.
pub(super) struct Known<'a> {
    pub(super) us: &'a Actor,
    pub(super) received: &'a Received,
}

impl Known<'_> {
    fn is_bound(&self) -> bool {
        let by_registry =
            matches!(&self.received.lookup, Lookup::Found { key, .. } if key == self.received.message.key());
        by_registry && (!self.received.message.is_version_1() || self.is_authenticated())
    }

    fn is_authenticated(&self) -> bool {
        let sender = self.received.message.sender();
        matches!(self.received.path, Path::Direct { authenticated: Some(other), .. } if other == sender)
    }

    pub(super) fn is_vouched_for(&self) -> bool {
        let (message, tables) = (&self.received.message, &self.us.tables);
        let (peer, key) = (message.sender(), *message.key());
        let by_record = tables.trusted.get(&peer).is_some_and(|record| record.public_key == Some(key));
        let named = self.asked().is_some_and(|entry| entry.expected_key == Some(key));
        let heard = self.received.lookup != Lookup::Failed || message.kind() != Kind::Accept;
        let by_caller = named && message.kind() != Kind::Request && self.answers_us() && heard;
        let by_signature = !message.is_version_1() && (by_record || by_caller);
        by_signature || self.is_bound() || self.is_authenticated()
    }

    /// Our request to the sender, unless the sender refused it.
    fn asked(&self) -> Option<&Outgoing> {
        let is_open = |entry: &&Outgoing| entry.refused.as_ref().is_none_or(|refusal| !refusal.authentic);
        self.us.tables.outgoing.get(&self.received.message.sender()).filter(is_open)
    }

    fn answers_us(&self) -> bool {
        let message = &self.received.message;
        self.asked().is_some_and(|entry| message.is_version_1() || message.answers() == Some(entry.nonce))
    }

    /// The first of our networks that the sender has as well.
    pub(super) fn network(&self) -> Option<u16> {
        let Lookup::Found { networks, .. } = &self.received.lookup else { return None };
        let ours = &self.us.rules.policy.own_networks;
        ours.iter().copied().find(|network| *network != 0 && networks.contains(network))
    }

    /// Whether the record's key named the key in the message, and the node takes such keys without asking.
    fn is_taken(&self) -> bool {
        let (message, tables) = (&self.received.message, &self.us.tables);
        let record = tables.trusted.get(&message.sender()).and_then(|record| record.public_key);
        let named = message.rotation().map(|rotation| *rotation.old_key());
        let said = tables.successors.get(&message.sender()).map_or(&[][..], |it| it);
        let by_it = |it: &&Succession| Some(it.old) == named;
        let once = said.iter().filter(by_it).all(|it| it.void.is_none() && it.new == *message.key());
        let unopposed = matches!(self.received.lookup, Lookup::NotAsked | Lookup::Unknown);
        self.us.rules.policy.on_rotation == OnRotation::Take && named.is_some() && named == record && once && unopposed
    }

    /// Whether anything in the protocol allows trusting the sender for this message.
    pub(super) fn may_be_trusted(&self) -> bool {
        let (message, policy, tables) = (&self.received.message, &self.us.rules.policy, &self.us.tables);
        let (peer, key) = (message.sender(), *message.key());
        let asked = self.asked();
        let named = asked.and_then(|entry| entry.expected_key);
        let counts = !message.is_version_1() || self.is_authenticated();
        // what our request names is lifted by its own rules, and by no other.
        let lift = asked.and_then(|entry| entry.lift);
        let marks = tables.revoked.get(&peer).into_iter().chain(tables.revoked_keys.get(key.as_bytes()));
        let marks: Vec<_> = marks.map(|mark| mark.id).collect();
        let is_marked = !marks.is_empty();
        if !counts || marks.iter().any(|id| lift != Some(*id)) {
            return false;
        }
        //
        match set_aside(tables, peer, &key) {
            Some(KeyFault::Void(_)) => return false,
            Some(_) if named != Some(key) => return false,
            _ => {}
        }
        //
        let refused = tables.refused.get(&peer).is_some_and(|them| them.iter().any(|it| it.key == key));
        let speaks_for_itself = !refused || self.is_vouched_for();
        match message.kind() {
            Kind::Request if named.is_some_and(|named| named != key) => false,
            Kind::Request if self.is_taken() => true,
            Kind::Accept if self.is_taken() && named.is_none_or(|named| named == key) && self.answers_us() => true,
            Kind::Request => {
                let mutual = asked.is_some() && (self.is_bound() || named == Some(key));
                let network = self.is_bound() && self.network().is_some();
                let entries = policy.allow_list.of(peer);
                let listed =
                    entries.iter().any(|entry| entry.key == Some(key) || (entry.key.is_none() && self.is_bound()));
                let by_policy = !is_marked && (network || listed || (policy.auto_approve && speaks_for_itself));
                (mutual || by_policy) && self.received.lookup != Lookup::Failed
            }
            Kind::Accept => {
                let is_relayed = matches!(self.received.path, Path::Relayed { .. });
                let heard = self.received.lookup != Lookup::Failed;
                //
                let had_by_relay = asked.is_some_and(|entry| entry.relayed);
                let first_use = policy.trust_on_first_use && !is_relayed && named.is_none() && heard && !is_marked;
                let first_use = first_use && !had_by_relay && speaks_for_itself;
                self.answers_us() && (self.is_vouched_for() || first_use)
            }
            Kind::Reject | Kind::Revoke => false,
        }
    }
}
