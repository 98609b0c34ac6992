//! A lock-free, crash-safe trust store and handshake manager.

pub mod config;
pub mod error;
pub mod machine;
pub mod node;
pub mod peer;
#[cfg(any(test, feature = "__testing"))]
#[doc(hidden)]
pub mod testing;
pub mod time;
pub mod wire;

pub use error::{OpenError, PersistError, WriteError};
pub use peer::{Fingerprint, InvalidFingerprint, InvalidKey, InvalidNodeId, NodeId, PublicKey, TrustRecord};
pub use time::{Now, Tick, WallMillis};
