//! Wall clocks that are wrong, by libfaketime.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::judge::now;
use super::leader_ends::TAKEOVER;
use super::member::{Member, MemberSettings};
use super::proxy::Fault;
use super::rounds;
use super::stage::{Stage, between, number, report, take_leader};

/// What libfaketime makes of the wall clock of each member. The server's certificate is valid from an hour
/// before its start, so a clock may not be more behind.
const CLOCKS: [&str; 3] = ["+1h", "-50m", "+0 x1.005"];

/// The library, which the script finds or gets.
fn libfaketime() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/libfaketime");
    let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "there is no libfaketime to test with");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A member whose wall clock alone is wrong.
fn member(stage: &Stage, library: &str, user: usize) -> Member {
    let variables = vec![
        ("LD_PRELOAD", library.to_owned()),
        ("FAKETIME", CLOCKS[user].to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    stage.member_with(user, MemberSettings { variables, ..stage.settings.clone() })
}

/// How far the wall clock of the member is ahead, in seconds, as it says it in the Lease of its session.
fn ahead(stage: &Stage, member: &Member) -> i64 {
    let renewed = stage.session_of(member).spec.unwrap().renew_time.unwrap().0;
    renewed.as_second() - Timestamp::now().as_second()
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn wall_clocks_do_not_matter() {
    let stage = Stage::new("clocks");
    let library = libfaketime();
    let mut members = (0..3).map(|user| member(&stage, &library, user)).collect::<Vec<_>>();
    let mut times = Vec::new();
    // Until each of them has led and lost the server, and a few rounds at least.
    let mut led_by = [false; 3];
    let mut round = 0;
    while round < rounds(3) || led_by.contains(&false) {
        assert!(round < rounds(15), "only these have led: {led_by:?}");
        let led = stage.wait_for_work();
        let leader = take_leader(&mut members, &led);
        let user = number(&leader);
        let ahead = ahead(&stage, &leader);
        let expected = [3_600, -3_000, 0][user];
        assert!((ahead - expected).abs() < 60, "the clock of member {user} is {ahead} s ahead");
        led_by[user] = true;
        let lost = now();
        leader.proxy.set(Fault::BlackHole);
        times.push(between(lost, stage.wait_for_term_after(led.term).start));
        stage.let_pass(Duration::from_millis(500));
        leader.proxy.set(Fault::None);
        stage.let_pass(Duration::from_secs(1));
        members.insert(0, leader);
        round += 1;
    }
    stage.judge();
    assert!(times.iter().all(|time| *time < TAKEOVER), "{times:?}");
    report("wrong wall clocks, black hole: to the next leader's first exchange", times);
}
