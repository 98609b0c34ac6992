//! What is made from the command line's own description: completions for shells, and manual pages.
#![forbid(unsafe_code)]

use std::path::Path;

use clap::CommandFactory as _;

use super::arguments::Arguments;
use super::{Answer, Failure, print};

/// Prints what a shell reads to complete our commands.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<Answer, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
    print::to_stdout(|out| out.write_all(&script))?;
    Ok(Answer::Printed)
}

/// Prints the manual page of the program, or writes that and one for each command into a directory.
pub(super) fn man(out: Option<&Path>) -> Result<Answer, Failure> {
    let Some(dir) = out else {
        print::to_stdout(|out| {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
            out.write_all(&page)
        })?;
        return Ok(Answer::Printed);
    };
    let command = Arguments::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, dir).map_err(|error| {
        Failure::hint(format_args!("{}: {error}", dir.display()), "name a directory that exists and can be written")
    })?;
    Ok(Answer::Yes)
}

const NAME: &str = "trustkeep";
