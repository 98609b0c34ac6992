//! How much a node of the program keeps and holds: the limits among the settings of `node`.
//!
//! INVARIANT: without an option a limit is the library's default, which the help names. A value beyond its range is no
//! command line: exit code 2, with the range in the text.
#![forbid(unsafe_code)]

use std::time::Duration;

use clap::{Args, value_parser};

use crate::config::Limits;
use crate::node::TcpConfig;
use crate::store::Options;

/// The limits that an operator may set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArguments {
    /// How many peers may wait for an operator, 1 to 1000000 [default: 256]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1_000_000))]
    pending_max: Option<u32>,
    /// How many of them from one source, an authenticated node, else an address or IPv6 network, 1 to 1000000 [default: 16]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1_000_000))]
    pending_per_source: Option<u32>,
    /// How many requests of the node itself may be unanswered, 1 to 1000000; one more forgets the oldest [default: 4096]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1_000_000))]
    outgoing_max: Option<u32>,
    /// How many peers may be owed a decision that they were not told yet, 1 to 1000000; one more forgets the oldest
    /// [default: 4096]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1_000_000))]
    owed_max: Option<u32>,
    /// Beyond how many revoked peers `status` warns, 1 to 4294967295; none is ever refused or forgotten for it
    /// [default: no warning]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    revoked_max: Option<u32>,
    /// How many keys may be revoked, 1 to 10000000; one more is refused [default: 1000000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=10_000_000))]
    revoked_keys_max: Option<u32>,
    /// How many peers may be ignored, 1 to 10000000; one more is refused [default: 1000000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=10_000_000))]
    ignored_max: Option<u32>,
    /// How many keys may be ignored, 1 to 10000000; one more is refused [default: 1000000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=10_000_000))]
    ignored_keys_max: Option<u32>,
    /// How many connections are held open for an answer, 0 to 4096; one more closes the oldest, 0 holds none [default: 64]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(0..=4096))]
    held_max: Option<u32>,
    /// How many of them from one address or IPv6 network, 0 to 4096 [default: 2]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(0..=4096))]
    held_per_source: Option<u32>,
    /// How many seconds one save may run before the disk counts as one that hangs, and the node as not healthy, 1 to 3600
    /// [default: 5]
    #[arg(long, value_name = "S", value_parser = value_parser!(u32).range(1..=3600))]
    save_limit: Option<u32>,
}

impl LimitArguments {
    /// The limits of the tables.
    pub(super) fn tables(self) -> Limits {
        let mut limits = Limits::default();
        put(self.pending_max, &mut limits.pending_max);
        put(self.pending_per_source, &mut limits.pending_per_source_max);
        put(self.outgoing_max, &mut limits.outgoing_max);
        put(self.owed_max, &mut limits.owed_max);
        put(self.revoked_keys_max, &mut limits.revoked_keys_max);
        put(self.ignored_max, &mut limits.ignored_max);
        put(self.ignored_keys_max, &mut limits.ignored_keys_max);
        limits.revoked_max = self.revoked_max.and_then(|given| usize::try_from(given).ok());
        limits
    }

    /// The same options, with how long a save may run.
    pub(super) fn store(self, options: Options) -> Options {
        let options = options.limits(self.tables());
        match self.save_limit {
            Some(seconds) => options.save_limit(Duration::from_secs(u64::from(seconds))),
            None => options,
        }
    }

    /// The same transport, with the limits of its connections.
    pub(super) fn transport(self, mut config: TcpConfig) -> TcpConfig {
        put(self.held_max, &mut config.held_max);
        put(self.held_per_source, &mut config.held_per_source_max);
        config
    }
}

fn put(given: Option<u32>, limit: &mut usize) {
    *limit = given.and_then(|given| usize::try_from(given).ok()).unwrap_or(*limit);
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitArguments,
    }

    fn parse(words: &[&str]) -> Result<LimitArguments, clap::Error> {
        Line::try_parse_from(core::iter::once(&"node").chain(words)).map(|line| line.limits)
    }

    /// Each option, its range, and where its value is found.
    type Found = fn(&Limits, &TcpConfig) -> Option<usize>;
    const OPTIONS: [(&str, u64, u64, Found); 10] = [
        ("--pending-max", 1, 1_000_000, |limits, _| Some(limits.pending_max)),
        ("--pending-per-source", 1, 1_000_000, |limits, _| Some(limits.pending_per_source_max)),
        ("--outgoing-max", 1, 1_000_000, |limits, _| Some(limits.outgoing_max)),
        ("--owed-max", 1, 1_000_000, |limits, _| Some(limits.owed_max)),
        ("--revoked-max", 1, 4_294_967_295, |limits, _| limits.revoked_max),
        ("--revoked-keys-max", 1, 10_000_000, |limits, _| Some(limits.revoked_keys_max)),
        ("--ignored-max", 1, 10_000_000, |limits, _| Some(limits.ignored_max)),
        ("--ignored-keys-max", 1, 10_000_000, |limits, _| Some(limits.ignored_keys_max)),
        ("--held-max", 0, 4096, |_, config| Some(config.held_max)),
        ("--held-per-source", 0, 4096, |_, config| Some(config.held_per_source_max)),
    ];

    #[test]
    fn nothing_given_is_the_default_and_each_limit_is_its_own() {
        let default = (Limits::default(), TcpConfig::default());
        let none = parse(&[]).unwrap();
        assert_eq!((none.tables(), none.transport(TcpConfig::default())), default);
        for (option, low, high, found) in OPTIONS {
            for value in [low, 3, high] {
                let given = parse(&[option, &value.to_string()]).unwrap();
                let (limits, config) = (given.tables(), given.transport(TcpConfig::default()));
                assert_eq!(found(&limits, &config), usize::try_from(value).ok(), "{option}");
                // And no other.
                for (other, _, _, of) in OPTIONS.iter().filter(|(other, ..)| *other != option) {
                    assert_eq!(of(&limits, &config), of(&default.0, &default.1), "{option} changes {other}");
                }
            }
        }
    }

    #[test]
    fn a_save_may_run_for_as_long_as_is_said_and_else_for_five_seconds() {
        let limit = |words: &[&str]| parse(words).unwrap().store(Options::default()).save_limit_now();
        assert_eq!(limit(&[]), Duration::from_secs(5));
        for seconds in [1, 7, 3600] {
            assert_eq!(limit(&["--save-limit", &seconds.to_string()]), Duration::from_secs(seconds));
        }
        for bad in ["0", "3601", "0.5", "x"] {
            assert_eq!(parse(&["--save-limit", bad]).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_value_beyond_its_range_is_refused_with_the_range() {
        for (option, low, high, _) in OPTIONS {
            let beyond = (high + 1).to_string();
            let below = low.checked_sub(1).map(|below| below.to_string());
            for bad in below.iter().chain([&beyond]) {
                let error = parse(&[option, bad]).unwrap_err();
                let text = error.to_string();
                assert_eq!(error.exit_code(), 2, "{option} {bad}");
                assert!(text.contains(&format!("{low}..={high}")), "{option} {bad}: {text}");
            }
            for bad in ["", "x", "1.5"] {
                assert_eq!(parse(&[option, bad]).unwrap_err().exit_code(), 2, "{option} {bad}");
            }
        }
    }
}
