//! What do decisions cost that cannot be told? A node owes so many peers a farewell, and every address refuses the
//! connection. Processor time of the whole process, its store on disk and its TCP transport included, from its start on.
//!
//! `retries [--owed 4096] [--seconds 60] [--dir D] [--json]`
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement: it reads the clock, prints, and stops when something does not hold"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trustkeep::node::{FileIdentity, Registry, RegistryEntry, RegistryError, TcpConfig, TcpTransport};
use trustkeep::{HandshakeManager, NodeId, TrustRecord, TrustStore};
use trustkeep_benches::arguments::Arguments;
use trustkeep_benches::directory::{file_system, temporary};

const USAGE: &str = "retries [--owed 4096] [--seconds 60] [--dir D] [--json]";
/// Ids of peers begin here; ours is below.
const FIRST: u32 = 100;

/// Everybody has the same address, at which nobody listens.
#[derive(Debug)]
struct Nobody(SocketAddr);

impl Registry for Nobody {
    fn look_up(&self, _: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        Ok(Some(RegistryEntry::new(None).address(self.0)))
    }
}

fn start(dir: &Path, refuses: SocketAddr) -> HandshakeManager {
    let store = Arc::new(TrustStore::open(dir).unwrap());
    let registry: Arc<dyn Registry> = Arc::new(Nobody(refuses));
    let config = TcpConfig::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let transport = Arc::new(TcpTransport::bind(config, Arc::clone(&registry)).unwrap());
    let identity = Arc::new(FileIdentity::from_seed(NodeId::new(7).unwrap(), &[9; 32]).unwrap());
    HandshakeManager::builder(store, identity, transport).registry(registry).start().unwrap()
}

/// Processor time of this process, and tries that failed since the node started.
fn cost(manager: &HandshakeManager) -> (Duration, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let failed = manager.counters().into_iter().find(|(name, _)| *name == "not_sent").map_or(0, |(_, count)| count);
    // Linux counts in hundredths of a second, whatever the kernel's own tick.
    (Duration::from_millis(ticks * 10), failed)
}

fn main() {
    let arguments = Arguments::of_process(USAGE, &["--owed", "--seconds", "--dir"], &["--json"]);
    let owed = arguments.number("--owed", 4096, 1);
    let seconds = arguments.number("--seconds", 60, 1);
    let home = temporary(arguments.path("--dir")).unwrap();
    let dir = home.path().join("store");
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let refuses = closed.local_addr().unwrap();
    drop(closed);

    let manager = start(&dir, refuses);
    for number in FIRST..FIRST + owed {
        let peer = NodeId::new(number).unwrap();
        drop(manager.store().grant(TrustRecord::new(peer, None)).unwrap());
        drop(manager.revoke(peer).unwrap());
        // No more than what waits to be sent.
        while number - FIRST > u32::try_from(manager.owed().len()).unwrap() + 256 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    while manager.owed().len() < usize::try_from(owed).unwrap() {
        std::thread::sleep(Duration::from_millis(10));
    }
    manager.shutdown().unwrap();
    drop(manager);

    let manager = start(&dir, refuses);
    assert_eq!(manager.owed().len(), usize::try_from(owed).unwrap(), "what is owed outlives a restart");
    let ((before, _), begun) = (cost(&manager), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds.into()));
    let ((after, tries), took) = (cost(&manager), begun.elapsed());
    let used = after.saturating_sub(before);
    let percent = 100.0 * used.as_secs_f64() / took.as_secs_f64();
    assert_eq!(manager.owed().len(), usize::try_from(owed).unwrap(), "nothing was told");
    if arguments.has("--json") {
        let took_ms = u64::try_from(took.as_millis()).unwrap();
        let used_ms = u64::try_from(used.as_millis()).unwrap();
        println!(
            "{}",
            serde_json::json!({
                "owed": owed, "took_ms": took_ms, "processor_ms": used_ms, "percent_of_a_core": percent, "tries": tries,
            })
        );
        return;
    }
    println!(
        "{owed} peers are owed a farewell, and every connection is refused; the store is on {}",
        file_system(home.path())
    );
    println!(
        "{:.1} s: {tries} tries, {:.2} s of processor time, {percent:.2} % of a core",
        took.as_secs_f64(),
        used.as_secs_f64()
    );
}
