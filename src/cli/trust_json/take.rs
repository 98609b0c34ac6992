//! What becomes of a store when a document is read into it.
//!
//! INVARIANT I-T1: what comes out obeys the invariants of the tables, whatever the document says.
//! INVARIANT I-T2: a restriction stands above a grant, and no floor moves back, wherever either comes from; of an entry
//! that says something else than the store does about the same peer in the same list, the store's stays.
//! INVARIANT I-T3: memory is bounded by the tables that come out, the findings that are kept, and the numbers of peers whose
//! trust marks leave out.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::changes::{Changes, higher, settled};
use super::fields::Fields;
use super::finding::{Count, Finding, Unknown, UnknownNames};
use super::read::{LISTS, List, Sink};
use super::remarks::Remarks;
use super::take_remembered::Remembered;
use super::take_trusted::TrustedHeld;
use super::take_waiting::Waiting;
use super::values::{full, not_after};
use crate::config::Limits;
use crate::machine::view::View as _;
use crate::peer::{NodeId, PublicKey, RevocationId, TrustRecord};
use crate::tables::{Floor, Nonce, OtherKey, Revocation, Tables};
use crate::time::{Now, WallMillis};

/// Into what a document is read.
pub(crate) struct Into<'a> {
    /// What the store holds.
    pub(crate) before: &'a Tables,
    /// Times beyond this are moved back to it.
    pub(crate) now: Now,
    /// Who lives here, if that is known: never a peer.
    pub(crate) own_id: Option<NodeId>,
    /// Under which key, if that is known: no peer's.
    pub(crate) own_key: Option<PublicKey>,
    pub(crate) limits: Limits,
    /// The store's revocations that may be lifted.
    pub(crate) lifts: &'a [RevocationId],
    /// For requests of which the document does not tell the nonce; must not be guessable.
    pub(crate) nonce: &'a mut dyn FnMut() -> Nonce,
}

/// What a document came to.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) after: Tables,
    /// In the order of [`List::ALL`].
    pub(crate) counts: [Count; LISTS],
    /// At most [`FINDINGS_MAX`], those about skipped entries first.
    pub(crate) findings: Vec<Finding>,
    /// How many more there were.
    pub(crate) findings_left_out: u64,
    /// Names that were ignored, each once; at most `UNKNOWN_MAX`.
    pub(crate) unknown: Vec<Unknown>,
    /// How many fields had other names still.
    pub(crate) unknown_left_out: u64,
    /// How many requests, ours and of others, and answers that are owed were taken without their nonce and got a fresh one.
    pub(crate) fresh_nonces: u64,
    pub(crate) remarks: Remarks,
}

pub(super) struct Taking<'a> {
    pub(super) into: Into<'a>,
    pub(super) after: Tables,
    /// Not in `after` yet, so that not every entry makes a version.
    pub(super) changes: Changes,
    pub(super) trusted_len: usize,
    /// Trusted entries that are judged once all lists are read.
    pub(super) trusted_held: BTreeMap<NodeId, TrustedHeld>,
    /// Whose trusted entry is left out for what the store or the document knows.
    pub(super) trusted_left_out: HashSet<NodeId>,
    /// Peers that the store ignores and the document trusts, with their places.
    pub(super) ignored_trusted: BTreeMap<NodeId, u64>,
    pub(super) waiting: Waiting,
    floors_len: usize,
    /// Whose floor, and whose mark, stood in the document already. Each of them is in a table that comes out.
    floors_read: HashSet<NodeId>,
    /// Of those the ones of which the document knows what the store knows.
    pub(super) floors_known: HashSet<NodeId>,
    pub(super) revoked_read: HashSet<NodeId>,
    pub(super) revoked_keys_read: HashSet<PublicKey>,
    /// Keys that the document revokes, and the store had not by the same revocation.
    pub(super) keys_revoked: HashSet<PublicKey>,
    /// What waited in the store and does so no more, since the document revokes or ignores it.
    pub(super) waited: BTreeMap<NodeId, Vec<OtherKey>>,
    /// Peers that the document ignores and the store had not, with their places.
    pub(super) peers_ignored: BTreeMap<NodeId, u64>,
    /// Peers whose mark in the document is the very one that the store has.
    pub(super) same_marks: BTreeSet<NodeId>,
    /// Peers that the store has revoked otherwise than the document does, or of which the document's revocation took something
    /// away: nothing of theirs waits.
    pub(super) revoked_otherwise: BTreeSet<NodeId>,
    /// The same of keys.
    pub(super) keys_revoked_otherwise: HashSet<PublicKey>,
    pub(super) remembered: Remembered,
    counts: [Count; LISTS],
    skipped: Vec<Finding>,
    notes: Vec<Finding>,
    findings_left_out: u64,
    unknown: UnknownNames,
}

/// What became of an entry that is in order.
pub(super) enum Verdict {
    Taken,
    Unchanged,
    /// It is judged, and counted, once all lists are read.
    Held,
}

pub(super) use Verdict::{Held, Taken as Took, Unchanged};

pub(super) type Judged = Result<Verdict, String>;

impl<'a> Taking<'a> {
    pub(super) fn new(into: Into<'a>) -> Self {
        let before = into.before;
        Self {
            after: before.clone(),
            changes: Changes::default(),
            trusted_len: before.trusted_len(),
            trusted_held: BTreeMap::new(),
            trusted_left_out: HashSet::new(),
            ignored_trusted: BTreeMap::new(),
            waiting: Waiting::default(),
            floors_len: before.floor_len(),
            floors_read: HashSet::new(),
            floors_known: HashSet::new(),
            revoked_read: HashSet::new(),
            revoked_keys_read: HashSet::new(),
            keys_revoked: HashSet::new(),
            waited: BTreeMap::new(),
            peers_ignored: BTreeMap::new(),
            same_marks: BTreeSet::new(),
            revoked_otherwise: BTreeSet::new(),
            keys_revoked_otherwise: HashSet::new(),
            remembered: Remembered::default(),
            counts: Default::default(),
            skipped: Vec::new(),
            notes: Vec::new(),
            findings_left_out: 0,
            unknown: UnknownNames::default(),
            into,
        }
    }

    /// What stood for later, and the result.
    pub(super) fn finish(mut self) -> Taken {
        self.flush();
        self.end_what_marks_forbid();
        self.settle_refused();
        self.refuse_what_waited();
        let mut fresh_nonces = self.settle_waiting();
        fresh_nonces += self.settle_remembered();
        let Self { after, counts, skipped: mut findings, notes, mut findings_left_out, .. } = self;
        let UnknownNames { names: unknown, left_out: unknown_left_out } = self.unknown;
        let room = FINDINGS_MAX.saturating_sub(findings.len());
        findings_left_out += notes.len().saturating_sub(room) as u64;
        findings.extend(notes.into_iter().take(room));
        let remarks = Remarks::new(self.into.before, &after);
        Taken { after, counts, findings, findings_left_out, unknown, unknown_left_out, fresh_nonces, remarks }
    }

    pub(super) fn flush(&mut self) {
        self.changes.settle_successors(&self.after);
        // No peer is trusted and revoked at once: I-T2.
        if let Some(after) = self.after.patched(core::mem::take(&mut self.changes).into_patch()) {
            self.after = after;
        }
    }

    pub(super) fn count(&mut self, list: List) -> &mut Count {
        let [trusted, pending, outgoing, revoked, floors, revoked_keys, ignored, ignored_keys, rest @ ..] =
            &mut self.counts;
        let [successors, refused, owed, revisions] = rest;
        match list {
            List::Trusted => trusted,
            List::Pending => pending,
            List::Outgoing => outgoing,
            List::Revoked => revoked,
            List::Floors => floors,
            List::RevokedKeys => revoked_keys,
            List::Ignored => ignored,
            List::IgnoredKeys => ignored_keys,
            List::Successors => successors,
            List::Refused => refused,
            List::Owed => owed,
            List::Revisions => revisions,
        }
    }

    /// Counts the entry.
    pub(super) fn settle(&mut self, list: List, index: u64, node_id: Option<u32>, judged: Judged) {
        match judged {
            Ok(Took) => self.count(list).taken += 1,
            Ok(Unchanged) => self.count(list).unchanged += 1,
            Ok(Held) => {}
            Err(why) => {
                self.count(list).skipped += 1;
                self.find(Finding { list, index, node_id, skipped: true, why });
            }
        }
    }

    pub(super) fn find(&mut self, finding: Finding) {
        let findings = if finding.skipped { &mut self.skipped } else { &mut self.notes };
        if findings.len() < FINDINGS_MAX {
            findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }

    pub(super) fn trusted(&self, peer: NodeId) -> Option<TrustRecord> {
        self.changes.trusted.get(&peer.get()).copied().unwrap_or_else(|| self.after.trusted(peer))
    }

    pub(super) fn revoked(&self, peer: NodeId) -> Option<Revocation> {
        self.changes.revoked.get(&peer.get()).copied().unwrap_or_else(|| self.after.revoked(peer))
    }

    fn take(&mut self, list: List, index: u64, peer: NodeId, fields: &Fields, notes: &mut Vec<String>) -> Judged {
        match list {
            List::Trusted => self.take_trusted(index, peer, fields, notes),
            List::Pending => self.hold_pending(index, peer, fields, notes),
            List::Outgoing => self.hold_outgoing(index, peer, fields, notes),
            List::Revoked => self.take_revoked(index, peer, fields, notes),
            List::Floors => self.take_floor(peer, fields, notes),
            List::Ignored => self.take_ignored(index, peer, fields, notes),
            List::Successors => self.hold_successor(index, peer, fields),
            List::Refused => self.hold_refused(index, peer, fields, notes),
            List::Owed => self.hold_owed(index, peer, fields, notes),
            List::Revisions => self.hold_revision(index, peer, fields),
            List::RevokedKeys | List::IgnoredKeys => Err("an entry of a key".to_owned()),
        }
    }

    fn take_floor(&mut self, peer: NodeId, fields: &Fields, notes: &mut Vec<String>) -> Judged {
        let key = fields.key("public_key")?;
        let seen = self.stamp("seen", fields, notes)?.unwrap_or_default();
        let reserved = self.stamp("reserved", fields, notes)?.unwrap_or_default();
        // it lies in the future because a clock did, and is not moved back.
        let before = fields.time("before")?.unwrap_or_default();
        // So does what is moved back here: perhaps it is our clock that is wrong now.
        let moved = fields.time("seen")?.filter(|said| *said > seen);
        let before = before.max(moved.unwrap_or_default());
        let spoke_v2 = fields.flag("spoke_v2")?;
        if key.is_none() && (seen != WallMillis::default() || before != WallMillis::default() || spoke_v2) {
            return Err("`seen`, `before` or `spoke_v2` without the `public_key` that it belongs to".to_owned());
        }
        let mut said = settled(Floor { key, seen, before, sent: reserved, reserved, spoke_v2 });
        let before = self.into.before.floor(peer);
        if !self.floors_read.insert(peer) {
            return Err(TWICE.to_owned());
        }
        if before.is_some_and(|old| old.key == key && said.seen.max(said.before) >= old.seen.max(old.before)) {
            self.floors_known.insert(peer);
        }
        // A stamp that is moved back is at every import another one: it raises none that the store has. Of `seen`, what was
        // said counts all the same.
        if let Some(old) = before {
            if moved.is_some() && old.key == key {
                said.seen = WallMillis::default();
            }
            if old.reserved > WallMillis::default() && fields.time("reserved")?.is_some_and(|said| said > reserved) {
                (said.sent, said.reserved) = (WallMillis::default(), WallMillis::default());
            }
        }
        let is_known = self.trusted(peer).is_some()
            || self.revoked(peer).is_some()
            || self.waiting.has(peer)
            || self.into.before.pending(peer).is_some()
            || self.into.before.outgoing(peer).is_some();
        if before.is_none() && !is_known && self.floors_len >= self.into.limits.floors_max {
            return Err(full(self.into.limits.floors_max));
        }
        let next = before.map_or(said, |old| higher(old, said));
        if before == Some(next) {
            return Ok(Unchanged);
        }
        self.floors_len += usize::from(before.is_none());
        self.changes.floors.insert(peer.get(), Some(next));
        Ok(Took)
    }

    /// Whoever else shows the key of the node that lives here is a copy of it, or a thief.
    pub(super) fn is_not_ours(&self, key: Option<&PublicKey>) -> Result<(), String> {
        match self.into.own_key.as_ref() == key && key.is_some() {
            true => Err("the key of this node itself, which is no peer's".to_owned()),
            false => Ok(()),
        }
    }

    /// A time by our own clock, which nothing can have happened after.
    pub(super) fn past(
        &self,
        name: &'static str,
        fields: &Fields,
        notes: &mut Vec<String>,
    ) -> Result<Option<WallMillis>, String> {
        not_after(self.into.now.wall, name, fields, notes)
    }

    /// A stamp, by somebody's clock: as far ahead as clocks may differ.
    pub(super) fn stamp(
        &self,
        name: &'static str,
        fields: &Fields,
        notes: &mut Vec<String>,
    ) -> Result<Option<WallMillis>, String> {
        not_after(super::latest_stamp(self.into.now.wall), name, fields, notes)
    }
}

impl Sink for Taking<'_> {
    fn entry(&mut self, list: List, index: u64, fields: Result<Fields, String>) {
        let mut notes = Vec::new();
        if let Ok((unknown, left_out)) = fields.as_ref().map(Fields::unknown) {
            unknown.iter().for_each(|name| self.unknown.note(Some(list), Some(index), name));
            self.unknown.left_out += left_out;
        }
        let (node_id, judged) = match fields {
            Err(why) => (None, Err(why)),
            Ok(fields) if matches!(list, List::RevokedKeys | List::IgnoredKeys) => {
                (None, self.take_key(list, &fields, &mut notes))
            }
            Ok(fields) => match fields.node_id() {
                Err(why) => (None, Err(why)),
                Ok(peer) if Some(peer) == self.into.own_id => {
                    (Some(peer.get()), Err("this node itself, which is no peer".to_owned()))
                }
                Ok(peer) => (Some(peer.get()), self.take(list, index, peer, &fields, &mut notes)),
            },
        };
        if judged.is_ok() {
            for why in notes {
                self.find(Finding { list, index, node_id, skipped: false, why });
            }
        }
        self.settle(list, index, node_id, judged);
        if self.changes.len() >= CHANGES_MAX {
            self.flush();
        }
    }

    fn unknown(&mut self, name: &str) {
        self.unknown.note(None, None, name);
    }
}

pub(super) const TWICE: &str = "the peer stands in this list already, and the first entry counts";
pub(super) const IGNORED: &str = "the peer, or its key, is ignored; stop ignoring it first";
pub(super) const SET_ASIDE: &str =
    "the store remembers that this key was replaced, refused or revoked, and that stands; grant it, or ask, by name";
pub(super) const OTHERWISE: &str = "the store says something else about this peer, and that stays";
/// Entries between two versions of the tables.
pub(super) const CHANGES_MAX: usize = 8192;
/// More are read by nobody.
pub(crate) const FINDINGS_MAX: usize = 10_000;
