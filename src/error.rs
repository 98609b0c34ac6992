//! Public errors, grouped by who must act.
//!
//! [`OpenError`]: an operator, for the store cannot start. [`PersistError`]: whoever waits for durability, for memory is
//! ahead of the disk. [`WriteError`]: the caller, who gets the value back. What the rules of the handshake refuse is
//! ordinary data and lives with them, as [`Rejection`](crate::machine::rejection::Rejection).
#![forbid(unsafe_code)]

use core::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::peer::Revocation;

/// Why a store did not open. Nothing was changed, except where a variant says so.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no store here, and creating one was not asked for ([`Options::create`](crate::Options::create)); or the parent
    /// directory is missing, which is never created.
    Missing {
        /// What is missing.
        path: PathBuf,
        /// It is the directory that the store's was to be made in. Make it first.
        is_parent: bool,
    },
    /// The path, or something in it, is not what a store consists of (a file, a symbolic link, somebody else's
    /// directory). Choose another directory.
    Foreign {
        /// The path.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// Another process, or another store of this process, owns the directory. Close that store first. A lock goes with the
    /// last process that has it.
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who owns it, as far as that can be found out.
        holder: Holder,
    },
    /// A file is damaged. Restore it from a copy, or choose another `RecoverPolicy`, knowing what it may bring back.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first byte that cannot be trusted, counted from the start of the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The disk does not give back a part of a file. Nothing is known of what it holds, so no `RecoverPolicy` gives it up. See
    /// to the disk, or restore the file from a copy.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The first byte that cannot be read, counted from the start of the file.
        offset: u64,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file was written by a newer release; it is not touched. Use that release.
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The file's format version.
        found: u32,
        /// The newest version that this release reads.
        supported: u32,
    },
    /// A file belongs to another store. Move it away.
    OtherStore {
        /// The file.
        path: PathBuf,
    },
    /// The directory is marked as a store, but its data is gone. Restore it from a copy; a store that loses its data
    /// is never silently begun anew.
    DataMissing {
        /// The directory.
        path: PathBuf,
    },
    /// A limit of the options is beyond what can be kept. Nothing was touched; choose another.
    Limit {
        /// Its name, as a field of [`Limits`](crate::config::Limits).
        name: &'static str,
        /// What was asked for.
        value: usize,
        /// What it may be.
        allowed: core::ops::RangeInclusive<usize>,
    },
    /// The operating system refused an operation.
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// The first state could not be made durable.
    Persist(PersistError),
}

/// Who owns a directory, as far as its lock file and the system tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// This process, through another store.
    ThisProcess,
    /// A process that runs.
    Process {
        /// Its id, as this process sees it.
        pid: u32,
    },
    /// A process of another PID namespace, which this process cannot see.
    Elsewhere {
        /// Its id there, which may be another process's here.
        pid: u32,
    },
    /// A process that the lock file names. The system does not tell whether it runs, or in which PID namespace.
    Named {
        /// Its id, as that process saw it.
        pid: u32,
    },
    /// The process that opened the store has ended. A process that it started still has the lock, or another program has.
    Survivor {
        /// The id of the process that has ended, as that process saw it.
        of: u32,
    },
    /// The lock file does not tell: it was removed or replaced, or another program locked the directory.
    Unknown,
}

impl Holder {
    /// The id by which this process can reach the holder.
    #[must_use]
    pub fn pid(self) -> Option<u32> {
        match self {
            Self::ThisProcess => Some(std::process::id()),
            Self::Process { pid } => Some(pid),
            _ => None,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThisProcess => f.write_str("this process itself"),
            Self::Process { pid } => write!(f, "process {pid}"),
            Self::Elsewhere { pid } => {
                write!(f, "process {pid} of another PID namespace (a container, say), which cannot be seen from here")
            }
            Self::Named { pid } => write!(f, "process {pid}, as its lock file says, perhaps of another PID namespace"),
            Self::Survivor { of } => write!(
                f,
                "a process that process {of} started, or another program; {of} itself has ended. `lslocks` or `fuser` on the \
                 directory finds it"
            ),
            Self::Unknown => f.write_str(
                "a process that its lock file does not name: the lock file was removed or replaced, or another program \
                 locks the directory. `lslocks` or `fuser` on the directory finds it",
            ),
        }
    }
}

impl OpenError {
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { operation, path: path.into(), source }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path, is_parent: false } => write!(f, "{}: no such store", path.display()),
            Self::Missing { path, is_parent: true } => write!(
                f,
                "{}: no such directory; the directory that a store shall be in must exist, so make it first",
                path.display()
            ),
            Self::Foreign { path, found } => write!(f, "{}: not a trust store: {found}", path.display()),
            Self::InUse { path, holder } => write!(f, "{}: the store is in use by {holder}", path.display()),
            Self::Damaged { path, offset, reason } => write!(
                f,
                "{}: damaged at byte {offset}: {reason}; restore the file from a copy, or open with a recover policy \
                 that accepts the loss",
                path.display()
            ),
            Self::Unreadable { path, offset, source } => write!(
                f,
                "{}: cannot be read at byte {offset}: {source}; see to the disk, or restore the file from a copy",
                path.display()
            ),
            Self::NewerFormat { path, found, supported } => write!(
                f,
                "{}: format version {found} is newer than {supported}, the newest this release reads; use a newer \
                 release",
                path.display()
            ),
            Self::OtherStore { path } => {
                write!(f, "{}: belongs to another store; move it out of this directory", path.display())
            }
            Self::DataMissing { path } => write!(
                f,
                "{}: marked as a store, but its data files are gone; restore them from a copy",
                path.display()
            ),
            Self::Limit { name, value, allowed } => {
                write!(f, "the limit {name} is {value}; it must be from {} to {}", allowed.start(), allowed.end())
            }
            Self::Io { operation, path, source } => write!(f, "{}: {operation}: {source}", path.display()),
            Self::Persist(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Unreadable { source, .. } => Some(source),
            Self::Persist(error) => error.source(),
            _ => None,
        }
    }
}

/// Why something published is not durable (yet). Memory keeps it; unless the store is gone, it is tried again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PersistError {
    /// A file operation failed. It is retried with back-off, from fresh files, until it works.
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// The directory, its lock or a file in it is not as this store left it: another process renamed, replaced, covered or
    /// removed it. Nothing is acknowledged, and no file is written or removed while this lasts. Saving goes on once
    /// everything is as it was; after a lost lock it does not.
    Displaced {
        /// What is not as it was.
        path: PathBuf,
        /// What was found there.
        found: Displacement,
    },
    /// The store was opened by the process that this one was forked from. Only that process changes and saves it. Open
    /// stores after forking.
    Forked,
    /// The time allowed ran out first.
    TimedOut {
        /// The failure that stood in the way, if the disk and not merely the time was the reason.
        cause: Option<Box<PersistError>>,
    },
    /// The store was dropped before this could be saved.
    Abandoned,
    /// The keeper thread panicked: a defect of this crate (or of a test double). Reads and writes go on in memory.
    KeeperPanicked,
    /// The thread that writes a snapshot panicked, as above. No change is at risk: the journals hold everything.
    SnapshotPanicked,
    /// The call came from inside the closure of `update`, where waiting would never end.
    Reentrant,
}

impl PersistError {
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { operation, path: path.into(), source: Arc::new(source) }
    }
}

/// What an owner finds where it left a directory or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Displacement {
    /// Nothing: it was renamed or removed.
    Gone,
    /// Another directory or file: it was replaced, or something is mounted over it.
    Replaced,
    /// A file of another length: another process wrote to it.
    Resized,
    /// A file under a name that only this owner gives to files.
    Taken,
}

impl fmt::Display for Displacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "is not there any more",
            Self::Replaced => "is not the one that this store opened",
            Self::Resized => "was cut or extended by another process",
            Self::Taken => "was made by another process",
        })
    }
}

impl fmt::Display for PersistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { operation, path, source } => write!(f, "{}: {operation}: {source}", path.display()),
            Self::Displaced { path, found } => write!(
                f,
                "{} {found}; nothing is saved: stop the process that changes the directory, put everything back as it \
                 was, or restart",
                path.display()
            ),
            Self::Forked => f.write_str(
                "this process was forked from the one that opened the store; only that one can change it: open stores \
                 after forking",
            ),
            Self::TimedOut { cause: Some(cause) } => write!(f, "not durable in the time allowed: {cause}"),
            Self::TimedOut { cause: None } => f.write_str("not durable in the time allowed"),
            Self::Abandoned => f.write_str("the store was dropped before this was saved"),
            Self::KeeperPanicked => f.write_str("the thread that saves the store panicked; nothing is saved any more"),
            Self::SnapshotPanicked => {
                f.write_str("the thread that writes a snapshot panicked; nothing is lost by that")
            }
            Self::Reentrant => f.write_str("called from inside update, where waiting would never end"),
        }
    }
}

impl core::error::Error for PersistError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source.as_ref()),
            Self::TimedOut { cause: Some(cause) } => Some(cause.as_ref()),
            _ => None,
        }
    }
}

/// Why a change was not made; hands back what was to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError<T> {
    /// The store was closed.
    Closed(T),
    /// A table is at its limit; nothing changed. Revoke something, or open with higher limits.
    Full(T),
    /// The call came from inside the closure of `update`; change things through its argument instead.
    Reentrant(T),
    /// The store was opened by the process that this one was forked from. Only that process can change it. Open stores
    /// after forking.
    Forked(T),
    /// The peer, or the key, is marked as revoked; nothing changed. Look at the revocation
    /// ([`TrustStore::revoked`](crate::TrustStore::revoked)), and lift it by its id or forget it.
    Revoked {
        /// What was to be changed.
        value: T,
        /// The revocation in force.
        mark: Revocation,
    },
}

/// Why [`TrustStore::try_update`](crate::TrustStore::try_update) changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpdateError<E> {
    /// The closure returned this.
    Refused(E),
    /// The store did not let the change in.
    Write(WriteError<()>),
}

impl<E> fmt::Display for UpdateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused(_) => "the change was given up where it was made",
            Self::Write(_) => "the store did not let the change in",
        })
    }
}

impl<E: core::error::Error + 'static> core::error::Error for UpdateError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Write(error) => Some(error),
        }
    }
}

impl<T> WriteError<T> {
    /// What was to be changed.
    pub fn into_inner(self) -> T {
        match self {
            Self::Closed(value)
            | Self::Full(value)
            | Self::Reentrant(value)
            | Self::Forked(value)
            | Self::Revoked { value, .. } => value,
        }
    }

    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> WriteError<U> {
        match self {
            Self::Closed(value) => WriteError::Closed(f(value)),
            Self::Full(value) => WriteError::Full(f(value)),
            Self::Reentrant(value) => WriteError::Reentrant(f(value)),
            Self::Forked(value) => WriteError::Forked(f(value)),
            Self::Revoked { value, mark } => WriteError::Revoked { value: f(value), mark },
        }
    }
}

impl<T> fmt::Display for WriteError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "the store is closed",
            Self::Full(_) => "the store is full; revoke something, or open it with higher limits",
            Self::Reentrant(_) => "called from inside update; change things through its argument instead",
            Self::Forked(_) => {
                "this process was forked from the one that opened the store; only that one can change it: open stores \
                 after forking"
            }
            Self::Revoked { mark, .. } => {
                return write!(f, "the peer or its key is revoked ({}); lift that revocation by its id", mark.id);
            }
        })
    }
}

impl<T: fmt::Debug> core::error::Error for WriteError<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_not_made_says_what_to_do() {
        assert!(WriteError::Full(()).to_string().contains("revoke something, or open it with higher limits"));
        assert!(WriteError::Reentrant(()).to_string().contains("change things through its argument"));
        assert_eq!(WriteError::Closed(()).to_string(), "the store is closed");
    }
}
