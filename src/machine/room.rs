//! Room among those who wait: how many may, in all and from one source, and who gives way to whom.
#![forbid(unsafe_code)]

use super::plan::Plan;
use super::rejection::Rejection;
use super::view::{Source, TableChange};
use crate::config::Limits;
use crate::peer::NodeId;
use crate::tables::crowds::{BLOCK_BITS, Class, Crowd, Crowds};

/// The source that an entry is charged to from now on: its true one, if there is room for it.
pub(super) fn moved(plan: &mut Plan<'_>, from: Source, to: Source) -> Source {
    if from != to && make_room(plan, to, true).is_ok() { to } else { from }
}

/// Finds room for a peer that is not pending yet.
pub(super) fn make_room(plan: &mut Plan<'_>, source: Source, authentic: bool) -> Result<(), Rejection> {
    let gives_way = find_room(plan, source, authentic)?;
    plan.others.extend(gives_way.map(|peer| TableChange::Pending(peer, None)));
    Ok(())
}

/// Who has to give way to an entry from this source, if anybody has to. A vouched-for one takes the place of the oldest
/// unvouched; any other, in a full queue, that of the oldest unvouched of a source, site or block that takes more room
///
pub(super) fn find_room(plan: &Plan<'_>, source: Source, authentic: bool) -> Result<Option<NodeId>, Rejection> {
    let mut found = Ok(None);
    plan.view.crowds_but(plan.peer, &mut |crowds| found = find_among(crowds, &plan.rules.limits, source, authentic));
    found
}

fn find_among(crowds: &Crowds, limits: &Limits, source: Source, authentic: bool) -> Result<Option<NodeId>, Rejection> {
    let (own, site) = (Crowd::Source(source), Crowd::site(source));
    let oldest = |crowd: Crowd, full: Rejection| crowds.oldest_unvouched(crowd).ok_or(full).map(Some);
    let within = |crowd: Crowd| {
        let full = Rejection::PendingSourceFull;
        if authentic { oldest(crowd, full) } else { Err(full) }
    };
    if crowds.count(own) >= limits.pending_per_source_max {
        within(own)
    } else if site != own && crowds.count(site) >= PENDING_PER_SITE_MAX {
        within(site)
    } else if crowds.count(Crowd::All) < limits.pending_max {
        Ok(None)
    } else if authentic {
        oldest(Crowd::All, Rejection::PendingFull)
    } else {
        let larger = larger(crowds, source).ok_or(Rejection::PendingFull)?;
        oldest(larger, Rejection::PendingFull)
    }
}

/// The site, source or block that takes most room, of those that have an unvouched entry and at least two more than the
/// newcomer's would have with it. Within a site its sources count, between sites the sites, and between blocks the blocks
/// as well. Of equals the first one gives way.
fn larger(crowds: &Crowds, source: Source) -> Option<Crowd> {
    let (own, site) = (Crowd::Source(source), Crowd::site(source));
    let more_than = |class: Class, held: usize, but: Option<Crowd>| {
        let mut others = crowds.largest(class).filter(move |(_, crowd)| Some(*crowd) != but);
        others.next().filter(|(count, _)| *count >= held + 3)
    };
    let sites = more_than(Class::Sites, crowds.count(site), Some(site));
    let sources = Class::sources_of(site).and_then(|class| more_than(class, crowds.count(own), Some(own)));
    let blocks = BLOCK_BITS.into_iter().filter_map(|bits| {
        let block = Crowd::block(source, bits);
        more_than(Class::Blocks(bits), crowds.count(block.unwrap_or(own)), block)
    });
    let all = sites.into_iter().chain(sources).chain(blocks);
    all.min_by_key(|(count, _)| core::cmp::Reverse(*count)).map(|(_, crowd)| crowd)
}

/// How many peers may wait from one IPv6 site, whose 65 536 networks are sources of their own.
const PENDING_PER_SITE_MAX: usize = 64;

#[cfg(test)]
#[path = "room_oracle_tests.rs"]
mod oracle;

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
