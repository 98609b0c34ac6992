//! What becomes of a document's lists of what a store remembers: statements of keys, refused requests, decisions that peers
//! were not told yet, and revisions of the registry.
//!
//! INVARIANT I-T5: what either side holds void, replaced or refused is so afterwards, but where the peer is trusted under that
//! very key.
//! INVARIANT I-T6: nothing is owed by a document that the state which results contradicts.
//!
//! Lists come in any order, so all of this is judged once everything else is.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::fields::Fields;
use super::finding::Finding;
use super::read::List;
use super::remembered::contradiction;
use super::take::{CHANGES_MAX, Held, Judged, OTHERWISE, TWICE, Taking, Took, Unchanged};
use super::values::{full, text};
use crate::machine::view::View as _;
use crate::peer::{NodeId, PublicKey};
use crate::tables::table::Table as _;
use crate::tables::{
    Nonce, Owed, REFUSED_PER_PEER_MAX, RefusedRequest, SUCCESSIONS_PER_PEER_MAX, Succession, TableChange, Void,
    succession,
};
use crate::time::WallMillis;
use crate::wire::message::Kind;

/// Entries that are in order, each with its place in its list.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    successors: BTreeMap<NodeId, Vec<(u64, Succession)>>,
    refused: BTreeMap<NodeId, Vec<RefusedHeld>>,
    owed: BTreeMap<NodeId, OwedHeld>,
    revisions: BTreeMap<NodeId, (u64, u64)>,
}

#[derive(Debug)]
struct RefusedHeld {
    index: u64,
    entry: RefusedRequest,
    /// What of it was in the document, and not in times to come.
    has_stamp: bool,
    has_time: bool,
}

#[derive(Debug)]
struct OwedHeld {
    index: u64,
    entry: Owed,
    /// What of it was in the document.
    has_nonce: bool,
    has_answers: bool,
    has_time: bool,
}

impl Taking<'_> {
    pub(super) fn hold_successor(&mut self, index: u64, peer: NodeId, fields: &Fields) -> Judged {
        let key = |name| fields.key(name)?.ok_or_else(|| format!("no `{name}`"));
        let (old, new) = (key("old_key")?, key("new_key")?);
        let replaced = fields.flag("replaced")?;
        let void = match fields.text("void")?.filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => {
                let void = [Void::Revoked, Void::Refused].into_iter().find(|void| void.name() == text);
                Some(void.ok_or("`void` is neither `revoked` nor `refused`")?)
            }
        };
        if replaced && old == new {
            return Err("`replaced` of a key by itself".to_owned());
        }
        let all = &mut self.remembered.successors;
        if !all.contains_key(&peer) && self.into.before.sides.successors.get(peer).is_none() {
            // Those of the store stay, whatever comes.
            let max = self.into.limits.successors_max;
            if self.into.before.successors_len() + all.len() >= max {
                return Err(full(max));
            }
        }
        let of_peer = all.entry(peer).or_default();
        if of_peer.iter().any(|(_, it)| (it.old, it.new) == (old, new)) {
            return Err("this statement stands in this list already, and the first entry counts".to_owned());
        }
        if of_peer.len() >= SUCCESSIONS_PER_PEER_MAX {
            return Err(format!("more than {SUCCESSIONS_PER_PEER_MAX} statements of this peer"));
        }
        of_peer.push((index, Succession { replaced, void, ..Succession::new(old, new) }));
        Ok(Held)
    }

    pub(super) fn hold_refused(
        &mut self,
        index: u64,
        peer: NodeId,
        fields: &Fields,
        notes: &mut Vec<String>,
    ) -> Judged {
        let key = fields.key("public_key")?.ok_or("no `public_key`")?;
        let at = self.past("refused_at", fields, notes)?.unwrap_or(self.into.now.wall);
        // One that lies too far ahead keeps nothing out, and is not moved back to where it would.
        let stamp = fields.time("stamp")?;
        let has_time = fields.time("refused_at")? == Some(at);
        let has_stamp = has_time || stamp.is_some();
        let stamp = stamp.unwrap_or(at);
        let all = &mut self.remembered.refused;
        if !all.contains_key(&peer) && self.into.before.sides.refused.get(peer).is_none() {
            let max = self.into.limits.refused_peers_max();
            if self.into.before.refused_len() + all.len() >= max {
                return Err(full(max));
            }
        }
        let of_peer = all.entry(peer).or_default();
        if of_peer.iter().any(|it| it.entry.key == key) {
            return Err("this key of the peer stands in this list already, and the first entry counts".to_owned());
        }
        if of_peer.len() >= REFUSED_PER_PEER_MAX {
            return Err(format!("more than {REFUSED_PER_PEER_MAX} refused requests of this peer"));
        }
        of_peer.push(RefusedHeld { index, entry: RefusedRequest { key, stamp, at }, has_stamp, has_time });
        Ok(Held)
    }

    pub(super) fn hold_owed(&mut self, index: u64, peer: NodeId, fields: &Fields, notes: &mut Vec<String>) -> Judged {
        let now = self.into.now;
        let kind = match fields.text("kind")? {
            Some("accept") => Kind::Accept,
            Some("reject") => Kind::Reject,
            Some("revoke") => Kind::Revoke,
            Some(_) => return Err("`kind` is neither `accept`, `reject` nor `revoke`".to_owned()),
            None => return Err("no `kind`".to_owned()),
        };
        let (nonce, answers, for_key) = (fields.nonce("nonce")?, fields.nonce("answers")?, fields.key("public_key")?);
        let spoke_v2 = fields.flag("spoke_v2")?;
        if kind == Kind::Revoke && (answers.is_some() || for_key.is_some() || spoke_v2) {
            let what = "a `revoke` is for the peer: it has no `public_key`, `answers` or `spoke_v2`";
            return Err(what.to_owned());
        }
        let has_nonce = nonce.is_some();
        let has_answers = answers.is_some() || !spoke_v2;
        let since = self.past("decided_at", fields, notes)?.unwrap_or(now.wall);
        let has_time = fields.time("decided_at")? == Some(since);
        let entry = Owed {
            kind,
            // Those that are not in the document are drawn if the entry is taken.
            nonce: nonce.unwrap_or(Nonce([0; 16])),
            answers,
            reason: text("reason", fields, notes)?,
            since,
            since_tick: now.tick,
            for_key,
        };
        let all = &mut self.remembered.owed;
        if all.contains_key(&peer) {
            return Err(TWICE.to_owned());
        }
        let max = self.into.limits.owed_max;
        if all.len() >= max {
            return Err(full(max));
        }
        all.insert(peer, OwedHeld { index, entry, has_nonce, has_answers, has_time });
        Ok(Held)
    }

    pub(super) fn hold_revision(&mut self, index: u64, peer: NodeId, fields: &Fields) -> Judged {
        let revision = fields.number("revision", u64::MAX)?;
        if revision == 0 {
            return Err("no `revision`, or 0, which is that of an entry without one".to_owned());
        }
        let all = &mut self.remembered.revisions;
        if all.contains_key(&peer) {
            return Err(TWICE.to_owned());
        }
        let max = self.into.limits.trusted_max;
        if all.len() >= max {
            return Err(full(max));
        }
        all.insert(peer, (index, revision));
        Ok(Held)
    }

    /// What either side refused is refused; of the same key, the newest stamp counts that keeps anything out.
    pub(super) fn settle_refused(&mut self) {
        let latest = super::latest_stamp(self.into.now.wall);
        for (peer, said) in core::mem::take(&mut self.remembered.refused) {
            let before = self.after.refused(peer).to_vec();
            let mut all = before.clone();
            for RefusedHeld { index, entry: mut it, has_stamp, has_time } in said {
                let is_full = all.len() >= REFUSED_PER_PEER_MAX;
                let judged = match all.iter_mut().find(|known| known.key == it.key) {
                    Some(known) => {
                        // What the import chose the last time stays.
                        if !has_stamp {
                            it.stamp = known.stamp;
                        }
                        if !has_time {
                            it.at = known.at;
                        }
                        let stamp = [known.stamp, it.stamp].into_iter().max_by_key(|at| (*at <= latest, *at));
                        let next =
                            RefusedRequest { key: it.key, stamp: stamp.unwrap_or(it.stamp), at: known.at.max(it.at) };
                        let is_news = *known != next;
                        *known = next;
                        if is_news { Ok(Took) } else { Ok(Unchanged) }
                    }
                    None if is_full => Err(format!("more than {REFUSED_PER_PEER_MAX} refused requests of this peer")),
                    None => {
                        all.push(it);
                        Ok(Took)
                    }
                };
                self.settle(List::Refused, index, Some(peer.get()), judged);
            }
            if !before.is_empty() && all.len() > before.len() {
                // Of those of both, the oldest refusal comes first.
                all.sort_by_key(|it| it.at);
            }
            if all != before {
                self.changes.refused.insert(peer.get(), Some(all.into()));
                self.flush_if_many();
            }
        }
        self.flush();
    }

    /// once the document's refusals are in `after`, and before it is judged what waits.
    pub(super) fn refuse_what_waited(&mut self) {
        let waited: Vec<_> = core::mem::take(&mut self.waited).into_iter().collect();
        for change in self.after.remembered(&waited, self.into.now.wall, self.into.limits.pending_max) {
            if let TableChange::Refused(peer, refused) = change {
                self.changes.refused.insert(peer.get(), refused);
            }
        }
        self.flush();
    }

    /// whether an operator has refused this request, or a newer one under its key.
    pub(super) fn is_refused(&self, peer: NodeId, key: &PublicKey, stamp: WallMillis) -> bool {
        let latest = super::latest_stamp(self.into.now.wall);
        self.after.refused(peer).iter().any(|it| it.key == *key && stamp <= it.stamp && it.stamp <= latest)
    }

    /// Once everything else is in `after`.
    pub(super) fn settle_remembered(&mut self) -> u64 {
        self.settle_successors();
        let fresh_nonces = self.settle_owed();
        self.settle_revisions();
        fresh_nonces
    }

    /// I-T5.
    fn settle_successors(&mut self) {
        for (peer, said) in core::mem::take(&mut self.remembered.successors) {
            let before = self.after.successors(peer).to_vec();
            let mut all = before.clone();
            let key = self.after.trusted(peer).and_then(|record| record.public_key);
            // the store has revoked the peer, and knows nothing of these statements. They may be older.
            let is_revoked = self.into.before.revoked(peer).is_some() && !self.same_marks.contains(&peer);
            for (index, mut it) in said {
                let node_id = Some(peer.get());
                if it.replaced && key == Some(it.old) {
                    it.replaced = false;
                    let why = "`replaced` was not taken: the peer is trusted under this very key".to_owned();
                    self.find(Finding { list: List::Successors, index, node_id, skipped: false, why });
                }
                let is_full = all.len() >= SUCCESSIONS_PER_PEER_MAX;
                let judged = match all.iter_mut().find(|known| (known.old, known.new) == (it.old, it.new)) {
                    Some(known) => {
                        let (replaced, void) = (known.replaced || it.replaced, known.void.or(it.void));
                        let next = Succession { replaced, void, ..*known };
                        let is_news = *known != next;
                        *known = next;
                        if is_news { Ok(Took) } else { Ok(Unchanged) }
                    }
                    None if is_full => Err(format!("more than {SUCCESSIONS_PER_PEER_MAX} statements of this peer")),
                    None => {
                        let void = it.void.or(is_revoked.then_some(Void::Revoked));
                        all.push(Succession { void, ..it });
                        Ok(Took)
                    }
                };
                self.settle(List::Successors, index, node_id, judged);
            }
            // whichever side revoked the key that one names.
            let names_in_vain = |it: &Succession| it.old != it.new && self.after.revoked_key(&it.new).is_some();
            succession::make_void(&mut all, Void::Revoked, names_in_vain);
            if let Some(key) = &key {
                succession::granted(&mut all, key);
            }
            if all != before {
                self.changes.successors.insert(peer.get(), Some(all.into()));
                self.flush_if_many();
            }
        }
        self.flush();
    }

    /// I-T6. How many answers were taken without the nonce that they answer.
    fn settle_owed(&mut self) -> u64 {
        let (max, mut len, mut fresh_nonces) = (self.into.limits.owed_max, self.after.owed_len(), 0);
        for (peer, held) in core::mem::take(&mut self.remembered.owed) {
            let OwedHeld { index, mut entry, has_nonce, has_answers, has_time } = held;
            let before = self.after.owed(peer).cloned();
            let since = entry.since;
            if let Some(old) = &before {
                entry.since_tick = old.since_tick;
                if !has_time {
                    entry.since = old.since;
                }
                if !has_nonce {
                    entry.nonce = old.nonce;
                }
                if !has_answers {
                    entry.answers = old.answers;
                }
            }
            // What the store owes and what is not so any more is cancelled by the next try, and in nobody's way.
            let stands = before.as_ref().is_some_and(|old| contradiction(&self.after, peer, old).is_none());
            let judged = if before.as_ref() == Some(&entry) {
                Ok(Unchanged)
            } else if let Some(why) = contradiction(&self.after, peer, &entry) {
                Err(why.to_owned())
            } else if stands {
                Err(OTHERWISE.to_owned())
            } else if before.is_none() && len >= max {
                Err(full(max))
            } else {
                len += usize::from(before.is_none());
                entry.since = since;
                if !has_nonce {
                    entry.nonce = (self.into.nonce)();
                }
                if !has_answers {
                    entry.answers = Some((self.into.nonce)());
                    fresh_nonces += 1;
                }
                self.changes.owed.insert(peer.get(), Some(entry));
                Ok(Took)
            };
            self.settle(List::Owed, index, Some(peer.get()), judged);
        }
        self.flush();
        fresh_nonces
    }

    /// the newest counts, and there is none of a peer that is in no table.
    fn settle_revisions(&mut self) {
        for (peer, (index, said)) in core::mem::take(&mut self.remembered.revisions) {
            let old = self.after.revision(peer);
            let judged = if !self.is_in_a_table(peer) {
                Err("nothing else is known of this peer, so no revision is kept".to_owned())
            } else if old.is_some_and(|old| old >= said) {
                Ok(Unchanged)
            } else {
                self.changes.revisions.insert(peer.get(), Some(said));
                Ok(Took)
            };
            self.settle(List::Revisions, index, Some(peer.get()), judged);
            self.flush_if_many();
        }
        self.flush();
        self.let_revisions_go();
    }

    /// Of the peers whose last entry went by this import.
    fn let_revisions_go(&mut self) {
        if self.after.sides.revisions.len() == 0 {
            return;
        }
        let diff = self.after.diff(self.into.before);
        let gone = diff.trusted.gone.iter().filter_map(|id| NodeId::new(*id));
        let sides = &diff.sides;
        let gone = gone.chain(sides.pending.gone.iter().copied()).chain(sides.outgoing.gone.iter().copied());
        let gone = gone.filter(|peer| self.after.revision(*peer).is_some() && !self.is_in_a_table(*peer));
        let gone: Vec<NodeId> = gone.collect();
        self.changes.revisions.extend(gone.into_iter().map(|peer| (peer.get(), None)));
        self.flush();
    }

    fn is_in_a_table(&self, peer: NodeId) -> bool {
        let after = &self.after;
        after.trusted(peer).is_some()
            || after.pending(peer).is_some()
            || after.outgoing(peer).is_some()
            || after.revoked(peer).is_some()
            || after.floor(peer).is_some()
            || after.owed(peer).is_some()
    }

    fn flush_if_many(&mut self) {
        if self.changes.len() >= CHANGES_MAX {
            self.flush();
        }
    }
}
