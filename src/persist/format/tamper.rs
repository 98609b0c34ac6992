//! Tampering with a file and getting away with it, for tests and fuzz targets: behind checksums that hold, only the
//! decoder's own checks are left. Not compiled into a release.
#![forbid(unsafe_code)]

use super::{BLOCK_HEAD_BYTES, HEADER_BYTES, StoreId, block_checksum, file_tag, take};

/// Makes length and checksum of the header, and the checksums of all blocks that can be followed, right again.
pub(crate) fn fix_checksums(file: &mut [u8]) {
    let file_bytes = file.len() as u64;
    let Some((header, mut blocks)) = file.split_first_chunk_mut::<HEADER_BYTES>() else { return };
    let (checked, checksum) = header.split_at_mut(HEADER_BYTES - 4);
    if let Some((_, length)) = checked.split_at_mut_checked(LENGTH_AT)
        && let Some(length) = length.first_chunk_mut::<8>()
    {
        *length = file_bytes.to_le_bytes();
    }
    checksum.copy_from_slice(&crc32fast::hash(checked).to_le_bytes());
    let mut fields = checked.get(IDENTITY_AT..).unwrap_or_default();
    let store = StoreId { id: take(&mut fields), seed: u64::from_le_bytes(take(&mut fields)) };
    let tag = file_tag(store, u64::from_le_bytes(take(&mut fields)));
    let mut index = 0;
    while let Some((head, rest)) = blocks.split_at_mut_checked(BLOCK_HEAD_BYTES) {
        let mut length: &[u8] = head;
        let bytes = u32::from_le_bytes(take(&mut length)) as usize;
        let Some((payload, behind)) = rest.split_at_mut_checked(bytes) else { return };
        if let Some(checksum) = head.last_chunk_mut::<4>() {
            *checksum = block_checksum(tag, index, payload).to_le_bytes();
        }
        blocks = behind;
        index += 1;
    }
}

/// Where the store's id stands in the header; seed and generation follow it.
const IDENTITY_AT: usize = 16;
/// Where the file's length stands.
const LENGTH_AT: usize = 48;
