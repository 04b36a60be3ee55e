//! [`SqlProducer`]: runs a statement for each exchange.

use std::sync::Arc;

use async_trait::async_trait;
use router_core::component::Processor;
use router_core::error::BoxError;
use router_core::exchange::{Body, Exchange};
use router_core::failure::Failure;
use router_core::value::Json;

use super::Settings;
use super::database::{Databases, LentTransaction, Outcome, Transaction};
use super::parameters::{Parameters, Source};
use super::rows::{Limit, Row};
use super::statement::Kind;

pub(super) struct SqlProducer {
    pub(super) databases: Databases,
    pub(super) settings: Arc<Settings>,
}

#[async_trait]
impl Processor for SqlProducer {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        // Routes have done so; a program can have this processor without one.
        if self.settings.bodies.unique_keys {
            exchange.message.body.refuse_duplicate_keys();
        }
        match self.run(exchange).await? {
            Done::Changed(count) => exchange.message.headers.set("sql.update_count", count),
            Done::Yielded { body, count } => {
                exchange.message.body = body;
                exchange.message.headers.set("sql.row_count", count);
            }
        }
        Ok(())
    }
}

/// What has become of the exchange.
enum Done {
    Changed(u64),
    Yielded { body: Body, count: u64 },
}

impl SqlProducer {
    async fn run(&self, exchange: &Exchange) -> Result<Done, BoxError> {
        let Settings { statement, data_source, .. } = &*self.settings;
        let source = Source::Message(&exchange.message);
        let values =
            Parameters { term: exchange.term.as_ref(), source }.of(statement).map_err(Failure::data)?;
        // Waiting for the connection may have outlived the term.
        let check = || exchange.term.as_ref().map_or(Ok(()), router_core::cluster::Term::check);
        // More than one row is an error for `output_type=one`, whatever their number.
        let rows = if self.settings.one { 2 } else { usize::MAX };
        let limit = Limit::of_one_body(rows, &self.settings.bodies);
        let work = async |transaction: &mut Transaction| {
            self.done(transaction.run(statement, &values, limit).await?)
        };
        match exchange.lent::<LentTransaction>().find(|lent| lent.source == *data_source) {
            Some(lent) => {
                let mut transaction = lent.transaction.lock().await;
                check()?;
                let transaction = transaction.as_mut().ok_or("the transaction of this exchange has ended")?;
                transaction.or_undo(work).await
            }
            // What it changes is undone if the rows that it yields are an error.
            None if statement.kind == (Kind::Change { yields: true }) => {
                let mut transaction = self.databases.begin(data_source).await?;
                check()?;
                let done = work(&mut transaction).await;
                if done.is_ok() {
                    transaction.commit().await?
                } else {
                    transaction.rollback().await?
                }
                done
            }
            None => {
                let mut connection = self.databases.connection(data_source).await?;
                check()?;
                self.done(connection.run(statement, &values, limit).await?)
            }
        }
    }

    fn done(&self, outcome: Outcome) -> Result<Done, BoxError> {
        let rows = match outcome {
            Outcome::Changed(count) => return Ok(Done::Changed(count)),
            Outcome::Rows(rows) => rows,
        };
        let rows = rows.into_iter().map(Row::into_json).collect::<Result<Vec<_>, _>>();
        let mut rows = rows.map_err(Failure::data)?;
        let count = rows.len() as u64;
        let body = match (self.settings.one, count) {
            (false, _) => Json::from(rows).into(),
            (true, 0 | 1) => rows.pop().map_or(Body::empty(), Body::from),
            (true, _) => {
                return Err(Failure::data("`output_type=one`, but there is more than one row").into());
            }
        };
        Ok(Done::Yielded { body, count })
    }
}
