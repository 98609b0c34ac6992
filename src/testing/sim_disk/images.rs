//! Every state that a crash may leave behind.
//!
//! What must hold: each outcome that the documentation of [`Storage`](crate::persist::Storage) leaves open occurs among
//! the images. Names: each directory operation not yet synced happened or not, whatever the others did; a rename may
//! also leave both names. Bytes: each sector not yet synced is as it was at some moment since the last sync; bytes that
//! were never synced read as zeros or as garbage, or the file ends before them.
//!
//! One builder makes the image and asks for each decision; whoever answers can count through all of them, or draw lots.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Files by name.
pub type Image = BTreeMap<String, Vec<u8>>;

/// The disk as it was at some call.
#[derive(Clone, Debug)]
pub struct CrashPoint {
    pub(super) files: BTreeMap<u64, Arc<Inode>>,
    pub(super) durable: BTreeMap<String, u64>,
    pub(super) unsynced: Vec<DirOp>,
    /// What the owner had been promised.
    pub acknowledged: Option<u64>,
    /// How many calls had been made.
    pub call: usize,
}

/// A change of the directory.
#[derive(Clone, Debug)]
pub(super) enum DirOp {
    Link { name: String, inode: u64 },
    Rename { from: String, to: String, inode: u64 },
    Unlink { name: String },
}

impl DirOp {
    pub(super) fn inode(&self) -> Option<u64> {
        match self {
            Self::Link { inode, .. } | Self::Rename { inode, .. } => Some(*inode),
            Self::Unlink { .. } => None,
        }
    }

    /// `half`: a rename whose old name is still there as well.
    pub(super) fn apply(&self, directory: &mut BTreeMap<String, u64>, half: bool) {
        match self {
            Self::Link { name, inode } => drop(directory.insert(name.clone(), *inode)),
            Self::Rename { from, to, inode } => {
                if !half && directory.get(from) == Some(inode) {
                    directory.remove(from);
                }
                directory.insert(to.clone(), *inode);
            }
            Self::Unlink { name } => drop(directory.remove(name)),
        }
    }

    fn outcomes(&self) -> u32 {
        if matches!(self, Self::Rename { .. }) { 3 } else { 2 }
    }
}

/// A file's bytes, now and after a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Writes since the last sync, none across a sector's end, in order.
    pub(super) unsynced: Vec<Piece>,
}

#[derive(Clone, Debug)]
pub(super) struct Piece {
    offset: usize,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    fn write_to(&self, to: &mut Vec<u8>, fill: &mut dyn FnMut() -> u8) {
        while to.len() < self.end() {
            to.push(fill());
        }
        if let Some(room) = to.get_mut(self.offset..self.end()) {
            room.copy_from_slice(&self.bytes);
        }
    }
}

impl Inode {
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(rest.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
            let piece = Piece { offset: at, bytes: part.to_vec() };
            piece.write_to(&mut self.live, &mut || 0);
            self.unsynced.push(piece);
            at += part.len();
            rest = behind;
        }
    }

    pub(super) fn sync(&mut self) {
        for piece in core::mem::take(&mut self.unsynced) {
            piece.write_to(&mut self.durable, &mut || 0);
        }
    }

    /// What a failed sync leaves: processes still see the bytes, no later sync will write them.
    pub(super) fn lose_unsynced(&mut self) {
        self.unsynced.clear();
    }

    /// The number of outcomes of each decision in `after_crash`, in order.
    fn outcomes(&self) -> Vec<u32> {
        if self.unsynced.is_empty() {
            return Vec::new();
        }
        let mut sectors = BTreeMap::new();
        for piece in &self.unsynced {
            *sectors.entry(piece.offset / SECTOR_BYTES).or_insert(1) += 1;
        }
        sectors.into_values().chain([LENGTHS_AND_FILLS]).collect()
    }

    fn after_crash(&self, choose: &mut dyn FnMut(u32) -> u32) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        if self.unsynced.is_empty() {
            return bytes;
        }
        let mut sectors: BTreeMap<usize, Vec<&Piece>> = BTreeMap::new();
        for piece in &self.unsynced {
            sectors.entry(piece.offset / SECTOR_BYTES).or_default().push(piece);
        }
        let mut arrived: Vec<&Piece> = Vec::new();
        for pieces in sectors.values() {
            let count = choose(u32::try_from(pieces.len()).unwrap_or(u32::MAX).saturating_add(1));
            arrived.extend(pieces.iter().copied().take(count as usize));
        }
        let shape = choose(LENGTHS_AND_FILLS);
        let (garbage, whole_length) = (shape & 1 == 1, shape & 2 == 2);
        let mut noise = Random(0x6a09_e667_f3bc_c908);
        let mut fill = || if garbage { noise.byte() } else { 0 };
        for piece in arrived {
            piece.write_to(&mut bytes, &mut fill);
        }
        while whole_length && bytes.len() < self.live.len() {
            bytes.push(fill());
        }
        bytes
    }
}

impl CrashPoint {
    /// Hands `look` the images of a crash here: all of them if there are at most `budget`, else that many drawn by
    /// `seed`, among them the one with nothing and the one with everything. Equal images come once. Returns how many.
    pub fn images(&self, budget: usize, seed: u64, look: &mut dyn FnMut(&Image)) -> usize {
        let mut seen = HashSet::new();
        let mut found = |image: Image| {
            // Fingerprints are enough here: a collision would cost one image.
            if seen.insert(fingerprint(&image)) {
                look(&image);
            }
        };
        if self.count() <= budget as u128 {
            let mut digits: Vec<(u32, u32)> = Vec::new();
            loop {
                let mut next = 0;
                found(self.build(&mut |outcomes| {
                    if next == digits.len() {
                        digits.push((0, outcomes));
                    }
                    next += 1;
                    digits.get(next - 1).map_or(0, |(digit, _)| *digit)
                }));
                while digits.last().is_some_and(|(digit, outcomes)| digit + 1 >= *outcomes) {
                    digits.pop();
                }
                match digits.last_mut() {
                    Some((digit, _)) => *digit += 1,
                    None => break,
                }
            }
        } else {
            let mut random = Random(seed | 1);
            found(self.build(&mut |_| 0));
            // The second outcome of a rename is the whole one, the last a half one; both are corners.
            found(self.build(&mut |outcomes| 1.min(outcomes - 1)));
            found(self.build(&mut |outcomes| outcomes - 1));
            for _ in 3..budget {
                found(self.build(&mut |outcomes| random.below(outcomes)));
            }
        }
        seen.len()
    }

    /// How many series of decisions there are.
    fn count(&self) -> u128 {
        let mut total = 0u128;
        let directories: u32 = self.unsynced.iter().map(DirOp::outcomes).fold(1, u32::saturating_mul);
        if directories > 100_000 {
            return u128::MAX;
        }
        for number in 0..directories {
            let mut rest = number;
            let directory = self.directory(&mut |outcomes| {
                let digit = rest % outcomes;
                rest /= outcomes;
                digit
            });
            let files = directory.values().filter_map(|inode| self.files.get(inode));
            let outcomes = files.flat_map(|file| file.outcomes());
            total = total.saturating_add(outcomes.fold(1, |product, of| product.saturating_mul(u128::from(of))));
        }
        total
    }

    fn directory(&self, choose: &mut dyn FnMut(u32) -> u32) -> BTreeMap<String, u64> {
        let mut directory = self.durable.clone();
        for op in &self.unsynced {
            match choose(op.outcomes()) {
                0 => {}
                outcome => op.apply(&mut directory, outcome == 2),
            }
        }
        directory
    }

    fn build(&self, choose: &mut dyn FnMut(u32) -> u32) -> Image {
        let directory = self.directory(choose);
        // Two names of one file lead to the same bytes.
        let mut contents: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut image = Image::new();
        for (name, inode) in directory {
            let bytes = contents
                .entry(inode)
                .or_insert_with(|| self.files.get(&inode).map(|file| file.after_crash(choose)).unwrap_or_default());
            image.insert(name, bytes.clone());
        }
        image
    }
}

fn fingerprint(image: &Image) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    hasher.finish()
}

/// Marsaglia's xorshift: the same on every machine, from a seed that a failing test prints.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(((self.next() >> 32) * u64::from(limit)) >> 32).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }
}

/// What a disk writes as a whole, or not at all.
const SECTOR_BYTES: usize = 512;
/// The file's length grew with the bytes that arrived or to the end at once, and what never arrived reads as zeros or
/// as garbage.
const LENGTHS_AND_FILLS: u32 = 4;
