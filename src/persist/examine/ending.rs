//! What is known of a journal by how it ends.
//!
//! What must hold: a byte of which it is not known whether it is what it should be is told.
#![forbid(unsafe_code)]

use super::Finding;
use crate::persist::format::{Damage, Ending, How, JournalHead, WATERMARKS_SINCE};

/// `written`: where the last byte ends that is not zero. `is_newest`: no other journal says how much of this one counts, and the
/// state ends with it.
pub(super) fn finding(head: &JournalHead, ending: &Ending, written: u64, is_newest: bool) -> Finding {
    let is_open = ending.how == How::Open && is_newest;
    match (&ending.how, ending.spoilt) {
        (How::Torn(damage), _) => Finding::Unsure(torn(head, ending, damage, written)),
        (_, Some(at)) => Finding::Unsure(format!(
            "byte {at} holds nothing, and is damaged all the same: nothing is lost by that, but the disk may be failing{}",
            if is_open { format!("; and {}", open(head)) } else { String::new() }
        )),
        // Whatever stands in front of the newest group, or in a watermark: that nothing stood behind is told by a mark alone.
        (How::Open, None) if is_open => {
            Finding::Unsure(format!("every byte up to {} is accounted for, but {}", ending.bytes, open(head)))
        }
        _ => Finding::Whole,
    }
}

/// What is known of zeros behind the newest whole change, without a closing mark.
fn open(head: &JournalHead) -> String {
    let which = if head.version < WATERMARKS_SINCE {
        "a change (at any time, for its format version has no watermarks)"
    } else {
        "a change of the last second"
    };
    format!("the journal is not closed: {which} that was lost as a whole would not be noticed")
}

/// What is known of bytes behind the newest whole change.
fn torn(head: &JournalHead, ending: &Ending, damage: &Damage, written: u64) -> String {
    let (bytes, behind) = (ending.bytes, written.saturating_sub(ending.bytes));
    let when =
        if head.version < WATERMARKS_SINCE { "" } else { " were written less than a second before the end, and" };
    format!(
        "every byte up to {bytes} is accounted for; the {behind} bytes from there on{when} could be a torn write or damage to a \
         change that was acknowledged (byte {}: {})",
        damage.offset, damage.reason
    )
}

/// Where the last byte ends that is not zero.
pub(super) fn written(bytes: &[u8]) -> u64 {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}
