//! [`OptionKind`]: what values an option takes.

use std::net::SocketAddr;
use std::time::Duration;

use super::parse_duration;
use crate::secret::Secret;

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

    /// Whether two texts are the same value: `1s` and `1000`.
    #[must_use]
    pub fn is_same(self, one: &str, other: &str) -> bool {
        one == other || matches!((self.read(one), self.read(other)), (Ok(one), Ok(other)) if one == other)
    }

    /// The placeholders that the component itself replaces.
    pub(crate) fn own_placeholders(self) -> &'static [&'static str] {
        match self {
            Self::Template(own) => own,
            _ => &[],
        }
    }

    /// The value, or what would have been one.
    pub(super) fn read(self, text: &str) -> Result<OptionValue, String> {
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
                Err(_) => {
                    Err("an IP address and a port up to 65535, like `127.0.0.1:9876` or `[::1]:0`, or `off`"
                        .into())
                }
            },
        }
    }
}

/// A value of an option.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum OptionValue {
    Duration(Duration),
    Integer(u64),
    Boolean(bool),
    Text(String),
    Secret(Secret),
}
