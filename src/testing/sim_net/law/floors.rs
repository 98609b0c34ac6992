//! Section 6: floors rise for what somebody vouches for, and step back only where a clock was wrong; no stamp is used twice.
#![forbid(unsafe_code)]

use super::verdict::Verdict;
use super::words::{is_contradicted, is_vouched_for};
use super::{Law, Seen};
use crate::machine::effect::Action;
use crate::machine::input::{Command, Input, Lookup};
use crate::peer::{NodeId, PublicKey};
use crate::tables::Floor;
use crate::testing::model::PlainView;
use crate::time::WallMillis;

const NEVER: WallMillis = WallMillis::new(0);
/// so far ahead a sent stamp may lie.
const SENT_AHEAD_MS: i64 = 20_000;
/// so much older than a grant a message may be.
const BEFORE_GRANT_MS: i64 = -30_000;

fn is_in_a_table(tables: &PlainView, peer: NodeId) -> bool {
    tables.trusted.contains_key(&peer)
        || tables.pending.contains_key(&peer)
        || tables.outgoing.contains_key(&peer)
        || tables.revoked.contains_key(&peer)
}

impl Seen<'_> {
    pub(super) fn floors_move_for_a_reason(&self) -> Law {
        for (peer, was, is) in self.moved(|tables| &tables.floor) {
            let old = was.copied().unwrap_or(Floor::EMPTY);
            match is {
                None => self.floor_is_forgotten(peer)?,
                Some(is) => {
                    self.seen_moves(peer, &old, is)?;
                    self.former_moves(peer, &old, is)?;
                    self.spoken_version_moves(peer, &old, is)?;
                    self.sent_moves(peer, &old, is)?;
                }
            }
        }
        self.vouched_for_is_remembered()?;
        self.former_floors_are_forgotten()?;
        self.stamps_rise()?;
        self.floors_are_few()
    }

    ///
    fn floor_is_forgotten(&self, peer: NodeId) -> Law {
        let is_full = self.before.floor.len() >= self.rules.limits.floors_max;
        let may = is_full && !is_in_a_table(self.after, peer);
        self.must(
            "R-54",
            may || peer == self.rules.own_id,
            "a floor was forgotten for which there is room, or a table needs it",
        )
    }

    ///
    fn floors_are_few(&self) -> Law {
        let max = self.rules.limits.floors_max;
        if self.after.floor.len() > max {
            for (peer, was, _) in self.moved(|tables| &tables.floor).filter(|(_, _, is)| is.is_some()) {
                let may = was.is_some() || is_in_a_table(self.after, peer) || is_in_a_table(self.before, peer);
                self.must("R-54", may, "beyond the limit a floor was entered of who is in no table")?;
            }
        }
        if matches!(self.input, Input::Housekeeping) && self.before.floor.len() >= max {
            let strangers = self.after.floor.keys().filter(|peer| !is_in_a_table(self.after, **peer)).count();
            let free = max.saturating_sub(self.after.floor.len());
            self.must("R-56", strangers == 0 || free >= max / 8, "floors of strangers keep the table full")?;
        }
        Ok(())
    }

    /// What a key's word, an operator's, or a look-up makes of the floor: its key, and the least that it comes to.
    fn begins_anew(&self, peer: NodeId) -> Option<(PublicKey, WallMillis)> {
        let granted = self.now.wall.saturating_add(BEFORE_GRANT_MS);
        match self.input {
            Input::Operator(Command::Approve { .. }) => {
                let chosen = self.approved().filter(|(of, chosen)| *of == peer && chosen.nonce.is_some());
                chosen.map(|(_, chosen)| (chosen.key, chosen.stamp))
            }
            Input::Operator(Command::Grant { record, .. }) if record.node_id == peer => {
                record.public_key.map(|key| (key, granted))
            }
            Input::Operator(Command::AdoptKey { peer: of, key }) if *of == peer => Some((*key, granted)),
            Input::LookedUp { peer: of, lookup: Lookup::Found { key, .. } } if *of == peer => Some((*key, granted)),
            _ => None,
        }
        .filter(|_| self.answer.is_ok())
    }

    ///
    fn seen_moves(&self, peer: NodeId, was: &Floor, is: &Floor) -> Law {
        if (was.key, was.seen) == (is.key, is.seen) {
            return Ok(());
        }
        if let Some((key, least)) = self.begins_anew(peer) {
            // further ahead than our clock no floor begins.
            let least = least.min(self.latest());
            let same = was.key == Some(key);
            let kept = if same { was.seen.min(self.latest()).max(least) } else { least };
            let is_so = is.key == Some(key) && (is.seen == least || is.seen == kept);
            return self.must("R-191", is_so, "a floor begins anew from something else than was approved or granted");
        }
        let message = self.received().filter(|it| it.message.sender() == peer && !it.message.is_version_1());
        let Some(it) = message else { return Err("R-19: a floor moved without a message of its peer".to_owned()) };
        let (key, stamp) = (*it.message.key(), it.message.stamp());
        if is.seen < was.seen && was.key == is.key {
            let clamped = was.seen > self.latest() && is.seen == self.latest();
            return self.must("R-53", clamped && was.key == Some(key), "a floor stepped back where no clock was wrong");
        }
        let trusts = matches!(self.ruling(it).verdict, Verdict::Trusts);
        let vouched = is_vouched_for(self.before, it) && !is_contradicted(self.before, it);
        self.must("R-19", vouched || trusts, "a floor rose for what nobody vouches for")?;
        self.must("R-19", is.key == Some(key) && is.seen == stamp, "a floor rose to another stamp than the message's")
    }

    /// what somebody vouches for raises the floor, even if it is dropped afterwards.
    fn vouched_for_is_remembered(&self) -> Law {
        let Some(it) = self.received().filter(|it| !it.message.is_version_1()) else { return Ok(()) };
        let (peer, key, stamp) = (it.message.sender(), *it.message.key(), it.message.stamp());
        let ruling = self.ruling(it);
        if ruling.verdict == Verdict::Drops && is_barred(ruling.rule) {
            return Ok(());
        }
        let must_rise = is_vouched_for(self.before, it) || ruling.verdict == Verdict::Trusts;
        let is_at_limit =
            self.before.floor.len() >= self.rules.limits.floors_max && !self.before.floor.contains_key(&peer);
        let may_be_lost = is_at_limit && !is_in_a_table(self.after, peer);
        let floor = self.after.floor.get(&peer);
        let is_so = floor.is_some_and(|floor| floor.key == Some(key) && floor.seen >= stamp && floor.spoke_v2);
        self.must("R-19", !must_rise || is_so || may_be_lost, "what somebody vouches for did not raise the floor")
    }

    ///
    fn former_moves(&self, peer: NodeId, was: &Floor, is: &Floor) -> Law {
        if was.before == is.before {
            let clamped = was.key == is.key && is.seen < was.seen && self.begins_anew(peer).is_none();
            return self.must(
                "R-190",
                !clamped || is.before >= was.seen,
                "a floor was moved back, and what it was is forgotten",
            );
        }
        if is.before > was.before {
            let approved = self.begins_anew(peer).is_some_and(|(_, stamp)| stamp > self.latest() && is.before == stamp);
            let is_so = approved || (was.seen > self.latest() && is.before == was.seen);
            return self.must("R-190", is_so, "a former floor is another than the floor was");
        }
        let message = self.received().filter(|it| it.message.sender() == peer);
        let newer = message.is_some_and(|it| {
            is.key == Some(*it.message.key()) && (is.key != was.key || it.message.stamp() >= was.before)
        });
        let anew = self.begins_anew(peer).filter(|(key, _)| is.key == Some(*key));
        // what was approved may itself lie too far ahead, and is what the floor was then.
        let of_approved = anew.is_some_and(|(_, stamp)| stamp > self.latest() && is.before == stamp);
        let is_forgotten = is.before == NEVER && (newer || anew.is_some());
        self.must("R-191", is_forgotten || of_approved, "a former floor was forgotten too early")
    }

    ///
    fn former_floors_are_forgotten(&self) -> Law {
        let peer = match self.input {
            Input::Operator(Command::Approve { peer, .. }) => *peer,
            Input::Operator(Command::Grant { record, .. }) => record.node_id,
            _ => return Ok(()),
        };
        let Some((key, least)) = self.begins_anew(peer) else { return Ok(()) };
        let Some(is) = self.after.floor.get(&peer) else {
            let is_approval = matches!(self.input, Input::Operator(Command::Approve { .. }));
            return self.must("R-42", !is_approval, "after an approval there is no floor");
        };
        if matches!(self.input, Input::Operator(Command::Approve { .. })) {
            let is_so = is.key == Some(key) && is.seen.max(is.before) >= least;
            self.must("R-42", is_so, "what is older than what was approved counts")?;
        }
        let former = self.before.floor.get(&peer).filter(|was| was.key == Some(key)).map_or(NEVER, |was| was.before);
        self.must(
            "R-191",
            former == NEVER || is.before == NEVER || is.before == least,
            "an operator's word did not begin the floor anew",
        )
    }

    ///
    fn spoken_version_moves(&self, peer: NodeId, was: &Floor, is: &Floor) -> Law {
        self.must("R-61", is.spoke_v2 || !was.spoke_v2, "that a peer has spoken version 2 was forgotten")?;
        if is.spoke_v2 == was.spoke_v2 {
            return Ok(());
        }
        let spoke = self.received().is_some_and(|it| it.message.sender() == peer && !it.message.is_version_1());
        let approved = self.approved().is_some_and(|(of, chosen)| of == peer && chosen.nonce.is_some());
        self.must("R-61", spoke || approved, "a peer has spoken version 2 that has not")
    }

    ///
    fn sent_moves(&self, peer: NodeId, was: &Floor, is: &Floor) -> Law {
        self.must("R-51", is.reserved >= is.sent, "less is reserved than was sent")?;
        if (was.sent, was.reserved) == (is.sent, is.reserved) {
            return Ok(());
        }
        if matches!(self.input, Input::Stopping) {
            return self.must(
                "R-196",
                is.sent == was.sent && is.reserved == is.sent,
                "a stop in good order changes what was sent, or keeps a reserve",
            );
        }
        let sends = self.drafts().any(|draft| draft.to == peer);
        self.must("R-50", sends, "what was sent has changed, and nothing is sent")?;
        let ahead = self.now.wall.saturating_add(self.reserve()).max(is.sent);
        self.must("R-51", is.reserved <= ahead.max(was.reserved), "more is reserved than may be")
    }

    fn drafts(&self) -> impl Iterator<Item = &crate::machine::effect::Draft> {
        let effects = self.step().map(|step| step.effects.as_slice()).unwrap_or_default();
        effects.iter().filter_map(|effect| match &effect.action {
            Action::Send(draft) | Action::SendVersion1(draft) => Some(draft),
            _ => None,
        })
    }

    /// each stamp is newer than the last, unless that was of a clock that was wrong.
    fn stamps_rise(&self) -> Law {
        for draft in self.drafts() {
            let floor = self.before.floor.get(&draft.to).copied().unwrap_or(Floor::EMPTY);
            let now = self.now.wall;
            let wrong = floor.sent > now.saturating_add(SENT_AHEAD_MS);
            self.must("R-50", draft.stamp > floor.sent || wrong, "a stamp is not newer than the last")?;
            self.must("R-50", draft.stamp >= now, "a stamp is older than our clock")?;
            let latest = now.saturating_add(self.reserve());
            let next = floor.sent.saturating_add(4);
            // what tells of a new key is stamped behind all that came before it.
            let is_behind = wrong || matches!(self.input, crate::machine::input::Input::Announce { .. });
            let is_right = draft.stamp <= if is_behind { latest.saturating_add(4) } else { latest.max(next) };
            self.must("R-53", is_right, "a stamp is further ahead than receivers hear")?;
            let sent = self.after.floor.get(&draft.to).map(|floor| floor.sent);
            let at_limit = sent.is_none() && self.after.floor.len() >= self.rules.limits.floors_max;
            self.must("R-50", sent >= Some(draft.stamp) || at_limit, "a stamp that was used is not remembered")?;
        }
        let Some(step) = self.step() else { return Ok(()) };
        let moved_back = self.moved(|tables| &tables.floor).any(|(_, was, is)| match (was, is) {
            (Some(was), Some(is)) => is.sent < was.sent || (is.seen < was.seen && is.before > was.before),
            _ => false,
        });
        self.must("R-53", !moved_back || step.clamped, "a stamp was moved back, and not reported")
    }
}

/// Whether this rule drops a message before it is asked who vouches for it.
fn is_barred(rule: &str) -> bool {
    matches!(
        rule,
        "R-60"
            | "R-72"
            | "R-11"
            | "R-12"
            | "R-13"
            | "R-184"
            | "R-61"
            | "R-68"
            | "R-53"
            | "R-15"
            | "R-17"
            | "R-193"
            | "R-194"
            | "R-219"
    )
}
