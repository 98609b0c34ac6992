//! What the tables of a listing say in words.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::*;

const NOW: WallMillis = WallMillis::new(1_700_000_000_000);

fn shown(print: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A peer that showed so many keys besides the one that it waits under.
fn with_other_keys(others: u32) -> PendingRow {
    let other = |number| {
        json!({ "public_key": "AA==", "fingerprint": format!("fp:{number}"), "source": "192.0.2.9",
        "first_seen": 0, "kind": "request", "replaced_by": null, "void": null, "key_revoked_at": null,
        "key_revocation": null })
    };
    serde_json::from_value(json!({ "node_id": 9, "public_key": "AA==", "fingerprint": "fp:0", "justification": "",
        "received_at": 0, "source": "192.0.2.1", "authentic": false, "conflicts": others, "kind": "request",
        "entry": null, "replaces": null, "proven_by": null, "replaced_by": null, "void": null, "revoked_at": null,
        "revocation": null, "key_revoked_at": null, "key_revocation": null,
        "others": (1..=others).map(other).collect::<Vec<_>>() }))
    .unwrap()
}

#[test]
fn an_entry_that_keeps_no_further_key_names_the_way_round_it() {
    let text = |others| shown(|out| print_pending(out, &[with_other_keys(others)], NOW));
    // Of whichever source the right one is, its place may be taken.
    for others in [1, 4] {
        let some = text(others);
        assert!(some.contains(&format!("also fp:{others}")), "{some}");
        let words: Vec<_> = some.split_whitespace().collect();
        let words = words.join(" ");
        for way in [
            "one key of each source is kept, and 4 in all",
            "`trustkeep grant ",
            " 9 KEY`, with the key that its operator says",
        ] {
            assert!(words.contains(way), "{way}: {words}");
        }
    }
    // The twin: no other key has come.
    let alone = text(0);
    assert!(!alone.contains("one key of each source") && !alone.contains("grant"), "{alone}");
}

/// What `outgoing` says of a request that was tried, and perhaps refused.
fn state(tried: &Value, refused: &Value) -> String {
    let mut row = json!({ "node_id": 9, "sent_at": NOW.as_millis(), "expected_key": null, "fingerprint": null,
        "justification": "text", "lift": null, "refused": refused });
    if let (Some(row), Some(tried)) = (row.as_object_mut(), tried.as_object()) {
        row.extend(tried.clone());
    }
    let row: OutgoingRow = serde_json::from_value(row).unwrap();
    let text = shown(|out| print_outgoing(out, &[row], NOW));
    // Cells stand two blanks apart; the state is the last.
    let line = text.lines().find(|line| line.trim_start().starts_with("9 ")).unwrap();
    line.rsplit("  ").next().unwrap().to_owned()
}

#[test]
fn a_request_shows_whether_it_left_when_it_is_tried_again_and_how_it_was_refused() {
    let tried = |sent: Value, error: Value, next: Value| json!({ "sent": sent, "tries": 2, "last_error": error, "next_try": next });
    let next = NOW.as_millis() + 3_500;
    let none = Value::Null;
    for (sent, error, next, words) in [
        (json!(false), json!("refused"), json!(next), "not sent yet, again in 4 s"),
        (json!(false), json!("refused"), json!(null), "not sent yet"),
        (json!(true), json!(null), json!(next), "sent, again in 4 s"),
        (json!(true), json!("refused"), json!(next), "sent before, again in 4 s"),
        (json!(null), json!(null), json!(next), "not tried again yet, again in 4 s"),
    ] {
        assert_eq!(state(&tried(sent, error, next), &none), words);
    }
    assert_eq!(state(&none, &none), "-", "offline");
    let refused = |authentic| json!({ "at": 0, "reason": "no", "fingerprint": "1a2b:3c4d", "authentic": authentic });
    let sent = tried(json!(true), json!(null), json!(null));
    assert_eq!(state(&sent, &refused(true)), "refused");
    assert_eq!(state(&sent, &refused(false)), "refused, unvouched, 1a2b:3c4d");
}
