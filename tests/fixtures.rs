//! Stores of every format version that a release wrote, kept for ever: each opens, in every state that it was kept in, and
//! holds what it held.
//!
//! `tests/fixtures/vN/STATE/` is a store directory as a release of format N left it, `STATE.txt` beside it what it holds.
//! `TRUSTKEEP_WRITE_FIXTURES=1 cargo test --all-features --test fixtures` writes those of the present version where they
//! are missing; those that are there are never written again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use trustkeep::TrustStore;
use trustkeep::testing::every_table::{describe_tables, set_every_table};

const VERSION: u32 = 3;
const STATES: [&str; 6] = ["created", "closed", "killed", "torn", "full", "full_killed"];
/// Of version 3: killed after an idle moment, and the same one change later.
const IDLE: [&str; 2] = ["idle", "idle_killed"];

fn states(version: u32) -> impl Iterator<Item = &'static str> {
    STATES.into_iter().chain(IDLE.into_iter().filter(move |_| version >= 3))
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("LOCK") {
            match std::fs::copy(&path, to.join(path.file_name().unwrap())) {
                // A snapshot that was being written has got its name meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

fn described(store: &TrustStore) -> String {
    let generation = format!("generation {}\n", store.generation().get());
    generation + &describe_tables(store).into_iter().map(|line| line + "\n").collect::<String>()
}

/// Writes the fixtures of this version: a store just created; one with two snapshots and several journals, closed; the
/// same one change later, killed; the same with its newest group cut in two; one that has gone on from full journals to
/// others, closed, and a few changes later, killed. In those of version 1 journals grew but in the last two.
fn write_missing() {
    write_stages();
    write_full();
    write_idle();
}

/// Two changes and a moment of idleness; then a third change, in the same journal, behind the watermark.
fn write_idle() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let keep = |state: &str, text: String| {
        let place = fixtures().join(format!("v{VERSION}"));
        if !place.join(state).exists() {
            copy(&dir, &place.join(state));
            std::fs::write(place.join(format!("{state}.txt")), text).unwrap();
        }
    };
    let options = TrustStore::options().journal_sizes(2048, 1 << 20);
    let store = options.settle_after(Some(Duration::from_secs(1))).open(&dir).unwrap();
    for number in 1..=2 {
        set_every_table(&store, number).unwrap().wait_durable().unwrap();
    }
    let begun = Instant::now();
    while std::fs::read(dir.join("journal-0000000000000001.tkj")).unwrap()[576] == 0 || store.health().saving.is_some()
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "no watermark");
        std::thread::yield_now();
    }
    keep("idle", described(&store));
    set_every_table(&store, 3).unwrap().wait_durable().unwrap();
    keep("idle_killed", described(&store));
}

fn write_full() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let open = || TrustStore::options().journal_sizes(512, 1 << 20).open(&dir).unwrap();
    let keep = |state: &str, text: String| {
        let place = fixtures().join(format!("v{VERSION}"));
        if !place.join(state).exists() {
            copy(&dir, &place.join(state));
            std::fs::write(place.join(format!("{state}.txt")), text).unwrap();
        }
    };
    let store = open();
    for number in 1..=9 {
        set_every_table(&store, number).unwrap().wait_durable().unwrap();
    }
    store.close().unwrap();
    keep("full", described(&store));
    drop(store);
    let store = open();
    for number in 10..=18 {
        set_every_table(&store, number).unwrap().wait_durable().unwrap();
    }
    keep("full_killed", described(&store));
}

fn write_stages() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let open = || TrustStore::options().journal_sizes(8192, 4500).open(&dir).unwrap();
    let keep = |state: &str, text: String| {
        let place = fixtures().join(format!("v{VERSION}"));
        if !place.join(state).exists() {
            copy(&dir, &place.join(state));
            std::fs::write(place.join(format!("{state}.txt")), text).unwrap();
        }
    };
    let store = open();
    store.close().unwrap();
    keep("created", described(&store));
    drop(store);
    let store = open();
    for number in 1..=9 {
        set_every_table(&store, number).unwrap().wait_durable().unwrap();
    }
    store.close().unwrap();
    keep("closed", described(&store));
    drop(store);
    let store = open();
    set_every_table(&store, 10).unwrap().wait_durable().unwrap();
    let before = described(&store);
    set_every_table(&store, 11).unwrap().wait_durable().unwrap();
    keep("killed", described(&store));
    drop(store);
    // The killed one, with its last written byte lost.
    let place = fixtures().join(format!("v{VERSION}"));
    if !place.join("torn").exists() {
        copy(&place.join("killed"), &place.join("torn"));
        let newest =
            std::fs::read_dir(place.join("torn")).unwrap().map(|entry| entry.unwrap().path()).max_by_key(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name.starts_with("journal-"), name)
            });
        let newest = newest.unwrap();
        let mut bytes = std::fs::read(&newest).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[last - 20] ^= 0xff;
        std::fs::write(&newest, bytes).unwrap();
        std::fs::write(place.join("torn.txt"), before).unwrap();
    }
}

#[test]
fn every_store_that_a_release_wrote_opens_and_holds_what_it_held() {
    if std::env::var_os("TRUSTKEEP_WRITE_FIXTURES").is_some() {
        write_missing();
    }
    for version in 1..=VERSION {
        for state in states(version) {
            let place = fixtures().join(format!("v{version}"));
            let expected = std::fs::read_to_string(place.join(format!("{state}.txt"))).unwrap();
            let home = tempfile::tempdir().unwrap();
            let dir = home.path().join("store");
            copy(&place.join(state), &dir);
            let store = TrustStore::open(&dir).unwrap();
            assert_eq!(described(&store), expected, "v{version}, {state}");
            // It goes on from there, and opens again.
            let receipt = set_every_table(&store, 99).unwrap();
            receipt.wait_durable().unwrap();
            let text = described(&store);
            store.close().unwrap();
            drop(store);
            assert_eq!(described(&TrustStore::open(&dir).unwrap()), text, "v{version}, {state}, one change later");
        }
    }
}

#[test]
fn the_fixtures_are_what_they_are_said_to_be() {
    let names = |state: &str| -> Vec<String> {
        let place = fixtures().join(format!("v{VERSION}")).join(state);
        let mut names: Vec<String> =
            std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let count = |state: &str, suffix: &str| names(state).iter().filter(|name| name.ends_with(suffix)).count();
    assert_eq!(names("created"), ["GENESIS", "snapshot-0000000000000000.tks"]);
    for state in ["closed", "killed", "torn"] {
        assert_eq!((count(state, "GENESIS"), count(state, ".tks")), (1, 2), "{state}");
        assert!(count(state, ".tkj") >= 2, "{state}: {:?}", names(state));
    }
    for state in ["full", "full_killed"] {
        assert_eq!((count(state, "GENESIS"), count(state, ".tks")), (1, 1), "{state}");
        let journals: Vec<Vec<u8>> = names(state)
            .iter()
            .filter(|name| name.ends_with(".tkj"))
            .map(|name| std::fs::read(fixtures().join(format!("v{VERSION}/{state}")).join(name)).unwrap())
            .collect();
        assert!(journals.len() >= 2, "{state}");
        for (number, bytes) in journals.iter().enumerate() {
            assert_eq!(bytes[48..56], (bytes.len() as u64).to_le_bytes(), "{state}: its length is in the header");
            let is_newest = number + 1 == journals.len();
            let ends_a_session = if state == "full" { is_newest } else { number + 1 == journals.len() / 2 };
            let mark = if ends_a_session { 1 } else { 2 };
            let is_marked = bytes[512..524] == [&b"TKCLOSED"[..], &[mark, 0, 0, 0]].concat();
            assert_eq!(is_marked, !(is_newest && state == "full_killed"), "{state}: {number}");
        }
    }
    for state in IDLE {
        let bytes = std::fs::read(fixtures().join(format!("v{VERSION}/{state}/journal-0000000000000001.tkj"))).unwrap();
        let named = u64::from_le_bytes(bytes[600..608].try_into().unwrap());
        let is_behind = bytes[usize::try_from(named).unwrap()..].iter().any(|byte| *byte != 0);
        assert_eq!((&bytes[576..584], is_behind), (&b"TKSOFAR\n"[..], state == "idle_killed"), "{state}");
    }
    let text = |state: &str| std::fs::read_to_string(fixtures().join(format!("v{VERSION}/{state}.txt"))).unwrap();
    for table in ["trusted", "pending", "outgoing", "revoked", "floor"] {
        assert!(text("killed").contains(&format!("\n{table} ")), "no {table} in it");
    }
    // One more than they were written with: an opening ends what a revoked key had named.
    assert!(text("torn").starts_with("generation 11\n") && text("killed").starts_with("generation 12\n"));
}
