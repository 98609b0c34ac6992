//! Two nodes that cannot dial each other meet through a registry of their program; one of them crashes in between.
//!
//! The request waits at the relay until its receiver runs, and the answer until its receiver is back. A relay is not
//! believed: what it carries is signed from end to end. Waiting is done with a future, by the smallest runtime there is.
//!
//! `cargo run --example relay`
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program of its own")]

use std::error::Error;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use trustkeep::node::{FileIdentity, Identity as _, InProcessRegistry, RequestOptions, TcpConfig, TcpTransport};
use trustkeep::{Event, HandshakeManager, NodeId, TrustStore};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("trustkeep-relay-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let told = steps(&dir);
    std::fs::remove_dir_all(&dir)?;
    told
}

fn steps(dir: &Path) -> Result<(), Box<dyn Error>> {
    let (hub, start) = (InProcessRegistry::new(), Instant::now());
    let say = |what: &str| println!("{:>5} ms  {what}", start.elapsed().as_millis());
    let (seven, nine) = (id(7)?, id(9)?);
    // Node 9 has joined once, so that the registry knows its key; it does not run now.
    drop(hub.join(&identity(nine)?, &[])?);

    let a = run(dir, &hub, seven)?;
    a.request(nine, "weather feed", RequestOptions::default())?.wait_durable()?;
    say(&format!("7 asks 9: there is no way to it, so the relay keeps the request ({} waiting)", hub.waiting(nine)));

    let b = run(dir, &hub, nine)?;
    let events = b.subscribe();
    // It may have come before we subscribed.
    while b.pending().is_empty() {
        drop(events.recv_timeout(SOON).ok_or("the request did not arrive")?);
    }
    say("9 starts, fetches the request and shows it to its operator");

    drop(a);
    say("7 crashes: dropped without a word to anybody");

    let fingerprint = identity(seven)?.public_key().fingerprint();
    b.approve(seven, Some(fingerprint))?.wait_durable()?;
    say("9 approves, durably; its answer finds nobody at home");
    until("the answer is relayed", || hub.waiting(seven) == 1)?;
    say("the relay keeps the answer (1 waiting)");

    // Its threads may hold the store a moment longer than the drop.
    until("the directory is free", || TrustStore::open(dir.join(seven.to_string())).is_ok())?;
    let a = run(dir, &hub, seven)?;
    if !block_on(a.trust_future(nine), SOON).ok_or("the answer did not arrive")? {
        return Err("the store closed instead".into());
    }
    a.store().flush()?;
    say("7 is back: it still knows what it asked, fetches the answer, and trusts 9, durably");
    until("the answer is acknowledged", || hub.waiting(seven) == 0)?;
    say("the answer is acknowledged only now: nothing waits any more");
    assert!(a.is_trusted(nine) && b.is_trusted(seven));

    a.shutdown()?;
    b.shutdown()?;
    say("both stopped in good order");
    Ok(())
}

/// Starts a node in its place under `dir`. It listens, but nobody is told where.
fn run(dir: &Path, hub: &InProcessRegistry, node: NodeId) -> Result<HandshakeManager, Box<dyn Error>> {
    let identity = identity(node)?;
    let registry = Arc::new(hub.join(&identity, &[])?);
    let store = Arc::new(TrustStore::open(dir.join(node.to_string()))?);
    let listen = TcpConfig::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let transport = Arc::new(TcpTransport::bind(listen, Arc::clone(&registry) as _)?);
    let log = move |event: Event| println!("          {node}: {}", event.topic());
    Ok(HandshakeManager::builder(store, Arc::new(identity), transport)
        .registry(registry)
        .event_sink(Arc::new(log))
        .start()?)
}

/// A program would read it from a file: `FileIdentity::load`.
fn identity(node: NodeId) -> Result<FileIdentity, Box<dyn Error>> {
    Ok(FileIdentity::from_seed(node, &[u8::try_from(node.get())?; 32])?)
}

fn id(number: u32) -> Result<NodeId, trustkeep::InvalidNodeId> {
    NodeId::new(number).ok_or(trustkeep::InvalidNodeId)
}

/// Waits for something that nobody is told of.
fn until(what: &str, holds: impl Fn() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > SOON {
            return Err(format!("not in time: {what}"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Runs a future on this thread, for so long at most: a future of this crate needs no more than this.
fn block_on<F: Future>(future: F, limit: Duration) -> Option<F::Output> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let (mut future, until) = (pin!(future), Instant::now() + limit);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        // Dropping it is all there is to giving up.
        thread::park_timeout(until.checked_duration_since(Instant::now())?);
    }
}

/// Much longer than any step takes.
const SOON: Duration = Duration::from_secs(10);
