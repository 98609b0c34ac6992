//! How long a large store takes to fill, save and open, and what it needs.
//!
//! `scale [--records 1000000] [--rounds 5] [--dir D] [--json]`; without `--dir` in the system's temporary directory.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement: it reads the clock, prints, and stops when something does not hold"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use trustkeep::{LoadMode, NodeId, TrustRecord, TrustStore};
use trustkeep_benches::{Spread, fill, has_flag, key, number_flag};

fn main() {
    if let Some(dir) = text_flag("--open") {
        return open_only(Path::new(&dir));
    }
    let (records, rounds) = (number_flag("--records", 1_000_000), number_flag("--rounds", 5));
    let home = text_flag("--dir").map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let dir = home.path().join("store");

    let store = TrustStore::open(&dir).unwrap();
    let start = Instant::now();
    fill(&store, records);
    let fill_ms = millis(start);
    store.flush().unwrap();
    assert_eq!(store.snapshot().len(), usize::try_from(records).unwrap());
    // One change makes one save of everything, for the time being.
    let save_ms = Spread::of(
        (0..rounds)
            .map(|round| {
                let network = u16::try_from(round % 60_000).unwrap() + 2;
                let record = TrustRecord::new(NodeId::new(1).unwrap(), key()).network(network);
                let start = Instant::now();
                store.grant(record).unwrap().wait_durable().unwrap();
                millis(start)
            })
            .collect(),
    );
    store.close().unwrap();
    drop(store);
    let bytes = newest_snapshot_bytes(&dir);

    // Opened in processes of their own: this one's memory has seen the filling.
    let mut opens: Vec<[u64; 2]> = (0..rounds).map(|_| opened_elsewhere(&dir)).collect();
    opens.sort_unstable();
    let open_ms = Spread::of(opens.iter().map(|[open_ms, _]| *open_ms).collect());
    let resident_kib = Spread::of(opens.iter().map(|[_, resident]| *resident).collect());

    if has_flag("--json") {
        let all = serde_json::json!({
            "records": records, "rounds": rounds, "fill_ms": fill_ms, "save_ms": save_ms.json(), "snapshot_bytes": bytes,
            "open_ms": open_ms.json(), "resident_kib_after_open": resident_kib.json(),
        });
        println!("{all}");
        return;
    }
    let show = |Spread { median, min, max }: Spread| format!("{median} [{min}, {max}]");
    println!("{records} records; median [min, max] of {rounds} rounds");
    println!("fill, batches of 10 000      {fill_ms} ms (one round)");
    println!("save, one change at a time   {} ms", show(save_ms));
    println!("snapshot                     {bytes} bytes, {:.1} per record", bytes as f64 / f64::from(records.max(1)));
    println!("open                         {} ms", show(open_ms));
    println!("resident after opening       {} KiB", show(resident_kib));
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap()
}

fn text_flag(name: &str) -> Option<PathBuf> {
    std::env::args_os().skip_while(|argument| argument != name).nth(1).map(PathBuf::from)
}

fn newest_snapshot_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let newest =
        files.filter(|file| file.file_name().to_string_lossy().ends_with(".tks")).max_by_key(|file| file.file_name());
    newest.unwrap().metadata().unwrap().len()
}

/// Opens the store, and prints how long it took and what is resident then.
fn open_only(dir: &Path) {
    let start = Instant::now();
    let store = TrustStore::options().create(false).load_mode(LoadMode::Map).open(dir).unwrap();
    let open_ms = millis(start);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident_kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    println!("{open_ms} {resident_kib}");
    drop(store);
}

fn opened_elsewhere(dir: &Path) -> [u64; 2] {
    let output = Command::new(std::env::current_exe().unwrap()).arg("--open").arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut figures = text.split_whitespace().map(|figure| figure.parse().unwrap());
    [figures.next().unwrap(), figures.next().unwrap()]
}
