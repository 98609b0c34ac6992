//! Maps a file into memory, lends its bytes to a closure, unmaps it. The mapping never leaves this file.
//!
//! Two rules make the bytes stay as they are meanwhile: a published file is replaced only by rename, never rewritten or
//! cut, and the directory's lock keeps other owners out. A foreign process that cuts the file nevertheless would stop
//! this one with SIGBUS; `docs/durability.md` says so, and `LoadMode::Read` avoids it.
#![allow(unsafe_code, reason = "mapping a file cannot be expressed safely; see the argument at the block")]

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// Lends the content of `file` to `look`. An error if its length changed meanwhile: then nothing that `look` saw counts.
pub(crate) fn with_mapped(file: &File, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        // An empty mapping is an error on most systems.
        look(&[]);
        return Ok(());
    }
    // SAFETY: `Mmap::map` requires that the file is not modified while mapped. Files of a store are written under a
    // temporary name, synced, renamed and from then on only replaced or removed as a whole, both of which leave the
    // mapped inode as it is; the store's lock keeps a second owner out, and the directory is not writable by others.
    // The mapping ends with this function: `look` gets a borrow that cannot outlive it.
    let mapping = unsafe { Mmap::map(file)? };
    // One forward pass over everything follows; a failing hint changes nothing but speed.
    let _ = mapping.advise(memmap2::Advice::Sequential);
    look(&mapping);
    drop(mapping);
    if file.metadata()?.len() == bytes { Ok(()) } else { Err(io::Error::other("the file changed its length")) }
}
