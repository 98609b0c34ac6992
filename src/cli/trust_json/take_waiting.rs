//! What becomes of a document's requests: those of others, which wait for an operator, and our own.
//!
//! INVARIANT I-T7: an import that is repeated changes nothing. What a document leaves to the import, a time or a nonce, is no
//! difference to what an earlier one made of it. Whether an entry is taken is judged by what the other lists have come to,
//! and not by what they found: what this import takes away stands in nobody's way.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::changes::Later;
use super::fields::Fields;
use super::read::List;
use super::take::{Held, IGNORED, Judged, OTHERWISE, SET_ASIDE, TWICE, Taking, Took, Unchanged};
use super::values::{full, source, text};
use crate::machine::view::View as _;
use crate::peer::{NodeId, PublicKey};
use crate::tables::{Nonce, Outgoing, Pending, PendingKind, Source};
use crate::time::WallMillis;

/// Entries that are in order.
#[derive(Default)]
pub(super) struct Waiting {
    pending: BTreeMap<NodeId, Later<Pending>>,
    /// Of those, by source.
    of_source: BTreeMap<Source, usize>,
    outgoing: BTreeMap<NodeId, Later<Outgoing>>,
}

impl Waiting {
    pub(super) fn has(&self, peer: NodeId) -> bool {
        self.pending.contains_key(&peer) || self.outgoing.contains_key(&peer)
    }
}

impl Taking<'_> {
    pub(super) fn hold_pending(
        &mut self,
        index: u64,
        peer: NodeId,
        fields: &Fields,
        notes: &mut Vec<String>,
    ) -> Judged {
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
        let entry = Pending {
            key,
            // One that is not in the document is drawn if the entry is taken.
            nonce: nonce.or(is_fresh.then_some(Nonce([0; 16]))),
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
        if self.waiting.pending.contains_key(&peer) {
            return Err(TWICE.to_owned());
        }
        let limits = self.into.limits;
        if self.waiting.pending.len() >= limits.pending_max {
            return Err(full(limits.pending_max));
        }
        let of_source = self.waiting.of_source.entry(entry.source).or_default();
        if *of_source >= limits.pending_per_source_max {
            return Err(source_full(limits.pending_per_source_max));
        }
        *of_source += 1;
        let is_stamped = fields.time("stamp")?.or(fields.time("received_at")?) == Some(entry.stamp);
        let is_same = match self.into.before.pending(peer) {
            None => {
                if said_authentic {
                    notes.push("`authentic` is not taken from a document; nobody vouches for this key here".to_owned());
                }
                None
            }
            Some(old) => {
                // What a document does not have is no difference.
                let mut said = Pending {
                    received_tick: old.received_tick,
                    authentic: old.authentic,
                    others: old.others.clone(),
                    proven_by: old.proven_by,
                    number: old.number,
                    ..entry.clone()
                };
                if is_fresh {
                    said.nonce = old.nonce;
                }
                let received_at = fields.time("received_at")?;
                if received_at != Some(said.received_at) {
                    said.received_at = old.received_at;
                }
                if !is_stamped {
                    said.stamp = old.stamp;
                }
                Some(*old == said)
            }
        };
        self.waiting.pending.insert(peer, Later { index, entry, is_fresh, is_stamped, is_same });
        Ok(Held)
    }

    pub(super) fn hold_outgoing(
        &mut self,
        index: u64,
        peer: NodeId,
        fields: &Fields,
        notes: &mut Vec<String>,
    ) -> Judged {
        let now = self.into.now;
        let nonce = fields.nonce("nonce")?;
        let is_fresh = nonce.is_none();
        let entry = Outgoing {
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
        let before = self.into.before.outgoing(peer);
        // its answer would lift the mark, which only who imports may decide.
        if let Some(id) = entry.lift
            && !self.into.lifts.contains(&id)
            && before.is_none_or(|old| old.lift != Some(id))
        {
            return Err("its answer would lift a revocation that was not named with `--lift`".to_owned());
        }
        if self.waiting.outgoing.contains_key(&peer) {
            return Err(TWICE.to_owned());
        }
        let max = self.into.limits.outgoing_max;
        if self.waiting.outgoing.len() >= max {
            return Err(full(max));
        }
        let sent_at = fields.time("sent_at")?;
        let is_same = before.map(|old| {
            let mut said = Outgoing { sent_tick: old.sent_tick, relayed: old.relayed, ..entry.clone() };
            if is_fresh {
                said.nonce = old.nonce;
            }
            if sent_at != Some(said.sent_at) {
                said.sent_at = old.sent_at;
            }
            *old == said
        });
        self.waiting.outgoing.insert(peer, Later { index, entry, is_fresh, is_stamped: true, is_same });
        Ok(Held)
    }

    /// Once all other lists that stand above these are in `after`. Says how many got a fresh nonce.
    pub(super) fn settle_waiting(&mut self) -> u64 {
        let Waiting { pending, outgoing, .. } = core::mem::take(&mut self.waiting);
        let (mut fresh_nonces, mut len) = (0, self.after.outgoing_len());
        for (peer, Later { index, mut entry, is_fresh, is_same, .. }) in outgoing {
            let judged = self.judge_outgoing(peer, &entry, is_same, len);
            if let Ok(Took) = judged {
                len += 1;
                if is_fresh {
                    // No answer that is under way will be known as one; having asked still counts.
                    entry.nonce = (self.into.nonce)();
                    fresh_nonces += 1;
                }
                self.changes.outgoing.insert(peer.get(), Some(entry));
            }
            self.settle(List::Outgoing, index, Some(peer.get()), judged);
        }
        let mut len = self.after.pending_len();
        let mut of_source: BTreeMap<Source, usize> = BTreeMap::new();
        for (_, entry) in self.after.pending_iter() {
            *of_source.entry(entry.source).or_default() += 1;
        }
        for (peer, Later { index, mut entry, is_fresh, is_stamped, is_same }) in pending {
            let of_source = of_source.entry(entry.source).or_default();
            // One that the import has made up shows of nothing that it is newer.
            let stamp = if is_stamped { entry.stamp } else { WallMillis::new(i64::MIN) };
            let judged = self.judge_pending(peer, &entry, stamp, is_same, (len, *of_source));
            if let Ok(Took) = judged {
                (len, *of_source) = (len + 1, *of_source + 1);
                if is_fresh {
                    entry.nonce = Some((self.into.nonce)());
                    fresh_nonces += 1;
                }
                self.changes.pending.insert(peer.get(), Some(entry));
            }
            self.settle(List::Pending, index, Some(peer.get()), judged);
        }
        self.flush();
        fresh_nonces
    }

    fn judge_outgoing(&self, peer: NodeId, entry: &Outgoing, is_same: Option<bool>, len: usize) -> Judged {
        if let Some(is_same) = is_same.filter(|_| self.after.outgoing(peer).is_some()) {
            return if is_same { Ok(Unchanged) } else { Err(OTHERWISE.to_owned()) };
        }
        let marks = self.marks(peer, entry.expected_key.as_ref());
        if self.is_revoked_otherwise(peer, entry.expected_key.as_ref()) || marks.not_lifted_by(entry.lift).is_some() {
            return Err("the peer, or its key, is revoked; ask it anew".to_owned());
        }
        let record = self.into.before.trusted(peer).filter(|record| self.after.trusted(peer) == Some(*record));
        // an answer under it would end the store's record.
        if entry.expected_key.is_some() && record.is_some_and(|it| it.public_key != entry.expected_key) {
            let why = "the store trusts this peer under another key than the request names; ask it anew";
            return Err(why.to_owned());
        }
        if self.sets_aside(peer, entry.expected_key.as_ref()) {
            // an answer under it would bring the key back.
            return Err(SET_ASIDE.to_owned());
        }
        if self.is_ignored(peer, entry.expected_key.as_ref()) {
            return Err(IGNORED.to_owned());
        }
        let max = self.into.limits.outgoing_max;
        if len >= max { Err(full(max)) } else { Ok(Took) }
    }

    fn judge_pending(
        &self,
        peer: NodeId,
        entry: &Pending,
        stamp: WallMillis,
        is_same: Option<bool>,
        (len, of_source): (usize, usize),
    ) -> Judged {
        if let Some(is_same) = is_same.filter(|_| self.after.pending(peer).is_some()) {
            return if is_same { Ok(Unchanged) } else { Err(OTHERWISE.to_owned()) };
        }
        let limits = self.into.limits;
        let why = if self.after.trusted(peer).is_some_and(|record| record.public_key == Some(entry.key)) {
            "the peer is trusted under this key already; nothing waits"
        } else if self.is_ignored(peer, Some(&entry.key)) {
            IGNORED
        } else if entry.nonce.is_some() && self.is_refused(peer, &entry.key, stamp) {
            // of version 1 no stamp means anything.
            "an operator has refused this request, and that stands"
        } else if self.is_revoked_otherwise(peer, Some(&entry.key)) {
            //
            "the peer, or its key, was revoked again: what waited is forgotten, and the peer must ask again"
        } else if entry.kind == PendingKind::AnsweredUnvouched && !self.asks(peer) {
            //
            "an answer to a request that is not there any more; ask the peer again"
        } else if len >= limits.pending_max {
            return Err(full(limits.pending_max));
        } else if of_source >= limits.pending_per_source_max {
            return Err(source_full(limits.pending_per_source_max));
        } else {
            return Ok(Took);
        };
        Err(why.to_owned())
    }

    /// whether the document revokes the peer, or the key, by another revocation than the one that results.
    fn is_revoked_otherwise(&self, peer: NodeId, key: Option<&PublicKey>) -> bool {
        self.revoked_otherwise.contains(&peer) || key.is_some_and(|key| self.keys_revoked_otherwise.contains(key))
    }

    /// Whether a request of ours to this peer is open once everything is taken.
    fn asks(&self, peer: NodeId) -> bool {
        self.changes.outgoing.contains_key(&peer.get()) || self.after.outgoing(peer).is_some()
    }
}

fn source_full(max: usize) -> String {
    format!("more than {max} wait from this source")
}
