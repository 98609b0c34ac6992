//! Large pages for memory that is looked into at random: with small ones a look-up would miss the processor's cache of
//! translations each time, which costs it as much as a second access.
#![allow(unsafe_code, reason = "gives the system advice about memory")]

/// Asks the system to use huge pages for this memory, as far as it covers whole ones; best before it is touched.
///
/// Where that is not taken everything works but slower, so there is no answer.
pub(crate) fn advise_huge_pages(address: usize, bytes: usize) {
    #[cfg(target_os = "linux")]
    if bytes >= HUGE_PAGE_BYTES {
        let start = core::ptr::without_provenance_mut(address);
        // SAFETY: the advice changes nothing that can be seen in any memory, whoever it belongs to.
        let _ = unsafe { rustix::mm::madvise(start, bytes, rustix::mm::Advice::LinuxHugepage) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (address, bytes);
}

/// What a huge page is on most machines.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;
