//! Durable changes: each thread waits for its own before it makes the next.
//!
//! What must hold: every side puts records of the same size into a store of 10 000, and returns from each put only when it
//! would survive power loss. The key is made once: to find out that a text is a point on the curve takes microseconds,
//! which are no store's.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measurement: it reads the clock, removes its files, and stops when something does not hold"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use trustkeep::{PublicKey, TrustStore};

use super::{Kind, Plan, Wanted, goal};
use crate::directory::{Written, device};
use crate::figure::{Range, Side, Unit};
use crate::goals::Line;
use crate::peers::stores::{Fjall, Lmdb, Redb, Sqlite, Store};
use crate::raw::RawFile;
use crate::rounds::alternate;
use crate::workload::{Random, Terms, fill, record};

pub(super) const DURABLE: Kind =
    Kind { goals: &["durable_64t_peers", "durable_64t_1t", "durable_1t"], measure: durable };

const SIZE: u32 = 10_000;

/// Operations a second of so many threads, each of which does one after the other until the time is over. Each is given a
/// number that no other gets in this round.
fn rate(threads: u32, time: Duration, operation: impl Fn(u32) + Sync) -> f64 {
    let start = Instant::now();
    let done: u32 = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let operation = &operation;
                scope.spawn(move || {
                    let mut number = thread;
                    while start.elapsed() < time {
                        operation(number);
                        number += threads;
                    }
                    number / threads
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    f64::from(done) / start.elapsed().as_secs_f64()
}

/// A store whose every change of a round differs from what is there.
struct Ours {
    store: TrustStore,
    key: PublicKey,
    network: std::sync::atomic::AtomicU16,
}

impl Ours {
    fn open(dir: &Path) -> Self {
        let store = TrustStore::open(dir).unwrap();
        fill(&store, SIZE);
        store.flush().unwrap();
        Self { store, key: crate::key(), network: 2.into() }
    }

    fn grant(&self) {
        // ORDERING: Relaxed; a counter of the measurement. No partner in docs/concurrency.md.
        let network = self.network.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let which = Random::new(network.into()).below(SIZE);
        self.store.grant(record(which, self.key, network)).unwrap().wait_durable().unwrap();
    }

    /// What one change hands to the system.
    fn bytes_of_one(&self, dir: &Path) -> usize {
        let disk = device(dir).unwrap();
        let bytes: Vec<f64> = (0..51)
            .map(|_| {
                let before = Written::now(disk).unwrap();
                self.grant();
                Written::now(disk).unwrap().since(before).handed as f64
            })
            .collect();
        Range::of(&bytes).unwrap().median as usize
    }
}

fn put<S: Store>(store: &S, number: u32, key: PublicKey) {
    let network = u16::try_from(number % 60_000).unwrap_or(0);
    let record = record(Random::new(number.into()).below(SIZE), key, network);
    store.put(record.node_id, Terms::of(&record));
}

fn durable(plan: &Plan, wanted: &Wanted<'_>) -> Vec<Line> {
    let dir = plan.home.join("durable");
    std::fs::create_dir(&dir).unwrap();
    let (ours, time) = (Ours::open(&dir.join("store")), plan.time());
    let bytes = ours.bytes_of_one(&dir);
    let mut raw = RawFile::taken_ahead(&dir.join("raw"), bytes).unwrap();
    let peers = wanted.any(&["durable_64t_peers"]).then(|| {
        let of = &dir;
        (Redb::filled(SIZE, of), Fjall::filled(SIZE, of), Sqlite::filled(SIZE, of), Lmdb::filled(SIZE, of))
    });
    let of_peer = |which: u8| {
        let Some((redb, fjall, sqlite, lmdb)) = &peers else { return 0.0 };
        rate(64, time, |number| match which {
            0 => put(redb, number, ours.key),
            1 => put(fjall, number, ours.key),
            2 => put(sqlite, number, ours.key),
            _ => put(lmdb, number, ours.key),
        })
    };
    let [one, bare, many, redb, fjall, sqlite, lmdb] = alternate(
        plan.rounds(),
        [
            &mut || rate(1, time, |_| ours.grant()),
            &mut || {
                let start = Instant::now();
                let mut done = 0u32;
                while start.elapsed() < time {
                    raw.append().unwrap();
                    done += 1;
                }
                f64::from(done) / start.elapsed().as_secs_f64()
            },
            &mut || rate(64, time, |_| ours.grant()),
            &mut || of_peer(0),
            &mut || of_peer(1),
            &mut || of_peer(2),
            &mut || of_peer(3),
        ],
    );
    ours.store.close().unwrap();
    let rates = |label: &str, rounds: &[f64]| Side::new(label, Unit::PerSecond, rounds.to_vec());
    let times = |label: &str, rounds: &[f64]| super::nanos(label, rounds.iter().map(|rate| 1e9 / rate).collect());
    let mut others: Vec<Side> = [(Redb::NAME, redb), (Fjall::NAME, fjall), (Sqlite::NAME, sqlite), (Lmdb::NAME, lmdb)]
        .into_iter()
        .map(|(name, rounds)| rates(name, &rounds))
        .collect();
    others.sort_by(|a, b| median(b).total_cmp(&median(a)));
    let best = others.remove(0);
    drop(peers);
    std::fs::remove_dir_all(dir).unwrap();
    vec![
        goal("durable_64t_peers").measured(rates("trustkeep, 64 threads", &many), Some(best)).beside(others),
        goal("durable_64t_1t")
            .measured(rates("trustkeep, 64 threads", &many), Some(rates("trustkeep, 1 thread", &one))),
        goal("durable_1t")
            .measured(times("trustkeep, 1 thread", &one), Some(times("append and fdatasync", &bare)))
            .note(format!("{bytes} bytes each, space taken ahead")),
    ]
}

fn median(side: &Side) -> f64 {
    side.range().map_or(0.0, |range| range.median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_rate_counts_the_operations_of_all_threads_each_with_a_number_of_its_own() {
        let numbers = std::sync::mpsc::channel();
        let time = Duration::from_millis(200);
        let rate = rate(4, time, |number| {
            std::thread::sleep(Duration::from_millis(10));
            numbers.0.send(number).unwrap();
        });
        drop(numbers.0);
        let all: Vec<u32> = numbers.1.into_iter().collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        // Four threads, ten milliseconds each: at most 400 a second, and no fewer than were done in the time it took.
        assert!(rate <= 401.0, "{rate}");
        assert!(rate <= all.len() as f64 / 0.2 && rate > all.len() as f64 / 20.0, "{rate} {}", all.len());
    }
}
