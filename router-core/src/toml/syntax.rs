//! From the text of a file to its [`Table`], or all of its syntax errors.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use ::toml::de::DeTable;

use super::tree::{Converter, Table};
use super::variables::Lookup;
use crate::error::{ConfigError, ConfigErrors};
use crate::source::{SourceFile, floor_char_boundary};

/// Parses a file. The table has what stands in tables without broken syntax. Tells also whether syntax is broken
/// somewhere.
pub(super) fn parse(file: &Arc<SourceFile>, lookup: Lookup<'_>) -> (Table, ConfigErrors, bool) {
    let mut converter = Converter { file, lookup, errors: ConfigErrors::default() };
    let (document, found) = DeTable::parse_recoverable(&file.text);
    if found.is_empty() {
        let table = converter.table(document.get_ref());
        return (table, converter.errors, false);
    }
    // A text or array that is not closed makes errors in all that follows: each table is read alone.
    let sections = sections(&file.text);
    let broken = sections.iter().map(|section| {
        let found = DeTable::parse_recoverable(&file.text[section.clone()]).1;
        found.iter().map(|error| slip(error, section.start)).collect::<Vec<_>>()
    });
    let broken = broken.collect::<Vec<_>>();
    let rest = without_broken(&file.text, &sections, &broken);
    // What is wrong between tables that are right alone is a name that stands twice: the parser reads on in
    // the table that had it first.
    let (document, twice) = DeTable::parse_recoverable(&rest);
    let mut found = broken.into_iter().flatten().collect::<Vec<_>>();
    found.extend(twice.iter().map(|error| slip(error, 0)));
    found.sort_by_key(|(place, _)| place.start);
    let mut errors = syntax_errors(file, found);
    let table = converter.table(document.get_ref());
    errors.extend(converter.errors);
    (table, errors, true)
}

/// Where the parser stumbled, and why. What it read began at byte `offset` of the file.
fn slip(error: &::toml::de::Error, offset: usize) -> (Range<usize>, String) {
    let place = error.span().unwrap_or(0..0);
    (place.start + offset..place.end.max(place.start) + offset, error.message().to_owned())
}

fn syntax_errors(file: &Arc<SourceFile>, found: Vec<(Range<usize>, String)>) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    let starts = line_starts(&file.text);
    let mut lines = HashSet::new();
    let other = other_language(&file.text);
    for (place, message) in found {
        let (start, end) =
            (floor_char_boundary(&file.text, place.start), floor_char_boundary(&file.text, place.end));
        let line = starts.partition_point(|begins| *begins <= start);
        // One slip makes a parser stumble several times in its line: the first time is the slip.
        if lines.insert(line) {
            let message = match message.as_str() {
                // The parser takes `timer:x` for a misspelt `true`, by its first letter.
                text if text.starts_with("invalid boolean") && !is_boolean(&file.text[start..end]) => {
                    "string values must be quoted"
                }
                text => text,
            };
            let error = ConfigError::in_file(file, start..end, format!("not TOML: {message}"));
            if let Some(language) = other {
                errors.push(error.help(format!("this looks like {language}; {TOML_HELP}")));
                break;
            }
            errors.push(error);
        }
    }
    errors
}

const TOML_HELP: &str = "routes are TOML: `[[route]]` and below it `from = \"timer:clock\"`";

/// The language of other programs for routes in which a file is, by its first line that says something.
fn other_language(text: &str) -> Option<&'static str> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    match text.chars().next() {
        Some('<') => Some("XML"),
        Some('{') => Some("JSON"),
        Some('[') if text[1..].trim_start().starts_with('{') => Some("JSON"),
        _ => is_yaml(text).then_some("YAML"),
    }
}

fn is_yaml(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let word = |line: &str| line.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    lines.next().is_some_and(|line| {
        let pair = line.split_once(':').is_some_and(|(key, rest)| {
            word(key.trim_start_matches("- ")) && (rest.is_empty() || rest.starts_with(' '))
        });
        line == "---" || line.starts_with("- ") || pair
    })
}

/// The tables of a file: each begins with the line of its header, and what stands in front is one too.
fn sections(text: &str) -> Vec<Range<usize>> {
    let is_header = |start: &usize| {
        let line = text[*start..].lines().next().unwrap_or_default();
        let line = line.split('#').next().unwrap_or_default().trim();
        let name = line.strip_prefix('[').map(|rest| rest.trim_start_matches('[')).unwrap_or_default();
        name.starts_with(|first: char| first.is_ascii_alphabetic())
            && line.ends_with(']')
            && !line.contains(',')
    };
    let headers = line_starts(text).into_iter().filter(|start| *start > 0 && is_header(start));
    let starts = std::iter::once(0).chain(headers).collect::<Vec<_>>();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// The text with blanks for what is broken, so that all else keeps its place.
fn without_broken<T>(text: &str, sections: &[Range<usize>], broken: &[Vec<T>]) -> String {
    let mut rest = String::with_capacity(text.len());
    let mut blank = false;
    for (section, errors) in sections.iter().zip(broken) {
        let section = &text[section.clone()];
        // `[route.error_handler]` belongs to the route in front of it.
        blank = !errors.is_empty() || (blank && section.lines().next().unwrap_or_default().contains('.'));
        if blank {
            rest.extend(section.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        } else {
            rest.push_str(section);
        }
    }
    rest
}

/// Where the lines of a text begin.
fn line_starts(text: &str) -> Vec<usize> {
    let newlines = text.match_indices('\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(newlines).filter(|start| *start < text.len().max(1)).collect()
}

fn is_boolean(written: &str) -> bool {
    ["true", "false"].iter().any(|word| written.eq_ignore_ascii_case(word))
}
