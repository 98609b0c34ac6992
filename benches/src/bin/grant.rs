//! What a grant takes in memory, one by one and a thousand at once, by how many records there are.
//!
//! `grant [--records N] [--rounds 7] [--grants 100000]`; without `--records` for 300, 10 k and 1 M. Prints one line for each:
//! nanoseconds a grant, median and spread of the rounds. Grants are of records that are there and change them, all but a few
//! in a thousand at most, so each publishes; peers are drawn at random.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement: it prints, and stops when something does not hold"
)]

use trustkeep::{TrustRecord, TrustStore};
use trustkeep_benches::arguments::Arguments;
use trustkeep_benches::figure::{Side, Unit};
use trustkeep_benches::rounds::{alternate, mean};
use trustkeep_benches::workload::{Random, fill, record};

const USAGE: &str = "grant [--records N] [--rounds 7] [--grants 100000]";
const AT_ONCE: usize = 1000;

fn main() {
    let arguments = Arguments::of_process(USAGE, &["--records", "--rounds", "--grants"], &[]);
    let rounds = arguments.number("--rounds", 7, 1) as usize;
    let grants = arguments.number("--grants", 100_000, 1) as usize;
    let sizes = match arguments.number("--records", 0, 0) {
        0 => vec![300, 10_000, 1_000_000],
        records => vec![records],
    };
    let key = trustkeep_benches::key();
    for records in sizes {
        let store = TrustStore::in_memory();
        fill(&store, records);
        let (mut random, mut network) = (Random::new(1), 0u16);
        let mut changes = || -> Vec<TrustRecord> {
            // The same peer seldom comes again with the same network.
            let mut next = || {
                network = network % 60_000 + 2;
                record(random.below(records), key, network)
            };
            (0..grants).map(|_| next()).collect()
        };
        let contents: Vec<_> = (0..2 * (rounds + 1)).map(|_| changes()).collect();
        let mut contents = contents.iter();
        let mut other = contents.clone().rev();
        let [single, together] = alternate(
            rounds,
            [
                &mut || {
                    let changes = contents.next().unwrap();
                    let before = store.generation().get();
                    let figure = mean(grants, || changes.iter().for_each(|change| drop(store.grant(*change).unwrap())));
                    let published = (store.generation().get() - before) as usize;
                    assert!(published + 1 + grants / 1000 > grants, "{published} of {grants} were changes");
                    figure
                },
                &mut || {
                    let changes = other.next().unwrap();
                    mean(grants, || {
                        for some in changes.chunks(AT_ONCE) {
                            let granted = |batch: &mut trustkeep::Batch<'_>| {
                                some.iter().all(|change| batch.grant(*change).is_ok())
                            };
                            assert!(store.update(granted).unwrap().0);
                        }
                    })
                },
            ],
        );
        for (what, figures) in [("one by one", single), ("1000 at once", together)] {
            let side = Side::new(what, Unit::Nanos, figures);
            println!("{records}\t{what}\t{}", side.show());
        }
    }
}
