//! What does an operator feel of a source that floods the node with long texts? `cancel` beside 60 KB texts that the filter
//! drops, beside 60 KB of ASCII at the same rate, and beside nothing, round by round in one run; and how long the rules take
//! under the writer lock over one such message.
//!
//! `text_flood [--rounds 7] [--rate 300] [--cancels 500] [--json]`
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement: it reads the clock, prints, and stops when something does not hold"
)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use trustkeep::clock::{Clock as _, SystemClock};
use trustkeep::machine::input::{Input, Received as Heard};
use trustkeep::machine::replay::Seen;
use trustkeep::machine::step::step;
use trustkeep::machine::view::Source;
use trustkeep::node::{FileIdentity, Inbox, Received, RequestOptions, SendError, Transport};
use trustkeep::testing::actor::{Actor, Way, at};
use trustkeep::wire::decode::decode;
use trustkeep::wire::message::Kind;
use trustkeep::wire::verify::verify;
use trustkeep::{HandshakeManager, NodeId, TrustStore};
use trustkeep_benches::arguments::Arguments;
use trustkeep_benches::{Samples, Spread};

const USAGE: &str = "text_flood [--rounds 7] [--rate 300] [--cancels 500] [--json]";
const TEXT_BYTES: usize = 60_000;
/// What a flood's texts are made of; the first side is the idle one.
const SIDES: [(&str, &str); 4] = [("idle", ""), ("ASCII", "x"), ("U+0378", "\u{378}"), ("U+200B", "\u{200b}")];
/// How often the rules are asked about one message.
const STEPS: usize = 2_000;

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

fn main() {
    let arguments = Arguments::of_process(USAGE, &["--rounds", "--rate", "--cancels"], &["--json"]);
    let rounds = arguments.number("--rounds", 7, 1);
    let rate = arguments.number("--rate", 300, 1);
    let cancels = arguments.number("--cancels", 500, 100);

    let store = Arc::new(TrustStore::options().in_memory().unwrap());
    let us = NodeId::new(7).unwrap();
    let identity = Arc::new(FileIdentity::from_seed(us, &[9; 32]).unwrap());
    let manager = HandshakeManager::builder(store, identity, Arc::new(Nowhere)).start().unwrap();

    // Of each side: the 50th and 99th of a hundred `cancel`s in nanoseconds, and messages a second that were handled.
    let mut figures: [[Vec<u64>; 3]; SIDES.len()] = Default::default();
    for _ in 0..rounds {
        for ((_, unit), [p50, p99, handled]) in SIDES.iter().zip(&mut figures) {
            let (samples, per_second) = beside(&manager, us, unit, rate, cancels);
            p50.push(samples.per_mille(500));
            p99.push(samples.per_mille(990));
            handled.push(per_second);
        }
    }
    let holds = SIDES.map(|(_, unit)| held(unit));

    let [idle, ascii, ..] = &figures;
    let median = |rounds: &Vec<u64>| Spread::of(rounds.clone()).median;
    let ratio = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let against = |side: &[Vec<u64>; 3]| ratio(median(&side[1]), median(&ascii[1]));
    let hold = |index: usize| holds[index].per_mille(500);
    assert!(median(&idle[2]) == 0 && median(&ascii[2]) > 0, "the sides are not what they are said to be");
    if arguments.has("--json") {
        let sides: serde_json::Map<String, serde_json::Value> = SIDES
            .iter()
            .enumerate()
            .map(|(index, (name, _))| {
                let [p50, p99, handled] = figures[index].clone().map(|rounds| Spread::of(rounds).json());
                let figures = serde_json::json!({
                    "cancel_p50_ns": p50, "cancel_p99_ns": p99, "messages_per_second": handled,
                    "p99_against_ascii": against(&figures[index]), "step_p50_ns": hold(index),
                    "step_against_idle": ratio(hold(index), hold(0)),
                });
                ((*name).to_owned(), figures)
            })
            .collect();
        println!("{}", serde_json::json!({ "rounds": rounds, "rate": rate, "cancels": cancels, "sides": sides }));
        return;
    }
    println!(
        "{cancels} times `cancel` beside texts of {TEXT_BYTES} bytes, {rate} a second asked for, {rounds} rounds; \
         microseconds: median [min, max] of rounds. `step`: what the rules take under the lock over one message"
    );
    println!(
        "{:8} {:>10} {:>22} {:>26} {:>10} {:>10} {:>8}",
        "texts", "handled/s", "cancel p50", "cancel p99", "to ASCII", "step p50", "to idle"
    );
    for (index, (name, _)) in SIDES.iter().enumerate() {
        let [p50, p99, handled] = &figures[index];
        let cell = |rounds: &Vec<u64>| {
            let Spread { median, min, max } = Spread::of(rounds.clone());
            let micros = |nanos| nanos as f64 / 1000.0;
            format!("{:.1} [{:.1}, {:.1}]", micros(median), micros(min), micros(max))
        };
        println!(
            "{name:8} {:>10} {:>22} {:>26} {:>10.2} {:>10.2} {:>8.2}",
            median(handled),
            cell(p50),
            cell(p99),
            against(&figures[index]),
            hold(index) as f64 / 1000.0,
            ratio(hold(index), hold(0)),
        );
    }
}

/// So many `cancel`s, one each millisecond or so, while another thread brings messages with texts of this unit; and how
/// many of these were handled in a second.
fn beside(manager: &HandshakeManager, us: NodeId, unit: &str, rate: u32, cancels: u32) -> (Samples, u64) {
    // ORDERING: SeqCst throughout; a switch and a counter of the measurement. No partner in docs/concurrency.md.
    let (done, handled) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (done, handled) = (&done, &handled);
        let began = Instant::now();
        if !unit.is_empty() {
            scope.spawn(move || {
                let mut asker = Actor::new(21, 0x33);
                let text = unit.repeat(TEXT_BYTES / unit.len());
                let mut next = Instant::now();
                while !done.load(Ordering::SeqCst) {
                    let mut draft = asker.draft(SystemClock.now(), us, Kind::Request, None);
                    draft.justification.clone_from(&text);
                    let bytes = asker.sign(&draft).to_json();
                    manager.receive(Received::new(bytes, Source::from_address([10, 0, 0, 1].into())));
                    handled.fetch_add(1, Ordering::SeqCst);
                    next += Duration::from_secs(1) / rate;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
        let peer = NodeId::new(30).unwrap();
        let nanos = (0..cancels).map(|_| {
            drop(manager.request(peer, "weather feed", RequestOptions::default()).unwrap());
            std::thread::sleep(Duration::from_millis(1));
            let start = Instant::now();
            drop(manager.cancel(peer).unwrap());
            u64::try_from(start.elapsed().as_nanos()).unwrap()
        });
        let samples = Samples::new(nanos.collect());
        done.store(true, Ordering::SeqCst);
        let per_second = handled.load(Ordering::SeqCst) as f64 / began.elapsed().as_secs_f64();
        (samples, per_second as u64)
    })
}

/// How long `step` takes over a first request with such a text, in nanoseconds; the idle side's text is a short one.
fn held(unit: &str) -> Samples {
    let (us, mut asker) = (Actor::new(7, 0xAA), Actor::new(21, 0x33));
    let mut draft = asker.draft(at(0), us.id(), Kind::Request, None);
    draft.justification =
        if unit.is_empty() { "weather feed".to_owned() } else { unit.repeat(TEXT_BYTES / unit.len()) };
    let message = verify(decode(asker.sign(&draft)).unwrap(), us.id()).unwrap();
    let (Way { path, lookup }, nonce) = (Way::open(), draft.nonce);
    let input = Input::Message(Heard { message, path, lookup, nonce, seen: Seen::Never });
    let nanos = (0..STEPS).map(|_| {
        let input = input.clone();
        let start = Instant::now();
        let decided = step(&us.rules, &us.tables, at(0), input);
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap();
        assert!(decided.is_ok());
        took
    });
    Samples::new(nanos.collect())
}
