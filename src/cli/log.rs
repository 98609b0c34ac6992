//! The log of a command that runs for long: lines for standard error, which a thread of its own writes.
//!
//! What must hold: no thread that logs or complains waits for standard error, whatever is behind it (a pipe that nobody
//! drains, a terminal that is stopped, a disk that is full). At most [`LOG_BYTES_MAX`] bytes wait, and as many are being
//! written; a single line that is longer has them to itself. From the first line that does not fit until there is room
//! again, lines are dropped and counted, and their number stands in the log at their place. The process ends although
//! the thread is inside a write.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::time::Duration;

use super::print;
use crate::sync::{Arc, Condvar, Deadline, Mutex, OnceLock, spawn};
use crate::wire::text::one_line;

/// From now on this process logs, and complains, without ever waiting for standard error.
pub(super) fn begin() -> io::Result<()> {
    let lines = Arc::new(Lines::new(LOG_BYTES_MAX));
    let (of_thread, of_subscriber) = (Arc::clone(&lines), Arc::clone(&lines));
    spawn("trustkeep-log", move || of_thread.write_to(&mut Unlocked(io::stderr())))?;
    // A process logs once.
    let _ = LOG.set(lines);
    tracing_subscriber::fmt()
        .with_writer(move || Line(Arc::clone(&of_subscriber)))
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        // It would be told on standard error, directly.
        .log_internal_errors(false)
        .init();
    // So would a panic.
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tracing::error!(thread = thread.name(), "{panic}");
    }));
    Ok(())
}

/// Puts a line into the log; false if this process has none.
pub(super) fn put(line: &str) -> bool {
    LOG.get().map(|lines| lines.put(format!("{line}\n").as_bytes())).is_some()
}

/// How many lines were dropped so far.
pub(super) fn dropped() -> u64 {
    LOG.get().map_or(0, |lines| lines.state.lock().dropped_total)
}

/// Waits at its end, but not for long, until what was logged is written.
pub(super) struct End;

impl Drop for End {
    fn drop(&mut self) {
        if let Some(lines) = LOG.get() {
            lines.end(END_WAIT);
        }
    }
}

/// The lines that wait to be written.
#[derive(Debug)]
struct Lines {
    bytes_max: usize,
    state: Mutex<State>,
    // The thread that writes waits here.
    more: Condvar,
    // Whoever ends the process waits here.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Since the last line in `waiting`.
    dropped: u64,
    dropped_total: u64,
    is_writing: bool,
    has_ended: bool,
}

impl Lines {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::new(State::default()), more: Condvar::new(), written: Condvar::new() }
    }

    /// Takes a line, or counts it.
    fn put(&self, line: &[u8]) {
        let mut state = self.state.lock();
        let fits = state.waiting.is_empty() || state.waiting.len() + line.len() <= self.bytes_max;
        if state.dropped > 0 || !fits {
            state.dropped += 1;
            state.dropped_total += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        drop(state);
        self.more.notify_one();
    }

    /// Writes until the end.
    fn write_to(&self, out: &mut impl Write) {
        let mut missing = 0;
        while let Some((lines, dropped)) = self.take() {
            let mut failed = 0;
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                missing = tell_missing(out, missing);
                if write_line(out, line).is_err() {
                    missing += 1;
                    failed += 1;
                }
            }
            missing = tell_missing(out, missing + dropped);
            let mut state = self.state.lock();
            state.dropped_total += failed;
            state.is_writing = false;
            drop(state);
            self.written.notify_one();
        }
    }

    /// What is to be written next, and how many lines are missing behind it; waits for it. None at the end.
    fn take(&self) -> Option<(Vec<u8>, u64)> {
        let mut state = self.state.lock();
        // Nothing is dropped while nothing waits.
        while state.waiting.is_empty() {
            if state.has_ended {
                return None;
            }
            (state, _) = self.more.wait_until(state, Deadline::NEVER);
        }
        state.is_writing = true;
        Some((core::mem::take(&mut state.waiting), core::mem::take(&mut state.dropped)))
    }

    /// Waits until everything is written; false if that takes longer than this.
    fn end(&self, wait: Duration) -> bool {
        let deadline = Deadline::after(wait);
        let mut state = self.state.lock();
        state.has_ended = true;
        self.more.notify_one();
        while !state.waiting.is_empty() || state.is_writing {
            let late;
            (state, late) = self.written.wait_until(state, deadline);
            if late {
                return false;
            }
        }
        true
    }
}

/// How many are still missing: none if that could be told.
fn tell_missing(out: &mut impl Write, missing: u64) -> u64 {
    let time = print::time(super::now().wall.as_millis());
    let line = format!("{time}  WARN trustkeep::cli::log: {missing} lines dropped, for standard error took no more\n");
    if missing == 0 || write_line(out, line.as_bytes()).is_ok() { 0 } else { missing }
}

/// Writes a line, in one piece if the system does.
fn write_line(out: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody who has the same pipe or terminal made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => pause(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "only a thread that has nothing else to do waits so")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// One event of `tracing`, written in one piece.
struct Line(Arc<Lines>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nothing that an event quotes moves the cursor, or begins a line as an event does.
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<String> = text.trim_end_matches('\n').split('\n').map(one_line).collect();
        self.0.put(format!("{}\n", lines.join("\n    ")).as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error without the standard library's lock on it, which others would wait for.
struct Unlocked(io::Stderr);

impl Write for Unlocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static LOG: OnceLock<Arc<Lines>> = OnceLock::new();

/// As much as a pipe takes.
const LOG_BYTES_MAX: usize = 64 << 10;
/// For what was logged last. Who does not read for so long reads no more.
const END_WAIT: Duration = Duration::from_secs(2);

#[cfg(all(test, not(trustkeep_loom)))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests say what must hold by panicking")]
mod tests {
    use super::*;
    use crate::sync::{QueueReceiver, QueueSender, queue};

    const LATE: Duration = Duration::from_secs(60);

    /// Takes a write only when it is let; hands on what was written.
    struct Stuck {
        lets: QueueReceiver<io::Result<()>>,
        wrote: QueueSender<String>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.lets.recv(Deadline::NEVER).unwrap_or(Ok(()))?;
            self.wrote.try_send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Bench {
        lines: Arc<Lines>,
        lets: QueueSender<io::Result<()>>,
        wrote: QueueReceiver<String>,
    }

    impl Bench {
        fn new(bytes_max: usize) -> Self {
            let (lines, (lets, of_out), (out, wrote)) = (Arc::new(Lines::new(bytes_max)), queue(64), queue(64));
            let of_thread = Arc::clone(&lines);
            spawn("log", move || of_thread.write_to(&mut Stuck { lets: of_out, wrote: out })).unwrap();
            Self { lines, lets, wrote }
        }

        fn put(&self, line: &str) {
            self.lines.put(format!("{line}\n").as_bytes());
        }

        /// Waits until the thread is inside a write.
        fn is_stuck(&self) {
            let late = Deadline::after(LATE);
            while !self.lines.state.lock().is_writing {
                assert!(!late.has_passed(), "nothing is written");
                std::thread::yield_now();
            }
        }

        fn next(&self, outcome: io::Result<()>) -> String {
            let is_written = outcome.is_ok();
            self.lets.try_send(outcome).unwrap();
            if is_written { self.wrote.recv(Deadline::after(LATE)).unwrap() } else { String::new() }
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_counted_and_told_at_its_place() {
        let bench = Bench::new(8);
        bench.put("one");
        bench.is_stuck();
        // The first fits; the last would, but stands behind one that did not.
        for line in ["two", "seven", "x"] {
            bench.put(line);
        }
        assert_eq!(bench.lines.state.lock().dropped_total, 2);
        assert!(!bench.lines.end(Duration::from_millis(1)), "it waits for what is stuck");
        assert_eq!([bench.next(Ok(())), bench.next(Ok(()))], ["one\n", "two\n"]);
        let told = bench.next(Ok(()));
        assert!(
            told.contains(" WARN ") && told.ends_with(": 2 lines dropped, for standard error took no more\n"),
            "{told}"
        );
        assert!(bench.lines.end(LATE));
    }

    #[test]
    fn a_line_longer_than_the_queue_is_kept_where_nothing_else_waits() {
        let bench = Bench::new(8);
        let long = "x".repeat(100);
        bench.put(&long);
        bench.is_stuck();
        bench.put(&long);
        bench.put("");
        for _ in 0..2 {
            assert_eq!(bench.next(Ok(())).len(), 101);
        }
        assert!(bench.next(Ok(())).contains(": 1 lines dropped"));
    }

    #[test]
    fn a_line_that_could_not_be_written_is_counted_as_well() {
        let bench = Bench::new(64);
        bench.put("one");
        bench.is_stuck();
        // The line, and the word of its loss.
        let full = || Err(io::ErrorKind::StorageFull.into());
        bench.next(full());
        bench.next(full());
        bench.put("two");
        assert!(bench.next(Ok(())).contains(": 1 lines dropped"));
        assert_eq!(bench.next(Ok(())), "two\n");
        assert!(bench.lines.end(LATE));
        assert_eq!(bench.lines.state.lock().dropped_total, 1);
    }

    #[test]
    fn what_blocks_for_a_moment_only_loses_nothing() {
        let bench = Bench::new(64);
        bench.put("one");
        bench.next(Err(io::ErrorKind::WouldBlock.into()));
        bench.next(Err(io::ErrorKind::Interrupted.into()));
        assert_eq!(bench.next(Ok(())), "one\n");
        assert!(bench.lines.end(LATE));
        assert_eq!(bench.lines.state.lock().dropped_total, 0);
    }
}
