//! Sessions that come and go leave nothing behind: memory, files and what an opening has to read are after millions of them
//! what they were after the first (`TRUSTKEEP_SESSIONS` of them, 40 000 unless told otherwise).
//!
//! Each session is a peer with an id of its own that is trusted for a while; some end with a mark that is forgotten again.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test says what must hold by panicking, and stands outside the fences of the library"
)]

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use trustkeep::{NodeId, PublicKey, TrustRecord, TrustStore};

/// As many sessions last at the same time.
const AT_ONCE: usize = 2000;

#[derive(Clone, Copy, Debug)]
struct Left {
    /// Of this process, where the system tells.
    resident_bytes: u64,
    files: usize,
    /// What an opening has to read.
    file_bytes: u64,
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

/// What the sessions left so far. An opening is tried with a copy.
fn look(store: &TrustStore, dir: &Path) -> Left {
    store.flush().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let (mut files, mut file_bytes) = (0, 0);
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "LOCK" {
            files += 1;
            file_bytes += std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap_or(0);
        }
    }
    let resident_bytes = resident_bytes();
    let begun = Instant::now();
    let opened = TrustStore::open(copy.path()).unwrap();
    let opening = begun.elapsed();
    assert_eq!(opened.snapshot().len(), store.snapshot().len());
    opened.close().unwrap();
    println!("an opening of it takes {opening:?}");
    Left { resident_bytes, files, file_bytes }
}

#[test]
fn sessions_that_come_and_go_leave_nothing_behind() {
    let sessions: u32 = std::env::var("TRUSTKEEP_SESSIONS").map_or(40_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let store = TrustStore::options().journal_sizes(64 << 10, 64 << 10).open(&dir).unwrap();
    let keys: Vec<PublicKey> = (0..64_u8)
        .map(|seed| {
            PublicKey::from_bytes(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes())
        })
        .map(Result::unwrap)
        .collect();
    let mut last = VecDeque::new();
    let mut looks = Vec::new();
    for session in 1..=sessions {
        let peer = NodeId::new(session).unwrap();
        let key = keys.get(session as usize % keys.len()).copied();
        let _ = store.grant(TrustRecord::new(peer, key)).unwrap();
        last.push_back(peer);
        if last.len() > AT_ONCE {
            let gone = last.pop_front().unwrap();
            if session % 16 == 0 {
                let _ = store.revoke(gone).unwrap();
                let _ = store.update(|batch| batch.forget_revocation(gone)).unwrap();
            } else {
                let _ = store.update(|batch| batch.remove(gone)).unwrap();
            }
        }
        // A disk keeps up with so many; without this all that is seen is how far it lags behind.
        if session % 4096 == 0 {
            store.flush().unwrap();
        }
        if session % (sessions / 8) == 0 {
            looks.push(look(&store, &dir));
        }
    }
    for (eighth, left) in (1..).zip(&looks) {
        println!("after {:>9} sessions: {left:?}", u64::from(sessions) * eighth / 8);
    }
    // The second, since the first may have come before the first snapshot was due.
    let (early, late) = (looks.get(1).unwrap(), looks.last().unwrap());
    assert!(late.files <= early.files.max(24), "files are left: {early:?}, {late:?}");
    let most_bytes = looks.iter().map(|left| left.file_bytes).max().unwrap();
    assert!(most_bytes < 8 << 20, "bytes are left: {looks:?}");
    assert!(late.resident_bytes <= early.resident_bytes + (16 << 20), "memory is left: {early:?}, {late:?}");
    assert_eq!((store.snapshot().len(), store.snapshot().revoked_len()), (AT_ONCE, 0));
    store.close().unwrap();
}
