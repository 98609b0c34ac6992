//! What only a real file system shows, on one of our own that is mounted from a file: a block that cannot be read, and a disk
//! that hangs. As root, where `TRUSTKEEP_LOOP` is set; otherwise nothing is done, and the tests say so.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use trustkeep::{LoadMode, NodeId, OpenError, TrustRecord, TrustStore};

/// A file system of 64 MiB.
struct Mounted {
    home: tempfile::TempDir,
}

impl Mounted {
    /// None where it is not wanted.
    fn new() -> Option<Self> {
        if std::env::var_os("TRUSTKEEP_LOOP").is_none() {
            eprintln!("not tried: TRUSTKEEP_LOOP is not set");
            return None;
        }
        let this = Self { home: tempfile::tempdir().unwrap() };
        std::fs::File::create(this.image()).unwrap().set_len(64 << 20).unwrap();
        std::fs::create_dir(this.path()).unwrap();
        run("mkfs.ext4", &["-q", this.image().to_str().unwrap()]);
        run("mount", &["-o", "loop", this.image().to_str().unwrap(), this.path().to_str().unwrap()]);
        Some(this)
    }

    fn image(&self) -> PathBuf {
        self.home.path().join("image")
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("mounted")
    }

    fn freeze(&self, how: &str) {
        run("fsfreeze", &[how, self.path().to_str().unwrap()]);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // It may be frozen no longer.
        let _ = Command::new("fsfreeze").arg("-u").arg(self.path()).output();
        run("umount", &["-l", self.path().to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

fn grant(store: &TrustStore, numbers: std::ops::Range<u32>) -> trustkeep::Receipt {
    let record = |number| TrustRecord::new(NodeId::new(number).unwrap(), None);
    let (fits, receipt) =
        store.update(|batch| numbers.clone().all(|number| batch.grant(record(number)).is_ok())).unwrap();
    assert!(fits);
    receipt
}

#[test]
fn a_block_that_cannot_be_read_is_an_error_with_its_place() {
    let Some(mounted) = Mounted::new() else { return };
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
    let Some(mounted) = Mounted::new() else { return };
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
