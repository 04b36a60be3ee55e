//! [`SqlConsumer`]: polls a database, and settles what was read in the transaction that read it.

use std::sync::Arc;

use async_trait::async_trait;
use router_core::component::{Consumer, RouteHandle};
use router_core::error::BoxError;
use router_core::exchange::Exchange;
use router_core::pipeline::Pipeline;
use router_core::stop::Stop;
use router_core::value::Json;
use tokio::time::sleep;
use tracing::{error, info};

use super::Settings;
use super::database::{Databases, LentTransaction, Outcome, SharedTransaction, Transaction};
use super::parameters::{Parameters, Source};
use super::rows::Row;
use super::statement::Statement;

pub(super) struct SqlConsumer {
    pub(super) databases: Databases,
    pub(super) settings: Arc<Settings>,
}

/// What came of the exchange of a row.
enum Consumed {
    Settled,
    LeadershipLost,
}

#[async_trait]
impl Consumer for SqlConsumer {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        let (pipeline, stop) = (&route.pipeline, &route.stop);
        tokio::select! {
            biased;
            () = stop.requested() => return Ok(()),
            checked = self.check(pipeline) => checked?,
        }
        route.ready();
        let mut pause = self.settings.initial_delay;
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                () = sleep(pause) => {}
            }
            pause = self.settings.delay;
            // Nothing is done yet with rows that are still being read.
            let (transaction, rows) = tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                read = self.read(pipeline) => read?,
            };
            self.poll(transaction, rows, pipeline, stop).await?;
        }
    }
}

impl SqlConsumer {
    /// Whether the database is there, and takes the statement.
    async fn check(&self, pipeline: &Pipeline) -> Result<(), BoxError> {
        let settings = &self.settings;
        let parameters = Parameters { term: pipeline.term(), source: Source::Nothing };
        let values = parameters.of(&settings.statement)?;
        self.databases.connection(&settings.data_source).await?.check(&settings.statement, &values).await
    }

    /// The rows of this poll, and the transaction that has read them.
    async fn read(&self, pipeline: &Pipeline) -> Result<(Transaction, Vec<Row>), BoxError> {
        let settings = &self.settings;
        let parameters = Parameters { term: pipeline.term(), source: Source::Nothing };
        let values = parameters.of(&settings.statement)?;
        let mut transaction = self.databases.begin(&settings.data_source).await?;
        match transaction.query(&settings.statement, &values, settings.max_messages_per_poll).await? {
            Outcome::Rows(rows) => Ok((transaction, rows)),
            Outcome::Changed(_) => Err("the statement of a consumer must yield rows".into()),
        }
    }

    /// Sends the rows through the route, one after the other, and commits what became of them.
    async fn poll(
        &self,
        transaction: Transaction,
        rows: Vec<Row>,
        pipeline: &Pipeline,
        stop: &Stop,
    ) -> Result<(), BoxError> {
        let shared = SharedTransaction::new(tokio::sync::Mutex::new(Some(transaction)));
        let (mut lost, count) = (false, rows.len());
        for row in rows {
            // The rest is for the next poll; what is done is committed.
            if stop.is_requested() {
                break;
            }
            let row = match row {
                Row { columns, unreadable: None } => Json::Object(columns),
                unreadable => {
                    self.fail(unreadable, &shared, pipeline).await?;
                    continue;
                }
            };
            if let Consumed::LeadershipLost = self.consume(row, &shared, pipeline).await? {
                lost = true;
                break;
            }
        }
        let Some(transaction) = shared.lock().await.take() else { return Ok(()) };
        if lost || pipeline.term().is_some_and(|term| term.check().is_err()) {
            let route = pipeline.route_id();
            if count > 0 {
                info!(route, "route `{route}` rolls back {count} rows: this member does not lead any more");
            }
            return transaction.rollback().await;
        }
        transaction.commit().await
    }

    /// Settles a row that cannot be read, by the columns that can. It makes no exchange, and keeps no other
    /// row from being worked on.
    async fn fail(&self, row: Row, shared: &SharedTransaction, pipeline: &Pipeline) -> Result<(), BoxError> {
        let (route, cause) = (pipeline.route_id(), row.unreadable.unwrap_or_default());
        let row = Json::Object(row.columns);
        // Enough to find it.
        let others = row.to_string().chars().take(200).collect::<String>();
        let cause = format!("a row failed: {cause}; its other columns are {others}");
        let Some(statement) = &self.settings.on_consume_failed else {
            error!(
                route,
                "route `{route}`: {cause}; without `on_consume_failed`, the next poll reads it again"
            );
            return Ok(());
        };
        let settled = in_transaction(shared, async |transaction| {
            transaction
                .or_undo(async |transaction| settle(transaction, statement, &row, pipeline).await)
                .await
        });
        match settled.await {
            Ok(()) => error!(route, "route `{route}`: {cause}; `on_consume_failed` was run"),
            Err(error) => error!(route, "route `{route}`: {cause}; the next poll reads it again: {error}"),
        }
        Ok(())
    }

    async fn consume(
        &self,
        row: Json,
        shared: &SharedTransaction,
        pipeline: &Pipeline,
    ) -> Result<Consumed, BoxError> {
        let settings = &self.settings;
        // Before the work: a row that cannot be settled would be worked on by every poll.
        for statement in [&settings.on_consume, &settings.on_consume_failed].into_iter().flatten() {
            Parameters { term: pipeline.term(), source: Source::Row(&row) }.of(statement)?;
        }
        in_transaction(shared, async |transaction| transaction.command("savepoint bactrian_row").await)
            .await?;
        let mut exchange = Exchange::new(row.clone());
        let (source, transaction) = (settings.data_source.clone(), Arc::clone(shared));
        let lent = Arc::new(LentTransaction { source, transaction });
        exchange.lend(&lent);
        let result = pipeline.process(&mut exchange).await;
        drop(lent);
        let failed = match result {
            Ok(_) => false,
            Err(error) if error.is_leadership_lost() => return Ok(Consumed::LeadershipLost),
            Err(_) => true,
        };
        in_transaction(shared, async |transaction| {
            if failed {
                // What the exchange has written in this transaction is not to stay.
                transaction.command("rollback to savepoint bactrian_row").await?;
            }
            transaction.command("release savepoint bactrian_row").await?;
            let after = if failed { &settings.on_consume_failed } else { &settings.on_consume };
            match after {
                Some(statement) => settle(transaction, statement, &row, pipeline).await,
                None => Ok(()),
            }
        })
        .await?;
        Ok(Consumed::Settled)
    }
}

/// Runs the statement that settles a row.
async fn settle(
    transaction: &mut Transaction,
    statement: &Statement,
    row: &Json,
    pipeline: &Pipeline,
) -> Result<(), BoxError> {
    let parameters = Parameters { term: pipeline.term(), source: Source::Row(row) };
    transaction.run(statement, &parameters.of(statement)?, usize::MAX).await.map(drop)
}

/// Works in the transaction, which only the consumer ends.
async fn in_transaction(
    shared: &SharedTransaction,
    work: impl AsyncFnOnce(&mut Transaction) -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    match shared.lock().await.as_mut() {
        Some(transaction) => work(transaction).await,
        None => Err("the transaction has ended".into()),
    }
}
