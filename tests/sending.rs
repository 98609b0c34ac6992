//! What leaves a node, and in which order: a restriction waits for no other peer, a peer that does not read delays its own
//! messages only, and no message that was called off leaves by any way. Nothing here is measured by the clock: peers that
//! do not read stay so until the test lets them go.
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

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::*;
use trustkeep::config::{Durability, HandshakeConfig};
use trustkeep::machine::view::Nonce;
use trustkeep::node::{
    CommandError, Dispatch, Fetched, Identity as _, Inbox, Registry, RegistryEntry, RegistryError, Relaying,
    RequestOptions, Revision, SendError, TcpConfig, TcpTransport, Transport,
};
use trustkeep::wire::message::Kind;
use trustkeep::{HandshakeManager, NodeId, TrustRecord, TrustStore};

const FAREWELL: &str = "handshake_revoke";
const ACCEPT: &str = "handshake_accept";
const REFUSAL: &str = "handshake_reject";
const REQUEST: &str = "handshake_request";
/// For what is under way by now to come to where it waits. Nothing but how much a test notices hangs on it.
const A_MOMENT: Duration = Duration::from_millis(200);

/// What a peer does with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Takes,
    /// Reads nothing until the test ends it.
    Sticks,
    Refuses,
    TimesOut,
    /// The message is called off on its way.
    CalledOff,
}

/// A transport that blocks, to peers that do as the test says.
#[derive(Default)]
struct Net {
    ways: Mutex<HashMap<NodeId, Way>>,
    gate: Gate,
    /// Every message that was tried, in order.
    tried: Mutex<Vec<(NodeId, String)>>,
    /// How many messages hang now.
    stuck: Mutex<usize>,
    left: Mutex<Vec<(NodeId, String)>>,
    /// The nonces that these messages answer.
    answered: Mutex<Vec<(NodeId, String)>>,
    cut: Mutex<Vec<NodeId>>,
}

impl Net {
    fn set(&self, peers: impl IntoIterator<Item = u32>, way: Way) {
        self.ways.lock().unwrap().extend(peers.into_iter().map(|peer| (id(peer), way)));
    }
    fn stuck(&self) -> usize {
        *self.stuck.lock().unwrap()
    }
    fn tried(&self, peer: u32) -> Vec<String> {
        let tried = self.tried.lock().unwrap();
        tried.iter().filter(|(to, _)| *to == id(peer)).map(|(_, kind)| kind.clone()).collect()
    }
    fn left(&self, peer: u32) -> Vec<String> {
        let left = self.left.lock().unwrap();
        left.iter().filter(|(to, _)| *to == id(peer)).map(|(_, kind)| kind.clone()).collect()
    }
}

impl Transport for Net {
    fn start(&self, _: Arc<dyn Inbox>) -> io::Result<()> {
        Ok(())
    }
    fn send(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError> {
        self.tried.lock().unwrap().push((to, kind_of(bytes)));
        let way = self.ways.lock().unwrap().get(&to).copied().unwrap_or(Way::Takes);
        match way {
            Way::Takes => {}
            Way::Sticks => {
                *self.stuck.lock().unwrap() += 1;
                self.gate.pass();
                *self.stuck.lock().unwrap() -= 1;
            }
            Way::Refuses => {
                let source = io::ErrorKind::ConnectionRefused.into();
                return Err(SendError::Unreachable { address: any_port(), source });
            }
            Way::TimesOut => return Err(SendError::TimedOut { address: any_port() }),
            Way::CalledOff => return Err(SendError::Cancelled),
        }
        let message: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        self.answered.lock().unwrap().push((to, message["answers"].as_str().unwrap().to_owned()));
        self.left.lock().unwrap().push((to, kind_of(bytes)));
        Ok(())
    }
    fn disconnect(&self, peer: NodeId) {
        self.cut.lock().unwrap().push(peer);
    }
    fn stop_receiving(&self, _: Duration) {}
    fn stop_sending(&self) {
        self.gate.open();
    }
}

/// Node 1 on a [`Net`], which trusts these peers.
fn trusting(peers: impl IntoIterator<Item = u32>) -> (HandshakeManager, Arc<Net>) {
    trusting_with(Arc::new(TrustStore::in_memory()), peers, HandshakeConfig::default(), None)
}

fn trusting_with(
    store: Arc<TrustStore>,
    peers: impl IntoIterator<Item = u32>,
    config: HandshakeConfig,
    registry: Option<Arc<dyn Registry>>,
) -> (HandshakeManager, Arc<Net>) {
    for peer in peers {
        drop(store.grant(TrustRecord::new(id(peer), identity(peer).public_key())).unwrap());
    }
    let net = Arc::new(Net::default());
    let transport = Arc::clone(&net) as _;
    let mut builder = HandshakeManager::builder(store, Arc::new(identity(1)), transport).config(config);
    if let Some(registry) = registry {
        builder = builder.registry(registry).look_up_timeout(Duration::from_millis(200));
    }
    (builder.start().unwrap(), net)
}

/// A trusted peer asks again, for the `nth` time, and so is owed an accept.
fn asks(manager: &HandshakeManager, peer: u32, nth: i64) {
    let request = message_from(&identity(peer), Kind::Request, |draft| {
        draft.stamp = draft.stamp.saturating_add(nth);
        draft.nonce = Nonce([u8::try_from(nth).unwrap(); 16]);
    });
    manager.receive(arrived(request, 1));
}

#[test]
fn a_farewell_leaves_at_once_beside_any_number_of_peers_that_do_not_read() {
    let (manager, net) = trusting(2..=500);
    net.set(3..=500, Way::Sticks);
    let _shut = net.gate.close();
    // More of them owe an answer than there are threads; and 128 others were revoked and do not hear it either.
    for peer in 200..=500 {
        asks(&manager, peer, 0);
    }
    eventually("they hold up every thread for answers", || net.stuck() == 160);
    for peer in 3..=130 {
        drop(manager.revoke(id(peer)).unwrap());
    }
    eventually("they hold up a thread each", || net.stuck() == 160 + 128);
    drop(manager.revoke(id(2)).unwrap());
    eventually("the farewell leaves", || net.left(2) == [FAREWELL]);
    eventually("and the peer is cut off", || net.cut.lock().unwrap().contains(&id(2)));
    assert_eq!(net.stuck(), 160 + 128, "nothing else had to end for it");
    assert!(net.left.lock().unwrap().iter().all(|(peer, _)| *peer == id(2)));
    // The twin: a message that is no restriction comes to its turn as well, once there is a thread.
    asks(&manager, 131, 0);
    net.gate.open();
    eventually("everybody else is served", || net.left(131) == [ACCEPT] && net.left(500) == [ACCEPT]);
}

#[test]
fn a_restriction_leaves_before_the_messages_that_wait() {
    let (manager, net) = trusting(2..=300);
    net.set(3..=300, Way::Sticks);
    let _shut = net.gate.close();
    for peer in 3..=300 {
        asks(&manager, peer, 0);
    }
    asks(&manager, 2, 0);
    eventually("every thread is held up", || net.stuck() == 160);
    assert_eq!(net.tried(2), [""; 0], "its answer waits behind the others");
    drop(manager.revoke(id(2)).unwrap());
    eventually("the farewell leaves", || net.left(2).last().is_some_and(|kind| kind == FAREWELL));
    // What waited for the same peer keeps its place before it, or was called off: nothing comes after a farewell.
    net.gate.open();
    eventually("everybody else is served", || (3..=300).all(|peer| net.left(peer) == [ACCEPT]));
    assert_eq!(net.left(2), [FAREWELL]);
}

#[test]
fn a_full_queue_drops_neither_a_restriction_nor_a_message_to_a_peer_with_fewer() {
    let (manager, net) = trusting(2..=300);
    net.set(3..=300, Way::Sticks);
    let _shut = net.gate.close();
    for peer in 3..=300 {
        asks(&manager, peer, 0);
    }
    eventually("every thread is held up", || net.stuck() == 160);
    let lost = || count(&manager, "queue_full");
    let mut nth = 0;
    while lost() == 0 {
        nth += 1;
        assert!(nth < 20, "the queue has no end");
        for peer in 3..=300 {
            asks(&manager, peer, nth);
        }
    }
    asks(&manager, 2, 0);
    for peer in 290..=300 {
        drop(manager.revoke(id(peer)).unwrap());
    }
    net.set([299, 300], Way::Takes);
    net.gate.open();
    eventually("the message arrives", || net.left(2) == [ACCEPT]);
    for peer in 290..=300 {
        eventually("every farewell leaves", || net.left(peer).last().is_some_and(|kind| kind == FAREWELL));
    }
}

#[test]
fn a_full_share_of_one_peer_keeps_its_newest_answers_and_its_farewell() {
    for revoked in [false, true] {
        // Answers that do not wait for the disk are queued by the thread that decides.
        let mut config = HandshakeConfig::default();
        config.durability = Durability::Eventually;
        let (manager, net) = trusting_with(Arc::new(TrustStore::in_memory()), [2], config, None);
        net.set([2], Way::Sticks);
        let _shut = net.gate.close();
        asks(&manager, 2, 0);
        eventually("the first is on its way", || net.stuck() == 1);
        for nth in 1..=12 {
            asks(&manager, 2, nth);
        }
        assert_eq!(count(&manager, "queue_full"), 4, "eight may wait");
        if revoked {
            drop(manager.revoke(id(2)).unwrap());
            assert_eq!(count(&manager, "queue_full"), 5, "an answer made room");
        }
        net.gate.open();
        if revoked {
            eventually("the farewell leaves, last", || net.left(2).last().is_some_and(|kind| kind == FAREWELL));
            // What waited tells of trust that is no more, and is called off. One was on its way.
            assert_eq!(net.left(2), [ACCEPT, FAREWELL]);
        } else {
            eventually("nine leave", || net.left(2).len() == 9);
            let nonces = [0, 5, 6, 7, 8, 9, 10, 11, 12].map(|nth| (id(2), STANDARD.encode([nth; 16])));
            assert_eq!(*net.answered.lock().unwrap(), nonces);
        }
    }
}

#[test]
fn peers_that_were_slow_share_few_turns_and_a_peer_that_refused_is_none_of_them() {
    let (manager, net) = trusting(2..=60);
    net.set(3..=50, Way::TimesOut);
    net.set(51..=60, Way::Refuses);
    for peer in 3..=60 {
        asks(&manager, peer, 0);
    }
    eventually("all were tried", || count(&manager, "not_sent") == 58);
    net.set(3..=60, Way::Sticks);
    let _shut = net.gate.close();
    for peer in 3..=60 {
        asks(&manager, peer, 1);
    }
    // 48 were slow, of whom 32 have a turn; 10 refused at once, and each has one.
    eventually("they have their turns", || net.stuck() == 42);
    asks(&manager, 2, 0);
    eventually("another peer is not held up", || net.left(2) == [ACCEPT]);
    assert_eq!(net.stuck(), 42);
    for peer in 51..=60 {
        assert_eq!(net.tried(peer).len(), 2, "node {peer} waited though it had refused at once");
    }
    net.gate.open();
    eventually("the others get theirs", || (3..=60).all(|peer| net.left(peer) == [ACCEPT]));
    // A peer that takes its message again is slow no more.
    let _shut = net.gate.close();
    for peer in 3..=60 {
        asks(&manager, peer, 2);
    }
    eventually("each has a turn", || net.stuck() == 58);
    net.gate.open();
}

/// Begins to send and ends when the test says so.
#[derive(Default)]
struct Later(Mutex<Vec<Dispatch>>);

impl Transport for Later {
    fn start(&self, _: Arc<dyn Inbox>) -> io::Result<()> {
        Ok(())
    }
    fn send(&self, _: NodeId, _: &[u8]) -> Result<(), SendError> {
        Ok(())
    }
    fn dispatch(&self, message: Dispatch) {
        self.0.lock().unwrap().push(message);
    }
    fn disconnect(&self, _: NodeId) {}
    fn stop_receiving(&self, _: Duration) {}
    fn stop_sending(&self) {
        self.0.lock().unwrap().clear();
    }
}

impl Later {
    fn under_way(&self) -> Vec<NodeId> {
        let mut peers: Vec<_> = self.0.lock().unwrap().iter().map(Dispatch::to).collect();
        peers.sort_unstable();
        peers
    }
    fn take(&self, peer: u32) -> Dispatch {
        let mut under_way = self.0.lock().unwrap();
        let at = under_way.iter().position(|message| message.to() == id(peer)).unwrap();
        under_way.remove(at)
    }
}

#[test]
fn a_transport_that_sends_later_has_one_message_of_each_peer_under_way() {
    let transport = Arc::new(Later::default());
    let store = Arc::new(TrustStore::in_memory());
    for peer in 2..=400 {
        drop(store.grant(TrustRecord::new(id(peer), identity(peer).public_key())).unwrap());
    }
    let builder = HandshakeManager::builder(store, Arc::new(identity(1)), Arc::clone(&transport) as _);
    let manager = builder.start().unwrap();
    for peer in 2..=400 {
        asks(&manager, peer, 0);
    }
    let everybody: Vec<_> = (2..=400).map(id).collect();
    eventually("all are under way", || transport.under_way() == everybody);
    asks(&manager, 2, 1);
    drop(manager.revoke(id(2)).unwrap());
    drop(manager.revoke(id(3)).unwrap());
    assert!(!transport.0.lock().unwrap().iter().any(Dispatch::restricts), "the message before it has not ended");
    // However a message ends, the next one comes.
    transport.take(2).end(Ok(()));
    drop(transport.take(3));
    for peer in [2, 3] {
        eventually("its farewell is next", || transport.under_way().contains(&id(peer)));
        let farewell = transport.take(peer);
        assert!(farewell.restricts() && kind_of(farewell.bytes()) == FAREWELL);
        farewell.end(Ok(()));
    }
    eventually("what was dropped counts as not sent", || count(&manager, "not_sent") == 1);
    manager.shutdown().unwrap();
    assert!(transport.under_way().is_empty());
}

#[test]
fn a_disk_that_hangs_leaves_every_peer_its_share_of_the_answers() {
    let disk = Arc::new(Disk::default());
    let store = Arc::new(TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap());
    let (manager, net) = trusting_with(store, 2..=600, HandshakeConfig::default(), None);
    manager.store().flush().unwrap();
    let _shut = disk.gate.close();
    // Answers wait for what was decided before them, and this does not become durable.
    drop(manager.grant(TrustRecord::new(id(601), None)).unwrap());
    // The first answer is what the thread waits with; from then on they queue.
    for nth in 0..40 {
        asks(&manager, 2, nth);
    }
    let lost = count(&manager, "queue_full");
    assert!((31..=32).contains(&lost), "one peer has 8 places, and lost {lost} of 40");
    // Others use up the rest, and the next peer gets its place all the same.
    for nth in 0..7 {
        for peer in 3..=590 {
            asks(&manager, peer, nth);
        }
    }
    assert!(count(&manager, "queue_full") > lost, "4096 places are taken");
    asks(&manager, 600, 0);
    disk.gate.open();
    eventually("its answer leaves", || net.left(600) == [ACCEPT]);
    let answers = net.left(2).len();
    assert!((1..=9).contains(&answers), "{answers}");
}

/// A relay that takes messages, and hangs while its gate is closed.
#[derive(Default)]
struct Post {
    gate: Gate,
    asked: Mutex<usize>,
    relayed: Mutex<Vec<Kind>>,
    reports: Mutex<Vec<(NodeId, bool)>>,
}

impl Registry for Post {
    fn look_up(&self, _: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        Ok(None)
    }
    fn may_block(&self) -> bool {
        false
    }
    fn relaying(&self) -> Relaying {
        Relaying::Poll
    }
    fn relay(&self, _: NodeId, kind: Kind, _: &[u8]) -> Result<(), RegistryError> {
        *self.asked.lock().unwrap() += 1;
        self.gate.pass();
        self.relayed.lock().unwrap().push(kind);
        Ok(())
    }
    fn fetch(&self, _: Revision, _: usize, _: Duration) -> Fetched {
        Fetched::default()
    }
    fn report_grant(&self, peer: NodeId) -> Result<(), RegistryError> {
        self.reports.lock().unwrap().push((peer, true));
        Ok(())
    }
    fn report_revoke(&self, peer: NodeId) -> Result<(), RegistryError> {
        self.reports.lock().unwrap().push((peer, false));
        Ok(())
    }
}

fn posting(peers: impl IntoIterator<Item = u32>) -> (HandshakeManager, Arc<Net>, Arc<Post>) {
    let (post, store) = (Arc::new(Post::default()), Arc::new(TrustStore::in_memory()));
    let registry = Some(Arc::clone(&post) as _);
    let (manager, net) = trusting_with(store, peers, HandshakeConfig::default(), registry);
    (manager, net, post)
}

#[test]
fn an_answer_is_checked_again_before_the_relay_gets_it() {
    for revoked in [true, false] {
        let (manager, net, post) = posting([]);
        net.set([2], Way::Refuses);
        let shut = post.gate.close();
        // The request hangs at the relay, so the answer to the same peer waits there.
        let asked = manager.request(id(2), "", RequestOptions::default());
        assert!(matches!(asked, Err(CommandError::NotSent { relay: Some(RegistryError::TimedOut), .. })), "{asked:?}");
        assert_eq!(*post.asked.lock().unwrap(), 1);
        asks(&manager, 2, 0);
        drop(manager.approve(id(2), shown(&manager, id(2))).unwrap());
        eventually("the direct way fails", || net.tried(2).contains(&ACCEPT.to_owned()));
        if revoked {
            drop(manager.revoke(id(2)).unwrap());
            eventually("the farewell is tried behind it", || net.tried(2).contains(&FAREWELL.to_owned()));
        }
        drop(shut);
        if revoked {
            // The relay does what waits for it in order: what comes after the answer shows that the answer is over.
            manager.receive(arrived(
                message_from(&identity(2), Kind::Request, |d| d.stamp = d.stamp.saturating_add(9)),
                1,
            ));
            drop(manager.reject(id(2), "").unwrap());
            eventually("the refusal is relayed", || post.relayed.lock().unwrap().contains(&Kind::Reject));
            assert_eq!(*post.relayed.lock().unwrap(), [Kind::Request, Kind::Reject]);
        } else {
            eventually("the answer is relayed", || *post.relayed.lock().unwrap() == [Kind::Request, Kind::Accept]);
        }
    }
}

#[test]
fn a_farewell_that_waits_is_called_off_when_the_peer_is_trusted_by_then() {
    for again in [true, false] {
        let (manager, net) = trusting([2]);
        net.set([2], Way::Sticks);
        let shut = net.gate.close();
        asks(&manager, 2, 0);
        eventually("an answer is under way", || net.stuck() == 1);
        // The farewell waits behind it.
        drop(manager.revoke(id(2)).unwrap());
        if again {
            let mark = manager.store().revocation(id(2)).unwrap().id;
            let record = TrustRecord::new(id(2), identity(2).public_key());
            drop(manager.store().grant_lifting(record, mark).unwrap());
        }
        drop(shut);
        if again {
            eventually("the answer left", || net.left(2) == [ACCEPT]);
            asks(&manager, 2, 9);
            eventually("what comes after the farewell leaves", || net.left(2).len() > 1);
            assert_eq!(net.left(2), [ACCEPT, ACCEPT]);
        } else {
            eventually("the farewell leaves", || net.left(2) == [ACCEPT, FAREWELL]);
        }
    }
}

#[test]
fn what_was_called_off_on_its_way_is_not_given_to_the_relay() {
    let (manager, net, post) = posting([2, 3]);
    net.set([2], Way::CalledOff);
    net.set([3], Way::TimesOut);
    asks(&manager, 2, 0);
    eventually("it counts as not sent", || count(&manager, "not_sent") == 1);
    assert_eq!(*post.asked.lock().unwrap(), 0);
    let asked = manager.request(id(2), "", RequestOptions::default().force(true));
    assert!(matches!(asked, Err(CommandError::NotSent { source: SendError::Cancelled, relay: None, .. })), "{asked:?}");
    // The twin: what only failed is.
    asks(&manager, 3, 0);
    eventually("it is relayed", || *post.relayed.lock().unwrap() == [Kind::Accept]);
}

#[test]
fn the_cut_waits_until_the_farewell_has_left() {
    let mut config = HandshakeConfig::default();
    config.farewell_max = Duration::from_secs(3600);
    let store = Arc::new(TrustStore::in_memory());
    let (manager, net) = trusting_with(store, [2, 3], config, None);
    net.set([2], Way::Sticks);
    let _shut = net.gate.close();
    drop(manager.revoke(id(2)).unwrap());
    eventually("the farewell is on its way", || net.stuck() == 1);
    // Another peer's farewell leaves meanwhile, and that peer is cut off: the thread that cuts has looked.
    drop(manager.revoke(id(3)).unwrap());
    eventually("the other peer is cut off", || *net.cut.lock().unwrap() == [id(3)]);
    std::thread::sleep(A_WHILE);
    assert_eq!(*net.cut.lock().unwrap(), [id(3)]);
    net.gate.open();
    eventually("the cut follows the farewell", || *net.cut.lock().unwrap() == [id(3), id(2)]);
}

#[test]
fn a_grant_is_reported_only_if_the_record_is_still_the_same() {
    let disk = Arc::new(Disk::default());
    let store = Arc::new(TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap());
    let post = Arc::new(Post::default());
    let registry = Some(Arc::clone(&post) as _);
    let (manager, _net) = trusting_with(store, [], HandshakeConfig::default(), registry);
    let shut = disk.gate.close();
    let record = |peer, network| {
        let mut record = TrustRecord::new(id(peer), identity(peer).public_key());
        record.network = network;
        record
    };
    // The second grant changes what the first was to tell of.
    for network in [1, 2] {
        drop(manager.grant(record(2, network)).unwrap());
    }
    drop(manager.grant(record(3, 1)).unwrap());
    drop(manager.grant(record(4, 1)).unwrap());
    drop(manager.store().revoke(id(4)).unwrap());
    drop(manager.grant(record(5, 1)).unwrap());
    drop(shut);
    eventually("the last is reported", || post.reports.lock().unwrap().contains(&(id(5), true)));
    eventually("what lasts is reported once", || post.reports.lock().unwrap().len() >= 4);
    manager.shutdown().unwrap();
    let mut reports = post.reports.lock().unwrap().clone();
    reports.sort_unstable();
    // Of the fourth its end alone, which the store's own door tells as well.
    assert_eq!(reports, [(2, true), (3, true), (4, false), (5, true)].map(|(peer, is_trusted)| (id(peer), is_trusted)));
}

#[test]
fn the_report_of_a_revocation_goes_before_reports_of_grants() {
    let (book, store) = (Arc::new(Book::default()), Arc::new(TrustStore::in_memory()));
    let registry = Some(Arc::clone(&book) as _);
    let (manager, _net) = trusting_with(store, [2], HandshakeConfig::default(), registry);
    let _shut = book.reporting.close();
    // 16 calls hang, and more reports wait.
    for peer in 3..=100 {
        drop(manager.grant(TrustRecord::new(id(peer), identity(peer).public_key())).unwrap());
    }
    drop(manager.revoke(id(2)).unwrap());
    // It is called though none of those calls has ended: the gate counts who stands before it.
    eventually("the revocation is reported", || book.reporting.waiting() == 17);
    book.reporting.open();
    eventually("all are reported", || book.reports.lock().unwrap().len() == 99);
}

/// Where each kind of node is: those below 10 000 read, the others do not read or do not even answer.
struct Places {
    good: SocketAddr,
    silent: SocketAddr,
    hole: SocketAddr,
}

impl Registry for Places {
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        let address = match peer.get() {
            ..10_000 => self.good,
            odd if odd % 2 == 1 => self.silent,
            _ => self.hole,
        };
        Ok(Some(RegistryEntry::new(None).address(address)))
    }
    fn may_block(&self) -> bool {
        false
    }
}

/// Ends the flood, also when the test fails.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Prints how long farewells took, in `TRUSTKEEP_FAREWELLS` rounds, beside `TRUSTKEEP_SILENT` peers that ask again and again.
#[test]
fn over_tcp_farewells_leave_beside_peers_that_do_not_read_or_do_not_answer() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (rounds, silent) = (number("TRUSTKEEP_FAREWELLS", 3), number("TRUSTKEEP_SILENT", 128));
    let good = TcpListener::bind(any_port()).unwrap();
    // Takes connections into its queue, and reads nothing.
    let unread = TcpListener::bind(any_port()).unwrap();
    let (hole, _fill, _socket) = black_hole();
    let registry = Arc::new(Places { good: good.local_addr().unwrap(), silent: unread.local_addr().unwrap(), hole });
    let transport = Arc::new(TcpTransport::bind(TcpConfig::listen(any_port()), Arc::clone(&registry) as _).unwrap());
    let store = Arc::new(TrustStore::in_memory());
    let asking = 10_000..10_000 + silent;
    for peer in (2..2 + rounds).chain(asking.clone()) {
        drop(store.grant(TrustRecord::new(id(peer), identity(peer).public_key())).unwrap());
    }
    let manager = HandshakeManager::builder(store, Arc::new(identity(1)), transport).start().unwrap();
    let stop = AtomicBool::new(false);
    let mut took = Vec::new();
    good.set_nonblocking(true).unwrap();
    std::thread::scope(|scope| {
        let stopping = Stopping(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                asking.clone().for_each(|peer| asks(&manager, peer, 0));
            }
        });
        let lost = || count(&manager, "queue_full") + count(&manager, "not_sent");
        for peer in 2..2 + rounds {
            // They keep the node busy all the time: more of their answers are lost before each round.
            let before = lost();
            eventually("they ask", || silent == 0 || lost() > before);
            let begun = Instant::now();
            drop(manager.revoke(id(peer)).unwrap());
            let mut farewell = None;
            eventually("the farewell leaves", || {
                farewell = good.accept().ok();
                farewell.is_some()
            });
            let (mut stream, mut bytes) = (farewell.unwrap().0, Vec::new());
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.read_to_end(&mut bytes).unwrap();
            took.push(begun.elapsed());
            assert_eq!(kind_of(&bytes), FAREWELL);
        }
        drop(stopping);
    });
    took.sort_unstable();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{rounds} farewells beside {silent} silent peers: median {median:?}, slowest {slowest:?}");
}

#[test]
fn a_refusal_that_waits_is_called_off_when_its_key_is_trusted_by_then() {
    for trusted in [true, false] {
        let (manager, net) = trusting([2]);
        net.set([2], Way::Sticks);
        let shut = net.gate.close();
        drop(manager.revoke(id(2)).unwrap());
        eventually("a farewell is under way", || net.stuck() == 1);
        asks(&manager, 2, 1);
        // The refusal waits behind it.
        drop(manager.reject(id(2), "").unwrap());
        if trusted {
            let mark = manager.store().revocation(id(2)).unwrap().id;
            let record = TrustRecord::new(id(2), identity(2).public_key());
            drop(manager.store().grant_lifting(record, mark).unwrap());
        }
        drop(shut);
        if trusted {
            eventually("the farewell left", || net.left(2) == [FAREWELL]);
            asks(&manager, 2, 9);
            eventually("what comes after the refusal leaves", || net.left(2).len() > 1);
            assert_eq!(net.left(2), [FAREWELL, ACCEPT]);
        } else {
            eventually("the refusal leaves", || net.left(2) == [FAREWELL, REFUSAL]);
        }
    }
}

#[test]
fn a_try_of_our_request_that_waits_is_called_off_when_that_is_cancelled() {
    for cancelled in [true, false] {
        let (manager, net) = trusting([2]);
        net.set([2], Way::Sticks);
        let shut = net.gate.close();
        asks(&manager, 2, 0);
        eventually("an answer is under way", || net.stuck() == 1);
        net.set([2], Way::Refuses);
        drop(manager.request(id(2), "", RequestOptions::default().force(true)).unwrap_err());
        // The next try waits behind the answer.
        let next = || manager.outgoing().iter().map(|(peer, it)| manager.tries_of_request(*peer, it).next_try).next();
        eventually("its turn has come", || next() == Some(None));
        std::thread::sleep(A_MOMENT);
        net.set([2], Way::Takes);
        if cancelled {
            drop(manager.cancel(id(2)).unwrap());
        }
        drop(shut);
        eventually("the answer left", || !net.left(2).is_empty());
        asks(&manager, 2, 9);
        let expected: &[&str] = if cancelled { &[ACCEPT, ACCEPT] } else { &[ACCEPT, REQUEST, ACCEPT] };
        eventually("what comes after the try leaves", || net.left(2).len() >= expected.len());
        assert_eq!(net.left(2), expected);
    }
}
