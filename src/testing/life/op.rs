//! What can happen to a node, each as eight bytes: whatever they are, they are an operation, and ranges are small, so that
//! random ones meet.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, reason = "a test double: its own mistakes end the test")]

use crate::peer::NodeId;
use crate::testing::actor::node;
use crate::wire::message::Kind;

/// Something that happens to the node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Hear(Heard),
    /// A copy, by the way that the message came or by another.
    HearAgain {
        which: u8,
        by: Option<(u8, u8)>,
    },
    Ask {
        peer: NodeId,
        expected: Option<u8>,
        force: bool,
        automatic: bool,
        text_bytes: u16,
        lift: bool,
    },
    Approve {
        peer: NodeId,
        fingerprint: Option<u8>,
        lift: bool,
        known: u8,
        /// Whether the operator names the entry that is shown, or one that never was.
        entry: Option<bool>,
    },
    Reject {
        peer: NodeId,
    },
    Cancel {
        peer: NodeId,
    },
    Revoke {
        peer: NodeId,
    },
    Grant {
        peer: NodeId,
        key: Option<u8>,
        lift: bool,
        /// When trust began, if the record says so: so long before now.
        age: Option<i64>,
    },
    /// A mark is set or forgotten, or somebody ignored.
    Mark {
        what: u8,
        peer: NodeId,
        key: u8,
    },
    AdoptKey {
        peer: NodeId,
        key: u8,
    },
    ReportKeyChange {
        peer: NodeId,
        key: u8,
    },
    LookedUp {
        peer: NodeId,
        known: u8,
    },
    /// A record is compared with the registry.
    Compared {
        peer: NodeId,
        was: u8,
        found: u8,
    },
    /// A message that was to leave left, or did not.
    Left {
        which: u8,
        delivered: bool,
    },
    /// It is time to try one again; `newest` says whether under the nonce of today.
    Retry {
        peer: NodeId,
        request: bool,
        newest: bool,
    },
    /// A relay is about to be given our request.
    Relaying {
        peer: NodeId,
        newest: bool,
    },
    /// The node has a new key since so long, and tells this peer.
    Announce {
        peer: NodeId,
        ago: i64,
    },
    Disagreement,
    Stopping,
    /// The node starts with what an import may have left: entries about the node itself, or none.
    OwnEntries {
        some: u8,
    },
    Housekeeping,
    Restart {
        policy: u8,
    },
    Pass {
        wall: i64,
        tick: i64,
    },
}

/// A message, as a peer or a forger makes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) sender: NodeId,
    pub(super) key: u8,
    pub(super) kind: Kind,
    pub(super) in_version_1: bool,
    pub(super) skew: i64,
    /// Whether it answers our request; of a request, whether it is a try of one that is owed an answer.
    pub(super) answers: bool,
    pub(super) way: u8,
    pub(super) known: u8,
    /// Which key named the message's as its successor, if one did.
    pub(super) named_by: Option<u8>,
    /// What the shell got wrong before: nothing, for whom the message is, or the checks of its form.
    pub(super) mistake: Mistake,
}

/// A mistake of the shell around the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    None,
    Receiver,
    Form,
}

/// One operation as bytes; whatever they are, they are one.
pub type OpBytes = [u8; 8];

impl Op {
    /// The one that these bytes are.
    pub(super) fn from_bytes([what, who, a, b, c, d, e, f]: OpBytes) -> Self {
        // Node 7 is ourselves: it must be refused as a peer.
        let peer = node(pick([1, 2, 3, 4, 1, 2, 3, 7], who));
        // Two keys meet often; where a peer has more, they are seldom.
        let key = |byte: u8| if byte < 208 { byte % 2 } else { 2 + byte % 4 };
        let maybe = |byte: u8| if byte < 208 { (byte % 3).checked_sub(1) } else { Some(2 + byte % 4) };
        let yes = |byte: u8| byte % 2 == 1;
        let long = i64::from(u16::from_le_bytes([e, f]));
        match what % 32 {
            0..=11 => Self::Hear(Heard {
                sender: peer,
                key: key(a),
                kind: pick(
                    [
                        Kind::Request,
                        Kind::Request,
                        Kind::Request,
                        Kind::Accept,
                        Kind::Accept,
                        Kind::Accept,
                        Kind::Reject,
                        Kind::Revoke,
                    ],
                    b,
                ),
                in_version_1: b >= 176,
                skew: pick([long % 1000, -(long % 1000), 0, long, -300_001, 30_000, 30_001, -(1 << 40)], c),
                answers: c >= 128,
                way: d % 8,
                known: d / 8,
                named_by: (what >= 160).then_some(key(e)),
                mistake: match f {
                    255 => Mistake::Receiver,
                    254 => Mistake::Form,
                    _ => Mistake::None,
                },
            }),
            12..=14 => Self::HearAgain { which: a, by: (b >= 160).then_some((c % 8, d / 8)) },
            15..=17 => {
                // Few are too long, for every check of the tables reads them all.
                let text_bytes = if d % 16 == 15 { 2000 } else { u16::from(d) };
                Self::Ask { peer, expected: maybe(a), force: yes(b), automatic: yes(c), text_bytes, lift: yes(e) }
            }
            18..=19 => Self::Approve {
                peer,
                fingerprint: maybe(a),
                lift: yes(e),
                known: if b < 160 { 0 } else { b },
                entry: pick([None, None, None, Some(true), None, None, None, Some(false)], c),
            },
            20 => Self::Reject { peer },
            21 => Self::Cancel { peer },
            22 => Self::Revoke { peer },
            23 => Self::Grant { peer, key: maybe(a), lift: yes(e), age: pick([Some(0), Some(0), None, Some(long)], b) },
            24 => Self::AdoptKey { peer, key: key(a) },
            25 => Self::ReportKeyChange { peer, key: key(a) },
            26 => Self::LookedUp { peer, known: a },
            27 => Self::Housekeeping,
            28 => Self::Restart { policy: a },
            29 => Self::Mark { what: a, peer, key: key(b) },
            31 => match a % 16 {
                0..=3 => Self::Left { which: b, delivered: false },
                4 => Self::Left { which: b, delivered: true },
                5..=7 => Self::Retry { peer, request: yes(b), newest: c < 224 },
                8 | 9 => Self::Relaying { peer, newest: c < 224 },
                10 => Self::Announce { peer, ago: long },
                11 | 12 => Self::Compared { peer, was: key(b), found: key(c) },
                13 => Self::Disagreement,
                14 => Self::Stopping,
                _ => Self::OwnEntries { some: b },
            },
            _ => Self::Pass {
                wall: pick([long, long * 2, -long, 0, 1 << 40, -(1 << 40), long, long], a),
                tick: pick([long, long * 2, 31 * 24 * 3_600_000, 0], b),
            },
        }
    }
}

/// One of a few, by a byte.
fn pick<T: Copy, const N: usize>(from: [T; N], byte: u8) -> T {
    from.into_iter().cycle().nth(usize::from(byte)).expect("never none")
}
