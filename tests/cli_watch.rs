//! `watch`, the listings of a running node, and what is generated from the command line:
//!
//! - after its first line a watch misses nothing, tells in the order in which things happened, and ends when told to;
//! - listings show ages, and warn of a peer that showed more than one key;
//! - completions and manual pages name every command.
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
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use program::{Node, fails, init, pair, run, text};

/// A watch, mostly one whose first line has come.
struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn begin(node: &Node, args: &[&str]) -> Self {
        let mut watch = Self::start(node, args);
        let first = watch.line();
        assert!(first.contains("watching"), "{first}");
        watch
    }

    /// The same where the time may be over before the first line comes.
    fn start(node: &Node, args: &[&str]) -> Self {
        let args = [node.args(&["watch"]), args.to_vec()].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trustkeep"));
        command.args(&args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Self { lines: BufReader::new(child.stdout.take().unwrap()), child }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    fn json(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }

    /// The next event's topic, peer and payload.
    fn event(&mut self) -> (String, Value, Value) {
        let event = self.json();
        assert!(event["at"].as_i64().unwrap() > 1_700_000_000_000);
        (event["topic"].as_str().unwrap().to_owned(), event["peer_node_id"].clone(), event["payload"].clone())
    }

    /// The exit code, and what was said on standard error.
    fn end(mut self) -> (i32, String) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let code = self.child.wait().unwrap().code().expect("killed");
        (code, std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap())
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_watch_tells_everything_in_order_and_ends_after_so_many() {
    let dir = tempfile::tempdir().unwrap();
    let (seven, nine) = pair(&dir);
    let mut of_seven = Watch::begin(&seven, &["--json", "--count", "1", "--timeout", "60"]);
    let mut of_nine = Watch::begin(&nine, &["--json", "--count", "6", "--timeout", "60"]);
    let mut in_words = Watch::begin(&nine, &["--count", "6", "--timeout", "60"]);
    seven.does(&["request", "9", "weather feed"]);
    nine.does(&["wait", "7", "--until", "pending"]);
    nine.does(&["approve", "7"]);
    seven.does(&["wait", "9"]);
    nine.does(&["revoke", "7"]);
    let fingerprint = seven.shows("status")["fingerprint"].clone();
    let trust = |state: &str, reason: &str| json!({"state": state, "reason": reason});
    for (topic, payload) in [
        ("handshake.received", json!({"justification": "weather feed"})),
        (
            "handshake.pending",
            json!({"justification": "weather feed", "fingerprint": fingerprint, "replaces": null, "proven_by": null}),
        ),
        ("handshake.approved", json!({})),
        ("trust.changed", trust("granted", "approved")),
        ("trust.revoked", json!({})),
        ("trust.changed", trust("revoked", "revoked")),
    ] {
        assert_eq!(of_nine.event(), (topic.to_owned(), 7.into(), payload));
        let line = in_words.line();
        assert!(
            line.starts_with("20")
                && line.contains(&format!("Z  {topic} "))
                && !line.contains(" \n")
                && line.contains("  peer 7"),
            "{line}"
        );
        if topic == "handshake.pending" {
            assert!(line.contains("  fingerprint=\"") && !line.contains("weather"), "{line}");
        }
        if topic.ends_with("received") || topic.ends_with("pending") {
            assert_eq!(in_words.line(), "      why | \"weather feed\"\n");
        }
    }
    assert_eq!(of_nine.end(), (0, String::new()));
    assert_eq!(in_words.end(), (0, String::new()));
    assert_eq!(of_seven.event(), ("trust.changed".to_owned(), 9.into(), trust("granted", "accepted")));
    // One was asked for, though more came.
    assert_eq!((of_seven.line(), of_seven.end()), (String::new(), (0, String::new())));
}

#[test]
fn a_watch_ends_by_time_by_signal_and_with_its_node() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    fails(&["watch", "--home", text(&home)], &["no node runs in", "trustkeep node --home"]);
    let node = Node::start(&home, "127.0.0.1:0");
    let begun = Instant::now();
    assert_eq!(Watch::start(&node, &["--timeout", "0.2"]).end(), (0, String::new()));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    // So many did not come in time.
    assert_eq!(Watch::start(&node, &["--timeout", "0.2", "--count", "1"]).end(), (1, String::new()));
    for signal in ["INT", "TERM"] {
        let watch = Watch::begin(&node, &["--count", "1"]);
        watch.signal(signal);
        assert_eq!(watch.end(), (0, String::new()), "{signal}");
    }
    let watch = Watch::begin(&node, &[]);
    assert_eq!(node.signal("TERM").code(), Some(0));
    let (code, err) = watch.end();
    assert!(code == 1 && err.contains("the node is stopping"), "{err}");
    let node = Node::start(&home, "127.0.0.1:0");
    let watch = Watch::begin(&node, &["--json"]);
    assert_eq!(node.signal("KILL").code(), None);
    let (code, err) = watch.end();
    assert!(code == 1 && err.contains("went away"), "{err}");
    for args in [&["watch"][..], &["watch", "--home", "h", "--count", "0"], &["watch", "--home", "h", "--timeout", "x"]]
    {
        assert_eq!(run(args).0, 2, "{args:?}");
    }
}

#[test]
fn a_watcher_that_reads_nothing_is_told_how_much_it_missed_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let _node = Node::start(&home, "127.0.0.1:0");
    let socket = home.join("control.sock");
    let mut watch = UnixStream::connect(&socket).unwrap();
    std::io::Write::write_all(&mut watch, b"{\"ask\":\"watch\"}\n").unwrap();
    let mut lines = BufReader::new(watch);
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.contains("watching"), "{line}");
    // Almost nothing is read until more has happened than the socket and the queue hold together.
    let ask = |request: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        reply
    };
    // Each is asked and revoked: one event, of which the peer hears nothing.
    let happen = |number: u64| {
        let peer = 1000 + number;
        ask(&format!(
            "{{\"ask\":\"request\",\"peer\":{peer},\"justification\":\"\",\"expected_key\":null,\"force\":false}}\n"
        ));
        assert!(ask(&format!("{{\"ask\":\"revoke\",\"peer\":{peer}}}\n")).contains("decided"));
    };
    let told = 1500;
    // A little is read now and then: a node gives up a watcher who reads nothing for two minutes, which a busy machine may need.
    let mut read = lines.buffer().to_vec();
    let mut watch = lines.into_inner();
    for number in 0..told {
        happen(number);
        if number % 50 == 49 {
            let mut some = [0; 256];
            let len = std::io::Read::read(&mut watch, &mut some).unwrap();
            read.extend_from_slice(&some[..len]);
        }
    }
    // Nothing more happens, and all of it is accounted for nevertheless.
    watch.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut lines = BufReader::new(std::io::Read::chain(&read[..], watch));
    let (mut seen, mut lost) = (0, 0);
    line.clear();
    while seen + lost < told {
        assert!(lines.read_line(&mut line).is_ok(), "{seen} seen, {lost} lost");
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"));
        match event["topic"].as_str() {
            Some("trust.revoked") => {
                assert_eq!(event["peer_node_id"], 1000 + seen + lost, "after {lost} lost");
                seen += 1;
            }
            Some("lagged") => lost += event["payload"]["lost"].as_u64().unwrap(),
            _ => panic!("{line}"),
        }
        line.clear();
    }
    assert!(seen > 0 && lost > 0, "{seen} seen, {lost} lost");
}

#[test]
fn listings_show_ages_and_warn_of_a_second_key() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let (one, other) = ("0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=", "5zTqbCtiV95yNV5HKqBaTEh+a0Y8Ap7TBt8vAbVja1g=");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let day = 86_400_000;
    let ago = |millis: i64| {
        let status = Command::new("date")
            .args(["-u", "-d", &format!("@{}", now.as_secs() as i64 - millis / 1000), "+%Y-%m-%dT%H:%M:%SZ"])
            .output()
            .unwrap();
        String::from_utf8(status.stdout).unwrap().trim().to_owned()
    };
    let document = json!({
        "trusted": [{"node_id": 3, "approved_at": ago(40 * day)}, {"node_id": 4}],
        "pending": [
            {"node_id": 5, "public_key": one, "received_at": ago(5 * 3_600_000), "conflicts": 3, "source": "192.0.2.1"},
            {"node_id": 6, "public_key": other, "received_at": ago(600_000), "source": "node 12", "justification": "hello"},
        ],
        "outgoing": [{"node_id": 8, "nonce": "Hh4eHh4eHh4eHh4eHh4eHg==", "sent_at": ago(3 * day), "justification": "please"}],
        "revoked": [{"node_id": 9, "revoked_at": ago(50 * day)}],
    });
    let file = dir.path().join("trust.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let (code, _, err) = run(&["import", "--home", text(&home), text(&file)]);
    assert_eq!((code, err.as_str()), (0, ""));
    let node = Node::start(&home, "127.0.0.1:0");
    let table = |command: &str| {
        let (code, out, err) = run(&node.args(&[command]));
        assert_eq!((code, err.as_str()), (0, ""));
        out
    };
    let has = |out: &str, words: &[&str]| {
        for word in words {
            assert!(out.contains(word), "{word:?} is not in: {out}");
        }
    };
    has(&table("list"), &["ID  APPROVED", "  AGE ", "  40 d  no", "4   -                         -     no"]);
    let pending = table("pending");
    has(&pending, &["  5 h     192.0.2.1", "  10 min  node 12", "  request\n      why | \"hello\"\n", "VOUCHED"]);
    has(&pending, &["WARNING: peer 5 showed another key as well, 3 times.", "`trustkeep approve --home "]);
    assert!(!pending.contains("WARNING: peer 6"), "{pending}");
    has(&table("outgoing"), &["  3 d  -", "\n      why | \"please\"\n"]);
    has(&table("revoked"), &["  50 d"]);
    node.refuses(&["approve", "5"], &["peer 5", "fingerprint"]);
    let fingerprint = node.shows("pending")["pending"][0]["fingerprint"].as_str().unwrap().to_owned();
    node.does(&["approve", "5", &fingerprint]);
    node.refuses(&["approve", "6"], &["peer 6", "fingerprint"]);
    let fingerprint = node.shows("pending")["pending"][0]["fingerprint"].as_str().unwrap().to_owned();
    node.does(&["approve", "6", &fingerprint]);
    assert_eq!(run(&node.args(&["pending"])).1, "no pending peers\n");
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, 0);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert!(commands.len() >= 24 && commands.contains(&"watch") && commands.contains(&"import"), "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, err) = run(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    assert_eq!(run(&["completions", "csh"]).0, 2);

    let (code, page, _) = run(&["man"]);
    assert!(code == 0 && page.contains(".TH trustkeep 1"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(&["man", "--out", text(dir.path())]), (0, String::new(), String::new()));
    for command in &commands {
        assert!(page.contains(&format!("trustkeep\\-{command}(1)")), "{command}: {page}");
        let own = std::fs::read_to_string(dir.path().join(format!("trustkeep-{command}.1"))).unwrap();
        assert!(own.contains(command) && own.contains(".SH SYNOPSIS"), "{own}");
        for section in ["EXAMPLES", "FILES", "EXIT STATUS", "SEE ALSO"] {
            assert!(own.contains(&format!(".SH {section}\n")), "{section}: {own}");
        }
        // Options stand with their values.
        assert!(!own.contains("<\\-\\-home>"), "{own}");
    }
    let node = std::fs::read_to_string(dir.path().join("trustkeep-node.1")).unwrap();
    for words in [".SH EXAMPLES", ".SH FILES", "HOME/identity.key", "\\-\\-home <HOME>", "trustkeep\\-peers(5)"] {
        assert!(node.contains(words), "{words}: {node}");
    }
    let peers = std::fs::read_to_string(dir.path().join("trustkeep-peers.5")).unwrap();
    for words in [".TH trustkeep-peers 5", "public_key", "[[peer]]", ".SH WHO MAY WRITE TO IT", "\\-\\-trusted\\-group"]
    {
        assert!(peers.contains(words), "{words}: {peers}");
    }
    // The program, each command, those of `peer`, and the peers file.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1 + commands.len() + 3 + 1);
    fails(&["man", "--out", "/nonexistent"], &["/nonexistent: ", "a directory that exists"]);
}
