//! What the system is told about memory: to use large pages where memory is looked into at random, since with small ones a
//! look-up would miss the processor's cache of translations each time; and to empty a page when the process forks.
#![allow(unsafe_code, reason = "gives the system advice about memory")]

/// Asks the system to use huge pages for this memory, as far as it covers whole ones; best before it is touched.
///
/// Where that is not taken everything works but slower, so there is no answer.
pub(crate) fn advise_huge_pages(address: usize, bytes: usize) {
    #[cfg(target_os = "linux")]
    if bytes >= HUGE_PAGE_BYTES {
        let _ = advise(address, bytes, rustix::mm::Advice::LinuxHugepage);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (address, bytes);
}

/// Has these values be all zeros in every process that is forked from this one. They must be whole pages.
///
/// False where the system cannot do that: then a forked process finds the values as they are.
#[cfg_attr(all(test, trustkeep_loom), expect(dead_code, reason = "models do not fork"))]
pub(crate) fn wipe_on_fork<T: bytemuck::Zeroable>(values: &'static [T]) -> bool {
    #[cfg(target_os = "linux")]
    {
        let (address, bytes) = (values.as_ptr().addr(), size_of_val(values));
        let page_bytes = rustix::param::page_size();
        let whole = bytes > 0 && address.is_multiple_of(page_bytes) && bytes.is_multiple_of(page_bytes);
        whole && advise(address, bytes, rustix::mm::Advice::LinuxWipeOnFork)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = values;
        false
    }
}

#[cfg(target_os = "linux")]
fn advise(address: usize, bytes: usize, advice: rustix::mm::Advice) -> bool {
    let start = core::ptr::without_provenance_mut(address);
    // SAFETY: of the two advices that are given here, one changes nothing that can be seen in any memory. The other
    // changes nothing in this process, and in a forked one makes zeros of values that may be zeros (`wipe_on_fork`).
    unsafe { rustix::mm::madvise(start, bytes, advice) }.is_ok()
}

/// What a huge page is on most machines.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;
