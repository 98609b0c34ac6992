//! Maps a file into memory, lends its bytes to a closure, unmaps it. The mapping never leaves this file.
//!
//! Two rules make the bytes stay as they are meanwhile: a published file is replaced only by rename, never rewritten or
//! cut, and the directory's lock keeps other owners out. A journal is written in place, but only by its owner, who maps
//! none while it writes.
//!
//! A page that cannot be read would end the process with SIGBUS. So the system is asked for all pages before `look` sees one,
//! which makes an error of it. What is left is a foreign process that cuts the file between the two, or a page that the
//! system drops and cannot read again; `docs/durability.md` says so, and `LoadMode::Read` avoids both.
#![allow(unsafe_code, reason = "mapping a file cannot be expressed safely; see the argument at the block")]

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

use super::reading;

/// Lends the content of `file` to `look`. An error if its length changed meanwhile: then nothing that `look` saw counts.
pub(crate) fn with_mapped(file: &File, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    with_mapped_bytes(file, file.metadata()?.len(), look)
}

fn with_mapped_bytes(file: &File, bytes: u64, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    if bytes == 0 {
        // An empty mapping is an error on most systems.
        look(&[]);
        return Ok(());
    }
    let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // SAFETY: `MmapOptions::map` requires that the file is not modified while mapped. Files of a store are written under a
    // temporary name, synced, renamed and from then on only replaced or removed as a whole, both of which leave the
    // mapped inode as it is; the store's lock keeps a second owner out, and the directory is not writable by others.
    // The mapping ends with this function: `look` gets a borrow that cannot outlive it.
    let mapping = unsafe { MmapOptions::new().len(len).map(file)? };
    // One forward pass over everything follows; a failing hint changes nothing but speed.
    let _ = mapping.advise(memmap2::Advice::Sequential);
    for from in (0..len).step_by(STEP_BYTES) {
        let some = STEP_BYTES.min(len - from);
        if !is_populated(&mapping, from, some) {
            // The system cannot do that, or cannot read a page: reading tells which, and where.
            reading::check(file, from as u64, (from + some) as u64)?;
        }
    }
    look(&mapping);
    drop(mapping);
    if file.metadata()?.len() == bytes { Ok(()) } else { Err(reading::changed_length()) }
}

/// Has the system read these pages, and have them ready; false if it did not.
#[cfg(target_os = "linux")]
fn is_populated(mapping: &Mmap, from: usize, len: usize) -> bool {
    mapping.advise_range(memmap2::Advice::PopulateRead, from, len).is_ok()
}

/// Elsewhere reading the file brings its pages to where the mapping finds them.
#[cfg(not(target_os = "linux"))]
fn is_populated(_: &Mmap, _: usize, _: usize) -> bool {
    false
}

/// So many bytes are asked for at a time, a whole number of pages: one call takes some milliseconds.
const STEP_BYTES: usize = 8 << 20;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    /// To the system a page beyond the end of a file is the same as one that the disk cannot give back.
    #[test]
    fn pages_that_cannot_be_read_are_an_error_and_not_a_signal() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * 4096).unwrap();
        let mut seen = 0;
        let mut look = |bytes: &[u8]| seen = bytes.iter().filter(|byte| **byte == 0).count();
        with_mapped(&file, &mut look).unwrap();
        assert_eq!(seen, 3 * 4096);
        // As if it had been cut behind our look at its length.
        let mut looked = false;
        let error = with_mapped_bytes(&file, 40 * 4096, &mut |bytes: &[u8]| {
            looked = true;
            assert_eq!(bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 0);
        });
        assert_eq!(error.unwrap_err().to_string(), "the file changed its length");
        assert!(!looked, "it was handed out");
    }
}
