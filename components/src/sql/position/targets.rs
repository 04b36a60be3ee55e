//! The columns that values are written to.

use super::{Positions, Target};
use crate::sql::lexer::Token;

impl Positions<'_> {
    /// The column of an item of `insert into x (a, b) select ...`; all columns of a table are any number of items.
    pub(super) fn inserted_by_select(&self, start: usize) -> Target {
        let outermost = (0..start).filter(|index| self.parents[*index].is_none()).collect::<Vec<_>>();
        let select = outermost.iter().rposition(|index| self.is_word(*index, "select")).unwrap_or_default();
        let items = &outermost[select..];
        let is_all = |index: &&usize| {
            let before = index.saturating_sub(1);
            let begins = self.is_symbol(before, ",") || self.is_symbol(before, ".");
            self.is_symbol(**index, "*") && (begins || self.is_word(before, "select distinct all"))
        };
        match items.iter().find(is_all) {
            Some(_) => Target::Unknown,
            None => self.inserted(items.iter().filter(|index| self.is_symbol(**index, ",")).count()),
        }
    }

    /// The column of an item of the parenthesis in `set (a, b) = (...)`.
    pub(super) fn assigned_item(&self, parent: usize, item: usize) -> Option<Target> {
        let operator = self.operator_before(parent)?;
        self.assigned(operator).map(|_| self.named(operator - 1, item))
    }

    /// The column at this place of the list that this parenthesis closes.
    fn named(&self, close: usize, item: usize) -> Target {
        let open = self.partners[close].unwrap_or(close);
        let mut names = (open + 1..close).filter_map(|index| self.name(index));
        names.nth(item).map_or(Target::Unknown, Target::Column)
    }

    /// The column of an item of `insert into x (a, b) values (...)`, or of `insert into x values (...)`.
    pub(super) fn inserted(&self, item: usize) -> Target {
        let of_table = || {
            let into = (0..self.tokens.len()).find(|index| self.is_word(*index, "into"))?;
            let table = if self.is_symbol(into + 2, ".") { into + 3 } else { into + 1 };
            let open = if self.is_word(table + 1, "as") { table + 3 } else { table + 1 };
            if !self.is_symbol(open, "(") {
                return self.table(table).map(|table| Target::Nth(table, item));
            }
            Some(self.named(self.partners[open]?, item))
        };
        of_table().unwrap_or(Target::Unknown)
    }

    /// The name of a table at a token. One that stands before a parenthesis is no function.
    fn table(&self, index: usize) -> Option<String> {
        self.name(index).or_else(|| self.word(index).map(str::to_ascii_lowercase))
    }

    /// What is assigned by the `=` at this place, if it does assign: the column, if it is one.
    pub(super) fn assigned(&self, operator: usize) -> Option<Target> {
        let equals = matches!(self.tokens[operator].1, Token::Comparison("="));
        let target = operator.checked_sub(1)?;
        let start = match self.partners[target] {
            Some(open) if self.is_symbol(target, ")") => open,
            _ => target,
        };
        let before = start.checked_sub(1)?;
        let begins = self.is_word(before, "set") || self.is_symbol(before, ",");
        (equals && begins && self.clause(operator) == Some("set"))
            .then(|| self.name(target).map_or_else(|| self.named(target, 0), Target::Column))
    }
}
