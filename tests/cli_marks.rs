//! The program, where a peer or a key is revoked or ignored:
//!
//! - a revocation marks whatever the node knows, and says what else there was;
//! - who waits in spite of it is shown with it, and comes back only by its name;
//! - a key's mark holds under every id; what is ignored is neither shown nor answered.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::time::{Duration, Instant};

use serde_json::Value;
use trustkeep::{NodeId, TrustRecord, TrustStore};

use program::{Node, homes, init, makes_no_sense, pair, run, text};

/// What a command that is done says.
#[track_caller]
fn says(node: &Node, args: &[&str]) -> String {
    let (code, out, err) = run(&node.args(args));
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    out
}

fn pending(node: &Node, id: u64) -> Option<Value> {
    let rows = node.shows("pending")["pending"].clone();
    rows.as_array().unwrap().iter().find(|row| row["node_id"] == id).cloned()
}

/// Waits until it is so, however busy the machine is.
#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn revocation(node: &Node, id: u64) -> String {
    let rows = node.shows("revoked")["revoked"].clone();
    let row = rows.as_array().unwrap().iter().find(|row| row["node_id"] == id).cloned();
    row.unwrap()["revocation"].as_str().unwrap().to_owned()
}

fn own(node: &Node, field: &str) -> String {
    node.shows("status")[field].as_str().unwrap().to_owned()
}

#[test]
fn a_peer_that_revokes_itself_first_is_revoked_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    // 7 trusts 9 unasked: they share a network.
    let (homes, addresses) = homes(&dir, |key| format!("public_key = \"{key}\"\nnetworks = [5]\n"));
    let seven = Node::start_with(&homes[0], &addresses[0], &["--own-network", "5"]);
    let nine = Node::start(&homes[1], &addresses[1]);
    nine.does(&["request", "7"]);
    seven.does(&["wait", "9"]);
    nine.does(&["wait", "7"]);
    // 9 takes its trust back before the operator of 7 comes to it.
    nine.does(&["revoke", "7"]);
    seven.does(&["wait", "9", "--until", "untrusted"]);
    let said = says(&seven, &["revoke", "9"]);
    assert!(said.contains("peer 9: nothing else was there"), "{said}");
    assert_eq!(seven.ids("revoked", "revoked"), [9]);
    let lift = revocation(&nine, 7);
    nine.does(&["request", "7", "--lift", &lift]);
    seven.does(&["wait", "9", "--until", "pending"]);
    let row = pending(&seven, 9).unwrap();
    assert_eq!(row["revocation"], revocation(&seven, 9).as_str());
    assert!(row["revoked_at"].as_i64().unwrap() > 0 && row["key_revocation"].is_null());
    assert_eq!(seven.ids("list", "trusted"), [0; 0]);
    let listing = says(&seven, &["pending"]);
    assert!(listing.contains("REVOKED: peer 9 is revoked since") && listing.contains("--lift"), "{listing}");
    // Again, and of a peer that nobody has heard of: done, and said.
    let said = says(&seven, &["revoke", "9"]);
    assert!(said.contains("was waiting for an operator, was revoked already"), "{said}");
    assert!(says(&seven, &["revoke", "55"]).contains("nothing else was there"));
    assert_eq!(seven.ids("revoked", "revoked"), [9, 55]);
}

#[test]
fn a_script_that_approves_known_fingerprints_brings_no_revoked_peer_back() {
    let dir = tempfile::tempdir().unwrap();
    let (seven, nine) = pair(&dir);
    let known = own(&nine, "fingerprint");
    let script = || seven.args(&["approve", "9", &known]).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let approve = || run(&script().iter().map(String::as_str).collect::<Vec<_>>());
    nine.does(&["request", "7"]);
    seven.does(&["wait", "9", "--until", "pending"]);
    assert_eq!(approve().0, 0);
    nine.does(&["wait", "7"]);
    seven.does(&["revoke", "9"]);
    nine.does(&["wait", "7", "--until", "untrusted"]);
    nine.does(&["request", "7"]);
    seven.does(&["wait", "9", "--until", "pending"]);
    let (code, out, err) = approve();
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("revoked") && err.contains("trustkeep revoked"), "{err}");
    assert!(!err.contains(&revocation(&seven, 9)), "nothing to paste: {err}");
    assert_eq!((seven.ids("list", "trusted"), seven.ids("revoked", "revoked")), (vec![], vec![9]));
    seven.does(&["approve", "9", &known, "--lift", &revocation(&seven, 9)]);
    assert_eq!((seven.ids("list", "trusted"), seven.ids("revoked", "revoked")), (vec![9], vec![]));
}

#[test]
fn an_approval_of_what_was_seen_before_a_revocation_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (seven, nine) = pair(&dir);
    nine.does(&["request", "7"]);
    seven.does(&["wait", "9", "--until", "pending"]);
    // One operator looks, another revokes, the peer asks again.
    let seen = pending(&seven, 9).unwrap()["fingerprint"].as_str().unwrap().to_owned();
    seven.does(&["revoke", "9"]);
    nine.does(&["request", "7"]);
    until("9 does not wait again", || pending(&seven, 9).is_some());
    seven.refuses(&["approve", "9", &seen], &["revoked"]);
    // The same, where the first of them saw an older revocation.
    let older = revocation(&seven, 9);
    seven.does(&["revoke", "9"]);
    nine.does(&["request", "7"]);
    until("9 does not wait again", || pending(&seven, 9).is_some());
    seven.refuses(&["approve", "9", &seen, "--lift", &older], &["revoked"]);
    makes_no_sense(
        &seven.args(&["approve", "9", &seen, "--lift", "12"]),
        &["--lift", "16 lower-case hexadecimal digits"],
    );
    assert_eq!(seven.ids("list", "trusted"), [0; 0]);
    seven.does(&["approve", "9", &seen, "--lift", &revocation(&seven, 9)]);
}

#[test]
fn a_plain_grant_of_a_marked_peer_or_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    init(&home, "7");
    let seven = Node::start(&home, "127.0.0.1:0");
    let key = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";
    seven.does(&["revoke", "9"]);
    seven.refuses(&["grant", "9", key], &["revoked", "--lift"]);
    seven.refuses(&["grant", "9", key, "--lift", "00000000000000aa"], &["revoked"]);
    assert_eq!((seven.ids("list", "trusted"), seven.ids("revoked", "revoked")), (vec![], vec![9]));
    seven.does(&["grant", "9", key, "--lift", &revocation(&seven, 9)]);
    assert_eq!((seven.ids("list", "trusted"), seven.ids("revoked", "revoked")), (vec![9], vec![]));
    // The same of a key, under an id that nobody revoked.
    seven.does(&["revoke", "--key", key]);
    seven.refuses(&["grant", "10", key], &["revoked", "--lift"]);
    let (code, out, _) = run(&seven.args(&["revoked", "--keys", "--json"]));
    let rows: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    seven.does(&["grant", "10", key, "--lift", rows["revoked_keys"][0]["revocation"].as_str().unwrap()]);
    assert_eq!(seven.ids("list", "trusted"), [10]);
}

#[test]
fn a_request_that_does_not_leave_lifts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    init(&home, "7");
    let seven = Node::start_with(&home, "127.0.0.1:0", &["--auto-approve"]);
    seven.does(&["revoke", "9"]);
    let id = revocation(&seven, 9);
    seven.refuses(&["request", "9"], &["revoked", "trustkeep revoked"]);
    seven.refuses(&["request", "9", "--lift", "00000000000000aa"], &["revoked"]);
    // 9 has no address.
    seven.refuses(&["request", "9", "--lift", &id], &["could not be sent"]);
    assert_eq!(seven.shows("outgoing")["outgoing"][0]["lift"], id.as_str());
    assert_eq!(revocation(&seven, 9), id);
    seven.does(&["cancel", "9"]);
    assert_eq!((revocation(&seven, 9), seven.ids("outgoing", "outgoing")), (id.clone(), vec![]));
    // Nor over a restart.
    seven.refuses(&["request", "9", "--lift", &id], &["could not be sent"]);
    assert_eq!(seven.signal("TERM").code(), Some(0));
    let seven = Node::start(&home, "127.0.0.1:0");
    assert_eq!((revocation(&seven, 9), seven.ids("outgoing", "outgoing")), (id, vec![9]));
    seven.does(&["unrevoke", "9"]);
    seven.refuses(&["unrevoke", "9"], &["peer 9", "nothing to do"]);
    assert_eq!(seven.ids("revoked", "revoked"), [0; 0]);
}

#[test]
fn a_revoked_key_and_an_ignored_peer_are_kept_out_by_command() {
    let dir = tempfile::tempdir().unwrap();
    let (homes, addresses) = homes(&dir, |_| String::new());
    // 7 trusts several ids under the key of 9.
    let seven = Node::start(&homes[0], &addresses[0]);
    let nine = Node::start(&homes[1], &addresses[1]);
    let key = own(&nine, "public_key");
    assert_eq!(seven.signal("TERM").code(), Some(0));
    let store = TrustStore::open(homes[0].join("store")).unwrap();
    for id in [9, 10, 11] {
        let record = TrustRecord::new(NodeId::new(id).unwrap(), key.parse::<trustkeep::PublicKey>().unwrap());
        store.grant(record).unwrap().wait_durable().unwrap();
    }
    drop(store);
    let seven = Node::start_with(&homes[0], &addresses[0], &["--auto-approve"]);
    assert_eq!(seven.ids("list", "trusted"), [9, 10, 11]);
    assert!(says(&seven, &["revoke", "--key", &key]).contains("3 peers were trusted under it"));
    assert_eq!((seven.ids("list", "trusted"), seven.ids("revoked", "revoked")), (vec![], vec![]));
    let keys = says(&seven, &["revoked", "--keys", "--json"]);
    let keys: Value = serde_json::from_str(&keys).unwrap();
    assert_eq!(keys["revoked_keys"][0]["public_key"], key.as_str());
    assert!(says(&seven, &["revoked", "--keys"]).contains(&own(&nine, "fingerprint")));
    nine.does(&["request", "7"]);
    seven.does(&["wait", "9", "--until", "pending"]);
    assert_eq!(pending(&seven, 9).unwrap()["key_revocation"], keys["revoked_keys"][0]["revocation"]);
    seven.refuses(&["approve", "9", &own(&nine, "fingerprint")], &["trustkeep revoked --home ", " --keys)"]);
    seven.refuses(&["request", "9", "--key", &key], &["trustkeep revoked --home ", " --keys)"]);

    seven.does(&["ignore", "9"]);
    assert_eq!(pending(&seven, 9), None);
    nine.does(&["request", "7"]);
    let ignored = |node: &Node| {
        let status = node.shows("status");
        let counters = status["counters"].as_array().unwrap().clone();
        counters.iter().any(|counter| counter[0] == "ignored")
    };
    until("nothing was counted as ignored", || ignored(&seven));
    assert_eq!(pending(&seven, 9), None);
    let listing: Value = serde_json::from_str(&says(&seven, &["ignored", "--json"])).unwrap();
    assert_eq!((&listing["ignored"][0]["node_id"], &listing["ignored_keys"]), (&9.into(), &Value::Array(vec![])));
    seven.refuses(&["request", "9"], &["ignored", "unignore"]);
    seven.does(&["unignore", "9"]);
    seven.refuses(&["unignore", "9"], &["nothing to do"]);
    seven.does(&["ignore", "--key", &key]);
    assert!(says(&seven, &["ignored"]).contains("IGNORED KEYS"));
    seven.does(&["unignore", "--key", &key]);
    // With the mark forgotten it is heard. But its request was ignored away while it waited, so that the setting which trusts
    // everybody leaves this key to the operator (R-171, R-284).
    seven.does(&["unrevoke", "--key", &key]);
    nine.does(&["request", "7"]);
    seven.does(&["wait", "9", "--until", "pending"]);
    seven.does(&["approve", "9", &own(&nine, "fingerprint")]);
    seven.does(&["wait", "9"]);
    seven.refuses(&["ignore", "9"], &["trusted"]);
    // The command line has a peer or a key.
    for command in ["revoke", "ignore", "unignore", "unrevoke"] {
        assert_eq!(run(&seven.args(&[command])).0, 2, "{command}");
        assert_eq!(run(&seven.args(&[command, "9", "--key", &key])).0, 2, "{command}");
        makes_no_sense(&seven.args(&[command, "--key", "x"]), &["--key", "base64"]);
    }
}

#[test]
fn an_import_lifts_what_it_is_told_to_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (store, file) = (dir.path().join("store"), dir.path().join("trust.json"));
    let opened = TrustStore::open(&store).unwrap();
    let id = |number| NodeId::new(number).unwrap();
    for number in [5, 6] {
        opened.revoke(id(number)).unwrap().receipt.wait_durable().unwrap();
    }
    let key = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";
    let parsed: trustkeep::PublicKey = key.parse().unwrap();
    opened.revoke_key(&parsed).unwrap().receipt.wait_durable().unwrap();
    let (fifth, of_key) = (opened.revocation(id(5)).unwrap().id, opened.key_revocation(&parsed).unwrap().id);
    opened.close().unwrap();
    drop(opened);
    let document = format!(
        r#"{{"trusted":[{{"node_id":5}},{{"node_id":6}},{{"node_id":7,"public_key":"{key}"}},{{"node_id":8}}]}}"#
    );
    std::fs::write(&file, document).unwrap();
    let import = |lifts: &[String]| {
        let mut args = vec!["import", "--dir", text(&store), text(&file)];
        args.extend(lifts.iter().flat_map(|lift| ["--lift", lift.as_str()]));
        let (code, _, err) = run(&args);
        let opened = TrustStore::open(&store).unwrap();
        let trusted: Vec<u32> = opened.snapshot().iter().map(|record| record.node_id.get()).collect();
        (code, err, trusted, opened.revoked().len(), opened.revoked_keys().len())
    };
    let (code, err, trusted, marks, keys) = import(&[]);
    assert_eq!((code, trusted, marks, keys), (1, vec![8], 2, 1), "{err}");
    assert!(err.contains("the store has revoked this peer") && err.contains("the store has revoked this key"), "{err}");
    let (code, _, trusted, marks, keys) = import(&["00000000000000aa".to_owned()]);
    assert_eq!((code, trusted, marks, keys), (1, vec![8], 2, 1));
    let (code, _, trusted, marks, keys) = import(&[fifth.to_string()]);
    assert_eq!((code, trusted, marks, keys), (1, vec![5, 8], 1, 1));
    let (_, _, trusted, _, keys) = import(&[of_key.to_string()]);
    assert_eq!((trusted, keys), (vec![5, 7, 8], 0));
    // A revocation of the document's own is lifted by nothing, wherever it stands.
    let document = r#"{"trusted":[{"node_id":6}],"revoked":[{"node_id":6,"id":"00000000000000bb"}]}"#;
    std::fs::write(&file, document).unwrap();
    let opened = TrustStore::open(&store).unwrap();
    let sixth = opened.revocation(id(6)).unwrap();
    drop(opened);
    let (code, _, trusted, marks, _) = import(&[sixth.id.to_string(), "00000000000000bb".to_owned()]);
    assert_eq!((code, trusted, marks), (1, vec![5, 7, 8], 1));
    assert_eq!(TrustStore::open(&store).unwrap().revocation(id(6)), Some(sixth));
    // The same of a key.
    let opened = TrustStore::open(&store).unwrap();
    let mark = opened.revoke_key(&parsed).unwrap();
    mark.receipt.wait_durable().unwrap();
    let of_key = opened.key_revocation(&parsed).unwrap();
    drop(opened);
    let document =
        format!(r#"{{"trusted":[{{"node_id":9,"public_key":"{key}"}}],"revoked_keys":[{{"public_key":"{key}"}}]}}"#);
    std::fs::write(&file, document).unwrap();
    let (_, _, trusted, ..) = import(&[of_key.id.to_string()]);
    assert!(!trusted.contains(&9), "{trusted:?}");
    assert_eq!(TrustStore::open(&store).unwrap().key_revocation(&parsed), Some(of_key));
}

#[test]
fn marks_and_the_ignored_come_back_as_they_were_exported() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    init(&home, "7");
    let seven = Node::start(&home, "127.0.0.1:0");
    let key = own(&seven, "public_key");
    for args in [
        &["revoke", "5"][..],
        &["revoke", "--key", "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc="],
        &["ignore", "6"],
        &["ignore", "--key", &key],
    ] {
        seven.does(args);
    }
    let lift = revocation(&seven, 5);
    seven.refuses(&["request", "5", "--lift", &lift], &["could not be sent"]);
    drop(seven);
    let (copy, first, second) =
        (dir.path().join("copy"), dir.path().join("first.json"), dir.path().join("second.json"));
    let store = home.join("store");
    let export = |store: &std::path::Path, file: &std::path::Path| {
        let (code, _, err) = run(&["export", "--dir", text(store), "--out", text(file), "--with-nonces"]);
        assert_eq!(code, 0, "{err}");
        std::fs::read_to_string(file).unwrap()
    };
    let written = export(&store, &first);
    for name in ["\"revoked_keys\"", "\"ignored\"", "\"ignored_keys\"", "\"lift\"", "\"id\""] {
        assert!(written.contains(name), "{name}: {written}");
    }
    // The request would lift, so it has to be named.
    let (code, _, err) = run(&["import", "--dir", text(&copy), "--lift", &lift, text(&first)]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(export(&copy, &second), written);
    // A key that a document revokes ends the trust that a store has under it, and what the document says itself.
    let (target, file) = (dir.path().join("target"), dir.path().join("keys.json"));
    let opened = TrustStore::open(&target).unwrap();
    let parsed: trustkeep::PublicKey = key.parse().unwrap();
    opened.grant(TrustRecord::new(NodeId::new(20).unwrap(), parsed)).unwrap().wait_durable().unwrap();
    drop(opened);
    let document = format!(
        r#"{{"trusted":[{{"node_id":21,"public_key":"{key}"}},{{"node_id":22}}],"revoked_keys":[{{"public_key":"{key}"}}]}}"#
    );
    std::fs::write(&file, document).unwrap();
    let (code, _, err) = run(&["import", "--dir", text(&target), text(&file)]);
    assert_eq!(code, 1, "{err}");
    let opened = TrustStore::open(&target).unwrap();
    let trusted: Vec<u32> = opened.snapshot().iter().map(|record| record.node_id.get()).collect();
    assert_eq!(trusted, [22]);
}
