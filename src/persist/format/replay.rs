//! Reading journals: which groups count, and what they come to.
//!
//! INVARIANT I-F4: of a journal without a closing mark only the newest group may be missing or torn. Whatever does not fit
//! in front of a group that was committed later, or of the place that a watermark names, is damage, never cut.
#![forbid(unsafe_code)]

use super::blocks::{BLOCK_HEAD_BYTES, Block, PAYLOAD_HEAD_BYTES};
use super::entries::{Entry, EntryV2, GoneV1, KeyOf, Put, TrustedV1};
use super::journal::{CommitV1, Found, GROUPS_AT, MARK_AT, MARK_IS_WRONG, PAGE_BYTES};
use super::stored::{StoredKey, StoredValue};
use super::version_1::{FloorV1, Old, OutgoingV1, PendingV1, RevokedV1};
use super::watermark::{WATERMARK_AT, Watermark};
use super::{Damage, FileError, JournalHead, Mark, Snapshot};
use crate::map::mix::Mix;
use crate::map::{Latest, Value};
use crate::peer::NodeId;
use crate::persist::recover::GENERATION_MAX;
use crate::tables::patch::{Patch, SideValues};
use crate::tables::{Tables, side_tables};
use crate::time::Now;

use core::cmp::Ordering;

/// How a journal ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// With a closing mark, and nothing follows.
    Closed,
    /// With a closing mark, perhaps cut short, that says that another journal follows.
    Continued,
    /// Behind its newest whole group come zeros to the end; perhaps a mark was begun that would have closed it.
    Open,
    /// Behind its newest whole group stands part of another.
    Torn(Damage),
}

/// Where a journal ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Where its newest whole group begins, and from which generation it goes on.
    pub(crate) newest_at: u64,
    pub(crate) newest_from: u64,
    /// Where that group ends.
    pub(crate) bytes: u64,
    /// The generation that it leads to.
    pub(crate) generation: u64,
    pub(crate) how: How,
    /// Up to this byte everything is known to have been acknowledged: by a mark, by the journal that goes on from here, or
    /// because a file has no name without its first group.
    pub(crate) settled: u64,
    /// The first byte, of those that hold nothing, that is not zero. Behind the newest group of an open journal none is
    /// looked for: that is [`How::Torn`].
    pub(crate) spoilt: Option<u64>,
}

/// A state being rebuilt: a snapshot, and journals in their order.
#[derive(Debug)]
pub(crate) struct Replay {
    base: Tables,
    /// All groups but the newest: what becomes of trusted records, and the rest.
    trusted: Latest,
    rest: SideValues,
    newest: Patch,
    newest_from: u64,
    generation: u64,
    now: Now,
}

/// A state rebuilt.
#[derive(Debug)]
pub(crate) struct Rebuilt {
    pub(crate) tables: Tables,
    pub(crate) generation: u64,
    /// The state before the newest group, which may not be durable: a kill may have come before its sync.
    pub(crate) before: (u64, Tables),
}

impl Replay {
    pub(crate) fn new(snapshot: Snapshot, now: Now) -> Self {
        let generation = snapshot.header.generation;
        let (rest, newest) = (SideValues::default(), Patch::default());
        let (base, newest_from) = (snapshot.tables, generation);
        let trusted = Latest::new(base.trusted.mix());
        Self { base, trusted, rest, newest, newest_from, generation, now }
    }

    /// The generation reached so far.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Goes through the groups of the next journal. `counted`: how many of its bytes count, if a later one says so.
    /// Groups that the state already contains are checked and passed over.
    pub(crate) fn journal(&mut self, file: &[u8], counted: Option<u64>) -> Result<Ending, FileError> {
        let now = self.now;
        walk(file, counted, &mut |group| {
            if group.to <= self.generation {
                return group.patch(now).map(drop);
            }
            if group.from != self.generation {
                let reason = format!("a group from generation {} behind generation {}", group.from, self.generation);
                return Damage::at(group.at, reason);
            }
            let older = core::mem::replace(&mut self.newest, group.patch(now)?);
            older.trusted.into_iter().for_each(|(id, value)| self.trusted.push(id, value));
            self.rest.extend(older.sides);
            (self.newest_from, self.generation) = (group.from, group.to);
            Ok(())
        })
    }

    /// Puts everything together.
    pub(crate) fn finish(self) -> Result<Rebuilt, FileError> {
        let both =
            || FileError::Damaged(Damage { offset: GROUPS_AT, reason: "a peer is both trusted and revoked".into() });
        let before = self.base.patched_at_once(self.trusted, &self.rest).ok_or_else(both)?;
        let tables = before.patched(self.newest).ok_or_else(both)?;
        Ok(Rebuilt { tables, generation: self.generation, before: (self.newest_from, before) })
    }
}

/// Goes through a journal by itself: how it ends, and everything that it sets.
#[cfg(any(feature = "cli", feature = "__testing"))]
pub(crate) fn check_journal(file: &[u8], counted: Option<u64>, now: Now) -> Result<(Ending, Patch), FileError> {
    let mut all = Patch::default();
    let ending = walk(file, counted, &mut |group| {
        all.extend(group.patch(now)?);
        Ok(())
    })?;
    Ok((ending, all.settled()))
}

/// One whole group.
pub(super) struct Group<'a> {
    at: usize,
    pub(super) end: usize,
    pub(super) from: u64,
    pub(super) to: u64,
    blocks: Vec<Block<'a>>,
    /// The format version of the file.
    version: u32,
    mix: Mix,
}

/// Hands out the groups of a journal in order and says where and how it ends.
fn walk(
    file: &[u8],
    counted: Option<u64>,
    found: &mut dyn FnMut(&Group<'_>) -> Result<(), FileError>,
) -> Result<Ending, FileError> {
    let head = JournalHead::decode(file)?;
    let tag = head.file_tag();
    let (mark, begun) = match Mark::decode(file, tag)? {
        Found::Nothing => (None, None),
        Found::Begun(bytes) => (None, Some(bytes)),
        Found::Whole(mark) => (Some(mark), None),
    };
    let (mark_at, groups_at) = (index(MARK_AT), index(GROUPS_AT));
    if file.len() < groups_at {
        return Damage::at(file.len(), "too short for a journal");
    }
    let watermark = Watermark::decode(file, &head, tag);
    let (behind_mark, no_mark) = (mark_at + Mark::BYTES, mark.is_none() && begun.is_none());
    let behind_watermark = index(WATERMARK_AT) + if watermark.is_some() { Watermark::BYTES } else { 0 };
    let mut spoilt = set_in(file, JournalHead::BYTES, if no_mark { behind_mark } else { mark_at })
        .or_else(|| set_in(file, behind_watermark, groups_at));
    if let Some(mark) = &mark {
        if mark.file_bytes != file.len() as u64 {
            let reason = format!("{} bytes long instead of {}", file.len(), mark.file_bytes);
            return Damage::at(file.len().min(index(mark.file_bytes)), reason);
        }
        let used = index(mark.used_bytes);
        if let Some(set) = set_in(file, used, file.len()) {
            // Nothing is written behind it any more.
            if commits(file, used, tag).next().is_some() {
                return Damage::at(set, NOTHING_IS_WRITTEN);
            }
            spoilt = spoilt.or(Some(set));
        }
        if counted.is_some_and(|counted| counted != mark.used_bytes) {
            return Damage::at(mark_at, "the closing mark contradicts the journal that follows");
        }
    }
    let limit = counted.or(mark.map(|mark| mark.used_bytes));
    let Some(counted_file) = file.get(..limit.map_or(file.len(), index)) else {
        return Damage::at(file.len(), format!("{} bytes long, but {} count", file.len(), limit.unwrap_or(0)));
    };
    let mut ending = Ending {
        newest_at: GROUPS_AT,
        newest_from: head.base,
        bytes: GROUPS_AT,
        generation: head.base,
        how: How::Open,
        settled: GROUPS_AT,
        spoilt: spoilt.map(|at| at as u64),
    };
    let settled = watermark.map_or(0, |mark| index(mark.used_bytes));
    let mut at = groups_at;
    // The first group was synced before the file got its name: it is there whatever happened.
    while limit.is_none() || at < counted_file.len() || at == groups_at {
        let group = match Group::read(counted_file, at, &head)? {
            Ok(group) => group,
            Err(damage) if limit.is_some() || at == groups_at => return Err(FileError::Damaged(damage)),
            Err(Damage { offset, reason }) if at < settled => {
                let reason = format!("{reason}, though everything up to byte {settled} was acknowledged");
                return Damage::at(index(offset), reason);
            }
            Err(damage) => {
                let tail = file.get(at..).unwrap_or_default();
                if tail.iter().any(|byte| *byte != 0) {
                    if let Some(later) = later_group(file, at, tag, ending.generation) {
                        let reason = format!("{}, though a later group follows at byte {later}", damage.reason);
                        return Damage::at(index(damage.offset), reason);
                    }
                    ending.how = How::Torn(damage);
                }
                break;
            }
        };
        if group.from != ending.generation || group.to <= group.from || group.to > GENERATION_MAX {
            return Damage::at(at, format!("a group from generation {} to {}", group.from, group.to));
        }
        let ends_elsewhere = group.at < settled && settled < group.end;
        if ends_elsewhere || settled == group.end && watermark.is_some_and(|mark| mark.generation != group.to) {
            return Damage::at(index(WATERMARK_AT), WATERMARK_IS_WRONG);
        }
        found(&group)?;
        if at == groups_at {
            ending.settled = group.end as u64;
        }
        ending.newest_at = at as u64;
        (ending.newest_from, ending.generation) = (group.from, group.to);
        at = group.end;
        ending.bytes = at as u64;
    }
    if limit.is_none() && head.file_bytes == 0 {
        // It grew: a crash takes away a group that is not yet durable, but no space that was taken ahead for those that
        // are. The last whole group may itself be the one that was not, also with garbage behind it.
        let durable = ending.newest_at;
        if (file.len() as u64) < durable.next_multiple_of(PAGE_BYTES) {
            return Damage::at(file.len(), format!("{} bytes long, which no crash leaves behind", file.len()));
        }
    }
    if let Some(mark) = mark {
        if mark.generation != ending.generation {
            return Damage::at(mark_at, "the closing mark names another generation");
        }
        if settled > at {
            return Damage::at(index(WATERMARK_AT), WATERMARK_IS_WRONG);
        }
        ending.how = if mark.continued { How::Continued } else { How::Closed };
    }
    // Of bytes that the journal that follows does not count a watermark may tell; they stand in that one again.
    ending.settled = if limit.is_some() { ending.bytes } else { ending.settled.max(settled as u64) };
    if let Some(begun) = begun {
        // The one that goes on from here may hold the newest group again, and then does not count it here.
        let again = if limit.is_some() { Group::read(file, at, &head)?.ok() } else { None };
        let (generation, used) = match again.filter(|group| group.from == ending.generation) {
            Some(group) => (group.to, group.end),
            None => (ending.generation, at),
        };
        // Nothing is marked behind which anything else stands.
        if let Some(set) = set_in(file, used, file.len()) {
            return Damage::at(set, NOTHING_IS_WRITTEN);
        }
        let (used_bytes, file_bytes) = (used as u64, file.len() as u64);
        let begins = |continued| Mark { continued, generation, used_bytes, file_bytes }.begins(tag, begun);
        ending.how = match (begins(false), begins(true)) {
            (false, false) => return Damage::at(mark_at, MARK_IS_WRONG),
            // The other journal was durable before this was begun.
            (false, true) => How::Continued,
            (true, _) => How::Open,
        };
    }
    Ok(ending)
}

impl<'a> Group<'a> {
    /// The group that begins here. The inner error is one that a crash may have left; the outer one is none of those, for
    /// every checksum holds.
    pub(super) fn read(file: &'a [u8], at: usize, head: &JournalHead) -> Result<Result<Self, Damage>, FileError> {
        let (tag, version, mix) = (head.file_tag(), head.version, Mix::new(head.store.seed));
        let (mut offset, mut blocks) = (at, Vec::new());
        loop {
            let block = match Block::at(file, offset, tag) {
                Ok(block) => block,
                Err(FileError::Damaged(damage)) => return Ok(Err(damage)),
                Err(error) => return Err(error),
            };
            offset = block.end;
            if block.kind != CommitV1::KIND {
                blocks.push(block);
                continue;
            }
            let commit = commit(&block)?;
            if commit.blocks != blocks.len() as u64 {
                return Damage::at(block.offset, "a commit does not match its group");
            }
            return Ok(Ok(Self { at, end: offset, from: commit.from, to: commit.to, blocks, version, mix }));
        }
    }

    /// What the group changes.
    pub(super) fn patch(&self, now: Now) -> Result<Patch, FileError> {
        let mut patch = Patch::default();
        for block in &self.blocks {
            read_block(block, self.version, now, &mut patch)?;
        }
        if patch.repeats_itself(self.mix) {
            return Damage::at(self.at, "an entry occurs twice in a group");
        }
        Ok(patch)
    }
}

/// Adds what a block says, of a file of this version.
pub(super) fn read_block(block: &Block<'_>, version: u32, now: Now, patch: &mut Patch) -> Result<(), FileError> {
    let sides = &mut patch.sides;
    match block.kind {
        TrustedV1::KIND => trusted(block, &mut patch.trusted),
        GoneV1::<1, u32>::KIND => gone::<1, u32, _>(block, &mut patch.trusted),
        PendingV1::KIND if version == 1 => old::<PendingV1>(block, &mut sides.pending, now),
        OutgoingV1::KIND if version == 1 => old::<OutgoingV1>(block, &mut sides.outgoing, now),
        RevokedV1::KIND if version == 1 => old::<RevokedV1>(block, &mut sides.revoked, now),
        FloorV1::KIND if version == 1 => old::<FloorV1>(block, &mut sides.floors, now),
        GoneV1::<2, NodeId>::KIND..=GoneV1::<5, NodeId>::KIND if version == 1 => sides.read(block, now),
        _ if version == 1 => unknown(block),
        _ => sides.read(block, now),
    }
}

macro_rules! by_table {
    ($($(#[$doc:meta])* $number:literal $field:ident $variant:ident $key:ty, $entry:ty => $table:ty;)*) => {
        impl SideValues {
            /// Adds what a block of any table but the trusted records says.
            fn read(&mut self, block: &Block<'_>, now: Now) -> Result<(), FileError> {
                $(if block.kind == 10 + $number {
                    type Found = EntryV2<$number, $key, <$entry as StoredValue>::Stored>;
                    return set(block, &mut self.$field, |entry: Found| <$entry as StoredValue>::read(entry.value, now));
                }
                if block.kind == 100 + $number {
                    return gone::<$number, $key, _>(block, &mut self.$field);
                })*
                unknown(block)
            }
        }
    };
}
side_tables!(by_table);

fn unknown(block: &Block<'_>) -> Result<(), FileError> {
    Damage::at(block.offset, format!("a block of kind {} in a journal", block.kind))
}

fn set<T: Entry + KeyOf, V>(
    block: &Block<'_>,
    into: &mut Vec<(T::Key, Option<V>)>,
    read: impl Fn(T) -> Result<V, &'static str>,
) -> Result<(), FileError> {
    block.each(|entry: T| {
        let key = entry.key();
        match key.and_then(|key| Ok((key, Some(read(entry)?)))) {
            Ok(value) => into.push(value),
            Err(reason) => return Damage::at(block.offset, reason),
        }
        Ok(())
    })
}

fn old<T: Entry + KeyOf + Old>(
    block: &Block<'_>,
    into: &mut Vec<(T::Key, Option<T::Today>)>,
    now: Now,
) -> Result<(), FileError> {
    set(block, into, |entry: T| entry.read(now))
}

fn trusted(block: &Block<'_>, into: &mut Vec<(u32, Option<Value>)>) -> Result<(), FileError> {
    block.each_trusted(|entry| match entry.key().and_then(|peer| Ok((peer.get(), Some(entry.read()?)))) {
        Ok(value) => {
            into.push(value);
            Ok(())
        }
        Err(reason) => Damage::at(block.offset, reason),
    })
}

fn gone<const TABLE: u8, K: StoredKey, V>(block: &Block<'_>, into: &mut Vec<(K, Option<V>)>) -> Result<(), FileError> {
    block.each(|entry: GoneV1<TABLE, K>| match entry.key() {
        Ok(key) => {
            into.push((key, None));
            Ok(())
        }
        Err(reason) => Damage::at(block.offset, reason),
    })
}

pub(super) fn commit(block: &Block<'_>) -> Result<CommitV1, FileError> {
    let mut found = None;
    block.each(|entry: CommitV1| {
        if found.replace(entry).is_some() {
            return Damage::at(block.offset, "two commits in a block");
        }
        Ok(())
    })?;
    found.map_or_else(|| Damage::at(block.offset, "a commit without content"), Ok)
}

/// Where behind `from` something stands that was written later than the group that was expected there: a commit of a later
/// group, or any block behind the expected group's own commit. The latter alone may well have arrived without the rest of
/// its group; what follows it is written only when the group is durable.
fn later_group(file: &[u8], from: usize, tag: u32, generation: u64) -> Option<usize> {
    commits(file, from, tag).find_map(|(block, commit)| match commit.from.cmp(&generation) {
        Ordering::Greater => Some(block.offset),
        Ordering::Equal => Block::at(file, block.end, tag).is_ok().then_some(block.end),
        Ordering::Less => None,
    })
}

/// The whole commits from this byte on, wherever they stand.
fn commits(file: &[u8], from: usize, tag: u32) -> impl Iterator<Item = (Block<'_>, CommitV1)> {
    let length = u32::try_from(COMMIT_BYTES).unwrap_or(0).to_le_bytes();
    let tail = file.get(from..).unwrap_or_default();
    tail.windows(BLOCK_HEAD_BYTES + COMMIT_BYTES)
        .enumerate()
        .filter(move |(_, window)| window.starts_with(&length) && window.get(BLOCK_HEAD_BYTES) == Some(&CommitV1::KIND))
        .filter_map(move |(at, _)| {
            let block = Block::at(file, from + at, tag).ok()?;
            Some((block, commit(&block).ok()?))
        })
}

/// The first byte in this part of the file that is not zero.
fn set_in(file: &[u8], from: usize, to: usize) -> Option<usize> {
    let bytes = file.get(from..to).unwrap_or_default();
    // All at once first, for it is usually so, and a machine takes many bytes a step then.
    if bytes.iter().fold(0, |all, byte| all | byte) == 0 {
        return None;
    }
    bytes.iter().position(|byte| *byte != 0).map(|at| from + at)
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

const NOTHING_IS_WRITTEN: &str = "something stands where nothing is written";
const WATERMARK_IS_WRONG: &str = "the watermark does not match";
/// Payload of a commit: kind, number, three integers.
const COMMIT_BYTES: usize = PAYLOAD_HEAD_BYTES + 3 * 8;
