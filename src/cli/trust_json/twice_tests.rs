//! A document that is imported twice in a row changes nothing the second time, whatever it says and whatever the store holds.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking"
)]

use std::fmt::Write as _;

use super::remembered_tests::{id, key, store};
use super::*;
use crate::config::Limits;
use crate::peer::RevocationId;
use crate::testing::sim_net::chance::Chance;
use crate::time::{Now, Tick};

/// Few of everything, so that what a document says meets what the store holds, and itself.
struct Words {
    keys: Vec<String>,
}

const TIMES: [&str; 6] = [
    "2026-03-03T10:00:00Z",
    "2026-03-03T10:00:40Z",
    "2026-03-04T10:00:00Z",
    "2027-01-15T07:59:59Z",
    // Ahead of both imports.
    "2027-02-01T00:00:00Z",
    "2999-01-01T00:00:00Z",
];
const NONCES: [&str; 2] = ["+/v7+/v7+/v7+/v7+/v7+w==", "Hh4eHh4eHh4eHh4eHh4eHg=="];
const IDS: [&str; 3] = ["9f86d081884c7d65", "5fa6d081884c7d65", "00000000000000aa"];

fn pick(drawn: &mut Chance, all: &[&str]) -> String {
    drawn.pick(all).unwrap().to_owned()
}

impl Words {
    /// A field, or nothing.
    fn field(&self, drawn: &mut Chance, out: &mut String, name: &str) {
        let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        let text = match name {
            "old_key" | "new_key" => pick(drawn, &keys),
            "public_key" | "expected_key" if !drawn.one_in(6) => pick(drawn, &keys),
            "nonce" | "answers" if drawn.one_in(2) => pick(drawn, &NONCES),
            "id" | "lift" if drawn.one_in(2) => pick(drawn, &IDS),
            "kind_pending" if drawn.one_in(2) => pick(drawn, &["request", "answered_unvouched"]),
            "kind_owed" => pick(drawn, &["accept", "reject", "revoke"]),
            "void" if drawn.one_in(3) => pick(drawn, &["revoked", "refused"]),
            "source" if drawn.one_in(2) => pick(drawn, &["192.0.2.9", "node 3", "what"]),
            "justification" | "reason" if drawn.one_in(3) => pick(drawn, &["a", "b"]),
            name if (name.ends_with("_at") || matches!(name, "stamp" | "seen" | "before" | "reserved"))
                && !drawn.one_in(4) =>
            {
                pick(drawn, &TIMES)
            }
            "mutual" | "authentic" | "spoke_v2" | "replaced" => {
                let flag = drawn.one_in(2);
                write!(out, ",\"{name}\":{flag}").unwrap();
                return;
            }
            "network" | "conflicts" | "revision" => {
                let number = drawn.below(3);
                write!(out, ",\"{name}\":{number}").unwrap();
                return;
            }
            _ => return,
        };
        let name = if name.starts_with("kind_") { "kind" } else { name };
        write!(out, ",\"{name}\":\"{text}\"").unwrap();
    }

    fn document(&self, drawn: &mut Chance) -> String {
        let mut lists: Vec<(&str, &[&str])> = vec![
            ("trusted", &["public_key", "approved_at", "mutual", "network"]),
            (
                "pending",
                &[
                    "public_key",
                    "justification",
                    "received_at",
                    "source",
                    "nonce",
                    "stamp",
                    "authentic",
                    "conflicts",
                    "kind_pending",
                    "spoke_v2",
                ],
            ),
            ("outgoing", &["sent_at", "nonce", "expected_key", "justification", "lift"]),
            ("revoked", &["revoked_at", "id"]),
            ("floors", &["public_key", "seen", "before", "reserved", "spoke_v2"]),
            ("revoked_keys", &["public_key", "revoked_at", "id"]),
            ("ignored", &["ignored_at"]),
            ("ignored_keys", &["public_key", "ignored_at"]),
            ("successors", &["old_key", "new_key", "replaced", "void"]),
            ("refused", &["public_key", "stamp", "refused_at"]),
            ("owed", &["kind_owed", "public_key", "decided_at", "reason", "nonce", "answers", "spoke_v2"]),
            ("revisions", &["revision"]),
        ];
        for at in (1..lists.len()).rev() {
            lists.swap(at, drawn.below(at + 1));
        }
        let mut out = "{\"generation\":1".to_owned();
        for (name, fields) in lists {
            // One at least, whatever else: it would be no document.
            if name != "trusted" && drawn.one_in(2) {
                continue;
            }
            write!(out, ",\n\"{name}\":[").unwrap();
            for number in 0..1 + drawn.below(3) {
                // Often the same peer, now and then the node itself or nobody.
                let peer = [8, 9, 8, 9, 8, 9, 10, 7, 0][drawn.below(9)];
                let comma = if number == 0 { "" } else { "," };
                write!(out, "{comma}\n{{").unwrap();
                if name.ends_with("_keys") {
                    write!(out, "\"x\":1").unwrap()
                } else {
                    write!(out, "\"node_id\":{peer}").unwrap()
                }
                fields.iter().for_each(|field| self.field(drawn, &mut out, field));
                out.push('}');
            }
            out.push(']');
        }
        out.push('}');
        out
    }
}

fn import(before: &Tables, document: &str, seconds: i64, lifts: &[RevocationId]) -> Taken {
    let now = Now { wall: WallMillis::new(1_800_000_000_000 + seconds * 1000), tick: Tick::new(0) };
    let mut drawn = u8::try_from(seconds % 100).unwrap();
    let mut nonce = || {
        drawn = drawn.wrapping_add(101);
        Nonce([drawn; 16])
    };
    let into =
        Into { before, now, own_id: Some(id(7)), own_key: None, limits: Limits::default(), lifts, nonce: &mut nonce };
    super::read(document.as_bytes(), into).unwrap().0
}

#[test]
fn a_document_that_is_imported_twice_changes_nothing_the_second_time() {
    let words = Words { keys: [1, 2, 3].map(|seed| key(seed).to_base64()).to_vec() };
    let (mut changed, mut lifted) = (0, 0);
    let seeds = std::env::var("TRUSTKEEP_IMPORTS").map_or(2_000, |text| text.parse().unwrap());
    for seed in 0..seeds {
        let mut drawn = Chance::new(seed);
        let empty = store(&[]);
        let lifts: Vec<RevocationId> =
            IDS.iter().filter(|_| drawn.one_in(3)).map(|text| text.parse().unwrap()).collect();
        let held = if drawn.one_in(4) { empty } else { import(&empty, &words.document(&mut drawn), 0, &[]).after };
        let document = words.document(&mut drawn);
        let first = import(&held, &document, 10, &lifts);
        let second = import(&first.after, &document, 20, &lifts);
        let told = || {
            let all = |taken: &Taken| taken.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            format!(
                "seed {seed}, lifts {lifts:?}\nheld {}\n{document}\nfirst {}\n{}\nsecond {}\n{}",
                super::remembered_tests::export(&held, Nonces::Written),
                super::remembered_tests::export(&first.after, Nonces::Written),
                all(&first),
                super::remembered_tests::export(&second.after, Nonces::Written),
                all(&second)
            )
        };
        assert!(second.after.diff(&first.after).is_empty(), "{}", told());
        let taken: u64 = second.counts.iter().map(|count| count.taken).sum();
        assert_eq!(taken, 0, "{:?}\n{}", second.counts, told());
        changed += u64::from(!first.after.diff(&held).is_empty());
        lifted += u64::from(!lifts.is_empty());
    }
    assert!(changed > seeds / 2 && lifted > seeds / 4, "{changed} {lifted} of {seeds}");
}
