//! What the tests of the program on files share: runs of it, and what is said in them.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use trustkeep::NodeId;

/// What a run of the program came to.
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn run(args: &[&str]) -> Run {
    run_with(args, "")
}

pub fn run_with(args: &[&str], stdin: &str) -> Run {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_trustkeep"));
    let output = command.args(args).write_stdin(stdin).timeout(Duration::from_secs(300)).output().unwrap();
    Run {
        code: output.status.code().expect("killed"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Output of a run that succeeds and has nothing to complain about.
#[track_caller]
pub fn done(args: &[&str]) -> String {
    let Run { code, out, err } = run(args);
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
    out
}

#[track_caller]
pub fn json(args: &[&str]) -> Value {
    serde_json::from_str(&done(args)).unwrap()
}

#[track_caller]
pub fn fails(args: &[&str], words: &[&str]) -> Run {
    let run = run(args);
    assert_eq!(run.code, 1, "{args:?}: {}{}", run.out, run.err);
    assert!(run.err.starts_with("trustkeep: "), "{args:?}: {}", run.err);
    for word in words {
        assert!(run.err.contains(word), "{args:?}: {word:?} is not in: {}", run.err);
    }
    run
}

pub fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Of some peer.
pub const KEY: &str = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";
