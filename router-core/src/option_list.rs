//! [`OptionDescription`]: one option, in the one list from which values are checked and documentation is printed; and
//! [`Options`]: the checked values of such a list.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{ConfigError, Severity};
use crate::secret::Secret;

/// One option: of a component, or of a cluster service.
#[derive(Clone, Copy, Debug)]
pub struct OptionDescription {
    /// The name in the URI or table, in snake case.
    pub name: &'static str,
    /// What values it takes.
    pub kind: OptionKind,
    /// The value where none is given, as it would be written; `None`: unset.
    pub default: Option<&'static str>,
    /// One sentence.
    pub summary: &'static str,
}

/// An option, in one line of its list.
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
    pub(crate) fn read(self, text: &str) -> Result<OptionValue, String> {
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

/// Options as a Markdown table, for a component or a cluster service that has any.
pub(crate) fn table(options: &[OptionDescription]) -> String {
    if options.is_empty() {
        return "No options.\n".into();
    }
    let mut table = String::from("| option | takes | default | meaning |\n|---|---|---|---|\n");
    for option in options {
        let default = option.default.map(|value| format!("`{value}`")).unwrap_or_default();
        let (name, kind, summary) = (option.name, option.kind.name(), option.summary);
        let _ = writeln!(table, "| `{name}` | {kind} | {default} | {summary} |");
    }
    table
}

/// The checked options of one URI, or of one cluster service.
///
/// The getters panic when the list has no option of that name and kind: that is an error of the component, which its
/// first test finds.
#[derive(Clone, Debug)]
pub struct Options {
    list: &'static [OptionDescription],
    values: Vec<Option<OptionValue>>,
    /// Those that are given and were reported.
    wrong: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) enum OptionValue {
    Duration(Duration),
    Integer(u64),
    Boolean(bool),
    Text(String),
    Secret(Secret),
}

impl Options {
    /// The options of this list, none of which is given.
    #[must_use]
    pub fn new(list: &'static [OptionDescription]) -> Self {
        Self { list, values: vec![None; list.len()], wrong: Vec::new() }
    }

    /// Gives an option its value.
    ///
    /// # Errors
    /// What the option takes.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let index = self.index(name);
        self.values[index] = Some(self.list[index].kind.read(text)?);
        Ok(())
    }

    /// Whether the option is given, and not only its default.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.values[self.index(name)].is_some()
    }

    /// Notes that an option is given and was reported as wrong: it has its default.
    pub(crate) fn note_wrong(&mut self, name: &'static str) {
        self.wrong.push(name);
    }

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
        let index = self.index(name);
        let option = &self.list[index];
        self.values[index].clone().or_else(|| option.default.and_then(|text| option.kind.read(text).ok()))
    }

    fn index(&self, name: &str) -> usize {
        let index = self.list.iter().position(|option| option.name == name);
        index.unwrap_or_else(|| panic!("there is no option {name} in this list"))
    }
}
