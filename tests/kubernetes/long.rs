//! The long set: what ends leaders most often, a hundred times each and more.

use std::path::PathBuf;
use std::time::Duration;

use super::member::MemberSettings;
use super::proxy::Fault;
use super::rounds;
use super::scenario_table::{Scenario, play};
use super::scenarios::{crashes, late_answers, partitions, pauses, random_faults, stops};
use super::stage::{Stage, number, take_leader};

fn scenario(
    name: &'static str,
    lanes: usize,
    quick: usize,
    play: fn(&Stage, usize) -> Vec<Duration>,
) -> Scenario {
    Scenario { name, peer: None, lanes, rounds: rounds(quick), play }
}

const SECOND: Duration = Duration::from_secs(1);

/// With ten times the rounds of a try, as `tests/long` runs it, 200 crashes, 200 stops, 100 pauses and 120
/// partitions.
#[test]
#[ignore = "`tests/long` runs it"]
fn the_long_set() {
    let wrong = play(&[
        scenario("kill -9", 5, 4, crashes),
        scenario("SIGTERM", 2, 10, stops),
        scenario("SIGSTOP for 1 to 60 s", 10, 1, |stage, rounds| pauses(stage, rounds, 1_000..60_000)),
        scenario("black hole", 2, 2, |stage, rounds| partitions(stage, rounds, &[Fault::BlackHole], SECOND)),
        scenario("cut", 2, 2, |stage, rounds| partitions(stage, rounds, &[Fault::Cut], SECOND)),
        scenario("half-open", 2, 2, |stage, rounds| partitions(stage, rounds, &[Fault::HalfOpen], SECOND)),
        scenario("late answers, then cut", 2, 2, |stage, rounds| late_answers(stage, rounds, SECOND)),
        scenario("random faults", 2, 4, random_faults),
    ]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Members of two versions side by side, as in a rolling update, forwards and backwards: each leader is killed, and
/// one of the other version starts in its place.
#[test]
#[ignore = "`tests/two-versions` runs it"]
fn two_versions_side_by_side() {
    let old = std::env::var_os("OLD_MEMBER").map(PathBuf::from);
    let old = old.expect("OLD_MEMBER is the test program of the other version");
    let stage = Stage::new("versions");
    let settings = |is_old: bool| MemberSettings {
        program: is_old.then(|| old.clone()),
        work: Duration::from_millis(300),
        ..stage.settings.clone()
    };
    let members = [true, false, true].into_iter().enumerate();
    let members = members.map(|(user, is_old)| stage.member_with(user, settings(is_old)));
    let mut members = members.collect::<Vec<_>>();
    let mut terms = [0, 0];
    for _ in 0..rounds(4) {
        let led = stage.wait_for_leader();
        let leader = take_leader(&mut members, &led);
        let (user, was_old) = (number(&leader), leader.settings.program.is_some());
        terms[usize::from(was_old)] += 1;
        leader.kill();
        members.push(stage.member_with(user, settings(!was_old)));
        stage.wait_for_term_after(led.term);
    }
    drop(members);
    println!("two versions: {} leaders of this one, {} of the other", terms[0], terms[1]);
    stage.judge();
}
