//! That what is acknowledged was really synced: the system calls of the program, as `strace` tells them. Doubles of a disk
//! show in which order the library asks for syncs; only this shows that the real one makes them.
//!
//! Where there is no `strace`, or it may not trace, nothing is done, and the test says so.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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

/// The program under `strace`, told so.
fn traced(options: &[&str], trace: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-s", "200"]).args(options).arg("-o").arg(trace).arg(env!("CARGO_BIN_EXE_trustkeep"));
    command
}

#[test]
fn a_home_and_what_it_has_seen_are_synced_before_they_are_told() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (home, trace) = (root.join("home"), root.join("trace"));
    let calls = |args: &[&str]| -> Vec<String> {
        let traced = traced(&["-e", "trace=write,fsync,link,linkat,rename,renameat,renameat2"], &trace)
            .args(args)
            .arg("--home")
            .arg(&home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(traced.unwrap().success());
        std::fs::read_to_string(&trace).unwrap().lines().map(str::to_owned).collect()
    };
    let first = |calls: &[String], from: usize, what: &str, of: &str| {
        let is = |line: &String| line.contains(&format!(" {what}")) && line.contains(of);
        let found = calls.iter().skip(from).position(is);
        found.unwrap_or_else(|| panic!("no {what} of {of} behind line {from}: {}", calls.join("\n"))) + from
    };
    let synced = |path: &Path| format!("<{}>)", path.display());
    // Its files, their names, and its own; then it is told.
    let made = calls(&["init", "--id", "7"]);
    first(&made, 0, "fsync(", &synced(&home.join("peers.toml")));
    let named = first(&made, 0, "link", "identity.key");
    let of_home = first(&made, named, "fsync(", &synced(&home));
    let of_root = first(&made, named, "fsync(", &synced(&root));
    let told = first(&made, 0, "write(1", "node         7");
    assert!(of_home < told && of_root < told, "{}", made.join("\n"));
    // What the home saw of its store: bytes, name.
    let ran = calls(&["node", "--listen", "127.0.0.1:0", "--stop-at-eof"]);
    let bytes = first(&ran, 0, "fsync(", &synced(&home.join("store.seen.tmp")));
    let named = first(&ran, 0, "rename", "store.seen.tmp\"");
    first(&ran, named, "fsync(", &synced(&home));
    assert!(bytes < named, "{}", ran.join("\n"));
}

/// A node under `strace`; both end when this goes.
struct Traced {
    strace: std::process::Child,
    node: String,
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "KILL", &self.node]).status();
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// A disk that hangs while a watermark is synced: a moment after the last change was acknowledged, so that nobody waits.
#[test]
fn a_disk_that_hangs_while_nobody_waits_is_told_by_the_log_and_then_by_status() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (home, log) = (dir.path().join("home"), dir.path().join("log"));
    let program = |args: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_trustkeep")).args(args).arg("--home").arg(&home).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stdout).unwrap())
    };
    assert_eq!(program(&["init", "--id", "7"]).0, Some(0));
    // The keeper's first is that of the second change, which finds a journal; every other one hangs, for ten minutes.
    let inject = "inject=fdatasync:delay_enter=600000000:when=2+";
    let mut strace = traced(&["-e", "trace=fdatasync", "-e", inject], Path::new("/dev/null"))
        .args(["node", "--json", "--save-limit", "1", "--listen", "127.0.0.1:0", "--home"])
        .arg(&home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(strace.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let _node = Traced { strace, node: ready["pid"].to_string() };
    // Of these nothing follows by itself.
    for peer in ["5", "6"] {
        assert_eq!(program(&["ignore", peer]).0, Some(0));
    }
    let said = || std::fs::read_to_string(&log).unwrap();
    let begun = Instant::now();
    while !said().contains("a save has been running for longer than it should") {
        assert!(begun.elapsed() < Duration::from_secs(120), "{}", said());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, out) = program(&["status", "--check", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &status["healthy"], &status["saving"]["overdue"]), (Some(1), &false.into(), &true.into()));
    assert_eq!(status["durable_generation"], status["generation"], "it was acknowledged");
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
