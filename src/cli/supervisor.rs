//! What a supervisor is told that asked for it, as systemd does with `Type=notify`.
//!
//! What must hold: nothing here waits for the supervisor, and a node runs on whatever becomes of it.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The node can be reached.
pub(super) fn is_ready() {
    tell(b"READY=1\n");
}

/// It was told to stop, and does so.
pub(super) fn is_stopping() {
    tell(b"STOPPING=1\n");
}

fn tell(state: &[u8]) {
    let Some(to) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&to, state) {
        tracing::warn!(socket = %to.display(), %error, "the supervisor (NOTIFY_SOCKET) could not be told");
    }
}

fn send(to: &OsStr, state: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state, &address(to)?).map(drop)
}

/// A path, or behind `@` a name that is in no directory.
fn address(to: &OsStr) -> io::Result<SocketAddr> {
    match to.as_encoded_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        #[cfg(not(target_os = "linux"))]
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
        None => SocketAddr::from_pathname(to),
    }
}
