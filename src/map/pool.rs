//! Memory for nodes: blocks of 64-byte lines, cut from slabs of one size each, which are cut from chunks.
//!
//! INVARIANT I-M2: a block that was taken overlaps no other and stays in memory until it is given back.
//!
//! All bookkeeping lies beside the memory it is about, in plain safe structures: nothing is read from or written to a
//! block that is not taken. Blocks that were given back last are *warm*, and taken again first: they are in the caches,
//! and so is all that is known of them. Where none is warm, the lowest slab with room is used first, so that after a large
//! map became small the higher ones empty and go back to the system as whole chunks.
//!
//! If there is no memory the process is aborted, as by the collections of the standard library.
#![allow(unsafe_code, reason = "gives back blocks that nobody reads any more, and hands them out again")]

use super::memory::{Memory, give_pages_back};
use super::node::LINES_MAX;
use super::probe::LINE_BYTES;
use super::slots::Slots;
use crate::pages::HUGE_PAGE_BYTES;

/// Memory of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    address: usize,
    slab: u32,
    lines: u32,
}

impl Block {
    #[expect(clippy::cast_possible_truncation, reason = "a node has at most LINES_MAX lines")]
    pub(super) const fn new(address: usize, slab: u32, lines: usize) -> Self {
        Self { address, slab, lines: lines as u32 }
    }

    pub(super) const fn address(self) -> usize {
        self.address
    }

    pub(super) const fn slab(self) -> u32 {
        self.slab
    }
}

/// Blocks taken and given back by one thread at a time; the memory goes with the pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    chunks: Vec<Chunk>,
    slabs: Vec<Slab>,
    /// Slabs without any block.
    idle: Slots,
    idle_len: usize,
    /// Of these, slabs whose pages the system has.
    bare_len: usize,
    /// The least number of idle slabs since the pool was trimmed last: so many were not needed since.
    idle_least: usize,
    /// By class: slabs with blocks and room for more.
    roomy: Vec<Slots>,
    /// By class: free blocks that their slabs count as taken, in the order in which they were given back.
    warm: Vec<Vec<Block>>,
    /// Whether some slabs are being left.
    is_moving: bool,
    /// From the system, without what is bare.
    bytes: usize,
}

/// A piece of memory that blocks of one class are cut from.
#[derive(Clone, Debug, Default)]
struct Slab {
    /// 0 while its chunk is with the system.
    address: usize,
    chunk: usize,
    /// How many blocks fit, as of its present class.
    blocks: u32,
    /// Of so many lines each.
    class: u32,
    /// A bit for each block that is taken, or warm.
    taken: u128,
    /// Its pages were given back to the system, or are being given back; using it takes new ones.
    is_bare: bool,
    /// Its blocks are to be moved into others: no more are taken from it.
    leaves: bool,
}

/// Memory from the system, or the place of one that went back.
#[derive(Debug)]
struct Chunk {
    memory: Option<Memory>,
    /// The number of its first slab, how many it has, and how many of them are idle and in the pool.
    first: usize,
    slabs: usize,
    idle: usize,
}

impl Pool {
    /// A block of so many lines, initialized to something.
    #[inline]
    pub(super) fn take(&mut self, lines: usize) -> Block {
        match self.warm.get_mut(lines).and_then(Vec::pop) {
            Some(block) => block,
            None => self.take_cold(lines),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "the sets hold numbers of slabs only")]
    fn take_cold(&mut self, lines: usize) -> Block {
        let index = self.roomy.get(lines).and_then(Slots::first).unwrap_or_else(|| self.dedicate(lines));
        let slab = &mut self.slabs[index];
        let block = slab.taken.trailing_ones();
        slab.taken |= 1 << block;
        if slab.taken.count_ones() == slab.blocks {
            self.roomy[lines].remove(index);
        }
        #[expect(clippy::cast_possible_truncation, reason = "as many slabs would not fit into 48 bits of address")]
        Block::new(slab.address + block as usize * lines * LINE_BYTES, index as u32, lines)
    }

    /// Gives a block back.
    ///
    /// # Safety
    /// The block was taken from this pool and not given back since, and nobody reads it any more.
    #[expect(clippy::indexing_slicing, reason = "the block was taken, so its class is there")]
    pub(super) unsafe fn give_back(&mut self, block: Block) {
        let class = block.lines as usize;
        #[cfg(any(test, fuzzing))]
        {
            debug_assert!(!self.warm[class].contains(&block), "given back twice");
            let bytes = core::ptr::with_exposed_provenance_mut::<u8>(block.address);
            // SAFETY: the block is free, by the caller's promise. Whoever reads it in spite of that shall notice.
            unsafe { bytes.write_bytes(0xdb, class * LINE_BYTES) };
        }
        if self.is_moving && self.leaves(block.slab) {
            return self.put(block);
        }
        if self.warm[class].len() >= WARM_MAX {
            self.cool(class, WARM_MAX / 2);
        }
        self.warm[class].push(block);
    }

    /// Puts the blocks of a class that have been warm for longest back into their slabs.
    #[cold]
    #[expect(clippy::indexing_slicing, reason = "the class is there")]
    fn cool(&mut self, class: usize, blocks: usize) {
        let mut warm = core::mem::take(&mut self.warm[class]);
        warm.drain(..blocks).for_each(|block| self.put(block));
        self.warm[class] = warm;
    }

    fn cool_all(&mut self) {
        for class in 0..self.warm.len() {
            self.cool(class, self.warm.get(class).map_or(0, Vec::len));
        }
    }

    /// Puts a block back into its slab.
    #[expect(clippy::indexing_slicing, reason = "the block was taken, so these are there")]
    fn put(&mut self, block: Block) {
        let (index, class) = (block.slab as usize, block.lines as usize);
        let slab = &mut self.slabs[index];
        let bit = 1u128 << ((block.address - slab.address) / (class * LINE_BYTES));
        debug_assert!(slab.taken & bit != 0, "given back twice");
        slab.taken &= !bit;
        if slab.taken == 0 {
            slab.leaves = false;
            self.chunks[slab.chunk].idle += 1;
            self.roomy[class].remove(index);
            self.idle.insert(index);
            self.idle_len += 1;
        } else if !slab.leaves {
            self.roomy[class].insert(index);
        }
    }

    /// Whether the slab of this number is being left.
    pub(super) fn leaves(&self, slab: u32) -> bool {
        self.slabs.get(slab as usize).is_some_and(|slab| slab.leaves)
    }

    /// If more than an eighth of what is not idle is free all the same, and more than `worth` bytes: has the highest slabs of
    /// each class left, as many as the others have room for, and tells which those are.
    pub(super) fn begin_move(&mut self, worth: usize) -> Option<Vec<bool>> {
        self.end_move();
        self.cool_all();
        // By class: blocks that are taken, and how many slabs would do for them.
        let mut needed = vec![0usize; self.roomy.len()];
        let (mut used, mut free) = (0, 0);
        for slab in self.slabs.iter().filter(|slab| slab.taken != 0) {
            let taken = slab.taken.count_ones();
            used += SLAB_BYTES;
            free += SLAB_BYTES * (slab.blocks - taken) as usize / slab.blocks.max(1) as usize;
            if let Some(needed) = needed.get_mut(slab.class as usize) {
                *needed += taken as usize;
            }
        }
        if free <= worth.max(used / 8) {
            return None;
        }
        for (class, needed) in needed.iter_mut().enumerate().skip(1) {
            *needed = needed.div_ceil(blocks_of(class) as usize);
        }
        self.is_moving = true;
        for (index, slab) in self.slabs.iter_mut().enumerate().filter(|(_, slab)| slab.taken != 0) {
            let class = slab.class as usize;
            let (Some(needed), Some(roomy)) = (needed.get_mut(class), self.roomy.get_mut(class)) else { continue };
            if *needed > 0 {
                *needed -= 1;
            } else {
                slab.leaves = true;
                roomy.remove(index);
            }
        }
        Some(self.slabs.iter().map(|slab| slab.leaves).collect())
    }

    /// Slabs that could not be left are used as before.
    pub(super) fn end_move(&mut self) {
        for (index, slab) in self.slabs.iter_mut().enumerate().filter(|(_, slab)| slab.leaves) {
            slab.leaves = false;
            if let Some(roomy) = self.roomy.get_mut(slab.class as usize)
                && slab.taken.count_ones() < slab.blocks
            {
                roomy.insert(index);
            }
        }
        self.is_moving = false;
    }

    /// Makes an idle slab one of this class, and returns which.
    #[cold]
    #[expect(clippy::indexing_slicing, reason = "the sets hold numbers of slabs only")]
    fn dedicate(&mut self, class: usize) -> usize {
        debug_assert!((1..=LINES_MAX).contains(&class), "no node has {class} lines");
        if self.roomy.len() <= class {
            self.roomy.resize_with(class + 1, Slots::default);
            self.warm.resize_with(class + 1, Vec::new);
        }
        let index = self.idle.first().unwrap_or_else(|| self.grow());
        self.idle.remove(index);
        self.idle_len -= 1;
        self.idle_least = self.idle_least.min(self.idle_len);
        let slab = &mut self.slabs[index];
        (slab.blocks, slab.class) = (blocks_of(class), class as u32);
        if core::mem::take(&mut slab.is_bare) {
            self.bare_len -= 1;
            self.bytes += SLAB_BYTES;
        }
        self.chunks[slab.chunk].idle -= 1;
        self.roomy[class].insert(index);
        index
    }

    /// Whether the next changes may need memory from the system, which takes long. A small pool has no time to be asked.
    pub(super) fn is_short(&self) -> bool {
        let ready = (self.bytes / SLAB_BYTES / 16).min(LARGE_CHUNK_SLABS / 2);
        self.bytes >= SMALL_POOL_BYTES && self.idle_len - self.bare_len < ready
    }

    /// Memory to be added to a pool that is short. It takes long, and needs no pool.
    pub(super) fn ready_memory() -> Memory {
        let memory = Memory::take(LARGE_CHUNK_SLABS * SLAB_BYTES);
        memory.touch();
        memory
    }

    /// Takes another chunk from the system; returns the number of its first slab.
    #[cold]
    fn grow(&mut self) -> usize {
        let slabs = if self.bytes < SMALL_POOL_BYTES { SMALL_CHUNK_SLABS } else { LARGE_CHUNK_SLABS };
        self.add(Memory::take(slabs * SLAB_BYTES))
    }

    /// Has another chunk; returns the number of its first slab.
    #[expect(clippy::indexing_slicing, reason = "a chunk's numbers are those of its slabs")]
    pub(super) fn add(&mut self, memory: Memory) -> usize {
        let slabs = memory.bytes() / SLAB_BYTES;
        // A chunk that went back left the numbers of its slabs.
        let vacant = self.chunks.iter().position(|chunk| chunk.memory.is_none() && chunk.slabs == slabs);
        let number = vacant.unwrap_or_else(|| {
            let first = self.slabs.len();
            self.chunks.push(Chunk { memory: None, first, slabs, idle: 0 });
            let slab = Slab { chunk: self.chunks.len() - 1, ..Slab::default() };
            self.slabs.resize(first + slabs, slab);
            self.chunks.len() - 1
        });
        let chunk = &mut self.chunks[number];
        for index in 0..slabs {
            let slab = &mut self.slabs[chunk.first + index];
            slab.address = memory.address() + index * SLAB_BYTES;
            self.idle.insert(chunk.first + index);
        }
        (chunk.memory, chunk.idle) = (Some(memory), slabs);
        self.idle_len += slabs;
        self.bytes += slabs * SLAB_BYTES;
        chunk.first
    }

    /// Before surplus is taken out: leaves no block warm, so that it is seen which slabs are idle.
    pub(super) fn begin_trim(&mut self) {
        self.cool_all();
    }

    /// After surplus was taken out; true if there may be more next time.
    pub(super) fn end_trim(&mut self) -> bool {
        self.idle_least = self.idle_len;
        self.idle_least - self.bare_len > self.keep()
    }

    /// How many idle slabs are worth keeping for the next changes: well more than what it is short with.
    fn keep(&self) -> usize {
        (self.bytes / SLAB_BYTES / 4).clamp(SMALL_CHUNK_SLABS, LARGE_CHUNK_SLABS)
    }

    /// Takes out something that was not needed since the pool was trimmed last; none if the rest is worth keeping.
    pub(super) fn surplus(&mut self) -> Option<Surplus> {
        let keep = self.keep();
        self.surplus_chunk(keep).map(Surplus::Chunk).or_else(|| self.surplus_pages(keep).map(Surplus::Pages))
    }

    #[expect(clippy::indexing_slicing, reason = "a chunk's numbers are those of its slabs")]
    fn surplus_chunk(&mut self, keep: usize) -> Option<Memory> {
        let spare = self.idle_least.checked_sub(keep)?;
        let is_spare = |chunk: &&mut Chunk| chunk.memory.is_some() && chunk.idle == chunk.slabs && chunk.slabs <= spare;
        let chunk = self.chunks.iter_mut().rev().find(is_spare)?;
        let slabs = chunk.first..chunk.first + chunk.slabs;
        let bare = self.slabs[slabs.clone()].iter().filter(|slab| slab.is_bare).count();
        for index in slabs {
            self.slabs[index] = Slab { chunk: self.slabs[index].chunk, ..Slab::default() };
            self.idle.remove(index);
        }
        self.idle_len -= chunk.slabs;
        self.idle_least -= chunk.slabs;
        self.bytes -= (chunk.slabs - bare) * SLAB_BYTES;
        self.bare_len -= bare;
        chunk.idle = 0;
        chunk.memory.take()
    }

    /// The highest idle slabs go: the lowest are the first to be used again.
    #[expect(clippy::indexing_slicing, reason = "a slab's chunk is there")]
    fn surplus_pages(&mut self, keep: usize) -> Option<Pages> {
        let spare = if CAN_GIVE_PAGES { self.idle_least.checked_sub(self.bare_len + keep)? } else { 0 };
        let ready = |(_, slab): &(usize, &mut Slab)| slab.address != 0 && slab.taken == 0 && !slab.is_bare;
        let mut pages = Pages { slabs: Vec::new() };
        for (index, slab) in self.slabs.iter_mut().enumerate().rev().filter(ready).take(spare.min(PAGES_AT_ONCE)) {
            pages.slabs.push((index, slab.address));
            slab.is_bare = true;
            self.chunks[slab.chunk].idle -= 1;
            self.idle.remove(index);
        }
        let len = pages.slabs.len();
        self.idle_len -= len;
        self.idle_least -= len;
        if len == 0 { None } else { Some(pages) }
    }

    /// Puts slabs back whose pages were given back meanwhile.
    #[expect(clippy::indexing_slicing, reason = "they were taken from here")]
    pub(super) fn bare(&mut self, pages: &Pages) {
        for &(index, _) in &pages.slabs {
            self.chunks[self.slabs[index].chunk].idle += 1;
            self.idle.insert(index);
        }
        let len = pages.slabs.len();
        self.idle_len += len;
        self.idle_least += len;
        self.bare_len += len;
        self.bytes -= len * SLAB_BYTES;
    }

    /// How many blocks are taken.
    #[cfg(any(test, feature = "__testing"))]
    pub(super) fn taken(&self) -> usize {
        let taken: usize = self.slabs.iter().map(|slab| slab.taken.count_ones() as usize).sum();
        taken - self.warm.iter().map(Vec::len).sum::<usize>()
    }

    /// How many slabs are being left.
    #[cfg(any(test, feature = "__testing"))]
    pub(super) fn leaving(&self) -> usize {
        self.slabs.iter().filter(|slab| slab.leaves).count()
    }

    /// How many bytes it has from the system, without pages that were given back.
    #[cfg(any(test, feature = "__testing"))]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a pool does without.
#[derive(Debug)]
pub(super) enum Surplus {
    /// Dropping it gives it back.
    Chunk(Memory),
    /// To be given back, and then handed to [`Pool::bare`].
    Pages(Pages),
}

/// Slabs that are nobody's for the moment, by number and address.
#[derive(Debug)]
pub(super) struct Pages {
    slabs: Vec<(usize, usize)>,
}

impl Pages {
    /// Gives the pages to the system.
    pub(super) fn give_back(&self) {
        for &(_, address) in &self.slabs {
            // SAFETY: the slab was taken out of its pool while it had no block: nobody uses its memory, and its chunk, of
            // which it does not count as idle meanwhile, stays.
            unsafe { give_pages_back(address, SLAB_BYTES) };
        }
    }
}

/// How many blocks of a class fit into a slab.
const fn blocks_of(class: usize) -> u32 {
    let blocks = SLAB_BYTES / (class * LINE_BYTES);
    if blocks < u128::BITS as usize { blocks as u32 } else { u128::BITS }
}

/// What blocks of one class are cut from.
const SLAB_BYTES: usize = 16 << 10;
/// A small map takes little at a time; a large one takes what a huge page holds. What is fuzzed has few records.
const SMALL_POOL_BYTES: usize = if cfg!(fuzzing) { 128 << 10 } else { 1 << 20 };
const SMALL_CHUNK_SLABS: usize = 4;
const LARGE_CHUNK_SLABS: usize = HUGE_PAGE_BYTES / SLAB_BYTES;
/// Blocks of a class that are warm at most: more than a few publishes of single records replace, or one of a thousand.
const WARM_MAX: usize = 256;
/// Slabs whose pages are given back in one go, during which they cannot be used.
const PAGES_AT_ONCE: usize = 32;
const CAN_GIVE_PAGES: bool = cfg!(target_os = "linux");
const _: () = assert!(SLAB_BYTES >= LINES_MAX * LINE_BYTES);
