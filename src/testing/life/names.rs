//! The names under which it is counted what lives came to, and which of them no step can reach.
//!
//! What must hold: names come from exhaustive matches, so that a new outcome, rejection or reason does not go without a
//! count; and a rule is in exactly one of the two lists at the end.
#![forbid(unsafe_code)]

use crate::event::{AutoReason, ChangeReason};
use crate::machine::outcome::Outcome;
use crate::machine::rejection::Rejection;

/// A name for each shape of a value, and the list of all names.
macro_rules! named {
    ($function:ident, $all:ident, $type:ty: $($pattern:pat => $name:literal,)*) => {
        pub(super) fn $function(it: &$type) -> &'static str {
            match it {
                $($pattern => $name,)*
            }
        }

        pub(super) const $all: &[&str] = &[$($name),*];
    };
}

named!(outcome, OUTCOMES, Outcome:
    Outcome::Dropped(_) => "dropped",
    Outcome::Confirmed(_) => "confirmed",
    Outcome::Trusted(_) => "trusted",
    Outcome::Queued => "queued",
    Outcome::Refused => "refused",
    Outcome::RefusedUnvouched => "refused_unvouched",
    Outcome::RevokedByPeer { .. } => "revoked_by_peer",
    Outcome::Requested { .. } => "requested",
    Outcome::Approved(_) => "approved",
    Outcome::Rejected(_) => "rejected",
    Outcome::Cancelled => "cancelled",
    Outcome::Granted(_) => "granted",
    Outcome::KeyAdopted(_) => "key_adopted",
    Outcome::KeyChanged { .. } => "key_changed",
    Outcome::Revoked { .. } => "revoked",
    Outcome::OwnEntriesForgotten { .. } => "own_entries_forgotten",
    Outcome::Told => "told",
    Outcome::Relaying => "relaying",
    Outcome::Stopped => "stopped",
    Outcome::Retried { .. } => "retried",
    Outcome::Owed { .. } => "owed",
    Outcome::NothingOwed => "nothing_owed",
    Outcome::Removed { .. } => "removed",
    Outcome::KeyRevoked { .. } => "key_revoked",
    Outcome::EndedUnderKey { .. } => "ended_under_key",
    Outcome::RevocationForgotten(_) => "revocation_forgotten",
    Outcome::Ignored => "ignored",
    Outcome::Unignored => "unignored",
    Outcome::Kept { .. } => "kept",
);

named!(reason, REASONS, ChangeReason:
    ChangeReason::Direct => "direct",
    ChangeReason::Approved => "approved",
    ChangeReason::Auto(AutoReason::Mutual) => "mutual",
    ChangeReason::Auto(AutoReason::SameNetwork) => "same_network",
    ChangeReason::Auto(AutoReason::AllowListed) => "allow_listed",
    ChangeReason::Auto(AutoReason::AutoApprove) => "auto_approve",
    ChangeReason::Accepted => "accepted",
    ChangeReason::FirstUse => "first_use",
    ChangeReason::Revoked => "revoked",
    ChangeReason::RevokedByPeer => "revoked_by_peer",
    ChangeReason::KeyChanged => "key_changed",
    ChangeReason::KeyRevoked => "key_revoked",
    ChangeReason::Removed => "removed",
    ChangeReason::KeyAdopted => "key_adopted",
    ChangeReason::KeyRotated => "key_rotated",
    ChangeReason::OwnEntry => "own_entry",
);

named!(rejection, REJECTIONS, Rejection:
    Rejection::TooLarge => "too_large",
    Rejection::Malformed => "malformed",
    Rejection::UnknownType => "unknown_type",
    Rejection::TooOld => "too_old",
    Rejection::FromFuture => "from_future",
    Rejection::SenderZero => "sender_zero",
    Rejection::SenderIsUs => "sender_is_us",
    Rejection::Version1 => "version_1",
    Rejection::Downgrade => "downgrade",
    Rejection::Replayed => "replayed",
    Rejection::NotRelayable => "not_relayable",
    Rejection::UnknownVersion => "unknown_version",
    Rejection::BadKey(_) => "bad_key",
    Rejection::BadField(_) => "bad_field",
    Rejection::Stale => "stale",
    Rejection::BadSignature => "bad_signature",
    Rejection::WrongReceiver => "wrong_receiver",
    Rejection::KeyMismatch => "key_mismatch",
    Rejection::FloorClamped => "floor_clamped",
    Rejection::BelowFormerFloor => "below_former_floor",
    Rejection::NotAuthentic => "not_authentic",
    Rejection::NotAsked => "not_asked",
    Rejection::WrongAnswer => "wrong_answer",
    Rejection::PeerRevoked => "peer_revoked",
    Rejection::KeyRevoked => "key_revoked",
    Rejection::Ignored => "ignored",
    Rejection::KeyChanged => "key_changed",
    Rejection::NothingToRevoke => "nothing_to_revoke",
    Rejection::AlreadyRefused => "already_refused",
    Rejection::KeyReplaced => "key_replaced",
    Rejection::KeySetAside => "key_set_aside",
    Rejection::RotationRefused => "rotation_refused",
    Rejection::SecondSuccessor => "second_successor",
    Rejection::RotationRevokedKey => "rotation_revoked_key",
    Rejection::PendingFull => "pending_full",
    Rejection::PendingSourceFull => "pending_source_full",
    Rejection::StoreFull => "store_full",
    Rejection::OwedFull => "owed_full",
    Rejection::PeerIsUs => "peer_is_us",
    Rejection::KeyIsOurs => "key_is_ours",
    Rejection::NothingToDo => "nothing_to_do",
    Rejection::AlreadyTrusted => "already_trusted",
    Rejection::RevokedNeedsOperator => "revoked_needs_operator",
    Rejection::RevokedNeedsLift { .. } => "revoked_needs_lift",
    Rejection::KeyRevokedNeedsLift { .. } => "key_revoked_needs_lift",
    Rejection::RevokedKeysFull => "revoked_keys_full",
    Rejection::IgnoredFull => "ignored_full",
    Rejection::TrustedNotIgnored => "trusted_not_ignored",
    Rejection::IgnoredNotAsked => "ignored_not_asked",
    Rejection::OtherKeyBound => "other_key_bound",
    Rejection::OtherKeyExpected => "other_key_expected",
    Rejection::WrongFingerprint { .. } => "wrong_fingerprint",
    Rejection::FingerprintRequired { .. } => "fingerprint_required",
    Rejection::RegistryContradicts { .. } => "registry_contradicts",
    Rejection::OtherEntry => "other_entry",
);

/// The rules that a step decides, by what shows that it did.
pub(super) const RULES: &[u16] = &[
    11, 12, 13, 15, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 60, 61, 62, 63, 64, 65, 66, 67, 68, 70, 71, 72, 73, 74, 148,
    155, 156, 157, 158, 159, 160, 163, 165, 166, 167, 168, 169, 170, 171, 172, 173, 174, 175, 176, 177, 178, 179, 180,
    181, 182, 183, 184, 185, 186, 188, 190, 191, 193, 194, 195, 196, 197, 200, 201, 202, 203, 204, 205, 216, 217, 218,
    219, 220, 221, 224, 230, 231, 232, 270, 271, 272, 273, 274, 282, 283, 284, 285,
];

/// What no step can come to, and why.
pub(super) const BEYOND: &[(&str, &str)] = &[
    (
        "rejection:too_large rejection:malformed rejection:unknown_type rejection:sender_zero \
         rejection:unknown_version rejection:bad_key rejection:bad_field R-1 R-2 R-3 R-4 R-5 R-10 R-14",
        "the bytes are no message then, and no step hears of them (target decode_message)",
    ),
    ("rejection:bad_signature R-7 R-16 R-215", "signatures are checked before a step, and are believed here"),
    ("R-6 R-135 R-136 R-137 R-138 R-139", "texts are filtered before a step, and shown by the program"),
    (
        "R-161 R-162 R-199 R-192 R-198 R-292 R-294 rejection:key_is_ours",
        "of the shell: how it asks the registry, what it counts and logs, what it saves when, and which key is its own",
    ),
    ("R-286", "said of many records by the store and the program, and changes none"),
    ("R-187 R-149 R-280 R-281 R-293", "of the import of documents, which goes through the store (target trust_json)"),
    (
        "R-225 R-226 R-100 R-101 R-102 R-103 R-104 R-105 R-106 R-107 R-108 R-109 R-110 R-145 R-146",
        "of registries and relays",
    ),
    (
        "R-111 R-112 R-113 R-114 R-115 R-116 R-117 R-118 R-119 R-120 R-121 R-140 R-141 R-206 R-233",
        "of calls, events, the end",
    ),
    ("R-150 R-151 R-152 R-153 R-154 R-210 R-211 R-212 R-213 R-214", "of queues and connections"),
    (
        "R-130 R-131 R-132 R-133 R-147 R-222 R-223 R-260 R-261 R-262 R-263 R-264 R-276 R-277 R-278 R-290 R-291",
        "of the program, its streams and its files",
    ),
];
