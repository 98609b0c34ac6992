//! Test doubles shared by unit tests, integration tests, fuzz targets and benches; not part of the public API.
#![forbid(unsafe_code)]

pub mod actor;
#[cfg(all(feature = "__testing", not(all(test, trustkeep_loom))))]
pub mod doors;
#[cfg(all(feature = "__testing", not(all(test, trustkeep_loom))))]
pub mod every_table;
pub mod life;
pub mod model;
#[cfg(test)]
mod random;
#[cfg(test)]
mod relayed;
#[cfg(test)]
mod rules;
#[cfg(not(all(test, trustkeep_loom)))]
pub mod sim_disk;
#[cfg(all(feature = "__testing", not(all(test, trustkeep_loom))))]
pub mod sim_net;
#[cfg(test)]
mod story;
