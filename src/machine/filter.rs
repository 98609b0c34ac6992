//! Texts from strangers, made fit to be shown: nothing in a filtered text can move a cursor, hide or reorder what is
//! around it, or grow a table beyond its bound.
#![forbid(unsafe_code)]

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

use crate::config::TEXT_BYTES_MAX;

/// Keeps letters, marks, numbers, punctuation, symbols and the plain space; drops the rest without replacement; cuts
/// to [`TEXT_BYTES_MAX`] at a character boundary.
#[must_use]
pub fn filter(text: &str) -> String {
    let mut kept = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    for character in text.chars().filter(|&character| is_shown(character)) {
        if kept.len() + character.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        kept.push(character);
    }
    kept
}

/// What is left out: control and format characters (among them the bidirectional overrides), unassigned and private
/// ones, and every separator but the plain space.
fn is_shown(character: char) -> bool {
    use GeneralCategoryGroup as Group;
    // Most of most texts, without a search through the tables.
    if character.is_ascii() {
        return character == ' ' || character.is_ascii_graphic();
    }
    let group = character.general_category_group();
    matches!(group, Group::Letter | Group::Mark | Group::Number | Group::Punctuation | Group::Symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_for_ascii_says_what_the_tables_say() {
        use GeneralCategoryGroup as Group;
        for character in (0..=127_u8).map(char::from) {
            let group = character.general_category_group();
            let hidden = matches!(group, Group::Separator | Group::Other) && character != ' ';
            assert_eq!(is_shown(character), !hidden, "{character:?}");
        }
    }

    #[test]
    fn what_can_be_shown_stays_and_the_rest_goes_without_replacement() {
        let shown = "Grüße, नमस्ते ½ €5 <b>\"x\"</b> 👋 e\u{301}";
        assert_eq!(filter(shown), shown);
        for (hidden, name) in [
            ('\n', "newline"),
            ('\t', "tab"),
            ('\0', "nul"),
            ('\u{1b}', "escape"),
            ('\u{7f}', "delete"),
            ('\u{85}', "next line"),
            ('\u{a0}', "no-break space"),
            ('\u{200b}', "zero-width space"),
            ('\u{202e}', "right-to-left override"),
            ('\u{2028}', "line separator"),
            ('\u{2066}', "isolate"),
            ('\u{e000}', "private use"),
            ('\u{feff}', "byte order mark"),
            ('\u{fffe}', "noncharacter"),
            ('\u{e0041}', "tag"),
        ] {
            assert_eq!(filter(&format!("a{hidden}b")), "ab", "{name}");
        }
    }

    #[test]
    fn a_text_is_cut_after_filtering_at_a_character_boundary() {
        let full = "x".repeat(TEXT_BYTES_MAX);
        assert_eq!(filter(&full), full);
        assert_eq!(filter(&format!("{full}y")), full);
        assert_eq!(filter(&format!("\n\n{full}")), full, "what is dropped does not count");
        let almost = "x".repeat(TEXT_BYTES_MAX - 1);
        assert_eq!(filter(&format!("{almost}ü")), almost, "no half character");
        assert_eq!(filter(&format!("{almost}üy")), almost, "and nothing from behind the cut");
    }
}
