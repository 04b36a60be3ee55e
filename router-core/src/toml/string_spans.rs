//! Which bytes of the file each byte of a string came from.

use std::ops::Range;

/// A stretch of a value: where it ends in the value, and where it stands in the file. See
/// [`FileOrigin::pieces`](crate::source::FileOrigin).
pub(super) type Piece = (usize, Range<usize>);

/// Maps the value of a TOML string to `source`, the text of its file, where it stands at `place` with
/// its quotes.
///
/// The parser has decoded the value already. It is walked here beside the source, so that nothing is
/// decoded twice: an escape sequence stands for whatever comes next in the value.
pub(super) fn map_string(source: &str, place: Range<usize>, value: &str) -> Vec<Piece> {
    let written = &source[place.clone()];
    let delimiter = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quotes| {
        written.len() >= 2 * quotes.len() && written.starts_with(quotes) && written.ends_with(quotes)
    });
    let delimiter = delimiter.unwrap_or_default();
    let mut at = place.start + delimiter.len();
    let end = place.end - delimiter.len();
    if delimiter.len() == 3 {
        at += ["\r\n", "\n"]
            .iter()
            .find(|newline| source[at..end].starts_with(**newline))
            .map_or(0, |n| n.len());
    }
    let escapes = delimiter.starts_with('"');
    let mut pieces = Pieces::new(at);
    let mut rest = value;
    while at < end && !rest.is_empty() {
        let sequence = if escapes { escape_length(&source[at..end]) } else { None };
        match sequence {
            Some(Sequence::Skipped(length)) => at += length,
            Some(Sequence::Character(length)) => {
                let decoded = rest.chars().next().map_or(0, char::len_utf8);
                pieces.replace(decoded, at..at + length);
                (at, rest) = (at + length, &rest[decoded..]);
            }
            None => {
                let length = source[at..end].chars().next().map_or(1, char::len_utf8);
                if source[at..end].get(..length) != rest.get(..length) {
                    break;
                }
                pieces.copy(at..at + length);
                (at, rest) = (at + length, &rest[length..]);
            }
        }
    }
    // Whatever the parser may decode in a way that is not foreseen above still points at its string.
    if !rest.is_empty() {
        pieces.replace(rest.len(), place);
    }
    pieces.into_list()
}

/// What a backslash begins.
enum Sequence {
    /// So many bytes stand for one character.
    Character(usize),
    /// So many bytes stand for nothing: a backslash at the end of a line, and the white space after it.
    Skipped(usize),
}

fn escape_length(source: &str) -> Option<Sequence> {
    let after = source.strip_prefix('\\')?;
    Some(match after.chars().next()? {
        'x' => Sequence::Character(4),
        'u' => Sequence::Character(6),
        'U' => Sequence::Character(10),
        ' ' | '\t' | '\r' | '\n' => {
            Sequence::Skipped(source.len() - after.trim_start_matches([' ', '\t', '\r', '\n']).len())
        }
        _ => Sequence::Character(2),
    })
}

/// The pieces of a value that is being put together.
pub(super) struct Pieces {
    list: Vec<Piece>,
    /// Where the last piece begins in the value.
    last_start: usize,
}

impl Pieces {
    /// For a value whose text begins at byte `start` of the file: an empty value stands there.
    pub(super) fn new(start: usize) -> Self {
        Self { list: vec![(0, start..start)], last_start: 0 }
    }

    /// The value goes on with these bytes of the file.
    pub(super) fn copy(&mut self, place: Range<usize>) {
        let length = self.length();
        if let Some((end, last)) = self.list.last_mut()
            && last.len() == *end - self.last_start
            && last.end == place.start
        {
            // One piece for each stretch without escapes, not one for each character.
            *end += place.len();
            last.end = place.end;
            return;
        }
        self.push(length + place.len(), place);
    }

    /// The value goes on with `length` bytes that stand for the whole of `place`.
    pub(super) fn replace(&mut self, length: usize, place: Range<usize>) {
        let end = self.length() + length;
        if length == place.len() && length > 1 {
            // One piece as long as its place would be taken for a copy of it.
            self.push(end - 1, place.clone());
        }
        if length > 0 {
            self.push(end, place);
        }
    }

    /// The value goes on with `range` of the value that `pieces` describe.
    pub(super) fn slice(&mut self, pieces: &[Piece], range: Range<usize>) {
        let mut start = 0;
        for (end, place) in pieces {
            let shared = start.max(range.start)..range.end.min(*end);
            if !shared.is_empty() {
                if end - start == place.len() {
                    let offset = place.start + shared.start - start;
                    self.copy(offset..offset + shared.len());
                } else {
                    self.replace(shared.len(), place.clone());
                }
            }
            start = *end;
        }
    }

    pub(super) fn into_list(self) -> Vec<Piece> {
        self.list
    }

    fn length(&self) -> usize {
        self.list.last().map_or(0, |(end, _)| *end)
    }

    fn push(&mut self, end: usize, place: Range<usize>) {
        self.last_start = self.length();
        self.list.push((end, place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Origin, SourceFile, SourceText};
    use std::sync::Arc;

    /// Reads the one value of `k = STRING` and returns, for each of its characters, the source of it.
    fn sources(source: &str) -> (String, Vec<String>) {
        let document = ::toml::de::DeTable::parse(source).unwrap();
        let node = document.get_ref().values().next().unwrap();
        let value = node.get_ref().as_str().unwrap();
        let pieces = map_string(source, node.span(), value);
        let file = Arc::new(SourceFile::new("f", source));
        let text = SourceText::from_file(value, file, pieces);
        let Origin::File(origin) = text.origin() else { panic!() };
        let characters = value
            .char_indices()
            .map(|(index, character)| source[origin.locate(index..index + character.len_utf8())].to_string());
        (value.to_string(), characters.collect())
    }

    #[test]
    fn every_character_knows_its_source() {
        let cases: &[(&str, &[&str])] = &[
            (r"k = 'a\nb'", &["a", r"\", "n", "b"]),
            (r#"k = "a\nb""#, &["a", r"\n", "b"]),
            (r#"k = "\u00e9\\x""#, &[r"\u00e9", r"\\", "x"]),
            (r#"k = "\U0001F600é\"""#, &[r"\U0001F600", "é", r#"\""#]),
            ("k = \"\"\"\na\\  \n  b\nc\"\"\"", &["a", "b", "\n", "c"]),
            ("k = \"\"\"a\"\"\"\"\"", &["a", "\"", "\""]),
            ("k = '''\n\\n'''", &[r"\", "n"]),
            ("k = \"\"\"\r\na\r\nb\"\"\"", &["a", "\r", "\n", "b"]),
        ];
        for (source, expected) in cases {
            let (value, found) = sources(source);
            assert_eq!(found, *expected, "{source} gives {value:?}");
        }
    }

    #[test]
    fn an_empty_value_stands_between_its_quotes() {
        for (source, start) in [("k = \"\"", 5), ("k = ''", 5), ("k = \"\"\"\n\"\"\"", 8)] {
            let document = ::toml::de::DeTable::parse(source).unwrap();
            let place = document.get_ref().values().next().unwrap().span();
            assert_eq!(map_string(source, place, ""), [(0, start..start)], "{source:?}");
        }
    }

    #[test]
    fn stretches_without_escapes_are_one_piece() {
        assert_eq!(map_string("'abc'", 0..5, "abc"), [(3, 1..4)]);
        assert_eq!(map_string(r#""ab\nc""#, 0..7, "ab\nc"), [(2, 1..3), (3, 3..5), (4, 5..6)]);
    }
}
