//! Whether the registry contradicts a message, and what follows where it could not be asked.
#![forbid(unsafe_code)]

use super::input::{Lookup, Received};

/// Rule R-17: whether the registry knows the sender under another key.
pub(super) fn is_contradicted(received: &Received) -> bool {
    matches!(&received.lookup, Lookup::Found { key, .. } if key != received.message.key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Allowed;
    use crate::machine::view::PendingKind;
    use crate::testing::actor::{Actor, Way, at, sent};
    use crate::wire::message::Kind;
    use crate::wire::sign::Draft;

    fn two() -> (Actor, Actor) {
        (Actor::new(7, 0xAA), Actor::new(9, 0x11))
    }

    /// `us`, after each way in which a node may trust without an operator, and what the peer then sends.
    type Trusting = fn(&mut Actor, &mut Actor) -> Draft;

    fn request_of(us: &Actor, peer: &mut Actor) -> Draft {
        peer.draft(at(5), us.id(), Kind::Request, None)
    }

    fn accept_of(us: &mut Actor, peer: &mut Actor, named: bool) -> Draft {
        let expected = named.then(|| peer.public_key());
        let asked = us.request(at(0), peer.id(), expected).unwrap();
        peer.draft(at(5), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce))
    }

    #[test]
    fn while_the_registry_cannot_be_asked_no_rule_trusts_whom_it_might_contradict() {
        let ways: [(&str, Trusting); 5] = [
            ("R-24", |us, peer| {
                us.request(at(0), peer.id(), Some(peer.public_key())).unwrap();
                request_of(us, peer)
            }),
            ("R-66, by key", |us, peer| {
                let entry = Allowed::new(peer.id(), peer.public_key());
                us.rules.policy.allow_list.insert(entry);
                request_of(us, peer)
            }),
            ("R-66, everybody", |us, peer| {
                us.rules.policy.auto_approve = true;
                request_of(us, peer)
            }),
            ("R-32, by our caller", |us, peer| accept_of(us, peer, true)),
            ("R-67", |us, peer| {
                us.rules.policy.trust_on_first_use = true;
                accept_of(us, peer, false)
            }),
        ];
        for (rule, prepare) in ways {
            for lookup in [Lookup::Failed, Lookup::Unknown, Lookup::NotAsked] {
                let (mut us, mut peer) = two();
                let draft = prepare(&mut us, &mut peer);
                let trusts = lookup != Lookup::Failed;
                us.hear_from(at(10), &peer, &draft, Way { lookup, ..Way::open() }).unwrap();
                assert_eq!(us.tables.trusted.contains_key(&peer.id()), trusts, "{rule}");
                let waits = us.tables.pending.get(&peer.id());
                assert_eq!(waits.is_some(), !trusts, "{rule}");
                if let Some(entry) = waits {
                    let answered = draft.kind == Kind::Accept;
                    assert_eq!(entry.kind == PendingKind::AnsweredUnvouched, answered, "{rule}");
                    assert!(
                        !entry.authentic && us.tables.floor.get(&peer.id()).is_none_or(|floor| floor.key.is_none())
                    );
                    assert_eq!(us.tables.outgoing.contains_key(&peer.id()), answered || rule == "R-24");
                    // The same bytes again, once the registry can be asked.
                    let lookup = Lookup::Found { key: peer.public_key(), networks: Vec::new() };
                    us.hear_from(at(20), &peer, &draft, Way { lookup, ..Way::open() }).unwrap();
                    assert!(us.tables.trusted.contains_key(&peer.id()), "{rule}");
                }
            }
        }
    }

    #[test]
    fn a_tunnel_vouches_for_an_accept_though_the_registry_cannot_be_asked() {
        let (mut us, mut peer) = two();
        let accept = accept_of(&mut us, &mut peer, false);
        us.hear_from(at(10), &peer, &accept, Way { lookup: Lookup::Failed, ..Way::tunnel(peer.id()) }).unwrap();
        assert!(us.tables.trusted.contains_key(&peer.id()));
        // And what is restrictive needs no registry: the peer takes it back, and refuses.
        let revoke = peer.draft(at(15), us.id(), Kind::Revoke, None);
        us.hear_from(at(20), &peer, &revoke, Way::unasked()).unwrap();
        assert!(us.tables.trusted.is_empty());
        let asked = us.request(at(30), peer.id(), Some(peer.public_key())).unwrap();
        let reject = peer.draft(at(35), us.id(), Kind::Reject, Some(sent(&asked).unwrap().nonce));
        us.hear_from(at(40), &peer, &reject, Way::unasked()).unwrap();
        assert!(us.tables.outgoing.is_empty());
    }
}
