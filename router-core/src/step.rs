//! What a step is, on one screen: a [`StepDescription`], which the front ends read, and the function that compiles it.
//!
//! Each step is one file in `steps/`. It describes itself once; from that come the TOML grammar, `bactrian doc` and the
//! table of the guide. A [`StepDefinition`] is a description and its arguments: inert, and the same for all steps, so
//! whoever looks into definitions (for blocks, to compare or print them) needs no list of steps. Compiling one gives an
//! `Action`, which is all that the interpreter knows.

mod compiler;

use std::fmt;

use crate::source::SourceText;
use crate::written::{
    DynamicDefinition, EndpointDefinition, ExpressionDefinition, PredicateDefinition, ProcessDefinition,
};

pub(crate) use crate::pipeline::{Action, Block, Flow, InlineStep, Runner, ScopeStep};

pub(crate) use compiler::{Compiled, Compiler, Runs};

/// What a step is for, what it takes, and how it is compiled.
pub struct StepDescription {
    /// Its name, in snake case: the key of the TOML grammar.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// What it takes, in the order in which it is documented. A step without keys is its bare name.
    pub keys: &'static [KeyDescription],
    /// Whether its first key can be written without a table: `{ log = "text" }`. A step with no other key has this form
    /// alone.
    pub is_short: bool,
    /// A step in TOML.
    pub example: &'static str,
    /// Makes the action of a step, or reports what is wrong with it.
    pub(crate) compile: fn(&StepDefinition, &mut Compiler<'_>) -> Option<Action>,
}

/// One key of a step.
#[derive(Debug)]
pub struct KeyDescription {
    /// Its name, in snake case.
    pub name: &'static str,
    /// What it takes.
    pub kind: KeyKind,
    /// Whether it must be given, and what it is otherwise.
    pub need: Need,
    /// One sentence.
    pub summary: &'static str,
}

/// Whether a key must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// It must.
    Required,
    /// It need not; without it there is nothing.
    Optional,
    /// Exactly one of these keys must, and it is one of them.
    OneOf(&'static [&'static str]),
    /// It need not; this is its default, as it would be written.
    Default(&'static str),
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum KeyKind {
    /// Text that is the same for every exchange: a name.
    Name,
    /// The name of Rust code, which stands itself there in the builder.
    Process,
    /// Text with placeholders.
    Template,
    /// Text with placeholders, or any other value; an array or a table is JSON.
    Value,
    /// A duration: text, which may have placeholders, or bare milliseconds.
    Duration,
    /// A whole number, or text with placeholders that gives one.
    Count,
    /// What holds or not.
    Predicate,
    /// `true` or `false`.
    Flag,
    /// One of these words, in any case.
    Word(&'static [&'static str]),
    /// An endpoint. Keys that the step does not know are options beside its URI.
    Endpoint,
    /// An endpoint that depends on the exchange, as [`Endpoint`](Self::Endpoint).
    DynamicEndpoint,
    /// An array of URIs.
    Uris,
    /// An array of texts that are the same for every exchange.
    Names,
    /// A block: an array of steps.
    Steps,
    /// An array of tables with these keys, at least one.
    Tables(&'static [KeyDescription]),
}

impl KeyKind {
    /// The name of this kind in the documentation.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Name => "text".into(),
            Self::Process => "name of Rust code".into(),
            Self::Template => "text with placeholders".into(),
            Self::Value => "value".into(),
            Self::Duration => "duration".into(),
            Self::Count => "whole number".into(),
            Self::Predicate => "predicate".into(),
            Self::Flag => "boolean".into(),
            Self::Word(words) => words.join(", "),
            Self::Endpoint | Self::DynamicEndpoint => "URI".into(),
            Self::Uris => "array of URIs".into(),
            Self::Names => "array of texts".into(),
            Self::Steps => "array of steps".into(),
            Self::Tables(_) => "array of tables".into(),
        }
    }
}

/// What was written for a key.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is what a `KeyKind` takes")]
#[non_exhaustive]
pub enum Argument {
    Text(SourceText),
    Texts(Vec<SourceText>),
    Process(ProcessDefinition),
    Expression(ExpressionDefinition),
    Predicate(PredicateDefinition),
    Flag(bool),
    Word(&'static str),
    Endpoint(EndpointDefinition),
    /// Boxed, because it is large and rare.
    Dynamic(Box<DynamicDefinition>),
    Steps(Vec<StepDefinition>),
    Tables(Vec<Arguments>),
}

/// What was written for the keys of a step, or of a table in one. The order in which they were written says nothing.
#[derive(Clone, Default)]
pub struct Arguments(Vec<(&'static str, Argument)>);

/// One step as it was written.
#[derive(Clone, PartialEq)]
pub struct StepDefinition {
    description: &'static StepDescription,
    /// Where it was written: its name.
    pub(crate) place: SourceText,
    arguments: Arguments,
}

/// A key that must be given.
pub(crate) const fn required(name: &'static str, kind: KeyKind, summary: &'static str) -> KeyDescription {
    KeyDescription { name, kind, need: Need::Required, summary }
}

/// A key that need not be given.
pub(crate) const fn optional(name: &'static str, kind: KeyKind, summary: &'static str) -> KeyDescription {
    KeyDescription { name, kind, need: Need::Optional, summary }
}

/// A key, one of those of `keys` that exactly one must be given of.
pub(crate) const fn one_of(
    keys: &'static [&'static str],
    name: &'static str,
    kind: KeyKind,
    summary: &'static str,
) -> KeyDescription {
    KeyDescription { name, kind, need: Need::OneOf(keys), summary }
}

/// A key with a default.
pub(crate) const fn defaulted(
    name: &'static str,
    kind: KeyKind,
    default: &'static str,
    summary: &'static str,
) -> KeyDescription {
    KeyDescription { name, kind, need: Need::Default(default), summary }
}

impl StepDefinition {
    /// A step, with nothing written for its keys.
    pub(crate) fn new(description: &'static StepDescription, place: SourceText) -> Self {
        Self { description, place, arguments: Arguments::default() }
    }

    /// A step that is written in Rust, by the caller.
    #[track_caller]
    pub(crate) fn in_code(description: &'static StepDescription) -> Self {
        Self::new(description, SourceText::from_code(description.name))
    }

    /// Adds what is written for a key.
    #[must_use]
    pub(crate) fn with(mut self, key: &'static str, argument: Argument) -> Self {
        self.arguments.set(key, argument);
        self
    }

    /// The same step with these arguments.
    #[cfg(feature = "toml")]
    #[must_use]
    pub(crate) fn with_all(self, arguments: Arguments) -> Self {
        Self { arguments, ..self }
    }

    /// What kind of step this is.
    #[must_use]
    pub fn description(&self) -> &'static StepDescription {
        self.description
    }

    /// The name of the step, as in the TOML grammar.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.description.name
    }

    /// What was written for its keys.
    #[must_use]
    pub fn arguments(&self) -> &Arguments {
        &self.arguments
    }

    /// The blocks in it, in the order in which they were written.
    #[must_use]
    pub fn blocks(&self) -> Vec<&[Self]> {
        self.arguments.blocks()
    }
}

/// The getters panic when the argument is of another kind than the description says: that is an error of the step, which
/// its first test finds.
impl Arguments {
    pub(crate) fn set(&mut self, key: &'static str, argument: Argument) {
        // Most steps have one or two, and each route keeps them.
        self.0.reserve_exact(1);
        self.0.push((key, argument));
    }

    /// What was written for this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Argument> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, argument)| argument)
    }

    fn blocks(&self) -> Vec<&[StepDefinition]> {
        let arguments = self.0.iter().map(|(_, argument)| argument);
        arguments
            .flat_map(|argument| match argument {
                Argument::Steps(steps) => vec![steps.as_slice()],
                Argument::Tables(tables) => tables.iter().flat_map(Self::blocks).collect(),
                _ => Vec::new(),
            })
            .collect()
    }
}

/// A getter for each kind of argument, and what is returned where nothing was written.
macro_rules! getters {
    ($($(#[$docs:meta])* $name:ident($argument:ident) -> $type:ty, $get:expr;)*) => {
        impl Arguments {
            $(
                $(#[$docs])*
                #[allow(dead_code, reason = "not every kind of step has been written")]
                pub(crate) fn $name(&self, key: &str) -> Option<$type> {
                    match self.get(key)? {
                        Argument::$argument(value) => Some($get(value)),
                        other => panic!("the key {key} is something else: {other:?}"),
                    }
                }
            )*
        }
    };
}

getters! {
    text(Text) -> &SourceText, std::convert::identity;
    texts(Texts) -> &[SourceText], Vec::as_slice;
    process(Process) -> &ProcessDefinition, std::convert::identity;
    expression(Expression) -> &ExpressionDefinition, std::convert::identity;
    predicate(Predicate) -> &PredicateDefinition, std::convert::identity;
    flag(Flag) -> bool, |flag: &bool| *flag;
    word(Word) -> &'static str, |word: &&'static str| *word;
    endpoint(Endpoint) -> &EndpointDefinition, std::convert::identity;
    dynamic(Dynamic) -> &DynamicDefinition, Box::as_ref;
    steps(Steps) -> &[StepDefinition], Vec::as_slice;
    tables(Tables) -> &[Arguments], Vec::as_slice;
}

impl PartialEq for Arguments {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|(key, argument)| other.get(key) == Some(argument))
    }
}

impl fmt::Debug for Arguments {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.0.iter().map(|(key, argument)| (key, argument))).finish()
    }
}

impl fmt::Debug for StepDefinition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {:?}", self.name(), self.arguments)
    }
}

impl fmt::Debug for StepDescription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// There is one description for each name.
impl PartialEq for StepDescription {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
