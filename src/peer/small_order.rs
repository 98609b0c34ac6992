//! Points of small order, under which everything verifies.
#![forbid(unsafe_code)]

/// Whether these bytes are one, in any encoding.
#[inline]
pub(super) fn is_one(bytes: &[u8; 32]) -> bool {
    // The first four bytes tell almost every other key from them: a million keys are looked at on opening.
    let start = start(*bytes);
    let may_be = STARTS.iter().fold(false, |may_be, other| may_be | (start == *other));
    may_be && is_among(*bytes)
}

#[cold]
fn is_among(mut bytes: [u8; 32]) -> bool {
    bytes[31] &= 0x7f;
    Y.contains(&bytes)
}

/// The y coordinates of every point of small order, canonical or not, little-endian, sign bit cleared.
pub(crate) const Y: [[u8; 32]; 7] = [
    // 0, 1 and p - 1
    [0; 32],
    with_ends(0x01, 0x00, 0x00),
    with_ends(0xec, 0xff, 0x7f),
    // the two of order eight
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    // p and p + 1, the non-canonical 0 and 1
    with_ends(0xed, 0xff, 0x7f),
    with_ends(0xee, 0xff, 0x7f),
];

/// What these begin with; the last stands twice, for a machine compares eight as fast as seven.
const STARTS: [u32; 8] = {
    let [a, b, c, d, e, f, g] = Y;
    [start(a), start(b), start(c), start(d), start(e), start(f), start(g), start(g)]
};

const fn start(bytes: [u8; 32]) -> u32 {
    let [first, second, third, fourth, ..] = bytes;
    u32::from_le_bytes([first, second, third, fourth])
}

pub(super) const fn with_ends(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}
