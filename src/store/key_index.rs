//! Which peers are trusted, as a table of ids that is changed in place: what `TrustStore::is_trusted` asks, which has no
//! handle that would remember a version.
//!
//! One lookup is one cache line as a rule: an id's line is chosen by its place (see [`Mix`]). A line holds 15 ids, or in a
//! large table 31 remainders of places, and how many ids went elsewhere because it was full. Readers look at single words;
//! only the writer, under the writer lock, stores them.
//!
//! INVARIANT I-X1: whenever the writer lock is free, the table that answers holds exactly the ids of the trusted records.
//! What is revoked is taken out before the new version is published, what is granted is put in afterwards: of the two, the
//! index is never the more trusting (C-9 in `docs/concurrency.md`).
//! INVARIANT I-X2: an id stands in a table at most once, and never moves within it; every line that it is not on although
//! a look for it begins there or comes by counts it, or can tell from the id alone.
//! INVARIANT I-X3: while a larger table is being filled, every change goes to both; the larger one answers only when it has
//! everything. A table that has answered once stays for as long as the store, for a reader may still be looking at it: all
//! outgrown ones together are no larger than the one that answers.
#![forbid(unsafe_code)]

mod ids;
mod remainders;
mod table;
#[cfg(all(test, not(trustkeep_loom)))]
mod tests;

use core::ops::Range;

use crate::map::mix::Mix;
use crate::peer::NodeId;
use crate::sync::{AtomicU64, Line, Lines, OnceLock, Ordering, Word};
use table::Table;

/// The part that readers share with the writer.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    mix: Mix,
    /// Which table answers; [`TABLES_MAX`] for none.
    current: AtomicU64,
    tables: [OnceLock<Table>; TABLES_MAX],
}

/// The part that lies under the writer lock.
#[derive(Debug)]
pub(crate) struct Upkeep {
    current: usize,
    /// Ids in the current table.
    len: usize,
    /// How many lines of the current table the next one has, if there is a next one.
    filled: Option<usize>,
}

impl KeyIndex {
    /// The index of these peers, whose number is `len`, and whose places ascend.
    pub(crate) fn new(mix: Mix, len: usize, peers: impl Iterator<Item = (u32, NodeId)>) -> (Self, Upkeep) {
        let index = Self { mix, current: AtomicU64::new(0), tables: [const { OnceLock::new() }; TABLES_MAX] };
        let mut upkeep = Upkeep { current: 0, len: 0, filled: None };
        if index.add(0, Table::allocate_for(len)) {
            upkeep.insert_all(&index, peers);
        } else {
            upkeep.give_up(&index);
        }
        (index, upkeep)
    }

    /// Whether the peer is trusted; `None` if there was no memory for a table, ever since.
    ///
    /// No branch depends on the peer but for one that is hardly ever taken: a processor that had to guess whether the peer
    /// is there would be wrong half of the time, and would have begun nothing of what comes next.
    #[inline(always)]
    pub(crate) fn contains(&self, peer: NodeId) -> Option<bool> {
        // ORDERING: Acquire, pairs with the Release store in `Upkeep::fill` (C-9): who sees that a table answers sees all
        // that was put into it before.
        let current = usize::try_from(self.current.load(Ordering::Acquire)).ok()?;
        let table = self.tables.get(current)?.get()?;
        Some(table.contains(peer.get(), self.mix.mix(peer.get())))
    }

    fn table(&self, number: usize) -> Option<&Table> {
        self.tables.get(number)?.get()
    }

    fn add(&self, number: usize, table: Option<Table>) -> bool {
        let Some(slot) = self.tables.get(number) else { return false };
        table.is_some_and(|table| slot.set(table).is_ok())
    }
}

impl Upkeep {
    /// Takes in peers whose places ascend.
    fn insert_all(&mut self, index: &KeyIndex, peers: impl Iterator<Item = (u32, NodeId)>) {
        let Some(table) = index.table(self.current) else { return };
        let mut ids = peers.map(|(place, peer)| {
            debug_assert_eq!(place, index.mix.mix(peer.get()), "a place of another index");
            (place, peer.get())
        });
        let (left, taken) = table.fill(ids.by_ref());
        self.len += taken;
        // One goes around the end, or has no room at all.
        left.into_iter().chain(ids).for_each(|(place, id)| self.insert_at(index, id, place));
    }

    /// Takes the peer in; no effect if it is there.
    pub(crate) fn insert(&mut self, index: &KeyIndex, peer: NodeId) {
        self.insert_at(index, peer.get(), index.mix.mix(peer.get()));
    }

    fn insert_at(&mut self, index: &KeyIndex, id: u32, place: u32) {
        let Some(current) = index.table(self.current) else { return };
        if self.filled.is_none() && self.len >= current.ids_max() {
            // Without memory for a larger one, the present one fills up first.
            self.filled = index.add(self.current + 1, current.allocate_larger()).then_some(0);
        }
        match current.put(id, place) {
            Put::In => self.len += 1,
            Put::WasThere => {}
            Put::Full => return self.give_up(index),
        }
        if self.filled.is_some()
            && let Some(next) = index.table(self.current + 1)
        {
            if matches!(next.put(id, place), Put::Full) {
                return self.give_up(index);
            }
            self.fill(index, current, next);
        }
    }

    /// Takes the peer out; no effect if it is not there.
    pub(crate) fn remove(&mut self, index: &KeyIndex, peer: NodeId) {
        let (id, place) = (peer.get(), index.mix.mix(peer.get()));
        let Some(current) = index.table(self.current) else { return };
        if current.take_out(id, place) {
            self.len -= 1;
        }
        if self.filled.is_some()
            && let Some(next) = index.table(self.current + 1)
        {
            next.take_out(id, place);
            self.fill(index, current, next);
        }
    }

    /// Brings some more lines over into the next table; has it answer when it has all. A few lines a change: no change
    /// waits for a whole table, and a table of n lines is filled by n / 8 changes, long before the present one is full.
    fn fill(&mut self, index: &KeyIndex, current: &Table, next: &Table) {
        let Some(filled) = &mut self.filled else { return };
        let lines = current.lines_in_all();
        for number in (*filled..lines).take(LINES_PER_CHANGE) {
            for id in current.ids_on(number, index.mix) {
                if matches!(next.put(id, index.mix.mix(id)), Put::Full) {
                    return self.give_up(index);
                }
            }
            *filled += 1;
        }
        if *filled >= lines {
            self.filled = None;
            self.current += 1;
            // ORDERING: Release, pairs with the Acquire load in `contains` (C-9); after everything was put in.
            index.current.store(self.current as u64, Ordering::Release);
        }
    }

    /// How many tables there have been.
    #[cfg(test)]
    pub(crate) fn tables(&self) -> usize {
        self.current + 1
    }

    /// No table answers from now on: readers look at the published version instead.
    fn give_up(&mut self, index: &KeyIndex) {
        (self.current, self.filled) = (TABLES_MAX, None);
        // ORDERING: Release, pairs with the Acquire load in `contains` (C-9); nothing hangs on it but this number.
        index.current.store(TABLES_MAX as u64, Ordering::Release);
    }
}

/// What became of an id that was to be put in.
enum Put {
    In,
    WasThere,
    Full,
}

/// The number of the line that an id's way begins at.
#[inline(always)]
fn home(lines: &Lines, place: u32) -> usize {
    // Below the number of lines, which is a `usize`.
    usize::try_from((u64::from(place) * lines.len() as u64) >> u32::BITS).unwrap_or(0)
}

/// These lines with their numbers.
fn numbered(lines: &Lines, numbers: Range<usize>) -> impl Iterator<Item = (usize, &Line)> {
    numbers.filter_map(|number| Some((number, lines.get(number)?)))
}

fn change(word: &Word, next: impl Fn(u64) -> u64) {
    // ORDERING: Relaxed (C-9); only the writer stores, under the writer lock, so nothing comes between this and the store,
    // and the part that stays is stored again as it is.
    let now = word.load(Ordering::Relaxed);
    // ORDERING: Release, pairs with the Acquire loads of `ids::look` and `remainders::look` (C-9).
    word.store(next(now), Ordering::Release);
}

/// One page.
const LINES_MIN: usize = 64;
const LINES_PER_CHANGE: usize = 8;
/// Each is twice as large as the one before: more than can ever be needed.
const TABLES_MAX: usize = 32;
