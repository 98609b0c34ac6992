//! Section 5: what a command comes to, said beforehand from the tables and the command alone.
#![forbid(unsafe_code)]

use super::words::{asked, is_replaced, is_set_aside, key_is_marked, leads_to, lifts, marks, record_key, said_of};
use super::{Law, Seen};
use crate::machine::input::{Command, Input, LookedAt, Lookup, PeerOrKey};
use crate::machine::outcome::Outcome;
use crate::peer::{Fingerprint, NodeId, PublicKey, RevocationId, Source};
use crate::tables::{OtherKey, Pending};
use crate::testing::model::PlainView;

/// Done, or refused, and the rule that says so.
type Ruling = (bool, &'static str);

/// The first of these that is so refuses.
fn first(refuses: &[(&'static str, bool)], else_done: &'static str) -> Ruling {
    let refuses = refuses.iter().find(|(_, so)| *so);
    refuses.map_or((true, else_done), |(rule, _)| (false, rule))
}

impl Seen<'_> {
    /// Whether a command was done, or refused, as the document says; and whether what it was done for is so.
    pub(super) fn commands_come_to_what_they_must(&self) -> Law {
        let (peer, ruling) = match self.input {
            Input::Operator(command) => self.command_ruling(command),
            Input::LookedUp { peer, lookup } => (Some(*peer), (self.looked_up(*peer, lookup), "R-49")),
            Input::Compared { peer, was, found } => {
                let record = record_key(self.before, *peer);
                let differs = record == Some(*was) && found != was && !self.is_behind(*peer, found, was);
                (Some(*peer), (differs, "R-158"))
            }
            _ => return Ok(()),
        };
        let is_done = self.answer.is_ok();
        if peer == Some(self.rules.own_id) {
            return self.must("section 5", !is_done, "a command about ourselves must be refused");
        }
        let (must_be_done, rule) = ruling;
        let what = if must_be_done { "must be done" } else { "must be refused" };
        self.must(
            rule,
            is_done == must_be_done,
            &format!("this {what}, and was not: {:?}", self.answer.as_ref().err()),
        )?;
        if is_done { self.is_done_whole() } else { Ok(()) }
    }

    fn command_ruling(&self, command: &Command) -> (Option<NodeId>, Ruling) {
        let before = self.before;
        match command {
            Command::Request { peer, expected_key, registered, force, automatic, lift, .. } => {
                let expected = self.expected(*peer, *expected_key, *registered);
                (Some(*peer), self.request_ruling(*peer, expected, (*force, *automatic), *lift))
            }
            Command::Approve { peer, fingerprint, entry, lookup, lift, .. } => {
                (Some(*peer), self.approve_ruling(*peer, *fingerprint, *entry, lookup, *lift))
            }
            Command::Reject { peer, named, .. } => {
                let rule = if *named == LookedAt::default() { "R-43" } else { "R-283" };
                (Some(*peer), (!refused_by(before, *peer, *named).is_empty(), rule))
            }
            Command::Cancel { peer } => (Some(*peer), (before.outgoing.contains_key(peer), "R-44")),
            Command::Grant { record, lift } => {
                let (peer, key) = (record.node_id, record.public_key);
                let is_closed = !lifts(marks(before, peer, key.as_ref()), *lift);
                let is_so = before.trusted.get(&peer) == Some(record);
                (
                    Some(peer),
                    first(&[("section 5", is_so), ("R-177", is_closed), ("R-37", !self.has_room_for(peer))], "R-46"),
                )
            }
            Command::AdoptKey { peer, key } => (Some(*peer), (self.may_adopt(*peer, key), "R-47")),
            Command::ReportKeyChange { peer, key } => (
                Some(*peer),
                (
                    record_key(before, *peer)
                        .is_some_and(|known| known != *key && !leads_to(before, *peer, key, &known)),
                    "R-48",
                ),
            ),
            Command::Revoke { peer, .. } => (Some(*peer), (true, "R-175")),
            Command::Remove { peer } => (Some(*peer), (before.trusted.contains_key(peer), "R-183")),
            Command::RevokeKey { key, .. } => {
                let is_full = before.revoked_keys.len() >= self.rules.limits.revoked_keys_max;
                (None, (key_is_marked(before, key) || !is_full, "R-180"))
            }
            Command::EndUnderKey { peer, key, .. } => {
                let mut said = said_of(before, *peer).iter();
                let is_named = said.any(|it| it.new == *key && it.old != *key && it.void.is_none());
                let is_concerned = record_key(before, *peer) == Some(*key) || is_named;
                (Some(*peer), (is_concerned && key_is_marked(before, key), "R-180"))
            }
            Command::ForgetRevocation { of } => self.of(
                *of,
                "R-182",
                |peer| before.revoked.contains_key(peer),
                |key| before.revoked_keys.contains_key(key.as_bytes()),
            ),
            Command::Ignore { of } => self.ignore_ruling(*of),
            Command::Unignore { of } => self.of(
                *of,
                "R-184",
                |peer| before.ignored.contains_key(peer),
                |key| before.ignored_keys.contains_key(key.as_bytes()),
            ),
        }
    }

    fn of(
        &self,
        of: PeerOrKey,
        rule: &'static str,
        peer_is: impl Fn(&NodeId) -> bool,
        key_is: impl Fn(&PublicKey) -> bool,
    ) -> (Option<NodeId>, Ruling) {
        match of {
            PeerOrKey::Peer(peer) => (Some(peer), (peer_is(&peer), rule)),
            PeerOrKey::Key(key) => (None, (key_is(&key), rule)),
        }
    }

    fn ignore_ruling(&self, of: PeerOrKey) -> (Option<NodeId>, Ruling) {
        let (before, limits) = (self.before, &self.rules.limits);
        match of {
            PeerOrKey::Peer(peer) => {
                let known = before.ignored.contains_key(&peer);
                let full = !known && before.ignored.len() >= limits.ignored_max;
                let has_entry = before.pending.contains_key(&peer) || before.outgoing.contains_key(&peer);
                let nothing = known && !has_entry && !before.owed.contains_key(&peer);
                let refuses = [("R-184", before.trusted.contains_key(&peer)), ("R-185", full), ("section 5", nothing)];
                (Some(peer), first(&refuses, "R-184"))
            }
            PeerOrKey::Key(key) => {
                let known = before.ignored_keys.contains_key(key.as_bytes());
                let full = !known && before.ignored_keys.len() >= limits.ignored_keys_max;
                let other = |peer: &NodeId| record_key(before, *peer) != Some(key);
                let waits = before.pending.iter().any(|(peer, it)| it.key == key && other(peer));
                let asked = before.outgoing.iter().any(|(peer, it)| it.expected_key == Some(key) && other(peer));
                (None, first(&[("R-185", full), ("section 5", known && !waits && !asked)], "R-184"))
            }
        }
    }

    /// the key that the caller names, else the one that was named once, else the registry's.
    fn expected(&self, peer: NodeId, named: Option<PublicKey>, registered: Option<PublicKey>) -> Option<PublicKey> {
        named.or_else(|| asked(self.before, peer)?.expected_key).or(registered)
    }

    ///
    fn request_ruling(
        &self,
        peer: NodeId,
        expected: Option<PublicKey>,
        (force, automatic): (bool, bool),
        lift: Option<RevocationId>,
    ) -> Ruling {
        let before = self.before;
        let is_ignored = (before.ignored.contains_key(&peer) && !before.trusted.contains_key(&peer))
            || expected.is_some_and(|key| {
                before.ignored_keys.contains_key(key.as_bytes()) && record_key(before, peer) != Some(key)
            });
        let marks = marks(before, peer, expected.as_ref());
        let refuses = [
            ("R-184", is_ignored),
            ("R-40", before.trusted.contains_key(&peer) && !force),
            ("R-40", automatic && marks.iter().any(Option::is_some)),
            ("R-177", !lifts(marks, lift)),
        ];
        first(&refuses, "R-40")
    }

    ///
    fn approve_ruling(
        &self,
        peer: NodeId,
        fingerprint: Option<Fingerprint>,
        number: Option<u64>,
        lookup: &Lookup,
        lift: Option<RevocationId>,
    ) -> Ruling {
        let Some(entry) = self.before.pending.get(&peer) else { return (false, "section 5") };
        let Some(chosen) = chosen(entry, fingerprint) else { return (false, "R-42") };
        let needs_fingerprint = !self.may_be_approved_unseen(peer, entry, lookup);
        // it has not heard of the keys to which the one that it names led, nor of what those have named.
        let proven_by = entry.proven_by.filter(|_| chosen.key == entry.key);
        let registry_differs = match lookup {
            Lookup::Found { key, .. } => {
                let led_to = |to: &PublicKey| leads_to(self.before, peer, key, to);
                *key != chosen.key && !led_to(&chosen.key) && !proven_by.is_some_and(|by| by == *key || led_to(&by))
            }
            _ => false,
        };
        let refuses = [
            ("R-173", number.is_some_and(|number| number != entry.number)),
            ("R-160", registry_differs),
            ("R-165", fingerprint.is_none() && needs_fingerprint),
            ("R-177", !lifts(marks(self.before, peer, Some(&chosen.key)), lift)),
            ("R-37", !self.has_room_for(peer)),
        ];
        first(&refuses, "R-42")
    }

    /// somebody else vouches for the first key, and no other is known.
    pub(super) fn may_be_approved_unseen(&self, peer: NodeId, entry: &Pending, lookup: &Lookup) -> bool {
        let is_named_now = matches!(lookup, Lookup::Found { key, .. } if *key == entry.key);
        // What a registry said when the request came is its word no longer; what the transport saw of the peer itself is.
        let is_seen = entry.authentic && entry.source == Source::Node(peer);
        let is_vouched = (is_seen || is_named_now) && *lookup != Lookup::Failed;
        is_vouched
            && entry.conflicts == 0
            && entry.proven_by.is_none()
            && !self.is_known_otherwise(peer, &entry.key)
            && !is_set_aside(self.before, peer, &entry.key)
            && !matches!(lookup, Lookup::Found { key, .. } if is_replaced(self.before, peer, key))
    }

    /// the key of the record, of the floor or of our caller, if it is another.
    pub(super) fn known_otherwise(&self, tables: &PlainView, peer: NodeId, key: &PublicKey) -> Option<PublicKey> {
        let floor = tables.floor.get(&peer).and_then(|floor| floor.key);
        let named = asked(tables, peer).and_then(|it| it.expected_key);
        [record_key(tables, peer), floor, named].into_iter().flatten().find(|known| known != key)
    }

    pub(super) fn is_known_otherwise(&self, peer: NodeId, key: &PublicKey) -> bool {
        self.known_otherwise(self.before, peer, key).is_some()
    }

    /// a trusted record without a key takes it, unless it is marked or our caller named another.
    pub(super) fn may_adopt(&self, peer: NodeId, key: &PublicKey) -> bool {
        let record = self.before.trusted.get(&peer);
        let named = asked(self.before, peer).and_then(|it| it.expected_key);
        record.is_some_and(|record| record.public_key.is_none())
            && named.is_none_or(|named| named == *key)
            && !key_is_marked(self.before, key)
            && !is_set_aside(self.before, peer, key)
    }

    /// whether a look-up changes anything.
    fn looked_up(&self, peer: NodeId, lookup: &Lookup) -> bool {
        let (Lookup::Found { key, .. }, Some(record)) = (lookup, self.before.trusted.get(&peer)) else { return false };
        match record.public_key {
            None => self.may_adopt(peer, key),
            Some(known) => known != *key && !self.is_behind(peer, key, &known),
        }
    }

    /// a registry that names a replaced key does not contradict the record.
    fn is_behind(&self, peer: NodeId, found: &PublicKey, known: &PublicKey) -> bool {
        is_replaced(self.before, peer, found) || leads_to(self.before, peer, found, known)
    }

    /// What must be so after a command that was done.
    fn is_done_whole(&self) -> Law {
        let after = self.after;
        let peer_is = |peer: NodeId| {
            [after.trusted.contains_key(&peer), after.pending.contains_key(&peer), after.outgoing.contains_key(&peer)]
        };
        match self.input {
            Input::Operator(Command::Approve { peer, fingerprint, .. }) => {
                let chosen = self.before.pending.get(peer).and_then(|entry| chosen(entry, *fingerprint));
                let is = record_key(after, *peer);
                self.must(
                    "R-42",
                    is.is_some() && is == chosen.map(|it| it.key),
                    "another key was approved than was named",
                )?;
                let record = after.trusted.get(peer);
                let approved = self.outcome() == record.map(|record| Outcome::Approved(*record));
                self.must("R-42", approved, "it is approved otherwise than was said")?;
                let chose = chosen.map(|it| it.key);
                let is_what_was_meant = self.meant.is_none() || self.meant == chose;
                self.must("R-42", is_what_was_meant, "another key was approved than the operator meant")
            }
            Input::Operator(Command::Grant { record, .. }) => {
                let is = after.trusted.get(&record.node_id);
                self.must("R-46", is == Some(record), "a record was granted otherwise than was said")
            }
            Input::Operator(Command::Reject { peer, named, .. }) => {
                let refused = refused_by(self.before, *peer, *named);
                let waits = |key: &PublicKey| {
                    after.pending.get(peer).is_some_and(|entry| entry.keys().any(|it| it.key == *key))
                };
                self.must("R-43", !refused.iter().any(|it| waits(&it.key)), "what was refused still waits")?;
                let told = matches!(self.outcome(), Some(Outcome::Rejected(told))
                    if told.iter().flatten().copied().eq(refused.iter().map(|it| it.key.fingerprint())));
                self.must("R-283", told, "an operator is not told what was refused, or of something else")
            }
            Input::Operator(Command::Cancel { peer }) => {
                self.must("R-44", !after.outgoing.contains_key(peer), "a request that was cancelled is still there")
            }
            Input::Operator(Command::Revoke { peer, .. }) => {
                let is_gone = peer_is(*peer) == [false; 3] && after.revoked.contains_key(peer);
                self.must("R-45", is_gone, "a revoked peer is in another table, or without a mark")
            }
            Input::Operator(Command::Remove { peer }) => {
                let is_gone = !after.trusted.contains_key(peer) && !after.revoked.contains_key(peer);
                self.must("R-183", is_gone, "a removed peer is trusted, or has a mark")
            }
            Input::Operator(Command::RevokeKey { key, .. }) => self.key_is_revoked_whole(key),
            Input::Operator(Command::EndUnderKey { peer, key, .. }) => {
                self.must("R-180", record_key(after, *peer) != Some(*key), "trust under a revoked key did not end")?;
                let is = after.trusted.get(peer);
                let is_other = record_key(self.before, *peer) != Some(*key);
                let is_left = !is_other || is == self.before.trusted.get(peer);
                self.must("R-180", is_left, "trust under another key than the revoked one has changed")
            }
            Input::Operator(Command::ReportKeyChange { peer, .. }) => {
                self.must("R-188", !after.trusted.contains_key(peer), "trust that was to end did not")
            }
            Input::Operator(Command::AdoptKey { peer, key }) => {
                self.must("R-47", record_key(after, *peer) == Some(*key), "a key was not adopted")
            }
            Input::Operator(Command::Request { peer, nonce, expected_key, registered, lift, .. }) => {
                let expected = self.expected(*peer, *expected_key, *registered);
                let is = after.outgoing.get(peer);
                let is_new = is.is_some_and(|is| {
                    let named = is.expected_key == expected;
                    // A lift that names nothing lifts nothing, and need not be kept.
                    let is_marked = marks(self.before, *peer, is.expected_key.as_ref()).iter().any(Option::is_some);
                    let lifts = is.lift == *lift || (is.lift.is_none() && !is_marked);
                    is.nonce == *nonce && is.refused.is_none() && !is.relayed && lifts && named
                });
                self.must("R-41", is_new, "a request is entered otherwise than it was made")?;
                let other = registered.filter(|it| expected.is_some_and(|expected| expected != *it));
                let is_told = matches!(self.outcome(), Some(Outcome::Requested { differs, .. })
                    if differs == expected.zip(other).map(|(named, it)| [named.fingerprint(), it.fingerprint()]));
                self.must("R-285", is_told, "that the registry names another key than was named is not told")?;
                let is_fresh = is.is_some_and(|is| is.sent_tick == self.now.tick && is.sent_at == self.now.wall);
                self.must("R-41", is_fresh, "a request that was made again has its old time")
            }
            Input::Operator(Command::Ignore { of }) => self.is_ignored_whole(*of),
            Input::LookedUp { peer, lookup: Lookup::Found { key, .. } } => {
                let is = record_key(after, *peer);
                let is_so = if record_key(self.before, *peer).is_none() { is == Some(*key) } else { is.is_none() };
                self.must("R-49", is_so, "a look-up came to something else")
            }
            Input::Compared { peer, .. } => {
                self.must("R-158", !after.trusted.contains_key(peer), "trust that the registry contradicts did not end")
            }
            _ => Ok(()),
        }
    }

    ///
    fn key_is_revoked_whole(&self, key: &PublicKey) -> Law {
        let after = self.after;
        let waits = after.pending.values().any(|entry| entry.keys().any(|it| it.key == *key));
        let is_named = after.outgoing.values().any(|it| it.expected_key == Some(*key));
        self.must("R-180", key_is_marked(after, key), "a revoked key has no mark")?;
        self.must("R-180", !waits && !is_named, "something waits under a revoked key, or a request names it")
    }

    ///
    fn is_ignored_whole(&self, of: PeerOrKey) -> Law {
        let after = self.after;
        let is_gone = match of {
            PeerOrKey::Peer(peer) => {
                let known = after.pending.contains_key(&peer) || after.outgoing.contains_key(&peer);
                after.ignored.contains_key(&peer) && !known && !after.owed.contains_key(&peer)
            }
            PeerOrKey::Key(key) => {
                let waits = after.pending.values().any(|entry| entry.key == key);
                after.ignored_keys.contains_key(key.as_bytes()) && !waits
            }
        };
        self.must("R-184", is_gone, "who is ignored waits, is asked, or is owed something")
    }

    /// the entry of a key that an approval took.
    pub(super) fn approved(&self) -> Option<(NodeId, OtherKey)> {
        let Some(Command::Approve { peer, fingerprint, .. }) = self.command() else { return None };
        let entry = self.before.pending.get(peer).filter(|_| self.answer.is_ok())?;
        chosen(entry, *fingerprint).map(|it| (*peer, it))
    }

    /// mutual is who was asked as well.
    pub(super) fn was_asked(&self, peer: NodeId) -> bool {
        asked(self.before, peer).is_some()
    }
}

/// The key that is meant: the one with this fingerprint; the first if none is named.
/// the keys that this refusal concerns; none if it is to be refused itself.
pub(super) fn refused_by(before: &PlainView, peer: NodeId, named: LookedAt) -> Vec<OtherKey> {
    let Some(entry) = before.pending.get(&peer) else { return Vec::new() };
    if named.entry.is_some_and(|number| number == 0 || number != entry.number) {
        return Vec::new();
    }
    match named.fingerprint {
        Some(key) => entry.keys().filter(|it| it.key.fingerprint() == key).collect(),
        None => entry.keys().collect(),
    }
}

fn chosen(entry: &Pending, fingerprint: Option<Fingerprint>) -> Option<OtherKey> {
    entry.keys().find(|it| fingerprint.is_none_or(|named| it.key.fingerprint() == named))
}
