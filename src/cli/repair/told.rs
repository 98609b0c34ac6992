//! What a repair says it read, keeps, loses, and does not know.
#![forbid(unsafe_code)]

use std::io;

use serde::Serialize;

use crate::persist::salvage::{Of, Salvaged, Uncertain, What};

#[derive(Serialize)]
pub(super) struct SalvagedRow {
    /// How many whole changes.
    pub(super) changes: usize,
    /// The newest generation of which one is whole.
    pub(super) newest_generation: u64,
    /// Generations of which none is known to be whole: from behind the first number, up to the second.
    pub(super) missing: Vec<(u64, u64)>,
    /// Restrictions that were read of changes that are not whole.
    pub(super) kept: Vec<EntryRow>,
    pub(super) not_kept: Vec<EntryRow>,
    pub(super) unreadable: Vec<PlaceRow>,
    /// Bytes of which one bit was set right; `bytes` is 1.
    pub(super) set_right: Vec<PlaceRow>,
}

/// One of `node_id` and `public_key` is `null`.
#[derive(Serialize)]
pub(super) struct EntryRow {
    node_id: Option<u32>,
    public_key: Option<String>,
    what: &'static str,
}

#[derive(Serialize)]
pub(super) struct PlaceRow {
    pub(super) file: String,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl From<&(Of, What)> for EntryRow {
    fn from((of, what): &(Of, What)) -> Self {
        let what = match what {
            What::Revoked => "revoked",
            What::Ignored => "ignored",
            What::Untrusted => "no_longer_trusted",
            What::Granted => "granted",
            What::Lifted => "mark_lifted",
            What::Other => "other",
            What::Unreadable => "unreadable",
        };
        match of {
            Of::Peer(peer) => Self { node_id: Some(peer.get()), public_key: None, what },
            Of::Key(key) => Self { node_id: None, public_key: Some(key.clone()), what },
        }
    }
}

impl core::fmt::Display for EntryRow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let what = self.what.replace('_', " ");
        match (self.node_id, &self.public_key) {
            (Some(id), _) => write!(f, "peer {id}: {what}"),
            (None, key) => write!(f, "key {}: {what}", key.as_deref().unwrap_or("-")),
        }
    }
}

impl From<&Salvaged> for SalvagedRow {
    fn from(salvaged: &Salvaged) -> Self {
        let Salvaged { groups, newest, gaps, kept, lost, damaged, mended, righted, .. } = salvaged;
        let place = |(file, offset, bytes): &(String, u64, u64)| PlaceRow {
            file: file.clone(),
            offset: *offset,
            bytes: *bytes,
        };
        Self {
            changes: *groups,
            newest_generation: *newest,
            missing: gaps.clone(),
            kept: kept.iter().map(EntryRow::from).collect(),
            not_kept: lost.iter().map(EntryRow::from).collect(),
            unreadable: damaged.iter().map(place).collect(),
            set_right: mended
                .iter()
                .flat_map(|(file, places)| places.iter().map(|at| (file.clone(), *at, 1)))
                .chain(righted.iter().map(|(file, at)| (file.clone(), *at, 1)))
                .map(|it| place(&it))
                .collect(),
        }
    }
}

/// Restrictions that may be lost, and who may be trusted by that.
#[derive(Serialize)]
pub(super) struct UncertainRow {
    /// Generations of which not all can be read: from behind the first number, up to the second; `null` if it is not known up to
    /// which.
    generations: Vec<(u64, Option<u64>)>,
    /// Restrictions that damaged bytes seem to name; each may be another.
    named: Vec<EntryRow>,
    /// How many peers were granted in front of these generations, or among them, and not behind: each of them may have been
    /// revoked there.
    trusted: usize,
    peers: Vec<u32>,
    peers_left_out: usize,
    /// Whether these are trusted no longer.
    untrusted: bool,
}

impl UncertainRow {
    pub(super) fn new(uncertain: &Uncertain, untrusted: bool) -> Self {
        let Uncertain { generations, named, peers, .. } = uncertain;
        Self {
            generations: generations.clone(),
            named: named.iter().map(EntryRow::from).collect(),
            trusted: peers.len(),
            peers: peers.iter().take(PEERS_MAX).map(|peer| peer.get()).collect(),
            peers_left_out: peers.len().saturating_sub(PEERS_MAX),
            untrusted,
        }
    }

    pub(super) fn show(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let Self { generations, named, trusted, peers, untrusted, .. } = self;
        for entry in named {
            writeln!(out, "uncertain  {entry}; the bytes that say so are damaged, and may be about another")?;
        }
        for (from, to) in generations {
            let to = to.map_or_else(|| "an unknown one".to_owned(), |to| to.to_string());
            writeln!(out, "uncertain  changes after generation {from}, up to {to}: restrictions may be among them")?;
        }
        if *trusted == 0 {
            return Ok(());
        }
        let shown: Vec<String> = peers.iter().take(SHOWN_MAX).map(u32::to_string).collect();
        let more = trusted.saturating_sub(SHOWN_MAX);
        let more = if more == 0 { String::new() } else { format!(" and {more} more (`--json` lists them)") };
        let peers = shown.join(", ");
        writeln!(
            out,
            "uncertain  {trusted} trusted peers were granted before, and may have been revoked there: {peers}{more}"
        )?;
        if *untrusted {
            return writeln!(out, "untrusted  these {trusted}: grant anew whoever is to be trusted");
        }
        writeln!(out, "           they stay trusted; with `--untrust-uncertain` none of them is, until granted anew")
    }
}

/// In JSON.
const PEERS_MAX: usize = 10_000;
/// For people.
const SHOWN_MAX: usize = 20;
