//! Percent escapes: how they are read, exactly once, and how a value is written so that reading gives it back.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// How a part of a URI is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is: it stands beside the URI, in a table.
    None,
    /// With `%XX`: the path.
    Percent,
    /// With `%XX`, and `+` for a space: the value of an option.
    Form,
}

/// An escape `%XX` in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escape {
    /// Its bytes in the path as written.
    pub written: Range<usize>,
    /// The byte of the decoded path that it gives.
    pub decoded: usize,
}

/// Everything that has a meaning somewhere is escaped; RFC 3986 calls the rest unreserved.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A value as it stands in a path, in an option or in the query of a URL.
pub(crate) fn encode(value: &str) -> Cow<'_, str> {
    utf8_percent_encode(value, VALUE).into()
}

/// Reads a part, or tells which bytes of it give no UTF-8.
pub(crate) fn decode(text: &str, encoding: Encoding) -> Result<Cow<'_, str>, Range<usize>> {
    let spaced = match encoding {
        Encoding::None => return Ok(text.into()),
        Encoding::Form if text.contains('+') => Cow::Owned(text.replace('+', " ")),
        Encoding::Percent | Encoding::Form => Cow::Borrowed(text),
    };
    let bytes = |error: std::str::Utf8Error| {
        let start = error.valid_up_to();
        written(text, &(start..start + error.error_len().unwrap_or(1)))
    };
    match spaced {
        Cow::Borrowed(text) => percent_decode_str(text).decode_utf8().map_err(bytes),
        Cow::Owned(text) => {
            let decoded = percent_decode_str(&text).decode_utf8().map_err(bytes)?;
            Ok(Cow::Owned(decoded.into_owned()))
        }
    }
}

/// The escapes of a text.
pub(super) fn escapes(text: &str) -> Vec<Escape> {
    let (mut found, mut place, mut decoded) = (Vec::new(), 0, 0);
    while place < text.len() {
        let length = length_at(text, place);
        if length > 1 {
            found.push(Escape { written: place..place + length, decoded });
        }
        place += length;
        decoded += 1;
    }
    found
}

/// The escapes of the value of an option, in which `+` is one as well.
pub(super) fn form_escapes(text: &str) -> Vec<(&str, usize)> {
    let (mut found, mut place, mut decoded) = (Vec::new(), 0, 0);
    while place < text.len() {
        let length = length_at(text, place);
        if length > 1 || text.as_bytes()[place] == b'+' {
            found.push((&text[place..place + length], decoded));
        }
        place += length;
        decoded += 1;
    }
    found
}

/// Which bytes of a text with `%XX` stand for the given bytes of the decoded one.
pub(super) fn written(text: &str, decoded: &Range<usize>) -> Range<usize> {
    let (mut place, mut index, mut start) = (0, 0, text.len());
    while place < text.len() && index < decoded.end {
        if index == decoded.start {
            start = place;
        }
        place += length_at(text, place);
        index += 1;
    }
    start.min(place)..place
}

/// How many bytes of the written text give the next byte.
fn length_at(text: &str, place: usize) -> usize {
    let bytes = text.as_bytes();
    let digits = bytes.get(place + 1..place + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if bytes[place] == b'%' && digits.is_some() { 3 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_decoded_text_are_found_in_the_written_one() {
        for (text, decoded, place) in
            [("a%20b", 2..3, 4..5), ("a%20b", 1..2, 1..4), ("a%b", 1..2, 1..2), ("a%20", 0..2, 0..4)]
        {
            assert_eq!(written(text, &decoded), place, "{text}");
        }
        assert_eq!(written("ab", &(2..2)), 2..2);
    }

    #[test]
    fn escapes_are_decoded_once_and_must_give_text() {
        let percent = |text| decode(text, Encoding::Percent);
        assert_eq!(percent("%2541").unwrap(), "%41");
        assert_eq!(percent("a%20b+c%zz 100%").unwrap(), "a b+c%zz 100%");
        assert_eq!(decode("a+b%2B", Encoding::Form).unwrap(), "a b+");
        assert_eq!(decode("a+b%2B", Encoding::None).unwrap(), "a+b%2B");
        assert_eq!(percent("like '%bad%'"), Err(6..9));
        assert_eq!(decode("a+%ff", Encoding::Form), Err(2..5));
        assert_eq!(percent("%e4").unwrap_err(), 0..3);
    }

    #[test]
    fn escapes_know_what_they_stand_for() {
        let found = escapes("a%20é%25x%2");
        let found = found.iter().map(|escape| (escape.written.clone(), escape.decoded)).collect::<Vec<_>>();
        assert_eq!(found, [(1..4, 1), (6..9, 4)]);
        assert_eq!(form_escapes("a%20+é+"), [("%20", 1), ("+", 2), ("+", 5)]);
    }

    #[test]
    fn what_is_encoded_is_decoded_to_the_same_text() {
        for text in ["", "a/b?c&d=e#f%41+ ", "..", "ä\0\n${body}", "%ff"] {
            let written = encode(text);
            assert!(!written.contains(['/', '?', '&', '=', '#', '+', ' ', '$', ':']), "{written}");
            assert_eq!(decode(&written, Encoding::Percent).unwrap(), text);
            assert_eq!(decode(&written, Encoding::Form).unwrap(), text);
        }
    }
}
