//! An operator approves what was looked at: by a fingerprint in a script, by choosing a key on a terminal; and is shown
//! every key that waits, and what it would replace.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod common;
mod program;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Child;

use common::{eventually, id, message_from};
use program::{Node, init, makes_no_sense, run, text};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use trustkeep::node::{FileIdentity, Identity as _};
use trustkeep::wire::message::Kind;

/// Node 7 alone, which knows no peer.
fn seven(home: &Path, settings: &[&str]) -> Node {
    init(home, "7");
    Node::start_with(home, "127.0.0.1:0", settings)
}

/// Node `peer` under the key of this seed.
fn peer(peer: u32, seed: u8) -> FileIdentity {
    FileIdentity::from_seed(id(peer), &[seed; 32]).unwrap()
}

fn fingerprint(of: &FileIdentity) -> String {
    of.public_key().fingerprint().to_string()
}

/// The peer asks node 7; the connection, over which it can be answered, once `holds` of what is pending there.
fn ask(node: &Node, peer: &FileIdentity, holds: impl Fn(&Value) -> bool) -> TcpStream {
    let message = message_from(peer, Kind::Request, |draft| draft.to = id(7));
    let mut stream = TcpStream::connect(&node.listen).unwrap();
    stream.write_all(&message).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    eventually("the request is not shown", || holds(&node.shows("pending")["pending"]));
    stream
}

/// Node 9 waits under two keys, the first of them this one.
fn two_keys(node: &Node, first: &FileIdentity, other: &FileIdentity) -> [TcpStream; 2] {
    let first = ask(node, first, |pending| pending[0]["node_id"] == 9);
    [first, ask(node, other, |pending| pending[0]["others"][0].is_object())]
}

#[test]
fn an_approval_in_a_script_names_the_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let node = seven(&dir.path().join("seven"), &[]);
    let (squatter, genuine) = (peer(9, 0xBB), peer(9, 0x11));
    let _open = two_keys(&node, &squatter, &genuine);
    let row = node.shows("pending")["pending"][0].clone();
    let entry = row["entry"].as_str().unwrap();
    let see = format!("see `trustkeep pending --home {} 9`", text(&node.home));
    for args in [
        &["approve", "9"][..],
        &["approve", "9", "--entry", entry],
        &["approve", "9", &fingerprint(&peer(9, 0x33))],
        &["approve", "9", &fingerprint(&genuine), "--entry", "0000000000000001"],
    ] {
        let (code, out, err) = run(&node.args(args));
        assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
        assert!(err.contains(&see), "{args:?}: {err}");
        for key in [&squatter, &genuine] {
            let shown = fingerprint(key);
            assert!(!shown.split(':').any(|group| err.contains(group)), "{args:?} prints a stranger's key: {err}");
        }
    }
    makes_no_sense(&node.args(&["approve", "9", "--entry", "9"]), &["--entry", "16 lower-case"]);
    assert_eq!(node.ids("list", "trusted"), [0; 0]);
    // What it points to shows every key, and where they came from.
    let (code, out, _) = run(&node.args(&["pending", "9"]));
    assert_eq!(code, 0);
    for word in [&fingerprint(&squatter)[..], &fingerprint(&genuine), "showed another key as well, once", "127.0.0.1"] {
        assert!(out.contains(word), "{word:?} is not in: {out}");
    }
    assert_eq!(run(&node.args(&["pending", "10"])).1, "peer 10 is not pending\n");
    assert_eq!(
        (&row["fingerprint"], &row["others"][0]["fingerprint"]),
        (&fingerprint(&squatter).into(), &fingerprint(&genuine).into())
    );
    // Any of them is taken.
    node.does(&["approve", "9", &fingerprint(&genuine), "--entry", entry]);
    assert_eq!(node.shows("list")["trusted"][0]["fingerprint"], fingerprint(&genuine));
}

#[test]
fn a_key_that_was_taken_out_of_the_peers_file_is_approved_by_its_fingerprint_alone() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    init(&home, "7");
    let known = peer(9, 0x11);
    let add = ["peer", "add", "--home", text(&home), "9", "--key", &known.public_key().to_base64()];
    assert_eq!(run(&add).0, 0);
    for is_known in [true, false] {
        let node = Node::start_with(&home, "127.0.0.1:0", &[]);
        if is_known {
            ask(&node, &known, |pending| pending[0]["node_id"] == 9);
            // The twin: as long as the file has it.
            node.does(&["approve", "9"]);
            node.does(&["revoke", "9"]);
            node.does(&["unrevoke", "9"]);
            ask(&node, &known, |pending| pending[0]["node_id"] == 9);
        }
        assert_eq!(node.shows("pending")["pending"][0]["authentic"], true);
        if is_known {
            assert_eq!(run(&["peer", "remove", "--home", text(&home), "9"]).0, 0);
        }
        // By the node that heard it, and by one that was started since.
        node.refuses(&["approve", "9"], &["see `trustkeep pending --home ", " 9`"]);
        assert_eq!(node.ids("list", "trusted"), [0; 0]);
        if !is_known {
            node.does(&["approve", "9", &fingerprint(&known)]);
        }
        assert!(node.signal("TERM").success());
    }
}

#[test]
fn a_waiting_peer_is_shown_with_the_key_that_it_would_replace() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    let node = seven(&home, &[]);
    let (old, new) = (peer(9, 0x11), peer(9, 0xBB));
    node.does(&["grant", "9", &old.public_key().to_base64()]);
    ask(&node, &new, |pending| pending[0]["node_id"] == 9);
    let row = node.shows("pending")["pending"][0].clone();
    assert_eq!((&row["replaces"], &row["conflicts"]), (&fingerprint(&old).into(), &1.into()));
    let warning = format!("WARNING: peer 9 replaces {}", fingerprint(&old));
    let (_, out, _) = run(&node.args(&["pending"]));
    assert!(out.contains(&warning) && !out.contains("showed another key"), "{out}");
    // Offline as well, once it is durable.
    node.does(&["wait", "9", "--until", "pending"]);
    let (_, out, _) = run(&["inspect", "--dir", text(&home.join("store"))]);
    assert!(out.contains(&warning), "{out}");
    node.refuses(&["approve", "9"], &["see `trustkeep pending --home ", " 9`"]);
    assert_eq!(node.shows("list")["trusted"][0]["fingerprint"], fingerprint(&old));

    // A request that names a key after the entry waits.
    let stranger = peer(10, 0x22);
    ask(&node, &stranger, |pending| pending.as_array().unwrap().len() == 2);
    assert_eq!(node.shows("pending")["pending"][1]["replaces"], Value::Null);
    let (code, ..) = run(&node.args(&["request", "10", "--key", &new.public_key().to_base64()]));
    assert_eq!(code, 1, "it is kept, and has no address");
    let row = node.shows("pending")["pending"][1].clone();
    assert_eq!((&row["replaces"], &row["conflicts"]), (&fingerprint(&new).into(), &1.into()));
}

/// The program with a terminal for everything; its input is typed by the test.
struct Terminal {
    child: Child,
    master: std::fs::File,
    drawn: String,
}

impl Terminal {
    fn run(args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trustkeep"));
        command.args(args).env("TERM", "xterm").stdin(open()).stdout(open()).stderr(open());
        let child = command.spawn().unwrap();
        Self { child, master: std::fs::File::from(master), drawn: String::new() }
    }

    /// Reads until these words were drawn, or to the end.
    fn until(&mut self, words: &str) {
        let mut part = [0; 4096];
        while !self.drawn.contains(words) {
            // At the end there is no end of file but an error.
            let Ok(read @ 1..) = self.master.read(&mut part) else { break };
            self.drawn.push_str(&String::from_utf8_lossy(&part[..read]));
        }
    }

    /// Types an answer to the question; the exit code, and all that was drawn.
    fn answer(mut self, typed: &str) -> (i32, String) {
        self.until("approve none: ");
        writeln!(self.master, "{typed}").unwrap();
        self.end()
    }

    fn end(mut self) -> (i32, String) {
        self.until("\0");
        (self.child.wait().unwrap().code().unwrap(), self.drawn)
    }
}

#[test]
fn on_a_terminal_the_keys_are_shown_and_one_is_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let node = seven(&dir.path().join("seven"), &[]);
    let (squatter, genuine) = (peer(9, 0xBB), peer(9, 0x11));
    let mut open = vec![two_keys(&node, &squatter, &genuine)];
    let approve = || Terminal::run(&node.args(&["approve", "9"]));
    let unknown = fingerprint(&peer(9, 0x33));
    for typed in ["", "0", "3", "yes", "-1", &unknown, &fingerprint(&genuine)[..20]] {
        let (code, drawn) = approve().answer(typed);
        assert!(code == 1 && drawn.contains("nothing was approved"), "{typed:?}: {drawn}");
        for key in [&squatter, &genuine] {
            assert!(drawn.contains(&fingerprint(key)), "{drawn}");
        }
    }
    assert_eq!(node.ids("list", "trusted"), [0; 0]);

    // What was shown is what is approved: not an entry that came in its place meanwhile.
    let mut asked = approve();
    asked.until("approve none: ");
    node.does(&["reject", "9"]);
    // Both have heard of it, and what they ask now waits anew.
    open.clear();
    open.push(two_keys(&node, &squatter, &genuine));
    let (code, drawn) = asked.answer("2");
    assert!(code == 1 && drawn.contains("another has its place"), "{drawn}");
    assert_eq!(node.ids("list", "trusted"), [0; 0]);

    // Who compared it by pasting it says that; a number does as well, below.
    let (code, drawn) = approve().answer(&fingerprint(&genuine).to_uppercase());
    assert!(code == 0 && drawn.contains("durable"), "{drawn}");
    assert_eq!(node.shows("list")["trusted"][0]["fingerprint"], fingerprint(&genuine));
    // Nothing waits: nothing is asked.
    let (code, drawn) = approve().end();
    assert!(code == 1 && !drawn.contains("approve none"), "{drawn}");
}

#[test]
fn on_a_terminal_the_revocation_is_shown_and_the_one_that_was_shown_is_lifted() {
    let dir = tempfile::tempdir().unwrap();
    let node = seven(&dir.path().join("seven"), &[]);
    let nine = peer(9, 0x11);
    let revocation = || node.shows("revoked")["revoked"][0]["revocation"].as_str().unwrap().to_owned();
    let ask = || ask(&node, &nine, |pending| pending[0]["node_id"] == 9);
    let approve = || Terminal::run(&node.args(&["approve", "9"]));
    node.does(&["revoke", "9"]);
    ask();
    let (code, drawn) = approve().answer("");
    assert_eq!(code, 1);
    assert!(drawn.contains("REVOKED: peer 9 is revoked since") && drawn.contains(&revocation()), "{drawn}");
    // Another revocation came after the look.
    let mut asked = approve();
    asked.until("approve none: ");
    node.does(&["revoke", "9"]);
    ask();
    assert_eq!(asked.answer("1").0, 1);
    assert_eq!((node.ids("list", "trusted"), node.ids("revoked", "revoked")), (vec![], vec![9]));

    assert_eq!(approve().answer("1").0, 0);
    assert_eq!((node.ids("list", "trusted"), node.ids("revoked", "revoked")), (vec![9], vec![]));
}

#[test]
fn limits_of_the_pending_are_settings_and_newcomers_that_find_no_room_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let node = seven(&dir.path().join("seven"), &["--pending-max", "2", "--pending-per-source", "1"]);
    ask(&node, &peer(9, 0x11), |pending| pending[0]["node_id"] == 9);
    let refused = |node: &Node| node.shows("status")["refused_newcomers"].clone();
    assert_eq!(refused(&node), serde_json::json!([]));
    ask(&node, &peer(10, 0x22), |_| refused(&node) == serde_json::json!([["127.0.0.1", 1]]));
    assert_eq!(node.ids("pending", "pending"), [9]);
    let (_, out, _) = run(&node.args(&["status"]));
    assert!(out.contains("NEWCOMERS REFUSED") && out.contains("127.0.0.1"), "{out}");
}

#[test]
fn status_names_the_tables_that_are_near_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let node = seven(&dir.path().join("seven"), &["--ignored-max", "1", "--revoked-max", "2", "--pending-max", "2"]);
    let near = |node: &Node| node.shows("status")["near_limits"].clone();
    assert_eq!(near(&node), serde_json::json!([]));
    node.does(&["ignore", "9"]);
    assert_eq!(near(&node), serde_json::json!([["ignored_max", 1, 1]]));
    node.refuses(&["ignore", "10"], &["too many are ignored"]);
    for peer in ["11", "12", "13"] {
        node.does(&["revoke", peer]);
    }
    assert_eq!(near(&node), serde_json::json!([["revoked_max", 3, 2], ["ignored_max", 1, 1]]), "never refused");
    let (code, out, _) = run(&node.args(&["status"]));
    assert!(code == 0 && out.contains("limits       revoked_max: 3 of 2\nlimits       ignored_max: 1 of 1\n"), "{out}");
    node.does(&["unignore", "9"]);
    assert_eq!(near(&node).as_array().unwrap().len(), 1);
}

#[test]
fn a_limit_beyond_its_range_is_no_command_line_and_the_range_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    init(&home, "7");
    let range = [
        ("--pending-max", "0", "1..=1000000"),
        ("--pending-per-source", "1000001", "1..=1000000"),
        ("--revoked-max", "0", "1..=4294967295"),
        ("--held-max", "4097", "0..=4096"),
    ];
    for (option, value, range) in range {
        let (code, out, err) = run(&["node", "--home", text(&home), option, value]);
        assert_eq!((code, out.as_str()), (2, ""), "{option} {value}");
        assert!(err.contains(range) && err.contains(option), "{err}");
    }
}

#[test]
fn a_refusal_names_what_was_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let node = seven(&dir.path().join("seven"), &[]);
    let (squatter, genuine) = (peer(9, 0xBB), peer(9, 0x11));
    let mut open = two_keys(&node, &squatter, &genuine);
    let first = |node: &Node| node.shows("pending")["pending"][0].clone();
    let looked_at = first(&node)["entry"].as_str().unwrap().to_owned();
    // The squatter's key alone, and it alone is told.
    let (code, said, _) = run(&node.args(&["reject", "9", &fingerprint(&squatter), "not you"]));
    assert!(code == 0 && said.contains(&format!("refused under the key {}", fingerprint(&squatter))), "{said}");
    assert!(!said.contains(&fingerprint(&genuine)), "{said}");
    let mut told = String::new();
    open[0].read_to_string(&mut told).unwrap();
    assert!(told.contains("not you"), "{told}");
    let left = first(&node);
    assert_eq!((&left["fingerprint"], &left["others"]), (&fingerprint(&genuine).into(), &Value::Array(vec![])));
    assert_eq!(run(&node.args(&["reject", "9", &fingerprint(&squatter)])).0, 1, "it waits no more");
    // What was looked at is no more; what is there now is.
    let (code, _, said) = run(&node.args(&["reject", "9", "--entry", &looked_at]));
    assert!(code == 1 && said.contains("another has its place"), "{said}");
    let now = left["entry"].as_str().unwrap();
    node.does(&["reject", "9", "--entry", now]);
    assert_eq!(node.ids("pending", "pending"), [0; 0]);
    makes_no_sense(&node.args(&["reject", "9", "10", "--entry", now]), &["of one peer"]);
}

#[test]
fn a_grant_says_what_it_replaces_and_where_a_key_finds_no_place() {
    let dir = tempfile::tempdir().unwrap();
    let node = seven(&dir.path().join("seven"), &[]);
    let (squatter, other, genuine) = (peer(9, 0xBB), peer(9, 0xCC), peer(9, 0x11));
    let _open = two_keys(&node, &squatter, &other);
    let conflicts = |pending: &Value| pending[0]["conflicts"] == 2;
    let _third = ask(&node, &genuine, conflicts);
    // From the address of the two before it, it finds no place; the way round that is told.
    let (_, said, _) = run(&node.args(&["pending", "9"]));
    assert!(!said.contains(&fingerprint(&genuine)), "{said}");
    for way in ["one key of each source is kept", "trustkeep grant", "--key KEY"] {
        assert!(said.contains(way), "{way}: {said}");
    }
    node.refuses(&["approve", "9", &fingerprint(&genuine)], &["no key that waits", "grant the key"]);
    let key = genuine.public_key().to_base64();
    let (code, said, _) = run(&node.args(&["grant", "9", &key]));
    assert_eq!(code, 0);
    for waited in [&squatter, &other] {
        assert!(said.contains(&format!("waiting for an operator under the key {}", fingerprint(waited))), "{said}");
    }
    let again = |with: &FileIdentity| run(&node.args(&["grant", "9", &with.public_key().to_base64(), "--json"])).1;
    assert!(again(&other).contains(&format!("was trusted under the key {}", fingerprint(&genuine))));
    // Nothing was there: nothing is told.
    let (code, said, _) = run(&node.args(&["grant", "10", &peer(10, 0x12).public_key().to_base64(), "--json"]));
    assert!(code == 0 && said.contains("\"found\":null"), "{said}");
}

#[test]
fn where_peer_and_key_are_revoked_the_way_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let node = seven(&dir.path().join("seven"), &[]);
    let nine = peer(9, 0x11);
    let key = nine.public_key().to_base64();
    node.does(&["revoke", "9"]);
    let mark = |words: &[&str], part: &str| {
        let (_, out, _) = run(&node.args(words));
        let rows: Value = serde_json::from_str(&out).unwrap();
        rows[part][0]["revocation"].as_str().unwrap().to_owned()
    };
    let (of_peer, way) = (mark(&["revoked", "--json"], "revoked"), ["both revoked", "trustkeep unrevoke"]);
    let one = run(&node.args(&["grant", "9", &key]));
    assert!(one.0 == 1 && !one.2.contains(way[0]), "a lift does it alone: {one:?}");
    node.does(&["revoke", "--key", &key]);
    let of_key = mark(&["revoked", "--keys", "--json"], "revoked_keys");
    for lift in [&of_peer, &of_key] {
        node.refuses(&["grant", "9", &key, "--lift", lift], &way);
    }
    node.does(&["unrevoke", "--key", &key]);
    node.does(&["grant", "9", &key, "--lift", &of_peer]);
}
