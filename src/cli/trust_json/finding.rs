//! What an operator is told about the entries of a document.
#![forbid(unsafe_code)]

use core::fmt;

use super::read::List;

/// Something that an operator should know about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) list: List,
    /// Of the entry, from 0.
    pub(crate) index: u64,
    pub(crate) node_id: Option<u32>,
    /// Whether the entry was left out; if not, it was taken in another form than it has.
    pub(crate) skipped: bool,
    pub(crate) why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.list.name(), self.index)?;
        if let Some(id) = self.node_id {
            write!(f, " (peer {id})")?;
        }
        write!(f, ": {}{}", if self.skipped { "skipped: " } else { "" }, self.why)
    }
}

/// What became of the entries of one list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) taken: u64,
    /// The store says the same already.
    pub(crate) unchanged: u64,
    pub(crate) skipped: u64,
}
