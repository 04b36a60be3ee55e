//! What the election costs the API server, whatever the number of locks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::api_server::{self, ApiServer};
use super::judge::{Record, now};
use super::member::{Member, MemberSettings};
use super::stage::{Stage, between, report};

/// Of each member at most, whatever the number of locks: a watch, a heartbeat, and those of the four claims that
/// may be under way at once, of which the client opens some in vain. They close when they were idle for a time.
const CONNECTIONS: usize = 10;

/// A current server takes longer than that of the regular run, and more so on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(180);

fn members(stage: &Stage, locks: usize, profile: &'static str) -> Vec<Member> {
    stage.make_locks(locks);
    // What the members write down shall cost them little.
    let period = Duration::from_millis(200).max(Duration::from_millis(4) * u32::try_from(locks).unwrap());
    let settings = MemberSettings { locks, period, profile, ..stage.settings.clone() };
    (0..3).map(|user| stage.member_with(user, settings.clone())).collect()
}

fn led(records: &[Record], by: impl Fn(&Record) -> bool) -> usize {
    records.iter().filter(|record| by(record)).map(|record| &record.lock).collect::<BTreeSet<_>>().len()
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_hundred_locks_are_led_and_taken_over() {
    let stage = Stage::new("hundred");
    let began = now();
    let mut members = members(&stage, 100, "fast");
    let records = stage.wait_for(PATIENCE, "all locks to be led", |records| led(records, |_| true) == 100);
    println!("100 locks: all are led {:?} after the start", between(began, now()));
    let mut shares: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for record in records {
        shares.entry(record.member).or_default().insert(record.lock);
    }
    println!("100 locks: members lead {:?}", shares.values().map(BTreeSet::len).collect::<Vec<_>>());
    let busiest = *shares.iter().max_by_key(|(_, locks)| locks.len()).unwrap().0;
    let index = members.iter().position(|member| member.id() == busiest).unwrap();
    let killed = members.swap_remove(index).kill();
    let lost = shares[&busiest].clone();
    let records = stage.wait_for(PATIENCE, "all locks to be led again", |records| {
        led(records, |record| {
            record.start > killed && record.member != busiest && lost.contains(&record.lock)
        }) == lost.len()
    });
    let times = lost.iter().map(|lock| {
        let next = records
            .iter()
            .find(|record| record.lock == *lock && record.start > killed && record.member != busiest);
        between(killed, next.unwrap().start)
    });
    report("100 locks: from kill -9 to the first exchange of each lost lock", times.collect());
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn the_number_of_locks_does_not_change_the_number_of_requests() {
    // At the same time, each with a server that counts for it alone.
    std::thread::scope(|scope| {
        for locks in [1, 10, 100, 1_000] {
            scope.spawn(move || measure_requests(locks));
        }
    });
}

fn measure_requests(locks: usize) {
    let server = Arc::new(ApiServer::start());
    let stage = Stage::on(Arc::clone(&server), &format!("rate-{locks}"));
    let members = members(&stage, locks, "default");
    stage.wait_for(PATIENCE, "all locks to be led", |records| led(records, |_| true) == locks);
    let (before, began) = (requests(&stage), now());
    // Ten heartbeats, so that one more or less does not matter.
    stage.let_pass(Duration::from_secs(31));
    let rate = (requests(&stage) - before) / between(began, now()).as_secs_f64();
    let connections = members.iter().map(|member| member.proxy.connections()).collect::<Vec<_>>();
    println!("3 members, {locks} locks: {rate:.2} requests/s; connections by member: {connections:?}");
    assert!(rate <= 1.2, "{rate} requests per second");
    assert!(connections.iter().all(|connections| *connections <= CONNECTIONS), "{connections:?}");
    stage.judge();
}

/// The requests about Leases since the server was started, by its own count.
fn requests(stage: &Stage) -> f64 {
    let text = stage.block(api_server::get(&stage.admin, "/metrics")).unwrap();
    let counts = text
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{") && line.contains("resource=\"leases\""));
    counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
