//! `store.seen` in a home: which store the home's node had, and how far that had come. By it an older copy that was put in the
//! store's place is noticed.
//!
//! What must hold: the generation in it was durable when it was written, so that no crash makes a store older than it. What
//! was noticed stands, across restarts, until an operator accepts it. Whatever is wrong with this file keeps no node from
//! running.
//!
//! More than 450 lines because what is written down, what it means, and which command notes what stand together.
#![forbid(unsafe_code)]

use core::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::home::Home;
use super::{Failure, complain};
use crate::persist::file::sync_directory;
use crate::store::TrustStore;
use crate::sync::{Arc, Deadline, QueueReceiver, QueueSender, queue, spawn};

/// The random number that a store has in all of its files.
pub(super) type Id = [u8; 16];

/// A store, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    id: Id,
    generation: u64,
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// The newest that the home had.
    newest: Mark,
    /// What was found in its place first, older or another, and not accepted yet.
    found: Option<Mark>,
}

/// The store is not the one that the home had, or older than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Older {
    /// As of which generation there was a durable store.
    pub(crate) seen: u64,
    /// As of which generation one was found.
    pub(crate) found: u64,
    /// It is another store by its id.
    pub(crate) is_another: bool,
}

impl Seen {
    fn of(newest: Mark) -> Self {
        Self { newest, found: None }
    }

    fn older(self) -> Option<Older> {
        let Self { newest, found } = self;
        let is_another = |found: Mark| found.id != newest.id;
        found.map(|found| Older { seen: newest.generation, found: found.generation, is_another: is_another(found) })
    }

    /// What it says once this store was opened.
    fn opened(self, store: Mark) -> Self {
        if self.found.is_some() {
            return self;
        }
        let is_older = store.id != self.newest.id || store.generation < self.newest.generation;
        if is_older { Self { found: Some(store), ..self } } else { Self::of(store) }
    }

    /// What it says while this store is open, or at its stop as of `last`. An alarm stands as it is.
    fn goes_on(self, store: &TrustStore, last: Option<u64>) -> Self {
        let generation = last.unwrap_or_else(|| store.durable_generation().get());
        if self.found.is_some() { self } else { Self::of(Mark { generation, ..self.newest }) }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return None;
        }
        let newest = mark(lines.next()?.strip_prefix("newest ")?)?;
        let found = match lines.next() {
            None => None,
            Some(line) => Some(mark(line.strip_prefix("found ")?)?),
        };
        lines.next().is_none().then_some(Self { newest, found })
    }
}

fn mark(text: &str) -> Option<Mark> {
    let (id, generation) = text.split_once(' ')?;
    let is_plain = |text: &str, is: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|byte| is(&byte));
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if id.len() != 32 || !is_plain(id, is_hex) || !is_plain(generation, u8::is_ascii_digit) {
        return None;
    }
    let id = u128::from_str_radix(id, 16).ok()?.to_be_bytes();
    Some(Mark { id, generation: generation.parse().ok()? })
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x} {}", u128::from_be_bytes(self.id), self.generation)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}\nnewest {}", self.newest)?;
        self.found.map_or(Ok(()), |found| writeln!(f, "found {found}"))
    }
}

impl fmt::Display for Older {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, found, is_another } = self;
        let which = if *is_another { "another store" } else { "an older copy of the store" };
        write!(f, "{which} was opened, of generation {found}; the store of this home had come to generation {seen}")
    }
}

/// The file of a home.
#[derive(Clone, Debug)]
struct SeenFile(PathBuf);

impl SeenFile {
    /// `None`: there is none. A file that cannot be read, or says something else, is an error.
    fn read(&self) -> io::Result<Option<Seen>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&self.0, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        let seen = core::str::from_utf8(&bytes).ok().and_then(Seen::parse);
        seen.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not what a node writes there"))
    }

    /// In one piece, and durably.
    fn write(&self, seen: Seen) -> io::Result<()> {
        let temporary = self.0.with_extension("seen.tmp");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(seen.to_string().as_bytes())?;
        file.sync_all()?;
        rustix::fs::rename(&temporary, &self.0)?;
        let home = self.0.parent().filter(|home| !home.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(home, flags, Mode::empty()).and_then(sync_directory)?)
    }

    fn tell(&self, error: &io::Error, what: &str) {
        tracing::warn!(file = %self.0.display(), %error, "{what}");
    }
}

/// The file of a home whose node runs, and what was noticed by it.
#[derive(Debug)]
pub(crate) struct StoreSeen {
    older: Option<Older>,
    stop: QueueSender<u64>,
    stopped: QueueReceiver<()>,
}

impl StoreSeen {
    /// Compares the store with what the home saw before, and goes on writing down how far it comes. `accept`: whatever it is,
    /// it is right.
    pub(super) fn begin(home: &Home, store: &Arc<TrustStore>, accept: bool) -> Result<Self, Failure> {
        Self::begin_every(INTERVAL, home, store, accept)
    }

    fn begin_every(interval: Duration, home: &Home, store: &Arc<TrustStore>, accept: bool) -> Result<Self, Failure> {
        let (stop, stops) = queue(1);
        let (done, stopped) = queue(1);
        let file = SeenFile(home.path().join(NAME));
        let opened = Mark { id: store.id().unwrap_or_default(), generation: store.durable_generation().get() };
        let before = file.read().unwrap_or_else(|error| {
            file.tell(&error, "whether the store is older than it was cannot be told: what the home saw is unreadable");
            None
        });
        let mut now = before.map_or(Seen::of(opened), |before| before.opened(opened));
        match (now.older(), accept) {
            (Some(older), true) => {
                tracing::warn!("--accept-older-store: {older}; it is accepted, and counts from now on");
                now = Seen::of(opened);
            }
            (Some(older), false) => tracing::warn!(
                "{older}; peers that were revoked since then are trusted again. Was a copy put back, or were the newest \
                 changes lost? Stop the node and put the newest store back if there is one; a node that is started once with --accept-older-store takes it as it is"
            ),
            (None, true) => {
                tracing::info!("--accept-older-store: the store is none that is older; leave the option out")
            }
            (None, false) => {}
        }
        let mut writer = Writer { file, written: before, failed: false };
        writer.write(now);
        let of_thread = Arc::clone(store);
        let keeps = move || {
            loop {
                let again = Deadline::after(interval);
                let last: Option<u64> = stops.recv(again);
                if last.is_none() && !again.has_passed() {
                    // Nobody is there any more who could say so.
                    return;
                }
                now = now.goes_on(&of_thread, last);
                writer.write(now);
                if last.is_some() {
                    let _ = done.try_send(());
                    return;
                }
            }
        };
        spawn("trustkeep-seen", keeps).map_err(|error| Failure::new(format_args!("no thread to run on: {error}")))?;
        Ok(Self { older: now.older(), stop, stopped })
    }

    /// What the operator has not accepted yet.
    pub(crate) fn older(&self) -> Option<Older> {
        self.older
    }

    /// Writes down how far the store has come in the end; waits for that, but not for a disk that hangs.
    pub(super) fn end(&self, durable: u64) {
        let _ = self.stop.try_send(durable);
        let _ = self.stopped.recv(Deadline::after(END_WITHIN));
    }
}

/// Writes what is new.
#[derive(Debug)]
struct Writer {
    file: SeenFile,
    written: Option<Seen>,
    /// The last try failed, which was told.
    failed: bool,
}

impl Writer {
    fn write(&mut self, seen: Seen) {
        if self.written == Some(seen) {
            return;
        }
        match self.file.write(seen) {
            Ok(()) => (self.written, self.failed) = (Some(seen), false),
            Err(error) => {
                if !core::mem::replace(&mut self.failed, true) {
                    self.file
                        .tell(&error, "how far the store has come cannot be written down; an older one may be missed");
                }
            }
        }
    }
}

/// The file of the home that a store lies in, for commands on a store that no node has open.
#[derive(Debug)]
pub(super) struct Beside {
    file: Option<SeenFile>,
    /// An operator named the home.
    has_home: bool,
}

impl Beside {
    /// `None`: by its home. Else by the path of the store, as it was given or as it really is.
    pub(super) fn new(home: Option<&Path>, store: &Path) -> Self {
        let given = store.parent().map(|parent| match parent.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => parent.to_owned(),
        });
        let real = || store.canonicalize().ok().and_then(|store| store.parent().map(Path::to_owned));
        let homes = home.map(Path::to_owned).into_iter().chain(given).chain(real());
        let file = homes.map(|home| SeenFile(home.join(NAME))).find(|file| file.0.symlink_metadata().is_ok());
        Self { file, has_home: home.is_some() }
    }

    /// Whether the home that this store is of is known, as far as there is one.
    pub(super) fn is_known(&self) -> bool {
        self.file.is_some() || self.has_home
    }

    /// The newest generation of this store that the home knows to have been durable.
    pub(super) fn newest(&self, id: Id) -> Option<u64> {
        let seen = self.file.as_ref()?.read().ok()??;
        (seen.newest.id == id).then_some(seen.newest.generation)
    }

    /// Notes that this store was opened, if it is older than what the home saw: before a command has it count on from there,
    /// after which that could not be told any more.
    pub(super) fn opened(&self, id: Id, generation: u64) {
        self.change(
            |before| before.opened(Mark { id, generation }),
            |before, now| before.found.is_none() && now.found.is_some(),
        );
    }

    /// Notes that a command has made a new store in the place of the one that the home had. It has to have come as far.
    pub(super) fn replaced(&self, id: Id) {
        let replace = |before: Seen| match before.found {
            None => Seen::of(Mark { id, ..before.newest }),
            Some(_) => before,
        };
        self.change(replace, |before, now| before != now);
    }

    /// Notes that a store was repaired, of which the state of this generation was kept, and that it has counted on from there.
    pub(super) fn repaired(&self, id: Id, kept: u64, generation: u64) {
        let repair = |before: Seen| match before.found {
            None if kept < before.newest.generation => {
                Seen { found: Some(Mark { id: before.newest.id, generation: kept }), ..before }
            }
            None => Seen::of(Mark { id, generation }),
            Some(_) => before,
        };
        self.change(repair, |before, now| before != now);
    }

    /// Notes that an operator has given up what the home had for this store.
    pub(super) fn gave_up(&self, id: Id, generation: u64) {
        let give_up = |before: Seen| match before.found {
            None => Seen::of(Mark { id, generation }),
            Some(_) => before,
        };
        self.change(give_up, |before, now| before != now);
    }

    fn change(&self, change: impl FnOnce(Seen) -> Seen, is_worth_it: impl FnOnce(Seen, Seen) -> bool) {
        let Some(file) = &self.file else { return };
        let path = file.0.display();
        let before = match file.read() {
            Ok(Some(before)) => before,
            Ok(None) => return,
            Err(error) => return complain(format_args!("{path}: {error}; the node that starts here says so, too")),
        };
        let now = change(before);
        if !is_worth_it(before, now) {
            return;
        }
        if let Some(older) = now.older() {
            complain(format_args!("{older}; the node that lives here says so until it is accepted"));
        }
        if let Err(error) = file.write(now) {
            complain(format_args!("{path}: {error}"));
        }
    }
}

/// What to say if no home is known.
pub(super) const NO_HOME: &str = "no home is known of this store, so nothing tells whether it is an older copy; if a node's home links \
                                  to it, name that with `--home`";
const NAME: &str = "store.seen";
const FIRST_LINE: &str = "trustkeep store.seen 1";
/// More than it ever has.
const BYTES_MAX: u64 = 1024;
/// How often it is written at most while the node runs.
const INTERVAL: Duration = Duration::from_secs(60);
const END_WITHIN: Duration = Duration::from_secs(2);

#[cfg(all(test, not(trustkeep_loom)))]
#[expect(clippy::unwrap_used, reason = "tests say what must hold by panicking")]
mod tests {
    use super::*;
    use crate::peer::{NodeId, TrustRecord};
    use crate::store::Receipt;

    fn at(id: u8, generation: u64) -> Mark {
        Mark { id: [id; 16], generation }
    }

    #[test]
    fn what_is_written_is_what_is_read_and_nothing_else_is() {
        let plain = Seen::of(at(0x0a, 41));
        let text = plain.to_string();
        assert_eq!(text, format!("trustkeep store.seen 1\nnewest {} 41\n", "0a".repeat(16)));
        let found = Seen { found: Some(at(0xfe, 0)), ..plain };
        for seen in [plain, found, Seen::of(at(0xff, u64::MAX))] {
            assert_eq!(Seen::parse(&seen.to_string()), Some(seen));
        }
        let text = found.to_string();
        for end in 0..text.len() {
            let cut = Seen::parse(&text[..end]);
            // The first two lines are a file of their own.
            assert!(cut.is_none() || (cut == Some(plain) && end == plain.to_string().len()), "{end}: {cut:?}");
        }
        for bad in ["0A", "+1", " 1", "1 ", "18446744073709551616", "-1", "", "x"] {
            let id = "0a".repeat(16);
            assert_eq!(Seen::parse(&format!("{FIRST_LINE}\nnewest {id} {bad}\n")), None, "{bad:?}");
        }
        assert_eq!(Seen::parse(&format!("{text}more\n")), None);
    }

    fn grant(store: &TrustStore, number: u32) -> Receipt {
        store.grant(TrustRecord::new(NodeId::new(number).unwrap(), None)).unwrap()
    }

    #[test]
    fn how_far_the_store_has_come_is_written_again_and_again_while_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let store = Arc::new(TrustStore::open(dir.path().join("store")).unwrap());
        let seen = StoreSeen::begin_every(Duration::from_millis(1), &home, &store, false).unwrap();
        let file = SeenFile(dir.path().join(NAME));
        for number in 1..=3 {
            grant(&store, number).wait_durable().unwrap();
            let late = Deadline::after(Duration::from_secs(60));
            while file.read().unwrap().unwrap().newest.generation < u64::from(number) {
                assert!(!late.has_passed(), "{:?}", file.read());
                std::thread::yield_now();
            }
        }
        // And the twin: what is older stands until it is accepted, however far that store comes.
        seen.end(3);
        let ahead = Seen::of(Mark { id: store.id().unwrap(), generation: 100 });
        file.write(ahead).unwrap();
        let seen = StoreSeen::begin_every(Duration::from_millis(1), &home, &store, false).unwrap();
        let alarm = file.read().unwrap().unwrap();
        assert!(alarm.older().is_some() && seen.older().is_some());
        grant(&store, 4).wait_durable().unwrap();
        seen.end(4);
        assert_eq!(file.read().unwrap().unwrap(), alarm);
    }

    #[test]
    fn what_is_written_while_the_store_runs_is_durable() {
        let disk = crate::testing::sim_disk::SimDisk::new();
        let store = TrustStore::options().open_storage(Arc::new(disk.clone())).unwrap();
        grant(&store, 1).wait_durable().unwrap();
        let (lets, let_on) = queue::<()>(1);
        disk.on_sync(move || {
            let _ = let_on.recv(Deadline::NEVER);
        });
        let receipt = grant(&store, 2);
        let before = Seen::of(Mark { id: store.id().unwrap(), generation: 1 });
        assert_eq!(store.generation().get(), 2);
        assert_eq!(before.goes_on(&store, None), before, "a crash may take the second away");
        // And the twin.
        drop(lets);
        receipt.wait_durable().unwrap();
        assert_eq!(before.goes_on(&store, None).newest.generation, 2);
        assert_eq!(before.goes_on(&store, Some(7)).newest.generation, 7);
    }

    #[test]
    fn a_store_that_is_behind_or_another_is_told_and_no_other_is() {
        let before = Seen::of(at(1, 41));
        for goes_on in [at(1, 41), at(1, 42), at(1, u64::MAX)] {
            let now = before.opened(goes_on);
            assert_eq!((now, now.older()), (Seen::of(goes_on), None));
        }
        let older = before.opened(at(1, 40)).older().unwrap();
        assert_eq!(older, Older { seen: 41, found: 40, is_another: false });
        for another in [at(2, 40), at(2, 41), at(2, 99)] {
            assert!(before.opened(another).older().unwrap().is_another);
        }
        // It stands, however far that store comes, and though the right one is put back.
        let alarm = before.opened(at(1, 40));
        for later in [at(1, 41), at(1, 99), at(2, 1)] {
            assert_eq!(alarm.opened(later), alarm);
        }
    }
}
