//! Random lives of one node ([`life`](super::life)), and random bytes for the reader of messages.
#![forbid(unsafe_code)]

use proptest::prelude::*;

use super::actor::{Actor, at, node};
use super::life::{Life, OpBytes};
use crate::machine::arrival;
use crate::wire::message::{Kind, Message};
use crate::wire::verify::verify;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_keep_their_promises(
        policy in any::<u8>(),
        ops in prop::collection::vec(any::<OpBytes>(), 1..80),
    ) {
        let mut life = Life::new(policy);
        for op in ops {
            life.live(op);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..700usize) {
        let rules = Actor::new(9, 0x11).rules;
        let _ = Message::parse(&bytes);
        let mut peer = Actor::new(7, 0xAA);
        let draft = peer.draft(at(0), node(9), Kind::Request, None);
        let mut damaged = peer.sign(&draft).to_json();
        let cut = cut.min(damaged.len());
        let tail = damaged.split_off(cut);
        damaged.extend_from_slice(&bytes);
        damaged.extend(tail.into_iter().skip(bytes.len()));
        if let Ok(decoded) = Message::parse(&damaged).map_err(drop).and_then(|message| {
            arrival::decode(&rules, at(0), message, false).map_err(drop)
        }) {
            let _ = verify(decoded, node(9));
        }
    }
}
