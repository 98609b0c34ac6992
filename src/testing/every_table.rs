//! An entry of every table, and every entry of every table as text: what fixtures are written from and compared with.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::store::{Receipt, TransactError, Transaction, TrustStore};
use crate::tables::table::Table as _;
use crate::tables::{
    Floor, Nonce, OtherKey, Outgoing, Owed, Pending, PendingKind, Refusal, RefusedRequest, Revocation, RevocationId,
    Source, Succession, TableChange, Void, side_tables,
};
use crate::time::{Tick, WallMillis};
use crate::wire::message::Kind;

/// Puts one entry into every table, all derived from `number`, and takes those of `number - 1` away again.
pub fn set_every_table(store: &TrustStore, number: u8) -> Option<Receipt> {
    let mut changes = entries(number)?;
    if let Some(gone) = number.checked_sub(1).and_then(entries) {
        changes.extend(gone.into_iter().map(removed));
    }
    let changed: Result<_, TransactError<()>> =
        store.transact(|_| Ok(Transaction { changes, events: Vec::new(), value: () }));
    changed.ok().map(|((), receipt)| receipt)
}

/// One entry of every table, with every field set.
fn entries(number: u8) -> Option<Vec<TableChange>> {
    let peer = |table: u32| NodeId::new(table * 1000 + u32::from(number));
    let key_of = |seed: u8| {
        let signing = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        PublicKey::from_bytes(signing.verifying_key().to_bytes()).ok()
    };
    let (other, key, at) =
        (key_of(number ^ 0x80)?, key_of(number)?, WallMillis::new(1_700_000_000_000 + i64::from(number)));
    let (nonce, id) = (Nonce([number; 16]), RevocationId::new(u64::from(number)));
    let (source, wide) = (Source::from_address([10, 0, 0, number].into()), Source::Relay(peer(2)?));
    let pending = Pending {
        key,
        nonce: Some(nonce),
        stamp: at,
        justification: format!("request {number}"),
        received_at: at,
        received_tick: Tick::new(0),
        source,
        authentic: true,
        conflicts: u32::from(number),
        kind: PendingKind::Request,
        others: vec![OtherKey {
            key: other,
            nonce: Some(nonce),
            stamp: at,
            source: wide,
            first_seen: at,
            kind: PendingKind::Request,
        }],
        proven_by: Some(other),
        number: u64::from(number),
    };
    let reason = format!("no {number}");
    let outgoing = Outgoing {
        sent_at: at,
        sent_tick: Tick::new(0),
        nonce,
        expected_key: Some(key),
        justification: format!("answer {number}"),
        lift: Some(id),
        relayed: number.is_multiple_of(2),
        refused: Some(Refusal { at, tick: Tick::new(0), reason: reason.clone(), key: other, authentic: true }),
    };
    let floor = Floor { key: Some(key), seen: at, before: at, sent: at, reserved: at, spoke_v2: true };
    let owed = Owed {
        kind: Kind::Reject,
        nonce,
        answers: Some(nonce),
        reason,
        since: at,
        since_tick: Tick::new(0),
        for_key: Some(key),
    };
    let record = TrustRecord::new(peer(1)?, key).approved_at(at).mutual(true).network(u16::from(number));
    // Neither key is revoked: what names a revoked one is void as soon as a store with it is opened.
    let named = Succession { replaced: true, ..Succession::new(key, key_of(number ^ 0x40)?) };
    let void = Succession { void: Some(Void::Revoked), ..Succession::new(other, key) };
    Some(vec![
        TableChange::Trusted(peer(1)?, Some(record)),
        TableChange::Pending(peer(2)?, Some(Arc::new(pending))),
        TableChange::Outgoing(peer(3)?, Some(Arc::new(outgoing))),
        TableChange::Revoked(peer(4)?, Some(Revocation::new(at, id))),
        TableChange::Floor(peer(5)?, Some(floor)),
        TableChange::RevokedKey(other, Some(Revocation::new(at, id))),
        TableChange::Ignored(peer(7)?, Some(at)),
        TableChange::IgnoredKey(key, Some(at)),
        TableChange::Refused(peer(9)?, Some([RefusedRequest { key, stamp: at, at }].into())),
        TableChange::Owed(peer(10)?, Some(Arc::new(owed))),
        TableChange::Successors(peer(11)?, Some([named, void].into())),
        TableChange::Revision(peer(12)?, Some(u64::from(number))),
    ])
}

/// The removal of what this change sets.
fn removed(change: TableChange) -> TableChange {
    macro_rules! removed {
        ($($(#[$doc:meta])* $number:literal $field:ident $variant:ident $key:ty, $entry:ty => $table:ty;)*) => {
            match change {
                TableChange::Trusted(key, _) => TableChange::Trusted(key, None),
                $(TableChange::$variant(key, _) => TableChange::$variant(key, None),)*
            }
        };
    }
    side_tables!(removed)
}

/// Every entry of every table in a line or two each, in the order of tables and keys. What format version 1 does not hold
/// stands on lines of its own, and only where it is other than a file of version 1 leaves it.
#[must_use]
pub fn describe_tables(store: &TrustStore) -> Vec<String> {
    let Some(tables) = store.tables() else { return Vec::new() };
    let mut lines = Vec::new();
    let key = |key: Option<PublicKey>| key.map_or_else(|| "-".to_owned(), |key| key.fingerprint().to_string());
    let sides = &tables.sides;
    for it in tables.trusted.iter() {
        let (at, mutual, network) = (it.approved_at.as_millis(), it.mutual, it.network);
        lines.push((1, it.node_id.to_string(), format!("{} {at} {mutual} {network}", key(it.public_key))));
    }
    for (id, it) in sides.pending.iter() {
        let (of, nonce, source) = (key(Some(it.key)), it.nonce.map(|nonce| nonce.0), it.source);
        let times = (it.stamp.as_millis(), it.received_at.as_millis());
        let rest = (it.authentic, it.conflicts, it.kind, &it.justification);
        lines.push((2, id.to_string(), format!("{of} {nonce:?} {times:?} {source:?} {rest:?}")));
        for other in &it.others {
            let (of, nonce, source) = (key(Some(other.key)), other.nonce.map(|nonce| nonce.0), other.source);
            let times = (other.stamp.as_millis(), other.first_seen.as_millis());
            lines.push((2, id.to_string(), format!("also {of} {nonce:?} {times:?} {source:?} {:?}", other.kind)));
        }
        if it.number != 0 {
            lines.push((2, id.to_string(), format!("number {}", it.number)));
        }
        if it.proven_by.is_some() {
            lines.push((2, id.to_string(), format!("proven by {}", key(it.proven_by))));
        }
    }
    for (id, it) in sides.outgoing.iter() {
        let (at, nonce, of) = (it.sent_at.as_millis(), it.nonce.0, key(it.expected_key));
        lines.push((3, id.to_string(), format!("{at} {nonce:?} {of} {:?}", it.justification)));
        if it.lift.is_some() || !it.relayed {
            lines.push((3, id.to_string(), format!("lifts {:?}, relayed {}", it.lift, it.relayed)));
        }
        if let Some(refused) = &it.refused {
            let (at, of) = (refused.at.as_millis(), key(Some(refused.key)));
            let text = format!("refused {at} {of} {:?} {}", refused.reason, refused.authentic);
            lines.push((3, id.to_string(), text));
        }
    }
    for (id, mark) in sides.revoked.iter() {
        let at = mark.at.as_millis();
        lines.push((4, id.to_string(), at.to_string()));
        if mark.id != RevocationId::mixed(u64::from(id.get()), at.cast_unsigned()) {
            lines.push((4, id.to_string(), format!("named {}", mark.id)));
        }
    }
    for (id, it) in sides.floors.iter() {
        let (seen, reserved) = (it.seen.as_millis(), it.reserved.as_millis());
        lines.push((5, id.to_string(), format!("{} {seen} {reserved} {}", key(it.key), it.spoke_v2)));
        if it.before != WallMillis::new(0) {
            lines.push((5, id.to_string(), format!("before {}", it.before.as_millis())));
        }
    }
    for (of, mark) in sides.revoked_keys.iter() {
        lines.push((6, key(Some(of)), format!("{} {}", mark.at.as_millis(), mark.id)));
    }
    for (id, at) in sides.ignored.iter() {
        lines.push((7, id.to_string(), at.as_millis().to_string()));
    }
    for (of, at) in sides.ignored_keys.iter() {
        lines.push((8, key(Some(of)), at.as_millis().to_string()));
    }
    for (id, it) in sides.refused.iter() {
        for it in it.iter() {
            let times = (it.stamp.as_millis(), it.at.as_millis());
            lines.push((9, id.to_string(), format!("{} {times:?}", key(Some(it.key)))));
        }
    }
    for (id, it) in sides.owed.iter() {
        let nonces = (it.nonce.0, it.answers.map(|nonce| nonce.0));
        let text = format!("{:?} {nonces:?} {:?} {} {}", it.kind, it.reason, it.since.as_millis(), key(it.for_key));
        lines.push((10, id.to_string(), text));
    }
    for (id, it) in sides.successors.iter() {
        for it in it.iter() {
            let text = format!("{} named {} {} {:?}", key(Some(it.old)), key(Some(it.new)), it.replaced, it.void);
            lines.push((11, id.to_string(), text));
        }
    }
    for (id, revision) in sides.revisions.iter() {
        lines.push((12, id.to_string(), revision.to_string()));
    }
    lines.sort();
    const TABLES: [&str; 13] = [
        "",
        "trusted",
        "pending",
        "outgoing",
        "revoked",
        "floor",
        "revoked key",
        "ignored",
        "ignored key",
        "refused",
        "owed",
        "successors",
        "revision",
    ];
    lines.into_iter().map(|(table, of, text)| format!("{} {of}: {text}", TABLES.get(table).unwrap_or(&""))).collect()
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use crate::machine::view::View as _;

    /// What a release before could keep.
    const OLD: &str = "  wea\u{3164}ther \u{2800} feed\u{fe0f}  \u{301}";

    fn texts(store: &TrustStore) -> Option<[String; 2]> {
        let tables = store.tables()?;
        let (pending, outgoing) = (tables.pending_iter().next()?.1, tables.outgoing_iter().next()?.1);
        Some([pending.justification.clone(), outgoing.justification.clone()])
    }

    #[test]
    fn texts_that_an_older_release_kept_are_filtered_when_they_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = TrustStore::open(dir.path().join("store")).unwrap();
        assert!(set_every_table(&store, 1).is_some());
        let tables = store.tables().unwrap();
        let (peer, pending) = tables.pending_iter().next().map(|(peer, it)| (peer, it.clone())).unwrap();
        let (asked, outgoing) = tables.outgoing_iter().next().map(|(peer, it)| (peer, it.clone())).unwrap();
        let justification = || OLD.to_owned();
        let changes = vec![
            TableChange::Pending(peer, Some(Arc::new(Pending { justification: justification(), ..pending }))),
            TableChange::Outgoing(asked, Some(Arc::new(Outgoing { justification: justification(), ..outgoing }))),
        ];
        let changed: Result<_, TransactError<()>> =
            store.transact(|_| Ok(Transaction { changes, events: Vec::new(), value: () }));
        assert!(changed.is_ok() && texts(&store) == Some([OLD, OLD].map(str::to_owned)));
        store.close().unwrap();
        drop(store);
        let store = TrustStore::open(dir.path().join("store")).unwrap();
        assert_eq!(texts(&store), Some(["weather feed", "weather feed"].map(str::to_owned)));
    }
}
