//! That what is acknowledged was really synced: the system calls of the program, as `strace` tells them. Doubles of a disk
//! show in which order the library asks for syncs; only this shows that the real one makes them.
//!
//! Where there is no `strace`, or it may not trace, nothing is done, and the test says so.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

const CALLS: &str = "write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,syncfs,rename,renameat,renameat2,linkat,unlink,unlinkat,ftruncate,fallocate";

fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        println!("skipped: no strace that may trace");
    }
    can
}

/// What is not yet on the disk, by the calls that were made, and how often something was looked at.
#[derive(Default)]
struct Disk {
    unsynced_files: BTreeSet<String>,
    /// Names given since the directory was synced last.
    unsynced_names: BTreeSet<String>,
    parent_is_synced: bool,
    acknowledged: usize,
    named: usize,
    removed: usize,
}

/// The path in `7</a/path>`, and what stands behind it.
fn path_of(text: &str) -> Option<(&str, &str)> {
    text.split_once('<')?.1.split_once('>')
}

/// The names in double quotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

impl Disk {
    /// A call whose outcome is not known yet. What is written is unsynced from here on.
    fn begins(&mut self, call: &str, store: &str, line: &str) {
        let Some((name, rest)) = call.split_once('(') else { return };
        match name {
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" | "ftruncate" | "fallocate" => {
                let Some((path, _)) = path_of(rest) else { return };
                if path.ends_with("/acknowledged") {
                    self.acknowledged += 1;
                    let open = self.unsynced_files.iter().find(|path| path.contains("/journal-"));
                    assert_eq!(open, None, "acknowledged before it was synced: {line}");
                    let unnamed = self.unsynced_names.iter().find(|name| name.starts_with("journal-"));
                    assert_eq!(unnamed, None, "acknowledged before its directory was synced: {line}");
                    assert!(self.parent_is_synced, "acknowledged in a directory that may be gone: {line}");
                } else if path.starts_with(store) && !path.ends_with("/LOCK") {
                    self.unsynced_files.insert(path.to_owned());
                }
            }
            "renameat2" | "renameat" | "rename" | "linkat" => {
                let names = quoted(rest);
                let [from, to] = names.as_slice() else { panic!("{line}") };
                let path = format!("{store}/{from}");
                assert!(!self.unsynced_files.contains(&path), "it has a name before it is synced: {line}");
                self.unsynced_names.insert((*to).to_owned());
                self.named += 1;
            }
            "unlinkat" | "unlink" => {
                let gone = quoted(rest).first().copied().unwrap_or_default().to_owned();
                if !gone.contains(".tmp") {
                    let waits = self.unsynced_names.iter().next();
                    assert_eq!(waits, None, "removed before what replaces it is durable: {line}");
                    self.removed += 1;
                }
            }
            _ => {}
        }
    }

    /// A call that has succeeded.
    fn is_done(&mut self, call: &str, store: &str) {
        let Some((name, rest)) = call.split_once('(') else { return };
        let Some((path, _)) = path_of(rest) else { return };
        match name {
            "fsync" | "fdatasync" if path == store => self.unsynced_names.clear(),
            "fsync" | "fdatasync" => {
                self.parent_is_synced |= Path::new(store).parent() == Some(Path::new(path));
                self.unsynced_files.remove(path);
            }
            "syncfs" => self.parent_is_synced = true,
            _ => {}
        }
    }

    fn follow(&mut self, trace: &str, store: &str) {
        let mut begun = BTreeMap::new();
        for line in trace.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let rest = rest.trim_start();
            if let Some(call) = rest.strip_suffix("<unfinished ...>") {
                self.begins(call, store, line);
                begun.insert(thread, call);
            } else if rest.starts_with("<... ") {
                let call = begun.remove(thread).unwrap_or_default();
                if !rest.contains("= -1 ") {
                    self.is_done(call, store);
                }
            } else {
                self.begins(rest, store, line);
                if !rest.contains("= -1 ") {
                    self.is_done(rest, store);
                }
            }
        }
    }
}

#[test]
fn nothing_is_acknowledged_before_it_is_synced_named_and_found() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (store, acknowledged, trace) = (root.join("store"), root.join("acknowledged"), root.join("trace"));
    let mut disk = Disk::default();
    // So many records that each run after the first writes a snapshot and removes what that supersedes.
    for records in ["1000", "30000", "90000", "200000"] {
        let status = Command::new("strace")
            .args(["-f", "-y", "-s", "80", "-e", &format!("trace={CALLS}"), "-o"])
            .arg(&trace)
            .arg(env!("CARGO_BIN_EXE_trustkeep"))
            .args(["stress", "--threads", "1", "--seconds", "0.3", "--records", records, "--dir"])
            .arg(&store)
            .arg("--acks")
            .arg(&acknowledged)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        disk.follow(&std::fs::read_to_string(&trace).unwrap(), store.to_str().unwrap());
        assert_eq!(
            (disk.unsynced_files.iter().next(), disk.unsynced_names.iter().next()),
            (None, None),
            "after its end"
        );
        // Each process finds the parent synced by itself, or by the one that made the directory.
    }
    let lines = std::fs::read_to_string(&acknowledged).unwrap().lines().count();
    assert_eq!(disk.acknowledged, lines, "the trace shows each acknowledgement");
    assert!(lines > 20 && disk.named >= 8 && disk.removed >= 2, "{lines}, {}, {}", disk.named, disk.removed);
    println!("{lines} acknowledgements, {} names given, {} removed", disk.named, disk.removed);
}
