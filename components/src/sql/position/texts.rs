//! Texts that are made of a parameter: `SQLite` makes 0 of one that is no number where it is cast to one, and finds it
//! greater than all numbers.

use super::super::affinity::is_number_type;
use super::{
    ARITHMETIC, BEGINS, CHOICES, ENDS, KEYWORDS, NUMBER_FUNCTIONS, PATTERNS, Position, Positions,
    TEXT_RESULTS, is_in, made_of_it,
};
use crate::sql::lexer::Token;

/// Those that make a number, whatever text they are given.
const COUNTS: &str = "length octet_length instr unicode julianday unixepoch count";
/// Those that make a text of a form of their own.
const MEASURES: &str = "date time datetime strftime timediff typeof";

impl Positions<'_> {
    /// The position of a parameter that is in the text which these tokens make: a call, or a part of a concatenation.
    pub(super) fn position_of_text(&self, start: usize, end: usize) -> Option<Position> {
        let (start, end) = self.concatenation(start, end);
        match self.compared(start, end) {
            Some(Some(position @ (Position::Compared(_) | Position::Stored(_)))) => {
                return made_of_it(position);
            }
            // With what has no type of its own, which only the form of a text makes one.
            Some(None) if !self.is_compared_with_text(start, end) => return None,
            _ if self.is_beside_number(start, end) => return None,
            _ => {}
        }
        let Some(open) = self.parents[start] else {
            let stored = self.selected(start).filter(|position| matches!(position, Position::Stored(_)));
            return stored.map_or(Some(Position::Any), made_of_it);
        };
        let close = self.partners[open]?;
        if self.is_word(open, "case") {
            let chosen = self.is_behind(start, "then else");
            return if chosen { self.position_of_text(open, close + 1) } else { Some(Position::Any) };
        }
        let before = open.checked_sub(1);
        let is_before = |words: &str| before.is_some_and(|before| self.is_word(before, words));
        if is_before("in") {
            let not = before.and_then(|before| before.checked_sub(1)).filter(|not| self.is_word(*not, "not"));
            let left = not.or(before)?;
            return match self.operand_before(left) {
                Some(operand) => made_of_it(Position::Compared(vec![operand])),
                None => self.is_text_before(left).then_some(Position::Any),
            };
        }
        let item = self.item(open, start);
        if self.parents[open].is_none() && self.clause(open) == Some("values") {
            return Some(Position::Made(self.inserted(item)));
        }
        if let Some(target) = self.assigned_item(open, item) {
            return Some(Position::Made(target));
        }
        if is_before(TEXT_RESULTS) || is_before("max min") || CHOICES.iter().any(|(name, _)| is_before(name))
        {
            return self.position_of_text(before?, close + 1);
        }
        if is_before(NUMBER_FUNCTIONS) {
            return None;
        }
        let is_call = before.and_then(|before| self.word(before)).is_some_and(|word| !is_in(word, KEYWORDS));
        let selects = self.is_word(open + 1, "select with") && self.clause(start) == Some("select");
        let is_whole = start == open + 1 && end == close;
        if !is_call && !is_before("exists values") && (selects || is_whole) {
            return self.position_of_text(open, close + 1);
        }
        Some(Position::Any)
    }

    /// The concatenation that an expression is a part of.
    fn concatenation(&self, mut start: usize, mut end: usize) -> (usize, usize) {
        while let Some(last) = start.checked_sub(2).filter(|_| self.is_symbol(start - 1, "||")) {
            start = self.start_of_primary(last);
        }
        while self.is_symbol(end, "||") {
            end = self.end_of_primary(end + 1);
        }
        (start, end)
    }

    /// Where a name, a value, a call or something in parentheses begins, which ends with this token.
    fn start_of_primary(&self, last: usize) -> usize {
        let mut start = self.partners[last].filter(|open| *open < last).unwrap_or(last);
        if start < last && start > 0 && self.word(start - 1).is_some_and(|word| !is_in(word, KEYWORDS)) {
            start -= 1;
        }
        while start >= 2 && self.is_symbol(start - 1, ".") {
            start -= 2;
        }
        start
    }

    /// Where one ends that begins with this token.
    fn end_of_primary(&self, start: usize) -> usize {
        let mut last = start;
        while self.is_symbol(last + 1, ".") {
            last += 2;
        }
        let open = if self.is_symbol(last + 1, "(") { last + 1 } else { last };
        self.partners.get(open).copied().flatten().filter(|close| *close > open).unwrap_or(last) + 1
    }

    /// Whether what an expression is compared with is made by what makes texts alone.
    fn is_compared_with_text(&self, start: usize, end: usize) -> bool {
        match (self.operator_before(start), self.operator_behind(end)) {
            (Some(operator), _) => self.is_text_before(operator),
            (None, Some(other)) => {
                let end = self.end_of_primary(other);
                self.is_symbol(end, "||") || self.is_text(other, end)
            }
            (None, None) => false,
        }
    }

    fn is_text_before(&self, end: usize) -> bool {
        let start = end.checked_sub(1).map(|last| self.start_of_primary(last));
        start.is_some_and(|start| start > 0 && self.is_symbol(start - 1, "||") || self.is_text(start, end))
    }

    /// Whether these tokens are a text, or a call that makes one.
    fn is_text(&self, start: usize, end: usize) -> bool {
        let call = self.is_word(start, TEXT_RESULTS) || self.is_word(start, MEASURES);
        match end - start {
            1 => matches!(self.tokens.get(start), Some((_, Token::Quoted))),
            _ => call && self.is_symbol(start + 1, "("),
        }
    }

    /// Whether an expression is calculated with, or compared with what is a number for certain.
    fn is_beside_number(&self, start: usize, end: usize) -> bool {
        let is_number = |index: usize| {
            let call = self.is_word(index, NUMBER_FUNCTIONS) || self.is_word(index, COUNTS);
            call && self.is_symbol(index + 1, "(")
                || matches!(self.tokens[index].1, Token::Number)
                || ARITHMETIC.iter().any(|symbol| self.is_symbol(index, symbol))
        };
        let same = |index: &usize| self.parents[*index] == self.parents[start];
        let inside = |words: &'static str| {
            move |index: &usize| !self.is_word(*index, words) && !self.is_symbol(*index, ",")
        };
        let before = (0..start).rev().filter(same).take_while(inside(BEGINS));
        let behind = (end..self.tokens.len()).filter(same).take_while(inside(ENDS));
        before.chain(behind).any(is_number)
    }

    /// Whether what is in the list at this parameter, as in `json_each(:name)`, is compared as what it is there, or made
    /// a number.
    pub(super) fn is_list_compared(&self, index: usize) -> bool {
        let call =
            self.parents[index].filter(|open| *open > 0 && self.is_word(open - 1, "json_each json_tree"));
        call.is_some()
            && (0..self.tokens.len()).any(|index| {
                let is_all = self.is_symbol(index, "*") && self.is_word(index - 1, "select distinct");
                let is_value = is_all || self.is_word(index, "value atom");
                is_value && !self.is_symbol(index + 1, "(") && self.is_element_compared(index)
            })
    }

    /// Whether this element of a list is compared as what it is, or made a number.
    fn is_element_compared(&self, index: usize) -> bool {
        let (mut start, mut end) = (self.start_of_primary(index), index + 1);
        while self.is_symbol(end, "->") || self.is_symbol(end, "->>") {
            end = self.end_of_primary(end + 1);
        }
        while self.parents[start].is_some_and(|open| open + 1 == start && self.partners[open] == Some(end)) {
            (start, end) = (start - 1, end + 1);
        }
        let is_null = self.is_word(end, "isnull notnull not")
            || self.is_word(end, "is") && self.is_word(self.skip_not(end + 1), "null");
        let compares = self.operator_before(start).is_some()
            || self.operator_behind(end).is_some()
            || self.is_word(start.saturating_sub(1), "between")
            || self.is_word(self.skip_not(end), "between in")
            || start.checked_sub(1).and_then(|and| self.between_of(and)).is_some();
        let Some(open) = self.parents[start] else { return compares && !is_null };
        let is_before = |words: &str| open > 0 && self.is_word(open - 1, words);
        if is_before("cast") && self.is_word(end, "as") {
            return self.partners[open].is_some_and(|close| is_number_type(&self.cast_type(end, close)));
        }
        // The rows of an inner `select`, other than those of `exists`.
        let selected = self.is_word(open + 1, "select with") && self.clause(start) == Some("select");
        compares && !is_null || selected && !is_before("exists")
    }

    /// The type of number that a cast makes of an expression whose text a parameter is a part of.
    pub(super) fn number_cast(&self, index: usize) -> Option<String> {
        let mut inner = index;
        while let Some(open) = self.parents[inner] {
            let close = self.partners[open]?;
            let level =
                (open + 1..close).filter(|index| self.parents[*index] == Some(open)).collect::<Vec<_>>();
            let has = |test: &dyn Fn(usize) -> bool| level.iter().any(|index| test(*index));
            // What is calculated is a number already, and what a condition gives is 0 or 1.
            let calculates = has(&|index| ARITHMETIC.iter().any(|symbol| self.is_symbol(index, symbol)));
            let is_condition = has(&|index| {
                matches!(self.tokens[index].1, Token::Comparison(_))
                    || self.is_word(index, "and or not in is between exists isnull notnull")
                    || self.is_word(index, PATTERNS)
            });
            let comes_out = match () {
                () if self.is_word(open, "case") => self.is_behind(inner, "then else"),
                () if self.is_word(open + 1, "select with values") => self.clause(inner) == Some("select"),
                () => !is_condition,
            };
            if calculates || !comes_out {
                return None;
            }
            let before = open.checked_sub(1).filter(|_| !self.is_word(open, "case"));
            if before.is_some_and(|before| self.is_word(before, "cast")) {
                let as_ = level.iter().rev().find(|index| self.is_word(**index, "as"))?;
                return Some(self.cast_type(*as_, close)).filter(|kind| is_number_type(kind));
            }
            let ends = |words: &str| before.is_some_and(|before| self.is_word(before, words));
            if ends(MEASURES) || ends(COUNTS) || ends(NUMBER_FUNCTIONS) || ends("in exists over filter") {
                return None;
            }
            inner = open;
        }
        None
    }

    /// Whether a token of a `case` stands behind one of these words.
    fn is_behind(&self, index: usize, words: &str) -> bool {
        let same = |other: &usize| self.parents[*other] == self.parents[index];
        let part = (0..index).rev().filter(same).find(|other| self.is_word(*other, "when then else case"));
        part.is_some_and(|part| self.is_word(part, words))
    }
}
