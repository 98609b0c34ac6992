//! A limit of file sizes (`RLIMIT_FSIZE`, `ulimit -f`) is an error of a save, and does not end the process: neither one that
//! embeds the library and has seen to nothing, nor the program.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

use std::io::ErrorKind;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};
use trustkeep::{NodeId, PersistError, TrustRecord, TrustStore};

/// Set where this test runs itself, with the directory of the store.
const CHILD: &str = "TRUSTKEEP_FILE_LIMIT_DIR";

fn record(number: u32) -> TrustRecord {
    TrustRecord::new(NodeId::new(number).unwrap(), None)
}

#[test]
fn a_file_that_may_not_grow_is_an_error_and_not_the_end_of_the_process() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return child(dir.as_ref());
    }
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let test = "a_file_that_may_not_grow_is_an_error_and_not_the_end_of_the_process";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, &dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let store = TrustStore::open(&dir).unwrap();
    assert_eq!(store.snapshot().len(), 3, "what was acknowledged, and nothing else");
}

fn child(dir: &std::path::Path) {
    let limit = Some(20 << 10);
    setrlimit(Resource::Fsize, Rlimit { current: limit, maximum: limit }).unwrap();
    let store = TrustStore::open(dir).unwrap();
    for number in 1..=3 {
        store.grant(record(number)).unwrap().wait_durable().unwrap();
    }
    let (fits, receipt) = store.update(|batch| (4..5000).all(|number| batch.grant(record(number)).is_ok())).unwrap();
    assert!(fits);
    let error = receipt.wait_durable().unwrap_err();
    assert!(matches!(&error, PersistError::Io { source, .. } if source.kind() == ErrorKind::FileTooLarge), "{error}");
    // The store is dropped with what could not be saved, and the process ends as it would.
}

#[cfg(feature = "cli")]
#[test]
fn the_program_outlives_a_limit_of_file_sizes_whatever_it_writes() {
    let home = tempfile::tempdir().unwrap();
    let out = std::fs::File::create(home.path().join("out")).unwrap();
    // Standard output is a file, too, and what is to be written does not fit.
    let status = Command::new("sh")
        .args(["-c", "ulimit -f 1; exec \"$0\" completions bash"])
        .arg(env!("CARGO_BIN_EXE_trustkeep"))
        .stdout(out)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1), "{status:?}");
}
