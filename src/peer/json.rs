//! Ids, keys and records in formats that serde knows (feature `serde`).
//!
//! Each has one form, that of the program's documents (`docs/trust_json.md`) where these have it, and is read by the same
//! checks as its text or number: no form brings in what `FromStr` or `TryFrom` refuses.
#![forbid(unsafe_code)]

use core::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use super::{Fingerprint, NodeId, PublicKey, Revocation, RevocationId, TrustRecord};
use crate::time::WallMillis;

/// Types whose form is their text.
macro_rules! by_text {
    ($($type:ty, $what:literal;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                from.deserialize_str(Text)
            }
        }
    )*};
}

by_text! {
    PublicKey, "a public key in padded standard base64";
    Fingerprint, "a fingerprint of eight groups of four hexadecimal digits";
    RevocationId, "a revocation's 16 lower-case hexadecimal digits";
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(self.get())
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u32::deserialize(from)?.try_into().map_err(de::Error::custom)
    }
}

impl Serialize for WallMillis {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(self.as_millis())
    }
}

impl<'de> Deserialize<'de> for WallMillis {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        i64::deserialize(from).map(Self::new)
    }
}

/// A record as it is written; what is left out is as [`TrustRecord::new`] has it.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    node_id: NodeId,
    #[serde(default)]
    public_key: Option<PublicKey>,
    #[serde(default)]
    approved_at: WallMillis,
    #[serde(default)]
    mutual: bool,
    #[serde(default)]
    network: u16,
}

impl Serialize for TrustRecord {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { node_id, public_key, approved_at, mutual, network } = *self;
        Record { node_id, public_key, approved_at, mutual, network }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for TrustRecord {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Record { node_id, public_key, approved_at, mutual, network } = Record::deserialize(from)?;
        Ok(Self { node_id, public_key, approved_at, mutual, network })
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    at: WallMillis,
    id: RevocationId,
}

impl Serialize for Revocation {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Mark { at: self.at, id: self.id }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Revocation {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Mark::deserialize(from).map(|Mark { at, id }| Self { at, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";

    #[track_caller]
    fn is_written_and_read<T: Serialize + for<'a> Deserialize<'a> + PartialEq + fmt::Debug>(value: &T, json: &str) {
        assert_eq!(serde_json::to_string(value).unwrap(), json);
        assert_eq!(serde_json::from_str::<T>(json).unwrap(), *value);
    }

    #[test]
    fn each_type_has_one_form_and_is_read_from_it() {
        let (peer, key): (NodeId, PublicKey) = (NodeId::new(9).unwrap(), KEY.parse().unwrap());
        is_written_and_read(&peer, "9");
        is_written_and_read(&key, &format!("\"{KEY}\""));
        is_written_and_read(&key.fingerprint(), &format!("\"{}\"", key.fingerprint()));
        is_written_and_read(&RevocationId::new(255), "\"00000000000000ff\"");
        is_written_and_read(&WallMillis::new(-5), "-5");
        is_written_and_read(
            &Revocation::new(WallMillis::new(7), RevocationId::new(1)),
            r#"{"at":7,"id":"0000000000000001"}"#,
        );
        is_written_and_read(
            &TrustRecord::new(peer, key).mutual(true).network(3).approved_at(WallMillis::new(8)),
            &format!(r#"{{"node_id":9,"public_key":"{KEY}","approved_at":8,"mutual":true,"network":3}}"#),
        );
        assert_eq!(serde_json::from_str::<TrustRecord>(r#"{"node_id":9}"#).unwrap(), TrustRecord::new(peer, None));
    }

    #[test]
    fn what_is_refused_as_text_is_refused_here() {
        let refused = |json: &str| {
            assert!(serde_json::from_str::<NodeId>(json).is_err(), "{json}");
            assert!(serde_json::from_str::<PublicKey>(json).is_err(), "{json}");
            assert!(serde_json::from_str::<Fingerprint>(json).is_err(), "{json}");
            assert!(serde_json::from_str::<RevocationId>(json).is_err(), "{json}");
            assert!(serde_json::from_str::<TrustRecord>(json).is_err(), "{json}");
        };
        // The point of order one, an id that is no node's, an unknown field, and what is nothing at all.
        let weak = "\"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"";
        for json in [weak, "0", "-1", "\"x\"", "null", "{}", r#"{"node_id":0}"#, r#"{"node_id":9,"until":1}"#] {
            refused(json);
        }
        let error = serde_json::from_str::<PublicKey>(weak).unwrap_err().to_string();
        assert!(error.contains("small order"), "{error}");
    }
}
