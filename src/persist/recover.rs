//! Which of the files in a directory are the state. Pure: decides from names and from the outcomes of checks.
//!
//! The state is the newest snapshot and the journals that lead on from it. Journals are followed from the newest backwards:
//! each names the one it goes on from and how much of that counts, so that nothing has to be guessed.
//!
//! INVARIANT I-R1: exactly one state, or a refusal that names the file; never a mixture, never an empty store in place of
//! one that was there.
//! INVARIANT I-R2: a file of a newer release or of another store is never chosen, replaced or set aside.
//! INVARIANT I-R3: without a policy that allows it nothing is chosen while there is a sign of something newer, for that
//! could bring back a revoked peer. Only the newest group of a journal without a closing mark may be cut off.
#![forbid(unsafe_code)]

#[cfg(all(test, not(trustkeep_loom)))]
mod tests;

use std::collections::BTreeMap;

use super::FileEntry;
use super::format::{Damage, Ending, FileError, How, JournalHead, MARK_AT, StoreId};

/// What opening does when the newest state cannot be read. Nothing is ever deleted: damaged files are set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecoverPolicy {
    /// Refuse to open, naming file, offset and reason.
    #[default]
    Fail,
    /// Use what is whole: an older snapshot, and journals as far as they can be followed. **May bring back revoked
    /// peers**, and forget grants; if all journals since the older snapshot are whole, nothing is lost.
    Previous,
    /// As `Previous`; if nothing is whole, start empty. **Forgets every grant and every revocation.**
    Empty,
}

/// The files of a directory by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Generation and name, newest first.
    pub(crate) snapshots: Vec<(u64, String)>,
    /// Number and name, newest first.
    pub(crate) journals: Vec<(u64, String)>,
    pub(crate) genesis: bool,
    /// Half-written files of a crash.
    pub(crate) leftovers: Vec<String>,
    /// Damaged files that an earlier recovery set aside.
    pub(crate) set_aside: Vec<String>,
    /// Names that no release writes.
    pub(crate) foreign: Vec<String>,
    pub(crate) lock: bool,
}

pub(crate) const GENESIS: &str = "GENESIS";
pub(crate) const LOCK: &str = "LOCK";
const SNAPSHOT: (&str, &str) = ("snapshot-", ".tks");
const JOURNAL: (&str, &str) = ("journal-", ".tkj");
const TEMPORARY: &str = ".tmp";
const ASIDE: &str = "damaged-";

/// The last generation that is ever published. Never reached by counting; a file beyond it was put there by somebody,
/// and is not ours, for after it there would be no number left for the next change.
pub(crate) const GENERATION_MAX: u64 = (1 << 63) - 1;

pub(crate) fn snapshot_name(generation: u64) -> String {
    let (prefix, suffix) = SNAPSHOT;
    format!("{prefix}{generation:016x}{suffix}")
}

pub(crate) fn journal_name(seq: u64) -> String {
    let (prefix, suffix) = JOURNAL;
    format!("{prefix}{seq:016x}{suffix}")
}

/// A name for a file that is being written and will become `name`; attempts differ, so that none meets another's file.
pub(crate) fn temporary_name(name: &str, attempt: u64) -> String {
    format!("{name}{TEMPORARY}{attempt}")
}

/// The name under which a damaged file is kept. Taken names are no obstacle: the counter goes on.
pub(crate) fn aside_name(name: &str, taken: &[FileEntry]) -> String {
    let mut number = 0u64;
    loop {
        let aside = format!("{ASIDE}{number}-{name}");
        if !taken.iter().any(|entry| entry.name == aside) {
            return aside;
        }
        number += 1;
    }
}

/// The number in a name of this form; none beyond [`GENERATION_MAX`], behind which there would be no next one.
fn number_in(name: &str, (prefix, suffix): (&str, &str)) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (number <= GENERATION_MAX && format!("{number:016x}") == digits).then_some(number)
}

fn is_leftover(name: &str) -> bool {
    let is_ours = |of: &str| of == GENESIS || number_in(of, SNAPSHOT).or_else(|| number_in(of, JOURNAL)).is_some();
    name.rsplit_once(TEMPORARY).is_some_and(|(of, attempt)| attempt.parse::<u64>().is_ok() && is_ours(of))
}

impl Listing {
    pub(crate) fn new(entries: &[FileEntry]) -> Self {
        let mut listing = Self::default();
        for FileEntry { name, .. } in entries {
            if let Some(generation) = number_in(name, SNAPSHOT) {
                listing.snapshots.push((generation, name.clone()));
            } else if let Some(seq) = number_in(name, JOURNAL) {
                listing.journals.push((seq, name.clone()));
            } else if name == GENESIS {
                listing.genesis = true;
            } else if name == LOCK {
                listing.lock = true;
            } else if is_leftover(name) {
                listing.leftovers.push(name.clone());
            } else if name.starts_with(ASIDE) {
                listing.set_aside.push(name.clone());
            } else {
                listing.foreign.push(name.clone());
            }
        }
        listing.snapshots.sort_by(|a, b| b.cmp(a));
        listing.journals.sort_by(|a, b| b.cmp(a));
        listing
    }

    /// A name that shows the directory to be another program's: it has files, none of which is ours. `LOCK` does not count,
    /// for other programs have a file of that name too; alone it is a creation that was cut short.
    pub(crate) fn foreign_directory(&self) -> Option<&str> {
        let ours = self.genesis || self.has_data() || !self.leftovers.is_empty();
        if ours { None } else { self.foreign.first().map(String::as_str) }
    }
}

impl Listing {
    /// Whether there is any file that holds a state.
    pub(crate) fn has_data(&self) -> bool {
        !self.snapshots.is_empty() || !self.journals.is_empty()
    }
}

/// A journal that is part of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) seq: u64,
    pub(crate) head: JournalHead,
    /// How many of its bytes count; all, if nothing goes on from it.
    pub(crate) counted: Option<u64>,
}

/// The files that are the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) snapshot: (u64, String),
    /// Oldest first.
    pub(crate) journals: Vec<Link>,
    /// How the newest of them ends.
    pub(crate) ending: Option<Ending>,
    /// The same journals, and older ones that lead to them: number and the generation each begins at, oldest first.
    pub(crate) kept: Vec<(u64, u64)>,
    /// Whole journals that nothing goes on from: left by a save that failed. May go.
    pub(crate) stale: Vec<u64>,
    /// Journals older than those, and damaged ones that nothing goes on from. Not needed; but as long as there is no
    /// newer snapshot, an operator may still want them.
    pub(crate) superseded: Vec<u64>,
    /// Damaged files to set aside first, because the policy accepts their loss.
    pub(crate) set_aside: Vec<(String, Damage)>,
    /// Something newer was there, and the policy accepts its loss.
    pub(crate) lossy: bool,
    /// The mark is missing (a creation was cut short) or damaged (and the policy accepts writing it anew).
    pub(crate) write_mark: bool,
}

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Nothing was ever here, or only the beginning of a creation: create a store.
    Create,
    /// These files are the state.
    State(Box<Recovered>),
    /// Everything is damaged or gone and the policy accepts an empty store.
    Empty { set_aside: Vec<(String, Damage)>, store: Option<StoreId> },
}

/// Why nothing may be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Damaged { name: String, damage: Damage },
    Newer { name: String, version: u32 },
    OtherStore { name: String },
    DataMissing,
}

/// The files, as far as a decision needs to look into them. Keeps the state that it has read.
pub(crate) trait Contents {
    /// Checks a snapshot, which is then the state; says which store it belongs to.
    fn snapshot(&mut self, name: &str) -> Result<StoreId, FileError>;

    /// Checks the headers of a journal.
    fn head(&mut self, name: &str) -> Result<JournalHead, FileError>;

    /// Checks a journal as far as it counts and applies it to the state; after an error as far as it was whole.
    fn journal(&mut self, name: &str, counted: Option<u64>) -> Result<Ending, FileError>;

    /// The generation of the state.
    fn generation(&self) -> u64;
}

/// Decides. `mark` is the outcome of checking the genesis mark, if there is one. Snapshots are checked newest first and
/// only as far as needed.
pub(crate) fn decide(
    listing: &Listing,
    mark: Option<Result<StoreId, FileError>>,
    policy: RecoverPolicy,
    contents: &mut dyn Contents,
) -> Result<Choice, Refusal> {
    let mut losses = Losses { policy, set_aside: Vec::new() };
    let store = match mark {
        None => None,
        Some(Ok(store)) => Some(store),
        Some(Err(error)) => {
            losses.accept(GENESIS, error)?;
            None
        }
    };
    let write_mark = store.is_none();
    for (generation, name) in &listing.snapshots {
        match contents.snapshot(name) {
            Ok(found) if store.is_some_and(|expected| expected != found) => {
                return Err(Refusal::OtherStore { name: name.clone() });
            }
            Ok(store) => {
                let recovered = follow(listing, (*generation, name), store, losses, contents)?;
                return Ok(Choice::State(Box::new(Recovered { write_mark, ..recovered })));
            }
            Err(error) => losses.accept(name, error)?,
        }
    }
    if !listing.genesis && !listing.has_data() {
        return Ok(Choice::Create);
    }
    let mut set_aside = losses.set_aside;
    if policy == RecoverPolicy::Empty {
        let orphans = listing.journals.iter().map(|(_, name)| {
            (name.clone(), Damage { offset: 0, reason: "the snapshot that it goes on from is lost".to_owned() })
        });
        set_aside.extend(orphans);
        return Ok(Choice::Empty { set_aside, store });
    }
    // Under `Previous`, with nothing whole to fall back to, name the newest damaged file.
    match set_aside.into_iter().find(|(name, _)| name != GENESIS) {
        Some((name, damage)) => Err(Refusal::Damaged { name, damage }),
        None => Err(Refusal::DataMissing),
    }
}

/// What is damaged, and whether that is accepted.
struct Losses {
    policy: RecoverPolicy,
    set_aside: Vec<(String, Damage)>,
}

impl Losses {
    fn accept(&mut self, name: &str, error: FileError) -> Result<(), Refusal> {
        match error {
            FileError::Newer(version) => Err(Refusal::Newer { name: name.to_owned(), version }),
            FileError::Damaged(damage) if self.policy == RecoverPolicy::Fail => {
                Err(Refusal::Damaged { name: name.to_owned(), damage })
            }
            FileError::Damaged(damage) => {
                self.set_aside.push((name.to_owned(), damage));
                Ok(())
            }
        }
    }
}

/// Follows the journals on from a whole snapshot, as far as they lead.
fn follow(
    listing: &Listing,
    (snapshot, name): (u64, &str),
    store: StoreId,
    mut losses: Losses,
    contents: &mut dyn Contents,
) -> Result<Recovered, Refusal> {
    let mut heads = BTreeMap::new();
    for (seq, name) in &listing.journals {
        let head = contents.head(name);
        match &head {
            Ok(head) if head.store != store => return Err(Refusal::OtherStore { name: name.clone() }),
            Err(FileError::Newer(version)) => return Err(Refusal::Newer { name: name.clone(), version: *version }),
            _ => {}
        }
        heads.insert(*seq, head);
    }
    let mut lossy = false;
    // Whoever is lost takes everything that goes on from it along.
    let give_up = |heads: &mut BTreeMap<u64, _>, losses: &mut Losses, seq: u64, error: FileError| {
        losses.accept(&journal_name(seq), error)?;
        for later in heads.split_off(&seq).into_keys().filter(|later| *later != seq) {
            let reason = format!("goes on from {}, which is damaged", journal_name(seq));
            losses.set_aside.push((journal_name(later), Damage { offset: 0, reason }));
        }
        Ok(())
    };
    let mut journals = loop {
        match chain(snapshot, &heads) {
            Ok(journals) => break journals,
            Err((seq, error)) => give_up(&mut heads, &mut losses, seq, error)?,
        }
        lossy = true;
    };
    let mut ending = None;
    for (index, link) in journals.iter().enumerate() {
        match contents.journal(&journal_name(link.seq), link.counted) {
            Ok(found) => ending = Some(found),
            Err(error) => {
                give_up(&mut heads, &mut losses, link.seq, error)?;
                lossy = true;
                journals.truncate(index);
                break;
            }
        }
    }
    if !lossy
        && let (Some(Ending { how: How::Continued, generation, .. }), Some(link)) = (&ending, journals.last())
        && *generation >= snapshot
    {
        if losses.policy == RecoverPolicy::Fail {
            let reason = "another journal goes on from here, and is missing".to_owned();
            let damage = Damage { offset: MARK_AT, reason };
            return Err(Refusal::Damaged { name: journal_name(link.seq), damage });
        }
        lossy = true;
    }
    let reached = contents.generation();
    let kept = lineage(&heads);
    let oldest = kept.first().map_or(0, |(seq, _)| *seq);
    let others = heads.into_iter().filter(|(seq, _)| kept.iter().all(|(kept, _)| kept != seq));
    let (stale, superseded): (Vec<_>, Vec<_>) = others.partition(|(seq, head)| *seq > oldest && head.is_ok());
    let seqs = |of: Vec<(u64, _)>| of.into_iter().map(|(seq, _)| seq).collect();
    let (stale, superseded) = (seqs(stale), seqs(superseded));
    let set_aside = losses.set_aside;
    let newer_snapshot = |(name, _): &(String, Damage)| number_in(name, SNAPSHOT).is_some_and(|of| of > reached);
    lossy |= set_aside.iter().any(newer_snapshot);
    let snapshot = (snapshot, name.to_owned());
    Ok(Recovered { snapshot, journals, ending, kept, stale, superseded, set_aside, lossy, write_mark: false })
}

/// The journals from the newest backwards, as far as they are there; oldest first.
fn lineage(heads: &BTreeMap<u64, Result<JournalHead, FileError>>) -> Vec<(u64, u64)> {
    let mut lineage = Vec::new();
    let mut next = heads.last_key_value().map(|(seq, _)| *seq);
    while let Some(Ok(head)) = next.and_then(|seq| heads.get(&seq)) {
        lineage.push((head.seq, head.base));
        next = head.previous.map(|previous| previous.seq);
    }
    lineage.reverse();
    lineage
}

/// The journals that lead on from this generation, oldest first; or the one that cannot be followed.
pub(crate) fn chain(
    generation: u64,
    heads: &BTreeMap<u64, Result<JournalHead, FileError>>,
) -> Result<Vec<Link>, (u64, FileError)> {
    let damage = |offset, reason: String| FileError::Damaged(Damage { offset, reason });
    let mut links = Vec::new();
    let Some((newest, _)) = heads.last_key_value() else { return Ok(links) };
    let (mut seq, mut counted, mut from) = (*newest, None, *newest);
    loop {
        let head = match heads.get(&seq) {
            Some(Ok(head)) => *head,
            Some(Err(error)) => return Err((seq, error.clone())),
            None => {
                let reason = format!("goes on from {}, which is missing", journal_name(seq));
                return Err((from, damage(HEAD_PREVIOUS_AT, reason)));
            }
        };
        links.push(Link { seq, head, counted });
        if head.base <= generation {
            links.reverse();
            return Ok(links);
        }
        let Some(previous) = head.previous else {
            let reason = format!("begins at generation {}, but the snapshot ends at {generation}", head.base);
            return Err((seq, damage(HEAD_BASE_AT, reason)));
        };
        (from, seq, counted) = (seq, previous.seq, Some(previous.bytes));
    }
}

/// Where the headers of a journal name the generation that it begins at, and the journal that it goes on from.
const HEAD_BASE_AT: u64 = 40;
const HEAD_PREVIOUS_AT: u64 = 80;
