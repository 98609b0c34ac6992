//! Values that replace those of a state: what a journal's groups come to.
#![forbid(unsafe_code)]

use super::table::Table;
use super::{Sides, Tables, side_tables};
use crate::map::mix::Mix;
use crate::map::{Latest, Value};
use crate::peer::NodeId;

use std::sync::Arc;

/// Values that replace those of a state, each with its key; `None` removes. Where a key occurs several times, the last one
/// counts.
///
/// They are put in order once, at the end. A map by id, looked into for every entry of a long journal, took most of the
/// time of an opening.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patch {
    pub(crate) trusted: Vec<(u32, Option<Value>)>,
    pub(crate) sides: SideValues,
}

/// One table's part of a [`SideValues`].
pub(crate) type Values<T> = Vec<(<T as Table>::Key, Option<<T as Table>::Entry>)>;

impl Patch {
    /// This patch, and then the other.
    #[cfg(any(feature = "cli", feature = "__testing", all(test, not(trustkeep_loom))))]
    pub(crate) fn extend(&mut self, mut later: Self) {
        self.trusted.append(&mut later.trusted);
        self.sides.extend(later.sides);
    }

    /// Whether a key occurs twice in a table.
    pub(crate) fn repeats_itself(&self, mix: Mix) -> bool {
        repeat(&self.trusted, |id| mix.mix(id)) || self.sides.repeat_themselves(mix)
    }

    /// The same without what is replaced within it.
    #[cfg(any(feature = "cli", feature = "__testing"))]
    pub(crate) fn settled(self) -> Self {
        let mix = Mix::new(0);
        Self { trusted: newest(&self.trusted, |id| mix.mix(id)), sides: self.sides.settled(mix) }
    }
}

fn repeat<K: Copy, V, O: Ord>(values: &[(K, V)], order: impl Fn(K) -> O) -> bool {
    // A group has its new entries in their order, and most have nothing else.
    if values.is_sorted_by(|(a, _), (b, _)| order(*a) < order(*b)) {
        return false;
    }
    let mut keys: Vec<O> = values.iter().map(|(key, _)| order(*key)).collect();
    keys.sort_unstable();
    !keys.is_sorted_by(|a, b| a < b)
}

/// The last value of each key, in ascending order.
fn newest<K: Copy, V: Clone, O: Ord>(values: &[(K, V)], order: impl Fn(K) -> O) -> Vec<(K, V)> {
    // Orders and positions are moved about in sorting, not the far longer values.
    let mut sorted: Vec<(O, usize)> =
        values.iter().enumerate().map(|(position, (key, _))| (order(*key), position)).collect();
    sorted.sort_unstable();
    let last = sorted.chunk_by(|a, b| a.0 == b.0).filter_map(<[_]>::last);
    last.filter_map(|(_, position)| values.get(*position).cloned()).collect()
}

impl Tables {
    /// The state that the patch makes of this one; `None` if a peer were trusted and revoked at once.
    pub(crate) fn patched(&self, patch: Patch) -> Option<Self> {
        let mut trusted = Latest::new(self.trusted.mix());
        patch.trusted.iter().for_each(|(id, value)| trusted.push(*id, *value));
        self.patched_at_once(trusted, &patch.sides)
    }

    /// The same with the trusted ones by themselves, which may be very many.
    pub(crate) fn patched_at_once(&self, latest: Latest, values: &SideValues) -> Option<Self> {
        let mix = self.trusted.mix();
        let sides = self.sides.patched(mix, values);
        // The table of revocations is the one that is usually small, or empty.
        let (revoked, mut both) = (&sides.revoked, false);
        let is_empty = revoked.len() == 0;
        let is_revoked = |id: u32| NodeId::new(id).is_some_and(|peer| revoked.get(peer).is_some());
        let trusted = self.trusted.patched(latest, |place| {
            both |= !is_empty && is_revoked(mix.unmix(place));
        });
        both |= values.revoked.iter().any(|(peer, _)| revoked.get(*peer).is_some() && trusted.contains(*peer));
        if both { None } else { Some(Self { trusted, sides: Arc::new(sides) }) }
    }
}

macro_rules! define {
    ($($(#[$doc:meta])* $number:literal $field:ident $variant:ident $key:ty, $entry:ty => $table:ty;)*) => {
        /// Values of every table but the trusted records.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct SideValues {
            $(pub(crate) $field: Values<$table>,)*
        }

        impl SideValues {
            /// How many there are.
            pub(super) fn len(&self) -> usize {
                0 $(+ self.$field.len())*
            }

            pub(crate) fn extend(&mut self, mut later: Self) {
                $(self.$field.append(&mut later.$field);)*
            }

            fn repeat_themselves(&self, mix: Mix) -> bool {
                $(repeat(&self.$field, |key| <$table>::order(mix, key)))||*
            }

            #[cfg(any(feature = "cli", feature = "__testing"))]
            fn settled(self, mix: Mix) -> Self {
                Self { $($field: newest(&self.$field, |key| <$table>::order(mix, key)),)* }
            }
        }

        impl Sides {
            fn patched(&self, mix: Mix, values: &SideValues) -> Self {
                Self { $($field: self.$field.apply(&newest(&values.$field, |key| <$table>::order(mix, key))),)* }
            }
        }
    };
}
side_tables!(define);
