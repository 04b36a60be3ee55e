//! The parser of expressions and predicates: recursive descent, errors with their place.

use std::ops::Range;

use smol_str::SmolStr;

use super::{Expression, Operator, Part, Predicate, Variable};
use crate::error::ConfigError;
use crate::source::SourceText;
use crate::value::Value;

/// The names of all placeholders, for suggestions.
const PLACEHOLDERS: [&str; 8] =
    ["body", "header", "property", "exchange_id", "route_id", "lock", "term", "node"];

pub(super) fn expression(source: &SourceText) -> Result<Expression, ConfigError> {
    template(source, 0..source.as_str().len())
}

pub(super) fn predicate(source: &SourceText) -> Result<Predicate, ConfigError> {
    let mut parser = Parser { source, position: 0, depth: 0 };
    let predicate = parser.or()?;
    parser.skip_space();
    if parser.position < source.as_str().len() {
        return Err(parser
            .error("expected an operator")
            .help("operators are == != < <= > >= contains && || and !"));
    }
    Ok(predicate)
}

/// Parses the template that stands in `range` of the source.
fn template(source: &SourceText, range: Range<usize>) -> Result<Expression, ConfigError> {
    let text = &source.as_str()[..range.end];
    let (mut parts, mut literal) = (Vec::new(), String::new());
    let mut position = range.start;
    while let Some(found) = text[position..].find("${") {
        let start = position + found;
        literal.push_str(&text[position..start]);
        if literal.ends_with('\\') {
            literal.pop();
            literal.push_str("${");
            position = start + 2;
            continue;
        }
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut literal).into()));
        }
        let (variable, end) = placeholder(source, start, range.end)?;
        parts.push(Part::Variable(variable));
        position = end;
    }
    literal.push_str(&text[position..]);
    if parts.is_empty() {
        return Ok(Expression::Constant(literal.into()));
    }
    if !literal.is_empty() {
        parts.push(Part::Text(literal.into()));
    }
    match parts.pop() {
        Some(Part::Variable(variable)) if parts.is_empty() => Ok(Expression::Variable(variable)),
        last => {
            parts.extend(last);
            Ok(Expression::Template(parts))
        }
    }
}

/// Parses the `${...}` at `start`; returns also where it ends.
fn placeholder(source: &SourceText, start: usize, limit: usize) -> Result<(Variable, usize), ConfigError> {
    let text = &source.as_str()[..limit];
    let name_start = start + 2;
    let Some(length) = text[name_start..].find('}') else {
        return Err(ConfigError::at(source, start..name_start, "this placeholder has no closing `}`"));
    };
    let name_end = name_start + length;
    let name = text[name_start..name_end].trim();
    let (head, rest) = name.split_once('.').map_or((name, None), |(head, rest)| (head, Some(rest)));
    let variable = match (head, rest) {
        ("body", None) => Variable::Body,
        ("body", Some(path)) => Variable::BodyField(path.split('.').map(SmolStr::from).collect()),
        ("header", Some(name)) if !name.is_empty() => Variable::Header(name.into()),
        ("property", Some(name)) if !name.is_empty() => Variable::Property(name.into()),
        ("exchange_id", None) => Variable::ExchangeId,
        ("route_id", None) => Variable::RouteId,
        ("lock", None) => Variable::Lock,
        ("term", None) => Variable::Term,
        ("node", None) => Variable::Node,
        _ => {
            let message = format!("unknown placeholder `{name}`");
            return Err(ConfigError::at(source, name_start..name_end, message)
                .suggest(head, PLACEHOLDERS)
                .help("placeholders are body, body.FIELD, header.NAME, property.NAME, exchange_id, route_id, lock, term and node"));
        }
    };
    Ok((variable, name_end + 1))
}

struct Parser<'a> {
    source: &'a SourceText,
    position: usize,
    /// How many `!` and `(` are open.
    depth: u32,
}

impl Parser<'_> {
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
        const OPERATORS: [(&str, Operator); 7] = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
            ("contains", Operator::Contains),
        ];
        let left = self.operand()?;
        for (written, operator) in OPERATORS {
            if self.accept(written) {
                return Ok(Predicate::Compare(left, operator, self.operand()?));
            }
        }
        Ok(Predicate::Operand(left))
    }

    fn operand(&mut self) -> Result<Expression, ConfigError> {
        self.skip_space();
        let rest = self.rest();
        if rest.starts_with("${") {
            let (variable, end) = placeholder(self.source, self.position, self.source.as_str().len())?;
            self.position = end;
            return Ok(Expression::Variable(variable));
        }
        if let Some(quote @ ('\'' | '"')) = rest.chars().next() {
            let start = self.position + 1;
            let Some(length) = self.source.as_str()[start..].find(quote) else {
                let range = self.position..start;
                return Err(ConfigError::at(self.source, range, "this text has no closing quote"));
            };
            self.position = start + length + 1;
            return template(self.source, start..start + length);
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
            _ => match (word.parse::<i64>(), word.parse::<f64>()) {
                (Ok(number), _) => Value::Integer(number),
                (_, Ok(number)) => Value::Float(number),
                _ => return Err(self.no_operand()),
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
        let found = self.rest().starts_with(token);
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

    /// A mistake at the next word, or at the end.
    fn error(&self, message: &str) -> ConfigError {
        let word = self.rest().split_whitespace().next().map_or(0, str::len);
        ConfigError::at(self.source, self.position..self.position + word, message)
    }
}
