//! Statements and their parameters, in `to`.

use std::path::Path;

use components::{DirectComponent, MockComponent, SqlComponent};
use router_core::builder::{IntoEndpoint, RouteBuilder, Steps, endpoint, from};
use router_core::cluster::backend::TermControl;
use router_core::cluster::{LockName, Member};
use router_core::exchange::Exchange;
use router_core::router::RouterBuilder;
use router_core::value::{Json, Number};
use serde_json::json;

use crate::support::Database;

for_both! {
    statements_read_their_parameters_and_say_what_they_have_done
    parameters_are_never_part_of_the_statement
    numbers_keep_their_digits
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
    assert_eq!(
        exchange.message.body.json::<serde_json::Value>().unwrap(),
        json!([{ "id": 3, "state": "it's" }])
    );
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
    assert!(one("id < 3").await.unwrap_err().contains("more than one row"));

    let changed = database.run(&format!("update {table} set state = 'x' where id < 3"), ()).await.unwrap();
    assert_eq!(changed.message.headers.get("sql.update_count"), Some(&2.into()));
    let deleted = database.rows(&format!("delete from {table} where id < 3 returning id")).await;
    assert_eq!(deleted.as_array().unwrap().len(), 2);
    let error = database.run(&insert, json!({ "name": 1 })).await.unwrap_err().to_string();
    assert!(error.contains("the parameter `:id`"), "{error}");
    let error = database.run("select :term", json!({ "term": 1 })).await.unwrap_err().to_string();
    assert!(error.contains("outside of routes with `master:`"), "{error}");
}

async fn numbers_keep_their_digits(database: Database, table: &str) {
    const LONG: [&str; 3] =
        ["123456789012345678901234567890.10", "0.1000000000000000055511151231257827", "1E2"];
    database.run(&format!("create table {table} (n text)"), ()).await.unwrap();
    let insert = format!("insert into {table} values (cast(:n as text))");
    for number in LONG {
        let text = format!(r#"{{"n": {number}}}"#);
        database.run(&insert, text.as_str()).await.unwrap();
        database.run(&insert, Json::parse(&text).unwrap()).await.unwrap();
        let mut exchange = Exchange::new(());
        exchange.message.headers.set("n", number.parse::<Number>().unwrap());
        database.producer(&insert).process(&mut exchange).await.unwrap();
    }
    let rows = database.rows(&format!("select n, count(*) as c from {table} group by n")).await;
    let mut found = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["n"].as_str().unwrap(), row["c"].as_i64().unwrap()))
        .collect::<Vec<_>>();
    found.sort_by_key(|(number, _)| LONG.iter().position(|long| long == number));
    assert_eq!(found, LONG.map(|number| (number, 3)));

    // Columns of numbers have as many digits as their database keeps, and no other ones.
    database.run(&format!("create table {table}_n (n numeric, i int)"), ()).await.unwrap();
    let insert = format!("insert into {table}_n (n) values (:n)");
    let sqlite = database.source.contains("sqlite:");
    for number in [LONG[0], LONG[1], "123456789012345678901234567890"] {
        let stored = database.run(&insert, format!(r#"{{"n": {number}}}"#)).await;
        if sqlite {
            let error = stored.unwrap_err().to_string();
            assert!(error.contains(number) && error.contains("cast(:n as text)"), "{error}");
        } else {
            stored.unwrap();
            let same = format!("select n::text as n from {table}_n where n::text = cast(:n as text)");
            let found = database.run(&same, format!(r#"{{"n": {number}}}"#)).await.unwrap();
            assert_eq!(found.message.body.to_string(), format!(r#"[{{"n":"{number}"}}]"#));
        }
    }
    // Others of the body do not matter, and these are whole.
    database.run(&format!("delete from {table}_n"), ()).await.unwrap();
    for kept in ["0.1", "9007199254740993", "-2.50", "\"5\"", "1E2"] {
        let body = format!(r#"{{"n": {kept}, "m": 12345678901234567.89}}"#);
        database.run(&insert, body).await.unwrap();
    }
    let rows =
        database.rows(&format!("select cast(n as text) as n from {table}_n order by {table}_n.n")).await;
    let found = rows.as_array().unwrap().iter().map(|row| row["n"].as_str().unwrap()).collect::<Vec<_>>();
    // PostgreSQL keeps the zero at the end.
    assert_eq!(found, [if sqlite { "-2.5" } else { "-2.50" }, "0.1", "5", "100", "9007199254740993"]);
    let insert = format!("insert into {table}_n (i) values (:i)");
    database.run(&insert, r#"{"i": 1E2}"#).await.unwrap();
    assert_eq!(database.rows(&format!("select i from {table}_n where i = 100")).await, json!([{ "i": 100 }]));
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
async fn a_database_in_memory_lasts_and_is_shared() {
    let database = Database::at("data_source=sqlite::memory:".into(), None);
    database.tasks("x", 2).await;
    assert_eq!(database.states("x").await, ["new", "new"]);
}

/// The errors of a URI.
fn errors(uri: impl IntoEndpoint) -> String {
    errors_of(from(uri).to("mock:out"))
}

fn errors_in_to(uri: impl IntoEndpoint) -> String {
    errors_of(from("direct:in").to(uri))
}

fn errors_of(route: RouteBuilder) -> String {
    let built = RouterBuilder::new()
        .component(SqlComponent::default())
        .component(MockComponent::default())
        .component(DirectComponent::default())
        .route(route)
        .build();
    built.err().map(|errors| errors.to_string()).unwrap_or_default()
}

#[test]
fn errors_point_at_the_characters() {
    let source = "data_source=sqlite:x.db";
    assert!(errors("sql:select 1").contains("needs a database"));
    assert!(errors(format!("sql:?{source}")).contains("needs a statement"));
    let two = errors(format!("sql:select%20:#a?{source}&on_consume=update x set a = $1"));
    assert!(two.contains("a parameter looks like `:name`") && two.contains("write `:name`"), "{two}");
    let shown = two.lines().filter(|line| line.contains("^")).map(|line| line.matches('^').count());
    assert_eq!(shown.collect::<Vec<_>>(), [2, 1], "{two}");
    let secret = errors("sql:select :#a?data_source=postgres://me:hunter2@host/db");
    assert!(secret.contains("cannot contain a password") && !secret.contains("hunter2"), "{secret}");
    assert!(errors("sql:select 1?data_source=oracle:x").contains("takes `sqlite:path`"));
    let source_of = "| sql:select 1?data_source=";
    let secret = errors("sql:select 1?data_source=postgres://me:hunter2@host/db&delya=1");
    assert!(secret.contains(&format!("{source_of}{}&delya=1\n", "*".repeat(29))), "{secret}");
    assert!(
        secret.contains("| ^^^^^^^^^^^\n".replace("| ", &format!("| {}", " ".repeat(13))).as_str()),
        "{secret}"
    );
    assert!(secret.contains("unknown option `delya`"), "all at once: {secret}");
    let empty = errors(endpoint("sql:").option("statement", "").option("data_source", "sqlite:x.db"));
    assert!(empty.contains("needs a statement") && !empty.contains("| sql:"), "{empty}");
    let both = errors_in_to("sql:select :1 from?data_source=mysql:x&output_type=two");
    assert!(both.contains("takes `sqlite:path`") && both.contains("takes one of list, one"), "{both}");
    let both = errors_in_to(format!("sql:select :1 from?{source}&output_type=two"));
    assert!(both.contains("looks like `:name`") && both.contains("takes one of list, one"), "{both}");
    let hidden = errors("sql:select 1?output_type=two&data_source=mysql://me:hunter2@host/db");
    assert!(hidden.contains("takes `sqlite:path`") && !hidden.contains("hunter2"), "{hidden}");
    for (place, expected) in [("/no/such/x.db", "no directory `/no/such`"), ("/tmp", "`/tmp` is a directory")]
    {
        let found = errors(format!("sql:select 1?data_source=sqlite:{place}"));
        let carets = "^".repeat("sqlite:".len() + place.len());
        assert!(found.contains(expected) && found.contains(&format!(" {carets}")), "{found}");
    }
    assert_eq!(errors_in_to(format!("sql:select * from x where a like 'a%25' and b = :b?{source}")), "");
}

#[test]
fn an_escape_in_a_quoted_text_is_one_that_is_meant() {
    let source = "data_source=sqlite:x.db";
    for (statement, written) in [
        ("delete from p where name not like '%bad%'", "%ba"),
        ("select * from p where name like '%41%'", "%41"),
        ("select * from p where name = '%27 or 1'", "%27"),
        ("select \"%c3%a4\" from p", "%c3"),
        ("select * from p where a = ':x' and b like '%20%25%2B' and c like '%deep'", "%de"),
    ] {
        let found = errors(format!("sql:{statement}?{source}"));
        let meant = format!("write `{}`", written.replace('%', "%25"));
        let named = found.contains(&format!("`{written}` is an escape")) && found.contains(&meant);
        assert!(named && found.contains("statement = '...'"), "{statement}: {found}");
        let marked = found.lines().find(|line| line.contains('^')).unwrap();
        assert_eq!(marked.matches('^').count(), 3, "{found}");
        // In a table, it is what it is.
        let table = endpoint("sql:").option("data_source", "sqlite:x.db").option("statement", statement);
        assert_eq!(errors_in_to(table), "", "{statement}");
    }
    for (option, meant) in [("a = '1+1'", "`%2B` or `%20`"), ("a = '%41'", "`%2541`")] {
        let found = errors(format!("sql:select 1?{source}&on_consume=update x set {option}"));
        assert!(found.contains(meant) && found.contains("on_consume = '...'"), "{option}: {found}");
    }
    for statement in [
        "select '100%25', 'a%3Fb', '%26', '%23', 'a%2Bb', 'a%2bb', 'a%20b', '100%', '%x', '50% off'",
        "select%20*%20from%20p%20where%20a%20%3E%201 -- %41",
    ] {
        let uri = format!(
            "sql:{statement}?{source}&on_consume=update x set a = 1 %2B 1, b = '50%25'+where+c='%20'"
        );
        assert_eq!(errors(uri), "");
    }
}

#[test]
fn every_example_of_the_docs_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let pages = std::fs::read_dir(root.join("docs/src")).unwrap().map(|page| page.unwrap().path());
    let others = ["README.md", "components/src/sql.rs", "examples/nightly.toml", "examples/nightly.rs"];
    let mut examples = 0;
    for file in pages.chain(others.map(|other| root.join(other))) {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines().map(|line| line.trim_start_matches("//!").trim()) {
            // A URI, up to the quote that ends it, or a table.
            let uri =
                line.find("sql:").map(|start| &line[start..]).filter(|uri| uri.contains("?data_source="));
            if let Some(uri) = uri {
                let uri = uri.split(['"', '`']).next().unwrap();
                let found = [errors(uri.to_owned()), errors_in_to(uri.to_owned())];
                assert!(found.iter().any(String::is_empty), "{}: {uri}: {found:?}", file.display());
                examples += 1;
            }
            let value = |key: &str| line.split_once(&format!("{key} = \""))?.1.split('"').next();
            if let (Some(statement), Some(_)) = (value("statement"), value("data_source")) {
                let table =
                    endpoint("sql:").option("data_source", "sqlite:x.db").option("statement", statement);
                assert_eq!(errors_in_to(table), "", "{}: {statement}", file.display());
                examples += 1;
            }
        }
    }
    assert!(examples >= 8, "only {examples} examples were found");
}
