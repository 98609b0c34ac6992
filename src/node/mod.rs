//! The shell around the pure machine: it feeds messages, ticks and operators' calls in, and performs what comes out.
//!
//! Nothing here decides who is trusted: that is [`machine`](crate::machine). Nothing here holds a lock of the store while
//! it talks to a peer, a registry or a disk. Everything that reaches outside goes through a trait ([`Transport`],
//! [`Registry`], [`Identity`], [`Random`], [`Clock`](crate::clock::Clock)), so that an embedder brings its own network
//! and a test brings none.
#![forbid(unsafe_code)]

mod address;
mod announcer;
mod builder;
mod calls;
mod comparison;
mod cool_down;
mod counters;
mod cutter;
mod durable;
mod effects;
mod enforcement;
mod housekeeper;
mod identity;
mod identity_file;
mod in_flight;
mod in_process;
mod join_proof;
mod keys;
mod lines;
mod look_up;
mod loud;
mod manager;
mod marks;
mod newcomers;
mod outbox;
mod pace;
mod poller;
mod random;
mod registry;
mod rekey;
mod replies;
mod retry;
mod retry_table;
mod revisions;
mod seldom;
mod shell;
mod sinks;
mod static_registry;
mod taken_back;
mod tcp;
mod tcp_answer;
mod tcp_connection;
mod tcp_receive;
mod tcp_send;
mod transport;
mod waiting;

#[cfg(feature = "cli")]
pub(crate) use address::Address;
pub use announcer::Announcement;
pub use builder::Builder;
pub use calls::{CommandError, RequestOptions, StartError};
pub use comparison::{Contradiction, RegistryDisagreement};
pub use identity::{FileIdentity, Identity, IdentityError};
pub use in_process::{InProcessMember, InProcessRegistry, JoinError};
pub use loud::FalseKey;
pub use manager::HandshakeManager;
pub use random::{Random, SystemRandom};
pub use registry::{Fetched, Registry, RegistryEntry, RegistryError, Relayed, Relaying, Revision};
pub use retry::{Told, Tries};
pub use sinks::EventSink;
#[cfg(feature = "cli")]
pub(crate) use static_registry::Listed;
pub use static_registry::{PeersFileError, StaticRegistry};
pub use tcp::{ListenError, TcpConfig, TcpCounts, TcpTransport};
pub use transport::{Dispatch, Inbox, Received, Reply, SendError, Transport};
