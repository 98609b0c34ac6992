//! The only way to run what may panic and must not take its thread along: above all somebody else's code.
//!
//! INVARIANT: whatever that code does, whoever runs it goes on behind the call. Transports, registries, sinks, identities and
//! wakers are called on threads that owe something to others: the next message, the next waiter, the word that they left.
//! Showing an error of theirs, and dropping it, runs their code too.
#![forbid(unsafe_code)]

use core::fmt::{self, Write as _};
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

/// Drops it; a panic in that ends here.
pub(crate) fn let_go<T>(value: T) {
    if run(|| drop(value)).is_err() {
        tracing::error!("what an embedder's code returned panicked when it was dropped");
    }
}

/// What it says of itself, in one line of at most 1 KiB; a fixed text if it panics or fails meanwhile.
pub(crate) fn shown(what: &dyn fmt::Display) -> String {
    let mut line = Line { text: String::new(), is_full: false };
    // By reference: unwinding must not drop it, for that may panic as well, and end the process.
    match run(|| write!(line, "{what}")) {
        Ok(Err(_)) if !line.is_full => NOT_SHOWN.to_owned(),
        Ok(_) => line.text,
        Err(Panicked) => NOT_SHOWN.to_owned(),
    }
}

/// A text that ends at a limit, without characters that could end a line or command a terminal.
struct Line {
    text: String,
    is_full: bool,
}

impl fmt::Write for Line {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for character in part.chars() {
            if self.is_full || self.text.len() + character.len_utf8() > SHOWN_BYTES_MAX {
                self.is_full = true;
                return Err(fmt::Error);
            }
            self.text.push(if character.is_control() { ' ' } else { character });
        }
        Ok(())
    }
}

const NOT_SHOWN: &str = "an error that cannot be shown";
const SHOWN_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    struct Says<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result>(F);

    impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Says<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            (self.0)(f)
        }
    }

    #[test]
    fn what_cannot_show_itself_costs_its_text_alone() {
        assert_eq!(shown(&"the disk\nis\u{1b}[2Jfull"), "the disk is [2Jfull");
        assert_eq!(shown(&Says(|_| panic!("in showing"))), NOT_SHOWN);
        assert_eq!(shown(&Says(|f| f.write_str("half").map(|()| panic!("in showing")))), NOT_SHOWN);
        assert_eq!(shown(&Says(|_| Err(fmt::Error))), NOT_SHOWN);
        // One that would never end, and heeds that nobody listens; and one that does not.
        assert_eq!(
            shown(&Says(|f| {
                loop {
                    f.write_str("\u{1f511}")?;
                }
            }))
            .len(),
            SHOWN_BYTES_MAX
        );
        let deaf = Says(|f| {
            for _ in 0..10_000 {
                let _ = f.write_str("abc");
            }
            Ok(())
        });
        assert_eq!(shown(&deaf).len(), SHOWN_BYTES_MAX);
    }

    #[test]
    fn what_panics_when_it_is_dropped_is_let_go() {
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("in dropping");
            }
        }
        let_go(Bad);
        let_go(3);
    }
}
