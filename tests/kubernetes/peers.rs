//! The same blows for members that other crates elect, in the same run, with the same judge.

use std::process::Command;
use std::time::Duration;

use super::proxy::Fault;
use super::rounds;
use super::scenario_table::{Scenario, play};
use super::scenarios::{crashes, late_answers, partitions, pauses, stops};
use super::stage::Stage;

const PEERS: [Option<&str>; 3] = [None, Some("kube-leader-election"), Some("kube-lease-manager")];

/// How long a fault lasts after the next leader's first exchange.
const MENDED: Duration = Duration::from_secs(10);

/// The program of a member that is elected by this crate.
pub(crate) fn program(peer: &str) -> Command {
    let path = std::env::var_os("PEERS_PROGRAM").expect("PEERS_PROGRAM is not set; use tests/peers");
    let mut command = Command::new(path);
    command.arg(peer);
    command
}

/// Measured is what others do, so only ours can be wrong here.
#[test]
#[ignore = "`tests/peers` builds the other crates and runs it"]
fn the_same_scenarios_with_other_crates() {
    type Play = fn(&Stage, usize) -> Vec<Duration>;
    let blows: [(&str, Play); 5] = [
        ("SIGTERM", stops),
        ("kill -9", crashes),
        ("SIGSTOP for 10 s", |stage, rounds| pauses(stage, rounds, 10_000..10_001)),
        ("black hole", |stage, rounds| partitions(stage, rounds, &[Fault::BlackHole], MENDED)),
        ("late answers, then cut", |stage, rounds| late_answers(stage, rounds, MENDED)),
    ];
    let scenarios = blows.iter().flat_map(|(name, play)| {
        PEERS.map(|peer| Scenario { name, peer, lanes: 2, rounds: rounds(1), play: *play })
    });
    let wrong = play(&scenarios.collect::<Vec<_>>());
    assert!(wrong.is_empty(), "{wrong:#?}");
}
