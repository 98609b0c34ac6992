//! Texts of peers and operators, made fit to be kept and shown (R-6, R-135).
//!
//! What must hold: only [`Text::filtered`] makes a [`Text`] that is not empty, so a `Text` is the proof that a filter ran.
//! Nothing in a `Text` moves a cursor. The filter looks at no more than [`LOOKED_AT_BYTES_MAX`] bytes, so its cost does not
//! grow with a message.
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Deref;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

use crate::config::TEXT_BYTES_MAX;

/// A filtered text of at most [`TEXT_BYTES_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Text(Box<str>);

impl Text {
    /// Filters a text from elsewhere, by R-6.
    ///
    /// A filtered text stays as it is when it is filtered again.
    ///
    /// # Complexity
    /// Looks at the first [`LOOKED_AT_BYTES_MAX`] bytes and no further, and allocates at most [`TEXT_BYTES_MAX`] bytes.
    ///
    /// # Examples
    /// ```
    /// use trustkeep::wire::text::Text;
    /// assert_eq!(Text::filtered("weather\u{200b} feed\u{202e}\n").as_str(), "weather feed");
    /// ```
    #[must_use]
    pub fn filtered(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
        for (at, character) in text.char_indices() {
            if at + character.len_utf8() > LOOKED_AT_BYTES_MAX {
                break;
            }
            #[cfg(test)]
            tests::note(character.len_utf8());
            if !is_kept(character) {
                continue;
            }
            if kept.len() + character.len_utf8() > TEXT_BYTES_MAX {
                break;
            }
            kept.push(character);
        }
        Self(kept.into_boxed_str())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, for an entry, an event or a draft. Does not copy it.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0.into_string()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::filtered(text)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a character has a place in a text: the plain space, and letters, marks, numbers, punctuation and symbols.
///
/// Control and format characters (among them the bidirectional overrides), private and unassigned ones, and every other
/// separator have none.
fn is_kept(character: char) -> bool {
    use GeneralCategoryGroup as Group;
    // Most of most texts, without a search through the tables.
    if character.is_ascii() {
        return character == ' ' || character.is_ascii_graphic();
    }
    let group = character.general_category_group();
    matches!(group, Group::Letter | Group::Mark | Group::Number | Group::Punctuation | Group::Symbol)
}

/// How many bytes of a text the filter looks at: four times what it keeps.
pub const LOOKED_AT_BYTES_MAX: usize = 4 * TEXT_BYTES_MAX;

#[cfg(test)]
pub(crate) mod tests {
    use core::cell::Cell;

    use super::*;

    thread_local! {
        static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn note(bytes: usize) {
        LOOKED_AT.set(LOOKED_AT.get() + bytes);
    }

    /// How many bytes the filter has looked at so far, on this thread.
    pub(crate) fn looked_at() -> usize {
        LOOKED_AT.get()
    }

    fn filter(text: &str) -> String {
        let filtered = Text::filtered(text);
        assert_eq!(Text::filtered(&filtered), filtered, "filtering once is enough");
        filtered.into_string()
    }

    #[test]
    fn the_short_way_for_ascii_says_what_the_tables_say() {
        use GeneralCategoryGroup as Group;
        for character in (0..=127_u8).map(char::from) {
            let group = character.general_category_group();
            let hidden = matches!(group, Group::Separator | Group::Other) && character != ' ';
            assert_eq!(is_kept(character), !hidden, "{character:?}");
        }
    }

    #[test]
    fn what_can_be_shown_stays_and_the_rest_goes_without_replacement() {
        let shown = "Grüße, नमस्ते ½ €5 <b>\"x\"</b> 👋 e\u{301} Việt ក្រុម မြန်မာ ไทย שָׁלוֹם 한\u{1112}\u{1161}\u{11ab}";
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

    #[test]
    fn the_filter_looks_at_four_times_what_it_keeps_and_no_further() {
        for (dropped, name) in [("\u{378}", "unassigned"), ("\u{200b}", "zero-width space"), ("\n", "newline")] {
            let before = looked_at();
            let many = dropped.repeat(60_000 / dropped.len());
            assert_eq!(Text::filtered(&format!("{many}behind")).as_str(), "", "{name}");
            let bytes = looked_at() - before;
            assert!(bytes > LOOKED_AT_BYTES_MAX - 4 && bytes <= LOOKED_AT_BYTES_MAX, "{name}: {bytes} bytes");
        }
        // What stands within the bound is seen, and not half of a character at its end.
        let hidden = "\n".repeat(LOOKED_AT_BYTES_MAX - 2);
        assert_eq!(filter(&format!("{hidden}ü")), "ü");
        assert_eq!(filter(&format!("{hidden}xü")), "x");
    }
}
