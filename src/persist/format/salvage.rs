//! What can be read of a file that is damaged.
//!
//! What must hold: a group that is handed out as whole is whole, every block of it. Of other blocks it is said that they are
//! not; a single bit of one that is wrong is set right where its checksum tells which, so that what it forbids is not lost.
//!
//! A CRC-32 finds each single wrong bit of a block of this size. That other damage looks like one has the chance of one in
//! 2^32 for each bit of the block.
#![forbid(unsafe_code)]

use super::blocks::{BLOCK_BYTES_MAX, BLOCK_HEAD_BYTES, Block, PAYLOAD_HEAD_BYTES, block_checksum};
use super::entries::Put as _;
use super::journal::{CommitV1, Found, GROUPS_AT, JournalHead, Mark};
use super::replay::{Group, commit, read_block};
use super::snapshot::file_tag;
use super::{HEADER_BYTES, Header, Kind, is_sealed};
use crate::tables::patch::Patch;
use crate::time::Now;

/// A part of a file, in the order of the file.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A whole group.
    Group { from: u64, to: u64, patch: Box<Patch> },
    /// Something that is none.
    Loose(Box<Loose>),
}

/// Blocks of a group that is not whole, or of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Loose {
    /// The generation that stands in front of them.
    pub(crate) after: u64,
    /// The generation that what stands behind them begins from, if that is known.
    pub(crate) until: Option<u64>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// What blocks say whose checksum holds, if need be after one bit was set right.
    pub(crate) read: Patch,
    /// What the others seem to say: each entry may be wrong.
    pub(crate) guessed: Patch,
}

/// The headers of a journal, if need be after one bit of each was set right.
pub(crate) fn journal_head(file: &[u8]) -> Option<JournalHead> {
    let mut headers = [0; JournalHead::BYTES];
    let (first, second) = headers.split_at_mut(HEADER_BYTES);
    first.copy_from_slice(&sealed(file, 0)?);
    second.copy_from_slice(&sealed(file, HEADER_BYTES)?);
    JournalHead::decode_any_length(&headers).ok()
}

/// The same of a snapshot.
pub(crate) fn snapshot_header(file: &[u8]) -> Option<Header> {
    Header::decode_any_length(&sealed(file, 0)?, Kind::Snapshot).ok()
}

/// All that can be read of a journal.
pub(crate) fn journal(file: &[u8], head: &JournalHead, now: Now) -> Vec<Piece> {
    let tag = head.file_tag();
    let file = match Mark::decode(file, tag) {
        // Behind what is closed nothing was written.
        Ok(Found::Whole(mark)) => {
            usize::try_from(mark.used_bytes).ok().and_then(|used| file.get(..used)).unwrap_or(file)
        }
        _ => file,
    };
    let end = file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut pieces = Vec::new();
    let (mut at, mut after) = (usize::try_from(GROUPS_AT).unwrap_or(usize::MAX), head.base);
    let mut loose: Option<Box<Loose>> = None;
    while at < end {
        if let Ok(Ok(group)) = Group::read(file, at, head)
            && group.to > group.from
            && let Ok(patch) = group.patch(now)
        {
            pieces.extend(until(loose.take(), group.from));
            pieces.push(Piece::Group { from: group.from, to: group.to, patch: Box::new(patch) });
            (at, after) = (group.end, group.to);
            continue;
        }
        let part = loose.get_or_insert_with(|| Box::new(Loose { after, offset: at as u64, ..Loose::default() }));
        let begin = at;
        let mut ended = None;
        at = part.take(file, at, (tag, head.version), now, &mut ended).min(end.max(begin + 1));
        part.bytes += (at - begin) as u64;
        if let Some(to) = ended {
            after = to;
            pieces.extend(until(loose.take(), to));
        }
    }
    pieces.extend(loose.map(Piece::Loose));
    pieces
}

fn until(loose: Option<Box<Loose>>, generation: u64) -> Option<Piece> {
    let mut loose = loose?;
    loose.until = Some(generation);
    Some(Piece::Loose(loose))
}

/// Whether a closing mark says that another journal goes on from this one.
pub(crate) fn is_continued(file: &[u8], head: &JournalHead) -> bool {
    matches!(Mark::decode(file, head.file_tag()), Ok(Found::Whole(mark)) if mark.continued)
}

/// All that can be read of a snapshot.
pub(crate) fn snapshot(file: &[u8], header: &Header, now: Now) -> Loose {
    let tag = file_tag(header.store, header.generation);
    let mut loose = Loose { after: header.generation, bytes: file.len() as u64, ..Loose::default() };
    let mut at = HEADER_BYTES;
    while at < file.len() {
        at = loose.take(file, at, (tag, header.version), now, &mut None);
    }
    loose
}

impl Loose {
    /// Takes what stands at this byte, and says where to go on. `ended`: the generation that a commit leads to.
    fn take(&mut self, file: &[u8], at: usize, (tag, version): (u32, u32), now: Now, ended: &mut Option<u64>) -> usize {
        let righted = if Block::at(file, at, tag).is_ok() { None } else { set_right(file, at, tag) };
        let block = match &righted {
            Some(payload) => Some(Block::of(at, payload)),
            None => Block::at(file, at, tag).ok(),
        };
        if let Some(block) = block {
            if block.kind == CommitV1::KIND {
                *ended = commit(&block).ok().map(|commit| commit.to);
            } else {
                // Of a kind that holds no entries, as those that end a snapshot, nothing is kept.
                let _ = read_block(&block, version, now, &mut self.read);
            }
            return block.end;
        }
        let next = (at + 1..file.len()).find(|at| Block::at(file, *at, tag).is_ok()).unwrap_or(file.len());
        if let Some(payload) = file.get(at + BLOCK_HEAD_BYTES..next).filter(|it| it.len() > PAYLOAD_HEAD_BYTES) {
            // As many entries as can be read, up to the first that cannot.
            let _ = read_block(&Block::of(at, payload), version, now, &mut self.guessed);
        }
        next
    }
}

/// The payload of the block that begins here, if a single wrong bit explains why its checksum does not hold.
fn set_right(file: &[u8], at: usize, tag: u32) -> Option<Vec<u8>> {
    let (head, rest) = file.get(at..)?.split_first_chunk::<BLOCK_HEAD_BYTES>()?;
    let [a, b, c, d, sum @ ..] = *head;
    let (length, sum) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(sum));
    let payload_of = |length: u32| {
        let bytes = usize::try_from(length).ok()?;
        if (PAYLOAD_HEAD_BYTES..=BLOCK_BYTES_MAX).contains(&bytes) { rest.get(..bytes) } else { None }
    };
    let lengths = (0..u32::BITS).map(|bit| length ^ (1 << bit));
    let of_length = lengths.filter_map(payload_of).find(|payload| block_checksum(tag, at as u64, payload) == sum);
    if let Some(payload) = of_length {
        return Some(payload.to_vec());
    }
    let mut payload = payload_of(length)?.to_vec();
    if (block_checksum(tag, at as u64, &payload) ^ sum).is_power_of_two() {
        return Some(payload);
    }
    if payload.len() > RIGHTED_BYTES_MAX {
        return None;
    }
    for index in 0..payload.len() {
        for bit in 0..u8::BITS {
            flip(&mut payload, index, bit);
            if block_checksum(tag, at as u64, &payload) == sum {
                return Some(payload);
            }
            flip(&mut payload, index, bit);
        }
    }
    None
}

/// The header that begins here, if need be with one bit set right.
fn sealed(file: &[u8], at: usize) -> Option<[u8; HEADER_BYTES]> {
    let mut header = *file.get(at..)?.first_chunk::<HEADER_BYTES>()?;
    if is_sealed(&header) {
        return Some(header);
    }
    for index in 0..HEADER_BYTES {
        for bit in 0..u8::BITS {
            flip(&mut header, index, bit);
            if is_sealed(&header) {
                return Some(header);
            }
            flip(&mut header, index, bit);
        }
    }
    None
}

fn flip(bytes: &mut [u8], index: usize, bit: u32) {
    if let Some(byte) = bytes.get_mut(index) {
        *byte ^= 1 << bit;
    }
}

/// Longer blocks are not set right: that takes time by the square of their length, some 50 ms for this.
const RIGHTED_BYTES_MAX: usize = 4096;
