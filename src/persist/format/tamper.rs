//! Tampering with a file and getting away with it, for tests and fuzz targets: behind checksums that hold, only the
//! decoder's own checks are left. Not compiled into a release.
#![forbid(unsafe_code)]

use super::blocks::{BLOCK_HEAD_BYTES, block_checksum};
use super::journal::tag_of;
use super::snapshot::file_tag;
use super::{GROUPS_AT, HEADER_BYTES, JournalHead, Kind, MARK_AT, StoreId, WATERMARK_AT, take};

/// Makes length and checksum of the header, and the checksums of all blocks that can be followed, right again; of a
/// journal also those of the second header, of the closing mark and of the watermark, if there are some.
pub(crate) fn fix_checksums(file: &mut [u8]) {
    let file_bytes = file.len() as u64;
    let is_journal = file.get(KIND_AT) == Some(&(Kind::Journal as u8));
    if let Some(length) = file.get_mut(LENGTH_AT..).and_then(|rest| rest.first_chunk_mut::<8>())
        && !(is_journal && *length == [0; 8])
    {
        *length = file_bytes.to_le_bytes();
    }
    seal_at(file, 0);
    let (tag, mut at) = if is_journal {
        seal_at(file, HEADER_BYTES);
        let grew = file.get(LENGTH_AT..LENGTH_AT + 8) == Some(&[0; 8]);
        let tag = tag_of(file.get(..JournalHead::BYTES).unwrap_or_default(), grew);
        let mark_at = usize::try_from(MARK_AT).unwrap_or(usize::MAX);
        if file.get(mark_at).is_some_and(|byte| *byte != 0) {
            if let Some(named) = file.get_mut(mark_at + MARK_TAG_AT..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                *named = tag.to_le_bytes();
            }
            seal_at(file, mark_at);
        }
        let watermark_at = usize::try_from(WATERMARK_AT).unwrap_or(usize::MAX);
        if file.get(watermark_at).is_some_and(|byte| *byte != 0) {
            if let Some(named) = file.get_mut(watermark_at + MARK_TAG_AT..).and_then(|rest| rest.first_chunk_mut::<4>())
            {
                *named = tag.to_le_bytes();
            }
            seal_at(file, watermark_at);
        }
        (tag, usize::try_from(GROUPS_AT).unwrap_or(usize::MAX))
    } else {
        let mut fields = file.get(IDENTITY_AT..).unwrap_or_default();
        let store = StoreId { id: take(&mut fields), seed: u64::from_le_bytes(take(&mut fields)) };
        (file_tag(store, u64::from_le_bytes(take(&mut fields))), HEADER_BYTES)
    };
    while let Some((head, rest)) = file.get_mut(at..).and_then(|blocks| blocks.split_at_mut_checked(BLOCK_HEAD_BYTES)) {
        let mut length: &[u8] = head;
        let bytes = u32::from_le_bytes(take(&mut length)) as usize;
        let Some(payload) = rest.get(..bytes).filter(|payload| !payload.is_empty()) else { return };
        if let Some(checksum) = head.last_chunk_mut::<4>() {
            *checksum = block_checksum(tag, at as u64, payload).to_le_bytes();
        }
        at += BLOCK_HEAD_BYTES + bytes;
    }
}

fn seal_at(file: &mut [u8], at: usize) {
    if let Some(header) = file.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<HEADER_BYTES>()) {
        let (checked, checksum) = header.split_at_mut(HEADER_BYTES - 4);
        checksum.copy_from_slice(&crc32fast::hash(checked).to_le_bytes());
    }
}

/// Where the kind stands in the header.
const KIND_AT: usize = 12;
/// Where the store's id stands; seed and generation follow it.
const IDENTITY_AT: usize = 16;
/// Where the file's length stands.
const LENGTH_AT: usize = 48;
/// Where the file's tag stands in a closing mark.
const MARK_TAG_AT: usize = 12;
