//! `stress`: many threads grant and revoke, and every change that was acknowledged as durable is written down, so that
//! anybody can kill the process (or the machine) and check that nothing acknowledged is missing.
//!
//! What must hold: a line is appended only after its change is durable; at most one change of each thread is not yet
//! acknowledged; which peer a thread changes next follows from the seed and the number of its changes alone.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::arguments::Stress;
use super::latencies::Latencies;
use super::{Answer, Failure, now, print};
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::store::TrustStore;
use crate::sync::{Arc, spawn};

#[derive(Serialize)]
struct Measured {
    threads: u32,
    seconds: f64,
    /// Trusted peers before the first change, and after the last.
    records_before: usize,
    records_after: usize,
    generation: u64,
    changes: u64,
    changes_per_s: f64,
    acknowledged: u64,
    acknowledged_per_s: f64,
    /// From the call to the acknowledgement (with `--no-wait`: to its return), in microseconds.
    latency_us: Percentiles,
}

#[derive(Serialize)]
struct Percentiles {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
}

/// What one thread came to.
struct Tally {
    changes: u64,
    acknowledged: u64,
    latencies: Latencies,
    failure: Option<Failure>,
}

struct Worker {
    store: Arc<TrustStore>,
    keys: Arc<[PublicKey]>,
    acks: Option<File>,
    waits: bool,
    seed: u64,
    thread: u32,
    until: Instant,
}

/// Runs until the time is over, and prints what was measured.
pub(super) fn run(arguments: &Stress) -> Result<Answer, Failure> {
    let acks = arguments.acks.as_deref().map(open_acks).transpose()?;
    let store = Arc::new(TrustStore::open(&arguments.dir)?);
    let keys = keys()?;
    fill(&store, arguments.records, &keys)?;
    let records_before = store.snapshot().len();
    let start = instant();
    let until = start + arguments.seconds;
    let mut threads = Vec::new();
    for thread in 0..arguments.threads {
        let acks = acks.as_ref().map(File::try_clone).transpose().map_err(|error| {
            Failure::hint(format_args!("the file of acknowledgements: {error}"), "use fewer threads")
        })?;
        let (store, keys, seed) = (Arc::clone(&store), Arc::clone(&keys), arguments.seed);
        let worker = Worker { store, keys, acks, waits: !arguments.no_wait, seed, thread, until };
        let handle = spawn("trustkeep-stress", move || worker.run());
        threads.push(handle.map_err(|error| Failure::hint(format_args!("no thread: {error}"), "use fewer threads"))?);
    }
    let (mut changes, mut acknowledged, mut latencies) = (0, 0, Latencies::new());
    let mut failure = None;
    for thread in threads {
        let tally = thread.join().map_err(|_| Failure::new("a thread panicked"))?;
        changes += tally.changes;
        acknowledged += tally.acknowledged;
        latencies.merge(&tally.latencies);
        failure = failure.or(tally.failure);
    }
    let took = instant().duration_since(start);
    let generation = store.close()?.get();
    if let Some(failure) = failure {
        return Err(failure);
    }
    let micros = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e6);
    let per_second = |count: u64| if took.is_zero() { 0.0 } else { rate(count, took) };
    let measured = Measured {
        threads: arguments.threads,
        seconds: took.as_secs_f64(),
        records_before,
        records_after: store.snapshot().len(),
        generation,
        changes,
        changes_per_s: per_second(changes),
        acknowledged,
        acknowledged_per_s: per_second(acknowledged),
        latency_us: Percentiles {
            p50: micros(latencies.per_mille(500)),
            p90: micros(latencies.per_mille(900)),
            p99: micros(latencies.per_mille(990)),
            p999: micros(latencies.per_mille(999)),
            max: micros(latencies.max()),
        },
    };
    if arguments.json {
        print::json(&measured)?
    } else {
        show(&measured)?
    }
    Ok(Answer::Yes)
}

fn show(measured: &Measured) -> Result<(), Failure> {
    let Measured { threads, seconds, records_before, records_after, generation, .. } = measured;
    let Percentiles { p50, p90, p99, p999, max } = &measured.latency_us;
    let time = |micros: &Option<f64>| micros.map_or_else(|| "-".to_owned(), |micros| format!("{micros:.1}"));
    print::to_stdout(|out| {
        writeln!(out, "{threads} threads, {seconds:.2} s, generation {generation}")?;
        writeln!(out, "trusted peers    {records_before} before, {records_after} after")?;
        writeln!(out, "changes          {} ({:.0}/s)", measured.changes, measured.changes_per_s)?;
        writeln!(out, "acknowledged     {} ({:.0}/s)", measured.acknowledged, measured.acknowledged_per_s)?;
        write!(out, "latency in us    p50 {}  p90 {}  p99 {}  ", time(p50), time(p90), time(p99))?;
        writeln!(out, "p99.9 {}  max {}", time(p999), time(max))
    })
}

impl Worker {
    fn run(self) -> Tally {
        let mut tally = Tally { changes: 0, acknowledged: 0, latencies: Latencies::new(), failure: None };
        while tally.failure.is_none() && instant() < self.until {
            if let Err(failure) = self.change(&mut tally) {
                tally.failure = Some(failure);
            }
        }
        tally
    }

    fn change(&self, tally: &mut Tally) -> Result<(), Failure> {
        let peer = self.peer(tally.changes)?;
        let start = instant();
        // Nobody else changes this peer.
        let revokes = self.store.is_trusted(peer);
        let receipt = if revokes {
            self.store.revoke(peer).map_err(Failure::new)?.receipt
        } else {
            let record = record(peer, &self.keys);
            let lift_and_grant = |batch: &mut crate::store::Batch<'_>| {
                batch.forget_revocation(peer);
                batch.grant(record)
            };
            let (granted, receipt) = self.store.update(lift_and_grant).map_err(Failure::new)?;
            granted.map_err(Failure::new)?;
            receipt
        };
        tally.changes += 1;
        if !self.waits {
            tally.latencies.add(instant().duration_since(start));
            return Ok(());
        }
        // Rides out a disk that fails for a while.
        receipt.wait_durable_timeout(self.until.saturating_duration_since(start) + PATIENCE)?;
        tally.latencies.add(instant().duration_since(start));
        tally.acknowledged += 1;
        if let Some(mut acks) = self.acks.as_ref() {
            let line = format!("{} {} {peer}\n", receipt.generation(), if revokes { "revoke" } else { "grant" });
            // In one piece, or the lines of different threads would mix.
            let written = acks.write(line.as_bytes()).map_err(|error| no_acks(&error))?;
            if written != line.len() {
                return Err(no_acks(&"a line was written in part"));
            }
        }
        Ok(())
    }

    /// The peer that this thread's change of this number (from 0) concerns.
    fn peer(&self, change: u64) -> Result<NodeId, Failure> {
        let of_thread = mix(mix(self.seed).wrapping_add(u64::from(self.thread)));
        let offset = mix(of_thread.wrapping_add(change)) % PEERS_PER_THREAD;
        let id = 1 + u64::from(self.thread) * PEERS_PER_THREAD + offset;
        u32::try_from(id).ok().and_then(NodeId::new).ok_or_else(|| Failure::new("too many threads"))
    }
}

fn no_acks(error: &dyn core::fmt::Display) -> Failure {
    Failure::hint(format_args!("an acknowledgement could not be written: {error}"), "choose another --acks file")
}

/// Trusts peers that no thread changes until the store holds this many, and waits until they are durable.
fn fill(store: &TrustStore, records: u32, keys: &[PublicKey]) -> Result<(), Failure> {
    let records = records as usize;
    let mut ids = FILL_FIRST..;
    while store.snapshot().len() < records {
        let outcome = store.update(|batch| {
            for peer in ids.by_ref().take(FILL_BATCH).filter_map(NodeId::new) {
                if batch.len() >= records {
                    break;
                }
                if !batch.is_trusted(peer) {
                    batch.grant(record(peer, keys)).map_err(Failure::new)?;
                }
            }
            Ok::<(), Failure>(())
        });
        outcome.map_err(Failure::new)?.0?;
    }
    store.flush()?;
    Ok(())
}

fn record(peer: NodeId, keys: &[PublicKey]) -> TrustRecord {
    let key = keys.iter().cycle().nth(peer.get() as usize % keys.len().max(1));
    TrustRecord::new(peer, key.copied()).approved_at(now().wall)
}

/// Some genuine keys: as many as there are peers would take longer to make than the rest.
fn keys() -> Result<Arc<[PublicKey]>, Failure> {
    let key = |number: u8| {
        let signing = ed25519_dalek::SigningKey::from_bytes(&[number; 32]);
        PublicKey::from_bytes(signing.verifying_key().to_bytes()).map_err(Failure::new)
    };
    (0..64).map(key).collect()
}

fn open_acks(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|error| Failure::hint(format_args!("{}: {error}", path.display()), "choose another --acks file"))
}

/// The output function of splitmix64, with its step.
const fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[expect(clippy::disallowed_methods, reason = "a measurement is real time by definition")]
fn instant() -> Instant {
    Instant::now()
}

#[expect(clippy::cast_precision_loss, reason = "a rate is read by people")]
fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Fewer peers mean that more of them are changed back and forth.
const PEERS_PER_THREAD: u64 = 1000;
/// Beyond every peer that a thread owns.
const FILL_FIRST: u32 = 0x1000_0000;
const FILL_BATCH: usize = 100_000;
/// How long a change may take to become durable when the time is over.
const PATIENCE: Duration = Duration::from_secs(30);
