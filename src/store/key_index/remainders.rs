//! A table of what ids have beside their line: as there are so many lines, the lower half of an id's place tells it from all
//! others of its line. So a line has room for 31, twice as many as of whole ids.
//!
//! INVARIANT: an id stands on its own line, or among the others if that was full or if its remainder is 0, which stands for
//! nobody; never on both, and it never moves. In its last quarter word a line counts its ids that are among the others for
//! want of room.
#![forbid(unsafe_code)]

use super::ids::Ids;
use super::{Put, change, home};
use crate::lanes::has_quarter;
use crate::map::mix::Mix;
use crate::sync::{Line, Lines, Ordering, WORDS_PER_LINE, Word};

/// For many ids.
#[derive(Debug)]
pub(super) struct Remainders {
    pub(super) lines: Lines,
    pub(super) others: Ids,
}

impl Remainders {
    /// At least [`LINES_MIN`].
    pub(super) fn allocate(lines: usize) -> Option<Self> {
        debug_assert!(lines >= LINES_MIN, "remainders of one line could be the same");
        let others = Ids::allocate(lines / LINES_PER_OTHER)?;
        Lines::zeroed(lines).map(|lines| Self { lines, others })
    }

    /// Whether the id stands here. No branch depends on it but for one that is hardly ever taken.
    #[inline(always)]
    pub(super) fn contains(&self, id: u32, place: u32) -> bool {
        let Some(line) = self.lines.get(home(&self.lines, place)) else { return false };
        let (is_here, may_be_elsewhere) = look(line, remainder(place));
        if may_be_elsewhere & !is_here {
            return self.others.is_anywhere(id, place);
        }
        is_here
    }

    pub(super) fn put(&self, id: u32, place: u32) -> Put {
        if self.contains(id, place) {
            return Put::WasThere;
        }
        let Some(line) = self.lines.get(home(&self.lines, place)) else { return Put::Full };
        let remainder = remainder(place);
        if remainder == 0 {
            return self.others.put(id, place);
        }
        if let Some(free) = remainders(line).position(|other| other == 0) {
            set(line, free, remainder);
            return Put::In;
        }
        // First the count: who is led on by it finds nothing as yet. It stays below the 2^16 places of a line, of which 31
        // are on it and one has no remainder.
        set(line, REMAINDERS_MAX, passed(line).wrapping_add(1));
        self.others.put(id, place)
    }

    pub(super) fn take_out(&self, id: u32, place: u32) -> bool {
        let Some(line) = self.lines.get(home(&self.lines, place)) else { return false };
        let remainder = remainder(place);
        if remainder != 0
            && let Some(at) = remainders(line).position(|other| other == remainder)
        {
            set(line, at, 0);
            return true;
        }
        let was_there = self.others.take_out(id, place);
        if was_there && remainder != 0 {
            set(line, REMAINDERS_MAX, passed(line).wrapping_sub(1));
        }
        was_there
    }

    /// Takes ids in whose places ascend, into an empty table, until one finds no room: line after line, without looking for
    /// them. That one, and how many were taken in.
    pub(super) fn fill(&self, ids: &mut impl Iterator<Item = (u32, u32)>) -> (Option<(u32, u32)>, usize) {
        let (mut last, mut used, mut taken) = (0, 0, 0);
        for (place, id) in ids {
            let home = home(&self.lines, place);
            if home > last {
                (last, used) = (home, 0);
            }
            if remainder(place) != 0
                && used < REMAINDERS_MAX
                && let Some(line) = self.lines.get(home)
            {
                set(line, used, remainder(place));
                used += 1;
            } else if matches!(self.put(id, place), Put::Full) {
                return (Some((place, id)), taken);
            }
            taken += 1;
        }
        (None, taken)
    }

    /// The ids of the line of this number. For the writer.
    pub(super) fn ids_on(&self, number: usize, mix: Mix) -> impl Iterator<Item = u32> {
        let first = first_place(number, self.lines.len());
        let remainders = self.lines.get(number).into_iter().flat_map(remainders).filter(|other| *other != 0);
        remainders.map(move |other| mix.unmix(first.wrapping_add(other.wrapping_sub(remainder(first)).into())))
    }
}

/// Whether the remainder stands on this line, and whether its id may be among the others. No branch.
#[inline(always)]
fn look(line: &Line, remainder: u16) -> (bool, bool) {
    let [a, b, c, d, e, f, g, last] = line;
    // ORDERING: Acquire, pairs with the Release stores of `change` (C-9): who finds a peer here finds it in the published
    // version too.
    let read = |word: &Word| word.load(Ordering::Acquire);
    let last = read(last);
    // The count is out of the way, for 0 is nobody's remainder.
    let words = [read(a), read(b), read(c), read(d), read(e), read(f), read(g), last & !(u64::MAX << COUNT_SHIFT)];
    let is_nobody = remainder == 0;
    (has_quarter(&words, remainder) & !is_nobody, is_nobody | (last >> COUNT_SHIFT != 0))
}

/// The remainders on a line, 0 where there is none. For the writer.
pub(super) fn remainders(line: &Line) -> impl Iterator<Item = u16> {
    quarters(line).take(REMAINDERS_MAX)
}

/// How many ids of this line are among the others for want of room. For the writer.
pub(super) fn passed(line: &Line) -> u16 {
    quarters(line).last().unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, reason = "the lowest quarter")]
fn quarters(line: &Line) -> impl Iterator<Item = u16> {
    // ORDERING: Relaxed (C-9); only the writer stores, under the writer lock.
    let words = line.iter().map(|word| word.load(Ordering::Relaxed));
    words.flat_map(|word| [0, 1, 2, 3].map(|at| (word >> (u16::BITS * at)) as u16))
}

fn set(line: &Line, at: usize, quarter: u16) {
    if let Some(word) = line.get(at / 4) {
        let shift = u16::BITS as usize * (at % 4);
        change(word, |old| old & !(u64::from(u16::MAX) << shift) | u64::from(quarter) << shift);
    }
}

/// What tells an id from all others of its line, which are fewer than 2^16 places apart.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
pub(super) const fn remainder(place: u32) -> u16 {
    place as u16
}

/// The lowest place whose line has this number.
fn first_place(number: usize, lines: usize) -> u32 {
    let first = ((number as u64) << u32::BITS).div_ceil(lines.max(1) as u64);
    u32::try_from(first).unwrap_or(u32::MAX)
}

/// With so many lines, no two places of one have the same lower half. The model checker has less memory: two lines; it is
/// given ids of which this holds.
pub(super) const LINES_MIN: usize = if cfg!(trustkeep_loom) { 128 } else { 1 << 16 };
/// Ids a line has on average when a larger table is begun: two thirds full, and one line in a hundred is full.
pub(super) const IDS_PER_LINE: usize = 20;
/// Remainders that fit on a line; the last quarter word is the count.
pub(super) const REMAINDERS_MAX: usize = 4 * WORDS_PER_LINE - 1;
const COUNT_SHIFT: u32 = u64::BITS - u16::BITS;
/// For so many lines there is one of the others: room for eight times as many as are expected there when a larger table is
/// begun.
const LINES_PER_OTHER: usize = 64;
