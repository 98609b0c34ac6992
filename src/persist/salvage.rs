//! What a recovery that gives something up can keep of it all the same.
//!
//! INVARIANT I-V1: of a group that is not whole, also after one bit of each of its blocks was set right, nothing is kept but what
//! restricts: a revocation of a peer or a key, a peer or a key that is ignored, a peer that is trusted no longer. So nobody is
//! trusted, and no mark is lifted, by bytes that may be wrong.
//! INVARIANT I-V2: where a grant and a mark of the same peer come together because what stood between them is gone, the mark
//! stays.
//! INVARIANT I-V3: what is not kept, or not known to be right, is told by its id or key.
//! INVARIANT I-V5: who stays trusted though a restriction that cannot be read may have ended that is told: all that were granted
//! in front of the newest generation of which that is so, and not by a whole change behind it.
#![forbid(unsafe_code)]

pub(crate) mod base;
mod uncertain;

use std::collections::BTreeSet;

use super::Storage;
use super::format::salvage::{self as read, Loose, Piece};
use super::format::{Header, Kind, StoreId};
use super::load::{LEAP, decode_named, list, read as lend};
use super::recover::{GENESIS, Listing};
use crate::error::OpenError;
use crate::map::mix::Mix;
use crate::peer::{NodeId, PublicKey};
use crate::tables::PendingKind;
use crate::tables::patch::{Patch, SideValues};
use crate::tables::table::Table as _;
use crate::tables::{TableChange, Tables};
use crate::time::Now;
pub(crate) use base::Base;
use base::Rest;
pub(crate) use uncertain::{Uncertain, is_open};

/// Whom something is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Of {
    Peer(NodeId),
    /// In base64.
    Key(String),
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// It is kept: the peer or key is revoked.
    Revoked,
    /// It is kept: the peer or key is ignored.
    Ignored,
    /// It is kept: the peer is trusted no longer.
    Untrusted,
    /// A grant, that is not kept.
    Granted,
    /// The end of a mark, that is not kept.
    Lifted,
    /// Anything else, that is not kept.
    Other,
    /// Nobody knows: the bytes that name it are damaged, and may name another.
    Unreadable,
}

/// What was kept, and what was not.
#[derive(Debug)]
pub(crate) struct Salvaged {
    pub(crate) tables: Tables,
    /// How many whole groups were kept beyond what a recovery would follow.
    pub(crate) groups: usize,
    /// The newest generation that one of them leads to; that of the recovery if there are none.
    pub(crate) newest: u64,
    /// Generations of which nothing is known to be whole: from behind the one, up to the other.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// Restrictions that were kept of groups that are not whole.
    pub(crate) kept: BTreeSet<(Of, What)>,
    /// What was not kept.
    pub(crate) lost: BTreeSet<(Of, What)>,
    /// Where something stands that is no whole group: file, byte, and how many bytes.
    pub(crate) damaged: Vec<(String, u64, u64)>,
    /// Another journal followed, and is missing.
    pub(crate) is_cut: bool,
    /// The generation of the state that all of this goes on from; none if there is none.
    pub(crate) from: Option<u64>,
    /// The damaged snapshot that this state was read of, if it was, and the bytes of it of which a bit was set right.
    pub(crate) mended: Option<(String, Vec<u64>)>,
    /// If not all of that snapshot could be read: how many trusted peers of it are not known any more, or none if not even their
    /// number is.
    pub(crate) partly: Option<Option<u64>>,
    /// The bytes of journals of which one bit was set right: file and byte.
    pub(crate) righted: Vec<(String, u64)>,
    pub(crate) uncertain: Uncertain,
}

impl Salvaged {
    /// Whether everything that was ever acknowledged is known to be there.
    pub(crate) fn is_all(&self) -> bool {
        !self.is_cut && self.partly.is_none() && self.gaps.is_empty() && self.lost.is_empty() && self.damaged.is_empty()
    }
}

/// Which store the mark names; none if it cannot be read.
///
/// # Errors
/// The operating system's.
pub(crate) fn marked_store(storage: &dyn Storage) -> Result<Option<StoreId>, OpenError> {
    if !Listing::new(&list(storage)?).genesis {
        return Ok(None);
    }
    let store = lend(storage, GENESIS, |bytes| Header::decode(bytes, Kind::Genesis).map(|header| header.store))?;
    Ok(store.ok())
}

/// What a salvage goes on from.
#[derive(Debug)]
pub(crate) enum Ground {
    /// A state that is whole.
    State(u64, Tables),
    Damaged(Box<Base>),
    /// Nothing: only what restricts has a meaning.
    Nothing(StoreId),
}

/// A piece of one of the files.
struct Found {
    file: String,
    seq: u64,
    piece: Piece,
}

/// Reads all that can be read in any file, and adds to this state what is newer and whole, and what restricts. `seen`: a generation
/// that was durable once, as something beside the store tells.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn salvage(
    storage: &dyn Storage,
    ground: Ground,
    seen: Option<u64>,
    now: Now,
) -> Result<Salvaged, OpenError> {
    let (mut work, store, restrictions_alone) = match ground {
        Ground::State(reached, tables) => (Work::new(reached, tables), None, false),
        Ground::Damaged(base) => (Work::on(*base), None, false),
        Ground::Nothing(store) => (Work::new(0, Tables::new(Mix::new(store.seed))), Some(store), true),
    };
    let reached = work.salvaged.newest;
    work.salvaged.from = (!restrictions_alone).then_some(reached);
    let listing = Listing::new(&list(storage)?);
    let mut found = Vec::new();
    for (generation, name) in &listing.snapshots {
        if *generation <= reached && !restrictions_alone {
            continue;
        }
        let loose = lend(storage, name, |bytes| {
            if decode_named(name, bytes, now).is_ok() {
                return Ok(None);
            }
            // Of another generation than its name tells, or of another store, no block passes.
            let Some(store) = store.or_else(|| read::snapshot_header(bytes).map(|header| header.store)) else {
                return Ok(Some(Loose::unread(*generation, bytes)));
            };
            Ok(Some(read::snapshot(bytes, store, *generation, now).loose))
        })?;
        if let Ok(Some(mut loose)) = loose {
            loose.until = (*generation > reached).then_some(*generation);
            found.push(Found { file: name.clone(), seq: 0, piece: Piece::Loose(Box::new(loose)) });
        }
    }
    // What the next journal says of the one before it: from which generation it goes on, and how many bytes count.
    let (mut next_base, mut next_previous) = (None, None);
    for (seq, name) in &listing.journals {
        let pieces = lend(storage, name, |bytes| {
            let Some(head) = read::journal_head(bytes).filter(|head| head.seq == *seq) else {
                return Ok(Err(Loose::unread(reached, bytes)));
            };
            let counted = next_previous.filter(|(of, _)| of == seq).map(|(_, bytes)| bytes);
            Ok(Ok((head, read::journal(bytes, &head, counted, now), read::is_continued(bytes, &head))))
        })?;
        let Ok(pieces) = pieces else { continue };
        let (head, pieces, is_continued) = match pieces {
            Ok(read) => read,
            Err(mut loose) => {
                loose.until = next_base;
                // Nobody knows how far the newest one led.
                work.salvaged.is_cut |= next_base.is_none();
                found.push(Found { file: name.clone(), seq: *seq, piece: Piece::Loose(Box::new(loose)) });
                (next_base, next_previous) = (None, None);
                continue;
            }
        };
        work.salvaged.is_cut |= is_continued && listing.journals.first().is_some_and(|(newest, _)| newest == seq);
        let counted = next_previous.filter(|(of, _)| of == seq).map(|(_, bytes)| bytes);
        for piece in pieces {
            let piece = match piece {
                Piece::Loose(loose) if counted.is_some_and(|counted| loose.offset >= counted) => continue,
                // Nothing of it is missing in front of where the next one goes on.
                Piece::Loose(loose) if next_base.is_some_and(|base| loose.after >= base) => continue,
                Piece::Loose(mut loose) => {
                    loose.until = loose.until.or(next_base);
                    Piece::Loose(loose)
                }
                group @ Piece::Group { .. } => group,
            };
            found.push(Found { file: name.clone(), seq: *seq, piece });
        }
        next_base = Some(head.base);
        next_previous = head.previous.map(|previous| (previous.seq, previous.bytes));
    }
    for Found { file, piece, .. } in newer(found, reached) {
        match piece {
            Piece::Group { patch, .. } if restrictions_alone => work.restrict(&patch, false),
            Piece::Group { from, to, patch, righted } => {
                work.salvaged.righted.extend(righted.into_iter().map(|at| (file.clone(), at)));
                work.salvaged.uncertain.whole(from, to, &patch);
                work.add(from, to, *patch);
            }
            Piece::Loose(loose) => {
                work.salvaged.uncertain.loose(&loose);
                work.restrict(&loose.read, true);
                work.doubt(&loose.guessed);
                work.salvaged.damaged.push((file, loose.offset, loose.bytes));
            }
        }
    }
    work.reconcile();
    let Salvaged { uncertain, tables, is_cut, gaps, newest, .. } = &mut work.salvaged;
    if !restrictions_alone {
        let proven = uncertain.end(*is_cut, seen, tables);
        gaps.extend(proven.filter(|proven| proven > newest).map(|proven| (*newest, proven)));
    }
    Ok(work.salvaged)
}

/// What is newer than this generation, in order; `found` has the newest journal first. Where groups overlap, the one of the later
/// journal counts: what an earlier one says of that time failed, or is written there again.
fn newer(found: Vec<Found>, reached: u64) -> Vec<Found> {
    let mut newer = Vec::new();
    // Where the later journals begin, and where all do.
    let (mut of, mut later, mut lowest) = (0, u64::MAX, u64::MAX);
    for found in found {
        if found.seq != of {
            (of, later) = (found.seq, lowest);
        }
        let counts = match &found.piece {
            Piece::Group { from, to, .. } => {
                let counts = *to > reached && *to <= later;
                if counts {
                    lowest = lowest.min(*from);
                }
                counts
            }
            // What an earlier repair read and left behind in a leap is no part of the state any more. It may have been newer than
            // what the leap began from.
            Piece::Loose(loose) => match loose.until {
                Some(until) => until > reached,
                None => loose.after.saturating_add(LEAP / 2) > reached,
            },
        };
        if counts {
            newer.push(found);
        }
    }
    newer.sort_by_key(|found| match &found.piece {
        Piece::Loose(loose) => (loose.after, false),
        Piece::Group { from, .. } => (*from, true),
    });
    newer
}

struct Work {
    salvaged: Salvaged,
}

impl Work {
    fn new(newest: u64, tables: Tables) -> Self {
        let (kept, lost) = (BTreeSet::new(), BTreeSet::new());
        Self {
            salvaged: Salvaged {
                tables,
                groups: 0,
                newest,
                gaps: Vec::new(),
                kept,
                lost,
                damaged: Vec::new(),
                is_cut: false,
                from: Some(newest),
                mended: None,
                partly: None,
                righted: Vec::new(),
                uncertain: Uncertain::new(newest),
            },
        }
    }

    /// On what was read of a damaged snapshot.
    fn on(Base { file, generation, tables, mended, rest }: Base) -> Self {
        let mut work = Self::new(generation, tables);
        if let Some(Rest { loose, trusted }) = rest {
            work.doubt(&loose.guessed);
            work.salvaged.damaged.extend(loose.unread.iter().map(|(at, bytes)| (file.clone(), *at, *bytes)));
            work.salvaged.partly = Some(trusted);
        }
        work.salvaged.mended = Some((file, mended));
        work
    }

    /// A whole group.
    fn add(&mut self, from: u64, to: u64, mut patch: Patch) {
        let salvaged = &mut self.salvaged;
        if from > salvaged.newest {
            salvaged.gaps.push((salvaged.newest, from));
        }
        salvaged.groups += 1;
        salvaged.newest = salvaged.newest.max(to);
        // I-V2
        let revoked: BTreeSet<NodeId> =
            patch.sides.revoked.iter().filter(|(_, mark)| mark.is_some()).map(|(peer, _)| *peer).collect();
        let lifted: BTreeSet<NodeId> =
            patch.sides.revoked.iter().filter(|(_, mark)| mark.is_none()).map(|(peer, _)| *peer).collect();
        let before = &salvaged.tables;
        let stands = |peer: NodeId| {
            revoked.contains(&peer) || before.sides.revoked.get(peer).is_some() && !lifted.contains(&peer)
        };
        patch.trusted.retain(|(id, value)| {
            let blocked = value.is_some().then(|| NodeId::new(*id)).flatten().filter(|peer| stands(*peer));
            salvaged.lost.extend(blocked.map(|peer| (Of::Peer(peer), What::Granted)));
            blocked.is_none()
        });
        patch
            .trusted
            .extend(revoked.iter().filter(|peer| before.trusted.contains(**peer)).map(|peer| (peer.get(), None)));
        match before.patched(patch.clone()) {
            Some(tables) => salvaged.tables = tables,
            None => self.restrict(&patch, true),
        }
    }

    /// What restricts of something that is not whole. `tells`: the rest is lost, and told.
    fn restrict(&mut self, patch: &Patch, tells: bool) {
        let (salvaged, sides) = (&mut self.salvaged, &patch.sides);
        let mut only = Patch::default();
        let peers = sides.revoked.iter().filter_map(|(peer, mark)| Some((*peer, Some((*mark)?))));
        only.sides.revoked = peers.collect();
        let keys = sides.revoked_keys.iter().filter_map(|(key, mark)| Some((*key, Some((*mark)?))));
        only.sides.revoked_keys = keys.collect();
        only.sides.ignored = sides.ignored.iter().filter_map(|(peer, at)| Some((*peer, Some((*at)?)))).collect();
        only.sides.ignored_keys =
            sides.ignored_keys.iter().filter_map(|(key, at)| Some((*key, Some((*at)?)))).collect();
        let gone = patch.trusted.iter().filter(|(_, value)| value.is_none()).filter_map(|(id, _)| NodeId::new(*id));
        let revoked = only.sides.revoked.iter().map(|(peer, _)| *peer);
        let untrusted: Vec<NodeId> =
            gone.chain(revoked).filter(|peer| salvaged.tables.trusted.contains(*peer)).collect();
        only.trusted = untrusted.iter().map(|peer| (peer.get(), None)).collect();
        let kept = &mut salvaged.kept;
        kept.extend(untrusted.iter().map(|peer| (Of::Peer(*peer), What::Untrusted)));
        kept.extend(only.sides.revoked.iter().map(|(peer, _)| (Of::Peer(*peer), What::Revoked)));
        kept.extend(only.sides.revoked_keys.iter().map(|(key, _)| (key_of(key), What::Revoked)));
        kept.extend(only.sides.ignored.iter().map(|(peer, _)| (Of::Peer(*peer), What::Ignored)));
        kept.extend(only.sides.ignored_keys.iter().map(|(key, _)| (key_of(key), What::Ignored)));
        // A mark ends what waits of whom it names, as a revocation does.
        only.sides.pending = only.sides.revoked.iter().map(|(peer, _)| (*peer, None)).collect();
        only.sides.outgoing = only.sides.pending.iter().map(|(peer, _)| (*peer, None)).collect();
        if let Some(tables) = salvaged.tables.patched(only) {
            salvaged.tables = tables;
        }
        if tells {
            salvaged.lost.extend(unkept(patch));
        }
    }

    /// What nobody knows to be right.
    fn doubt(&mut self, patch: &Patch) {
        let all = subjects(patch).map(|of| (of, What::Unreadable));
        self.salvaged.lost.extend(all);
    }

    /// What the invariants of the tables ask for, where what stood between two groups is gone.
    fn reconcile(&mut self) {
        let tables = &self.salvaged.tables;
        let sides = &tables.sides;
        let mut changes = Vec::new();
        for (peer, entry) in sides.outgoing.iter() {
            if tables.marks(peer, entry.expected_key.as_ref()).not_lifted_by(entry.lift).is_some() {
                changes.push(TableChange::Outgoing(peer, None));
            }
        }
        let goes = |peer| changes.contains(&TableChange::Outgoing(peer, None)) || sides.outgoing.get(peer).is_none();
        let mut pending = Vec::new();
        for (peer, entry) in sides.pending.iter() {
            let is_trusted = tables.trusted.get(peer).is_some_and(|record| record.public_key == Some(entry.key));
            let is_answer = entry.keys().any(|it| it.kind == PendingKind::AnsweredUnvouched) && goes(peer);
            if is_trusted || is_answer {
                pending.push(TableChange::Pending(peer, None));
            }
        }
        changes.append(&mut pending);
        let lost = changes.iter().filter_map(|change| match change {
            TableChange::Outgoing(peer, _) | TableChange::Pending(peer, _) => Some((Of::Peer(*peer), What::Other)),
            _ => None,
        });
        let lost: Vec<_> = lost.collect();
        self.salvaged.tables = tables.apply(&changes).0;
        self.salvaged.lost.extend(lost);
        // Who is kept out by a mark is no riddle: the mark says it.
        let Salvaged { kept, lost, .. } = &mut self.salvaged;
        lost.retain(|(of, what)| *what != What::Other || kept.iter().all(|(other, _)| other != of));
    }
}

fn key_of(key: &PublicKey) -> Of {
    Of::Key(key.to_base64())
}

/// What does not restrict, in a group that is not whole.
fn unkept(patch: &Patch) -> Vec<(Of, What)> {
    let SideValues { pending, outgoing, revoked, revoked_keys, ignored, ignored_keys, refused, owed, .. } =
        &patch.sides;
    let granted = patch.trusted.iter().filter(|(_, value)| value.is_some()).filter_map(|(id, _)| NodeId::new(*id));
    let lifted = revoked.iter().filter(|(_, mark)| mark.is_none()).map(|(peer, _)| *peer);
    let lifted = lifted.chain(ignored.iter().filter(|(_, at)| at.is_none()).map(|(peer, _)| *peer));
    let keys = revoked_keys.iter().filter(|(_, mark)| mark.is_none()).map(|(key, _)| key);
    let keys = keys.chain(ignored_keys.iter().filter(|(_, at)| at.is_none()).map(|(key, _)| key));
    let others = pending.iter().map(|(peer, _)| *peer).chain(outgoing.iter().map(|(peer, _)| *peer));
    let others = others.chain(refused.iter().map(|(peer, _)| *peer)).chain(owed.iter().map(|(peer, _)| *peer));
    let of = |what: What| move |peer: NodeId| (Of::Peer(peer), what);
    let lost = granted.map(of(What::Granted)).chain(lifted.map(of(What::Lifted))).chain(others.map(of(What::Other)));
    lost.chain(keys.map(|key| (key_of(key), What::Lifted))).collect()
}

/// Everybody whom a patch is about.
fn subjects(patch: &Patch) -> impl Iterator<Item = Of> {
    let SideValues { pending, outgoing, revoked, floors, revoked_keys, ignored, ignored_keys, refused, owed, .. } =
        &patch.sides;
    let trusted = patch.trusted.iter().filter_map(|(id, _)| NodeId::new(*id));
    let peers = trusted.chain(pending.iter().map(|(peer, _)| *peer)).chain(outgoing.iter().map(|(peer, _)| *peer));
    let peers = peers.chain(revoked.iter().map(|(peer, _)| *peer)).chain(floors.iter().map(|(peer, _)| *peer));
    let peers = peers.chain(ignored.iter().map(|(peer, _)| *peer)).chain(refused.iter().map(|(peer, _)| *peer));
    let peers = peers.chain(owed.iter().map(|(peer, _)| *peer));
    let keys = revoked_keys.iter().map(|(key, _)| key).chain(ignored_keys.iter().map(|(key, _)| key));
    peers.map(Of::Peer).chain(keys.map(key_of))
}
