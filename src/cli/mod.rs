//! The program: its arguments, its exit codes, and who performs which command.
//!
//! What must hold: 0 means yes or done, 1 no or failed, 2 that the command line made no sense; that is the command's
//! answer, whatever becomes of its output. Whatever a command changed is durable when it answers 0. What goes wrong is
//! told on standard error, in one line that begins with `trustkeep:` and says what to do. No rule of the domain lives
//! here.
#![forbid(unsafe_code)]

mod approve;
mod arguments;
mod compact;
mod control;
mod demo;
mod events;
mod export;
mod generated;
mod group;
mod holder;
mod home;
mod import;
mod latencies;
mod limits;
mod listen;
mod log;
mod new_file;
mod node;
mod offline;
mod operator;
mod owner;
mod peers;
mod permissions;
mod policy;
mod print;
mod progress;
mod quoted;
mod rehearsal;
mod rekey;
mod remembered;
mod repair;
mod rows;
mod screen;
mod signals;
mod store_seen;
mod stress;
mod supervisor;
pub(crate) mod trust_json;
mod watch;
mod watched;

use core::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use crate::clock::{Clock as _, SystemClock};
use crate::config::HandshakeConfig;
use crate::error::{OpenError, PersistError};
use crate::time::Now;
use crate::wire::text::one_line;
use arguments::{Arguments, Command, Operation, RegistryAction};
use control::Ask;

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    // However this ends.
    let _log = log::End;
    let _survived = signals::survived();
    signals::leave_no_core();
    // Usage errors end the process here, with 2.
    let outcome = match Arguments::parse().command {
        Command::Init { home, id, json } => home::init(&home, id, json),
        Command::Rekey { home, json } => rekey::rekey(&home, json),
        Command::Node { home, listen, policy, limits, no_announce, accept_older_store, local, json, stop_at_eof } => {
            let config = HandshakeConfig { announce_rotation: !no_announce, ..HandshakeConfig::default() };
            let settings = node::Settings { policy: policy.into_policy(), limits, config, local, accept_older_store };
            node::run(&home, &listen, settings, json, stop_at_eof)
        }
        Command::Operation(operation) => {
            let is_approval = matches!(operation, Operation::Approve { .. });
            let questions = operation.into_questions().unwrap_or_else(|why| makes_no_sense(&why));
            if is_approval { approve::approve(questions) } else { operator::operate(questions) }
        }
        Command::List { of, part } => operator::list_trusted(&of, part),
        Command::Show(of) => operator::show_peer(&of),
        Command::Check { of, key } => operator::check(&of, key),
        Command::Id { home, stanza, address, key_group, json } => home::id(&home, key_group, stanza, address, json),
        Command::Peer { action } => peers::peer(action),
        Command::Pending { listing, peer } => operator::pending(&listing, peer),
        Command::Outgoing(listing) => {
            operator::list(&listing, &Ask::Outgoing, "no outgoing requests, and no peer has to be told anything")
        }
        Command::Revoked { listing, part: _, keys: true } => {
            operator::list(&listing, &Ask::RevokedKeys, "no revoked keys")
        }
        Command::Revoked { listing, part, keys: false } => operator::list_revoked(&listing, part),
        Command::Ignored(listing) => operator::list(&listing, &Ask::Ignored, "no ignored peers or keys"),
        Command::Status { of, check } => operator::status(&of, check),
        Command::Registry { action: RegistryAction::List, of } => {
            operator::list(&of, &Ask::RegistryList, "no peers that the registry contradicts")
        }
        Command::Registry { action: RegistryAction::Confirm, of } => operator::registry(&of, &Ask::RegistryConfirm),
        Command::Registry { action: RegistryAction::Reset, of } => operator::registry(&of, &Ask::RegistryReset),
        Command::Watch { at, peers, count, timeout, json } => watch::watch(&at.home(), &peers, count, timeout, json),
        Command::Help { command } => generated::help(&command),
        Command::Completions { shell } => generated::completions(shell),
        Command::Man { out } => generated::man(out.as_deref()),
        Command::Demo => demo::run(),
        Command::Inspect { place, json } => offline::inspect(&owner::real(&place.dir()), json),
        Command::Verify { place, json } => offline::verify(&owner::real(&place.dir()), json),
        Command::Export { place, out, force, with_nonces, json } => {
            let nonces = if with_nonces { trust_json::Nonces::Written } else { trust_json::Nonces::LeftOut };
            export::export(&owner::real(&place.dir()), out.as_deref(), force, nonces, json)
        }
        Command::Import { place, file, lift, strict, key_group, json } => {
            import::import(&place, key_group, &file, &lift, strict, json)
        }
        Command::Compact { place, json } => owner::work_on(&place.dir()).and_then(|dir| compact::compact(&dir, json)),
        Command::Repair { place, empty, untrust_uncertain, yes, json } => {
            owner::work_on(&place.dir()).and_then(|dir| {
                let seen = store_seen::Beside::new(place.home.as_deref(), &place.dir());
                repair::repair(&dir, &seen, repair::Wish { empty, untrust_uncertain, yes }, json)
            })
        }
        Command::Stress(mut arguments) => owner::work_on(&arguments.dir).and_then(|dir| {
            arguments.dir = dir;
            stress::run(&arguments)
        }),
    };
    // Whoever reads no more has seen enough; that is no failure.
    let unwritten = print::broken().filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
    if let Some(error) = unwritten {
        complain(format_args!("the result could not be written: {error}"));
    }
    match outcome {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::Printed) if unwritten.is_none() => ExitCode::SUCCESS,
        Ok(Answer::No | Answer::Printed) => ExitCode::FAILURE,
        Err(failure) => {
            complain(failure);
            ExitCode::FAILURE
        }
    }
}

/// Ends the process: the command line makes no sense.
fn makes_no_sense(why: &str) -> ! {
    use clap::CommandFactory as _;

    Arguments::command().error(clap::error::ErrorKind::ValueValidation, why).exit()
}

/// Tells what went wrong.
fn complain(message: impl fmt::Display) {
    // An error may quote the name of a file, or what is in one. Its own line breaks stay.
    let line = format!("trustkeep: {message}");
    let line: Vec<String> = line.split('\n').map(one_line).collect();
    let line = line.join("\n");
    if !log::put(&line) {
        // If even this cannot be written, the exit code still tells.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Tells more of what went wrong: a line of a text of a peer's, which begins as no row does.
fn complain_below(line: &str) {
    if !log::put(line) {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// What a command that could be carried out answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Yes, or done; what is printed besides only says so.
    Yes,
    /// What was printed: not given if there was no room for it.
    Printed,
    /// No; what was found, or not, has been printed.
    No,
}

/// Why a command could not be carried out: what went wrong and what to do, in one line.
///
/// That something could not be printed is none: see [`print::broken`].
#[derive(Debug)]
struct Failure(String);

impl Failure {
    fn new(message: impl fmt::Display) -> Self {
        Self(message.to_string())
    }

    /// With what to do about it.
    fn hint(message: impl fmt::Display, hint: impl fmt::Display) -> Self {
        Self(format!("{message}; {hint}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match &error {
            OpenError::Missing { is_parent: false, .. } => {
                Self::hint(error, "`node`, `import` and `stress` create one; a node's is `store` in its home")
            }
            OpenError::Foreign { .. } => {
                Self::hint(error, "name a store directory (of a node: `store` in its home), or one that does not exist")
            }
            OpenError::InUse { .. } => {
                Self::hint(error, "stop that process first; `inspect`, `verify` and `export` work beside it")
            }
            OpenError::Persist(PersistError::Displaced { .. }) => Self::new(error),
            OpenError::Damaged { .. } | OpenError::DataMissing { .. } => {
                Self::hint(error, "`repair` tells what giving it up would lose, before it does anything")
            }
            _ => Self::new(error),
        }
    }
}

impl From<PersistError> for Failure {
    fn from(error: PersistError) -> Self {
        match &error {
            PersistError::Displaced { .. } => Self::new(error),
            PersistError::TimedOut { cause: Some(cause) } if matches!(**cause, PersistError::Displaced { .. }) => {
                Self::new(error)
            }
            _ => Self::hint(error, "see to the disk, and try again"),
        }
    }
}

/// This moment, for shells that need it as data.
fn now() -> Now {
    SystemClock.now()
}
