//! From the text of a file to its [`Table`], or all of its syntax errors.

use std::collections::HashSet;
use std::sync::Arc;

use ::toml::de::DeTable;

use super::tree::{Converter, Table};
use super::variables::Lookup;
use crate::error::{ConfigError, ConfigErrors};
use crate::source::SourceFile;

/// Parses a file. The table is `None` when the file is not TOML: what a parser recovers from broken
/// syntax would only give mistakes that nobody made.
pub(super) fn parse(file: &Arc<SourceFile>, lookup: Lookup<'_>) -> (Option<Table>, ConfigErrors) {
    let (document, found) = DeTable::parse_recoverable(&file.text);
    if found.is_empty() {
        let mut converter = Converter { file, lookup, errors: ConfigErrors::default() };
        let table = converter.table(document.get_ref());
        return (Some(table), converter.errors);
    }
    let mut errors = ConfigErrors::default();
    let mut lines = HashSet::new();
    for error in found {
        let place = error.span().unwrap_or(0..0);
        let start = floor(&file.text, place.start);
        let end = floor(&file.text, place.end.max(start));
        let line = file.text[..start].matches('\n').count();
        // One slip makes a parser stumble several times in its line: the first time is the slip.
        if lines.insert(line) {
            let message = match error.message() {
                // The parser takes `timer:x` for a misspelt `true`, by its first letter.
                text if text.starts_with("invalid boolean") && !is_boolean(&file.text[start..end]) => {
                    "string values must be quoted"
                }
                text => text,
            };
            errors.push(ConfigError::in_file(file, start..end, format!("not TOML: {message}")));
        }
    }
    (None, errors)
}

fn is_boolean(written: &str) -> bool {
    ["true", "false"].iter().any(|word| written.eq_ignore_ascii_case(word))
}

/// The next boundary of a character at or before `byte`.
fn floor(text: &str, byte: usize) -> usize {
    (0..=byte.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
