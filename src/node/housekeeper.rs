//! The timer that tells the machine that time has passed.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use super::shell::Shell;
use crate::foreign;
use crate::machine::input::Input;
use crate::sync::{Condvar, Deadline, Mutex, Process, spawn};

/// A thread that looks for expired entries, until it is told to stop.
pub(crate) struct Housekeeper {
    stop: Arc<Stop>,
}

struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
    /// That of the thread.
    process: Process,
}

impl Housekeeper {
    pub(crate) fn start(shell: &Arc<Shell>) -> io::Result<Self> {
        let stop = Arc::new(Stop { stopped: Mutex::new(false), changed: Condvar::new(), process: Process::this() });
        let (of_thread, shell) = (Arc::clone(&stop), Arc::downgrade(shell));
        let Some(every) = shell.upgrade().map(|shell| shell.rules.config.housekeeping_every) else {
            return Ok(Self { stop });
        };
        spawn("trustkeep-tidy", move || {
            loop {
                let due = Deadline::after(every);
                let mut stopped = of_thread.stopped.lock();
                while !*stopped {
                    let (guard, late) = of_thread.changed.wait_until(stopped, due);
                    stopped = guard;
                    if late {
                        break;
                    }
                }
                let Some(shell) = shell.upgrade().filter(|_| !*stopped) else { return };
                drop(stopped);
                // A defect in a rule must not end housekeeping for good.
                let _ = foreign::run(|| shell.forget_ourselves());
                let _ = foreign::run(|| shell.tell_left_out());
                match foreign::run(|| shell.submit(Input::Housekeeping)) {
                    Ok(Ok(done)) => shell.perform(done),
                    Ok(Err(error)) => shell.count("housekeeping", &format_args!("housekeeping failed: {error}")),
                    Err(_) => shell.count("panicked", &"a panic in housekeeping"),
                }
            }
        })?;
        Ok(Self { stop })
    }

    pub(crate) fn stop(&self) {
        *self.stop.stopped.lock() = true;
        self.stop.changed.notify_one();
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        // In a forked process there is no thread, and its lock may never be given back.
        if self.stop.process.is_this() {
            self.stop();
        }
    }
}
