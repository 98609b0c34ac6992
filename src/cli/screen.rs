//! Lines for people, as wide as their terminal.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use super::print::{ROOM_MIN, terminal_columns};

/// What a command prints for people: without the empty line that a table has before it, where that comes first; and on a
/// terminal with every line broken at blanks so that it fits. What is broken off begins with four blanks. Lines with the
/// text of a peer are left as they are: they fit already, and no part of a text may begin a line.
pub(super) struct Screen<'a> {
    out: &'a mut dyn Write,
    columns: Option<usize>,
    line: Vec<u8>,
    begun: bool,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, columns: terminal_columns(), line: Vec::new(), begun: false }
    }

    fn end_line(&mut self) -> io::Result<()> {
        let line = core::mem::take(&mut self.line);
        if line == b"\n" && !self.begun {
            return Ok(());
        }
        self.begun = true;
        let room = self.columns.map_or(usize::MAX, |columns| columns.max(ROOM_MIN));
        match core::str::from_utf8(&line) {
            Ok(text) if text.trim_end().chars().count() > room && !text.starts_with("      ") => {
                broken_at_blanks(text, room).iter().try_for_each(|part| writeln!(self.out, "{part}"))
            }
            _ => self.out.write_all(&line),
        }
    }
}

/// The parts of a line, each no wider than this where a blank allows it.
fn broken_at_blanks(line: &str, room: usize) -> Vec<String> {
    let indent: String = line.chars().take_while(|c| *c == ' ').collect();
    let (mut parts, mut part) = (Vec::new(), indent.clone());
    let mut is_begun = false;
    for word in line.split_whitespace() {
        let width = part.chars().count() + usize::from(is_begun) + word.chars().count();
        if is_begun && width > room {
            parts.push(core::mem::replace(&mut part, "    ".to_owned()));
        } else if is_begun {
            part.push(' ');
        }
        part.push_str(word);
        is_begun = true;
    }
    parts.push(part);
    parts
}

impl core::fmt::Debug for Screen<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Screen").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl Write for Screen<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line()?;
            }
        }
        Ok(bytes.len())
    }

    /// A line that has not ended is shown as it is, as a question is.
    fn flush(&mut self) -> io::Result<()> {
        if !self.line.is_empty() {
            self.begun = true;
            let line = core::mem::take(&mut self.line);
            self.out.write_all(&line)?;
        }
        self.out.flush()
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_screen_breaks_lines_at_blanks_and_no_text_of_a_peer() {
        let drawn = |columns, text: &str| {
            let mut out = Vec::new();
            let mut screen = Screen { columns, ..Screen::new(&mut out) };
            // In pieces, as formatting writes.
            text.as_bytes().chunks(3).for_each(|part| screen.write_all(part).unwrap());
            screen.flush().unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = "\nTITLE\n\nWARNING: this is wider than that\n  as is this line here\n      why | \"and this is not broken\"\nyes? ";
        let expected = "TITLE\n\nWARNING: this is\n    wider than that\n  as is this line\n    here\n      why | \"and this is not broken\"\nyes? ";
        assert_eq!(drawn(Some(20), text), expected);
        assert_eq!(drawn(None, text), text[1..]);
        assert_eq!(drawn(Some(20), &"x".repeat(50)), "x".repeat(50));
    }
}
