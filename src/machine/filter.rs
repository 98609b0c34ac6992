//! Texts from strangers, made fit to be shown: nothing in a filtered text can move a cursor, hide or reorder what is
//! around it, or grow a table beyond its bound.
#![forbid(unsafe_code)]

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

use crate::config::TEXT_BYTES_MAX;

/// Keeps letters, marks, numbers, punctuation, symbols and the plain space; drops the rest without replacement; cuts
/// to [`TEXT_BYTES_MAX`] at a character boundary.
#[must_use]
pub fn filter(text: &str) -> String {
    let mut kept = String::new();
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
    let group = character.general_category_group();
    let shown = matches!(group, Group::Letter | Group::Mark | Group::Number | Group::Punctuation | Group::Symbol);
    shown || character == ' '
}
