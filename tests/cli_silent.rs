//! What peers that do not answer cannot do to an operator:
//!
//! - a restriction waits for no message to another peer, also on one command line;
//! - requests that are being sent keep no other command from being heard and done.
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

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{black_hole, identity};
use program::{Node, eventually, init, run, text};
use tempfile::TempDir;
use trustkeep::node::Identity as _;

/// A node whose peers file has these peers, all at an address where nobody answers.
fn node_with(dir: &TempDir, peers: impl Iterator<Item = u32>, address: std::net::SocketAddr) -> Node {
    let home = dir.path().join("home");
    init(&home, "7");
    let mut file = String::new();
    for peer in peers {
        writeln!(file, "[[peer]]\nid = {peer}\naddress = \"{address}\"").unwrap();
    }
    std::fs::write(home.join("peers.toml"), file).unwrap();
    started(&home)
}

fn started(home: &Path) -> Node {
    let mut child = Command::new(env!("CARGO_BIN_EXE_trustkeep"))
        .args(["node", "--json", "--home", text(home), "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("listen"), "{line}");
    Node { home: home.to_owned(), child, listen: String::new() }
}

#[test]
fn all_of_one_command_line_are_revoked_before_any_peer_is_waited_for() {
    let (hole, _fill, _socket) = black_hole();
    let dir = tempfile::tempdir().unwrap();
    let node = node_with(&dir, 20..28, hole);
    let ids: Vec<String> = (20..28).chain([9]).map(|peer| peer.to_string()).collect();
    for (peer, id) in (20..28).chain([9]).zip(&ids) {
        node.does(&["grant", id, &identity(peer).public_key().to_base64()]);
    }
    let mut all = vec!["revoke"];
    all.extend(ids.iter().map(String::as_str));
    let mut revoke =
        Command::new(env!("CARGO_BIN_EXE_trustkeep")).args(node.args(&all)).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(revoke.stdout.take().unwrap());
    let mut told = String::new();
    out.read_line(&mut told).unwrap();
    // Once anything is said of the first peer, the last is revoked.
    assert_eq!(run(&node.args(&["check", "9"])).0, 1, "peer 9 is trusted though the first was told of: {told}");
    out.read_to_string(&mut told).unwrap();
    assert!(revoke.wait().unwrap().success());
    // What else there was, and whether the peer was told, stands with each.
    for id in &ids {
        assert!(
            told.contains(&format!("peer {id}: was trusted\npeer {id}: done, durable as of generation ")),
            "{told}"
        );
    }
    assert_eq!(told.matches(": not told yet: ").count(), 9, "{told}");
    // The twin: one that there is nothing of is said so of, too.
    let (code, out, _) = run(&node.args(&["revoke", "30", "31"]));
    assert!(code == 0 && out.contains("peer 31: nothing else was there\npeer 31: done"), "{out}");
}

#[test]
fn requests_that_are_being_sent_keep_no_command_out() {
    let (hole, _fill, _socket) = black_hole();
    let dir = tempfile::tempdir().unwrap();
    let node = node_with(&dir, 20..90, hole);
    node.does(&["grant", "9", &identity(9).public_key().to_base64()]);
    let socket = node.home.join("control.sock");
    let asked: Vec<UnixStream> = (20..90)
        .map(|peer| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            let ask = format!(
                "{{\"ask\":\"request\",\"peer\":{peer},\"justification\":\"\",\"expected_key\":null,\"force\":false}}\n"
            );
            stream.write_all(ask.as_bytes()).unwrap();
            stream
        })
        .collect();
    let answers: Vec<_> = asked
        .into_iter()
        .map(|stream| {
            std::thread::spawn(move || {
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).unwrap();
                line
            })
        })
        .collect();
    eventually("a request too many is refused", || answers.iter().any(std::thread::JoinHandle::is_finished));
    for args in [&["revoke", "9"][..], &["list"], &["ignore", "10"], &["status"]] {
        let (code, _, err) = run(&node.args(args));
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
    }
    assert_eq!(run(&node.args(&["check", "9"])).0, 1);
    // Its twin: requests have a limit, of which they are told, and those within it are heard.
    let answers: Vec<String> = answers.into_iter().map(|answer| answer.join().unwrap()).collect();
    let refused = answers.iter().filter(|answer| answer.contains("64 requests are being sent already")).count();
    assert!((1..=6).contains(&refused), "{answers:?}");
    assert!(answers.iter().filter(|answer| answer.contains("not_sent")).count() >= 64, "{answers:?}");
}
