//! The peers file of a home: read again while a node runs, and changed by commands so that nothing else in it changes.
//!
//! More than 450 lines because what a file says, how it is changed and how a change is noticed stand in one place.
//!
//! What must hold: a change replaces the file in one piece and durably, or leaves it; every line that is not about the peer
//! stays as it is; a file that cannot be read whole is never half used.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use super::arguments::{AccessArguments, PeerAction, PeersFilePlace};
use super::control::{Ask, Reply, client};
use super::holder;
use super::home::Home;
use super::rows::{RegisteredRow, print_registered};
use super::screen::Screen;
use super::{Answer, Failure, now, permissions, print};
use crate::node::{
    Address, Identity as _, Listed, PeersFileError, Registry, RegistryEntry, RegistryError, StaticRegistry,
};
use crate::peer::{NodeId, PublicKey};
use crate::persist::file::sync_directory;
use crate::sync::{Arc, Condvar, Deadline, Mutex, spawn};
use crate::time::WallMillis;

/// The peers file of a running node, as a registry that can be read again.
#[derive(Debug)]
pub(crate) struct Peers {
    path: PathBuf,
    now: Mutex<Arc<StaticRegistry>>,
    changed: Condvar,
    /// Of what was read last. Held while it is read, so that nothing older takes the place of something newer.
    read: Mutex<Option<Stamp>>,
    /// A change by hand that was not taken up, for as long as it is so.
    refused: Mutex<Option<RefusedChange>>,
}

/// Why what stands in the peers file does not count.
#[derive(Clone, Debug)]
pub(crate) struct RefusedChange {
    pub(crate) path: PathBuf,
    pub(crate) at: WallMillis,
    pub(crate) error: String,
}

/// Tells one content of a file from another without reading it: a file that was written to, replaced, or given another mode
/// has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            file: (found.dev(), found.ino()),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl Peers {
    /// Reads the file.
    pub(super) fn new(home: &Home) -> Result<Self, Failure> {
        let path = home.peers_file();
        // Before it is read: what is written meanwhile is news.
        let stamp = Stamp::of(&path);
        let now = Mutex::new(Arc::new(home.registry()?));
        Ok(Self { path, now, changed: Condvar::new(), read: Mutex::new(stamp), refused: Mutex::new(None) })
    }

    /// The change by hand that was not taken up, while it stands in the file.
    pub(crate) fn refused(&self) -> Option<RefusedChange> {
        self.refused.lock().clone()
    }

    /// What counts now.
    pub(crate) fn now(&self) -> Arc<StaticRegistry> {
        Arc::clone(&self.now.lock())
    }

    /// Tells the log of what no file of a good network says.
    pub(crate) fn tell_oddities(&self, own_id: NodeId, own_key: &PublicKey) {
        let file = self.now();
        let mut seen: HashMap<PublicKey, NodeId> = HashMap::new();
        for id in file.ids() {
            let key = file.listed(id).and_then(|listed| listed.key);
            if id == own_id && key.is_some_and(|key| key != *own_key) {
                tracing::warn!(peer = %id, "the peers file lists this node itself, under another key");
            }
            if id != own_id && key == Some(*own_key) {
                tracing::warn!(peer = %id, "the peers file lists this node's own key for another peer");
            }
            if let Some(other) = key.and_then(|key| seen.insert(key, id)) {
                tracing::warn!(peer = %id, %other, "the peers file lists one key for two peers");
            }
        }
    }

    /// Reads the file again; says how many peers it lists. If it cannot be read whole, what was read before counts on.
    pub(crate) fn reload(&self) -> Result<usize, PeersFileError> {
        let mut last = self.read.lock();
        let stamp = Stamp::of(&self.path);
        // A pipe that nobody writes to would be waited for, for ever and by everybody who reads the file again.
        if std::fs::metadata(&self.path).is_ok_and(|found| !found.is_file()) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(PeersFileError::Io { path: self.path.clone(), source });
        }
        let read = StaticRegistry::read(&self.path)?;
        *last = stamp;
        let peers = read.len();
        let mut now = self.now.lock();
        read.inherit(&now);
        *now = Arc::new(read);
        drop(now);
        *self.refused.lock() = None;
        self.changed.notify_one();
        tracing::info!(peers, "the peers file was read again");
        Ok(peers)
    }

    /// Begins to look whether the file was changed by hand, and to take up what was. What somebody else may change is not
    /// taken up, unless `access` lets it.
    pub(super) fn keep_looking(self: &Arc<Self>, access: AccessArguments) -> io::Result<()> {
        let this = Arc::clone(self);
        spawn("trustkeep-peers", move || this.look_for_ever(access)).map(drop)
    }

    fn look_for_ever(&self, access: AccessArguments) {
        // Neither what is being written at this moment nor what was refused already.
        let (mut before, mut refused) = (*self.read.lock(), None);
        loop {
            pause();
            let stamp = Stamp::of(&self.path);
            let is_settled = core::mem::replace(&mut before, stamp) == stamp;
            if !is_settled {
                continue;
            }
            if *self.read.lock() == stamp {
                // Also where the file that counts was put back.
                *self.refused.lock() = None;
                refused = None;
                continue;
            }
            let found = permissions::find(&self.path, access.trusted_group).err();
            let found = found.filter(|_| !access.insecure_permissions);
            // Who else may change it can change without the file.
            let seen = Some((stamp, found.is_some()));
            if refused == seen {
                continue;
            }
            let taken = match found {
                Some(finding) => Err(format!("{finding}; {}", finding.remedy())),
                None => self.reload().map(drop).map_err(|error| error.to_string()),
            };
            refused = seen.filter(|_| taken.is_err());
            if let Err(error) = taken {
                tracing::warn!("the peers file was changed, and what was read before counts on: {error}");
                *self.refused.lock() = Some(RefusedChange { path: self.path.clone(), at: now().wall, error });
            }
        }
    }

    /// Begins to ask what the host names in the file stand for: now, at each change, and every now and then.
    pub(crate) fn keep_names(self: &Arc<Self>) -> io::Result<()> {
        let this = Arc::clone(self);
        spawn("trustkeep-names", move || this.resolve_for_ever()).map(drop)
    }

    fn resolve_for_ever(&self) {
        let mut told: Vec<String> = Vec::new();
        loop {
            let file = self.now();
            let (names, untold) = file.resolve();
            for (name, error) in &untold {
                if !told.contains(name) {
                    tracing::warn!(name, %error, "the host name of a peer cannot be told; it is asked for again");
                }
            }
            told = untold.into_iter().map(|(name, _)| name).collect();
            let again = if names == 0 { Deadline::NEVER } else { Deadline::after(NAMES_AGAIN) };
            let mut now = self.now.lock();
            while Arc::ptr_eq(&now, &file) {
                let (guard, late) = self.changed.wait_until(now, again);
                now = guard;
                if late {
                    break;
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a file that is changed by hand tells nobody")]
fn pause() {
    std::thread::sleep(LOOK_AGAIN);
}

impl Registry for Peers {
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        self.now().look_up(peer)
    }

    fn may_block(&self) -> bool {
        false
    }
}

/// Where a node listens, as the peers file takes it.
pub(super) fn address(text: &str) -> Result<String, String> {
    match Address::parse(text) {
        Some(Address::Number(address)) => Ok(address.to_string()),
        Some(Address::Name(name)) => Ok(name),
        None => Err("not an IP address or a host name, and a port".to_owned()),
    }
}

/// What stands in a peers file for this peer.
pub(super) fn stanza(id: NodeId, peer: &Listed) -> String {
    let mut text = format!("[[peer]]\nid = {id}\n");
    match peer.addresses.as_slice() {
        [] => {}
        [address] => text.push_str(&format!("address = \"{address}\"\n")),
        // None of them has anything in it that Rust and TOML would quote otherwise.
        addresses => text.push_str(&format!("address = {addresses:?}\n")),
    }
    if let Some(key) = &peer.key {
        text.push_str(&format!("public_key = \"{}\"\n", key.to_base64()));
    }
    if !peer.networks.is_empty() {
        text.push_str(&format!("networks = {:?}\n", peer.networks));
    }
    text
}

#[derive(Serialize)]
struct PeersListed {
    peers: Vec<RegisteredRow>,
}

#[derive(Serialize)]
struct PeersChanged {
    node_id: u32,
    /// Whether the file is another than before.
    changed: bool,
    /// How many peers it lists now.
    peers: usize,
    /// Whether a node runs here; it has taken the change up.
    running: bool,
}

/// Does what is asked about a peers file.
pub(super) fn peer(action: PeerAction) -> Result<Answer, Failure> {
    match action {
        PeerAction::List(of) => list(&of),
        PeerAction::Remove { of, peer } => change(&of, peer, &|file| {
            file.listed(peer).map(|_| None).ok_or_else(|| format!("peer {peer} is not in it"))
        }),
        PeerAction::Add { of, peer, addresses, key, networks, replace } => change(&of, peer, &|file| {
            let before = file.listed(peer);
            if before.is_some() && !replace {
                return Err(format!("peer {peer} is in it already; `--replace` changes what it says"));
            }
            let other = key.and_then(|key| file.ids().into_iter().find(|id| *id != peer && is_key(file, *id, &key)));
            if let Some(other) = other {
                return Err(format!("it lists this key for peer {other} already; one of the two must be wrong"));
            }
            let before = before.unwrap_or(Listed { addresses: Vec::new(), key: None, networks: Vec::new() });
            let mut in_order: Vec<String> = Vec::new();
            for address in &addresses {
                if !in_order.contains(address) {
                    in_order.push(address.clone());
                }
            }
            let mut distinct: Vec<u16> = Vec::new();
            for network in &networks {
                if !distinct.contains(network) {
                    distinct.push(*network);
                }
            }
            Ok(Some(Listed {
                addresses: if in_order.is_empty() { before.addresses } else { in_order },
                key: key.or(before.key),
                networks: if distinct.is_empty() { before.networks } else { distinct },
            }))
        }),
    }
}

fn is_key(file: &StaticRegistry, id: NodeId, key: &PublicKey) -> bool {
    file.listed(id).is_some_and(|listed| listed.key == Some(*key))
}

fn list(of: &PeersFilePlace) -> Result<Answer, Failure> {
    let home = Home::new(&of.home);
    let file = home.registry()?;
    let peers: Vec<RegisteredRow> = file.ids().into_iter().filter_map(|id| RegisteredRow::of(&file, id)).collect();
    if of.json {
        print::json(&PeersListed { peers })?;
    } else {
        print::to_stdout(|out| {
            if peers.is_empty() {
                return writeln!(out, "no peers in {}", home.peers_file().display());
            }
            print_registered(&mut Screen::new(out), &peers)
        })?;
    }
    Ok(Answer::Printed)
}

/// What a file shall say of a peer: nothing, or this; or why it cannot be changed so.
type Wanted<'a> = &'a dyn Fn(&StaticRegistry) -> Result<Option<Listed>, String>;

fn change(of: &PeersFilePlace, peer: NodeId, wanted: Wanted<'_>) -> Result<Answer, Failure> {
    let home = Home::with_control(&of.home, of.control.as_deref()).with_key_group(of.key_group);
    // Whoever may not read the identity may not decide whom its node believes.
    let own = home.identity()?;
    if own.node_id() == peer {
        return Err(Failure::new(format_args!("peer {peer} is the node itself")));
    }
    let path = home.peers_file();
    let fail = |error: io::Error| Failure::new(format_args!("{}: {error}", path.display()));
    // Behind a link, as of a mounted configuration, the file itself is changed.
    let real = path.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::hint(fail(error), format_args!("make an empty one: touch {}", print::shell(&path)))
        }
        _ => fail(error),
    })?;
    let file = locked(&real).map_err(fail)?;
    let before = home.registry()?;
    let refuse = |why: String| Failure::new(format_args!("{}: {why}", path.display()));
    let listed = wanted(&before).map_err(refuse)?;
    if listed.as_ref().and_then(|it| it.key).is_some_and(|key| key == own.public_key()) {
        return Err(refuse(format!("that key is the node's own, and not peer {peer}'s")));
    }
    let mut text = String::new();
    (&file).read_to_string(&mut text).map_err(fail)?;
    let by_hand = || {
        Failure::hint(refuse("this file is written in a way that no command can change".to_owned()), "edit it by hand")
    };
    let changed = edited(&text, peer, listed.as_ref());
    let after = StaticRegistry::parse(&changed).map_err(|_| by_hand())?;
    if !is_as_wanted(&before, &after, peer, listed.as_ref()) {
        return Err(by_hand());
    }
    if changed != text {
        replace(&real, &file, changed.as_bytes()).map_err(fail)?;
    }
    let running = match client::ask(&home, &Ask::ReloadPeers) {
        Ok(Reply::Peers { .. }) => true,
        Ok(_) => return Err(super::operator::unexpected()),
        // Nobody is there who could.
        Err(_) if holder::of(&home.store()).is_none() => false,
        Err(error) => {
            let what = format_args!("{} is changed, and the node did not take it up: {error}", path.display());
            return Err(Failure::hint(what, "start it again"));
        }
    };
    let told = PeersChanged { node_id: peer.get(), changed: changed != text, peers: after.len(), running };
    if of.json {
        print::json(&told)?;
    } else {
        print::to_stdout(|out| {
            let what = match (told.changed, listed.is_some()) {
                (false, _) => "was as wanted already",
                (true, true) => "is in it",
                (true, false) => "is no longer in it",
            };
            let node = if running {
                "the node has taken it up"
            } else {
                "no node runs here; it reads the file when it starts"
            };
            writeln!(out, "{}: peer {peer} {what}, of {} peers; {node}", path.display(), told.peers)
        })?;
    }
    Ok(Answer::Yes)
}

/// Whether nothing but this peer is another.
fn is_as_wanted(before: &StaticRegistry, after: &StaticRegistry, peer: NodeId, listed: Option<&Listed>) -> bool {
    let others = |file: &StaticRegistry| -> Vec<(NodeId, Option<Listed>)> {
        file.ids().into_iter().filter(|id| *id != peer).map(|id| (id, file.listed(id))).collect()
    };
    others(before) == others(after) && after.listed(peer).as_ref() == listed
}

/// The text with these lines for this peer, or none. What is not about it stays, comments among its lines too.
fn edited(text: &str, peer: NodeId, listed: Option<&Listed>) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_header = |line: &str| line.trim_start().starts_with('[') && line.contains("[[");
    let starts: Vec<usize> = (0..lines.len()).filter(|at| lines.get(*at).is_some_and(|line| is_header(line))).collect();
    let block = starts.iter().zip(1..).find_map(|(&start, next)| {
        let end = starts.get(next).copied().unwrap_or(lines.len());
        let block = lines.get(start..end)?;
        let file = StaticRegistry::parse(&block.concat()).ok()?;
        file.listed(peer).map(|_| (start, end))
    });
    let wanted = listed.map(|listed| stanza(peer, listed));
    let Some((start, end)) = block else {
        let Some(wanted) = wanted else { return text.to_owned() };
        let gap = match text {
            "" => "",
            text if text.ends_with("\n\n") => "",
            text if text.ends_with('\n') => "\n",
            _ => "\n\n",
        };
        return format!("{text}{gap}{wanted}");
    };
    let (head, block, tail) = (lines.get(..start), lines.get(start..end), lines.get(end..));
    let (head, block, tail) = (head.unwrap_or_default(), block.unwrap_or_default(), tail.unwrap_or_default());
    // Comments and empty lines are what is not the peer's.
    let is_kept = |line: &&&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let kept: String = block.iter().filter(is_kept).copied().collect();
    format!("{}{}{kept}{}", head.concat(), wanted.unwrap_or_default(), tail.concat())
}

/// The file, locked, so that of two changes at once neither is lost.
fn locked(path: &Path) -> io::Result<File> {
    loop {
        // A pipe that nobody writes to would be waited for.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        file.lock()?;
        // Another change may have replaced it meanwhile.
        let (held, named) = (file.metadata()?, std::fs::metadata(path)?);
        if (held.dev(), held.ino()) == (named.dev(), named.ino()) {
            return Ok(file);
        }
    }
}

/// Puts these bytes in the place of the file, with its mode and owner.
fn replace(path: &Path, old: &File, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = parent.join(name);
    let had = old.metadata()?;
    let made =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            if had.uid() != rustix::process::geteuid().as_raw() || had.gid() != rustix::process::getegid().as_raw() {
                std::os::unix::fs::fchown(&file, Some(had.uid()), Some(had.gid()))?;
            }
            file.set_permissions(std::fs::Permissions::from_mode(had.mode() & 0o7777))?;
            file.sync_all()
        });
    if let Err(error) = made.and_then(|()| Ok(rustix::fs::rename(&temporary, path)?)) {
        let _ = rustix::fs::unlink(&temporary);
        return Err(error);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(parent, flags, Mode::empty()).and_then(sync_directory)?)
}

/// How often the node looks whether the file was changed. It counts once it was the same twice.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often the system is asked again what a name stands for.
const NAMES_AGAIN: Duration = Duration::from_secs(30);

#[cfg(all(test, not(trustkeep_loom)))]
#[expect(clippy::unwrap_used, reason = "tests say what must hold by panicking")]
mod tests {
    use super::*;

    const KEY: &str = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";

    fn id(id: u32) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn listed(address: Option<&str>) -> Listed {
        Listed { addresses: address.map(str::to_owned).into_iter().collect(), key: None, networks: Vec::new() }
    }

    #[test]
    fn a_change_leaves_every_other_line_as_it_is() {
        let text = "# ours\n\n# the gate\n[[peer]]\nid = 9   # nine\n# moved\naddress = \"127.0.0.1:1\"\n\n\
            # north\n  [[ peer ]]\n  id = 10\n  networks = [\n    1,\n  ]\n";
        assert_eq!(edited("", id(9), Some(&listed(None))), "[[peer]]\nid = 9\n");
        assert_eq!(edited("#", id(9), Some(&listed(None))), "#\n\n[[peer]]\nid = 9\n");
        let added = edited(text, id(11), Some(&listed(Some("host:1"))));
        assert_eq!(added, format!("{text}\n[[peer]]\nid = 11\naddress = \"host:1\"\n"));
        assert_eq!(edited(&added, id(11), None), format!("{text}\n"));
        assert_eq!(edited(text, id(12), None), text);
        let removed = edited(text, id(9), None);
        assert_eq!(removed, text.replace("[[peer]]\nid = 9   # nine\n", "").replace("address = \"127.0.0.1:1\"\n", ""));
        assert_eq!(StaticRegistry::parse(&removed).unwrap().ids(), [id(10)]);
        let changed = edited(text, id(10), Some(&listed(Some("[::1]:2"))));
        assert!(changed.ends_with("# north\n[[peer]]\nid = 10\naddress = \"[::1]:2\"\n"), "{changed}");
    }

    #[test]
    fn a_stanza_says_what_is_known_and_nothing_else() {
        let whole = Listed {
            addresses: vec!["nine.example:1".to_owned()],
            key: Some(KEY.parse().unwrap()),
            networks: vec![3, 5],
        };
        let text = stanza(id(9), &whole);
        assert_eq!(StaticRegistry::parse(&text).unwrap().listed(id(9)), Some(whole.clone()));
        assert!(text.contains("\naddress = \"nine.example:1\"\n"), "{text}");
        let several = Listed { addresses: vec!["[::1]:2".to_owned(), "nine.example:1".to_owned()], ..whole };
        let text = stanza(id(9), &several);
        assert!(text.contains("\naddress = [\"[::1]:2\", \"nine.example:1\"]\n"), "{text}");
        assert_eq!(StaticRegistry::parse(&text).unwrap().listed(id(9)), Some(several));
        assert_eq!(stanza(id(9), &listed(None)), "[[peer]]\nid = 9\n");
    }

    #[test]
    fn what_no_line_shows_is_not_changed() {
        let text = "peer = [{ id = 9 }, { id = 10 }]\n";
        let before = StaticRegistry::parse(text).unwrap();
        let is_done = |changed: &str, wanted: Option<&Listed>| {
            StaticRegistry::parse(changed).is_ok_and(|after| is_as_wanted(&before, &after, id(9), wanted))
        };
        assert!(!is_done(&edited(text, id(9), None), None));
        assert!(!is_done(&edited(text, id(9), Some(&listed(Some("a:1")))), Some(&listed(Some("a:1")))));
        assert!(is_done("[[peer]]\nid = 10\n", None));
    }
}
