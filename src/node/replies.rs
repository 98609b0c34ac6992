//! Which answer may go over which held connection.
//!
//! INVARIANT: an answer goes over a connection only if the request that came over it named the same sender, was signed by
//! the key that the answer is for, and had the nonce that the answer answers. So nobody fetches an answer to a request that
//! another key signed, whatever id and nonce they write. A farewell answers no request: it goes over any connection whose
//! request the key signed that it is for.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::transport::Reply;
use crate::peer::{NodeId, Nonce, PublicKey};

/// The requests that came over connections which are still held, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    asked: VecDeque<(Asked, Reply)>,
}

/// A request, as its signature names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) peer: NodeId,
    pub(crate) key: PublicKey,
    pub(crate) nonce: Nonce,
}

/// What a message looks for: a request of this peer, signed by this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sought {
    pub(crate) peer: NodeId,
    pub(crate) key: PublicKey,
    /// The one with this nonce. A farewell answers none: any will do.
    pub(crate) nonce: Option<Nonce>,
}

impl Sought {
    fn is(&self, asked: &Asked) -> bool {
        self.peer == asked.peer && self.key == asked.key && self.nonce.is_none_or(|nonce| nonce == asked.nonce)
    }
}

impl Replies {
    /// Remembers over which connection a request came. It must have been taken, and its signature verified.
    pub(crate) fn note(&mut self, asked: Asked, reply: Reply) {
        // A transport bounds what it holds. So what is open here is as bounded, and another source's requests displace
        // nothing that the transport still holds.
        self.asked.retain(|(_, other)| other.is_open());
        while self.asked.len() >= ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back((asked, reply));
    }

    /// The newest connection over which such a request came.
    pub(crate) fn take(&mut self, sought: &Sought) -> Option<Reply> {
        let at = self.asked.iter().rposition(|(asked, reply)| sought.is(asked) && reply.is_open())?;
        self.asked.remove(at).map(|(_, reply)| reply)
    }
}

/// For a transport that holds more than the built-in one.
const ASKED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::actor::{Actor, node};
    use std::sync::Arc;

    fn asked(peer: u32, seed: u8, nonce: u8) -> Asked {
        Asked { peer: node(peer), key: Actor::new(1, seed).public_key(), nonce: Nonce([nonce; 16]) }
    }

    fn sought(peer: u32, seed: u8, nonce: u8) -> Sought {
        let Asked { peer, key, nonce } = asked(peer, seed, nonce);
        Sought { peer, key, nonce: Some(nonce) }
    }

    #[test]
    fn a_farewell_takes_any_connection_of_its_key_and_none_of_another() {
        let (mut replies, open) = (Replies::default(), Arc::new(()));
        replies.note(asked(7, 0xAA, 1), Reply::new(0, &open));
        replies.note(asked(7, 0xAA, 2), Reply::new(1, &open));
        let any = |peer, seed| Sought { nonce: None, ..sought(peer, seed, 0) };
        assert_eq!((replies.take(&any(8, 0xAA)), replies.take(&any(7, 0xBB))), (None, None));
        assert_eq!(replies.take(&any(7, 0xAA)), Some(Reply::new(1, &open)), "the newest");
    }

    #[test]
    fn an_answer_takes_the_connection_of_its_sender_its_key_and_its_nonce_only() {
        let (mut replies, open) = (Replies::default(), Arc::new(()));
        replies.note(asked(7, 0xAA, 1), Reply::new(0, &open));
        for other in [sought(8, 0xAA, 1), sought(7, 0xBB, 1), sought(7, 0xAA, 2)] {
            assert_eq!(replies.take(&other), None, "{other:?}");
        }
        assert_eq!(replies.take(&sought(7, 0xAA, 1)), Some(Reply::new(0, &open)));
        assert_eq!(replies.take(&sought(7, 0xAA, 1)), None, "one answer for each");
    }

    #[test]
    fn the_newest_connection_that_is_open_is_the_one() {
        let mut replies = Replies::default();
        let [first, second, third] = [(); 3].map(Arc::new);
        for (number, open) in [&first, &second, &third].into_iter().enumerate() {
            replies.note(asked(7, 0xAA, 1), Reply::new(number as u64, open));
        }
        drop(third);
        assert_eq!(replies.take(&sought(7, 0xAA, 1)), Some(Reply::new(1, &second)));
        assert_eq!(replies.take(&sought(7, 0xAA, 1)), Some(Reply::new(0, &first)));
        assert_eq!(replies.take(&sought(7, 0xAA, 1)), None);
    }

    #[test]
    fn requests_whose_connection_is_closed_push_nothing_out() {
        let (mut replies, open) = (Replies::default(), Arc::new(()));
        replies.note(asked(7, 0xAA, 1), Reply::new(0, &open));
        for number in 1..5000 {
            replies.note(asked(9, 0xBB, 1), Reply::new(number, &Arc::new(())));
        }
        assert!(replies.asked.len() <= 2, "{}", replies.asked.len());
        assert!(replies.take(&sought(9, 0xBB, 1)).is_none());
        assert_eq!(replies.take(&sought(7, 0xAA, 1)), Some(Reply::new(0, &open)));
        let all = Arc::new(());
        for number in 0..5000 {
            replies.note(asked(9, 0xBB, 1), Reply::new(number, &all));
        }
        assert_eq!(replies.asked.len(), ASKED_MAX);
    }
}
