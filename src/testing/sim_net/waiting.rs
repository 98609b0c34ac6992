//! The laws of those who wait: what an approval must name, who gives way, and that what was refused stays so.
#![forbid(unsafe_code)]

use super::law::Seen;
use crate::machine::event::{Event, TrustState};
use crate::machine::input::{Command, Input, Lookup, PeerOrKey};
use crate::peer::{NodeId, PublicKey};
use crate::tables::{PendingKind, RefusedRequest, Source};
use crate::testing::model::PlainView;

impl Seen<'_> {
    /// The first of these laws that does not hold.
    pub(super) fn who_waits_is_looked_at(&self) -> Result<(), String> {
        self.approvals_name_what_was_seen()?;
        self.who_waits_gives_way_for_a_reason()?;
        self.what_was_refused_stays_refused()
    }

    /// The keys that somebody vouched for, or that our caller named, for this peer.
    fn known_keys(&self, peer: NodeId) -> Vec<PublicKey> {
        let before = self.before;
        let of_record = before.trusted.get(&peer).and_then(|record| record.public_key);
        let of_floor = before.floor.get(&peer).and_then(|floor| floor.key);
        let of_caller = before.outgoing.get(&peer).and_then(|outgoing| outgoing.expected_key);
        [of_record, of_floor, of_caller].into_iter().flatten().collect()
    }

    /// what an approval did not name must be beyond doubt, and replacing a key is told as a loss first.
    fn approvals_name_what_was_seen(&self) -> Result<(), String> {
        let Ok(step) = self.answer else { return Ok(()) };
        let (mut lost, mut granted) = (None, None);
        for (at, event) in step.events.iter().enumerate() {
            match event {
                Event::TrustChanged { state: TrustState::Revoked, .. } => lost = Some(at),
                Event::TrustChanged { state: TrustState::Granted, .. } => granted = Some(at),
                _ => {}
            }
        }
        for (peer, was) in &self.before.trusted {
            let is = self.after.trusted.get(peer);
            let replaced = was.public_key.is_some() && is.is_some_and(|is| is.public_key != was.public_key);
            if replaced && !matches!((lost, granted), (Some(lost), Some(granted)) if lost < granted) {
                return Err(format!("the key of {peer} was replaced, and nobody heard that the old one is lost"));
            }
        }
        let Some((Command::Approve { fingerprint, entry, lookup, .. }, peer)) = self.command() else { return Ok(()) };
        let Some(waited) = self.before.pending.get(&peer) else { return Err(format!("{peer} did not wait")) };
        let key = self.after.trusted.get(&peer).and_then(|record| record.public_key);
        let other_is_known = self.known_keys(peer).into_iter().any(|known| Some(known) != key);
        // the registry is asked once more.
        let is_vouched_for = match lookup {
            Lookup::Found { key: registered, .. } => Some(*registered) == key,
            Lookup::Failed => false,
            _ => waited.authentic,
        };
        let beyond_doubt = is_vouched_for && waited.conflicts == 0 && waited.others.is_empty() && !other_is_known;
        match fingerprint {
            None if !beyond_doubt => return Err(format!("{peer} was approved without its fingerprint")),
            Some(named) if key.is_none_or(|key| key.fingerprint() != *named) => {
                return Err(format!("{peer} is trusted under another key than was named"));
            }
            _ => {}
        }
        let looked_at_other = entry.is_some_and(|entry| entry != waited.number);
        if looked_at_other { Err(format!("another entry of {peer} was approved than was looked at")) } else { Ok(()) }
    }

    /// who is not concerned by a step waits on, but for one that nobody vouches for, nor a trusted
    /// key, and that gives way.
    fn who_waits_gives_way_for_a_reason(&self) -> Result<(), String> {
        let concerned = match self.input {
            Input::Message(it) => Some(it.message.sender()),
            Input::Operator(_) => self.command().map(|(_, peer)| peer),
            Input::LookedUp { peer, .. } => Some(*peer),
            _ => None,
        };
        let gone = |peer: &&NodeId| Some(**peer) != concerned && !self.after.pending.contains_key(peer);
        for peer in self.before.pending.keys().filter(gone) {
            let Some(waited) = self.before.pending.get(peer) else { continue };
            let asked = |tables: &PlainView| tables.outgoing.contains_key(peer);
            let answered_nothing = waited.kind == PendingKind::AnsweredUnvouched && !asked(self.after);
            //
            let by_mark = matches!(self.input,
                Input::Operator(Command::RevokeKey { key, .. } | Command::Ignore { of: PeerOrKey::Key(key) })
                    if *key == waited.key);
            if matches!(self.input, Input::Housekeeping) || answered_nothing || by_mark {
                continue;
            }
            let comes = concerned.and_then(|concerned| self.after.pending.get(&concerned));
            let of = |source: Source| self.before.pending.iter().filter(|(_, it)| it.source == source).count();
            let by_right = comes.is_some_and(|comes| {
                let full = self.before.pending.len() >= self.rules.limits.pending_max;
                comes.is_backed() || (full && of(waited.source) >= of(comes.source) + 3)
            });
            if waited.is_backed() || !by_right {
                return Err(format!("{peer} had to give way to somebody who has no better claim"));
            }
        }
        Ok(())
    }

    /// no copy of what an operator refused waits again or is trusted, and no answer to nothing waits.
    fn what_was_refused_stays_refused(&self) -> Result<(), String> {
        if let (Some((Command::Reject { .. }, peer)), Ok(_)) = (self.command(), self.answer) {
            let refused = self.after.refused.get(&peer);
            let remembered = |key: &PublicKey| refused.is_some_and(|it| it.iter().any(|it| it.key == *key));
            let waited = self.before.pending.get(&peer);
            if !waited.iter().flat_map(|it| it.keys()).all(|it| it.nonce.is_none() || remembered(&it.key)) {
                return Err(format!("what {peer} asked was refused and is not remembered"));
            }
        }
        let Some(it) = self.received() else { return Ok(()) };
        let (peer, key) = (it.message.sender(), *it.message.key());
        // What is stamped further ahead than clocks differ, no clock of today has seen.
        let skew = i64::try_from(self.rules.config.future_skew_max.as_millis()).unwrap_or(i64::MAX);
        let (stamp, latest) = (it.message.stamp(), self.now.wall.saturating_add(skew));
        let covers = |refused: &RefusedRequest| refused.key == key && stamp <= refused.stamp && refused.stamp <= latest;
        let refused = self.before.refused.get(&peer);
        let is_copy = !it.message.is_version_1() && refused.is_some_and(|refused| refused.iter().any(covers));
        let waits = |tables: &PlainView| tables.pending.get(&peer).is_some_and(|it| it.keys().any(|it| it.key == key));
        let trusts =
            |tables: &PlainView| tables.trusted.get(&peer).is_some_and(|record| record.public_key == Some(key));
        let came_back = (waits(self.after) && !waits(self.before)) || (trusts(self.after) && !trusts(self.before));
        if is_copy && came_back { Err(format!("a copy of what {peer} was refused came back")) } else { Ok(()) }
    }
}
