//! How errors of a configuration are printed: with their line, a caret, and the help.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{ConfigError, Place, Severity};

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
    let caret = |range| AnnotationKind::Primary.span(range).label(&*error.label);
    match &error.place {
        Some(Place::File { file, range }) => {
            let (number, shown) = file.lines_of(range);
            let hidden = hidden.iter().filter_map(|place| match place {
                Place::File { file: other, range } if Arc::ptr_eq(file, other) => Some(range),
                _ => None,
            });
            let text = without(&file.text, &shown, hidden);
            let range = range.start - shown.start..range.end - shown.start;
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
        group = group.element(Level::NOTE.message(format!("in route `{route}`")));
    }
    if let Some(help) = &error.help {
        group = group.element(Level::HELP.message(help));
    }
    renderer.render(&[group])
}

/// Some bytes of a text, with asterisks for what is hidden.
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
    shown_text
}
