//! The program and what it is connected to: standard output and error that are closed, full or never read, and signals.
//!
//! - a node whose standard error takes nothing answers, serves its operator, and stops in good order;
//! - a node whose ready line cannot be written runs on;
//! - the exit code of every command is its answer, whatever becomes of its standard output;
//! - SIGHUP ends in good order, unless the program was started with it ignored; a second signal changes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use trustkeep::NodeId;
use trustkeep::clock::{Clock as _, SystemClock};
use trustkeep::machine::view::Nonce;
use trustkeep::node::{FileIdentity, Identity as _};
use trustkeep::wire::message::Kind;
use trustkeep::wire::sign::{Draft, sign_draft};

use program::{LATE, Node, eventually, homes, init, run, stopping_signals, text};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trustkeep");

/// A pipe that takes not one byte more until its other end is read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    for size in [4096, 1] {
        while writer.write(&vec![b'.'; size]).is_ok() {}
    }
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// A pipe that nobody will ever read.
fn closed_pipe() -> Stdio {
    io::pipe().unwrap().1.into()
}

/// A disk that is full.
fn full_disk() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// The exit code; a process that does not end is killed, and fails the test.
#[track_caller]
fn end(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begun.elapsed() > LATE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
}

/// A node that serves, wherever its standard output and error lead. `through` are words of a command that starts it.
fn start(home: &Path, listen: &str, through: &[&str], out: Stdio, err: Stdio) -> Node {
    let words = [through, &[PROGRAM, "node", "--json", "--home", text(home), "--listen", listen]].concat();
    let child = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
    let mut node = Node { home: home.to_owned(), child, listen: listen.to_owned() };
    eventually("the node does not serve", || {
        assert!(node.child.try_wait().unwrap().is_none(), "the node ended");
        run(&node.args(&["status"])).0 == 0
    });
    node
}

/// Messages that are dropped, each for a reason with a name of its own, by whom a stranger with node id 21 sends them.
fn bad_messages() -> Vec<Vec<u8>> {
    let stranger = FileIdentity::from_seed(NodeId::new(21).unwrap(), &[21; 32]).unwrap();
    let signed = |kind| {
        let draft = Draft {
            to: NodeId::new(7).unwrap(),
            kind,
            justification: String::new(),
            reason: String::new(),
            nonce: Nonce([7; 16]),
            answers: (kind == Kind::Accept).then_some(Nonce([8; 16])),
            stamp: SystemClock.now().wall,
            for_key: None,
        };
        sign_draft(stranger.node_id(), &stranger.public_key(), &draft, |bytes| stranger.sign(bytes)).to_json()
    };
    let request = String::from_utf8(signed(Kind::Request)).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(request.contains(from), "{from}: {request}");
        request.replacen(from, to, 1).into_bytes()
    };
    let short = |sender: u32, seconds: i64| {
        format!(r#"{{"type":"handshake_request","node_id":{sender},"timestamp":{seconds}}}"#).into_bytes()
    };
    let seconds = SystemClock.now().wall.as_secs();
    vec![
        b"{".to_vec(),
        changed("handshake_request", "handshake"),
        short(21, 1),
        short(21, seconds + 3600),
        short(0, seconds),
        short(7, seconds),
        short(21, seconds),
        changed("\"v\":2", "\"v\":3"),
        changed("\"public_key\":\"", "\"public_key\":\"x"),
        changed("\"nonce\":\"", "\"nonce\":\"x"),
        changed("\"justification\":\"", "\"justification\":\"x"),
        signed(Kind::Accept),
        signed(Kind::Revoke),
    ]
}

fn deliver(address: &str, message: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LATE)).unwrap();
    stream.write_all(message).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // Closed before the message is handled, so that this does not wait for that.
    let _ = stream.read(&mut [0]);
}

#[test]
fn a_node_whose_log_is_stuck_answers_and_stops_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let (homes, addresses) = homes(&dir, |key| format!("public_key = \"{key}\"\n"));
    let nine = Node::start(&homes[1], &addresses[1]);
    let (_reader, writer) = full_pipe();
    let mut seven = start(&homes[0], &addresses[0], &[], Stdio::null(), writer.into());
    // Each kind is logged once a second, by the thread that handles the message; there are 128 of those.
    let kinds = bad_messages().len();
    for _ in 0..=128 / kinds + 1 {
        bad_messages().iter().for_each(|message| deliver(&seven.listen, message));
        std::thread::sleep(Duration::from_millis(1010));
    }
    let names = || seven.shows("status")["counters"].as_array().unwrap().len();
    eventually("some kinds were not counted", || names() >= kinds);
    nine.does(&["request", "7", "weather feed"]);
    seven.does(&["wait", "9", "--until", "pending", "--timeout", "60"]);
    assert_eq!(seven.ids("pending", "pending"), [9]);
    seven.does(&["approve", "9"]);
    nine.does(&["wait", "7", "--timeout", "60"]);
    send(&seven.child, "TERM");
    assert_eq!(end(&mut seven.child), Some(0));
    assert!(!homes[0].join("control.sock").exists());
    assert_eq!(run(&["verify", "--dir", text(&homes[0].join("store"))]).0, 0);
    assert_eq!(Node::start(&homes[0], &addresses[0]).ids("list", "trusted"), [9]);
}

#[test]
fn a_node_that_cannot_start_ends_though_it_cannot_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let _node = Node::start(&home, "127.0.0.1:0");
    let (_reader, writer) = full_pipe();
    let args = ["node", "--home", text(&home), "--listen", "127.0.0.1:0"];
    let mut second = Command::new(PROGRAM).args(args).stderr(writer).spawn().unwrap();
    assert_eq!(end(&mut second), Some(1));
}

#[test]
fn a_node_whose_ready_line_cannot_be_written_runs_on() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let (_reader, unread) = full_pipe();
    for (out, is_told) in [(closed_pipe(), true), (full_disk(), true), (unread.into(), false)] {
        let log = dir.path().join("log");
        let mut node = start(&home, "127.0.0.1:0", &[], out, File::create(&log).unwrap().into());
        let told = || std::fs::read_to_string(&log).unwrap().contains("the ready line could not be written");
        if is_told {
            eventually("the log does not tell", told);
        }
        node.refuses(&["request", "11"], &["could not be sent"]);
        send(&node.child, "TERM");
        assert_eq!(end(&mut node.child), Some(0));
        assert_eq!(told(), is_told);
    }
    // And where it can be written, nothing is told.
    let log = dir.path().join("log");
    let mut node = start(&home, "127.0.0.1:0", &[], Stdio::null(), File::create(&log).unwrap().into());
    assert_eq!(node.ids("outgoing", "outgoing"), [11]);
    send(&node.child, "TERM");
    assert_eq!(end(&mut node.child), Some(0));
    assert!(!std::fs::read_to_string(&log).unwrap().contains("could not be written"));
}

#[test]
fn a_second_signal_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    for signal in stopping_signals() {
        let (_reader, writer) = full_pipe();
        let mut node = start(&home, "127.0.0.1:0", &[], Stdio::null(), writer.into());
        node.refuses(&["request", "11"], &["could not be sent"]);
        send(&node.child, signal);
        eventually("it does not stop", || !home.join("control.sock").exists());
        for signal in ["HUP", "INT", "TERM"] {
            // It may have ended by now.
            let _ = Command::new("kill").args(["-s", signal, &node.child.id().to_string()]).output();
        }
        assert_eq!(end(&mut node.child), Some(0), "{signal}");
        assert_eq!(run(&["verify", "--dir", text(&home.join("store"))]).0, 0);
    }
}

#[test]
fn a_node_that_was_started_with_sighup_ignored_goes_on_when_its_terminal_closes() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let ignoring = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"];
    let mut node = start(&home, "127.0.0.1:0", &ignoring, Stdio::null(), Stdio::null());
    send(&node.child, "HUP");
    node.refuses(&["request", "11"], &["could not be sent"]);
    assert_eq!(node.ids("outgoing", "outgoing"), [11]);
    send(&node.child, "TERM");
    assert_eq!(end(&mut node.child), Some(0));
}

#[test]
fn a_watch_that_nobody_reads_ends_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let node = Node::start(&home, "127.0.0.1:0");
    for signal in stopping_signals() {
        let (_reader, writer) = full_pipe();
        let mut watch = Command::new(PROGRAM).args(node.args(&["watch"])).stdout(writer).spawn().unwrap();
        let status = format!("/proc/{}/status", watch.id());
        let catches = |line: &str| {
            let mask = line.strip_prefix("SigCgt:").map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap());
            // SIGINT and SIGTERM, and SIGHUP if it is not ignored.
            let wanted = 0x4002 | u64::from(stopping_signals().contains(&"HUP"));
            mask.is_some_and(|mask| mask & wanted == wanted)
        };
        eventually("it watches no signals", || std::fs::read_to_string(&status).unwrap().lines().any(catches));
        // It is stuck in its first line by then, or will be.
        std::thread::sleep(Duration::from_millis(300));
        send(&watch, signal);
        assert_eq!(end(&mut watch), Some(0), "{signal}");
    }
}

/// Runs of the program whose answer is known: by the words of the command, the exit code, and whether what it prints is
/// the answer, which is then not given where the disk is full.
struct Answers {
    commands: BTreeSet<String>,
}

impl Answers {
    #[track_caller]
    fn check(&mut self, args: &[&str], code: i32, is_the_print: bool) {
        self.commands.insert(args[0].to_owned());
        let on_full_disk = if is_the_print { 1 } else { code };
        for (out, name, code) in
            [(Stdio::null(), "null", code), (closed_pipe(), "closed", code), (full_disk(), "full", on_full_disk)]
        {
            let output = Command::new(PROGRAM).args(args).stdin(Stdio::null()).stdout(out).output().unwrap();
            let err = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{args:?}, {name}: {err}");
            let told = err.contains("the result could not be written");
            // `wait` prints nothing when the answer is no; nor does anything that is refused.
            assert!(!told || name == "full", "{args:?}, {name}: {err}");
            assert!(told || name != "full" || code == 1 && !is_the_print, "{args:?}, {name}: {err}");
        }
    }
}

#[test]
fn the_exit_code_is_the_answer_whatever_becomes_of_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let mut answers = Answers { commands: BTreeSet::from(["node".to_owned()]) };
    let place = |name: &str| text(&dir.path().join(name)).to_owned();
    for number in 0..3 {
        // Each run makes a home; here each needs a place of its own.
        let out = [Stdio::null(), closed_pipe(), full_disk()].into_iter().nth(number).unwrap();
        let args = ["init", "--id", "7", "--home", &place(&format!("home-{number}"))];
        assert_eq!(Command::new(PROGRAM).args(args).stdout(out).output().unwrap().status.code(), Some(0));
        answers.commands.insert("init".to_owned());
    }
    answers.check(&["init", "--home", &place("home-0")], 1, false);
    answers.check(&["rekey", "--home", &place("home-0")], 0, false);

    let good = place("good.json");
    std::fs::write(&good, r#"{"trusted":[{"node_id":9}],"revoked":[{"node_id":5}]}"#).unwrap();
    let poor = place("poor.json");
    std::fs::write(&poor, r#"{"trusted":[{"node_id":9},{}]}"#).unwrap();
    let store = place("store");
    answers.check(&["import", "--dir", &store, &good], 0, false);
    answers.check(&["import", "--dir", &store, &poor], 1, false);
    answers.check(&["import", "--json", "--dir", &store, &poor], 1, false);
    answers.check(&["verify", "--dir", &store], 0, false);
    answers.check(&["inspect", "--json", "--dir", &store], 0, true);
    answers.check(&["inspect", "--dir", &store], 0, true);
    answers.check(&["export", "--dir", &store], 0, true);
    answers.check(&["export", "--dir", &store, "--out", &place("trust.json"), "--force"], 0, false);
    answers.check(&["compact", "--dir", &store], 0, false);
    answers.check(&["repair", "--dir", &store], 0, false);
    answers.check(&["stress", "--dir", &place("stress"), "--seconds", "0.05", "--threads", "1"], 0, false);
    answers.check(&["completions", "bash"], 0, true);
    answers.check(&["man"], 0, true);
    answers.check(&["demo"], 0, false);

    let damaged = place("damaged");
    assert_eq!(run(&["import", "--dir", &damaged, &good]).0, 0);
    let files = std::fs::read_dir(&damaged).unwrap().map(|entry| entry.unwrap().path());
    let snapshot = files.filter(|path| path.extension().is_some_and(|end| end == "tks")).max().unwrap();
    let mut bytes = std::fs::read(&snapshot).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    answers.check(&["verify", "--dir", &damaged], 1, false);
    answers.check(&["verify", "--json", "--dir", &damaged], 1, false);
    answers.check(&["inspect", "--dir", &damaged], 1, false);
    answers.check(&["repair", "--empty", "--dir", &damaged], 1, false);

    answers.check(&["help"], 0, true);
    answers.check(&["help", "peer", "add"], 0, true);
    answers.check(&["id", "--home", &place("home-1")], 0, true);
    answers.check(&["id", "--stanza", "--home", &place("home-1")], 0, true);
    answers.check(&["peer", "list", "--home", &place("home-1")], 0, true);
    answers.check(&["peer", "add", "--replace", "--home", &place("home-1"), "55"], 0, false);
    answers.check(&["peer", "remove", "--home", &place("home-1"), "66"], 1, false);

    let home = place("home-1");
    let listed = ["list", "pending", "outgoing", "revoked", "ignored", "status"];
    for command in listed {
        answers.check(&[command, "--home", &home], 1, false);
    }
    assert_eq!(run(&["import", "--home", &home, &good]).0, 0);
    let node = Node::start(Path::new(&home), "127.0.0.1:0");
    for command in listed {
        answers.check(&[command, "--home", &home], 0, true);
        answers.check(&[command, "--json", "--home", &home], 0, true);
    }
    answers.check(&["registry", "list", "--home", &home], 0, true);
    answers.check(&["list", "--count", "--home", &home], 0, true);
    answers.check(&["show", "--home", &home, "9"], 0, true);
    answers.check(&["show", "--home", &home, "99"], 1, false);
    answers.check(&["check", "--home", &home, "9"], 0, false);
    answers.check(&["check", "--home", &home, "99"], 1, false);
    answers.check(&["request", "--home", &home, "11"], 1, false);
    answers.check(&["approve", "--home", &home, "11"], 1, false);
    answers.check(&["reject", "--home", &home, "11"], 1, false);
    answers.check(&["wait", "--home", &home, "9"], 0, false);
    answers.check(&["wait", "--home", &home, "11", "--timeout", "0.1"], 1, false);
    answers.check(&["watch", "--home", &home, "--timeout", "0.3"], 0, true);
    let mut on_all = |args: &[&str], again: &dyn Fn()| {
        answers.commands.insert(args[0].to_owned());
        for out in [Stdio::null(), closed_pipe(), full_disk()] {
            again();
            let output = Command::new(PROGRAM).args(node.args(args)).stdout(out).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{args:?}");
        }
    };
    // Done, and said to be done.
    on_all(&["cancel", "11"], &|| drop(run(&node.args(&["request", "11"]))));
    let key = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";
    let again = |first: &[&str]| drop(run(&node.args(first)));
    on_all(&["grant", "11", key], &|| {
        again(&["revoke", "11"]);
        again(&["unrevoke", "11"]);
    });
    on_all(&["revoke", "11"], &|| ());
    on_all(&["unrevoke", "11"], &|| again(&["revoke", "11"]));
    on_all(&["ignore", "12"], &|| again(&["unignore", "12"]));
    on_all(&["unignore", "12"], &|| again(&["ignore", "12"]));

    let help = run(&["--help"]).1;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands = commands.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let commands: BTreeSet<String> = commands.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(answers.commands, commands, "a command whose answer is not checked");
}

#[test]
fn a_watch_counts_on_when_its_reader_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let node = Node::start(&home, "127.0.0.1:0");
    let watch = |args: &[&str], out: Stdio| {
        let args = [node.args(&["watch"]), args.to_vec()].concat();
        Command::new(PROGRAM).args(args).stdout(out).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut peers = 100..;
    for out in [closed_pipe(), full_disk()] {
        let mut enough = watch(&["--count", "2", "--timeout", "100"], out);
        // Before it has begun nothing is counted.
        eventually("the events do not come", || {
            let peer = peers.next().unwrap().to_string();
            node.refuses(&["request", &peer], &["could not be sent"]);
            node.does(&["revoke", &peer]);
            enough.try_wait().unwrap().is_some()
        });
        assert_eq!(end(&mut enough), Some(0));
        // Fewer than were wanted come in time.
        assert_eq!(end(&mut watch(&["--count", "1", "--timeout", "0.3"], closed_pipe())), Some(1));
        assert_eq!(end(&mut watch(&["--count", "1", "--timeout", "0.3"], full_disk())), Some(1));
    }
    // Nobody counts, and nobody reads: nothing to go on for.
    assert_eq!(end(&mut watch(&[], closed_pipe())), Some(0));
    assert_eq!(end(&mut watch(&[], full_disk())), Some(1));
}
