//! An older copy of a store, or another store, in the place of the one that a home had:
//!
//! - is told in the log, by `status`, its exit code, and `watch`, across restarts, until it is accepted;
//! - is not told of where there is none: after a kill, an import, a compaction or a repair;
//! - is told though a command on the closed store made it count on from there;
//! - whatever is wrong with `store.seen` keeps no node from running;
//! - what a recovery cut off is in the node's log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use program::{fails, init, run, text};

/// A node with its log in a file.
struct Node {
    home: PathBuf,
    child: Child,
    log: PathBuf,
}

impl Node {
    fn start(home: &Path, settings: &[&str]) -> Self {
        let log = home.join("log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_trustkeep"))
            .args(["node", "--json", "--home", text(home), "--listen", "127.0.0.1:0"])
            .args(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("node_id"), "it did not start: {}", std::fs::read_to_string(&log).unwrap());
        Self { home: home.to_owned(), child, log }
    }

    fn asks(&self, args: &[&str]) -> (i32, String) {
        let (command, rest) = args.split_first().unwrap();
        let (code, out, _) = run(&[&[*command, "--home", text(&self.home)], rest].concat());
        (code, out)
    }

    fn revokes(&self, peers: impl IntoIterator<Item = u32>) {
        for peer in peers {
            assert_eq!(self.asks(&["revoke", &peer.to_string()]).0, 0);
        }
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.asks(&["status", "--json"]).1).unwrap()
    }

    /// Stops it in good order; what it logged.
    fn stop(mut self) -> String {
        assert!(Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A home whose node has revoked these many peers, and stopped.
fn home(dir: &TempDir, peers: u32) -> PathBuf {
    let home = dir.path().join("home");
    init(&home, "7");
    let node = Node::start(&home, &[]);
    node.revokes(1000..1000 + peers);
    node.stop();
    home
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Puts a copy in the place of the home's store.
fn put_back(home: &Path, copied: &Path) {
    std::fs::remove_dir_all(home.join("store")).unwrap();
    copy(copied, &home.join("store"));
}

fn done(args: &[&str]) {
    let (code, out, err) = run(args);
    assert_eq!(code, 0, "{args:?}: {out}{err}");
}

/// The generation of a closed store.
fn generation(home: &Path) -> u64 {
    let (_, out, _) = run(&["verify", "--json", "--home", text(home)]);
    serde_json::from_str::<Value>(&out).unwrap()["generation"].as_u64().unwrap()
}

#[track_caller]
fn is_told(home: &Path, seen: u64, found: u64, another: bool) {
    let node = Node::start(home, &[]);
    let status = node.status();
    let expected = json!({"seen_generation": seen, "found_generation": found, "another_store": another});
    assert_eq!((&status["older_store"], &status["healthy"]), (&expected, &false.into()));
    assert_eq!(node.asks(&["status", "--check"]).0, 1);
    let shown = node.asks(&["status"]).1;
    assert!(shown.contains(if another { "store        ANOTHER" } else { "store        OLDER" }), "{shown}");
    // Also who asks for one peer alone hears it.
    let (code, out) = node.asks(&["watch", "--json", "--peer", "1", "--count", "1", "--timeout", "60"]);
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, &events[1]["topic"], &events[1]["payload"]), (0, &"store.older".into(), &expected));
    let log = node.stop();
    let what = if another { "another store" } else { "an older copy of the store" };
    let warned =
        log.lines().any(|line| line.contains("WARN") && line.contains(what) && line.contains("--accept-older"));
    assert!(warned, "{log}");
}

#[track_caller]
fn is_not_told(home: &Path) {
    let node = Node::start(home, &[]);
    let status = node.status();
    assert_eq!((&status["older_store"], &status["healthy"]), (&Value::Null, &true.into()));
    assert_eq!(node.asks(&["status", "--check"]).0, 0);
    let (_, out) = node.asks(&["watch", "--json", "--timeout", "0.3"]);
    assert!(!out.contains("store.older"), "{out}");
    let log = node.stop();
    assert!(!log.contains("older") && !log.contains("another") && !log.contains("was recovered"), "{log}");
}

#[test]
fn an_older_copy_put_back_is_told_until_it_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir, 1);
    let (old, found) = (dir.path().join("old"), generation(&home));
    copy(&home.join("store"), &old);
    let node = Node::start(&home, &[]);
    node.revokes([55]);
    node.stop();
    let seen = generation(&home);
    assert!(seen > found);
    put_back(&home, &old);
    is_told(&home, seen, found, false);
    // Nor is it forgotten once the old one has come further than the new one was, whatever end that has.
    let node = Node::start(&home, &[]);
    node.revokes(60..70);
    node.kill();
    assert!(generation(&home) > seen);
    is_told(&home, seen, found, false);
    let log = Node::start(&home, &["--accept-older-store"]).stop();
    assert!(log.contains("it is accepted"), "{log}");
    is_not_told(&home);
    // And from then on that one counts.
    put_back(&home, &old);
    let node = Node::start(&home, &["--accept-older-store"]);
    assert_eq!((&node.status()["older_store"], &node.status()["healthy"]), (&Value::Null, &true.into()));
    node.stop();
    is_not_told(&home);
}

#[test]
fn another_store_in_its_place_or_none_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir, 2);
    let seen = generation(&home);
    std::fs::remove_dir_all(home.join("store")).unwrap();
    is_told(&home, seen, 0, true);
}

#[test]
fn a_store_that_went_on_is_not_taken_for_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir, 3);
    is_not_told(&home);
    // What a kill leaves: the file is behind the store, and never before it.
    let node = Node::start(&home, &[]);
    node.revokes(10..30);
    node.kill();
    is_not_told(&home);
    done(&["compact", "--home", text(&home)]);
    is_not_told(&home);
    let exported = dir.path().join("trust.json");
    done(&["export", "--home", text(&home), "--out", text(&exported)]);
    done(&["import", "--home", text(&home), text(&exported)]);
    // A migration by export and import makes another store, which has come as far.
    std::fs::remove_dir_all(home.join("store")).unwrap();
    done(&["import", "--dir", text(&home.join("store")), text(&exported)]);
    is_not_told(&home);
    done(&["rekey", "--home", text(&home)]);
    is_not_told(&home);
    // A home of a release that wrote no such file.
    std::fs::remove_file(home.join("store.seen")).unwrap();
    is_not_told(&home);
    assert!(home.join("store.seen").exists());
}

#[test]
fn what_a_repair_is_behind_is_told_until_it_is_accepted_and_what_was_given_up_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir, 3);
    let store = home.join("store");
    let damage = |starts: &str| {
        for entry in std::fs::read_dir(&store).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with(starts) {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[20] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
    };
    let (seen, old) = (generation(&home), dir.path().join("old"));
    copy(&store, &old);
    damage("journal-");
    done(&["repair", "--yes", "--home", text(&home)]);
    // The journal is gone, and perhaps it had a revocation.
    let node = Node::start(&home, &[]);
    assert_eq!(node.status()["older_store"]["seen_generation"], seen);
    node.stop();
    Node::start(&home, &["--accept-older-store"]).stop();
    is_not_told(&home);
    // Nor does a repair hide that what it repaired was an older copy.
    put_back(&home, &old);
    damage("journal-");
    done(&["repair", "--yes", "--home", text(&home)]);
    let node = Node::start(&home, &[]);
    assert_ne!(node.status()["older_store"], Value::Null);
    node.stop();
    Node::start(&home, &["--accept-older-store"]).stop();
    for file in ["journal-", "snapshot-", "GENESIS"] {
        damage(file);
    }
    done(&["repair", "--empty", "--yes", "--home", text(&home)]);
    is_not_told(&home);
}

#[test]
fn an_import_into_an_older_copy_or_of_an_older_document_does_not_hide_it() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir, 1);
    let (old, found, exported) = (dir.path().join("old"), generation(&home), dir.path().join("trust.json"));
    copy(&home.join("store"), &old);
    done(&["export", "--home", text(&home), "--out", text(&exported)]);
    let node = Node::start(&home, &[]);
    node.revokes([55]);
    node.stop();
    let seen = generation(&home);
    // A document that takes a store far on.
    let far = dir.path().join("far.json");
    std::fs::write(&far, format!(r#"{{"generation":{},"revoked":[{{"node_id":99}}]}}"#, seen + 100)).unwrap();
    put_back(&home, &old);
    let (code, _, err) = run(&["import", "--home", text(&home), text(&far)]);
    assert!(code == 0 && err.contains("older copy of the store"), "{code}: {err}");
    assert!(generation(&home) > seen);
    is_told(&home, seen, found, false);
    done_with_node(&home, &["--accept-older-store"]);
    // And a new store from a document that is older than what the home had.
    let seen = generation(&home);
    std::fs::remove_dir_all(home.join("store")).unwrap();
    done(&["import", "--home", text(&home), text(&exported)]);
    is_told(&home, seen, found, false);
}

#[test]
fn what_a_recovery_cut_off_is_in_the_log_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir, 1);
    let node = Node::start(&home, &[]);
    node.revokes(50..60);
    node.kill();
    let files = std::fs::read_dir(home.join("store")).unwrap().map(|entry| entry.unwrap().path());
    let newest = files.filter(|path| text(path).contains("/journal-")).max().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    // Part of a change that never became whole.
    let behind = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 64;
    bytes[behind..behind + 16].fill(1);
    std::fs::write(&newest, bytes).unwrap();
    let log = Node::start(&home, &[]).stop();
    let line = log.lines().find(|line| line.contains("the store was recovered")).expect(&log);
    assert!(line.contains("WARN") && line.contains("lossy=false") && !line.contains("torn_bytes=0"), "{line}");
    is_not_told(&home);
}

fn done_with_node(home: &Path, settings: &[&str]) {
    Node::start(home, settings).stop();
}

#[test]
fn whatever_is_wrong_with_the_file_is_a_warning_and_no_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir, 1);
    let file = home.join("store.seen");
    let whole = std::fs::read_to_string(&file).unwrap();
    let starts = |what: &str| {
        let node = Node::start(&home, &[]);
        assert_eq!((&node.status()["older_store"], &node.status()["healthy"]), (&Value::Null, &true.into()), "{what}");
        let log = node.stop();
        assert!(log.lines().any(|line| line.contains("WARN") && line.contains("store.seen")), "{what}: {log}");
    };
    for broken in ["", "\n", "x", &whole[..whole.len() - 1], &whole.replace("newest", "oldest"), &whole.repeat(100)] {
        std::fs::write(&file, broken).unwrap();
        starts(broken);
        // What it is to say stands in it again.
        let (id, generation) = (whole.split(' ').nth(3).unwrap(), generation(&home));
        let expected = format!("trustkeep store.seen 1\nnewest {id} {generation}\n");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
    }
    std::fs::write(&file, [0xff; 100]).unwrap();
    starts("no text");
    let (target, link) = (dir.path().join("elsewhere"), || std::os::unix::fs::symlink("../elsewhere", &file).unwrap());
    std::fs::write(&target, &whole).unwrap();
    std::fs::remove_file(&file).unwrap();
    link();
    starts("a link");
    assert_eq!(std::fs::read_to_string(&target).unwrap(), whole);
    std::fs::remove_file(&file).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RWXU).unwrap();
    starts("a pipe");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    starts("a directory");
    assert!(file.is_dir());
    // Nor does an offline command stumble over it.
    let exported = dir.path().join("trust.json");
    done(&["export", "--home", text(&home), "--out", text(&exported)]);
    done(&["import", "--home", text(&home), text(&exported)]);
    fails(&["repair", "--home", text(&dir.path().join("none"))], &["no such store"]);
}

#[test]
fn it_is_written_at_the_start_and_at_the_end_and_not_by_each_change() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir, 1);
    let file = home.join("store.seen");
    let begun = Instant::now();
    let node = Node::start(&home, &[]);
    let first = std::fs::read_to_string(&file).unwrap();
    node.revokes(100..120);
    let later = std::fs::read_to_string(&file).unwrap();
    // Where that took a minute, it may have been written.
    assert!(later == first || begun.elapsed() > Duration::from_secs(60), "{first}{later}");
    node.stop();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.ends_with(&format!(" {}\n", generation(&home))), "{text}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o600);
    assert!(!home.join("store.seen.tmp").exists());
}
