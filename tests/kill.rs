//! kill -9, again and again, on one directory (`TRUSTKEEP_KILLS` times, 100 unless told otherwise):
//!
//! - every acknowledged change is there, unless the one change of the same thread that was under way undid it;
//! - no revocation is lost and no generation goes back;
//! - nothing is there that nobody did; `verify` finds nothing damaged; the store opens.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use trustkeep::TrustStore;

const THREADS: u32 = 4;
const FILL: usize = 50;
const FILL_FIRST: u32 = 0x1000_0000;

/// As `trustkeep stress --help` says.
fn peer(seed: u64, thread: u32, change: u64) -> u32 {
    let of_thread = mix(mix(seed).wrapping_add(u64::from(thread)));
    u32::try_from(1 + 1000 * u64::from(thread) + mix(of_thread.wrapping_add(change)) % 1000).unwrap()
}

fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a store holds of the peers that threads own, and of those that it was filled with.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    generation: u64,
    /// True for trusted, false for revoked.
    owned: BTreeMap<u32, bool>,
    fill: BTreeSet<u32>,
}

fn trustkeep(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trustkeep"));
    command.args(args).stdin(Stdio::null());
    command
}

fn state(dir: &Path) -> Result<State, String> {
    let output = trustkeep(&["inspect", "--json", "--dir", dir.to_str().unwrap()]).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids = |table: &str| -> Vec<u32> {
        let rows = json[table].as_array().unwrap();
        rows.iter().map(|row| u32::try_from(row["node_id"].as_u64().unwrap()).unwrap()).collect()
    };
    let mut state = State { generation: json["generation"].as_u64().unwrap(), ..State::default() };
    for id in ids("trusted") {
        if id >= FILL_FIRST {
            state.fill.insert(id);
        } else {
            state.owned.insert(id, true);
        }
    }
    for id in ids("revoked") {
        assert_eq!(state.owned.insert(id, false), None, "peer {id} is trusted and revoked");
    }
    Ok(state)
}

/// Whole lines only: the last one may have been cut off by the kill, and then was not seen by anybody.
fn acknowledged(acks: &Path) -> Vec<(u64, bool, u32)> {
    let text = std::fs::read_to_string(acks).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words.len(), 3, "{line}");
        let trusts = match words[1] {
            "grant" => true,
            "revoke" => false,
            other => panic!("{other}"),
        };
        (words[0].parse().unwrap(), trusts, words[2].parse().unwrap())
    };
    whole.lines().map(line).collect()
}

/// What must be there after a kill, and the peers whose change was under way: theirs may have been made, or not.
fn expect(before: &State, seed: u64, acks: &[(u64, bool, u32)]) -> (State, Vec<u32>) {
    let mut expected = before.clone();
    let mut done = [0; THREADS as usize];
    for (generation, trusts, id) in acks {
        let thread = (id - 1) / 1000;
        assert_eq!(*id, peer(seed, thread, done[thread as usize]), "thread {thread} left its plan");
        done[thread as usize] += 1;
        let was = expected.owned.insert(*id, *trusts).unwrap_or(false);
        assert_ne!(was, *trusts, "a change of peer {id} that changed nothing");
        expected.generation = expected.generation.max(*generation);
    }
    let under_way = (0..THREADS).zip(done).map(|(thread, done)| peer(seed, thread, done)).collect();
    (expected, under_way)
}

fn check(expected: &State, under_way: &[u32], found: &State) {
    assert!(found.generation >= expected.generation, "older than what was acknowledged: {found:?}");
    assert!(found.fill.is_superset(&expected.fill), "a filled-in peer is gone");
    let all: BTreeSet<u32> = expected.owned.keys().chain(found.owned.keys()).copied().collect();
    for id in all {
        let (must, is) = (expected.owned.get(&id).copied(), found.owned.get(&id).copied());
        let undone = under_way.contains(&id) && is == Some(!must.unwrap_or(false));
        assert!(is == must || undone, "peer {id}: {is:?} instead of {must:?}");
    }
}

#[test]
fn nothing_acknowledged_is_missing_after_kill_nine() {
    let kills: u64 = std::env::var("TRUSTKEEP_KILLS").map_or(100, |text| text.parse().expect("TRUSTKEEP_KILLS"));
    let home = tempfile::tempdir().unwrap();
    let (dir, acks): (PathBuf, PathBuf) = (home.path().join("store"), home.path().join("acks"));
    let mut last = State::default();
    let (mut acknowledgements, mut busy) = (0, 0);
    for seed in 0..kills {
        let _ = std::fs::remove_file(&acks);
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (threads, fill, seed_text) = (THREADS.to_string(), FILL.to_string(), seed.to_string());
        let mut child = trustkeep(&["stress", "--dir", &text(&dir), "--acks", &text(&acks), "--seconds", "600"])
            .args(["--threads", &threads, "--records", &fill, "--seed", &seed_text])
            .spawn()
            .unwrap();
        // Every third kill comes early: into the creation, the fill, or the first changes.
        let early = seed % 3 == 0;
        let moment = if early { mix(!seed) % 40 } else { mix(!seed) % 300 };
        if !early {
            wait_for_a_line(&acks);
            busy += 1;
        }
        std::thread::sleep(Duration::from_millis(moment));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), None, "seed {seed}: it ended by itself: {status}");

        let lines = acknowledged(&acks);
        acknowledgements += lines.len();
        assert!(early || !lines.is_empty());
        let (expected, under_way) = expect(&last, seed, &lines);
        let found = match state(&dir) {
            Ok(found) => found,
            // Killed before there was a store.
            Err(message) if expected == State::default() && message.contains("no such store") => continue,
            Err(message) => panic!("seed {seed}, after {moment} ms: {message}"),
        };
        println!("seed {seed}: killed after {moment} ms, {} changes acknowledged", lines.len());
        check(&expected, &under_way, &found);
        assert!(early || found.fill.len() == FILL, "it changes peers only once it has filled the store");
        let verified = trustkeep(&["verify", "--dir", &text(&dir)]).output().unwrap();
        assert!(verified.status.success(), "seed {seed}: {verified:?}");
        if seed % 2 == 0 {
            let store = TrustStore::open(&dir).unwrap();
            assert_eq!(store.generation().get(), found.generation);
            assert!(found.owned.keys().all(|id| {
                let peer = trustkeep::NodeId::new(*id).unwrap();
                store.is_trusted(peer) == found.owned[id]
            }));
            store.close().unwrap();
        }
        last = found;
    }
    println!("{acknowledgements} acknowledged changes, {busy} of {kills} kills while changes were under way");
}

/// The file is the child's only word; there is nothing to be woken by.
fn wait_for_a_line(acks: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while acknowledged(acks).is_empty() {
        assert!(Instant::now() < deadline, "no change was acknowledged in a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
}
