//! `trustkeep demo` holds, and leaves neither a process nor a file behind, however it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use trustkeep::{OpenError, TrustStore};

/// What is in a directory.
fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_demo_holds_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trustkeep"));
    let output = command.arg("demo").env("TMPDIR", dir.path()).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    for step in ["request:", "pending:", "approve:", "kill -9", "runs again: still", "revoke:", "only pending", "held"]
    {
        assert!(out.contains(step), "{step}: {out}");
    }
    assert_eq!(entries(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn nodes_do_not_outlive_a_demo_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trustkeep"));
    let mut child = command.arg("demo").env("TMPDIR", dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.nth(1).unwrap().unwrap().contains("listens on"));
    child.kill().unwrap();
    child.wait().unwrap();
    let demo = entries(dir.path()).pop().unwrap();
    // They are nobody's children any more: that their stores are free is the sign that they have stopped.
    let deadline = Instant::now() + Duration::from_secs(60);
    for home in ["seven", "nine"] {
        while let Err(error) = TrustStore::options().create(false).open(demo.join(home).join("store")) {
            assert!(matches!(error, OpenError::InUse { .. }) && Instant::now() < deadline, "{error}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_demo_that_is_ended_cleans_up() {
    for signal in program::stopping_signals() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trustkeep"));
        let mut child = command.arg("demo").env("TMPDIR", dir.path()).stdout(Stdio::piped()).spawn().unwrap();
        // The second step's line: both nodes run.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.nth(1).unwrap().unwrap().contains("listens on"));
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{signal}");
        assert_eq!(entries(dir.path()), Vec::<PathBuf>::new());
    }
}
