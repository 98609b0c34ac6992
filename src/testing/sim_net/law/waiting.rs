//! Who waits for an operator: comes in if there is room, stays what it was shown as, and goes for a reason.
//!
//! More than 450 lines because what comes, stays and goes is judged by the same room and the same commands.
#![forbid(unsafe_code)]

use core::cmp::Reverse;
use std::net::IpAddr;

use super::operator::refused_by;
use super::verdict::Verdict;
use super::words::{is_contradicted, is_set_aside, key_is_marked, record_key};
use super::{Law, Seen};
use crate::machine::input::{Command, Input, Lookup, PeerOrKey, Received};
use crate::machine::outcome::Outcome;
use crate::peer::{NodeId, PublicKey};
use crate::tables::{OTHER_KEYS_MAX, OtherKey, Pending, PendingKind, REFUSED_PER_PEER_MAX, Source};
use crate::testing::model::PlainView;
use crate::wire::message::Kind;

/// Whether a newcomer gets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// In the place of this one.
    Of(NodeId),
    None,
}

/// the /48 of an IPv6 source; any other source is a site by itself.
type Site = (Option<u128>, Option<Source>);
/// the /40 and the /32 of an IPv6 source.
type Block = (u32, u128);
/// A source of the newcomer's own site, or another site whole; or a block that the newcomer is not in.
type Crowd = (Option<Block>, Option<Source>, Site);

fn block(source: Source, bits: u32) -> Option<Block> {
    match source {
        Source::Address(IpAddr::V6(v6)) => Some((bits, u128::from(v6) >> (128 - bits))),
        _ => None,
    }
}

fn site(source: Source) -> Site {
    match source {
        Source::Address(IpAddr::V6(v6)) => (Some(u128::from(v6) >> 80), None),
        lone => (None, Some(lone)),
    }
}

fn count(tables: &PlainView, source: Source) -> usize {
    tables.pending.values().filter(|it| it.source == source).count()
}

impl Seen<'_> {
    ///
    pub(super) fn room(&self, newcomer: NodeId, source: Source, backed: bool) -> Room {
        if self.before.pending.contains_key(&newcomer) {
            return Room::Free;
        }
        self.room_beside(newcomer, source, backed)
    }

    /// The same, as if this peer did not wait: charge an entry to another source.
    fn room_beside(&self, own: NodeId, source: Source, backed: bool) -> Room {
        let limits = &self.rules.limits;
        let others = || self.before.pending.iter().filter(|(peer, _)| **peer != own);
        let is_source_full = others().filter(|(_, it)| it.source == source).count() >= limits.pending_per_source_max;
        let is_full = others().count() >= limits.pending_max;
        if !(is_full || is_source_full) {
            return Room::Free;
        }
        let weakest = |of: &dyn Fn(Source) -> bool| {
            let them = others().filter(|(_, it)| !it.is_backed() && of(it.source));
            them.min_by_key(|(_, it)| it.received_tick).map_or(Room::None, |(peer, _)| Room::Of(*peer))
        };
        match (backed, is_source_full) {
            (true, true) => weakest(&|of| of == source),
            (true, false) => weakest(&|_| true),
            (false, true) => Room::None,
            (false, false) => self.larger(source).map_or(Room::None, |of| weakest(&of)),
        }
    }

    /// the source of its own site, the other site, or the other block, that has most, if that has two more than the
    /// newcomer's would.
    fn larger(&self, source: Source) -> Option<Box<dyn Fn(Source) -> bool>> {
        let own = site(source);
        let of_site = |of: Site| self.before.pending.values().filter(|it| site(it.source) == of).count();
        let mut larger: Vec<(usize, Reverse<Crowd>)> = Vec::new();
        for it in self.before.pending.values() {
            let theirs = site(it.source);
            let held = if theirs == own { count(self.before, it.source) } else { of_site(theirs) };
            let ours = if theirs == own { count(self.before, source) } else { of_site(own) };
            if held >= ours + 3 {
                larger.push((held, Reverse((None, (theirs == own).then_some(it.source), theirs))));
            }
            for bits in [40, 32] {
                let (theirs, ours) = (block(it.source, bits), block(source, bits));
                let of_block = |of: Option<Block>| {
                    let them = self.before.pending.values();
                    them.filter(|it| of.map_or(it.source == source, |_| block(it.source, bits) == of)).count()
                };
                if theirs.is_some() && theirs != ours && of_block(theirs) >= of_block(ours) + 3 {
                    larger.push((of_block(theirs), Reverse((theirs, None, site(it.source)))));
                }
            }
        }
        let (_, Reverse((of_block, of_source, of))) = larger.into_iter().max()?;
        Some(match (of_block, of_source) {
            (Some((bits, _)), _) => Box::new(move |other| block(other, bits) == of_block),
            (None, Some(source)) => Box::new(move |other| other == source),
            (None, None) => Box::new(move |other| site(other) == of),
        })
    }

    pub(super) fn who_waits_does_so_for_a_reason(&self) -> Law {
        for (peer, was, is) in self.moved(|tables| &tables.pending) {
            match (was, is) {
                (None, Some(is)) => self.comes_in(peer, is)?,
                (Some(was), Some(is)) if was.number != is.number || was.key != is.key => {
                    self.takes_the_place(peer, was, is)?
                }
                (Some(was), Some(is)) => self.stays_what_it_is(peer, was, is)?,
                (Some(was), None) => self.goes(peer, was)?,
                (None, None) => {}
            }
            if let Some(is) = is {
                self.other_keys_are_few(is)?;
            }
        }
        self.what_came_waits()?;
        self.the_contradicted_are_vouched_for_no_more()?;
        self.answers_go_with_their_request()?;
        self.what_was_refused_is_remembered()?;
        self.limits_of_waiting()?;
        if matches!(self.input, Input::Housekeeping) {
            let is_old = self.after.pending.values().any(|it| self.is_older(it.received_tick));
            self.must("R-55", !is_old, "somebody waits for too long")?;
        }
        Ok(())
    }

    /// The message of this peer that comes to something in the queue.
    fn that_waits(&self, peer: NodeId) -> Option<&Received> {
        self.received()
            .filter(|it| it.message.sender() == peer)
            .filter(|it| matches!(self.ruling(it).verdict, Verdict::Waits | Verdict::WaitsOrDrops))
    }

    /// what came is there, the newest of its key, or counted beside the first.
    fn what_came_waits(&self) -> Law {
        let Some(it) = self.received().filter(|_| self.outcome() == Some(Outcome::Queued)) else { return Ok(()) };
        let (peer, key, stamp) = (it.message.sender(), it.message.key(), it.message.stamp());
        let Some(is) = self.after.pending.get(&peer) else {
            return Err("R-25: what was put before the operator does not wait".to_owned());
        };
        // A request that waits keeps its nonce though the peer also answers.
        let kind = match it.message.kind() {
            Kind::Request => PendingKind::Request,
            _ => PendingKind::AnsweredUnvouched,
        };
        if is.key == *key {
            let is_newest = is.kind != kind
                || it.message.is_version_1()
                || (is.stamp >= stamp && (is.stamp > stamp || is.nonce == it.message.nonce()));
            return self.must("R-28", is_newest, "a newer request has not renewed the entry");
        }
        let Some(was) = self.before.pending.get(&peer) else {
            return Err("R-25: another key waits than came".to_owned());
        };
        self.must("R-29", is.conflicts > was.conflicts, "another key is not counted as a conflict")?;
        let other = is.others.iter().find(|other| other.key == *key);
        let has_place =
            was.others.len() < OTHER_KEYS_MAX && was.others.iter().all(|other| other.source != it.path.source());
        let is_first = was.others.iter().all(|other| other.key != *key);
        self.must(
            "R-168",
            other.is_some() || !(has_place && is_first),
            "another key finds no place where there is one",
        )?;
        let renewed = other.is_none_or(|other| {
            other.kind != kind || other.nonce.is_none() || other.stamp >= stamp || it.message.is_version_1()
        });
        self.must("R-168", renewed, "a newer request has not renewed the key that waits beside the first")
    }

    fn comes_in(&self, peer: NodeId, is: &Pending) -> Law {
        let Some(it) = self.that_waits(peer) else { return Err("R-25: somebody waits who did not ask".to_owned()) };
        self.is_as_it_came(it, is)?;
        let (decides, other) = (self.decides(it), self.is_known_otherwise(peer, it.message.key()));
        let conflicts = u32::from(other || is_set_aside(self.before, peer, it.message.key()));
        self.must(
            "R-166",
            decides || is.conflicts == conflicts,
            "a key that is not the known one is no conflict, or the known one is",
        )?;
        self.must("R-168", is.others.is_empty(), "a new entry has other keys")
    }

    fn is_as_it_came(&self, it: &Received, is: &Pending) -> Law {
        let message = &it.message;
        let is_so = is.key == *message.key()
            && is.nonce == message.nonce()
            && is.stamp == message.stamp()
            && is.source == it.path.source()
            && is.received_at == self.now.wall
            && is.received_tick == self.now.tick;
        self.must("R-25", is_so, "somebody waits otherwise than it came")?;
        let decides = self.decides(it);
        self.must("R-25", is.authentic == decides, "who waits is shown as vouched for and is not, or the other way")?;
        self.must("R-173", is.number != 0, "a new entry has no number")?;
        self.must(
            "R-217",
            is.proven_by.is_some() == self.is_proven(it),
            "who waits is shown as proven and is not, or the other way",
        )
    }

    /// another key, or another entry, in the place of the first.
    fn takes_the_place(&self, peer: NodeId, was: &Pending, is: &Pending) -> Law {
        self.must("R-173", was.number != is.number, "another key has the number of the first")?;
        if was.kind == PendingKind::AnsweredUnvouched && is.kind == PendingKind::Request && self.answer_goes(peer) {
            let waited = was.others.iter().any(|it| it.key == is.key && it.kind == PendingKind::Request);
            return self.must("R-170", waited, "what took the place of an answer did not wait behind it");
        }
        if let Some(Command::Reject { peer: of, named, .. }) = self.command() {
            let refused = refused_by(self.before, *of, *named);
            let is_next = *of == peer
                && refused.iter().any(|it| it.key == was.key)
                && was.others.iter().any(|it| (it.key, it.nonce, it.source) == (is.key, is.nonce, is.source))
                && !is.is_backed()
                && is.others.len() + 1 == was.others.len();
            return self.must("R-283", is_next, "what was refused gave its place to something that did not wait there");
        }
        let Some(it) = self.that_waits(peer) else {
            return Err("R-29: another key waits in the first one's place, and no message came under it".to_owned());
        };
        let is_its_key = is.key == *it.message.key();
        // for a key that the registry contradicts nobody vouches any more.
        let contradicted = matches!(&it.lookup, Lookup::Found { key, .. } if *key != was.key);
        let was_backed = was.proven_by.is_some() || (was.authentic && !contradicted);
        let may = is_its_key && !was_backed && (self.decides(it) || self.is_proven(it));
        let is_same_key = was.key == is.key;
        self.must(
            "R-29",
            may || (is_same_key && is_its_key),
            "a key took another's place that nobody vouches for, or that of one vouched for",
        )?;
        if !is_same_key {
            self.must("R-29", is.conflicts > was.conflicts, "a key that took another's place is no conflict")?;
            let kept = is.others.iter().any(|other| other.key == was.key);
            let is_full =
                was.others.len() >= OTHER_KEYS_MAX || is.others.iter().any(|other| other.source == was.source);
            self.must("R-29", kept || is_full, "the key whose place was taken is not kept")?;
            self.is_as_it_came(it, is)?;
        }
        Ok(())
    }

    /// the same first key, and what may change beside it.
    fn stays_what_it_is(&self, peer: NodeId, was: &Pending, is: &Pending) -> Law {
        // An answer has no text; the first request that follows brings one.
        let first = was.kind == PendingKind::AnsweredUnvouched && is.kind == PendingKind::Request;
        self.must("R-28", first || was.justification == is.justification, "the text that was shown has changed")?;
        let message = self.received().filter(|it| it.message.sender() == peer);
        let under_it = message.filter(|it| *it.message.key() == was.key);
        let is_renewed = (was.nonce, was.stamp) != (is.nonce, is.stamp);
        if is_renewed {
            let is_so = under_it.is_some_and(|it| {
                is.nonce == it.message.nonce()
                    && is.stamp == it.message.stamp()
                    && (it.message.stamp() > was.stamp || was.nonce.is_none())
            });
            self.must("R-28", is_so, "an entry was renewed by nothing newer")?;
        }
        if was.authentic != is.authentic {
            let vouched = under_it.is_some_and(|it| self.decides(it));
            let contradicted =
                message.is_some_and(|it| matches!(&it.lookup, Lookup::Found { key, .. } if *key != was.key));
            self.must(
                "R-172",
                if is.authentic { vouched } else { contradicted },
                "who vouches for a waiting key has changed",
            )?;
        }
        if was.source != is.source {
            let vouched = under_it.is_some_and(|it| self.decides(it) && is.source == it.path.source());
            self.must("R-172", vouched && !was.authentic, "an entry moved to another source")?;
        }
        self.must("R-29", is.conflicts >= was.conflicts, "conflicts were forgotten")?;
        if is.conflicts > was.conflicts {
            let other = message.is_some_and(|it| *it.message.key() != was.key);
            let unproven = was.proven_by.is_some() && is.proven_by.is_none();
            self.must("R-29", other || unproven, "a conflict was counted without another key")?;
        }
        if was.others.len() > is.others.len() {
            let revoked =
                matches!(self.command(), Some(Command::RevokeKey { .. } | Command::Ignore { of: PeerOrKey::Key(_) }));
            let refused = matches!(self.command(), Some(Command::Reject { peer: of, .. }) if *of == peer);
            let reason = revoked || refused || self.answer_goes(peer);
            self.must("R-168", reason, "a key that waited beside the first was forgotten")?;
        }
        Ok(())
    }

    ///
    fn other_keys_are_few(&self, is: &Pending) -> Law {
        let keys: Vec<PublicKey> = is.keys().map(|it| it.key).collect();
        let sources: Vec<Source> = is.others.iter().map(|it| it.source).collect();
        let twice = keys.iter().enumerate().any(|(at, key)| keys.iter().skip(at + 1).any(|other| other == key))
            || sources.iter().enumerate().any(|(at, it)| sources.iter().skip(at + 1).any(|other| other == it));
        self.must("R-168", !twice && is.others.len() <= OTHER_KEYS_MAX, "more other keys are kept than may be")
    }

    /// whether the request that answers to this peer belong to ends with this step.
    fn answer_goes(&self, peer: NodeId) -> bool {
        let open = |tables: &PlainView| super::words::asked(tables, peer).map(|asked| asked.nonce);
        open(self.before) != open(self.after) || open(self.after).is_none()
    }

    fn goes(&self, peer: NodeId, was: &Pending) -> Law {
        let is_answer = was.kind == PendingKind::AnsweredUnvouched;
        let is_for_a_reason = match self.input {
            Input::Message(it) if it.message.sender() == peer => {
                let ruling = self.ruling(it);
                let is_own = matches!(ruling.verdict, Verdict::Trusts | Verdict::Revokes);
                let is_adopted = ruling.verdict == Verdict::Confirms && was.key == *it.message.key();
                is_own || is_adopted || (is_answer && self.answer_goes(peer))
            }
            Input::Message(it) => {
                let (sender, source) = (it.message.sender(), it.path.source());
                let backed = self.decides(it) || self.is_proven(it);
                let charged_to = self.before.pending.get(&sender).map(|entry| entry.source);
                let moves = backed && charged_to.is_some_and(|from| from != source);
                self.room(sender, source, backed) == Room::Of(peer)
                    || (moves && self.room_beside(sender, source, backed) == Room::Of(peer))
            }
            Input::Operator(command) => match command {
                Command::Approve { peer: of, .. } | Command::Revoke { peer: of, .. } => *of == peer,
                // what else waits takes its place, unless there is no room for its source.
                Command::Reject { peer: of, named, .. } => {
                    let refused = refused_by(self.before, peer, *named);
                    let has_room = |it: &OtherKey| {
                        let others = self.before.pending.iter().filter(|(id, _)| **id != peer);
                        let held = others.filter(|(_, entry)| entry.source == it.source).count();
                        refused.iter().all(|refused| refused.key != it.key)
                            && held < self.rules.limits.pending_per_source_max
                    };
                    *of == peer && refused.iter().any(|it| it.key == was.key) && !was.others.iter().any(has_room)
                }
                Command::Grant { record, .. } => record.node_id == peer,
                Command::AdoptKey { peer: of, key } => *of == peer && was.key == *key,
                Command::RevokeKey { key, .. } => was.key == *key || (is_answer && self.answer_goes(peer)),
                Command::Ignore { of: PeerOrKey::Peer(of) } => *of == peer,
                Command::Ignore { of: PeerOrKey::Key(key) } => was.key == *key || (is_answer && self.answer_goes(peer)),
                Command::Cancel { .. } | Command::Request { .. } => is_answer && self.answer_goes(peer),
                _ => false,
            },
            Input::LookedUp { peer: of, lookup: Lookup::Found { key, .. } } => *of == peer && was.key == *key,
            Input::Announce { .. } => is_answer && self.answer_goes(peer),
            Input::Housekeeping => self.is_older(was.received_tick) || (is_answer && self.answer_goes(peer)),
            Input::OwnEntries => peer == self.rules.own_id,
            _ => false,
        };
        self.must("R-27", is_for_a_reason, "somebody waits no more, and no rule says so")
    }

    ///
    fn the_contradicted_are_vouched_for_no_more(&self) -> Law {
        let Some(it) = self.received() else { return Ok(()) };
        let peer = it.message.sender();
        let (Lookup::Found { key: known, .. }, Some(is)) = (&it.lookup, self.after.pending.get(&peer)) else {
            return Ok(());
        };
        if self.ruling(it).verdict == Verdict::Drops && !is_contradicted(self.before, it) {
            return Ok(());
        }
        self.must(
            "R-157",
            is.key == *known || !is.authentic,
            "a key counts as vouched for that the registry contradicts",
        )
    }

    ///
    fn answers_go_with_their_request(&self) -> Law {
        for (peer, is) in &self.after.pending {
            let is_answer = is.keys().any(|it| it.kind == PendingKind::AnsweredUnvouched);
            if is_answer {
                let open = super::words::asked(self.after, *peer).is_some();
                self.must("R-170", open, "an answer waits, and what it answers does not")?;
            }
        }
        Ok(())
    }

    /// what an operator's command ends that waits, each peer with the keys that are meant.
    fn refused_now(&self) -> Vec<(NodeId, Vec<OtherKey>)> {
        let Some(command) = self.command().filter(|_| self.answer.is_ok()) else { return Vec::new() };
        let meant = |is_meant: &dyn Fn(NodeId, &OtherKey) -> bool| {
            let waiting = self.before.pending.iter();
            let keys = waiting.map(|(peer, it)| (*peer, it.keys().filter(|it| is_meant(*peer, it)).collect()));
            keys.filter(|(_, keys): &(NodeId, Vec<OtherKey>)| !keys.is_empty()).collect()
        };
        match command {
            Command::Reject { peer, named, .. } => vec![(*peer, refused_by(self.before, *peer, *named))],
            Command::Approve { peer, .. } => {
                let approved = self.approved().map(|(_, chosen)| chosen.key);
                meant(&|of, it| of == *peer && Some(it.key) != approved)
            }
            Command::Revoke { peer, .. } | Command::Ignore { of: PeerOrKey::Peer(peer) } => meant(&|of, _| of == *peer),
            Command::RevokeKey { key, .. } => meant(&|_, it| it.key == *key),
            Command::Ignore { of: PeerOrKey::Key(key) } => {
                meant(&|of, it| it.key == *key && record_key(self.before, of) != Some(*key))
            }
            _ => Vec::new(),
        }
    }

    ///
    fn what_was_refused_is_remembered(&self) -> Law {
        let refused = self.refused_now();
        for (peer, was, is) in self.moved(|tables| &tables.refused) {
            let len = |of: Option<&std::sync::Arc<[_]>>| of.map_or(0, |them| them.len());
            self.must("R-171", len(is) <= REFUSED_PER_PEER_MAX, "more refusals are remembered than may be")?;
            let forgets = len(is) < len(was);
            let may_forget = matches!(self.input, Input::Housekeeping | Input::OwnEntries) || !refused.is_empty();
            self.must("R-171", !forgets || may_forget, "a refusal was forgotten")?;
            let may_add = match self.input {
                Input::Message(it) => it.message.sender() == peer && self.is_owed_refusal(it),
                _ => refused.iter().any(|(of, keys)| *of == peer && !keys.is_empty()),
            };
            self.must("R-171", was == is || may_add || may_forget, "what counts as refused has changed")?;
            self.must("R-171", len(is) <= len(was) || may_add, "something counts as refused that nobody refused")?;
        }
        if let Some(it) = self.received().filter(|it| self.ruling(it).verdict == Verdict::TellsRefusal) {
            let (key, stamp) = (*it.message.key(), it.message.stamp());
            let kept = self.after.refused.get(&it.message.sender());
            let is_kept = kept.is_some_and(|them| them.iter().any(|it| it.key == key && it.stamp >= stamp));
            self.must("R-230", is_kept, "a copy of a request that was refused as owed would come back")?;
        }
        for (peer, keys) in refused {
            let kept = self.after.refused.get(&peer);
            for key in keys.iter().filter(|it| it.nonce.is_some() && it.stamp <= self.latest()) {
                let is_kept = kept.is_some_and(|them| them.iter().any(|it| it.key == key.key && it.stamp >= key.stamp));
                self.must("R-171", is_kept, "what an operator refused is not remembered")?;
            }
        }
        Ok(())
    }

    fn limits_of_waiting(&self) -> Law {
        let (before, after, limits) = (self.before, self.after, &self.rules.limits);
        if before.pending.len() == after.pending.len() {
            return Ok(());
        }
        let is_within = after.pending.len() <= limits.pending_max.max(before.pending.len());
        self.must("R-26", is_within, "more wait than may")?;
        for (peer, is) in after.pending.iter().filter(|(peer, _)| !before.pending.contains_key(*peer)) {
            let held = count(after, is.source);
            self.must(
                "R-26",
                held <= limits.pending_per_source_max.max(count(before, is.source)),
                "more wait from one source than may",
            )?;
            let marked = key_is_marked(after, &is.key) && record_key(after, *peer) == Some(is.key);
            self.must("R-181", !marked, "a peer is trusted and waits under one marked key")?;
        }
        Ok(())
    }
}
