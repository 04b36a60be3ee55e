//! The steps of a route: tables of one key each, or the bare name of a step without arguments.

use smol_str::ToSmolStr;

use super::reader::Reader;
use super::tree::{Entry, Node, NodeValue};
use crate::definition::{
    ExpressionDefinition, LogLevel, PredicateDefinition, ProcessDefinition, StepDefinition, StepKind,
    WhenDefinition,
};
use crate::error::ConfigError;
use crate::source::SourceText;
use crate::value::{Json, Value};

impl Reader<'_> {
    /// An array of steps; those with mistakes are left out.
    pub(super) fn steps(&mut self, name: &str, node: &Node) -> Vec<StepDefinition> {
        let nodes = self.array(name, "an array of steps", node).unwrap_or_default();
        nodes.iter().filter_map(|node| self.step(node)).collect()
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
                // A second key is a mistake, but not a reason to overlook those in its argument.
                let mut steps = table.entries.iter().map(|entry| self.step_of_key(entry)).collect::<Vec<_>>();
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
        let error = |message| ConfigError::at(text, 0..name.len(), message);
        self.errors.push(match StepKind::from_name(name) {
            Some(StepKind::Stop) => return Some(StepDefinition::Stop),
            Some(_) => {
                error(format!("step `{name}` needs an argument")).help(format!("write `{{ {name} = ... }}`"))
            }
            None => unknown_step(error(format!("unknown step `{name}`")), name),
        });
        None
    }

    /// What each step takes: the grammar.
    fn step_of_key(&mut self, Entry { name, place, node }: &Entry) -> Option<StepDefinition> {
        let Some(kind) = StepKind::from_name(name) else {
            let error = unknown_step(self.error(place, format!("unknown step `{name}`")), name);
            self.errors.push(error);
            return None;
        };
        Some(match kind {
            StepKind::To => StepDefinition::To(self.endpoint(name, node)?),
            StepKind::ToDynamic => StepDefinition::ToDynamic(self.dynamic(name, node)?),
            StepKind::Log => self.log(node)?,
            StepKind::Process => StepDefinition::Process(ProcessDefinition::Named(self.text(name, node)?)),
            StepKind::SetBody => StepDefinition::SetBody(self.value(name, node)?),
            StepKind::SetHeader => {
                let (name, value) = self.assignment(name, node)?;
                StepDefinition::SetHeader { name, value }
            }
            StepKind::RemoveHeader => StepDefinition::RemoveHeader(self.text(name, node)?),
            StepKind::SetProperty => {
                let (name, value) = self.assignment(name, node)?;
                StepDefinition::SetProperty { name, value }
            }
            StepKind::Filter => StepDefinition::Filter(PredicateDefinition::Text(self.text(name, node)?)),
            StepKind::Choice => self.choice(node)?,
            StepKind::Delay => StepDefinition::Delay(self.delay(name, node)?),
            StepKind::Stop => {
                let error = self.error(place, "step `stop` takes no argument");
                self.errors.push(error.help("write its name alone: `\"stop\"`"));
                return None;
            }
        })
    }

    fn log(&mut self, node: &Node) -> Option<StepDefinition> {
        let message = |text| ExpressionDefinition::Text(text);
        let table = match &node.value {
            NodeValue::Text(text) => {
                let level = LogLevel::default();
                return Some(StepDefinition::Log { message: message(text.clone()), level });
            }
            NodeValue::Table(_) => self.table("log", node, &["message", "level"])?,
            _ => {
                self.wrong_type("log", "text or a table with `message` and `level`", node);
                return None;
            }
        };
        let level = match table.get("level") {
            Some(entry) => self.level(&entry.node),
            None => Some(LogLevel::default()),
        };
        let entry = self.required(table, "message", "log", &node.place)?;
        Some(StepDefinition::Log { message: message(self.text("message", &entry.node)?), level: level? })
    }

    fn level(&mut self, node: &Node) -> Option<LogLevel> {
        let text = self.text("level", node)?;
        let level = LogLevel::from_name(text.as_str());
        if level.is_none() {
            let message = format!("`level` takes one of {}", LogLevel::NAMES.join(", "));
            let error = ConfigError::at(&text, 0..text.as_str().len(), message);
            self.errors.push(error.suggest(text.as_str(), LogLevel::NAMES.iter().copied()));
        }
        level
    }

    /// `{ name = ..., value = ... }`.
    fn assignment(&mut self, step: &str, node: &Node) -> Option<(SourceText, ExpressionDefinition)> {
        let table = self.table(step, node, &["name", "value"])?;
        let name = self.required(table, "name", step, &node.place);
        let name = name.and_then(|entry| self.text("name", &entry.node));
        let value = self.required(table, "value", step, &node.place);
        let value = value.and_then(|entry| self.value("value", &entry.node));
        name.zip(value)
    }

    fn choice(&mut self, node: &Node) -> Option<StepDefinition> {
        let table = self.table("choice", node, &["when", "otherwise"])?;
        let otherwise = table.get("otherwise").map(|entry| self.steps("otherwise", &entry.node));
        let entry = self.required(table, "when", "choice", &node.place)?;
        let branches = self.array("when", "an array of `{ predicate = ..., steps = [...] }`", &entry.node)?;
        if branches.is_empty() {
            let error = self.error(&entry.node.place, "`choice` needs at least one branch in `when`");
            self.errors.push(error);
        }
        let when = branches.iter().filter_map(|branch| self.when(branch)).collect();
        Some(StepDefinition::Choice { when, otherwise: otherwise.unwrap_or_default() })
    }

    fn when(&mut self, node: &Node) -> Option<WhenDefinition> {
        let table = self.table("when", node, &["predicate", "steps"])?;
        let predicate = self.required(table, "predicate", "when", &node.place);
        let predicate = predicate.and_then(|entry| self.text("predicate", &entry.node));
        let steps = self.required(table, "steps", "when", &node.place);
        let steps = steps.map(|entry| self.steps("steps", &entry.node));
        Some(WhenDefinition { predicate: PredicateDefinition::Text(predicate?), steps: steps? })
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
    let names = StepKind::ALL.iter().map(|kind| kind.name());
    let all = names.clone().collect::<Vec<_>>().join(", ");
    error.suggest(name, names).help(format!("the steps are {all}"))
}
