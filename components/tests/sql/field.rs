//! What is known to fail in other tools that run statements for messages.

use std::time::Duration;

use components::{MockComponent, SqlComponent};
use router_core::builder::{Steps, from};
use router_core::exchange::Exchange;
use router_core::router::RouterBuilder;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::support::Database;

for_both! {
    a_table_that_is_changed_does_not_break_the_statements_that_were_prepared
    an_optional_condition_takes_null
    a_statement_that_fails_leaves_no_transaction_open
    composite_keys_settle_rows_and_generated_ones_are_returned
    parameters_in_texts_and_comments_are_none
}

async fn a_table_that_is_changed_does_not_break_the_statements_that_were_prepared(
    database: Database,
    table: &str,
) {
    database.tasks(table, 1).await;
    let (read, write) = (
        database.producer(&format!("select * from {table} where state = :state")),
        database.producer(&format!("update {table} set state = :state where id = 1")),
    );
    let run = async |producer: &std::sync::Arc<dyn router_core::component::Processor>, state| {
        let mut exchange = Exchange::new(json!({ "state": state }));
        producer.process(&mut exchange).await.unwrap();
        exchange.message.body.to_string()
    };
    assert_eq!(run(&read, json!("new")).await, r#"[{"id":1,"state":"new"}]"#);
    run(&write, json!("5")).await;
    let change = |change: &str| format!("alter table {table} {change}");
    database.run(&change("add column more text"), ()).await.unwrap();
    assert_eq!(run(&read, json!("5")).await, r#"[{"id":1,"state":"5","more":null}]"#);
    if database.source.contains("postgres") {
        // Another router: its connection knows the column by its old type.
        database.router.producer(database.uri("select 1 as a")).unwrap();
        let other = Database::at(database.source.clone(), None);
        other.run(&change("alter column state type int using state::int"), ()).await.unwrap();
        assert_eq!(run(&read, json!(5)).await, r#"[{"id":1,"state":5,"more":null}]"#);
        run(&write, json!(6)).await;
        assert_eq!(run(&read, json!(6)).await, r#"[{"id":1,"state":6,"more":null}]"#);
    }
}

async fn an_optional_condition_takes_null(database: Database, table: &str) {
    database.tasks(table, 3).await;
    let statement = format!("select count(*) as n from {table} where :id is null or id = :id");
    for (id, n) in [(json!(null), 3), (json!(2), 1), (json!(9), 0)] {
        let done = database.run(&statement, json!({ "id": id })).await.unwrap();
        assert_eq!(done.message.body.to_string(), format!(r#"[{{"n":{n}}}]"#), "{id}");
    }
    let update = format!("update {table} set state = coalesce(:state, state) where id = 1");
    database.run(&update, json!({ "state": null })).await.unwrap();
}

async fn a_statement_that_fails_leaves_no_transaction_open(database: Database, table: &str) {
    database.tasks(table, 1).await;
    for _ in 0..30 {
        let again = format!("insert into {table} values (1, 'again')");
        assert!(database.run(&again, ()).await.is_err());
        let returning = format!("update {table} set state = 'x' returning id, id as other, id as other");
        assert!(database.run(&returning, ()).await.is_err());
    }
    assert_eq!(database.states(table).await, ["new"]);
    let uri = format!("{}&output_type=one", database.uri(&format!("delete from {table} returning id")));
    let delete = database.router.producer(uri).unwrap();
    database.run(&format!("insert into {table} values (2, 'new')"), ()).await.unwrap();
    let error = delete.process(&mut Exchange::new(())).await.unwrap_err().to_string();
    assert!(error.contains("more than one row"), "{error}");
    assert_eq!(database.states(table).await, ["new", "new"], "nothing is deleted");
    // Nothing holds a lock.
    let other = Database::at(database.source.clone(), None);
    other.run(&format!("update {table} set state = 'other'"), ()).await.unwrap();
}

async fn composite_keys_settle_rows_and_generated_ones_are_returned(database: Database, table: &str) {
    let kind = if database.source.contains("sqlite:") { "integer" } else { "serial" };
    let columns = format!("a int, b text, n {kind} primary key, done boolean default false");
    database.run(&format!("create table {table} ({columns})"), ()).await.unwrap();
    let insert = format!("insert into {table} (a, b) values (:a, :b) returning n");
    for (n, (a, b)) in [(1, "x"), (1, "y"), (2, "x")].into_iter().enumerate() {
        let done = database.run(&insert, json!({ "a": a, "b": b })).await.unwrap();
        assert_eq!(done.message.body.json::<serde_json::Value>().unwrap()[0]["n"], json!(n + 1));
    }
    let route = from(format!(
        "sql:select a, b as \"Key\" from {table} where a = 1 and not done order by n?{}&initial_delay=0&delay=5\
         &on_consume=update {table} set done = true where a = :a and b = :Key",
        database.source
    ));
    database.run_route(route.to("mock:out"), database.mock.endpoint("out").wait_for(2)).await;
    let rows = database.rows(&format!("select done from {table} order by n")).await;
    assert_eq!(rows, json!([{ "done": true }, { "done": true }, { "done": false }]));
}

async fn parameters_in_texts_and_comments_are_none(database: Database, table: &str) {
    database.tasks(table, 1).await;
    let statement = format!(
        "select ':a' as a, '12:30' as b, 'it''s :c' as c, id as \"x:y\" /* :d it's */ from {table} -- :e\n\
         where state = :state"
    );
    let done = database.run(&statement, json!({ "state": "new" })).await.unwrap();
    assert_eq!(done.message.body.to_string(), r#"[{"a":":a","b":"12:30","c":"it's :c","x:y":1}]"#);
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn operators_with_question_marks_and_colons_of_postgres_work() {
    let database = Database::postgres();
    for (expression, expected) in [
        ("'{\"a\": 1}'::jsonb %3F 'a'", json!(true)),
        ("'{\"a\": 1}'::jsonb %3F:key", json!(true)),
        ("'{\"a\": 1}'::jsonb %3F%26 array['a', :key]", json!(true)),
        ("'{\"a\": 1}'::jsonb @%3F '$.a'", json!(true)),
        ("'{\"a\": {\"b\": 2}}'::jsonb #>> '{a,b}'", json!("2")),
        ("('{\"a\": 1}'::jsonb ->> :key)::int %2B 1", json!(2)),
        ("timestamp '2026-03-01 12:30:00' at time zone 'Europe/Berlin'", json!("2026-03-01T11:30:00Z")),
        ("to_char(timestamp '2026-03-01 12:30:00', 'HH24:MI')", json!("12:30")),
        ("make_date(year => 2026, month := 3, day => 1)", json!("2026-03-01")),
        ("$body$ :key ' $body$", json!(" :key ' ")),
    ] {
        let done = database.run(&format!("select {expression} as x"), json!({ "key": "a" })).await;
        let done = done.unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(done.message.body.json::<serde_json::Value>().unwrap()[0]["x"], expected, "{expression}");
    }
    let error = database.run("select jsonb_build_object('a', :key) as x", json!({ "key": 1 })).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("cannot tell the type of `:key` here: write `:key::text`"), "{error}");
}

#[test]
fn what_would_be_lost_or_left_open_is_refused() {
    let error = |uri: &str| {
        let built = RouterBuilder::new()
            .component(SqlComponent::default())
            .component(MockComponent::default())
            .route(from(format!("sql:{uri}")).to("mock:out"))
            .build();
        built.err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    for (statement, expected) in [
        ("begin?data_source=sqlite:x", "cannot begin or end one"),
        ("COMMIT?data_source=postgres://me@host/db", "cannot begin or end one"),
        ("set role x?data_source=postgres://me@host/db", "would set up only one of them"),
        ("attach 'y' as y?data_source=sqlite:x", "would set up only one of them"),
        ("create temp table y (a)?data_source=sqlite:x", "would set up only one of them"),
        ("pragma foreign_keys = off?data_source=sqlite:x", "would set up only one of them"),
        (
            "delete from x returning *?data_source=sqlite:x&max_messages_per_poll=5",
            "limit them in the statement",
        ),
    ] {
        let found = error(statement);
        assert!(found.contains(expected) && found.contains('^'), "{statement}: {found}");
    }
    for right in ["delete from x returning *", "pragma user_version", "pragma user_version = 5"] {
        assert_eq!(error(&format!("{right}?data_source=sqlite:x")), "", "{right}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn a_poll_of_a_table_that_is_changed_goes_on() {
    let database = Database::postgres();
    database.tasks("migrated", 1).await;
    let route = from(format!(
        "sql:select * from migrated where state = 'new'?{}&initial_delay=0&delay=5&max_messages_per_poll=9\
         &on_consume=update migrated set state = 'done' where id = :id",
        database.source
    ));
    let changed = async {
        database.all_settled("migrated").await;
        database.run("alter table migrated add column more text default 'x'", ()).await.unwrap();
        database.run("update migrated set state = 'new'", ()).await.unwrap();
        database.mock.endpoint("out").wait_for(2).await;
        while database.states("migrated").await != ["done"] {
            sleep(Duration::from_millis(5)).await;
        }
    };
    database.run_route(route.to("mock:out"), changed).await;
    let last = database.mock.endpoint("out").received()[1].message.body.json::<serde_json::Value>().unwrap();
    assert_eq!(last["more"], json!("x"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn an_exchange_that_is_dropped_leaves_no_transaction_open() {
    let other = Database::postgres();
    other.tasks("dropped", 1).await;
    let update = "update dropped set state = 'x' where state = 'none' returning id";
    let open = "select count(*) as n from pg_stat_activity where state like 'idle in transaction%' and \
                query = :query";
    let mut pools = Vec::new();
    for microseconds in (0..1_200).step_by(50) {
        // A connection that nothing else uses, and that is there already.
        let database = Database::postgres();
        database.rows("select 1 as x").await;
        let _ = timeout(Duration::from_micros(microseconds), database.run(update, ())).await;
        pools.push(database);
    }
    let begin = json!({ "query": "begin" });
    let patience = tokio::time::Instant::now() + Duration::from_secs(10);
    while other.run(open, begin.clone()).await.unwrap().message.body.to_string() != r#"[{"n":0}]"# {
        assert!(tokio::time::Instant::now() < patience, "a transaction is open");
        sleep(Duration::from_millis(20)).await;
    }
}
