//! Texts that are made of a parameter: `SQLite` makes 0 of one that is no number where it is cast to one, and finds it
//! greater than all numbers.

use super::super::affinity::is_number_type;
use super::{
    ARITHMETIC, BEGINS, ENDS, NUMBER_FUNCTIONS, Operand, PATTERNS, Position, Positions, TEXT_RESULTS,
};
use crate::sql::lexer::Token;

/// Those that make a number, whatever text they are given.
const COUNTS: &str = "length octet_length instr unicode julianday unixepoch count";
/// Those that make a text of a form of their own.
const MEASURES: &str = "date time datetime strftime timediff typeof";
impl Positions<'_> {
    /// The position of a parameter whose text is in the result of a call.
    pub(super) fn position_of_text(&self, start: usize, end: usize) -> Option<Position> {
        let is_number = |operand: &Operand| matches!(operand, Operand::Cast(kind) if is_number_type(kind));
        match self.compared(start, end) {
            Some(Some(Position::Compared(operands))) if operands.iter().any(is_number) => return None,
            Some(Some(Position::Compared(operands))) => return Some(Position::Text(operands)),
            _ if self.is_beside_number(start, end) => return None,
            _ => {}
        }
        let Some(open) = self.parents[start] else { return Some(Position::Any) };
        let before = open.checked_sub(1);
        if before.is_some_and(|before| self.is_word(before, TEXT_RESULTS)) {
            return self.enclosed(open, start, end);
        }
        if before.is_some_and(|before| self.is_word(before, "in")) {
            let not = before.and_then(|before| before.checked_sub(1)).filter(|not| self.is_word(*not, "not"));
            let operand = self.operand_before(not.or(before)?).map(|operand| vec![operand]);
            return match operand {
                Some(operands) if operands.iter().any(is_number) => None,
                Some(operands) => Some(Position::Text(operands)),
                None if self.is_beside_number(open, self.partners[open]? + 1) => None,
                None => Some(Position::Any),
            };
        }
        Some(Position::Any)
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
