//! Which of the files in a directory is the state. Pure: decides from names and from the outcomes of checks.
//!
//! INVARIANT I-R1: exactly one state, or a refusal that names the file; never a mixture, never an empty store in place of
//! one that was there.
//! INVARIANT I-R2: a file of a newer release or of another store is never chosen, replaced or set aside.
//! INVARIANT I-R3: without a policy that allows it nothing older than the newest snapshot is chosen, for that could bring
//! back a revoked peer.
#![forbid(unsafe_code)]

use super::FileEntry;
use super::format::{Damage, FileError, StoreId};

/// What opening does when the newest state cannot be read. Nothing is ever deleted: damaged files are set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecoverPolicy {
    /// Refuse to open, naming file, offset and reason.
    #[default]
    Fail,
    /// Fall back to the newest older snapshot that is whole. **May bring back revoked peers**, and forgets grants.
    Previous,
    /// As `Previous`; if nothing is whole, start empty. **Forgets every grant and every revocation.**
    Empty,
}

/// The files of a directory by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Generation and name, newest first.
    pub(crate) snapshots: Vec<(u64, String)>,
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
const PREFIX: &str = "snapshot-";
const SUFFIX: &str = ".tks";
const TEMPORARY: &str = ".tmp";
const ASIDE: &str = "damaged-";

/// The last generation that is ever published. Never reached by counting; a file beyond it was put there by somebody,
/// and is not ours, for after it there would be no number left for the next change.
pub(crate) const GENERATION_MAX: u64 = (1 << 63) - 1;

pub(crate) fn snapshot_name(generation: u64) -> String {
    format!("{PREFIX}{generation:016x}{SUFFIX}")
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

fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let generation = u64::from_str_radix(digits, 16).ok()?;
    (generation <= GENERATION_MAX && snapshot_name(generation) == name).then_some(generation)
}

fn is_leftover(name: &str) -> bool {
    name.rsplit_once(TEMPORARY)
        .is_some_and(|(of, attempt)| attempt.parse::<u64>().is_ok() && (of == GENESIS || generation_of(of).is_some()))
}

impl Listing {
    pub(crate) fn new(entries: &[FileEntry]) -> Self {
        let mut listing = Self::default();
        for FileEntry { name, .. } in entries {
            if let Some(generation) = generation_of(name) {
                listing.snapshots.push((generation, name.clone()));
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
        listing
    }

    /// A name that shows the directory to be somebody else's: it has files, none of which is ours.
    pub(crate) fn foreign_directory(&self) -> Option<&str> {
        let ours = self.genesis || self.lock || !self.snapshots.is_empty() || !self.leftovers.is_empty();
        if ours { None } else { self.foreign.first().map(String::as_str) }
    }
}

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Nothing was ever here, or only the beginning of a creation: create a store.
    Create,
    /// This snapshot is the state.
    Snapshot {
        name: String,
        /// Damaged files to set aside first, because the policy accepts their loss.
        set_aside: Vec<(String, Damage)>,
        /// The mark is missing (a creation was cut short) or damaged (and the policy accepts writing it anew).
        write_mark: bool,
    },
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

/// Decides. `mark` is the outcome of checking the genesis mark, if there is one; `check` reads a snapshot and says which
/// store it belongs to. Snapshots are checked newest first and only as far as needed.
pub(crate) fn decide(
    listing: &Listing,
    mark: Option<Result<StoreId, FileError>>,
    policy: RecoverPolicy,
    check: &mut dyn FnMut(&str) -> Result<StoreId, FileError>,
) -> Result<Choice, Refusal> {
    let mut set_aside = Vec::new();
    let mut accept_loss = |name: &str, error: FileError| match error {
        FileError::Newer(version) => Err(Refusal::Newer { name: name.to_owned(), version }),
        FileError::Damaged(damage) if policy == RecoverPolicy::Fail => {
            Err(Refusal::Damaged { name: name.to_owned(), damage })
        }
        FileError::Damaged(damage) => {
            set_aside.push((name.to_owned(), damage));
            Ok(())
        }
    };
    let store = match mark {
        None => None,
        Some(Ok(store)) => Some(store),
        Some(Err(error)) => {
            accept_loss(GENESIS, error)?;
            None
        }
    };
    for (_, name) in &listing.snapshots {
        match check(name) {
            Ok(found) if store.is_some_and(|expected| expected != found) => {
                return Err(Refusal::OtherStore { name: name.clone() });
            }
            Ok(_) => return Ok(Choice::Snapshot { name: name.clone(), set_aside, write_mark: store.is_none() }),
            Err(error) => accept_loss(name, error)?,
        }
    }
    if !listing.genesis && listing.snapshots.is_empty() {
        return Ok(Choice::Create);
    }
    if policy == RecoverPolicy::Empty {
        return Ok(Choice::Empty { set_aside, store });
    }
    // Under `Previous`, with nothing whole to fall back to, name the newest damaged file.
    match set_aside.into_iter().find(|(name, _)| name != GENESIS) {
        Some((name, damage)) => Err(Refusal::Damaged { name, damage }),
        None => Err(Refusal::DataMissing),
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    const OURS: StoreId = StoreId { id: [1; 16], seed: 5 };
    const THEIRS: StoreId = StoreId { id: [2; 16], seed: 5 };

    fn listing(names: &[&str]) -> Listing {
        let entries: Vec<_> = names.iter().map(|name| FileEntry { name: (*name).to_owned(), bytes: 0 }).collect();
        Listing::new(&entries)
    }

    fn bad() -> FileError {
        FileError::Damaged(Damage { offset: 3, reason: "x".into() })
    }

    fn damaged(name: &str) -> (String, Damage) {
        (name.to_owned(), Damage { offset: 3, reason: "x".into() })
    }

    #[test]
    fn names_are_told_apart_and_snapshots_come_newest_first() {
        let (one, ten) = (snapshot_name(1), snapshot_name(10));
        let temporary = temporary_name(&ten, 3);
        let all = listing(&["LOCK", &one, "GENESIS", &temporary, &ten, "GENESIS.tmp0", "damaged-0-x", "notes.txt"]);
        assert_eq!(all.snapshots, [(10, ten), (1, one)]);
        assert!(all.genesis && all.lock);
        assert_eq!(all.leftovers, [temporary.as_str(), "GENESIS.tmp0"]);
        assert_eq!(all.set_aside, ["damaged-0-x"]);
        assert_eq!(all.foreign, ["notes.txt"]);
        // Not ours: other digits, other case, other suffix, a temporary of nothing.
        for name in ["snapshot-1.tks", "snapshot-000000000000000A.tks", "snapshot-0000000000000001.tk", "x.tmp1"] {
            assert_eq!(listing(&[name]).foreign, [name]);
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_noticed_and_ours_is_not() {
        assert_eq!(listing(&["notes.txt"]).foreign_directory(), Some("notes.txt"));
        assert_eq!(listing(&[]).foreign_directory(), None);
        assert_eq!(listing(&["notes.txt", "GENESIS"]).foreign_directory(), None);
        assert_eq!(listing(&["notes.txt", "LOCK"]).foreign_directory(), None);
    }

    #[test]
    fn the_newest_whole_snapshot_is_chosen() {
        let files = listing(&["GENESIS", &snapshot_name(1), &snapshot_name(2)]);
        let choice = decide(&files, Some(Ok(OURS)), RecoverPolicy::Fail, &mut |_| Ok(OURS));
        assert_eq!(choice, Ok(Choice::Snapshot { name: snapshot_name(2), set_aside: vec![], write_mark: false }));
    }

    #[test]
    fn damage_is_refused_unless_the_policy_accepts_the_loss() {
        let files = listing(&["GENESIS", &snapshot_name(1), &snapshot_name(2)]);
        let run = |policy, bad_ones: &[String]| {
            decide(&files, Some(Ok(OURS)), policy, &mut |name| {
                if bad_ones.iter().any(|bad| bad == name) { Err(bad()) } else { Ok(OURS) }
            })
        };
        let (newest, both) = ([snapshot_name(2)], [snapshot_name(2), snapshot_name(1)]);
        let (name, damage) = damaged(&snapshot_name(2));
        let refused = Err(Refusal::Damaged { name, damage });
        assert_eq!(run(RecoverPolicy::Fail, &newest), refused);
        let fallback =
            Choice::Snapshot { name: snapshot_name(1), set_aside: vec![damaged(&snapshot_name(2))], write_mark: false };
        assert_eq!(run(RecoverPolicy::Previous, &newest), Ok(fallback.clone()));
        assert_eq!(run(RecoverPolicy::Empty, &newest), Ok(fallback));
        assert_eq!(run(RecoverPolicy::Previous, &both), refused);
        let set_aside = vec![damaged(&snapshot_name(2)), damaged(&snapshot_name(1))];
        assert_eq!(run(RecoverPolicy::Empty, &both), Ok(Choice::Empty { set_aside, store: Some(OURS) }));
    }

    #[test]
    fn a_mark_without_data_is_no_fresh_store_and_nothing_at_all_is() {
        let never = &mut |_: &str| panic!("nothing to check");
        let marked = listing(&["GENESIS", "LOCK"]);
        assert_eq!(decide(&marked, Some(Ok(OURS)), RecoverPolicy::Fail, never), Err(Refusal::DataMissing));
        assert_eq!(decide(&marked, Some(Ok(OURS)), RecoverPolicy::Previous, never), Err(Refusal::DataMissing));
        let empty = Choice::Empty { set_aside: vec![], store: Some(OURS) };
        assert_eq!(decide(&marked, Some(Ok(OURS)), RecoverPolicy::Empty, never), Ok(empty));
        assert_eq!(decide(&listing(&["LOCK"]), None, RecoverPolicy::Fail, never), Ok(Choice::Create));
        assert_eq!(decide(&listing(&["LOCK", "GENESIS.tmp0"]), None, RecoverPolicy::Fail, never), Ok(Choice::Create));
    }

    #[test]
    fn a_creation_cut_short_before_its_mark_opens_and_gets_the_mark() {
        let files = listing(&["LOCK", &snapshot_name(0)]);
        let choice = decide(&files, None, RecoverPolicy::Fail, &mut |_| Ok(OURS));
        assert_eq!(choice, Ok(Choice::Snapshot { name: snapshot_name(0), set_aside: vec![], write_mark: true }));
    }

    #[test]
    fn newer_and_foreign_files_are_refused_under_every_policy() {
        let files = listing(&["GENESIS", &snapshot_name(1), &snapshot_name(2)]);
        for policy in [RecoverPolicy::Fail, RecoverPolicy::Previous, RecoverPolicy::Empty] {
            let newer = decide(&files, Some(Ok(OURS)), policy, &mut |_| Err(FileError::Newer(9)));
            assert_eq!(newer, Err(Refusal::Newer { name: snapshot_name(2), version: 9 }));
            let theirs = decide(&files, Some(Ok(OURS)), policy, &mut |_| Ok(THEIRS));
            assert_eq!(theirs, Err(Refusal::OtherStore { name: snapshot_name(2) }));
            let newer_mark = decide(&files, Some(Err(FileError::Newer(9))), policy, &mut |_| Ok(OURS));
            assert_eq!(newer_mark, Err(Refusal::Newer { name: GENESIS.into(), version: 9 }));
        }
    }
}
