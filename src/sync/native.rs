//! The real primitives: arc-swap, parking_lot, crossbeam-channel, std threads.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_types, reason = "this file is the door that the fence leads to")]

use core::fmt;
use std::io;

use super::{Deadline, WORDS_PER_LINE};
use crate::pages::{HUGE_PAGE_BYTES, advise_huge_pages, wipe_on_fork};

pub(crate) use parking_lot::MutexGuard;
pub(crate) use std::sync::Arc;
pub(crate) use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
pub(crate) use std::sync::atomic::Ordering;
pub(crate) use std::thread::JoinHandle;

/// A lock that is not poisoned by a panic and hands itself on fairly now and then.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}

/// A number that threads share. A type of its own, so that naming the standard one elsewhere stays an error.
#[derive(Debug, Default)]
pub(crate) struct AtomicU64(std::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub(crate) const fn new(value: u64) -> Self {
        Self(std::sync::atomic::AtomicU64::new(value))
    }

    #[inline(always)]
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }
}

/// Numbers that threads share, eight to a line; a line is one cache line.
pub(crate) struct Lines {
    words: Box<[Word]>,
    /// Words in front of the first line.
    skip: usize,
    len: usize,
}

/// One of [`Lines`].
pub(crate) type Line = [Word; WORDS_PER_LINE];

/// A number of a [`Line`].
pub(crate) type Word = std::sync::atomic::AtomicU64;

impl Lines {
    /// All zero. Large ones come from the system as pages that are there only once they are touched, huge ones if the
    /// system has them. `None` if there is not enough memory.
    pub(crate) fn zeroed(lines: usize) -> Option<Self> {
        let bytes = lines.checked_mul(LINE_BYTES)?;
        let align = if bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { LINE_BYTES };
        // As much more than asked for is taken as any offset may need; what is not touched costs nothing.
        let spare = align / size_of::<Word>();
        let words: Box<[Word]> =
            bytemuck::try_zeroed_slice_box(lines.checked_mul(WORDS_PER_LINE)?.checked_add(spare)?).ok()?;
        let skip = words.as_ptr().align_offset(align);
        if skip > spare {
            return None;
        }
        advise_huge_pages(words.get(skip..)?.as_ptr().addr(), bytes);
        Some(Self { words, skip, len: lines })
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> Option<&Line> {
        self.words.get(self.skip + WORDS_PER_LINE * number..)?.first_chunk()
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Stands for memory that the model checker cannot see: its twin notes who reads that memory and who takes it back, and
/// finds the two wanting if nothing orders them. Here it is nothing.
#[derive(Debug)]
pub(crate) struct Witness;

impl Witness {
    pub(crate) fn new() -> Self {
        Self
    }

    /// This thread reads the memory.
    #[inline(always)]
    pub(crate) fn reads(&self) {}

    /// This thread wrote the memory, or will use it for something else.
    #[inline(always)]
    pub(crate) fn owns(&self) {}
}

/// Wakes threads that wait for a condition under a [`Mutex`].
#[derive(Debug)]
pub(crate) struct Condvar(parking_lot::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(parking_lot::Condvar::new())
    }

    /// Waits for a notification or the deadline; true means the deadline passed.
    pub(crate) fn wait_until<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: Deadline,
    ) -> (MutexGuard<'a, T>, bool) {
        let timed_out = match deadline.instant() {
            Some(instant) => self.0.wait_until(&mut guard, instant).timed_out(),
            None => {
                self.0.wait(&mut guard);
                false
            }
        };
        (guard, timed_out)
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }
}

/// The published version: readers load it without locking, one writer at a time replaces it.
#[derive(Debug)]
pub(crate) struct SnapshotCell<T>(Arc<Cell<T>>);

#[derive(Debug)]
struct Cell<T> {
    /// The address of the version that is published, or about to be.
    newest: AtomicUsize,
    published: arc_swap::ArcSwap<T>,
}

impl<T> SnapshotCell<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        let newest = AtomicUsize::new(Arc::as_ptr(&value).addr());
        Self(Arc::new(Cell { newest, published: arc_swap::ArcSwap::new(value) }))
    }

    /// Borrows the newest version for one look; wait-free, and never frees an old version as long as somebody else
    /// (the writer's list of superseded ones) holds it too.
    #[inline]
    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.published.load())
    }

    /// The newest version.
    pub(crate) fn load_full(&self) -> Arc<T> {
        self.0.published.load_full()
    }

    /// Publishes; everything before it is visible to whoever loads the value.
    pub(crate) fn store(&self, value: Arc<T>) {
        // ORDERING: Relaxed, before the store below (C-11), which is a Release: who has seen the value in the cell sees its
        // address, or a later one, here.
        self.0.newest.store(Arc::as_ptr(&value).addr(), Ordering::Relaxed);
        self.0.published.store(value);
    }

    pub(crate) fn reader(&self) -> CellReader<T> {
        CellReader { cell: Arc::clone(&self.0), seen: self.load_full() }
    }
}

/// A handle that keeps the version it saw last and looks whether there is a newer one before each use.
#[derive(Debug)]
pub(crate) struct CellReader<T> {
    cell: Arc<Cell<T>>,
    seen: Arc<T>,
}

impl<T> CellReader<T> {
    #[inline(always)]
    pub(crate) fn load(&mut self) -> &Arc<T> {
        // ORDERING: Relaxed (C-11); what is behind an address is loaded from the cell, with Acquire. While we hold what we
        // saw, no other version has its address.
        if self.cell.newest.load(Ordering::Relaxed) != Arc::as_ptr(&self.seen).addr() {
            self.load_anew();
        }
        &self.seen
    }

    #[cold]
    #[inline(never)]
    fn load_anew(&mut self) {
        self.seen = self.cell.published.load_full();
    }
}

impl<T> Clone for CellReader<T> {
    fn clone(&self) -> Self {
        Self { cell: Arc::clone(&self.cell), seen: Arc::clone(&self.seen) }
    }
}

/// A signal with room for one ring: ringing twice before somebody listens is ringing once.
#[derive(Debug)]
pub(crate) struct Doorbell {
    rope: crossbeam_channel::Sender<()>,
    bell: crossbeam_channel::Receiver<()>,
}

impl Doorbell {
    pub(crate) fn new() -> Self {
        let (rope, bell) = crossbeam_channel::bounded(1);
        Self { rope, bell }
    }

    /// Never blocks. A full channel means that a ring is waiting already, which is as good.
    pub(crate) fn ring(&self) {
        let _ = self.rope.try_send(());
    }

    /// Blocks until rung or until the deadline.
    pub(crate) fn wait(&self, deadline: Deadline) {
        match deadline.instant() {
            Some(instant) => self.bell.recv_deadline(instant).unwrap_or(()),
            // The rope hangs beside the bell: they part only together.
            None => self.bell.recv().unwrap_or(()),
        }
    }

    /// Looks again and again, without going to sleep, until rung or until the deadline; true if it was rung. Whoever else
    /// wants the processor gets it in between.
    pub(crate) fn listen(&self, until: Deadline) -> bool {
        loop {
            if self.bell.try_recv().is_ok() {
                return true;
            }
            if until.has_passed() {
                return false;
            }
            std::thread::yield_now();
        }
    }
}

/// The sending end of a bounded queue.
#[cfg(feature = "cli")]
#[derive(Debug)]
pub(crate) struct QueueSender<T>(crossbeam_channel::Sender<T>);

/// The receiving end of a bounded queue.
#[cfg(feature = "cli")]
#[derive(Debug)]
pub(crate) struct QueueReceiver<T>(crossbeam_channel::Receiver<T>);

/// A queue of at most `capacity` values.
#[cfg(feature = "cli")]
pub(crate) fn queue<T>(capacity: usize) -> (QueueSender<T>, QueueReceiver<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity.max(1));
    (QueueSender(sender), QueueReceiver(receiver))
}

#[cfg(feature = "cli")]
impl<T> QueueSender<T> {
    /// Never blocks.
    pub(crate) fn try_send(&self, value: T) -> Result<(), crossbeam_channel::TrySendError<T>> {
        self.0.try_send(value)
    }
}

#[cfg(feature = "cli")]
impl<T> QueueReceiver<T> {
    /// Blocks until there is a value, the senders are gone, or the deadline passes.
    pub(crate) fn recv(&self, deadline: Deadline) -> Option<T> {
        match deadline.instant() {
            Some(instant) => self.0.recv_deadline(instant).ok(),
            None => self.0.recv().ok(),
        }
    }
}

/// Starts a named thread.
#[expect(clippy::disallowed_methods, reason = "this file is the door that the fence leads to")]
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Whether this is the handle of the thread that asks, which cannot wait for itself.
pub(crate) fn is_current<T>(thread: &JoinHandle<T>) -> bool {
    thread.thread().id() == std::thread::current().id()
}

/// A number that no other living thread has; never 0.
pub(crate) fn thread_token() -> u64 {
    // ORDERING: Relaxed; only uniqueness matters, which the read-modify-write gives by itself. No partner.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    thread_local!(static TOKEN: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    // Where thread-locals are the system's own, this one has no destructor and is always there. Elsewhere it may go before a
    // thread-local of a caller whose destructor calls into the store. Such threads share one token: while the closure of
    // one of them runs inside the writer lock, another is refused as if it were inside, too.
    TOKEN.try_with(|token| *token).unwrap_or(u64::MAX)
}

/// The process in which this was made. A fork copies everything but the threads: what needs them must not go on there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// Holds the number of the process that looks at it, and 0 in one that was just forked. `None` where the system cannot
    /// do that: then the process's id is asked for.
    page: Option<&'static Word>,
    number: u64,
}

impl Process {
    /// This one.
    pub(crate) fn this() -> Self {
        // ORDERING: Relaxed; only uniqueness within the process matters, a fork copies it. No partner.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        static PAGE: OnceLock<Option<&'static Word>> = OnceLock::new();
        let Some(page) = *PAGE.get_or_init(page) else { return Self { page: None, number: std::process::id().into() } };
        let number = NEXT.fetch_add(1, Ordering::Relaxed); // ORDERING: Relaxed; as above.
        // ORDERING: Relaxed; a number that stands for nothing but itself. The first thread of a process gives it one.
        let number =
            page.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed).map_or_else(|it| it, |_| number);
        Self { page: Some(page), number }
    }

    /// Whether this thread runs in that process. Takes no lock and, as a rule, one load.
    #[inline]
    pub(crate) fn is_this(&self) -> bool {
        match self.page {
            // ORDERING: Relaxed; a fork is one thread, which saw the number before it forked.
            Some(page) => page.load(Ordering::Relaxed) == self.number,
            None => self.number == u64::from(std::process::id()),
        }
    }
}

/// A number at the beginning of a page that is emptied by a fork. Never given back.
fn page() -> Option<&'static Word> {
    let page_bytes = rustix::param::page_size();
    let (len, words) = (page_bytes / size_of::<Word>(), 2 * page_bytes / size_of::<Word>());
    let words: &'static [Word] = Box::leak(bytemuck::try_zeroed_slice_box(words).ok()?);
    let skip = words.as_ptr().align_offset(page_bytes);
    let page = words.get(skip..skip.checked_add(len)?)?;
    if wipe_on_fork(page) { page.first() } else { None }
}

const LINE_BYTES: usize = WORDS_PER_LINE * size_of::<u64>();

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at the cell that it was in when it goes, which is when the next one is there.
    struct Looks {
        number: u64,
        cell: Arc<OnceLock<std::sync::Weak<Cell<Looks>>>>,
        seen: Arc<Mutex<Vec<(u64, bool)>>>,
    }

    impl Drop for Looks {
        fn drop(&mut self) {
            let Some(cell) = self.cell.get().and_then(std::sync::Weak::upgrade) else { return };
            let there = cell.published.load_full();
            // ORDERING: Relaxed; the thread that stores is this one.
            let is_newest = cell.newest.load(Ordering::Relaxed) == Arc::as_ptr(&there).addr();
            self.seen.lock().push((there.number, is_newest));
        }
    }

    /// C-11. A handle compares addresses: one that is stored after the version is a version that a handle passes over.
    #[test]
    fn a_version_that_is_in_the_cell_is_the_newest_by_its_address() {
        let (cell, seen) = (Arc::new(OnceLock::new()), Arc::new(Mutex::new(Vec::new())));
        let version = |number| Arc::new(Looks { number, cell: Arc::clone(&cell), seen: Arc::clone(&seen) });
        let published = SnapshotCell::new(version(0));
        assert!(cell.set(Arc::downgrade(&published.0)).is_ok());
        for number in 1..=3 {
            published.store(version(number));
        }
        drop(published);
        assert_eq!(*seen.lock(), [(1, true), (2, true), (3, true)]);
    }

    /// C-11, with threads. A thread that saw a version finds it, or a later one, with a handle of any age.
    #[test]
    fn a_handle_is_not_behind_what_was_seen_in_the_cell() {
        const VERSIONS: u64 = 100_000;
        let cell = Arc::new(SnapshotCell::new(Arc::new(0)));
        let looking = {
            let (cell, mut handle) = (Arc::clone(&cell), cell.reader());
            spawn("looks", move || {
                let mut looks = 0u64;
                loop {
                    let seen = cell.with(|version| *version);
                    let by_handle = **handle.load();
                    assert!(by_handle >= seen, "{seen} was seen, and then {by_handle}");
                    looks += 1;
                    if by_handle == VERSIONS {
                        return looks;
                    }
                }
            })
        };
        for version in 1..=VERSIONS {
            cell.store(Arc::new(version));
        }
        assert!(looking.unwrap().join().is_ok_and(|looks| looks > 0));
    }
}
