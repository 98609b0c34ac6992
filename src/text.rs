//! Texts of peers and operators, made fit to be kept and shown (R-6, R-135 to R-137).
//!
//! What must hold: only [`Text::filtered`] makes a [`Text`] that is not empty, so a `Text` is the proof that a filter ran.
//! Nothing in a `Text` moves a cursor, is invisible, looks like more than one blank, or reaches into other rows. The
//! filter looks at no more than [`LOOKED_AT_BYTES_MAX`] bytes, so its cost does not grow with a message.
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::{Deref, RangeInclusive};

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

use crate::config::TEXT_BYTES_MAX;

/// A filtered text of at most [`TEXT_BYTES_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Text(Box<str>);

impl Text {
    /// Filters a text from elsewhere, by R-6 and R-135 to R-137.
    ///
    /// A filtered text stays as it is when it is filtered again.
    ///
    /// # Complexity
    /// Looks at the first [`LOOKED_AT_BYTES_MAX`] bytes and no further, and allocates at most [`TEXT_BYTES_MAX`] bytes.
    ///
    /// # Examples
    /// ```
    /// use trustkeep::text::Text;
    /// assert_eq!(Text::filtered("  weather \u{200b} feed\u{202e}\n").as_str(), "weather feed");
    /// ```
    #[must_use]
    pub fn filtered(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
        // Marks that the next character may still have before it; none where there is nothing to bear them.
        let mut marks_left = 0;
        for (at, character) in text.char_indices() {
            if at + character.len_utf8() > LOOKED_AT_BYTES_MAX {
                break;
            }
            #[cfg(test)]
            tests::note(character.len_utf8());
            if !is_kept(character) {
                continue;
            }
            if character == ' ' {
                marks_left = 0;
                if kept.is_empty() || kept.ends_with(' ') {
                    continue;
                }
            } else if !joins(character) {
                marks_left = MARKS_MAX;
            } else if marks_left > 0 {
                marks_left -= 1;
            } else {
                continue;
            }
            if kept.len() + character.len_utf8() > TEXT_BYTES_MAX {
                break;
            }
            kept.push(character);
        }
        kept.truncate(kept.trim_end_matches(' ').len());
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

/// Whether a character has a place in a text: the plain space, and letters, marks, numbers, punctuation and symbols that
/// are seen.
///
/// Control and format characters (among them the bidirectional overrides), private and unassigned ones, and every other
/// separator have none.
pub(crate) fn is_kept(character: char) -> bool {
    use GeneralCategoryGroup as Group;
    // Most of most texts, without a search through the tables.
    if character.is_ascii() {
        return character == ' ' || character.is_ascii_graphic();
    }
    let group = character.general_category_group();
    matches!(group, Group::Letter | Group::Mark | Group::Number | Group::Punctuation | Group::Symbol)
        && !UNSEEN.iter().any(|unseen| unseen.contains(&character))
}

/// A text of any length on one line: what is not kept of others' texts, line breaks among it, has the replacement character in
/// its place. For names of files, texts in them, and errors that quote these.
#[must_use]
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|character| if is_kept(character) { character } else { '\u{fffd}' }).collect()
}

/// Whether a character is drawn onto the one before it: a mark, or a vowel or final consonant of a Hangul syllable.
pub(crate) fn joins(character: char) -> bool {
    !character.is_ascii()
        && (character.general_category_group() == GeneralCategoryGroup::Mark
            || matches!(character, '\u{1160}'..='\u{11ff}' | '\u{d7b0}'..='\u{d7ff}'))
}

/// How many bytes of a text the filter looks at: four times what it keeps.
pub const LOOKED_AT_BYTES_MAX: usize = 4 * TEXT_BYTES_MAX;

/// How many characters may be drawn onto one before them. Living scripts need three; stacks of more cover other rows.
pub const MARKS_MAX: usize = 4;

/// Characters that are letters, marks or symbols by category, and are not seen: first all ranges of the property
/// `Default_Ignorable_Code_Point` (Unicode 16, unassigned ones included), then what is blank or a mere instruction to a font.
const UNSEEN: [RangeInclusive<char>; 25] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}', // combining grapheme joiner
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}', // Hangul fillers
    '\u{17b4}'..='\u{17b5}', // Khmer inherent vowels
    '\u{180b}'..='\u{180f}', // Mongolian variation selectors
    '\u{200b}'..='\u{200f}',
    '\u{202a}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{3164}'..='\u{3164}', // Hangul filler
    '\u{fe00}'..='\u{fe0f}', // variation selectors
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}', // halfwidth Hangul filler
    '\u{fff0}'..='\u{fff8}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}', // tags, more variation selectors
    '\u{2800}'..='\u{2800}',   // braille blank
    '\u{2d7f}'..='\u{2d7f}',   // Tifinagh consonant joiner
    '\u{fffc}'..='\u{fffc}',   // object replacement character
    '\u{1107f}'..='\u{1107f}', // Brahmi number joiner
    '\u{13441}'..='\u{13442}', // Egyptian hieroglyph blanks
    '\u{16fe4}'..='\u{16fe4}', // Khitan small script filler
    '\u{1bc9d}'..='\u{1bc9d}', // Duployan letter selector
    '\u{1d159}'..='\u{1d159}', // musical symbol null notehead
];

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
            assert!(!joins(character) && group != Group::Mark);
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
    fn nothing_invisible_stays_and_nothing_that_only_looks_blank() {
        let ranges = [
            ('\u{3164}', '\u{3164}'),
            ('\u{115f}', '\u{1160}'),
            ('\u{ffa0}', '\u{ffa0}'),
            ('\u{2800}', '\u{2800}'),
            ('\u{17b4}', '\u{17b5}'),
            ('\u{fe00}', '\u{fe0f}'),
            ('\u{e0100}', '\u{e01ef}'),
            ('\u{180b}', '\u{180f}'),
            ('\u{34f}', '\u{34f}'),
            ('\u{ad}', '\u{ad}'),
            ('\u{61c}', '\u{61c}'),
            ('\u{200b}', '\u{200f}'),
            ('\u{2060}', '\u{206f}'),
            ('\u{1680}', '\u{1680}'),
            ('\u{2000}', '\u{200a}'),
            ('\u{3000}', '\u{3000}'),
            ('\u{fff0}', '\u{fffc}'),
            ('\u{1d159}', '\u{1d159}'),
            ('\u{1d173}', '\u{1d17a}'),
            ('\u{13441}', '\u{13442}'),
            ('\u{16fe4}', '\u{16fe4}'),
            ('\u{e0000}', '\u{e0fff}'),
        ];
        for hidden in ranges.into_iter().flat_map(|(first, last)| first..=last) {
            assert_eq!(filter(&format!("a{hidden}b")), "ab", "{hidden:?}");
            assert_eq!(filter(&format!("a {hidden} b")), "a b", "{hidden:?} keeps no two blanks apart");
            assert_eq!(filter(&format!("{hidden}\u{301}")), "", "{hidden:?} bears no mark");
        }
        // Their neighbours are seen.
        for shown in "\u{3163}\u{3165}\u{115e}\u{2801}\u{27ff}\u{ffa1}\u{fffd}\u{1d158}\u{1f44b}".chars() {
            assert_eq!(filter(&shown.to_string()), shown.to_string(), "{shown:?}");
        }
    }

    #[test]
    fn runs_of_blanks_are_one_blank_and_none_is_at_an_end() {
        assert_eq!(filter("   a  \t  b \u{a0}\u{3000} \u{200b} c    "), "a b c");
        assert_eq!(filter(&" ".repeat(5000)), "");
        let full = "x".repeat(TEXT_BYTES_MAX - 1);
        assert_eq!(filter(&format!("{full} y")), full, "the cut leaves no blank at the end");
        assert_eq!(filter("one two"), "one two");
    }

    #[test]
    fn no_character_bears_a_stack_and_nothing_bears_none() {
        let marks = "\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}";
        assert_eq!(filter(&format!("a{marks}b{marks}")), "a\u{301}\u{302}\u{303}\u{304}b\u{301}\u{302}\u{303}\u{304}");
        assert_eq!(filter(&format!("a\u{301}\u{302}\u{200b}\u{fe0f}{marks}")), "a\u{301}\u{302}\u{301}\u{302}");
        assert_eq!(filter(marks), "");
        assert_eq!(filter(&format!("a {marks}b")), "a b");
        // Vowels of Hangul are drawn onto their consonant, and so may be stacked as well.
        assert_eq!(filter(&format!("\u{1112}{}", "\u{1161}".repeat(9))), "\u{1112}\u{1161}\u{1161}\u{1161}\u{1161}");
        for (vowel, consonant) in [('\u{d7b0}', '\u{d7cb}'), ('\u{d7c6}', '\u{d7fb}')] {
            let stack = format!("{vowel}{consonant}");
            assert_eq!(filter(&format!("\u{1112}{}", stack.repeat(9))), format!("\u{1112}{stack}{stack}"));
            assert_eq!(filter(&stack), "", "nothing bears them");
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
        for (dropped, name) in
            [("\u{378}", "unassigned"), ("\u{200b}", "zero-width space"), ("\n", "newline"), (" ", "blank")]
        {
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
