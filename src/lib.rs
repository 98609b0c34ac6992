//! A lock-free, crash-safe trust store and handshake manager.
//!
//! A node must know on every packet whether a peer is trusted, take grants and revocations in bursts, and never lose one
//! to a crash. Here trust is an immutable map behind one atomic pointer: readers never wait, writers never wait for a
//! disk, and a thread of its own makes each state durable.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! use trustkeep::{NodeId, TrustRecord, TrustStore};
//!
//! let store = TrustStore::open(dir.path().join("store"))?;
//! let mut reader = store.reader(); // one for each hot thread
//! let peer = NodeId::new(7).ok_or("0 is no node")?;
//!
//! let receipt = store.grant(TrustRecord::new(peer, None))?;
//! assert!(reader.is_trusted(peer)); // every reader sees it at once
//! receipt.wait_durable()?; // from here on it survives kill -9 and power loss
//!
//! drop(store); // after a crash it would be the same
//! let store = TrustStore::open(dir.path().join("store"))?;
//! assert!(store.is_trusted(peer));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start with [`TrustStore`]; hot threads use [`TrustReader`]s. The documents are part of this crate: [`docs`].

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod event;
mod foreign;
mod lanes;
#[cfg(all(test, trustkeep_loom))]
mod loom_tests;
pub mod machine;
mod map;
pub mod node;
mod pages;
pub mod peer;
mod persist;
mod store;
mod sync;
pub mod tables;
#[cfg(any(test, feature = "__testing"))]
#[doc(hidden)]
pub mod testing;
pub mod time;
pub mod wire;

pub use error::{Displacement, Holder, OpenError, PersistError, WriteError};
pub use event::Event;
pub use node::HandshakeManager;
pub use peer::{
    Fingerprint, InvalidFingerprint, InvalidKey, InvalidNodeId, InvalidRevocationId, Marks, NodeId, PublicKey,
    Revocation, RevocationId, TrustRecord,
};
pub use persist::file::LoadMode;
pub use persist::recover::RecoverPolicy;
pub use persist::report::{SetAside, TornTail};
pub use store::{
    Batch, Change, DurableFuture, FailingDisk, FailingSnapshots, Generation, Health, KeeperState, KeyRevoked,
    NearLimit, Options, Receipt, RecoveryReport, Revoked, RunningSave, Snapshot, Subscription, TrustFuture,
    TrustReader, TrustStore,
};
pub use time::{Now, Tick, WallMillis};

#[doc(hidden)]
pub use persist::{FileEntry, FileId, Left, OpenFile, Seen, Storage, StorageFile};

/// The project's documents, so that their examples run and their links are checked.
pub mod docs {
    #[doc = include_str!("../docs/concurrency.md")]
    pub mod concurrency {}
    #[doc = include_str!("../docs/design.md")]
    pub mod design {}
    #[doc = include_str!("../docs/durability.md")]
    pub mod durability {}
    #[doc = include_str!("../docs/format.md")]
    pub mod format {}
    #[doc = include_str!("../docs/protocol.md")]
    pub mod protocol {}
    #[doc = include_str!("../docs/cli.md")]
    pub mod cli {}
    #[doc = include_str!("../docs/migrating.md")]
    pub mod migrating {}
    #[doc = include_str!("../docs/security.md")]
    pub mod security {}
    #[doc = include_str!("../docs/trust_json.md")]
    pub mod trust_json {}
    #[cfg(doctest)]
    #[doc = include_str!("../README.md")]
    pub mod readme {}
}
