//! The laws of both maps, and what only the one with versions has: memory that comes back, and nodes that are sound.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests say what must hold by panicking")]

mod memory;
mod returned;
mod trie;
mod versions;
