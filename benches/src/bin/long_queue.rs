//! What does an operator feel of a flood of newcomers where very many wait already? `revoke` beside them, with a queue as
//! long as it is by default and with a long one, both full, round by round in one run.
//!
//! `long_queue [--rounds 7] [--waiting 40000] [--rate 500] [--revokes 500] [--json]`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement: it reads the clock, prints, and stops when something does not hold"
)]

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use trustkeep::clock::{Clock as _, SystemClock};
use trustkeep::config::Limits;
use trustkeep::machine::view::Source;
use trustkeep::node::{FileIdentity, Inbox, Received, SendError, Transport};
use trustkeep::testing::actor::Actor;
use trustkeep::wire::message::Kind;
use trustkeep::{HandshakeManager, NodeId, TrustStore};
use trustkeep_benches::arguments::Arguments;
use trustkeep_benches::{Samples, Spread};

const USAGE: &str = "long_queue [--rounds 7] [--waiting 40000] [--rate 500] [--revokes 500] [--json]";
/// Those who wait have ids from here on, newcomers from there on.
const WAITING: u32 = 1_000;
const NEWCOMERS: u32 = 10_000_000;

/// A network that takes everything and brings nothing.
#[derive(Debug)]
struct Nowhere;

impl Transport for Nowhere {
    fn start(&self, _: Arc<dyn Inbox>) -> io::Result<()> {
        Ok(())
    }
    fn send(&self, _: NodeId, _: &[u8]) -> Result<(), SendError> {
        Ok(())
    }
    fn disconnect(&self, _: NodeId) {}
    fn stop_receiving(&self, _: Duration) {}
    fn stop_sending(&self) {}
}

/// A node whose queue is full.
struct Side {
    name: &'static str,
    manager: HandshakeManager,
    waiting: u32,
    newcomers: u32,
    figures: [Vec<u64>; 3],
}

fn main() {
    let arguments = Arguments::of_process(USAGE, &["--rounds", "--waiting", "--rate", "--revokes"], &["--json"]);
    let rounds = arguments.number("--rounds", 7, 1);
    let waiting = arguments.number("--waiting", 40_000, 256);
    let rate = arguments.number("--rate", 500, 1);
    let revokes = arguments.number("--revokes", 500, 100);

    let mut sides = [Side::full("short", 256), Side::full("long", waiting)];
    for _ in 0..rounds {
        for side in &mut sides {
            let (samples, handled) = side.revokes_beside_newcomers(rate, revokes);
            let [p50, p99, per_second] = &mut side.figures;
            p50.push(samples.per_mille(500));
            p99.push(samples.per_mille(990));
            per_second.push(handled);
        }
    }
    let [short, long] = &sides;
    let median = |side: &Side| side.figures.clone().map(|rounds| Spread::of(rounds).median);
    let ([short_p50, short_p99, short_handled], [long_p50, long_p99, long_handled]) = (median(short), median(long));
    assert!(short_handled > 0 && long_handled > 0, "there was no flood");
    let ratio = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let (p50, p99) = (ratio(long_p50, short_p50), ratio(long_p99, short_p99));
    if arguments.has("--json") {
        let rows = sides.iter().map(|side| {
            let [p50, p99, handled] = side.figures.clone().map(|rounds| Spread::of(rounds).json());
            let waiting = side.waiting;
            let row = serde_json::json!({
                "waiting": waiting, "revoke_p50_ns": p50, "revoke_p99_ns": p99, "messages_per_second": handled,
            });
            (side.name.to_owned(), row)
        });
        let rows = rows.collect::<serde_json::Map<_, _>>();
        let whole = serde_json::json!({ "rounds": rounds, "rate": rate, "revokes": revokes, "sides": rows,
            "p50_long_to_short": p50, "p99_long_to_short": p99 });
        println!("{whole}");
        return;
    }
    println!(
        "{revokes} times `revoke` beside newcomers of as many sources, {rate} a second asked for, {rounds} rounds; \
         microseconds: median [min, max] of rounds"
    );
    println!("{:8} {:>8} {:>10} {:>24} {:>28}", "queue", "waiting", "handled/s", "revoke p50", "revoke p99");
    for side in &sides {
        let [p50, p99, handled] = side.figures.clone().map(Spread::of);
        let cell = |of: &Spread| {
            let micros = |nanos: u64| nanos as f64 / 1000.0;
            format!("{:.1} [{:.1}, {:.1}]", micros(of.median), micros(of.min), micros(of.max))
        };
        println!("{:8} {:>8} {:>10} {:>24} {:>28}", side.name, side.waiting, handled.median, cell(&p50), cell(&p99));
    }
    println!("long to short: p50 {p50:.2}, p99 {p99:.2}");
}

impl Side {
    fn full(name: &'static str, waiting: u32) -> Self {
        let mut limits = Limits::default();
        limits.pending_max = waiting.try_into().unwrap();
        let store = Arc::new(TrustStore::options().limits(limits).in_memory().unwrap());
        let identity = Arc::new(FileIdentity::from_seed(NodeId::new(7).unwrap(), &[9; 32]).unwrap());
        let manager = HandshakeManager::builder(store, identity, Arc::new(Nowhere)).start().unwrap();
        let side = Self { name, manager, waiting, newcomers: NEWCOMERS, figures: Default::default() };
        for nth in 0..waiting {
            side.is_asked_by(WAITING + nth, nth / 16);
        }
        assert_eq!(side.manager.pending().len(), waiting as usize, "{name}");
        side
    }

    /// A request by a peer from one of the sources.
    fn is_asked_by(&self, peer: u32, source: u32) {
        let mut asker = Actor::new(peer, 0x33);
        let draft = asker.draft(SystemClock.now(), NodeId::new(7).unwrap(), Kind::Request, None);
        let source = Source::from_address(Ipv4Addr::from_bits(0x0A00_0000 + source).into());
        self.manager.receive(Received::new(asker.sign(&draft).to_json(), source));
    }

    /// So many `revoke`s, one each millisecond or so, while another thread brings newcomers; and how many of these were
    /// handled in a second.
    fn revokes_beside_newcomers(&mut self, rate: u32, revokes: u32) -> (Samples, u64) {
        // ORDERING: SeqCst throughout; a switch and a counter of the measurement. No partner in docs/concurrency.md.
        let (done, handled) = (AtomicBool::new(false), AtomicU64::new(0));
        let (samples, per_second) = std::thread::scope(|scope| {
            let (done, handled, side) = (&done, &handled, &*self);
            let began = Instant::now();
            scope.spawn(move || {
                let mut next = Instant::now();
                for nth in side.newcomers.. {
                    if done.load(Ordering::SeqCst) {
                        return;
                    }
                    side.is_asked_by(nth, nth);
                    handled.fetch_add(1, Ordering::SeqCst);
                    next += Duration::from_secs(1) / rate;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
            let nanos = (0..revokes).map(|_| {
                std::thread::sleep(Duration::from_millis(1));
                let start = Instant::now();
                drop(side.manager.revoke(NodeId::new(30).unwrap()).unwrap());
                u64::try_from(start.elapsed().as_nanos()).unwrap()
            });
            let samples = Samples::new(nanos.collect());
            done.store(true, Ordering::SeqCst);
            let per_second = handled.load(Ordering::SeqCst) as f64 / began.elapsed().as_secs_f64();
            (samples, per_second as u64)
        });
        self.newcomers += u32::try_from(handled.into_inner()).unwrap() + 1;
        (samples, per_second)
    }
}
