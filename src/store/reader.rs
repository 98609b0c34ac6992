//! The handle that a hot thread asks on every packet.
#![forbid(unsafe_code)]

use super::receipt::Generation;
use super::shared::Version;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::sync::CellReader;

/// A reader of its own for each thread; cheap to clone, may outlive the store.
///
/// After the store was closed or dropped it answers by the last state for ever, in which nobody's trust ends: who outlives
/// the store must not decide by it.
///
/// It keeps the version it saw last, looks whether there is a newer one before every answer, and sees every change that
/// was published before the call. A reader that is never asked keeps its version (at most one whole map) in memory.
///
/// # Ordering
/// All methods are wait-free and answer from whole generations, in order, never going back. None frees an old version
/// while the store lives: after the first (which may allocate), none allocates or makes a system call either.
#[derive(Clone)]
pub struct TrustReader(CellReader<Version>);

impl core::fmt::Debug for TrustReader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TrustReader").finish_non_exhaustive()
    }
}

impl TrustReader {
    pub(super) fn new(cell: CellReader<Version>) -> Self {
        Self(cell)
    }

    /// Whether the peer is trusted.
    ///
    /// # Complexity
    /// Two dependent loads up to some ten thousand trusted peers, three up to some million, one more for every thousandfold
    /// of that; no branch depends on the peer.
    #[must_use]
    #[inline]
    pub fn is_trusted(&mut self, peer: NodeId) -> bool {
        self.0.load().trusted.contains(peer)
    }

    /// Whether each of these peers is trusted, all in one generation: the answer for the first peer is put first, and so
    /// on, for as many as there are of both.
    ///
    /// # Complexity
    /// As asking for each, but in a large map faster, since their memory is fetched at the same time.
    ///
    /// # Examples
    /// ```
    /// use trustkeep::{NodeId, TrustRecord, TrustStore};
    /// let store = TrustStore::in_memory();
    /// let peers = [7, 8, 9].map(|id| NodeId::new(id)).map(Option::unwrap);
    /// let _ = store.grant(TrustRecord::new(peers[1], None))?;
    /// let mut answers = [false; 3];
    /// store.reader().are_trusted(&peers, &mut answers);
    /// assert_eq!(answers, [false, true, false]);
    /// # Ok::<(), trustkeep::WriteError<TrustRecord>>(())
    /// ```
    #[inline]
    pub fn are_trusted(&mut self, peers: &[NodeId], answers: &mut [bool]) {
        self.0.load().trusted.contains_each(peers, answers);
    }

    /// Whether the peer is trusted under this key. Of a record without a key: no.
    #[must_use]
    #[inline]
    pub fn is_trusted_with_key(&mut self, peer: NodeId, key: &PublicKey) -> bool {
        self.0.load().trusted.get(peer).is_some_and(|record| record.public_key.as_ref() == Some(key))
    }

    /// The peer's record, if it is trusted.
    #[must_use]
    #[inline]
    pub fn get(&mut self, peer: NodeId) -> Option<TrustRecord> {
        self.0.load().trusted.get(peer)
    }

    /// The generation that answers come from: the newest that changed a trusted record.
    #[must_use]
    #[inline]
    pub fn generation(&mut self) -> Generation {
        Generation::new(self.0.load().generation)
    }
}
