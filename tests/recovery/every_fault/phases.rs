//! The life of a store in phases, each on a disk of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use trustkeep::testing::sim_disk::{Call, SimDisk, Verdict};

use super::super::{Contents, record};
use super::run::{QUIET, REPAIRING, ROTATING, Run, SETTLING, Setup, Step};

const EIO: i32 = 5;
/// Where the groups of a journal begin.
const GROUPS_AT: usize = 1024;

pub(super) struct Phase {
    pub(super) name: &'static str,
    pub(super) setup: Setup,
    /// Makes the disk; the states that may be found on it, and how many of them were acknowledged.
    pub(super) prepare: fn() -> Before,
    pub(super) steps: &'static [Step],
    /// Calls that it makes at least, by lane.
    pub(super) makes: [&'static [Call]; 2],
    /// Cases that it has at least.
    pub(super) cases_min: usize,
}

/// A disk, and the states published on it, of which the first is acknowledged.
pub(super) struct Before {
    pub(super) disk: SimDisk,
    pub(super) published: Vec<(u64, Contents)>,
}

pub(super) fn prepared(disk: &SimDisk, setup: Setup, steps: &[Step]) -> Run {
    let mut run = Run::new(disk.clone(), setup, Vec::new(), None);
    steps.iter().for_each(|step| run.take(*step));
    run
}

impl Before {
    pub(super) fn after(steps: &[Step]) -> Self {
        let disk = SimDisk::new();
        let Run { mut published, .. } = prepared(&disk, ROTATING, steps);
        Self { disk, published: published.split_off(published.len() - 1) }
    }

    /// The same, and then a change fails in the way that `judge` says, and the process ends.
    pub(super) fn killed(
        setup: Setup,
        steps: &[Step],
        judge: impl Fn(Call) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let disk = SimDisk::new();
        let mut run = prepared(&disk, setup, steps);
        disk.judge(judge);
        let store = run.store.take().unwrap();
        let mut published = run.published.split_off(run.published.len() - 1);
        let lost = store.grant(record(900)).unwrap();
        let mut known = published[0].1.clone();
        known.insert(900, record(900));
        published.push((lost.generation().get(), known));
        drop(store);
        assert!(!lost.is_durable());
        disk.judge(|_| Verdict::Done);
        Self { disk, published }
    }
}

pub(super) const BEGUN: &[Step] =
    &[Step::Open, Step::GrantAll(1, 20), Step::Acknowledge, Step::Grant(21), Step::Acknowledge];
/// Two snapshots and two journals, and the store open again.
pub(super) const GROWN: &[Step] = &[
    Step::Open,
    Step::GrantAll(1, 20),
    Step::Acknowledge,
    Step::Grant(21),
    Step::Acknowledge,
    Step::Close,
    Step::Open,
];
/// The same, closed.
pub(super) const RESTARTED: &[Step] =
    &[Step::Open, Step::GrantAll(1, 20), Step::Acknowledge, Step::Grant(21), Step::Acknowledge, Step::Close];

pub(super) const LIVE: &[Step] = &[Step::Open, Step::Grant(50), Step::Acknowledge, Step::Close];

/// Nothing works from the first such call on.
pub(super) fn dies_at(at: Call) -> impl Fn(Call) -> Verdict + Send + Sync + 'static {
    let dead = AtomicBool::new(false);
    move |call| {
        if call == at {
            dead.store(true, Ordering::SeqCst);
        }
        if dead.load(Ordering::SeqCst) { Verdict::Fails(EIO) } else { Verdict::Done }
    }
}

pub(super) fn damaged(of: &str) -> Before {
    let mut before = Before::after(RESTARTED);
    let image = before.disk.live_image();
    let (name, bytes) = image.iter().rfind(|(name, _)| name.starts_with(of)).unwrap();
    let mut bytes = bytes.clone();
    let end = if of == "snapshot-" { bytes.len() - 1 } else { GROUPS_AT + 20 };
    bytes[end] ^= 1;
    before.disk.put(name, &bytes);
    if of == "journal-" {
        // Nothing is left of the group in it.
        let (generation, contents) = &mut before.published[0];
        *generation -= 1;
        contents.remove(&21);
    }
    before
}

pub(super) fn phases() -> Vec<Phase> {
    use Call::{Create, List, Read, Remove, Rename, Sync, SyncData, SyncDir, Write};
    let live =
        |name, prepare, makes| Phase { name, setup: QUIET, prepare, steps: LIVE, makes: [makes, &[]], cases_min: 120 };
    vec![
        Phase {
            steps: &[Step::Open, Step::Grant(1), Step::Acknowledge, Step::Close],
            cases_min: 180,
            ..live(
                "create",
                || Before { disk: SimDisk::new(), published: vec![(0, Contents::new())] },
                &[List, Create, Write, Sync, Rename, SyncDir, SyncData],
            )
        },
        Phase {
            steps: &[
                Step::Open,
                Step::GrantAll(30, 33),
                Step::Acknowledge,
                Step::Revoke(3),
                Step::Acknowledge,
                Step::Grant(34),
                Step::Acknowledge,
                Step::Revoke(31),
                Step::Close,
            ],
            cases_min: 180,
            ..live(
                "changes",
                || Before::after(RESTARTED),
                &[List, Read, Create, Write, Sync, Rename, SyncDir, SyncData],
            )
        },
        Phase {
            // The journals have outgrown the snapshot: the second change begins another journal, and a snapshot.
            steps: &[
                Step::Open,
                Step::GrantAll(100, 140),
                Step::Acknowledge,
                Step::Grant(50),
                Step::Acknowledge,
                Step::Revoke(50),
                Step::Acknowledge,
                Step::Close,
            ],
            setup: ROTATING,
            cases_min: 300,
            makes: [&[Create, Write, Sync, Rename, SyncDir, SyncData], &[Create, Write, Sync, Rename, SyncDir, Remove]],
            ..live("snapshot", || Before::after(RESTARTED), &[])
        },
        Phase {
            steps: &[
                Step::Open,
                Step::GrantAll(30, 33),
                Step::Acknowledge,
                Step::Grant(34),
                Step::Acknowledge,
                Step::Settle,
                Step::Grant(35),
                Step::Acknowledge,
                Step::Settle,
                Step::Close,
            ],
            setup: SETTLING,
            cases_min: 180,
            ..live("idle", || Before::after(RESTARTED), &[List, Read, Create, Write, Sync, Rename, SyncDir, SyncData])
        },
        live("reopen", || Before::after(RESTARTED), &[List, Read, SyncDir, Create, Write, Sync, Rename, SyncData]),
        live(
            "killed in a sync",
            || Before::killed(QUIET, BEGUN, dies_at(SyncData)),
            &[List, Read, SyncDir, Create, Write, Sync, Rename],
        ),
        live(
            "killed in a write",
            || {
                let writes = AtomicUsize::new(0);
                let mut before = Before::killed(QUIET, BEGUN, move |call| match call {
                    Write if writes.fetch_add(1, Ordering::SeqCst) == 0 => Verdict::Takes(30),
                    _ => Verdict::Fails(EIO),
                });
                // Half a group is none.
                before.published.truncate(1);
                before
            },
            &[List, Read, SyncDir, Create, Write, Sync, Rename],
        ),
        live(
            "killed in the first save",
            || Before::killed(ROTATING, GROWN, dies_at(SyncDir)),
            &[List, Read, SyncDir, Create, Write, Sync, Rename, Remove],
        ),
        live(
            "killed with leftovers",
            || {
                let mut before = Before::killed(ROTATING, GROWN, dies_at(Sync));
                // What was not yet synced has a name that nobody looks for.
                before.published.truncate(1);
                before
            },
            &[List, Read, SyncDir, Create, Write, Sync, Rename, Remove],
        ),
        Phase {
            setup: REPAIRING,
            ..live("repair, nothing lost", || damaged("snapshot-"), &[List, Read, Rename, SyncDir])
        },
        Phase {
            setup: REPAIRING,
            ..live("repair, newest change lost", || damaged("journal-"), &[List, Read, Rename, SyncDir, Create])
        },
        Phase {
            steps: &[Step::Compact],
            ..live("compact", || Before::after(RESTARTED), &[List, Read, Create, Write, Sync, Rename, SyncDir, Remove])
        },
    ]
}
