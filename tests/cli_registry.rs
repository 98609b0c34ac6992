//! A peers file that was changed while the node was down, as its operator meets it (R-158, R-159): few keys that changed
//! end trust, many wait for `trustkeep registry confirm`. And one that was put back (R-226), which is heard again after
//! `trustkeep registry reset`.
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

use std::path::Path;
use std::sync::Arc;

use program::{Node, eventually, init, run, text};
use trustkeep::config::Policy;
use trustkeep::node::{FileIdentity, Identity as _, Registry, RegistryEntry, RegistryError, Revision};
use trustkeep::wire::message::Kind;
use trustkeep::{NodeId, TrustStore};

fn key(number: u8) -> String {
    let identity = FileIdentity::from_seed(NodeId::new(1).unwrap(), &[number; 32]).unwrap();
    identity.public_key().to_base64()
}

fn fingerprint(number: u8) -> String {
    let identity = FileIdentity::from_seed(NodeId::new(1).unwrap(), &[number; 32]).unwrap();
    identity.public_key().fingerprint().to_string()
}

/// A home whose node trusts the peers 11 to 20, and whose peers file knows the first so many under another key.
fn home(dir: &Path, other: u8) -> std::path::PathBuf {
    let home = dir.join("seven");
    init(&home, "7");
    let trusted = (11..=20).map(|peer| format!(r#"{{"node_id":{peer},"public_key":"{}"}}"#, key(peer)));
    let document = format!(r#"{{"trusted":[{}]}}"#, trusted.collect::<Vec<_>>().join(","));
    let file = dir.join("trust.json");
    std::fs::write(&file, document).unwrap();
    assert_eq!(run(&["import", "--home", text(&home), text(&file)]).0, 0);
    let peers = (11..=20).map(|peer| {
        let of = if peer - 10 <= other { 100 + peer } else { peer };
        format!("[[peer]]\nid = {peer}\npublic_key = \"{}\"\n", key(of))
    });
    std::fs::write(home.join("peers.toml"), peers.collect::<String>()).unwrap();
    home
}

#[test]
fn many_keys_that_changed_wait_for_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&home(dir.path(), 9), "127.0.0.1:0");
    eventually("the status says so", || !node.shows("status")["registry_disagreement"].is_null());
    let status = node.shows("status");
    assert_eq!(status["registry_disagreement"], serde_json::json!({ "compared": 10, "contradicted": 9 }));
    assert_eq!((&status["healthy"], &status["trusted"]), (&false.into(), &10.into()));
    let (code, told, _) = run(&node.args(&["status"]));
    let line = "registry     DISAGREES: of 10 trusted peers it knows 9 under another key";
    assert!(code == 0 && told.contains(line) && told.contains("saving       works"), "{told}");

    let (code, told, _) = run(&["registry", "list", "--json", "--home", text(&node.home)]);
    let list: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, list["contradicted"].as_array().unwrap().len()), (0, 9));
    let (code, told, _) = run(&["registry", "list", "--home", text(&node.home)]);
    assert!(code == 0 && told.contains("REGISTERED FINGERPRINT"), "{told}");

    let (code, told, err) = run(&["registry", "confirm", "--home", text(&node.home)]);
    assert_eq!((code, err.as_str()), (0, ""), "{told}");
    assert_eq!(node.ids("list", "trusted"), [20]);
    assert_eq!(
        (&node.shows("status")["healthy"], node.shows("status")["registry_disagreement"].is_null()),
        (&true.into(), true)
    );
    let (code, told, err) = run(&["registry", "confirm", "--home", text(&node.home)]);
    assert_eq!((code, told.as_str()), (1, ""));
    assert!(err.contains("trustkeep: the registry needs no decision"), "{err}");
}

#[test]
fn few_keys_that_changed_end_trust() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&home(dir.path(), 2), "127.0.0.1:0");
    eventually("both are gone", || node.ids("list", "trusted").len() == 8);
    eventually("both are told", || node.shows("status")["false_key"]["count"] == 2);
    let status = node.shows("status");
    assert_eq!((&status["healthy"], status["registry_disagreement"].is_null()), (&true.into(), true));
    let counters = status["counters"].as_array().unwrap();
    assert!(counters.contains(&serde_json::json!(["key_mismatch", 2])), "{counters:?}");
    let newest = &status["false_key"];
    let peer = u8::try_from(newest["node_id"].as_u64().unwrap()).unwrap();
    assert!(peer == 11 || peer == 12, "{newest}");
    assert_eq!(newest["expected"], fingerprint(100 + peer), "the registry's");
    assert_eq!(newest["shown"], fingerprint(peer), "the record's");
    assert!(newest["source"].is_null() && newest["ended"] == true && newest["count"] == 2, "{newest}");
    let (code, told, _) = run(&node.args(&["status"]));
    assert!(code == 0 && told.contains(&format!("false keys   2, the newest of peer {peer} at ")), "{told}");
    assert!(told.contains(&format!("expected {}, shown {}", fingerprint(100 + peer), fingerprint(peer))), "{told}");
    let (code, told, _) = run(&["registry", "list", "--home", text(&node.home)]);
    assert_eq!((code, told.as_str()), (0, "no peers that the registry contradicts\n"));
}

/// A registry that numbers its entries, as the peers file does not.
struct Numbered;

impl Registry for Numbered {
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        let key = common::identity(peer.get()).public_key();
        Ok(Some(RegistryEntry::new(key).network(3).revision(Revision(9))))
    }
    fn may_block(&self) -> bool {
        false
    }
}

#[test]
fn a_registry_that_was_put_back_is_heard_again_after_a_reset() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("one");
    init(&home, "1");
    {
        let store = Arc::new(TrustStore::open(home.join("store")).unwrap());
        let policy = Policy::default().own_networks([3]);
        let (manager, _wire, _ends) =
            common::alone_with(store, |builder| builder.registry(Arc::new(Numbered)).policy(policy));
        manager.receive(common::arrived(common::message_from(&common::identity(2), Kind::Request, |_| {}), 1));
        assert!(manager.is_trusted(NodeId::new(2).unwrap()));
        manager.shutdown().unwrap();
    }
    // The peers file knows another key. It numbers nothing, and so it is older than all that had a number.
    let peers = format!("[[peer]]\nid = 2\npublic_key = \"{}\"\n", key(9));
    std::fs::write(home.join("peers.toml"), peers).unwrap();
    let node = Node::start(&home, "127.0.0.1:0");
    let outdated = || {
        let status = node.shows("status");
        status["counters"].as_array().unwrap().iter().any(|counter| counter[0] == "registry_outdated")
    };
    eventually("the answer is refused", outdated);
    assert_eq!(node.ids("list", "trusted"), [2]);
    let (code, told, err) = run(&["registry", "reset", "--home", text(&node.home)]);
    assert_eq!((code, err.as_str()), (0, ""), "{told}");
    eventually("the registry is believed again", || node.ids("list", "trusted").is_empty());
    let (code, told, err) = run(&["registry", "reset", "--home", text(&node.home)]);
    assert_eq!((code, told.as_str()), (1, ""));
    assert!(err.contains("trustkeep: no answer of the registry had a revision"), "{err}");
}
