//! The model checker's primitives: every operation is a scheduling point, and nothing gives an ordering that the real
//! one does not promise.
//!
//! What is not under test here (the queue of a signal) stays invisible to the checker. Waits never time out: the moments at
//! which a deadline may pass are played through by the pure plan's own tests.
#![allow(unsafe_code, reason = "a cell that the checker watches is shared on purpose")]
#![expect(clippy::disallowed_types, reason = "this file is the door that the fence leads to")]

#[cfg(feature = "cli")]
use std::collections::VecDeque;
use std::io;

use loom::sync::atomic::{AtomicBool, AtomicUsize};

use super::{Deadline, WORDS_PER_LINE};

pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
pub(crate) use loom::sync::{Arc, MutexGuard};
pub(crate) use loom::thread::JoinHandle;
/// The real one: it orders more than the model knows of, which the checker does not see, so nothing is hidden by it.
pub(crate) use std::sync::OnceLock;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

/// A cell that is read and written where the memory it stands for is: two such accesses of which one writes must be
/// ordered, or the checker fails.
#[derive(Debug)]
pub(crate) struct Witness(loom::cell::UnsafeCell<()>);

// SAFETY: nothing is in the cell. That its accesses are ordered is what the checker finds out.
unsafe impl Sync for Witness {}

impl Witness {
    pub(crate) fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(()))
    }

    pub(crate) fn reads(&self) {
        self.0.with(|_| ());
    }

    pub(crate) fn owns(&self) {
        self.0.with_mut(|_| ());
    }
}

#[derive(Debug)]
pub(crate) struct Lines(Vec<Line>);

pub(crate) type Line = [Word; WORDS_PER_LINE];

pub(crate) type Word = AtomicU64;

impl Lines {
    /// Models are small: one line where the real one has a page of them, so that the ways of ids meet.
    pub(crate) fn zeroed(lines: usize) -> Option<Self> {
        let lines = if lines.is_multiple_of(LINES_PER_PAGE) { lines / LINES_PER_PAGE } else { lines };
        Some(Self((0..lines).map(|_| core::array::from_fn(|_| AtomicU64::new(0))).collect()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Line> {
        self.0.get(number)
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    pub(crate) fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, _: Deadline) -> (MutexGuard<'a, T>, bool) {
        (self.0.wait(guard).unwrap(), false)
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }
}

/// An atomic index into a slab that only grows. A mutex around the current value would order readers before later
/// writers, which the real cell does not; the slab's own lock is invisible to the checker.
#[derive(Debug)]
pub(crate) struct SnapshotCell<T>(Arc<Slab<T>>);

/// Each value is wrapped once more, so that no scheduling point (cloning the modelled `Arc` is one) lies under the
/// slab's lock.
#[derive(Debug)]
struct Slab<T> {
    newest: AtomicUsize,
    current: AtomicUsize,
    values: std::sync::Mutex<Vec<std::sync::Arc<Arc<T>>>>,
}

impl<T> SnapshotCell<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        let values = std::sync::Mutex::new(vec![std::sync::Arc::new(value)]);
        Self(Arc::new(Slab { newest: AtomicUsize::new(0), current: AtomicUsize::new(0), values }))
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.load_full())
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        // ORDERING: Acquire, pairs with the swap in `store`: all that the real cell gives a reader.
        let index = self.0.current.load(Ordering::Acquire);
        let value = std::sync::Arc::clone(&self.0.values.lock().unwrap()[index]);
        Arc::clone(&value)
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        let index = {
            let mut values = self.0.values.lock().unwrap();
            values.push(std::sync::Arc::new(value));
            values.len() - 1
        };
        // ORDERING: Relaxed, as in the real cell (C-11).
        self.0.newest.store(index, Ordering::Relaxed);
        // ORDERING: AcqRel, pairs with the loads of readers; the real cell replaces its pointer in the same way.
        self.0.current.swap(index, Ordering::AcqRel);
    }

    pub(crate) fn reader(&self) -> CellReader<T> {
        CellReader { cell: Self(Arc::clone(&self.0)), seen: self.load_full() }
    }
}

/// As the real one, it looks at the newest index without ordering and loads anew only if it has seen another.
#[derive(Debug)]
pub(crate) struct CellReader<T> {
    cell: SnapshotCell<T>,
    seen: Arc<T>,
}

impl<T> CellReader<T> {
    pub(crate) fn load(&mut self) -> &Arc<T> {
        // ORDERING: Relaxed, as the real one compares addresses; what is behind is loaded with Acquire (C-11).
        let index = self.cell.0.newest.load(Ordering::Relaxed);
        let newest = std::sync::Arc::clone(&self.cell.0.values.lock().unwrap()[index]);
        if !Arc::ptr_eq(&newest, &self.seen) {
            self.seen = self.cell.load_full();
        }
        &self.seen
    }
}

impl<T> Clone for CellReader<T> {
    fn clone(&self) -> Self {
        Self { cell: SnapshotCell(Arc::clone(&self.cell.0)), seen: Arc::clone(&self.seen) }
    }
}

/// A channel as stale as it may be: a ringer that believes a ring to be waiting already is ordered with nobody.
#[derive(Debug)]
pub(crate) struct Doorbell {
    rung: AtomicBool,
    lock: loom::sync::Mutex<()>,
    bell: loom::sync::Condvar,
}

impl Doorbell {
    pub(crate) fn new() -> Self {
        Self { rung: AtomicBool::new(false), lock: loom::sync::Mutex::new(()), bell: loom::sync::Condvar::new() }
    }

    pub(crate) fn ring(&self) {
        // ORDERING: Relaxed, on purpose: a channel that says full orders the ringer with nobody (C-1).
        if self.rung.load(Ordering::Relaxed) {
            return;
        }
        let guard = self.lock.lock().unwrap();
        // ORDERING: Relaxed here and in `wait`: both under the lock, which orders them.
        self.rung.store(true, Ordering::Relaxed);
        drop(guard);
        self.bell.notify_one();
    }

    pub(crate) fn wait(&self, _: Deadline) {
        let mut guard = self.lock.lock().unwrap();
        // ORDERING: Relaxed; under the lock, see `ring`.
        while !self.rung.load(Ordering::Relaxed) {
            guard = self.bell.wait(guard).unwrap();
        }
        // ORDERING: Relaxed; under the lock, see `ring`.
        self.rung.store(false, Ordering::Relaxed);
    }

    /// One look: in a model no time passes.
    pub(crate) fn listen(&self, _: Deadline) -> bool {
        let _guard = self.lock.lock().unwrap();
        // ORDERING: Relaxed; under the lock, see `ring`.
        let is_rung = self.rung.load(Ordering::Relaxed);
        if is_rung {
            // ORDERING: Relaxed; under the lock, see `ring`.
            self.rung.store(false, Ordering::Relaxed);
        }
        is_rung
    }
}

#[cfg(feature = "cli")]
#[derive(Debug)]
pub(crate) struct QueueSender<T>(std::sync::Arc<std::sync::Mutex<VecDeque<T>>>, usize);

#[cfg(feature = "cli")]
#[derive(Debug)]
pub(crate) struct QueueReceiver<T>(std::sync::Arc<std::sync::Mutex<VecDeque<T>>>);

#[cfg(feature = "cli")]
pub(crate) fn queue<T>(capacity: usize) -> (QueueSender<T>, QueueReceiver<T>) {
    let values = std::sync::Arc::new(std::sync::Mutex::new(VecDeque::new()));
    (QueueSender(std::sync::Arc::clone(&values), capacity.max(1)), QueueReceiver(values))
}

#[cfg(feature = "cli")]
impl<T> QueueSender<T> {
    pub(crate) fn try_send(&self, value: T) -> Result<(), crossbeam_channel::TrySendError<T>> {
        let mut values = self.0.lock().unwrap();
        if values.len() >= self.1 {
            return Err(crossbeam_channel::TrySendError::Full(value));
        }
        values.push_back(value);
        Ok(())
    }
}

#[cfg(feature = "cli")]
impl<T> QueueReceiver<T> {
    /// No model waits here: this one only looks.
    pub(crate) fn recv(&self, _: Deadline) -> Option<T> {
        self.0.lock().unwrap().pop_front()
    }
}

pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    loom::thread::Builder::new().name(name.to_owned()).spawn(body)
}

pub(crate) fn is_current<T>(thread: &JoinHandle<T>) -> bool {
    thread.thread().id() == loom::thread::current().id()
}

/// Models do not fork.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process;

impl Process {
    pub(crate) fn this() -> Self {
        Self
    }

    pub(crate) fn is_this(&self) -> bool {
        true
    }
}

pub(crate) fn thread_token() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    loom::thread_local!(static TOKEN: u64 = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    TOKEN.try_with(|token| *token).unwrap_or(u64::MAX)
}

const LINES_PER_PAGE: usize = 64;
