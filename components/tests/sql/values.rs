//! Values on their way into a database and out of it: whole, or an error.

use serde_json::{Value, json};

use crate::support::Database;

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

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn json_of_postgres_keeps_its_digits() {
    let database = Database::postgres();
    // The digits of `jsonb` are those of `numeric`; `json` is kept as it was written.
    for (json, kind, kept) in [
        (
            "[123456789012345678901234567890.10, 0.1000000000000000055511151231257827, 1E2]",
            "jsonb",
            "[123456789012345678901234567890.10,0.1000000000000000055511151231257827,100]",
        ),
        (
            "{\"b\": 1E2, \"a\": 123456789012345678901234567890.10}",
            "json",
            "{\"b\":1E2,\"a\":123456789012345678901234567890.10}",
        ),
    ] {
        let row = database.run(&format!("select '{json}'::{kind} as x"), ()).await.unwrap();
        assert_eq!(row.message.body.to_string(), format!(r#"[{{"x":{kept}}}]"#));
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn every_type_of_postgres_comes_whole_or_is_an_error() {
    let database = Database::postgres();
    database.run("create domain positive as numeric check (value > 0)", ()).await.unwrap();
    for (expression, expected) in [
        ("'NaN'::numeric", json!("NaN")),
        (
            "123456789012345678901234567890.123456789::numeric",
            json!("123456789012345678901234567890.123456789"),
        ),
        ("9007199254740993::int8", json!(9_007_199_254_740_993_i64)),
        ("(-9223372036854775808)::int8", json!(i64::MIN)),
        ("'NaN'::float8", json!("NaN")),
        ("'-Infinity'::float4", json!("-Infinity")),
        ("0.1::float4", json!(0.1)),
        ("1e300::float8", json!(1e300)),
        ("'infinity'::timestamp", json!("infinity")),
        ("'-infinity'::timestamptz", json!("-infinity")),
        ("'infinity'::date", json!("infinity")),
        ("'9999-12-31'::date", json!("9999-12-31")),
        ("'24:00'::time", json!("24:00:00")),
        ("'2026-03-01 12:00:00.123456+02'::timestamptz", json!("2026-03-01T10:00:00.123456Z")),
        ("'\\xff00'::bytea", json!("\\xff00")),
        ("''::bytea", json!("\\x")),
        ("''::\"char\"", json!("")),
        ("'<a>ü</a>'::xml", json!("<a>ü</a>")),
        ("5::positive", json!("5")),
        ("array[5, null]::positive[]", json!(["5", null])),
        ("'{\"a\": 1.10, \"b\": 18446744073709551615}'::jsonb", json!({ "a": 1.1, "b": u64::MAX })),
        ("'{\"a\": \"\\u0000\"}'::json", json!({ "a": "\u{0}" })),
        ("null::money", Value::Null),
    ] {
        let row = database.rows(&format!("select {expression} as x")).await;
        assert_eq!(row[0]["x"], expected, "{expression}");
        // What was read can be written: it is the same value.
        let kind = expression.rsplit_once("::").unwrap().1;
        let statement = format!("select {expression} is not distinct from :x as same");
        if !kind.contains("json") && !kind.contains("xml") {
            let same = database
                .run(&statement, json!({ "x": expected }))
                .await
                .unwrap_or_else(|error| panic!("{expression}: {error}"));
            assert_eq!(same.message.body.to_string(), r#"[{"same":true}]"#, "{expression}");
        }
    }
    for (expression, expected) in [
        ("'20000-01-01'::timestamp", "column `x` cannot be read"),
        ("'5874897-01-01'::date", "column `x` cannot be read"),
        ("1::money", "cast it to text"),
        ("'10.0.0.0/8'::inet", "cast it to text"),
        ("'12:00+02'::timetz", "cast it to text"),
        ("b'101'", "cast it to text"),
        ("'[1,5)'::int4range", "cast it to text"),
        ("row(1, 2)", "cast it to text"),
        ("'(1,2)'::point", "cast it to text"),
    ] {
        let result = database.run(&format!("select {expression} as x"), ()).await;
        let error = result.map_or_else(|error| error.to_string(), |done| done.message.body.to_string());
        assert!(error.contains(expected), "{expression}: {error}");
    }
    for statement in ["select 1 as a, 2 as a", "select t.id, u.id from kept t, kept u"] {
        database.run("create table if not exists kept (id int)", ()).await.unwrap();
        let error = database.run(statement, ()).await.unwrap_err().to_string();
        assert!(error.contains("two columns are called"), "{error}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn a_parameter_of_postgres_arrives_whole_or_is_an_error() {
    let database = Database::postgres();
    let columns = "a timestamp, b numeric, c numeric(5,2), d text, e bytea, f int8";
    database.run(&format!("create table arrives ({columns})"), ()).await.unwrap();
    let large =
        json!({ "b": 18_446_744_073_709_551_615_u64, "d": 18_446_744_073_709_551_615_u64, "f": i64::MAX });
    database.run("insert into arrives (b, d, f) values (:b, :d, :f)", large).await.unwrap();
    let row = database.rows("select b, d, f from arrives").await;
    assert_eq!(row[0], json!({ "b": "18446744073709551615", "d": "18446744073709551615", "f": i64::MAX }));
    for (column, value, expected) in [
        ("a", json!("2026-03-01T12:00:00+02:00"), "which `timestamp` would drop"),
        ("f", json!(1.5), "the type here is int8, which has whole numbers alone"),
        ("f", json!(18_446_744_073_709_551_615_u64), "out of range"),
        ("d", json!("a\u{0}b"), "0x00"),
    ] {
        let insert = format!("insert into arrives ({column}) values (:x)");
        let error = database.run(&insert, json!({ "x": value })).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{column}: {error}");
    }
    let not_text = bytes::Bytes::from_static(b"a\xff");
    let error = database.run("insert into arrives (d) values (:body)", not_text.clone()).await.unwrap_err();
    assert!(error.to_string().contains("bytes that are not UTF-8"), "{error}");
    database.run("insert into arrives (e) values (:body)", not_text).await.unwrap();
    assert_eq!(database.rows("select e from arrives where e is not null").await, json!([{ "e": "\\x61ff" }]));
}

#[tokio::test]
async fn values_of_sqlite_are_whole_or_an_error() {
    let database = Database::sqlite();
    database.run("create table x (flag boolean, number integer)", ()).await.unwrap();
    database
        .run("insert into x values (2, 9007199254740993), (1, :n)", json!({ "n": i64::MIN }))
        .await
        .unwrap();
    let rows = database.rows("select * from x order by flag desc").await;
    let expected = json!([
        { "flag": 2, "number": 9_007_199_254_740_993_i64 },
        { "flag": true, "number": i64::MIN },
    ]);
    assert_eq!(rows, expected);
    for (statement, expected) in [
        ("select 9e999 as x", "column `x` cannot be read: an infinite number"),
        ("select cast(x'ff' as text) as x", "column `x` cannot be read"),
        ("select 1 as x, 2 as x", "two columns are called `x`"),
        ("insert into x values (1, :n)", "whole numbers of 64 bits"),
        ("select :n as x", "more digits than SQLite can keep"),
    ] {
        let error = database.run(statement, json!({ "n": u64::MAX })).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{statement}: {error}");
    }
}
