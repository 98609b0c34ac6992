//! Test doubles shared by unit tests, integration tests, fuzz targets and benches; not part of the public API.
#![forbid(unsafe_code)]

#[cfg(feature = "handshake")]
pub mod actor;
#[cfg(all(feature = "handshake", feature = "__testing", not(all(test, trustkeep_loom))))]
pub mod doors;
#[cfg(all(feature = "handshake", feature = "__testing", not(all(test, trustkeep_loom))))]
pub mod every_table;
#[cfg(feature = "handshake")]
pub mod life;
#[cfg(feature = "handshake")]
pub mod model;
#[cfg(feature = "handshake")]
#[cfg(test)]
mod random;
#[cfg(feature = "handshake")]
#[cfg(test)]
mod relayed;
#[cfg(feature = "handshake")]
#[cfg(test)]
mod rules;
#[cfg(not(all(test, trustkeep_loom)))]
pub mod sim_disk;
#[cfg(all(feature = "handshake", feature = "__testing", not(all(test, trustkeep_loom))))]
pub mod sim_net;
#[cfg(feature = "handshake")]
#[cfg(test)]
mod story;
