//! Names of files, and what is in files that others may write, lead nobody astray who reads them: nothing of them moves the
//! cursor, and none of them begins a line of its own.
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

mod program;

use std::path::Path;

use program::{init, run, text};

/// Escape, bell, the end of a line, another end of a line, and marks that turn or hide what follows.
const ODD: [char; 7] = ['\u{1b}', '\u{7}', '\r', '\u{2028}', '\u{202e}', '\u{200b}', '\u{85}'];

/// What a command says, in which nothing is odd, nor does a line begin as the odd name wants it.
#[track_caller]
fn says(words: &[&str]) -> String {
    let (_, out, err) = run(words);
    let said = format!("{out}{err}");
    for odd in ODD {
        assert!(!said.contains(odd), "{words:?}: {odd:?} is in {said:?}");
    }
    assert!(!said.lines().any(|line| line.starts_with("forged")), "{words:?}: {said}");
    said
}

fn odd_text() -> String {
    format!("x{}\nforged: all is well", ODD.iter().collect::<String>())
}

#[test]
fn names_of_files_in_a_store_are_shown_on_their_own_line() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    assert_eq!(run(&["import", "--home", text(&home), text(&document(dir.path()))]).0, 0);
    for name in [format!("x{}", odd_text()), format!("journal-{}.tkj", odd_text()), format!("{}.tks", odd_text())] {
        std::fs::write(home.join("store").join(name.replace('/', "")), "x").unwrap();
    }
    for command in ["verify", "inspect", "repair"] {
        says(&[command, "--home", text(&home)]);
    }
    assert!(says(&["verify", "--home", text(&home)]).contains("forged: all is well"), "it is named, in its line");
}

#[test]
fn what_a_peers_file_has_is_quoted_on_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let escaped: String = odd_text().chars().map(|odd| format!("\\u{:04x}", u32::from(odd))).collect();
    for stanza in [
        format!("[[peer]]\nid = 9\n\"{escaped}\" = 1\n"),
        format!("[[peer]]\nid = 9\naddress = \"{escaped}\"\n"),
        format!("[[peer]]\nid = 9\npublic_key = \"{escaped}\"\n"),
        format!("[[peer]]\nid = \"{escaped}\"\n"),
        format!("[[peer]]\nid = 9 {}\n", odd_text()),
        format!("\"{escaped}\" = 1\n"),
    ] {
        std::fs::write(home.join("peers.toml"), stanza).unwrap();
        for words in [&["peer", "list"][..], &["peer", "remove", "9"], &["node", "--listen", "127.0.0.1:0"]] {
            let said = says(&[words, &["--home", text(&home)]].concat());
            assert!(said.contains("peers.toml"), "{words:?}: {said}");
        }
    }
}

fn document(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("document.json");
    std::fs::write(&path, r#"{"trusted":[]}"#).unwrap();
    path
}
