//! A whole state: header, all tables block by block, and a closing block with their counts.
#![forbid(unsafe_code)]

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::blocks::{Block, BlockWriter, Sink};
use super::entries::{Entry, FloorV1, IdOf, OutgoingV1, PendingV1, Put, RevokedV1, TRUSTED_BYTES_MIN, TrustedV1};
use super::{Damage, FileError, HEADER_BYTES, Header, Kind, StoreId};
use crate::machine::tables::Tables;
use crate::map::TrustMap;
use crate::map::mix::Mix;
use crate::map::trie::Trie;
use crate::peer::NodeId;
use crate::time::Now;

/// What ties the blocks of a snapshot to it: a checksum over the header's fields but for the length, which is not known
/// before the last block is written.
pub(super) fn file_tag(store: StoreId, generation: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&store.id);
    hasher.update(&store.seed.to_le_bytes());
    hasher.update(&generation.to_le_bytes());
    hasher.finalize()
}

/// Encodes a snapshot block by block into `sink`, which gets (offset in the file, bytes), the header last.
///
/// Memory needed: one block.
pub(crate) fn encode_snapshot<E>(
    store: StoreId,
    generation: u64,
    tables: &Tables,
    sink: &mut Sink<'_, E>,
) -> Result<u64, E> {
    let mut blocks = BlockWriter::new(sink, file_tag(store, generation), HEADER_BYTES as u64);
    blocks.table(tables.trusted.values().map(|(id, value)| TrustedV1::new(id.get(), value)))?;
    blocks.table(tables.pending.iter().map(|(id, entry)| PendingV1::new(id, entry)))?;
    blocks.table(tables.outgoing.iter().map(|(id, entry)| OutgoingV1::new(id, entry)))?;
    blocks.table(tables.revoked.iter().map(|(id, at)| RevokedV1::new(id, *at)))?;
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
pub(super) struct EndV1 {
    trusted: u64,
    pending: u64,
    outgoing: u64,
    revoked: u64,
    floors: u64,
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
    let mut blocks = Reader { file, offset: HEADER_BYTES, file_tag: file_tag(header.store, header.generation), mix };

    // Straight into the map: a list of a million records in between took as long as all the rest.
    let trusted = TrustMap::fill(mix, expected_trusted(file), |into| {
        blocks.trusted(|place, entry| entry.read().map(|value| into.push(place, value)))
    })?;
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
        trusted,
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

/// How many trusted records the last block says there are, before anybody knows whether it is right: no more than fit in.
fn expected_trusted(file: &[u8]) -> usize {
    let at = file.len().saturating_sub(size_of::<EndV1>());
    let claimed = file.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    usize::try_from(claimed).unwrap_or(usize::MAX).min(file.len() / TRUSTED_BYTES_MIN)
}

struct Reader<'a> {
    file: &'a [u8],
    offset: usize,
    file_tag: u32,
    mix: Mix,
}

impl<'a> Reader<'a> {
    /// All entries of one table.
    fn table<T: Entry + IdOf, V>(
        &mut self,
        read: impl Fn(T) -> Result<V, &'static str>,
    ) -> Result<Vec<(u32, V)>, FileError> {
        let mut entries = Vec::new();
        let mut order = Order::new(self.mix);
        self.each::<T>(|offset, entry| {
            let id = entry.id();
            order.next(offset, id)?;
            read(entry).map(|value| entries.push((id, value))).or_else(|reason| Damage::at(offset, reason))
        })?;
        Ok(entries)
    }

    /// Hands out all trusted records with their places.
    fn trusted(
        &mut self,
        mut found: impl FnMut(u32, TrustedV1<'_>) -> Result<(), &'static str>,
    ) -> Result<(), FileError> {
        let mut order = Order::new(self.mix);
        while let Some(block) = self.block(TrustedV1::KIND)? {
            block.each_trusted(|entry| {
                let place = order.next(block.offset, entry.id())?;
                found(place, entry).or_else(|reason| Damage::at(block.offset, reason))
            })?;
        }
        Ok(())
    }

    /// Hands out every entry of the following blocks of this kind, with the block's offset.
    fn each<T: Entry>(&mut self, mut found: impl FnMut(usize, T) -> Result<(), FileError>) -> Result<(), FileError> {
        while let Some(block) = self.block(T::KIND)? {
            block.each(|entry| found(block.offset, entry))?;
        }
        Ok(())
    }

    /// The next block, if it is of this kind.
    fn block(&mut self, kind: u8) -> Result<Option<Block<'a>>, FileError> {
        if self.offset >= self.file.len() {
            return Ok(None);
        }
        let block = Block::at(self.file, self.offset, self.file_tag)?;
        if block.kind != kind {
            return Ok(None);
        }
        self.offset = block.end;
        Ok(Some(block))
    }
}

/// That the places of a table's entries ascend.
struct Order {
    mix: Mix,
    /// The first place that the next entry may have.
    least: u64,
}

impl Order {
    fn new(mix: Mix) -> Self {
        Self { mix, least: 0 }
    }

    /// The place of the next entry, in the block at this offset.
    #[inline]
    fn next(&mut self, offset: usize, id: u32) -> Result<u32, FileError> {
        let place = self.mix.mix(id);
        if NodeId::new(id).is_none() {
            return Damage::at(offset, "an entry with node id 0");
        }
        if u64::from(place) < self.least {
            return Damage::at(offset, "entries out of order");
        }
        self.least = u64::from(place) + 1;
        Ok(place)
    }
}
