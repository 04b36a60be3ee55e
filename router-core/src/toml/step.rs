//! The steps of a route: tables of one key each, or the bare name of a step without arguments. What each takes is in
//! its description.

use std::ops::Range;

use smol_str::ToSmolStr;

use super::endpoint::TAKES;
use super::reader::{Reader, list};
use super::tree::{Entry, Node, NodeValue, Table};
use crate::definition::{
    DynamicDefinition, EndpointDefinition, ExpressionDefinition, PredicateDefinition, ProcessDefinition,
};
use crate::error::{ConfigError, closest};
use crate::source::SourceText;
use crate::step::{Argument, Arguments, KeyDescription, KeyKind, Need, StepDefinition, StepDescription};
use crate::steps::{self, ALL};
use crate::value::{Json, Value};

impl Reader<'_> {
    /// An array of steps; those with errors are left out.
    pub(super) fn steps(&mut self, name: &str, node: &Node) -> Vec<StepDefinition> {
        let nodes = self.array(name, "an array of steps", node).unwrap_or_default();
        let step = |node: &Node| self.or_error(name, &node.place, |reader| reader.step(node));
        nodes.iter().filter_map(step).collect()
    }

    fn step(&mut self, node: &Node) -> Option<StepDefinition> {
        match &node.value {
            NodeValue::Text(name) => self.bare_step(name),
            NodeValue::Table(table) => {
                let Some(first) = table.entries.first() else {
                    let error = self.error(&node.place, "a step cannot be empty");
                    self.errors.push(error.help("for example `{ log = \"Hello\" }`"));
                    return None;
                };
                // A second key is an error, but not a reason to overlook those in its argument.
                let step = |entry: &Entry| {
                    self.or_error(&entry.name, &entry.place, |reader| reader.step_of_key(entry))
                };
                let mut steps = table.entries.iter().map(step).collect::<Vec<_>>();
                if let Some(second) = table.entries.get(1) {
                    let message = format!("a step has one key, found `{}` and `{}`", first.name, second.name);
                    let error = self.error(&second.place, message);
                    self.errors.push(error.help("write each step in braces of its own"));
                }
                steps.swap_remove(0)
            }
            _ => {
                self.wrong_type("steps", "tables like `{ log = \"Hello\" }`", node);
                None
            }
        }
    }

    fn bare_step(&mut self, text: &SourceText) -> Option<StepDefinition> {
        let name = text.as_str();
        let error = |message| ConfigError::in_text(text, message);
        self.errors.push(match steps::find(name) {
            Some(step) if step.keys.is_empty() => return Some(StepDefinition::new(step, text.clone())),
            Some(_) => {
                error(format!("step `{name}` needs an argument")).help(format!("write `{{ {name} = ... }}`"))
            }
            None => unknown_step(error(format!("unknown step `{name}`")), name),
        });
        None
    }

    fn step_of_key(&mut self, Entry { name, place, node }: &Entry) -> Option<StepDefinition> {
        let Some(step) = steps::find(name) else {
            let error = unknown_step(self.error(place, format!("unknown step `{name}`")), name);
            self.errors.push(error);
            return None;
        };
        let Some(first) = step.keys.first() else {
            let error = self.error(place, format!("step `{name}` takes no argument"));
            self.errors.push(error.help(format!("write its name alone: `\"{name}\"`")));
            return None;
        };
        let has_table = step.keys.len() > 1 || is_endpoint(first.kind);
        let arguments = match &node.value {
            NodeValue::Table(_) if has_table => self.arguments(name, step.keys, node)?,
            _ if !step.is_short => self.arguments(name, step.keys, node)?,
            value if has_table && !fits(first.kind, value) => {
                self.wrong_type(name, &takes(step, first), node);
                return None;
            }
            _ => {
                let mut arguments = Arguments::default();
                arguments.set(first.name, self.argument(first.kind, name, node)?);
                arguments
            }
        };
        Some(StepDefinition::new(step, self.source(name, place)).with_all(arguments))
    }

    /// The keys of a step, or of a table in one. An error in one of them does not hide those in the others.
    fn arguments(&mut self, name: &str, keys: &'static [KeyDescription], node: &Node) -> Option<Arguments> {
        let known = keys.iter().map(|key| key.name).collect::<Vec<_>>();
        let table = match &node.value {
            // What the step does not know is an option of the endpoint.
            NodeValue::Table(table) if keys.iter().any(|key| is_endpoint(key.kind)) => table,
            _ => self.table(name, node, &known)?,
        };
        let (mut arguments, mut whole) = (Arguments::default(), true);
        for key in keys {
            let entry = match key.need {
                Need::Required if is_endpoint(key.kind) => self.required_uri(table, name, &node.place),
                Need::Required => self.required(table, (key.name, &known), name, &node.place),
                Need::Optional | Need::OneOf(_) | Need::Default(_) => table.get(key.name),
            };
            let options = is_endpoint(key.kind).then(|| self.options_beside(name, table, &known));
            let argument = entry.and_then(|entry| {
                self.or_error(key.name, &entry.node.place, |reader| {
                    reader.argument(key.kind, key.name, &entry.node)
                })
            });
            let argument = match (argument, options) {
                (argument, None) => argument,
                (Some(Argument::Endpoint(endpoint)), Some(Some(options))) => {
                    Some(Argument::Endpoint(EndpointDefinition { options, ..endpoint }))
                }
                (Some(Argument::Dynamic(dynamic)), Some(Some(options))) => {
                    Some(Argument::Dynamic(Box::new(DynamicDefinition { options, ..*dynamic })))
                }
                _ => None,
            };
            match argument {
                Some(argument) => arguments.set(key.name, argument),
                None => whole &= entry.is_none() && key.need != Need::Required,
            }
        }
        let groups = keys.iter().filter_map(|key| match key.need {
            Need::OneOf(group) if group.first() == Some(&key.name) => Some(group),
            _ => None,
        });
        for group in groups {
            self.one_of(name, (group, &known), table, &node.place);
        }
        whole.then_some(arguments)
    }

    /// Reports keys of which exactly one must be there, if that is not so. The step is compiled all the same, for the
    /// errors in its blocks.
    fn one_of(
        &mut self,
        name: &str,
        (group, known): (&[&str], &[&str]),
        table: &Table,
        place: &Range<usize>,
    ) {
        let given =
            table.entries.iter().filter(|entry| group.contains(&entry.name.as_str())).collect::<Vec<_>>();
        let unknown = || table.entries.iter().filter(|entry| !known.contains(&entry.name.as_str()));
        let misspelt = || unknown().any(|entry| closest(&entry.name, group.iter().copied()).is_some());
        let error = match given.as_slice() {
            [_] => return,
            [first, second, ..] => self.error(
                &second.place,
                format!("`{name}` takes `{}` or `{}`, not both", first.name, second.name),
            ),
            [] if misspelt() => return,
            [] => self.error(place, format!("`{name}` needs one of {}", list(group))),
        };
        self.errors.push(error);
    }

    /// What is written for a key.
    fn argument(&mut self, kind: KeyKind, name: &str, node: &Node) -> Option<Argument> {
        Some(match kind {
            KeyKind::Name => Argument::Text(self.text(name, node)?),
            KeyKind::Process => Argument::Process(ProcessDefinition::Named(self.text(name, node)?)),
            KeyKind::Template => Argument::Expression(ExpressionDefinition::Text(self.text(name, node)?)),
            KeyKind::Value => Argument::Expression(self.value(name, node)?),
            KeyKind::Duration => Argument::Expression(self.delay(name, node)?),
            KeyKind::Count => Argument::Expression(self.count(name, node)?),
            KeyKind::Predicate => Argument::Predicate(PredicateDefinition::Text(self.text(name, node)?)),
            KeyKind::Flag => Argument::Flag(self.boolean(name, node)?),
            KeyKind::Word(words) => Argument::Word(self.word(name, words, node)?),
            KeyKind::Endpoint => Argument::Endpoint(self.text(name, node)?.into()),
            KeyKind::DynamicEndpoint => {
                Argument::Dynamic(Box::new(ExpressionDefinition::Text(self.text(name, node)?).into()))
            }
            KeyKind::Uris => Argument::Texts(self.texts(name, "an array of URIs", node)?),
            KeyKind::Names => Argument::Texts(self.texts(name, "an array of texts", node)?),
            KeyKind::Steps => Argument::Steps(self.steps(name, node)),
            KeyKind::Tables(keys) => {
                let required = keys.iter().filter(|key| key.need == Need::Required);
                let required = required.map(|key| format!("{} = ...", key.name)).collect::<Vec<_>>();
                let form = format!("`{{ {} }}`", required.join(", "));
                let nodes = self.array(name, &format!("an array of {form}"), node)?;
                if nodes.is_empty() {
                    let error = self.error(&node.place, format!("`{name}` needs at least one {form}"));
                    self.errors.push(error);
                }
                let arguments = |node: &Node| {
                    self.or_error(name, &node.place, |reader| reader.arguments(name, keys, node))
                };
                Argument::Tables(nodes.iter().filter_map(arguments).collect())
            }
        })
    }

    fn word(&mut self, name: &str, words: &'static [&'static str], node: &Node) -> Option<&'static str> {
        let text = self.text(name, node)?;
        let word = words.iter().find(|word| word.eq_ignore_ascii_case(text.as_str()));
        if word.is_none() {
            let message = format!("`{name}` takes one of {}", words.join(", "));
            let error = ConfigError::in_text(&text, message);
            self.errors.push(error.suggest(text.as_str(), words.iter().copied()));
        }
        word.copied()
    }

    fn count(&mut self, name: &str, node: &Node) -> Option<ExpressionDefinition> {
        const TAKES: &str = "a whole number, not negative, or text with placeholders";
        match &node.value {
            // It may be an expression: the compiler checks what can be known.
            NodeValue::Text(text) => Some(ExpressionDefinition::Text(text.clone())),
            _ => {
                let number: u32 = self.integer(name, TAKES, node)?;
                Some(ExpressionDefinition::Constant(i64::from(number).into()))
            }
        }
    }

    fn delay(&mut self, name: &str, node: &Node) -> Option<ExpressionDefinition> {
        match &node.value {
            // It may be an expression: the compiler checks what can be known.
            NodeValue::Text(text) => Some(ExpressionDefinition::Text(text.clone())),
            _ => {
                let duration = self.duration(name, node)?;
                let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
                Some(ExpressionDefinition::Constant(milliseconds.into()))
            }
        }
    }

    /// A value: text is an expression, everything else is what it is.
    fn value(&mut self, name: &str, node: &Node) -> Option<ExpressionDefinition> {
        Some(match &node.value {
            NodeValue::Text(text) => ExpressionDefinition::Text(text.clone()),
            NodeValue::Integer(number) => ExpressionDefinition::Constant((*number).into()),
            NodeValue::Number(number) => ExpressionDefinition::Constant(number.clone().into()),
            NodeValue::Boolean(flag) => ExpressionDefinition::Constant((*flag).into()),
            NodeValue::DateTime(time) => ExpressionDefinition::Constant(Value::Text(time.to_smolstr())),
            NodeValue::Array(_) | NodeValue::Table(_) => {
                ExpressionDefinition::Constant(Value::Json(self.json(name, node)?))
            }
        })
    }

    fn json(&mut self, name: &str, node: &Node) -> Option<Json> {
        Some(match &node.value {
            NodeValue::Text(text) => self.json_text(name, text)?.into(),
            NodeValue::Integer(number) => (*number).into(),
            NodeValue::Number(number) => number.clone().into(),
            NodeValue::Boolean(flag) => (*flag).into(),
            NodeValue::DateTime(time) => time.as_str().into(),
            NodeValue::Array(nodes) => {
                let values = nodes.iter().map(|node| self.json(name, node)).collect::<Vec<_>>();
                values.into_iter().collect::<Option<Vec<_>>>()?.into()
            }
            NodeValue::Table(table) => {
                let entries = table.entries.iter();
                let values = entries.map(|entry| Some((entry.name.as_str(), self.json(name, &entry.node)?)));
                let values = values.collect::<Vec<_>>();
                Json::Object(values.into_iter().collect::<Option<_>>()?)
            }
        })
    }

    /// Text inside of JSON is not an expression, and must not look as if it were one.
    fn json_text(&mut self, name: &str, text: &SourceText) -> Option<String> {
        let value = text.as_str();
        let placeholder = value.match_indices("${").find(|(at, _)| !value[..*at].ends_with('\\'));
        if let Some((start, _)) = placeholder {
            let end = value[start..].find('}').map_or(value.len(), |length| start + length + 1);
            let message = "a placeholder inside an array or table is not replaced";
            let error = ConfigError::at(text, start..end, message);
            let help = format!("write the JSON as text, `{name} = '...'`, or a literal `${{` as `\\${{`");
            self.errors.push(error.help(help));
            return None;
        }
        Some(value.replace("\\${", "${"))
    }
}

fn unknown_step(error: ConfigError, name: &str) -> ConfigError {
    let names = ALL.iter().map(|step| step.name);
    let all = names.clone().collect::<Vec<_>>().join(", ");
    error.suggest(name, names).help(format!("the steps are {all}"))
}

fn is_endpoint(kind: KeyKind) -> bool {
    matches!(kind, KeyKind::Endpoint | KeyKind::DynamicEndpoint)
}

/// Whether a value that is no table can be what a step takes in its short form.
fn fits(kind: KeyKind, value: &NodeValue) -> bool {
    match (kind, value) {
        (_, NodeValue::Text(_)) | (KeyKind::Duration | KeyKind::Count, NodeValue::Integer(_)) => true,
        (KeyKind::Value, value) => !matches!(value, NodeValue::Table(_)),
        _ => false,
    }
}

/// What a step takes that has a short form and a table.
fn takes(step: &StepDescription, first: &KeyDescription) -> String {
    let keys = step.keys.iter().map(|key| key.name).collect::<Vec<_>>();
    match first.kind {
        KeyKind::Endpoint | KeyKind::DynamicEndpoint => TAKES.into(),
        KeyKind::Count => format!("a whole number, text or a table with {}", list(&keys)),
        _ => format!("text or a table with {}", list(&keys)),
    }
}
