//! What readers see of a state.
#![forbid(unsafe_code)]

use crate::map::TrustMap;
use crate::tables::table::{ById, ByKey};
use crate::tables::{Revocation, Tables};

/// What readers see: the trusted records and the marks of one generation.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) generation: u64,
    pub(crate) trusted: TrustMap,
    pub(crate) revoked: ById<Revocation>,
    pub(crate) revoked_keys: ByKey<Revocation>,
}

impl Version {
    pub(super) fn of(generation: u64, tables: &Tables) -> Self {
        let sides = &tables.sides;
        let (revoked, revoked_keys) = (sides.revoked.clone(), sides.revoked_keys.clone());
        Self { generation, trusted: tables.trusted.clone(), revoked, revoked_keys }
    }
}
