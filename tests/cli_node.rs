//! The program with running nodes:
//!
//! - `init` makes a home that is its owner's alone, and never replaces one;
//! - a node refuses to start with a reason and a remedy, and stops so that nothing is lost;
//! - every operator's command does what it says, durably, and says when it did not, and whether the peer was told;
//! - a refusal ends a wait at once, with its reason;
//! - the control socket serves nothing malformed and is not held up by it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use program::{Node, fails, homes, init, makes_no_sense, pair, run, stopping_signals, text};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn init_makes_a_home_that_is_the_owners_alone_and_never_replaces_one() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let made = init(&home, "7");
    assert_eq!(made["node_id"], 7);
    assert_eq!((mode(&home), mode(&home.join("identity.key"))), (0o700, 0o600));
    let peers = std::fs::read_to_string(home.join("peers.toml")).unwrap();
    assert!(peers.contains("# [[peer]]") && peers.lines().all(|line| line.is_empty() || line.starts_with('#')));
    let identity = std::fs::read(home.join("identity.key")).unwrap();
    fails(&["init", "--home", text(&home), "--id", "8"], &["identity.key", "exists already", "move it away"]);
    assert_eq!(std::fs::read(home.join("identity.key")).unwrap(), identity);
    fails(&["init", "--home", text(&dir.path().join("no/such"))], &["must exist"]);
    // A directory that is there already keeps its peers file; an empty one becomes ours alone.
    let prepared = dir.path().join("prepared");
    std::fs::create_dir(&prepared).unwrap();
    std::fs::set_permissions(&prepared, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (code, out, _) = run(&["init", "--home", text(&prepared)]);
    assert!(code == 0 && out.contains("fingerprint"), "{out}");
    assert_eq!(mode(&prepared), 0o700);
    std::fs::remove_file(prepared.join("identity.key")).unwrap();
    std::fs::write(prepared.join("peers.toml"), "# mine\n").unwrap();
    init(&prepared, "4294967295");
    assert_eq!(std::fs::read_to_string(prepared.join("peers.toml")).unwrap(), "# mine\n");
}

#[test]
fn two_nodes_trust_each_other_and_part_by_command() {
    let dir = tempfile::tempdir().unwrap();
    let (seven, nine) = pair(&dir);
    assert_eq!(seven.shows("status")["node_id"], 7);
    assert_eq!((seven.ids("list", "trusted"), seven.ids("pending", "pending")), (vec![], vec![]));
    seven.refuses(&["wait", "9", "--timeout", "0.1"], &["peer 9 is not trusted after 0.1 s"]);
    seven.refuses(&["approve", "9"], &["peer 9"]);
    seven.does(&["revoke", "55"]);
    seven.refuses(&["request", "7"], &["peer 7"]);
    makes_no_sense(&seven.args(&["request", "9", "--key", "x"]), &["--key", "base64"]);

    seven.does(&["request", "9", "weather feed"]);
    assert_eq!(seven.ids("outgoing", "outgoing"), [9]);
    nine.does(&["wait", "7", "--until", "pending"]);
    let pending = nine.shows("pending")["pending"][0].clone();
    let fingerprint = seven.shows("status")["fingerprint"].clone();
    assert_eq!((&pending["justification"], &pending["fingerprint"]), (&"weather feed".into(), &fingerprint));
    assert_eq!((&pending["authentic"], &pending["conflicts"]), (&true.into(), &0.into()));
    let other = nine.shows("status")["fingerprint"].as_str().unwrap().to_owned();
    nine.refuses(&["approve", "7", &other], &[&format!("see `trustkeep pending --home {} 7`", text(&nine.home))]);
    makes_no_sense(&nine.args(&["approve", "7", "1a2b"]), &["fingerprint"]);
    assert_eq!(nine.ids("list", "trusted"), [0; 0]);
    nine.does(&["approve", "7", fingerprint.as_str().unwrap()]);
    nine.does(&["wait", "7"]);
    seven.does(&["wait", "9", "--timeout", "30"]);
    assert_eq!((seven.ids("list", "trusted"), nine.ids("list", "trusted")), (vec![9], vec![7]));
    assert_eq!(seven.shows("list")["trusted"][0]["mutual"], true);
    seven.refuses(&["request", "9"], &["trusted already"]);
    seven.does(&["request", "9", "--force"]);
    // Answered, and so out of the way of what follows: its answer takes the entry away.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !seven.ids("outgoing", "outgoing").is_empty() {
        assert!(Instant::now() < deadline, "the forced request was not answered");
        std::thread::sleep(Duration::from_millis(10));
    }

    // What was answered as done is on the disk, for everybody to read.
    let store = nine.home.join("store");
    let (code, out, _) = run(&["inspect", "--json", "--dir", text(&store)]);
    assert_eq!((code, &serde_json::from_str::<Value>(&out).unwrap()["trusted"][0]["node_id"]), (0, &7.into()));

    nine.does(&["revoke", "7"]);
    assert_eq!((nine.ids("list", "trusted"), nine.ids("revoked", "revoked")), (vec![], vec![7]));
    seven.does(&["wait", "9", "--until", "untrusted"]);
    seven.does(&["request", "9"]);
    nine.does(&["wait", "7", "--until", "pending"]);
    nine.does(&["reject", "7", "not now"]);
    assert_eq!((nine.ids("pending", "pending"), nine.ids("list", "trusted")), (vec![], vec![]));
    nine.refuses(&["reject", "7"], &["peer 7"]);

    // A peer without an address: the request is entered, but that it was not sent is told.
    seven.refuses(&["request", "11"], &["kept", "could not be sent"]);
    seven.does(&["cancel", "11"]);
    seven.refuses(&["cancel", "11"], &["peer 11"]);
    for listing in ["list", "pending", "outgoing", "revoked", "status"] {
        let (code, out, _) = run(&seven.args(&[listing]));
        assert!(code == 0 && !out.is_empty(), "{listing}");
    }
}

#[test]
fn two_nodes_of_which_one_has_no_address_trust_each_other_by_request_and_approve() {
    let dir = tempfile::tempdir().unwrap();
    let (homes, addresses) = homes(&dir, |key| format!("public_key = \"{key}\"\n"));
    // Node 9 knows nothing of node 7: neither an address nor a key.
    std::fs::write(homes[1].join("peers.toml"), "").unwrap();
    let (seven, nine) = (Node::start(&homes[0], &addresses[0]), Node::start(&homes[1], &addresses[1]));
    seven.does(&["request", "9", "behind a router"]);
    nine.does(&["wait", "7", "--until", "pending"]);
    nine.does(&["approve", "7", seven.shows("status")["fingerprint"].as_str().unwrap()]);
    // On a machine so busy that the approval came more than ten seconds after the request, the next one brings the answer.
    while run(&seven.args(&["wait", "9", "--timeout", "20"])).0 != 0 {
        run(&seven.args(&["request", "9"]));
    }
    assert_eq!((seven.ids("list", "trusted"), nine.ids("list", "trusted")), (vec![9], vec![7]));
    // Node 9 itself has no way to node 7, and says so.
    nine.refuses(&["request", "7", "--force"], &["no address of node 7 is known"]);
}

#[test]
fn commands_say_whether_the_peer_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let (homes, addresses) = homes(&dir, |key| format!("public_key = \"{key}\"\n"));
    let [seven, nine] = [0, 1].map(|which| Node::start(&homes[which], &addresses[which]));
    let says = |node: &Node, command: &[&str]| {
        let (code, out, err) = run(&node.args(command));
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out.lines().last().unwrap().to_owned()
    };
    seven.does(&["request", "9"]);
    nine.does(&["wait", "7", "--until", "pending"]);
    assert!(seven.signal("KILL").code().is_none());
    let print = nine.shows("pending")["pending"][0]["fingerprint"].as_str().unwrap().to_owned();
    let told = says(&nine, &["approve", "7", &print]);
    assert!(told.starts_with("not told yet: ") && told.ends_with("; the node tries again"), "{told}");
    let owed = nine.shows("outgoing")["owed"][0].clone();
    assert_eq!((&owed["node_id"], &owed["kind"], &owed["sent"]), (&7.into(), &"accept".into(), &false.into()));
    assert!(owed["tries"].as_u64().unwrap() > 0 && owed["last_error"].is_string(), "{owed}");
    let (_, shown, _) = run(&nine.args(&["outgoing"]));
    assert!(shown.contains("OWED") && shown.contains("not told yet") && shown.contains("peer 7, after "), "{shown}");

    // It hears of it without another command on either side.
    let seven = Node::start(&homes[0], &addresses[0]);
    seven.does(&["wait", "9"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !nine.shows("outgoing")["owed"].as_array().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "it is still owed");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(says(&nine, &["revoke", "7"]), "told");
}

#[test]
fn a_refusal_ends_the_wait_at_once_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (seven, nine) = pair(&dir);
    // Longer than the test may take: only the refusal can end it.
    let asks = std::thread::spawn({
        let args: Vec<String> =
            seven.args(&["request", "9", "--wait", "3000"]).iter().map(ToString::to_string).collect();
        move || run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    });
    nine.does(&["wait", "7", "--until", "pending"]);
    nine.does(&["reject", "7", "no room, sorry"]);
    let refused = |(code, _, err): (i32, String, String)| {
        assert_eq!(code, 1);
        assert_eq!(err, "trustkeep: peer 9 refused\n      why | \"no room, sorry\"\n");
    };
    refused(asks.join().unwrap());
    refused(run(&seven.args(&["wait", "9", "--timeout", "3000"])));
    let entry = seven.shows("outgoing")["outgoing"][0].clone();
    let nines = nine.shows("status")["fingerprint"].clone();
    let refusal = &entry["refused"];
    assert_eq!((&refusal["authentic"], &refusal["fingerprint"]), (&true.into(), &nines), "{entry}");
    let (_, shown, _) = run(&seven.args(&["outgoing"]));
    assert!(shown.contains("  refused\n      why | \"no room, sorry\""), "{shown}");

    // Asking again waits again; its twin is trusted.
    seven.does(&["request", "9"]);
    nine.does(&["wait", "7", "--until", "pending"]);
    let print = seven.shows("status")["fingerprint"].as_str().unwrap().to_owned();
    let (code, out, err) = run(&nine.args(&["approve", "7", &print]));
    assert_eq!((code, err.as_str(), out.lines().last()), (0, "", Some("told")), "{out}");
    seven.does(&["wait", "9"]);
}

#[test]
fn commands_without_a_running_node_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let commands = [&["list"][..], &["status", "--json"], &["wait", "9"], &["approve", "9"], &["request", "9"]];
    let with_home = |command: &[&'static str]| -> Vec<String> {
        command[..1]
            .iter()
            .chain(&["--home"])
            .map(ToString::to_string)
            .chain([text(&home).to_owned()])
            .chain(command[1..].iter().map(ToString::to_string))
            .collect()
    };
    let check = |words: &[&str]| {
        for command in commands {
            let args = with_home(command);
            fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), words);
        }
    };
    check(&["no such home", "trustkeep init"]);
    fails(&["node", "--home", text(&home)], &["identity.key", "trustkeep init"]);
    assert!(!home.exists());
    init(&home, "7");
    check(&["no node runs in", "trustkeep node --home"]);
    // A killed node leaves its socket behind: nobody answers there, and the next one takes it over.
    let node = Node::start(&home, "127.0.0.1:0");
    assert_eq!(node.signal("KILL").code(), None);
    assert!(home.join("control.sock").exists());
    check(&["no node runs in", "trustkeep node --home"]);
    let node = Node::start(&home, "127.0.0.1:0");
    node.does(&["status"]);
}

#[test]
fn a_node_that_cannot_start_says_why_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (home, other) = (dir.path().join("home"), dir.path().join("other"));
    init(&home, "7");
    init(&other, "9");
    let node = Node::start(&home, "127.0.0.1:0");
    let start = |home: &Path, listen: &str, words: &[&str]| {
        fails(&["node", "--home", text(home), "--listen", listen], words);
        node.does(&["status"]);
    };
    start(&other, &node.listen, &[&node.listen, "port is in use", "choose another"]);
    start(&home, "127.0.0.1:0", &["in use by process", &node.child.id().to_string()]);
    for (line, reason) in [("id = 0", "0 is no node id"), ("id = x", ""), ("id = 9\nport = 1", "unknown field")] {
        std::fs::write(other.join("peers.toml"), format!("# peers\n[[peer]]\n{line}\n")).unwrap();
        let number = if line.contains("port") { "line 4" } else { "line 3" };
        start(&other, "127.0.0.1:0", &["peers.toml", number, reason, "correct that line"]);
    }
    std::fs::remove_file(other.join("peers.toml")).unwrap();
    start(&other, "127.0.0.1:0", &["peers.toml", "an empty file will do"]);
    std::fs::write(other.join("peers.toml"), "").unwrap();
    std::fs::remove_file(other.join("control.sock")).ok();
    std::fs::write(other.join("control.sock"), "precious").unwrap();
    start(&other, "127.0.0.1:0", &["control.sock", "not a socket", "move it away"]);
    assert_eq!(std::fs::read(other.join("control.sock")).unwrap(), b"precious");
    std::fs::remove_file(other.join("control.sock")).unwrap();
    Node::start(&other, "127.0.0.1:0").does(&["status"]);
}

#[test]
fn a_node_stops_in_good_order_and_keeps_what_it_knew() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    for signal in stopping_signals() {
        let node = Node::start(&home, "127.0.0.1:0");
        node.refuses(&["request", "11"], &["could not be sent"]);
        // Whoever waits is told, and holds nothing up.
        let wait = Command::new(env!("CARGO_BIN_EXE_trustkeep")).args(node.args(&["wait", "11"])).spawn().unwrap();
        assert_eq!(node.signal(signal).code(), Some(0));
        assert_eq!(wait.wait_with_output().unwrap().status.code(), Some(1));
        assert!(!home.join("control.sock").exists());
        let (code, out, err) = run(&["verify", "--dir", text(&home.join("store"))]);
        assert_eq!(code, 0, "{out}{err}");
    }
    let node = Node::start(&home, "127.0.0.1:0");
    assert_eq!(node.ids("outgoing", "outgoing"), [11]);
}

#[test]
fn what_was_answered_survives_a_kill_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    for round in 0..8 {
        // Over the socket itself: a client would take longer to end than a save takes.
        let node = Node::start(&home, "127.0.0.1:0");
        let request = r#"{"ask":"request","peer":11,"justification":"","expected_key":null,"force":false}"#;
        assert!(ask(&home, request)["message"].as_str().unwrap().contains("kept"));
        drop(node);
        let node = Node::start(&home, "127.0.0.1:0");
        assert_eq!(node.ids("outgoing", "outgoing"), [11], "round {round}");
        assert_eq!(ask(&home, r#"{"ask":"cancel","peer":11}"#)["reply"], "done");
        drop(node);
        let node = Node::start(&home, "127.0.0.1:0");
        assert_eq!(node.ids("outgoing", "outgoing"), [0; 0], "round {round}");
    }
}

/// One line to the control socket, and the line that comes back.
fn ask(home: &Path, line: &str) -> Value {
    let stream = UnixStream::connect(home.join("control.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    (&stream).write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut reply = String::new();
    BufReader::new(&stream).read_line(&mut reply).unwrap();
    serde_json::from_str(&reply).unwrap()
}

#[test]
fn the_control_socket_is_bounded_and_serves_nothing_malformed() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let node = Node::start(&home, "127.0.0.1:0");
    let socket = home.join("control.sock");
    assert_eq!(mode(&socket), 0o600);
    let ask = |bytes: &[u8]| -> Value {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // It may have answered and closed before all of it is written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        serde_json::from_str(&reply).unwrap_or(Value::Null)
    };
    assert_eq!(ask(b"{\"ask\":\"status\"}\n")["reply"], "status");
    for (bytes, word) in [
        (&b"\n"[..], "not a request"),
        (b"{}\n", "not a request"),
        (b"\xff\xff\n", "not a request"),
        (b"{\"ask\":\"format_disk\"}\n", "not a request"),
        (b"{\"ask\":\"cancel\",\"peer\":9,\"really\":true}\n", "not a request"),
        (b"{\"ask\":\"cancel\",\"peer\":4294967296}\n", "not a request"),
        (b"{\"ask\":\"cancel\",\"peer\":0}\n", "node id"),
        (b"{\"ask\":\"status\"}", "before its newline"),
        (b"", "before its newline"),
    ] {
        let reply = ask(bytes);
        assert_eq!(reply["reply"], "failed", "{reply}");
        assert!(reply["message"].as_str().unwrap().contains(word), "{word}: {reply}");
    }
    // Too long: whether the answer still reaches a sender who does not stop is the system's affair.
    let reply = ask(&vec![b' '; 1 << 20]);
    assert!(reply.is_null() || reply["reply"] == "failed", "{reply}");
    let fits = [b"{\"ask\":\"status\"".to_vec(), vec![b' '; 65_000], b"}\n".to_vec()].concat();
    assert_eq!(ask(&fits)["reply"], "status");
    let long = [b"{\"ask\":\"status\"".to_vec(), vec![b' '; 66_000], b"}\n".to_vec()].concat();
    assert_ne!(ask(&long)["reply"], "status");
    // Connections that say nothing hold nobody up. Of too many the first have to go; the others are given up in the end.
    let idle: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    assert_eq!(ask(b"{\"ask\":\"status\"}\n")["reply"], "status");
    let mut told = Vec::new();
    for mut stream in idle {
        let mut last = String::new();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.read_to_string(&mut last).unwrap();
        told.push(last);
    }
    assert!(told[0].contains("too many connections that ask for nothing"), "{told:?}");
    assert!(told[99].contains("took too long"), "{told:?}");
    node.does(&["status"]);
}

#[test]
fn a_node_whose_log_nobody_reads_stops_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let mut child = Command::new(env!("CARGO_BIN_EXE_trustkeep"))
        .args(["node", "--home", text(&home), "--listen", "127.0.0.1:0", "--stop-at-eof"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("node 7 listens on 127.0.0.1:"), "{line}");
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!home.join("control.sock").exists());
}

#[test]
fn a_node_trusts_by_itself_whom_its_settings_name_and_nobody_else() {
    let bound = |key: &str| format!("public_key = \"{key}\"\nnetworks = [3]\n");
    let unknown = |_: &str| String::new();
    type About<'a> = &'a dyn Fn(&str) -> String;
    let cases: [(About<'_>, &[&str], bool); 8] = [
        (&bound, &[], false),
        (&bound, &["--own-network", "5", "--own-network", "3"], true),
        (&bound, &["--own-network", "5"], false),
        (&unknown, &["--own-network", "3"], false),
        (&bound, &["--allow", "7,,the gate"], true),
        // An id alone counts for whom the peers file has the key of.
        (&unknown, &["--allow", "7"], false),
        (&unknown, &["--allow", "8", "--trust-on-first-use", "--accept-v1"], false),
        (&unknown, &["--auto-approve"], true),
    ];
    for (about, settings, is_trusted) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (homes, addresses) = homes(&dir, about);
        let seven = Node::start(&homes[0], &addresses[0]);
        let nine = Node::start_with(&homes[1], &addresses[1], settings);
        seven.does(&["request", "9"]);
        nine.does(&["wait", "7", "--until", if is_trusted { "trusted" } else { "pending" }]);
        assert_eq!(nine.ids("list", "trusted").len(), usize::from(is_trusted), "{settings:?}");
        if settings.first() == Some(&"--own-network") && is_trusted {
            assert_eq!(nine.shows("list")["trusted"][0]["network"], 3);
        }
    }
}

#[test]
fn trust_on_first_use_and_keys_on_the_allow_list_are_settings_too() {
    let dir = tempfile::tempdir().unwrap();
    let (homes, addresses) = homes(&dir, |_| String::new());
    let key = |home: &Path| {
        let node = Node::start(home, "127.0.0.1:0");
        node.shows("status")["public_key"].as_str().unwrap().to_owned()
    };
    let (seven_key, nine_key) = (key(&homes[0]), key(&homes[1]));
    let seven = Node::start_with(&homes[0], &addresses[0], &["--trust-on-first-use"]);
    let nine = Node::start_with(&homes[1], &addresses[1], &["--allow", &format!("7,{nine_key}")]);
    seven.does(&["request", "9"]);
    nine.does(&["wait", "7", "--until", "pending"]);
    assert_eq!(nine.ids("list", "trusted"), [0; 0], "another key than the one on the list");
    assert_eq!(nine.signal("TERM").code(), Some(0));
    let nine = Node::start_with(&homes[1], &addresses[1], &["--allow", &format!("7,{seven_key},gate")]);
    seven.does(&["request", "9"]);
    nine.does(&["wait", "7"]);
    // Nobody vouches for the key that answers, and yet:
    seven.does(&["wait", "9"]);

    for bad in [["--own-network", "0"], ["--own-network", "65536"], ["--allow", "0"], ["--allow", "7,x"]] {
        let (code, _, err) = run(&["node", "--home", text(&homes[0]), bad[0], bad[1]]);
        assert!(code == 2 && err.contains(bad[0]), "{bad:?}: {err}");
    }
}
