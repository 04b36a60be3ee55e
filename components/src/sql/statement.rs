//! [`Statement`]: SQL with named parameters, read once.

use std::collections::HashSet;
use std::ops::Range;

use super::affinity::KnownColumns;
use super::lexer::{Dialect, LexError, Token, at, tokens};
use super::position::{Position, Positions};

/// A statement, cut at its parameters.
#[derive(Debug, PartialEq)]
pub(super) struct Statement {
    /// What stands before, between and behind the parameters: one more than there are of them.
    pieces: Vec<String>,
    /// In the order in which they stand; each as often as it does.
    pub(super) parameters: Vec<Parameter>,
    pub(super) kind: Kind,
    /// The bytes of the texts and names in quotes.
    pub(super) quoted: Vec<Range<usize>>,
    /// Its words and quoted names, in small letters: the tables are among them.
    pub(super) names: HashSet<String>,
    /// What `SQLite` has said of those tables.
    pub(super) columns: KnownColumns,
}

/// What a statement does, as far as its words tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Reads rows, and changes none.
    Query,
    /// Inserts, updates or deletes rows, and may yield them.
    Change {
        yields: bool,
    },
    Other,
}

/// A parameter, at one of the places where it stands.
#[derive(Debug, PartialEq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) place: Place,
    /// What gives it its type; for `PostgreSQL` always [`Position::Any`], since that knows itself.
    pub(super) position: Position,
    /// Where a null would make a condition hold for no row: `not in (...)`, `(x in (...)) = 0` and `all(...)`.
    pub(super) refuses_null: bool,
}

/// What is around a parameter, as far as that decides how its value is given to the database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// `in (:name)`: here a list is meant as its elements.
    InList,
    /// `in (1, :name)`.
    AmongOthers,
    /// `json_each(:name)` and the like, and `cast(:name as ...)`: here a list is meant as JSON.
    TakesJson,
    /// `:name is null`, from which the database does not see a type.
    NullCheck,
    Other,
}

const SORTS_NOTHING: &str = "a parameter is a value and never the name of a column, so this puts all rows at the \
                             same place: name the column, or write `order by case :by when 'name' then name end` \
                             with a cast";

impl Statement {
    /// Finds the parameters: `:name` outside of texts, quoted names, comments, casts and slices.
    pub(super) fn parse(text: &str, dialect: Dialect) -> Result<Self, LexError> {
        let mut tokens = tokens(text, dialect)?;
        if let Some(end) = tokens.iter().position(|(_, token)| *token == Token::Symbol(";")) {
            if tokens.len() > end + 1 {
                let place = tokens[end].0.start;
                return Err((place..text.len(), "there is more than one statement".into()));
            }
            tokens.truncate(end);
        }
        let Some((last, _)) = tokens.last() else {
            return Err((0..text.len(), "there is no statement".into()));
        };
        let end = last.end;
        let quoted = tokens.iter().filter(|(_, token)| *token == Token::Quoted);
        let quoted = quoted.map(|(range, _)| range.clone()).collect();
        let words = tokens.iter().map(|(_, token)| *token).collect::<Vec<_>>();
        if let Some((index, message)) = not_for_a_pool(&words, dialect) {
            return Err(at(tokens[index].0.start, tokens[index].0.len(), message));
        }
        let (mut pieces, mut parameters, mut piece, mut copied) = (Vec::new(), Vec::new(), String::new(), 0);
        let positions = Positions::new(text, &tokens);
        let mut scopes = Scopes::default();
        for (index, (range, token)) in tokens.iter().enumerate() {
            scopes.enter(&words, index);
            match token {
                Token::Escape => {
                    piece.push_str(&text[copied..range.start]);
                    copied = range.end;
                }
                Token::Parameter(name) => {
                    if is_word(index.checked_sub(1).and_then(|before| words.get(before)), &["by"]) {
                        return Err((range.clone(), SORTS_NOTHING.into()));
                    }
                    let (place, refuses_null) = scopes.place(&words, index);
                    let is_member = matches!(place, Place::InList | Place::AmongOthers) || scopes.is_in_any();
                    let refuses_null = refuses_null || is_member && positions.is_compared(index);
                    let position = match (dialect, place) {
                        (Dialect::Postgres, _) | (_, Place::NullCheck) => Position::Any,
                        (Dialect::Sqlite, _) => {
                            positions.of(index).map_err(|message| (range.clone(), message))?
                        }
                    };
                    piece.push_str(&text[copied..range.start]);
                    pieces.push(std::mem::take(&mut piece));
                    parameters.push(Parameter { name: (*name).to_owned(), place, position, refuses_null });
                    copied = range.end;
                }
                _ => {}
            }
        }
        piece.push_str(&text[copied..end]);
        pieces.push(piece);
        let (kind, names, columns) = (kind(&words), positions.names(), KnownColumns::default());
        Ok(Self { pieces, parameters, kind, quoted, names, columns })
    }

    /// The statement with what `placeholder` says in the place of each parameter, counted from 0.
    pub(super) fn text(&self, placeholder: impl Fn(usize, &Parameter) -> String) -> String {
        let mut text = String::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            text.push_str(piece);
            if let Some(parameter) = self.parameters.get(index) {
                text.push_str(&placeholder(index, parameter));
            }
        }
        text
    }
}

fn is_word(token: Option<&Token<'_>>, words: &[&str]) -> bool {
    matches!(token, Some(Token::Word(word)) if words.iter().any(|other| word.eq_ignore_ascii_case(other)))
}

fn is_symbol(token: Option<&Token<'_>>, symbol: &str) -> bool {
    token == Some(&Token::Symbol(symbol))
}

/// Which word keeps the statement from being run with any connection of the pool, and why.
fn not_for_a_pool(words: &[Token<'_>], dialect: Dialect) -> Option<(usize, &'static str)> {
    const TRANSACTION: &[&str] =
        &["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"];
    if is_word(words.first(), TRANSACTION) {
        let message =
            "each statement is a transaction, or part of that of its row: it cannot begin or end one";
        return Some((0, message));
    }
    if dialect == Dialect::Sqlite {
        let message = "statements share a pool of connections, and this would set up only one of them";
        return sets_up_sqlite(words).then_some((0, message));
    }
    let session = is_word(words.first(), &["set", "reset", "discard", "listen", "unlisten"]);
    if session && !is_word(words.get(1), &["local"]) {
        return Some((0, SETS_UP_POSTGRES));
    }
    (0..words.len()).find_map(|index| Some((index, kept_by_postgres(words, index)?)))
}

const SETS_UP_POSTGRES: &str = "statements share a pool of connections, and this would set up only one of them: write \
                                `options=-c%20name=value` behind the `?` of `data_source`";

/// Why what begins at a word stays with a connection of `PostgreSQL` when the transaction has ended, if it does.
fn kept_by_postgres(words: &[Token<'_>], index: usize) -> Option<&'static str> {
    const LOCKS: &[&str] = &[
        "pg_advisory_lock",
        "pg_advisory_lock_shared",
        "pg_try_advisory_lock",
        "pg_try_advisory_lock_shared",
        "pg_advisory_unlock",
        "pg_advisory_unlock_shared",
        "pg_advisory_unlock_all",
    ];
    let (word, next) = (words.get(index), words.get(index + 1));
    let calls = is_symbol(next, "(");
    if calls && is_word(word, &["set_config"]) {
        let mut depth = 0;
        let end = (index + 1..words.len()).find(|&at| {
            depth += i32::from(is_symbol(words.get(at), "(")) - i32::from(is_symbol(words.get(at), ")"));
            depth == 0
        })?;
        let is_local = is_symbol(words.get(end - 2), ",") && is_word(words.get(end - 1), &["true"]);
        let message = "statements share a pool of connections, and this would set up only one of them: write `true` as the \
                       last argument, for this transaction alone, or `options=-c%20name=value` behind the `?` of \
                       `data_source`";
        return (!is_local).then_some(message);
    }
    if calls && is_word(word, LOCKS) {
        return Some(
            "the lock would stay with one connection of a pool when the statement has ended: \
             `pg_advisory_xact_lock` and `pg_try_advisory_xact_lock` end with the transaction",
        );
    }
    if index > 0 {
        return None;
    }
    let temporary = |at| is_word(words.get(at), &["temp", "temporary"]);
    let is_temporary =
        is_word(word, &["create"]) && (temporary(1) || is_word(next, &["local", "global"]) && temporary(2));
    let drops = words.windows(3).any(|words| {
        is_word(words.first(), &["on"])
            && is_word(words.get(1), &["commit"])
            && is_word(words.get(2), &["drop"])
    });
    if is_temporary && !drops {
        return Some(
            "statements share a pool of connections, and only one of them would have it: add `on commit drop`, or \
             make one that is not temporary",
        );
    }
    is_word(word, &["prepare", "deallocate"])
        .then_some("statements share a pool of connections, and are prepared by themselves")
}

/// Whether a statement of `SQLite` changes nothing but its connection.
fn sets_up_sqlite(words: &[Token<'_>]) -> bool {
    /// Those that are kept in the file.
    const KEPT: &[&str] = &["user_version", "application_id", "journal_mode", "auto_vacuum", "page_size"];
    match words.first() {
        first if is_word(first, &["attach", "detach"]) => true,
        first if is_word(first, &["create"]) => is_word(words.get(1), &["temp", "temporary"]),
        first if is_word(first, &["pragma"]) => {
            let sets = words.iter().any(|word| matches!(word, Token::Comparison("=")));
            sets && !words.iter().any(|word| is_word(Some(word), KEPT))
        }
        _ => false,
    }
}

/// `for update` changes nothing, and `with` can change rows in each of its parts.
fn kind(words: &[Token<'_>]) -> Kind {
    let with = is_word(words.first(), &["with"]);
    let begins_part =
        |index: usize| index == 0 || with && matches!(words[index - 1], Token::Symbol("(" | ")"));
    let is_change = |(index, token)| {
        begins_part(index) && is_word(Some(token), &["insert", "update", "delete", "merge", "replace"])
    };
    if words.iter().enumerate().any(is_change) {
        Kind::Change { yields: words.iter().any(|token| is_word(Some(token), &["returning"])) }
    } else if with || is_word(words.first(), &["select", "values", "table"]) {
        Kind::Query
    } else {
        Kind::Other
    }
}

/// What is open at a place of a statement.
#[derive(Default)]
struct Scopes {
    parentheses: Vec<Parenthesis>,
    /// Behind `not`, up to the next `and` and the like.
    negated: bool,
}

struct Parenthesis {
    /// `in (1, 2)`.
    is_list: bool,
    /// `any(...)`, and a cast or parentheses in it.
    is_any: bool,
    is_all: bool,
    /// `not in (select ...)`.
    is_excluding: bool,
    /// `unnest(...)`, `json_each(...)`: the elements of a list are rows.
    is_elements: bool,
    refuses_null: bool,
    /// What was before it.
    negated: bool,
}

impl Scopes {
    fn enter(&mut self, words: &[Token<'_>], index: usize) {
        let before = index.checked_sub(1).and_then(|index| words.get(index));
        match words[index] {
            Token::Symbol("(") => {
                let query = is_word(words.get(index + 1), &["select", "with", "values"]);
                let is_list = !query && is_word(before, &["in"]);
                let not_in = is_list && index > 1 && is_word(words.get(index - 2), &["not"]);
                let outer = self.parentheses.last().is_some_and(|outer| outer.refuses_null && !outer.is_list);
                let inner = self.parentheses.last().filter(|_| is_groups(before));
                let is_excluding = query
                    && is_word(before, &["in"])
                    && (self.negated || index > 1 && is_word(words.get(index - 2), &["not"]));
                let all = !query && (is_word(before, &["all"]) || inner.is_some_and(|outer| outer.is_all));
                let is_any =
                    !query && (is_word(before, &["any", "some"]) || inner.is_some_and(|outer| outer.is_any));
                let negated = not_in || all || self.negated || outer || is_word(before, &["not"]);
                self.parentheses.push(Parenthesis {
                    is_list,
                    is_any,
                    is_all: all,
                    is_excluding,
                    is_elements: before.is_some_and(makes_rows),
                    refuses_null: negated && !is_word(before, &["exists"]),
                    negated: self.negated,
                });
                self.negated = false;
            }
            Token::Symbol(")") => {
                if let Some(closed) = self.parentheses.pop() {
                    self.negated = closed.negated;
                }
            }
            Token::Symbol(",") => self.negated = false,
            token @ Token::Word(_) => {
                let token = Some(&token);
                if is_word(token, &["not"]) {
                    // Not `not in`, `is not null` and the like.
                    let next = &["in", "null", "like", "ilike", "similar", "between", "exists", "distinct"];
                    self.negated = !is_word(words.get(index + 1), next) && !is_word(before, &["is"]);
                } else if is_word(token, &["and", "or", "where", "on", "when", "then", "else", "having"]) {
                    self.negated = false;
                }
            }
            _ => {}
        }
    }

    /// Whether the rows that `not in (select ...)` excludes are the elements of the parameter at `index`, and no more
    /// is said of them.
    fn is_excluded(&self, words: &[Token<'_>], index: usize) -> bool {
        let mut calls = self.parentheses.iter().rev().skip_while(|inner| !inner.is_elements).skip(1);
        let behind = words[index..].iter().position(|token| *token == Token::Symbol(")"));
        let rest = behind.map_or(&[][..], |close| &words[index + close..]);
        let ends = rest.iter().take_while(|token| **token == Token::Symbol(")")).count();
        let depth = self.parentheses.iter().rev().take_while(|inner| !inner.is_excluding).count();
        calls.next().is_some_and(|outer| outer.is_excluding) && ends > depth
    }

    fn is_in_any(&self) -> bool {
        self.parentheses.last().is_some_and(|inner| inner.is_any)
    }

    /// The place of the parameter at `index`, and whether it refuses null.
    fn place(&self, words: &[Token<'_>], index: usize) -> (Place, bool) {
        let before = |distance: usize| index.checked_sub(distance).and_then(|index| words.get(index));
        let next = words.get(index + 1);
        let inner = self.parentheses.last();
        let all = inner.is_some_and(|inner| inner.is_all || inner.is_any && inner.refuses_null);
        if let Some(list) = inner.filter(|inner| inner.is_list) {
            let alone = is_symbol(before(1), "(") && is_symbol(next, ")");
            return (if alone { Place::InList } else { Place::AmongOthers }, list.refuses_null);
        }
        let cast = is_word(before(2), &["cast"]) && is_word(next, &["as"]);
        let all = all || self.is_excluded(words, index);
        if is_symbol(before(1), "(") && (cast || before(2).is_some_and(takes_json)) {
            return (Place::TakesJson, all);
        }
        let null = is_word(words.get(index + 2), &["null"])
            || is_word(words.get(index + 2), &["not"]) && is_word(words.get(index + 3), &["null"]);
        if is_word(next, &["is"]) && null || is_word(next, &["isnull", "notnull"]) {
            return (Place::NullCheck, false);
        }
        (Place::Other, all)
    }
}

/// Whether a parenthesis behind this token is part of the expression around it, and no call.
fn is_groups(before: Option<&Token<'_>>) -> bool {
    is_word(before, &["cast"])
        || !matches!(before, Some(Token::Word(_) | Token::Quoted | Token::Parameter(_)))
}

/// Whether this function makes a row of each element of a list.
fn makes_rows(function: &Token<'_>) -> bool {
    let Token::Word(function) = function else { return false };
    let function = function.to_ascii_lowercase();
    function == "unnest"
        || function.starts_with("json") && (function.contains("_each") || function.contains("_elements"))
}

/// Whether the first argument of this function is JSON.
fn takes_json(function: &Token<'_>) -> bool {
    let Token::Word(function) = function else { return false };
    let function = function.to_ascii_lowercase();
    let makes = ["json_array", "jsonb_array", "json_object", "jsonb_object", "json_quote"];
    function.starts_with("json") && !makes.contains(&&*function) && !function.contains("_group_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, Vec<String>) {
        let statement =
            Statement::parse(text, Dialect::Postgres).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let names = statement.parameters.iter().map(|parameter| parameter.name.clone()).collect();
        (statement.text(|index, _| format!("${}", index + 1)), names)
    }

    #[test]
    fn parameters_are_found_and_nothing_else_is() {
        assert_eq!(parse("select 1"), ("select 1".into(), vec![]));
        let (text, names) = parse("update x set a = :a, b=:b.c::text where id=:a;  ");
        assert_eq!(text, "update x set a = $1, b=$2::text where id=$3");
        assert_eq!(names, ["a", "b.c", "a"]);
        for text in [
            "select ':a', 'it''s :a', \":a\"",
            "select /* :a ; /* nested :a */ ' :a */ 1 -- :a\n, x::text",
            "select $$ :a ' $$, $t$ :a $$ $t$, a$b, e'\\' :a', E'a''b\\' :a', x ? 'k', 'ü'",
            "select a[1:2], a[:3], a[n:m], a[2:], a[:], a[f(1):b[1]:c], a[1][ :2], a[i : j], f(x := 1)",
            "select 'a \\', x ->> 'k', y @> '{}', z #>> '{a,b}', '2026-03-01 12:00:00'::timestamptz",
        ] {
            assert_eq!(parse(text), (text.into(), vec![]), "{text}");
        }
        assert_eq!(parse("select a[:i], a[1:n], array[:a,:b]").1, ["i", "a", "b"]);
        assert_eq!(parse("select a[:i : :j], a[:i:n]").0, "select a[$1 : $2], a[$3:n]");
        assert_eq!(parse("select a[\\:n], 1 \\:\\: text, \\:b").0, "select a[:n], 1 :: text, :b");
        assert_eq!(parse(":a").0, "$1");
        assert_eq!(parse("select :ü.").0, "select $1.");
    }

    /// Whatever is written: the error is at a place of the text, or the statement is the text with its parameters.
    #[test]
    fn fuzz_statements() {
        testkit::fuzz::fuzz(include_str!("../../corpus/sql.txt"), |text| {
            for dialect in [Dialect::Postgres, Dialect::Sqlite] {
                let statement = match Statement::parse(text, dialect) {
                    Ok(statement) => statement,
                    Err((range, message)) => {
                        assert!(text.get(range.clone()).is_some(), "{range:?}: {message}");
                        continue;
                    }
                };
                assert_eq!(statement.pieces.len(), statement.parameters.len() + 1);
                assert!(statement.quoted.iter().all(|range| text.get(range.clone()).is_some()));
                if !text.contains('\\') {
                    let written = statement.text(|_, parameter| format!(":{}", parameter.name));
                    assert!(text.starts_with(&written), "{written:?}");
                    let again =
                        Statement::parse(&written, dialect).unwrap_or_else(|error| panic!("{error:?}"));
                    assert_eq!(again.parameters, statement.parameters);
                }
            }
        });
    }

    #[test]
    fn errors_name_their_place() {
        for (text, range, message) in [
            ("select :#id", 7..9, "looks like `:name`"),
            ("select /* /* a */", 7..9, "does not end"),
            (" begin", 1..6, "cannot begin or end"),
            ("set search_path = x", 0..3, "only one of them"),
            ("select set_config('search_path', :a, false)", 7..17, "`true` as the last"),
            ("select a, set_config('a.b', (select ',' where true), :local)", 10..20, "`true` as the last"),
            ("select pg_catalog.PG_TRY_ADVISORY_LOCK(:a)", 18..38, "`pg_try_advisory_xact_lock`"),
            ("create temp table a (b int)", 0..6, "`on commit drop`"),
            ("create local temporary table a (b int)", 0..6, "`on commit drop`"),
            ("prepare a as select 1", 0..7, "by themselves"),
            ("select :1", 7..9, "looks like `:name`"),
            ("select $1", 7..9, "write `:name`"),
            ("select 'a", 7..8, "does not end"),
            ("select e'\\'", 7..8, "does not end"),
            ("select /* a", 7..9, "does not end"),
            ("select 1; select 2", 8..18, "more than one"),
            (" ; ", 0..3, "no statement"),
            ("select 1; 'a'", 8..13, "more than one"),
        ] {
            let Err((place, found)) = Statement::parse(text, Dialect::Postgres) else { panic!("{text}") };
            assert!(found.contains(message), "{text}: {found}");
            assert_eq!(place, range, "{text}");
        }
        for text in [
            "select set_config('a.b', :a, true)",
            "select pg_advisory_xact_lock(:a)",
            "create temp table a on commit drop as select 1",
            "select set_config from a",
        ] {
            assert!(Statement::parse(text, Dialect::Postgres).is_ok(), "{text}");
        }
        for text in ["select ?", "select @a", "select $a", "select $$ :a $$"] {
            assert_eq!(Statement::parse(text, Dialect::Sqlite).unwrap_err().0, 7..8, "{text}");
        }
    }

    #[test]
    fn each_database_has_its_own_quotes() {
        let names = |text: &str| {
            let statement = Statement::parse(text, Dialect::Sqlite).unwrap();
            statement.parameters.into_iter().map(|parameter| parameter.name).collect::<Vec<_>>()
        };
        assert!(names("select a$b, '?', `:a`, [x:a], x'00'").is_empty());
        // A backslash escapes nothing there, and comments do not nest.
        assert_eq!(names("select e'\\', :a /* /* */, :b"), ["a", "b"]);
    }

    #[test]
    fn the_place_of_a_parameter_is_seen() {
        let places = |text: &str| {
            let statement = Statement::parse(text, Dialect::Sqlite).unwrap();
            statement
                .parameters
                .iter()
                .map(|parameter| (parameter.place, parameter.refuses_null))
                .collect::<Vec<_>>()
        };
        for (text, place, refuses_null) in [
            ("x in (:a)", Place::InList, false),
            ("x NOT IN ( :a )", Place::InList, true),
            ("not x.y in (:a)", Place::InList, true),
            ("not (x = 1 or y in (:a))", Place::InList, true),
            ("not done and x in (:a)", Place::InList, false),
            ("x is not null and y in (:a)", Place::InList, false),
            ("x not in (1, :a)", Place::AmongOthers, true),
            ("x in (select y from z where w in (:a))", Place::InList, false),
            ("x in (select y from z where w = :a)", Place::Other, false),
            ("x in (select cast(value as text) from json_each(:a))", Place::TakesJson, false),
            ("x = json_array(:a)", Place::Other, false),
            ("x = cast(:a as text)", Place::TakesJson, false),
            (":a is not null", Place::NullCheck, false),
        ] {
            assert_eq!(places(&format!("select 1 from t where {text}")), [(place, refuses_null)], "{text}");
        }
    }

    #[test]
    fn what_a_statement_does_is_seen() {
        let kind = |text| Statement::parse(text, Dialect::Postgres).unwrap().kind;
        for text in ["select 1 for update", "with x as (select 1) select * from x", "values (1)"] {
            assert_eq!(kind(text), Kind::Query, "{text}");
        }
        let yields = "with x as (delete from y returning *) select * from x";
        assert_eq!(kind(yields), Kind::Change { yields: true });
        assert_eq!(kind("insert into x select 1"), Kind::Change { yields: false });
        assert_eq!(kind("create table x (a int)"), Kind::Other);
    }
}
