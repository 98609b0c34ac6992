//! One table of the index, of either kind: whole ids while they are few, and from then on what tells them apart.
#![forbid(unsafe_code)]

use super::ids::{self, Ids};
use super::remainders::{self, Remainders};
use super::{LINES_MIN, Put};
use crate::map::mix::Mix;

#[derive(Debug)]
pub(super) enum Table {
    Ids(Ids),
    Remainders(Remainders),
}

impl Table {
    /// For so many ids, with room for a few more. `None` without memory.
    pub(super) fn allocate_for(len: usize) -> Option<Self> {
        let lines = len / ids::IDS_PER_LINE + 1;
        if lines > remainders::LINES_MIN / 2 {
            // A table of whole ids would be nearly as large, and soon be too small.
            Self::allocate((len / remainders::IDS_PER_LINE + 1).max(remainders::LINES_MIN))
        } else {
            Self::allocate(lines.max(LINES_MIN))
        }
    }

    /// With twice as many lines.
    pub(super) fn allocate_larger(&self) -> Option<Self> {
        Self::allocate(self.lines().checked_mul(2)?)
    }

    fn allocate(lines: usize) -> Option<Self> {
        if lines >= remainders::LINES_MIN {
            Remainders::allocate(lines).map(Self::Remainders)
        } else {
            Ids::allocate(lines).map(Self::Ids)
        }
    }

    #[inline(always)]
    pub(super) fn contains(&self, id: u32, place: u32) -> bool {
        match self {
            Self::Ids(ids) => ids.contains(id, place),
            Self::Remainders(remainders) => remainders.contains(id, place),
        }
    }

    /// With how many ids a larger one is begun.
    pub(super) fn ids_max(&self) -> usize {
        match self {
            Self::Ids(_) => self.lines() * ids::IDS_PER_LINE,
            Self::Remainders(_) => self.lines() * remainders::IDS_PER_LINE,
        }
    }

    pub(super) fn put(&self, id: u32, place: u32) -> Put {
        match self {
            Self::Ids(ids) => ids.put(id, place),
            Self::Remainders(remainders) => remainders.put(id, place),
        }
    }

    /// True if it was there.
    pub(super) fn take_out(&self, id: u32, place: u32) -> bool {
        match self {
            Self::Ids(ids) => ids.take_out(id, place),
            Self::Remainders(remainders) => remainders.take_out(id, place),
        }
    }

    /// Takes ids with their places, which ascend, into an empty table: the first that found no room this way, and how many
    /// were taken in.
    pub(super) fn fill(&self, mut ids: impl Iterator<Item = (u32, u32)>) -> (Option<(u32, u32)>, usize) {
        match self {
            Self::Ids(table) => table.fill(&mut ids),
            Self::Remainders(table) => table.fill(&mut ids),
        }
    }

    /// How many lines [`Self::ids_on`] has to be asked for.
    pub(super) fn lines_in_all(&self) -> usize {
        match self {
            Self::Ids(_) => self.lines(),
            Self::Remainders(remainders) => self.lines() + remainders.others.lines.len(),
        }
    }

    /// The ids on the line of this number. For the writer.
    pub(super) fn ids_on(&self, number: usize, mix: Mix) -> impl Iterator<Item = u32> {
        let (remainders, ids) = match self {
            Self::Ids(ids) => (None, ids.lines.get(number)),
            Self::Remainders(remainders) => {
                let other = number.checked_sub(self.lines());
                (Some(remainders), other.and_then(|number| remainders.others.lines.get(number)))
            }
        };
        let remainders = remainders.into_iter().flat_map(move |table| table.ids_on(number, mix));
        remainders.chain(ids.into_iter().flat_map(ids::ids).filter(|id| *id != 0))
    }

    /// How many lines ids are spread over.
    pub(super) fn lines(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.lines.len(),
            Self::Remainders(remainders) => remainders.lines.len(),
        }
    }
}
