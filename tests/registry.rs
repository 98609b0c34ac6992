//! A registry that is busy, slow, lagging, wrong or changed, as a node meets it. *It could not be
//! asked* is not *it does not know*: whatever must not come of that has its twin that must.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use trustkeep::config::{HandshakeConfig, Policy};
use trustkeep::machine::event::{ChangeReason, Event, TrustState};
use trustkeep::machine::rejection::{FingerprintNeed, Rejection};
use trustkeep::machine::view::Nonce;
use trustkeep::node::{
    CommandError, Fetched, FileIdentity, HandshakeManager, Identity as _, Registry, RegistryEntry, RegistryError,
    Relayed, Relaying, RequestOptions, Revision, StaticRegistry,
};
use trustkeep::wire::message::Kind;
use trustkeep::{NodeId, PublicKey, TrustRecord, TrustStore};

/// A registry that does as a test wants.
#[derive(Default)]
struct Directory {
    entries: Mutex<HashMap<NodeId, RegistryEntry>>,
    /// Questions wait here, but for those about `prompt`.
    gate: Gate,
    prompt: Mutex<Vec<NodeId>>,
    asked: Mutex<Vec<NodeId>>,
    at_once: Mutex<(usize, usize)>,
    fails: Mutex<bool>,
    does_not_block: bool,
    /// Numbers everybody it does not know, too.
    numbers_all: Mutex<Option<Revision>>,
    inbox: Mutex<BTreeMap<Revision, Vec<u8>>>,
    relays: bool,
}

impl Directory {
    fn put(&self, peer: u32, entry: RegistryEntry) {
        self.entries.lock().unwrap().insert(id(peer), entry);
    }
    fn knows(&self, peer: u32, key: PublicKey) {
        self.put(peer, RegistryEntry::new(key));
    }
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
    fn fail(&self, fails: bool) {
        *self.fails.lock().unwrap() = fails;
    }
}

impl Registry for Directory {
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        self.asked.lock().unwrap().push(peer);
        let mut at_once = self.at_once.lock().unwrap();
        at_once.0 += 1;
        at_once.1 = at_once.1.max(at_once.0);
        drop(at_once);
        let is_prompt = self.prompt.lock().unwrap().contains(&peer);
        if !is_prompt {
            self.gate.pass();
        }
        self.at_once.lock().unwrap().0 -= 1;
        if *self.fails.lock().unwrap() {
            return Err(RegistryError::Other(Arc::new(std::io::Error::other("down"))));
        }
        let entry = self.entries.lock().unwrap().get(&peer).cloned();
        let numbered = *self.numbers_all.lock().unwrap();
        Ok(entry.or(numbered.map(|revision| RegistryEntry::new(None).revision(revision))))
    }
    fn may_block(&self) -> bool {
        !self.does_not_block
    }
    fn relaying(&self) -> Relaying {
        if self.relays { Relaying::Poll } else { Relaying::No }
    }
    fn fetch(&self, after: Revision, max: usize, _: Duration) -> Fetched {
        let inbox = self.inbox.lock().unwrap();
        let newer = inbox.iter().filter(|(revision, _)| **revision > after).take(max);
        Fetched::all(newer.map(|(revision, bytes)| Relayed::new(*revision, id(77), bytes.clone())).collect())
    }
    fn acknowledge(&self, message: Revision) -> Result<(), RegistryError> {
        self.inbox.lock().unwrap().remove(&message);
        Ok(())
    }
}

/// Longer than any test: who waits is woken by the test.
const PATIENT: Duration = Duration::from_secs(600);

fn key_of(number: u32) -> PublicKey {
    identity(number).public_key()
}

/// Another's key under this id.
fn thief_of(number: u32) -> FileIdentity {
    FileIdentity::from_seed(id(number), &[222; 32]).unwrap()
}

fn auto_approve() -> Policy {
    Policy::default().auto_approve(true)
}

fn is_pending(manager: &HandshakeManager, peer: u32) -> bool {
    manager.pending().iter().any(|(other, _)| *other == id(peer))
}

#[test]
fn while_strangers_keep_the_registry_busy_no_policy_trusts_a_registered_id_under_another_key() {
    let directory = Arc::new(Directory::default());
    directory.knows(9, key_of(9));
    let registry = Arc::clone(&directory) as _;
    let (manager, _wire, _ends) =
        alone(|builder| builder.registry(registry).policy(auto_approve()).look_up_timeout(PATIENT));
    let shut = directory.gate.close();
    std::thread::scope(|scope| {
        for number in 100..124 {
            let manager = &manager;
            let message = message_from(&identity(number), Kind::Request, |_| {});
            scope.spawn(move || manager.receive(arrived(message, 1)));
        }
        eventually("strangers are being looked up", || directory.asked() == 24);
        manager.receive(arrived(message_from(&thief_of(9), Kind::Request, |_| {}), 2));
        assert!(!manager.is_trusted(id(9)) && is_pending(&manager, 9), "{:?}", manager.counters());
        assert_eq!(count(&manager, "look_up_failed"), 1);
        // An operator who approves it has the registry asked again, whatever strangers do.
        directory.prompt.lock().unwrap().push(id(9));
        let (current, registered) = (thief_of(9).public_key().fingerprint(), key_of(9).fingerprint());
        for fingerprint in [None, Some(current)] {
            let refused = manager.approve(id(9), fingerprint).unwrap_err();
            let expected = Rejection::RegistryContradicts { current, registered };
            assert!(matches!(refused, CommandError::Refused(rejection) if rejection == expected), "{refused}");
        }
        drop(shut);
    });
    // The twins: the registry answers that it does not know them.
    assert!((100..124).all(|number| manager.is_trusted(id(number))));
    let (manager, _wire, _ends) = alone(|builder| builder.policy(auto_approve()));
    manager.receive(arrived(message_from(&thief_of(9), Kind::Request, |_| {}), 2));
    assert!(manager.is_trusted(id(9)), "no registry, no veto");
}

#[test]
fn a_registry_that_fails_panics_or_is_late_is_not_one_that_does_not_know() {
    let book = Arc::new(Book::default());
    *book.panics_about.lock().unwrap() = Some(id(13));
    *book.hangs_about.lock().unwrap() = Some(id(14));
    let _shut = book.gate.close();
    let registry = Arc::clone(&book) as _;
    let (manager, _wire, _ends) =
        alone(|builder| builder.registry(registry).policy(auto_approve()).look_up_timeout(Duration::from_millis(50)));
    for (number, trusts) in [(13, false), (14, false), (15, true)] {
        manager.receive(arrived(message_from(&identity(number), Kind::Request, |_| {}), 1));
        assert_eq!((manager.is_trusted(id(number)), is_pending(&manager, number)), (trusts, !trusts), "{number}");
    }
}

#[test]
fn who_writes_known_ids_takes_nothing_from_who_shows_their_keys() {
    let directory = Arc::new(Directory::default());
    let registry = Arc::clone(&directory) as _;
    let store = Arc::new(TrustStore::in_memory());
    let known = 2..62;
    for number in known.clone() {
        drop(store.grant(TrustRecord::new(id(number), key_of(number))).unwrap());
    }
    drop(store.grant(TrustRecord::new(id(90), key_of(90))).unwrap());
    // So that nothing but messages asks: the comparison has come and gone.
    directory.fail(true);
    let (manager, _wire, _ends) =
        alone_with(Arc::clone(&store), |builder| builder.registry(registry).look_up_timeout(PATIENT));
    eventually("the records were compared", || directory.asked() >= 61);
    eventually("and nobody is asking", || directory.at_once.lock().unwrap().0 == 0);
    directory.fail(false);
    directory.knows(90, key_of(91));
    directory.prompt.lock().unwrap().push(id(90));
    let (shut, before) = (directory.gate.close(), directory.asked());
    std::thread::scope(|scope| {
        for number in known {
            let (manager, message) = (&manager, message_from(&thief_of(number), Kind::Request, |_| {}));
            scope.spawn(move || manager.receive(arrived(message, 1)));
        }
        eventually("half of the questions are taken, and no more", || count(&manager, "look_up_failed") == 60 - 24);
        assert_eq!(directory.asked() - before, 24);
        // The registry knows node 90 under another key than the record: it must be heard.
        manager.receive(arrived(message_from(&identity(90), Kind::Request, |_| {}), 2));
        assert!(!manager.is_trusted(id(90)), "its look-up was made, and the registry's word counts");
        drop(shut);
    });
}

#[test]
fn who_writes_an_id_keeps_its_peer_from_no_answer_about_it() {
    let directory = Arc::new(Directory::default());
    let registry = Arc::clone(&directory) as _;
    let (manager, _wire, _ends) = alone(|builder| builder.registry(registry).look_up_timeout(PATIENT));
    drop(manager.store().grant(TrustRecord::new(id(2), key_of(2))).unwrap());
    directory.knows(2, key_of(3));
    let shut = directory.gate.close();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            let (manager, message) = (&manager, message_from(&thief_of(2), Kind::Request, |_| {}));
            scope.spawn(move || manager.receive(arrived(message, 1)));
        }
        eventually("eight of them wait", || count(&manager, "look_up_failed") == 12);
        let message = message_from(&identity(2), Kind::Request, |_| {});
        let own = scope.spawn(|| manager.receive(arrived(message, 2)));
        std::thread::sleep(A_WHILE);
        assert!(!own.is_finished() && manager.is_trusted(id(2)), "it waits for the answer, too");
        drop(shut);
    });
    assert!(!manager.is_trusted(id(2)));
}

#[test]
fn a_lagging_replica_binds_no_replaced_key_however_many_strangers_were_looked_up() {
    for forgets in [false, true] {
        let directory = Arc::new(Directory { does_not_block: true, ..Directory::default() });
        let registry = Arc::clone(&directory) as _;
        let policy = Policy::default().own_networks([3]).auto_approve(forgets);
        let (manager, _wire, _ends) = alone(|builder| builder.registry(registry).policy(policy));
        let entry = |key, revision| RegistryEntry::new(Some(key)).network(3).revision(Revision(revision));
        directory.put(2, entry(key_of(2), 9));
        manager.receive(arrived(message_from(&identity(2), Kind::Request, |_| {}), 1));
        assert!(manager.is_trusted(id(2)));
        // Strangers, whom the registry numbers.
        *directory.numbers_all.lock().unwrap() = Some(Revision(9));
        for stranger in 1000..1000 + 65_600 {
            assert!(manager.back_fill(id(stranger)).is_err());
        }
        *directory.numbers_all.lock().unwrap() = None;
        // A replica that lags: of before the key was replaced, or of before the peer was there.
        if forgets {
            directory.entries.lock().unwrap().clear();
        } else {
            directory.put(2, entry(thief_of(2).public_key(), 5));
        }
        manager.receive(arrived(message_from(&thief_of(2), Kind::Request, |_| {}), 1));
        assert!(manager.is_trusted_with_key(id(2), &key_of(2)), "the record stands");
        assert!(is_pending(&manager, 2) && !manager.pending()[0].1.authentic);
        assert_eq!(count(&manager, "look_up_failed"), 1);
        // The twin: what is newer is heard.
        directory.put(2, entry(thief_of(2).public_key(), 10));
        let later = now().saturating_add(1000);
        manager.receive(arrived(message_from(&thief_of(2), Kind::Request, |draft| draft.stamp = later), 1));
        assert!(manager.is_trusted_with_key(id(2), &thief_of(2).public_key()));
    }
}

/// A node that trusted node 2 by an entry of revision 9, and one more whose record no message brought; stopped.
fn saw_revision_nine(dir: &std::path::Path, directory: &Arc<Directory>) {
    let entry = |number| RegistryEntry::new(Some(key_of(number))).network(3).revision(Revision(9));
    directory.put(2, entry(2));
    directory.put(3, entry(3));
    let store = Arc::new(TrustStore::open(dir.join("store")).unwrap());
    drop(store.grant(TrustRecord::new(id(3), key_of(3))).unwrap());
    let (manager, _wire, _ends) = in_network_three(store, directory);
    eventually("node 3 is compared", || directory.asked() > 0 && manager.store().generation().get() > 1);
    let before = manager.store().generation().get();
    manager.receive(arrived(message_from(&identity(2), Kind::Request, |_| {}), 1));
    assert!(manager.is_trusted(id(2)));
    assert_eq!(manager.store().generation().get(), before + 1, "record, floor and revision are one change");
    // The same again is no news, and no change.
    drop(manager.back_fill(id(3)));
    assert_eq!(manager.store().generation().get(), before + 1);
    manager.shutdown().unwrap();
}

fn in_network_three(store: Arc<TrustStore>, directory: &Arc<Directory>) -> (HandshakeManager, Arc<Wire>, WireEnds) {
    let registry = Arc::clone(directory) as _;
    alone_with(store, |builder| builder.registry(registry).policy(Policy::default().own_networks([3])))
}

#[test]
fn after_a_restart_a_lagging_replica_binds_no_replaced_key_and_a_newer_one_is_heard() {
    // Known to the replica as it was, and not known to it yet.
    for forgets in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory { does_not_block: true, ..Directory::default() });
        saw_revision_nine(dir.path(), &directory);
        let store = Arc::new(TrustStore::open(dir.path().join("store")).unwrap());
        let old = |number, revision| {
            RegistryEntry::new(Some(thief_of(number).public_key())).network(3).revision(Revision(revision))
        };
        directory.entries.lock().unwrap().clear();
        if !forgets {
            directory.put(2, old(2, 8));
            directory.put(3, old(3, 8));
        }
        let (manager, _wire, _ends) = in_network_three(store, &directory);
        for number in [2, 3] {
            manager.receive(arrived(message_from(&thief_of(number), Kind::Request, |_| {}), 1));
            assert!(manager.is_trusted_with_key(id(number), &key_of(number)), "{number}: the record stands");
            assert!(is_pending(&manager, number), "{number}: the replaced key waits for the operator");
        }
        assert!(manager.pending().iter().all(|(_, entry)| !entry.authentic));
        assert!(count(&manager, "registry_outdated") >= 2);
        // The twin.
        let later = now().saturating_add(1000);
        for number in [2, 3] {
            directory.put(number, old(number, 10));
            manager.receive(arrived(message_from(&thief_of(number), Kind::Request, |draft| draft.stamp = later), 1));
            assert!(manager.is_trusted_with_key(id(number), &thief_of(number).public_key()), "{number}");
        }
    }
}

#[test]
fn a_replaced_key_stays_out_after_a_restart_though_the_trust_in_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Arc::new(Directory { does_not_block: true, ..Directory::default() });
    saw_revision_nine(dir.path(), &directory);
    let entry = |key, revision| RegistryEntry::new(Some(key)).network(3).revision(Revision(revision));
    {
        // The registry has another key by now, which ends the trust. The stamp is above the floor that the first life left.
        directory.put(2, entry(thief_of(2).public_key(), 10));
        let store = Arc::new(TrustStore::open(dir.path().join("store")).unwrap());
        let (manager, _wire, _ends) = in_network_three(store, &directory);
        eventually("trust under the replaced key ends", || !manager.is_trusted(id(2)));
        manager.shutdown().unwrap();
    }
    directory.put(2, entry(key_of(2), 9));
    let store = Arc::new(TrustStore::open(dir.path().join("store")).unwrap());
    let (manager, _wire, _ends) = in_network_three(store, &directory);
    let later = now().saturating_add(1000);
    manager.receive(arrived(message_from(&identity(2), Kind::Request, |draft| draft.stamp = later), 1));
    assert!(!manager.is_trusted(id(2)) && is_pending(&manager, 2));
}

#[test]
fn a_registry_that_was_put_back_is_heard_again_once_its_revisions_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Arc::new(Directory { does_not_block: true, ..Directory::default() });
    saw_revision_nine(dir.path(), &directory);
    let entry = RegistryEntry::new(Some(thief_of(2).public_key())).network(3).revision(Revision(1));
    directory.entries.lock().unwrap().clear();
    directory.put(2, entry);
    {
        // It is down for now, so that no answer comes between.
        directory.fail(true);
        let store = Arc::new(TrustStore::open(dir.path().join("store")).unwrap());
        let (manager, _wire, _ends) = in_network_three(store, &directory);
        assert!(manager.is_trusted_with_key(id(2), &key_of(2)));
        let (forgotten, receipt) = manager.forget_revisions().unwrap();
        receipt.wait_durable().unwrap();
        assert_eq!(forgotten, 2);
        let again = manager.forget_revisions().unwrap_err();
        assert!(matches!(again, CommandError::Refused(Rejection::NothingToDo)), "{again:?}");
        assert!(manager.is_trusted_with_key(id(2), &key_of(2)), "that alone ends nothing");
        manager.shutdown().unwrap();
    }
    directory.fail(false);
    let store = Arc::new(TrustStore::open(dir.path().join("store")).unwrap());
    let (manager, _wire, _ends) = in_network_three(store, &directory);
    eventually("the registry is believed again", || !manager.is_trusted(id(2)));
    // Without a registry there is nothing to forget.
    let (alone, _wire, _ends) = alone(|builder| builder);
    assert!(alone.forget_revisions().is_err());
}

fn peers_file(dir: &std::path::Path, keys: &[(u32, PublicKey)]) -> StaticRegistry {
    let path = dir.join("peers.toml");
    let peer = |(id, key): &(u32, PublicKey)| format!("[[peer]]\nid = {id}\npublic_key = \"{}\"\n", key.to_base64());
    std::fs::write(&path, keys.iter().map(peer).collect::<String>()).unwrap();
    StaticRegistry::read(&path).unwrap()
}

#[test]
fn after_a_restart_a_key_that_the_peers_file_replaced_is_trusted_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let grants = [(2, Some(key_of(2))), (3, Some(key_of(3))), (4, Some(key_of(4))), (5, None)];
    {
        let store = Arc::new(TrustStore::open(dir.path().join("store")).unwrap());
        let before = peers_file(dir.path(), &[(2, key_of(2)), (3, key_of(3)), (4, key_of(4))]);
        let (manager, _wire, _ends) = alone_with(store, |builder| builder.registry(Arc::new(before)));
        for (number, key) in grants {
            drop(manager.store().grant(TrustRecord::new(id(number), key)).unwrap());
        }
        manager.shutdown().unwrap();
    }
    // Node 2's key was stolen; node 4 is not in the file any more.
    let after = peers_file(dir.path(), &[(2, key_of(22)), (3, key_of(3)), (5, key_of(5))]);
    let store = Arc::new(TrustStore::open(dir.path().join("store")).unwrap());
    let events = store.subscribe();
    let (manager, _wire, ends) = alone_with(store, |builder| builder.registry(Arc::new(after)));
    eventually("the stolen key is trusted no longer", || !manager.is_trusted(id(2)));
    assert_eq!(ends.cut.recv_timeout(SOON), Ok(id(2)), "its tunnel is cut");
    for number in [3, 4, 5] {
        assert!(manager.is_trusted(id(number)), "{number}: the same key, absence, or no key to compare");
    }
    assert!(manager.registry_disagreement().is_none());
    let mut told = Vec::new();
    while told.len() < 2 {
        told.push(events.recv_timeout(SOON).unwrap());
    }
    let (expected, shown) = (key_of(22).fingerprint(), key_of(2).fingerprint());
    let loud = Event::KeyMismatch { peer: id(2), source: None, expected, shown, ended: true };
    let reason = ChangeReason::KeyChanged;
    assert_eq!(told, [loud, Event::TrustChanged { peer: id(2), state: TrustState::Revoked, reason }]);
    eventually("it is counted", || count(&manager, "key_mismatch") == 1);
}

#[test]
fn a_start_is_not_delayed_by_the_comparison_which_asks_four_at_a_time_and_ends_with_the_node() {
    let directory = Arc::new(Directory::default());
    let registry = Arc::clone(&directory) as _;
    let store = Arc::new(TrustStore::in_memory());
    for number in 2..32 {
        drop(store.grant(TrustRecord::new(id(number), key_of(number))).unwrap());
        directory.knows(number, key_of(number));
    }
    directory.knows(31, key_of(200));
    let shut = directory.gate.close();
    let (manager, _wire, _ends) =
        alone_with(Arc::clone(&store), |builder| builder.registry(registry).look_up_timeout(PATIENT));
    eventually("four are asked about", || directory.asked() == 4);
    std::thread::sleep(A_WHILE);
    assert_eq!((directory.asked(), manager.trusted().len()), (4, 30));
    let begun = Instant::now();
    drop(shut);
    eventually("the others are, too", || directory.asked() >= 30);
    assert!(begun.elapsed() >= Duration::from_millis(20) * 22, "more than 50 a second");
    eventually("the stolen key is trusted no longer", || manager.trusted().len() == 29);
    assert!(!manager.is_trusted(id(31)) && directory.at_once.lock().unwrap().1 == 4);

    // A node that stops does not wait for a registry that hangs.
    let shut = directory.gate.close();
    let registry = Arc::clone(&directory) as _;
    let asked = directory.asked();
    let (manager, _wire, _ends) = alone_with(store, |builder| builder.registry(registry).look_up_timeout(PATIENT));
    eventually("it asks", || directory.asked() > asked);
    manager.shutdown().unwrap();
    drop(shut);
}

#[test]
fn records_about_which_the_registry_gave_no_answer_stay_until_it_gives_one() {
    let directory = Arc::new(Directory::default());
    let registry = Arc::clone(&directory) as _;
    let store = Arc::new(TrustStore::in_memory());
    for number in 2..4 {
        drop(store.grant(TrustRecord::new(id(number), key_of(number))).unwrap());
    }
    directory.fail(true);
    let (manager, _wire, _ends) = alone_with(store, |builder| builder.registry(registry));
    eventually("both were asked about", || directory.asked() >= 2);
    std::thread::sleep(A_WHILE);
    assert_eq!((manager.trusted().len(), manager.registry_disagreement()), (2, None));
    // Once it can be asked, it is asked again.
    directory.knows(2, key_of(200));
    directory.knows(3, key_of(3));
    directory.fail(false);
    eventually("the stolen key is trusted no longer", || !manager.is_trusted(id(2)));
    assert!(manager.is_trusted(id(3)));
}

/// A node that trusts `all` peers, of which its registry contradicts some.
fn contradicted(all: u32, some: u32) -> (HandshakeManager, trustkeep::Subscription) {
    let directory = Arc::new(Directory { does_not_block: true, ..Directory::default() });
    let store = Arc::new(TrustStore::in_memory());
    for number in 2..2 + all {
        let key = key_of(number);
        drop(store.grant(TrustRecord::new(id(number), key)).unwrap());
        directory.knows(number, if number < 2 + some { thief_of(number).public_key() } else { key });
    }
    // The registry does not know these: they were not compared.
    for number in 10_000..10_100 {
        drop(store.grant(TrustRecord::new(id(number), key_of(7))).unwrap());
    }
    let events = store.subscribe();
    let (manager, _wire, _ends) = alone_with(store, |builder| builder.registry(directory));
    (manager, events)
}

#[test]
fn a_registry_that_contradicts_too_many_ends_none_until_an_operator_confirms_it() {
    for (all, some) in [(8, 8), (80, 9), (200, 21)] {
        let (manager, events) = contradicted(all, some);
        eventually("the disagreement is noticed", || manager.registry_disagreement().is_some());
        let held = manager.registry_disagreement().unwrap();
        assert_eq!((held.compared, held.contradicted.len()), (u64::from(all), some as usize));
        assert_eq!(held.contradicted[0].peer, id(2));
        assert_eq!((held.contradicted[0].trusted, held.contradicted[0].registered), {
            (key_of(2), thief_of(2).public_key())
        });
        let told = events.recv_timeout(SOON).unwrap();
        assert_eq!(told, Event::RegistryDisagrees { compared: all.into(), contradicted: some.into() });
        assert_eq!((manager.trusted().len(), events.try_recv()), (all as usize + 100, None));
        assert_eq!(count(&manager, "registry_disagrees"), 1);

        let (ended, receipt) = manager.confirm_registry().unwrap();
        receipt.wait_durable().unwrap();
        assert_eq!((ended, manager.trusted().len()), (some as usize, (all - some) as usize + 100));
        assert!(manager.is_trusted(id(2 + some)) != (all == some) && manager.registry_disagreement().is_none());
        let nothing = manager.confirm_registry().unwrap_err();
        assert!(matches!(nothing, CommandError::Refused(Rejection::NothingToDo)));
    }
}

#[test]
fn a_registry_that_contradicts_few_ends_them() {
    for (all, some) in [(7, 7), (80, 8), (200, 20)] {
        let (manager, _events) = contradicted(all, some);
        eventually("they are ended", || manager.trusted().len() == (all - some) as usize + 100);
        assert!(manager.registry_disagreement().is_none());
        assert!(manager.confirm_registry().is_err());
        eventually("all are counted", || count(&manager, "key_mismatch") == u64::from(some));
    }
}

#[test]
fn what_an_operator_did_meanwhile_needs_no_confirmation() {
    let (manager, _events) = contradicted(8, 8);
    eventually("the disagreement is noticed", || manager.registry_disagreement().is_some());
    for number in 2..9 {
        drop(manager.revoke(id(number)).unwrap());
    }
    drop(manager.store().grant(TrustRecord::new(id(9), key_of(100))).unwrap());
    assert_eq!(manager.registry_disagreement(), None);
    assert!(manager.confirm_registry().is_err());
    assert!(manager.is_trusted_with_key(id(9), &key_of(100)));
}

#[test]
fn an_approval_needs_the_fingerprint_while_the_registry_does_not_answer() {
    let directory = Arc::new(Directory::default());
    let registry = Arc::clone(&directory) as _;
    let (manager, _wire, _ends) = alone(|builder| builder.registry(registry).look_up_timeout(PATIENT));
    for number in [2, 3] {
        manager.receive(arrived(message_from(&identity(number), Kind::Request, |_| {}), 1));
    }
    // It hangs: no longer than two seconds is waited, though a message would be patient.
    let shut = directory.gate.close();
    let current = key_of(2).fingerprint();
    let refused = manager.approve(id(2), None).unwrap_err();
    assert!(
        matches!(refused, CommandError::Refused(rejection) if rejection == Rejection::FingerprintRequired { why: FingerprintNeed::RegistryNotAsked, current, others: [None; 4] })
    );
    assert!(!manager.is_trusted(id(2)));
    drop(manager.approve(id(2), Some(current)).unwrap());
    assert!(manager.is_trusted(id(2)));
    drop(shut);
    drop(manager.approve(id(3), shown(&manager, id(3))).unwrap());
    assert!(manager.is_trusted(id(3)), "it answers that it does not know");
}

/// A node whose registry relays what is in its inbox, and fails to look anybody up.
fn relaying(policy: Policy) -> (Arc<Directory>, HandshakeManager) {
    let directory = Arc::new(Directory { relays: true, ..Directory::default() });
    directory.fail(true);
    directory.knows(9, key_of(9));
    let soon = Duration::from_millis(1);
    let mut config = HandshakeConfig::default();
    (config.relay_poll_min, config.relay_poll_max) = (soon, soon);
    let registry = Arc::clone(&directory) as _;
    let (manager, _wire, _ends) = alone(|builder| builder.registry(registry).config(config).policy(policy));
    (directory, manager)
}

#[test]
fn relayed_mail_waits_for_the_registry_and_not_for_ever() {
    let (directory, manager) = relaying(auto_approve());
    directory.inbox.lock().unwrap().insert(Revision(1), message_from(&thief_of(9), Kind::Request, |_| {}));
    eventually("it is given up waiting for", || directory.inbox.lock().unwrap().is_empty());
    assert_eq!(count(&manager, "relayed_not_now"), 8);
    assert_eq!(directory.asked(), 9);
    assert!(is_pending(&manager, 9) && !manager.is_trusted(id(9)), "without the registry's word it waits");
}

#[test]
fn relayed_mail_that_waited_is_handled_once_the_registry_answers() {
    let (directory, manager) = relaying(auto_approve());
    {
        let mut inbox = directory.inbox.lock().unwrap();
        inbox.insert(Revision(1), message_from(&identity(9), Kind::Request, |_| {}));
        inbox.insert(Revision(2), message_from(&thief_of(9), Kind::Request, |_| {}));
        inbox.insert(Revision(3), message_from(&identity(10), Kind::Request, |_| {}));
    }
    eventually("they wait", || count(&manager, "relayed_not_now") >= 3);
    assert_eq!(directory.inbox.lock().unwrap().len(), 3, "nothing is acknowledged");
    directory.fail(false);
    eventually("all are handled", || directory.inbox.lock().unwrap().is_empty());
    assert!(manager.is_trusted_with_key(id(9), &key_of(9)) && manager.is_trusted(id(10)));
    assert!(manager.pending().is_empty());
    assert_eq!(count(&manager, "key_mismatch"), 1);
}

#[test]
fn an_answer_to_our_caller_waits_while_the_registry_cannot_be_asked() {
    let directory = Arc::new(Directory { does_not_block: true, ..Directory::default() });
    let registry = Arc::clone(&directory) as _;
    let (manager, _wire, _ends) = alone(|builder| builder.registry(registry));
    drop(manager.request(id(9), "", RequestOptions::default().expected_key(key_of(9))).unwrap());
    let answers = Some(manager.outgoing()[0].1.nonce);
    directory.fail(true);
    let accept = message_from(&identity(9), Kind::Accept, |draft| draft.answers = answers);
    manager.receive(arrived(accept.clone(), 1));
    assert!(!manager.is_trusted(id(9)) && is_pending(&manager, 9) && manager.outgoing().len() == 1);
    // The same once more: nothing was used up.
    directory.fail(false);
    manager.receive(arrived(accept, 1));
    assert!(manager.is_trusted(id(9)) && manager.pending().is_empty() && manager.outgoing().is_empty());
}

#[test]
fn a_flood_of_false_keys_is_counted_whole_and_told_in_part() {
    let (manager, _wire, _ends) = alone(|builder| builder);
    for number in 2..102 {
        drop(manager.store().grant(TrustRecord::new(id(number), key_of(number))).unwrap());
    }
    let (events, begun) = (manager.subscribe(), Instant::now());
    let forged = |number, nth| {
        let later = now().saturating_add(nth);
        message_from(&thief_of(number), Kind::Revoke, |draft| {
            (draft.stamp, draft.nonce) = (later, Nonce([u8::try_from(nth).unwrap(); 16]));
        })
    };
    for nth in 0..10 {
        for number in 2..102 {
            manager.receive(arrived(forged(number, nth), 1));
        }
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv()).collect();
    assert_eq!(count(&manager, "key_mismatch"), 1000);
    assert!(told.len() >= 32 && told.len() <= 32 * seconds, "{} in {seconds} s", told.len());
    let first = Event::KeyMismatch {
        peer: id(2),
        source: Some(arrived(Vec::new(), 1).path.source()),
        expected: key_of(2).fingerprint(),
        shown: thief_of(2).public_key().fingerprint(),
        ended: false,
    };
    assert_eq!(told[0], first);
    assert_eq!(manager.trusted().len(), 100);
}

#[test]
fn an_answer_under_a_new_key_leaves_behind_the_cut_of_the_old_tunnel() {
    // What takes longer than an answer waits for a cut proves nothing: then once more.
    for _ in 0..20 {
        let directory = Arc::new(Directory { does_not_block: true, ..Directory::default() });
        let registry = Arc::clone(&directory) as _;
        let policy = Policy::default().own_networks([3]);
        let (manager, wire, ends) = alone(|builder| builder.registry(registry).policy(policy));
        drop(manager.store().grant(TrustRecord::new(id(2), key_of(2))).unwrap());
        directory.put(2, RegistryEntry::new(thief_of(2).public_key()).network(3));
        let (shut, begun) = (wire.cutting.close(), Instant::now());
        manager.receive(arrived(message_from(&thief_of(2), Kind::Request, |_| {}), 1));
        assert!(manager.is_trusted_with_key(id(2), &thief_of(2).public_key()));
        std::thread::sleep(Duration::from_millis(50));
        let early = ends.sent.try_recv().is_ok();
        let counts = begun.elapsed() < Duration::from_millis(700);
        assert!(!(early && counts), "the answer would be cut off with the old tunnel");
        drop(shut);
        assert_eq!(ends.cut.recv_timeout(SOON), Ok(id(2)));
        if counts {
            assert_eq!(ends.next(), (id(2), "handshake_accept".to_owned()));
            return;
        }
    }
    panic!("never quick enough to see");
}
