//! What an operator would not see unless the program told it:
//!
//! - trusted peers without a key, and keys of several peers, in an import;
//! - whose clock is wrong; and, seldom, that no connection can be accepted;
//! - where a node listens that was given a name or a port;
//! - that a key is another peer's, or the node's own; and each command with the home that it is about.
#![allow(
    unreachable_pub,
    missing_docs,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod common;
mod program;
mod runs;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{eventually, message_from, now};
use program::{Node, init};
use runs::*;
use serde_json::{Value, json};
use trustkeep::node::FileIdentity;
use trustkeep::wire::message::Kind;

const OTHER_KEY: &str = "5zTqbCtiV95yNV5HKqBaTEh+a0Y8Ap7TBt8vAbVja1g=";

fn import(dir: &Path, more: &[&str], document: &Value) -> Run {
    run_with(&[&["import", "--dir", text(dir), "-"], more].concat(), &document.to_string())
}

#[track_caller]
fn import_json(dir: &Path, document: &Value) -> Value {
    let Run { code, out, err } = import(dir, &["--json"], document);
    assert_eq!((code, err.as_str()), (0, ""));
    serde_json::from_str(&out).unwrap()
}

#[test]
fn an_import_tells_which_peers_it_made_trusted_without_a_key() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let document =
        json!({"trusted": [{"node_id": 4}, {"node_id": 9, "public_key": KEY}, {"node_id": 3, "public_key": null}]});
    let Run { code, out, err } = import(&dir, &[], &document);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("unbound, without a `public_key`: 2 of the trusted: 3, 4\n"), "{out}");

    // Of many the first are named and all are counted; of those that were there nothing is said again.
    let many: Vec<Value> = (3..43).map(|peer| json!({"node_id": peer, "public_key": null})).collect();
    let dir_of_json = home.path().join("json");
    assert_eq!(import_json(&dir_of_json, &document)["unbound_peers"], json!([3, 4]));
    let Run { code, out, err } = import(&dir_of_json, &["--json"], &json!({"trusted": many}));
    assert_eq!(code, 1, "peer 9 is trusted otherwise: {err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    let first: Vec<u32> = (5..9).chain(10..22).collect();
    assert_eq!((&told["unbound"], &told["unbound_peers"]), (&json!(37), &json!(first)));
    assert!(import(&dir_of_json, &[], &json!({"trusted": many})).out.find("unbound").is_none());

    // Its twin: with a key there is nothing to tell.
    let told = import_json(&home.path().join("keyed"), &json!({"trusted": [{"node_id": 9, "public_key": KEY}]}));
    assert_eq!((&told["unbound"], &told["unbound_peers"]), (&json!(0), &json!([])));
    // Nor of what the document itself revokes.
    let document = json!({"trusted": [{"node_id": 4}], "revoked": [{"node_id": 4}]});
    let Run { out, .. } = import(&home.path().join("revoked"), &["--json"], &document);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["unbound"], 0);
}

#[test]
fn an_import_tells_of_a_key_under_several_peers_and_strict_refuses_it() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let document = json!({"trusted": [
        {"node_id": 7, "public_key": KEY},
        {"node_id": 5, "public_key": OTHER_KEY},
        {"node_id": 6, "public_key": KEY},
    ]});
    let Run { code, err, .. } = import(&dir, &["--strict"], &document);
    assert_eq!(code, 1);
    assert!(err.contains("several peers have one key, and with --strict nothing was changed"), "{err}");
    assert!(!dir.exists());

    let Run { code, err, .. } = import(&dir, &[], &document);
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!((code, lines.len()), (0, 1), "{err}");
    assert!(err.starts_with("trustkeep: one key under 2 peers, ") && err.ends_with(": 6, 7\n"), "{err}");

    // The other one is in the store already; what was so before is told no more.
    let told = import_json(&dir, &json!({"trusted": [{"node_id": 8, "public_key": OTHER_KEY}]}));
    let [shared] = told["shared_keys"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!(
        (&shared["public_key"], &shared["peers"], &shared["count"]),
        (&json!(OTHER_KEY), &json!([5, 8]), &json!(2))
    );
    assert!(err.contains(": ") && shared["fingerprint"].as_str().unwrap().contains(':'));
    let Run { code, err, .. } = import(&dir, &["--strict"], &document);
    assert_eq!((code, err.as_str()), (0, ""), "unchanged");

    // Its twin: one key each is fine.
    let document = json!({"trusted": [{"node_id": 1, "public_key": KEY}, {"node_id": 2, "public_key": OTHER_KEY}]});
    let Run { code, err, .. } = import(&home.path().join("each"), &["--strict"], &document);
    assert_eq!((code, err.as_str()), (0, ""));
}

/// Node 7, by these words, which end in those of the program; and its log.
fn seven(words: &[&str], home: &Path) -> (Node, PathBuf) {
    init(home, "7");
    let log = home.join("log");
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .args(["node", "--json", "--home", text(home), "--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).expect("it did not start");
    (Node { home: home.to_owned(), child, listen: ready["listen"].as_str().unwrap().to_owned() }, log)
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_trustkeep");

#[test]
fn a_message_that_is_dropped_for_its_time_is_told_with_who_it_says_it_is_from() {
    let dir = tempfile::tempdir().unwrap();
    let (node, log) = seven(&[PROGRAM], &dir.path().join("seven"));
    let nine = FileIdentity::from_seed(id(9), &[9; 32]).unwrap();
    let message = message_from(&nine, Kind::Request, |draft| {
        draft.to = id(7);
        draft.stamp = now().saturating_add(-86_400_000);
    });
    let mut stream = TcpStream::connect(&node.listen).unwrap();
    stream.write_all(&message).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let said = || std::fs::read_to_string(&log).unwrap();
    eventually("the log names it", || {
        let said = said();
        let line = said.lines().find(|line| line.contains("s behind our clock"));
        line.is_some_and(|line| line.contains("; it says it is from node 9, and came from 127.0.0.1"))
    });
    let status = node.shows("status");
    assert_eq!(status["skewed_peers"], json!([["too_old", 9]]), "{status}");
    // Its twin: what is in time is taken, and nothing is said of its clock.
    let message = message_from(&nine, Kind::Request, |draft| draft.to = id(7));
    let mut stream = TcpStream::connect(&node.listen).unwrap();
    stream.write_all(&message).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    eventually("it waits", || node.ids("pending", "pending") == [9]);
    assert_eq!(said().matches("our clock").count(), 1);
}

#[test]
fn that_no_connection_can_be_accepted_is_told_once_and_not_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    let (node, log) = seven(&["sh", "-c", "ulimit -n 40; exec \"$@\"", "sh", PROGRAM], &home);
    let said = || std::fs::read_to_string(&log).unwrap();
    let told = || said().matches("cannot accept connections").count();
    let address: SocketAddr = node.listen.parse().unwrap();
    let held: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
    eventually("it is told", || told() > 0);
    // Longer than it waits before the next tries. A busy machine makes fewer of them.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(told(), 1, "{}", said());
    // And it recovers.
    drop(held);
    eventually("it is asked", || program::run(&node.args(&["status"])).0 == 0);
}

#[test]
fn a_node_listens_where_a_name_or_a_port_says() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    init(&home, "7");
    for place in ["localhost:0", ":0"] {
        let node = Node::start(&home, place);
        let address: SocketAddr = node.listen.parse().unwrap();
        assert!(address.port() != 0 && (place == ":0") == address.ip().is_unspecified(), "{place}: {address}");
        // Whichever of the machine's own addresses it is, it is reached there.
        let to = if address.ip().is_loopback() { address } else { SocketAddr::from(([127, 0, 0, 1], address.port())) };
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(b"{}").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        node.does(&["status"]);
        assert!(node.signal("TERM").success());
    }
    fails(&["node", "--home", text(&home), "--listen", "nowhere.invalid:4440"], &["nowhere.invalid", "--listen"]);
    let node = Node::start(&home, "localhost:0");
    let other = dir.path().join("eight");
    init(&other, "8");
    let (ip, port) = node.listen.rsplit_once(':').unwrap();
    if ip == "127.0.0.1" {
        // No other address of the name is left.
        fails(&["node", "--home", text(&other), "--listen", &format!("127.0.0.1:{port}")], &["in use"]);
    }
    let run = runs::run(&["node", "--home", text(&other), "--listen", "localhost"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("localhost:4440"), "{}", run.err);
}

#[test]
fn a_key_that_is_another_peers_or_the_nodes_own_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    init(&home, "7");
    let identity: Value = json(&["id", "--home", text(&home), "--json"]);
    let own = identity["public_key"].as_str().unwrap();
    let oddities = ["--allow", "7", "--allow", &format!("8,{own}"), "--allow", "9"];
    let log = dir.path().join("log");
    let mut child = Command::new(PROGRAM)
        .args(["node", "--json", "--home", text(&home), "--listen", "127.0.0.1:0"])
        .args(oddities)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let node = Node { home: home.clone(), child, listen: String::new() };
    eventually("the log tells of `--allow`", || {
        let said = std::fs::read_to_string(&log).unwrap();
        said.contains("names this node itself") && said.contains("names this node's own key for another peer")
    });
    assert_eq!(std::fs::read_to_string(&log).unwrap().matches("`--allow`").count(), 2, "and not of 9");

    node.refuses(&["grant", "5", own], &["peer 5", "this node's own"]);
    node.refuses(&["grant", "7", KEY], &["this node itself"]);
    node.does(&["grant", "5", KEY]);
    let (code, out, err) = program::run(&node.args(&["grant", "6", KEY]));
    assert_eq!(
        (code, err.as_str()),
        (0, "trustkeep: peer 6 has the key of peer 5: whoever holds it is each of them\n")
    );
    assert!(out.contains("done"), "{out}");
    let (_, out, _) = program::run(&node.args(&["grant", "4", KEY, "--json"]));
    let told: Value = serde_json::from_str(&out).unwrap();
    let message = told["results"][0]["message"].as_str().or(told["message"].as_str()).unwrap();
    assert!(message.contains("peer 4 has the key of peer 5 and 1 more"), "{told}");
    // Its twin: a key of its own says nothing.
    node.does(&["grant", "3", OTHER_KEY]);

    // By an import, too, which knows the node that lives there.
    assert!(node.signal("TERM").success());
    let document = json!({"trusted": [{"node_id": 12, "public_key": own}, {"node_id": 13, "public_key": null}],
        "pending": [{"node_id": 14, "public_key": own}]});
    let run = run_with(&["import", "--home", text(&home), "--json", "-"], &document.to_string());
    let told: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, told["findings"].as_array().unwrap().len()), (1, 2), "{told}");
    assert!(
        told["findings"].as_array().unwrap().iter().all(|it| it["why"].as_str().unwrap().contains("this node itself"))
    );
}

#[test]
fn advice_names_the_home_that_the_command_is_about() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("the seven");
    let named = format!("--home '{}'", text(&home));
    fails(&["list", "--home", text(&home)], &[&format!("`trustkeep init {named}`")]);
    init(&home, "7");
    let control = dir.path().join("run.sock");
    fails(
        &["list", "--home", text(&home), "--control", text(&control)],
        &[&format!("`trustkeep node {named} --control ")],
    );
    fails(&["list", "--control", text(&control)], &["`trustkeep node --home HOME --control "]);
    let node = Node::start(&home, "127.0.0.1:0");
    node.does(&["revoke", "9"]);
    node.refuses(&["grant", "9", KEY], &[&format!("(trustkeep revoked {named})")]);
    assert!(node.signal("TERM").success());
    let document = json!({"trusted": [{"node_id": 9, "public_key": KEY}]});
    let run = run_with(&["import", "--home", text(&home), "-"], &document.to_string());
    assert!(run.err.contains(&format!("`trustkeep inspect {named}`")), "{}", run.err);
    let dir_of_store = home.join("store");
    let run = run_with(&["import", "--dir", text(&dir_of_store), "-"], &document.to_string());
    assert!(run.err.contains(&format!("`trustkeep inspect --dir '{}'`", text(&dir_of_store))), "{}", run.err);
}

#[test]
fn the_option_for_a_mounted_secret_is_named_only_where_it_is_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    init(&home, "7");
    let key = home.join("identity.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let document = json!({"trusted": []}).to_string();
    for place in [["--home", text(&home)], ["--dir", text(&home.join("store"))]] {
        let run = run_with(&["import", place[0], place[1], "-"], &document);
        assert!(run.code == 1 && run.err.contains("--key-group"), "{}", run.err);
        let group = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&key).unwrap()).to_string();
        let run = run_with(&["import", place[0], place[1], "--key-group", &group, "-"], &document);
        assert_eq!((run.code, run.err.as_str()), (0, ""));
    }
    let run = fails(&["rekey", "--home", text(&home)], &["only a file of the node's own"]);
    assert!(!run.err.contains("--key-group"), "{}", run.err);
}

#[test]
fn a_peer_with_several_addresses_is_asked_at_the_first_that_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (home, other) = (dir.path().join("seven"), dir.path().join("nine"));
    init(&home, "7");
    init(&other, "9");
    let nine = Node::start(&other, "127.0.0.1:0");
    let port = nine.listen.rsplit_once(':').unwrap().1;
    // Nothing listens at the first, and the second is a name.
    let (dead, alive) = ("127.0.0.1:1", format!("localhost:{port}"));
    let args = ["peer", "add", "--home", text(&home), "9", "--address", dead, "--address", &alive, "--address", dead];
    assert_eq!(json(&[&args[..], &["--json"]].concat())["changed"], true);
    let listed = json(&["peer", "list", "--home", text(&home), "--json"]);
    assert_eq!(
        (&listed["peers"][0]["address"], &listed["peers"][0]["addresses"]),
        (&json!(dead), &json!([dead, alive]))
    );
    let shown = done(&["peer", "list", "--home", text(&home)]);
    assert!(shown.contains(&format!("{dead}, {alive}")), "{shown}");
    let seven = Node::start(&home, "127.0.0.1:0");
    // Whether the system has told already what the name stands for or not: it is tried again.
    let _ = program::run(&seven.args(&["request", "9"]));
    eventually("it is asked", || nine.ids("pending", "pending") == [7]);
}
