//! Test doubles shared by unit tests, integration tests, fuzz targets and benches; not part of the public API.
#![forbid(unsafe_code)]

#[cfg(all(feature = "__testing", not(all(test, trustkeep_loom))))]
pub mod doors;
#[cfg(not(all(test, trustkeep_loom)))]
pub mod sim_disk;
