//! `SQLite`: opening, binding, reading.

use std::str::FromStr;
use std::time::Duration;

use router_core::value::Value;
use serde_json::{Map, Value as Json};
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqlitePoolOptions, SqliteRow, SqliteValueRef,
};
use sqlx::{
    AssertSqlSafe, Column, Decode, Executor, Row, SqlSafeStr, Sqlite, SqlitePool, Statement as _, TypeInfo,
    ValueRef,
};

use super::database::{ACQUIRE_TIMEOUT, Outcome, hexadecimal};
use super::statement::Statement;

/// The connection options of a URL.
pub(super) fn options(url: &str) -> Result<SqliteConnectOptions, sqlx::Error> {
    let options = SqliteConnectOptions::from_str(url)?;
    Ok(options.create_if_missing(!url.contains("mode=")).busy_timeout(Duration::from_secs(5)))
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

/// Runs a statement.
pub(super) async fn run(
    connection: &mut SqliteConnection,
    statement: &Statement,
    values: &[Value],
) -> Result<Outcome, sqlx::Error> {
    let text = AssertSqlSafe(statement.text(|_| "?".into())).into_sql_str();
    let prepared = (&mut *connection).prepare(text).await?;
    let query = values.iter().fold(prepared.query(), bind);
    if prepared.columns().is_empty() {
        return Ok(Outcome::Changed(query.execute(connection).await?.rows_affected()));
    }
    let rows = query.fetch_all(connection).await?;
    Ok(Outcome::Rows(rows.iter().map(row).collect::<Result<_, _>>()?))
}

type BoundQuery<'q> = Query<'q, Sqlite, SqliteArguments>;

fn bind<'q>(query: BoundQuery<'q>, value: &Value) -> BoundQuery<'q> {
    match value {
        Value::Null => query.bind(None::<i64>),
        Value::Boolean(flag) => query.bind(*flag),
        Value::Integer(number) => query.bind(*number),
        Value::Float(number) => query.bind(*number),
        Value::Bytes(bytes) => query.bind(bytes.to_vec()),
        Value::Json(json) if json.is_null() => query.bind(None::<i64>),
        Value::Text(_) | Value::Json(_) => query.bind(value.to_string()),
    }
}

fn row(row: &SqliteRow) -> Result<Json, sqlx::Error> {
    let mut fields = Map::new();
    for column in row.columns() {
        let value = row.try_get_raw(column.ordinal())?;
        let json = read(value, column.type_info().name())
            .map_err(|source| sqlx::Error::ColumnDecode { index: column.name().into(), source })?;
        fields.insert(column.name().into(), json);
    }
    Ok(Json::Object(fields))
}

/// Goes by the type of the value: a column can hold values of all of them.
fn read(value: SqliteValueRef<'_>, declared: &str) -> Result<Json, sqlx::error::BoxDynError> {
    if value.is_null() {
        return Ok(Json::Null);
    }
    let stored = value.type_info().name().to_owned();
    Ok(match &*stored {
        "BOOLEAN" => Json::Bool(<i64 as Decode<Sqlite>>::decode(value)? != 0),
        "INTEGER" => match <i64 as Decode<Sqlite>>::decode(value)? {
            number if declared == "BOOLEAN" => Json::Bool(number != 0),
            number => Json::from(number),
        },
        "REAL" => Json::from(<f64 as Decode<Sqlite>>::decode(value)?),
        "BLOB" => Json::from(hexadecimal(<&[u8] as Decode<Sqlite>>::decode(value)?)),
        _ => Json::from(<String as Decode<Sqlite>>::decode(value)?),
    })
}
