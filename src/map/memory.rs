//! Pieces of memory from the system, which come zeroed and go back at once.
//!
//! Not from the allocator: what a large map gives back would stay with it, between what others hold, and pieces that begin
//! where a huge page does would leave gaps there.
#![allow(unsafe_code, reason = "takes memory from the system and gives it back")]

use core::ptr::NonNull;
use std::alloc::{Layout, handle_alloc_error};

use super::probe::LINE_BYTES;
use super::word::is_address;
use crate::pages::HUGE_PAGE_BYTES;

/// Memory of a chunk, owned. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it is owned, and nothing about it belongs to a thread.
unsafe impl Send for Memory {}

impl Memory {
    /// So many bytes, not 0, all zero. Like the collections of the standard library, this aborts the process if there is no
    /// memory.
    pub(super) fn take(bytes: usize) -> Self {
        let align = if bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { PAGE_BYTES };
        let Ok(layout) = Layout::from_size_align(bytes, align) else {
            handle_alloc_error(Layout::new::<u8>());
        };
        let Some(start) = system::take(layout) else { handle_alloc_error(layout) };
        let memory = Self { start, layout };
        // Words have room for 48 bits of address. No system is known to hand out others unless asked to.
        if !(is_address(memory.address()) && is_address(memory.address() + bytes - LINE_BYTES)) {
            handle_alloc_error(layout);
        }
        memory
    }

    /// Has the system put pages there, which it otherwise does when they are used first.
    pub(super) fn touch(&self) {
        for page in (0..self.layout.size()).step_by(PAGE_BYTES) {
            // SAFETY: the byte is ours and nobody else's, by `&self` of what nothing was cut from yet; it is zero already.
            unsafe { self.start.as_ptr().add(page).write_volatile(0) };
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.layout.size()
    }

    pub(super) fn address(&self) -> usize {
        self.start.expose_provenance().get()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it came from there with this layout, and the pool that hands this out has no block in it (`surplus`), or
        // goes itself, which it does once no version of its history is left.
        unsafe { system::give_back(self.start, self.layout) };
    }
}

/// Gives the pages of a part of some memory to the system, as far as it covers whole ones. The addresses stay ours; what is
/// there afterwards is zeros, or what was there.
///
/// # Safety
/// The range lies within one [`Memory`] that is not dropped meanwhile, and nobody uses what is in it.
pub(super) unsafe fn give_pages_back(address: usize, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        // The system rounds up, to what others use.
        let (address, bytes) = whole_pages(address, bytes, rustix::param::page_size());
        let start = core::ptr::with_exposed_provenance_mut(address);
        // SAFETY: private anonymous memory that nobody uses, by the caller's promise. If it is refused nothing has changed.
        let _ = unsafe { rustix::mm::madvise(start, bytes, rustix::mm::Advice::LinuxDontNeed) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (address, bytes);
}

/// The whole pages within a piece of memory: where they begin, and of how many bytes they are.
#[cfg(target_os = "linux")]
fn whole_pages(address: usize, bytes: usize, page_bytes: usize) -> (usize, usize) {
    let start = address.next_multiple_of(page_bytes);
    let end = (address + bytes) / page_bytes * page_bytes;
    (start, end.saturating_sub(start))
}

#[cfg(target_os = "linux")]
mod system {
    use core::ptr::NonNull;
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    use std::alloc::Layout;

    use super::PAGE_BYTES;
    use crate::pages::advise_huge_pages;

    pub(super) fn take(layout: Layout) -> Option<NonNull<u8>> {
        // Maps more than is wanted, so that it has a piece that begins where it should, and gives the rest back.
        let more = layout.align() - PAGE_BYTES;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a mapping of its own, at an address that the system chooses.
        let all = unsafe { mmap_anonymous(core::ptr::null_mut(), layout.size() + more, access, flags) }.ok()?;
        let skip = all.cast::<u8>().align_offset(layout.align());
        let start = all.wrapping_byte_add(skip);
        for (end, bytes) in [(all, skip), (start.wrapping_byte_add(layout.size()), more - skip)] {
            if bytes > 0 {
                // SAFETY: an end of the mapping that nobody knows of. Where the system's pages are larger than ours it ends
                // with one of them, like what was mapped.
                let _ = unsafe { munmap(end, bytes) };
            }
        }
        advise_huge_pages(start.addr(), layout.size());
        NonNull::new(start.cast())
    }

    /// # Safety
    /// What `take` returned for this layout, which nobody uses any more.
    pub(super) unsafe fn give_back(start: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        let _ = unsafe { munmap(start.as_ptr().cast(), layout.size()) };
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use core::ptr::NonNull;
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    pub(super) fn take(layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the layout is not empty.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    /// # Safety
    /// What `take` returned for this layout, which nobody uses any more.
    pub(super) unsafe fn give_back(start: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { dealloc(start.as_ptr(), layout) };
    }
}

/// What the system gives and takes on most machines; some have larger pages, of up to 64 KiB.
const PAGE_BYTES: usize = 4 << 10;

#[cfg(all(test, target_os = "linux", not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_given_back_that_others_use_a_part_of() {
        const KIB: usize = 1 << 10;
        let page = 64 * KIB;
        // A slab at the begin of a large page, at its end, and in the middle; with small pages it is whole ones.
        for slab in [page, 2 * page - 16 * KIB, page + 16 * KIB] {
            assert_eq!(whole_pages(slab, 16 * KIB, page).1, 0);
            assert_eq!(whole_pages(slab, 16 * KIB, 16 * KIB), (slab, 16 * KIB));
            assert_eq!(whole_pages(slab, 16 * KIB, 4 * KIB), (slab, 16 * KIB));
        }
        assert_eq!(whole_pages(page, 2 * page, page), (page, 2 * page));
        assert_eq!(whole_pages(page + 1, 3 * page - 2, page), (2 * page, page));
    }
}
