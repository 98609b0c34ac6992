//! What the tests of the program share: runs of it, homes, and nodes that run.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const LATE: Duration = Duration::from_secs(120);

/// Waits until something has become true, which nobody is woken for.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LATE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn run(args: &[&str]) -> (i32, String, String) {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_trustkeep"));
    let output = command.args(args).timeout(Duration::from_secs(120)).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("killed"), text(output.stdout), text(output.stderr))
}

#[track_caller]
pub fn fails(args: &[&str], words: &[&str]) {
    let (code, out, err) = run(args);
    assert_eq!(code, 1, "{args:?}: {out}{err}");
    assert!(err.lines().any(|line| line.starts_with("trustkeep: ")), "{args:?}: {err}");
    for word in words {
        assert!(err.contains(word), "{args:?}: {word:?} is not in: {err}");
    }
}

/// A command line that makes no sense.
#[track_caller]
pub fn makes_no_sense(args: &[&str], words: &[&str]) {
    let (code, out, err) = run(args);
    assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    for word in words {
        assert!(err.contains(word), "{args:?}: {word:?} is not in: {err}");
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A home that `init` made; says what `init` said.
pub fn init(home: &Path, id: &str) -> Value {
    let (code, out, err) = run(&["init", "--json", "--home", text(home), "--id", id]);
    assert_eq!((code, err.as_str()), (0, ""));
    serde_json::from_str(&out).unwrap()
}

/// A node that runs, and is killed when the test ends.
pub struct Node {
    pub home: PathBuf,
    pub child: Child,
    pub listen: String,
}

impl Node {
    pub fn start(home: &Path, listen: &str) -> Self {
        Self::start_with(home, listen, &[])
    }

    /// With these settings more.
    pub fn start_with(home: &Path, listen: &str, settings: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_trustkeep"))
            .args(["node", "--json", "--home", text(home), "--listen", listen])
            .args(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).expect("it did not start");
        assert_eq!(ready["pid"], child.id());
        Self { home: home.to_owned(), child, listen: ready["listen"].as_str().unwrap().to_owned() }
    }

    pub fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let (command, rest) = args.split_first().unwrap();
        [&[*command, "--home", text(&self.home)], rest].concat()
    }

    /// The command is done, or the answer is yes.
    #[track_caller]
    pub fn does(&self, args: &[&str]) {
        let (code, out, err) = run(&self.args(args));
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
    }

    #[track_caller]
    pub fn refuses(&self, args: &[&str], words: &[&str]) {
        fails(&self.args(args), words);
    }

    #[track_caller]
    pub fn shows(&self, listing: &str) -> Value {
        let (code, out, err) = run(&self.args(&[listing, "--json"]));
        assert_eq!((code, err.as_str()), (0, ""), "{listing}");
        serde_json::from_str(&out).unwrap()
    }

    #[track_caller]
    pub fn ids(&self, listing: &str, table: &str) -> Vec<u64> {
        self.shows(listing)[table].as_array().unwrap().iter().map(|row| row["node_id"].as_u64().unwrap()).collect()
    }

    pub fn signal(mut self, name: &str) -> ExitStatus {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nodes 7 and 9, with each other's keys (but no networks) in their peers files.
pub fn pair(dir: &TempDir) -> (Node, Node) {
    let (homes, addresses) = homes(dir, |key| format!("public_key = \"{key}\"\n"));
    (Node::start(&homes[0], &addresses[0]), Node::start(&homes[1], &addresses[1]))
}

/// The homes of nodes 7 and 9 and where they are to listen. Each peers file has the other's address, and what `about` says
/// of its key.
pub fn homes(dir: &TempDir, about: impl Fn(&str) -> String) -> ([PathBuf; 2], [String; 2]) {
    let homes = [dir.path().join("seven"), dir.path().join("nine")];
    let keys = [init(&homes[0], "7"), init(&homes[1], "9")].map(|made| made["public_key"].as_str().unwrap().to_owned());
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = [free(), free()];
    let addresses = listeners.map(|listener| listener.local_addr().unwrap().to_string());
    for (home, peer) in [(0, 1), (1, 0)] {
        let (id, address, key) = ([7, 9][peer], &addresses[peer], &keys[peer]);
        let peers = format!("[[peer]]\nid = {id}\naddress = \"{address}\"\n{}", about(key));
        std::fs::write(homes[home].join("peers.toml"), peers).unwrap();
    }
    (homes, addresses)
}

/// The signals that stop a program in good order. Where the tests themselves were started with SIGHUP ignored, as under
/// `nohup`, so is the program, which then goes on.
pub fn stopping_signals() -> &'static [&'static str] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    if ignored.is_some_and(|mask| mask & 1 == 1) { &["TERM", "INT"] } else { &["TERM", "INT", "HUP"] }
}
