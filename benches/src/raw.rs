//! The least that a durable change can cost: one write and one fdatasync.
//!
//! What must hold: the file whose space was taken ahead never changes its length, and its blocks are on the disk before
//! the first measured write, so that fdatasync has nothing but data to write.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// A file that gets small records, each of them durable before the next.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    record: Vec<u8>,
    at: u64,
    /// Where to go on from the start; the file grows for ever if this is `None`.
    end: Option<u64>,
}

impl RawFile {
    /// A new file whose space is taken by durable zeros. Records go on from its start when they have filled it.
    ///
    /// # Errors
    /// As of the file.
    pub fn taken_ahead(path: &Path, record_bytes: usize) -> io::Result<Self> {
        let mut raw = Self::growing(path, record_bytes)?;
        let zeros = vec![0; CHUNK_BYTES];
        for chunk in 0..CHUNKS {
            raw.file.write_all_at(&zeros, chunk * CHUNK_BYTES as u64)?;
        }
        raw.file.sync_all()?;
        raw.end = Some(CHUNKS * CHUNK_BYTES as u64);
        Ok(raw)
    }

    /// A new file that grows with each record.
    ///
    /// # Errors
    /// As of the file.
    pub fn growing(path: &Path, record_bytes: usize) -> io::Result<Self> {
        let file = File::create_new(path)?;
        file.sync_all()?;
        Ok(Self { file, record: vec![0x5a; record_bytes], at: 0, end: None })
    }

    /// Writes one record behind the last one; durable when this returns.
    ///
    /// # Errors
    /// As of the file.
    pub fn append(&mut self) -> io::Result<()> {
        let bytes = self.record.len() as u64;
        if self.end.is_some_and(|end| self.at + bytes > end) {
            self.at = 0;
        }
        // No record is equal to the one whose place it may take.
        if let Some(first) = self.record.first_mut() {
            *first = first.wrapping_add(1);
        }
        self.file.write_all_at(&self.record, self.at)?;
        self.at += bytes;
        self.file.sync_data()
    }
}

const CHUNK_BYTES: usize = 1 << 20;
const CHUNKS: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_taken_ahead_is_neither_a_hole_nor_left() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = crate::directory::temporary(None).unwrap();
        let path = dir.path().join("ahead");
        let mut raw = RawFile::taken_ahead(&path, 100_000).unwrap();
        let length = CHUNKS * CHUNK_BYTES as u64;
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.len(), length);
        assert!(metadata.blocks() * 512 >= length, "a hole: {} blocks", metadata.blocks());
        for _ in 0..=length / 100_000 {
            raw.append().unwrap();
        }
        assert_eq!(path.metadata().unwrap().len(), length);
        // It went on from the start.
        assert_eq!(raw.at, 100_000);
        assert!(RawFile::taken_ahead(&path, 64).is_err(), "somebody's file was overwritten");
    }

    #[test]
    fn a_growing_file_grows_by_its_records() {
        let dir = crate::directory::temporary(None).unwrap();
        let path = dir.path().join("growing");
        let mut raw = RawFile::growing(&path, 64).unwrap();
        for _ in 0..3 {
            raw.append().unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 192);
        assert_eq!([bytes[0], bytes[64], bytes[128]], [0x5b, 0x5c, 0x5d]);
    }
}
