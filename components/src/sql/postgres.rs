//! `PostgreSQL`: opening, and running statements.

use std::str::FromStr;

use router_core::error::BoxError;
use router_core::value::Value;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPoolOptions, PgRow, PgSslMode};
use sqlx::query::Query;
use sqlx::{
    AssertSqlSafe, Column, Connection as _, Either, Executor, PgPool, Postgres, Row as _, SqlSafeStr,
    Statement as _,
};

use super::database::{ACQUIRE_TIMEOUT, Outcome};
use super::parameters::list;
use super::rows::{Limit, Row, check_names, collect};
use super::statement::{Place, Statement};
use super::{postgres_parameters, postgres_values};

/// The connection options of a URL.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url)?.application_name("bactrian"))
}

/// The parameters of a URL that the driver knows; it passes over all others. Those of `options[...]` are settings of the
/// server.
const PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
    // Other names of the same.
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
];

/// Whether what follows the `?` of a URL is all known: a connection must not be less safe than it was written.
pub(super) fn check_parameters(url: &str) -> Result<(), String> {
    let query = url.split_once('?').map_or("", |(_, query)| query).split('#').next().unwrap_or_default();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let known = PARAMETERS.contains(&name) || (name.starts_with("options[") && name.ends_with(']'));
        if !known {
            let same = |known: &&&str| plain(known) == plain(name);
            let meant =
                PARAMETERS.iter().find(same).map_or(String::new(), |known| format!(": write `{known}`"));
            return Err(format!(
                "the driver of PostgreSQL has no parameter `{name}`{meant}; it knows {}",
                PARAMETERS.join(", ")
            ));
        }
        if matches!(name, "sslmode" | "ssl-mode") && PgSslMode::from_str(value).is_err() {
            return Err(format!(
                "`{name}={value}`: it is `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`"
            ));
        }
    }
    Ok(())
}

/// A name without what people write in different ways.
fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace(['-', '_'], "")
}

/// The pool for these options; nothing is connected yet.
pub(super) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options)
}

/// A transaction. When it is dropped, and also when its beginning is, its connection is closed: the driver
/// could give one back to the pool in which a transaction has just begun, and which is then never ended.
pub(super) struct OpenTransaction {
    connection: Option<PoolConnection<Postgres>>,
}

impl OpenTransaction {
    pub(super) async fn begin(pool: &PgPool) -> Result<Self, sqlx::Error> {
        let mut transaction = Self { connection: Some(pool.acquire().await?) };
        sqlx::raw_sql("begin").execute(transaction.connection()?).await?;
        Ok(transaction)
    }

    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Commits or rolls back.
    pub(super) async fn end(mut self, how: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(how).execute(self.connection()?).await?;
        // Nothing is open any more: back to the pool.
        drop(self.connection.take());
        Ok(())
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.close_on_drop();
        }
    }
}

/// Runs a statement, and reads at most `limit` rows that can be read.
pub(super) async fn run(
    connection: &mut PgConnection,
    statement: &Statement,
    values: &[Value],
    limit: Limit,
) -> Result<Outcome, BoxError> {
    let Prepared { text, values, yields_rows } = prepare(connection, statement, values).await?;
    if !yields_rows {
        return Ok(Outcome::Changed(bound(text, values).execute(connection).await?.rows_affected()));
    }
    Ok(Outcome::Rows(
        collect(bound(text, values).fetch(connection), limit, |row| self::row(row, limit.unique_keys))
            .await?,
    ))
}

/// Makes a query in a transaction. The server sends no rows before they are fetched.
pub(super) async fn declare(
    connection: &mut PgConnection,
    statement: &Statement,
    values: &[Value],
) -> Result<(), BoxError> {
    let Prepared { text, values, .. } = prepare(connection, statement, values).await?;
    let cursor = format!("declare bactrian_rows no scroll cursor without hold for {text}");
    bound(cursor, values).execute(connection).await?;
    Ok(())
}

/// The next rows of the query in this transaction; fewer: these were the last ones.
pub(super) async fn fetch(connection: &mut PgConnection, limit: Limit) -> Result<Vec<Row>, BoxError> {
    // Not prepared once for all: next time, the cursor may be that of another statement.
    let next = sqlx::query(AssertSqlSafe(format!("fetch forward {} from bactrian_rows", limit.rows)))
        .persistent(false);
    // All of them: what is not taken now is lost.
    let all = Limit { rows: usize::MAX, ..limit };
    collect(next.fetch(connection), all, |row| self::row(row, limit.unique_keys)).await
}

/// A statement with the types of its parameters.
pub(super) struct Prepared {
    text: String,
    values: Vec<Option<String>>,
    yields_rows: bool,
}

/// Asks the server which type each parameter has where it stands. Each value is then sent as text and cast
/// to that type, so that there is no type, also of an extension, that a value cannot be given to.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    statement: &Statement,
    values: &[Value],
) -> Result<Prepared, BoxError> {
    let untyped = statement.text(|index, parameter| match parameter.place {
        Place::NullCheck => format!("${}::text", index + 1),
        _ => format!("${}", index + 1),
    });
    let untyped = connection.prepare(AssertSqlSafe(untyped).into_sql_str()).await;
    let untyped = untyped.map_err(|error| unclear_type(statement, error))?;
    check_names(untyped.columns().iter().map(Column::name))?;
    let types = match untyped.parameters() {
        Some(Either::Left(types)) => types,
        _ => &[],
    };
    let text = statement.text(|index, parameter| {
        let number = index + 1;
        let named = types.get(index).map(|kind| {
            postgres_parameters::wide_name(kind, &values[index])
                .unwrap_or_else(|| postgres_parameters::cast_name(kind))
        });
        match named {
            Some(kind) if parameter.place == Place::InList && list(&values[index]).is_some() => {
                format!("select unnest(cast(${number}::text as {kind}[]))")
            }
            Some(kind) => format!("cast(${number}::text as {kind})"),
            None => format!("${number}"),
        }
    });
    let values = statement.parameters.iter().zip(values).enumerate();
    let values = values
        .map(|(index, (parameter, value))| postgres_parameters::text(parameter, value, types.get(index)));
    let values = values.collect::<Result<_, _>>()?;
    Ok(Prepared { text, values, yields_rows: !untyped.columns().is_empty() })
}

type BoundQuery = Query<'static, Postgres, PgArguments>;

fn bound(statement: String, values: Vec<Option<String>>) -> BoundQuery {
    values.into_iter().fold(sqlx::query(AssertSqlSafe(statement)), Query::bind)
}

/// Says how to name a type, where the server cannot see it.
fn unclear_type(statement: &Statement, error: sqlx::Error) -> BoxError {
    let unclear = error.as_database_error().filter(|error| error.code().as_deref() == Some("42P18"));
    let number = unclear.and_then(|error| error.message().rsplit_once('$')?.1.parse::<usize>().ok());
    match number.and_then(|number| statement.parameters.get(number.checked_sub(1)?)) {
        Some(parameter) => {
            let name = &parameter.name;
            format!(
                "the database cannot tell the type of `:{name}` here: write `:{name}::text`, or another type"
            )
            .into()
        }
        None => error.into(),
    }
}

/// Forgets what was prepared, after an error that can come from a table that was changed since. Returns
/// whether the statement may be tried again.
pub(super) async fn forget(connection: &mut PgConnection, error: &BoxError) -> bool {
    let error = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    let Some(code) = error.and_then(sqlx::error::DatabaseError::code) else { return false };
    // The result has other columns; there is no such prepared statement; types do not fit together.
    let prepared = matches!(&*code, "0A000" | "26000" | "42804" | "42883" | "42P18");
    // So can a value be that does not fit.
    if !prepared && !code.starts_with("22") {
        return false;
    }
    connection.clear_cached_statements().await.is_ok() && prepared
}

fn row(row: &PgRow, unique_keys: bool) -> Row {
    Row::new(row.columns().iter().map(|column| {
        let value = row.try_get_raw(column.ordinal()).map_err(BoxError::from);
        let bytes = value.and_then(|value| postgres_values::bytes(&value));
        let json = bytes.and_then(|bytes| postgres_values::read(bytes, column.type_info(), unique_keys));
        (column.name(), json)
    }))
}
