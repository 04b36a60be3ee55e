//! `SQLite`: opening, binding, reading.

use std::str::FromStr;
use std::time::Duration;

use router_core::error::BoxError;
use router_core::value::{Json, Number, Value};
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqlitePoolOptions, SqliteRow, SqliteStatement,
    SqliteValueRef,
};
use sqlx::{
    AssertSqlSafe, Column, Connection as _, Decode, Executor, Row as _, SqlSafeStr, Sqlite, SqlitePool,
    Statement as _, TypeInfo, ValueRef,
};

use super::affinity::{Columns, whole_to_cast};
use super::database::{ACQUIRE_TIMEOUT, Outcome};
use super::parameters::list;
use super::rows::{Limit, Row, check_names, collect, hexadecimal};
use super::statement::{Parameter, Place, Statement};

/// The connection options of a URL.
pub(super) fn options(url: &str) -> Result<SqliteConnectOptions, sqlx::Error> {
    let options = SqliteConnectOptions::from_str(url)?;
    let options = options.create_if_missing(!url.contains("mode=")).busy_timeout(Duration::from_secs(5));
    // See `run`.
    Ok(options.statement_cache_capacity(0))
}

/// The pool for these options; nothing is opened yet.
pub(super) fn pool(url: &str, options: SqliteConnectOptions) -> SqlitePool {
    let pool = SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT);
    // A database in memory is gone with its connection, and another connection has another one.
    let pool = if url.contains(":memory:") || url.contains("mode=memory") {
        pool.max_connections(1).idle_timeout(None).max_lifetime(None)
    } else {
        pool
    };
    pool.connect_lazy_with(options)
}

/// Has the database look at a statement, without running it.
pub(super) async fn prepare(
    connection: &mut SqliteConnection,
    statement: &Statement,
    values: &[Value],
) -> Result<SqliteStatement, BoxError> {
    let text = text(statement, values);
    sqlx::raw_sql("select 0 from sqlite_schema limit 0").execute(&mut *connection).await?;
    let prepared = connection.prepare(AssertSqlSafe(text).into_sql_str()).await?;
    check_names(prepared.columns().iter().map(Column::name))?;
    Ok(prepared)
}

/// Runs a statement, and reads at most `limit` rows that can be read.
///
/// When a table was changed after its statement was prepared, also by another connection, the driver loses
/// the rows and the connection without an error. So no statement is kept, the connection looks at the tables
/// before it prepares one, and is asked afterwards whether it is still there.
pub(super) async fn run(
    connection: &mut SqliteConnection,
    statement: &Statement,
    values: &[Value],
    limit: Limit,
) -> Result<Outcome, BoxError> {
    let prepared = prepare(connection, statement, values).await?;
    let query = bound(prepared.query(), connection, statement, values).await?;
    if prepared.columns().is_empty() {
        return Ok(Outcome::Changed(query.execute(connection).await?.rows_affected()));
    }
    let rows = collect(query.fetch(&mut *connection), limit, row).await?;
    connection.ping().await?;
    Ok(Outcome::Rows(rows))
}

/// The rows of a query, copied into a temporary table: what steps change meanwhile neither adds rows nor takes them
/// away, and those that are not read yet need no memory.
pub(super) struct Spool {
    /// The names and declared types of the columns. Those of the table have none, so that nothing is converted.
    columns: Vec<(String, String)>,
    /// The number of the last row that was read.
    last: i64,
}

impl Spool {
    pub(super) const DROP: &str = "drop table temp.bactrian_rows";

    /// The next rows; fewer: these were the last ones.
    pub(super) async fn next(
        &mut self,
        connection: &mut SqliteConnection,
        limit: Limit,
    ) -> Result<Vec<Row>, BoxError> {
        const NEXT: &str = "select *, rowid from temp.bactrian_rows where rowid > ?1 order by rowid limit ?2";
        let next = sqlx::query(NEXT).bind(self.last).bind(i64::try_from(limit.rows).unwrap_or(i64::MAX));
        let rows = next.fetch_all(connection).await?;
        if let Some(last) = rows.last() {
            self.last = last.try_get(self.columns.len())?;
        }
        let columns = || self.columns.iter().map(|(name, declared)| (&**name, &**declared));
        Ok(rows.iter().map(|row| row_of(row, columns()).within(limit.row_bytes).0).collect())
    }
}

/// Makes a query, whose rows are then read from what is returned.
pub(super) async fn spool(
    connection: &mut SqliteConnection,
    statement: &Statement,
    values: &[Value],
) -> Result<Spool, BoxError> {
    let prepared = prepare(connection, statement, values).await?;
    let columns = prepared.columns().iter();
    let columns = columns.map(|column| (column.name().into(), column.type_info().name().into()));
    let columns = columns.collect::<Vec<_>>();
    let names = (0..columns.len()).map(|index| format!("c{index}")).collect::<Vec<_>>().join(", ");
    let create = format!("create temp table bactrian_rows ({names})");
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *connection).await?;
    let insert = format!("insert into temp.bactrian_rows {}", text(statement, values));
    let query = bound(sqlx::query(AssertSqlSafe(insert)), connection, statement, values).await?;
    query.execute(connection).await?;
    Ok(Spool { columns, last: 0 })
}

/// The statement with its placeholders.
fn text(statement: &Statement, values: &[Value]) -> String {
    statement.text(|index, parameter| placeholder(index + 1, parameter, &values[index]))
}

/// What stands in the statement for a parameter. Without the `+`, the list would count as a column without a type,
/// and a column of texts would not be compared with its numbers.
fn placeholder(number: usize, parameter: &Parameter, value: &Value) -> String {
    match parameter.place {
        Place::InList if list(value).is_some() => format!("select +value from json_each(?{number})"),
        _ => format!("?{number}"),
    }
}

type BoundQuery<'q> = Query<'q, Sqlite, SqliteArguments>;

/// The query with its values, if each is read as what it is where it stands.
async fn bound<'q>(
    mut query: BoundQuery<'q>,
    connection: &mut SqliteConnection,
    statement: &Statement,
    values: &[Value],
) -> Result<BoundQuery<'q>, BoxError> {
    let columns = Columns::read(connection, statement, values).await?;
    for (parameter, value) in statement.parameters.iter().zip(values) {
        query = bind(query, parameter, &*columns.checked(parameter, value)?)?;
    }
    Ok(query)
}

fn bind<'q>(query: BoundQuery<'q>, parameter: &Parameter, value: &Value) -> Result<BoundQuery<'q>, BoxError> {
    let name = &parameter.name;
    Ok(match value {
        Value::Null => query.bind(None::<i64>),
        Value::Boolean(flag) => query.bind(*flag),
        Value::Integer(number) => query.bind(*number),
        Value::Float(number) if number.is_nan() => {
            return Err(format!("`:{name}` is not a number, which SQLite would store as null").into());
        }
        Value::Float(number) => query.bind(*number),
        Value::Bytes(bytes) => query.bind(bytes.to_vec()),
        Value::Text(text) => query.bind(text.to_string()),
        Value::Json(json) => match (json, parameter.place) {
            (Json::Null, _) => query.bind(None::<i64>),
            (Json::List(list), Place::InList) => {
                list.iter().filter_map(Json::as_number).try_for_each(|number| fits(name, number))?;
                query.bind(value.to_string())
            }
            (Json::Number(number), Place::TakesJson) => match whole_to_cast(parameter, number) {
                Some(whole) => query.bind(whole),
                None => query.bind(number.to_string()),
            },
            (Json::Number(number), _) => query.bind(float(name, number)?),
            (Json::List(_), place) if place != Place::TakesJson => {
                return Err(format!(
                    "`:{name}` is a list: write `in (:{name})`, or `cast(:{name} as text)` to store it"
                )
                .into());
            }
            _ => query.bind(value.to_string()),
        },
    })
}

/// The only form that SQLite has for a number that is no integer of 64 bits.
fn float(name: &str, number: &Number) -> Result<f64, BoxError> {
    number.as_f64().ok_or_else(|| {
        format!(
            "`:{name}` is or contains the number {number}, which has more digits than SQLite can keep: write \
             `cast(:{name} as text)` to store them in a column of the type text"
        )
        .into()
    })
}

/// Refuses a number that SQLite cannot keep.
fn fits(name: &str, number: &Number) -> Result<(), BoxError> {
    if number.as_i64().is_none() {
        float(name, number)?;
    }
    Ok(())
}

fn row(row: &SqliteRow) -> Row {
    row_of(row, row.columns().iter().map(|column| (column.name(), column.type_info().name())))
}

/// A row that begins with these columns, given by their names and declared types.
fn row_of<'a>(row: &'a SqliteRow, columns: impl Iterator<Item = (&'a str, &'a str)>) -> Row {
    Row::new(columns.enumerate().map(|(index, (name, declared))| {
        let value = row.try_get_raw(index).map_err(BoxError::from);
        (name, value.and_then(|value| read(value, declared)))
    }))
}

/// Goes by the type of the value: a column can hold values of all of them.
fn read(value: SqliteValueRef<'_>, declared: &str) -> Result<Json, BoxError> {
    if value.is_null() {
        return Ok(Json::Null);
    }
    let stored = value.type_info().name().to_owned();
    Ok(match &*stored {
        "INTEGER" => match <i64 as Decode<Sqlite>>::decode(value)? {
            number @ (0 | 1) if declared == "BOOLEAN" => Json::Boolean(number == 1),
            number => Json::from(number),
        },
        "REAL" => Number::from_f64(<f64 as Decode<Sqlite>>::decode(value)?)
            .map(Json::Number)
            .ok_or("an infinite number has no form in JSON: cast it to text")?,
        "BLOB" => Json::from(hexadecimal(<&[u8] as Decode<Sqlite>>::decode(value)?)),
        _ => Json::from(<String as Decode<Sqlite>>::decode(value)?),
    })
}
