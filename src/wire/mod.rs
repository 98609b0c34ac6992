//! Messages between nodes: bytes from strangers in, proofs out; drafts of ours in, signed bytes out.
//!
//! A received message goes through three types, each of which can only be had from the one before it:
//! [`Message`](message::Message) (it is JSON of the right shape), [`Decoded`](decode::Decoded) (every field means
//! something) and [`Verified`](verify::Verified) (the key in it signed it, for us, and its texts are
//! filtered). Nothing here knows a table, a
//! clock or a random source. The format is fixed in `docs/protocol.md`.
#![forbid(unsafe_code)]

pub mod decode;
pub mod message;
pub mod open_key;
pub mod rotation;
pub mod sign;
pub mod verify;

pub use crate::text;
