//! [`Columns`]: the declared types of the columns of `SQLite`, and whether a value can be compared with them.
//!
//! What a value is compared with decides how `SQLite` reads it. A value that it would not read as what is
//! declared, so that a comparison holds for all rows or for none, is an error.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use router_core::error::BoxError;
use router_core::value::{Json, Number, Value};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor, Row as _};

use super::parameters::list;
use super::position::{Operand, Position, Target};
use super::statement::{Parameter, Place, Statement};

/// What a declared type means for a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    /// `integer`, `bigint`: as in `PostgreSQL`, a whole number, also as a text.
    Integer,
    /// `real`, `numeric`: a text is compared as the number that it is.
    Number,
    /// `true` and `false`, as `PostgreSQL` writes them; `SQLite` has 1 and 0.
    Boolean,
    /// `text`, `varchar(9)`: a number is compared as the text that it is.
    Text,
    /// `date`, `timestamp`: `SQLite` knows no such values, and stores texts or numbers.
    Time,
    /// `uuid`, `json`: what is written as a number is stored as one, and compared as one.
    Other,
    /// Nothing is declared, or `blob`: nothing is converted.
    Untyped,
}

impl Class {
    fn of(declared: &str, strict: bool) -> Self {
        let declared = declared.trim().to_ascii_uppercase();
        let has = |parts: &[&str]| parts.iter().any(|part| declared.contains(part));
        let begins = |parts: &[&str]| parts.iter().any(|part| declared.starts_with(part));
        match Affinity::of(&declared) {
            _ if strict && declared == "ANY" => Self::Untyped,
            Affinity::Blob => Self::Untyped,
            Affinity::Text => Self::Text,
            Affinity::Integer => Self::Integer,
            Affinity::Real => Self::Number,
            Affinity::Numeric if has(&["DATE", "TIME"]) => Self::Time,
            Affinity::Numeric if begins(&["BOOL"]) => Self::Boolean,
            Affinity::Numeric if begins(&["NUMERIC", "NUMBER", "DECIMAL", "DEC", "MONEY"]) => Self::Number,
            Affinity::Numeric => Self::Other,
        }
    }

    /// Whether numbers or truth values are meant.
    fn is_number(&self) -> bool {
        matches!(self, Self::Integer | Self::Number | Self::Boolean)
    }

    /// What is wrong with a value beside this type, if it is not compared as what it is.
    fn refuses(self, value: Kind<'_>) -> Option<&'static str> {
        match (self, value) {
            (Self::Untyped, Kind::Bytes) | (_, Kind::Null) => None,
            (Self::Untyped, _) => {
                Some("has no declared type, so that a text is never equal to a number there")
            }
            (_, Kind::Bytes) => Some("is not compared with bytes"),
            (Self::Integer, Kind::Text(text)) if !is_whole(text) => {
                Some("is declared to have whole numbers of 64 bits, and this text is none")
            }
            (Self::Integer, Kind::Number) => Some(
                "is declared to have whole numbers of 64 bits, and this number is none (a cast to real compares it)",
            ),
            (Self::Integer | Self::Number | Self::Time, Kind::Boolean) => {
                Some("has no `true` and `false`: send 1 or 0")
            }
            (Self::Number, Kind::Text(text)) if !is_number(text) => {
                Some("is declared to have numbers, and this text is none")
            }
            (Self::Boolean, Kind::Boolean | Kind::Integer(0 | 1)) => None,
            (Self::Boolean, Kind::Text(text)) if truth(text).is_some() => None,
            (Self::Boolean, _) => Some("is declared to have `true` and `false`, and this is neither"),
            (Self::Number | Self::Other, Kind::Text(text)) if loses_digits(text) => {
                Some("would compare another number: SQLite does not keep all digits of this one")
            }
            (Self::Time, Kind::Text(text)) if is_number(text) => {
                Some("is declared to have times, and this text is a number")
            }
            _ => None,
        }
    }
}

/// A value, as far as that matters beside a type.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Null,
    Boolean,
    Integer(i64),
    /// One that is no whole number of 64 bits.
    Number,
    Text(&'a str),
    Bytes,
}

/// The columns of the tables of a statement.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns(Arc<Declared>);

#[derive(Debug, Default)]
struct Declared {
    /// Columns of two tables can have one name.
    named: HashMap<String, HashSet<Class>>,
    /// By the name of their table, in the order in which `insert into x values (...)` has them.
    ordered: HashMap<String, Vec<HashSet<Class>>>,
}

/// The columns that were read last, and the version of the schema that they are of.
#[derive(Debug, Default)]
pub(super) struct KnownColumns(Mutex<Option<(i64, Columns)>>);

impl KnownColumns {
    fn locked(&self) -> MutexGuard<'_, Option<(i64, Columns)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The columns follow from the statement and its database.
impl PartialEq for KnownColumns {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Columns {
    /// Reads the columns of all tables that a statement names, if one of its values depends on them.
    pub(super) async fn read(
        connection: &mut SqliteConnection,
        statement: &Statement,
        values: &[Value],
    ) -> Result<Self, sqlx::Error> {
        if !statement.parameters.iter().zip(values).any(|(parameter, value)| needs_columns(parameter, value))
        {
            return Ok(Self::default());
        }
        let version = schema_version(connection).await?;
        if let Some((known, columns)) = statement.columns.locked().as_ref()
            && version == Some(*known)
        {
            return Ok(columns.clone());
        }
        let columns = Self::read_anew(connection, statement).await?;
        *statement.columns.locked() = version.map(|version| (version, columns.clone()));
        Ok(columns)
    }

    async fn read_anew(
        connection: &mut SqliteConnection,
        statement: &Statement,
    ) -> Result<Self, sqlx::Error> {
        const ALL: &str = "select lower(t.name) as t, lower(c.name) as c, c.type as kind, t.strict, \
                           iif(c.hidden = 0, sum(c.hidden = 0) over (partition by t.schema, t.name order by c.cid), 0) \
                           from pragma_table_list t, pragma_table_xinfo(t.name, t.schema) c";
        let mut declared = Declared::default();
        let rows = connection.fetch_all(ALL).await?;
        for row in rows {
            let table = row.try_get::<&str, _>(0)?;
            if statement.names.contains(table) {
                let class = Class::of(row.try_get(2)?, row.try_get(3)?);
                declared.named.entry(row.try_get(1)?).or_default().insert(class);
                if let Some(item) = usize::try_from(row.try_get::<i64, _>(4)?).unwrap_or(0).checked_sub(1) {
                    let ordered = declared.ordered.entry(table.to_owned()).or_default();
                    ordered.resize_with(ordered.len().max(item + 1), HashSet::new);
                    ordered[item].insert(class);
                }
            }
        }
        for name in ["rowid", "oid", "_rowid_"] {
            declared.named.entry(name.into()).or_insert_with(|| HashSet::from([Class::Integer]));
        }
        Ok(Self(Arc::new(declared)))
    }

    /// The value of a parameter as it is bound, if it is compared, or stored, as what it is.
    pub(super) fn checked<'v>(
        &self,
        parameter: &Parameter,
        value: &'v Value,
    ) -> Result<Cow<'v, Value>, BoxError> {
        let text = match &parameter.position {
            Position::StoredText(_) => converted(value, Class::Text),
            _ => None,
        };
        if let Some(text) = text {
            return Ok(Cow::Owned(self.checked(parameter, &text)?.into_owned()));
        }
        self.check(parameter, value)?;
        let classes = match &parameter.position {
            Position::Text(_) => HashSet::from([Class::Text]),
            Position::Cast(kind) => HashSet::from([Class::of(kind, false)]),
            Position::Stored(target) | Position::StoredText(target) => self.stored(target),
            Position::Compared(operands) => {
                operands.iter().flat_map(|operand| self.operand(operand)).collect()
            }
            Position::Any | Position::Number | Position::Made(_) => HashSet::new(),
        };
        let (Some(class), 1) = (classes.iter().next(), classes.len()) else {
            return Ok(Cow::Borrowed(value));
        };
        Ok(match value {
            Value::Json(Json::List(list)) if parameter.place == Place::InList => {
                let list = list.iter().map(|item| match converted(&Value::from(item), *class) {
                    Some(Value::Boolean(flag)) => Json::from(flag),
                    Some(value) => Json::from(value.to_string()),
                    None => item.clone(),
                });
                Cow::Owned(Value::Json(Json::List(list.collect())))
            }
            value => converted(value, *class).map_or(Cow::Borrowed(value), Cow::Owned),
        })
    }

    /// Whether the value of a parameter is compared, or stored, as what it is.
    fn check(&self, parameter: &Parameter, value: &Value) -> Result<(), BoxError> {
        let name = &parameter.name;
        match &parameter.position {
            Position::Any => Ok(()),
            Position::Number => match value {
                Value::Text(text) if !is_number(text) => {
                    Err(format!("`:{name}` is a text that is no number, and is to be calculated with").into())
                }
                Value::Text(text) if loses_digits(text) => Err(format!(
                    "`:{name}` is a number with more digits than SQLite calculates with: write \
                     `cast(:{name} as text)` to have them as a text"
                )
                .into()),
                Value::Bytes(_) => Err(format!("`:{name}` is bytes, and is to be calculated with").into()),
                Value::Boolean(_) => {
                    Err(format!("`:{name}` is `true` or `false`, and is to be calculated with").into())
                }
                _ => Ok(()),
            },
            Position::Compared(operands) => {
                operands.iter().try_for_each(|operand| self.compare(name, value, operand))
            }
            Position::Text(operands) => {
                operands.iter().try_for_each(|operand| self.compare_text(name, operand))
            }
            Position::Stored(target) | Position::StoredText(target) => self.store(name, value, target),
            Position::Made(target) => self.store_made(name, target),
            Position::Cast(kind) => check_cast(name, value, kind),
        }
    }

    fn stored(&self, target: &Target) -> HashSet<Class> {
        let Declared { named, ordered } = &*self.0;
        let found = match target {
            Target::Column(column) => named.get(column),
            Target::Nth(table, item) => ordered.get(table).and_then(|columns| columns.get(*item)),
            Target::Unknown => None,
        };
        found.cloned().unwrap_or_default()
    }

    fn operand(&self, operand: &Operand) -> HashSet<Class> {
        match operand {
            Operand::Cast(kind) => HashSet::from([Class::of(kind, false)]),
            Operand::Column(column) => {
                self.0.named.get(column).cloned().unwrap_or_else(|| HashSet::from([Class::Untyped]))
            }
        }
    }

    fn compare(&self, name: &str, value: &Value, operand: &Operand) -> Result<(), BoxError> {
        let what = match operand {
            Operand::Cast(kind) => format!("`cast(... as {kind})`"),
            Operand::Column(column) => format!("column `{column}`"),
        };
        let classes = self.operand(operand);
        let kinds = match list(value) {
            Some(list) => list.iter().map(kind_of_json).collect(),
            None => vec![kind(value)],
        };
        let refused = kinds.into_iter().find_map(|kind| classes.iter().find_map(|class| class.refuses(kind)));
        match refused {
            None => Ok(()),
            Some(reason) => Err(format!(
                "`:{name}` cannot be compared with the {what}, which {reason}: write `cast(:{name} as integer)` or \
                 `cast(:{name} as text)`"
            )
            .into()),
        }
    }

    /// What a function makes of a text is not looked at before. Beside numbers, one that is none is greater than all.
    fn compare_text(&self, name: &str, operand: &Operand) -> Result<(), BoxError> {
        let Operand::Column(column) = operand else { return Ok(()) };
        if self.0.named.get(column).is_none_or(|classes| !classes.iter().any(Class::is_number)) {
            return Ok(());
        }
        Err(format!(
            "a text that is made of `:{name}` cannot be compared with the column `{column}`, which is declared to have \
             numbers: write `cast({column} as text)`"
        )
        .into())
    }

    /// What a function makes is not looked at before it is stored.
    fn store_made(&self, name: &str, target: &Target) -> Result<(), BoxError> {
        if !self.stored(target).iter().any(Class::is_number) {
            return Ok(());
        }
        Err(format!(
            "what is made of `:{name}` cannot be stored in its column, which is declared to have numbers, and might be \
             none: write `:{name}`, `cast(trim(:{name}) as integer)`, or for a field of JSON `:{name}.field`"
        )
        .into())
    }

    /// `SQLite` stores what does not fit the type of a column as it is, and makes a number of a text that looks like
    /// one, with the digits that a double has.
    fn store(&self, name: &str, value: &Value, target: &Target) -> Result<(), BoxError> {
        let classes = self.stored(target);
        let keeps =
            !classes.is_empty() && classes.iter().all(|class| matches!(class, Class::Text | Class::Untyped));
        if let Value::Text(text) = value
            && !keeps
            && loses_digits(text)
        {
            return Err(format!(
                "`:{name}` is a number with more digits than SQLite keeps: they can be stored in a column of the type text"
            )
            .into());
        }
        let refuses = |class: &Class| {
            let typed = class.is_number();
            let kind = kind(value);
            class
                .refuses(kind)
                .filter(|_| typed && !matches!(kind, Kind::Bytes) || matches!(kind, Kind::Boolean))
        };
        let mut reasons = classes.iter().map(refuses).collect::<Option<Vec<_>>>().unwrap_or_default();
        match reasons.pop() {
            Some(reason) => Err(format!("`:{name}` cannot be stored in its column, which {reason}").into()),
            None => Ok(()),
        }
    }
}

/// A number that each change of a table changes. `None`: there are tables that it says nothing of, which this connection
/// alone has, or which are attached.
async fn schema_version(connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    const VERSION: &str = "select schema_version, \
        exists (select 1 from temp.sqlite_schema where name <> 'bactrian_rows') \
        or exists (select 1 from pragma_database_list where seq > 1) from pragma_schema_version";
    let row = connection.fetch_one(VERSION).await?;
    Ok(if row.try_get(1)? { None } else { Some(row.try_get(0)?) })
}

fn needs_columns(parameter: &Parameter, value: &Value) -> bool {
    match &parameter.position {
        Position::Compared(operands) | Position::Text(operands) => {
            !value.is_null() && operands.iter().any(|operand| matches!(operand, Operand::Column(_)))
        }
        Position::Stored(target) | Position::StoredText(target) | Position::Made(target) => {
            !value.is_null() && *target != Target::Unknown
        }
        _ => false,
    }
}

fn kind(value: &Value) -> Kind<'_> {
    match value {
        Value::Null => Kind::Null,
        Value::Boolean(_) => Kind::Boolean,
        Value::Integer(number) => Kind::Integer(*number),
        Value::Float(number) => {
            Number::from_f64(*number).map_or(Kind::Number, |number| kind_of_number(&number))
        }
        Value::Text(text) => Kind::Text(text),
        Value::Bytes(_) => Kind::Bytes,
        Value::Json(json) => kind_of_json(json),
    }
}

fn kind_of_json(json: &Json) -> Kind<'_> {
    match json {
        Json::Null => Kind::Null,
        Json::Boolean(_) => Kind::Boolean,
        Json::Number(number) => kind_of_number(number),
        Json::Text(text) => Kind::Text(text),
        // Which is bound as its text.
        Json::List(_) | Json::Object(_) => Kind::Text("{}"),
    }
}

fn kind_of_number(number: &Number) -> Kind<'static> {
    whole(number).map_or(Kind::Number, Kind::Integer)
}

/// What a value becomes where values of this class are, if `SQLite` would make something else of it than `PostgreSQL`.
fn converted(value: &Value, class: Class) -> Option<Value> {
    match (class, value) {
        (Class::Text, Value::Boolean(_) | Value::Json(Json::Number(_))) => {
            Some(Value::from(value.to_string()))
        }
        (Class::Boolean, Value::Text(text)) => truth(text).map(Value::from),
        _ => None,
    }
}

/// The truth value that `PostgreSQL` reads in a text: one of these words, or how one begins.
fn truth(text: &str) -> Option<bool> {
    let text = text.trim_ascii().to_ascii_lowercase();
    let begins = |word: &str, shortest: usize| text.len() >= shortest && word.starts_with(&text);
    let is = |words: [(&str, usize); 4]| words.into_iter().any(|(word, shortest)| begins(word, shortest));
    match () {
        () if is([("true", 1), ("yes", 1), ("on", 2), ("1", 1)]) => Some(true),
        () if is([("false", 1), ("no", 1), ("off", 2), ("0", 1)]) => Some(false),
        () => None,
    }
}

/// Whether a text is a whole number of 64 bits, as `PostgreSQL` reads one.
pub(super) fn is_whole(text: &str) -> bool {
    text.trim_ascii().parse::<i64>().is_ok()
}

/// Whether a column for numbers makes a number of this text.
fn is_number(text: &str) -> bool {
    let text = text.trim_ascii();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    // Neither `inf` nor `nan`.
    digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') && text.parse::<f64>().is_ok()
}

/// Whether the number that is made of this text is another one: it has neither an integer of 64 bits nor a float that
/// is written with its digits.
fn loses_digits(text: &str) -> bool {
    let text = text.trim_ascii();
    is_number(text) && text.parse::<i64>().is_err() && Number::exact_f64(text).is_none()
}

/// What `SQLite` stores in a column, and what a cast makes of a value, by the name of the type (its documentation,
/// "Determination Of Column Affinity").
#[derive(Clone, Copy, PartialEq, Eq)]
enum Affinity {
    Integer,
    Text,
    /// Nothing is converted.
    Blob,
    Real,
    /// An integer where it is one, a float otherwise. All types that are not known are this one, also `date`.
    Numeric,
}

impl Affinity {
    fn of(kind: &str) -> Self {
        let kind = kind.to_ascii_uppercase();
        let has = |parts: &[&str]| parts.iter().any(|part| kind.contains(part));
        match () {
            () if has(&["INT"]) => Self::Integer,
            () if has(&["CHAR", "CLOB", "TEXT"]) => Self::Text,
            () if kind.is_empty() || has(&["BLOB"]) => Self::Blob,
            () if has(&["REAL", "FLOA", "DOUB"]) => Self::Real,
            () => Self::Numeric,
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Real | Self::Numeric)
    }

    /// Whether a cast makes this number of the text of one.
    fn keeps(self, text: &str) -> bool {
        let text = text.trim_ascii();
        let whole = || text.parse::<i64>().is_ok();
        let exact = || is_number(text) && Number::exact_f64(text).is_some();
        match self {
            Self::Text | Self::Blob => true,
            Self::Integer => whole(),
            Self::Real => exact(),
            Self::Numeric => whole() || exact(),
        }
    }
}

/// Whether a cast to this type makes a number.
pub(super) fn is_number_type(kind: &str) -> bool {
    Affinity::of(kind).is_number()
}

/// Whether a cast to this type makes a text.
pub(super) fn is_text_type(kind: &str) -> bool {
    Affinity::of(kind) == Affinity::Text
}

/// `SQLite` makes 0 of a text that is no number, the beginning of one that begins with a number, and the greatest
/// integer of one that is beyond it.
fn check_cast(name: &str, value: &Value, kind: &str) -> Result<(), BoxError> {
    let affinity = Affinity::of(kind);
    if !affinity.is_number() {
        return Ok(());
    }
    let keeps = match value {
        Value::Null | Value::Json(Json::Null) => true,
        Value::Boolean(_) | Value::Json(Json::Boolean(_)) => Class::of(kind, false) == Class::Boolean,
        Value::Integer(number) => affinity.keeps(&number.to_string()),
        Value::Float(number) if affinity == Affinity::Integer => {
            Number::from_f64(*number).is_some_and(|number| whole(&number).is_some())
        }
        Value::Float(number) => number.is_finite(),
        Value::Text(text) => affinity.keeps(text),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).is_ok_and(|text| affinity.keeps(text)),
        Value::Json(Json::Number(number)) if affinity == Affinity::Real => number.as_f64().is_some(),
        Value::Json(Json::Number(number)) => whole(number).is_some() || affinity.keeps(number.as_str()),
        Value::Json(Json::Text(text)) => affinity.keeps(text),
        Value::Json(Json::List(_) | Json::Object(_)) => false,
    };
    if keeps {
        return Ok(());
    }
    let wanted = if affinity == Affinity::Integer {
        "a whole number of 64 bits"
    } else {
        "a number that SQLite keeps"
    };
    Err(format!("`:{name}` is not {wanted}, and `cast(:{name} as {kind})` would make another one of it")
        .into())
}

/// The whole number that a cast to a number is given for one of JSON: it would read `1E2` as 1.
pub(super) fn whole_to_cast(parameter: &Parameter, number: &Number) -> Option<i64> {
    let Position::Cast(kind) = &parameter.position else { return None };
    whole(number).filter(|_| Affinity::of(kind).is_number())
}

fn whole(number: &Number) -> Option<i64> {
    number.to_whole()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::super::lexer::Dialect;
    use super::*;

    #[tokio::test]
    async fn columns_are_read_again_when_a_table_was_changed() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        connection.execute("create table t (a integer)").await.unwrap();
        let statement = Statement::parse("select 1 from t where a = :a", Dialect::Sqlite).unwrap();
        let values = [Value::from("abc")];
        let mut read = async |changes: &'static str| {
            connection.execute(changes).await.unwrap();
            Columns::read(&mut connection, &statement, &values).await.unwrap().0
        };
        let first = read("select 1").await;
        assert!(Arc::ptr_eq(&first, &read("insert into t values (1)").await));
        let other = read("alter table t add column b text").await;
        assert!(!Arc::ptr_eq(&first, &other) && other.named.contains_key("b"));
        // Which is another `t` for this connection.
        let own = read("create temp table t (c text)").await;
        assert!(own.named.contains_key("c") && !Arc::ptr_eq(&own, &read("select 1").await));
    }
}
