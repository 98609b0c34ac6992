//! What becomes of a document's marks: of revoked peers and keys, and of those that are ignored.
//!
//! INVARIANT I-T4: a mark of the store goes only where its id was given with the import, and where trust comes of that. One of
//! the document goes nowhere.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::changes::{key_mark, mark};
use super::fields::Fields;
use super::finding::Finding;
use super::read::List;
use super::take::{Judged, TWICE, Taking, Took, Unchanged};
use super::values::full;
use crate::machine::view::View as _;
use crate::peer::{NodeId, PublicKey, RevocationId};
use crate::tables::forget::forgotten;
use crate::tables::refuse::spoken_of;
use crate::tables::{Marks, Revocation, TableChange};
use crate::time::WallMillis;

impl Taking<'_> {
    fn revoked_key(&self, key: &PublicKey) -> Option<Revocation> {
        self.changes.revoked_keys.get(key).copied().unwrap_or_else(|| self.after.revoked_key(key))
    }

    pub(super) fn marks(&self, peer: NodeId, key: Option<&PublicKey>) -> Marks {
        Marks::new(self.revoked(peer), key.and_then(|key| self.revoked_key(key)))
    }

    /// Whether the peer may be trusted under this key, as far as marks go: of the store's, those that are to be lifted count
    /// for nothing.
    pub(super) fn is_free_of_marks(&self, peer: NodeId, key: Option<&PublicKey>) -> Result<(), String> {
        let (before, marks) = (self.into.before, self.marks(peer, key));
        let of_store = before.marks(peer, key);
        // One of the document is lifted by nothing, though the store has it, too.
        let is_said = self.revoked_read.contains(&peer) || key.is_some_and(|key| self.revoked_keys_read.contains(key));
        let is_lifted = |mark: &Revocation, old: Option<Revocation>| {
            !is_said && Some(*mark) == old && self.into.lifts.contains(&mark.id)
        };
        let stands = |what: &str, old: Option<Revocation>| {
            let by = if old.is_some() { "the store" } else { "the document" };
            let how = if old.is_some() { "; look at `trustkeep inspect`, and import with --lift" } else { "" };
            format!("{by} has revoked this {what}, and that stands{how}")
        };
        if marks.peer.is_some_and(|mark| !is_lifted(&mark, of_store.peer)) {
            return Err(stands("peer", of_store.peer));
        }
        if marks.key.is_some_and(|mark| !is_lifted(&mark, of_store.key)) {
            return Err(stands("key", of_store.key));
        }
        Ok(())
    }

    /// Takes the marks away that stand there still; the peer is trusted from here on.
    pub(super) fn lift(&mut self, peer: NodeId, key: Option<&PublicKey>) {
        let marks = self.marks(peer, key);
        if marks.peer.is_some() {
            self.changes.revoked.insert(peer.get(), None);
        }
        if let (Some(key), Some(_)) = (key, marks.key) {
            self.changes.revoked_keys.insert(*key, None);
        }
    }

    pub(super) fn take_revoked(
        &mut self,
        index: u64,
        peer: NodeId,
        fields: &Fields,
        notes: &mut Vec<String>,
    ) -> Judged {
        let until = fields.time("until")?;
        let at = self.past("revoked_at", fields, notes)?.unwrap_or_default();
        let id = fields.revocation("id")?;
        if until.is_some_and(|until| until <= self.into.now.wall) {
            notes.push("this revocation has ended by itself, and was not taken".to_owned());
            return Ok(Unchanged);
        }
        if !self.revoked_read.insert(peer) {
            return Err(TWICE.to_owned());
        }
        let before = self.into.before;
        let old = before.revoked(peer);
        let said = Revocation::new(at, id.unwrap_or(mark(peer, fields.time("revoked_at")?.unwrap_or_default()).id));
        // the very revocation that the store has changes nothing, and another one outdates what was seen before.
        let is_same = old.is_some_and(|old| is_the_same(old, said, id));
        // By its id alone: what took something away has another one, and the time of the document.
        if old.is_some_and(|old| old.id != said.id) {
            self.revoked_otherwise.insert(peer);
        }
        if is_same {
            self.same_marks.insert(peer);
            return Ok(Unchanged);
        }
        let waits = before.pending(peer).is_some() || before.outgoing(peer).is_some();
        let takes_away = waits || before.trusted(peer).is_some();
        if takes_away {
            self.revoked_otherwise.insert(peer);
        }
        if old.is_some() && !takes_away {
            return Ok(Unchanged);
        }
        let mut revocation = old.unwrap_or(said);
        if takes_away {
            revocation.id = self.fresh_id();
        }
        self.changes.revoked.insert(peer.get(), Some(revocation));
        if waits {
            self.waited.extend(before.pending(peer).map(|entry| (peer, entry.keys().collect())));
            self.changes.pending.insert(peer.get(), None);
            self.changes.outgoing.insert(peer.get(), None);
            notes.push("what waited of this peer, or was asked of it, is forgotten".to_owned());
        }
        if self.trusted(peer).is_some() {
            self.end_trust(List::Revoked, index, peer, notes);
        }
        Ok(Took)
    }

    /// An id that nobody has seen yet.
    fn fresh_id(&mut self) -> RevocationId {
        RevocationId::drawn_from((self.into.nonce)())
    }

    /// Every end of trust by an import passes through here.
    fn end_trust(&mut self, list: List, index: u64, peer: NodeId, notes: &mut Vec<String>) {
        self.trusted_len = self.trusted_len.saturating_sub(1);
        self.changes.trusted.insert(peer.get(), None);
        if self.into.before.trusted(peer).is_some() {
            notes.push("the store trusted this peer, and does so no longer".to_owned());
        } else {
            let trusted = self.count(List::Trusted);
            (trusted.taken, trusted.skipped) = (trusted.taken.saturating_sub(1), trusted.skipped + 1);
            let why = "the document's trusted entry of this peer: it, or its key, is revoked as well, and that stands";
            let (node_id, why) = (Some(peer.get()), why.to_owned());
            self.find(Finding { list, index, node_id, skipped: true, why });
        }
    }

    pub(super) fn take_key(&mut self, list: List, fields: &Fields, notes: &mut Vec<String>) -> Judged {
        let key = fields.key("public_key")?.ok_or_else(|| "no `public_key`".to_owned())?;
        if list == List::IgnoredKeys {
            self.take_ignored_key(key, fields, notes)
        } else {
            self.take_revoked_key(key, fields, notes)
        }
    }

    fn take_revoked_key(&mut self, key: PublicKey, fields: &Fields, notes: &mut Vec<String>) -> Judged {
        let at = self.past("revoked_at", fields, notes)?.unwrap_or_default();
        let id = fields.revocation("id")?;
        let (before, max) = (self.into.before, self.into.limits.revoked_keys_max);
        if !self.revoked_keys_read.insert(key) {
            return Err(TWICE.to_owned());
        }
        let old = before.revoked_key(&key);
        let said = Revocation::new(at, id.unwrap_or(key_mark(&key, fields.time("revoked_at")?.unwrap_or_default()).id));
        let is_same = old.is_some_and(|old| is_the_same(old, said, id));
        if old.is_some_and(|old| old.id != said.id) {
            self.keys_revoked_otherwise.insert(key);
        }
        if is_same {
            return Ok(Unchanged);
        }
        if old.is_none() && self.after.revoked_keys_len() + self.changes.revoked_keys.len() >= max {
            return Err(full(max));
        }
        // What is under the key is looked for once all lists are read.
        self.keys_revoked.insert(key);
        if old.is_some() {
            return Ok(Unchanged);
        }
        self.changes.revoked_keys.insert(key, Some(said));
        Ok(Took)
    }

    pub(super) fn take_ignored(
        &mut self,
        index: u64,
        peer: NodeId,
        fields: &Fields,
        notes: &mut Vec<String>,
    ) -> Judged {
        let at = self.past("ignored_at", fields, notes)?.unwrap_or(self.into.now.wall);
        let (before, max) = (self.into.before, self.into.limits.ignored_max);
        if before.ignored(peer).is_some() {
            return Ok(Unchanged);
        }
        if self.changes.ignored.contains_key(&peer.get()) || self.after.ignored(peer).is_some() {
            return Err(TWICE.to_owned());
        }
        if self.after.ignored_len() + self.changes.ignored.len() >= max {
            return Err(full(max));
        }
        self.changes.ignored.insert(peer.get(), Some(at));
        self.peers_ignored.insert(peer, index);
        Ok(Took)
    }

    fn take_ignored_key(&mut self, key: PublicKey, fields: &Fields, notes: &mut Vec<String>) -> Judged {
        let at = self.past("ignored_at", fields, notes)?.unwrap_or(self.into.now.wall);
        let (before, max) = (self.into.before, self.into.limits.ignored_keys_max);
        if before.ignored_key(&key).is_some() {
            return Ok(Unchanged);
        }
        if self.changes.ignored_keys.contains_key(&key) || self.after.ignored_key(&key).is_some() {
            return Err(TWICE.to_owned());
        }
        if self.after.ignored_keys_len() + self.changes.ignored_keys.len() >= max {
            return Err(full(max));
        }
        self.changes.ignored_keys.insert(key, Some(at));
        Ok(Took)
    }

    /// Once all lists are read: nobody is trusted under a key that is revoked, no trusted peer is ignored, and nothing waits
    /// of who is ignored from here on, or under a key that the document revokes, or asks for it.
    pub(super) fn end_what_marks_forbid(&mut self) {
        let before = self.into.before;
        // Cheap: it shares everything.
        let after = self.after.clone();
        let is_revoked = |key: Option<PublicKey>| key.filter(|key| after.revoked_key(key).is_some());
        let trusted = after.trusted.iter().filter(|record| is_revoked(record.public_key).is_some());
        let trusted: Vec<_> = match after.revoked_keys_len() {
            0 => Vec::new(),
            _ => trusted.map(|record| (record.node_id, record.public_key)).collect(),
        };
        for (peer, _) in &trusted {
            let mut notes = Vec::new();
            self.end_trust(List::RevokedKeys, 0, *peer, &mut notes);
            for why in notes {
                let node_id = Some(peer.get());
                self.find(Finding { list: List::RevokedKeys, index: 0, node_id, skipped: false, why });
            }
        }
        self.flush();
        self.settle_trusted();
        // Whose trust has ended may be ignored.
        self.no_trusted_peer_is_ignored();
        let after = self.after.clone();
        let (peers_ignored, keys_revoked) =
            (core::mem::take(&mut self.peers_ignored), core::mem::take(&mut self.keys_revoked));
        let is_ignored_key = |key: PublicKey| after.ignored_key(&key).is_some() && before.ignored_key(&key).is_none();
        let is_of = |peer: NodeId, key: Option<PublicKey>| {
            peers_ignored.contains_key(&peer)
                || key.is_some_and(|key| keys_revoked.contains(&key))
                || (after.trusted(peer).is_none() && key.is_some_and(is_ignored_key))
        };
        self.waited.extend(spoken_of(after.pending_iter(), is_of));
        let forgotten = forgotten(after.pending_iter(), after.outgoing_iter(), is_of);
        // where a revocation took something away, an approval of what was seen before lifts nothing.
        let keys = forgotten.iter().flat_map(|change| match change {
            TableChange::Pending(peer, _) => {
                before.pending(*peer).map(|it| it.keys().map(|it| it.key).collect()).unwrap_or_default()
            }
            TableChange::Outgoing(peer, _) => {
                before.outgoing(*peer).and_then(|it| it.expected_key).into_iter().collect()
            }
            _ => Vec::new(),
        });
        let of_store = trusted.iter().filter(|(peer, _)| before.trusted(*peer).is_some()).filter_map(|(_, key)| *key);
        let outdated: BTreeSet<PublicKey> = keys.chain(of_store).filter(|key| keys_revoked.contains(key)).collect();
        for key in outdated {
            self.keys_revoked_otherwise.insert(key);
            if let Some(mark) = self.revoked_key(&key) {
                let id = self.fresh_id();
                self.changes.revoked_keys.insert(key, Some(Revocation::new(mark.at, id)));
            }
            if before.revoked_key(&key).is_some() {
                let revoked = self.count(List::RevokedKeys);
                (revoked.unchanged, revoked.taken) = (revoked.unchanged.saturating_sub(1), revoked.taken + 1);
            }
        }
        for change in forgotten {
            match change {
                TableChange::Pending(peer, left) => {
                    drop(self.changes.pending.insert(peer.get(), left.map(|left| (*left).clone())));
                }
                TableChange::Outgoing(peer, _) => drop(self.changes.outgoing.insert(peer.get(), None)),
                _ => {}
            }
        }
        self.flush();
    }

    /// trust stands above ignoring, wherever either comes from.
    fn no_trusted_peer_is_ignored(&mut self) {
        // if the trust has lasted so far.
        for (peer, index) in core::mem::take(&mut self.ignored_trusted) {
            if self.trusted(peer).is_some() {
                self.changes.ignored.insert(peer.get(), None);
                let why = "the store ignored this peer, which is trusted now, and heard again".to_owned();
                self.find(Finding { list: List::Trusted, index, node_id: Some(peer.get()), skipped: false, why });
            }
        }
        let trusted: Vec<_> = self
            .peers_ignored
            .iter()
            .filter(|(peer, _)| self.trusted(**peer).is_some())
            .map(|(p, i)| (*p, *i))
            .collect();
        for (peer, index) in trusted {
            self.peers_ignored.remove(&peer);
            self.changes.ignored.insert(peer.get(), None);
            let ignored = self.count(List::Ignored);
            ignored.taken = ignored.taken.saturating_sub(1);
            ignored.skipped += 1;
            let why = "the peer is trusted, and a trusted peer is not ignored; end its trust first".to_owned();
            self.find(Finding { list: List::Ignored, index, node_id: Some(peer.get()), skipped: true, why });
        }
        self.flush();
    }

    /// Whether nothing is heard of this peer, or under this key.
    pub(super) fn is_ignored(&self, peer: NodeId, key: Option<&PublicKey>) -> bool {
        let by_key = key.is_some_and(|key| self.after.ignored_key(key).is_some());
        self.after.ignored(peer).is_some() || (by_key && self.trusted(peer).is_none())
    }
}

/// Whether the document says what the store says: by the id, also by the one that an import makes of a revocation without one,
/// or, where an older document has none, by the time.
fn is_the_same(old: Revocation, said: Revocation, id: Option<RevocationId>) -> bool {
    old.id == said.id || (id.is_none() && said.at == old.at && said.at != WallMillis::default())
}
