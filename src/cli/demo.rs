//! `demo`: two nodes become trusted peers, keep that across a `kill -9`, and part; all of it shown and checked.
//!
//! What must hold: it exits with 0 only if every step held, and leaves no process and no file behind, however it ends.
#![forbid(unsafe_code)]

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use signal_hook::iterator::Signals;

use super::control::client::ask;
use super::control::{Ask, Reply, Until};
use super::home::Home;
use super::node::Ready;
use super::signals::{ending, unwatched};
use super::{Answer, Failure, offline, print};
use crate::node::{Identity as _, Random as _, SystemRandom};
use crate::peer::{NodeId, PublicKey};
use crate::sync::{Arc, Deadline, Mutex, queue, spawn};

/// Runs every step.
pub(super) fn run() -> Result<Answer, Failure> {
    let start = instant();
    // Watched before there is anything to clean up.
    let signals = ending()?;
    let stage = Arc::new(Stage::new()?);
    clean_up_on(signals, &stage)?;
    let outcome = Demo { stage: Arc::clone(&stage), start, last: start }.steps();
    stage.clear(false);
    if stage.cast.lock().ended {
        return Err(Failure::new("ended by a signal"));
    }
    outcome?;
    let took = instant().duration_since(start);
    print::to_stdout(|out| writeln!(out, "every step held, in {} ms", took.as_millis()))?;
    Ok(Answer::Yes)
}

struct Demo {
    stage: Arc<Stage>,
    start: Instant,
    last: Instant,
}

/// One of the two nodes.
struct Actor {
    id: NodeId,
    home: Home,
    key: PublicKey,
    listen: SocketAddr,
}

impl Demo {
    fn steps(mut self) -> Result<(), Failure> {
        let (a, b) = self.set()?;
        self.done("two homes with new keys; each peers file has the other's key and no networks")?;
        let (a, b) = self.raise(a, b)?;
        self.done(&format!("node {} listens on {}, node {} on {}", a.id, a.listen, b.id, b.listen))?;

        a.request(&b, "weather feed")?;
        self.done(&format!("request: node {} asked node {} for trust", a.id, b.id))?;
        b.wait(&a, Until::Pending)?;
        b.shows_pending(&a)?;
        untrusted(&a, &b)?;
        self.done(&format!("pending: node {} shows the request with the fingerprint of {}'s key", b.id, a.id))?;

        let fingerprint = Some(a.key.fingerprint().to_string());
        b.done(&Ask::Approve { peer: a.id.get(), fingerprint, entry: None, lift: None })?;
        self.done(&format!("approve: node {} trusts node {}, durably", b.id, a.id))?;
        trusted(&a, &b)?;
        self.done("trusted on both sides, and durable on both")?;

        let status = self.stage.kill(b.id)?;
        if status.code().is_some() {
            return Err(Failure::new(format_args!("node {} ended by itself: {status}", b.id)));
        }
        offline::check(&b.home.store())?;
        self.done(&format!("kill -9 of node {}; nothing in its store is damaged", b.id))?;
        self.stage.start(&b)?;
        trusted(&a, &b)?;
        self.done(&format!("node {} runs again: still trusted on both sides", b.id))?;

        a.done(&Ask::Revoke { peer: Some(b.id.get()), key: None })?;
        a.wait(&b, Until::Untrusted)?;
        self.done(&format!("revoke: node {} trusts node {} no longer, durably", a.id, b.id))?;
        b.wait(&a, Until::Untrusted)?;
        untrusted(&a, &b)?;
        self.done("no longer trusted on either side")?;

        b.request(&a, "please")?;
        a.wait(&b, Until::Pending)?;
        untrusted(&a, &b)?;
        self.done(&format!("a new request of node {} is only pending at node {}", b.id, a.id))?;

        for actor in [&a, &b] {
            let status = self.stage.stop(actor.id)?;
            if !status.success() {
                return Err(Failure::new(format_args!("node {} did not stop in good order: {status}", actor.id)));
            }
        }
        self.done("both nodes stopped in good order")
    }

    /// Says that a step held, and how long it took.
    fn done(&mut self, what: &str) -> Result<(), Failure> {
        let now = instant();
        let (at, took) = (now.duration_since(self.start).as_millis(), now.duration_since(self.last).as_millis());
        self.last = now;
        print::to_stdout(|out| writeln!(out, "{at:>6} ms  +{took:<5} {what}"))
    }

    fn set(&self) -> Result<(Actor, Actor), Failure> {
        let actor = |id: u32, name: &str| {
            let id = NodeId::try_from(id).map_err(Failure::new)?;
            let home = Home::new(&self.stage.dir.join(name));
            let key = home.create(id)?.public_key();
            Ok::<_, Failure>(Actor { id, home, key, listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) })
        };
        Ok((actor(7, "seven")?, actor(9, "nine")?))
    }

    /// Starts both nodes. The ports are free when they are chosen; should somebody take one of them before the node
    /// does, others are tried.
    fn raise(&self, mut a: Actor, mut b: Actor) -> Result<(Actor, Actor), Failure> {
        let mut attempts = 1;
        loop {
            (a.listen, b.listen) = free_addresses()?;
            a.knows(&b)?;
            b.knows(&a)?;
            match self.stage.start(&a).and_then(|()| self.stage.start(&b)) {
                Ok(()) => return Ok((a, b)),
                Err(failure) if attempts == PORT_ATTEMPTS => return Err(failure),
                Err(_) => {
                    self.stage.kill_all();
                    attempts += 1;
                }
            }
        }
    }
}

fn trusted(a: &Actor, b: &Actor) -> Result<(), Failure> {
    a.wait(b, Until::Trusted)?;
    b.wait(a, Until::Trusted)
}

/// Neither lists the other.
fn untrusted(a: &Actor, b: &Actor) -> Result<(), Failure> {
    for (one, other) in [(a, b), (b, a)] {
        match one.ask(&Ask::List { after: None, limit: None })? {
            Reply::Trusted { trusted, .. } if trusted.iter().all(|row| row.node_id != other.id.get()) => {}
            reply => return Err(one.unexpected(&reply)),
        }
    }
    Ok(())
}

impl Actor {
    fn ask(&self, request: &Ask) -> Result<Reply, Failure> {
        ask(&self.home, request)
    }

    fn unexpected(&self, reply: &Reply) -> Failure {
        Failure::new(format_args!("node {} answered {reply:?}", self.id))
    }

    fn done(&self, request: &Ask) -> Result<(), Failure> {
        match self.ask(request)? {
            Reply::Done { .. } | Reply::Decided { .. } => Ok(()),
            reply => Err(self.unexpected(&reply)),
        }
    }

    fn request(&self, peer: &Self, justification: &str) -> Result<(), Failure> {
        let (peer, justification) = (peer.id.get(), justification.to_owned());
        self.done(&Ask::Request { peer, justification, expected_key: None, force: false, lift: None })
    }

    fn wait(&self, peer: &Self, until: Until) -> Result<(), Failure> {
        self.done(&Ask::Wait { peer: peer.id.get(), until, timeout_ms: STEP_MS_MAX, asked: false })
    }

    fn shows_pending(&self, peer: &Self) -> Result<(), Failure> {
        match self.ask(&Ask::Pending)? {
            Reply::Pending { pending }
                if pending.iter().any(|row| {
                    row.node_id == peer.id.get() && row.fingerprint == peer.key.fingerprint().to_string()
                }) =>
            {
                Ok(())
            }
            reply => Err(self.unexpected(&reply)),
        }
    }

    fn knows(&self, peer: &Self) -> Result<(), Failure> {
        let Self { id, key, listen, .. } = peer;
        let key = key.to_base64();
        let text = format!("[[peer]]\nid = {id}\naddress = \"{listen}\"\npublic_key = \"{key}\"\nnetworks = []\n");
        let path = self.home.peers_file();
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::new(format_args!("{}: {error}", path.display())))
    }
}

/// The temporary directory, and the processes that run.
struct Stage {
    dir: PathBuf,
    cast: Mutex<Cast>,
}

#[derive(Default)]
struct Cast {
    children: Vec<(NodeId, Child)>,
    /// By a signal: nothing may be started any more.
    ended: bool,
}

impl Stage {
    fn new() -> Result<Self, Failure> {
        let mut suffix = [0; 8];
        SystemRandom.fill(&mut suffix).map_err(|error| Failure::new(format_args!("no random bytes: {error}")))?;
        let dir = std::env::temp_dir().join(format!("trustkeep-demo-{:016x}", u64::from_le_bytes(suffix)));
        DirBuilder::new().mode(0o700).create(&dir).map_err(|error| {
            Failure::hint(format_args!("{}: {error}", dir.display()), "set TMPDIR to another place")
        })?;
        Ok(Self { dir, cast: Mutex::new(Cast::default()) })
    }

    /// Starts a node and waits until it says that it is ready.
    fn start(&self, actor: &Actor) -> Result<(), Failure> {
        let fail = |what: &dyn core::fmt::Display| Failure::new(format_args!("node {}: {what}", actor.id));
        let program = std::env::current_exe().map_err(|error| fail(&error))?;
        let mut cast = self.cast.lock();
        if cast.ended {
            return Err(fail(&"not started, for a signal ended the demo"));
        }
        let mut child = Command::new(program)
            .arg("node")
            .arg("--home")
            .arg(actor.home.path())
            .args(["--listen", &actor.listen.to_string(), "--json", "--stop-at-eof"])
            // The pipe ends with this process, however it ends, and the node with the pipe.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| fail(&error))?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        cast.children.push((actor.id, child));
        drop(cast);
        let (Some(output), Some(mut errors)) = (output, errors) else { return Err(fail(&"no output")) };
        let log = self.dir.join(format!("node-{}.log", actor.id));
        let mut file = OpenOptions::new().append(true).create(true).open(&log).map_err(|error| fail(&error))?;
        let (line_of, line) = queue(1);
        let reads = spawn("trustkeep-demo-output", move || {
            let mut text = String::new();
            let _ = BufReader::new(output).read_line(&mut text);
            let _ = line_of.try_send(text);
        });
        let copies = spawn("trustkeep-demo-log", move || io::copy(&mut errors, &mut file));
        reads.and(copies.map(|_| ())).map_err(|error| fail(&error))?;
        let text = line.recv(Deadline::after(Duration::from_millis(STEP_MS_MAX)));
        match text.and_then(|text| serde_json::from_str::<Ready>(&text).ok()) {
            Some(ready) if ready.node_id == actor.id.get() && ready.listen == actor.listen => Ok(()),
            _ => {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                Err(fail(&format_args!("it did not start: {}", print::printable(log.trim()))))
            }
        }
    }

    /// Takes a child off the stage.
    fn take(&self, id: NodeId) -> Result<Child, Failure> {
        let children = &mut self.cast.lock().children;
        let place = children.iter().position(|(of, _)| *of == id);
        place.map(|place| children.swap_remove(place).1).ok_or_else(|| Failure::new(format_args!("node {id} is gone")))
    }

    /// SIGKILL.
    fn kill(&self, id: NodeId) -> Result<ExitStatus, Failure> {
        let mut child = self.take(id)?;
        child.kill().and_then(|()| child.wait()).map_err(|error| Failure::new(format_args!("node {id}: {error}")))
    }

    /// Ends the node's standard input, and waits until it has stopped (which it does within its own deadlines).
    fn stop(&self, id: NodeId) -> Result<ExitStatus, Failure> {
        let mut child = self.take(id)?;
        drop(child.stdin.take());
        child.wait().map_err(|error| Failure::new(format_args!("node {id}: {error}")))
    }

    fn kill_all(&self) {
        self.cast.lock().kill_all();
    }

    /// Ends every node and removes every file. The lock is held to the end: whoever comes second may leave then.
    fn clear(&self, ended: bool) {
        let mut cast = self.cast.lock();
        cast.ended |= ended;
        cast.kill_all();
        // Another thread may be making a file just now; without the directory it makes no more.
        for _ in 0..10 {
            let _ = std::fs::remove_dir_all(&self.dir);
            if !self.dir.exists() {
                return;
            }
        }
    }
}

impl Cast {
    fn kill_all(&mut self) {
        for (_, mut child) in self.children.drain(..) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear(false);
    }
}

fn clean_up_on(mut signals: Signals, stage: &Arc<Stage>) -> Result<(), Failure> {
    let stage = Arc::clone(stage);
    let watching = spawn("trustkeep-signals", move || {
        if signals.forever().next().is_some() {
            stage.clear(true);
            std::process::exit(1);
        }
    });
    watching.map(drop).map_err(unwatched)
}

/// Two addresses on which nobody listens at this moment.
fn free_addresses() -> Result<(SocketAddr, SocketAddr), Failure> {
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let both = || {
        let (one, other) = (free()?, free()?);
        Ok((one.local_addr()?, other.local_addr()?))
    };
    both().map_err(|error: io::Error| Failure::new(format_args!("no free port on 127.0.0.1: {error}")))
}

#[expect(clippy::disallowed_methods, reason = "a measurement is real time by definition")]
fn instant() -> Instant {
    Instant::now()
}

/// How long any one step may take.
const STEP_MS_MAX: u64 = 30_000;
const PORT_ATTEMPTS: u32 = 3;
