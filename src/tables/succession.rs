//! What is remembered of a peer's keys that named, or were replaced by, another one.
//!
//! INVARIANT: an entry never goes. It may become void, and stays so; so what an operator revoked or refused counts for
//! nothing ever after. A list that is full takes nothing more, and what cannot be remembered proves nothing.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::peer::PublicKey;
pub use crate::peer::{KeyFault, Void};

/// A key of a peer, and one that it was seen to name as its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Succession {
    /// The key that signed.
    pub old: PublicKey,
    /// The key that it named. `old` itself stands for statements that were refused: then none of `old` counts.
    pub new: PublicKey,
    /// Whether `new` was trusted in place of `old`, which was not trusted again since.
    pub replaced: bool,
    /// Why the statement counts no more, if it does not.
    pub void: Option<Void>,
}

impl Succession {
    pub(crate) const fn new(old: PublicKey, new: PublicKey) -> Self {
        Self { old, new, replaced: false, void: None }
    }

    fn names(&self, key: &PublicKey) -> bool {
        self.new == *key && self.old != *key
    }
}

/// Whether this statement stands among those of its peer: seen, and not void.
pub(crate) fn stands(all: &[Succession], old: &PublicKey, new: &PublicKey) -> bool {
    all.iter().any(|it| it.void.is_none() && it.old == *old && it.new == *new)
}

/// Whether a statement of this key stands that names another successor, or none at all.
pub(crate) fn is_disputed(all: &[Succession], old: &PublicKey, new: &PublicKey) -> bool {
    all.iter().any(|it| it.void.is_none() && it.old == *old && it.new != *new)
}

/// Whether a statement of this key is void: no other one of it is taken.
pub(crate) fn has_void(all: &[Succession], old: &PublicKey) -> bool {
    all.iter().any(|it| it.old == *old && it.void.is_some())
}

/// Whether this very statement is void.
pub(crate) fn is_void(all: &[Succession], old: &PublicKey, new: &PublicKey) -> bool {
    all.iter().any(|it| it.old == *old && it.new == *new && it.void.is_some())
}

/// The key that replaced this one, if one did.
pub(crate) fn replacement(all: &[Succession], key: &PublicKey) -> Option<PublicKey> {
    all.iter().rev().find(|it| it.replaced && it.old == *key).map(|it| it.new)
}

/// Whether one key was replaced by the other, by few steps or in one. Of several keys that came after one, as an operator may
/// have trusted, each counts.
pub(crate) fn leads_to(all: &[Succession], old: &PublicKey, new: &PublicKey) -> bool {
    let after = |key: PublicKey| all.iter().filter(move |it| it.replaced && it.old == key).map(|it| it.new);
    let mut reached: Vec<PublicKey> = after(*old).collect();
    let mut at = 0;
    while let Some(key) = reached.get(at).copied() {
        for next in after(key) {
            if !reached.contains(&next) {
                reached.push(next);
            }
        }
        at += 1;
    }
    old != new && reached.contains(new)
}

/// Whether a statement stands that names this key.
pub(crate) fn is_named(all: &[Succession], key: &PublicKey) -> bool {
    all.iter().any(|it| it.void.is_none() && it.names(key))
}

/// A key is revoked: what named it is void.
pub(crate) fn key_revoked(all: &mut [Succession], key: &PublicKey) {
    make_void(all, Void::Revoked, |it| it.names(key));
}

/// Why a statement that names this key is void, if one is: the newest of those.
pub(crate) fn named_in_vain(all: &[Succession], key: &PublicKey) -> Option<Void> {
    all.iter().rev().filter(|it| it.names(key)).find_map(|it| it.void)
}

/// Why no rule trusts this key, if none does. The key of the trusted record is not asked about.
pub(crate) fn set_aside(all: &[Succession], key: &PublicKey) -> Option<KeyFault> {
    let void = || named_in_vain(all, key).map(KeyFault::Void);
    replacement(all, key).map(KeyFault::Replaced).or_else(void)
}

/// Trust was given to this key: what was said of it, and by it, is decided.
pub(crate) fn granted(all: &mut [Succession], key: &PublicKey) {
    for it in all {
        if it.names(key) {
            it.replaced = true;
        } else if it.old == *key && it.replaced {
            // It is trusted again, so that what took its place is not.
            it.replaced = false;
            it.void = it.void.or(Some(Void::Refused));
        }
    }
}

/// What stands and is concerned is void from now on.
pub(crate) fn make_void(all: &mut [Succession], why: Void, is_concerned: impl Fn(&Succession) -> bool) {
    for it in all.iter_mut().filter(|it| it.void.is_none() && is_concerned(it)) {
        it.void = Some(why);
    }
}

/// What becomes of these by a change, if anything does.
pub(crate) fn changed(before: Option<&Arc<[Succession]>>, by: impl Fn(&mut [Succession])) -> Option<Arc<[Succession]>> {
    let before = before?;
    let mut after = before.to_vec();
    by(&mut after);
    (after[..] != before[..]).then(|| after.into())
}

/// So much is remembered of one peer. It may have changed its key so often in as many years.
pub const SUCCESSIONS_PER_PEER_MAX: usize = 16;
