//! A node's home: where its identity, its peers file, its control socket and its store are; and `init`, which makes one.
//!
//! What must hold: a home is nobody's but its owner's; `init` never replaces anything, and what it made survives a crash.
#![forbid(unsafe_code)]

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use super::{Answer, Failure, print};
use crate::node::{
    FileIdentity, Identity as _, IdentityError, PeersFileError, Random as _, StaticRegistry, SystemRandom,
};
use crate::peer::NodeId;
use crate::time::WallMillis;

/// The places in a home.
#[derive(Clone, Debug)]
pub(super) struct Home {
    path: PathBuf,
}

impl Home {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    pub(super) fn control(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    pub(super) fn peers_file(&self) -> PathBuf {
        self.path.join("peers.toml")
    }

    fn identity_file(&self) -> PathBuf {
        self.path.join("identity.key")
    }

    /// The node that lives here.
    pub(super) fn identity(&self) -> Result<FileIdentity, Failure> {
        FileIdentity::load(self.identity_file()).map_err(|error| match &error {
            IdentityError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Failure::hint(error, format_args!("make one with `trustkeep init --home {}`", self.path.display()))
            }
            _ => Failure::new(error),
        })
    }

    /// Who lives here, if this is a home.
    pub(super) fn resident(&self) -> Result<Option<NodeId>, Failure> {
        match FileIdentity::load(self.identity_file()) {
            Ok(identity) => Ok(Some(identity.node_id())),
            Err(IdentityError::Io { source, .. })
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(error) => Err(Failure::hint(error, "whose store lies beside it must be known first")),
        }
    }

    /// Gives it a new key.
    pub(super) fn rekey(&self, at: WallMillis) -> Result<FileIdentity, Failure> {
        FileIdentity::rekey(self.identity_file(), at, &SystemRandom).map_err(Failure::new)
    }

    /// The peers that it knows.
    pub(super) fn registry(&self) -> Result<StaticRegistry, Failure> {
        StaticRegistry::read(self.peers_file()).map_err(|error| match error {
            PeersFileError::Bad { .. } => Failure::hint(error, "correct that line; nothing of the file was used"),
            _ => Failure::hint(error, "an empty file will do"),
        })
    }

    /// Makes the home with a new identity.
    pub(super) fn create(&self, id: NodeId) -> Result<FileIdentity, Failure> {
        let fail = |error: io::Error| Failure::new(format_args!("{}: {error}", self.path.display()));
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // An empty directory becomes ours alone. What else is in use already, for whatever, stays as it is:
                // the files that matter have modes of their own.
                if self.path.read_dir().map_err(fail)?.next().is_none() {
                    std::fs::set_permissions(&self.path, Permissions::from_mode(0o700)).map_err(fail)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::hint(fail(error), "the directory that it shall be in must exist"));
            }
            Err(error) => return Err(fail(error)),
        }
        // The identity comes last: without it this is no home yet, and `init` may be called again.
        self.create_peers_file()
            .map_err(|error| Failure::new(format_args!("{}: {error}", self.peers_file().display())))?;
        let identity = FileIdentity::create(self.identity_file(), id, &SystemRandom).map_err(Failure::new)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .and_then(rustix::fs::fsync)
            .map_err(|error| fail(error.into()))?;
        Ok(identity)
    }

    fn create_peers_file(&self) -> io::Result<()> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.peers_file()) {
            Ok(mut file) => file.write_all(PEERS_FILE.as_bytes()).and_then(|()| file.sync_all()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[derive(Serialize)]
struct Made {
    node_id: u32,
    public_key: String,
    fingerprint: String,
    home: String,
}

/// Makes a home and says which key to give to others.
pub(super) fn init(home: &Path, id: Option<NodeId>, json: bool) -> Result<Answer, Failure> {
    let id = match id {
        Some(id) => id,
        None => random_id()?,
    };
    let identity = Home::new(home).create(id)?;
    let key = identity.public_key();
    let made = Made {
        node_id: id.get(),
        public_key: key.to_base64(),
        fingerprint: key.fingerprint().to_string(),
        home: home.display().to_string(),
    };
    if json {
        print::json(&made)?;
        return Ok(Answer::Yes);
    }
    let Made { node_id, public_key, fingerprint, home } = made;
    print::to_stdout(|out| {
        writeln!(out, "node         {node_id}\nhome         {home}")?;
        writeln!(out, "public key   {public_key}\nfingerprint  {fingerprint}")
    })?;
    Ok(Answer::Yes)
}

fn random_id() -> Result<NodeId, Failure> {
    loop {
        let mut bytes = [0; 4];
        SystemRandom.fill(&mut bytes).map_err(|error| Failure::new(format_args!("no random bytes: {error}")))?;
        if let Some(id) = NodeId::new(u32::from_le_bytes(bytes)) {
            return Ok(id);
        }
    }
}

const PEERS_FILE: &str = r#"# The nodes that this node knows: where they listen, and under which keys. Read when the node starts.
#
# [[peer]]
# id = 9
# address = "192.0.2.9:4440"
# public_key = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc="   # without it, nothing vouches for the peer's key
# networks = []                                                # members of a common network trust each other unasked
"#;
