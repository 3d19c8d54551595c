//! Untrusted text on a terminal: a generator's id may hold line feeds and escape sequences.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes characters that move the cursor, colour, reorder or hide: they become `\u{1b}`.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            // Writing into a String can't fail.
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Control characters (C0, DEL, C1), line and paragraph separators, direction marks, and zero-width characters.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_line_feeds_are_shown_and_not_done() {
        assert_eq!(printable("generator-7 «Süd» 発電機"), "generator-7 «Süd» 発電機");
        assert_eq!(printable("a\u{1b}]0;x\u{7}b\r\nc"), "a\\u{1b}]0;x\\u{7}b\\u{d}\\u{a}c");
        assert_eq!(printable("\u{9b}31m\u{7f}\u{202e}\u{200b}"), "\\u{9b}31m\\u{7f}\\u{202e}\\u{200b}");
    }
}
