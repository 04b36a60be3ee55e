//! [`ConfigError`]: what is wrong with a configuration, before anything runs; and what all errors share.

mod render;

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::Renderer;
use smol_str::SmolStr;

use crate::source::{Origin, SourceFile, SourceText};

/// Any error of user code and of components.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Whether what was found in a configuration keeps it from running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is built.
    #[default]
    Error,
    /// It runs, most likely not as meant.
    Warning,
}

/// One error in a route definition: what is wrong, where exactly, and how to mend it.
#[derive(Clone, Debug)]
pub struct ConfigError {
    severity: Severity,
    message: String,
    label: String,
    help: Option<String>,
    route: Option<SmolStr>,
    place: Option<Place>,
    /// What must not be shown: a secret that was written where it does not belong.
    hidden: Option<Box<Place>>,
}

/// Exact characters: of a file, or of a text in a line of Rust.
#[derive(Clone, Debug)]
enum Place {
    File { file: Arc<SourceFile>, range: Range<usize> },
    Code { location: Option<&'static std::panic::Location<'static>>, text: SmolStr, range: Range<usize> },
}

impl Place {
    fn of(text: &SourceText, range: Range<usize>) -> Self {
        match text.origin() {
            Origin::Code(location) => Self::Code { location: Some(*location), text: text.shared(), range },
            Origin::Computed => Self::Code { location: None, text: text.shared(), range },
            Origin::File(origin) => {
                Self::File { file: Arc::clone(&origin.file), range: origin.locate(range) }
            }
        }
    }
}

impl ConfigError {
    /// An error without a place of its own, for example a missing cluster service.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            label: String::new(),
            help: None,
            route: None,
            place: None,
            hidden: None,
        }
    }

    /// An error in the given bytes of `text`.
    #[must_use]
    pub fn at(text: &SourceText, range: Range<usize>, message: impl Into<String>) -> Self {
        Self { place: Some(Place::of(text, range)), ..Self::new(message) }
    }

    /// An error in the whole of `text`.
    #[must_use]
    pub fn in_text(text: &SourceText, message: impl Into<String>) -> Self {
        Self::at(text, 0..text.as_str().len(), message)
    }

    /// An error in the given bytes of a file.
    #[must_use]
    pub fn in_file(file: &Arc<SourceFile>, range: Range<usize>, message: impl Into<String>) -> Self {
        Self { place: Some(Place::File { file: Arc::clone(file), range }), ..Self::new(message) }
    }

    /// The same, as an error or as a warning.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    pub(crate) fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }

    /// A short remark beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// How to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds `did you mean` when one of the candidates is close to what was written.
    #[must_use]
    pub fn suggest<'a>(self, written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match closest(written, candidates) {
            Some(candidate) => self.label(format!("did you mean `{candidate}`?")),
            None => self,
        }
    }

    /// Hides these bytes in what is printed: of this error, and of those that are printed with it.
    #[must_use]
    pub(crate) fn hiding(mut self, text: &SourceText, range: Range<usize>) -> Self {
        self.hidden = Some(Box::new(Place::of(text, range)));
        self
    }

    /// Says in which route the error is, unless that was said already.
    #[must_use]
    pub(crate) fn in_route(mut self, route: &str) -> Self {
        self.route.get_or_insert_with(|| route.into());
        self
    }

    /// What is wrong, without its place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The name of the file that it is in, if it is in one.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match &self.place {
            Some(Place::File { file, .. }) => Some(&file.name),
            _ => None,
        }
    }

    /// All of it in one line, for a log: `routes.toml:4:20: ...`.
    fn line(&self) -> String {
        let place = match &self.place {
            Some(Place::File { file, range }) => format!("{}: ", file.position(range.start)),
            Some(Place::Code { location: Some(location), .. }) => format!("{location}: "),
            _ => String::new(),
        };
        let help = self.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{place}{}{help}", self.message)
    }

    /// Where the error sorts among others: by file, then by position.
    fn position(&self) -> (&str, usize) {
        match &self.place {
            Some(Place::File { file, range }) => (&file.name, range.start),
            Some(Place::Code { location: Some(location), range, .. }) => {
                (location.file(), (location.line() as usize) * 1_000 + range.start)
            }
            _ => ("", 0),
        }
    }

    fn render(&self, renderer: &Renderer) -> String {
        render::render(std::slice::from_ref(self), renderer)
    }
}

/// With the line, a caret under the exact characters, and the help; no colours.
impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.render(&Renderer::plain()).fmt(formatter)
    }
}

impl Error for ConfigError {}

/// Every error of a configuration: nothing is built while there is one, and none hides another. Warnings stand
/// among them, and keep nothing from being built.
#[derive(Clone, Default)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Adds one.
    pub fn push(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    /// Adds all of `others`.
    pub fn extend(&mut self, others: Self) {
        self.errors.extend(others.errors);
    }

    /// Keeps the errors of a failed result and returns the value of a good one.
    pub fn collect<T>(&mut self, result: Result<T, impl Into<Self>>) -> Option<T> {
        result.map_err(|errors| self.extend(errors.into())).ok()
    }

    /// `Ok` when there is none but warnings, which are lost; [`into_warnings`](Self::into_warnings) returns them.
    ///
    /// # Errors
    /// As [`into_warnings`](Self::into_warnings).
    pub fn into_result(self) -> Result<(), Self> {
        self.into_warnings().map(drop)
    }

    /// The warnings, sorted by place, when there is nothing else.
    ///
    /// # Errors
    /// Itself, sorted by place, warnings among them, when there is at least one error.
    pub fn into_warnings(mut self) -> Result<Self, Self> {
        self.errors.sort_by(|left, right| left.position().cmp(&right.position()));
        if self.has_errors() { Err(self) } else { Ok(self) }
    }

    /// Whether there is one that is no warning.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors.iter().any(|error| !error.is_warning())
    }

    /// The warnings among them.
    pub fn warnings(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter().filter(|error| error.is_warning())
    }

    /// Writes each warning to the log, in one line.
    pub fn log_warnings(&self) {
        for warning in self.warnings() {
            tracing::warn!("{}", warning.line());
        }
    }

    pub(crate) fn in_route(mut self, route: &str) -> Self {
        self.errors = self.errors.into_iter().map(|error| error.in_route(route)).collect();
        self
    }

    /// The errors and warnings, in the order in which they will be printed.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConfigError> + DoubleEndedIterator {
        self.errors.iter()
    }

    /// As `Display`, with colours for a terminal.
    #[must_use]
    pub fn styled(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        render::render(&self.errors, renderer)
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self { errors: vec![error] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.render(&Renderer::plain()).fmt(formatter)
    }
}

/// The same as `Display`: this is what `fn main() -> Result<(), BoxError>` prints.
impl fmt::Debug for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\n{self}")
    }
}

impl Error for ConfigErrors {}

/// Prints an error and its sources, `outer: inner: innermost`. The only place that does: no `Display`
/// of ours prints its own source.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(formatter, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// The candidate that is most likely meant by what was written.
pub(crate) fn closest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this Jaro-Winkler similarity, a suggestion would rather confuse.
    const SIMILAR: f64 = 0.8;
    let plain = |name: &str| name.to_lowercase().replace(['_', '-'], "");
    let written = plain(written);
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&written, &plain(candidate)), candidate))
        .filter(|(similarity, candidate)| *similarity > SIMILAR || is_one_slip(&written, &plain(candidate)))
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

/// Whether one letter was dropped, added, changed, or swapped with the next: short words score low on
/// similarity then.
fn is_one_slip(written: &str, candidate: &str) -> bool {
    written.len() > 2 && candidate.len() > 2 && strsim::osa_distance(written, candidate) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggestion_ignores_case_and_word_separators() {
        assert_eq!(closest("repeatCount", ["delay", "repeat_count"]), Some("repeat_count"));
        assert_eq!(closest("perod", ["delay", "period"]), Some("period"));
        assert_eq!(closest("lgo", ["to", "log"]), Some("log"));
        assert_eq!(closest("xyz", ["delay", "period"]), None);
    }

    #[test]
    fn an_error_in_code_shows_the_line_of_rust_and_the_characters() {
        let text = SourceText::from_code("timer:clock?perod=1s");
        let error = ConfigError::at(&text, 12..17, "unknown option `perod`").suggest("perod", ["period"]);
        let printed = error.to_string();
        assert!(printed.contains("router-core/src/error.rs:"), "{printed}");
        assert!(printed.contains("^^^^^ did you mean `period`?"), "{printed}");
    }
}
