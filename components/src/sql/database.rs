//! [`Databases`]: one pool of connections for each distinct data source, and the transactions that
//! consumers lend to the steps of their exchanges.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use router_core::error::BoxError;
use router_core::failure::Failure;
use router_core::secret::Secret;
use router_core::value::Value;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool};

use super::failures::classified;
use super::lexer::Dialect;
use super::rows::{Limit, Row};
use super::statement::Statement;
use super::{postgres, sqlite};

/// How long connecting, or waiting for a connection that others use, may take.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// A database, and how to log in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DataSource {
    url: String,
    password: Option<Secret>,
    dialect: Dialect,
}

impl DataSource {
    /// Checks a URL. The messages contain nothing of it: it may hold a password.
    pub(super) fn parse(url: &str, password: Option<Secret>) -> Result<Self, String> {
        let (dialect, parses) = match url.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => (Dialect::Sqlite, sqlite::options(url).is_ok()),
            Some(("postgres" | "postgresql", rest)) => {
                let authority =
                    rest.trim_start_matches('/').split(['/', '?', '#']).next().unwrap_or_default();
                let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
                if user.contains(':') || rest.contains("password=") {
                    return Err(
                        "option `data_source` cannot contain a password: use `password=env:NAME`".into()
                    );
                }
                postgres::check_parameters(rest)?;
                (Dialect::Postgres, postgres::options(url).is_ok())
            }
            _ => (Dialect::Sqlite, false),
        };
        if !parses {
            return Err("option `data_source` takes `sqlite:path`, `sqlite::memory:` or \
                        `postgres://user@host/database`"
                .into());
        }
        if dialect == Dialect::Sqlite && password.is_some() {
            return Err("a SQLite database has no password".into());
        }
        Ok(Self { url: url.into(), password, dialect })
    }

    /// Whether a file of `SQLite` can be where it is said to be.
    pub(super) fn check_place(&self) -> Result<(), String> {
        if self.dialect != Dialect::Sqlite {
            return Ok(());
        }
        let Ok(options) = sqlite::options(&self.url) else { return Ok(()) };
        let file = options.get_filename();
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        match folder {
            _ if file.is_dir() => Err(format!("`{}` is a directory", file.display())),
            Some(folder) if !folder.is_dir() => Err(format!("there is no directory `{}`", folder.display())),
            _ => Ok(()),
        }
    }

    /// Whose SQL its statements are in.
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn open(&self) -> Result<Pool, BoxError> {
        Ok(match self.dialect {
            Dialect::Sqlite => Pool::Sqlite(sqlite::pool(&self.url, sqlite::options(&self.url)?)),
            Dialect::Postgres => {
                let mut options = postgres::options(&self.url)?;
                if let Some(password) = &self.password {
                    options = options.password(&password.reveal()?);
                }
                Pool::Postgres(postgres::pool(options))
            }
        })
    }
}

#[derive(Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A transaction that a consumer shares with the steps of its exchange; `None` when it has ended.
pub(super) type SharedTransaction = Arc<tokio::sync::Mutex<Option<Transaction>>>;

/// What is lent to an exchange: the transaction in which it began.
pub(super) struct LentTransaction {
    pub(super) source: DataSource,
    pub(super) transaction: SharedTransaction,
}

/// The databases that were needed so far. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Databases {
    pools: Arc<Mutex<HashMap<DataSource, Pool>>>,
}

impl Databases {
    /// A connection for one statement.
    pub(super) async fn connection(&self, source: &DataSource) -> Result<Connection, BoxError> {
        let connection = match self.pool(source)? {
            Pool::Sqlite(pool) => pool.acquire().await.map(Connection::Sqlite),
            Pool::Postgres(pool) => pool.acquire().await.map(Connection::Postgres),
        };
        connection.map_err(|error| self.no_connection(source, &error))
    }

    /// A new transaction. That of `SQLite` is one that writes from the beginning: a lock for reading
    /// cannot always become one for writing.
    pub(super) async fn begin(&self, source: &DataSource) -> Result<Transaction, BoxError> {
        let transaction = match self.pool(source)? {
            Pool::Sqlite(pool) if source.url.contains("mode=ro") => {
                pool.begin().await.map(Transaction::Sqlite)
            }
            Pool::Sqlite(pool) => pool.begin_with("begin immediate").await.map(Transaction::Sqlite),
            Pool::Postgres(pool) => postgres::OpenTransaction::begin(&pool).await.map(Transaction::Postgres),
        };
        transaction.map_err(|error| self.no_connection(source, &error))
    }

    fn pool(&self, source: &DataSource) -> Result<Pool, BoxError> {
        let mut pools = locked(&self.pools);
        if let Some(pool) = pools.get(source) {
            return Ok(pool.clone());
        }
        let pool = source.open()?;
        pools.insert(source.clone(), pool.clone());
        Ok(pool)
    }

    fn no_connection(&self, source: &DataSource, error: &sqlx::Error) -> BoxError {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        // Not let in: the next use asks for the password anew, which may have been changed.
        if code.is_some_and(|code| code.starts_with("28")) {
            locked(&self.pools).remove(source);
        }
        let text = format!("no connection to the database: {error}");
        classified(error, text).into()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a statement has done.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The rows that it yielded.
    Rows(Vec<Row>),
    /// It yields no rows; how many it has changed.
    Changed(u64),
}

/// A connection out of a pool. Each statement is a transaction of its own.
pub(super) enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

impl Connection {
    /// Has the database look at a statement, without running it.
    pub(super) async fn check(&mut self, statement: &Statement, values: &[Value]) -> Result<(), BoxError> {
        match self {
            Self::Sqlite(connection) => sqlite::prepare(connection, statement, values).await.map(drop),
            Self::Postgres(connection) => postgres::prepare(connection, statement, values).await.map(drop),
        }
        .map_err(failed)
    }

    /// Runs a statement, and reads its rows up to the limit.
    pub(super) async fn run(
        &mut self,
        statement: &Statement,
        values: &[Value],
        limit: Limit,
    ) -> Result<Outcome, BoxError> {
        match self {
            Self::Sqlite(connection) => sqlite::run(connection, statement, values, limit).await,
            Self::Postgres(connection) => match postgres::run(connection, statement, values, limit).await {
                // It was prepared before the table was changed, and has done nothing.
                Err(error) if postgres::forget(connection, &error).await => {
                    postgres::run(connection, statement, values, limit).await
                }
                outcome => outcome,
            },
        }
        .map_err(failed)
    }
}

/// A transaction. It is rolled back when it is dropped.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(postgres::OpenTransaction),
}

impl Transaction {
    /// Runs a statement, and reads its rows up to the limit. After a failure, only a return to a savepoint
    /// helps.
    pub(super) async fn run(
        &mut self,
        statement: &Statement,
        values: &[Value],
        limit: Limit,
    ) -> Result<Outcome, BoxError> {
        let outcome = match self {
            Self::Sqlite(transaction) => sqlite::run(transaction, statement, values, limit).await,
            Self::Postgres(transaction) => {
                let connection = transaction.connection()?;
                let outcome = postgres::run(connection, statement, values, limit).await;
                if let Err(error) = &outcome {
                    postgres::forget(connection, error).await;
                }
                outcome
            }
        };
        outcome.map_err(failed)
    }

    /// Works in the transaction, and undoes what was done if that fails.
    pub(super) async fn or_undo<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, BoxError>,
    ) -> Result<T, BoxError> {
        self.command("savepoint bactrian_step").await?;
        let result = work(self).await;
        if result.is_err() {
            self.command("rollback to savepoint bactrian_step").await?;
        }
        self.command("release savepoint bactrian_step").await?;
        result
    }

    /// Runs a statement that has no parameters and yields nothing.
    pub(super) async fn command(&mut self, text: &'static str) -> Result<(), BoxError> {
        let done = match self {
            Self::Sqlite(transaction) => sqlx::raw_sql(text).execute(&mut **transaction).await.map(drop),
            Self::Postgres(transaction) => {
                sqlx::raw_sql(text).execute(transaction.connection()?).await.map(drop)
            }
        };
        done.map_err(|error| failed(error.into()))
    }

    pub(super) async fn commit(self) -> Result<(), BoxError> {
        let done = match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.end("commit").await,
        };
        done.map_err(|error| failed(error.into()))
    }

    pub(super) async fn rollback(self) -> Result<(), BoxError> {
        let done = match self {
            Self::Sqlite(transaction) => transaction.rollback().await,
            Self::Postgres(transaction) => transaction.end("rollback").await,
        };
        done.map_err(|error| failed(error.into()))
    }
}

/// The text of an error of the database, which says all: its source would say it again. What else fails are values
/// that do not fit.
pub(super) fn failed(error: BoxError) -> BoxError {
    match error.downcast::<sqlx::Error>() {
        Ok(error) => {
            let text = format!("the statement failed: {error}");
            classified(&error, text).into()
        }
        Err(error) => Failure::data(error).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_refused_and_not_shown() {
        for url in
            ["postgres://me:hunter2@host/db", "postgresql://host/db?password=hunter2", "oracle:hunter2"]
        {
            let message = DataSource::parse(url, None).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
        }
        for url in
            ["sqlite:a.db", "sqlite::memory:", "sqlite:///var/a.db?mode=ro", "postgres://me@[::1]:5432/db"]
        {
            assert!(DataSource::parse(url, None).is_ok(), "{url}");
        }
        assert!(DataSource::parse("sqlite:", None).is_err());
        for (parameters, error) in [
            ("sslmode=verify-full&sslrootcert=a.pem&options[search_path]=x#y", None),
            ("sslMode=verify-full", Some("no parameter `sslMode`: write `sslmode`")),
            ("sslmode=require&ssl_root_cert=a", Some("no parameter `ssl_root_cert`: write `sslrootcert`")),
            ("connect_timeout=3", Some("no parameter `connect_timeout`; it knows")),
            (
                "sslmode=verify_full",
                Some("`disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`"),
            ),
        ] {
            let parsed = DataSource::parse(&format!("postgres://me@host/db?{parameters}"), None);
            match (parsed, error) {
                (Ok(_), None) => {}
                (Err(message), Some(error)) => assert!(message.contains(error), "{message}"),
                (parsed, _) => panic!("{parameters}: {}", parsed.is_ok()),
            }
        }
        assert!(DataSource::parse("sqlite:a", Secret::parse("env:X")).is_err());
    }

    #[tokio::test]
    async fn equal_sources_share_a_pool_and_different_ones_do_not() {
        let databases = Databases::default();
        for url in ["sqlite::memory:", "sqlite:a.db", "sqlite::memory:"] {
            databases.clone().pool(&DataSource::parse(url, None).unwrap()).unwrap();
        }
        assert_eq!(locked(&databases.pools).len(), 2);
    }
}
