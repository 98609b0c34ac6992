//! Every call of the life of a store, with every error, once and until the disk is healed.
//!
//! A phase prepares a disk and then goes through steps, first undisturbed, to see which calls it makes, then once for
//! every call, error and duration. The thread that writes snapshots has a lane of its own, so that the number of a call
//! says the same in every run.
//!
//! What must hold each time: changes are accepted and read in memory; whoever waits is told of the error; `health` says
//! since when, why, and how much is at risk; a crash at that moment leaves a published state, none older than
//! acknowledged; once the disk is healed everything becomes durable by itself; no file is touched again after a write or
//! a sync of it failed.
//!
//! `TRUSTKEEP_FAULT_IMAGES` sets how many outcomes of a crash are looked at each time (default 3).

mod phases;
mod run;
mod weather;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use trustkeep::testing::sim_disk::{Call, Verdict};

use super::in_parallel;
use phases::{Before, Phase, phases};
use run::Run;
use weather::{Case, EINTR, Lane, Lasts};

/// EINTR, EIO, ENOSPC, EROFS, EDQUOT.
const ERRNOS: [i32; 5] = [EINTR, 5, 28, 30, 122];

/// The calls of a phase when nothing goes wrong.
fn calls_of(phase: &Phase) -> Vec<(Lane, Call)> {
    let Before { disk, published } = (phase.prepare)();
    let mut run = Run::new(disk, phase.setup, published, None);
    phase.steps.iter().for_each(|step| run.take(*step));
    run.store = None;
    let calls = run.weather.calls.lock().unwrap().clone();
    run.end();
    calls
}

/// Every call with every error and duration.
fn cases_of(phase: &Phase) -> Vec<Case> {
    let calls = calls_of(phase);
    let mut cases = Vec::new();
    for lane in [Lane::Main, Lane::Snapshot] {
        let calls: Vec<Call> = calls.iter().filter(|(of, _)| *of == lane).map(|(_, call)| *call).collect();
        let made: BTreeSet<Call> = calls.iter().copied().collect();
        assert!(phase.makes[lane as usize].iter().all(|call| made.contains(call)), "{}: {calls:?}", phase.name);
        for (index, call) in calls.into_iter().enumerate() {
            let short = if call == Call::Write { &[Verdict::Takes(0), Verdict::Takes(100)][..] } else { &[] };
            for verdict in ERRNOS.map(Verdict::Fails).into_iter().chain(short.iter().copied()) {
                for lasts in [Lasts::Once, Lasts::UntilHealed, Lasts::InItsLane] {
                    if lasts != Lasts::InItsLane || lane == Lane::Snapshot {
                        cases.push(Case { lane, index, call, verdict, lasts });
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn every_call_with_every_error_loses_nothing_is_reported_and_heals() {
    let mut all = 0;
    for phase in phases() {
        let cases = cases_of(&phase);
        let (told, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let started = std::time::Instant::now();
        in_parallel(&cases, 32, |case| {
            let outcome = std::panic::catch_unwind(|| {
                let Before { disk, published } = (phase.prepare)();
                let mut run = Run::new(disk, phase.setup, published, Some(*case));
                phase.steps.iter().for_each(|step| run.take(*step));
                assert!(run.weather.hits.load(Ordering::SeqCst) > 0, "nothing went wrong");
                run.end();
                told.fetch_add(usize::from(run.told > 0), Ordering::SeqCst);
            });
            if outcome.is_err() {
                failed.lock().unwrap().push(*case);
            }
        });
        let failed = failed.into_inner().unwrap();
        assert!(failed.is_empty(), "{}: {} of {} cases: {failed:?}", phase.name, failed.len(), cases.len());
        let told = told.into_inner();
        println!("{}: {} cases, {told} of them told, {:?}", phase.name, cases.len(), started.elapsed());
        assert!(cases.len() >= phase.cases_min && told > 0, "{}: {}", phase.name, cases.len());
        all += cases.len();
    }
    assert!(all >= 2000, "{all} cases");
}
