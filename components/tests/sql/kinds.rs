//! Of which kind the failures of a database are.

use router_core::exchange::Body;
use router_core::failure::{ErrorKind, Failure};
use serde_json::json;

use crate::support::Database;

for_both! {
    what_a_database_refuses_and_what_a_message_lacks_have_kinds
}

impl Database {
    async fn failure(&self, statement: &str, body: impl Into<Body>) -> Failure {
        *Failure::of(self.run(statement, body).await.unwrap_err())
    }
}

async fn what_a_database_refuses_and_what_a_message_lacks_have_kinds(database: Database, table: &str) {
    database.tasks(table, 2).await;
    let code = |sqlite: &str, postgres: &str| {
        Some(if database.source.contains("sqlite") { sqlite.into() } else { postgres.into() })
    };
    let insert = format!("insert into {table} values (:id, :state)");
    let twice = database.failure(&insert, json!({ "id": 1, "state": "new" })).await;
    assert_eq!((twice.kind, twice.code), (ErrorKind::Rejected, code("1555", "23505")));
    let null = database.failure(&insert, json!({ "id": 3, "state": null })).await;
    assert_eq!((null.kind, null.code), (ErrorKind::Rejected, code("1299", "23502")));
    let missing = database.failure("select * from there_is_none", ()).await;
    assert_eq!((missing.kind, missing.code), (ErrorKind::Rejected, code("1", "42P01")));
    let lacking = database.failure(&insert, json!({ "id": 3 })).await;
    assert_eq!((lacking.kind, lacking.code), (ErrorKind::Data, None), "{}", lacking.error);
    let text = database.failure(&insert, json!({ "id": "three", "state": "new" })).await;
    assert_eq!(text.kind, ErrorKind::Data, "{}", text.error);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn a_deadlock_a_lost_connection_and_a_serialization_failure_are_no_fault_of_the_message() {
    let database = Database::postgres();
    let locks = |first: u8, second: u8| {
        format!(
            "select pg_advisory_xact_lock({first})::text as a, pg_sleep(0.3)::text as b, \
             pg_advisory_xact_lock({second})::text as c"
        )
    };
    let (one, other) = (locks(71, 72), locks(72, 71));
    let (one, other) = tokio::join!(database.run(&one, ()), database.run(&other, ()));
    let loser = *Failure::of(one.err().or(other.err()).unwrap());
    assert_eq!((loser.kind, loser.code.as_deref()), (ErrorKind::Unavailable, Some("40P01")));
    let lost = database.failure("select pg_terminate_backend(pg_backend_pid())", ()).await;
    assert_eq!((lost.kind, lost.code.as_deref()), (ErrorKind::Unavailable, Some("57P01")));
    let conflict = "do $$ begin raise exception 'could not serialize' using errcode = '40001'; end $$";
    let conflict = database.failure(conflict, ()).await;
    assert_eq!((conflict.kind, conflict.code.as_deref()), (ErrorKind::Unavailable, Some("40001")));
}
