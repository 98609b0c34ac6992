//! `node`: runs until it is told to stop, and stops so that nothing is lost.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arguments::{AccessArguments, LocalArguments};
use super::control::perform::Served;
use super::control::server::Bound;
use super::control::socket::Place;
use super::home::Home;
use super::limits::LimitArguments;
use super::listen::Listen;
use super::peers::Peers;
use super::signals::{ending, unwatched};
use super::store_seen::StoreSeen;
use super::{Answer, Failure, log, permissions, policy as policies, print, supervisor};
use crate::config::{HandshakeConfig, Policy};
use crate::node::{HandshakeManager, Identity as _};
use crate::store::TrustStore;
use crate::sync::{Arc, Deadline, QueueReceiver, QueueSender, queue, spawn};

/// What a node prints once it can be reached.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) node_id: u32,
    pub(super) listen: SocketAddr,
    pub(super) control: String,
    pub(super) pid: u32,
}

/// How a node is to run.
pub(super) struct Settings {
    pub(super) policy: Policy,
    pub(super) limits: LimitArguments,
    pub(super) config: HandshakeConfig,
    pub(super) local: LocalArguments,
    pub(super) accept_older_store: bool,
}

/// Runs the node that lives in this home.
pub(super) fn run(
    home: &Path,
    listen: &Listen,
    settings: Settings,
    json: bool,
    stop_at_eof: bool,
) -> Result<Answer, Failure> {
    let Settings { policy, limits, config, local: LocalArguments { control, access }, accept_older_store } = settings;
    let home = Home::with_control(home, control.control.as_deref()).with_key_group(access.key_group);
    let place = Place { path: home.control(), group: control.control_group };
    if place.group.is_some() && home.holds(&place.path) {
        return Err(Failure::hint(
            format_args!(
                "{}: a group is let in only outside the home, which is its user's alone",
                place.path.display()
            ),
            "name a path elsewhere with `--control`",
        ));
    }
    log::begin().map_err(no_thread)?;
    // Told before anything is made.
    home.identity()?;
    check_access(&home, access)?;
    let registry = Arc::new(Peers::new(&home)?);
    // From here on a signal ends the node in good order, however early it comes.
    let (stop, stopped) = queue(1);
    watch(stop, stop_at_eof)?;

    let store = Arc::new(limits.store(TrustStore::options()).close_deadline(CLOSE_DEADLINE).open(home.store())?);
    tell_recovery(&store);
    let seen = Arc::new(StoreSeen::begin(&home, &store, accept_older_store)?);
    // Under the store's lock, so that it is not the key that `rekey` is just replacing.
    let identity = Arc::new(home.identity()?);
    let control = Bound::new(place)?;
    let transport = listen.bind(limits, &(Arc::clone(&registry) as _))?;
    let listen = transport.local_address();
    let node_id = identity.node_id();
    registry.tell_oddities(node_id, &identity.public_key());
    policies::tell_oddities(&policy, node_id, &identity.public_key());
    let policies::ToldPolicy { more, besides } = policies::told(&policy);
    if !more.is_empty() {
        tracing::info!(policy = more, "trusting more than an operator approves");
    }
    if !besides.is_empty() {
        tracing::info!(policy = besides, "hearing peers otherwise than by default");
    }
    registry.keep_names().map_err(no_thread)?;
    registry.keep_looking(access).map_err(no_thread)?;
    let manager = HandshakeManager::builder(Arc::clone(&store), identity, Arc::new(transport))
        .registry(Arc::clone(&registry) as _)
        .policy(policy)
        .config(config)
        .start()
        .map_err(Failure::new)?;
    let manager = Arc::new(manager);
    let control = control
        .serve(Served {
            manager: Arc::clone(&manager),
            listen,
            peers: Some(Arc::clone(&registry)),
            seen: Some(Arc::clone(&seen)),
        })
        .map_err(no_thread)?;
    let path = home.control().display().to_string();
    let told = tell(Ready { node_id: node_id.get(), listen, control: path, pid: std::process::id() }, json)?;

    supervisor::is_ready();
    let _ = stopped.recv(Deadline::NEVER);
    tracing::info!("stopping");
    supervisor::is_stopping();
    control.close(CONTROL_WAIT);
    let stopped = manager.shutdown();
    seen.end(store.durable_generation().get());
    let generation = stopped?;
    tracing::info!(%generation, "stopped; everything is durable");
    // Of a node that is stopped at once the line still comes, if it can.
    let _ = told.recv(Deadline::after(READY_WAIT));
    Ok(Answer::Yes)
}

/// Tells the log what opening the store cut off, set aside or lost.
fn tell_recovery(store: &TrustStore) {
    let found = store.recovery();
    if found.is_clean() {
        return;
    }
    let torn_bytes = found.torn.as_ref().map_or(0, |torn| torn.bytes);
    let (set_aside, files, took_ms) = (found.set_aside.len(), found.files.len(), found.took.as_millis());
    let (reached, generation, lossy) = (found.reached.map_or(0, |it| it.get()), found.generation.get(), found.is_lossy);
    tracing::warn!(
        reached,
        generation,
        torn_bytes,
        set_aside,
        lossy,
        files,
        took_ms,
        "the store was recovered: not all that its files hold is part of its state"
    );
}

/// Less than the ten seconds after which supervisors kill: a disk that takes nothing is told before that.
const CLOSE_DEADLINE: Duration = Duration::from_secs(7);

/// Refuses a home that somebody else may change, or says so.
fn check_access(home: &Home, access: AccessArguments) -> Result<(), Failure> {
    if access.insecure_permissions {
        tracing::warn!("--insecure-permissions: whoever may write to the home is not asked after");
    }
    let control = home.control();
    let directory = control.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // By the name that it has in the home: a link in its place counts.
    let store = home.path().join("store");
    for path in [home.path(), &home.peers_file(), &store, directory] {
        match permissions::find(path, access.trusted_group) {
            Ok(()) => {}
            Err(finding) if access.insecure_permissions => {
                tracing::warn!("{finding}, and the node starts all the same")
            }
            Err(finding) => {
                let remedy = finding.remedy();
                return Err(Failure::hint(
                    finding,
                    format_args!("{remedy} (`--insecure-permissions` starts all the same)"),
                ));
            }
        }
    }
    Ok(())
}

/// Prints that the node is ready, on a thread of its own: standard output may take nothing, and that stops no node. Says
/// so at the end.
fn tell(ready: Ready, json: bool) -> Result<QueueReceiver<()>, Failure> {
    let (done, told) = queue(1);
    let tells = spawn("trustkeep-ready", move || {
        let printed = if json {
            print::json(&ready)
        } else {
            let Ready { node_id, listen, control, .. } = ready;
            print::to_stdout(|out| writeln!(out, "node {node_id} listens on {listen}, control socket {control}"))
        };
        let failed = printed.err().map(|failure| failure.to_string());
        if let Some(error) = failed.or_else(|| print::broken().map(ToString::to_string)) {
            tracing::warn!(error, "the ready line could not be written; the node runs on without it");
        }
        let _ = done.try_send(());
    });
    tells.map(|_| told).map_err(no_thread)
}

fn no_thread(error: io::Error) -> Failure {
    Failure::new(format_args!("no thread to run on: {error}"))
}

/// Sends a word when a signal (or the end of standard input) says to stop.
fn watch(stop: QueueSender<()>, stop_at_eof: bool) -> Result<(), Failure> {
    let mut signals = ending()?;
    let stop = Arc::new(stop);
    let on_signal = Arc::clone(&stop);
    let watching = spawn("trustkeep-signals", move || {
        for _ in signals.forever() {
            // Full: it was said already. Those that come later, while the node stops, change nothing.
            let _ = on_signal.try_send(());
        }
    });
    watching.map_err(unwatched)?;
    if stop_at_eof {
        let watching = spawn("trustkeep-stdin", move || {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = stop.try_send(());
        });
        watching.map_err(unwatched)?;
    }
    Ok(())
}

/// For answers that are under way when the node is told to stop.
const CONTROL_WAIT: Duration = Duration::from_secs(1);
/// For the ready line of a node that is told to stop as soon as it is ready.
const READY_WAIT: Duration = Duration::from_secs(1);
