//! [`tokens`]: SQL cut into the parts that matter for finding its parameters.

use std::ops::Range;

/// Whose SQL it is: the two differ in what quotes, comments and brackets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

/// An error in a statement, and the bytes that it is about.
pub(super) type LexError = (Range<usize>, String);

/// A part of a statement. White space and comments are none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A name without quotes, or a keyword.
    Word(&'a str),
    /// The digits at the beginning of a number.
    Number,
    /// A text, or a name in quotes.
    Quoted,
    /// `:name`.
    Parameter(&'a str),
    /// The backslash of `\:`, which is not part of the statement.
    Escape,
    /// `=`, `<>` and the like.
    Comparison(&'a str),
    /// Any other character, or `::`, `:=`, `->`, `->>`, `||`, `<<` and `>>`.
    Symbol(&'a str),
}

const UNNAMED: &str = "parameters have names here: write `:name`";
const OPEN_QUOTE: &str = "this quote does not end";

/// The tokens of a statement, and where each stands.
pub(super) fn tokens(text: &str, dialect: Dialect) -> Result<Vec<(Range<usize>, Token<'_>)>, LexError> {
    let mut lexer = Lexer { text, dialect, brackets: Vec::new(), operand: false };
    let (mut tokens, mut place) = (Vec::new(), 0);
    while place < text.len() {
        if let Some(length) = lexer.ignored(place)? {
            place += length;
            continue;
        }
        let (length, token) = lexer.token(place)?;
        tokens.push((place..place + length, token));
        place += length;
    }
    Ok(tokens)
}

struct Lexer<'a> {
    text: &'a str,
    dialect: Dialect,
    /// Those that are open.
    brackets: Vec<char>,
    /// Whether the last token is a value, behind which a parameter cannot stand.
    operand: bool,
}

impl<'a> Lexer<'a> {
    /// How long the white space or comment is that begins here, if one does.
    fn ignored(&self, place: usize) -> Result<Option<usize>, LexError> {
        let rest = &self.text[place..];
        if rest.starts_with("--") {
            return Ok(Some(rest.find('\n').unwrap_or(rest.len())));
        }
        if rest.starts_with("/*") {
            let length = comment(rest, self.dialect == Dialect::Postgres);
            return length.map(Some).ok_or_else(|| at(place, 2, "this comment does not end"));
        }
        Ok(rest.chars().next().filter(|first| first.is_whitespace()).map(char::len_utf8))
    }

    fn token(&mut self, place: usize) -> Result<(usize, Token<'a>), LexError> {
        let rest = &self.text[place..];
        let first = rest.chars().next().unwrap_or_default();
        let after_operand = std::mem::replace(&mut self.operand, false);
        if let Some(length) = self.quoted(rest) {
            self.operand = true;
            return Ok((length.ok_or_else(|| at(place, 1, OPEN_QUOTE))?, Token::Quoted));
        }
        if is_name(first) {
            self.operand = true;
            // A whole word: a `$` in it begins no quote.
            let word = &rest[..rest.find(|c| !is_name(c) && c != '$').unwrap_or(rest.len())];
            let token = if first.is_ascii_digit() { Token::Number } else { Token::Word(word) };
            return Ok((word.len(), token));
        }
        match first {
            '(' | '[' => self.brackets.push(first),
            ')' | ']' => {
                self.brackets.pop();
                self.operand = true;
            }
            ':' if rest.starts_with("::") || rest.starts_with(":=") => {
                return Ok((2, Token::Symbol(&rest[..2])));
            }
            ':' => return self.colon(place, after_operand),
            '\\' if rest[1..].starts_with(':') => return Ok((1, Token::Escape)),
            '?' | '@' | '$' if self.dialect == Dialect::Sqlite => return Err(at(place, 1, UNNAMED)),
            '$' if rest[1..].starts_with(|next: char| next.is_ascii_digit()) => {
                return Err(at(place, 2, UNNAMED));
            }
            _ => {}
        }
        let long = ["->>", "->", "||", "<<", ">>"].into_iter().find(|symbol| rest.starts_with(symbol));
        if let Some(symbol) = long {
            return Ok((symbol.len(), Token::Symbol(symbol)));
        }
        let comparison = rest.find(|c| !"<>=!".contains(c)).unwrap_or(rest.len());
        if matches!(&rest[..comparison], "=" | "==" | "<>" | "!=" | "<" | "<=" | ">" | ">=") {
            return Ok((comparison, Token::Comparison(&rest[..comparison])));
        }
        Ok((first.len_utf8(), Token::Symbol(&rest[..first.len_utf8()])))
    }

    /// A parameter, or what is between the bounds of a slice of an array.
    fn colon(&mut self, place: usize, after_operand: bool) -> Result<(usize, Token<'a>), LexError> {
        let rest = &self.text[place..];
        let name = parameter_name(&rest[1..]);
        let in_slice = self.dialect == Dialect::Postgres && self.brackets.last() == Some(&'[');
        if in_slice && (after_operand || name.is_empty()) || self.text[..place].ends_with('\\') {
            return Ok((1, Token::Symbol(":")));
        }
        if name.is_empty() {
            let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            return Err(at(
                place,
                length,
                "a parameter looks like `:name`, and a colon that begins none like `\\:`",
            ));
        }
        self.operand = true;
        Ok((1 + name.len(), Token::Parameter(name)))
    }

    /// How long the text or quoted name is that begins here, if one does; `None` inside: it does not end.
    fn quoted(&self, rest: &str) -> Option<Option<usize>> {
        let until = |open: &str, close: &str| {
            Some(rest[open.len()..].find(close).map(|length| open.len() + length + close.len()))
        };
        match (rest.as_bytes(), self.dialect) {
            // A doubled quote in it is the end of one and the beginning of the next.
            ([b'\'', ..], _) => until("'", "'"),
            ([b'"', ..], _) => until("\"", "\""),
            ([b'`', ..], Dialect::Sqlite) => until("`", "`"),
            ([b'[', ..], Dialect::Sqlite) => until("[", "]"),
            ([b'e' | b'E', b'\'', ..], Dialect::Postgres) => {
                Some(escaped_text(&rest[1..]).map(|length| 1 + length))
            }
            ([b'$', first, ..], Dialect::Postgres) if !first.is_ascii_digit() => {
                let end = rest[1..].find(|c| !is_name(c)).filter(|end| rest[1 + end..].starts_with('$'))?;
                let tag = &rest[..end + 2];
                until(tag, tag)
            }
            _ => None,
        }
    }
}

pub(super) fn at(place: usize, length: usize, message: impl Into<String>) -> LexError {
    (place..place + length, message.into())
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The name at the beginning of a text: words, with dots between them.
fn parameter_name(text: &str) -> &str {
    if !text.starts_with(|first: char| first.is_alphabetic() || first == '_') {
        return "";
    }
    let end = text.find(|c| !is_name(c) && c != '.').unwrap_or(text.len());
    text[..end].trim_end_matches('.')
}

/// How long the comment is that begins here. Those of `PostgreSQL` can contain others.
fn comment(text: &str, nested: bool) -> Option<usize> {
    let (mut place, mut depth) = (2, 1);
    while depth > 0 {
        let rest = text.get(place..).filter(|rest| !rest.is_empty())?;
        let length = match rest {
            _ if rest.starts_with("*/") => {
                depth -= 1;
                2
            }
            _ if nested && rest.starts_with("/*") => {
                depth += 1;
                2
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        place += length;
    }
    Some(place)
}

/// How long the text is that begins here with a quote, and in which a backslash escapes.
fn escaped_text(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut place = 1;
    loop {
        place += match (bytes.get(place)?, bytes.get(place + 1)) {
            (b'\\', _) | (b'\'', Some(b'\'')) => 2,
            (b'\'', _) => return Some(place + 1),
            _ => 1,
        };
    }
}
