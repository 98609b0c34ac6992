//! `is_trusted` on a handle against the maps that one would use without this crate: half of the questions hit, half miss.
#![allow(missing_docs, clippy::disallowed_types, reason = "criterion's macros; a peer is a lock")]

use core::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trustkeep::{NodeId, TrustRecord};
use trustkeep_benches::{filled_store, key, peers, shuffled};

fn membership(criterion: &mut Criterion) {
    for size in [10_000u32, 1_000_000] {
        let (store, key) = (filled_store(size), key());
        let mut reader = store.reader();
        let map: hashbrown::HashMap<NodeId, TrustRecord, foldhash::fast::RandomState> =
            peers(size).map(|peer| (peer, TrustRecord::new(peer, key).network(1))).collect();
        let locked = parking_lot::RwLock::new(map.clone());
        let std_locked = std::sync::RwLock::new(map.clone());
        // Granted and not granted ids in one random order, longer than caches are wide.
        let questions = shuffled(size.saturating_mul(2));

        let mut group = criterion.benchmark_group("membership");
        group.throughput(Throughput::Elements(questions.len() as u64));
        group.sample_size(10);
        group.bench_function(BenchmarkId::new("TrustReader", size), |bencher| {
            bencher.iter(|| questions.iter().filter(|peer| reader.is_trusted(black_box(**peer))).count());
        });
        group.bench_function(BenchmarkId::new("TrustStore", size), |bencher| {
            bencher.iter(|| questions.iter().filter(|peer| store.is_trusted(black_box(**peer))).count());
        });
        group.bench_function(BenchmarkId::new("HashMap, no lock", size), |bencher| {
            bencher.iter(|| questions.iter().filter(|peer| map.contains_key(black_box(*peer))).count());
        });
        group.bench_function(BenchmarkId::new("parking_lot RwLock<HashMap>", size), |bencher| {
            bencher.iter(|| questions.iter().filter(|peer| locked.read().contains_key(black_box(*peer))).count());
        });
        group.bench_function(BenchmarkId::new("std RwLock<HashMap>", size), |bencher| {
            bencher.iter(|| {
                let contains = |peer| std_locked.read().is_ok_and(|map| map.contains_key(peer));
                questions.iter().filter(|peer| contains(black_box(*peer))).count()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, membership);
criterion_main!(benches);
