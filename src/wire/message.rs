//! The shape of a message: one JSON object, of bounded size, without duplicate fields or trailing bytes.
//!
//! A [`Message`] holds what was sent, text by text, because that is what was signed. Nothing in it has been believed,
//! or even decoded, yet.
#![forbid(unsafe_code)]

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::rotation::{Rotation, RotationField};
use crate::config::MESSAGE_BYTES_MAX;
use crate::peer::NodeId;
pub use crate::peer::{Kind, Nonce};
use crate::time::WallMillis;

/// Why bytes are not a [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// More bytes than a message may have.
    TooLarge,
    /// Not one JSON object of the right shape.
    Malformed {
        /// Line of the first offence, from 1; 0 if it has no place.
        line: usize,
        /// Column of the first offence, from 1; 0 if it has no place.
        column: usize,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "longer than {MESSAGE_BYTES_MAX} bytes"),
            Self::Malformed { line, column } => {
                write!(f, "not one JSON object of the right shape (line {line}, column {column})")
            }
        }
    }
}

impl core::error::Error for ParseError {}

/// A message as it stands on the wire, in the order in which its fields are written.
///
/// Texts are as sent; an absent field and `null` are both the empty text. `Debug` prints no signature.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    #[serde(rename = "type", default, deserialize_with = "null_is_empty")]
    pub(crate) kind: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) node_id: u32,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) public_key: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) justification: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) signature: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) reason: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) timestamp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) v: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nonce: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answers: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stamp_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signature2: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rotation: Option<RotationField>,
}

/// `null` stands for an absent field, as some writers of JSON cannot leave a field out.
fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl Message {
    /// Reads one message.
    ///
    /// Fields may come in any order, unknown ones are ignored.
    ///
    /// # Errors
    /// [`ParseError`]: drop the connection; nothing in the bytes can be trusted to name a sender.
    ///
    /// # Complexity
    /// Linear in the bytes, of which there are at most [`MESSAGE_BYTES_MAX`]; allocates no more than that.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(ParseError::TooLarge);
        }
        // The derived reader would also take the fields as an array; only an object is a message.
        let first = bytes.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        if first != Some(&b'{') {
            return Err(ParseError::Malformed { line: 1, column: 0 });
        }
        serde_json::from_slice(bytes)
            .map_err(|error| ParseError::Malformed { line: error.line(), column: error.column() })
    }

    /// The message as it goes on the wire: one JSON object, fields in the order of `docs/protocol.md`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Writing texts and integers to memory has no way to fail; an empty message would be dropped by any receiver.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What it says; `None` for a type that this release does not know.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_wire(&self.kind)
    }

    /// Who it says it is from; `None` for 0.
    #[must_use]
    pub const fn sender(&self) -> Option<NodeId> {
        NodeId::new(self.node_id)
    }

    /// When it says it was sent, by the sender's clock.
    #[must_use]
    pub fn stamp(&self) -> WallMillis {
        let seconds = || self.timestamp.saturating_mul(1000);
        WallMillis::new(if self.is_version_1() { seconds() } else { self.stamp_ms.unwrap_or_default() })
    }

    /// Whether it carries no field of version 2 at all; one such field, and only the rules of version 2 apply.
    #[must_use]
    pub fn is_version_1(&self) -> bool {
        let empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        self.v.is_none()
            && self.stamp_ms.is_none()
            && empty(&self.nonce)
            && empty(&self.answers)
            && empty(&self.signature2)
            && self.rotation.is_none()
    }

    /// The same message, which carries this statement about its key. No signature covers it but the statement's own.
    #[must_use]
    pub fn carrying(self, rotation: Option<&Rotation>) -> Self {
        Self { rotation: rotation.map(RotationField::from), ..self }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("type", &self.kind)
            .field("node_id", &self.node_id)
            .field("stamp", &self.stamp())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = r#"{"type":"handshake_request","node_id":7,"public_key":"k","justification":"j","signature":"","reason":"","timestamp":1772532000,"v":2,"nonce":"n","answers":"","stamp_ms":1772532000123,"signature2":"s"}"#;

    fn parse(text: &str) -> Result<Message, ParseError> {
        Message::parse(text.as_bytes())
    }

    fn is_malformed(text: &str) -> bool {
        matches!(parse(text), Err(ParseError::Malformed { .. }))
    }

    #[test]
    fn fields_are_written_in_the_order_of_the_protocol() {
        assert_eq!(String::from_utf8(parse(REQUEST).unwrap().to_json()).unwrap(), REQUEST);
    }

    #[test]
    fn fields_are_read_in_any_order_and_unknown_ones_are_ignored() {
        let text = r#" {"later":{"a":[1,{"b":null}]}, "signature2":"s","stamp_ms":1772532000123,"answers":"","nonce":"n","v":2,
            "timestamp":1772532000,"reason":"","signature":"","justification":"j","public_key":"k","node_id":7,
            "type":"handshake_request"} "#;
        assert_eq!(parse(text), parse(REQUEST));
    }

    #[test]
    fn missing_null_and_empty_are_the_same() {
        let named = |value: &str| {
            let fields = ["type", "public_key", "justification", "signature", "reason"];
            let texts: Vec<_> = fields.iter().map(|name| format!("\"{name}\":{value}")).collect();
            parse(&format!("{{{}}}", texts.join(","))).unwrap()
        };
        assert_eq!(named("null"), named("\"\""));
        assert_eq!(named("null"), parse("{}").unwrap());
        let nulls = r#"{"node_id":null,"timestamp":null,"v":null,"nonce":null,"answers":null,"stamp_ms":null,"signature2":null,"rotation":null}"#;
        assert_eq!(parse(nulls).unwrap(), parse("{}").unwrap());
        assert!(parse(nulls).unwrap().is_version_1());
    }

    #[test]
    fn one_field_of_version_2_makes_it_version_2() {
        for field in
            [r#""v":2"#, r#""v":1"#, r#""nonce":"x""#, r#""answers":"x""#, r#""stamp_ms":0"#, r#""signature2":"x""#]
        {
            assert!(!parse(&format!("{{{field}}}")).unwrap().is_version_1(), "{field}");
        }
        for field in [r#""signature":"x""#, r#""timestamp":5"#, r#""nonce":"","answers":"","signature2":"""#] {
            assert!(parse(&format!("{{{field}}}")).unwrap().is_version_1(), "{field}");
        }
    }

    #[test]
    fn trailing_bytes_are_refused_and_trailing_whitespace_is_not() {
        assert!(parse(&format!("{REQUEST}\r\n\t ")).is_ok());
        for tail in ["{}", "x", "\0", ","] {
            assert!(is_malformed(&format!("{REQUEST}{tail}")), "{tail:?}");
        }
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        for twice in [
            r#"{"node_id":7,"node_id":7}"#,
            r#"{"node_id":7,"node_\u0069d":8}"#,
            r#"{"reason":null,"reason":"x"}"#,
            r#"{"nonce":"a","nonce":"a"}"#,
        ] {
            assert!(is_malformed(twice), "{twice}");
        }
    }

    #[test]
    fn an_id_is_an_integer_in_range() {
        assert_eq!(parse(r#"{"node_id":4294967295}"#).unwrap().sender(), NodeId::new(u32::MAX));
        assert_eq!(parse(r#"{"node_id":0}"#).unwrap().sender(), None);
        for bad in ["-1", "4294967296", "7.0", "7e0", "\"7\"", "true", "[7]", "18446744073709551616", "07"] {
            assert!(is_malformed(&format!("{{\"node_id\":{bad}}}")), "{bad}");
        }
        for bad in ["9223372036854775808", "1.5", "\"1\""] {
            assert!(is_malformed(&format!("{{\"stamp_ms\":{bad}}}")), "{bad}");
        }
    }

    #[test]
    fn only_an_object_is_a_message() {
        let fields_as_array = r#"["handshake_request",7,"k","j","","",1772532000,2,"n","",1772532000123,"s"]"#;
        for bad in ["", " ", "null", "7", "\"x\"", "[]", fields_as_array, "\u{feff}{}", "{", "{'a':1}", "{\"type\":7}"]
        {
            assert!(is_malformed(bad), "{bad:?}");
        }
        assert!(Message::parse(b"{\"reason\":\"\xff\"}").is_err());
        assert!(is_malformed(r#"{"reason":"\ud800"}"#));
    }

    #[test]
    fn the_largest_message_is_read_and_one_byte_more_is_not() {
        let padded = |bytes: usize| format!("{REQUEST}{}", " ".repeat(bytes - REQUEST.len()));
        assert!(parse(&padded(MESSAGE_BYTES_MAX)).is_ok());
        assert_eq!(parse(&padded(MESSAGE_BYTES_MAX + 1)), Err(ParseError::TooLarge));
    }

    #[test]
    fn deep_nesting_costs_an_error_at_most() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        let _ = parse(&deep);
        assert!(is_malformed(&format!("{{\"x\":{}", "[".repeat(60_000))));
    }
}
