//! A node's new key, by the program:
//!
//! - the peer shows it as proven by the old key, keeps the old one meanwhile, and hears the old one no more once the new one
//!   is approved;
//! - a peer that takes new keys needs nobody;
//! - `rekey` is refused beside a running node and where none lives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use program::{Node, fails, homes, init, run, text};

/// The homes of nodes 7 and 9, which trust each other, and where they listen. No peers file has a key.
fn friends(dir: &TempDir) -> ([PathBuf; 2], [String; 2]) {
    let (homes, addresses) = homes(dir, |_| String::new());
    let (seven, nine) = (Node::start(&homes[0], &addresses[0]), Node::start(&homes[1], &addresses[1]));
    ask(&seven, &nine, &[]);
    approve(&nine, 7);
    // Nothing vouches for the answer's key either.
    seven.does(&["wait", "9", "--until", "pending"]);
    approve(&seven, 9);
    seven.does(&["wait", "9"]);
    stop(seven);
    stop(nine);
    (homes, addresses)
}

fn stop(node: Node) {
    assert_eq!(node.signal("TERM").code(), Some(0));
}

fn ask(from: &Node, to: &Node, more: &[&str]) {
    from.does(&[&["request", "9"], more].concat());
    to.does(&["wait", "7", "--until", "pending"]);
}

fn row(node: &Node, peer: u64) -> Value {
    let shown = node.shows("pending");
    let rows = shown["pending"].as_array().unwrap();
    rows.iter().find(|row| row["node_id"] == peer).expect("it waits").clone()
}

fn approve(node: &Node, peer: u64) {
    let fingerprint = row(node, peer)["fingerprint"].as_str().unwrap().to_owned();
    node.does(&["approve", &peer.to_string(), &fingerprint]);
}

fn rekey(home: &Path) -> Value {
    let (code, out, err) = run(&["rekey", "--json", "--home", text(home)]);
    assert_eq!((code, err.as_str()), (0, ""));
    serde_json::from_str(&out).unwrap()
}

fn trusted_as(node: &Node) -> Value {
    node.shows("list")["trusted"][0]["fingerprint"].clone()
}

#[test]
fn a_new_key_is_shown_as_proven_and_approved_and_the_old_one_is_heard_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let ([seven_home, nine_home], [seven_at, nine_at]) = friends(&dir);
    let backup = std::fs::read(seven_home.join("identity.key")).unwrap();
    let made = rekey(&seven_home);
    assert_ne!(made["fingerprint"], made["old_fingerprint"]);

    let nine = Node::start(&nine_home, &nine_at);
    let seven = Node::start(&seven_home, &seven_at);
    assert_eq!(seven.shows("status")["fingerprint"], made["fingerprint"]);
    assert_eq!(trusted_as(&nine), made["old_fingerprint"]);
    ask(&seven, &nine, &["--force"]);
    let waiting = row(&nine, 7);
    assert_eq!((&waiting["fingerprint"], &waiting["proven_by"]), (&made["fingerprint"], &made["old_fingerprint"]));
    let (code, out, _) = run(&nine.args(&["pending"]));
    let proven = format!("proven by the old key {}", made["old_fingerprint"].as_str().unwrap());
    assert!(code == 0 && out.contains(&proven), "{out}");
    assert_eq!(trusted_as(&nine), made["old_fingerprint"], "the old record stands meanwhile");
    // A refusal of it would hold for good.
    nine.refuses(&["reject", "7"], &["has signed over to the key", "name the fingerprint"]);
    approve(&nine, 7);
    assert_eq!(trusted_as(&nine), made["fingerprint"]);
    seven.does(&["wait", "9"]);
    stop(seven);

    // From a backup, with a store of its own: the old key again.
    let thief_home = dir.path().join("thief");
    std::fs::create_dir(&thief_home).unwrap();
    std::fs::copy(seven_home.join("peers.toml"), thief_home.join("peers.toml")).unwrap();
    std::fs::write(thief_home.join("identity.key"), backup).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(thief_home.join("identity.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let thief = Node::start(&thief_home, &seven_at);
    thief.does(&["request", "9"]);
    let counted = |name: &str| {
        let status = nine.shows("status");
        let counters = status["counters"].as_array().unwrap().clone();
        counters.iter().any(|counter| counter[0] == name)
    };
    let begun = std::time::Instant::now();
    while !counted("key_replaced") {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "the old key was not refused");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!((trusted_as(&nine), nine.ids("pending", "pending")), (made["fingerprint"].clone(), vec![]));
}

#[test]
fn a_new_key_that_is_revoked_while_it_waits_is_void_when_the_mark_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let ([seven_home, nine_home], [seven_at, nine_at]) = friends(&dir);
    let made = rekey(&seven_home);
    let nine = Node::start(&nine_home, &nine_at);
    let seven = Node::start(&seven_home, &seven_at);
    ask(&seven, &nine, &["--force"]);
    let waiting = row(&nine, 7);
    assert_eq!((&waiting["proven_by"], &waiting["void"]), (&made["old_fingerprint"], &Value::Null));
    let key = waiting["public_key"].as_str().unwrap();
    nine.does(&["revoke", "--key", key]);
    assert_eq!((nine.ids("pending", "pending"), trusted_as(&nine)), (vec![], made["old_fingerprint"].clone()));
    nine.does(&["unrevoke", "--key", key]);
    ask(&seven, &nine, &["--force"]);
    let waiting = row(&nine, 7);
    assert_eq!((&waiting["proven_by"], &waiting["void"]), (&Value::Null, &Value::from("revoked")));
}

#[test]
fn a_new_key_is_told_to_trusted_peers_by_itself_and_status_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    let ([seven_home, nine_home], [seven_at, nine_at]) = friends(&dir);
    let made = rekey(&seven_home);
    let nine = Node::start(&nine_home, &nine_at);
    let seven = Node::start_with(&seven_home, &seven_at, &["--no-announce"]);
    assert_eq!(seven.shows("status")["announcement"], Value::Null);
    stop(seven);
    assert!(nine.ids("pending", "pending").is_empty(), "switched off");

    let seven = Node::start(&seven_home, &seven_at);
    nine.does(&["wait", "7", "--until", "pending"]);
    assert_eq!(row(&nine, 7)["proven_by"], made["old_fingerprint"]);
    let told = |node: &Node, told: u64, owed: u64| {
        let begun = std::time::Instant::now();
        while node.shows("status")["announcement"] != serde_json::json!({"told": told, "owed": owed}) {
            let status = node.shows("status");
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{}", status["announcement"]);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    told(&seven, 1, 0);
    let (code, out, _) = run(&seven.args(&["status"]));
    assert!(code == 0 && out.contains("new key      1 peers told, 0 not yet"), "{out}");
    approve(&nine, 7);
    let begun = std::time::Instant::now();
    while !seven.ids("outgoing", "outgoing").is_empty() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "it was not answered");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    stop(seven);
    let seven = Node::start(&seven_home, &seven_at);
    told(&seven, 1, 0);
    assert!(seven.ids("outgoing", "outgoing").is_empty(), "told already");
}

#[test]
fn a_node_that_takes_new_keys_needs_nobody_and_one_that_refuses_them_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ([seven_home, nine_home], [seven_at, nine_at]) = friends(&dir);
    let first = rekey(&seven_home);
    let nine = Node::start_with(&nine_home, &nine_at, &["--on-rotation", "take"]);
    let seven = Node::start(&seven_home, &seven_at);
    seven.does(&["request", "9", "--force"]);
    let begun = std::time::Instant::now();
    while trusted_as(&nine) != first["fingerprint"] {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "the new key was not taken");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    stop(seven);
    stop(nine);

    rekey(&seven_home);
    let nine = Node::start_with(&nine_home, &nine_at, &["--on-rotation", "refuse"]);
    let seven = Node::start(&seven_home, &seven_at);
    seven.does(&["request", "9", "--force"]);
    let begun = std::time::Instant::now();
    let refused = |node: &Node| {
        let status = node.shows("status");
        status["counters"].as_array().unwrap().iter().any(|counter| counter[0] == "rotation_refused")
    };
    while !refused(&nine) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "the new key was not refused");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!((trusted_as(&nine), nine.ids("pending", "pending")), (first["fingerprint"].clone(), vec![]));
}

#[test]
fn a_node_that_starts_while_its_key_is_replaced_gets_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    // Stopped somewhere between its start and the lock on its store: before it looks at its identity, or behind that.
    let mut replaced = 0;
    for millis in 0..40 {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_trustkeep"))
            .args(["node", "--json", "--home", text(&home), "--listen", "127.0.0.1:0"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        std::thread::sleep(std::time::Duration::from_millis(millis));
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let (code, out, err) = run(&["rekey", "--json", "--home", text(&home)]);
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).expect("it starts");
        let (_, shown, _) = run(&["status", "--json", "--home", text(&home)]);
        let (_, id, _) = run(&["id", "--json", "--home", text(&home)]);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap()["fingerprint"].clone();
        assert_eq!(value(&shown), value(&id), "{ready}");
        if code != 0 {
            assert!(err.contains("in use"), "{err}");
            break;
        }
        assert_eq!(value(&shown), value(&out));
        replaced += 1;
    }
    assert!(replaced > 0, "it was always too late");
}

#[test]
fn rekey_is_refused_beside_a_running_node_and_where_no_node_lives() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    fails(&["rekey", "--home", text(&home)], &["trustkeep init"]);
    assert!(!home.exists());
    init(&home, "7");
    let before = std::fs::read(home.join("identity.key")).unwrap();
    let node = Node::start(&home, "127.0.0.1:0");
    fails(&["rekey", "--home", text(&home)], &["in use", "stop that process first"]);
    assert_eq!(std::fs::read(home.join("identity.key")).unwrap(), before);
    assert_eq!(
        std::fs::read_dir(&home)
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
                name.starts_with("identity.key")
            })
            .count(),
        1
    );
    stop(node);
    let (code, out, err) = run(&["rekey", "--home", text(&home)]);
    assert!((code, err.as_str()) == (0, "") && out.contains("--force"), "{out}{err}");
    assert_ne!(std::fs::read(home.join("identity.key")).unwrap(), before);
    // And where no node has run yet.
    let other = dir.path().join("other");
    init(&other, "8");
    rekey(&other);
    stop(Node::start(&other, "127.0.0.1:0"));
}

#[test]
fn who_is_trusted_by_the_word_of_a_revoked_key_is_named() {
    for rule in ["take", "ask"] {
        let dir = tempfile::tempdir().unwrap();
        let ([seven_home, nine_home], [seven_at, nine_at]) = friends(&dir);
        let nine = Node::start_with(&nine_home, &nine_at, &["--on-rotation", rule]);
        let old = nine.shows("list")["trusted"][0]["public_key"].as_str().unwrap().to_owned();
        let made = rekey(&seven_home);
        let seven = Node::start_with(&seven_home, &seven_at, &["--no-announce"]);
        seven.does(&["request", "9", "--force"]);
        if rule == "ask" {
            nine.does(&["wait", "7", "--until", "pending"]);
            approve(&nine, 7);
        }
        let begun = std::time::Instant::now();
        while trusted_as(&nine) != made["fingerprint"] {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "the new key is not trusted");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(nine.shows("list")["trusted"][0]["named_by_revoked"], Value::Null);
        let (code, out, err) = run(&nine.args(&["revoke", "--json", "--key", &old]));
        let found = serde_json::from_str::<Value>(&out).unwrap()["results"][0]["found"].as_str().unwrap().to_owned();
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(found.contains("nobody was trusted under it; peer 7 is still trusted, under a key that"), "{found}");
        let of_list = nine.shows("list")["trusted"][0]["named_by_revoked"].clone();
        assert_eq!(of_list, made["old_fingerprint"]);
        let (_, out, _) = run(&nine.args(&["show", "--json", "7"]));
        assert_eq!(
            serde_json::from_str::<Value>(&out).unwrap()["trusted"]["named_by_revoked"],
            made["old_fingerprint"]
        );
        for listing in [&["list"][..], &["show", "7"]] {
            let (_, out, _) = run(&nine.args(listing));
            let warning = format!("the revoked key {} had named", made["old_fingerprint"].as_str().unwrap());
            assert!(out.contains(&warning), "{out}");
        }
        // An operator has asked for the fingerprint, and says so.
        let key = nine.shows("list")["trusted"][0]["public_key"].as_str().unwrap().to_owned();
        nine.does(&["grant", "7", &key]);
        assert_eq!(nine.shows("list")["trusted"][0]["named_by_revoked"], Value::Null);
        let (_, out, _) = run(&nine.args(&["list"]));
        assert!(!out.contains("WARNING"), "{out}");
    }
}
