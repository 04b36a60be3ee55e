//! A value that is compared is compared as what it is, or is an error: one body does the same in both databases.

use components::SqlComponent;
use router_core::exchange::{Body, Exchange};
use router_core::router::RouterBuilder;
use serde_json::{Value, json};

use crate::support::Database;

for_both! {
    a_value_beside_a_column_is_read_as_the_column_is_declared
    a_value_of_another_type_is_an_error_in_both
    a_truth_value_is_one_in_both
    a_value_beside_an_expression_is_cast
    ordinary_statements_need_no_cast
}

/// How many rows of the table meet the condition, or the error.
async fn count(database: &Database, table: &str, condition: &str, body: Value) -> Result<i64, String> {
    let done = database.run(&format!("select count(*) as total from {table} where {condition}"), body).await;
    done.map(|done| done.message.body.json::<Value>().unwrap()[0]["total"].as_i64().unwrap())
        .map_err(|error| error.to_string())
}

async fn people(database: &Database, table: &str) {
    let columns = "id integer, name text, height real, born date";
    database.run(&format!("create table {table} ({columns})"), ()).await.unwrap();
    let insert = format!("insert into {table} values (:id, :name, :height, :born)");
    for (id, name, height, born) in
        [(5, "Ada", 1.5, "1815-12-10"), (9, "10", 1.75, "1912-06-23"), (10, "05", 2.0, "1999-12-31")]
    {
        let row = json!({ "id": id, "name": name, "height": height, "born": born });
        database.run(&insert, row).await.unwrap();
    }
}

async fn a_value_beside_a_column_is_read_as_the_column_is_declared(database: Database, table: &str) {
    people(&database, table).await;
    for (condition, value, expected) in [
        ("id = :x", json!("5"), 1),
        ("id = :x", json!(5), 1),
        (":x = id", json!("05"), 1),
        ("id > :x", json!("9"), 1),
        (":x < id", json!("9"), 1),
        ("id <> :x", json!("5"), 2),
        ("(id) = (:x)", json!("5"), 1),
        ("id between :x and 9", json!("6"), 1),
        (":x between id and height", json!("6"), 0),
        ("id in (:x)", json!(["5", 9]), 2),
        ("id in (10, :x)", json!("5"), 2),
        ("id not in (:x)", json!(["5", "9"]), 1),
        ("id is distinct from :x", json!("5"), 2),
        ("height < :x", json!("1.6"), 1),
        ("name = :x", json!("5"), 0),
        ("name = :x", json!("05"), 1),
        ("name = :x", json!(10), 1),
        ("name > :x", json!("1"), 2),
        ("name < :x", json!(9), 2),
        ("name in (:x)", json!(["05", "Ada"]), 2),
        ("name not in (:x)", json!([10]), 2),
        ("born > :x", json!("1900-01-01"), 2),
        ("born = :x", json!("1815-12-10"), 1),
        ("id = :x", json!(null), 0),
        ("id = coalesce(:x, id)", json!("5"), 1),
        ("id = coalesce(:x, id)", json!(null), 3),
    ] {
        let found = count(&database, table, condition, json!({ "x": value })).await;
        assert_eq!(found, Ok(expected), "{condition} {value}");
    }
    for (condition, value) in [
        ("id = :x", json!("abc")),
        ("id < :x", json!("abc")),
        (":x > id", json!("")),
        ("id not in (:x)", json!("1,2")),
        ("id not in (:x)", json!([1, "two"])),
        ("id not in (1, :x)", json!("two")),
        ("id between 1 and :x", json!("abc")),
        ("id <> :x", json!({ "a": 1 })),
        ("id <> :x", json!("5 or 1=1")),
        ("height > :x", json!("tall")),
        ("born > :x", json!("2026")),
        ("born <> :x", json!("15")),
        ("id = coalesce(:x, id)", json!("abc")),
    ] {
        let found = count(&database, table, condition, json!({ "x": value })).await;
        assert!(found.is_err(), "{condition} {value}: {found:?}");
    }
}

async fn a_value_of_another_type_is_an_error_in_both(database: Database, table: &str) {
    people(&database, table).await;
    let no_whole =
        [json!(1.5), json!("1.5"), json!("1.0"), json!("1e2"), json!("0x10"), json!(true), json!("abc")];
    for value in &no_whole {
        for statement in [
            "select count(*) as n from {} where id = :x",
            "select count(*) as n from {} where id <> :x",
            "select count(*) as n from {} where id in (:x)",
            "select count(*) as n from {} where cast(height as integer) < :x",
            "select count(*) as n from {} where id > cast(:x as integer)",
            "insert into {} (id) values (:x)",
            "insert into {} values (:x, 'a', 1, null)",
            "update {} set id = :x",
        ] {
            let statement = statement.replace("{}", table);
            for body in [json!({ "x": value }), json!({ "x": [1, value] })] {
                if body["x"].is_array() && !statement.contains(" in ") {
                    continue;
                }
                let error =
                    database.run(&statement, body.clone()).await.map(|done| done.message.body.to_string());
                let error = error.expect_err(&format!("{statement} {body}")).to_string();
                assert!(error.contains("`:x` "), "{statement} {body}: {error}");
            }
        }
    }
    for value in [json!(true), json!("abc")] {
        let insert = format!("insert into {table} (height) values (:x)");
        assert!(database.run(&insert, json!({ "x": value })).await.is_err(), "{value}");
        let found = count(&database, table, "height > :x", json!({ "x": value })).await;
        assert!(found.is_err(), "{value}: {found:?}");
    }
    assert_eq!(database.rows(&format!("select count(*) as n from {table}")).await, json!([{ "n": 3 }]));
    // Beyond what an `integer` of PostgreSQL holds.
    let long = 9_007_199_254_740_993_i64;
    for (condition, value, expected) in [
        ("id < :x", json!(long), 3),
        ("id = :x", json!(long), 0),
        ("id > :x", json!((-long).to_string()), 3),
        ("id in (:x)", json!([5, long]), 1),
        ("id not in (:x)", json!([long.to_string(), 5]), 2),
        ("id = :x", json!(5.0), 1),
    ] {
        assert_eq!(
            count(&database, table, condition, json!({ "x": value })).await,
            Ok(expected),
            "{condition}"
        );
    }
}

async fn a_truth_value_is_one_in_both(database: Database, table: &str) {
    database.run(&format!("create table {table} (name text, flag boolean)"), ()).await.unwrap();
    let insert = format!("insert into {table} (name, flag) values (:name, :flag)");
    for flag in [json!(true), json!("true"), json!("T"), json!("off"), json!(1), json!(false)] {
        database.run(&insert, json!({ "name": true, "flag": flag })).await.unwrap();
    }
    for flag in [json!(2), json!("maybe"), json!("o"), json!(0.5)] {
        assert!(database.run(&insert, json!({ "name": "x", "flag": flag })).await.is_err(), "{flag}");
        let found = count(&database, table, "flag = :x", json!({ "x": flag })).await;
        assert!(found.is_err(), "{flag}: {found:?}");
    }
    for (condition, value, expected) in [
        ("flag = :x", json!(true), 4),
        ("flag = :x", json!("true"), 4),
        ("flag = :x", json!(0), 2),
        ("flag in (:x)", json!(["no", false]), 2),
        ("name = :x", json!(true), 6),
        ("name = :x", json!("true"), 6),
        ("name in (:x)", json!([true]), 6),
        ("name = lower(:x)", json!(true), 6),
        ("name = cast(:x as text)", json!(true), 6),
    ] {
        assert_eq!(
            count(&database, table, condition, json!({ "x": value })).await,
            Ok(expected),
            "{condition} {value}"
        );
    }
}

async fn a_value_beside_an_expression_is_cast(database: Database, table: &str) {
    people(&database, table).await;
    for (condition, value, expected) in [
        ("cast(:x as integer) > id + 0", json!("9"), 1),
        ("id + 0 < cast(:x as integer)", json!("9"), 1),
        ("cast(id + 0 as integer) < :x", json!("9"), 1),
        (":x = cast(id + 0 as integer)", json!("9"), 1),
        ("length(name) > cast(:x as integer)", json!("2"), 1),
        ("lower(name) = cast(:x as text)", json!(10), 1),
        ("lower(name) > cast(:x as text)", json!("1"), 2),
        ("cast(lower(name) as text) in (:x)", json!(["ada", "10"]), 2),
        ("cast(:x as integer) between 4 and 5", json!("5"), 3),
        ("case cast(:x as integer) when 2 then true else false end", json!("2"), 3),
        ("coalesce(cast(:x as integer), 0) > id + 0", json!("10"), 2),
        ("lower(name) = lower(:x)", json!("ADA"), 1),
        ("length(name) > cast(trim(:x) as integer)", json!(" 2 "), 1),
        ("id + 0 > cast(:x as integer) + 0", json!("9"), 1),
    ] {
        let found = count(&database, table, condition, json!({ "x": value })).await;
        assert_eq!(found, Ok(expected), "{condition} {value}");
    }
}

async fn ordinary_statements_need_no_cast(database: Database, table: &str) {
    people(&database, table).await;
    let body = json!({
        "id": "5", "name": "Eve", "d": "2", "n": 1, "like": "%d%", "ids": ["5", "9"], "none": null, "height": "1.25",
    });
    for statement in [
        "select * from {} t where t.id = :id and name like :like order by name limit :n offset :n",
        "insert into {} (id, name, height) values (:id, :name, :height), (7, coalesce(:none, :name), :height)",
        "insert into {} (id, name) select :d, :name where not exists (select 1 from {} where id = :d)",
        "update {} set name = :name, height = height + :d where id = :id",
        "update {} set name = case when id > :d then :name else name end where id in (:ids)",
        "update {} set name = name || ' ' || :name where :none is null or id = :id",
        "delete from {} where id not in (:ids) and name <> :name and height > :height returning id",
        "select id as id, count(*) as n from {} group by id having count(*) > cast(:n as integer)",
        "with x as (select id from {} where id = :id) select * from x where x.id = :id",
    ] {
        let statement = statement.replace("{}", table);
        database.run(&statement, body.clone()).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    let negative = format!("update {table} set height = height + :d");
    for no_number in ["two", "5abc", ""] {
        assert!(database.run(&negative, json!({ "d": no_number })).await.is_err(), "{no_number}");
    }
}

/// The errors of a statement that come before anything runs.
fn refused(statement: &str) -> String {
    let router = RouterBuilder::new().component(SqlComponent::default()).build().unwrap();
    let built = router.producer(format!("sql:{statement}?data_source=sqlite:x.db"));
    built.err().map(|errors| errors.to_string()).unwrap_or_default()
}

#[test]
fn a_comparison_without_a_type_is_an_error_that_marks_the_parameter() {
    for condition in [
        ":x > id %2B 0",
        ":x = id %2B 0",
        "length(name) < :x",
        "id %2B 0 is not :x",
        ":x not in (select id %2B 0 from t)",
        "case :x when 2 then 1 end",
        "iif(:x > 10, 1, 0)",
        "1 > min(:x,10)",
        ":x between 1 and 3",
        "5 < coalesce(:x,0)",
        "lower(name) = :x collate nocase",
        "(:x) = (length(name))",
    ] {
        let found = refused(&format!("delete from t where {condition}"));
        assert!(found.contains("write `cast(:x as integer)` or `cast(:x as text)`"), "{condition}: {found}");
        assert!(found.lines().any(|line| line.contains("^^") && !line.contains("^^^")), "{found}");
    }
    assert_eq!(refused("delete from t where length(name) < cast(:x as integer)"), "");
}

#[tokio::test]
async fn a_column_of_sqlite_without_a_type_needs_a_cast() {
    let database = Database::sqlite();
    database.run("create table x (n, any_ blob, kind string, on_ boolean, made datetime)", ()).await.unwrap();
    database.run("create table other (n integer)", ()).await.unwrap();
    let insert = "insert into x values (5, '5', 'a1', 1, '2026-03-01'), ('5', 5, 7, 0, '2026-03-02')";
    database.run(insert, ()).await.unwrap();
    for (condition, value) in [
        ("n > :x", json!("5")),
        ("n = :x", json!(5)),
        ("n = :x", json!("5")),
        (":x <> n", json!("5")),
        ("n not in (:x)", json!([5])),
        ("any_ = :x", json!("5")),
        ("on_ = :x", json!("maybe")),
        ("made > :x", json!("2026")),
        ("cast(n as blob) = :x", json!("5")),
        ("x.n = :x and exists (select 1 from other)", json!("5")),
    ] {
        let error = count(&database, "x", condition, json!({ "x": value })).await.unwrap_err();
        assert!(error.contains("write `cast(:x as integer)` or `cast(:x as text)`"), "{condition}: {error}");
    }
    for (condition, value, expected) in [
        ("n = cast(:x as integer)", json!("5"), 2),
        // Texts alone: the column converts nothing.
        ("n = cast(:x as text)", json!(5), 1),
        ("n = :x", json!(null), 0),
        ("kind = :x", json!("a1"), 1),
        ("kind = :x", json!("07"), 1),
        ("on_ = :x", json!(true), 1),
        ("made > :x", json!("2026-03-01"), 1),
        ("rowid = :x", json!("1"), 1),
    ] {
        let found = count(&database, "x", condition, json!({ "x": value })).await;
        assert_eq!(found, Ok(expected), "{condition} {value}");
    }
    // Bytes are no text.
    let mut exchange = Exchange::new(bytes::Bytes::from_static(b"a1"));
    let error =
        database.producer("delete from x where kind <> :body").process(&mut exchange).await.unwrap_err();
    assert!(error.to_string().contains("not compared with bytes"), "{error}");
}

#[tokio::test]
async fn a_number_of_more_digits_than_sqlite_keeps_is_an_error() {
    let database = Database::sqlite();
    database.run("create table x (id integer, name text, free string)", ()).await.unwrap();
    for (statement, value) in [
        ("insert into x (id) values (:x)", "123456789012345678901234567890"),
        ("insert into x (id) values (:x)", "9223372036854775808"),
        ("insert into x(name, id) values ('a', :x)", "9223372036854775808"),
        ("insert into x values (:x, :x, :x)", "9223372036854775808"),
        ("update x set id = :x", "12345678901234567.89"),
        ("insert into x (free) values (:x)", "15E2621"),
        ("insert into x (id) select :x", "9223372036854775808"),
    ] {
        let error = database.run(statement, json!({ "x": value })).await.unwrap_err().to_string();
        assert!(error.contains("more digits than SQLite keeps"), "{statement}: {error}");
    }
    let kept = "123456789012345678901234567890";
    database.run("insert into x (name) values (:x)", json!({ "x": kept })).await.unwrap();
    database.run("insert into x(name) values (cast(:x as text))", json!({ "x": kept })).await.unwrap();
    database.run("insert into x (id) values (:x)", json!({ "x": "9223372036854775807" })).await.unwrap();
    let digits = Body::from(r#"{"x":12345678901234567890.50}"#);
    database.producer("insert into x (name) values (:x)").process(&mut Exchange::new(digits)).await.unwrap();
    let rows = database.rows("select id, name from x").await;
    let expected = json!([
        { "id": null, "name": kept },
        { "id": null, "name": kept },
        { "id": i64::MAX, "name": null },
        { "id": null, "name": "12345678901234567890.50" },
    ]);
    assert_eq!(rows, expected);
}

/// What a condition found with a value, for a table of three rows.
async fn found(database: &Database, condition: &str, value: &Value) -> Result<i64, String> {
    count(database, "p", condition, json!({ "x": value })).await
}

async fn exact_numbers(database: &Database) {
    let columns = "id integer, name text, n numeric, r real, free string";
    database.run(&format!("create table p ({columns})"), ()).await.unwrap();
    let rows = "(9007199254740992, 'a', 1e23, 0.1, 1e23), (9223372036854775807, 'bb', 0, 5, 'x'), (5, 'ccc', 5, 7, 5)";
    database.run(&format!("insert into p values {rows}"), ()).await.unwrap();
}

#[tokio::test]
async fn a_number_that_sqlite_would_compare_as_another_one_is_an_error() {
    let database = Database::sqlite();
    exact_numbers(&database).await;
    for (condition, value) in [
        ("id = :x", json!("9007199254740992.5")),
        ("id in (:x)", json!(["9007199254740992.5"])),
        ("id in (1, :x)", json!("9007199254740992.5")),
        ("id between 1 and :x", json!("9007199254740992.5")),
        ("cast(id as integer) = :x", json!("9007199254740992.5")),
        ("n = :x", json!("99999999999999999999999")),
        ("n = coalesce(:x, 1)", json!("99999999999999999999999")),
        ("r = :x", json!("0.1000000000000000000001")),
        ("r in (:x)", json!(["0.1000000000000000000001"])),
        ("r < :x", json!("1e400")),
        ("free = :x", json!("99999999999999999999999")),
        ("id + 0 < cast(5 as integer) + :x", json!("9223372036854775808")),
    ] {
        let error = found(&database, condition, &value).await.unwrap_err();
        assert!(error.contains("as text)`"), "{condition} {value}: {error}");
    }
    for (condition, value, expected) in [
        ("id = :x", json!("9007199254740992"), 1),
        ("id = :x", json!("9223372036854775807"), 1),
        ("n = :x", json!("1e23"), 1),
        ("r = :x", json!("0.10"), 1),
        ("r = :x", json!(" +.1"), 1),
        ("free = :x", json!("5.0"), 1),
        ("r in (:x)", json!(["0.1", "5."]), 2),
    ] {
        assert_eq!(found(&database, condition, &value).await, Ok(expected), "{condition} {value}");
    }
}

#[tokio::test]
async fn a_table_that_was_changed_has_other_types() {
    let database = Database::sqlite();
    let by_id = database.producer("select id from p where id = :x");
    let find = async || {
        let mut exchange = Exchange::new(json!({ "x": "abc" }));
        by_id.process(&mut exchange).await.map_err(|error| error.to_string())
    };
    for (kind, is_right) in [("integer", false), ("integer", false), ("text", true), ("real", false)] {
        database.run("drop table if exists p", ()).await.unwrap();
        database.run(&format!("create table p (id {kind})"), ()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(find().await.is_ok(), is_right, "{kind}");
        }
    }
}

#[tokio::test]
async fn a_cast_of_what_is_no_such_number_is_an_error() {
    let database = Database::sqlite();
    exact_numbers(&database).await;
    for (condition, value) in [
        ("length(name) > cast(:x as integer)", json!("abc")),
        ("length(name) > cast(trim(:x) as integer)", json!("abc")),
        ("length(name) > cast(:x as integer)", json!("1,5")),
        ("length(name) > cast(:x as integer)", json!("1.5")),
        ("length(name) > cast(:x as integer)", json!("1e2")),
        ("length(name) > cast(:x as integer)", json!("")),
        ("length(name) > cast(:x as integer)", json!([1])),
        ("length(name) > cast(:x as bigint)", json!(1.5)),
        ("id = cast(:x as integer)", json!("9223372036854775808")),
        ("id = CAST ( :x AS integer )", serde_json::from_str("9223372036854775808").unwrap()),
        ("r > cast(:x as real)", json!("abc")),
        ("r > cast(:x as real)", json!("1,5")),
        ("r > cast(:x as double precision)", json!("0.1000000000000000000001")),
        ("n > cast(:x as numeric)", json!("5 or 1")),
        ("n > cast(:x as decimal(9, 2))", json!("99999999999999999999999")),
        // Which SQLite takes for a number.
        ("n > cast(:x as date)", json!("2026-03-01")),
        ("n > cast(:x as boolean)", json!("true")),
    ] {
        let error = found(&database, condition, &value).await.unwrap_err();
        assert!(error.contains("would make another one of it"), "{condition} {value}: {error}");
    }
    for (condition, value, expected) in [
        ("length(name) > cast(:x as integer)", json!("2"), 1),
        ("length(name) > cast(:x as integer)", json!(" +2 "), 1),
        ("length(name) > cast(:x as integer)", json!(2.0), 1),
        ("length(name) > cast(:x as integer)", json!(null), 0),
        ("id = cast(:x as integer)", json!("9223372036854775807"), 1),
        ("id < cast(:x as integer)", serde_json::from_str("1E2").unwrap(), 1),
        ("r = cast(:x as real)", json!("0.1"), 1),
        ("n = cast(:x as numeric)", json!("1e23"), 1),
        ("name = cast(:x as text)", json!("a"), 1),
    ] {
        assert_eq!(found(&database, condition, &value).await, Ok(expected), "{condition} {value}");
    }
}

#[tokio::test]
async fn a_text_that_is_made_of_a_parameter_is_compared_with_no_number() {
    let database = Database::sqlite();
    exact_numbers(&database).await;
    for (condition, value) in [
        ("id < lower(:x)", json!("abc")),
        ("id in (substr(:x, 1, 2))", json!("1x")),
        ("r > trim(:x)", json!("0")),
    ] {
        let error = found(&database, condition, &value).await.unwrap_err();
        assert!(error.contains("a text that is made of `:x` cannot be compared"), "{condition}: {error}");
    }
    for (condition, value, expected) in [
        ("name = lower(:x)", json!("BB"), 1),
        ("cast(id as text) = substr(:x, 1, 19)", json!("9223372036854775807x"), 1),
        ("lower(name) = lower(:x)", json!("CcC"), 1),
        ("name = :x || 'b'", json!("b"), 1),
        ("name like '%' || :x || '%'", json!("b"), 1),
        ("(name like '%' || lower(:x) || '%') and length(name) > 1", json!("B"), 1),
        ("'x' || name = 'x' || :x", json!("a"), 1),
        ("name in (lower(:x), 'a')", json!("BB"), 2),
        ("lower(name) not in (lower(:x))", json!("a"), 2),
        ("name = coalesce(lower(:x), 'a')", json!("CCC"), 1),
        ("name = (select lower(:x))", json!("BB"), 1),
        ("name = case when length(:x) > 1 then lower(:x) else 'a' end", json!("BB"), 1),
    ] {
        assert_eq!(found(&database, condition, &value).await, Ok(expected), "{condition} {value}");
    }
}

#[tokio::test]
async fn what_is_stored_in_a_number_column_is_one() {
    let database = Database::sqlite();
    database.run("create table s (n integer, f real, d numeric, b boolean, t text)", ()).await.unwrap();
    database.run("insert into s values (1, 1, 1, 1, 'a')", ()).await.unwrap();
    let long = json!("12345678901234567890.50");
    for (statement, value, expected) in [
        ("insert into s (d) values (cast(:x as text))", &long, "in a column of the type text"),
        ("update s set d = cast(:x as text)", &long, "in a column of the type text"),
        ("insert into s (d) select cast(:x as text)", &long, "in a column of the type text"),
        ("insert into s (d) values (:x)", &long, "in a column of the type text"),
        ("update s set n = cast(:x as text)", &json!("abc"), "whole numbers"),
        ("update s set (t, n) = ('a', :x)", &json!("abc"), "whole numbers"),
        ("update s set (n, t) = (:x, 'a')", &json!("1.5"), "whole numbers"),
        ("update s set (n) = (:x)", &json!("1.5"), "whole numbers"),
        ("insert into s (t, n) select 'a', :x", &json!("abc"), "whole numbers"),
        ("insert into s select :x, 1, 1, 1, 'a'", &json!("abc"), "whole numbers"),
        ("insert into s as u (t, n) select distinct 'a', :x from s", &json!("abc"), "whole numbers"),
        ("with w as (select 1) insert into s (n) select :x from w", &json!("abc"), "whole numbers"),
        ("update s set n = trim(:x)", &json!("abc"), "is made of `:x`"),
        ("update s set n = lower(trim(:x))", &json!("abc"), "is made of `:x`"),
        ("update s set n = :x || ''", &json!("abc"), "is made of `:x`"),
        ("update s set (t, f) = ('a', replace(:x, 'a', 'b'))", &json!("abc"), "is made of `:x`"),
        ("update s set f = coalesce(lower(:x), 1)", &json!("abc"), "is made of `:x`"),
        ("update s set d = json_extract(:x, '$.a')", &json!({ "a": "abc" }), "is made of `:x`"),
        ("update s set b = :x ->> 'a'", &json!({ "a": "abc" }), "is made of `:x`"),
        ("insert into s (n) values (lower(:x))", &json!("abc"), "is made of `:x`"),
        (
            "insert into s values (1, 1, 1, 1, 'a'), (lower(:x), 1, 1, 1, 'a')",
            &json!("abc"),
            "is made of `:x`",
        ),
        ("insert into s (t, n) select 'a', lower(:x)", &json!("abc"), "is made of `:x`"),
    ] {
        let done = database.run(statement, json!({ "x": value })).await.map(drop);
        let error = done.expect_err(statement).to_string();
        assert!(error.contains(expected), "{statement}: {error}");
    }
    assert_eq!(
        database.rows("select count(*) as c, typeof(n) as n from s").await,
        json!([{ "c": 1, "n": "integer" }])
    );
    for (statement, value) in [
        ("update s set t = cast(:x as text), n = 2", &long),
        ("update s set n = cast(:x as text)", &json!("3")),
        ("update s set (n, t) = (:x, lower(:x))", &json!("4")),
        ("update s set b = cast(:x as text)", &json!("true")),
        ("update s set n = cast(trim(:x) as integer)", &json!(" 5 ")),
        ("update s set t = json_extract(:x, '$.a')", &json!({ "a": "abc" })),
        ("insert into s (t, n) select lower(:x), :x", &json!("6")),
        ("insert into s select *  from (select 7, 1, 1, 1, 'a') where :x is null", &json!(null)),
    ] {
        let done = database.run(statement, json!({ "x": value })).await.map(drop);
        assert!(done.is_ok(), "{statement}: {done:?}");
    }
    assert_eq!(
        database.rows("select n, b, t from s order by n").await,
        json!([{ "n": 5, "b": true, "t": "abc" }, { "n": 6, "b": null, "t": "6" }, { "n": 7, "b": true, "t": "a" }])
    );
}

#[tokio::test]
async fn what_json_has_is_compared_with_no_number() {
    for statement in [
        "delete from p where id not in (select value from json_each(:x))",
        "delete from p where id not in (select j.value from json_each(:x) as j)",
        "delete from p where id not in (select atom from json_tree(:x))",
        "delete from p where id not in (select * from json_each(:x))",
        "delete from p where id not in (select cast(value as integer) from json_each(:x))",
        "delete from p where length(name) not in (select value from json_each(:x))",
        "delete from p where exists (select 1 from json_each(:x) where value <> p.id)",
        "select p.id from p join json_each(:x) j on p.id < j.value",
        "select p.id from p join json_each(:x) j on p.id < j.value -> 'a'",
        "select p.id from p, json_each(:x) where p.id between value and 5",
        "delete from p where cast(id as integer) < json_extract(:x, '$.a')",
        "update p set id = id %2B json_extract(:x, '$.a')",
    ] {
        let found = refused(statement);
        assert!(found.contains("write `") && found.contains('^'), "{statement}: {found}");
    }
    for statement in [
        "select value as id from json_each(:x)",
        "delete from p where name not in (select cast(value as text) from json_each(:x))",
        "delete from p where cast(id as text) not in (select cast(value as text) from json_each(:x) where value is not null)",
        "delete from p where id in (:x)",
        "select value, key from json_each(:x) where key > 1",
    ] {
        assert_eq!(refused(statement), "");
    }
    let database = Database::sqlite();
    people(&database, "p").await;
    for condition in
        ["id < json_extract(:x, '$.a')", "id <> :x ->> '$.a'", "height < json_extract(:x, '$.a')"]
    {
        let error = count(&database, "p", condition, json!({ "x": { "a": "abc" } })).await.unwrap_err();
        assert!(error.contains("is made of `:x`"), "{condition}: {error}");
    }
    assert_eq!(count(&database, "p", "name = :x ->> '$.a'", json!({ "x": { "a": "Ada" } })).await, Ok(1));
}
