//! [`Template`]: a URI whose placeholders are values, taken apart before any value is put into it.

use std::collections::HashSet;

use smol_str::{SmolStr, ToSmolStr};

use super::allow::Allowed;
use super::shown;
use crate::body::Needs;
use crate::component::{BuildContext, check_uses};
use crate::error::{BoxError, ConfigError, ConfigErrors};
use crate::exchange::Exchange;
use crate::expression::{Piece, Scope, Variable, pieces, variable};
use crate::options::{ComponentDescription, OptionKind, PathKind, Side, misplaced_secret};
use crate::source::SourceText;
use crate::uri::{Encoding, EndpointUri, Part, UriOption, decode, encode};
use crate::value::Value;

/// A URI with placeholders.
pub(super) struct Template {
    scheme: String,
    description: &'static ComponentDescription,
    path: Field,
    options: Vec<(String, Field)>,
    /// The placeholders of path and options, in order.
    variables: Vec<(Variable, SmolStr)>,
    /// Where the URI stands, for an error that concerns all of it.
    source: SourceText,
    /// The path, if it stands beside the URI.
    path_beside: Option<Part>,
}

/// The path or the value of an option.
struct Field {
    pieces: Vec<FieldPiece>,
    language: Language,
}

/// What a field is read as, once the URI was taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    /// Text: a value is put in as it is.
    Plain,
    /// A piece of a URL, which somebody else decodes: a value is encoded.
    Url,
}

enum FieldPiece {
    /// What the author wrote, decoded.
    Text(String),
    /// The value of that number.
    Value(usize),
}

/// Takes the place of each byte of a placeholder: it separates nothing, and is in no name.
const MASK: &str = "\u{1}";

impl Template {
    pub(super) fn compile(
        text: &SourceText,
        beside: &[(SourceText, SourceText)],
        context: &BuildContext<'_>,
    ) -> Result<Self, ConfigErrors> {
        let written = text.as_str();
        let mut masked = written.to_owned();
        for piece in pieces(written, 0..written.len(), &[]) {
            if let Piece::Placeholder(range) = piece {
                if !written[..range.start].contains(':') {
                    let error = ConfigError::at(text, range, "a placeholder cannot give the component");
                    return Err(error.help(SCHEME_HELP).into());
                }
                masked.replace_range(range.clone(), &MASK.repeat(range.len()));
            }
        }
        let uri = EndpointUri::parse_masked(text, &masked, beside)?;
        let description = context.registry.component(&uri)?.description();
        if !description.produces {
            let message = format!("component `{}` cannot be used in `to`", uri.scheme());
            return Err(uri.error_in_scheme(message).into());
        }
        let uri = uri.with_path_beside(description.path.key)?;
        let mut compiler = Compiler { description, errors: ConfigErrors::default(), variables: Vec::new() };
        let path = compiler.path(uri.path_part());
        let options = compiler.options(uri.options());
        compiler.errors.extend(check_uses(description, &uri, Side::To, context));
        if description.path.kind == PathKind::Url {
            compiler.errors.collect(uri.decoded_path().map(drop));
        }
        let warnings = compiler.errors.into_warnings()?;
        context.findings.borrow_mut().warnings.extend(warnings);
        let variables = compiler.variables;
        let source = text.clone();
        let path_beside = Some(uri.path_part().clone()).filter(|part| part.encoding() == Encoding::None);
        let scheme = uri.scheme().to_owned();
        Ok(Self { scheme, description, path, options, variables, source, path_beside })
    }

    pub(super) fn kind(&self) -> PathKind {
        self.description.path.kind
    }

    /// Whether messages choose the endpoint, and not only a part of what is sent to it.
    pub(super) fn is_chosen(&self) -> bool {
        let has_value =
            |pieces: &[FieldPiece]| pieces.iter().any(|piece| matches!(piece, FieldPiece::Value(_)));
        match self.kind() {
            PathKind::Route => has_value(&self.path.pieces),
            PathKind::Url => {
                let mut before_host = true;
                let ends = |piece: &FieldPiece| {
                    let FieldPiece::Text(text) = piece else { return false };
                    let text = if before_host { text.trim_start_matches(is_slash) } else { text };
                    before_host &= text.is_empty();
                    text.contains('/')
                };
                let end = self.path.pieces.iter().position(ends).unwrap_or(self.path.pieces.len());
                has_value(&self.path.pieces[..end])
            }
            PathKind::Name | PathKind::Directory | PathKind::Code => false,
        }
    }

    /// Checks that what messages choose is among what the author has named.
    pub(super) fn check_allowed(&self, allowed: &Allowed) -> Result<(), ConfigErrors> {
        allowed.useless(&self.scheme).into_result()?;
        let prefix = matches!(self.path.pieces.first(), Some(FieldPiece::Text(_)));
        if !self.is_chosen() || !allowed.is_empty() || (prefix && self.kind() == PathKind::Route) {
            return Ok(());
        }
        let (what, first) = match self.kind() {
            PathKind::Url => ("host", format!("{}:host/*", self.scheme)),
            _ => ("route", format!("{}:a", self.scheme)),
        };
        let uri = self.source.as_str();
        let beside = self.path_beside.as_ref().map(|path| (path, self.description.path.key));
        let written =
            beside.map_or_else(String::new, |(path, key)| format!("{key} = \"{}\", ", path.as_str()));
        let mut help =
            format!("say which ones it may choose: `{{ uri = \"{uri}\", {written}allow = [\"{first}\"] }}`");
        if self.kind() == PathKind::Route {
            help.push_str(&format!(", or begin the name yourself: `{}:order-${{...}}`", self.scheme));
        }
        let message = format!("a message would choose any {what}");
        let error = match beside {
            Some((path, _)) => path.error(message),
            None => ConfigError::at(&self.source, 0..uri.len(), message),
        };
        Err(error.help(help).into())
    }

    /// What it needs of the body.
    pub(super) fn needs(&self) -> Needs {
        self.variables.iter().map(|(variable, _)| variable.needs()).max().unwrap_or_default()
    }

    /// The values of an exchange.
    pub(super) fn values(&self, exchange: &Exchange, scope: Scope<'_>) -> Result<Box<[SmolStr]>, BoxError> {
        let values = self.variables.iter().map(|(variable, written)| {
            let value = variable.evaluate(exchange, scope)?;
            match &value {
                value if value.is_null() => Err(format!("`{written}` has no value").into()),
                Value::Text(text) => Ok(text.clone()),
                Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Ok(text.into()),
                    Err(_) => Err(format!("`{written}` is no text").into()),
                },
                value => Ok(value.to_smolstr()),
            }
        });
        values.collect()
    }

    /// The URI with these values. Each stands where its placeholder stood, and changes nothing else.
    pub(super) fn uri(&self, values: &[SmolStr]) -> Result<EndpointUri, BoxError> {
        let path = match self.kind() {
            PathKind::Directory | PathKind::Url => self.segments(values)?,
            PathKind::Name | PathKind::Route | PathKind::Code => self.path.text(values),
        };
        let options = self.options.iter().map(|(name, field)| (name.clone(), field.text(values)));
        Ok(EndpointUri::assembled(&self.scheme, &path, options))
    }

    /// The path, where slashes separate: a value is a part of one segment.
    fn segments(&self, values: &[SmolStr]) -> Result<String, BoxError> {
        let is_url = self.kind() == PathKind::Url;
        let (mut path, mut authority) = (String::new(), is_url);
        let (mut segment, mut last) = (String::new(), None);
        for piece in &self.path.pieces {
            match piece {
                FieldPiece::Text(text) => {
                    for (index, part) in text.split('/').enumerate() {
                        if index > 0 {
                            self.check_segment(&segment, last.take())?;
                            segment.clear();
                            // The slashes in front of a host are none behind it.
                            authority &= path.trim_start_matches(is_slash).is_empty();
                            path.push('/');
                        }
                        segment.push_str(part);
                        path.push_str(part);
                    }
                }
                FieldPiece::Value(number) => {
                    let value = values[*number].as_str();
                    if !is_url && value.contains(['/', '\0']) {
                        return Err(self.refused(*number, value, "is no name in a directory"));
                    }
                    segment.push_str(value);
                    last = Some((*number, value));
                    match (is_url, authority) {
                        (false, _) => path.push_str(value),
                        (true, false) => path.push_str(&encode(value)),
                        // A port is a part of it.
                        (true, true) => path.push_str(&encode(value).replace("%3A", ":")),
                    }
                }
            }
        }
        self.check_segment(&segment, last)?;
        Ok(path)
    }

    /// A segment with a value in it is one, and does not lead elsewhere, also not when a server decodes it
    /// twice.
    fn check_segment(&self, segment: &str, value: Option<(usize, &str)>) -> Result<(), BoxError> {
        let Some((number, value)) = value else { return Ok(()) };
        let climbs = segment.split(['/', '\\']).any(|part| part == "..");
        match segment {
            "" => Err(self.refused(number, value, "leaves its place in the path empty")),
            "." => Err(self.refused(number, value, "would lead elsewhere")),
            _ if climbs => Err(self.refused(number, value, "would lead elsewhere")),
            _ => Ok(()),
        }
    }

    fn refused(&self, number: usize, value: &str, why: &str) -> BoxError {
        format!("`{}` is `{}`, which {why}", self.variables[number].1, shown(value)).into()
    }
}

/// What those who read URLs overlook in front of a host.
fn is_slash(letter: char) -> bool {
    matches!(letter, '/' | '\\') || letter.is_whitespace() || letter.is_control()
}

const SCHEME_HELP: &str =
    "write the component, or let one placeholder be the whole URI, with `allow = [...]`";

impl Field {
    fn text(&self, values: &[SmolStr]) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                FieldPiece::Text(piece) => text.push_str(piece),
                FieldPiece::Value(number) => match self.language {
                    Language::Plain => text.push_str(&values[*number]),
                    Language::Url => text.push_str(&encode(&values[*number])),
                },
            }
        }
        text
    }
}

/// One run over a template: it goes on after an error, to find the others too.
struct Compiler {
    description: &'static ComponentDescription,
    errors: ConfigErrors,
    variables: Vec<(Variable, SmolStr)>,
}

impl Compiler {
    fn path(&mut self, part: &Part) -> Field {
        let code = self.description.path.kind == PathKind::Code;
        let message = code.then_some("a placeholder cannot stand here: what a message says would be code");
        match self.description.path.kind {
            // It is not decoded here, but by a server.
            PathKind::Url => self.field(part, Encoding::None, &[], Language::Url, message),
            _ => self.field(part, part.encoding(), &[], Language::Plain, message),
        }
    }

    fn options(&mut self, written: &[UriOption]) -> Vec<(String, Field)> {
        let mut seen = HashSet::new();
        let mut options = Vec::new();
        for UriOption { name, value } in written {
            let text = name.as_str();
            if text.contains("${") {
                let error = name.error("a placeholder cannot name an option");
                self.errors.push(error.help("write the name; the value may be a placeholder"));
                continue;
            }
            if !seen.insert(text) {
                self.errors.push(name.error(format!("option `{text}` is given twice")));
            }
            let Some(option) = self.description.option(text) else {
                self.errors.push(self.description.unknown_option(name));
                continue;
            };
            let refused = match option.kind {
                OptionKind::Secret => Some("a placeholder cannot stand here: no message names a secret"),
                OptionKind::Url => Some("a placeholder cannot stand here: no message says where this is"),
                _ => None,
            };
            let own = option.kind.own_placeholders();
            let language = match option.kind {
                OptionKind::Query => Language::Url,
                _ => Language::Plain,
            };
            let field = self.field(value, value.encoding(), own, language, refused);
            if !field.pieces.iter().any(|piece| matches!(piece, FieldPiece::Value(_))) {
                self.constant(option.kind, name, value);
            }
            options.push((text.to_owned(), field));
        }
        options
    }

    /// An option that is the same for every exchange is checked now.
    fn constant(&mut self, kind: OptionKind, name: &Part, value: &Part) {
        if value.as_str().contains("${") {
            return;
        }
        let Some(text) = self.errors.collect(value.decoded()) else { return };
        if let Err(expected) = kind.check(&text) {
            self.errors.push(match kind {
                OptionKind::Secret => misplaced_secret(name, value, &expected),
                _ => value.error(format!("option `{}` takes {expected}", name.as_str())),
            });
        }
    }

    fn field(
        &mut self,
        part: &Part,
        encoding: Encoding,
        own: &[&str],
        language: Language,
        refused: Option<&str>,
    ) -> Field {
        let mut found = Vec::new();
        for piece in pieces(part.text().as_str(), part.range(), own) {
            match piece {
                Piece::Text(text) => {
                    let text = match decode(&text, encoding) {
                        Ok(text) => text.into_owned(),
                        Err(escape) => {
                            self.errors.push(part.not_text(&text[escape], 0..part.range().len()));
                            continue;
                        }
                    };
                    found.push(FieldPiece::Text(match language {
                        Language::Plain => text,
                        Language::Url => escape_lone_percents(&text),
                    }));
                }
                Piece::Placeholder(range) => {
                    if let Some(message) = refused {
                        let help = format!("`bactrian doc {}` says what can", self.description.scheme);
                        self.errors.push(ConfigError::at(part.text(), range, message).help(help));
                        continue;
                    }
                    let written = part.text().as_str()[range.clone()].into();
                    if let Some(variable) = self.errors.collect(variable(part.text(), range)) {
                        found.push(FieldPiece::Value(self.variables.len()));
                        self.variables.push((variable, written));
                    }
                }
            }
        }
        Field { pieces: found, language }
    }
}

/// A `%` that begins no escape would make one with the first letters of a value behind it.
fn escape_lone_percents(text: &str) -> String {
    let is_escape = |at: usize| {
        text.get(at + 1..at + 3).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let mut escaped = String::with_capacity(text.len());
    for (at, letter) in text.char_indices() {
        escaped.push(letter);
        if letter == '%' && !is_escape(at) {
            escaped.push_str("25");
        }
    }
    escaped
}
