//! A small part of the proof, in debug builds, where the core's own assertions are checked too.

use cluster_lease::Mutant;
use lease_simulator::exhaustive::{self, Faults, Scope};
use lease_simulator::judge::Invariant;
use lease_simulator::plan::{Breakage, Plan};
use lease_simulator::runs::{self, ALL, Batch};
use lease_simulator::shrink::shrink;
use lease_simulator::world::World;

fn batch(schedules: u64, breakage: Option<Breakage>) -> Batch<'static> {
    Batch { first: 1, schedules, threads: 2, breakage, wanted: ALL, enough: 1 }
}

#[test]
fn no_schedule_violates_anything() {
    let summary = runs::run(batch(600, None));
    assert!(summary.failures.is_empty(), "{:?}", summary.failures);
    assert_eq!(summary.schedules, 600);
    assert!(summary.terms > 1_500, "{} terms", summary.terms);
}

/// The rarer ones need the release build: see the table in PROOF.md.
#[test]
fn every_frequent_mutant_is_caught() {
    let rare = [Mutant::RecreatedSession, Mutant::RecreatedLock, Mutant::StaleSnapshot];
    for breakage in Breakage::all() {
        if rare.iter().any(|rare| breakage == Breakage::Rule(*rare)) {
            continue;
        }
        let summary = runs::run(batch(1_500, Some(breakage)));
        assert!(!summary.failures.is_empty(), "{} is not caught", breakage.name());
    }
}

#[test]
fn a_seed_gives_the_same_schedule_and_the_same_verdict_every_time() {
    let run = |seed| {
        let plan = Plan::new(seed, None);
        let verdict = World::run(&plan, false, ALL);
        (verdict.terms, verdict.happenings, verdict.coverage)
    };
    for seed in 1..20 {
        assert_eq!(run(seed), run(seed));
    }
}

/// As one of the mutant `StaleSnapshot`, which asks for a list with each list that it gets.
#[test]
fn a_schedule_that_does_not_end_is_an_error_of_its_seed() {
    let mut plan = Plan::new(1, None);
    assert!(World::run(&plan, false, ALL).violations.is_empty());
    plan.most_happenings = 100;
    let violations = World::run(&plan, false, ALL).violations;
    assert!(violations.iter().any(|violation| violation.invariant == Invariant::End), "{violations:?}");
}

#[test]
fn a_failing_schedule_shrinks_to_one_that_fails_alike() {
    let breakage = Some(Breakage::Rule(Mutant::AbsentLockAtOnce));
    let summary = runs::run(batch(100, breakage));
    let (seed, violations) = &summary.failures[0];
    let invariant = violations[0].invariant;
    let plan = Plan::new(*seed, breakage);
    let small = shrink(plan.clone(), invariant);
    assert!(small.faults.len() <= plan.faults.len());
    let verdict = World::run(&small, false, &[invariant]);
    assert!(verdict.violations.iter().any(|violation| violation.invariant == invariant));
}

#[test]
fn a_small_scope_holds_exhaustively_and_its_mutants_fail() {
    let faults = Faults { pauses: 1, ..Faults::default() };
    let scope = Scope { members: 2, ticks: 5, faults, mutant: None };
    let report = exhaustive::explore(scope, 2, 10_000_000);
    assert!(report.violation.is_none() && report.complete, "{report:?}");
    assert!(report.terms.0, "a takeover is in the scope");
    for mutant in [Mutant::RelativeStop, Mutant::TakeWithoutKill, Mutant::DeadlineIgnored] {
        let report = exhaustive::explore(Scope { mutant: Some(mutant), ..scope }, 2, 1_000_000);
        assert!(report.violation.is_some(), "{} is not caught", mutant.name());
    }
}
