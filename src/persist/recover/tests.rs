//! Decisions over tables of outcomes: no bytes, every case by name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

use super::*;
use crate::persist::format::{Previous, VERSION};

const OURS: StoreId = StoreId { id: [1; 16], seed: 5 };
const THEIRS: StoreId = StoreId { id: [2; 16], seed: 5 };
const POLICIES: [RecoverPolicy; 3] = [RecoverPolicy::Fail, RecoverPolicy::Previous, RecoverPolicy::Empty];

/// Where a journal leads to and how it ends, or how far it leads before it is damaged.
type End = Result<(u64, How), (u64, FileError)>;

/// Files as a table of outcomes. A journal is its head, the generation that it leads to, and how it ends.
#[derive(Default)]
struct Files {
    snapshots: BTreeMap<u64, Result<StoreId, FileError>>,
    heads: BTreeMap<u64, Result<JournalHead, FileError>>,
    ends: BTreeMap<u64, End>,
    generation: u64,
}

impl Contents for Files {
    fn snapshot(&mut self, name: &str) -> Result<StoreId, FileError> {
        let generation = number_in(name, SNAPSHOT).unwrap();
        self.generation = generation;
        self.snapshots[&generation].clone()
    }

    fn head(&mut self, name: &str) -> Result<JournalHead, FileError> {
        self.heads[&number_in(name, JOURNAL).unwrap()].clone()
    }

    fn journal(&mut self, name: &str, _counted: Option<u64>) -> Result<Ending, FileError> {
        match self.ends[&number_in(name, JOURNAL).unwrap()].clone() {
            Ok((generation, how)) => {
                self.generation = self.generation.max(generation);
                let (newest_from, settled, spoilt) = (generation - 1, 2000, None);
                Ok(Ending { newest_at: 1024, newest_from, bytes: 2000, generation, how, settled, spoilt })
            }
            Err((generation, error)) => {
                self.generation = self.generation.max(generation);
                Err(error)
            }
        }
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

impl Files {
    fn snapshots(of: &[(u64, Result<StoreId, FileError>)]) -> Self {
        Self { snapshots: of.iter().cloned().collect(), ..Self::default() }
    }

    /// A journal that goes on from `previous` at `base` and leads to `to`.
    fn with(mut self, seq: u64, previous: Option<u64>, base: u64, to: u64, how: How) -> Self {
        let previous = previous.map(|seq| Previous { seq, bytes: 1500 });
        self.heads.insert(
            seq,
            Ok(JournalHead { version: VERSION, store: OURS, base, seq, file_seed: 1, previous, file_bytes: 4096 }),
        );
        self.ends.insert(seq, Ok((to, how)));
        self
    }

    fn listing(&self) -> Listing {
        let names: Vec<String> = self.snapshots.keys().map(|generation| snapshot_name(*generation)).collect();
        let journals: Vec<String> = self.heads.keys().map(|seq| journal_name(*seq)).collect();
        let all: Vec<&str> = ["GENESIS"].into_iter().chain(names.iter().chain(&journals).map(String::as_str)).collect();
        listing(&all)
    }

    fn decide(&mut self, policy: RecoverPolicy) -> Result<Choice, Refusal> {
        decide(&self.listing(), Some(Ok(OURS)), policy, self)
    }

    fn recover(&mut self, policy: RecoverPolicy) -> Recovered {
        match self.decide(policy) {
            Ok(Choice::State(recovered)) => *recovered,
            other => panic!("{policy:?}: {other:?}"),
        }
    }

    fn refusal(&mut self, policy: RecoverPolicy) -> (String, Damage) {
        match self.decide(policy) {
            Err(Refusal::Damaged { name, damage }) => (name, damage),
            other => panic!("{policy:?}: {other:?}"),
        }
    }
}

fn seqs(recovered: &Recovered) -> Vec<(u64, Option<u64>)> {
    recovered.journals.iter().map(|link| (link.seq, link.counted)).collect()
}

fn aside(recovered: &Recovered) -> Vec<String> {
    recovered.set_aside.iter().map(|(name, _)| name.clone()).collect()
}

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
    let (old, new) = (journal_name(2), journal_name(11));
    let half = temporary_name(&new, 0);
    let names =
        ["LOCK", &one, "GENESIS", &old, &temporary, &ten, &half, &new, "GENESIS.tmp0", "damaged-0-x", "notes.txt"];
    let all = listing(&names);
    assert_eq!(all.snapshots, [(10, ten), (1, one)]);
    assert_eq!(all.journals, [(11, new), (2, old)]);
    assert!(all.genesis && all.lock);
    assert_eq!(all.leftovers, [temporary.as_str(), &half, "GENESIS.tmp0"]);
    assert_eq!(all.set_aside, ["damaged-0-x"]);
    assert_eq!(all.foreign, ["notes.txt"]);
    // Not ours: other digits, other case, other suffix, a temporary of nothing.
    for name in [
        "snapshot-1.tks",
        "snapshot-000000000000000A.tks",
        "snapshot-0000000000000001.tk",
        "journal-0000000000000001.tks",
        "journal-8000000000000000.tkj",
        "x.tmp1",
    ] {
        assert_eq!(listing(&[name]).foreign, [name]);
    }
}

#[test]
fn a_directory_of_somebody_else_is_noticed_and_ours_is_not() {
    assert_eq!(listing(&["notes.txt"]).foreign_directory(), Some("notes.txt"));
    assert_eq!(listing(&[]).foreign_directory(), None);
    assert_eq!(listing(&["notes.txt", "GENESIS"]).foreign_directory(), None);
    assert_eq!(listing(&["CURRENT", "LOCK"]).foreign_directory(), Some("CURRENT"), "other programs have a LOCK, too");
    assert_eq!(listing(&["LOCK"]).foreign_directory(), None);
}

#[test]
fn the_newest_whole_snapshot_is_chosen() {
    let recovered = Files::snapshots(&[(1, Ok(OURS)), (2, Ok(OURS))]).recover(RecoverPolicy::Fail);
    assert_eq!(recovered.snapshot, (2, snapshot_name(2)));
    assert!(!recovered.lossy && !recovered.write_mark && recovered.set_aside.is_empty());
}

/// Snapshots 10 and 20; journal 1 leads to 20, 2 to 30, 4 to 40; 3 was begun by a save that failed.
fn rotated() -> Files {
    Files::snapshots(&[(10, Ok(OURS)), (20, Ok(OURS))])
        .with(1, None, 10, 20, How::Continued)
        .with(2, Some(1), 20, 30, How::Open)
        .with(3, Some(2), 30, 31, How::Open)
        .with(4, Some(2), 30, 40, How::Closed)
}

#[test]
fn journals_are_followed_from_the_newest_back_to_the_snapshot() {
    let recovered = rotated().recover(RecoverPolicy::Fail);
    assert_eq!(seqs(&recovered), [(2, Some(1500)), (4, None)]);
    assert_eq!(recovered.kept, [(1, 10), (2, 20), (4, 30)]);
    assert_eq!(recovered.stale, [3]);
    assert!(!recovered.lossy);
}

#[test]
fn an_older_snapshot_and_all_journals_since_lose_nothing() {
    let mut files = rotated();
    files.snapshots.insert(20, Err(bad()));
    assert_eq!(files.refusal(RecoverPolicy::Fail), damaged(&snapshot_name(20)));
    for policy in [RecoverPolicy::Previous, RecoverPolicy::Empty] {
        let recovered = files.recover(policy);
        assert_eq!(seqs(&recovered), [(1, Some(1500)), (2, Some(1500)), (4, None)]);
        assert_eq!((aside(&recovered), recovered.lossy), (vec![snapshot_name(20)], false));
    }
    // And the twin: without the journals something is lost.
    files.heads.clear();
    assert!(files.recover(RecoverPolicy::Previous).lossy);
}

#[test]
fn a_damaged_or_missing_journal_is_refused_unless_the_loss_is_accepted() {
    // The contents of 2, of which some groups were whole; its head; the whole file.
    let mut contents = rotated();
    contents.ends.insert(2, Err((25, bad())));
    let mut head = rotated();
    head.heads.insert(2, Err(bad()));
    let mut missing = rotated();
    missing.heads.remove(&2);
    assert_eq!(contents.refusal(RecoverPolicy::Fail), damaged(&journal_name(2)));
    assert_eq!(head.refusal(RecoverPolicy::Fail), damaged(&journal_name(2)));
    let (name, damage) = missing.refusal(RecoverPolicy::Fail);
    assert_eq!((name, damage.offset), (journal_name(4), HEAD_PREVIOUS_AT));
    assert_eq!(damage.reason, format!("goes on from {}, which is missing", journal_name(2)));
    for (mut files, reached, gone) in
        [(contents, 25, vec![2, 3, 4]), (head, 20, vec![2, 3, 4]), (missing, 20, vec![4, 3])]
    {
        let recovered = files.recover(RecoverPolicy::Previous);
        assert!(recovered.lossy);
        assert_eq!(files.generation, reached);
        let names: Vec<String> = gone.into_iter().map(journal_name).collect();
        assert_eq!(aside(&recovered), names);
    }
}

#[test]
fn a_journal_that_says_that_another_follows_is_not_the_newest() {
    let mut files = rotated();
    files.heads.retain(|seq, _| *seq == 1);
    let (name, damage) = files.refusal(RecoverPolicy::Fail);
    assert_eq!((name, damage.offset), (journal_name(1), MARK_AT));
    assert!(files.recover(RecoverPolicy::Previous).lossy);
    // And the twin: the snapshot holds more than the missing journal's beginning.
    files.snapshots.insert(30, Ok(OURS));
    assert!(!files.recover(RecoverPolicy::Fail).lossy);
}

#[test]
fn journals_that_begin_behind_the_snapshot_leave_a_gap() {
    let mut files = Files::snapshots(&[(10, Ok(OURS))]).with(5, None, 20, 30, How::Open);
    let (name, damage) = files.refusal(RecoverPolicy::Fail);
    assert_eq!((name, damage.offset), (journal_name(5), HEAD_BASE_AT));
    let recovered = files.recover(RecoverPolicy::Previous);
    assert_eq!((aside(&recovered), recovered.lossy), (vec![journal_name(5)], true));
    // And the twin: one that begins before it does not.
    let recovered = Files::snapshots(&[(25, Ok(OURS))]).with(5, None, 20, 30, How::Open).recover(RecoverPolicy::Fail);
    assert_eq!(seqs(&recovered), [(5, None)]);
}

#[test]
fn damage_is_refused_unless_the_policy_accepts_the_loss() {
    let files =
        |two: Result<StoreId, FileError>, one: Result<StoreId, FileError>| Files::snapshots(&[(1, one), (2, two)]);
    assert_eq!(files(Err(bad()), Ok(OURS)).refusal(RecoverPolicy::Fail), damaged(&snapshot_name(2)));
    for policy in [RecoverPolicy::Previous, RecoverPolicy::Empty] {
        let recovered = files(Err(bad()), Ok(OURS)).recover(policy);
        assert_eq!((recovered.snapshot.0, aside(&recovered)), (1, vec![snapshot_name(2)]));
    }
    let mut both = files(Err(bad()), Err(bad())).with(1, None, 2, 3, How::Closed);
    assert_eq!(both.refusal(RecoverPolicy::Previous), damaged(&snapshot_name(2)));
    let Ok(Choice::Empty { set_aside, store }) = both.decide(RecoverPolicy::Empty) else { panic!("not empty") };
    let names: Vec<String> = set_aside.into_iter().map(|(name, _)| name).collect();
    assert_eq!((names, store), (vec![snapshot_name(2), snapshot_name(1), journal_name(1)], Some(OURS)));
}

#[test]
fn a_mark_or_journals_without_a_snapshot_are_no_fresh_store_and_nothing_at_all_is() {
    let mut none = Files::default();
    let journals = journal_name(1);
    for names in [&["GENESIS", "LOCK"][..], &["LOCK", &journals]] {
        let listing = listing(names);
        let mark = listing.genesis.then_some(Ok(OURS));
        for policy in [RecoverPolicy::Fail, RecoverPolicy::Previous] {
            assert_eq!(decide(&listing, mark.clone(), policy, &mut none), Err(Refusal::DataMissing));
        }
        assert!(matches!(decide(&listing, mark, RecoverPolicy::Empty, &mut none), Ok(Choice::Empty { .. })));
    }
    for names in [&["LOCK"][..], &["LOCK", "GENESIS.tmp0"]] {
        assert_eq!(decide(&listing(names), None, RecoverPolicy::Fail, &mut none), Ok(Choice::Create));
    }
}

#[test]
fn a_creation_cut_short_before_its_mark_opens_and_gets_the_mark() {
    let mut files = Files::snapshots(&[(0, Ok(OURS))]);
    let choice = decide(&listing(&["LOCK", &snapshot_name(0)]), None, RecoverPolicy::Fail, &mut files);
    assert!(matches!(choice, Ok(Choice::State(recovered)) if recovered.write_mark));
}

#[test]
fn newer_and_foreign_files_are_refused_under_every_policy() {
    for policy in POLICIES {
        let newer = Files::snapshots(&[(1, Ok(OURS)), (2, Err(FileError::Newer(9)))]).decide(policy);
        assert_eq!(newer, Err(Refusal::Newer { name: snapshot_name(2), version: 9 }));
        let theirs = Files::snapshots(&[(1, Ok(OURS)), (2, Ok(THEIRS))]).decide(policy);
        assert_eq!(theirs, Err(Refusal::OtherStore { name: snapshot_name(2) }));
        let mut newer = rotated();
        newer.heads.insert(3, Err(FileError::Newer(9)));
        assert_eq!(newer.decide(policy), Err(Refusal::Newer { name: journal_name(3), version: 9 }));
        let mut theirs = rotated();
        let head = JournalHead {
            version: VERSION,
            store: THEIRS,
            base: 20,
            seq: 2,
            file_seed: 1,
            previous: None,
            file_bytes: 4096,
        };
        theirs.heads.insert(2, Ok(head));
        assert_eq!(theirs.decide(policy), Err(Refusal::OtherStore { name: journal_name(2) }));
        let mut files = rotated();
        let newer_mark = decide(&files.listing(), Some(Err(FileError::Newer(9))), policy, &mut files);
        assert_eq!(newer_mark, Err(Refusal::Newer { name: GENESIS.into(), version: 9 }));
    }
}
