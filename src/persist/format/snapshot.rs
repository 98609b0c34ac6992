//! A whole state: header, all tables block by block, and a closing block with their counts.
#![forbid(unsafe_code)]

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::blocks::{Block, BlockWriter, Sink};
use super::entries::{Entry, EntryV2, KeyOf, Put, TRUSTED_BYTES_MIN, TrustedV1};
use super::stored::{StoredKey, StoredValue};
use super::version_1::{FloorV1, Old, OutgoingV1, PendingV1, RevokedV1};
use super::{Damage, FileError, HEADER_BYTES, Header, Kind, STATE_VERSION, StoreId};
use crate::map::TrustMap;
use crate::map::mix::Mix;
use crate::peer::NodeId;
use crate::tables::table::Table;
use crate::tables::{Sides, Tables, side_tables};
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
    encode_sides(&mut blocks, &tables.sides)?;
    let (trusted, sides) = (tables.trusted.len() as u64, counts(&tables.sides));
    blocks.table(core::iter::once(EndV2 { sides, trusted }))?;
    let file_bytes = blocks.offset;
    let header = Header { version: STATE_VERSION, kind: Kind::Snapshot, store, generation, file_bytes };
    sink(0, &header.encode())?;
    Ok(file_bytes)
}

macro_rules! by_table {
    ($($(#[$doc:meta])* $number:literal $field:ident $variant:ident $key:ty, $entry:ty => $table:ty;)*) => {
        fn encode_sides<E>(blocks: &mut BlockWriter<'_, '_, E>, sides: &Sides) -> Result<(), E> {
            $(blocks.table(sides.$field.iter().map(|(key, entry)| {
                EntryV2::<$number, $key, _> { key: key.stored(), value: entry.stored() }
            }))?;)*
            Ok(())
        }

        fn counts(sides: &Sides) -> Vec<(u8, u64)> {
            [$(($number, sides.$field.len() as u64)),*].into_iter().filter(|(_, count)| *count > 0).collect()
        }

        fn decode_sides(blocks: &mut Reader<'_>, now: Now) -> Result<Sides, FileError> {
            Ok(Sides { $($field: blocks.side_table::<$number, $table>(now)?,)* })
        }
    };
}
side_tables!(by_table);

/// The last block: how many entries each table has that has any, so that a missing block is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct EndV2 {
    sides: Vec<(u8, u64)>,
    /// Last, so that it stands at the end of the file.
    trusted: u64,
}

/// The last block of version 1.
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
    let (version, file_tag) = (header.version, file_tag(header.store, header.generation));
    let mut blocks = Reader { file, offset: HEADER_BYTES, file_tag, mix };

    // Straight into the map: a list of a million records in between took as long as all the rest.
    let trusted = TrustMap::fill(mix, expected_trusted(file, version), |into| {
        blocks.trusted(|place, entry| entry.read().map(|value| into.push(place, value)))
    })?;
    let sides = if version == 1 { blocks.sides_of_version_1(mix, now)? } else { decode_sides(&mut blocks, now)? };
    let tables = Tables { trusted, sides: Arc::new(sides) };
    let end_offset = blocks.offset;
    let is_right = if version == 1 {
        let sides = &tables.sides;
        let (pending, outgoing) = (sides.pending.len() as u64, sides.outgoing.len() as u64);
        let (revoked, floors) = (sides.revoked.len() as u64, sides.floors.len() as u64);
        blocks.end()? == Some(EndV1 { trusted: tables.trusted.len() as u64, pending, outgoing, revoked, floors })
    } else {
        blocks.end()? == Some(EndV2 { sides: counts(&tables.sides), trusted: tables.trusted.len() as u64 })
    };
    if !is_right {
        return Damage::at(end_offset, "the closing block does not match what came before");
    }
    if blocks.offset != file.len() {
        return Damage::at(blocks.offset, "bytes behind the closing block");
    }
    if tables.trusted_and_revoked().is_some() {
        return Damage::at(HEADER_BYTES, "a peer is both trusted and revoked");
    }
    Ok(Snapshot { header, tables })
}

/// How many trusted records the last block says there are, before anybody knows whether it is right: no more than fit in.
fn expected_trusted(file: &[u8], version: u32) -> usize {
    let from_end = if version == 1 { size_of::<EndV1>() } else { size_of::<u64>() };
    let at = file.len().saturating_sub(from_end);
    let claimed = file.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    usize::try_from(claimed).unwrap_or(usize::MAX).min(file.len() / TRUSTED_BYTES_MIN)
}

/// How many trusted peers there are, if this is the closing block of a snapshot of this version.
#[cfg(feature = "cli")]
pub(super) fn trusted_in(block: &Block<'_>, version: u32) -> Option<u64> {
    let mut trusted = None;
    let read = match block.kind {
        EndV1::KIND if version == 1 => block.each(|end: EndV1| {
            trusted = Some(end.trusted);
            Ok(())
        }),
        EndV2::KIND if version != 1 => block.each(|end: EndV2| {
            trusted = Some(end.trusted);
            Ok(())
        }),
        _ => return None,
    };
    read.ok().and(trusted)
}

struct Reader<'a> {
    file: &'a [u8],
    offset: usize,
    file_tag: u32,
    mix: Mix,
}

impl<'a> Reader<'a> {
    /// One table.
    fn side_table<const TABLE: u8, T>(&mut self, now: Now) -> Result<T, FileError>
    where
        T: Table<Key: StoredKey, Entry: StoredValue>,
    {
        self.table(|entry: EntryV2<TABLE, T::Key, <T::Entry as StoredValue>::Stored>| T::Entry::read(entry.value, now))
    }

    /// The tables of version 1; it has no others.
    fn sides_of_version_1(&mut self, mix: Mix, now: Now) -> Result<Sides, FileError> {
        let none = Sides::clone(&Tables::new(mix).sides);
        Ok(Sides {
            pending: self.table(|entry: PendingV1| entry.read(now))?,
            outgoing: self.table(|entry: OutgoingV1| entry.read(now))?,
            revoked: self.table(|entry: RevokedV1| entry.read(now))?,
            floors: self.table(|entry: FloorV1| entry.read(now))?,
            ..none
        })
    }

    /// All entries of one table.
    fn table<E: Entry + KeyOf<Key = T::Key>, T: Table>(
        &mut self,
        read: impl Fn(E) -> Result<T::Entry, &'static str>,
    ) -> Result<T, FileError> {
        let (mix, mut entries, mut newest) = (self.mix, Vec::new(), None);
        self.each::<E>(|offset, entry| {
            let damaged = |reason| Damage { offset: offset as u64, reason: String::from(reason) };
            let key = entry.key().map_err(damaged)?;
            let order = T::order(mix, key);
            if newest.replace(order).is_some_and(|before| order <= before) {
                return Damage::at(offset, "entries out of order");
            }
            entries.push((key, read(entry).map_err(damaged)?));
            Ok(())
        })?;
        Ok(T::from_sorted(mix, entries))
    }

    /// The closing block, if it is one.
    fn end<E: Entry>(&mut self) -> Result<Option<E>, FileError> {
        let mut end = None;
        self.each::<E>(|_, entry| {
            end = Some(entry);
            Ok(())
        })?;
        Ok(end)
    }

    /// Hands out all trusted records with their places.
    fn trusted(
        &mut self,
        mut found: impl FnMut(u32, TrustedV1<'_>) -> Result<(), &'static str>,
    ) -> Result<(), FileError> {
        let mut order = Order::new(self.mix);
        while let Some(block) = self.block(TrustedV1::KIND)? {
            block.each_trusted(|entry| {
                let place = order.next(block.offset, entry.number())?;
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
