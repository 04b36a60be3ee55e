//! Lists as parameters: the same body does the same in both databases.

use serde_json::{Value, json};

use crate::support::Database;

for_both! {
    lists_are_meant_as_their_elements_behind_in
    a_null_in_a_list_does_not_make_not_in_hold_for_no_row
    a_list_elsewhere_is_an_error_that_says_what_to_write
    many_elements_fit
}

/// The ids that a statement leaves or finds.
async fn ids(database: &Database, statement: &str, body: impl Into<router_core::exchange::Body>) -> Value {
    let exchange = database.run(statement, body).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    let rows = exchange.message.body.json::<serde_json::Value>().unwrap();
    rows.as_array().unwrap().iter().map(|row| row["id"].clone()).collect()
}

async fn lists_are_meant_as_their_elements_behind_in(database: Database, table: &str) {
    database.tasks(table, 4).await;
    let find = |condition: &str| format!("select id from {table} where {condition} order by id");
    let (found, others) = (find("id in (:ids)"), find("id not in (:ids)"));
    for (list, expected, left) in [
        (json!([1, 3]), json!([1, 3]), json!([2, 4])),
        (json!(["1", "3"]), json!([1, 3]), json!([2, 4])),
        (json!([9]), json!([]), json!([1, 2, 3, 4])),
        (json!([]), json!([]), json!([1, 2, 3, 4])),
        (json!(2), json!([2]), json!([1, 3, 4])),
        (json!("2"), json!([2]), json!([1, 3, 4])),
    ] {
        let body = json!({ "ids": list });
        assert_eq!(ids(&database, &found, body.clone()).await, expected, "{body}");
        assert_eq!(ids(&database, &others, body.to_string()).await, left, "{body}");
        // The whole body, as JSON and as the text that came over a network.
        assert_eq!(ids(&database, &find("id in (:body)"), body["ids"].clone()).await, expected, "{body}");
    }
    assert_eq!(ids(&database, &find("id not in (:body)"), "[1, 3]").await, json!([2, 4]));
    assert_eq!(ids(&database, &find("not id in (:ids)"), json!({ "ids": [] })).await, json!([1, 2, 3, 4]));
    let texts = find("state in (:states) and id in (:ids)");
    let body = json!({ "states": ["new", "it's \"{}\\ ,"], "ids": [4, 2] });
    assert_eq!(ids(&database, &texts, body).await, json!([2, 4]));
    // Where a cast tells the type.
    assert_eq!(
        ids(&database, &find("cast(length(state) as integer) in (:n)"), json!({ "n": ["3"] })).await,
        json!([1, 2, 3, 4])
    );
    let delete = format!("delete from {table} where id not in (:ids) returning id");
    assert_eq!(ids(&database, &delete, json!({ "ids": [1, 2, 3] })).await, json!([4]));
}

async fn a_null_in_a_list_does_not_make_not_in_hold_for_no_row(database: Database, table: &str) {
    database.tasks(table, 2).await;
    let with_null = json!({ "ids": [1, null] });
    let found = format!("select id from {table} where id in (:ids)");
    assert_eq!(ids(&database, &found, with_null.clone()).await, json!([1]));
    let chosen =
        format!("select id from {table} where id in (select id from {table} where id in (:ids)) or 1 = 0");
    assert_eq!(ids(&database, &chosen, with_null.clone()).await, json!([1]));
    for condition in [
        "id not in (:ids)",
        "not id in (:ids)",
        "not (id > 5 or id in (:ids))",
        "(id in (:ids)) = (1 = 0)",
        "(1 = 0) = ((id > 5 or id in (:ids)))",
        "(id in (:ids)) is false",
    ] {
        let statement = format!("delete from {table} where {condition}");
        for body in [with_null.clone(), json!({ "ids": null })] {
            let error = database.run(&statement, body).await.unwrap_err().to_string();
            assert!(error.contains("`:ids` is or contains null"), "{condition}: {error}");
        }
    }
    let others = format!("delete from {table} where id not in (0, :ids)");
    let error = database.run(&others, json!({ "ids": null })).await.unwrap_err().to_string();
    assert!(error.contains("contains null"), "{error}");
}

async fn a_list_elsewhere_is_an_error_that_says_what_to_write(database: Database, table: &str) {
    database.tasks(table, 1).await;
    let body = json!({ "ids": [1], "object": { "a": 1 }, "nested": [[1]] });
    for (statement, expected) in [
        ("delete from {} where state <> :ids", "write `in (:ids)`"),
        ("update {} set state = :ids", "`cast(:ids as text)` to store it"),
        ("delete from {} where id not in (2, :ids)", "stands alone: `in (:ids)`"),
        ("delete from {} where id not in (:nested)", "contains a list or an object"),
        ("delete from {} where id not in (:object)", "is an object"),
    ] {
        let error =
            database.run(&statement.replace("{}", table), body.clone()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{statement}: {error}");
    }
    database.run(&format!("update {table} set state = cast(:ids as text)"), body).await.unwrap();
    assert_eq!(database.states(table).await, ["[1]"]);
}

async fn many_elements_fit(database: Database, table: &str) {
    database.tasks(table, 3).await;
    let body = json!({ "ids": (2..100_000).collect::<Vec<_>>() });
    let statement = format!("select id from {table} where id not in (:ids)");
    assert_eq!(ids(&database, &statement, body).await, json!([1]));
}

#[tokio::test]
async fn lists_are_the_json_of_functions_of_sqlite() {
    let database = Database::sqlite();
    let body = json!({ "ids": [1, 2], "large": [18_446_744_073_709_551_615_u64] });
    let rows = database.run("select value as id from json_each(:ids)", body.clone()).await.unwrap();
    assert_eq!(rows.message.body.to_string(), r#"[{"id":1},{"id":2}]"#);
    let others = "select 1 as id where '1' not in (select cast(value as text) from json_each(:ids))";
    let error = database.run(others, json!({ "ids": [2, null] })).await.unwrap_err().to_string();
    assert!(error.contains("`:ids` is or contains null"), "{error}");
    assert_eq!(ids(&database, others, json!({ "ids": [2] })).await, json!([1]));
    let not_null = "select 1 as id where '1' not in (select cast(value as text) from json_each(:ids) where value is not null)";
    assert_eq!(ids(&database, not_null, json!({ "ids": [2, null] })).await, json!([1]));
    let error = database
        .run("select 1 as x where cast(1 as integer) in (:large)", body)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("whole numbers of 64 bits"), "{error}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn lists_are_arrays_of_postgres_and_come_back() {
    let database = Database::postgres();
    database.tasks("arrays", 4).await;
    let any = "select id from arrays where id = any(:ids) order by id";
    assert_eq!(ids(&database, any, json!({ "ids": [1, 3] })).await, json!([1, 3]));
    assert_eq!(ids(&database, any, json!({ "ids": [] })).await, json!([]));
    let all = "select id from arrays where id <> all(:ids) order by id";
    assert_eq!(ids(&database, all, json!({ "ids": [1, 3] })).await, json!([2, 4]));
    let with_null = json!({ "ids": [1, null] });
    assert_eq!(ids(&database, any, with_null.clone()).await, json!([1]));
    for condition in [
        "id <> all(:ids)",
        "id <> all(cast(:ids as int[]))",
        "id <> all((:ids::int[]))",
        "not id = any(:ids)",
        "not (id = any(:ids))",
        "not (id > 5 or id = some(cast(:ids as int[])))",
        "(id = any(:ids)) = false",
        "(id = any(:ids)) is false",
        "false = (id = any(:ids))",
        "id not in (select unnest(cast(:ids as int[])))",
    ] {
        for body in [with_null.clone(), json!({ "ids": null })] {
            let statement = format!("delete from arrays where {condition}");
            let error = database.run(&statement, body).await.map(|_| condition).unwrap_err().to_string();
            assert!(error.contains("`:ids` is or contains null"), "{condition}: {error}");
        }
        let rest = format!("select id from arrays where {condition} order by id");
        assert_eq!(ids(&database, &rest, json!({ "ids": [1, 3] })).await, json!([2, 4]), "{condition}");
    }
    let inner =
        "select id from arrays where id not in (select id from arrays where id = any(:ids)) order by id";
    assert_eq!(ids(&database, inner, with_null).await, json!([2, 3, 4]));
    let error = database.run(any, json!({ "ids": {} })).await.unwrap_err().to_string();
    assert!(error.contains("is an object"), "{error}");

    let kinds = "a text[], b int[], c jsonb[], d float8[][], e uuid[], f timestamptz[], g jsonb";
    database.run(&format!("create table array_kinds ({kinds})"), ()).await.unwrap();
    let row = json!({
        "a": ["x", "a \"b\" \\ {c},", null, "NULL", ""],
        "b": [],
        "c": [{ "k": [1] }, "text", 5],
        "d": [[1.5, 2.0], [3.0, 4.5]],
        "e": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
        "f": ["2026-03-01T10:00:00Z", "infinity"],
        "g": ["a", null, 9_007_199_254_740_993_i64],
    });
    database.run("insert into array_kinds values (:a, :b, :c, :d, :e, :f, :g)", row.clone()).await.unwrap();
    assert_eq!(database.rows("select * from array_kinds").await[0], row);
    let slices = "select a[1:2] as a, a[:1] as b, a[array_length(b, 1):cardinality(e)] as c, a[:i] as d, \
                  a[2 \\: 2] as e from array_kinds";
    let slices = database
        .run(slices, json!({ "i": 1 }))
        .await
        .unwrap()
        .message
        .body
        .json::<serde_json::Value>()
        .unwrap();
    assert_eq!(slices[0]["a"], json!(["x", "a \"b\" \\ {c},"]));
    assert_eq!((&slices[0]["b"], &slices[0]["d"]), (&json!(["x"]), &json!("x")));
    assert_eq!(slices[0]["e"], json!(["a \"b\" \\ {c},"]));
    let error = database.run("select '[0:1]={1,2}'::int[] as a", ()).await.unwrap_err().to_string();
    assert!(error.contains("do not begin at 1"), "{error}");
}
