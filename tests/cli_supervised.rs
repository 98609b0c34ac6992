//! A node and what is around it: a supervisor that wants to be told, a process that is stopped, a home that was somebody's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use program::{Node, init, run, text};

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_supervisor_that_asked_for_it_is_told_of_the_start_and_of_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let path = dir.path().join("notify");
    let name = format!("trustkeep-test-{}", std::process::id());
    let abstract_one = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for (socket, named) in
        [(UnixDatagram::bind(&path).unwrap(), text(&path).to_owned()), (abstract_one, format!("@{name}"))]
    {
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let hears = || {
            let mut state = [0; 100];
            let len = socket.recv(&mut state).unwrap();
            String::from_utf8(state.get(..len).unwrap().to_vec()).unwrap()
        };
        let mut child = Command::new(env!("CARGO_BIN_EXE_trustkeep"))
            .args(["node", "--home", text(&home), "--listen", "127.0.0.1:0"])
            .env("NOTIFY_SOCKET", named)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(hears(), "READY=1\n");
        // That is so: it answers.
        assert_eq!(run(&["status", "--check", "--home", text(&home)]).0, 0);
        signal(&child, "TERM");
        assert_eq!(hears(), "STOPPING=1\n");
        assert!(child.wait().unwrap().success());
    }
    // And one that is not there stops no node.
    let mut child = Command::new(env!("CARGO_BIN_EXE_trustkeep"))
        .args(["node", "--home", text(&home), "--listen", "127.0.0.1:0", "--stop-at-eof"])
        .env("NOTIFY_SOCKET", dir.path().join("nobody"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(child.wait().unwrap().success() && log.contains("NOTIFY_SOCKET"), "{log}");
}

#[test]
fn of_a_node_that_is_stopped_a_command_says_so_and_does_not_wait_for_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let node = Node::start(&home, "127.0.0.1:0");
    node.does(&["status"]);
    signal(&node.child, "STOP");
    let begun = Instant::now();
    node.refuses(&["status"], &["is stopped", &format!("kill -CONT {}", node.child.id())]);
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
    signal(&node.child, "CONT");
    node.does(&["status"]);
}

#[test]
fn a_home_with_a_store_is_told_by_init_and_one_without_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    // It says nothing on standard error, or this fails.
    init(&home, "7");
    Node::start(&home, "127.0.0.1:0").signal("TERM");
    std::fs::remove_file(home.join("identity.key")).unwrap();
    let (code, out, err) = run(&["init", "--home", text(&home), "--id", "8"]);
    assert!(code == 0 && out.contains("fingerprint"), "{out}{err}");
    assert!(err.contains("store is there already") && err.contains("move it away"), "{err}");
}
