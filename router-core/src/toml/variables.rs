//! `${env:NAME}` and `${env:NAME:-default}`: environment variables in strings.

use std::env::VarError;
use std::ops::Range;

use super::string_spans::{Piece, Pieces};
use crate::secret::variable_error;

/// Finds an environment variable; a parameter, so that tests have an environment of their own.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Result<String, VarError>;

/// Where a replacement begins. Escaped as `\${env:`, it is left for the expression, in which that is a
/// literal `${env:`.
const OPEN: &str = "${env:";

/// What is wrong with a replacement, and where in the value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct VariableError {
    pub(super) range: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Replaces the variables in `value`. Errors leave their place in the value empty.
pub(super) fn replace(
    value: &str,
    pieces: Vec<Piece>,
    lookup: Lookup<'_>,
) -> (String, Vec<Piece>, Vec<VariableError>) {
    let (mut text, mut errors) = (String::new(), Vec::new());
    let mut replaced = Pieces::new(pieces.first().map_or(0, |(_, place)| place.start));
    let mut done = 0;
    while let Some(start) = find(value, done) {
        // Two backslashes in front stand for one.
        let kept = start - backslashes(&value[done..start]) / 2;
        text.push_str(&value[done..kept]);
        replaced.slice(&pieces, done..kept);
        let inside = start + OPEN.len();
        let Some(length) = value[inside..].find('}') else {
            errors.push(VariableError {
                range: start..value.len(),
                message: "`${env:` without its `}`".into(),
                help: Some("write `${env:NAME}` or `${env:NAME:-default}`".into()),
            });
            return (text, replaced.into_list(), errors);
        };
        done = inside + length + 1;
        match resolve(&value[inside..inside + length], lookup) {
            Ok(found) => {
                text.push_str(&found);
                replaced.replace(found.len(), place(&pieces, start..done));
            }
            Err((message, help)) => errors.push(VariableError { range: start..done, message, help }),
        }
    }
    text.push_str(&value[done..]);
    replaced.slice(&pieces, done..value.len());
    (text, replaced.into_list(), errors)
}

/// Where the next replacement begins, from byte `from` on.
fn find(value: &str, mut from: usize) -> Option<usize> {
    loop {
        let start = from + value[from..].find(OPEN)?;
        if backslashes(&value[..start]).is_multiple_of(2) {
            return Some(start);
        }
        from = start + OPEN.len();
    }
}

/// How many backslashes a text ends with.
fn backslashes(text: &str) -> usize {
    text.len() - text.trim_end_matches('\\').len()
}

fn resolve(inside: &str, lookup: Lookup<'_>) -> Result<String, (String, Option<String>)> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let sound = !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit());
    if !sound || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let help = "write `${env:NAME}` or `${env:NAME:-default}`";
        return Err((format!("`{name}` is not the name of an environment variable"), Some(help.into())));
    }
    match (lookup(name), default) {
        // As in a shell, `:-` also stands in for a variable that is set but empty.
        (Ok(text), Some(default)) if text.is_empty() => Ok(default.into()),
        (Ok(text), _) => Ok(text),
        (Err(VarError::NotPresent), Some(default)) => Ok(default.into()),
        (Err(error), _) => {
            let help = format!("set it, or give a default: `${{env:{name}:-default}}`");
            Err((variable_error(name, &error), (error == VarError::NotPresent).then_some(help)))
        }
    }
}

/// The stretch of the file from the first to the last byte of a range of the value.
fn place(pieces: &[Piece], range: Range<usize>) -> Range<usize> {
    let mut part = Pieces::new(0);
    part.slice(pieces, range);
    let list = part.into_list();
    let places = || list.iter().filter(|(end, _)| *end > 0).map(|(_, place)| place);
    places().next().map_or(0, |first| first.start)..places().next_back().map_or(0, |last| last.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Result<String, VarError> {
        match name {
            "WHO" => Ok("world".into()),
            "TEN" => Ok("0123456789".into()),
            "EMPTY" => Ok(String::new()),
            "LATIN" => Err(VarError::NotUnicode("value".into())),
            _ => Err(VarError::NotPresent),
        }
    }

    /// A value that was copied from byte 100 of its file on.
    fn replaced(value: &str) -> (String, Vec<Piece>, Vec<VariableError>) {
        replace(value, vec![(value.len(), 100..100 + value.len())], &lookup)
    }

    #[test]
    fn a_variable_stands_for_its_whole_place() {
        let (text, pieces, errors) = replaced("a ${env:WHO} b");
        assert_eq!((text.as_str(), errors.len()), ("a world b", 0));
        assert_eq!(pieces, [(2, 100..102), (7, 102..112), (9, 112..114)]);
    }

    #[test]
    fn a_value_as_long_as_its_place_is_not_taken_for_a_copy() {
        let (_, pieces, _) = replaced("${env:TEN}");
        assert_eq!(pieces, [(0, 100..100), (9, 100..110), (10, 100..110)]);
    }

    #[test]
    fn defaults_serve_for_missing_and_empty_variables() {
        assert_eq!(replaced("${env:NO:-x:-y}${env:EMPTY:-z}${env:WHO:-}${env:NO:-}").0, "x:-yzworld");
        assert_eq!(replaced("[${env:EMPTY}]").0, "[]");
    }

    #[test]
    fn escaped_replacements_stay() {
        assert_eq!(replaced("\\${env:WHO} ${body}").0, "\\${env:WHO} ${body}");
        assert_eq!(replaced(r"C:\\${env:WHO}\\\${env:WHO}").0, r"C:\world\\\${env:WHO}");
    }

    #[test]
    fn a_variable_that_is_not_text_is_set() {
        for text in ["${env:LATIN}", "${env:LATIN:-default}"] {
            let (_, _, errors) = replaced(text);
            let message = "the value of the environment variable `LATIN` is not UTF-8".to_owned();
            assert_eq!(errors, [VariableError { range: 0..text.len(), message, help: None }]);
        }
    }

    #[test]
    fn errors_are_all_reported_with_their_place() {
        let (text, _, errors) = replaced("a${env:NO}b${env:}c${env:WHO");
        assert_eq!(text, "abc");
        let found = errors.iter().map(|error| (error.range.clone(), error.message.as_str()));
        assert_eq!(
            found.collect::<Vec<_>>(),
            [
                (1..10, "the environment variable `NO` is not set"),
                (11..18, "`` is not the name of an environment variable"),
                (19..28, "`${env:` without its `}`"),
            ]
        );
    }
}
