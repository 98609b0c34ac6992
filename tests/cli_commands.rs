//! What the commands of an operator take and tell:
//!
//! - several peers at once, each with an answer of its own, also as JSON;
//! - `show`, `check` and `id` say what is known, and their exit codes say it too;
//! - a long listing comes in pages, in parts, or as a number;
//! - a wait ends when what it waits for cannot come;
//! - `peer` changes the peers file and nothing else in it, and a running node takes that up at once;
//! - tables and help fit the terminal; what is empty says of what.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

use program::{LATE, Node, fails, init, makes_no_sense, run, text};

const KEY: &str = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";

/// A node of its own, and where it lives.
fn node() -> (tempfile::TempDir, PathBuf, Node) {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let node = Node::start(&home, "127.0.0.1:0");
    (dir, home, node)
}

/// What this command says, with its exit code.
#[track_caller]
fn says(node: &Node, args: &[&str]) -> (i32, String) {
    let (code, out, _) = run(&node.args(args));
    (code, out)
}

#[track_caller]
fn results(node: &Node, args: &[&str]) -> (i32, Value) {
    let (code, out, err) = run(&node.args(&[args, &["--json"]].concat()));
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{args:?}: {out}{err}"));
    (code, told["results"].clone())
}

#[test]
fn several_peers_at_once_have_an_answer_each() {
    let (_dir, _home, node) = node();
    let (code, out) = says(&node, &["revoke", "5", "6", "8"]);
    assert_eq!((code, out.matches("done, durable as of generation").count()), (0, 3), "{out}");
    for peer in [5, 6, 8] {
        assert!(out.contains(&format!("peer {peer}: done")), "{out}");
    }
    assert_eq!(node.ids("revoked", "revoked"), [5, 6, 8]);
    // One that fails ends nothing, and is told.
    let (code, told) = results(&node, &["unrevoke", "5", "55", "6"]);
    let outcomes: Vec<(&Value, &Value)> =
        told.as_array().unwrap().iter().map(|it| (&it["node_id"], &it["outcome"])).collect();
    let expected = [(json!(5), json!("done")), (json!(55), json!("failed")), (json!(6), json!("done"))];
    assert_eq!((code, outcomes), (1, expected.iter().map(|(id, outcome)| (id, outcome)).collect()));
    assert!(told[1]["message"].as_str().unwrap().contains("peer 55"), "{told}");
    assert_eq!(node.ids("revoked", "revoked"), [8]);

    let (code, told) = results(&node, &["request", "11"]);
    assert_eq!((code, &told[0]["outcome"]), (1, &json!("not_sent")), "{told}");
    node.refuses(&["request", "12"], &["could not be sent"]);
    node.does(&["cancel", "11", "12"]);
    assert_eq!(node.ids("outgoing", "outgoing"), [0; 0]);
    let (code, told) = results(&node, &["grant", "9", KEY]);
    assert_eq!((code, &told[0]["outcome"], &told[0]["node_id"]), (0, &json!("done"), &json!(9)));
    assert!(told[0]["generation"].as_u64().unwrap() > 0, "{told}");
    let (code, told) = results(&node, &["revoke", "--key", KEY]);
    assert_eq!((code, &told[0]["node_id"], told[0]["fingerprint"].is_string()), (0, &Value::Null, true), "{told}");
    let (code, told) = results(&node, &["wait", "9", "--timeout", "0"]);
    assert_eq!((code, &told[0]["outcome"]), (1, &json!("no")));
    let (code, told) = results(&node, &["registry", "confirm"]);
    assert_eq!((code, &told[0]["outcome"]), (1, &json!("failed")));
    assert_eq!(results(&node, &["ignore", "20", "21"]).0, 0);
    assert_eq!(node.ids("ignored", "ignored"), [20, 21]);
    assert_eq!(results(&node, &["unignore", "20", "21"]).0, 0);
    assert_eq!(results(&node, &["approve", "20", "21"]).0, 1);
    assert_eq!(results(&node, &["reject", "20", "21", "no"]).0, 1);
}

#[test]
fn a_command_line_that_makes_no_sense_exits_with_2() {
    let (_dir, _home, node) = node();
    let good = "1a2b:3c4d:5e6f:7081:92a3:b4c5:d6e7:f809";
    for (args, word) in [
        (&["approve", "9", "zz"][..], "neither a node id nor a fingerprint"),
        (&["approve", good, "9"], "no peer stands before it"),
        (&["approve", "9", good, good], "a second fingerprint for peer 9"),
        (&["approve", "0"], "neither"),
        (&["approve"], "required"),
        (&["reject", "no"], "no"),
        (&["reject", "9", "not now", "10"], "behind all peers"),
        (&["reject", "9", "not now", "--reason", "really"], "given already"),
        (&["request", "9", "--key", "abc"], "--key"),
        (&["request", "9", "--lift", "abc"], "--lift"),
        (&["grant", "9", "abc"], "base64"),
        (&["revoke", "9", "--key", KEY], "cannot be used with"),
        (&["check", "9", "--key", "abc"], "--key"),
        (&["list", "--limit", "0"], "--limit"),
        (&["list", "--count", "--limit", "1"], "--count"),
        (&["revoked", "--keys", "--count"], "--keys"),
    ] {
        makes_no_sense(&node.args(args), &[word]);
    }
    makes_no_sense(&["status"], &["--home"]);
}

#[test]
fn show_and_check_say_what_is_known_of_a_peer() {
    let (_dir, home, node) = node();
    node.does(&["grant", "9", KEY]);
    node.does(&["revoke", "5"]);
    node.does(&["ignore", "6"]);
    node.refuses(&["request", "11", "hello"], &["could not be sent"]);
    run(&["peer", "add", "--home", text(&home), "12", "--network", "3"]);
    let shown = |peer: &str| -> (i32, Value) {
        let (code, out) = says(&node, &["show", peer, "--json"]);
        (code, serde_json::from_str(&out).unwrap())
    };
    let parts = |shown: &Value| -> Vec<String> {
        let of = ["trusted", "pending", "outgoing", "owed", "revoked", "ignored", "registry"];
        of.iter().filter(|part| !shown[**part].is_null()).map(|part| (*part).to_owned()).collect()
    };
    for (peer, code, known) in [
        ("9", 0, &["trusted"][..]),
        ("5", 0, &["owed", "revoked"]),
        ("6", 0, &["ignored"]),
        ("11", 0, &["outgoing"]),
        ("12", 0, &["registry"]),
        ("7", 0, &[]),
        ("99", 1, &[]),
    ] {
        let (is, told) = shown(peer);
        assert_eq!((is, parts(&told)), (code, known.iter().map(|it| (*it).to_owned()).collect()), "{told}");
        assert_eq!(told["is_this_node"], peer == "7");
        let (is, out) = says(&node, &["show", peer]);
        assert!(is == code && out.starts_with(if code == 0 { "peer " } else { "nothing is known" }), "{out}");
    }
    assert_eq!(shown("9").1["trusted"]["public_key"], KEY);
    assert!(says(&node, &["show", "11"]).1.contains("why | \"hello\""));

    let other = "zVrbbJTpqXPqjZ5n7XrEzFbL8yHkJcJ7vTz1x9mS6qM=";
    for (args, code) in [
        (&["check", "9"][..], 0),
        (&["check", "9", "--key", KEY], 0),
        (&["check", "9", "--key", other], 1),
        (&["check", "5"], 1),
        (&["check", "99"], 1),
        (&["check", "7"], 0),
        (&["check", "7", "--key", KEY], 1),
    ] {
        let (is, out) = says(&node, args);
        assert_eq!((is, out.contains("not trusted")), (code, code == 1), "{args:?}: {out}");
    }
}

#[test]
fn the_id_of_a_node_is_shown_whether_it_runs_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let made = init(&home, "7");
    let id = |args: &[&str]| run(&[&["id", "--home", text(&home)], args].concat());
    let (code, out, _) = id(&["--json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (0, made.clone()));
    assert!(id(&[]).1.contains(made["fingerprint"].as_str().unwrap()));
    let (code, stanza, _) = id(&["--stanza", "--address", "seven.example.org:4440"]);
    assert_eq!(code, 0);
    let key = made["public_key"].as_str().unwrap();
    let expected = format!("[[peer]]\nid = 7\naddress = \"seven.example.org:4440\"\npublic_key = \"{key}\"\n");
    assert_eq!(stanza, expected);
    // Pasted on the other side it is what `peer list` shows.
    let other = dir.path().join("other");
    init(&other, "8");
    let file = other.join("peers.toml");
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + &stanza).unwrap();
    let (_, listed, _) = run(&["peer", "list", "--json", "--home", text(&other)]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed["peers"][0]["node_id"], &listed["peers"][0]["public_key"]), (&json!(7), &json!(key)));
    let _node = Node::start(&home, "127.0.0.1:0");
    assert_eq!(id(&["--json"]).0, 0);
    fails(&["id", "--home", text(dir.path())], &["identity.key", "trustkeep init"]);
}

#[test]
fn a_long_list_comes_in_pages_in_parts_and_as_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    // More than two pages; every third id, and 7 itself left out.
    let ids: Vec<u64> = (0..40_000).map(|number| 10 + 3 * number).collect();
    let rows: Vec<Value> = ids.iter().map(|id| json!({ "node_id": id, "public_key": KEY })).collect();
    let marks: Vec<Value> = (0..20_000).map(|number| json!({ "node_id": 1_000_000 + number })).collect();
    let file = dir.path().join("trust.json");
    std::fs::write(&file, json!({ "trusted": rows, "revoked": marks }).to_string()).unwrap();
    assert_eq!(run(&["import", "--home", text(&home), text(&file)]).0, 0);
    let node = Node::start(&home, "127.0.0.1:0");
    assert_eq!(node.ids("list", "trusted"), ids);
    assert_eq!(node.ids("revoked", "revoked").len(), 20_000);
    let (code, out) = says(&node, &["list"]);
    assert_eq!((code, out.lines().count()), (0, 40_002), "a title, the names of the columns, and a line each");
    assert!(out.starts_with("TRUSTED\n  ID"), "{}", &out[..100]);
    assert_eq!(says(&node, &["list", "--count"]), (0, "40000\n".to_owned()));
    assert_eq!(says(&node, &["list", "--count", "--json"]), (0, "{\"count\":40000}\n".to_owned()));
    assert_eq!(says(&node, &["revoked", "--count"]), (0, "20000\n".to_owned()));
    let part = |args: &[&str]| -> Vec<u64> {
        let (code, out) = says(&node, &[&["list", "--json"], args].concat());
        assert_eq!(code, 0);
        let told: Value = serde_json::from_str(&out).unwrap();
        told["trusted"].as_array().unwrap().iter().map(|row| row["node_id"].as_u64().unwrap()).collect()
    };
    assert_eq!(part(&["--limit", "3"]), [10, 13, 16]);
    assert_eq!(part(&["--limit", "2", "--after", "11"]), [13, 16]);
    assert_eq!(part(&["--limit", "20000", "--after", "13"]), ids[2..20_002]);
    assert_eq!(part(&["--after", "120006"]), [120_007]);
    assert_eq!(part(&["--after", "120007"]), [0; 0]);
    assert_eq!(says(&node, &["list", "--after", "4294967295"]), (0, "no trusted peers\n".to_owned()));
}

#[test]
fn what_is_empty_says_of_what() {
    let (_dir, home, node) = node();
    for (args, told) in [
        (&["list"][..], "no trusted peers\n"),
        (&["pending"], "no pending peers\n"),
        (&["pending", "9"], "peer 9 is not pending\n"),
        (&["outgoing"], "no outgoing requests, and no peer has to be told anything\n"),
        (&["revoked"], "no revoked peers\n"),
        (&["revoked", "--keys"], "no revoked keys\n"),
        (&["ignored"], "no ignored peers or keys\n"),
    ] {
        assert_eq!(says(&node, args), (0, told.to_owned()));
    }
    let (code, out, _) = run(&["peer", "list", "--home", text(&home)]);
    assert!(code == 0 && out.starts_with("no peers in "), "{out}");
}

#[test]
fn a_wait_ends_when_what_it_waits_for_cannot_come() {
    let (_dir, home, node) = node();
    let begun = Instant::now();
    node.does(&["ignore", "6"]);
    node.refuses(&["wait", "6", "--timeout", "600"], &["peer 6 is ignored", "unignore"]);
    node.refuses(&["wait", "6", "--until", "pending", "--timeout", "600"], &["peer 6 is ignored"]);
    node.refuses(&["wait", "7", "--until", "pending", "--timeout", "600"], &["is this node itself"]);
    node.refuses(&["wait", "7", "--until", "untrusted", "--timeout", "600"], &["is this node itself"]);
    node.does(&["wait", "7", "--timeout", "600"]);
    node.does(&["wait", "6", "--until", "untrusted", "--timeout", "600"]);
    // A request that is cancelled, or whose peer is revoked, is answered by nobody.
    for end in ["cancel", "revoke"] {
        let args = node.args(&["request", "11", "--wait", "600"]).iter().map(|arg| (*arg).to_owned()).collect();
        let asking: Vec<String> = args;
        let asked = std::thread::spawn(move || run(&asking.iter().map(String::as_str).collect::<Vec<_>>()));
        while node.ids("outgoing", "outgoing").is_empty() {
            assert!(begun.elapsed() < LATE);
        }
        node.does(&[end, "11"]);
        let (code, _, err) = asked.join().unwrap();
        assert!(code == 1 && err.contains("the request to it is gone"), "{end}: {err}");
    }
    // And the twin: what can still come is waited for.
    let (code, _, err) = run(&node.args(&["wait", "99", "--timeout", "1"]));
    assert!(code == 1 && err.contains("after 1 s"), "{err}");
    assert!(begun.elapsed() < LATE * 4, "it waited");
    drop(home);
}

#[test]
fn a_running_node_takes_a_change_of_its_peers_up_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (seven_home, nine_home) = (dir.path().join("seven"), dir.path().join("nine"));
    let (seven_made, nine_made) = (init(&seven_home, "7"), init(&nine_home, "9"));
    let seven = Node::start(&seven_home, "127.0.0.1:0");
    let nine = Node::start(&nine_home, "127.0.0.1:0");
    seven.refuses(&["request", "9"], &["no address of node 9 is known"]);
    let key = |made: &Value| made["public_key"].as_str().unwrap().to_owned();
    let add = |home: &std::path::Path, id: &str, made: &Value, address: &str| -> Value {
        let (code, out, err) =
            run(&["peer", "add", "--json", "--home", text(home), id, "--key", &key(made), "--address", address]);
        assert_eq!((code, err.as_str()), (0, ""));
        serde_json::from_str(&out).unwrap()
    };
    let before = std::fs::read_to_string(seven_home.join("peers.toml")).unwrap();
    // By name on one side.
    let by_name = nine.listen.replace("127.0.0.1", "localhost");
    let told = add(&seven_home, "9", &nine_made, &by_name);
    assert_eq!(told, json!({ "node_id": 9, "changed": true, "peers": 1, "running": true }));
    add(&nine_home, "7", &seven_made, &seven.listen);
    let after = std::fs::read_to_string(seven_home.join("peers.toml")).unwrap();
    assert!(after.starts_with(&before) && after.contains("[[peer]]\nid = 9\n"), "{after}");
    assert_eq!(seven.shows("list")["trusted"], json!([]));
    // The request from before is tried again by itself.
    nine.does(&["wait", "7", "--until", "pending", "--timeout", "120"]);
    assert_eq!(nine.shows("pending")["pending"][0]["authentic"], true);
    nine.does(&["approve", "7"]);
    seven.does(&["wait", "9", "--timeout", "120"]);

    let peer = |args: &[&str]| run(&[&["peer", args[0], "--home", text(&seven_home)], &args[1..]].concat());
    let (code, _, err) = peer(&["add", "9", "--network", "3"]);
    assert!(code == 1 && err.contains("--replace"), "{err}");
    assert_eq!(peer(&["add", "9", "--network", "3", "--replace"]).0, 0);
    let listed: Value = serde_json::from_str(&peer(&["list", "--json"]).1).unwrap();
    let row = &listed["peers"][0];
    assert_eq!(
        (&row["address"], &row["networks"], &row["public_key"]),
        (&json!(by_name), &json!([3]), &json!(key(&nine_made)))
    );
    for (args, word) in [
        (&["add", "7"][..], "the node itself"),
        (&["add", "10", "--key", &key(&seven_made)], "the node's own"),
        (&["add", "10", "--key", &key(&nine_made)], "for peer 9 already"),
        (&["remove", "10"], "is not in it"),
    ] {
        let (code, _, err) = peer(args);
        assert!(code == 1 && err.contains(word), "{args:?}: {err}");
    }
    for bad in [["--address", "nine"], ["--address", "nine:0"], ["--network", "0"], ["--key", "x"]] {
        let (code, _, err) = peer(&["add", "10", bad[0], bad[1]]);
        assert!(code == 2 && err.contains(bad[0]), "{bad:?}: {err}");
    }
    assert_eq!(peer(&["remove", "9"]).0, 0);
    assert_eq!(std::fs::read_to_string(seven_home.join("peers.toml")).unwrap().trim_end(), before.trim_end());
    let (_, shown) = says(&seven, &["show", "9", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["registry"], Value::Null);
    // A file that was broken by hand is neither changed nor taken up.
    std::fs::write(seven_home.join("peers.toml"), "[[peer]]\nid = x\n").unwrap();
    let (code, _, err) = peer(&["add", "10"]);
    assert!(code == 1 && err.contains("line 2"), "{err}");
    // Two at once lose neither.
    std::fs::write(seven_home.join("peers.toml"), before).unwrap();
    std::thread::scope(|scope| {
        for id in ["21", "22", "23", "24"] {
            let (peer, id) = (&peer, id);
            scope.spawn(move || assert_eq!(peer(&["add", id]).0, 0));
        }
    });
    let listed: Value = serde_json::from_str(&peer(&["list", "--json"]).1).unwrap();
    assert_eq!(listed["peers"].as_array().unwrap().len(), 4);
}

/// What the program draws on a terminal of this width.
fn drawn(columns: u16, args: &[&str]) -> String {
    let mut master =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map(std::fs::File::from).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = rustix::termios::Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let open = || std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trustkeep"));
    command.args(args).env("TERM", "dumb").env_remove("COLUMNS").stdin(open()).stdout(open()).stderr(open());
    // Colours come with some settings of who runs this (`CI`), whatever the terminal; they take no room on it.
    command.env("NO_COLOR", "1").env_remove("CLICOLOR_FORCE");
    let mut child = command.spawn().unwrap();
    drop(command);
    let (mut drawn, mut part) = (Vec::new(), [0; 4096]);
    // At the end there is no end of file but an error.
    while let Ok(read @ 1..) = master.read(&mut part) {
        drawn.extend_from_slice(&part[..read]);
    }
    child.wait().unwrap();
    String::from_utf8(drawn).unwrap().replace('\r', "")
}

#[test]
fn tables_and_help_fit_the_terminal() {
    let (_dir, _home, node) = node();
    node.does(&["grant", "9", KEY]);
    assert_eq!(run(&node.args(&["grant", "4294967295", KEY])).0, 0);
    node.does(&["revoke", "--key", KEY]);
    node.does(&["grant", "10", "zVrbbJTpqXPqjZ5n7XrEzFbL8yHkJcJ7vTz1x9mS6qM="]);
    node.refuses(&["request", "11", "hello"], &["could not be sent"]);
    for columns in [40, 60, 80] {
        for args in [&["list"][..], &["revoked", "--keys"], &["show", "10"], &["outgoing"]] {
            let text = drawn(columns, &node.args(args));
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(columns) && widest > 20, "{columns}: {widest}\n{text}");
        }
        for args in [&["--help"][..], &["help"], &["help", "node"], &["node", "--help"], &["approve", "--help"]] {
            let text = drawn(columns, args);
            let is_broken = |line: &&str| line.chars().count() > usize::from(columns) && line.contains("  ");
            assert!(text.lines().filter(is_broken).count() == 0 && text.contains("Usage"), "{columns}: {text}");
        }
    }
    // A wide terminal, and what is no terminal, have a line for each row.
    let wide = drawn(200, &node.args(&["list"]));
    assert_eq!(wide.lines().count(), 3, "{wide}");
    assert_eq!(wide.lines().nth(1), says(&node, &["list"]).1.lines().nth(1));
    assert!(drawn(80, &node.args(&["list"])).lines().count() > 3);
}

#[test]
fn help_has_each_option_under_its_heading() {
    let (code, help, _) = run(&["node", "--help"]);
    assert_eq!(code, 0);
    let (options, unasked) = help.split_once("Trust without an operator:").unwrap();
    for option in ["--json", "--stop-at-eof", "--control", "--control-group", "--pending-max", "--listen"] {
        assert!(options.contains(option) && !unasked.contains(&format!("  {option}")), "{option}");
    }
    assert!(unasked.contains("--own-network") && unasked.contains("--on-rotation"));
    assert_eq!(run(&["help"]).1, run(&["--help"]).1);
    assert_eq!(run(&["help", "approve"]).1, run(&["approve", "--help"]).1);
}

#[test]
fn a_status_that_is_asked_for_its_health_answers_with_its_exit_code() {
    let (dir, home, node) = node();
    for args in [&["status"][..], &["status", "--check"], &["status", "--check", "--json"]] {
        assert_eq!(says(&node, args).0, 0);
    }
    assert_eq!(node.signal("TERM").code(), Some(0));
    // A registry that contradicts most of those that are trusted.
    let rows: Vec<Value> = (20..30).map(|id| json!({ "node_id": id, "public_key": KEY })).collect();
    let file = dir.path().join("trust.json");
    std::fs::write(&file, json!({ "trusted": rows }).to_string()).unwrap();
    assert_eq!(run(&["import", "--home", text(&home), text(&file)]).0, 0);
    let other = "zVrbbJTpqXPqjZ5n7XrEzFbL8yHkJcJ7vTz1x9mS6qM=";
    let peers: String = (20..30).map(|id| format!("[[peer]]\nid = {id}\npublic_key = \"{other}\"\n")).collect();
    std::fs::write(home.join("peers.toml"), peers).unwrap();
    let node = Node::start(&home, "127.0.0.1:0");
    let begun = Instant::now();
    while node.shows("status")["healthy"] == true {
        assert!(begun.elapsed() < LATE, "it is not compared");
    }
    assert_eq!((says(&node, &["status"]).0, says(&node, &["status", "--check"]).0), (0, 1));
    let (code, out) = says(&node, &["status", "--check", "--json"]);
    assert!(code == 1 && out.contains("\"healthy\":false"), "{out}");
}

#[test]
fn a_watch_may_be_about_some_peers_only() {
    let (_dir, _home, node) = node();
    let args: Vec<String> = node
        .args(&["watch", "--json", "--peer", "9", "--peer", "10", "--count", "2", "--timeout", "120"])
        .iter()
        .map(|arg| (*arg).to_owned())
        .collect();
    let mut watch = std::process::Command::new(env!("CARGO_BIN_EXE_trustkeep"))
        .args(args)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["topic"], "watching");
    for peer in ["8", "9", "11", "10"] {
        // With a warning, for they share a key.
        assert_eq!(run(&node.args(&["grant", peer, KEY])).0, 0);
    }
    assert_eq!((next()["peer_node_id"].clone(), next()["peer_node_id"].clone()), (json!(9), json!(10)));
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn a_closed_store_is_named_by_its_home_as_well() {
    let (dir, home, node) = node();
    node.does(&["revoke", "5"]);
    drop(node);
    for command in ["inspect", "verify", "export", "compact", "repair"] {
        let (code, by_home, err) = run(&[command, "--home", text(&home)]);
        assert_eq!((code, err.as_str()), (0, ""), "{command}");
        let (code, by_dir, _) = run(&[command, "--dir", text(&home.join("store"))]);
        assert!(code == 0 && (command == "compact" || by_dir == by_home), "{command}: {by_dir}");
        makes_no_sense(&[command, "--home", text(&home), "--dir", text(&home)], &["cannot be used with"]);
        makes_no_sense(&[command], &["--home"]);
    }
    // A text that begins with a byte order mark is no other text.
    let file = dir.path().join("trust.json");
    std::fs::write(&file, "\u{feff}{\"revoked\":[{\"node_id\":6}]}").unwrap();
    let (code, _, err) = run(&["import", "--home", text(&home), text(&file)]);
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn a_text_that_is_too_long_is_told_to_be_cut() {
    let (_dir, _home, node) = node();
    let fits = "x".repeat(1024);
    let (_, _, err) = run(&node.args(&["request", "11", &fits]));
    assert!(!err.contains("is not sent"), "{err}");
    let (_, _, err) = run(&node.args(&["request", "12", &format!("{fits}y")]));
    assert!(err.contains("the text has 1025 bytes; what is beyond 1024 is not sent"), "{err}");
}
