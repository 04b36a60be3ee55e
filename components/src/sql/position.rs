//! [`Position`]: what gives a parameter of `SQLite` its type where it stands.
//!
//! `SQLite` converts between texts and numbers for the sake of a column or a cast, and for nothing else: beside
//! any other operand a text is greater than each number and equal to none. So a parameter stands where its type
//! is known or does not matter; everywhere else, also where this module does not understand the statement, it
//! needs a cast.

mod targets;
mod texts;

use std::collections::HashSet;
use std::ops::Range;

use super::affinity::{is_number_type, is_text_type};
use super::lexer::Token;
use super::parameters::is_of_term;

/// What gives a parameter its type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Position {
    /// Nothing has to: a text and a number do the same here.
    Any,
    /// An operator or function that takes numbers, and makes one of each text.
    Number,
    /// The operands that it is compared with.
    Compared(Vec<Operand>),
    /// A function makes a text of it, which is compared with these operands.
    Text(Vec<Operand>),
    /// The column that it is written to.
    Stored(Target),
    /// The same, as `cast(:name as text)`.
    StoredText(Target),
    /// What is made of it is written to this column, and is not known before.
    Made(Target),
    /// `cast(:name as type)`.
    Cast(String),
}

/// A column that a value is written to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// By its name in small letters.
    Column(String),
    /// `insert into x values (...)`: the one at this place, counted from 0, of the table.
    Nth(String, usize),
    /// The statement does not tell.
    Unknown,
}

/// What a parameter can be compared with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    /// A column, by its name in small letters.
    Column(String),
    /// `cast(... as type)`.
    Cast(String),
}

/// Words that are no names of columns, tables and functions.
const KEYWORDS: &str = "all and as asc between by case collate conflict cross current_date current_time \
    current_timestamp default delete desc distinct do else end escape except exists false filter \
    first from full glob group having in inner insert intersect into is isnull join last left like \
    limit match materialized natural not nothing notnull null nulls offset on or order outer over \
    partition range recursive regexp returning right row rows select set table then true union \
    update using values when where window with";

/// Operators that are words, and take a pattern.
const PATTERNS: &str = "like glob match regexp";

/// Words before which an expression ends, and behind which one begins.
const ENDS: &str = "and or where group order limit offset having then else end when returning union except \
    intersect on left inner join cross right full natural as from asc desc window";
const BEGINS: &str = "select distinct all where and or not on when then else having by returning";

/// Operators that calculate.
const ARITHMETIC: &[&str] = &["+", "-", "*", "/", "%", "&", "|", "<<", ">>", "~"];

/// The words with which a part of a statement begins.
const CLAUSES: &str = "select from where group order having limit set values returning on using window with update \
    into delete";

/// Functions that make the same of a text and of a number that is written like it.
const TEXT_FUNCTIONS: &str = "lower upper trim ltrim rtrim length octet_length substr substring replace instr hex unhex \
    printf format like glob unicode soundex concat concat_ws date time datetime julianday unixepoch \
    strftime timediff count group_concat string_agg typeof quote snippet highlight bm25";
/// Those of them that make a text of their first argument.
const TEXT_RESULTS: &str = "lower upper trim ltrim rtrim substr substring replace hex printf format soundex concat \
    concat_ws quote";
/// Those that make it of all their arguments.
const TEXTS_OF_ALL: &str = "printf format replace concat concat_ws";
/// Functions that make a number of each text.
const NUMBER_FUNCTIONS: &str = "abs round sign sum total avg ceil ceiling floor trunc pow power sqrt mod exp ln log log2 log10 \
    char";
/// Functions whose result is one of their arguments, and the first argument that can be it.
const CHOICES: &[(&str, usize)] =
    &[("coalesce", 0), ("ifnull", 0), ("iif", 1), ("if", 1), ("likely", 0), ("unlikely", 0)];

/// The tokens of a statement, and how they are nested.
pub(super) struct Positions<'a> {
    text: &'a str,
    tokens: &'a [(Range<usize>, Token<'a>)],
    /// For each token, the parenthesis or `case` that it is in.
    parents: Vec<Option<usize>>,
    /// For each parenthesis or `case`, and for what closes it, the other one.
    partners: Vec<Option<usize>>,
    /// Names that stand for expressions, in small letters.
    aliases: HashSet<String>,
}

impl<'a> Positions<'a> {
    pub(super) fn new(text: &'a str, tokens: &'a [(Range<usize>, Token<'a>)]) -> Self {
        let mut positions = Self {
            text,
            tokens,
            parents: vec![None; tokens.len()],
            partners: vec![None; tokens.len()],
            aliases: HashSet::new(),
        };
        let mut open = Vec::new();
        for index in 0..tokens.len() {
            let closes = positions.is_symbol(index, ")") || positions.is_word(index, "end");
            if let Some(partner) = closes.then(|| open.pop()).flatten() {
                positions.partners[index] = Some(partner);
                positions.partners[partner] = Some(index);
            }
            positions.parents[index] = open.last().copied();
            if positions.is_symbol(index, "(") || positions.is_word(index, "case") {
                open.push(index);
            }
        }
        positions.aliases = positions.aliases();
        positions
    }

    /// The words of the statement in small letters, and its quoted names: those of tables are among them.
    pub(super) fn names(&self) -> HashSet<String> {
        let word = |index| self.word(index).map(str::to_ascii_lowercase);
        (0..self.tokens.len()).filter_map(|index| self.name(index).or_else(|| word(index))).collect()
    }

    /// The position of the parameter at `index`, or what to write.
    pub(super) fn of(&self, index: usize) -> Result<Position, String> {
        let Token::Parameter(name) = self.tokens[index].1 else { return Ok(Position::Any) };
        let open = index.checked_sub(2).filter(|cast| self.is_word(*cast, "cast")).map(|cast| cast + 1);
        if let Some(close) =
            open.filter(|_| self.is_word(index + 1, "as")).and_then(|open| self.partners[open])
        {
            let kind = self.cast_type(index + 1, close);
            let stored = || self.position(index - 2, close + 1).filter(|_| is_text_type(&kind));
            return Ok(match stored() {
                Some(Position::Stored(target)) if target != Target::Unknown => Position::StoredText(target),
                _ => Position::Cast(kind),
            });
        }
        if self.is_list_compared(index) {
            return Err(format!(
                "SQLite compares what is in JSON as what it is there, a text or a number: write `in (:{name})`, which \
                 takes a list, or `cast(value as text)`"
            ));
        }
        // Of which the author knows the types: no message gives them another one.
        if is_of_term(name) {
            return Ok(Position::Any);
        }
        let is_cast = |position: &Option<Position>| matches!(position, Some(Position::Cast(_)));
        let position = self.position(index, index + 1);
        if let Some(kind) = self.number_cast(index).filter(|_| !is_cast(&position)) {
            return Err(format!(
                "SQLite makes 0 of a text that is no number, and this is only a part of what is cast: write \
                 `cast(:{name} as {kind})`, with a header that has the number alone, or compare texts"
            ));
        }
        position.ok_or_else(|| {
            format!(
                "what this is compared with is no column, and SQLite converts nothing there: write `cast(:{name} as \
                 integer)` or `cast(:{name} as text)`, or cast the other side"
            )
        })
    }

    /// Whether the condition that a parameter is in is compared with something: `(x in (:a)) = 0`.
    pub(super) fn is_compared(&self, index: usize) -> bool {
        let compares = |index: usize| {
            matches!(self.tokens.get(index), Some((_, Token::Comparison(_)))) || self.is_word(index, "is")
        };
        let mut inner = self.parents[index];
        while let Some(open) = inner.filter(|open| !self.is_word(open + 1, "select with values")) {
            let before = open.checked_sub(1);
            let of_a_call = before
                .and_then(|before| self.word(before))
                .is_some_and(|word| !is_in(word, KEYWORDS) && !is_in(word, "any some cast"));
            let behind = self.partners[open].is_some_and(|close| compares(close + 1));
            if behind || before.is_some_and(compares) {
                return true;
            }
            if of_a_call || self.is_word(open, "case") {
                return false;
            }
            inner = self.parents[open];
        }
        false
    }

    /// The position of an expression that is a parameter, or has its value.
    fn position(&self, start: usize, end: usize) -> Option<Position> {
        let end = if self.is_word(end, "collate") { end + 2 } else { end };
        let before = start.checked_sub(1);
        let is_before = |words: &str| before.is_some_and(|before| self.is_word(before, words));
        let symbol_before = |symbols: &[&str]| {
            before.is_some_and(|before| symbols.iter().any(|symbol| self.is_symbol(before, symbol)))
        };
        let symbol_next = |symbols: &[&str]| symbols.iter().any(|symbol| self.is_symbol(end, symbol));
        if symbol_next(&["->", "->>"]) {
            // Of the type that the JSON has there.
            return self.position(start, end + 2).and_then(made_of_it);
        }
        if symbol_before(&["->", "->>"]) {
            return Some(Position::Any);
        }
        if symbol_before(&["||"]) || symbol_next(&["||"]) {
            return self.position_of_text(start, end);
        }
        if symbol_before(ARITHMETIC) || symbol_next(ARITHMETIC) {
            return Some(Position::Number);
        }
        if let Some(position) = self.compared(start, end) {
            return position;
        }
        if is_before(PATTERNS) || is_before("escape") {
            return Some(Position::Any);
        }
        let next = if self.is_word(end, "not") { end + 1 } else { end };
        if self.is_word(next, PATTERNS) {
            return self.begins(start).then_some(Position::Any);
        }
        if !self.ends(end) {
            return None;
        }
        if is_before("limit offset") || symbol_before(&[","]) && self.clause(start) == Some("limit") {
            return Some(Position::Any);
        }
        match self.parents[start] {
            Some(parent) if self.is_word(parent, "case") => {
                let chosen = is_before("then else");
                self.position(parent, self.partners[parent]? + 1).filter(|_| chosen)
            }
            Some(parent) if before == Some(parent) || symbol_before(&[","]) => {
                self.enclosed(parent, start, end)
            }
            Some(_) => None,
            None => {
                let listed = is_before("select distinct all returning") || symbol_before(&[","]);
                self.selected(start).filter(|_| listed)
            }
        }
    }

    /// The position of an operand of a comparison; `None`: it is none.
    fn compared(&self, start: usize, end: usize) -> Option<Option<Position>> {
        let compared = |operand: Option<Operand>| operand.map(|operand| Position::Compared(vec![operand]));
        if let Some(operator) = self.operator_before(start) {
            if let Some(column) = self.assigned(operator) {
                return self.ends(end).then_some(Some(Position::Stored(column)));
            }
            return Some(compared(self.operand_before(operator)).filter(|_| self.ends(end)));
        }
        if let Some(other) = self.operator_behind(end) {
            return Some(
                compared(self.operand_behind(other).map(|(operand, _)| operand))
                    .filter(|_| self.begins(start)),
            );
        }
        // `x between :a and :b`
        let before = start.checked_sub(1)?;
        let between = match () {
            () if self.is_word(before, "between") => Some(before).filter(|_| self.is_word(end, "and")),
            () => self.between_of(before).filter(|_| self.ends(end)),
        };
        if let Some(between) = between {
            let not = between.checked_sub(1).filter(|not| self.is_word(*not, "not"));
            return Some(compared(self.operand_before(not.unwrap_or(between))));
        }
        // `:x between a and b`
        let between = if self.is_word(end, "not") { end + 1 } else { end };
        self.is_word(between, "between").then(|| {
            let (low, and) = self.operand_in(between + 1, "and")?;
            let (high, _) = self.operand_behind(and + 1)?;
            self.begins(start).then(|| Position::Compared(vec![low, high]))
        })
    }

    /// The position of a whole item in parentheses.
    fn enclosed(&self, parent: usize, start: usize, end: usize) -> Option<Position> {
        let close = self.partners[parent]?;
        if self.is_word(parent + 1, "select with values") {
            return None;
        }
        let item = self.item(parent, start);
        let alone = item == 0 && end == close;
        let Some(before) = parent.checked_sub(1) else {
            return self.position(parent, close + 1).filter(|_| alone);
        };
        if self.is_word(before, "in") {
            let not = before.checked_sub(1).filter(|not| self.is_word(*not, "not"));
            let operand = self.operand_before(not.unwrap_or(before))?;
            return Some(Position::Compared(vec![operand]));
        }
        if self.parents[parent].is_none() && self.clause(parent) == Some("values") {
            return Some(Position::Stored(self.inserted(item)));
        }
        if let Some(name) = self.word(before).filter(|name| !is_in(name, KEYWORDS)) {
            return self.argument(&name.to_ascii_lowercase(), item, before, close);
        }
        if let Some(target) = self.assigned_item(parent, item).filter(|_| !alone) {
            return Some(Position::Stored(target));
        }
        alone.then(|| self.position(parent, close + 1)).flatten()
    }

    /// The position of an argument of the call that stands from `start` to `close`.
    fn argument(&self, function: &str, item: usize, start: usize, close: usize) -> Option<Position> {
        let call = || self.position(start, close + 1);
        // `cast(trim(:name) as integer)` makes a number of what `cast(:name as integer)` does.
        let cast = start.checked_sub(2).filter(|cast| {
            is_in(function, "trim ltrim rtrim")
                && item == 0
                && self.is_word(*cast, "cast")
                && self.is_word(close + 1, "as")
        });
        if let Some(end) = cast.and_then(|cast| self.partners[cast + 1]) {
            return Some(Position::Cast(self.cast_type(close + 1, end)));
        }
        if is_in(function, TEXT_RESULTS) && (item == 0 || is_in(function, TEXTS_OF_ALL)) {
            return self.position_of_text(start, close + 1);
        }
        if is_in(function, TEXT_FUNCTIONS) {
            return Some(Position::Any);
        }
        if is_in(function, NUMBER_FUNCTIONS) {
            return Some(Position::Number);
        }
        if let Some((_, first)) = CHOICES.iter().find(|(name, _)| *name == function) {
            return call().filter(|_| item >= *first);
        }
        if matches!(function, "json_extract" | "jsonb_extract") && item == 0 {
            return call().and_then(made_of_it);
        }
        (function.starts_with("json")).then_some(Position::Any)
    }

    /// The position of an item of the outermost list of `select` or `returning`.
    fn selected(&self, start: usize) -> Option<Position> {
        // Those compare whole rows.
        let compares = |index: usize| {
            self.is_word(index, "except intersect")
                || self.is_word(index, "union") && !self.is_word(index + 1, "all")
        };
        match self.clause(start)? {
            "returning" => Some(Position::Any),
            "select" if (0..self.tokens.len()).any(compares) => None,
            "select" if (0..start).any(|index| self.is_word(index, "into")) => {
                Some(Position::Stored(self.inserted_by_select(start)))
            }
            "select" => Some(Position::Any),
            _ => None,
        }
    }

    /// The last word before a token that begins a part of the statement, at the same depth.
    fn clause(&self, index: usize) -> Option<&'static str> {
        (0..index).rev().filter(|before| self.parents[*before] == self.parents[index]).find_map(|before| {
            let word = self.word(before)?;
            CLAUSES.split(' ').find(|clause| clause.eq_ignore_ascii_case(word))
        })
    }

    /// How many items stand before this one, in this parenthesis.
    fn item(&self, parent: usize, start: usize) -> usize {
        let commas = |index: &usize| self.parents[*index] == Some(parent) && self.is_symbol(*index, ",");
        (parent + 1..start).filter(commas).count()
    }

    /// Where the operator of a comparison begins that ends before a token.
    fn operator_before(&self, index: usize) -> Option<usize> {
        let last = index.checked_sub(1)?;
        if matches!(self.tokens[last].1, Token::Comparison(_)) {
            return Some(last);
        }
        let from = if self.is_word(last, "from") && last >= 2 && self.is_word(last - 1, "distinct") {
            last - 2
        } else {
            last
        };
        let is = if self.is_word(from, "not") { from.checked_sub(1)? } else { from };
        self.is_word(is, "is").then_some(is)
    }

    /// Where the other operand begins, if a comparison stands at a token.
    fn operator_behind(&self, index: usize) -> Option<usize> {
        if matches!(self.tokens.get(index)?.1, Token::Comparison(_)) {
            return Some(index + 1);
        }
        if !self.is_word(index, "is") {
            return None;
        }
        let index = self.skip_not(index + 1);
        Some(if self.is_word(index, "distinct") { index + 2 } else { index })
    }

    fn skip_not(&self, index: usize) -> usize {
        if self.is_word(index, "not") { index + 1 } else { index }
    }

    /// The `between` to which the `and` at a token belongs.
    fn between_of(&self, and: usize) -> Option<usize> {
        if !self.is_word(and, "and") {
            return None;
        }
        let parent = self.parents[and];
        let start = parent.map_or(0, |parent| parent + 1);
        let mut same = (start..and).rev().filter(|index| self.parents[*index] == parent);
        let found = same.find(|index| self.is_word(*index, "between") || self.is_word(*index, BEGINS))?;
        self.is_word(found, "between").then_some(found)
    }

    /// Whether an expression begins at a token.
    fn begins(&self, index: usize) -> bool {
        let Some(before) = index.checked_sub(1) else { return true };
        let word = self.is_word(before, BEGINS) && self.between_of(before).is_none();
        word || self.is_symbol(before, "(") || self.is_symbol(before, ",")
    }

    /// Whether an expression ends before a token.
    fn ends(&self, index: usize) -> bool {
        self.tokens.get(index).is_none_or(|_| {
            self.is_word(index, ENDS) || self.is_symbol(index, ")") || self.is_symbol(index, ",")
        })
    }

    /// The whole operand that ends before a token.
    fn operand_before(&self, end: usize) -> Option<Operand> {
        let without = end.checked_sub(2).filter(|collate| self.is_word(*collate, "collate")).unwrap_or(end);
        let last = without.checked_sub(1)?;
        let mut start = last;
        if self.is_symbol(last, ")") {
            start = self.partners[last]?;
            if start.checked_sub(1).is_some_and(|before| self.is_word(before, "cast")) {
                start -= 1;
            }
        } else {
            while start >= 2 && self.is_symbol(start - 1, ".") {
                start -= 2;
            }
        }
        self.operand(start, without).filter(|_| self.begins(start))
    }

    /// The whole operand that begins at a token, and where it ends.
    fn operand_behind(&self, start: usize) -> Option<(Operand, usize)> {
        self.operand_in(start, "").filter(|(_, end)| self.ends(*end))
    }

    /// The operand that begins at a token; behind it stands one of these words, if there are any.
    fn operand_in(&self, start: usize, behind: &str) -> Option<(Operand, usize)> {
        let mut end = start + 1;
        let open = if self.is_word(start, "cast") { start + 1 } else { start };
        if self.is_symbol(open, "(") {
            end = self.partners[open]? + 1;
        } else {
            while self.is_symbol(end, ".") {
                end += 2;
            }
        }
        let operand = self.operand(start, end)?;
        let end = if self.is_word(end, "collate") { end + 2 } else { end };
        (behind.is_empty() || self.is_word(end, behind)).then_some((operand, end))
    }

    /// What these tokens are, if they are an operand that has a type.
    fn operand(&self, start: usize, end: usize) -> Option<Operand> {
        let last = end.checked_sub(1)?;
        if !self.is_symbol(last, ")") {
            let name = self.name(last).filter(|name| !self.aliases.contains(name))?;
            return Some(Operand::Column(name));
        }
        if self.is_word(start, "cast") {
            let kind = (start + 2..last)
                .rev()
                .find(|index| self.parents[*index] == Some(start + 1) && self.is_word(*index, "as"))?;
            return Some(Operand::Cast(self.cast_type(kind, last)));
        }
        let inner = self.is_symbol(start, "(") && self.partners[start] == Some(last);
        inner
            .then(|| self.operand_behind(start + 1))
            .flatten()
            .filter(|(_, end)| *end == last)
            .map(|(operand, _)| operand)
    }

    /// The type between the `as` of a cast and the parenthesis that closes it.
    fn cast_type(&self, as_: usize, close: usize) -> String {
        self.text[self.tokens[as_].0.end..self.tokens[close].0.start].trim().to_owned()
    }

    /// Names that are given to expressions: behind `as`, behind an expression, and before that of a `with`.
    fn aliases(&self) -> HashSet<String> {
        let mut aliases = HashSet::new();
        for index in 1..self.tokens.len() {
            if self.is_word(index - 1, "as")
                && (self.is_symbol(index, "(") || self.is_word(index, "materialized not"))
            {
                let columns = index.checked_sub(2).and_then(|close| Some(self.partners[close]? + 1..close));
                aliases.extend(columns.into_iter().flatten().filter_map(|index| self.name(index)));
            }
            let Some(name) = self.name(index) else {
                if self.is_word(index, "json_each json_tree") {
                    aliases.extend(
                        ["key", "value", "type", "atom", "id", "parent", "fullkey", "path"].map(String::from),
                    );
                }
                continue;
            };
            let casts = self.parents[index].is_some_and(|open| open > 0 && self.is_word(open - 1, "cast"));
            let same = index >= 2 && self.name(index - 2).as_ref() == Some(&name);
            let behind_as = self.is_word(index - 1, "as") && !casts && !same;
            let behind_value = self.name(index - 1).is_some()
                || self.is_symbol(index - 1, ")")
                || self.is_word(index - 1, "end null true false")
                || matches!(self.tokens[index - 1].1, Token::Number | Token::Quoted | Token::Parameter(_));
            if behind_as || behind_value {
                aliases.insert(name);
            }
        }
        aliases
    }

    /// The name of a column or table at a token, in small letters and without quotes.
    fn name(&self, index: usize) -> Option<String> {
        let (range, token) = self.tokens.get(index)?;
        let text = &self.text[range.clone()];
        match token {
            Token::Word(word) if !is_in(word, KEYWORDS) && !self.is_symbol(index + 1, "(") => {
                Some(word.to_ascii_lowercase())
            }
            Token::Quoted if !text.starts_with('\'') => {
                text.get(1..text.len().checked_sub(1)?).map(str::to_ascii_lowercase)
            }
            _ => None,
        }
    }

    fn word(&self, index: usize) -> Option<&str> {
        match self.tokens.get(index)?.1 {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn is_word(&self, index: usize, words: &str) -> bool {
        self.word(index).is_some_and(|word| is_in(word, words))
    }

    fn is_symbol(&self, index: usize, symbol: &str) -> bool {
        matches!(self.tokens.get(index), Some((_, Token::Symbol(found))) if *found == symbol)
    }
}

/// The position of what gets this one, if it is made of a value and is not known before.
fn made_of_it(position: Position) -> Option<Position> {
    let is_number = |operand: &Operand| matches!(operand, Operand::Cast(kind) if is_number_type(kind));
    match position {
        Position::Number => None,
        Position::Compared(operands) if operands.iter().any(is_number) => None,
        Position::Compared(operands) => Some(Position::Text(operands)),
        Position::Stored(target) => Some(Position::Made(target)),
        other => Some(other),
    }
}

fn is_in(word: &str, words: &str) -> bool {
    words.split(' ').any(|other| other.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests;
