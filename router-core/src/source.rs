//! [`SourceText`]: a text of a route definition that remembers where it was written.

use std::fmt;
use std::ops::Range;
use std::panic::Location;
use std::sync::{Arc, OnceLock};

use smol_str::SmolStr;

/// A file of routes: its name as the user gave it, and its text.
#[derive(Debug)]
pub struct SourceFile {
    /// The name to print in errors.
    pub name: String,
    /// The whole text.
    pub text: String,
    /// Where each line begins. A file may have thousands of errors, and each has a place.
    line_starts: OnceLock<Vec<usize>>,
    /// How many characters begin in front of each block of bytes: all the errors may be in one line.
    characters: OnceLock<Vec<usize>>,
}

/// The size of a block of bytes of which the characters are counted once.
const BLOCK: usize = 1024;

impl SourceFile {
    /// A file of this name with this text.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
            line_starts: OnceLock::new(),
            characters: OnceLock::new(),
        }
    }

    /// `name:line:column` of a byte, both counted from 1, the column in characters.
    #[must_use]
    pub fn position(&self, byte: usize) -> String {
        let (line, _) = self.lines_of(&(byte..byte));
        format!("{}:{line}:{}", self.name, self.column(byte))
    }

    /// The column of a byte in its line, in characters from 1.
    pub(crate) fn column(&self, byte: usize) -> usize {
        let (_, line) = self.lines_of(&(byte..byte));
        self.characters_before(byte) - self.characters_before(line.start) + 1
    }

    fn characters_before(&self, byte: usize) -> usize {
        let count = |bytes: &[u8]| bytes.iter().filter(|byte| (**byte & 0xc0) != 0x80).count();
        let blocks = self.characters.get_or_init(|| {
            let sums = self.text.as_bytes().chunks(BLOCK).scan(0, |sum, block| {
                *sum += count(block);
                Some(*sum)
            });
            std::iter::once(0).chain(sums).collect()
        });
        let byte = byte.min(self.text.len());
        blocks[byte / BLOCK] + count(&self.text.as_bytes()[byte / BLOCK * BLOCK..byte])
    }

    /// The number of the first line of a range, counted from 1, and the bytes of all of its lines.
    pub(crate) fn lines_of(&self, range: &Range<usize>) -> (usize, Range<usize>) {
        let starts = self.line_starts.get_or_init(|| {
            let ends = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            std::iter::once(0).chain(ends.map(|(end, _)| end + 1)).collect()
        });
        let line = |byte: usize| starts.partition_point(|start| *start <= byte) - 1;
        let (first, last) = (line(range.start), line(range.end.max(range.start)));
        let end = starts.get(last + 1).copied().unwrap_or(self.text.len());
        (first + 1, starts[first]..end)
    }
}

/// A text from a front end (a URI, an expression, an id), and where it was written, so that an error
/// found in it much later can still point at the exact characters.
#[derive(Clone)]
pub struct SourceText {
    /// Inline where it is short, as most are: each route keeps all of its texts.
    value: SmolStr,
    origin: Origin,
}

/// Where a text was written.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// In a line of Rust: the call of the builder.
    Code(&'static Location<'static>),
    /// In a file of routes.
    #[cfg_attr(not(feature = "toml"), expect(dead_code, reason = "only the TOML front end reads files"))]
    File(Arc<FileOrigin>),
    /// At run time, for example by `to_dynamic`.
    Computed,
}

/// How the bytes of a value map to the bytes of the file.
#[derive(Debug)]
pub(crate) struct FileOrigin {
    pub(crate) file: Arc<SourceFile>,
    /// For each piece of the value, where it ends in the value and where it stands in the file. A piece
    /// that is as long as its place was copied byte for byte; any other (an escape sequence, a replaced
    /// variable) stands for its whole place.
    pub(crate) pieces: Vec<(usize, Range<usize>)>,
}

impl FileOrigin {
    /// The place in the file of `range` of the value.
    pub(crate) fn locate(&self, range: Range<usize>) -> Range<usize> {
        let start = self.locate_byte(range.start).start;
        let end = if range.is_empty() { start } else { self.locate_byte(range.end - 1).end };
        start..end.max(start)
    }

    fn locate_byte(&self, byte: usize) -> Range<usize> {
        let mut start = 0;
        for (end, place) in &self.pieces {
            if byte < *end {
                let copied = end - start == place.len();
                let offset = place.start + byte - start;
                return if copied { offset..offset + 1 } else { place.clone() };
            }
            start = *end;
        }
        let end = self.pieces.last().map_or(0, |(_, place)| place.end);
        end..end
    }
}

impl SourceText {
    /// Where the first placeholder is, in a text that has none.
    pub(crate) fn placeholder(&self) -> Option<Range<usize>> {
        let text = self.as_str();
        let start = text.find("${")?;
        let end = text[start..].find('}').map_or(text.len(), |length| start + length + 1);
        Some(start..end)
    }

    /// A text written in Rust, at the caller's line.
    #[must_use]
    #[track_caller]
    pub fn from_code(value: impl Into<SmolStr>) -> Self {
        Self { value: value.into(), origin: Origin::Code(Location::caller()) }
    }

    /// A text made at run time.
    #[must_use]
    pub fn computed(value: impl Into<SmolStr>) -> Self {
        Self { value: value.into(), origin: Origin::Computed }
    }

    /// A text read from `file`; see [`FileOrigin::pieces`].
    #[cfg(feature = "toml")]
    pub(crate) fn from_file(
        value: impl Into<SmolStr>,
        file: Arc<SourceFile>,
        pieces: Vec<(usize, Range<usize>)>,
    ) -> Self {
        Self { value: value.into(), origin: Origin::File(Arc::new(FileOrigin { file, pieces })) }
    }

    /// Where the text begins, `file:line:column`, if it was written anywhere.
    #[must_use]
    pub fn position(&self) -> Option<String> {
        match &self.origin {
            Origin::Code(location) => Some(location.to_string()),
            Origin::File(origin) => Some(origin.file.position(origin.locate(0..0).start)),
            Origin::Computed => None,
        }
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.value
    }

    pub(crate) fn shared(&self) -> SmolStr {
        self.value.clone()
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// Texts are equal that say the same, wherever they were written.
impl PartialEq for SourceText {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for SourceText {}

impl fmt::Debug for SourceText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(formatter)
    }
}

impl fmt::Display for SourceText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(formatter)
    }
}

/// The next boundary of a character at or before `byte`. The standard library has it since Rust 1.91.
#[must_use]
pub fn floor_char_boundary(text: &str, byte: usize) -> usize {
    (0..=byte.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_escapes_and_replaced_variables() {
        // The file has `"a\n${env:X}b"` from byte 10 on; the value is "a", a newline, "long", "b".
        let file = Arc::new(SourceFile::new("f", ""));
        let origin = FileOrigin { file, pieces: vec![(1, 11..12), (2, 12..14), (6, 14..22), (7, 22..23)] };
        assert_eq!(origin.locate(0..1), 11..12);
        assert_eq!(origin.locate(1..2), 12..14);
        assert_eq!(origin.locate(3..4), 14..22);
        assert_eq!(origin.locate(6..7), 22..23);
        assert_eq!(origin.locate(7..7), 23..23);
    }
}
