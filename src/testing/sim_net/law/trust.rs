//! Trust begins only by a rule that says so, on the terms that it says, and ends only by one that says so.
#![forbid(unsafe_code)]

use super::verdict::Verdict;
use super::words::{key_is_marked, record_key};
use super::{Law, Seen};
use crate::machine::input::{Command, Input, Lookup};
use crate::machine::outcome::Outcome;
use crate::peer::{NodeId, PublicKey, TrustRecord};

impl Seen<'_> {
    pub(super) fn trust_moves_for_a_reason(&self) -> Law {
        self.nothing_old_decides()?;
        self.is_as_was_said()?;
        for (peer, was, is) in self.moved(|tables| &tables.trusted) {
            if let Some(is) = is {
                self.begins(peer, was, is)?;
            }
            if self.lost(peer).is_some() {
                self.ends(peer)?;
            }
        }
        Ok(())
    }

    /// whatever our clock did, a message that is not newer than what was vouched for under its key decides
    /// nothing: it gives no trust and ends none, and no request of ours ends by it.
    fn nothing_old_decides(&self) -> Law {
        let Some(it) = self.received().filter(|it| !it.message.is_version_1()) else { return Ok(()) };
        let peer = it.message.sender();
        if self.newest.is_none_or(|newest| it.message.stamp() > newest) {
            return Ok(());
        }
        // that the registry or an operator speaks against the key is no word of the message.
        let other_reason = record_key(self.before, peer) == Some(*it.message.key());
        let decides = self.granted(peer).is_some()
            || self.before.revoked.get(&peer) != self.after.revoked.get(&peer)
            || (self.lost(peer).is_some() && !other_reason)
            || (self.before.outgoing.get(&peer) != self.after.outgoing.get(&peer) && self.lost(peer).is_none());
        self.must("R-190", !decides, "a message that is older than one under its key decided something")
    }

    /// what was said is so.
    fn is_as_was_said(&self) -> Law {
        let is = |record: &TrustRecord| self.after.trusted.get(&record.node_id) == Some(record);
        match (self.outcome(), self.received()) {
            (Some(Outcome::Trusted(record) | Outcome::Granted(record) | Outcome::KeyAdopted(record)), _) => {
                self.must("R-37", is(&record), "a peer is trusted otherwise than was said")
            }
            (Some(Outcome::Confirmed(record)), _) => {
                self.must("R-21", is(&record), "a peer is told that it is trusted, and is not, or otherwise")
            }
            (Some(Outcome::RevokedByPeer { .. }), Some(it)) => {
                let peer = it.message.sender();
                let after = self.after;
                let is_gone = !after.trusted.contains_key(&peer)
                    && !after.pending.contains_key(&peer)
                    && !after.outgoing.contains_key(&peer);
                self.must("R-35", is_gone, "a peer that has revoked us is trusted, waits or is asked")
            }
            _ => Ok(()),
        }
    }

    fn begins(&self, peer: NodeId, was: Option<&TrustRecord>, is: &TrustRecord) -> Law {
        let is_clear =
            !self.after.revoked.contains_key(&peer) && is.public_key.is_none_or(|key| !key_is_marked(self.after, &key));
        self.must("R-177", is_clear, "a peer is trusted that is marked, or under a marked key")?;
        match self.input {
            Input::Message(it) if it.message.sender() == peer => {
                let ruling = self.ruling(it);
                let key = *it.message.key();
                self.must("R-74", is.public_key == Some(key), "a message led to trust in another key than its own")?;
                match ruling.verdict {
                    Verdict::Trusts => {
                        self.must("R-37", self.is_cleared(peer), "a grant left a pending or outgoing entry")?;
                        self.terms(peer, is, ruling.rule, self.shared_network(it))
                    }
                    Verdict::Confirms => self.adopts(was, is, key),
                    other => {
                        Err(format!("{}: trust in {peer} began though a message must come to {other:?}", ruling.rule))
                    }
                }
            }
            Input::Operator(Command::Approve { peer: of, .. }) if *of == peer => {
                self.must("R-37", self.is_cleared(peer), "an approval left a pending or outgoing entry")?;
                let entry = self.before.pending.get(&peer);
                let first = entry.is_some_and(|entry| is.public_key == Some(entry.key));
                let proven_by = entry.filter(|_| first).and_then(|entry| entry.proven_by);
                let keeps = proven_by.is_some() && proven_by == was.and_then(|was| was.public_key);
                let rule = if keeps { "R-219" } else { "R-42" };
                self.terms(peer, is, rule, None)
            }
            Input::Operator(Command::Grant { record, .. }) if record.node_id == peer => {
                self.must("R-37", self.is_cleared(peer), "a grant left a pending or outgoing entry")
            }
            Input::Operator(Command::AdoptKey { peer: of, key }) if *of == peer => self.adopts(was, is, *key),
            Input::LookedUp { peer: of, lookup: Lookup::Found { key, .. } } if *of == peer => {
                self.adopts(was, is, *key)
            }
            _ => Err(format!("trust in {peer} began, or changed, and no rule says so")),
        }
    }

    ///
    fn is_cleared(&self, peer: NodeId) -> bool {
        !self.after.pending.contains_key(&peer) && !self.after.outgoing.contains_key(&peer)
    }

    /// a key and nothing else is added to a record that was there.
    fn adopts(&self, was: Option<&TrustRecord>, is: &TrustRecord, key: PublicKey) -> Law {
        let adopted = was.is_some_and(|was| was.public_key.is_none() && was.key(key) == *is);
        self.must("R-47", adopted, "a record was made or changed where one without a key was to be bound")
    }

    /// mutual, network and age.
    fn terms(&self, peer: NodeId, is: &TrustRecord, rule: &'static str, network: Option<u16>) -> Law {
        let was = self.before.trusted.get(&peer);
        let of_old = was.filter(|_| matches!(rule, "R-219" | "R-220"));
        let mutual =
            matches!(rule, "R-24" | "R-32" | "R-67") || self.was_asked(peer) || of_old.is_some_and(|was| was.mutual);
        self.must(rule, is.mutual == mutual, "trust is mutual that is not, or is not that is")?;
        let same = was.filter(|was| rule == "R-32" && was.public_key.is_none_or(|key| is.public_key == Some(key)));
        let age = same.map_or(self.now.wall, |was| was.approved_at);
        self.must(rule, is.approved_at == age, "trust has another age than it should")?;
        let expected = match (rule, same.or(of_old)) {
            ("R-65", _) => network.unwrap_or(0),
            (_, Some(was)) => was.network,
            _ => 0,
        };
        self.must(rule, is.network == expected, "trust has another network than it should")
    }

    /// Only these end trust, whoever else wants it.
    fn ends(&self, peer: NodeId) -> Law {
        let is_for_a_reason = match self.input {
            // What the message must come to was compared already.
            Input::Message(it) => it.message.sender() == peer,
            Input::Operator(
                Command::Revoke { peer: of, .. }
                | Command::Remove { peer: of }
                | Command::ReportKeyChange { peer: of, .. }
                | Command::EndUnderKey { peer: of, .. }
                | Command::Approve { peer: of, .. },
            )
            | Input::LookedUp { peer: of, .. }
            | Input::Compared { peer: of, .. } => *of == peer,
            Input::Operator(Command::Grant { record, .. }) => record.node_id == peer,
            Input::OwnEntries => peer == self.rules.own_id,
            _ => false,
        };
        self.must("R-188", is_for_a_reason, "trust ended, and no rule says so")
    }
}
