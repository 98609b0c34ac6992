//! A peers file that is changed by hand while its node runs: written in place, replaced, broken, mended, opened to others;
//! what is not taken up stands in `status` until it is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::fs::{File, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use program::{init, run, text};

struct Node {
    home: PathBuf,
    child: Child,
    log: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    fn start(home: &Path) -> Self {
        let log = home.join("log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_trustkeep"))
            .args(["node", "--json", "--home", text(home), "--listen", "127.0.0.1:0"])
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

    /// Where the running node takes this peer to be.
    fn address(&self, peer: u32) -> Value {
        let (_, out, _) = run(&["show", "--home", text(&self.home), &peer.to_string(), "--json"]);
        serde_json::from_str::<Value>(&out).unwrap()["registry"]["address"].clone()
    }

    /// What `status` says of the file, once the look that noticed it is over; whether the node is healthy; and whether
    /// `--check` says so.
    fn refused(&self) -> (Value, bool) {
        // In one call: the file is looked at by a thread of the node.
        let (code, out, _) = run(&["status", "--home", text(&self.home), "--json", "--check"]);
        let status: Value = serde_json::from_str(&out).unwrap();
        let healthy = status["healthy"].as_bool().unwrap();
        assert_eq!(code, i32::from(!healthy), "{status}");
        (status["peers_file_refused"].clone(), healthy)
    }

    #[track_caller]
    fn comes_to_refuse(&self, file: &Path, why: &str) {
        let says = |it: &Value| it["error"].as_str().is_some_and(|error| error.contains(why));
        self.comes_to(why, || says(&self.refused().0));
        let (refused, healthy) = self.refused();
        assert!(!healthy && refused["path"] == text(file) && refused["at"].as_i64() > Some(1_600_000_000_000));
    }

    #[track_caller]
    fn comes_to_refuse_nothing(&self) {
        self.comes_to("the file counts", || self.refused() == (Value::Null, true));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    #[track_caller]
    fn comes_to_say(&self, what: &str) {
        self.comes_to(what, || self.log().contains(what));
    }

    #[track_caller]
    fn comes_to(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn stanza(port: u16) -> String {
    format!("[[peer]]\nid = 9\naddress = \"127.0.0.1:{port}\"\n")
}

#[test]
fn a_change_by_hand_is_taken_up_and_nothing_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let file = home.join("peers.toml");
    let node = Node::start(&home);
    let is_at = |port: u16| node.comes_to(&format!("port {port}"), || node.address(9) == format!("127.0.0.1:{port}"));
    // In its place, as an editor may; and in the place of it, as another does.
    std::fs::write(&file, stanza(1001)).unwrap();
    is_at(1001);
    let beside = home.join("peers.toml.new");
    std::fs::write(&beside, stanza(1002)).unwrap();
    std::fs::rename(&beside, &file).unwrap();
    is_at(1002);
    // Of the same length and at once after it was read: what tells them apart is the time.
    std::fs::write(&file, stanza(1003)).unwrap();
    is_at(1003);

    std::fs::write(&file, format!("{}colour = 1\n", stanza(1004))).unwrap();
    node.comes_to_refuse(&file, "line 4");
    node.comes_to_say("line 4");
    assert_eq!(node.address(9), "127.0.0.1:1003", "{}", node.log());
    // Said once, however long it stays so.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(node.log().matches("line 4").count(), 1, "{}", node.log());
    std::fs::write(&file, stanza(1005)).unwrap();
    is_at(1005);
    node.comes_to_refuse_nothing();

    // What anybody may change is nobody's word.
    std::fs::write(&beside, stanza(1006)).unwrap();
    std::fs::set_permissions(&beside, Permissions::from_mode(0o666)).unwrap();
    std::fs::rename(&beside, &file).unwrap();
    node.comes_to_say("lets everybody change it");
    node.comes_to_refuse(&file, "lets everybody change it");
    assert_eq!(node.address(9), "127.0.0.1:1005");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    is_at(1006);
    node.comes_to_refuse_nothing();
    // Where the way to it is open to others, the file is as good as open; and once the way is shut, it counts as it is.
    std::fs::set_permissions(&home, Permissions::from_mode(0o777)).unwrap();
    std::fs::write(&file, stanza(1106)).unwrap();
    node.comes_to_refuse(&file, "chmod");
    std::fs::set_permissions(&home, Permissions::from_mode(0o700)).unwrap();
    is_at(1106);
    node.comes_to_refuse_nothing();

    std::fs::remove_file(&file).unwrap();
    node.comes_to_say("No such file");
    node.comes_to_refuse(&file, "No such file");
    assert_eq!(node.address(9), "127.0.0.1:1106");
    // A pipe is not waited for: what comes in its place is taken up.
    assert!(std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&file).status().unwrap().success());
    node.comes_to_say("not a regular file");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, stanza(1007)).unwrap();
    is_at(1007);
    // The command is as quick as ever, and its change is no news to who looks.
    let read = || node.log().matches("was read again").count();
    let before = read();
    let (code, _, err) = run(&["peer", "add", "--home", text(&home), "10", "--address", "127.0.0.1:1010"]);
    assert_eq!((code, node.address(10)), (0, "127.0.0.1:1010".into()), "{err}");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(read(), before + 1, "{}", node.log());
}

/// As a configuration that is mounted is changed: the link is led elsewhere, and then back.
#[test]
fn a_file_that_is_put_back_is_refused_no_longer_though_it_is_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let (file, good, bad) = (home.join("peers.toml"), home.join("good.toml"), home.join("bad.toml"));
    std::fs::write(&good, stanza(1001)).unwrap();
    std::fs::write(&bad, "colour = 1\n").unwrap();
    let lead_to = |there: &Path| {
        let beside = home.join("beside");
        symlink(there, &beside).unwrap();
        std::fs::rename(&beside, &file).unwrap();
    };
    lead_to(&good);
    let node = Node::start(&home);
    for _ in 0..2 {
        lead_to(&bad);
        node.comes_to_refuse(&file, "line 1");
        lead_to(&good);
        node.comes_to_refuse_nothing();
        assert_eq!(node.address(9), "127.0.0.1:1001");
    }
    // It was not read again: it counted all the time.
    assert!(!node.log().contains("was read again"), "{}", node.log());
}
