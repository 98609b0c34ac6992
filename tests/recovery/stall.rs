//! A save that hangs in fsync.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use trustkeep::testing::sim_disk::{Call, SimDisk};

use super::{contents, id, open, record, records};

#[test]
fn ten_thousand_reads_and_grants_finish_while_one_save_hangs() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    // The save hangs until it is released: whatever finishes before that did not wait for it, however slow this machine.
    let (entered, hanging) = channel();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    disk.on_sync(move || {
        // After the first save the other ends are gone and neither call blocks.
        let _ = entered.send(());
        let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(120));
    });
    let first = store.grant(record(1)).unwrap();
    hanging.recv().unwrap();
    let syncs = |disk: &SimDisk| disk.log().iter().filter(|call| matches!(call, Call::Sync | Call::SyncData)).count();
    let before = syncs(&disk);

    let mut reader = store.reader();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..10_000 {
                assert!(reader.is_trusted(id(1)), "read {number}");
            }
        });
        scope.spawn(|| {
            for number in 2..=10_001 {
                let receipt = store.grant(record(number)).unwrap();
                assert!(!receipt.is_durable());
            }
        });
    });
    assert_eq!(contents(&store), records(1..=10_001), "visible at once");
    assert_eq!(store.durable_generation().get(), 0, "and all of that while the save hangs");
    assert_eq!(store.health().changes_at_risk, 10_001);
    assert!(!first.is_durable());
    assert_eq!(syncs(&disk), before);

    release.send(()).unwrap();
    drop((release, hanging));
    assert_eq!(store.flush().unwrap().get(), 10_001);
    assert!(first.is_durable());
    // All of the rest is too much for what is left of the first journal: it begins a second one.
    assert_eq!(
        syncs(&disk),
        before + 3,
        "one sync covers all that was published meanwhile, one marks the full journal"
    );
}
