//! Who this node is: its id and its Ed25519 key, and the file `identity.key` that holds them.
//!
//! The secret seed never leaves this module: it is not printed, not serialized but into the file, and is wiped from
//! memory when dropped. The file is made once, exclusively, and is refused when others than its owner may read it.
//! `docs/format.md` fixes its bytes.
//!
//! More than 450 lines because each way to take a file stands beside the reasons to refuse it.
#![forbid(unsafe_code)]

use core::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use super::random::Random;
use super::{identity_file, rekey};
use crate::foreign;
use crate::peer::{NodeId, PublicKey};
use crate::time::WallMillis;
use crate::wire::rotation::Rotation;

/// A node's own id and key pair.
pub trait Identity: Send + Sync {
    /// Our id. Asked once, when a node starts, as the key.
    fn node_id(&self) -> NodeId;

    /// Our public key. A node whose key is to be another is started anew.
    fn public_key(&self) -> PublicKey;

    /// The Ed25519 signature of `message` under our key. Called on threads that send; a panic loses that message.
    fn sign(&self, message: &[u8]) -> [u8; 64];

    /// The statement by which the key before this one named it as its successor; our messages carry it. None for a first
    /// key.
    fn rotation(&self) -> Option<Rotation> {
        None
    }
}

/// An identity whose secret seed lives in memory, and usually in a file.
pub struct FileIdentity {
    node_id: NodeId,
    public_key: PublicKey,
    rotation: Option<Rotation>,
    // Wipes itself when dropped.
    key: SigningKey,
}

impl FileIdentity {
    /// The identity with this id and secret seed, in memory only.
    ///
    /// # Errors
    /// [`IdentityError::Seed`], for a seed under whose key anybody could sign (none is known).
    pub fn from_seed(node_id: NodeId, seed: &[u8; 32]) -> Result<Self, IdentityError> {
        let key = SigningKey::from_bytes(seed);
        let public_key = PublicKey::from_bytes(key.verifying_key().to_bytes()).map_err(|_| IdentityError::Seed)?;
        Ok(Self { node_id, public_key, rotation: None, key })
    }

    /// A new identity with a random key, saved at `path`, readable by its owner alone.
    ///
    /// # Durability
    /// Once this returns, the file survives power loss. A crash meanwhile leaves either the whole file or none. Where the
    /// system has no files without a name, it can leave a temporary that holds the secret (`docs/format.md`).
    ///
    /// # Errors
    /// [`IdentityError::Exists`] if there is anything at `path`, which is not touched; [`IdentityError::Io`].
    pub fn create(path: impl AsRef<Path>, node_id: NodeId, random: &dyn Random) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let mut seed = Zeroizing::new([0; 32]);
        random.fill(seed.as_mut()).map_err(|source| IdentityError::io("random bytes", path, source))?;
        let identity = Self::from_seed(node_id, &seed)?;
        match identity_file::write_new(path, encode(node_id, &seed).as_slice(), random) {
            Ok(()) => identity_file::remove_leftovers(path),
            Err(error) => {
                if let IdentityError::Exists { .. } = error {
                    // What a crash left beside a good one goes now.
                    let _ = Self::load(path);
                }
                return Err(error);
            }
        }
        Ok(identity)
    }

    /// The identity saved at `path`, with the statement of the key before it if there is one. Removes what a crash of
    /// [`create`](Self::create) or [`rekey`](Self::rekey) left beside it.
    ///
    /// # Errors
    /// Each names the file and what to do. A file that anybody but its owner may open, a symbolic link, or one with a
    /// flipped bit is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        Self::load_with(path.as_ref(), None)
    }

    /// As [`load`](Self::load), of a file that its user did not make, as a secret that is mounted: symbolic links are
    /// followed, root may own it, and this group may read it. Whoever may change what the links lead through is not looked
    /// at. Removes nothing.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_mounted(path: impl AsRef<Path>, group: Option<u32>) -> Result<Self, IdentityError> {
        Self::load_with(path.as_ref(), Some(Mounted { group }))
    }

    fn load_with(path: &Path, mounted: Option<Mounted>) -> Result<Self, IdentityError> {
        let mut flags = rustix::fs::OFlags::NONBLOCK;
        if mounted.is_none() {
            flags |= rustix::fs::OFlags::NOFOLLOW;
        }
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|source| {
            match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::LOOP) => IdentityError::NotAFile { path: path.to_owned() },
                _ => IdentityError::io("open", path, source),
            }
        })?;
        let metadata = file.metadata().map_err(|source| IdentityError::io("stat", path, source))?;
        if !metadata.is_file() {
            return Err(IdentityError::NotAFile { path: path.to_owned() });
        }
        let mode = metadata.mode() & 0o7777;
        let is_readers = mounted.is_some_and(|mounted| mounted.group == Some(metadata.gid()));
        if mode & if is_readers { 0o037 } else { 0o077 } != 0 {
            return Err(IdentityError::LooseMode { path: path.to_owned(), mode });
        }
        let is_owners =
            metadata.uid() == rustix::process::geteuid().as_raw() || (mounted.is_some() && metadata.uid() == 0);
        if !is_owners {
            return Err(IdentityError::OtherOwner { path: path.to_owned(), uid: metadata.uid() });
        }
        if metadata.len() != FILE_BYTES as u64 {
            let reason = format!("{} bytes long instead of {FILE_BYTES}", metadata.len());
            return Err(IdentityError::Damaged { path: path.to_owned(), reason });
        }
        let mut bytes = Zeroizing::new([0; FILE_BYTES]);
        file.read_exact(bytes.as_mut()).map_err(|source| IdentityError::io("read", path, source))?;
        let identity = decode(&bytes).map_err(|reason| IdentityError::Damaged { path: path.to_owned(), reason })?;
        if mounted.is_none() {
            identity_file::remove_leftovers(path);
        }
        let rotation = rekey::read_statement(path, identity.node_id, &identity.public_key)?;
        let identity = identity.with_rotation(rotation);
        if mounted.is_none() {
            rekey::finish(path, &identity);
        }
        Ok(identity)
    }

    /// Gives the identity saved at `path` a new key. The old key signs that the new one is its successor, which the new
    /// identity has to show from then on ([`Identity::rotation`]), and is destroyed. `at` is the time that the statement
    /// names.
    ///
    /// No node may run with this identity meanwhile: it would go on with the old key.
    ///
    /// # Durability
    /// A crash leaves either the old identity or the new one with its statement; the next [`load`](Self::load) ends what
    /// was begun. The old secret is overwritten and its file removed; copies made elsewhere are not.
    ///
    /// # Errors
    /// As [`load`](Self::load); [`IdentityError::Exists`] names a file that is in the way; [`IdentityError::Io`].
    pub fn rekey(path: impl AsRef<Path>, at: WallMillis, random: &dyn Random) -> Result<Self, IdentityError> {
        rekey::rekey(path.as_ref(), at, random)
    }

    pub(super) fn with_rotation(self, rotation: Option<Rotation>) -> Self {
        Self { rotation, ..self }
    }
}

impl Identity for FileIdentity {
    fn node_id(&self) -> NodeId {
        self.node_id
    }

    fn public_key(&self) -> PublicKey {
        self.public_key
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    fn rotation(&self) -> Option<Rotation> {
        self.rotation
    }
}

impl fmt::Debug for FileIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileIdentity")
            .field("node_id", &self.node_id)
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

/// How a file is taken that its user did not make.
#[derive(Clone, Copy)]
struct Mounted {
    /// Who may read it besides.
    group: Option<u32>,
}

/// Why there is no identity.
#[derive(Debug)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is something at the path already. An identity is never overwritten: move it away if it is not wanted.
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A symbolic link, a directory or a device.
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Others than the owner may open the file: the key may be known to them.
    LooseMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// The owner.
        uid: u32,
    },
    /// The bytes are not those of an identity file. Restore it from a copy.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The seed makes a key under which anybody could sign.
    Seed,
    /// The operating system refused an operation.
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl IdentityError {
    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists { path } => {
                write!(f, "{}: exists already; an identity is never overwritten, move it away first", path.display())
            }
            Self::NotAFile { path } => write!(f, "{}: not a regular file", path.display()),
            Self::LooseMode { path, mode } => write!(
                f,
                "{0}: mode {mode:04o} lets others open the secret key; if nobody did, chmod 600 {0}",
                path.display()
            ),
            Self::OtherOwner { path, uid } => write!(f, "{}: belongs to user {uid}, not to us", path.display()),
            Self::Damaged { path, reason } => {
                write!(f, "{}: damaged: {reason}; restore the file from a copy", path.display())
            }
            Self::Seed => f.write_str("the seed makes a weak key"),
            Self::Io { operation, path, source } => {
                write!(f, "{}: {operation}: {}", path.display(), foreign::shown(source))
            }
        }
    }
}

impl core::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

pub(super) fn encode(node_id: NodeId, seed: &[u8; 32]) -> Zeroizing<[u8; FILE_BYTES]> {
    let mut bytes = Zeroizing::new([0; FILE_BYTES]);
    let head = MAGIC.into_iter().chain(VERSION.to_le_bytes()).chain(node_id.get().to_le_bytes());
    for (to, from) in bytes.iter_mut().zip(head.chain(seed.iter().copied())) {
        *to = from;
    }
    let (body, sum) = bytes.split_at_mut(BODY_BYTES);
    sum.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    bytes
}

pub(super) fn decode(bytes: &[u8; FILE_BYTES]) -> Result<FileIdentity, String> {
    let (body, sum) = bytes.split_at(BODY_BYTES);
    let (magic, rest) = body.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err("not an identity file".to_owned());
    }
    let (Some((version, rest)), Ok(sum)) = (rest.split_first_chunk::<4>(), <[u8; 4]>::try_from(sum)) else {
        return Err("too short".to_owned());
    };
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(format!("format version {version}, where this release reads {VERSION}"));
    }
    if crc32fast::hash(body) != u32::from_le_bytes(sum) {
        return Err("the checksum does not hold".to_owned());
    }
    let Some((id, Ok(seed))) = rest.split_first_chunk::<4>().map(|(id, seed)| (id, <&[u8; 32]>::try_from(seed))) else {
        return Err("too short".to_owned());
    };
    let id = NodeId::new(u32::from_le_bytes(*id)).ok_or("node id 0")?;
    FileIdentity::from_seed(id, seed).map_err(|error| error.to_string())
}

const MAGIC: [u8; 8] = *b"TKIDENT\n";
const VERSION: u32 = 1;
const BODY_BYTES: usize = MAGIC.len() + 4 + 4 + 32;
pub(super) const FILE_BYTES: usize = BODY_BYTES + 4;

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::node::SystemRandom;

    fn seven() -> NodeId {
        NodeId::new(7).unwrap()
    }

    fn put(path: &Path, bytes: &[u8], mode: u32) {
        let _ = std::fs::remove_dir_all(path.with_extension("none"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_mounted_secret_may_be_a_link_and_readable_by_a_group() {
        use std::os::unix::fs::{chown, symlink};

        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.key"), dir.path().join("identity.key"));
        let made = FileIdentity::create(&real, seven(), &SystemRandom).unwrap();
        symlink("real.key", &link).unwrap();
        assert!(matches!(FileIdentity::load(&link), Err(IdentityError::NotAFile { .. })));
        assert_eq!(FileIdentity::load_mounted(&link, None).unwrap().public_key(), made.public_key());
        let group = std::fs::metadata(&real).unwrap().gid();
        for (mode, of_nobody, of_group) in [
            (0o400, true, true),
            (0o440, false, true),
            (0o460, false, false),
            (0o450, false, false),
            (0o444, false, false),
        ] {
            std::fs::set_permissions(&real, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(FileIdentity::load_mounted(&link, None).is_ok(), of_nobody, "{mode:o}");
            assert_eq!(FileIdentity::load_mounted(&link, Some(group)).is_ok(), of_group, "{mode:o}");
            assert_eq!(FileIdentity::load_mounted(&link, Some(group + 1)).is_ok(), of_nobody, "{mode:o}");
            assert_eq!(FileIdentity::load(&real).is_ok(), of_nobody, "{mode:o}");
        }
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o400)).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&real, Some(12_345), None).unwrap();
            assert!(matches!(
                FileIdentity::load_mounted(&link, None),
                Err(IdentityError::OtherOwner { uid: 12_345, .. })
            ));
        }
    }

    #[test]
    fn what_was_created_loads_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        let made = FileIdentity::create(&path, seven(), &SystemRandom).unwrap();
        let loaded = FileIdentity::load(&path).unwrap();
        assert_eq!((loaded.node_id(), loaded.public_key()), (made.node_id(), made.public_key()));
        assert_eq!(loaded.sign(b"x"), made.sign(b"x"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let bytes = std::fs::read(&path).unwrap();
        assert!(matches!(FileIdentity::create(&path, seven(), &SystemRandom), Err(IdentityError::Exists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        // Nothing else is left behind, least of all another copy of a secret.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_bytes_are_those_of_the_format_document() {
        let bytes = encode(seven(), &[0x11; 32]);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let document = include_str!("../../docs/format.md");
        let section = document.split("## `identity.key`:").nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let written: String = section
            .lines()
            .filter(|line| line.starts_with("00") && line.contains(": "))
            .filter_map(|line| line.split_once(": "))
            .flat_map(|(_, hex)| hex.chars().filter(char::is_ascii_hexdigit))
            .collect();
        assert_eq!(hex, written);
        let back = decode(&bytes).unwrap();
        assert_eq!(back.public_key().to_base64(), "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=");
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        let good = encode(seven(), &[0x11; 32]);
        put(&path, good.as_slice(), 0o600);
        FileIdentity::load(&path).unwrap();
        for bit in 0..FILE_BYTES * 8 {
            let mut bad = *good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        put(&path, &[b'x'; FILE_BYTES], 0o600);
        let foreign = FileIdentity::load(&path).unwrap_err().to_string();
        assert!(foreign.contains("not an identity file"), "{foreign}");
        for len in (0..FILE_BYTES).chain([FILE_BYTES + 1]) {
            put(&path, &[good.as_slice(), b"x"].concat()[..len], 0o600);
            assert!(matches!(FileIdentity::load(&path), Err(IdentityError::Damaged { .. })), "length {len}");
        }
    }

    #[test]
    fn loose_modes_links_and_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        for mode in [0o640, 0o604, 0o620, 0o610] {
            put(&path, encode(seven(), &[0x11; 32]).as_slice(), mode);
            assert!(matches!(FileIdentity::load(&path), Err(IdentityError::LooseMode { .. })), "{mode:o}");
        }
        put(&path, encode(seven(), &[0x11; 32]).as_slice(), 0o400);
        FileIdentity::load(&path).unwrap();
        let link = dir.path().join("link.key");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(FileIdentity::load(&link), Err(IdentityError::NotAFile { .. })));
        assert!(matches!(FileIdentity::load(dir.path()), Err(IdentityError::NotAFile { .. })));
        let dangling = dir.path().join("dangling.key");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &dangling).unwrap();
        assert!(matches!(FileIdentity::create(&dangling, seven(), &SystemRandom), Err(IdentityError::Exists { .. })));
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn an_identity_of_another_owner_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: a file cannot be given to another owner, and nothing is tested");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        put(&path, encode(seven(), &[0x11; 32]).as_slice(), 0o600);
        let owned_by = |uid: u32| std::os::unix::fs::chown(&path, Some(uid), None).unwrap();
        for uid in [1, 12_345] {
            owned_by(uid);
            let error = FileIdentity::load(&path).unwrap_err();
            assert!(matches!(error, IdentityError::OtherOwner { uid: theirs, .. } if theirs == uid), "{error}");
            assert!(error.to_string().contains(&uid.to_string()), "{error}");
        }
        owned_by(0);
        FileIdentity::load(&path).unwrap();
    }

    #[test]
    fn debug_shows_no_secret() {
        let identity = FileIdentity::from_seed(seven(), &[0x11; 32]).unwrap();
        let text = format!("{identity:?}");
        assert!(text.contains("NodeId(7)") && !text.contains("17, 17") && !text.contains("1111"), "{text}");
    }
}
