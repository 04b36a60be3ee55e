//! A database, and the components of a process that uses it.

use std::sync::Arc;
use std::time::Duration;

use components::{DirectComponent, MasterComponent, MockComponent, SqlComponent};
use router_core::builder::{RouteBuilder, from};
use router_core::component::Processor;
use router_core::error::BoxError;
use router_core::exchange::{Body, Exchange};
use router_core::router::{Router, RouterBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// A database, and the components of a process that uses it.
pub(crate) struct Database {
    /// `data_source=...`, and how to log in.
    pub(crate) source: String,
    pub(crate) mock: MockComponent,
    pub(crate) router: Router,
    _folder: Option<TempDir>,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = format!("data_source=sqlite:{}", folder.path().join("test.db").display());
        Self::at(source, Some(folder))
    }

    pub(crate) fn postgres() -> Self {
        let url = std::env::var("BACTRIAN_POSTGRES").expect("run by tests/postgres/server");
        Self::at(format!("data_source={url}&password=env:BACTRIAN_POSTGRES_PASSWORD"), None)
    }

    pub(crate) fn at(source: String, folder: Option<TempDir>) -> Self {
        let router = RouterBuilder::new().component(SqlComponent::default()).build().unwrap();
        Self { source, mock: MockComponent::default(), router, _folder: folder }
    }

    pub(crate) fn uri(&self, statement: &str) -> String {
        format!("sql:{statement}?{}", self.source)
    }

    pub(crate) fn producer(&self, statement: &str) -> Arc<dyn Processor> {
        self.router.producer(self.uri(statement)).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// Runs a statement for an exchange with this body.
    pub(crate) async fn run(&self, statement: &str, body: impl Into<Body>) -> Result<Exchange, BoxError> {
        let mut exchange = Exchange::new(body);
        self.producer(statement).process(&mut exchange).await?;
        Ok(exchange)
    }

    /// The rows of a statement without parameters.
    pub(crate) async fn rows(&self, statement: &str) -> Value {
        let exchange = self.run(statement, ()).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        exchange.message.body.json().unwrap()
    }

    /// A table with this name, with the tasks 1 to `count`, none done.
    pub(crate) async fn tasks(&self, table: &str, count: i64) {
        self.run(&format!("create table {table} (id integer primary key, state text not null)"), ())
            .await
            .unwrap();
        for id in 1..=count {
            self.run(&format!("insert into {table} values (:id, 'new')"), json!({ "id": id })).await.unwrap();
        }
    }

    /// The states of all tasks, by id.
    pub(crate) async fn states(&self, table: &str) -> Vec<String> {
        let rows = self.rows(&format!("select state from {table} order by id")).await;
        rows.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
    }

    /// A route from the new tasks, which are marked when they are done.
    pub(crate) fn poll(&self, table: &str, options: &str) -> RouteBuilder {
        from(format!("sql:{}", self.poll_rest(table, options))).id("poll")
    }

    pub(crate) fn poll_rest(&self, table: &str, options: &str) -> String {
        format!(
            "select id, state from {table} where state = 'new' order by id?{}&initial_delay=0&delay=5\
             &on_consume=update {table} set state = 'done' where id = :id{options}",
            self.source
        )
    }

    pub(crate) fn builder(&self) -> RouterBuilder {
        RouterBuilder::new()
            .component(SqlComponent::default())
            .component(MasterComponent::default())
            .component(DirectComponent::default())
            .component(self.mock.clone())
    }

    pub(crate) async fn run_route(&self, route: RouteBuilder, until: impl Future<Output = ()>) {
        let router = self.builder().route(route).build().unwrap_or_else(|errors| panic!("{errors}"));
        let _ = timeout(Duration::from_secs(20), router.run_until(until)).await.unwrap();
    }

    /// Waits until no task is new.
    pub(crate) async fn all_settled(&self, table: &str) {
        while self.states(table).await.iter().any(|state| state == "new") {
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn received_ids(&self) -> Vec<i64> {
        let received = self.mock.endpoint("out").received();
        received.iter().map(|exchange| id(exchange).unwrap()).collect()
    }
}

pub(crate) fn id(exchange: &Exchange) -> Option<i64> {
    exchange.message.body.to_json().ok()?.get("id")?.as_i64()
}

/// Tests for both databases.
macro_rules! for_both {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::support::Database::sqlite(), stringify!($name)).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs PostgreSQL, which tests/run starts"]
            async fn $name() {
                super::$name($crate::support::Database::postgres(), stringify!($name)).await;
            })*
        }
    };
}
