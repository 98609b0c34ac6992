//! Nodes that cannot dial each other: what one says reaches the other through the registry, once, however often either
//! stops meanwhile; a relay is neither believed nor waited for.
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

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::*;
use trustkeep::clock::{Clock, SystemClock};
use trustkeep::config::{HandshakeConfig, Limits, Policy};
use trustkeep::machine::view::Source;
use trustkeep::node::{
    CommandError, Fetched, Identity, InProcessMember, InProcessRegistry, JoinError, Registry, RegistryEntry,
    RegistryError, Relayed, Relaying, RequestOptions, Revision, SendError,
};
use trustkeep::time::Now;
use trustkeep::wire::message::Kind;
use trustkeep::{HandshakeManager, NodeId, PublicKey, TrustRecord, TrustStore, WallMillis};

/// Long enough for something that must not happen to have happened.
const A_WHILE: Duration = Duration::from_millis(200);

fn ask() -> RequestOptions {
    RequestOptions::default()
}

/// Polls soon and often.
fn eager() -> HandshakeConfig {
    let mut config = HandshakeConfig::default();
    (config.relay_poll_min, config.relay_poll_max) = (Duration::from_millis(5), Duration::from_millis(40));
    config
}

/// The node with this number, with no way to anybody but the registry.
fn cut_off(number: u32, store: Arc<TrustStore>, registry: Arc<dyn Registry>) -> HandshakeManager {
    cut_off_with(number, store, registry, Policy::default())
}

fn cut_off_with(number: u32, store: Arc<TrustStore>, registry: Arc<dyn Registry>, policy: Policy) -> HandshakeManager {
    let (wire, _ends) = Wire::new();
    *wire.cut_off.lock().unwrap() = true;
    HandshakeManager::builder(store, Arc::new(identity(number)), wire)
        .registry(registry)
        .config(eager())
        .policy(policy)
        .look_up_timeout(SOON)
        .start()
        .unwrap()
}

fn in_memory() -> Arc<TrustStore> {
    Arc::new(TrustStore::in_memory())
}

fn join(hub: &InProcessRegistry, number: u32) -> InProcessMember {
    hub.join(&identity(number), &[]).unwrap()
}

/// A signed message from one node to another.
fn signed(from: u32, to: u32, kind: Kind) -> Vec<u8> {
    message_from(&identity(from), kind, |draft| draft.to = id(to))
}

#[test]
fn two_nodes_that_cannot_dial_each_other_come_to_trust_by_watching_and_by_polling() {
    for polled in [false, true] {
        let hub = InProcessRegistry::new();
        let member = |number| {
            let member = join(&hub, number);
            Arc::new(if polled { member.polled() } else { member })
        };
        let a = cut_off(1, in_memory(), member(1));
        let b = cut_off(2, in_memory(), member(2));
        drop(a.request(id(2), "weather feed", ask()).unwrap());
        eventually("the request arrives", || b.pending().len() == 1);
        let (_, entry) = b.pending().remove(0);
        assert_eq!((entry.justification.as_str(), entry.source), ("weather feed", Source::Relay(id(1))));
        assert!(entry.authentic, "the registry vouches for the key");
        drop(b.approve(id(1), shown(&b, id(1))).unwrap());
        assert!(a.wait_for_trust(id(2), SOON), "the answer arrives");
        assert!(a.trusted()[0].mutual);
        // Acknowledged, so that nothing waits any more.
        eventually("both inboxes are empty", || hub.waiting(id(1)) + hub.waiting(id(2)) == 0);
    }
}

#[test]
fn members_of_one_network_trust_each_other_through_the_relay_and_a_stranger_waits() {
    let hub = InProcessRegistry::new();
    let member = |number, networks: &[u16]| Arc::new(hub.join(&identity(number), networks).unwrap());
    let in_three = || Policy::default().own_networks([3]);
    let a = cut_off_with(1, in_memory(), member(1, &[3]), in_three());
    let b = cut_off_with(2, in_memory(), member(2, &[5, 3]), in_three());
    let c = cut_off_with(3, in_memory(), member(3, &[5]), in_three());
    drop(c.request(id(1), "", ask()).unwrap());
    drop(b.request(id(1), "", ask()).unwrap());
    assert!(b.wait_for_trust(id(1), SOON), "nobody had to approve it");
    assert_eq!((a.trusted()[0].node_id, a.trusted()[0].network), (id(2), 3));
    eventually("the stranger waits", || a.pending().len() == 1);
    assert_eq!(a.pending()[0].0, id(3));
    assert!(!a.is_trusted(id(3)));
}

#[test]
fn a_relayed_request_may_be_old_and_a_direct_one_not() {
    let far = Arc::new(Far::default());
    *far.fetches.lock().unwrap() = [Fetched::all(vec![relayed(1, now(), -3_600_000)])].into();
    let a = cut_off(1, in_memory(), Arc::clone(&far) as _);
    eventually("it is shown", || a.pending().len() == 1);
    let hour_old = message_from(&identity(3), Kind::Request, |d| d.stamp = d.stamp.saturating_add(-3_600_000));
    a.receive(arrived(hour_old, 1));
    assert_eq!((count(&a, "too_old"), a.pending().len()), (1, 1));
}

#[test]
fn a_refusal_is_relayed_too_and_a_farewell_is_not() {
    let hub = InProcessRegistry::new();
    let a = cut_off(1, in_memory(), Arc::new(join(&hub, 1)));
    let b = cut_off(2, in_memory(), Arc::new(join(&hub, 2)));
    drop(a.request(id(2), "", ask()).unwrap());
    eventually("the request arrives", || b.pending().len() == 1);
    drop(b.reject(id(1), "no room").unwrap());
    let refused = || a.outgoing()[0].1.refused.as_ref().is_some_and(|refusal| refusal.authentic);
    eventually("the refusal arrives", || refused() && hub.waiting(id(1)) == 0);
    // A relay that would take anything is not even asked to take a farewell.
    let far = Arc::new(Far::default());
    let c = cut_off(1, in_memory(), Arc::clone(&far) as _);
    drop(c.store().grant(TrustRecord::new(id(2), None)).unwrap());
    drop(c.revoke(id(2)).unwrap());
    eventually("it is counted", || count(&c, "not_sent") == 1);
    let lift = c.store().revocation(id(2)).unwrap().id;
    drop(c.request(id(2), "", ask().lift(lift)).unwrap());
    assert_eq!(*far.relayed.lock().unwrap(), [Kind::Request]);
}

#[test]
fn direct_comes_first() {
    let hub = InProcessRegistry::new();
    let (member, _other) = (Arc::new(join(&hub, 1)), join(&hub, 2));
    let (manager, wire, ends) = alone(|builder| builder.registry(member));
    drop(manager.request(id(2), "", ask()).unwrap());
    assert_eq!(ends.next().0, id(2));
    assert_eq!(hub.waiting(id(2)), 0);
    *wire.cut_off.lock().unwrap() = true;
    drop(manager.request(id(2), "", ask()).unwrap());
    assert_eq!(hub.waiting(id(2)), 1);
}

#[test]
fn a_request_that_goes_neither_way_names_both_causes_and_stays() {
    let hub = InProcessRegistry::new();
    let a = cut_off(1, in_memory(), Arc::new(join(&hub, 1)));
    let refused = a.request(id(2), "", ask());
    match &refused {
        Err(error @ CommandError::NotSent { receipt, source: SendError::NoAddress { .. }, relay: Some(relay) }) => {
            assert!(matches!(relay, RegistryError::UnknownNode { node } if *node == id(2)), "{relay}");
            receipt.wait_durable().unwrap();
            let text = error.to_string();
            assert!(text.contains("no address of node 2") && text.contains("does not know node 2"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(a.outgoing()[0].0, id(2));
    // Once it has joined, asking again is enough.
    let b = cut_off(2, in_memory(), Arc::new(join(&hub, 2)));
    drop(a.request(id(2), "", ask()).unwrap());
    eventually("the request arrives", || b.pending().len() == 1);
}

#[test]
fn what_was_fetched_is_not_lost_when_the_node_crashes_before_it_is_durable() {
    let hub = InProcessRegistry::new();
    let a = cut_off(1, in_memory(), Arc::new(join(&hub, 1)));
    let disk = Arc::new(Disk::default());
    let store = Arc::new(TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap());
    let b = cut_off(2, store, Arc::new(join(&hub, 2)));
    let shut = disk.gate.close();
    drop(a.request(id(2), "", ask()).unwrap());
    eventually("the request is handled", || b.pending().len() == 1);
    std::thread::sleep(A_WHILE);
    assert_eq!(hub.waiting(id(2)), 1, "acknowledged before it was durable");
    // A crash here leaves a store that knows nothing of it; the next life fetches it again.
    let store = Arc::new(disk.crashed_store().unwrap());
    let again = cut_off(2, store, Arc::new(join(&hub, 2)));
    eventually("it is fetched again", || again.pending().len() == 1);
    eventually("and acknowledged, once durable", || hub.waiting(id(2)) == 0);
    assert!(again.store().durable_generation() >= again.store().generation());
    // Whoever had the inbox before has no part in it any more.
    drop(shut);
    eventually("the old life is told", || count(&b, "fetch_failed") > 0 || count(&b, "not_acknowledged") > 0);
}

#[test]
fn the_relay_takes_what_its_member_signed_and_nothing_else() {
    let hub = InProcessRegistry::new();
    let (one, _two) = (join(&hub, 1), join(&hub, 2));
    let refused = |kind, bytes: &[u8]| {
        let refused = one.relay(id(2), kind, bytes);
        assert!(matches!(refused, Err(RegistryError::NotRelayed)), "{refused:?}");
        assert_eq!(hub.waiting(id(2)), 0);
    };
    let good = signed(1, 2, Kind::Request);
    refused(Kind::Request, b"garbage");
    refused(Kind::Request, &signed(2, 2, Kind::Request));
    refused(Kind::Request, &signed(1, 3, Kind::Request));
    refused(Kind::Accept, &good);
    refused(Kind::Revoke, &signed(1, 2, Kind::Revoke));
    refused(Kind::Request, &good[..good.len() - 1]);
    let forger = trustkeep::node::FileIdentity::from_seed(id(1), &[99; 32]).unwrap();
    refused(Kind::Request, &message_from(&forger, Kind::Request, |draft| draft.to = id(2)));
    let mut changed = serde_json::from_slice::<serde_json::Value>(&good).unwrap();
    changed["justification"] = "other".into();
    refused(Kind::Request, &serde_json::to_vec(&changed).unwrap());
    one.relay(id(2), Kind::Request, &good).unwrap();
    assert_eq!(hub.waiting(id(2)), 1);
    assert!(matches!(
        one.relay(id(3), Kind::Request, &signed(1, 3, Kind::Request)),
        Err(RegistryError::UnknownNode { .. })
    ));
}

#[test]
fn an_inbox_is_bounded_and_a_sender_has_three_places_in_it() {
    let hub = InProcessRegistry::with_inbox_max(10);
    let receiver = join(&hub, 1);
    let (one, other) = (join(&hub, 2), join(&hub, 3));
    let send = |from: &InProcessMember, number: u32, kind, stamp| {
        let bytes = message_from(&identity(number), kind, |draft| draft.stamp = now().saturating_add(stamp));
        from.relay(id(1), kind, &bytes)
    };
    for stamp in 0..3 {
        for kind in [Kind::Request, Kind::Accept, Kind::Reject] {
            send(&one, 2, kind, stamp).unwrap();
        }
    }
    send(&other, 3, Kind::Request, 0).unwrap();
    assert_eq!(hub.waiting(id(1)), 4);
    // The newest of each kind, the oldest first, and everything again until it is acknowledged.
    let fetch = |after| receiver.fetch(after, 64, Duration::ZERO).messages;
    let first = fetch(Revision::NONE);
    assert_eq!(first, fetch(Revision::NONE));
    assert!(first.is_sorted_by_key(|message| message.revision));
    assert_eq!(first[3].from, id(3));
    assert_eq!(fetch(first[2].revision), first[3..]);
    assert_eq!(receiver.fetch(Revision::NONE, 2, Duration::ZERO).messages, first[..2]);
    receiver.acknowledge(first[0].revision).unwrap();
    receiver.acknowledge(first[0].revision).unwrap();
    assert_eq!(fetch(Revision::NONE), first[1..]);
    // Three senders of three and one more fill it; the next is told so, and the first may still renew.
    let many: Vec<_> = (2..5).map(|number| (join(&hub, number), number)).collect();
    for (member, number) in &many {
        for kind in [Kind::Request, Kind::Accept, Kind::Reject] {
            send(member, *number, kind, 100).unwrap();
        }
    }
    let late = join(&hub, 87);
    send(&late, 87, Kind::Request, 0).unwrap();
    assert_eq!(hub.waiting(id(1)), 10);
    assert!(matches!(send(&late, 87, Kind::Accept, 0), Err(RegistryError::InboxFull { .. })));
    send(&one, 2, Kind::Request, 200).unwrap();
    assert_eq!(hub.waiting(id(1)), 10);
}

#[test]
fn whoever_joins_first_keeps_the_id_and_takes_its_place_again() {
    let hub = InProcessRegistry::new();
    let first = join(&hub, 1);
    let forger = trustkeep::node::FileIdentity::from_seed(id(1), &[99; 32]).unwrap();
    assert_eq!(hub.join(&forger, &[]).unwrap_err(), JoinError::OtherKey { node: id(1) });
    let entry = || first.look_up(id(1)).unwrap().unwrap();
    assert_eq!((entry().key, entry().networks.len()), (Some(identity(1).public_key()), 0));
    let before = entry().revision;
    let again = hub.join(&identity(1), &[]).unwrap();
    assert!(entry().revision > before);
    let replaced = first.fetch(Revision::NONE, 1, SOON);
    assert!(matches!(replaced.failure, Some(RegistryError::Replaced)), "{replaced:?}");
    assert!(again.fetch(Revision::NONE, 1, Duration::ZERO).failure.is_none());
    assert!(matches!(first.acknowledge(Revision(1)), Err(RegistryError::Replaced)));
    let beyond = again.fetch(Revision(9), 1, Duration::ZERO);
    assert!(matches!(beyond.failure, Some(RegistryError::RevisionUnknown)), "{beyond:?}");
}

#[test]
fn the_entries_of_a_later_life_of_the_program_are_newer() {
    let revision = |hub: &InProcessRegistry| {
        let (member, rejoined) = (join(hub, 1), join(hub, 1));
        assert_eq!(member.look_up(id(1)).unwrap(), rejoined.look_up(id(1)).unwrap());
        member.look_up(id(1)).unwrap().unwrap().revision
    };
    let before = revision(&InProcessRegistry::new());
    let begun = now();
    eventually("the clock goes on", || now() > begun.saturating_add(10));
    assert!(revision(&InProcessRegistry::new()) > before);
}

/// An identity that says and signs as the test wants it.
struct Pretender<S: Fn(&[u8]) -> [u8; 64] + Send + Sync> {
    names: (NodeId, PublicKey),
    sign: S,
}

impl<S: Fn(&[u8]) -> [u8; 64] + Send + Sync> Identity for Pretender<S> {
    fn node_id(&self) -> NodeId {
        self.names.0
    }
    fn public_key(&self) -> PublicKey {
        self.names.1
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        (self.sign)(message)
    }
}

#[test]
fn joining_proves_the_key_every_time_and_a_refused_one_changes_nothing() {
    let (hub, other) = (InProcessRegistry::new(), InProcessRegistry::new());
    let names = |number| (id(number), identity(number).public_key());
    // What the victim has signed, anywhere: to join here, to join elsewhere, and for the protocol.
    let heard = Mutex::new(Vec::new());
    let overheard = Pretender {
        names: names(1),
        sign: |bytes: &[u8]| {
            let signature = identity(1).sign(bytes);
            heard.lock().unwrap().push(signature);
            signature
        },
    };
    let refused = |member: Result<InProcessMember, JoinError>| member.unwrap_err();
    // A key that one merely knows does not even take an id that nobody has.
    let knows = Pretender { names: names(1), sign: |bytes: &[u8]| identity(2).sign(bytes) };
    assert_eq!(refused(hub.join(&knows, &[3])), JoinError::NotProven { node: id(1) });
    assert!(join(&hub, 2).look_up(id(1)).unwrap().is_none());
    let lost = Pretender { names: names(1), sign: |_: &[u8]| go_off() };
    assert_eq!(refused(hub.join(&lost, &[3])), JoinError::Panicked);
    let victim = hub.join(&overheard, &[7]).unwrap();
    drop(other.join(&overheard, &[]).unwrap());
    heard.lock().unwrap().push(identity(1).sign(b""));
    let message: serde_json::Value = serde_json::from_slice(&signed(1, 2, Kind::Request)).unwrap();
    let signature = STANDARD.decode(message["signature2"].as_str().unwrap()).unwrap();
    heard.lock().unwrap().push(signature.try_into().unwrap());
    join(&hub, 2).relay(id(1), Kind::Request, &signed(2, 1, Kind::Request)).unwrap();

    let entry = victim.look_up(id(1)).unwrap();
    let replays = heard.lock().unwrap().clone();
    assert_eq!(replays.len(), 4);
    for signature in replays.into_iter().chain([[0; 64], [0xff; 64]]) {
        for number in [1, 9] {
            let replay = Pretender { names: (id(number), names(1).1), sign: |_: &[u8]| signature };
            assert_eq!(refused(hub.join(&replay, &[3])), JoinError::NotProven { node: id(number) });
        }
    }
    // The victim signs for another registry, or under another id, what is asked here.
    let elsewhere = Pretender {
        names: names(1),
        sign: |_: &[u8]| {
            heard.lock().unwrap().clear();
            drop(other.join(&overheard, &[]).unwrap());
            heard.lock().unwrap()[0]
        },
    };
    assert_eq!(refused(hub.join(&elsewhere, &[3])), JoinError::NotProven { node: id(1) });
    // An identity that answers otherwise each time is held to its first word.
    let asked = std::sync::atomic::AtomicU32::new(0);
    struct Fickle<'a>(&'a std::sync::atomic::AtomicU32);
    impl Identity for Fickle<'_> {
        fn node_id(&self) -> NodeId {
            id(1 + self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
        }
        fn public_key(&self) -> PublicKey {
            identity(1 + self.0.load(std::sync::atomic::Ordering::SeqCst)).public_key()
        }
        fn sign(&self, message: &[u8]) -> [u8; 64] {
            identity(1 + self.0.load(std::sync::atomic::Ordering::SeqCst)).sign(message)
        }
    }
    assert_eq!(refused(hub.join(&Fickle(&asked), &[3])), JoinError::OtherKey { node: id(1) });

    // Nothing of it moved the member, its inbox or its networks.
    assert_eq!(victim.look_up(id(1)).unwrap(), entry);
    assert_eq!(hub.waiting(id(1)), 1);
    assert_eq!(victim.fetch(Revision::NONE, 8, Duration::ZERO).messages.len(), 1);
    assert!(victim.look_up(id(9)).unwrap().is_none());
    // And the twin: with the secret half of the key the place is taken again.
    let again = hub.join(&identity(1), &[]).unwrap();
    assert_eq!(again.fetch(Revision::NONE, 8, Duration::ZERO).messages.len(), 1);
    assert!(matches!(victim.acknowledge(Revision(1)), Err(RegistryError::Replaced)));
}

#[test]
fn an_identity_may_use_the_registry_while_it_signs() {
    let hub = InProcessRegistry::new();
    let nested = Pretender {
        names: (id(1), identity(1).public_key()),
        sign: |bytes: &[u8]| {
            drop(join(&hub, 1));
            drop(join(&hub, 2));
            identity(1).sign(bytes)
        },
    };
    let member = hub.join(&nested, &[]).unwrap();
    assert!(member.fetch(Revision::NONE, 1, Duration::ZERO).failure.is_none());
}

#[test]
fn networks_are_those_of_the_first_join_unless_the_owner_sets_them() {
    let hub = InProcessRegistry::new();
    assert!(!hub.set_networks(id(1), &[3]));
    let first = hub.join(&identity(1), &[3, 0, 5]).unwrap();
    let entry = || first.look_up(id(1)).unwrap().unwrap();
    assert_eq!(entry().networks, [3, 5]);
    for networks in [&[][..], &[9], &[3, 5, 9]] {
        drop(hub.join(&identity(1), networks).unwrap());
        assert_eq!(entry().networks, [3, 5]);
    }
    let before = entry().revision;
    assert!(hub.set_networks(id(1), &[0, 9]));
    assert_eq!((entry().networks, entry().key), (vec![9], Some(identity(1).public_key())));
    assert!(entry().revision > before);
    drop(hub.join(&identity(1), &[3]).unwrap());
    assert_eq!(entry().networks, [9]);
    assert!(hub.set_networks(id(1), &[]));
    assert!(entry().networks.is_empty());
}

#[test]
fn a_watch_ends_with_a_message_with_its_time_or_with_an_interruption() {
    let hub = InProcessRegistry::new();
    let (receiver, sender) = (join(&hub, 1), join(&hub, 2));
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| receiver.fetch(Revision::NONE, 8, SOON));
        sender.relay(id(1), Kind::Request, &signed(2, 1, Kind::Request)).unwrap();
        assert_eq!(watching.join().unwrap().messages.len(), 1);
        let begun = Instant::now();
        assert!(receiver.fetch(Revision(1), 8, Duration::from_millis(50)).messages.is_empty());
        assert!((Duration::from_millis(50)..SOON).contains(&begun.elapsed()));
        let watching = scope.spawn(|| receiver.fetch(Revision(1), 8, SOON));
        receiver.interrupt();
        assert!(watching.join().unwrap().messages.is_empty());
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    });
}

/// A relay far away: it does as the test says.
#[derive(Default)]
struct Far {
    relayed: Mutex<Vec<Kind>>,
    fetches: Mutex<VecDeque<Fetched>>,
    asked: Mutex<Vec<Revision>>,
    acknowledged: Mutex<Vec<Revision>>,
    /// Acknowledgements are refused this often.
    deaf: Mutex<usize>,
    /// Relaying, fetching and acknowledging wait here.
    gate: Gate,
    revision: Mutex<Revision>,
    /// It knows nobody's key.
    knows_nobody: bool,
}

impl Registry for Far {
    fn look_up(&self, _: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        if self.knows_nobody {
            return Ok(None);
        }
        let key = identity(2).public_key();
        Ok(Some(RegistryEntry::new(key).revision(*self.revision.lock().unwrap())))
    }
    fn relaying(&self) -> Relaying {
        Relaying::Poll
    }
    fn relay(&self, _: NodeId, kind: Kind, _: &[u8]) -> Result<(), RegistryError> {
        self.gate.pass();
        self.relayed.lock().unwrap().push(kind);
        Ok(())
    }
    fn fetch(&self, after: Revision, _: usize, _: Duration) -> Fetched {
        self.gate.pass();
        self.asked.lock().unwrap().push(after);
        let fetched = self.fetches.lock().unwrap().pop_front().unwrap_or_default();
        assert!(!matches!(fetched.failure, Some(RegistryError::Panicked)), "as the test wants it");
        fetched
    }
    fn acknowledge(&self, message: Revision) -> Result<(), RegistryError> {
        self.gate.pass();
        let mut deaf = self.deaf.lock().unwrap();
        if *deaf > 0 {
            *deaf -= 1;
            return Err(RegistryError::Busy);
        }
        self.acknowledged.lock().unwrap().push(message);
        Ok(())
    }
}

/// A request of node 2, stamped this much later than `begin`.
fn relayed(revision: u64, begin: WallMillis, millis: i64) -> Relayed {
    let bytes = message_from(&identity(2), Kind::Request, |draft| draft.stamp = begin.saturating_add(millis));
    Relayed::new(Revision(revision), id(2), bytes)
}

#[test]
fn a_relay_that_fails_in_part_loses_nothing() {
    let far = Arc::new(Far::default());
    let begin = now();
    let five = relayed(5, begin, 0);
    let failing = RegistryError::Other(Arc::new(std::io::Error::other("one of three shards is down")));
    *far.fetches.lock().unwrap() = [
        Fetched::partly(vec![five.clone()], failing),
        Fetched::partly(Vec::new(), RegistryError::Panicked),
        // Asked from the beginning again: the one that was missing, and the one that was there already.
        Fetched::all(vec![relayed(4, begin, -10), five, relayed(6, begin, 10)]),
        Fetched::partly(Vec::new(), RegistryError::RevisionUnknown),
        Fetched::all(vec![relayed(1, begin, 20)]),
    ]
    .into();
    // Up to three times is 5 told to have been handled before it is fetched again: once by whoever hears that it is durable.
    *far.deaf.lock().unwrap() = 3;
    let a = cut_off(1, in_memory(), Arc::clone(&far) as _);
    eventually("all is acknowledged", || {
        let mut told = far.acknowledged.lock().unwrap().clone();
        told.sort_unstable();
        told.dedup();
        told == [1, 4, 5, 6].map(Revision)
    });
    let asked = far.asked.lock().unwrap().clone();
    assert_eq!(asked[..5], [0, 0, 0, 6, 0].map(Revision), "{asked:?}");
    // Message 4 was older than 5, and 5 was handled once.
    assert_eq!(count(&a, "stale"), 1, "{:?}", a.counters());
    assert_eq!(count(&a, "not_acknowledged"), 3);
    assert_eq!(a.pending().len(), 1);
}

/// A clock that the test turns.
#[derive(Debug)]
struct Turned {
    behind_ms: AtomicI64,
    ticks_ms: AtomicI64,
}

impl Clock for Turned {
    fn now(&self) -> Now {
        let (behind, ticks) = (self.behind_ms.load(Ordering::SeqCst), self.ticks_ms.load(Ordering::SeqCst));
        let real = SystemClock.now();
        Now { wall: real.wall.saturating_add(-behind), tick: real.tick.saturating_add(ticks) }
    }
}

fn turned(limits: Limits, behind_ms: i64) -> (Arc<TrustStore>, Arc<Turned>) {
    let clock = Arc::new(Turned { behind_ms: AtomicI64::new(behind_ms), ticks_ms: AtomicI64::new(0) });
    let options = TrustStore::options().limits(limits).clock(Arc::clone(&clock) as _);
    (Arc::new(options.in_memory().unwrap()), clock)
}

/// A relay that knows nobody.
fn far_from_everybody() -> Arc<Far> {
    Arc::new(Far { knows_nobody: true, ..Far::default() })
}

/// A request of node `number` in a relay's hands.
fn handed_in(revision: u64, number: u32) -> Relayed {
    Relayed::new(Revision(revision), id(number), signed(number, 1, Kind::Request))
}

fn acknowledged(far: &Far) -> Vec<u64> {
    let mut told: Vec<u64> = far.acknowledged.lock().unwrap().iter().map(|revision| revision.0).collect();
    told.sort_unstable();
    told
}

#[test]
fn a_relayed_request_that_meets_a_full_queue_comes_in_when_there_is_room() {
    let full = [(1, 16, "pending_full"), (16, 1, "pending_source_full")];
    for (pending_max, pending_per_source_max, name) in full {
        let far = far_from_everybody();
        // The last is from somebody else, and is not held up by those before.
        let of = if name == "pending_full" { 4 } else { 3 };
        let mut waits = handed_in(2, 4);
        waits.from = id(of);
        let mut first = handed_in(1, 3);
        first.from = id(3);
        *far.fetches.lock().unwrap() = [Fetched::all(vec![first, waits])].into();
        let mut limits = Limits::default();
        (limits.pending_max, limits.pending_per_source_max) = (pending_max, pending_per_source_max);
        let (store, _clock) = turned(limits, 0);
        let a = cut_off(1, store, Arc::clone(&far) as _);
        eventually("it meets a full queue, more than once", || count(&a, name) >= 2);
        assert_eq!((a.pending().len(), acknowledged(&far)), (1, vec![1]), "it is not lost");
        assert_eq!(far.asked.lock().unwrap().last(), Some(&Revision(2)), "and holds nothing up");
        drop(a.reject(id(3), "").unwrap());
        eventually("there is room", || a.pending().first().is_some_and(|(peer, _)| *peer == id(4)));
        eventually("it is acknowledged", || acknowledged(&far) == [1, 2]);
    }
}

#[test]
fn a_relayed_message_from_the_future_waits_for_our_clock_and_not_for_ever() {
    let far = far_from_everybody();
    *far.fetches.lock().unwrap() = [Fetched::all(vec![handed_in(1, 3), handed_in(2, 4)])].into();
    let (store, clock) = turned(Limits::default(), 3_600_000);
    let a = cut_off(1, store, Arc::clone(&far) as _);
    eventually("our clock is behind", || count(&a, "from_future") >= 4);
    assert!(a.pending().is_empty() && acknowledged(&far).is_empty());
    let skews = a.skews();
    assert!(matches!(skews[..], [("from_future", by)] if (3_590_000..=3_600_000).contains(&by)), "{skews:?}");
    clock.behind_ms.store(0, Ordering::SeqCst);
    eventually("it is set right", || a.pending().len() == 2 && acknowledged(&far) == [1, 2]);

    // What is from the future for an hour is given up.
    let far = far_from_everybody();
    *far.fetches.lock().unwrap() = [Fetched::all(vec![handed_in(1, 3)])].into();
    let (store, clock) = turned(Limits::default(), 36_000_000);
    let a = cut_off(1, store, Arc::clone(&far) as _);
    eventually("it is tried", || count(&a, "from_future") >= 2);
    assert!(acknowledged(&far).is_empty());
    clock.ticks_ms.store(3_600_000, Ordering::SeqCst);
    eventually("it is given up", || acknowledged(&far) == [1]);
}

#[test]
fn no_more_relayed_messages_wait_for_room_than_there_are_places() {
    let far = far_from_everybody();
    // One is let in; of the others of one sender four are kept.
    let flood = (1..=9).map(|number| {
        let mut message = handed_in(u64::from(number), 10 + number);
        message.from = id(50);
        message
    });
    *far.fetches.lock().unwrap() = [Fetched::all(flood.collect())].into();
    let mut limits = Limits::default();
    limits.pending_max = 1;
    let (store, _clock) = turned(limits, 0);
    let a = cut_off(1, store, Arc::clone(&far) as _);
    eventually("the rest is given up", || acknowledged(&far) == [1, 6, 7, 8, 9]);
    assert_eq!(a.pending().len(), 1);
}

#[test]
fn a_hostile_relay_gets_nothing_past_the_rules_and_costs_little() {
    let far = Arc::new(Far::default());
    let garbage = |revision: u64| Relayed::new(Revision(revision), id(9), vec![b'x'; 100_000]);
    let forged = Relayed::new(Revision(3), id(2), signed(2, 3, Kind::Request));
    let as_another = Relayed::new(Revision(4), id(7), signed(2, 1, Kind::Revoke));
    *far.fetches.lock().unwrap() = [
        Fetched::all((1000..1200).map(garbage).collect()),
        Fetched::all(vec![forged, as_another, relayed(5, now(), 50)]),
    ]
    .into();
    let a = cut_off(1, in_memory(), Arc::clone(&far) as _);
    eventually("the good one is shown", || a.pending().len() == 1);
    assert_eq!(count(&a, "too_large"), 64, "no more than were asked for");
    assert_eq!(count(&a, "bad_signature"), 1);
    assert!(a.trusted().is_empty());
}

#[test]
fn a_relay_that_takes_no_acknowledgement_is_asked_for_no_more_than_fits() {
    let far = Arc::new(Far::default());
    *far.deaf.lock().unwrap() = usize::MAX;
    let garbage = |revision: u64| Relayed::new(Revision(revision), id(9), b"garbage".to_vec());
    let batches = (0..40_u64).map(|batch| Fetched::all((1..=64).map(|nth| garbage(batch * 64 + nth)).collect()));
    *far.fetches.lock().unwrap() = batches.collect();
    let a = cut_off(1, in_memory(), Arc::clone(&far) as _);
    eventually("all were fetched", || far.fetches.lock().unwrap().is_empty());
    assert_eq!(count(&a, "malformed"), 1024, "handled beyond what may be held");
    // Once it listens, everything that was handled is acknowledged, and no more.
    *far.deaf.lock().unwrap() = 0;
    eventually("all is acknowledged", || far.acknowledged.lock().unwrap().len() == 1024);
}

#[test]
fn a_relay_that_hangs_holds_up_no_operator_and_no_other_peer() {
    let far = Arc::new(Far::default());
    let shut = far.gate.close();
    let (wire, ends) = Wire::new();
    let manager = HandshakeManager::builder(in_memory(), Arc::new(identity(1)), Arc::clone(&wire) as _)
        .registry(Arc::clone(&far) as _)
        .look_up_timeout(Duration::from_millis(300))
        .config(eager())
        .start()
        .unwrap();
    manager.receive(arrived(message_from(&identity(2), Kind::Request, |_| {}), 1));
    *wire.cut_off.lock().unwrap() = true;
    let begun = Instant::now();
    let refused = manager.request(id(5), "", ask());
    assert!(matches!(refused, Err(CommandError::NotSent { relay: Some(RegistryError::TimedOut), .. })), "{refused:?}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    *wire.cut_off.lock().unwrap() = false;
    // The relay hangs still, and so do its fetches.
    drop(manager.approve(id(2), shown(&manager, id(2))).unwrap());
    assert!(manager.is_trusted(id(2)));
    assert_eq!(ends.next(), (id(2), "handshake_accept".to_owned()));
    drop(manager.request(id(6), "", ask()).unwrap());
    assert_eq!(ends.next(), (id(6), "handshake_request".to_owned()));
    drop(shut);
    *wire.cut_off.lock().unwrap() = true;
    eventually("the relay answers in time", || manager.request(id(5), "", ask()).is_ok());
}

#[test]
fn a_registry_that_falls_behind_binds_nothing() {
    let far = Arc::new(Far::default());
    let (manager, _wire, _ends) = alone(|builder| builder.registry(Arc::clone(&far) as _));
    let hear = |kind, later| {
        let change = |draft: &mut trustkeep::wire::sign::Draft| draft.stamp = draft.stamp.saturating_add(later);
        manager.receive(arrived(message_from(&identity(2), kind, change), 1));
        manager.pending().first().map(|(_, entry)| entry.authentic)
    };
    *far.revision.lock().unwrap() = Revision(6);
    assert_eq!(hear(Kind::Accept, 0), None, "of an answer to nothing nothing comes, but the registry was asked");
    *far.revision.lock().unwrap() = Revision(5);
    assert_eq!(hear(Kind::Request, 10), Some(false), "its answer is older than the one before");
    assert_eq!(count(&manager, "look_up_failed"), 1);
    *far.revision.lock().unwrap() = Revision(6);
    assert_eq!(hear(Kind::Request, 20), Some(true));
}
