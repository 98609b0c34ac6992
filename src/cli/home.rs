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

use super::control::socket::{PATH_BYTES_MAX, is_short};
use super::permissions::Finding;
use super::{Answer, Failure, complain, owner, peers, permissions, print};
use crate::node::{
    FileIdentity, Identity as _, IdentityError, Listed, PeersFileError, Random as _, StaticRegistry, SystemRandom,
};
use crate::peer::{NodeId, PublicKey};
use crate::persist::file::sync_directory;
use crate::time::WallMillis;

/// The places in a home.
#[derive(Clone, Debug)]
pub(super) struct Home {
    path: PathBuf,
    /// Where its control socket is, if not in it.
    control: Option<PathBuf>,
    /// Who may read its identity besides its user.
    key_group: Option<u32>,
}

impl Home {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), control: None, key_group: None }
    }

    /// With the control socket elsewhere.
    pub(super) fn with_control(path: &Path, control: Option<&Path>) -> Self {
        Self { control: control.map(Path::to_owned), ..Self::new(path) }
    }

    /// With an identity that this group may read.
    pub(super) fn with_key_group(self, key_group: Option<u32>) -> Self {
        Self { key_group, ..self }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn store(&self) -> PathBuf {
        owner::real(&self.path.join("store"))
    }

    pub(super) fn control(&self) -> PathBuf {
        self.control.clone().unwrap_or_else(|| self.path.join("control.sock"))
    }

    /// Whether this file is, or would be, in the home.
    pub(super) fn holds(&self, file: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().ok();
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match (real(&self.path), real(parent)) {
            (Some(home), Some(parent)) => parent.starts_with(home),
            _ => false,
        }
    }

    /// Whether its control socket is elsewhere.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.control.is_some()
    }

    /// No node runs here: what to do about that.
    pub(super) fn not_running(&self) -> Failure {
        let (path, shell) = (self.path.display(), print::shell(&self.path));
        if self.identity_file().symlink_metadata().is_ok() {
            return Failure::hint(
                format_args!("no node runs in {path}"),
                format_args!(
                    "start it with `trustkeep node --home {shell}`, or see `trustkeep inspect --home {shell}`"
                ),
            );
        }
        if self.path.join("GENESIS").exists() || self.path.join("LOCK").exists() {
            let home = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return Failure::hint(
                format_args!("{path} is a store, and no home"),
                format_args!("see `trustkeep inspect --dir {shell}`; the home is perhaps {}", print::shell(home)),
            );
        }
        if self.path.is_file() {
            return self.is_a_file();
        }
        Failure::hint(
            format_args!("{path} is no home: it has no identity.key"),
            format_args!("make one with `trustkeep init --home {shell}`"),
        )
    }

    pub(super) fn peers_file(&self) -> PathBuf {
        self.path.join("peers.toml")
    }

    fn identity_file(&self) -> PathBuf {
        self.path.join("identity.key")
    }

    /// The node that lives here.
    pub(super) fn identity(&self) -> Result<FileIdentity, Failure> {
        self.load_identity().map_err(|error| match &error {
            IdentityError::Io { source, .. } if is_missing(source) => self.missing_identity(error),
            IdentityError::LooseMode { mode, .. } if mode & 0o037 == 0 => {
                Failure::hint(error, "of a mounted secret, name the group that may read it with `--key-group`")
            }
            _ => Failure::new(error),
        })
    }

    /// The node that lives here, if its key is in a file of our own, which can be replaced.
    pub(super) fn own_identity(&self) -> Result<FileIdentity, Failure> {
        FileIdentity::load(self.identity_file()).map_err(|error| match &error {
            IdentityError::NotAFile { .. } | IdentityError::OtherOwner { .. } | IdentityError::LooseMode { .. } => {
                Failure::hint(
                    error,
                    "only a file of the node's own is given a new key here; of a mounted secret, use `rekey` where it is a \
                     file of its own, and mount the new one",
                )
            }
            IdentityError::Io { source, .. } if is_missing(source) => self.missing_identity(error),
            _ => Failure::new(error),
        })
    }

    fn missing_identity(&self, error: IdentityError) -> Failure {
        if self.path.is_file() {
            return self.is_a_file();
        }
        Failure::hint(error, format_args!("make one with `trustkeep init --home {}`", print::shell(&self.path)))
    }

    /// A file of our own as it must be; a link to one, one of root's, or one that a group may read as a secret that was
    /// mounted, if nobody else can put another in its place.
    fn load_identity(&self) -> Result<FileIdentity, IdentityError> {
        let file = self.identity_file();
        let refused = match FileIdentity::load(&file) {
            Err(
                error @ (IdentityError::NotAFile { .. }
                | IdentityError::OtherOwner { uid: 0, .. }
                | IdentityError::LooseMode { .. }),
            ) => error,
            loaded => return loaded,
        };
        let is_link = file.symlink_metadata().is_ok_and(|found| found.is_symlink());
        if matches!(refused, IdentityError::NotAFile { .. }) && !is_link
            || permissions::find(&file, self.key_group).is_err()
        {
            return Err(refused);
        }
        FileIdentity::load_mounted(&file, self.key_group)
    }

    /// Who lives here, if this is a home.
    pub(super) fn resident(&self) -> Result<Option<(NodeId, PublicKey)>, Failure> {
        match self.load_identity() {
            Ok(identity) => Ok(Some((identity.node_id(), identity.public_key()))),
            Err(IdentityError::Io { source, .. })
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(error @ IdentityError::LooseMode { mode, .. }) if mode & 0o037 == 0 => {
                Err(Failure::hint(error, "of a mounted secret, name the group that may read it with `--key-group`"))
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
            _ if self.path.is_file() => self.is_a_file(),
            _ if !self.path.is_dir() => {
                let home = print::shell(&self.path);
                Failure::hint(
                    format_args!("{}: no such home", self.path.display()),
                    format_args!("make one with `trustkeep init --home {home}`"),
                )
            }
            _ => Failure::hint(error, "an empty file will do"),
        })
    }

    fn is_a_file(&self) -> Failure {
        Failure::hint(
            format_args!("{} is a file, and no home", self.path.display()),
            "name a directory; `trustkeep init` makes one",
        )
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
                    // Of another user's directory nothing changes, not even the mode.
                    if let Err(finding) = permissions::find(&self.path, None)
                        && finding.is_within(&self.path)
                        && !finding.is_of_mode()
                    {
                        return Err(nothing_was_made(finding));
                    }
                    std::fs::set_permissions(&self.path, Permissions::from_mode(0o700)).map_err(fail)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::hint(fail(error), "the directory that it shall be in must exist"));
            }
            Err(error) => return Err(fail(error)),
        }
        self.is_nobody_elses()?;
        // The identity comes last: without it this is no home yet, and `init` may be called again.
        self.create_peers_file()
            .map_err(|error| Failure::new(format_args!("{}: {error}", self.peers_file().display())))?;
        let identity = FileIdentity::create(self.identity_file(), id, &SystemRandom).map_err(Failure::new)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .and_then(sync_directory)
            .map_err(|error| fail(error.into()))?;
        Ok(identity)
    }

    /// What is there already may be another user's, who would decide whom the node trusts.
    fn is_nobody_elses(&self) -> Result<(), Failure> {
        for path in [self.path.clone(), self.peers_file(), self.path.join("store")] {
            let Err(finding) = permissions::find(&path, None) else { continue };
            if finding.is_within(&self.path) {
                return Err(nothing_was_made(finding));
            }
            let remedy = finding.remedy();
            complain(format_args!("{finding}; a node does not start here until that is seen to: {remedy}"));
            break;
        }
        Ok(())
    }

    fn create_peers_file(&self) -> io::Result<()> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.peers_file()) {
            Ok(mut file) => file.write_all(PEERS_FILE.as_bytes()).and_then(|()| file.sync_all()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn nothing_was_made(finding: Finding) -> Failure {
    let remedy = finding.remedy();
    Failure::hint(finding, format_args!("nothing was made. Take another directory, or {remedy}"))
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
    let made_home = Home::new(home);
    let identity = made_home.create(id)?;
    let socket = made_home.control();
    if !is_short(&socket) {
        complain(format_args!(
            "the path of the control socket will be {} bytes long, and a socket's address holds {PATH_BYTES_MAX}: other \
             programs cannot connect to it, nor this one where there is no /proc; a shorter one can be named with `--control`",
            socket.as_os_str().len()
        ));
    }
    let store = made_home.store();
    if store.join("GENESIS").exists() {
        let store = store.display();
        complain(format_args!(
            "{store} is there already: the new node takes it as its own, with all whom it trusts. If that is not meant, move it \
             away before the node is started"
        ));
    }
    print_made(&Made::of(home, &identity), json)?;
    Ok(Answer::Yes)
}

impl Made {
    fn of(home: &Path, identity: &FileIdentity) -> Self {
        let key = identity.public_key();
        Self {
            node_id: identity.node_id().get(),
            public_key: key.to_base64(),
            fingerprint: key.fingerprint().to_string(),
            home: home.display().to_string(),
        }
    }
}

fn print_made(made: &Made, json: bool) -> Result<(), Failure> {
    if json {
        return print::json(made);
    }
    let Made { node_id, public_key, fingerprint, home } = made;
    print::to_stdout(|out| {
        writeln!(out, "node         {node_id}\nhome         {home}")?;
        writeln!(out, "public key   {public_key}\nfingerprint  {fingerprint}")
    })
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

/// What others put into their peers files to know the node that lives here; or who it is.
pub(super) fn id(
    home: &Path,
    key_group: Option<u32>,
    stanza: bool,
    address: Option<String>,
    json: bool,
) -> Result<Answer, Failure> {
    let identity = Home::new(home).with_key_group(key_group).identity()?;
    let (id, key) = (identity.node_id(), identity.public_key());
    if stanza {
        let listed = Listed { addresses: address.into_iter().collect(), key: Some(key), networks: Vec::new() };
        print::to_stdout(|out| write!(out, "{}", peers::stanza(id, &listed)))?;
        return Ok(Answer::Printed);
    }
    print_made(&Made::of(home, &identity), json)?;
    Ok(Answer::Printed)
}

const PEERS_FILE: &str = r#"# The nodes that this node knows: where they listen, and under which keys.
#
# `trustkeep peer add`, `peer list` and `peer remove` change this file, and a running node takes that up at once; a change by
# hand within some seconds. On the other side, `trustkeep id --stanza` prints the lines to paste here. All of it is described in docs/peers.md, and in `trustkeep-peers(5)`.
#
# [[peer]]
# id = 9
# address = "192.0.2.9:4440"    # or a host name and a port; without it, the peer can ask, and cannot be asked
# public_key = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc="   # without it, nothing vouches for the peer's key
# networks = [3]                # trusted unasked, but only by a node that was started with `--own-network 3`
"#;
