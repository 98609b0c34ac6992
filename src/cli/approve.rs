//! `approve`: what an operator approves is what was looked at. Without a fingerprint a terminal shows the keys and asks;
//! a script is refused unless somebody else than the peer vouches for the key.
#![forbid(unsafe_code)]

use std::io::{self, BufRead as _, IsTerminal as _, Write};

use super::arguments::{Question, Questions};
use super::control::client::ask;
use super::control::{Ask, Reply};
use super::operator::{self, Asking};
use super::rows::{self, PendingRow};
use super::screen::Screen;
use super::{Answer, Failure, now, print};

/// Asks for the approvals, and on a terminal first for each fingerprint that is not given.
pub(super) fn approve(questions: Questions) -> Result<Answer, Failure> {
    let Questions { home, json, all, then: _ } = questions;
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && !json;
    let mut asking = Asking::new(&home, json, all.len() > 1);
    for Question { peer, key: _, ask: approval } in all {
        let Ask::Approve { peer: id, fingerprint: None, entry, lift } = &approval else {
            asking.ask(peer, None, &approval)?;
            continue;
        };
        if !is_terminal {
            asking.ask(peer, None, &approval)?;
            continue;
        }
        let with = |fingerprint, entry, lift| Ask::Approve { peer: *id, fingerprint, entry, lift };
        let Reply::Pending { pending } = ask(&home, &Ask::Pending)? else { return Err(operator::unexpected()) };
        let row = pending.into_iter().find(|row| row.node_id == *id);
        let Some(row) = row.filter(|row| entry.is_none() || row.entry == *entry) else {
            // Nothing to show: the node says why.
            asking.ask(peer, None, &approval)?;
            continue;
        };
        if row.is_beyond_doubt() {
            asking.ask(peer, None, &with(None, row.entry, lift.clone()))?;
            continue;
        }
        match choose(&row)? {
            Some(fingerprint) => {
                // what was shown is lifted, and no revocation that came since.
                let lift = lift.clone().or_else(|| row.lift(&fingerprint).cloned());
                asking.ask(peer, None, &with(Some(fingerprint), row.entry, lift))?;
            }
            None => asking.none(*id, "nothing was approved"),
        }
    }
    asking.end()
}

/// Shows the keys that wait; the fingerprint of the one that the operator chooses.
fn choose(row: &PendingRow) -> Result<Option<String>, Failure> {
    let keys: Vec<&str> = row.fingerprints().collect();
    print::to_stdout(|out| {
        let out: &mut dyn Write = &mut Screen::new(out);
        rows::print_pending(out, core::slice::from_ref(row), now().wall)?;
        rows::print_marks(out, core::slice::from_ref(row))?;
        writeln!(out, "\nApprove peer {} under which key? Compare it with what its operator says.", row.node_id)?;
        keys.iter().zip(1..).try_for_each(|(key, number)| writeln!(out, "  {number}  {key}"))?;
        write!(out, "Its fingerprint or its number, or nothing to approve none: ")?;
        out.flush()
    })?;
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::new(format_args!("standard input: {error}")))?;
    let line = line.trim();
    let number = line.parse::<usize>().ok();
    let by_number = number.and_then(|number| number.checked_sub(1)).and_then(|at| keys.get(at));
    let chosen = by_number.or_else(|| keys.iter().find(|key| key.eq_ignore_ascii_case(line)));
    Ok(chosen.map(|key| (*key).to_owned()))
}
