//! The bytes of a store's files. Pure; `docs/format.md` says the same in prose and is normative. The codec is named in
//! `entries` alone.
//!
//! INVARIANT I-F1: equal store id, seed, generation and contents encode to equal bytes, whatever the history.
//! INVARIANT I-F2: no byte that holds something of a finished file (a snapshot, a mark, a journal with a closing mark) is left
//! unchecked: every single flipped bit is an error; and so is every length of any file but the one that its header names. A
//! byte of a journal that holds nothing loses nothing, and is told.
//! INVARIANT I-F3: decoding allocates in proportion to the bytes it was given, whatever they say.
#![forbid(unsafe_code)]

mod blocks;
mod entries;
mod journal;
#[cfg(all(test, feature = "handshake", not(trustkeep_loom)))]
mod journal_tests;
mod replay;
#[cfg(feature = "cli")]
pub(crate) mod salvage;
mod snapshot;
mod stored;
#[cfg(all(feature = "__testing", not(all(test, trustkeep_loom))))]
pub(crate) mod tamper;
#[cfg(all(test, feature = "handshake", not(trustkeep_loom)))]
mod tests;
mod version_1;
mod watermark;
#[cfg(all(test, feature = "handshake", not(trustkeep_loom)))]
mod watermark_tests;

pub(crate) use journal::{GROUPS_AT, JournalHead, MARK_AT, Mark, PAGE_BYTES, Previous, encode_group, group_bytes};
#[cfg(any(feature = "cli", feature = "__testing"))]
pub(crate) use replay::check_journal;
pub(crate) use replay::{Ending, How, Rebuilt, Replay};
pub(crate) use snapshot::{Snapshot, decode_snapshot, encode_snapshot};
#[cfg(feature = "cli")]
pub(crate) use watermark::WATERMARKS_SINCE;
pub(crate) use watermark::{WATERMARK_AT, Watermark};

/// The newest format version, the one of journals that are written.
pub(crate) const VERSION: u32 = 3;

/// The one of snapshots and of the mark of a store: a file carries the lowest version that knows what is in it.
pub(crate) const STATE_VERSION: u32 = 2;

/// Length of the header at the start of every file.
pub(crate) const HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"\x89TKEEP\r\n";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// All tables of one generation.
    Snapshot = 1,
    /// Differences between generations, one behind the other.
    Journal = 2,
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
    /// The format version; [`VERSION`] or [`STATE_VERSION`] in what is written.
    pub(crate) version: u32,
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

impl From<Damage> for FileError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
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
        seal(&[
            &MAGIC,
            &self.version.to_le_bytes(),
            &(self.kind as u32).to_le_bytes(),
            &self.store.id,
            &self.store.seed.to_le_bytes(),
            &self.generation.to_le_bytes(),
            &self.file_bytes.to_le_bytes(),
        ])
    }

    /// Checks magic, version, checksum, kind and length, in this order.
    pub(crate) fn decode(file: &[u8], kind: Kind) -> Result<Self, FileError> {
        let header = Self::decode_any_length(file, kind)?;
        header.check_length(file)?;
        Ok(header)
    }

    fn check_length(&self, file: &[u8]) -> Result<(), FileError> {
        if self.file_bytes == file.len() as u64 {
            return Ok(());
        }
        let first_missing_or_extra = file.len().min(usize::try_from(self.file_bytes).unwrap_or(usize::MAX));
        let reason = format!("{} bytes long instead of {}", file.len(), self.file_bytes);
        Damage::at(first_missing_or_extra, reason)
    }

    /// The same without the length.
    fn decode_any_length(file: &[u8], kind: Kind) -> Result<Self, FileError> {
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
            return if is_sealed(header) {
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
        if !is_sealed(header) {
            return Damage::at(0, "the header's checksum does not match");
        }
        if version == 0 || reserved != [0; 4] {
            return Damage::at(8, "the header has values that no release writes");
        }
        if found_kind != kind as u32 {
            return Damage::at(12, format!("a file of kind {found_kind} under this name"));
        }
        Ok(Self { version, kind, store: StoreId { id, seed }, generation, file_bytes })
    }
}

/// These parts one behind the other, zeros, and a checksum over all of that in the last four bytes.
fn seal<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(parts.iter().copied().flatten()) {
        *to = *from;
    }
    let (checked, checksum) = bytes.split_at_mut(N - 4);
    checksum.copy_from_slice(&crc32fast::hash(checked).to_le_bytes());
    bytes
}

fn is_sealed<const N: usize>(bytes: &[u8; N]) -> bool {
    let (checked, checksum) = bytes.split_at(N - 4);
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
