//! Where a control socket lies, how it comes to be, and who is behind a connection to it.
//!
//! What must hold: nobody but the socket's user, root and the group that was named can connect at any moment; a socket that
//! another process serves is never taken away.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::fs::{Gid, Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::cli::Failure;

/// Where a node makes its control socket, and whom it lets in besides its own user and root.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// A group whose members are served, too.
    pub(crate) group: Option<u32>,
}

/// A socket that listens, and which file it is.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) listener: UnixListener,
    file: (u64, u64),
}

/// What stands at the path of a control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Ours.
    Ours,
    /// Nothing.
    Nothing,
    /// Something else, or it cannot be seen.
    Other,
}

impl Place {
    /// Makes the socket. One that is there already and that no process serves is replaced.
    pub(super) fn bind(&self) -> Result<Listening, Failure> {
        let path = &self.path;
        let fail = |error: io::Error| Failure::new(format_args!("{}: {error}", path.display()));
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                match connect(path, PROBE_WITHIN) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(fail(error)),
                    _ => {
                        return Err(Failure::hint(
                            format_args!("{}: another process serves this socket", path.display()),
                            "stop it first, or name another path with `--control`",
                        ));
                    }
                }
                remove(path).map_err(fail)?;
            }
            Ok(_) => {
                return Err(Failure::hint(
                    format_args!("{}: not a socket", path.display()),
                    "move it away; the node makes its control socket there",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        self.make().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => Failure::hint(fail(error), "choose a shorter path with `--control`"),
            io::ErrorKind::NotFound => Failure::hint(fail(error), "the directory that it shall be in must exist"),
            _ => fail(error),
        })
    }

    /// Makes the socket where nothing stands.
    pub(super) fn make(&self) -> io::Result<Listening> {
        let (_directory, short) = reach(&self.path)?;
        // There is no moment at which somebody else could connect: the mask applies as the socket is made. Whatever
        // other threads create meanwhile has no more than these rights anyway.
        let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = UnixListener::bind(short);
        rustix::process::umask(before);
        let listener = bound?;
        listener.set_nonblocking(true)?;
        if let Some(group) = self.group {
            let opened = rustix::fs::chown(&self.path, None, Some(Gid::from_raw(group)))
                .map_err(io::Error::from)
                .and_then(|()| std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o660)));
            if let Err(error) = opened {
                let _ = remove(&self.path);
                return Err(io::Error::new(error.kind(), format!("it cannot be opened to group {group}: {error}")));
            }
        }
        let found = std::fs::symlink_metadata(&self.path)?;
        Ok(Listening { listener, file: (found.dev(), found.ino()) })
    }

    /// Whether the socket is still at its path.
    pub(super) fn standing(&self, socket: &Listening) -> Standing {
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == socket.file => Standing::Ours,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Standing::Nothing,
            _ => Standing::Other,
        }
    }

    /// Removes the socket, if it is still ours.
    pub(super) fn remove(&self, socket: &Listening) -> io::Result<()> {
        if self.standing(socket) == Standing::Ours { remove(&self.path) } else { Ok(()) }
    }
}

#[expect(clippy::disallowed_methods, reason = "a socket is no file of a store")]
fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// Connects, and waits no longer than this for a process that does not accept. Writing waits no longer, either.
pub(super) fn connect(path: &Path, within: Duration) -> io::Result<UnixStream> {
    let (_directory, short) = reach(path)?;
    let address = SocketAddrUnix::new(short)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(within))?;
    rustix::net::connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

/// The same socket by a path that fits into an address, and what must stay open for it.
fn reach(path: &Path) -> io::Result<(Option<OwnedFd>, PathBuf)> {
    use std::os::fd::AsRawFd as _;

    if is_short(path) {
        return Ok((None, path.to_owned()));
    }
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a socket");
    let name = path.file_name().filter(|name| name.len() < 64).ok_or_else(too_long)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()));
    if !through.is_dir() {
        return Err(too_long());
    }
    Ok((Some(directory), through.join(name)))
}

/// Whether an address can hold this path.
pub(crate) fn is_short(path: &Path) -> bool {
    path.as_os_str().as_bytes().len() <= PATH_BYTES_MAX
}

/// The user of the process at the other end. The process itself may be in another PID namespace, where it has no number
/// that means anything here.
pub(super) fn user_of(stream: &UnixStream) -> io::Result<u32> {
    Ok(getsockopt(stream, PeerCredentials)?.uid())
}

/// The process at the other end, by its number in our PID namespace; `None` if it has none there.
pub(super) fn process_of(stream: &UnixStream) -> Option<u32> {
    u32::try_from(getsockopt(stream, PeerCredentials).ok()?.pid()).ok().filter(|pid| *pid > 0)
}

/// The process at the other end, if the system says that it does not run: it was stopped by a signal, or a debugger holds it.
pub(super) fn stopped_process(stream: &UnixStream) -> Option<u32> {
    let pid = process_of(stream)?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may have anything in it.
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    matches!(state, 'T' | 't').then_some(pid)
}

/// What `sun_path` holds on every system that we know, without the zero at its end.
pub(crate) const PATH_BYTES_MAX: usize = 103;
/// Who serves a socket accepts at once.
const PROBE_WITHIN: Duration = Duration::from_secs(1);
