//! The parser of expressions and predicates: recursive descent, errors with their place.

use std::ops::Range;

use smol_str::SmolStr;

use super::{Comparison, ExceptionField, Expression, Operator, Part, Predicate, Variable};
use crate::error::{ConfigError, ConfigErrors};
use crate::source::SourceText;
use crate::value::{Number, NumberError, Value};

/// The names of all placeholders, for suggestions.
const PLACEHOLDERS: [&str; 9] =
    ["body", "header", "property", "exchange_id", "route_id", "lock", "term", "node", "exception"];

pub(super) fn expression(source: &SourceText) -> Result<Expression, ConfigErrors> {
    let mut errors = ConfigErrors::default();
    let expression = template(source, 0..source.as_str().len(), &mut errors);
    errors.into_result().map(|()| expression)
}

pub(super) fn predicate(source: &SourceText) -> Result<Predicate, ConfigErrors> {
    let mut parser = Parser { source, position: 0, depth: 0, errors: ConfigErrors::default() };
    let predicate = parser.or().and_then(|predicate| parser.end().map(|()| predicate));
    let failed_at = predicate.is_err().then_some(parser.position);
    let mut errors = std::mem::take(&mut parser.errors);
    let predicate = errors.collect(predicate);
    if let Some(position) = failed_at {
        parser.read_rest(position, &mut errors);
    }
    errors.into_result()?;
    Ok(predicate.unwrap_or(Predicate::Operand(Expression::Constant(Value::Null))))
}

/// A piece of a text with placeholders.
pub(crate) enum Piece {
    /// Text, without the backslashes that were escapes.
    Text(String),
    /// The bytes of a `${...}`; of its `${` alone where there is no `}`.
    Placeholder(Range<usize>),
}

/// Cuts the bytes `range` of a text at its placeholders. `own` are those that stay as they are.
///
/// Before a `${`, and nowhere else, two backslashes stand for one, and one is an escape.
pub(crate) fn pieces(text: &str, range: Range<usize>, own: &[&str]) -> Vec<Piece> {
    let text = &text[..range.end];
    let (mut pieces, mut literal, mut position) = (Vec::new(), String::new(), range.start);
    while let Some(found) = text[position..].find("${") {
        let start = position + found;
        let before = &text[position..start];
        let kept = before.trim_end_matches('\\');
        let backslashes = before.len() - kept.len();
        literal.push_str(kept);
        literal.push_str(&before[kept.len()..kept.len() + backslashes / 2]);
        position = start + 2;
        if backslashes % 2 == 1 || own.iter().any(|own| text[start..].starts_with(own)) {
            literal.push_str("${");
            continue;
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
        }
        position += text[position..].find('}').map_or(0, |length| length + 1);
        pieces.push(Piece::Placeholder(start..position));
    }
    literal.push_str(&text[position..]);
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    pieces
}

/// Parses the template that stands in `range` of the source.
fn template(source: &SourceText, range: Range<usize>, errors: &mut ConfigErrors) -> Expression {
    let pieces = pieces(source.as_str(), range, &[]).into_iter();
    let mut parts = pieces
        .filter_map(|piece| match piece {
            Piece::Text(text) => Some(Part::Text(text.into())),
            Piece::Placeholder(range) => {
                let written = SmolStr::from(&source.as_str()[range.clone()]);
                errors.collect(variable(source, range)).map(|variable| Part::Variable(variable, written))
            }
        })
        .collect::<Vec<_>>();
    match (parts.pop(), parts.is_empty()) {
        (None, _) => Expression::Constant("".into()),
        (Some(Part::Text(text)), true) => Expression::Constant(text.into()),
        (Some(Part::Variable(variable, _)), true) => Expression::Variable(variable),
        (Some(last), false) => {
            parts.push(last);
            Expression::Template(parts)
        }
    }
}

/// Reads a [`Piece::Placeholder`].
pub(crate) fn variable(source: &SourceText, range: Range<usize>) -> Result<Variable, ConfigError> {
    let written = &source.as_str()[range.clone()];
    let Some(inside) = written.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        return Err(ConfigError::at(source, range, "this placeholder has no closing `}`"));
    };
    if let Some(inner) = inside.find("${") {
        let range = range.start + 2 + inner..range.end;
        let error = ConfigError::at(source, range, "a placeholder cannot stand inside another one");
        return Err(
            error.help("set a header to the name, and let code look it up: a message chooses no header")
        );
    }
    let name = inside.trim();
    if let Some(error) = wrong_name(source, range.start + 2 + inside.find(name).unwrap_or(0), name) {
        return Err(error);
    }
    let (head, rest) = name.split_once('.').map_or((name, None), |(head, rest)| (head, Some(rest)));
    Ok(match (head, rest) {
        ("body", None) => Variable::Body,
        ("body", Some(path)) => Variable::BodyField(path.split('.').map(SmolStr::from).collect()),
        ("header", Some(name)) if !name.is_empty() => Variable::Header(name.into()),
        ("property", Some(name)) if !name.is_empty() => Variable::Property(name.into()),
        ("exchange_id", None) => Variable::ExchangeId,
        ("route_id", None) => Variable::RouteId,
        ("lock", None) => Variable::Lock,
        ("term", None) => Variable::Term,
        ("node", None) => Variable::Node,
        ("exception", field) => Variable::Exception(exception_field(source, range, field.unwrap_or(""))?),
        _ => {
            let message = format!("unknown placeholder `{name}`");
            return Err(ConfigError::at(source, range.start + 2..range.end - 1, message)
                .suggest(head, PLACEHOLDERS)
                .help("placeholders are body, body.FIELD, header.NAME, property.NAME, exchange_id, route_id, lock, term, node and exception.FIELD"));
        }
    })
}

/// A name that is found nowhere, though it was meant to be: `body.`, `header. x` and `body.items[0]`.
fn wrong_name(source: &SourceText, start: usize, name: &str) -> Option<ConfigError> {
    let mut end = start;
    for part in name.split('.') {
        let begin = end;
        end = begin + part.len() + 1;
        if name.contains('.') && part.trim() != part || part.is_empty() && name.starts_with("body.") {
            let range = begin.saturating_sub(1)..begin + part.len();
            return Some(ConfigError::at(source, range, "a name stands here, without white space around it"));
        }
        let index = part.strip_suffix(']').and_then(|part| part.split_once('['));
        if let Some((field, index)) = index.filter(|_| name.starts_with("body."))
            && index.bytes().all(|byte| byte.is_ascii_digit())
        {
            let error =
                ConfigError::at(source, begin..begin + part.len(), "an element of a list is a field of it");
            return Some(error.help(format!("write `{field}.{index}`")));
        }
    }
    None
}

fn exception_field(
    source: &SourceText,
    range: Range<usize>,
    written: &str,
) -> Result<ExceptionField, ConfigError> {
    if let Some((_, field)) = ExceptionField::ALL.iter().find(|(name, _)| *name == written) {
        return Ok(*field);
    }
    let names = || ExceptionField::ALL.iter().map(|(name, _)| *name);
    let message = match written {
        "" => "`exception` needs a field".into(),
        _ => format!("an exception has no `{written}`"),
    };
    let error = ConfigError::at(source, range.start + 2..range.end - 1, message).suggest(written, names());
    Err(error.help(format!("it has {}", names().collect::<Vec<_>>().join(", "))))
}

struct Parser<'a> {
    source: &'a SourceText,
    position: usize,
    /// How many `!` and `(` are open.
    depth: u32,
    /// What is wrong inside of operands: it does not keep the rest from being read.
    errors: ConfigErrors,
}

impl Parser<'_> {
    /// Looks for errors behind one: in placeholders, and in conditions that begin anew behind `&&` or `||`. Where there are
    /// parentheses or quotes, it cannot be told where one begins.
    fn read_rest(&mut self, mut position: usize, errors: &mut ConfigErrors) {
        let text = self.source.as_str();
        let begins_anew = !text.contains(['(', ')', '\'', '"']);
        loop {
            let operators = ["&&", "||"].into_iter().filter(|_| begins_anew);
            let next =
                operators.filter_map(|operator| Some(position + text[position..].find(operator)? + 2)).min();
            for piece in pieces(text, position..next.unwrap_or(text.len()), &[]) {
                // One that does not end has been reported, or is the last thing there is.
                if let Piece::Placeholder(range) = piece
                    && text[range.clone()].ends_with('}')
                {
                    errors.collect(variable(self.source, range));
                }
            }
            let Some(next) = next else { return };
            (self.position, self.depth) = (next, 0);
            let rest = self.or().and_then(|_| self.end());
            errors.extend(std::mem::take(&mut self.errors));
            if errors.collect(rest).is_some() {
                return;
            }
            position = self.position;
        }
    }

    /// Nothing is left.
    fn end(&mut self) -> Result<(), ConfigError> {
        self.skip_space();
        if self.position == self.source.as_str().len() {
            return Ok(());
        }
        Err(self.error("expected an operator").help("operators are == != < <= > >= contains in && || and !"))
    }

    fn or(&mut self) -> Result<Predicate, ConfigError> {
        let mut left = self.and()?;
        while self.accept("||") {
            left = Predicate::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Predicate, ConfigError> {
        let mut left = self.not()?;
        while self.accept("&&") {
            left = Predicate::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Predicate, ConfigError> {
        /// Each level uses the stack, here and when the predicate is asked.
        const MAX_DEPTH: u32 = 64;
        if self.depth == MAX_DEPTH {
            return Err(self.error("this predicate is nested too deep"));
        }
        self.depth += 1;
        let predicate = if self.accept("!") {
            Predicate::Not(Box::new(self.not()?))
        } else if self.accept("(") {
            let inner = self.or()?;
            if !self.accept(")") {
                return Err(self.error("expected `)`"));
            }
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(predicate)
    }

    fn comparison(&mut self) -> Result<Predicate, ConfigError> {
        /// Longer operators first: `<` is the beginning of `<=`.
        const OPERATORS: [(&str, Operator); 8] = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
            ("contains", Operator::Contains),
            ("in", Operator::In),
        ];
        self.skip_space();
        let start = self.position;
        let left = self.operand()?;
        for (written, operator) in OPERATORS {
            if self.accept(written) {
                let right = self.operand()?;
                let written = self.source.as_str()[start..self.position].into();
                return Ok(Predicate::Compare(Comparison { left, operator, right, written }));
            }
        }
        Ok(Predicate::Operand(left))
    }

    fn operand(&mut self) -> Result<Expression, ConfigError> {
        self.skip_space();
        let rest = self.rest();
        if rest.starts_with("${") {
            let start = self.position;
            let Some(length) = rest.find('}') else {
                return Err(ConfigError::at(
                    self.source,
                    start..start + 2,
                    "this placeholder has no closing `}`",
                ));
            };
            self.position += length + 1;
            let variable = self.errors.collect(variable(self.source, start..self.position));
            return Ok(variable.map_or(Expression::Constant(Value::Null), Expression::Variable));
        }
        if let Some(quote @ ('\'' | '"')) = rest.chars().next() {
            let start = self.position + 1;
            let Some(length) = self.source.as_str()[start..].find(quote) else {
                let range = self.position..start;
                return Err(ConfigError::at(self.source, range, "this text has no closing quote"));
            };
            self.position = start + length + 1;
            return Ok(template(self.source, start..start + length, &mut self.errors));
        }
        let length =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c))).unwrap_or(rest.len());
        let word = &rest[..length];
        let value = match word {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            "null" => Value::Null,
            // `nan` and `inf` are words, whatever Rust reads them as.
            _ if word.starts_with(|first: char| first.is_ascii_alphabetic()) => return Err(self.no_operand()),
            _ => match word.strip_prefix('+').unwrap_or(word).parse::<Number>() {
                Ok(number) => number.into(),
                Err(NumberError::Exponent) => return Err(self.error(&NumberError::Exponent.to_string())),
                Err(NumberError::Form) => return Err(self.no_operand()),
            },
        };
        self.position += length;
        Ok(Expression::Constant(value))
    }

    fn no_operand(&self) -> ConfigError {
        self.error("expected an operand").help(
            "an operand is a placeholder like ${header.x}, a quoted text, a number, true, false or null",
        )
    }

    /// Steps over `token` if it comes next.
    fn accept(&mut self, token: &str) -> bool {
        self.skip_space();
        // `in` does not begin a longer word.
        let word = token.ends_with(|last: char| last.is_ascii_alphabetic());
        let found = self.rest().strip_prefix(token).is_some_and(|rest| {
            !(word && rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_'))
        });
        if found {
            self.position += token.len();
        }
        found
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.position += rest.len() - rest.trim_start().len();
    }

    fn rest(&self) -> &str {
        &self.source.as_str()[self.position..]
    }

    /// An error at the next word, or at the end.
    fn error(&self, message: &str) -> ConfigError {
        let word = self.rest().split_whitespace().next().map_or(0, str::len);
        ConfigError::at(self.source, self.position..self.position + word, message)
    }
}
