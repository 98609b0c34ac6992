//! What a read costs on average, next to the same read of a bare map.
//!
//! What must hold: both sides walk the same array of questions, and find in it what they should.
#![allow(
    clippy::disallowed_types,
    clippy::indexing_slicing,
    reason = "a peer is a lock; a measurement stops when something does not hold"
)]

use core::hint::black_box;

use trustkeep::{NodeId, TrustRecord, TrustStore};

use super::fixtures::MILLION;
use super::{Kind, Plan, Wanted, goal, nanos};
use crate::goals::Line;
use crate::peers::maps::{Asking, Bare, Handle, Map as _, Reader, Shared};
use crate::rounds::{alternate, mean, on_threads};
use crate::workload::{Mix, questions, questions_for};

pub(super) const SMALL: Kind = Kind { goals: &["handle_contains_100", "handle_contains_10k"], measure: small };

pub(super) const LARGE: Kind = Kind {
    goals: &[
        "handle_contains_1m_1t",
        "handle_contains_1m_1t_hits",
        "handle_contains_1m_2t",
        "handle_contains_1m_2t_hits",
        "store_contains_1m_1t",
        "store_contains_1m_2t",
        "get_1m",
    ],
    measure: large,
};

pub(super) const HUGE: Kind = Kind { goals: &["handle_contains_10m"], measure: huge };

/// Nanoseconds a question on so many threads, each asking the same questions from a place of its own.
pub(crate) fn reading<R: Reader>(
    threads: usize,
    questions: &[NodeId],
    hits: usize,
    reader: impl Fn() -> R + Sync,
) -> f64 {
    on_threads(threads, |thread, barrier| {
        let mut reader = reader();
        // A thread's first question may allocate.
        let _ = black_box(reader.contains(questions[0]));
        let (before, behind) = questions.split_at(questions.len() / 2 * (thread % 2));
        barrier.wait();
        let mut found = 0;
        let nanos = mean(questions.len(), || {
            for part in [behind, before] {
                for peer in part {
                    found += usize::from(reader.contains(black_box(*peer)));
                }
            }
        });
        assert_eq!(found, hits);
        nanos
    })
}

/// Nanoseconds a question on so many threads, where each thread asks a thousand questions at once.
pub(crate) fn reading_many(threads: usize, questions: &[NodeId], hits: usize, store: &TrustStore) -> f64 {
    on_threads(threads, |thread, barrier| {
        let (mut reader, mut answers) = (store.reader(), vec![false; MANY]);
        // A thread's first question may allocate.
        let _ = black_box(reader.is_trusted(questions[0]));
        let (before, behind) = questions.split_at(questions.len() / 2 * (thread % 2));
        barrier.wait();
        let mut found = 0;
        let nanos = mean(questions.len(), || {
            for peers in [behind, before].into_iter().flat_map(|part| part.chunks(MANY)) {
                reader.are_trusted(black_box(peers), &mut answers);
                found += answers.iter().take(peers.len()).filter(|is_trusted| **is_trusted).count();
            }
        });
        assert_eq!(found, hits);
        nanos
    })
}

/// What it is called in tables.
pub(crate) const MANY_NAME: &str = "trustkeep, handle, 1000 at once";
const MANY: usize = 1000;

/// How many of these questions are about a record that is there.
pub(crate) fn hits(map: &Bare, questions: &[NodeId]) -> usize {
    questions.iter().filter(|peer| map.contains_key(*peer)).count()
}

fn small(plan: &Plan, wanted: &Wanted<'_>) -> Vec<Line> {
    let sizes = [("handle_contains_100", 100), ("handle_contains_10k", 10_000)];
    sizes
        .into_iter()
        .filter(|(name, _)| wanted.any(&[name]))
        .map(|(name, size)| handle(plan, name, &Handle::filled(size).0, &Bare::filled(size), size, 1, Mix::Half))
        .collect()
}

fn huge(plan: &Plan, _: &Wanted<'_>) -> Vec<Line> {
    const SIZE: u32 = 10_000_000;
    if plan.quick && plan.all {
        return vec![goal("handle_contains_10m").not_measured("left out by --quick; with --only it is measured")];
    }
    vec![handle(plan, "handle_contains_10m", &Handle::filled(SIZE).0, &Bare::filled(SIZE), SIZE, 1, Mix::Half)]
}

fn large(plan: &Plan, wanted: &Wanted<'_>) -> Vec<Line> {
    const SIZE: u32 = MILLION;
    let (store, locked) = (plan.fixtures.store(), plan.fixtures.locked());
    let mut lines = Vec::new();
    for (name, threads, mix) in [
        ("handle_contains_1m_1t", 1, Mix::Half),
        ("handle_contains_1m_1t_hits", 1, Mix::Hits),
        ("handle_contains_1m_2t", 2, Mix::Half),
        ("handle_contains_1m_2t_hits", 2, Mix::Hits),
    ] {
        if wanted.any(&[name]) {
            lines.push(handle(plan, name, store, &locked.read(), SIZE, threads, mix));
        }
    }
    for (name, threads) in [("store_contains_1m_1t", 1), ("store_contains_1m_2t", 2)] {
        if wanted.any(&[name]) {
            let questions = questions(SIZE, Mix::Half, questions_for(SIZE, plan.quick), 2);
            let (hits, shared) = (hits(&locked.read(), &questions), Shared(store));
            let [ours, peer] = alternate(
                plan.rounds(),
                [&mut || reading(threads, &questions, hits, || shared.reader()), &mut || {
                    reading(threads, &questions, hits, || locked.reader())
                }],
            );
            lines.push(goal(name).measured(nanos(Shared::NAME, ours), Some(nanos("parking_lot RwLock", peer))));
        }
    }
    if wanted.any(&["get_1m"]) {
        lines.push(get(plan, store, &locked.read(), SIZE));
    }
    lines
}

fn handle(plan: &Plan, name: &str, store: &TrustStore, map: &Bare, size: u32, threads: usize, mix: Mix) -> Line {
    let questions = questions(size, mix, questions_for(size, plan.quick), 1);
    let hits = hits(map, &questions);
    let [ours, peer] = alternate(
        plan.rounds(),
        [&mut || reading(threads, &questions, hits, || store.reader()), &mut || {
            reading(threads, &questions, hits, || Asking(|peer| map.contains_key(&peer)))
        }],
    );
    goal(name).measured(nanos(Handle::NAME, ours), Some(nanos(Bare::NAME, peer)))
}

/// Both sides take every field out: ours answers with a copy of the record, and so does the peer.
fn get(plan: &Plan, store: &TrustStore, map: &Bare, size: u32) -> Line {
    let questions = questions(size, Mix::Hits, questions_for(size, plan.quick), 3);
    let mut reader = store.reader();
    let [ours, peer] = alternate(
        plan.rounds(),
        [
            &mut || {
                mean(questions.len(), || {
                    for peer in &questions {
                        let record: Option<TrustRecord> = reader.get(black_box(*peer));
                        assert!(black_box(&record).is_some());
                    }
                })
            },
            &mut || {
                mean(questions.len(), || {
                    for peer in &questions {
                        let terms = map.get(black_box(peer)).copied();
                        assert!(black_box(&terms).is_some());
                    }
                })
            },
        ],
    );
    goal("get_1m").measured(nanos("trustkeep, handle", ours), Some(nanos(Bare::NAME, peer)))
}
