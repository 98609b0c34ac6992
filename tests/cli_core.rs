//! What a signal leaves of a process that holds a secret key:
//!
//! - SIGQUIT stops a node in good order, as SIGTERM does; whether the store is there then is told by the exit code;
//! - a process that is ended by a signal leaves no core dump.
#![allow(
    unreachable_pub,
    missing_docs,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use program::{init, text};

/// A node in this directory, that may dump as much as it likes.
fn node(dir: &Path) -> Child {
    let home = dir.join("home");
    if !home.exists() {
        init(&home, "7");
    }
    let program = env!("CARGO_BIN_EXE_trustkeep");
    let mut child = Command::new("sh")
        .args([
            "-c",
            "ulimit -S -c \"$(ulimit -H -c)\"; exec \"$@\"",
            "sh",
            program,
            "node",
            "--json",
            "--home",
            text(&home),
        ])
        .args(["--listen", "127.0.0.1:0"])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("listen"), "{line}");
    child
}

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn sigquit_stops_a_node_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = node(dir.path());
    send(&child, "QUIT");
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

#[test]
fn a_node_whose_store_is_not_where_it_was_when_it_stops_exits_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let (store, away) = (dir.path().join("home/store"), dir.path().join("away"));
    let mut child = node(dir.path());
    std::fs::rename(&store, &away).unwrap();
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    // And the twin.
    std::fs::rename(&away, &store).unwrap();
    let mut child = node(dir.path());
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_node_that_a_signal_ends_leaves_no_core_dump() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = node(dir.path());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    let soft = core.split_whitespace().next().unwrap();
    // The twin: such a signal does end it.
    send(&child, "ABRT");
    let status = child.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    assert!(matches!(soft, "0" | "1"), "{core}");
}
