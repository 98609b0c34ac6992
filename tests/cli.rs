//! The program on files, without a node:
//!
//! - exit codes: 0 yes or done, 1 no or failed, 2 wrong usage; what goes wrong is told on standard error, with a remedy;
//! - `inspect` and `verify` show what is there, find damage by file and offset, work beside a running store, and change
//!   nothing;
//! - `stress` acknowledges only what it did, and does the same again from the same seed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod runs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use runs::*;
use serde_json::Value;
use trustkeep::{PublicKey, TrustRecord, TrustStore, WallMillis};

/// A closed store with peers 3 (unbound) and 12 trusted, and 5 revoked.
fn store(home: &Path) -> PathBuf {
    let dir = home.join("store");
    let store = TrustStore::open(&dir).unwrap();
    let key: PublicKey = KEY.parse().unwrap();
    let _ =
        store.grant(TrustRecord::new(id(12), key).approved_at(WallMillis::new(1_772_532_000_123)).network(7)).unwrap();
    store.grant(TrustRecord::new(id(3), None).mutual(true)).unwrap().wait_durable().unwrap();
    store.revoke(id(5)).unwrap().receipt.wait_durable().unwrap();
    store.close().unwrap();
    dir
}

/// Everything in a directory: bytes and times.
fn content(dir: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let of = |entry: std::fs::DirEntry| {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        (entry.file_name().into_string().unwrap(), (std::fs::read(path).unwrap(), meta.modified().unwrap()))
    };
    entries.map(of).collect()
}

fn newest_snapshot(dir: &Path) -> PathBuf {
    let names = content(dir).into_keys().filter(|name| name.starts_with("snapshot-"));
    dir.join(names.max().unwrap())
}

#[test]
fn wrong_usage_exits_with_2_and_says_so() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["inspect"],
        &["inspect", "--dir", "d", "--frobnicate"],
        &["verify", "--home", "h", "--dir", "d"],
        &["init", "--home", "h", "--id", "0"],
        &["init", "--home", "h", "--id", "4294967296"],
        &["wait", "--home", "h", "nobody"],
        &["wait", "--home", "h", "9", "--timeout", "-1"],
        &["wait", "--home", "h", "9", "--until", "tuesday"],
        &["approve", "--home", "h"],
        &["node", "--home", "h", "--listen", "localhost"],
        &["stress", "--dir", "d", "--seconds", "1", "--acks", "a"],
        &["stress", "--dir", "d", "--threads", "0", "--seconds", "1", "--acks", "a"],
        &["stress", "--dir", "d", "--threads", "1", "--seconds", "never", "--acks", "a"],
    ] {
        let Run { code, out, err } = run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains("Usage") || err.contains("error:"), "{args:?}: {err}");
    }
    for args in [&["--help"][..], &["--version"], &["stress", "--help"]] {
        let Run { code, out, .. } = run(args);
        assert!(code == 0 && !out.is_empty(), "{args:?}");
    }
}

#[test]
fn inspect_shows_every_record_by_id() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let shown = json(&["inspect", "--json", "--dir", text(&dir)]);
    let fingerprint = KEY.parse::<PublicKey>().unwrap().fingerprint().to_string();
    assert_eq!(shown["generation"], 3);
    let twelve = serde_json::json!({
        "node_id": 12, "public_key": KEY, "fingerprint": fingerprint,
        "approved_at": 1_772_532_000_123_i64, "mutual": false, "network": 7,
    });
    let three = serde_json::json!({
        "node_id": 3, "public_key": null, "fingerprint": null, "approved_at": 0, "mutual": true, "network": 0,
    });
    assert_eq!(shown["trusted"], Value::Array(vec![three, twelve]));
    assert_eq!((&shown["pending"], &shown["outgoing"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    assert_eq!(shown["revoked"][0]["node_id"], 5);
    assert!(shown["revoked"][0]["revoked_at"].as_i64().unwrap() > 0);
    let files: Vec<&str> = shown["files"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(files, content(&dir).keys().collect::<Vec<_>>());
    let newest = shown["files"].as_array().unwrap().last().unwrap();
    assert_eq!((&newest["kind"], &newest["generation"]), (&"snapshot".into(), &0.into()));
    assert!(files.iter().any(|name| name.starts_with("journal-")), "{files:?}");
    assert_eq!(newest["bytes"], std::fs::metadata(newest_snapshot(&dir)).unwrap().len());

    let table = run(&["inspect", "--dir", text(&dir)]);
    assert_eq!(table.code, 0);
    for word in ["generation 3: 2 trusted", "2026-03-03T10:00:00.123Z", &fingerprint, "REVOKED", "FILES"] {
        assert!(table.out.contains(word), "{word}: {}", table.out);
    }
}

#[test]
fn a_whole_store_verifies_and_looking_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let before = content(&dir);
    let verified = json(&["verify", "--json", "--dir", text(&dir)]);
    assert_eq!((&verified["ok"], &verified["generation"]), (&true.into(), &3.into()));
    assert_eq!((&verified["notes"], &verified["faults"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    assert_eq!(run(&["verify", "--dir", text(&dir)]).code, 0);
    json(&["inspect", "--json", "--dir", text(&dir)]);
    assert_eq!(content(&dir), before);
}

#[test]
fn what_is_no_part_of_the_state_is_a_note() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let snapshot = newest_snapshot(&dir).file_name().unwrap().to_str().unwrap().to_owned();
    for name in [format!("{snapshot}.tmp3"), format!("damaged-0-{snapshot}"), "README".to_owned()] {
        std::fs::write(dir.join(name), b"half").unwrap();
    }
    std::fs::remove_file(dir.join("GENESIS")).unwrap();
    let before = content(&dir);
    let verified = json(&["verify", "--json", "--dir", text(&dir)]);
    let notes = verified["notes"].as_array().unwrap();
    assert_eq!((notes.len(), &verified["ok"]), (4, &true.into()), "{notes:?}");
    assert!(run(&["verify", "--dir", text(&dir)]).out.contains("note: README: no file of this program"));
    assert_eq!(content(&dir), before);
    assert_eq!(TrustStore::open(&dir).unwrap().snapshot().len(), 2);
}

#[test]
fn a_damaged_snapshot_is_named_with_offset_and_remedy_and_stays_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let newest = newest_snapshot(&dir);
    let good = std::fs::read(&newest).unwrap();
    let acks = home.path().join("acks");
    let stress = ["stress", "--dir", text(&dir), "--threads", "1", "--seconds", "0", "--acks", text(&acks)];
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    for (bytes, offset) in [
        (flipped(0), "damaged at byte 0"),
        (flipped(45), "damaged at byte 0"),
        (flipped(good.len() - 1), "damaged at byte "),
        (good[..good.len() - 9].to_vec(), &*format!("damaged at byte {}", good.len() - 9)),
        (good[..10].to_vec(), "damaged at byte 10"),
        (Vec::new(), "damaged at byte 0"),
        ([&good[..], b"x"].concat(), &*format!("damaged at byte {}", good.len())),
    ] {
        std::fs::write(&newest, &bytes).unwrap();
        let mut before = content(&dir);
        for args in [["inspect", "--dir", text(&dir)], ["verify", "--dir", text(&dir)]] {
            fails(&args, &[text(&newest), offset, "restore the file from a copy"]);
        }
        let verified: Value = serde_json::from_str(&run(&["verify", "--json", "--dir", text(&dir)]).out).unwrap();
        assert_eq!((&verified["ok"], &verified["faults"][0]["file"]), (&false.into(), &text(&newest).into()));
        assert!(verified["faults"][0]["offset"].is_u64() && verified["faults"][0]["reason"].is_string());
        assert_eq!(content(&dir), before);
        fails(&stress, &[text(&newest), offset, "restore the file from a copy"]);
        // It took the lock, and wrote its process id into it.
        let mut after = content(&dir);
        assert!(before.remove("LOCK").is_some() && after.remove("LOCK").is_some());
        assert_eq!(after, before);
    }
    // A journal as well.
    std::fs::write(&newest, &good).unwrap();
    let journal = dir.join(content(&dir).into_keys().find(|name| name.starts_with("journal-")).unwrap());
    let good = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, &good[..1500]).unwrap();
    for args in [["inspect", "--dir", text(&dir)], ["verify", "--dir", text(&dir)]] {
        fails(&args, &[text(&journal), "damaged at byte 1500", "restore the file from a copy"]);
    }
    std::fs::write(&journal, &good).unwrap();
    assert_eq!(run(&["verify", "--dir", text(&dir)]).code, 0);
    // A mark without data is damage, too, and never an empty store.
    for file in content(&dir).into_keys().filter(|name| name.starts_with("snapshot-")) {
        std::fs::remove_file(dir.join(file)).unwrap();
    }
    for args in [&["inspect", "--dir", text(&dir)][..], &["verify", "--dir", text(&dir)], &stress] {
        fails(args, &["data files are gone", "restore them from a copy"]);
    }
}

#[test]
fn a_missing_or_foreign_directory_is_told_and_nothing_is_made() {
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("missing");
    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let foreign = home.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("holiday.jpg"), b"x").unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let link = home.path().join("link");
    std::os::unix::fs::symlink(store(home.path()), &link).unwrap();
    let broken = home.path().join("broken");
    std::os::unix::fs::symlink("nowhere", &broken).unwrap();
    for command in ["inspect", "verify"] {
        fails(&[command, "--dir", text(&missing)], &[text(&missing), "no such store"]);
        fails(&[command, "--dir", text(&empty)], &[text(&empty), "no such store"]);
        fails(&[command, "--dir", text(&foreign)], &["not a trust store", "holiday.jpg"]);
        fails(&[command, "--dir", text(&file)], &["not a trust store"]);
        fails(&[command, "--dir", text(&broken)], &["not a trust store", "symbolic link"]);
        assert_eq!(run(&[command, "--dir", text(&link)]).code, 0);
    }
    assert!(!missing.exists());
    assert_eq!(content(&empty).len(), 0);
    assert_eq!(content(&foreign).len(), 1);
    let acks = home.path().join("acks");
    let stress = |dir| ["stress", "--dir", dir, "--threads", "1", "--seconds", "0", "--acks", text(&acks)];
    fails(&stress(text(&foreign)), &["not a trust store", "holiday.jpg"]);
    fails(&stress("/nonexistent/parent/store"), &["/nonexistent/parent: no such directory", "make it first"]);
}

#[test]
fn a_directory_in_use_names_its_owner_and_can_be_looked_at() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let owner = TrustStore::open(&dir).unwrap();
    let acks = home.path().join("acks");
    let stress = ["stress", "--dir", text(&dir), "--threads", "1", "--seconds", "0", "--acks", text(&acks)];
    fails(&stress, &["in use by process", &std::process::id().to_string(), "stop that process"]);
    assert_eq!(json(&["inspect", "--json", "--dir", text(&dir)])["generation"], 3);
    assert_eq!(run(&["verify", "--dir", text(&dir)]).code, 0);
    drop(owner);
    assert_eq!(run(&stress).code, 0);
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let store = TrustStore::open(&dir).unwrap();
    // More than a pipe holds.
    let grants = store.update(|batch| (1..=2000).all(|number| batch.grant(TrustRecord::new(id(number), None)).is_ok()));
    assert!(grants.unwrap().0);
    store.close().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trustkeep"));
    command.args(["inspect", "--json", "--dir", text(&dir)]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    // A full disk is one.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("could not be written"));
}

/// Ends the child however the test ends.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_store_that_saves_all_the_time_can_be_looked_at() {
    let home = tempfile::tempdir().unwrap();
    let (dir, acks) = (home.path().join("store"), home.path().join("acks"));
    let args = ["stress", "--dir", text(&dir), "--acks", text(&acks), "--threads", "4", "--seconds", "600"];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trustkeep"));
    let mut child = Ends(command.args(args).stdout(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&acks).map_or(0, |meta| meta.len()) == 0 {
        assert!(Instant::now() < deadline && child.0.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    let (mut last, first) = (0, acknowledged(&acks).len());
    for _ in 0..30 {
        let acknowledged = acknowledged(&acks).iter().map(|(generation, ..)| *generation).max().unwrap();
        let generation = json(&["inspect", "--json", "--dir", text(&dir)])["generation"].as_u64().unwrap();
        assert!(generation >= acknowledged.max(last), "{generation}, {acknowledged} was acknowledged");
        last = generation;
        let verified = run(&["verify", "--dir", text(&dir)]);
        assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
    }
    assert!(acknowledged(&acks).len() > first && last > 0, "nothing happened meanwhile");
}

fn acknowledged(acks: &Path) -> Vec<(u64, String, u32)> {
    let text = std::fs::read_to_string(acks).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line: &str| {
        let [generation, change, peer] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        (generation.parse().unwrap(), change.to_owned(), peer.parse().unwrap())
    };
    whole.lines().map(line).collect()
}

#[test]
fn stress_acknowledges_what_it_did_and_does_it_again_from_the_same_seed() {
    let home = tempfile::tempdir().unwrap();
    let peers_of = |name: &str, seed: &str| {
        let (dir, acks) = (home.path().join(name), home.path().join(format!("{name}.acks")));
        let measured = json(&[
            "stress",
            "--json",
            "--dir",
            text(&dir),
            "--acks",
            text(&acks),
            "--threads",
            "3",
            "--seconds",
            "0.5",
            "--records",
            "20",
            "--seed",
            seed,
        ]);
        let lines = acknowledged(&acks);
        assert!(lines.len() > 3);
        assert_eq!((&measured["changes"], &measured["acknowledged"]), (&lines.len().into(), &lines.len().into()));
        assert_eq!(measured["records_before"], 20);
        let latency = &measured["latency_us"];
        let times: Vec<f64> = ["p50", "p90", "p99", "p999", "max"].map(|it| latency[it].as_f64().unwrap()).into();
        assert!(times.is_sorted() && times[0] > 0.0, "{times:?}");
        // What the lines say is what the store holds.
        let mut expected: BTreeMap<u32, bool> = BTreeMap::new();
        for (_, change, peer) in &lines {
            expected.insert(*peer, change == "grant");
        }
        let store = TrustStore::open(&dir).unwrap();
        assert!(expected.iter().all(|(peer, trusts)| store.is_trusted(id(*peer)) == *trusts));
        assert_eq!(store.snapshot().len(), 20 + expected.values().filter(|trusts| **trusts).count());
        assert_eq!(lines.iter().map(|(generation, ..)| *generation).max(), Some(store.generation().get()));
        // By thread: who owns which peers says which thread it was.
        let of = |thread: u32| lines.iter().map(|line| line.2).filter(move |peer| (peer - 1) / 1000 == thread);
        [0, 1, 2].map(|thread| of(thread).collect::<Vec<u32>>())
    };
    let (one, again, other) = (peers_of("one", "5"), peers_of("again", "5"), peers_of("other", "6"));
    for thread in 0..3 {
        let common = one[thread].len().min(again[thread].len());
        assert_eq!(one[thread][..common], again[thread][..common]);
        assert_ne!(one[thread][0], other[thread][0]);
    }
}

#[test]
fn stress_without_waiting_acknowledges_nothing_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (dir, acks) = (home.path().join("store"), home.path().join("acks"));
    let args = ["stress", "--dir", text(&dir), "--acks", text(&acks), "--threads", "2", "--seconds", "0.2"];
    let measured = json(&[&args[..], &["--no-wait", "--json"]].concat());
    assert!(measured["changes"].as_u64().unwrap() > 0);
    assert_eq!((&measured["acknowledged"], std::fs::read(&acks).unwrap().len()), (&0.into(), 0));
    let shown = json(&["inspect", "--json", "--dir", text(&dir)]);
    assert_eq!(shown["generation"], measured["generation"]);
    let ids: Vec<u64> = shown["trusted"].as_array().unwrap().iter().map(|it| it["node_id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len() as u64, measured["records_after"]);
    assert!(ids.len() > 100 && ids.is_sorted());
    let table = run(&args);
    assert_eq!(table.code, 0);
    assert!(table.out.contains("acknowledged") && table.out.contains("p99.9"), "{}", table.out);
}
