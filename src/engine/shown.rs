//! Text for a person, with the characters escaped that a terminal or a viewer would act on.
//!
//! Names, values and SQLite's own lines come from a file that another program may have written.
//! Escaped are the control characters (C0, DEL, C1), the line and paragraph separators, and the
//! characters that change the direction of text: `\n`, `\r`, `\t`, the others as `\u{1b}`. A
//! backslash stays as it is, so that escaping a text twice changes nothing. `lib/shown.js` has the
//! same rule.
//!
//! [`Error`](super::Error)'s own messages, the sentences of a finding and the text of a report go
//! through it. What is data for a program stays exact: `path`, a finding's names and lines, and
//! SQLite's own message of an error, as `node:sqlite` has it. Plain data: any thread.

use std::borrow::Cow;

/// Whether a terminal or a viewer acts on `letter` instead of showing it.
fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// `text` on one line, without a character that a terminal or a viewer would act on.
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '\n' | '\r' | '\t' => escaped.extend(letter.escape_default()),
            _ if is_unsafe(letter) => escaped.extend(letter.escape_unicode()),
            _ => escaped.push(letter),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_shown_as_it_is_or_escaped() {
        for letter in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let text = letter.to_string();
            let seen = shown(&text);
            let bidirectional = matches!(u32::from(letter), 0x61c | 0x200e..=0x200f | 0x202a..=0x202e | 0x2066..=0x2069);
            let separates = matches!(u32::from(letter), 0x2028..=0x2029);
            if letter.is_control() || bidirectional || separates {
                assert!(seen.starts_with('\\') && seen.chars().all(|it| it.is_ascii_graphic()));
            } else {
                assert_eq!(seen, text);
            }
        }
    }

    #[test]
    fn escaping_twice_changes_nothing() {
        let name = "a\u{1b}]52;c;x\u{7}\u{9b}2J\r\n\t\u{7f}\u{202e}C:\\new\\u{1b}";
        let once = shown(name);
        let escaped = r"a\u{1b}]52;c;x\u{7}\u{9b}2J\r\n\t\u{7f}\u{202e}C:\new\u{1b}";
        assert_eq!(once, escaped);
        assert_eq!(shown(&once), once);
        assert!(matches!(shown("Grüße ☃ 👩‍👩‍👧"), Cow::Borrowed(_)));
    }
}
