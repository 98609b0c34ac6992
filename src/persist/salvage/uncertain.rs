//! Who stays trusted after a repair though that may have ended: see I-V5.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::{Of, What, key_of};
use crate::error::OpenError;
use crate::peer::NodeId;
use crate::persist::Storage;
use crate::persist::format::salvage::{self as read, Loose};
use crate::persist::load::{list, read as lend};
use crate::persist::recover::Listing;
use crate::tables::patch::Patch;
use crate::tables::{TableChange, Tables};

/// What may be missing: restrictions in bytes that cannot be read.
#[derive(Debug, Default)]
pub(crate) struct Uncertain {
    /// Generations of which not all can be read: from behind the first number, up to the second; none if it is not known up to
    /// which.
    pub(crate) generations: Vec<(u64, Option<u64>)>,
    /// The restrictions that damaged bytes seem to name. Each may be another.
    pub(crate) named: BTreeSet<(Of, What)>,
    /// Who is trusted and was granted in front of these generations, or among them, and not behind them.
    pub(crate) peers: Vec<NodeId>,
    /// Up to here every change is whole, or all of its blocks were read.
    covered: u64,
    /// How far what is damaged went on, as far as that is known.
    until: Option<u64>,
    /// Whether anything is damaged of which that is not known.
    is_open: bool,
    /// Granted by whole changes since the last generation that is missing.
    granted: BTreeSet<u32>,
}

impl Uncertain {
    pub(super) fn new(reached: u64) -> Self {
        Self { covered: reached, ..Self::default() }
    }

    /// Takes note of a whole change.
    pub(super) fn whole(&mut self, from: u64, to: u64, patch: &Patch) {
        if from > self.covered {
            self.generations.push((self.covered, Some(from)));
            self.granted.clear();
        }
        self.covered = self.covered.max(to);
        for (peer, value) in &patch.trusted {
            if value.is_some() {
                self.granted.insert(*peer);
            }
        }
    }

    /// Takes note of blocks that are no whole change.
    pub(super) fn loose(&mut self, loose: &Loose) {
        self.named.extend(restrictions(&loose.guessed));
        match (loose.unread.is_empty(), loose.until) {
            (true, Some(until)) if loose.after <= self.covered => self.covered = self.covered.max(until),
            (true, None) => {}
            (_, Some(until)) => self.until = self.until.max(Some(until)),
            (false, None) => self.is_open = true,
        }
    }

    /// Everything was read; `is_cut`: something behind it is missing. `seen`: a generation that was durable. Says up to which
    /// generation there was something, as far as that is known.
    pub(super) fn end(&mut self, is_cut: bool, seen: Option<u64>, tables: &Tables) -> Option<u64> {
        self.until = self.until.max(seen);
        // That a peer is trusted no longer who is not trusted says nothing.
        self.named.retain(|(of, what)| match of {
            Of::Peer(peer) => *what != What::Untrusted || tables.trusted.contains(*peer),
            Of::Key(_) => true,
        });
        let until = self.until.filter(|until| *until > self.covered);
        if is_cut || self.is_open || until.is_some() {
            self.generations.push((self.covered, until.filter(|_| !is_cut && !self.is_open)));
            self.granted.clear();
        }
        if !self.generations.is_empty() {
            let trusted = tables.trusted.iter().map(|record| record.node_id);
            self.peers = trusted.filter(|peer| !self.granted.contains(&peer.get())).collect();
            self.peers.sort_unstable();
        }
        until
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.generations.is_empty() && self.named.is_empty()
    }

    /// A state in which nobody is trusted of whom that is uncertain.
    pub(crate) fn untrusted(&self, tables: &Tables) -> Tables {
        let changes: Vec<TableChange> = self.peers.iter().map(|peer| TableChange::Trusted(*peer, None)).collect();
        tables.apply(&changes).0
    }
}

/// Whether the newest journal was not closed, so that it is not known whether a change followed.
///
/// # Errors
/// The operating system's.
pub(crate) fn is_open(storage: &dyn Storage) -> Result<bool, OpenError> {
    let listing = Listing::new(&list(storage)?);
    let Some((seq, name)) = listing.journals.first() else { return Ok(false) };
    let found = lend(storage, name, |bytes| {
        Ok(read::journal_head(bytes).is_none_or(|head| head.seq != *seq || read::is_open(bytes, &head)))
    })?;
    Ok(found.unwrap_or(true))
}

fn restrictions(patch: &Patch) -> impl Iterator<Item = (Of, What)> {
    let sides = &patch.sides;
    let untrusted = patch.trusted.iter().filter(|(_, value)| value.is_none());
    let untrusted = untrusted.filter_map(|(id, _)| Some((Of::Peer(NodeId::new(*id)?), What::Untrusted)));
    let revoked = sides.revoked.iter().filter(|(_, mark)| mark.is_some());
    let revoked = revoked.map(|(peer, _)| (Of::Peer(*peer), What::Revoked));
    let ignored = sides.ignored.iter().filter(|(_, at)| at.is_some());
    let ignored = ignored.map(|(peer, _)| (Of::Peer(*peer), What::Ignored));
    let keys = sides.revoked_keys.iter().filter(|(_, mark)| mark.is_some());
    let keys = keys.map(|(key, _)| (key_of(key), What::Revoked));
    let ignored_keys = sides.ignored_keys.iter().filter(|(_, at)| at.is_some());
    let ignored_keys = ignored_keys.map(|(key, _)| (key_of(key), What::Ignored));
    untrusted.chain(revoked).chain(ignored).chain(keys).chain(ignored_keys)
}
