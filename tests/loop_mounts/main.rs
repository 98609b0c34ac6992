//! What only a real file system shows, on some of our own that are mounted from files: power cuts, copies of the disk at any
//! moment, blocks that cannot be read, disks that hang, are full, or grant no more room.
//!
//! As root, where `TRUSTKEEP_LOOP` is set, with ext4, xfs and btrfs and what Debian's `xfsprogs` and `btrfs-progs` bring;
//! otherwise nothing is done, and the tests say so.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod history;
mod mounted;
#[path = "../program/mod.rs"]
mod program;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use history::{History, Stop};
use mounted::{Kind, Mounted, are_wanted, run, text, times};
use trustkeep::{LoadMode, NodeId, OpenError, PersistError, TrustRecord, TrustStore};

fn grant(store: &TrustStore, numbers: std::ops::Range<u32>) -> trustkeep::Receipt {
    let record = |number| TrustRecord::new(NodeId::new(number).unwrap(), None);
    let (fits, receipt) =
        store.update(|batch| numbers.clone().all(|number| batch.grant(record(number)).is_ok())).unwrap();
    assert!(fits);
    receipt
}

#[test]
fn a_block_that_cannot_be_read_is_an_error_with_its_place() {
    if !are_wanted() {
        return;
    }
    let mounted = Mounted::new(Kind::Ext4);
    let dir = mounted.path().join("store");
    let store = TrustStore::open(&dir).unwrap();
    // Some megabytes of journals and snapshots, most of the file system.
    for part in 0..30 {
        grant(&store, part * 30_000 + 1..part * 30_000 + 30_001).wait_durable().unwrap();
    }
    store.close().unwrap();
    drop(store);
    run("sync", &[]);
    // Behind its end the device has nothing to give.
    let image = std::fs::OpenOptions::new().write(true).open(mounted.image()).unwrap();
    let files = || std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    for megabytes in (8..64).rev() {
        image.set_len(megabytes << 20).unwrap();
        std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        if files().any(|file| std::fs::read(file).is_err()) {
            break;
        }
    }
    for mode in [LoadMode::Map, LoadMode::Read] {
        let error = TrustStore::options().load_mode(mode).open(&dir).unwrap_err();
        let OpenError::Unreadable { path, offset, source } = &error else { panic!("{error:?}") };
        assert_eq!(source.raw_os_error(), Some(5), "{error}");
        let bytes = std::fs::metadata(path).unwrap().len();
        assert!(path.starts_with(&dir) && *offset < bytes && std::fs::read(path).is_err(), "{error}");
    }
}

#[test]
fn a_disk_that_hangs_is_no_health_and_comes_back() {
    if !are_wanted() {
        return;
    }
    let mounted = Mounted::new(Kind::Ext4);
    let store =
        TrustStore::options().save_limit(Duration::from_millis(500)).open(mounted.path().join("store")).unwrap();
    grant(&store, 1..2).wait_durable().unwrap();
    assert!(store.health().is_ok());
    mounted.freeze("-f");
    let receipt = grant(&store, 2..3);
    let begun = Instant::now();
    while !store.health().saving.is_some_and(|saving| saving.is_overdue) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", store.health());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!store.health().is_ok() && !receipt.is_durable());
    mounted.freeze("-u");
    receipt.wait_durable().unwrap();
    store.close().unwrap();
    assert!(store.health().saving.is_none());
}

/// Until so many changes were acknowledged, and somewhat longer.
fn wait_for(history: &History, acknowledged: u64, round: u64) {
    let begun = Instant::now();
    while history.acknowledged() < acknowledged {
        assert!(begun.elapsed() < Duration::from_secs(120), "{} were acknowledged", history.acknowledged());
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_micros(round * 7919 % 3000));
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut() {
    if !are_wanted() {
        return;
    }
    for kind in [Kind::Ext4, Kind::Xfs] {
        let mut acknowledged_in_all = 0;
        for round in 0..times(10) {
            let mounted = Mounted::new(kind);
            let dir = mounted.path().join("store");
            // Small journals, so that some begin and snapshots are written meanwhile.
            let store = TrustStore::options().journal_sizes(4096, 4096).open(&dir).unwrap();
            let history = History::default();
            std::thread::scope(|scope| {
                let _stop = Stop(&history);
                let changes = scope.spawn(|| history.make(&store));
                wait_for(&history, 1 + round * 40, round);
                mounted.cut();
                // Not told to stop, they end at the first that is not acknowledged: so there is something left to save.
                let begun = Instant::now();
                while !changes.is_finished() {
                    assert!(
                        begun.elapsed() < Duration::from_secs(120),
                        "{kind:?}: it acknowledges where there is no disk"
                    );
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            assert!(store.close().is_err(), "{kind:?}: it saves where there is no disk");
            drop(store);
            mounted.unmount();
            mounted.mount();
            let found = history.check(&dir, history.acknowledged(), history.begun());
            acknowledged_in_all += found;
            // And once more, after what the check's opening did.
            history.check(&dir, found, found);
        }
        println!("{kind:?}: {acknowledged_in_all} changes were there after power cuts, none was missing");
    }
}

#[test]
fn what_was_acknowledged_is_in_every_copy_of_the_disk() {
    if !are_wanted() {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    // It copies a file at one moment.
    let outer = Mounted::new_at(Kind::Xfs, &outer.path().join("outer"), 2000);
    for (kind, megabytes) in [(Kind::Ext4, 64), (Kind::Xfs, 320)] {
        let inner = Mounted::new_at(kind, &outer.path().join(format!("{kind:?}")), megabytes);
        let dir = inner.path().join("store");
        let store = TrustStore::options().journal_sizes(4096, 4096).open(&dir).unwrap();
        let history = History::default();
        std::thread::scope(|scope| {
            let _stop = Stop(&history);
            scope.spawn(|| history.make(&store));
            for round in 0..times(10) {
                wait_for(&history, history.acknowledged() + 1 + round * 20, round);
                let copy = outer.path().join("copy");
                let acknowledged = history.acknowledged();
                run("cp", &["--reflink=always", text(inner.image()), text(&copy)]);
                let begun = history.begun();
                {
                    let copied = Mounted::of(kind, &copy);
                    history.check(&copied.path().join("store"), acknowledged, begun);
                    copied.unmount();
                }
                std::fs::remove_file(&copy).unwrap();
            }
        });
        println!("{kind:?}: {} changes, of which none was missing in {} copies", history.acknowledged(), times(10));
        store.close().unwrap();
        drop(store);
        inner.unmount();
    }
}

/// Everything that is left of the disk, and more.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    let block = vec![1; 1 << 20];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    // The last blocks as well.
    while std::io::Write::write_all(&mut file, &[1; 512]).is_ok() {}
    let _ = file.sync_all();
}

/// A store whose disk has no room left says so, acknowledges nothing, goes on by itself once there is room, and has
/// everything then.
fn bears_a_disk_without_room(mounted: &Mounted, code: i32, give_room: impl FnOnce()) {
    let dir = mounted.path().join("store");
    let store = TrustStore::options().journal_sizes(4096, 4096).open(&dir).unwrap();
    let mut last = 0;
    let error = loop {
        // Some megabytes of changes, so that blocks which the file system keeps back are used up, too.
        let receipt = grant(&store, last + 1..last + 2001);
        last += 2000;
        match receipt.wait_durable() {
            Ok(()) => assert!(last < 20_000_000, "there is room for everything"),
            Err(error) => break error,
        }
    };
    let raw = |error: &PersistError| match error {
        PersistError::Io { source, .. } => source.raw_os_error(),
        _ => None,
    };
    assert_eq!(raw(&error), Some(code), "{error:?}");
    assert!(!store.health().is_ok());
    let durable = store.durable_generation();
    assert!(durable < store.generation());
    let revocation = store.revoke(NodeId::new(1).unwrap()).unwrap().receipt;
    give_room();
    let back = revocation.wait_durable_timeout(Duration::from_secs(120));
    assert!(back.is_ok(), "{mounted:?}: {back:?}");
    assert!(store.health().is_ok(), "{:?}", store.health());
    store.close().unwrap();
    drop(store);
    let store = TrustStore::open(&dir).unwrap();
    assert_eq!((store.snapshot().len(), store.snapshot().revoked_len()), (last as usize - 1, 1));
}

#[test]
fn a_full_disk_is_told_and_nothing_is_missing_once_there_is_room() {
    if !are_wanted() {
        return;
    }
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
        let mounted = Mounted::new(kind);
        std::fs::create_dir(mounted.path().join("store")).unwrap();
        // Some blocks that are given back at once: so there is room for the store to begin with.
        let filler = mounted.path().join("filler");
        fill(&filler);
        let bytes = std::fs::metadata(&filler).unwrap().len();
        let file = std::fs::OpenOptions::new().write(true).open(&filler).unwrap();
        file.set_len(bytes - (12 << 20)).unwrap();
        file.sync_all().unwrap();
        drop(file);
        bears_a_disk_without_room(&mounted, rustix::io::Errno::NOSPC.raw_os_error(), || {
            std::fs::remove_file(&filler).unwrap();
        });
    }
}

#[test]
fn a_quota_that_is_used_up_is_told_and_nothing_is_missing_once_it_is_lifted() {
    if !are_wanted() {
        return;
    }
    // The only quotas that bind root, too, and that every kernel with this file system has.
    let mounted = Mounted::new(Kind::Btrfs);
    run("btrfs", &["quota", "enable", text(mounted.path())]);
    let dir = mounted.path().join("store");
    run("btrfs", &["subvolume", "create", text(&dir)]);
    run("btrfs", &["qgroup", "limit", "8M", text(&dir)]);
    bears_a_disk_without_room(&mounted, rustix::io::Errno::DQUOT.raw_os_error(), || {
        run("btrfs", &["qgroup", "limit", "none", text(&dir)]);
    });
}

#[test]
fn a_node_whose_disk_hangs_answers_says_so_and_stops_once_it_is_back() {
    if !are_wanted() {
        return;
    }
    let mounted = Mounted::new(Kind::Ext4);
    let home = mounted.path().join("home");
    program::init(&home, "7");
    let node = program::Node::start(&home, "127.0.0.1:0");
    let key = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";
    node.does(&["grant", "9", key]);
    mounted.freeze("-f");
    // What does not wait for the disk is answered, and what does waits.
    let waits = Command::new(env!("CARGO_BIN_EXE_trustkeep")).args(node.args(&["revoke", "9"])).spawn().unwrap();
    let begun = Instant::now();
    while node.shows("status")["saving"]["overdue"] != true {
        assert!(begun.elapsed() < Duration::from_secs(120), "{}", node.shows("status"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let (code, ..) = program::run(&node.args(&["check", "9"]));
    assert_eq!(code, 1, "it is revoked although the disk hangs");
    mounted.freeze("-u");
    assert!(waits.wait_with_output().unwrap().status.success());
    assert_eq!(node.signal("TERM").code(), Some(0));
    let store = TrustStore::open(home.join("store")).unwrap();
    assert!(store.snapshot().is_revoked(NodeId::new(9).unwrap()));
}

/// Though nobody waits for the save any more, or asks: a command gives up after ten seconds.
#[test]
fn a_node_whose_disk_hangs_says_so_in_its_log_once_and_is_not_healthy() {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    /// A failed test leaves no node on a file system that goes.
    struct Running(std::process::Child);
    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
        }
    }

    if !are_wanted() {
        return;
    }
    let mounted = Mounted::new(Kind::Ext4);
    let dir = tempfile::tempdir().unwrap();
    let (home, log) = (dir.path().join("home"), dir.path().join("log"));
    let program = env!("CARGO_BIN_EXE_trustkeep");
    program::init(&home, "7");
    // The store alone is on that disk.
    std::os::unix::fs::symlink(mounted.path().join("store"), home.join("store")).unwrap();
    std::fs::create_dir(mounted.path().join("store")).unwrap();
    let node = Command::new(program)
        .args(["node", "--json", "--home", text(&home), "--listen", "127.0.0.1:0", "--save-limit", "12"])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut node = Running(node);
    let mut ready = String::new();
    BufReader::new(node.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let logged = || std::fs::read_to_string(&log).unwrap();
    assert!(ready.contains("node_id"), "{}", logged());
    let ask = |words: &[&str]| program::run(&[words, &["--home", text(&home)]].concat());
    assert_eq!((ask(&["revoke", "1"]).0, ask(&["status", "--check"]).0), (0, 0));
    mounted.freeze("-f");
    assert_eq!(ask(&["revoke", "2"]).0, 1, "it cannot be durable");
    let told = || logged().matches("the disk hangs").count();
    let begun = Instant::now();
    while told() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", logged());
        std::thread::sleep(Duration::from_millis(50));
    }
    let (status, check) = (ask(&["status"]), ask(&["status", "--check"]));
    std::thread::sleep(Duration::from_secs(3));
    let lines = told();
    mounted.freeze("-u");
    run("kill", &["-s", "TERM", &node.0.id().to_string()]);
    let ended = node.0.wait().unwrap();
    assert!(status.1.contains("HANGS since") && check.0 == 1, "{status:?}{check:?}");
    assert!(logged().contains("limit_ms=12000"), "{}", logged());
    assert!(lines == 1 && ended.success(), "{lines} {ended:?}: {}", logged());
}
