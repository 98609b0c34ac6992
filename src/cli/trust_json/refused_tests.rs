//! What waited when a document revoked or ignored its peer or key counts as refused.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests say what must hold by panicking")]

use std::sync::Arc;

use super::remembered_tests::{at, export, id, key, read_with, store, waits};
use super::*;
use crate::config::Limits;
use crate::machine::view::View as _;
use crate::peer::RevocationId;
use crate::tables::{OtherKey, RefusedRequest, TableChange};

/// What 14 waits with under this key, and under another one besides.
fn waits_with_two(first: (u8, i64), second: (u8, i64)) -> TableChange {
    let TableChange::Pending(peer, Some(entry)) = waits(14, first.0, first.1) else { unreachable!() };
    let mut entry = (*entry).clone();
    entry.others.push(OtherKey {
        key: key(second.0),
        nonce: entry.nonce,
        stamp: at(second.1),
        source: entry.source,
        first_seen: entry.received_at,
        kind: entry.kind,
    });
    TableChange::Pending(peer, Some(Arc::new(entry)))
}

fn mark(number: u64) -> Revocation {
    Revocation::new(at(2), RevocationId::new(number))
}

fn keys(all: &[RefusedRequest]) -> Vec<(PublicKey, WallMillis)> {
    all.iter().map(|it| (it.key, it.stamp)).collect()
}

#[test]
fn what_waits_and_is_revoked_or_ignored_by_an_import_counts_as_refused() {
    let (first, second) = ((key(1), at(10)), (key(2), at(11)));
    let ends = [
        ("peer revoked", TableChange::Revoked(id(14), Some(mark(5))), vec![first, second]),
        ("key revoked", TableChange::RevokedKey(key(1), Some(mark(5))), vec![first]),
        ("another key revoked", TableChange::RevokedKey(key(2), Some(mark(5))), vec![second]),
        ("peer ignored", TableChange::Ignored(id(14), Some(at(2))), vec![first, second]),
        ("key ignored", TableChange::IgnoredKey(key(1), Some(at(2))), vec![first]),
    ];
    for (how, end, refused) in ends {
        let before = [waits_with_two((1, 10), (2, 11)), waits(15, 3, 10)];
        // The document may have the very request that it ends; it does not come back by that.
        for said in [vec![end.clone()], vec![end.clone(), waits(14, 1, 10)]] {
            let document = export(&store(&said), Nonces::Written);
            let after = read_with(&store(&before), &document, Limits::default()).after;
            assert_eq!(keys(after.refused(id(14))), refused, "{how}");
            let left: Vec<_> = after.pending(id(14)).iter().flat_map(|it| it.keys()).map(|it| it.key).collect();
            assert!(refused.iter().all(|(key, _)| !left.contains(key)), "{how}");
            // Who waited under another number is none of them.
            assert!(after.refused(id(15)).is_empty() && after.pending(id(15)).is_some(), "{how}");
            // Once the mark is taken back by an operator, no document brings the request back, and a newer one it does.
            let taken_back = match &end {
                TableChange::Revoked(peer, _) => TableChange::Revoked(*peer, None),
                TableChange::RevokedKey(revoked, _) => TableChange::RevokedKey(*revoked, None),
                TableChange::Ignored(peer, _) => TableChange::Ignored(*peer, None),
                _ => TableChange::IgnoredKey(key(1), None),
            };
            let after = after.apply(&[taken_back, TableChange::Pending(id(14), None)]).0;
            let seed = if refused.contains(&first) { 1 } else { 2 };
            for (stamp, is_heard) in [(9, false), (if seed == 1 { 10 } else { 11 }, false), (12, true)] {
                let document = export(&store(&[waits(14, seed, stamp)]), Nonces::Written);
                let again = read_with(&after, &document, Limits::default()).after;
                assert_eq!(again.pending(id(14)).is_some(), is_heard, "{how}, {stamp}");
            }
        }
    }
}

#[test]
fn what_an_import_leaves_waiting_is_not_refused() {
    // A revocation that the store has already ends nothing, and neither do marks of others.
    let held = [waits(14, 1, 10), TableChange::Revoked(id(14), Some(mark(5)))];
    let said = [
        TableChange::Revoked(id(14), Some(mark(5))),
        TableChange::Revoked(id(16), Some(mark(6))),
        TableChange::RevokedKey(key(9), Some(mark(7))),
        TableChange::Ignored(id(17), Some(at(2))),
    ];
    let after = read_with(&store(&held), &export(&store(&said), Nonces::Written), Limits::default()).after;
    assert!(after.pending(id(14)).is_some());
    assert_eq!(after.refused_len(), 0);
}

#[test]
fn what_an_import_refuses_is_within_the_limit_and_the_newest_stays() {
    let limits = Limits { pending_max: 1, ..Limits::default() };
    let old = |number: u32| {
        let it = RefusedRequest { key: key(3), stamp: at(1), at: at(i64::from(number)) };
        TableChange::Refused(id(number), Some([it].into()))
    };
    let held: Vec<_> = (100..116).map(old).chain([waits(14, 1, 10)]).collect();
    let said = export(&store(&[TableChange::Revoked(id(14), Some(mark(5)))]), Nonces::Written);
    let after = read_with(&store(&held), &said, limits).after;
    assert_eq!((after.refused_len(), keys(after.refused(id(14)))), (16, vec![(key(1), at(10))]));
    assert!(after.refused(id(100)).is_empty() && !after.refused(id(101)).is_empty());
}
