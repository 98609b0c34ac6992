//! Answers over the connection of the request: a peer that nobody can dial becomes trusted, and nobody gets an answer that
//! is not for them. Over real TCP. How many connections are held, and for how long, is bounded.
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

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use trustkeep::clock::{Clock, SystemClock};
use trustkeep::config::{HandshakeConfig, MESSAGE_BYTES_MAX};
use trustkeep::machine::event::Event;
use trustkeep::machine::input::Path;
use trustkeep::machine::view::{Nonce, Source};
use trustkeep::node::{
    CommandError, HandshakeManager, Identity as _, Inbox, Received, RequestOptions, TcpConfig, TcpTransport, Told,
    Transport,
};
use trustkeep::time::Now;
use trustkeep::wire::message::Kind;
use trustkeep::{TrustRecord, TrustStore};

const HOUR: Duration = Duration::from_secs(3600);

/// A node over TCP, with times that no busy machine reaches.
struct Node {
    manager: HandshakeManager,
    transport: Arc<TcpTransport>,
}

impl Node {
    fn address(&self) -> SocketAddr {
        self.transport.local_address()
    }
    fn held(&self) -> usize {
        self.transport.counts().held
    }
}

fn patient(config: &mut TcpConfig) {
    (config.look_up_timeout, config.connect_timeout, config.send_timeout) = (SOON, SOON, SOON);
    (config.receive_timeout, config.close_wait, config.answer_wait) = (SOON, SOON, HOUR);
}

fn node(number: u32, book: &Arc<Book>) -> Node {
    node_with(number, book, |_| {})
}

fn node_with(number: u32, book: &Arc<Book>, change: impl FnOnce(&mut TcpConfig)) -> Node {
    node_on(Arc::new(TrustStore::in_memory()), number, book, change)
}

fn node_on(store: Arc<TrustStore>, number: u32, book: &Arc<Book>, change: impl FnOnce(&mut TcpConfig)) -> Node {
    let mut config = TcpConfig::listen(any_port());
    patient(&mut config);
    change(&mut config);
    let transport = Arc::new(TcpTransport::bind(config, Arc::clone(book) as _).unwrap());
    let of_node = Arc::clone(&transport);
    let builder = HandshakeManager::builder(store, Arc::new(identity(number)), of_node);
    let manager = builder.registry(Arc::clone(book) as _).look_up_timeout(SOON).config(HandshakeConfig::default());
    Node { manager: manager.start().unwrap(), transport }
}

/// Node 1, which can be dialled, and a book in which it stands with its key; nothing in it leads to anybody else.
fn reachable() -> (Node, Arc<Book>) {
    let book = Arc::new(Book::default());
    let one = node(1, &book);
    book.put(id(1), Some(identity(1).public_key()), one.address());
    (one, book)
}

/// A connection to `to` over which these bytes were sent, as a sender does.
fn deliver(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    deliver_over(TcpStream::connect(to).unwrap(), bytes)
}

fn deliver_over(mut stream: TcpStream, bytes: &[u8]) -> TcpStream {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream
}

/// The word that the message was taken and that an answer may come.
fn is_held(stream: &mut TcpStream) {
    let mut word = [0; 1];
    stream.read_exact(&mut word).expect("it was closed");
    assert_eq!(&word, b"\n");
    is_open(stream);
}

fn is_open(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(A_WHILE)).unwrap();
    let read = stream.read(&mut [0; 1]);
    assert!(matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock), "{read:?}");
    stream.set_read_timeout(Some(SOON)).unwrap();
}

/// Everything that still comes until the other side closes.
fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("still open");
    text
}

fn request_of(number: u32, nonce: u8) -> Vec<u8> {
    message_from(&identity(number), Kind::Request, |draft| draft.nonce = Nonce([nonce; 16]))
}

fn pending(node: &Node, peer: u32) -> bool {
    node.manager.pending().iter().any(|(other, _)| *other == id(peer))
}

fn approve(node: &Node, peer: u32) {
    eventually("the request waits", || pending(node, peer));
    let fingerprint = identity(peer).public_key().fingerprint();
    drop(match node.manager.store().revocation(id(peer)) {
        Some(mark) => node.manager.approve_lifting(id(peer), Some(fingerprint), mark.id).unwrap(),
        None => node.manager.approve(id(peer), Some(fingerprint)).unwrap(),
    });
}

#[test]
fn a_peer_that_nobody_can_dial_becomes_trusted_by_request_and_approve() {
    let (one, book) = reachable();
    let nat = node(2, &book);
    drop(nat.manager.request(id(1), "behind a router", RequestOptions::default()).unwrap());
    approve(&one, 2);
    assert!(nat.manager.wait_for_trust(id(1), SOON) && one.manager.is_trusted(id(2)));
    assert_eq!(count(&one.manager, "not_sent"), 0);
    eventually("the connection is done with", || one.held() == 0);
    // Trusted already, it is answered at once; so an answer that was lost comes with the next request.
    for _ in 0..3 {
        drop(nat.manager.request(id(1), "", RequestOptions::default().force(true)).unwrap());
        eventually("it is answered", || nat.manager.outgoing().is_empty());
    }
}

#[test]
fn a_refusal_comes_over_the_connection_of_the_request_too() {
    let (one, book) = reachable();
    let nat = node(2, &book);
    let events = nat.manager.subscribe();
    drop(nat.manager.request(id(1), "", RequestOptions::default()).unwrap());
    eventually("the request waits", || pending(&one, 2));
    drop(one.manager.reject(id(2), "not now").unwrap());
    loop {
        let event = events.recv_timeout(SOON).expect("the refusal did not come");
        if let Event::Rejected { peer, .. } = event {
            assert_eq!(peer, id(1));
            break;
        }
    }
    // it shows how it was refused, and waits for no answer any more.
    let (_, asked) = &nat.manager.outgoing()[0];
    assert!(asked.refused.as_ref().is_some_and(|refusal| refusal.authentic));
}

#[test]
fn an_answer_comes_with_the_next_request_where_the_first_connection_is_gone() {
    let (one, book) = reachable();
    let nat = node(2, &book);
    let mut asked = deliver(one.address(), &request_of(2, 1));
    is_held(&mut asked);
    // It closes in good order, so that only the answer to what is written shows it.
    drop(asked);
    approve(&one, 2);
    // Written into the void: that is no delivery, and is told.
    eventually("the answer is not sent", || count(&one.manager, "not_sent") == 1);
    drop(nat.manager.request(id(1), "", RequestOptions::default()).unwrap());
    assert!(nat.manager.wait_for_trust(id(1), SOON));
}

#[test]
fn an_answer_counts_as_sent_once_the_other_side_has_all_of_it() {
    let (one, _) = reachable();
    // Room for some hundred bytes at the other end, and a longer answer.
    let refused = |host: u8| {
        let peer = u32::from(host);
        let socket = socket_from([127, 0, 3, host]).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1).unwrap();
        rustix::net::connect(&socket, &one.address()).unwrap();
        let mut asked = deliver_over(TcpStream::from(socket), &request_of(peer, 1));
        is_held(&mut asked);
        eventually("the request waits", || pending(&one, peer));
        drop(one.manager.reject(id(peer), &"\"".repeat(1024)).unwrap());
        asked.peek(&mut [0; 1]).expect("nothing came of the answer");
        asked
    };
    let asked = refused(2);
    assert_eq!(count(&one.manager, "not_sent"), 0);
    // Closed with a part of it unread and the rest on its way.
    drop(asked);
    eventually("it is not sent", || count(&one.manager, "not_sent") == 1);
    assert!(rest(&mut refused(3)).contains("handshake_reject"));
    one.manager.shutdown().unwrap();
    assert_eq!(count(&one.manager, "not_sent"), 1, "the other is");
}

#[test]
fn an_answer_goes_to_the_key_that_asked_and_to_nobody_who_writes_its_id_and_nonce() {
    let (one, _) = reachable();
    let mut asked = deliver(one.address(), &request_of(2, 5));
    is_held(&mut asked);
    eventually("the request waits", || pending(&one, 2));
    // The same id and the same nonce under another key.
    let forged =
        message_from(&identity_of_two_under_another_key(), Kind::Request, |draft| draft.nonce = Nonce([5; 16]));
    let mut forger = deliver_over(connect_from([127, 0, 3, 1], one.address()), &forged);
    is_held(&mut forger);
    eventually("the forgery was looked at", || one.manager.pending()[0].1.conflicts == 1);
    approve(&one, 2);
    let answer: serde_json::Value = serde_json::from_str(&rest(&mut asked)).expect("no answer");
    assert_eq!((&answer["type"], &answer["node_id"]), (&"handshake_accept".into(), &1.into()));
    is_open(&mut forger);
    one.transport.stop_sending();
    assert_eq!(rest(&mut forger), "", "and never anything but the word");
}

fn identity_of_two_under_another_key() -> trustkeep::node::FileIdentity {
    trustkeep::node::FileIdentity::from_seed(id(2), &[0xBB; 32]).unwrap()
}

#[test]
fn a_copy_of_a_request_fetches_no_answer() {
    let (one, _) = reachable();
    let request = request_of(2, 5);
    let mut asked = deliver(one.address(), &request);
    is_held(&mut asked);
    eventually("the request waits", || pending(&one, 2));
    let mut copy = deliver_over(connect_from([127, 0, 3, 1], one.address()), &request);
    is_held(&mut copy);
    eventually("the copy is stale", || count(&one.manager, "stale") == 1);
    approve(&one, 2);
    assert!(rest(&mut asked).contains("handshake_accept"));
    one.transport.stop_sending();
    assert_eq!(rest(&mut copy), "");
}

#[test]
fn a_known_address_comes_first_and_the_held_connection_where_it_does_not_answer() {
    let (one, book) = reachable();
    let two = TcpListener::bind(any_port()).unwrap();
    book.put(id(2), None, two.local_addr().unwrap());
    let mut asked = deliver(one.address(), &request_of(2, 5));
    is_held(&mut asked);
    approve(&one, 2);
    assert!(rest(&mut accepted(&two)).contains("handshake_accept"), "dialled");
    assert_eq!(rest(&mut asked), "", "and then done with");

    let free = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    book.put(id(3), None, free);
    let mut asked = deliver(one.address(), &request_of(3, 5));
    is_held(&mut asked);
    approve(&one, 3);
    assert!(rest(&mut asked).contains("handshake_accept"));

    // Nor does it matter why no address is known.
    let mut asked = deliver(one.address(), &request_of(4, 5));
    is_held(&mut asked);
    eventually("the request waits", || pending(&one, 4));
    *book.panics_about.lock().unwrap() = Some(id(4));
    approve(&one, 4);
    assert!(rest(&mut asked).contains("handshake_accept"));
    assert_eq!(count(&one.manager, "not_sent"), 0);
}

/// The operating system's clock, so many milliseconds later.
#[derive(Debug)]
struct Later(Mutex<i64>);

impl Clock for Later {
    fn now(&self) -> Now {
        let (now, later) = (SystemClock.now(), *self.0.lock().unwrap());
        Now { wall: now.wall.saturating_add(later), tick: now.tick.saturating_add(later) }
    }
}

#[test]
fn a_copy_that_is_good_for_a_farewell_fetches_no_answer_either() {
    let (book, clock) = (Arc::new(Book::default()), Arc::new(Later(Mutex::new(0))));
    let store = Arc::new(TrustStore::options().clock(Arc::clone(&clock) as _).in_memory().unwrap());
    let one = node_on(store, 1, &book, |_| {});
    let ask = |host: u8, bytes: &[u8]| {
        let mut stream = deliver_over(connect_from([127, 0, 3, host], one.address()), bytes);
        is_held(&mut stream);
        stream
    };
    let request = |nonce: u8| {
        let stamp = clock.now().wall;
        message_from(&identity(2), Kind::Request, |draft| (draft.nonce, draft.stamp) = (Nonce([nonce; 16]), stamp))
    };
    // Once trusted, node 2 is known by its key and not by anybody's word any more.
    drop(one.manager.store().grant(TrustRecord::new(id(2), identity(2).public_key())).unwrap());
    assert!(rest(&mut deliver(one.address(), &request(1))).contains("handshake_accept"));
    drop(one.manager.revoke(id(2)).unwrap());
    let farewells = || count(&one.manager, "not_sent");
    eventually("there is no way for the farewell", || farewells() >= 1);
    let wait_a_minute = || *clock.0.lock().unwrap() += 61_000;
    wait_a_minute();
    let request = request(2);
    // Who asked hears the farewell over its own connection.
    let mut asked = deliver_over(connect_from([127, 0, 3, 1], one.address()), &request);
    assert!(rest(&mut asked).contains("handshake_revoke"));
    eventually("it waits", || pending(&one, 2));
    wait_a_minute();
    // Dropped, but for the farewell. What was owed meanwhile may have been tried by itself, too.
    let before = farewells();
    let mut copy = ask(2, &request);
    eventually("a farewell would go again", || farewells() > before && count(&one.manager, "stale") == 1);
    is_open(&mut copy);
    one.transport.stop_sending();
    assert_eq!(rest(&mut copy), "");
}

/// The decision about peer 2 that it has not been told yet.
fn owed(node: &Node) -> Option<Kind> {
    node.manager.owed().first().map(|(peer, owed)| {
        assert_eq!(*peer, id(2));
        owed.kind
    })
}

/// Node 2 asks, closes the connection, and is refused.
fn refused_in_vain(one: &Node) -> Vec<u8> {
    let request = request_of(2, 1);
    let mut asked = deliver(one.address(), &request);
    is_held(&mut asked);
    drop(asked);
    eventually("the request waits", || pending(one, 2));
    drop(one.manager.reject(id(2), "not now").unwrap());
    eventually("the refusal is owed", || owed(one) == Some(Kind::Reject));
    request
}

#[test]
fn a_refusal_that_reached_nobody_comes_over_the_next_connection_of_its_key() {
    let (one, _) = reachable();
    let request = refused_in_vain(&one);
    // Neither a copy nor another key with the same nonce gets it.
    let mut copy = deliver_over(connect_from([127, 0, 3, 1], one.address()), &request);
    is_held(&mut copy);
    let rival = message_from(&identity_of_two_under_another_key(), Kind::Request, |draft| {
        draft.nonce = Nonce([1; 16]);
    });
    let mut forger = deliver_over(connect_from([127, 0, 3, 2], one.address()), &rival);
    is_held(&mut forger);
    eventually("the forger waits, the copy does not", || {
        pending(&one, 2) && count(&one.manager, "already_refused") == 1
    });
    assert_eq!(owed(&one), Some(Kind::Reject));
    // The next try of the same request.
    let again = request_of(2, 1);
    let answer: serde_json::Value = serde_json::from_str(&rest(&mut deliver(one.address(), &again))).unwrap();
    assert_eq!((&answer["type"], &answer["reason"]), (&"handshake_reject".into(), &"not now".into()));
    let sent: serde_json::Value = serde_json::from_slice(&again).unwrap();
    assert_eq!(answer["answers"], sent["nonce"]);
    eventually("nothing is owed any more", || owed(&one).is_none());
    is_open(&mut forger);
    let waiting = one.manager.pending();
    assert_eq!((waiting.len(), waiting[0].1.key), (1, identity_of_two_under_another_key().public_key()));
    // A copy of what was answered does not wait either; the peer's next request does.
    drop(deliver_over(connect_from([127, 0, 3, 3], one.address()), &again));
    eventually("the copy is known", || count(&one.manager, "already_refused") == 2);
    let mut next = deliver(one.address(), &request_of(2, 9));
    is_held(&mut next);
    eventually("it waits beside the forger's", || one.manager.pending()[0].1.others.len() == 1);
    is_open(&mut next);
}

#[test]
fn a_peer_that_asks_anew_waits_though_the_refusal_of_another_request_reached_nobody() {
    let (one, book) = reachable();
    refused_in_vain(&one);
    let nat = node(2, &book);
    let (events, nonce) = (nat.manager.subscribe(), |node: &Node| node.manager.pending()[0].1.nonce);
    drop(nat.manager.request(id(1), "", RequestOptions::default()).unwrap());
    eventually("it waits for the operator", || pending(&one, 2));
    assert_eq!((nonce(&one), owed(&one)), (Some(nat.manager.outgoing()[0].1.nonce), Some(Kind::Reject)));
    // It is refused in turn, and hears that over the connection of its own request; then nothing is owed.
    drop(one.manager.reject(id(2), "nor now").unwrap());
    let refused = std::iter::from_fn(|| events.recv_timeout(SOON)).find_map(|event| match event {
        Event::Rejected { reason, authentic, .. } => Some((reason, authentic)),
        _ => None,
    });
    assert_eq!(refused, Some(("nor now".to_owned(), true)));
    eventually("nothing is owed any more", || owed(&one).is_none());
}

#[test]
fn who_is_asked_too_is_not_refused_as_owed() {
    // Our own request says the opposite of the refusal.
    let (one, _) = reachable();
    refused_in_vain(&one);
    assert!(one.manager.request(id(2), "", RequestOptions::default()).is_err(), "there is no way");
    let mut again = deliver(one.address(), &request_of(2, 1));
    is_held(&mut again);
    eventually("it waits for the operator", || pending(&one, 2));
}

#[test]
fn a_farewell_that_reached_nobody_comes_over_the_next_connection_of_its_key() {
    let (one, book) = reachable();
    let nat = node(2, &book);
    drop(nat.manager.request(id(1), "", RequestOptions::default()).unwrap());
    approve(&one, 2);
    assert!(nat.manager.wait_for_trust(id(1), SOON));
    // So that its key is known.
    drop(nat.manager.request(id(1), "", RequestOptions::default().force(true)).unwrap());
    eventually("it is answered", || nat.manager.outgoing().is_empty());
    eventually("the connection is done with", || one.held() == 0);
    drop(one.manager.revoke(id(2)).unwrap());
    eventually("the farewell is owed", || owed(&one) == Some(Kind::Revoke));
    // Another key of that name gets nothing.
    let rival = message_from(&identity_of_two_under_another_key(), Kind::Request, |_| {});
    let mut forger = deliver_over(connect_from([127, 0, 3, 2], one.address()), &rival);
    is_held(&mut forger);
    eventually("the forger waits", || pending(&one, 2));
    assert!(nat.manager.is_trusted(id(1)), "it has heard nothing");
    drop(nat.manager.request(id(1), "", RequestOptions::default().force(true)).unwrap());
    eventually("the peer hears the farewell", || !nat.manager.is_trusted(id(1)));
    eventually("nothing is owed any more", || owed(&one).is_none());
    is_open(&mut forger);
}

/// The next connection; a test that fails must not hang.
fn accepted(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let mut next = None;
    eventually("a connection comes", || {
        next = listener.accept().ok();
        next.is_some()
    });
    let stream = next.unwrap().0;
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

#[test]
fn whether_a_connection_is_held_says_nothing_about_what_became_of_the_message() {
    let (one, _) = reachable();
    let mut bad = message_from(&identity(2), Kind::Request, |_| {});
    let at = bad.len() - 20;
    bad[at] ^= 1;
    let late = message_from(&identity(3), Kind::Request, |draft| draft.stamp = draft.stamp.saturating_add(-3_600_000));
    let good = request_of(4, 1);
    let mut held = Vec::new();
    for (host, bytes) in (1..).zip([&bad, &late, &good]) {
        let mut stream = deliver_over(connect_from([127, 0, 4, host], one.address()), bytes);
        is_held(&mut stream);
        held.push(stream);
    }
    eventually("the good one waits", || pending(&one, 4));
    assert_eq!((one.manager.pending().len(), one.held()), (1, 3));
    held.iter_mut().for_each(is_open);
    // What is no request gets no answer, and its connection is closed without a word, before it is handled.
    for kind in [Kind::Accept, Kind::Reject, Kind::Revoke] {
        assert_eq!(rest(&mut deliver(one.address(), &message_from(&identity(2), kind, |_| {}))), "");
    }
    assert_eq!(rest(&mut deliver(one.address(), b"nonsense")), "");
    assert_eq!(one.held(), 3);
}

#[test]
fn two_connections_of_a_source_are_held_and_the_oldest_gives_way() {
    let (one, _) = reachable();
    let mut streams: Vec<_> = (2..=4)
        .map(|peer| {
            let mut stream = deliver(one.address(), &request_of(peer, 1));
            is_held(&mut stream);
            stream
        })
        .collect();
    assert_eq!((rest(&mut streams[0]), one.held()), (String::new(), 2));
    streams[1..].iter_mut().for_each(is_open);
    // Another source takes nothing from this one.
    let mut other = deliver_over(connect_from([127, 0, 4, 1], one.address()), &request_of(5, 1));
    is_held(&mut other);
    streams[1..].iter_mut().for_each(is_open);
    approve(&one, 4);
    assert!(rest(&mut streams[2]).contains("handshake_accept"));
}

#[test]
fn held_connections_take_no_slot_of_a_connection_and_no_handler() {
    let book = Arc::new(Book::default());
    let one = node_with(1, &book, |config| (config.connections_max, config.held_max) = (1, 3));
    let ask = |peer: u32| {
        let host = u8::try_from(peer).unwrap();
        let mut stream = deliver_over(connect_from([127, 0, 4, host], one.address()), &request_of(peer, 1));
        is_held(&mut stream);
        stream
    };
    let mut streams: Vec<_> = (2..=5).map(ask).collect();
    assert_eq!((one.held(), one.transport.counts().cut), (3, 0));
    assert_eq!(rest(&mut streams[0]), "", "the oldest of all");
    streams[1..].iter_mut().for_each(is_open);
    eventually("all of them wait", || one.manager.pending().len() == 4);
}

#[test]
fn a_held_connection_is_closed_when_its_time_is_up() {
    let book = Arc::new(Book::default());
    let one = node_with(1, &book, |config| config.answer_wait = A_WHILE);
    let mut asked = deliver(one.address(), &request_of(2, 1));
    assert_eq!(rest(&mut asked), "\n");
    assert_eq!(one.held(), 0);
    approve(&one, 2);
    eventually("there is no way any more", || count(&one.manager, "not_sent") == 1);
    // Where none is to be held none is.
    let one = node_with(1, &book, |config| config.answer_wait = Duration::ZERO);
    assert_eq!(rest(&mut deliver(one.address(), &request_of(2, 1))), "");
    eventually("it is handled as ever", || pending(&one, 2));
}

#[test]
fn a_refusal_goes_over_its_connection_though_the_peer_is_trusted_under_another_key() {
    let (one, _) = reachable();
    one.manager.grant(TrustRecord::new(id(2), identity(3).public_key())).unwrap().wait_durable().unwrap();
    let mut asked = deliver(one.address(), &request_of(2, 2));
    is_held(&mut asked);
    eventually("the other key waits", || pending(&one, 2));
    drop(one.manager.reject(id(2), "not you").unwrap());
    assert!(rest(&mut asked).contains("handshake_reject"));
    assert_eq!(one.manager.wait_told(id(2), SOON), Told::Told);
}

#[test]
fn what_was_revoked_meanwhile_is_not_told_over_a_held_connection() {
    let (one, _) = reachable();
    let mut asked = deliver(one.address(), &request_of(2, 1));
    is_held(&mut asked);
    eventually("the request waits", || pending(&one, 2));
    drop(one.manager.revoke(id(2)).unwrap());
    // Neither the farewell nor anything else.
    is_open(&mut asked);
    one.transport.stop_sending();
    assert_eq!(rest(&mut asked), "");
}

struct Into(Sender<Received>);

impl Inbox for Into {
    fn receive(&self, message: Received) {
        self.0.send(message).unwrap();
    }
    fn may_answer(&self, _: &[u8]) -> bool {
        true
    }
}

/// A sender, whatever it is answered, and a listener that stands for every peer.
fn sender(change: impl FnOnce(&mut TcpConfig)) -> (TcpTransport, Receiver<Received>, TcpListener) {
    let (listener, book) = (TcpListener::bind(any_port()).unwrap(), Arc::new(Book::default()));
    for peer in 1..=9 {
        book.put(id(peer), None, listener.local_addr().unwrap());
    }
    let mut config = TcpConfig::listen(any_port());
    patient(&mut config);
    change(&mut config);
    let transport = TcpTransport::bind(config, book as _).unwrap();
    let (put, got) = channel();
    transport.start(Arc::new(Into(put))).unwrap();
    (transport, got, listener)
}

/// Sends a message, and gives the other end of its connection, over which it was read.
fn sent(from: &TcpTransport, peer: u32, listener: &TcpListener, word: &[u8]) -> TcpStream {
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| from.send(id(peer), b"hello"));
        let mut stream = accepted(listener);
        assert_eq!(rest(&mut stream), "hello");
        stream.write_all(word).unwrap();
        // It does not wait until the connection is closed, nor for `close_wait`.
        sending.join().unwrap().unwrap();
        stream
    })
}

#[test]
fn an_answer_is_received_like_any_message_from_the_address_that_was_dialled() {
    let (from, got, listener) = sender(|_| {});
    let mut stream = sent(&from, 7, &listener, b"\n");
    stream.write_all(b"an ").unwrap();
    stream.write_all(b"answer").unwrap();
    drop(stream);
    let received = got.recv_timeout(SOON).expect("the answer did not come");
    let source = Source::from_address(Ipv4Addr::LOCALHOST.into());
    assert_eq!(
        (received.bytes.as_slice(), received.path),
        (&b"an answer"[..], Path::Direct { authenticated: None, source })
    );
    assert_eq!(received.reply, None, "an answer is not answered");
    // Without the word before it as well.
    drop(sent(&from, 7, &listener, b"answer"));
    assert_eq!(got.recv_timeout(SOON).unwrap().bytes, b"answer");
}

#[test]
fn an_answer_has_64_kib_and_one_end() {
    let (from, got, listener) = sender(|_| {});
    let mut stream = sent(&from, 7, &listener, b"\n");
    // Cut off as soon as it is too long, though the sender goes on.
    let _ = stream.write_all(&vec![b'x'; MESSAGE_BYTES_MAX + 1]);
    assert!(closes(&mut stream));
    drop(stream);
    drop(sent(&from, 7, &listener, b"\n"));
    let mut stream = sent(&from, 7, &listener, b"\n");
    stream.write_all(&vec![b'y'; MESSAGE_BYTES_MAX]).unwrap();
    drop(stream);
    let received = got.recv_timeout(SOON).expect("the answer did not come");
    assert_eq!((received.bytes.len(), received.bytes[0]), (MESSAGE_BYTES_MAX, b'y'));
    assert!(got.recv_timeout(A_WHILE).is_err(), "nothing came of the others");
}

#[test]
fn a_sender_waits_for_an_answer_for_its_time_and_over_its_newest_connection() {
    let (from, got, listener) = sender(|config| config.answer_wait = A_WHILE);
    let mut stream = sent(&from, 7, &listener, b"\n");
    assert!(closes(&mut stream), "the sender has left");
    drop(stream);

    let (from, _, listener) = sender(|_| {});
    let mut first = sent(&from, 7, &listener, b"\n");
    let mut to_eight = sent(&from, 8, &listener, b"\n");
    let mut second = sent(&from, 7, &listener, b"\n");
    assert!(closes(&mut first), "only the newest can still be answered");
    from.disconnect(id(7));
    assert!(closes(&mut second), "cut off");
    to_eight.write_all(b"x").unwrap();
    std::thread::sleep(A_WHILE);
    to_eight.write_all(b"y").expect("who was not cut off is still heard");
    assert!(got.recv_timeout(A_WHILE).is_err());
}

/// Whether the other side has closed both ways, which only writing shows.
fn closes(stream: &mut TcpStream) -> bool {
    let begun = std::time::Instant::now();
    while begun.elapsed() < SOON {
        if stream.write_all(b" ").is_err() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn connections_that_wait_for_an_answer_give_way_first_and_a_farewell_waits_for_none() {
    let (from, _got, listener) = sender(|config| config.sends_max = 2);
    let mut first = sent(&from, 7, &listener, b"\n");
    let mut second = sent(&from, 8, &listener, b"\n");
    let mut third = sent(&from, 9, &listener, b"\n");
    assert!(closes(&mut first), "the oldest");
    second.write_all(b" ").unwrap();
    third.write_all(b" ").unwrap();
    let (put, ended) = channel();
    let done = move |sent: Result<(), _>| put.send(sent.is_ok()).unwrap();
    from.dispatch(trustkeep::node::Dispatch::new(id(6), b"bye".as_slice().into(), true, done));
    let mut stream = accepted(&listener);
    assert_eq!(rest(&mut stream), "bye");
    stream.write_all(b"\n").unwrap();
    assert!(ended.recv_timeout(SOON).unwrap());
    assert!(closes(&mut stream), "nobody answers a farewell");
}

#[test]
fn a_peer_without_an_address_and_without_a_connection_is_told_of_as_ever() {
    let (one, book) = reachable();
    let nat = node(2, &book);
    drop(one.manager.store().grant(TrustRecord::new(id(2), identity(2).public_key())).unwrap());
    let asked = one.manager.request(id(2), "", RequestOptions::default().force(true));
    assert!(matches!(asked, Err(CommandError::NotSent { .. })), "{asked:?}");
    drop(nat.manager.request(id(1), "", RequestOptions::default()).unwrap());
    assert!(nat.manager.wait_for_trust(id(1), SOON), "it asks, so it is answered");
}
