//! The promise: a row that a leader has read is settled in the transaction that read it, or not at all. When
//! that leader is killed between the two, the row is neither lost nor marked, and the next one takes it. What
//! the exchange wrote in the same database is there once.
//!
//! `SEED` repeats a run, `ROWS` makes it longer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::{Duration, Instant};

use bactrian::core::value::Json;
use bactrian::prelude::*;
use support::Stage;
use support::group::{ANY_FATE, GRACEFUL, Group, number, poll};
use tokio::time::sleep;

/// How many rows one poll brings, and so how many a crash can repeat.
const LIMIT: usize = 20;

/// A database with tasks, of which none is done, and a table of what was done for them.
struct Tasks {
    router: Router,
    /// `data_source=...`, and how to log in.
    source: String,
    table: String,
}

impl Tasks {
    async fn new(source: String, table: &str, count: usize) -> Self {
        let tasks = Self { router: bactrian::router().build().unwrap(), source, table: table.to_owned() };
        tasks.run(&format!("create table {table} (id integer primary key, state text not null)")).await;
        tasks.run(&format!("create table {table}_effect (id integer not null)")).await;
        let all = format!(
            "with recursive number(id) as (select 1 union all select id + 1 from number where id < {count}) \
             insert into {table} select id, 'new' from number"
        );
        tasks.run(&all).await;
        tasks
    }

    async fn run(&self, statement: &str) -> Json {
        let sql = self.router.producer(format!("sql:{statement}?{}", self.source));
        let mut exchange = Exchange::new(());
        sql.unwrap_or_else(|errors| panic!("{errors}")).process(&mut exchange).await.unwrap();
        exchange.message.body.to_json().unwrap_or_default()
    }

    async fn count(&self, from: &str) -> u64 {
        let rows = self.run(&format!("select count(*) as n from {from}")).await;
        rows[0]["n"].as_u64().unwrap()
    }

    /// What a member does: reads, writes an effect, and marks.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let Self { source, table, .. } = self;
        let from = format!(
            "sql:select id from {table} where state = 'new' order by id?{source}&initial_delay=0&delay=5\
             &max_messages_per_poll={LIMIT}&on_consume=update {table} set state = 'done' where id = :id"
        );
        let to = format!("sql:insert into {table}_effect values (:id)?{source}");
        vec![("MEMBER_URI", from), ("MEMBER_TO", to)]
    }

    /// All is done, and each effect is there once.
    async fn judge(&self, count: usize) {
        let (table, count) = (&self.table, count as u64);
        assert_eq!(self.count(&format!("{table} where state = 'done'")).await, count);
        assert_eq!(self.count(&format!("{table}_effect")).await, count);
        assert_eq!(self.count(&format!("(select distinct id from {table}_effect) as ids")).await, count);
    }
}

fn sqlite(stage: &Stage) -> String {
    format!("data_source=sqlite:{}", stage.records_file().with_file_name("test.db").display())
}

fn postgres(_: &Stage) -> String {
    let url = std::env::var("BACTRIAN_POSTGRES").expect("run by tests/postgres/server");
    format!("data_source={url}&password=env:BACTRIAN_POSTGRES_PASSWORD")
}

async fn a_row_that_was_read_when_its_leader_was_killed_is_not_marked(source: fn(&Stage) -> String) {
    let stage = Stage::new();
    let tasks = Tasks::new(source(&stage), "held_up", 5).await;
    let mut variables = tasks.variables();
    variables.push(("MEMBER_HOLDS_UP", "3".to_owned()));
    let held_up = stage.spawn("poller_process", &variables);
    let patience = Instant::now() + Duration::from_secs(30);
    let lines = || std::fs::read_to_string(stage.records_file()).unwrap_or_default().lines().count();
    while lines() < 3 {
        assert!(Instant::now() < patience, "the third row was not read in 30 s");
        sleep(Duration::from_millis(5)).await;
    }
    held_up.kill();
    assert_eq!(tasks.count("held_up where state = 'new'").await, 5, "rows of a dead leader are marked");
    assert_eq!(tasks.count("held_up_effect").await, 0);

    let mut group = Group::start(&stage, "poller_process", &variables[..2]);
    group.end_leaders_until_done(&[], 5).await;
    group.stop().await;
    tasks.judge(5).await;
    let done = group.story().done;
    // There may be terms between the two: a number is used up where a member gives the lock back before it has worked.
    let (dead, next) = (done[0].term, done[3].term);
    assert!(dead < next, "{done:?}");
    let done = done.iter().map(|done| (done.term, done.number)).collect::<Vec<_>>();
    let rows = [(dead, 1), (dead, 2), (dead, 3), (next, 1), (next, 2), (next, 3), (next, 4), (next, 5)];
    assert_eq!(done, rows);
}

async fn leaders_end_in_any_way_and_every_effect_is_there_once(source: fn(&Stage) -> String) {
    for (table, fates) in [("any_end", ANY_FATE), ("graceful", GRACEFUL)] {
        let (stage, rows) = (Stage::new(), number("ROWS").unwrap_or(500));
        let tasks = Tasks::new(source(&stage), table, rows).await;
        let variables = tasks.variables();
        let mut group = Group::start(&stage, "poller_process", &variables);
        group.end_leaders_until_done(fates, rows).await;
        // What was noted last may not be committed yet, and its leader may just have been killed.
        let patience = Instant::now() + Duration::from_secs(30);
        while tasks.count(&format!("{table} where state = 'new'")).await > 0 {
            assert!(Instant::now() < patience, "not all is marked after 30 s");
            sleep(Duration::from_millis(5)).await;
        }
        group.stop().await;
        tasks.judge(rows).await;
        let repeated = group.story().judge(rows);
        assert!(repeated.values().all(|rows| rows.len() <= LIMIT), "{repeated:?}");
        assert!(fates == ANY_FATE || repeated.is_empty(), "{repeated:?}");
    }
}

/// Tests for both databases.
macro_rules! for_both {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::sqlite).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs PostgreSQL, which tests/run starts"]
            async fn $name() {
                super::$name(super::postgres).await;
            })*
        }
    };
}

for_both! {
    a_row_that_was_read_when_its_leader_was_killed_is_not_marked
    leaders_end_in_any_way_and_every_effect_is_there_once
}

/// What a member does. Not a test: the others start it in a process of its own.
#[test]
#[ignore = "this is the program of a member process, which other tests start"]
fn poller_process() {
    poll(|exchange| exchange.message.body.to_json().unwrap()["id"].to_string());
}
