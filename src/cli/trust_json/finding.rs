//! What an operator is told about the entries of a document.
#![forbid(unsafe_code)]

use core::fmt;

use super::read::List;
use crate::wire::text::Text;

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

/// A name that means nothing where it stands, and was ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// In entries of this list; `None`: at the top of the document.
    pub(crate) list: Option<List>,
    /// Of the first such entry, from 0; `None` at the top.
    pub(crate) index: Option<u64>,
    /// What of it can be shown, up to [`NAME_CHARS_MAX`] characters.
    pub(crate) name: String,
}

impl Unknown {
    fn new(list: Option<List>, index: Option<u64>, name: &str) -> Self {
        Self { list, index, name: Text::filtered(name).as_str().chars().take(NAME_CHARS_MAX).collect() }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { list, index, name } = self;
        match (list.map(List::name), index) {
            (Some(list), Some(index)) => write!(f, "`{name}` is no field of `{list}` (first in {list}[{index}])")?,
            _ => write!(f, "`{name}` is no field of the document")?,
        }
        f.write_str("; it was ignored")
    }
}

/// The names that were ignored, each once for each list.
#[derive(Debug, Default)]
pub(super) struct UnknownNames {
    /// At most [`UNKNOWN_MAX`].
    pub(super) names: Vec<Unknown>,
    /// How many fields had other names still.
    pub(super) left_out: u64,
}

impl UnknownNames {
    pub(super) fn note(&mut self, list: Option<List>, index: Option<u64>, name: &str) {
        let found = Unknown::new(list, index, name);
        if self.names.iter().any(|known| (known.list, &known.name) == (found.list, &found.name)) {
            return;
        }
        if self.names.len() < UNKNOWN_MAX {
            self.names.push(found);
        } else {
            self.left_out += 1;
        }
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

/// Longer names are no names.
const NAME_CHARS_MAX: usize = 64;
/// Distinct names that are told; a document that has more is something else.
pub(crate) const UNKNOWN_MAX: usize = 64;
