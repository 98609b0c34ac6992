//! What the tests of a node share: an address book, a transport that does as it is told, a disk that can be held up.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use trustkeep::clock::{Clock, SystemClock};
use trustkeep::machine::view::{Nonce, Source};
use trustkeep::node::{
    Builder, FileIdentity, HandshakeManager, Identity, Inbox, Received, Registry, RegistryEntry, RegistryError,
    SendError, Transport,
};
use trustkeep::wire::message::Kind;
use trustkeep::wire::sign::{Draft, sign_draft, sign_draft_v1};
use trustkeep::{
    Displacement, FileEntry, FileId, Fingerprint, Left, NodeId, PersistError, PublicKey, Seen, Storage, StorageFile,
    TrustStore, WallMillis,
};

/// Only a hang takes so long: no bound on how long something takes is shorter.
pub const SOON: Duration = Duration::from_secs(60);

/// Long enough for something that must not happen to have happened.
pub const A_WHILE: Duration = Duration::from_millis(200);

/// How long what goes by time lasts: `TRUSTKEEP_LOAD_MS`, or not long.
pub fn load() -> Duration {
    let millis = std::env::var("TRUSTKEEP_LOAD_MS").map_or(700, |text| text.parse().expect("milliseconds"));
    Duration::from_millis(millis)
}

pub fn id(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

pub fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// An address that answers no connection: what may wait to be accepted there does already.
pub fn black_hole() -> (SocketAddr, Vec<TcpStream>, rustix::fd::OwnedFd) {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &any_port()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    let mut fill = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        fill.push(stream);
        assert!(fill.len() < 100, "everybody is let in");
    }
    (address, fill, socket)
}

/// A connection from another loopback address, which counts as another source.
pub fn connect_from(host: [u8; 4], to: SocketAddr) -> TcpStream {
    try_to_connect_from(host, to).unwrap()
}

/// The same where it may be refused.
pub fn try_to_connect_from(host: [u8; 4], to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket_from(host)?;
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// A socket at another loopback address, not connected yet.
pub fn socket_from(host: [u8; 4]) -> io::Result<rustix::fd::OwnedFd> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((host, 0)))?;
    Ok(socket)
}

/// The fingerprint of the first key that this peer waits with.
pub fn shown(manager: &HandshakeManager, peer: NodeId) -> Option<Fingerprint> {
    let pending = manager.pending();
    pending.iter().find(|(waits, _)| *waits == peer).map(|(_, entry)| entry.key.fingerprint())
}

/// The identity whose id and seed are this number.
pub fn identity(number: u32) -> FileIdentity {
    FileIdentity::from_seed(id(number), &[u8::try_from(number % 251).unwrap(); 32]).unwrap()
}

/// Whether something became true in time; for counts, which nobody is woken for.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "{what}");
        std::thread::yield_now();
    }
}

/// A gate at which threads wait while it is closed.
#[derive(Debug, Default)]
pub struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
    waiting: std::sync::atomic::AtomicUsize,
}

impl Gate {
    /// Closes it until it is opened, at the latest when the answer is dropped: a test that fails must not hang.
    pub fn close(&self) -> Shut<'_> {
        *self.closed.lock().unwrap() = true;
        Shut(self)
    }
    pub fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.changed.notify_all();
    }
    pub fn pass(&self) {
        let mut closed = self.closed.lock().unwrap();
        self.waiting.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        while *closed {
            closed = self.changed.wait(closed).unwrap();
        }
        self.waiting.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
    /// How many threads stand before it.
    pub fn waiting(&self) -> usize {
        self.waiting.load(std::sync::atomic::Ordering::SeqCst)
    }
}

pub struct Shut<'a>(&'a Gate);

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// What somebody panics with who means harm: dropping it panics as well, and what that panics with.
pub struct Bomb(u8);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 && !std::thread::panicking() {
            std::panic::panic_any(Self(self.0 - 1));
        }
    }
}

/// Panics as the test wants it.
pub fn go_off() -> ! {
    std::panic::panic_any(Bomb(2))
}

/// A registry in memory, shared by nodes; it may hang about one peer and panic about another.
#[derive(Debug, Default)]
pub struct Book {
    entries: Mutex<HashMap<NodeId, RegistryEntry>>,
    pub gate: Gate,
    pub hangs_about: Mutex<Option<NodeId>>,
    pub panics_about: Mutex<Option<NodeId>>,
    pub asked_about: Mutex<Vec<NodeId>>,
    pub reports: Mutex<Vec<(NodeId, bool)>>,
    /// Reports wait here first.
    pub reporting: Gate,
}

impl Book {
    pub fn put(&self, peer: NodeId, key: Option<PublicKey>, address: SocketAddr) {
        self.put_entry(peer, RegistryEntry::new(key).address(address));
    }
    pub fn put_entry(&self, peer: NodeId, entry: RegistryEntry) {
        self.entries.lock().unwrap().insert(peer, entry);
    }
}

impl Registry for Book {
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        self.asked_about.lock().unwrap().push(peer);
        if *self.hangs_about.lock().unwrap() == Some(peer) {
            self.gate.pass();
        }
        let panics = *self.panics_about.lock().unwrap() == Some(peer);
        if panics {
            go_off();
        }
        Ok(self.entries.lock().unwrap().get(&peer).cloned())
    }
    fn report_grant(&self, peer: NodeId) -> Result<(), RegistryError> {
        self.reporting.pass();
        let panics = *self.panics_about.lock().unwrap() == Some(peer);
        if panics {
            go_off();
        }
        self.reports.lock().unwrap().push((peer, true));
        Ok(())
    }
    fn report_revoke(&self, peer: NodeId) -> Result<(), RegistryError> {
        self.reporting.pass();
        let panics = *self.panics_about.lock().unwrap() == Some(peer);
        if panics {
            go_off();
        }
        self.reports.lock().unwrap().push((peer, false));
        Ok(())
    }
}

/// A transport that only notes what it is asked to do.
pub struct Wire {
    sent: Mutex<Sender<(NodeId, Vec<u8>)>>,
    cut: Mutex<Sender<NodeId>>,
    /// Sends to this peer wait here.
    pub gate: Gate,
    pub hangs_to: Mutex<Option<NodeId>>,
    /// There is no way to anybody.
    pub cut_off: Mutex<bool>,
    /// Sends to this peer panic.
    pub panics_to: Mutex<Option<NodeId>>,
    /// Disconnecting waits here.
    pub cutting: Gate,
    pub stopped: Mutex<bool>,
    /// Whether it says that it authenticates peers.
    pub authenticates: Mutex<bool>,
}

pub struct WireEnds {
    pub sent: Receiver<(NodeId, Vec<u8>)>,
    pub cut: Receiver<NodeId>,
}

impl Wire {
    pub fn new() -> (Arc<Self>, WireEnds) {
        let ((sent, sent_end), (cut, cut_end)) = (channel(), channel());
        let wire = Self {
            sent: Mutex::new(sent),
            cut: Mutex::new(cut),
            gate: Gate::default(),
            hangs_to: Mutex::new(None),
            cut_off: Mutex::new(false),
            panics_to: Mutex::new(None),
            cutting: Gate::default(),
            stopped: Mutex::new(false),
            authenticates: Mutex::new(false),
        };
        (Arc::new(wire), WireEnds { sent: sent_end, cut: cut_end })
    }
}

impl Transport for Wire {
    fn start(&self, _: Arc<dyn Inbox>) -> io::Result<()> {
        Ok(())
    }
    fn send(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError> {
        if *self.cut_off.lock().unwrap() {
            return Err(SendError::NoAddress { peer: to });
        }
        let _ = self.sent.lock().unwrap().send((to, bytes.to_vec()));
        if *self.hangs_to.lock().unwrap() == Some(to) {
            self.gate.pass();
        }
        let panics = *self.panics_to.lock().unwrap() == Some(to);
        if panics {
            go_off();
        }
        Ok(())
    }
    fn send_authenticated(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError> {
        let authenticates = *self.authenticates.lock().unwrap();
        if authenticates { self.send(to, bytes) } else { Err(SendError::NotAuthenticated) }
    }
    fn disconnect(&self, peer: NodeId) {
        self.cutting.pass();
        let _ = self.cut.lock().unwrap().send(peer);
    }
    fn stop_receiving(&self, _: Duration) {
        *self.stopped.lock().unwrap() = true;
    }
    fn stop_sending(&self) {
        self.gate.open();
    }
}

impl WireEnds {
    /// The next message sent: to whom, and its type.
    pub fn next(&self) -> (NodeId, String) {
        let (to, bytes) = self.sent.recv_timeout(SOON).expect("nothing was sent");
        (to, kind_of(&bytes))
    }
}

pub fn kind_of(bytes: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    value["type"].as_str().unwrap().to_owned()
}

/// A node 1 on a [`Wire`], with a store in memory.
pub fn alone(change: impl FnOnce(Builder) -> Builder) -> (HandshakeManager, Arc<Wire>, WireEnds) {
    alone_with(Arc::new(TrustStore::in_memory()), change)
}

pub fn alone_with(
    store: Arc<TrustStore>,
    change: impl FnOnce(Builder) -> Builder,
) -> (HandshakeManager, Arc<Wire>, WireEnds) {
    let (wire, ends) = Wire::new();
    let transport = Arc::clone(&wire);
    let builder = HandshakeManager::builder(store, Arc::new(identity(1)), transport);
    // A look-up that is answered is answered in time, however busy the machine.
    (change(builder.look_up_timeout(SOON)).start().unwrap(), wire, ends)
}

/// A message as some node would send it to node 1 now; change the draft to send another.
pub fn message_from(sender: &FileIdentity, kind: Kind, change: impl FnOnce(&mut Draft)) -> Vec<u8> {
    let mut draft = Draft {
        to: id(1),
        kind,
        justification: String::new(),
        reason: String::new(),
        nonce: Nonce([7; 16]),
        answers: None,
        stamp: now(),
        for_key: None,
    };
    change(&mut draft);
    sign_draft(sender.node_id(), &sender.public_key(), &draft, |bytes| sender.sign(bytes)).to_json()
}

/// The same in version 1.
pub fn message_v1_from(sender: &FileIdentity, kind: Kind) -> Vec<u8> {
    let (justification, reason) = (String::new(), String::new());
    let (nonce, answers) = (Nonce([7; 16]), None);
    let draft = Draft { to: id(1), kind, justification, reason, nonce, answers, stamp: now(), for_key: None };
    sign_draft_v1(sender.node_id(), &sender.public_key(), &draft, |bytes| sender.sign(bytes)).to_json()
}

pub fn now() -> WallMillis {
    SystemClock.now().wall
}

/// A message that arrived from this address.
pub fn arrived(bytes: Vec<u8>, host: u8) -> Received {
    Received::new(bytes, Source::from_address(Ipv4Addr::new(10, 0, 0, host).into()))
}

pub fn count(manager: &HandshakeManager, name: &str) -> u64 {
    manager.counters().into_iter().find(|(other, _)| *other == name).map_or(0, |(_, count)| count)
}

/// A disk in memory whose fsync waits at a gate. As on a real one, a name leads to a file, and who has opened a file goes on
/// with that file wherever its name leads later.
#[derive(Debug, Default)]
pub struct Disk {
    names: Mutex<HashMap<String, Content>>,
    pub gate: Arc<Gate>,
    /// Every write is refused while this is set.
    pub full: Arc<Mutex<bool>>,
}

/// The bytes of one file, shared by its name and by who has opened it.
type Content = Arc<Mutex<Vec<u8>>>;

struct DiskFile {
    content: Content,
    gate: Arc<Gate>,
    full: Arc<Mutex<bool>>,
}

impl Disk {
    /// What a crash at this moment leaves.
    pub fn crashed(&self) -> Self {
        let names = self.bytes().into_iter().map(|(name, bytes)| (name, Arc::new(Mutex::new(bytes)))).collect();
        Self { names: Mutex::new(names), ..Self::default() }
    }

    /// The store that it leaves, if there is one.
    pub fn crashed_store(&self) -> Option<TrustStore> {
        TrustStore::options().open_storage(Arc::new(self.crashed())).ok()
    }

    /// Every file, byte by byte.
    pub fn bytes(&self) -> Vec<(String, Vec<u8>)> {
        let names = self.names.lock().unwrap();
        let mut files: Vec<_> =
            names.iter().map(|(name, content)| (name.clone(), content.lock().unwrap().clone())).collect();
        files.sort();
        files
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let names = self.names.lock().unwrap();
        let entry = |(name, content): (&String, &Content)| FileEntry {
            name: name.clone(),
            bytes: content.lock().unwrap().len() as u64,
        };
        Ok(names.iter().map(entry).collect())
    }
    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let content = Arc::clone(self.names.lock().unwrap().get(name).ok_or(io::ErrorKind::NotFound)?);
        look(&content.lock().unwrap());
        Ok(())
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut names = self.names.lock().unwrap();
        if names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Content::default();
        names.insert(name.to_owned(), Arc::clone(&content));
        Ok(Box::new(DiskFile { content, gate: Arc::clone(&self.gate), full: Arc::clone(&self.full) }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = self.names.lock().unwrap();
        if names.contains_key(from) && names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.insert(to.to_owned(), content);
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.names.lock().unwrap().remove(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.gate.pass();
        Ok(())
    }
    fn confirm(&self, left: &Left<'_>, seen: &mut Seen) -> Result<(), PersistError> {
        let names = self.names.lock().unwrap();
        let displaced = |name: &str, found| Err(PersistError::Displaced { path: self.path(name), found });
        if let Some(open) = left.open {
            match names.get(open.name) {
                None => return displaced(open.name, Displacement::Gone),
                Some(content) if open.id != Some(file_id(content)) => {
                    return displaced(open.name, Displacement::Replaced);
                }
                Some(content) if open.bytes != content.lock().unwrap().len() as u64 => {
                    return displaced(open.name, Displacement::Resized);
                }
                Some(_) => {}
            }
        }
        if let Some(gone) = (left.others)().into_iter().find(|name| !names.contains_key(name)) {
            return displaced(&gone, Displacement::Gone);
        }
        *seen = Seen::default();
        Ok(())
    }
    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

/// Content is a file; a name only leads to it.
fn file_id(content: &Content) -> FileId {
    FileId { device: 0, number: Arc::as_ptr(content).addr() as u64 }
}

impl StorageFile for DiskFile {
    fn id(&self) -> Option<FileId> {
        Some(file_id(&self.content))
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        if *self.full.lock().unwrap() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut content = self.content.lock().unwrap();
        let end = usize::try_from(offset).unwrap() + bytes.len();
        let len = content.len().max(end);
        content.resize(len, 0);
        content[end - bytes.len()..end].copy_from_slice(bytes);
        Ok(bytes.len())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.gate.pass();
        Ok(())
    }
}
