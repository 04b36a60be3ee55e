//! What `sql:` promises, against `SQLite` in a file and `PostgreSQL` on a server.

#![cfg(feature = "sql")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use components::{DirectComponent, MasterComponent, MockComponent, SqlComponent};
use router_core::builder::{RouteBuilder, Steps, from};
use router_core::cluster::{ClusterService, LockName, Member, MemoryCluster, TermControl};
use router_core::component::Processor;
use router_core::error::BoxError;
use router_core::exchange::{Body, Exchange};
use router_core::router::{Router, RouterBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// A database, and the components of a process that uses it.
struct Database {
    /// `data_source=...`, and how to log in.
    source: String,
    mock: MockComponent,
    router: Router,
    _folder: Option<TempDir>,
}

impl Database {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = format!("data_source=sqlite:{}", folder.path().join("test.db").display());
        Self::at(source, Some(folder))
    }

    fn postgres() -> Self {
        let url = std::env::var("BACTRIAN_POSTGRES").expect("run by tests/postgres/server");
        Self::at(format!("data_source={url}&password=env:BACTRIAN_POSTGRES_PASSWORD"), None)
    }

    fn at(source: String, folder: Option<TempDir>) -> Self {
        let router = RouterBuilder::new().component(SqlComponent::default()).build().unwrap();
        Self { source, mock: MockComponent::default(), router, _folder: folder }
    }

    fn uri(&self, statement: &str) -> String {
        format!("sql:{statement}?{}", self.source)
    }

    fn producer(&self, statement: &str) -> Arc<dyn Processor> {
        self.router.producer(self.uri(statement)).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// Runs a statement for an exchange with this body.
    async fn run(&self, statement: &str, body: impl Into<Body>) -> Result<Exchange, BoxError> {
        let mut exchange = Exchange::new(body);
        self.producer(statement).process(&mut exchange).await?;
        Ok(exchange)
    }

    /// The rows of a statement without parameters.
    async fn rows(&self, statement: &str) -> Value {
        let exchange = self.run(statement, ()).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        exchange.message.body.to_json().unwrap().as_ref().clone()
    }

    /// A table with this name, with the tasks 1 to `count`, none done.
    async fn tasks(&self, table: &str, count: i64) {
        self.run(&format!("create table {table} (id integer primary key, state text not null)"), ())
            .await
            .unwrap();
        for id in 1..=count {
            self.run(&format!("insert into {table} values (:id, 'new')"), json!({ "id": id })).await.unwrap();
        }
    }

    /// The states of all tasks, by id.
    async fn states(&self, table: &str) -> Vec<String> {
        let rows = self.rows(&format!("select state from {table} order by id")).await;
        rows.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
    }

    /// A route from the new tasks, which are marked when they are done.
    fn poll(&self, table: &str, options: &str) -> RouteBuilder {
        from(format!("sql:{}", self.poll_rest(table, options))).id("poll")
    }

    fn poll_rest(&self, table: &str, options: &str) -> String {
        format!(
            "select id, state from {table} where state = 'new' order by id?{}&initial_delay=0&delay=5\
             &on_consume=update {table} set state = 'done' where id = :id{options}",
            self.source
        )
    }

    fn builder(&self) -> RouterBuilder {
        RouterBuilder::new()
            .component(SqlComponent::default())
            .component(MasterComponent::default())
            .component(DirectComponent::default())
            .component(self.mock.clone())
    }

    async fn run_route(&self, route: RouteBuilder, until: impl Future<Output = ()>) {
        let router = self.builder().route(route).build().unwrap_or_else(|errors| panic!("{errors}"));
        let _ = timeout(Duration::from_secs(20), router.run_until(until)).await.unwrap();
    }

    /// Waits until no task is new.
    async fn all_settled(&self, table: &str) {
        while self.states(table).await.iter().any(|state| state == "new") {
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn received_ids(&self) -> Vec<i64> {
        let received = self.mock.endpoint("out").received();
        received.iter().map(|exchange| id(exchange).unwrap()).collect()
    }
}

fn id(exchange: &Exchange) -> Option<i64> {
    exchange.message.body.to_json().ok()?.get("id")?.as_i64()
}

/// Tests for both databases.
macro_rules! for_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Database::sqlite(), stringify!($name)).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs PostgreSQL, which tests/run starts"]
            async fn $name() {
                super::$name(super::Database::postgres(), stringify!($name)).await;
            })*
        }
    };
}

for_both! {
    statements_read_their_parameters_and_say_what_they_have_done
    parameters_are_never_part_of_the_statement
    rows_come_in_order_and_are_settled_one_by_one
    what_a_failed_exchange_wrote_is_undone_and_the_row_is_marked
    a_failed_row_without_a_statement_comes_again
    steps_take_part_in_the_transaction_of_their_row
    a_stop_commits_what_is_done_and_leaves_the_rest
    a_leader_that_loses_the_lock_settles_nothing
    a_fence_refuses_an_older_leader
}

async fn statements_read_their_parameters_and_say_what_they_have_done(database: Database, table: &str) {
    database.tasks(table, 2).await;
    let insert = format!("insert into {table} values (:id, :name.first) -- :not one");
    let done = database.run(&insert, r#"{"id": 3, "name": {"first": "it's"}}"#).await.unwrap();
    assert_eq!(done.message.headers.get("sql.update_count"), Some(&1.into()));
    assert!(done.message.body.to_string().contains("it's"), "the body stays");

    let mut exchange = Exchange::new("it's");
    exchange.message.headers.set("low.id", 2);
    let select = format!("select * from {table} where id > :low.id and state = :body");
    database.producer(&select).process(&mut exchange).await.unwrap();
    assert_eq!(*exchange.message.body.to_json().unwrap(), json!([{ "id": 3, "state": "it's" }]));
    assert_eq!(exchange.message.headers.get("sql.row_count"), Some(&1.into()));

    let one = async |condition: &str| {
        let statement = format!("select state from {table} where {condition} order by id");
        let uri = format!("{}&output_type=one", database.uri(&statement));
        let mut exchange = Exchange::new(());
        let result = database.router.producer(uri).unwrap().process(&mut exchange).await;
        result.map(|()| exchange.message.body.to_string()).map_err(|error| error.to_string())
    };
    assert_eq!(one("id = 1").await.unwrap(), r#"{"state":"new"}"#);
    assert_eq!(one("id = 9").await.unwrap(), "");
    assert!(one("id < 3").await.unwrap_err().contains("there are 2 rows"));

    let changed = database.run(&format!("update {table} set state = 'x' where id < 3"), ()).await.unwrap();
    assert_eq!(changed.message.headers.get("sql.update_count"), Some(&2.into()));
    let deleted = database.rows(&format!("delete from {table} where id < 3 returning id")).await;
    assert_eq!(deleted.as_array().unwrap().len(), 2);
    let error = database.run(&insert, json!({ "name": 1 })).await.unwrap_err().to_string();
    assert!(error.contains("the parameter `:id`"), "{error}");
    let error = database.run("select :term", json!({ "term": 1 })).await.unwrap_err().to_string();
    assert!(error.contains("outside of routes with `master:`"), "{error}");
}

async fn parameters_are_never_part_of_the_statement(database: Database, table: &str) {
    database.tasks(table, 1).await;
    let evil = format!("'; drop table {table}; --");
    let update = format!("update {table} set state = :body where id = 1");
    database.run(&update, evil.as_str()).await.unwrap();
    assert_eq!(database.states(table).await, [evil]);
    let error = database.run(&update, ()).await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("null"), "an empty body is null: {error}");
}

async fn rows_come_in_order_and_are_settled_one_by_one(database: Database, table: &str) {
    database.tasks(table, 7).await;
    let route = database.poll(table, "&max_messages_per_poll=3").to("mock:out");
    database.run_route(route, database.all_settled(table)).await;
    assert_eq!(database.received_ids(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(database.states(table).await, ["done"; 7]);
}

async fn what_a_failed_exchange_wrote_is_undone_and_the_row_is_marked(database: Database, table: &str) {
    database.tasks(table, 3).await;
    let mark = format!("&on_consume_failed=update {table} set state = 'failed' where id = :id");
    let route = database
        .poll(table, &mark)
        .to(database.uri(&format!("insert into {table} values (:id %2B 100, 'written')")))
        .process(|exchange| if id(exchange) == Some(2) { Err("not this one".into()) } else { Ok(()) })
        .to("mock:out");
    database.run_route(route, database.all_settled(table)).await;
    assert_eq!(database.received_ids(), [1, 3]);
    assert_eq!(database.states(table).await, ["done", "failed", "done", "written", "written"]);
}

async fn a_failed_row_without_a_statement_comes_again(database: Database, table: &str) {
    database.tasks(table, 2).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    // The step fails in the database, which must not spoil the transaction for the other row.
    let again = format!("insert into {table} values (:id, 'there already')");
    let (again, mock) = (database.uri(&again), "mock:out");
    let route = database
        .poll(table, "")
        .process(move |exchange| {
            let first = id(exchange) == Some(1) && counted.fetch_add(1, Ordering::Relaxed) < 2;
            exchange.message.headers.set("again", first);
            Ok(())
        })
        .choice(|choice| choice.when("${header.again} == true", |branch| branch.to(again)))
        .to(mock);
    database.run_route(route, database.all_settled(table)).await;
    assert_eq!(database.received_ids(), [2, 1]);
    assert_eq!(tries.load(Ordering::Relaxed), 3);
}

async fn steps_take_part_in_the_transaction_of_their_row(database: Database, table: &str) {
    database.tasks(table, 2).await;
    let outside = Database::at(database.source.clone(), None);
    let write = database.uri(&format!("insert into {table} values (:id %2B 10, 'written')"));
    let read = database.uri(&format!("select count(*) as count from {table}"));
    let router = database
        .builder()
        .route(database.poll(table, "").to("direct:write").to(read).to("mock:out"))
        .route(from("direct:write").to(write))
        .build()
        .unwrap();
    let seen_outside = async {
        database.mock.endpoint("out").wait_for(1).await;
        outside.all_settled(table).await;
    };
    let _ = timeout(Duration::from_secs(20), router.run_until(seen_outside)).await.unwrap();
    let counts = database.mock.endpoint("out").received();
    let counts = counts.iter().map(|exchange| exchange.message.body.to_string()).collect::<Vec<_>>();
    assert_eq!(counts, [r#"[{"count":3}]"#, r#"[{"count":4}]"#], "the steps see what they have written");
    assert_eq!(outside.states(table).await, ["done", "done", "written", "written"]);
}

async fn a_stop_commits_what_is_done_and_leaves_the_rest(database: Database, table: &str) {
    database.tasks(table, 3).await;
    let route = database.poll(table, "").to("mock:out").delay("100");
    database.run_route(route, database.mock.endpoint("out").wait_for(1)).await;
    assert_eq!(database.states(table).await, ["done", "new", "new"]);
}

async fn a_leader_that_loses_the_lock_settles_nothing(database: Database, table: &str) {
    database.tasks(table, 3).await;
    let (first, lock) = (MemoryCluster::new("a"), "lock1".parse::<LockName>().unwrap());
    let second = first.join("b");
    let uri = format!("master:lock1:sql:{}", database.poll_rest(table, ""));
    let write = database.uri(&format!("insert into {table} values (:id %2B 10, :lock)"));
    let route = |delay: &str| from(uri.clone()).id("poll").to(write.clone()).to("mock:out").delay(delay);
    // The second exchange of the first leader takes longer than what is left of its term.
    let slow = "${body.id}000";
    let router = database.builder().cluster(Arc::clone(&first) as Arc<dyn ClusterService>);
    let router = router.route(route(slow)).build().unwrap();
    let lose = async {
        database.mock.endpoint("out").wait_for(2).await;
        let waiting = second.view(&lock).await.unwrap();
        first.revoke(&lock, Duration::from_millis(50));
        drop(waiting.lead().await.unwrap());
    };
    let _ = timeout(Duration::from_secs(20), router.run_until(lose)).await.unwrap();
    let before = database.states(table).await;
    drop(first);
    assert_eq!(before[..3], ["new"; 3], "nothing is acknowledged");
    let router = database.builder().cluster(second as Arc<dyn ClusterService>);
    let router = router.route(route("0")).build().unwrap();
    let _ = timeout(Duration::from_secs(20), router.run_until(database.all_settled(table))).await.unwrap();
    assert_eq!(database.received_ids(), [1, 2, 1, 2, 3], "what was under way comes again");
    assert_eq!(database.states(table).await, ["done", "done", "done", "lock1", "lock1", "lock1"]);
}

async fn a_fence_refuses_an_older_leader(database: Database, table: &str) {
    database.run(&format!("create table {table} (name text, runs bigint, term bigint)"), ()).await.unwrap();
    database.run(&format!("insert into {table} values ('nightly', 0, 0)"), ()).await.unwrap();
    let fenced = database.producer(&format!(
        "update {table} set runs = runs + 1, term = :term where name = :lock and term <= :term"
    ));
    let lock = "nightly".parse::<LockName>().unwrap();
    let mut counts = Vec::new();
    // The leader of term 4 was held up, and does not know that it does not lead any more.
    for number in [4, 5, 4, 5] {
        let term = TermControl::new(lock.clone(), number, Member::new("a"), None).term().clone();
        // Fields and headers cannot pretend.
        let mut exchange = Exchange::new(json!({ "term": 9, "lock": "other" }));
        exchange.term = Some(term);
        fenced.process(&mut exchange).await.unwrap();
        counts.push(exchange.message.headers.get("sql.update_count").unwrap().to_string());
    }
    assert_eq!(counts, ["1", "1", "0", "1"]);
    let rows = database.rows(&format!("select runs, term from {table}")).await;
    assert_eq!(rows, json!([{ "runs": 3, "term": 5 }]));
}

#[tokio::test]
async fn values_of_sqlite_become_json() {
    let database = Database::sqlite();
    database.run("create table x (a, b boolean, c blob, d real)", ()).await.unwrap();
    let body = json!({ "a": { "k": [1] }, "b": true, "d": 0.5 });
    database
        .run("insert into x values (:a, :b, x'00ff', :d), (:a.none, 0, null, 2)", body)
        .await
        .unwrap_err();
    let body = json!({ "a": { "k": [1], "none": null }, "b": true, "d": 0.5 });
    database.run("insert into x values (:a, :b, x'00ff', :d), (:a.none, 0, null, 2)", body).await.unwrap();
    assert_eq!(
        database.rows("select * from x order by d").await,
        json!([
            { "a": r#"{"k":[1],"none":null}"#, "b": true, "c": "\\x00ff", "d": 0.5 },
            { "a": null, "b": false, "c": null, "d": 2.0 },
        ])
    );
}

#[tokio::test]
async fn a_row_that_could_not_be_settled_is_not_worked_on() {
    let database = Database::sqlite();
    database.tasks("x", 1).await;
    let route = database.poll("x", "&on_consume_failed=update x set state = 'failed' where id = :number");
    // Longer than the first pause before the consumer is tried again.
    database.run_route(route.to("mock:out"), sleep(Duration::from_secs(2))).await;
    assert!(database.received_ids().is_empty());
    assert_eq!(database.states("x").await, ["new"]);
}

#[tokio::test]
async fn a_database_in_memory_lasts_and_is_shared() {
    let database = Database::at("data_source=sqlite::memory:".into(), None);
    database.tasks("x", 2).await;
    assert_eq!(database.states("x").await, ["new", "new"]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn values_of_postgres_become_json_and_parameters_take_every_type() {
    let database = Database::postgres();
    database.run("create type mood as enum ('sad', 'happy')", ()).await.unwrap();
    let columns = [
        ("a", "smallint", json!(-2), json!(-2)),
        ("b", "bigint", json!("9000000000"), json!(9_000_000_000_i64)),
        ("c", "real", json!(0.1), json!(0.1)),
        ("d", "double precision", json!(2.5), json!(2.5)),
        ("e", "numeric(20,4)", json!("-1234567890123456.7"), json!("-1234567890123456.7000")),
        ("f", "boolean", json!(true), json!(true)),
        ("g", "varchar(9)", json!("ü"), json!("ü")),
        ("h", "jsonb", json!({ "k": [1] }), json!({ "k": [1] })),
        ("i", "json", json!([null]), json!([null])),
        ("j", "bytea", json!("\\x00ff"), json!("\\x00ff")),
        (
            "k",
            "uuid",
            json!("{A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11}"),
            json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ),
        ("l", "date", json!("1999-12-31"), json!("1999-12-31")),
        ("m", "time", json!("23:59:59.5"), json!("23:59:59.5")),
        ("n", "timestamp", json!("1969-07-20 20:17"), json!("1969-07-20T20:17:00")),
        ("o", "timestamptz", json!("2026-03-01 12:00+02"), json!("2026-03-01T10:00:00Z")),
        ("p", "mood", json!("happy"), json!("happy")),
        ("q", "char(3)", json!("ab"), json!("ab ")),
        ("r", "integer", Value::Null, Value::Null),
    ];
    let list = |entry: &dyn Fn(&str, &str) -> String| {
        columns.iter().map(|(name, kind, ..)| entry(name, kind)).collect::<Vec<_>>().join(", ")
    };
    let fields = list(&|name, kind| format!("{name} {kind}"));
    database.run(&format!("create table kinds ({fields})"), ()).await.unwrap();
    let body = columns.iter().map(|(name, _, value, _)| ((*name).to_owned(), value.clone()));
    let parameters = list(&|name, _| format!(":{name}"));
    let insert = format!("insert into kinds values ({parameters})");
    database.run(&insert, Value::Object(body.collect())).await.unwrap();
    let row = &database.rows("select * from kinds").await[0];
    for (name, kind, _, expected) in &columns {
        assert_eq!(row[*name], *expected, "{kind}");
    }
    let found = database.run(
        "select a from kinds where o = :o and r is null limit :n",
        json!({ "o": "2026-03-01T10:00:00Z", "n": 1 }),
    );
    assert_eq!(found.await.unwrap().message.body.to_string(), r#"[{"a":-2}]"#);
    let error = database.run("select interval '1 day' as x", ()).await.unwrap_err().to_string();
    assert!(error.contains("the type INTERVAL has no form in JSON: cast it to text"), "{error}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn a_parameter_arrives_whole_whatever_the_type_is_called() {
    let database = Database::postgres();
    for statement in [
        "create type \"Size of shoe\" as enum ('small', 'large')",
        "create domain \"Name\" as varchar(5)",
        "create table whole (a char(3), b bit(3), c bit varying(9), d char(2)[], e \"Size of shoe\", \
         f \"char\", g name, h interval, i \"Name\", j bit(2)[], k \"Size of shoe\"[])",
    ] {
        database.run(statement, ()).await.unwrap();
    }
    let values = json!({
        "a": "abc", "b": "101", "c": "10101", "d": "{ab,cd}", "e": "large", "f": "x", "g": "name",
        "h": "1 day", "i": "Ada", "j": "{10,01}", "k": "{small}",
    });
    let names = values.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
    let insert = format!("insert into whole ({}) values (:{})", names.join(", "), names.join(", :"));
    database.run(&insert, values.clone()).await.unwrap();
    let select = names.iter().map(|name| format!("{name}::text as {name}")).collect::<Vec<_>>().join(", ");
    assert_eq!(database.rows(&format!("select {select} from whole")).await[0], values);
    for (name, long) in [("a", "abcd"), ("b", "1010"), ("d", "{abc}"), ("i", "Adalbert"), ("j", "{101}")] {
        let insert = format!("insert into whole ({name}) values (:{name})");
        let result = database.run(&insert, json!({ name: long })).await;
        let error = result.map_or_else(|error| error.to_string(), |_| "none".into());
        assert!(error.contains("too long") || error.contains("does not match"), "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn consumers_that_claim_rows_share_them() {
    let database = Database::postgres();
    database.tasks("shared", 60).await;
    let uri = format!(
        "sql:select * from shared where state = 'new' order by id limit 3 for update skip locked?{}\
         &initial_delay=0&delay=1&on_consume=update shared set state = 'done' where id = :id",
        database.source
    );
    let mut builder = database.builder();
    for name in ["a", "b", "c"] {
        builder = builder.route(from(uri.clone()).id(name).to("mock:out").delay("2"));
    }
    let router = builder.build().unwrap();
    let _ = timeout(Duration::from_secs(20), router.run_until(database.all_settled("shared"))).await.unwrap();
    let mut ids = database.received_ids();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=60), "each once");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn a_lost_connection_settles_nothing_and_is_made_anew() {
    let database = Database::postgres();
    database.tasks("cut_off", 2).await;
    let (uri, tries) = (database.source.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&tries);
    let route = database.poll("cut_off", "").process_async(move |_| {
        let (uri, first) = (uri.clone(), counted.fetch_add(1, Ordering::Relaxed) == 0);
        Box::pin(async move {
            if first {
                // The one that holds the transaction: no other has read this table last.
                let cut = "select pg_terminate_backend(pid) as cut from pg_stat_activity \
                           where state = 'idle in transaction' and pid in (select pid from pg_locks \
                           where relation = 'cut_off'::regclass)";
                assert_ne!(Database::at(uri, None).rows(cut).await, json!([]));
            }
            Ok(())
        })
    });
    database.run_route(route.to("mock:out"), database.all_settled("cut_off")).await;
    assert_eq!(database.received_ids(), [1, 1, 2]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn a_wrong_password_is_not_shown_and_a_new_one_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2").unwrap();
    let url = std::env::var("BACTRIAN_POSTGRES").unwrap();
    let database = Database::at(format!("data_source={url}&password=file:{}", file.display()), None);
    let error = format!("{:?}", database.run("select 1 as a", ()).await.unwrap_err());
    assert!(error.contains("no connection to the database") && !error.contains("hunter2"), "{error}");
    std::fs::write(&file, std::env::var("BACTRIAN_POSTGRES_PASSWORD").unwrap()).unwrap();
    assert_eq!(database.rows("select 1 as a").await, json!([{ "a": 1 }]));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn connections_are_encrypted_and_certificates_checked_as_asked_for() {
    let url = std::env::var("BACTRIAN_POSTGRES").expect("run by tests/postgres/server");
    let certificate = std::env::var("BACTRIAN_POSTGRES_CERTIFICATE").expect("run by tests/postgres/server");
    let encrypted = async |url: &str, options: &str| {
        let source = format!("data_source={url}?{options}&password=env:BACTRIAN_POSTGRES_PASSWORD");
        let database = Database::at(source, None);
        let statement = "select ssl as encrypted from pg_stat_ssl where pid = pg_backend_pid()";
        let exchange = database.run(statement, ()).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(exchange.message.body.to_json().unwrap()[0]["encrypted"].as_bool().unwrap())
    };
    assert_eq!(encrypted(&url, "sslmode=disable").await, Ok(false));
    // Whoever is there.
    assert_eq!(encrypted(&url, "sslmode=require").await, Ok(true));
    // Nobody vouches for a certificate that its server has signed itself ...
    let error = encrypted(&url, "sslmode=verify-full").await.unwrap_err();
    assert!(error.contains("no connection to the database") && error.contains("certificate"), "{error}");
    // ... unless we do, and for that name alone.
    let trusted = format!("sslmode=verify-full%26sslrootcert={certificate}");
    assert_eq!(encrypted(&url, &trusted).await, Ok(true));
    let error = encrypted(&url.replace("127.0.0.1", "localhost"), &trusted).await.unwrap_err();
    assert!(error.contains("certificate not valid for name"), "{error}");
}

#[tokio::test]
async fn a_database_that_may_only_be_read_is_polled() {
    let database = Database::sqlite();
    database.tasks("x", 2).await;
    let select = format!("sql:select id from x order by id?{}%3Fmode=ro&initial_delay=0", database.source);
    database.run_route(from(select).to("mock:out"), database.mock.endpoint("out").wait_for(2)).await;
    assert_eq!(database.received_ids(), [1, 2]);
}

#[test]
fn mistakes_point_at_the_characters() {
    let mistakes = |uri: &str| {
        let built = RouterBuilder::new()
            .component(SqlComponent::default())
            .component(MockComponent::default())
            .route(from(uri.to_owned()).to("mock:out"))
            .build();
        built.err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    let source = "data_source=sqlite:x.db";
    assert!(mistakes("sql:select 1").contains("needs a database"));
    assert!(mistakes(&format!("sql:?{source}")).contains("needs a statement"));
    let two = mistakes(&format!("sql:select%20:#a?{source}&on_consume=update x set a = $1"));
    assert!(two.contains("a parameter looks like `:name`") && two.contains("write `:name`"), "{two}");
    let shown = two.lines().filter(|line| line.contains("^")).map(|line| line.matches('^').count());
    assert_eq!(shown.collect::<Vec<_>>(), [2, 1], "{two}");
    let secret = mistakes("sql:select :#a?data_source=postgres://me:hunter2@host/db");
    assert!(secret.contains("cannot contain a password") && !secret.contains("hunter2"), "{secret}");
    assert!(mistakes("sql:select 1?data_source=oracle:x").contains("takes `sqlite:path`"));
    assert_eq!(mistakes(&format!("sql:select * from x where a like 'a%25' and b = :b?{source}")), "");
}
