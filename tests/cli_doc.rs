//! `docs/cli.md` is true: each command's JSON has the fields of the documented example and no others, of the same kinds;
//! every command is in the document; and every command's exit codes are 0, 1 and 2 as it says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use program::{Node, init, run, text};

/// The documented examples, by command; of those with several lines, all.
fn examples() -> BTreeMap<String, Vec<Value>> {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md")).unwrap();
    let blocks = document.split("```json ").skip(1).map(|block| {
        let (name, rest) = block.split_once('\n').unwrap();
        let lines = rest.split("```").next().unwrap().lines();
        (name.to_owned(), lines.map(|line| serde_json::from_str(line).unwrap()).collect())
    });
    blocks.collect()
}

/// The fields of a value and their kinds, in one text; `null` may stand for anything.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "?".to_owned(),
        Value::Bool(_) => "flag".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "text".to_owned(),
        Value::Array(list) => format!("[{}]", list.first().map_or_else(|| "?".to_owned(), shape)),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}: {}", shape(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Whether two shapes agree where neither leaves anything open.
fn agree(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Null, _) | (_, Value::Null) => true,
        (Value::Object(one), Value::Object(other)) => {
            one.keys().eq(other.keys()) && one.iter().all(|(name, value)| agree(value, &other[name]))
        }
        (Value::Array(one), Value::Array(other)) => match (one.first(), other.first()) {
            (Some(one), Some(other)) => agree(one, other),
            _ => true,
        },
        _ => shape(one) == shape(other),
    }
}

#[track_caller]
fn is_documented(examples: &BTreeMap<String, Vec<Value>>, command: &str, line: usize, told: &str) {
    let told: Value = serde_json::from_str(told).unwrap_or_else(|_| panic!("{command}: {told}"));
    let documented = &examples[command][line];
    assert!(agree(documented, &told), "{command}:\ndocumented {}\ntold       {}", shape(documented), shape(&told));
}

/// Standard output of a run with this exit code.
#[track_caller]
fn out(args: &[&str], code: i32) -> String {
    let (is, out, err) = run(args);
    assert_eq!(is, code, "{args:?}: {out}{err}");
    assert!(err.lines().all(|line| line.starts_with("trustkeep: ")), "{err}");
    out
}

const KEY: &str = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";

#[test]
fn every_json_has_the_documented_fields() {
    let examples = examples();
    assert_eq!(examples.len(), 24, "{:?}", examples.keys());
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    let check = |command: &str, told: &str| is_documented(&examples, command, 0, told);
    check("init", &init(&home, "7").to_string());
    check("rekey", &out(&["rekey", "--json", "--home", text(&home)], 0));
    let store = home.join("store");
    let on = |command: &'static str| [command, "--json", "--dir", text(&store)];

    let file = dir.path().join("trust.json");
    let document = format!(
        r#"{{"trusted":[{{"node_id":9,"public_key":"{KEY}","hostname":"nine"}},{{}}],"pending":[{{"node_id":21,"public_key":"{KEY}"}}],
        "outgoing":[{{"node_id":30,"expected_key":"{KEY}"}}],"revoked":[{{"node_id":5}}],
        "successors":[{{"node_id":9,"old_key":"{KEY}","new_key":"{KEY}"}}],"refused":[{{"node_id":22,"public_key":"{KEY}"}}],
        "owed":[{{"node_id":22,"kind":"reject","public_key":"{KEY}"}}],"revisions":[{{"node_id":9,"revision":41}}]}}"#
    );
    std::fs::write(&file, document).unwrap();
    check("import", &out(&["import", "--json", "--home", text(&home), text(&file)], 1));

    // Its key was replaced, and what it asks by itself is not to be among what it lists.
    let node = Node::start_with(&home, "127.0.0.1:0", &["--no-announce"]);
    let ready = format!(
        r#"{{"node_id":7,"listen":"{}","control":"{}","pid":{}}}"#,
        node.listen,
        home.join("control.sock").display(),
        node.child.id()
    );
    check("node", &ready);
    for command in ["list", "pending", "outgoing", "revoked", "ignored", "status"] {
        check(command, &node.shows(command).to_string());
    }
    check("registry", &out(&["registry", "list", "--json", "--home", text(&home)], 0));
    let on_home = |args: &[&'static str]| -> Vec<&str> { node.args(args) };
    check("show", &out(&on_home(&["show", "9", "--json"]), 0));
    check("show", &out(&on_home(&["show", "21", "--json"]), 0));
    check("check", &out(&on_home(&["check", "9", "--json"]), 0));
    check("check", &out(&on_home(&["check", "10", "--json"]), 1));
    check("count", &out(&on_home(&["list", "--count", "--json"]), 0));
    check("id", &out(&on_home(&["id", "--json"]), 0));
    check("results", &out(&on_home(&["revoke", "60", "61", "--json"]), 0));
    check("results", &out(&on_home(&["unrevoke", "60", "62", "--json"]), 1));
    for (args, code) in [
        (&["request", "60", "--json"][..], 1),
        (&["cancel", "60", "--json"], 0),
        (&["wait", "60", "--timeout", "0", "--json"], 1),
        (&["approve", "60", "--json"], 1),
        (&["reject", "60", "--json"], 1),
        (&["grant", "62", KEY, "--json"], 0),
        (&["ignore", "63", "--json"], 0),
        (&["unignore", "63", "--json"], 0),
        (&["revoke", "62", "--json"], 0),
        (&["unrevoke", "61", "62", "--json"], 0),
    ] {
        check("results", &out(&on_home(args), code));
    }
    check("results", &out(&["registry", "confirm", "--json", "--home", text(&home)], 1));
    check("peer add", &out(&["peer", "add", "--json", "--home", text(&home), "9", "--key", KEY], 0));
    check("peer list", &out(&["peer", "list", "--json", "--home", text(&home)], 0));
    check("show", &out(&on_home(&["show", "9", "--json"]), 0));
    check("peer add", &out(&["peer", "remove", "--json", "--home", text(&home), "9"], 0));
    let count = |listing: &str, table: &str| node.ids(listing, table).len();
    assert_eq!((count("list", "trusted"), count("pending", "pending"), count("outgoing", "outgoing")), (1, 1, 1));
    let args = node.args(&["watch", "--json", "--count", "2", "--timeout", "60"]);
    let mut watch = Command::new(env!("CARGO_BIN_EXE_trustkeep")).args(args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    node.does(&["revoke", "9"]);
    for (number, line) in [first, lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()].iter().enumerate() {
        is_documented(&examples, "watch", number, line);
    }
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    drop(node);

    let inspected = out(&on("inspect"), 0);
    check("inspect", &inspected);
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    for list in ["owed", "refused", "successors", "revisions"] {
        assert!(!inspected[list].as_array().unwrap().is_empty(), "{list}: {inspected}");
    }
    let shown = out(&["inspect", "--dir", text(&store)], 0);
    for title in ["OWED", "REFUSED", "SUCCESSORS", "REVISIONS"] {
        assert!(shown.lines().any(|line| line.starts_with(title)), "{title}: {shown}");
    }
    check("export", &out(&[&on("export")[..], &["--out", text(&file), "--force"]].concat(), 0));
    check("compact", &out(&on("compact"), 0));
    std::fs::write(store.join("README"), "x").unwrap();
    let newest = |store: &Path| {
        let names = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|end| end == "tks")).max().unwrap()
    };
    let snapshot = newest(&store);
    let mut bytes = std::fs::read(&snapshot).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    check("verify", &out(&on("verify"), 1));
    check("repair", &out(&[&on("repair")[..], &["--empty"]].concat(), 1));
}

#[test]
fn every_command_is_documented_and_answers_with_0_1_or_2() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md")).unwrap();
    let help = out(&["--help"], 0);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert!(commands.len() >= 24, "{commands:?}");
    let missing = tempfile::tempdir().unwrap().path().join("missing");
    let missing = text(&missing);
    for command in commands {
        assert!(document.contains(&format!("`{command}`")), "{command}");
        out(&[command, "--help"], 0);
        assert_eq!(run(&[command, "--frobnicate"]).0, 2, "{command}");
        // Each fails where there is nothing for it, but for the one that needs nothing.
        let on_nothing = match command {
            "completions" | "demo" => continue,
            "help" => vec!["frobnicate"],
            "man" => vec!["--out", missing],
            "id" => vec!["--home", missing],
            "peer" => vec!["list", "--home", missing],
            "show" | "check" => vec!["--home", missing, "9"],
            "init" => vec!["--home", "/nonexistent/parent/home"],
            "node" | "rekey" | "list" | "pending" | "outgoing" | "revoked" | "ignored" | "status" | "watch" => {
                vec!["--home", missing]
            }
            "request" | "approve" | "reject" | "cancel" | "revoke" | "wait" | "unrevoke" | "ignore" | "unignore" => {
                vec!["--home", missing, "9"]
            }
            "registry" => vec!["confirm", "--home", missing],
            "grant" => vec!["--home", missing, "9", KEY],
            "inspect" | "verify" | "export" | "compact" | "repair" => vec!["--dir", missing],
            "import" => vec!["--dir", missing, missing],
            "stress" => vec!["--dir", "/nonexistent/parent/store", "--threads", "1", "--seconds", "0"],
            other => panic!("{other}: how does it fail?"),
        };
        let (code, told, err) = run(&[&[command][..], &on_nothing].concat());
        if command == "help" {
            assert_eq!((code, told.as_str()), (2, ""), "{err}");
            continue;
        }
        assert_eq!((code, told.as_str()), (1, ""), "{command}: {err}");
        assert!(err.lines().last().unwrap().starts_with("trustkeep: "), "{command}: {err}");
    }
}
