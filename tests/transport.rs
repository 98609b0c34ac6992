//! The TCP transport, black box: what is sent arrives whole; whoever is slow, large, many or silent gets nowhere and
//! takes nothing from others; a failure costs one connection; stopping stops.
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

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use common::{black_hole, connect_from};
use trustkeep::NodeId;
use trustkeep::config::MESSAGE_BYTES_MAX;
use trustkeep::machine::input::Path;
use trustkeep::machine::view::Source;
use trustkeep::node::{
    Dispatch, Inbox, ListenError, Received, Registry, RegistryEntry, RegistryError, SendError, TcpConfig, TcpTransport,
    Transport,
};

/// Long enough for anything that is to happen on a slow machine.
const SOON: Duration = Duration::from_secs(60);

fn id(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

struct Into(Sender<Received>);

impl Inbox for Into {
    fn receive(&self, message: Received) {
        if message.bytes == b"panic" {
            panic!("as the test wants it");
        }
        self.0.send(message).unwrap();
    }
}

/// Knows the address of every node; panics for node 13; for node 5 waits until the channel is dropped.
struct Addresses(SocketAddr, std::sync::Mutex<Receiver<()>>);

/// Knows an address that answers, for nodes below 100, and one that does not.
struct Here {
    good: SocketAddr,
    hole: SocketAddr,
}

impl Registry for Here {
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        let address = if peer < id(100) { self.good } else { self.hole };
        Ok(Some(RegistryEntry::new(None).address(address)))
    }
    fn may_block(&self) -> bool {
        false
    }
}

type Ended = (NodeId, Result<(), SendError>);

/// Begins to send to a node; the end of it is told on the channel.
fn begin(from: &TcpTransport, to: u32, restricts: bool, ended: &Sender<Ended>) {
    let ended = ended.clone();
    let bytes = format!("to {to}").into_bytes();
    from.dispatch(Dispatch::new(id(to), bytes.into(), restricts, move |sent| drop(ended.send((id(to), sent)))));
}

fn sending_to(good: SocketAddr, hole: SocketAddr, change: impl FnOnce(&mut TcpConfig)) -> TcpTransport {
    let mut config = TcpConfig::listen(any_port());
    let hour = Duration::from_secs(3600);
    (config.send_timeout, config.connect_timeout, config.close_wait) = (hour, hour, hour);
    change(&mut config);
    TcpTransport::bind(config, Arc::new(Here { good, hole })).unwrap()
}

impl Registry for Addresses {
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        assert_ne!(peer, id(13), "as the test wants it");
        if peer == id(5) {
            let _ = self.1.lock().unwrap().recv();
        }
        Ok((peer != id(404)).then(|| RegistryEntry::new(None).address(self.0)))
    }
    fn report_grant(&self, _: NodeId) -> Result<(), RegistryError> {
        Ok(())
    }
    fn report_revoke(&self, _: NodeId) -> Result<(), RegistryError> {
        Ok(())
    }
}

fn towards(address: SocketAddr) -> (TcpTransport, Sender<()>) {
    towards_with(address, |config| config.look_up_timeout = SOON)
}

fn towards_with(address: SocketAddr, change: impl FnOnce(&mut TcpConfig)) -> (TcpTransport, Sender<()>) {
    let (release, hang) = channel();
    let mut config = TcpConfig::listen(any_port());
    change(&mut config);
    let transport = TcpTransport::bind(config, Arc::new(Addresses(address, std::sync::Mutex::new(hang)))).unwrap();
    (transport, release)
}

fn listening(change: impl FnOnce(&mut TcpConfig)) -> (TcpTransport, Receiver<Received>) {
    let mut config = TcpConfig::listen(any_port());
    change(&mut config);
    let (_, hang) = channel();
    let registry = Arc::new(Addresses(any_port(), std::sync::Mutex::new(hang)));
    let transport = TcpTransport::bind(config, registry).unwrap();
    let (put, got) = channel();
    transport.start(Arc::new(Into(put))).unwrap();
    (transport, got)
}

/// Writes and half-closes, as a sender does.
fn deliver(to: &TcpTransport, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to.local_address()).unwrap();
    // A receiver that has read enough may close before everything is written.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    stream
}

/// Waits until the other side has closed (in order or by a reset).
fn closed(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(SOON)).unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(0) => {}
        Ok(_) => panic!("nothing is ever answered"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "still open"),
    }
}

#[test]
fn what_is_sent_arrives_whole_and_unauthenticated() {
    let (to, got) = listening(|_| {});
    let (from, _release) = towards(to.local_address());
    for bytes in [b"hello".to_vec(), Vec::new(), vec![b'x'; MESSAGE_BYTES_MAX]] {
        from.send(id(9), &bytes).unwrap();
        let received = got.recv_timeout(SOON).unwrap();
        assert_eq!(received.bytes, bytes);
        let source = Source::from_address(Ipv4Addr::LOCALHOST.into());
        assert_eq!(received.path, Path::Direct { authenticated: None, source });
    }
    to.stop_receiving(SOON);
    let counts = to.counts();
    assert_eq!((counts.accepted, counts.received, counts.dropped, counts.open), (3, 3, 0, 0));
}

#[test]
fn one_byte_too_many_is_dropped_and_none_too_many_is_not() {
    let (to, got) = listening(|_| {});
    closed(&deliver(&to, &vec![b'x'; MESSAGE_BYTES_MAX + 1]));
    deliver(&to, &vec![b'y'; MESSAGE_BYTES_MAX]);
    assert_eq!(got.recv_timeout(SOON).unwrap().bytes[0], b'y');
    to.stop_receiving(SOON);
    assert_eq!((to.counts().received, to.counts().dropped), (1, 1));
    let (from, _release) = towards(to.local_address());
    assert!(matches!(from.send(id(9), &vec![0; MESSAGE_BYTES_MAX + 1]), Err(SendError::TooLarge { .. })));
}

#[test]
fn dribbling_bytes_does_not_extend_the_time_of_a_connection() {
    let (to, got) = listening(|config| config.receive_timeout = Duration::from_millis(400));
    let mut slow = TcpStream::connect(to.local_address()).unwrap();
    let silent = TcpStream::connect(to.local_address()).unwrap();
    // Beside them a good peer, which half-closes and so need not run into any time limit.
    let (from, _release) = towards(to.local_address());
    let sends = || {
        from.send(id(9), b"in time").is_ok()
            && got.recv_timeout(Duration::from_secs(1)).is_ok_and(|it| it.bytes == b"in time")
    };
    // On a busy machine it needs more than one try to be in time.
    assert!((0..60).any(|_| sends()));
    // One byte every 40 ms: no single read takes long, only all of them together. The read is what paces it.
    slow.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
    let mut dribbled = 0;
    loop {
        if slow.write_all(b"x").is_err() {
            break;
        }
        match slow.read(&mut [0; 1]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => dribbled += 1,
            _ => break,
        }
        assert!(dribbled < 1500, "still open after a minute");
    }
    closed(&silent);
    to.stop_receiving(SOON);
    let counts = to.counts();
    assert!(counts.received >= 1 && counts.dropped >= 2, "{counts:?}");
    assert_eq!(counts.open, 0);
}

#[test]
fn the_oldest_connection_of_a_source_makes_room_and_no_other() {
    let (to, got) = listening(|config| config.connections_per_source_max = 2);
    let address = to.local_address();
    let mut other = connect_from([127, 0, 0, 2], address);
    let oldest = TcpStream::connect(address).unwrap();
    let mut second = TcpStream::connect(address).unwrap();
    let mut third = TcpStream::connect(address).unwrap();
    closed(&oldest);
    second.write_all(b"2").unwrap();
    third.write_all(b"3").unwrap();
    other.write_all(b"o").unwrap();
    for stream in [&second, &third, &other] {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut all: Vec<_> = (0..3).map(|_| got.recv_timeout(SOON).unwrap().bytes[0]).collect();
    all.sort_unstable();
    assert_eq!(all, b"23o");
    to.stop_receiving(SOON);
    assert_eq!((to.counts().received, to.counts().cut), (3, 1));
}

#[test]
fn a_flood_of_silent_connections_from_many_sources_does_not_keep_a_good_peer_out() {
    let (to, got) = listening(|config| config.connections_max = 8);
    let flood: Vec<_> = (0..40).map(|n| connect_from([127, 0, 1, n + 1], to.local_address())).collect();
    let mut good = TcpStream::connect(to.local_address()).unwrap();
    good.write_all(b"good").unwrap();
    good.shutdown(Shutdown::Write).unwrap();
    assert_eq!(got.recv_timeout(SOON).unwrap().bytes, b"good");
    assert!(to.counts().open <= 8);
    assert!(to.counts().cut >= 32);
    closed(&flood[0]);
    to.stop_receiving(SOON);
    assert_eq!((to.counts().received, to.counts().open), (1, 0));
}

#[test]
fn a_panic_costs_one_message_and_no_slot() {
    let (to, got) = listening(|config| config.connections_max = 1);
    for _ in 0..3 {
        closed(&deliver(&to, b"panic"));
    }
    // More than are ever handled at a time: the right to handle one comes back, too.
    for _ in 0..150 {
        closed(&deliver(&to, b"after"));
        assert_eq!(got.recv_timeout(SOON).unwrap().bytes, b"after");
    }
    to.stop_receiving(SOON);
    assert_eq!((to.counts().panicked, to.counts().received, to.counts().open), (3, 150, 0));
}

#[test]
fn a_port_in_use_is_named_and_a_free_one_is_not() {
    let (holder, _release) = towards(any_port());
    let address = holder.local_address();
    let again = || TcpTransport::bind(TcpConfig::listen(address), Arc::new(trustkeep::node::StaticRegistry::default()));
    match again() {
        Err(error @ ListenError::InUse { .. }) => {
            assert!(error.to_string().contains(&address.to_string()) && error.to_string().contains("in use"));
        }
        other => panic!("{other:?}"),
    }
    drop(holder);
    assert_eq!(again().unwrap().local_address(), address);
}

#[test]
fn stopping_frees_the_port_cuts_what_is_unfinished_and_may_be_repeated() {
    let (to, got) = listening(|config| config.receive_timeout = SOON * 10);
    let address = to.local_address();
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(b"half a mess").unwrap();
    deliver(&to, b"whole");
    assert_eq!(got.recv_timeout(SOON).unwrap().bytes, b"whole");
    let begun = Instant::now();
    to.stop_receiving(SOON * 10);
    assert!(begun.elapsed() < SOON, "waited for the half message");
    closed(&half);
    let nothing = got.recv_timeout(SOON);
    assert_eq!(nothing, Err(RecvTimeoutError::Disconnected), "the inbox is let go of, and half a message is none");
    to.stop_receiving(SOON);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let (_, hang) = channel();
    let registry = Arc::new(Addresses(any_port(), std::sync::Mutex::new(hang)));
    TcpTransport::bind(TcpConfig::listen(address), registry).unwrap();
}

#[test]
fn a_message_that_cannot_be_sent_says_why() {
    let free = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    let (from, _release) = towards(free);
    assert!(matches!(from.send(id(404), b"x"), Err(SendError::NoAddress { peer }) if peer == id(404)));
    match from.send(id(9), b"x") {
        Err(SendError::Unreachable { address, source }) => {
            assert_eq!((address, source.kind()), (free, ErrorKind::ConnectionRefused));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(from.send(id(13), b"x"), Err(SendError::LookUp(RegistryError::Panicked))));
    from.stop_sending();
    let listener = TcpListener::bind(any_port()).unwrap();
    let (from, _release) = towards(listener.local_addr().unwrap());
    from.stop_sending();
    assert!(matches!(from.send(id(9), b"x"), Err(SendError::Cancelled)));
}

#[test]
fn a_look_up_that_hangs_holds_up_nobody_else() {
    let (to, got) = listening(|_| {});
    // As if they hung for ever.
    let (from, release) = towards_with(to.local_address(), |config| config.look_up_timeout = SOON * 10);
    std::thread::scope(|scope| {
        let hanging: Vec<_> = (0..20).map(|_| scope.spawn(|| from.send(id(5), b"released"))).collect();
        for _ in 0..5 {
            from.send(id(6), b"meanwhile").unwrap();
            assert_eq!(got.recv_timeout(SOON).unwrap().bytes, b"meanwhile");
        }
        drop(release);
        for thread in hanging {
            let answer = thread.join().unwrap();
            assert!(matches!(answer, Ok(()) | Err(SendError::LookUp(RegistryError::Busy))), "{answer:?}");
        }
    });
    // And those whose time is over say so.
    let (from, release) = towards_with(to.local_address(), |config| config.look_up_timeout = Duration::from_millis(50));
    for _ in 0..20 {
        let answer = from.send(id(5), b"never");
        assert!(matches!(answer, Err(SendError::LookUp(RegistryError::TimedOut | RegistryError::Busy))), "{answer:?}");
    }
    // Answered at last, it may be asked again.
    drop(release);
    while let Err(error) = from.send(id(5), b"at last") {
        assert!(matches!(error, SendError::LookUp(RegistryError::TimedOut | RegistryError::Busy)), "{error}");
    }
    // What was released before may arrive later than its sender knows.
    while got.recv_timeout(SOON).unwrap().bytes != b"at last" {}
}

#[test]
fn disconnecting_cuts_what_is_being_sent_to_that_peer_only() {
    let silent = TcpListener::bind(any_port()).unwrap();
    let (from, _release) = towards_with(silent.local_addr().unwrap(), |config| {
        (config.close_wait, config.send_timeout) = (SOON, SOON);
    });
    std::thread::scope(|scope| {
        let cut = scope.spawn(|| from.send(id(7), b"bye"));
        let mut to_seven = silent.accept().unwrap().0;
        let kept = scope.spawn(|| from.send(id(8), b"stay"));
        let to_eight = silent.accept().unwrap().0;
        // Once its bytes arrived it is registered as open.
        to_seven.read_exact(&mut [0; 3]).unwrap();
        from.disconnect(id(7));
        assert!(matches!(cut.join().unwrap(), Err(SendError::Cancelled)));
        drop(to_eight);
        drop(kept.join().unwrap());
    });
    // The twin: a receiver that reads to the end and closes has taken the message.
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| from.send(id(7), b"again"));
        let mut text = String::new();
        silent.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "again");
        sent.join().unwrap().unwrap();
    });
}

#[test]
fn addresses_that_do_not_answer_delay_no_message_to_another() {
    let (to, got) = listening(|_| {});
    let (hole, _fill, _socket) = black_hole();
    let (put, ended) = channel();
    let from = sending_to(to.local_address(), hole, |_| {});
    // As many as there may be, and not one of them ends.
    for peer in 100..356 {
        begin(&from, peer, false, &put);
    }
    assert!(ended.recv_timeout(Duration::from_millis(100)).is_err());
    // One more takes the place of the oldest.
    begin(&from, 7, false, &put);
    assert_eq!(got.recv_timeout(SOON).unwrap().bytes, b"to 7");
    let (first, sent) = ended.recv_timeout(SOON).unwrap();
    assert!(first == id(100) && matches!(sent, Err(SendError::GaveWay)), "{first}: {sent:?}");
    let (second, sent) = ended.recv_timeout(SOON).unwrap();
    assert!(second == id(7) && sent.is_ok(), "{second}: {sent:?}");
    // Nor do a thousand. The way that blocks is the same way.
    for peer in 1000..2000 {
        begin(&from, peer, false, &put);
    }
    from.send(id(8), b"to 8").unwrap();
    assert_eq!(got.recv_timeout(SOON).unwrap().bytes, b"to 8");
    from.stop_sending();
    drop(put);
    let ended: Vec<_> = ended.iter().collect();
    let gave_way = ended.iter().filter(|(_, sent)| matches!(sent, Err(SendError::GaveWay))).count();
    let cancelled = ended.iter().filter(|(_, sent)| matches!(sent, Err(SendError::Cancelled))).count();
    assert_eq!((ended.len(), gave_way + cancelled), (1255, 1255), "each ends once");
    assert!((255..=256).contains(&cancelled), "{cancelled}");
}

#[test]
fn a_farewell_gives_way_to_farewells_only() {
    let (hole, _fill, _socket) = black_hole();
    let (put, ended) = channel();
    let from = sending_to(hole, hole, |config| config.sends_max = 3);
    let gives_way = |expected: u32| {
        let (peer, sent) = ended.recv_timeout(SOON).unwrap();
        assert!(peer == id(expected) && matches!(sent, Err(SendError::GaveWay)), "{peer}: {sent:?}");
    };
    for (peer, restricts) in [(1, true), (2, false), (3, true)] {
        begin(&from, peer, restricts, &put);
    }
    begin(&from, 4, true, &put);
    gives_way(2);
    // No room but that of farewells: the message itself gives way.
    begin(&from, 5, false, &put);
    gives_way(5);
    begin(&from, 6, true, &put);
    gives_way(1);
}

#[test]
fn a_farewell_is_connected_before_messages_that_came_earlier() {
    let good = TcpListener::bind(any_port()).unwrap();
    let free = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    let (put, ended) = channel();
    let from = sending_to(good.local_addr().unwrap(), free, |_| {});
    // While the end of this message is heard, nothing else is sent.
    let ((heard, hears), (release, released)) = (channel(), channel::<()>());
    let busy = move |_| {
        heard.send(()).unwrap();
        let _ = released.recv();
    };
    from.dispatch(Dispatch::new(id(100), b"refused".as_slice().into(), false, busy));
    hears.recv_timeout(SOON).unwrap();
    begin(&from, 2, false, &put);
    begin(&from, 3, false, &put);
    from.disconnect(id(3));
    from.disconnect(id(5));
    begin(&from, 4, true, &put);
    begin(&from, 5, true, &put);
    drop(release);
    let (cut, sent) = ended.recv_timeout(SOON).unwrap();
    assert!(cut == id(3) && matches!(sent, Err(SendError::Cancelled)), "{cut}: {sent:?}");
    let arrived = || {
        let mut text = String::new();
        good.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!([arrived(), arrived()], ["to 4", "to 2"]);
    // Cut before it wrote anything; and what came after a cut of its peer is not hit by it.
    assert_eq!([arrived(), arrived()], ["", "to 5"]);
}

#[test]
fn a_message_that_was_written_counts_as_sent_when_it_gives_way() {
    // Takes what comes into its buffers, and never closes.
    let silent = TcpListener::bind(any_port()).unwrap();
    let (put, ended) = channel();
    let (hole, _fill, _socket) = black_hole();
    let from = sending_to(silent.local_addr().unwrap(), hole, |config| config.sends_max = 2);
    begin(&from, 100, false, &put);
    begin(&from, 2, false, &put);
    let mut stream = silent.accept().unwrap().0;
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "to 2", "it was written, and the sender has half-closed");
    begin(&from, 101, false, &put);
    let (peer, sent) = ended.recv_timeout(SOON).unwrap();
    assert!(peer == id(2) && sent.is_ok(), "{peer}: {sent:?}");
    begin(&from, 102, false, &put);
    let (peer, sent) = ended.recv_timeout(SOON).unwrap();
    assert!(peer == id(100) && matches!(sent, Err(SendError::GaveWay)), "{peer}: {sent:?}");
}

#[test]
fn each_step_of_sending_has_its_time() {
    let (hole, _fill, _socket) = black_hole();
    let silent = TcpListener::bind(any_port()).unwrap();
    let address = silent.local_addr().unwrap();
    let from = sending_to(address, hole, |config| config.connect_timeout = Duration::from_millis(50));
    assert!(matches!(from.send(id(100), b"x"), Err(SendError::TimedOut { address }) if address == hole));
    let from = sending_to(address, hole, |config| config.send_timeout = Duration::from_millis(50));
    assert!(matches!(from.send(id(100), b"x"), Err(SendError::TimedOut { address }) if address == hole));
    // A receiver that takes its time to close has taken the message.
    let from = sending_to(address, hole, |config| config.close_wait = Duration::from_millis(50));
    from.send(id(7), b"x").unwrap();
    // The next address is tried when one does not answer.
    struct Two(SocketAddr, SocketAddr);
    impl Registry for Two {
        fn look_up(&self, _: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
            Ok(Some(RegistryEntry::new(None).address(self.0).address(self.1)))
        }
    }
    let mut config = TcpConfig::listen(any_port());
    (config.connect_timeout, config.close_wait) = (Duration::from_millis(50), Duration::from_millis(50));
    TcpTransport::bind(config, Arc::new(Two(hole, address))).unwrap().send(id(7), b"x").unwrap();
}

#[test]
fn when_all_connections_are_taken_the_oldest_makes_room_and_no_other() {
    let (to, got) = listening(|config| config.connections_max = 3);
    let from = |host| connect_from([127, 0, 2, host], to.local_address());
    let oldest = from(1);
    let mut others = [from(2), from(3), from(4)];
    closed(&oldest);
    for (stream, byte) in others.iter_mut().zip(b"234") {
        stream.write_all(&[*byte]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut all: Vec<_> = (0..3).map(|_| got.recv_timeout(SOON).unwrap().bytes[0]).collect();
    all.sort_unstable();
    assert_eq!(all, b"234");
    to.stop_receiving(SOON);
    assert_eq!((to.counts().received, to.counts().cut), (3, 1));
}
