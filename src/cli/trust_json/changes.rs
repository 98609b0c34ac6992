//! Changes that a document asks for and that are in no version of the tables yet, by peer, so that each can be looked up.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use crate::machine::tables::{Patch, Values};
use crate::machine::view::{Floor, Outgoing, Pending};
use crate::map::Value;
use crate::peer::TrustRecord;
use crate::time::WallMillis;

/// Of each table, what replaces an entry; `None` removes it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) trusted: HashMap<u32, Option<TrustRecord>>,
    pub(super) pending: HashMap<u32, Option<Pending>>,
    pub(super) outgoing: HashMap<u32, Option<Outgoing>>,
    pub(super) revoked: HashMap<u32, Option<WallMillis>>,
    pub(super) floors: HashMap<u32, Option<Floor>>,
}

impl Changes {
    pub(super) fn len(&self) -> usize {
        self.trusted.len() + self.pending.len() + self.outgoing.len() + self.revoked.len() + self.floors.len()
    }

    pub(super) fn into_patch(self) -> Patch {
        fn in_arc<V>(values: HashMap<u32, Option<V>>) -> Values<Arc<V>> {
            values.into_iter().map(|(id, value)| (id, value.map(Arc::new))).collect()
        }
        Patch {
            trusted: self.trusted.into_iter().map(|(id, record)| (id, record.as_ref().map(Value::of))).collect(),
            pending: in_arc(self.pending),
            outgoing: in_arc(self.outgoing),
            revoked: self.revoked.into_iter().collect(),
            floors: self.floors.into_iter().collect(),
        }
    }
}
