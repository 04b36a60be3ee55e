//! [`OptionDescription`]: one option, in the one list from which values are checked and documentation is printed; and
//! [`Options`]: the checked values of such a list.

mod duration;
mod kind;

use std::fmt::Write as _;
use std::time::Duration;

use crate::secret::Secret;

pub use duration::{parse_duration, without_unit};
pub use kind::OptionKind;
use kind::OptionValue;

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
    /// Where it has an effect.
    pub side: Side,
}

/// Where an option of a component has an effect. Elsewhere it is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Side {
    /// In `from`.
    From,
    /// In `to`.
    To,
    /// In both, as far as the component can stand there.
    Both,
}

impl Side {
    /// The key of a route in whose URIs the option stands; none where that is each.
    pub(crate) fn key(self) -> Option<&'static str> {
        match self {
            Self::From => Some("from"),
            Self::To => Some("to"),
            Self::Both => None,
        }
    }
}

impl OptionDescription {
    /// The same option, which has an effect on one side only.
    #[must_use]
    pub const fn of(self, side: Side) -> Self {
        Self { side, ..self }
    }
}

/// An option of a component, in one line of its list.
#[must_use]
pub const fn option(
    name: &'static str,
    kind: OptionKind,
    default: Option<&'static str>,
    summary: &'static str,
) -> OptionDescription {
    OptionDescription { name, kind, default, summary, side: Side::Both }
}

/// An option that is `true` or `false`.
#[must_use]
pub const fn flag(name: &'static str, default: &'static str, summary: &'static str) -> OptionDescription {
    option(name, OptionKind::Boolean, Some(default), summary)
}

/// Options as a Markdown table, for a component or a cluster service that has any.
pub(crate) fn table(options: &[OptionDescription]) -> String {
    if options.is_empty() {
        return "No options.\n".into();
    }
    let has_sides = options.iter().any(|option| option.side != Side::Both);
    let mut table = match has_sides {
        true => String::from("| option | in | takes | default | meaning |\n|---|---|---|---|---|\n"),
        false => String::from("| option | takes | default | meaning |\n|---|---|---|---|\n"),
    };
    for option in options {
        let default = option.default.map(|value| format!("`{value}`")).unwrap_or_default();
        let (name, kind, summary) = (option.name, option.kind.name(), option.summary);
        let side = match option.side.key() {
            _ if !has_sides => String::new(),
            Some(key) => format!(" `{key}` |"),
            None => " both |".into(),
        };
        let _ = writeln!(table, "| `{name}` |{side} {kind} | {default} | {summary} |");
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
