//! A journal: two headers, room for a closing mark, then groups of blocks, each the difference of two generations.
//!
//! A group counts if its closing commit does, so that it is read as a whole or not at all, whatever its size. The file
//! has its full length from the beginning, with zeros where nothing is written yet; nothing but those and the watermark is ever
//! overwritten.
#![forbid(unsafe_code)]

use core::convert::Infallible;

use bincode::{Decode, Encode};

use super::blocks::{BlockWriter, Sink};
use super::entries::{EntryV2, GoneV1, TrustedV1};
use super::stored::{StoredKey as _, StoredValue as _};
use super::{Damage, FileError, HEADER_BYTES, Header, Kind, StoreId, is_sealed, seal, take};
use crate::tables::difference::{Difference, SideDiffs};
use crate::tables::side_tables;

/// Which earlier journal one goes on from, and how many bytes of that count: the rest of it is a group that failed, or
/// was torn, or is written again in the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) seq: u64,
    pub(crate) bytes: u64,
}

/// The first two headers of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalHead {
    /// The format version; [`VERSION`](super::VERSION) in what is written.
    pub(crate) version: u32,
    pub(crate) store: StoreId,
    /// The generation that the first group begins from.
    pub(crate) base: u64,
    /// Its number, by which it is named; a later journal has a higher one.
    pub(crate) seq: u64,
    /// Random, so that no block of an earlier file with the same number, store and place ever passes for one of this.
    pub(crate) file_seed: u64,
    pub(crate) previous: Option<Previous>,
    /// Length of the whole file, which never changes; 0 in one that was written when journals still grew.
    pub(crate) file_bytes: u64,
}

impl JournalHead {
    pub(crate) const BYTES: usize = 2 * HEADER_BYTES;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let (version, store, generation, file_bytes) = (self.version, self.store, self.base, self.file_bytes);
        let first = Header { version, kind: Kind::Journal, store, generation, file_bytes }.encode();
        let previous = self.previous.unwrap_or(Previous { seq: 0, bytes: 0 });
        let second: [u8; HEADER_BYTES] = seal(&[
            &self.seq.to_le_bytes(),
            &self.file_seed.to_le_bytes(),
            &u32::from(self.previous.is_some()).to_le_bytes(),
            &previous.seq.to_le_bytes(),
            &previous.bytes.to_le_bytes(),
        ]);
        let mut bytes = [0; Self::BYTES];
        let (to_first, to_second) = bytes.split_at_mut(HEADER_BYTES);
        to_first.copy_from_slice(&first);
        to_second.copy_from_slice(&second);
        bytes
    }

    pub(crate) fn decode(file: &[u8]) -> Result<Self, FileError> {
        let header = Header::decode_any_length(file, Kind::Journal)?;
        if header.file_bytes != 0 {
            header.check_length(file)?;
        }
        Self::decode_any_length(file)
    }

    /// The same without the length.
    pub(super) fn decode_any_length(file: &[u8]) -> Result<Self, FileError> {
        let header = Header::decode_any_length(file, Kind::Journal)?;
        let Header { version, store, generation: base, file_bytes, .. } = header;
        let Some(second) = file.get(HEADER_BYTES..).and_then(|rest| rest.first_chunk::<HEADER_BYTES>()) else {
            return Damage::at(file.len(), format!("{} bytes, too short for a journal", file.len()));
        };
        if !is_sealed(second) {
            return Damage::at(HEADER_BYTES, "the second header's checksum does not match");
        }
        let mut rest: &[u8] = second;
        let (seq, file_seed) = (u64::from_le_bytes(take(&mut rest)), u64::from_le_bytes(take(&mut rest)));
        let has_previous = u32::from_le_bytes(take(&mut rest));
        let previous =
            Previous { seq: u64::from_le_bytes(take(&mut rest)), bytes: u64::from_le_bytes(take(&mut rest)) };
        let previous = (has_previous == 1).then_some(previous);
        let head = Self { version, store, base, seq, file_seed, previous, file_bytes };
        if head.encode().get(HEADER_BYTES..) != Some(second) {
            return Damage::at(HEADER_BYTES, "the headers have values that no release writes");
        }
        if head.previous.is_some_and(|previous| previous.seq >= seq) {
            return Damage::at(HEADER_BYTES, "goes on from a journal that is no earlier one");
        }
        Ok(head)
    }

    /// What ties marks and blocks to this file.
    pub(crate) fn file_tag(&self) -> u32 {
        tag_of(&self.encode(), self.file_bytes == 0)
    }
}

/// The tag of the journal with these headers. A checksum over what ends in its own checksum is the same whatever it is
/// over, so these are left out; when journals `grew` they were not, and all had the same tag.
pub(super) fn tag_of(headers: &[u8], grew: bool) -> u32 {
    if grew {
        return crc32fast::hash(headers);
    }
    let mut tag = crc32fast::Hasher::new();
    for header in headers.chunks(HEADER_BYTES) {
        tag.update(header.get(..HEADER_BYTES - 4).unwrap_or(header));
    }
    tag.finalize()
}

/// What stands at [`MARK_AT`] once nothing will be appended any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Another journal goes on from here, and must be there.
    pub(crate) continued: bool,
    /// The newest generation in the file.
    pub(crate) generation: u64,
    /// Where its last group ends.
    pub(crate) used_bytes: u64,
    pub(crate) file_bytes: u64,
}

impl Mark {
    pub(crate) const BYTES: usize = HEADER_BYTES;

    pub(crate) fn encode(&self, file_tag: u32) -> [u8; Self::BYTES] {
        seal(&[
            MARK_MAGIC,
            &(1 + u32::from(self.continued)).to_le_bytes(),
            &file_tag.to_le_bytes(),
            &self.generation.to_le_bytes(),
            &self.used_bytes.to_le_bytes(),
            &self.file_bytes.to_le_bytes(),
        ])
    }

    /// The mark, if there is one. Zeros are none, and so is one byte that is spoilt among them; what ends in zeros may have been
    /// cut short while it was written, which shows when it is known what it should say; anything else is damage.
    pub(super) fn decode(file: &[u8], file_tag: u32) -> Result<Found<'_>, FileError> {
        let at = usize::try_from(MARK_AT).unwrap_or(usize::MAX);
        let Some(bytes) = file.get(at..).and_then(|rest| rest.first_chunk::<{ Self::BYTES }>()) else {
            return Damage::at(file.len(), "too short for a journal");
        };
        let is_begun = bytes.first() == MARK_MAGIC.first();
        if bytes.iter().filter(|byte| **byte != 0).count() <= usize::from(!is_begun) {
            return Ok(Found::Nothing);
        }
        let mut rest = bytes.get(MARK_MAGIC.len()..).unwrap_or_default();
        let kind = u32::from_le_bytes(take(&mut rest));
        let _tag: [u8; 4] = take(&mut rest);
        let mark = Self {
            continued: kind == 2,
            generation: u64::from_le_bytes(take(&mut rest)),
            used_bytes: u64::from_le_bytes(take(&mut rest)),
            file_bytes: u64::from_le_bytes(take(&mut rest)),
        };
        match bytes {
            _ if mark.encode(file_tag) == *bytes => Ok(Found::Whole(mark)),
            [.., 0] => Ok(Found::Begun(bytes)),
            _ => Damage::at(at, MARK_IS_WRONG),
        }
    }

    /// Whether these bytes are this mark up to some byte, and zeros from there on.
    pub(super) fn begins(&self, file_tag: u32, bytes: &[u8; Self::BYTES]) -> bool {
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.encode(file_tag).get(..written) == bytes.get(..written)
    }
}

/// What stands at [`MARK_AT`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    Nothing,
    /// Perhaps the beginning of a mark.
    Begun(&'a [u8; Mark::BYTES]),
    Whole(Mark),
}

/// The last block of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct CommitV1 {
    pub(super) from: u64,
    pub(super) to: u64,
    /// How many blocks of the group stand in front of this one.
    pub(super) blocks: u64,
}

/// How long the group of this difference is, wherever it stands.
pub(crate) fn group_bytes(difference: &Difference<'_>) -> u64 {
    let Ok(end) = encode_group::<Infallible>(0, 0, (0, 0), difference, &mut |_, _| Ok(()));
    end
}

/// Encodes the difference between two generations as one group that begins at this offset; returns where it ends.
pub(crate) fn encode_group<E>(
    file_tag: u32,
    offset: u64,
    (from, to): (u64, u64),
    difference: &Difference<'_>,
    sink: &mut Sink<'_, E>,
) -> Result<u64, E> {
    let Difference { trusted, sides } = difference;
    let mut blocks = BlockWriter::new(sink, file_tag, offset);
    blocks.table(trusted.set.iter().map(|(id, value)| TrustedV1::new(*id, value)))?;
    blocks.table(trusted.gone.iter().map(|id| GoneV1::<1, u32>::new(*id)))?;
    encode_sides(&mut blocks, sides)?;
    let commit = CommitV1 { from, to, blocks: blocks.blocks };
    blocks.table(core::iter::once(commit))?;
    Ok(blocks.offset)
}

macro_rules! by_table {
    ($($(#[$doc:meta])* $number:literal $field:ident $variant:ident $key:ty, $entry:ty => $table:ty;)*) => {
        fn encode_sides<E>(blocks: &mut BlockWriter<'_, '_, E>, sides: &SideDiffs<'_>) -> Result<(), E> {
            $(
                blocks.table(sides.$field.set.iter().map(|(key, entry)| {
                    EntryV2::<$number, $key, _> { key: key.stored(), value: entry.stored() }
                }))?;
                blocks.table(sides.$field.gone.iter().map(|key| GoneV1::<$number, $key>::new(*key)))?;
            )*
            Ok(())
        }
    };
}
side_tables!(by_table);

pub(super) const MARK_IS_WRONG: &str = "the closing mark does not match";
const MARK_MAGIC: &[u8; 8] = b"TKCLOSED";
/// Where the closing mark stands: in a sector that holds nothing else, for it is written while the rest must stay.
pub(crate) const MARK_AT: u64 = 512;
/// Where the first group begins.
pub(crate) const GROUPS_AT: u64 = 1024;
/// Lengths of journals are multiples of this. Of one that grew, zeros up to a multiple of it behind a group were durable
/// before the group was.
pub(crate) const PAGE_BYTES: u64 = 4096;
