//! The signals that end a command in good order, and those that do nothing.
#![forbid(unsafe_code)]

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::Failure;

/// SIGINT, SIGTERM, SIGQUIT, and SIGHUP: the terminal was closed. Whoever starts the program with SIGHUP ignored (`nohup`)
/// wants it to outlive its terminal. As long as what is returned is there, none of them ends the process by itself.
pub(super) fn ending() -> Result<Signals, Failure> {
    let watched: &[i32] =
        if is_ignored(SIGHUP) { &[SIGINT, SIGQUIT, SIGTERM] } else { &[SIGHUP, SIGINT, SIGQUIT, SIGTERM] };
    Signals::new(watched).map_err(unwatched)
}

/// SIGUSR1, SIGUSR2, and SIGXFSZ: a write beyond the limit of a file's size then fails like one to a full disk. For as long as
/// what is returned is there, none of them ends the process. The same is so of SIGPIPE, by the language's runtime.
pub(super) fn survived() -> Option<Signals> {
    Signals::new([SIGUSR1, SIGUSR2, SIGXFSZ]).ok()
}

/// A core dump would hold the secret key, so a process that is ended by a signal leaves none.
///
/// One byte and not none: Linux writes no file within that, and pipes nothing to a collector either, which a limit of none
/// does not keep it from. The hard limit stays, for whoever wants to see a dump.
pub(super) fn leave_no_core() {
    let mut limit = getrlimit(Resource::Core);
    limit.current = Some(limit.maximum.map_or(CORE_BYTES_MAX, |most| most.min(CORE_BYTES_MAX)));
    // A limit may always be lowered; where it is zero it stays so.
    let _ = setrlimit(Resource::Core, limit);
}

/// Signals cannot be watched.
pub(super) fn unwatched(error: io::Error) -> Failure {
    Failure::new(format_args!("signals cannot be watched: {error}"))
}

/// Whether this process was started with the signal ignored; no where the system does not tell.
fn is_ignored(signal: i32) -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| is_in_ignored(&status, signal))
}

/// The field is a set of signals, from 1, as hexadecimal digits.
fn is_in_ignored(status: &str, signal: i32) -> bool {
    let field = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = field.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << (signal - 1)) != 0)
}

const CORE_BYTES_MAX: u64 = 1;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_ignored_signals_are_read_bit_by_bit() {
        for (status, is_ignored) in [
            ("Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000000001\n", true),
            ("SigIgn:\t0000000000001003\n", true),
            ("SigIgn:\tfffffffffffffffe\nSigCgt:\tffffffffffffffff\n", false),
            ("SigIgn:\tx\n", false),
            ("", false),
        ] {
            assert_eq!(is_in_ignored(status, SIGHUP), is_ignored, "{status}");
        }
        assert!(is_in_ignored("SigIgn:\t0000000000004000\n", SIGTERM));
    }
}
