//! What the log says of a disk that hangs: one line for each save that runs for too long, however many ask, also if nobody
//! does; one more when it has ended; nothing of a save within its limit. Alone in its program, for a program has one log.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use trustkeep::testing::sim_disk::SimDisk;
use trustkeep::{NodeId, TrustRecord, TrustStore};

/// Keeps the lines about saves that run for too long.
struct Log;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        LINES.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn lines_with(text: &str) -> usize {
    LINES.lock().unwrap().iter().filter(|line| line.contains(text)).count()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {:?}", LINES.lock().unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
}

const HANGS: &str = "a save has been running for longer than it should";
const ENDED: &str = "the save that was running for so long has ended";

#[test]
fn a_save_that_hangs_is_told_to_the_log_once_whoever_asks() {
    tracing::subscriber::set_global_default(Log).unwrap();
    let (disk, hangs) = (SimDisk::new(), Arc::new((Mutex::new(false), Condvar::new())));
    let of_disk = Arc::clone(&hangs);
    disk.on_sync(move || drop(of_disk.1.wait_while(of_disk.0.lock().unwrap(), |hangs| *hangs).unwrap()));
    let hang = |hang: bool| {
        *hangs.0.lock().unwrap() = hang;
        hangs.1.notify_all();
    };
    let limit = Duration::from_millis(100);
    let store = TrustStore::options().save_limit(limit).open_storage(Arc::new(disk.clone())).unwrap();
    let grant = |number| store.grant(TrustRecord::new(NodeId::new(number).unwrap(), None)).unwrap();
    let is_overdue = || store.health().saving.is_some_and(|saving| saving.is_overdue);

    // Many ask, and many wait.
    for round in 1..=2 {
        hang(true);
        let receipt = grant(round);
        std::thread::scope(|scope| {
            let waits: Vec<_> = (0..4).map(|_| scope.spawn(|| receipt.wait_durable())).collect();
            eventually("health", is_overdue);
            (0..10).for_each(|_| assert!(is_overdue()));
            std::thread::sleep(limit * 3);
            hang(false);
            waits.into_iter().for_each(|wait| wait.join().unwrap().unwrap());
        });
        eventually("it has ended", || lines_with(ENDED) == round as usize);
        assert_eq!(lines_with(HANGS), round as usize, "{:?}", LINES.lock().unwrap());
    }
    // Nobody asks and nobody waits.
    hang(true);
    let receipt = grant(3);
    std::thread::sleep(limit * 3);
    hang(false);
    eventually("it has ended", || lines_with(ENDED) == 3);
    receipt.wait_durable().unwrap();
    assert_eq!(lines_with(HANGS), 3, "{:?}", LINES.lock().unwrap());
    let lines = LINES.lock().unwrap().clone();
    let warned: Vec<_> = lines.iter().filter(|line| line.contains(HANGS)).collect();
    assert!(warned.iter().all(|line| line.starts_with("WARN") && line.contains("limit_ms=100")), "{warned:?}");
    store.close().unwrap();

    // And the twin: within its limit a save is no news, however slow it is.
    LINES.lock().unwrap().clear();
    let patient = TrustStore::options().save_limit(Duration::from_secs(3600)).open_storage(Arc::new(disk)).unwrap();
    hang(true);
    let receipt = patient.grant(TrustRecord::new(NodeId::new(4).unwrap(), None)).unwrap();
    std::thread::sleep(limit * 3);
    assert!(patient.health().is_ok());
    hang(false);
    receipt.wait_durable().unwrap();
    patient.close().unwrap();
    assert_eq!((lines_with(HANGS), lines_with(ENDED)), (0, 0));
}
