//! A table of whole ids: 15 on a line, and in the line's last half word how many ids passed it by because it was full.
//!
//! INVARIANT: an id stands at most once, on its own line or on one of those behind it, around the end, and never moves; every
//! line on the way there counts it.
#![forbid(unsafe_code)]

use super::{Put, change, home, numbered};
use crate::lanes::has_half;
use crate::sync::{Line, Lines, Ordering, WORDS_PER_LINE, Word};

/// For few ids, and for those that a larger table has no room for.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) lines: Lines,
}

impl Ids {
    pub(super) fn allocate(lines: usize) -> Option<Self> {
        Lines::zeroed(lines).map(|lines| Self { lines })
    }

    /// Whether the id stands here. No branch depends on it but for one that is hardly ever taken.
    #[inline(always)]
    pub(super) fn contains(&self, id: u32, place: u32) -> bool {
        let Some(line) = self.lines.get(home(&self.lines, place)) else { return false };
        let (is_here, went_on) = look(line, id);
        if went_on & !is_here {
            return self.is_anywhere(id, place);
        }
        is_here
    }

    /// The same, and all of its way is looked at.
    #[cold]
    #[inline(never)]
    pub(super) fn is_anywhere(&self, id: u32, place: u32) -> bool {
        self.find(id, place).is_some()
    }

    /// The line on which an id stands.
    fn find(&self, id: u32, place: u32) -> Option<usize> {
        for (number, line) in self.way(place) {
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

    /// The lines from an id's own one on, around the end, each once, with their numbers.
    pub(super) fn way(&self, place: u32) -> impl Iterator<Item = (usize, &Line)> {
        let home = home(&self.lines, place);
        numbered(&self.lines, home..self.lines.len()).chain(numbered(&self.lines, 0..home))
    }

    pub(super) fn put(&self, id: u32, place: u32) -> Put {
        if self.find(id, place).is_some() {
            return Put::WasThere;
        }
        let is_free = |(_, line): &(usize, &Line)| ids(line).any(|other| other == 0);
        let Some((free, _)) = self.way(place).find(is_free) else { return Put::Full };
        for (number, line) in self.way(place) {
            if number == free {
                replace(line, 0, id);
                break;
            }
            count(line, 1);
        }
        Put::In
    }

    pub(super) fn take_out(&self, id: u32, place: u32) -> bool {
        let Some(at) = self.find(id, place) else { return false };
        for (number, line) in self.way(place) {
            if number == at {
                replace(line, id, 0);
                break;
            }
            count(line, u32::MAX);
        }
        true
    }

    /// Takes ids in whose places ascend, into an empty table, as long as they find room without going around the end: line
    /// after line, without looking for them. Only the lines from an id's own one to the last that was written can have ids,
    /// and all but that last one are full. What is left of them, and how many were taken in.
    pub(super) fn fill(&self, ids: &mut impl Iterator<Item = (u32, u32)>) -> (Option<(u32, u32)>, usize) {
        let (mut last, mut used, mut taken) = (0, 0, 0);
        for (place, id) in ids {
            let home = home(&self.lines, place);
            if home > last {
                (last, used) = (home, 0);
            } else if used == IDS_MAX {
                (last, used) = (last + 1, 0);
            }
            let Some(line) = self.lines.get(last).filter(|_| last < self.lines.len()) else {
                return (Some((place, id)), taken);
            };
            for (_, passed) in numbered(&self.lines, home..last) {
                count(passed, 1);
            }
            set(line, used, id);
            used += 1;
            taken += 1;
        }
        (None, taken)
    }
}

/// Whether the id stands on this line, and whether any id passed it by. No branch.
#[inline(always)]
pub(super) fn look(line: &Line, id: u32) -> (bool, bool) {
    let [a, b, c, d, e, f, g, last] = line;
    // ORDERING: Acquire, pairs with the Release stores of `change` (C-9): who finds a peer here finds it in the published
    // version too.
    let read = |word: &Word| word.load(Ordering::Acquire);
    let last = read(last);
    // No id is 0, so the count is out of the way.
    let words = [read(a), read(b), read(c), read(d), read(e), read(f), read(g), low(last).into()];
    (has_half(&words, id), high(last) != 0)
}

/// The ids on a line, 0 where there is none. For the writer.
pub(super) fn ids(line: &Line) -> impl Iterator<Item = u32> {
    // ORDERING: Relaxed (C-9); only the writer stores, under the writer lock.
    let words = line.iter().map(|word| word.load(Ordering::Relaxed));
    words.flat_map(|word| [low(word), high(word)]).take(IDS_MAX)
}

/// Replaces the first `old` on this line.
fn replace(line: &Line, old: u32, new: u32) {
    if let Some(at) = ids(line).position(|id| id == old) {
        set(line, at, new);
    }
}

fn set(line: &Line, at: usize, id: u32) {
    if let Some(word) = line.get(at / 2) {
        let shift = u32::BITS as usize * (at % 2);
        change(word, |old| old & !(u64::from(u32::MAX) << shift) | u64::from(id) << shift);
    }
}

/// Adds to the number of ids that passed this line by; `u32::MAX` is one less.
fn count(line: &Line, more: u32) {
    let [.., last] = line;
    change(last, |old| u64::from(high(old).wrapping_add(more)) << u32::BITS | u64::from(low(old)));
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
pub(super) const fn low(word: u64) -> u32 {
    word as u32
}

pub(super) const fn high(word: u64) -> u32 {
    (word >> u32::BITS) as u32
}

/// Ids that fit on a line; the last half word is the count.
const IDS_MAX: usize = 2 * WORDS_PER_LINE - 1;
/// Ids a line has on average when a larger table is begun: two thirds full, and one line in twenty has passed any by.
pub(super) const IDS_PER_LINE: usize = 10;
