//! Every grant, every loss and every request that is shown is told, in order, once, and nothing else is.
#![forbid(unsafe_code)]

use super::verdict::Verdict;
use super::words::{asked, is_set_aside, record_key, registry_is_behind};
use super::{Law, Seen};
use crate::event::{AutoReason, ChangeReason, Event, TrustState};
use crate::machine::input::{Command, Input, Lookup, PeerOrKey, Received};
use crate::machine::outcome::Outcome;
use crate::peer::NodeId;
use crate::tables::PendingKind;
use crate::wire::message::Kind;

/// received, what a rule made of it, what became of trust.
const fn rank(event: &Event) -> Option<u8> {
    match event {
        Event::Received { .. } => Some(0),
        Event::Pending { .. } | Event::AutoApproved { .. } | Event::Approved { .. } | Event::Rejected { .. } => Some(1),
        Event::TrustChanged { .. } => Some(2),
        _ => None,
    }
}

impl Seen<'_> {
    pub(super) fn events(&self) -> &[Event] {
        self.step().map(|step| step.events.as_slice()).unwrap_or_default()
    }

    pub(super) fn what_happened_is_told(&self) -> Law {
        self.events_come_in_order()?;
        self.trust_that_moved_is_told()?;
        self.requests_are_told()?;
        self.waiting_is_told()?;
        self.rules_and_operators_are_told()?;
        self.other_keys_are_told()
    }

    fn events_come_in_order(&self) -> Law {
        let ranks: Vec<u8> = self.events().iter().filter_map(rank).collect();
        self.must("R-174", ranks.is_sorted(), "events are told in the wrong order")
    }

    ///
    fn trust_that_moved_is_told(&self) -> Law {
        let mut told: Vec<(NodeId, TrustState, ChangeReason)> = Vec::new();
        for event in self.events() {
            if let Event::TrustChanged { peer, state, reason } = event {
                told.push((*peer, *state, *reason));
            }
        }
        let mut due = Vec::new();
        for (peer, _, _) in self.moved(|tables| &tables.trusted) {
            if self.lost(peer).is_some() {
                due.push((peer, TrustState::Revoked));
            }
            if self.granted(peer).is_some() {
                due.push((peer, TrustState::Granted));
            }
        }
        // A grant that changes nothing may be told.
        told.retain(|(peer, state, _)| *state == TrustState::Revoked || self.granted(*peer).is_some());
        let is = told.iter().map(|(peer, state, _)| (*peer, *state)).collect::<Vec<_>>();
        self.must("R-188", is == due, "trust that moved is not told, or not in order, or what did not move is")?;
        for (peer, state, reason) in told {
            let is_so =
                if state == TrustState::Granted { self.granted_for(peer, reason) } else { self.lost_for(reason) };
            self.must("R-188", is_so, &format!("trust moved for another reason than {reason:?}"))?;
        }
        Ok(())
    }

    fn granted_for(&self, peer: NodeId, reason: ChangeReason) -> bool {
        match (self.input, reason) {
            (Input::Message(it), _) => match (self.ruling(it).rule, reason) {
                ("R-24", ChangeReason::Auto(AutoReason::Mutual))
                | ("R-65", ChangeReason::Auto(AutoReason::SameNetwork))
                | ("R-32", ChangeReason::Accepted)
                | ("R-67", ChangeReason::FirstUse)
                | ("R-220", ChangeReason::KeyRotated)
                | ("R-21", ChangeReason::KeyAdopted) => true,
                ("R-66", ChangeReason::Auto(why)) => (why == AutoReason::AllowListed) == self.listed(it).is_some(),
                _ => false,
            },
            (Input::Operator(Command::Approve { .. }), ChangeReason::Approved)
            | (Input::Operator(Command::Grant { .. }), ChangeReason::Direct)
            | (Input::Operator(Command::AdoptKey { .. }) | Input::LookedUp { .. }, ChangeReason::KeyAdopted) => {
                self.after.trusted.contains_key(&peer)
            }
            _ => false,
        }
    }

    fn lost_for(&self, reason: ChangeReason) -> bool {
        match (self.input, reason) {
            (Input::Message(it), ChangeReason::RevokedByPeer) => it.message.kind() == Kind::Revoke,
            (Input::Message(it), ChangeReason::KeyRevoked) => {
                super::words::key_is_marked(self.before, it.message.key())
            }
            (Input::Message(_), ChangeReason::KeyChanged)
            | (Input::Operator(Command::Revoke { .. }), ChangeReason::Revoked)
            | (Input::Operator(Command::Remove { .. }), ChangeReason::Removed)
            | (Input::Operator(Command::EndUnderKey { .. }), ChangeReason::KeyRevoked)
            | (
                Input::Operator(Command::ReportKeyChange { .. } | Command::Approve { .. } | Command::Grant { .. })
                | Input::LookedUp { .. }
                | Input::Compared { .. },
                ChangeReason::KeyChanged,
            )
            | (Input::OwnEntries, ChangeReason::OwnEntry) => true,
            _ => false,
        }
    }

    /// the first entry of the allow-list that fits.
    fn listed(&self, it: &Received) -> Option<&crate::config::Allowed> {
        let bound = super::words::is_bound(it);
        let mut listed = self.rules.policy.allow_list.of(it.message.sender()).iter();
        listed.find(|entry| entry.key.map_or(bound, |named| named == *it.message.key()))
    }

    ///
    fn requests_are_told(&self) -> Law {
        let is_told = self.events().iter().any(|event| matches!(event, Event::Received { .. }));
        let request = self.received().filter(|it| it.message.kind() == Kind::Request);
        let Some(it) = request else { return self.must("R-20", !is_told, "a request is told that did not come") };
        let (peer, key) = (it.message.sender(), it.message.key());
        let came_to = self.outcome();
        let is_dropped = matches!(came_to, None | Some(Outcome::Dropped(_)));
        let is_trusted = matches!(came_to, Some(Outcome::Trusted(_) | Outcome::Confirmed(_)));
        let waited = self.before.pending.get(&peer);
        let replaces = self.after.pending.get(&peer).is_some_and(|is| waited.is_none_or(|was| was.number != is.number));
        if is_dropped {
            return self.must("R-20", !is_told, "a request is told that was dropped");
        }
        if self.ruling(it).verdict == Verdict::TellsRefusal {
            return self.must("R-230", !is_told, "a request is told that the operator has refused already");
        }
        let text = self.events().iter().any(|event| {
            matches!(event, Event::Received { peer: of, justification }
            if *of == peer && *justification == it.message.justification().as_str())
        });
        self.must("R-20", !is_told || text, "a request is told otherwise than it came")?;
        let must = match waited {
            _ if is_trusted || replaces => true,
            None => true,
            Some(was) if was.key == *key => self.now.tick.millis_since(was.received_tick) > 1000,
            Some(was) => was.conflicts == 0 && self.after.pending.get(&peer).is_some_and(|is| is.conflicts == 1),
        };
        self.must("R-20", !must || is_told, "a request is not told")?;
        let must_not = !is_trusted
            && !replaces
            && waited.is_some_and(|was| {
                was.key == *key
                    && was.kind == PendingKind::Request
                    && self.now.tick.millis_since(was.received_tick) < 1000
            });
        self.must("R-20", !(must_not && is_told), "a repeat is told within a second")
    }

    /// who comes to wait is shown with what there is to know.
    fn waiting_is_told(&self) -> Law {
        for event in self.events() {
            let Event::Pending { peer, fingerprint, replaces, proven_by, marks, set_aside, .. } = event else {
                continue;
            };
            let Some(is) = self.after.pending.get(peer) else {
                return Err("R-25: somebody is told as waiting who does not".to_owned());
            };
            self.must("R-25", *fingerprint == is.key.fingerprint(), "who waits is told with another key")?;
            self.must(
                "R-217",
                *proven_by == is.proven_by.map(|key| key.fingerprint()),
                "who waits is told as proven and is not, or the other way",
            )?;
            let [of_peer, of_key] = super::words::marks(self.after, *peer, Some(&is.key));
            self.must("R-186", (marks.peer, marks.key) == (of_peer, of_key), "who waits is told without its marks")?;
            let mut aside = [self.before, self.after].into_iter().map(|it| is_set_aside(it, *peer, &is.key));
            let is_so = aside.any(|aside| aside == set_aside.is_some());
            self.must("R-270", is_so, "who waits is told as set aside and is not, or the other way")?;
            // What is known after the step; or before it, of a key that the very message has replaced.
            let [was, known] = [self.before, self.after].map(|tables| self.known_otherwise(tables, *peer, &is.key));
            let is_so = match replaces {
                Some(told) => was.into_iter().chain(known).any(|key| key.fingerprint() == *told),
                // What waited behind an answer is told as it was before the request that took the answer away.
                None => known.is_none() || (was.is_none() && matches!(self.command(), Some(Command::Request { .. }))),
            };
            self.must("R-166", is_so, "who waits is told without the key that it replaces")?;
        }
        for (peer, was, is) in self.moved(|tables| &tables.pending) {
            let is_new = is.is_some_and(|is| was.is_none_or(|was| was.number != is.number));
            let told =
                self.events().iter().any(|event| matches!(event, Event::Pending { peer: of, .. } if *of == peer));
            self.must("R-25", !is_new || told || self.received().is_none(), "who comes to wait is not told")?;
        }
        Ok(())
    }

    fn rules_and_operators_are_told(&self) -> Law {
        let is_told = |which: &dyn Fn(&Event) -> bool| self.events().iter().any(which);
        let (rule, must, told) = match (self.input, self.outcome()) {
            (Input::Message(it), came_to) => {
                let ruling = self.ruling(it);
                let auto = ruling.verdict == Verdict::Trusts && matches!(ruling.rule, "R-24" | "R-65" | "R-66");
                let label = self.listed(it).filter(|_| ruling.rule == "R-66").and_then(|entry| entry.label.clone());
                let told = is_told(&|event| {
                    matches!(event, Event::AutoApproved { peer, label: of, .. }
                    if *peer == it.message.sender() && *of == label)
                });
                self.must("R-66", auto == told, "what a rule approved is not told, or what none approved is")?;
                let told = is_told(&|event| {
                    matches!(event, Event::Rejected { peer, fingerprint, authentic, .. }
                    if *peer == it.message.sender() && *fingerprint == it.message.key().fingerprint()
                        && *authentic == (ruling.verdict == Verdict::Refuses))
                });
                let any = is_told(&|event| matches!(event, Event::Rejected { .. }));
                let is_refusal = matches!(ruling.verdict, Verdict::Refuses | Verdict::RefusesUnvouched);
                self.must(
                    "R-34",
                    any == told && (!any || is_refusal),
                    "a refusal is told that was none, or otherwise than it came",
                )?;
                self.must("R-34", ruling.verdict != Verdict::Refuses || told, "a refusal is not told")?;
                let told = is_told(&|event| matches!(event, Event::RevokedByPeer { .. }));
                ("R-35", matches!(came_to, Some(Outcome::RevokedByPeer { .. })), told)
            }
            (Input::Operator(Command::Approve { peer, .. }), came_to) => {
                let told = is_told(&|event| matches!(event, Event::Approved { peer: of } if of == peer));
                ("R-42", came_to.is_some(), told)
            }
            (Input::Operator(Command::Revoke { peer, .. }), came_to) => {
                let told = is_told(&|event| matches!(event, Event::Revoked { peer: of } if of == peer));
                // where there was nothing besides the mark, nothing has changed.
                let (before, after) = (self.before, self.after);
                let marked = before.revoked.get(peer) != after.revoked.get(peer);
                let took = before.trusted.contains_key(peer);
                ("R-45", came_to.is_some() && (marked || took), told)
            }
            (Input::Operator(Command::RevokeKey { key, .. }), came_to) => {
                let told = is_told(
                    &|event| matches!(event, Event::KeyRevoked { fingerprint } if *fingerprint == key.fingerprint()),
                );
                let marked = self.before.revoked_keys != self.after.revoked_keys;
                ("R-180", came_to.is_some() && (marked || told), told)
            }
            (Input::Operator(Command::ForgetRevocation { of }), came_to) => {
                let told = is_told(&|event| match (event, of) {
                    (Event::RevocationForgotten { peer }, PeerOrKey::Peer(of)) => peer == of,
                    (Event::KeyRevocationForgotten { fingerprint }, PeerOrKey::Key(of)) => {
                        *fingerprint == of.fingerprint()
                    }
                    _ => false,
                });
                ("R-182", came_to.is_some(), told)
            }
            _ => return Ok(()),
        };
        self.must(rule, must == told, "what was decided is not told, or what was not is")
    }

    /// a key other than the known one is told, whoever vouches for it and whatever becomes of the message.
    fn other_keys_are_told(&self) -> Law {
        let told = self.events().iter().find_map(|event| match event {
            Event::KeyMismatch { peer, expected, shown, ended, .. } => Some((*peer, *expected, *shown, *ended)),
            _ => None,
        });
        let Some(it) = self.received() else {
            let ended_by_key = match self.input {
                Input::Operator(Command::ReportKeyChange { peer, .. })
                | Input::LookedUp { peer, .. }
                | Input::Compared { peer, .. } => self.lost(*peer).map(|_| *peer),
                _ => None,
            };
            let is_so = ended_by_key == told.map(|(peer, ..)| peer) && told.is_none_or(|(.., ended)| ended);
            return self.must("R-163", is_so, "another key is not told, or told without one");
        };
        let (peer, key) = (it.message.sender(), *it.message.key());
        let named = asked(self.before, peer).and_then(|it| it.expected_key);
        let registered = match &it.lookup {
            Lookup::Found { key, .. } => Some(*key),
            _ => None,
        };
        // what a registry names that has not heard of what came after is not what is known.
        let heard = registered.filter(|_| !registry_is_behind(self.before, it));
        let known = heard.or_else(|| record_key(self.before, peer)).or(named);
        if let Some((of, expected, shown, ended)) = told {
            let other =
                registered.into_iter().chain(record_key(self.before, peer)).chain(named).find(|known| *known != key);
            let is_so =
                of == peer && shown == key.fingerprint() && other.is_some_and(|other| other.fingerprint() == expected);
            self.must("R-163", is_so, "another key is told where there is none, or otherwise than it is")?;
            return self.must(
                "R-163",
                ended == self.lost(peer).is_some(),
                "that trust ended by another key is told otherwise than it is",
            );
        }
        let ruling = self.ruling(it);
        let contradicted = ruling.rule == "R-17";
        let judged = ruling.verdict != Verdict::Drops || contradicted;
        let proven = self.is_proven(it);
        self.must(
            "R-163",
            !judged || proven || known.is_none_or(|known| known == key),
            "another key than the known one is not told",
        )
    }
}
