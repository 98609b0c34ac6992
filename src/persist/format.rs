//! The bytes of a store's files. Pure, and the only file that names the codec; `docs/format.md` says the same in prose
//! and is normative.
//!
//! INVARIANT I-F1: equal store id, seed, generation and contents encode to equal bytes, whatever the history.
//! INVARIANT I-F2: no byte of a file is left unchecked: every single flipped bit and every other length is an error.
//! INVARIANT I-F3: decoding allocates in proportion to the bytes it was given, whatever they say.
#![forbid(unsafe_code)]

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::machine::tables::Tables;
use crate::map::TrustMap;
use crate::map::mix::Mix;
use crate::map::trie::Trie;
use crate::peer::NodeId;
use crate::time::Now;

mod entries;
#[cfg(all(feature = "__testing", not(all(test, trustkeep_loom))))]
pub(crate) mod tamper;
#[cfg(all(test, not(trustkeep_loom)))]
mod tests;

use entries::{Entry, FloorV1, OutgoingV1, PendingV1, RevokedV1, TrustedV1};

/// The newest format version, the one that is written.
pub(crate) const VERSION: u32 = 1;

/// Length of the header at the start of every file.
pub(crate) const HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"\x89TKEEP\r\n";
/// Length and checksum in front of each block.
const BLOCK_HEAD_BYTES: usize = 8;
/// The longest payload of a block.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Kind and number of entries at the start of each block's payload.
const PAYLOAD_HEAD_BYTES: usize = 5;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// All tables of one generation.
    Snapshot = 1,
    // 2 is kept for the journal.
    /// The mark that a directory holds a store.
    Genesis = 3,
}

/// Which store a file belongs to, and the seed that orders its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreId {
    pub(crate) id: [u8; 16],
    pub(crate) seed: u64,
}

/// The first 64 bytes of every file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) store: StoreId,
    pub(crate) generation: u64,
    pub(crate) file_bytes: u64,
}

/// What is wrong with a file, and from which byte on it cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) offset: u64,
    pub(crate) reason: String,
}

impl Damage {
    fn at<T>(offset: usize, reason: impl Into<String>) -> Result<T, FileError> {
        Err(FileError::Damaged(Self { offset: offset as u64, reason: reason.into() }))
    }
}

/// Why bytes are not a file of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileError {
    Damaged(Damage),
    /// Written by a newer release, with this format version.
    Newer(u32),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            for byte in part {
                if let Some(to) = bytes.get_mut(at) {
                    *to = *byte;
                }
                at += 1;
            }
        };
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&(self.kind as u32).to_le_bytes());
        put(&self.store.id);
        put(&self.store.seed.to_le_bytes());
        put(&self.generation.to_le_bytes());
        put(&self.file_bytes.to_le_bytes());
        put(&[0; 4]);
        let (checked, checksum) = bytes.split_at_mut(HEADER_BYTES - 4);
        checksum.copy_from_slice(&crc32fast::hash(checked).to_le_bytes());
        bytes
    }

    /// Checks magic, version, length and checksum, in this order.
    pub(crate) fn decode(file: &[u8], kind: Kind) -> Result<Self, FileError> {
        let Some((header, _)) = file.split_first_chunk::<HEADER_BYTES>() else {
            return Damage::at(file.len(), format!("{} bytes, too short for a header", file.len()));
        };
        let mut rest: &[u8] = header;
        if take::<8>(&mut rest) != MAGIC {
            return Damage::at(0, "not a file of a trust store");
        }
        let version = u32::from_le_bytes(take(&mut rest));
        if version > VERSION {
            // Only a header whose checksum holds is believed to come from a newer release.
            return if header_checksum_holds(header) {
                Err(FileError::Newer(version))
            } else {
                Damage::at(8, "the version is unknown and the header's checksum does not match")
            };
        }
        let found_kind = u32::from_le_bytes(take(&mut rest));
        let id = take(&mut rest);
        let seed = u64::from_le_bytes(take(&mut rest));
        let generation = u64::from_le_bytes(take(&mut rest));
        let file_bytes = u64::from_le_bytes(take(&mut rest));
        let reserved: [u8; 4] = take(&mut rest);
        if !header_checksum_holds(header) {
            return Damage::at(0, "the header's checksum does not match");
        }
        if version == 0 || reserved != [0; 4] {
            return Damage::at(8, "the header has values that no release writes");
        }
        if found_kind != kind as u32 {
            return Damage::at(12, format!("a file of kind {found_kind} under this name"));
        }
        if file_bytes != file.len() as u64 {
            let first_missing_or_extra = file.len().min(usize::try_from(file_bytes).unwrap_or(usize::MAX));
            return Damage::at(first_missing_or_extra, format!("{} bytes long instead of {file_bytes}", file.len()));
        }
        Ok(Self { kind, store: StoreId { id, seed }, generation, file_bytes })
    }
}

fn header_checksum_holds(header: &[u8; HEADER_BYTES]) -> bool {
    let (checked, checksum) = header.split_at(HEADER_BYTES - 4);
    crc32fast::hash(checked).to_le_bytes() == checksum
}

/// The first `N` bytes of `rest`, which then begins behind them; zeros where it is too short.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk::<N>() {
        Some((head, tail)) => {
            *rest = tail;
            *head
        }
        None => [0; N],
    }
}

/// The checksum of a block: of its payload, its place in the file, and the file it belongs to, so that neither a block
/// of another file nor one of another place passes.
fn block_checksum(file_tag: u32, index: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(file_tag);
    hasher.update(&index.to_le_bytes());
    hasher.update(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// What ties the blocks of a snapshot to it: a checksum over the header's fields but for the length, which is not known
/// before the last block is written.
fn file_tag(store: StoreId, generation: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&store.id);
    hasher.update(&store.seed.to_le_bytes());
    hasher.update(&generation.to_le_bytes());
    hasher.finalize()
}

/// Takes bytes and the offset at which they stand in the file.
pub(crate) type Sink<'a, E> = dyn FnMut(u64, &[u8]) -> Result<(), E> + 'a;

/// Encodes a snapshot block by block into `sink`, which gets (offset in the file, bytes), the header last.
///
/// Memory needed: one block.
pub(crate) fn encode_snapshot<E>(
    store: StoreId,
    generation: u64,
    tables: &Tables,
    sink: &mut Sink<'_, E>,
) -> Result<u64, E> {
    let mut blocks = BlockWriter {
        sink,
        file_tag: file_tag(store, generation),
        buf: vec![0; BLOCK_HEAD_BYTES + BLOCK_BYTES_MAX],
        used: 0,
        kind: 0,
        entries: 0,
        index: 0,
        offset: HEADER_BYTES as u64,
    };
    blocks.table(tables.trusted.iter().map(TrustedV1::from))?;
    blocks.table(tables.pending.iter().map(|(id, entry)| PendingV1::new(id, entry)))?;
    blocks.table(tables.outgoing.iter().map(|(id, entry)| OutgoingV1::new(id, entry)))?;
    blocks.table(tables.revoked.iter().map(|(id, at)| RevokedV1 { id, at: at.as_millis() }))?;
    blocks.table(tables.floors.iter().map(|(id, floor)| FloorV1::new(id, floor)))?;
    blocks.table(core::iter::once(EndV1 {
        trusted: tables.trusted.len() as u64,
        pending: tables.pending.len() as u64,
        outgoing: tables.outgoing.len() as u64,
        revoked: tables.revoked.len() as u64,
        floors: tables.floors.len() as u64,
    }))?;
    let file_bytes = blocks.offset;
    let header = Header { kind: Kind::Snapshot, store, generation, file_bytes };
    sink(0, &header.encode())?;
    Ok(file_bytes)
}

/// The last block: how many entries each table has, so that a missing block is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct EndV1 {
    trusted: u64,
    pending: u64,
    outgoing: u64,
    revoked: u64,
    floors: u64,
}

impl Entry for EndV1 {
    const KIND: u8 = 255;
}

struct BlockWriter<'a, 'b, E> {
    sink: &'a mut Sink<'b, E>,
    file_tag: u32,
    /// Block head, payload head, entries; written out when the next entry does not fit.
    buf: Vec<u8>,
    used: usize,
    kind: u8,
    entries: u32,
    index: u32,
    offset: u64,
}

impl<E> BlockWriter<'_, '_, E> {
    fn table<T: Entry>(&mut self, entries: impl Iterator<Item = T>) -> Result<(), E> {
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
    fn put<T: Entry>(&mut self, entry: &T) -> bool {
        let Some(room) = self.buf.get_mut(self.used..) else { return false };
        let Ok(bytes) = bincode::encode_into_slice(entry, room, CODEC) else { return false };
        self.used += bytes;
        self.entries += 1;
        true
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
        let checksum = block_checksum(self.file_tag, self.index, payload);
        if let Some((length, sum)) = head.split_first_chunk_mut::<4>() {
            *length = bytes.to_le_bytes();
            sum.copy_from_slice(&checksum.to_le_bytes());
        }
        (self.sink)(self.offset, self.buf.get(..self.used).unwrap_or_default())?;
        self.offset += self.used as u64;
        self.index += 1;
        self.used = BLOCK_HEAD_BYTES + PAYLOAD_HEAD_BYTES;
        self.entries = 0;
        Ok(())
    }
}

/// A snapshot read back.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) header: Header,
    pub(crate) tables: Tables,
}

/// Reads a whole snapshot: header, every block's checksum, every entry, and that they fit each other.
///
/// `now` turns the wall-clock times of pending and outgoing entries into ticks: an entry's age is counted from the wall
/// clock but never below zero, so that none lives longer than its lifetime from now.
pub(crate) fn decode_snapshot(file: &[u8], now: Now) -> Result<Snapshot, FileError> {
    let header = Header::decode(file, Kind::Snapshot)?;
    let mix = Mix::new(header.store.seed);
    let mut blocks =
        BlockReader { file, offset: HEADER_BYTES, index: 0, file_tag: file_tag(header.store, header.generation), mix };

    let trusted = blocks.table::<TrustedV1, _>(|entry| entry.read())?;
    let pending = blocks.table::<PendingV1, _>(|entry| entry.read(now))?;
    let outgoing = blocks.table::<OutgoingV1, _>(|entry| entry.read(now))?;
    let revoked = blocks.table::<RevokedV1, _>(|entry| entry.read())?;
    let floors = blocks.table::<FloorV1, _>(|entry| entry.read())?;
    let end_offset = blocks.offset;
    let mut end = None;
    blocks.each::<EndV1>(|_, entry| {
        end = Some(entry);
        Ok(())
    })?;
    let counts = EndV1 {
        trusted: trusted.len() as u64,
        pending: pending.len() as u64,
        outgoing: outgoing.len() as u64,
        revoked: revoked.len() as u64,
        floors: floors.len() as u64,
    };
    if end != Some(counts) {
        return Damage::at(end_offset, "the closing block does not match what came before");
    }
    if blocks.offset != file.len() {
        return Damage::at(blocks.offset, "bytes behind the closing block");
    }
    let tables = Tables {
        trusted: TrustMap::from_sorted(mix, trusted.into_iter().map(|(_, record)| record)),
        pending: Trie::from_sorted(mix, pending.into_iter().map(|(id, entry)| (id, Arc::new(entry)))),
        outgoing: Trie::from_sorted(mix, outgoing.into_iter().map(|(id, entry)| (id, Arc::new(entry)))),
        revoked: Trie::from_sorted(mix, revoked.into_iter()),
        floors: Trie::from_sorted(mix, floors.into_iter()),
    };
    if tables.revoked.iter().any(|(id, _)| NodeId::new(id).is_some_and(|peer| tables.trusted.contains(peer))) {
        return Damage::at(HEADER_BYTES, "a peer is both trusted and revoked");
    }
    Ok(Snapshot { header, tables })
}

struct BlockReader<'a> {
    file: &'a [u8],
    offset: usize,
    index: u32,
    file_tag: u32,
    mix: Mix,
}

impl BlockReader<'_> {
    /// All entries of one table, which must come in ascending order of place.
    fn table<T: Entry + IdOf, V>(
        &mut self,
        mut read: impl FnMut(T) -> Result<V, &'static str>,
    ) -> Result<Vec<(u32, V)>, FileError> {
        let mut entries = Vec::new();
        let mut last = None;
        let mix = self.mix;
        self.each::<T>(|offset, entry| {
            let id = entry.id();
            let place = Some(mix.mix(id));
            if NodeId::new(id).is_none() {
                return Damage::at(offset, "an entry with node id 0");
            }
            if place <= last {
                return Damage::at(offset, "entries out of order");
            }
            last = place;
            match read(entry) {
                Ok(value) => entries.push((id, value)),
                Err(reason) => return Damage::at(offset, reason),
            }
            Ok(())
        })?;
        Ok(entries)
    }

    /// Hands out every entry of the following blocks of this kind, with the block's offset.
    fn each<T: Entry>(&mut self, mut found: impl FnMut(usize, T) -> Result<(), FileError>) -> Result<(), FileError> {
        while self.offset < self.file.len() {
            let start = self.offset;
            let mut rest = self.file.get(start..).unwrap_or_default();
            if rest.len() < BLOCK_HEAD_BYTES + PAYLOAD_HEAD_BYTES {
                return Damage::at(start, "a block is cut off");
            }
            let bytes = u32::from_le_bytes(take(&mut rest)) as usize;
            let checksum = u32::from_le_bytes(take(&mut rest));
            if !(PAYLOAD_HEAD_BYTES..=BLOCK_BYTES_MAX).contains(&bytes) {
                return Damage::at(start, format!("a block of {bytes} bytes"));
            }
            let Some(payload) = rest.get(..bytes) else { return Damage::at(start, "a block is cut off") };
            if block_checksum(self.file_tag, self.index, payload) != checksum {
                return Damage::at(start, "a block's checksum does not match");
            }
            let mut entries = payload;
            let [kind] = take(&mut entries);
            if kind != T::KIND {
                return Ok(());
            }
            let count = u32::from_le_bytes(take(&mut entries));
            for _ in 0..count {
                let Ok((entry, used)) = bincode::decode_from_slice::<T, _>(entries, CODEC) else {
                    return Damage::at(start, "a block holds something that is no entry");
                };
                entries = entries.get(used..).unwrap_or_default();
                found(start, entry)?;
            }
            if count == 0 || !entries.is_empty() {
                return Damage::at(start, "a block's count does not match its entries");
            }
            self.offset = start + BLOCK_HEAD_BYTES + bytes;
            self.index += 1;
        }
        Ok(())
    }
}

/// The id of an entry that has one.
trait IdOf {
    fn id(&self) -> u32;
}

macro_rules! ids {
    ($($entry:ty),*) => { $(impl IdOf for $entry { fn id(&self) -> u32 { self.id } })* };
}
ids!(TrustedV1, PendingV1, OutgoingV1, RevokedV1, FloorV1);

/// Fixed-width little-endian integers and, whatever a length field says, no allocation beyond one block.
const CODEC: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<BLOCK_BYTES_MAX>,
> = bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<BLOCK_BYTES_MAX>();
