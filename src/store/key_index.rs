//! Which peers are trusted, as a table of ids that is changed in place: what `TrustStore::is_trusted` asks, which has no
//! handle that would remember a version.
//!
//! One lookup is one cache line as a rule: an id's line is chosen by its place (see [`Mix`]), and a line holds 15 ids and,
//! in its last half word, how many ids passed it by because it was full. Readers look at single words; only the writer,
//! under the writer lock, stores them.
//!
//! INVARIANT I-X1: whenever the writer lock is free, the table that answers holds exactly the ids of the trusted records.
//! What is revoked is taken out before the new version is published, what is granted is put in afterwards: of the two, the
//! index is never the more trusting (C-9 in `docs/concurrency.md`).
//! INVARIANT I-X2: an id stands in a table at most once, and never moves within it; every line on the way from its own line
//! to where it stands counts it.
//! INVARIANT I-X3: while a larger table is being filled, every change goes to both; the larger one answers only when it has
//! everything. A table that has answered once stays for as long as the store, for a reader may still be looking at it: all
//! outgrown ones together are no larger than the one that answers.
#![forbid(unsafe_code)]

#[cfg(all(test, not(trustkeep_loom)))]
mod tests;

use crate::halves::has_half;
use crate::map::mix::Mix;
use crate::peer::NodeId;
use crate::sync::{AtomicU64, Line, Lines, OnceLock, Ordering, WORDS_PER_LINE, Word};

/// The part that readers share with the writer.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    mix: Mix,
    /// Which table answers; [`TABLES_MAX`] for none.
    current: AtomicU64,
    tables: [OnceLock<Lines>; TABLES_MAX],
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
        if index.allocate(0, (len / IDS_PER_LINE + 1).max(LINES_MIN)) {
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
        let lines = self.tables.get(current)?.get()?;
        let (id, place) = (peer.get(), self.mix.mix(peer.get()));
        let (is_here, went_on) = look(lines.get(home(lines, place))?, id);
        if went_on & !is_here {
            return Some(is_further_on(lines, id, place));
        }
        Some(is_here)
    }

    fn table(&self, number: usize) -> Option<&Lines> {
        self.tables.get(number)?.get()
    }

    fn allocate(&self, number: usize, lines: usize) -> bool {
        let Some(slot) = self.tables.get(number) else { return false };
        Lines::zeroed(lines).is_some_and(|lines| slot.set(lines).is_ok())
    }
}

impl Upkeep {
    /// Takes in peers whose places ascend: line after line, without looking for them or for room. Only the lines from a
    /// peer's own one to the last that was written can have ids, and all but that last one are full.
    fn insert_all(&mut self, index: &KeyIndex, mut peers: impl Iterator<Item = (u32, NodeId)>) {
        let Some(lines) = index.table(self.current) else { return };
        let (mut last, mut used) = (0, 0);
        for (place, peer) in peers.by_ref() {
            debug_assert_eq!(place, index.mix.mix(peer.get()), "a place of another index");
            let home = home(lines, place);
            if home > last {
                (last, used) = (home, 0);
            } else if used == IDS_MAX {
                (last, used) = (last + 1, 0);
            }
            let Some(line) = lines.get(last).filter(|_| last < lines.len()) else {
                // It goes on at the first line.
                self.insert(index, peer);
                break;
            };
            for passed in (home..last).filter_map(|passed| lines.get(passed)) {
                count(passed, 1);
            }
            if let Some(word) = line.get(used / 2) {
                let id = peer.get();
                change(word, |low, high| if used % 2 == 0 { (id, high) } else { (low, id) });
            }
            used += 1;
            self.len += 1;
        }
        peers.for_each(|(_, peer)| self.insert(index, peer));
    }

    /// Takes the peer in; no effect if it is there.
    pub(crate) fn insert(&mut self, index: &KeyIndex, peer: NodeId) {
        let (id, place) = (peer.get(), index.mix.mix(peer.get()));
        let Some(current) = index.table(self.current) else { return };
        if self.filled.is_none() && self.len >= current.len() * IDS_PER_LINE {
            // Without memory for a larger one, the present one fills up first.
            self.filled = index.allocate(self.current + 1, current.len() * 2).then_some(0);
        }
        match put(current, id, place) {
            Put::In => self.len += 1,
            Put::WasThere => {}
            Put::Full => return self.give_up(index),
        }
        if self.filled.is_some()
            && let Some(next) = index.table(self.current + 1)
        {
            if matches!(put(next, id, place), Put::Full) {
                return self.give_up(index);
            }
            self.fill(index, current, next);
        }
    }

    /// Takes the peer out; no effect if it is not there.
    pub(crate) fn remove(&mut self, index: &KeyIndex, peer: NodeId) {
        let (id, place) = (peer.get(), index.mix.mix(peer.get()));
        let Some(current) = index.table(self.current) else { return };
        if take_out(current, id, place) {
            self.len -= 1;
        }
        if self.filled.is_some()
            && let Some(next) = index.table(self.current + 1)
        {
            take_out(next, id, place);
            self.fill(index, current, next);
        }
    }

    /// Brings some more lines over into the next table; has it answer when it has all. A few lines a change: no change
    /// waits for a whole table, and a table of n lines is filled by n / 16 changes, long before the present one is full.
    fn fill(&mut self, index: &KeyIndex, current: &Lines, next: &Lines) {
        let Some(filled) = &mut self.filled else { return };
        for _ in 0..LINES_PER_CHANGE {
            let Some(line) = current.get(*filled) else { break };
            for id in ids(line).filter(|id| *id != 0) {
                if matches!(put(next, id, index.mix.mix(id)), Put::Full) {
                    return self.give_up(index);
                }
            }
            *filled += 1;
        }
        if *filled >= current.len() {
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

/// The lines from an id's own one on, around the end, each once, with their numbers.
fn way(lines: &Lines, place: u32) -> impl Iterator<Item = (usize, &Line)> {
    let home = home(lines, place);
    (home..lines.len()).chain(0..home).filter_map(|number| Some((number, lines.get(number)?)))
}

/// The line on which an id stands.
fn find(lines: &Lines, id: u32, place: u32) -> Option<usize> {
    for (number, line) in way(lines, place) {
        let (is_here, went_on) = look(line, id);
        if is_here {
            return Some(number);
        }
        if !went_on {
            break;
        }
    }
    None
}

/// Whether the id stands anywhere on its way.
#[cold]
#[inline(never)]
fn is_further_on(lines: &Lines, id: u32, place: u32) -> bool {
    find(lines, id, place).is_some()
}

/// Whether the id stands on this line, and whether any id passed it by. No branch.
#[inline(always)]
fn look(line: &Line, id: u32) -> (bool, bool) {
    let [a, b, c, d, e, f, g, last] = line;
    // ORDERING: Acquire, pairs with the Release stores of `replace` (C-9): who finds a peer here finds it in the
    // published version too.
    let read = |word: &Word| word.load(Ordering::Acquire);
    let last = read(last);
    // No id is 0, so the count is out of the way.
    let words = [read(a), read(b), read(c), read(d), read(e), read(f), read(g), low(last).into()];
    (has_half(&words, id), high(last) != 0)
}

/// The ids on a line, 0 where there is none. For the writer.
fn ids(line: &Line) -> impl Iterator<Item = u32> {
    // ORDERING: Relaxed (C-9); only the writer stores, under the writer lock.
    let words = line.iter().map(|word| word.load(Ordering::Relaxed));
    words.flat_map(|word| [low(word), high(word)]).take(IDS_MAX)
}

fn put(lines: &Lines, id: u32, place: u32) -> Put {
    if find(lines, id, place).is_some() {
        return Put::WasThere;
    }
    let Some(free) = way(lines, place).find(|(_, line)| ids(line).any(|other| other == 0)).map(|(number, _)| number)
    else {
        return Put::Full;
    };
    for (number, line) in way(lines, place) {
        if number == free {
            replace(line, 0, id);
            break;
        }
        count(line, 1);
    }
    Put::In
}

fn take_out(lines: &Lines, id: u32, place: u32) -> bool {
    let Some(at) = find(lines, id, place) else { return false };
    for (number, line) in way(lines, place) {
        if number == at {
            replace(line, id, 0);
            break;
        }
        count(line, u32::MAX);
    }
    true
}

/// Replaces the first `old` on this line.
fn replace(line: &Line, old: u32, new: u32) {
    let Some(at) = ids(line).position(|id| id == old) else { return };
    if let Some(word) = line.get(at / 2) {
        change(word, |low, high| if at % 2 == 0 { (new, high) } else { (low, new) });
    }
}

/// Adds to the number of ids that passed this line by; `u32::MAX` is one less.
fn count(line: &Line, more: u32) {
    let [.., last] = line;
    change(last, |low, high| (low, high.wrapping_add(more)));
}

fn change(word: &Word, next: impl Fn(u32, u32) -> (u32, u32)) {
    // ORDERING: Relaxed (C-9); only the writer stores, under the writer lock, so nothing comes between this and the store,
    // and the half that stays is stored again as it is.
    let now = word.load(Ordering::Relaxed);
    let (low, high) = next(low(now), high(now));
    // ORDERING: Release, pairs with the Acquire loads of `look` (C-9).
    word.store(u64::from(high) << u32::BITS | u64::from(low), Ordering::Release);
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
const fn low(word: u64) -> u32 {
    word as u32
}

const fn high(word: u64) -> u32 {
    (word >> u32::BITS) as u32
}

/// Ids that fit on a line; the last half word is the count.
const IDS_MAX: usize = 2 * WORDS_PER_LINE - 1;
/// Ids a line has on average when the next table is begun: two thirds full, and one line in twenty has passed any by.
const IDS_PER_LINE: usize = 10;
/// One page.
const LINES_MIN: usize = 64;
const LINES_PER_CHANGE: usize = 16;
/// Each is twice as large as the one before: more than can ever be needed.
const TABLES_MAX: usize = 32;
