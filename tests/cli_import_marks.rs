//! `import` of revocations, and of who is ignored, into a store in which something waits: they mean there what the commands
//! `revoke` and `ignore` do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod runs;

use std::path::Path;

use runs::*;
use serde_json::{Value, json};

const ONE: &str = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";
const TWO: &str = "5zTqbCtiV95yNV5HKqBaTEh+a0Y8Ap7TBt8vAbVja1g=";
const WHEN: &str = "2026-03-03T10:00:00.456Z";
const ID: &str = "9f86d081884c7d65";

/// Imports this document; the exit code, and what `--json` said.
#[track_caller]
fn import(dir: &Path, document: &Value) -> (i32, Value) {
    let Run { code, out, err } = run_with(&["import", "--json", "--dir", text(dir), "-"], &document.to_string());
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{err}")))
}

#[track_caller]
fn export(dir: &Path) -> Value {
    serde_json::from_str(&done(&["export", "--with-nonces", "--dir", text(dir)])).unwrap()
}

/// How many entries a list has; those that are left out are empty.
fn len(document: &Value, list: &str) -> usize {
    document[list].as_array().map_or(0, Vec::len)
}

/// A store in which peer 9 and key ONE are revoked, both wait nevertheless, and both are asked with lifts.
fn waiting() -> (tempfile::TempDir, std::path::PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let document = json!({
        "revoked": [{"node_id": 9, "revoked_at": WHEN, "id": ID}],
        "revoked_keys": [{"public_key": ONE, "revoked_at": WHEN, "id": ID}],
        "pending": [{"node_id": 9, "public_key": TWO}, {"node_id": 10, "public_key": ONE}],
        "outgoing": [{"node_id": 9, "lift": ID}, {"node_id": 11, "expected_key": ONE, "lift": ID}],
    });
    assert_eq!(import_lifting(&dir, ID, &document).0, 0);
    let held = export(&dir);
    assert_eq!((len(&held, "pending"), len(&held, "outgoing")), (2, 2), "{held}");
    (home, dir)
}

#[test]
fn a_document_asks_nobody_whose_answer_would_lift_a_revocation_that_was_not_named() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let marks = json!({
        "revoked": [{"node_id": 9, "revoked_at": WHEN, "id": ID}],
        "revoked_keys": [{"public_key": ONE, "revoked_at": WHEN, "id": ID}],
    });
    assert_eq!(import(&dir, &marks).0, 0);
    let asks = json!({"outgoing": [
        {"node_id": 9, "expected_key": TWO, "lift": ID},
        {"node_id": 11, "expected_key": ONE, "lift": ID},
    ]});
    // Of the store's marks, and of those that come with the document.
    let both =
        json!({"revoked": marks["revoked"], "revoked_keys": marks["revoked_keys"], "outgoing": asks["outgoing"]});
    let other = home.path().join("other");
    for (dir, document) in [(&dir, &asks), (&other, &both)] {
        let (code, told) = import(dir, document);
        assert_eq!((code, told["outgoing"]["skipped"].as_u64()), (1, Some(2)), "{told}");
        assert_eq!(len(&export(dir), "outgoing"), 0);
    }
    // The twin: named, and what the store asks already stays as it is.
    let (code, told) = import_lifting(&dir, ID, &asks);
    assert_eq!((code, told["outgoing"]["taken"].as_u64()), (0, Some(2)), "{told}");
    let (code, told) = import(&dir, &export(&dir));
    assert_eq!((code, told["outgoing"]["unchanged"].as_u64()), (0, Some(2)), "{told}");
}

#[test]
fn a_revocation_that_is_imported_again_takes_away_what_waits_and_outdates_what_was_seen() {
    for document in
        [json!({"revoked": [{"node_id": 9}]}), json!({"revoked": [{"node_id": 9, "id": "00000000000000aa"}]})]
    {
        let (_home, dir) = waiting();
        assert_eq!(import(&dir, &document).0, 0);
        let held = export(&dir);
        assert_eq!((len(&held, "pending"), len(&held, "outgoing")), (1, 1), "{held}");
        assert_eq!(held["revoked"][0]["revoked_at"], WHEN, "the mark keeps its time");
        assert!(held["revoked"][0]["id"] != ID && held["revoked"][0]["id"] != "00000000000000aa", "{held}");
        // An approval of what was seen before lifts nothing.
        let (code, told) = import_lifting(&dir, ID, &json!({"trusted": [{"node_id": 9, "public_key": TWO}]}));
        assert_eq!((code, told["trusted"]["skipped"].as_u64()), (1, Some(1)), "{told}");
    }
    // The twin: where nothing waits, nothing changes.
    let (_home, dir) = waiting();
    import(&dir, &json!({"revoked": [{"node_id": 9}]}));
    let held = export(&dir);
    import(&dir, &json!({"revoked": [{"node_id": 9}]}));
    assert_eq!(export(&dir), held);
}

#[track_caller]
fn import_lifting(dir: &Path, lift: &str, document: &Value) -> (i32, Value) {
    let arguments = ["import", "--json", "--lift", lift, "--dir", text(dir), "-"];
    let Run { code, out, err } = run_with(&arguments, &document.to_string());
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{err}")))
}

#[test]
fn a_key_that_is_revoked_again_by_an_import_takes_away_what_waits_under_it() {
    let (_home, dir) = waiting();
    let (code, told) = import(&dir, &json!({"revoked_keys": [{"public_key": ONE}]}));
    assert_eq!((code, told["revoked_keys"]["taken"].as_u64()), (0, Some(1)), "{told}");
    let held = export(&dir);
    assert_eq!((len(&held, "pending"), len(&held, "outgoing")), (1, 1), "{held}");
    assert_eq!(held["pending"][0]["node_id"], 9);
    assert_eq!(held["revoked_keys"][0]["revoked_at"], WHEN);
    assert_ne!(held["revoked_keys"][0]["id"], ID);
    let (_, told) = import(&dir, &json!({"revoked_keys": [{"public_key": ONE}]}));
    assert_eq!(told["revoked_keys"]["unchanged"], 1, "{told}");
    assert_eq!(export(&dir), held);
}

#[test]
fn the_very_revocation_that_the_store_has_changes_nothing() {
    let same_id = json!({"revoked": [{"node_id": 9, "id": ID}], "revoked_keys": [{"public_key": ONE, "id": ID}]});
    // As older releases exported it.
    let same_time = json!({"revoked": [{"node_id": 9, "revoked_at": WHEN}], "revoked_keys": [{"public_key": ONE, "revoked_at": WHEN}]});
    let (_home, dir) = waiting();
    let held = export(&dir);
    for document in [same_id, same_time, held.clone()] {
        assert_eq!(import(&dir, &document).0, 0);
        assert_eq!(export(&dir), held, "{document}");
    }
}

#[test]
fn an_import_that_ends_trust_marks_it_with_an_id_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let (trusted, revoked) = (
        json!({"trusted": [{"node_id": 9, "public_key": TWO}]}),
        json!({"revoked": [{"node_id": 9, "revoked_at": WHEN}]}),
    );
    let mut seen = Vec::new();
    for _ in 0..3 {
        let lift = seen.last().cloned().unwrap_or_else(|| ID.to_owned());
        assert_eq!(import_lifting(&dir, &lift, &trusted).0, 0);
        assert_eq!(import(&dir, &revoked).0, 0);
        let held = export(&dir);
        assert_eq!(len(&held, "trusted"), 0);
        let id = held["revoked"][0]["id"].as_str().unwrap().to_owned();
        assert!(!seen.contains(&id), "a lift that was used up would work again: {id}");
        for old in &seen {
            assert_eq!(import_lifting(&dir, old, &trusted).0, 1);
        }
        seen.push(id);
    }
    // The twin: into a store that had nothing of the peer, the id comes along.
    let dir = home.path().join("other");
    import(&dir, &json!({"revoked": [{"node_id": 9, "id": ID}]}));
    assert_eq!(export(&dir)["revoked"][0]["id"], ID);
}

#[test]
fn an_import_does_not_pass_by_who_is_ignored() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let ignored = json!({"ignored": [{"node_id": 15}], "ignored_keys": [{"public_key": ONE}]});
    assert_eq!(import(&dir, &ignored).0, 0);
    let rows = json!({
        "pending": [{"node_id": 15, "public_key": TWO}, {"node_id": 16, "public_key": ONE}, {"node_id": 17, "public_key": TWO}],
        "outgoing": [{"node_id": 15}, {"node_id": 18, "expected_key": ONE}, {"node_id": 19, "expected_key": TWO}],
    });
    let (code, told) = import(&dir, &rows);
    assert_eq!(
        (code, told["pending"]["skipped"].as_u64(), told["outgoing"]["skipped"].as_u64()),
        (1, Some(2), Some(2))
    );
    let held = export(&dir);
    assert_eq!((held["pending"][0]["node_id"].as_u64(), held["outgoing"][0]["node_id"].as_u64()), (Some(17), Some(19)));
    assert_eq!((len(&held, "pending"), len(&held, "outgoing")), (1, 1));
}

#[test]
fn who_is_ignored_by_an_import_has_no_row_any_more() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    import(
        &dir,
        &json!({
            "pending": [{"node_id": 15, "public_key": TWO}, {"node_id": 16, "public_key": ONE}, {"node_id": 17, "public_key": TWO}],
            "outgoing": [{"node_id": 15}, {"node_id": 18, "expected_key": ONE}, {"node_id": 19}],
            "trusted": [{"node_id": 20, "public_key": ONE}],
        }),
    );
    let (code, told) = import(
        &dir,
        &json!({"ignored": [{"node_id": 15}, {"node_id": 20}, {"node_id": 21}], "ignored_keys": [{"public_key": ONE}],
            "trusted": [{"node_id": 21, "public_key": TWO}]}),
    );
    // Who is trusted is not ignored, wherever either comes from.
    assert_eq!(
        (code, told["ignored"]["taken"].as_u64(), told["ignored"]["skipped"].as_u64()),
        (1, Some(1), Some(2)),
        "{told}"
    );
    let held = export(&dir);
    assert_eq!((held["pending"][0]["node_id"].as_u64(), held["outgoing"][0]["node_id"].as_u64()), (Some(17), Some(19)));
    assert_eq!(
        (len(&held, "pending"), len(&held, "outgoing"), len(&held, "trusted"), len(&held, "ignored")),
        (1, 1, 2, 1)
    );
    // Said again, it changes nothing.
    import(&dir, &json!({"ignored": [{"node_id": 15}], "ignored_keys": [{"public_key": ONE}]}));
    assert_eq!(export(&dir), held);
}

#[test]
fn a_request_that_is_imported_ends_no_record_that_the_store_has() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    import(&dir, &json!({"trusted": [{"node_id": 9, "public_key": ONE}, {"node_id": 10, "public_key": ONE}]}));
    let (code, told) =
        import(&dir, &json!({"outgoing": [{"node_id": 9, "expected_key": TWO}, {"node_id": 10, "expected_key": ONE}]}));
    assert_eq!(
        (code, told["outgoing"]["skipped"].as_u64(), told["outgoing"]["taken"].as_u64()),
        (1, Some(1), Some(1)),
        "{told}"
    );
    assert_eq!(export(&dir)["outgoing"][0]["node_id"], 10);
}
