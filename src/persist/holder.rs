//! What an owner writes about itself into `LOCK`, and what another process makes of that.
//!
//! What must hold: the text is for messages only, the locks alone decide. A process is named only if the system confirms
//! it: ids are reused, and each PID namespace counts by itself. A text of another program is told from ours.
#![forbid(unsafe_code)]

use core::fmt;
use core::str;

use rustix::process::{Pid, test_kill_process};

use crate::error::Holder;

/// A process, so that no other one is taken for it. What the system does not tell is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pid: u32,
    /// When it started, in ticks of the clock of its time namespace.
    start: Option<u64>,
    boot: Option<String>,
    pid_namespace: Option<u64>,
    time_namespace: Option<u64>,
}

/// What stands in a lock file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LockText {
    /// Nothing: no process owns the directory, or its owner is just beginning to write, or a crash left zeros.
    Empty,
    Ours(Record),
    /// Another program's.
    Foreign,
}

impl LockText {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        // A crash may leave zeros behind what was written, or instead of it.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let text = bytes.get(..end).map(str::from_utf8);
        let Some(Ok(text)) = text else { return Self::Foreign };
        if text.trim_end().is_empty() {
            return Self::Empty;
        }
        let mut lines = text.lines();
        let Some(pid) = lines.next().and_then(|line| line.trim_end().parse().ok()) else { return Self::Foreign };
        let mut record = Record { pid, ..Record::default() };
        for line in lines {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "start" => record.start = value.parse().ok(),
                "boot" => record.boot = Some(value.to_owned()),
                "pid-namespace" => record.pid_namespace = value.parse().ok(),
                "time-namespace" => record.time_namespace = value.parse().ok(),
                // A crash, or its owner, is in the middle of it.
                _ if value.is_empty() && KEYS.iter().any(|whole| whole.starts_with(key)) => {}
                _ => return Self::Foreign,
            }
        }
        Self::Ours(record)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.pid)?;
        let Self { start, boot, pid_namespace, time_namespace, .. } = self;
        if let Some(start) = start {
            writeln!(f, "start {start}")?;
        }
        if let Some(boot) = boot {
            writeln!(f, "boot {boot}")?;
        }
        if let Some(namespace) = pid_namespace {
            writeln!(f, "pid-namespace {namespace}")?;
        }
        if let Some(namespace) = time_namespace {
            writeln!(f, "time-namespace {namespace}")?;
        }
        Ok(())
    }
}

impl Record {
    pub(super) fn of_this_process() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        Self {
            pid: std::process::id(),
            start: Seen::of("self").map(|seen| seen.start),
            boot: boot.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()),
            pid_namespace: namespace("self", "pid"),
            time_namespace: namespace("self", "time"),
        }
    }

    /// Whether this process wrote it, and not one that it was forked from.
    pub(super) fn is_of_this_process(&self) -> bool {
        fn may_be<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        let here = Self::of_this_process();
        self.pid == here.pid && may_be(self.start, here.start) && may_be(self.pid_namespace, here.pid_namespace)
    }

    /// Who holds the locks of a directory whose lock file says this.
    pub(super) fn holder(&self) -> Holder {
        self.holder_seen_from(&Self::of_this_process())
    }

    fn holder_seen_from(&self, here: &Self) -> Holder {
        let pid = self.pid;
        if self == here {
            return Holder::ThisProcess;
        }
        let (Some(boot), Some(of), Some(ours)) = (&self.boot, self.pid_namespace, here.pid_namespace) else {
            // An earlier release wrote the id alone, or a system without `/proc`.
            return if is_there(pid) == Some(false) { Holder::Survivor { of: pid } } else { Holder::Named { pid } };
        };
        if here.boot.as_ref() != Some(boot) {
            return Holder::Elsewhere { pid };
        }
        if of != ours {
            return self.find_below(here, of).map_or(Holder::Elsewhere { pid }, |pid| Holder::Process { pid });
        }
        if is_there(pid) == Some(false) {
            return Holder::Survivor { of: pid };
        }
        // The id is in use. It may have been given to another process.
        match is_proc_of(here.pid).then(|| Seen::of(&pid.to_string())).flatten() {
            Some(seen) if seen.has_ended || !self.started_with(here, &seen) => Holder::Survivor { of: pid },
            _ => Holder::Process { pid },
        }
    }

    /// Whether a process may be this one, by when it started; times of two time namespaces cannot be compared.
    fn started_with(&self, here: &Self, seen: &Seen) -> bool {
        self.time_namespace != here.time_namespace || self.start.is_none_or(|start| start == seen.start)
    }

    /// The id, as it is here, of a process of a PID namespace below this one.
    fn find_below(&self, here: &Self, of: u64) -> Option<u32> {
        if !is_proc_of(here.pid) {
            return None;
        }
        let ids = std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        ids.filter_map(|name| name.parse().ok()).find(|id: &u32| {
            let name = id.to_string();
            // To see another user's namespaces takes privileges; its ids, and when it started, anybody may see.
            let is_of = namespace(&name, "pid").is_none_or(|found| found == of);
            let innermost = || {
                let status = std::fs::read_to_string(format!("/proc/{name}/status")).ok()?;
                let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace();
                let ids: Vec<u32> = ids.filter_map(|id| id.parse().ok()).collect();
                (ids.len() > 1).then(|| ids.last().copied()).flatten()
            };
            is_of
                && innermost() == Some(self.pid)
                && Seen::of(&name).is_some_and(|seen| !seen.has_ended && self.started_with(here, &seen))
        })
    }
}

/// A process as `/proc` shows it.
struct Seen {
    has_ended: bool,
    start: u64,
}

impl Seen {
    fn of(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // Behind the name, which may hold anything: the state, and as the 20th from there the start.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let has_ended = matches!(fields.next()?, "Z" | "X" | "x");
        Some(Self { has_ended, start: fields.nth(18)?.parse().ok()? })
    }
}

/// The number of a namespace of a process.
fn namespace(process: &str, kind: &str) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/{process}/ns/{kind}")).ok()?;
    link.to_str()?.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

/// Whether the ids in `/proc` are those of this process's namespace; it may have been mounted in another.
fn is_proc_of(pid: u32) -> bool {
    std::fs::read_link("/proc/self").is_ok_and(|link| link.to_str() == Some(pid.to_string().as_str()))
}

/// Whether a process of this namespace has this id, if that is known.
fn is_there(pid: u32) -> Option<bool> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    match test_kill_process(pid) {
        Ok(()) | Err(rustix::io::Errno::PERM) => Some(true),
        Err(rustix::io::Errno::SRCH) => Some(false),
        Err(_) => None,
    }
}

const KEYS: [&str; 4] = ["start", "boot", "pid-namespace", "time-namespace"];

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    fn record(change: impl FnOnce(&mut Record)) -> Record {
        let mut record = Record::of_this_process();
        change(&mut record);
        record
    }

    #[test]
    fn a_text_is_read_back_and_a_part_of_one_is_still_ours() {
        let record = Record::of_this_process();
        assert!(record.start.is_some() && record.boot.is_some() && record.pid_namespace.is_some(), "{record:?}");
        let text = record.to_string();
        assert_eq!(LockText::parse(text.as_bytes()), LockText::Ours(record));
        for end in 0..text.len() {
            let mut part = text.as_bytes()[..end].to_vec();
            assert_ne!(LockText::parse(&part), LockText::Foreign, "{}", &text[..end]);
            part.resize(text.len(), 0);
            assert_ne!(LockText::parse(&part), LockText::Foreign, "{} and zeros", &text[..end]);
        }
        assert_eq!(LockText::parse(b"4711\n"), LockText::Ours(Record { pid: 4711, ..Record::default() }));
        assert_eq!((LockText::parse(b""), LockText::parse(&[0; 9])), (LockText::Empty, LockText::Empty));
        for other in [&b"host:4711"[..], b"\xff\xff", b"4711\nhost x", b"-1", b"4711\nstartled 3", b"4711 /usr/bin/x"] {
            assert_eq!(LockText::parse(other), LockText::Foreign, "{other:?}");
        }
    }

    #[test]
    fn a_holder_is_named_only_if_it_is_the_process_that_runs_under_this_id() {
        let here = Record::of_this_process();
        let parent = std::os::unix::process::parent_id();
        let of_parent = |change: fn(&mut Record)| {
            record(|record| {
                record.pid = parent;
                record.start = Some(Seen::of(&parent.to_string()).unwrap().start);
                change(record);
            })
        };
        assert_eq!(here.holder(), Holder::ThisProcess);
        assert_eq!(of_parent(|_| ()).holder(), Holder::Process { pid: parent });
        // Its id was given to another process.
        assert_eq!(of_parent(|record| record.start = Some(1)).holder(), Holder::Survivor { of: parent });
        assert_eq!(record(|record| record.start = Some(1)).holder(), Holder::Survivor { of: here.pid });
        let gone = i32::MAX.unsigned_abs();
        assert_eq!(record(|record| record.pid = gone).holder(), Holder::Survivor { of: gone });
        // The same id elsewhere is another process.
        assert_eq!(record(|record| record.pid_namespace = Some(7)).holder(), Holder::Elsewhere { pid: here.pid });
        assert_eq!(record(|record| record.boot = Some("x".into())).holder(), Holder::Elsewhere { pid: here.pid });
        // Earlier releases write the id alone.
        let alone = |pid| Record { pid, ..Record::default() };
        assert_eq!(alone(here.pid).holder(), Holder::Named { pid: here.pid });
        assert_eq!(alone(gone).holder(), Holder::Survivor { of: gone });
    }
}
