//! The control socket:
//!
//! - a command is heard and done however many wait, watch, or say nothing;
//! - a refusal is told as it was said, also where the node closed before it had heard all;
//! - a socket that was removed comes back, and commands wait for that; where it does not, they say who holds the store;
//! - a node in another PID namespace can be asked;
//! - the socket may be placed elsewhere, and opened to a group there; a path of any length will do;
//! - nothing is asked of a process of another user's;
//! - SIGPIPE, SIGXFSZ, SIGUSR1 and SIGUSR2 kill nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod program;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use program::{LATE, Node, eventually, fails, init, run, text};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trustkeep");

/// A node of its own, and where it lives.
fn node() -> (tempfile::TempDir, PathBuf, Node) {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let node = Node::start(&home, "127.0.0.1:0");
    (dir, home, node)
}

/// Asks, and leaves it at that.
fn begin(socket: &Path, line: &str) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LATE)).unwrap();
    (&stream).write_all(format!("{line}\n").as_bytes()).unwrap();
    stream
}

fn answer(stream: &UnixStream) -> serde_json::Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_default()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn may_unshare() -> bool {
    Command::new("unshare").args(["-pf", "true"]).status().is_ok_and(|status| status.success())
}

#[test]
fn commands_are_done_however_many_wait_and_watch() {
    let (_dir, home, node) = node();
    let socket = home.join("control.sock");
    let waiting: Vec<UnixStream> = (0..200)
        .map(|number| match number % 2 {
            0 => begin(&socket, r#"{"ask":"wait","peer":99,"until":"trusted","timeout_ms":600000}"#),
            _ => begin(&socket, r#"{"ask":"watch"}"#),
        })
        .collect();
    // Each watch has begun once it says so, and so have the waits before it.
    waiting.iter().skip(1).step_by(2).for_each(|watch| assert_eq!(answer(watch)["reply"], "event"));
    // And as many who say nothing.
    let silent: Vec<UnixStream> = (0..200).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for peer in 10..18 {
        node.does(&["revoke", &peer.to_string()]);
    }
    assert_eq!(node.ids("revoked", "revoked").len(), 8);
    node.does(&["grant", "99", "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc="]);
    waiting.iter().step_by(2).for_each(|wait| assert_eq!(answer(wait)["reply"], "done"));
    drop(silent);
}

#[test]
fn one_wait_too_many_is_refused_and_commands_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    // Half of the descriptors may wait.
    let limited = ["-c", "ulimit -n 120; exec \"$@\"", "sh", PROGRAM, "node", "--json", "--home", text(&home)];
    let mut child =
        Command::new("sh").args(limited).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let node = Node { home: home.clone(), child, listen: String::new() };
    let wait = r#"{"ask":"wait","peer":99,"until":"trusted","timeout_ms":600000}"#;
    let waiting: Vec<UnixStream> = (0..60).map(|_| begin(&home.join("control.sock"), wait)).collect();
    eventually("one too many is refused", || {
        let (code, _, err) = run(&node.args(&["wait", "98", "--timeout", "0.1"]));
        assert_eq!(code, 1, "{err}");
        err.contains("60 commands wait or watch already; nothing was done")
    });
    node.does(&["revoke", "5"]);
    drop(waiting);
    eventually("and none is once they have left", || {
        run(&node.args(&["wait", "98", "--timeout", "0.1"])).2.contains("is not trusted")
    });
}

/// A process behind the control socket of a home where no node runs.
fn stand_in(home: &Path, serve: impl Fn(UnixStream) + Send + 'static) {
    std::fs::create_dir_all(home).unwrap();
    let listener = UnixListener::bind(home.join("control.sock")).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap())));
}

#[test]
fn a_refusal_is_read_though_the_node_has_closed_before_it_heard_all() {
    let dir = tempfile::tempdir().unwrap();
    let (refusing, leaving, hearing) = (dir.path().join("r"), dir.path().join("l"), dir.path().join("h"));
    stand_in(&refusing, |mut stream| stream.write_all(b"{\"reply\":\"failed\",\"message\":\"full up\"}\n").unwrap());
    stand_in(&leaving, drop);
    stand_in(&hearing, |mut stream| drop(stream.read(&mut [0; 4096])));
    for _ in 0..100 {
        let (code, _, err) = run(&["revoke", "--home", text(&refusing), "5"]);
        assert_eq!((code, err.as_str()), (1, "trustkeep: full up\n"));
    }
    // Whether it was heard is known where it was not sent, and not known where it was.
    for _ in 0..20 {
        let (code, _, err) = run(&["revoke", "--home", text(&leaving), "5"]);
        assert_eq!(code, 1);
        assert_eq!(err.contains("nothing was done"), err.contains("Broken pipe"), "{err}");
    }
    fails(&["revoke", "--home", text(&hearing), "5"], &["went away without an answer", "may have been done"]);
    fails(&["watch", "--home", text(&refusing)], &["full up"]);
}

#[test]
fn a_control_socket_that_was_removed_comes_back() {
    let (_dir, home, node) = node();
    let socket = home.join("control.sock");
    for _ in 0..2 {
        std::fs::remove_file(&socket).unwrap();
        // Waits for it.
        node.does(&["revoke", "5"]);
        assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o7777, 0o600);
    }
    // Something else in its place is left alone; commands say who holds the store.
    std::fs::remove_file(&socket).unwrap();
    drop(UnixListener::bind(&socket).unwrap());
    let process = format!("process {} holds the store", node.child.id());
    node.refuses(&["status"], &[&process, "control.sock", "--control"]);
    std::fs::remove_file(&socket).unwrap();
    node.does(&["status"]);
    // A node that stops takes its own socket away.
    assert_eq!(node.signal("TERM").code(), Some(0));
    assert!(!socket.exists());
    fails(
        &["status", "--home", text(&home)],
        &["no node runs in", "trustkeep node --home", "trustkeep inspect --home"],
    );
}

#[test]
fn what_stands_in_the_place_of_the_socket_stays_when_the_node_stops() {
    let (_dir, home, mut node) = node();
    let (socket, beside) = (home.join("control.sock"), home.join("beside"));
    let callers: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    std::fs::write(&beside, "not the node's").unwrap();
    std::fs::rename(&beside, &socket).unwrap();
    assert!(Command::new("kill").arg(node.child.id().to_string()).status().unwrap().success());
    // Each that hangs up wakes the thread that takes the socket away.
    for caller in callers {
        drop(caller);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "not the node's");
}

#[test]
fn no_node_is_told_apart_from_a_store_and_from_no_home() {
    let (dir, home, node) = node();
    let store = home.join("store");
    drop(node);
    let of_store = format!("the home is perhaps {}", text(&home));
    fails(&["status", "--home", text(&store)], &["is a store, and no home", &of_store]);
    fails(&["status", "--home", text(dir.path())], &["is no home", "trustkeep init --home"]);
    fails(&["status", "--home", text(&dir.path().join("none"))], &["no such home", "trustkeep init"]);
    let spaced = dir.path().join("a b");
    init(&spaced, "8");
    fails(&["list", "--home", text(&spaced)], &[&format!("trustkeep node --home '{}'", text(&spaced))]);
}

#[test]
fn a_socket_that_another_process_serves_is_not_taken_away() {
    let (dir, home, node) = node();
    let other = dir.path().join("other");
    init(&other, "8");
    let socket = home.join("control.sock");
    let args = ["node", "--home", text(&other), "--listen", "127.0.0.1:0", "--control", text(&socket)];
    fails(&args, &["another process serves this socket"]);
    assert_eq!(node.shows("status")["node_id"], 7);
}

#[test]
fn a_node_in_another_pid_namespace_can_be_asked() {
    if !is_root() || !may_unshare() {
        eprintln!("PID namespaces cannot be made here, and nothing is tested");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let args = ["-pf", "--kill-child", PROGRAM, "node", "--json", "--home", text(&home), "--listen", "127.0.0.1:0"];
    let mut child = Command::new("unshare").args(args).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let node = Node { home: home.clone(), child, listen: String::new() };
    node.does(&["revoke", "5"]);
    assert_eq!(node.ids("revoked", "revoked"), [5]);
    // From within another one, too.
    let inside = ["-pf", PROGRAM, "revoke", "--home", text(&home), "6"];
    assert!(Command::new("unshare").args(inside).stdout(Stdio::null()).status().unwrap().success());
    assert_eq!(node.ids("revoked", "revoked"), [5, 6]);

    // It is process 1 only to itself. Here it has a number of its own, and none in a namespace beside or below it.
    let status = node.shows("status");
    let pid = status["pid"].as_u64().unwrap();
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(pid != 1 && words.starts_with(PROGRAM.as_bytes()), "{}", String::from_utf8_lossy(&words));
    assert!(run(&node.args(&["status"])).1.contains(&format!(", process {pid}, listening on ")));
    let status_inside = |more: &[&str]| {
        let args = [&["-pf", PROGRAM, "status", "--home", text(&home)], more].concat();
        String::from_utf8(Command::new("unshare").args(args).output().unwrap().stdout).unwrap()
    };
    assert!(status_inside(&[]).contains(", a process in another PID namespace, "), "{}", status_inside(&[]));
    assert!(status_inside(&["--json"]).contains("\"pid\":null,"), "{}", status_inside(&["--json"]));
}

/// What a user without rights gets for this command.
fn as_user(uid: u32, gid: u32, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM).args(args).uid(uid).gid(gid).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_socket_can_be_placed_elsewhere_and_opened_to_a_group_there() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let run_dir = dir.path().join("run");
    std::fs::create_dir(&run_dir).unwrap();
    let socket = run_dir.join("c.sock");
    let node = Node::start_with(&home, "127.0.0.1:0", &["--control", text(&socket)]);
    assert!(!home.join("control.sock").exists());
    assert_eq!(run(&["revoke", "--control", text(&socket), "5"]).0, 0);
    assert_eq!(run(&["status", "--home", text(&home), "--control", text(&socket)]).0, 0);
    node.refuses(&["status"], &["holds the store", "--control PATH"]);
    assert_eq!(node.signal("TERM").code(), Some(0));
    fails(&["status", "--control", text(&socket)], &["no node serves", "--control"]);

    let group = ["--control-group", "4711"];
    let (code, _, err) = run(&[&["node", "--home", text(&home)], &group[..]].concat());
    assert!(code == 2 && err.contains("--control"), "{err}");
    let inside = home.join("x.sock");
    fails(&[&["node", "--home", text(&home), "--control", text(&inside)], &group[..]].concat(), &["outside the home"]);
    let (code, _, err) =
        run(&["node", "--home", text(&home), "--control", text(&socket), "--control-group", "no-such-g"]);
    assert!(code == 2 && err.contains("no such group"), "{err}");
    if !is_root() {
        eprintln!("not root: that a group is let in is not tested");
        return;
    }
    for path in [dir.path(), &run_dir] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = dir.path().join("trustkeep");
    std::fs::copy(PROGRAM, &program).unwrap();
    let _node = Node::start_with(&home, "127.0.0.1:0", &["--control", text(&socket), "--control-group", "4711"]);
    let found = std::fs::metadata(&socket).unwrap();
    assert_eq!((found.mode() & 0o7777, found.gid()), (0o660, 4711));
    let status = ["status", "--control", text(&socket)];
    if as_user(12_345, 4711, &["--version"]).0 != Some(0) {
        eprintln!("other users cannot run the program here: that a group is let in is not tested");
        return;
    }
    assert_eq!(as_user(12_345, 4711, &status), (Some(0), String::new()));
    let (code, err) = as_user(12_345, 4712, &status);
    assert!(code == Some(1) && err.contains("ermission denied") && err.contains("--control-group"), "{err}");
}

#[test]
fn nothing_is_asked_of_another_users_process() {
    if !is_root() {
        eprintln!("not root: nothing is tested");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home, "7");
    let socket = home.join("control.sock");
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    // Listens as another user: the kernel notes who called `listen`. `us`: who asks, and with which place.
    let serve = |uid: u32, us: u32, place: &[&str]| {
        let _ = std::fs::remove_file(&socket);
        let code = "import os,socket,sys\n\
            s=socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\nos.seteuid(int(sys.argv[2]))\ns.listen(5)\nprint(flush=True)\n\
            c,_=s.accept()\nc.settimeout(5)\nn=0\n\
            try:\n c.sendall(b'{\"reply\":\"failed\",\"message\":\"mine\"}\\n')\n n=len(c.recv(99))\n\
            except OSError: pass\nprint(n,flush=True)\n";
        let args = ["-c", code, text(&socket), &uid.to_string()];
        let mut child = Command::new("python3").args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        set(&socket, 0o666);
        let asks = Command::new(PROGRAM).uid(us).gid(us).args(["revoke", "5"]).args(place).output().unwrap();
        let told = String::from_utf8(asks.stderr).unwrap();
        let heard = lines.next().unwrap().unwrap();
        child.wait().unwrap();
        (told, heard != "0")
    };
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("no python3: nothing is tested");
        return;
    }
    let of_home = ["--home", text(&home)];
    let (told, heard) = serve(12_345, 0, &of_home);
    assert!(told.contains("user 12345's") && told.contains("nothing was asked"), "{told}");
    assert!(!heard);
    let (told, heard) = serve(0, 0, &of_home);
    assert!(told.contains("mine") && heard, "{told}");
    // Whose the directory is counts for root, and for who names the socket.
    for path in [dir.path(), &home] {
        set(path, 0o755);
    }
    std::os::unix::fs::chown(&home, Some(12_345), None).unwrap();
    if !Command::new(PROGRAM).uid(54_321).arg("help").output().is_ok_and(|ran| ran.status.success()) {
        eprintln!("another user cannot run the program where it is: only root is tested");
        return;
    }
    let (told, heard) = serve(12_345, 54_321, &of_home);
    assert!(told.contains("user 12345's") && !heard, "{told}");
    for (us, place) in [(0, of_home), (54_321, ["--control", text(&socket)])] {
        let (told, heard) = serve(12_345, us, &place);
        assert!(told.contains("mine") && heard, "{us}: {told}");
    }
}

#[test]
fn a_home_of_any_length_and_name_will_do() {
    use std::os::unix::ffi::OsStrExt as _;

    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("x".repeat(120));
    let (code, _, err) = run(&["init", "--home", text(&home), "--id", "7"]);
    assert!(code == 0 && err.contains("bytes") && err.contains("--control"), "{err}");
    let node = Node::start(&home, "127.0.0.1:0");
    node.does(&["revoke", "5"]);
    assert_eq!(node.signal("TERM").code(), Some(0));
    assert!(!home.join("control.sock").exists());
    // And a name that is no text.
    let home = dir.path().join(std::ffi::OsStr::from_bytes(b"h\xff"));
    let on = |command: &str| {
        let mut it = Command::new(PROGRAM);
        it.arg(command).arg("--home").arg(&home);
        it
    };
    assert!(on("init").args(["--id", "7"]).output().unwrap().status.success());
    let mut child = on("node").args(["--json", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _node = Node { home: home.clone(), child, listen: String::new() };
    assert!(on("revoke").arg("5").output().unwrap().status.success());
    let out = on("list").arg("--json").output().unwrap();
    assert_eq!(out.stdout, b"{\"trusted\":[]}\n");
}

#[test]
fn signals_that_mean_nothing_kill_nothing() {
    let (dir, home, mut node) = node();
    let send = |pid: u32, signal: &str| {
        assert!(Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success());
    };
    let args = node.args(&["wait", "5", "--timeout", "100"]);
    let mut wait = Command::new(PROGRAM).args(args).stdout(Stdio::null()).spawn().unwrap();
    eventually("it waits", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", wait.id())).unwrap();
        status.lines().any(|line| line.starts_with("SigCgt:") && !line.ends_with("0000000000000000"))
    });
    for signal in ["PIPE", "XFSZ", "USR1", "USR2"] {
        send(node.child.id(), signal);
        send(wait.id(), signal);
    }
    node.does(&["grant", "5", "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc="]);
    assert!(node.child.try_wait().unwrap().is_none());
    assert_eq!(wait.wait().unwrap().code(), Some(0));
    // A limit of a file's size is an error like a full disk.
    let store = dir.path().join("limited");
    let script = "ulimit -f 40; exec \"$@\"";
    let args = ["-c", script, "sh", PROGRAM, "stress", "--dir", text(&store), "--threads", "2", "--seconds", "1"];
    let output = Command::new("sh").args(args).output().unwrap();
    assert!(output.status.code().is_some(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    assert_eq!(run(&["verify", "--dir", text(&store)]).0, 0);
    drop(node);
    drop(home);
}
