//! A file's bytes, now and after a crash.
//!
//! What must hold: bytes that a sync made durable stay, in a torn sector too; every other sector is as it was at some
//! moment since; bytes that were never synced are zeros, garbage, or what an earlier file left on the medium. What a
//! failed sync should have written may have arrived or not, and no later sync settles that.
//!
//! Contents are shared, not copied: a million images differ from the disk they come from in a few sectors each.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use super::images::Random;

/// The bytes of a file and, once somebody asked, their fingerprint.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    bytes: Vec<u8>,
    fingerprint: OnceLock<u64>,
}

impl Content {
    pub(super) fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes, fingerprint: OnceLock::new() })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| {
            let (words, rest) = self.bytes.as_chunks::<8>();
            let mut sum = mix(self.bytes.len() as u64);
            for word in words {
                sum = mix(sum ^ u64::from_le_bytes(*word));
            }
            rest.iter().fold(sum, |sum, byte| mix(sum ^ u64::from(*byte)))
        })
    }

    fn change(self: &mut Arc<Self>) -> &mut Vec<u8> {
        let content = Arc::make_mut(self);
        content.fingerprint = OnceLock::new();
        &mut content.bytes
    }
}

/// One round of a hash: a multiplication that loses nothing, and the high bits brought down.
pub(super) fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd6e8_feb8_6659_fd93);
    word ^ (word >> 32)
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) live: Arc<Content>,
    pub(super) durable: Arc<Content>,
    /// Writes since the last sync, none across a sector's end, in order; and what failed syncs left undecided.
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    offset: usize,
    bytes: Arc<[u8]>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The next sync makes it durable.
    Open,
    /// A sync of it failed.
    Lost,
    /// Durable, on top of something lost.
    Settled,
}

/// What stands in bytes that were never synced.
enum Fill<'a> {
    Zeros,
    Garbage(Random),
    /// The same place of an earlier file.
    Stale(&'a [u8]),
}

impl Fill<'_> {
    fn extend(&mut self, to: &mut Vec<u8>, end: usize) {
        match self {
            Self::Zeros => {}
            Self::Garbage(random) => {
                while to.len() < end {
                    let word = random.next().to_le_bytes();
                    to.extend(word.iter().take(end - to.len()));
                }
            }
            Self::Stale(bytes) => {
                let until = end.min(bytes.len()).max(to.len());
                let stale = bytes.get(to.len()..until).unwrap_or_default();
                to.extend_from_slice(stale);
            }
        }
        if to.len() < end {
            to.resize(end, 0);
        }
    }
}

impl Piece {
    fn sector(&self) -> usize {
        self.offset / SECTOR_BYTES
    }

    fn write_to(&self, to: &mut Vec<u8>, fill: &mut Fill<'_>) {
        let end = self.offset + self.bytes.len();
        if to.len() < end {
            // Behind the end is what the medium holds, in front of this piece as well.
            fill.extend(to, end);
        }
        if let Some(room) = to.get_mut(self.offset..end) {
            room.copy_from_slice(&self.bytes);
        }
    }
}

impl Inode {
    /// A durable file.
    pub(super) fn new(content: Arc<Content>) -> Self {
        Self { live: Arc::clone(&content), durable: content, pieces: Vec::new() }
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        let live = Content::change(&mut self.live);
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(rest.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
            let piece = Piece { offset: at, bytes: part.into(), fate: Fate::Open };
            piece.write_to(live, &mut Fill::Zeros);
            self.pieces.push(piece);
            at += part.len();
            rest = behind;
        }
    }

    pub(super) fn sync(&mut self) {
        let lost: BTreeSet<usize> =
            self.pieces.iter().filter(|piece| piece.fate == Fate::Lost).map(Piece::sector).collect();
        if lost.is_empty() {
            self.pieces.clear();
            self.durable = Arc::clone(&self.live);
            return;
        }
        let durable = Content::change(&mut self.durable);
        self.pieces.retain_mut(|piece| {
            let undecided = lost.contains(&piece.sector());
            if !undecided {
                piece.write_to(durable, &mut Fill::Zeros);
            } else if piece.fate == Fate::Open {
                piece.fate = Fate::Settled;
            }
            undecided
        });
    }

    /// What a failed sync leaves: processes still see the bytes, some may have arrived, no later sync will write them.
    pub(super) fn lose_unsynced(&mut self) {
        for piece in &mut self.pieces {
            if piece.fate == Fate::Open {
                piece.fate = Fate::Lost;
            }
        }
    }

    fn sectors(&self) -> BTreeMap<usize, Vec<&Piece>> {
        let mut sectors: BTreeMap<usize, Vec<&Piece>> = BTreeMap::new();
        for piece in &self.pieces {
            sectors.entry(piece.sector()).or_default().push(piece);
        }
        sectors
    }

    /// The number of outcomes of each decision in `after_crash`, in order.
    pub(super) fn outcomes(&self) -> Vec<u32> {
        if self.pieces.is_empty() {
            return Vec::new();
        }
        self.sectors().values().map(|pieces| open_in(pieces) + 1).chain([LENGTHS * FILLS]).collect()
    }

    /// `stale`: what an earlier file left on the medium.
    pub(super) fn after_crash(&self, stale: &[u8], choose: &mut dyn FnMut(u32) -> u32) -> Arc<Content> {
        if self.pieces.is_empty() {
            return Arc::clone(&self.durable);
        }
        let mut arrived: Vec<&Piece> = Vec::new();
        for pieces in self.sectors().values() {
            let mut count = choose(open_in(pieces) + 1);
            arrived.extend(pieces.iter().copied().filter(|piece| {
                let arrives = piece.fate == Fate::Settled || count > 0;
                count = count.saturating_sub(u32::from(piece.fate != Fate::Settled));
                arrives
            }));
        }
        let shape = choose(LENGTHS * FILLS);
        let mut fill = match shape % FILLS {
            0 => Fill::Zeros,
            1 => Fill::Garbage(Random::new(0x6a09_e667_f3bc_c908)),
            _ => Fill::Stale(stale),
        };
        let mut bytes = self.durable.bytes.clone();
        for piece in arrived {
            piece.write_to(&mut bytes, &mut fill);
        }
        if shape >= FILLS && bytes.len() < self.live.bytes.len() {
            fill.extend(&mut bytes, self.live.bytes.len());
        }
        // Most that is written are zeros where zeros were.
        if bytes == self.durable.bytes { Arc::clone(&self.durable) } else { Content::new(bytes) }
    }
}

/// How many of the pieces of a sector may be missing.
fn open_in(pieces: &[&Piece]) -> u32 {
    let open = pieces.iter().filter(|piece| piece.fate != Fate::Settled).count();
    u32::try_from(open).unwrap_or(u32::MAX - 1)
}

/// What a disk writes as a whole, or not at all.
const SECTOR_BYTES: usize = 512;
/// The file's length grew with the bytes that arrived, or to the end at once.
const LENGTHS: u32 = 2;
/// Zeros, garbage, or an earlier file's bytes.
const FILLS: u32 = 3;
