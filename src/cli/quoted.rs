//! Texts of peers, shown so that none can be taken for anything else.
//!
//! What must hold: a text stands in quotes on lines of its own. Each line begins with [`INDENT`], a name and a bar, as no row
//! does, and is no wider than the terminal, so a terminal wraps none of them and no part of a text begins a line. Widths
//! are counted too wide rather than too narrow, because terminals disagree about them.
#![forbid(unsafe_code)]

use std::io;

use crate::wire::text::{Text, joins};

/// The text as lines, each with `name` before it; none for an empty text.
///
/// A line has at most `columns` columns, or as many as its beginning and [`ROOM_MIN`] take. The name is Latin letters, so
/// that a terminal which orders a line by its first letter does not turn the line around.
pub(super) fn lines(name: &str, text: &str, columns: usize) -> Vec<String> {
    let begin = format!("{INDENT}{name} | \"");
    let room = columns.saturating_sub(begin.len() + 1).max(ROOM_MIN);
    pieces(&Text::filtered(text), room).into_iter().map(|piece| format!("{begin}{piece}\"")).collect()
}

/// How wide a line with a text may be: what the terminal has, but no more than [`COLUMNS_MAX`], because a window may be made
/// narrower, and what is printed may be piped or copied into another.
pub(super) fn columns() -> usize {
    let terminal = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
    // A terminal that does not know its width says 0.
    if terminal == 0 { COLUMNS_MAX } else { terminal.min(COLUMNS_MAX) }
}

/// The text, escaped, in pieces of at most this width; broken behind a blank where one is near enough.
fn pieces(text: &Text, room: usize) -> Vec<String> {
    let (mut pieces, mut piece, mut width) = (Vec::new(), String::new(), 0);
    // Behind the last blank of the piece: where, and how wide the piece is up to there.
    let mut blank = None;
    let mut characters = text.chars().peekable();
    while let Some(base) = characters.next() {
        // What is drawn onto a character stays with it.
        let mut cluster = String::new();
        if matches!(base, '"' | '\\') {
            cluster.push('\\');
        }
        cluster.push(base);
        let mut cluster_width = if cluster.is_ascii() { cluster.len() } else { wide(base) };
        while let Some(mark) = characters.next_if(|&next| joins(next)) {
            cluster.push(mark);
            cluster_width += 1;
        }
        if width + cluster_width > room {
            let rest = match blank.take() {
                Some((at, before)) if before > room / 2 => {
                    width -= before;
                    piece.split_off(at)
                }
                _ => {
                    width = 0;
                    String::new()
                }
            };
            pieces.push(core::mem::replace(&mut piece, rest));
        }
        piece.push_str(&cluster);
        width += cluster_width;
        if base == ' ' {
            blank = Some((piece.len(), width));
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// The most columns that any terminal gives to a character beyond ASCII.
const fn wide(character: char) -> usize {
    // The two-em and the three-em dash.
    if matches!(character, '\u{2e3a}' | '\u{2e3b}') { 3 } else { 2 }
}

/// More than any row is indented by.
pub(super) const INDENT: &str = "      ";
/// A narrower terminal has no room for a text.
const ROOM_MIN: usize = 16;
const COLUMNS_MAX: usize = 60;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    /// What a terminal of so many columns makes of these lines, where every character beyond ASCII takes `beyond` columns.
    fn wrapped(lines: &[String], columns: usize, beyond: usize) -> Vec<String> {
        let mut screen = Vec::new();
        for line in lines {
            let (mut row, mut width) = (String::new(), 0);
            for character in line.chars() {
                let takes = match character {
                    mark if joins(mark) => 0,
                    character if character.is_ascii() => 1,
                    _ => beyond,
                };
                if width + takes > columns {
                    screen.push(core::mem::take(&mut row));
                    width = 0;
                }
                row.push(character);
                width += takes;
            }
            screen.push(row);
        }
        screen
    }

    fn hostile() -> Vec<String> {
        let row = "9  2026-03-03T10:00:00.000Z  5 s  192.0.2.1  yes  1a2b:3c4d  request  peer 9 VOUCHED yes";
        let mut texts = vec![row.to_owned(), "x".repeat(1024), "\"".repeat(500), "\\".repeat(500)];
        for columns in [60, 80, 200] {
            for used in 0..24 {
                // To the column at which a terminal wraps: by blanks, by long words, by what only looks blank, by wide and by
                // ambiguous characters, by stacks, and from right to left.
                let left = columns - used;
                texts.push(format!("{}{row}", " ".repeat(left)));
                texts.push(format!("{} {row}", "y".repeat(left)));
                texts.push(format!("{}{row}", ". ".repeat(left / 2)));
                texts.push(format!("{}{row}", "\u{2800}".repeat(left)));
                texts.push(format!("{} {row}", "漢".repeat(left / 2)));
                texts.push(format!("{} {row}", "\u{a1}".repeat(left)));
                texts.push(format!("{} {row}", "e\u{301}\u{301}\u{301}\u{301}\u{301}".repeat(left / 2)));
                texts.push(format!("{} {row}", "\u{200b}א".repeat(left)));
                texts.push(format!("{}\u{202e}{row}", "\u{3000}".repeat(left)));
                texts.push(format!("{}\r\n{row}", "z".repeat(left)));
            }
        }
        texts
    }

    #[test]
    fn no_part_of_a_text_begins_a_line_at_60_80_or_200_columns() {
        for text in hostile() {
            let shown = lines("why", &text, COLUMNS_MAX);
            for (columns, beyond) in [(60, 1), (60, 2), (80, 1), (80, 2), (200, 1), (200, 2)] {
                for line in wrapped(&shown, columns, beyond) {
                    assert!(
                        line.starts_with("      why | \"") && line.ends_with('"'),
                        "{columns}: {line:?} of {text:?}"
                    );
                }
            }
            // Nothing is lost, and nothing but the text is between the quotes.
            let inner: String =
                shown.iter().map(|line| &line["      why | \"".len()..line.len() - 1]).collect::<Vec<_>>().concat();
            let escaped = Text::filtered(&text).replace('\\', "\\\\").replace('"', "\\\"");
            assert_eq!(inner, escaped);
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for columns in [40, 44, 59, 60, 80, 200] {
            for text in hostile() {
                let shown = lines("why", &text, columns);
                assert_eq!(wrapped(&shown, columns, 2), shown, "{columns}");
            }
        }
        assert!((1..=COLUMNS_MAX).contains(&columns()));
    }

    #[test]
    fn a_short_text_is_one_line_and_an_empty_one_none() {
        assert_eq!(lines("why", "weather feed", 60), ["      why | \"weather feed\""]);
        assert_eq!(lines("why", "", 60), [""; 0]);
        assert_eq!(lines("why", " \u{3164}\n", 60), [""; 0]);
        assert_eq!(lines("why", "say \"yes\" \\ \u{202e}no", 60), ["      why | \"say \\\"yes\\\" \\\\ no\""]);
    }

    #[test]
    fn a_text_is_broken_between_words_and_never_between_a_character_and_its_marks() {
        let words = "we share a warehouse and would like to read your weather feed";
        let shown =
            ["      why | \"we share a warehouse and would like to read \"", "      why | \"your weather feed\""];
        assert_eq!(lines("why", words, 60), shown);
        for before in 0..60 {
            let text = format!("{}e\u{301}\u{302}\u{303}{}", "x".repeat(before), "y".repeat(60));
            let shown = lines("why", &text, 60);
            assert!(shown.iter().any(|line| line.contains("e\u{301}\u{302}\u{303}")), "{shown:?}");
        }
    }
}
