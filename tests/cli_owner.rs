//! Who holds a store, across processes and namespaces, as the program tells it; and what it asks of the system when it makes
//! one:
//!
//! - a holder in a PID namespace below is named by the id that it has here, one beside or above by what it is;
//! - the name of a new store survives a crash, whoever made its directory, also where that above it cannot be read;
//! - a change is acknowledged only after the journal was synced and then looked at again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use trustkeep::{Holder, OpenError, TrustStore};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trustkeep");
const SOON: Duration = Duration::from_secs(60);

/// A process and all that it started; killed when this goes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // `unshare --kill-child` takes the namespace along.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const STRESS: [&str; 5] = ["stress", "--threads", "1", "--seconds", "3600"];

/// Holds the store until it is killed; `within` comes first, as a wrapper.
fn holds(dir: &Path, within: &[&str]) -> Running {
    let words: Vec<&str> = within.iter().copied().chain([PROGRAM]).chain(STRESS).collect();
    let mut command = Command::new(words.first().unwrap());
    command.args(words.iter().skip(1)).arg("--dir").arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().unwrap());
    let begun = Instant::now();
    // The lock is taken once its text is there.
    while std::fs::read_to_string(dir.join("LOCK")).unwrap_or_default().lines().count() < 2 {
        assert!(begun.elapsed() < SOON, "it does not open the store");
        std::thread::sleep(Duration::from_millis(5));
    }
    running
}

fn holder(dir: &Path) -> Holder {
    match TrustStore::open(dir) {
        Err(OpenError::InUse { holder, .. }) => holder,
        other => panic!("{other:?}"),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const BELOW: [&str; 6] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];

fn can_go_below() -> bool {
    let can = Command::new("unshare").args(BELOW.iter().skip(1)).arg("true").output();
    let can = can.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: no PID namespace can be made here (that takes root, and unshare)");
    }
    can
}

#[test]
fn the_program_that_runs_is_named_and_one_that_was_killed_is_nobody() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let running = holds(&dir, &["env"]);
    let pid = running.0.id();
    assert_eq!(holder(&dir), Holder::Process { pid });
    let refused = Command::new(PROGRAM).args(["compact", "--dir"]).arg(&dir).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains(&format!("in use by process {pid}; stop that process first")), "{refused:?}");
    drop(running);
    let text = std::fs::read_to_string(dir.join("LOCK")).unwrap();
    assert!(text.starts_with(&format!("{pid}\n")), "its text is left: {text}");
    drop(TrustStore::open(&dir).unwrap());
}

#[test]
fn a_holder_in_a_pid_namespace_below_is_named_by_its_id_here() {
    if !can_go_below() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let running = holds(&dir, &BELOW);
    let Holder::Process { pid } = holder(&dir) else { panic!("{:?}", holder(&dir)) };
    assert!(pid != running.0.id() && pid != 1, "{pid}");
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(words.starts_with(PROGRAM.as_bytes()), "{}", String::from_utf8_lossy(&words));
    let text = std::fs::read_to_string(dir.join("LOCK")).unwrap();
    assert!(text.starts_with("1\n"), "as it sees itself: {text}");
}

#[test]
fn a_holder_that_cannot_be_seen_is_not_named_by_an_id_that_means_another_process() {
    if !can_go_below() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    for within in [&["env"][..], &BELOW] {
        let running = holds(&dir, within);
        let mut refused = Command::new("unshare");
        refused.args(BELOW.iter().skip(1)).arg(PROGRAM).args(["compact", "--dir"]).arg(&dir);
        let refused = refused.output().unwrap();
        assert!(said(&refused).contains("of another PID namespace"), "{refused:?}");
        drop(running);
        // The namespace's processes die with it; their locks go when they have.
        let begun = Instant::now();
        while TrustStore::open(&dir).is_err() {
            assert!(begun.elapsed() < SOON, "the lock outlives its holder");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The system calls of one life of a store, in which one thread makes some durable changes.
fn calls_of_a_life(dir: &Path, seconds: &str) -> Option<String> {
    calls_of_a_life_as(Command::new("strace"), dir, seconds)
}

fn calls_of_a_life_as(mut traced: Command, dir: &Path, seconds: &str) -> Option<String> {
    let calls = "trace=openat,fsync,fdatasync,syncfs,renameat2,pwrite64,newfstatat,fstatat64,statx,stat,lseek,flock";
    traced.args(["-f", "-y", "-qq", "-e", calls, PROGRAM]);
    traced.args(["stress", "--threads", "1", "--seconds", seconds, "--dir"]).arg(dir);
    match traced.output() {
        Ok(output) if output.status.success() => Some(said(&output)),
        other => {
            eprintln!("skipped: strace does not work here: {other:?}");
            None
        }
    }
}

#[test]
fn the_parent_of_a_new_store_is_synced_whoever_made_its_directory() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    for made in [false, true] {
        let dir = home.join(format!("store-{made}"));
        if made {
            std::fs::create_dir(&dir).unwrap();
        }
        let syncs = |calls: &str| {
            let parent = format!("<{}>)", home.display());
            calls.lines().filter(|line| line.contains("fsync(") && line.contains(&parent)).count()
        };
        let Some(calls) = calls_of_a_life(&dir, "0.01") else { return };
        assert_eq!(syncs(&calls), 1, "made: {made}\n{calls}");
        // The mark of a store says that this was done.
        let Some(calls) = calls_of_a_life(&dir, "0.01") else { return };
        assert_eq!(syncs(&calls), 0, "{calls}");
    }
}

/// A directory that a process may add to and search, and not read.
#[test]
fn where_the_directory_above_cannot_be_read_the_whole_file_system_is_synced() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    let above = home.join("above");
    std::fs::create_dir(&above).unwrap();
    // Root may read whatever it likes.
    let user = rustix::process::geteuid().is_root().then_some(65_534);
    std::os::unix::fs::chown(&above, user, user).unwrap();
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    set(&home, 0o711);
    for (mode, syncfs, fsync) in [(0o300, 1, 0), (0o700, 0, 1)] {
        set(&above, mode);
        let dir = above.join(format!("store-{mode:o}"));
        let calls = || {
            let mut traced = Command::new("strace");
            if let Some(user) = user {
                traced.uid(user).gid(user);
            }
            calls_of_a_life_as(traced, &dir, "0.01")
        };
        let parent = format!("<{}>)", above.display());
        let count = |calls: &str| {
            let of = |call: &str| calls.lines().filter(|line| line.contains(call)).count();
            let fsyncs = calls.lines().filter(|line| line.contains("fsync(") && line.contains(&parent)).count();
            (of("syncfs("), fsyncs)
        };
        let Some(first) = calls() else { return };
        assert_eq!(count(&first), (syncfs, fsync), "{mode:o}\n{first}");
        // The mark of a store says that this was done.
        let Some(second) = calls() else { return };
        assert_eq!(count(&second), (0, 0), "{mode:o}\n{second}");
    }
}

#[test]
fn what_was_synced_is_looked_at_before_the_next_change() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    // As long as it takes to make some changes on a machine that does other things.
    for (number, seconds) in ["0.05", "5", "20"].into_iter().enumerate() {
        let Some(calls) = calls_of_a_life(&home.join(number.to_string()), seconds) else { return };
        let (mut appends, mut looks, mut looked, mut acknowledges) = (0, 0, true, true);
        for line in calls.lines() {
            // A watermark says how far the disk has come, and acknowledges nothing.
            if line.contains("pwrite64(") && line.contains(".tkj>") {
                acknowledges = !line.contains("\"TKSOFAR");
            }
            if line.contains("fdatasync(") && line.contains(".tkj") && acknowledges {
                assert!(looked, "a journal was synced twice, and nothing was looked at in between\n{calls}");
                (appends, looked) = (appends + 1, false);
            }
            // The last of the looks: at the open journal's name; or, where nothing has changed in the directory since some
            // time ago, at the length of the journal that is open.
            let (by_name, by_length) = (line.contains(".tkj\""), line.contains(".tkj>"));
            if (line.contains("stat") && by_name) || (line.contains("lseek(") && by_length && appends > 1) {
                (looks, looked) = (looks + 1, true);
            }
        }
        assert!(looks >= appends, "{appends} {looks}\n{calls}");
        if appends > 2 {
            return;
        }
    }
    panic!("nothing was changed");
}
