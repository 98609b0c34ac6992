//! Giving a node a new key: the old one names it as its successor and is destroyed.
//!
//! INVARIANT: whenever a crash comes, what loads from `path` afterwards is either the old identity with what it had, or the
//! new one with the old key's statement; and the next load ends what the crash began. The old secret is overwritten only
//! when the new identity stands durably under `path`.
//!
//! Each statement has a name made of the key that it is for, so that one for a key that never came to be is nobody's.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::identity::{FILE_BYTES, FileIdentity, Identity as _, IdentityError, decode, encode};
use super::identity_file;
use super::random::Random;
use crate::peer::{NodeId, PublicKey};
use crate::time::WallMillis;
use crate::wire::rotation::Rotation;

/// What a step has done, durably: what a crash may come behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// The statement lies beside the identity.
    Statement,
    /// The new identity lies there under a temporary name.
    NewIdentity,
    /// The old identity has a second name.
    SecondName,
    /// The new identity has taken the place of the old one.
    Switch,
    /// The old secret was overwritten.
    Overwritten,
    /// It has no name any more.
    Unlinked,
}

/// Gives the identity at `path` a new key, named by its old one.
pub(super) fn rekey(path: &Path, at: WallMillis, random: &dyn Random) -> Result<FileIdentity, IdentityError> {
    rekey_until(path, at, random, &mut |_| Ok(()))
}

/// The same; `go_on` is asked behind each step, and what it answers with ends everything there, as a crash would.
fn rekey_until(
    path: &Path,
    at: WallMillis,
    random: &dyn Random,
    go_on: &mut dyn FnMut(Done) -> Result<(), IdentityError>,
) -> Result<FileIdentity, IdentityError> {
    let old = FileIdentity::load(path)?;
    remove_statements(path, &old.public_key())?;
    let mut seed = Zeroizing::new([0; 32]);
    let mut digits = [0; 8];
    let drawn = random.fill(seed.as_mut()).and_then(|()| random.fill(&mut digits));
    drawn.map_err(|source| IdentityError::io("random bytes", path, source))?;
    let new = FileIdentity::from_seed(old.node_id(), &seed)?;
    let (old_key, new_key) = (old.public_key(), new.public_key());
    let rotation = Rotation::sign(old.node_id(), old_key, new_key, at, |bytes| old.sign(bytes));
    let rotation = rotation.map_err(|_| IdentityError::Seed)?;

    identity_file::write_new(&statement_path(path, &new_key), &encode_statement(&rotation), random)?;
    go_on(Done::Statement)?;
    let temporary = with_suffix(path, &format!(".{:016x}.tmp", u64::from_le_bytes(digits)));
    identity_file::write_new(&temporary, encode(old.node_id(), &seed).as_slice(), random)?;
    go_on(Done::NewIdentity)?;
    let condemned = with_suffix(path, CONDEMNED);
    std::fs::hard_link(path, &condemned).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => IdentityError::Exists { path: condemned.clone() },
        _ => IdentityError::io("link", &condemned, source),
    })?;
    identity_file::sync_directory_of(path)?;
    go_on(Done::SecondName)?;
    let renamed = rustix::fs::renameat(CWD, &temporary, CWD, path);
    renamed.map_err(|error| IdentityError::io("rename", path, error.into()))?;
    identity_file::sync_directory_of(path)?;
    go_on(Done::Switch)?;
    overwrite(&condemned)?;
    go_on(Done::Overwritten)?;
    unlink(&condemned)?;
    identity_file::sync_directory_of(path)?;
    go_on(Done::Unlinked)?;
    remove_statements(path, &new_key)?;
    Ok(new.with_rotation(Some(rotation)))
}

/// Ends what a crash left of replacing a key. `identity` is what lies at `path` now, with its statement. What cannot be
/// done is told in the log.
pub(super) fn finish(path: &Path, identity: &FileIdentity) {
    if let Err(error) = try_finish(path, identity) {
        tracing::warn!(%error, "an old key that was replaced could not be destroyed");
    }
}

fn try_finish(path: &Path, identity: &FileIdentity) -> Result<(), IdentityError> {
    let condemned = with_suffix(path, CONDEMNED);
    let io = |operation, at: &Path, source| IdentityError::io(operation, at, source);
    let left = match std::fs::symlink_metadata(&condemned) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|source| io("stat", &condemned, source))?,
    };
    let current = std::fs::symlink_metadata(path).map_err(|source| io("stat", path, source))?;
    let ours = left.is_file() && left.uid() == rustix::process::geteuid().as_raw() && left.len() == FILE_BYTES as u64;
    if !ours {
        return Err(IdentityError::NotAFile { path: condemned });
    }
    if (left.dev(), left.ino()) != (current.dev(), current.ino()) {
        // The crash came behind the switch: then this is the key that signed for the one in use, or what is left of it.
        let mut bytes = Zeroizing::new([0; FILE_BYTES]);
        let file = open(&condemned, false);
        file.and_then(|mut file| file.read_exact(bytes.as_mut())).map_err(|source| io("read", &condemned, source))?;
        let named_by = identity.rotation().map(|rotation| *rotation.old_key());
        if decode(&bytes).is_ok_and(|left| Some(left.public_key()) != named_by) {
            return Err(IdentityError::Exists { path: condemned });
        }
        overwrite(&condemned)?;
    }
    unlink(&condemned)?;
    identity_file::sync_directory_of(path)
}

/// The statement by which the key before it named this key, if there is one beside the identity file.
pub(super) fn read_statement(path: &Path, id: NodeId, key: &PublicKey) -> Result<Option<Rotation>, IdentityError> {
    let path = statement_path(path, key);
    let mut file = match open(&path, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| IdentityError::io("open", &path, source))?,
    };
    let damaged = |reason: &str| IdentityError::Damaged { path: path.clone(), reason: reason.to_owned() };
    let metadata = file.metadata().map_err(|source| IdentityError::io("stat", &path, source))?;
    if !metadata.is_file() {
        return Err(IdentityError::NotAFile { path });
    }
    if metadata.len() != STATEMENT_BYTES as u64 {
        return Err(damaged("of another length than a statement of an old key has"));
    }
    let mut bytes = [0; STATEMENT_BYTES];
    file.read_exact(&mut bytes).map_err(|source| IdentityError::io("read", &path, source))?;
    decode_statement(&bytes, id, key).map(Some).map_err(damaged)
}

/// `docs/format.md` fixes these bytes.
fn encode_statement(rotation: &Rotation) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(STATEMENT_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(rotation.node_id().get().to_le_bytes());
    bytes.extend(rotation.old_key().as_bytes());
    bytes.extend(rotation.new_key().as_bytes());
    bytes.extend(rotation.at().as_millis().to_le_bytes());
    bytes.extend(rotation.signature());
    let sum = crc32fast::hash(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

fn decode_statement(bytes: &[u8; STATEMENT_BYTES], id: NodeId, key: &PublicKey) -> Result<Rotation, &'static str> {
    const SHORT: &str = "too short";
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(SHORT)?;
    let (magic, rest) = body.split_first_chunk::<8>().ok_or(SHORT)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let (node, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let (old, rest) = rest.split_first_chunk::<32>().ok_or(SHORT)?;
    let (new, rest) = rest.split_first_chunk::<32>().ok_or(SHORT)?;
    let (at, rest) = rest.split_first_chunk::<8>().ok_or(SHORT)?;
    let signature: &[u8; 64] = rest.try_into().map_err(|_| SHORT)?;
    if *magic != MAGIC {
        return Err("no statement of an old key");
    }
    if u32::from_le_bytes(*version) != VERSION {
        return Err("of another format version than this release reads");
    }
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return Err("the checksum does not hold");
    }
    if u32::from_le_bytes(*node) != id.get() || new != key.as_bytes() {
        return Err("of another node or another key");
    }
    let at = WallMillis::new(i64::from_le_bytes(*at));
    Rotation::check(id, *old, *key, at, *signature).map_err(|_| "the old key did not sign it")
}

fn statement_path(path: &Path, key: &PublicKey) -> PathBuf {
    let [a, b, c, d, e, f, g, h, ..] = *key.as_bytes();
    with_suffix(path, &format!(".{:016x}{STATEMENT}", u64::from_be_bytes([a, b, c, d, e, f, g, h])))
}

/// Removes the statements of every other key than this: they are of no use any more, or never were.
fn remove_statements(path: &Path, but: &PublicKey) -> Result<(), IdentityError> {
    let (own, keep) = (path.file_name().unwrap_or_default(), statement_path(path, but));
    let parent = identity_file::parent_of(path);
    let io = |source| IdentityError::io("list", parent, source);
    for entry in parent.read_dir().map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let digits = name.as_bytes().strip_prefix(own.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
        let digits = digits.and_then(|rest| rest.strip_suffix(STATEMENT.as_bytes()));
        if digits.is_some_and(identity_file::are_digits) && keep.file_name() != Some(name.as_os_str()) {
            unlink(&parent.join(name))?;
        }
    }
    identity_file::sync_directory_of(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn open(path: &Path, write: bool) -> io::Result<File> {
    let flags = i32::try_from((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits()).unwrap_or(0);
    OpenOptions::new().read(!write).write(write).custom_flags(flags).open(path)
}

/// Writes zeros over a whole identity file, durably. A file system that copies on writing, and a disk that spreads its
/// wear, may keep the bytes all the same.
fn overwrite(path: &Path) -> Result<(), IdentityError> {
    let written = open(path, true).and_then(|mut file| {
        file.write_all(&[0; FILE_BYTES])?;
        file.sync_all()
    });
    match written {
        // Another process that loaded the identity has done it.
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(IdentityError::io("overwrite", path, source)),
        _ => Ok(()),
    }
}

fn unlink(path: &Path) -> Result<(), IdentityError> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
        Err(error) if error != Errno::NOENT => Err(IdentityError::io("remove", path, error.into())),
        _ => Ok(()),
    }
}

/// What the second name of an identity file ends with whose key has been replaced.
const CONDEMNED: &str = ".replaced";
/// What the name of a statement ends with, behind 16 digits of the key that it is for.
const STATEMENT: &str = ".rotation";
const MAGIC: [u8; 8] = *b"TKROTAT\n";
const VERSION: u32 = 1;
const STATEMENT_BYTES: usize = MAGIC.len() + 4 + 4 + 32 + 32 + 8 + 64 + 4;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::node::SystemRandom;

    fn seven() -> NodeId {
        NodeId::new(7).unwrap()
    }

    fn at(ms: i64) -> WallMillis {
        WallMillis::new(ms)
    }

    fn names(directory: &Path) -> BTreeSet<String> {
        directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Whether any file there has these bytes in it.
    fn is_anywhere(directory: &Path, secret: &[u8]) -> bool {
        names(directory).iter().any(|name| {
            let bytes = std::fs::read(directory.join(name)).unwrap();
            bytes.windows(secret.len()).any(|part| part == secret)
        })
    }

    fn seed_at(path: &Path) -> Vec<u8> {
        std::fs::read(path).unwrap()[16..48].to_vec()
    }

    fn put(path: &Path, bytes: &[u8]) {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .unwrap()
            .write_all(bytes)
            .unwrap();
    }

    #[test]
    fn a_new_key_comes_with_the_word_of_the_old_one_which_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        let first = FileIdentity::create(&path, seven(), &SystemRandom).unwrap();
        assert_eq!(FileIdentity::load(&path).unwrap().rotation(), None);
        let mut before = first.public_key();
        for round in 0..3 {
            let (secret, old_file) = (seed_at(&path), open(&path, false).unwrap());
            let new = FileIdentity::rekey(&path, at(5 + round), &SystemRandom).unwrap();
            let loaded = FileIdentity::load(&path).unwrap();
            assert_eq!((loaded.node_id(), loaded.public_key()), (seven(), new.public_key()));
            let rotation = loaded.rotation().unwrap();
            assert_eq!((rotation, *rotation.old_key()), (new.rotation().unwrap(), before));
            assert_eq!((*rotation.new_key(), rotation.at()), (new.public_key(), at(5 + round)));
            // Nor under a descriptor that somebody still has: it was overwritten, and not unlinked alone.
            let mut bytes = Vec::new();
            { old_file }.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, [0; FILE_BYTES]);
            assert!(!is_anywhere(dir.path(), &secret));
            assert_eq!(names(dir.path()).len(), 2, "the identity and its statement");
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
            before = new.public_key();
        }
    }

    #[test]
    fn a_crash_behind_any_step_leaves_one_identity_whole_and_the_next_load_ends_it() {
        let steps =
            [Done::Statement, Done::NewIdentity, Done::SecondName, Done::Switch, Done::Overwritten, Done::Unlinked];
        for torn in [0, 1, 20, 51] {
            for last in steps {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("identity.key");
                FileIdentity::create(&path, seven(), &SystemRandom).unwrap();
                // Not the first change of its key: the statement about the old key must survive with it.
                let old = FileIdentity::rekey(&path, at(1), &SystemRandom).unwrap();
                let secret = seed_at(&path);
                let mut seen = Vec::new();
                let outcome = rekey_until(&path, at(2), &SystemRandom, &mut |done| {
                    seen.push(done);
                    if done == last { Err(IdentityError::Seed) } else { Ok(()) }
                });
                assert!(outcome.is_err() && seen.last() == Some(&last));
                if last == Done::Switch && torn > 0 {
                    // The crash came while the old secret was being overwritten.
                    let condemned = with_suffix(&path, CONDEMNED);
                    let mut bytes = std::fs::read(&condemned).unwrap();
                    bytes[..torn].fill(0);
                    put(&condemned, &bytes);
                }
                let loaded = FileIdentity::load(&path).unwrap();
                if seen.contains(&Done::Switch) {
                    assert_ne!(loaded.public_key(), old.public_key());
                    assert_eq!(*loaded.rotation().unwrap().old_key(), old.public_key());
                    assert!(!is_anywhere(dir.path(), &secret[8..]), "{last:?}: the old secret is still there");
                } else {
                    assert_eq!((loaded.public_key(), loaded.rotation()), (old.public_key(), old.rotation()));
                }
                let left = names(dir.path());
                let others = left.iter().filter(|name| *name != "identity.key" && !name.ends_with(STATEMENT)).count();
                assert_eq!(others, 0, "{last:?}: {left:?}");
                // And it can be done again.
                let next = FileIdentity::rekey(&path, at(3), &SystemRandom).unwrap();
                assert_eq!(*next.rotation().unwrap().old_key(), loaded.public_key());
                assert_eq!(names(dir.path()).len(), 2);
            }
        }
    }

    #[test]
    fn nothing_but_the_replaced_key_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        FileIdentity::create(&path, seven(), &SystemRandom).unwrap();
        FileIdentity::rekey(&path, at(1), &SystemRandom).unwrap();
        // Another identity, a file of another length and a link stay as they are.
        let condemned = with_suffix(&path, CONDEMNED);
        let other = encode(seven(), &[0x77; 32]);
        for bytes in [other.as_slice(), b"mine"] {
            put(&condemned, bytes);
            FileIdentity::load(&path).unwrap();
            assert_eq!(std::fs::read(&condemned).unwrap(), bytes);
            let refused = FileIdentity::rekey(&path, at(2), &SystemRandom);
            assert!(matches!(refused, Err(IdentityError::Exists { path }) if path == condemned));
            unlink(&condemned).unwrap();
        }
        let target = dir.path().join("target");
        put(&target, other.as_slice());
        std::os::unix::fs::symlink(&target, &condemned).unwrap();
        FileIdentity::load(&path).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), other.as_slice());
    }

    #[test]
    fn a_statement_that_is_damaged_or_of_another_key_is_no_statement() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        FileIdentity::create(&path, seven(), &SystemRandom).unwrap();
        let identity = FileIdentity::rekey(&path, at(1), &SystemRandom).unwrap();
        let statement = statement_path(&path, &identity.public_key());
        let good = std::fs::read(&statement).unwrap();
        assert_eq!(good.len(), STATEMENT_BYTES);
        let bytes: [u8; STATEMENT_BYTES] = good.clone().try_into().unwrap();
        for bit in 0..STATEMENT_BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_statement(&bad, seven(), &identity.public_key()).is_err(), "bit {bit}");
        }
        assert!(decode_statement(&bytes, NodeId::new(8).unwrap(), &identity.public_key()).is_err());
        for bad in [&good[1..], &[&good[..], b"x"].concat(), b""] {
            put(&statement, bad);
            let error = FileIdentity::load(&path).unwrap_err();
            assert!(matches!(&error, IdentityError::Damaged { path, .. } if *path == statement), "{error}");
        }
        unlink(&statement).unwrap();
        assert_eq!(FileIdentity::load(&path).unwrap().rotation(), None, "it goes on without");
    }

    #[test]
    fn the_statement_file_has_the_bytes_of_the_format_document() {
        let of = |seed: u8| FileIdentity::from_seed(seven(), &[seed; 32]).unwrap();
        let (old, new) = (of(0x11), of(0x22));
        let (from, to) = (old.public_key(), new.public_key());
        let rotation = Rotation::sign(seven(), from, to, at(1_772_532_000_123), |bytes| old.sign(bytes)).unwrap();
        let bytes = encode_statement(&rotation);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let document = include_str!("../../docs/format.md");
        let section = document.split("## `identity.key.<16 hex digits>.rotation`:").nth(1).unwrap();
        let written: String = section
            .lines()
            .filter(|line| line.starts_with("00") && line.contains(": "))
            .filter_map(|line| line.split_once(": "))
            .flat_map(|(_, hex)| hex.chars().filter(char::is_ascii_hexdigit))
            .collect();
        assert_eq!(hex, written);
        assert_eq!(statement_path(Path::new("identity.key"), &to), Path::new("identity.key.a09aa5f47a675980.rotation"));
    }
}
