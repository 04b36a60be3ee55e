//! Rows become exchanges, and are settled in the transaction that read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use router_core::builder::{Steps, from};
use router_core::cluster::{ClusterService, LockName, MemoryCluster};
use serde_json::json;
use testkit::Log;
use tokio::time::{sleep, timeout};

use crate::support::{Database, id};

for_both! {
    rows_come_in_order_and_are_settled_one_by_one
    what_a_failed_exchange_wrote_is_undone_and_the_row_is_marked
    a_failed_row_without_a_statement_comes_again
    a_row_that_fails_starves_no_other_and_comes_again_after_longer_and_longer_pauses
    steps_take_part_in_the_transaction_of_their_row
    a_stop_commits_what_is_done_and_leaves_the_rest
    a_leader_that_loses_the_lock_settles_nothing
    a_row_that_cannot_be_read_fails_alone
    a_row_that_cannot_be_settled_fails_alone
    no_more_rows_are_read_than_become_exchanges
    a_poll_without_a_limit_is_what_it_was_when_it_began
    what_goes_through_a_queue_is_no_part_of_the_transaction
}

async fn rows_come_in_order_and_are_settled_one_by_one(database: Database, table: &str) {
    database.tasks(table, 7).await;
    let route = database.poll(table, "&max_messages_per_poll=3").to("mock:out");
    database.run_route(route, database.all_settled(table)).await;
    assert_eq!(database.received_ids(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(database.states(table).await, ["done"; 7]);
}

/// More rows than are read at once.
async fn a_poll_without_a_limit_is_what_it_was_when_it_began(database: Database, table: &str) {
    database.tasks(table, 250).await;
    let route = database
        .poll(table, "")
        .to(database.uri(&format!("delete from {table} where id = :id %2B 120")))
        .to(database.uri(&format!("insert into {table} values (:id %2B 1000, 'later')")))
        .to("mock:out");
    database.run_route(route, database.mock.endpoint("out").wait_for(250)).await;
    assert_eq!(database.received_ids(), (1..=250).collect::<Vec<_>>());
    let states = database.states(table).await;
    assert_eq!(
        (&states[..120], &states[120..]),
        (&["done"; 120].map(String::from)[..], &["later"; 250].map(String::from)[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL, which tests/run starts"]
async fn what_was_done_before_a_row_that_the_server_fails_to_make_is_kept() {
    let (database, table) = (Database::postgres(), "divided");
    database.tasks(table, 250).await;
    let route = from(format!(
        "sql:select id, 1 / (id - 250) as x from {table} where state = 'new' order by id?{}&initial_delay=0&delay=5\
         &on_consume=update {table} set state = 'done' where id = :id",
        database.source
    ));
    let until = async {
        while database.states(table).await[199] == "new" {
            sleep(Duration::from_millis(5)).await;
        }
    };
    database.run_route(route.to("mock:out"), until).await;
    assert_eq!(database.received_ids(), (1..=200).collect::<Vec<_>>());
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

// On one thread, whose log it is.
#[tokio::test]
async fn a_statement_that_settles_nothing_is_told_at_once_and_then_in_sum() {
    let (database, table) = (Database::sqlite(), "unsettled");
    database.tasks(table, 2).await;
    let (log, _guard) = Log::start();
    let route = from(format!(
        "sql:select id from {table} order by id?{}&initial_delay=0&delay=5&on_consume=update {table} set state = 'done' \
         where id = :id %2B 100",
        database.source
    ));
    database.run_route(route.id("poll").to("mock:out"), database.mock.endpoint("out").wait_for(5)).await;
    let lines = log.with("has changed nothing");
    let [line] = &*lines else { panic!("{lines:#?}") };
    assert!(line.contains("route `poll`") && line.contains(r#"{"id":1}"#), "{line}");
}

async fn a_row_that_fails_starves_no_other_and_comes_again_after_longer_and_longer_pauses(
    database: Database,
    table: &str,
) {
    database.tasks(table, 4).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let route = database
        .poll(table, "&max_messages_per_poll=1")
        .process(move |exchange| match id(exchange) {
            Some(1) => {
                counted.fetch_add(1, Ordering::Relaxed);
                Err("never".into())
            }
            _ => Ok(()),
        })
        .to("mock:out");
    let watched = Arc::clone(&tries);
    let done = async {
        database.mock.endpoint("out").wait_for(3).await;
        while watched.load(Ordering::Relaxed) < 6 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let begin = Instant::now();
    database.run_route(route, done).await;
    assert_eq!(database.received_ids(), [2, 3, 4]);
    // After 10, 20, 40, ... milliseconds, where polls are 5 ms apart.
    let tries = tries.load(Ordering::Relaxed);
    let pauses = Duration::from_millis(10) * ((1 << (tries - 1)) - 1);
    assert!(begin.elapsed() >= pauses, "{tries} tries within {:?}", begin.elapsed());
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
async fn a_database_that_may_only_be_read_is_polled() {
    let database = Database::sqlite();
    database.tasks("x", 2).await;
    let select = format!("sql:select id from x order by id?{}%3Fmode=ro&initial_delay=0", database.source);
    database.run_route(from(select).to("mock:out"), database.mock.endpoint("out").wait_for(2)).await;
    assert_eq!(database.received_ids(), [1, 2]);
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

/// Polls a table whose row 2 has a column that cannot be read, until the others are done.
async fn poll_around(database: &Database, table: &str, options: &str) {
    let route = from(format!(
        "sql:select id, bad from {table} where state = 'new' order by id?{}&initial_delay=0&delay=5\
         &on_consume=update {table} set state = 'done' where id = :id{options}",
        database.source
    ));
    let done = async {
        while database.states(table).await.iter().filter(|state| *state == "done").count() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    database.run_route(route.to("mock:out"), done).await;
}

async fn a_row_that_cannot_be_read_fails_alone(database: Database, table: &str) {
    database.tasks(table, 3).await;
    let (kind, bad) = match database.source.contains("sqlite:") {
        true => ("text", "cast(x'66ff' as text)"),
        false => ("timestamp", "timestamp '20000-01-01'"),
    };
    database.run(&format!("alter table {table} add column bad {kind}"), ()).await.unwrap();
    database.run(&format!("update {table} set bad = {bad} where id = 2"), ()).await.unwrap();
    // One at a time: it takes no place from the others, although it is not settled.
    poll_around(&database, table, "&max_messages_per_poll=1").await;
    assert_eq!(database.states(table).await, ["done", "new", "done"]);
    database.run(&format!("update {table} set state = 'new'"), ()).await.unwrap();
    // This needs the column that cannot be read.
    let needs =
        format!("&on_consume_failed=update {table} set state = 'failed' where id = :id and bad = :bad");
    poll_around(&database, table, &needs).await;
    assert_eq!(database.states(table).await, ["done", "new", "done"]);
    database.run(&format!("update {table} set state = 'new'"), ()).await.unwrap();
    let mark = format!("&on_consume_failed=update {table} set state = 'failed' where id = :id");
    poll_around(&database, table, &mark).await;
    assert_eq!(database.states(table).await, ["done", "failed", "done"]);
    assert_eq!(database.received_ids(), [1, 3, 1, 3, 1, 3]);
    // In `to`, it is an error, which undoes the statement.
    let delete = format!("delete from {table} returning bad");
    let error = database.run(&delete, ()).await.unwrap_err().to_string();
    assert!(error.contains("column `bad` cannot be read"), "{error}");
    assert_eq!(database.states(table).await.len(), 3);
}

/// `on_consume` breaks a constraint for row 3.
async fn a_row_that_cannot_be_settled_fails_alone(database: Database, table: &str) {
    database.tasks(table, 4).await;
    let poll = |options: &str| {
        from(format!(
            "sql:select id from {table} where state = 'new' order by id?{}&initial_delay=0&delay=5\
             &on_consume=update {table} set state = case when id = 3 then null else 'done' end where id = :id{options}",
            database.source
        ))
        .to(database.uri(&format!("insert into {table} values (:id %2B 100, 'written')")))
        .to("mock:out")
    };
    let out = database.mock.endpoint("out");
    // The last of them is row 3 for the second time.
    database.run_route(poll(""), out.wait_for(5)).await;
    assert_eq!(database.received_ids()[..5], [1, 2, 3, 4, 3]);
    let written = ["written"; 3];
    let states = database.states(table).await;
    assert_eq!(
        (&states[..4], &states[4..]),
        (&["done", "done", "new", "done"].map(String::from)[..], &written.map(String::from)[..])
    );
    let mark = format!("&on_consume_failed=update {table} set state = 'failed' where id = :id");
    database.run_route(poll(&mark), database.all_settled(table)).await;
    let states = database.states(table).await;
    assert_eq!(
        (&states[..4], &states[4..]),
        (&["done", "done", "failed", "done"].map(String::from)[..], &written.map(String::from)[..])
    );
}

async fn no_more_rows_are_read_than_become_exchanges(database: Database, table: &str) {
    database.tasks(table, 3).await;
    // Row 2 is an error of the database when it is read.
    let third = match database.source.contains("sqlite:") {
        true => "json(case when id = 2 then '{' else '1' end)",
        false => "1 / (id - 2)",
    };
    let route = from(format!(
        "sql:select id, {third} as x from {table} where state = 'new'?{}&initial_delay=0&delay=5\
         &max_messages_per_poll=1&on_consume=update {table} set state = 'done' where id = :id",
        database.source
    ));
    database.run_route(route.to("mock:out"), database.mock.endpoint("out").wait_for(1)).await;
    assert_eq!(database.states(table).await, ["done", "new", "new"]);
}

/// The route of the queue has said that it is done: a failure of the row's own route cannot take that back.
async fn what_goes_through_a_queue_is_no_part_of_the_transaction(database: Database, table: &str) {
    database.tasks(table, 1).await;
    let mark = format!("&on_consume_failed=update {table} set state = 'failed' where id = :id");
    let write = database.uri(&format!("insert into {table} values (:id %2B 10, 'written')"));
    let failing = database.poll(table, &mark).to("seda:side").delay("200ms").process(|_| Err("no".into()));
    let router = database
        .builder()
        .component(components::SedaComponent::default())
        .routes([failing, from("seda:side").to(write).to("mock:out")])
        .build()
        .unwrap();
    let done = async {
        database.mock.endpoint("out").wait_for(1).await;
        database.all_settled(table).await;
    };
    let _ = timeout(Duration::from_secs(20), router.run_until(done)).await.unwrap();
    assert_eq!(database.states(table).await, ["failed", "written"]);
}
