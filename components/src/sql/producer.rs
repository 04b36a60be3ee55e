//! [`SqlProducer`]: runs a statement for each exchange.

use std::sync::Arc;

use async_trait::async_trait;
use router_core::component::Processor;
use router_core::error::BoxError;
use router_core::exchange::{Body, Exchange};
use serde_json::Value as Json;

use super::Settings;
use super::database::{Databases, Outcome};
use super::parameters::{Parameters, Source};

pub(super) struct SqlProducer {
    pub(super) databases: Databases,
    pub(super) settings: Arc<Settings>,
}

#[async_trait]
impl Processor for SqlProducer {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let outcome = self.run(exchange).await?;
        let message = &mut exchange.message;
        match outcome {
            Outcome::Changed(count) => message.headers.set("sql.update_count", count),
            Outcome::Rows(mut rows) => {
                let count = rows.len();
                message.body = match (self.settings.one, count) {
                    (false, _) => Json::Array(rows).into(),
                    (true, 0 | 1) => rows.pop().map_or(Body::Empty, Body::from),
                    (true, _) => return Err(format!("`output_type=one`, but there are {count} rows").into()),
                };
                message.headers.set("sql.row_count", count as u64);
            }
        }
        Ok(())
    }
}

impl SqlProducer {
    async fn run(&self, exchange: &Exchange) -> Result<Outcome, BoxError> {
        let settings = &self.settings;
        let source = Source::Message(&exchange.message);
        let parameters = Parameters { term: exchange.term.as_ref(), source };
        let values = parameters.of(&settings.statement)?;
        // Waiting for the connection may have outlived the term.
        let check = || exchange.term.as_ref().map_or(Ok(()), router_core::cluster::Term::check);
        match self.databases.lent(exchange.id, &settings.data_source) {
            Some(shared) => {
                let mut transaction = shared.lock().await;
                check()?;
                let transaction = transaction.as_mut().ok_or("the transaction of this exchange has ended")?;
                transaction.run_or_undo(&settings.statement, &values).await
            }
            None => {
                let mut connection = self.databases.connection(&settings.data_source).await?;
                check()?;
                connection.run(&settings.statement, &values).await
            }
        }
    }
}
