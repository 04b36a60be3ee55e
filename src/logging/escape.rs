//! What a message says is data: on a terminal it neither begins a line nor moves the cursor.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::lines::Lines;

/// Characters that act instead of being shown: control characters, among them those of C1, line and
/// paragraph separators, and what changes the direction of text. A tab is harmless.
fn acts(character: char) -> bool {
    match character {
        '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_control(),
    }
}

/// A text for people, on one line: a line feed becomes `\n`, an escape `\u{1b}`.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |character, text| text.extend(character.escape_default()))
}

/// As [`one_line`], for a text that is laid out in lines by the author of the route.
pub(super) fn lines(text: &str) -> String {
    text.split('\n').map(one_line).collect::<Vec<_>>().join("\n")
}

fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if acts(character) { escape(character, &mut escaped) } else { escaped.push(character) }
    }
    Cow::Owned(escaped)
}

/// A writer of lines of JSON. JSON itself escapes the control characters of ASCII alone; such a line may be
/// shown on a terminal too.
#[derive(Clone, Copy)]
pub(super) struct JsonLines;

impl Write for JsonLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            // The only control character outside of a text is the end of the line.
            Ok(text) if text.trim_end_matches('\n').contains(acts) => {
                let escaped = escaped(text.trim_end_matches('\n'), |character, text| {
                    // Writing into a string cannot fail. All of these have four digits at most.
                    let _ = write!(text, "\\u{:04x}", u32::from(character));
                });
                Lines.write_all(format!("{escaped}\n").as_bytes())?;
            }
            _ => Lines.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_escaped_and_all_else_is_as_it_is() {
        for (text, shown) in [
            ("plain, häuser, 日本, \t, C:\\new", "plain, häuser, 日本, \t, C:\\new"),
            ("a\nb\r\nc", "a\\nb\\r\\nc"),
            ("\u{1b}[2J\u{7}\u{0}\u{7f}", "\\u{1b}[2J\\u{7}\\u{0}\\u{7f}"),
            ("\u{9b}31m\u{85}\u{2028}\u{202e}", "\\u{9b}31m\\u{85}\\u{2028}\\u{202e}"),
        ] {
            assert_eq!(one_line(text), shown);
        }
        assert_eq!(lines("a\n  b\u{1b}"), "a\n  b\\u{1b}");
    }
}
