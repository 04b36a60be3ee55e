//! The promise: what a step of a `master:` route keeps is there for the next leader, also after `kill -9`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs::OpenOptions;
use std::io::Write as _;

use bactrian::core::state::RouteState;
use bactrian::prelude::*;
use support::Stage;

/// As the engine names the state of the step `step` in the route `count`.
const KEY: &str = "count\u{1f}step";

#[test]
fn a_step_goes_on_where_the_leader_that_was_killed_had_stored() {
    let stage = Stage::new();
    let start = || stage.spawn("step_program", &[]);
    let mut members = vec![start(), start()];
    let mut term = 0;
    for _ in 0..4 {
        let of_next = |records: &[support::Record]| records.iter().filter(|it| it.term > term).count() >= 5;
        let led = stage.wait("five exchanges of a new term", of_next).pop().unwrap();
        let leader = members.iter().position(|member| member.id() == led.member).unwrap();
        members.swap_remove(leader).kill();
        members.push(start());
        term = led.term;
    }
    drop(members);
    let records = stage.records();
    for pair in records.windows(2) {
        // The count stands in the place of the time. One may have been stored and not noted.
        let most = if pair[0].term == pair[1].term { 1 } else { 2 };
        let step = pair[1].start.checked_sub(pair[0].start);
        assert!(step.is_some_and(|step| (1..=most).contains(&step)), "{pair:?}");
    }
}

/// A member that counts its exchanges in the state of a step, and notes each count that is stored. Not a test.
#[test]
#[ignore = "this is the program of a member process, which the test starts"]
fn step_program() {
    let records = std::env::var("MEMBER_RECORDS").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let cluster = FileCluster::open(support::cluster_settings()).await.unwrap();
        let count = move |exchange: &mut Exchange| {
            let (term, records) = (exchange.term.clone().unwrap(), records.clone());
            async move {
                let state = RouteState::new(KEY, term.states());
                let count = state.load().await?.and_then(|count| count.as_u64()).unwrap_or_default() + 1;
                state.store(&count.into()).await?;
                let mut file = OpenOptions::new().append(true).create(true).open(&records)?;
                let line = format!("start {} {} {count}\n", std::process::id(), term.number());
                file.write_all(line.as_bytes())?;
                Ok(())
            }
        };
        let route = from("master:lock1:timer:work?delay=0&period=2ms").id("count");
        let route = route.process_async(move |exchange| Box::pin(count(exchange)));
        bactrian::run(&bactrian::router().cluster(cluster).route(route).build().unwrap()).await
    });
    assert_eq!(outcome, ShutdownOutcome::Drained);
}
