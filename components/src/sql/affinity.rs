//! [`Columns`]: the declared types of the columns of `SQLite`, and whether a value can be compared with them.
//!
//! What a value is compared with decides how `SQLite` reads it. A value that it would not read as what is
//! declared, so that a comparison holds for all rows or for none, is an error.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use router_core::error::BoxError;
use router_core::value::{Json, Number, Value};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor, Row as _};

use super::parameters::list;
use super::position::{Operand, Position};
use super::statement::{Parameter, Statement};

/// What a declared type means for a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    /// `integer`, `real`, `numeric`, `boolean`: a text is compared as the number that it is.
    Number,
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
            Affinity::Integer | Affinity::Real => Self::Number,
            Affinity::Numeric if has(&["DATE", "TIME"]) => Self::Time,
            Affinity::Numeric if begins(&["BOOL", "NUMERIC", "NUMBER", "DECIMAL", "DEC", "MONEY"]) => {
                Self::Number
            }
            Affinity::Numeric => Self::Other,
        }
    }

    /// What is wrong with a value beside this type, if it is not compared as what it is.
    fn refuses(self, value: Kind<'_>) -> Option<&'static str> {
        match (self, value) {
            (Self::Untyped, Kind::Bytes) | (_, Kind::Null) => None,
            (Self::Untyped, _) => {
                Some("has no declared type, so that a text is never equal to a number there")
            }
            (_, Kind::Bytes) => Some("is not compared with bytes"),
            (Self::Number, Kind::Text(text)) if !is_number(text) => {
                Some("is declared to have numbers, and this text is none")
            }
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
    Number,
    Text(&'a str),
    Bytes,
}

/// The columns of the tables of a statement.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns(Arc<HashMap<String, HashSet<Class>>>);

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
        const ALL: &str = "select lower(t.name) as t, lower(c.name) as c, c.type as kind, t.strict \
                           from pragma_table_list t, pragma_table_xinfo(t.name, t.schema) c";
        let mut columns = HashMap::<_, HashSet<_>>::new();
        let rows = connection.fetch_all(ALL).await?;
        for row in rows {
            if statement.names.contains(row.try_get::<&str, _>(0)?) {
                let class = Class::of(row.try_get(2)?, row.try_get(3)?);
                columns.entry(row.try_get(1)?).or_default().insert(class);
            }
        }
        for name in ["rowid", "oid", "_rowid_"] {
            columns.entry(name.into()).or_insert_with(|| HashSet::from([Class::Number]));
        }
        Ok(Self(Arc::new(columns)))
    }

    /// Whether the value of a parameter is compared, or stored, as what it is.
    pub(super) fn check(&self, parameter: &Parameter, value: &Value) -> Result<(), BoxError> {
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
                _ => Ok(()),
            },
            Position::Compared(operands) => {
                operands.iter().try_for_each(|operand| self.compare(name, value, operand))
            }
            Position::Text(operands) => {
                operands.iter().try_for_each(|operand| self.compare_text(name, operand))
            }
            Position::Stored(column) => self.store(name, value, column.as_deref()),
            Position::Cast(kind) => check_cast(name, value, kind),
        }
    }

    /// Whether what is stored for a parameter are texts, which keep all digits of a number.
    pub(super) fn stores_text(&self, parameter: &Parameter) -> bool {
        let Position::Stored(Some(column)) = &parameter.position else { return false };
        self.0.get(column).is_some_and(|classes| classes.iter().all(|class| matches!(class, Class::Text)))
    }

    fn compare(&self, name: &str, value: &Value, operand: &Operand) -> Result<(), BoxError> {
        let (what, classes) = match operand {
            Operand::Cast(kind) => {
                (format!("`cast(... as {kind})`"), HashSet::from([Class::of(kind, false)]))
            }
            Operand::Column(column) => {
                let classes = self.0.get(column).cloned();
                (format!("column `{column}`"), classes.unwrap_or_else(|| HashSet::from([Class::Untyped])))
            }
        };
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
        if self.0.get(column).is_none_or(|classes| !classes.contains(&Class::Number)) {
            return Ok(());
        }
        Err(format!(
            "a text that is made of `:{name}` cannot be compared with the column `{column}`, which is declared to have \
             numbers: write `cast({column} as text)`"
        )
        .into())
    }

    /// A column for numbers makes one of a text that looks like one, with the digits that a double has.
    fn store(&self, name: &str, value: &Value, column: Option<&str>) -> Result<(), BoxError> {
        let Value::Text(text) = value else { return Ok(()) };
        let keeps = column
            .and_then(|column| self.0.get(column))
            .is_some_and(|classes| classes.iter().all(|class| matches!(class, Class::Text | Class::Untyped)));
        if keeps || !loses_digits(text) {
            return Ok(());
        }
        Err(format!(
            "`:{name}` is a number with more digits than SQLite keeps, unless the column has the type text: write \
             `cast(:{name} as text)`"
        )
        .into())
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
        Position::Stored(Some(_)) => match value {
            Value::Text(text) => loses_digits(text),
            Value::Json(Json::Number(number)) => number.as_i64().is_none(),
            _ => false,
        },
        _ => false,
    }
}

fn kind(value: &Value) -> Kind<'_> {
    match value {
        Value::Null => Kind::Null,
        Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => Kind::Number,
        Value::Text(text) => Kind::Text(text),
        Value::Bytes(_) => Kind::Bytes,
        Value::Json(json) => kind_of_json(json),
    }
}

fn kind_of_json(json: &Json) -> Kind<'_> {
    match json {
        Json::Null => Kind::Null,
        Json::Boolean(_) | Json::Number(_) => Kind::Number,
        Json::Text(text) => Kind::Text(text),
        // Which is bound as its text.
        Json::List(_) | Json::Object(_) => Kind::Text("{}"),
    }
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

/// `SQLite` makes 0 of a text that is no number, the beginning of one that begins with a number, and the greatest
/// integer of one that is beyond it.
fn check_cast(name: &str, value: &Value, kind: &str) -> Result<(), BoxError> {
    let affinity = Affinity::of(kind);
    if !affinity.is_number() {
        return Ok(());
    }
    let keeps = match value {
        Value::Null | Value::Boolean(_) | Value::Json(Json::Null | Json::Boolean(_)) => true,
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
        assert!(!Arc::ptr_eq(&first, &other) && other.contains_key("b"));
        // Which is another `t` for this connection.
        let own = read("create temp table t (c text)").await;
        assert!(own.contains_key("c") && !Arc::ptr_eq(&own, &read("select 1").await));
    }
}
