//! A key that an operator named for a peer, beside a peers file that names another one.
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

use common::identity;
use program::{Node, init, run, text};
use trustkeep::node::Identity as _;

#[test]
fn asking_again_keeps_the_key_that_was_named_and_says_that_the_peers_file_names_another() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    init(&home, "7");
    let (named, other) = (identity(1).public_key(), identity(2).public_key());
    std::fs::write(home.join("peers.toml"), format!("[[peer]]\nid = 9\npublic_key = \"{}\"\n", other.to_base64()))
        .unwrap();
    let node = Node::start(&home, "127.0.0.1:0");
    let ask = |more: &[&str]| {
        let all: Vec<&str> = ["request", "--home", text(&home), "9"].iter().chain(more).copied().collect();
        let (_, out, err) = run(&all);
        out + &err
    };
    let expected = || node.shows("outgoing")["outgoing"][0]["fingerprint"].as_str().unwrap().to_owned();
    for more in [&["--key", &named.to_base64()][..], &[]] {
        let told = ask(more);
        assert_eq!(expected(), named.fingerprint().to_string(), "{more:?}");
        for key in [&named, &other] {
            assert!(told.contains(&key.fingerprint().to_string()), "{more:?}: {told}");
        }
    }
    // An operator names another one, or begins anew: no word more than ever.
    let told = ask(&["--key", &other.to_base64()]);
    assert_eq!(expected(), other.fingerprint().to_string());
    assert!(!told.contains(&other.fingerprint().to_string()), "{told}");
    ask(&["--key", &named.to_base64()]);
    run(&["cancel", "--home", text(&home), "9"]);
    ask(&[]);
    assert_eq!(expected(), other.fingerprint().to_string());
}
