//! [`ComponentDescription`]: one list of a component's options, from which its URIs are checked and its
//! documentation is printed; and [`Options`]: the checked values.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{ConfigError, ConfigErrors, Severity};
use crate::secret::Secret;
use crate::uri::{Encoding, EndpointUri, MARKS_HELP, Part, UriOption};

/// What a component is for and which options its URIs take.
#[derive(Debug)]
pub struct ComponentDescription {
    /// The first part of its URIs.
    pub scheme: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The form of its URIs, without options: `timer:name`.
    pub syntax: &'static str,
    /// What stands behind the colon of its URIs.
    pub path: PathDescription,
    /// Whether it can stand in `from`.
    pub consumes: bool,
    /// Whether it can stand in `to`.
    pub produces: bool,
    /// Its options, in the order in which they are documented.
    pub options: &'static [OptionDescription],
}

/// What stands behind the colon of the URIs of a component.
#[derive(Debug)]
pub struct PathDescription {
    /// The key under which it can stand beside a URI: `statement` in `{ uri = "sql:", statement = "..." }`.
    /// Empty: it stands in the URI alone.
    pub key: &'static str,
    /// What it is.
    pub kind: PathKind,
}

/// What stands behind the colon of the URIs of a component, in one line of its description.
#[must_use]
pub const fn path(key: &'static str, kind: PathKind) -> PathDescription {
    PathDescription { key, kind }
}

/// What a path is, and so what a value of a message can be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A name. A value is a part of it.
    Name,
    /// A name that routes of this process consume: a message chooses among those that the step allows. The
    /// [local address](crate::component::Endpoint::local_address) is the scheme, a colon and the name.
    Route,
    /// A directory. A value is a name in it, without slashes.
    Directory,
    /// The host and path of a URL. A value is a segment of the path; a host must be allowed by the step.
    Url,
    /// Code, in which a value would be code too: it has no placeholders.
    Code,
}

/// One option of a component.
#[derive(Debug)]
pub struct OptionDescription {
    /// The name in the URI, in snake case.
    pub name: &'static str,
    /// What values it takes.
    pub kind: OptionKind,
    /// The value where none is given, as it would be written; `None`: unset.
    pub default: Option<&'static str>,
    /// One sentence.
    pub summary: &'static str,
}

/// An option of a component, in one line of its list.
#[must_use]
pub const fn option(
    name: &'static str,
    kind: OptionKind,
    default: Option<&'static str>,
    summary: &'static str,
) -> OptionDescription {
    OptionDescription { name, kind, default, summary }
}

/// An option that is `true` or `false`.
#[must_use]
pub const fn flag(name: &'static str, default: &'static str, summary: &'static str) -> OptionDescription {
    option(name, OptionKind::Boolean, Some(default), summary)
}

/// What values an option takes.
#[derive(Clone, Copy, Debug)]
pub enum OptionKind {
    /// `1s`, `1m 30s`, `500ms`, or bare milliseconds.
    Duration,
    /// A whole number that is not negative.
    Integer,
    /// A whole number of at least 1.
    PositiveInteger,
    /// `true` or `false`.
    Boolean,
    /// Any text.
    Text,
    /// Text with placeholders of the component's own, which these are.
    Template(&'static [&'static str]),
    /// The query of a URL. A value of a message is a value in it.
    Query,
    /// Where a server or a database is; no message decides it.
    Url,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// Where a password or token is kept: `env:NAME` or `file:/path`.
    Secret,
    /// A file for the position of a route, where no lock carries it.
    StateFile,
    /// Where to listen: an IP address and a port, or `off`, for which `false` stands too.
    Address,
}

impl OptionKind {
    /// The name of this kind in the documentation.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Duration => "duration".into(),
            Self::Integer => "integer".into(),
            Self::PositiveInteger => "positive integer".into(),
            Self::Boolean => "boolean".into(),
            Self::Text | Self::Template(_) | Self::Query | Self::StateFile => "text".into(),
            Self::Url => "URL".into(),
            Self::Choice(words) => words.join(", "),
            Self::Secret => "secret".into(),
            Self::Address => "address or `off`".into(),
        }
    }

    /// The text of a value as the description would spell it, or what would have been a value.
    ///
    /// # Errors
    /// What the option takes.
    pub fn check(self, text: &str) -> Result<String, String> {
        Ok(match self.read(text)? {
            OptionValue::Text(text) => text,
            OptionValue::Duration(_)
            | OptionValue::Integer(_)
            | OptionValue::Boolean(_)
            | OptionValue::Secret(_) => text.to_owned(),
        })
    }

    /// The placeholders that the component itself replaces.
    pub(crate) fn own_placeholders(self) -> &'static [&'static str] {
        match self {
            Self::Template(own) => own,
            _ => &[],
        }
    }

    /// The value, or what would have been one.
    fn read(self, text: &str) -> Result<OptionValue, String> {
        match self {
            Self::Duration => parse_duration(text).map(OptionValue::Duration),
            Self::Integer => match text.parse() {
                Ok(number) => Ok(OptionValue::Integer(number)),
                Err(_) => Err("a whole number, not negative".into()),
            },
            Self::PositiveInteger => match text.parse() {
                Ok(number @ 1..) => Ok(OptionValue::Integer(number)),
                _ => Err("a whole number of at least 1".into()),
            },
            Self::Boolean => match text {
                "true" => Ok(OptionValue::Boolean(true)),
                "false" => Ok(OptionValue::Boolean(false)),
                _ => Err("`true` or `false`".into()),
            },
            Self::Text | Self::Template(_) | Self::Query | Self::StateFile | Self::Url => {
                Ok(OptionValue::Text(text.into()))
            }
            Self::Choice(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
                Some(word) => Ok(OptionValue::Text((*word).into())),
                None => Err(format!("one of {}", words.join(", "))),
            },
            Self::Secret => Secret::parse(text).map(OptionValue::Secret).ok_or_else(|| Secret::FORMS.into()),
            Self::Address => match text.parse::<SocketAddr>() {
                Ok(address) => Ok(OptionValue::Text(address.to_string())),
                Err(_) if ["off", "false"].contains(&text) => Ok(OptionValue::Text("off".into())),
                Err(_) => Err("an IP address and a port like `127.0.0.1:9876` or `[::1]:0`, or `off`".into()),
            },
        }
    }
}

/// Reads `1s`, `1m 30s`, `500ms`, or bare milliseconds, as Camel does.
///
/// # Errors
/// What would have been a duration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    /// A hundred years: adding it to the present is still a time.
    const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);
    let text = text.trim();
    let parsed = text.parse().map(Duration::from_millis).ok();
    parsed
        .or_else(|| humantime::parse_duration(text).ok())
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| "a duration like `1s`, `500ms`, `1m 30s` or bare milliseconds".into())
}

/// A warning about a number without a unit that is so small that seconds were meant, most likely.
pub fn without_unit(text: &str, error: impl FnOnce(String) -> ConfigError) -> Option<ConfigError> {
    /// Whoever means less than this writes the unit.
    const SMALL: Duration = Duration::from_millis(10);
    let number = text.trim().parse().ok().filter(|number| *number > 0)?;
    (Duration::from_millis(number) < SMALL).then(|| {
        let plural = if number == 1 { "" } else { "s" };
        error(format!("`{number}` means {number} millisecond{plural}"))
            .help(format!("write `{number}ms` or `{number}s`"))
            .severity(Severity::Warning)
    })
}

impl ComponentDescription {
    /// The options as a Markdown table: the one of the module docs and of `bactrian doc`.
    #[must_use]
    pub fn option_table(&self) -> String {
        if self.options.is_empty() {
            return "No options.\n".into();
        }
        let mut table = String::from("| option | takes | default | meaning |\n|---|---|---|---|\n");
        for option in self.options {
            let default = option.default.map(|value| format!("`{value}`")).unwrap_or_default();
            let (name, kind, summary) = (option.name, option.kind.name(), option.summary);
            let _ = writeln!(table, "| `{name}` | {kind} | {default} | {summary} |");
        }
        table
    }

    /// Reads the options of `uri`, all of them, against this description.
    ///
    /// # Errors
    /// Every unknown, repeated or malformed option.
    pub fn read(&'static self, uri: &EndpointUri) -> Result<Options, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let options = self.read_into(uri, &mut errors);
        errors.into_result().map(|()| options)
    }

    /// As [`read`](Self::read), for a component that goes on to check its own rules, so that all errors are
    /// reported together. An option that is wrong has its default; see [`Options::are_right`].
    pub fn read_into(&'static self, uri: &EndpointUri, errors: &mut ConfigErrors) -> Options {
        let mut wrong = Vec::new();
        let mut values: Vec<Option<OptionValue>> = self.options.iter().map(|_| None).collect();
        errors.extend(unevaluated(uri.path_part(), &[]));
        for UriOption { name: written, value } in uri.options() {
            let name = written.as_str();
            let Some(index) = self.options.iter().position(|option| option.name == name) else {
                errors.push(self.unknown_option(written));
                continue;
            };
            let OptionDescription { kind, name, .. } = self.options[index];
            if values[index].is_some() {
                errors.push(written.error(format!("option `{name}` is given twice")));
            }
            let placeholders = unevaluated(value, kind.own_placeholders());
            if placeholders.iter().len() > 0 {
                errors.extend(placeholders);
                wrong.push(name);
                continue;
            }
            let Some(text) = errors.collect(value.decoded()) else {
                wrong.push(name);
                continue;
            };
            if value.encoding() != Encoding::None && text.starts_with("RAW(") && text.ends_with(')') {
                let error = value.error("`RAW(...)` has no meaning here, and would be a part of the value");
                errors.push(error.help("in a table nothing is decoded: `{ uri = \"...\", option = '...' }`"));
                continue;
            }
            let expected = match kind.read(&text) {
                Ok(value) => {
                    values[index] = Some(value);
                    continue;
                }
                Err(expected) => expected,
            };
            wrong.push(name);
            errors.push(match kind {
                OptionKind::Secret => misplaced_secret(written, value, &expected),
                _ => value.error(format!("option `{name}` takes {expected}")),
            });
        }
        Options { description: self, values, wrong }
    }

    /// The option of that name.
    pub(crate) fn option(&self, name: &str) -> Option<&OptionDescription> {
        self.options.iter().find(|option| option.name == name)
    }

    pub(crate) fn unknown_option(&self, written: &Part) -> ConfigError {
        let name = written.as_str();
        let message = format!("unknown option `{name}` for component `{}`", self.scheme);
        let path = Some(self.path.key).filter(|key| !key.is_empty());
        let names = self.options.iter().map(|option| option.name).chain(path);
        let error = written.error(message).suggest(name, names);
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')) {
            return error.help(MARKS_HELP);
        }
        match self.options.len() {
            0 => error.help(format!("component `{}` has no options", self.scheme)),
            _ => error.help(format!("`bactrian doc {}` lists its options", self.scheme)),
        }
    }
}

/// What stands where only the place of a secret may is a secret, most likely: it is shown by no error.
pub(crate) fn misplaced_secret(name: &Part, value: &Part, expected: &str) -> ConfigError {
    let error = name.error(format!("option `{}` takes {expected}", name.as_str()));
    error.hiding(value.text(), value.range())
}

/// Placeholders in a part of a URI that is the same for every exchange, except those of the component.
pub(crate) fn unevaluated(part: &Part, own: &[&str]) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    let text = part.as_str();
    let starts = text.match_indices("${").map(|(start, _)| start).filter(|_| !part.is_computed());
    for start in starts.filter(|start| !own.iter().any(|own| text[*start..].starts_with(own))) {
        let length = text[start..].find('}').map_or(2, |end| end + 1);
        let message = "a placeholder is not replaced here";
        let literal =
            if part.encoding() == Encoding::None { "" } else { "; a literal `${` is written `%24{`" };
        let help = format!("use to_dynamic, if the endpoint depends on the exchange{literal}");
        errors.push(part.error_in(start..start + length, message).help(help));
    }
    errors
}

/// The checked options of one URI.
///
/// The getters panic when the description has no option of that name and kind: that is a mistake of
/// the component, which its first test finds.
#[derive(Debug)]
pub struct Options {
    description: &'static ComponentDescription,
    values: Vec<Option<OptionValue>>,
    /// Those that are given and were reported.
    wrong: Vec<&'static str>,
}

#[derive(Clone, Debug)]
enum OptionValue {
    Duration(Duration),
    Integer(u64),
    Boolean(bool),
    Text(String),
    Secret(Secret),
}

impl Options {
    /// Whether none of these options was reported as wrong: then what is said about them together is true.
    #[must_use]
    pub fn are_right(&self, names: &[&str]) -> bool {
        !names.iter().any(|name| self.wrong.contains(name))
    }

    /// A duration that has a default.
    #[must_use]
    pub fn duration(&self, name: &str) -> Duration {
        match self.get(name) {
            Some(OptionValue::Duration(duration)) => duration,
            other => panic!("option {name} is no duration with a default: {other:?}"),
        }
    }

    /// A duration, if given or defaulted.
    #[must_use]
    pub fn optional_duration(&self, name: &str) -> Option<Duration> {
        match self.get(name) {
            None => None,
            Some(OptionValue::Duration(duration)) => Some(duration),
            other => panic!("option {name} is no duration: {other:?}"),
        }
    }

    /// A whole number, if given or defaulted.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            None => None,
            Some(OptionValue::Integer(number)) => Some(number),
            other => panic!("option {name} is no integer: {other:?}"),
        }
    }

    /// A flag; without a default it is off.
    #[must_use]
    pub fn boolean(&self, name: &str) -> bool {
        match self.get(name) {
            None => false,
            Some(OptionValue::Boolean(flag)) => flag,
            other => panic!("option {name} is no boolean: {other:?}"),
        }
    }

    /// A text or a choice (in the spelling of the description), if given or defaulted.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            None => None,
            Some(OptionValue::Text(text)) => Some(text),
            other => panic!("option {name} is no text: {other:?}"),
        }
    }

    /// Where a secret is kept, if given.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<Secret> {
        match self.get(name) {
            None => None,
            Some(OptionValue::Secret(secret)) => Some(secret),
            other => panic!("option {name} is no secret: {other:?}"),
        }
    }

    fn get(&self, name: &str) -> Option<OptionValue> {
        let index = self.description.options.iter().position(|option| option.name == name);
        let Some(index) = index else { panic!("component {} has no option {name}", self.description.scheme) };
        let option = &self.description.options[index];
        self.values[index].clone().or_else(|| option.default.and_then(|text| option.kind.read(text).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceText;

    static CLOCK: ComponentDescription = ComponentDescription {
        scheme: "clock",
        summary: "",
        syntax: "clock:name",
        path: path("name", PathKind::Name),
        consumes: true,
        produces: false,
        options: &[
            OptionDescription {
                name: "period",
                kind: OptionKind::Duration,
                default: Some("1s"),
                summary: "",
            },
            OptionDescription { name: "count", kind: OptionKind::Integer, default: None, summary: "" },
            OptionDescription {
                name: "level",
                kind: OptionKind::Choice(&["INFO", "WARN"]),
                default: Some("INFO"),
                summary: "",
            },
            OptionDescription { name: "token", kind: OptionKind::Secret, default: None, summary: "" },
        ],
    };

    fn read(text: &str) -> Result<Options, ConfigErrors> {
        CLOCK.read(&EndpointUri::parse(&SourceText::from_code(text)).unwrap())
    }

    #[test]
    fn options_have_their_kind_and_default() {
        let options = read("clock:a?period=250&level=warn").unwrap();
        assert_eq!(options.duration("period"), Duration::from_millis(250));
        assert_eq!(options.integer("count"), None);
        assert_eq!(options.text("level").as_deref(), Some("WARN"));
        assert_eq!(read("clock:a").unwrap().duration("period"), Duration::from_secs(1));
    }

    #[test]
    fn a_secret_that_is_written_into_a_uri_is_refused_and_not_shown() {
        assert!(read("clock:a?token=env:TOKEN").unwrap().secret("token").is_some());
        let errors = read("clock:a?perod=1s&token=hunter2").unwrap_err();
        let printed = errors.to_string();
        assert!(printed.contains("option `token` takes `env:NAME`"), "{printed}");
        assert!(printed.contains("unknown option `perod`"), "{printed}");
        assert!(!printed.contains("hunter2") && printed.contains("token=*******\n"), "{printed}");
        assert!(printed.ends_with(&format!("|{}^^^^^", " ".repeat(18))), "at its name: {printed}");
        let only = errors.iter().next_back().unwrap().to_string();
        assert!(only.contains("takes `env:NAME`") && !only.contains("hunter2"), "{only}");
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let errors = read("clock:a?perod=1s&count=-1&level=loud&count=1&period=x").unwrap_err();
        let messages = errors.iter().map(ConfigError::message).collect::<Vec<_>>();
        assert_eq!(
            messages,
            [
                "unknown option `perod` for component `clock`",
                "option `count` takes a whole number, not negative",
                "option `level` takes one of INFO, WARN",
                "option `period` takes a duration like `1s`, `500ms`, `1m 30s` or bare milliseconds",
            ]
        );
        assert!(read("clock:a?count=1&count=2").is_err());
    }
}
