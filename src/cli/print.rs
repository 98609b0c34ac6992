//! How results look: tables for people, JSON for programs, each written in one piece.
//!
//! What must hold: a standard output that is closed or full ends the printing, and nothing else. Its first error is kept
//! ([`broken`]), and nothing is printed behind what is missing; no command fails by it.
#![forbid(unsafe_code)]

use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;

use super::{Failure, quoted};
use crate::sync::OnceLock;
use crate::time::WallMillis;
use crate::wire::text::is_kept;

/// Lends buffered standard output to `write`. Fails only with what `write` itself fails with.
pub(super) fn to_stdout(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    write_to(io::stdout().lock(), &BROKEN, write)
}

/// Why standard output takes no more, if it does not.
pub(super) fn broken() -> Option<&'static io::Error> {
    BROKEN.get()
}

static BROKEN: OnceLock<io::Error> = OnceLock::new();

fn write_to(
    out: impl Write,
    broken: &OnceLock<io::Error>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    if broken.get().is_some() {
        return Ok(());
    }
    let mut out = BufWriter::new(Watched { out, broken });
    match write(&mut out).and_then(|()| out.flush()) {
        // Writing ends early then.
        Err(error) if broken.get().is_none() => Err(Failure::new(error)),
        _ => Ok(()),
    }
}

/// Keeps the first error.
struct Watched<'a, W> {
    out: W,
    broken: &'a OnceLock<io::Error>,
}

impl<W> Watched<'_, W> {
    fn keep<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                let _ = self.broken.set(error);
            }
            kind.into()
        })
    }
}

impl<W: Write> Write for Watched<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.out.write(bytes);
        self.keep(outcome)
    }

    fn flush(&mut self) -> io::Result<()> {
        let outcome = self.out.flush();
        self.keep(outcome)
    }
}

/// One line of JSON on standard output.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    to_stdout(|out| {
        serde_json::to_writer(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

/// A table with a title; nothing at all if it has no rows.
pub(super) fn table<const N: usize>(
    out: &mut dyn Write,
    title: &'static str,
    columns: [&'static str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> io::Result<()> {
    Table::new(title, columns).rows(out, rows)
}

/// The same, with a text of a peer below each row that has one. No cell has any part of it (R-139).
pub(super) fn table_with_texts<'a, const N: usize>(
    out: &mut dyn Write,
    title: &'static str,
    columns: [&'static str; N],
    rows: impl IntoIterator<Item = ([String; N], &'a str)>,
) -> io::Result<()> {
    Table::new(title, columns).rows_with_texts(out, rows)
}

/// A table whose rows may come in several parts. Each part is as wide as it needs, and no narrower than the one before. On a
/// terminal that is narrower than that, a row takes several lines; behind its first they begin with four blanks.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    title: &'static str,
    columns: [&'static str; N],
    widths: [usize; N],
    terminal: Option<usize>,
    begun: bool,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(title: &'static str, columns: [&'static str; N]) -> Self {
        Self { title, columns, widths: columns.map(str::len), terminal: terminal_columns(), begun: false }
    }

    pub(super) fn rows(&mut self, out: &mut dyn Write, rows: impl IntoIterator<Item = [String; N]>) -> io::Result<()> {
        self.rows_with_texts(out, rows.into_iter().map(|row| (row, "")))
    }

    fn rows_with_texts<'a>(
        &mut self,
        out: &mut dyn Write,
        rows: impl IntoIterator<Item = ([String; N], &'a str)>,
    ) -> io::Result<()> {
        let rows = rows.into_iter().map(|(row, text)| (row.map(|cell| printable(&cell)), text));
        let rows: Vec<([String; N], &str)> = rows.collect();
        if rows.is_empty() {
            return Ok(());
        }
        for (row, _) in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !core::mem::replace(&mut self.begun, true) {
            writeln!(out, "\n{}", self.title)?;
            self.line(out, &self.columns.map(str::to_owned))?;
        }
        let text_columns = quoted::columns();
        for (row, text) in &rows {
            self.line(out, row)?;
            for text in quoted::lines("why", text, text_columns) {
                writeln!(out, "{text}")?;
            }
        }
        Ok(())
    }

    /// One row: the cells that a line has room for, and the others on the next one.
    fn line(&self, out: &mut dyn Write, cells: &[String; N]) -> io::Result<()> {
        let room = self.terminal.map_or(usize::MAX, |columns| columns.max(ROOM_MIN));
        let mut line = "  ".to_owned();
        let mut used = 2;
        let mut is_begun = false;
        for (cell, &width) in cells.iter().zip(&self.widths) {
            let gap = if is_begun { 2 } else { 0 };
            if is_begun && used + gap + width > room {
                writeln!(out, "{}", line.trim_end())?;
                (line, used) = ("    ".to_owned(), 4);
            } else {
                line.push_str(if is_begun { "  " } else { "" });
                used += gap;
            }
            is_begun = true;
            // A cell that no line has room for is broken where the line ends.
            let mut rest: Vec<char> = cell.chars().collect();
            while used + rest.len() > room {
                let behind = rest.split_off(room - used);
                line.extend(rest);
                writeln!(out, "{}", line.trim_end())?;
                (line, used, rest) = ("    ".to_owned(), 4, behind);
            }
            let len = rest.len();
            line.extend(rest);
            let padded = width.min(room - used).max(len);
            line.extend(core::iter::repeat_n(' ', padded - len));
            used += padded;
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// How wide the terminal is, if standard output is one and says so.
pub(super) fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// No terminal is taken for narrower.
pub(super) const ROOM_MIN: usize = 20;

/// Text from elsewhere without anything that could command a terminal, or that is not seen.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_kept(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// From now on commands that are printed to be pasted have these options, each with the path that the operator gave.
pub(super) fn told_place(options: &[(&str, Option<&Path>)]) {
    let given = options.iter().filter_map(|(option, path)| Some(format!("{option} {}", shell((*path)?))));
    let given: Vec<String> = given.collect();
    if !given.is_empty() {
        let _ = TOLD_PLACE.set(given.join(" "));
    }
}

/// The options that lead a printed command to the node that was asked, or the store.
pub(super) fn place_options() -> &'static str {
    TOLD_PLACE.get().map_or("--home HOME", String::as_str)
}

/// The text, with [`place_options`] in each command in it that a text from elsewhere names without them: those of the
/// library and of the node, which do not know how the operator came to it.
pub(super) fn with_place(text: &str) -> String {
    let mut placed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("trustkeep ") {
        let (before, command) = rest.split_at(at);
        placed.push_str(before);
        let end = command.find(['`', ')']).unwrap_or(command.len());
        let (command, behind) = command.split_at(end);
        let is_quoted = before.ends_with(['`', '(']) && !behind.is_empty();
        let word = command.split(' ').nth(1).unwrap_or_default();
        if is_quoted
            && !matches!(word, "" | "init" | "node")
            && !command.contains(" --home")
            && !command.contains(" --dir")
        {
            let after_word = "trustkeep ".len() + word.len();
            let (name, arguments) = command.split_at_checked(after_word).unwrap_or((command, ""));
            placed.push_str(&format!("{name} {}{arguments}", place_options()));
        } else {
            placed.push_str(command);
        }
        rest = behind;
    }
    placed + rest
}

static TOLD_PLACE: OnceLock<String> = OnceLock::new();

/// A path as one word of a command line, to be pasted into a shell.
pub(super) fn shell(path: &Path) -> String {
    let text = printable(&path.display().to_string());
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A time as RFC 3339 in UTC; a dash for 0, which means "not known".
pub(super) fn time(at: i64) -> String {
    if at == 0 { "-".to_owned() } else { rfc_3339(at) }
}

/// How long ago that was, in the largest unit of which there are two; a dash for 0, which means "not known".
pub(super) fn age(at: i64, now: WallMillis) -> String {
    let seconds = now.millis_since(WallMillis::new(at)).div_euclid(1000);
    match seconds {
        _ if at == 0 => "-".to_owned(),
        // Another clock, or ours was set back.
        ..0 => "in the future".to_owned(),
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A time as RFC 3339 in UTC. Of times beyond the years 0 to 9999, which it cannot express, what comes out is no date.
pub(super) fn rfc_3339(at: i64) -> String {
    let (seconds, millis) = (WallMillis::new(at).as_secs(), at.rem_euclid(1000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years begin in March here, so that the day which not every year has is the last one; eras are 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_command_in_a_text_from_elsewhere_names_the_place() {
        for (text, placed) in [
            ("see `trustkeep pending 9`", "see `trustkeep pending --home HOME 9`"),
            ("look (trustkeep revoked --keys) and lift", "look (trustkeep revoked --home HOME --keys) and lift"),
            (
                "`trustkeep inspect`, and `trustkeep list`",
                "`trustkeep inspect --home HOME`, and `trustkeep list --home HOME`",
            ),
            // Named already, of another home, or no command.
            ("`trustkeep list --home h`", "`trustkeep list --home h`"),
            ("a new home (trustkeep init)", "a new home (trustkeep init)"),
            ("`--control-group` of `trustkeep node`", "`--control-group` of `trustkeep node`"),
            ("trustkeep is here", "trustkeep is here"),
            ("`trustkeep ", "`trustkeep "),
            ("`trustkeep `", "`trustkeep `"),
            ("", ""),
        ] {
            assert_eq!(with_place(text), placed, "{text}");
        }
    }

    /// Takes so many bytes.
    struct Room(usize);

    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_takes_no_more_is_no_failure_of_the_command_and_ends_the_printing() {
        let broken = OnceLock::new();
        write_to(Room(6), &broken, |out| out.write_all(b"enough")).unwrap();
        assert!(broken.get().is_none());
        write_to(Room(5), &broken, |out| out.write_all(b"enough")).unwrap();
        assert_eq!(broken.get().unwrap().kind(), io::ErrorKind::StorageFull);
        write_to(Room(9), &broken, |_| panic!("printed behind a gap")).unwrap();
        // Larger than any buffer: what writes hears of it, and need not go on.
        let (broken, mut went_on) = (OnceLock::new(), false);
        write_to(Room(0), &broken, |out| {
            out.write_all(&[b'x'; 1 << 20])?;
            went_on = true;
            Ok(())
        })
        .unwrap();
        assert!(broken.get().is_some() && !went_on);
        // What goes wrong before anything is written is one.
        let broken = OnceLock::new();
        assert!(write_to(Room(9), &broken, |_| Err(io::ErrorKind::BrokenPipe.into())).is_err());
        assert!(broken.get().is_none());
    }

    #[test]
    fn times_are_rfc_3339() {
        for (millis, text) in [
            (0, "-"),
            (1, "1970-01-01T00:00:00.001Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_772_532_000_123, "2026-03-03T10:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(millis), text);
        }
        // The ends of the range are no dates, but no panic either.
        assert!(!time(i64::MAX).is_empty() && !time(i64::MIN).is_empty());
    }

    #[test]
    fn ages_are_in_the_largest_unit_of_which_there_are_two() {
        let now = WallMillis::new(1_772_532_000_123);
        for (millis, text) in [
            (-1, "in the future"),
            (0, "0 s"),
            (119_999, "119 s"),
            (120_000, "2 min"),
            (7_199_999, "119 min"),
            (7_200_000, "2 h"),
            (172_799_999, "47 h"),
            (172_800_000, "2 d"),
            (1_772_532_000_122, "20515 d"),
        ] {
            assert_eq!(age(now.as_millis() - millis, now), text);
        }
        assert_eq!(age(0, now), "-");
        assert!(!age(i64::MAX, WallMillis::new(i64::MIN)).is_empty() && !age(i64::MIN, now).is_empty());
    }

    #[test]
    fn a_table_is_aligned_and_commands_no_terminal() {
        let mut out = Vec::new();
        let rows = [["1".to_owned(), "a\x1b[2J\u{202e}b".to_owned()], ["100".to_owned(), String::new()]];
        table(&mut out, "PEERS", ["ID", "WHY"], rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\nPEERS\n  ID   WHY\n  1    a\u{fffd}[2J\u{fffd}b\n  100\n");
    }

    #[test]
    fn a_row_that_is_wider_than_the_terminal_takes_several_lines_and_no_line_is_wider() {
        let of = |terminal, ids: &[&str]| {
            let mut table = Table::new("PEERS", ["ID", "SINCE", "FINGERPRINT"]);
            table.terminal = terminal;
            let mut out = Vec::new();
            for part in ids.chunks(2) {
                let cells = part.iter().map(|id| [(*id).to_owned(), "2026-03-03".to_owned(), "1a2b:".repeat(8)]);
                table.rows(&mut out, cells).unwrap();
            }
            String::from_utf8(out).unwrap()
        };
        let wide = of(None, &["1", "22", "333"]);
        assert_eq!(wide.lines().count(), 6, "{wide}");
        assert_eq!(of(Some(200), &["1", "22", "333"]), wide);
        let narrow = of(Some(50), &["1", "22", "333"]);
        let expected =
            "\nPEERS\n  ID  SINCE\n    FINGERPRINT\n  1   2026-03-03\n    1a2b:1a2b:1a2b:1a2b:1a2b:1a2b:1a2b:1a2b:\n";
        assert!(narrow.starts_with(expected), "{narrow}");
        assert!(narrow.contains("\n  333  2026-03-03\n"), "{narrow}");
        for columns in [1, 20, 21, 30, 43, 44, 50, 57, 58, 80] {
            let text = of(Some(columns), &["1", "4294967295"]);
            let columns = columns.max(ROOM_MIN);
            assert!(text.lines().all(|line| line.len() <= columns && !line.ends_with(' ')), "{columns}: {text}");
            let whole: String = text.split_whitespace().collect();
            assert_eq!(whole.matches(&"1a2b:".repeat(8)).count(), 2, "{columns}: {text}");
        }
    }
}
