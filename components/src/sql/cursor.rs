//! [`Cursor`]: the rows of a query that is polled, of which a page is in memory at a time.

use router_core::error::BoxError;
use router_core::value::Value;

use super::database::{Outcome, Transaction, failed};
use super::rows::{Limit, Row};
use super::sqlite::Spool;
use super::statement::{Kind, Statement};
use super::{postgres, sqlite};

/// How many rows are read at once.
const PAGE: usize = 100;

/// Where the next rows of a query come from. It belongs to the transaction that has opened it.
pub(super) struct Cursor {
    /// Of the rows that are still to be read. Those that cannot be read take no place from the others.
    limit: Limit,
    rest: Rest,
}

enum Rest {
    /// All of them are in memory.
    Read(Vec<Row>),
    /// With a cursor of the server, which has a snapshot.
    Postgres,
    /// In a temporary table.
    Sqlite(Spool),
}

impl Cursor {
    /// Makes a query, and reads at most `limit` rows that can be read.
    pub(super) async fn open(
        transaction: &mut Transaction,
        statement: &Statement,
        values: &[Value],
        limit: Limit,
    ) -> Result<Self, BoxError> {
        let is_query = statement.kind == Kind::Query;
        let rest = match transaction {
            Transaction::Postgres(open) if is_query => {
                let connection = open.connection()?;
                if let Err(error) = postgres::declare(connection, statement, values).await {
                    postgres::forget(connection, &error).await;
                    return Err(failed(error));
                }
                Rest::Postgres
            }
            // With a limit, its author says how many may be in memory, and the statement goes on only as its rows
            // are asked for.
            Transaction::Sqlite(open) if is_query && limit.rows == usize::MAX => {
                Rest::Sqlite(sqlite::spool(open, statement, values).await.map_err(failed)?)
            }
            _ => match transaction.run(statement, values, limit).await? {
                Outcome::Rows(rows) => Rest::Read(rows),
                Outcome::Changed(_) => return Err("the statement of a consumer must yield rows".into()),
            },
        };
        Ok(Self { limit, rest })
    }

    /// The next rows; none: these were all. After a failure the transaction goes on, without the rest.
    pub(super) async fn page(&mut self, transaction: &mut Transaction) -> Result<Vec<Row>, BoxError> {
        let count = self.limit.rows.min(PAGE);
        let limit = Limit { rows: count, ..self.limit };
        let rows = match (&mut self.rest, transaction) {
            (Rest::Read(rows), _) => return Ok(std::mem::take(rows)),
            _ if count == 0 => return Ok(Vec::new()),
            (Rest::Sqlite(spool), Transaction::Sqlite(open)) => {
                spool.next(open, limit).await.map_err(failed)?
            }
            (_, transaction) => {
                let fetch = async |transaction: &mut Transaction| match transaction {
                    Transaction::Postgres(open) => {
                        postgres::fetch(open.connection()?, limit).await.map_err(failed)
                    }
                    Transaction::Sqlite(_) => Ok(Vec::new()),
                };
                transaction.or_undo(fetch).await?
            }
        };
        self.limit.rows -= rows.iter().filter(|row| row.unreadable.is_none()).count();
        if rows.len() < count {
            self.limit.rows = 0;
        }
        Ok(rows)
    }

    /// Forgets the rows that were not read.
    pub(super) async fn close(self, transaction: &mut Transaction) -> Result<(), BoxError> {
        match self.rest {
            Rest::Sqlite(_) => transaction.command(Spool::DROP).await,
            // The end of the transaction closes it.
            Rest::Postgres | Rest::Read(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use router_core::spool::SpoolSettings;

    use super::super::database::{DataSource, Databases};
    use super::super::lexer::Dialect;
    use super::*;

    fn unlimited() -> SpoolSettings {
        SpoolSettings { memory_limit: u64::MAX, ..SpoolSettings::default() }
    }

    #[tokio::test]
    async fn a_page_of_rows_is_in_memory_at_a_time() {
        let source = DataSource::parse("sqlite::memory:", None).unwrap();
        let mut transaction = Databases::default().begin(&source).await.unwrap();
        let text = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 250) select i as id from n";
        let statement = Statement::parse(text, Dialect::Sqlite).unwrap();
        for _ in 0..2 {
            let mut cursor =
                Cursor::open(&mut transaction, &statement, &[], Limit::of_bodies(usize::MAX, &unlimited()))
                    .await
                    .unwrap();
            for length in [100, 100, 50, 0, 0] {
                assert_eq!(cursor.page(&mut transaction).await.unwrap().len(), length);
            }
            cursor.close(&mut transaction).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_copied_value_is_what_it_was() {
        let source = DataSource::parse("sqlite::memory:", None).unwrap();
        let mut transaction = Databases::default().begin(&source).await.unwrap();
        for text in ["create table t (a integer, b boolean, c real)", "insert into t values (1, 1, 2)"] {
            transaction.command(text).await.unwrap();
        }
        let text = "select a, b, c, 'x' as A from t union all select '007', 0, null, x'00ff'";
        let statement = Statement::parse(text, Dialect::Sqlite).unwrap();
        let mut printed = Vec::new();
        for limit in [5, usize::MAX] {
            let mut cursor =
                Cursor::open(&mut transaction, &statement, &[], Limit::of_bodies(limit, &unlimited()))
                    .await
                    .unwrap();
            let rows = cursor.page(&mut transaction).await.unwrap();
            printed
                .push(rows.into_iter().map(|row| row.into_json().unwrap().to_string()).collect::<Vec<_>>());
            cursor.close(&mut transaction).await.unwrap();
        }
        assert_eq!(printed[0], printed[1]);
        assert_eq!(printed[0][1], r#"{"a":"007","b":false,"c":null,"A":"\\x00ff"}"#);
    }
}
