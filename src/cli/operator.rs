//! The commands that a running node performs: each asks over the control socket and prints the answer.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use super::arguments::{Listing, Operation};
use super::control::client::ask;
use super::control::{Announcement, Ask, FailingSnapshots, RegistryDisagreement, Reply, Status};
use super::home::Home;
use super::{Answer, Failure, complain, complain_below, now, print, quoted, rows};
use crate::peer::NodeId;

/// Asks for something to be done, or waited for.
pub(super) fn operate(operation: Operation) -> Result<Answer, Failure> {
    let (home, request, then) = operation.into_requests();
    let home = Home::new(&home);
    let reply = ask(&home, &request)?;
    match (reply, then) {
        // Trust may come of it all the same: the node tries again.
        (Reply::NotSent { message }, Some(wait)) => {
            complain(message);
            tell(ask(&home, &wait)?)
        }
        (reply, then) => match (tell(reply)?, then) {
            (Answer::Yes, Some(wait)) => tell(ask(&home, &wait)?),
            (answer, _) => Ok(answer),
        },
    }
}

/// Has the node do what an operator decided about its registry.
pub(super) fn registry(of: &Listing, decided: &Ask) -> Result<Answer, Failure> {
    done(&Home::new(&of.home), decided)
}

/// Asks for something to be done, and prints that it is.
pub(super) fn done(home: &Home, request: &Ask) -> Result<Answer, Failure> {
    tell(ask(home, request)?)
}

fn print_found(out: &mut dyn Write, found: Option<&String>) -> io::Result<()> {
    found.map_or(Ok(()), |found| writeln!(out, "{}", print::printable(found)))
}

fn tell(reply: Reply) -> Result<Answer, Failure> {
    match reply {
        Reply::Done { generation, found, warning } => {
            if let Some(warning) = warning {
                complain(warning);
            }
            print::to_stdout(|out| {
                print_found(out, found.as_ref())?;
                writeln!(out, "done, durable as of generation {generation}")
            })?;
            Ok(Answer::Yes)
        }
        Reply::Decided { generation, found, not_told } => {
            print::to_stdout(|out| {
                print_found(out, found.as_ref())?;
                writeln!(out, "done, durable as of generation {generation}")?;
                match not_told {
                    None => writeln!(out, "told"),
                    Some(why) => writeln!(out, "not told yet: {}; the node tries again", print::printable(&why)),
                }
            })?;
            Ok(Answer::Yes)
        }
        Reply::Refused { message, reason } => {
            complain(message);
            for line in quoted::lines("why", &reason, quoted::columns()) {
                complain_below(&line);
            }
            Ok(Answer::No)
        }
        Reply::No { message } | Reply::NotSent { message } => {
            complain(message);
            Ok(Answer::No)
        }
        _ => Err(unexpected()),
    }
}

/// Asks for a listing.
pub(super) fn list(listing: &Listing, request: &Ask) -> Result<Answer, Failure> {
    show_reply(listing, ask(&Home::new(&listing.home), request)?)
}

/// The same of the peers that wait, or of one of them.
pub(super) fn pending(listing: &Listing, peer: Option<NodeId>) -> Result<Answer, Failure> {
    let mut reply = ask(&Home::new(&listing.home), &Ask::Pending)?;
    if let (Reply::Pending { pending }, Some(peer)) = (&mut reply, peer) {
        pending.retain(|row| row.node_id == peer.get());
    }
    show_reply(listing, reply)
}

fn show_reply(listing: &Listing, reply: Reply) -> Result<Answer, Failure> {
    if listing.json {
        // Without the tag, which says no more than the command did.
        let mut value = serde_json::to_value(&reply).map_err(Failure::new)?;
        if let Some(fields) = value.as_object_mut() {
            fields.remove("reply");
        }
        print::json(&value)?;
        return Ok(Answer::Printed);
    }
    let none = |out: &mut dyn Write, is_empty: bool| if is_empty { writeln!(out, "none") } else { Ok(()) };
    match reply {
        Reply::Trusted { trusted } => print::to_stdout(|out| {
            none(out, trusted.is_empty())?;
            rows::print_trusted(out, &trusted, now().wall)
        })?,
        Reply::Pending { pending } => print::to_stdout(|out| {
            none(out, pending.is_empty())?;
            rows::print_pending(out, &pending, now().wall)?;
            rows::print_marks(out, &pending)
        })?,
        Reply::Outgoing { outgoing, owed } => print::to_stdout(|out| {
            none(out, outgoing.is_empty() && owed.is_empty())?;
            rows::print_outgoing(out, &outgoing, now().wall)?;
            rows::print_owed(out, &owed, now().wall)
        })?,
        Reply::Revoked { revoked } => print::to_stdout(|out| {
            none(out, revoked.is_empty())?;
            rows::print_revoked(out, &revoked, now().wall)
        })?,
        Reply::Registry { contradicted, .. } => print::to_stdout(|out| {
            none(out, contradicted.is_empty())?;
            rows::print_contradicted(out, &contradicted)
        })?,
        Reply::RevokedKeys { revoked_keys } => print::to_stdout(|out| {
            none(out, revoked_keys.is_empty())?;
            rows::print_revoked_keys(out, &revoked_keys, now().wall)
        })?,
        Reply::Ignored { ignored, ignored_keys } => print::to_stdout(|out| {
            none(out, ignored.is_empty() && ignored_keys.is_empty())?;
            rows::print_ignored(out, &ignored, &ignored_keys, now().wall)
        })?,
        Reply::Status(status) => print::to_stdout(|out| show(out, &status))?,
        Reply::Done { .. }
        | Reply::Decided { .. }
        | Reply::Refused { .. }
        | Reply::NotSent { .. }
        | Reply::No { .. }
        | Reply::Failed { .. }
        | Reply::Event(_) => return Err(unexpected()),
    }
    Ok(Answer::Printed)
}

pub(super) fn unexpected() -> Failure {
    Failure::hint("the node answered something else than was asked", "does it run the same release?")
}

fn show(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let Status { node_id, public_key, fingerprint, listen, pid, generation, durable_generation, .. } = status;
    writeln!(out, "node         {node_id}, process {pid}, listening on {listen}")?;
    writeln!(out, "public key   {public_key}\nfingerprint  {fingerprint}")?;
    writeln!(out, "generation   {generation}, durable {durable_generation}")?;
    let Status { trusted, pending, outgoing, revoked, revoked_keys, ignored, .. } = status;
    writeln!(out, "peers        {trusted} trusted, {pending} pending, {outgoing} outgoing, {revoked} revoked")?;
    if let Some(RegistryDisagreement { compared, contradicted }) = &status.registry_disagreement {
        writeln!(out, "registry     DISAGREES: of {compared} trusted peers it knows {contradicted} under another key")?;
        writeln!(
            out,
            "             correct it and start again, or `trustkeep registry list` and `trustkeep registry confirm`"
        )?;
    }
    if revoked_keys + ignored > 0 {
        writeln!(out, "             {revoked_keys} keys revoked, {ignored} peers and keys ignored")?;
    }
    match (&status.failing, status.healthy || status.registry_disagreement.is_some()) {
        (Some(failing), _) => writeln!(out, "saving       FAILS: {}", print::printable(failing))?,
        (None, true) => writeln!(out, "saving       works")?,
        (None, false) => writeln!(out, "saving       STOPPED")?,
    }
    if let Some(FailingSnapshots { since, attempts, error, journal_bytes }) = &status.failing_snapshots {
        let (since, error) = (print::time(*since), print::printable(error));
        writeln!(out, "snapshots    FAIL since {since} (failed {attempts}): {error}")?;
        writeln!(out, "             nothing is lost; {journal_bytes} bytes in journals, which grow")?;
    }
    for (limit, entries, max) in &status.near_limits {
        writeln!(out, "limits       {}: {entries} of {max}", print::printable(limit))?;
    }
    if let Some(Announcement { told, owed }) = &status.announcement {
        writeln!(out, "new key      {told} peers told, {owed} not yet")?;
    }
    for (name, millis) in &status.skews {
        let by = std::time::Duration::from_millis(millis.unsigned_abs()).as_secs_f64();
        let side = if *millis < 0 { "behind" } else { "ahead of" };
        writeln!(out, "clocks       {name}: the newest stamp was {by:.1} s {side} our clock")?;
    }
    let newcomers = status.refused_newcomers.iter().map(|(source, count)| [source.clone(), count.to_string()]);
    print::table(out, "NEWCOMERS REFUSED", ["FROM", "COUNT"], newcomers)?;
    let counters = status.counters.iter().filter(|(_, count)| *count > 0);
    print::table(out, "COUNTERS", ["NAME", "COUNT"], counters.map(|(name, count)| [name.clone(), count.to_string()]))
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_of_what_fails_and_of_nothing_else() {
        let shown = |status: &Status| {
            let mut out = Vec::new();
            show(&mut out, status).unwrap();
            String::from_utf8(out).unwrap()
        };
        let mut status = Status { healthy: true, ..Status::default() };
        let text = shown(&status);
        assert!(text.contains("saving       works") && !text.contains("FAIL"), "{text}");
        let error = "store: write: disk\x1b full".to_owned();
        status.failing_snapshots =
            Some(FailingSnapshots { since: 1_700_000_000_000, attempts: 3, error, journal_bytes: 4096 });
        let text = shown(&status);
        assert!(text.contains("saving       works"), "no change is at risk: {text}");
        let line = "snapshots    FAIL since 2023-11-14T22:13:20.000Z (failed 3): store: write: disk\u{fffd} full\n";
        assert!(text.contains(line) && text.contains("4096 bytes in journals"), "{text}");
        status.healthy = false;
        assert!(shown(&status).contains("saving       STOPPED"));
        status.registry_disagreement = Some(RegistryDisagreement { compared: 80, contradicted: 9 });
        let text = shown(&status);
        assert!(text.contains("registry     DISAGREES: of 80 trusted peers it knows 9 under another key"), "{text}");
        assert!(text.contains("saving       works"), "{text}");
        assert!(!text.contains("limits "), "{text}");
        status.near_limits = vec![("pending_max".to_owned(), 250, 256)];
        assert!(shown(&status).contains("limits       pending_max: 250 of 256\n"));
        assert!(!text.contains("new key"), "{text}");
        status.announcement = Some(Announcement { told: 3, owed: 2 });
        assert!(shown(&status).contains("new key      3 peers told, 2 not yet\n"));
        status.failing = Some("no space".to_owned());
        assert!(shown(&status).contains("saving       FAILS: no space"));
    }
}
