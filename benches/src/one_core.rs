//! Keeps a measurement, and every thread that it starts, on one core.
//!
//! Two cores of a machine may be two halves of one: what others of our own threads do on the second would count as slowness
//! of the thread that is measured.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// As long as this lives, the thread that made it, and threads that it starts, run on one core.
#[derive(Debug)]
pub struct OneCore {
    before: Option<CpuSet>,
}

impl OneCore {
    /// The last core that this thread may run on; no effect where the system refuses.
    #[must_use]
    pub fn enter() -> Self {
        let before = sched_getaffinity(None).ok();
        let last = before.and_then(|set| (0..CpuSet::MAX_CPU).rev().find(|cpu| set.is_set(*cpu)));
        if let Some(last) = last {
            let mut one = CpuSet::new();
            one.set(last);
            let _ = sched_setaffinity(None, &one);
        }
        Self { before }
    }
}

impl Drop for OneCore {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = sched_setaffinity(None, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_started_meanwhile_stay_on_one_core_and_afterwards_not() {
        let count = || sched_getaffinity(None).unwrap().count();
        let cores = || std::thread::scope(|scope| scope.spawn(count).join().unwrap());
        let before = cores();
        {
            let _one = OneCore::enter();
            assert_eq!(cores(), 1);
        }
        assert_eq!(cores(), before);
    }
}
