//! What becomes of a store when a document is read into it.
//!
//! INVARIANT I-T1: what comes out obeys the invariants of the tables, whatever the document says.
//! INVARIANT I-T2: a restriction stands above a grant, and no floor moves back, wherever either comes from; of an entry
//! that says something else than the store does about the same peer in the same list, the store's stays.
//! INVARIANT I-T3: memory is bounded by the tables that come out and the findings that are kept.
//!
//! More than 450 lines because every list is judged by the same rules against the same state.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::changes::{Changes, Later, higher, settled};
use super::fields::Fields;
use super::finding::{Count, Finding, Unknown, UnknownNames};
use super::read::{LISTS, List, Sink};
use super::remarks::Remarks;
use super::take_remembered::Remembered;
use super::values::{full, not_after, source, text};
use crate::config::Limits;
use crate::machine::view::View as _;
use crate::peer::{NodeId, PublicKey, RevocationId, TrustRecord};
use crate::tables::{Floor, Nonce, Outgoing, Pending, PendingKind, Revocation, Source};
use crate::tables::{Tables, succession};
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
    pending: BTreeMap<u32, Later<Pending>>,
    of_source: BTreeMap<Source, usize>,
    outgoing: BTreeMap<u32, Later<Outgoing>>,
    floors_len: usize,
    /// Keys that the document revokes, and the store had not by the same revocation.
    pub(super) keys_revoked: HashSet<PublicKey>,
    /// Peers that the document ignores and the store had not, with their places.
    pub(super) peers_ignored: BTreeMap<NodeId, u64>,
    /// Peers whose mark in the document is the very one that the store has.
    pub(super) same_marks: BTreeSet<NodeId>,
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
        let mut of_source = BTreeMap::new();
        for (_, entry) in before.pending_iter() {
            *of_source.entry(entry.source).or_default() += 1;
        }
        Self {
            after: before.clone(),
            changes: Changes::default(),
            trusted_len: before.trusted_len(),
            pending: BTreeMap::new(),
            of_source,
            outgoing: BTreeMap::new(),
            floors_len: before.floor_len(),
            keys_revoked: HashSet::new(),
            peers_ignored: BTreeMap::new(),
            same_marks: BTreeSet::new(),
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
        let mut fresh_nonces = 0;
        for (id, Later { index, entry, is_fresh }) in core::mem::take(&mut self.outgoing) {
            let marks = NodeId::new(id).map(|peer| self.marks(peer, entry.expected_key.as_ref())).unwrap_or_default();
            if marks.not_lifted_by(entry.lift).is_some() {
                let why = "the peer, or its key, is revoked; ask it anew".to_owned();
                self.leave_out(List::Outgoing, index, id, why);
            } else if let Some(why) = NodeId::new(id).and_then(|peer| self.asks_in_vain(peer, &entry)) {
                self.leave_out(List::Outgoing, index, id, why.to_owned());
            } else {
                self.changes.outgoing.insert(id, Some(entry));
                fresh_nonces += u64::from(is_fresh);
            }
        }
        for (id, Later { index, entry, is_fresh }) in core::mem::take(&mut self.pending) {
            let record = NodeId::new(id).and_then(|peer| self.trusted(peer));
            if record.is_some_and(|record| record.public_key == Some(entry.key)) {
                let why = "the peer is trusted under this key already; nothing waits".to_owned();
                self.leave_out(List::Pending, index, id, why);
            } else if NodeId::new(id).is_some_and(|peer| self.is_ignored(peer, Some(&entry.key))) {
                self.leave_out(List::Pending, index, id, IGNORED.to_owned());
            } else if NodeId::new(id).is_some_and(|peer| {
                // of version 1 no stamp means anything.
                entry.nonce.is_some() && self.is_refused(peer, &entry.key, entry.stamp)
            }) {
                let why = "an operator has refused this request, and that stands".to_owned();
                self.leave_out(List::Pending, index, id, why);
            } else if entry.kind == PendingKind::AnsweredUnvouched && !self.asks(id) {
                //
                let why = "an answer to a request that is not there any more; ask the peer again".to_owned();
                self.leave_out(List::Pending, index, id, why);
            } else {
                self.changes.pending.insert(id, Some(entry));
                fresh_nonces += u64::from(is_fresh);
            }
        }
        self.flush();
        fresh_nonces += self.settle_remembered();
        let Self { after, counts, skipped: mut findings, notes, mut findings_left_out, .. } = self;
        let UnknownNames { names: unknown, left_out: unknown_left_out } = self.unknown;
        let room = FINDINGS_MAX.saturating_sub(findings.len());
        findings_left_out += notes.len().saturating_sub(room) as u64;
        findings.extend(notes.into_iter().take(room));
        let remarks = Remarks::new(self.into.before, &after);
        Taken { after, counts, findings, findings_left_out, unknown, unknown_left_out, fresh_nonces, remarks }
    }

    /// Why this request of ours to this peer is none, if so.
    fn asks_in_vain(&self, peer: NodeId, entry: &Outgoing) -> Option<&'static str> {
        let record = self.into.before.trusted(peer);
        // an answer under it would end the store's record.
        let names_another =
            entry.expected_key.is_some() && record.is_some_and(|it| it.public_key != entry.expected_key);
        if names_another {
            return Some("the store trusts this peer under another key than the request names; ask it anew");
        }
        if self.sets_aside(peer, entry.expected_key.as_ref()) {
            // an answer under it would bring the key back.
            return Some(SET_ASIDE);
        }
        self.is_ignored(peer, entry.expected_key.as_ref()).then_some(IGNORED)
    }

    /// Whether the store remembers that another key replaced this one, or that what named it is void.
    fn sets_aside(&self, peer: NodeId, key: Option<&PublicKey>) -> bool {
        let before = self.into.before;
        let is_of_record = before.trusted(peer).is_some_and(|record| record.public_key.as_ref() == key);
        !is_of_record && key.is_some_and(|key| succession::set_aside(before.successors(peer), key).is_some())
    }

    /// Whether a request of ours to this peer is open once everything is taken.
    fn asks(&self, id: u32) -> bool {
        match self.changes.outgoing.get(&id) {
            Some(change) => change.is_some(),
            None => NodeId::new(id).is_some_and(|peer| self.after.outgoing(peer).is_some()),
        }
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

    /// An entry that was counted as taken, and against which something stands that came later.
    fn leave_out(&mut self, list: List, index: u64, node_id: u32, why: String) {
        let count = self.count(list);
        count.taken = count.taken.saturating_sub(1);
        self.settle(list, index, Some(node_id), Err(why));
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

    fn floor(&self, peer: NodeId) -> Option<Floor> {
        self.changes.floors.get(&peer.get()).copied().unwrap_or_else(|| self.after.floor(peer))
    }

    fn take(&mut self, list: List, index: u64, peer: NodeId, fields: &Fields, notes: &mut Vec<String>) -> Judged {
        match list {
            List::Trusted => self.take_trusted(peer, fields, notes),
            List::Pending => self.take_pending(index, peer, fields, notes),
            List::Outgoing => self.take_outgoing(index, peer, fields, notes),
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

    fn take_trusted(&mut self, peer: NodeId, fields: &Fields, notes: &mut Vec<String>) -> Judged {
        let record = TrustRecord::new(peer, fields.key("public_key")?)
            .approved_at(self.past("approved_at", fields, notes)?.unwrap_or_default())
            .mutual(fields.flag("mutual")?)
            .network(fields.number("network", u16::MAX)?);
        let before = self.into.before;
        self.is_not_ours(record.public_key.as_ref())?;
        self.is_free_of_marks(peer, record.public_key.as_ref())?;
        match before.trusted(peer) {
            Some(old) if old == record => return Ok(Unchanged),
            Some(_) => return Err(OTHERWISE.to_owned()),
            None if self.trusted(peer).is_some() => return Err(TWICE.to_owned()),
            None => {}
        }
        if self.sets_aside(peer, record.public_key.as_ref()) {
            return Err(SET_ASIDE.to_owned());
        }
        if self.trusted_len >= self.into.limits.trusted_max {
            return Err(full(self.into.limits.trusted_max));
        }
        self.lift(peer, record.public_key.as_ref());
        self.trusted_len += 1;
        self.changes.trusted.insert(peer.get(), Some(record));
        if before.pending(peer).is_some_and(|entry| record.public_key == Some(entry.key)) {
            // Settled by this.
            self.changes.pending.insert(peer.get(), None);
        }
        Ok(Took)
    }

    fn take_pending(&mut self, index: u64, peer: NodeId, fields: &Fields, notes: &mut Vec<String>) -> Judged {
        let Some(key) = fields.key("public_key")? else {
            return Err("no `public_key`, so there is nothing to approve; the peer must ask again".to_owned());
        };
        self.is_not_ours(Some(&key))?;
        let now = self.into.now;
        let received_at = self.past("received_at", fields, notes)?.unwrap_or(now.wall);
        let nonce = fields.nonce("nonce")?;
        // A request of version 2 has one. Without it, it would be taken for one of version 1.
        let is_fresh = fields.flag("spoke_v2")? && nonce.is_none();
        let said_authentic = fields.flag("authentic")?;
        let mut entry = Pending {
            key,
            nonce,
            stamp: self.stamp("stamp", fields, notes)?.unwrap_or(received_at),
            justification: text("justification", fields, notes)?,
            received_at,
            received_tick: now.tick,
            source: source(peer, fields, notes)?,
            // Who vouched, and for what, is nothing that a document can show.
            authentic: false,
            conflicts: fields.number("conflicts", u32::MAX)?,
            kind: match fields.text("kind")? {
                None | Some("request") => PendingKind::Request,
                Some("answered_unvouched") => PendingKind::AnsweredUnvouched,
                Some(_) => return Err("`kind` is neither `request` nor `answered_unvouched`".to_owned()),
            },
            others: Vec::new(),
            proven_by: None,
            number: 0,
        };
        if let Some(old) = self.into.before.pending(peer) {
            entry.received_tick = old.received_tick;
            entry.authentic = old.authentic;
            if is_fresh {
                entry.nonce = old.nonce;
            }
            // What a document does not have is no difference.
            (entry.number, entry.others, entry.proven_by) = (old.number, old.others.clone(), old.proven_by);
            return if *old == entry { Ok(Unchanged) } else { Err(OTHERWISE.to_owned()) };
        }
        if self.pending.contains_key(&peer.get()) {
            return Err(TWICE.to_owned());
        }
        let limits = self.into.limits;
        if self.into.before.pending_len() + self.pending.len() >= limits.pending_max {
            return Err(full(limits.pending_max));
        }
        let of_source = self.of_source.entry(entry.source).or_default();
        if *of_source >= limits.pending_per_source_max {
            return Err(format!("more than {} wait from this source", limits.pending_per_source_max));
        }
        *of_source += 1;
        if said_authentic {
            notes.push("`authentic` is not taken from a document; nobody vouches for this key here".to_owned());
        }
        if is_fresh {
            entry.nonce = Some((self.into.nonce)());
        }
        self.pending.insert(peer.get(), Later { index, entry, is_fresh });
        Ok(Took)
    }

    fn take_outgoing(&mut self, index: u64, peer: NodeId, fields: &Fields, notes: &mut Vec<String>) -> Judged {
        let now = self.into.now;
        let nonce = fields.nonce("nonce")?;
        let mut entry = Outgoing {
            sent_at: self.past("sent_at", fields, notes)?.unwrap_or(now.wall),
            sent_tick: now.tick,
            nonce: nonce.unwrap_or(Nonce([0; 16])),
            expected_key: fields.key("expected_key")?,
            justification: text("justification", fields, notes)?,
            lift: fields.revocation("lift")?,
            // A document does not say whether a relay had the request: it may have had it.
            relayed: true,
            refused: None,
        };
        // its answer would lift the mark, which only who imports may decide.
        let is_named = |id: &RevocationId| {
            self.into.lifts.contains(id) || self.into.before.outgoing(peer).is_some_and(|old| old.lift == Some(*id))
        };
        if entry.lift.is_some_and(|id| !is_named(&id)) {
            return Err("its answer would lift a revocation that was not named with `--lift`".to_owned());
        }
        if let Some(old) = self.into.before.outgoing(peer) {
            entry.sent_tick = old.sent_tick;
            if nonce.is_none() {
                entry.nonce = old.nonce;
            }
            return if *old == entry { Ok(Unchanged) } else { Err(OTHERWISE.to_owned()) };
        }
        if self.outgoing.contains_key(&peer.get()) {
            return Err(TWICE.to_owned());
        }
        if self.into.before.outgoing_len() + self.outgoing.len() >= self.into.limits.outgoing_max {
            return Err(full(self.into.limits.outgoing_max));
        }
        let is_fresh = nonce.is_none();
        if is_fresh {
            // No answer that is under way will be known as one; having asked still counts.
            entry.nonce = (self.into.nonce)();
        }
        self.outgoing.insert(peer.get(), Later { index, entry, is_fresh });
        Ok(Took)
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
        let said = settled(Floor { key, seen, before, sent: reserved, reserved, spoke_v2 });
        let before = self.into.before.floor(peer);
        if before.is_none() && self.floor(peer).is_some() {
            return Err(TWICE.to_owned());
        }
        let is_known = self.trusted(peer).is_some()
            || self.revoked(peer).is_some()
            || self.pending.contains_key(&peer.get())
            || self.outgoing.contains_key(&peer.get())
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
    fn is_not_ours(&self, key: Option<&PublicKey>) -> Result<(), String> {
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
    fn stamp(
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
const IGNORED: &str = "the peer, or its key, is ignored; stop ignoring it first";
const SET_ASIDE: &str =
    "the store remembers that this key was replaced, refused or revoked, and that stands; grant it, or ask, by name";
pub(super) const OTHERWISE: &str = "the store says something else about this peer, and that stays";
/// Entries between two versions of the tables.
pub(super) const CHANGES_MAX: usize = 8192;
/// More are read by nobody.
pub(crate) const FINDINGS_MAX: usize = 10_000;
