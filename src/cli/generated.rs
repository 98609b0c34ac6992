//! What is made from the command line's own description: completions for shells, and manual pages.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::path::Path;

use clap::{Command, CommandFactory as _, Parser as _};
use clap_mangen::Man;

use super::arguments::Arguments;
use super::{Answer, Failure, print};

/// Prints what `--help` prints.
pub(super) fn help(words: &[String]) -> Result<Answer, Failure> {
    let asked = [NAME].into_iter().chain(words.iter().map(String::as_str)).chain(["--help"]);
    let Err(help) = Arguments::try_parse_from(asked) else { return Err(Failure::new("there is no help about that")) };
    if help.kind() != clap::error::ErrorKind::DisplayHelp {
        // No such command.
        help.exit();
    }
    let text = help.render().to_string();
    print::to_stdout(|out| out.write_all(text.as_bytes()))?;
    Ok(Answer::Printed)
}

/// Prints what a shell reads to complete our commands.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<Answer, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
    print::to_stdout(|out| out.write_all(&script))?;
    Ok(Answer::Printed)
}

/// Prints the manual page of the program, or writes that, one for each command, and that of the peers file into a directory.
pub(super) fn man(out: Option<&Path>) -> Result<Answer, Failure> {
    let mut command = Arguments::command();
    command.build();
    let Some(dir) = out else {
        let page = page(&command).map_err(Failure::new)?;
        print::to_stdout(|out| out.write_all(&page))?;
        return Ok(Answer::Printed);
    };
    let written = write_pages(&command, dir).and_then(|()| write(dir, "trustkeep-peers.5", &peers_page()));
    written.map_err(|error| {
        Failure::hint(format_args!("{}: {error}", dir.display()), "name a directory that exists and can be written")
    })?;
    Ok(Answer::Yes)
}

fn write_pages(command: &Command, dir: &Path) -> io::Result<()> {
    write(dir, &format!("{}.1", name(command)), &page(command)?)?;
    command.get_subcommands().try_for_each(|command| write_pages(command, dir))
}

fn write(dir: &Path, name: &str, page: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).open(dir.join(name))?.write_all(page)
}

/// As its page is called: `trustkeep-peer-add`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

/// A page of section 1.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let name = name(command);
    let man = Man::new(command.clone()).title(name.clone()).section("1").manual("trustkeep");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    // As help has it, with the values of options.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    writeln!(page, ".SH SYNOPSIS\n{}", roff(usage.trim()))?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let words = name.strip_prefix("trustkeep-").unwrap_or_default();
    let examples: Vec<_> = EXAMPLES.iter().filter(|(of, ..)| *of == words).collect();
    if !examples.is_empty() {
        writeln!(page, ".SH EXAMPLES")?;
        for (_, line, what) in examples {
            writeln!(page, ".PP\n{}\n.PP\n.nf\n.RS 4\n{}\n.RE\n.fi", roff(what), roff(line))?;
        }
    }
    writeln!(page, ".SH FILES")?;
    for (file, what) in FILES {
        writeln!(page, ".TP\n\\fI{}\\fR\n{}", roff(file), roff(what))?;
    }
    writeln!(page, ".SH EXIT STATUS")?;
    let of_no = match words {
        "check" => "The peer is not trusted, or no node runs there.",
        "wait" => "It was not so in time, or cannot be so any more.",
        "verify" => "Something is damaged.",
        _ => "No, or it failed; standard error says why, and what to do.",
    };
    for (code, what) in
        [("0", "Yes, or done; what was changed is durable."), ("1", of_no), ("2", "The command line makes no sense.")]
    {
        writeln!(page, ".TP\n\\fB{code}\\fR\n{}", roff(what))?;
    }
    let mut also = vec!["trustkeep-peers(5)".to_owned()];
    if !words.is_empty() {
        also.insert(0, "trustkeep(1)".to_owned());
    }
    also.extend(SEE_ALSO.iter().filter(|(of, _)| *of == words).map(|(_, other)| format!("trustkeep-{other}(1)")));
    writeln!(page, ".SH SEE ALSO\n{}", roff(&also.join(", ")))?;
    Ok(page)
}

/// A page of section 5, made of the document: its headings, paragraphs, tables, lists and blocks of code.
fn peers_page() -> Vec<u8> {
    let mut page = ".TH trustkeep-peers 5 \"\" \"trustkeep\" \"trustkeep\"\n.SH NAME\ntrustkeep\\-peers \\- the peers file of a node\n".to_owned();
    let (mut in_code, mut tables) = (false, 0);
    page.push_str(".SH DESCRIPTION\n");
    for line in PEERS.lines().skip(1) {
        let plain = line.replace(['`', '*'], "");
        if line.starts_with("```") {
            in_code = !in_code;
            page.push_str(if in_code { ".PP\n.nf\n.RS 4\n" } else { ".RE\n.fi\n.PP\n" });
        } else if in_code {
            page.push_str(&format!("{}\n", roff(line)));
        } else if let Some(title) = line.strip_prefix("## ") {
            page.push_str(&format!(".SH {}\n", roff(&title.to_uppercase())));
        } else if let Some(row) = plain.strip_prefix("| ") {
            tables += 1;
            let mut cells = row.trim_end_matches(" |").split(" | ");
            // The names of the columns stand above the line.
            if tables > 1 {
                let first = cells.next().unwrap_or_default();
                let rest: Vec<&str> = cells.filter(|cell| !cell.is_empty()).collect();
                page.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", roff(first), roff(&rest.join("; if left out: "))));
            }
        } else if let Some(item) = plain.strip_prefix("- ") {
            page.push_str(&format!(".IP \\(bu 2\n{}\n", roff(item)));
        } else if !line.starts_with("|-") {
            tables = 0;
            page.push_str(&if plain.trim().is_empty() {
                ".PP\n".to_owned()
            } else {
                format!("{}\n", roff(plain.trim()))
            });
        }
    }
    page.push_str(".SH SEE ALSO\ntrustkeep(1), trustkeep\\-peer(1), trustkeep\\-id(1), trustkeep\\-node(1)\n");
    page.into_bytes()
}

/// A text that the formatter takes as it stands.
fn roff(text: &str) -> String {
    let mut out = String::new();
    for (number, line) in text.lines().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        if line.starts_with(['.', '\'']) {
            out.push_str("\\&");
        }
        out.push_str(&line.replace('\\', "\\e").replace('-', "\\-"));
    }
    out
}

const NAME: &str = "trustkeep";
const PEERS: &str = include_str!("../../docs/peers.md");

const FILES: [(&str, &str); 5] = [
    ("HOME/identity.key", "The node's id and secret key, its user's alone."),
    ("HOME/peers.toml", "The nodes that it knows: see trustkeep-peers(5)."),
    ("HOME/store.seen", "Which store the node had, and how far it had come: an older copy is noticed by it."),
    ("HOME/store", "The directory with its trusted peers and whatever else it must not forget."),
    ("HOME/control.sock", "The socket over which commands ask a running node; elsewhere with node --control."),
];

/// Of a command: a line, and what it does.
const EXAMPLES: [(&str, &str, &str); 45] = [
    ("", "trustkeep demo", "See the whole of it in temporary homes:"),
    ("", "trustkeep init --home seven --id 7\ntrustkeep node --home seven", "Make a home and run its node:"),
    ("init", "trustkeep init --home seven --id 7", "Make the home of node 7:"),
    ("rekey", "trustkeep rekey --home seven", "Give the node that lives in seven a new key:"),
    ("node", "trustkeep node --home seven --listen 0.0.0.0:4440", "Listen on all addresses:"),
    (
        "node",
        "trustkeep node --home seven --control /run/trustkeep/control.sock --control-group operators",
        "Let a group of operators in:",
    ),
    ("id", "trustkeep id --home seven --stanza --address seven.example.org:4440", "Print what others paste:"),
    ("peer", "trustkeep peer list --home seven", "List the peers file:"),
    ("peer-add", "trustkeep peer add --home seven 9 --key KEY --address nine.example.org:4440", "Add node 9:"),
    ("peer-add", "trustkeep peer add --home seven 9 --address 192.0.2.9:4440 --replace", "It listens elsewhere now:"),
    ("peer-list", "trustkeep peer list --home seven --json", "List the peers file as JSON:"),
    ("peer-remove", "trustkeep peer remove --home seven 9", "Remove node 9 from the peers file:"),
    ("request", "trustkeep request --home seven 9 'the new gateway' --wait 60", "Ask node 9, and wait for its answer:"),
    ("approve", "trustkeep approve --home seven 9 FINGERPRINT 10 FINGERPRINT", "Approve two peers:"),
    ("grant", "trustkeep grant --home seven 9 KEY", "Trust node 9 under this key:"),
    ("reject", "trustkeep reject --home seven 9 10 'not now'", "Refuse two peers:"),
    ("cancel", "trustkeep cancel --home seven 9", "Forget the request to node 9:"),
    ("revoke", "trustkeep revoke --home seven 9 10", "Trust two peers no longer:"),
    ("revoke", "trustkeep revoke --home seven --key KEY", "Trust nobody under this key:"),
    ("unrevoke", "trustkeep unrevoke --home seven 9", "Take the mark of node 9 away:"),
    ("ignore", "trustkeep ignore --home seven 9", "Hear nothing more of node 9:"),
    ("unignore", "trustkeep unignore --home seven 9", "Hear node 9 again:"),
    ("wait", "trustkeep wait --home seven 9 --timeout 60", "Wait for a minute until node 9 is trusted:"),
    ("list", "trustkeep list --home seven --count", "Count the trusted peers:"),
    ("list", "trustkeep list --home seven --json --limit 1000 --after 4711", "List a part:"),
    ("show", "trustkeep show --home seven 9", "Show everything about node 9:"),
    ("check", "trustkeep check --home seven 9 && echo yes", "Ask whether node 9 is trusted:"),
    ("pending", "trustkeep pending --home seven 9", "Show the keys under which node 9 asks:"),
    ("outgoing", "trustkeep outgoing --home seven", "List what was asked, and is owed:"),
    ("revoked", "trustkeep revoked --home seven --keys", "List the revoked keys:"),
    ("ignored", "trustkeep ignored --home seven", "List whom the node does not hear:"),
    ("registry", "trustkeep registry list --home seven", "See whom the peers file knows under another key:"),
    ("inspect", "trustkeep inspect --home seven", "See what the store of a node holds that may not run:"),
    ("compact", "trustkeep compact --home seven", "Make the store as small as it gets:"),
    ("stress", "trustkeep stress --dir scratch --threads 4 --seconds 10", "Try a disk:"),
    ("completions", "trustkeep completions bash > /etc/bash_completion.d/trustkeep", "Complete commands in bash:"),
    ("man", "trustkeep man --out /usr/local/share/man/man1", "Write the pages where they are looked for:"),
    ("help", "trustkeep help peer add", "Read the help of a command:"),
    ("demo", "trustkeep demo", "See the whole of it in temporary homes:"),
    ("status", "trustkeep status --home seven --json", "Show how the node does, for a script:"),
    ("watch", "trustkeep watch --home seven --json --count 1", "Wait for the next event:"),
    ("export", "trustkeep export --dir seven/store --out trust.json", "Write the store as JSON:"),
    ("import", "trustkeep import --home seven trust.json --strict", "Read a document, all of it or nothing:"),
    ("verify", "trustkeep verify --dir seven/store", "Check every byte of a store:"),
    ("repair", "trustkeep repair --dir seven/store", "See what repairing a damaged store would lose:"),
];

const SEE_ALSO: [(&str, &str); 16] = [
    ("init", "node"),
    ("node", "init"),
    ("id", "peer-add"),
    ("peer-add", "id"),
    ("request", "wait"),
    ("wait", "request"),
    ("approve", "pending"),
    ("pending", "approve"),
    ("grant", "revoke"),
    ("revoke", "unrevoke"),
    ("unrevoke", "revoked"),
    ("list", "show"),
    ("show", "check"),
    ("check", "show"),
    ("export", "import"),
    ("verify", "repair"),
];
