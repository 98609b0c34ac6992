//! Bars that show a person how far long work is.
//!
//! What must hold: nothing is drawn unless standard error is a terminal and the work is large; nothing goes to standard
//! output; what was drawn is gone before anything else is printed.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that takes itself away at its end. Not drawn before [`Bar::begin`]; how often it is drawn is the library's
/// business, so that it may be told of every small step.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar for work that is called so.
    pub(super) fn new(what: &'static str) -> Self {
        let bar = ProgressBar::hidden();
        bar.set_message(what);
        Self { bar }
    }

    /// The work begins (or begins again), and has this many bytes before it.
    pub(super) fn begin(&self, bytes: u64) {
        self.bar.set_length(bytes);
        self.show(bytes, WITH_END);
    }

    /// The work begins, on files of so many bytes; how much is to be done about them is not known.
    pub(super) fn begin_without_end(&self, bytes: u64) {
        self.show(bytes, WITHOUT_END);
    }

    fn show(&self, bytes: u64, template: &str) {
        self.bar.set_position(0);
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
        if is_shown(bytes, io::stderr().is_terminal()) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// So many bytes more are done.
    pub(super) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn is_shown(bytes: u64, to_a_terminal: bool) -> bool {
    to_a_terminal && bytes >= LARGE_BYTES
}

/// Less is done before anybody has read the bar.
const LARGE_BYTES: u64 = 1 << 20;
const WITH_END: &str = "{msg} [{bar:40}] {bytes} of {total_bytes}";
const WITHOUT_END: &str = "{msg}: {bytes} read and written";

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_large_work_is_shown_and_only_on_a_terminal() {
        assert!(is_shown(LARGE_BYTES, true));
        assert!(!is_shown(LARGE_BYTES - 1, true));
        assert!(!is_shown(u64::MAX, false));
    }

    #[test]
    fn the_templates_are_such() {
        for template in [WITH_END, WITHOUT_END] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
