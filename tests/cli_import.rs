//! `import` of a `trust.json`:
//!
//! - what was exported and imported is exported again byte for byte;
//! - a bad entry is named and left out, and costs no other one; what is no document changes nothing and creates nothing;
//! - a restriction stands, wherever it comes from, and nothing that a store knows is undone;
//! - a store in use is refused, and a large document costs no more memory than what it holds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod runs;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use runs::*;
use serde_json::{Value, json};
use trustkeep::{TrustRecord, TrustStore};

/// Imports this document; the exit code, and what `--json` said.
#[track_caller]
fn import(dir: &Path, document: &str) -> (i32, Value) {
    let Run { code, out, err } = run_with(&["import", "--json", "--dir", text(dir), "-"], document);
    assert!(code == 0 || err.starts_with("trustkeep: "), "{err}");
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{err}")))
}

/// The findings, each in one line.
fn findings(told: &Value) -> Vec<String> {
    let line = |it: &Value| {
        let (list, why) = (it["list"].as_str().unwrap(), it["why"].as_str().unwrap());
        format!("{list}[{}] {} {}: {why}", it["index"], it["node_id"], if it["skipped"] == true { "-" } else { "~" })
    };
    told["findings"].as_array().unwrap().iter().map(line).collect()
}

#[track_caller]
fn export(dir: &Path) -> Value {
    serde_json::from_str(&done(&["export", "--dir", text(dir)])).unwrap()
}

#[track_caller]
fn export_with_nonces(dir: &Path) -> Value {
    serde_json::from_str(&done(&["export", "--with-nonces", "--dir", text(dir)])).unwrap()
}

/// Every file in a directory but the lock's.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let of =
        |entry: std::fs::DirEntry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
    entries.map(of).filter(|(name, _)| name != "LOCK").collect()
}

const KEY: &str = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";
const OTHER_KEY: &str = "5zTqbCtiV95yNV5HKqBaTEh+a0Y8Ap7TBt8vAbVja1g=";
const WEAK: &str = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[test]
fn what_was_exported_is_exported_again_byte_for_byte() {
    let home = tempfile::tempdir().unwrap();
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/trust_json.md")).unwrap();
    let example = documented.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let file = home.path().join("trust.json");
    std::fs::write(&file, example).unwrap();
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    let said = done(&["import", "--dir", text(&first), text(&file)]);
    assert!(said.contains("created, durable as of generation 41"), "{said}");
    let exported = done(&["export", "--with-nonces", "--dir", text(&first)]);
    assert_eq!(exported, example);
    done(&["verify", "--dir", text(&first)]);

    // Through a file of ours, and into an empty store that was there already.
    TrustStore::open(&second).unwrap().close().unwrap();
    std::fs::write(&file, &exported).unwrap();
    done(&["import", "--dir", text(&second), text(&file)]);
    assert_eq!(done(&["export", "--with-nonces", "--dir", text(&second)]), example);

    // Once more is no change, and writes nothing.
    let before = content(&second);
    let said = done(&["import", "--dir", text(&second), text(&file)]);
    assert!(said.contains("unchanged"), "{said}");
    assert_eq!(content(&second), before);

    // A state without entries has come to a generation, too; and a store goes on from it.
    let third = home.path().join("third");
    assert_eq!(import(&third, r#"{"generation":7,"trusted":[]}"#).1["generation"], 7);
    assert_eq!(export(&third)["generation"], 7);
    let store = TrustStore::open(&third).unwrap();
    let receipt = store.grant(TrustRecord::new(id(9), None)).unwrap();
    receipt.wait_durable().unwrap();
    assert_eq!(receipt.generation().get(), 8);
}

#[test]
fn of_a_large_document_each_bad_entry_is_named_and_all_others_load() {
    let home = tempfile::tempdir().unwrap();
    let bad = [
        (0, json!({"node_id": 0}), "null -: `node_id` is no number from 1 to 4294967295"),
        (11, json!({"public_key": KEY}), "null -: no `node_id`"),
        (1_000, json!("peer"), "null -: not an object"),
        (20_000, json!({"node_id": 4_294_967_296_u64}), "null -: `node_id` is no number"),
        (30_000, json!({"node_id": 30_001, "public_key": WEAK}), "30001 -: `public_key`: a public key of small order"),
        (
            40_000,
            json!({"node_id": 40_001, "public_key": &KEY[1..]}),
            "40001 -: `public_key`: a public key is 32 bytes",
        ),
        (
            50_000,
            json!({"node_id": 50_001, "approved_at": "yesterday"}),
            "50001 -: `approved_at` is no time by RFC 3339",
        ),
        (60_000, json!({"node_id": 60_001, "network": 65_536}), "60001 -: `network` is no number from 0 to 65535"),
        (70_000, json!({"node_id": 3}), "3 -: the peer stands in this list already"),
        (99_999, json!({"node_id": 100_000, "mutual": "yes"}), "100000 -: `mutual` is neither true nor false"),
    ];
    let mut document = "{\"trusted\":[\n".to_owned();
    for index in 0..100_000 {
        match bad.iter().find(|(at, ..)| *at == index) {
            Some((_, entry, _)) => write!(document, "{entry}").unwrap(),
            None => {
                let key = if index % 1000 == 7 { format!("\"{KEY}\"") } else { "null".to_owned() };
                let approved_at = format!("2026-03-03T12:00:{:02}+02:00", index % 60);
                let peer = index + 1;
                write!(
                    document,
                    r#"{{"node_id":{peer},"public_key":{key},"approved_at":"{approved_at}","mutual":true,"hops":[1,{{}}]}}"#
                )
                .unwrap();
            }
        }
        document.push_str(if index == 99_999 { "\n]}" } else { ",\n" });
    }
    let file = home.path().join("trust.json");
    std::fs::write(&file, &document).unwrap();
    let dir = home.path().join("store");
    let Run { code, out, err } = run(&["import", "--dir", text(&dir), text(&file)]);
    assert_eq!(code, 1, "{err}");
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 13, "{err}");
    for (line, (index, ..)) in lines.iter().zip(&bad) {
        assert!(line.starts_with(&format!("trustkeep: trusted[{index}]")) && line.contains(": skipped: "), "{line}");
    }
    assert_eq!(lines[10], "trustkeep: `hops` is no field of `trusted` (first in trusted[1]); it was ignored");
    assert!(lines[11].starts_with("trustkeep: one key under 100 peers, "), "{}", lines[11]);
    assert_eq!(lines[12], "trustkeep: 10 entries were skipped; everything else is durable");
    assert!(out.contains("trusted   99990  0          10"), "{out}");

    let other = home.path().join("other");
    let (code, told) = import(&other, &document);
    assert_eq!((code, &told["trusted"]["taken"], &told["trusted"]["skipped"]), (1, &99_990.into(), &10.into()));
    for (found, (index, _, why)) in findings(&told).iter().zip(&bad) {
        assert!(found.starts_with(&format!("trusted[{index}] {why}")), "{found}");
    }
    let store = TrustStore::open(&dir).unwrap();
    assert_eq!(store.snapshot().len(), 99_990);
    let left_out: Vec<u32> = (1..=100_000).filter(|peer| !store.is_trusted(id(*peer))).collect();
    assert_eq!(left_out, [1, 12, 1001, 20_001, 30_001, 40_001, 50_001, 60_001, 70_001, 100_000]);
    let record = store.get(id(8)).unwrap();
    assert_eq!((record.public_key, record.approved_at.as_millis()), (Some(KEY.parse().unwrap()), 1_772_532_007_000));
    assert!(record.mutual);
}

#[test]
fn documents_of_other_systems_load() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let document = json!({
        "schema": {"of": ["somebody", null]},
        "trusted": [
            {"node_id": 3, "hostname": "three", "mutual": null, "network": null},
            {"node_id": 4, "public_key": "", "approved_at": "2026-03-03t10:00:00.5-05:30"},
        ],
        "pending": [
            {"node_id": 21, "public_key": KEY, "received_at": "2026-03-03T10:00:02Z", "source": "192.0.2.9:4440"},
            {"node_id": 22, "public_key": OTHER_KEY, "source": "relay", "justification": "  please\u{202e}\u{3164} \u{2800} "},
            {"node_id": 23, "justification": "no key"},
            {"node_id": 24, "public_key": KEY, "received_at": "0001-01-01T00:00:00Z"},
        ],
        "outgoing": [{"node_id": 30, "sent_at": "2026-03-03T10:00:05Z"}],
        "revoked": [
            {"node_id": 5, "until": "9998-01-01T00:00:00Z"},
            {"node_id": 6, "until": "2020-01-01T00:00:00Z"},
            {"node_id": 7},
        ],
    });
    let (code, told) = import(&dir, &document.to_string());
    let found = findings(&told);
    assert_eq!((code, told["created"].clone(), told["generation"].clone()), (1, true.into(), 1.into()));
    for line in [
        "pending[2] 23 -: no `public_key`, so there is nothing to approve; the peer must ask again",
        "pending[1] 22 ~: `justification` was cut, or had characters that are never shown",
        "pending[1] 22 ~: `source` is neither `node N` nor an address, and became the peer itself",
        "revoked[1] 6 ~: this revocation has ended by itself, and was not taken",
    ] {
        assert!(found.iter().any(|found| found == line), "{line}: {found:#?}");
    }
    assert_eq!(found.len(), 4, "{found:#?}");
    let exported = export(&dir);
    assert_eq!(exported["trusted"][0], json!({"node_id": 3, "public_key": null, "mutual": false}));
    assert_eq!(exported["trusted"][1]["approved_at"], "2026-03-03T15:30:00.500Z");
    let pending = exported["pending"].as_array().unwrap();
    let of = |name: &str| pending.iter().map(|entry| entry[name].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(of("source"), ["192.0.2.9", "node 22", "node 24"]);
    assert_eq!(
        (of("justification"), of("kind")),
        (vec![String::new(), "please".into(), String::new()], vec!["request".to_owned(); 3])
    );
    // What has no time came now, so that it does not expire at once.
    assert!(pending[2]["received_at"].as_str().unwrap() > "2026-03-04");
    assert_eq!(
        (&pending[0]["stamp"], &pending[0]["received_at"]),
        (&json!("2026-03-03T10:00:02.000Z"), &pending[0]["stamp"])
    );
    // A nonce of its own, that nobody can guess.
    let nonce = |dir: &Path| export_with_nonces(dir)["outgoing"][0]["nonce"].as_str().unwrap().to_owned();
    let again = home.path().join("again");
    import(&again, &document.to_string());
    assert!(nonce(&dir).len() == 24 && nonce(&dir) != nonce(&again));
    let revoked: Vec<_> = exported["revoked"].as_array().unwrap().iter().map(|entry| &entry["node_id"]).collect();
    assert_eq!(revoked, [5, 7]);

    for empty in [
        r#"{"floors":null}"#,
        r#"{"trusted":null,"pending":null,"outgoing":null,"revoked":null,"floors":null}"#,
        " {\"trusted\":[] }\n",
    ] {
        let (code, told) = import(&home.path().join("empty"), empty);
        assert_eq!((code, &told["generation"], findings(&told).len()), (0, &0.into(), 0), "{empty}");
    }
}

#[test]
fn times_in_the_future_become_now_and_are_named() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let future = "9000-01-01T00:00:00Z";
    let document = json!({
        "trusted": [{"node_id": 3, "approved_at": future}],
        "pending": [{"node_id": 4, "public_key": KEY, "received_at": future, "stamp": future}],
        "outgoing": [{"node_id": 5, "sent_at": future}],
        "revoked": [{"node_id": 6, "revoked_at": future}],
        "floors": [{"node_id": 7, "public_key": KEY, "seen": future, "reserved": future}],
    });
    let (code, told) = import(&dir, &document.to_string());
    let found = findings(&told);
    assert_eq!((code, found.len()), (0, 7), "{found:#?}");
    assert!(found.iter().all(|line| line.contains("lies in the future, and was moved back")), "{found:#?}");
    let mut exported = export(&dir);
    // What a floor was is kept as that, whosever clock is wrong.
    let before = exported["floors"][0].as_object_mut().unwrap().remove("before").unwrap();
    assert_eq!(before, "9000-01-01T00:00:00.000Z");
    let exported = exported.to_string();
    assert!(!exported.contains("9000-") && exported.matches("\"20").count() >= 7, "{exported}");
}

#[test]
fn what_is_no_document_changes_nothing_and_creates_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let missing = home.path().join("missing");
    let store = TrustStore::open(&dir).unwrap();
    store.grant(TrustRecord::new(id(3), None)).unwrap().wait_durable().unwrap();
    store.close().unwrap();
    drop(store);
    let before = content(&dir);
    for (document, word) in [
        ("", "EOF"),
        ("trust", "expected ident"),
        ("[]", "an object"),
        ("\"\u{1b}[2J\"", "control character"),
        (r#""\u001b[2J""#, "an object"),
        ("null", "an object"),
        ("{}", "none of the lists is there, which are `trusted`, `pending`, `outgoing`, `revoked`, `floors`"),
        (r#"{"version":1,"generation":7}"#, "none of the lists"),
        (r#"{"Trusted":[{"node_id":9}],"peers":[],"data":{"trusted":[{"node_id":9}]}}"#, "none of the lists"),
        (r#"{"trusted":[{"node_id":9}],"generation":1,"generation":2}"#, "`generation` is there twice"),
        (r#"{"trusted":[{"node_id":9}],"version":1,"version":1}"#, "`version` is there twice"),
        (r#"{"trusted":[{"node_id":9}"#, "EOF"),
        (r#"{"trusted":[{"node_id":9}]"#, "EOF"),
        (r#"{"trusted":[{"node_id":9}]} x"#, "trailing characters"),
        (r#"{"trusted":[{"node_id":9},]}"#, "trailing comma"),
        (r#"{"trusted":{"node_id":9}}"#, "`trusted` to be a list or null"),
        (r#"{"trusted":[{"node_id":9}],"trusted":[]}"#, "there twice"),
        (r#"{"trusted":[{"node_id":9}],"version":2}"#, "newer release"),
        (r#"{"trusted":[{"node_id":9}],"generation":9223372036854775807}"#, "generation"),
        (r#"{"trusted":[{"node_id":9}],"generation":-1}"#, "invalid value"),
    ] {
        for dir in [&dir, &missing] {
            let Run { code, out, err } = run_with(&["import", "--dir", text(dir), "-"], document);
            assert_eq!((code, out.as_str()), (1, ""), "{document}");
            assert!(err.starts_with("trustkeep: -: ") && err.contains(word), "{document}: {err}");
            assert!(err.ends_with("nothing was changed\n") && !err.contains('\u{1b}'), "{document}: {err:?}");
        }
        assert_eq!(content(&dir), before);
        assert!(!missing.exists(), "{document}");
    }
    let Run { code, err, .. } = run(&["import", "--dir", text(&dir), "/nonexistent.json"]);
    assert!(code == 1 && err.contains("/nonexistent.json: "), "{err}");
    // And the twin: the last entry, without the faults, does change it.
    assert_eq!(import(&dir, r#"{"trusted":[{"node_id":9}]}"#).0, 0);
    assert_ne!(content(&dir), before);
}

#[test]
fn a_restriction_stands_wherever_it_comes_from() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let store = TrustStore::open(&dir).unwrap();
    let _ = store.grant(TrustRecord::new(id(3), None)).unwrap();
    let _ = store.grant(TrustRecord::new(id(4), None).network(7)).unwrap();
    store.revoke(id(5)).unwrap().receipt.wait_durable().unwrap();
    store.close().unwrap();
    drop(store);
    // 3: the document revokes; 5: the store has revoked; 6 and 7: both, in either order.
    let (trusted, revoked) = (
        json!([{"node_id": 5}, {"node_id": 6}, {"node_id": 7}, {"node_id": 4, "network": 8}, {"node_id": 8}]),
        json!([{"node_id": 3}, {"node_id": 6}, {"node_id": 7}]),
    );
    let outgoing = json!([{"node_id": 6}, {"node_id": 9}]);
    for document in [
        format!(r#"{{"trusted":{trusted},"outgoing":{outgoing},"revoked":{revoked}}}"#),
        format!(r#"{{"revoked":{revoked},"outgoing":{outgoing},"trusted":{trusted}}}"#),
    ] {
        let copy = tempfile::tempdir_in(home.path()).unwrap().keep();
        for (name, bytes) in content(&dir) {
            std::fs::write(copy.join(name), bytes).unwrap();
        }
        let (code, told) = import(&copy, &document);
        let found = findings(&told);
        assert_eq!(code, 1);
        assert_eq!(
            (&told["trusted"], &told["revoked"]["taken"], &told["outgoing"]["skipped"]),
            (&json!({"taken": 1, "unchanged": 0, "skipped": 4}), &3.into(), &1.into()),
            "{found:#?}"
        );
        for word in [
            "trusted[0] 5 -: the store has revoked this peer, and that stands",
            "trusted[3] 4 -: the store says something else about this peer, and that stays",
            "revoked[0] 3 ~: the store trusted this peer, and does so no longer",
            "outgoing[0] 6 -",
        ] {
            assert!(found.iter().any(|line| line.starts_with(word)), "{word}: {found:#?}");
        }
        for peer in ["] 6 -: the document", "] 7 -: the document"] {
            assert!(found.iter().any(|line| line.contains(peer)), "{peer}: {found:#?}");
        }
        let exported = export(&copy);
        let ids = |list: &str| -> Vec<u64> {
            exported[list].as_array().unwrap().iter().map(|entry| entry["node_id"].as_u64().unwrap()).collect()
        };
        assert_eq!((ids("trusted"), ids("revoked"), ids("outgoing")), (vec![4, 8], vec![3, 5, 6, 7], vec![9]));
        assert_eq!(exported["trusted"][0]["network"], 7);
        done(&["verify", "--dir", text(&copy)]);
    }
}

#[test]
fn no_floor_moves_back() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let floor = |peer: u32, key: &str, seen: u32, reserved: u32| {
        let at = |second| format!("2026-03-03T10:00:{second:02}.000Z");
        json!({"node_id": peer, "public_key": key, "seen": at(seen), "reserved": at(reserved), "spoke_v2": seen > 20})
    };
    let import = |floors: Value| import(&dir, &json!({ "floors": floors }).to_string());
    let sent_only = json!({"node_id": 8, "reserved": "2026-03-03T10:00:30.000Z", "spoke_v2": false});
    let first = json!([floor(3, KEY, 20, 30), floor(4, KEY, 20, 30), floor(7, KEY, 30, 30), sent_only]);
    assert_eq!(import(first).0, 0);
    let (code, told) = import(json!([
        floor(3, KEY, 10, 40),
        floor(4, OTHER_KEY, 50, 10),
        floor(7, KEY, 10, 10),
        floor(8, KEY, 10, 10),
        floor(9, KEY, 10, 10),
        {"node_id": 10, "seen": "2026-03-03T10:00:00Z"},
        {"node_id": 11, "spoke_v2": true},
    ]));
    assert_eq!((code, &told["floors"]), (1, &json!({"taken": 4, "unchanged": 1, "skipped": 2})));
    let why = "`seen`, `before` or `spoke_v2` without the `public_key` that it belongs to";
    assert_eq!(findings(&told), [format!("floors[5] 10 -: {why}"), format!("floors[6] 11 -: {why}")]);
    let mut eight = floor(8, KEY, 10, 30);
    eight["spoke_v2"] = false.into();
    let mut four = floor(4, KEY, 20, 30);
    four["spoke_v2"] = true.into();
    assert_eq!(
        export(&dir)["floors"],
        json!([floor(3, KEY, 20, 40), four, floor(7, KEY, 30, 30), eight, floor(9, KEY, 10, 10)])
    );
}

/// The floor of a peer as a document has it.
fn moved_floor(seen: &str, before: Option<&str>) -> Value {
    let mut floor = json!({"node_id": 9, "public_key": KEY, "seen": seen, "spoke_v2": true});
    if let Some(before) = before {
        floor["before"] = before.into();
    }
    floor
}

#[test]
fn what_a_floor_was_before_it_moved_comes_along_and_only_rises() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let (seen, before) = ("2026-03-03T10:00:00.000Z", "9000-01-01T00:00:00.000Z");
    let import = |floor: Value| import(&dir, &json!({ "floors": [floor] }).to_string());
    // A store that such a document is imported into exports the same, and takes it for what it has.
    assert_eq!(import(moved_floor(seen, Some(before))).0, 0);
    assert_eq!(export(&dir)["floors"], json!([moved_floor(seen, Some(before))]));
    let (code, told) = import(moved_floor(seen, Some(before)));
    assert_eq!((code, &told["changed"], findings(&told).len()), (0, &false.into(), 0), "{told}");
    // Neither an older one, nor a document without it, nor one of another key takes it away.
    for (seen, earlier) in [(seen, Some("2026-03-03T11:00:00.000Z")), (seen, None), ("2026-03-03T09:00:00.000Z", None)]
    {
        assert_eq!(import(moved_floor(seen, earlier)).1["changed"], false);
    }
    let mut other = moved_floor(seen, Some("9001-01-01T00:00:00.000Z"));
    other["public_key"] = OTHER_KEY.into();
    assert_eq!(import(other).1["changed"], false);
    assert_eq!(export(&dir)["floors"], json!([moved_floor(seen, Some(before))]));
    // A later one counts.
    let latest = "9002-01-01T00:00:00.000Z";
    assert_eq!(import(moved_floor(seen, Some(latest))).0, 0);
    assert_eq!(export(&dir)["floors"], json!([moved_floor(seen, Some(latest))]));
}

#[test]
fn what_a_floor_was_before_it_moved_counts_only_above_it_and_with_its_key() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    let (seen, below) = ("2026-03-03T10:00:00.000Z", "2026-03-03T09:00:00.000Z");
    let (code, _) = import(&one, &json!({ "floors": [moved_floor(seen, Some(below))] }).to_string());
    assert_eq!(
        (code, &export(&one)["floors"]),
        (0, &json!([moved_floor(seen, None)])),
        "below the floor it says nothing"
    );
    let (code, told) = import(&two, &json!({ "floors": [{"node_id": 9, "before": seen}] }).to_string());
    let why = "floors[0] 9 -: `seen`, `before` or `spoke_v2` without the `public_key` that it belongs to";
    assert_eq!((code, findings(&told)), (1, vec![why.to_owned()]));
}

#[test]
fn limits_are_those_of_a_store_and_what_is_beyond_is_named() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let pending = |peer: u32, source: &str| json!({"node_id": peer, "public_key": KEY, "source": source});
    let of_one = (1..=17).map(|peer| pending(peer, "10.0.0.1"));
    let of_many = (18..=300).map(|peer| pending(peer, &format!("10.1.{}.1", peer % 250)));
    let outgoing: Vec<Value> = (1..=4097).map(|peer| json!({"node_id": peer})).collect();
    let document = json!({"pending": of_one.chain(of_many).collect::<Vec<_>>(), "outgoing": outgoing});
    let (code, told) = import(&dir, &document.to_string());
    let found = findings(&told);
    assert_eq!((code, &told["pending"]["taken"], &told["outgoing"]["taken"]), (1, &256.into(), &4096.into()));
    assert_eq!(found.len(), 45, "{found:#?}");
    assert_eq!(found[0], "outgoing[4096] 4097 -: the table is full (4096)");
    assert_eq!(found[1], "pending[16] 17 -: more than 16 wait from this source");
    assert_eq!(found[2], "pending[257] 258 -: the table is full (256)");
}

#[test]
fn strictly_one_bad_entry_is_too_many() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let args = ["import", "--strict", "--dir", text(&dir), "-"];
    let Run { code, out, err } = run_with(&args, r#"{"trusted":[{"node_id":3},{"node_id":0}]}"#);
    assert_eq!((code, out.as_str()), (1, ""));
    let words = ["trusted[1]: skipped: `node_id` is no number", "-: 1 entry cannot be taken", "without --strict"];
    assert!(words.iter().all(|word| err.contains(word)), "{err}");
    assert!(!dir.exists());
    let Run { code, out, err } = run_with(&args, r#"{"trusted":[{"node_id":3}]}"#);
    assert!((code, err.as_str()) == (0, "") && out.contains("created"), "{out}{err}");
}

#[test]
fn a_store_in_use_is_refused_and_a_home_knows_who_lives_there() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let owner = TrustStore::open(&dir).unwrap();
    let before = content(&dir);
    let Run { code, err, .. } = run_with(&["import", "--dir", text(&dir), "-"], r#"{"trusted":[{"node_id":3}]}"#);
    let pid = format!("in use by process {}", std::process::id());
    assert!(code == 1 && err.contains(&pid) && err.contains("stop that process"), "{err}");
    assert_eq!(content(&dir), before);
    drop(owner);

    let seven = home.path().join("seven");
    done(&["init", "--home", text(&seven), "--id", "7"]);
    let document = r#"{"trusted":[{"node_id":7},{"node_id":9}],"floors":[{"node_id":7}]}"#;
    let Run { code, err, .. } = run_with(&["import", "--home", text(&seven), "-"], document);
    assert_eq!(code, 1);
    for line in ["trusted[0] (peer 7): skipped: this node itself", "floors[0] (peer 7): skipped: this node itself"] {
        assert!(err.contains(line), "{err}");
    }
    let store = TrustStore::open(seven.join("store")).unwrap();
    assert_eq!(store.snapshot().iter().map(|record| record.node_id.get()).collect::<Vec<_>>(), [9]);
    let nobody = home.path().join("nobody");
    let Run { code, err, .. } = run_with(&["import", "--home", text(&nobody), "-"], document);
    assert!(code == 1 && err.contains("trustkeep init") && !nobody.exists(), "{err}");
    let Run { code, err, .. } = run_with(&["import", "--dir", text(&nobody.join("store")), "-"], document);
    assert!(code == 1 && err.contains("must exist") && !nobody.exists(), "{err}");
    for args in [&["import", "-"][..], &["import", "--dir", "d"], &["import", "--dir", "d", "--home", "h", "-"]] {
        assert_eq!(run(args).code, 2, "{args:?}");
    }
}

#[test]
fn memory_is_bounded_by_what_the_document_holds() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("trust.json");
    // 64 MiB, of which each way to say much would cost gigabytes if it were kept as it is read.
    let many = |text: &str, bytes: usize| text.repeat(bytes / text.len());
    let (part, last) = (20 << 20, 4 << 20);
    let document = format!(
        r#"{{"of no use":[{}0],"trusted":[{{"node_id":9}},{{"node_id":3,"why":[{}0]}},{{"node_id":4,"mutual":[{}0]}},{}{}]}}"#,
        many("0,", part),
        many("0,", part),
        many("{},", part).trim_end_matches(',').to_owned() + ",",
        many("0,", last),
        r#"{"node_id":12}"#,
    );
    assert!(document.len() > 64 << 20);
    std::fs::write(&file, document).unwrap();
    let dir = home.path().join("store");
    let script = "ulimit -v 524288; exec \"$0\" import --json --dir \"$1\" \"$2\" 2>/dev/null";
    let output = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_trustkeep"), text(&dir), text(&file)])
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["trusted"]["taken"], 3);
    assert_eq!(told["trusted"]["skipped"], (last / 2 + 1) as u64);
    assert_eq!(told["findings"].as_array().unwrap().len(), 10_000);
    assert_eq!(told["findings_left_out"], (last / 2 + 1 - 10_000) as u64);
}

#[test]
fn a_document_vouches_for_nobody() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let entry = |authentic: bool| {
        let entry = json!({"node_id": 9, "public_key": KEY, "source": "10.0.0.1", "authentic": authentic,
            "received_at": "2026-03-03T10:00:00Z"});
        json!({"pending": [entry]}).to_string()
    };
    let (code, told) = import(&dir, &entry(true));
    let why = "pending[0] 9 ~: `authentic` is not taken from a document; nobody vouches for this key here";
    assert_eq!((code, findings(&told)), (0, vec![why.to_owned()]));
    assert_eq!(export(&dir)["pending"][0]["authentic"], false);
    // Again, whichever it says, is what the store says.
    for authentic in [true, false] {
        let (code, told) = import(&dir, &entry(authentic));
        assert_eq!((code, &told["changed"], findings(&told).len()), (0, &false.into(), 0));
    }
    let other = home.path().join("other");
    assert_eq!(findings(&import(&other, &entry(false)).1).len(), 0);
    assert_eq!(export(&other)["pending"], export(&dir)["pending"]);
}

#[test]
fn a_numeric_source_is_a_node() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let sources = [
        json!(30),
        json!("31"),
        json!("node 32"),
        json!(4_294_967_295_u32),
        json!("10.0.0.1"),
        json!("relay, as node 33"),
    ];
    let odd =
        [json!(0), json!(-1), json!(4_294_967_296_u64), json!("0"), json!("node 0"), json!("node x"), json!("1.2")];
    let entry = |peer: usize, source: &Value| json!({"node_id": peer, "public_key": KEY, "source": source});
    let entries = (1..).zip(sources.iter().chain(&odd)).map(|(peer, source)| entry(peer, source));
    let document =
        json!({"pending": entries.chain([entry(90, &json!(1.5)), entry(91, &json!([30]))]).collect::<Vec<_>>()});
    let (code, told) = import(&dir, &document.to_string());
    let found = findings(&told);
    assert_eq!((code, found.len()), (1, odd.len() + 2), "{found:#?}");
    assert_eq!(found[..2], ["pending[13] 90 -: `source` is no text", "pending[14] 91 -: `source` is no text"]);
    assert!(found[2..].iter().all(|line| line.ends_with("nor an address, and became the peer itself")), "{found:#?}");
    let exported = export(&dir);
    let of = exported["pending"].as_array().unwrap().iter().map(|entry| entry["source"].as_str().unwrap());
    let expected =
        ["node 30", "node 31", "node 32", "node 4294967295", "10.0.0.1", "relay, as node 33"].map(str::to_owned);
    let itself = (7..=13).map(|peer| format!("node {peer}"));
    assert_eq!(of.collect::<Vec<_>>(), expected.into_iter().chain(itself).collect::<Vec<_>>());
}

#[test]
fn names_that_are_not_known_are_told_once_each_and_strictly_they_are_too_many() {
    let home = tempfile::tempdir().unwrap();
    let (dir, strictly) = (home.path().join("store"), home.path().join("strictly"));
    let document = r#"{"schema":1,"trsted":[],"schema":2,"\u001b[2Jevil":0,
        "trusted":[{"node_id":3,"pubic_key":"x","seen":{}},{"node_id":4,"pubic_key":null,"mutual":true}],
        "pending":[{"node_id":5,"expected_key":"x","public_key":"0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc="}],
        "outgoing":[{"node_id":6,"authentic":true}],
        "revoked":[{"node_id":7,"nonce":"x"}],
        "floors":[{"node_id":8,"sent":"x","pubic_key":0}]}"#;
    let names = |told: &Value| -> Vec<String> {
        let unknown = told["unknown"].as_array().unwrap().iter();
        let line = |it: &Value| {
            let at = it["list"].as_str().map(|list| format!("{list}[{}] ", it["index"]));
            format!("{}{}", at.unwrap_or_default(), it["name"].as_str().unwrap())
        };
        unknown.map(line).collect()
    };
    let expected = [
        "schema",
        "trsted",
        "[2Jevil",
        "trusted[0] pubic_key",
        "trusted[0] seen",
        "pending[0] expected_key",
        "outgoing[0] authentic",
        "revoked[0] nonce",
        "floors[0] sent",
        "floors[0] pubic_key",
    ];
    let Run { code, out, err } = run_with(&["import", "--strict", "--dir", text(&strictly), "-"], document);
    assert_eq!((code, out.as_str(), strictly.exists()), (1, "", false), "{err}");
    assert!(err.contains("some names are not known, and with --strict nothing was changed"), "{err}");
    assert!(err.contains("trustkeep: `trsted` is no field of the document; it was ignored\n"), "{err}");
    assert!(err.contains("`pubic_key` is no field of `trusted` (first in trusted[0]); it was ignored\n"), "{err}");
    assert!(err.matches("`pubic_key`").count() == 2 && !err.contains('\u{1b}'), "{err:?}");
    let (code, told) = import(&dir, document);
    assert_eq!(
        (code, names(&told), told["unknown_left_out"].clone()),
        (0, expected.map(str::to_owned).into(), 0.into())
    );

    // The twin: the same without them, strictly.
    let good = r#"{"trusted":[{"node_id":3},{"node_id":4,"mutual":true}]}"#;
    let Run { code, err, .. } = run_with(&["import", "--strict", "--dir", text(&strictly), "-"], good);
    assert_eq!((code, err.as_str()), (0, ""));

    // Ever new ones, at the top, in one entry and in many, are told up to a limit; and a long one in part.
    let many = |from: usize| (from..from + 70).map(|n| (format!("n{n}"), json!(0))).collect::<serde_json::Map<_, _>>();
    let (mut top, mut first) = (many(0), many(100));
    first.insert("node_id".into(), 20.into());
    let more = (0..50).map(|n| json!({"node_id": 21 + n, format!("m{n}"): 0, "long".repeat(1000): 0}));
    top.insert("trusted".into(), [Value::Object(first)].into_iter().chain(more).collect::<Vec<_>>().into());
    let (code, told) = import(&home.path().join("many"), &Value::Object(top).to_string());
    let names = names(&told);
    assert_eq!((code, names.len()), (0, 64));
    assert!(names.iter().all(|name| name.len() < 100) && told["unknown_left_out"].as_u64().unwrap() > 100, "{told}");
}

#[test]
fn an_export_has_no_nonces_unless_asked_and_either_way_the_same_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let (nonce, other) = ("+/v7+/v7+/v7+/v7+/v7+w==", "Hh4eHh4eHh4eHh4eHh4eHg==");
    // Of the one who waits, of one of version 1 that has none, and of a request of ours.
    let document = json!({
        "pending": [
            {"node_id": 21, "public_key": KEY, "nonce": nonce, "received_at": "2026-03-03T10:00:00Z"},
            {"node_id": 22, "public_key": KEY, "received_at": "2026-03-03T10:00:00Z"},
        ],
        "outgoing": [{"node_id": 30, "nonce": other, "expected_key": KEY, "sent_at": "2026-03-03T10:00:00Z"}],
    });
    let (code, told) = import(&at("first"), &document.to_string());
    assert_eq!((code, &told["fresh_nonces"]), (0, &0.into()));
    let plain = done(&["export", "--dir", text(&at("first"))]);
    let secret = done(&["export", "--with-nonces", "--dir", text(&at("first"))]);
    assert!(!plain.contains("\"nonce\"") && !plain.contains(nonce) && !plain.contains(other), "{plain}");
    assert!(secret.contains(nonce) && secret.contains(other), "{secret}");
    let file = at("plain.json");
    done(&["export", "--dir", text(&at("first")), "--out", text(&file)]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), plain);

    let Run { code, err, .. } = run_with(&["import", "--dir", text(&at("plain")), "-"], &plain);
    assert!(code == 0 && err.contains("2 requests and answers came without their nonce and got a fresh one"), "{err}");
    assert_eq!(done(&["export", "--dir", text(&at("plain"))]), plain);
    let fresh = export_with_nonces(&at("plain"));
    let of = |document: &Value| [document["pending"][0]["nonce"].clone(), document["outgoing"][0]["nonce"].clone()];
    assert!(of(&fresh).iter().all(|fresh| fresh.as_str().is_some_and(|it| it.len() == 24)), "{fresh}");
    assert!(of(&fresh)[0] != nonce && of(&fresh)[1] != other && of(&fresh)[0] != of(&fresh)[1], "{fresh}");
    // A request of version 1 has none, and does not get one.
    assert_eq!(fresh["pending"][1].get("nonce"), None);
    assert_eq!(plain.matches("\"spoke_v2\":true").count(), 1);

    let Run { code, err, .. } = run_with(&["import", "--dir", text(&at("secret")), "-"], &secret);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(done(&["export", "--with-nonces", "--dir", text(&at("secret"))]), secret);
    // Into the store that it came from, either is no news.
    for document in [&plain, &secret] {
        let (code, told) = import(&at("first"), document);
        assert_eq!((code, &told["changed"], &told["fresh_nonces"]), (0, &false.into(), &0.into()));
    }
    assert_eq!(done(&["export", "--with-nonces", "--dir", text(&at("first"))]), secret);
    // A revoked peer's request is not counted as one that got a nonce.
    let document = r#"{"outgoing":[{"node_id":30}],"revoked":[{"node_id":30}]}"#;
    assert_eq!(import(&at("revoked"), document).1["fresh_nonces"], 0);
}

#[test]
fn a_store_in_a_home_does_not_take_the_node_that_lives_there_by_whatever_path() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    done(&["init", "--home", text(&home), "--id", "7"]);
    let document = r#"{"trusted":[{"node_id":7},{"node_id":9}],"outgoing":[{"node_id":7}],"revoked":[{"node_id":7}]}"#;
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&home, &link).unwrap();
    let takes = |cwd: &Path, store: &str| {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_trustkeep"));
        let command = command.current_dir(cwd).args(["import", "--json", "--dir", store, "-"]);
        let output = command.write_stdin(document).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{store}: {err}"));
        assert_eq!(output.status.code(), Some(1));
        let ours = findings(&told).iter().filter(|line| line.ends_with("this node itself, which is no peer")).count();
        assert_eq!(ours, 3, "{store}: {told}");
    };
    // Before there is a store, and afterwards.
    takes(&home, "store");
    takes(&home, "./store/");
    takes(&home.join("store"), ".");
    takes(&home.join("store"), "../store");
    takes(dir.path(), "seven/store");
    takes(dir.path(), "link/store");
    takes(&link, "store");
    takes(dir.path(), text(&home.join("store")));

    // An identity that cannot be read may be anybody's.
    let before = content(&home.join("store"));
    let identity = std::fs::read(home.join("identity.key")).unwrap();
    std::fs::write(home.join("identity.key"), "x").unwrap();
    let Run { code, err, .. } = run_with(&["import", "--dir", text(&home.join("store")), "-"], document);
    assert!(code == 1 && err.contains("identity.key") && err.contains("must be known first"), "{err}");
    assert_eq!(content(&home.join("store")), before);
    std::fs::write(home.join("identity.key"), identity).unwrap();
    takes(dir.path(), "seven/store");

    // And the twin: elsewhere nobody knows who lives there. What this leaves, the next test starts a node on.
    let (code, told) = import(&dir.path().join("other"), document);
    assert_eq!((code, &told["trusted"]["taken"], &told["revoked"]["taken"]), (1, &1.into(), &1.into()));
}

#[test]
fn a_node_that_an_import_made_its_own_peer_starts_without_and_says_so() {
    use std::io::BufRead as _;

    let dir = tempfile::tempdir().unwrap();
    let (home, store) = (dir.path().join("seven"), dir.path().join("store"));
    done(&["init", "--home", text(&home), "--id", "7"]);
    let document = format!(
        r#"{{"trusted":[{{"node_id":7,"public_key":"{KEY}"}},{{"node_id":9}}],"outgoing":[{{"node_id":7}}],
        "floors":[{{"node_id":7,"public_key":"{KEY}","spoke_v2":true}}]}}"#
    );
    assert_eq!(import(&store, &document).0, 0);
    std::fs::rename(&store, home.join("store")).unwrap();
    let args = ["node", "--json", "--stop-at-eof", "--home", text(&home), "--listen", "127.0.0.1:0"];
    let piped = std::process::Stdio::piped;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trustkeep"));
    let mut node = command.args(args).stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    let mut ready = String::new();
    std::io::BufReader::new(node.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.contains("\"node_id\":7"), "{ready}");
    let trusted = json(&["list", "--json", "--home", text(&home)]);
    fails(&["revoke", "--home", text(&home), "7"], &["this node itself", "goes when the node starts"]);
    drop(node.stdin.take());
    let log = std::io::read_to_string(node.stderr.take().unwrap()).unwrap();
    assert_eq!(node.wait().unwrap().code(), Some(0), "{log}");
    let trusted: Vec<_> = trusted["trusted"].as_array().unwrap().iter().map(|row| &row["node_id"]).collect();
    assert_eq!(trusted, [9]);
    let warned = |line: &str| line.contains("WARN") && line.contains("entries about this node itself");
    assert!(log.lines().any(warned), "{log}");
    let exported = export(&home.join("store"));
    assert!(!exported.to_string().contains("\"node_id\":7"), "{exported}");
}
