//! The words of `docs/protocol.md`: what *authentic*, *bound*, *asked*, *doubtful* and the like mean, of a message and the
//! tables before it.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::Seen;
use crate::machine::input::{Lookup, Received};
use crate::peer::{NodeId, PublicKey, Revocation, RevocationId, TrustRecord};
use crate::tables::{Outgoing, Succession};
use crate::testing::model::PlainView;
use crate::time::WallMillis;
use crate::wire::message::Kind;

/// our request to a peer, unless it was refused.
pub(in super::super) fn asked(tables: &PlainView, peer: NodeId) -> Option<&Outgoing> {
    tables.outgoing.get(&peer).filter(|it| it.refused.as_ref().is_none_or(|refusal| !refusal.authentic))
}

/// whether it answers our newest request.
pub(in super::super) fn answers_newest(tables: &PlainView, it: &Received) -> bool {
    let is_answer = matches!(it.message.kind(), Kind::Accept | Kind::Reject);
    is_answer
        && asked(tables, it.message.sender())
            .is_some_and(|asked| it.message.is_version_1() || it.message.answers() == Some(asked.nonce))
}

///
pub(in super::super) fn key_is_marked(tables: &PlainView, key: &PublicKey) -> bool {
    tables.revoked_keys.contains_key(key.as_bytes())
}

/// whether an operator's refusal of this key is remembered.
pub(in super::super) fn key_was_refused(tables: &PlainView, peer: NodeId, key: &PublicKey) -> bool {
    tables.refused.get(&peer).is_some_and(|them| them.iter().any(|it| it.key == *key))
}

/// The key of a peer's trusted record.
pub(in super::super) fn record_key(tables: &PlainView, peer: NodeId) -> Option<PublicKey> {
    tables.trusted.get(&peer).and_then(|record| record.public_key)
}

/// what is remembered of the keys of this peer that named another one.
pub(in super::super) fn said_of(tables: &PlainView, peer: NodeId) -> &[Succession] {
    tables.successors.get(&peer).map_or(&[], |said| said)
}

/// whether another key of the peer was trusted in the place of this one.
pub(in super::super) fn is_replaced(tables: &PlainView, peer: NodeId, key: &PublicKey) -> bool {
    said_of(tables, peer).iter().any(|it| it.replaced && it.old == *key)
}

/// whether one key was replaced by the other, in one step or in several.
pub(in super::super) fn leads_to(tables: &PlainView, peer: NodeId, old: &PublicKey, new: &PublicKey) -> bool {
    let said = said_of(tables, peer);
    let mut reached = vec![*old];
    for _ in said {
        let next = said.iter().filter(|it| it.replaced && reached.contains(&it.old) && !reached.contains(&it.new));
        let next: Vec<PublicKey> = next.map(|it| it.new).collect();
        reached.extend(next);
    }
    old != new && reached.contains(new)
}

/// whether a void statement of the peer names this key.
pub(in super::super) fn is_named_in_vain(tables: &PlainView, peer: NodeId, key: &PublicKey) -> bool {
    said_of(tables, peer).iter().any(|it| it.void.is_some() && it.new == *key && it.old != *key)
}

/// whether no rule trusts this key, which is not the record's.
pub(in super::super) fn is_set_aside(tables: &PlainView, peer: NodeId, key: &PublicKey) -> bool {
    record_key(tables, peer) != Some(*key) && (is_replaced(tables, peer, key) || is_named_in_vain(tables, peer, key))
}

/// the same, but for a replaced key that our own caller named.
pub(in super::super) fn is_kept_out(tables: &PlainView, peer: NodeId, key: &PublicKey) -> bool {
    let is_named = asked(tables, peer).is_some_and(|asked| asked.expected_key == Some(*key));
    is_set_aside(tables, peer, key) && (!is_named || is_named_in_vain(tables, peer, key))
}

/// the registry has named the message's own key.
pub(in super::super) fn is_bound(it: &Received) -> bool {
    matches!(&it.lookup, Lookup::Found { key, .. } if key == it.message.key())
}

/// the registry has named another key than the message's, and not one from before it.
pub(in super::super) fn is_contradicted(tables: &PlainView, it: &Received) -> bool {
    let Lookup::Found { key: known, .. } = &it.lookup else { return false };
    known != it.message.key() && !registry_is_behind(tables, it)
}

/// whether the registry names a key that was replaced, or named a successor, and has not heard of what came
/// after: neither of the key of this message, nor of what proves it.
pub(in super::super) fn registry_is_behind(tables: &PlainView, it: &Received) -> bool {
    let Lookup::Found { key: known, .. } = &it.lookup else { return false };
    let (peer, key) = (it.message.sender(), it.message.key());
    let record = record_key(tables, peer);
    let proven_by = record.filter(|_| named_by(it) == record && statement_proves(tables, it));
    known != key
        && (proven_by.is_some_and(|by| by == *known || leads_to(tables, peer, known, &by))
            || leads_to(tables, peer, known, key)
            || (record == Some(*key) && is_replaced(tables, peer, known)))
}

/// The key that the message says has named its own as the successor.
pub(in super::super) fn named_by(it: &Received) -> Option<PublicKey> {
    it.message.rotation().map(|rotation| *rotation.old_key())
}

/// whether what the old key said means anything here.
pub(in super::super) fn statement_says_something(tables: &PlainView, it: &Received) -> bool {
    let peer = it.message.sender();
    named_by(it).is_some_and(|old| {
        record_key(tables, peer) == Some(old)
            || said_of(tables, peer).iter().any(|it| it.old == old)
            || key_is_marked(tables, &old)
    })
}

/// whether this very statement is void: it is decided, and proves nothing.
pub(in super::super) fn statement_is_void(tables: &PlainView, it: &Received) -> bool {
    let mut said = said_of(tables, it.message.sender()).iter();
    said.any(|said| named_by(it) == Some(said.old) && said.new == *it.message.key() && said.void.is_some())
}

/// whether what the old key said counts: it has named nobody else, and neither key is revoked.
pub(in super::super) fn statement_counts(tables: &PlainView, it: &Received) -> bool {
    let (peer, key) = (it.message.sender(), it.message.key());
    named_by(it).is_some_and(|old| {
        said_of(tables, peer).iter().all(|it| it.old != old || it.void.is_some() || it.new == *key)
            && !key_is_marked(tables, &old)
            && !key_is_marked(tables, key)
    })
}

/// it counts, is not void, and can be remembered.
pub(in super::super) fn statement_proves(tables: &PlainView, it: &Received) -> bool {
    statement_counts(tables, it) && !statement_is_void(tables, it)
}

/// somebody besides the sender vouches that the key is the sender's.
pub(in super::super) fn is_vouched_for(tables: &PlainView, it: &Received) -> bool {
    let (peer, key) = (it.message.sender(), it.message.key());
    //
    let is_of_record = record_key(tables, peer) == Some(*key);
    if is_kept_out(tables, peer, key) || (!is_of_record && registry_is_behind(tables, it)) {
        return false;
    }
    if it.message.is_version_1() {
        return it.path.authenticates(peer);
    }
    let names_key = asked(tables, peer).is_some_and(|asked| asked.expected_key == Some(*key));
    let may_be_asked = it.message.kind() == Kind::Reject || it.lookup != Lookup::Failed;
    is_bound(it)
        || it.path.authenticates(peer)
        || (is_of_record && !key_is_marked(tables, key))
        || (answers_newest(tables, it) && names_key && may_be_asked)
}

/// what may be older than a floor that was moved back.
pub(in super::super) fn is_doubtful(tables: &PlainView, it: &Received) -> bool {
    let floor = tables.floor.get(&it.message.sender());
    !it.message.is_version_1()
        && floor.is_some_and(|floor| {
            floor.key == Some(*it.message.key())
                && floor.before > WallMillis::new(0)
                && it.message.stamp() <= floor.before
        })
}

/// The marks that trusting this peer under this key would have to lift.
pub(in super::super) fn marks(tables: &PlainView, peer: NodeId, key: Option<&PublicKey>) -> [Option<Revocation>; 2] {
    [tables.revoked.get(&peer).copied(), key.and_then(|key| tables.revoked_keys.get(key.as_bytes()).copied())]
}

/// whether this lift opens what these marks close.
pub(in super::super) fn lifts(marks: [Option<Revocation>; 2], lift: Option<RevocationId>) -> bool {
    match marks {
        [None, None] => true,
        [Some(mark), None] | [None, Some(mark)] => lift == Some(mark.id),
        [Some(_), Some(_)] => false,
    }
}

/// whether our open request lifts what stands against this peer under this key.
pub(in super::super) fn request_lifts(tables: &PlainView, peer: NodeId, key: &PublicKey) -> bool {
    let marks = marks(tables, peer, Some(key));
    asked(tables, peer).is_some_and(|asked| asked.lift.is_some() && lifts(marks, asked.lift))
}

pub(in super::super) fn millis(of: Duration) -> i64 {
    i64::try_from(of.as_millis()).unwrap_or(i64::MAX)
}

impl Seen<'_> {
    pub(super) fn skew(&self) -> i64 {
        millis(self.rules.config.future_skew_max)
    }

    /// how far ahead of the clock a stamp is reserved.
    pub(super) fn reserve(&self) -> i64 {
        10_000.min(self.skew() / 3)
    }

    pub(super) fn latest(&self) -> WallMillis {
        self.now.wall.saturating_add(self.skew())
    }

    /// the floor that a record's age makes.
    pub(super) fn floor_by_age(&self, record: &TrustRecord) -> WallMillis {
        record.approved_at.min(self.now.wall).saturating_add(-30_000)
    }

    /// whether an operator has refused this key's message of this stamp, or a later one.
    pub(super) fn was_refused(&self, peer: NodeId, key: &PublicKey, stamp: WallMillis) -> bool {
        let refused = self.before.refused.get(&peer);
        refused
            .is_some_and(|them| them.iter().any(|it| it.key == *key && it.stamp >= stamp && it.stamp <= self.latest()))
    }

    /// Whether trust in this peer ended: it is trusted no more, or under another key.
    pub(super) fn lost(&self, peer: NodeId) -> Option<&TrustRecord> {
        let was = self.before.trusted.get(&peer)?;
        match self.after.trusted.get(&peer) {
            None => Some(was),
            Some(is) => was.public_key.filter(|key| is.public_key != Some(*key)).map(|_| was),
        }
    }

    /// Whether it is trusted now, and was not, or under another key, or other terms.
    pub(super) fn granted(&self, peer: NodeId) -> Option<&TrustRecord> {
        self.after.trusted.get(&peer).filter(|is| self.before.trusted.get(&peer) != Some(is))
    }
}
