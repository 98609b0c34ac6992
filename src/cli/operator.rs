//! The commands that a running node performs: each asks over the control socket and prints the answer.
//!
//! More than 450 lines because what is asked stands beside how its answer is told.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use serde::Serialize;

use super::arguments::{Listing, Part, Peer, Question, Questions};
use super::control::client::{self, ask};
use super::control::{
    Announcement, Ask, FailingSnapshots, FalseKeyShown, OlderStore, PeersFileRefused, RegistryDisagreement, Reply,
    Status,
};
use super::home::Home;
use super::rows::{PeerShown, RevokedRow, TrustedRow};
use super::screen::Screen;
use super::{Answer, Failure, complain, complain_below, now, print, quoted, rows};
use crate::config::TEXT_BYTES_MAX;
use crate::peer::{NodeId, PublicKey};

/// What became of one question, as `--json` tells it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Outcome {
    node_id: Option<u32>,
    /// Of the key that it was about, where it was about no peer.
    fingerprint: Option<String>,
    /// `done`, `not_sent`, `no`, `refused` or `failed`.
    outcome: &'static str,
    /// As of which it is durable.
    generation: Option<u64>,
    found: Option<String>,
    /// Whether the peer was told; null where it has not to be.
    told: Option<bool>,
    /// What went wrong, or why the peer was not told.
    message: Option<String>,
    /// A text of the peer's.
    reason: Option<String>,
}

/// Printed once all is done.
#[derive(Debug, Serialize)]
struct Outcomes {
    results: Vec<Outcome>,
}

/// Does what questions ask, one by one, and tells what became of each. A refusal ends nothing but its own.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    home: &'a Home,
    json: bool,
    /// Whether each line names whom it is about.
    several: bool,
    /// What was answered and is not told yet: all is done before it is waited for whether anybody was told.
    later: Vec<(Outcome, Reply)>,
    outcomes: Vec<Outcome>,
    answer: Answer,
}

impl<'a> Asking<'a> {
    pub(super) fn new(home: &'a Home, json: bool, several: bool) -> Self {
        Self { home, json, several, later: Vec::new(), outcomes: Vec::new(), answer: Answer::Yes }
    }

    /// Asks this, and tells what came of it.
    pub(super) fn ask(&mut self, peer: Option<u32>, key: Option<&PublicKey>, request: &Ask) -> Result<Answer, Failure> {
        let reply = match client::ask_for_any(self.home, request) {
            Ok(reply) => reply,
            Err(error) => {
                self.tell_all()?;
                return Err(error);
            }
        };
        let about =
            Outcome { node_id: peer, fingerprint: key.map(|key| key.fingerprint().to_string()), ..Outcome::default() };
        let is_decision = matches!(
            request,
            Ask::Approve { .. } | Ask::Reject { .. } | Ask::Cancel { .. } | Ask::Revoke { .. } | Ask::Ignore { .. }
        );
        self.later.push((about, reply));
        if self.several && is_decision {
            return Ok(Answer::Yes);
        }
        self.tell_all()
    }

    /// Tells what came of all that was asked; the answer to the last of it.
    fn tell_all(&mut self) -> Result<Answer, Failure> {
        let mut last = Answer::Yes;
        for (about, reply) in core::mem::take(&mut self.later) {
            let reply = self.with_told(about.node_id, reply);
            let (outcome, answer) = self.tell(about, reply)?;
            self.outcomes.push(outcome);
            if answer != Answer::Yes {
                self.answer = answer;
            }
            last = answer;
        }
        Ok(last)
    }

    /// The same answer; where the peer was not told at once, with what becomes of that in a moment.
    fn with_told(&self, peer: Option<u32>, mut reply: Reply) -> Reply {
        if let Reply::Decided { not_told: not_told @ Some(_), given_up: given_up @ false, .. } = &mut reply
            && let Some(peer) = peer
            // It is done, whatever becomes of this question.
            && let Ok(Reply::Told { not_told: why, given_up: is_given_up }) = client::ask_for_any(self.home, &Ask::Told { peer })
        {
            (*not_told, *given_up) = (why, is_given_up);
        }
        reply
    }

    /// That nothing was asked, for a reason that is told already.
    pub(super) fn none(&mut self, peer: u32, message: &str) {
        let about = Outcome { node_id: Some(peer), ..Outcome::default() };
        self.later.push((about, Reply::Failed { message: message.to_owned() }));
    }

    /// All of them together.
    pub(super) fn end(mut self) -> Result<Answer, Failure> {
        self.tell_all()?;
        if self.json {
            print::json(&Outcomes { results: self.outcomes })?;
        }
        Ok(self.answer)
    }

    fn tell(&self, about: Outcome, reply: Reply) -> Result<(Outcome, Answer), Failure> {
        let whom = about.node_id.filter(|_| self.several).map_or_else(String::new, |peer| format!("peer {peer}: "));
        let say = |found: &Option<String>, lines: &[Option<String>]| -> Result<(), Failure> {
            if self.json {
                return Ok(());
            }
            print::to_stdout(|out| {
                // What is found names the peer already.
                found.iter().try_for_each(|line| writeln!(out, "{}", print::printable(line)))?;
                lines.iter().flatten().try_for_each(|line| writeln!(out, "{whom}{}", print::printable(line)))
            })
        };
        let done = |generation| Some(format!("done, durable as of generation {generation}"));
        let no = |outcome, message: String, reason| {
            (Outcome { outcome, message: Some(message), reason, ..about.clone_whom() }, Answer::No)
        };
        Ok(match reply {
            Reply::Done { generation, found, warning } => {
                if let Some(warning) = &warning {
                    complain(warning);
                }
                say(&found, &[done(generation)])?;
                let generation = Some(generation);
                (Outcome { outcome: "done", generation, found, message: warning, ..about }, Answer::Yes)
            }
            Reply::Decided { generation, found, not_told, given_up, warning } => {
                if let Some(warning) = &warning {
                    complain(warning);
                }
                let told = match &not_told {
                    None => "told".to_owned(),
                    Some(why) if given_up => format!("not told: {why}"),
                    Some(why) => format!("not told yet: {why}; the node tries again"),
                };
                say(&found, &[done(generation), Some(told)])?;
                let (generation, told) = (Some(generation), Some(not_told.is_none()));
                // Why a peer was not told is in `message` by itself, unless there is more to say.
                let message = match (not_told, warning) {
                    (Some(why), Some(warning)) => Some(format!("{why}; {warning}")),
                    (why, warning) => why.or(warning),
                };
                (Outcome { outcome: "done", generation, found, told, message, ..about }, Answer::Yes)
            }
            Reply::Refused { message, reason } => {
                complain(&message);
                for line in quoted::lines("why", &reason, quoted::columns()) {
                    complain_below(&line);
                }
                no("refused", message, Some(reason))
            }
            Reply::No { message } => {
                complain(&message);
                no("no", message, None)
            }
            Reply::NotSent { message } => {
                complain(&message);
                no("not_sent", message, None)
            }
            Reply::Failed { message } => {
                complain(&message);
                no("failed", message, None)
            }
            _ => return Err(unexpected()),
        })
    }
}

impl Outcome {
    fn clone_whom(&self) -> Self {
        Self { node_id: self.node_id, fingerprint: self.fingerprint.clone(), ..Self::default() }
    }
}

/// Asks for things to be done, or waited for.
pub(super) fn operate(questions: Questions) -> Result<Answer, Failure> {
    let Questions { home, json, all, then } = questions;
    for Question { ask, .. } in all.iter().take(1) {
        let (Ask::Request { justification: text, .. } | Ask::Reject { reason: text, .. }) = ask else { continue };
        if text.len() > TEXT_BYTES_MAX {
            complain(format_args!("the text has {} bytes; what is beyond {TEXT_BYTES_MAX} is not sent", text.len()));
        }
    }
    let mut asking = Asking::new(&home, json, all.len() > 1);
    for Question { peer, key, ask } in &all {
        let answer = asking.ask(*peer, key.as_ref(), ask)?;
        if let Some(then) = &then {
            // A request that could not be sent is tried again: trust may come of it all the same.
            let is_kept = asking.outcomes.last().is_some_and(|last| last.outcome == "not_sent");
            if answer == Answer::Yes || is_kept {
                asking.outcomes.clear();
                asking.answer = Answer::Yes;
                asking.ask(*peer, None, then)?;
            }
        }
    }
    asking.end()
}

/// Has the node do what an operator decided about its registry.
pub(super) fn registry(of: &Listing, decided: &Ask) -> Result<Answer, Failure> {
    let home = of.at.home();
    let mut asking = Asking::new(&home, of.json, false);
    asking.ask(None, None, decided)?;
    asking.end()
}

/// Asks for a listing.
pub(super) fn list(listing: &Listing, request: &Ask, nothing: &str) -> Result<Answer, Failure> {
    show_reply(listing.json, ask(&listing.at.home(), request)?, nothing)
}

/// How the node does; with `check` that is the answer.
pub(super) fn status(of: &Listing, check: bool) -> Result<Answer, Failure> {
    let reply = ask(&of.at.home(), &Ask::Status)?;
    let is_bad = matches!(&reply, Reply::Status(status) if !status.healthy);
    let answer = show_reply(of.json, reply, "")?;
    Ok(if check && is_bad { Answer::No } else { answer })
}

/// The same of the peers that wait, or of one of them.
pub(super) fn pending(listing: &Listing, peer: Option<NodeId>) -> Result<Answer, Failure> {
    let mut reply = ask(&listing.at.home(), &Ask::Pending)?;
    let mut nothing = "no pending peers".to_owned();
    if let (Reply::Pending { pending }, Some(peer)) = (&mut reply, peer) {
        pending.retain(|row| row.node_id == peer.get());
        nothing = format!("peer {peer} is not pending");
    }
    show_reply(listing.json, reply, &nothing)
}

/// Everything that is known of a peer.
pub(super) fn show_peer(of: &Peer) -> Result<Answer, Failure> {
    let Reply::Shown(shown) = ask(&of.at.home(), &Ask::Show { peer: of.peer.get() })? else { return Err(unexpected()) };
    let is_unknown = shown.is_unknown();
    if of.json {
        print::json(&shown)?;
    } else {
        let at = now().wall;
        print::to_stdout(|out| {
            let out: &mut dyn Write = &mut Screen::new(out);
            let PeerShown { node_id, is_this_node, trusted, pending, outgoing, owed, revoked, ignored, registry } =
                *shown;
            if is_this_node {
                writeln!(out, "peer {node_id} is this node itself")?;
            } else if is_unknown {
                writeln!(out, "nothing is known of peer {node_id}")?;
            } else {
                let is = if trusted.is_some() { "is trusted" } else { "is not trusted" };
                writeln!(out, "peer {node_id} {is}")?;
            }
            rows::print_trusted(out, &Vec::from_iter(trusted), at)?;
            let pending = Vec::from_iter(pending);
            rows::print_pending(out, &pending, at)?;
            rows::print_marks(out, &pending)?;
            rows::print_outgoing(out, &Vec::from_iter(outgoing), at)?;
            rows::print_owed(out, &Vec::from_iter(owed), at)?;
            rows::print_revoked(out, &Vec::from_iter(revoked), at)?;
            rows::print_ignored(out, &Vec::from_iter(ignored), &[], at)?;
            rows::print_registered(out, &Vec::from_iter(registry))
        })?;
    }
    Ok(if is_unknown { Answer::No } else { Answer::Printed })
}

/// Whether a peer is trusted: the exit code says it.
pub(super) fn check(of: &Peer, key: Option<PublicKey>) -> Result<Answer, Failure> {
    let request = Ask::Check { peer: of.peer.get(), key: key.map(|key| key.to_base64()) };
    let reply = ask(&of.at.home(), &request)?;
    let Reply::Checked { trusted, fingerprint, .. } = &reply else { return Err(unexpected()) };
    let trusted = *trusted;
    if of.json {
        print::json(&without_tag(&reply)?)?;
    } else {
        print::to_stdout(|out| match (trusted, fingerprint) {
            (true, Some(fingerprint)) => writeln!(out, "peer {} is trusted under {fingerprint}", of.peer),
            (true, None) => writeln!(out, "peer {} is trusted, and its key is not known", of.peer),
            (false, _) if key.is_some() => writeln!(out, "peer {} is not trusted under this key", of.peer),
            (false, _) => writeln!(out, "peer {} is not trusted", of.peer),
        })?;
    }
    Ok(if trusted { Answer::Yes } else { Answer::No })
}

/// The trusted peers, a page at a time, so that neither end ever holds more.
pub(super) fn list_trusted(of: &Listing, part: Part) -> Result<Answer, Failure> {
    let mut table = rows::trusted_table();
    let pages = |after, limit| match ask(&of.at.home(), &Ask::List { after, limit })? {
        Reply::Trusted { trusted, more, total } => Ok((trusted, more, total)),
        _ => Err(unexpected()),
    };
    let print = |out: &mut dyn Write, page: &[TrustedRow]| {
        table.rows(out, rows::trusted_cells(page, now().wall))?;
        rows::print_named_by_revoked(out, page)
    };
    paged(of.json, part, &Paged { name: "trusted", nothing: "no trusted peers" }, pages, |row| row.node_id, print)
}

/// The same of the revoked peers.
pub(super) fn list_revoked(of: &Listing, part: Part) -> Result<Answer, Failure> {
    let mut table = rows::revoked_table();
    let pages = |after, limit| match ask(&of.at.home(), &Ask::Revoked { after, limit })? {
        Reply::Revoked { revoked, more, total } => Ok((revoked, more, total)),
        _ => Err(unexpected()),
    };
    let print = |out: &mut dyn Write, page: &[RevokedRow]| table.rows(out, rows::revoked_cells(page, now().wall));
    paged(of.json, part, &Paged { name: "revoked", nothing: "no revoked peers" }, pages, |row| row.node_id, print)
}

/// How a listing of many is called.
struct Paged {
    name: &'static str,
    nothing: &'static str,
}

#[derive(Serialize)]
struct Count {
    count: u64,
}

fn paged<Row: Serialize>(
    json: bool,
    part: Part,
    of: &Paged,
    mut page: impl FnMut(Option<u32>, Option<u64>) -> Result<(Vec<Row>, bool, u64), Failure>,
    id: impl Fn(&Row) -> u32,
    mut print: impl FnMut(&mut dyn Write, &[Row]) -> io::Result<()>,
) -> Result<Answer, Failure> {
    if part.count {
        let (_, _, count) = page(None, Some(0))?;
        if json {
            print::json(&Count { count })?;
        } else {
            print::to_stdout(|out| writeln!(out, "{count}"))?;
        }
        return Ok(Answer::Printed);
    }
    let (mut after, mut left) = (part.after.map(NodeId::get), part.limit);
    let mut is_first = true;
    loop {
        let (rows, more, _) = page(after, left)?;
        after = rows.last().map(&id).or(after);
        left = left.map(|left| left.saturating_sub(rows.len() as u64));
        let is_last = !more || rows.is_empty() || left == Some(0);
        print::to_stdout(|out| {
            if json {
                if is_first {
                    write!(out, "{{\"{}\":[", of.name)?;
                }
                for (number, row) in rows.iter().enumerate() {
                    if !is_first || number > 0 {
                        out.write_all(b",")?;
                    }
                    serde_json::to_writer(&mut *out, row)?;
                }
                return if is_last { out.write_all(b"]}\n") } else { Ok(()) };
            }
            if is_first && rows.is_empty() {
                return writeln!(out, "{}", of.nothing);
            }
            if is_first { print(&mut Screen::new(out), &rows) } else { print(out, &rows) }
        })?;
        // Nobody reads the rest.
        if is_last || print::broken().is_some() {
            return Ok(Answer::Printed);
        }
        is_first = false;
    }
}

/// Without the tag, which says no more than the command did.
fn without_tag(reply: &Reply) -> Result<serde_json::Value, Failure> {
    let mut value = serde_json::to_value(reply).map_err(Failure::new)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("reply");
    }
    Ok(value)
}

fn show_reply(json: bool, reply: Reply, nothing: &str) -> Result<Answer, Failure> {
    if json {
        print::json(&without_tag(&reply)?)?;
        return Ok(Answer::Printed);
    }
    let none = |out: &mut dyn Write, is_empty: bool| if is_empty { writeln!(out, "{nothing}") } else { Ok(()) };
    print::to_stdout(|out| {
        let out: &mut dyn Write = &mut Screen::new(out);
        match reply {
            Reply::Pending { pending } => {
                none(out, pending.is_empty())?;
                rows::print_pending(out, &pending, now().wall)?;
                rows::print_marks(out, &pending)
            }
            Reply::Outgoing { outgoing, owed } => {
                none(out, outgoing.is_empty() && owed.is_empty())?;
                rows::print_outgoing(out, &outgoing, now().wall)?;
                rows::print_owed(out, &owed, now().wall)
            }
            Reply::Registry { contradicted, .. } => {
                none(out, contradicted.is_empty())?;
                rows::print_contradicted(out, &contradicted)
            }
            Reply::RevokedKeys { revoked_keys } => {
                none(out, revoked_keys.is_empty())?;
                rows::print_revoked_keys(out, &revoked_keys, now().wall)
            }
            Reply::Ignored { ignored, ignored_keys } => {
                none(out, ignored.is_empty() && ignored_keys.is_empty())?;
                rows::print_ignored(out, &ignored, &ignored_keys, now().wall)
            }
            Reply::Status(status) => show(out, &status),
            _ => Err(io::Error::other(unexpected().to_string())),
        }
    })?;
    Ok(Answer::Printed)
}

pub(super) fn unexpected() -> Failure {
    Failure::hint("the node answered something else than was asked", "does it run the same release?")
}

fn show(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let Status { node_id, public_key, fingerprint, listen, pid, generation, durable_generation, .. } = status;
    let process = pid.map_or("a process in another PID namespace".to_owned(), |pid| format!("process {pid}"));
    writeln!(out, "node         {node_id}, {process}, listening on {listen}")?;
    writeln!(out, "public key   {public_key}\nfingerprint  {fingerprint}")?;
    writeln!(out, "generation   {generation}, durable {durable_generation}")?;
    let Status { trusted, pending, outgoing, revoked, revoked_keys, ignored, .. } = status;
    writeln!(out, "peers        {trusted} trusted, {pending} pending, {outgoing} outgoing, {revoked} revoked")?;
    if let Some(RegistryDisagreement { compared, contradicted }) = &status.registry_disagreement {
        writeln!(out, "registry     DISAGREES: of {compared} trusted peers it knows {contradicted} under another key")?;
        let place = print::place_options();
        writeln!(out, "             correct it and start again, or `trustkeep registry list {place}`")?;
        writeln!(out, "             and `trustkeep registry confirm {place}`")?;
    }
    if let Some(OlderStore { seen_generation: seen, found_generation: found, another_store }) = &status.older_store {
        let which = if *another_store { "ANOTHER" } else { "OLDER" };
        writeln!(out, "store        {which}: it was opened at generation {found}, the home had seen {seen}")?;
        writeln!(out, "             put the newest one back, or start once with `--accept-older-store`")?;
    }
    if revoked_keys + ignored > 0 {
        writeln!(out, "             {revoked_keys} keys revoked, {ignored} peers and keys ignored")?;
    }
    if let Some(PeersFileRefused { path, at, error }) = &status.peers_file_refused {
        let (path, error) = (print::printable(path), print::printable(error));
        writeln!(
            out,
            "peers file   REFUSED at {}: {path} was changed, and what was read before counts on",
            print::time(*at)
        )?;
        writeln!(out, "             {error}")?;
    }
    let is_unhealthy_else =
        status.registry_disagreement.is_some() || status.older_store.is_some() || status.peers_file_refused.is_some();
    let hangs = status.saving.filter(|saving| saving.overdue);
    match (&status.failing, hangs, status.healthy || is_unhealthy_else) {
        (Some(failing), ..) => writeln!(out, "saving       FAILS: {}", print::printable(failing))?,
        (None, Some(saving), _) => {
            writeln!(out, "saving       HANGS since {}: the disk does not answer", print::time(saving.since))?;
        }
        (None, None, true) => writeln!(out, "saving       works")?,
        (None, None, false) => writeln!(out, "saving       STOPPED")?,
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
    if let Some(FalseKeyShown { at, node_id, source, expected, shown, ended, count }) = &status.false_key {
        let from =
            source.as_ref().map_or_else(|| "by the registry's word".to_owned(), |source| format!("from {source}"));
        let from = print::printable(&from);
        let ended = if *ended { "; TRUST ENDED by it" } else { "" };
        writeln!(out, "false keys   {count}, the newest of peer {node_id} at {}, {from}{ended}", print::time(*at))?;
        writeln!(out, "             expected {}, shown {}", print::printable(expected), print::printable(shown))?;
    }
    for (name, millis) in &status.skews {
        let by = std::time::Duration::from_millis(millis.unsigned_abs()).as_secs_f64();
        let side = if *millis < 0 { "behind" } else { "ahead of" };
        writeln!(out, "clocks       {name}: the newest stamp was {by:.1} s {side} our clock")?;
        if let Some((_, peer)) = status.skewed_peers.iter().find(|(of, _)| of == name) {
            writeln!(out, "             its message says it is from node {peer}")?;
        }
    }
    let newcomers = status.refused_newcomers.iter().map(|(source, count)| [source.clone(), count.to_string()]);
    print::table(out, "NEWCOMERS REFUSED", ["FROM", "COUNT"], newcomers)?;
    let counters = status.counters.iter().filter(|(_, count)| *count > 0);
    print::table(out, "COUNTERS", ["NAME", "COUNT"], counters.map(|(name, count)| [name.clone(), count.to_string()]))
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::super::control::Saving;
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
        // One that runs is no news, and one that hangs is.
        status.saving = Some(Saving { since: 1_700_000_000_000, overdue: false });
        assert!(shown(&status).contains("saving       works"));
        status.healthy = false;
        status.saving = Some(Saving { since: 1_700_000_000_000, overdue: true });
        assert!(shown(&status).contains("saving       HANGS since 2023-11-14T22:13:20.000Z: the disk does not answer"));
        status.saving = None;
        assert!(shown(&status).contains("saving       STOPPED"));
        status.registry_disagreement = Some(RegistryDisagreement { compared: 80, contradicted: 9 });
        let text = shown(&status);
        assert!(text.contains("registry     DISAGREES: of 80 trusted peers it knows 9 under another key"), "{text}");
        assert!(text.contains("saving       works"), "{text}");
        assert!(!text.contains("limits "), "{text}");
        status.near_limits = vec![("pending_max".to_owned(), 250, 256)];
        assert!(shown(&status).contains("limits       pending_max: 250 of 256\n"));
        assert!(!text.contains("store  "), "{text}");
        status.registry_disagreement = None;
        status.older_store = Some(OlderStore { seen_generation: 41, found_generation: 30, another_store: false });
        let text = shown(&status);
        assert!(text.contains("store        OLDER: it was opened at generation 30, the home had seen 41\n"), "{text}");
        assert!(text.contains("saving       works") && text.contains("--accept-older-store"), "{text}");
        assert!(!text.contains("peers file"), "{text}");
        status.older_store = None;
        let (path, error) = ("/h/peers.toml".to_owned(), "/h/peers.toml: line 4: \x1b".to_owned());
        status.peers_file_refused = Some(PeersFileRefused { path, at: 1_700_000_000_000, error });
        let text = shown(&status);
        let line = "peers file   REFUSED at 2023-11-14T22:13:20.000Z: /h/peers.toml was changed, and what was read before \
                    counts on\n             /h/peers.toml: line 4: \u{fffd}\n";
        assert!(text.contains(line) && text.contains("saving       works"), "{text}");
        assert!(!text.contains("new key"), "{text}");
        status.announcement = Some(Announcement { told: 3, owed: 2 });
        assert!(shown(&status).contains("new key      3 peers told, 2 not yet\n"));
        status.failing = Some("no space".to_owned());
        assert!(shown(&status).contains("saving       FAILS: no space"));
        assert!(!text.contains("clocks") && !text.contains("false keys") && !text.contains("NEWCOMERS"), "{text}");
        status.skews = vec![("answer".to_owned(), -12_500), ("from_future".to_owned(), 61_000)];
        status.skewed_peers = vec![("answer".to_owned(), 9)];
        let text = shown(&status);
        let answer = "clocks       answer: the newest stamp was 12.5 s behind our clock\n";
        assert!(text.contains(&format!("{answer}             its message says it is from node 9\n")), "{text}");
        let other = "clocks       from_future: the newest stamp was 61.0 s ahead of our clock\n";
        assert!(text.contains(&format!("{other}clocks")) || text.ends_with(other), "{text}");
    }

    /// A row that counts how many of its kind there are.
    #[derive(Serialize)]
    struct Held<'a>(u32, #[serde(skip)] &'a std::cell::Cell<usize>);

    impl<'a> Held<'a> {
        fn new(id: u32, held: &'a std::cell::Cell<usize>) -> Self {
            held.set(held.get() + 1);
            Self(id, held)
        }
    }

    impl Drop for Held<'_> {
        fn drop(&mut self) {
            self.1.set(self.1.get() - 1);
        }
    }

    #[test]
    fn a_long_listing_holds_one_page_at_a_time() {
        let (held, most, printed) =
            (std::cell::Cell::new(0), std::cell::Cell::new(0), std::cell::RefCell::new(Vec::new()));
        let page = |after: Option<u32>, _| {
            assert_eq!(held.get(), 0, "the page before is held");
            let first = after.unwrap_or(0) + 1;
            let rows: Vec<_> = (first..first + 7).map(|id| Held::new(id, &held)).collect();
            Ok((rows, first < 70, 77))
        };
        let print = |_: &mut dyn Write, rows: &[Held<'_>]| {
            most.set(most.get().max(held.get()));
            printed.borrow_mut().extend(rows.iter().map(|row| row.0));
            Ok(())
        };
        let part = Part { limit: None, after: None, count: false };
        paged(false, part, &Paged { name: "rows", nothing: "none" }, page, |row| row.0, print).unwrap();
        assert_eq!((most.get(), held.get()), (7, 0));
        assert!(printed.into_inner().into_iter().eq(1..=77));
    }

    #[test]
    fn a_status_shows_the_newest_false_key_with_peer_source_and_both_fingerprints() {
        let shown = |status: &Status| {
            let mut out = Vec::new();
            show(&mut out, status).unwrap();
            String::from_utf8(out).unwrap()
        };
        let mut key = FalseKeyShown {
            at: 1_700_000_000_000,
            node_id: 9,
            source: Some("192.0.2.9".to_owned()),
            expected: "1a2b:3c4d".to_owned(),
            shown: "0123:4567".to_owned(),
            ended: false,
            count: 3,
        };
        let text = shown(&Status { false_key: Some(key.clone()), ..Status::default() });
        let lines = "false keys   3, the newest of peer 9 at 2023-11-14T22:13:20.000Z, from 192.0.2.9\n             \
                     expected 1a2b:3c4d, shown 0123:4567\n";
        assert!(text.contains(lines), "{text}");
        (key.source, key.ended) = (None, true);
        let text = shown(&Status { false_key: Some(key), ..Status::default() });
        assert!(text.contains("Z, by the registry's word; TRUST ENDED by it\n"), "{text}");
    }
}
