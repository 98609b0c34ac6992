//! What the keeper does for the memory of published states, beside their writers.
//!
//! What must hold: it takes the writer lock for some microseconds at a time, and frees and maps memory outside of it.
#![forbid(unsafe_code)]

use super::{Shared, Version};
use crate::sync::Arc;
use crate::tables::Tables;

impl Shared {
    /// Frees old versions that nobody holds any more, outside the lock; returns whether to come again without being rung.
    pub(crate) fn sweep(&self) -> bool {
        let mut superseded = core::mem::take(&mut self.core.lock().superseded);
        superseded.free(SWEEP_AT_MOST);
        let (again, tables) = {
            let mut core = self.core.lock();
            core.superseded.put_back(superseded);
            core.asleep = core.superseded.len() == 0 && core.generation == core.picked_up;
            // Who changes something rings, or has been told that the keeper comes by itself.
            (core.superseded.len() > 0 || self.volatile && !core.asleep, Arc::clone(&core.tables))
        };
        tables.trusted.sweep();
        again
    }

    /// Gives memory to the system that was not needed since the last time; returns whether there may be more next time.
    pub(crate) fn trim(&self) -> bool {
        let tables = Arc::clone(&self.core.lock().tables);
        tables.trusted.trim()
    }

    /// Moves the trusted records closer together if their memory is used sparsely: a few at a time, each time as a version
    /// of its own with the same contents, which `moved` is told too. Ends early when something changes. True if anything
    /// was moved: what that left behind is still to be freed.
    pub(crate) fn gather(&self, mut moved: impl FnMut(u64, &Tables)) -> bool {
        let (before, generation) = {
            let core = self.core.lock();
            (core.tables.trusted.clone(), core.generation)
        };
        let Some(places) = before.begin_move(WORTH_BYTES) else { return false };
        for some in places.chunks(MOVED_AT_ONCE) {
            let mut core = self.core.lock();
            let next = if core.generation == generation { core.tables.trusted.moved(some) } else { None };
            let Some(trusted) = next else { break };
            let tables = Arc::new(Tables { trusted, ..Tables::clone(&core.tables) });
            let version = Arc::new(Version::of(core.version.generation, &tables));
            self.cell.store(Arc::clone(&version));
            let old = core::mem::replace(&mut core.version, version);
            let old_tables = core::mem::replace(&mut core.tables, Arc::clone(&tables));
            core.superseded.push(Some(old), old_tables, some.len());
            drop(core);
            moved(generation, &tables);
        }
        before.end_move();
        true
    }
}

/// A sweep looks at no more than so many of the old versions that are held, which takes some milliseconds: the keeper has
/// saves to make. With more of them, more sweeps see all.
const SWEEP_AT_MOST: usize = 64 << 10;
/// Nodes are moved so many at a time, which takes some tens of microseconds: a writer waits for no more than that. Models
/// move few, so that a change can come between.
const MOVED_AT_ONCE: usize = if cfg!(trustkeep_loom) { 2 } else { 32 };
/// For less nothing is moved. Models have little.
const WORTH_BYTES: usize = if cfg!(trustkeep_loom) { 0 } else { 1 << 20 };
