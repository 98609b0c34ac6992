//! The watermark of a journal: how much of it was acknowledged.
//!
//! What must hold: it stands far from the groups, so that what spoils the newest of them leaves it alone. It is written over
//! again and again; what is no whole watermark counts as none, makes nothing known, and hides nothing.
#![forbid(unsafe_code)]

use super::{HEADER_BYTES, JournalHead, MARK_AT, Mark, is_sealed, seal, take};

/// What stands at [`WATERMARK_AT`] once the owner has been idle for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// The newest generation that was acknowledged.
    pub(crate) generation: u64,
    /// Where its group ends.
    pub(crate) used_bytes: u64,
}

impl Watermark {
    pub(crate) const BYTES: usize = HEADER_BYTES;

    pub(crate) fn encode(&self, file_tag: u32) -> [u8; Self::BYTES] {
        seal(&[
            WATERMARK_MAGIC,
            &[0; 4],
            &file_tag.to_le_bytes(),
            &self.generation.to_le_bytes(),
            &self.used_bytes.to_le_bytes(),
        ])
    }

    /// The watermark, if there is a whole one, of this very file.
    pub(super) fn decode(file: &[u8], head: &JournalHead, file_tag: u32) -> Option<Self> {
        if head.version < WATERMARKS_SINCE {
            return None;
        }
        let at = usize::try_from(WATERMARK_AT).ok()?;
        let bytes = file.get(at..)?.first_chunk::<{ Self::BYTES }>()?;
        let mut rest = bytes.get(WATERMARK_MAGIC.len() + 8..)?;
        let generation = u64::from_le_bytes(take(&mut rest));
        let mark = Self { generation, used_bytes: u64::from_le_bytes(take(&mut rest)) };
        (is_sealed(bytes) && mark.encode(file_tag) == *bytes).then_some(mark)
    }
}

const WATERMARK_MAGIC: &[u8; 8] = b"TKSOFAR\n";
/// Where the watermark stands: behind the closing mark.
pub(crate) const WATERMARK_AT: u64 = MARK_AT + Mark::BYTES as u64;
/// The format version that brought it: before, nothing but zeros stood there.
pub(crate) const WATERMARKS_SINCE: u32 = 3;
