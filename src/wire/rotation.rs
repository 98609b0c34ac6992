//! The statement by which a key names its successor: the node, both keys and the time, signed by the old key.
//!
//! INVARIANT: a [`Rotation`] is made here alone, once the old key's signature has been checked. It is for no receiver in
//! particular, so the old key can be destroyed as soon as it has signed. Who may have signed it is another question:
//! whoever has the old key, the thief of it as well.
#![forbid(unsafe_code)]

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::open_key::OpenKey;
use crate::peer::{NodeId, PublicKey};
use crate::time::WallMillis;

/// The old key's word for its one successor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    node_id: NodeId,
    old_key: PublicKey,
    new_key: PublicKey,
    at: WallMillis,
    signature: [u8; 64],
}

/// The statement is not one that its old key signed for this node and this new key, or names one key twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadStatement;

impl fmt::Display for BadStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the old key did not sign for this node and this new key")
    }
}

impl core::error::Error for BadStatement {}

impl Rotation {
    /// Has the old key sign that `new_key` is its successor. `sign` answers with its Ed25519 signature.
    ///
    /// # Errors
    /// [`BadStatement`] if that is not a signature of the old key, or the keys are the same.
    pub fn sign(
        node_id: NodeId,
        old_key: PublicKey,
        new_key: PublicKey,
        at: WallMillis,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Result<Self, BadStatement> {
        let signature = sign(&statement_bytes(node_id, &old_key, &new_key, at));
        Self::check(node_id, *old_key.as_bytes(), new_key, at, signature)
    }

    /// A statement that was read somewhere, if its old key signed it.
    ///
    /// # Errors
    /// [`BadStatement`]; a weak old key is one that anybody can sign for.
    ///
    /// # Complexity
    /// One strict Ed25519 verification.
    pub fn check(
        node_id: NodeId,
        old_key: [u8; 32],
        new_key: PublicKey,
        at: WallMillis,
        signature: [u8; 64],
    ) -> Result<Self, BadStatement> {
        let old = OpenKey::new(old_key).map_err(|_| BadStatement)?;
        let bytes = statement_bytes(node_id, old.key(), &new_key, at);
        if *old.key() == new_key || !old.signed(&bytes, &signature) {
            return Err(BadStatement);
        }
        Ok(Self { node_id, old_key: *old.key(), new_key, at, signature })
    }

    /// A statement that counts as signed though nobody has looked: for tests of what comes after.
    #[cfg(any(test, feature = "__testing"))]
    pub(crate) fn believed(node_id: NodeId, raw: &RawStatement, new_key: PublicKey) -> Option<Self> {
        let RawStatement { old_key, at, signature } = *raw;
        let old_key = PublicKey::from_bytes(old_key).ok().filter(|old| *old != new_key)?;
        Some(Self { node_id, old_key, new_key, at, signature })
    }

    /// The same, without a signature at all.
    #[cfg(any(test, feature = "__testing"))]
    pub(crate) const fn stand_in(node_id: NodeId, old_key: PublicKey, new_key: PublicKey, at: WallMillis) -> Self {
        Self { node_id, old_key, new_key, at, signature: [0; 64] }
    }

    /// Whose keys they are.
    #[must_use]
    pub const fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The key that signed, and that counts no more.
    #[must_use]
    pub const fn old_key(&self) -> &PublicKey {
        &self.old_key
    }

    /// The key that was signed for.
    #[must_use]
    pub const fn new_key(&self) -> &PublicKey {
        &self.new_key
    }

    /// When it was signed, by the clock of the node. Nothing is decided by it: a statement does not age.
    #[must_use]
    pub const fn at(&self) -> WallMillis {
        self.at
    }

    /// The old key's signature.
    #[must_use]
    pub const fn signature(&self) -> &[u8; 64] {
        &self.signature
    }
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node_id, old_key, new_key, at, .. } = self;
        f.debug_struct("Rotation")
            .field("node_id", node_id)
            .field("old_key", old_key)
            .field("new_key", new_key)
            .field("at", at)
            .finish_non_exhaustive()
    }
}

/// The bytes that the old key signs: five lines, each ended by one newline. No other signature of ours begins so.
#[must_use]
pub fn statement_bytes(node_id: NodeId, old_key: &PublicKey, new_key: &PublicKey, at: WallMillis) -> Vec<u8> {
    let (old, new, at) = (old_key.to_base64(), new_key.to_base64(), at.as_millis());
    format!("trustkeep rotation 1\n{node_id}\n{old}\n{new}\n{at}\n").into_bytes()
}

/// A statement in a message, decoded and not checked. The message has the node and the new key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RawStatement {
    pub(super) old_key: [u8; 32],
    pub(super) at: WallMillis,
    pub(super) signature: [u8; 64],
}

impl RawStatement {
    pub(super) fn check(&self, sender: NodeId, new_key: &PublicKey) -> Result<Rotation, BadStatement> {
        Rotation::check(sender, self.old_key, *new_key, self.at, self.signature)
    }

    /// The old key, as its bytes: whether it is one that can be signed under is not known yet.
    #[must_use]
    pub const fn old_key(&self) -> &[u8; 32] {
        &self.old_key
    }
}

impl fmt::Debug for RawStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawStatement").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The field `rotation` of a message as it was sent.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RotationField {
    pub(crate) old_key: String,
    pub(crate) stamp_ms: Option<i64>,
    pub(crate) signature: String,
}

impl From<&Rotation> for RotationField {
    fn from(rotation: &Rotation) -> Self {
        Self {
            old_key: rotation.old_key.to_base64(),
            stamp_ms: Some(rotation.at.as_millis()),
            signature: STANDARD.encode(rotation.signature),
        }
    }
}

/// An object and nothing else; the derived reader would also take its fields as an array.
impl<'de> Deserialize<'de> for RotationField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = RotationField;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RotationField, A::Error> {
                let Fields { old_key, stamp_ms, signature } = Fields::deserialize(MapAccessDeserializer::new(map))?;
                let (old_key, signature) = (old_key.unwrap_or_default(), signature.unwrap_or_default());
                Ok(RotationField { old_key, stamp_ms, signature })
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[derive(Deserialize)]
struct Fields {
    old_key: Option<String>,
    stamp_ms: Option<i64>,
    signature: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::actor::{Actor, at, node};
    use crate::wire::decode::{Undecodable, decode};
    use crate::wire::message::{Kind, Message};
    use crate::wire::text::Text;
    use crate::wire::verify::{BadSignature, verify};

    fn two() -> (Actor, Actor) {
        (Actor::new(7, 0xAA), Actor::new(7, 0xBB))
    }

    /// A request of 7 under its new key, which carries the statement of the old one.
    fn request() -> Message {
        let (old, mut new) = two();
        new.rotation = Some(old.signs_over_to(&new, at(0)));
        let draft = new.draft(at(0), node(9), Kind::Request, None);
        new.sign(&draft)
    }

    #[test]
    fn a_statement_gives_the_known_answer() {
        let (old, new) = two();
        let rotation = old.signs_over_to(&new, at(0));
        let bytes = statement_bytes(node(7), rotation.old_key(), rotation.new_key(), rotation.at());
        let text = String::from_utf8(bytes).unwrap();
        let lines = "trustkeep rotation 1\n7\n5zTqbCtiV95yNV5HKqBaTEh+a0Y8Ap7TBt8vAbVja1g=\n\
                     fVnFYj3UCnSqTVoyrGRdOz+V2urkwiviVHbdakhvc4I=\n1772532000123\n";
        let signature = STANDARD.encode(rotation.signature());
        assert_eq!(
            (text.as_str(), signature.as_str()),
            (lines, "B+hzNuJb6WCsWubsynCuiwCH3u74aVUW6rWaDJ4VFyzEmsqbjBaWUdoQENxVWcwLbYL3zm3og7c20Sd2XDO7BA==")
        );
        let document = include_str!("../../docs/protocol.md");
        assert!(document.contains(&signature) && lines.lines().all(|line| document.contains(line)));
    }

    #[test]
    fn a_statement_holds_for_its_node_its_keys_and_its_time_alone() {
        let (old, new) = two();
        let (old_key, new_key) = (old.public_key(), new.public_key());
        let rotation = old.signs_over_to(&new, at(0));
        let check = |id: u32, old: &PublicKey, new, ms: i64, signature| {
            Rotation::check(node(id), *old.as_bytes(), new, at(ms).wall, signature)
        };
        let good = *rotation.signature();
        assert_eq!(check(7, &old_key, new_key, 0, good), Ok(rotation));
        let third = Actor::new(1, 0x22).public_key();
        assert_eq!(check(8, &old_key, new_key, 0, good), Err(BadStatement), "node");
        assert_eq!(check(7, &third, new_key, 0, good), Err(BadStatement), "old key");
        assert_eq!(check(7, &old_key, third, 0, good), Err(BadStatement), "new key");
        assert_eq!(check(7, &new_key, old_key, 0, good), Err(BadStatement), "the other way round");
        assert_eq!(check(7, &old_key, new_key, 1, good), Err(BadStatement), "time");
        let mut bad = good;
        bad[63] ^= 1;
        assert_eq!(check(7, &old_key, new_key, 0, bad), Err(BadStatement), "signature");
        // Nobody succeeds themselves, and under a weak key anybody could sign.
        let own = |bytes: &[u8]| old.signature(bytes);
        assert_eq!(Rotation::sign(node(7), old_key, old_key, at(0).wall, own), Err(BadStatement));
        let mut weak = [0; 32];
        weak[0] = 1;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&weak);
        assert_eq!(Rotation::check(node(7), weak, new_key, at(0).wall, signature), Err(BadStatement));
    }

    #[test]
    fn no_message_is_a_statement_and_no_statement_a_message() {
        let (old, new) = two();
        let bytes = statement_bytes(node(7), &old.public_key(), &new.public_key(), at(0).wall);
        assert!(!bytes.starts_with(b"trustkeep handshake") && !bytes.starts_with(b"handshake:"));
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 5);
    }

    #[test]
    fn a_message_carries_the_statement_of_its_own_key_or_is_refused() {
        let read = |message: &Message| Message::parse(&message.to_json()).unwrap();
        let verified = verify(decode(read(&request())).unwrap(), node(9)).unwrap();
        let rotation = verified.rotation().unwrap();
        assert_eq!((rotation.old_key(), rotation.new_key()), (&two().0.public_key(), verified.key()));
        assert!(request().to_json().len() < 1024);

        // Of another time, another node, another new key: the statement does not hold, and so nor does the message.
        type Change = fn(&mut Message);
        let changes: [Change; 2] = [
            |m| m.rotation.as_mut().unwrap().stamp_ms = Some(1),
            |m| m.rotation.as_mut().unwrap().old_key = Actor::new(1, 0x22).public_key().to_base64(),
        ];
        for change in changes {
            let mut changed = request();
            change(&mut changed);
            assert_eq!(verify(decode(read(&changed)).unwrap(), node(9)), Err(BadSignature));
        }
        let (mut other, stolen) = (Actor::new(8, 0xCC), request().rotation);
        let draft = other.draft(at(0), node(9), Kind::Request, None);
        let message = Message { rotation: stolen, ..other.sign(&draft) };
        assert_eq!(verify(decode(read(&message)).unwrap(), node(9)), Err(BadSignature));

        // Without it the message is what it was: the statement needs no word in the ten lines.
        let bare = verify(decode(read(&Message { rotation: None, ..request() })).unwrap(), node(9)).unwrap();
        assert!(bare.rotation().is_none() && bare.nonce() == verified.nonce());
    }

    #[test]
    fn the_statement_is_one_object_of_three_strict_fields() {
        let with = |rotation: &str| {
            let text = String::from_utf8(Message { rotation: None, ..request() }.to_json()).unwrap();
            Message::parse(text.replacen('{', &format!("{{\"rotation\":{rotation},"), 1).as_bytes())
        };
        let whole = serde_json::to_string(&request().rotation).unwrap();
        assert_eq!(with(&whole).unwrap(), request());
        assert_eq!(with("null").unwrap(), Message { rotation: None, ..request() });
        let RotationField { old_key, signature, .. } = request().rotation.unwrap();
        let ms = at(0).wall.as_millis();
        let later = format!(r#"{{"signature":"{signature}","later":[{{}}],"stamp_ms":{ms},"old_key":"{old_key}"}}"#);
        assert_eq!(with(&later).unwrap(), request());
        for bad in [
            "7".to_owned(),
            "\"x\"".to_owned(),
            "true".to_owned(),
            "[]".to_owned(),
            format!(r#"["{old_key}",{ms},"{signature}"]"#),
            format!(r#"{{"old_key":"{old_key}","old_key":"{old_key}"}}"#),
            r#"{"stamp_ms":1.5}"#.to_owned(),
        ] {
            assert!(with(&bad).is_err(), "{bad}");
        }
        let url_safe = old_key.replace('+', "-");
        assert_ne!(url_safe, old_key);
        for bad in [
            "{}".to_owned(),
            format!(r#"{{"old_key":"{old_key}","stamp_ms":{ms}}}"#),
            format!(r#"{{"old_key":"{old_key}","signature":"{signature}"}}"#),
            format!(r#"{{"old_key":"{old_key}","stamp_ms":{ms},"signature":null}}"#),
            format!(r#"{{"old_key":"{old_key} ","stamp_ms":{ms},"signature":"{signature}"}}"#),
            format!(r#"{{"old_key":"{url_safe}","stamp_ms":{ms},"signature":"{signature}"}}"#),
        ] {
            assert_eq!(decode(with(&bad).unwrap()), Err(Undecodable::Field("rotation")), "{bad}");
        }
    }

    #[test]
    fn a_message_of_version_1_carries_no_statement() {
        let (old, mut new) = two();
        let draft = new.draft(at(0), node(9), Kind::Request, None);
        let rotation = Some(RotationField::from(&old.signs_over_to(&new, at(0))));
        assert!(verify(decode(new.sign_v1(&draft)).unwrap(), node(9)).unwrap().is_version_1());
        let message = Message { rotation, ..new.sign_v1(&draft) };
        assert_eq!(decode(Message::parse(&message.to_json()).unwrap()), Err(Undecodable::Version));
    }

    #[test]
    fn the_longest_message_of_ours_carries_it_within_the_bound() {
        let (old, mut new) = two();
        new.rotation = Some(old.signs_over_to(&new, at(0)));
        let mut draft = new.draft(at(0), node(u32::MAX), Kind::Request, Some(crate::wire::message::Nonce([0; 16])));
        draft.justification = Text::filtered(&"\"".repeat(4096)).into_string();
        draft.reason = draft.justification.clone();
        let bytes = new.sign(&draft).to_json().len();
        assert!(draft.justification.len() == 1024 && bytes < 8 * 1024, "{bytes}");
    }

    #[test]
    fn debug_shows_no_signature() {
        let (old, new) = two();
        let text = format!("{:?} {:?}", old.signs_over_to(&new, at(0)), request());
        assert!(text.contains("Rotation") && !text.contains("signature"), "{text}");
    }
}
