//! A proxy's workers ask for every packet, while a control thread grants and revokes.
//!
//! Each worker has a `TrustReader` of its own and never waits for the control thread or the disk. The control thread
//! tells its client only what is durable. At the end everything is closed in order, and what the workers saw is checked.
//!
//! `cargo run --example embed_in_proxy`
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::disallowed_types, reason = "a program of its own")]

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use trustkeep::{NodeId, TrustReader, TrustRecord, TrustStore};

const WORKERS: usize = 2;
const CUSTOMERS: u32 = 200;

/// What a worker did with the packets that it was given.
#[derive(Default)]
struct Tally {
    forwarded: u64,
    dropped: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("trustkeep-proxy-{}", std::process::id()));
    let store = TrustStore::open(&dir)?;
    let shutting_down = AtomicBool::new(false);

    let tallies = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let reader = store.reader();
                scope.spawn(|| forward_packets(reader, &shutting_down))
            })
            .collect();
        let controlled = control(&store);
        // ORDERING: Release, pairs with the workers' Acquire load: a worker that stops has seen every change.
        shutting_down.store(true, Ordering::Release);
        let tallies: Option<Vec<Tally>> = workers.into_iter().map(|worker| worker.join().ok()).collect();
        controlled?;
        tallies.ok_or_else(|| "a worker panicked".into())
    })
    .map_err(|error: Box<dyn Error>| error)?;

    let last = store.close()?;
    println!("closed at generation {last}, everything durable");
    for (number, Tally { forwarded, dropped }) in tallies.iter().enumerate() {
        println!("worker {number}: forwarded {forwarded}, dropped {dropped}");
        assert!(*forwarded > 0 && *dropped > 0);
    }

    // After a restart the odd customers are still trusted, and the even ones still are not.
    drop(store);
    let store = TrustStore::open(&dir)?;
    for customer in 1..=CUSTOMERS {
        assert_eq!(store.is_trusted(id(customer)?), customer % 2 == 1, "customer {customer}");
    }
    drop(store);
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn id(number: u32) -> Result<NodeId, trustkeep::InvalidNodeId> {
    NodeId::new(number).ok_or(trustkeep::InvalidNodeId)
}

/// Grants everybody, then revokes the even ones.
fn control(store: &TrustStore) -> Result<(), Box<dyn Error>> {
    for customer in 1..=CUSTOMERS {
        // Visible to the workers at once. Nobody waits here: the next save takes all that has gathered.
        let _receipt = store.grant(TrustRecord::new(id(customer)?, None))?;
    }
    store.flush()?;
    let mut last = None;
    for customer in (2..=CUSTOMERS).step_by(2) {
        last = Some(store.revoke(id(customer)?)?.receipt);
    }
    // One wait covers all of them.
    if let Some(receipt) = last {
        receipt.wait_durable()?;
    }
    Ok(())
}

/// Stands for the loop that takes packets off the network.
fn forward_packets(mut trust: TrustReader, shutting_down: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    loop {
        // ORDERING: Acquire, pairs with the Release store in `main`. Read before the round, so that one whole round
        // comes after the last change.
        let last_round = shutting_down.load(Ordering::Acquire);
        for sender in (1..=CUSTOMERS).filter_map(NodeId::new) {
            let trusted = trust.is_trusted(sender);
            if trusted {
                tally.forwarded += 1;
            } else {
                tally.dropped += 1;
            }
            if last_round {
                assert_eq!(trusted, sender.get() % 2 == 1, "a worker that missed a change: {sender}");
            }
        }
        if last_round {
            return tally;
        }
    }
}
