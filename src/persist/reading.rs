//! Reads files so that a block which the disk cannot give back is an error, with its place, and not the end of the process.
//!
//! What must hold: an error names the first byte that cannot be read; nothing is read beyond the length that was asked for.
#![forbid(unsafe_code)]

use core::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;

/// A file of which a part cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// The first byte that cannot, counted from the start of the file.
    pub(crate) offset: u64,
    /// What the system says.
    pub(crate) source: io::Error,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.source)
    }
}

impl core::error::Error for Unreadable {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<Unreadable> for io::Error {
    fn from(unreadable: Unreadable) -> Self {
        Self::new(unreadable.source.kind(), unreadable)
    }
}

/// What is told of a file that is not as long as it was a moment ago.
pub(crate) fn changed_length() -> io::Error {
    io::Error::other("the file changed its length")
}

/// All of a file that has this length, and of which nothing was read yet.
pub(crate) fn whole(file: &File, len: u64) -> io::Result<Vec<u8>> {
    // A size that no memory holds (of a sparse file, say) is an error, not an abort.
    let expected = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(expected).map_err(|_| io::ErrorKind::OutOfMemory)?;
    if let Err(source) = file.take(len).read_to_end(&mut bytes) {
        // What could be read before is there.
        return Err(Unreadable { offset: bytes.len() as u64, source }.into());
    }
    if bytes.len() == expected && file.read_at(&mut [0], len)? == 0 { Ok(bytes) } else { Err(changed_length()) }
}

/// Makes sure that these bytes can be read, by reading them.
pub(super) fn check(file: &File, from: u64, to: u64) -> io::Result<()> {
    let (mut at, mut buffer) = (from, vec![0; STEP_BYTES]);
    while at < to {
        let len = usize::try_from(to - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
        fill(file, at, buffer.get_mut(..len).unwrap_or_default())?;
        at += len as u64;
    }
    Ok(())
}

/// The system gives what it can read before a bad block, and the error with the next call: so the place is exact.
fn fill(file: &File, mut at: u64, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, at) {
            Ok(0) => return Err(changed_length()),
            Ok(read) => {
                bytes = bytes.get_mut(read..).unwrap_or_default();
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Unreadable { offset: at, source }.into()),
        }
    }
    Ok(())
}

/// As much at a time as stays in a processor's cache.
const STEP_BYTES: usize = 64 << 10;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    use std::io::Seek as _;

    #[test]
    fn a_whole_file_is_read_and_one_of_another_length_is_told() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let len = bytes.len() as u64;
        assert_eq!(whole(&file, len).unwrap(), bytes);
        check(&file, 0, len).unwrap();
        check(&file, 70_000, len).unwrap();
        for wrong in [len - 1, len + 1] {
            (&file).rewind().unwrap();
            assert_eq!(whole(&file, wrong).unwrap_err().to_string(), "the file changed its length");
        }
        assert!(check(&file, 0, len + 1).is_err());
        assert_eq!(whole(&file, u64::MAX >> 1).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }

    /// A directory can be opened, and not read.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a directory, of which no storage makes a file")]
    fn what_cannot_be_read_is_told_with_its_place() {
        let home = tempfile::tempdir().unwrap();
        let directory = File::open(home.path()).unwrap();
        let error = check(&directory, 4096, 8192).unwrap_err();
        let unreadable = error.downcast::<Unreadable>().unwrap();
        assert_eq!((unreadable.offset, unreadable.source.raw_os_error()), (4096, Some(21)));
    }
}
