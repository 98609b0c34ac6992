//! Whom a node of the program trusts without asking its operator: the settings of `node`. By default nobody.
#![forbid(unsafe_code)]

use clap::{Args, ValueEnum};

use crate::config::{Allowed, OnRotation, Policy};
use crate::peer::{NodeId, PublicKey};
use crate::wire::open_key::parse_key;

/// What a node takes that it need not; all of it off unless given.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Trust without an operator")]
pub(super) struct PolicyArguments {
    /// A network that this node is in, 1 to 65535; once for each, the preferred one first. A peer that the peers file
    /// has a key for, and that is in one of them too, is trusted when it asks
    #[arg(long = "own-network", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    own_networks: Vec<u16>,
    /// A peer that is trusted when it asks; once for each. Under this key, or without one (`ID` or `ID,,LABEL`) under that
    /// of the peers file. The label is told when it happens
    #[arg(long = "allow", value_name = "ID[,KEY[,LABEL]]", value_parser = allowed)]
    allow: Vec<Allowed>,
    /// Trust every peer that asks, under whatever key it shows: for networks where everybody who can reach this node is
    /// welcome
    #[arg(long)]
    auto_approve: bool,
    /// Trust the key in the first answer to a request of this node though nobody vouches for it
    #[arg(long)]
    trust_on_first_use: bool,
    /// Show the operator requests of protocol version 1, too; over TCP nothing else of version 1 is believed
    #[arg(long)]
    accept_v1: bool,
    /// What to do when a trusted peer comes with a new key that its old key has named
    #[arg(long, value_enum, default_value = "ask")]
    on_rotation: Rotations,
}

/// What a policy changes, in words, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ToldPolicy {
    /// What it trusts without an operator. Empty: nothing.
    pub(super) more: String,
    /// What it takes, or leaves, besides; trust is the operator's still. Empty: what every node does.
    pub(super) besides: String,
}

pub(super) fn told(policy: &Policy) -> ToldPolicy {
    let Policy { own_networks, allow_list, auto_approve, trust_on_first_use, accept_v1, on_rotation } = policy;
    let mut more = Vec::new();
    if !own_networks.is_empty() {
        more.push(format!("who is in one of the networks {own_networks:?}"));
    }
    if !allow_list.entries.is_empty() {
        let ids: Vec<_> = allow_list.entries.keys().map(|peer| peer.get()).collect();
        more.push(format!("the peers {ids:?}"));
    }
    let those = |all: &[(bool, &str)]| -> Vec<String> {
        all.iter().filter(|(is_so, _)| *is_so).map(|(_, what)| (*what).to_owned()).collect()
    };
    more.extend(those(&[
        (*auto_approve, "whoever asks"),
        (*trust_on_first_use, "the first answer to a request"),
        (*on_rotation == OnRotation::Take, "new keys that the old ones have named"),
    ]));
    let besides = those(&[
        (*accept_v1, "requests of version 1 are shown"),
        (*on_rotation == OnRotation::Refuse, "no new key is taken or shown, though the old one has named it"),
    ]);
    ToldPolicy { more: more.join("; "), besides: besides.join("; ") }
}

/// Says in the log what of a policy cannot be meant: the node itself, or its key, among those who are allowed.
pub(super) fn tell_oddities(policy: &Policy, own_id: NodeId, own_key: &PublicKey) {
    for (peer, entries) in &policy.allow_list.entries {
        if *peer == own_id {
            tracing::warn!(%peer, "`--allow` names this node itself, which never asks");
        } else if entries.iter().any(|entry| entry.key.as_ref() == Some(own_key)) {
            tracing::warn!(%peer, "`--allow` names this node's own key for another peer");
        }
    }
}

/// What to do with a trusted peer's new key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Rotations {
    /// Show it to the operator, as proven by the old key
    #[default]
    Ask,
    /// Trust it in the place of the old one: whoever has stolen the old key can do the same
    Take,
    /// Drop what comes under it
    Refuse,
}

impl PolicyArguments {
    pub(super) fn into_policy(self) -> Policy {
        let Self { own_networks, allow, auto_approve, trust_on_first_use, accept_v1, on_rotation } = self;
        let on_rotation = match on_rotation {
            Rotations::Ask => OnRotation::Ask,
            Rotations::Take => OnRotation::Take,
            Rotations::Refuse => OnRotation::Refuse,
        };
        let policy = Policy::default().own_networks(own_networks);
        let policy = allow.into_iter().fold(policy, Policy::allow);
        let policy = policy.auto_approve(auto_approve).trust_on_first_use(trust_on_first_use).accept_v1(accept_v1);
        policy.on_rotation(on_rotation)
    }
}

/// `ID`, `ID,KEY` or `ID,KEY,LABEL`; the key may be empty. Neither an id nor a key has a comma in it, a label may.
fn allowed(text: &str) -> Result<Allowed, String> {
    let mut parts = text.splitn(3, ',');
    let peer: NodeId = parts.next().unwrap_or_default().parse().map_err(|error| format!("{error}"))?;
    let key = match parts.next().unwrap_or_default() {
        "" => None,
        key => Some(parse_key(key).map_err(|error| format!("{error}"))?),
    };
    let entry = Allowed::new(peer, key);
    Ok(match parts.next() {
        None => entry,
        Some("") => return Err("an empty label".to_owned()),
        Some(label) => entry.label(label),
    })
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    const KEY: &str = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";

    #[test]
    fn an_entry_of_the_allow_list_is_an_id_a_key_and_a_label() {
        let (nine, key) = (NodeId::new(9).unwrap(), KEY.parse::<PublicKey>().unwrap());
        assert_eq!(allowed("9"), Ok(Allowed::new(nine, None)));
        assert_eq!(allowed(&format!("9,{KEY}")), Ok(Allowed::new(nine, key)));
        assert_eq!(allowed(&format!("9,{KEY},the gate, north")), Ok(Allowed::new(nine, key).label("the gate, north")));
        assert_eq!(allowed("9,,gate"), Ok(Allowed::new(nine, None).label("gate")));
        for bad in ["", "0", "x", "9,x", "9 ", &format!("9,{}", &KEY[1..]), &format!("9,{KEY},"), ",gate"] {
            assert!(allowed(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_trusts_more_is_told_as_that_and_what_trusts_less_is_not() {
        let of = |policy: Policy| {
            let ToldPolicy { more, besides } = told(&policy);
            (!more.is_empty(), !besides.is_empty())
        };
        let nine = NodeId::new(9).unwrap();
        let plain = Policy::default;
        assert_eq!(of(plain()), (false, false));
        for more in [
            plain().own_networks([6]),
            plain().allow(Allowed::new(nine, None)),
            plain().auto_approve(true),
            plain().trust_on_first_use(true),
            plain().on_rotation(OnRotation::Take),
        ] {
            assert_eq!(of(more.clone()), (true, false), "{more:?}");
        }
        for besides in [plain().accept_v1(true), plain().on_rotation(OnRotation::Refuse)] {
            assert_eq!(of(besides.clone()), (false, true), "{besides:?}");
        }
        assert_eq!(of(plain().auto_approve(true).on_rotation(OnRotation::Refuse)), (true, true));
    }

    #[test]
    fn nothing_given_is_the_default_and_each_setting_is_its_own() {
        assert_eq!(PolicyArguments::default().into_policy(), Policy::default());
        let given = PolicyArguments { own_networks: vec![6, 5], ..PolicyArguments::default() };
        assert_eq!(given.into_policy(), Policy::default().own_networks([6, 5]));
        for (given, policy) in [
            (PolicyArguments { auto_approve: true, ..Default::default() }, Policy::default().auto_approve(true)),
            (
                PolicyArguments { trust_on_first_use: true, ..Default::default() },
                Policy::default().trust_on_first_use(true),
            ),
            (PolicyArguments { accept_v1: true, ..Default::default() }, Policy::default().accept_v1(true)),
            (
                PolicyArguments { on_rotation: Rotations::Take, ..Default::default() },
                Policy::default().on_rotation(OnRotation::Take),
            ),
            (
                PolicyArguments { on_rotation: Rotations::Refuse, ..Default::default() },
                Policy::default().on_rotation(OnRotation::Refuse),
            ),
        ] {
            assert_eq!(given.into_policy(), policy);
        }
    }
}
