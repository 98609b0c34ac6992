//! One entry of a list, as far as its fields are known: names, and values that are not trusted yet.
//!
//! What must hold: whatever an entry says, reading it takes no more memory than its text; what is wrong with a field is
//! said with the field's name, and without repeating its text, which could command a terminal.
#![forbid(unsafe_code)]

use core::fmt;
use std::borrow::Cow;

use base64::Engine as _;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::finding::UNKNOWN_MAX;
use super::parse_time::parse_time;
use super::read::List;
use crate::machine::view::Nonce;
use crate::peer::{NodeId, PublicKey, RevocationId};
use crate::time::WallMillis;
use crate::wire::open_key::parse_key;

/// A value, as far as an entry can use it.
#[derive(Clone, Debug, PartialEq)]
enum Field {
    Flag(bool),
    Integer(i128),
    Text(String),
    /// Something else: a fraction, a list, an object.
    Other,
}

/// The known fields of an entry; a field that is `null` is not there.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    known: Vec<(&'static str, Field)>,
    twice: Option<&'static str>,
    /// Names that no entry of the list has, each once, as they stand there; the first [`UNKNOWN_MAX`].
    unknown: Vec<String>,
    unknown_left_out: u64,
}

/// Every name that an entry of this list may have.
const fn names(list: List) -> &'static [&'static str] {
    match list {
        List::Trusted => &["node_id", "public_key", "approved_at", "mutual", "network"],
        List::Pending => &[
            "node_id",
            "public_key",
            "justification",
            "received_at",
            "source",
            "nonce",
            "stamp",
            "authentic",
            "conflicts",
            "kind",
            "spoke_v2",
        ],
        List::Outgoing => &["node_id", "sent_at", "nonce", "expected_key", "justification", "lift"],
        List::Revoked => &["node_id", "until", "revoked_at", "id"],
        List::Floors => &["node_id", "public_key", "seen", "before", "reserved", "spoke_v2"],
        List::RevokedKeys => &["public_key", "revoked_at", "id"],
        List::Ignored => &["node_id", "ignored_at"],
        List::IgnoredKeys => &["public_key", "ignored_at"],
        List::Successors => &["node_id", "old_key", "new_key", "replaced", "void"],
        List::Refused => &["node_id", "public_key", "stamp", "refused_at"],
        List::Owed => &["node_id", "kind", "public_key", "decided_at", "reason", "nonce", "answers", "spoke_v2"],
        List::Revisions => &["node_id", "revision"],
    }
}

impl Fields {
    /// The entry that this JSON value is.
    pub(super) fn parse(json: &str, list: List) -> Result<Self, String> {
        let mut json = serde_json::Deserializer::from_str(json);
        let fields = json.deserialize_any(FieldsVisitor { names: names(list) });
        match fields.and_then(|fields| json.end().map(|()| fields)) {
            Ok(Some(Self { twice: Some(name), .. })) => Err(format!("`{name}` is there twice")),
            Ok(Some(fields)) => Ok(fields),
            Ok(None) => Err("not an object".to_owned()),
            Err(_) => Err("a value that cannot be read".to_owned()),
        }
    }

    fn get(&self, name: &'static str) -> Option<&Field> {
        self.known.iter().find(|(known, _)| *known == name).map(|(_, field)| field)
    }

    /// Names that mean nothing in this list, and how many fields had more such names.
    pub(super) fn unknown(&self) -> (&[String], u64) {
        (&self.unknown, self.unknown_left_out)
    }

    /// Whom the entry is about, whatever else is wrong with it.
    pub(super) fn node_id(&self) -> Result<NodeId, String> {
        let id = match self.get("node_id") {
            None => return Err("no `node_id`".to_owned()),
            Some(Field::Integer(id)) => u32::try_from(*id).ok().and_then(NodeId::new),
            Some(_) => None,
        };
        id.ok_or_else(|| "`node_id` is no number from 1 to 4294967295".to_owned())
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<&str>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{name}` is no text")),
        }
    }

    /// A text, or an integer as its digits.
    pub(super) fn text_or_integer(&self, name: &'static str) -> Result<Option<Cow<'_, str>>, String> {
        match self.get(name) {
            Some(Field::Integer(number)) => Ok(Some(number.to_string().into())),
            _ => Ok(self.text(name)?.map(Cow::from)),
        }
    }

    /// False if it is not there.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, String> {
        match self.get(name) {
            None => Ok(false),
            Some(Field::Flag(flag)) => Ok(*flag),
            Some(_) => Err(format!("`{name}` is neither true nor false")),
        }
    }

    /// 0 if it is not there.
    pub(super) fn number<N>(&self, name: &'static str, max: N) -> Result<N, String>
    where
        N: TryFrom<i128> + fmt::Display + Default,
    {
        let number = match self.get(name) {
            None => Some(N::default()),
            Some(Field::Integer(number)) => N::try_from(*number).ok(),
            Some(_) => None,
        };
        number.ok_or_else(|| format!("`{name}` is no number from 0 to {max}"))
    }

    /// The empty text counts as none, as it does in messages.
    pub(super) fn key(&self, name: &'static str) -> Result<Option<PublicKey>, String> {
        let key = self.text(name)?.filter(|text| !text.is_empty()).map(parse_key).transpose();
        key.map_err(|error| format!("`{name}`: {error}"))
    }

    /// The name of a revocation.
    pub(super) fn revocation(&self, name: &'static str) -> Result<Option<RevocationId>, String> {
        let id = self.text(name)?.filter(|text| !text.is_empty()).map(str::parse).transpose();
        id.map_err(|error| format!("`{name}`: {error}"))
    }

    pub(super) fn nonce(&self, name: &'static str) -> Result<Option<Nonce>, String> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
        let bytes = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        bytes.map_or_else(
            || Err(format!("`{name}` is not 16 bytes in padded standard base64")),
            |it| Ok(Some(Nonce(it))),
        )
    }

    /// `None` if the time is not there, or not known.
    pub(super) fn time(&self, name: &'static str) -> Result<Option<WallMillis>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let at = parse_time(text).ok_or_else(|| format!("`{name}` is no time by RFC 3339"))?;
        Ok(if at == WallMillis::default() { None } else { Some(at) })
    }
}

/// Reads an entry of a list with these names; none for something else than an object.
struct FieldsVisitor {
    names: &'static [&'static str],
}

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Option<Fields>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Fields>, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<String>()? {
            let Some(known) = self.names.iter().copied().find(|known| *known == name) else {
                map.next_value::<IgnoredAny>()?;
                if fields.unknown.len() >= UNKNOWN_MAX {
                    fields.unknown_left_out += 1;
                } else if !fields.unknown.contains(&name) {
                    fields.unknown.push(name);
                }
                continue;
            };
            if let Some(value) = map.next_value::<Option<Field>>()? {
                if fields.get(known).is_some() {
                    fields.twice = Some(known);
                }
                fields.known.push((known, value));
            }
        }
        Ok(Some(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<Fields>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<Fields>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<Fields>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<Fields>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<Fields>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<Fields>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Option<Fields>, E> {
        Ok(None)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Field, E> {
        Ok(Field::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Field, E> {
        Ok(Field::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
        Ok(Field::Integer(number.into()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Field, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}
