//! Files in a home or a store that are not what they should be:
//!
//! - no command waits for a pipe that stands where a file is read; a text says what it is;
//! - where another program's `LOCK` keeps every store from opening, `verify` does not say that all is well;
//! - what is damaged, and no part of a store's state, is set aside by `repair`, as `verify` says;
//! - a command that has a store count on says so if it does not know the home;
//! - where a file or a directory is missing or of another kind, the text says what to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use program::{fails, init, run, text};

fn home(dir: &TempDir) -> std::path::PathBuf {
    let home = dir.path().join("home");
    init(&home, "7");
    home
}

/// A pipe in the place of this file.
fn pipe(path: &Path) {
    let _ = std::fs::remove_file(path);
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn no_command_waits_for_a_pipe_in_the_place_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir);
    let peers = home.join("peers.toml");
    let at = ["--home", text(&home)];
    let whatever = |words: &[&str]| {
        fails(&[&["peer", "list"][..], &at].concat(), words);
        fails(&[&["node"][..], &at].concat(), words);
        fails(&[&["peer", "remove", "9"][..], &at].concat(), words);
    };
    pipe(&peers);
    whatever(&["peers.toml: not a regular file"]);
    std::fs::remove_file(&peers).unwrap();
    std::fs::create_dir(&peers).unwrap();
    whatever(&["peers.toml: not a regular file"]);
    std::fs::remove_dir(&peers).unwrap();
    // The twin.
    std::fs::write(&peers, "").unwrap();
    assert_eq!(run(&[&["peer", "list"][..], &at].concat()).0, 0);
    // A document may come from another command, through a pipe that the operator names.
    let document = dir.path().join("document");
    pipe(&document);
    std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(&document, r#"{"trusted":[]}"#).unwrap());
        assert_eq!(run(&[&["import"][..], &at, &[text(&document)]].concat()).0, 0);
    });
    fails(&[&["import"][..], &at, &[text(dir.path())]].concat(), &["a directory, and no document"]);
    pipe(&home.join("identity.key"));
    fails(&[&["node"][..], &at].concat(), &["identity.key: not a regular file"]);
}

#[test]
fn what_is_missing_or_of_another_kind_is_told_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir);
    let at = ["--home", text(&home)];
    std::fs::remove_file(home.join("peers.toml")).unwrap();
    fails(&[&["peer", "remove", "9"][..], &at].concat(), &["peers.toml", "make an empty one: touch "]);
    std::os::unix::fs::symlink("/dev/zero", home.join("peers.toml")).unwrap();
    fails(&[&["node"][..], &at].concat(), &["/dev/zero", "put a regular file in the place of"]);
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for command in [&["node"][..], &["peer", "list"], &["peer", "remove", "9"], &["status"], &["id"]] {
        let (code, _, told) = run(&[command, &["--home", text(&file)]].concat());
        assert!(code == 1 && told.contains("is a file, and no home; name a directory"), "{command:?}: {told}");
    }
}

#[test]
fn verify_says_that_no_store_opens_beside_another_programs_lock() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    drop(trustkeep::TrustStore::options().open(&store).unwrap());
    let at = ["--dir", text(&store)];
    assert!(run(&[&["verify"][..], &at].concat()).1.contains("every byte is accounted for"));
    std::fs::write(store.join("LOCK"), "hello\n").unwrap();
    let (code, out, told) = run(&[&["verify"][..], &at].concat());
    assert!(code == 1 && out.starts_with("generation 0: no store opens here: LOCK is another program's"), "{out}");
    assert!(told.contains("remove LOCK if no other program uses this directory"), "{told}");
    let (code, out, _) = run(&[&["verify", "--json"][..], &at].concat());
    let verified: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == 1 && verified["ok"] == false && verified["accounted_for"] == false, "{out}");
}

#[test]
fn what_is_damaged_and_not_needed_is_set_aside_as_verify_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let opened = trustkeep::TrustStore::options().open(&store).unwrap();
    let record = trustkeep::TrustRecord::new(trustkeep::NodeId::new(9).unwrap(), None);
    opened.grant(record).unwrap().wait_durable().unwrap();
    opened.close().unwrap();
    drop(opened);
    // A copy of a journal under a number before the first one.
    let stray = "journal-0000000000000000.tkj";
    std::fs::copy(store.join("journal-0000000000000001.tkj"), store.join(stray)).unwrap();
    let at = ["--dir", text(&store)];
    let (code, out, told) = run(&[&["verify"][..], &at].concat());
    assert!(code == 1 && out.contains("DAMAGED"), "{out}");
    assert!(told.contains("the store opens") && told.contains("`trustkeep repair --yes` sets that aside"), "{told}");
    let (code, out, told) = run(&[&["repair"][..], &at].concat());
    assert!(code == 1 && out.contains(stray) && told.contains("nothing was changed"), "{out}{told}");
    assert!(store.join(stray).exists());
    let (code, out, _) = run(&[&["repair", "--yes", "--json"][..], &at].concat());
    let repaired: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && repaired["outcome"] == "repaired" && repaired["lost"].is_null(), "{out}");
    assert_eq!(repaired["home_known"], false);
    assert!(!store.join(stray).exists() && store.join(format!("damaged-0-{stray}")).exists());
    assert!(run(&[&["verify"][..], &at].concat()).1.contains("every byte is accounted for"));
    assert!(run(&[&["repair"][..], &at].concat()).1.contains("nothing to repair"));
    assert!(trustkeep::TrustStore::options().open(&store).unwrap().is_trusted(trustkeep::NodeId::new(9).unwrap()));
}
