//! Blocks: entries of one kind with a checksum over them, their place and their file; what snapshots and journals consist
//! of. Memory for either direction is one block.
#![forbid(unsafe_code)]

use super::entries::{Entry, Put, TrustedV1};
use super::{Damage, FileError, take};

/// Length and checksum in front of each block.
pub(super) const BLOCK_HEAD_BYTES: usize = 8;
/// The longest payload of a block.
pub(super) const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Kind and number of entries at the start of each block's payload.
pub(super) const PAYLOAD_HEAD_BYTES: usize = 5;

/// Takes bytes and the offset at which they stand in the file.
pub(crate) type Sink<'a, E> = dyn FnMut(u64, &[u8]) -> Result<(), E> + 'a;

/// The checksum of a block: of its payload, its place in the file, and the file it belongs to, so that neither a block
/// of another file nor one of another place passes.
pub(super) fn block_checksum(file_tag: u32, offset: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(file_tag);
    hasher.update(&offset.to_le_bytes());
    hasher.update(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Writes entries block by block into a sink.
pub(super) struct BlockWriter<'a, 'b, E> {
    sink: &'a mut Sink<'b, E>,
    file_tag: u32,
    /// Block head, payload head, entries; written out when the next entry does not fit.
    buf: Vec<u8>,
    used: usize,
    kind: u8,
    entries: u32,
    /// How many blocks have been written.
    pub(super) blocks: u64,
    /// Where the next block will stand.
    pub(super) offset: u64,
}

impl<'a, 'b, E> BlockWriter<'a, 'b, E> {
    pub(super) fn new(sink: &'a mut Sink<'b, E>, file_tag: u32, offset: u64) -> Self {
        Self { sink, file_tag, buf: Vec::new(), used: 0, kind: 0, entries: 0, blocks: 0, offset }
    }

    /// Writes these entries, in as few blocks as they fit in; none if there are none.
    pub(super) fn table<T: Put>(&mut self, entries: impl Iterator<Item = T>) -> Result<(), E> {
        self.kind = T::KIND;
        self.used = BLOCK_HEAD_BYTES + PAYLOAD_HEAD_BYTES;
        for entry in entries {
            if !self.put(&entry) {
                self.finish()?;
                let fits = self.put(&entry);
                debug_assert!(fits, "an entry is larger than a block");
            }
        }
        if self.entries > 0 { self.finish() } else { Ok(()) }
    }

    /// Appends the entry to the block; false if it does not fit.
    fn put<T: Put>(&mut self, entry: &T) -> bool {
        loop {
            if let Some(room) = self.buf.get_mut(self.used..)
                && let Some(bytes) = entry.put(room)
            {
                self.used += bytes;
                self.entries += 1;
                return true;
            }
            // Most groups of a journal are far smaller than a block: memory grows as needed.
            if self.buf.len() >= BLOCK_HEAD_BYTES + BLOCK_BYTES_MAX {
                return false;
            }
            self.buf.resize((4 * self.buf.len()).clamp(FIRST_BUF_BYTES, BLOCK_HEAD_BYTES + BLOCK_BYTES_MAX), 0);
        }
    }

    fn finish(&mut self) -> Result<(), E> {
        let (head, payload) = self.buf.split_at_mut(BLOCK_HEAD_BYTES);
        let payload = payload.split_at_mut(self.used - BLOCK_HEAD_BYTES).0;
        if let Some((kind, rest)) = payload.split_first_mut() {
            *kind = self.kind;
            if let Some(count) = rest.first_chunk_mut::<4>() {
                *count = self.entries.to_le_bytes();
            }
        }
        let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let checksum = block_checksum(self.file_tag, self.offset, payload);
        if let Some((length, sum)) = head.split_first_chunk_mut::<4>() {
            *length = bytes.to_le_bytes();
            sum.copy_from_slice(&checksum.to_le_bytes());
        }
        (self.sink)(self.offset, self.buf.get(..self.used).unwrap_or_default())?;
        self.offset += self.used as u64;
        self.blocks += 1;
        self.used = BLOCK_HEAD_BYTES + PAYLOAD_HEAD_BYTES;
        self.entries = 0;
        Ok(())
    }
}

/// A block whose checksum holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    pub(super) offset: usize,
    /// Where the next one begins.
    pub(super) end: usize,
    pub(super) kind: u8,
    count: u32,
    entries: &'a [u8],
}

impl<'a> Block<'a> {
    /// The block that begins here.
    pub(super) fn at(file: &'a [u8], offset: usize, file_tag: u32) -> Result<Self, FileError> {
        let mut rest = file.get(offset..).unwrap_or_default();
        if rest.len() < BLOCK_HEAD_BYTES + PAYLOAD_HEAD_BYTES {
            return Damage::at(offset, "a block is cut off");
        }
        let bytes = u32::from_le_bytes(take(&mut rest)) as usize;
        let checksum = u32::from_le_bytes(take(&mut rest));
        if !(PAYLOAD_HEAD_BYTES..=BLOCK_BYTES_MAX).contains(&bytes) {
            return Damage::at(offset, format!("a block of {bytes} bytes"));
        }
        let Some(payload) = rest.get(..bytes) else { return Damage::at(offset, "a block is cut off") };
        if block_checksum(file_tag, offset as u64, payload) != checksum {
            return Damage::at(offset, "a block's checksum does not match");
        }
        Ok(Self::of(offset, payload))
    }

    /// The block with this payload, whatever its checksum is.
    pub(super) fn of(offset: usize, payload: &'a [u8]) -> Self {
        let mut entries = payload;
        let [kind] = take(&mut entries);
        let count = u32::from_le_bytes(take(&mut entries));
        Self { offset, end: offset + BLOCK_HEAD_BYTES + payload.len(), kind, count, entries }
    }

    /// Hands out every entry.
    pub(super) fn each<T: Entry>(&self, found: impl FnMut(T) -> Result<(), FileError>) -> Result<(), FileError> {
        self.each_by(T::take, found)
    }

    /// The same for trusted records.
    #[inline]
    pub(super) fn each_trusted(
        &self,
        found: impl FnMut(TrustedV1<'a>) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        self.each_by(TrustedV1::take, found)
    }

    #[inline]
    fn each_by<T>(
        &self,
        take: impl Fn(&'a [u8]) -> Option<(T, usize)>,
        mut found: impl FnMut(T) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let mut entries = self.entries;
        for _ in 0..self.count {
            let Some((entry, used)) = take(entries) else {
                return Damage::at(self.offset, "a block holds something that is no entry");
            };
            entries = entries.get(used..).unwrap_or_default();
            found(entry)?;
        }
        if self.count == 0 || !entries.is_empty() {
            return Damage::at(self.offset, "a block's count does not match its entries");
        }
        Ok(())
    }
}

const FIRST_BUF_BYTES: usize = 1024;
