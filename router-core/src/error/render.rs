//! How errors of a configuration are printed: with their line, a caret, and the help.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{ConfigError, Place};
use crate::source::SourceFile;

/// Prints errors. What one of them hides is shown by none.
pub(super) fn render(errors: &[ConfigError], renderer: &Renderer) -> String {
    let mut lines = Lines::default();
    let hidden = errors.iter().filter_map(|error| error.hidden.as_deref()).collect::<Vec<_>>();
    let printed = errors.iter().map(|error| render_one(error, &mut lines, &hidden, renderer));
    printed.collect::<Vec<_>>().join("\n\n")
}

fn render_one(error: &ConfigError, lines: &mut Lines, hidden: &[&Place], renderer: &Renderer) -> String {
    let mut group = Group::with_title(Level::ERROR.primary_title(&error.message));
    let caret = |range| AnnotationKind::Primary.span(range).label(&*error.label);
    match &error.place {
        Some(Place::File { file, range }) => {
            let (number, shown) = lines.around(file, range);
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

/// Where the lines of files begin, so that each error finds its own without reading the file again.
#[derive(Default)]
struct Lines {
    starts: HashMap<*const SourceFile, Vec<usize>>,
}

impl Lines {
    /// The number of the first line of a range, and the bytes of all of its lines.
    fn around(&mut self, file: &Arc<SourceFile>, range: &Range<usize>) -> (usize, Range<usize>) {
        let starts = self.starts.entry(Arc::as_ptr(file)).or_insert_with(|| {
            let newlines = file.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect()
        });
        let line = |byte: usize| starts.partition_point(|start| *start <= byte) - 1;
        let (first, last) = (line(range.start), line(range.end.max(range.start)));
        let end = starts.get(last + 1).copied().unwrap_or(file.text.len());
        (first + 1, starts[first]..end)
    }
}
