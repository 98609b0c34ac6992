//! The command line, as types.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// A trust store and handshake manager: who may talk to this node, and since when.
#[derive(Debug, Parser)]
#[command(name = "trustkeep", version, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 yes or done, 1 no or failed, 2 wrong usage.\n\
    In JSON, times are milliseconds since 1970-01-01 00:00 UTC; keys are base64.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what a store directory holds; works beside a running node, and changes nothing
    Inspect {
        /// The store directory (of a node: `store` in its home)
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every byte of every file of a store directory; works beside a running node, and changes nothing
    Verify {
        /// The store directory (of a node: `store` in its home)
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Grant and revoke on many threads, and write down what was acknowledged as durable
    Stress(Stress),
}

/// Grants and revokes on N threads. Each thread owns its own peers and makes its next change only when its last one is
/// durable, so that at most N changes are unacknowledged at any moment.
///
/// Change n of thread t (both from 0) concerns peer 1 + 1000 t + m(m(m(X) + t) + n) mod 1000, where m is the output
/// function of splitmix64 and sums wrap; it revokes the peer if it is trusted, and else grants it.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Stress {
    /// The store directory; created if it is missing
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// How many threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) threads: u32,
    /// For how long; fractions are fine
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(super) seconds: Duration,
    /// Where to append a line `<generation> grant|revoke <node id>` for each change that is durable
    #[arg(long, value_name = "FILE")]
    pub(super) acks: Option<PathBuf>,
    /// Fill the store up to this many trusted peers first
    #[arg(long, value_name = "R", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    pub(super) records: u32,
    /// What decides which peers are changed in which order
    #[arg(long, value_name = "X", default_value_t = 1)]
    pub(super) seed: u64,
    /// Do not wait until a change is durable; then nothing is acknowledged, and no line is appended
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // A moment that far ahead can still be expressed.
    seconds.filter(|seconds| seconds.as_secs() < 1 << 32).ok_or_else(|| "not a number of seconds".to_owned())
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn seconds_are_finite_and_not_negative() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        for bad in ["", "-1", "inf", "NaN", "1e300", "5s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
