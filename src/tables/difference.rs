//! What makes one state into a later one, in time proportional to what changed.
#![forbid(unsafe_code)]

use super::table::Table;
use super::{Sides, Tables, side_tables};
use crate::map::Value;

/// What makes one table into a later one, each in the order of the table.
#[derive(Debug)]
pub(crate) struct TableDiff<K, V> {
    /// Entries that are new or other than before.
    pub(crate) set: Vec<(K, V)>,
    /// Keys of entries that are no longer there.
    pub(crate) gone: Vec<K>,
}

/// What makes one state into a later one.
#[derive(Debug)]
pub(crate) struct Difference<'a> {
    pub(crate) trusted: TableDiff<u32, &'a Value>,
    pub(crate) sides: SideDiffs<'a>,
}

/// A [`TableDiff`] of a table.
pub(crate) type DiffOf<'a, T> = TableDiff<<T as Table>::Key, &'a <T as Table>::Entry>;

impl<K, V> TableDiff<K, V> {
    fn new() -> Self {
        Self { set: Vec::new(), gone: Vec::new() }
    }

    #[cfg(feature = "cli")]
    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.gone.is_empty()
    }

    fn note(&mut self, key: K, new: Option<V>) {
        match new {
            Some(value) => self.set.push((key, value)),
            None => self.gone.push(key),
        }
    }
}

fn of<'a, T: Table>(newer: &'a T, older: &'a T) -> DiffOf<'a, T> {
    let mut diff = TableDiff::new();
    newer.diff(older, &mut |key, new| diff.note(key, new));
    diff
}

impl Tables {
    /// What makes `older` into this state. Takes time in proportion to what changed.
    pub(crate) fn diff<'a>(&'a self, older: &'a Self) -> Difference<'a> {
        let mut trusted = TableDiff::new();
        self.trusted.diff_values(&older.trusted, &mut |id, _, new| trusted.note(id, new));
        Difference { trusted, sides: self.sides.diff(&older.sides) }
    }
}

#[cfg(feature = "cli")]
impl Difference<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.trusted.is_empty() && self.sides.is_empty()
    }
}

macro_rules! define {
    ($($(#[$doc:meta])* $number:literal $field:ident $variant:ident $key:ty, $entry:ty => $table:ty;)*) => {
        /// The difference of every table but the trusted records.
        #[derive(Debug)]
        pub(crate) struct SideDiffs<'a> {
            $(pub(crate) $field: DiffOf<'a, $table>,)*
        }

        #[cfg(feature = "cli")]
        impl SideDiffs<'_> {
            fn is_empty(&self) -> bool {
                $(self.$field.is_empty())&&*
            }
        }

        impl Sides {
            fn diff<'a>(&'a self, older: &'a Self) -> SideDiffs<'a> {
                SideDiffs { $($field: of(&self.$field, &older.$field),)* }
            }
        }
    };
}
side_tables!(define);
