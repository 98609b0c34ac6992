//! Every state that a crash may leave behind.
//!
//! What must hold: each outcome that the documentation of [`Storage`](crate::persist::Storage) leaves open occurs among
//! the images. Names: each directory operation not yet synced happened or not, whatever the others did; a rename may
//! also leave both names. Bytes: each sector not yet synced is as it was at some moment since the last sync; bytes that
//! were never synced read as zeros, as garbage or as an earlier file's, or the file ends before them.
//!
//! One builder makes the image and asks for each decision; whoever answers can count through all of them, or draw lots.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::SimDisk;
use super::inode::{Content, Inode, mix};

/// Files by name.
pub type Image = BTreeMap<String, Vec<u8>>;

/// The disk as it was at some call.
#[derive(Clone, Debug)]
pub struct CrashPoint {
    pub(super) files: BTreeMap<u64, Arc<Inode>>,
    pub(super) durable: BTreeMap<String, u64>,
    pub(super) unsynced: Vec<DirOp>,
    /// The content of the file that went last.
    pub(super) gone: Option<Arc<Content>>,
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

/// What one crash left behind: files by name, their contents shared with other outcomes and with the disk before.
#[derive(Clone, Debug)]
pub struct Outcome {
    files: BTreeMap<String, Arc<Content>>,
}

impl Outcome {
    /// Equal outcomes have equal fingerprints, and others almost never.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.files.iter().fold(0, |sum, (name, content)| {
            let name = name.bytes().fold(sum, |sum, byte| mix(sum ^ u64::from(byte)));
            mix(name ^ content.fingerprint())
        })
    }

    /// A disk that holds these files, all of them durable.
    #[must_use]
    pub fn disk(&self) -> SimDisk {
        let disk = SimDisk::new();
        for (name, content) in &self.files {
            disk.inner.lock().put(name, Arc::clone(content));
        }
        disk
    }

    /// A copy of the files.
    #[must_use]
    pub fn image(&self) -> Image {
        self.files.iter().map(|(name, content)| (name.clone(), content.bytes().to_vec())).collect()
    }
}

impl CrashPoint {
    /// As [`CrashPoint::outcomes`], with copies of the files.
    pub fn images(&self, budget: usize, seed: u64, look: &mut dyn FnMut(&Image)) -> usize {
        self.outcomes(budget, seed, &mut |outcome| look(&outcome.image()))
    }

    /// Hands `look` the outcomes of a crash here: all of them if there are at most `budget`, else that many drawn by
    /// `seed`, among them the one with nothing and the one with everything. Equal ones come once. Returns how many.
    pub fn outcomes(&self, budget: usize, seed: u64, look: &mut dyn FnMut(&Outcome)) -> usize {
        let mut seen = HashSet::new();
        let mut found = |outcome: Outcome| {
            // Fingerprints are enough here: a collision would cost one outcome.
            if seen.insert(outcome.fingerprint()) {
                look(&outcome);
            }
        };
        if self.count(budget) <= budget as u128 {
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
            let mut random = Random::new(seed);
            found(self.build(&mut |_| 0));
            // The second outcome of a rename is the whole one, the last a half one; both are corners.
            found(self.build(&mut |outcomes| 1.min(outcomes - 1)));
            found(self.build(&mut |outcomes| outcomes - 1));
            for number in 3..budget {
                // In every other one most decisions go the same way: a sector or a name alone among the others.
                let (odds, usual) = (random.below(8), random.below(2));
                found(self.build(&mut |outcomes| {
                    let rare = number % 2 == 0 || random.below(8) < odds;
                    if rare { random.below(outcomes) } else { usual * (outcomes - 1) }
                }));
            }
        }
        seen.len()
    }

    /// How many series of decisions there are; `u128::MAX` if the directory alone has more than `budget`.
    fn count(&self, budget: usize) -> u128 {
        let mut total = 0u128;
        let directories: u32 = self.unsynced.iter().map(DirOp::outcomes).fold(1, u32::saturating_mul);
        if directories as usize > budget {
            return u128::MAX;
        }
        for number in 0..directories {
            let mut rest = number;
            let directory = self.directory(&mut |outcomes| {
                let digit = rest % outcomes;
                rest /= outcomes;
                digit
            });
            let inodes: BTreeSet<u64> = directory.into_values().collect();
            let files = inodes.iter().filter_map(|inode| self.files.get(inode));
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

    fn build(&self, choose: &mut dyn FnMut(u32) -> u32) -> Outcome {
        let directory = self.directory(choose);
        // Two names of one file lead to the same bytes.
        let mut contents: BTreeMap<u64, Arc<Content>> = BTreeMap::new();
        let files = directory.into_iter().map(|(name, inode)| {
            let content = contents.entry(inode).or_insert_with(|| {
                let stale = self.stale(inode);
                self.files.get(&inode).map(|file| file.after_crash(stale, choose)).unwrap_or_default()
            });
            (name, Arc::clone(content))
        });
        Outcome { files: files.collect() }
    }

    /// What an earlier file left where this one's bytes are going to be: the one that went last, or else an older one.
    fn stale(&self, inode: u64) -> &[u8] {
        let older = || self.files.range(..inode).next_back().map(|(_, file)| file.durable.bytes());
        self.gone.as_deref().map(Content::bytes).or_else(older).unwrap_or_default()
    }
}

/// Marsaglia's xorshift: the same on every machine, from a seed that a failing test prints.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(((self.next() >> 32) * u64::from(limit)) >> 32).unwrap_or(0)
    }
}
