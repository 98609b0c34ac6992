//! Whether a peer is there: our handle and our store against the maps that one would use without this crate. Half of the
//! questions hit. Criterion's means, one contestant after the other; `ratios` compares within the same rounds.
#![allow(missing_docs, reason = "criterion's macros")]

use core::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trustkeep::NodeId;
use trustkeep_benches::peers::maps::{
    Bare, Dash, Handle, ImblHash, ImblOrd, LeftRight, Map, Papaya, ParkingLot, Reader, Rpds, Scc, Shared, StdLock,
    Swapped,
};
use trustkeep_benches::workload::{Mix, questions, questions_for};

/// One size: its group, and what is asked.
struct Size<'a, 'b> {
    group: &'a mut BenchmarkGroup<'b, WallTime>,
    size: u32,
    questions: &'a [NodeId],
}

impl Size<'_, '_> {
    fn of<M: Map>(&mut self) {
        let map = M::filled(self.size);
        self.reader(M::NAME, map.reader());
    }

    fn reader(&mut self, name: &str, mut reader: impl Reader) {
        self.group.bench_function(BenchmarkId::new(name, self.size), |bencher| {
            bencher.iter(|| self.questions.iter().filter(|peer| reader.contains(black_box(**peer))).count());
        });
    }
}

fn membership(criterion: &mut Criterion) {
    for size in [100u32, 10_000, 1_000_000] {
        let questions = questions(size, Mix::Half, questions_for(size, true), 1);
        let mut group = criterion.benchmark_group("membership");
        group.throughput(Throughput::Elements(questions.len() as u64));
        group.sample_size(10);
        let mut of = Size { group: &mut group, size, questions: &questions };
        let Handle(store) = Handle::filled(size);
        of.reader(Handle::NAME, store.reader());
        of.reader(Shared::NAME, Shared(&store).reader());
        drop(store);
        of.of::<Bare>();
        of.of::<ParkingLot>();
        of.of::<StdLock>();
        of.of::<Dash>();
        of.of::<Papaya>();
        of.of::<Scc>();
        of.of::<LeftRight>();
        of.of::<Swapped<ImblHash>>();
        of.of::<Swapped<ImblOrd>>();
        of.of::<Swapped<Rpds>>();
        group.finish();
    }
}

criterion_group!(benches, membership);
criterion_main!(benches);
