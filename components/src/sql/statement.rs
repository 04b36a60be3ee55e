//! [`Statement`]: SQL with named parameters, read once.

use std::ops::Range;

/// A statement, cut at its parameters.
#[derive(Debug, PartialEq)]
pub(super) struct Statement {
    /// What stands before, between and behind the parameters: one more than there are of them.
    pieces: Vec<String>,
    /// The names of the parameters, in the order in which they stand; each as often as it does.
    pub(super) parameters: Vec<String>,
}

/// What is wrong with a statement, and with which bytes of it.
pub(super) type Mistake = (Range<usize>, String);

const UNNAMED: &str = "parameters have names here: write `:name`";

impl Statement {
    /// Finds the parameters: `:name` outside of texts, quoted names, comments and casts. The characters
    /// `foreign` begin parameters of the database's own, which nobody would set.
    pub(super) fn parse(text: &str, foreign: &str) -> Result<Self, Mistake> {
        let (mut pieces, mut parameters) = (Vec::new(), Vec::new());
        let (mut place, mut piece_start, mut end) = (0, 0, None);
        while let Some(first) = text[place..].chars().next() {
            let rest = &text[place..];
            let ignored = first.is_whitespace() || rest.starts_with("--") || rest.starts_with("/*");
            if let Some(end) = end.filter(|_| !ignored) {
                return Err((end..text.len(), "there is more than one statement".into()));
            }
            if let Some(length) = skipped(rest).map_err(|mistake| at(place, 1, mistake))? {
                place += length;
                continue;
            }
            match first {
                ';' => end = Some(place),
                ':' if rest.starts_with("::") || rest.starts_with(":=") => place += 1,
                ':' => {
                    let name = parameter_name(&rest[1..]);
                    if name.is_empty() {
                        let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                        return Err(at(place, length, "a parameter looks like `:name`"));
                    }
                    pieces.push(text[piece_start..place].to_owned());
                    parameters.push(name.to_owned());
                    place += 1 + name.len();
                    piece_start = place;
                    continue;
                }
                sign if foreign.contains(sign) => return Err(at(place, 1, UNNAMED)),
                '$' if rest[1..].starts_with(|next: char| next.is_ascii_digit()) => {
                    return Err(at(place, 2, UNNAMED));
                }
                // A whole word: a `$` in it begins no quote.
                letter if is_name(letter) => {
                    let word = &rest[..rest.find(|c| !is_name(c) && c != '$').unwrap_or(rest.len())];
                    place += word.len();
                    // In such a text a backslash escapes the quote.
                    if word.eq_ignore_ascii_case("e") && text[place..].starts_with('\'') {
                        let length = escaped_text(&text[place..]);
                        place += length.ok_or_else(|| at(place, 1, "this quote does not end"))?;
                    }
                    continue;
                }
                _ => {}
            }
            place += first.len_utf8();
        }
        let end = end.unwrap_or(text.len()).max(piece_start);
        if pieces.is_empty() && text[..end].trim().is_empty() {
            return Err((0..text.len(), "there is no statement".into()));
        }
        pieces.push(text[piece_start..end].to_owned());
        Ok(Self { pieces, parameters })
    }

    /// The statement with what `placeholder` says in the place of each parameter, counted from 0.
    pub(super) fn text(&self, placeholder: impl Fn(usize) -> String) -> String {
        let mut text = String::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            if index > 0 {
                text.push_str(&placeholder(index - 1));
            }
            text.push_str(piece);
        }
        text
    }
}

fn at(place: usize, length: usize, message: impl Into<String>) -> Mistake {
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

/// How long the text, quoted name or comment is that begins here, if one does.
fn skipped(text: &str) -> Result<Option<usize>, &'static str> {
    let quoted = |open: &str, close: &str, what| match text[open.len()..].find(close) {
        Some(length) => Ok(Some(open.len() + length + close.len())),
        None => Err(what),
    };
    match text.as_bytes() {
        // A doubled quote in it is the end of one and the beginning of the next.
        [b'\'', ..] => quoted("'", "'", "this quote does not end"),
        [b'"', ..] => quoted("\"", "\"", "this quote does not end"),
        [b'`', ..] => quoted("`", "`", "this quote does not end"),
        [b'/', b'*', ..] => quoted("/*", "*/", "this comment does not end"),
        [b'-', b'-', ..] => Ok(Some(text.find('\n').unwrap_or(text.len()))),
        [b'$', rest @ ..] if !rest.first().is_some_and(u8::is_ascii_digit) => {
            let tag = text[1..].find(|c| !is_name(c)).filter(|end| text[1 + end..].starts_with('$'));
            tag.map_or(Ok(None), |end| {
                let tag = &text[..end + 2];
                quoted(tag, tag, "this quote does not end")
            })
        }
        _ => Ok(None),
    }
}

/// How long the text is that begins here with a quote, and in which a backslash escapes.
fn escaped_text(text: &str) -> Option<usize> {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'\'' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some(end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, Vec<String>) {
        let statement = Statement::parse(text, "").unwrap();
        (statement.text(|index| format!("${}", index + 1)), statement.parameters)
    }

    #[test]
    fn parameters_are_found_and_nothing_else_is() {
        assert_eq!(parse("select 1"), ("select 1".into(), vec![]));
        let (text, names) = parse("update x set a = :a, b=:b.c::text where id=:a;  ");
        assert_eq!(text, "update x set a = $1, b=$2::text where id=$3");
        assert_eq!(names, ["a", "b.c", "a"]);
        for text in [
            "select ':a', 'it''s :a', \":a\", `:a` -- :a",
            "select /* :a ; */ 1 -- :a\n, x::text",
            "select $$ :a ' $$, $t$ :a $$ $t$, a$b, e'\\' :a', x ? 'k', 'ü'",
        ] {
            assert_eq!(parse(text), (text.into(), vec![]), "{text}");
        }
        assert_eq!(parse(":a").0, "$1");
        assert_eq!(parse("select :ü.").0, "select $1.");
    }

    #[test]
    fn mistakes_name_their_place() {
        for (text, range, message) in [
            ("select :#id", 7..9, "looks like `:name`"),
            ("select :1", 7..9, "looks like `:name`"),
            ("select $1", 7..9, "write `:name`"),
            ("select 'a", 7..8, "does not end"),
            ("select e'\\'", 8..9, "does not end"),
            ("select /* a", 7..8, "does not end"),
            ("select 1; select 2", 8..18, "more than one"),
            (" ; ", 0..3, "no statement"),
            ("select 1; 'a'", 8..13, "more than one"),
        ] {
            let Err((place, found)) = Statement::parse(text, "") else { panic!("{text}") };
            assert!(found.contains(message), "{text}: {found}");
            assert_eq!(place, range, "{text}");
        }
        for text in ["select ?", "select @a", "select $a"] {
            assert_eq!(Statement::parse(text, "?@$").unwrap_err().0, 7..8, "{text}");
        }
        assert!(Statement::parse("select a$b, '?'", "?@$").is_ok());
    }
}
