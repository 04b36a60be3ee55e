//! Many rounds of scenarios side by side, and one table at the end.

use std::time::Duration;

use super::judge;
use super::seed;
use super::stage::{Stage, VERBS, distribution};

/// One row of the table.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The crate that elects instead of ours.
    pub(crate) peer: Option<&'static str>,
    /// How many stages play it at the same time.
    pub(crate) lanes: usize,
    /// How often each of them does.
    pub(crate) rounds: usize,
    /// Plays it and returns how long each takeover took.
    pub(crate) play: fn(&Stage, usize) -> Vec<Duration>,
}

/// What one lane did.
struct Lane {
    times: Vec<Duration>,
    errors: Vec<String>,
    overlap: Duration,
}

/// Plays all scenarios and prints the table. Returns what was wrong with the leadership of ours.
pub(crate) fn play(scenarios: &[Scenario]) -> Vec<String> {
    let lanes = std::thread::scope(|scope| {
        let start = |scenario, lane| scope.spawn(move || play_lane(scenario, lane));
        let lanes = scenarios
            .iter()
            .map(|scenario| (0..scenario.lanes).map(|lane| start(scenario, lane)).collect::<Vec<_>>());
        let lanes = lanes.collect::<Vec<_>>();
        lanes
            .into_iter()
            .map(|lanes| lanes.into_iter().map(|lane| lane.join()).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    });
    println!(
        "\n| scenario | elected by | rounds | overlaps | overlap in all | takeovers | p50 | p99 | max |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut wrong = Vec::new();
    for (scenario, lanes) in scenarios.iter().zip(lanes) {
        let (mut times, mut overlaps, mut overlap) = (Vec::new(), 0, Duration::ZERO);
        for lane in lanes {
            let Ok(lane) = lane else {
                wrong.push(format!("a lane of {:?} did not reach its end", scenario.name));
                continue;
            };
            times.extend(lane.times);
            overlaps += lane.errors.len();
            overlap += lane.overlap;
            if scenario.peer.is_none() {
                wrong.extend(lane.errors);
            }
        }
        let count = times.len();
        let seconds = |time: Duration| format!("{:.3} s", time.as_secs_f64());
        let [p50, p99, max] =
            distribution(times).map(|time| if count == 0 { "".into() } else { seconds(time) });
        println!(
            "| {} | {} | {} | {overlaps} | {} | {count} | {p50} | {p99} | {max} |",
            scenario.name,
            scenario.peer.unwrap_or("bactrian"),
            scenario.lanes * scenario.rounds,
            seconds(overlap),
        );
    }
    println!("\nKUBERNETES_SEED={}", *seed::SEED);
    wrong
}

fn play_lane(scenario: &Scenario, lane: usize) -> Lane {
    let elected_by = scenario.peer.unwrap_or("bactrian");
    // A namespace has no other characters.
    let name = scenario.name.to_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "");
    let mut stage = Stage::new(&format!("{name}-{elected_by}-{lane}"));
    stage.settings.peer = scenario.peer;
    // What the other crates need beside.
    stage.allow(&[VERBS, &["patch"]].concat());
    let times = (scenario.play)(&stage, scenario.rounds);
    let records = stage.records_with_pauses();
    let (errors, terms) = judge::judge(&records);
    if scenario.peer.is_none() && !errors.is_empty() {
        stage.show_logs();
    }
    println!("{}: {} exchanges in {terms} terms, {errors:?}", stage.namespace, records.len());
    Lane { times, errors, overlap: judge::overlap(&records) }
}
