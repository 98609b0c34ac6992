//! What becomes of a document's trusted peers.
//!
//! INVARIANT I-T8: nobody is trusted by a document against what the store knows: its own record, its marks, and what it
//! remembers of keys.
#![forbid(unsafe_code)]

use super::fields::Fields;
use super::read::List;
use super::take::{Held, Judged, OTHERWISE, SET_ASIDE, TWICE, Taking, Took, Unchanged};
use super::values::full;
use crate::machine::view::View as _;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::tables::{Floor, succession};

/// An entry of a peer that the store trusts otherwise, which counts if that record goes by this import; or one that lifts a
/// mark of the store's.
#[derive(Debug)]
pub(super) struct TrustedHeld {
    index: u64,
    record: TrustRecord,
}

impl Taking<'_> {
    pub(super) fn take_trusted(
        &mut self,
        index: u64,
        peer: NodeId,
        fields: &Fields,
        notes: &mut Vec<String>,
    ) -> Judged {
        let record = TrustRecord::new(peer, fields.key("public_key")?)
            .approved_at(self.past("approved_at", fields, notes)?.unwrap_or_default())
            .mutual(fields.flag("mutual")?)
            .network(fields.number("network", u16::MAX)?);
        // What was moved back to now is at every import another time.
        let is_moved = fields.time("approved_at")?.is_some_and(|said| said > record.approved_at);
        self.is_not_ours(record.public_key.as_ref())?;
        // Also where marks leave it out: they may be there only since an earlier import of this document.
        if self.trusted_held.contains_key(&peer) || self.trusted_left_out.contains(&peer) {
            return Err(TWICE.to_owned());
        }
        if let Err(why) = self.is_free_of_marks(peer, record.public_key.as_ref()) {
            self.trusted_left_out.insert(peer);
            return Err(why);
        }
        if self.marks(peer, record.public_key.as_ref()).is_any() {
            // Nothing is lifted before it is known that trust comes of it.
            self.trusted_held.insert(peer, TrustedHeld { index, record });
            return Ok(Held);
        }
        match self.into.before.trusted(peer) {
            Some(old) if old == record || is_moved && old == record.approved_at(old.approved_at) => Ok(Unchanged),
            Some(_) => {
                self.trusted_held.insert(peer, TrustedHeld { index, record });
                Ok(Held)
            }
            None if self.trusted(peer).is_some() => Err(TWICE.to_owned()),
            None if self.was_heard_since(&record) => {
                self.trusted_held.insert(peer, TrustedHeld { index, record });
                Ok(Held)
            }
            None => self.trust(index, record),
        }
    }

    /// Every way from a document to trust ends here.
    fn trust(&mut self, index: u64, record: TrustRecord) -> Judged {
        let (peer, key) = (record.node_id, record.public_key.as_ref());
        if self.sets_aside(peer, key) {
            self.trusted_left_out.insert(peer);
            return Err(SET_ASIDE.to_owned());
        }
        if self.trusted_len >= self.into.limits.trusted_max {
            return Err(full(self.into.limits.trusted_max));
        }
        self.lift(peer, key);
        if self.into.before.ignored(peer).is_some() {
            self.ignored_trusted.insert(peer, index);
        }
        self.trusted_len += 1;
        self.changes.trusted.insert(peer.get(), Some(record));
        Ok(Took)
    }

    /// Once the marks are in `after`, and what is trusted under a revoked key is no more.
    pub(super) fn settle_trusted(&mut self) {
        for (peer, TrustedHeld { index, record }) in core::mem::take(&mut self.trusted_held) {
            let judged = match self.after.trusted(peer) {
                Some(_) => Err(OTHERWISE.to_owned()),
                // Who names the mark has looked at this very peer.
                None if self.was_heard_since(&record) && !self.marks(peer, record.public_key.as_ref()).is_any() => {
                    Err(HEARD_SINCE.to_owned())
                }
                None => {
                    self.is_free_of_marks(peer, record.public_key.as_ref()).and_then(|()| self.trust(index, record))
                }
            };
            self.settle(List::Trusted, index, Some(peer.get()), judged);
        }
        self.flush();
        self.settle_what_trust_decides();
    }

    /// whether the peer said something that the store knows of, and neither the record nor, as far as it is
    /// read, the document. It may have been that it trusts us no longer.
    fn was_heard_since(&self, record: &TrustRecord) -> bool {
        let Some(floor) = self.into.before.floor(record.node_id) else { return false };
        let heard = floor.seen.max(floor.before);
        let since = record.approved_at.saturating_add(-SKEW_MS);
        floor.key.is_some() && heard > since.max(Floor::EMPTY.seen) && !self.floors_known.contains(&record.node_id)
    }

    /// Whether the store remembers that another key replaced this one, or that what named it is void.
    pub(super) fn sets_aside(&self, peer: NodeId, key: Option<&PublicKey>) -> bool {
        let before = self.into.before;
        let is_of_record = before.trusted(peer).is_some_and(|record| record.public_key.as_ref() == key);
        !is_of_record && key.is_some_and(|key| succession::set_aside(before.successors(peer), key).is_some())
    }

    /// Of what waits in the store: that is settled by trust which the document gives under its key.
    fn settle_what_trust_decides(&mut self) {
        let before = self.into.before;
        for (peer, entry) in before.pending_iter() {
            let is_new = before.trusted(peer).is_none();
            if is_new && self.after.trusted(peer).is_some_and(|record| record.public_key == Some(entry.key)) {
                self.changes.pending.insert(peer.get(), None);
            }
        }
        self.flush();
    }
}

const HEARD_SINCE: &str = "the store has heard the peer since then and does not trust it: it may have taken its trust back, which an \
                           older document does not know; ask it again, or grant it by name";
/// By how much clocks may differ.
const SKEW_MS: i64 = 30_000;
