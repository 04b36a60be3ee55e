//! The command line of the simulator.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use cluster_lease::{Branch, Mutant};
use lease_simulator::exhaustive::{self, Faults, Report, Scope};
use lease_simulator::judge::{Invariant, Violation};
use lease_simulator::plan::{Breakage, Plan};
use lease_simulator::runs::{self, ALL, Batch, HARM, Summary};
use lease_simulator::shrink::shrink;
use lease_simulator::world::World;

/// Puts the election to the test.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run random schedules and judge them.
    Simulate {
        /// How many schedules.
        #[arg(long, default_value_t = 100_000)]
        schedules: u64,
        /// The seed of the first schedule; the others follow it.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Break a rule on purpose.
        #[arg(long, value_parser = breakage)]
        mutant: Option<Breakage>,
        /// How many threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Run one schedule and print everything that happens.
    Replay {
        /// The seed of the schedule.
        #[arg(long)]
        seed: u64,
        /// Break a rule on purpose.
        #[arg(long, value_parser = breakage)]
        mutant: Option<Breakage>,
        /// Print the schedule as it was drawn instead of the smallest one that fails alike.
        #[arg(long)]
        whole: bool,
        /// Pass over violations that do no harm by themselves, as `mutants` does for its last column.
        #[arg(long)]
        harm: bool,
    },
    /// Break every rule in turn until the judge notices, and print a table.
    Mutants {
        /// After how many schedules to give up on one.
        #[arg(long, default_value_t = 200_000)]
        schedules: u64,
        /// How many schedules to spend on seeing the harm itself: two leaders, a term that falls, a state that is lost.
        #[arg(long, default_value_t = 20_000)]
        harm: u64,
        /// Only this one.
        #[arg(long, value_parser = breakage)]
        mutant: Option<Breakage>,
        /// The seed of the first schedule.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Visit every schedule of a small scope.
    Exhaustive {
        /// Stop after so many steps.
        #[arg(long, default_value_t = 60_000_000)]
        most: usize,
        /// Run the smaller scopes only.
        #[arg(long)]
        quick: bool,
        /// How many threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
}

fn breakage(name: &str) -> Result<Breakage, String> {
    let all = Breakage::all();
    let known = || all.iter().map(|breakage| breakage.name()).collect::<Vec<_>>().join(", ");
    all.iter().copied().find(|breakage| breakage.name() == name).ok_or_else(|| format!("one of {}", known()))
}

fn main() -> ExitCode {
    let good = match Arguments::parse().verb {
        Verb::Simulate { schedules, seed, mutant, threads } => simulate(schedules, seed, mutant, threads),
        Verb::Replay { seed, mutant, whole, harm } => {
            replay(seed, mutant, whole, if harm { HARM } else { ALL })
        }
        Verb::Exhaustive { most, quick, threads } => every_schedule(most, quick, threads),
        Verb::Mutants { schedules, harm, mutant, seed, threads } => {
            let all = mutant.map_or_else(Breakage::all, |mutant| vec![mutant]);
            mutants(&all, schedules, harm, seed, threads)
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn simulate(schedules: u64, seed: u64, mutant: Option<Breakage>, threads: usize) -> bool {
    println!("{schedules} schedules from seed {seed} on {threads} threads");
    let started = Instant::now();
    let batch = Batch { first: seed, schedules, threads, breakage: mutant, wanted: ALL, enough: 20 };
    let summary = runs::run(batch);
    let seconds = started.elapsed().as_secs_f64();
    print_summary(&summary, seconds);
    summary.failures.is_empty()
}

fn print_summary(summary: &Summary, seconds: f64) {
    println!("rule branches:");
    for (branch, count) in Branch::ALL.iter().zip(&summary.coverage) {
        println!("  {:<28} {count:>12}", branch.name());
    }
    let Summary { schedules, terms, stores, happenings, busiest, simulated, slowest, tightest, .. } = summary;
    println!("{schedules} schedules in {seconds:.1} s ({:.0} per second)", *schedules as f64 / seconds);
    println!(
        "{terms} terms, {stores} states stored, {happenings} happenings, {:.1} simulated days",
        simulated / 86_400.0
    );
    println!("busiest schedule: {} happenings (seed {})", busiest.0, busiest.1);
    println!(
        "slowest to lead after healing: {:.3} s (seed {}); at most {:.1} % of the time allowed",
        slowest.0 as f64 / 1e9,
        slowest.1,
        tightest * 100.0
    );
    println!("{} schedules broke what is left of A6, and two worked at once", summary.unknowable);
    println!("{} schedules violated something", summary.failures.len());
    for (seed, violations) in &summary.failures {
        for violation in violations {
            println!("  seed {seed}: {violation}");
        }
    }
}

fn replay(seed: u64, mutant: Option<Breakage>, whole: bool, wanted: &[Invariant]) -> bool {
    let mut plan = Plan::new(seed, mutant);
    let verdict = World::run(&plan, false, wanted);
    let is_wanted = |violation: &&Violation| wanted.contains(&violation.invariant);
    if let Some(violation) = verdict.violations.iter().find(is_wanted).filter(|_| !whole) {
        plan = shrink(plan, violation.invariant);
    }
    println!("{plan:#?}");
    let verdict = World::run(&plan, true, wanted);
    for violation in &verdict.violations {
        println!("{violation}");
    }
    verdict.violations.is_empty()
}

fn mutants(all: &[Breakage], schedules: u64, harm: u64, seed: u64, threads: usize) -> bool {
    println!("| mutant | caught by | schedules until caught | two leaders, a falling term or a lost state |");
    println!("|---|---|---|---|");
    let (mut caught, mut total, mut endless) = (0, 0, Vec::new());
    for &breakage in all {
        let batch =
            Batch { first: seed, schedules, threads, breakage: Some(breakage), wanted: ALL, enough: 1 };
        let summary = runs::run(batch);
        let first = summary.failures.first();
        let by = first.and_then(|(_, violations)| violations.first());
        let by = by.map_or("nobody".to_owned(), |violation| format!("{:?}", violation.invariant));
        let after = first.map_or(format!("none of {schedules}"), |(at, _)| (at - seed + 1).to_string());
        let batch = Batch { schedules: harm, wanted: HARM, enough: usize::MAX, ..batch };
        let failures = runs::run(batch).failures;
        let is_endless = |violations: &[Violation]| {
            violations.iter().any(|violation| violation.invariant == Invariant::End)
        };
        let harmful = failures.iter().filter(|(_, violations)| !is_endless(violations)).count();
        println!("| {} | {by} | {after} | {harmful} of {harm} |", breakage.name());
        let named = |(seed, violations): &(u64, Vec<Violation>)| {
            let seed = is_endless(violations).then_some(seed)?;
            Some(format!("seed {seed} with {}", breakage.name()))
        };
        endless.extend(failures.iter().filter_map(named));
        total += 1;
        caught += u32::from(first.is_some());
    }
    println!();
    println!("{caught} of {total} caught");
    if !endless.is_empty() {
        println!("schedules that did not end: {}", endless.join(", "));
    }
    caught == total
}

/// The scopes, smallest first.
fn scopes(quick: bool) -> Vec<(&'static str, Scope)> {
    let scope = |members, ticks, faults| Scope { members, ticks, faults, mutant: None };
    let none = Faults::default();
    let small = vec![
        ("2 members, 1 crash", scope(2, 8, Faults { crashes: 1, ..none })),
        ("2 members, 1 pause", scope(2, 8, Faults { pauses: 1, ..none })),
        ("2 members, 1 partition", scope(2, 6, Faults { partitions: 1, ..none })),
        ("2 members, 1 deletion", scope(2, 7, Faults { deletions: 1, ..none })),
        ("2 members, 1 accusation", scope(2, 7, Faults { evidence: 1, ..none })),
        (
            "2 members, 1 resignation, 1 duplicate",
            scope(2, 6, Faults { resignations: 1, duplicates: 1, ..none }),
        ),
        ("2 members, 1 pause, 1 duplicate", scope(2, 6, Faults { pauses: 1, duplicates: 1, ..none })),
        ("2 members, 1 deletion, 1 partition", scope(2, 4, Faults { deletions: 1, partitions: 1, ..none })),
        ("2 members, 1 accusation, 1 pause", scope(2, 4, Faults { evidence: 1, pauses: 1, ..none })),
    ];
    let three = Faults { pauses: 1, deletions: 1, partitions: 1, ..none };
    let large = vec![
        ("3 members, 1 pause", scope(3, 4, Faults { pauses: 1, ..none })),
        ("3 members, 1 deletion", scope(3, 4, Faults { deletions: 1, ..none })),
        ("2 members, 1 pause, 1 deletion, 1 partition", scope(2, 3, three)),
        ("2 members, 1 crash, 1 pause, 1 deletion, 1 partition", scope(2, 3, Faults { crashes: 1, ..three })),
    ];
    if quick { small } else { small.into_iter().chain(large).collect() }
}

fn every_schedule(most: usize, quick: bool, threads: usize) -> bool {
    let mut good = true;
    println!("| scope | ticks | states | steps | longest | seconds | every state | result |");
    println!("|---|---|---|---|---|---|---|---|");
    for (name, scope) in scopes(quick) {
        let report = exhaustive::explore(scope, threads, most);
        let Report { states, steps, depth, seconds, complete, .. } = report;
        let result = report.violation.as_ref().map(|(by, _)| format!("violates {by:?}"));
        let result = result.unwrap_or(if complete { "holds" } else { "none found" }.to_owned());
        let every = if complete { "yes" } else { "no" };
        println!(
            "| {name} | {} | {states} | {steps} | {depth} | {seconds:.1} | {every} | {result} |",
            scope.ticks
        );
        if let Some((_, steps)) = &report.violation {
            println!("{steps:?}");
            good = false;
        }
    }
    mutants_exhaustively(threads);
    good
}

/// Breaks each rule in the scopes, smallest first, until one shows it. Not every rule can be expressed
/// there: clocks do not err, and two deletions in one gap of a watch are more than a scope allows.
fn mutants_exhaustively(threads: usize) {
    println!();
    println!("| mutant | caught by | scope | steps of the schedule | states |");
    println!("|---|---|---|---|---|");
    for mutant in Mutant::ALL {
        let found = scopes(true).into_iter().find_map(|(name, scope)| {
            let report = exhaustive::explore(Scope { mutant: Some(*mutant), ..scope }, threads, 600_000);
            report.violation.map(|(by, steps)| (by, name, steps.len(), report.states))
        });
        match found {
            Some((by, name, steps, states)) => {
                println!("| {} | {by:?} | {name} | {steps} | {states} |", mutant.name());
            }
            None => println!("| {} | not in these scopes | | | |", mutant.name()),
        }
    }
}
