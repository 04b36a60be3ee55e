//! [`ComponentDescription`]: what a component is for, and the list of its options, from which its URIs are checked and
//! its documentation is printed.

use crate::error::{ConfigError, ConfigErrors};
use crate::option_list;
use crate::uri::{Encoding, EndpointUri, MARKS_HELP, Part, UriOption};

pub use crate::option_list::{
    OptionDescription, OptionKind, Options, Side, flag, option, parse_duration, without_unit,
};

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
#[non_exhaustive]
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

impl ComponentDescription {
    /// The options as a Markdown table: the one of the module docs and of `bactrian doc`.
    #[must_use]
    pub fn option_table(&self) -> String {
        option_list::table(self.options)
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
        let mut options = Options::new(self.options);
        errors.extend(unevaluated(uri.path_part(), &[], self));
        for UriOption { name: written, value } in uri.options() {
            let name = written.as_str();
            let Some(index) = self.options.iter().position(|option| option.name == name) else {
                let error = self.unknown_option(written);
                errors.push(match is_secret_name(name) {
                    true => error.hiding(value.text(), value.range()),
                    false => error,
                });
                continue;
            };
            let OptionDescription { kind, name, .. } = self.options[index];
            if options.is_given(name) {
                errors.push(written.error(format!("option `{name}` is given twice")));
            }
            let placeholders = unevaluated(value, kind.own_placeholders(), self);
            if placeholders.iter().len() > 0 {
                errors.extend(placeholders);
                options.note_wrong(name);
                continue;
            }
            let Some(text) = errors.collect(value.decoded()) else {
                options.note_wrong(name);
                continue;
            };
            if value.encoding() != Encoding::None && text.starts_with("RAW(") && text.ends_with(')') {
                let error = value.error("`RAW(...)` has no meaning here, and would be a part of the value");
                errors.push(error.help("in a table nothing is decoded: `{ uri = \"...\", option = '...' }`"));
                continue;
            }
            let Err(expected) = options.set(name, &text) else { continue };
            options.note_wrong(name);
            errors.push(match kind {
                OptionKind::Secret => misplaced_secret(written, value, &expected),
                _ => value.error(format!("option `{name}` takes {expected}")),
            });
        }
        options
    }

    /// What is said of an option where it has no effect.
    pub(crate) fn misplaced(&self, name: &Part, side: Side) -> Option<ConfigError> {
        let option =
            self.option(name.as_str()).filter(|option| ![Side::Both, side].contains(&option.side))?;
        let (right, here) = (option.side.key()?, side.key()?);
        let message = format!("option `{}` is one of `{right}`, and has no effect in `{here}`", option.name);
        Some(name.error(message).help(format!("`bactrian doc {}` lists the options of both", self.scheme)))
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

/// Whether an option of this name would hold a secret.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "pwd", "secret", "token", "credential"].iter().any(|part| name.contains(part))
}

/// What stands where only the place of a secret may is a secret, most likely: it is shown by no error.
pub(crate) fn misplaced_secret(name: &Part, value: &Part, expected: &str) -> ConfigError {
    let error = name.error(format!("option `{}` takes {expected}", name.as_str()));
    error.hiding(value.text(), value.range())
}

/// Placeholders in a part of a URI that is the same for every exchange, except those of the component.
fn unevaluated(part: &Part, own: &[&str], description: &ComponentDescription) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    let text = part.as_str();
    let starts = text.match_indices("${").map(|(start, _)| start).filter(|_| !part.is_computed());
    for start in starts.filter(|start| !own.iter().any(|own| text[*start..].starts_with(own))) {
        let length = text[start..].find('}').map_or(2, |end| end + 1);
        let message = "a placeholder is not replaced here";
        let literal =
            if part.encoding() == Encoding::None { "" } else { "; a literal `${` is written `%24{`" };
        let what = if description.path.kind == PathKind::Code {
            format!(
                "what a message says would be code: `bactrian doc {}` says what can stand here",
                description.scheme
            )
        } else {
            "in a step, `to_dynamic` replaces placeholders; everywhere else `${env:NAME}` alone is replaced"
                .into()
        };
        let help = format!("{what}{literal}");
        errors.push(part.error_in(start..start + length, message).help(help));
    }
    errors
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            option("period", OptionKind::Duration, Some("1s"), ""),
            option("count", OptionKind::Integer, None, ""),
            option("level", OptionKind::Choice(&["INFO", "WARN"]), Some("INFO"), ""),
            option("token", OptionKind::Secret, None, ""),
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
        let unknown = read("clock:a?Password=hunter2&perod=1s").unwrap_err().to_string();
        assert!(unknown.contains("unknown option `Password`") && !unknown.contains("hunter2"), "{unknown}");
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
    fn every_error_is_reported_at_once() {
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
