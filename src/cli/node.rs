//! `node`: runs until it is told to stop, and stops so that nothing is lost.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::control::perform::Served;
use super::control::server::Bound;
use super::home::Home;
use super::limits::LimitArguments;
use super::signals::{ending, unwatched};
use super::{Answer, Failure, log, print};
use crate::config::{DEFAULT_PORT, HandshakeConfig, Policy};
use crate::node::{HandshakeManager, Identity as _, TcpConfig, TcpTransport};
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
}

/// Runs the node that lives in this home.
pub(super) fn run(
    home: &Path,
    listen: Option<SocketAddr>,
    settings: Settings,
    json: bool,
    stop_at_eof: bool,
) -> Result<Answer, Failure> {
    let (home, Settings { policy, limits, config }) = (Home::new(home), settings);
    log::begin().map_err(no_thread)?;
    // Told before anything is made.
    home.identity()?;
    let registry = Arc::new(home.registry()?);
    // From here on a signal ends the node in good order, however early it comes.
    let (stop, stopped) = queue(1);
    watch(stop, stop_at_eof)?;

    let store = Arc::new(TrustStore::options().limits(limits.tables()).open(home.store())?);
    // Under the store's lock, so that it is not the key that `rekey` is just replacing.
    let identity = Arc::new(home.identity()?);
    let control = Bound::new(&home.control())?;
    let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)));
    let of_transport = limits.transport(TcpConfig::listen(listen));
    let transport = TcpTransport::bind(of_transport, Arc::clone(&registry) as _).map_err(Failure::new)?;
    let listen = transport.local_address();
    let node_id = identity.node_id();
    if policy != Policy::default() {
        tracing::info!(?policy, "trusting more than an operator approves");
    }
    let manager = HandshakeManager::builder(Arc::clone(&store), identity, Arc::new(transport))
        .registry(registry)
        .policy(policy)
        .config(config)
        .start()
        .map_err(Failure::new)?;
    let manager = Arc::new(manager);
    let control = control.serve(Served { manager: Arc::clone(&manager), listen }).map_err(no_thread)?;
    let path = home.control().display().to_string();
    let told = tell(Ready { node_id: node_id.get(), listen, control: path, pid: std::process::id() }, json)?;

    let _ = stopped.recv(Deadline::NEVER);
    tracing::info!("stopping");
    control.close(CONTROL_WAIT);
    let generation = manager.shutdown()?;
    tracing::info!(%generation, "stopped; everything is durable");
    // Of a node that is stopped at once the line still comes, if it can.
    let _ = told.recv(Deadline::after(READY_WAIT));
    Ok(Answer::Yes)
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
