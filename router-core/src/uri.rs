//! [`EndpointUri`]: `scheme:path?option=value&...`, parsed once, with the place of every part.

mod escape;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::error::{ConfigError, ConfigErrors};
use crate::source::{Origin, SourceText};
use crate::written::EndpointDefinition;

pub use escape::Escape;
pub(crate) use escape::{Encoding, decode, encode};

/// The address of an endpoint.
///
/// Parts know where they were written, so that an error can point at them, also in a URI that stands inside
/// another (`master:lock1:timer:clock?perod=1s`), and beside it (`{ uri = "sql:", statement = "..." }`).
#[derive(Clone, Debug)]
pub struct EndpointUri {
    text: SourceText,
    /// Where this URI starts in the text; it always ends with it.
    start: usize,
    scheme: Range<usize>,
    path: Part,
    /// Shared: a route keeps its URI in more than one place.
    options: Arc<[UriOption]>,
}

/// One `name=value` behind the `?`, or one entry beside the URI.
#[derive(Clone, Debug)]
pub(crate) struct UriOption {
    pub(crate) name: Part,
    pub(crate) value: Part,
}

/// Some bytes of a text.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    text: SourceText,
    range: Range<usize>,
    encoding: Encoding,
}

impl Part {
    /// A text that stands beside a URI.
    fn beside(text: &SourceText) -> Self {
        Self { text: text.clone(), range: 0..text.as_str().len(), encoding: Encoding::None }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text.as_str()[self.range.clone()]
    }

    pub(crate) fn text(&self) -> &SourceText {
        &self.text
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether it was made at run time: then nothing in it is a placeholder.
    pub(crate) fn is_computed(&self) -> bool {
        matches!(self.text.origin(), Origin::Computed)
    }

    /// What the part says.
    pub(crate) fn decoded(&self) -> Result<Cow<'_, str>, ConfigError> {
        self.decoded_part(0..self.range.len())
    }

    fn decoded_part(&self, range: Range<usize>) -> Result<Cow<'_, str>, ConfigError> {
        let written = &self.as_str()[range.clone()];
        decode(written, self.encoding).map_err(|bytes| {
            let escape = &written[bytes.clone()];
            self.not_text(escape, range.start + bytes.start..range.start + bytes.end)
        })
    }

    /// An error about an escape in some bytes of the part.
    pub(crate) fn not_text(&self, escape: &str, range: Range<usize>) -> ConfigError {
        let message = format!("`{escape}` is read as an escape, which gives no UTF-8 text here");
        self.error_in(range, message).help(format!(
            "write a percent sign as `%25`: `{}`; nothing is decoded in a table, `{{ uri = \"...\", ... }}`",
            escape.replace('%', "%25")
        ))
    }

    /// An error in the whole part.
    pub(crate) fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::at(&self.text, self.range.clone(), message)
    }

    /// An error in some bytes of the part, as written.
    pub(crate) fn error_in(&self, range: Range<usize>, message: impl Into<String>) -> ConfigError {
        let start = self.range.start;
        ConfigError::at(&self.text, start + range.start..start + range.end, message)
    }

    fn error_in_decoded(&self, range: &Range<usize>, message: impl Into<String>) -> ConfigError {
        let range = match self.encoding {
            Encoding::None => range.clone(),
            Encoding::Percent | Encoding::Form => escape::written(self.as_str(), range),
        };
        self.error_in(range, message)
    }
}

impl EndpointUri {
    /// Parses a URI.
    ///
    /// # Errors
    /// When there is no `scheme:` in front, or an option has no `=`.
    pub fn parse(text: &SourceText) -> Result<Self, ConfigError> {
        Self::parse_from(text, text.as_str(), 0, &[])
    }

    /// Parses a URI, to which the options that stand beside it belong as well.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn new(definition: &EndpointDefinition) -> Result<Self, ConfigErrors> {
        Ok(Self::parse_from(&definition.uri, definition.uri.as_str(), 0, &definition.options)?)
    }

    /// Parses a URI with placeholders, which `masked` shows without them, at the same bytes.
    pub(crate) fn parse_masked(
        text: &SourceText,
        masked: &str,
        beside: &[(SourceText, SourceText)],
    ) -> Result<Self, ConfigError> {
        Self::parse_from(text, masked, 0, beside)
    }

    /// Parses the URI that stands inside this one from byte `offset` of the path on; the options, all
    /// of them, are its own.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn nested(&self, offset: usize) -> Result<Self, ConfigError> {
        let start = self.path.range.start + offset;
        let nested = Self::parse_from(&self.text, self.text.as_str(), start, &[])?;
        Ok(Self { options: Arc::clone(&self.options), ..nested })
    }

    fn parse_from(
        text: &SourceText,
        masked: &str,
        start: usize,
        beside: &[(SourceText, SourceText)],
    ) -> Result<Self, ConfigError> {
        let written = &masked[start..];
        let path_end = written.find('?').unwrap_or(written.len());
        let scheme_end = written[..path_end].find(':').filter(|end| is_scheme(&written[..*end]));
        let Some(scheme_end) = scheme_end else {
            let message = "an endpoint URI starts with a component and a colon";
            return Err(ConfigError::at(text, start..masked.len(), message)
                .help("for example `timer:clock?period=1s` or `log:audit`"));
        };
        let mut path_start = scheme_end + 1;
        if written[path_start..path_end].starts_with("//") {
            path_start += 2;
        }
        let mut options = parse_options(text, masked, start + path_end)?;
        options.extend(
            beside
                .iter()
                .map(|(name, value)| UriOption { name: Part::beside(name), value: Part::beside(value) }),
        );
        let range = start + path_start..start + path_end;
        let path = Part { text: text.clone(), range, encoding: Encoding::Percent };
        let scheme = start..start + scheme_end;
        Ok(Self { text: text.clone(), start, scheme, path, options: options.into() })
    }

    /// A URI that was put together at run time, in which nothing is decoded and nothing separates.
    pub(crate) fn assembled(
        scheme: &str,
        path: &str,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let text = SourceText::computed(format!("{scheme}:{path}"));
        let range = scheme.len() + 1..text.as_str().len();
        let path = Part { text: text.clone(), range, encoding: Encoding::None };
        let beside = |text: String| Part::beside(&SourceText::computed(text));
        let options = options.into_iter();
        let options = options.map(|(name, value)| UriOption { name: beside(name), value: beside(value) });
        Self { text, start: 0, scheme: 0..scheme.len(), path, options: options.collect() }
    }

    /// Takes the entry `key` that stands beside the URI for the path, where there is one.
    pub(crate) fn with_path_beside(&self, key: &str) -> Result<Self, ConfigError> {
        let is_path = |option: &UriOption| {
            option.name.encoding == Encoding::None && !key.is_empty() && option.name.as_str() == key
        };
        let Some(given) = self.options.iter().find(|option| is_path(option)) else {
            return Ok(self.clone());
        };
        if !self.path.range.is_empty() {
            let message = format!("`{key}` is what stands behind `{}:`, and is given there", self.scheme());
            return Err(given.name.error(message).help(format!("write `uri = \"{}:\"`", self.scheme())));
        }
        let (path, text) = (given.value.clone(), self.text.clone());
        let options = self.options.iter().filter(|option| !is_path(option)).cloned().collect();
        Ok(Self { text, start: self.start, scheme: self.scheme.clone(), path, options })
    }

    /// The component's name.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.text.as_str()[self.scheme.clone()]
    }

    /// What stands between the scheme and the `?`, as written, without leading `//`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.as_str()
    }

    pub(crate) fn path_part(&self) -> &Part {
        &self.path
    }

    /// The escapes `%XX` of the path. None where the path stands beside the URI: nothing is decoded there.
    #[must_use]
    pub fn path_escapes(&self) -> Vec<Escape> {
        match self.path.encoding {
            Encoding::None => Vec::new(),
            Encoding::Percent | Encoding::Form => escape::escapes(self.path()),
        }
    }

    /// The escapes of the value of an option as they are written, each `+` among them, with the byte of the
    /// decoded value that each gives. None where the value stands beside the URI.
    #[must_use]
    pub fn option_escapes(&self, name: &str) -> Vec<(&str, usize)> {
        match self.option(name).map(|option| &option.value) {
            Some(value) if value.encoding != Encoding::None => escape::form_escapes(value.as_str()),
            _ => Vec::new(),
        }
    }

    /// The path with `%XX` decoded.
    ///
    /// # Errors
    /// When an escape gives no UTF-8.
    pub fn decoded_path(&self) -> Result<Cow<'_, str>, ConfigError> {
        self.path.decoded()
    }

    /// A part of the path with `%XX` decoded.
    ///
    /// # Errors
    /// When an escape gives no UTF-8.
    pub fn decoded_path_part(&self, range: Range<usize>) -> Result<Cow<'_, str>, ConfigError> {
        self.path.decoded_part(range)
    }

    /// The decoded path, which must not be empty.
    ///
    /// # Errors
    /// The given message when it is; when an escape gives no UTF-8.
    pub fn required_path(&self, message: &str) -> Result<SmolStr, ConfigError> {
        match self.decoded_path()? {
            path if path.is_empty() => Err(match self.path.encoding {
                Encoding::None => self.path.error(message),
                Encoding::Percent | Encoding::Form => self.error_in_whole(message),
            }),
            path => Ok(path.into()),
        }
    }

    /// The whole URI as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text.as_str()[self.start..]
    }

    /// An error in the given bytes of the path.
    #[must_use]
    pub fn error_in_path(&self, range: Range<usize>, message: impl Into<String>) -> ConfigError {
        self.path.error_in(range, message)
    }

    /// An error in the given bytes of the decoded path.
    #[must_use]
    pub fn error_in_decoded_path(&self, range: Range<usize>, message: impl Into<String>) -> ConfigError {
        self.path.error_in_decoded(&range, message)
    }

    /// An error in the given bytes of the decoded value of an option; in the whole URI where the option
    /// is not written.
    #[must_use]
    pub fn error_in_option(
        &self,
        name: &str,
        range: Range<usize>,
        message: impl Into<String>,
    ) -> ConfigError {
        match self.option(name) {
            None => self.error_in_whole(message),
            Some(option) => option.value.error_in_decoded(&range, message),
        }
    }

    /// An error in the value of an option; in the whole URI where the option is not written.
    #[must_use]
    pub fn error_at_option(&self, name: &str, message: impl Into<String>) -> ConfigError {
        match self.option(name) {
            None => self.error_in_whole(message),
            Some(option) => option.value.error(message),
        }
    }

    /// Refuses an option that has an effect only with another one, which is not given.
    ///
    /// # Errors
    /// When it is in the URI.
    pub fn refuse_without(&self, name: &str, other: &str) -> Result<(), ConfigError> {
        match self.has_option(name) {
            true => Err(self.error_at_option(name, format!("option `{name}` goes with `{other}`"))),
            false => Ok(()),
        }
    }

    /// An error in the scheme.
    #[must_use]
    pub fn error_in_scheme(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::at(&self.text, self.scheme.clone(), message)
    }

    /// An error that concerns the whole URI.
    #[must_use]
    pub fn error_in_whole(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::at(&self.text, self.start..self.text.as_str().len(), message)
    }

    /// An error about a secret in the path, which is hidden wherever it would be printed.
    #[must_use]
    pub fn error_at_secret_in_path(&self, message: impl Into<String>) -> ConfigError {
        self.path.error(message).hiding(&self.path.text, self.path.range())
    }

    /// An error about a secret in the value of an option, which is hidden wherever it would be printed.
    #[must_use]
    pub fn error_at_secret(&self, name: &str, message: impl Into<String>) -> ConfigError {
        match self.option(name) {
            None => self.error_in_whole(message),
            Some(option) => option.name.error(message).hiding(option.value.text(), option.value.range()),
        }
    }

    pub(crate) fn options(&self) -> &[UriOption] {
        &self.options
    }

    /// Whether an option is written, also with a value that it does not take.
    #[must_use]
    pub fn has_option(&self, name: &str) -> bool {
        self.option(name).is_some()
    }

    fn option(&self, name: &str) -> Option<&UriOption> {
        self.options.iter().find(|option| option.name.as_str() == name)
    }
}

impl fmt::Display for EndpointUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(formatter)
    }
}

/// For what was read as an option and cannot be one.
pub(crate) const MARKS_HELP: &str = "a `?` begins the options, and a `&` the next one: in a text of yours they are \
                                     written `%3F` and `%26`; nothing is decoded in a table, `{ uri = \"...\", ... }`";

/// RFC 3986, section 3.1, in lower case.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c))
}

/// The options behind the `?` at byte `mark` of the text, if there is one.
fn parse_options(text: &SourceText, masked: &str, mark: usize) -> Result<Vec<UriOption>, ConfigError> {
    let mut options = Vec::new();
    let mut start = mark + 1;
    for pair in masked.get(start..).unwrap_or_default().split('&') {
        let end = start + pair.len();
        let part = |range, encoding| Part { text: text.clone(), range, encoding };
        match pair.find('=') {
            Some(equals) if equals > 0 => options.push(UriOption {
                name: part(start..start + equals, Encoding::Percent),
                value: part(start + equals + 1..end, Encoding::Form),
            }),
            None if pair.is_empty() => {}
            _ => {
                let message = format!("`{}` is not of the form `option=value`", &text.as_str()[start..end]);
                return Err(ConfigError::at(text, start..end, message).help(MARKS_HELP));
            }
        }
        start = end + 1;
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> EndpointUri {
        EndpointUri::parse(&SourceText::from_code(text)).unwrap()
    }

    fn values(uri: &EndpointUri) -> Vec<Cow<'_, str>> {
        uri.options().iter().map(|option| option.value.decoded().unwrap()).collect()
    }

    #[test]
    fn a_uri_falls_into_scheme_path_and_options() {
        let uri = parse("timer://clock?period=1s&note=a+b%26c");
        assert_eq!((uri.scheme(), uri.path()), ("timer", "clock"));
        assert_eq!(values(&uri), ["1s", "a b&c"]);
    }

    /// Whatever is written: what is told of it is in the text, and is an error that can be printed.
    #[test]
    fn fuzz_uris() {
        testkit::fuzz::fuzz(include_str!("../corpus/uri.txt"), |text| {
            let source = SourceText::from_code(text);
            let uri = match EndpointUri::parse(&source) {
                Ok(uri) => uri,
                Err(error) => return assert!(!error.to_string().is_empty()),
            };
            assert_eq!(
                EndpointUri::parse(&SourceText::from_code(uri.as_str())).unwrap().as_str(),
                uri.as_str()
            );
            assert!(text.starts_with(uri.scheme()) && text.contains(uri.path()));
            for escape in uri.path_escapes().iter().take(4) {
                assert!(uri.path().get(escape.written.clone()).is_some());
                assert!(
                    uri.error_in_decoded_path(escape.decoded..escape.decoded + 1, "here")
                        .to_string()
                        .contains("here")
                );
            }
            if let Ok(path) = uri.decoded_path() {
                assert!(uri.decoded_path_part(0..uri.path().len()).is_ok_and(|part| part == path));
            }
            for option in uri.options() {
                let (value, written) = (option.value.decoded(), option.value.range());
                assert!(text.get(written).is_some());
                assert!(
                    value.is_ok_and(|value| escape::encode(&value).len() >= value.len())
                        || text.contains('%')
                );
            }
            for (offset, _) in uri.path().char_indices().take(20) {
                if let Ok(inner) = uri.nested(offset) {
                    assert_eq!(inner.options().len(), uri.options().len());
                }
            }
        });
    }

    #[test]
    fn a_nested_uri_takes_all_options_and_keeps_its_place() {
        let outer = parse("master:lock1:timer:clock?period=1s");
        let inner = outer.nested(6).unwrap();
        assert_eq!(inner.as_str(), "timer:clock?period=1s");
        assert_eq!(inner.options()[0].name.as_str(), "period");
        assert_eq!(inner.options()[0].name.range(), 25..31);
    }

    #[test]
    fn a_uri_without_a_scheme_or_an_option_without_a_value_is_an_error() {
        for text in ["", "clock", "Timer:x", ":x", "timer:x?period", "timer:x?=1"] {
            assert!(EndpointUri::parse(&SourceText::from_code(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn an_escape_that_gives_no_text_is_an_error_at_its_place() {
        let uri = parse("sql:delete from p where name not like '%bad%'?note=%ff");
        let error = uri.required_path("").unwrap_err().to_string();
        assert!(error.contains("`%ba` is read as an escape"), "{error}");
        assert!(error.contains("write a percent sign as `%25`: `%25ba`"), "{error}");
        assert!(error.contains(&format!("{}^^^", " ".repeat(39))), "{error}");
        assert!(uri.options()[0].value.decoded().is_err());
        assert_eq!(parse("sql:a%2541").decoded_path().unwrap(), "a%41");
    }

    #[test]
    fn nothing_is_decoded_beside_a_uri_and_a_nested_one_gets_it() {
        let definition = EndpointDefinition::new("master:lock1:sql:?delay=1s")
            .option("statement", "select '%41' || '?&+#'")
            .option("note", "a+b");
        let outer = EndpointUri::new(&definition).unwrap();
        let inner = outer.nested(6).unwrap().with_path_beside("statement").unwrap();
        assert_eq!(inner.decoded_path().unwrap(), "select '%41' || '?&+#'");
        assert!(inner.path_escapes().is_empty());
        assert_eq!(values(&inner), ["1s", "a+b"]);
        let error = inner.error_in_decoded_path(8..11, "here").to_string();
        assert!(error.contains("^^^"), "{error}");

        let twice = EndpointDefinition::new("sql:select 1").option("statement", "select 2");
        let error = EndpointUri::new(&twice).unwrap().with_path_beside("statement").unwrap_err();
        assert_eq!(error.message(), "`statement` is what stands behind `sql:`, and is given there");
    }
}
