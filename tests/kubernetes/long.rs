//! The long set: what ends leaders most often, a hundred times each and more.

use std::time::Duration;

use super::proxy::Fault;
use super::rounds;
use super::scenarios::{crashes, late_answers, partitions, pauses, random_faults, stops};
use super::stage::Stage;
use super::table::{Scenario, play};

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
