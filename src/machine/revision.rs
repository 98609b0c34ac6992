//! What is saved of the registry's revisions, so that a replica that lags takes nothing back across a restart either.
//!
//! INVARIANT: a saved revision never falls, but where an operator has all of them forgotten, and none is begun for a
//! peer that is not trusted.
#![forbid(unsafe_code)]

use super::view::{TableChange, View};
use crate::peer::NodeId;

/// The change that saves this revision, if it is one to save: newer than what is saved, of a peer that is trusted or of
/// which a revision is saved already.
pub(crate) fn saved(view: &dyn View, peer: NodeId, revision: u64) -> Option<TableChange> {
    let before = view.revision(peer);
    let is_ours = before.is_some() || view.trusted(peer).is_some();
    (is_ours && revision > before.unwrap_or(0)).then_some(TableChange::Revision(peer, Some(revision)))
}

/// Adds to the changes of a step the revisions of those who come to be trusted by it: both are saved together.
pub(crate) fn save_with_grants(
    view: &dyn View,
    changes: &mut Vec<TableChange>,
    newest: &dyn Fn(NodeId) -> Option<u64>,
) {
    let granted = changes.iter().filter_map(|change| match change {
        TableChange::Trusted(peer, Some(_)) => Some(*peer),
        _ => None,
    });
    let newer = |peer: NodeId| newest(peer).filter(|revision| *revision > view.revision(peer).unwrap_or(0));
    let of_granted: Vec<_> = granted.filter_map(|peer| Some(TableChange::Revision(peer, Some(newer(peer)?)))).collect();
    changes.extend(of_granted);
}
