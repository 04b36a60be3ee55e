//! `PostgreSQL`: opening, binding, reading.

use std::str::FromStr;

use router_core::value::Value;
use serde_json::{Map, Value as Json};
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions, PgRow, PgTypeInfo, PgTypeKind};
use sqlx::{AssertSqlSafe, Column, Either, Executor, PgPool, Row, SqlSafeStr, Statement as _, TypeInfo};

use super::database::{ACQUIRE_TIMEOUT, Outcome, hexadecimal};
use super::postgres_values;
use super::statement::Statement;

/// The connection options of a URL.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url)?.application_name("bactrian"))
}

/// The pool for these options; nothing is connected yet.
pub(super) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options)
}

/// Runs a statement.
///
/// The server says which type each parameter has where it stands. Each value is then sent as text and
/// cast to that type, so that there is no type, also of an extension, that a value cannot be given to.
pub(super) async fn run(
    connection: &mut PgConnection,
    statement: &Statement,
    values: &[Value],
) -> Result<Outcome, sqlx::Error> {
    let untyped = AssertSqlSafe(statement.text(|index| format!("${}", index + 1))).into_sql_str();
    let untyped = (&mut *connection).prepare(untyped).await?;
    let types = match untyped.parameters() {
        Some(Either::Left(types)) => types,
        _ => &[],
    };
    let typed = statement.text(|index| match types.get(index) {
        Some(kind) => format!("cast(${}::text as {})", index + 1, cast_name(kind)),
        None => format!("${}", index + 1),
    });
    let mut query = sqlx::query(AssertSqlSafe(typed));
    for (index, value) in values.iter().enumerate() {
        query = query.bind(text(value, types.get(index)));
    }
    if untyped.columns().is_empty() {
        return Ok(Outcome::Changed(query.execute(connection).await?.rows_affected()));
    }
    let rows = query.fetch_all(connection).await?;
    Ok(Outcome::Rows(rows.iter().map(row).collect::<Result<_, _>>()?))
}

/// What a type is called in a cast. As a word, `char` and `bit` mean a single one there, and a cast cuts
/// off what is longer; as names, they mean any length. A cast to a domain cuts off as well, where that has a
/// length: the cast is to what it is made of, and the column sees to the rest.
fn cast_name(kind: &PgTypeInfo) -> &str {
    if let PgTypeKind::Domain(base) = kind.kind() {
        return cast_name(base);
    }
    match kind.name() {
        "CHAR" => "bpchar",
        "CHAR[]" => "bpchar[]",
        "BIT" => "pg_catalog.\"bit\"",
        "BIT[]" => "pg_catalog.\"bit\"[]",
        // Internal one-byte type: only its name in small letters is in quotes.
        "\"CHAR\"" => "\"char\"",
        "\"CHAR\"[]" => "\"char\"[]",
        name => name,
    }
}

/// The text form of a value, as the server reads it.
fn text(value: &Value, kind: Option<&PgTypeInfo>) -> Option<String> {
    /// The type `bytea`.
    const BYTES: Oid = Oid(17);
    match value {
        value if value.is_null() => None,
        Value::Bytes(bytes) if kind.and_then(PgTypeInfo::oid) == Some(BYTES) => Some(hexadecimal(bytes)),
        Value::Json(json) if kind.is_some_and(|kind| matches!(kind.name(), "JSON" | "JSONB")) => {
            Some(json.to_string())
        }
        value => Some(value.to_string()),
    }
}

fn row(row: &PgRow) -> Result<Json, sqlx::Error> {
    let mut fields = Map::new();
    for column in row.columns() {
        let value = row.try_get_raw(column.ordinal())?;
        let json = postgres_values::read(&value, column.type_info())
            .map_err(|source| sqlx::Error::ColumnDecode { index: column.name().into(), source })?;
        fields.insert(column.name().into(), json);
    }
    Ok(Json::Object(fields))
}
