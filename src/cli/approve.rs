//! `approve`: what an operator approves is what was looked at. Without a fingerprint a terminal shows the keys and asks;
//! a script is refused unless somebody else than the peer vouches for the key.
#![forbid(unsafe_code)]

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::Path;

use super::control::client::ask;
use super::control::{Ask, Reply};
use super::home::Home;
use super::rows::{self, PendingRow};
use super::{Answer, Failure, now, operator, print};
use crate::peer::NodeId;

/// Asks for the approval, and on a terminal first for the fingerprint.
pub(super) fn approve(
    home: &Path,
    peer: NodeId,
    fingerprint: Option<String>,
    entry: Option<String>,
    lift: Option<String>,
) -> Result<Answer, Failure> {
    let home = Home::new(home);
    let approval = |fingerprint, entry, lift| Ask::Approve { peer: peer.get(), fingerprint, entry, lift };
    let is_asked = fingerprint.is_none() && io::stdin().is_terminal() && io::stdout().is_terminal();
    if !is_asked {
        return operator::done(&home, &approval(fingerprint, entry, lift));
    }
    let Reply::Pending { pending } = ask(&home, &Ask::Pending)? else { return Err(operator::unexpected()) };
    let row = pending.into_iter().find(|row| row.node_id == peer.get());
    let Some(row) = row.filter(|row| entry.is_none() || row.entry == entry) else {
        // Nothing to show: the node says why.
        return operator::done(&home, &approval(None, entry, lift));
    };
    if row.is_beyond_doubt() {
        return operator::done(&home, &approval(None, row.entry, lift));
    }
    match choose(&row)? {
        Some(fingerprint) => {
            // what was shown is lifted, and no revocation that came since.
            let lift = lift.or_else(|| row.lift(&fingerprint).cloned());
            operator::done(&home, &approval(Some(fingerprint), row.entry, lift))
        }
        None => {
            super::complain("nothing was approved");
            Ok(Answer::No)
        }
    }
}

/// Shows the keys that wait; the fingerprint of the one that the operator chooses.
fn choose(row: &PendingRow) -> Result<Option<String>, Failure> {
    let keys: Vec<&str> = row.fingerprints().collect();
    print::to_stdout(|out| {
        rows::print_pending(out, core::slice::from_ref(row), now().wall)?;
        rows::print_marks(out, core::slice::from_ref(row))?;
        writeln!(out, "\nApprove peer {} under which key? Compare it with what its operator says.", row.node_id)?;
        keys.iter().zip(1..).try_for_each(|(key, number)| writeln!(out, "  {number}  {key}"))?;
        write!(out, "Number, or nothing to approve none: ")?;
        out.flush()
    })?;
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::new(format_args!("standard input: {error}")))?;
    let number = line.trim().parse::<usize>().ok();
    let chosen = number.and_then(|number| number.checked_sub(1)).and_then(|at| keys.get(at));
    Ok(chosen.map(|key| (*key).to_owned()))
}
