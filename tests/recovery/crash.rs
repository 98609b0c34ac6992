//! Crashes after every call of a run of saves, creation included.
//!
//! `TRUSTKEEP_CRASH_IMAGES` sets how many states are looked at per crash point (default 1200).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use trustkeep::testing::sim_disk::{CrashPoint, Image, Lie, SimDisk};
use trustkeep::{FileEntry, Storage, StorageFile, TrustStore};

use super::{Contents, contents, id, in_parallel, open, record};

/// What was done to the disk, and what the store held at each generation.
struct Story {
    trail: Vec<CrashPoint>,
    states: Vec<Contents>,
}

/// When the owner is told that a change is durable.
#[derive(Clone, Copy, PartialEq)]
enum Acknowledge {
    WhenDurable,
    /// Wrong, to see that it is noticed.
    AtOnce,
}

/// Creates a store and makes a handful of changes, each durable before the next.
fn story(disk: &SimDisk, storage: Arc<dyn Storage>, acknowledge: Acknowledge) -> Story {
    disk.record();
    disk.set_write_bytes_max(Some(700));
    let store = TrustStore::options().open_storage(storage).unwrap();
    disk.acknowledge(0);
    let mut states = vec![Contents::new()];
    for step in 1..=6u32 {
        let (_, receipt) = store
            .update(|batch| match step {
                1 => batch.grant(record(1)).unwrap(),
                // Some ten sectors.
                2 => (2..=300).for_each(|number| batch.grant(record(number)).unwrap()),
                3 => assert!(batch.revoke(id(7)).is_some()),
                4 => (100..=300).for_each(|number| assert!(batch.revoke(id(number)).is_some())),
                5 => batch.grant(record(7)).unwrap(),
                _ => (1..=6).for_each(|number| assert!(batch.revoke(id(number)).is_some())),
            })
            .unwrap();
        assert_eq!(receipt.generation().get(), u64::from(step));
        states.push(contents(&store));
        if acknowledge == Acknowledge::AtOnce {
            disk.acknowledge(u64::from(step));
        }
        receipt.wait_durable().unwrap();
        disk.acknowledge(u64::from(step));
    }
    drop(store);
    Story { trail: disk.take_trail(), states }
}

/// Opens what a crash left; the generation found, or what is wrong with it.
fn check(image: &Image, acknowledged: Option<u64>, states: &[Contents]) -> Result<u64, String> {
    let store = open(&SimDisk::from_image(image)).map_err(|error| format!("does not open: {error}"))?;
    let generation = store.generation().get();
    if acknowledged.is_some_and(|acknowledged| generation < acknowledged) {
        return Err(format!("generation {generation}, though {acknowledged:?} was acknowledged"));
    }
    let expected = states.get(usize::try_from(generation).unwrap()).ok_or("a generation that never was")?;
    if contents(&store) != *expected {
        return Err(format!("generation {generation} with contents that it never had"));
    }
    Ok(generation)
}

/// Looks at the images of every crash point; how many there were, and what was wrong.
fn violations(story: &Story, budget: usize) -> (usize, Vec<String>) {
    let (found, outcomes) = channel();
    // Later points have more to lose: dealt out like cards, so that the threads end together.
    let mut points: Vec<_> = story.trail.iter().enumerate().collect();
    points.sort_by_key(|(number, _)| (number % 2, *number));
    in_parallel(&points, 2, |(number, point)| {
        let mut wrong = Vec::new();
        let images = point.images(budget, *number as u64 + 1, &mut |image| {
            if let Err(reason) = check(image, point.acknowledged, &story.states) {
                wrong.push(format!("crash point {number}, call {}: {reason}", point.call));
            }
        });
        found.send((images, wrong)).unwrap();
    });
    drop(found);
    outcomes.iter().fold((0, Vec::new()), |(images, mut wrong), (more, also)| {
        wrong.extend(also);
        (images + more, wrong)
    })
}

fn budget() -> usize {
    std::env::var("TRUSTKEEP_CRASH_IMAGES").map_or(1200, |text| text.parse().expect("TRUSTKEEP_CRASH_IMAGES: a number"))
}

#[test]
fn a_crash_at_any_call_loses_nothing_acknowledged() {
    let disk = SimDisk::new();
    let story = story(&disk, Arc::new(disk.clone()), Acknowledge::WhenDurable);
    assert!(story.trail.len() > 80, "only {} crash points", story.trail.len());
    let (images, wrong) = violations(&story, budget());
    eprintln!("{} crash points, {images} images", story.trail.len());
    assert!(wrong.is_empty(), "{} of {images} images, first: {}", wrong.len(), wrong[0]);
    assert!(budget() < 1000 || images > 10_000, "only {images} images");
}

#[test]
fn a_crash_during_recovery_loses_nothing_either_and_the_store_goes_on() {
    let disk = SimDisk::new();
    let story = story(&disk, Arc::new(disk.clone()), Acknowledge::WhenDurable);
    let points: Vec<_> = story.trail.iter().enumerate().collect();
    in_parallel(&points, 2, |(number, point)| {
        let seed = *number as u64 + 1;
        point.images(24, seed, &mut |image| {
            let disk = SimDisk::from_image(image);
            disk.record();
            let store = open(&disk).unwrap();
            let generation = store.generation().get();
            for (call, again) in disk.take_trail().iter().enumerate() {
                again.images(6, seed, &mut |image| {
                    let found = check(image, point.acknowledged, &story.states);
                    assert!(found.is_ok(), "crash point {number}, then {call}: {found:?}");
                });
            }
            // Opened is as good as acknowledged, and the next change follows.
            disk.crash_point().images(6, seed, &mut |image| {
                assert_eq!(check(image, Some(generation), &story.states), Ok(generation));
            });
            store.grant(record(99)).unwrap().wait_durable().unwrap();
            disk.crash_point().images(6, seed, &mut |image| {
                assert!(open(&SimDisk::from_image(image)).unwrap().is_trusted(id(99)));
            });
        });
    });
}

/// A storage between the store and the disk that gets the protocol wrong.
#[derive(Debug)]
struct Broken {
    disk: SimDisk,
    how: Bug,
    late: Sender<Box<dyn StorageFile>>,
    waiting: std::sync::Mutex<Receiver<Box<dyn StorageFile>>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    /// Files are synced after the directory only.
    SyncAfterRename,
    /// Old snapshots go before the new one is written.
    OldFirst,
}

/// A file whose sync is put off.
struct Late(Option<Box<dyn StorageFile>>, Sender<Box<dyn StorageFile>>);

impl StorageFile for Late {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.as_mut().unwrap().write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.send(self.0.take().unwrap()).unwrap();
        Ok(())
    }
}

impl Storage for Broken {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.disk.list()
    }

    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.disk.read(name, look)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        if self.how == Bug::OldFirst {
            for entry in self.disk.list()?.iter().filter(|entry| entry.name.ends_with(".tks")) {
                self.disk.remove(&entry.name)?;
            }
        }
        let file = self.disk.create(name)?;
        Ok(if self.how == Bug::SyncAfterRename { Box::new(Late(Some(file), self.late.clone())) } else { file })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()?;
        self.waiting.lock().unwrap().try_iter().try_for_each(|mut file| file.sync())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

fn must_be_found(what: &str, story: &Story) {
    let (images, wrong) = violations(story, 60);
    assert!(!wrong.is_empty(), "{what}: none of {images} images showed it");
}

#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    for lie in [Lie::FileSync, Lie::DirSync] {
        let disk = SimDisk::new();
        disk.set_lie(Some(lie));
        must_be_found(&format!("{lie:?}"), &story(&disk, Arc::new(disk.clone()), Acknowledge::WhenDurable));
    }
}

#[test]
fn a_wrong_order_of_calls_is_found_out() {
    for how in [Bug::SyncAfterRename, Bug::OldFirst] {
        let disk = SimDisk::new();
        let (late, waiting) = channel();
        let broken = Broken { disk: disk.clone(), how, late, waiting: std::sync::Mutex::new(waiting) };
        must_be_found(&format!("{how:?}"), &story(&disk, Arc::new(broken), Acknowledge::WhenDurable));
    }
}

#[test]
fn an_acknowledgement_before_the_save_is_found_out() {
    let disk = SimDisk::new();
    must_be_found("acknowledged at once", &story(&disk, Arc::new(disk.clone()), Acknowledge::AtOnce));
}
