//! The pure core: what the rules say about a message, an operator's command or the passing of time.
//!
//! `step(view, now, input)` reads one consistent moment of the tables and answers with the changes and effects that the
//! rules ask for, or with the rule that refuses. No clock, file, socket, lock, thread or random source is reachable
//! from here; the same arguments give the same answer, so the rules can be tested, simulated and fuzzed by themselves.
//! The rules are numbered in `docs/protocol.md`.
#![forbid(unsafe_code)]

pub mod arrival;
pub mod check;
pub mod effect;
pub mod input;
pub mod known;
pub mod outcome;
pub mod rejection;
pub mod replay;
pub mod step;
pub mod view;

mod accept;
pub(crate) mod announce;
mod answer;
mod approval;
mod approve;
mod contradiction;
pub mod deliver;
mod housekeeping;
mod key;
mod marks;
mod operator;
mod own_entries;
mod plan;
mod queue;
mod refused;
mod reject;
mod request;
pub(crate) mod revision;
mod revoke;
mod room;
pub mod rotation;
mod version_1;

#[cfg(test)]
mod edge_tests;
#[cfg(test)]
mod owed_tests;
#[cfg(test)]
mod time_tests;

pub use crate::event;
