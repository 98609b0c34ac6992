//! Test doubles shared by unit tests, integration tests, fuzz targets and benches; not part of the public API.
#![forbid(unsafe_code)]

pub mod actor;
pub mod model;
#[cfg(test)]
mod random;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod story;
