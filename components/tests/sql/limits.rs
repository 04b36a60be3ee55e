//! What is read into memory has a limit.

use components::SqlComponent;
use router_core::builder::Steps;
use router_core::error::BoxError;
use router_core::exchange::Exchange;
use router_core::failure::ErrorKind;
use router_core::router::{Router, RouterBuilder};
use router_core::spool::SpoolSettings;

use crate::support::Database;

for_both! {
    rows_that_become_one_body_are_an_error_where_they_are_too_large
    a_row_that_is_too_large_fails_alone
    json_that_is_refused_is_no_text_without_fields
}

fn small() -> SpoolSettings {
    SpoolSettings { memory_limit: 2_000, ..SpoolSettings::default() }
}

async fn rows_that_become_one_body_are_an_error_where_they_are_too_large(database: Database, table: &str) {
    database.tasks(table, 250).await;
    let router = RouterBuilder::new().component(SqlComponent::default()).spool(small()).build().unwrap();
    let run = async |router: &Router, statement: &str| {
        let mut exchange = Exchange::new("before");
        let done = router.producer(database.uri(statement)).unwrap().process(&mut exchange).await;
        (exchange.message.body, done)
    };
    for statement in [
        format!("select id, state from {table}"),
        // What it has changed is undone.
        format!("update {table} set state = 'changed' returning id, state"),
    ] {
        let (body, done) = run(&router, &statement).await;
        let error = done.unwrap_err();
        assert_eq!(ErrorKind::of(&*error), ErrorKind::Data, "{error}");
        let text = router_core::error::Chain(&*error).to_string();
        assert!(text.contains("the rows have more than 2000 bytes (`body.memory_limit`)"), "{text}");
        assert_eq!(body.to_string(), "before");
        assert_eq!(database.states(table).await, ["new"; 250]);
    }
    // Some of them have room, and so have all with the default.
    let (body, done) = run(&router, &format!("select id, state from {table} where id < 20")).await;
    assert!(done.is_ok() && body.len() < 2_000);
    assert_eq!(database.rows(&format!("select id, state from {table}")).await.as_array().unwrap().len(), 250);
}

async fn json_that_is_refused_is_no_text_without_fields(database: Database, table: &str) {
    database.tasks(table, 2).await;
    let strict = SpoolSettings { unique_keys: true, ..SpoolSettings::default() };
    let strict = RouterBuilder::new().component(SqlComponent::default()).spool(strict).build().unwrap();
    let lenient = RouterBuilder::new().component(SqlComponent::default()).build().unwrap();
    let run = async |router: &Router, statement: &str, body: &str| {
        let mut exchange = Exchange::new(body);
        // What counts where the body has no fields.
        exchange.message.headers.set("id", 1);
        let done = router.producer(database.uri(statement)).unwrap().process(&mut exchange).await;
        let text =
            |error: &BoxError| (ErrorKind::of(&**error), router_core::error::Chain(&**error).to_string());
        done.map(|()| exchange.message.body.to_string()).map_err(|error| text(&error))
    };
    let select = format!("select id from {table} where id = :id");
    let deep = format!("{{\"id\": 2, \"x\": {}{}}}", "[".repeat(200), "]".repeat(200));
    let twice = r#"{"id": 3, "id": 2}"#;
    for statement in [select.clone(), format!("select id from {table} where id in (:body)")] {
        let list = statement.contains(":body");
        let body = if list { r#"[{"a": 1, "a": 2}]"# } else { twice };
        let (kind, text) = run(&strict, &statement, body).await.unwrap_err();
        let key = if list { "a" } else { "id" };
        assert!(text.contains(&format!("the key `{key}` stands twice in an object")), "{text}");
        assert_eq!(kind, ErrorKind::Data);
    }
    let (kind, text) = run(&lenient, &select, &deep).await.unwrap_err();
    assert!(kind == ErrorKind::Data && text.contains("nested too deep"), "{text}");
    assert_eq!(run(&lenient, &select, twice).await.unwrap(), r#"[{"id":2}]"#);
    assert_eq!(run(&strict, &select, "no json").await.unwrap(), r#"[{"id":1}]"#);
    if database.source.contains("postgres") {
        let column =
            r#"select cast('{"a": 1, "a": 2}' as json) as c, cast('[{"b": 1, "b": 2}]' as jsonb) as d"#;
        assert_eq!(run(&lenient, column, "").await.unwrap(), r#"[{"c":{"a":2},"d":[{"b":2}]}]"#);
        let (_, text) = run(&strict, column, "").await.unwrap_err();
        assert!(text.contains("column `c` cannot be read: the key `a` stands twice"), "{text}");
    }
}

async fn a_row_that_is_too_large_fails_alone(database: Database, table: &str) {
    for limit in ["", "&max_messages_per_poll=2"] {
        database.run(&format!("drop table if exists {table}"), ()).await.unwrap();
        database.tasks(table, 4).await;
        let large = "x".repeat(3_000);
        database.run(&format!("update {table} set state = '{large}' where id = 2"), ()).await.unwrap();
        let route = router_core::builder::from(format!(
            "sql:select state, id from {table} where state <> 'done' and state <> 'failed' order by id?{}\
             &initial_delay=0&delay=5&on_consume=update {table} set state = 'done' where id = :id\
             &on_consume_failed=update {table} set state = 'failed' where id = :id{limit}",
            database.source
        ));
        let router =
            database.builder().spool(small()).route(route.id("poll").to("mock:out")).build().unwrap();
        let settled = async {
            while !database.states(table).await.iter().all(|state| matches!(&**state, "done" | "failed")) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let until = router.run_until(settled);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(20), until).await.unwrap();
        assert_eq!(database.states(table).await, ["done", "failed", "done", "done"], "{limit}");
    }
    assert_eq!(database.received_ids(), [1, 3, 4, 1, 3, 4]);
}
