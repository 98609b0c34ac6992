//! What becomes of a document's marks: of revoked peers and keys, and of those that are ignored.
//!
//! INVARIANT I-T4: a mark of the store goes only where its id was given with the import, and where trust comes of that. One of
//! the document goes nowhere.
#![forbid(unsafe_code)]

use super::changes::{key_mark, mark};
use super::fields::Fields;
use super::finding::Finding;
use super::read::List;
use super::take::{Judged, TWICE, Taking, Took, Unchanged};
use super::values::full;
use crate::machine::view::View as _;
use crate::peer::{NodeId, PublicKey};
use crate::tables::forget::forgotten;
use crate::tables::{Marks, Revocation, TableChange};

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
        let is_lifted =
            |mark: &Revocation, old: Option<Revocation>| Some(*mark) == old && self.into.lifts.contains(&mark.id);
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
        let before = self.into.before;
        if self.revoked(peer).is_some() {
            // Whichever was first: the store's stays.
            return if before.revoked(peer).is_some() { Ok(Unchanged) } else { Err(TWICE.to_owned()) };
        }
        let said = id.map_or_else(|| mark(peer, at), |id| Revocation::new(at, id));
        self.changes.revoked.insert(peer.get(), Some(before.revoked(peer).unwrap_or(said)));
        if before.pending(peer).is_some() {
            self.changes.pending.insert(peer.get(), None);
        }
        if before.outgoing(peer).is_some() {
            self.changes.outgoing.insert(peer.get(), None);
        }
        if self.trusted(peer).is_some() {
            self.end_trust(List::Revoked, index, peer, notes);
        }
        Ok(Took)
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
        if self.revoked_key(&key).is_some() {
            return if before.revoked_key(&key).is_some() { Ok(Unchanged) } else { Err(TWICE.to_owned()) };
        }
        if self.after.revoked_keys_len() + self.changes.revoked_keys.len() >= max {
            return Err(full(max));
        }
        let said = id.map_or_else(|| key_mark(&key, at), |id| Revocation::new(at, id));
        self.changes.revoked_keys.insert(key, Some(before.revoked_key(&key).unwrap_or(said)));
        Ok(Took)
    }

    pub(super) fn take_ignored(&mut self, peer: NodeId, fields: &Fields, notes: &mut Vec<String>) -> Judged {
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

    /// Once all lists are read: nobody is trusted under a key that is revoked, and nothing waits under one that the store did
    /// not know for revoked, or asks for it.
    pub(super) fn end_under_revoked_keys(&mut self) {
        let before = self.into.before;
        if self.after.revoked_keys_len() == 0 {
            return;
        }
        let is_revoked = |key: Option<PublicKey>| key.filter(|key| self.after.revoked_key(key).is_some());
        let is_new = |key: Option<PublicKey>| is_revoked(key).is_some_and(|key| before.revoked_key(&key).is_none());
        let trusted = self.after.trusted.iter().filter(|record| is_revoked(record.public_key).is_some());
        let trusted: Vec<NodeId> = trusted.map(|record| record.node_id).collect();
        let forgotten = forgotten(self.after.pending_iter(), self.after.outgoing_iter(), |_, key| is_new(key));
        for peer in trusted {
            let mut notes = Vec::new();
            self.end_trust(List::RevokedKeys, 0, peer, &mut notes);
            for why in notes {
                let node_id = Some(peer.get());
                self.find(Finding { list: List::RevokedKeys, index: 0, node_id, skipped: false, why });
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
    }
}
