//! The TCP transport, black box: what is sent arrives whole; whoever is slow, large, many or silent gets nowhere and
//! takes nothing from others; a failure costs one connection; stopping stops.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use trustkeep::NodeId;
use trustkeep::config::MESSAGE_BYTES_MAX;
use trustkeep::machine::input::Path;
use trustkeep::machine::view::Source;
use trustkeep::node::{
    Inbox, ListenError, Received, Registry, RegistryEntry, RegistryError, SendError, TcpConfig, TcpTransport, Transport,
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

/// A connection from another loopback address, which counts as another source.
fn connect_from(host: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((host, 0))).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    TcpStream::from(socket)
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
