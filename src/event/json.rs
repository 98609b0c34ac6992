//! Events as JSON: the one schema that `docs/cli.md` promises, for the program and for whoever embeds the crate.
//!
//! An event is an object with `topic`, `peer_node_id` (`null` if it is about no peer) and `payload`, an object whose fields
//! depend on the topic. What happens has one name in all of it; no name changes within a major version.
#![forbid(unsafe_code)]

use serde::ser::{Serialize, SerializeMap as _, SerializeStruct as _, Serializer};

use super::Event;
use crate::peer::{KeyFault, NodeId};

impl Event {
    /// The event as JSON, one object on one line: what [`Serialize`] makes of it.
    ///
    /// # Source
    /// `docs/cli.md`, section `watch`, which the program keeps to as well; it adds when it told of the event.
    ///
    /// # Examples
    /// ```
    /// use trustkeep::{Event, NodeId};
    /// let event = Event::Received { peer: NodeId::new(9).ok_or("no id")?, justification: "not \"you\"".to_owned() };
    /// let json = r#"{"topic":"handshake.received","peer_node_id":9,"payload":{"justification":"not \"you\""}}"#;
    /// assert_eq!(event.to_json(), json);
    /// # Ok::<(), &str>(())
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        // Writing texts and integers to memory has no way to fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The part of its JSON that depends on the topic.
    pub const fn payload(&self) -> impl Serialize + '_ {
        Payload(self)
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Event", 3)?;
        object.serialize_field("topic", self.topic())?;
        object.serialize_field("peer_node_id", &self.peer().map(NodeId::get))?;
        object.serialize_field("payload", &self.payload())?;
        object.end()
    }
}

struct Payload<'a>(&'a Event);

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_map(None)?;
        match self.0 {
            Event::Received { justification, .. } => fields.serialize_entry("justification", justification)?,
            Event::Pending { justification, fingerprint, replaces, proven_by, set_aside, marks, .. } => {
                fields.serialize_entry("justification", justification)?;
                fields.serialize_entry("fingerprint", &fingerprint.to_string())?;
                fields.serialize_entry("replaces", &replaces.map(|replaces| replaces.to_string()))?;
                fields.serialize_entry("proven_by", &proven_by.map(|key| key.to_string()))?;
                match set_aside {
                    Some(KeyFault::Replaced(by)) => {
                        fields.serialize_entry("replaced_by", &by.fingerprint().to_string())?
                    }
                    Some(KeyFault::Void(why)) => fields.serialize_entry("void", why.name())?,
                    None => {}
                }
                if let Some(mark) = marks.peer {
                    fields.serialize_entry("revoked_at", &mark.at.as_millis())?;
                    fields.serialize_entry("revocation", &mark.id.to_string())?;
                }
                if let Some(mark) = marks.key {
                    fields.serialize_entry("key_revoked_at", &mark.at.as_millis())?;
                    fields.serialize_entry("key_revocation", &mark.id.to_string())?;
                }
            }
            Event::AutoApproved { reason, label, .. } => {
                fields.serialize_entry("reason", reason.name())?;
                fields.serialize_entry("label", label)?;
            }
            Event::Rejected { reason, fingerprint, authentic, .. } => {
                fields.serialize_entry("reason", reason)?;
                fields.serialize_entry("authentic", authentic)?;
                fields.serialize_entry("fingerprint", &fingerprint.to_string())?;
            }
            Event::TrustChanged { state, reason, .. } => {
                fields.serialize_entry("state", state.name())?;
                fields.serialize_entry("reason", reason.name())?;
            }
            Event::KeyMismatch { source, expected, shown, ended, .. } => {
                fields.serialize_entry("source", &source.map(|source| source.to_string()))?;
                fields.serialize_entry("expected", &expected.to_string())?;
                fields.serialize_entry("shown", &shown.to_string())?;
                fields.serialize_entry("ended", ended)?;
            }
            Event::RegistryDisagrees { compared, contradicted } => {
                fields.serialize_entry("compared", compared)?;
                fields.serialize_entry("contradicted", contradicted)?;
            }
            Event::RotationRefused { old, new, fault, .. } => {
                fields.serialize_entry("old_fingerprint", &old.to_string())?;
                fields.serialize_entry("new_fingerprint", &new.to_string())?;
                fields.serialize_entry("reason", fault.name())?;
            }
            Event::Lagged { lost } => fields.serialize_entry("lost", lost)?,
            Event::KeyRevoked { fingerprint } | Event::KeyRevocationForgotten { fingerprint } => {
                fields.serialize_entry("fingerprint", &fingerprint.to_string())?;
            }
            Event::Approved { .. }
            | Event::Revoked { .. }
            | Event::RevocationForgotten { .. }
            | Event::RevokedByPeer { .. } => {}
        }
        fields.end()
    }
}

#[cfg(all(test, feature = "handshake"))]
mod tests {
    use super::super::{AutoReason, ChangeReason, RotationFault, TrustState};
    use super::*;
    use crate::peer::Marks;
    use crate::testing::actor::{Actor, mark, node};

    #[test]
    fn every_event_is_one_object_with_the_fields_of_its_topic() {
        let peer = node(9);
        let text = || "why\n\"so\"".to_owned();
        let [fingerprint, old] = [0x11, 0x22].map(|seed| Actor::new(9, seed).public_key().fingerprint());
        let pending = |replaces: Option<_>, marks| {
            let proven_by = replaces.map(|_| old);
            let justification = String::new();
            Event::Pending { peer, justification, fingerprint, replaces, proven_by, set_aside: None, marks }
        };
        let events = [
            (Event::Received { peer, justification: text() }, r#"{"justification":"why\n\"so\""}"#.to_owned()),
            (
                pending(Some(fingerprint), Marks::default()),
                format!(
                    r#"{{"justification":"","fingerprint":"{fingerprint}","replaces":"{fingerprint}","proven_by":"{old}"}}"#
                ),
            ),
            (
                pending(None, Marks::default()),
                format!(r#"{{"justification":"","fingerprint":"{fingerprint}","replaces":null,"proven_by":null}}"#),
            ),
            (
                Event::RotationRefused { peer, old, new: fingerprint, fault: RotationFault::SecondSuccessor },
                format!(
                    r#"{{"old_fingerprint":"{old}","new_fingerprint":"{fingerprint}","reason":"second_successor"}}"#
                ),
            ),
            (
                pending(None, Marks::new(Some(mark(0)), Some(mark(1)))),
                format!(r#"{{"justification":"","fingerprint":"{fingerprint}","replaces":null,"proven_by":null,"#)
                    + r#""revoked_at":1772532000123,"#
                    + r#""revocation":"0000000000000001","key_revoked_at":1772532000124,"#
                    + r#""key_revocation":"0000000000000001"}"#,
            ),
            (
                Event::AutoApproved { peer, reason: AutoReason::AllowListed, label: Some("first".to_owned()) },
                r#"{"reason":"allow_listed","label":"first"}"#.to_owned(),
            ),
            (
                Event::AutoApproved { peer, reason: AutoReason::SameNetwork, label: None },
                r#"{"reason":"same_network","label":null}"#.to_owned(),
            ),
            (Event::Approved { peer }, "{}".to_owned()),
            (
                Event::Rejected { peer, reason: text(), fingerprint, authentic: true },
                format!(r#"{{"reason":"why\n\"so\"","authentic":true,"fingerprint":"{fingerprint}"}}"#),
            ),
            (
                Event::TrustChanged {
                    peer,
                    state: TrustState::Granted,
                    reason: ChangeReason::Auto(AutoReason::Mutual),
                },
                r#"{"state":"granted","reason":"mutual"}"#.to_owned(),
            ),
            (Event::Revoked { peer }, "{}".to_owned()),
            (Event::RevocationForgotten { peer }, "{}".to_owned()),
            (Event::RevokedByPeer { peer }, "{}".to_owned()),
            (
                Event::KeyMismatch {
                    peer,
                    source: Some(crate::peer::Source::from_address([10, 0, 0, 3].into())),
                    expected: fingerprint,
                    shown: fingerprint,
                    ended: false,
                },
                format!(r#"{{"source":"10.0.0.3","expected":"{fingerprint}","shown":"{fingerprint}","ended":false}}"#),
            ),
            (
                Event::KeyMismatch { peer, source: None, expected: fingerprint, shown: fingerprint, ended: true },
                format!(r#"{{"source":null,"expected":"{fingerprint}","shown":"{fingerprint}","ended":true}}"#),
            ),
            (
                Event::RegistryDisagrees { compared: 80, contradicted: 9 },
                r#"{"compared":80,"contradicted":9}"#.to_owned(),
            ),
            (Event::KeyRevoked { fingerprint }, format!(r#"{{"fingerprint":"{fingerprint}"}}"#)),
            (Event::KeyRevocationForgotten { fingerprint }, format!(r#"{{"fingerprint":"{fingerprint}"}}"#)),
            (Event::Lagged { lost: 3 }, r#"{"lost":3}"#.to_owned()),
        ];
        for (event, payload) in events {
            let of_nobody = matches!(
                event,
                Event::Lagged { .. }
                    | Event::RegistryDisagrees { .. }
                    | Event::KeyRevoked { .. }
                    | Event::KeyRevocationForgotten { .. }
            );
            let peer = if of_nobody { "null" } else { "9" };
            let topic = event.topic();
            let whole = format!(r#"{{"topic":"{topic}","peer_node_id":{peer},"payload":{payload}}}"#);
            assert_eq!(event.to_json(), whole);
        }
    }

    #[test]
    fn no_two_reasons_share_a_name_and_every_name_is_promised() {
        use AutoReason::{AllowListed, AutoApprove, Mutual, SameNetwork};
        let auto = [Mutual, SameNetwork, AllowListed, AutoApprove].map(ChangeReason::Auto);
        let others = [
            ChangeReason::Direct,
            ChangeReason::Approved,
            ChangeReason::Accepted,
            ChangeReason::FirstUse,
            ChangeReason::Revoked,
            ChangeReason::RevokedByPeer,
            ChangeReason::KeyChanged,
            ChangeReason::KeyRevoked,
            ChangeReason::Removed,
            ChangeReason::KeyAdopted,
            ChangeReason::OwnEntry,
            ChangeReason::KeyRotated,
        ];
        let names: std::collections::BTreeSet<_> = auto.iter().chain(&others).map(|reason| reason.name()).collect();
        assert_eq!(names.len(), 16);
        let promised = include_str!("../../docs/cli.md");
        let faults = [RotationFault::SecondSuccessor, RotationFault::RevokedKey].map(RotationFault::name);
        for name in names.into_iter().chain(faults) {
            assert!(promised.contains(&format!("`{name}`")), "{name} is not in docs/cli.md");
        }
    }
}
