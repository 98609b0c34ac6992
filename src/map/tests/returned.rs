//! Memory that was given back to the system: it is gone from the process, and what is needed again afterwards is counted
//! and never the memory that went.

use std::collections::BTreeSet;

use crate::map::node::LINES_MAX;
use crate::map::pool::{Pool, Surplus};

/// A pool of so many chunks, none of it used, and where those begin.
fn idle(chunks: usize) -> (Pool, Vec<usize>) {
    let (mut pool, mut addresses) = (Pool::default(), Vec::new());
    for _ in 0..chunks {
        let memory = Pool::ready_memory();
        addresses.push(memory.address());
        let _ = pool.add(memory);
    }
    let _ = pool.end_trim();
    (pool, addresses)
}

fn chunk_bytes() -> usize {
    Pool::ready_memory().bytes()
}

#[test]
fn what_is_needed_after_a_chunk_went_does_not_come_from_there() {
    let (mut pool, mut kept) = idle(3);
    let chunk_bytes = chunk_bytes();
    let Some(Surplus::Chunk(gone)) = pool.surplus() else { panic!("no chunk") };
    kept.retain(|address| *address != gone.address());
    // It stays mapped until the end of this test: nothing else gets its address meanwhile.
    assert_eq!((kept.len(), pool.bytes()), (2, 2 * chunk_bytes));
    let lies_in = |begin: usize, address: usize| (begin..begin + chunk_bytes).contains(&address);
    let mut slabs = BTreeSet::new();
    loop {
        let block = pool.take(LINES_MAX);
        if pool.bytes() > 2 * chunk_bytes {
            assert!(!kept.iter().any(|begin| lies_in(*begin, block.address())), "there was room");
            assert!(!lies_in(gone.address(), block.address()) && block.address() >= chunk_bytes, "{block:?}");
            break;
        }
        assert!(kept.iter().any(|begin| lies_in(*begin, block.address())), "{block:?} is in none of {kept:x?}");
        slabs.insert(block.slab());
    }
    // And the twin: all that was kept was used before more was taken, and the new chunk has the numbers of the one that went.
    assert_eq!(pool.bytes(), 3 * chunk_bytes);
    assert_eq!(slabs.len(), 2 * chunk_bytes / SLAB_BYTES);
    let more = (1..chunk_bytes / SLAB_BYTES).map(|_| pool.take(LINES_MAX).slab());
    assert!(more.into_iter().all(|slab| (slab as usize) < 3 * chunk_bytes / SLAB_BYTES && !slabs.contains(&slab)));
    assert_eq!(pool.bytes(), 3 * chunk_bytes);
}

#[test]
#[cfg(target_os = "linux")]
fn pages_that_went_are_counted_when_they_are_used_again() {
    let (mut pool, kept) = idle(1);
    let chunk_bytes = chunk_bytes();
    let mut bare = 0;
    while let Some(surplus) = pool.surplus() {
        let Surplus::Pages(pages) = surplus else { panic!("the only chunk is worth keeping") };
        let before = pool.bytes();
        let resident_before = resident(kept[0], chunk_bytes);
        pages.give_back();
        pool.bare(&pages);
        let freed = before - pool.bytes();
        bare += freed;
        if let (Some(before), Some(now)) = (resident_before, resident(kept[0], chunk_bytes)) {
            assert!(now + freed <= before, "{freed} bytes are said to have gone, of {before} there are {now}");
        }
    }
    assert!(bare > 0 && pool.bytes() == chunk_bytes - bare);
    if let Some(resident) = resident(kept[0], chunk_bytes) {
        assert!(resident >= pool.bytes(), "what is kept is there: {resident} of {}", pool.bytes());
    }
    // All slabs, and so those whose pages went, too.
    let mut slabs = BTreeSet::new();
    while slabs.len() < chunk_bytes / SLAB_BYTES {
        let block = pool.take(LINES_MAX);
        assert!((kept[0]..kept[0] + chunk_bytes).contains(&block.address()), "{block:?}");
        slabs.insert(block.slab());
    }
    assert_eq!(pool.bytes(), chunk_bytes);
    assert!(pool.is_short(), "and none of it is idle");
}

#[test]
#[cfg(target_os = "linux")]
fn memory_that_went_is_not_in_the_process_any_more() {
    let memory = Pool::ready_memory();
    let (address, bytes) = (memory.address(), memory.bytes());
    let Some(there) = resident(address, bytes) else { return };
    assert_eq!(there, bytes, "all of it was touched");
    drop(memory);
    // Other threads may get the same place at once, but not each time.
    let went = (0..100).any(|_| {
        let memory = Pool::ready_memory();
        let address = memory.address();
        drop(memory);
        resident(address, bytes) == Some(0)
    });
    assert!(went);
}

/// How many bytes of this piece of memory the process has, in memory or swapped out; none where the system does not tell.
#[cfg(target_os = "linux")]
#[expect(clippy::disallowed_methods, clippy::host_endian_bytes, reason = "asks the system, in its own words")]
fn resident(address: usize, bytes: usize) -> Option<usize> {
    use std::os::unix::fs::FileExt as _;

    let page_bytes = rustix::param::page_size();
    let mut entries = vec![0; bytes / page_bytes * 8];
    let pages = std::fs::File::open("/proc/self/pagemap").ok()?;
    pages.read_exact_at(&mut entries, (address / page_bytes * 8) as u64).ok()?;
    let words = entries.chunks_exact(8).map(|entry| u64::from_ne_bytes(entry.try_into().unwrap()));
    Some(words.filter(|entry| entry >> 62 != 0).count() * page_bytes)
}

/// As the pool has it.
const SLAB_BYTES: usize = 16 << 10;
