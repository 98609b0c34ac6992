//! Who may write to what a node believes, and whose files it takes:
//!
//! - a node starts only where nobody else may write, and says what and how otherwise; a group may be named;
//! - an identity may be a mounted secret;
//! - a store may be reached through a link;
//! - what root does to another user's store leaves that user's files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use program::{Node, fails, init, run, text};

fn set(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_node_starts_only_where_nobody_else_may_write() {
    let dir = tempfile::tempdir().unwrap();
    let above = dir.path().join("above");
    std::fs::create_dir(&above).unwrap();
    set(&above, 0o755);
    let home = above.join("home");
    init(&home, "7");
    drop(Node::start(&home, "127.0.0.1:0"));
    let node = ["node", "--home", text(&home), "--listen", "127.0.0.1:0"];
    let peers = home.join("peers.toml");
    let group = std::fs::metadata(&home).unwrap().gid().to_string();
    for (path, good) in [(&above, 0o755), (&home, 0o700), (&peers, 0o600), (&home.join("store"), 0o700)] {
        set(path, good | 0o002);
        fails(
            &node,
            &[&format!("{}: mode", text(path)), "lets everybody change it", "chmod o-w", "--insecure-permissions"],
        );
        fails(&[&node[..], &["--trusted-group", &group]].concat(), &["lets everybody"]);
        set(path, good | 0o020);
        fails(&node, &[text(path), &format!("lets group {group} change it"), "--trusted-group"]);
        drop(Node::start_with(&home, "127.0.0.1:0", &["--trusted-group", &group]));
        set(path, good);
    }
    // The directory of the socket, too.
    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    set(&open, 0o777);
    let socket = open.join("c.sock");
    fails(&[&node[..], &["--control", text(&socket)]].concat(), &[text(&open), "lets everybody"]);

    // Going on all the same is said each time.
    set(&peers, 0o666);
    for _ in 0..2 {
        let log = dir.path().join("log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_trustkeep"))
            .args(node)
            .args(["--insecure-permissions", "--stop-at-eof"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let told = std::fs::read_to_string(&log).unwrap();
        assert!(told.contains("--insecure-permissions") && told.contains("peers.toml: mode 0666"), "{told}");
    }
    let (code, _, err) = run(&[&node[..], &["--trusted-group", "no-such-group"]].concat());
    assert!(code == 2 && err.contains("no such group"), "{err}");
}

#[test]
fn another_users_directory_is_refused() {
    if !is_root() {
        eprintln!("not root: nothing is tested");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let above = dir.path().join("above");
    std::fs::create_dir(&above).unwrap();
    let home = above.join("home");
    init(&home, "7");
    chown(&above, Some(12_345), None).unwrap();
    fails(&["node", "--home", text(&home)], &[text(&above), "belongs to user 12345"]);
    chown(&above, Some(0), None).unwrap();
    drop(Node::start(&home, "127.0.0.1:0"));
}

#[test]
fn a_home_is_not_made_where_another_user_decides() {
    if !is_root() {
        eprintln!("not root: nothing is tested");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let makes = ["init", "--home", text(&home), "--id", "7"];
    // His directory, though it is empty; his peers file in one of ours; ours, which everybody may write to, with a file in it.
    let mode = || std::fs::metadata(&home).unwrap().mode() & 0o7777;
    for bits in [0o755, 0o1777] {
        chown(&home, Some(12_345), None).unwrap();
        set(&home, bits);
        fails(&makes, &["belongs to user 12345", "nothing was made"]);
        assert_eq!(mode(), bits, "it is refused, and stays as it was");
        chown(&home, Some(0), None).unwrap();
    }
    // An empty one of ours becomes ours alone.
    set(&home, 0o777);
    let (code, _, err) = run(&makes);
    assert_eq!((code, mode()), (0, 0o700), "{err}");
    for made in ["identity.key", "peers.toml"] {
        std::fs::remove_file(home.join(made)).unwrap();
    }
    std::fs::write(home.join("peers.toml"), "").unwrap();
    chown(home.join("peers.toml"), Some(12_345), None).unwrap();
    fails(&makes, &["peers.toml", "belongs to user 12345"]);
    chown(home.join("peers.toml"), Some(0), None).unwrap();
    set(&home, 0o777);
    fails(&makes, &["lets everybody change it", "chmod go-w"]);
    assert!(!home.join("identity.key").exists());
    // What is wrong above is told, and does not keep a home from being made, which is to be moved perhaps.
    set(&home, 0o700);
    set(dir.path(), 0o777);
    let (code, _, err) = run(&makes);
    assert!(code == 0 && err.contains("lets everybody change it") && home.join("identity.key").exists(), "{err}");
    set(dir.path(), 0o700);
    drop(Node::start(&home, "127.0.0.1:0"));
}

#[test]
fn an_identity_may_be_a_mounted_secret() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let made = init(&home, "7");
    // As a secret is mounted: links to links, read only.
    let secret = dir.path().join("secret");
    std::fs::create_dir_all(secret.join("..2026")).unwrap();
    std::fs::rename(home.join("identity.key"), secret.join("..2026/identity.key")).unwrap();
    symlink("..2026", secret.join("..data")).unwrap();
    symlink("..data/identity.key", secret.join("identity.key")).unwrap();
    symlink(secret.join("identity.key"), home.join("identity.key")).unwrap();
    let key = secret.join("..2026/identity.key");
    for path in [&secret, &secret.join("..2026")] {
        set(path, 0o755);
    }
    set(&key, 0o400);
    drop(Node::start(&home, "127.0.0.1:0"));
    set(&key, 0o440);
    fails(&["node", "--home", text(&home)], &["mode 0440", "--key-group"]);
    let group = std::fs::metadata(&key).unwrap().gid().to_string();
    let node = Node::start_with(&home, "127.0.0.1:0", &["--key-group", &group]);
    assert_eq!(node.shows("status")["public_key"], made["public_key"]);
    let (code, out, _) = run(&["id", "--json", "--home", text(&home), "--key-group", &group]);
    assert!(code == 0 && out.contains(made["public_key"].as_str().unwrap()), "{out}");
    drop(node);
    // A document is read into the store of such a home, too.
    let document = dir.path().join("empty.json");
    std::fs::write(&document, r#"{"trusted": []}"#).unwrap();
    let imports = ["import", "--home", text(&home), text(&document)];
    fails(&imports, &["mode 0440", "--key-group"]);
    let (code, _, err) = run(&[&imports[..], &["--key-group", &group]].concat());
    assert_eq!(code, 0, "{err}");
    set(&key, 0o444);
    fails(&["node", "--home", text(&home), "--key-group", &group], &["mode 0444"]);
    // Where others may put another key in its place, the link is not followed.
    set(&key, 0o400);
    set(&secret, 0o777);
    fails(&["node", "--home", text(&home)], &["identity.key: not a regular file"]);
}

#[test]
fn a_store_may_be_reached_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let volume = dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    set(&volume, 0o700);
    symlink(volume.join("store"), home.join("store")).unwrap();
    std::fs::create_dir(volume.join("store")).unwrap();
    set(&volume.join("store"), 0o700);
    let node = Node::start(&home, "127.0.0.1:0");
    node.does(&["revoke", "5"]);
    assert_eq!(node.signal("TERM").code(), Some(0));
    for command in ["inspect", "verify", "export", "compact", "repair"] {
        let (code, _, err) = run(&[command, "--dir", text(&home.join("store"))]);
        assert_eq!((code, err.as_str()), (0, ""), "{command}");
    }
    let file = dir.path().join("trust.json");
    std::fs::write(&file, "{\"revoked\":[{\"node_id\":6}]}").unwrap();
    assert_eq!(run(&["import", "--home", text(&home), text(&file)]).0, 0);
    let node = Node::start(&home, "127.0.0.1:0");
    assert_eq!(node.ids("revoked", "revoked"), [5, 6]);
    drop(node);
    // Who may write to where the link leads decides as well.
    set(&volume, 0o777);
    fails(&["node", "--home", text(&home)], &[text(&volume), "lets everybody"]);
}

#[test]
fn what_root_does_to_another_users_store_leaves_that_users_files() {
    if !is_root() {
        eprintln!("not root: nothing is tested");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    set(dir.path(), 0o755);
    for path in [home.clone(), home.join("identity.key"), home.join("peers.toml")] {
        chown(path, Some(12_345), Some(12_346)).unwrap();
    }
    let store = home.join("store");
    let owners = |dir: &Path| -> Vec<(u32, u32)> {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
        let mut owners: Vec<_> = names.map(|found| (found.uid(), found.gid())).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    };
    // The document is root's alone.
    let file = dir.path().join("trust.json");
    std::fs::write(&file, "{\"revoked\":[{\"node_id\":6}]}").unwrap();
    set(&file, 0o600);
    let (code, _, err) = run(&["import", "--home", text(&home), text(&file)]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(owners(&store), [(12_345, 12_346)]);
    assert_eq!(owners(&home), [(12_345, 12_346)]);
    std::fs::write(&file, "{\"revoked\":[{\"node_id\":8}]}").unwrap();
    assert_eq!(run(&["import", "--dir", text(&store), text(&file)]).0, 0);
    for command in ["compact", "repair"] {
        assert_eq!(run(&[command, "--dir", text(&store)]).0, 0);
    }
    assert_eq!(run(&["stress", "--dir", text(&store), "--threads", "1", "--seconds", "0.1"]).0, 0);
    assert_eq!(run(&["rekey", "--home", text(&home)]).0, 0);
    assert_eq!((owners(&store), owners(&home)), (vec![(12_345, 12_346)], vec![(12_345, 12_346)]));
}
