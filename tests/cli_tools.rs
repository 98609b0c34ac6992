//! The tools for a store's files, on closed, running and damaged stores:
//!
//! - `export` writes the same document for the same state, with or without a node running, and replaces nothing unasked;
//! - `compact` changes how many bytes there are, and nothing else; it and `repair` refuse a store that is in use;
//! - `repair` changes nothing unasked, deletes nothing, keeps what is whole and what restricts, and says what is lost;
//! - bars are drawn on a terminal, and nowhere else.
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
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use runs::*;
use serde_json::Value;
use trustkeep::{PublicKey, TrustRecord, TrustStore, WallMillis};

/// A closed store in which peers 3 (unbound) and 12 were trusted first, and 5 was revoked in the end. Each state was
/// opened and closed, so that at least two of them are on disk whatever is written when.
fn store(home: &Path) -> PathBuf {
    let dir = home.join("store");
    let key: PublicKey = KEY.parse().unwrap();
    let store = TrustStore::open(&dir).unwrap();
    let twelve = TrustRecord::new(id(12), key).approved_at(WallMillis::new(1_772_532_000_123)).network(7);
    store.grant(twelve).unwrap().wait_durable().unwrap();
    store.grant(TrustRecord::new(id(5), None)).unwrap().wait_durable().unwrap();
    store.close().unwrap();
    let store = TrustStore::open(&dir).unwrap();
    store.grant(TrustRecord::new(id(3), None).mutual(true)).unwrap().wait_durable().unwrap();
    store.close().unwrap();
    let store = TrustStore::open(&dir).unwrap();
    store.revoke(id(5)).unwrap().receipt.wait_durable().unwrap();
    store.close().unwrap();
    dir
}

/// Every file in a directory but the lock's, into which whoever takes it writes its process id.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let of =
        |entry: std::fs::DirEntry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
    entries.map(of).filter(|(name, _)| name != "LOCK").collect()
}

fn snapshots(dir: &Path) -> Vec<String> {
    content(dir).into_keys().filter(|name| name.starts_with("snapshot-")).collect()
}

/// The journal that holds the newest changes.
fn newest_journal(dir: &Path) -> String {
    content(dir).into_keys().rfind(|name| name.starts_with("journal-")).unwrap()
}

fn newest_snapshot(dir: &Path) -> String {
    snapshots(dir).pop().unwrap()
}

fn flip(path: &Path, from_end: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn spoil(path: &Path, how: impl Fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    how(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Turns a whole file into one of a release to come.
fn make_newer(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[8..12].copy_from_slice(&99u32.to_le_bytes());
    let checksum = crc32(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    };
    !bytes.iter().fold(!0, step)
}

/// Runs until it is dropped.
struct Stress(Child);

impl Stress {
    fn on(dir: &Path, acks: &Path) -> Self {
        let args = ["stress", "--dir", text(dir), "--acks", text(acks), "--threads", "4", "--seconds", "600"];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trustkeep"));
        let mut this = Self(command.args(args).stdout(Stdio::null()).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::fs::metadata(acks).map_or(0, |meta| meta.len()) == 0 {
            assert!(Instant::now() < deadline && this.0.try_wait().unwrap().is_none());
            std::thread::yield_now();
        }
        this
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &["export"][..],
        &["export", "--dir", "d", "--force"],
        &["compact"],
        &["compact", "--dir", "d", "--yes"],
        &["repair"],
        &["repair", "--dir", "d", "--policy", "empty"],
    ] {
        let Run { code, out, err } = run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    }
}

#[test]
fn a_missing_or_foreign_directory_is_told_and_nothing_is_made() {
    let home = tempfile::tempdir().unwrap();
    let (missing, empty, foreign) =
        (home.path().join("missing"), home.path().join("empty"), home.path().join("foreign"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("holiday.jpg"), b"x").unwrap();
    for command in [&["export"][..], &["compact"], &["repair"], &["repair", "--empty", "--yes"]] {
        let on = |dir: &Path| [command, &["--dir", text(dir)]].concat().join(" ");
        for (dir, word) in [(&missing, "no such store"), (&empty, "no such store"), (&foreign, "holiday.jpg")] {
            let line = on(dir);
            fails(&line.split(' ').collect::<Vec<_>>(), &[text(dir), word]);
        }
    }
    assert!(!missing.exists());
    assert_eq!((std::fs::read_dir(&empty).unwrap().count(), std::fs::read_dir(&foreign).unwrap().count()), (0, 1));
}

#[test]
fn an_export_is_the_state_by_id_and_the_same_every_time() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let before = content(&dir);
    let document = done(&["export", "--dir", text(&dir)]);
    let exported: Value = serde_json::from_str(&document).unwrap();
    let trusted = serde_json::json!([
        { "node_id": 3, "public_key": null, "mutual": true },
        { "node_id": 12, "public_key": KEY, "approved_at": "2026-03-03T10:00:00.123Z", "mutual": false, "network": 7 },
    ]);
    assert_eq!((&exported["version"], &exported["generation"]), (&1.into(), &4.into()));
    assert_eq!(exported["trusted"], trusted);
    assert_eq!((&exported["pending"], &exported["outgoing"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    let revoked = exported["revoked"].as_array().unwrap();
    assert_eq!((revoked.len(), &revoked[0]["node_id"]), (1, &5.into()));
    assert!(revoked[0]["revoked_at"].as_str().unwrap().starts_with("20"), "{revoked:?}");
    assert_eq!(done(&["export", "--json", "--dir", text(&dir)]), document);
    assert_eq!(content(&dir), before);

    // Beside the owner, too, which the document of another state would not be.
    let owner = TrustStore::open(&dir).unwrap();
    assert_eq!(done(&["export", "--dir", text(&dir)]), document);
    owner.revoke(id(3)).unwrap().receipt.wait_durable().unwrap();
    let later: Value = serde_json::from_str(&done(&["export", "--dir", text(&dir)])).unwrap();
    assert_eq!((later["trusted"].as_array().unwrap().len(), later["revoked"].as_array().unwrap().len()), (1, 2));
}

#[test]
fn a_file_is_written_as_a_whole_and_replaced_only_by_force() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let document = done(&["export", "--dir", text(&dir)]);
    let into = home.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let file = into.join("trust.json");
    let args = ["export", "--dir", text(&dir), "--out", text(&file)];
    let told = json(&[&args[..], &["--json"]].concat());
    assert_eq!((&told["file"], &told["bytes"]), (&text(&file).into(), &document.len().into()));
    assert_eq!((&told["generation"], &told["trusted"], &told["revoked"]), (&4.into(), &2.into(), &1.into()));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), document);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&file, b"precious").unwrap();
    fails(&args, &[text(&file), "exists", "--force"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    let said = done(&[&args[..], &["--force"]].concat());
    assert!(said.contains("generation 4: 2 trusted, 0 pending, 0 outgoing, 1 revoked"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), document);
    // A name alone is one in the working directory.
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_trustkeep"));
    command.current_dir(&into).args(["export", "--dir", text(&dir), "--out", "other.json"]).assert().success();
    assert_eq!(std::fs::read_to_string(into.join("other.json")).unwrap(), document);
    fails(&["export", "--dir", text(&dir), "--out", "/nonexistent/trust.json"], &["/nonexistent/trust.json", "--out"]);
    assert_eq!(std::fs::read_dir(&into).unwrap().count(), 2);
    // Of a damaged store there is nothing to export, and no file.
    flip(&dir.join(newest_snapshot(&dir)), 1);
    let nothing = into.join("nothing.json");
    fails(&["export", "--dir", text(&dir), "--out", text(&nothing)], &["damaged at byte", "`repair`"]);
    assert!(!nothing.exists());
}

#[test]
fn a_store_that_saves_all_the_time_can_be_exported_and_not_compacted_or_repaired() {
    let home = tempfile::tempdir().unwrap();
    let (dir, acks) = (home.path().join("store"), home.path().join("acks"));
    let stress = Stress::on(&dir, &acks);
    let pid = format!("process {}", stress.0.id());
    let mut last = 0;
    for _ in 0..10 {
        let lines = std::fs::read_to_string(&acks).unwrap();
        let whole = &lines[..lines.rfind('\n').unwrap()];
        let acknowledged = whole.lines().map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap()).max();
        let exported = json(&["export", "--dir", text(&dir)]);
        let generation = exported["generation"].as_u64().unwrap();
        assert!(generation >= acknowledged.unwrap().max(last), "{generation}, {acknowledged:?} was acknowledged");
        assert!(!exported["trusted"].as_array().unwrap().is_empty());
        last = generation;
    }
    for command in [&["compact"][..], &["repair"], &["repair", "--yes"], &["repair", "--empty", "--yes"]] {
        fails(&[command, &["--dir", text(&dir)]].concat(), &["in use by", &pid, "stop that process"]);
    }
    drop(stress);
    // Killed, which leaves a lock that nobody holds.
    assert!(json(&["compact", "--json", "--dir", text(&dir)])["generation"].as_u64().unwrap() >= last);
}

#[test]
fn compacting_leaves_one_snapshot_and_the_same_state() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let document = done(&["export", "--dir", text(&dir)]);
    let data = |dir: &Path| content(dir).iter().filter(|(name, _)| *name != "GENESIS").map(|(_, it)| it.len()).sum();
    let before: usize = data(&dir);
    let told = json(&["compact", "--json", "--dir", text(&dir)]);
    let after = data(&dir);
    assert_eq!((&told["compacted"], &told["generation"]), (&true.into(), &4.into()));
    assert_eq!((&told["bytes_before"], &told["bytes_after"]), (&before.into(), &after.into()));
    assert!(after < before);
    assert_eq!(content(&dir).into_keys().collect::<Vec<_>>(), ["GENESIS".to_owned(), newest_snapshot(&dir)]);
    assert_eq!(done(&["export", "--dir", text(&dir)]), document);
    done(&["verify", "--dir", text(&dir)]);

    // Once more gains nothing, and writes nothing.
    let path = dir.join(newest_snapshot(&dir));
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    let told = json(&["compact", "--json", "--dir", text(&dir)]);
    assert_eq!((&told["compacted"], &told["bytes_before"]), (&false.into(), &told["bytes_after"]));
    assert!(done(&["compact", "--dir", text(&dir)]).contains("nothing to gain"));
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written);

    // It goes on as a store, with bytes that are told to people, too.
    let store = TrustStore::open(&dir).unwrap();
    assert_eq!(store.generation().get(), 4);
    store.grant(TrustRecord::new(id(9), None)).unwrap().wait_durable().unwrap();
    store.close().unwrap();
    let said = done(&["compact", "--dir", text(&dir)]);
    assert!(said.contains("generation 5: ") && said.contains(" bytes before, "), "{said}");
    assert_eq!(TrustStore::open(&dir).unwrap().snapshot().len(), 3);
}

#[test]
fn a_damaged_store_is_not_compacted() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    flip(&dir.join(newest_snapshot(&dir)), 1);
    let before = content(&dir);
    fails(&["compact", "--dir", text(&dir)], &["damaged at byte", "`repair`"]);
    assert_eq!(content(&dir), before);
}

#[test]
fn a_store_that_opens_is_not_repaired() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let before = content(&dir);
    for flags in [&[][..], &["--yes"], &["--empty", "--yes"]] {
        let args = [&["repair", "--dir", text(&dir)], flags].concat();
        assert!(done(&args).contains("nothing to repair"));
        let told = json(&[&args[..], &["--json"]].concat());
        assert_eq!((&told["outcome"], &told["lost"]), (&"nothing_to_repair".into(), &Value::Null));
        assert_eq!((&told["generation"], &told["records"]["trusted"]), (&4.into(), &2.into()));
        assert_eq!(content(&dir), before);
    }
    // Older states, which no opening needs, are set aside. (A few changes with small journals leave two.)
    let dir = home.path().join("rotated");
    let store = TrustStore::options().journal_sizes(512, 1).open(&dir).unwrap();
    for number in 1..=9 {
        store.grant(TrustRecord::new(id(number), None)).unwrap().wait_durable().unwrap();
    }
    store.close().unwrap();
    drop(store);
    let older = snapshots(&dir)[0].clone();
    assert_ne!(older, newest_snapshot(&dir));
    flip(&dir.join(&older), 1);
    let said = done(&["repair", "--yes", "--dir", text(&dir)]);
    assert!(said.contains(&format!("set aside  {older} as damaged-0-{older}")), "{said}");
    assert!(said.contains("lost       nothing"), "{said}");
    assert_eq!(TrustStore::open(&dir).unwrap().snapshot().len(), 9);
}

#[test]
fn a_damaged_newest_state_is_set_aside_when_told_and_not_before() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    // The third and newest journal: in it is the revocation alone.
    let damaged = newest_journal(&dir);
    let (newest, previous) = (4, 3);
    // So that no checksum tells what stood there.
    spoil(&dir.join(&damaged), |bytes| bytes[1033..1100].fill(0x5a));
    let before = content(&dir);
    let args = ["repair", "--dir", text(&dir)];
    let dry = fails(&args, &["nothing was changed", "--yes"]);
    let aside = format!("damaged-0-{damaged}");
    for word in ["damaged at byte", &aside, "revoked by one of them is trusted again", "lost", "trusted, "] {
        assert!(dry.out.contains(word), "{word}: {}", dry.out);
    }
    assert!(!dry.out.contains("repaired"));
    let mut planned: Value = serde_json::from_str(&run(&[&args[..], &["--json"]].concat()).out).unwrap();
    assert_eq!(planned["outcome"], "would_repair");
    assert_eq!(content(&dir), before);
    // Who is trusted although revoked is among those that are named.
    for line in [
        "uncertain  changes after generation 3, up to 4: restrictions may be among them",
        "uncertain  3 trusted peers were granted before, and may have been revoked there: 3, 5, 12",
        "they stay trusted; with `--untrust-uncertain` none of them is",
    ] {
        assert!(dry.out.contains(line), "{line}: {}", dry.out);
    }
    let uncertain = serde_json::json!({
        "generations": [[3, 4]], "named": [], "trusted": 3, "peers": [3, 5, 12], "peers_left_out": 0, "untrusted": false
    });
    assert_eq!(planned["uncertain"], uncertain);
    let without = fails(&[&args[..], &["--untrust-uncertain"]].concat(), &["nothing was changed"]);
    assert!(without.out.contains("untrusted  these 3") && without.out.contains(": 0 trusted"), "{}", without.out);
    assert_eq!(content(&dir), before);
    fails(&["inspect", "--dir", text(&dir)], &["damaged at byte"]);

    let mut done: Value = json(&[&args[..], &["--yes", "--json"]].concat());
    assert_eq!(done["outcome"], "repaired");
    assert_eq!(done["set_aside"][0], serde_json::json!({ "file": damaged, "as": aside }));
    assert_eq!((&done["damaged_generation"], &done["recovered_generation"]), (&Value::Null, &previous.into()));
    assert!(done["generation"].as_u64().unwrap() > newest);
    assert!(done["lost"].as_str().unwrap().contains(&format!("changes from {previous} to {newest}")));
    assert!(done["faults"][0]["file"].as_str().unwrap().ends_with(&damaged));
    // The rehearsal told exactly what came.
    planned["outcome"] = Value::Null;
    done["outcome"] = Value::Null;
    assert_eq!(planned, done);
    let after = content(&dir);
    assert_eq!(after[&aside], before[&damaged]);
    for (name, bytes) in before.iter().filter(|(name, _)| **name != damaged) {
        assert_eq!(&after[name], bytes, "{name}");
    }
    let store = TrustStore::open(&dir).unwrap();
    assert_eq!(store.generation().get(), done["generation"].as_u64().unwrap());
    assert_eq!(store.snapshot().len() as u64, done["records"]["trusted"].as_u64().unwrap());
    assert!(store.is_trusted(id(12)) && store.is_trusted(id(5)), "the revocation was in the damaged state alone");
    store.close().unwrap();
    assert!(self::done(&args).contains("nothing to repair"));

    // A second time: another number in the name.
    let second = newest_snapshot(&dir);
    flip(&dir.join(&second), 1);
    std::fs::write(dir.join(format!("damaged-0-{second}")), b"taken").unwrap();
    let said = self::done(&[&args[..], &["--yes"]].concat());
    for word in [&*format!("{second} as damaged-1-{second}"), "no file was deleted"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn who_may_have_been_revoked_is_trusted_no_longer_if_that_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    spoil(&dir.join(newest_journal(&dir)), |bytes| bytes[1033..1100].fill(0x5a));
    let told = json(&["repair", "--untrust-uncertain", "--yes", "--json", "--dir", text(&dir)]);
    assert_eq!((&told["uncertain"]["untrusted"], &told["records"]["trusted"]), (&true.into(), &0.into()));
    let store = TrustStore::open(&dir).unwrap();
    assert!([3, 5, 12].iter().all(|peer| !store.is_trusted(id(*peer)) && !store.is_revoked(id(*peer))));
}

#[test]
fn a_flipped_bit_of_the_only_snapshot_is_set_right() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    done(&["compact", "--dir", text(&dir)]);
    let document = done(&["export", "--dir", text(&dir)]);
    let snapshot = newest_snapshot(&dir);
    spoil(&dir.join(&snapshot), |bytes| bytes[90] ^= 1);
    let before = content(&dir);
    let dry = fails(&["repair", "--dir", text(&dir)], &["nothing was changed"]);
    for line in [
        &*format!("set right  {snapshot}, one bit of byte 90"),
        "recovered  generation 4: 2 trusted",
        "lost       nothing",
    ] {
        assert!(dry.out.contains(line), "{line}: {}", dry.out);
    }
    assert_eq!(content(&dir), before);
    let told = json(&["repair", "--yes", "--json", "--dir", text(&dir)]);
    assert_eq!(
        (&told["lost"], &told["uncertain"], &told["recovered_generation"]),
        (&Value::Null, &Value::Null, &4.into())
    );
    let place = serde_json::json!([{ "file": snapshot, "offset": 90, "bytes": 1 }]);
    assert_eq!(told["salvaged"]["set_right"], place);
    assert_eq!(content(&dir)[&format!("damaged-0-{snapshot}")], before[&snapshot]);
    done(&["verify", "--dir", text(&dir)]);
    let again: Value = serde_json::from_str(&done(&["export", "--dir", text(&dir)])).unwrap();
    let first: Value = serde_json::from_str(&document).unwrap();
    assert_eq!((&again["trusted"], &again["revoked"]), (&first["trusted"], &first["revoked"]));
    assert!(again["generation"].as_u64() > first["generation"].as_u64());

    // Where that is not enough, what can be read is kept, and the rest is told.
    let snapshot = newest_snapshot(&dir);
    spoil(&dir.join(&snapshot), |bytes| bytes[90..94].fill(0x5a));
    let dry = fails(&["repair", "--dir", text(&dir)], &["nothing was changed"]);
    for word in ["that cannot be read: 2 of its grants", "no change ", "0 trusted, 0 pending, 0 outgoing, 1 revoked"] {
        assert!(dry.out.contains(word), "{word}: {}", dry.out);
    }
    done(&["repair", "--yes", "--dir", text(&dir)]);
    assert!(TrustStore::open(&dir).unwrap().is_revoked(id(5)));
}

/// Before, all of the journal was set aside, and the peer was trusted again, whose id nobody was told.
#[test]
fn what_is_whole_and_what_restricts_is_kept_behind_damage_too() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let store = TrustStore::open(&dir).unwrap();
    for number in 1..=3 {
        store.grant(TrustRecord::new(id(number), None)).unwrap().wait_durable().unwrap();
    }
    store.revoke(id(2)).unwrap().receipt.wait_durable().unwrap();
    store.grant(TrustRecord::new(id(4), None)).unwrap().wait_durable().unwrap();
    store.close().unwrap();
    drop(store);
    let journal = newest_journal(&dir);
    let places = groups(&std::fs::read(dir.join(&journal)).unwrap());
    // The end of the third grant, and of the revocation behind it: more than one bit, so that neither is whole.
    spoil(&dir.join(&journal), |bytes| {
        bytes[places[3] - 20] ^= 0x5a;
        bytes[places[4] - 20] ^= 0x5a;
    });
    let args = ["repair", "--dir", text(&dir)];
    let dry = fails(&args, &["nothing was changed"]);
    for word in
        ["salvaged   1 whole changes, up to generation 5", "kept       peer 2: revoked", "not kept   peer 3: granted"]
    {
        assert!(dry.out.contains(word), "{word}: {}", dry.out);
    }
    let told = json(&[&args[..], &["--yes", "--json"]].concat());
    let salvaged = &told["salvaged"];
    let of = |number: u32, what: &str| serde_json::json!({ "node_id": number, "public_key": null, "what": what });
    assert_eq!(salvaged["kept"], serde_json::json!([of(2, "revoked"), of(2, "no_longer_trusted")]));
    assert_eq!(salvaged["not_kept"], serde_json::json!([of(3, "granted")]));
    assert_eq!((&salvaged["changes"], &salvaged["missing"]), (&1.into(), &serde_json::json!([[2, 4]])));
    let store = TrustStore::open(&dir).unwrap();
    let trusted: Vec<u32> = (1..=4).filter(|number| store.is_trusted(id(*number))).collect();
    assert_eq!((trusted, store.is_revoked(id(2))), (vec![1, 4], true));
}

/// Where a journal's groups begin.
fn groups(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut places) = (1024, vec![1024]);
    while bytes[at] != 0 {
        let kind = bytes[at + 8];
        at += 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if kind == 254 {
            places.push(at);
        }
    }
    places
}

#[test]
fn with_nothing_whole_only_an_empty_store_is_left_and_only_if_told() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let newest = 0;
    let all: Vec<String> = content(&dir).into_keys().filter(|name| name != "GENESIS").collect();
    for name in &all {
        // Of the snapshot nothing can be read, of the journals all but for a bit.
        match name.starts_with("snapshot-") {
            true => spoil(&dir.join(name), |bytes| bytes.fill(0x5a)),
            false => flip(&dir.join(name), 1),
        }
    }
    let before = content(&dir);
    for flags in [&[][..], &["--yes"]] {
        let refused = fails(&[&["repair", "--dir", text(&dir)], flags].concat(), &["no state is whole", "--empty"]);
        assert_eq!(refused.out, "");
    }
    let dry = fails(&["repair", "--empty", "--dir", text(&dir)], &["nothing was changed"]);
    assert!(dry.out.contains("every grant, and every revocation that is not listed as kept"), "{}", dry.out);
    assert_eq!(content(&dir), before);
    let done = json(&["repair", "--empty", "--yes", "--json", "--dir", text(&dir)]);
    assert_eq!((&done["damaged_generation"], &done["recovered_generation"]), (&newest.into(), &Value::Null));
    assert!(done["generation"].as_u64().unwrap() > newest);
    let after = content(&dir);
    for name in &all {
        assert_eq!(after[&format!("damaged-0-{name}")], before[name]);
    }
    let store = TrustStore::open(&dir).unwrap();
    assert_eq!((store.snapshot().len(), store.is_revoked(id(5))), (0, true), "what restricts is read of any file");
}

#[test]
fn data_that_is_gone_is_replaced_by_an_empty_store_only_if_told() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    for name in content(&dir).into_keys().filter(|name| name != "GENESIS") {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    let before = content(&dir);
    fails(&["repair", "--yes", "--dir", text(&dir)], &["data files are gone", "--empty"]);
    fails(&["repair", "--empty", "--dir", text(&dir)], &["nothing was changed"]);
    assert_eq!(content(&dir), before);
    let said = done(&["repair", "--empty", "--yes", "--dir", text(&dir)]);
    assert!(said.contains("data files are gone") && said.contains("an empty store"), "{said}");
    assert_eq!(TrustStore::open(&dir).unwrap().snapshot().len(), 0);
}

#[test]
fn a_damaged_mark_costs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    flip(&dir.join("GENESIS"), 1);
    let before = content(&dir);
    let done = json(&["repair", "--yes", "--json", "--dir", text(&dir)]);
    assert_eq!((&done["lost"], &done["damaged_generation"]), (&Value::Null, &Value::Null));
    assert_eq!((&done["recovered_generation"], &done["generation"]), (&4.into(), &4.into()));
    assert_eq!(content(&dir)["damaged-0-GENESIS"], before["GENESIS"]);
    self::done(&["verify", "--dir", text(&dir)]);
}

#[test]
fn files_of_a_newer_release_or_of_another_store_are_refused_and_stay() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let newest = dir.join(newest_snapshot(&dir));
    let good = std::fs::read(&newest).unwrap();
    let refuses = |words: &[&str]| {
        let before = content(&dir);
        for flags in [&[][..], &["--yes"], &["--empty", "--yes"]] {
            let refused = fails(&[&["repair", "--dir", text(&dir)], flags].concat(), words);
            assert_eq!(refused.out, "");
            assert_eq!(content(&dir), before);
        }
    };
    make_newer(&newest);
    refuses(&["format version 99", "newer release"]);
    // Damage elsewhere is no way around it.
    flip(&dir.join("GENESIS"), 1);
    refuses(&["format version 99", "newer release"]);
    flip(&dir.join("GENESIS"), 1);
    std::fs::write(&newest, good).unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(store(other.path()).join(newest.file_name().unwrap()), &newest).unwrap();
    refuses(&[text(&newest), "another store"]);
}

#[test]
fn a_store_in_use_by_this_process_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let dir = store(home.path());
    let owner = TrustStore::open(&dir).unwrap();
    let before = content(&dir);
    for command in ["compact", "repair"] {
        let pid = format!("process {}", std::process::id());
        fails(&[command, "--dir", text(&dir)], &["in use by", &pid, "`inspect`, `verify` and `export` work beside it"]);
    }
    assert_eq!(content(&dir), before);
    drop(owner);
    done(&["compact", "--dir", text(&dir)]);
}

/// A store of some megabytes, with two states on disk.
fn large_store(home: &Path) -> PathBuf {
    let dir = home.join("store");
    for round in 0..2 {
        let store = TrustStore::open(&dir).unwrap();
        let all = store.update(|batch| {
            (1..=80_000).all(|number| batch.grant(TrustRecord::new(id(number + round), None).mutual(true)).is_ok())
        });
        let (granted, receipt) = all.unwrap();
        assert!(granted);
        receipt.wait_durable().unwrap();
        store.close().unwrap();
    }
    dir
}

/// Runs the program with a terminal as its standard error, and returns what was drawn there.
fn drawn(args: &[&str]) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trustkeep"));
    command.args(args).env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(slave);
    let mut child = command.spawn().unwrap();
    // Ours is the last other end.
    drop(command);
    let mut master = std::fs::File::from(master);
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    // At the end there is no end of file but an error.
    while let Ok(read @ 1..) = master.read(&mut part) {
        all.extend_from_slice(&part[..read]);
    }
    assert!(child.wait().unwrap().success(), "{args:?}");
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn bars_are_drawn_on_a_terminal_and_nowhere_else() {
    let home = tempfile::tempdir().unwrap();
    let dir = large_store(home.path());
    let file = home.path().join("trust.json");
    // Not on a pipe: `done` wants silence.
    assert!(done(&["verify", "--dir", text(&dir)]).contains("every byte is accounted for"));
    done(&["export", "--dir", text(&dir), "--out", text(&file)]);
    let exported: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(exported["trusted"].as_array().unwrap().len(), 80_001);
    done(&["repair", "--dir", text(&dir)]);
    // And with a terminal there are some, which are taken away at the end.
    for (args, what) in [
        (&["verify", "--dir", text(&dir)][..], "checking ["),
        (&["export", "--dir", text(&dir)], "exporting ["),
        (&["export", "--dir", text(&dir), "--out", text(&file), "--force"], "exporting ["),
        (&["repair", "--dir", text(&dir)], "opening: "),
        (&["compact", "--dir", text(&dir)], "compacting: "),
    ] {
        let drawn = drawn(args);
        assert!(drawn.contains(what), "{args:?}: {drawn:?}");
        let last = drawn.rsplit(['\r', '\n']).next().unwrap();
        assert!(last.ends_with("\x1b[2K"), "{args:?}: {drawn:?}");
    }
    let small = store(&std::fs::canonicalize(tempfile::tempdir_in(home.path()).unwrap().keep()).unwrap());
    assert_eq!(drawn(&["verify", "--dir", text(&small)]), "");
    // Compacting on a pipe, at last: it had nothing more to do above.
    TrustStore::open(&dir).unwrap().revoke(id(7)).unwrap().receipt.wait_durable().unwrap();
    assert!(done(&["compact", "--dir", text(&dir)]).contains("bytes before"));
}
