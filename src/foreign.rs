//! The only way to run what may panic and must not take its thread along: above all somebody else's code.
//!
//! INVARIANT: whatever that code does, whoever runs it goes on behind the call. Transports, registries, sinks, identities and
//! wakers are called on threads that owe something to others: the next message, the next waiter, the word that they left.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

/// It panicked. What it panicked with is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs it; a panic in it ends here.
///
/// Dropping what it panicked with would be somebody else's code, too, and may panic in turn: that is leaked.
pub(crate) fn run<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        let _ = Box::leak(panic);
        Panicked
    })
}
