//! a revocation by the store makes void what keys have named, also where it is undone in the same change, and where the
//! revoked key was never trusted.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use core::convert::Infallible;

use crate::peer::{NodeId, PublicKey, TrustRecord, Void};
use crate::store::TrustStore;
use crate::store::batch::Batch;
use crate::store::shared::Transaction;
use crate::tables::table::Table as _;
use crate::tables::{Succession, TableChange};
use crate::testing::actor::{Actor, Way, mark, node};

fn key(seed: u8) -> PublicKey {
    Actor::new(1, seed).public_key()
}

fn put(store: &TrustStore, changes: Vec<TableChange>) {
    let outcome = store.transact(|_| Ok::<_, Infallible>(Transaction { changes, events: Vec::new(), value: () }));
    outcome.unwrap().1.wait_durable().unwrap();
}

/// A peer under the first key, which has named the second; and the second has named a third.
fn named(store: &TrustStore, peer: NodeId) {
    let named = [Succession::new(key(1), key(2)), Succession::new(key(2), key(3))];
    let record = TrustRecord::new(peer, key(1));
    put(store, vec![TableChange::Trusted(peer, Some(record)), TableChange::Successors(peer, Some(named.into()))]);
}

/// Why each of the two statements counts no more.
fn void(store: &TrustStore, peer: NodeId) -> Vec<Option<Void>> {
    store.tables().unwrap().sides.successors.get(peer).unwrap().iter().map(|it| it.void).collect()
}

#[test]
fn a_revocation_makes_void_though_the_same_change_undoes_it() {
    let store = TrustStore::in_memory();
    let grant = |id| TrustRecord::new(node(id), key(1)).mutual(true);
    for id in 8..13 {
        named(&store, node(id));
    }
    let batch = store.update(|batch| {
        batch.revoke(node(8));
        let shown = batch.marks(node(8), None).peer.unwrap().id;
        batch.grant_lifting(grant(8), shown).unwrap();
        batch.revoke(node(9));
        batch.forget_revocation(node(9));
        // Undone, and then trusted or removed by words that know nothing of it.
        batch.revoke(node(10));
        batch.forget_revocation(node(10));
        batch.grant(grant(10)).unwrap();
        batch.remove(node(10));
        // Their twins were not revoked.
        batch.grant(grant(11)).unwrap();
        batch.remove(node(12));
        batch.grant(grant(12)).unwrap();
    });
    drop(batch.unwrap());
    for (id, is_revoked, is_trusted) in
        [(8, true, true), (9, true, false), (10, true, false), (11, false, true), (12, false, true)]
    {
        assert_eq!(void(&store, node(id)), [is_revoked.then_some(Void::Revoked); 2], "{id}");
        assert_eq!((store.is_trusted(node(id)), store.is_revoked(node(id))), (is_trusted, false), "{id}");
    }
}

#[test]
fn the_revocation_of_a_key_that_nobody_trusts_makes_void_what_named_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = TrustStore::open(dir.path().join("store")).unwrap();
    named(&store, node(8));
    named(&store, node(9));
    let done = store.revoke_key(&key(2)).unwrap();
    assert!(done.ended.is_empty() && store.is_trusted(node(8)), "nobody is trusted under it");
    for id in [8, 9] {
        assert_eq!(void(&store, node(id)), [Some(Void::Revoked), None], "what names it, and nothing else");
    }
    // A search that was cut short is finished when the store is opened.
    put(&store, vec![TableChange::RevokedKey(key(3), Some(mark(1)))]);
    store.close().unwrap();
    drop(store);
    let store = TrustStore::open(dir.path().join("store")).unwrap();
    assert_eq!(void(&store, node(8)), [Some(Void::Revoked); 2]);
    store.close().unwrap();
}

#[test]
fn the_revocation_of_a_key_names_who_is_trusted_by_its_word() {
    let store = TrustStore::in_memory();
    for id in 8..13 {
        named(&store, node(id));
    }
    let grant = |id, seed| drop(store.grant(TrustRecord::new(node(id), key(seed))).unwrap());
    // In one step, in two, under a key that nothing named, and back to the key that did.
    grant(9, 2);
    grant(10, 2);
    grant(10, 3);
    grant(11, 4);
    grant(12, 2);
    grant(12, 1);
    let done = store.revoke_key(&key(1)).unwrap();
    assert_eq!((done.ended, done.named), (vec![node(8), node(12)], vec![node(9), node(10)]));
    // The key in the middle has named one of them alone, and is none whom it did not lead to.
    let done = store.revoke_key(&key(2)).unwrap();
    assert_eq!((done.ended, done.named), (vec![node(9)], vec![node(10)]));

    // Who is trusted anew after the revocation is so by a newer look; what lies in the future says nothing of before and after.
    let at = store.key_revocation(&key(1)).unwrap().at;
    let now = at.saturating_add(10);
    let tables = store.tables().unwrap();
    let origin = |ms| {
        let record = tables.trusted.get(node(10)).unwrap().approved_at(at.saturating_add(ms));
        tables.revoked_origin(&record, now).is_some()
    };
    assert_eq!([-1, 0, 20_000].map(origin), [true; 3]);
    drop(store.forget_key_revocation(&key(2)).unwrap());
    let tables = store.tables().unwrap();
    let record = |ms| tables.trusted.get(node(10)).unwrap().approved_at(at.saturating_add(ms));
    assert_eq!(tables.revoked_origin(&record(0), now), Some(key(1)));
    assert_eq!(tables.revoked_origin(&record(5), now), None);
}

#[test]
fn what_waits_and_is_revoked_by_the_store_counts_as_refused() {
    type Revokes = fn(&TrustStore);
    let ways: [Revokes; 5] = [
        |store| drop(store.revoke(node(9)).unwrap()),
        |store| drop(store.revoke_key(&key(1)).unwrap()),
        // In one batch with others, and taken back by the same one.
        |store| drop(store.update(|batch| (batch.revoke(node(10)), batch.revoke(node(9)))).unwrap()),
        |store| drop(store.update(|batch| (batch.revoke(node(9)), batch.forget_revocation(node(9)))).unwrap()),
        |store| {
            let lifts = |batch: &mut Batch<'_>| {
                batch.revoke(node(9));
                let shown = batch.marks(node(9), None).peer.unwrap().id;
                batch.grant_lifting(TrustRecord::new(node(9), key(5)), shown).unwrap();
            };
            drop(store.update(lifts).unwrap());
        },
    ];
    for revoke in ways {
        let (mut us, store) = (Actor::new(7, 0xAA), TrustStore::in_memory());
        us.is_asked(10, 9, 1, "", Way::open()).unwrap();
        us.is_asked(20, 8, 2, "", Way::open()).unwrap();
        let waits = |id| TableChange::Pending(node(id), Some(us.tables.pending[&node(id)].clone().into()));
        put(&store, vec![waits(8), waits(9)]);
        revoke(&store);
        let tables = store.tables().unwrap();
        let refused: Vec<_> = tables.sides.refused.iter().map(|(peer, all)| (peer, all[0].key, all.len())).collect();
        assert_eq!(refused, [(node(9), key(1), 1)]);
        assert_eq!(tables.sides.pending.len(), 1);
    }
}
