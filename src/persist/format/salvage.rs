//! What can be read of a file that is damaged.
//!
//! What must hold: a group that is handed out as whole is whole, every block of it, if need be after one bit of a block was set
//! right where its checksum tells which. Of other blocks it is said that they are not. What a file says that it held, and does not
//! hold any more, is a part of it that cannot be read.
//!
//! A CRC-32 finds each single wrong bit of a block. That other damage looks like one has the chance of one in 2^32 for each bit
//! of the block: one in 8000 for the longest there are.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::blocks::{BLOCK_BYTES_MAX, BLOCK_HEAD_BYTES, Block, PAYLOAD_HEAD_BYTES, block_checksum};
use super::entries::Put as _;
use super::journal::{CommitV1, Found, GROUPS_AT, JournalHead, MARK_AT, Mark, PAGE_BYTES};
use super::replay::{Group, commit, read_block};
use super::snapshot::{file_tag, trusted_in};
use super::watermark::Watermark;
use super::{HEADER_BYTES, Header, Kind, STATE_VERSION, StoreId, is_sealed};
use crate::tables::patch::Patch;
use crate::time::Now;

/// A part of a file, in the order of the file.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A whole group, and the bytes of it of which one bit was set right.
    Group { from: u64, to: u64, patch: Box<Patch>, righted: Vec<u64> },
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
    /// Where the others stand, and how many bytes each time: what was there is not known.
    pub(crate) unread: Vec<(u64, u64)>,
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

/// All that can be read of a journal, and all that it says was there and cannot be read. `counted`: the journal that goes on from it
/// says that so many bytes count.
pub(crate) fn journal(file: &[u8], head: &JournalHead, counted: Option<u64>, now: Now) -> Vec<Piece> {
    let tag = head.file_tag();
    let closing = Closing::of(file, tag);
    let whole = file;
    let (file, settled) = match &closing {
        // Behind what is closed nothing was written.
        Closing::Whole(mark) => {
            let used = usize::try_from(mark.used_bytes).ok().and_then(|used| file.get(..used));
            (used.unwrap_or(file), Some((mark.used_bytes, mark.generation)))
        }
        _ => (file, Watermark::decode(file, head, tag).map(|mark| (mark.used_bytes, mark.generation))),
    };
    let mut file = Cow::Borrowed(file);
    // Zeros where a mark says that something stood are no end.
    let proven_bytes = settled.map_or(0, |(used, _)| used).max(counted.unwrap_or(0));
    let known = usize::try_from(proven_bytes).unwrap_or(usize::MAX).min(file.len());
    let end = file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).max(known);
    let mut pieces = Vec::new();
    let (mut at, mut after) = (usize::try_from(GROUPS_AT).unwrap_or(usize::MAX), head.base);
    let mut loose: Option<Box<Loose>> = None;
    while at < end {
        if let Some((group, righted)) = whole_group(&mut file, (at, after), head, now) {
            pieces.extend(until(loose.take(), group.from));
            pieces.push(Piece::Group { from: group.from, to: group.to, patch: group.patch, righted });
            (at, after) = (group.end, group.to);
            continue;
        }
        let part = loose.get_or_insert_with(|| Box::new(Loose { after, offset: at as u64, ..Loose::default() }));
        let begin = at;
        let mut ended = None;
        at = part.take(&file, at, (tag, head.version), now, &mut ended).min(end.max(begin + 1));
        part.bytes += (at - begin) as u64;
        if let Some(to) = ended {
            after = to;
            pieces.extend(until(loose.take(), to));
        }
    }
    let at = at as u64;
    if let Some(loose) = &mut loose
        && (proven_bytes > at || !matches!(closing, Closing::Whole(_)))
    {
        // Its commit is missing, and perhaps more of it.
        loose.unread.push((at, proven_bytes.saturating_sub(at)));
    }
    let proven = settled.filter(|(_, generation)| *generation > after);
    match (loose, proven) {
        (Some(mut loose), Some((used, generation))) => {
            loose.until = Some(generation);
            // What stands behind the byte that a watermark names is of a generation that nothing tells.
            let behind = (loose.offset + loose.bytes).saturating_sub(used);
            loose.bytes -= behind.min(loose.bytes);
            pieces.push(Piece::Loose(loose));
            if behind > 0 && !matches!(closing, Closing::Whole(_)) {
                pieces.push(gone(generation, None, used, behind));
            }
        }
        (Some(loose), None) => pieces.push(Piece::Loose(loose)),
        (None, Some((used, generation))) => {
            pieces.push(gone(after, Some(generation), at, used.saturating_sub(at)));
        }
        (None, None) => {}
    }
    let newest = proven.map_or(after, |(_, generation)| generation);
    pieces.extend(closing.unknown(whole, head, (newest, at)));
    if pieces.is_empty() {
        // There is always a group.
        pieces.push(gone(after, None, at, head.file_bytes.saturating_sub(at)));
    }
    pieces
}

/// A part of a file that is not there, and that the file says was.
fn gone(after: u64, until: Option<u64>, offset: u64, bytes: u64) -> Piece {
    Piece::Loose(Box::new(Loose { after, until, offset, bytes, unread: vec![(offset, bytes)], ..Loose::default() }))
}

fn until(loose: Option<Box<Loose>>, generation: u64) -> Option<Piece> {
    let mut loose = loose?;
    loose.until = Some(generation);
    Some(Piece::Loose(loose))
}

/// A group, with what it changes.
struct Whole {
    end: usize,
    from: u64,
    to: u64,
    patch: Box<Patch>,
}

/// The group that stands here, if need be after one bit of each of its blocks was set right in `file`, and where.
fn whole_group(
    file: &mut Cow<'_, [u8]>,
    (at, after): (usize, u64),
    head: &JournalHead,
    now: Now,
) -> Option<(Whole, Vec<u64>)> {
    let read = |file: &[u8]| {
        let group = Group::read(file, at, head).ok()?.ok().filter(|group| group.to > group.from)?;
        let patch = Box::new(group.patch(now).ok()?);
        Some(Whole { end: group.end, from: group.from, to: group.to, patch })
    };
    if let Some(whole) = read(file) {
        return Some((whole, Vec::new()));
    }
    let (tag, mut offset, mut bits) = (head.file_tag(), at, Vec::new());
    let is_commit = loop {
        if Block::at(file, offset, tag).is_err() {
            let Some((index, bit)) = wrong_bit(file, offset, tag) else { break false };
            flip(file.to_mut(), index, bit);
            bits.push((index, bit));
        }
        match Block::at(file, offset, tag) {
            Ok(block) if block.kind == CommitV1::KIND => break true,
            Ok(block) => offset = block.end,
            Err(_) => break false,
        }
    };
    // Also what a checksum says of a wrong bit must lead on.
    match is_commit.then(|| read(file)).flatten().filter(|whole| whole.from >= after) {
        Some(whole) => Some((whole, bits.into_iter().map(|(index, _)| index as u64).collect())),
        None => {
            bits.into_iter().for_each(|(index, bit)| flip(file.to_mut(), index, bit));
            None
        }
    }
}

/// What a journal says of its end.
enum Closing {
    /// If need be after one bit was set right.
    Whole(Mark),
    /// It may have been cut short while it was written.
    Begun([u8; Mark::BYTES]),
    Nothing,
    /// Something stood there.
    Damaged,
}

impl Closing {
    fn of(file: &[u8], tag: u32) -> Self {
        match Mark::decode(file, tag) {
            Ok(Found::Whole(mark)) => return Self::Whole(mark),
            Ok(Found::Nothing) => return Self::Nothing,
            _ => {}
        }
        let at = usize::try_from(MARK_AT).unwrap_or(usize::MAX);
        let Some(found) = file.get(at..).and_then(|rest| rest.first_chunk()).copied() else { return Self::Damaged };
        if let (Some(righted), Some(before)) = (sealed(file, at), file.get(..at))
            && let Ok(Found::Whole(mark)) = Mark::decode(&[before, &righted].concat(), tag)
        {
            return Self::Whole(mark);
        }
        if found.ends_with(&[0]) { Self::Begun(found) } else { Self::Damaged }
    }

    /// Whether this is the beginning of a mark of this kind, behind the group that leads to this generation and ends at this byte.
    fn begins(&self, file: &[u8], tag: u32, (generation, used_bytes): (u64, u64), continued: bool) -> bool {
        let file_bytes = file.len() as u64;
        let mark = Mark { continued, generation, used_bytes, file_bytes };
        matches!(self, Self::Begun(found) if mark.begins(tag, found))
    }

    /// What may have stood behind the newest group that is known of, where the file was longer, or its closing mark is damaged.
    fn unknown(&self, file: &[u8], head: &JournalHead, newest: (u64, u64)) -> Option<Piece> {
        if matches!(self, Self::Whole(_)) {
            return None;
        }
        let bytes = file.len() as u64;
        // One that grew had a length of whole pages.
        let length = if head.file_bytes == 0 { bytes.next_multiple_of(PAGE_BYTES) } else { head.file_bytes };
        if bytes < length {
            return Some(gone(newest.0, None, bytes, length - bytes));
        }
        let tag = head.file_tag();
        let is_beginning = [false, true].into_iter().any(|continued| self.begins(file, tag, newest, continued));
        let is_damaged = match self {
            Self::Damaged => true,
            Self::Begun(_) => !is_beginning,
            _ => false,
        };
        is_damaged.then(|| gone(newest.0, None, MARK_AT, Mark::BYTES as u64))
    }
}

/// Whether a closing mark says that another journal goes on from this one. Of one that was cut short the kind says it.
pub(crate) fn is_continued(file: &[u8], head: &JournalHead) -> bool {
    match Closing::of(file, head.file_tag()) {
        Closing::Whole(mark) => mark.continued,
        Closing::Begun(found) => found.get(8) == Some(&2),
        Closing::Nothing | Closing::Damaged => false,
    }
}

/// Whether no closing mark says that nothing followed the newest group.
pub(crate) fn is_open(file: &[u8], head: &JournalHead) -> bool {
    !matches!(Closing::of(file, head.file_tag()), Closing::Whole(_))
}

/// What can be read of a damaged snapshot.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) loose: Loose,
    /// Whether there is any sign that it was this snapshot: its header, or a block.
    pub(crate) is_known: bool,
    /// How many trusted peers it had, if that can be read.
    pub(crate) trusted: Option<u64>,
}

/// All that can be read of the snapshot of this store and generation, which the mark and the file's name tell.
pub(crate) fn snapshot(file: &[u8], store: StoreId, generation: u64, now: Now) -> Read {
    let header = sealed(file, 0).and_then(|header| Header::decode_any_length(&header, Kind::Snapshot).ok());
    let header = header.filter(|header| (header.store, header.generation) == (store, generation));
    let version = header.map_or(STATE_VERSION, |header| header.version);
    let tag = file_tag(store, generation);
    let mut loose = Loose { after: generation, bytes: file.len() as u64, ..Loose::default() };
    let (mut at, mut trusted, mut blocks) = (HEADER_BYTES, None, 0);
    while at < file.len() {
        trusted = trusted.or(Block::at(file, at, tag).ok().and_then(|block| trusted_in(&block, version)));
        let unread = loose.unread.len();
        at = loose.take(file, at, (tag, version), now, &mut None);
        blocks += usize::from(unread == loose.unread.len());
    }
    Read { loose, is_known: header.is_some() || blocks > 0, trusted }
}

/// A snapshot in which one bit of the header and of each block was set right where its checksum did not hold, and where these
/// bits are; none if that does not mend all of it.
pub(crate) fn mended_snapshot(file: &[u8]) -> Option<(Vec<u8>, Vec<u64>)> {
    let (mut mended, mut places) = (file.to_vec(), Vec::new());
    let (found, header) = mended.split_first_chunk_mut::<HEADER_BYTES>().map(|(header, _)| (*header, header))?;
    *header = sealed(file, 0)?;
    places.extend((0u64..).zip(found.iter().zip(header)).filter(|(_, (one, other))| one != other).map(|(at, _)| at));
    let header = Header::decode(&mended, Kind::Snapshot).ok()?;
    let tag = file_tag(header.store, header.generation);
    let mut at = HEADER_BYTES;
    while at < mended.len() {
        if Block::at(&mended, at, tag).is_err() {
            let (index, bit) = wrong_bit(&mended, at, tag)?;
            flip(&mut mended, index, bit);
            places.push(index as u64);
        }
        at = Block::at(&mended, at, tag).ok()?.end;
    }
    Some((mended, places))
}

impl Loose {
    /// A file of which nothing can be read.
    pub(crate) fn unread(after: u64, file: &[u8]) -> Self {
        let bytes = file.len() as u64;
        Self { after, bytes, unread: vec![(0, bytes)], ..Self::default() }
    }

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
        for payload in guessed_blocks(file.get(at..next).unwrap_or_default()) {
            // As many entries as can be read, up to the first that cannot.
            let _ = read_block(&Block::of(at, payload), version, now, &mut self.guessed);
        }
        self.unread.push((at as u64, (next - at) as u64));
        next
    }
}

/// The payloads that stand here if the lengths can be believed, which they can if the last one ends where these bytes do; else all
/// of it as one.
fn guessed_blocks(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut blocks, mut rest) = (Vec::new(), bytes);
    while let Some((head, behind)) = rest.split_first_chunk::<BLOCK_HEAD_BYTES>() {
        let [a, b, c, d, ..] = *head;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        match behind.split_at_checked(length) {
            Some((payload, behind)) if length > PAYLOAD_HEAD_BYTES => {
                blocks.push(payload);
                rest = behind;
            }
            _ => break,
        }
    }
    if rest.is_empty() {
        return blocks;
    }
    bytes.get(BLOCK_HEAD_BYTES..).filter(|payload| payload.len() > PAYLOAD_HEAD_BYTES).into_iter().collect()
}

/// The payload of the block that begins here, if a single wrong bit explains why its checksum does not hold.
fn set_right(file: &[u8], at: usize, tag: u32) -> Option<Vec<u8>> {
    let (index, bit) = wrong_bit(file, at, tag)?;
    let end = file.len().min(at + BLOCK_HEAD_BYTES + BLOCK_BYTES_MAX);
    let mut block = file.get(at..end)?.to_vec();
    flip(&mut block, index - at, bit);
    let bytes = usize::try_from(u32::from_le_bytes(*block.first_chunk()?)).ok()?;
    block.get(BLOCK_HEAD_BYTES..)?.get(..bytes).map(<[u8]>::to_vec)
}

/// The byte and the bit that alone explain why the checksum of the block that begins here does not hold.
fn wrong_bit(file: &[u8], at: usize, tag: u32) -> Option<(usize, u32)> {
    let (head, rest) = file.get(at..)?.split_first_chunk::<BLOCK_HEAD_BYTES>()?;
    let [a, b, c, d, sum @ ..] = *head;
    let (length, sum) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(sum));
    let payload_of = |length: u32| {
        let bytes = usize::try_from(length).ok()?;
        if (PAYLOAD_HEAD_BYTES..=BLOCK_BYTES_MAX).contains(&bytes) { rest.get(..bytes) } else { None }
    };
    let is_of = |bit: &u32| {
        payload_of(length ^ (1 << bit)).is_some_and(|payload| block_checksum(tag, at as u64, payload) == sum)
    };
    if let Some(bit) = (0..u32::BITS).find(is_of) {
        return Some((at + (bit / u8::BITS) as usize, bit % u8::BITS));
    }
    let payload = payload_of(length)?;
    let difference = block_checksum(tag, at as u64, payload) ^ sum;
    if difference.is_power_of_two() {
        let bit = difference.trailing_zeros();
        return Some((at + 4 + (bit / u8::BITS) as usize, bit % u8::BITS));
    }
    // What the last bit makes of a checksum if it is wrong; a bit further from the end makes what one more step makes of that.
    let mut made = POLYNOMIAL;
    for index in (0..payload.len()).rev() {
        for bit in (0..u8::BITS).rev() {
            if made == difference {
                return Some((at + BLOCK_HEAD_BYTES + index, bit));
            }
            made = (made >> 1) ^ if made & 1 == 1 { POLYNOMIAL } else { 0 };
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

/// The one of the CRC-32, its lowest power in the highest bit.
const POLYNOMIAL: u32 = 0xedb8_8320;
