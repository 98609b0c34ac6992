//! A lock-free, crash-safe trust store and handshake manager.

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
mod keeper;
pub mod machine;
mod map;
pub mod peer;
mod persist;
mod store;
mod sync;
pub mod time;

pub use error::{OpenError, PersistError, WriteError};
pub use machine::event::Event;
pub use peer::{Fingerprint, InvalidFingerprint, InvalidKey, InvalidNodeId, NodeId, PublicKey, TrustRecord};
pub use persist::file::LoadMode;
pub use persist::recover::RecoverPolicy;
pub use store::{
    Batch, Change, FailingDisk, Generation, Health, KeeperState, Options, Receipt, Revoked, Snapshot, Subscription,
    TrustReader, TrustStore,
};
pub use time::{Now, Tick, WallMillis};

#[doc(hidden)]
pub use persist::{FileEntry, Storage, StorageFile};
