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
//! # Where a peer's id comes from
//!
//! The store answers whether an id is trusted. It does not know who is at the other end of a connection: that is for the
//! transport to find out, and for the program to take from there. **An id that a peer writes itself is a claim.** Anybody can
//! write 7. What counts is the key that the peer has proven to have:
//!
//! - TLS with client certificates: the public key of the certificate that the handshake verified;
//! - Noise: the remote static key, once the handshake is over;
//! - QUIC: the certificate of the connection's peer, as in TLS;
//! - WireGuard and the like: the key of the tunnel that the packet came out of.
//!
//! Then either find the id by that key ([`TrustStore::find_by_key`], which looks at every record) and ask about the id, or take
//! the id as a hint and ask about both: [`TrustReader::is_trusted_with_key`] says yes only if the record has that very key. Do
//! it once for each connection, remember the id beside it, and ask [`TrustReader::is_trusted`] for each packet. Who is revoked
//! by key stays out under every id.
//! A transport of a [`HandshakeManager`] says whom it authenticated by [`Received::authenticated`](node::Received::authenticated).
//! `examples/authenticated_peer.rs` shows it with a proof of its own in place of TLS, and an impostor who is turned away.
//!
//! # In an async task
//!
//! The crate needs no runtime, and no runtime needs anything of the crate. What each call waits for:
//!
//! | waits for | calls | in a task |
//! |---|---|---|
//! | nothing (wait-free) | all of [`TrustReader`]; of [`TrustStore`] `generation`, `durable_generation`, `recovery`, `options`; [`Receipt`] `generation`, `is_durable`; of [`HandshakeManager`] `builder`, `node_id`, `public_key`, `store` | always |
//! | nothing (lock-free; may allocate) | [`TrustStore`] `is_trusted`, `is_trusted_with_key`, `get`, `find_by_key`, `revoked`, `revocation`, `is_revoked`, `revoked_keys`, `key_revocation`, `reader`, `snapshot`, `in_memory`; all of [`Snapshot`]; [`HandshakeManager`] `is_trusted`, `is_trusted_with_key`, `trusted`, `revoked`, `revoked_keys`, `marks`; [`Receipt`] `durable_future`, and `trust_future` of both | always |
//! | a lock: another writer's publish, some microseconds, or as long as a closure of `update` runs; never the disk | [`TrustStore`] `grant`, `grant_lifting`, `revoke`, `revoke_key`, `remove`, `forget_revocation`, `forget_key_revocation`, `update`, `try_update`, `subscribe`, `health`; [`Subscription`] `try_recv`; polling a [`TrustFuture`] or [`DurableFuture`]; [`HandshakeManager`] `reject`, `reject_key`, `reject_entry`, `cancel`, `revoke`, `revoke_key`, `remove`, `forget_revocation`, `forget_key_revocation`, `ignore`, `unignore`, `adopt_key`, `report_key_change`, `confirm_registry`, `forget_revisions`, `registry_disagreement`, `outgoing`, `owed`, `pending`, `pending_and_replaced`, `ignored`, `ignored_keys`, `refused_newcomers`, `tries_of_request`, `tries_of_owed`, `announcement`, `counters`, `skews`, `newest_false_key`, `subscribe` | yes; a list of a million takes its time, as does a change of so many |
//! | the registry, and a connection | [`HandshakeManager`] `request`, `approve`, `approve_entry`, `approve_lifting`, `grant`, `grant_lifting`, `back_fill`, `receive` | `spawn_blocking`, or a thread |
//! | something to happen | `wait_for_trust` of both; [`Subscription`] `recv`, `recv_timeout`; [`HandshakeManager`] `wait_told` | the futures in place of the first; a thread for events, or an [`EventSink`](node::EventSink) |
//! | the disk | [`TrustStore`] `open`, `flush`, `close`, **and dropping it**; [`Receipt`] `wait_durable`, `wait_durable_timeout`; [`HandshakeManager`] `shutdown`, and dropping it | [`Receipt::durable_future`] in place of waiting; the others on a thread that may block |
//!
//! [`TrustStore::in_memory`] has no disk to wait for. A task that must cut a connection when its peer is revoked needs no
//! subscription: asking for each packet costs some nanoseconds.
//!
//! # Features
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | none | the store: [`TrustStore`], readers, snapshots, events, files; at most 40 packages in all | yes |
//! | `serde` | `Serialize` and `Deserialize` of ids, keys, fingerprints, records and revocations, `Serialize` of [`Event`], `Event::to_json` | by `handshake` |
//! | `handshake` | messages, their signatures, and the rules, without a network | by `node` |
//! | `node` | the [`HandshakeManager`], its TCP transport, registries, the peers file | yes |
//! | `cli` | the program `trustkeep` | no |
//!
//! The store alone does no arithmetic of the curve: a [`PublicKey`] is canonical and not of small order, which takes a
//! comparison of bytes. Whether it names a point of the curve, `handshake` finds out; one that names none opens no door.
//!
//! # Start
//!
//! Start with [`TrustStore`]; hot threads use [`TrustReader`]s. The documents are part of this crate: [`docs`].

#![cfg_attr(not(feature = "node"), allow(dead_code, unused_imports, reason = "what only a node uses of the store"))]

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "trustkeep needs a 64-bit target: its map keeps addresses of 48 bits in words of 64, and maps whole files"
);

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
#[cfg(feature = "handshake")]
pub mod machine;
mod map;
#[cfg(feature = "node")]
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
#[doc(hidden)]
pub mod text;
pub mod time;
#[cfg(feature = "handshake")]
pub mod wire;

pub use error::{Displacement, Holder, OpenError, PersistError, UpdateError, WriteError};
pub use event::Event;
#[cfg(feature = "node")]
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
    NearLimit, Options, Receipt, RecoveryReport, Revoked, RunningSave, Snapshot, SnapshotIter, Subscription,
    TrustFuture, TrustReader, TrustStore,
};
pub use time::{NoSystemTime, Now, Tick, WallMillis};

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
