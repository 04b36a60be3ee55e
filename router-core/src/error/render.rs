//! How errors of a configuration are printed: with their line, a caret, and the help.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{ConfigError, Place, Severity};
use crate::source::floor_char_boundary;

/// How many bytes of a line are shown in front of an error, and behind it.
const AROUND: usize = 200;

/// How many bytes of an error are marked at most.
const MARKED: usize = 2_000;

/// Stands for what is not shown of a line.
const CUT: &str = "...";

/// Prints errors. What one of them hides is shown by none.
pub(super) fn render(errors: &[ConfigError], renderer: &Renderer) -> String {
    let hidden = errors.iter().filter_map(|error| error.hidden.as_deref()).collect::<Vec<_>>();
    let printed = errors.iter().map(|error| render_one(error, &hidden, renderer));
    printed.collect::<Vec<_>>().join("\n\n")
}

fn render_one(error: &ConfigError, hidden: &[&Place], renderer: &Renderer) -> String {
    let level = match error.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(&error.message));
    // The renderer counts the column in what is left of a line that is cut.
    let mut moved = None;
    let caret = |range| AnnotationKind::Primary.span(range).label(&*error.label);
    match &error.place {
        Some(Place::File { file, range }) => {
            let (number, lines) = file.lines_of(range);
            let start = range.start;
            let (shown, range) = part(&file.text, &lines, range);
            let hidden = hidden.iter().filter_map(|place| match place {
                Place::File { file: other, range } if Arc::ptr_eq(file, other) => Some(range),
                _ => None,
            });
            let mut text = without(&file.text, &shown, hidden);
            let mut range = range.start - shown.start..range.end - shown.start;
            if shown.start > lines.start {
                text = Cow::Owned(format!("{CUT}{text}"));
                range = range.start + CUT.len()..range.end + CUT.len();
                let position = |column| format!("{}:{number}:{column}", file.name);
                let counted = text[..range.start].chars().count() + 1;
                moved = Some((position(counted), position(file.column(start))));
            }
            if shown.end < lines.end {
                text.to_mut().push_str(CUT);
            }
            let snippet = Snippet::source(text).line_start(number).path(&file.name);
            group = group.element(snippet.annotation(caret(range)));
        }
        Some(Place::Code { location, text, range }) => {
            if let Some(location) = location {
                let origin = Origin::path(location.file()).line(location.line() as usize);
                group = group.element(origin.char_column(location.column() as usize));
            }
            let hidden = hidden.iter().filter_map(|place| match place {
                Place::Code { text: other, range, .. } if text == other => Some(range),
                _ => None,
            });
            let text = without(text, &(0..text.len()), hidden);
            group = group.element(Snippet::source(text).annotation(caret(range.clone())));
        }
        None => {}
    }
    if let (Some(route), None | Some(Place::Code { .. })) = (&error.route, &error.place) {
        group = group.element(Level::NOTE.message(format!("in route `{}`", route.escape_debug())));
    }
    if let Some(help) = &error.help {
        group = group.element(Level::HELP.message(help));
    }
    let printed = renderer.render(&[group]);
    match (printed.find("-->"), moved) {
        (Some(arrow), Some((counted, position))) => {
            printed[..arrow].to_owned() + &printed[arrow..].replacen(&counted, &position, 1)
        }
        _ => printed,
    }
}

/// The part of `lines` that is shown for an error at `range`, and the part of `range` in it. The renderer looks at all
/// that it is given, and a line may be as long as the file, and full of errors.
fn part(text: &str, lines: &Range<usize>, range: &Range<usize>) -> (Range<usize>, Range<usize>) {
    let range = range.start..range.end.min(floor_char_boundary(text, range.start + MARKED));
    let start = floor_char_boundary(text, range.start.saturating_sub(AROUND)).max(lines.start);
    let end = floor_char_boundary(text, range.end.saturating_add(AROUND)).min(lines.end);
    (start..end, range)
}

/// Some bytes of a text, with asterisks for what is hidden, and for the password of each URL.
fn without<'t, 'r>(
    text: &'t str,
    shown: &Range<usize>,
    hidden: impl Iterator<Item = &'r Range<usize>>,
) -> Cow<'t, str> {
    let mut shown_text = Cow::Borrowed(&text[shown.clone()]);
    for range in hidden {
        let (start, end) = (range.start.max(shown.start), range.end.min(shown.end));
        if start < end {
            let range = start - shown.start..end - shown.start;
            let asterisks = "*".repeat(range.len());
            shown_text.to_mut().replace_range(range, &asterisks);
        }
    }
    for password in passwords(&shown_text) {
        let asterisks = "*".repeat(password.len());
        shown_text.to_mut().replace_range(password, &asterisks);
    }
    shown_text
}

/// Where the passwords are in URLs like `https://user:password@host`.
fn passwords(text: &str) -> Vec<Range<usize>> {
    let password = |(slashes, _)| {
        let start = slashes + 2;
        let ends =
            |letter: char| matches!(letter, '/' | '?' | '#' | '"' | '\'' | '`') || letter.is_whitespace();
        let authority = text[start..].split(ends).next()?;
        let (user, _) = authority.rsplit_once('@')?;
        let colon = user.find(':')?;
        Some(start + colon + 1..start + user.len())
    };
    text.match_indices("//").filter_map(password).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_is_not_shown() {
        let shown = |text: &str| without(text, &(0..text.len()), std::iter::empty()).into_owned();
        assert_eq!(shown("x = 'htps://me:hunter2@h/a:b@c'"), "x = 'htps://me:*******@h/a:b@c'");
        assert_eq!(shown("https://h/?a=postgres://me:p@w@h:1/"), "https://h/?a=postgres://me:***@h:1/");
        assert_eq!(shown("https://me@h:80/ // a:b 'c@d'"), "https://me@h:80/ // a:b 'c@d'");
    }

    /// The error at `bad` in a file of one line, as it is printed.
    fn printed(before: &str, after: &str) -> String {
        let text = format!("{before}bad{after}");
        let file = Arc::new(crate::source::SourceFile::new("r.toml", text));
        ConfigError::in_file(&file, before.len()..before.len() + 3, "wrong").to_string()
    }

    #[test]
    fn a_long_line_is_cut_around_the_error_and_keeps_its_column() {
        for (before, after) in [(0, 5_000), (5_000, 0), (5_000, 5_000), (201, 0), (0, 0), (3, 300)] {
            let printed = printed(&"ä".repeat(before), &"ö".repeat(after));
            assert!(printed.contains(&format!(" --> r.toml:1:{}\n", before + 1)), "{printed}");
            assert!(printed.contains("bad") && printed.contains("^^^"), "{printed}");
            assert!(printed.len() < 1_500, "{} bytes: {printed}", printed.len());
            let (marked, caret) = (printed.lines().nth(3).unwrap(), printed.lines().nth(4).unwrap());
            let column = |line: &str, what| line[..line.find(what).unwrap()].chars().count();
            assert_eq!(column(marked, "bad"), column(caret, "^^^"), "{printed}");
        }
    }

    #[test]
    fn all_errors_of_one_long_line_are_printed_in_linear_time() {
        let text = "bad ".repeat(20_000);
        let file = Arc::new(crate::source::SourceFile::new("r.toml", text.as_str()));
        let mut errors = super::super::ConfigErrors::default();
        for (start, _) in text.match_indices("bad") {
            errors.push(ConfigError::in_file(&file, start..start + 3, "wrong"));
        }
        let started = std::time::Instant::now();
        let printed = errors.to_string();
        assert_eq!(printed.matches("error: wrong").count(), 20_000);
        assert!(printed.contains("r.toml:1:79997\n"));
        assert!(started.elapsed() < std::time::Duration::from_secs(30), "{:?}", started.elapsed());
    }
}
