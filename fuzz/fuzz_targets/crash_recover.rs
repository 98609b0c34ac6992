//! Any run of changes, faults, closings and reopenings, then a crash at any call, then another one while recovering: what
//! opens is one generation that was published, none older than acknowledged.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trustkeep::testing::sim_disk::{Fault, SimDisk};
use trustkeep::{NodeId, RecoverPolicy, TrustRecord, TrustStore};

#[derive(Arbitrary, Debug)]
struct Input {
    ahead_bytes: u8,
    journal_bytes: u8,
    write_bytes: u8,
    settles: bool,
    steps: Vec<Step>,
    crash: u16,
    again: u16,
    seed: u64,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    /// Grants some peers and revokes others in one change.
    Change {
        first: u8,
        grants: u8,
        revokes: u8,
    },
    /// Waits until all of that is durable.
    Flush,
    /// The call that many calls from now fails.
    Fail {
        calls: u8,
        errno: bool,
    },
    Reopen,
}

type Contents = BTreeMap<u32, TrustRecord>;

fn contents(store: &TrustStore) -> Contents {
    store.snapshot().iter().map(|record| (record.node_id.get(), record)).collect()
}

fn open(disk: &SimDisk, input: &Input) -> Result<TrustStore, trustkeep::OpenError> {
    TrustStore::options()
        .recover(RecoverPolicy::Fail)
        .journal_sizes(u64::from(input.ahead_bytes) * 16, u64::from(input.journal_bytes) * 32)
        .settle_after(input.settles.then_some(Duration::ZERO))
        .open_storage(Arc::new(disk.clone()))
}

fuzz_target!(|input: Input| {
    let disk = SimDisk::new();
    disk.set_write_bytes_max(Some(64 + 16 * usize::from(input.write_bytes)));
    disk.record();
    let mut store = open(&disk, &input).expect("a disk without faults");
    disk.acknowledge(0);
    let mut states = BTreeMap::from([(0, contents(&store))]);
    for (number, step) in input.steps.iter().take(24).enumerate() {
        match *step {
            Step::Change { first, grants, revokes } => {
                let peer = |offset: u8| NodeId::new(1 + u32::from(first) + u32::from(offset)).unwrap();
                let (_, receipt) = store
                    .update(|batch| {
                        for offset in 0..grants {
                            batch.forget_revocation(peer(offset));
                            let _ = batch.grant(TrustRecord::new(peer(offset), None).network(number as u16));
                        }
                        for offset in 0..revokes % 16 {
                            batch.revoke(peer(offset));
                        }
                    })
                    .expect("an open store");
                states.insert(receipt.generation().get(), contents(&store));
            }
            Step::Flush => {
                // The first attempt may meet the fault; it passes by itself.
                if let Ok(generation) = store.flush().or_else(|_| store.flush()) {
                    disk.acknowledge(generation.get());
                }
            }
            Step::Fail { calls, errno } => {
                let call = disk.calls() + usize::from(calls);
                disk.set_fault(Some(Fault { call, sticky: false, errno: if errno { 5 } else { 28 } }));
            }
            Step::Reopen => {
                let generation = store.close().or_else(|_| store.close()).expect("close rides one fault out");
                disk.acknowledge(generation.get());
                drop(store);
                disk.set_fault(None);
                store = open(&disk, &input).expect("what was closed opens");
                assert_eq!(store.generation(), generation);
            }
        }
    }
    drop(store);
    disk.set_fault(None);
    let check = |store: &TrustStore, acknowledged: Option<u64>| {
        let generation = store.generation().get();
        assert!(acknowledged.is_none_or(|acknowledged| generation >= acknowledged), "an acknowledged change is lost");
        assert_eq!(Some(&contents(store)), states.get(&generation), "a state that never was");
        generation
    };
    let trail = disk.take_trail();
    let point = &trail[usize::from(input.crash) % trail.len()];
    point.images(5, input.seed, &mut |image| {
        let disk = SimDisk::from_image(image);
        disk.record();
        let store = open(&disk, &input).expect("what a crash leaves opens");
        let generation = check(&store, point.acknowledged);
        // What was shown once stays, whatever happens then.
        disk.crash_point().images(3, input.seed, &mut |image| {
            check(&open(&SimDisk::from_image(image), &input).expect("opens again"), Some(generation));
        });
        drop(store);
        let trail = disk.take_trail();
        if let Some(second) = trail.get(usize::from(input.again) % trail.len().max(1)) {
            second.images(3, input.seed, &mut |image| {
                check(&open(&SimDisk::from_image(image), &input).expect("opens after two crashes"), point.acknowledged);
            });
        }
    });
});
