//! [`SqlConsumer`]: polls a database, and settles what was read in the transaction that read it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use router_core::component::{Consumer, RouteHandle};
use router_core::error::BoxError;
use router_core::exchange::Exchange;
use router_core::pipeline::Pipeline;
use router_core::stop::Stop;
use router_core::value::Json;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::Settings;
use super::cursor::Cursor;
use super::database::{Databases, LentTransaction, Outcome, SharedTransaction, Transaction};
use super::parameters::{Parameters, Source};
use super::rows::{Limit, Row};
use super::statement::Statement;
use super::waiting::Waiting;
use crate::in_sum::InSum;

pub(super) struct SqlConsumer {
    pub(super) databases: Databases,
    pub(super) settings: Arc<Settings>,
    pub(super) waiting: Mutex<Waiting>,
    /// Rows that `on_consume` has left as they were.
    pub(super) unchanged: Mutex<InSum>,
}

/// Whether the next row of a poll is worked on.
enum Progress {
    GoesOn,
    /// A stop is asked for: the other rows are for the next poll, and what is done is committed.
    Stops,
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
            let (transaction, cursor, rows) = tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                read = self.read(pipeline) => read?,
            };
            self.poll(transaction, cursor, rows, pipeline, stop).await?;
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

    /// The first rows of this poll, where the others come from, and the transaction that reads them.
    async fn read(&self, pipeline: &Pipeline) -> Result<(Transaction, Cursor, Vec<Row>), BoxError> {
        let settings = &self.settings;
        let parameters = Parameters { term: pipeline.term(), source: Source::Nothing };
        let values = parameters.of(&settings.statement)?;
        let mut transaction = self.databases.begin(&settings.data_source).await?;
        // Those that wait take no place from the others.
        let rows = settings.max_messages_per_poll.saturating_add(self.waiting().len());
        let limit = Limit::of_bodies(rows, &settings.bodies);
        let mut cursor = Cursor::open(&mut transaction, &settings.statement, &values, limit).await?;
        let rows = cursor.page(&mut transaction).await?;
        Ok((transaction, cursor, rows))
    }

    /// Sends the rows through the route, one after the other, and commits what became of them.
    async fn poll(
        &self,
        transaction: Transaction,
        mut cursor: Cursor,
        mut rows: Vec<Row>,
        pipeline: &Pipeline,
        stop: &Stop,
    ) -> Result<(), BoxError> {
        let shared = SharedTransaction::new(tokio::sync::Mutex::new(Some(transaction)));
        let (mut count, mut unread) = (0, None);
        let mut left = self.settings.max_messages_per_poll;
        let lost = loop {
            count += rows.len();
            match self.work_on(rows, &mut left, &shared, pipeline, stop).await? {
                Progress::GoesOn => {}
                Progress::Stops => break false,
                Progress::LeadershipLost => break true,
            }
            match in_transaction(&shared, async |transaction| cursor.page(transaction).await).await {
                Ok(next) if next.is_empty() => break false,
                Ok(next) => rows = next,
                // What was done is kept: otherwise each poll would do it again.
                Err(error) => {
                    unread = Some(error);
                    break false;
                }
            }
        };
        let Some(mut transaction) = shared.lock().await.take() else { return Ok(()) };
        if lost || pipeline.term().is_some_and(|term| term.check().is_err()) {
            let route = pipeline.route_id();
            if count > 0 {
                info!(route, "route `{route}` rolls back {count} rows: this member does not lead any more");
            }
            return transaction.rollback().await;
        }
        cursor.close(&mut transaction).await?;
        transaction.commit().await?;
        unread.map_or(Ok(()), Err)
    }

    /// Sends some of the rows of a poll through the route, one after the other, as long as there are some `left`.
    async fn work_on(
        &self,
        rows: Vec<Row>,
        left: &mut usize,
        shared: &SharedTransaction,
        pipeline: &Pipeline,
        stop: &Stop,
    ) -> Result<Progress, BoxError> {
        for row in rows {
            if stop.is_requested() || *left == 0 {
                return Ok(Progress::Stops);
            }
            let Row { columns, unreadable } = row;
            let row = Json::Object(columns);
            if self.waiting().excludes(&row) {
                continue;
            }
            if let Some(cause) = unreadable {
                self.fail(&row, &cause, shared, pipeline).await;
                continue;
            }
            *left -= 1;
            if let Progress::LeadershipLost = self.consume(row, shared, pipeline).await? {
                return Ok(Progress::LeadershipLost);
            }
        }
        Ok(Progress::GoesOn)
    }

    /// Settles a row that makes no exchange, or whose exchange is undone, by the columns that could be read. It keeps no
    /// other row from being worked on.
    async fn fail(&self, row: &Json, cause: &str, shared: &SharedTransaction, pipeline: &Pipeline) {
        let route = pipeline.route_id();
        // Enough to find it.
        let columns = row.to_string().chars().take(200).collect::<String>();
        let cause = format!("a row failed: {cause}; the columns that can be read are {columns}");
        let Some(statement) = &self.settings.on_consume_failed else {
            let pause = self.waiting().postpone(row);
            error!(
                route,
                "route `{route}`: {cause}; without `on_consume_failed`, it is read again in {pause:.1?}"
            );
            return;
        };
        let settled = in_transaction(shared, async |transaction| {
            transaction
                .or_undo(async |transaction| {
                    self.settle(transaction, statement, row, pipeline).await.map(drop)
                })
                .await
        });
        match settled.await {
            Ok(()) => {
                self.waiting().forgive(row);
                error!(route, "route `{route}`: {cause}; `on_consume_failed` was run");
            }
            Err(error) => {
                let pause = self.waiting().postpone(row);
                error!(route, "route `{route}`: {cause}; it is read again in {pause:.1?}: {error}");
            }
        }
    }

    async fn consume(
        &self,
        row: Json,
        shared: &SharedTransaction,
        pipeline: &Pipeline,
    ) -> Result<Progress, BoxError> {
        let settings = &self.settings;
        // Before the work: a row that cannot be settled would be worked on by every poll.
        let parameters = Parameters { term: pipeline.term(), source: Source::Row(&row) };
        let statements = [&settings.on_consume, &settings.on_consume_failed];
        if let Err(error) =
            statements.into_iter().flatten().try_for_each(|next| parameters.of(next).map(drop))
        {
            self.fail(&row, &format!("it cannot be settled: {error}"), shared, pipeline).await;
            return Ok(Progress::GoesOn);
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
            Err(error) if error.is_leadership_lost() => return Ok(Progress::LeadershipLost),
            Err(_) => true,
        };
        let cause = in_transaction(shared, async |transaction| {
            let settled = match &settings.on_consume {
                Some(statement) if !failed => {
                    let settled = self.settle(transaction, statement, &row, pipeline).await;
                    settled.map(|outcome| self.note_unchanged(&outcome, &row, pipeline.route_id()))
                }
                _ => Ok(()),
            };
            if failed || settled.is_err() {
                // What the exchange has written in this transaction is not to stay.
                transaction.command("rollback to savepoint bactrian_row").await?;
            }
            transaction.command("release savepoint bactrian_row").await?;
            Ok(match settled {
                Err(error) => {
                    Some(format!("its exchange is done, but undone in the database: `on_consume`: {error}"))
                }
                Ok(()) => failed.then(|| "its exchange failed".to_owned()),
            })
        })
        .await?;
        match cause {
            // Its route has said so.
            Some(_) if failed && settings.on_consume_failed.is_none() => {
                self.waiting().postpone(&row);
            }
            Some(cause) => self.fail(&row, &cause, shared, pipeline).await,
            None => self.waiting().forgive(&row),
        }
        Ok(Progress::GoesOn)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the statement that settles a row.
    async fn settle(
        &self,
        transaction: &mut Transaction,
        statement: &Statement,
        row: &Json,
        pipeline: &Pipeline,
    ) -> Result<Outcome, BoxError> {
        let parameters = Parameters { term: pipeline.term(), source: Source::Row(row) };
        // What it yields is of no use, and an error if it is too large.
        let limit = Limit::of_one_body(usize::MAX, &self.settings.bodies);
        transaction.run(statement, &parameters.of(statement)?, limit).await
    }

    /// That a statement changes nothing may be meant, and is no failure. But then the row is most likely read again.
    fn note_unchanged(&self, outcome: &Outcome, row: &Json, route: &str) {
        let is_unchanged = matches!(outcome, Outcome::Changed(0));
        let note = self.unchanged.lock().unwrap_or_else(PoisonError::into_inner).note(is_unchanged.into());
        if let Some(count) = note {
            let columns = row.to_string().chars().take(200).collect::<String>();
            warn!(
                route,
                count,
                "route `{route}`: `on_consume` has changed nothing for {count} rows, so polls may read them again; the last \
                 one is {columns}"
            );
        }
    }
}

/// Works in the transaction, which only the consumer ends.
async fn in_transaction<T>(
    shared: &SharedTransaction,
    work: impl AsyncFnOnce(&mut Transaction) -> Result<T, BoxError>,
) -> Result<T, BoxError> {
    match shared.lock().await.as_mut() {
        Some(transaction) => work(transaction).await,
        None => Err("the transaction has ended".into()),
    }
}
