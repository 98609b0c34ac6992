//! The shell's clocks: the one place of the library that reads them.
#![forbid(unsafe_code)]

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::{Now, Tick, WallMillis};

/// Where a store or a node reads the time; tests bring their own.
pub trait Clock: Send + Sync + core::fmt::Debug {
    /// Both clocks, read together. The tick must never go back.
    ///
    /// # Ordering
    /// Called from any thread, possibly under the store's writer lock: must not block or call back into the store.
    fn now(&self) -> Now;
}

/// The operating system's clocks; the tick counts from the first reading in this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the shell's clock")]
    fn now(&self) -> Now {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        let tick = i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
        };
        Now { wall: WallMillis::new(wall), tick: Tick::new(tick) }
    }
}
