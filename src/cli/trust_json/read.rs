//! Reads a document from a stream, entry by entry.
//!
//! What must hold: no more than one entry is in memory at a time, whatever the length of the document; what is wrong with
//! one entry concerns that entry alone; what is no document is an error, told with line and column; no name that is not
//! known passes without a word.
#![forbid(unsafe_code)]

use core::fmt;
use std::io::Read;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::VERSION;
use super::fields::Fields;

/// The lists of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    Trusted,
    Pending,
    Outgoing,
    Revoked,
    Floors,
    RevokedKeys,
    Ignored,
    IgnoredKeys,
    Successors,
    Refused,
    Owed,
    Revisions,
}

impl List {
    pub(crate) const ALL: [Self; LISTS] = [
        Self::Trusted,
        Self::Pending,
        Self::Outgoing,
        Self::Revoked,
        Self::Floors,
        Self::RevokedKeys,
        Self::Ignored,
        Self::IgnoredKeys,
        Self::Successors,
        Self::Refused,
        Self::Owed,
        Self::Revisions,
    ];

    /// Whether a document without such entries is written without the list: it is then one that older releases know.
    pub(crate) const fn is_left_out_if_empty(self) -> bool {
        !matches!(self, Self::Trusted | Self::Pending | Self::Outgoing | Self::Revoked | Self::Floors)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Pending => "pending",
            Self::Outgoing => "outgoing",
            Self::Revoked => "revoked",
            Self::Floors => "floors",
            Self::RevokedKeys => "revoked_keys",
            Self::Ignored => "ignored",
            Self::IgnoredKeys => "ignored_keys",
            Self::Successors => "successors",
            Self::Refused => "refused",
            Self::Owed => "owed",
            Self::Revisions => "revisions",
        }
    }
}

/// Who is handed the entries, each with its place in its list, from 0.
pub(super) trait Sink {
    fn entry(&mut self, list: List, index: u64, fields: Result<Fields, String>);

    /// A name at the top of the document that means nothing there.
    fn unknown(&mut self, name: &str);
}

/// Hands every entry to `sink`, and returns the document's generation, 0 if it tells none.
pub(super) fn read(from: impl Read, sink: &mut dyn Sink) -> Result<u64, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_reader(from);
    let generation = json.deserialize_map(Document { sink })?;
    json.end()?;
    Ok(generation)
}

struct Document<'a> {
    sink: &'a mut dyn Sink,
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with lists of entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let (mut generation, mut seen) = (None, Vec::new());
        let mut has_list = false;
        while let Some(name) = map.next_key::<String>()? {
            let list = List::ALL.into_iter().find(|list| list.name() == name);
            if list.is_none() && name != "version" && name != "generation" {
                map.next_value::<IgnoredAny>()?;
                self.sink.unknown(&name);
                continue;
            }
            if seen.contains(&name) {
                return Err(A::Error::custom(format_args!("`{name}` is there twice")));
            }
            seen.push(name.clone());
            if let Some(list) = list {
                has_list = true;
                map.next_value_seed(Entries { list, sink: &mut *self.sink })?;
            } else if name == "version" {
                let version: Option<u64> = map.next_value()?;
                if version.is_some_and(|version| version != u64::from(VERSION)) {
                    return Err(A::Error::custom("the document's version is not 1; import it with a newer release"));
                }
            } else {
                generation = map.next_value::<Option<u64>>()?;
                if generation.is_some_and(|generation| generation > GENERATION_MAX) {
                    return Err(A::Error::custom("no store can have come to this generation"));
                }
            }
        }
        if !has_list {
            let lists = List::ALL.map(|list| format!("`{}`", list.name())).join(", ");
            return Err(A::Error::custom(format_args!("none of the lists is there, which are {lists}")));
        }
        Ok(generation.unwrap_or(0))
    }
}

struct Entries<'a> {
    list: List,
    sink: &'a mut dyn Sink,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` to be a list or null", self.list.name())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        // As text first, so that an error in it ends there.
        while let Some(entry) = list.next_element::<Box<RawValue>>()? {
            self.sink.entry(self.list, index, Fields::parse(entry.get(), self.list));
            index += 1;
        }
        Ok(())
    }
}

/// How many lists there are.
pub(crate) const LISTS: usize = 12;
/// Larger ones would leave a store too few numbers to go on with.
const GENERATION_MAX: u64 = 1 << 62;
