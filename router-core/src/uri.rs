//! [`EndpointUri`]: `scheme:path?option=value&...`, parsed once, with the place of every part.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use smol_str::SmolStr;

use crate::error::ConfigError;
use crate::source::SourceText;

/// The address of an endpoint.
///
/// Parts are ranges of the text as it was written, so that an error can point at them, also in a URI
/// that stands inside another (`master:lock1:timer:clock?perod=1s`).
#[derive(Clone, Debug)]
pub struct EndpointUri {
    text: SourceText,
    /// Where this URI starts in the text; it always ends with it.
    start: usize,
    scheme: Range<usize>,
    path: Range<usize>,
    /// Shared: a route keeps its URI in more than one place.
    options: Arc<[UriOption]>,
}

/// One `name=value` behind the `?`.
#[derive(Clone, Debug)]
pub(crate) struct UriOption {
    pub(crate) name: Range<usize>,
    pub(crate) value: Range<usize>,
}

impl EndpointUri {
    /// Parses a URI.
    ///
    /// # Errors
    /// When there is no `scheme:` in front, or an option has no `=`.
    pub fn parse(text: &SourceText) -> Result<Self, ConfigError> {
        Self::parse_from(text, 0)
    }

    /// Parses the URI that stands inside this one from byte `offset` of the path on; the options, all
    /// of them, are its own.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn nested(&self, offset: usize) -> Result<Self, ConfigError> {
        Self::parse_from(&self.text, self.path.start + offset)
    }

    fn parse_from(text: &SourceText, start: usize) -> Result<Self, ConfigError> {
        let written = &text.as_str()[start..];
        let path_end = written.find('?').map_or(written.len(), |mark| mark);
        let scheme_end = written[..path_end].find(':').filter(|end| is_scheme(&written[..*end]));
        let Some(scheme_end) = scheme_end else {
            let message = "an endpoint URI starts with a component and a colon";
            return Err(ConfigError::at(text, start..text.as_str().len(), message)
                .help("for example `timer:clock?period=1s` or `log:audit`"));
        };
        let mut path_start = scheme_end + 1;
        if written[path_start..path_end].starts_with("//") {
            path_start += 2;
        }
        let options = parse_options(text, start + path_end)?;
        let (scheme, path) = (start..start + scheme_end, start + path_start..start + path_end);
        Ok(Self { text: text.clone(), start, scheme, path, options })
    }

    /// The component's name.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.slice(&self.scheme)
    }

    /// What stands between the scheme and the `?`, as written, without leading `//`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.slice(&self.path)
    }

    /// The path with `%XX` decoded.
    #[must_use]
    pub fn decoded_path(&self) -> Cow<'_, str> {
        self.decoded_path_part(0..self.path().len())
    }

    /// A part of the path with `%XX` decoded.
    #[must_use]
    pub fn decoded_path_part(&self, range: Range<usize>) -> Cow<'_, str> {
        percent_decode_str(&self.path()[range]).decode_utf8_lossy()
    }

    /// The decoded path, which must not be empty.
    ///
    /// # Errors
    /// The given message when it is.
    pub fn required_path(&self, message: &str) -> Result<SmolStr, ConfigError> {
        match self.decoded_path() {
            path if path.is_empty() => Err(self.error_in_whole(message)),
            path => Ok(path.into()),
        }
    }

    /// The whole URI as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text.as_str()[self.start..]
    }

    /// A mistake in the given bytes of the path.
    #[must_use]
    pub fn error_in_path(&self, range: Range<usize>, message: impl Into<String>) -> ConfigError {
        self.error(self.path.start + range.start..self.path.start + range.end, message)
    }

    /// A mistake in the given bytes of the decoded path.
    #[must_use]
    pub fn error_in_decoded_path(&self, range: Range<usize>, message: impl Into<String>) -> ConfigError {
        self.error_in_path(written(self.path(), &range), message)
    }

    /// A mistake in the given bytes of the decoded value of an option; in the whole URI where the option
    /// is not written.
    #[must_use]
    pub fn error_in_option(
        &self,
        name: &str,
        range: Range<usize>,
        message: impl Into<String>,
    ) -> ConfigError {
        match self.options.iter().find(|option| self.slice(&option.name) == name) {
            None => self.error_in_whole(message),
            Some(option) => {
                let range = written(self.slice(&option.value), &range);
                self.error(option.value.start + range.start..option.value.start + range.end, message)
            }
        }
    }

    /// A mistake in the scheme.
    #[must_use]
    pub fn error_in_scheme(&self, message: impl Into<String>) -> ConfigError {
        self.error(self.scheme.clone(), message)
    }

    /// A mistake that concerns the whole URI.
    #[must_use]
    pub fn error_in_whole(&self, message: impl Into<String>) -> ConfigError {
        self.error(self.start..self.text.as_str().len(), message)
    }

    pub(crate) fn error(&self, range: Range<usize>, message: impl Into<String>) -> ConfigError {
        ConfigError::at(&self.text, range, message)
    }

    pub(crate) fn options(&self) -> &[UriOption] {
        &self.options
    }

    pub(crate) fn slice(&self, range: &Range<usize>) -> &str {
        &self.text.as_str()[range.clone()]
    }

    /// The value of an option with `+` read as a space and `%XX` decoded.
    pub(crate) fn decoded_value(&self, option: &UriOption) -> String {
        percent_decode_str(&self.slice(&option.value).replace('+', " ")).decode_utf8_lossy().into_owned()
    }
}

impl fmt::Display for EndpointUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(formatter)
    }
}

/// Which bytes of a text with `%XX` stand for the given bytes of the decoded one.
fn written(text: &str, decoded: &Range<usize>) -> Range<usize> {
    let bytes = text.as_bytes();
    let (mut place, mut index, mut start) = (0, 0, text.len());
    while place < bytes.len() && index < decoded.end {
        if index == decoded.start {
            start = place;
        }
        let digits =
            bytes.get(place + 1..place + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        place += if bytes[place] == b'%' && digits.is_some() { 3 } else { 1 };
        index += 1;
    }
    start.min(place)..place
}

/// RFC 3986, section 3.1, in lower case.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c))
}

/// The options behind the `?` at byte `mark` of the text, if there is one.
fn parse_options(text: &SourceText, mark: usize) -> Result<Arc<[UriOption]>, ConfigError> {
    let mut options = Vec::new();
    let mut start = mark + 1;
    for pair in text.as_str().get(start..).unwrap_or_default().split('&') {
        let end = start + pair.len();
        match pair.find('=') {
            Some(equals) if equals > 0 => {
                options.push(UriOption { name: start..start + equals, value: start + equals + 1..end });
            }
            None if pair.is_empty() => {}
            _ => {
                let message = format!("`{pair}` is not of the form `option=value`");
                return Err(ConfigError::at(text, start..end, message));
            }
        }
        start = end + 1;
    }
    Ok(options.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> EndpointUri {
        EndpointUri::parse(&SourceText::from_code(text)).unwrap()
    }

    #[test]
    fn a_uri_falls_into_scheme_path_and_options() {
        let uri = parse("timer://clock?period=1s&note=a+b%26c");
        assert_eq!((uri.scheme(), uri.path()), ("timer", "clock"));
        let values = uri.options().iter().map(|option| uri.decoded_value(option)).collect::<Vec<_>>();
        assert_eq!(values, ["1s", "a b&c"]);
    }

    #[test]
    fn bytes_of_a_decoded_text_are_found_in_the_written_one() {
        for (text, decoded, place) in
            [("a%20b", 2..3, 4..5), ("a%20b", 1..2, 1..4), ("a%b", 1..2, 1..2), ("a%20", 0..2, 0..4)]
        {
            assert_eq!(written(text, &decoded), place, "{text}");
        }
        assert_eq!(written("ab", &(2..2)), 2..2);
    }

    #[test]
    fn a_nested_uri_takes_all_options_and_keeps_its_place() {
        let outer = parse("master:lock1:timer:clock?period=1s");
        let inner = outer.nested(6).unwrap();
        assert_eq!(inner.as_str(), "timer:clock?period=1s");
        assert_eq!(inner.slice(&inner.options()[0].name), "period");
        assert_eq!(inner.options()[0].name, 25..31);
    }

    #[test]
    fn a_uri_without_a_scheme_or_an_option_without_a_value_is_an_error() {
        for text in ["", "clock", "Timer:x", ":x", "timer:x?period", "timer:x?=1"] {
            assert!(EndpointUri::parse(&SourceText::from_code(text)).is_err(), "{text}");
        }
    }
}
